//! Core: what a record of each kind means.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_lake::schema::MAX_TIME_US;
use headwater_proto::codec::BatchHeader;
use headwater_proto::delivery::End;
use headwater_proto::frame::{self, Frame, Kind};
use headwater_proto::ids::{SeqRange, Stream};
use headwater_proto::message::{self, EpochEnd, GapReason, Stage, TimeBase};
use headwater_proto::refused;
use headwater_proto::sabotage::{self, Bug};
use headwater_proto::text::TextHeader;
use headwater_proto::time::UnixMicros;

use super::batch::Buffer;
use super::lines::{LogLines, dated};
use super::news::{Cache, Prepared};
use super::places::Places;
use super::receipts::Times;
use super::time::takes;
use super::{
    Block, Depth, DeviceNews, EpochChange, EpochNews, Gap, Interpreted, Known, News, Origin, plain,
};
use crate::pipeline::dating::DATED_ERROR_MS;
use crate::pipeline::envelope::{
    self, BatchHead, Change, ClockHead, EnvelopeError, GapHead, Known as KnownBy, LacksHead,
    MarkHead, Reason, Record, RecordKind, Span, TimeClass, Verdict,
};
use crate::pipeline::rules::{RuleSet, RulesId, TimeWindow};
use crate::pipeline::schemas::SchemaBook;
use crate::pipeline::undated::{self, ClockBook};
use crate::pipeline::{ledger, spans};

/// The rule sets that a segment has told.
#[derive(Debug, Default)]
struct RuleBook(BTreeMap<RulesId, Arc<RuleSet>>);

impl RuleBook {
    /// Takes in a rule set; what does not decode stays unknown.
    fn learn(&mut self, bytes: &[u8]) {
        if let Ok(set) = RuleSet::decode(bytes) {
            self.0.insert(RulesId::of(bytes), Arc::new(set));
        }
    }

