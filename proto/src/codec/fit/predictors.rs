//! Which predictor leaves the smallest residuals.

use alloc::vec::Vec;

use super::values::{Split, as_float64, quotients, sixteenths};
use crate::codec::bits::bit_len;
use crate::schema::params::Predictor;
use crate::varint::zigzag;

/// The residuals of a predictor in three numbers.
#[derive(Clone, Copy, Default)]
pub(super) struct Left {
    /// Bits per value in a Rice code or with a flag for zero, whichever is less.
    pub(super) bits: f64,
    /// Mean residual in zigzag, in 1/16.
    pub(super) mean16: u64,
    /// Share of zeros in sixteenths.
    pub(super) zero_share: u8,
}

/// Sums over the residuals of one predictor.
#[derive(Clone, Copy, Default)]
struct Sums {
    /// In 1/16 bit.
    bits16: u64,
    zeros: u64,
    all: u128,
    nonzero: u128,
}

/// The predictor that leaves least, and what it leaves.
pub(super) fn best_predictor(split: &[Split], series: usize, reference: i64) -> (Left, Predictor) {
    let mut past: Vec<Option<[i64; 3]>> = alloc::vec![None; series];
    let mut sums = [Sums::default(); Predictor::ALL.len()];
    let mut count = 0u64;
    for (series, quotient) in quotients(split) {
        let before = past[series];
        if let Some(before) = before {
            count += 1;
            for (sums, predictor) in sums.iter_mut().zip(Predictor::ALL) {
                let code = zigzag(quotient.wrapping_sub(predictor.predict(before, reference)));
                sums.zeros += u64::from(code == 0);
                sums.all += u128::from(code);
                sums.nonzero += u128::from(code.saturating_sub(1));
                sums.bits16 += bits16(code);
            }
        }
        past[series] = Some(before.map_or([quotient; 3], |[a, b, _]| [quotient, a, b]));
    }
    let left = sums.map(|sums| sums.left(count));
    let mut best = (left[0], Predictor::ALL[0]);
    for pair in left.into_iter().zip(Predictor::ALL) {
        if pair.0.bits < best.0.bits {
            best = pair;
        }
    }
    best
}

impl Sums {
    fn left(self, count: u64) -> Left {
        if count == 0 {
            return Left {
                bits: 0.0,
                mean16: 64,
                zero_share: 8,
            };
        }
        let zero_share = sixteenths(self.zeros, count);
        // A flagged column keeps the mean of what is not zero.
        let (sum, among) = if zero_share >= 6 && self.zeros < count {
            (self.nonzero, count - self.zeros)
        } else {
            (self.all, count)
        };
        let mean16 = u64::try_from(sum.saturating_mul(16) / u128::from(among)).unwrap_or(u64::MAX);
        let share = as_float64(self.zeros) / as_float64(count);
        Left {
            bits: as_float64(self.bits16) / 16.0 / as_float64(count) + 1.0 - share,
            mean16,
            zero_share,
        }
    }
}

/// Bits of a code in 1/16: those it needs, and how far it lies above its power of two.
pub(super) const fn bits16(code: u64) -> u64 {
    if code == 0 {
        return 0;
    }
    let len = bit_len(code);
    let below = (code << (64 - len)) << 1;
    (len as u64) << 4 | below >> 60
}
