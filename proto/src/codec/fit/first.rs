//! Fits taps on the first value of a series: a batch begins with levels, and the levels of columns go
//! together (current with power, humidity with temperature).

use alloc::vec::Vec;

use super::grid::Grid;
use super::least_squares::{cost, count, explained, gain, solve, weight16};
use crate::codec::bits::bit_len;
use crate::schema::params::{MAX_FIRST_TAPS, Scale, Tap, Taps};
use crate::schema::{ColumnKind, Schema};

/// Most rows of a fit, spread over all.
const SAMPLE: usize = 128;
/// Fewest rows of a fit.
const LEAST_ROWS: usize = 32;
/// Earlier columns that one column looks at, nearest first.
const COLUMNS: usize = 12;
/// Bits of a first value that each tap must save.
const LEAST_GAIN: f64 = 0.6;

/// The best choice of earlier columns so far.
struct Choice {
    /// Bits of a first value.
    bits: f64,
    chosen: Vec<usize>,
    weights: Vec<f64>,
    /// Mean distance that the choice leaves.
    left: f64,
}

/// Sets the taps on first values of every column of numbers for which they pay.
pub(super) fn fit_first(grid: &Grid, schema: &mut Schema) {
    for at in 1..schema.columns.len() {
        let column = &schema.columns[at];
        let number = matches!(
            column.kind,
            ColumnKind::I64 | ColumnKind::F32 | ColumnKind::F64
        );
        let by_rank = column.params.memory != 0 && column.params.scale != Scale::Levels;
        if number && !by_rank && column.params.reference_bits > 0 {
            if let Some((taps, bits)) = fit_column(grid, schema, at) {
                let params = &mut schema.columns[at].params;
                params.first_taps = taps;
                params.first_bits = bits;
            }
        }
    }
}

/// The taps of a column, and the bits of the mean distance that they leave.
fn fit_column(grid: &Grid, schema: &Schema, at: usize) -> Option<(Taps<MAX_FIRST_TAPS>, u8)> {
    let every = grid.rows().div_ceil(SAMPLE).max(1);
    let rows: Vec<usize> = (0..grid.rows())
        .step_by(every)
        .filter(|&row| grid.is_present(row, at))
        .collect();
    if rows.len() < LEAST_ROWS {
        return None;
    }
    let levels =
        |column: usize| -> Vec<f64> { rows.iter().map(|&row| grid.level(row, column)).collect() };
    let columns: Vec<(usize, Vec<f64>)> = (0..at)
        .rev()
        .take(COLUMNS)
        .filter(|&column| schema.columns[column].kind != ColumnKind::Str)
        .map(|column| (column, levels(column)))
        .collect();
    let choice = choose(&columns, &levels(at))?;
    let mut taps = Taps::NONE;
    for (&i, weight) in choice.chosen.iter().zip(choice.weights) {
        taps.push(Tap {
            column: u16::try_from(columns[i].0).ok()?,
            lag: 0,
            weight: weight16(weight)?,
        });
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates"
    )]
    let bits = bit_len(choice.left as u64).min(58);
    Some((taps, u8::try_from(bits).ok()?))
}

/// Adds the column that explains most of `targets` beside those chosen, while that saves enough.
fn choose(columns: &[(usize, Vec<f64>)], targets: &[f64]) -> Option<Choice> {
    let n = columns.len();
    let gram = gram(columns, targets);
    let before = cost(targets.iter().copied());
    let mut best: Option<Choice> = None;
    let mut chosen: Vec<usize> = Vec::new();
    while chosen.len() < MAX_FIRST_TAPS {
        let mut found: Option<(f64, usize, Vec<f64>)> = None;
        for next in (0..n).filter(|next| !chosen.contains(next)) {
            let mut with = chosen.clone();
            with.push(next);
            let Some(solved) = solve(&gram, &with, n) else {
                continue;
            };
            let explained = gain(&gram, &with, &solved, n);
            if found.as_ref().is_none_or(|(most, ..)| explained > *most) {
                found = Some((explained, next, solved));
            }
        }
        let Some((_, next, weights)) = found else {
            break;
        };
        chosen.push(next);
        let terms: Vec<&[f64]> = chosen.iter().map(|&i| columns[i].1.as_slice()).collect();
        let left: Vec<f64> = (0..targets.len())
            .map(|row| targets[row] - explained(&terms, &weights, row))
            .collect();
        let bits = cost(left.iter().copied());
        let least = best.as_ref().map_or(before, |best| best.bits);
        if bits < least - LEAST_GAIN {
            best = Some(Choice {
                bits,
                chosen: chosen.clone(),
                weights,
                left: mean(&left),
            });
        }
    }
    best
}

/// Weighted products of all columns with each other and, in the last column, with the targets.
#[expect(
    clippy::needless_range_loop,
    reason = "matrices are read by row and column"
)]
fn gram(columns: &[(usize, Vec<f64>)], targets: &[f64]) -> Vec<Vec<f64>> {
    let n = columns.len();
    let size = mean(targets);
    let weights: Vec<f64> = targets.iter().map(|t| 1.0 / (size + t.abs())).collect();
    let mut gram = alloc::vec![alloc::vec![0f64; n + 1]; n];
    for i in 0..n {
        for j in i..=n {
            let other = columns.get(j).map_or(targets, |(_, values)| values);
            let products = columns[i].1.iter().zip(other).zip(&weights);
            let sum = products.map(|((a, b), w)| a * b * w).sum();
            gram[i][j] = sum;
            if j < n {
                gram[j][i] = sum;
            }
        }
    }
    gram
}

fn mean(values: &[f64]) -> f64 {
    values.iter().map(|value| value.abs()).sum::<f64>() / count(values.len().max(1))
}
