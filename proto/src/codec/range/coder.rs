//! An arithmetic coder: adaptive bits and symbols of 16-bit probability into bytes and back, and bits of even
//! odds beside them.
//!
//! The encoder keeps the low end of an interval and its width, both in 64 bits; each bit narrows
//! the interval to the part that belongs to it. When the width falls below 2^32 the upper 32 bits
//! go out, so that a byte of output costs a quarter of a branch. Carries wait in the last word that
//! went out and the run of full words after it. A reader that passes the end of the bytes takes zeros.
//!
//! Bits of even odds take their part of the interval, or stand beside it: gathered from the first on, the
//! first in the lowest place of a byte, their bytes stand at the end of the stream in reverse. A reader
//! takes them from the end backwards, so no length is needed. The last bytes of the interval then form a
//! number that stays within it whichever bytes follow.
//!
//! # Source
//! The carry scheme is that of Schindler's range coder and LZMA, with words in place of bytes.

use alloc::vec::Vec;
use core::cmp::Ordering;

use super::models::{FAST, Model, SLOW, Symbols, VALUES};
use crate::codec::DecodeError;
use crate::codec::bits::{Bits, CodeError, Sink};

/// Most bytes that a reader may take beyond the end: the encoder leaves out that many of its last words.
const MAX_BEYOND: usize = 8;

/// A stream of bits with probabilities. An encoder writes its arguments and returns them; a decoder
/// ignores them and returns the bits that it reads.
pub(crate) trait Coder {
    /// Whether the stream is written.
    const WRITES: bool;

    /// A bit that is a one with probability `p` of 65,536, which is neither 0 nor 65,536.
    fn biased(&mut self, p: u32, bit: bool) -> bool;

    /// `count` bits (0 to 16) of even odds.
    fn even(&mut self, value: u32, count: u32) -> u32;

    /// One of several parts of 65,536, which follow each other. `find` returns the part's start and size;
    /// a reader gives it the place of the number, of 65,536.
    fn part(&mut self, find: impl FnOnce(u32) -> (u32, u32));

    /// A symbol predicted by the mean of two models, the first of which forgets faster. They learn from it
    /// with `learn`.
    #[inline(always)]
    fn symbol(
        &mut self,
        (fast, slow): (&mut Symbols, &mut Symbols),
        symbol: u32,
        learn: bool,
    ) -> u32 {
        let mut symbol = symbol % VALUES;
        self.part(|target| {
            if !Self::WRITES {
                let below = (1..VALUES).map(|at| fast.below(at) + slow.below(at));
                symbol = below.map(|below| u32::from(below <= target)).sum::<u32>() % VALUES;
            }
            let low = fast.below(symbol) + slow.below(symbol);
            let high = fast.below(symbol + 1) + slow.below(symbol + 1);
            (low, high.wrapping_sub(low))
        });
        if learn {
            fast.learn(symbol, FAST);
            slow.learn(symbol, SLOW);
        }
        symbol
    }

    /// An adaptive bit.
    #[inline(always)]
    fn bit(&mut self, model: &mut Model, bit: bool) -> bool {
        self.bit_if(model, bit, true)
    }

    /// An adaptive bit; the model learns from it with `learn`.
    #[inline(always)]
    fn bit_if(&mut self, model: &mut Model, bit: bool, learn: bool) -> bool {
        let bit = self.biased(u32::from(model.probability()), bit);
        if learn {
            model.learn(bit, SLOW);
        }
        bit
    }

    /// A bit predicted by the mean of two models, the first of which forgets faster.
    #[inline(always)]
    fn mixed(&mut self, fast: &mut Model, slow: &mut Model, bit: bool, learn: bool) -> bool {
        let bit = self.biased(
            (u32::from(fast.probability()) + u32::from(slow.probability())) >> 1,
            bit,
        );
        if learn {
            fast.learn(bit, FAST);
            slow.learn(bit, SLOW);
        }
        bit
    }

    /// `count` bits (0 to 64) of even odds; the value has no more.
    fn raw(&mut self, value: u64, count: u32) -> u64;
}

/// Where the upper half of an interval goes, or where the words below it come from.
pub(crate) trait Words {
    /// Whether they are written.
    const WRITES: bool;

    /// Moves an interval's place up by 32 bits.
    fn shift(&mut self, place: u64, carry: bool) -> u64;

