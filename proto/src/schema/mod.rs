//! Schemas: the meaning of a batch's columns, how they are coded, and the bytes of both.
//!
//! A schema is immutable once numbered: a new column, a new series or newly fitted parameters make
//! a new number, and old numbers stay decodable. Its bytes are canonical: equal schemas have equal
//! bytes, so a hash of them names the schema.
//!
//! | part | bytes |
//! |---|---|
//! | version | 1, now 1 |
//! | time | tick in µs, expected step in ticks, start jitter: varints |
//! | columns | count; each: kind and flags (1), name, unit, parameters, dictionary of a text column, levels (the first, then distances) of a column that ranks them |
//! | series | count; each: count of labels, (key, value)... |
//! | tags | count; (key, value)... |
//!
//! Integers are LEB128 (signed ones in zigzag), texts a length and UTF-8 bytes.

mod limits;
#[cfg(feature = "alloc")]
mod owned;
pub mod params;

pub use limits::{Limits, MAX_ROWS};
#[cfg(feature = "alloc")]
pub use owned::{Column, Schema, SchemaError, Series};

/// The type of a column's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ColumnKind {
    /// `bool`.
    Bool,
    /// `i64`.
    I64,
    /// `f32`, bit for bit.
    F32,
    /// `f64`, bit for bit.
    F64,
    /// Text of at most [`MAX_VALUE_TEXT_BYTES`].
    Str,
}

impl ColumnKind {
    /// Its number on the wire.
    #[must_use]
    pub const fn to_u8(self) -> u8 {
        match self {
            Self::Bool => 0,
            Self::I64 => 1,
            Self::F32 => 2,
            Self::F64 => 3,
            Self::Str => 4,
        }
    }

    /// The kind of a number, if there is one.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Bool),
            1 => Some(Self::I64),
            2 => Some(Self::F32),
            3 => Some(Self::F64),
            4 => Some(Self::Str),
            _ => None,
        }
    }
}

/// Longest text value, name, unit, label or tag in bytes.
pub const MAX_TEXT_BYTES: usize = 255;
/// Longest text value in bytes: as long as the longest line that a source reads.
pub const MAX_VALUE_TEXT_BYTES: usize = 16 * 1024;
/// The schema version this build writes.
pub const VERSION: u8 = 1;
