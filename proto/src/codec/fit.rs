//! Chooses the parameters of a schema from its first rows: every candidate scale of a column is
//! completed (divisor, predictor, memory) and priced in bits, and the cheapest is taken.
//!
//! Fitting needs no exactness: it only ever changes how many bytes a batch takes.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::Rows;
use super::model::{Plan, Predictor};
use super::params::{
    Corrections, MAX_EXPONENT_F32, MAX_EXPONENT_F64, MAX_MEMORY, Params, Scale, TimeParams,
};
use super::rice::bit_len;
use super::rows::Cells;
use crate::schema::{ColumnKind, Schema};
use crate::varint::zigzag;

/// Values of a column that are looked at, spread over the rows, to find its scale.
const SCALE_SAMPLE: usize = 256;
/// Digits behind the point up to which a decimal is taken for what a sensor says.
const FEW_DIGITS: u8 = 6;
/// Texts that a fitted dictionary holds at most.
const MAX_DICTIONARY: usize = 64;

/// Sets the codec parameters of `schema` (columns, dictionaries and time) to those that suit `rows`
/// best. The result is another schema: it needs a number of its own.
pub fn fit(rows: &Rows, schema: &mut Schema) {
    if rows.is_empty() {
        return;
    }
    schema.time = fit_time(rows, schema.series.len());
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
                column.params = fit_number(rows, cells, column.nullable, schema.series.len());
            }
        }
    }
    super::fit_taps::fit_taps(rows, schema);
}

/// Present values of a column as (series, bits), in order.
fn values<'a>(rows: &'a Rows, cells: &'a Cells) -> impl Iterator<Item = (usize, u64)> + Clone + 'a {
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

/// The most frequent texts, most frequent first.
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
        .take(MAX_DICTIONARY)
        .filter_map(|&(place, _)| cells.pool.get(usize::try_from(place).ok()?).cloned())
        .collect()
}

fn fit_number(rows: &Rows, cells: &Cells, nullable: bool, series: usize) -> Params {
    let base = Params::default_for(cells.kind);
    let count = values(rows, cells).count();
    if count == 0 {
        return base;
    }
    let mut best: Option<(f64, Params)> = None;
    for scale in scales(rows, cells, count) {
        let params = Params { scale, ..base };
        let priced = price(rows, cells, nullable, series, params);
        if best.is_none_or(|(bits, _)| priced.0 < bits) {
            best = Some(priced);
        }
    }
    best.map_or(base, |(_, params)| params)
}

