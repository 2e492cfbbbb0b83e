//! Floats as integers and back, bit for bit: the codec's only floating-point arithmetic.
//!
//! A decimal is a mantissa over a power of ten. Powers up to 10^22 are exact: one multiplication and
//! one correctly rounded division decide whether a mantissa stands for a value, and the same division
//! restores the value on every IEEE 754 machine. A value a few units in the last place off (a product of
//! a decimal and a unit factor, a sum of decimals) carries that distance as a correction.

/// Largest correction in units in the last place, either way: two bits and a sign in every back end.
pub const MAX_CORRECTION: i8 = 3;

const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];
/// Adding it to a number below 2^51 leaves the nearest integer in the low bits of the sum.
const ROUNDER: f64 = 6_755_399_441_055_744.0;
const LARGEST: f64 = 2_251_799_813_685_248.0;

/// The power of ten of an exponent, which is at most 22.
#[must_use]
pub fn power(exponent: u8) -> f64 {
    POWERS[usize::from(exponent).min(POWERS.len() - 1)]
}

/// Mantissa and correction of a double, if it has both.
#[must_use]
#[inline]
pub fn split_f64(bits: u64, power: f64) -> Option<(i64, i8)> {
    let (mantissa, off, exact) = near_f64(bits, power);
    exact.then_some((mantissa, off))
}

/// The nearest mantissa of a double, the double's distance from its value in units in the last place, and
/// whether the two restore the double. Without a branch: many in a row take little time.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "at most three either way, or void"
)]
pub(crate) fn near_f64(bits: u64, power: f64) -> (i64, i8, bool) {
    let (mantissa, whole, within) = near(f64::from_bits(bits) * power);
    let stands_for = whole / power;
    let off = bits.wrapping_sub(stands_for.to_bits()).cast_signed();
    (mantissa, off as i8, within & is_small(off))
}

/// The nearest integer of a number, also as a float, and whether the number is small enough to have one.
#[inline(always)]
fn near(scaled: f64) -> (i64, f64, bool) {
    let sum = scaled + ROUNDER;
    let mantissa = sum.to_bits().wrapping_sub(ROUNDER.to_bits());
    // NaN fails the comparison too.
    let within = (scaled > -LARGEST) & (scaled < LARGEST);
    (mantissa.cast_signed(), sum - ROUNDER, within)
}

/// Whether a distance in units in the last place can be a correction.
#[inline(always)]
const fn is_small(off: i64) -> bool {
    let most = MAX_CORRECTION as u64;
    off.cast_unsigned().wrapping_add(most) <= 2 * most
}

/// Undoes [`split_f64`].
#[must_use]
#[inline]
pub fn join_f64(mantissa: i64, correction: i8, power: f64) -> u64 {
    (whole(mantissa) / power)
        .to_bits()
        .wrapping_add_signed(i64::from(correction))
}

/// The double that `mantissa` / `parts` prints as with 15 significant digits.
#[must_use]
pub fn join_printed(mantissa: i64, correction: i8, parts: u16) -> u64 {
    let parts = u64::from(parts.max(1));
    let magnitude = mantissa.unsigned_abs();
    // Up to 15 digits before the point; as many more behind it as make 15 in all.
    let most = parts.saturating_mul(100_000_000_000_000);
    let mut exponent = 0;
    if magnitude != 0 && magnitude < most {
        exponent = ((most - 1) / magnitude).ilog10() + 1;
    }
    let power = 10u64.pow(exponent);
    let scaled = magnitude.wrapping_mul(power);
    let digits = scaled.wrapping_add(parts / 2) / parts;
    let value = whole((digits & 0x3f_ffff_ffff_ffff).cast_signed())
        / POWERS[(exponent as usize).min(POWERS.len() - 1)];
    let bits = value.to_bits() | mantissa.cast_unsigned() & (1 << 63);
    bits.wrapping_add_signed(i64::from(correction))
}

/// Mantissa and correction of a double that was printed with 15 digits, if it has both.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "at most three either way")]
pub fn split_printed(bits: u64, parts: u16) -> Option<(i64, i8)> {
    let (mantissa, _, within) = near(f64::from_bits(bits) * f64::from(parts));
    if !within {
        return None;
    }
    let stands_for = join_printed(mantissa, 0, parts);
    let off = bits.wrapping_sub(stands_for).cast_signed();
    is_small(off).then_some((mantissa, off as i8))
}

/// Mantissa and correction of a single, if it has both; `part` is one over `power`, rounded. A product
/// with it lies far closer to the decimal than singles lie to each other, and costs less than a division.
#[must_use]
#[inline]
pub fn split_f32(bits: u32, power: f64, part: f64) -> Option<(i64, i8)> {
    let (mantissa, off, exact) = near_f32(bits, power, part);
    exact.then_some((mantissa, off))
}

