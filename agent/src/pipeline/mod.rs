//! From readings to durable, numbered records, and from there to the collector.
//!
//! Everything here is core: it takes time, entropy and its disk as arguments.

pub mod admit;
pub mod batcher;
pub mod drift;
pub mod engine;
pub mod foreign;
pub mod receipts;
pub mod record;
pub mod refusals;
pub mod text;
pub mod timekeeper;
