//! Core: how a record gets into the journal, and what stands in each segment beside it.
//!
//! ```text
//! segment: snapshot │ Begin, Rules, DecoderState │ Schema, Batch, Batch … Schema, Batch …
//! ```
//! A snapshot that rots must not take the journal with it. So each segment says once more, in
//! records with checksums of their own, whose it is and how far the sinks were ([`Record::Begin`],
//! its first), by which rules its records are read ([`Record::Rules`]), and what the schema numbers
//! of its batches mean (before the first batch of each). A
//! dictionary of log lines stands in a segment once, and then by its SHA-256: it is large, and all of a
//! fleet use it.

use std::cell::Cell;

use headwater_proto::text;
use headwater_spool::{AppendError, Disk};

use super::{BLOCK_BYTES, Custody, Leaves, Refused};
use crate::pipeline::envelope::{BeginHead, DecoderStates, Record, RecordKind, SchemaHead};
use crate::pipeline::snapshot::{self, Parts};

/// What is asked of the log.
#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    /// A segment in which records of these lengths stand together.
    MakeWay(&'a [usize]),
    /// One record more.
    Append(RecordKind, &'a [u8]),
}

impl<D: Disk> Custody<D> {
    pub(super) fn append(&mut self, record: &Record<'_>, leaves: Leaves) -> Result<u64, Refused> {
        self.append_with(None, record, leaves)
    }

    /// Appends a record that is read with `schema`.
    pub(super) fn append_with(
        &mut self,
        schema: Option<&SchemaHead>,
        record: &Record<'_>,
        leaves: Leaves,
    ) -> Result<u64, Refused> {
        let mut payload = std::mem::take(&mut self.scratch);
        record.encode(&mut payload);
        let put = self.put(schema, record.kind(), &payload, leaves);
        self.scratch = payload;
        let position = put?;
        if !matches!(record, Record::Plan(..) | Record::Cursor(_)) {
            self.worth_noting = position + 1;
        }
        self.apply(position, record);
        if let Record::Schema(head, bytes) = record {
            self.stands_here(head, bytes);
        }
        Ok(position)
    }

    /// Appends what a schema number means.
    pub(super) fn append_schema(&mut self, head: SchemaHead, bytes: &[u8]) -> Result<u64, Refused> {
        let id = self.schemas.dictionary_id(&head, bytes);
        let whole = id.and_then(|id| self.schemas.bytes(&id));
        let bytes = whole.as_deref().unwrap_or(bytes);
        let reference = id.map(|id| text::refer(&id));
        let is_here = id.is_some_and(|id| self.dictionaries_in_segment.contains(&id));
        let short = reference.as_ref().filter(|_| is_here);
        if let Some(short) = short {
            let record = Record::Schema(head.clone(), short);
            let mut len = Vec::new();
            record.encode(&mut len);
            if !self.log.needs_segment(&[len.len()]) {
                return self.append(&record, Leaves::Three);
            }
        }
        self.append(&Record::Schema(head, bytes), Leaves::Three)
    }

    /// Notes that the segment says what a number means; `bytes` are that, or stand for it.
    fn stands_here(&mut self, head: &SchemaHead, bytes: &[u8]) {
        self.in_segment.insert(head.clone());
        let id = self.schemas.dictionary_id(head, bytes);
        self.dictionaries_in_segment.extend(id);
    }

    fn put(
        &mut self,
        schema: Option<&SchemaHead>,
        kind: RecordKind,
        payload: &[u8],
        leaves: Leaves,
    ) -> Result<u64, Refused> {
        let ahead = self.ahead_of(schema, payload.len());
        if ahead.is_empty() {
            if !self.has_room(&[payload.len()], leaves) {
                return Err(Refused::Full);
            }
            return self.ask_log(Step::Append(kind, payload), leaves);
        }
        let lens: Vec<usize> = ahead.iter().map(|(_, bytes)| bytes.len()).collect();
        let lens = [lens.as_slice(), &[payload.len()]].concat();
        if !self.has_room(&lens, leaves) {
            return Err(Refused::Full);
        }
        self.ask_log(Step::MakeWay(&lens), leaves)?;
        for (kind, bytes) in &ahead {
            self.ask_log(Step::Append(*kind, bytes), leaves)?;
        }
        if let Some(head) = schema {
            self.stands_here(head, &[]);
        }
        self.ask_log(Step::Append(kind, payload), leaves)
    }

    /// What has to stand in the segment before a record with a payload of `len` bytes.
    fn ahead_of(&self, schema: Option<&SchemaHead>, len: usize) -> Vec<(RecordKind, Vec<u8>)> {
        let is_there = schema.is_none_or(|head| self.in_segment.contains(head));
        if is_there && !self.log.needs_segment(&[len]) {
            return Vec::new();
        }
        let encoded = |record: Record<'_>| {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            (record.kind(), bytes)
        };
        let whole = schema.and_then(|head| {
            let bytes = self.schemas.bytes_of(head)?;
            Some(encoded(Record::Schema(head.clone(), &bytes)))
        });
        let short = schema.and_then(|head| {
            let id = self.schemas.dictionary_id(head, &[])?;
            let is_here = self.dictionaries_in_segment.contains(&id);
            is_here.then(|| encoded(Record::Schema(head.clone(), &text::refer(&id))))
        });
        let more = short
            .clone()
            .or_else(|| whole.clone())
            .filter(|_| !is_there);
        let lens: Vec<usize> = more.iter().map(|(_, bytes)| bytes.len()).collect();
        let begins = self.log.needs_segment(&[lens.as_slice(), &[len]].concat());
        let schema = if begins { whole } else { more };
        let mut ahead = Vec::new();
        if begins {
            ahead.push(encoded(Record::Begin(BeginHead {
                journal: self.journal,
                plain_epoch: self.ledger.plain_epoch(),
                apart_since: self.apart_since,
                sinks: self.cursors.clone(),
            })));
            ahead.push(encoded(Record::Rules(&self.rules.bytes)));
            ahead.push(encoded(Record::DecoderState(DecoderStates::default())));
        }
        ahead.extend(schema);
        ahead
    }

    /// Whether records with payloads of `lens` bytes may be appended.
    pub(super) fn has_room(&self, lens: &[usize], leaves: Leaves) -> bool {
        let len: usize = lens.iter().sum();
        let segment = self
            .log
            .config()
            .segment_bytes
            .max((self.snapshot_bytes + len) as u64)
            .next_multiple_of(BLOCK_BYTES);
        let taken = self.log.used_bytes() - self.log.spare_bytes();
        let begun = u64::from(self.log.needs_segment(lens));
        taken + segment * (begun + leaves as u64) <= self.log.config().quota_bytes
    }

    fn ask_log(&mut self, step: Step<'_>, leaves: Leaves) -> Result<u64, Refused> {
        let durable = self.log.durable();
        let parts = Parts {
            journal: self.journal,
            apart_since: self.apart_since,
            lake_term: self.lake_term,
            committed_to: self.committed_to,
            rules: &self.rules.bytes,
            sinks: &self.cursors,
            plans: &self.plans,
            sessions: &self.clients,
            ledger: &self.ledger,
            schemas: &self.schemas,
            open: &self.open,
        };
        let written = Cell::new(None);
        let snapshot = |out: &mut Vec<u8>| {
            let before = out.len();
            let state_bytes = snapshot::write(&parts, out);
            written.set(Some((out.len() - before, state_bytes)));
        };
        let reserved = leaves != Leaves::Three;
        let done = match step {
            Step::MakeWay(lens) => self.log.make_way(lens, &snapshot, reserved).map(u64::from),
            Step::Append(kind, payload) if reserved => {
                self.log.append_reserved(kind.to_u8(), payload, &snapshot)
            }
            Step::Append(kind, payload) => self.log.append(kind.to_u8(), payload, &snapshot),
        };
        if let Some((snapshot_bytes, state_bytes)) = written.get() {
            (self.snapshot_bytes, self.state_bytes) = (snapshot_bytes, state_bytes);
            self.grown_bytes = 0;
        }
        let lost = match &done {
            Err(AppendError::Sync(error)) => error.lost.start,
            Ok(_) | Err(_) => self.log.durable(),
        };
        if lost > durable {
            // A new segment begins only after all before it was synced.
            self.keep_synced();
        }
        match done {
            Ok(answer) => {
                if written.get().is_some() {
                    self.pending_cursors = Some(self.cursors.clone());
                    self.in_segment.clear();
                    self.dictionaries_in_segment.clear();
                }
                Ok(answer)
            }
            Err(AppendError::Full { .. }) => Err(Refused::Full),
            Err(AppendError::Sync(error)) => {
                self.fail(error.lost.start);
                Err(Refused::Failed)
            }
            Err(
                AppendError::TooLarge(_)
                | AppendError::SnapshotTooLarge(_)
                | AppendError::Disk { .. },
            ) => Err(Refused::Failed),
        }
    }
}
