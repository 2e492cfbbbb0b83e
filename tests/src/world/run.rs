//! One run from its seed to its verdict; and many runs on several threads.

use std::sync::atomic::{AtomicU64, Ordering};

use headwater_agent::pipeline::engine::Counters as AgentCounters;
use headwater_collector::pipeline::custody::Counters as CollectorCounters;
use headwater_gate::ConnId;
use headwater_proto::ids::DeviceId;
use headwater_proto::time::{Millis, Now, UnixMicros};

use super::check::{self, Faults, Known};
use super::collector::Collector;
use super::copy::COPY;
use super::device::Device;
use super::dice::Dice;
use super::generator::{Made, START_US};
use super::link::Link;
use super::plain::Plain;
use super::plan::Plan;
use super::stream::STREAM;

/// Milliseconds between boot and the first step: no run begins at the very zero of its clock.
const FIRST_MS: u64 = 1_000;

/// Faults shown of one run.
const MAX_FAULTS: usize = 12;

/// What a good run saw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Readings that were made.
    pub made: u64,
    /// Of these, found in the lake.
    pub found: u64,
    /// Deaths of agents and of the collector.
    pub deaths: u64,
    /// Virtual milliseconds.
    pub elapsed_ms: u64,
    /// What happened on the way.
    pub seen: Seen,
}

/// How often the rarer things happened: a world in which one never does proves nothing about it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Records that agents evicted.
    pub evicted: u64,
    /// Times a lane of an agent gave its disk up for a while.
    pub fell_to_memory: u64,
    /// Groups of agents whose sync failed.
    pub agent_syncs_failed: u64,
    /// Groups of the collector whose sync failed.
    pub collector_syncs_failed: u64,
    /// Records that came to the collector again.
    pub repeats: u64,
    /// Records that the collector refused.
    pub rejects: u64,
    /// Publishes that waited for room in the journal.
    pub withheld: u64,
    /// Journal segments given back.
    pub segments_released: u64,
    /// Gaps that the collector named.
    pub gaps_named: u64,
    /// Schemas the collector had to ask for.
    pub schemas_asked: u64,
    /// Publishes of plain devices that were known already.
    pub plain_repeats: u64,
    /// Devices that shared an identity.
    pub clones: u64,
    /// Losses of the collector's disk.
    pub disks_lost: u64,
    /// Log lines in the lake.
    pub lines: u64,
    /// Lakes that keep the dictionary of log lines.
    pub dictionaries: u64,
    /// Publishes that came through the gateway.
    pub via_gateway: u64,
    /// Records that a second sink took.
    pub copied: u64,
    /// Calls of the second sink that failed.
    pub copies_failed: u64,
    /// Streams of which it refused records.
    pub copies_refused: u64,
    /// Records that it was left behind by.
    pub left_behind: u64,
    /// Times that it was taken out.
    pub copies_taken_out: u64,
    /// Batches that the stream's service was sent.
    pub batches: u64,
    /// Of these, those that came again.
    pub batches_repeated: u64,
    /// Batches that were made again from their plan.
    pub batches_remade: u64,
    /// Calls of the service that failed.
    pub batches_failed: u64,
    /// Items that it refused.
    pub items_refused: u64,
    /// Orderly ends of the collector.
    pub orderly_ends: u64,
    /// Wall clocks of devices that were set.
    pub device_clock_steps: u64,
    /// Times that the collector's wall clock was set.
    pub collector_clock_steps: u64,
    /// Tables of the lake with a checkpoint.
    pub checkpoints: u64,
    /// Bits of the journal that flipped.
    pub rotten: u64,
    /// Old copies of the journal's disk brought back.
    pub journals_restored: u64,
    /// Starts without a readable snapshot.
    pub journals_rebuilt: u64,
    /// Records that the journal lost and the collector asked for again.
    pub asked_again: u64,
    /// Epochs that came back after the collector had let go of them.
    pub recalled: u64,
    /// Receipts that were not durable.
    pub not_durable: u64,
    /// Starts without the lake.
    pub begun_alone: u64,
    /// Old copies of the journal that such a start began with.
    pub renamed_late: u64,
}

