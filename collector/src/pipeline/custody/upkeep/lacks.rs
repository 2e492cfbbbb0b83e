//! Core: what a sink lacks is named before the journal lets go of it.
//!
//! ```text
//! a sink refused it                       ──┐
//! it rotted, and another sink has it      ──┤
//! its journal is lost, and the lake has it──┤
//! the journal nears its quota, and a sink   ├──► Lacks in the journal ──► the sink's cursor passes it
//! that it does not wait for is behind     ──┤    (the lake: a gap of       ──► snapshot, durable
//! a sink was taken out                    ──┘    stage `sink`)                  ──► its segment may go
//! ```
//! A group that fails takes its records back, and with them the cursors that they let pass.

use headwater_proto::ids::{SeqRange, Stream};
use headwater_proto::message::GapReason;
use headwater_proto::sabotage::{self, Bug};
use headwater_spool::Disk;

use super::super::journal::Moved;
use super::super::stretch::{Found, Reading, Stretch, WhatFor};
use super::super::{Leaves, Output, Refused};
use super::Upkeep;
use crate::pipeline::envelope::{CursorHead, GONE, LacksHead, Record, SinkCursor};
use crate::pipeline::ledger::Around;
use crate::pipeline::spans::Which;

/// Time after a stretch that could not be read before one is read again, so that a place that is away is told once a
/// minute.
const READ_AGAIN_MS: u64 = 60_000;
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
                    let ledger = self.custody.streams.ledger();
                    let span =
                        |range| Around(ledger).span(stream, Which::Numbers(range), self.now.wall);
                    records.push(Record::Lacks(LacksHead {
                        sink,
                        stream: stream.clone(),
                        ranges: ranges.iter().map(|range| (*range, span(*range))).collect(),
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
        let is_tight = self.custody.journal.is_near_quota() || self.custody.is_stalled();
        if !self.may_read() || !is_tight {
            return;
        }
        let Some(to) = self.custody.journal.kept_for_others_to() else {
            return;
        };
        if let Some(cursor) = self.custody.journal.sinks.behind(to).first() {
            self.ask_for(cursor, to, to);
        }
    }

    /// Sinks that are no longer in the configuration: what they never had of the time before this start
    /// is named, and they are forgotten.
    pub(super) fn name_leavers(&mut self) {
        if !self.may_read() {
            return;
        }
        let began_at = self.custody.journal.sinks.began_at();
        if let Some(cursor) = self.custody.journal.sinks.leavers().first() {
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
        let what_for = WhatFor::Skipped(moved_to);
        self.begin(Reading::new(stretch, what_for));
    }

    /// Whether a stretch may be read now: one at a time, and none right after one that could not be.
    pub(super) fn may_read(&self) -> bool {
        self.custody.reading.is_none() && self.now.mono >= self.custody.read_again_at
    }

    /// Has a stretch read.
    pub(super) fn begin(&mut self, reading: Reading) {
        let read = Output::Read(reading.stretch.clone());
        self.custody.sessions.put_out(read);
        self.custody.reading = Some(reading);
    }

    /// A stretch was read, or could not be: its segment is then kept, and it is asked for again.
    pub(in super::super) fn was_read(&mut self, stretch: &Stretch, found: Option<Found>) {
        let reading = self.custody.reading.as_mut();
        let Some(reading) = reading.filter(|reading| reading.stretch == *stretch) else {
            return;
        };
        let Some(found) = found else {
            self.custody.reading = None;
            self.custody.read_again_at = self.now.mono.plus(READ_AGAIN_MS);
            return;
        };
        reading.read(found);
        self.name_reading();
        self.name_leavers();
        self.leave_behind();
    }

    /// Names the stretch that was read as lacking in its sink, unless that has come further meanwhile;
    /// without room, the next tick tries again.
    pub(super) fn name_reading(&mut self) {
        let Some(reading) = self.custody.reading.take() else {
            return;
        };
        let Some(lacks) = reading.lacks() else {
            self.custody.reading = Some(reading);
            return;
        };
        let sink = &reading.stretch.sink;
        let mut cursors = self.custody.journal.sinks.cursors().iter();
        let cursor = cursors.find(|cursor| cursor.name == *sink);
        let to = match reading.what_for {
            WhatFor::Skipped(moved_to) => moved_to,
            WhatFor::Damaged => reading.stretch.to,
        };
        let is_behind = |cursor: &&SinkCursor| cursor.position < to;
        let Some(cursor) = cursor.filter(is_behind).cloned() else {
            return;
        };
        let named = match reading.what_for {
            WhatFor::Skipped(_) => self.name_stretch(&cursor, &lacks, to),
            WhatFor::Damaged => self.name_damage(&cursor.name, &lacks, to),
        };
        if named.is_err() {
            self.custody.reading = Some(reading);
        }
    }

    /// Names `lacks` as lacking in a sink, and moves its cursor beyond the stretch.
    fn name_stretch(
        &mut self,
        cursor: &SinkCursor,
        lacks: &Found,
        moved_to: u64,
    ) -> Result<(), Refused> {
        if !sabotage::is(Bug::SegmentBeforeSinkGap) {
            let sink = std::slice::from_ref(&cursor.name);
            self.name_lacks(sink, lacks, GapReason::SinkSkipped)?;
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

    /// Names `lacks`, which the lake has and the journal cannot give a sink: a report of up to `to`, which waits for
    /// that, counts from now on.
    fn name_damage(&mut self, sink: &str, lacks: &Found, to: u64) -> Result<(), Refused> {
        self.name_lacks(&[sink.to_owned()], lacks, GapReason::Damaged)?;
        self.custody.journal.sinks.named_damage(sink, lacks, to);
        Ok(())
    }
}
