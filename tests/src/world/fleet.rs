//! Core: the fleet: agents, the gateway that speaks for some of them, plain devices, and what is on its
//! way between them and the collector.
//!
//! It holds nothing of the collector: what the collector hears of it comes back as events.

use std::sync::Arc;

use bytes::Bytes;
use headwater_agent::pipeline::engine::Event as AgentEvent;
use headwater_collector::pipeline::custody::{Event, Output};
use headwater_gate::ConnId;
use headwater_proto::ids::DeviceId;
use headwater_proto::time::{Millis, Now};
use headwater_spool::FakeDisk;

use super::behind::Behind;
use super::collector::{GATEWAYS, MAX_AGENTS};
use super::course::Course;
use super::device::Device;
use super::dice::Dice;
use super::generator::{Made, SOURCES};
use super::link::{Link, Weather};
use super::plain::Plain;
use super::plan::Plan;

/// Devices of one run, clones counted.
const MAX_DEVICES: usize = 6;
/// Rounds that one of several devices of a name keeps the connection.
const ROUNDS_PER_CLONE: u64 = 12;

/// A gateway's side of its connection to the collector.
#[derive(Debug, Default)]
struct Gateway {
    /// The connection, which its nodes share.
    conn: Option<ConnId>,
    /// Until when it has none.
    away_until: Option<Millis>,
}

/// Shortest and longest time in which a gateway cannot reach the collector: longer than a device's own epoch
/// may be absent.
const MIN_AWAY_MS: u64 = 10_000;
const MAX_AWAY_MS: u64 = 90_000;

/// Everybody who sends.
pub(super) struct Fleet {
    pub(super) devices: Vec<Device>,
    /// By device: its connection, if it has one.
    links: Vec<Option<Link>>,
    pub(super) plain: Vec<Plain>,
    gateways: [Gateway; GATEWAYS.len()],
    next_conn: u64,
    /// Copies of disks, by device.
    backups: Vec<(usize, FakeDisk)>,
    /// The nodes behind agents.
    pub(super) behind: Behind,
    /// Every reading.
    pub(super) made: Made,
}

impl Fleet {
    /// The devices of a run, switched off.
    pub(super) fn new(plan: &Plan, seed: u64, dice: &mut Dice) -> Self {
        let device = |name: String, place| {
            let id = DeviceId::new(&name).expect("a plain name");
            Device::new(id, place, plan.lane_bytes)
        };
        let parts = if plan.shared_nodes { 2 } else { 1 };
        let agents =
            (0..plan.devices.min(MAX_AGENTS)).map(|place| device(format!("agent-{place}"), place));
        let nodes = (0..plan.nodes * parts).map(|place| {
            let (node, part) = (place / parts, place % parts);
            let mut node = device(format!("node-{node}"), plan.devices + place);
            node.gateway = Some(part);
            node.part = (part as u64, parts as u64);
            node
        });
        let mut devices: Vec<Device> = agents.chain(nodes).collect();
        if plan.wild_clocks {
            let devices = devices.iter_mut();
            devices.for_each(|device| device.draw_clock(true, dice));
        }
        Self {
            links: devices.iter().map(|_| None).collect(),
            devices,
            plain: (0..plan.plain)
                .map(|place| Plain::new(format!("plain-{place}")))
                .collect(),
            gateways: Default::default(),
            next_conn: 1,
            backups: Vec::new(),
            behind: Behind::new(plan, seed),
            made: Made::new(seed),
        }
    }

    fn next_conn(&mut self) -> ConnId {
        let conn = ConnId(self.next_conn);
        self.next_conn += 1;
        conn
    }

    /// A source of a device reads.
    pub(super) fn read_sensors(&mut self, place: usize, course: &mut Course) {
        let source = course.dice.index(SOURCES.len());
        let count = course.dice.below(12);
        self.devices[place].make(source, count);
        self.devices[place].offer(source, count + 3, &mut self.made, course.now);
    }

    /// Offers what every source of a device has and did not offer yet.
    pub(super) fn offer_all(&mut self, place: usize, now: Now) {
        for source in 0..SOURCES.len() {
            self.devices[place].offer(source, 50, &mut self.made, now);
        }
    }

    /// Takes what an agent says, one command after the other; between any two it may die.
    pub(super) fn pump(&mut self, place: usize, course: &mut Course) -> Option<Event> {
        loop {
            if self.devices[place].is_crashed() {
                return self.kill(place, course);
            }
            self.devices[place].hear_settled();
            for (way, answer) in self.devices[place].take_answers(course.now) {
                self.behind.answer(place, way, answer);
                if course.dies_here() {
                    return self.kill(place, course);
                }
            }
            let linked = self.links[place].is_some();
            let bytes = self.devices[place].next_publish(linked, course.now);
            if self.devices[place].is_crashed() {
                // It died within this command.
                return self.kill(place, course);
            }
            let bytes = bytes?;
            if let Some(link) = &mut self.links[place] {
                link.send_up(bytes);
            }
            if course.dies_here() {
                return self.kill(place, course);
            }
        }
    }

