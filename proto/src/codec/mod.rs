//! Batches: rows of one schema, losslessly compressed.
//!
//! A model turns the cells of a row into small integers, and one of three back ends turns those into
//! bytes: varints, Rice codes (both small enough for a microcontroller), or adaptive bits and symbols of
//! a range coder, which take the fewest bytes. The schema holds what [`fit`] learnt of each column, so
//! that a batch of ten rows need not learn it again.
//!
//! | module | holds |
//! |---|---|
//! | [`bits`] | streams of bits, both ways |
//! | [`model`] | values as residuals: scale, unit, predictor, history |
//! | `row` | the varint and Rice back ends, row by row |
//! | `range` | the range back end, block by block |
//! | `batch` | header, rows, encoders and decoder |
//! | `fit` | the choice of a schema's parameters |
//!
//! `proto/CODEC.md` introduces the codec, draws its format, and has the figures of what was tried.

mod batch;
pub mod bits;
#[cfg(feature = "alloc")]
mod fit;
pub mod model;
#[cfg(feature = "alloc")]
mod range;
mod row;

pub use crate::schema::Limits;
pub use crate::schema::params::{self, Params, Scale, TimeParams};
pub use batch::{BackEnd, BatchHeader, header, stream};
#[cfg(feature = "alloc")]
pub use batch::{EncodeError, Encoder, RowError, RowVisitor, Rows, decode};
#[cfg(feature = "alloc")]
pub use fit::fit;
pub use model::scale;
pub use row::rice;

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
