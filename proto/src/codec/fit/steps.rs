//! Columns without residuals: booleans and texts.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use super::values::{sixteenths, values};
use crate::codec::batch::{Cells, Rows};
use crate::schema::params::Params;

/// Texts that a fitted dictionary holds at most.
const MAX_DICTIONARY: usize = 64;

/// Parameters of a column that has no residuals: which value is common, and how often it stays.
pub(super) fn fit_steps(rows: &Rows, cells: &Cells, number: impl Fn(u64) -> i64) -> Params {
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
pub(super) fn dictionary(rows: &Rows, cells: &Cells) -> Vec<String> {
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
