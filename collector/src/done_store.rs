//! The index of epochs that are over, on sled: [`crate::done`].

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use headwater_proto::ids::Stream;

use crate::done::{DoneEpochs, DoneError};
use crate::state::{Found, Map, State, StateError};

/// The folder within the state folder: the hot store has its own database beside it.
const FOLDER: &str = "epochs";
/// Looked at rarely: when an epoch begins or is let go of.
const CACHE_BYTES: u64 = 4 << 20;
/// Some 14 million epochs, as `streams/age.rs` measures.
pub(crate) const QUOTA_BYTES: u64 = 4 << 30;
/// Says that the lake's epochs are all in.
const WHOLE: &[u8] = b"whole";

/// The index on disk.
#[derive(Debug)]
pub struct DoneStore {
    state: State,
    epochs: Map,
    meta: Map,
    whole: AtomicBool,
}

impl DoneStore {
    /// Opens the index below the state folder, or begins it.
    ///
    /// # Errors
    /// [`StateError`] when the folder cannot be used at all.
    pub fn open(state_dir: &Path) -> Result<(Self, Found), StateError> {
        let (state, found) = State::open(&state_dir.join(FOLDER), CACHE_BYTES, QUOTA_BYTES)?;
        let (epochs, meta) = (state.map("done epochs")?, state.map("meta")?);
        let whole = meta.get(WHOLE)?.is_some();
        let store = Self {
            state,
            epochs,
            meta,
            whole: AtomicBool::new(whole),
        };
        Ok((store, found))
    }
}

#[cfg(test)]
impl DoneStore {
    /// Bytes on its disk.
    pub(crate) fn used_bytes(&self) -> Result<u64, StateError> {
        self.state.used_bytes()
    }
}

impl DoneEpochs for DoneStore {
    fn keep(&self, epochs: &[(Stream, Vec<u8>)]) -> Result<(), DoneError> {
        if !self.state.has_space() {
            return Err(DoneError("its disk is full".to_owned()));
        }
        let keep = || {
            self.state.room()?;
            for (stream, bytes) in epochs {
                self.epochs.put(&key(stream), bytes)?;
            }
            self.state.sync()
        };
        keep().map_err(failed)
    }

    fn find(&self, stream: &Stream) -> Result<Option<Vec<u8>>, DoneError> {
        self.epochs.get(&key(stream)).map_err(failed)
    }

    fn is_whole(&self) -> bool {
        self.whole.load(Ordering::Acquire)
    }

    fn clear(&self) -> Result<(), DoneError> {
        self.whole.store(false, Ordering::Release);
        let clear = || {
            self.meta.remove(WHOLE)?;
            self.epochs.clear()?;
            self.state.sync()
        };
        clear().map_err(failed)
    }

    fn set_whole(&self) -> Result<(), DoneError> {
        let set = || {
            self.meta.put(WHOLE, &[1])?;
            self.state.sync()
        };
        set().map_err(failed)?;
        self.whole.store(true, Ordering::Release);
        Ok(())
    }
}

/// Device, a zero that no device id holds, lane, epoch.
fn key(stream: &Stream) -> Vec<u8> {
    let mut key = stream.device.as_str().as_bytes().to_vec();
    key.extend([0, stream.lane.to_u8()]);
    key.extend(stream.epoch.get().to_be_bytes());
    key
}

fn failed(error: StateError) -> DoneError {
    let mut text = error.to_string();
    if let Some(source) = std::error::Error::source(&error) {
        text = format!("{text}: {source}");
    }
    DoneError(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_proto::ids::{DeviceId, Epoch, Lane};

    fn stream(device: &str, epoch: u64) -> Stream {
        Stream {
            device: DeviceId::new(device).unwrap(),
            lane: Lane::Normal,
            epoch: Epoch::new(epoch),
        }
    }

    #[test]
    fn what_was_kept_is_found_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (store, found) = DoneStore::open(folder.path()).unwrap();
        assert_eq!(found, Found::New);
        assert!(!store.is_whole());
        store.keep(&[(stream("d", 7), b"track".to_vec())]).unwrap();
        store.set_whole().unwrap();
        assert_eq!(store.find(&stream("d", 7)).unwrap().unwrap(), b"track");
        assert_eq!(store.find(&stream("d", 8)).unwrap(), None);
        assert_eq!(store.find(&stream("e", 7)).unwrap(), None);
        assert!(store.is_whole());
        store.clear().unwrap();
        assert_eq!(store.find(&stream("d", 7)).unwrap(), None);
        assert!(!store.is_whole());
    }
}
