//! Core: custody's half of a meeting of the journal with the lake, after which both agree on what is
//! committed.
//!
//! ```text
//! journal says ([`JournalSide`]) ──► the lake's half: open, claim, carry out the last plan
//!                                         │
//! marks, cursors, index ◄── [`LakeSide`] ─┘   on the thread that owns custody
//!        └── [`Agreed`] ──► what the sink goes on with
//! ```
//! Only values pass between the halves, so that the lake's may run on its sink's thread.

use std::sync::Arc;

use headwater_proto::delivery::End;
use headwater_proto::ids::{Epoch, JournalId, Lane, SeqRange, Stream};
use headwater_spool::Disk;

use super::{Custody, OpenError, Opened, Past};
use crate::done::DoneError;

/// What a journal that was just opened says of itself to the lake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalSide {
    /// Its name.
    pub journal: JournalId,
    /// The sink's last plan, which may not be carried out yet.
    pub plan: Option<Vec<u8>>,
    /// The first position that it does not know to be in the lake.
    pub known: u64,
    /// A lake that has more than what stands before this position has seen a later time of the
    /// journal than its disk shows.
    pub since: u64,
    /// What is known of the time before the start.
    pub past: Past,
    /// Records that could not be read at the start.
    pub damaged: u64,
    /// The position after the last of those.
    pub damaged_to: u64,
    /// The term of the lake that the marks agree with, 0 if none.
    pub lake_term: u64,
    /// Whether the index of closed epochs has all that it should.
    pub index_is_whole: bool,
}

impl JournalSide {
    /// - `sink`: the lake's name among the sinks.
    #[must_use]
    pub fn of<D: Disk>(custody: &Custody<D>, opened: &Opened, sink: &str) -> Self {
        Self {
            journal: custody.journal(),
            plan: custody.plan(sink).map(|plan| plan.bytes.clone()),
            known: custody.cursor(sink).unwrap_or_default(),
            since: custody.log().next(),
            past: opened.past,
            damaged: opened.damaged,
            damaged_to: opened.damaged_to,
            lake_term: custody.lake_term(),
            index_is_whole: custody.index_is_whole(),
        }
    }

    /// Whether journal and index together know all that was committed before, if nobody else wrote to
    /// the lake.
    #[must_use]
    pub fn knows_its_past(&self) -> bool {
        self.past == Past::Snapshot && self.damaged == 0 && self.index_is_whole
    }
}

/// What the lake proves of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// The stream.
    pub stream: Stream,
    /// Numbers that are there or named in a gap, in order.
    pub held: Vec<SeqRange>,
    /// Numbers among them that are there in part.
    pub partial: Vec<u64>,
    /// The number after the last one that is known.
    pub next: u64,
    /// Its end, if its epoch is over.
    pub end: Option<End>,
    /// Its epoch is closed or abandoned, and the lake has all of it or names it: it belongs in the index.
    pub is_whole: bool,
}

/// What the lake says.
#[derive(Debug, Clone)]
pub struct LakeSide {
    /// The first position of the journal that it does not have.
    pub cursor: u64,
    /// The term under which it is written now.
    pub term: u64,
    /// Nobody else has written to it since the journal's marks were made to agree with it.
    pub is_alone: bool,
    /// It has seen a later time of the journal than the disk shows: the journal goes on under this
    /// name.
    pub renamed: Option<JournalId>,
    /// What it proves of each stream, if it was asked.
    pub proven: Option<Arc<[Proven]>>,
}

/// What a sink has of one stream, as the journal knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The stream.
    pub stream: Stream,
    /// Numbers that are committed.
    pub committed: Vec<SeqRange>,
    /// Its end, if that is known.
    pub end: Option<End>,
    /// The boot in which the epoch was written, 0 if unknown.
    pub boot: u64,
    /// Its sender no longer lists it.
    pub is_abandoned: bool,
}

