//! Core: the collector of the world: custody and the lake sink, on a disk and a store that fail.

use std::ops::ControlFlow;

use headwater_collector::done::DoneInMemory;
use headwater_collector::interpret::{Depth, Feed, Taken};
use headwater_collector::pipeline::credit::CreditLimits;
use headwater_collector::pipeline::custody::{
    Custody, Event, Gateway, Mode, Output, Past, Settings, SinkSpec,
};
use headwater_collector::pipeline::pattern::Pattern;
use headwater_collector::pipeline::rules::Decoder;
use headwater_collector::sink::join;
use headwater_collector::sink::lake::{LakeSettings, LakeSink, NAME, Staged};
use headwater_lake::MemStore;
use headwater_proto::ids::DeviceId;
use headwater_proto::time::{Now, UnixMicros};
use headwater_spool::{Config, Disk, DiskFile, FakeDisk};

use super::device::Death;
use super::dice::Dice;
use super::plan::Plan;
use super::run::Seen;

/// Client id of the gateway, which speaks for every `node-*`.
pub const GATEWAY: &str = "gateway";

/// The gateway as a device.
#[must_use]
pub fn gateway_id() -> DeviceId {
    DeviceId::new(GATEWAY).expect("a plain name")
}

/// Name of the second sink.
const COPY: &str = "copy";
/// Where a segment's snapshot begins.
const SNAPSHOT_AT: u64 = 64;

/// Topic of a plain device, by its id.
#[must_use]
pub fn plain_topic(device: &str) -> String {
    format!("plain/{device}/readings")
}

