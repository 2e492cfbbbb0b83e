//! The only place that reads a clock.

use std::time::{Instant, SystemTime};

use headwater_proto::time::{Millis, Now, UnixMicros};

/// Both clocks of the process; `mono` counts from its start.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Begins to count.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the place that reads the clock"
    )]
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    /// Both clocks now.
    #[must_use]
    pub fn now(&self) -> Now {
        let elapsed = self.start.elapsed().as_millis();
        Now {
            mono: Millis(u64::try_from(elapsed).unwrap_or(u64::MAX)),
            wall: wall(),
        }
    }

    /// The moment of `at`, for a timer.
    #[must_use]
    pub fn instant(&self, at: Millis) -> Instant {
        // A week is beyond every timer of the agent.
        self.start + std::time::Duration::from_millis(at.0.min(self.now().mono.0 + 604_800_000))
    }
}

/// The wall clock.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "this is the place that reads the clock"
)]
pub fn wall() -> UnixMicros {
    let now = SystemTime::now();
    let micros = match now.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |m| -m),
    };
    UnixMicros(micros)
}
