//! The parameters of a column of numbers.

use alloc::vec::Vec;

use super::memory::{MEMORIES, with_memory};
use super::predictors::best_predictor;
use super::scale::{scales, stride};
use super::values::{as_float, gcd, mean, small, values};
use crate::codec::batch::{Cells, Rows};
use crate::codec::bits::bit_len;
use crate::codec::model::Plan;
use crate::schema::params::{Corrections, Params, Scale};

/// Bits per value, roughly, and the cheapest parameters without levels.
pub(super) fn fit_number(
    rows: &Rows,
    cells: &Cells,
    nullable: bool,
    series: usize,
) -> (f64, Params) {
    let base = Params::default_for(cells.kind);
    let count = values(rows, cells).count();
    if count == 0 {
        return (0.0, base);
    }
    let mut best: Option<(f64, Params)> = None;
    for scale in scales(rows, cells, count) {
        let params = Params { scale, ..base };
        let priced = price(rows, cells, nullable, series, params, &[]);
        if best.is_none_or(|(bits, _)| priced.0 < bits) {
            best = Some(priced);
        }
    }
    best.unwrap_or((0.0, base))
}

/// Bits per value, roughly, and the parameters completed.
pub(super) fn price(
    rows: &Rows,
    cells: &Cells,
    nullable: bool,
    series: usize,
    mut params: Params,
    levels: &[i64],
) -> (f64, Params) {
    let plan = Plan::new(cells.kind, nullable, params, 0).with_levels(levels);
    let split: Vec<(usize, Option<(i64, i8)>)> = values(rows, cells)
        .map(|(series, bits)| (series, plan.split(bits)))
        .collect();
    if params.scale != Scale::Levels {
        let mantissas = split.iter().filter_map(|(_, said)| said.map(|s| s.0));
        divide(&mut params, mantissas);
    }
    if params.divisor == 1 && !matches!(params.scale, Scale::Bits | Scale::Levels) {
        let mantissas = split.iter().filter_map(|(_, said)| said.map(|s| s.0));
        params.stride = stride(mantissas.collect()).unwrap_or(0);
    }
    let plan = Plan::new(cells.kind, nullable, params, 0).with_levels(levels);
    let split: Vec<(usize, Option<(i64, i8)>)> = values(rows, cells)
        .map(|(series, bits)| (series, plan.split(bits)))
        .collect();
    let mut quotients: Vec<i64> = split
        .iter()
        .filter_map(|(_, said)| said.map(|s| s.0))
        .collect();
    if quotients.is_empty() {
        return (f64::from(plan.width()) + 4.0, params);
    }
    quotients.sort_unstable();
    params.reference = quotients[quotients.len() / 2];
    let spread = mean(
        quotients
            .iter()
            .map(|q| q.wrapping_sub(params.reference).unsigned_abs()),
    );
    params.reference_bits = small(bit_len(spread)).min(58);

    if series > 1 {
        // How far a value lies from the one before it in another series.
        let mut before: Option<(usize, i64)> = None;
        let (mut sum, mut count) = (0u128, 0u128);
        for &(series, said) in &split {
            let Some((quotient, _)) = said else { continue };
            if let Some((other, last)) = before.replace((series, quotient))
                && other != series
            {
                sum += u128::from(quotient.wrapping_sub(last).unsigned_abs());
                count += 1;
            }
        }
        let kin = u64::try_from(sum / count.max(1)).unwrap_or(u64::MAX);
        params.kin_bits = if count > 0 && kin < spread {
            small(bit_len(kin) + 1).min(64)
        } else {
            0
        };
    }
    let total = as_float(split.len());
    let escaped = as_float(split.len() - quotients.len()) / total;
    let corrected = as_float(
        split
            .iter()
            .filter(|s| s.1.is_some_and(|s| s.1 != 0))
            .count(),
    ) / total;
    let often = corrected > 0.06;
    params.corrections = if often {
        Corrections::Often
    } else {
        Corrections::Rare
    };

    let (best, predictor) = best_predictor(&split, series, params.reference);
    params.predictor = predictor;
    params.residual_bits = small(bit_len(best.mean16)).min(68);
    params.zero_share = best.zero_share;
    let best = best.bits;
    if params.predictor.goes_on() {
        set_slope(&mut params, &split, series);
    }
    let width = f64::from(plan.width());
    let corrections = if often {
        1.0 + 2.0 * corrected
    } else {
        4.0 * corrected
    };
    let mut bits = best * (1.0 - escaped) + escaped * (width + 3.0) + corrections;
    if plan.has_levels() {
        // Of values that are no level.
        params.memory = MEMORIES[0];
        return (bits, params);
    }
    for memory in MEMORIES {
        let Some(remembered) = with_memory(rows, cells, &split, width, memory) else {
            break;
        };
        // A long memory costs time too.
        let enough = if memory == MEMORIES[0] { 0.97 } else { 0.9 };
        if remembered < bits * enough {
            params.memory = memory;
            bits = remembered;
        }
    }
    (bits, params)
}

/// Sets the usual difference within a series, and how far differences lie from it.
pub(super) fn set_slope(params: &mut Params, split: &[(usize, Option<(i64, i8)>)], series: usize) {
    let mut last: Vec<Option<i64>> = alloc::vec![None; series];
    let mut steps: Vec<i64> = Vec::new();
    for &(series, said) in split {
        let Some((quotient, _)) = said else { continue };
        if let Some(last) = last[series].replace(quotient) {
            steps.push(quotient.wrapping_sub(last));
        }
    }
    if steps.is_empty() {
        return;
    }
    steps.sort_unstable();
    params.slope = steps[steps.len() / 2];
    let spread = mean(
        steps
            .iter()
            .map(|step| step.wrapping_sub(params.slope).unsigned_abs()),
    );
    params.slope_bits = small(bit_len(spread)).min(63);
}

/// Sets divisor and offset to what all mantissas have in common.
pub(super) fn divide(params: &mut Params, mut mantissas: impl Iterator<Item = i64>) {
    let Some(first) = mantissas.next() else {
        return;
    };
    let mut divisor = 0u64;
    for mantissa in mantissas {
        divisor = gcd(divisor, mantissa.wrapping_sub(first).unsigned_abs());
        if divisor == 1 {
            return;
        }
    }
    let Ok(signed) = i64::try_from(divisor) else {
        return;
    };
    if signed > 1 {
        params.divisor = divisor;
        params.offset = first.rem_euclid(signed).cast_unsigned();
    }
}