impl Seen {
    /// Names and counts.
    #[must_use]
    pub const fn all(&self) -> [(&'static str, u64); 38] {
        [
            ("evicted", self.evicted),
            ("fell_to_memory", self.fell_to_memory),
            ("agent_syncs_failed", self.agent_syncs_failed),
            ("collector_syncs_failed", self.collector_syncs_failed),
            ("repeats", self.repeats),
            ("rejects", self.rejects),
            ("withheld", self.withheld),
            ("segments_released", self.segments_released),
            ("gaps_named", self.gaps_named),
            ("schemas_asked", self.schemas_asked),
            ("plain_repeats", self.plain_repeats),
            ("clones", self.clones),
            ("disks_lost", self.disks_lost),
            ("lines", self.lines),
            ("dictionaries", self.dictionaries),
            ("via_gateway", self.via_gateway),
            ("copied", self.copied),
            ("copies_failed", self.copies_failed),
            ("copies_refused", self.copies_refused),
            ("left_behind", self.left_behind),
            ("copies_taken_out", self.copies_taken_out),
            ("batches", self.batches),
            ("batches_repeated", self.batches_repeated),
            ("batches_remade", self.batches_remade),
            ("batches_failed", self.batches_failed),
            ("items_refused", self.items_refused),
            ("orderly_ends", self.orderly_ends),
            ("device_clock_steps", self.device_clock_steps),
            ("collector_clock_steps", self.collector_clock_steps),
            ("checkpoints", self.checkpoints),
            ("rotten", self.rotten),
            ("journals_restored", self.journals_restored),
            ("journals_rebuilt", self.journals_rebuilt),
            ("asked_again", self.asked_again),
            ("recalled", self.recalled),
            ("not_durable", self.not_durable),
            ("begun_alone", self.begun_alone),
            ("renamed_late", self.renamed_late),
        ]
    }

    /// Adds what an agent counted in its life.
    pub(super) const fn add_agent(&mut self, counters: &AgentCounters) {
        self.evicted += counters.evicted_records;
        self.fell_to_memory += counters.disk_failures;
        self.agent_syncs_failed += counters.failed_syncs;
    }

    /// Adds what the collector counted in its life.
    pub(super) const fn add_collector(&mut self, counters: &CollectorCounters) {
        self.collector_syncs_failed += counters.groups_failed_total;
        self.repeats += counters.repeats_total;
        self.rejects += counters.rejects_total;
        self.withheld += counters.withheld_total;
        self.segments_released += counters.segments_released_total;
        self.gaps_named += counters.gaps_named_total;
        self.schemas_asked += counters.schema_requests_total;
        self.plain_repeats += counters.plain_repeats_total;
        self.asked_again += counters.asked_again_total;
        self.recalled += counters.recalled_total;
    }

    const fn add(&mut self, other: &Self) {
        self.evicted += other.evicted;
        self.fell_to_memory += other.fell_to_memory;
        self.agent_syncs_failed += other.agent_syncs_failed;
        self.collector_syncs_failed += other.collector_syncs_failed;
        self.repeats += other.repeats;
        self.rejects += other.rejects;
        self.withheld += other.withheld;
        self.segments_released += other.segments_released;
        self.gaps_named += other.gaps_named;
        self.schemas_asked += other.schemas_asked;
        self.plain_repeats += other.plain_repeats;
        self.clones += other.clones;
        self.disks_lost += other.disks_lost;
        self.lines += other.lines;
        self.dictionaries += other.dictionaries;
        self.via_gateway += other.via_gateway;
        self.copied += other.copied;
        self.copies_failed += other.copies_failed;
        self.copies_refused += other.copies_refused;
        self.left_behind += other.left_behind;
        self.copies_taken_out += other.copies_taken_out;
        self.batches += other.batches;
        self.batches_repeated += other.batches_repeated;
        self.batches_remade += other.batches_remade;
        self.batches_failed += other.batches_failed;
        self.items_refused += other.items_refused;
        self.orderly_ends += other.orderly_ends;
        self.device_clock_steps += other.device_clock_steps;
        self.collector_clock_steps += other.collector_clock_steps;
        self.checkpoints += other.checkpoints;
        self.rotten += other.rotten;
        self.journals_restored += other.journals_restored;
        self.journals_rebuilt += other.journals_rebuilt;
        self.asked_again += other.asked_again;
        self.recalled += other.recalled;
        self.not_durable += other.not_durable;
        self.begun_alone += other.begun_alone;
        self.renamed_late += other.renamed_late;
    }
}

impl Summary {
    const fn add(&mut self, other: &Self) {
        self.made += other.made;
        self.found += other.found;
        self.deaths += other.deaths;
        self.elapsed_ms += other.elapsed_ms;
        self.seen.add(&other.seen);
    }
}

/// A run that went wrong.
#[derive(Debug)]
pub struct Failure {
    /// `HEADWATER_SEED` to see it again.
    pub seed: u64,
    /// What is wrong.
    pub faults: Faults,
    /// What happened, if it was asked for.
    pub trace: Vec<String>,
}

/// Everything there is.
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) dice: Dice,
    pub(super) now: Now,
    pub(super) made: Made,
    pub(super) devices: Vec<Device>,
    /// By device: its connection, if it has one.
    pub(super) links: Vec<Option<Link>>,
    pub(super) plain: Vec<Plain>,
    pub(super) collector: Collector,
    pub(super) next_conn: u64,
    /// The gateway's connection, which its nodes share.
    pub(super) gateway: Option<ConnId>,
    /// Copies of disks, by device.
    pub(super) backups: Vec<(usize, headwater_spool::FakeDisk)>,
    /// Until when nobody reaches the lake's store.
    pub(super) away_until: Option<Millis>,
    /// Copies of the journal's disk.
    pub(super) journals: Vec<headwater_spool::FakeDisk>,
    /// The collector's disk was lost once, or was not what it had been.
    pub(super) lost_disk: bool,
    /// Bits of the journal flipped once.
    pub(super) rotten: bool,
    pub(super) seen: Seen,
    pub(super) deaths: u64,
    pub(super) faults: Faults,
    pub(super) trace: Option<Vec<String>>,
}

