//! Core: a device of the world: its disk, its sources, and the agent's engine while it runs.

use std::ops::Range;

use headwater_agent::pipeline::batcher::BatchLimits;
use headwater_agent::pipeline::engine::{
    Engine, Event, Settings, SourceSettings, SpoolSettings, Way, goes_on_at, held_places,
};
use headwater_agent::pipeline::record::{Cursor, Stray};
use headwater_program::clock::WallError;
use headwater_proto::ids::DeviceId;
use headwater_proto::refused::Part;
use headwater_proto::time::{Millis, Now, UnixMicros};
use headwater_spool::FakeDisk;

use super::dice::{Death, Dice};
use super::generator::{
    BEHIND_NAMES, Key, Made, SOURCES, START_US, Says, dictionary, line, row_at,
};
use super::receipts::Receipts;
use super::seen::Seen;

/// What the kernel says of a clock that its time service holds.
const SYNCED: WallError = WallError::Synced { error_ms: 20 };

/// Where a clock stands that is far ahead.
const IN_2040_US: i64 = 2_210_000_000_000_000;

/// How long a source waits for the collector's word on how far it holds what the source reads.
const PATIENCE_MS: u64 = 5_000;
/// Every so many rows, something beside one cannot be read.
const REFUSED_EVERY: u64 = 13;

/// One physical device. Clones of it share its name.
pub struct Device {
    /// Its name.
    pub id: DeviceId,
    /// Its spool.
    pub disk: FakeDisk,
    /// The running agent.
    pub engine: Option<Engine<FakeDisk>>,
    /// Per source: rows that exist by now.
    made: [u64; SOURCES.len()],
    /// Per source: the row that is offered next.
    next: [u64; SOURCES.len()],
    /// Clocks of two devices never show the same microsecond.
    clock_offset_us: i64,
    /// What its wall clock shows beyond the world's.
    step_us: i64,
    /// Bytes of each lane.
    lane_bytes: u64,
    /// Starts of its agent.
    starts: u64,
    /// The boot that runs, and when it began, on the world's clock.
    boot: (u64, Millis),
    /// What its kernel says of its wall clock.
    kernel: WallError,
    /// The agent was told to stop; it only sends.
    pub stopping: bool,
    /// Readings may be missing or doubled: it was cloned, or its disk is not what it was.
    pub disturbed: bool,
    /// A disk of it was thrown away, or hid a segment from a start: what that held and nobody was told of, nobody can name.
    pub forgotten: bool,
    /// A life of it died before its disk took that it had begun.
    pub unmarked: bool,
    /// Its wall clock was set: spans that it names may be off by so much.
    pub stepped: bool,
    /// Its wall clock may show any year.
    pub is_wild: bool,
    /// Its time service once called a clock right that was not.
    pub lied: bool,
    /// What was promised and did not hold.
    pub broken: Vec<String>,
    /// The gateway through which it speaks to the collector, if it does.
    pub gateway: Option<usize>,
    /// Which part of what its name stands for it holds, and how many there are: a node that went from one
    /// gateway to another left a backlog at both.
    pub part: (u64, u64),
    /// Records it evicted over all lives.
    pub evicted: u64,
    /// Per source: what was called durable.
    receipts: [Receipts; SOURCES.len()],
    /// When it was switched on, and the sources that ask how far the collector holds what they read.
    asks: (Millis, [bool; SOURCES.len()]),
    /// Per source: rows that it passed over, since the collector held them.
    told: [Vec<Range<u64>>; SOURCES.len()],
    /// Of these, those that may have been in a journal alone when that was lost.
    lent: [Vec<Range<u64>>; SOURCES.len()],
    /// Times that a source went on behind what the collector holds.
    pub adopted: u64,
}

