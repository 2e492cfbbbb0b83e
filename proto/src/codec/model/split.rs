//! Many values of a column split at once, so that its parameters are looked at once and not per value.

use super::plan::Plan;
use super::scale;
use crate::schema::ColumnKind;
use crate::schema::params::Scale;

/// In place of the correction of a value without a quotient.
pub(crate) const NONE: i8 = i8::MIN;

/// Quotient and correction, if there is one.
#[inline(always)]
pub(crate) const fn parts(quotient: i64, correction: i8) -> Option<(i64, i8)> {
    if correction == NONE {
        None
    } else {
        Some((quotient, correction))
    }
}

impl Plan {
    /// Splits many values as [`Plan::split`] splits one. The correction of a value without a quotient is
    /// [`NONE`].
    pub(crate) fn split_all(&self, values: &[u64], quotients: &mut [i64], corrections: &mut [i8]) {
        let out = (&mut *quotients, &mut *corrections);
        let near = |(mantissa, off, exact)| (mantissa, if exact { off } else { NONE });
        let low = |bits: u64| (bits & 0xffff_ffff) as u32;
        match (self.kind, self.params.scale) {
            (ColumnKind::F32, Scale::Decimal(_) | Scale::Parts(_) | Scale::Printed(_)) => {
                fill(values, out, |bits| {
                    near(scale::near_f32(low(bits), self.power, self.part))
                });
            }
            (ColumnKind::F64, Scale::Decimal(_) | Scale::Parts(_)) => {
                fill(values, out, |bits| near(scale::near_f64(bits, self.power)));
            }
            (ColumnKind::F32, Scale::Bits) => {
                fill(values, out, |bits| (scale::order_f32(low(bits)), 0));
            }
            (ColumnKind::F64, Scale::Bits) => {
                fill(values, out, |bits| (scale::order_f64(bits), 0));
            }
            (ColumnKind::I64, scale) if scale != Scale::Levels => {
                fill(values, out, |bits| (bits.cast_signed(), 0));
            }
            _ => {
                fill(values, out, |bits| self.split(bits).unwrap_or((0, NONE)));
                return;
            }
        }
        if self.has_unit_steps() {
            return;
        }
        for (mantissa, correction) in quotients.iter_mut().zip(corrections) {
            match self.quotient(*mantissa) {
                Some(quotient) => *mantissa = quotient,
                None => *correction = NONE,
            }
        }
    }
}

