//! Core: where records become durable: lanes and their epochs, appending, eviction, memory in place of a
//! disk that cannot be written, and what a start finds.
//!
//! It decides nothing that concerns others. An append that finds no room says which segment would give
//! way; a group whose sync failed comes back as records; what the sender and the sources must hear is
//! [`News`].

use headwater_proto::bundle::Stamps;
use headwater_proto::delivery::{HeldEpoch, RecordRef};
use headwater_proto::ids::{Epoch, Lane, SeqRange};
use headwater_proto::message::Gap;
use headwater_proto::time::{Base, Now, UnixMicros};
use headwater_spool::{AppendError, Disk, FullCause, Victim};

use super::types::{EngineError, Settings};
use crate::pipeline::receipts::Owed;

mod contents;
mod dead;
mod draft;
mod gaps;
mod lane;
mod lanes;
mod lives;
mod marks;
mod memory;
mod names;
mod nodes;
mod open;
mod ram;
mod refused;
mod room;
mod shelf;

pub use dead::DEAD_LETTER;
pub(crate) use draft::{Draft, Own, Says};
pub use gaps::MAX_GAPS;
pub(crate) use lane::{Group, Over};
#[cfg(test)]
pub(crate) use nodes::SHARE_PERCENT;
pub(crate) use nodes::{Lost, NodeShelf, NodeStore, Offered as NodeOffered};
pub use ram::PROBE_MS;
pub(crate) use room::Evicted;

use lanes::LaneSet;

/// Bytes at which a group is synced, however young it is.
pub const GROUP_BYTES: usize = 64 * 1024;

/// Says whether all records of a range may be forgotten.
pub(crate) type Committed<'a> = &'a dyn Fn(Lane, Epoch, SeqRange) -> bool;

/// When it is, and how good the wall clock is: what the agent itself says carries that.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) now: Now,
    /// The wall time, if a clock knows it.
    pub(crate) wall: Option<UnixMicros>,
    pub(crate) stamps: Stamps,
}

/// What became of an append.
#[derive(Debug)]
pub(crate) enum Append {
    /// It is in the open group of its lane, or in memory where the lane has no disk.
    Appended,
    /// There is no room: this segment would give way. `by_others`: it is not the quota, but the file
    /// system that is full.
    Full {
        record: Box<Draft>,
        victim: Option<Victim>,
        by_others: bool,
    },
    /// The group before it could not be synced, and needs a new epoch. The record is not stored.
    Failed { group: Group, record: Box<Draft> },
    /// The disk does not take the record.
    Unwritable(Box<Draft>),
}

/// What others must hear of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    /// Records of an epoch of this boot may go out: all below its `next`.
    Stored(HeldEpoch),
    /// An epoch is over; `named` is the record that says so.
    Ended {
        lane: Lane,
        epoch: Epoch,
        named: Option<RecordRef>,
    },
    /// Records are gone, and a gap names them.
    Gone {
        lane: Lane,
        epoch: Epoch,
        range: SeqRange,
    },
    /// What a source waits for is synced.
    Durable(Owed),
    /// What a source waits for is in memory alone.
    NotDurable(Owed),
}

/// What the store has counted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counted {
    pub(crate) samples_durable: u64,
    pub(crate) failed_syncs: u64,
    pub(crate) disk_failures: u64,
    pub(crate) evicted_records: u64,
}

/// The store of one agent.
pub(crate) struct Store<D: Disk> {
    /// Where records are written.
    pub(crate) lanes: LaneSet<D>,
    /// Where records of nodes are written.
    pub(crate) nodes: NodeStore<D>,
    dead: dead::DeadLetters<D>,
    lives: lives::Lives<D>,
    gaps: gaps::Gaps,
    /// What was in segments that went before their gap was written.
    released: Vec<contents::Contents>,
}

/// What a start could not do with files that it found, for the operator.
pub(crate) struct Trouble {
    pub(crate) trouble: Vec<String>,
    /// Segments of the lanes whose records are not seen, or not all of them.
    pub(crate) hidden: Vec<String>,
}

