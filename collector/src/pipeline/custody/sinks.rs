//! Core: what sinks say, and which journal segments may go.

use headwater_proto::ids::{SeqRange, Stream};
use headwater_spool::Disk;

use super::{Custody, Leaves, Refused, Report};
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
        if self.is_holding(sink) {
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

    /// The last plan of a sink in the journal, if it may not be carried out yet.
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

    /// Takes in what a sink has, or has refused and was named for: what all required sinks have by that is
    /// committed.
    pub(super) fn committed(&mut self, said: &Report) {
        let sink = said.sink.as_str();
        self.journal.sinks.has_come(sink, said.through);
        if !self.streams.requires(sink) {
            return;
        }
        self.journal.committed_so_far();
        for (stream, ranges) in said.streams.iter().chain(&said.refused) {
            if self.streams.has(sink, stream, ranges) {
                self.sessions.owe_acks(stream);
            }
        }
    }

    /// Whether a sink has so much that others lack that its next report waits until they come closer. The
    /// one that is furthest behind never waits, so somebody always goes on.
    pub(super) fn has_too_much(&self, sink: &str) -> bool {
        self.journal.sinks.can_wait(sink) && self.streams.has_too_much(sink)
    }

    /// What a required sink has and not all of them have.
    pub fn beyond_others(&self, sink: &str) -> impl Iterator<Item = (&Stream, &[SeqRange])> {
        self.streams.beyond_others(sink)
    }

    /// By required sink the ranges of numbers that it has and not all of them have.
    #[must_use]
    pub fn covered_ranges(&self) -> Vec<(String, usize)> {
        let required = self.required_sinks().into_iter();
        required
            .map(|sink| {
                let ranges = self.streams.covered_ranges(&sink);
                (sink, ranges)
            })
            .collect()
    }

    /// A sink passed over records that it could not read.
    pub(super) fn damaged(&mut self, sink: &str, records: u64) {
        self.counters.records_damaged_total += records;
        if records > 0 && self.streams.requires(sink) {
            self.streams.watch(self.journal.log().next());
        }
    }

    /// An Ack is owed for every stream of a device that is connected.
    pub(super) fn owe_all_acks(&mut self) {
        let devices = self.sessions.devices();
        let streams = devices.flat_map(|device| self.streams.ledger().streams_of(device));
        let all: Vec<Stream> = streams.map(|(stream, _)| stream.clone()).collect();
        all.iter().for_each(|stream| self.sessions.owe_acks(stream));
    }

    /// When half of the quota is used and a new snapshot would free a segment, begins one.
    pub(super) fn make_room(&mut self) {
        self.leave_behind();
        let tight = self.journal.is_tight() || self.is_stalled();
        if !tight || !self.journal.would_free() || self.roll().is_err() {
            return;
        }
        let Some(sink) = self.journal.sinks.required().next() else {
            return;
        };
        let sink = sink.to_owned();
        let position = self.cursor(&sink).unwrap_or_default();
        let head = CursorHead {
            sink: &sink,
            position,
        };
        // Without room the next tick tries again.
        let _ = self.append(&Record::Cursor(head), Leaves::None);
    }
}
