//! Core: whether the next snapshot stays within the log's bound.
//!
//! Its size is known when one is written; what is taken in after that adds its worst case.

use headwater_gate::repeat::OpenEntries;
use headwater_spool::Disk;

use super::Custody;
use crate::pipeline::snapshot::{self, Parts};

/// How much may have been added before the next snapshot's size is measured anew.
const MEASURE_AFTER_BYTES: usize = 1 << 20;

impl<D: Disk> Custody<D> {
    /// Whether the next snapshot stays within `bound` with `more` bytes in it.
    pub(super) fn has_state_room(&mut self, more: usize, bound: usize) -> bool {
        let fits = |this: &Self| this.state_bytes + this.grown_bytes + more <= bound;
        if !fits(self) && self.grown_bytes >= MEASURE_AFTER_BYTES {
            // What was added may be less than it could have been.
            self.measure();
        }
        fits(self)
    }

    /// What the next snapshot takes without the open entries.
    pub(super) fn measure(&mut self) {
        let none = OpenEntries::default();
        let parts = Parts {
            journal: self.journal,
            apart_since: self.apart_since,
            lake_term: self.lake_term,
            committed_to: self.committed_to,
            rules: &self.rules.bytes,
            sinks: &self.cursors,
            plans: &self.plans,
            sessions: &self.clients,
            ledger: &self.ledger,
            schemas: &self.schemas,
            open: &none,
        };
        self.state_bytes = snapshot::write(&parts, &mut Vec::new());
        self.grown_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use headwater_proto::time::{Millis, Now, UnixMicros};
    use headwater_spool::FakeDisk;

    use super::super::{Custody, Settings};
    use super::MEASURE_AFTER_BYTES;
    use crate::done::DoneInMemory;
    use crate::pipeline::snapshot::NEW_BYTES;

    fn custody() -> Custody<FakeDisk> {
        let settings = Settings {
            log: headwater_spool::Config {
                segment_bytes: 8 << 10,
                quota_bytes: 1 << 20,
                reserve_bytes: 32 << 10,
                ..headwater_spool::Config::default()
            },
            ..Settings::default()
        };
        let done = Box::new(DoneInMemory::default());
        Custody::open(FakeDisk::new(), settings, done, &mut || 7)
            .unwrap()
            .0
    }

    #[test]
    fn what_would_grow_the_snapshot_beyond_its_bound_is_not_taken() {
        let mut custody = custody();
        assert!(custody.keep_session("first", true));
        custody.state_bytes = NEW_BYTES;
        assert!(!custody.keep_session("second", true));
        // What shrinks it is.
        assert!(custody.keep_session("first", false));
    }

    #[test]
    fn a_worst_case_that_did_not_come_true_is_measured_away() {
        let mut custody = custody();
        custody.grown_bytes = NEW_BYTES.max(MEASURE_AFTER_BYTES);
        assert!(custody.keep_session("first", true));
        assert!(custody.state_bytes > 0);
        assert!(custody.grown_bytes < MEASURE_AFTER_BYTES);
        let now = Now {
            mono: Millis(1),
            wall: UnixMicros(1),
        };
        custody.sync(now).unwrap();
    }
}
