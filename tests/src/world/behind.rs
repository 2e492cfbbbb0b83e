//! Core: nodes behind agents: small devices that number their own records and keep them until their agent has
//! acknowledged them. The agent dates them and sends them on under the node's name.
//!
//! Between a node and its agent lies a line that treats packets as the run's weather says. It is cut when the
//! agent dies; a node that restarts goes on with its flash. All choices here come from dice of their own, so
//! that a run without such nodes does not depend on them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use headwater_agent::pipeline::engine::Way;
use headwater_proto::ids::{DeviceId, Lane, Stream};
use headwater_proto::time::{Millis, Now, UnixMicros};

use super::course::Course;
use super::device::Device;
use super::dice::Dice;
use super::generator::{BEHIND_NAMES, Key, Made};
use super::given::Number;
use super::link::{Weather, take};
use super::plan::{BEHIND, Plan};
use crate::node::Node;

/// Records that a node makes at once, at most.
const MAX_RECORDS: u64 = 3;
/// Samples of a record, at most.
const MAX_SAMPLES: u32 = 4;
/// Packets that pass on a line in one step, at most.
const MAX_PACKETS: u64 = 6;
/// Microseconds between two samples of a record.
const SAMPLE_US: i64 = 1_000;
/// Restarts of one node between which faults strike, at most: each is an epoch, of which the collector keeps
/// account at the head of every segment of its journal, and the world's segments are small.
const MAX_RESTARTS: u64 = 5;

/// A line that is plugged in at both ends.
#[derive(Debug, Default)]
struct Line {
    up: VecDeque<Vec<u8>>,
    down: VecDeque<Vec<u8>>,
}

/// One node and its line.
pub(super) struct Wired {
    node: Node,
    /// Place of the device that it is behind.
    agent: usize,
    /// All those that it was ever behind.
    agents: BTreeSet<usize>,
    /// What the agent calls its line.
    way: Way,
    line: Option<Line>,
    /// When its boot began, on the world's clock.
    booted: Millis,
    restarts: u64,
    /// Time of its latest sample.
    last: UnixMicros,
    /// What it made, by record.
    records: BTreeMap<Number, Vec<Key>>,
}

/// All of them.
pub(super) struct Behind {
    dice: Dice,
    nodes: Vec<Wired>,
    next_way: Way,
    agents: usize,
}

impl Behind {
    /// The nodes of a run, each at an agent, none of them connected.
    pub(super) fn new(plan: &Plan, seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ BEHIND);
        let wired = |place| {
            let agent = dice.index(plan.devices);
            Wired {
                node: Node::new(&format!("{BEHIND_NAMES}{place}"), dice.bits()),
                agent,
                agents: BTreeSet::from([agent]),
                way: place as Way,
                line: None,
                booted: Millis(0),
                restarts: 0,
                last: UnixMicros(0),
                records: BTreeMap::new(),
            }
        };
        let nodes = (0..plan.behind).map(wired).collect();
        Self {
            dice,
            nodes,
            next_way: plan.behind as Way,
            agents: plan.devices,
        }
    }

    /// Each of them.
    pub(super) fn nodes(&self) -> &[Wired] {
        &self.nodes
    }

    /// One step: some make records, talk to their agents, restart or lose their lines. Returns the agents that
    /// heard something.
    pub(super) fn step(
        &mut self,
        devices: &mut [Device],
        made: &mut Made,
        course: &mut Course,
    ) -> Vec<usize> {
        let mut heard = Vec::new();
        for at in 0..self.nodes.len() {
            match self.dice.below(10) {
                0..=1 => {
                    for _ in 0..=self.dice.below(MAX_RECORDS) {
                        let samples = 1 + self.dice.below(u64::from(MAX_SAMPLES));
                        self.nodes[at].make(samples, made, course.now);
                    }
                }
                2..=3 => self.nodes[at].plug_in(devices, course.now),
                4..=8 => {
                    let packets = 1 + self.dice.below(MAX_PACKETS);
                    let (weather, dice) = (course.plan.weather, &mut self.dice);
                    if self.nodes[at].talk(packets, weather, devices, dice, course.now) {
                        heard.push(self.nodes[at].agent);
                    }
                }
                _ => {}
            }
            self.disturb(at, devices, course);
        }
        heard
    }

    /// Cuts a line, restarts a node, or carries it to another agent, now and then.
    fn disturb(&mut self, at: usize, devices: &mut [Device], course: &mut Course) {
        let plan = course.plan;
        if self.dice.one_in(plan.cuts) {
            course.note(|| format!("the line of node {at} is cut"));
            self.cut(at, devices, course.now);
        }
        if self.dice.one_in(plan.deaths) && self.nodes[at].restarts < MAX_RESTARTS {
            course.note(|| format!("node {at} restarts"));
            course.seen.nodes_restarted += 1;
            // Its agent need not notice that.
            if self.dice.one_in(2) {
                self.cut(at, devices, course.now);
            }
            self.nodes[at].restart(course.now);
        }
        if self.dice.one_in(plan.moves) {
            let agent = self.dice.index(self.agents);
            course.note(|| format!("node {at} is carried to device {agent}"));
            self.cut(at, devices, course.now);
            let node = &mut self.nodes[at];
            course.seen.nodes_moved += u64::from(node.agent != agent);
            node.agent = agent;
            node.agents.insert(agent);
        }
    }

    /// A line is cut, and both ends notice it.
    fn cut(&mut self, at: usize, devices: &mut [Device], now: Now) {
        let node = &mut self.nodes[at];
        devices[node.agent].lose_way(node.way, now);
        node.unplug(now);
        node.way = self.next_way;
        self.next_way += 1;
    }

    /// An agent says something on a way.
    pub(super) fn answer(&mut self, agent: usize, way: Way, answer: Vec<u8>) {
        let mut nodes = self.nodes.iter_mut();
        let node = nodes.find(|node| (node.agent, node.way) == (agent, way));
        if let Some(line) = node.and_then(|node| node.line.as_mut()) {
            line.down.push_back(answer);
        }
    }

    /// An agent died: the lines of its nodes are cut.
    pub(super) fn agent_died(&mut self, agent: usize, course: &mut Course) {
        let mut nodes = self.nodes.iter_mut().filter(|node| node.agent == agent);
        let any = nodes.next();
        course.seen.nodes_agents_died += u64::from(any.is_some());
        for node in any.into_iter().chain(nodes) {
            node.unplug(course.now);
        }
    }

    /// The faults are over. Every node restarts, so that the end of its life before is told, and makes a last
    /// record.
    pub(super) fn calm(&mut self, made: &mut Made, course: &mut Course) {
        for node in &mut self.nodes {
            node.restart(course.now);
            node.make(1, made, course.now);
        }
    }

    /// All lines are plugged in, and what is to be said is said. Returns the agents that heard something.
    pub(super) fn exchange(&mut self, devices: &mut [Device], now: Now) -> Vec<usize> {
        let (fair, mut heard) = (Weather::default(), Vec::new());
        for node in &mut self.nodes {
            node.plug_in(devices, now);
            while node.talk(1, fair, devices, &mut self.dice, now) {
                heard.push(node.agent);
            }
        }
        heard.dedup();
        heard
    }

    /// Whether all that they made is acknowledged.
    pub(super) fn is_drained(&self) -> bool {
        self.nodes.iter().all(|node| node.node.is_drained())
    }

    /// What stands open.
    pub(super) fn describe(&self) -> String {
        let nodes = self.nodes.iter().map(|wired| {
            let Wired { node, agent, .. } = wired;
            let (id, plugged, drained) = (node.id(), wired.line.is_some(), node.is_drained());
            format!("{id} at {agent}, plugged in {plugged}, drained {drained}")
        });
        format!("{:?}", nodes.collect::<Vec<_>>())
    }
}

