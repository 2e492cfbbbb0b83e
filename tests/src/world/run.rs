//! Core: one run from its seed to its verdict; and many runs on several threads.

use std::sync::atomic::{AtomicU64, Ordering};

use headwater_proto::ids::DeviceId;
use headwater_proto::time::{Millis, Now, UnixMicros};

use super::check::{self, Faults, Known};
use super::collector::Collector;
use super::device::Device;
use super::dice::Dice;
use super::generator::{Made, START_US};
use super::link::Link;
use super::plain::Plain;
use super::plan::Plan;

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
    /// Copies of disks, by device.
    pub(super) backups: Vec<(usize, headwater_spool::FakeDisk)>,
    /// The collector lost its disk once.
    pub(super) lost_disk: bool,
    pub(super) deaths: u64,
    pub(super) faults: Faults,
    pub(super) trace: Option<Vec<String>>,
}

impl World {
    fn new(seed: u64, traced: bool) -> Self {
        let mut dice = Dice::new(seed);
        let plan = Plan::draw(&mut dice);
        let devices: Vec<Device> = (0..plan.devices)
            .map(|place| {
                let id = DeviceId::new(&format!("agent-{place}")).expect("a plain name");
                Device::new(id, place, plan.lane_bytes)
            })
            .collect();
        let mut world = Self {
            links: devices.iter().map(|_| None).collect(),
            devices,
            plain: (0..plan.plain).map(|place| Plain::new(format!("plain-{place}"))).collect(),
            collector: Collector::new(plan.journal_bytes, plan.flush_after_ms),
            dice,
            now: Now { mono: Millis(FIRST_MS), wall: UnixMicros(START_US) },
            made: Made::new(seed),
            next_conn: 1,
            backups: Vec::new(),
            lost_disk: false,
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

    /// Judges the lake.
    fn judge(&mut self) -> Summary {
        let store = self.collector.store.clone();
        check::check_audit(&store, &mut self.faults);
        let mut summary = Summary {
            made: self.made.readings().len() as u64,
            deaths: self.deaths,
            elapsed_ms: self.now.mono.0,
            ..Summary::default()
        };
        match check::read(&store) {
            Ok(found) => {
                let mut known: Vec<Known> = Vec::new();
                for device in &self.devices {
                    let name = device.id.as_str();
                    match known.iter_mut().find(|known| known.name == name) {
                        Some(known) => known.disturbed = true,
                        None => known.push(Known {
                            name: name.to_owned(),
                            disturbed: device.disturbed,
                            evicted: device.has_evicted(),
                        }),
                    }
                }
                check::check_rows(&found, &self.made, &known, &mut self.faults);
                for plain in &self.plain {
                    let (made, had) = (plain.made(), &plain.acknowledged);
                    let faults = &mut self.faults;
                    check::check_plain(&found, &plain.name, made, had, self.lost_disk, faults);
                }
                let there = |key: &&_| found.readings.contains_key(*key);
                summary.found = self.made.readings().keys().filter(there).count() as u64;
            }
            Err(fault) => self.faults.push(format!("the lake cannot be read: {fault}")),
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
    Err(Failure { seed, faults: world.faults, trace: world.trace.unwrap_or_default() })
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
                Ok(summary) => {
                    sum.made += summary.made;
                    sum.found += summary.found;
                    sum.deaths += summary.deaths;
                    sum.elapsed_ms += summary.elapsed_ms;
                }
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
                Ok(part) => {
                    sum.made += part.made;
                    sum.found += part.found;
                    sum.deaths += part.deaths;
                    sum.elapsed_ms += part.elapsed_ms;
                }
                Err(found) if failure.as_ref().is_none_or(|known| found.seed < known.seed) => {
                    failure = Some(found);
                }
                Err(_) => {}
            }
        }
        failure.map_or(Ok(sum), Err)
    })
}
