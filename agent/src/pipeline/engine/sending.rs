//! Core: where outbox and store meet when something goes out, is forgotten, or can never go.

use headwater_proto::frame::Frames;
use headwater_proto::ids::{DeviceId, Epoch, Lane, SeqRange};
use headwater_proto::message::{Gap, GapReason, RejectReason};
use headwater_proto::time::Now;
use headwater_spool::Disk;

use super::Engine;
use super::outbox::{Clocks, Out, Publish, origin_of};
use super::relaying::Relaying;
use super::store::{NodeShelf, place_of};
use super::writing::Step;

impl<D: Disk> Engine<D> {
    /// What to publish next on the up topic, at QoS 1; `None` until something happens or
    /// [`Engine::next_wakeup`] comes. Call it only while a publish can be handed over: it counts as
    /// sent.
    pub fn next_publish(&mut self, now: Now) -> Option<Vec<u8>> {
        loop {
            self.relays.share(&mut self.outbox, None);
            let turns = if self.relays.is_empty() {
                vec![None]
            } else {
                self.relays.turns(&self.outbox, now.mono)
            };
            let found = turns.iter().enumerate().find_map(|(at, origin)| {
                let out = Sending::new(self, now).next_of(origin.as_ref())?;
                Some((at, origin, out))
            });
            let (at, origin, out) = found?;
            if let Out::Publish(bytes) = out {
                self.relays.served(origin.as_ref(), bytes.len());
                let max_bytes = self.relays.max_bundle(&self.outbox, origin.as_ref());
                let publish = Publish::new(bytes, max_bytes);
                return Some(Sending::new(self, now).fill(publish, &turns[at + 1..]));
            }
            match origin {
                None => Sending::new(self, now).carry_out(out),
                Some(device) => Relaying::new(self, now).carry_out(device, out),
            }
        }
    }
}

/// The engine while something goes out, or the collector has said something.
pub(super) struct Sending<'a, D: Disk> {
    engine: &'a mut Engine<D>,
    now: Now,
}

impl<'a, D: Disk> Sending<'a, D> {
    pub(super) const fn new(engine: &'a mut Engine<D>, now: Now) -> Self {
        Self { engine, now }
    }

    fn next_of(&mut self, origin: Option<&DeviceId>) -> Option<Out> {
        let clocks = self.clocks();
        match origin {
            None => self
                .engine
                .outbox
                .next(&mut self.engine.store.lanes, clocks),
            Some(device) => {
                let store = &mut self.engine.store.nodes;
                let mut shelf = NodeShelf { store, device };
                self.engine.relays.next(device, &mut shelf, clocks)
            }
        }
    }

    /// Fills the rest of a publish with bundles of nodes.
    fn fill(&mut self, mut publish: Publish, nodes: &[Option<DeviceId>]) -> Vec<u8> {
        let clocks = self.clocks();
        for device in nodes.iter().flatten() {
            if publish.rest().is_none() {
                break;
            }
            self.engine.relays.share(&mut self.engine.outbox, None);
            let store = &mut self.engine.store.nodes;
            let mut shelf = NodeShelf { store, device };
            match self
                .engine
                .relays
                .fill(device, &publish, &mut shelf, clocks)
            {
                Some(Out::Publish(bundle)) => {
                    self.engine.relays.served(Some(device), bundle.len());
                    publish.push(&bundle);
                }
                Some(out) => Relaying::new(self.engine, self.now).carry_out(device, out),
                None => {}
            }
        }
        publish.bytes
    }

