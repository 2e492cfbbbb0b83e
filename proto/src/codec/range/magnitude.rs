//! Residuals as adaptive bits and symbols.
//!
//! | part | coded as |
//! |---|---|
//! | zero | one bit while small residuals are expected; later it is one more class |
//! | class: bits of the magnitude | a symbol of sixteen around the expected class |
//! | sign | one bit, or a raw bit where signs are even |
//! | bits below the leading one | raw |
//!
//! The expected class follows from a running mean of magnitudes. Columns of any scale therefore share one
//! set of models, and a small batch has little to learn.

use super::coder::Coder;
use super::models::{Model, Symbols, VALUES};
use super::tables::{DOWN, LEVELS, OVER, STEPS, UP, ZERO};
use crate::codec::bits::bit_len;

/// From this level on zero is one more magnitude class, not a bit of its own.
const WIDE: u32 = 16;
/// Most bits of a starting mean in 1/16; [`Trace::beyond`] holds the rest. Sums of means then stay far
/// below 64 bits.
const MAX_BITS: u32 = 44;
/// The symbol of the expected class. Symbol 0 stands for all classes from its own downwards, between which
/// bits then decide one by one: after an outlier many values lie far below the expected class.
const MIDDLE: u32 = 4;
/// The symbol of all higher classes; their number follows in [`CLASS_BITS`].
const LAST: u32 = VALUES - 1;
const CLASS_BITS: u32 = 7;
/// Greatest distance from a half, of 65,536, of models of signs that count as even.
const EVEN: u16 = 4_000;

/// Models that all columns of a batch share.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    zero: [[Model; 3]; LEVELS],
    class: [Symbols; LEVELS],
    /// Whether the class lies below the highest, the second... of those that symbol 0 stands for.
    lower: [Model; STEPS],
}

/// Models of one column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Own {
    pub(super) zero: [Model; 3],
    /// Whether a residual far below the expected class is zero.
    sudden: [Model; 2],
    class: [Symbols; 2],
    sign: [Model; 3],
}

/// The residuals of one series of one column so far, as the coding of the next one needs them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Trace {
    /// Running means of magnitudes in 1/16.
    quick: u64,
    slow: u64,
    /// Running means of the errors of the plain prediction and of that with taps.
    plain: u64,
    tapped: u64,
    /// For each of the last eight values, whether it was not as predicted: the newest in bit 0.
    moved: u8,
    sign: u8,
    /// Bits of the expected size above [`MAX_BITS`]. Such residuals are bit patterns of noise, whose size
    /// does not predict the next one: the means then stay as they are.
    beyond: u8,
    /// Quotients so far, up to 4.
    pub(super) seen: u8,
}

impl Trace {
    /// Expects residuals of so many bits in 1/16; with `quiet`, as after eight zeros.
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

    /// Notes whether a value that has no residual was as predicted.
    #[inline]
    pub(super) const fn note(&mut self, moved: bool) {
        self.moved = self.moved << 1 | moved as u8;
    }

    /// Whether the taps were closer in recent rows.
    #[inline]
    pub(super) const fn trusts_taps(&self) -> bool {
        self.tapped <= self.plain.wrapping_add(self.plain >> 3)
    }

    /// Notes the errors of both predictions.
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

/// A mean in 1/16 of `bits` bits: three quarters of the power of two.
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

/// Half octaves of a mean, which is below 2^62.
#[inline(always)]
const fn level(mean16: u64) -> u32 {
    let halves = 62 - (mean16 | 2).leading_zeros();
    2 * halves + ((mean16 >> halves) & 3) as u32
}

impl Own {
    /// Whether signs count as even.
    pub(super) fn signs_are_even(&self) -> bool {
        self.sign[1..]
            .iter()
            .all(|model| model.probability().abs_diff(1 << 15) < EVEN)
    }

