//! Random choices of tests that run real processes.

use headwater_program::entropy::random;

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
        let seed = given.unwrap_or_else(random);
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
