//! Core: where records of nodes meet the rest: hosts and store when a packet comes, store and relays when
//! records are durable, committed or lost. Gaps in a node's stream are records of the agent itself.

use headwater_proto::bundle::{Bundle, BundleHead, Bundles};
use headwater_proto::frame::{Frames, Kind};
use headwater_proto::ids::{DeviceId, Lane, SeqRange, Stream};
use headwater_proto::message::{self, Gap, GapReason, Hello, RejectReason, TimeBase};
use headwater_proto::sabotage::{self, Bug};
use headwater_proto::time::{Base, Now, UnixMicros};
use headwater_spool::Disk;

use super::Engine;
use super::hosts::{Heard, Terms, Way};
use super::outbox::{Here, Out, Sighting};
use super::store::{Lost, NodeOffered as Offered, NodeStore, place_of};
use super::types::{NodeCounters, NodeFault, NodeReport, NodeStatus};
use super::writing::Step;

/// Segments that may go for one record; then its node keeps it.
const VICTIMS_OF_ONE: usize = 8;

impl<D: Disk> Engine<D> {
    /// The engine as nodes see it.
    pub const fn nodes(&mut self, now: Now) -> Relaying<'_, D> {
        Relaying::new(self, now)
    }

    /// How the nodes are doing that speak, or of which something is here.
    #[must_use]
    pub fn node_report(&self) -> NodeReport {
        let status = |device: &DeviceId, connected, backlog_bytes| NodeStatus {
            device: device.clone(),
            connected,
            backlog_records: self.relays.backlog(device),
            backlog_bytes,
        };
        let holders = self.store.nodes.holders();
        let heard = self.hosts.iter().map(|(device, connected)| {
            let bytes = holders.get(device).copied().unwrap_or(0);
            status(device, connected, bytes)
        });
        let silent = holders
            .iter()
            .filter(|(device, _)| !self.hosts.knows(device));
        let silent = silent.map(|(device, bytes)| status(device, false, *bytes));
        NodeReport {
            counters: self.nodes,
            nodes: heard.chain(silent).collect(),
        }
    }
}

/// The engine while records of nodes are dealt with.
pub struct Relaying<'a, D: Disk> {
    engine: &'a mut Engine<D>,
    now: Now,
    /// What was wrong with a packet.
    fault: Option<NodeFault>,
}

impl<'a, D: Disk> Relaying<'a, D> {
    pub(super) const fn new(engine: &'a mut Engine<D>, now: Now) -> Self {
        Self {
            engine,
            now,
            fault: None,
        }
    }

    /// Takes in a packet of a node: frames back to back, as in a publish. Returns what was wrong with it.
    ///
    /// - `way`: where it came from, and where answers go.
    /// - `allows`: whether a device may speak that way.
    pub fn packet(
        &mut self,
        way: Way,
        allows: &dyn Fn(&DeviceId) -> bool,
        packet: &[u8],
    ) -> Option<NodeFault> {
        self.take(way, allows, packet);
        self.sync_if_due();
        self.answer();
        self.fault.take()
    }

    /// Counts what a source of nodes handed over. How far that is durable its nodes hear by answers.
    pub fn pass(&mut self, source: usize) {
        self.engine.intake.pass(source);
    }

    /// A way to nodes is gone.
    pub fn way_gone(&mut self, way: Way) {
        self.engine.hosts.gone(way);
    }

    /// Ways to nodes that are to end: all that spoke there speak elsewhere now.
    pub fn take_left(&mut self) -> Vec<Way> {
        self.engine.hosts.take_left()
    }

    /// What is to be said to nodes, and on which way. An answer may be lost.
    pub fn take_answers(&mut self) -> Vec<(Way, Vec<u8>)> {
        self.engine.hosts.take_answers()
    }

    fn nodes(&mut self) -> &mut NodeStore<D> {
        &mut self.engine.store.nodes
    }

    fn counters(&mut self) -> &mut NodeCounters {
        &mut self.engine.nodes
    }

    /// Time has passed.
    pub(super) fn tick(&mut self) {
        self.sync_if_due();
        let now = self.now.mono;
        self.engine.relays.tick(now);
        let (relays, hosts) = (&mut self.engine.relays, &self.engine.hosts);
        relays.forget_idle(&|device| hosts.knows(device));
        self.forget_dropped();
        self.wait_for_dates();
        self.answer();
    }

