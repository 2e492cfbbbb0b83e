//! One run from its seed to its verdict; and many runs on several threads.

use std::sync::atomic::{AtomicU64, Ordering};

use super::course::{Course, Faults};
use super::fleet::Fleet;
use super::judge::judge;
use super::seen::Summary;
use super::site::Home;

/// Faults shown of one run.
const MAX_FAULTS: usize = 12;

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

/// Everything there is. Its methods are what happens where fleet and site meet.
pub(super) struct World {
    pub(super) course: Course,
    pub(super) fleet: Fleet,
    pub(super) site: Home,
    /// The faults are over.
    pub(super) is_draining: bool,
}

impl World {
    fn new(seed: u64, traced: bool) -> Self {
        let mut course = Course::new(seed, traced);
        Self {
            fleet: Fleet::new(&course.plan, seed, &mut course.dice),
            site: Home::new(course.plan),
            is_draining: false,
            course,
        }
    }
}

/// Runs one seed.
///
/// # Errors
/// [`Failure`] if anything does not hold.
pub fn run(seed: u64, traced: bool) -> Result<Summary, Failure> {
    let mut world = World::new(seed, traced);
    for _ in 0..world.course.plan.steps {
        world.step();
    }
    world.drain();
    let World {
        mut course,
        mut fleet,
        mut site,
        is_draining: _,
    } = world;
    let summary = judge(&mut fleet, &mut site, &mut course);
    let mut faults = std::mem::take(&mut course.faults);
    if faults.is_empty() {
        return Ok(summary);
    }
    faults.truncate(MAX_FAULTS);
    if traced {
        for line in site.collector.dump() {
            course.note(|| format!("journal {line}"));
        }
    }
    Err(Failure {
        seed,
        faults,
        trace: course.into_trace(),
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
