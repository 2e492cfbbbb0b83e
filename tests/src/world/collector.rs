//! Core: the collector of the world: custody and the lake sink, on a disk and a store that fail.

use std::ops::ControlFlow;

use headwater_collector::done::{DoneInMemory, Finding, Keeping};
use headwater_collector::interpret::{Depth, Feed};
use headwater_collector::pipeline::credit::CreditLimits;
use headwater_collector::pipeline::custody::{
    Custody, Event, Gateway, JournalSide, LakeSide, Meeting, Mode, Output, Past, Settings,
    SinkSpec, Stretch, clock,
};
use headwater_collector::pipeline::pattern::Pattern;
use headwater_collector::pipeline::rules::{Decoder, PlainRule, TimeWindow};
use headwater_collector::sink::SinkError;
use headwater_collector::sink::lake::late::{Late, Turn};
use headwater_collector::sink::lake::{JoinError, join};
use headwater_collector::sink::lake::{LakeSettings, LakeSink, NAME, read_stretch};
use headwater_collector::sink::stream::StreamSink;
use headwater_collector::sink::worker::Worker;
use headwater_lake::MemStore;
use headwater_proto::delivery::Ranges;
use headwater_proto::ids::{JournalId, SeqRange};
use headwater_proto::time::{Now, UnixMicros};
use headwater_spool::{Config, Disk, DiskFile, FakeDisk};

use super::copy::{Arrived, COPY, CopyFaults, CopySink, Destination};
use super::dice::{Death, Dice};
use super::found;
use super::generator::BEHIND_NAMES;
use super::hands::{Did, finish, hands};
use super::letters::MailRoom;
use super::plan::{JOURNAL_SEGMENT_BYTES, NARROW, Plan};
use super::present::show_present;
use super::seen::Seen;
use super::stream::{self, STREAM, Service, Way};

mod wrong_clock;

/// Client ids of the gateways, each of which speaks for every `node-*`.
pub const GATEWAYS: [&str; 2] = ["gateway", "gateway-2"];

/// Agents are called `agent-N` with N below this: each speaks for every node behind it.
pub const MAX_AGENTS: usize = 8;

/// Where a segment's snapshot begins.
const SNAPSHOT_AT: u64 = 64;

/// Topic of a plain device, by its id.
#[must_use]
pub fn plain_topic(device: &str) -> String {
    format!("plain/{device}/readings")
}

/// Who may speak for whom.
fn gateways() -> Vec<Gateway> {
    let gateway = |client: String, devices: String| Gateway {
        client,
        devices: vec![devices],
    };
    let gateways = GATEWAYS.map(|client| gateway(client.to_owned(), "node-*".to_owned()));
    let agents = (0..MAX_AGENTS).map(|n| gateway(format!("agent-{n}"), format!("{BEHIND_NAMES}*")));
    gateways.into_iter().chain(agents).collect()
}

/// The collector while it runs.
struct Running {
    custody: Custody<FakeDisk>,
    lake: Lake,
    copy: Option<Worker<CopySink, FakeDisk>>,
    stream: Option<Worker<StreamSink<Way>, FakeDisk>>,
}

/// The lake's sink.
enum Lake {
    /// It agrees with the journal.
    There(Box<Worker<LakeSink<MemStore>, FakeDisk>>),
    /// It was away at the start.
    Away(Option<Box<Late<FakeDisk>>>),
}

/// A sink of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The lake.
    Lake,
    /// The copy.
    Copy,
    /// The stream.
    Stream,
}

