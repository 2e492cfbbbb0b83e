//! The range back end: every cell as adaptive bits and symbols, with the fewest bytes of the three.
//!
//! Rows are coded in blocks: the series of all rows, their times, then column after column, so that what
//! a column needs is at hand for a whole block. A column says first whether it rests: where its last values
//! were all as foretold, one bit may say that those of the block are too. And it says whether it is calm:
//! values are missing where they were missing before, and a column that rarely has an exception has none.
//! None of that is said again per value, so that constant columns and well-behaved floats cost neither bits
//! nor time.

mod block;
mod cells;
mod coder;
mod column;
mod column_models;
mod magnitude;
mod models;
mod numbers;
mod plan;
mod rows;
mod steps;
mod tables;

pub(crate) use block::BLOCK;
pub(crate) use coder::{Coder, Even, RangeReader, RangeWriter};
pub(crate) use rows::{RangeRows, aside, timed};
