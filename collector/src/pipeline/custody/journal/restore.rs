//! Core: from the journal's bytes to whose journal it is and what it knew.
//!
//! The newest snapshot that can be read, then every record after it. Where none can be read, the
//! records themselves tell whose journal it is, and the lake what they followed on.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use headwater_gate::repeat::OpenEntries;
use headwater_proto::ids::{Epoch, JournalId};
use headwater_spool::{Disk, Log, ReadError};

use super::super::stretch::READ_BYTES;
use crate::pipeline::envelope::{self, EnvelopeError, Record, RecordKind};
use crate::pipeline::ledger::Ledger;
use crate::pipeline::schemas::SchemaBook;
use crate::pipeline::snapshot::{self, NotRead, Plans, Restored};
use crate::pipeline::undated::Stretches;

/// Why custody cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The journal's folder.
    #[error(transparent)]
    Log(#[from] headwater_spool::OpenError),
    /// The journal's files.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Without the records of a segment the marks are older than what senders were told, and what
    /// the lake has would be taken again.
    #[error(
        "cannot read {file} of the journal; try again, and if its disk is bad for good, move the \
         journal away: a new one begins beside the lake, and agents send again what is not in it"
    )]
    Hidden {
        /// The first such segment.
        file: String,
    },
    /// Its last records were written before a crash and never synced: a repeat of one of them would
    /// be answered for a record that a power cut may still take.
    #[error(
        "cannot sync {file} of the journal; try again, and if its disk is bad for good, move the \
         journal away: a new one begins beside the lake, and agents send again what is not in it"
    )]
    NotSynced {
        /// The first such segment.
        file: String,
    },
    /// Beginning anew beside such a journal would take again what the lake has.
    #[error(
        "the journal was written by another version of this program ({what}); run that version until \
         its sinks have everything, or move the journal away: a new one begins beside the lake, and \
         agents send again what is not in it"
    )]
    OtherVersion {
        /// What this version does not know.
        what: String,
    },
}

/// What a start knows of the time before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Past {
    /// All of it: a snapshot and the records after it.
    Snapshot,
    /// The records that are left, after no snapshot could be read: what came before them is to be
    /// seeded from the lake.
    Records,
    /// Nothing, and the journal has a new name: its marks are to be seeded from the lake beside it.
    Nothing,
}

/// What is known of the time before, the first position to read again, and how that is known.
pub(in super::super) fn restore<D: Disk>(
    log: &Log<D>,
    entropy: &mut dyn FnMut() -> u64,
) -> Result<(Restored, u64, Past), OpenError> {
    Ok(match newest_snapshot(log)? {
        Found::Good(first, restored) => (restored, first, Past::Snapshot),
        Found::Older(first, restored) => match newest_begin(log)? {
            // The journal began anew since: what the old snapshot says is of another one.
            Some((begun, records)) if records.journal != restored.journal => {
                (records, begun, Past::Records)
            }
            Some(_) | None => (restored, first, Past::Snapshot),
        },
        Found::None => match newest_begin(log)? {
            Some((first, restored)) => (restored, first, Past::Records),
            // Nothing says what the records were: senders still hold what was not committed, and
            // send it again to the new journal.
            None => {
                let name = JournalId(entropy());
                let plain_epoch = Epoch::new(name.0);
                (begin(name, plain_epoch), log.next(), Past::Nothing)
            }
        },
    })
}

pub(in super::super) fn other_version(error: EnvelopeError) -> OpenError {
    OpenError::OtherVersion {
        what: error.to_string(),
    }
}

fn begin(journal: JournalId, plain_epoch: Epoch) -> Restored {
    Restored {
        journal,
        apart_since: None,
        rules: Vec::new(),
        sinks: Vec::new(),
        plans: Plans::new(),
        lake_term: 0,
        committed_to: 0,
        sessions: BTreeSet::new(),
        ledger: Ledger::new(plain_epoch),
        schemas: SchemaBook::default(),
        open: OpenEntries::default(),
        clock: Stretches::default(),
    }
}

/// The newest snapshot that can be read, and the position after it.
enum Found {
    /// That of the newest segment.
    Good(u64, Restored),
    /// An older one.
    Older(u64, Restored),
    None,
}

fn newest_snapshot<D: Disk>(log: &Log<D>) -> Result<Found, OpenError> {
    if let Some(segment) = log.segments().find(|segment| !segment.readable) {
        return Err(OpenError::OtherVersion {
            what: format!("segment {:016x} is of another format", segment.id),
        });
    }
    let newest = log.segments().next_back().map(|segment| segment.id);
    for segment in log.segments().rev() {
        let Some(bytes) = log.snapshot_of(segment.id)? else {
            continue;
        };
        match snapshot::read(&bytes) {
            Ok(restored) if Some(segment.id) == newest => {
                return Ok(Found::Good(segment.first, restored));
            }
            Ok(restored) => return Ok(Found::Older(segment.first, restored)),
            Err(NotRead::OtherVersion(version)) => {
                let what = format!("its snapshots are of version {version}");
                return Err(OpenError::OtherVersion { what });
            }
            Err(NotRead::Damaged) => {}
        }
    }
    Ok(Found::None)
}

/// Whose journal it is, as its records say, and the first of them.
fn newest_begin<D: Disk>(log: &Log<D>) -> Result<Option<(u64, Restored)>, OpenError> {
    let Some(oldest) = log.segments().next() else {
        return Ok(None);
    };
    let mut found: Option<(u64, Restored)> = None;
    let mut reader = log.reader();
    let mut at = oldest.first;
    while at < log.durable() {
        let mut failed = None;
        let chunk = reader.read(at, READ_BYTES, |position, kind, payload| {
            if kind != RecordKind::Begin.to_u8() {
                return ControlFlow::Continue(());
            }
            match envelope::decode(kind, payload) {
                Ok(Record::Begin(head)) => {
                    let first = match &found {
                        None => oldest.first,
                        Some((first, known)) if known.journal == head.journal => *first,
                        // What came before belongs to a journal that is gone, or was taken over from
                        // it where its sinks begin.
                        Some(_) => {
                            let sinks = head.sinks.iter().map(|cursor| cursor.position);
                            sinks.fold(position, u64::min)
                        }
                    };
                    let mut restored = begin(head.journal, head.plain_epoch);
                    restored.apart_since = head.apart_since;
                    restored.sinks = head.sinks;
                    found = Some((first, restored));
                }
                Err(error) if error.is_other_version() => failed = Some(other_version(error)),
                Ok(_) | Err(_) => {}
            }
            ControlFlow::Continue(())
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        if chunk.next == at {
            break;
        }
        at = chunk.next;
    }
    Ok(found)
}
