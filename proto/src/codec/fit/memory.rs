//! Whether values that come again are cheaper by their rank among the recent ones.

use alloc::vec::Vec;

use super::values::{Sample, Split, as_float};
use crate::codec::bits::bit_len;
use crate::schema::params::MAX_MEMORY;
use crate::varint::zigzag;

/// Recent values that a column may remember: a coarse converter behind a formula gives few values,
/// but more than a handful.
pub(super) const MEMORIES: [u8; 2] = [32, MAX_MEMORY];

/// Estimated bits per value with a memory of so many values; `None` if no value comes again within it.
/// `width`: bits of a value without a quotient.
pub(super) fn with_memory(
    sample: &Sample<'_>,
    split: &[Split],
    width: f64,
    memory: u8,
) -> Option<f64> {
    let mut recent: Vec<u64> = Vec::with_capacity(usize::from(memory) + 1);
    let mut last = None;
    let (mut bits, mut hits) = (0f64, 0usize);
    for ((_, value), &(_, parts)) in sample.values().zip(split) {
        let quotient = parts.map(|(quotient, _)| quotient);
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
                bits += match (quotient, last) {
                    (Some(quotient), Some(last)) => {
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
        last = quotient.or(last);
    }
    (hits > 0).then(|| bits / as_float(split.len()))
}