impl World {
    fn new(seed: u64, traced: bool) -> Self {
        let mut dice = Dice::new(seed);
        let plan = Plan::draw(&mut dice);
        let nodes = (0..plan.nodes).map(|place| {
            let id = DeviceId::new(&format!("node-{place}")).expect("a plain name");
            let place = plan.devices + place;
            let mut node = Device::new(id, place, plan.lane_bytes);
            node.is_node = true;
            node
        });
        let devices: Vec<Device> = (0..plan.devices)
            .map(|place| {
                let id = DeviceId::new(&format!("agent-{place}")).expect("a plain name");
                Device::new(id, place, plan.lane_bytes)
            })
            .chain(nodes)
            .collect();
        let mut world = Self {
            links: devices.iter().map(|_| None).collect(),
            devices,
            plain: (0..plan.plain)
                .map(|place| Plain::new(format!("plain-{place}")))
                .collect(),
            collector: Collector::new(plan),
            dice,
            now: Now {
                mono: Millis(FIRST_MS),
                wall: UnixMicros(START_US),
            },
            made: Made::new(seed),
            next_conn: 1,
            gateway: None,
            backups: Vec::new(),
            away_until: None,
            journals: Vec::new(),
            lost_disk: false,
            rotten: false,
            seen: Seen::default(),
            deaths: 0,
            faults: Faults::new(),
            trace: traced.then(Vec::new),
            plan,
        };
        world.note(|world| format!("{:?}", world.plan));
        world
    }

    /// Adds a line to the trace, if one is kept.
    pub(super) fn note(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.trace.is_some() {
            let line = format!("{:>7} ms  {}", self.now.mono.0, line(self));
            if let Some(trace) = &mut self.trace {
                trace.push(line);
            }
        }
    }

    /// Judges the sinks beside the lake.
    fn judge_sinks(&mut self, found: &check::Found, seen: &mut Seen) {
        let (faults, collector) = (&mut self.faults, &self.collector);
        let (copies, service) = (collector.copies.shelf(), collector.service.shelf());
        seen.copied += copies.taken;
        seen.copies_failed += copies.failed;
        seen.copies_refused += copies.refused.len() as u64;
        seen.batches += service.batches;
        seen.batches_repeated += service.repeats;
        seen.batches_remade += service.remade;
        seen.batches_failed += service.failed;
        seen.items_refused += service.refused.len() as u64;
        let until = collector.taken_out.as_ref();
        if self.plan.copy.is_some() {
            let has = (&copies.rows, &copies.undecodable);
            check::check_sink(found, COPY, has, until, faults);
        }
        if self.plan.stream.is_some() {
            let has = (&service.rows, &service.undecodable);
            check::check_sink(found, STREAM, has, None, faults);
            check::check_refused(found, &service.refused, faults);
        }
        // A journal that is gone or rots takes plans with it, and an old copy uses positions once more.
        if self.plan.stream.is_some() && !self.lost_disk && !self.rotten {
            faults.extend(service.faults.iter().cloned());
            let lacks = found.lacks.get(STREAM);
            let is_behind = lacks.is_some_and(|lacks| lacks.left_behind > 0);
            if service.broken > 0 && !is_behind {
                faults.push("a batch could not be made again from its plan".to_owned());
            }
        }
        let had_room =
            collector.most_bytes <= self.plan.journal_bytes / 2 && !collector.was_stalled;
        for (sink, lacks) in &found.lacks {
            seen.left_behind += lacks.left_behind;
            let is_out = sink == COPY && until.is_some();
            if lacks.left_behind > 0 && !is_out && had_room {
                faults.push(format!(
                    "sink {sink} was left behind, though the journal had room"
                ));
            }
        }
    }

