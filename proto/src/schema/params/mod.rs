//! Parameters of a column's coding, which the schema holds once for all batches.

#[cfg(feature = "alloc")]
mod bytes;
mod predictor;
mod taps;
mod time;

pub use predictor::Predictor;
pub use taps::{MAX_FIRST_TAPS, MAX_TAPS, Tap, Taps};
pub use time::{Pace, TimeParams};

use super::ColumnKind;

/// Largest decimal exponent of an `f64` column: 10^22 is the largest that a double holds exactly.
pub const MAX_EXPONENT_F64: u8 = 22;
/// Largest decimal exponent of an `f32` column: more digits than a single has.
pub const MAX_EXPONENT_F32: u8 = 9;
/// Most recent values that a column may remember: their rank fits a byte.
pub const MAX_MEMORY: u8 = 255;

/// How a float becomes an integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scale {
    /// mantissa / 10^exponent, correctly rounded, and up to three units in the last place beside it.
    Decimal(u8),
    /// The bit pattern, ordered as the numbers are.
    Bits,
    /// mantissa / parts, correctly rounded: averages of a few samples. 2 to [`MAX_PARTS`].
    Parts(u16),
    /// The same, then rounded to 15 significant digits, as spreadsheets and many logs print it.
    Printed(u16),
    /// The rank of the value among the column's [levels](crate::schema::Column::levels); also of
    /// integers.
    Levels,
}

/// Most parts of a unit: that many times 10^15 fit 64 bits.
pub const MAX_PARTS: u16 = 18_000;

/// How last-bit corrections of a decimal column are coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Corrections {
    /// As exceptions: for columns that hardly ever need one.
    Rare,
    /// With every value: for products and sums that are often one unit off.
    Often,
}

/// Parameters of one column.
///
/// A number is `mantissa = offset + divisor * quotient`; quotients are predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Params {
    /// How a float becomes a mantissa; ignored for other kinds.
    pub scale: Scale,
    /// How corrections are coded.
    pub corrections: Corrections,
    /// Common divisor of the mantissas, at least 1.
    pub divisor: u64,
    /// Step of a converter in 1/65,536: a mantissa is this times the quotient, rounded; the divisor is
    /// then 1. 0 for none.
    pub stride: u32,
    /// Remainder of the mantissas by the divisor, below it; 0 when the divisor is 1.
    pub offset: u64,
    /// How the next quotient is predicted from the last three of its series.
    pub predictor: Predictor,
    /// The usual difference from one quotient to the next, for predictors that go on with it.
    pub slope: i64,
    /// Expected distance of the second quotient's difference from the slope: bits of it, 0 to 63.
    pub slope_bits: u8,
    /// The quotient that a series starts from.
    pub reference: i64,
    /// Expected distance of a series' first quotient from the reference: bits of it, 0 to 63.
    pub reference_bits: u8,
    /// With more than 0, the latest value of another series predicts the first of a series: bits of the
    /// expected distance, plus one. With 0 the reference does.
    pub kin_bits: u8,
    /// Expected size of a residual (in zigzag) at the start of a batch, in 1/16, as bits of it, 0 to 68.
    pub residual_bits: u8,
    /// Expected share of zeros among residuals at the start of a batch, in 1/16, 0 to 15.
    pub zero_share: u8,
    /// Recent values that are coded by rank: 0, or 2 to [`MAX_MEMORY`].
    pub memory: u8,
    /// Taps that the range back end adds to the prediction.
    pub taps: Taps,
    /// Taps that it adds to the reference to predict a series' first value, on earlier columns of the row.
    pub first_taps: Taps<MAX_FIRST_TAPS>,
    /// With such taps: expected distance of the first quotient from that prediction, in bits, 0 to 63.
    pub first_bits: u8,
}

impl Params {
    /// Parameters for a column of unknown values: they suit none badly.
    #[must_use]
    pub const fn default_for(kind: ColumnKind) -> Self {
        Self {
            scale: match kind {
                ColumnKind::F32 => Scale::Decimal(3),
                ColumnKind::F64 => Scale::Decimal(4),
                ColumnKind::Bool | ColumnKind::I64 | ColumnKind::Str => Scale::Decimal(0),
            },
            corrections: Corrections::Rare,
            divisor: 1,
            stride: 0,
            offset: 0,
            predictor: Predictor::Last,
            slope: 0,
            slope_bits: 0,
            reference: 0,
            reference_bits: match kind {
                ColumnKind::Bool | ColumnKind::Str => 0,
                ColumnKind::I64 | ColumnKind::F32 | ColumnKind::F64 => 12,
            },
            kin_bits: 0,
            residual_bits: 6,
            zero_share: 8,
            memory: 0,
            taps: Taps::NONE,
            first_taps: Taps::NONE,
            first_bits: 0,
        }
    }
}

