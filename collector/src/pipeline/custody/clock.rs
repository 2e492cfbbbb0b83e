//! Core: custody while the collector's own clock is in doubt. It takes and keeps all, and nothing acts on that clock.

use headwater_proto::ids::DeviceId;
use headwater_proto::time::{Millis, Now, UnixMicros};
use headwater_spool::Disk;

use super::sessions::Terms;
use super::{Custody, Output};
use crate::pipeline::clock_doubt::{Change, ClockDoubt, Why};
use crate::pipeline::undated::ClockBook;

/// The clock of the machine that this process runs on.
#[derive(Debug, Default)]
pub(super) struct House {
    doubt: ClockDoubt,
    /// The machine's boot, and when this process began by its monotonic clock.
    process: (u64, Millis),
}

impl<D: Disk> Custody<D> {
    /// Begins to look at the clock, before anything is taken in. Monotonic times count from the machine's `boot`.
    /// Without this, the clock is believed.
    pub fn begin_clock(&mut self, boot: u64, now: Now) {
        self.clock.process = (boot, now.mono);
        let undated = self.journal.undated().copied();
        let by_fleet = undated.is_some_and(|undated| undated.by_fleet);
        let last = match undated {
            // The stretch of this boot goes on as it was.
            Some(undated) if undated.boot == boot => {
                let at = ClockDoubt::at(undated.zero_us, now.mono);
                Some(at.max(self.journal.last_receipt().unwrap_or(at)))
            }
            Some(_) | None => self.journal.last_receipt(),
        };
        let change = self.clock.doubt.begin(last, by_fleet, now);
        self.clock_changed(change, now.mono);
        if self.clock.doubt.doubt().is_none() && self.journal.has_undated() {
            let offset_us = ClockDoubt::offset(now);
            self.journal.settle_clock(self.clock.process, offset_us);
        }
    }

    /// The lake had been committed to at `at`, as far as is known.
    pub fn know_commit(&mut self, at: UnixMicros) {
        if let Some((mono, change)) = self.clock.doubt.know_commit(at) {
            self.clock_changed(Some(change), mono);
        }
    }

    /// The wall time when the clock was looked at last, or what stands for it; `None` before
    /// [`Self::begin_clock`].
    #[must_use]
    pub fn present(&self) -> Option<UnixMicros> {
        self.clock.doubt.present()
    }

    /// An operator says that the clock is right as it stands. Whether it was in doubt. What that changes is durable
    /// after the next [`Custody::sync`].
    pub fn trust_clock(&mut self, now: Now) -> bool {
        let was_in_doubt = self.clock.doubt.doubt().is_some();
        let change = self.clock.doubt.trust(now);
        self.clock_changed(change, now.mono);
        was_in_doubt
    }

    /// Why the clock is in doubt, if it is.
    #[must_use]
    pub const fn clock_doubt(&self) -> Option<Why> {
        self.clock.doubt.doubt()
    }

    /// What readers of the journal need of the clock.
    #[must_use]
    pub fn clock_book(&self) -> ClockBook {
        self.journal.clock_book()
    }

    /// A moment with the wall time that is believed, or what stands for it.
    #[must_use]
    pub fn dated(&self, now: Now) -> Now {
        let wall = self.clock.doubt.wall_at(now.mono).unwrap_or(now.wall);
        Now { wall, ..now }
    }

    /// What every answer says.
    pub(super) fn terms(&self, now: Now) -> Terms {
        let is_known = self.clock_doubt().is_none();
        let time = if is_known { now.wall } else { UnixMicros(0) };
        Terms::new(self.journal.name(), &self.settings, time)
    }

    pub(super) fn look_at_clock(&mut self, now: Now) -> Now {
        if self.clock.doubt.wall_at(now.mono).is_some() {
            let change = self.clock.doubt.look(now);
            self.clock_changed(change, now.mono);
        }
        self.dated(now)
    }

    /// A sender with a synchronised clock said what time it is.
    pub(super) fn heard_time(&mut self, sender: &DeviceId, said: UnixMicros, heard: Millis) {
        let change = self.clock.doubt.heard(sender, said, heard);
        self.clock_changed(change, heard);
    }

    fn clock_changed(&mut self, change: Option<Change>, mono: Millis) {
        let Some(change) = change else { return };
        match change {
            Change::Doubted { why, zero_us, .. } => {
                self.counters.clock_doubts_total += 1;
                let by_fleet = matches!(why, Why::Fleet { .. });
                let (boot, _) = self.clock.process;
                self.journal.begin_undated(boot, (zero_us, by_fleet), mono);
            }
            Change::Settled { offset_us, .. } => {
                if let Some(undated) = self.journal.undated() {
                    let (from_us, later_us) =
                        (undated.last_us, offset_us.saturating_sub(undated.zero_us));
                    self.sessions.shift_receipts(later_us);
                    self.streams.shift_receipts(from_us, later_us);
                }
                self.journal.settle_clock(self.clock.process, offset_us);
            }
        }
        self.sessions.put_out(Output::Clock(change));
    }

    /// Says in the journal what its clock is worth, if no other record did; without room a later tick does.
    pub(super) fn note_clock(&mut self) {
        // Of one that is in doubt the next record says so.
        if self.journal.undated().is_some() || !self.journal.owes_clock() {
            return;
        }
        let put = self.journal.note_clock(self.streams.ledger());
        if put.synced {
            self.synced();
        }
        if put.came == Err(super::NotPut::GroupFailed) {
            self.failed();
        }
    }
}
