//! Clocks as values: monotonic milliseconds for deciding, Unix microseconds for data.

use serde::{Deserialize, Serialize};

/// Monotonic milliseconds since some start. They decide time-outs and never date data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// This moment plus `ms`, at most the end of time.
    #[must_use]
    pub const fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds since `earlier`, 0 if it lies ahead.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Wall time: microseconds since the Unix epoch, UTC, leap seconds smeared or ignored.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct UnixMicros(pub i64);

/// Both clocks, read together by the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For time-outs.
    pub mono: Millis,
    /// For dating data.
    pub wall: UnixMicros,
}

/// Zero of the times of an epoch's records. All records of an epoch share one base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Base {
    /// The Unix epoch, by the writer's wall clock.
    Wall,
    /// The writer's boot. A receipt during that boot, or a [`crate::message::TimeBase`], dates it.
    Uptime,
}
