//! The quotients of all columns in the rows that a fit looks at.

use alloc::vec::Vec;

use super::least_squares::float;
use crate::codec::batch::Rows;
use crate::codec::model::Plan;
use crate::schema::ColumnKind;

/// Rows that are looked at.
const SAMPLE: usize = 1_500;

/// A term that is always one, as the column itself at lag 0.
pub(super) const ONE: [i8; 4] = [1, 0, 0, 0];

/// A term: differences and levels of a column, each a sum of taps.
#[derive(Clone, Copy)]
pub(super) struct Term {
    pub(super) column: usize,
    /// Signs of the lags 0 to 3.
    pub(super) lags: [i8; 4],
}

/// Quotients of all rows, and where the last rows of the same series are.
pub(super) struct Grid {
    /// Per row and column: this value, or the last one of the series, and two before it; above the
    /// reference.
    pub(super) seen: Vec<[i64; 4]>,
    pub(super) present: Vec<bool>,
    pub(super) width: usize,
}

impl Grid {
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

    /// The value of a row, or the last one before it, above the column's reference.
    pub(super) fn level(&self, row: usize, column: usize) -> f64 {
        float(self.seen[row * self.width + column][0])
    }

    pub(super) fn rows(&self) -> usize {
        self.seen.len() / self.width.max(1)
    }

    pub(super) fn term(&self, row: usize, term: &Term) -> f64 {
        if term.lags == ONE {
            return 1.0;
        }
        let seen = &self.seen[row * self.width + term.column];
        let mut sum = 0i64;
        for (&value, &sign) in seen.iter().zip(&term.lags) {
            sum = sum.wrapping_add(value.wrapping_mul(i64::from(sign)));
        }
        float(sum)
    }
}
