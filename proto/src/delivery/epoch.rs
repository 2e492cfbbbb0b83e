//! How an epoch ended, merged from all records of its end; and the arithmetic that the audit shares.
//!
//! Several records may end one epoch: its writer's own, its successor's, the collector's when the epoch was
//! abandoned. They merge, in any order, to one end:
//!
//! | field | merged |
//! |---|---|
//! | first | the lowest |
//! | next | the highest, and at least one more than the highest record received |
//! | clean | only if all records are, and none was received beyond a clean end |

use crate::ids::SeqRange;
use crate::message::EpochEnd;

/// The merged end of one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// First number of the epoch.
    pub first: u64,
    /// One more than its last.
    pub next: u64,
    /// Whether every record of its end states a clean one.
    pub clean: bool,
}

impl End {
    /// The end in one record.
    #[must_use]
    pub const fn of(record: &EpochEnd) -> Self {
        Self {
            first: record.first,
            next: record.next,
            clean: record.clean,
        }
    }

    /// Merges the ends in two records. Commutative, associative, idempotent.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        Self {
            first: self.first.min(other.first),
            next: self.next.max(other.next),
            clean: self.clean && other.clean,
        }
    }

    /// Merges in the received records: `received_next` is one more than the highest number.
    #[must_use]
    pub fn with_received(self, received_next: u64) -> Self {
        Self {
            first: self.first,
            next: self.next.max(received_next),
            clean: self.clean && received_next <= self.next,
        }
    }

    /// The numbers that the epoch should have.
    #[must_use]
    pub const fn expected(self) -> SeqRange {
        SeqRange::new(self.first, self.next)
    }
}

/// The audit's view of one epoch, counted in sequence numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Expected numbers; while the epoch is open, those received or in gaps.
    pub expected: u64,
    /// Numbers of which all rows are in the lake or in quarantine.
    pub present: u64,
    /// Missing numbers that lie in a gap.
    pub in_gaps: u64,
    /// Numbers that lie in a gap, and came later.
    pub filled: u64,
    /// Identities with several copies of the same values.
    pub repeated: u64,
    /// Identities with different values, or beyond the end.
    pub conflicting: u64,
    /// The epoch has no end yet.
    pub open: bool,
}

/// The audit's verdict on one stream; the last three fail an audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Every expected number is present.
    Complete,
    /// Every missing number lies in a gap.
    Explained,
    /// The epoch is open, and a number below its highest one is still missing.
    Pending,
    /// A number is missing, and lies in no gap.
    Unexplained,
    /// A number is present twice.
    Repeated,
    /// Two different records have one identity.
    Conflicting,
}

impl Verdict {
    /// Whether an audit with this verdict fails.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        matches!(self, Self::Unexplained | Self::Repeated | Self::Conflicting)
    }

    /// Its name in the audit's output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Explained => "explained",
            Self::Pending => "pending",
            Self::Unexplained => "unexplained",
            Self::Repeated => "repeated",
            Self::Conflicting => "conflicting",
        }
    }
}

impl Counts {
    /// The worst verdict that holds.
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        let accounted = self.present.saturating_add(self.in_gaps);
        if self.conflicting > 0 {
            Verdict::Conflicting
        } else if self.repeated > 0 {
            Verdict::Repeated
        } else if accounted < self.expected && self.open {
            Verdict::Pending
        } else if accounted < self.expected {
            Verdict::Unexplained
        } else if self.in_gaps > 0 {
            Verdict::Explained
        } else {
            Verdict::Complete
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn end() -> impl Strategy<Value = End> {
        (0u64..5, 0u64..20, any::<bool>()).prop_map(|(first, next, clean)| End {
            first,
            next,
            clean,
        })
    }

    proptest! {
        #[test]
        fn ends_merge_in_any_order_to_the_same(a in end(), b in end(), c in end()) {
            prop_assert_eq!(a.merge(b), b.merge(a));
            prop_assert_eq!(a.merge(b).merge(c), a.merge(b.merge(c)));
            prop_assert_eq!(a.merge(a), a);
        }
    }

    #[test]
    fn an_epoch_that_forgot_records_it_had_sent_ends_after_them_and_not_clean() {
        let stated = End {
            first: 0,
            next: 8,
            clean: true,
        };
        assert_eq!(
            stated.with_received(11),
            End {
                first: 0,
                next: 11,
                clean: false
            }
        );
        assert_eq!(stated.with_received(8), stated);
    }

    #[test]
    fn two_ends_merge_to_all_that_one_of_them_tells_of_and_are_clean_only_together() {
        let end = |first, next, clean| End { first, next, clean };
        let merged = end(3, 8, true).merge(end(1, 11, false));
        assert_eq!(merged, end(1, 11, false));
        assert!(end(0, 8, true).merge(end(0, 9, true)).clean);
    }

    #[test]
    fn an_open_epoch_waits_where_an_ended_one_fails() {
        let mut counts = Counts {
            expected: 5,
            present: 3,
            in_gaps: 1,
            open: true,
            ..Counts::default()
        };
        assert_eq!(counts.verdict(), Verdict::Pending);
        counts.open = false;
        assert_eq!(counts.verdict(), Verdict::Unexplained);
        counts.in_gaps = 2;
        assert_eq!(counts.verdict(), Verdict::Explained);
        counts.repeated = 1;
        assert_eq!(counts.verdict(), Verdict::Repeated);
    }
}
