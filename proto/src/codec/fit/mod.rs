//! Chooses the parameters of a schema from its first rows: every candidate scale of a column is
//! completed (divisor, predictor, memory) and priced in bits, and the cheapest is taken.
//!
//! Fitting needs no exactness: it only ever changes how many bytes a batch takes.

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
use crate::schema::{ColumnKind, Schema};
use levels::{MAX_LEVELS, levels, levels_pay};
use number::{fit_number, price};
use steps::{dictionary, fit_steps};

/// Sets the codec parameters of `schema` (columns, dictionaries and time) to those that suit `rows`
/// best. The result is another schema: it needs a number of its own.
pub fn fit(rows: &Rows, schema: &mut Schema) {
    if rows.is_empty() {
        return;
    }
    schema.time = time::fit_time(rows, schema.series.len());
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
    taps::fit_taps(rows, schema);
}
