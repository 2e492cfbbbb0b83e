//! The values of a column that a fit looks at, and sums over them.

use alloc::vec::Vec;

use crate::codec::batch::{Cells, Rows};
use crate::codec::model::Plan;
use crate::schema::params::Params;

/// The rows of a fit, seen from one of their columns.
pub(super) struct Sample<'a> {
    pub(super) rows: &'a Rows,
    pub(super) cells: &'a Cells,
    /// Whether a row may lack the value.
    pub(super) nullable: bool,
    /// Series of the schema.
    pub(super) series: usize,
}

/// Series of a present value, with the value's quotient and correction if it has both.
pub(super) type Split = (usize, Option<(i64, i8)>);

impl<'a> Sample<'a> {
    /// Present values as (series, bits), in order.
    pub(super) fn values(&self) -> impl Iterator<Item = (usize, u64)> + Clone + use<'a> {
        let cells = self.cells;
        cells
            .present
            .iter()
            .zip(&cells.bits)
            .zip(&self.rows.series)
            .filter(|((present, _), _)| **present)
            .map(|((_, &bits), &series)| (series as usize, bits))
    }

    /// The column's plan under these parameters.
    pub(super) fn plan(&self, params: Params, levels: &[i64]) -> Plan {
        Plan::new(self.cells.kind, self.nullable, params, 0).with_levels(levels)
    }

    /// Present values as a plan splits them, in order.
    pub(super) fn split(&self, plan: &Plan) -> Vec<Split> {
        self.values()
            .map(|(series, bits)| (series, plan.split(bits)))
            .collect()
    }
}

/// Series and quotient of the values that have one, in order.
pub(super) fn quotients(split: &[Split]) -> impl Iterator<Item = (usize, i64)> + '_ {
    split
        .iter()
        .filter_map(|&(series, parts)| parts.map(|(quotient, _)| (series, quotient)))
}

pub(super) fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// The mean of some values, rounded down; 0 of none.
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

/// A count of bits as a parameter, at most 255.
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