#[inline(always)]
fn fill(
    values: &[u64],
    (quotients, corrections): (&mut [i64], &mut [i8]),
    split: impl Fn(u64) -> (i64, i8),
) {
    for ((&bits, quotient), correction) in values.iter().zip(quotients).zip(corrections) {
        (*quotient, *correction) = split(bits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::params::Params;

    #[test]
    fn many_values_are_split_as_each_alone() {
        let scales = [
            Scale::Bits,
            Scale::Decimal(0),
            Scale::Decimal(3),
            Scale::Decimal(22),
            Scale::Parts(12),
            Scale::Printed(7),
            Scale::Levels,
        ];
        let steps = [
            (1, 0, 0),
            (12, 5, 0),
            (1 << 40, 0, 0),
            (7, 0, 0),
            (1, 0, 160_000),
        ];
        let mut values = alloc::vec![0, 1, 5, 17, u64::MAX, 1 << 63, i64::MAX.cast_unsigned()];
        let mut noise = 7u64;
        for at in 0..500i32 {
            noise = noise
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let decimal = f64::from(at * 12 + 5) / 1_000.0;
            let part = f64::from(at * 36 - 4_000) / 12.0;
            #[expect(clippy::cast_possible_truncation, reason = "a single is meant")]
            let single = u64::from((decimal as f32).to_bits());
            values.extend([
                noise,
                noise >> 40,
                decimal.to_bits(),
                part.to_bits(),
                single,
            ]);
            values.push(decimal.to_bits() + (noise >> 61));
            values.push((i64::from(at) * 12 - 2_995).cast_unsigned());
        }
        for special in [
            f64::NAN,
            f64::INFINITY,
            -0.0,
            5e-324,
            2_251_799_813_685_248.0,
        ] {
            values.extend([special.to_bits(), (-special).to_bits()]);
        }
        let mut split = 0;
        for kind in [ColumnKind::F32, ColumnKind::F64, ColumnKind::I64] {
            for scale in scales {
                for (divisor, offset, stride) in steps {
                    let params = Params {
                        scale,
                        divisor,
                        offset,
                        stride,
                        ..Params::default_for(kind)
                    };
                    let plan = Plan::new(kind, false, params, 0).with_levels(&[-7, 5, 17, 4_000]);
                    let (mut quotients, mut corrections) =
                        (alloc::vec![0; values.len()], alloc::vec![0; values.len()]);
                    plan.split_all(&values, &mut quotients, &mut corrections);
                    for ((&bits, &quotient), &correction) in
                        values.iter().zip(&quotients).zip(&corrections)
                    {
                        let alone = plan.split(bits);
                        assert_eq!(
                            parts(quotient, correction),
                            alone,
                            "{kind:?} {params:?} {bits:#x}"
                        );
                        split += u32::from(alone.is_some());
                    }
                }
            }
        }
        assert!(split > 10_000, "{split}");
    }
    /// The quotients as divisions give them.
    fn divided(params: &Params, mantissa: i64) -> Option<i64> {
        let mantissa = i128::from(mantissa);
        if params.stride != 0 {
            let stride = i128::from(params.stride);
            let magnitude = mantissa.abs();
            let step = ((magnitude << 16) + stride / 2) / stride;
            let stands_for = (step * stride + (1 << 15)) >> 16;
            let step = if mantissa < 0 { -step } else { step };
            return (magnitude < 1 << 40 && stands_for == magnitude)
                .then(|| i64::try_from(step).unwrap_or(i64::MAX));
        }
        let above = i64::try_from(mantissa - i128::from(params.offset)).ok()?;
        let divisor = i64::try_from(params.divisor).ok()?;
        (above % divisor == 0).then_some(above / divisor)
    }

    #[test]
    fn quotients_and_steps_are_those_that_divisions_give() {
        let (mut found, mut none, mut noise) = (0, 0, 99u64);
        for _ in 0..200_000 {
            let mut next = || {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                noise >> (noise & 63)
            };
            let mut params = Params::default_for(ColumnKind::I64);
            if next() & 1 == 0 {
                let above = u32::try_from(next() & 0xffff_ffff).unwrap_or(0) >> (next() & 15);
                params.stride = above.max((1 << 16) + 1);
            } else {
                params.divisor = (next() >> 1).max(1);
                params.offset = next() % params.divisor;
            }
            let plan = Plan::new(ColumnKind::I64, false, params, 0);
            let near = plan.join(next().cast_signed(), 0).cast_signed();
            for mantissa in [
                next().cast_signed(),
                near,
                near.wrapping_add(1),
                -near,
                i64::MIN,
            ] {
                let quotient = plan.quotient(mantissa);
                assert_eq!(
                    quotient,
                    divided(&params, mantissa),
                    "{params:?} {mantissa}"
                );
                *(if quotient.is_some() {
                    &mut found
                } else {
                    &mut none
                }) += 1;
            }
        }
        // Where the reciprocal alone is one too low.
        for (stride, step) in [(65_543, 549_755_818_569), (65_545, 549_755_875_783)] {
            let mut params = Params::default_for(ColumnKind::I64);
            params.stride = stride;
            let plan = Plan::new(ColumnKind::I64, false, params, 0);
            let mantissa = plan.join(step, 0).cast_signed();
            assert_eq!(plan.quotient(mantissa), Some(step));
        }
        assert!(found > 100_000 && none > 100_000, "{found} {none}");
    }
}
