//! Core: custody while the collector's own clock is in doubt. It takes and keeps all, and nothing acts on that clock.

use headwater_proto::ids::DeviceId;
use headwater_proto::time::{Millis, Now, UnixMicros};
use headwater_spool::Disk;

use super::journal::clock;
use super::sessions::Terms;
use super::{Custody, Output, sessions};
use crate::pipeline::clock_doubt::{Change, ClockDoubt, Why};
use crate::pipeline::undated::ClockBook;

/// The clock of the machine that this process runs on.
#[derive(Debug)]
pub struct HouseClock {
    doubt: ClockDoubt,
    /// The machine's boot, and when this process began by its monotonic clock.
    process: (u64, Millis),
    book: ClockBook,
}

impl HouseClock {
    /// One that is believed until [`begin`].
    pub(super) fn new(book: ClockBook) -> Self {
        Self {
            doubt: ClockDoubt::default(),
            process: (0, Millis(0)),
            book,
        }
    }

    /// The wall time when the clock was looked at last, or what stands for it; `None` before [`begin`].
    #[must_use]
    pub fn present(&self) -> Option<UnixMicros> {
        self.doubt.present()
    }

    /// Why the clock is in doubt, if it is.
    #[must_use]
    pub const fn doubt(&self) -> Option<Why> {
        self.doubt.doubt()
    }

    /// What readers of the journal need of the clock.
    #[must_use]
    pub fn book(&self) -> ClockBook {
        self.book.clone()
    }

    /// A moment with the wall time that is believed, or what stands for it.
    #[must_use]
    pub fn dated(&self, now: Now) -> Now {
        let wall = self.doubt.wall_at(now.mono).unwrap_or(now.wall);
        Now { wall, ..now }
    }
}

/// Begins to look at the clock, before anything is taken in. Monotonic times count from the machine's `boot`.
/// Without this, the clock is believed.
pub fn begin<D: Disk>(custody: &mut Custody<D>, boot: u64, now: Now) {
    custody.clock.process = (boot, now.mono);
    let undated = custody.journal.clock.undated().copied();
    let by_fleet = undated.is_some_and(|undated| undated.by_fleet);
    let last = match undated {
        // The stretch of this boot goes on as it was.
        Some(undated) if undated.boot == boot => {
            let at = ClockDoubt::at(undated.zero_us, now.mono);
            Some(at.max(custody.journal.clock.last().unwrap_or(at)))
        }
        Some(_) | None => custody.journal.clock.last(),
    };
    let change = custody.clock.doubt.begin(last, by_fleet, now);
    changed(custody, change, now.mono);
    if custody.clock.doubt.doubt().is_none() && custody.journal.clock.has_undated() {
        let offset_us = ClockDoubt::offset(now);
        clock::settle(&mut custody.journal, custody.clock.process, offset_us);
    }
}

/// The lake had been committed to at `at`, as far as is known.
pub fn know_commit<D: Disk>(custody: &mut Custody<D>, at: UnixMicros) {
    if let Some((mono, change)) = custody.clock.doubt.know_commit(at) {
        changed(custody, Some(change), mono);
    }
}

/// An operator says that the clock is right as it stands. Whether it was in doubt. What that changes is durable
/// after the next [`Custody::sync`].
pub fn trust<D: Disk>(custody: &mut Custody<D>, now: Now) -> bool {
    let was_in_doubt = custody.clock.doubt.doubt().is_some();
    let change = custody.clock.doubt.trust(now);
    changed(custody, change, now.mono);
    was_in_doubt
}

/// What every answer says.
pub(super) fn terms<D: Disk>(custody: &Custody<D>, now: Now) -> Terms {
    let is_known = custody.clock.doubt().is_none();
    let time = if is_known { now.wall } else { UnixMicros(0) };
    Terms::new(custody.journal.name(), &custody.settings, time)
}

pub(super) fn look<D: Disk>(custody: &mut Custody<D>, now: Now) -> Now {
    if custody.clock.doubt.wall_at(now.mono).is_some() {
        let change = custody.clock.doubt.look(now);
        changed(custody, change, now.mono);
    }
    custody.clock.dated(now)
}

/// A sender with a synchronised clock said what time it is.
pub(super) fn heard<D: Disk>(
    custody: &mut Custody<D>,
    sender: &DeviceId,
    said: UnixMicros,
    heard: Millis,
) {
    let change = custody.clock.doubt.heard(sender, said, heard);
    changed(custody, change, heard);
}

fn changed<D: Disk>(custody: &mut Custody<D>, change: Option<Change>, mono: Millis) {
    let Some(change) = change else { return };
    match change {
        Change::Doubted { why, zero_us, .. } => {
            custody.counters.clock_doubts_total += 1;
            let by_fleet = matches!(why, Why::Fleet { .. });
            let (boot, _) = custody.clock.process;
            clock::begin_undated(&mut custody.journal, boot, (zero_us, by_fleet), mono);
        }
        Change::Settled { offset_us, .. } => {
            if let Some(undated) = custody.journal.clock.undated() {
                let (from_us, later_us) =
                    (undated.last_us, offset_us.saturating_sub(undated.zero_us));
                sessions::shift_receipts(&mut custody.sessions, later_us);
                custody.streams.shift_receipts(from_us, later_us);
            }
            clock::settle(&mut custody.journal, custody.clock.process, offset_us);
        }
    }
    custody.sessions.put_out(Output::Clock(change));
}

/// Says in the journal what its clock is worth, if no other record did; without room a later tick does.
pub(super) fn note<D: Disk>(custody: &mut Custody<D>, mono: Millis) {
    if custody.journal.clock.is_full() || clock::owes(&custody.journal) {
        clock::forget_ties(&mut custody.journal, mono);
    }
    // Of one that is in doubt the next record says so.
    if custody.journal.clock.undated().is_some() || !clock::owes(&custody.journal) {
        return;
    }
    let put = clock::note(&mut custody.journal, custody.streams.ledger());
    if put.synced {
        custody.synced();
    }
    if put.came == Err(super::NotPut::GroupFailed) {
        custody.failed();
    }
}
