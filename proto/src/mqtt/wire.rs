//! Integers, strings and the variable length: read from the front of a slice, written to a sink that may
//! only count.

use super::{DecodeError, EncodeError, MAX_REMAINING_BYTES, MAX_TEXT_BYTES};

/// Takes `len` bytes.
pub(super) fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Result<&'a [u8], DecodeError> {
    let (front, rest) = bytes.split_at_checked(len).ok_or(DecodeError::Short)?;
    *bytes = rest;
    Ok(front)
}

/// Takes one byte.
pub(super) fn take_u8(bytes: &mut &[u8]) -> Result<u8, DecodeError> {
    let (&first, rest) = bytes.split_first().ok_or(DecodeError::Short)?;
    *bytes = rest;
    Ok(first)
}

/// Takes a big-endian integer of two bytes.
pub(super) fn take_u16(bytes: &mut &[u8]) -> Result<u16, DecodeError> {
    let (&first, rest) = bytes.split_first_chunk().ok_or(DecodeError::Short)?;
    *bytes = rest;
    Ok(u16::from_be_bytes(first))
}

/// Takes a big-endian integer of four bytes.
pub(super) fn take_u32(bytes: &mut &[u8]) -> Result<u32, DecodeError> {
    let (&first, rest) = bytes.split_first_chunk().ok_or(DecodeError::Short)?;
    *bytes = rest;
    Ok(u32::from_be_bytes(first))
}

/// Takes binary data with its length of two bytes.
pub(super) fn take_binary<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], DecodeError> {
    let len = take_u16(bytes)?;
    take(bytes, usize::from(len))
}

/// Takes a string. U+0000 is looked for in `check.rs`, for both directions.
pub(super) fn take_text<'a>(bytes: &mut &'a [u8]) -> Result<&'a str, DecodeError> {
    core::str::from_utf8(take_binary(bytes)?).map_err(|_| DecodeError::Text)
}

/// A variable byte integer at the front of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct VariableInteger {
    pub(super) value: u32,
    /// Bytes it took, 1 to 4.
    pub(super) len: usize,
}

impl VariableInteger {
    /// Whether fewer bytes can hold the value.
    pub(super) const fn is_padded(self) -> bool {
        self.len != variable_len(self.value)
    }

    /// Reads one; `None` while it may go on beyond the end of `bytes`.
    pub(super) fn peek(bytes: &[u8]) -> Result<Option<Self>, DecodeError> {
        let mut value = 0;
        for (at, &byte) in bytes.iter().take(4).enumerate() {
            value |= u32::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return Ok(Some(Self { value, len: at + 1 }));
            }
        }
        if bytes.len() < 4 {
            Ok(None)
        } else {
            Err(DecodeError::VariableInteger)
        }
    }
}

/// Takes a variable byte integer in its shortest form, as version 5 demands.
pub(super) fn take_variable(bytes: &mut &[u8]) -> Result<u32, DecodeError> {
    let number = VariableInteger::peek(bytes)?.ok_or(DecodeError::Short)?;
    if number.is_padded() {
        return Err(DecodeError::VariableInteger);
    }
    take(bytes, number.len)?;
    Ok(number.value)
}

/// Bytes of a variable byte integer.
pub(super) const fn variable_len(value: u32) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}

/// Bytes of a length that must fit a variable byte integer.
pub(super) fn variable(len: usize) -> Result<u32, EncodeError> {
    match u32::try_from(len) {
        Ok(value) if len <= MAX_REMAINING_BYTES => Ok(value),
        _ => Err(EncodeError::TooLarge),
    }
}

/// Where bytes go, or are only counted: one description of each packet serves for both.
pub(super) struct Sink<'a> {
    out: Option<&'a mut [u8]>,
    len: usize,
}

impl<'a> Sink<'a> {
    /// Counts.
    pub(super) const fn counter() -> Self {
        Self { out: None, len: 0 }
    }

    /// Writes to the start of `out`.
    pub(super) const fn writer(out: &'a mut [u8]) -> Self {
        Self {
            out: Some(out),
            len: 0,
        }
    }

    /// Bytes so far.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        let end = self
            .len
            .checked_add(bytes.len())
            .ok_or(EncodeError::TooLarge)?;
        if let Some(out) = &mut self.out {
            out.get_mut(self.len..end)
                .ok_or(EncodeError::NoRoom)?
                .copy_from_slice(bytes);
        }
        self.len = end;
        Ok(())
    }

    pub(super) fn put_u8(&mut self, value: u8) -> Result<(), EncodeError> {
        self.put(&[value])
    }

    pub(super) fn put_u16(&mut self, value: u16) -> Result<(), EncodeError> {
        self.put(&value.to_be_bytes())
    }

    pub(super) fn put_u32(&mut self, value: u32) -> Result<(), EncodeError> {
        self.put(&value.to_be_bytes())
    }

    pub(super) fn put_variable(&mut self, mut value: u32) -> Result<(), EncodeError> {
        loop {
            let low = (value & 0x7f) as u8;
            value >>= 7;
            if value == 0 {
                return self.put_u8(low);
            }
            self.put_u8(low | 0x80)?;
        }
    }

    pub(super) fn put_binary(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        match u16::try_from(bytes.len()) {
            Ok(len) => self.put_u16(len)?,
            Err(_) => return Err(EncodeError::Invalid(DecodeError::FieldTooLong)),
        }
        debug_assert!(bytes.len() <= MAX_TEXT_BYTES);
        self.put(bytes)
    }

    pub(super) fn put_text(&mut self, text: &str) -> Result<(), EncodeError> {
        self.put_binary(text.as_bytes())
    }
}