    fn get(&self, id: RulesId) -> Option<Arc<RuleSet>> {
        self.0.get(&id).cloned()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// Reads records of one journal in order, from the start of a segment on.
///
/// Memory: the schemas and rules of one segment, and one record as samples.
#[derive(Debug)]
pub struct Interpreter {
    depth: Depth,
    schemas: SchemaBook,
    rules: RuleBook,
    places: Places,
    times: Times,
    cache: Cache,
    buffer: Buffer,
    origin: Option<Origin>,
    gaps: Vec<Gap>,
    epochs: Vec<EpochNews>,
    covers: Vec<(Stream, SeqRange)>,
    /// What the present record was read with.
    prepared: Option<Arc<Prepared>>,
    /// The lines of the present record, decompressed, and their dictionary.
    body: Vec<u8>,
    dictionary: Option<Known>,
    /// Values that the present record says are missing.
    missing: u32,
}

/// What a record holds beside what the buffers took of it.
enum Rest<'a> {
    Nothing,
    /// A batch that was not opened.
    Block(BatchHeader, &'a [u8]),
    /// Log lines, decompressed.
    Lines(TextHeader<'a>),
}

impl Interpreter {
    /// Reads batches as far as `depth` says.
    #[must_use]
    pub fn new(depth: Depth) -> Self {
        Self {
            depth,
            schemas: SchemaBook::default(),
            rules: RuleBook::default(),
            places: Places::default(),
            times: Times::default(),
            cache: Cache::default(),
            buffer: Buffer::default(),
            origin: None,
            gaps: Vec::new(),
            epochs: Vec::new(),
            covers: Vec::new(),
            prepared: None,
            body: Vec::new(),
            dictionary: None,
            missing: 0,
        }
    }

    /// A segment begins: it tells again all that its records need.
    pub fn begin_segment(&mut self) {
        self.schemas = SchemaBook::default();
        self.rules.clear();
        self.places.clear();
        self.times.clear();
    }

    /// Reads what ties stretches without dates from `book` too.
    pub fn share_clock(&mut self, book: ClockBook) {
        self.times.share(book);
    }

    /// What custody tells of the collector's clock.
    pub(super) const fn clock_book(&self) -> &ClockBook {
        self.times.book()
    }

    /// Whether the next record, which is of `kind`, has no date yet: nobody may go beyond it.
    #[must_use]
    pub fn waits_at(&mut self, position: u64, kind: u8) -> bool {
        self.times.come_to(position);
        kind != RecordKind::Clock.to_u8() && self.times.tie().is_none()
    }

    /// Whether the segment's first record was read.
    #[must_use]
    pub fn has_begin(&self) -> bool {
        self.places.all().is_some()
    }

    /// Takes in what times of receipt are worth from the segment's start on, as its snapshot says.
    pub fn learn_clock(&mut self, head: &ClockHead) {
        self.times.learn_head(head);
    }

    /// Whether the segment has told a rule set.
    #[must_use]
    pub fn has_rules(&self) -> bool {
        !self.rules.is_empty()
    }

    /// Takes in a rule set that the segment's preamble has.
    pub fn learn_rules(&mut self, bytes: &[u8]) {
        self.rules.learn(bytes);
    }

    /// The next record that can be read stands at `position`: those before it are lost, or came.
    pub(super) fn come_to(&mut self, position: u64) {
        self.places.come_to(position);
    }

    /// Takes in what later records need of one that was handed out before.
    pub fn pass_over(&mut self, kind: u8, payload: &[u8]) {
        // One that does not decode gave nothing to whoever it was handed to either.
        if let Ok(record) = envelope::decode(kind, payload) {
            self.learn(&record);
        }
    }

    fn learn(&mut self, record: &Record<'_>) {
        if let Record::Schema(head, bytes) = record {
            self.schemas.bind(head, bytes);
            self.schemas.synced();
        }
        if let Record::Rules(bytes) = record {
            self.rules.learn(bytes);
        }
        self.places.learn(record);
        self.times.learn(record);
    }

    /// Says what the record at `position` means.
    ///
    /// # Errors
    /// [`EnvelopeError`] for a record that this build does not know.
    pub fn read<'a>(
        &'a mut self,
        position: u64,
        kind: u8,
        payload: &'a [u8],
    ) -> Result<Interpreted<'a>, EnvelopeError> {
        self.come_to(position);
        let record = envelope::decode(kind, payload)?;
        self.clear();
        self.times.come_to(position);
        self.learn(&record);
        // A tie itself has no time of receipt.
        let record = if matches!(record, Record::Clock(_)) {
            record
        } else {
            undated::dated(record, &self.times.tie().ok_or(EnvelopeError::Undated)?)
        };
        let covers = &mut self.covers;
        ledger::committed_by(&record, &mut |stream, range| {
            covers.push((stream.clone(), range));
        });
        let (mut rest, mut bytes, mut at) = (Rest::Nothing, &payload[..0], UnixMicros(0));
        match record {
            Record::Batch(head, frame) => {
                (at, bytes) = (head.at, frame);
                rest = self.batch(&head, frame);
            }
            Record::Raw(head, body) => {
                (at, bytes) = (head.at, body);
                let rules = self.rules.get(head.rules);
                let origin = plain::origin(&head);
                let slack_ms = self.times.error_ms();
                let read = plain::read(&head, body, rules.as_deref(), slack_ms, &mut self.buffer);
                self.missing = read.map_or(0, |tally| tally.missing);
                if read.is_some_and(|tally| tally.samples + tally.refused == 0) {
                    self.empty(origin.stream(), origin.seq, origin.at);
                }
                self.origin = Some(origin);
            }
            Record::Gap(head) => {
                at = head.at;
                self.named(&head);
            }
            Record::Mark(head) => {
                at = head.at;
                self.mark(head);
            }
            Record::Lacks(head) => {
                at = head.at;
                self.lacks(&head);
            }
            Record::Plan(..)
            | Record::Cursor(_)
            | Record::Registry(_)
            | Record::Session(_)
            | Record::Schema(..)
            | Record::Park(..)
            | Record::Begin(_)
            | Record::Rules(_)
            // No decoder keeps state yet: one record is there in each segment, and it is empty.
            | Record::DecoderState(_)
            | Record::Clock(_)
        | Record::Portion(_) => {}
        }
        Ok(self.interpreted(position, at, bytes, rest))
    }

    fn clear(&mut self) {
        self.buffer.clear();
        self.origin = None;
        self.gaps.clear();
        self.epochs.clear();
        self.covers.clear();
        self.prepared = None;
        self.dictionary = None;
        self.missing = 0;
    }

    fn interpreted<'a>(
        &'a self,
        position: u64,
        at: UnixMicros,
        bytes: &'a [u8],
        rest: Rest<'a>,
    ) -> Interpreted<'a> {
        let at = a_date(at);
        let origin = self.origin.as_ref();
        let clock = origin.map(|origin| origin.clock);
        let mut block = None;
        let mut lines = LogLines::NONE;
        match (rest, &self.prepared, clock) {
            (Rest::Block(header, payload), Some(prepared), Some(clock)) => {
                block = Some(Block {
                    header,
                    payload,
                    offset_us: clock.offset_us,
                    schema: &prepared.schema,
                });
            }
            (Rest::Lines(header), _, Some(clock)) => {
                lines = LogLines::new(&header, &self.body, clock, at);
            }
            _ => {}
        }
        let samples = self.buffer.samples();
        let news = match &self.prepared {
            Some(prepared) => prepared.news(),
            None => News {
                device: (!samples.is_empty()).then(DeviceNews::default),
                metrics: &[],
                known: self.dictionary.as_ref(),
            },
        };
        Interpreted {
            position,
            origin,
            samples,
            block,
            refused: &self.buffer.refused,
            missing: self.missing,
            bytes,
            gaps: &self.gaps,
            epochs: &self.epochs,
            lines,
            news,
            covers: &self.covers,
            sinks: self.places.all(),
            at,
        }
    }

    fn batch<'a>(&mut self, head: &BatchHead, bytes: &'a [u8]) -> Rest<'a> {
        let stream = &head.stream;
        self.origin = Some(Origin {
            device: stream.device.clone(),
            lane: stream.lane,
            epoch: stream.epoch,
            seq: head.seq,
            at: a_date(head.at),
            clock: head.clock,
            via: head.via.clone(),
        });
        if let Verdict::Quarantine(reason) = head.verdict {
            self.buffer.refuse(reason, "", (None, 0), None);
            return Rest::Nothing;
        }
        let frame = match frame::decode(bytes) {
            Ok((frame, _)) => frame,
            Err(error) => return self.lost(head, None, Reason::Undecodable, &error.to_string()),
        };
        match frame.kind {
            Kind::Batch => self.samples(head, &frame),
            Kind::Gap => match message::decode::<message::Gap>(frame.payload) {
                Ok(gap) => self.gap(head, gap),
                Err(error) => {
                    self.lost(head, Some(&frame), Reason::Undecodable, &error.to_string())
                }
            },
            Kind::EpochEnd => match message::decode::<EpochEnd>(frame.payload) {
                Ok(end) => self.epoch_end(&end),
                Err(error) => {
                    self.lost(head, Some(&frame), Reason::Undecodable, &error.to_string())
                }
            },
            Kind::Text => match self.open_text(head, &frame) {
                Some(header) => Rest::Lines(header),
                None => {
                    let cause = "its log lines are damaged";
                    self.lost(head, Some(&frame), Reason::Undecodable, cause)
                }
            },
            Kind::Refused => match refused::Refused::decode(frame.payload) {
                Some(parts) => {
                    self.buffer.refuse_input(&parts);
                    Rest::Nothing
                }
                None => {
                    let cause = "its parts are damaged";
                    self.lost(head, Some(&frame), Reason::Undecodable, cause)
                }
            },
            // It was taken in at the gate, which dated with it what came later.
            Kind::TimeBase => match message::decode::<TimeBase>(frame.payload) {
                Ok(_) => {
                    self.empty(head.stream.clone(), head.seq, head.at);
                    Rest::Nothing
                }
                Err(error) => {
                    self.lost(head, Some(&frame), Reason::Undecodable, &error.to_string())
                }
            },
            Kind::Blob
            | Kind::Summary
            | Kind::Schema
            | Kind::BundleHead
            | Kind::Portion
            | Kind::Held
            | Kind::Hello
            | Kind::Stat
            | Kind::Welcome
            | Kind::Ack
            | Kind::Reject
            | Kind::SchemaRequest
            | Kind::Config
            | Kind::Command => {
                let cause = format!("frames of kind {:?} are not stored", frame.kind);
                self.lost(head, Some(&frame), Reason::UnknownKind, &cause)
            }
        }
    }

    fn samples<'a>(&mut self, head: &BatchHead, frame: &Frame<'a>) -> Rest<'a> {
        let header = match BatchHeader::peek(frame.payload) {
            Ok(header) => header,
            Err(error) => {
                return self.lost(head, Some(frame), Reason::Undecodable, &error.to_string());
            }
        };
        let Some(rules) = self.rules.get(head.rules) else {
            let cause = format!("rule set {} is not known", head.rules);
            return self.lost(head, Some(frame), Reason::Undecodable, &cause);
        };
        let stream = &head.stream;
        let found = self
            .schemas
            .get(&stream.device, stream.epoch, header.schema_no);
        let Some((id, schema)) = found else {
            let cause = format!("schema {} of its epoch is not known", header.schema_no);
            return self.lost(head, Some(frame), Reason::Undecodable, &cause);
        };
        let prepared = self.cache.get(id, schema, &self.schemas);
        // A deliberate bug lives here: who keeps batches as they came keeps what is refused too.
        let window = rules.window.widened(self.times.error_ms());
        let is_whole = takes_all(&window, head, &header) || sabotage::is(Bug::TwoVerdicts);
        if self.depth == Depth::Blocks && is_whole {
            self.prepared = Some(prepared);
            return Rest::Block(header, frame.payload);
        }
        let judge = (window, head.at);
        let read = self
            .buffer
            .read_batch(frame.payload, &prepared, head.clock, judge);
        match read {
            Ok(()) => {
                self.prepared = Some(prepared);
                Rest::Nothing
            }
            Err(error) => self.lost(head, Some(frame), Reason::Undecodable, &error.to_string()),
        }
    }

    /// Decompresses log lines; `None` if they are damaged.
    fn open_text<'a>(&mut self, head: &BatchHead, frame: &Frame<'a>) -> Option<TextHeader<'a>> {
        let (header, body) = TextHeader::read(frame.payload)?;
        let stream = &head.stream;
        if let Some(number) = header.dictionary {
            let found = self
                .schemas
                .dictionary(&stream.device, stream.epoch, number);
            let (id, bytes) = found?;
            self.dictionary = Some(Known { id, bytes });
        }
        let known = self.dictionary.as_ref().map_or(&[][..], |d| &d.bytes);
        let mut zstd = zstd::bulk::Decompressor::with_dictionary(known).ok()?;
        self.body = zstd.decompress(body, header.body_bytes).ok()?;
        LogLines::are_whole(&header, &self.body).then_some(header)
    }

    fn gap(&mut self, head: &BatchHead, gap: message::Gap) -> Rest<'static> {
        let span = told(&gap, head);
        self.gaps.push(Gap {
            stream: Stream {
                device: gap.origin,
                lane: gap.lane,
                epoch: gap.epoch,
            },
            range: gap.seqs.filter(|range| !range.is_empty()),
            samples: gap.samples,
            span,
            reason: gap.reason,
            stage: gap.stage,
            part: gap.part.map(|part| part.as_str().to_owned()),
            at: UnixMicros(dated(gap.at.0, a_date(head.at))),
            carried: true,
        });
        Rest::Nothing
    }

    fn epoch_end(&mut self, end: &EpochEnd) -> Rest<'static> {
        self.epochs.push(EpochNews {
            stream: Stream {
                device: end.origin.clone(),
                lane: end.lane,
                epoch: end.epoch,
            },
            change: EpochChange::Ended {
                end: End::of(end),
                boot: end.boot,
            },
        });
        Rest::Nothing
    }

    /// A record without samples: its number is told, so that nobody misses it.
    fn empty(&mut self, stream: Stream, seq: u64, at: UnixMicros) {
        self.gaps.push(Gap {
            stream,
            range: Some(SeqRange::new(seq, seq + 1)),
            samples: Some(0),
            span: spanning(at, at, KnownBy::Nothing),
            reason: GapReason::Empty,
            stage: Stage::Collector,
            part: None,
            at: a_date(at),
            carried: false,
        });
    }

    /// A loss that the collector named.
    fn named(&mut self, head: &GapHead) {
        self.gaps.push(Gap {
            stream: head.stream.clone(),
            range: head.range.filter(|range| !range.is_empty()),
            samples: None,
            span: dates(head.span),
            reason: head.reason,
            stage: Stage::Collector,
            part: None,
            at: a_date(head.at),
            carried: false,
        });
    }

    /// What another sink lacks, as a gap of its own stage.
    fn lacks(&mut self, head: &LacksHead<'_>) {
        for (range, span) in head.ranges.iter().filter(|(range, _)| !range.is_empty()) {
            self.gaps.push(Gap {
                stream: head.stream.clone(),
                range: Some(*range),
                samples: None,
                span: dates(*span),
                reason: head.reason,
                stage: Stage::Sink,
                part: Some(head.sink.to_owned()),
                at: a_date(head.at),
                carried: false,
            });
        }
    }

    fn mark(&mut self, head: MarkHead) {
        let change = match head.change {
            Change::Opened { boot, .. } => EpochChange::Opened { boot },
            Change::Abandoned { next } => EpochChange::Abandoned { next },
            Change::Claimed { next } => EpochChange::Claimed { next },
            // No sink got it.
            Change::Lost { .. } => return,
        };
        self.epochs.push(EpochNews {
            stream: head.stream,
            change,
        });
    }

    /// A record in custody that nobody can read: its bytes to quarantine, its number to a gap.
    fn lost(
        &mut self,
        head: &BatchHead,
        frame: Option<&Frame<'_>>,
        reason: Reason,
        cause: &str,
    ) -> Rest<'static> {
        let batch = frame.filter(|frame| frame.kind == Kind::Batch);
        let header = batch.and_then(|frame| BatchHeader::peek(frame.payload).ok());
        let samples = header.map(|header| header.samples);
        let own = frame.and_then(|frame| spans::dated_times_of(frame, head.clock));
        let span = match own {
            Some((first, last)) => {
                let off_us = dating_error_us(head);
                let (first, last) = (first.saturating_sub(off_us), last.saturating_add(off_us));
                spanning(UnixMicros(first), UnixMicros(last), KnownBy::Exact)
            }
            None => around(head),
        };
        self.dictionary = None;
        self.buffer.refuse(reason, cause, (samples, 0), None);
        self.gaps.push(Gap {
            stream: head.stream.clone(),
            range: Some(SeqRange::new(head.seq, head.seq + 1)),
            samples: samples.map(u64::from),
            span,
            reason: GapReason::Undecodable,
            stage: Stage::Collector,
            part: None,
            at: a_date(head.at),
            carried: false,
        });
        Rest::Nothing
    }
}