/// As [`near_f64`], of a single.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "at most three either way, or void"
)]
pub(crate) fn near_f32(bits: u32, power: f64, part: f64) -> (i64, i8, bool) {
    let (mantissa, whole, within) = near(f64::from(f32::from_bits(bits)) * power);
    let stands_for = single(whole * part);
    let off = i64::from(bits.wrapping_sub(stands_for.to_bits()).cast_signed());
    (mantissa, off as i8, within & is_small(off))
}

/// Undoes [`split_f32`].
#[must_use]
#[inline]
pub fn join_f32(mantissa: i64, correction: i8, part: f64) -> u32 {
    single(whole(mantissa) * part)
        .to_bits()
        .wrapping_add_signed(i32::from(correction))
}

/// The bits of a double as an integer ordered as the numbers are.
#[must_use]
#[inline]
pub const fn order_f64(bits: u64) -> i64 {
    let signed = bits.cast_signed();
    // Negative numbers fall as their bits rise.
    signed ^ ((signed >> 63).cast_unsigned() >> 1).cast_signed()
}

/// Undoes [`order_f64`].
#[must_use]
#[inline]
pub const fn unorder_f64(ordered: i64) -> u64 {
    order_f64(ordered.cast_unsigned()).cast_unsigned()
}

/// The bits of a single as an integer ordered as the numbers are.
#[must_use]
#[inline]
pub const fn order_f32(bits: u32) -> i64 {
    let signed = bits.cast_signed();
    (signed ^ ((signed >> 31).cast_unsigned() >> 1).cast_signed()) as i64
}

/// Undoes [`order_f32`]; integers that it never returns become some bits.
#[must_use]
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "order_f32 gives 32 bits")]
pub const fn unorder_f32(ordered: i64) -> u32 {
    let signed = ordered as i32;
    (signed ^ ((signed >> 31).cast_unsigned() >> 1).cast_signed()).cast_unsigned()
}

#[inline]
#[expect(
    clippy::cast_precision_loss,
    reason = "mantissas from split are below 2^51"
)]
const fn whole(mantissa: i64) -> f64 {
    mantissa as f64
}

#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding to the nearest single is meant"
)]
const fn single(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact_and_a_unit_factor_costs_a_correction() {
        assert_eq!(split_f64(234.84f64.to_bits(), power(2)), Some((23_484, 0)));
        assert_eq!(split_f64((-0.001f64).to_bits(), power(3)), Some((-1, 0)));
        let knots = 9.0f64 * 1.15078;
        let (mantissa, correction) = split_f64(knots.to_bits(), power(5)).unwrap();
        assert_eq!(mantissa, 1_035_702);
        assert!(correction != 0);
        assert_eq!(join_f64(mantissa, correction, power(5)), knots.to_bits());
    }

    #[test]
    fn what_a_mantissa_cannot_say_is_left_alone() {
        for bits in [
            (-0.0f64).to_bits(),
            f64::NAN.to_bits(),
            f64::INFINITY.to_bits(),
            u64::MAX,
        ] {
            assert_eq!(split_f64(bits, 1.0), None);
        }
        assert_eq!(split_f32((-0.0f32).to_bits(), 1.0, 1.0), None);
        assert_eq!(split_f32(u32::MAX, 10.0, 0.1), None);
    }

    #[test]
    fn ordered_bits_rise_with_the_numbers_and_come_back() {
        let rising = [
            f64::NEG_INFINITY,
            -1.5,
            -0.0,
            0.0,
            1e-300,
            2.0,
            f64::INFINITY,
        ];
        let ordered = rising.map(|v| order_f64(v.to_bits()));
        assert!(ordered.is_sorted());
        for bits in [
            0,
            1 << 63,
            u64::MAX,
            0x7ff8_0000_0000_0001,
            0xfff0_0000_0000_0000,
        ] {
            assert_eq!(unorder_f64(order_f64(bits)), bits);
        }
        for bits in [0, 1 << 31, u32::MAX, 0x7fc0_0001, 0xff80_0000] {
            assert_eq!(unorder_f32(order_f32(bits)), bits);
        }
    }

    #[test]
    fn corrections_reach_three_units_either_way_and_no_further() {
        let third = 12.345f64.to_bits();
        for off in -MAX_CORRECTION..=MAX_CORRECTION {
            let bits = third.wrapping_add_signed(i64::from(off));
            assert_eq!(split_f64(bits, power(3)), Some((12_345, off)));
        }
        for off in [-MAX_CORRECTION - 1, MAX_CORRECTION + 1] {
            let bits = third.wrapping_add_signed(i64::from(off));
            assert_eq!(split_f64(bits, power(3)), None);
        }
    }
}
