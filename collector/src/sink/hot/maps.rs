//! The maps of the hot store, and their keys.

use serde::{Deserialize, Serialize};

use crate::state::{Map, State, StateError};

/// What is known about a device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// When its first record arrived, Unix µs.
    pub first_seen_us: i64,
    /// When its newest record arrived, Unix µs.
    pub last_seen_us: i64,
    /// Records seen since the store began.
    pub records: u64,
    /// Samples seen since the store began.
    pub samples: u64,
    /// Longest time from first to last row of one chunk, in µs: how far back a search must begin.
    pub max_span_us: i64,
    /// Bytes of its chunks.
    pub bytes: u64,
    /// Time of its oldest chunk, Unix µs.
    pub oldest_us: i64,
}

#[derive(Debug, Clone)]
pub(super) struct Maps {
    pub(super) recent: Map,
    pub(super) latest: Map,
    pub(super) schemas: Map,
    pub(super) devices: Map,
    pub(super) meta: Map,
}

/// Key of journal id and position in `meta`.
pub(super) const CURSOR: &[u8] = b"cursor";

/// Key and value of the format in `meta`; another one is filled anew.
const FORMAT: (&[u8], &[u8]) = (b"format", &[2]);

impl Maps {
    /// # Errors
    /// When the state refuses.
    pub(super) fn open(state: &State) -> Result<Self, StateError> {
        let maps = Self {
            recent: state.map("recent")?,
            latest: state.map("latest")?,
            schemas: state.map("schemas")?,
            devices: state.map("devices")?,
            meta: state.map("meta")?,
        };
        if maps.meta.get(FORMAT.0)?.as_deref() != Some(FORMAT.1) {
            maps.clear(state)?;
        }
        Ok(maps)
    }

    /// Empties all maps. The cursor goes first, and durably: a crash leaves what is filled anew, never a
    /// cursor without what was before it.
    ///
    /// # Errors
    /// When the state refuses.
    pub(super) fn clear(&self, state: &State) -> Result<(), StateError> {
        self.meta.remove(CURSOR)?;
        state.sync()?;
        let all = [
            &self.recent,
            &self.latest,
            &self.schemas,
            &self.devices,
            &self.meta,
        ];
        all.into_iter().try_for_each(Map::clear)?;
        self.meta.put(FORMAT.0, FORMAT.1)?;
        state.sync()
    }
}

pub(super) fn part_key(key: &[u8], part: usize) -> Vec<u8> {
    let mut whole = key.to_vec();
    whole.push(u8::try_from(part).expect("a chunk has at most MAX_PARTS parts"));
    whole
}

pub(super) fn schema_key(device: &str, epoch: u64, number: u32) -> Vec<u8> {
    let mut key = device.as_bytes().to_vec();
    key.push(0);
    key.extend_from_slice(&epoch.to_be_bytes());
    key.extend_from_slice(&number.to_be_bytes());
    key
}

pub(super) fn latest_key(device: &str, metric: &str, labels: &str) -> Vec<u8> {
    [
        device.as_bytes(),
        &[0],
        metric.as_bytes(),
        &[0],
        labels.as_bytes(),
    ]
    .concat()
}
