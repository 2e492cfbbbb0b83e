//! Core: a collector that is stopped as by a signal, at any operation of its lake's store, while another
//! machine takes the lake over; later it wakes and goes on, until it finds itself fenced.

use std::sync::{Arc, Mutex, PoisonError};

use headwater_collector::pipeline::custody::Event;
use headwater_lake::delta::{Log, LogError};
use headwater_lake::{MemStore, Table};

use super::collector::{Collector, Which};
use super::course::Course;
use super::dice::Dice;
use super::hands::Did;

/// Operations of the store before the collector stands still, at most: a flush takes fewer.
const MAX_OPERATIONS: u64 = 50;
/// Steps of its lake's sink in which it comes there, at most.
const MAX_STEPS: u64 = 12;
/// Most bytes that it reads of its journal in a step.
const MOST_BYTES: usize = 20_000;

/// The newest version of each table.
type Versions = Vec<Option<u64>>;

/// A collector that was taken over from.
pub(super) struct Sleeper {
    collector: Collector,
    /// The versions that it must not pass, until it sleeps again.
    versions: Versions,
}

/// Stops `collector` somewhere in the work of its lake's sink, and starts another one in its place. Gives the
/// other one, and the one that stands still; nobody stands still if the lake was not taken over.
pub(super) fn take_over(
    mut collector: Collector,
    course: &mut Course,
) -> (Collector, Option<Sleeper>) {
    let store = collector.store.clone();
    let begun = Arc::new(Mutex::new(None));
    let mut other = collector.successor();
    let (slot, now) = (Arc::clone(&begun), course.now);
    let mut dice = Dice::new(course.dice.bits());
    store.interrupt_after(course.dice.below(MAX_OPERATIONS), move || {
        other.start(now, &mut dice);
        let versions = versions(&other.store);
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some((other, versions));
    });
    let is_begun = || begun.lock().is_ok_and(|begun| begun.is_some());
    for _ in 0..course.dice.below(MAX_STEPS) {
        let did = collector.step_sink(Which::Lake, MOST_BYTES, course.now, &mut course.dice);
        course.seen.stopped_midway += u64::from(is_begun());
        if is_begun() || matches!(did, Did::Nothing | Did::Ended) {
            break;
        }
    }
    // It stands still between two steps.
    store.interrupt();
    let begun = begun.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some((other, versions)) = begun else {
        return (collector, None);
    };
    if !other.has_lake() {
        collector.note_counters(&mut course.seen);
        return (other, None);
    }
    let mut sleeper = Sleeper {
        collector,
        versions,
    };
    sleeper.expect_nothing_new(course);
    (other, Some(sleeper))
}

impl Sleeper {
    /// It wakes for some steps. Gives it back unless it ended over that.
    pub(super) fn wake(mut self, steps: u64, course: &mut Course) -> Option<Self> {
        self.versions = versions(&self.collector.store);
        self.collector.handle(Event::Tick, course.now);
        self.collector.sync(course.now);
        let mut is_fenced = false;
        for _ in 0..steps {
            let (now, dice) = (course.now, &mut course.dice);
            let did = self.collector.step_sink(Which::Lake, MOST_BYTES, now, dice);
            is_fenced = did == Did::Ended;
            if is_fenced || self.collector.is_crashed() {
                break;
            }
        }
        self.expect_nothing_new(course);
        if !is_fenced && !self.collector.is_crashed() {
            return Some(self);
        }
        course.note(|| format!("the collector that was taken over from ends, fenced: {is_fenced}"));
        course.seen.fenced += u64::from(is_fenced);
        self.end(course);
        None
    }

    /// It never wakes again.
    pub(super) fn end(self, course: &mut Course) {
        let mut collector = self.collector;
        collector.note_counters(&mut course.seen);
    }

    /// Nobody else wrote meanwhile: whatever is new in a table is its own.
    fn expect_nothing_new(&mut self, course: &mut Course) {
        let versions = versions(&self.collector.store);
        for (table, (old, new)) in Table::ALL.iter().zip(self.versions.iter().zip(&versions)) {
            if old != new {
                let table = table.name();
                course.faults.push(format!(
                    "a collector that was taken over from commits version {new:?} of {table}"
                ));
            }
        }
        self.versions = versions;
    }
}

/// The newest versions, without an operation of the store itself.
pub(super) fn versions(store: &MemStore) -> Versions {
    let store = store.fork();
    let newest = |table: &Table| {
        let log: Result<Log, LogError> = Log::load(&store, *table);
        log.ok().and_then(|log| log.version())
    };
    Table::ALL.iter().map(newest).collect()
}
