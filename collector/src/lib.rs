//! The collector: takes custody of readings, and brings each into the lake once.

pub mod ledger;
pub mod pipeline;
