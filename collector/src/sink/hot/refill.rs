//! Filling an empty hot store from the lake.
//!
//! The store then follows the journal from the lake's cursor, so that nothing comes twice.

use headwater_lake::StoreError;
use headwater_lake::delta::LogError;
use headwater_lake::store::Store;
use headwater_lake::{ReadError, scan};
use headwater_proto::ids::{DeviceId, Epoch, Lane, Stream};
use headwater_proto::sample::Value;
use headwater_proto::time::UnixMicros;

use super::chunk::{StoredRow, StoredValue};
use super::store::{HotStore, Kept};
use crate::state::StateError;

/// Rows of one chunk: a few values of keyed state.
const CHUNK_ROWS: usize = 500;

/// Bytes of texts at which a chunk ends: far below what one may have, and above any one row.
const CHUNK_BYTES: usize = 256 << 10;

/// Why the store could not be filled.
#[derive(Debug, thiserror::Error)]
pub enum RefillError {
    /// The lake's folder.
    #[error("the lake cannot be read")]
    Store(#[from] StoreError),
    /// A log of the lake.
    #[error("the lake cannot be read")]
    Log(#[from] LogError),
    /// A file of the lake.
    #[error("the lake cannot be read")]
    Read(#[from] ReadError),
    /// The state.
    #[error(transparent)]
    State(#[from] StateError),
    /// A required store that would be without a part of what it keeps.
    #[error("{0} chunks of the lake's readings find no room: raise max_mib of this sink")]
    LeftOut(u64),
    /// Told to stop; the next start fills it anew.
    #[error("the collector stops before the lake is read")]
    Stopped,
}

/// What a refill brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filled {
    /// Samples that the lake has of the time.
    pub samples: u64,
    /// Chunks of them that found no room or never fit.
    pub left_out: u64,
}

impl HotStore {
    /// Takes in what the lake has since `since`. `at` stands for when the devices were last seen;
    /// `is_stopping` is asked before each chunk.
    ///
    /// # Errors
    /// [`RefillError`]; what was taken in stays.
    pub fn refill(
        &mut self,
        lake: &dyn Store,
        since: UnixMicros,
        at: UnixMicros,
        is_stopping: &dyn Fn() -> bool,
    ) -> Result<Filled, RefillError> {
        let mut filler = Filler {
            store: self,
            rows: Vec::new(),
            bytes: 0,
            device: None,
            chunks: 0,
            left_out: 0,
            at,
            is_stopping,
        };
        let mut samples = 0;
        scan::samples_since(lake, since.0, |reading| {
            if reading.ts_us < since.0 {
                return Ok(());
            }
            samples += 1;
            filler.take(&reading)
        })?;
        filler.flush()?;
        Ok(Filled {
            samples,
            left_out: filler.left_out,
        })
    }
}

/// Gathers the rows of one device; files are sorted by device.
struct Filler<'a> {
    store: &'a mut HotStore,
    rows: Vec<StoredRow>,
    /// Bytes of their texts.
    bytes: usize,
    device: Option<DeviceId>,
    chunks: u64,
    left_out: u64,
    at: UnixMicros,
    is_stopping: &'a dyn Fn() -> bool,
}

impl Filler<'_> {
    fn take(&mut self, reading: &scan::Reading<'_>) -> Result<(), RefillError> {
        let same = self
            .device
            .as_ref()
            .is_some_and(|id| id.as_str() == reading.device_id);
        if !same || self.rows.len() >= CHUNK_ROWS || self.bytes >= CHUNK_BYTES {
            self.flush()?;
        }
        if !same {
            // What is no device id was not written by a collector.
            self.device = DeviceId::new(reading.device_id).ok();
        }
        let text = match reading.value {
            Value::Str(text) => text.len(),
            Value::Bool(_) | Value::I64(_) | Value::F32(_) | Value::F64(_) => 0,
        };
        self.bytes += text + reading.metric.len() + reading.tags.map_or(0, str::len);
        self.rows.push(StoredRow {
            metric: reading.metric.to_owned(),
            labels: reading.tags.unwrap_or_default().to_owned(),
            time_us: reading.ts_us,
            value: StoredValue::from(reading.value),
        });
        Ok(())
    }

    /// Chunks from the lake are numbered under an epoch of their own: 0 is drawn once in 2^63.
    fn flush(&mut self) -> Result<(), RefillError> {
        if (self.is_stopping)() {
            return Err(RefillError::Stopped);
        }
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        let Some(device) = self.device.clone() else {
            return Ok(());
        };
        let stream = Stream {
            device,
            lane: Lane::Plain,
            epoch: Epoch::new(0),
        };
        self.chunks += 1;
        let kept = self.store.rows(&stream, self.chunks, &rows, self.at)?;
        self.left_out += u64::from(kept != Kept::Stored);
        Ok(self.store.keep_to_size(self.at)?)
    }
}
