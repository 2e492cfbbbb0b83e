//! One connection without a socket: what the session answers to which bytes.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking, and picks out what it looks for"
)]

mod cuts;
mod opening;
mod publishing;
mod talk;
