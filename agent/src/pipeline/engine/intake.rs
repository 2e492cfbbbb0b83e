//! Core: what a lane has taken and not yet stored.

use headwater_proto::ids::Lane;
use headwater_proto::time::UnixMicros;

use super::types::Settings;
use crate::pipeline::batcher::{BatchLimits, Batcher};
use crate::pipeline::record::Cursor;

/// Least age at which a batch of the bulk lane closes: its group waits for seconds anyway, and larger
/// batches take fewer bytes a row.
const BULK_AGE_MS: u64 = 1_000;

/// Readings of one source that found no room.
#[derive(Debug, Clone, Copy)]
pub(super) struct Overflow {
    pub(super) source: usize,
    pub(super) samples: u64,
    /// Wall time of the first and the last, if all have one.
    pub(super) span: Option<(UnixMicros, UnixMicros)>,
    /// Where the source resumes after them, if it can.
    pub(super) cursor: Option<Cursor>,
}

/// What one lane has open.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) lane: Lane,
    pub(super) batcher: Batcher,
    /// Readings of sources that cannot wait, lost since the last batch.
    pub(super) overflow: Vec<Overflow>,
}

impl Open {
    pub(super) fn new(lane: Lane, settings: &Settings) -> Self {
        let batch = settings.batch;
        let age_ms = match lane {
            Lane::Alarm => 0,
            Lane::Bulk => batch.age_ms.max(BULK_AGE_MS),
            Lane::Normal | Lane::Plain => batch.age_ms,
        };
        let limits = BatchLimits { age_ms, ..batch };
        let (tags, dictionary) = (settings.tags.clone(), settings.dictionary.clone());
        Self {
            lane,
            batcher: Batcher::new(limits, tags, dictionary),
            overflow: Vec::new(),
        }
    }

    /// Takes out what is to be named of a source.
    pub(super) fn take_overflow(&mut self, source: usize) -> Option<Overflow> {
        let known = self
            .overflow
            .iter()
            .position(|known| known.source == source)?;
        Some(self.overflow.swap_remove(known))
    }
}