/// Scales worth pricing: decimals that say at least half of a sample of the values, fewest digits
/// first, each better than the ones before; and the bit pattern if none says all.
fn scales(rows: &Rows, cells: &Cells, count: usize) -> Vec<Scale> {
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
        let said = sample.iter().filter_map(|&bits| plan.split(bits));
        let (said, wide) = said.fold((0, 0), |(said, wide), (quotient, _)| {
            (said + 1, bit_len(quotient.unsigned_abs()).max(wide))
        });
        if said > floor && wide <= widest {
            found.push(scale);
            floor = said + (sample.len() - said) / 3;
        }
        if said == sample.len() {
            all = true;
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
                let said = sample
                    .iter()
                    .filter(|&&bits| plan.split(bits).is_some())
                    .count();
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
fn stride(mut mantissas: Vec<i64>) -> Option<u32> {
    mantissas.iter_mut().for_each(|m| *m = m.wrapping_abs());
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

/// Bits per value, roughly, and the parameters completed.
fn price(
    rows: &Rows,
    cells: &Cells,
    nullable: bool,
    series: usize,
    mut params: Params,
) -> (f64, Params) {
    let plan = Plan::new(cells.kind, nullable, params, 0);
    let split: Vec<(usize, Option<(i64, i8)>)> = values(rows, cells)
        .map(|(series, bits)| (series, plan.split(bits)))
        .collect();
    divide(
        &mut params,
        split
            .iter()
            .filter_map(|(_, said)| said.map(|(mantissa, _)| mantissa)),
    );
    if params.divisor == 1 && params.scale != Scale::Bits {
        let mantissas = split.iter().filter_map(|(_, said)| said.map(|s| s.0));
        params.stride = stride(mantissas.collect()).unwrap_or(0);
    }
    let plan = Plan::new(cells.kind, nullable, params, 0);
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

    let mut best = f64::MAX;
    for predictor in Predictor::ALL {
        let tried = residuals(&split, series, predictor, params.reference);
        if tried.bits < best {
            best = tried.bits;
            params.predictor = predictor;
            params.residual_bits = small(bit_len(tried.mean16)).min(68);
            params.zero_share = tried.zero_share;
        }
    }
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
    if let Some(remembered) = with_memory(rows, cells, &split, width) {
        if remembered < bits * 0.97 {
            params.memory = MAX_MEMORY;
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

struct Tried {
    bits: f64,
    mean16: u64,
    zero_share: u8,
}

/// What a predictor leaves: bits per value in a Rice code or with a flag for zero, whichever is less.
fn residuals(
    split: &[(usize, Option<(i64, i8)>)],
    series: usize,
    predictor: Predictor,
    reference: i64,
) -> Tried {
    let mut past: Vec<Option<[i64; 3]>> = alloc::vec![None; series];
    let (mut bits, mut zeros, mut count) = (0f64, 0u64, 0u64);
    let (mut sum, mut sum_nonzero) = (0u128, 0u128);
    for &(series, said) in split {
        let Some((quotient, _)) = said else { continue };
        let before = past[series];
        if let Some(before) = before {
            let code = zigzag(quotient.wrapping_sub(predictor.predict(before, reference)));
            count += 1;
            zeros += u64::from(code == 0);
            sum += u128::from(code);
            sum_nonzero += u128::from(code.saturating_sub(1));
            bits += f64::from(bit_len(code)) + log2_rest(code);
        }
        past[series] = Some(before.map_or([quotient; 3], |[a, b, _]| [quotient, a, b]));
    }
    if count == 0 {
        return Tried {
            bits: 0.0,
            mean16: 64,
            zero_share: 8,
        };
    }
    let zero_share = sixteenths(zeros, count);
    // A flagged column keeps the mean of what is not zero.
    let (sum, among) = if zero_share >= 6 && zeros < count {
        (sum_nonzero, count - zeros)
    } else {
        (sum, count)
    };
    let mean16 = u64::try_from(sum.saturating_mul(16) / u128::from(among)).unwrap_or(u64::MAX);
    Tried {
        bits: bits / as_float64(count) + 1.0 - as_float64(zeros) / as_float64(count),
        mean16,
        zero_share,
    }
}

/// Bits per value if the last [`MAX_MEMORY`] distinct values are remembered.
fn with_memory(
    rows: &Rows,
    cells: &Cells,
    split: &[(usize, Option<(i64, i8)>)],
    width: f64,
) -> Option<f64> {
    let mut recent: Vec<u64> = Vec::with_capacity(usize::from(MAX_MEMORY) + 1);
    let mut last = None;
    let (mut bits, mut hits) = (0f64, 0usize);
    for ((_, value), (_, said)) in values(rows, cells).zip(split) {
        match recent.iter().position(|&other| other == value) {
            Some(rank) => {
                hits += 1;
                bits += if rank == 0 {
                    1.0
                } else {
                    4.0 + as_float(rank) / 4.0
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
                recent.truncate(usize::from(MAX_MEMORY) - 1);
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
    let mut last: Vec<Option<i64>> = alloc::vec![None; series];
    let mut steps: Vec<i64> = Vec::new();
    let (mut sum, mut count) = (0u128, 0u128);
    let mut before: Vec<Option<i64>> = alloc::vec![None; series];
    for (&time, &series) in rows.times.iter().zip(&rows.series) {
        let series = series as usize;
        if let Some(last) = last[series] {
            let step = time.wrapping_sub(last) / i64::from(tick_us);
            steps.push(step);
            if let Some(before) = before[series].replace(step) {
                sum += u128::from(zigzag(step.wrapping_sub(before)));
                count += 1;
            }
        }
        last[series] = Some(time);
    }
    steps.sort_unstable();
    let step = steps.get(steps.len() / 2).copied().unwrap_or(1);
    let mean16 = u64::try_from(sum.saturating_mul(16) / count.max(1)).unwrap_or(u64::MAX);
    TimeParams {
        tick_us,
        step: u32::try_from(step).unwrap_or(1),
        residual_bits: small(bit_len(mean16)).min(36),
    }
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

/// The fraction of a bit by which a code lies above its power of two, roughly.
#[expect(clippy::cast_precision_loss, reason = "a price is an estimate")]
fn log2_rest(code: u64) -> f64 {
    let floor = 1u64 << bit_len(code).saturating_sub(1);
    (code as f64 / floor as f64 - 1.0).max(0.0)
}

#[expect(clippy::cast_precision_loss, reason = "a price is an estimate")]
const fn as_float64(count: u64) -> f64 {
    count as f64
}

const fn as_float(count: usize) -> f64 {
    as_float64(count as u64)
}