/// The collector's machine.
pub struct Collector {
    /// Its journal.
    pub disk: FakeDisk,
    /// Its lake.
    pub store: MemStore,
    /// Its index of epochs that are over.
    pub done: DoneInMemory,
    running: Option<Running>,
    /// What another thread is to put into the index.
    keeping: Option<Keeping>,
    /// What another thread is to look up there.
    finding: Option<Finding>,
    plan: Plan,
    /// Numbers that had arrived when the second sink was taken out, if it was.
    pub taken_out: Option<Arrived>,
    /// Its journal once had no room for a publish: its quota was used, or its disk was full.
    pub was_stalled: bool,
    /// Most bytes that the journal ever took.
    pub most_bytes: u64,
    /// What its wall clock shows beyond the world's.
    step_us: i64,
    /// Its wall clock was set once.
    pub was_set: bool,
    /// Starts at which its clock was far off.
    pub wrong_starts: u64,
    /// The boot of its machine.
    boot: u64,
    /// Which times it believes, and whether it keeps a part of the names of plain readings.
    rules: (TimeWindow, bool),
    /// How often a start changed that.
    rules_changed: u64,
    /// What the second sink delivers to.
    pub copies: Destination,
    /// How that treats it.
    pub copy_faults: CopyFaults,
    /// What the stream sends to.
    pub service: Service,
    /// How that treats it.
    pub stream_faults: CopyFaults,
    /// What its sinks refused.
    pub letters: MailRoom,
    /// Starts without a readable snapshot.
    rebuilt: u64,
    /// Starts without the lake.
    pub alone: u64,
    /// Of these, journals that had to go on under another name when it was back.
    pub renamed_late: u64,
    /// What the last start found.
    pub found: String,
}

