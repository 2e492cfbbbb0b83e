//! Core: decides when the codec parameters of a shape are fitted anew.
//!
//! A fit costs the time of some ten batches and a new schema that every receiver must learn, so it
//! has to pay: it comes when batches have become dearer than they were after the last fit, or when
//! that fit had seen few rows, and never sooner than [`LEAST_BATCHES`] after the last. A signal that
//! has itself become noisier costs one fit in vain: what batches take after it is the new measure.
//! Where batches are short, a fit to [`SURE_ROWS`] costs more of them, so that dearer ones wait for
//! [`LEAST_ROWS`] too.

/// Batches between two fits at least.
pub const LEAST_BATCHES: u32 = 100;
/// Rows that a fit looks at, and that it needs to count as sure.
pub const SURE_ROWS: usize = 512;
/// Rows between a sure fit and the next at least.
pub const LEAST_ROWS: u64 = 20 * SURE_ROWS as u64;
/// Batches after a fit that say what is usual.
const SETTLING: u32 = 16;
/// Batches are dearer if a sample takes more than 9/8 of what was usual.
const DEARER: (u64, u64) = (9, 8);

/// Watches what the batches of one shape take.
#[derive(Debug, Clone, Default)]
pub struct Drift {
    /// Batches since the last fit; `None` before the first.
    batches: Option<u32>,
    rows: u64,
    sure: bool,
    lately: Cost,
    usual: Cost,
}

/// Bytes and samples of the latest batches, older ones counting less and less; in 1/16.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    bytes: u64,
    samples: u64,
}

impl Drift {
    /// Whether parameters should be fitted to the rows at hand before the next batch.
    #[must_use]
    pub fn wants_fit(&self) -> bool {
        let rested = self.batches.is_none_or(|batches| batches >= LEAST_BATCHES)
            && (!self.sure || self.rows >= LEAST_ROWS);
        rested && self.wants_rows()
    }

    /// Whether rows should be kept for a fit.
    #[must_use]
    pub fn wants_rows(&self) -> bool {
        !self.sure || self.lately.is_dearer(self.usual)
    }

    /// Takes note of a fit to so many rows.
    pub fn fitted(&mut self, rows: usize) {
        *self = Self {
            batches: Some(0),
            sure: rows >= SURE_ROWS,
            ..Self::default()
        };
    }

    /// For another shape of the same columns that begins with these parameters.
    #[must_use]
    pub fn beside(&self) -> Self {
        Self {
            batches: self.batches.map(|_| 0),
            sure: self.sure,
            ..Self::default()
        }
    }

    /// Takes note of a batch.
    pub fn note(&mut self, bytes: usize, samples: u32, rows: u32) {
        self.rows = self.rows.saturating_add(u64::from(rows));
        self.lately.add(bytes, samples);
        let batches = self.batches.unwrap_or(0).saturating_add(1);
        if batches <= SETTLING {
            self.usual = self.lately;
        }
        self.batches = Some(batches);
    }
}

impl Cost {
    fn add(&mut self, bytes: usize, samples: u32) {
        // A batch has at most 2^20 bytes and 2^26 samples: sixteen times that stays far below 2^64.
        self.bytes = self.bytes - self.bytes / 16 + bytes as u64 * 16;
        self.samples = self.samples - self.samples / 16 + u64::from(samples) * 16;
    }

    fn is_dearer(self, usual: Self) -> bool {
        let wide = |a: u64, b: u64, c: u64| u128::from(a) * u128::from(b) * u128::from(c);
        wide(self.bytes, usual.samples, DEARER.1) > wide(usual.bytes, self.samples, DEARER.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLES: u32 = 1_000;
    const ROWS: u32 = 200;

    fn after_a_sure_fit(batches: u32, bytes: usize) -> Drift {
        let mut drift = Drift::default();
        drift.fitted(SURE_ROWS);
        for _ in 0..batches {
            drift.note(bytes, SAMPLES, ROWS);
        }
        drift
    }

    #[test]
    fn the_first_batch_is_fitted() {
        assert!(Drift::default().wants_fit());
    }

    #[test]
    fn a_fit_to_few_rows_is_done_again_after_a_hundred_batches() {
        let mut drift = Drift::default();
        drift.fitted(SURE_ROWS - 1);
        for _ in 0..LEAST_BATCHES {
            assert!(drift.wants_rows() && !drift.wants_fit());
            drift.note(500, SAMPLES, ROWS);
        }
        assert!(drift.wants_fit());
    }

    #[test]
    fn batches_that_take_what_they_took_after_the_fit_are_never_fitted_again() {
        let mut drift = after_a_sure_fit(SETTLING, 500);
        for at in 0..5_000 {
            drift.note(if at % 2 == 0 { 480 } else { 550 }, SAMPLES, ROWS);
            assert!(!drift.wants_fit());
        }
    }

    #[test]
    fn dearer_batches_are_fitted_again_but_not_within_a_hundred() {
        let mut drift = after_a_sure_fit(SETTLING, 500);
        for _ in SETTLING..LEAST_BATCHES {
            assert!(!drift.wants_fit());
            drift.note(700, SAMPLES, ROWS);
        }
        assert!(drift.wants_rows() && drift.wants_fit());
    }

    #[test]
    fn short_batches_are_fitted_again_only_after_as_many_rows_as_pay_for_it() {
        let mut drift = after_a_sure_fit(SETTLING, 500);
        let mut batches = 0u64;
        while !drift.wants_fit() {
            drift.note(700, SAMPLES, 10);
            batches += 1;
        }
        assert!(u64::from(SETTLING * ROWS) + batches * 10 >= LEAST_ROWS);
        assert!(batches > u64::from(LEAST_BATCHES));
    }

    #[test]
    fn a_signal_that_has_become_noisier_is_fitted_once() {
        let mut drift = after_a_sure_fit(LEAST_BATCHES, 500);
        let mut fits = 0;
        for _ in 0..1_000 {
            if drift.wants_fit() {
                drift.fitted(SURE_ROWS);
                fits += 1;
            }
            drift.note(700, SAMPLES, ROWS);
        }
        assert_eq!(fits, 1);
    }

    #[test]
    fn cheaper_and_shorter_batches_are_left_alone() {
        let mut drift = after_a_sure_fit(LEAST_BATCHES, 500);
        for _ in 0..500 {
            drift.note(300, SAMPLES, ROWS);
            drift.note(30, SAMPLES / 10, ROWS / 10);
            assert!(!drift.wants_fit());
        }
    }
}