    /// Judges the lake.
    fn judge(&mut self) -> Summary {
        let store = self.collector.store.clone();
        check::check_audit(&store, &mut self.faults);
        for device in &mut self.devices {
            device.note_counters(&mut self.seen);
        }
        self.collector.note_counters(&mut self.seen);
        let mut summary = Summary {
            seen: self.seen,
            made: self.made.readings().len() as u64,
            deaths: self.deaths,
            elapsed_ms: self.now.mono.0,
            ..Summary::default()
        };
        match check::read(&store) {
            Ok(found) => {
                summary.seen.lines += found.lines;
                summary.seen.dictionaries += found.dictionaries;
                summary.seen.checkpoints += found.checkpoints;
                let mut known: Vec<Known> = Vec::new();
                for device in &self.devices {
                    let name = device.id.as_str();
                    match known.iter_mut().find(|known| known.name == name) {
                        Some(known) => {
                            known.disturbed = true;
                            known.forgotten |= device.forgotten;
                            known.stepped |= device.stepped;
                        }
                        None => known.push(Known {
                            name: name.to_owned(),
                            disturbed: device.disturbed,
                            forgotten: device.forgotten,
                            stepped: device.stepped,
                            evicted: device.has_evicted(),
                            unnamed: false,
                        }),
                    }
                }
                // What the journal cannot give back is named, or asked for again.
                let rotten = self.rotten;
                known.iter_mut().for_each(|known| known.evicted |= rotten);
                // But of a device that held readings in memory alone, the journal's word that it did may
                // be what rotted or went with its disk: then nobody knows of them.
                let is_forgetful = rotten || self.lost_disk;
                let in_memory = self.devices.iter().filter(|d| d.not_durable() > 0);
                for device in in_memory.filter(|_| is_forgetful) {
                    let name = device.id.as_str();
                    let known = known.iter_mut().filter(|known| known.name == name);
                    known.for_each(|known| known.forgotten = true);
                }
                if self.plan.ends_at_journal && (self.lost_disk || rotten) {
                    // What agents were told to forget went with the journal.
                    known.iter_mut().for_each(|known| known.unnamed = true);
                }
                check::check_rows(&found, &self.made, &known, &mut self.faults);
                for device in &mut self.devices {
                    self.faults.append(&mut device.broken);
                    summary.seen.not_durable += device.not_durable();
                    let name = device.id.as_str();
                    if let Some(known) = known.iter().find(|known| known.name == name) {
                        check::check_durable(&found, device.durable(), known, &mut self.faults);
                    }
                }
                self.judge_sinks(&found, &mut summary.seen);
                for plain in &self.plain {
                    let (made, had) = (plain.made(), &plain.acknowledged);
                    let (lost, faults) = ((self.lost_disk, rotten), &mut self.faults);
                    check::check_plain(&found, &plain.name, made, had, lost, faults);
                }
                let there = |key: &&_| found.readings.contains_key(*key);
                summary.found = self.made.readings().keys().filter(there).count() as u64;
            }
            Err(fault) => self
                .faults
                .push(format!("the lake cannot be read: {fault}")),
        }
        summary
    }
}

/// Runs one seed.
///
/// # Errors
/// [`Failure`] if anything does not hold.
pub fn run(seed: u64, traced: bool) -> Result<Summary, Failure> {
    let mut world = World::new(seed, traced);
    for _ in 0..world.plan.steps {
        world.step();
    }
    world.drain();
    let summary = world.judge();
    world.faults.truncate(MAX_FAULTS);
    if !world.faults.is_empty() && traced {
        for line in world.collector.dump() {
            world.note(|_| format!("journal {line}"));
        }
    }
    if world.faults.is_empty() {
        return Ok(summary);
    }
    Err(Failure {
        seed,
        faults: world.faults,
        trace: world.trace.unwrap_or_default(),
    })
}

/// Runs the seeds `first..first + count` on `threads` threads, until one fails. Returns the sum of
/// what was seen.
///
/// # Errors
/// One of the failures.
pub fn run_many(first: u64, count: u64, threads: usize) -> Result<Summary, Failure> {
    let (next, failed) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
    let work = || {
        let mut sum = Summary::default();
        loop {
            let turn = next.fetch_add(1, Ordering::Relaxed);
            if turn >= count.min(failed.load(Ordering::Relaxed)) {
                return Ok(sum);
            }
            match run(first + turn, false) {
                Ok(summary) => sum.add(&summary),
                Err(failure) => {
                    failed.fetch_min(turn, Ordering::Relaxed);
                    return Err(failure);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        let mut sum = Summary::default();
        let mut failure: Option<Failure> = None;
        for worker in workers {
            match worker.join().expect("a run that panics has printed why") {
                Ok(part) => sum.add(&part),
                Err(found) if failure.as_ref().is_none_or(|known| found.seed < known.seed) => {
                    failure = Some(found);
                }
                Err(_) => {}
            }
        }
        failure.map_or(Ok(sum), Err)
    })
}
