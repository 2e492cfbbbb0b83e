//! Taps: weights with which other values of a row and of earlier rows add to a prediction.

#[cfg(feature = "alloc")]
use super::next;
#[cfg(feature = "alloc")]
use crate::varint;

/// Most taps of a column: bounds the work of a reader per value.
pub const MAX_TAPS: usize = 8;

/// Most taps on the first value of a column: bounds the work of a reader per series.
pub const MAX_FIRST_TAPS: usize = 2;

/// One term of a fitted prediction: `weight` / 2^16 times the distance of a value from its column's
/// reference. The value is of the row, or of an earlier row of the series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Tap {
    /// An earlier column, or the column itself; that at lag 0 is always one.
    pub column: u16,
    /// 0 for this row, 1 to 3 for earlier values.
    pub lag: u8,
    /// In 1/65,536.
    pub weight: i64,
}

/// Up to `N` taps of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Taps<const N: usize = MAX_TAPS> {
    taps: [Tap; N],
    len: u8,
}

impl<const N: usize> Default for Taps<N> {
    fn default() -> Self {
        Self::NONE
    }
}

impl<const N: usize> Taps<N> {
    /// None.
    pub const NONE: Self = Self {
        taps: [Tap {
            column: 0,
            lag: 0,
            weight: 0,
        }; N],
        len: 0,
    };

    /// Adds a tap; false if there are `N` already.
    pub fn push(&mut self, tap: Tap) -> bool {
        let Some(place) = self.taps.get_mut(usize::from(self.len)) else {
            return false;
        };
        *place = tap;
        self.len += 1;
        true
    }

    /// All of them.
    #[must_use]
    #[inline]
    pub fn as_slice(&self) -> &[Tap] {
        &self.taps[..usize::from(self.len)]
    }

    /// Whether there is none.
    #[must_use]
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[cfg(feature = "alloc")]
    pub(super) fn encode(&self, out: &mut alloc::vec::Vec<u8>) {
        out.push(self.len);
        for tap in self.as_slice() {
            varint::append(out, u64::from(tap.column) << 2 | u64::from(tap.lag));
            varint::append(out, varint::zigzag(tap.weight));
        }
    }

    /// At least one tap.
    #[cfg(feature = "alloc")]
    pub(super) fn decode(bytes: &[u8], at: &mut usize) -> Option<Self> {
        let mut taps = Self::NONE;
        for _ in 0..next(bytes, at)? {
            let place = varint::get(bytes, at)?;
            let tap = Tap {
                column: u16::try_from(place >> 2).ok()?,
                lag: (place & 3) as u8,
                weight: varint::unzigzag(varint::get(bytes, at)?),
            };
            if !taps.push(tap) {
                return None;
            }
        }
        (!taps.is_empty()).then_some(taps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tap_beyond_the_bound_is_refused() {
        let mut taps = Taps::<MAX_TAPS>::NONE;
        for _ in 0..MAX_TAPS {
            assert!(taps.push(Tap::default()));
        }
        assert!(!taps.push(Tap::default()));
        let mut first = Taps::<MAX_FIRST_TAPS>::NONE;
        for _ in 0..MAX_FIRST_TAPS {
            assert!(first.push(Tap::default()));
        }
        assert!(!first.push(Tap::default()));

        let mut bytes = alloc::vec::Vec::new();
        taps.encode(&mut bytes);
        assert_eq!(Taps::<MAX_TAPS>::decode(&bytes, &mut 0), Some(taps));
        assert_eq!(Taps::<MAX_FIRST_TAPS>::decode(&bytes, &mut 0), None);
        bytes[0] += 1;
        bytes.extend([0, 0]);
        assert_eq!(Taps::<MAX_TAPS>::decode(&bytes, &mut 0), None);
    }
}