    /// Records of a boot of a node that is over wait until the record has arrived that dates it.
    fn wait_for_dates(&mut self) {
        let (lanes, outbox) = (&self.engine.store.lanes, &self.engine.outbox);
        let is_on_its_way = |device: &DeviceId, boot| {
            let dated = lanes.dated_by(device, boot);
            dated.is_some_and(|record| !outbox.is_delivered(record))
        };
        let now = self.now.mono;
        self.engine.relays.withhold(&is_on_its_way, now);
    }

    fn sync_if_due(&mut self) {
        let due = self.engine.store.nodes.sync_at();
        if due.is_some_and(|at| at <= self.now.mono) {
            self.sync();
        }
    }

    /// Makes the open group durable.
    pub(super) fn sync(&mut self) {
        self.nodes().sync();
        self.pass_on();
    }

    /// Tells the relays what became durable.
    pub(super) fn pass_on(&mut self) {
        for durable in self.nodes().take_news() {
            let Stream {
                device,
                lane,
                epoch,
            } = durable.stream;
            let here = Here {
                lane,
                epoch,
                range: durable.range,
                life: durable.life,
                ram: durable.ram,
                ended: durable.ended,
            };
            self.engine.relays.here(&device, &here, self.now.mono);
        }
        self.forget_dropped();
    }

    /// Says to nodes what can be said.
    fn answer(&mut self) {
        let nodes = &self.engine.store.nodes;
        let terms = Terms {
            spool: nodes.spool(),
            time: self.now.wall,
            room: &|device| nodes.room_of(device).1,
            mark: &|stream, oldest| nodes.mark(stream, oldest),
            is_open: &|stream| nodes.is_open(stream),
        };
        self.engine.hosts.settle(&terms);
    }

    fn take(&mut self, way: Way, allows: &dyn Fn(&DeviceId) -> bool, packet: &[u8]) {
        if Bundle::is_bundle(packet) {
            for bundle in Bundles::new(packet) {
                match bundle {
                    Ok(bundle) => self.bundle(way, allows, &bundle),
                    Err(_) => self.malformed(),
                }
            }
            return;
        }
        for frame in Frames::new(packet) {
            let hello = match frame {
                Ok((frame, _)) if frame.kind == Kind::Hello => {
                    message::decode::<Hello>(frame.payload).ok()
                }
                Ok((frame, _)) if frame.kind == Kind::Stat => continue,
                Ok(_) | Err(_) => None,
            };
            match hello {
                Some(hello) => self.hello(way, allows, &hello),
                None => self.malformed(),
            }
        }
    }

    fn malformed(&mut self) {
        self.counters().malformed += 1;
        self.fault = Some(NodeFault::Malformed);
    }

    fn refuse(&mut self, fault: NodeFault) {
        self.counters().refused += 1;
        self.fault = Some(fault);
    }

    fn hello(&mut self, way: Way, allows: &dyn Fn(&DeviceId) -> bool, hello: &Hello) {
        let device = &hello.origin;
        // What speaks under this agent's own id would mix with its records.
        if !allows(device) || *device == self.engine.settings.device {
            self.refuse(NodeFault::NotAllowed(device.clone()));
            return;
        }
        match self.engine.hosts.hello(way, hello, self.now.mono) {
            Heard::Refused => self.refuse(NodeFault::NoPlace(device.clone())),
            Heard::More => {}
            Heard::Whole => {
                let ended = self.engine.hosts.listed(device).filter(|s| s.ended);
                let ended: Vec<_> = ended.map(|s| (s.lane, s.epoch)).collect();
                for (lane, epoch) in ended {
                    self.nodes().ended(&Stream {
                        device: device.clone(),
                        lane,
                        epoch,
                    });
                }
            }
        }
        let seen = Sighting {
            boot: hello.boot,
            uptime_ms: hello.uptime_ms,
        };
        if self.engine.hosts.knows(device) {
            self.engine.relays.sighted(device, seen, self.now.mono);
        }
    }

