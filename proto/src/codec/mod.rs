//! Batches: rows of one schema, losslessly compressed.

pub mod bits;
#[cfg(feature = "alloc")]
mod decode;
#[cfg(feature = "alloc")]
mod encode;
#[cfg(feature = "alloc")]
mod fit;
pub mod header;
pub mod model;
pub mod params;
pub mod rice;
#[cfg(feature = "alloc")]
mod rows;
pub mod scale;
pub mod stream;
#[cfg(feature = "alloc")]
mod table;
mod varint_rows;

#[cfg(feature = "alloc")]
pub use decode::{RowVisitor, decode};
#[cfg(feature = "alloc")]
pub use encode::{EncodeError, Encoder};
#[cfg(feature = "alloc")]
pub use fit::fit;
pub use header::{BackEnd, BatchHeader};
pub use params::{Params, Scale, TimeParams};
#[cfg(feature = "alloc")]
pub use rows::{RowError, Rows};

/// What a decoder allows; checked before anything is allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Rows of a batch.
    pub rows: u32,
    /// Columns of a schema.
    pub columns: u32,
    /// Series of a schema.
    pub series: u32,
    /// Rows times columns of a batch.
    pub cells: u32,
    /// Series times columns: how many histories a decoder may keep.
    pub states: u32,
    /// Labels of a series, and tags of a schema.
    pub labels: u32,
    /// Bytes of the texts of a column's dictionary, and of the new texts of one batch.
    pub text_bytes: u32,
}

impl Limits {
    /// What a collector allows unless it is told otherwise.
    pub const DEFAULT: Self = Self {
        rows: 10_000,
        columns: 128,
        series: 256,
        cells: 1 << 20,
        states: 1 << 16,
        labels: 32,
        text_bytes: 1 << 16,
    };
    /// What no configuration may pass.
    pub const HARD: Self = Self {
        rows: header::MAX_ROWS,
        columns: 1_024,
        series: 4_096,
        cells: 1 << 26,
        states: 1 << 16,
        labels: 64,
        text_bytes: 1 << 20,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Why bytes are not a batch of the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end before the batch does.
    #[error("the batch ends too early")]
    Short,
    /// Bytes are left over after the last row.
    #[error("bytes are left over after the last row")]
    Long,
    /// A back end this build does not read.
    #[error("codec back end {0} is unknown here")]
    BackEnd(u8),
    /// Flags this build does not read.
    #[error("batch flags {0:#04x} are unknown here")]
    Flags(u8),
    /// The header contradicts itself.
    #[error("the batch header is invalid")]
    Header,
    /// More of something than the limits allow.
    #[error("the batch passes the limit of {0}")]
    Limit(&'static str),
    /// A symbol that no encoder writes.
    #[error("the batch has an invalid {0}")]
    Invalid(&'static str),
    /// The rows do not add up to what the header says.
    #[error("the rows do not fit the batch header")]
    Mismatch,
}
