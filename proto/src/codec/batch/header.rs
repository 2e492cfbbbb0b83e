//! The batch header: enough for forwarding and eviction, without the schema.
//!
//! A stream of bits, lowest first, padded with zeros to whole bytes; the bits of the range back end
//! follow without padding:
//!
//! | bits | what |
//! |---|---|
//! | 2 | back end: 0 varint, 1 Rice, 2 range; 3 is refused |
//! | 1 | times out of order: the first row is not the earliest, or the last not the latest |
//! | 1 | times of the rows in µs |
//! | 1 | rows differ in how many samples they have |
//! | 4 | unit of the two times below |
//! | graded 1 | schema number |
//! | graded 3 | rows, less one |
//! | graded 2 | samples of a row, the mean rounded up, less one |
//! | as many as the rows less one need | only if rows differ: samples that are missing to that many in every row |
//! | 1 | whether the earliest time lies in the era: from 1998-07-09 16:00 on, for 2^31 s |
//! | as many as the era needs | in the era: the earliest time, units from its start |
//! | 1, sized | else: whether the earliest time is negative, and it in units, each bit flipped if it is |
//! | sized | only with two rows or more: latest minus earliest time in units |
//!
//! Graded k is an exponential Golomb code: the value plus 2^k takes k + n + 1 bits; n ones, a zero,
//! and all of them but the highest. Sized is the number of the value's bits in 6 bits, then all of them but
//! the highest, or after 63 all 64.
//!
//! Units are 1, 10, 50, 100 µs, 1, 5, 10, 50, 100, 500 ms, 1, 5, 10, 30 s, 1 and 5 min: the largest
//! of which both are multiples.
//!
//! Schemas travel apart: a header holds the number of one, and a batch never brings parameters of its
//! own.

use crate::codec::DecodeError;
use crate::codec::bits::{BitReader, BitWriter, Bits, CodeError, Slice, bit_len};
#[cfg(feature = "alloc")]
use crate::schema::params::TimeParams;
use crate::varint::NoRoom;

pub use crate::schema::MAX_ROWS;

/// Most bytes of a header.
pub const MAX_HEADER_BYTES: usize = 36;
/// Start of the era of ordinary times: a whole number of every unit, so that a time counts in units from it.
const ERA_US: i64 = 900_000_000 * 1_000_000;
const ERA_SPAN_US: i64 = (1 << 31) * 1_000_000;
/// Most samples of a row: the hard limit of a schema's columns.
const MAX_WIDTH: u64 = 1_024;

/// How the symbols of a batch became bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BackEnd {
    /// Bitmaps and byte-aligned integers: the least work.
    Varint,
    /// Adaptive Rice codes.
    Rice,
    /// Adaptive models of bits and symbols, and a range coder.
    Range,
}

impl BackEnd {
    const fn number(self) -> u64 {
        match self {
            Self::Varint => 0,
            Self::Rice => 1,
            Self::Range => 2,
        }
    }
}

/// Facts about a batch that stand before its rows.
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

const UNITS_US: [i64; 16] = [
    1,
    10,
    50,
    100,
    1_000,
    5_000,
    10_000,
    50_000,
    100_000,
    500_000,
    1_000_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
];

impl BatchHeader {
    /// The first row is not the earliest, or the last not the latest.
    pub const OUT_OF_ORDER: u8 = 0x04;
    /// Times are coded in microseconds, because some are not whole ticks from the first.
    pub const FINE_TIMES: u8 = 0x08;

    /// The argument of a reader, whose values do not matter.
    const BLANK: Self = Self {
        schema_no: 0,
        back_end: BackEnd::Varint,
        flags: 0,
        rows: 1,
        samples: 0,
        first_time_us: 0,
        last_time_us: 0,
    };

    /// Reads the header at the start of a batch, without its schema.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are no header, or one of a later version.
    pub fn peek(payload: &[u8]) -> Result<Self, DecodeError> {
        Self::read(payload).map(|(header, _)| header)
    }

