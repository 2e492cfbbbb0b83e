//! Plans: how the values of a column become quotients, and back.

use super::scale;
use crate::schema::ColumnKind;
use crate::schema::params::{Corrections, Params, Scale};

/// A column as the coder sees it: its parameters and the constants that follow from them.
#[derive(Debug, Clone)]
pub struct Plan {
    pub(crate) kind: ColumnKind,
    pub(crate) params: Params,
    pub(crate) nullable: bool,
    /// Whether a value may be other than a residual with the predicted correction.
    pub(crate) exceptional: bool,
    /// Texts of the schema's dictionary.
    pub(crate) texts: u32,
    /// Bits by which the running mean of residuals is scaled down to fit 32 bits.
    pub(crate) shift: u32,
    pub(crate) power: f64,
    /// One over `power`.
    pub(crate) part: f64,
    /// The divisor's factors of two, and the inverse modulo 2^64 of its odd part. With a stride, `inverse` is
    /// 2^64 over it, rounded down.
    twos: u32,
    inverse: u64,
    /// Levels of [`Scale::Levels`]: ordered integers of the values, ascending.
    #[cfg(feature = "alloc")]
    pub(crate) levels: alloc::vec::Vec<i64>,
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

    /// Whether every value codes its correction.
    #[inline]
    pub(crate) fn often_corrects(&self) -> bool {
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

    /// Whether a number of the column may have no quotient.
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
    pub(crate) const fn has_unit_steps(&self) -> bool {
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
        // For a multiple of the divisor this is the quotient, because the odd part has an inverse.
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