/// What came of a meeting.
#[derive(Debug)]
pub enum Meeting {
    /// Both agree.
    Agreed(Agreed),
    /// The journal does not know enough: the lake is to say what it proves of each stream.
    NeedsMarks,
}

/// What the sink goes on with.
#[derive(Debug)]
pub struct Agreed {
    /// All streams.
    pub streams: Vec<Told>,
    /// What the sink has of each stream and other required ones do not, so that it is not committed.
    pub beyond: Vec<(Stream, Vec<SeqRange>)>,
    /// Records before this position may be in the lake though the journal never committed them:
    /// another one brought them.
    pub leave_out_until: Option<u64>,
    /// Why the index of closed epochs could not be filled; the journal keeps them then.
    pub index_failure: Option<DoneError>,
}

impl<D: Disk> Custody<D> {
    /// Makes the marks agree with the lake, which is the sink called `sink`; before its first commit.
    ///
    /// # Errors
    /// [`OpenError`] if the journal cannot be read; the same call may be repeated.
    pub fn meet_lake(
        &mut self,
        sink: &str,
        journal: &JournalSide,
        lake: &LakeSide,
    ) -> Result<Meeting, OpenError> {
        let end = self.log().next();
        let past = match lake.renamed {
            Some(name) => {
                self.rename(name);
                Past::Nothing
            }
            None => journal.past,
        };
        let missing = self.resume(sink, lake.cursor)?;
        let is_sure = journal.knows_its_past() && missing == 0 && lake.is_alone;
        if !is_sure && lake.proven.is_none() {
            return Ok(Meeting::NeedsMarks);
        }
        let mut index_failure = None;
        if let Some(proven) = &lake.proven {
            let whole = proven.iter().filter(|proven| proven.is_whole);
            let ends = whole.filter_map(|proven| Some((proven.stream.clone(), proven.end?)));
            index_failure = self.fill_index(ends).err();
            self.seed_all(sink, past, proven, index_failure.is_none());
        }
        self.seeded(lake.term);
        if journal.damaged_to > lake.cursor {
            self.doubt_plain_devices();
        }
        self.watch();
        let beyond = self.beyond_others(sink);
        let beyond = beyond.map(|(stream, ranges)| (stream.clone(), ranges.to_vec()));
        Ok(Meeting::Agreed(Agreed {
            beyond: beyond.collect(),
            streams: self.told(),
            leave_out_until: (!lake.is_alone).then_some(end),
            index_failure,
        }))
    }

    /// Takes in the marks that the lake proves. Epochs that are over, and new to custody, are left to
    /// the index where it has them.
    fn seed_all(&mut self, sink: &str, past: Past, all: &[Proven], is_indexed: bool) {
        let own = Epoch::new(self.journal.0);
        for proven in all {
            let stream = &proven.stream;
            if stream.lane == Lane::Plain {
                // A plain device counts under each journal anew.
                if stream.epoch == own {
                    let held = self.to_be_seeded(sink, stream, &proven.held);
                    self.seed_plain(stream.device.clone(), &held, proven.next);
                }
                continue;
            }
            let is_new = self.ledger.track(stream).is_none();
            // What the index has is found there when it comes back.
            if is_indexed && is_new && proven.is_whole {
                continue;
            }
            // Under the same name nothing was cut off between two tables: its last plan was carried out.
            let partial = match past {
                Past::Nothing => proven.partial.as_slice(),
                Past::Snapshot | Past::Records => &[],
            };
            let held = self.to_be_seeded(sink, stream, &proven.held);
            self.seed(stream.clone(), &held, partial, proven.end);
        }
    }

    fn told(&self) -> Vec<Told> {
        let streams = self.ledger.streams();
        streams
            .map(|(stream, track)| Told {
                stream: stream.clone(),
                committed: track.receiver.committed().iter().collect(),
                end: track.receiver.ended(),
                boot: track.boot,
                is_abandoned: track.abandoned,
            })
            .collect()
    }
}