impl<D: Disk> Store<D> {
    /// Opens the spool. Every lane gets a new epoch, whose times count from `base`.
    ///
    /// - `random`: from the operating system.
    ///
    /// # Errors
    /// [`EngineError`].
    pub(crate) fn open(
        disk: &D,
        settings: &Settings,
        base: Base,
        random: (u64, u64, u64),
    ) -> Result<(Self, Trouble), EngineError> {
        let open::Logs {
            lanes: spool,
            dead,
            nodes,
            mut trouble,
            hidden,
        } = open::open_logs(disk, settings)?;
        let (lives, of_lives) = lives::Lives::open(disk, &settings.sources)?;
        trouble.extend(of_lives);
        let mut store = Self {
            lanes: LaneSet::open(spool, settings, base, (random.0, random.1))?,
            nodes: NodeStore::open(nodes, settings.group_ms, random.2),
            dead: dead::DeadLetters::new(dead),
            lives,
            gaps: gaps::Gaps::default(),
            released: Vec::new(),
        };
        store.lives.forget_said(&store.lanes.lanes);
        Ok((store, Trouble { trouble, hidden }))
    }

    /// Records in the log of dead letters.
    pub(crate) fn dead_letter_records(&self) -> u64 {
        self.dead.records()
    }

    /// The log of dead letters, to look at.
    #[cfg(test)]
    pub(crate) const fn dead_letters(&self) -> &dead::DeadLetters<D> {
        &self.dead
    }

    /// Begins an epoch on disk, of this boot, whose times count from `base` and whose first records
    /// name the ends of others; returns those that found no room in the reserve, for which there is a
    /// segment to make room from now. `None`: the lane is as it was.
    pub(crate) fn begin_epoch(
        &mut self,
        at: usize,
        base: Base,
        ends: &[Over],
        moment: Moment,
        committed: Committed<'_>,
    ) -> Option<Vec<Over>> {
        // An end that is not clean never stands without its gaps.
        let is_of =
            |gap: &Gap| place_of(gap.lane) == at && ends.iter().any(|o| o.epoch == gap.epoch);
        let mut gaps = self.unclean_gaps(moment);
        gaps.retain(is_of);
        let begun = match self.lanes.try_begin(at, base, (&gaps, ends), moment) {
            Err(AppendError::Full {
                cause: FullCause::Quota,
                ..
            }) => {
                // A crash between a gap and its release has used up the reserve.
                self.release_first(at, committed)
                    && self
                        .lanes
                        .try_begin(at, base, (&gaps, ends), moment)
                        .is_ok()
            }
            result => result.is_ok(),
        };
        let marks = &self.lanes.lane(at).marks;
        let unsaid = ends.iter().copied();
        let unsaid = unsaid.filter(|over| marks.end_of(over.epoch).is_none());
        begun.then(|| unsaid.collect())
    }

    /// Tries the disk of a lane in memory again. On success a new epoch has begun, whose first records
    /// name the end of the one before the failure and of the RAM epoch: returns the ends that found no
    /// room there, as [`Store::begin_epoch`] does, and the records that waited.
    pub(crate) fn leave_memory(
        &mut self,
        at: usize,
        moment: Moment,
        committed: Committed<'_>,
    ) -> Option<(Vec<Over>, Group)> {
        let (base, ends) = self.lanes.probe(at, moment.now.mono)?;
        let unsaid = self.begin_epoch(at, base, &ends, moment, committed)?;
        Some((unsaid, self.lanes.leave_memory(at)))
    }
}

/// The place of a lane among those of an agent.
///
/// # Panics
/// If it is none of them.
pub(crate) fn place_of(lane: Lane) -> usize {
    Lane::AGENT
        .iter()
        .position(|known| *known == lane)
        .expect("an agent writes the lanes of Lane::AGENT only")
}

#[cfg(test)]
pub(super) mod tests;
