//! Core: what the journal and the lake say to each other when they meet, as values: the lake's half of a
//! meeting may run on its sink's thread.

use std::collections::BTreeSet;
use std::sync::Arc;

use headwater_proto::delivery::End;
use headwater_proto::ids::{Epoch, JournalId, SeqRange, Stream};
use headwater_proto::sabotage::{self, Bug};
use headwater_proto::time::UnixMicros;
use headwater_spool::{Disk, ReadError, SyncError};

use super::stretch::Lacking;
use super::{Custody, Opened, Past};
use crate::done::{DoneError, Filling};
use crate::pipeline::envelope::SinkCursor;

/// What a journal that was just opened says of itself to the lake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalSide {
    /// Its name.
    pub journal: JournalId,
    /// The sink's last plan, which may not be carried out yet.
    pub plan: Option<Vec<u8>>,
    /// The first position that it does not know to be in the lake.
    pub known: u64,
    /// The position of the oldest record.
    pub oldest: u64,
    /// How far each sink is.
    pub sinks: Vec<SinkCursor>,
    /// A lake that has more than what stands before this position has seen a later time of the journal
    /// than its disk shows: the end, or where a time without the lake began.
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
            oldest: custody
                .log()
                .segments()
                .next()
                .map_or(0, |oldest| oldest.first),
            sinks: custody.cursors().to_vec(),
            since: match custody.apart_since() {
                Some(since) if !sabotage::is(Bug::LateLakeByPresentEnd) => since,
                Some(_) | None => custody.log().next(),
            },
            past: opened.past,
            damaged: opened.damaged,
            damaged_to: opened.damaged_to,
            lake_term: custody.journal.lake_term(),
            index_is_whole: custody.index_is_whole(),
        }
    }

    /// Whether it has ever been at one with a lake: there is one then, which must not be begun anew.
    #[must_use]
    pub const fn has_met_lake(&self) -> bool {
        self.lake_term > 0 || self.known > 0
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

/// What the lake is to prove.
#[derive(Debug, Clone)]
pub struct Needs {
    /// Of whom all is to be told.
    pub wanted: Arc<Wanted>,
    /// Takes what is over and whole in the lake, so that it need not stand in memory.
    pub index: Result<Filling, DoneError>,
}

/// Streams that a journal knows: what the lake has of them it must hear, also where they are over.
#[derive(Debug, PartialEq, Eq)]
pub struct Wanted {
    /// They.
    pub streams: BTreeSet<Stream>,
    /// The epoch of its plain devices. Of other epochs it needs none that it does not know.
    pub plain: Epoch,
}

/// What the lake proves.
#[derive(Debug, Clone)]
pub struct Proof {
    /// For whom it was asked.
    pub wanted: Arc<Wanted>,
    /// Of each stream that is wanted, or not over, or not in the index.
    pub streams: Arc<[Proven]>,
    /// Whether the index took all others.
    pub index: Result<(), DoneError>,
}

/// What the lake says.
#[derive(Debug, Clone)]
pub struct LakeSide {
    /// The first position of the journal that it does not have.
    pub cursor: u64,
    /// The term under which it is written now.
    pub term: u64,
    /// When an owner was last known to run, by its clock.
    pub last_owned: Option<UnixMicros>,
    /// Nobody else has written to it since the journal's marks were made to agree with it.
    pub is_alone: bool,
    /// It has seen a later time of the journal than the disk shows: the journal goes on under this
    /// name.
    pub renamed: Option<JournalId>,
    /// It was brought back older than the journal knows it: what stands from [`Self::cursor`] on is read once
    /// more.
    pub is_older: bool,
    /// What it proves of streams, if it was asked.
    pub proof: Option<Proof>,
    /// What sinks of earlier journals may lack, and no flush says that it is named.
    pub lacking: Arc<[Lacking]>,
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
    /// The journal does not know enough: the lake is to say what it proves.
    NeedsMarks(Needs),
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

/// Why journal and lake could not be made to agree; the same call may be repeated.
#[derive(Debug, thiserror::Error)]
pub enum MeetError {
    /// The journal's files.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The journal could not be synced.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// The index of epochs that are over.
    #[error(transparent)]
    Index(#[from] DoneError),
}
