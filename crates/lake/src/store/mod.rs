//! Where the lake's objects live: a folder on disk, in a bucket of S3, in memory for tests.
//!
//! Objects of tables and logs are written once and whole. Two operations make the lake exact:
//! creating an object only if nothing bears its name ([`Store::put_if_absent`],
//! [`Store::publish`]), and replacing one only if it is still the one that was read
//! ([`Store::swap`]). All else may be repeated freely. Paths are relative, separated by `/`, without
//! `.` or `..`.
//!
//! The stage is a local folder in every store: staged files are durable before the journal's plan
//! names them, and looking through them is no request to a service.

mod local;
mod mem;
mod shared;
mod swap;

use std::sync::Arc;

use bytes::Bytes;

use crate::plan::Sha256;

pub use local::LocalStore;
pub use mem::{Call, MemStore};

/// Outcome of creating an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The object is ours and durable.
    Created,
    /// Something bore the name already; it was left alone.
    Exists,
}

/// Outcome of setting an object aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aside {
    /// It bears the other name alone, durably.
    Moved,
    /// Something bears the other name already; both were left alone.
    Taken,
}

/// One stored object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path from the root of the lake.
    pub path: String,
    /// Its size.
    pub bytes: u64,
}

/// Names the content of an object. Objects of equal tags have equal bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag(String);

impl Tag {
    /// A tag as a service gives it.
    #[must_use]
    pub fn of_service(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// As it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An object with its tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tagged {
    /// The whole object.
    pub bytes: Bytes,
    /// To be given to [`Store::swap`].
    pub tag: Tag,
}

/// Outcome of replacing an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Swap {
    /// The object is ours and durable, and bears this tag.
    Done(Tag),
    /// The object is not the expected one; it was left alone.
    Changed,
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
    /// A service refuses, and goes on so until an operator acts. The operation did not happen.
    #[error("cannot {action} {path}: {cause}; {remedy}")]
    Denied {
        /// What was tried.
        action: &'static str,
        /// On which object.
        path: String,
        /// The service's words.
        cause: String,
        /// What the operator can do.
        remedy: String,
    },
}

impl StoreError {
    /// Whether the store could not be reached, or refused: it says nothing of what is there.
    #[must_use]
    pub const fn is_outage(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Denied { .. })
    }
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

    /// Replaces `path` if it is still the object of the tag `expected`; creates it if that is `None`
    /// and there is none. Readers see the old object or the new one. Durable when it returns `Done`.
    ///
    /// The tag is one of content: an object that was replaced and then brought back as it was
    /// counts as the same.
    ///
    /// # Errors
    /// [`StoreError::Io`]; the object may be replaced nevertheless.
    fn swap(&self, path: &str, expected: Option<&Tag>, bytes: &[u8]) -> Result<Swap, StoreError>;

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

    /// The whole object, `None` if there is none.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    fn find(&self, path: &str) -> Result<Option<Bytes>, StoreError> {
        match self.get(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(StoreError::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The whole object with its tag, `None` if there is none.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    fn get_tagged(&self, path: &str) -> Result<Option<Tagged>, StoreError>;

    /// The hash of the whole object, as it was when it was published. A service that keeps it spares reading
    /// the object.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Io`].
    fn sha256(&self, path: &str) -> Result<Sha256, StoreError> {
        Ok(Sha256::of(&self.get(path)?))
    }

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

    /// As [`Store::list`], but `most` objects at most, and one request to a service: tells whether
    /// there is anything.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    fn list_some(&self, prefix: &str, most: usize) -> Result<Vec<Entry>, StoreError>;

    /// Gives an object of the lake the name `to`, unless something bears that, so that readers who list
    /// folders meet it no more.
    ///
    /// # Errors
    /// [`StoreError::Io`]: it may bear either name then, or both. [`StoreError::Missing`].
    fn set_aside(&self, path: &str, to: &str) -> Result<Aside, StoreError>;

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

    /// Paths of all files of the stage below the folder `prefix`, sorted.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    fn staged(&self, prefix: &str) -> Result<Vec<String>, StoreError>;

    /// Removes a file of the stage; one that is not there is no error.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    fn unstage(&self, path: &str) -> Result<(), StoreError>;

    /// Makes sure that the place keeps what this trait promises, before a writer relies on it: not every
    /// service that speaks S3 knows conditions.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Denied`].
    fn prove(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Removes what writes that were cut off left under no name of the lake. Leaves alone what a
    /// living process uses.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    fn tidy(&self) -> Result<(), StoreError>;

    /// Gives the object staged at `from` the name `to` as well, unless `to` exists. Durable when
    /// it returns. A store without links uploads the staged bytes.
    ///
    /// # Errors
    /// [`StoreError::Io`]; [`StoreError::Missing`] if nothing is staged at `from`.
    fn publish(&self, from: &str, to: &str) -> Result<Put, StoreError>;

    /// Requests to a service since it was opened, by what they were, for counters: each name ends in `_total`.
    fn requests(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

/// The tag of an object with these bytes.
fn tag_of(bytes: &[u8]) -> Tag {
    Tag(Sha256::of(bytes).to_string())
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
