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
                let out = self.next_of(origin.as_ref(), now)?;
                Some((at, origin, out))
            });
            let (at, origin, out) = found?;
            if let Out::Publish(bytes) = out {
                self.relays.served(origin.as_ref(), bytes.len());
                return Some(self.fill(bytes, &turns[at + 1..], now));
            }
            match origin {
                None => self.carry_out_own(out, now),
                Some(device) => Relaying::new(self, now).carry_out(device, out),
            }
        }
    }

    fn next_of(&mut self, origin: Option<&DeviceId>, now: Now) -> Option<Out> {
        let clocks = self.clocks(now);
        match origin {
            None => self.outbox.next(&mut self.store.lanes, clocks),
            Some(device) => {
                let store = &mut self.store.nodes;
                let mut shelf = NodeShelf { store, device };
                self.relays.next(device, &mut shelf, clocks)
            }
        }
    }

    /// Fills the rest of a publish with bundles of nodes.
    fn fill(&mut self, bytes: Vec<u8>, nodes: &[Option<DeviceId>], now: Now) -> Vec<u8> {
        let max_bytes = self.settings.sender.max_bundle;
        let mut publish = Publish::new(bytes, max_bytes);
        let clocks = self.clocks(now);
        for device in nodes.iter().flatten() {
            if publish.rest().is_none() {
                break;
            }
            self.relays.share(&mut self.outbox, None);
            let store = &mut self.store.nodes;
            let mut shelf = NodeShelf { store, device };
            match self.relays.fill(device, &publish, &mut shelf, clocks) {
                Some(Out::Publish(bundle)) => {
                    self.relays.served(Some(device), bundle.len());
                    publish.push(&bundle);
                }
                Some(out) => Relaying::new(self, now).carry_out(device, out),
                None => {}
            }
        }
        publish.bytes
    }

    /// Takes in one down publish: each frame is for this agent itself or for one of its nodes.
    pub(super) fn message(&mut self, bytes: &[u8], now: Now) {
        let clocks = self.clocks(now);
        let mut heard = Vec::new();
        if self.relays.is_empty() {
            heard = self.outbox.message(bytes, &mut self.store.lanes, clocks);
        } else {
            for frame in Frames::new(bytes) {
                let whole = frame.as_ref().map_or(bytes, |(_, whole)| whole);
                match origin_of(whole) {
                    Some((device, credit)) if device != self.settings.device => {
                        if !self.relays.knows(&device) {
                            self.nodes.refused_messages += 1;
                            continue;
                        }
                        let store = &mut self.store.nodes;
                        let device = &device;
                        let mut shelf = NodeShelf { store, device };
                        heard.extend(self.relays.message(device, whole, &mut shelf, clocks));
                        self.relays.share(&mut self.outbox, credit);
                    }
                    own => {
                        let lanes = &mut self.store.lanes;
                        heard.extend(self.outbox.message(whole, lanes, clocks));
                        let credit = own.and_then(|(_, credit)| credit);
                        self.relays.share(&mut self.outbox, credit);
                    }
                }
                if frame.is_err() {
                    break;
                }
            }
        }
        for heard in heard {
            self.intake.clock.heard(heard.time, heard.sent, now);
        }
    }

    /// Does what the outbox of the agent itself asks for, other than to publish.
    fn carry_out_own(&mut self, out: Out, now: Now) {
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
            } => self.refused(lane, epoch, range, reason, now),
            Out::TooLarge { lane, epoch, seq } => {
                let one = SeqRange::new(seq, seq + 1);
                self.refused(lane, epoch, one, RejectReason::TooLarge, now);
                self.outbox.absent(lane, epoch, one);
            }
            Out::Damaged { lane, epoch, range } => {
                self.damaged_records += range.len();
                let gap = Gap {
                    seqs: Some(range),
                    ..self.store.lanes.gap(lane, epoch, GapReason::Damaged, now)
                };
                self.put_own(place_of(lane), &gap, now);
            }
        }
    }

    pub(super) fn clocks(&self, now: Now) -> Clocks {
        let wall = self.intake.clock.wall(now);
        Clocks { now, wall }
    }

    /// The collector will never take these: a dead-letter copy and a gap, both durable, take their
    /// place.
    fn refused(
        &mut self,
        lane: Lane,
        epoch: Epoch,
        range: SeqRange,
        reason: RejectReason,
        now: Now,
    ) {
        let at = place_of(lane);
        self.refused_records += range.len();
        let copied = self.store.copy_refused(lane, epoch, range, reason);
        for _ in 0..copied.dropped {
            let gap = Gap {
                part: "dead_letters".parse().ok(),
                ..self
                    .store
                    .lanes
                    .gap(lane, epoch, GapReason::CopyDropped, now)
            };
            self.put_own(at, &gap, now);
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
            ..self.store.lanes.gap(lane, epoch, GapReason::Refused, now)
        };
        self.put_own(at, &gap, now);
        self.carry_out(at, [Step::Sync], now);
    }

    /// The collector has committed all below `through`.
    fn forget(&mut self, lane: Lane, epoch: Epoch, through: u64) {
        let outbox = &self.outbox;
        let committed =
            |lane: Lane, epoch: Epoch, range: SeqRange| outbox.is_committed(lane, epoch, range);
        self.store.forget(lane, epoch, through, &committed);
        self.outbox.announce_waiting();
    }
}
