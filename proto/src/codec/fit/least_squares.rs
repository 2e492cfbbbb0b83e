//! Weighted least squares over a few terms.

use alloc::vec::Vec;

/// Most terms of a prediction: bounds the time of a fit, which solves anew for each candidate.
pub(super) const MAX_CHOSEN: usize = 5;

/// Solves again with less weight for rows that the terms do not explain, so that outliers do not count.
/// Returns the cheapest of all solutions and its bits per residual.
///
/// - `terms`: each term's value per row; `solved` are the first weights.
/// - `mean`: mean size of the targets.
#[expect(
    clippy::needless_range_loop,
    reason = "matrices are read by row and column"
)]
pub(super) fn settle(
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
            .map(|row| targets[row] - explained(terms, &solved, row))
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

/// The sum of weighted terms in a row.
pub(super) fn explained(terms: &[&[f64]], weights: &[f64], row: usize) -> f64 {
    let products = terms.iter().zip(weights).map(|(t, w)| t[row] * w);
    products.sum()
}

/// Estimated bits per residual.
pub(super) fn cost(residuals: impl Iterator<Item = f64>) -> f64 {
    let (mut bits, mut n) = (0f64, 0f64);
    for residual in residuals {
        let size = residual.abs() * 2.0 + 1.0;
        bits += log2(size);
        n += 1.0;
    }
    bits / n.max(1.0)
}

/// Close to the logarithm of a number from one up: exact at powers of two, straight between.
fn log2(value: f64) -> f64 {
    let bits = value.to_bits();
    let fraction = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52) - 1.0;
    float((bits >> 52).cast_signed() - 1023) + fraction
}

/// Solves for the chosen terms by elimination; `None` if they are not independent, or more than
/// [`MAX_CHOSEN`]. Column `n` of `gram` holds the targets.
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

/// How much of the targets the chosen terms explain with these weights.
pub(super) fn gain(gram: &[Vec<f64>], chosen: &[usize], weights: &[f64], n: usize) -> f64 {
    let products = chosen.iter().zip(weights).map(|(&i, w)| gram[i][n] * w);
    products.sum()
}

/// A weight in 1/65,536; `None` if it is no number or too large for one.
pub(super) fn weight16(weight: f64) -> Option<i64> {
    let scaled = weight * 65_536.0;
    if scaled.is_nan() || scaled.abs() >= 9e18 {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "checked above")]
    let weight = scaled as i64;
    Some(weight)
}

#[expect(clippy::cast_precision_loss, reason = "a fit is an estimate")]
pub(super) const fn count(count: usize) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "a fit is an estimate")]
pub(super) const fn float(value: i64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_independent_terms_are_solved_and_a_sixth_is_refused() {
        let n = MAX_CHOSEN + 1;
        let gram: Vec<Vec<f64>> = (0..n)
            .map(|i| {
                (0..=n)
                    .map(|j| if i == j || j == n { 2.0 } else { 0.0 })
                    .collect()
            })
            .collect();
        let all: Vec<usize> = (0..n).collect();
        assert_eq!(
            solve(&gram, &all[1..], n),
            Some(alloc::vec![1.0; MAX_CHOSEN])
        );
        assert_eq!(solve(&gram, &all, n), None);
    }
}
