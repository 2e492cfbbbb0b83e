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

use std::collections::BTreeMap;

use headwater_proto::delivery::Ranges;
use headwater_proto::ids::{SeqRange, Stream};
use headwater_proto::message::GapReason;
use headwater_proto::sabotage::{self, Bug};
use headwater_proto::time::Now;
use headwater_spool::{Disk, ReadError};

use super::open::each_number;
use super::{Custody, Leaves, Refused};
use crate::pipeline::envelope::{CursorHead, LacksHead, Record, SinkCursor};

/// Ranges in one record: it stays far below what a segment takes.
const RANGES_PER_RECORD: usize = 256;
/// Time between two records of how far a sink is. A kill repeats no more than a sink was told in it.
const NOTE_CURSOR_MS: u64 = 1_000;
/// Position of a sink that is gone: all it lacks is named.
const GONE: u64 = u64::MAX;

/// What a sink said.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) sink: String,
    pub(super) through: u64,
    pub(super) streams: Vec<(Stream, Vec<SeqRange>)>,
    pub(super) refused: Vec<(Stream, Vec<SeqRange>)>,
    pub(super) damaged: u64,
}

/// A cursor that records of the running group let pass.
#[derive(Debug)]
pub(super) struct Moved {
    cursor: SinkCursor,
    /// What the sink said, to be taken in once more.
    said: Option<Held>,
}

/// Numbers by stream.
type Numbers = BTreeMap<Stream, Ranges<{ usize::MAX }>>;