impl Device {
    /// A device with an empty disk, switched off.
    #[must_use]
    pub fn new(id: DeviceId, place: usize, lane_bytes: u64) -> Self {
        Self {
            id,
            disk: FakeDisk::new(),
            engine: None,
            made: [0; SOURCES.len()],
            next: [0; SOURCES.len()],
            clock_offset_us: i64::try_from(place).unwrap_or(0),
            step_us: 0,
            lane_bytes,
            starts: 0,
            boot: (first_boot(place), Millis(0)),
            kernel: SYNCED,
            stopping: false,
            disturbed: false,
            forgotten: false,
            unmarked: false,
            stepped: false,
            is_wild: false,
            lied: false,
            broken: Vec::new(),
            gateway: None,
            part: (0, 1),
            evicted: 0,
            receipts: Default::default(),
            asks: Default::default(),
            adopted: 0,
            told: Default::default(),
            lent: Default::default(),
        }
    }

    /// A second device from a copy of this one's disk as it is now.
    #[must_use]
    pub fn cloned(&self, place: usize) -> Self {
        Self {
            id: self.id.clone(),
            disk: self.disk.process_killed(),
            engine: None,
            made: self.made,
            next: [0; SOURCES.len()],
            clock_offset_us: i64::try_from(place).unwrap_or(0),
            step_us: self.step_us,
            lane_bytes: self.lane_bytes,
            starts: self.starts,
            boot: (first_boot(place), self.boot.1),
            kernel: self.kernel,
            stopping: false,
            disturbed: true,
            forgotten: false,
            unmarked: false,
            stepped: self.stepped,
            is_wild: self.is_wild,
            lied: self.lied,
            broken: Vec::new(),
            gateway: self.gateway,
            part: self.part,
            evicted: 0,
            receipts: Default::default(),
            asks: Default::default(),
            adopted: 0,
            told: self.told.clone(),
            lent: self.lent.clone(),
        }
    }

    fn settings(&self) -> Settings {
        let sources = SOURCES.iter().map(|source| SourceSettings {
            name: source.name.to_owned(),
            resumes: source.resumes,
            loses: !source.resumes,
            durable_within_ms: source.durable_within_ms,
        });
        Settings {
            sources: sources.collect(),
            spool: SpoolSettings {
                segment_bytes: 4096,
                lane_bytes: [self.lane_bytes; 3],
                // Where lanes are small, so is the room of nodes.
                nodes_bytes: if self.lane_bytes > 40_000 {
                    16 * 4096
                } else {
                    5 * 4096
                },
                dead_letter_bytes: 16 * 4096,
                fs_reserve_percent: 0,
                fs_reserve_bytes: 0,
            },
            batch: BatchLimits {
                rows: 5,
                bytes: 4096,
                age_ms: 1000,
            },
            // Its owner puts a dictionary in place and takes it away again, from start to start.
            dictionary: (self.starts % 2 == 1).then(dictionary),
            // Half of the devices with the defaults, half with groups in which a crash finds more.
            group_ms: if self.lane_bytes > 40_000 { 50 } else { 1_000 },
            boot: self.boot.0,
            clock: self.kernel,
            ..Settings::new(self.id.clone())
        }
    }

    /// Somebody sets its wall clock.
    pub const fn set_clock(&mut self, step_us: i64) {
        self.step_us = step_us;
        self.stepped = true;
        // Its time service finds out sooner or later, or never.
        self.kernel = if step_us / 1000 % 2 == 0 {
            self.lied = true;
            SYNCED
        } else {
            WallError::Unsynced
        };
    }

    /// Draws what its wall clock shows: at a boot often the year in which clocks without a battery begin.
    pub fn draw_clock(&mut self, is_boot: bool, dice: &mut Dice) {
        self.is_wild = true;
        let (step_us, kernel) = match dice.below(if is_boot { 6 } else { 8 }) {
            0..=2 => (-START_US, WallError::Unsynced),
            3 => (IN_2040_US - START_US, WallError::Unsynced),
            4 => (700_000, WallError::Unsynced),
            _ => (0, SYNCED),
        };
        (self.step_us, self.kernel) = (step_us, kernel);
    }

