//! Fits what other columns and earlier values add to a column's prediction: weighted least squares,
//! one term after the other while they pay.

use alloc::vec::Vec;

use super::Rows;
use super::model::Plan;
use super::params::{MAX_TAPS, Tap, Taps};
use super::rice::bit_len;
use crate::schema::{ColumnKind, Schema};

/// Rows that are looked at.
const SAMPLE: usize = 1_500;
/// Terms that are weighed for one column.
const TERMS: usize = 14;
/// Terms that a prediction has at most.
const MAX_CHOSEN: usize = 5;
/// Earlier columns that are looked at for one column.
const COLUMNS: usize = 16;

/// A term that is always one, as the column itself at lag 0.
const ONE: [i8; 4] = [1, 0, 0, 0];

/// A term: differences and levels of a column, each a sum of taps.
#[derive(Clone, Copy)]
struct Term {
    column: usize,
    /// Signs of the lags 0 to 3.
    lags: [i8; 4],
}

/// Quotients of all rows, and where the last rows of the same series are.
pub(super) struct Grid {
    /// Per row and column: this value, or the last one of the series, and two before it; above the
    /// reference.
    seen: Vec<[i64; 4]>,
    present: Vec<bool>,
    width: usize,
}

/// Sets the taps of every column of numbers for which they pay.
pub(super) fn fit_taps(rows: &Rows, schema: &mut Schema) {
    let plans: Vec<Plan> = schema
        .columns
        .iter()
        .map(|column| {
            Plan::new(column.kind, column.nullable, column.params, 0).with_levels(&column.levels)
        })
        .collect();
    let grid = Grid::new(rows, &plans, schema.series.len());
    for at in 0..plans.len() {
        let number = matches!(
            plans[at].kind,
            ColumnKind::I64 | ColumnKind::F32 | ColumnKind::F64
        );
        if number && !plans[at].remembers_all() {
            if let Some((taps, mean16)) = fit_column(&grid, &plans, at) {
                schema.columns[at].params.taps = taps;
                schema.columns[at].params.residual_bits =
                    u8::try_from(bit_len(mean16)).unwrap_or(68).min(68);
            }
        }
    }
    super::fit_first::fit_first(&grid, schema);
}

