//! Many values of a column split at once: what the column's parameters say is asked once, not per value.

use super::model::Plan;
use super::params::Scale;
use super::scale;
use crate::schema::ColumnKind;

/// Stands where a correction would, for a value without a quotient.
pub(super) const NONE: i8 = i8::MIN;

/// Quotient and correction, if there is one.
#[inline(always)]
pub(super) const fn said(quotient: i64, correction: i8) -> Option<(i64, i8)> {
    if correction == NONE {
        None
    } else {
        Some((quotient, correction))
    }
}

impl Plan {
    /// Splits many values: as [`Plan::split`] does one. Those without a quotient have [`NONE`] for a correction.
    pub(super) fn split_all(&self, values: &[u64], said: (&mut [i64], &mut [i8])) {
        match (self.kind, self.params.scale) {
            (ColumnKind::F32, Scale::Decimal(_) | Scale::Parts(_) | Scale::Printed(_)) => {
                fill(values, said, |bits| {
                    let low = (bits & 0xffff_ffff) as u32;
                    let (mantissa, correction) = scale::split_f32(low, self.power, self.part)?;
                    Some((self.quotient(mantissa)?, correction))
                });
            }
            (ColumnKind::F64, Scale::Decimal(_) | Scale::Parts(_)) => {
                fill(values, said, |bits| {
                    let (mantissa, correction) = scale::split_f64(bits, self.power)?;
                    Some((self.quotient(mantissa)?, correction))
                });
            }
            _ => fill(values, said, |bits| self.split(bits)),
        }
    }
}

#[inline(always)]
fn fill(
    values: &[u64],
    (quotients, corrections): (&mut [i64], &mut [i8]),
    split: impl Fn(u64) -> Option<(i64, i8)>,
) {
    for ((&bits, quotient), correction) in values.iter().zip(quotients).zip(corrections) {
        (*quotient, *correction) = split(bits).unwrap_or((0, NONE));
    }
}
