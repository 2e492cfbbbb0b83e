//! Core: what the journal took and can read no more.
//!
//! A sink that meets damage passes over it. What the damaged records were, nobody can read; but all
//! that was durable at that moment stands below the journal's end, so once every required sink has
//! come there, whatever is still not committed is lost:
//!
//! ```text
//! damage met, or a start ──► watch: what is durable and not committed, the journal's end
//! every required sink has passed that end ──► of the watch, what is not committed:
//!     some required sinks have it   ──► named for those that lack it, and committed
//!     an agent's, custody "sinks"   ──► taken out of its marks; the agent still holds it, and is
//!                                       refused until it says Hello and is told so
//!     an agent's, custody "journal" ──► named in a gap: the agent may have forgotten it
//!     a plain device's              ──► named in a gap: it had its PUBACK
//! ```
//! A start watches too: the process may have ended after a sink passed the damage. It knows of several
//! required sinks what each has by reading the records between their cursors; of those that it cannot
//! read a sink may have some, so what is then in no sink as far as is known is named and not asked for
//! again: that sink would have it twice.

use headwater_proto::ids::{SeqRange, Stream};
use headwater_proto::message::{GapReason, Reject, RejectReason};
use headwater_proto::time::Now;
use headwater_spool::Disk;

use super::{Custody, Leaves, Mode, Refused, plain};
use crate::pipeline::envelope::{Change, MarkHead, Record};
use crate::pipeline::ledger::plain_stream;

/// What is to be committed when every required sink has come to a position.
#[derive(Debug)]
pub(super) struct Watch {
    below: u64,
    items: Vec<Item>,
}

/// One of them.
#[derive(Debug, Clone)]
pub(super) enum Item {
    /// Received.
    Owed(Stream, SeqRange),
    /// Named by the collector as missing.
    Named(Stream, SeqRange),
    /// Received from a plain device.
    Plain(Stream, SeqRange),
    /// Records were lost that may have been of plain devices; nobody can say of which.
    Unknown,
}

/// What a start found in one required sink and could not read for the others.
#[derive(Debug)]
pub(super) struct Unread {
    /// The others.
    pub(super) sinks: Vec<String>,
    pub(super) lacks: (Stream, Vec<SeqRange>),
}

impl<D: Disk> Custody<D> {
    /// Watches whether all that is durable now is committed in the end. Called once at a start, when
    /// the marks are exact.
    pub fn watch(&mut self) {
        if self.watch.is_some() {
            self.watch_again = true;
            return;
        }
        let mut items = Vec::new();
        for (stream, track) in self.ledger.streams() {
            let receiver = &track.receiver;
            let owed = receiver.owed().map(|r| Item::Owed(stream.clone(), r));
            items.extend(owed);
            let names = receiver.owed_names();
            items.extend(names.map(|r| Item::Named(stream.clone(), r)));
        }
        for (stream, next, track) in self.ledger.plain_durable() {
            let owed = track.committed.holes(SeqRange::new(0, next));
            items.extend(owed.map(|r| Item::Plain(stream.clone(), r)));
        }
        let below = self.journal.log().next();
        if items.is_empty() {
            self.coverage.settle_doubt();
        }
        self.watch = (!items.is_empty()).then_some(Watch { below, items });
    }

    /// Records that are durable were lost before anybody could read them: whose they were cannot be
    /// said, so that is named too.
    pub fn doubt_plain_devices(&mut self) {
        let below = 0;
        let watch = self.watch.get_or_insert(Watch {
            below,
            items: Vec::new(),
        });
        watch.items.push(Item::Unknown);
    }

    /// Settles the running watch when its time has come; what finds no room waits for the next tick.
    pub(super) fn settle_watch(&mut self, now: Now) {
        let passed = self.journal.sinks.required_position();
        while let Some(watch) = &mut self.watch {
            if watch.below > passed {
                return;
            }
            let Some(item) = watch.items.pop() else {
                self.watch = None;
                self.coverage.settle_doubt();
                if std::mem::take(&mut self.watch_again) {
                    self.watch();
                }
                return;
            };
            let mut open = self.still_open(&item);
            let first = open.pop();
            self.put_back(open);
            let Some(first) = first else { continue };
            if self.settle_item(&first, now).is_err() {
                self.put_back(vec![first]);
                return;
            }
            self.settled.push(first);
        }
    }

    /// What was settled in a group that failed is open again.
    pub(super) fn unsettle(&mut self) {
        self.settled_lacks.clear();
        self.unread.append(&mut self.named_unread);
        let settled = std::mem::take(&mut self.settled);
        self.put_back(settled);
    }