    /// Hands what the collector says to those whom it concerns.
    pub(super) fn hear(&mut self, output: Output, course: &mut Course) {
        match output {
            Output::Send { conn, payload } => {
                // A gateway hands on to all its nodes; each takes what names it.
                let links = self.links.iter_mut().flatten();
                for link in links.filter(|link| link.conn == conn) {
                    link.send_down(payload.clone());
                }
            }
            Output::PubAck { conn, token } => {
                let plain = self.plain.iter_mut();
                for plain in plain.filter(|plain| plain.conn == Some(conn)) {
                    plain.acknowledge(token);
                }
            }
            Output::Close { conn, reason } => {
                course.note(|| format!("collector closes {conn:?}: {reason:?}"));
                self.cut_all(conn, course.now);
                let plain = self.plain.iter_mut();
                for plain in plain.filter(|plain| plain.conn == Some(conn)) {
                    plain.disconnect();
                }
            }
            // Another thread's work, or a word for the operator.
            Output::Read(_)
            | Output::Keep(_)
            | Output::Find(_)
            | Output::Clock(_)
            | Output::Shared { .. }
            | Output::Crowded { .. } => {}
        }
    }

    /// What arrives at the collector next from a device, if anything does.
    pub(super) fn take_up(
        &mut self,
        place: usize,
        weather: Weather,
        course: &mut Course,
    ) -> Option<Event> {
        let link = self.links[place].as_mut()?;
        let (token, payload) = link.take_up(weather, &mut course.dice)?;
        let (conn, mut device) = (link.conn, self.devices[place].id.clone());
        if let Some(gateway) = self.devices[place].gateway {
            course.seen.via_gateway += 1;
            // A gateway publishes on the topic of its node, or on its own: it must if it is not the only one
            // that may hold what is the node's.
            if self.devices[place].part.1 > 1 || course.dice.one_in(2) {
                device = DeviceId::new(GATEWAYS[gateway]).expect("a plain name");
            }
        }
        Some(Event::Up {
            conn,
            device,
            payload: Bytes::from(payload),
            token: Some(token),
        })
    }

    /// Hands a device what arrives there next. False if nothing does.
    pub(super) fn take_down(
        &mut self,
        place: usize,
        weather: Weather,
        course: &mut Course,
    ) -> bool {
        let link = self.links[place].as_mut();
        let message = link.and_then(|link| link.take_down(weather, &mut course.dice));
        if let Some(payload) = &message {
            self.devices[place].handle(AgentEvent::Message(payload), course.now);
        }
        message.is_some()
    }

    /// Messages of a device on their way up.
    pub(super) fn waiting_up(&self, place: usize) -> usize {
        self.links[place].as_ref().map_or(0, Link::waiting_up)
    }

    /// Whether nothing is on its way to or from a device.
    pub(super) fn is_idle(&self, place: usize) -> bool {
        self.links[place].as_ref().is_none_or(Link::is_idle)
    }

    /// Connects a device; another of the same name is thrown out, as MQTT has it. `None` if there is
    /// nothing to connect.
    pub(super) fn connect(&mut self, place: usize, course: &mut Course) -> Option<Vec<Event>> {
        if self.devices[place].engine.is_none() || self.links[place].is_some() {
            return None;
        }
        let gateway = self.devices[place].gateway;
        let away_until = gateway.and_then(|gateway| self.gateways[gateway].away_until);
        if away_until.is_some_and(|until| course.now.mono < until) {
            return None;
        }
        let mut events = Vec::new();
        for other in 0..self.devices.len() {
            if other != place && self.is_rival(other, place) {
                events.extend(self.hang_up(other, course.now));
            }
        }
        let known = gateway.and_then(|gateway| self.gateways[gateway].conn);
        let conn = known.unwrap_or_else(|| {
            let conn = self.next_conn();
            let name = self.devices[place].id.as_str();
            let client = Arc::from(gateway.map_or(name, |gateway| GATEWAYS[gateway]));
            events.push(Event::Connected { conn, client });
            conn
        });
        course.note(|| format!("device {place} connects as {conn:?}"));
        // Each connection of a node has tokens of its own.
        let turn = self.next_conn().0;
        self.links[place] = Some(match gateway {
            Some(gateway) => {
                self.gateways[gateway].conn = Some(conn);
                Link::of_node(conn, turn)
            }
            None => Link::new(conn),
        });
        self.devices[place].handle(AgentEvent::LinkUp, course.now);
        Some(events)
    }

