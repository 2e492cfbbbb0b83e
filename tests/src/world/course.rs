//! Core: what all parts of a run share: the plan, the dice, the clock, and what is told of it.

use headwater_proto::time::{Millis, Now, UnixMicros};

use super::dice::{Death, Dice};
use super::generator::START_US;
use super::plan::Plan;
use super::seen::Seen;

/// Milliseconds between boot and the first step: no run begins at the very zero of its clock.
const FIRST_MS: u64 = 1_000;

/// What is wrong with a run or its lake; each a line.
pub(super) type Faults = Vec<String>;

/// The course of one run.
pub(super) struct Course {
    pub(super) plan: Plan,
    pub(super) dice: Dice,
    pub(super) now: Now,
    pub(super) seen: Seen,
    /// Deaths of agents and of the collector.
    pub(super) deaths: u64,
    pub(super) faults: Faults,
    trace: Option<Vec<String>>,
}

impl Course {
    pub(super) fn new(seed: u64, traced: bool) -> Self {
        let mut dice = Dice::new(seed);
        let plan = Plan::draw(&mut dice);
        let mut course = Self {
            plan,
            dice,
            now: now(FIRST_MS),
            seen: Seen::default(),
            deaths: 0,
            faults: Faults::new(),
            trace: traced.then(Vec::new),
        };
        course.note(|| format!("{plan:?}"));
        course
    }

    /// Adds a line to the trace, if one is kept.
    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>7} ms  {}", self.now.mono.0, line()));
        }
    }

    /// The trace, if one was kept.
    pub(super) fn into_trace(self) -> Vec<String> {
        self.trace.unwrap_or_default()
    }

    /// Time passes.
    pub(super) fn pass(&mut self, ms: u64) {
        self.now = now(self.now.mono.0 + ms);
    }

    /// Somebody dies, and how.
    pub(super) fn death(&mut self, who: impl FnOnce() -> String) -> Death {
        let death = self.dice.death();
        self.note(|| format!("{} dies: {death:?}", who()));
        self.deaths += 1;
        death
    }

    /// Whether a process dies between two commands.
    pub(super) const fn dies_here(&mut self) -> bool {
        self.dice.one_in(self.plan.deaths_between_commands)
    }
}

/// The world's clocks, of which the wall clock is the truth.
fn now(ms: u64) -> Now {
    let elapsed_us = i64::try_from(ms).unwrap_or(0) * 1000;
    Now {
        mono: Millis(ms),
        wall: UnixMicros(START_US + elapsed_us),
    }
}
