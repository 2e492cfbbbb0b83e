//! Core: what sources give, until it is a record: dated, admitted once, gathered in batches; with the
//! receipts that wait for it, and what found no room.
//!
//! It knows no disk. Whether there is room, and how far a source is durable, it is told; what must be
//! stored before something else is taken it says.

use headwater_proto::frame::{self, Kind};
use headwater_proto::ids::{DeviceId, Lane};
use headwater_proto::message::{GapReason, TimeBase};
use headwater_proto::refused::{MAX_BYTES, MAX_WORDS_BYTES, Part};
use headwater_proto::time::{Base, Millis, Now, UnixMicros};

use super::store::{Draft, Says, place_of};
use super::types::{Lost, OfferError, Settings, SourceSettings, Taken};
use crate::pipeline::admit::{Fault, OtherLane, Sample};
use crate::pipeline::batcher::{
    BatchLimits, Batcher, Closed, Content, Given, Next, Pushed, Turn, Which,
};
use crate::pipeline::receipts::{Owed, Receipts, Settled};
use crate::pipeline::record::Cursor;
use crate::pipeline::refusals::Refusals;
use crate::pipeline::timekeeper::{Dated, Timekeeper};

mod boot;

/// Least age at which a batch of the bulk lane closes: its group waits for seconds anyway, and larger
/// batches take fewer bytes a row.
pub(super) const BULK_AGE_MS: u64 = 1_000;

/// What a source gave that is to be named, because it is in no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Missed {
    pub(super) source: usize,
    pub(super) samples: u64,
    /// Wall time of the first and the last, if all have one.
    pub(super) span: Option<(UnixMicros, UnixMicros)>,
    /// Where the source resumes after them, if it can.
    pub(super) cursor: Option<Cursor>,
    pub(super) reason: GapReason,
}

/// An item that a source offers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item {
    pub(super) lane: usize,
    pub(super) source: usize,
    pub(super) cursor: Option<Cursor>,
    pub(super) samples: u64,
    pub(super) dated: Dated,
}

/// What the intake has counted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counted {
    pub(super) readings: u64,
    pub(super) samples: u64,
    pub(super) covered: u64,
    pub(super) refused: u64,
    pub(super) empty: u64,
    pub(super) busy: u64,
    pub(super) lost_samples: u64,
    pub(super) records: u64,
}

/// What one lane has taken and not yet stored.
#[derive(Debug)]
struct Open {
    lane: Lane,
    batcher: Batcher,
    /// What found no room since the last batch of its source.
    missed: Vec<Missed>,
}

impl Open {
    fn new(lane: Lane, settings: &Settings) -> Self {
        let batch = settings.batch;
        let age_ms = match lane {
            Lane::Alarm => 0,
            Lane::Bulk => batch.age_ms.max(BULK_AGE_MS),
            Lane::Normal | Lane::Plain => batch.age_ms,
        };
        let limits = BatchLimits { age_ms, ..batch };
        let (tags, dictionary) = (settings.tags.clone(), settings.dictionary.clone());
        Self {
            lane,
            batcher: Batcher::new(limits, tags, dictionary),
            missed: Vec::new(),
        }
    }
}

/// The intake of one agent.
pub(super) struct Intake {
    device: DeviceId,
    boot: u64,
    sources: Vec<SourceSettings>,
    pub(super) clock: Timekeeper,
    /// The base of new rows' times, as of the last look at the clock.
    base: Base,
    boot_date: boot::BootDate,
    lanes: Vec<Open>,
    /// The lane of each source that resumes, from its first item on.
    bound: Vec<Option<usize>>,
    /// Where each source stood after its last record, in any life.
    pub(super) stands: Vec<Option<Cursor>>,
    /// What each source had refused.
    refusals: Vec<Refusals>,
    /// What each source was told of what it gave.
    receipts: Vec<Receipts>,
    counted: Counted,
}

impl Intake {
    /// Nothing is open.
    pub(super) fn new(settings: &Settings, now: Now) -> Self {
        let clock = Timekeeper::new(settings.clock, now);
        let sources = settings.sources.len();
        let lanes = Lane::AGENT.into_iter();
        Self {
            device: settings.device.clone(),
            boot: settings.boot,
            sources: settings.sources.clone(),
            base: clock.base(),
            clock,
            boot_date: boot::BootDate::default(),
            lanes: lanes.map(|lane| Open::new(lane, settings)).collect(),
            bound: vec![None; sources],
            stands: vec![None; sources],
            refusals: vec![Refusals::default(); sources],
            receipts: vec![Receipts::default(); sources],
            counted: Counted::default(),
        }
    }

