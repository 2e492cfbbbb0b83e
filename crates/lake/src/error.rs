//! Core: why a lake could not be opened or written.

use headwater_proto::ids::JournalId;
use parquet::errors::ParquetError;

use crate::audit::AuditError;
use crate::delta::LogError;
use crate::paths::{HEAD_PATH, OWNER_PATH};
use crate::read::ReadError;
use crate::store::StoreError;

/// Why the lake could not be written.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    /// The store refused; the same step may be repeated.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A log could not be read or written.
    #[error(transparent)]
    Log(LogError),
    /// What the lake holds could not be read.
    #[error(transparent)]
    Read(#[from] AuditError),
    /// The rows could not be encoded.
    #[error("cannot encode a file: {0}")]
    Encode(#[from] ParquetError),
    /// A file of that name has other bytes: two writers share a journal id, or the disk is damaged.
    #[error("{path} exists with other bytes than planned; two writers may share one journal")]
    Conflict {
        /// The file.
        path: String,
    },
    /// Neither stage nor table holds a planned file. The rows are still in the journal: staging the
    /// same records again gives the same files.
    #[error("{path} is planned, and neither staged nor published; stage its records again")]
    Lost {
        /// The file.
        path: String,
    },
    /// The flush ends before a position that is committed already.
    #[error("positions to {last_pos} are to be staged, but {cursor} is committed already")]
    Behind {
        /// Last position of the flush.
        last_pos: u64,
        /// The lake's cursor.
        cursor: u64,
    },
    /// Another collector writes this lake.
    #[error(
        "the lake is owned by journal {owner} (term {term}), whose lease runs until {until}; it is {now} \
         now. Stop that collector, or give this one a lake of its own. If that one is gone, wait for \
         the end of the lease, or start this one with --take-over"
    )]
    Owned {
        /// The other collector's journal.
        owner: JournalId,
        /// Its term.
        term: u64,
        /// End of its lease.
        until: String,
        /// The present time as this program knows it.
        now: String,
    },
    /// Another collector has taken the lake over. This writer publishes nothing more.
    #[error(
        "the lake was taken over under term {term}{}: nothing more is written here. The journal keeps \
         what is not in the lake. To go on with it, stop the other collector and start this one with \
         --take-over",
        owner.map_or_else(String::new, |owner| format!(" by journal {owner}"))
    )]
    Fenced {
        /// The later term.
        term: u64,
        /// The later owner, if it is known.
        owner: Option<JournalId>,
    },
    /// The owner's object is damaged, or of a later version.
    #[error(
        "{OWNER_PATH} cannot be read; if no other collector writes this lake, remove it: the terms in \
         the logs still tell who may commit"
    )]
    OwnerUnreadable,
    /// There is no lake where there was one.
    #[error(
        "there is no lake here, though the journal has written to one: is its disk mounted, is the path \
         right? A new one is begun with `run --new-lake`"
    )]
    Absent,
    /// The head was written by a later version of this program.
    #[error("{HEAD_PATH} is of version {0}, which this program does not know")]
    NewerHead(u32),
}

impl From<LogError> for LakeError {
    fn from(error: LogError) -> Self {
        if let LogError::Fenced { term, .. } = error {
            Self::Fenced { term, owner: None }
        } else {
            Self::Log(error)
        }
    }
}

impl From<ReadError> for LakeError {
    fn from(error: ReadError) -> Self {
        Self::Read(error.into())
    }
}

impl LakeError {
    /// Whether trying again can help without an operator.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Store(_) => true,
            Self::Log(error) => !error.is_final(),
            Self::Read(_)
            | Self::Encode(_)
            | Self::Conflict { .. }
            | Self::Lost { .. }
            | Self::Behind { .. }
            | Self::Owned { .. }
            | Self::Fenced { .. }
            | Self::OwnerUnreadable
            | Self::Absent
            | Self::NewerHead(_) => false,
        }
    }

    /// Whether it says that the lake cannot be reached, and nothing of what is in it.
    #[must_use]
    pub const fn is_outage(&self) -> bool {
        match self.of_store() {
            Some(error) => error.is_outage(),
            None => matches!(self, Self::Absent),
        }
    }

    /// The store's own error, if it is one.
    #[must_use]
    pub const fn of_store(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error)
            | Self::Log(LogError::Store(error))
            | Self::Read(
                AuditError::Log(LogError::Store(error)) | AuditError::Read(ReadError::Store(error)),
            ) => Some(error),
            Self::Log(_)
            | Self::Read(_)
            | Self::Encode(_)
            | Self::Conflict { .. }
            | Self::Lost { .. }
            | Self::Behind { .. }
            | Self::Owned { .. }
            | Self::Fenced { .. }
            | Self::OwnerUnreadable
            | Self::Absent
            | Self::NewerHead(_) => None,
        }
    }
}
