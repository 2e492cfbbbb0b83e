//! Chooses the parameters of a schema from its first rows.
//!
//! | module | finds |
//! |---|---|
//! | `steps` | common value and dictionary of columns without residuals |
//! | `number` | divisor, stride, predictor, slope and memory of a column of numbers, for each `scale` |
//! | `levels` | values that come again, and whether their ranks are cheaper |
//! | `taps`, `first` | weights of other columns and earlier rows |
//! | `time` | tick, step and pace |
//!
//! Each candidate scale of a column is completed and priced in bits per value; the cheapest wins.
//! Fitting need not be exact: it only changes how many bytes a batch takes.

mod first;
mod grid;
mod least_squares;
mod levels;
mod memory;
mod number;
mod predictors;
mod scale;
mod steps;
mod taps;
mod time;
mod values;

use crate::codec::batch::Rows;
use crate::schema::params::{Params, Scale};
use crate::schema::{Column, ColumnKind, Schema};
use levels::MAX_LEVELS;
use number::{Fitted, fit_number};
use values::Sample;

/// Sets the codec parameters of `schema` (columns, dictionaries and time) to those that suit `rows`
/// best. The result is another schema: it needs a number of its own.
pub fn fit(rows: &Rows, schema: &mut Schema) {
    if rows.is_empty() {
        return;
    }
    let series = schema.series.len();
    schema.time = time::fit_time(rows, series);
    let mut levels_left = MAX_LEVELS;
    for (column, cells) in schema.columns.iter_mut().zip(&rows.columns) {
        let sample = Sample {
            rows,
            cells,
            nullable: column.nullable,
            series,
        };
        match column.kind {
            ColumnKind::Bool => column.params = steps::fit_bools(&sample),
            ColumnKind::Str => (column.dictionary, column.params) = steps::fit_texts(&sample),
            ColumnKind::I64 | ColumnKind::F32 | ColumnKind::F64 => {
                levels_left -= fit_numbers(&sample, column, levels_left);
            }
        }
    }
    taps::fit_taps(rows, schema);
}

/// Fits a column of numbers, which may take at most `most` levels; returns how many it took.
fn fit_numbers(sample: &Sample<'_>, column: &mut Column, most: usize) -> usize {
    let plain = fit_number(sample);
    column.params = plain.params;
    let known = core::mem::take(&mut column.levels);
    let Some((levels, extra_bits)) = levels::levels(sample, &known, most) else {
        return 0;
    };
    let base = Params {
        scale: Scale::Levels,
        ..Params::default_for(sample.cells.kind)
    };
    let ranked = Fitted::new(sample, base, &levels);
    if ranked.bits + extra_bits >= plain.bits {
        return 0;
    }
    let mut other = column.clone();
    other.params = ranked.params;
    other.levels = levels;
    if !levels::levels_pay(sample, (column, &other), extra_bits) {
        return 0;
    }
    *column = other;
    column.levels.len()
}
