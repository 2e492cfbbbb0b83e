//! Core: epochs that are over and were let go of: what is asked before an epoch counts as new.
//!
//! The ledger keeps a closed and committed stream for some days. Its device may come back later with
//! the same records, from a backup or because it never heard of their commit. Then the stream is
//! found here and nothing is taken twice. An index over the lake: when it is lost, it is filled again
//! from table `epochs`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use headwater_proto::ids::Stream;

/// Most bytes that are kept of one epoch.
pub const MAX_DONE_BYTES: usize = crate::state::MAX_VALUE_BYTES;

/// The index failed; the same call may be repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the index of epochs that are over failed: {0}")]
pub struct DoneError(pub String);

/// An index of epochs that are over.
pub trait DoneEpochs: Send {
    /// Keeps what is known of each epoch; durable when this returns. Replaces what was kept of it.
    ///
    /// - `epochs`: at most [`MAX_DONE_BYTES`] each.
    ///
    /// # Errors
    /// [`DoneError`]; some may be kept then.
    fn keep(&mut self, epochs: &[(Stream, Vec<u8>)]) -> Result<(), DoneError>;

    /// What was kept of an epoch.
    ///
    /// # Errors
    /// [`DoneError`].
    fn find(&self, stream: &Stream) -> Result<Option<Vec<u8>>, DoneError>;

    /// Whether all that the lake knew was put in since the index was made.
    fn is_whole(&self) -> bool;

    /// Takes out everything; it is not whole then.
    ///
    /// # Errors
    /// [`DoneError`].
    fn clear(&mut self) -> Result<(), DoneError>;

    /// All that the lake knew is in, durably when this returns.
    ///
    /// # Errors
    /// [`DoneError`].
    fn set_whole(&mut self) -> Result<(), DoneError>;
}

#[derive(Debug, Default)]
struct Kept {
    epochs: BTreeMap<Stream, Vec<u8>>,
    whole: bool,
}

/// An index in memory, for worlds that are in memory too. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct DoneInMemory(Arc<Mutex<Kept>>);

impl DoneInMemory {
    fn with<T>(&self, act: impl FnOnce(&mut Kept) -> T) -> T {
        // Each change is one assignment: a panic elsewhere leaves nothing half done.
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many epochs it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.with(|kept| kept.epochs.len())
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl DoneEpochs for DoneInMemory {
    fn keep(&mut self, epochs: &[(Stream, Vec<u8>)]) -> Result<(), DoneError> {
        self.with(|kept| kept.epochs.extend(epochs.iter().cloned()));
        Ok(())
    }

    fn find(&self, stream: &Stream) -> Result<Option<Vec<u8>>, DoneError> {
        Ok(self.with(|kept| kept.epochs.get(stream).cloned()))
    }

    fn is_whole(&self) -> bool {
        self.with(|kept| kept.whole)
    }

    fn clear(&mut self) -> Result<(), DoneError> {
        self.with(|kept| *kept = Kept::default());
        Ok(())
    }

    fn set_whole(&mut self) -> Result<(), DoneError> {
        self.with(|kept| kept.whole = true);
        Ok(())
    }
}
