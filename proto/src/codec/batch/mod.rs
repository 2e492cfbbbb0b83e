//! Batches: rows become bytes, and bytes become rows.
//!
//! | module | holds |
//! |---|---|
//! | `header` | the bytes that stand before the rows, as a table |
//! | `rows` | rows as they are gathered |
//! | `encode`, `decode` | all three back ends, with allocation |
//! | `stream` | the encoder of a microcontroller, without |
//! | `texts`, `plans` | numbers of texts, and columns as the model sees them |

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
