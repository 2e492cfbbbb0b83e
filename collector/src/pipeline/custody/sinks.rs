//! Core: what sinks ask of custody.

use headwater_proto::ids::{SeqRange, Stream};
use headwater_proto::time::Now;
use headwater_spool::Disk;

use super::{Custody, Leaves, Refused};
use crate::pipeline::envelope::{CursorHead, PlanHead, Record, SinkCursor};
use crate::pipeline::snapshot::PendingPlan;

/// A plan could not be made durable; the sink tries again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The journal has no room even in its reserve.
    #[error("the journal has no room for a sink's plan")]
    Full,
    /// The disk failed.
    #[error("the journal could not take a sink's plan")]
    Failed,
    /// What the sink reported before is not taken yet.
    #[error("the journal has not taken the sink's last report yet")]
    Held,
}

impl<D: Disk> Custody<D> {
    /// Appends what a sink is about to publish; durable after the next [`Custody::sync`] that
    /// succeeds.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn append_plan(&mut self, sink: &str, bytes: &[u8]) -> Result<u64, PlanError> {
        // A plan shows that all before it was named where it had to be.
        let is_unnamed = self.journal.sinks.is_lake(sink) && self.earlier.is_lake_unnamed();
        if self.is_holding(sink) || is_unnamed {
            return Err(PlanError::Held);
        }
        // A sink that could not publish comes again with the plan that is there.
        if let Some(plan) = self.plan(sink)
            && plan.bytes == bytes
        {
            return Ok(plan.position);
        }
        self.journal.grew(bytes.len());
        self.append(&Record::Plan(PlanHead { sink }, bytes), Leaves::One)
            .map_err(|refused| match refused {
                Refused::Full => PlanError::Full,
                Refused::Failed => PlanError::Failed,
            })
    }

    /// The last plan of a sink in the journal, if it may not be carried out yet; the lake's always.
    #[must_use]
    pub fn plan(&self, sink: &str) -> Option<&PendingPlan> {
        self.journal.sinks.plans().get(sink)
    }

    /// How far each sink is.
    #[must_use]
    pub fn cursors(&self) -> &[SinkCursor] {
        self.journal.sinks.cursors()
    }

    /// The first position that a sink has not committed.
    #[must_use]
    pub fn cursor(&self, sink: &str) -> Option<u64> {
        self.journal.sinks.cursor(sink)
    }

    /// The sinks that the journal waits for.
    #[must_use]
    pub fn required_sinks(&self) -> Vec<String> {
        self.journal.sinks.required().map(str::to_owned).collect()
    }

    /// What a required sink has and not all of them have.
    pub fn beyond_others(&self, sink: &str) -> impl Iterator<Item = (&Stream, &[SeqRange])> {
        self.streams.coverage().of(sink)
    }

    /// By required sink the ranges of numbers that it has and not all of them have.
    #[must_use]
    pub fn covered_ranges(&self) -> Vec<(String, usize)> {
        let required = self.required_sinks().into_iter();
        required
            .map(|sink| {
                let ranges = self.streams.coverage().ranges(&sink);
                (sink, ranges)
            })
            .collect()
    }

    /// Whether what a sink said last is not taken in yet: until then it must not go on.
    #[must_use]
    pub fn is_holding(&self, sink: &str) -> bool {
        self.journal.sinks.is_holding(sink)
    }

    /// The sinks whose last report is not taken in yet.
    #[must_use]
    pub fn held_sinks(&self) -> Vec<String> {
        self.journal.sinks.held().map(str::to_owned).collect()
    }

    /// Appends how far sinks are, each once in a while, so that a kill repeats little; `at_once` at an
    /// orderly end, so that it repeats nothing. False without room: what is in the journal stands then.
    pub fn note_cursors(&mut self, now: Now, at_once: bool) -> bool {
        if at_once {
            self.journal.sinks.end();
            self.upkeep(now).say_again();
        }
        for cursor in self.journal.sinks.to_note(now.mono, at_once) {
            let head = CursorHead {
                sink: &cursor.name,
                position: cursor.position,
            };
            if self.append(&Record::Cursor(head), Leaves::Three).is_err() {
                return false;
            }
            self.journal.sinks.note(cursor, now.mono);
        }
        self.journal.sinks.held().next().is_none()
    }
}
