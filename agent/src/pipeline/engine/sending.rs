//! Core: where outbox and store meet when something goes out, is forgotten, or can never go.

use headwater_proto::ids::{Epoch, Lane, SeqRange};
use headwater_proto::message::{Gap, GapReason, RejectReason};
use headwater_proto::time::Now;
use headwater_spool::Disk;

use super::Engine;
use super::outbox::{Clocks, Out};
use super::store::place_of;
use super::writing::Step;

impl<D: Disk> Engine<D> {
    /// What to publish next on the up topic, at QoS 1; `None` until something happens or
    /// [`Engine::next_wakeup`] comes. Call it only while a publish can be handed over: it counts as
    /// sent.
    pub fn next_publish(&mut self, now: Now) -> Option<Vec<u8>> {
        loop {
            let clocks = self.clocks(now);
            match self.outbox.next(&mut self.store.lanes, clocks)? {
                Out::Publish(bytes) => return Some(bytes),
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
