//! Core: the agent's engine. It takes readings, makes them durable, numbers them, publishes them
//! and forgets them when they are committed. Generic over its disk; time and entropy are arguments.
//!
//! | rule | where |
//! |---|---|
//! | a new epoch per lane at each start; the end of the one before is its first record | `store/open.rs`, `writing.rs` |
//! | nothing is published before it is synced | `store.rs` |
//! | the cursor of a source is in the record of its batch | `record.rs` |
//! | a failed sync ends its epoch before the group; the group goes to a new one | `writing.rs` |
//! | a disk that takes nothing: a RAM epoch for live sources, waiting for those that resume | `store/memory.rs` |
//! | a gap is durable before the segment it names is released | `store/room.rs` |
//! | what cannot be read or is refused becomes a gap and is not sent again | `outbox.rs`, `store/refused.rs` |

use headwater_proto::frame::{self, Kind};
use headwater_proto::ids::Lane;
use headwater_proto::message::{Gap, GapReason, Stage};
use headwater_proto::time::{Base, Millis, Now, UnixMicros};
use headwater_spool::Disk;

mod bases;
mod intake;
mod outbox;
mod quarantine;
mod sending;
mod store;
mod types;
mod writing;

pub use outbox::{AgentSender, MAX_DOWN_BYTES, MAX_EPOCHS, MAX_FLIGHTS, UNREADABLE_MS};
pub use store::{DEAD_LETTER, GROUP_BYTES, MAX_GAPS, PROBE_MS};
use types::Taken;
pub use types::{
    Counters, EngineError, Event, LaneStatus, Lost, OfferError, Offered, Settings, SourceSettings,
    SpoolSettings,
};
pub use writing::MAX_FAILED_SYNCS;

use super::admit::{Admitted, OtherLane, Sample, admit};
use super::batcher::{Closed, Content, Given, Next, Pushed, Turn, Which};
use super::receipts::{Receipts, Settled};
use super::record::{Cursor, Unclean};
use super::refusals::Refusals;
use super::timekeeper::{Dated, Timekeeper};
use intake::{Open, Overflow};
use outbox::Outbox;
use store::{Draft, Over, Says, Store, Trouble, place_of};
use writing::Step;

/// The engine of one agent.
pub struct Engine<D: Disk> {
    settings: Settings,
    clock: Timekeeper,
    /// The base of new rows' times, as of the last look at the clock.
    base: Base,
    /// Since when rows count from this boot, in its uptime.
    counted_since: Option<Millis>,
    /// What was last said of the boot's wall time.
    told: Option<bases::Told>,
    opened: Millis,
    store: Store<D>,
    /// What each lane has taken and not stored.
    open: Vec<Open>,
    /// The lane of each source that resumes, from its first reading on.
    bound: Vec<Option<usize>>,
    /// What each source had refused.
    refusals: Vec<Refusals>,
    /// What each source was told of what it gave.
    receipts: Vec<Receipts>,
    outbox: Outbox,
    counters: Counters,
    trouble: Vec<String>,
    hidden: Vec<String>,
}

