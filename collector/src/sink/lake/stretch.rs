//! Core: a stretch of the journal, with what the lake has of the records in it that rotted.

use headwater_lake::{LakeError, Store, StoreError, near};
use headwater_proto::delivery::Ranges;
use headwater_proto::ids::{JournalId, SeqRange, Stream};
use headwater_spool::{Disk, ReadError, Reader};
use std::collections::BTreeMap;

use super::there::stream_of;
use crate::pipeline::custody::{Found, Stretch};

/// Why a stretch cannot be read now.
#[derive(Debug, thiserror::Error)]
pub enum StretchError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] ReadError),
    /// The lake.
    #[error(transparent)]
    Lake(#[from] LakeError),
}

/// Numbers by stream.
type Numbers = BTreeMap<Stream, Ranges<{ usize::MAX }>>;

/// Reads what a stretch stands for. Damaged records are those of the flushes that hold their positions, less
/// what of those flushes can be read in the journal; where that was let go of, more is told than rotted. To be
/// called on a thread that may wait for disks; `store` reaches the lake's place, and is asked only if there
/// is damage.
///
/// # Errors
/// [`StretchError`].
pub fn read_stretch<D: Disk, S: Store>(
    stretch: &Stretch,
    journal: JournalId,
    reader: &mut Reader<D>,
    store: impl FnOnce() -> Result<S, StoreError>,
) -> Result<Found, StretchError> {
    let pass = stretch.read(reader)?;
    let mut all = Numbers::new();
    if !stretch.rotten_only {
        add(&mut all, &pass.numbers);
    }
    if !pass.damage.is_empty() {
        let store = store().map_err(LakeError::from)?;
        let near = near(&store, journal, &pass.damage)?;
        let mut readable = Numbers::new();
        for flush in &near.flushes {
            let flush = Stretch {
                from: flush.start,
                to: flush.end,
                ..stretch.clone()
            };
            add(&mut readable, &flush.read(reader)?.numbers);
        }
        for mark in &near.streams {
            let Some(stream) = stream_of(mark) else {
                continue;
            };
            let known = readable.get(&stream);
            let rotten = |range: &SeqRange| match known {
                Some(known) => known.holes(*range).collect(),
                None => vec![*range],
            };
            let rotten: Vec<SeqRange> = mark.held.iter().flat_map(rotten).collect();
            add(&mut all, &[(stream, rotten)]);
        }
    }
    let all = all.into_iter().filter(|(_, ranges)| !ranges.is_empty());
    Ok(all
        .map(|(stream, ranges)| (stream, ranges.as_slice().to_vec()))
        .collect())
}

fn add(all: &mut Numbers, found: &[(Stream, Vec<SeqRange>)]) {
    for (stream, ranges) in found {
        let sum = all.entry(stream.clone()).or_default();
        for range in ranges {
            // Without a bound on ranges nothing is refused.
            let _ = sum.insert(*range);
        }
    }
}
