//! Core: seeded randomness for simulations that go step by step.

/// A stream of random numbers.
///
/// # Source
/// SplitMix64: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014.
pub(super) struct Random(u64);

impl Random {
    /// The stream of `name` under a seed.
    pub(super) fn new(seed: u64, name: &str) -> Self {
        name.bytes().fold(Self(seed), |before, byte| {
            let mut mixed = Self(before.0 ^ u64::from(byte));
            Self(mixed.next())
        })
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `low` up to `high`.
    pub(super) fn even(&mut self, low: f64, high: f64) -> f64 {
        let unit = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        low + (high - low) * unit
    }

    /// A whole number below `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True once in `count` times.
    pub(super) fn once_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// Noise of mean 0 and deviation 1, nearly normal: four even draws.
    pub(super) fn noise(&mut self) -> f64 {
        let sum: f64 = (0..4).map(|_| self.even(-0.5, 0.5)).sum();
        sum * 1.732_050_807_568_877_2
    }
}
