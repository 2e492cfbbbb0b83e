//! Core: what the lake holds of each stream, to seed a journal that is new beside it.

use std::collections::{BTreeMap, BTreeSet};

use headwater_proto::ids::SeqRange;

use super::AuditError;
use super::scan::{Key, Scan, State, View};
use crate::ranges::Ranges;
use crate::rows::EpochState;
use crate::store::Store;

/// What the lake holds of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamMark {
    /// Its device.
    pub device_id: String,
    /// Its lane.
    pub lane: String,
    /// Its epoch.
    pub epoch: u64,
    /// First number of the stream.
    pub first: u64,
    /// Numbers that are there or named in a gap, in order, not touching each other.
    pub held: Vec<SeqRange>,
    /// Numbers in `held` whose batch is there in part, because a flush was cut off between two
    /// tables: to be named in a gap, for its other readings are in no journal any more.
    pub partial: Vec<u64>,
    /// How far the epoch is known, `None` if table `epochs` has no row of it.
    pub state: Option<EpochState>,
    /// End of the epoch as far as known.
    pub next: u64,
}

/// What some flushes brought of one stream. Two of them merge, in any order and any number of times.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Holding {
    /// Batches that are whole, records that gave other rows, and what gaps name.
    pub(crate) full: Ranges,
    /// Batches that are there in part, and not in `full`.
    pub(crate) partial: BTreeSet<u64>,
    pub(crate) epoch: Option<EpochMark>,
}

/// The rows of `epochs` on one stream, merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EpochMark {
    pub(crate) first: u64,
    pub(crate) next: u64,
    pub(crate) state: EpochState,
}

/// What is held of each stream.
pub(crate) type Holdings = BTreeMap<Key, Holding>;

impl EpochMark {
    pub(crate) fn merge(self, other: Self) -> Self {
        Self {
            first: self.first.min(other.first),
            next: self.next.max(other.next),
            state: self.state.max(other.state),
        }
    }
}

impl Holding {
    pub(crate) fn merge(&mut self, other: &Self) {
        self.full.insert_all(&other.full);
        self.partial.extend(&other.partial);
        let full = &self.full;
        self.partial.retain(|seq| !full.contains(*seq));
        self.epoch = match (self.epoch, other.epoch) {
            (Some(a), Some(b)) => Some(a.merge(b)),
            (a, b) => a.or(b),
        };
    }

    pub(crate) fn mark(&self, key: &Key) -> StreamMark {
        let mut held = self.full.clone();
        let one = |seq: &u64| SeqRange::new(*seq, seq + 1);
        self.partial.iter().for_each(|seq| held.insert(one(seq)));
        StreamMark {
            device_id: key.device.to_string(),
            lane: key.lane.to_string(),
            epoch: key.epoch.cast_unsigned(),
            first: self.epoch.map_or(0, |epoch| epoch.first),
            next: self.epoch.map_or(0, |epoch| epoch.next).max(held.end()),
            held: held.iter().collect(),
            partial: self.partial.iter().copied().collect(),
            state: self.epoch.map(|epoch| epoch.state),
        }
    }
}

impl From<State> for Holding {
    fn from(state: State) -> Self {
        let mut full = state.whole;
        full.insert_all(&state.records);
        state.gaps.iter().for_each(|gap| full.insert(gap.range));
        let (mut partial, mut whole) = (BTreeSet::new(), Vec::new());
        for (seq, found) in state.partial {
            if found.is_whole() {
                whole.push(seq);
            } else if !full.contains(seq) {
                partial.insert(seq);
            }
        }
        let one = |seq: u64| SeqRange::new(seq, seq + 1);
        whole.into_iter().for_each(|seq| full.insert(one(seq)));
        let epoch = state.epoch.map(|epoch| EpochMark {
            first: epoch.first,
            next: epoch.next,
            state: epoch.state,
        });
        Self {
            full,
            partial,
            epoch,
        }
    }
}

impl Scan {
    pub(crate) fn into_holdings(self) -> Holdings {
        let holding = |(key, state): (Key, State)| (key, state.into());
        self.streams.into_iter().map(holding).collect()
    }
}

/// Reads what the lake holds from every file. Memory: all its streams.
///
/// # Errors
/// [`AuditError`] if the lake cannot be read.
pub fn marks(store: &dyn Store) -> Result<Vec<StreamMark>, AuditError> {
    let scan = View::new(store)?.scan(store, &|_| true)?;
    let holdings = scan.into_holdings();
    Ok(holdings.iter().map(|(key, h)| h.mark(key)).collect())
}