impl Grid {
    fn new(rows: &Rows, plans: &[Plan], series: usize) -> Self {
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

    fn term(&self, row: usize, term: &Term) -> f64 {
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

#[expect(clippy::cast_precision_loss, reason = "a fit is an estimate")]
const fn float(value: i64) -> f64 {
    value as f64
}

fn fit_column(grid: &Grid, plans: &[Plan], at: usize) -> Option<(Taps, u64)> {
    let plan = &plans[at];
    let rows: Vec<usize> = (0..grid.rows())
        .filter(|row| grid.present[row * grid.width + at])
        .collect();
    if rows.len() < 64 {
        return None;
    }
    let base = |row: usize| {
        let [_, a, b, c] = grid.seen[row * grid.width + at];
        plan.params.predictor.predict([a, b, c], 0)
    };
    let targets: Vec<f64> = rows
        .iter()
        .map(|&row| float(grid.seen[row * grid.width + at][0].wrapping_sub(base(row))))
        .collect();
    let mean = targets.iter().map(|t| t.abs()).sum::<f64>() / count(rows.len());
    if mean < 0.05 {
        return None;
    }
    let weights: Vec<f64> = targets.iter().map(|t| 1.0 / (mean + t.abs())).collect();
    let mut terms = alloc::vec![
        Term {
            column: at,
            lags: ONE
        },
        Term {
            column: at,
            lags: [0, 1, 0, 0]
        },
        Term {
            column: at,
            lags: [0, 1, -1, 0]
        },
        Term {
            column: at,
            lags: [0, 0, 1, -1]
        },
    ];
    for column in (0..at).rev().take(COLUMNS) {
        if plans[column].kind != ColumnKind::Str {
            terms.push(Term {
                column,
                lags: [1, -1, 0, 0],
            });
            terms.push(Term {
                column,
                lags: [1, -2, 1, 0],
            });
            terms.push(Term {
                column,
                lags: [0, 1, 0, 0],
            });
            terms.push(Term {
                column,
                lags: [0, 1, -1, 0],
            });
        }
    }
    // What every term explains alone decides which are weighed together.
    let mut columns: Vec<(f64, Term, Vec<f64>)> = terms
        .into_iter()
        .map(|term| {
            let values: Vec<f64> = rows.iter().map(|&row| grid.term(row, &term)).collect();
            let (mut own, mut with) = (1e-9, 0.0);
            for ((x, t), w) in values.iter().zip(&targets).zip(&weights) {
                own += w * x * x;
                with += w * x * t;
            }
            (with * with / own, term, values)
        })
        .collect();
    columns[2..].sort_by(|a, b| b.0.total_cmp(&a.0));
    columns.truncate(TERMS);
    let n = columns.len();
    let mut gram = alloc::vec![alloc::vec![0f64; n + 1]; n];
    for i in 0..n {
        let weighed: Vec<f64> = columns[i]
            .2
            .iter()
            .zip(&weights)
            .map(|(a, w)| a * w)
            .collect();
        for j in i..=n {
            let other = if j < n { &columns[j].2 } else { &targets };
            let sum = weighed.iter().zip(other).map(|(a, b)| a * b).sum();
            gram[i][j] = sum;
            if j < n {
                gram[j][i] = sum;
            }
        }
    }
    let before = cost(targets.iter().copied());
    let mut best = (before, Vec::new(), Vec::new());
    // Once from nothing, and once for what only shows beside the column's own level.
    for start in [&[][..], &[0, 1][..]] {
        let mut chosen: Vec<usize> = start.to_vec();
        // Two terms may only pay together; three hardly ever.
        let mut idle = 0;
        while chosen.len() < MAX_CHOSEN && idle < 2 {
            let mut gain: Option<(f64, usize)> = None;
            for next in 0..n {
                if chosen.contains(&next) {
                    continue;
                }
                let mut with = chosen.clone();
                with.push(next);
                if let Some(solved) = solve(&gram, &with, n) {
                    let explained: f64 =
                        with.iter().zip(&solved).map(|(&i, w)| gram[i][n] * w).sum();
                    if gain.is_none_or(|(most, _)| explained > most) {
                        gain = Some((explained, next));
                    }
                }
            }
            let Some((_, next)) = gain else { break };
            chosen.push(next);
            let Some(solved) = solve(&gram, &chosen, n) else {
                break;
            };
            let terms: Vec<&[f64]> = chosen.iter().map(|&i| columns[i].2.as_slice()).collect();
            let (tried, solved) = settle(&terms, &targets, solved, mean);
            if tried < best.0 - 0.015 && count_taps(&chosen, &columns) <= MAX_TAPS {
                best = (tried, chosen.clone(), solved);
                idle = 0;
            } else {
                idle += 1;
            }
        }
    }
    if best.0 > before - 0.04 {
        return None;
    }
    let (_, chosen, solved) = best;
    let mut sums: Vec<(usize, usize, f64)> = Vec::new();
    for (&i, &weight) in chosen.iter().zip(&solved) {
        let term = columns[i].1;
        for (lag, &sign) in term.lags.iter().enumerate() {
            if sign != 0 {
                let add = weight * f64::from(sign);
                match sums.iter_mut().find(|s| (s.0, s.1) == (term.column, lag)) {
                    Some(s) => s.2 += add,
                    None => sums.push((term.column, lag, add)),
                }
            }
        }
    }
    let mut taps = Taps::default();
    if sums.len() > MAX_TAPS {
        return None;
    }
    for (column, lag, weight) in sums {
        let scaled = weight * 65_536.0;
        if scaled.abs() < 0.5 {
            continue;
        }
        if scaled.is_nan() || scaled.abs() >= 9e18 {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "checked above")]
        let weight = scaled as i64;
        taps.push(Tap {
            column: u16::try_from(column).ok()?,
            lag: u8::try_from(lag).ok()?,
            weight,
        });
    }
    let mut sum = 0f64;
    for (row, target) in targets.iter().enumerate() {
        let told: f64 = chosen
            .iter()
            .zip(&solved)
            .map(|(&i, w)| columns[i].2[row] * w)
            .sum();
        sum += (target - told).abs();
    }
    // In zigzag and 1/16.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates"
    )]
    let mean16 = (sum / count(rows.len()) * 32.0) as u64;
    Some((taps, mean16))
}

