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
use headwater_proto::time::Now;
use headwater_spool::Disk;

use super::journal::{GONE, Moved};
use super::stretch::{Found, Reading, Stretch};
use super::{Custody, Leaves, Output, Refused, Report};
use crate::pipeline::envelope::{CursorHead, LacksHead, Record, SinkCursor};

/// Ranges in one record: it stays far below what a segment takes.
const RANGES_PER_RECORD: usize = 256;

impl<D: Disk> Custody<D> {
    /// Takes in what a sink said: what it refused is named before its cursor moves.
    pub(super) fn said(&mut self, said: Report, now: Now) {
        let sinks = &mut self.journal.sinks;
        let cursor = sinks.cursors().iter().find(|c| c.name == said.sink);
        let Some(before) = cursor.cloned() else {
            return;
        };
        if let Some(reading) = &mut self.reading {
            reading.reported(&said.sink, &said.streams);
            reading.reported(&said.sink, &said.refused);
        }
        if sinks.is_holding(&said.sink) {
            sinks.hold(said);
            return;
        }
        if self.has_too_much(&said.sink) {
            self.counters.sink_reports_held_total += 1;
            self.journal.sinks.hold(said);
            return;
        }
        if !said.refused.is_empty() {
            let sink = std::slice::from_ref(&said.sink);
            if self
                .name_lacks(sink, &said.refused, GapReason::Refused, now)
                .is_err()
            {
                self.journal.sinks.hold(said);
                return;
            }
            let said = Some(said.clone());
            self.journal.sinks.moving(Moved {
                cursor: before,
                said,
            });
        }
        self.committed(&said);
        self.damaged(&said.sink, said.damaged);
        self.note_cursors(now, false);
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

    /// Takes in once more what found no room, or came from a sink that had too much.
    pub(super) fn say_again(&mut self, now: Now) {
        let counted = self.counters.sink_reports_held_total;
        for held in self.journal.sinks.take_held() {
            self.said(held, now);
        }
        // A report counts once, however long it waits.
        self.counters.sink_reports_held_total = counted;
    }

    /// Appends that each of `sinks` lacks the numbers in `lacks`; all of it or nothing.
    pub(super) fn name_lacks(
        &mut self,
        sinks: &[String],
        lacks: &[(Stream, Vec<SeqRange>)],
        reason: GapReason,
        now: Now,
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
                        at: now.wall,
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
        if !self.journal.has_room(&lens, Leaves::Two) {
            return Err(Refused::Full);
        }
        for record in &records {
            self.append(record, Leaves::Two)?;
        }
        let ranges = lacks.iter().flat_map(|(_, ranges)| ranges);
        let numbers: u64 = ranges.map(|range| range.len()).sum();
        self.counters.sink_lacks_total += numbers * sinks.len() as u64;
        Ok(())
    }

    /// When the journal nears its quota, leaves behind sinks that it does not wait for: what its oldest
    /// segment holds for them is named.
    pub(super) fn leave_behind(&mut self) {
        if self.reading.is_some() || (!self.journal.is_near_quota() && !self.is_stalled()) {
            return;
        }
        let Some(to) = self.journal.kept_for_others_to() else {
            return;
        };
        if let Some(cursor) = self.journal.sinks.behind(to).first() {
            self.ask_for(cursor, to, to);
        }
    }

    /// Sinks that are no longer in the configuration: what they never had of the time before this start
    /// is named, and they are forgotten.
    pub(super) fn name_leavers(&mut self) {
        if self.reading.is_some() {
            return;
        }
        let began_at = self.journal.sinks.began_at();
        if let Some(cursor) = self.journal.sinks.leavers().first() {
            self.ask_for(cursor, began_at, GONE);
        }
    }

    /// Has `cursor..to` read, to name it as lacking in its sink; its cursor then goes to `moved_to`.
    fn ask_for(&mut self, cursor: &SinkCursor, to: u64, moved_to: u64) {
        let stretch = Stretch {
            sink: cursor.name.clone(),
            from: cursor.position,
            to,
        };
        self.sessions.put_out(Output::Read(stretch.clone()));
        self.reading = Some(Reading::new(stretch, moved_to));
    }

    /// A stretch was read, or could not be: its segment is then kept, and it is asked for again.
    pub(super) fn was_read(&mut self, stretch: &Stretch, found: Option<Found>, now: Now) {
        let Some(reading) = self.reading.as_mut().filter(|r| r.stretch == *stretch) else {
            return;
        };
        let Some(found) = found else {
            // Not at once: what cannot be read now may be with the next tick.
            self.reading = None;
            return;
        };
        reading.read(found);
        self.name_reading(now);
        self.name_leavers();
        self.leave_behind();
    }

    /// Names the stretch that was read as lacking in its sink, unless that has come further meanwhile;
    /// without room, the next tick tries again.
    pub(super) fn name_reading(&mut self, now: Now) {
        let Some(reading) = self.reading.take() else {
            return;
        };
        let Some(lacks) = reading.lacks() else {
            self.reading = Some(reading);
            return;
        };
        let sink = &reading.stretch.sink;
        let mut cursors = self.journal.sinks.cursors().iter();
        let cursor = cursors.find(|cursor| cursor.name == *sink);
        let is_behind = |cursor: &&SinkCursor| cursor.position < reading.moved_to;
        let Some(cursor) = cursor.filter(is_behind).cloned() else {
            return;
        };
        if self
            .name_stretch(&cursor, &lacks, reading.moved_to, now)
            .is_err()
        {
            self.reading = Some(reading);
        }
    }

    /// Names `lacks` as lacking in a sink, and moves its cursor to `moved_to`.
    fn name_stretch(
        &mut self,
        cursor: &SinkCursor,
        lacks: &Found,
        moved_to: u64,
        now: Now,
    ) -> Result<(), Refused> {
        if !sabotage::is(Bug::SegmentBeforeSinkGap) {
            let sink = std::slice::from_ref(&cursor.name);
            self.name_lacks(sink, lacks, GapReason::SinkSkipped, now)?;
        }
        let (cursor, said) = (cursor.clone(), None);
        let name = cursor.name.clone();
        self.journal.sinks.moving(Moved { cursor, said });
        let head = CursorHead {
            sink: &name,
            position: moved_to,
        };
        self.append(&Record::Cursor(head), Leaves::One)?;
        Ok(())
    }

    /// Appends how far sinks are, each once in a while, so that a kill repeats little; `at_once` at an
    /// orderly end, so that it repeats nothing. False without room: what is in the journal stands then.
    pub fn note_cursors(&mut self, now: Now, at_once: bool) -> bool {
        if at_once {
            self.journal.sinks.end();
            self.say_again(now);
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