    /// Takes in one down publish: each frame is for this agent itself or for one of its nodes.
    pub(super) fn message(&mut self, bytes: &[u8]) {
        let clocks = self.clocks();
        let mut heard = Vec::new();
        if self.engine.relays.is_empty() {
            heard = self
                .engine
                .outbox
                .message(bytes, &mut self.engine.store.lanes, clocks);
        } else {
            for frame in Frames::new(bytes) {
                let whole = frame.as_ref().map_or(bytes, |(_, whole)| whole);
                match origin_of(whole) {
                    Some((device, credit)) if device != self.engine.settings.device => {
                        if !self.engine.relays.knows(&device) {
                            self.engine.nodes.refused_messages += 1;
                            continue;
                        }
                        let store = &mut self.engine.store.nodes;
                        let device = &device;
                        let mut shelf = NodeShelf { store, device };
                        heard.extend(
                            self.engine
                                .relays
                                .message(device, whole, &mut shelf, clocks),
                        );
                        self.engine.relays.share(&mut self.engine.outbox, credit);
                    }
                    own => {
                        let lanes = &mut self.engine.store.lanes;
                        heard.extend(self.engine.outbox.message(whole, lanes, clocks));
                        let credit = own.and_then(|(_, credit)| credit);
                        self.engine.relays.share(&mut self.engine.outbox, credit);
                    }
                }
                if frame.is_err() {
                    break;
                }
            }
        }
        // A collector that doubts its own clock says 0.
        for heard in heard.into_iter().filter(|heard| heard.time.0 > 0) {
            self.engine
                .intake
                .clock
                .heard(heard.time, heard.sent, self.now);
        }
    }

    /// Does what the outbox of the agent itself asks for, other than to publish.
    fn carry_out(&mut self, out: Out) {
        match out {
            Out::Publish(_) => {}
            Out::Forget {
                lane,
                epoch,
                through,
            } => self.forget(lane, epoch, through),
            Out::Refused {
                lane,
                epoch,
                range,
                reason,
            } => self.refused(lane, epoch, range, reason),
            Out::TooLarge { lane, epoch, seq } => {
                let one = SeqRange::new(seq, seq + 1);
                self.refused(lane, epoch, one, RejectReason::TooLarge);
                self.engine.outbox.absent(lane, epoch, one);
            }
            Out::Damaged { lane, epoch, range } => {
                self.engine.damaged_records += range.len();
                let gap = Gap {
                    seqs: Some(range),
                    ..self
                        .engine
                        .store
                        .lanes
                        .gap(lane, epoch, GapReason::Damaged, self.now)
                };
                self.engine.put_own(place_of(lane), &gap, self.now);
            }
        }
    }

    fn clocks(&self) -> Clocks {
        let now = self.now;
        let wall = self.engine.intake.clock.wall(now);
        Clocks { now, wall }
    }

    /// The collector will never take these: a dead-letter copy and a gap, both durable, take their
    /// place.
    fn refused(&mut self, lane: Lane, epoch: Epoch, range: SeqRange, reason: RejectReason) {
        let now = self.now;
        let at = place_of(lane);
        self.engine.refused_records += range.len();
        let copied = self.engine.store.copy_refused(lane, epoch, range, reason);
        for _ in 0..copied.dropped {
            let gap = Gap {
                part: "dead_letters".parse().ok(),
                ..self
                    .engine
                    .store
                    .lanes
                    .gap(lane, epoch, GapReason::CopyDropped, now)
            };
            self.engine.put_own(at, &gap, now);
        }
        // Were the refusal of the agent's own words named, that gap would be refused for the same
        // reason, without end.
        if copied.is_own {
            return;
        }
        let gap = Gap {
            seqs: Some(range),
            samples: copied.samples,
            t_first: copied.t_first,
            t_last: copied.t_last,
            ..self
                .engine
                .store
                .lanes
                .gap(lane, epoch, GapReason::Refused, now)
        };
        self.engine.put_own(at, &gap, now);
        self.engine.carry_out(at, [Step::Sync], now);
    }

    /// The collector has committed all below `through`.
    fn forget(&mut self, lane: Lane, epoch: Epoch, through: u64) {
        let outbox = &self.engine.outbox;
        let committed =
            |lane: Lane, epoch: Epoch, range: SeqRange| outbox.is_committed(lane, epoch, range);
        self.engine.store.forget(lane, epoch, through, &committed);
        self.engine.outbox.announce_waiting();
    }
}
