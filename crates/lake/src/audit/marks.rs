//! Core: what the lake holds of each stream, to seed a journal that is new beside it.

use std::collections::{BTreeMap, BTreeSet};

use headwater_proto::ids::SeqRange;

use super::AuditError;
use super::scan::{Key, Scan, State};
use crate::head::load_logs;
use crate::ranges::Ranges;
use crate::rows::EpochState;
use crate::schema::Table;
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
    /// Those of them that are wholly there, or were until they were pruned: what comes again is a
    /// repeat. What only a gap names is not.
    pub there: Vec<SeqRange>,
    /// Numbers in `held` whose batch or log record is there in part, because a flush was cut off between two
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
    /// Batches that are whole, records that gave other rows, and what was pruned of both.
    pub(crate) there: Ranges,
    /// What gaps name.
    pub(crate) named: Ranges,
    /// Batches and log records that are there in part, and in neither of the two.
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
        self.there.insert_all(&other.there);
        self.named.insert_all(&other.named);
        self.partial.extend(&other.partial);
        self.settle();
        self.epoch = match (self.epoch, other.epoch) {
            (Some(a), Some(b)) => Some(a.merge(b)),
            (a, b) => a.or(b),
        };
    }

    /// What is wholly there or named is not there in part.
    pub(crate) fn settle(&mut self) {
        let (there, named) = (&self.there, &self.named);
        self.partial
            .retain(|seq| !there.contains(*seq) && !named.contains(*seq));
    }

    /// Whether more is to come of the stream, as far as this tells.
    pub(crate) fn goes_on(&self) -> bool {
        self.epoch.is_some_and(|epoch| match epoch.state {
            EpochState::Claimed | EpochState::Open | EpochState::Ended => true,
            EpochState::Closed | EpochState::Abandoned => false,
        })
    }

    pub(crate) fn mark(&self, key: &Key) -> StreamMark {
        let mut held = self.there.clone();
        held.insert_all(&self.named);
        let one = |seq: &u64| SeqRange::new(*seq, seq + 1);
        self.partial.iter().for_each(|seq| held.insert(one(seq)));
        StreamMark {
            device_id: key.device.to_string(),
            lane: key.lane.to_string(),
            epoch: key.epoch.cast_unsigned(),
            first: self.epoch.map_or(0, |epoch| epoch.first),
            next: self.epoch.map_or(0, |epoch| epoch.next).max(held.end()),
            held: held.iter().collect(),
            there: self.there.iter().collect(),
            partial: self.partial.iter().copied().collect(),
            state: self.epoch.map(|epoch| epoch.state),
        }
    }
}

impl From<State> for Holding {
    fn from(state: State) -> Self {
        let (mut there, mut named) = (state.whole, Ranges::default());
        there.insert_all(&state.records);
        there.insert_all(&state.pruned);
        state.named.gaps().for_each(|gap| named.insert(gap.range));
        let mut partial: BTreeSet<u64> = state.cut_records.into_keys().collect();
        for (seq, found) in state.partial {
            if found.is_whole() {
                there.insert(SeqRange::new(seq, seq + 1));
            } else {
                partial.insert(seq);
            }
        }
        let epoch = state.epoch.map(|epoch| EpochMark {
            first: epoch.first,
            next: epoch.next,
            state: epoch.state,
        });
        let mut holding = Self {
            there,
            named,
            partial,
            epoch,
        };
        holding.settle();
        holding
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
    // What a later table claims is there although a writer goes on.
    let order = [
        Table::Epochs,
        Table::Gaps,
        Table::Quarantine,
        Table::Logs,
        Table::Samples,
    ];
    let mut scan = Scan::default();
    for log in load_logs(store, order)? {
        let table = log.table();
        log.files::<AuditError>(store, |add| {
            scan.file(store, table, &add.full_path(table), &|_| true)
        })?;
    }
    let holdings = scan.into_holdings();
    Ok(holdings.iter().map(|(key, h)| h.mark(key)).collect())
}
