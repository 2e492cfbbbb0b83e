//! One epoch that a sender holds: its stored, received and committed records, and those to send next.

use crate::delivery::command::HeldEpoch;
use crate::delivery::ranges::Ranges;
use crate::ids::SeqRange;
use crate::message::{HelloStream, Mark};

/// Most ranges kept beyond a mark: twice those of one Ack, so that absent records fit beside them.
const MAX_RANGES: usize = 16;
/// Most holes with which live records go first; with more, the oldest do, because the receiver keeps only
/// so many.
const MAX_LIVE_HOLES: usize = 8;

/// Invariant: `oldest <= released <= committed <= received <= next`.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) info: HeldEpoch,
    /// All below it is gone from the disk, or a Release was commanded.
    pub(super) released: u64,
    /// All below it may be forgotten.
    pub(super) committed: u64,
    /// All below it need not be sent.
    pub(super) received: u64,
    /// Beyond `received`: received too, or absent from the disk.
    pub(super) settled: Ranges<MAX_RANGES>,
    /// Beyond `committed`: committed too.
    committed_ranges: Ranges<MAX_RANGES>,
    /// Records from here on are live; `u64::MAX` in an epoch that has ended.
    pub(super) live_from: u64,
    /// One more than the highest number sent on this connection: below it, a send is a repeat.
    pub(super) sent_high: u64,
    /// A Hello that the collector answered on this connection listed it.
    pub(super) greeted: bool,
    /// The receiver asked for the oldest first.
    pub(super) oldest_first: bool,
    /// Nothing of it goes out, by the shell's word.
    pub(super) withheld: bool,
}

impl Held {
    pub(super) const fn new(info: HeldEpoch) -> Self {
        let first = info.first;
        Self {
            info,
            released: first,
            committed: first,
            received: first,
            settled: Ranges::new(),
            committed_ranges: Ranges::new(),
            live_from: u64::MAX,
            sent_high: first,
            greeted: false,
            oldest_first: false,
            withheld: false,
        }
    }

    pub(super) const fn hello(&self) -> HelloStream {
        HelloStream {
            lane: self.info.lane,
            epoch: self.info.epoch,
            oldest: self.released,
            next: self.info.next,
            ram: self.info.ram,
            ended: self.info.ended,
            boot: self.info.boot,
            base: self.info.base,
        }
    }

    /// A whole Welcome answered a Hello that listed this epoch: its records may be sent.
    pub(super) fn open(&mut self) {
        if !self.greeted {
            self.greeted = true;
            self.live_from = if self.info.ended {
                u64::MAX
            } else {
                self.info.next
            };
        }
    }

    /// The connection is new: nothing is in flight, and the receiver knows nothing of this epoch.
    pub(super) fn forget_connection(&mut self) {
        self.greeted = false;
        self.oldest_first = false;
        self.sent_high = self.released;
        self.live_from = u64::MAX;
    }

    /// The journal is new: its marks alone count.
    pub(super) fn forget_marks(&mut self) {
        self.received = self.released;
        self.committed = self.released;
        self.settled.clear();
        self.committed_ranges.clear();
    }

    /// Takes in `received` of a Welcome, even if it is lower than before: a record sent twice costs a
    /// repeat, a record not sent is lost.
    pub(super) fn lower_received(&mut self, received: u64) {
        self.received = self.received.min(received).max(self.committed);
        self.settled.clear();
    }

    /// Takes in a mark; false if it covers records that were never stored. `relayed`: they may have come by
    /// another gateway.
    pub(super) fn apply(&mut self, mark: &Mark, relayed: bool) -> bool {
        let end = mark.ranges.last().map_or(mark.received, |range| range.next);
        // A writer whose disk lost synced records may have sent more than it remembers; its epoch has
        // ended. An epoch of this process cannot have been received from elsewhere.
        if end > self.info.next && !self.info.ended && !relayed {
            return false;
        }
        let clamp = |seq: u64| seq.min(self.info.next);
        self.received = self.received.max(clamp(mark.received));
        let mut committed = self.committed.max(clamp(mark.committed));
        for range in &mark.ranges {
            let part = SeqRange::new(clamp(range.first), clamp(range.next));
            if part.is_empty() {
                continue;
            }
            // A range beyond the bound stays unknown, and may be sent again.
            let _ = self.settled.insert(part);
            if range.committed {
                let _ = self.committed_ranges.insert(part);
            }
        }
        committed = self.committed_ranges.end_at(committed);
        self.committed = committed;
        self.tidy();
        true
    }