    /// The connection of a device ends at both sides; what was on its way is gone. A node is lost to
    /// its gateway, whose own connection stays.
    pub(super) fn hang_up(&mut self, place: usize, now: Now) -> Option<Event> {
        let conn = self.links[place].as_ref()?.conn;
        self.cut(place, now);
        let device = &self.devices[place];
        let is_direct = device.gateway.is_none();
        is_direct.then(|| disconnected(conn, device.id.as_str()))
    }

    /// A gateway's connection ends at both sides, for all its nodes.
    pub(super) fn hang_up_gateway(&mut self, gateway: usize, now: Now) -> Option<Event> {
        let conn = self.gateways[gateway].conn?;
        self.cut_all(conn, now);
        Some(disconnected(conn, GATEWAYS[gateway]))
    }

    /// A gateway cannot reach the collector for long.
    pub(super) fn lose_gateway(&mut self, course: &mut Course) -> Option<Event> {
        let gateway = course.dice.index(GATEWAYS.len());
        let ms = MIN_AWAY_MS + course.dice.below(MAX_AWAY_MS - MIN_AWAY_MS);
        course.note(|| format!("{} is away for {ms} ms", GATEWAYS[gateway]));
        course.seen.gateways_away += 1;
        self.gateways[gateway].away_until = Some(course.now.mono.plus(ms));
        self.hang_up_gateway(gateway, course.now)
    }

    /// The plain devices' connections end.
    pub(super) fn hang_up_plain(&mut self) -> Vec<Event> {
        self.plain
            .iter_mut()
            .filter_map(Plain::disconnect)
            .collect()
    }

    /// The gateways' sides of their connections end.
    pub(super) fn forget_gateways(&mut self) {
        let gateways = self.gateways.iter_mut();
        gateways.for_each(|gateway| gateway.conn = None);
    }

    /// Whether two devices have one name at one place: only one of them has a connection at a time.
    fn is_rival(&self, other: usize, place: usize) -> bool {
        let (other, one) = (&self.devices[other], &self.devices[place]);
        other.id == one.id && other.gateway == one.gateway
    }

    /// The devices' side of a connection ends.
    fn cut_all(&mut self, conn: ConnId, now: Now) {
        for gateway in &mut self.gateways {
            gateway.conn = gateway.conn.filter(|known| *known != conn);
        }
        for place in 0..self.links.len() {
            let link = self.links[place].as_ref();
            if link.is_some_and(|link| link.conn == conn) {
                self.cut(place, now);
            }
        }
    }

    /// The device's side of a connection ends.
    pub(super) fn cut(&mut self, place: usize, now: Now) {
        if self.links[place].take().is_some() {
            self.devices[place].handle(AgentEvent::LinkDown, now);
        }
    }

    /// A plain device publishes: its next message, or the one that waits for its PUBACK.
    pub(super) fn publish_plain(&mut self, course: &mut Course) -> Vec<Event> {
        let mut events = Vec::new();
        let place = course.dice.index(self.plain.len());
        if self.plain[place].conn.is_none() {
            let conn = self.next_conn();
            events.push(self.plain[place].connect(conn));
        }
        events.extend(self.plain[place].publish(true));
        if course.dice.one_in(8) {
            // It lost its connection at once, and comes again with what it was not answered for.
            events.extend(self.plain[place].disconnect());
            let conn = self.next_conn();
            events.push(self.plain[place].connect(conn));
            events.extend(self.plain[place].publish(false));
        }
        events
    }

    /// The journal is gone, and with it what plain devices had acknowledged of it.
    pub(super) fn lose_acknowledged(&mut self) {
        let acknowledged = self.plain.iter_mut().map(|plain| &mut plain.acknowledged);
        acknowledged.for_each(Vec::clear);
    }

    /// The same, and plain devices give up what they wait for: it may have been stored before, and then its repeat
    /// is acknowledged.
    pub(super) fn lose_stored(&mut self) {
        self.lose_acknowledged();
        self.plain.iter_mut().for_each(Plain::give_up);
    }

    /// Switches a device on.
    pub(super) fn start(&mut self, place: usize, course: &mut Course) {
        self.devices[place].start(&mut course.dice, course.now);
        let engine = self.devices[place].engine.as_ref();
        let lanes = engine.map(|engine| engine.lanes().map(|l| l.epoch).collect::<Vec<_>>());
        course.note(|| format!("device {place} starts: {lanes:?}"));
    }