impl Params {
    /// Finds the first parameter outside its range.
    ///
    /// # Errors
    /// The parameter's name.
    pub fn check(&self, kind: ColumnKind) -> Result<(), &'static str> {
        let most = match kind {
            ColumnKind::F32 => MAX_EXPONENT_F32,
            ColumnKind::F64 => MAX_EXPONENT_F64,
            ColumnKind::Bool | ColumnKind::I64 | ColumnKind::Str => 0,
        };
        match self.scale {
            Scale::Decimal(exponent) if exponent > most => return Err("exponent"),
            Scale::Bits | Scale::Parts(_) | Scale::Printed(_) if most == 0 => return Err("scale"),
            Scale::Levels if !Self::is_number(kind) => return Err("scale"),
            Scale::Printed(_) if kind == ColumnKind::F32 => return Err("scale"),
            Scale::Parts(parts) | Scale::Printed(parts) if !(2..=MAX_PARTS).contains(&parts) => {
                return Err("parts");
            }
            Scale::Bits
            | Scale::Decimal(_)
            | Scale::Parts(_)
            | Scale::Printed(_)
            | Scale::Levels => {}
        }
        if self.stride != 0 && (self.stride <= 1 << 16 || self.divisor != 1) {
            return Err("stride");
        }
        if self.taps.as_slice().iter().any(|tap| tap.lag > 3)
            || self.first_taps.as_slice().iter().any(|tap| tap.lag > 0)
            || (self.first_taps.is_empty() && self.first_bits != 0)
        {
            return Err("tap");
        }
        if self.divisor == 0 || self.divisor > i64::MAX.unsigned_abs() {
            return Err("divisor");
        }
        if self.offset >= self.divisor {
            return Err("offset");
        }
        if self.reference_bits > 63
            || self.slope_bits > 63
            || self.kin_bits > 64
            || self.first_bits > 63
            || self.residual_bits > 68
            || self.zero_share > 15
        {
            return Err("start value");
        }
        if !self.predictor.goes_on() && (self.slope != 0 || self.slope_bits != 0) {
            return Err("slope");
        }
        let plain = most == 0 && kind != ColumnKind::I64;
        if plain
            && (self.memory != 0
                || self.predictor.goes_on()
                || self.kin_bits != 0
                || !self.taps.is_empty()
                || !self.first_taps.is_empty()
                || self.stride != 0
                || self.divisor != 1
                || self.reference < 0)
        {
            return Err("parameter of a column that is no number");
        }
        if self.memory == 1 {
            return Err("memory");
        }
        Ok(())
    }

    /// Whether values of this kind have residuals.
    const fn is_number(kind: ColumnKind) -> bool {
        matches!(kind, ColumnKind::I64 | ColumnKind::F32 | ColumnKind::F64)
    }
}

#[cfg(feature = "alloc")]
fn next(bytes: &[u8], at: &mut usize) -> Option<u8> {
    let byte = *bytes.get(*at)?;
    *at += 1;
    Some(byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::scale;

    /// A column of a kind with one parameter changed.
    fn checked(kind: ColumnKind, change: impl Fn(&mut Params)) -> Result<(), &'static str> {
        let mut params = Params::default_for(kind);
        change(&mut params);
        params.check(kind)
    }

    #[test]
    fn scales_up_to_their_bounds_are_valid() {
        for (kind, most) in [
            (ColumnKind::F32, MAX_EXPONENT_F32),
            (ColumnKind::F64, MAX_EXPONENT_F64),
        ] {
            let decimal = |exponent| checked(kind, |p| p.scale = Scale::Decimal(exponent));
            assert_eq!(decimal(most), Ok(()));
            assert_eq!(decimal(most + 1), Err("exponent"));
        }
        for scale in [Scale::Parts, Scale::Printed] {
            let parts = |parts| checked(ColumnKind::F64, |p| p.scale = scale(parts));
            assert_eq!(parts(MAX_PARTS), Ok(()));
            assert_eq!(parts(MAX_PARTS + 1), Err("parts"));
        }
    }

    #[test]
    fn the_most_parts_and_the_most_decimals_restore_their_values() {
        assert!(u64::from(MAX_PARTS).checked_mul(10u64.pow(15)).is_some());
        let exact = 12_345_678_901_234.0 / f64::from(MAX_PARTS);
        let value: f64 = std::format!("{exact:.14e}").parse().unwrap();
        let (mantissa, correction) = scale::split_printed(value.to_bits(), MAX_PARTS).unwrap();
        let restored = scale::join_printed(mantissa, correction, MAX_PARTS);
        assert_eq!(restored, value.to_bits());
        assert_eq!(scale::power(MAX_EXPONENT_F64), 1e22);
    }
}
