//! The lake as its writer and its readers see it, on a store that crashes where the test says.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod audit;
mod calls;
mod crash;
mod fence;
mod format;
mod help;
mod log;
mod repair;
mod state;
mod tamper;
mod turns;
