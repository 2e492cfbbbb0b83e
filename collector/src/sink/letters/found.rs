//! Core: a record that was refused, and what it is read with.

use std::sync::Arc;

use headwater_proto::ids::{JournalId, SeqRange, Stream};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::pipeline::envelope::RecordKind;

/// What is known of a letter beside its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterHead<'a> {
    /// The record's position in its journal.
    pub position: u64,
    /// Why the sink refused it.
    pub cause: &'a str,
}

/// A record that another one is read with.
pub(super) struct Context {
    /// SHA-256 of kind and payload.
    pub(super) id: [u8; 32],
    pub(super) kind: u8,
    pub(super) payload: Arc<[u8]>,
}

impl Context {
    pub(super) fn new(kind: RecordKind, payload: &[u8]) -> Self {
        let hash = Sha256::new().chain_update([kind.to_u8()]);
        Self {
            id: hash.chain_update(payload).finalize().into(),
            kind: kind.to_u8(),
            payload: payload.into(),
        }
    }
}

/// A record that was refused.
pub(super) struct Found<'a> {
    pub(super) journal: JournalId,
    pub(super) head: LetterHead<'a>,
    pub(super) kind: u8,
    pub(super) payload: &'a [u8],
    pub(super) context: Vec<Arc<Context>>,
    /// The numbers that it stands for.
    pub(super) covers: Vec<(Stream, SeqRange)>,
}
