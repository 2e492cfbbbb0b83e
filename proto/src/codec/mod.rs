//! Batches: rows of one schema, losslessly compressed.
//!
//! One residual model ([`model`], [`params`]) turns the cells of a row into small integers, and one of
//! three back ends turns those into bytes: varints, Rice codes (both small enough for a
//! microcontroller), or adaptive bits and symbols of a range coder, which take the fewest bytes. The
//! schema holds what was learnt of each column by [`fit`], so that a batch of ten rows need not learn it
//! again.
//!
//! What pays, in bytes per sample at 100 rows (geometric mean over nine public sets, with frame,
//! header and checksum): Rice 1.02; range coder 0.96; steps of converters (a vibration sensor of 12
//! bits printed with three digits, 1.06 to 0.91) and parts of a unit printed with 15 digits (averages
//! in a room, 1.39 to 1.09) together 0.90; taps on other columns (voltage and current from power,
//! humidity from temperatures, speed from distance) 0.89; class models of the column beside the shared
//! ones, and faster first steps of all models, 0.88; one flag per row for all that comes as foretold,
//! times on a grid or of a steady step, and a shorter header, 0.865. At 10 rows, where 7 to 8 bytes of
//! frame and as many of header weigh most, these last steps and taps on the first values of a batch
//! took 1.33 to 1.28. Values that come again and are neighbours (what a converter gives through a
//! formula) coded as ranks among the schema's levels: 1.2773 to 1.2625 at 10 rows, 0.8647 to 0.8569
//! at 100, 0.8030 to 0.7964 at 1,000; and of a simulated thermistor, on which they were developed, to a
//! third and less (2.31 to 0.80, 1.44 to 0.35, 0.96 to 0.28). Levels are taken where batches that are
//! coded for the trial take fewer bytes: estimates alone let a set of motion sensors take 5 to 8 % more.
//! Classes of magnitude told as one symbol of sixteen, where they were bits one after the other: 1.2613 to
//! 1.2553, 0.8570 to 0.8542 and 0.7965 to 0.7958, and with numbers split in blocks of rows about three
//! quarters of the time to encode.
//!
//! What that time then went into was the row: with each cell all that its column needs was fetched anew.
//! Blocks of rows coded column by column take 1.2577, 0.8542 and 0.7949, and three quarters of the time
//! again. What was done since for time costs some of these bytes: bits below the leading one are of even odds
//! (0.1, 0.4 and 0.5 % more, a tenth of the instructions, a quarter of the branches that are foretold
//! wrongly); from 512 cells on such bits stand beside the interval, at the end of the batch (two thirds of a
//! byte more: 0.1 % of eight columns at 100 rows); after 64 numbers a column's models learn from every
//! fourth (0.4 % more at 1,000 rows), and signs that are as good as even are told without a model (nothing).
//! Zeros among residuals that are far below what is expected, told first, took 1 % off a set whose sensors
//! are read more often than they measure. In all 1.258, 0.859 and 0.804, at about half of the time of the
//! rows at 100 and 1,000.
//!
//! What was tried and did not pay: to keep taps back until a series has as many rows as they look
//! back to (house power at 10 rows 0.80 to 0.81); models without a count of their own bits that
//! start from the shared one (0.3 % more at 10 rows); slower forgetting (counts up to 250 instead of
//! 90, 0.1 % more); a slower or quicker pair of means than 1/8 and 1/32 (0.1 %), or quicker ones for
//! the first rows (0.2 % more at 10 rows); means that follow the size of residuals beyond 40 bits (1.5 %
//! more on noise in full doubles); the expected class in the middle of the sixteen (1.8 % more at 10 rows:
//! what is sudden is larger, not smaller); classes far below the expected one without models (0.3 % more,
//! and 46 bits for each value after an outlier); all signs without models (0.3 % at 100 rows, 0.5 % at
//! 1,000); models that learn from every fourth number after 32 (0.1 % more for one instruction in a
//! hundred) or from every eighth (0.3 % more at 1,000 rows, for as little); blocks of 32 rows (the same
//! bytes, more branches foretold wrongly); the coder's interval in registers from the first bit of a value
//! to its last (3 % more instructions); a filter that learns its weights by their signs (LMS) over two or
//! four differences, started anew nowhere, estimated: 0.3 to 3.2 % fewer bits on vibration and 0.5 to
//! 0.8 % on gyroscopes and accelerometers, 0.1 to 8 % more on nearly all else.
//!
//! What pays and was left out: models and histories that go on from batch to batch, so that a batch of ten
//! rows begins with what those before it taught. It takes 12.1 % off at 10 rows, 3.5 % at 100, 0.4 % at
//! 1,000, and would make every batch unreadable after one that is evicted, refused or damaged; each record
//! of a spool and of a journal is to be readable alone. With it, parameters fitted to each batch and sent
//! with it where that is shorter would save another 0.0 %, 0.3 % and 0.9 %; the agent fits anew when
//! batches get dearer instead.

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