    /// What its clocks show, in words.
    #[must_use]
    pub fn clocks(&self) -> String {
        let (boot, began) = self.boot;
        let (step_us, kernel) = (self.step_us, self.kernel);
        format!(
            "boot {boot} since {} ms, wall {step_us} us, {kernel:?}",
            began.0
        )
    }

    const fn clock(&self, now: Now) -> Now {
        Now {
            mono: Millis(now.mono.since(self.boot.1)),
            wall: UnixMicros(now.wall.0 + self.step_us),
        }
    }

    /// Switches it on. Stays off if the disk fails meanwhile, or could not keep what it holds.
    pub fn start(&mut self, dice: &mut Dice, now: Now) {
        self.asks = (now.mono, SOURCES.map(|source| source.resumes));
        let now = self.clock(now);
        self.starts += 1;
        let settings = self.settings();
        let opened = Engine::open(self.disk.clone(), settings, &mut || dice.bits(), now);
        // It is tried again when the device comes back.
        let Ok(engine) = opened else { return };
        // A segment that could not be read at this start may be back at the next: what it held of
        // cursors and ends was not known meanwhile.
        self.disturbed |= !engine.hidden().is_empty();
        self.forgotten |= !engine.hidden().is_empty();
        for (at, cursor) in engine.cursors().into_iter().enumerate() {
            let resumes_at = cursor.map_or(0, |cursor| cursor.major);
            let promised = self.receipts[at].rows;
            // One that dies while it starts has read nothing.
            let is_told = !self.disturbed && !self.disk.has_crashed();
            if SOURCES[at].resumes && resumes_at < promised && is_told {
                let (id, name) = (&self.id, SOURCES[at].name);
                self.broken.push(format!(
                    "{id}: source {name} was told that {promised} rows are durable and begins again at {resumes_at}"
                ));
            }
            self.next[at] = match cursor {
                Some(cursor) => cursor.major,
                None if SOURCES[at].resumes => 0,
                None => self.made[at],
            };
        }
        self.engine = Some(engine);
        self.stopping = false;
    }

    /// Ends it against its will.
    pub fn die(&mut self, death: Death, dice: &mut Dice, seen: &mut Seen, now: Now) {
        self.note_counters(seen);
        self.unmarked |= self
            .engine
            .as_ref()
            .is_some_and(|engine| !engine.is_marked());
        self.engine = None;
        self.receipts.iter_mut().for_each(Receipts::end_life);
        self.disk = match death {
            Death::Killed => self.disk.process_killed(),
            Death::PowerCut => {
                self.boot = (self.boot.0 + 1, now.mono);
                if self.is_wild {
                    self.draw_clock(true, dice);
                }
                self.disk.power_cut(dice.bits())
            }
        };
    }

    /// Adds what this life counted.
    pub fn note_counters(&mut self, seen: &mut Seen) {
        seen.adopted += std::mem::take(&mut self.adopted);
        if let Some(engine) = &self.engine {
            let counters = engine.counters();
            self.evicted += counters.evicted_records + counters.damaged_records;
            let of_nodes = engine.node_report().counters;
            seen.add_agent(&counters, &of_nodes);
        }
    }

    /// Whether it lost records that it names in gaps.
    #[must_use]
    pub fn has_evicted(&self) -> bool {
        let counters = self.engine.as_ref().map(Engine::counters);
        self.evicted > 0
            || counters
                .is_some_and(|c| c.evicted_records + c.damaged_records + c.refused_records > 0)
    }

    /// Makes `count` rows at `source` exist.
    pub fn make(&mut self, source: usize, count: u64) {
        self.made[source] += count;
    }

