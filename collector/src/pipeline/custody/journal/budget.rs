//! Core: whether the next snapshot stays within the log's bound.
//!
//! Its size is known when one is written; what is taken in after that adds its worst case.

use headwater_gate::repeat::OpenEntries;
use headwater_spool::Disk;

use super::Journal;
use crate::pipeline::ledger::Ledger;
use crate::pipeline::snapshot;

/// How much may have been added before the next snapshot's size is measured anew.
const MEASURE_AFTER_BYTES: usize = 1 << 20;

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
    use headwater_proto::time::{Millis, Now, UnixMicros};
    use headwater_spool::FakeDisk;

    use super::super::super::{Custody, Settings};
    use super::MEASURE_AFTER_BYTES;
    use crate::done::DoneInMemory;
    use crate::pipeline::snapshot::NEW_BYTES;

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
