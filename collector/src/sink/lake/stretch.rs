//! Core: a stretch of the journal, with what the lake has of the records in it that rotted.

use headwater_lake::{LakeError, Store, StoreError, near};
use headwater_proto::ids::JournalId;
use headwater_spool::{Disk, ReadError, Reader};

use super::there::stream_of;
use crate::pipeline::custody::{Found, Stretch};
use crate::pipeline::numbers::Numbers;

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
    // Also of a stretch that had damage: the sink may have met some that has healed since.
    let mut all = Numbers::new();
    all.add(&pass.numbers);
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
            readable.add(&flush.read(reader)?.numbers);
        }
        let held = near.streams.iter().filter_map(|mark| {
            let held = mark.held.iter().copied();
            Some((stream_of(mark)?, held.collect()))
        });
        all.add(&readable.missing_of(&held.collect::<Found>()));
    }
    Ok(all.take())
}