    /// Offers rows that exist and were not offered yet.
    pub fn offer(&mut self, source: usize, most: u64, made: &mut Made, now: Now) {
        let (truth, truth_mono, now) = (now.wall, now.mono, self.clock(now));
        let spec = &SOURCES[source];
        if self.stopping {
            return;
        }
        let Some(engine) = &mut self.engine else {
            // Nobody reads a sensor while its device is off.
            if !spec.resumes {
                self.next[source] = self.made[source];
            }
            return;
        };
        if engine.wants_clock(now) {
            engine.handle(Event::Clock(self.kernel), now);
        }
        let (part, parts) = self.part;
        if self.asks.1[source] {
            let places = held_places(engine);
            if places.is_none() && truth_mono.since(self.asks.0) < PATIENCE_MS {
                return;
            }
            self.asks.1[source] = false;
            // It is a place in what the source reads: as a file is known again.
            let is_here = |place: &&Stray| {
                let at = place.cursor.major;
                place.name == spec.name
                    && place.cursor.tag == content(source, part)
                    && (self.next[source] + 1..=self.made[source]).contains(&at)
            };
            let places = places.unwrap_or_default();
            let furthest = places
                .iter()
                .filter(is_here)
                .max_by_key(|it| it.cursor.major);
            if let Some(place) = furthest {
                goes_on_at(engine, source, place.cursor);
                self.told[source].push(self.next[source]..place.cursor.major);
                self.next[source] = place.cursor.major;
                self.adopted += 1;
            }
        }
        let end = self.made[source].min(self.next[source] + most);
        while self.next[source] < end {
            let number = self.next[source];
            let time = UnixMicros(now.wall.0 + self.clock_offset_us);
            let (row, keys) = made.row(self.id.as_str(), spec, number * parts + part, time, truth);
            let cursor = spec.resumes.then_some(Cursor {
                major: number + 1,
                minor: 0,
                tag: content(source, part),
            });
            let taken = match spec.says {
                Says::Numbers(metrics) => row.with_sample(metrics, |sample| {
                    engine.offer(source, spec.lane, sample, cursor, now)
                }),
                Says::Lines => {
                    let line = line(self.id.as_str(), row.number.cast_signed());
                    let line = line.as_bytes();
                    engine.offer_line(source, spec.lane, row.time, line, cursor, now)
                }
            };
            if let Ok(offered) = &taken {
                let rows = if spec.resumes { number + 1 } else { 0 };
                self.receipts[source].gave(offered.receipt, rows, keys);
            }
            if taken.is_ok() && number.is_multiple_of(REFUSED_EVERY) {
                // What stood beside it could not be read: it goes to quarantine, or is lost.
                let part = Part {
                    at_us: 0,
                    place: "beside it",
                    cause: "not a number",
                    bytes: b"oops",
                };
                let _ = engine.refuse(source, spec.lane, &part, None, now);
            }
            if taken.is_err() {
                // One that cannot wait is lost, and the engine names it.
                if !spec.resumes {
                    self.next[source] += 1;
                }
                return;
            }
            self.next[source] += 1;
        }
    }

    /// The collector's journal is lost, with what the lake may not have yet.
    pub fn lose_lent(&mut self) {
        let heard = self.engine.as_ref().and_then(held_places);
        for place in heard.unwrap_or_default() {
            let at = SOURCES.iter().position(|source| source.name == place.name);
            let is_here = |at: &usize| place.cursor.tag == content(*at, self.part.0);
            // It heard of it, and passes over it later.
            if let Some(at) = at.filter(|at| self.asks.1[*at] && is_here(at)) {
                self.told[at].push(self.next[at]..place.cursor.major);
            }
        }
        self.lent.clone_from(&self.told);
    }

