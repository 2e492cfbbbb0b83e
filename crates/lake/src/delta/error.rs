//! Core: why a log could not be read or written.

use crate::store::StoreError;

/// Why a log could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A version or checkpoint is not what this crate or another Delta writer makes.
    #[error("{path} cannot be read: {what}")]
    Damaged {
        /// The object.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// The table asks for features that this crate does not know.
    #[error("{path} asks for reader {reader} and writer {writer}, this program has 1 and 2")]
    Protocol {
        /// The object.
        path: String,
        /// Reader version that it asks for.
        reader: i64,
        /// Writer version that it asks for.
        writer: i64,
    },
    /// Others committed many versions while we tried one.
    #[error("{table}: other writers were quicker {attempts} times")]
    Crowded {
        /// The table.
        table: &'static str,
        /// How often a version was tried.
        attempts: u32,
    },
    /// A version that was there is gone. Readers of the log fail or see an earlier time.
    #[error(
        "{path} is missing, though the lake knows of version {known}: bring it back from a backup or \
         an older version of the object; nothing is committed over it. If it is lost, stop the collector \
         and run `headwater-collector lake repair --config FILE`, which writes it anew from the files of the \
         table; what the journal of that configuration knows may be all that tells of the last flush"
    )]
    Hole {
        /// The missing version.
        path: String,
        /// The newest version that the head, a listing, the marks, the catalog or the files of other
        /// tables tell of.
        known: u64,
    },
    /// A version is not the one that was committed.
    #[error(
        "{path} has other bytes than were committed: bring it back from a backup or an older version \
         of the object; nothing is committed over it. If those are lost, stop the collector, remove it, \
         and run `headwater-collector lake repair`"
    )]
    Altered {
        /// The version.
        path: String,
    },
    /// A table has files and no log.
    #[error(
        "{table} has files and no log: bring {table}/_delta_log back from a backup, or write it anew with \
         `headwater-collector lake repair`, or move the lake's folder away; nothing was changed"
    )]
    NoLog {
        /// The table.
        table: &'static str,
    },
    /// Another owner of the lake has committed under a later term.
    #[error("{table} was taken over under term {term}")]
    Fenced {
        /// The table.
        table: &'static str,
        /// The later term.
        term: u64,
    },
}

impl LogError {
    /// Whether it says that the store cannot be reached, and nothing of what is in it.
    #[must_use]
    pub const fn is_outage(&self) -> bool {
        match self {
            Self::Store(error) => error.is_outage(),
            Self::Hole { .. }
            | Self::Altered { .. }
            | Self::NoLog { .. }
            | Self::Fenced { .. }
            | Self::Damaged { .. }
            | Self::Protocol { .. }
            | Self::Crowded { .. } => false,
        }
    }

    /// Whether the same step must not be tried again.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        match self {
            Self::Hole { .. } | Self::Altered { .. } | Self::NoLog { .. } | Self::Fenced { .. } => {
                true
            }
            Self::Store(_)
            | Self::Damaged { .. }
            | Self::Protocol { .. }
            | Self::Crowded { .. } => false,
        }
    }
}