    pub(super) const fn counted(&self) -> Counted {
        self.counted
    }

    /// The base of new rows' times.
    pub(super) const fn base(&self) -> Base {
        self.base
    }

    /// Looks at the clock that dates rows. True if it has changed: what is open is to be stored first, with
    /// the times it has.
    pub(super) fn look_at_clock(&mut self, now: Now) -> bool {
        self.clock.look(now);
        let base = self.clock.base();
        if base == Base::Uptime {
            self.boot_date.counts(now.mono);
        }
        std::mem::replace(&mut self.base, base) != base
    }

    /// An earlier process of this boot has begun to count rows from it.
    pub(super) fn counts_since_boot(&mut self) {
        self.boot_date.counts(Millis(0));
    }

    /// What was said of the boot in memory is to be said again where it lasts.
    pub(super) const fn forget_date_of_boot(&mut self) {
        self.boot_date.forget_told();
    }

    /// The next record of a source covers all up to `cursor`: where that begins.
    pub(super) fn moves_to(&mut self, source: usize, cursor: Option<Cursor>) -> Option<Cursor> {
        let from = self.stands[source];
        self.stands[source] = cursor.or(from);
        from
    }

    /// The record that ties the boot to wall time, where one is due and rows count from it.
    pub(super) fn date_boot(&mut self, now: Now) -> Option<TimeBase> {
        self.boot_date
            .due(&self.clock, &self.device, self.boot, now)
    }

    /// Whether an item is on disk already, or was: the durable cursor of its source covers it.
    ///
    /// # Errors
    /// [`OtherLane`]: its source keeps to another lane.
    pub(super) fn is_known(
        &mut self,
        item: &Item,
        durable: Option<Cursor>,
    ) -> Result<bool, OtherLane> {
        let resumes = self.sources[item.source].resumes;
        let bound = &mut self.bound[item.source];
        if resumes && *bound.get_or_insert(item.lane) != item.lane {
            let bound = bound.unwrap_or(item.lane);
            return Err(OtherLane(self.lanes[bound].lane));
        }
        let both = item.cursor.zip(durable);
        let is_known = both.is_some_and(|(offered, durable)| durable.covers(offered));
        self.counted.covered += u64::from(is_known);
        Ok(is_known)
    }

    /// Gives an item its receipt, unless it is to be offered again.
    ///
    /// - `is_known`: as [`Intake::is_known`] says; `has_room`: for one that is not.
    ///
    /// # Errors
    /// [`OfferError`]; what a source loses by it is noted.
    pub(super) fn enter(
        &mut self,
        item: &Item,
        is_known: Result<bool, OtherLane>,
        has_room: bool,
        now: Millis,
    ) -> Result<Taken, OfferError> {
        let &Item { source, cursor, .. } = item;
        let SourceSettings {
            resumes,
            durable_within_ms,
            ..
        } = self.sources[source];
        if is_known == Ok(false) && !has_room {
            self.counted.busy += 1;
            if resumes {
                return Err(OfferError::Busy);
            }
            let time = (item.dated.base == Base::Wall).then_some(UnixMicros(item.dated.us));
            let missed = Missed {
                source,
                samples: item.samples,
                span: time.zip(time),
                cursor: None,
                reason: GapReason::Overflow,
            };
            self.miss(item.lane, missed);
        }
        let receipts = &mut self.receipts[source];
        let receipt = receipts.take();
        match is_known {
            Ok(true) => Ok(Taken::Known(receipt)),
            Ok(false) if has_room => Ok(Taken::New(Given {
                cursor,
                receipt,
                by: durable_within_ms.map(|ms| now.plus(ms)),
            })),
            Ok(false) => {
                receipts.lose(receipt);
                Err(OfferError::Busy)
            }
            Err(other) => {
                receipts.lose(receipt);
                Err(other.into())
            }
        }
    }

    /// Counts an item that needs nothing here: its receipt is settled at once.
    pub(super) fn pass(&mut self, source: usize) {
        self.receipts[source].take();
    }

    /// Takes note of what a source had to drop before it could offer it.
    pub(super) fn lost(
        &mut self,
        at: usize,
        source: usize,
        lost: Lost,
        cursor: Option<Cursor>,
        now: Now,
    ) {
        self.counted.busy += u64::from(lost.reason == GapReason::Overflow);
        let wall = |time| {
            let Dated { base, us, .. } = self.clock.date(time, now);
            (base == Base::Wall).then_some(UnixMicros(us))
        };
        let span = wall(lost.first).zip(wall(lost.last));
        let missed = Missed {
            source,
            samples: lost.samples,
            span,
            cursor,
            reason: lost.reason,
        };
        self.miss(at, missed);
        let receipt = self.receipts[source].take();
        self.receipts[source].lose(receipt);
    }