/// The collector while it runs.
struct Running {
    custody: Custody<FakeDisk>,
    sink: LakeSink<MemStore>,
    /// What the sink reads.
    feed: Feed<FakeDisk>,
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
    plan: Plan,
    /// What its wall clock shows beyond the world's.
    step_us: i64,
    /// Records that the second sink took.
    pub copied: u64,
    /// Starts without a readable snapshot.
    rebuilt: u64,
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
            plan,
            step_us: 0,
            copied: 0,
            rebuilt: 0,
            found: String::new(),
        }
    }

    /// Somebody sets its wall clock.
    pub const fn set_clock(&mut self, step_us: i64) {
        self.step_us = step_us;
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
        sinks.extend(self.plan.copy.map(|required| sink(COPY, required)));
        Settings {
            log: Config {
                name: "journal".to_owned(),
                segment_bytes: 8192,
                quota_bytes: self.plan.journal_bytes,
                reserve_bytes: 2 * 8192,
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
                    .expect("the pattern names a device"),
            ],
            gateways: vec![Gateway {
                client: GATEWAY.to_owned(),
                devices: vec!["node-*".to_owned()],
            }],
            sinks,
            mode: if self.plan.ends_at_journal {
                Mode::Journal
            } else {
                Mode::Sinks
            },
            abandon_after_ms: 20_000,
            keep_closed_ms: self.plan.keep_closed_ms,
            max_bundle_bytes: 16 << 10,
            ..Settings::default()
        }
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
        let now = self.clock(now).wall;
        let joined = join(
            &mut custody,
            &opened,
            store,
            lake_settings,
            now,
            &mut entropy,
        );
        let sink = joined.ok()?;
        let feed = Feed::new(custody.reader(), sink.position(), Depth::Samples);
        Some(Running {
            custody,
            sink,
            feed,
        })
    }

    /// Adds what this life counted.
    pub fn note_counters(&mut self, seen: &mut Seen) {
        seen.journals_rebuilt += std::mem::take(&mut self.rebuilt);
        if let Some(running) = &self.running {
            seen.add_collector(running.custody.counters());
        }
    }

    /// Ends it against its will.
    pub fn die(&mut self, death: Death, dice: &mut Dice, seen: &mut Seen) {
        self.note_counters(seen);
        self.running = None;
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

    /// Its journal's disk is gone; the lake remains.
    pub fn lose_disk(&mut self) {
        self.running = None;
        self.disk = FakeDisk::new();
        self.store.restart();
    }

    /// Its journal's disk is as it was when `disk` was copied; the lake goes on.
    pub fn restore_disk(&mut self, disk: FakeDisk) {
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
        }
    }

    /// Makes what it was handed durable.
    pub fn sync(&mut self, now: Now) {
        let now = self.clock(now);
        if let Some(running) = &mut self.running {
            // A failed sync shows in the outputs: connections are closed.
            let _ = running.custody.sync(now);
        }
    }

    /// What it says next.
    pub fn next_output(&mut self) -> Option<Output> {
        self.running.as_mut()?.custody.next_output()
    }

    /// Lets the sink read what is durable, at most `most_bytes` of it.
    pub fn read_journal(&mut self, most_bytes: usize, now: Now) {
        let now = self.clock(now);
        let Some(Running { sink, feed, .. }) = &mut self.running else {
            return;
        };
        // A row that the lake cannot hold stays in the journal, and is tried again.
        let read = feed.read(most_bytes, |item| match sink.take(item, now) {
            Ok(()) => Taken::More,
            Err(_) => Taken::Not,
        });
        if let Ok(chunk) = read {
            for damage in &chunk.damage {
                let positions = &damage.positions;
                sink.note_damage(positions.end - positions.start, now.mono);
            }
            sink.skip_to(chunk.next);
        }
    }

    /// Lets the second sink read what is durable, at most `most_bytes` of it. It keeps what it reads,
    /// and says so at once.
    pub fn copy(&mut self, most_bytes: usize, now: Now) {
        let now = self.clock(now);
        let Some(Running { custody, .. }) = &mut self.running else {
            return;
        };
        let Some(from) = custody.cursor(COPY) else {
            return;
        };
        let mut reader = custody.reader();
        if from >= reader.durable() {
            return;
        }
        let mut copied = 0;
        let read = reader.read(from, most_bytes, |_, _, _| {
            copied += 1;
            ControlFlow::Continue(())
        });
        if let Ok(chunk) = read {
            self.copied += copied;
            let positions = chunk.damage.iter().map(|damage| &damage.positions);
            let event = Event::Committed {
                sink: COPY.to_owned(),
                through: chunk.next,
                streams: Vec::new(),
                damaged: positions.map(|range| range.end - range.start).sum(),
            };
            custody.handle(event, now);
        }
    }

    /// The first half of a flush: files are staged and the plan is appended.
    /// `false`: there is nothing to publish.
    pub fn stage(&mut self, now: Now) -> bool {
        let now = self.clock(now);
        let Some(Running { custody, sink, .. }) = &mut self.running else {
            return false;
        };
        match sink.stage(now) {
            Ok(Staged::Plan(plan)) => {
                custody.append_plan(NAME, &plan).is_ok() && custody.sync(now).is_ok()
            }
            Ok(Staged::Empty) => true,
            Ok(Staged::Nothing) | Err(_) => false,
        }
    }

    /// The second half: what was staged becomes part of the lake.
    pub fn publish(&mut self, now: Now) {
        let now = self.clock(now);
        let Some(Running { custody, sink, .. }) = &mut self.running else {
            return;
        };
        if let Ok(Some(done)) = sink.publish() {
            let event = Event::Committed {
                sink: NAME.to_owned(),
                through: done.through,
                streams: done.streams,
                damaged: done.damaged,
            };
            custody.handle(event, now);
        }
    }

    /// Whether rows are due to be flushed.
    #[must_use]
    pub fn is_flush_due(&self, now: Now) -> bool {
        self.running
            .as_ref()
            .is_some_and(|running| running.sink.is_due(now.mono))
    }

    /// Whether the lake has everything that the journal holds.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.running.as_ref().is_some_and(|running| {
            let (sink, custody) = (&running.sink, &running.custody);
            let durable = custody.reader().durable();
            let copied = self.plan.copy.is_none() || custody.cursor(COPY) >= Some(durable);
            copied && sink.position() >= durable && sink.due_at().is_none()
        })
    }

    /// What custody counted.
    #[must_use]
    pub fn describe(&self) -> String {
        let Some(running) = &self.running else {
            return "down".to_owned();
        };
        let (custody, sink) = (&running.custody, &running.sink);
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
            "{open:#?} {:?}; cursors {:?}; sink at {} of {}; {} B in {segments:?}",
            custody.counters(),
            custody.cursors(),
            sink.position(),
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
