//! Whether values that come again are cheaper by their rank.

use alloc::vec::Vec;

use super::values::{as_float, values};
use crate::codec::batch::{Cells, Rows};
use crate::codec::bits::bit_len;
use crate::schema::params::MAX_MEMORY;
use crate::varint::zigzag;

/// How many recent values a column may remember: readings of a coarse converter that were computed
/// on are few, but more than a handful.
pub(super) const MEMORIES: [u8; 2] = [32, MAX_MEMORY];

/// Bits per value if the last distinct values are remembered.
pub(super) fn with_memory(
    rows: &Rows,
    cells: &Cells,
    split: &[(usize, Option<(i64, i8)>)],
    width: f64,
    memory: u8,
) -> Option<f64> {
    let mut recent: Vec<u64> = Vec::with_capacity(usize::from(memory) + 1);
    let mut last = None;
    let (mut bits, mut hits) = (0f64, 0usize);
    for ((_, value), (_, said)) in values(rows, cells).zip(split) {
        match recent.iter().position(|&other| other == value) {
            Some(rank) => {
                hits += 1;
                bits += if rank == 0 {
                    1.0
                } else if memory == MEMORIES[0] {
                    4.0 + as_float(rank) / 4.0
                } else {
                    6.0 + f64::from(bit_len(recent.len() as u64))
                };
                recent.remove(rank);
            }
            None => {
                bits += match (said, last) {
                    (Some((quotient, _)), Some(last)) => {
                        let code = zigzag(quotient.wrapping_sub(last));
                        3.5 + f64::from(bit_len(code))
                    }
                    (Some(_), None) => 16.0,
                    (None, _) => width + 3.0,
                };
                recent.truncate(usize::from(memory) - 1);
            }
        }
        recent.insert(0, value);
        last = said.map(|(quotient, _)| quotient).or(last);
    }
    (hits > 0).then(|| bits / as_float(split.len()))
}
