//! Many values of a column split at once: what the column's parameters say is asked once, not per value.

use super::model::Plan;
use super::params::Scale;
use super::scale;
use crate::schema::ColumnKind;

/// What a value was split into; the correction says whether there is a quotient.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Said {
    quotient: i64,
    correction: i8,
}

impl Said {
    /// Stands where a correction would, for a value without a quotient.
    const NONE: i8 = i8::MIN;

    /// The quotient, if there is one.
    #[inline(always)]
    pub(super) const fn quotient(self) -> i64 {
        self.quotient
    }

    /// Quotient and correction.
    #[inline(always)]
    pub(super) const fn get(self) -> Option<(i64, i8)> {
        if self.correction == Self::NONE {
            None
        } else {
            Some((self.quotient, self.correction))
        }
    }
}

impl Plan {
    /// Splits many values, each into every `step`th place of `said`.
    pub(super) fn split_all(&self, values: &[u64], said: &mut [Said], step: usize) {
        let low = |bits: u64| (bits & 0xffff_ffff) as u32;
        let places = values.iter().zip(said.iter_mut().step_by(step.max(1)));
        match (self.kind, self.params.scale) {
            (ColumnKind::F32, Scale::Decimal(_) | Scale::Parts(_) | Scale::Printed(_)) => {
                for (&bits, said) in places {
                    let (mantissa, correction) = scale::split_f32(low(bits), self.power, self.part)
                        .unwrap_or((0, Said::NONE));
                    *said = self.said(mantissa, correction);
                }
            }
            (ColumnKind::F64, Scale::Decimal(_) | Scale::Parts(_)) => {
                for (&bits, said) in places {
                    let (mantissa, correction) =
                        scale::split_f64(bits, self.power).unwrap_or((0, Said::NONE));
                    *said = self.said(mantissa, correction);
                }
            }
            _ => {
                for (&bits, said) in places {
                    let (quotient, correction) = self.split(bits).unwrap_or((0, Said::NONE));
                    *said = Said {
                        quotient,
                        correction,
                    };
                }
            }
        }
    }

    #[inline(always)]
    fn said(&self, mantissa: i64, correction: i8) -> Said {
        match self.quotient(mantissa) {
            Some(quotient) => Said {
                quotient,
                correction,
            },
            None => Said {
                quotient: 0,
                correction: Said::NONE,
            },
        }
    }
}
