//! Core: where intake and store meet: what sources offer, and the records that come of it.

use headwater_proto::ids::Lane;
use headwater_proto::message::{Gap, GapReason, Stage};
use headwater_proto::refused::Part;
use headwater_proto::time::{Base, Now, UnixMicros};
use headwater_spool::Disk;

use super::intake::{BULK_AGE_MS, Item, Missed};
use super::store::{Draft, place_of};
use super::types::Taken;
use super::writing::Step;
use super::{Engine, Lost, OfferError, Offered};
use crate::pipeline::admit::{Admitted, Sample, admit, as_text};
use crate::pipeline::batcher::{Given, Next, Which};
use crate::pipeline::record::Cursor;

impl<D: Disk> Engine<D> {
    /// Takes a reading. A source that resumes gives the cursor after it, and keeps to the lane of its
    /// first reading; a reading that its durable cursor covers is dropped silently, since it is on
    /// disk already, or was. Values that no collector would take go to quarantine, the others are taken.
    ///
    /// Every item takes the source's next receipt, beginning with 0, but one that is to be offered again:
    /// that of a source that resumes, for [`OfferError::Busy`].
    ///
    /// # Errors
    /// [`OfferError`].
    ///
    /// # Panics
    /// If `source` is not a place in the settings or `lane` not an agent's.
    pub fn offer(
        &mut self,
        source: usize,
        lane: Lane,
        sample: &Sample<'_>,
        cursor: Option<Cursor>,
        now: Now,
    ) -> Result<Offered, OfferError> {
        self.follow_the_clock(now);
        let (fields, refused) = match admit(sample) {
            Admitted::Whole => (None, Vec::new()),
            Admitted::Part { fields, refused } => (Some(fields), refused),
        };
        let row = Sample {
            fields: fields.as_deref().unwrap_or(sample.fields),
            ..*sample
        };
        let dated = self.intake.clock.date(row.time, now);
        let item = Item {
            lane: place_of(lane),
            source,
            cursor,
            samples: sample.samples(),
            dated,
        };
        let given = match self.take(&item, now)? {
            Taken::Known(receipt) => return Ok(Offered::of(receipt)),
            Taken::New(given) => given,
        };
        let receipt = given.receipt;
        let is_empty = row.samples() == 0;
        for (turn, (place, fault)) in (1..).zip(&refused) {
            let field = &sample.fields[*place];
            let shown = field.value.map(as_text).unwrap_or_default();
            let part = Part {
                at_us: 0,
                place: &format!("value of {}", field.name),
                cause: &fault.to_string(),
                bytes: shown.as_bytes(),
            };
            // The cursor goes with the last that is stored of the row.
            let is_last = is_empty && turn == refused.len();
            let cursor = given.cursor.filter(|_| is_last);
            self.keep_refused(item.lane, source, &part, Given { cursor, ..given }, now);
        }
        if is_empty {
            if refused.is_empty() {
                self.intake.note_empty();
            }
            return Ok(Offered { receipt, refused });
        }
        self.close_first(item.lane, source, Next::Row(&row), dated.base, now);
        let intake = &mut self.intake;
        if intake.row(item.lane, source, &row, dated, given, now.mono) {
            self.close(item.lane, Which::Full, now);
        }
        Ok(Offered { receipt, refused })
    }

    /// Takes a log line, as [`Engine::offer`].
    ///
    /// # Errors
    /// [`OfferError`].
    ///
    /// # Panics
    /// As [`Engine::offer`].
    pub fn offer_line(
        &mut self,
        source: usize,
        lane: Lane,
        time: UnixMicros,
        line: &[u8],
        cursor: Option<Cursor>,
        now: Now,
    ) -> Result<Offered, OfferError> {
        self.follow_the_clock(now);
        let at = place_of(lane);
        let dated = self.intake.clock.date(time, now);
        let item = Item {
            lane: at,
            source,
            cursor,
            samples: 1,
            dated,
        };
        let given = match self.take(&item, now)? {
            Taken::Known(receipt) => return Ok(Offered::of(receipt)),
            Taken::New(given) => given,
        };
        let receipt = given.receipt;
        self.close_first(at, source, Next::Line, dated.base, now);
        let mut refused = Vec::new();
        match self.intake.line(at, source, line, dated, given, now.mono) {
            Ok(true) => self.close(at, Which::Full, now),
            Ok(false) => {}
            Err(fault) => {
                let part = Part {
                    at_us: 0,
                    place: "a line",
                    cause: &fault.to_string(),
                    bytes: line,
                };
                self.keep_refused(at, source, &part, given, now);
                refused.push((0, fault));
            }
        }
        Ok(Offered { receipt, refused })
    }