impl Collector {
    /// A machine with an empty disk beside an empty lake, switched off.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        Self {
            disk: FakeDisk::new(),
            store: MemStore::new(),
            done: DoneInMemory::default(),
            running: None,
            keeping: None,
            finding: None,
            plan,
            step_us: 0,
            was_set: false,
            wrong_starts: 0,
            boot: 1,
            rules: (TimeWindow::default(), false),
            rules_changed: 0,
            copies: Destination::default(),
            copy_faults: plan.copy_faults,
            service: Service::default(),
            stream_faults: plan.stream_faults,
            letters: MailRoom::default(),
            taken_out: None,
            was_stalled: false,
            most_bytes: 0,
            rebuilt: 0,
            alone: 0,
            renamed_late: 0,
            found: String::new(),
        }
    }

    /// Another machine with an empty disk beside the same lake, switched off. What its sinks deliver to is the
    /// same too.
    #[must_use]
    pub fn successor(&self) -> Self {
        Self {
            store: self.store.clone(),
            step_us: self.step_us,
            was_set: self.was_set,
            boot: self.boot + 1_000,
            copies: self.copies.clone(),
            copy_faults: self.copy_faults,
            service: self.service.clone(),
            stream_faults: self.stream_faults,
            taken_out: self.taken_out.clone(),
            was_stalled: self.was_stalled,
            most_bytes: self.most_bytes,
            ..Self::new(self.plan)
        }
    }

    /// Whether it owns the lake, as far as it knows.
    #[must_use]
    pub fn has_lake(&self) -> bool {
        let running = self.running.as_ref();
        running.is_some_and(|running| matches!(running.lake, Lake::There(_)))
    }

    /// What its journal knows to be in the lake, while it is off: its name, and the first position that is not.
    #[must_use]
    pub fn known_committed(&self) -> Option<(JournalId, u64)> {
        let (disk, index) = (self.disk.process_killed(), DoneInMemory::default());
        let opened = Custody::open(disk, self.settings(), Box::new(index), &mut || 0);
        let (custody, opened) = opened.ok()?;
        let journal = JournalSide::of(&custody, &opened, NAME);
        (journal.past != Past::Nothing).then_some((journal.journal, journal.known))
    }

    /// Somebody sets its wall clock.
    pub const fn set_clock(&mut self, step_us: i64) {
        self.step_us = step_us;
        self.was_set = true;
    }

    const fn clock(&self, now: Now) -> Now {
        Now {
            mono: now.mono,
            wall: UnixMicros(now.wall.0 + self.step_us),
        }
    }

    fn settings(&self) -> Settings {
        let sink = |name: &str, required| SinkSpec {
            name: name.to_owned(),
            required,
        };
        let mut sinks = vec![sink(NAME, true)];
        let copy = self.plan.copy.filter(|_| self.taken_out.is_none());
        sinks.extend(copy.map(|required| sink(COPY, required)));
        sinks.extend(self.plan.stream.map(|required| sink(STREAM, required)));
        Settings {
            log: Config {
                name: "journal".to_owned(),
                segment_bytes: JOURNAL_SEGMENT_BYTES,
                quota_bytes: self.plan.journal_bytes,
                reserve_bytes: 2 * JOURNAL_SEGMENT_BYTES,
                fs_reserve_percent: 0,
                fs_reserve_bytes: 0,
                ..Config::default()
            },
            credit: CreditLimits {
                per_connection_bytes: 16 << 10,
                total_bytes: 64 << 10,
            },
            patterns: vec![
                Pattern::new("plain/{device}/readings", Decoder::Json)
                    .expect("the pattern names a device")
                    .read_by(PlainRule {
                        keep_values: self.rules.1,
                        ..PlainRule::new(Decoder::Json)
                    }),
            ],
            gateways: gateways(),
            sinks,
            window: self.rules.0,
            mode: if self.plan.ends_at_journal {
                Mode::Journal
            } else {
                Mode::Sinks
            },
            abandon_after_ms: self.plan.abandon_after_ms,
            keep_closed_ms: self.plan.keep_closed_ms,
            max_bundle_bytes: 16 << 10,
            ..Settings::default()
        }
    }

    /// Takes the second sink out of the configuration, from the next start on.
    pub fn take_copy_out(&mut self) {
        let Some(running) = self.running.take() else {
            return;
        };
        let ledger = running.custody.ledger();
        let mut arrived = Arrived::new();
        for (stream, track) in ledger.streams() {
            let mut all = Ranges::new();
            // What was not durable comes again, after the sink is gone.
            let receiver = &track.receiver;
            for range in receiver.committed().iter().chain(receiver.owed()) {
                // Without a bound on ranges nothing is refused.
                let _ = all.insert(range);
            }
            arrived.insert(stream.clone(), all);
        }
        for (stream, next, _) in ledger.plain_durable() {
            let mut all = Ranges::new();
            // Without a bound on ranges nothing is refused.
            let _ = all.insert(SeqRange::new(0, next));
            arrived.insert(stream, all);
        }
        self.taken_out = Some(arrived);
        self.running = Some(running);
    }

    /// Whether it runs.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.running.is_some()
    }

    /// Switches it on. Stays off if disk or store fail meanwhile.
    pub fn start(&mut self, now: Now, dice: &mut Dice) {
        self.running = self.try_start(now, dice);
    }

    fn try_start(&mut self, now: Now, dice: &mut Dice) -> Option<Running> {
        if self.plan.rules_change {
            let window = if dice.one_in(2) {
                NARROW
            } else {
                TimeWindow::default()
            };
            let before = std::mem::replace(&mut self.rules, (window, dice.one_in(2)));
            self.rules_changed += u64::from(self.rules != before);
        }
        let (settings, index) = (self.settings(), Box::new(self.done.clone()));
        let mut entropy = || dice.bits();
        let opened = Custody::open(self.disk.clone(), settings, index, &mut entropy);
        let (mut custody, opened) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.found = error.to_string();
                return None;
            }
        };
        self.found = format!("{opened:?}, next {}", custody.log().next());
        self.rebuilt += u64::from(opened.past == Past::Records);
        let lake_settings = LakeSettings {
            flush_after_ms: self.plan.flush_after_ms,
            lake: headwater_lake::Settings {
                checkpoint_versions: self.plan.checkpoint_versions,
                ..headwater_lake::Settings::default()
            },
            // There is one collector at a time: one that lost its disk need not wait for itself.
            take_over: true,
            ..LakeSettings::default()
        };
        let store = self.store.clone();
        let name = JournalId(entropy());
        self.draw_clock(!custody.ledger().is_empty(), &Dice::new(name.0));
        let shown = self.clock(now);
        clock::begin(&mut custody, self.boot, shown);
        let now = custody.clock.dated(shown);
        let joined = join(&mut custody, &opened, store, lake_settings, now.wall, name);
        let reader = custody.reader();
        let lake = match joined {
            Ok(lake) => {
                let feed = Feed::new(reader, lake.position(), Depth::Samples);
                let feed = feed.with_clock(custody.clock.book());
                Lake::There(Box::new(Worker::new(lake, feed)))
            }
            Err(JoinError::Sink(error)) if error.is_outage() => {
                let journal = JournalSide::of(&custody, &opened, NAME);
                if let Err(why) = custody.begin_apart(&journal, &mut entropy) {
                    self.found = format!("{}; {error}: {why}", self.found);
                    return None;
                }
                self.found = format!("{}; alone since {}", self.found, journal.since);
                self.alone += 1;
                let (error, random) = (error.into(), entropy());
                let late = Late::new(journal, lake_settings, reader, error, name, now, random);
                let late = late.with_clock(custody.clock.book());
                Lake::Away(Some(Box::new(late)))
            }
            Err(error) => {
                self.found = format!("{}; {error}", self.found);
                return None;
            }
        };
        let dice_of_stream = Dice::new(dice.bits());
        let faults = self.stream_faults;
        self.service.come_to(now.mono);
        let opened = stream::open(&mut custody, &self.service, faults, dice_of_stream, now);
        let stream = match opened {
            Ok(stream) => stream,
            Err(error) => {
                self.found = format!("{}; {error:#}", self.found);
                return None;
            }
        };
        let copy = custody.cursor(COPY).map(|from| {
            let (to, faults) = (self.copies.clone(), self.copy_faults);
            let sink = CopySink::new(to, from, faults, Dice::new(dice.bits()), now);
            let depth = if self.plan.copy_blocks {
                Depth::Blocks
            } else {
                Depth::Samples
            };
            let feed = Feed::new(custody.reader(), from, depth);
            Worker::new(sink, feed.with_clock(custody.clock.book()))
        });
        Some(Running {
            lake,
            copy,
            stream,
            custody,
        })
    }

    /// Adds what this life counted.
    pub fn note_counters(&mut self, seen: &mut Seen) {
        seen.journals_rebuilt += std::mem::take(&mut self.rebuilt);
        seen.begun_alone += std::mem::take(&mut self.alone);
        seen.renamed_late += std::mem::take(&mut self.renamed_late);
        seen.rules_changed += std::mem::take(&mut self.rules_changed);
        seen.wrong_starts += std::mem::take(&mut self.wrong_starts);
        if let Some(running) = &self.running {
            if let Some(stream) = &running.stream {
                self.service.note_life(&stream.look());
            }
            seen.add_collector(running.custody.counters());
        }
    }

    /// Whether a batch is with the stream's service in part: it comes again as a whole.
    fn has_batch_under_way(&self) -> bool {
        let stream = self.running.as_ref().and_then(|it| it.stream.as_ref());
        let counts = stream.map(|stream| stream.look().counts);
        let mut counts = counts.iter().flatten();
        counts.any(|(name, count)| *name == "stream_pending_records" && *count > 0)
    }

    /// Ends it against its will.
    pub fn die(&mut self, death: Death, dice: &mut Dice, seen: &mut Seen) {
        self.note_counters(seen);
        self.service.collector_died();
        if dice.one_in(2) {
            // The other thread was done, and only its word is lost.
            self.put_into_index();
        }
        (self.keeping, self.finding) = (None, None);
        self.running = None;
        self.letters.die(death, dice);
        match death {
            Death::Killed => {
                self.disk = self.disk.process_killed();
                self.store.restart();
            }
            Death::PowerCut => {
                self.disk = self.disk.power_cut(dice.bits());
                self.store.power_cut();
            }
        }
    }

    /// Ends it in order, as the program does: its sinks bring the rest to rest, custody notes how far they
    /// are, and the process is gone. False if its disk or the journal's quota did not let it note that.
    pub fn stop(&mut self, now: Now, dice: &mut Dice, seen: &mut Seen) -> bool {
        self.sync(now);
        let at = self.clock(now);
        show_present(at.wall);
        self.service.come_to(now.mono);
        let is_noted = self.running.as_mut().is_some_and(|running| {
            let Running {
                custody,
                lake,
                copy,
                stream,
            } = running;
            let mut is_good = match lake {
                Lake::There(lake) => finish(lake, NAME, &mut self.letters, custody, at, dice),
                // One that is waited for took nothing.
                Lake::Away(_) => true,
            };
            if let Some(copy) = copy {
                is_good &= finish(copy, COPY, &mut self.letters, custody, at, dice);
            }
            if let Some(stream) = stream {
                is_good &= finish(stream, STREAM, &mut self.letters, custody, at, dice);
            }
            is_good &= custody.note_cursors(at, true);
            is_good & custody.sync(at).is_ok()
        });
        self.note_counters(seen);
        let is_noted = is_noted && !self.is_crashed();
        if !is_noted || self.has_batch_under_way() {
            self.service.collector_died();
        }
        (self.keeping, self.finding) = (None, None);
        self.running = None;
        self.disk = self.disk.process_killed();
        self.store.restart();
        is_noted
    }

    /// What only its disk had may come again, after the second sink was taken out: that one never has it.
    fn undo_arrivals(&mut self) {
        let Some(arrived) = &mut self.taken_out else {
            return;
        };
        let Ok(numbers) = found::numbers(&self.store.fork()) else {
            return;
        };
        let had = std::mem::take(arrived);
        for (stream, seq) in numbers {
            if had.get(&stream).is_some_and(|all| all.contains(seq)) {
                let all = arrived.entry(stream).or_default();
                // Without a bound on ranges nothing is refused.
                let _ = all.insert(SeqRange::new(seq, seq + 1));
            }
        }
    }

    /// Another disk is in its journal's place: an empty one, or one of an earlier time. The lake goes on.
    pub fn replace_disk(&mut self, disk: FakeDisk) {
        self.undo_arrivals();
        (self.keeping, self.finding) = (None, None);
        self.running = None;
        self.disk = disk;
        self.store.restart();
    }

    /// Flips a bit: in the head of every snapshot, or anywhere in one file.
    pub fn rot(&mut self, dice: &mut Dice) -> u64 {
        // A copy is looked at, so that looking is no operation of the disk.
        let copy = self.disk.process_killed();
        let names = copy.list().unwrap_or_default();
        if names.is_empty() {
            return 0;
        }
        let mask = 1u8 << dice.below(8);
        if dice.one_in(3) {
            let at = SNAPSHOT_AT + dice.below(8);
            let flipped = names.iter().filter(|name| self.disk.rot(name, at, mask));
            return flipped.count() as u64;
        }
        let name = &names[dice.index(names.len())];
        let len = copy.open(name).and_then(|file| file.size());
        let at = dice.below(len.map_or(0, |size| size.len));
        u64::from(self.disk.rot(name, at, mask))
    }

    /// Whether disk or store have begun to fail for good: the process is as good as dead.
    #[must_use]
    pub fn is_crashed(&self) -> bool {
        self.disk.has_crashed() || self.store.has_crashed()
    }

    /// Hands it an event.
    pub fn handle(&mut self, event: Event, now: Now) {
        let now = self.clock(now);
        if let Some(running) = &mut self.running {
            running.custody.handle(event, now);
            self.was_stalled |= running.custody.is_stalled();
        }
    }

    /// Makes what it was handed durable.
    pub fn sync(&mut self, now: Now) {
        let now = self.clock(now);
        if let Some(running) = &mut self.running {
            self.most_bytes = self.most_bytes.max(running.custody.log().used_bytes());
            // A failed sync shows in the outputs: connections are closed.
            let _ = running.custody.sync(now);
        }
    }

    /// Another thread reads a stretch of the journal for it.
    pub fn read(&mut self, stretch: Stretch, now: Now) {
        let Some(running) = &self.running else { return };
        let (mut reader, store) = (running.custody.reader(), &self.store);
        let journal = running.custody.journal();
        let found = read_stretch(&stretch, journal, &mut reader, || Ok(store.clone())).ok();
        self.handle(Event::Read { stretch, found }, now);
    }

    /// Another thread is to put epochs into its index.
    pub fn keep(&mut self, keeping: Keeping) {
        self.keeping = Some(keeping);
    }

    /// Another thread is to look epochs up in its index.
    pub fn find(&mut self, finding: Finding) {
        self.finding = Some(finding);
    }

    /// Whether another thread looks epochs up.
    #[must_use]
    pub const fn is_finding(&self) -> bool {
        self.finding.is_some()
    }

    /// The other thread is done with that.
    pub fn look_up(&mut self, now: Now) {
        if let Some(finding) = self.finding.take() {
            self.handle(Event::Found(finding.find()), now);
        }
    }

    /// The other thread is done with that.
    fn put_into_index(&mut self) -> Option<Event> {
        let (epochs, kept) = self.keeping.take()?.keep();
        Some(Event::Kept { epochs, kept })
    }

    /// What it says next.
    pub fn next_output(&mut self) -> Option<Output> {
        self.running.as_mut()?.custody.next_output()
    }

    /// One step of a sink; of the journal it reads `most_bytes`, or nothing if there are none.
    pub fn step_sink(&mut self, which: Which, most_bytes: usize, now: Now, dice: &mut Dice) -> Did {
        if self.keeping.is_some()
            && dice.one_in(3)
            && let Some(event) = self.put_into_index()
        {
            self.handle(event, now);
        }
        let now = self.clock(now);
        show_present(now.wall);
        self.service.come_to(now.mono);
        let Some(Running {
            custody,
            lake,
            copy,
            stream,
        }) = &mut self.running
        else {
            return Did::Nothing;
        };
        match (which, copy, stream) {
            (Which::Lake, ..) => {
                let late = match lake {
                    Lake::There(worker) => {
                        return hands(&mut self.letters, custody, most_bytes, now, dice)
                            .step(worker, NAME);
                    }
                    Lake::Away(late) => late,
                };
                let (store, renamed) = (&self.store, &mut self.renamed_late);
                let at = custody.clock.dated(now);
                match try_late(late, store, custody, renamed, at, dice) {
                    Ok(worker) => {
                        *lake = Lake::There(Box::new(worker));
                        Did::Moved
                    }
                    Err(did) => did,
                }
            }
            (Which::Copy, Some(copy), _) => {
                hands(&mut self.letters, custody, most_bytes, now, dice).step(copy, COPY)
            }
            (Which::Stream, _, Some(stream)) => {
                hands(&mut self.letters, custody, most_bytes, now, dice).step(stream, STREAM)
            }
            (Which::Copy | Which::Stream, ..) => Did::Nothing,
        }
    }

    /// Whether every sink has everything that the journal holds.
    #[must_use]
    pub fn is_drained(&self, now: Now) -> bool {
        self.running.as_ref().is_some_and(|running| {
            let copy = running.copy.as_ref();
            let stream = running.stream.as_ref();
            let lake = match &running.lake {
                Lake::There(lake) => lake.is_drained(now.mono),
                Lake::Away(_) => false,
            };
            lake && copy.is_none_or(|copy| copy.is_drained(now.mono))
                && stream.is_none_or(|stream| stream.is_drained(now.mono))
        })
    }

    /// What custody counted.
    #[must_use]
    pub fn describe(&self) -> String {
        let Some(running) = &self.running else {
            return "down".to_owned();
        };
        let custody = &running.custody;
        let lake = match &running.lake {
            Lake::There(lake) => Some(lake.look()),
            Lake::Away(late) => late.as_ref().map(|late| late.look()),
        };
        let segments: Vec<String> = custody
            .log()
            .segments()
            .map(|s| {
                format!(
                    "{}: {}..{} {} B{}",
                    s.id,
                    s.first,
                    s.next,
                    s.bytes_allocated,
                    if s.sealed { "" } else { " open" }
                )
            })
            .collect();
        let open: Vec<String> = custody
            .ledger()
            .streams()
            .filter(|(_, track)| !track.receiver.is_done())
            .map(|(stream, track)| {
                let receiver = &track.receiver;
                let (data, committed) =
                    (receiver.data().as_slice(), receiver.committed().as_slice());
                format!(
                    "{stream:?} has {data:?}, committed {committed:?}, {:?}",
                    receiver.ended()
                )
            })
            .collect();
        format!(
            "{open:#?} {:?}; cursors {:?}; lake {:?}; copy {:?}; stream {:?}; durable {}; {} B in {segments:?}",
            custody.counters(),
            custody.cursors(),
            lake,
            running.copy.as_ref().map(Worker::look),
            running.stream.as_ref().map(Worker::look),
            custody.reader().durable(),
            custody.log().used_bytes(),
        )
    }

    /// Every record that the journal still holds, a line each.
    #[must_use]
    pub fn dump(&self) -> Vec<String> {
        let Some(Running { custody, .. }) = &self.running else {
            return Vec::new();
        };
        let mut reader = custody.reader();
        let mut lines = Vec::new();
        let mut at = custody
            .log()
            .segments()
            .next()
            .map_or(0, |segment| segment.first);
        while at < reader.durable() {
            let read = reader.read(at, 1 << 20, |position, kind, payload| {
                let record = headwater_collector::pipeline::envelope::decode(kind, payload);
                let mut line = format!("{position}: {record:?}");
                line.truncate(300);
                lines.push(line);
                ControlFlow::Continue(())
            });
            match read {
                Ok(chunk) if chunk.next > at => at = chunk.next,
                _ => break,
            }
        }
        lines
    }
}

