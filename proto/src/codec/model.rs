//! The residual model: what a series' next value is foretold to be.

/// How the next quotient is foretold from the last three of its series, newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Predictor {
    /// The reference, always: for noise around a level.
    Constant,
    /// The last one: for values that hold or wander.
    Last,
    /// The last one plus the last difference: for ramps and counters.
    Linear,
    /// The mean of the last two: for noise on a slow signal.
    Mean,
    /// The last one plus half the last difference.
    HalfSlope,
    /// The parabola through the last three: for smooth curves.
    Quadratic,
}

impl Predictor {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Constant,
        Self::Last,
        Self::Linear,
        Self::Mean,
        Self::HalfSlope,
        Self::Quadratic,
    ];

    /// Its number on the wire.
    #[must_use]
    pub const fn to_u8(self) -> u8 {
        match self {
            Self::Constant => 0,
            Self::Last => 1,
            Self::Linear => 2,
            Self::Mean => 3,
            Self::HalfSlope => 4,
            Self::Quadratic => 5,
        }
    }

    /// The predictor of a number, if there is one.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|predictor| predictor.to_u8() == number)
    }

    /// Whether it goes on with the last difference.
    #[must_use]
    #[inline]
    pub const fn goes_on(self) -> bool {
        matches!(self, Self::Linear | Self::HalfSlope | Self::Quadratic)
    }

    /// The next quotient; all arithmetic wraps.
    #[must_use]
    #[inline]
    pub const fn predict(self, past: [i64; 3], reference: i64) -> i64 {
        let [a, b, c] = past;
        match self {
            Self::Constant => reference,
            Self::Last => a,
            Self::Linear => a.wrapping_add(a.wrapping_sub(b)),
            // The mean of two without overflow.
            Self::Mean => (a & b).wrapping_add((a ^ b) >> 1),
            Self::HalfSlope => a.wrapping_add(a.wrapping_sub(b) >> 1),
            Self::Quadratic => a.wrapping_sub(b).wrapping_mul(3).wrapping_add(c),
        }
    }
}

use super::params::{Corrections, Pace, Params, Scale, TimeParams};
use super::scale;
use crate::schema::ColumnKind;

/// A column as the coder sees it: its parameters and what follows from them.
#[derive(Debug, Clone)]
pub struct Plan {
    pub(crate) kind: ColumnKind,
    pub(crate) params: Params,
    pub(crate) nullable: bool,
    /// Whether a value may be something else than a residual with the correction foretold.
    pub(crate) exceptional: bool,
    /// Texts of the schema's dictionary.
    pub(crate) texts: u32,
    /// By how many bits the running mean of residuals is scaled down, so that it fits 32 bits.
    pub(crate) shift: u32,
    pub(super) power: f64,
    /// One over `power`.
    pub(super) part: f64,
    /// Of the divisor: its factors of two, and the inverse modulo 2^64 of what is left. Of a stride: 2^64 over
    /// it, rounded down.
    twos: u32,
    inverse: u64,
    /// What [`Scale::Levels`] ranks: ordered integers of the values, ascending.
    #[cfg(feature = "alloc")]
    pub(super) levels: alloc::vec::Vec<i64>,
}

impl Plan {
    /// The plan of a column of checked parameters; `texts` is the length of its dictionary.
    #[must_use]
    pub fn new(kind: ColumnKind, nullable: bool, params: Params, texts: u32) -> Self {
        let float = matches!(kind, ColumnKind::F32 | ColumnKind::F64);
        let power = match params.scale {
            Scale::Decimal(exponent) => scale::power(exponent),
            Scale::Parts(parts) | Scale::Printed(parts) => f64::from(parts),
            Scale::Bits | Scale::Levels => 1.0,
        };
        let exceptional = nullable
            || float
            || (kind == ColumnKind::I64
                && (params.divisor != 1
                    || params.stride != 0
                    || params.memory != 0
                    || params.scale == Scale::Levels));
        let shift = u32::from(params.residual_bits).saturating_sub(24);
        Self {
            kind,
            params,
            nullable,
            exceptional,
            texts,
            shift,
            power,
            part: 1.0 / power,
            twos: params.divisor.trailing_zeros().min(63),
            inverse: if params.stride == 0 {
                inverse(params.divisor >> params.divisor.trailing_zeros().min(63))
            } else {
                u64::MAX / u64::from(params.stride)
            },
            #[cfg(feature = "alloc")]
            levels: alloc::vec::Vec::new(),
        }
    }

    /// The same with these levels, ascending, for [`Scale::Levels`].
    #[cfg(feature = "alloc")]
    #[must_use]
    pub fn with_levels(mut self, levels: &[i64]) -> Self {
        self.levels = levels.into();
        self
    }

