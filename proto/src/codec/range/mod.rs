//! The range back end: every cell as adaptive bits and symbols, with the fewest bytes of the three.
//!
//! Rows are coded in blocks of 64: the series of all rows, their times, then column after column.
//!
//! | flag of a column in a block | coded if | it means |
//! |---|---|---|
//! | rests | its last eight values were as predicted | so are all values of the block |
//! | calm | it may miss values, or exceptions are rare | values are missing where they were before, and there is no exception |
//!
//! The values then carry neither flag again. Constant columns and well-behaved floats therefore cost
//! hardly any bits and little time.
//!
//! | module | holds |
//! |---|---|
//! | `coder`, `models` | the arithmetic coder, and adaptive probabilities |
//! | `magnitude`, `tables` | the coding of one residual, and the start of its models |
//! | `plan`, `column_models`, `steps` | what is known of a column: from the schema, from the batch, of the next number |
//! | `block`, `cells` | the rows of a block, and the cells of one of its columns |
//! | `numbers`, `column`, `rows` | the coding of numbers, of columns, of blocks |

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
