//! Filling an empty hot store from the lake.
//!
//! The store then follows the journal from the lake's cursor, so that nothing comes twice.

use headwater_lake::scan::{self, ScanError};
use headwater_lake::store::Store;
use headwater_proto::ids::{DeviceId, Epoch, Lane, Stream};
use headwater_proto::time::UnixMicros;

use super::chunk::{StoredRow, StoredValue};
use super::store::HotStore;
use crate::state::StateError;

/// Rows of one chunk: a few values of keyed state.
const CHUNK_ROWS: usize = 500;

/// Why the store could not be filled.
#[derive(Debug, thiserror::Error)]
pub enum RefillError {
    /// The lake.
    #[error("the lake cannot be read: {0}")]
    Lake(#[from] ScanError),
    /// The state.
    #[error(transparent)]
    State(#[from] StateError),
}

impl HotStore {
    /// Takes in what the lake has since `since`. `at` stands for when the devices were last seen.
    ///
    /// # Errors
    /// [`RefillError`]; what was taken in stays.
    pub fn refill(
        &mut self,
        lake: &dyn Store,
        since: UnixMicros,
        at: UnixMicros,
    ) -> Result<u64, RefillError> {
        let mut filler = Filler {
            store: self,
            rows: Vec::new(),
            device: None,
            chunks: 0,
            at,
        };
        let mut samples = 0;
        let mut refused = None;
        scan::samples_since(lake, since.0, |reading| {
            if reading.ts_us < since.0 || refused.is_some() {
                return;
            }
            samples += 1;
            if let Err(error) = filler.take(&reading) {
                refused = Some(error);
            }
        })?;
        match refused {
            Some(error) => Err(error.into()),
            None => Ok(filler.flush().map(|()| samples)?),
        }
    }
}

/// Gathers the rows of one device; files are sorted by device.
struct Filler<'a> {
    store: &'a mut HotStore,
    rows: Vec<StoredRow>,
    device: Option<DeviceId>,
    chunks: u64,
    at: UnixMicros,
}

impl Filler<'_> {
    fn take(&mut self, reading: &scan::Reading<'_>) -> Result<(), StateError> {
        let same = self
            .device
            .as_ref()
            .is_some_and(|id| id.as_str() == reading.device_id);
        if !same || self.rows.len() >= CHUNK_ROWS {
            self.flush()?;
        }
        if !same {
            // What is no device id was not written by a collector.
            self.device = DeviceId::new(reading.device_id).ok();
        }
        self.rows.push(StoredRow {
            metric: reading.metric.to_owned(),
            labels: reading.tags.unwrap_or_default().to_owned(),
            time_us: reading.ts_us,
            value: StoredValue::from(reading.value),
        });
        Ok(())
    }

    /// Chunks from the lake are numbered under an epoch of their own: 0 is drawn once in 2^63.
    fn flush(&mut self) -> Result<(), StateError> {
        let rows = std::mem::take(&mut self.rows);
        let Some(device) = self.device.clone() else {
            return Ok(());
        };
        let stream = Stream {
            device,
            lane: Lane::Plain,
            epoch: Epoch::new(0),
        };
        self.chunks += 1;
        self.store.rows(&stream, self.chunks, &rows, self.at)
    }
}
