//! Core: the journal. It appends records, each segment of which can be read alone, and knows what the next
//! segment must begin with: schemas, plans, cursors, sessions, open entries, and how large that may become.
//!
//! ```text
//! segment: snapshot │ Begin, Rules, DecoderState │ Schema, Batch, Batch … Clock, Schema, Batch …
//! ```
//! A snapshot that rots must not take the journal with it. So each segment says once more, in
//! records with checksums of their own, whose it is and how far the sinks were ([`Record::Begin`],
//! its first), by which rules its records are read ([`Record::Rules`]), and what the schema numbers
//! of its batches mean (before the first batch of each). A
//! dictionary of log lines stands in a segment once, and then by its SHA-256: it is large, and all of a
//! fleet use it.
//!
//! What streams are held is the ledger's, which a snapshot needs and is handed in. Each append says what
//! became of the record ([`Put`]), and whether the group before it became durable on the way.

mod budget;
pub(super) mod clock;
mod restore;
mod room;
mod segment;
mod sinks;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;

use headwater_gate::repeat::OpenEntries;
use headwater_proto::ids::{JournalId, SeqRange, Stream};
use headwater_proto::text;
use headwater_spool::{AppendError, Disk, Log, ReadError, SyncError};

use crate::pipeline::envelope::{Record, RecordKind, SchemaHead};
use crate::pipeline::ledger::Ledger;
use crate::pipeline::rules::RulesId;
use crate::pipeline::schemas::SchemaBook;
use crate::pipeline::snapshot::{self, Parts, PendingPlan, Restored};
use crate::pipeline::undated::{ClockBook, Stretches};
use budget::Budget;
pub use restore::{OpenError, Past};
pub(super) use restore::{other_version, restore};
use segment::Segment;
use sinks::Sinks;
pub(super) use sinks::{Moved, Report};

/// The rule set by which records that arrive now are read.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) id: RulesId,
    pub(super) bytes: Vec<u8>,
}

/// Segments of the journal's quota that each kind of record leaves to the next, so that a full
/// journal can always be emptied: a sink's plan, then the snapshot that lets segments go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaves {
    /// Readings.
    Three = 3,
    /// Gaps and marks.
    Two = 2,
    /// Plans of sinks.
    One = 1,
    /// A cursor, at the head of a new segment.
    None = 0,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Put {
    /// All that was appended before it became durable on the way: a new segment begins only then.
    pub(super) synced: bool,
    /// Its position, or why it has none.
    pub(super) came: Result<u64, NotPut>,
}

/// Why a record was not appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotPut {
    /// No room: it waits.
    Full,
    /// The disk refused it; the running group stands.
    Refused,
    /// The disk failed, and with it the running group.
    GroupFailed,
}

impl Put {
    const fn refused(why: NotPut) -> Self {
        Self {
            synced: false,
            came: Err(why),
        }
    }

    /// What becomes of the next step, if this one succeeded.
    fn then(self, next: impl FnOnce() -> Self) -> Self {
        if self.came.is_err() {
            return self;
        }
        let next = next();
        Self {
            synced: self.synced || next.synced,
            ..next
        }
    }
}

