//! The quotients of all columns in the rows that a fit of taps looks at.

use alloc::vec::Vec;

use super::least_squares::float;
use crate::codec::batch::Rows;
use crate::codec::model::Plan;
use crate::schema::ColumnKind;

/// Most rows of a grid.
const SAMPLE: usize = 1_500;

/// Quotients above their column's reference, row by row.
pub(super) struct Grid {
    /// Per row and column: this value, or the last one of the series, and the three before it.
    seen: Vec<[i64; 4]>,
    present: Vec<bool>,
    width: usize,
}

impl Grid {
    /// The first rows of `rows`, which are of `series` series.
    pub(super) fn new(rows: &Rows, plans: &[Plan], series: usize) -> Self {
        let width = plans.len();
        let count = rows.len().min(SAMPLE);
        let mut grid = Self {
            seen: Vec::with_capacity(count * width),
            present: Vec::with_capacity(count * width),
            width,
        };
        let mut last: Vec<Option<[i64; 3]>> = alloc::vec![None; series * width];
        for row in 0..count {
            for (at, plan) in plans.iter().enumerate() {
                let cells = &rows.columns[at];
                let quotient = if cells.present[row] && plan.kind != ColumnKind::Str {
                    plan.split(cells.bits[row])
                        .map(|(quotient, _)| quotient.wrapping_sub(plan.params.reference))
                } else {
                    None
                };
                let place = &mut last[rows.series[row] as usize * width + at];
                let started = place.is_some();
                let past = place.unwrap_or([0; 3]);
                let now = quotient.unwrap_or(past[0]);
                grid.seen.push([now, past[0], past[1], past[2]]);
                grid.present.push(quotient.is_some() && started);
                if quotient.is_some() {
                    *place = Some(if started {
                        [now, past[0], past[1]]
                    } else {
                        [now; 3]
                    });
                }
            }
        }
        grid
    }

    /// Whether a column has a value in a row, and its series had one before.
    pub(super) fn is_present(&self, row: usize, column: usize) -> bool {
        self.present[row * self.width + column]
    }

    /// The value of a row, or the last one before it, and the three before that.
    pub(super) fn seen(&self, row: usize, column: usize) -> &[i64; 4] {
        &self.seen[row * self.width + column]
    }

    /// The value of a row, or the last one before it.
    pub(super) fn level(&self, row: usize, column: usize) -> f64 {
        float(self.seen(row, column)[0])
    }

    /// How many rows it has.
    pub(super) fn rows(&self) -> usize {
        self.seen.len() / self.width.max(1)
    }
}