impl<D: Disk> Custody<D> {
    /// Takes in what a sink said: what it refused is named before its cursor moves.
    pub(super) fn said(&mut self, said: Held, now: Now) {
        let Some(cursor) = self.cursors.iter().find(|cursor| cursor.name == said.sink) else {
            return;
        };
        let before = cursor.clone();
        if let Some(held) = self.held.iter_mut().find(|held| held.sink == said.sink) {
            held.through = held.through.max(said.through);
            held.streams.extend(said.streams);
            held.refused.extend(said.refused);
            held.damaged += said.damaged;
            return;
        }
        if self.has_too_much(&said.sink) {
            self.counters.sink_reports_held_total += 1;
            self.held.push(said);
            return;
        }
        if !said.refused.is_empty() {
            let sink = std::slice::from_ref(&said.sink);
            if self
                .name_lacks(sink, &said.refused, GapReason::Refused, now)
                .is_err()
            {
                self.held.push(said);
                return;
            }
            let said = Some(said.clone());
            self.moved.push(Moved {
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
        self.held.iter().any(|held| held.sink == sink)
    }

    /// The sinks whose last report is not taken in yet.
    #[must_use]
    pub fn held_sinks(&self) -> Vec<String> {
        self.held.iter().map(|held| held.sink.clone()).collect()
    }

    /// Takes in once more what found no room, or came from a sink that had too much.
    pub(super) fn say_again(&mut self, now: Now) {
        let counted = self.counters.sink_reports_held_total;
        for held in std::mem::take(&mut self.held) {
            self.said(held, now);
        }
        // A report counts once, however long it waits.
        self.counters.sink_reports_held_total = counted;
    }

    /// The running group failed: cursors go back to before its records.
    pub(super) fn move_back(&mut self) {
        for Moved { cursor, said } in std::mem::take(&mut self.moved).into_iter().rev() {
            match self.cursors.iter_mut().find(|c| c.name == cursor.name) {
                Some(present) => present.position = cursor.position,
                None => self.cursors.push(cursor),
            }
            self.held.extend(said);
        }
        self.noted.clear();
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
        if !self.has_room(&lens, Leaves::Two) {
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
    pub(super) fn leave_behind(&mut self, now: Now) {
        if !self.is_near_quota() {
            return;
        }
        let required = self.required_position();
        let least = self.least_of_all(&self.cursors);
        let oldest = self
            .log
            .segments()
            .find(|segment| segment.sealed && segment.next > least)
            .filter(|segment| segment.next <= required);
        let Some(to) = oldest.map(|segment| segment.next) else {
            return;
        };
        let behind: Vec<SinkCursor> = self
            .cursors
            .iter()
            .filter(|cursor| cursor.position < to)
            .cloned()
            .collect();
        for cursor in behind {
            if self.name_stretch(&cursor, to, to, now).is_err() {
                return;
            }
        }
    }

    /// Whether sinks that the journal does not wait for may no longer keep segments: before their bytes
    /// cost the senders credit.
    fn is_near_quota(&self) -> bool {
        let config = self.log.config();
        let half = config.quota_bytes / 2;
        let spare = config.quota_bytes.saturating_sub(5 * config.segment_bytes);
        let near = half.max(spare.min(config.quota_bytes / 4 * 3));
        self.log.used_bytes() > near || self.is_stalled()
    }

    /// Sinks that are no longer in the configuration: what they never had of the time before this start
    /// is named, and they are forgotten.
    pub(super) fn name_leavers(&mut self, now: Now) {
        let is_configured =
            |cursor: &SinkCursor| self.settings.sinks.iter().any(|s| s.name == cursor.name);
        let leavers = self.cursors.iter().filter(|c| !is_configured(c));
        for cursor in leavers.cloned().collect::<Vec<_>>() {
            if self
                .name_stretch(&cursor, self.began_at, GONE, now)
                .is_err()
            {
                return;
            }
        }
    }

    /// Names what `cursor..to` holds as lacking in its sink, and moves its cursor to `moved_to`.
    fn name_stretch(
        &mut self,
        cursor: &SinkCursor,
        to: u64,
        moved_to: u64,
        now: Now,
    ) -> Result<(), Refused> {
        // A segment that cannot be read now is kept.
        let lacks = self.numbers_in(cursor.position, to);
        let lacks = lacks.map_err(|_| Refused::Failed)?;
        if !sabotage::is(Bug::SegmentBeforeSinkGap) {
            let sink = std::slice::from_ref(&cursor.name);
            self.name_lacks(sink, &lacks, GapReason::SinkSkipped, now)?;
        }
        let (cursor, said) = (cursor.clone(), None);
        let name = cursor.name.clone();
        self.moved.push(Moved { cursor, said });
        let head = CursorHead {
            sink: &name,
            position: moved_to,
        };
        self.append(&Record::Cursor(head), Leaves::One)?;
        Ok(())
    }

    /// The numbers that records from `from` to `to` stand for.
    fn numbers_in(&self, from: u64, to: u64) -> Result<Vec<(Stream, Vec<SeqRange>)>, ReadError> {
        let mut numbers = Numbers::new();
        each_number(&self.log, from, to, &mut |_, stream, range| {
            // Without a bound on ranges nothing is refused.
            let _ = numbers.entry(stream.clone()).or_default().insert(range);
        })?;
        let listed = |(stream, ranges): (Stream, Ranges<{ usize::MAX }>)| {
            (stream, ranges.as_slice().to_vec())
        };
        Ok(numbers.into_iter().map(listed).collect())
    }

    /// A record says how far a sink is.
    pub(super) fn cursor_noted(&mut self, sink: &str, position: u64) {
        if position == GONE {
            self.cursors.retain(|cursor| cursor.name != sink);
            return;
        }
        if let Some(cursor) = self.cursors.iter_mut().find(|cursor| cursor.name == sink) {
            cursor.position = cursor.position.max(position);
        }
    }

    /// Appends how far sinks are, each once in a while, so that a kill repeats little; `at_once` at an
    /// orderly end, so that it repeats nothing. False without room: what is in the journal stands then.
    pub fn note_cursors(&mut self, now: Now, at_once: bool) -> bool {
        if at_once {
            self.is_ending = true;
            self.say_again(now);
        }
        let worth_noting = self.worth_noting;
        let noted = |name: &str| self.noted.get(name).copied().unwrap_or_default();
        let due = self.cursors.iter().filter(|cursor| {
            let (position, at) = noted(&cursor.name);
            let is_new = cursor.position > position && position < worth_noting;
            is_new && (at_once || now.mono.since(at) >= NOTE_CURSOR_MS)
        });
        for cursor in due.cloned().collect::<Vec<_>>() {
            let head = CursorHead {
                sink: &cursor.name,
                position: cursor.position,
            };
            if self.append(&Record::Cursor(head), Leaves::Three).is_err() {
                return false;
            }
            let place = (cursor.position, now.mono);
            self.noted.insert(cursor.name, place);
        }
        self.held.is_empty()
    }
}
