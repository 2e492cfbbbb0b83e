//! Finds the values of a column that come again: what a converter of few bits gives through a formula
//! is a double of all digits, but only one for each of its codes.

use alloc::vec::Vec;

use super::values::{as_float64, values};
use crate::codec::batch::{BackEnd, Cells, Encoder, Rows};
use crate::codec::model::Plan;
use crate::schema::params::Params;
use crate::schema::{Column, Schema};

/// Most levels that a fit gives the columns of a schema: it stays below 10 KiB, so that the schemas of
/// all shapes of a device find room at the head of a segment of its spool.
pub(super) const MAX_LEVELS: usize = 1_024;
/// Values that the bytes of levels in a schema are spread over: a hundred batches of a hundred rows.
const SPREAD: f64 = 10_000.0;
/// Bits of a level in a schema.
const LEVEL_BITS: f64 = 52.0;
/// Batches that are coded to compare, and rows of each.
const TRIALS: usize = 4;
const TRIAL_ROWS: usize = 128;
/// Least values that say anything of whether they come again.
const LEAST: usize = 64;

/// The levels of a column, and how many bits per value they cost: what the schema takes, and values
/// yet to come that are no level; at most `most`. `known` are those of an earlier fit, which saw other rows.
pub(super) fn levels(
    rows: &Rows,
    cells: &Cells,
    known: &[i64],
    most: usize,
) -> Option<(Vec<i64>, f64)> {
    let plan = Plan::new(cells.kind, false, Params::default_for(cells.kind), 0);
    let mut all: Vec<i64> = values(rows, cells)
        .map(|(_, bits)| plan.order(bits))
        .collect();
    if all.len() < LEAST {
        return None;
    }
    all.sort_unstable();
    let (mut found, mut new) = (Vec::new(), 0u64);
    for same in all.chunk_by(|a, b| a == b) {
        let once = same.len() == 1 && known.binary_search(&same[0]).is_err();
        new += u64::from(once);
        found.push((same[0], once));
    }
    if found.len() > most {
        found.retain(|(_, once)| !once);
    }
    let found: Vec<i64> = found.into_iter().map(|(level, _)| level).collect();
    if found.len() < 2 || found.len() > most {
        return None;
    }
    // As many values come that never came before as have come once so far (Good and Turing).
    let escaped = as_float64(new) / as_float64(all.len() as u64);
    let mut with = found.clone();
    with.extend_from_slice(known);
    with.sort_unstable();
    with.dedup();
    let levels = if with.len() > most { found } else { with };
    let schema = as_float64(levels.len() as u64) * LEVEL_BITS / SPREAD;
    Some((levels, schema + escaped * f64::from(plan.width())))
}

/// Whether levels are cheaper by enough: batches are coded without and with them. Estimates err where
/// values hold or jump by turns.
pub(super) fn levels_pay(
    rows: &Rows,
    cells: &Cells,
    (without, with): (&Column, &Column),
    dearer: f64,
) -> bool {
    let (Some((before, count)), Some((after, _))) =
        (coded(rows, cells, without), coded(rows, cells, with))
    else {
        return false;
    };
    // Other columns foretell ranks less well than what they stand for, but what is remembered not
    // at all.
    let enough = if without.params.memory == 0 {
        0.75
    } else {
        0.95
    };
    let bits = |bytes: usize| as_float64(bytes as u64) * 8.0 / as_float64(count as u64);
    bits(after) + dearer < bits(before) * enough
}

/// Bytes of a few batches of the column alone, and how many values they have.
fn coded(rows: &Rows, cells: &Cells, column: &Column) -> Option<(usize, usize)> {
    let mut schema = Schema::new(1, alloc::vec![column.clone()]);
    let most = rows.series.iter().copied().max()?;
    schema.series = alloc::vec![crate::schema::Series::default(); most as usize + 1];
    let mut encoder = Encoder::with_back_end(&schema, BackEnd::Range);
    let (mut part, mut bytes) = (Rows::new(&schema), Vec::new());
    let mut count = 0;
    let every = (rows.len() / TRIALS).max(TRIAL_ROWS);
    for start in (0..rows.len()).step_by(every) {
        part.clear();
        for row in (start..rows.len()).take(TRIAL_ROWS) {
            if cells.present[row] {
                let value = Some(cells.value(cells.bits[row]));
                // Times are the same for both.
                let time = i64::try_from(row).ok()?;
                part.push_row(time, rows.series[row], &[value]).ok()?;
            }
        }
        if !part.is_empty() {
            encoder.encode(0, &part, &mut bytes).ok()?;
            count += part.len();
        }
    }
    Some((bytes.len(), count))
}
