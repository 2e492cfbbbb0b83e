//! Core: what the times of a lane's rows count from, the Unix epoch or the boot; and the record that
//! ties the boot to wall time.
//!
//! All records of an epoch share one base, so a lane that changes it begins an epoch. Boots are dated
//! by a record in lane normal, as soon as the wall time of an uptime is known: rows that still wait
//! when the machine boots again could otherwise never be dated.

use headwater_proto::ids::Lane;
use headwater_proto::message::TimeBase;
use headwater_proto::time::{Base, Millis, Now};
use headwater_spool::Disk;

use super::Engine;
use super::store::{Draft, place_of};
use super::writing::Step;

/// How fast the uptime may drift from the time that dates it, in parts per million.
const DRIFT_PPM: u64 = 500;

/// What was said of the boot's wall time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
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

impl<D: Disk> Engine<D> {
    /// The clock that dates rows has changed: what is open is stored first, with the times it has.
    pub(super) fn follow_the_clock(&mut self, now: Now) {
        self.clock.look(now);
        let base = self.clock.base();
        if std::mem::replace(&mut self.base, base) != base {
            for at in 0..self.open.len() {
                self.close(at, crate::pipeline::batcher::Which::All, now);
            }
        }
        if base == Base::Uptime {
            self.counted_since.get_or_insert(now.mono);
        }
    }

    /// Ties the boot to wall time, once that is known and rows count from it.
    pub(super) fn date_boot(&mut self, now: Now) {
        let boot = self.settings.boot;
        let Some(since) = self.counted_since else {
            return;
        };
        let Some((wall, error_ms)) = self.clock.wall_of_uptime(now) else {
            return;
        };
        let is_due = self.told.is_none_or(|told| told.is_worse_than(error_ms));
        if !is_due || !self.store.lanes.counts_from_boot() {
            return;
        }
        let drift_ms = now.mono.since(since).saturating_mul(DRIFT_PPM) / 1_000_000;
        let drift_ms = u32::try_from(drift_ms + 1).unwrap_or(u32::MAX);
        let base = TimeBase {
            origin: self.settings.device.clone(),
            boot,
            uptime_us: now.mono.0.saturating_mul(1_000),
            wall,
            error_ms: error_ms.map(|ms| ms.saturating_add(drift_ms)),
        };
        self.told = Some(Told { error_ms });
        let record = Draft::own(&base, &self.settings.device, self.clock.stamps());
        // It stands in another epoch than what it dates: that waits for it.
        let turn = |base| Step::Turn {
            base,
            lasting: false,
        };
        let steps = [turn(Base::Wall), Step::Store(record), turn(self.base)];
        self.carry_out(place_of(Lane::Normal), steps, now);
    }

    /// Since when rows may count from this boot: an earlier process of it may have begun.
    pub(super) fn counted_before(&self) -> Option<Millis> {
        self.store.lanes.counts_from_boot().then_some(Millis(0))
    }
}
