//! Core: the print of a place in a file: a hash of the bytes before it. It tells whether what stands there
//! now is what was read, under whatever name, and so outlives renaming, copying and a reused inode.
//!
//! A polynomial over the bytes, so that the print of the next line costs only its own bytes (Karp and
//! Rabin, "Efficient randomized pattern-matching algorithms", 1987), folded to 32 bits.

/// Bytes before a place that its print covers: some lines with their times, and one read of a disk.
pub const WINDOW_BYTES: usize = 512;

/// Odd, so that no byte's weight is ever zero.
const BASE: u64 = 0x9e37_79b9_7f4a_7c15;
/// The weight of the byte that leaves the window.
const LEAVING: u64 = power(BASE, WINDOW_BYTES);

/// The hash of all bytes up to a place, from that of the place before and the bytes between; 0 where nothing
/// stands before.
#[must_use]
pub fn extend(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| add(hash, *byte))
}

/// How many bytes before `offset` its print covers.
#[must_use]
pub fn window_before(offset: u64) -> usize {
    usize::try_from(offset).map_or(WINDOW_BYTES, |offset| offset.min(WINDOW_BYTES))
}

/// The print of a place behind exactly these bytes.
#[must_use]
pub fn print(window: &[u8]) -> u32 {
    fold(window.iter().fold(0, |hash, byte| add(hash, *byte)))
}

/// The prints of places in one piece of a file, each further on than the one before.
#[derive(Debug)]
pub struct Prints<'a> {
    bytes: &'a [u8],
    at: usize,
    hash: u64,
}

impl<'a> Prints<'a> {
    /// - `bytes`: begin at least [`WINDOW_BYTES`] before `start`, or where the file begins.
    /// - `start`: no place before it is asked for.
    #[must_use]
    pub fn new(bytes: &'a [u8], start: usize) -> Self {
        let window = &bytes[start.saturating_sub(WINDOW_BYTES)..start];
        Self {
            bytes,
            at: start,
            hash: window.iter().fold(0, |hash, byte| add(hash, *byte)),
        }
    }

    /// The print of the place `at` in the piece.
    pub fn at(&mut self, at: usize) -> u32 {
        while self.at < at {
            self.hash = add(self.hash, self.bytes[self.at]);
            if let Some(left) = self.at.checked_sub(WINDOW_BYTES) {
                let weight = weight_of(self.bytes[left]).wrapping_mul(LEAVING);
                self.hash = self.hash.wrapping_sub(weight);
            }
            self.at += 1;
        }
        fold(self.hash)
    }
}

const fn add(hash: u64, byte: u8) -> u64 {
    hash.wrapping_mul(BASE).wrapping_add(weight_of(byte))
}

/// More than zero: a zero byte counts too.
const fn weight_of(byte: u8) -> u64 {
    byte as u64 + 1
}

const fn power(base: u64, exponent: usize) -> u64 {
    let (mut product, mut left) = (1_u64, exponent);
    while left > 0 {
        product = product.wrapping_mul(base);
        left -= 1;
    }
    product
}

/// The upper half of a product: there each bit depends on all bits of the hash.
pub(super) const fn fold(hash: u64) -> u32 {
    ((hash ^ (hash >> 32)).wrapping_mul(BASE) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_print_that_moves_on_is_that_of_its_window(
            bytes in proptest::collection::vec(any::<u8>(), 0..4 * WINDOW_BYTES),
            start in 0..4 * WINDOW_BYTES, steps in proptest::collection::vec(0..300_usize, 0..20),
        ) {
            let mut at = start.min(bytes.len());
            let mut prints = Prints::new(&bytes, at);
            for step in steps {
                at = (at + step).min(bytes.len());
                let window = &bytes[at - window_before(at as u64)..at];
                prop_assert_eq!(prints.at(at), print(window));
            }
        }
    }

    #[test]
    fn a_byte_that_differs_within_the_window_makes_another_print() {
        let line = b"2026-11-30T12:00:00 pump-7 pressure above the limit\n".repeat(10);
        let window = &line[line.len() - WINDOW_BYTES..];
        for at in [0, 1, 255, WINDOW_BYTES - 1] {
            let mut other = window.to_vec();
            other[at] ^= 1;
            assert_ne!(print(window), print(&other), "{at}");
        }
        assert_ne!(print(b""), print(b"\0"));
        assert_ne!(print(b"\0"), print(b"\0\0"));
    }

    #[test]
    fn the_window_ends_where_the_file_begins() {
        assert_eq!(window_before(3), 3);
        assert_eq!(window_before(u64::MAX), WINDOW_BYTES);
    }
}
