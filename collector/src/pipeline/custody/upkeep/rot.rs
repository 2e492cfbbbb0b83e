//! Core: a sink passed records that it could not read. The lake may have them: what it has of them is named for
//! the sink before its cursor passes.
//!
//! ```text
//! a sink passes damage ──► its report waits ──► the lake has come as far ──► another thread reads what the
//!     journal and the lake's flushes have there ──► less what the sink reports: Lacks in the journal
//!                                                                            ──► the report counts
//! ```
//! So a cursor beyond damage means that its sink has what was there, or is named for it. What the lake itself
//! cannot read is watched for, and in the end asked for again or named.

use headwater_proto::sabotage::{self, Bug};
use headwater_spool::Disk;

use super::super::journal::Report;
use super::super::stretch::{Reading, Stretch, WhatFor};
use super::Upkeep;
use crate::pipeline::envelope::SinkCursor;

impl<D: Disk> Upkeep<'_, D> {
    /// Whether a report has to wait until the damaged records in it are named; has them read if it is time.
    ///
    /// - `before`: the sink's cursor.
    pub(super) fn waits_for_names(&mut self, before: &SinkCursor, said: &Report) -> bool {
        let (sink, sinks) = (said.sink.as_str(), &self.custody.journal.sinks);
        if said.damaged == 0
            || said.named.is_some()
            || before.position >= said.through
            || sinks.is_lake(sink)
            || sabotage::is(Bug::RotUnnamed)
        {
            return false;
        }
        if self.may_read() && self.custody.journal.sinks.lake_position() >= Some(said.through) {
            let stretch = Stretch {
                sink: sink.to_owned(),
                from: before.position,
                to: said.through,
            };
            let mut reading = Reading::new(stretch, WhatFor::Damaged);
            reading.reported(sink, &said.streams);
            reading.reported(sink, &said.refused);
            self.begin(reading);
        }
        true
    }
}