impl Wired {
    /// Its device id.
    pub(super) const fn id(&self) -> &DeviceId {
        self.node.id()
    }

    /// Places of the devices that it was ever behind.
    pub(super) fn agents(&self) -> impl Iterator<Item = usize> {
        self.agents.iter().copied()
    }

    /// What it made, by record.
    pub(super) const fn records(&self) -> &BTreeMap<Number, Vec<Key>> {
        &self.records
    }

    /// Records that its agents refused for good.
    pub(super) const fn refused(&self) -> u64 {
        self.node.refused()
    }

    /// What its clocks show: its uptime counts from its boot, and its wall clock is right.
    const fn clock(&self, now: Now) -> Now {
        Now {
            mono: Millis(now.mono.since(self.booted)),
            wall: now.wall,
        }
    }

    /// Makes a record. Of several within one moment the later ones stand behind the earlier ones.
    fn make(&mut self, samples: u64, made: &mut Made, now: Now) {
        let first = self.node.made();
        let time = UnixMicros(now.wall.0.max(self.last.0 + SAMPLE_US));
        let shown = Now {
            wall: time,
            ..self.clock(now)
        };
        let number = u32::try_from(samples).unwrap_or(MAX_SAMPLES);
        let (epoch, seq) = self.node.make(number, shown);
        let stream = Stream {
            device: self.node.id().clone(),
            lane: Lane::Normal,
            epoch,
        };
        let mut keys = Vec::new();
        for (count, k) in (first..self.node.made()).zip(0..) {
            self.last = UnixMicros(time.0 + k * SAMPLE_US);
            keys.push(made.note(self.node.id().as_str(), count, self.last));
        }
        self.records.insert((stream, seq), keys);
    }

    /// The line is plugged in, if the agent runs.
    fn plug_in(&mut self, devices: &[Device], now: Now) {
        if self.line.is_none() && devices[self.agent].engine.is_some() {
            self.line = Some(Line::default());
            let now = self.clock(now);
            self.node.connect(now.mono);
        }
    }

    /// The line is gone, with what was on it.
    fn unplug(&mut self, now: Now) {
        if self.line.take().is_some() {
            let now = self.clock(now);
            self.node.disconnect(now.mono);
        }
    }

    /// It loses power, and starts again with its flash.
    fn restart(&mut self, now: Now) {
        self.unplug(now);
        self.booted = now.mono;
        self.restarts += 1;
        self.node.restart();
    }

    /// So many packets pass each way. Whether any did.
    fn talk(
        &mut self,
        packets: u64,
        weather: Weather,
        devices: &mut [Device],
        dice: &mut Dice,
        now: Now,
    ) -> bool {
        let clock = self.clock(now);
        let Some(line) = &mut self.line else {
            return false;
        };
        let device = &mut devices[self.agent];
        let mut moved = false;
        for _ in 0..packets {
            if let Some(answer) = take(&mut line.down, weather, dice) {
                moved = true;
                self.node.take(&answer, clock.mono);
            }
            line.up.extend(self.node.next_packet(clock));
            if let Some(packet) = take(&mut line.up, weather, dice) {
                moved = true;
                device.hear_node(self.way, &packet, now);
            }
            if device.is_crashed() {
                break;
            }
        }
        moved
    }
}