    /// Whether the column holds numbers, which have residuals.
    #[inline]
    pub(crate) const fn is_number(&self) -> bool {
        matches!(
            self.kind,
            ColumnKind::I64 | ColumnKind::F32 | ColumnKind::F64
        )
    }

    /// Whether every value says its correction.
    #[inline]
    pub(crate) fn says_corrections(&self) -> bool {
        self.params.corrections == Corrections::Often
            && matches!(self.kind, ColumnKind::F32 | ColumnKind::F64)
            && !matches!(self.params.scale, Scale::Bits | Scale::Levels)
    }

    /// Whether values may carry corrections.
    #[cfg(feature = "alloc")]
    #[inline]
    pub(crate) fn corrects(&self) -> bool {
        matches!(self.kind, ColumnKind::F32 | ColumnKind::F64)
            && !matches!(self.params.scale, Scale::Bits | Scale::Levels)
    }

    /// Whether some number of the column has neither quotient nor place in the coding of residuals.
    #[cfg(feature = "alloc")]
    #[inline]
    pub(crate) const fn excepts(&self) -> bool {
        match self.kind {
            ColumnKind::I64 => {
                self.params.divisor != 1
                    || self.params.stride != 0
                    || matches!(self.params.scale, Scale::Levels)
            }
            ColumnKind::F32 | ColumnKind::F64 => true,
            ColumnKind::Bool | ColumnKind::Str => false,
        }
    }

    /// Width of a value's bits.
    #[inline]
    pub(crate) const fn width(&self) -> u32 {
        match self.kind {
            ColumnKind::F32 => 32,
            ColumnKind::F64 | ColumnKind::I64 => 64,
            ColumnKind::Bool | ColumnKind::Str => 8,
        }
    }

    /// Quotient and correction of a value's bits, if it has both.
    #[inline]
    pub(crate) fn split(&self, bits: u64) -> Option<(i64, i8)> {
        let low = (bits & 0xffff_ffff) as u32;
        let (mantissa, correction) = match (self.kind, self.params.scale) {
            (_, Scale::Levels) => (self.rank(bits)?, 0),
            (ColumnKind::F32, Scale::Bits) => (scale::order_f32(low), 0),
            (ColumnKind::F32, _) => scale::split_f32(low, self.power, self.part)?,
            (ColumnKind::F64, Scale::Bits) => (scale::order_f64(bits), 0),
            (ColumnKind::F64, Scale::Printed(parts)) => scale::split_printed(bits, parts)?,
            (ColumnKind::F64, _) => scale::split_f64(bits, self.power)?,
            (ColumnKind::I64 | ColumnKind::Bool | ColumnKind::Str, _) => (bits.cast_signed(), 0),
        };
        Some((self.quotient(mantissa)?, correction))
    }

    /// Whether every mantissa is its own quotient.
    #[cfg(feature = "alloc")]
    pub(super) const fn has_unit_steps(&self) -> bool {
        self.params.stride == 0 && self.params.divisor == 1
    }

    /// The quotient of a mantissa, if it has one.
    #[inline(always)]
    pub(crate) const fn quotient(&self, mantissa: i64) -> Option<i64> {
        if self.params.stride != 0 {
            return self.step_of(mantissa);
        }
        let divisor = self.params.divisor.cast_signed();
        if divisor == 1 {
            return Some(mantissa);
        }
        let Some(above) = mantissa.checked_sub(self.params.offset.cast_signed()) else {
            return None;
        };
        // Of a multiple of the divisor this is the quotient: its odd part has an inverse.
        let quotient = (above >> self.twos).wrapping_mul(self.inverse.cast_signed());
        match quotient.checked_mul(divisor) {
            Some(product) if product == above => Some(quotient),
            _ => None,
        }
    }

    /// The number of a converter's step, if the mantissa is one.
    #[inline(always)]
    const fn step_of(&self, mantissa: i64) -> Option<i64> {
        let magnitude = mantissa.unsigned_abs();
        if magnitude >> 40 != 0 {
            return None;
        }
        let stride = self.params.stride as u64;
        let steps = (magnitude << 16) + stride / 2;
        // At most one too low: the product's upper half of 57 bits and a reciprocal of 64.
        let low = ((steps as u128 * self.inverse as u128) >> 64) as u64;
        let step = low + (steps - low * stride >= stride) as u64;
        let step = if mantissa < 0 {
            -step.cast_signed()
        } else {
            step.cast_signed()
        };
        if self.at_step(step) == mantissa {
            Some(step)
        } else {
            None
        }
    }