    /// Microseconds per tick of the batch's times.
    #[cfg(feature = "alloc")]
    pub(crate) const fn tick_us(&self, time: &TimeParams) -> u32 {
        if self.flags & Self::FINE_TIMES == 0 {
            time.tick_us
        } else {
            1
        }
    }

    /// The header and its length in bits: whole bytes, but with the range back end, whose bits follow
    /// at once.
    pub(crate) fn read(payload: &[u8]) -> Result<(Self, usize), DecodeError> {
        // The range coder leaves out zeros at its end, even those that belong to the header.
        let mut bytes = [0u8; MAX_HEADER_BYTES];
        let known = payload.len().min(MAX_HEADER_BYTES);
        bytes[..known].copy_from_slice(&payload[..known]);
        let mut bits = BitReader::new(&bytes);
        let read = Self::BLANK.code(&mut bits).and_then(|header| {
            if header.back_end != BackEnd::Range {
                bits.align()?;
            }
            Ok(header)
        });
        let header = read.map_err(|error| match error {
            CodeError::Decode(error) => error,
            CodeError::Full => DecodeError::Header,
        })?;
        let len = 8 * MAX_HEADER_BYTES - bits.left();
        if len / 8 > payload.len() {
            return Err(DecodeError::Short);
        }
        Ok((header, len))
    }

    /// Writes the header at the start of `out`; returns its length.
    ///
    /// # Errors
    /// [`NoRoom`]; [`MAX_HEADER_BYTES`] always suffice.
    pub fn write(&self, out: &mut [u8]) -> Result<usize, NoRoom> {
        self.write_bits(out).map(|(len, _)| len)
    }

    /// As [`BatchHeader::write`]; returns also how many bits of the last byte are the header's, 0 for
    /// all eight.
    pub(crate) fn write_bits(&self, out: &mut [u8]) -> Result<(usize, u32), NoRoom> {
        let mut bits = BitWriter::new(Slice::new(out));
        self.code(&mut bits).map_err(|_| NoRoom)?;
        let beyond = bits.beyond_bytes();
        let slice = bits.finish().map_err(|_| NoRoom)?;
        Ok((slice.len(), beyond))
    }

    /// Writes this header, or reads another one.
    fn code<B: Bits>(&self, bits: &mut B) -> Result<Self, CodeError> {
        let back_end = match bits.bits(self.back_end.number(), 2)? {
            0 => BackEnd::Varint,
            1 => BackEnd::Rice,
            2 => BackEnd::Range,
            _ => return Err(DecodeError::BackEnd(3).into()),
        };
        let mut flags = 0;
        for flag in [Self::OUT_OF_ORDER, Self::FINE_TIMES] {
            if bits.bit(self.flags & flag != 0)? {
                flags |= flag;
            }
        }
        let samples = u64::from(self.samples);
        let uneven = bits.bit(samples % u64::from(self.rows.max(1)) != 0)?;
        let (code, span_us) = self.unit_and_span();
        let unit = UNITS_US[(bits.bits(code, 4)? & 15) as usize];

        let schema_no = graded(bits, u64::from(self.schema_no), 1)?;
        let schema_no = u32::try_from(schema_no).map_err(|_| DecodeError::Header)?;
        let rows = graded(bits, u64::from(self.rows).saturating_sub(1), 3)? + 1;
        if rows > u64::from(MAX_ROWS) {
            return Err(DecodeError::Limit("rows").into());
        }
        let width = graded(bits, samples.div_ceil(rows).saturating_sub(1), 2)? + 1;
        if width > MAX_WIDTH {
            return Err(DecodeError::Limit("samples").into());
        }
        let missing = if uneven {
            bits.bits((width * rows).wrapping_sub(samples), bit_len(rows - 1))?
        } else {
            0
        };
        if uneven != (missing != 0) || missing >= rows {
            return Err(DecodeError::Header.into());
        }

        let era = ERA_US / unit;
        let since = (self.first_time_us / unit)
            .wrapping_sub(era)
            .cast_unsigned();
        let ages = (ERA_SPAN_US / unit).unsigned_abs();
        let first = if bits.bit(since < ages)? {
            let since = bits.bits(since, bit_len(ages - 1))?;
            if since >= ages {
                return Err(DecodeError::Header.into());
            }
            era.wrapping_add_unsigned(since)
        } else {
            let negative = bits.bit(self.first_time_us < 0)?;
            let flip = if negative { -1 } else { 0 };
            let first = sized(bits, ((self.first_time_us / unit) ^ flip).cast_unsigned())?;
            i64::try_from(first).map_err(|_| DecodeError::Header)? ^ flip
        };
        let span = if rows > 1 {
            sized(bits, span_us / unit.unsigned_abs())?
        } else {
            0
        };
        let first_time_us = first.checked_mul(unit).ok_or(DecodeError::Header)?;
        let last_time_us = span
            .checked_mul(unit.unsigned_abs())
            .and_then(|span_us| first_time_us.checked_add_unsigned(span_us))
            .ok_or(DecodeError::Header)?;
        Ok(Self {
            schema_no,
            back_end,
            flags,
            // Both are below 2^26 by the checks above.
            rows: (rows & 0xffff) as u32,
            samples: ((width * rows - missing) & 0xffff_ffff) as u32,
            first_time_us,
            last_time_us,
        })
    }

