//! Core: epochs that are over and were let go of: what is asked before an epoch counts as new.
//!
//! The ledger keeps a closed and committed stream for some days. Its device may come back later with
//! the same records, from a backup or because it never heard of their commit. Then the stream is
//! found here and nothing is taken twice. An index over the lake: when it is lost, it is filled again
//! from table `epochs`.
//!
//! It is filled and asked on another thread than the one that acknowledges: both wait for a disk, and nobody's
//! PUBACK waits with them. A lake that has to prove its marks fills it anew, as it reads them; for the few streams that
//! came meanwhile it is asked once by the thread that acknowledges.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use headwater_proto::ids::Stream;

/// Most bytes that are kept of one epoch.
pub const MAX_DONE_BYTES: usize = crate::state::MAX_VALUE_BYTES;

/// The index failed; the same call may be repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the index of epochs that are over failed: {0}")]
pub struct DoneError(pub String);

/// Epochs that are over, with what is to be kept of each.
pub type Epochs = Vec<(Stream, Vec<u8>)>;

/// An index of epochs that are over.
pub trait DoneEpochs: Send + Sync {
    /// Keeps what is known of each epoch; durable when this returns. Replaces what was kept of it.
    ///
    /// - `epochs`: at most [`MAX_DONE_BYTES`] each.
    ///
    /// # Errors
    /// [`DoneError`]; some may be kept then.
    fn keep(&self, epochs: &[(Stream, Vec<u8>)]) -> Result<(), DoneError>;

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
    fn clear(&self) -> Result<(), DoneError>;

    /// All that the lake knew is in, durably when this returns.
    ///
    /// # Errors
    /// [`DoneError`].
    fn set_whole(&self) -> Result<(), DoneError>;
}

/// The index that work on another thread is for. There is one, so all are equal.
#[derive(Clone)]
struct Handle(Arc<dyn DoneEpochs>);

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("index")
    }
}

impl PartialEq for Handle {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Handle {}

/// Epochs for the index, to be put there on a thread that may wait for its disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keeping {
    index: Handle,
    epochs: Epochs,
}

impl Keeping {
    /// - `epochs`: at most [`MAX_DONE_BYTES`] each.
    #[must_use]
    pub fn new(index: Arc<dyn DoneEpochs>, epochs: Epochs) -> Self {
        let index = Handle(index);
        Self { index, epochs }
    }

    /// Puts them there. Returns them, and whether the index has them, durably.
    pub fn keep(self) -> (Epochs, Result<(), DoneError>) {
        let kept = self.index.0.keep(&self.epochs);
        (self.epochs, kept)
    }

    /// They cannot be put there now.
    pub fn failed(self, cause: String) -> (Epochs, Result<(), DoneError>) {
        (self.epochs, Err(DoneError(cause)))
    }
}

/// The index while a lake fills it, on a thread that may wait for both. It is filled as long as one of the clones is
/// there: a lake that fails half-way lets go of them.
#[derive(Debug, Clone)]
pub struct Filling(Handle, Arc<()>);

impl Filling {
    /// Of this index.
    #[must_use]
    pub fn new(index: Arc<dyn DoneEpochs>) -> Self {
        Self(Handle(index), Arc::new(()))
    }

    /// Upgrades while it is filled.
    #[must_use]
    pub fn goes_on(&self) -> Weak<()> {
        Arc::downgrade(&self.1)
    }

    /// Keeps epochs, as [`DoneEpochs::keep`].
    ///
    /// # Errors
    /// [`DoneError`].
    pub fn keep(&self, epochs: &[(Stream, Vec<u8>)]) -> Result<(), DoneError> {
        self.0.0.keep(epochs)
    }
}

/// What an index says of each epoch that was looked up.
pub type Looked = Vec<(Stream, Result<Option<Vec<u8>>, DoneError>)>;

/// Epochs to be looked up in the index, on a thread that may wait for its disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    index: Handle,
    streams: Vec<Stream>,
}

impl Finding {
    /// Which.
    #[must_use]
    pub fn new(index: Arc<dyn DoneEpochs>, streams: Vec<Stream>) -> Self {
        let index = Handle(index);
        Self { index, streams }
    }

    /// Looks them up.
    #[must_use]
    pub fn find(self) -> Looked {
        let Self { index, streams } = self;
        let look = |stream| {
            let found = index.0.find(&stream);
            (stream, found)
        };
        streams.into_iter().map(look).collect()
    }

    /// They cannot be looked up now.
    #[must_use]
    pub fn failed(self, cause: &str) -> Looked {
        let streams = self.streams.into_iter();
        let failed = |stream| (stream, Err(DoneError(cause.to_owned())));
        streams.map(failed).collect()
    }
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
    fn keep(&self, epochs: &[(Stream, Vec<u8>)]) -> Result<(), DoneError> {
        self.with(|kept| kept.epochs.extend(epochs.iter().cloned()));
        Ok(())
    }

    fn find(&self, stream: &Stream) -> Result<Option<Vec<u8>>, DoneError> {
        Ok(self.with(|kept| kept.epochs.get(stream).cloned()))
    }

    fn is_whole(&self) -> bool {
        self.with(|kept| kept.whole)
    }

    fn clear(&self) -> Result<(), DoneError> {
        self.with(|kept| *kept = Kept::default());
        Ok(())
    }

    fn set_whole(&self) -> Result<(), DoneError> {
        self.with(|kept| kept.whole = true);
        Ok(())
    }
}
