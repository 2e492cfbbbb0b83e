//! Core: finds in the journal what a sink refused, and what that is read with.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use headwater_proto::frame;
use headwater_proto::ids::{JournalId, SeqRange, Stream};
use headwater_proto::time::UnixMicros;
use headwater_spool::{Disk, Reader, SegmentInfo};

use super::LettersError;
use super::found::{Context, Found, LetterHead};
use crate::interpret::ReceiptTimes;
use crate::pipeline::envelope::{self, Record, RecordKind, SchemaHead, Tie};
use crate::pipeline::ledger;
use crate::pipeline::numbers::Numbers;
use crate::pipeline::schemas::{self, SchemaBook};
use crate::pipeline::snapshot;
use crate::pipeline::undated::{self, ClockBook};

/// Bytes read from the journal at once.
const READ_BYTES: usize = 1 << 20;

/// What a sink refused with one commit.
#[derive(Debug, Clone, Copy)]
pub struct Refusal<'a> {
    /// The first position that the sink had not answered for.
    pub from: u64,
    /// The first position that it was not given yet.
    pub to: u64,
    /// What it refused.
    pub streams: &'a [(Stream, Vec<SeqRange>)],
    /// Why, by stream.
    pub causes: &'a BTreeMap<Stream, String>,
    /// When.
    pub at: UnixMicros,
    /// What dates records that came while the collector's clock was in doubt.
    pub clock: &'a ClockBook,
}

impl Refusal<'_> {
    /// Why a record was refused, if it was.
    fn cause(&self, record: &Record<'_>) -> Option<&str> {
        let mut cause = None;
        ledger::committed_by(record, &mut |stream, range| {
            let ranges = self.streams.iter().find(|(refused, _)| refused == stream);
            let is_refused = |refused: &SeqRange| refused.overlaps(range);
            if ranges.is_some_and(|(_, ranges)| ranges.iter().any(is_refused)) {
                cause = Some(self.causes.get(stream).map_or("", String::as_str));
            }
        });
        cause
    }
}

/// What a segment tells before the records that need it.
#[derive(Default)]
struct Told {
    journal: Option<JournalId>,
    rules: Vec<Arc<Context>>,
    schemas: SchemaBook,
    times: ReceiptTimes,
}

impl Told {
    fn learn(&mut self, record: &Record<'_>, payload: &[u8]) {
        self.times.learn(record);
        if let Record::Begin(head) = record {
            self.journal = Some(head.journal);
        } else if let Record::Rules(_) | Record::DecoderState(_) = record {
            let told = Context::new(record.kind(), payload);
            self.rules.push(Arc::new(told));
        } else if let Record::Schema(head, bytes) = record {
            self.schemas.bind(head, bytes);
            self.schemas.synced();
        }
    }

    /// What a record is read with.
    fn context(&self, record: &Record<'_>) -> Vec<Arc<Context>> {
        let mut context = self.rules.clone();
        if let Some(head) = schema_of(record)
            && let Some(bytes) = self.schemas.bytes_of(&head)
        {
            let mut payload = Vec::new();
            // In full, also where the segment only named it by its SHA-256.
            Record::Schema(head, &bytes).encode(&mut payload);
            context.push(Arc::new(Context::new(RecordKind::Schema, &payload)));
        }
        context
    }
}

/// The number of the schema, or of the dictionary, that a record is read with.
fn schema_of(record: &Record<'_>) -> Option<SchemaHead> {
    let Record::Batch(head, bytes) = record else {
        return None;
    };
    let (frame, _) = frame::decode(bytes).ok()?;
    Some(SchemaHead {
        origin: head.stream.device.clone(),
        epoch: head.stream.epoch,
        number: schemas::number_in(&frame)?,
    })
}

/// Hands over the records of the journal that were refused. A delivery that
/// was made again from its plan may hold records from before the place where the sink goes on: for them all of
/// the journal is read.
///
/// # Errors
/// [`LettersError`]: the journal's, or the first of `visit`.
pub(super) fn each_refused<J: Disk>(
    refusal: &Refusal<'_>,
    journal: &mut Reader<J>,
    visit: &mut dyn FnMut(&Found<'_>) -> Result<(), LettersError>,
) -> Result<(), LettersError> {
    let mut missing = Numbers::new();
    missing.add(refusal.streams);
    in_stretch(refusal, journal, &mut |found| {
        for (stream, range) in &found.covers {
            missing.remove(stream, *range);
        }
        visit(found)
    })?;
    if missing.is_empty() {
        return Ok(());
    }
    let before = Refusal {
        from: 0,
        to: refusal.from,
        ..*refusal
    };
    in_stretch(&before, journal, visit)
}

fn in_stretch<J: Disk>(
    refusal: &Refusal<'_>,
    journal: &mut Reader<J>,
    visit: &mut dyn FnMut(&Found<'_>) -> Result<(), LettersError>,
) -> Result<(), LettersError> {
    let mut at = refusal.from;
    while at < refusal.to
        && let Some(segment) = journal.segment_at(at)
    {
        in_segment(refusal, journal, &segment, visit)?;
        at = segment.next.max(at + 1);
    }
    Ok(())
}

fn in_segment<J: Disk>(
    refusal: &Refusal<'_>,
    journal: &mut Reader<J>,
    segment: &SegmentInfo,
    visit: &mut dyn FnMut(&Found<'_>) -> Result<(), LettersError>,
) -> Result<(), LettersError> {
    let mut told = Told::default();
    told.times.share(refusal.clock.clone());
    // As for a sink's own reading: rules stand once more in the snapshot, for a bit of rot in one
    // place must not cost the meaning of all records.
    if let Some(bytes) = journal.snapshot_of(segment.id)?
        && let Some((rules, clock)) = snapshot::preamble_of(&bytes)
    {
        told.times.learn_head(&clock);
        let mut payload = Vec::new();
        Record::Rules(&rules).encode(&mut payload);
        told.rules
            .push(Arc::new(Context::new(RecordKind::Rules, &payload)));
    }
    let (mut at, mut outcome) = (segment.first, Ok(()));
    while at < segment.next.min(refusal.to) && outcome.is_ok() {
        let chunk =
            journal.read_within(segment.id, at, READ_BYTES, |position, kind, payload| {
                if position >= refusal.to {
                    return ControlFlow::Break(());
                }
                let Ok(record) = envelope::decode(kind, payload) else {
                    return ControlFlow::Continue(());
                };
                told.learn(&record, payload);
                if position < refusal.from {
                    return ControlFlow::Continue(());
                }
                let Some(cause) = refusal.cause(&record) else {
                    return ControlFlow::Continue(());
                };
                let mut covers = Vec::new();
                ledger::committed_by(&record, &mut |stream, range| {
                    covers.push((stream.clone(), range));
                });
                let context = told.context(&record);
                let mut payload = Cow::Borrowed(payload);
                if let Some(tie) = told.times.tie().filter(|tie| *tie != Tie::NONE) {
                    // A letter is read without the journal: it has the times that the sink was handed.
                    undated::dated(record, &tie).encode(payload.to_mut());
                }
                outcome = visit(&Found {
                    covers,
                    // Without its first record a segment does not say whose it is.
                    journal: told.journal.unwrap_or(JournalId(0)),
                    head: LetterHead { position, cause },
                    kind,
                    payload: &payload,
                    context,
                });
                match outcome {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                }
            })?;
        if chunk.next <= at {
            break;
        }
        at = chunk.next;
    }
    outcome
}
