//! Fits taps: what other columns and earlier rows add to a column's prediction.
//!
//! Terms are chosen one after the other by weighted least squares, while each makes the residuals
//! cheaper.

use alloc::vec::Vec;

use super::grid::Grid;
use super::least_squares::{
    MAX_CHOSEN, cost, count, explained, float, gain, settle, solve, weight16,
};
use crate::codec::batch::Rows;
use crate::codec::bits::bit_len;
use crate::codec::model::Plan;
use crate::schema::params::{MAX_TAPS, Tap, Taps};
use crate::schema::{ColumnKind, Schema};

/// Terms weighed together for one column.
const TERMS: usize = 14;
/// Earlier columns that one column's terms look at, nearest first.
const COLUMNS: usize = 16;
/// Fewest rows of a fit.
const LEAST_ROWS: usize = 64;
/// Mean size of residuals below which taps cannot save anything.
const LEAST_SIZE: f64 = 0.05;
/// Bits per value that the taps must save, and that each term must save.
const LEAST_GAIN: f64 = 0.04;
const LEAST_STEP: f64 = 0.015;

/// A term that is always one, as the column itself at lag 0.
const ONE: [i8; 4] = [1, 0, 0, 0];

/// A term: differences and levels of a column, each a sum of taps.
#[derive(Clone, Copy)]
struct Term {
    column: usize,
    /// Signs of the lags 0 to 3.
    lags: [i8; 4],
}

/// A term and its value in each row.
struct Candidate {
    term: Term,
    values: Vec<f64>,
    /// How much of the targets it explains alone.
    alone: f64,
}

/// The residuals of one column that terms are to explain, row by row.
struct Targets {
    rows: Vec<usize>,
    sizes: Vec<f64>,
    /// Least for the largest, so that outliers do not decide.
    weights: Vec<f64>,
    mean: f64,
}

/// Chosen terms and their weights.
struct Choice {
    /// Bits per residual.
    bits: f64,
    chosen: Vec<usize>,
    weights: Vec<f64>,
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
    for (at, plan) in plans.iter().enumerate() {
        if plan.is_number() && !plan.remembers_all() {
            if let Some((taps, mean16)) = fit_column(&grid, &plans, at) {
                schema.columns[at].params.taps = taps;
                schema.columns[at].params.residual_bits =
                    u8::try_from(bit_len(mean16)).unwrap_or(68).min(68);
            }
        }
    }
    super::first::fit_first(&grid, schema);
}

/// The taps of a column, and the mean residual that they leave, in zigzag and 1/16.
fn fit_column(grid: &Grid, plans: &[Plan], at: usize) -> Option<(Taps, u64)> {
    let targets = Targets::new(grid, &plans[at], at)?;
    let candidates = candidates(grid, plans, at, &targets);
    let Choice {
        bits,
        chosen,
        weights,
    } = choose(&candidates, &targets);
    if bits > cost(targets.sizes.iter().copied()) - LEAST_GAIN {
        return None;
    }
    let taps = taps(&chosen, &weights, &candidates)?;
    let terms: Vec<&[f64]> = values(&chosen, &candidates);
    let mut sum = 0f64;
    for (row, target) in targets.sizes.iter().enumerate() {
        sum += (target - explained(&terms, &weights, row)).abs();
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates"
    )]
    let mean16 = (sum / count(targets.rows.len()) * 32.0) as u64;
    Some((taps, mean16))
}

impl Targets {
    /// `None` if the column has too few rows, or next to no residuals.
    fn new(grid: &Grid, plan: &Plan, at: usize) -> Option<Self> {
        let rows: Vec<usize> = (0..grid.rows())
            .filter(|&row| grid.is_present(row, at))
            .collect();
        if rows.len() < LEAST_ROWS {
            return None;
        }
        let residual = |&row: &usize| {
            let &[now, a, b, c] = grid.seen(row, at);
            float(now.wrapping_sub(plan.params.predictor.predict([a, b, c], 0)))
        };
        let sizes: Vec<f64> = rows.iter().map(residual).collect();
        let mean = sizes.iter().map(|t| t.abs()).sum::<f64>() / count(rows.len());
        if mean < LEAST_SIZE {
            return None;
        }
        let weights = sizes.iter().map(|t| 1.0 / (mean + t.abs())).collect();
        Some(Self {
            rows,
            sizes,
            weights,
            mean,
        })
    }
}

impl Term {
    fn value(&self, grid: &Grid, row: usize) -> f64 {
        if self.lags == ONE {
            return 1.0;
        }
        let mut sum = 0i64;
        for (&value, &sign) in grid.seen(row, self.column).iter().zip(&self.lags) {
            sum = sum.wrapping_add(value.wrapping_mul(i64::from(sign)));
        }
        float(sum)
    }

    /// The terms of a column: its own past, then levels and differences of earlier columns.
    fn of(plans: &[Plan], at: usize) -> Vec<Self> {
        let own = [ONE, [0, 1, 0, 0], [0, 1, -1, 0], [0, 0, 1, -1]];
        let other = [[1, -1, 0, 0], [1, -2, 1, 0], [0, 1, 0, 0], [0, 1, -1, 0]];
        let mut terms: Vec<Self> = own.map(|lags| Self { column: at, lags }).into();
        for column in (0..at).rev().take(COLUMNS) {
            if plans[column].kind != ColumnKind::Str {
                terms.extend(other.map(|lags| Self { column, lags }));
            }
        }
        terms
    }
}