    /// Takes out records that are not on the disk. False if too many ranges are settled already: older
    /// records must be received first.
    pub(super) fn set_absent(&mut self, range: SeqRange) -> bool {
        let taken = if range.first <= self.released {
            self.released = self.released.max(range.next.min(self.info.next));
            true
        } else {
            self.pass(range)
        };
        self.tidy();
        taken
    }

    /// Marks records as not to be sent; at the head that takes no range.
    fn pass(&mut self, range: SeqRange) -> bool {
        if range.first <= self.received {
            self.received = self.received.max(range.next.min(self.info.next));
            return true;
        }
        self.settled.insert(range).is_ok()
    }

    /// Takes out records that the collector refused for good. False as in [`Self::set_absent`].
    pub(super) fn settle(&mut self, range: SeqRange) -> bool {
        let taken = self.pass(range);
        self.tidy();
        taken
    }

    fn tidy(&mut self) {
        self.committed = self.committed.max(self.released);
        self.received = self.settled.end_at(self.received.max(self.committed));
        self.settled.forget_below(self.received);
        self.committed_ranges.forget_below(self.committed);
        debug_assert!(self.info.first <= self.released);
        debug_assert!(self.released <= self.committed);
        debug_assert!(self.committed <= self.received);
        debug_assert!(self.received <= self.info.next);
    }

    /// Whether `range` need not be sent.
    pub(super) fn is_received(&self, range: SeqRange) -> bool {
        let from = range.first.max(self.received);
        self.settled.covers(SeqRange::new(from, range.next))
    }

    /// Whether `range` may be forgotten, also before older records.
    pub(super) fn is_committed(&self, range: SeqRange) -> bool {
        let from = range.first.max(self.committed);
        self.committed_ranges
            .covers(SeqRange::new(from, range.next))
    }

    /// Whether every record was released, and none will be added.
    pub(super) const fn is_finished(&self) -> bool {
        self.info.ended && self.released >= self.info.next
    }

    /// First live record: newer ones go before the backlog.
    pub(super) fn live_from(&self) -> u64 {
        if self.oldest_first || self.settled.len() > MAX_LIVE_HOLES {
            u64::MAX
        } else {
            self.live_from
        }
    }

    /// The first stretch of `within` that was neither received nor is in flight.
    pub(super) fn unsent(
        &self,
        within: SeqRange,
        flights: impl Iterator<Item = SeqRange> + Clone,
    ) -> Option<SeqRange> {
        let mut from = within.first.max(self.received);
        let limit = within.next.min(self.info.next);
        loop {
            let mut stretch = self.settled.next_out(SeqRange::new(from, limit))?;
            match flights
                .clone()
                .find(|flight| flight.contains(stretch.first))
            {
                Some(flight) => from = flight.next,
                None => {
                    for flight in flights {
                        if flight.first > stretch.first {
                            stretch.next = stretch.next.min(flight.first);
                        }
                    }
                    return Some(stretch);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Epoch, Lane};
    use crate::time::Base;

    fn held(next: u64) -> Held {
        let mut held = Held::new(HeldEpoch {
            lane: Lane::Normal,
            epoch: Epoch::new(1),
            first: 0,
            next,
            ram: false,
            ended: false,
            boot: 1,
            base: Base::Wall,
            end_named_in: None,
            dated_by: None,
        });
        held.open();
        held
    }

    /// Takes every second record out; returns at which it was refused.
    fn take_out(held: &mut Held, count: u64) -> Option<u64> {
        (1..=count).find(|k| !held.set_absent(SeqRange::new(2 * k, 2 * k + 1)))
    }

    #[test]
    fn absent_records_are_kept_apart_up_to_their_bound() {
        let mut held = held(100);
        let most = MAX_RANGES as u64;
        assert_eq!(take_out(&mut held, most + 1), Some(most + 1));
        // A record at the head takes no range.
        assert!(held.set_absent(SeqRange::new(0, 1)));
        assert_eq!(held.received, 1);
    }

    #[test]
    fn with_more_holes_than_live_records_may_leave_the_oldest_go_first() {
        let mut held = held(100);
        let most = MAX_LIVE_HOLES as u64;
        assert_eq!(take_out(&mut held, most), None);
        assert_eq!(held.live_from(), 100);
        assert!(held.set_absent(SeqRange::new(90, 91)));
        assert_eq!(held.live_from(), u64::MAX);
    }
}
