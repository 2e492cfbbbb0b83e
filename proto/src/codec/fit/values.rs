//! The values of a column, and what is counted over them.

use crate::codec::batch::{Cells, Rows};

/// Present values of a column as (series, bits), in order.
pub(super) fn values<'a>(
    rows: &'a Rows,
    cells: &'a Cells,
) -> impl Iterator<Item = (usize, u64)> + Clone + 'a {
    cells
        .present
        .iter()
        .zip(&cells.bits)
        .zip(&rows.series)
        .filter(|((present, _), _)| **present)
        .map(|((_, &bits), &series)| (series as usize, bits))
}

pub(super) fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

pub(super) fn mean(values: impl Iterator<Item = u64>) -> u64 {
    let (sum, count) = values.fold((0u128, 0u128), |(sum, count), value| {
        (sum + u128::from(value), count + 1)
    });
    u64::try_from(sum / count.max(1)).unwrap_or(u64::MAX)
}

/// `part` of `whole` in sixteenths, 0 to 15.
pub(super) fn sixteenths(part: u64, whole: u64) -> u8 {
    u8::try_from(part * 16 / whole.max(1)).unwrap_or(15).min(15)
}

pub(super) fn small(bits: u32) -> u8 {
    u8::try_from(bits).unwrap_or(u8::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "a price is an estimate")]
pub(super) const fn as_float64(count: u64) -> f64 {
    count as f64
}

pub(super) const fn as_float(count: usize) -> f64 {
    as_float64(count as u64)
}