/// Tries a lake that was away at the start, if it is time.
fn try_late(
    waits: &mut Option<Box<Late<FakeDisk>>>,
    store: &MemStore,
    custody: &mut Custody<FakeDisk>,
    renamed: &mut u64,
    now: Now,
    dice: &mut Dice,
) -> Result<Worker<LakeSink<MemStore>, FakeDisk>, Did> {
    let late = waits.as_mut().ok_or(Did::Ended)?;
    match late.next(now.mono) {
        Turn::Wait(_) => return Err(Did::Nothing),
        Turn::Fatal(_) => return Err(Did::Ended),
        Turn::Try => {}
    }
    let mut ask = |journal: &JournalSide, lake: &LakeSide| {
        let met = custody.meet_lake(NAME, journal, lake, now.wall);
        let agrees = matches!(met, Ok(Meeting::Agreed(_)));
        *renamed += u64::from(agrees && lake.renamed.is_some());
        met.map_err(|error| SinkError::Busy {
            retry_after: None,
            cause: error.to_string(),
        })
    };
    let mut reach = || Ok(store.clone());
    let agreed = late.attempt(now, &mut reach, &mut ask, &mut || dice.bits());
    let Some((met, agreed)) = agreed else {
        return Err(Did::Moved);
    };
    let late = waits.take().ok_or(Did::Ended)?;
    Ok(late.worker(met, agreed))
}
