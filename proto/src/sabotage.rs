//! Deliberate bugs, with which the seeded world proves that it notices them.
//!
//! Without the `sabotage` feature [`is`] is a constant `false` and costs nothing; no shipped
//! program turns the feature on.

/// A bug that must turn the world red.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// The gate acknowledges a publish before the journal's group is synced.
    PubackBeforeFsync = 1,
    /// The agent publishes a record that its spool has not synced.
    PublishBeforeSync,
    /// A restarted writer goes on with the epoch of the one before it.
    EpochNotRenewed,
    /// The gap of evicted records is appended after their segment was reused.
    GapAfterReuse,
    /// A repeat is acknowledged although its original is not synced.
    AckUnsyncedRepeat,
    /// A journal segment is released although no later snapshot is durable.
    SegmentWithoutSnapshot,
    /// One row of a batch does not reach the lake.
    RowLostInBatch,
    /// The agent releases records that are received but not committed.
    ReleaseBeforeAck,
    /// A gateway's Hello for its node counts as the node's own, and abandons epochs that it does not list.
    ForeignEpochAbandoned,
    /// Records of an earlier boot are dated by the clock of the present one.
    EarlierBootDatedByPresent,
}

impl Bug {
    /// Every bug.
    pub const ALL: [Self; 10] = [
        Self::PubackBeforeFsync,
        Self::PublishBeforeSync,
        Self::EpochNotRenewed,
        Self::GapAfterReuse,
        Self::AckUnsyncedRepeat,
        Self::SegmentWithoutSnapshot,
        Self::RowLostInBatch,
        Self::ReleaseBeforeAck,
        Self::ForeignEpochAbandoned,
        Self::EarlierBootDatedByPresent,
    ];
}

#[cfg(feature = "sabotage")]
mod switch {
    use super::Bug;
    use std::cell::Cell;

    std::thread_local! {
        static ACTIVE: Cell<u8> = const { Cell::new(0) };
    }

    /// Whether `bug` is switched on in this thread.
    #[must_use]
    pub fn is(bug: Bug) -> bool {
        ACTIVE.with(Cell::get) == bug as u8
    }

    /// Switches one bug on, or all off, in this thread.
    pub fn set(bug: Option<Bug>) {
        ACTIVE.with(|active| active.set(bug.map_or(0, |bug| bug as u8)));
    }
}

#[cfg(feature = "sabotage")]
pub use switch::{is, set};

/// Whether `bug` is switched on: never, in this build.
#[cfg(not(feature = "sabotage"))]
#[must_use]
#[inline(always)]
pub const fn is(_bug: Bug) -> bool {
    false
}
