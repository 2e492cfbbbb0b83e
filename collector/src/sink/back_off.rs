//! Core: when something that failed is tried again: after a random part of a time that doubles, however
//! often. What needs an operator is tried slowly.

use headwater_proto::time::Millis;

use super::SinkError;

/// Time after the first failure, in milliseconds; doubled each time.
pub(super) const FIRST_WAIT_MS: u64 = 100;
/// Longest time between two tries of a sink that is busy.
pub(super) const MAX_WAIT_MS: u64 = 10_000;
/// Time between two tries of a sink that an operator has to let.
pub(super) const SLOW_WAIT_MS: u64 = 60_000;
/// Longest time that a sink may ask to be left alone.
pub(super) const MAX_RETRY_AFTER_MS: u64 = 600_000;

/// The wait of one kind of step.
#[derive(Debug, Default)]
pub(super) struct BackOff {
    failures: u32,
    /// Not before then.
    pub(super) until: Option<Millis>,
}

impl BackOff {
    pub(super) fn is_held(&self, now: Millis) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// The failure that comes next was none of all: it does not make the wait longer.
    pub(super) const fn hold(&mut self) {
        self.failures = self.failures.saturating_sub(1);
    }

    /// - `random`: 64 random bits.
    pub(super) fn failed(&mut self, error: &SinkError, now: Millis, random: u64) {
        let doubled = FIRST_WAIT_MS.saturating_mul(1 << self.failures.min(16));
        let most = doubled.min(MAX_WAIT_MS);
        let wait = match error {
            SinkError::Busy { retry_after, .. } => {
                let asked = retry_after.map_or(0, |asked| {
                    u64::try_from(asked.as_millis()).unwrap_or(u64::MAX)
                });
                asked.min(MAX_RETRY_AFTER_MS) + 1 + random % most
            }
            SinkError::Refused { .. } => 1 + random % most,
            SinkError::Denied { .. } | SinkError::Broken { .. } | SinkError::Fatal { .. } => {
                SLOW_WAIT_MS / 2 + random % (SLOW_WAIT_MS / 2)
            }
        };
        self.failures = self.failures.saturating_add(1);
        self.until = Some(now.plus(wait));
    }
}
