//! Core: what the lake holds of each stream, to seed a journal that is new beside it.

use headwater_proto::ids::SeqRange;

use super::AuditError;
use super::scan::View;
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

/// Reads what the lake holds. Memory: all its streams.
///
/// # Errors
/// [`AuditError`] if the lake cannot be read.
pub fn marks(store: &dyn Store) -> Result<Vec<StreamMark>, AuditError> {
    let scan = View::new(store)?.scan(store, &|_| true)?;
    let mark = |(key, state): (super::Key, super::State)| {
        let mut held = Ranges::default();
        held.insert_all(&state.whole);
        held.insert_all(&state.records);
        state.gaps.iter().for_each(|gap| held.insert(gap.range));
        let cut = state
            .partial
            .iter()
            .filter(|(_, partial)| !partial.is_whole());
        let partial: Vec<u64> = cut
            .map(|(seq, _)| *seq)
            .filter(|seq| !held.contains(*seq))
            .collect();
        state
            .partial
            .keys()
            .for_each(|seq| held.insert(SeqRange::new(*seq, seq + 1)));
        StreamMark {
            device_id: key.device.to_string(),
            lane: key.lane.to_string(),
            epoch: key.epoch.cast_unsigned(),
            first: state.epoch.map_or(0, |epoch| epoch.first),
            next: state.epoch.map_or(0, |epoch| epoch.next).max(held.end()),
            held: held.iter().collect(),
            partial,
            state: state.epoch.map(|epoch| epoch.state),
        }
    };
    Ok(scan.streams.into_iter().map(mark).collect())
}
