//! Core: what the times of receipt in the journal are worth: said before the first record of which it is true.

use headwater_proto::time::Millis;
use headwater_spool::Disk;

use super::{Journal, Leaves, Put};
use crate::pipeline::envelope::{ClockHead, Record};
use crate::pipeline::ledger::Ledger;

/// The clock is in doubt from now on.
pub(in super::super) fn begin_undated<D: Disk>(
    journal: &mut Journal<D>,
    boot: u64,
    (zero_us, by_fleet): (i64, bool),
    mono: Millis,
) {
    forget_ties(journal, mono);
    journal.book.keep_ties(&journal.clock.head().ties);
    journal.clock.begin(boot, zero_us, by_fleet, mono);
    journal.book.tell_zero(Some(zero_us));
}

/// The clock is believed, and ties what came before. [`note`] makes it durable.
pub(in super::super) fn settle<D: Disk>(
    journal: &mut Journal<D>,
    process: (u64, Millis),
    offset_us: i64,
) {
    journal.clock.settle(process, offset_us, journal.log.next());
    journal.book.tell_zero(None);
}

/// Whether the journal does not say yet what its clock is worth.
pub(in super::super) fn owes<D: Disk>(journal: &Journal<D>) -> bool {
    match &journal.segment.clock {
        Some(said) => said != journal.clock.head(),
        // Nothing is known of the segment: a start, or a group that failed.
        None => *journal.clock.head() != ClockHead::default(),
    }
}

/// Says it, if no other record did.
pub(in super::super) fn note<D: Disk>(journal: &mut Journal<D>, ledger: &Ledger) -> Put {
    let head = journal.clock.head().clone();
    let before = journal.segment.clock.replace(head.clone());
    let put = journal.append(ledger, None, &Record::Clock(head), Leaves::One);
    if put.came.is_err() {
        journal.segment.clock = before;
    }
    put
}

/// Lets go of what ties records that are gone.
pub(in super::super) fn forget_ties<D: Disk>(journal: &mut Journal<D>, mono: Millis) {
    let oldest = journal.log.segments().next();
    let oldest = oldest.map_or(0, |oldest| oldest.first);
    journal.clock.forget_before(oldest, mono);
}

/// What the journal says of it is durable: readers may go by it.
pub(super) fn tell<D: Disk>(journal: &Journal<D>) {
    if journal.segment.clock.as_ref() == Some(journal.clock.head()) {
        journal.book.tell_ties(&journal.clock.head().ties);
    }
}
