//! Core: reads the streams of a sealed part a window at a time, so that all parts can be merged at once.

use std::sync::Arc;

use super::{HASH_BYTES, NoMarks, Streams, decode};
use crate::audit::{Holding, Key};
use crate::paths::marks_part_path;
use crate::plan::Sha256;
use crate::store::{ReadAt, Store, StoreError};

/// Bytes of a part that stand in memory while parts are merged; one whole part beside them while it is
/// checked. A service is asked for each.
const WINDOW_BYTES: usize = 512 << 10;

/// Why a part cannot be read.
#[derive(Debug)]
pub(crate) enum PartError {
    /// Its bytes.
    Damaged,
    /// Its store.
    Store(StoreError),
}

impl From<NoMarks> for PartError {
    fn from(_: NoMarks) -> Self {
        Self::Damaged
    }
}

/// A part that was written whole.
#[derive(Clone)]
pub(crate) struct Part {
    path: String,
    object: Arc<dyn ReadAt>,
    /// Bytes from `window` on that are not read yet.
    at: u64,
    end: u64,
    window: Vec<u8>,
    /// Bytes of the window that are done with.
    used: usize,
    left: u64,
    last: Option<Key>,
}

impl Part {
    /// Reads all of a part to check it, and keeps none of it. `None` if it is damaged or missing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn open(store: &dyn Store, hash: Sha256) -> Result<Option<Self>, StoreError> {
        let path = marks_part_path(hash);
        let Some(bytes) = store.find(&path)? else {
            return Ok(None);
        };
        // Each tells its hash at its end, which is its name.
        let Ok((_, streams)) = decode(&bytes) else {
            return Ok(None);
        };
        if !bytes.ends_with(&hash.0) {
            return Ok(None);
        }
        let end = bytes.len() - HASH_BYTES;
        Ok(Some(Self {
            object: store.open(&path)?,
            path,
            at: (end - streams.rest.len()) as u64,
            end: end as u64,
            window: Vec::new(),
            used: 0,
            left: streams.left,
            last: None,
        }))
    }

    fn read_on(&mut self) -> Result<(), StoreError> {
        self.window.drain(..self.used);
        self.used = 0;
        let rest = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let len = rest.min(WINDOW_BYTES);
        let read = self.object.read_at(self.at, len);
        let bytes = read.map_err(|source| StoreError::Io {
            action: "read",
            path: self.path.clone(),
            source,
        })?;
        self.window.extend_from_slice(&bytes);
        self.at += len as u64;
        Ok(())
    }
}

impl Iterator for Part {
    type Item = Result<(Key, Holding), PartError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let mut streams = Streams {
                rest: &self.window[self.used..],
                left: self.left,
                last: self.last.clone(),
            };
            let read = streams.next();
            if matches!(read, Some(Ok(_))) || self.at == self.end {
                self.used = self.window.len() - streams.rest.len();
                (self.left, self.last) = (streams.left, streams.last);
                return read.map(|read| Ok(read?));
            }
            // A stream may end behind the window.
            if let Err(error) = self.read_on() {
                return Some(Err(PartError::Store(error)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Holdings;
    use crate::marks::{Encoded, MAX_MARKS_BYTES, MarksHead, SEAL_BYTES, encode};
    use crate::row::EpochState;
    use crate::store::MemStore;
    use headwater_proto::ids::SeqRange;

    #[test]
    fn of_a_part_little_more_than_a_window_stands_in_memory() {
        let mut over = Holding::default();
        over.there.insert(SeqRange::new(0, 500));
        over.epoch = Some(crate::audit::EpochMark {
            first: 0,
            next: 500,
            state: EpochState::Closed,
        });
        let key = |epoch: i64| Key {
            device: "d".into(),
            lane: "normal".into(),
            epoch: epoch.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64.cast_signed()),
        };
        let all: Holdings = (0..400_000)
            .map(|epoch| (key(epoch), over.clone()))
            .collect();
        let encoded = encode(MarksHead::default(), None, &all, MAX_MARKS_BYTES);
        let Encoded { sealed, .. } = encoded.unwrap().unwrap();
        let store = MemStore::new();
        let mut streams = all.iter();
        for (hash, bytes) in sealed {
            store.replace(&marks_part_path(hash), &bytes).unwrap();
            let other = Sha256([7; 32]);
            store.replace(&marks_part_path(other), &bytes).unwrap();
            assert!(Part::open(&store, other).unwrap().is_none());
            let mut part = Part::open(&store, hash).unwrap().unwrap();
            assert!(bytes.len() > 2 * WINDOW_BYTES || bytes.len() < SEAL_BYTES);
            while let Some(stream) = part.next() {
                let (key, holding) = stream.unwrap();
                assert_eq!(Some((&key, &holding)), streams.next());
                assert!(part.window.capacity() <= 2 * WINDOW_BYTES);
            }
        }
        assert_eq!(streams.next(), None);
    }
}
