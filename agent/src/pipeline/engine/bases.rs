//! Core: what the times of a lane's rows count from, the Unix epoch or the boot; and the record that
//! ties the boot to wall time.
//!
//! All records of an epoch share one base, so a lane that changes it begins an epoch. Boots are dated
//! by a record in lane normal, as soon as the wall time of an uptime is known: rows that still wait
//! when the machine boots again could otherwise never be dated.

use std::collections::VecDeque;

use headwater_proto::ids::Lane;
use headwater_proto::message::TimeBase;
use headwater_proto::time::{Base, Millis, Now};
use headwater_spool::Disk;

use super::Engine;
use super::lane::Over;
use super::ram::Ram;
use super::store::frame_of;
use crate::pipeline::record::Life;

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
    /// Makes a lane take rows whose times count from `base`.
    pub(super) fn turn_to(&mut self, at: usize, base: Base, now: Now) {
        if self.lanes[at].present_life().base == base {
            return;
        }
        self.lanes[at].turned_at = Some(now.mono);
        if self.settle(at, now) {
            let lane = &mut self.lanes[at];
            if lane.next_seq == 0 {
                lane.life.base = base;
                return;
            }
            let over = Over {
                epoch: lane.epoch,
                next: lane.next_seq,
                clean: true,
            };
            if self.begin_epoch(at, base, &[over], now) {
                return;
            }
            self.go_ram(at, VecDeque::new(), now);
        }
        self.turn_ram(at, base);
    }

    /// Makes everything that a lane holds durable; false where it has no disk.
    fn settle(&mut self, at: usize, now: Now) -> bool {
        while self.lanes[at].ram.is_none() && !self.lanes[at].held.is_empty() {
            // One that fails begins an epoch with what it held, or gives the disk up.
            let failed = self.counters.failed_syncs;
            self.sync_lane(at, now);
            if self.counters.failed_syncs > failed + 1 {
                let held = self.lanes[at].take_held();
                self.go_ram(at, held, now);
            }
        }
        self.lanes[at].ram.is_none()
    }

    /// A lane in memory goes on under another RAM epoch, which names the end of the one before.
    fn turn_ram(&mut self, at: usize, base: Base) {
        let epoch = self.draw_epoch();
        let boot = self.settings.boot;
        let lane = &mut self.lanes[at];
        let Some(ram) = &mut lane.ram else { return };
        if ram.next_seq == 0 {
            ram.life.base = base;
            return;
        }
        let next = Ram {
            limbo: std::mem::take(&mut ram.limbo),
            limbo_bytes: std::mem::take(&mut ram.limbo_bytes),
            ..Ram::new(epoch, Life { boot, base }, ram.probe_at)
        };
        let over = Over {
            epoch: ram.epoch,
            next: ram.next_seq,
            clean: true,
        };
        lane.old_rams.extend(lane.ram.replace(next));
        self.end_in_ram(at, over);
    }

    /// Says in the RAM epoch that another epoch is over.
    pub(super) fn end_in_ram(&mut self, at: usize, over: Over) {
        let frame = frame_of(&self.epoch_end(at, over));
        let mut payload = Vec::new();
        self.own(&frame).encode(&mut payload);
        self.put_ram(at, headwater_proto::frame::Kind::EpochEnd, &payload, None);
        self.tell_ended(at, over.epoch);
    }

    /// The clock that dates rows has changed: what is open is stored first, with the times it has.
    pub(super) fn follow_the_clock(&mut self, now: Now) {
        self.clock.look(now);
        let base = self.clock.base();
        if std::mem::replace(&mut self.base, base) != base {
            for at in 0..self.lanes.len() {
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
        if !is_due || !self.lanes.iter().any(|lane| lane.counts_from(boot)) {
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
        let at = self.index_of(Lane::Normal);
        // It stands in another epoch than what it dates: that waits for it.
        let turned_at = self.lanes[at].turned_at;
        self.turn_to(at, Base::Wall, now);
        self.put_own(at, &base, now);
        self.turn_to(at, self.base, now);
        self.lanes[at].turned_at = turned_at;
    }

    /// Since when rows may count from this boot: an earlier process of it may have begun.
    pub(super) fn counted_before(&self) -> Option<Millis> {
        let boot = self.settings.boot;
        let counts = self.lanes.iter().any(|lane| lane.counts_from(boot));
        counts.then_some(Millis(0))
    }
}
