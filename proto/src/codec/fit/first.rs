//! Fits what earlier columns of a row tell of the first value of a series: a batch begins with
//! levels, and levels go together (current with power, humidity with temperature).

use alloc::vec::Vec;

use super::grid::Grid;
use super::least_squares::{cost, solve};
use crate::codec::bits::bit_len;
use crate::schema::params::{MAX_FIRST_TAPS, Scale, Tap, Taps};
use crate::schema::{ColumnKind, Schema};

/// Rows that are looked at, spread over all.
const SAMPLE: usize = 128;
/// Earlier columns that are looked at for one column.
const COLUMNS: usize = 12;
/// Bits that the taps must save of a first value.
const LEAST_GAIN: f64 = 0.6;

/// Sets the taps on first values of every column of numbers for which they pay.
pub(super) fn fit_first(grid: &Grid, schema: &mut Schema) {
    for at in 1..schema.columns.len() {
        let column = &schema.columns[at];
        let number = matches!(
            column.kind,
            ColumnKind::I64 | ColumnKind::F32 | ColumnKind::F64
        );
        let apart = column.params.memory != 0 && column.params.scale != Scale::Levels;
        if number && !apart && column.params.reference_bits > 0 {
            if let Some((taps, bits)) = fit_column(grid, schema, at) {
                let params = &mut schema.columns[at].params;
                params.first_taps = taps;
                params.first_bits = bits;
            }
        }
    }
}

#[expect(
    clippy::needless_range_loop,
    reason = "matrices are read by row and column"
)]
fn fit_column(grid: &Grid, schema: &Schema, at: usize) -> Option<(Taps<MAX_FIRST_TAPS>, u8)> {
    let every = grid.rows().div_ceil(SAMPLE).max(1);
    let rows: Vec<usize> = (0..grid.rows())
        .step_by(every)
        .filter(|&row| grid.is_present(row, at))
        .collect();
    if rows.len() < 32 {
        return None;
    }
    let level =
        |column: usize| -> Vec<f64> { rows.iter().map(|&row| grid.level(row, column)).collect() };
    let targets = level(at);
    let size = mean(&targets);
    let weights: Vec<f64> = targets.iter().map(|t| 1.0 / (size + t.abs())).collect();
    let mut columns: Vec<(usize, Vec<f64>)> = Vec::new();
    for column in (0..at).rev().take(COLUMNS) {
        if schema.columns[column].kind != ColumnKind::Str {
            columns.push((column, level(column)));
        }
    }
    let n = columns.len();
    let mut gram = alloc::vec![alloc::vec![0f64; n + 1]; n];
    for i in 0..n {
        for j in i..=n {
            let other = columns.get(j).map_or(&targets, |(_, values)| values);
            let products = columns[i].1.iter().zip(other).zip(&weights);
            let sum = products.map(|((a, b), w)| a * b * w).sum();
            gram[i][j] = sum;
            if j < n {
                gram[j][i] = sum;
            }
        }
    }
    let before = cost(targets.iter().copied());
    let mut best: Option<(f64, Vec<usize>, Vec<f64>, f64)> = None;
    let mut chosen: Vec<usize> = Vec::new();
    while chosen.len() < MAX_FIRST_TAPS {
        let mut gain: Option<(f64, usize, Vec<f64>)> = None;
        for next in (0..n).filter(|next| !chosen.contains(next)) {
            let mut with = chosen.clone();
            with.push(next);
            let Some(solved) = solve(&gram, &with, n) else {
                continue;
            };
            let explained: f64 = with.iter().zip(&solved).map(|(&i, w)| gram[i][n] * w).sum();
            if gain.as_ref().is_none_or(|(most, ..)| explained > *most) {
                gain = Some((explained, next, solved));
            }
        }
        let Some((_, next, solved)) = gain else { break };
        chosen.push(next);
        let left: Vec<f64> = (0..rows.len())
            .map(|row| {
                let told = chosen.iter().zip(&solved);
                targets[row] - told.map(|(&i, w)| columns[i].1[row] * w).sum::<f64>()
            })
            .collect();
        let bits = cost(left.iter().copied());
        let least = best.as_ref().map_or(before, |(bits, ..)| *bits);
        if bits < least - LEAST_GAIN {
            best = Some((bits, chosen.clone(), solved, mean(&left)));
        }
    }
    let (_, chosen, solved, left) = best?;
    let mut taps = Taps::NONE;
    for (&i, weight) in chosen.iter().zip(solved) {
        let scaled = weight * 65_536.0;
        if scaled.is_nan() || scaled.abs() >= 9e18 {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "checked above")]
        let weight = scaled as i64;
        let column = u16::try_from(columns[i].0).ok()?;
        taps.push(Tap {
            column,
            lag: 0,
            weight,
        });
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates"
    )]
    let bits = bit_len(left as u64).min(58);
    Some((taps, u8::try_from(bits).ok()?))
}

fn mean(values: &[f64]) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a fit is an estimate")]
    let count = values.len().max(1) as f64;
    values.iter().map(|value| value.abs()).sum::<f64>() / count
}
