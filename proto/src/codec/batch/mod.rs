//! Batches: rows in, bytes out, and back.

#[cfg(feature = "alloc")]
mod decode;
#[cfg(feature = "alloc")]
mod encode;
pub mod header;
#[cfg(feature = "alloc")]
mod plans;
#[cfg(feature = "alloc")]
mod rows;
pub mod stream;
#[cfg(feature = "alloc")]
mod texts;

#[cfg(feature = "alloc")]
pub use decode::{RowVisitor, decode};
#[cfg(feature = "alloc")]
pub use encode::{EncodeError, Encoder};
pub use header::{BackEnd, BatchHeader};
#[cfg(feature = "alloc")]
pub(crate) use rows::Cells;
#[cfg(feature = "alloc")]
pub use rows::{RowError, Rows};
