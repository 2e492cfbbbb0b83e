//! Core: whether the next snapshot stays within the log's bound.
//!
//! Its size is known when one is written; what is taken in after that adds its worst case.

use headwater_gate::repeat::OpenEntries;
use headwater_proto::ids::DeviceId;
use headwater_spool::Disk;

use super::Journal;
use crate::pipeline::ledger::{Ledger, Track};
use crate::pipeline::snapshot::{self, HOLE_BYTES, NEW_BYTES, RANGE_BYTES};

/// How much may have been added before the next snapshot's size is measured anew.
const MEASURE_AFTER_BYTES: usize = 1 << 20;

/// Up to here holes are nobody's share.
const HALF_BYTES: usize = NEW_BYTES.midpoint(HOLE_BYTES);

/// Sizes of snapshots, in bytes.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// The newest snapshot.
    pub(super) snapshot: usize,
    /// It without the open entries, and the most that was added since.
    state: usize,
    grown: usize,
}

impl Budget {
    /// A snapshot was written.
    pub(super) const fn written(&mut self, snapshot: usize, state: usize) {
        *self = Self {
            snapshot,
            state,
            grown: 0,
        };
    }
}

impl<D: Disk> Journal<D> {
    /// Whether the next snapshot stays within `bound` with `more` bytes in it.
    pub(in super::super) fn has_state_room(
        &mut self,
        ledger: &Ledger,
        more: usize,
        bound: usize,
    ) -> bool {
        let fits = |this: &Self| this.budget.state + this.budget.grown + more <= bound;
        if !fits(self) && self.budget.grown >= MEASURE_AFTER_BYTES {
            // What was added may be less than it could have been.
            self.measure(ledger);
        }
        fits(self)
    }

    /// Whether a stream of `device` may get another hole: none may have more of the room for them than it leaves,
    /// once half of it is gone. So there is always some for the others.
    pub(in super::super) fn has_hole_room(&mut self, ledger: &Ledger, device: &DeviceId) -> bool {
        if self.has_state_room(ledger, RANGE_BYTES, HALF_BYTES) {
            return true;
        }
        let holes = |track: &Track| track.receiver.data().len().saturating_sub(1);
        let own: usize = ledger
            .streams_of(device)
            .map(|(_, track)| holes(track))
            .sum();
        self.has_state_room(ledger, (own + 1) * RANGE_BYTES, HOLE_BYTES)
    }

    /// Something was taken in that adds at most `bytes` to the next snapshot.
    pub(in super::super) const fn grew(&mut self, bytes: usize) {
        self.budget.grown += bytes;
    }

    /// Finds out what the next snapshot takes without the open entries.
    pub(in super::super) fn measure(&mut self, ledger: &Ledger) {
        let none = OpenEntries::default();
        self.budget.state = snapshot::write(&self.parts(ledger, &none), &mut Vec::new());
        self.budget.grown = 0;
    }
}

#[cfg(test)]
mod tests {
    use headwater_proto::delivery::receiver::{MAX_HOLES, MAX_RANGES};
    use headwater_proto::ids::{Epoch, Lane, SeqRange, Stream};
    use headwater_proto::time::{Millis, Now, UnixMicros};
    use headwater_spool::FakeDisk;

    use super::super::super::{Custody, Settings};
    use super::*;
    use crate::done::DoneInMemory;

    fn custody() -> Custody<FakeDisk> {
        let done = Box::new(DoneInMemory::default());
        Custody::open(FakeDisk::new(), Settings::small(), done, &mut || 7)
            .unwrap()
            .0
    }

    #[test]
    fn what_would_grow_the_snapshot_beyond_its_bound_is_not_taken() {
        let mut custody = custody();
        assert!(custody.keep_session("first", true));
        custody.journal.budget.state = NEW_BYTES;
        assert!(!custody.keep_session("second", true));
        // What shrinks it is.
        assert!(custody.keep_session("first", false));
    }

    /// Streams of a device, each with as many holes as there may be.
    fn holes(custody: &mut Custody<FakeDisk>, device: &str, streams: usize) -> usize {
        let every_other = (0..MAX_RANGES as u64).map(|n| SeqRange::new(2 * n, 2 * n + 1));
        let held: Vec<SeqRange> = every_other.collect();
        for epoch in 0..streams as u64 {
            let stream = Stream {
                device: id(device),
                lane: Lane::Normal,
                epoch: Epoch::new(epoch),
            };
            custody.seed(stream, &held, &[], None);
        }
        streams * MAX_HOLES
    }

    fn id(device: &str) -> DeviceId {
        DeviceId::new(device).unwrap()
    }

    #[test]
    fn no_device_has_more_of_the_room_for_holes_than_it_leaves_to_others() {
        let mut custody = custody();
        let room = HOLE_BYTES - HALF_BYTES;
        let own = holes(&mut custody, "greedy", room / 2 / RANGE_BYTES / MAX_HOLES);
        let (journal, ledger) = (&mut custody.journal, custody.streams.ledger());
        journal.budget.state = HALF_BYTES - RANGE_BYTES;
        assert!(journal.has_hole_room(ledger, &id("greedy")));
        for (left, greedy, modest) in [
            (own + 1, true, true),
            (own, false, true),
            (1, false, true),
            (0, false, false),
        ] {
            journal.budget.state = HOLE_BYTES - left * RANGE_BYTES;
            assert_eq!(
                journal.has_hole_room(ledger, &id("greedy")),
                greedy,
                "{left}"
            );
            assert_eq!(
                journal.has_hole_room(ledger, &id("modest")),
                modest,
                "{left}"
            );
        }
    }

    #[test]
    fn a_worst_case_that_did_not_come_true_is_measured_away() {
        let mut custody = custody();
        custody.journal.budget.grown = NEW_BYTES.max(MEASURE_AFTER_BYTES);
        assert!(custody.keep_session("first", true));
        assert!(custody.journal.budget.state > 0);
        assert!(custody.journal.budget.grown < MEASURE_AFTER_BYTES);
        let now = Now {
            mono: Millis(1),
            wall: UnixMicros(1),
        };
        custody.sync(now).unwrap();
    }
}
