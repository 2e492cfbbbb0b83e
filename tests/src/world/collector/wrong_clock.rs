//! The clock of the collector's machine: wrong at some starts, and mended.

use headwater_collector::pipeline::custody::Event;
use headwater_collector::pipeline::custody::clock;
use headwater_proto::time::Now;

use super::Collector;
use crate::world::dice::Dice;
use crate::world::generator::START_US;

/// Marks the choices that are about the clock of the collector's machine.
const WRONG_CLOCK: u64 = 0x636c_6f63_6b73;
/// A clock that shows local time.
const TWO_HOURS_US: i64 = 2 * 3_600 * 1_000_000;

impl Collector {
    /// At a start its clock may be far off, if it may have a past to see that by. In 1970, or two hours behind.
    pub(super) fn draw_clock(&mut self, has_past: bool, dice: &Dice) {
        let mut aside = dice.aside(WRONG_CLOCK);
        let is_wrong = self.plan.wrong_starts && has_past && aside.one_in(2);
        if is_wrong {
            self.step_us = if aside.one_in(2) {
                -START_US
            } else {
                -TWO_HOURS_US
            };
            self.wrong_starts += 1;
        }
        if self.plan.wrong_starts && !has_past && self.store.is_away() {
            // Nothing that it could look at tells.
            self.step_us = 0;
        }
        // A dead letter does not say how far a receipt may be off, so it may differ from what its sink was given.
        let refuses = self.plan.copy_faults.refuses + self.plan.stream_faults.refuses > 0;
        if !refuses && aside.one_in(2) {
            // The machine was started anew too.
            self.boot += 1;
        }
    }

    /// A time service sets its clock right, or, of one that stays as it is, an operator says that it is right. Whether
    /// it was in doubt.
    pub fn mend_clock(&mut self, now: Now) -> bool {
        let (is_mended, shown) = (self.plan.wrong_starts, self.clock(now));
        let Some(running) = &mut self.running else {
            return false;
        };
        if running.custody.clock.doubt().is_none() {
            return false;
        }
        if is_mended {
            self.step_us = 0;
            running.custody.handle(Event::Tick, now);
        } else {
            clock::trust(&mut running.custody, shown);
        }
        true
    }

    /// Its clock is right at every start from now on.
    pub const fn calm_clock(&mut self) {
        if self.plan.wrong_starts {
            (self.plan.wrong_starts, self.step_us) = (false, 0);
        }
    }
}
