//! Texts of a batch: numbers in the dictionary, and the bytes of new ones.

use crate::codec::DecodeError;
use crate::codec::bits::{Bits, CodeError, bit_len};
use crate::codec::model::{Class, Plan, Symbol};
use crate::schema::MAX_VALUE_TEXT_BYTES;

/// Length in 8 bits after which the length follows in 16.
const LONG_TEXT: u64 = 255;

/// Bytes of new texts: a writer returns them, a reader takes them.
pub trait Texts {
    /// Writing: byte `at` of the new text of `column`.
    fn byte(&mut self, column: usize, at: usize) -> u8;
    /// Reading: the next byte of the new text of `column`.
    ///
    /// # Errors
    /// [`CodeError`] if the text passes a limit.
    fn take(&mut self, column: usize, byte: u8) -> Result<(), CodeError>;
    /// How many new texts of `column` the batch holds so far.
    fn added(&self, column: usize) -> u32;
}

/// For schemas without text.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoTexts;

impl Texts for NoTexts {
    fn byte(&mut self, _: usize, _: usize) -> u8 {
        0
    }
    fn take(&mut self, _: usize, _: u8) -> Result<(), CodeError> {
        Ok(())
    }
    fn added(&self, _: usize) -> u32 {
        0
    }
}

/// The number of a text in the dictionary, or a new text.
pub(crate) fn text<B: Bits>(
    bits: &mut B,
    plan: &Plan,
    symbol: &mut Symbol,
    column: usize,
    texts: &mut impl Texts,
) -> Result<(), CodeError> {
    let new = u64::from(plan.texts + texts.added(column)) + 1;
    let code = if symbol.class == Class::Raw {
        new
    } else {
        symbol.code
    };
    let code = bits.bits(code, bit_len(new))?;
    if code > new {
        return Err(CodeError::Decode(DecodeError::Invalid("text number")));
    }
    if code < new {
        *symbol = Symbol {
            class: Class::Number,
            correction: 0,
            code,
        };
        return Ok(());
    }
    let len = new_text(bits, symbol.code, column, texts)?;
    *symbol = Symbol {
        class: Class::Raw,
        correction: 0,
        code: len,
    };
    Ok(())
}

/// Length and bytes of a new text. The length takes 8 bits; from [`LONG_TEXT`] on, those 8 bits are
/// [`LONG_TEXT`], and 16 bits follow.
pub(crate) fn new_text<B: Bits>(
    bits: &mut B,
    len: u64,
    column: usize,
    texts: &mut impl Texts,
) -> Result<u64, CodeError> {
    let short = bits.bits(len.min(LONG_TEXT), 8)? & 0xff;
    let len = if short < LONG_TEXT {
        short
    } else {
        bits.bits(len, 16)? & 0xffff
    };
    if len > MAX_VALUE_TEXT_BYTES as u64 {
        return Err(CodeError::Decode(DecodeError::Invalid("text")));
    }
    for at in 0..usize::try_from(len).unwrap_or(0) {
        let byte = if B::WRITES { texts.byte(column, at) } else { 0 };
        let byte = (bits.bits(u64::from(byte), 8)? & 0xff) as u8;
        texts.take(column, byte)?;
    }
    Ok(len)
}
