//! Core: the agent's engine. It takes readings, makes them durable, numbers them, publishes them
//! and forgets them when they are committed. Generic over its disk; time and entropy are arguments.
//!
//! | rule | where |
//! |---|---|
//! | a new epoch per lane at each start; the end of the one before is its first record | `open.rs` |
//! | nothing is published before it is synced | `store.rs` |
//! | the cursor of a source is in the record of its batch | `record.rs` |
//! | a failed sync ends its epoch before the group; the group goes to a new one | `store.rs` |
//! | a disk that takes nothing: a RAM epoch for live sources, waiting for those that resume | `ram.rs` |
//! | a gap is durable before the segment it names is released | `room.rs` |
//! | what cannot be read or is refused becomes a gap and is not sent again | `outbox.rs`, `refused.rs` |

use headwater_proto::frame::{self, Kind};
use headwater_proto::ids::{Epoch, Lane, SeqRange};
use headwater_proto::message::{Gap, GapReason, RejectReason, Stage};
use headwater_proto::time::{Base, Millis, Now, UnixMicros};
use headwater_spool::{Disk, Lanes, Log};

mod bases;
mod epochs;
mod lane;
mod lives;
mod open;
mod outbox;
mod quarantine;
mod ram;
mod refused;
mod room;
mod shelf;
mod store;
mod types;

pub use outbox::{AgentSender, MAX_DOWN_BYTES, MAX_EPOCHS, MAX_FLIGHTS, UNREADABLE_MS};
pub use ram::PROBE_MS;
pub use refused::DEAD_LETTER;
pub use room::MAX_GAPS;
pub use store::{GROUP_BYTES, MAX_FAILED_SYNCS};
use types::Taken;
pub use types::{
    Counters, EngineError, Event, LaneStatus, Lost, OfferError, Offered, Settings, SourceSettings,
    SpoolSettings,
};

