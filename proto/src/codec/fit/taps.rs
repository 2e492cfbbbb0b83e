//! Fits what other columns and earlier values add to a column's prediction: weighted least squares,
//! one term after the other while they pay.

use alloc::vec::Vec;

use super::grid::{Grid, ONE, Term};
use super::least_squares::{MAX_CHOSEN, cost, count, float, settle, solve};
use crate::codec::batch::Rows;
use crate::codec::bits::bit_len;
use crate::codec::model::Plan;
use crate::schema::params::{MAX_TAPS, Tap, Taps};
use crate::schema::{ColumnKind, Schema};

/// Terms that are weighed for one column.
const TERMS: usize = 14;
/// Earlier columns that are looked at for one column.
const COLUMNS: usize = 16;

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
    super::first::fit_first(&grid, schema);
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