    fn bundle(&mut self, way: Way, allows: &dyn Fn(&DeviceId) -> bool, bundle: &Bundle<'_>) {
        let head = &bundle.head;
        if !allows(&head.origin) {
            self.refuse(NodeFault::NotAllowed(head.origin.clone()));
            return;
        }
        let end = head.first + u64::from(bundle.count);
        let now = self.now.mono;
        if !self.engine.hosts.lists(way, head, now) {
            let whole = SeqRange::new(head.first, end);
            let hosts = &mut self.engine.hosts;
            hosts.reject(way, head, whole, RejectReason::NotInHello);
            return;
        }
        self.date(head);
        for record in bundle.records() {
            let Some(seq) = record.seq else {
                self.nodes().bind(head, record.frame.payload);
                continue;
            };
            let mut offered = self
                .nodes()
                .offer(head, seq, &record.frame, record.bytes, now);
            for _ in 0..VICTIMS_OF_ONE {
                if offered != Offered::Full || !self.make_room() {
                    break;
                }
                offered = self
                    .nodes()
                    .offer(head, seq, &record.frame, record.bytes, now);
            }
            let refused = match offered {
                Offered::Stored => {
                    self.counters().records += 1;
                    None
                }
                Offered::Repeat => {
                    self.counters().repeats += 1;
                    None
                }
                Offered::Wants(schema) => {
                    self.engine.hosts.ask(way, head, schema, now);
                    break;
                }
                Offered::Refused(reason) => Some(reason),
                Offered::Full => Some(RejectReason::NotDurable),
            };
            if let Some(reason) = refused {
                let next = if reason.is_final() { seq + 1 } else { end };
                let range = SeqRange::new(seq, next);
                self.counters().not_taken += range.len();
                self.engine.hosts.reject(way, head, range, reason);
                if !reason.is_final() {
                    break;
                }
            }
            if self.nodes().is_group_full() {
                self.sync();
            }
        }
        self.engine.hosts.owe_ack(head);
    }

    /// A node said how long its boot runs. Where times count from that, the first such word that can be dated
    /// is told to the collector, as a record: later boots of the node cannot date it.
    fn date(&mut self, head: &BundleHead) {
        let Some(uptime_ms) = head.uptime_ms else {
            return;
        };
        let seen = Sighting {
            boot: head.boot,
            uptime_ms,
        };
        let now = self.now;
        self.engine.relays.sighted(&head.origin, seen, now.mono);
        if head.base != Base::Uptime || head.boot == 0 {
            return;
        }
        let Some(wall) = self.engine.intake.clock.wall(now) else {
            return;
        };
        if !self
            .engine
            .hosts
            .dates(&head.origin, head.boot, wall.error_ms)
        {
            return;
        }
        let uptime_us = uptime_ms.saturating_mul(1_000);
        let base = TimeBase {
            origin: head.origin.clone(),
            boot: head.boot,
            uptime_us,
            wall: wall.time,
            error_ms: wall.error_ms,
        };
        self.engine.put_own(place_of(Lane::Normal), &base, now);
    }

    /// Makes room for a record under a full quota; says whether a segment went.
    fn make_room(&mut self) -> bool {
        let before = self.nodes().segments();
        self.settle_all();
        if self.nodes().segments() < before {
            return true;
        }
        let Some(victim) = self.nodes().victim() else {
            return false;
        };
        let is_late = sabotage::is(Bug::GapAfterReuse);
        if !is_late && !self.name(&victim.lost) {
            return false;
        }
        let damaged = self.nodes().move_rest(&victim);
        for Lost { stream, contents } in &victim.lost {
            if let Some(range) = contents.lost {
                let at = (stream.lane, stream.epoch);
                self.engine.nodes.evicted_records += range.len();
                self.engine.relays.absent(&stream.device, at, range);
            }
        }
        self.pass_on();
        let is_named = damaged.is_some_and(|damaged| self.name_damaged(&damaged));
        let is_gone = is_named && self.nodes().release(victim.segment);
        if is_late {
            self.name(&victim.lost);
        }
        is_gone
    }

    /// Names, durably, records that a segment that goes holds no more. False: the disk does not take it.
    fn name_damaged(&mut self, damaged: &[(Stream, SeqRange)]) -> bool {
        damaged.iter().all(|(stream, range)| {
            let at = (stream.lane, stream.epoch);
            let is_named = self.damaged(stream, *range);
            if is_named {
                self.engine.relays.absent(&stream.device, at, *range);
            }
            is_named
        })
    }

    /// Names, durably, what is lost of nodes; what the lost records themselves said is said again. False: the
    /// disk does not take it.
    fn name(&mut self, lost: &[Lost]) -> bool {
        let at = place_of(Lane::Normal);
        for Lost { stream, contents } in lost {
            for end in &contents.ends {
                self.engine.put_own(at, end, self.now);
            }
            for base in &contents.bases {
                self.engine.put_own(at, base, self.now);
            }
            for (_, gap) in &contents.gaps {
                self.engine.put_own(at, gap, self.now);
            }
            let gap = Gap {
                seqs: contents.lost,
                samples: contents.samples,
                t_first: contents.t_first.map(UnixMicros),
                t_last: contents.t_last.map(UnixMicros),
                ..self.gap(stream, GapReason::Evicted)
            };
            self.engine.put_own(at, &gap, self.now);
        }
        self.is_said(at)
    }

