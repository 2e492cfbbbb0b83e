//! The two back ends that code row by row, small enough for a microcontroller.
//!
//! Both take a row as one symbol per column. A writer passes the symbols and gets them back; a reader
//! passes any, and gets those that it read.

pub mod rice;
#[cfg(feature = "alloc")]
pub(crate) mod series;
mod state;
mod texts;
pub(crate) mod varint;

pub(crate) use state::RowState;
pub(crate) use texts::NoTexts;
#[cfg(feature = "alloc")]
pub(crate) use texts::Texts;
#[cfg(feature = "alloc")]
pub(crate) use texts::text;
