//! Residuals as adaptive bits: zero, magnitude class around the one expected, sign, bits below.
//!
//! The expected class follows from a running mean of magnitudes, so that columns of any scale share
//! one set of models, and a small batch has little to learn.

use super::range::{Coder, Model};
use super::range_tables::{BELOW, DOWN, OVER, UP, ZERO};
use super::rice::bit_len;

/// Levels of the running mean that have models of their own: half octaves of 1/16.
pub(super) const LEVELS: usize = 28;
/// From this level on zero is one more magnitude class, not a bit of its own.
const WIDE: u32 = 16;
/// Most bits of a mean in 1/16.
const MAX_BITS: u32 = 44;
/// Classes above and below the one expected that have models of their own.
pub(super) const STEPS: usize = 6;

/// Models that all columns of a batch share.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    zero: [[Model; 3]; LEVELS],
    over: [Model; LEVELS],
    up: [[Model; STEPS]; LEVELS],
    down: [[Model; STEPS]; LEVELS],
    below: [[Model; 3]; 9],
}

/// Models of one column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Own {
    pub(super) zero: [Model; 3],
    over: [Model; 2],
    first_up: [Model; 2],
    first_down: [Model; 2],
    sign: [Model; 3],
}

/// What one series of one column remembers for the coding of residuals.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Trace {
    /// Running means of magnitudes in 1/16.
    quick: u64,
    slow: u64,
    /// Running means of what the plain prediction and the taps were off by.
    plain: u64,
    tapped: u64,
    /// Whether the last eight values were not as foretold: the newest in bit 0.
    moved: u8,
    sign: u8,
    /// How many bits more than the means' the expected size has. Such residuals are bit patterns of
    /// noise, whose size says nothing of the next: the means then stay as they are.
    beyond: u8,
    /// Quotients so far, up to 4.
    pub(super) seen: u8,
}

impl Trace {
    /// Expects residuals of so many bits in 1/16, and eight that were zero before if it is `quiet`.
    pub(super) const fn new(bits: u32, quiet: bool) -> Self {
        let beyond = bits.saturating_sub(MAX_BITS);
        let mean = mean16(bits - beyond);
        Self {
            quick: mean,
            slow: mean,
            plain: mean,
            tapped: mean,
            moved: if quiet { 0 } else { u8::MAX },
            sign: 0,
            beyond: (beyond & 63) as u8,
            seen: 0,
        }
    }

    /// Whether the last eight values were as foretold.
    #[inline]
    pub(super) const fn is_quiet(&self) -> bool {
        self.moved == 0
    }

    /// Notes whether a value that has no residual was as foretold.
    #[inline]
    pub(super) const fn note(&mut self, moved: bool) {
        self.moved = self.moved << 1 | moved as u8;
    }

    /// Takes in a residual of zero that was not coded.
    #[inline]
    pub(super) fn rest(&mut self) {
        self.note(false);
        self.learn(0);
    }

    /// Whether the taps have been closer of late.
    #[inline]
    pub(super) const fn trusts_taps(&self) -> bool {
        self.tapped <= self.plain + (self.plain >> 3)
    }

    /// Notes how far off both predictions were.
    #[inline]
    pub(super) fn judge(&mut self, plain: u64, tapped: u64) {
        settle(&mut self.plain, plain.min(1 << 58) << 4, 4);
        settle(&mut self.tapped, tapped.min(1 << 58) << 4, 4);
    }

    #[inline]
    fn learn(&mut self, magnitude: u64) {
        if self.beyond == 0 {
            let aim = magnitude.min(1 << 58) << 4;
            settle(&mut self.quick, aim, 3);
            settle(&mut self.slow, aim, 5);
        }
    }
}

/// A mean in 1/16 of which so many bits are needed: three quarters of the power of two.
const fn mean16(bits: u32) -> u64 {
    if bits == 0 {
        0
    } else {
        (3 << if bits > MAX_BITS { MAX_BITS } else { bits }) >> 2
    }
}

/// Moves a mean towards `aim` by 1/2^rate, upwards by at least one. Both stay below 2^62.
#[inline]
const fn settle(mean: &mut u64, aim: u64, rate: u32) {
    let way = aim.wrapping_sub(*mean).cast_signed();
    let step = way.wrapping_add((1 << rate) - 1) >> rate;
    *mean = mean.wrapping_add_signed(step);
}

/// Half octaves of a mean.
#[inline]
const fn level(mean16: u64) -> u32 {
    let bits = bit_len(mean16);
    if bits < 2 {
        bits
    } else {
        2 * bits - 2 + ((mean16 >> (bits - 2)) & 1) as u32
    }
}

impl Own {
    /// For residuals that are expected to have so many bits in 1/16.
    pub(super) const fn new(zero: Model, bits: u32) -> Self {
        let even = place(level(mean16(bits))) & !1;
        Self {
            zero: [zero; 3],
            over: [start(OVER[even]), start(OVER[even + 1])],
            first_up: [start(UP[even][0]), start(UP[even + 1][0])],
            first_down: [start(DOWN[even][0]), start(DOWN[even + 1][0])],
            sign: [Model::new(1 << 15, 8); 3],
        }
    }
}