    /// The number of the largest unit that suits, and the time from the first to the last row.
    fn unit_and_span(&self) -> (u64, u64) {
        let span_us = self
            .last_time_us
            .wrapping_sub(self.first_time_us)
            .cast_unsigned();
        // Factors of two rule out most units without a division.
        let twos = (self.first_time_us.cast_unsigned() | span_us).trailing_zeros();
        let fits = |unit: &i64| {
            unit.trailing_zeros() <= twos
                && self.first_time_us % unit == 0
                && span_us.is_multiple_of(unit.unsigned_abs())
        };
        let code = UNITS_US.iter().rposition(fits).unwrap_or(0);
        (code as u64, span_us)
    }
}

/// An exponential Golomb code; values below 2^33.
fn graded<B: Bits>(bits: &mut B, value: u64, k: u32) -> Result<u64, CodeError> {
    let above = value + (1 << k);
    let more = bits.unary(bit_len(above) - 1 - k, 32)?;
    let len = k + more;
    let low = bits.bits(above & ((1 << len) - 1), len)?;
    Ok((low | 1 << len) - (1 << k))
}

/// A number after its length in bits.
fn sized<B: Bits>(bits: &mut B, value: u64) -> Result<u64, CodeError> {
    let len = bits.bits(u64::from(bit_len(value).min(63)), 6)?;
    match u32::try_from(len).unwrap_or(63) {
        0 => Ok(0),
        63 => bits.bits(value, 64),
        len => {
            let top = 1u64 << (len - 1);
            Ok(top | bits.bits(value & (top - 1), len - 1)?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_rows_are_read_and_wider_ones_are_refused() {
        let header = |rows: u32, samples: u32| {
            let header = BatchHeader {
                schema_no: 7,
                back_end: BackEnd::Rice,
                flags: 0,
                rows,
                samples,
                first_time_us: 0,
                last_time_us: 1,
            };
            let mut out = [0; MAX_HEADER_BYTES];
            header
                .write(&mut out)
                .map(|_| BatchHeader::peek(&out).map(|read| read == header))
        };
        let widest = u32::try_from(MAX_WIDTH).unwrap();
        assert_eq!(header(2, 2 * widest), Ok(Ok(true)));
        // A writer refuses a header that no reader takes.
        assert_eq!(header(2, 2 * widest + 1), Err(NoRoom));
        let mut bits = [0; MAX_HEADER_BYTES];
        let mut writer = BitWriter::new(Slice::new(&mut bits));
        writer.bits(1, 9).unwrap();
        for (value, k) in [(0, 1), (0, 3), (MAX_WIDTH, 2)] {
            graded(&mut writer, value, k).unwrap();
        }
        writer.finish().unwrap();
        assert_eq!(BatchHeader::peek(&bits), Err(DecodeError::Limit("samples")));
    }
}