use super::admit::{Admitted, OtherLane, Sample, admit};
use super::batcher::{Closed, Content, Given, Next, Pushed, Which};
use super::receipts::{Receipts, Settled};
use super::record::{Cursor, Envelope, Life, Unclean};
use super::refusals::Refusals;
use super::timekeeper::{Dated, Timekeeper};
use lane::{LaneState, Overflow};
use outbox::{Clocks, Out, Outbox};
use shelf::Shelves;

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
    spool: Lanes<D>,
    dead_letters: Log<D>,
    lives: lives::Lives<D>,
    lanes: Vec<LaneState>,
    /// The lane of each source that resumes, from its first reading on.
    bound: Vec<Option<usize>>,
    /// What each source had refused.
    refusals: Vec<Refusals>,
    /// What each source was told of what it gave.
    receipts: Vec<Receipts>,
    outbox: Outbox,
    gaps: Vec<room::Named>,
    /// What was in segments that went before their gap was written.
    released: Vec<(usize, Epoch, room::Contents)>,
    counters: Counters,
    random: (u64, u64),
    /// Depth of failed syncs within failed syncs.
    failing: u32,
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
        let open::Logs {
            lanes: spool,
            dead: dead_letters,
            trouble,
            hidden,
        } = open::open_logs(&disk, &settings)?;
        let lives = lives::Lives::open(&disk)?;
        let random = (entropy(), entropy());
        let device = settings.device.clone();
        let outbox = Outbox::new(device, settings.boot, settings.sender, entropy());
        let clock = Timekeeper::new(settings.clock, now);
        let mut engine = Self {
            bound: vec![None; settings.sources.len()],
            refusals: vec![Refusals::default(); settings.sources.len()],
            receipts: vec![Receipts::default(); settings.sources.len()],
            settings,
            base: clock.base(),
            clock,
            counted_since: None,
            told: None,
            opened: now.mono,
            spool,
            dead_letters,
            lives,
            lanes: Vec::new(),
            outbox,
            gaps: Vec::new(),
            released: Vec::new(),
            counters: Counters::default(),
            random,
            failing: 0,
            trouble,
            hidden,
        };
        for at in 0..Lane::AGENT.len() {
            engine.add_lane(at)?;
        }
        engine.counted_since = engine.counted_before();
        for at in 0..engine.lanes.len() {
            engine.announce_stored(at);
        }
        for at in 0..engine.lanes.len() {
            engine.begin_lane(at, now);
        }
        engine.begin_life(now);
        Ok(engine)
    }

    /// Where each source resumes: `None` where it has no durable reading or cannot resume.
    #[must_use]
    pub fn cursors(&self) -> Vec<Option<Cursor>> {
        self.settings
            .sources
            .iter()
            .map(|source| self.resume_at(&source.name))
            .collect()
    }

    /// The sources' names, in the order of [`Engine::cursors`].
    pub fn source_names(&self) -> impl Iterator<Item = &str> + '_ {
        self.settings.sources.iter().map(|source| &*source.name)
    }

    /// The highest of a source's durable cursors. In one life its readings go to one lane, in order;
    /// so where a later life chose another lane, the highest cursor stands for all before it.
    fn resume_at(&self, name: &str) -> Option<Cursor> {
        let marks = self
            .lanes
            .iter()
            .filter_map(|lane| lane.durable.source(name));
        marks
            .filter_map(|mark| mark.cursor)
            .max_by_key(|cursor| (cursor.major, cursor.minor))
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
        let at = self.index_of(lane);
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
        let batcher = &self.lanes[at].batcher;
        if resumes && batcher.must_close_first(source, Next::Row(&row), dated.base) {
            self.close(at, Which::Of(source), now);
        }
        let batcher = &mut self.lanes[at].batcher;
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
        let at = self.index_of(lane);
        self.follow_the_clock(now);
        let dated = self.clock.date(time, now);
        let given = match self.take(at, source, cursor, 1, dated, now)? {
            Taken::Known(receipt) => return Ok(Offered::of(receipt)),
            Taken::New(given) => given,
        };
        let receipt = given.receipt;
        let SourceSettings { name, resumes, .. } = &self.settings.sources[source];
        let (name, resumes) = (name.clone(), *resumes);
        let batcher = &self.lanes[at].batcher;
        if resumes && batcher.must_close_first(source, Next::Line, dated.base) {
            self.close(at, Which::Of(source), now);
        }
        let batcher = &mut self.lanes[at].batcher;
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
            return Err(OtherLane(self.lanes[bound].lane).into());
        }
        let durable = self.resume_at(name);
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
        for lane in 0..self.lanes.len() {
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
        let open: usize = self.lanes.iter().map(LaneState::open_bytes).sum();
        if open >= self.settings.readings_bytes {
            return false;
        }
        if self.lanes[at].ram.is_none() {
            // What an earlier RAM epoch still holds takes no room on the disk.
            return true;
        }
        let in_ram: usize = self.lanes.iter().map(LaneState::ram_bytes).sum();
        !resumes && in_ram < self.settings.fallback_bytes
    }

    fn note_overflow(&mut self, lost: Overflow, at: usize) {
        self.counters.lost_samples += lost.samples;
        let overflow = &mut self.lanes[at].overflow;
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
            let lane = &mut self.lanes[at];
            let turn = lane.turn();
            let Some(closed) = lane.batcher.close(which, turn, now.mono) else {
                return;
            };
            self.store(at, &closed, now);
        }
    }

    fn store(&mut self, at: usize, closed: &Closed, now: Now) {
        let SourceSettings { name, resumes, .. } =
            self.settings.sources[closed.owed.source].clone();
        self.name_lost_readings(at, closed, &name, now);
        let (kind, payload) = match &closed.content {
            Content::Batch(payload) => (Kind::Batch, payload),
            Content::Text(payload) => (Kind::Text, payload),
            Content::Refused(payload) => (Kind::Refused, payload),
        };
        let mut bytes = Vec::with_capacity(frame::encoded_len(payload.len()));
        frame::append(kind, payload, &mut bytes).expect("a batch is far below a frame's limit");
        let schema = closed.new_schema.as_ref();
        let record = Envelope {
            seq: 0,
            epoch: None,
            life: Life {
                boot: self.settings.boot,
                base: closed.times.base,
            },
            stamps: closed.times.stamps,
            source: &name,
            cursor: closed.cursor,
            live: !resumes,
            last_time: closed.times.span().map(|(_, last)| last),
            schema: schema.map(|(number, bytes)| (*number, bytes.as_slice())),
            frame: &bytes,
        };
        self.counters.records += 1;
        self.put(at, kind, &record, Some(closed.owed), now);
    }

    /// Before the first batch after an unclean stop, or after readings found no room, a gap says
    /// so, in the same group.
    fn name_lost_readings(&mut self, at: usize, closed: &Closed, name: &str, now: Now) {
        let unnamed = self.unnamed_since(name);
        let lane = &mut self.lanes[at];
        let (lane_id, epoch) = (lane.lane, lane.epoch);
        let previous = lane.previous.unwrap_or(epoch);
        let overflow = lane.take_overflow(closed.owed.source);
        let unclean = lane.marks.source(name).and_then(|mark| mark.unclean);
        if let Some(Unclean { since }) = unclean.or(unnamed) {
            let until = match closed.times.span() {
                Some((first, _)) => Some(first),
                None => self.clock.known_wall(now),
            };
            let gap = Gap {
                t_first: since,
                t_last: until.map(|until| since.map_or(until, |since| until.max(since))),
                part: name.parse().ok(),
                ..self.gap(lane_id, previous, GapReason::UncleanStop, now)
            };
            self.put_gap(at, &gap, now);
        }
        if let Some(overflow) = overflow {
            self.name_overflow(at, overflow, now);
        }
    }

    fn name_overflow(&mut self, at: usize, overflow: Overflow, now: Now) {
        let lane = &self.lanes[at];
        let gap = Gap {
            samples: Some(overflow.samples),
            t_first: overflow.span.map(|(first, _)| first),
            t_last: overflow.span.map(|(_, last)| last),
            stage: Stage::Source,
            part: self.settings.sources[overflow.source].name.parse().ok(),
            ..self.gap(lane.lane, lane.epoch, GapReason::Overflow, now)
        };
        self.put_gap_of(at, overflow.source, &gap, overflow.cursor, now);
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
        let at = self.index_of(lane);
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
                let mut shelves = Shelves {
                    lanes: &self.lanes,
                    spool: &mut self.spool,
                };
                for heard in self.outbox.message(bytes, &mut shelves, clocks) {
                    self.clock.heard(heard.time, heard.sent, now);
                }
            }
            Event::Clock(kernel) => self.clock.measured(kernel, now),
            Event::Tick => {
                self.follow_the_clock(now);
                self.date_boot(now);
                for at in 0..self.lanes.len() {
                    self.probe_disk(at, now);
                    self.close(at, Which::Due, now);
                    if self.lanes[at].sync_at().is_some_and(|at| at <= now.mono) {
                        self.sync_lane(at, now);
                    }
                }
                self.name_beyond(now);
                self.name_what_is_owed(now);
                self.outbox.tick(now.mono);
            }
        }
    }

    /// What to publish next on the up topic, at QoS 1; `None` until something happens or
    /// [`Engine::next_wakeup`] comes. Call it only while a publish can be handed over: it counts as
    /// sent.
    pub fn next_publish(&mut self, now: Now) -> Option<Vec<u8>> {
        loop {
            let clocks = self.clocks(now);
            let mut shelves = Shelves {
                lanes: &self.lanes,
                spool: &mut self.spool,
            };
            match self.outbox.next(&mut shelves, clocks)? {
                Out::Publish(bytes) => return Some(bytes),
                Out::Forget {
                    lane,
                    epoch,
                    through,
                } => self.forget(lane, epoch, through),
                Out::Refused {
                    lane,
                    epoch,
                    range,
                    reason,
                } => self.refused(lane, epoch, range, reason, now),
                Out::TooLarge { lane, epoch, seq } => {
                    let one = SeqRange::new(seq, seq + 1);
                    self.refused(lane, epoch, one, RejectReason::TooLarge, now);
                    self.outbox.absent(lane, epoch, one);
                }
                Out::Damaged { lane, epoch, range } => {
                    self.counters.damaged_records += range.len();
                    let gap = Gap {
                        seqs: Some(range),
                        ..self.gap(lane, epoch, GapReason::Damaged, now)
                    };
                    self.put_gap(self.index_of(lane), &gap, now);
                }
            }
        }
    }

    fn clocks(&self, now: Now) -> Clocks {
        let wall = self.clock.wall(now);
        Clocks { now, wall }
    }

    /// The collector has committed all below `through`.
    fn forget(&mut self, lane: Lane, epoch: Epoch, through: u64) {
        let at = self.index_of(lane);
        if let Some(stored) = self.lanes[at].epochs.iter_mut().find(|s| s.epoch == epoch) {
            stored.released = stored.released.max(through);
        }
        self.release_ram(at, epoch, through);
        self.release_committed(at);
        self.outbox.announce_waiting();
    }

    /// When to call with [`Event::Tick`] at the latest.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Millis> {
        self.next_group()
            .into_iter()
            .chain(self.outbox.next_wakeup())
            .chain([self.clock.next_measure()])
            .chain(self.refusals.iter().filter_map(Refusals::next_due))
            .min()
    }

    /// Stores and syncs everything that was admitted, without ending anything.
    pub fn flush(&mut self, now: Now) {
        self.follow_the_clock(now);
        for at in 0..self.lanes.len() {
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
        for at in 0..self.lanes.len() {
            for overflow in std::mem::take(&mut self.lanes[at].overflow) {
                self.name_overflow(at, overflow, now);
            }
            if self.lanes[at].ram.is_some() {
                self.leave_ram(at, now);
            }
            self.sync_lane(at, now);
            let lane = &self.lanes[at];
            if lane.ram.is_some() || lane.durable_seq == 0 {
                continue;
            }
            let over = lane::Over {
                epoch: lane.epoch,
                next: lane.next_seq + 1,
                clean: true,
            };
            let end = self.epoch_end(at, over);
            self.put_own(at, &end, now);
            self.sync_lane(at, now);
        }
        self.end_life();
    }

    /// The counters.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        Counters {
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
        self.lanes.iter().enumerate().map(|(at, lane)| LaneStatus {
            lane: lane.lane,
            epoch: lane.epoch,
            disk_bytes: self.spool.log(at).map_or(0, Log::used_bytes),
            memory_bytes: lane.open_bytes() + lane.ram_bytes(),
            in_ram: lane.ram.is_some(),
        })
    }

    /// Records in the log of dead letters.
    #[must_use]
    pub fn dead_letter_records(&self) -> u64 {
        let mut segments = self.dead_letters.segments();
        let first = segments.next().map_or(0, |info| info.first);
        self.dead_letters.durable().saturating_sub(first)
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

    fn index_of(&self, lane: Lane) -> usize {
        Lane::AGENT
            .iter()
            .position(|known| *known == lane)
            .expect("an agent writes the lanes of Lane::AGENT only")
    }
}

#[cfg(test)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the numbers of a test are small"
)]
pub(crate) mod tests;