/// A model of a column: soon its own.
const fn start(p: u16) -> Model {
    Model::new(p, 3)
}

/// The models of a level: beyond the table only the half of the octave counts.
#[inline]
const fn place(level: u32) -> usize {
    if (level as usize) < LEVELS {
        level as usize
    } else {
        LEVELS - 2 + (level & 1) as usize
    }
}

impl Shared {
    /// What every batch starts from.
    pub(super) const START: Self = Self::start();

    const fn start() -> Self {
        let even = Model::new(1 << 15, 2);
        let mut shared = Self {
            zero: [[even; 3]; LEVELS],
            over: [even; LEVELS],
            up: [[even; STEPS]; LEVELS],
            down: [[even; STEPS]; LEVELS],
            below: [[even; 3]; 9],
        };
        let mut level = 0;
        while level < LEVELS {
            shared.zero[level] = [Model::new(ZERO[level], 6); 3];
            shared.over[level] = Model::new(OVER[level], 3);
            let mut step = 0;
            while step < STEPS {
                shared.up[level][step] = Model::new(UP[level][step], 2);
                shared.down[level][step] = Model::new(DOWN[level][step], 2);
                step += 1;
            }
            level += 1;
        }
        let mut class = 0;
        while class < BELOW.len() {
            let mut bit = 0;
            while bit < 3 {
                shared.below[class][bit] = Model::new(BELOW[class][bit], 24);
                bit += 1;
            }
            class += 1;
        }
        shared
    }
}

/// The class expected at a level.
#[inline]
const fn expected(level: u32) -> u32 {
    let bits = (level + 2) / 2;
    let class = bits.saturating_sub(4);
    if class == 0 { 1 } else { class }
}

/// Codes a residual; `beside` says whether the column before moved in this row: 0 no, 1 yes.
#[inline(always)]
pub(super) fn residual<C: Coder>(
    coder: &mut C,
    shared: &mut Shared,
    own: &mut Own,
    trace: &mut Trace,
    beside: usize,
    residual: i64,
) -> i64 {
    let magnitude = residual.unsigned_abs();
    let level = level((trace.quick + trace.slow) >> 1) + 2 * u32::from(trace.beyond);
    let at = place(level);
    let wide = level >= WIDE;
    if !wide {
        let lately = usize::from(trace.moved & 1);
        let before = usize::from(trace.moved & 3 != 0);
        let zero = coder.mixed(
            &mut own.zero[lately + before],
            &mut shared.zero[at][lately + beside],
            residual == 0,
        );
        trace.note(!zero);
        if zero {
            trace.learn(0);
            return 0;
        }
    }
    let class = bit_len(magnitude);
    let least = u32::from(!wide);
    let expected = expected(level);
    let mut found;
    let half = (level & 1) as usize;
    if coder.mixed(&mut own.over[half], &mut shared.over[at], class > expected) {
        found = expected + 1;
        let mut step = 0;
        while found < 64
            && !(if step == 0 {
                coder.mixed(
                    &mut own.first_up[half],
                    &mut shared.up[at][step],
                    class == found,
                )
            } else {
                coder.bit(&mut shared.up[at][step], class == found)
            })
        {
            found += 1;
            step = (step + 1).min(STEPS - 1);
        }
    } else {
        found = expected;
        let mut step = 0;
        while found > least
            && !(if step == 0 {
                coder.mixed(
                    &mut own.first_down[half],
                    &mut shared.down[at][step],
                    class == found,
                )
            } else {
                coder.bit(&mut shared.down[at][step], class == found)
            })
        {
            found -= 1;
            step = (step + 1).min(STEPS - 1);
        }
    }
    if wide {
        trace.note(found != 0);
        if found == 0 {
            trace.learn(0);
            return 0;
        }
    }
    let negative = coder.bit(&mut own.sign[usize::from(trace.sign)], residual < 0);
    trace.sign = 1 + u8::from(negative);
    let mut result = 1u64;
    let mut left = found - 1;
    let near = (found + 4).saturating_sub(expected).min(8) as usize;
    if left > 0 {
        left -= 1;
        let low = coder.bit(&mut shared.below[near][0], (magnitude >> left) & 1 == 0);
        result = result << 1 | u64::from(!low);
        if left > 0 {
            left -= 1;
            let model = &mut shared.below[near][1 + usize::from(!low)];
            let low = coder.bit(model, (magnitude >> left) & 1 == 0);
            result = result << 1 | u64::from(!low);
        }
    }
    if left > 0 {
        result = result << left | coder.raw(magnitude & ((1 << left) - 1), left);
    }
    trace.learn(result);
    let signed = result.cast_signed();
    if negative {
        signed.wrapping_neg()
    } else {
        signed
    }
}