/// Taps of some terms.
fn count_taps(chosen: &[usize], columns: &[(f64, Term, Vec<f64>)]) -> usize {
    let mut places: Vec<(usize, usize)> = Vec::new();
    for &i in chosen {
        let term = &columns[i].1;
        for lag in (0..4).filter(|&lag| term.lags[lag] != 0) {
            if !places.contains(&(term.column, lag)) {
                places.push((term.column, lag));
            }
        }
    }
    places.len()
}

/// Solves again with less weight for rows that the terms do not explain, so that outliers do not
/// count; the cheapest of all solutions and its bits per residual.
#[expect(
    clippy::needless_range_loop,
    reason = "matrices are read by row and column"
)]
fn settle(
    terms: &[&[f64]],
    targets: &[f64],
    mut solved: Vec<f64>,
    mut mean: f64,
) -> (f64, Vec<f64>) {
    let k = terms.len();
    let all: Vec<usize> = (0..k).collect();
    let mut best = (f64::MAX, Vec::new());
    for _ in 0..3 {
        let left: Vec<f64> = (0..targets.len())
            .map(|row| {
                targets[row]
                    - terms
                        .iter()
                        .zip(&solved)
                        .map(|(t, w)| t[row] * w)
                        .sum::<f64>()
            })
            .collect();
        let price = cost(left.iter().copied());
        if price < best.0 {
            best = (price, solved);
        }
        // The median would do; half the mean so far closes in on it.
        let size = left.iter().map(|l| l.abs().min(mean)).sum::<f64>() / count(left.len());
        mean = size;
        let floor = size * 0.5 + 0.2;
        let mut gram = alloc::vec![alloc::vec![0f64; k + 1]; k];
        for (row, l) in left.iter().enumerate() {
            let weight = 1.0 / (floor + l.abs());
            for i in 0..k {
                let x = terms[i][row] * weight;
                for j in i..k {
                    gram[i][j] += x * terms[j][row];
                }
                gram[i][k] += x * targets[row];
            }
        }
        for i in 0..k {
            for j in 0..i {
                gram[i][j] = gram[j][i];
            }
        }
        match solve(&gram, &all, k) {
            Some(again) => solved = again,
            None => break,
        }
    }
    best
}

#[expect(clippy::cast_precision_loss, reason = "a fit is an estimate")]
const fn count(count: usize) -> f64 {
    count as f64
}

/// Bits per residual, roughly.
pub(super) fn cost(residuals: impl Iterator<Item = f64>) -> f64 {
    let (mut bits, mut n) = (0f64, 0f64);
    for residual in residuals {
        let size = residual.abs() * 2.0 + 1.0;
        bits += log2(size);
        n += 1.0;
    }
    bits / n.max(1.0)
}

/// Near enough to the logarithm of a number from one up: exact at powers of two, straight between.
fn log2(value: f64) -> f64 {
    let bits = value.to_bits();
    let fraction = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52) - 1.0;
    float((bits >> 52).cast_signed() - 1023) + fraction
}

/// Solves for the chosen terms by elimination; `None` if they are not independent.
#[expect(
    clippy::needless_range_loop,
    reason = "matrices are read by row and column"
)]
pub(super) fn solve(gram: &[Vec<f64>], chosen: &[usize], n: usize) -> Option<Vec<f64>> {
    let k = chosen.len();
    if k > MAX_CHOSEN {
        return None;
    }
    let mut a = [[0f64; MAX_CHOSEN + 1]; MAX_CHOSEN];
    for (row, &i) in a.iter_mut().zip(chosen) {
        for (place, &j) in row.iter_mut().zip(chosen) {
            *place = gram[i][j];
        }
        row[k] = gram[i][n];
    }
    for i in 0..k {
        let whole = gram[chosen[i]][chosen[i]];
        if a[i][i] < whole * 1e-7 + 1e-12 {
            return None;
        }
        for j in i + 1..k {
            let factor = a[j][i] / a[i][i];
            for c in i..=k {
                let above = a[i][c];
                a[j][c] -= factor * above;
            }
        }
    }
    let mut solved = alloc::vec![0f64; k];
    for i in (0..k).rev() {
        let rest: f64 = (i + 1..k).map(|j| a[i][j] * solved[j]).sum();
        solved[i] = (a[i][k] - rest) / a[i][i];
    }
    Some(solved)
}
