//! Core: what can go wrong with a log, and what is lost then.

use std::io;
use std::ops::Range;

/// Why a log cannot be opened. What its files hold is never a reason.
#[derive(Debug, thiserror::Error)]
#[error("cannot list the folder of log {log}")]
pub struct OpenError {
    /// The log's name.
    pub log: String,
    /// The disk's error.
    #[source]
    pub source: io::Error,
}

/// What a record found no room in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FullCause {
    /// The quota, less the reserve.
    Quota,
    /// The file system, less what is left to others.
    FileSystem,
    /// The device said so itself.
    Device,
}

/// Why a record was not appended. Nothing of it was written.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// A new segment finds no room: release one, or wait. Earlier records are as they were.
    #[error("no room for a new segment of {need} bytes ({cause:?})")]
    Full {
        /// Bytes that must become free.
        need: u64,
        /// What is full.
        cause: FullCause,
    },
    /// The payload is above [`crate::format::MAX_PAYLOAD_BYTES`].
    #[error("a record of {0} bytes is refused")]
    TooLarge(usize),
    /// The snapshot is above [`crate::format::MAX_SNAPSHOT_BYTES`].
    #[error("a snapshot of {0} bytes is refused")]
    SnapshotTooLarge(usize),
    /// The group before it could not be made durable; the log goes on in a new segment.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// A new segment could not be begun; the next append tries again.
    #[error("cannot {action} {file}")]
    Disk {
        /// What failed.
        action: &'static str,
        /// The file.
        file: String,
        /// The disk's error.
        #[source]
        source: io::Error,
    },
}

/// A write or sync failed. The segment was cut before the group and sealed; the log goes on in a new
/// one. A sync that failed is never tried again: the kernel may have dropped the data by then.
#[derive(Debug, thiserror::Error)]
#[error("positions {} to {} could not be made durable", lost.start, lost.end)]
pub struct SyncError {
    /// Records that are not stored. These positions are never used again.
    pub lost: Range<u64>,
    /// The disk's error.
    #[source]
    pub source: io::Error,
}

/// Why a segment was not released.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// The newest segment stays: it carries the position and the snapshot.
    #[error("segment {0} is the newest and stays")]
    Newest(u64),
    /// The file could not be taken away; try again.
    #[error("cannot release {file}")]
    Disk {
        /// The file.
        file: String,
        /// The disk's error.
        #[source]
        source: io::Error,
    },
}
