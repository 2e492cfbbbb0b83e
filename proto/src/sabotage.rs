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
    /// An owner of the lake that was taken over from commits all the same.
    CommitAfterTakeover,
    /// The time of a journal record is judged by the present, not by its receipt.
    InterpretedByPresent,
    /// A sink's cursor passes what it never answered for.
    CursorPastUnanswered,
    /// A segment goes although nothing names what a sink lacks of it.
    SegmentBeforeSinkGap,
    /// A sink publishes what it planned before the plan is durable.
    PlanNotDurable,
    /// The hot store takes a batch whole, whatever the interpreter refused of it.
    TwoVerdicts,
    /// The agent tells a source that its rows are durable once they are written, before they are synced.
    ReceiptWithoutSync,
    /// The lake commits epochs and gaps before the samples that they speak of.
    SamplesAfterGaps,
    /// After a crash a batch is cut by what is there at that moment, not by its durable end.
    BatchCutByReadTime,
    /// A lake that was away at a start is compared with where the journal stands when it is back, not with
    /// where it stood when the time without the lake began.
    LateLakeByPresentEnd,
    /// After a lost journal nothing names what the lake has and another sink may lack.
    LostJournalUnnamed,
    /// Nothing names for an optional sink what rotted before it read it.
    RotUnnamed,
    /// The span of a gap that the collector finds lies beside the missing readings.
    SpanBesideTruth,
    /// A call of a streaming service that succeeds counts as success of each of its records.
    SuccessUnread,
    /// After a call of which some records failed all of them are sent again.
    BatchResentWhole,
    /// A record goes on its way although an older one of its key failed.
    KeyOvertaken,
}

#[cfg(feature = "sabotage")]
mod switch {
    use super::Bug;
    use std::cell::Cell;

    std::thread_local! {
        static ACTIVE: Cell<u8> = const { Cell::new(0) };
        static PRESENT_US: Cell<i64> = const { Cell::new(0) };
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

    /// The present, for a bug in code that has no clock; Unix time in microseconds.
    #[must_use]
    pub fn present_us() -> i64 {
        PRESENT_US.with(Cell::get)
    }

    /// Sets what [`present_us`] says in this thread.
    pub fn set_present_us(now_us: i64) {
        PRESENT_US.with(|present| present.set(now_us));
    }
}

#[cfg(feature = "sabotage")]
pub use switch::{is, present_us, set, set_present_us};

/// Whether `bug` is switched on: never, in this build.
#[cfg(not(feature = "sabotage"))]
#[must_use]
#[inline(always)]
pub const fn is(_bug: Bug) -> bool {
    false
}

/// The present, for a bug that cannot be switched on in this build.
#[cfg(not(feature = "sabotage"))]
#[must_use]
#[inline(always)]
pub const fn present_us() -> i64 {
    0
}