    /// At most 32 bits beside the interval; the value has no more.
    fn beside(&mut self, value: u64, count: u32) -> u64;
}

/// The number within an interval that takes the fewest bytes, the count of these, and whether it lies
/// beyond the end of 64 bits. Zeros follow its bytes, or any bytes with bits `aside`.
fn ending(low: u64, width: u64, aside: bool) -> (u64, usize, bool) {
    for bytes in 0..8u32 {
        let below = u64::MAX.checked_shr(8 * bytes).unwrap_or(0);
        let (sum, over) = low.overflowing_add(below);
        let number = sum & !below;
        // Wraps around to the right distance when the sum did.
        let above = number.wrapping_sub(low);
        let most = if aside { below } else { 0 };
        if above < width && width - 1 - above >= most {
            return (number, bytes as usize, over);
        }
    }
    // A width of at least 2^32 returned before.
    (low, 8, false)
}

/// The width of the interval after so many bits (0 to 7).
const fn width_after(count: u32) -> u64 {
    if count == 0 {
        u64::MAX
    } else {
        1 << (64 - count)
    }
}

/// The bytes of a word: its highest bit becomes the lowest of the first byte.
const fn lowest_first(word: u32) -> [u8; 4] {
    word.reverse_bits().to_le_bytes()
}

/// An interval of a stream of words.
#[derive(Debug)]
pub(crate) struct Range<W> {
    words: W,
    /// Writer: the interval's low end. Reader: distance of the number from it.
    place: u64,
    width: u64,
    carry: bool,
    /// Whether raw bits stand beside the interval: from the end of the bytes backwards.
    aside: bool,
}

/// Writes an interval to a sink.
pub(crate) type RangeWriter<'a, S> = Range<Written<'a, S>>;
/// Reads what a [`RangeWriter`] wrote.
pub(crate) type RangeReader<'a> = Range<Unread<'a>>;

/// Words that left the interval, until no carry can reach them.
#[derive(Debug)]
pub(crate) struct Written<'a, S> {
    sink: S,
    /// Raw bits, the first in the lowest place of the first byte; `bits` holds the last ones.
    aside: &'a mut Vec<u8>,
    bits: u64,
    count: u32,
    /// The last word that is not full, and how many full ones follow it.
    held: Option<u32>,
    full: u32,
    overflowed: bool,
}

impl<S: Sink> Written<'_, S> {
    fn release(&mut self, carry: bool) {
        let carry = u32::from(carry);
        if let Some(held) = self.held {
            self.overflowed |= !self.sink.append(&lowest_first(held.wrapping_add(carry)));
        }
        let word = lowest_first(u32::MAX.wrapping_add(carry));
        while self.full > 0 {
            self.overflowed |= !self.sink.append(&word);
            self.full -= 1;
        }
    }
}

impl<S: Sink> Words for Written<'_, S> {
    const WRITES: bool = true;

    #[cold]
    #[inline(never)]
    fn shift(&mut self, place: u64, carry: bool) -> u64 {
        let word = (place >> 32) as u32;
        if carry || word != u32::MAX || self.held.is_none() {
            self.release(carry);
            self.held = Some(word);
        } else {
            self.full += 1;
        }
        place << 32
    }

    #[inline(always)]
    fn beside(&mut self, value: u64, count: u32) -> u64 {
        self.bits |= value << self.count;
        self.count += count;
        if self.count >= 32 {
            self.aside
                .extend_from_slice(&((self.bits & 0xffff_ffff) as u32).to_le_bytes());
            self.bits >>= 32;
            self.count -= 32;
        }
        value
    }
}

