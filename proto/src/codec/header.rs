//! The batch header: all that forwarding and eviction need, without the schema.
//!
//! | bytes | what |
//! |---|---|
//! | 1 to 5 | schema number, LEB128 |
//! | 1 | bits 0-1 back end, 2 times out of order, 3 times in µs, 4 own parameters (reserved, refused), 5-7 unit of the two times |
//! | 1 to 3 | rows |
//! | 1 to 4 | samples: twice as many as each row has, or if rows differ twice all of them plus one |
//! | 1 to 10 | earliest time in units, zigzag |
//! | 1 to 10 | latest minus earliest time in units |
//!
//! Units are 1, 10, 100 µs, 1, 10, 100 ms, 1 s and 1 min: the largest of which both are multiples.

use super::DecodeError;
use crate::varint::{self, NoRoom};

/// Most rows any batch may have, whatever the limits say.
pub const MAX_ROWS: u32 = 65_535;
/// Most bytes of a header.
pub const MAX_HEADER_BYTES: usize = 5 + 1 + 3 + 4 + 10 + 10;

/// How the symbols of a batch became bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BackEnd {
    /// Bitmaps and byte-aligned integers: the least work.
    Varint,
    /// Adaptive Rice codes.
    Rice,
    /// Adaptive binary models and a range coder.
    Range,
}

impl BackEnd {
    const fn to_u8(self) -> u8 {
        match self {
            Self::Varint => 0,
            Self::Rice => 1,
            Self::Range => 2,
        }
    }
}

/// What a batch says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BatchHeader {
    /// The schema's number within (origin, epoch).
    pub schema_no: u32,
    /// How its symbols are coded.
    pub back_end: BackEnd,
    /// [`BatchHeader::OUT_OF_ORDER`] and [`BatchHeader::FINE_TIMES`].
    pub flags: u8,
    /// How many rows it has, 1 to [`MAX_ROWS`].
    pub rows: u32,
    /// How many values are not missing, at least 1.
    pub samples: u32,
    /// The earliest time of a row, in µs since the Unix epoch (or boot, if the bundle says so).
    pub first_time_us: i64,
    /// The latest time of a row.
    pub last_time_us: i64,
}

const UNITS_US: [i64; 8] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 60_000_000];

impl BatchHeader {
    /// The first row is not the earliest.
    pub const OUT_OF_ORDER: u8 = 0x04;
    /// Times are coded in microseconds, because some are not whole ticks from the first.
    pub const FINE_TIMES: u8 = 0x08;
    /// The batch carries its own column parameters: reserved, refused by this build.
    pub const OWN_PARAMS: u8 = 0x10;

    /// Reads the header at the start of a batch, without its schema.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are no header, or one of a later version.
    pub fn peek(payload: &[u8]) -> Result<Self, DecodeError> {
        Self::read(payload).map(|(header, _)| header)
    }

    /// Microseconds per tick of the batch's times.
    #[cfg(feature = "alloc")]
    pub(crate) const fn tick_us(&self, time: &super::TimeParams) -> u32 {
        if self.flags & Self::FINE_TIMES == 0 {
            time.tick_us
        } else {
            1
        }
    }

    /// The header and its length.
    pub(crate) fn read(payload: &[u8]) -> Result<(Self, usize), DecodeError> {
        let mut at = 0;
        let schema_no = number(payload, &mut at)?;
        let head = *payload.get(at).ok_or(DecodeError::Short)?;
        at += 1;
        let back_end = match head & 0x03 {
            0 => BackEnd::Varint,
            1 => BackEnd::Rice,
            2 => BackEnd::Range,
            other => return Err(DecodeError::BackEnd(other)),
        };
        let flags = head & (Self::OUT_OF_ORDER | Self::FINE_TIMES | Self::OWN_PARAMS);
        if flags & Self::OWN_PARAMS != 0 {
            return Err(DecodeError::Flags(flags));
        }
        let rows = number(payload, &mut at)?;
        let shape = number(payload, &mut at)?;
        if rows == 0 || rows > MAX_ROWS {
            return Err(DecodeError::Limit("rows"));
        }
        let samples = if shape & 1 == 0 {
            (shape >> 1).saturating_mul(rows)
        } else {
            shape >> 1
        };
        if shape & 1 == 1 && samples.is_multiple_of(rows) {
            return Err(DecodeError::Header);
        }
        if samples == 0 || u64::from(samples) > u64::from(rows) * 1024 {
            return Err(DecodeError::Limit("samples"));
        }
        let unit = UNITS_US[usize::from(head >> 5)];
        let first = varint::unzigzag(varint::get(payload, &mut at).ok_or(DecodeError::Short)?);
        let span = varint::get(payload, &mut at).ok_or(DecodeError::Short)?;
        let first_time_us = first.checked_mul(unit).ok_or(DecodeError::Header)?;
        let span_us = span
            .checked_mul(unit.unsigned_abs())
            .ok_or(DecodeError::Header)?;
        let last_time_us = first_time_us
            .checked_add_unsigned(span_us)
            .ok_or(DecodeError::Header)?;
        let header = Self {
            schema_no,
            back_end,
            flags,
            rows,
            samples,
            first_time_us,
            last_time_us,
        };
        Ok((header, at))
    }

    /// Writes the header at the start of `out`; returns its length.
    ///
    /// # Errors
    /// [`NoRoom`]; [`MAX_HEADER_BYTES`] always suffice.
    pub fn write(&self, out: &mut [u8]) -> Result<usize, NoRoom> {
        let span_us = self
            .last_time_us
            .wrapping_sub(self.first_time_us)
            .cast_unsigned();
        let fits = |unit: &i64| {
            self.first_time_us % unit == 0 && span_us.is_multiple_of(unit.unsigned_abs())
        };
        let code = UNITS_US.iter().rposition(fits).unwrap_or(0);
        let unit = UNITS_US[code];
        let mut at = 0;
        varint::put(out, &mut at, u64::from(self.schema_no))?;
        // At most 7, so the shift keeps every bit.
        let code = u8::try_from(code).map_err(|_| NoRoom)?;
        *out.get_mut(at).ok_or(NoRoom)? = self.back_end.to_u8() | self.flags | code << 5;
        at += 1;
        varint::put(out, &mut at, u64::from(self.rows))?;
        let (rows, samples) = (u64::from(self.rows.max(1)), u64::from(self.samples));
        let shape = if samples.is_multiple_of(rows) {
            (samples / rows) << 1
        } else {
            samples << 1 | 1
        };
        varint::put(out, &mut at, shape)?;
        varint::put(out, &mut at, varint::zigzag(self.first_time_us / unit))?;
        varint::put(out, &mut at, span_us / unit.unsigned_abs())?;
        Ok(at)
    }
}

fn number(payload: &[u8], at: &mut usize) -> Result<u32, DecodeError> {
    let number = varint::get(payload, at).ok_or(DecodeError::Short)?;
    u32::try_from(number).map_err(|_| DecodeError::Header)
}
