//! The one place of the tests that reads clocks and entropy.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Wall time in Unix microseconds.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "tests of real processes live in real time"
)]
pub fn wall_us() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// A moment that never runs backwards.
#[derive(Debug, Clone, Copy)]
pub struct Moment(Instant);

impl Moment {
    /// Now.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "tests of real processes live in real time"
    )]
    pub fn now() -> Self {
        Self(Instant::now())
    }

    /// Time since then.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// Random choices that can be repeated: the seed is printed, and taken from `HEADWATER_SEED`.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// From the environment, or a new seed; prints it.
    #[must_use]
    #[expect(
        clippy::print_stderr,
        reason = "a failed test shows the seed that repeats it"
    )]
    pub fn roll() -> Self {
        let given = std::env::var("HEADWATER_SEED")
            .ok()
            .and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(|| RandomState::new().hash_one(wall_us()));
        eprintln!("HEADWATER_SEED={seed}");
        Self(seed | 1)
    }

    /// A number below `bound` (xorshift64: enough to choose victims and moments).
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound.max(1)
    }
}