    /// Takes a part that a source could not read: where it stood, why, and how it begins. A source that
    /// resumes gives the cursor after it if no row comes of the same place, which that cursor would
    /// cover.
    ///
    /// # Errors
    /// [`OfferError`], as [`Engine::offer`].
    ///
    /// # Panics
    /// As [`Engine::offer`].
    pub fn refuse(
        &mut self,
        source: usize,
        lane: Lane,
        part: &Part<'_>,
        cursor: Option<Cursor>,
        now: Now,
    ) -> Result<Offered, OfferError> {
        self.follow_the_clock(now);
        let item = Item {
            lane: place_of(lane),
            source,
            cursor,
            samples: 1,
            dated: self.intake.clock.date_now(now),
        };
        match self.take(&item, now)? {
            Taken::Known(receipt) => Ok(Offered::of(receipt)),
            Taken::New(given) => {
                self.keep_refused(item.lane, source, part, given, now);
                Ok(Offered::of(given.receipt))
            }
        }
    }

    /// Takes note of readings that a source had to drop before it could offer them, or can no longer read: a
    /// gap names them in the group of its next batch, or at the stop. Their receipt is not durable. A source
    /// that resumes gives the cursor after them, and does once that gap is durable.
    ///
    /// # Panics
    /// As [`Engine::offer`].
    pub fn lost(
        &mut self,
        source: usize,
        lane: Lane,
        lost: Lost,
        cursor: Option<Cursor>,
        now: Now,
    ) {
        let at = place_of(lane);
        self.follow_the_clock(now);
        if cursor.is_some() {
            // The gap comes before the next batch: what the cursor covers is in records before it.
            self.close(at, Which::Of(source), now);
        }
        self.intake.lost(at, source, lost, cursor, now);
    }

    /// Gives an item its receipt, unless it is to be offered again. Where memory is full, all that is open
    /// is stored first.
    fn take(&mut self, item: &Item, now: Now) -> Result<Taken, OfferError> {
        let source = &self.settings.sources[item.source];
        let (durable, resumes) = (self.store.lanes.resume_at(&source.name), source.resumes);
        let is_known = self.intake.is_known(item, durable);
        let mut has_room = self.has_room(item.lane, resumes);
        if is_known == Ok(false) && !has_room {
            for at in 0..Lane::AGENT.len() {
                self.close(at, Which::All, now);
                self.carry_out(at, [Step::Sync], now);
            }
            has_room = self.has_room(item.lane, resumes);
        }
        self.intake.enter(item, is_known, has_room, now.mono)
    }

    /// Whether memory takes another item of a lane.
    fn has_room(&self, at: usize, resumes: bool) -> bool {
        let lanes = &self.store.lanes;
        let all = || (0..Lane::AGENT.len()).map(|at| lanes.lane(at));
        let held: usize = all().map(|lane| lane.held_bytes).sum();
        if self.intake.open_bytes() + held >= self.settings.readings_bytes {
            return false;
        }
        if lanes.lane(at).ram.is_none() {
            // What an earlier RAM epoch still holds takes no room on the disk.
            return true;
        }
        let in_ram: usize = all().map(|lane| lane.ram_bytes()).sum();
        !resumes && in_ram < self.settings.fallback_bytes
    }

