//! Chooses the parameters of a schema from its first rows: every candidate scale of a column is
//! completed (divisor, predictor, memory) and priced in bits, and the cheapest is taken.
//!
//! Fitting needs no exactness: it only ever changes how many bytes a batch takes.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::Rows;
use super::fit_levels::{MAX_LEVELS, levels, levels_pay};
use super::fit_scale::{scales, stride};
use super::model::{Plan, Predictor, TimeHistory};
use super::params::{Corrections, MAX_MEMORY, Pace, Params, Scale, TimeParams};
use super::rice::bit_len;
use super::rows::Cells;
use crate::schema::{ColumnKind, MAX_TEXT_BYTES, Schema};
use crate::varint::zigzag;

/// How many recent values a column may remember: readings of a coarse converter that were computed
/// on are few, but more than a handful.
const MEMORIES: [u8; 2] = [32, MAX_MEMORY];
/// Texts that a fitted dictionary holds at most.
const MAX_DICTIONARY: usize = 64;

/// Sets the codec parameters of `schema` (columns, dictionaries and time) to those that suit `rows`
/// best. The result is another schema: it needs a number of its own.
pub fn fit(rows: &Rows, schema: &mut Schema) {
    if rows.is_empty() {
        return;
    }
    schema.time = fit_time(rows, schema.series.len());
    let mut room = MAX_LEVELS;
    for (column, cells) in schema.columns.iter_mut().zip(&rows.columns) {
        match column.kind {
            ColumnKind::Bool => column.params = fit_steps(rows, cells, |bits| bits.cast_signed()),
            ColumnKind::Str => {
                column.dictionary = dictionary(rows, cells);
                let dictionary = &column.dictionary;
                let number = |bits: u64| {
                    let text = usize::try_from(bits).ok().and_then(|at| cells.pool.get(at));
                    let place = dictionary.iter().position(|entry| Some(entry) == text);
                    place.and_then(|at| i64::try_from(at + 1).ok()).unwrap_or(0)
                };
                column.params = fit_steps(rows, cells, number);
                column.params.reference = column
                    .params
                    .reference
                    .min(i64::try_from(dictionary.len()).unwrap_or(0));
            }
            ColumnKind::I64 | ColumnKind::F32 | ColumnKind::F64 => {
                let series = schema.series.len();
                let (bits, params) = fit_number(rows, cells, column.nullable, series);
                column.params = params;
                let known = core::mem::take(&mut column.levels);
                let Some((levels, dearer)) = levels(rows, cells, &known, room) else {
                    continue;
                };
                let base = Params {
                    scale: Scale::Levels,
                    ..Params::default_for(cells.kind)
                };
                let priced = price(rows, cells, column.nullable, series, base, &levels);
                if priced.0 + dearer < bits {
                    let mut other = column.clone();
                    other.params = priced.1;
                    other.levels = levels;
                    if levels_pay(rows, cells, (column, &other), dearer) {
                        room -= other.levels.len();
                        *column = other;
                    }
                }
            }
        }
    }
    super::fit_taps::fit_taps(rows, schema);
}

/// Present values of a column as (series, bits), in order.
pub(super) fn values<'a>(
    rows: &'a Rows,
    cells: &'a Cells,
) -> impl Iterator<Item = (usize, u64)> + Clone + 'a {
    cells
        .present
        .iter()
        .zip(&cells.bits)
        .zip(&rows.series)
        .filter(|((present, _), _)| **present)
        .map(|((_, &bits), &series)| (series as usize, bits))
}

/// Parameters of a column that has no residuals: which value is common, and how often it stays.
fn fit_steps(rows: &Rows, cells: &Cells, number: impl Fn(u64) -> i64) -> Params {
    let mut params = Params::default_for(cells.kind);
    let mut counts: BTreeMap<i64, u32> = BTreeMap::new();
    let mut last: BTreeMap<usize, i64> = BTreeMap::new();
    let (mut stays, mut total) = (0u64, 0u64);
    for (series, bits) in values(rows, cells) {
        let number = number(bits);
        *counts.entry(number).or_default() += 1;
        if let Some(before) = last.insert(series, number) {
            total += 1;
            stays += u64::from(before == number);
        }
    }
    if let Some((&common, _)) = counts.iter().max_by_key(|(_, count)| **count) {
        params.reference = common;
    }
    params.zero_share = sixteenths(stays, total);
    params
}

