//! Core: what sinks say, and which journal segments may go.

use headwater_proto::ids::{SeqRange, Stream};
use headwater_proto::time::Now;
use headwater_spool::Disk;

use super::coverage::MAX_COVERED_RANGES;
use super::lacks::Held;
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
        if self.is_holding(sink) {
            return Err(PlanError::Held);
        }
        // A sink that could not publish comes again with the plan that is there.
        if let Some(plan) = self.plans.get(sink)
            && plan.bytes == bytes
        {
            return Ok(plan.position);
        }
        self.grown_bytes += bytes.len();
        self.append(&Record::Plan(PlanHead { sink }, bytes), Leaves::One)
            .map_err(|refused| match refused {
                Refused::Full => PlanError::Full,
                Refused::Failed => PlanError::Failed,
            })
    }

    /// The last plan of a sink in the journal, if it may not be carried out yet.
    #[must_use]
    pub fn plan(&self, sink: &str) -> Option<&PendingPlan> {
        self.plans.get(sink)
    }

    /// How far each sink is.
    #[must_use]
    pub fn cursors(&self) -> &[SinkCursor] {
        &self.cursors
    }

    /// The first position that a sink has not committed.
    #[must_use]
    pub fn cursor(&self, sink: &str) -> Option<u64> {
        position(&self.cursors, sink)
    }

    /// The sinks that the journal waits for.
    #[must_use]
    pub fn required_sinks(&self) -> Vec<String> {
        let required = self.settings.sinks.iter().filter(|sink| sink.required);
        required.map(|sink| sink.name.clone()).collect()
    }

    /// The first position that some required sink has not committed.
    pub(super) fn required_position(&self) -> u64 {
        self.least(&self.cursors)
    }

    fn least(&self, cursors: &[SinkCursor]) -> u64 {
        let required = self.settings.sinks.iter().filter(|sink| sink.required);
        required
            .map(|sink| position(cursors, &sink.name).unwrap_or(0))
            .min()
            .unwrap_or(0)
    }

    /// The first position that some sink has not committed: of those that are required, those that
    /// are not, and those that were taken out and are not named yet.
    pub(super) fn least_of_all(&self, cursors: &[SinkCursor]) -> u64 {
        let configured = self.settings.sinks.iter();
        let configured = configured.map(|sink| position(cursors, &sink.name).unwrap_or(0));
        let all = cursors.iter().map(|cursor| cursor.position);
        configured.chain(all).min().unwrap_or(0)
    }

    /// Takes in what a sink has, or has refused and was named for: what all required sinks have by that is
    /// committed.
    pub(super) fn committed(&mut self, said: &Held) {
        let sink = said.sink.as_str();
        // A sink has one plan at a time; what it says it has, it carried out.
        self.plans.remove(sink);
        let Some(cursor) = self.cursors.iter_mut().find(|cursor| cursor.name == sink) else {
            return;
        };
        cursor.position = cursor.position.max(said.through);
        if !self.coverage.requires(sink) {
            return;
        }
        self.committed_to = self.committed_to.max(self.required_position());
        self.settle_term();
        for (stream, ranges) in said.streams.iter().chain(&said.refused) {
            let mut is_new = false;
            for range in ranges {
                for open in self.ledger.uncommitted(stream, *range) {
                    for all in self.coverage.add(sink, stream, open) {
                        self.ledger.commit(stream, all);
                        is_new = true;
                    }
                }
            }
            if is_new {
                self.sessions.owe_acks(stream);
            }
        }
    }

    /// Whether a sink has so much that others lack that its next report waits until they come closer. The
    /// one that is furthest behind never waits, so somebody always goes on.
    pub(super) fn has_too_much(&self, sink: &str) -> bool {
        let is_ahead = self.cursor(sink) > Some(self.required_position());
        is_ahead && !self.is_ending && self.coverage.ranges(sink) >= MAX_COVERED_RANGES
    }

    /// What a required sink has and not all of them have.
    pub fn beyond_others(&self, sink: &str) -> impl Iterator<Item = (&Stream, &[SeqRange])> {
        self.coverage.of(sink)
    }

    /// By required sink the ranges of numbers that it has and not all of them have.
    #[must_use]
    pub fn covered_ranges(&self) -> Vec<(String, usize)> {
        let required = self.required_sinks().into_iter();
        required
            .map(|sink| {
                let ranges = self.coverage.ranges(&sink);
                (sink, ranges)
            })
            .collect()
    }

    /// A sink passed over records that it could not read.
    pub(super) fn damaged(&mut self, sink: &str, records: u64) {
        self.counters.records_damaged_total += records;
        if records > 0 && self.coverage.requires(sink) {
            self.watch();
        }
    }

    /// An Ack is owed for every stream of a device that is connected.
    pub(super) fn owe_all_acks(&mut self) {
        let devices = self.sessions.devices();
        let streams = devices.flat_map(|device| self.ledger.streams_of(device));
        let all: Vec<Stream> = streams.map(|(stream, _)| stream.clone()).collect();
        all.iter().for_each(|stream| self.sessions.owe_acks(stream));
    }

    /// Gives back segments that every sink has passed, or that one was named as lacking, as a later
    /// durable snapshot says.
    pub(super) fn release(&mut self) {
        let passed = self.least_of_all(&self.durable_cursors);
        let done: Vec<u64> = self
            .log
            .segments()
            .filter(|segment| segment.sealed && segment.next <= passed)
            .map(|segment| segment.id)
            .collect();
        for id in done {
            // The newest stays; one that could not be removed is tried again.
            if matches!(self.log.release(id), Ok(true)) {
                self.counters.segments_released_total += 1;
            }
        }
    }

    /// When half of the quota is used and a new snapshot would free a segment, begins one.
    pub(super) fn make_room(&mut self, now: Now) {
        self.leave_behind(now);
        let config = self.log.config();
        let tight = self.log.used_bytes() > config.quota_bytes / 2 || self.is_stalled();
        if !tight {
            return;
        }
        let (durable, present) = (
            self.least_of_all(&self.durable_cursors),
            self.least_of_all(&self.cursors),
        );
        let newest = self.log.segments().next_back().map(|segment| segment.id);
        let waiting = |next: u64| next > present;
        let all = !self
            .log
            .segments()
            .any(|segment| Some(segment.id) != newest && waiting(segment.next));
        let freed: u64 = self
            .log
            .segments()
            .filter(|segment| {
                segment.next > segment.first && !waiting(segment.next) && segment.next > durable
            })
            .map(|segment| segment.bytes_allocated)
            .sum();
        // Not for less than the new segment takes, or a full journal would grow.
        let frees = freed >= config.segment_bytes || (all && freed > 0);
        if !frees || self.pending_cursors.is_some() {
            return;
        }
        if let Err(error) = self.log.roll() {
            self.fail(error.lost.start);
            return;
        }
        self.keep_synced();
        let Some(sink) = self.settings.sinks.iter().find(|sink| sink.required) else {
            return;
        };
        let name = sink.name.clone();
        let required = self.cursor(&name).unwrap_or_default();
        let head = CursorHead {
            sink: &name,
            position: required,
        };
        // Without room the next tick tries again.
        let _ = self.append(&Record::Cursor(head), Leaves::None);
    }
}

fn position(cursors: &[SinkCursor], sink: &str) -> Option<u64> {
    cursors
        .iter()
        .find(|cursor| cursor.name == sink)
        .map(|cursor| cursor.position)
}