    fn miss(&mut self, at: usize, more: Missed) {
        self.counted.lost_samples += more.samples;
        let missed = &mut self.lanes[at].missed;
        let is_alike =
            |known: &&mut Missed| (known.source, known.reason) == (more.source, more.reason);
        if let Some(known) = missed.iter_mut().find(is_alike) {
            known.samples += more.samples;
            known.cursor = more.cursor.or(known.cursor);
            let both = known.span.zip(more.span);
            known.span = both.map(|((a, b), (c, d))| (a.min(c), b.max(d)));
        } else {
            missed.push(more);
        }
    }

    /// Takes out what is to be named of a source for one reason; there may be another.
    pub(super) fn take_missed_of(&mut self, at: usize, source: usize) -> Option<Missed> {
        let missed = &mut self.lanes[at].missed;
        let known = missed.iter().position(|known| known.source == source)?;
        Some(missed.swap_remove(known))
    }

    /// Takes out all that found no room in a lane.
    pub(super) fn take_missed(&mut self, at: usize) -> Vec<Missed> {
        std::mem::take(&mut self.lanes[at].missed)
    }

    /// Whether what a source gives next must wait until its open batch is stored: its cursor would otherwise
    /// pass what is in no record yet.
    pub(super) fn must_close_first(
        &mut self,
        at: usize,
        source: usize,
        next: Next<'_, '_>,
        base: Base,
    ) -> bool {
        let batcher = &mut self.lanes[at].batcher;
        self.sources[source].resumes && batcher.must_close_first(source, next, base)
    }

    /// Adds a row that was admitted; says whether its batch is full. One without a value is counted alone.
    pub(super) fn row(
        &mut self,
        at: usize,
        source: usize,
        row: &Sample<'_>,
        dated: Dated,
        given: Given,
        now: Millis,
    ) -> bool {
        let batcher = &mut self.lanes[at].batcher;
        let pushed = batcher.push(source, row, dated, given, now);
        self.counted.readings += 1;
        self.took(source, row.samples(), given.receipt, pushed)
    }

    /// A row had no value at all.
    pub(super) const fn note_empty(&mut self) {
        self.counted.empty += 1;
    }

    /// Adds a log line; says whether its batch is full.
    ///
    /// # Errors
    /// [`Fault`] if it is too long.
    pub(super) fn line(
        &mut self,
        at: usize,
        source: usize,
        line: &[u8],
        dated: Dated,
        given: Given,
        now: Millis,
    ) -> Result<bool, Fault> {
        let (name, batcher) = (&self.sources[source].name, &mut self.lanes[at].batcher);
        let pushed = batcher.push_line(source, name, dated, line, given, now)?;
        self.counted.readings += 1;
        Ok(self.took(source, 1, given.receipt, pushed))
    }

    /// The lane of a refused part: that of its source, if that resumes, so that its cursor stands there; else
    /// lane normal.
    pub(super) fn lane_of_refused(&self, at: usize, source: usize) -> usize {
        if self.sources[source].resumes {
            at
        } else {
            place_of(Lane::Normal)
        }
    }

    /// Whether a refused part is within its source's bounds; otherwise it is counted and its receipt settled.
    /// Ask [`Intake::beyond`] first.
    pub(super) fn keeps(&mut self, source: usize, part: &Part<'_>, given: Given, now: Now) -> bool {
        self.counted.refused += 1;
        let words = part.place.len().min(MAX_WORDS_BYTES) + part.cause.len().min(MAX_WORDS_BYTES);
        let bytes = words + part.bytes.len().min(MAX_BYTES);
        let wall = self.clock.known_wall(now);
        let keeps = self.refusals[source].keeps(bytes, wall, given.cursor, now.mono);
        if !keeps {
            self.receipts[source].lose(given.receipt);
        }
        keeps
    }

    /// Adds a refused part; says whether its batch is full.
    pub(super) fn part(
        &mut self,
        at: usize,
        source: usize,
        part: &Part<'_>,
        dated: Dated,
        given: Given,
        now: Millis,
    ) -> bool {
        let (name, batcher) = (&self.sources[source].name, &mut self.lanes[at].batcher);
        let pushed = batcher.push_refused(source, name, dated, part, given, now);
        self.took(source, 1, given.receipt, pushed)
    }

