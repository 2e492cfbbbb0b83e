//! Finds how the floats of a column become integers: which decimals, parts of a unit or steps of a
//! converter say them.

use alloc::vec::Vec;

use super::values::{as_float64, values};
use crate::codec::batch::{Cells, Rows};
use crate::codec::bits::bit_len;
use crate::codec::model::Plan;
use crate::schema::ColumnKind;
use crate::schema::params::{MAX_EXPONENT_F32, MAX_EXPONENT_F64, Params, Scale};

/// Values of a column that are looked at, spread over the rows.
const SCALE_SAMPLE: usize = 256;
/// Digits behind the point up to which a decimal is taken for what a sensor says.
const FEW_DIGITS: u8 = 6;

/// Scales worth pricing: decimals that say at least half of a sample of the values, fewest digits
/// first, each better than the ones before; and the bit pattern if none says all.
pub(super) fn scales(rows: &Rows, cells: &Cells, count: usize) -> Vec<Scale> {
    let (most, widest) = match cells.kind {
        ColumnKind::F32 => (MAX_EXPONENT_F32, 24),
        ColumnKind::F64 => (MAX_EXPONENT_F64, 50),
        ColumnKind::Bool | ColumnKind::I64 | ColumnKind::Str => {
            return alloc::vec![Scale::Decimal(0)];
        }
    };
    let sample: Vec<u64> = values(rows, cells)
        .map(|(_, bits)| bits)
        .step_by(count.div_ceil(SCALE_SAMPLE))
        .collect();
    let mut found = Vec::new();
    let mut all = false;
    let mut floor = sample.len() / 2;
    for exponent in 0..=most {
        let scale = Scale::Decimal(exponent);
        let params = Params {
            scale,
            ..Params::default_for(cells.kind)
        };
        let plan = Plan::new(cells.kind, false, params, 0);
        let (said, wide) = try_plan(&plan, &sample);
        if said > floor && wide <= widest {
            found.push(scale);
            floor = said + (sample.len() - said) / 3;
        }
        if said == sample.len() {
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
    if let Some(scale) = parts(cells.kind, &sample) {
        found.push(scale);
    }
    found
}

/// How many values of the sample a plan says, and the bits of the widest quotient. Gives up early
/// on a plan that says few.
fn try_plan(plan: &Plan, sample: &[u64]) -> (usize, u32) {
    let (mut said, mut wide) = (0, 0);
    for (tried, &bits) in (0..).zip(sample) {
        if tried == 16 && said < 4 {
            return (0, 0);
        }
        if let Some((quotient, _)) = plan.split(bits) {
            said += 1;
            wide = wide.max(bit_len(quotient.unsigned_abs()));
        }
    }
    (said, wide)
}

/// Parts of a unit that averages of a few readings have, and how many values of the sample they say.
fn parts(kind: ColumnKind, sample: &[u64]) -> Option<Scale> {
    let mut best = (sample.len() / 2, None);
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
                let (said, _) = try_plan(&plan, sample);
                if said > best.0 {
                    best = (said + sample.len() / 50, Some(scale));
                }
            }
        }
    }
    best.1
}

/// The steps of a converter between which no mantissa lies, in 1/65,536: an estimate from the
/// smallest mantissas, made finer by larger ones.
pub(super) fn stride(mantissas: Vec<i64>) -> Option<u32> {
    // The smallest integer, which often stands for no value, has no magnitude among them.
    let magnitudes = mantissas.into_iter().filter_map(i64::checked_abs);
    let mut mantissas: Vec<i64> = magnitudes.collect();
    mantissas.sort_unstable();
    mantissas.dedup();
    let largest = *mantissas.last()?;
    if mantissas.len() < 12 || !(24..=1 << 20).contains(&largest) {
        return None;
    }
    // Distances between neighbours near zero are one step, rounded up or down.
    let near = &mantissas[..mantissas.len().min(12)];
    let shortest = near.windows(2).map(|pair| pair[1] - pair[0]).min()?;
    if !(1..=256).contains(&shortest) {
        return None;
    }
    // Of all strides that begin so, the widest that says every mantissa: scanned, then made finer.
    for tried in 0..400u32 {
        let step = as_float64(shortest.unsigned_abs()) + 0.999 - f64::from(tried) * 0.004;
        if step < 1.2 {
            break;
        }
        if let Some(found) = refine(&mantissas, step) {
            // Among strides as close as the mantissas tell, one with few binary digits.
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
                if libm::fabs(rounded - found) < width && says_all(&mantissas, candidate) {
                    return Some(candidate);
                }
            }
        }
    }
    None
}

/// Moves a stride to where it says all mantissas, smallest first, if there is such a place.
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

fn says_all(mantissas: &[i64], stride: u32) -> bool {
    let params = Params {
        stride,
        ..Params::default_for(ColumnKind::I64)
    };
    let plan = Plan::new(ColumnKind::I64, false, params, 0);
    let said = mantissas
        .iter()
        .filter(|&&m| plan.quotient(m).is_some())
        .count();
    said * 200 >= mantissas.len() * 199
}