    /// The mantissa of a converter's step.
    #[inline]
    const fn at_step(&self, step: i64) -> i64 {
        let stride = self.params.stride as u64;
        let magnitude = step
            .unsigned_abs()
            .wrapping_mul(stride)
            .wrapping_add(1 << 15)
            >> 16;
        if step < 0 {
            -magnitude.cast_signed()
        } else {
            magnitude.cast_signed()
        }
    }

    /// Undoes [`Plan::split`].
    #[cfg(feature = "alloc")]
    #[inline]
    pub(crate) fn join(&self, quotient: i64, correction: i8) -> u64 {
        let mantissa = if self.params.stride == 0 {
            quotient
                .wrapping_mul(self.params.divisor.cast_signed())
                .wrapping_add(self.params.offset.cast_signed())
        } else {
            self.at_step(quotient)
        };
        self.float(mantissa, correction)
    }

    /// The bits of the value that a mantissa and a correction stand for.
    #[inline]
    pub(crate) fn float(&self, mantissa: i64, correction: i8) -> u64 {
        match (self.kind, self.params.scale) {
            (_, Scale::Levels) => self.at_rank(mantissa),
            (ColumnKind::F32, Scale::Bits) => u64::from(scale::unorder_f32(mantissa)),
            (ColumnKind::F32, _) => u64::from(scale::join_f32(mantissa, correction, self.part)),
            (ColumnKind::F64, Scale::Bits) => scale::unorder_f64(mantissa),
            (ColumnKind::F64, Scale::Printed(parts)) => {
                scale::join_printed(mantissa, correction, parts)
            }
            (ColumnKind::F64, _) => scale::join_f64(mantissa, correction, self.power),
            (ColumnKind::I64 | ColumnKind::Bool | ColumnKind::Str, _) => mantissa.cast_unsigned(),
        }
    }
}

/// The inverse of an odd number modulo 2^64, by Newton's method: right bits double, from three.
const fn inverse(odd: u64) -> u64 {
    let mut inverse = odd;
    let mut step = 0;
    while step < 5 {
        inverse = inverse.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(inverse)));
        step += 1;
    }
    inverse
}

/// The integer that a history stores: 32 bits are enough for most sensors, and half the memory.
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

/// What is remembered of one column within one series.
#[derive(Debug, Clone, Copy)]
pub struct History<W> {
    past: [W; 3],
    /// Running mean of the residuals (zigzag) in 1/16, scaled down by the plan's shift.
    pub(crate) mean: u32,
    /// Running share of values that were just as foretold, of 255.
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

    /// Whether a value has been learnt.
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

    /// The last correction that was said.
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

    /// The next quotient, as foretold.
    #[inline]
    pub(crate) fn predict(&self, plan: &Plan) -> i64 {
        if self.is_started() {
            self.next(plan)
        } else {
            self.past[0].load()
        }
    }

    /// The next quotient of a series that has had one.
    #[inline(always)]
    pub(crate) fn next(&self, plan: &Plan) -> i64 {
        plan.params
            .predictor
            .predict(self.past.map(W::load), plan.params.reference)
    }

    /// Takes in one more quotient of a series that has had one.
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

    /// Takes in the quotient that came.
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

/// A mean in 1/16 of which `bits` bits are needed: three quarters of the power of two.
fn start_mean(bits: u32, shift: u32) -> u32 {
    match bits.saturating_sub(shift).min(28) {
        0 => 0,
        bits => (3 << bits) >> 2,
    }
}

/// What is remembered of the times of one series.
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
    /// The ticks from the batch's first time at which the next row is foretold; `latest` is the
    /// row before it, of whatever series.
    #[inline]
    pub(crate) const fn predict(&self, latest: i64) -> i64 {
        if self.rows == 0 {
            latest
        } else {
            self.last.wrapping_add(self.step)
        }
    }

    /// Takes in the time that came.
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
                let foretold = self.last.wrapping_add(self.step);
                let late = ticks.wrapping_sub(foretold);
                if late.unsigned_abs() < self.step.unsigned_abs() {
                    self.last = foretold.wrapping_add(late >> GRID_RATE);
                    return;
                }
            }
        }
        self.last = ticks;
    }
}

/// A grid follows the times by 1/2^this of what they are late.
const GRID_RATE: u32 = 2;

/// What one cell of a row is, to the coder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Class {
    /// A residual, in zigzag; for text its number.
    #[default]
    Number,
    /// No value.
    Missing,
    /// The value's own bits; for text its length.
    Raw,
    /// A recent value, by rank.
    Recent,
}

/// One cell of a row between the model and a back end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Symbol {
    /// What `code` is.
    pub class: Class,
    /// Units in the last place beside the decimal.
    pub correction: i8,
    /// Residual, bits, length or rank.
    pub code: u64,
}
