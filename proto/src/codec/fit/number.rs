//! The parameters of a column of numbers.

use alloc::vec::Vec;

use super::memory::{MEMORIES, with_memory};
use super::predictors::best_predictor;
use super::scale::{scales, stride};
use super::values::{Sample, Split, as_float, gcd, mean, quotients, small};
use crate::codec::bits::bit_len;
use crate::codec::model::Plan;
use crate::schema::params::{Corrections, Params, Scale};

/// Share of corrected values from which each value codes its correction.
const OFTEN: f64 = 0.06;

/// Completed parameters and their price.
#[derive(Clone, Copy)]
pub(super) struct Fitted {
    /// Estimated bits per value.
    pub(super) bits: f64,
    pub(super) params: Params,
}

/// The cheapest parameters without levels.
pub(super) fn fit_number(sample: &Sample<'_>) -> Fitted {
    let base = Params::default_for(sample.cells.kind);
    let none = Fitted {
        bits: 0.0,
        params: base,
    };
    let count = sample.values().count();
    if count == 0 {
        return none;
    }
    let mut best: Option<Fitted> = None;
    for scale in scales(sample, count) {
        let fitted = Fitted::new(sample, Params { scale, ..base }, &[]);
        if best.is_none_or(|best| fitted.bits < best.bits) {
            best = Some(fitted);
        }
    }
    best.unwrap_or(none)
}

impl Fitted {
    /// Completes parameters of which the scale is chosen; `levels` are those of [`Scale::Levels`].
    pub(super) fn new(sample: &Sample<'_>, mut params: Params, levels: &[i64]) -> Self {
        let mantissas = sample.split(&sample.plan(params, levels));
        set_unit(&mut params, &mantissas);
        let plan = sample.plan(params, levels);
        let split = sample.split(&plan);
        let width = f64::from(plan.width());
        let Some(spread) = set_reference(&mut params, &split) else {
            let bits = width + 4.0;
            return Self { bits, params };
        };
        if sample.series > 1 {
            params.kin_bits = kin_bits(&split, spread);
        }
        let total = as_float(split.len());
        let escaped = as_float(split.len() - quotients(&split).count()) / total;
        let correction_bits = set_corrections(&mut params, &split);
        let (best, predictor) = best_predictor(&split, sample.series, params.reference);
        params.predictor = predictor;
        params.residual_bits = small(bit_len(best.mean16)).min(68);
        params.zero_share = best.zero_share;
        if params.predictor.goes_on() {
            set_slope(&mut params, &split, sample.series);
        }
        let bits = best.bits * (1.0 - escaped) + escaped * (width + 3.0) + correction_bits;
        let fitted = Self { bits, params };
        fitted.with_memory(sample, &plan, &split)
    }

    /// The same with a memory of recent values, if that is cheaper.
    fn with_memory(mut self, sample: &Sample<'_>, plan: &Plan, split: &[Split]) -> Self {
        if plan.has_levels() {
            // For values that are no level.
            self.params.memory = MEMORIES[0];
            return self;
        }
        let width = f64::from(plan.width());
        for memory in MEMORIES {
            let Some(bits) = with_memory(sample, split, width, memory) else {
                break;
            };
            // A long memory costs time too.
            let enough = if memory == MEMORIES[0] { 0.97 } else { 0.9 };
            if bits < self.bits * enough {
                self.params.memory = memory;
                self.bits = bits;
            }
        }
        self
    }
}

/// Sets what all mantissas have in common: divisor and offset, or the steps of a converter.
fn set_unit(params: &mut Params, split: &[Split]) {
    let mantissas = || quotients(split).map(|(_, mantissa)| mantissa);
    if params.scale != Scale::Levels {
        set_divisor(params, mantissas());
    }
    if params.divisor == 1 && !matches!(params.scale, Scale::Bits | Scale::Levels) {
        params.stride = stride(mantissas().collect()).unwrap_or(0);
    }
}

/// Sets divisor and offset to those that all mantissas share.
fn set_divisor(params: &mut Params, mut mantissas: impl Iterator<Item = i64>) {
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

/// Sets the reference to the median quotient; returns the mean distance from it, or `None` if no
/// value has a quotient.
fn set_reference(params: &mut Params, split: &[Split]) -> Option<u64> {
    let mut sorted: Vec<i64> = quotients(split).map(|(_, quotient)| quotient).collect();
    sorted.sort_unstable();
    params.reference = *sorted.get(sorted.len() / 2)?;
    let reference = params.reference;
    let spread = mean(
        sorted
            .iter()
            .map(|quotient| quotient.wrapping_sub(reference).unsigned_abs()),
    );
    params.reference_bits = small(bit_len(spread)).min(58);
    Some(spread)
}

/// Bits plus one of the mean distance between neighbours of different series; 0 if that is no less
/// than `spread`.
fn kin_bits(split: &[Split], spread: u64) -> u8 {
    let mut before: Option<(usize, i64)> = None;
    let (mut sum, mut count) = (0u128, 0u128);
    for (series, quotient) in quotients(split) {
        if let Some((other, last)) = before.replace((series, quotient))
            && other != series
        {
            sum += u128::from(quotient.wrapping_sub(last).unsigned_abs());
            count += 1;
        }
    }
    let kin = u64::try_from(sum / count.max(1)).unwrap_or(u64::MAX);
    if count > 0 && kin < spread {
        small(bit_len(kin) + 1).min(64)
    } else {
        0
    }
}

/// Sets how corrections are coded; returns their estimated bits per value.
fn set_corrections(params: &mut Params, split: &[Split]) -> f64 {
    let is_corrected = |parts: &Split| parts.1.is_some_and(|(_, correction)| correction != 0);
    let count = split.iter().filter(|parts| is_corrected(parts)).count();
    let share = as_float(count) / as_float(split.len());
    if share > OFTEN {
        params.corrections = Corrections::Often;
        1.0 + 2.0 * share
    } else {
        params.corrections = Corrections::Rare;
        4.0 * share
    }
}

/// Sets the usual difference within a series, and how far differences lie from it.
fn set_slope(params: &mut Params, split: &[Split], series: usize) {
    let mut last: Vec<Option<i64>> = alloc::vec![None; series];
    let mut steps: Vec<i64> = Vec::new();
    for (series, quotient) in quotients(split) {
        if let Some(last) = last[series].replace(quotient) {
            steps.push(quotient.wrapping_sub(last));
        }
    }
    if steps.is_empty() {
        return;
    }
    steps.sort_unstable();
    params.slope = steps[steps.len() / 2];
    let slope = params.slope;
    let spread = mean(
        steps
            .iter()
            .map(|step| step.wrapping_sub(slope).unsigned_abs()),
    );
    params.slope_bits = small(bit_len(spread)).min(63);
}
