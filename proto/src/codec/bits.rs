//! Bits into bytes and back, lowest first. One trait serves both ways, so that one row coder does too.

use super::DecodeError;

/// Bits that a value needs.
#[inline]
pub(crate) const fn bit_len(value: u64) -> u32 {
    64 - value.leading_zeros()
}

/// Why coding a row stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeError {
    /// Encoding: the output is full.
    Full,
    /// Decoding: the bytes are not what an encoder writes.
    Decode(DecodeError),
}

impl From<DecodeError> for CodeError {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

/// A stream of bits. An encoder writes its arguments and returns them; a decoder ignores them and
/// returns the bits that it reads.
pub trait Bits {
    /// Whether the stream is written.
    const WRITES: bool;

    /// `count` bits (0 to 64), of which the higher ones of `value` are 0.
    ///
    /// # Errors
    /// [`CodeError`] if the output is full or the input is out.
    fn bits(&mut self, value: u64, count: u32) -> Result<u64, CodeError>;

    /// One bit.
    ///
    /// # Errors
    /// As [`Bits::bits`].
    #[inline]
    fn bit(&mut self, bit: bool) -> Result<bool, CodeError> {
        Ok(self.bits(u64::from(bit), 1)? != 0)
    }

    /// `count` ones and a zero, at most `most` ones; at `most` no zero follows.
    ///
    /// # Errors
    /// As [`Bits::bits`].
    fn unary(&mut self, count: u32, most: u32) -> Result<u32, CodeError>;

    /// Zero bits up to the next whole byte.
    ///
    /// # Errors
    /// As [`Bits::bits`], and a decoder refuses ones.
    fn align(&mut self) -> Result<(), CodeError>;
}

/// Where finished bytes go.
pub trait Sink {
    /// Appends bytes; false if they do not fit.
    fn append(&mut self, bytes: &[u8]) -> bool;
}

/// A slice that is filled from its start.
#[derive(Debug)]
pub struct Slice<'a> {
    bytes: &'a mut [u8],
    len: usize,
}

impl<'a> Slice<'a> {
    /// Fills `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, len: 0 }
    }

    /// How much is filled.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// How many bytes are left.
    #[must_use]
    pub const fn room(&self) -> usize {
        self.bytes.len() - self.len
    }

    /// Whether nothing is filled.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Sink for Slice<'_> {
    #[inline]
    fn append(&mut self, bytes: &[u8]) -> bool {
        let end = self.len + bytes.len();
        let Some(place) = self.bytes.get_mut(self.len..end) else {
            return false;
        };
        place.copy_from_slice(bytes);
        self.len = end;
        true
    }
}

#[cfg(feature = "alloc")]
impl Sink for &mut alloc::vec::Vec<u8> {
    #[inline]
    fn append(&mut self, bytes: &[u8]) -> bool {
        self.extend_from_slice(bytes);
        true
    }
}

/// Writes bits to a sink, four bytes at a time.
#[derive(Debug)]
pub struct BitWriter<S> {
    sink: S,
    held: u64,
    count: u32,
}

impl<S: Sink> BitWriter<S> {
    /// Appends to `sink`.
    #[must_use]
    pub const fn new(sink: S) -> Self {
        Self {
            sink,
            held: 0,
            count: 0,
        }
    }

    /// The sink; up to four more bytes are held.
    #[must_use]
    pub const fn sink(&self) -> &S {
        &self.sink
    }

    /// How many bits of the last byte are held: all before are whole bytes.
    #[must_use]
    pub const fn beyond_bytes(&self) -> u32 {
        self.count & 7
    }

    /// Flushes the last bits, padded with zeros, and returns the sink.
    ///
    /// # Errors
    /// [`CodeError::Full`].
    pub fn finish(mut self) -> Result<S, CodeError> {
        let bytes = self.held.to_le_bytes();
        if self.sink.append(&bytes[..self.count.div_ceil(8) as usize]) {
            Ok(self.sink)
        } else {
            Err(CodeError::Full)
        }
    }
}

impl<S: Sink> Bits for BitWriter<S> {
    const WRITES: bool = true;

