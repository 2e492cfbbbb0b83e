//! Core: what a sink lacks is named before the journal lets go of it.
//!
//! ```text
//! a sink refused it                       ──┐
//! it rotted, and another sink has it      ──┤
//! the journal nears its quota, and a sink   ├──► Lacks in the journal ──► the sink's cursor passes it
//! that it does not wait for is behind     ──┤    (the lake: a gap of       ──► snapshot, durable
//! a sink was taken out                    ──┘    stage `sink`)                  ──► its segment may go
//! ```
//! A group that fails takes its records back, and with them the cursors that they let pass.

use headwater_proto::ids::{SeqRange, Stream};
use headwater_proto::message::GapReason;
use headwater_proto::sabotage::{self, Bug};
use headwater_spool::Disk;

use super::super::journal::{GONE, Moved};
use super::super::{Leaves, Refused};
use super::Upkeep;
use crate::pipeline::envelope::{CursorHead, LacksHead, Record, SinkCursor};

/// Ranges in one record: it stays far below what a segment takes.
const RANGES_PER_RECORD: usize = 256;

impl<D: Disk> Upkeep<'_, D> {
    /// Appends that each of `sinks` lacks the numbers in `lacks`; all of it or nothing.
    pub(super) fn name_lacks(
        &mut self,
        sinks: &[String],
        lacks: &[(Stream, Vec<SeqRange>)],
        reason: GapReason,
    ) -> Result<(), Refused> {
        let mut records = Vec::new();
        for sink in sinks {
            for (stream, ranges) in lacks {
                for ranges in ranges.chunks(RANGES_PER_RECORD) {
                    records.push(Record::Lacks(LacksHead {
                        sink,
                        stream: stream.clone(),
                        ranges: ranges.to_vec(),
                        reason,
                        at: self.now.wall,
                    }));
                }
            }
        }
        let mut bytes = Vec::new();
        let len = |record: &Record<'_>| {
            record.encode(&mut bytes);
            bytes.len()
        };
        let lens: Vec<usize> = records.iter().map(len).collect();
        // What stands there already would be named once more.
        if !self.custody.journal.has_room(&lens, Leaves::Two) {
            return Err(Refused::Full);
        }
        for record in &records {
            self.custody.append(record, Leaves::Two)?;
        }
        let ranges = lacks.iter().flat_map(|(_, ranges)| ranges);
        let numbers: u64 = ranges.map(|range| range.len()).sum();
        self.custody.counters.sink_lacks_total += numbers * sinks.len() as u64;
        Ok(())
    }

    /// When the journal nears its quota, leaves behind sinks that it does not wait for: what its oldest
    /// segment holds for them is named.
    pub(super) fn leave_behind(&mut self) {
        if !self.custody.journal.is_near_quota() && !self.custody.is_stalled() {
            return;
        }
        let Some(to) = self.custody.journal.kept_for_others_to() else {
            return;
        };
        let behind = self.custody.journal.sinks.behind(to);
        for cursor in behind {
            if self.name_stretch(&cursor, to, to).is_err() {
                return;
            }
        }
    }

    /// Sinks that are no longer in the configuration: what they never had of the time before this start
    /// is named, and they are forgotten.
    pub(super) fn name_leavers(&mut self) {
        let began_at = self.custody.journal.sinks.began_at();
        for cursor in self.custody.journal.sinks.leavers() {
            if self.name_stretch(&cursor, began_at, GONE).is_err() {
                return;
            }
        }
    }

    /// Names what `cursor..to` holds as lacking in its sink, and moves its cursor to `moved_to`.
    fn name_stretch(&mut self, cursor: &SinkCursor, to: u64, moved_to: u64) -> Result<(), Refused> {
        // A segment that cannot be read now is kept.
        let lacks = self.custody.journal.numbers_in(cursor.position, to);
        let lacks = lacks.map_err(|_| Refused::Failed)?;
        if !sabotage::is(Bug::SegmentBeforeSinkGap) {
            let sink = std::slice::from_ref(&cursor.name);
            self.name_lacks(sink, &lacks, GapReason::SinkSkipped)?;
        }
        let (cursor, said) = (cursor.clone(), None);
        let name = cursor.name.clone();
        self.custody.journal.sinks.moving(Moved { cursor, said });
        let head = CursorHead {
            sink: &name,
            position: moved_to,
        };
        self.custody.append(&Record::Cursor(head), Leaves::One)?;
        Ok(())
    }
}
