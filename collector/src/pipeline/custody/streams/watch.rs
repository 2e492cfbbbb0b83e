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
//! required sinks what each has by reading the records between their cursors; of those that it cannot read the
//! lake says what it has, and another sink may have some: what is then in no sink as far as is known is named
//! and not asked for again, or that sink would have it twice. What a sink beside the lake cannot read and the
//! lake has was named before its cursor passed (`upkeep/rot.rs`).

use headwater_proto::ids::{SeqRange, Stream};
use headwater_proto::message::GapReason;

use super::super::types::nobody;
use super::{Mode, Streams};
use crate::pipeline::ledger::plain_stream;

/// What is to be committed when every required sink has come to a position.
#[derive(Debug)]
struct Watch {
    below: u64,
    items: Vec<Item>,
}

/// One of them.
#[derive(Debug, Clone)]
enum Item {
    /// Received.
    Owed(Stream, SeqRange),
    /// Named by the collector as missing.
    Named(Stream, SeqRange),
    /// Received from a plain device.
    Plain(Stream, SeqRange),
    /// Records were lost that may have been of plain devices; nobody can say of which.
    Unknown,
}

/// What is watched, and what of it the running group settles.
#[derive(Debug, Default)]
pub(super) struct Watched {
    watch: Option<Watch>,
    /// All that is durable is to be watched once more after that.
    is_due_again: bool,
    /// What was settled in the running group.
    settled: Vec<Item>,
    /// Numbers that some required sinks lack for good, as records of the running group say.
    settled_lacks: Vec<(Stream, SeqRange)>,
}

/// What has to be said of numbers that are lost.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) enum Say {
    /// Some required sinks have them; these lack them.
    Lacks(Vec<String>, Stream, SeqRange),
    /// Their sender holds them still, and may bring them again.
    Lost(Stream, SeqRange),
    /// Nobody holds them, or nobody knows which they are.
    Gap(Stream, Option<SeqRange>, GapReason),
    /// Nothing: their stream is gone.
    Nothing,
}

/// Numbers that are lost, and what has to be said of them.
#[derive(Debug)]
pub(in super::super) struct Loss {
    item: Item,
    pub(in super::super) say: Say,
}

impl Watched {
    /// The running group is durable. Returns the numbers that it named for sinks that lack them.
    pub(super) fn synced(&mut self) -> Vec<(Stream, SeqRange)> {
        self.settled.clear();
        std::mem::take(&mut self.settled_lacks)
    }

    /// What was settled in a group that failed is open again.
    pub(super) fn unsettle(&mut self) {
        self.settled_lacks.clear();
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
}

impl Streams {
    /// Watches whether all that is durable now is committed in the end. Called once at a start, when
    /// the marks are exact.
    ///
    /// - `end`: the position after the journal's last record.
    pub(in super::super) fn watch(&mut self, end: u64) {
        // What the running group settles is owed until that is durable: it would be asked for twice.
        if self.watched.watch.is_some() || !self.watched.settled.is_empty() {
            self.watched.is_due_again = true;
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
        if items.is_empty() {
            self.coverage.settle_doubt();
        }
        self.watched.watch = (!items.is_empty()).then_some(Watch { below: end, items });
    }

    /// Records that are durable were lost before anybody could read them: whose they were cannot be
    /// said, so that is named too.
    pub(in super::super) fn doubt_plain_devices(&mut self) {
        self.watched.put_back(vec![Item::Unknown]);
    }

    /// The next loss that is sure, now that every required sink has come to `passed`. It is to be named, and
    /// then told with [`Streams::named`], or put back.
    ///
    /// - `end`: the position after the journal's last record.
    pub(in super::super) fn next_loss(&mut self, passed: u64, end: u64) -> Option<Loss> {
        loop {
            if self.watched.watch.is_none() && std::mem::take(&mut self.watched.is_due_again) {
                self.watch(end);
            }
            let watch = self.watched.watch.as_mut();
            let watch = watch.filter(|watch| watch.below <= passed)?;
            let Some(item) = watch.items.pop() else {
                self.watched.watch = None;
                // A doubt outlives what was watched for before all that it concerns is.
                if !self.watched.is_due_again {
                    self.coverage.settle_doubt();
                }
                return None;
            };
            let mut open = self.still_open(&item);
            let first = open.pop();
            self.watched.put_back(open);
            if let Some(item) = first {
                let say = self.to_say(&item);
                return Some(Loss { item, say });
            }
        }
    }

    /// Records of the running group name a loss.
    pub(in super::super) fn named(&mut self, loss: Loss) {
        if let Say::Lacks(_, stream, part) = loss.say {
            self.watched.settled_lacks.push((stream, part));
        }
        self.watched.settled.push(loss.item);
    }

    /// A loss found no room; it is found again.
    pub(in super::super) fn put_back(&mut self, loss: Loss) {
        self.watched.put_back(vec![loss.item]);
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

    fn to_say(&self, item: &Item) -> Say {
        if let Item::Owed(stream, part) | Item::Named(stream, part) | Item::Plain(stream, part) =
            item
        {
            let sinks = self.coverage.lacking(stream, *part);
            if !sinks.is_empty() {
                return Say::Lacks(sinks, stream.clone(), *part);
            }
        }
        match item {
            Item::Owed(stream, range) => self.to_say_of_owed(stream, *range),
            // Its record is what was lost. The reason that it gave is not known any more.
            Item::Named(stream, range) => {
                Say::Gap(stream.clone(), Some(*range), GapReason::DiskError)
            }
            Item::Plain(stream, range) => {
                Say::Gap(stream.clone(), Some(*range), GapReason::Damaged)
            }
            Item::Unknown => {
                let stream = plain_stream(&nobody(), self.ledger.plain_epoch());
                Say::Gap(stream, None, GapReason::Damaged)
            }
        }
    }

    fn to_say_of_owed(&self, stream: &Stream, range: SeqRange) -> Say {
        let Some(track) = self.ledger.track(stream) else {
            return Say::Nothing;
        };
        // Nobody holds the records of an abandoned epoch.
        let may_come = self.mode == Mode::Sinks && !track.abandoned && !self.coverage.is_doubtful();
        if !may_come || track.receiver.clone().forget(range).is_err() {
            return Say::Gap(stream.clone(), Some(range), GapReason::Damaged);
        }
        Say::Lost(stream.clone(), range)
    }
}