    /// A device dies. The collector hears of it sooner or later; here at once.
    pub(super) fn kill(&mut self, place: usize, course: &mut Course) -> Option<Event> {
        let death = course.death(|| format!("device {place}"));
        if self.devices[place].engine.is_some() {
            self.behind.agent_died(place, course);
        }
        let (dice, seen) = (&mut course.dice, &mut course.seen);
        self.devices[place].die(death, dice, seen, course.now);
        self.hang_up(place, course.now)
    }

    /// Somebody copies an SD card, restores a backup, or puts a new card into an old device.
    pub(super) fn disturb(&mut self, place: usize, course: &mut Course) -> Option<Event> {
        match course.dice.below(4) {
            0 if self.devices.len() < MAX_DEVICES => {
                course.note(|| format!("device {place} is cloned"));
                let clone = self.devices[place].cloned(self.devices.len());
                self.devices[place].disturbed = true;
                course.seen.clones += 1;
                self.devices.push(clone);
                self.links.push(None);
                None
            }
            1 => {
                course.note(|| format!("device {place} is backed up"));
                let copy = self.devices[place].disk.process_killed();
                self.backups.push((place, copy));
                None
            }
            2 => {
                let at = self.backups.iter().position(|backup| backup.0 == place)?;
                course.note(|| format!("the backup of device {place} is restored"));
                let left = self.kill(place, course);
                let (_, disk) = self.backups.swap_remove(at);
                self.replace_disk(place, disk);
                left
            }
            _ => {
                course.note(|| format!("device {place} gets an empty disk"));
                let left = self.kill(place, course);
                self.replace_disk(place, FakeDisk::new());
                left
            }
        }
    }

    fn replace_disk(&mut self, place: usize, disk: FakeDisk) {
        let id = self.devices[place].id.clone();
        self.devices[place].disk = disk;
        for device in self.devices.iter_mut().filter(|device| device.id == id) {
            device.disturbed = true;
            device.forgotten = true;
        }
    }

    /// Nodes and their agents talk. Returns the agents that heard something.
    pub(super) fn serve_nodes(&mut self, course: &mut Course) -> Vec<usize> {
        let Self {
            behind,
            devices,
            made,
            ..
        } = self;
        behind.step(devices, made, course)
    }

    /// The same without choices, and in fair weather. Returns the agents that heard something.
    pub(super) fn drain_nodes(&mut self, now: Now) -> Vec<usize> {
        self.behind.exchange(&mut self.devices, now)
    }

    /// The faults of nodes and of their lines are over.
    pub(super) fn calm_nodes(&mut self, course: &mut Course) {
        self.behind.calm(&mut self.made, course);
    }

    /// Whether it is a device's turn in a round of the drain: devices of one name take turns.
    pub(super) fn is_turn(&self, place: usize, round: u64) -> bool {
        let same: Vec<usize> = (0..self.devices.len())
            .filter(|&other| self.is_rival(other, place))
            .collect();
        let turn = usize::try_from(round / ROUNDS_PER_CLONE).unwrap_or(0) % same.len();
        same[turn] == place
    }

    /// Milliseconds until some agent wants to be asked again, if one does.
    pub(super) fn until_something_is_due(&self, now: Now) -> Option<u64> {
        let wakeups = self.devices.iter().filter_map(Device::next_wakeup);
        wakeups.min().map(|at| at.since(now.mono))
    }

    /// Whether everything was sent, and forgotten by its sender.
    pub(super) fn is_drained(&self, stopped: bool) -> bool {
        let drained = |device: &Device| {
            let engine = device.engine.as_ref();
            engine.is_some_and(|engine| engine.progress().is_drained)
                && (stopped || device.has_offered_all())
        };
        self.devices.iter().all(drained)
            && self.links.iter().flatten().all(Link::is_idle)
            && self.plain.iter().all(Plain::is_idle)
            && self.behind.is_drained()
    }

    /// What stands open.
    pub(super) fn describe(&self) -> String {
        let devices: Vec<String> = self
            .devices
            .iter()
            .map(|device| match &device.engine {
                Some(engine) => {
                    let sender = engine.sender();
                    format!(
                        "{} backlog {} open {} credit {} in flight {} offered all {} {:?} {:?} {:?}",
                        device.id,
                        sender.backlog_records(),
                        sender.is_open(),
                        sender.credit(),
                        sender.in_flight_bytes(),
                        device.has_offered_all(),
                        sender.counters(),
                        engine.counters(),
                        engine.node_report(),
                    )
                }
                None => format!("{} is off", device.id),
            })
            .collect();
        let (plain, behind) = (&self.plain, self.behind.describe());
        format!("{devices:?}; plain {plain:?}; nodes {behind}")
    }
}

fn disconnected(conn: ConnId, client: &str) -> Event {
    Event::Disconnected {
        conn,
        client: Arc::from(client),
        orderly: false,
    }
}
