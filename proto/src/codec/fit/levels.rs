//! Finds the levels of a column: values that come again. A converter of few bits behind a formula gives
//! doubles of all digits, but only one for each of its codes.

use alloc::vec::Vec;

use super::values::{Sample, as_float64};
use crate::codec::batch::{BackEnd, Encoder, Rows};
use crate::codec::model::Plan;
use crate::schema::params::Params;
use crate::schema::{Column, Schema};

/// Most levels that a fit gives the columns of a schema: below 10 KiB, because the schemas of all
/// shapes of a device stand at the head of each segment of its spool.
pub(super) const MAX_LEVELS: usize = 1_024;
/// Values that the bytes of levels in a schema are spread over: a hundred batches of a hundred rows.
const SPREAD: f64 = 10_000.0;
/// Bits of a level in a schema.
const LEVEL_BITS: f64 = 52.0;
/// Batches that are coded for the comparison, and rows of each.
const TRIALS: usize = 4;
const TRIAL_ROWS: usize = 128;
/// Fewest values from which a repetition is a sign of levels.
const LEAST: usize = 64;

/// The levels of a column, at most `most`, and the extra bits per value that they cost: their share of
/// the schema, and later values that are no level. `known`: levels of an earlier fit to other rows.
pub(super) fn levels(sample: &Sample<'_>, known: &[i64], most: usize) -> Option<(Vec<i64>, f64)> {
    let kind = sample.cells.kind;
    let plan = Plan::new(kind, false, Params::default_for(kind), 0);
    let mut all: Vec<i64> = sample.values().map(|(_, bits)| plan.order(bits)).collect();
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
    // Good and Turing: the share of new values to come is the share of values seen once.
    let escaped = as_float64(new) / as_float64(all.len() as u64);
    let mut with = found.clone();
    with.extend_from_slice(known);
    with.sort_unstable();
    with.dedup();
    let levels = if with.len() > most { found } else { with };
    let schema = as_float64(levels.len() as u64) * LEVEL_BITS / SPREAD;
    Some((levels, schema + escaped * f64::from(plan.width())))
}

/// Whether levels are cheaper by enough: a few batches are coded without and with them, because
/// estimates err where values alternate between holding and jumping.
pub(super) fn levels_pay(
    sample: &Sample<'_>,
    (without, with): (&Column, &Column),
    extra_bits: f64,
) -> bool {
    let (Some((before, count)), Some((after, _))) = (coded(sample, without), coded(sample, with))
    else {
        return false;
    };
    // Taps on other columns predict ranks less well than the values themselves, and remembered values
    // not at all.
    let enough = if without.params.memory == 0 {
        0.75
    } else {
        0.95
    };
    let bits = |bytes: usize| as_float64(bytes as u64) * 8.0 / as_float64(count as u64);
    bits(after) + extra_bits < bits(before) * enough
}

/// Bytes of a few batches of the column alone, and how many values they have.
fn coded(sample: &Sample<'_>, column: &Column) -> Option<(usize, usize)> {
    let (rows, cells) = (sample.rows, sample.cells);
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
                // Any times will do: they are the same in both trials.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Rows;
    use crate::sample::Value;
    use crate::schema::ColumnKind;

    /// Rows of so many distinct values, each of which comes twice.
    fn twice(values: u32) -> Rows {
        let schema = Schema::new(1, alloc::vec![Column::new("value", ColumnKind::F64)]);
        let mut rows = Rows::new(&schema);
        for value in (0..values).chain(0..values) {
            let value = Value::F64(f64::from(value) / 7.0);
            rows.push_row(0, 0, &[Some(value)]).unwrap();
        }
        rows
    }

    #[test]
    fn a_column_of_more_values_than_a_schema_may_hold_has_no_levels() {
        let most = u32::try_from(MAX_LEVELS).unwrap();
        let found = |values: u32| {
            let rows = twice(values);
            let sample = Sample {
                rows: &rows,
                cells: &rows.columns[0],
                nullable: false,
                series: 1,
            };
            levels(&sample, &[], MAX_LEVELS).map(|(levels, _)| levels.len())
        };
        assert_eq!(found(most), Some(MAX_LEVELS));
        assert_eq!(found(most + 1), None);
    }
}
