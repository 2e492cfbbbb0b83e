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
    pub(super) fn split_all(&self, values: &[u64], quotients: &mut [i64], corrections: &mut [i8]) {
        let said = quotients.iter_mut().zip(&mut *corrections);
        let values = values.iter().zip(said);
        match (self.kind, self.params.scale) {
            (ColumnKind::F32, Scale::Decimal(_) | Scale::Parts(_) | Scale::Printed(_)) => {
                for (&bits, (mantissa, correction)) in values {
                    let low = (bits & 0xffff_ffff) as u32;
                    let (near, off, exact) = scale::near_f32(low, self.power, self.part);
                    (*mantissa, *correction) = (near, if exact { off } else { NONE });
                }
            }
            (ColumnKind::F64, Scale::Decimal(_) | Scale::Parts(_)) => {
                for (&bits, (mantissa, correction)) in values {
                    let (near, off, exact) = scale::near_f64(bits, self.power);
                    (*mantissa, *correction) = (near, if exact { off } else { NONE });
                }
            }
            (ColumnKind::I64, scale) if scale != Scale::Levels => {
                for (&bits, (mantissa, correction)) in values {
                    (*mantissa, *correction) = (bits.cast_signed(), 0);
                }
            }
            _ => {
                for (&bits, (quotient, correction)) in values {
                    (*quotient, *correction) = self.split(bits).unwrap_or((0, NONE));
                }
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