/// The terms that are weighed together: those that explain most alone, and the first two always.
fn candidates(grid: &Grid, plans: &[Plan], at: usize, targets: &Targets) -> Vec<Candidate> {
    let weigh = |term: Term| {
        let rows = targets.rows.iter();
        let values: Vec<f64> = rows.map(|&row| term.value(grid, row)).collect();
        let (mut own, mut with) = (1e-9, 0.0);
        for ((x, t), w) in values.iter().zip(&targets.sizes).zip(&targets.weights) {
            own += w * x * x;
            with += w * x * t;
        }
        Candidate {
            term,
            values,
            alone: with * with / own,
        }
    };
    let mut candidates: Vec<Candidate> = Term::of(plans, at).into_iter().map(weigh).collect();
    candidates[2..].sort_by(|a, b| b.alone.total_cmp(&a.alone));
    candidates.truncate(TERMS);
    candidates
}

/// Weighted products of all candidates with each other and, in the last column, with the targets.
#[expect(
    clippy::needless_range_loop,
    reason = "matrices are read by row and column"
)]
fn gram(candidates: &[Candidate], targets: &Targets) -> Vec<Vec<f64>> {
    let n = candidates.len();
    let mut gram = alloc::vec![alloc::vec![0f64; n + 1]; n];
    for i in 0..n {
        let values = candidates[i].values.iter();
        let weighed: Vec<f64> = values.zip(&targets.weights).map(|(a, w)| a * w).collect();
        for j in i..=n {
            let other = candidates.get(j).map_or(&targets.sizes, |c| &c.values);
            let sum = weighed.iter().zip(other).map(|(a, b)| a * b).sum();
            gram[i][j] = sum;
            if j < n {
                gram[j][i] = sum;
            }
        }
    }
    gram
}

/// Adds the term that explains most beside those chosen, again and again; the cheapest choice.
fn choose(candidates: &[Candidate], targets: &Targets) -> Choice {
    let n = candidates.len();
    let gram = gram(candidates, targets);
    let mut best = Choice {
        bits: cost(targets.sizes.iter().copied()),
        chosen: Vec::new(),
        weights: Vec::new(),
    };
    // Once from nothing, and once for terms that only pay beside the column's own level.
    for start in [&[][..], &[0, 1][..]] {
        let mut chosen: Vec<usize> = start.to_vec();
        // Two terms may only pay together; three hardly ever.
        let mut idle = 0;
        while chosen.len() < MAX_CHOSEN && idle < 2 {
            let Some(next) = best_next(&gram, &chosen, n) else {
                break;
            };
            chosen.push(next);
            let Some(weights) = solve(&gram, &chosen, n) else {
                break;
            };
            let terms = values(&chosen, candidates);
            let (bits, weights) = settle(&terms, &targets.sizes, weights, targets.mean);
            if bits < best.bits - LEAST_STEP && count_taps(&chosen, candidates) <= MAX_TAPS {
                best = Choice {
                    bits,
                    chosen: chosen.clone(),
                    weights,
                };
                idle = 0;
            } else {
                idle += 1;
            }
        }
    }
    best
}

/// The candidate with which the chosen ones explain most.
fn best_next(gram: &[Vec<f64>], chosen: &[usize], n: usize) -> Option<usize> {
    let mut best: Option<(f64, usize)> = None;
    for next in (0..n).filter(|next| !chosen.contains(next)) {
        let mut with = chosen.to_vec();
        with.push(next);
        if let Some(solved) = solve(gram, &with, n) {
            let explained = gain(gram, &with, &solved, n);
            if best.is_none_or(|(most, _)| explained > most) {
                best = Some((explained, next));
            }
        }
    }
    best.map(|(_, next)| next)
}

/// The values of the chosen candidates.
fn values<'a>(chosen: &[usize], candidates: &'a [Candidate]) -> Vec<&'a [f64]> {
    chosen
        .iter()
        .map(|&i| candidates[i].values.as_slice())
        .collect()
}

/// The chosen terms as taps; `None` if they are too many, or a weight is out of range.
fn taps(chosen: &[usize], weights: &[f64], candidates: &[Candidate]) -> Option<Taps> {
    let mut sums: Vec<(usize, usize, f64)> = Vec::new();
    for (&i, &weight) in chosen.iter().zip(weights) {
        let term = candidates[i].term;
        for (lag, &sign) in term.lags.iter().enumerate().filter(|(_, sign)| **sign != 0) {
            let add = weight * f64::from(sign);
            match sums.iter_mut().find(|s| (s.0, s.1) == (term.column, lag)) {
                Some(s) => s.2 += add,
                None => sums.push((term.column, lag, add)),
            }
        }
    }
    if sums.len() > MAX_TAPS {
        return None;
    }
    let mut taps = Taps::default();
    for (column, lag, weight) in sums {
        // Such a weight is rounded to nothing.
        if (weight * 65_536.0).abs() < 0.5 {
            continue;
        }
        taps.push(Tap {
            column: u16::try_from(column).ok()?,
            lag: u8::try_from(lag).ok()?,
            weight: weight16(weight)?,
        });
    }
    Some(taps)
}

/// How many taps the chosen terms take.
fn count_taps(chosen: &[usize], candidates: &[Candidate]) -> usize {
    let mut places: Vec<(usize, usize)> = Vec::new();
    for &i in chosen {
        let term = candidates[i].term;
        for lag in (0..4).filter(|&lag| term.lags[lag] != 0) {
            if !places.contains(&(term.column, lag)) {
                places.push((term.column, lag));
            }
        }
    }
    places.len()
}
