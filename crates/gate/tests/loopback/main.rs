//! The gate over real sockets on loopback.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking, and picks out what it looks for"
)]

mod harness;
mod raw_bytes;
mod stock_clients;
