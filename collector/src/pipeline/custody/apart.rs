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

use headwater_gate::CloseReason;
use headwater_proto::ids::{Epoch, JournalId};
use headwater_spool::{Disk, ReadError};

use super::open::fill_coverage;
use super::sides::{JournalSide, MeetError};
use super::{Custody, Leaves, Past};
use crate::pipeline::envelope::{CursorHead, Record};
use crate::pipeline::ledger::{Ledger, MAX_OLDER_PLAIN};

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

    /// The journal and the lake have met. `renamed`: its disk shows an earlier time than the lake has
    /// seen, so that what stands from a position on belongs to a journal of that name. Returns how many
    /// of those records could not be read.
    ///
    /// # Errors
    /// [`MeetError`]; nothing has changed then but what a failed sync takes back.
    pub(super) fn end_apart(
        &mut self,
        renamed: Option<(JournalId, u64)>,
    ) -> Result<u64, MeetError> {
        if self.journal.apart_since().is_some() {
            // From the next record on, a segment says so: before a plan, and so before a commit.
            self.roll()?;
        }
        let damaged = match renamed {
            Some((name, since)) => self.go_on_as(name, since)?,
            None => 0,
        };
        self.journal.set_apart(None);
        Ok(damaged)
    }

    /// Makes durable soon that the time apart is over. Without room, the next segment says it.
    pub(super) fn note_meeting(&mut self, sink: &str) {
        let position = self.cursor(sink).unwrap_or_default();
        let _ = self.append(&Record::Cursor(CursorHead { sink, position }), Leaves::None);
    }

    /// Goes on under a new name: the lake has come further under the old one than this journal, so its
    /// disk shows an earlier time. All that it holds before `since` is in the lake; nothing after that is.
    fn go_on_as(&mut self, name: JournalId, since: u64) -> Result<u64, ReadError> {
        let end = self.journal.log().next();
        // When a boot began is true whatever the journal is called. The numbers of plain devices were used
        // for other records since, whatever their epoch.
        let bases = self.streams.ledger().time_bases().clone();
        let mut ledger = Ledger::with_time_bases(Epoch::new(name.0), bases);
        let into = &mut |_, record: &Record<'_>| ledger.apply(record);
        let damaged = self.journal.each_record(since, end, into)?;
        ledger.synced();
        if since < end {
            // How those streams began may stand before.
            ledger.doubt_ends();
        }
        self.reading = None;
        self.journal.go_on_as(name, since);
        self.streams.go_on_with(ledger);
        let unread = fill_coverage(&self.journal, &mut self.streams)?;
        self.journal.measure(self.streams.ledger());
        // Senders hold marks of another journal: they say Hello again, and forget those.
        self.sessions.close_all(CloseReason::Journal);
        Ok(damaged + unread)
    }
}