    #[inline]
    fn bits(&mut self, value: u64, count: u32) -> Result<u64, CodeError> {
        if count > 32 {
            self.bits(value & 0xffff_ffff, 32)?;
            self.bits(value >> 32, count - 32)?;
            return Ok(value);
        }
        // At most 31 bits are held, so 32 more fit.
        self.held |= value << self.count;
        self.count += count;
        if self.count >= 32 {
            let [a, b, c, d, ..] = self.held.to_le_bytes();
            if !self.sink.append(&[a, b, c, d]) {
                return Err(CodeError::Full);
            }
            self.held >>= 32;
            self.count -= 32;
        }
        Ok(value)
    }

    #[inline]
    fn unary(&mut self, count: u32, most: u32) -> Result<u32, CodeError> {
        let mut left = count;
        while left >= 31 {
            self.bits(0x7fff_ffff, 31)?;
            left -= 31;
        }
        self.bits((1 << left) - 1, if count < most { left + 1 } else { left })?;
        Ok(count)
    }

    #[inline]
    fn align(&mut self) -> Result<(), CodeError> {
        self.bits(0, self.count.wrapping_neg() & 7)?;
        Ok(())
    }
}

/// Reads bits from a slice.
#[derive(Debug)]
pub struct BitReader<'a> {
    rest: &'a [u8],
    held: u64,
    count: u32,
}

impl<'a> BitReader<'a> {
    /// From the start of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            held: 0,
            count: 0,
        }
    }

    /// Checks that nothing but the padding of the last byte is left.
    ///
    /// # Errors
    /// [`DecodeError::Long`].
    pub const fn finish(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() && self.count < 8 && self.held == 0 {
            Ok(())
        } else {
            Err(DecodeError::Long)
        }
    }

    /// How many bits have not been read.
    #[must_use]
    pub const fn left(&self) -> usize {
        self.rest.len() * 8 + self.count as usize
    }

    /// Holds at least 32 bits, or all that are left.
    #[inline]
    fn refill(&mut self) {
        if let Some((word, rest)) = self.rest.split_first_chunk::<4>() {
            self.held |= u64::from(u32::from_le_bytes(*word)) << self.count;
            self.count += 32;
            self.rest = rest;
        } else {
            while self.count < 32
                && let Some((&byte, rest)) = self.rest.split_first()
            {
                self.held |= u64::from(byte) << self.count;
                self.count += 8;
                self.rest = rest;
            }
        }
    }
}

impl Bits for BitReader<'_> {
    const WRITES: bool = false;

    #[inline]
    fn bits(&mut self, _: u64, count: u32) -> Result<u64, CodeError> {
        if count > 32 {
            let low = self.bits(0, 32)?;
            return Ok(low | self.bits(0, count - 32)? << 32);
        }
        if self.count < count {
            self.refill();
            if self.count < count {
                return Err(CodeError::Decode(DecodeError::Short));
            }
        }
        let value = self.held & ((1u64 << count) - 1);
        self.held >>= count;
        self.count -= count;
        Ok(value)
    }

    #[inline]
    fn unary(&mut self, _: u32, most: u32) -> Result<u32, CodeError> {
        let mut total = 0;
        loop {
            if self.count == 0 {
                self.refill();
                if self.count == 0 {
                    return Err(CodeError::Decode(DecodeError::Short));
                }
            }
            let ones = self.held.trailing_ones().min(self.count).min(most - total);
            // A shift by 64 cannot happen: at most 63 bits are held.
            self.held >>= ones;
            self.count -= ones;
            total += ones;
            if total == most {
                return Ok(total);
            }
            if self.count > 0 {
                self.held >>= 1;
                self.count -= 1;
                return Ok(total);
            }
        }
    }

    #[inline]
    fn align(&mut self) -> Result<(), CodeError> {
        // Whole bytes are read, so what is held beyond them is the padding.
        if self.bits(0, self.count & 7)? != 0 {
            return Err(CodeError::Decode(DecodeError::Invalid("padding")));
        }
        Ok(())
    }
}