    fn put_back(&mut self, items: Vec<Item>) {
        if items.is_empty() {
            return;
        }
        let below = 0;
        let watch = self.watch.get_or_insert(Watch {
            below,
            items: Vec::new(),
        });
        watch.items.extend(items);
    }

    /// The parts of an item that are not committed by now, each of which a required sink has whole or not
    /// at all.
    fn still_open(&self, item: &Item) -> Vec<Item> {
        let (stream, range) = match item {
            Item::Owed(stream, range) | Item::Named(stream, range) | Item::Plain(stream, range) => {
                (stream.clone(), *range)
            }
            Item::Unknown => return vec![Item::Unknown],
        };
        let open = self.ledger.uncommitted(&stream, range);
        let parts = open
            .into_iter()
            .flat_map(|open| self.coverage.split(&stream, open));
        let part = |part| match item {
            Item::Owed(stream, _) => Item::Owed(stream.clone(), part),
            Item::Named(stream, _) => Item::Named(stream.clone(), part),
            Item::Plain(stream, _) => Item::Plain(stream.clone(), part),
            Item::Unknown => Item::Unknown,
        };
        parts.map(part).collect()
    }

    /// Names a part for the required sinks that lack it, if others have it. False if none has.
    fn settle_lacks(&mut self, item: &Item, now: Now) -> Result<bool, Refused> {
        let (stream, part) = match item {
            Item::Owed(stream, part) | Item::Named(stream, part) | Item::Plain(stream, part) => {
                (stream.clone(), *part)
            }
            Item::Unknown => return Ok(false),
        };
        let sinks = self.coverage.lacking(&stream, part);
        if sinks.is_empty() {
            return Ok(false);
        }
        let lacks = [(stream.clone(), vec![part])];
        self.name_lacks(&sinks, &lacks, GapReason::Damaged, now)?;
        self.settled_lacks.push((stream, part));
        Ok(true)
    }

    /// Names what a start could not read for some sinks; without room the next tick tries again.
    pub(super) fn name_unread(&mut self, now: Now) {
        while let Some(unread) = self.unread.pop() {
            let lacks = std::slice::from_ref(&unread.lacks);
            let named = self.name_lacks(&unread.sinks, lacks, GapReason::Damaged, now);
            if named.is_err() {
                self.unread.push(unread);
                return;
            }
            self.named_unread.push(unread);
        }
    }

    /// What was named for the sinks that lack it counts as committed once its names are durable.
    pub(super) fn commit_settled_lacks(&mut self) {
        for (stream, part) in std::mem::take(&mut self.settled_lacks) {
            self.coverage.forget(&stream, part);
            self.ledger.commit(&stream, part);
            self.sessions.owe_acks(&stream);
        }
    }

    fn settle_item(&mut self, item: &Item, now: Now) -> Result<(), Refused> {
        if self.settle_lacks(item, now)? {
            return Ok(());
        }
        match item {
            Item::Owed(stream, range) => self.settle_owed(stream, *range, now),
            // Its record is what was lost. The reason that it gave is not known any more.
            Item::Named(stream, range) => {
                self.name_gap(stream, Some(*range), GapReason::DiskError, now)
            }
            Item::Plain(stream, range) => {
                self.name_gap(stream, Some(*range), GapReason::Damaged, now)
            }
            Item::Unknown => {
                let stream = plain_stream(&plain::nobody().device, self.ledger.plain_epoch());
                self.name_gap(&stream, None, GapReason::Damaged, now)
            }
        }
    }

    fn settle_owed(&mut self, stream: &Stream, range: SeqRange, now: Now) -> Result<(), Refused> {
        let Some(track) = self.ledger.track(stream) else {
            return Ok(());
        };
        // Nobody holds the records of an abandoned epoch.
        let may_come =
            self.settings.mode == Mode::Sinks && !track.abandoned && !self.coverage.is_doubtful();
        if !may_come || track.receiver.clone().forget(range).is_err() {
            return self.name_gap(stream, Some(range), GapReason::Damaged, now);
        }
        let head = MarkHead {
            stream: stream.clone(),
            change: Change::Lost { range },
            at: now.wall,
        };
        self.append(&Record::Mark(head), Leaves::Two)?;
        self.counters.asked_again_total += range.len();
        // Makes its sender say Hello; the Welcome tells what it has to send again.
        let reject = Reject {
            origin: stream.device.clone(),
            lane: stream.lane,
            epoch: stream.epoch,
            range,
            reason: RejectReason::NotInHello,
        };
        self.sessions.send_all(&stream.device, &reject);
        Ok(())
    }
}
