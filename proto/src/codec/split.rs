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

impl From<Option<(i64, i8)>> for Said {
    #[inline(always)]
    fn from(said: Option<(i64, i8)>) -> Self {
        let (quotient, correction) = said.unwrap_or((0, Self::NONE));
        Self {
            quotient,
            correction,
        }
    }
}

impl Plan {
    /// Splits many values, each into every `step`th place of `said`: as [`Plan::split`] does one.
    pub(super) fn split_all(&self, values: &[u64], said: &mut [Said], step: usize) {
        let places = said.iter_mut().step_by(step.max(1));
        match (self.kind, self.params.scale) {
            (ColumnKind::F32, Scale::Decimal(_) | Scale::Parts(_) | Scale::Printed(_)) => {
                fill(values, places, |bits| {
                    let low = (bits & 0xffff_ffff) as u32;
                    let (mantissa, correction) = scale::split_f32(low, self.power, self.part)?;
                    Some((self.quotient(mantissa)?, correction))
                });
            }
            (ColumnKind::F64, Scale::Decimal(_) | Scale::Parts(_)) => {
                fill(values, places, |bits| {
                    let (mantissa, correction) = scale::split_f64(bits, self.power)?;
                    Some((self.quotient(mantissa)?, correction))
                });
            }
            _ => fill(values, places, |bits| self.split(bits)),
        }
    }
}

#[inline(always)]
fn fill<'a>(
    values: &[u64],
    places: impl Iterator<Item = &'a mut Said>,
    split: impl Fn(u64) -> Option<(i64, i8)>,
) {
    for (&bits, said) in values.iter().zip(places) {
        *said = split(bits).into();
    }
}
