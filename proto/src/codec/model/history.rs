//! Histories: the state of one column, or of the times, within one series of a batch.

use super::plan::Plan;
use super::scale;
use crate::schema::params::{Pace, TimeParams};

/// The integer that a history stores. 32 bits are enough for most sensors, and take half the memory.
pub trait Width: Copy + Default + core::fmt::Debug {
    /// Stores `value`; narrow histories keep its low bits.
    fn store(value: i64) -> Self;
    /// The value.
    fn load(self) -> i64;
}

impl Width for i64 {
    #[inline]
    fn store(value: i64) -> Self {
        value
    }
    #[inline]
    fn load(self) -> i64 {
        self
    }
}

impl Width for i32 {
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the encoder checks the range"
    )]
    fn store(value: i64) -> Self {
        value as Self
    }
    #[inline]
    fn load(self) -> i64 {
        i64::from(self)
    }
}

/// State of one column within one series.
#[derive(Debug, Clone, Copy)]
pub struct History<W> {
    past: [W; 3],
    /// Running mean of the residuals (zigzag) in 1/16, scaled down by the plan's shift.
    pub(crate) mean: u32,
    /// Running share of values that were as predicted, of 255.
    pub(crate) zeros: u8,
    /// Running share of exceptions, of 255.
    pub(crate) exceptions: u8,
    /// Bits [`STARTED`] and [`MISSING`], and the last correction plus three above them.
    flags: u8,
}

const STARTED: u8 = 0x01;
const MISSING: u8 = 0x02;
const CORRECTION_SHIFT: u32 = 2;

impl<W: Width> History<W> {
    /// Before the first value.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let bits = plan.params.reference_bits + 5;
        Self {
            past: [W::store(plan.params.reference); 3],
            mean: start_mean(u32::from(bits).min(28 + plan.shift), plan.shift),
            zeros: if plan.params.reference_bits == 0 {
                plan.params.zero_share * 17
            } else {
                0
            },
            exceptions: 0,
            flags: 3 << CORRECTION_SHIFT,
        }
    }

    /// Whether it has learnt a value.
    #[inline]
    pub(crate) const fn is_started(&self) -> bool {
        self.flags & STARTED != 0
    }

    /// Whether the last value was missing.
    #[inline]
    pub(crate) const fn missing(&self) -> bool {
        self.flags & MISSING != 0
    }

    /// Notes whether a value is missing.
    #[inline]
    pub(crate) const fn set_missing(&mut self, missing: bool) {
        self.flags = self.flags & !MISSING | if missing { MISSING } else { 0 };
    }

    /// The last correction that was coded.
    #[inline]
    pub(crate) const fn correction(&self) -> i8 {
        (self.flags >> CORRECTION_SHIFT).cast_signed() - scale::MAX_CORRECTION
    }

    /// Notes a correction of at most three either way.
    #[inline]
    pub(crate) const fn set_correction(&mut self, correction: i8) {
        let above = (correction + scale::MAX_CORRECTION).cast_unsigned();
        self.flags = self.flags & (STARTED | MISSING) | above << CORRECTION_SHIFT;
    }

    /// The prediction of the next quotient.
    #[inline]
    pub(crate) fn predict(&self, plan: &Plan) -> i64 {
        if self.is_started() {
            self.next(plan)
        } else {
            self.past[0].load()
        }
    }

    /// The prediction of the next quotient, after a first one.
    #[inline(always)]
    pub(crate) fn next(&self, plan: &Plan) -> i64 {
        plan.params
            .predictor
            .predict(self.past.map(W::load), plan.params.reference)
    }

    /// Takes in a quotient that is not the first.
    #[cfg(feature = "alloc")]
    #[inline(always)]
    pub(crate) fn follow(&mut self, quotient: i64) {
        self.past = [W::store(quotient), self.past[0], self.past[1]];
    }

    /// The quotient of a residual in zigzag.
    #[inline]
    pub(crate) fn undo(&self, plan: &Plan, code: u64) -> i64 {
        self.predict(plan)
            .wrapping_add(crate::varint::unzigzag(code))
    }

    /// The last three quotients, newest first.
    #[cfg(feature = "alloc")]
    #[inline]
    pub(crate) fn last_three(&self) -> [i64; 3] {
        self.past.map(W::load)
    }

    /// The last quotient, or the reference before the first.
    #[inline]
    pub(crate) fn last(&self) -> i64 {
        self.past[0].load()
    }

    /// Takes in a quotient.
    #[inline]
    pub(crate) fn learn(&mut self, plan: &Plan, quotient: i64) {
        let new = W::store(quotient);
        if self.is_started() {
            self.past = [new, self.past[0], self.past[1]];
        } else {
            let slope = plan.params.slope;
            let before = quotient.wrapping_sub(slope);
            self.past = [new, W::store(before), W::store(before.wrapping_sub(slope))];
            self.flags |= STARTED;
            self.mean = start_mean(u32::from(plan.params.residual_bits), plan.shift);
            self.zeros = plan.params.zero_share * 17;
        }
    }
}

/// A mean in 1/16 of `bits` bits: three quarters of the power of two.
fn start_mean(bits: u32, shift: u32) -> u32 {
    match bits.saturating_sub(shift).min(28) {
        0 => 0,
        bits => (3 << bits) >> 2,
    }
}

/// State of the times of one series.
#[derive(Debug, Clone, Copy, Default)]
pub struct TimeHistory {
    /// The last time, or where the grid has it.
    last: i64,
    step: i64,
    /// As in [`History`].
    pub(crate) mean: u32,
    pub(crate) zeros: u8,
    rows: u8,
}

impl TimeHistory {
    /// The prediction of the next row's time, in ticks from the batch's first. `latest`: time of the row
    /// before it, of any series.
    #[inline]
    pub(crate) const fn predict(&self, latest: i64) -> i64 {
        if self.rows == 0 {
            latest
        } else {
            self.last.wrapping_add(self.step)
        }
    }

    /// Takes in a time.
    #[inline]
    pub(crate) fn learn(&mut self, params: &TimeParams, ticks: i64) {
        if self.rows == 0 {
            self.step = i64::from(params.step);
            self.rows = 1;
            self.mean = start_mean(u32::from(params.residual_bits), 0);
            self.zeros = if params.residual_bits == 0 { 255 } else { 0 };
            self.last = ticks;
            return;
        }
        match params.pace {
            Pace::Follow => self.step = ticks.wrapping_sub(self.last),
            Pace::Step => {}
            Pace::Grid => {
                let predicted = self.last.wrapping_add(self.step);
                let late = ticks.wrapping_sub(predicted);
                if late.unsigned_abs() < self.step.unsigned_abs() {
                    self.last = predicted.wrapping_add(late >> GRID_RATE);
                    return;
                }
            }
        }
        self.last = ticks;
    }
}

/// A grid moves by 1/2^this of each delay.
const GRID_RATE: u32 = 2;
