//! Core: what happens to a record between its arrival and the sinks.

pub mod clock_doubt;
pub mod credit;
pub mod custody;
pub mod dating;
pub mod envelope;
pub mod ledger;
pub mod numbers;
pub mod pattern;
pub mod portions;
pub mod rules;
pub mod schemas;
pub mod snapshot;
pub mod spans;
pub mod time_bases;
pub mod undated;
