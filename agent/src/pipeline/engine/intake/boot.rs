//! Core: when the boot is tied to wall time.
//!
//! Boots are dated by a record, as soon as the wall time of an uptime is known: rows that still wait when
//! the machine boots again could otherwise never be dated.

use headwater_proto::ids::DeviceId;
use headwater_proto::message::TimeBase;
use headwater_proto::time::{Millis, Now};

use crate::pipeline::timekeeper::Timekeeper;

/// How fast the uptime may drift from the time that dates it, in parts per million.
const DRIFT_PPM: u64 = 500;

/// What was said of the boot's wall time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    error_ms: Option<u32>,
}

impl Told {
    /// Whether it is worth a record to say `error_ms` instead: each is twice as good as the last.
    fn is_worse_than(self, error_ms: Option<u32>) -> bool {
        match (self.error_ms, error_ms) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(told), Some(now)) => now <= told / 2,
        }
    }
}

/// What rows that count from this boot need to be dated.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct BootDate {
    /// Since when rows count from this boot, in its uptime.
    since: Option<Millis>,
    /// What was last said.
    told: Option<Told>,
}

impl BootDate {
    /// Rows count from this boot since `since` at the latest.
    pub(super) fn counts(&mut self, since: Millis) {
        self.since.get_or_insert(since);
    }

    /// What was said stands nowhere where it lasts.
    pub(super) const fn forget_told(&mut self) {
        self.told = None;
    }

    /// The record that ties the boot to wall time, once that is known, and again when it is known much
    /// better.
    pub(super) fn due(
        &mut self,
        clock: &Timekeeper,
        device: &DeviceId,
        boot: u64,
        now: Now,
    ) -> Option<TimeBase> {
        let since = self.since?;
        let (wall, error_ms) = clock.wall_of_uptime(now)?;
        if self.told.is_some_and(|told| !told.is_worse_than(error_ms)) {
            return None;
        }
        let drift_ms = now.mono.since(since).saturating_mul(DRIFT_PPM) / 1_000_000;
        let drift_ms = u32::try_from(drift_ms + 1).unwrap_or(u32::MAX);
        self.told = Some(Told { error_ms });
        Some(TimeBase {
            origin: device.clone(),
            boot,
            uptime_us: now.mono.0.saturating_mul(1_000),
            wall,
            error_ms: error_ms.map(|ms| ms.saturating_add(drift_ms)),
        })
    }
}
