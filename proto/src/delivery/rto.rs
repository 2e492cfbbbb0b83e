//! The resend time-out: measured round trips, back-off, jitter from a seed.

/// Bounds of the resend time-out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RtoLimits {
    /// Before the first measurement: long enough for a mobile link and a collector's sync.
    pub initial_ms: u64,
    /// Never less: an ack waits for a group commit, and a resend costs more than a wait.
    pub min_ms: u64,
    /// Never more, however often it backed off.
    pub max_ms: u64,
}

impl RtoLimits {
    /// 5 s before the first measurement, then from 1 s to 2 min.
    pub const DEFAULT: Self = Self {
        initial_ms: 5_000,
        min_ms: 1_000,
        max_ms: 120_000,
    };
}

/// The resend time-out of one connection.
///
/// # Source
/// Jacobson's estimator with the constants of RFC 6298 (smoothed time plus four deviations) and
/// Karn's rule: what was sent twice is not measured. The caller keeps that rule.
#[derive(Debug, Clone)]
pub struct Rto {
    limits: RtoLimits,
    /// Smoothed round trip in ms, if one was measured.
    smoothed_ms: Option<u64>,
    deviation_ms: u64,
    /// Doublings since the last ack.
    backed_off: u32,
}

impl Rto {
    /// Nothing measured yet.
    #[must_use]
    pub const fn new(limits: RtoLimits) -> Self {
        Self {
            limits,
            smoothed_ms: None,
            deviation_ms: 0,
            backed_off: 0,
        }
    }

    /// Takes in one round trip of something sent once; ends the back-off.
    pub fn measured(&mut self, ms: u64) {
        let ms = ms.min(self.limits.max_ms);
        match self.smoothed_ms {
            None => {
                self.smoothed_ms = Some(ms);
                self.deviation_ms = ms / 2;
            }
            Some(smoothed) => {
                self.deviation_ms = (3 * self.deviation_ms + smoothed.abs_diff(ms)) / 4;
                self.smoothed_ms = Some((7 * smoothed + ms) / 8);
            }
        }
        self.backed_off = 0;
    }

    /// A time-out: the next one comes twice as late, up to the limit.
    pub const fn back_off(&mut self) {
        self.backed_off = self.backed_off.saturating_add(1);
    }

    /// An ack came, of any age: the path is alive.
    pub const fn alive(&mut self) {
        self.backed_off = 0;
    }

    /// Time to wait for the ack of a bundle that is sent now, without jitter.
    #[must_use]
    pub fn wait_ms(&self) -> u64 {
        let base = match self.smoothed_ms {
            None => self.limits.initial_ms,
            Some(smoothed) => smoothed + 4 * self.deviation_ms,
        };
        let doubled = base.max(self.limits.min_ms) << self.backed_off.min(16);
        doubled.min(self.limits.max_ms)
    }
}

/// A stream of random numbers from a seed, for jitter; not for secrets.
///
/// # Source
/// SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Debug, Clone)]
pub struct Jitter(u64);

impl Jitter {
    /// The stream of `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 random bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// `ms` lengthened by up to a quarter, so that a fleet that failed together does not return
    /// together.
    pub const fn lengthen(&mut self, ms: u64) -> u64 {
        ms.saturating_add(self.bits() % (ms / 4 + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_round_trip_is_waited_for_a_little_longer_than_it_takes() {
        let mut rto = Rto::new(RtoLimits {
            initial_ms: 5_000,
            min_ms: 100,
            max_ms: 60_000,
        });
        assert_eq!(rto.wait_ms(), 5_000);
        for _ in 0..50 {
            rto.measured(400);
        }
        assert!((400..600).contains(&rto.wait_ms()), "{}", rto.wait_ms());
    }

    #[test]
    fn back_off_doubles_up_to_the_limit_and_one_ack_ends_it() {
        let mut rto = Rto::new(RtoLimits::DEFAULT);
        let mut last = rto.wait_ms();
        for _ in 0..100 {
            rto.back_off();
            assert!(rto.wait_ms() == (last * 2).min(120_000));
            last = rto.wait_ms();
        }
        rto.alive();
        assert_eq!(rto.wait_ms(), 5_000);
    }

    #[test]
    fn jitter_adds_at_most_a_quarter_and_comes_from_its_seed_alone() {
        let (mut a, mut b) = (Jitter::new(7), Jitter::new(7));
        for _ in 0..1000 {
            let wait = a.lengthen(1000);
            assert!((1000..=1250).contains(&wait));
            assert_eq!(wait, b.lengthen(1000));
        }
    }
}
