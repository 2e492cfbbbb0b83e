//! Where the lake's objects live: a folder on disk, memory for tests, an object store later.
//!
//! Every object is written once and whole. What makes the lake exact is one operation, creating an
//! object only if nothing bears its name ([`Store::put_if_absent`], [`Store::publish`]); all else
//! may be repeated freely. Paths are relative, separated by `/`, without `.` or `..`.

mod local;
mod mem;

use std::sync::Arc;

use bytes::Bytes;

pub use local::LocalStore;
pub use mem::MemStore;

/// Outcome of creating an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The object is ours and durable.
    Created,
    /// Something bore the name already; it was left alone.
    Exists,
}

/// One stored object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path from the root of the lake.
    pub path: String,
    /// Its size.
    pub bytes: u64,
}

/// Why a store refused.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No object bears the name.
    #[error("{path}: no such object")]
    Missing {
        /// The name.
        path: String,
    },
    /// The path is absolute, empty, or leaves the root.
    #[error("{path:?} is not a path within the lake")]
    Path {
        /// The path as given.
        path: String,
    },
    /// The disk or the service refused. The operation may have happened all the same.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which object.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// An open object, read by parts.
pub trait ReadAt: Send + Sync {
    /// Size of the object in bytes.
    fn size(&self) -> u64;

    /// The `len` bytes from `offset`.
    ///
    /// # Errors
    /// When the disk refuses, or the range lies beyond the object's end.
    fn read_at(&self, offset: u64, len: usize) -> std::io::Result<Bytes>;
}

/// A flat space of named objects.
///
/// An error leaves open whether the operation happened, so every caller must be able to repeat.
/// What `Ok` promises: see each operation. `Created` objects survive a power cut.
pub trait Store: Send + Sync {
    /// Creates `path` with `bytes`, unless it exists. Readers see the whole object or none.
    /// Durable when it returns.
    ///
    /// # Errors
    /// [`StoreError::Io`]; the object may exist nevertheless.
    fn put_if_absent(&self, path: &str, bytes: &[u8]) -> Result<Put, StoreError>;

    /// Creates or replaces `path`. Readers see the old object or the new one. Durable when it
    /// returns. Only for hints and summaries that may be overwritten: `catalog.json`,
    /// `_last_checkpoint`.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    fn replace(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError>;

    /// The whole object.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Io`].
    fn get(&self, path: &str) -> Result<Bytes, StoreError>;

    /// Opens an object to read parts of it.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Io`].
    fn open(&self, path: &str) -> Result<Arc<dyn ReadAt>, StoreError>;

    /// Its size in bytes, `None` if there is none.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    fn size(&self, path: &str) -> Result<Option<u64>, StoreError>;

    /// All objects below the folder `prefix` (empty: the root), sorted by path; none if there is
    /// no such folder.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    fn list(&self, prefix: &str) -> Result<Vec<Entry>, StoreError>;

    /// Removes an object; one that is not there is no error. Not durable by itself: after a power
    /// cut it may be back.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    fn delete(&self, path: &str) -> Result<(), StoreError>;

    /// Writes a file of the stage, replacing any of that name. A power cut may lose it or tear it
    /// until [`Store::sync_stage`] returns.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    fn stage(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError>;

    /// Makes staged files durable.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Missing`].
    fn sync_stage(&self, paths: &[&str]) -> Result<(), StoreError>;

    /// Gives the object staged at `from` the name `to` as well, unless `to` exists. Durable when
    /// it returns. A store without links uploads the staged bytes.
    ///
    /// # Errors
    /// [`StoreError::Io`]; [`StoreError::Missing`] if nothing is staged at `from`.
    fn publish(&self, from: &str, to: &str) -> Result<Put, StoreError>;
}

/// Refuses what is no path within the lake.
fn check(path: &str) -> Result<(), StoreError> {
    let good = |part: &str| !part.is_empty() && part != "." && part != "..";
    if path.split('/').all(good) && !path.contains('\\') && !path.contains('\0') {
        Ok(())
    } else {
        Err(StoreError::Path {
            path: path.to_owned(),
        })
    }
}