/// The most frequent texts that a schema may hold, most frequent first.
fn dictionary(rows: &Rows, cells: &Cells) -> Vec<alloc::string::String> {
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    for (_, bits) in values(rows, cells) {
        *counts.entry(bits).or_default() += 1;
    }
    let mut places: Vec<(u64, usize)> =
        counts.into_iter().filter(|&(_, count)| count > 1).collect();
    places.sort_by_key(|&(place, count)| (core::cmp::Reverse(count), place));
    places
        .iter()
        .filter_map(|&(place, _)| cells.pool.get(usize::try_from(place).ok()?))
        .filter(|text| text.len() <= MAX_TEXT_BYTES)
        .take(MAX_DICTIONARY)
        .cloned()
        .collect()
}

/// Bits per value, roughly, and the cheapest parameters without levels.
fn fit_number(rows: &Rows, cells: &Cells, nullable: bool, series: usize) -> (f64, Params) {
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
fn price(
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
fn set_slope(params: &mut Params, split: &[(usize, Option<(i64, i8)>)], series: usize) {
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
fn divide(params: &mut Params, mut mantissas: impl Iterator<Item = i64>) {
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

/// What a predictor leaves.
#[derive(Clone, Copy, Default)]
struct Tried {
    /// Bits per value in a Rice code or with a flag for zero, whichever is less.
    bits: f64,
    mean16: u64,
    zero_share: u8,
}

/// Sums over the residuals of one predictor.
#[derive(Clone, Copy, Default)]
struct Sums {
    /// In 1/16 bit.
    bits16: u64,
    zeros: u64,
    all: u128,
    nonzero: u128,
}

/// The predictor that leaves least, and what it leaves.
fn best_predictor(
    split: &[(usize, Option<(i64, i8)>)],
    series: usize,
    reference: i64,
) -> (Tried, Predictor) {
    let mut past: Vec<Option<[i64; 3]>> = alloc::vec![None; series];
    let mut sums = [Sums::default(); Predictor::ALL.len()];
    let mut count = 0u64;
    for &(series, said) in split {
        let Some((quotient, _)) = said else { continue };
        let before = past[series];
        if let Some(before) = before {
            count += 1;
            for (sums, predictor) in sums.iter_mut().zip(Predictor::ALL) {
                let code = zigzag(quotient.wrapping_sub(predictor.predict(before, reference)));
                sums.zeros += u64::from(code == 0);
                sums.all += u128::from(code);
                sums.nonzero += u128::from(code.saturating_sub(1));
                sums.bits16 += bits16(code);
            }
        }
        past[series] = Some(before.map_or([quotient; 3], |[a, b, _]| [quotient, a, b]));
    }
    let tried = sums.map(|sums| sums.tried(count));
    let mut best = (tried[0], Predictor::ALL[0]);
    for pair in tried.into_iter().zip(Predictor::ALL) {
        if pair.0.bits < best.0.bits {
            best = pair;
        }
    }
    best
}

impl Sums {
    fn tried(self, count: u64) -> Tried {
        if count == 0 {
            return Tried {
                bits: 0.0,
                mean16: 64,
                zero_share: 8,
            };
        }
        let zero_share = sixteenths(self.zeros, count);
        // A flagged column keeps the mean of what is not zero.
        let (sum, among) = if zero_share >= 6 && self.zeros < count {
            (self.nonzero, count - self.zeros)
        } else {
            (self.all, count)
        };
        let mean16 = u64::try_from(sum.saturating_mul(16) / u128::from(among)).unwrap_or(u64::MAX);
        let share = as_float64(self.zeros) / as_float64(count);
        Tried {
            bits: as_float64(self.bits16) / 16.0 / as_float64(count) + 1.0 - share,
            mean16,
            zero_share,
        }
    }
}

/// Bits of a code in 1/16: those it needs, and how far it lies above its power of two.
const fn bits16(code: u64) -> u64 {
    if code == 0 {
        return 0;
    }
    let len = bit_len(code);
    let below = (code << (64 - len)) << 1;
    (len as u64) << 4 | below >> 60
}

/// Bits per value if the last distinct values are remembered.
fn with_memory(
    rows: &Rows,
    cells: &Cells,
    split: &[(usize, Option<(i64, i8)>)],
    width: f64,
    memory: u8,
) -> Option<f64> {
    let mut recent: Vec<u64> = Vec::with_capacity(usize::from(memory) + 1);
    let mut last = None;
    let (mut bits, mut hits) = (0f64, 0usize);
    for ((_, value), (_, said)) in values(rows, cells).zip(split) {
        match recent.iter().position(|&other| other == value) {
            Some(rank) => {
                hits += 1;
                bits += if rank == 0 {
                    1.0
                } else if memory == MEMORIES[0] {
                    4.0 + as_float(rank) / 4.0
                } else {
                    6.0 + f64::from(bit_len(recent.len() as u64))
                };
                recent.remove(rank);
            }
            None => {
                bits += match (said, last) {
                    (Some((quotient, _)), Some(last)) => {
                        let code = zigzag(quotient.wrapping_sub(last));
                        3.5 + f64::from(bit_len(code))
                    }
                    (Some(_), None) => 16.0,
                    (None, _) => width + 3.0,
                };
                recent.truncate(usize::from(memory) - 1);
            }
        }
        recent.insert(0, value);
        last = said.map(|(quotient, _)| quotient).or(last);
    }
    (hits > 0).then(|| bits / as_float(split.len()))
}

/// The tick that all times share, the usual step within a series, and its jitter.
fn fit_time(rows: &Rows, series: usize) -> TimeParams {
    let first = rows.times[0];
    let mut tick = 0u64;
    for &time in &rows.times {
        tick = gcd(tick, time.wrapping_sub(first).unsigned_abs());
        if tick == 1 {
            break;
        }
    }
    let tick_us = u32::try_from(tick.max(1)).unwrap_or(1);
    let ticks = |time: i64| time.wrapping_sub(first) / i64::from(tick_us);
    let mut last: Vec<Option<i64>> = alloc::vec![None; series];
    let mut steps: Vec<i64> = Vec::new();
    for (&time, &series) in rows.times.iter().zip(&rows.series) {
        if let Some(last) = last[series as usize].replace(time) {
            steps.push(time.wrapping_sub(last) / i64::from(tick_us));
        }
    }
    steps.sort_unstable();
    let step = steps.get(steps.len() / 2).copied().unwrap_or(1);
    let mut best: Option<(u64, TimeParams)> = None;
    for pace in Pace::ALL {
        let mut params = TimeParams {
            tick_us,
            step: u32::try_from(step).unwrap_or(1),
            pace,
            residual_bits: 0,
        };
        let mut histories: Vec<Option<TimeHistory>> = alloc::vec![None; series];
        let (mut bits, mut sum, mut count) = (0u64, 0u128, 0u128);
        for (&time, &series) in rows.times.iter().zip(&rows.series) {
            let history = &mut histories[series as usize];
            let ticks = ticks(time);
            if let Some(history) = history {
                let code = zigzag(ticks.wrapping_sub(history.predict(0)));
                bits += bits16(code);
                sum += u128::from(code);
                count += 1;
            }
            history.get_or_insert_default().learn(&params, ticks);
        }
        let mean16 = u64::try_from(sum.saturating_mul(16) / count.max(1)).unwrap_or(u64::MAX);
        params.residual_bits = small(bit_len(mean16)).min(36);
        if best.is_none_or(|(least, _)| bits < least) {
            best = Some((bits, params));
        }
    }
    best.map_or(TimeParams::new(tick_us), |(_, params)| params)
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn mean(values: impl Iterator<Item = u64>) -> u64 {
    let (sum, count) = values.fold((0u128, 0u128), |(sum, count), value| {
        (sum + u128::from(value), count + 1)
    });
    u64::try_from(sum / count.max(1)).unwrap_or(u64::MAX)
}

/// `part` of `whole` in sixteenths, 0 to 15.
fn sixteenths(part: u64, whole: u64) -> u8 {
    u8::try_from(part * 16 / whole.max(1)).unwrap_or(15).min(15)
}

fn small(bits: u32) -> u8 {
    u8::try_from(bits).unwrap_or(u8::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "a price is an estimate")]
pub(super) const fn as_float64(count: u64) -> f64 {
    count as f64
}

const fn as_float(count: usize) -> f64 {
    as_float64(count as u64)
}
