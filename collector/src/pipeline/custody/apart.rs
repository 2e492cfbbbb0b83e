//! Core: a journal that is begun while the lake is away, and what ends that time.
//!
//! Devices are served all the same, if the journal knows its past: what it does not know yet is whether
//! its disk shows the last time. Somebody may have brought back an old copy, so that the lake has other
//! records under the positions and numbers which come next. The lake tells when it is back:
//!
//! ```text
//! start ──► apart_since: where the journal stood, in every segment from here on
//!       ──► plain devices are numbered under an epoch that was never used
//! the lake is back ──► it has no more than what stands before apart_since: the journal goes on
//!                  ──► it has more: an old copy. It goes on under a new name, from apart_since on
//! ```
//! Several starts without the lake are one such time: it began with the first.

use headwater_proto::ids::Epoch;
use headwater_spool::Disk;

use super::sides::JournalSide;
use super::{Custody, Past};
use crate::pipeline::ledger::MAX_OLDER_PLAIN;

/// Why a journal serves nobody before the lake is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAlone {
    /// It does not know what the lake has.
    #[error(
        "no device can be served without it: the journal is new, and cannot tell what the lake has"
    )]
    New,
    /// It cannot be read as a whole.
    #[error(
        "no device can be served without it: the journal is damaged, and only the lake can tell what is \
         missing of it"
    )]
    Damaged,
    /// An epoch that is over might be taken for new.
    #[error(
        "no device can be served without it: the index of closed epochs in the state folder is not whole, \
         and is filled from the lake"
    )]
    Index,
    /// Too many starts without the lake, with too many plain devices.
    #[error(
        "no device can be served without it: more than {MAX_OLDER_PLAIN} counters of plain devices wait \
         for the lake from before"
    )]
    Plain,
}

impl<D: Disk> Custody<D> {
    /// Where the journal stood when the time without the lake began, if it was begun without it and they
    /// have not met since.
    #[must_use]
    pub const fn apart_since(&self) -> Option<u64> {
        self.journal.apart_since()
    }

    /// Begins a time without the lake, right after the journal was opened. What says so is durable with
    /// the first record. `entropy` gives the epoch under which plain devices are numbered.
    ///
    /// # Errors
    /// [`NotAlone`]: nothing has changed, and nobody may be served.
    pub fn begin_apart(
        &mut self,
        journal: &JournalSide,
        entropy: &mut dyn FnMut() -> u64,
    ) -> Result<(), NotAlone> {
        match journal.past {
            Past::Nothing => return Err(NotAlone::New),
            Past::Snapshot if journal.damaged == 0 => {}
            Past::Snapshot | Past::Records => return Err(NotAlone::Damaged),
        }
        if !journal.has_met_lake() {
            return Err(NotAlone::New);
        }
        if !journal.index_is_whole {
            return Err(NotAlone::Index);
        }
        if !self.streams.ledger().has_room_for_plain_epoch() {
            return Err(NotAlone::Plain);
        }
        self.journal.set_apart(Some(journal.since));
        self.streams.begin_plain_epoch(Epoch::new(entropy()));
        self.journal.measure(self.streams.ledger());
        Ok(())
    }
}
