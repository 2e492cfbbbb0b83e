//! Finds how the floats of a column become integers: as decimals, parts of a unit or steps of a
//! converter.

use alloc::vec::Vec;

use super::values::{Sample, as_float64};
use crate::codec::bits::bit_len;
use crate::codec::model::Plan;
use crate::schema::ColumnKind;
use crate::schema::params::{MAX_EXPONENT_F32, MAX_EXPONENT_F64, Params, Scale};

/// Most values of a column that are tried, spread over the rows.
const SCALE_SAMPLE: usize = 256;
/// Digits behind the point up to which a decimal counts as the sensor's own.
const FEW_DIGITS: u8 = 6;

/// Scales worth pricing: decimals that fit at least half of a sample of the values, fewest digits
/// first, each better than those before; and the bit pattern if none fits all. `count`: present values.
pub(super) fn scales(sample: &Sample<'_>, count: usize) -> Vec<Scale> {
    let kind = sample.cells.kind;
    let (most, widest) = match kind {
        ColumnKind::F32 => (MAX_EXPONENT_F32, 24),
        ColumnKind::F64 => (MAX_EXPONENT_F64, 50),
        ColumnKind::Bool | ColumnKind::I64 | ColumnKind::Str => {
            return alloc::vec![Scale::Decimal(0)];
        }
    };
    let values: Vec<u64> = sample
        .values()
        .map(|(_, bits)| bits)
        .step_by(count.div_ceil(SCALE_SAMPLE))
        .collect();
    let mut found = Vec::new();
    let mut all = false;
    let mut floor = values.len() / 2;
    for exponent in 0..=most {
        let scale = Scale::Decimal(exponent);
        let params = Params {
            scale,
            ..Params::default_for(kind)
        };
        let plan = Plan::new(kind, false, params, 0);
        let (fits, wide) = try_plan(&plan, &values);
        if fits > floor && wide <= widest {
            found.push(scale);
            floor = fits + (values.len() - fits) / 3;
        }
        if fits == values.len() {
            all = wide <= widest;
            if exponent <= FEW_DIGITS {
                return found;
            }
            break;
        }
    }
    if !all {
        found.push(Scale::Bits);
    }
    if let Some(scale) = parts(kind, &values) {
        found.push(scale);
    }
    found
}

/// How many of some values have a quotient under a plan, and the bits of the widest quotient. Gives up
/// early on a plan that fits few.
fn try_plan(plan: &Plan, values: &[u64]) -> (usize, u32) {
    let (mut fits, mut wide) = (0, 0);
    for (tried, &bits) in (0..).zip(values) {
        if tried == 16 && fits < 4 {
            return (0, 0);
        }
        if let Some((quotient, _)) = plan.split(bits) {
            fits += 1;
            wide = wide.max(bit_len(quotient.unsigned_abs()));
        }
    }
    (fits, wide)
}

/// The parts of a unit that most of some values have, as averages of a few samples do; `None` if none
/// fits more than half of them.
fn parts(kind: ColumnKind, values: &[u64]) -> Option<Scale> {
    let mut best = (values.len() / 2, None);
    for tens in [1u16, 10, 100] {
        for few in [3u16, 6, 7, 9, 12, 15, 30, 60] {
            for scale in [Scale::Parts(few * tens), Scale::Printed(few * tens)] {
                if kind == ColumnKind::F32 && matches!(scale, Scale::Printed(_)) {
                    continue;
                }
                let params = Params {
                    scale,
                    ..Params::default_for(kind)
                };
                let plan = Plan::new(kind, false, params, 0);
                let (fits, _) = try_plan(&plan, values);
                if fits > best.0 {
                    best = (fits + values.len() / 50, Some(scale));
                }
            }
        }
    }
    best.1
}

/// The step of a converter, in 1/65,536, of which all mantissas are multiples: estimated from the
/// smallest mantissas, then refined with larger ones.
pub(super) fn stride(mantissas: Vec<i64>) -> Option<u32> {
    // The smallest integer, which often stands for a missing value, has no magnitude.
    let magnitudes = mantissas.into_iter().filter_map(i64::checked_abs);
    let mut mantissas: Vec<i64> = magnitudes.collect();
    mantissas.sort_unstable();
    mantissas.dedup();
    let largest = *mantissas.last()?;
    if mantissas.len() < 12 || !(24..=1 << 20).contains(&largest) {
        return None;
    }
    // Neighbours near zero lie one step apart, rounded up or down.
    let near = &mantissas[..mantissas.len().min(12)];
    let shortest = near.windows(2).map(|pair| pair[1] - pair[0]).min()?;
    if !(1..=256).contains(&shortest) {
        return None;
    }
    // The widest stride that fits every mantissa: scanned downwards, then refined.
    for tried in 0..400u32 {
        let step = as_float64(shortest.unsigned_abs()) + 0.999 - f64::from(tried) * 0.004;
        if step < 1.2 {
            break;
        }
        if let Some(found) = refine(&mantissas, step) {
            // The mantissas bound the stride to an interval; a stride with few binary digits is taken.
            let width = 0.4 / (as_float64(largest.unsigned_abs()) / found);
            for digits in 0..=16u32 {
                let parts = as_float64(1 << digits);
                let rounded = libm::round(found * parts) / parts;
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "at most 257 steps"
                )]
                let candidate = (rounded * 65_536.0) as u32;
                if libm::fabs(rounded - found) < width && fits_all(&mantissas, candidate) {
                    return Some(candidate);
                }
            }
        }
    }
    None
}

/// Moves a stride to where it fits all mantissas, smallest first; `None` if there is no such place.
fn refine(mantissas: &[i64], step: f64) -> Option<f64> {
    let mut refined = step;
    let (mut along, mut whole) = (0f64, 0f64);
    for &mantissa in mantissas {
        let mantissa = as_float64(mantissa.unsigned_abs());
        let place = libm::round(mantissa / refined);
        if libm::fabs(place * refined - mantissa) > 0.501 + libm::fmin(place, 40.0) * 0.004 {
            return None;
        }
        along += place * mantissa;
        whole += place * place;
        if place > 12.0 {
            refined = along / whole;
        }
    }
    Some(refined)
}

/// Whether all but one in two hundred mantissas are whole steps.
fn fits_all(mantissas: &[i64], stride: u32) -> bool {
    let params = Params {
        stride,
        ..Params::default_for(ColumnKind::I64)
    };
    let plan = Plan::new(ColumnKind::I64, false, params, 0);
    let fits = mantissas
        .iter()
        .filter(|&&m| plan.quotient(m).is_some())
        .count();
    fits * 200 >= mantissas.len() * 199
}