/// What is asked of the log.
#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    /// A segment in which records of these lengths stand together.
    MakeWay(&'a [usize]),
    /// One record more.
    Append(RecordKind, &'a [u8]),
}

/// The journal. See the module's page.
pub(super) struct Journal<D: Disk> {
    log: Log<D>,
    name: JournalId,
    rules: Rules,
    /// The schemas in use.
    pub(super) schemas: SchemaBook,
    /// What stands in the present segment.
    segment: Segment,
    /// Publishes of plain devices that may come again.
    pub(super) open: OpenEntries,
    /// The MQTT client ids that have a persistent session.
    clients: BTreeSet<Arc<str>>,
    /// How far each sink is.
    pub(super) sinks: Sinks,
    /// Where the journal stood when it was last at one with the lake, if it was begun without it.
    apart_since: Option<u64>,
    /// Term of the lake that the marks agree with; 0 before they were made to.
    lake_term: u64,
    /// The term that they agree with from a position on, once the sinks have come there.
    next_term: Option<(u64, u64)>,
    /// Marks of all records below this position say what was committed.
    committed_to: u64,
    scratch: Vec<u8>,
    budget: Budget,
    /// What times of receipt are worth.
    pub(super) clock: Stretches,
    /// Tells readers of it.
    pub(super) book: ClockBook,
}

impl<D: Disk> Journal<D> {
    /// The journal on `log` as it was before, without its ledger. `rules` are those of the records that
    /// arrive now.
    pub(super) fn new(
        log: Log<D>,
        rules: Rules,
        specs: &[super::types::SinkSpec],
        restored: Restored,
    ) -> (Self, Ledger) {
        let journal = Self {
            log,
            name: restored.journal,
            rules,
            schemas: restored.schemas,
            segment: Segment::default(),
            open: restored.open,
            clients: restored.sessions,
            sinks: Sinks::new(specs.to_vec(), restored.sinks, restored.plans),
            apart_since: restored.apart_since,
            lake_term: restored.lake_term,
            next_term: None,
            committed_to: restored.committed_to,
            scratch: Vec::new(),
            budget: Budget::default(),
            clock: restored.clock,
            book: ClockBook::default(),
        };
        (journal, restored.ledger)
    }

    /// Its random name.
    pub(super) const fn name(&self) -> JournalId {
        self.name
    }

    pub(super) const fn log(&self) -> &Log<D> {
        &self.log
    }

    pub(super) const fn rules_id(&self) -> RulesId {
        self.rules.id
    }

    pub(super) const fn clients(&self) -> &BTreeSet<Arc<str>> {
        &self.clients
    }

    /// Appends a record, and before it what has to stand in its segment. `schema` is the number that it is
    /// read with.
    pub(super) fn append(
        &mut self,
        ledger: &Ledger,
        schema: Option<&SchemaHead>,
        record: &Record<'_>,
        leaves: Leaves,
    ) -> Put {
        let mut payload = std::mem::take(&mut self.scratch);
        record.encode(&mut payload);
        let put = self.put(ledger, schema, record.kind(), &payload, leaves);
        self.scratch = payload;
        let Ok(position) = put.came else { return put };
        if !matches!(record, Record::Plan(..) | Record::Cursor(_)) {
            self.sinks.worth_noting_to(position + 1);
        }
        self.apply(position, record);
        if let Record::Schema(head, bytes) = record {
            self.segment.holds(&self.schemas, head, bytes);
        }
        put
    }

    /// The bytes by which a record tells what a schema number means: a dictionary that the segment holds
    /// already is told by its SHA-256 there.
    pub(super) fn told_as(&self, head: &SchemaHead, bytes: &[u8]) -> Vec<u8> {
        let id = self.schemas.dictionary_id(head, bytes);
        if let Some(id) = id.filter(|id| self.segment.has_dictionary(id)) {
            let short = text::refer(&id);
            let mut encoded = Vec::new();
            Record::Schema(head.clone(), &short).encode(&mut encoded);
            if !self.log.needs_segment(&[encoded.len()]) {
                return short.to_vec();
            }
        }
        let whole = id.and_then(|id| self.schemas.bytes(&id));
        whole.map_or_else(|| bytes.to_vec(), |whole| whole.to_vec())
    }

    fn put(
        &mut self,
        ledger: &Ledger,
        schema: Option<&SchemaHead>,
        kind: RecordKind,
        payload: &[u8],
        leaves: Leaves,
    ) -> Put {
        let ahead = self.ahead_of(ledger, schema, payload.len());
        let lens = ahead.iter().map(|(_, bytes)| bytes.len());
        let lens: Vec<usize> = lens.chain([payload.len()]).collect();
        if (self.clock.is_full() && has_time(kind)) || !self.has_room(&lens, leaves) {
            return Put::refused(NotPut::Full);
        }
        if ahead.is_empty() {
            return self.ask_log(ledger, Step::Append(kind, payload), leaves);
        }
        let mut put = self.ask_log(ledger, Step::MakeWay(&lens), leaves);
        for (kind, bytes) in &ahead {
            put = put.then(|| self.ask_log(ledger, Step::Append(*kind, bytes), leaves));
        }
        put.then(|| {
            if let Some(head) = schema {
                self.segment.holds(&self.schemas, head, &[]);
            }
            self.segment.clock = Some(self.clock.head().clone());
            self.ask_log(ledger, Step::Append(kind, payload), leaves)
        })
    }

    fn parts<'a>(&'a self, ledger: &'a Ledger, open: &'a OpenEntries) -> Parts<'a> {
        Parts {
            journal: self.name,
            apart_since: self.apart_since,
            lake_term: self.lake_term,
            committed_to: self.committed_to,
            rules: &self.rules.bytes,
            sinks: self.sinks.cursors(),
            plans: self.sinks.plans(),
            sessions: &self.clients,
            ledger,
            schemas: &self.schemas,
            open,
            clock: &self.clock,
        }
    }

    fn ask_log(&mut self, ledger: &Ledger, step: Step<'_>, leaves: Leaves) -> Put {
        let durable = self.log.durable();
        let parts = Parts {
            journal: self.name,
            apart_since: self.apart_since,
            lake_term: self.lake_term,
            committed_to: self.committed_to,
            rules: &self.rules.bytes,
            sinks: self.sinks.cursors(),
            plans: self.sinks.plans(),
            sessions: &self.clients,
            ledger,
            schemas: &self.schemas,
            open: &self.open,
            clock: &self.clock,
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
            self.budget.written(snapshot_bytes, state_bytes);
        }
        let lost = match &done {
            Err(AppendError::Sync(error)) => error.lost.start,
            Ok(_) | Err(_) => self.log.durable(),
        };
        let synced = lost > durable;
        if synced {
            // A new segment begins only after all before it was synced.
            self.synced();
        }
        let came = match done {
            Ok(answer) => {
                if written.get().is_some() {
                    self.sinks.segment_begun();
                    self.segment.clear();
                }
                Ok(answer)
            }
            Err(AppendError::Full { .. }) => Err(NotPut::Full),
            Err(AppendError::Sync(error)) => {
                self.failed(error.lost.start);
                Err(NotPut::GroupFailed)
            }
            Err(
                AppendError::TooLarge(_)
                | AppendError::SnapshotTooLarge(_)
                | AppendError::Disk { .. },
            ) => Err(NotPut::Refused),
        };
        Put { synced, came }
    }

    /// Makes all that was appended durable. Whether there was anything.
    ///
    /// # Errors
    /// [`SyncError`]: the group never happened.
    pub(super) fn sync(&mut self) -> Result<bool, SyncError> {
        let before = self.log.durable();
        match self.log.sync() {
            Ok(durable) => {
                self.synced();
                Ok(durable > before)
            }
            Err(error) => {
                self.failed(error.lost.start);
                Err(error)
            }
        }
    }

    /// Makes all durable, and the next record begin a segment.
    ///
    /// # Errors
    /// [`SyncError`]: the group never happened.
    pub(super) fn roll(&mut self) -> Result<(), SyncError> {
        match self.log.roll() {
            Ok(()) => {
                self.synced();
                Ok(())
            }
            Err(error) => {
                self.failed(error.lost.start);
                Err(error)
            }
        }
    }

    /// All that was appended is durable: a later failure takes none of it back.
    fn synced(&mut self) {
        self.sinks.synced();
        self.schemas.synced();
        clock::tell(self);
    }

    /// The group from `first` on failed: nothing of it happened.
    fn failed(&mut self, first: u64) {
        self.schemas.roll_back();
        self.open.roll_back(first);
        self.segment.clear();
        self.sinks.failed(first);
    }

    /// Takes in a record that is in the journal.
    pub(super) fn apply(&mut self, position: u64, record: &Record<'_>) {
        self.clock.apply(record);
        match record {
            Record::Schema(head, bytes) => {
                self.schemas.bind(head, bytes);
            }
            Record::Plan(head, bytes) => self.sinks.planned(PendingPlan {
                sink: head.sink.to_owned(),
                position,
                bytes: bytes.to_vec(),
            }),
            Record::Cursor(head) => self.sinks.stands(head.sink, head.position),
            // Only where a journal is read again: a segment's first record is its own.
            Record::Begin(head) => self.apart_since = head.apart_since,
            Record::Session(head) => {
                if head.present {
                    self.clients.insert(head.client.into());
                } else {
                    self.clients.remove(head.client);
                }
            }
            Record::Batch(..)
            | Record::Raw(..)
            | Record::Mark(_)
            | Record::Registry(_)
            | Record::Gap(_)
            | Record::Park(..)
            | Record::Rules(_)
            | Record::DecoderState(_)
            | Record::Lacks(_)
            | Record::Clock(_)
            | Record::Portion(_) => {}
        }
    }

    /// Hands over the numbers that the records of `from..to` stand for, with the position of each. Returns
    /// how many records could not be read.
    ///
    /// # Errors
    /// [`ReadError`].
    pub(super) fn each_number(
        &self,
        from: u64,
        to: u64,
        visit: &mut impl FnMut(u64, &Stream, SeqRange),
    ) -> Result<u64, ReadError> {
        super::stretch::each_number(&mut self.log.reader(), from, to, visit)
    }

    /// Hands over the records of `from..to`. Returns how many could not be read.
    ///
    /// # Errors
    /// [`ReadError`].
    pub(super) fn each_record(
        &self,
        from: u64,
        to: u64,
        visit: &mut impl FnMut(u64, &Record<'_>),
    ) -> Result<u64, ReadError> {
        super::stretch::each_record(&mut self.log.reader(), from, to, visit)
    }

    /// Where the journal stood when the time without the lake began.
    pub(super) const fn apart_since(&self) -> Option<u64> {
        self.apart_since
    }

    /// A time without the lake began at a position, or is over.
    pub(super) const fn set_apart(&mut self, since: Option<u64>) {
        self.apart_since = since;
    }

    /// Goes on under a new name: what stands before `since` is in the lake, and nothing after that is.
    pub(super) fn go_on_as(&mut self, name: JournalId, since: u64) {
        self.name = name;
        self.lake_term = 0;
        self.next_term = None;
        self.committed_to = since;
        self.sinks.go_on_from(since);
    }

    /// The lake, which is the sink of that name, has come no further than a position: it was brought back older.
    pub(super) fn go_back(&mut self, sink: &str, to: u64) {
        self.sinks.go_back(sink, to);
        self.committed_to = self.committed_to.min(to);
    }

    /// Marks of all records below the position that every required sink has passed say what was committed.
    pub(super) fn committed_so_far(&mut self) {
        self.committed_to = self.committed_to.max(self.sinks.required_position());
        self.settle_term();
    }

    /// The same after the records before it were read again. Returns what it was.
    pub(super) const fn set_committed_to(&mut self, position: u64) -> u64 {
        std::mem::replace(&mut self.committed_to, position)
    }

    pub(super) const fn committed_to(&self) -> u64 {
        self.committed_to
    }

    /// The marks agree with the lake, whose term is `term`. While records before `until` may be in the lake
    /// twice, a start must look again.
    pub(super) fn agree(&mut self, term: u64, until: u64) {
        self.next_term = Some((term, until));
        self.settle_term();
    }

    fn settle_term(&mut self) {
        let passed = self.sinks.required_position();
        if let Some((term, _)) = self.next_term.take_if(|(_, until)| *until <= passed) {
            self.lake_term = term;
        }
    }

    /// The term of the lake with which the marks were made to agree, as the last snapshot says; 0 if
    /// never.
    pub(super) const fn lake_term(&self) -> u64 {
        self.lake_term
    }
}

/// Whether records of a kind have a time of receipt.
const fn has_time(kind: RecordKind) -> bool {
    match kind {
        RecordKind::Batch
        | RecordKind::Raw
        | RecordKind::Mark
        | RecordKind::Gap
        | RecordKind::Park
        | RecordKind::Lacks => true,
        RecordKind::Plan
        | RecordKind::Cursor
        | RecordKind::Registry
        | RecordKind::Session
        | RecordKind::Schema
        | RecordKind::Begin
        | RecordKind::Rules
        | RecordKind::DecoderState
        | RecordKind::Clock
        | RecordKind::Portion => false,
    }
}

#[cfg(test)]
mod tests;