    /// Syncs a lane; says whether all that was said there is on the disk.
    fn is_said(&mut self, at: usize) -> bool {
        self.engine.carry_out(at, [Step::Sync], self.now);
        let lane = self.engine.store.lanes.lane(at);
        lane.ram.is_none() && lane.held.is_empty()
    }

    fn gap(&self, stream: &Stream, reason: GapReason) -> Gap {
        let lanes = &self.engine.store.lanes;
        Gap {
            origin: stream.device.clone(),
            ..lanes.gap(stream.lane, stream.epoch, reason, self.now)
        }
    }

    /// Does what the outbox of a node asks for, other than to publish.
    pub(super) fn carry_out(&mut self, device: &DeviceId, out: Out) {
        let stream = |lane, epoch| Stream {
            device: device.clone(),
            lane,
            epoch,
        };
        match out {
            Out::Publish(_) => {}
            Out::Forget { lane, epoch, .. } => {
                self.settle(&stream(lane, epoch));
                self.nodes().release_done();
            }
            Out::Refused {
                lane,
                epoch,
                range,
                reason,
            } => self.refused(&stream(lane, epoch), range, reason),
            Out::TooLarge { lane, epoch, seq } => {
                let one = SeqRange::new(seq, seq + 1);
                self.refused(&stream(lane, epoch), one, RejectReason::TooLarge);
                self.engine.relays.absent(device, (lane, epoch), one);
            }
            Out::Damaged { lane, epoch, range } => {
                self.damaged(&stream(lane, epoch), range);
            }
        }
    }

    /// Records cannot be read any more: a gap takes their place. False: it is not on the disk.
    fn damaged(&mut self, stream: &Stream, range: SeqRange) -> bool {
        self.engine.damaged_records += range.len();
        let gap = Gap {
            seqs: Some(range),
            ..self.gap(stream, GapReason::Damaged)
        };
        self.let_go(stream, range, &gap)
    }

    /// The collector will never take these: a dead-letter copy and a gap take their place.
    fn refused(&mut self, stream: &Stream, range: SeqRange, reason: RejectReason) {
        self.engine.refused_records += range.len();
        let copied = self.engine.store.copy_refused_of(stream, range, reason);
        for _ in 0..copied.dropped {
            let gap = Gap {
                part: "dead_letters".parse().ok(),
                ..self.gap(stream, GapReason::CopyDropped)
            };
            let at = place_of(Lane::Normal);
            self.engine.put_own(at, &gap, self.now);
        }
        let gap = Gap {
            seqs: Some(range),
            samples: copied.samples,
            t_first: copied.t_first,
            t_last: copied.t_last,
            ..self.gap(stream, GapReason::Refused)
        };
        self.let_go(stream, range, &gap);
    }

    /// Names records; once that is durable, they are not needed here any more. False: it is not.
    fn let_go(&mut self, stream: &Stream, range: SeqRange, gap: &Gap) -> bool {
        let at = place_of(Lane::Normal);
        self.engine.put_own(at, gap, self.now);
        let is_said = self.is_said(at);
        if is_said {
            self.nodes().let_go(stream, range);
            self.settle(stream);
            self.nodes().release_done();
        }
        is_said
    }

    /// Records of a stream may be forgotten, as far as the collector said.
    fn settle(&mut self, stream: &Stream) {
        let relays = &self.engine.relays;
        let is_committed =
            |range| relays.is_committed(&stream.device, stream.lane, stream.epoch, range);
        self.engine.store.nodes.settle(stream, &is_committed);
    }

    fn settle_all(&mut self) {
        for stream in self.nodes().streams() {
            self.settle(&stream);
        }
        self.nodes().release_done();
    }

    fn forget_dropped(&mut self) {
        let dropped = self.engine.relays.take_dropped();
        if dropped.is_empty() {
            return;
        }
        for (device, lane, epoch, committed) in dropped {
            let stream = Stream {
                device,
                lane,
                epoch,
            };
            let is_committed =
                |range: SeqRange| committed.first <= range.first && range.next <= committed.next;
            self.nodes().settle(&stream, &is_committed);
        }
        self.nodes().release_done();
    }
}
