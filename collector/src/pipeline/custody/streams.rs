//! Core: what is held of every stream, what has become of it, and what is still to be said of it.
//!
//! ```text
//! record appended ──► ledger ◄── what a sink has: coverage ──► what all required sinks have: committed
//! start, damage   ──► watch: what is durable and never committed ──► a loss to be named
//! Hello without it, for long                                     ──► an epoch to be abandoned
//! closed and committed, for long ──► index of closed epochs ──► back when its device is
//! ```
//! The ledger changes by records that were appended and by commits. Whatever else is decided here is
//! handed out as a value: a loss to name, an epoch to abandon, streams whose Ack is due.

mod absent;
mod claims;
mod coverage;
mod index;
mod seeding;
mod watch;

use headwater_proto::ids::{Epoch, SeqRange, Stream};
use headwater_proto::message::Mark;
use headwater_proto::time::Millis;

use super::types::{Mode, Settings};
use crate::done::DoneEpochs;
use crate::pipeline::envelope::Record;
use crate::pipeline::ledger::{self, Ledger};
use crate::pipeline::portions::Portions;
pub(super) use absent::Abandonment;
use absent::Absent;
use claims::Claimed;
pub(super) use claims::Claims;
pub(super) use coverage::Coverage;
pub use coverage::MAX_COVERED_RANGES;
use index::Index;
pub use index::over;
pub(super) use index::{Kept, Unknown};
pub(super) use watch::Say;
use watch::Watched;

/// All streams. See the module's page.
pub(super) struct Streams {
    ledger: Ledger,
    /// What each required sink has and not all have.
    coverage: Coverage,
    index: Index,
    watched: Watched,
    absent: Absent,
    /// Streams whose senders claim more than a restart would know of, and when that is noted.
    claims: Claimed,
    mode: Mode,
    abandon_after_ms: u64,
    relayed_abandon_after_ms: u64,
    keep_closed_ms: u64,
}

impl Streams {
    /// - `ledger`: what the journal's newest snapshot says.
    /// - `done`: the index of epochs that are over.
    pub(super) fn new(ledger: Ledger, done: Box<dyn DoneEpochs>, settings: &Settings) -> Self {
        let required = settings.sinks.iter().filter(|sink| sink.required);
        Self {
            ledger,
            coverage: Coverage::new(required.map(|sink| sink.name.as_str())),
            index: Index::new(done),
            watched: Watched::default(),
            absent: Absent::default(),
            claims: Claimed::default(),
            mode: settings.mode,
            abandon_after_ms: settings.abandon_after_ms,
            relayed_abandon_after_ms: settings.relayed_abandon_after_ms,
            keep_closed_ms: settings.keep_closed_ms,
        }
    }

    pub(super) const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Takes in a record that is in the journal.
    ///
    /// - `undated`: its time of receipt is no Unix time.
    pub(super) fn apply_as(&mut self, record: &Record<'_>, undated: bool) {
        self.ledger.apply(record, undated);
    }

    /// Times of receipt from `from_us` on were by a clock that was in doubt, and are later by `later_us`.
    pub(super) fn shift_receipts(&mut self, from_us: i64, later_us: i64) {
        ledger::shift_receipts(&mut self.ledger, from_us, later_us);
    }

    /// All that was appended is durable. Returns the streams of which more is committed by that: what was
    /// named for the sinks that lack it counts as committed once its names are durable.
    pub(super) fn synced(&mut self) -> Vec<Stream> {
        self.ledger.synced();
        let lacks = self.watched.synced();
        for (stream, part) in &lacks {
            self.coverage.forget(stream, *part);
            self.ledger.commit(stream, *part);
        }
        lacks.into_iter().map(|(stream, _)| stream).collect()
    }

    /// The running group failed: nothing of it happened.
    pub(super) fn roll_back(&mut self) {
        self.ledger.roll_back();
        self.watched.unsettle();
    }

    /// What is held of a stream whose sender holds records from `oldest` on.
    pub(super) fn mark(&self, stream: &Stream, oldest: u64) -> Option<Mark> {
        let track = self.ledger.track(stream)?;
        let mut mark = track.receiver.mark(stream.lane, stream.epoch, oldest);
        if self.mode == Mode::Journal {
            // Custody ends at the journal: what is durable may be forgotten.
            mark.committed = mark.received;
            mark.ranges.iter_mut().for_each(|r| r.committed = true);
        }
        Some(mark)
    }

    /// Numbers plain devices under another epoch from now on.
    pub(super) fn begin_plain_epoch(&mut self, epoch: Epoch) {
        self.ledger.begin_plain_epoch(epoch);
    }

    /// Every required sink has `range`.
    pub(super) fn commit(&mut self, stream: &Stream, range: SeqRange) {
        self.ledger.commit(stream, range);
    }

    /// What each required sink has and not all of them have.
    pub(super) const fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    /// A required sink has some numbers, or has refused them and was named for them. Whether all required
    /// sinks have more of the stream by that: it is committed then.
    pub(super) fn has(&mut self, sink: &str, stream: &Stream, ranges: &[SeqRange]) -> bool {
        let mut is_new = false;
        for range in ranges {
            for open in self.ledger.uncommitted(stream, *range) {
                for all in self.coverage.add(sink, stream, open) {
                    self.ledger.commit(stream, all);
                    is_new = true;
                }
            }
        }
        is_new
    }

    /// The journal goes on under a new name, with what is left of it in `ledger`.
    pub(super) fn go_on_with(&mut self, ledger: Ledger) {
        self.ledger = ledger;
        self.absent.clear();
    }
}

/// Whether something is `after` old.
const fn is_due(since: Millis, after: u64, now: Millis) -> bool {
    now.since(since) >= after
}

/// Of the contents of sources nothing is known any more.
pub(super) fn forget_portions(streams: &mut Streams) {
    streams.ledger.portions = Portions::default();
}

#[cfg(test)]
mod age;
#[cfg(test)]
mod tests;
