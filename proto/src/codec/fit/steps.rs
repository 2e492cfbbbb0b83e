//! Columns without residuals: booleans and texts.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use super::values::{Sample, sixteenths};
use crate::schema::MAX_TEXT_BYTES;
use crate::schema::params::Params;

/// Most texts of a fitted dictionary. A schema stands at the head of each segment of a spool, so it
/// stays small.
const MAX_DICTIONARY: usize = 64;

/// The parameters of a column of booleans.
pub(super) fn fit_bools(sample: &Sample<'_>) -> Params {
    fit_steps(sample, |bits| bits.cast_signed())
}

/// Dictionary and parameters of a column of texts.
pub(super) fn fit_texts(sample: &Sample<'_>) -> (Vec<String>, Params) {
    let dictionary = dictionary(sample);
    let number = |bits: u64| {
        let text = usize::try_from(bits)
            .ok()
            .and_then(|at| sample.cells.pool.get(at));
        let place = dictionary.iter().position(|entry| Some(entry) == text);
        place.and_then(|at| i64::try_from(at + 1).ok()).unwrap_or(0)
    };
    let mut params = fit_steps(sample, number);
    let last = i64::try_from(dictionary.len()).unwrap_or(0);
    params.reference = params.reference.min(last);
    (dictionary, params)
}

/// Sets the most common value, and how often a value stays; `number` is that of a value's bits.
fn fit_steps(sample: &Sample<'_>, number: impl Fn(u64) -> i64) -> Params {
    let mut params = Params::default_for(sample.cells.kind);
    let mut counts: BTreeMap<i64, u32> = BTreeMap::new();
    let mut last: BTreeMap<usize, i64> = BTreeMap::new();
    let (mut stays, mut total) = (0u64, 0u64);
    for (series, bits) in sample.values() {
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

/// The texts that come more than once and that a schema may hold, most frequent first.
fn dictionary(sample: &Sample<'_>) -> Vec<String> {
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    for (_, bits) in sample.values() {
        *counts.entry(bits).or_default() += 1;
    }
    let mut places: Vec<(u64, usize)> =
        counts.into_iter().filter(|&(_, count)| count > 1).collect();
    places.sort_by_key(|&(place, count)| (core::cmp::Reverse(count), place));
    let pool = &sample.cells.pool;
    places
        .iter()
        .filter_map(|&(place, _)| pool.get(usize::try_from(place).ok()?))
        .filter(|text| text.len() <= MAX_TEXT_BYTES)
        .take(MAX_DICTIONARY)
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Rows;
    use crate::sample::Value;
    use crate::schema::{Column, ColumnKind, Schema};

    #[test]
    fn a_dictionary_holds_the_most_frequent_texts_up_to_its_bound() {
        let schema = Schema::new(1, alloc::vec![Column::new("state", ColumnKind::Str)]);
        let mut rows = Rows::new(&schema);
        for time in 0..3i64 {
            // Later texts come more often.
            for text in 0..=MAX_DICTIONARY {
                if time < 2 || text > 0 {
                    let text = std::format!("state {text}");
                    rows.push_row(time, 0, &[Some(Value::Str(&text))]).unwrap();
                }
            }
        }
        let sample = Sample {
            rows: &rows,
            cells: &rows.columns[0],
            nullable: false,
            series: 1,
        };
        let (dictionary, _) = fit_texts(&sample);
        assert_eq!(dictionary.len(), MAX_DICTIONARY);
        assert!(!dictionary.contains(&"state 0".into()));
    }
}
