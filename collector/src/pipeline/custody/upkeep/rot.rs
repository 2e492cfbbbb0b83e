//! Core: an optional sink passed records that it could not read. The lake may have them: what it has of them is
//! named for the sink before its cursor passes.
//!
//! Of required sinks what all passed and not all have tells the same, and is watched for. Of an optional one
//! custody keeps no numbers; so once the lake has come as far, another thread compares its flushes with what
//! can be read of them here. The sink waits meanwhile.

use headwater_proto::sabotage::{self, Bug};
use headwater_spool::Disk;

use super::super::Output;
use super::super::journal::Report;
use super::super::stretch::{Reading, Stretch};
use super::Upkeep;
use crate::pipeline::envelope::SinkCursor;

impl<D: Disk> Upkeep<'_, D> {
    /// Whether a report has to wait until the damaged records in it are named; has them read if it is time.
    ///
    /// - `before`: the sink's cursor.
    pub(super) fn waits_for_names(&mut self, before: &SinkCursor, said: &Report) -> bool {
        let sink = said.sink.as_str();
        if said.damaged == 0
            || before.position >= said.through
            || self.custody.streams.coverage().requires(sink)
            || sabotage::is(Bug::RotUnnamed)
        {
            return false;
        }
        let has_lake = self.custody.journal.sinks.required_position() >= said.through;
        if self.custody.reading.is_none() && has_lake {
            let stretch = Stretch {
                sink: sink.to_owned(),
                from: before.position,
                to: said.through,
                rotten_only: true,
            };
            let mut reading = Reading::new(stretch.clone(), said.through);
            reading.reported(sink, &said.streams);
            reading.reported(sink, &said.refused);
            self.custody.sessions.put_out(Output::Read(stretch));
            self.custody.reading = Some(reading);
        }
        true
    }
}