    fn took(
        &mut self,
        source: usize,
        samples: u64,
        receipt: u64,
        Pushed { began, full }: Pushed,
    ) -> bool {
        self.counted.samples += samples;
        if began {
            self.receipts[source].hold(receipt);
        }
        full
    }

    /// What passed a source's bounds in a minute that is over, and the lane in which that is named; at a stop
    /// (`now` is `None`) that of any minute.
    pub(super) fn beyond(&mut self, source: usize, now: Option<Millis>) -> Option<(usize, Missed)> {
        let refusals = &mut self.refusals[source];
        let beyond = match now {
            Some(now) => refusals.due(now),
            None => refusals.rest(),
        }?;
        let missed = Missed {
            source,
            samples: beyond.parts,
            span: beyond.span,
            cursor: beyond.cursor,
            reason: GapReason::Refused,
        };
        let lane = self.bound[source].unwrap_or_else(|| place_of(Lane::Normal));
        Some((lane, missed))
    }

    /// Closes a batch of a lane, if `which` asks for one.
    pub(super) fn close(
        &mut self,
        at: usize,
        which: Which,
        turn: Turn,
        now: Millis,
    ) -> Option<Closed> {
        self.lanes[at].batcher.close(which, turn, now)
    }

    /// The record of a batch of a lane.
    pub(super) fn record(&mut self, at: usize, closed: Closed, now: Now) -> Box<Draft> {
        self.counted.records += 1;
        let from = self.moves_to(closed.owed.source, closed.cursor);
        let stored_to = self.stored_to(at, now);
        let SourceSettings {
            name,
            resumes,
            loses,
            ..
        } = &self.sources[closed.owed.source];
        let (kind, payload) = match &closed.content {
            Content::Batch(payload) => (Kind::Batch, payload),
            Content::Text(payload) => (Kind::Text, payload),
            Content::Refused(payload) => (Kind::Refused, payload),
        };
        let mut bytes = Vec::with_capacity(frame::encoded_len(payload.len()));
        frame::append(kind, payload, &mut bytes).expect("a batch is far below a frame's limit");
        Box::new(Draft {
            kind,
            stamps: closed.times.stamps,
            source: name.clone(),
            base: closed.times.base,
            cursor: closed.cursor,
            from,
            live: *loses,
            waits: *resumes,
            stored_to,
            schema: closed.new_schema,
            frame: bytes,
            samples: closed.samples,
            says: Says::Nothing,
            owed: Some(closed.owed),
        })
    }

    /// Wall time up to which all that a lane took is in records, once the one that was closed now is.
    fn stored_to(&self, at: usize, now: Now) -> Option<UnixMicros> {
        let wall = self.clock.known_wall(now)?;
        // What found no room, or passed a bound, and is not named yet is in no record either.
        let is_unnamed = |refusals: &Refusals| refusals.next_due().is_some();
        if !self.lanes[at].missed.is_empty() || self.refusals.iter().any(is_unnamed) {
            return None;
        }
        let opened = self.lanes[at].batcher.opened().unwrap_or(now.mono);
        let open_us = now.mono.since(opened).saturating_mul(1_000);
        Some(UnixMicros(wall.0.saturating_sub_unsigned(open_us)))
    }

    /// The open batches of a lane, to look at.
    pub(super) fn batches(&self, at: usize) -> &Batcher {
        &self.lanes[at].batcher
    }

    /// Bytes of all open batches.
    pub(super) fn open_bytes(&self) -> usize {
        let lanes = self.lanes.iter();
        lanes.map(|open| open.batcher.open_bytes()).sum()
    }

    /// When the clock is to be asked, or something refused is to be named.
    pub(super) fn next_wakeup(&self) -> Option<Millis> {
        let refusals = self.refusals.iter().filter_map(Refusals::next_due);
        refusals.chain([self.clock.next_measure()]).min()
    }

    /// What a source waits for is durable.
    pub(super) fn settle(&mut self, owed: &Owed) {
        self.receipts[owed.source].settle(owed.span);
    }

    /// What a source waits for never will be durable.
    pub(super) fn fail(&mut self, owed: &Owed) {
        self.receipts[owed.source].fail(owed.span);
    }

    /// Brings what a source knows of its receipts up to date; says whether it was not.
    pub(super) fn tell_settled(&self, source: usize, settled: &mut Settled) -> bool {
        self.receipts[source].tell(settled)
    }
}

#[cfg(test)]
mod tests;