/// How far the times of a record may be off that were dated here.
fn dating_error_us(head: &BatchHead) -> i64 {
    match head.clock.class {
        TimeClass::Dated => i64::from(head.clock.error_ms.unwrap_or(DATED_ERROR_MS)) * 1_000,
        TimeClass::Synced | TimeClass::Wall | TimeClass::Received | TimeClass::Undated => 0,
    }
}

/// When what a gap of the sender names was made: as it says, or else as custody saw when it arrived.
fn told(gap: &message::Gap, head: &BatchHead) -> Span {
    let known = match gap.reason {
        // It reaches from the last moment of which all is durable, or had, to the start or read that found it.
        GapReason::UncleanStop | GapReason::MissingAtSource => KnownBy::Bounds,
        GapReason::Evicted
        | GapReason::Refused
        | GapReason::Damaged
        | GapReason::Abandoned
        | GapReason::Undecodable
        | GapReason::SinkSkipped
        | GapReason::Overflow
        | GapReason::DiskError
        | GapReason::CopyDropped
        | GapReason::ImpossibleTime
        | GapReason::Many
        | GapReason::Empty
        | GapReason::Repeated
        | GapReason::JournalLost => KnownBy::Exact,
    };
    match (gap.t_first, gap.t_last) {
        (Some(first), Some(last)) => spanning(first, last, known),
        (None, None) => around(head),
        (first, last) => {
            let around = around(head);
            let (first, last) = (first.unwrap_or(around.first), last.unwrap_or(around.last));
            spanning(first, last, KnownBy::Bounds)
        }
    }
}

/// What custody saw around a record. A record that has none was received by a version without a reason to.
fn around(head: &BatchHead) -> Span {
    let received = || spanning(UnixMicros(0), head.at, KnownBy::Bounds);
    head.around.map_or_else(received, dates)
}

fn dates(span: Span) -> Span {
    spanning(span.first, span.last, span.known)
}

fn spanning(a: UnixMicros, b: UnixMicros, known: KnownBy) -> Span {
    let (a, b) = (a_date(a), a_date(b));
    Span {
        first: a.min(b),
        last: a.max(b),
        known,
    }
}

/// Whether the header shows that every time of a batch is believed.
fn takes_all(window: &TimeWindow, head: &BatchHead, header: &BatchHeader) -> bool {
    let dated = |time_us: i64| time_us.saturating_add(head.clock.offset_us);
    let (first, last) = (dated(header.first_time_us), dated(header.last_time_us));
    head.clock.class != TimeClass::Undated && takes(window, first, last, head.at)
}

/// A collector whose clock has no date at all still stores what it takes.
fn a_date(at: UnixMicros) -> UnixMicros {
    UnixMicros(at.0.clamp(0, MAX_TIME_US - 1))
}