impl<'a, S: Sink> RangeWriter<'a, S> {
    /// Begins with `count` bits (0 to 7), the first in the lowest place of `bits`. With `aside` raw bits
    /// stand beside the interval, and are gathered in `gathered`.
    pub(crate) fn new(
        sink: S,
        (bits, count): (u8, u32),
        (aside, gathered): (bool, &'a mut Vec<u8>),
    ) -> Self {
        gathered.clear();
        Self {
            aside,
            words: Written {
                sink,
                aside: gathered,
                bits: 0,
                count: 0,
                held: None,
                full: 0,
                overflowed: false,
            },
            place: (bits as u64).reverse_bits(),
            width: width_after(count),
            carry: false,
        }
    }

    /// Ends the stream with as few bytes as form a number within the interval.
    ///
    /// # Errors
    /// [`CodeError::Full`].
    pub(crate) fn finish(self) -> Result<S, CodeError> {
        let mut words = self.words;
        let (number, bytes, over) = ending(self.place, self.width, self.aside);
        words.release(self.carry | over);
        let last = number.reverse_bits().to_le_bytes();
        words.overflowed |= !words.sink.append(&last[..bytes]);
        if self.aside {
            let rest = words.bits.to_le_bytes();
            words
                .aside
                .extend_from_slice(&rest[..words.count.div_ceil(8) as usize]);
            words.aside.reverse();
            words.overflowed |= !words.sink.append(words.aside);
        }
        if words.overflowed {
            Err(CodeError::Full)
        } else {
            Ok(words.sink)
        }
    }
}

/// The bytes that were not read yet, and the count of those taken beyond the end.
#[derive(Debug)]
pub(crate) struct Unread<'a> {
    all: usize,
    rest: &'a [u8],
    beyond: usize,
    /// The last 64 bits.
    window: u64,
    /// Raw bits: from the end backwards.
    aside: &'a [u8],
    bits: u64,
    count: u32,
    /// How many raw bits have been taken.
    taken: u64,
}

impl Unread<'_> {
    #[inline]
    fn word(&mut self) -> u32 {
        let mut word = [0u8; 4];
        if let Some((first, rest)) = self.rest.split_first_chunk::<4>() {
            self.rest = rest;
            word = *first;
        } else {
            word[..self.rest.len()].copy_from_slice(self.rest);
            self.beyond += 4 - self.rest.len();
            self.rest = &[];
        }
        let word = u32::from_le_bytes(word).reverse_bits();
        self.window = self.window << 32 | u64::from(word);
        word
    }

    /// The next raw bits; zeros beyond the first byte.
    #[cold]
    #[inline(never)]
    fn more(&mut self) {
        let mut word = [0u8; 4];
        if let Some((rest, last)) = self.aside.split_last_chunk::<4>() {
            self.aside = rest;
            word = *last;
        } else {
            word[4 - self.aside.len()..].copy_from_slice(self.aside);
            self.aside = &[];
        }
        self.bits |= u64::from(u32::from_be_bytes(word)) << self.count;
        self.count += 32;
    }
}

impl Words for Unread<'_> {
    const WRITES: bool = false;

    #[cold]
    #[inline(never)]
    fn shift(&mut self, place: u64, _: bool) -> u64 {
        place << 32 | u64::from(self.word())
    }

    #[inline(always)]
    fn beside(&mut self, _: u64, count: u32) -> u64 {
        if self.count < count {
            self.more();
        }
        let value = self.bits & ((1 << count) - 1);
        self.bits >>= count;
        self.count -= count;
        self.taken += u64::from(count);
        value
    }
}

impl<'a> RangeReader<'a> {
    /// From the start of `bytes`, of which the first `count` bits (0 to 7) are known.
    pub(crate) fn new(bytes: &'a [u8], count: u32, aside: bool) -> Self {
        let mut words = Unread {
            all: bytes.len(),
            rest: bytes,
            beyond: 0,
            window: 0,
            aside: bytes,
            bits: 0,
            count: 0,
            taken: 0,
        };
        let width = width_after(count);
        let mut place = u64::from(words.word()) << 32;
        place |= u64::from(words.word());
        if count > 0 {
            place &= width - 1;
        }
        Self {
            words,
            place,
            width,
            carry: false,
            aside,
        }
    }

    /// Checks that no more bytes were taken beyond the end than a writer leaves out.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    #[inline]
    pub(crate) const fn check(&self) -> Result<(), DecodeError> {
        if self.words.beyond > MAX_BEYOND || self.words.taken.div_ceil(8) > self.words.all as u64 {
            Err(DecodeError::Short)
        } else {
            Ok(())
        }
    }

    /// Checks that all bytes have been read.
    ///
    /// # Errors
    /// [`DecodeError::Long`], and as [`RangeReader::check`].
    pub(crate) fn finish(&self) -> Result<(), DecodeError> {
        self.check()?;
        let words = &self.words;
        // The writer's low end follows from the number and its distance from the low end.
        let low = words.window.wrapping_sub(self.place);
        let (_, last, _) = ending(low, self.width, self.aside);
        let read = words.all - words.rest.len() + words.beyond;
        let raw = usize::try_from(words.taken.div_ceil(8)).unwrap_or(usize::MAX);
        match (read - 8 + last + raw).cmp(&words.all) {
            Ordering::Less => Err(DecodeError::Long),
            Ordering::Equal => Ok(()),
            Ordering::Greater => Err(DecodeError::Short),
        }
    }
}