impl<D: Disk> Engine<D> {
    /// Opens the spool. Every lane begins a new epoch; where the one before has no end on record,
    /// that is the first thing appended and synced. A disk that cannot be written is no reason to
    /// refuse, unless records are on it that were never synced: the lane then begins in memory.
    ///
    /// - `entropy`: 64 random bits at each call, from the operating system.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn open(
        disk: D,
        settings: Settings,
        entropy: &mut dyn FnMut() -> u64,
        now: Now,
    ) -> Result<Self, EngineError> {
        if settings.sources.len() > super::record::MAX_SOURCES {
            return Err(EngineError::Sources(settings.sources.len()));
        }
        let clock = Timekeeper::new(settings.clock, now);
        let random = (entropy(), entropy());
        let (store, Trouble { trouble, hidden }) =
            Store::open(&disk, &settings, clock.base(), random)?;
        let device = settings.device.clone();
        let outbox = Outbox::new(device, settings.boot, settings.sender, entropy());
        let lanes = Lane::AGENT.into_iter();
        let mut engine = Self {
            bound: vec![None; settings.sources.len()],
            refusals: vec![Refusals::default(); settings.sources.len()],
            receipts: vec![Receipts::default(); settings.sources.len()],
            open: lanes.map(|lane| Open::new(lane, &settings)).collect(),
            settings,
            base: clock.base(),
            clock,
            counted_since: None,
            told: None,
            opened: now.mono,
            store,
            outbox,
            counters: Counters::default(),
            trouble,
            hidden,
        };
        engine.counted_since = engine.counted_before();
        for at in 0..engine.open.len() {
            for epoch in engine.store.lanes.held_epochs(at) {
                engine.outbox.announce(epoch);
            }
        }
        for at in 0..engine.open.len() {
            engine.begin_lane(at, now);
        }
        let since = engine.clock.known_wall(now);
        engine.store.begin_life(&engine.settings.sources, since);
        Ok(engine)
    }

    /// Where each source resumes: `None` where it has no durable reading or cannot resume.
    #[must_use]
    pub fn cursors(&self) -> Vec<Option<Cursor>> {
        self.settings
            .sources
            .iter()
            .map(|source| self.store.lanes.resume_at(&source.name))
            .collect()
    }

    /// The sources' names, in the order of [`Engine::cursors`].
    pub fn source_names(&self) -> impl Iterator<Item = &str> + '_ {
        self.settings.sources.iter().map(|source| &*source.name)
    }

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
        let at = place_of(lane);
        self.follow_the_clock(now);
        let (fields, refused) = match admit(sample) {
            Admitted::Whole => (None, Vec::new()),
            Admitted::Part { fields, refused } => (Some(fields), refused),
        };
        let row = Sample {
            fields: fields.as_deref().unwrap_or(sample.fields),
            ..*sample
        };
        let samples = row.samples();
        let dated = self.clock.date(row.time, now);
        let taken = self.take(at, source, cursor, sample.samples(), dated, now)?;
        let (receipt, given) = match taken {
            Taken::Known(receipt) => return Ok(Offered::of(receipt)),
            Taken::New(given) => (given.receipt, given),
        };
        // The cursor goes with the last that is stored of the row.
        let rest = Given {
            cursor: cursor.filter(|_| samples == 0),
            ..given
        };
        self.set_aside(at, source, sample, &refused, rest, now);
        if samples == 0 {
            self.counters.empty += u64::from(refused.is_empty());
            return Ok(Offered { receipt, refused });
        }
        let resumes = self.settings.sources[source].resumes;
        let batcher = &self.open[at].batcher;
        if resumes && batcher.must_close_first(source, Next::Row(&row), dated.base) {
            self.close(at, Which::Of(source), now);
        }
        let batcher = &mut self.open[at].batcher;
        let pushed = batcher.push(source, &row, dated, given, now.mono);
        self.counters.readings += 1;
        self.took(at, source, samples, receipt, pushed, now);
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
        let at = place_of(lane);
        self.follow_the_clock(now);
        let dated = self.clock.date(time, now);
        let given = match self.take(at, source, cursor, 1, dated, now)? {
            Taken::Known(receipt) => return Ok(Offered::of(receipt)),
            Taken::New(given) => given,
        };
        let receipt = given.receipt;
        let SourceSettings { name, resumes, .. } = &self.settings.sources[source];
        let (name, resumes) = (name.clone(), *resumes);
        let batcher = &self.open[at].batcher;
        if resumes && batcher.must_close_first(source, Next::Line, dated.base) {
            self.close(at, Which::Of(source), now);
        }
        let batcher = &mut self.open[at].batcher;
        match batcher.push_line(source, &name, dated, line, given, now.mono) {
            Ok(pushed) => {
                self.counters.readings += 1;
                self.took(at, source, 1, receipt, pushed, now);
                Ok(Offered::of(receipt))
            }
            Err(fault) => {
                self.set_line_aside(at, source, line, fault, given, now);
                Ok(Offered {
                    receipt,
                    refused: vec![(0, fault)],
                })
            }
        }
    }

    /// Gives an item its receipt, unless it is to be offered again.
    fn take(
        &mut self,
        at: usize,
        source: usize,
        cursor: Option<Cursor>,
        samples: u64,
        dated: Dated,
        now: Now,
    ) -> Result<Taken, OfferError> {
        let is_new = self.may_take(at, source, cursor, samples, dated, now);
        let SourceSettings {
            resumes,
            durable_within_ms,
            ..
        } = self.settings.sources[source];
        if is_new == Err(OfferError::Busy) && resumes {
            return Err(OfferError::Busy);
        }
        let receipts = &mut self.receipts[source];
        let receipt = receipts.take();
        match is_new {
            Ok(false) => Ok(Taken::Known(receipt)),
            Ok(true) => Ok(Taken::New(Given {
                cursor,
                receipt,
                by: durable_within_ms.map(|ms| now.mono.plus(ms)),
            })),
            Err(error) => {
                receipts.lose(receipt);
                Err(error)
            }
        }
    }

    /// Whether a reading is to be taken; `false` if it is in the lane already.
    fn may_take(
        &mut self,
        at: usize,
        source: usize,
        cursor: Option<Cursor>,
        samples: u64,
        dated: Dated,
        now: Now,
    ) -> Result<bool, OfferError> {
        let SourceSettings { name, resumes, .. } = &self.settings.sources[source];
        let resumes = *resumes;
        if resumes && *self.bound[source].get_or_insert(at) != at {
            let bound = self.bound[source].unwrap_or(at);
            return Err(OtherLane(self.open[bound].lane).into());
        }
        let durable = self.store.lanes.resume_at(name);
        if cursor
            .zip(durable)
            .is_some_and(|(offered, durable)| durable.covers(offered))
        {
            self.counters.covered += 1;
            return Ok(false);
        }
        if self.has_room(at, resumes) {
            return Ok(true);
        }
        for lane in 0..self.open.len() {
            self.close(lane, Which::All, now);
            self.sync_lane(lane, now);
        }
        if self.has_room(at, resumes) {
            return Ok(true);
        }
        self.counters.busy += 1;
        if !resumes {
            let time = (dated.base == Base::Wall).then_some(UnixMicros(dated.us));
            let (span, cursor) = (time.zip(time), None);
            self.note_overflow(
                Overflow {
                    source,
                    samples,
                    span,
                    cursor,
                },
                at,
            );
        }
        Err(OfferError::Busy)
    }

    fn has_room(&self, at: usize, resumes: bool) -> bool {
        let lanes = 0..self.open.len();
        let open: usize = lanes.clone().map(|at| self.open_bytes(at)).sum();
        if open >= self.settings.readings_bytes {
            return false;
        }
        if self.store.lanes.lane(at).ram.is_none() {
            // What an earlier RAM epoch still holds takes no room on the disk.
            return true;
        }
        let in_ram: usize = lanes.map(|at| self.store.lanes.lane(at).ram_bytes()).sum();
        !resumes && in_ram < self.settings.fallback_bytes
    }

    /// Bytes of a lane in memory that are on no disk yet, RAM epochs not counted.
    fn open_bytes(&self, at: usize) -> usize {
        self.open[at].batcher.open_bytes() + self.store.lanes.lane(at).held_bytes
    }

    fn note_overflow(&mut self, lost: Overflow, at: usize) {
        self.counters.lost_samples += lost.samples;
        let overflow = &mut self.open[at].overflow;
        if let Some(known) = overflow
            .iter_mut()
            .find(|known| known.source == lost.source)
        {
            known.samples += lost.samples;
            known.cursor = lost.cursor.or(known.cursor);
            let both = known.span.zip(lost.span);
            known.span = both.map(|((a, b), (c, d))| (a.min(c), b.max(d)));
        } else {
            overflow.push(lost);
        }
    }

    /// An open batch has taken what has this receipt.
    fn took(
        &mut self,
        at: usize,
        source: usize,
        samples: u64,
        receipt: u64,
        Pushed { began, full }: Pushed,
        now: Now,
    ) {
        self.counters.samples += samples;
        if began {
            self.receipts[source].hold(receipt);
        }
        if full {
            self.close(at, Which::Full, now);
        }
    }

    /// Closes batches and stores them.
    fn close(&mut self, at: usize, which: Which, now: Now) {
        loop {
            let turn = self.turn_of(at);
            let batcher = &mut self.open[at].batcher;
            let Some(closed) = batcher.close(which, turn, now.mono) else {
                return;
            };
            self.store.lanes.use_schemas(at, batcher.schemas());
            self.store_batch(at, closed, now);
        }
    }

    /// Which batches of a lane have their turn.
    fn turn_of(&self, at: usize) -> Turn {
        let lane = self.store.lanes.lane(at);
        Turn {
            base: lane.present_life().base,
            others_from: lane.turns_from(),
        }
    }

    fn store_batch(&mut self, at: usize, closed: Closed, now: Now) {
        let SourceSettings { name, resumes, .. } =
            self.settings.sources[closed.owed.source].clone();
        self.name_lost_readings(at, &closed, &name, now);
        let (kind, payload) = match &closed.content {
            Content::Batch(payload) => (Kind::Batch, payload),
            Content::Text(payload) => (Kind::Text, payload),
            Content::Refused(payload) => (Kind::Refused, payload),
        };
        let mut bytes = Vec::with_capacity(frame::encoded_len(payload.len()));
        frame::append(kind, payload, &mut bytes).expect("a batch is far below a frame's limit");
        let record = Draft {
            kind,
            stamps: closed.times.stamps,
            source: name,
            base: closed.times.base,
            cursor: closed.cursor,
            live: !resumes,
            last_time: closed.times.span().map(|(_, last)| last),
            schema: closed.new_schema,
            frame: bytes,
            samples: closed.samples,
            says: Says::Nothing,
            owed: Some(closed.owed),
        };
        self.counters.records += 1;
        self.put(at, Box::new(record), now);
    }

    /// Before the first batch after an unclean stop, or after readings found no room, a gap says
    /// so, in the same group.
    fn name_lost_readings(&mut self, at: usize, closed: &Closed, name: &str, now: Now) {
        let lane = self.store.lanes.lane(at);
        let (lane_id, epoch) = (lane.lane, lane.epoch);
        let previous = lane.previous.unwrap_or(epoch);
        let overflow = self.open[at].take_overflow(closed.owed.source);
        if let Some(Unclean { since }) = self.store.unclean(at, name) {
            let until = match closed.times.span() {
                Some((first, _)) => Some(first),
                None => self.clock.known_wall(now),
            };
            let gap = Gap {
                t_first: since,
                t_last: until.map(|until| since.map_or(until, |since| until.max(since))),
                part: name.parse().ok(),
                ..self
                    .store
                    .lanes
                    .gap(lane_id, previous, GapReason::UncleanStop, now)
            };
            self.put_own(at, &gap, now);
        }
        if let Some(overflow) = overflow {
            self.name_overflow(at, overflow, now);
        }
    }

    fn name_overflow(&mut self, at: usize, overflow: Overflow, now: Now) {
        let lane = self.store.lanes.lane(at);
        let gap = Gap {
            samples: Some(overflow.samples),
            t_first: overflow.span.map(|(first, _)| first),
            t_last: overflow.span.map(|(_, last)| last),
            stage: Stage::Source,
            part: self.settings.sources[overflow.source].name.parse().ok(),
            ..self
                .store
                .lanes
                .gap(lane.lane, lane.epoch, GapReason::Overflow, now)
        };
        self.put_gap_of(at, overflow.source, &gap, overflow.cursor, now);
    }

    /// Appends a gap in what a source gave. Where it covers more than the records before it, the source
    /// resumes after it.
    fn put_gap_of(
        &mut self,
        at: usize,
        source: usize,
        gap: &Gap,
        cursor: Option<Cursor>,
        now: Now,
    ) {
        let SourceSettings { name, resumes, .. } = &self.settings.sources[source];
        let lane = self.store.lanes.lane(at);
        let known = lane.marks.source(name).and_then(|mark| mark.cursor);
        let is_further = |cursor: &Cursor| !known.is_some_and(|known| known.covers(*cursor));
        let mut record = Draft::own(gap, &self.settings.device, self.clock.stamps());
        if let Some(cursor) = cursor.filter(|cursor| *resumes && is_further(cursor)) {
            record.source.clone_from(name);
            record.cursor = Some(cursor);
            record.base = lane.present_life().base;
        }
        self.put(at, record, now);
    }

    /// Takes note of readings that a source had to drop before it could offer them: a gap names them
    /// in the group of its next batch, or at the stop. Their receipt is not durable. A source that resumes
    /// gives the cursor after them, and does once that gap is durable.
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
        self.counters.busy += 1;
        let wall = |time| {
            let Dated { base, us, .. } = self.clock.date(time, now);
            (base == Base::Wall).then_some(UnixMicros(us))
        };
        let span = wall(lost.first).zip(wall(lost.last));
        let samples = lost.samples;
        self.note_overflow(
            Overflow {
                source,
                samples,
                span,
                cursor,
            },
            at,
        );
        let receipt = self.receipts[source].take();
        self.receipts[source].lose(receipt);
    }

    /// Brings what a source knows of its receipts up to date; says whether it was not.
    ///
    /// # Panics
    /// If `source` is not a place in the settings.
    pub fn tell_settled(&self, source: usize, settled: &mut Settled) -> bool {
        self.receipts[source].tell(settled)
    }

    /// Whether to ask the kernel about the wall clock, and to hand over its answer with
    /// [`Event::Clock`]. To be asked before readings are offered, and after they were taken from
    /// their sources: a clock that was set meanwhile holds for them.
    pub fn wants_clock(&mut self, now: Now) -> bool {
        self.clock.wants_measure(now)
    }

    /// When it was opened.
    #[must_use]
    pub const fn opened_at(&self) -> Millis {
        self.opened
    }

    /// How good the wall clock is, and what the times of new rows count from.
    #[must_use]
    pub const fn clock(&self) -> &Timekeeper {
        &self.clock
    }

    /// Takes in what happened.
    pub fn handle(&mut self, event: Event<'_>, now: Now) {
        match event {
            Event::LinkUp => self.outbox.link_up(now.mono),
            Event::LinkDown => self.outbox.link_down(now.mono),
            Event::Message(bytes) => {
                let clocks = self.clocks(now);
                for heard in self.outbox.message(bytes, &mut self.store.lanes, clocks) {
                    self.clock.heard(heard.time, heard.sent, now);
                }
            }
            Event::Clock(kernel) => self.clock.measured(kernel, now),
            Event::Tick => {
                self.follow_the_clock(now);
                self.date_boot(now);
                for at in 0..self.open.len() {
                    let ram = self.store.lanes.lane(at).ram.as_ref();
                    if ram.is_some_and(|ram| ram.probe_at <= now.mono) {
                        self.leave_memory(at, now);
                    }
                    self.close(at, Which::Due, now);
                    let sync_at = self.store.lanes.lane(at).sync_at();
                    if sync_at.is_some_and(|at| at <= now.mono) {
                        self.sync_lane(at, now);
                    }
                }
                self.name_beyond(now);
                if let Some(at) = self.store.owes_a_name() {
                    self.carry_out(at, [Step::Name], now);
                }
                self.outbox.tick(now.mono);
            }
        }
    }

    /// When to call with [`Event::Tick`] at the latest.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Millis> {
        let groups = (0..self.open.len()).flat_map(|at| {
            let lane = self.store.lanes.lane(at);
            let probe = lane.ram.as_ref().map(|ram| ram.probe_at);
            let due = self.open[at].batcher.next_due(self.turn_of(at));
            [lane.sync_at(), probe, due]
        });
        groups
            .flatten()
            .chain(self.outbox.next_wakeup())
            .chain([self.clock.next_measure()])
            .chain(self.refusals.iter().filter_map(Refusals::next_due))
            .min()
    }

    /// Stores and syncs everything that was admitted, without ending anything.
    pub fn flush(&mut self, now: Now) {
        self.follow_the_clock(now);
        for at in 0..self.open.len() {
            self.close(at, Which::All, now);
            self.sync_lane(at, now);
        }
    }

    /// A clean stop: everything is stored, each lane's epoch ends with a record that says so, and
    /// all is synced. What was published stays valid; nothing may be offered afterwards.
    pub fn stop(&mut self, now: Now) {
        self.flush(now);
        self.date_boot(now);
        self.name_rest(now);
        for at in 0..self.open.len() {
            for overflow in std::mem::take(&mut self.open[at].overflow) {
                self.name_overflow(at, overflow, now);
            }
            if self.store.lanes.lane(at).ram.is_some() {
                self.leave_memory(at, now);
            }
            self.sync_lane(at, now);
            let lane = self.store.lanes.lane(at);
            if lane.ram.is_some() || lane.durable_seq == 0 {
                continue;
            }
            let over = Over {
                epoch: lane.epoch,
                next: lane.next_seq + 1,
                clean: true,
            };
            let end = self.store.lanes.end_record(at, over, self.clock.stamps());
            self.carry_out(at, [Step::Store(end), Step::Sync], now);
        }
        self.store.end_life(&self.settings.sources);
    }

    /// The counters.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        let counted = self.store.lanes.counted();
        Counters {
            samples_durable: counted.samples_durable,
            failed_syncs: counted.failed_syncs,
            disk_failures: counted.disk_failures,
            evicted_records: counted.evicted_records,
            refused_messages: self.outbox.refused_messages(),
            ..self.counters
        }
    }

    /// The sender, to look at.
    #[must_use]
    pub fn sender(&self) -> &AgentSender {
        self.outbox.sender()
    }

    /// How each lane is doing.
    pub fn lanes(&self) -> impl Iterator<Item = LaneStatus> + '_ {
        let statuses = self.store.lanes.statuses().zip(&self.open);
        statuses.map(|(status, open)| LaneStatus {
            memory_bytes: status.memory_bytes + open.batcher.open_bytes(),
            ..status
        })
    }

    /// Records in the log of dead letters.
    #[must_use]
    pub fn dead_letter_records(&self) -> u64 {
        self.store.dead_letter_records()
    }

    /// Bytes that the lanes may take together.
    #[must_use]
    pub fn quota_bytes(&self) -> u64 {
        self.settings.spool.lane_bytes.iter().sum()
    }

    /// This device.
    #[must_use]
    pub const fn device(&self) -> &headwater_proto::ids::DeviceId {
        &self.settings.device
    }

    /// What the start could not do with files it found, for the operator.
    #[must_use]
    pub fn trouble(&self) -> &[String] {
        &self.trouble
    }

    /// Segments of the lanes whose records this start could not see, or not all of them: they may be
    /// back at the next.
    #[must_use]
    pub fn hidden(&self) -> &[String] {
        &self.hidden
    }
}

#[cfg(test)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the numbers of a test are small"
)]
pub(crate) mod tests;
