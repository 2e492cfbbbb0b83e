//! The code of a row's series.

use crate::codec::DecodeError;
use crate::codec::bits::{Bits, CodeError, bit_len};

/// Codes whether a row's series is the expected one, and which it is if not.
pub(crate) fn code_series<B: Bits>(
    bits: &mut B,
    series: u32,
    expected: u32,
    count: u32,
) -> Result<u32, CodeError> {
    if !bits.bit(series != expected)? {
        return Ok(expected);
    }
    let width = bit_len(u64::from(count.saturating_sub(1)));
    known_series(bits.bits(u64::from(series), width)?, count)
}

/// Checks that the schema has the series.
pub(crate) fn known_series(series: u64, count: u32) -> Result<u32, CodeError> {
    u32::try_from(series)
        .ok()
        .filter(|&series| series < count)
        .ok_or(CodeError::Decode(DecodeError::Invalid("series")))
}