    /// For residuals that are expected to have so many bits in 1/16.
    pub(super) const fn new(zero: Model, bits: u32) -> Self {
        let even = place(level(mean16(bits))) & !1;
        Self {
            zero: [zero; 3],
            sudden: [Model::new(1 << 15, 2); 2],
            class: [
                CLASS_STARTS[even].as_after(6),
                CLASS_STARTS[even + 1].as_after(6),
            ],
            sign: [Model::new(1 << 15, 8); 3],
        }
    }
}

/// Probability of each class at a level at the start of a batch, in parts of 2^26.
#[expect(
    clippy::cast_possible_truncation,
    reason = "parts of 2^26, and a handful of levels and classes"
)]
const fn shares(level: usize) -> [u32; VALUES as usize] {
    let expected = expected(level as u32);
    let least = if (level as u32) < WIDE { 1 } else { 0 };
    let mut shares = [0; VALUES as usize];
    let over = OVER[level] as u64;
    let (mut left, mut step, mut class) = (over << 10, 0, MIDDLE as usize + 1);
    while class < VALUES as usize {
        let here = (left * UP[level][step] as u64) >> 16;
        let last = class + 1 == VALUES as usize;
        shares[class] = (if last { left } else { here }) as u32;
        left -= here;
        step = if step + 1 < STEPS { step + 1 } else { step };
        class += 1;
    }
    left = (0x10000 - over) << 10;
    step = 0;
    class = MIDDLE as usize;
    while left > 0 {
        let here = (left * DOWN[level][step] as u64) >> 16;
        let last = class == 0 || class as u32 + expected == MIDDLE + least;
        shares[class] = (if last { left } else { here }) as u32;
        if last {
            break;
        }
        left -= here;
        step = if step + 1 < STEPS { step + 1 } else { step };
        class -= 1;
    }
    shares
}

/// Per level: where the models of classes start from.
static CLASS_STARTS: [Symbols; LEVELS] = class_starts();

const fn class_starts() -> [Symbols; LEVELS] {
    let mut starts = [Symbols::new([1; VALUES as usize], 5); LEVELS];
    let mut level = 0;
    while level < LEVELS {
        starts[level] = Symbols::new(shares(level), 5);
        level += 1;
    }
    starts
}

/// Models and classes of a level.
#[derive(Debug, Clone, Copy)]
struct Level {
    /// Its models: beyond the table only the half of the octave counts.
    at: u8,
    /// The class that the first symbol stands for.
    first: i8,
}

/// Of all levels. They are far below 256: a mean has at most 62 bits.
#[expect(
    clippy::cast_possible_truncation,
    reason = "28 places, and classes up to 126"
)]
static LEVEL: [Level; 256] = {
    let mut table = [Level { at: 0, first: 0 }; 256];
    let mut level = 0;
    while level < 256 {
        table[level as usize] = Level {
            at: place(level) as u8,
            first: (expected(level).cast_signed() - MIDDLE.cast_signed()) as i8,
        };
        level += 1;
    }
    table
};

const fn place(level: u32) -> usize {
    if (level as usize) < LEVELS {
        level as usize
    } else {
        LEVELS - 2 + (level & 1) as usize
    }
}

impl Shared {
    /// The start of every batch.
    pub(super) const START: Self = Self::start();

    const fn start() -> Self {
        // Zeros are filled in per level.
        let mut shared = Self {
            zero: [[Model::new(1 << 15, 2); 3]; LEVELS],
            class: CLASS_STARTS,
            lower: [Model::new(1 << 15, 2); STEPS],
        };
        let mut level = 0;
        while level < LEVELS {
            shared.zero[level] = [Model::new(ZERO[level], 6); 3];
            level += 1;
        }
        shared
    }
}

/// The class expected at a level.
#[inline(always)]
const fn expected(level: u32) -> u32 {
    let class = (level.wrapping_add(2) / 2).saturating_sub(4);
    if class == 0 { 1 } else { class }
}

/// Facts that are known before a residual is coded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before {
    /// Whether the column before moved in this row.
    pub(super) beside: bool,
    /// Whether the models learn from it.
    pub(super) learn: bool,
    /// Whether its sign counts as even.
    pub(super) even: bool,
}

impl Before {
    /// Nothing is known.
    pub(super) const PLAIN: Self = Self {
        beside: false,
        learn: true,
        even: false,
    };
}

