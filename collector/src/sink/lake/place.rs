//! Where a lake lies: a folder on this machine, or a bucket of S3.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use headwater_aws::{Bucket, SCHEME};
use headwater_lake::{LocalStore, Store, StoreError};

/// The objects of a lake, wherever it lies.
pub type LakeStore = Arc<dyn Store>;

/// Where a lake lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LakePlace {
    /// A folder.
    Folder(PathBuf),
    /// A bucket of S3, or a part of one.
    Bucket(Box<Bucket>),
}

impl LakePlace {
    /// Its objects; a folder is made if need be.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn open(&self) -> Result<LakeStore, StoreError> {
        match self {
            Self::Folder(folder) => Ok(Arc::new(LocalStore::new(folder)?)),
            Self::Bucket(bucket) => headwater_aws::open(bucket),
        }
    }

    /// The objects of a lake that was there before: a folder is not made, for it may be a disk that is not mounted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn open_existing(&self) -> Result<LakeStore, StoreError> {
        if let Self::Folder(folder) = self {
            std::fs::read_dir(folder).map_err(|source| StoreError::Io {
                action: "list",
                path: folder.display().to_string(),
                source,
            })?;
        }
        self.open()
    }

    /// The folder on this machine that it has for itself.
    pub(crate) fn folder(&self) -> Option<&Path> {
        match self {
            Self::Folder(folder) => Some(folder),
            Self::Bucket(bucket) => bucket.stage().map(PathBuf::as_path),
        }
    }
}

impl fmt::Display for LakePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => folder.display().fmt(f),
            Self::Bucket(bucket) => bucket.fmt(f),
        }
    }
}

/// An argument names no place of a lake.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoPlace(String);

impl FromStr for LakePlace {
    type Err = NoPlace;

    fn from_str(text: &str) -> Result<Self, NoPlace> {
        if !text.starts_with(SCHEME) {
            return Ok(Self::Folder(text.into()));
        }
        let bucket = Bucket::at(text).map_err(NoPlace)?;
        Ok(Self::Bucket(Box::new(bucket)))
    }
}
