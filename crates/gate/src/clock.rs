//! The one place of this crate that reads clocks.

use std::time::{Instant, SystemTime};

use headwater_proto::time::{Millis, Now, UnixMicros};

/// Both clocks; monotonic time counts from the making of the clock.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that starts now. Everything that compares monotonic times must share one.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    /// Reads both.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn now(&self) -> Now {
        let wall = match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |us| -us),
        };
        Now {
            mono: self.mono(),
            wall: UnixMicros(wall),
        }
    }

    /// Monotonic time alone.
    #[must_use]
    pub fn mono(&self) -> Millis {
        Millis(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// The runtime's instant of a monotonic time, for its timers.
    #[must_use]
    pub(crate) fn instant(&self, at: Millis) -> Option<tokio::time::Instant> {
        self.start
            .checked_add(std::time::Duration::from_millis(at.0))
            .map(Into::into)
    }
}
