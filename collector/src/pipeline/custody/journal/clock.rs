//! Core: what the times of receipt in the journal are worth: said before the first record of which it is true.

use headwater_proto::time::{Millis, UnixMicros};
use headwater_spool::Disk;

use super::{Journal, Leaves, Put};
use crate::pipeline::envelope::{ClockHead, Record, Undated};
use crate::pipeline::ledger::Ledger;
use crate::pipeline::undated::ClockBook;

impl<D: Disk> Journal<D> {
    /// What readers need of it; clones share it.
    pub(in super::super) fn clock_book(&self) -> ClockBook {
        self.book.clone()
    }

    /// The stretch without dates that goes on now.
    pub(in super::super) const fn undated(&self) -> Option<&Undated> {
        self.clock.head().undated.as_ref()
    }

    /// Whether the clock was ever in doubt, as far as records tell.
    pub(in super::super) fn has_stretches(&self) -> bool {
        *self.clock.head() != ClockHead::default()
    }

    /// Whether stretches are not tied yet.
    pub(in super::super) fn has_undated(&self) -> bool {
        self.undated().is_some() || !self.clock.head().waiting.is_empty()
    }

    /// When its last record came, as far as anybody knows.
    pub(in super::super) const fn last_receipt(&self) -> Option<UnixMicros> {
        self.clock.last()
    }

    /// The clock is in doubt from now on.
    pub(in super::super) fn begin_undated(
        &mut self,
        boot: u64,
        (zero_us, by_fleet): (i64, bool),
        mono: Millis,
    ) {
        self.forget_ties();
        self.clock.begin(boot, zero_us, by_fleet, mono);
        self.book.tell_zero(Some(zero_us));
    }

    /// The clock is believed, and ties what came before. [`Self::note_clock`] makes it durable.
    pub(in super::super) fn settle_clock(&mut self, process: (u64, Millis), offset_us: i64) {
        self.clock.settle(process, offset_us, self.log.next());
        self.book.tell_zero(None);
    }

    /// Whether the journal does not say yet what its clock is worth.
    pub(in super::super) fn owes_clock(&self) -> bool {
        match &self.segment.clock {
            Some(said) => said != self.clock.head(),
            // Nothing is known of the segment: a start, or a group that failed.
            None => *self.clock.head() != ClockHead::default(),
        }
    }

    /// Says it, if no other record did.
    pub(in super::super) fn note_clock(&mut self, ledger: &Ledger) -> Put {
        self.forget_ties();
        let head = self.clock.head().clone();
        let before = self.segment.clock.replace(head.clone());
        let put = self.append(ledger, None, &Record::Clock(head), Leaves::One);
        if put.came.is_err() {
            self.segment.clock = before;
        }
        put
    }

    /// Lets go of what ties records that are gone.
    fn forget_ties(&mut self) {
        let oldest = self.log.segments().next();
        self.clock
            .forget_before(oldest.map_or(0, |oldest| oldest.first));
    }

    /// What the journal says of it is durable: readers may go by it.
    pub(super) fn tell_clock(&self) {
        if self.segment.clock.as_ref() == Some(self.clock.head()) {
            self.book.tell_ties(&self.clock.head().ties);
        }
    }
}
