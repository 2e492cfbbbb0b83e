//! The one place of the collector that reads clocks and entropy.

pub use headwater_gate::clock::Clock;

/// 64 random bits, from the keys that the standard library draws from the operating system.
#[must_use]
pub fn entropy() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    // RandomState draws its keys once per thread and then counts, so the time is mixed in.
    let wall = Clock::start().now().wall.0;
    RandomState::new().hash_one((wall, std::process::id()))
}