    /// Keeps a refused part for the lake's quarantine, as far as its source's bounds go.
    fn keep_refused(&mut self, at: usize, source: usize, part: &Part<'_>, given: Given, now: Now) {
        if let Some((lane, beyond)) = self.intake.beyond(source, Some(now.mono)) {
            self.name_missed(lane, &beyond, now);
        }
        if !self.intake.keeps(source, part, given, now) {
            return;
        }
        let at = self.intake.lane_of_refused(at, source);
        let dated = self.intake.clock.date_now(now);
        self.close_first(at, source, Next::Refused, dated.base, now);
        if self.intake.part(at, source, part, dated, given, now.mono) {
            self.close(at, Which::Full, now);
        }
    }

    /// Stores the open batch of a source whose cursor would pass it.
    fn close_first(&mut self, at: usize, source: usize, next: Next<'_, '_>, base: Base, now: Now) {
        if self.intake.must_close_first(at, source, next, base) {
            self.close(at, Which::Of(source), now);
        }
    }

    /// Closes batches and stores them.
    pub(super) fn close(&mut self, at: usize, which: Which, now: Now) {
        let turn = self.store.lanes.lane(at).turn();
        let mut next = self.intake.close(at, which, turn, now.mono);
        while let Some(closed) = next {
            let schemas = self.intake.batches(at).schemas();
            self.store.lanes.use_schemas(at, schemas);
            while let Some(missed) = self.intake.take_missed_of(at, closed.owed.source) {
                self.name_missed(at, &missed, now);
            }
            let mut record = self.intake.record(at, closed, now);
            if self.store.lanes.lane(at).holds_in_memory() {
                // What the disk never had is lost with this life, unless the collector has it by then.
                record.stored_to = None;
            }
            self.carry_out(at, [Step::Store(record)], now);
            let turn = self.store.lanes.lane(at).turn();
            next = self.intake.close(at, which, turn, now.mono);
        }
    }

    /// Appends a gap that names what is in no record of a source. Where it covers more than the records
    /// before it, the source resumes after it.
    pub(super) fn name_missed(&mut self, at: usize, missed: &Missed, now: Now) {
        if missed.reason == GapReason::Refused && missed.cursor.is_some() {
            // The cursor would pass what is in no record yet.
            self.close(at, Which::Of(missed.source), now);
        }
        let source = &self.settings.sources[missed.source];
        let lane = self.store.lanes.lane(at);
        let (lane_id, epoch) = (lane.lane, lane.epoch);
        let mark = lane.marks.source(&source.name);
        // What is missing in the input came after the last that was read of it, and nobody counted it.
        let is_of_input = missed.reason == GapReason::MissingAtSource;
        let since = mark.and_then(|mark| mark.stored_to).filter(|_| is_of_input);
        // That is when its batch closed; what was read first for it is older by as much as a batch may be.
        let age_us = self.settings.batch.age_ms.max(BULK_AGE_MS) * 1_000;
        let since = since.map(|since| UnixMicros(since.0.saturating_sub_unsigned(age_us)));
        let first = missed.span.map(|(first, _)| first);
        let gap = Gap {
            samples: Some(missed.samples).filter(|_| !is_of_input),
            t_first: first.map(|first| since.map_or(first, |since| first.min(since))),
            t_last: missed.span.map(|(_, last)| last),
            stage: Stage::Source,
            part: source.name.parse().ok(),
            ..self.store.lanes.gap(lane_id, epoch, missed.reason, now)
        };
        let known = mark.and_then(|mark| mark.cursor);
        let is_further = |cursor: &Cursor| !known.is_some_and(|known| known.covers(*cursor));
        let stamps = self.intake.clock.stamps();
        let mut record = Draft::own(&gap, &self.settings.device, stamps);
        let cursor = missed.cursor.filter(is_further);
        if let Some(cursor) = cursor.filter(|_| source.resumes) {
            record.source.clone_from(&source.name);
            record.cursor = Some(cursor);
            record.from = self.intake.moves_to(missed.source, Some(cursor));
            record.waits = true;
            record.base = lane.present_life().base;
        }
        self.carry_out(at, [Step::Store(record)], now);
    }
}