    /// Whether a row of a source that waits may be missing: it was passed over, since a journal held it which was
    /// lost then.
    #[must_use]
    pub fn was_lent(&self, key: &Key) -> bool {
        let source = key.1.split('.').next();
        let at = SOURCES.iter().position(|known| Some(known.name) == source);
        let row = row_at(key.2) / self.part.1;
        let is_lent = |at: usize| self.lent[at].iter().any(|rows| rows.contains(&row));
        at.is_some_and(|at| SOURCES[at].resumes && is_lent(at) && key.0 == self.id.as_str())
    }

    /// Whether every row that exists was offered.
    #[must_use]
    pub fn has_offered_all(&self) -> bool {
        self.made == self.next
    }

    /// Hands it an event.
    pub fn handle(&mut self, event: Event<'_>, now: Now) {
        let now = self.clock(now);
        if let Some(engine) = &mut self.engine {
            if engine.wants_clock(now) {
                engine.handle(Event::Clock(self.kernel), now);
            }
            engine.handle(event, now);
        }
    }

    /// Hands its agent a packet that came on a way from a node.
    pub fn hear_node(&mut self, way: Way, packet: &[u8], now: Now) {
        let now = self.clock(now);
        if let Some(engine) = &mut self.engine {
            if engine.wants_clock(now) {
                engine.handle(Event::Clock(self.kernel), now);
            }
            let allows = |id: &DeviceId| id.as_str().starts_with(BEHIND_NAMES);
            engine.nodes(now).packet(way, &allows, packet);
        }
    }

    /// Tells its agent that a way to a node is gone.
    pub fn lose_way(&mut self, way: Way, now: Now) {
        let now = self.clock(now);
        if let Some(engine) = &mut self.engine {
            engine.nodes(now).way_gone(way);
        }
    }

    /// What its agent says to nodes, and on which ways.
    pub fn take_answers(&mut self, now: Now) -> Vec<(Way, Vec<u8>)> {
        let now = self.clock(now);
        let engine = self.engine.as_mut();
        engine.map_or_else(Vec::new, |engine| engine.nodes(now).take_answers())
    }

    /// When its agent wants to be asked again, on the world's clock.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Millis> {
        let at = self.engine.as_ref()?.next_wakeup()?;
        Some(self.boot.1.plus(at.0))
    }

    /// Tells it to stop: it makes what it has durable, and sends on.
    pub fn stop(&mut self, now: Now) {
        let now = self.clock(now);
        self.stopping = true;
        if let Some(engine) = &mut self.engine {
            engine.stop(now);
        }
    }

    /// What it publishes next, if it has a link.
    pub fn next_publish(&mut self, linked: bool, now: Now) -> Option<Vec<u8>> {
        let now = self.clock(now);
        let engine = self.engine.as_mut().filter(|_| linked)?;
        engine.next_publish(now)
    }

    /// Its sources hear what is settled of what they gave.
    pub fn hear_settled(&mut self) {
        let Some(engine) = &self.engine else { return };
        for (source, receipts) in self.receipts.iter_mut().enumerate() {
            receipts.hear(|settled| engine.tell_settled(source, settled));
        }
    }

    /// How many receipts were not durable.
    #[must_use]
    pub fn not_durable(&self) -> u64 {
        self.receipts.iter().map(|receipts| receipts.refused).sum()
    }

    /// Every reading that a source was told is durable, and cannot give again.
    pub fn durable(&self) -> impl Iterator<Item = &Key> {
        self.receipts.iter().flat_map(|receipts| &receipts.durable)
    }

    /// Whether its disk has begun to fail for good: the process is as good as dead.
    #[must_use]
    pub fn is_crashed(&self) -> bool {
        self.disk.has_crashed()
    }
}

/// The id of a device's first boot; each power cut adds one. No two devices share a boot, whatever they are
/// called: it dates records.
const fn first_boot(place: usize) -> u64 {
    1 + 100_000 * place as u64
}

/// By this the content of a source is known again: no two sources read the same.
const fn content(source: usize, part: u64) -> u64 {
    ((source as u64 + 1) << 8) | (part + 1)
}