/// Codes a residual.
#[inline(always)]
pub(super) fn residual<C: Coder>(
    coder: &mut C,
    shared: &mut Shared,
    own: &mut Own,
    trace: &mut Trace,
    before: Before,
    residual: i64,
) -> i64 {
    let Before { beside, learn, .. } = before;
    let magnitude = residual.unsigned_abs();
    let mean = trace.quick.wrapping_add(trace.slow) >> 1;
    let level = level(mean).wrapping_add(2 * u32::from(trace.beyond));
    let Level { at, first } = LEVEL[(level & 255) as usize];
    let at = usize::from(at) % LEVELS;
    let wide = level >= WIDE;
    let lately = usize::from(trace.moved & 1);
    if !wide {
        let recently = usize::from(trace.moved & 3 != 0);
        let zero = coder.mixed(
            &mut own.zero[lately + recently],
            &mut shared.zero[at][lately + usize::from(beside)],
            residual == 0,
            learn,
        );
        trace.note(!zero);
        if zero {
            trace.learn(0);
            return 0;
        }
    }
    let class = bit_len(magnitude);
    let first = i32::from(first);
    let symbol = class.cast_signed().wrapping_sub(first);
    let symbol = symbol.clamp(0, LAST.cast_signed()).cast_unsigned();
    let models = (&mut own.class[(level & 1) as usize], &mut shared.class[at]);
    let symbol = coder.symbol(models, symbol, learn);
    // A damaged batch may hold a class of too many bits, or of none after a bit that excludes zero.
    let found = first.wrapping_add_unsigned(symbol);
    let mut found = found.clamp(0, 64).cast_unsigned();
    if symbol == 0 {
        if wide && coder.bit_if(&mut own.sudden[lately], class == 0, learn) {
            trace.note(false);
            trace.learn(0);
            return 0;
        }
        let mut step = 0;
        while found > 1 && coder.bit(&mut shared.lower[step], class < found) {
            found -= 1;
            step = (step + 1).min(STEPS - 1);
        }
    } else if symbol == LAST {
        found = coder.even(class, CLASS_BITS).min(64);
    }
    if wide {
        trace.note(true);
    }
    let sign = &mut own.sign[usize::from(trace.sign)];
    let (magnitude, negative) = sign_and_low_bits(coder, sign, before, residual, found);
    trace.sign = 1 + u8::from(negative);
    trace.learn(magnitude);
    let signed = magnitude.cast_signed();
    if negative {
        signed.wrapping_neg()
    } else {
        signed
    }
}

/// Codes the sign, and the bits below the leading one of a magnitude of class `class`; returns magnitude
/// and sign.
#[inline(always)]
fn sign_and_low_bits<C: Coder>(
    coder: &mut C,
    sign: &mut Model,
    before: Before,
    residual: i64,
    class: u32,
) -> (u64, bool) {
    let Before { learn, even, .. } = before;
    let mut negative = residual < 0;
    if !even {
        negative = coder.bit_if(sign, negative, learn);
    }
    let left = class.saturating_sub(1);
    let mut magnitude = 1u64;
    let raw = left + u32::from(even);
    if raw > 0 {
        let low = residual.unsigned_abs() & ((1 << left) - 1);
        let value = coder.raw(low | u64::from(even & negative) << left, raw);
        magnitude = 1 << left | value & ((1 << left) - 1);
        negative = if even {
            value >> left & 1 == 1
        } else {
            negative
        };
    }
    (magnitude, negative)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expected_sizes_beyond_the_most_of_a_mean_do_not_follow_the_residuals() {
        let mut most = Trace::new(MAX_BITS, false);
        let mut more = Trace::new(MAX_BITS + 24, false);
        assert_eq!((most.beyond, more.beyond), (0, 24));
        assert_eq!(most.quick, more.quick);
        let before = most.quick;
        for trace in [&mut most, &mut more] {
            trace.learn(0);
        }
        assert!(most.quick < before);
        assert_eq!(more.quick, before);
    }
}