impl<W: Words> Range<W> {
    /// Narrows the interval to `width` from `above` its low end on.
    #[inline(always)]
    fn narrow(&mut self, above: u64, width: u64) {
        if W::WRITES {
            let (place, carry) = self.place.overflowing_add(above);
            self.place = place;
            self.carry |= carry;
        } else {
            self.place = self.place.wrapping_sub(above);
        }
        self.width = width;
        if width >> 32 == 0 {
            self.place = self.words.shift(self.place, self.carry);
            self.carry = false;
            self.width <<= 32;
        }
    }
}

impl<W: Words> Coder for Range<W> {
    const WRITES: bool = W::WRITES;

    #[inline(always)]
    fn biased(&mut self, p: u32, bit: bool) -> bool {
        let bound = (self.width >> 16).wrapping_mul(u64::from(p));
        let bit = if W::WRITES { bit } else { self.place < bound };
        // Masks in place of a branch: a bit that costs bits is one that the processor cannot predict.
        let zero = u64::from(bit).wrapping_sub(1);
        let width = (bound & !zero) | (self.width.wrapping_sub(bound) & zero);
        self.narrow(bound & zero, width);
        bit
    }

    #[inline(always)]
    fn part(&mut self, find: impl FnOnce(u32) -> (u32, u32)) {
        let part = self.width >> 16;
        let mut target = 0;
        if !W::WRITES {
            // A number beyond the interval, which no writer makes, stands for the last part.
            target = (self.place / part).min(0xffff);
        }
        let (low, size) = find((target & 0xffff) as u32);
        let above = part.wrapping_mul(u64::from(low));
        self.narrow(above, part.wrapping_mul(u64::from(size)));
    }

    #[inline(always)]
    fn even(&mut self, value: u32, count: u32) -> u32 {
        let width = self.width >> count;
        let mut value = u64::from(value);
        if !W::WRITES {
            value = (self.place / width).min((1 << count) - 1);
        }
        self.narrow(value.wrapping_mul(width), width);
        (value & 0xffff) as u32
    }

    #[inline(always)]
    fn raw(&mut self, value: u64, count: u32) -> u64 {
        debug_assert!(
            !W::WRITES || value.checked_shr(count).unwrap_or(0) == 0,
            "more bits"
        );
        if self.aside {
            if count <= 32 {
                return self.words.beside(value, count);
            }
            let low = self.words.beside(value & 0xffff_ffff, 32);
            return low | self.words.beside(value >> 32, count - 32) << 32;
        }
        let (mut result, mut left) = (0, count);
        while left > 0 {
            let width = left.min(16);
            left -= width;
            let part = (value >> left) & ((1 << width) - 1);
            result = result << width | u64::from(self.even((part & 0xffff) as u32, width));
        }
        result
    }
}

/// Bits of even odds, for values without a model.
#[derive(Debug)]
pub(crate) struct Even<'a, C>(pub(crate) &'a mut C);

impl<C: Coder> Bits for Even<'_, C> {
    const WRITES: bool = C::WRITES;

    fn bits(&mut self, value: u64, count: u32) -> Result<u64, CodeError> {
        Ok(self.0.raw(value, count))
    }

    fn unary(&mut self, count: u32, most: u32) -> Result<u32, CodeError> {
        let mut found = 0;
        while found < most && self.bit(found < count)? {
            found += 1;
        }
        Ok(found)
    }

    fn align(&mut self) -> Result<(), CodeError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_takes_no_more_beyond_the_end_than_a_writer_leaves_out() {
        let mut reader = RangeReader::new(&[], 0, false);
        assert_eq!(reader.words.beyond, MAX_BEYOND);
        assert_eq!(reader.check(), Ok(()));
        for _ in 0..3 {
            reader.even(0, 16);
        }
        assert_eq!(reader.words.beyond, MAX_BEYOND + 4);
        assert_eq!(reader.check(), Err(DecodeError::Short));
    }
}
