//! Core: a numbered batch as samples with names, times and tags.
//!
//! A batch is read whole into a buffer before any sink sees a row of it: a batch that turns out to be
//! damaged in its last byte must leave nothing behind. The buffer is used again from record to record,
//! and its texts are stretches of one string.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::BuildHasher as _;
use std::ops::Range;
use std::sync::Arc;

use headwater_proto::codec::{self, Limits, RowVisitor};
use headwater_proto::refused;
use headwater_proto::sabotage::{self, Bug};
use headwater_proto::sample::Value;
use headwater_proto::time::UnixMicros;

use super::Refused;
use super::news::Prepared;
use super::time::{Doubt, doubt};
use super::told::{About, Late};
use crate::pipeline::envelope::{Clock, Reason, TimeClass};
use crate::pipeline::rules::TimeWindow;

/// Samples of one record that take a row of quarantine each when they are refused for their time, some
/// 500 bytes. A batch may hold a million: the others stand in lists, at some 40 bytes.
pub(super) const MAX_REFUSED_SAMPLES: usize = 1_000;

/// Samples of one list.
pub(super) const MAX_LISTED_SAMPLES: usize = 10_000;

/// Bytes of the JSON of one list: a tree of it stands in memory while it is made.
const MAX_LIST_BYTES: usize = 1 << 20;
/// Bytes of all JSON of one record: a million of short samples, and no more for one whose every sample repeats
/// long labels. What is beyond stands in quarantine as the record's bytes.
const MAX_TOLD_BYTES: usize = 64 << 20;
/// Bytes of a sample in a list beside its series and text.
const ONE_BYTES: usize = 56;
/// Bytes of the keys of a row of quarantine or of a series.
const HEAD_BYTES: usize = 512;
/// Bytes that a byte of text takes in JSON, at most.
const MOST_ESCAPED_BYTES: usize = 6;

/// Texts from here on are kept once in a batch, however many cells have them: shorter ones take no more than
/// what else is kept of a cell.
const LONG_TEXT_BYTES: usize = 32;

/// A stretch of the buffer's text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Span {
    start: u32,
    len: u32,
}

#[derive(Debug, Clone, Copy)]
enum Cell {
    Bool(bool),
    I64(i64),
    F32(f32),
    F64(f64),
    Str(Span),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    row: u32,
    /// It is the time of receipt.
    received: bool,
    time_us: i64,
    metric: Span,
    tags: Span,
    value: Cell,
}

/// Why something is refused.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cause {
    Text(Span),
    Time(Doubt),
}

/// What stands in quarantine.
#[derive(Debug, Clone)]
pub(super) enum Payload {
    /// The record's bytes.
    Whole,
    /// A part of them, or the beginning of an input, kept in the buffer.
    Part(Range<usize>),
    /// One of the buffer's untimely samples.
    Sample(usize),
    /// Several of them.
    List(Range<usize>),
}

/// A sample that is refused for its time.
#[derive(Debug, Clone, Copy)]
struct Untimely {
    entry: Entry,
    /// Place of its metric in the record's schema.
    column: Option<u32>,
    /// Its time before anything was added.
    told_us: i64,
}

/// Something that is refused.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) row: Option<u32>,
    pub(super) metric: Option<Span>,
    /// `None`: those of the record.
    pub(super) of: Option<Option<u32>>,
    pub(super) samples: u32,
    pub(super) reason: Reason,
    pub(super) cause: Cause,
    pub(super) payload: Payload,
}

/// One sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample<'a> {
    /// Row within the record.
    pub row: u32,
    /// Unix time in microseconds.
    pub ts_us: i64,
    /// How that was found.
    pub class: TimeClass,
    /// Largest error of it in milliseconds; `None` if the clock was synchronised, or it is not known.
    pub error_ms: Option<u32>,
    /// Its metric.
    pub metric: &'a str,
    /// Labels and tags as a JSON object with sorted keys, or empty.
    pub tags: &'a str,
    /// Its value.
    pub value: Value<'a>,
}

/// The samples of a record that are believed.
#[derive(Clone, Copy)]
pub struct Samples<'a> {
    text: &'a str,
    /// Refused parts.
    parts: &'a [u8],
    entries: &'a [Entry],
    untimely: &'a [Untimely],
    clock: Clock,
    receipt_error_ms: Option<u32>,
}

impl<'a> Samples<'a> {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> u32 {
        // A record of 1 MiB holds some millions at most.
        u32::try_from(self.entries.len()).unwrap_or(u32::MAX)
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The samples in the order of the record.
    pub fn iter(&self) -> impl Iterator<Item = Sample<'a>> + use<'a> {
        // A deliberate bug lives here: the last row of a batch does not reach the sinks.
        let lost = if sabotage::is(Bug::RowLostInBatch) {
            self.entries.last().map(|entry| entry.row)
        } else {
            None
        };
        let all = *self;
        self.entries
            .iter()
            .filter(move |entry| lost != Some(entry.row))
            .map(move |entry| all.sample(entry))
    }

    /// Earliest and latest time, in Unix microseconds; `None` without samples.
    #[must_use]
    pub fn times(&self) -> Option<(i64, i64)> {
        let times = || self.entries.iter().map(|entry| entry.time_us);
        times().min().zip(times().max())
    }

    fn sample(&self, entry: &Entry) -> Sample<'a> {
        let (class, error_ms) = if entry.received {
            (TimeClass::Received, self.receipt_error_ms)
        } else {
            (self.clock.class, self.clock.error_ms)
        };
        Sample {
            row: entry.row,
            ts_us: entry.time_us,
            class,
            error_ms,
            metric: self.at(entry.metric),
            tags: self.at(entry.tags),
            value: match entry.value {
                Cell::Bool(value) => Value::Bool(value),
                Cell::I64(value) => Value::I64(value),
                Cell::F32(value) => Value::F32(value),
                Cell::F64(value) => Value::F64(value),
                Cell::Str(span) => Value::Str(self.at(span)),
            },
        }
    }

    fn at(&self, span: Span) -> &'a str {
        let start = span.start as usize;
        self.text
            .get(start..start + span.len as usize)
            .unwrap_or_default()
    }

    fn late(&self, untimely: &Untimely) -> Late<'a> {
        let sample = self.sample(&untimely.entry);
        Late {
            row: sample.row,
            metric: (sample.metric, untimely.column),
            tags: sample.tags,
            class: sample.class,
            told_us: untimely.told_us,
            value: sample.value,
        }
    }

    /// - `all`: samples of the whole record, and its bytes.
    pub(super) fn refused(
        &self,
        refusal: &Refusal,
        (all, bytes): (u32, &'a [u8]),
        about: &About<'_>,
    ) -> Refused<'a> {
        Refused {
            row: refusal.row,
            metric: refusal.metric.map(|span| Cow::Borrowed(self.at(span))),
            batch_samples: refusal.of.unwrap_or(Some(all)),
            samples: refusal.samples,
            reason: refusal.reason,
            cause: match refusal.cause {
                Cause::Text(span) => self.at(span).into(),
                Cause::Time(doubt) => doubt.to_string().into(),
            },
            payload: match &refusal.payload {
                Payload::Whole => bytes.into(),
                Payload::Part(range) => self.parts.get(range.clone()).unwrap_or_default().into(),
                Payload::Sample(at) => {
                    let untimely = self.untimely.get(*at);
                    let one = untimely.map(|untimely| about.one(&self.late(untimely)));
                    one.unwrap_or_default().into()
                }
                Payload::List(range) => {
                    let several = self.untimely.get(range.clone()).unwrap_or_default();
                    about.list(several.iter().map(|one| self.late(one))).into()
                }
            },
        }
    }
}

impl fmt::Debug for Samples<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The samples of one record, and what is refused of it.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    text: String,
    parts: Vec<u8>,
    entries: Vec<Entry>,
    pub(super) refused: Vec<Refusal>,
    /// Samples refused for their time.
    untimely: Vec<Untimely>,
    /// The refusal that stands for the rest of them, as the record's bytes.
    rest: Option<usize>,
    json: Json,
    /// That of the sample before, where they come one by one.
    metric: Option<Span>,
    clock: Option<Clock>,
    /// Most that the time of receipt may be off; `None`: it is that of a clock which was not in doubt.
    receipt_error_ms: Option<u32>,
}

impl Buffer {
    pub(super) fn clear(&mut self) {
        self.clear_rows();
        (self.clock, self.receipt_error_ms) = (None, None);
    }

    fn clear_rows(&mut self) {
        self.text.clear();
        self.parts.clear();
        self.entries.clear();
        self.refused.clear();
        self.untimely.clear();
        self.rest = None;
        self.json = Json::default();
        self.metric = None;
    }

    pub(super) fn samples(&self) -> Samples<'_> {
        Samples {
            text: &self.text,
            parts: &self.parts,
            entries: &self.entries,
            untimely: &self.untimely,
            clock: self.clock.unwrap_or(Clock::SYNCED),
            receipt_error_ms: self.receipt_error_ms,
        }
    }

    pub(super) fn text(&mut self, text: &str) -> Span {
        push_text(&mut self.text, text)
    }

    /// Refuses the whole record.
    ///
    /// - `of`: samples of the record, where known.
    /// - `samples`: how many of them this stands for.
    pub(super) fn refuse(
        &mut self,
        reason: Reason,
        cause: &str,
        (of, samples): (Option<u32>, u32),
        metric: Option<&str>,
    ) {
        self.clear_rows();
        let cause = Cause::Text(self.text(cause));
        let metric = metric.map(|metric| self.text(metric));
        self.refused.push(Refusal {
            row: None,
            metric,
            of: Some(of),
            samples,
            reason,
            cause,
            payload: Payload::Whole,
        });
    }

    /// Takes in parts of an input that a source could not read: a refusal each.
    pub(super) fn refuse_input(&mut self, record: &refused::Refused<'_>) {
        for (row, part) in (0..).zip(record.parts()) {
            let words = format!("{}, {}: {}", record.source, part.place, part.cause);
            self.refuse_part(Reason::RefusedInput, &words, part.bytes, (Some(row), None));
        }
    }

    /// Reads the payload of a Batch frame; `judge` says which times are believed of a record that
    /// arrived then.
    ///
    /// # Errors
    /// The decoder's; the buffer is then empty.
    pub(super) fn read_batch(
        &mut self,
        payload: &[u8],
        prepared: &Arc<Prepared>,
        clock: Clock,
        judge: (TimeWindow, UnixMicros),
    ) -> Result<(), codec::DecodeError> {
        self.clock = Some(clock);
        let text = &mut self.text;
        let mut spans = |texts: &mut dyn Iterator<Item = &str>| -> Vec<Span> {
            texts.map(|each| push_text(text, each)).collect()
        };
        let metrics = spans(&mut prepared.metrics.iter().map(|metric| metric.name.as_str()));
        let tags = spans(&mut prepared.tags.iter().map(String::as_str));
        let mut visitor = Visitor {
            metrics,
            tags,
            buffer: self,
            judge,
            offset_us: clock.offset_us,
            undated: clock.class == TimeClass::Undated,
            row: (0, 0, Span::default()),
            told_us: 0,
            doubt: None,
            texts: HashMap::new(),
        };
        let limits = &Limits::DEFAULT;
        codec::decode(payload, &prepared.schema, limits, &mut visitor)
            .map(drop)
            .inspect_err(|_| self.clear())
    }

    /// Takes one sample in.
    ///
    /// - `time_us`: Unix time, and whether it is that of receipt.
    /// - `tags`: as [`Buffer::text`] gave it.
    pub(super) fn push(
        &mut self,
        row: u32,
        (time_us, received): (i64, bool),
        metric: &str,
        tags: Span,
        value: Value<'_>,
        judge: (TimeWindow, UnixMicros),
    ) {
        let known = self
            .metric
            .filter(|known| self.samples().at(*known) == metric);
        let metric = known.unwrap_or_else(|| self.text(metric));
        self.metric = Some(metric);
        let doubt = doubt(&judge.0, time_us, judge.1);
        let entry = Entry {
            row,
            received,
            time_us,
            metric,
            tags,
            value: cell(&mut self.text, value),
        };
        self.place(entry, doubt, (None, time_us));
    }

    /// Refuses a part of a record, which stands for one sample.
    pub(super) fn refuse_part(
        &mut self,
        reason: Reason,
        cause: &str,
        bytes: &[u8],
        (row, metric): (Option<u32>, Option<Span>),
    ) {
        let start = self.parts.len();
        self.parts.extend_from_slice(bytes);
        let cause = Cause::Text(self.text(cause));
        self.refused.push(Refusal {
            row,
            metric,
            of: None,
            samples: 1,
            reason,
            cause,
            payload: Payload::Part(start..self.parts.len()),
        });
    }

    pub(super) const fn set_clock(&mut self, clock: Clock) {
        self.clock = Some(clock);
    }

    pub(super) const fn set_receipt_error(&mut self, error_ms: Option<u32>) {
        self.receipt_error_ms = error_ms;
    }

    /// - `told`: place of the metric in the schema, and the time before anything was added.
    fn place(&mut self, entry: Entry, doubt: Option<Doubt>, told: (Option<u32>, i64)) {
        let Some(doubt) = doubt else {
            self.entries.push(entry);
            return;
        };
        if let Some(rest) = self.rest.and_then(|rest| self.refused.get_mut(rest)) {
            rest.samples += 1;
            return;
        }
        let at = self.untimely.len();
        let is_alone = at < MAX_REFUSED_SAMPLES;
        if !self.json.begin(&entry, is_alone) {
            self.rest = Some(self.refused.len());
            self.refuse_untimely(None, doubt, Payload::Whole);
            return;
        }
        let (column, told_us) = told;
        self.untimely.push(Untimely {
            entry,
            column,
            told_us,
        });
        if let Some(list) = self.json.list.and_then(|list| self.refused.get_mut(list))
            && let Payload::List(range) = &mut list.payload
        {
            range.end = at + 1;
            list.samples += 1;
        } else if is_alone {
            self.refuse_untimely(Some(entry), doubt, Payload::Sample(at));
        } else {
            self.json.list = Some(self.refused.len());
            self.refuse_untimely(None, doubt, Payload::List(at..at + 1));
        }
    }

    /// - `alone`: the sample, where the refusal stands for that alone.
    fn refuse_untimely(&mut self, alone: Option<Entry>, doubt: Doubt, payload: Payload) {
        self.refused.push(Refusal {
            row: alone.map(|entry| entry.row),
            metric: alone.map(|entry| entry.metric),
            of: None,
            samples: 1,
            reason: doubt.reason(),
            cause: Cause::Time(doubt),
            payload,
        });
    }
}

/// What the samples that a record has in quarantine take as JSON, at most.
#[derive(Debug, Default)]
struct Json {
    /// The refusal whose list the next sample joins.
    list: Option<usize>,
    /// Samples of that list, and its bytes.
    samples: usize,
    list_bytes: usize,
    /// Series and texts that it has.
    series: HashSet<(Span, Span)>,
    texts: HashSet<Span>,
    /// Bytes of the record.
    bytes: usize,
}

impl Json {
    /// Makes room for one more sample, in the present list or a new one; false if the record has no more.
    fn begin(&mut self, entry: &Entry, is_alone: bool) -> bool {
        let mut more = self.more(entry);
        let is_full = self.samples >= MAX_LISTED_SAMPLES || self.list_bytes + more > MAX_LIST_BYTES;
        if is_alone || is_full || self.list.is_none() {
            self.list = None;
            (self.samples, self.list_bytes) = (0, 0);
            self.series.clear();
            self.texts.clear();
            more = HEAD_BYTES + self.more(entry);
        }
        if self.bytes + more > MAX_TOLD_BYTES {
            return false;
        }
        self.samples += 1;
        self.list_bytes += more;
        self.bytes += more;
        self.series.insert((entry.metric, entry.tags));
        if let Cell::Str(text) = entry.value {
            self.texts.insert(text);
        }
        true
    }

    /// What one more takes in the present list.
    fn more(&self, entry: &Entry) -> usize {
        let escaped = |span: Span| span.len as usize * MOST_ESCAPED_BYTES;
        let mut bytes = ONE_BYTES;
        if !self.series.contains(&(entry.metric, entry.tags)) {
            // Tags are JSON already.
            bytes += HEAD_BYTES + escaped(entry.metric) + entry.tags.len as usize;
        }
        if let Cell::Str(text) = entry.value
            && !self.texts.contains(&text)
        {
            bytes += escaped(text);
        }
        bytes
    }
}

/// A record's text stays far below 4 GiB: its frame is at most 1 MiB, names are bounded, and of the texts that
/// its cells share the long ones stand once.
fn push_text(text: &mut String, more: &str) -> Span {
    let start = u32::try_from(text.len()).unwrap_or(u32::MAX);
    text.push_str(more);
    Span {
        start,
        len: u32::try_from(more.len()).unwrap_or(0),
    }
}

fn cell(text: &mut String, value: Value<'_>) -> Cell {
    match value {
        Value::Bool(value) => Cell::Bool(value),
        Value::I64(value) => Cell::I64(value),
        Value::F32(value) => Cell::F32(value),
        Value::F64(value) => Cell::F64(value),
        Value::Str(value) => Cell::Str(push_text(text, value)),
    }
}

struct Visitor<'a> {
    metrics: Vec<Span>,
    tags: Vec<Span>,
    buffer: &'a mut Buffer,
    judge: (TimeWindow, UnixMicros),
    offset_us: i64,
    /// Nothing dates the record's boot.
    undated: bool,
    /// Number, time and tags of the present row.
    row: (u32, i64, Span),
    /// Its time before anything was added.
    told_us: i64,
    /// Why its time is not believed.
    doubt: Option<Doubt>,
    /// Where long texts of the batch stand, by their hash: one that comes with every cell is kept once, or a
    /// batch of a few bytes would take gigabytes.
    texts: HashMap<u64, Span>,
}

impl Visitor<'_> {
    fn cell(&mut self, value: Value<'_>) -> Cell {
        let Value::Str(text) = value else {
            return cell(&mut self.buffer.text, value);
        };
        if text.len() < LONG_TEXT_BYTES {
            return Cell::Str(push_text(&mut self.buffer.text, text));
        }
        let hash = self.texts.hasher().hash_one(text);
        let known = self.texts.get(&hash).copied();
        if let Some(known) = known.filter(|known| self.buffer.samples().at(*known) == text) {
            return Cell::Str(known);
        }
        let span = push_text(&mut self.buffer.text, text);
        self.texts.insert(hash, span);
        Cell::Str(span)
    }
}

impl RowVisitor for Visitor<'_> {
    fn row(&mut self, row: u32, time_us: i64, series: u32) {
        let tags = self.tags.get(series as usize).copied().unwrap_or_default();
        self.told_us = time_us;
        let time_us = time_us.saturating_add(self.offset_us);
        self.row = (row, time_us, tags);
        self.doubt = if self.undated {
            Some(Doubt::Undated { uptime_us: time_us })
        } else {
            doubt(&self.judge.0, time_us, self.judge.1)
        };
    }

    fn value(&mut self, column: usize, value: Value<'_>) {
        let metric = self.metrics.get(column).copied().unwrap_or_default();
        let (row, time_us, tags) = self.row;
        let entry = Entry {
            row,
            received: false,
            time_us,
            metric,
            tags,
            value: self.cell(value),
        };
        let column = u32::try_from(column).ok();
        self.buffer.place(entry, self.doubt, (column, self.told_us));
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DeviceNews, told};
    use super::*;

    #[test]
    fn what_a_record_has_in_quarantine_is_bounded_however_long_its_labels_are() {
        let mut buffer = Buffer::default();
        let judge = (TimeWindow::default(), UnixMicros(0));
        let labels = |n: u32| format!("{{\"k\":\"{n:0>16000}\"}}");
        let tags: Vec<Span> = (0..256).map(|n| buffer.text(&labels(n))).collect();
        let all = 40_000;
        for row in 0..all {
            let tags = tags[row as usize % tags.len()];
            buffer.push(row, (-1, false), "m", tags, Value::I64(1), judge);
        }
        let about = About {
            device: DeviceNews::default(),
            metrics: &[],
            via: None,
            clock: Clock::SYNCED,
        };
        let samples = buffer.samples();
        let (mut bytes, mut told, mut most) = (0, 0, 0);
        let last = buffer.refused.len() - 1;
        for (at, refusal) in buffer.refused.iter().enumerate() {
            let refused = samples.refused(refusal, (0, b"the record"), &about);
            told += refused.samples;
            if at == last {
                assert_eq!(&*refused.payload, b"the record");
            } else {
                let read = told::read(&refused.payload).unwrap();
                assert_eq!(read.samples.len(), refused.samples as usize);
                (bytes, most) = (
                    bytes + refused.payload.len(),
                    most.max(refused.payload.len()),
                );
            }
        }
        assert_eq!(told, all);
        assert!(
            (MAX_TOLD_BYTES / 2..=MAX_TOLD_BYTES).contains(&bytes),
            "{bytes}"
        );
        assert!(
            (MAX_LIST_BYTES / 2..=MAX_LIST_BYTES).contains(&most),
            "{most}"
        );
        assert!(buffer.json.bytes <= MAX_TOLD_BYTES);
    }

    #[test]
    fn a_long_text_that_comes_with_every_cell_is_kept_once() {
        use headwater_proto::codec::{Encoder, Rows};
        use headwater_proto::schema::{Column, ColumnKind, MAX_VALUE_TEXT_BYTES, Schema};
        let schema = Schema::new(1, vec![Column::new("state", ColumnKind::Str)]);
        let texts = [
            "a".repeat(MAX_VALUE_TEXT_BYTES),
            "b".repeat(LONG_TEXT_BYTES),
            "c".to_owned(),
        ];
        let mut rows = Rows::new(&schema);
        for row in 0..3_000 {
            let text = Value::Str(&texts[row % texts.len()]);
            rows.push_row(row as i64, 0, &[Some(text)]).unwrap();
        }
        let mut payload = Vec::new();
        Encoder::new(&schema)
            .encode(0, &rows, &mut payload)
            .unwrap();
        let known = super::super::Known {
            id: [0; 32],
            bytes: Arc::from(&b""[..]),
        };
        let prepared = Arc::new(Prepared::new(known, Arc::new(schema)));
        let mut buffer = Buffer::default();
        let judge = (
            TimeWindow {
                max_late_us: None,
                ..TimeWindow::default()
            },
            UnixMicros(1 << 40),
        );
        buffer
            .read_batch(&payload, &prepared, Clock::SYNCED, judge)
            .unwrap();
        assert_eq!(buffer.samples().len(), 3_000);
        for (row, sample) in buffer.samples().iter().enumerate() {
            assert_eq!(sample.value, Value::Str(&texts[row % texts.len()]));
        }
        assert!(
            buffer.text.len() < 2 * MAX_VALUE_TEXT_BYTES,
            "{}",
            buffer.text.len()
        );
    }

    #[test]
    fn samples_beyond_the_bound_are_refused_together_and_counted_each() {
        let mut buffer = Buffer::default();
        let judge = (TimeWindow::default(), UnixMicros(0));
        let tags = buffer.text("");
        buffer.refuse_part(Reason::BadPayload, "why", b"bytes", (None, None));
        let bound = |bound: usize| u32::try_from(bound).unwrap();
        let listed = bound(MAX_LISTED_SAMPLES) + 5;
        for row in 0..bound(MAX_REFUSED_SAMPLES) + listed {
            buffer.push(row, (-1, false), "m", tags, Value::I64(1), judge);
        }
        buffer.refuse_part(Reason::BadPayload, "why", b"bytes", (None, None));
        let samples: Vec<u32> = buffer.refused.iter().map(|r| r.samples).collect();
        assert_eq!(samples.len(), 2 + MAX_REFUSED_SAMPLES + 2);
        assert_eq!(samples[1 + MAX_REFUSED_SAMPLES], bound(MAX_LISTED_SAMPLES));
        assert_eq!(samples[2 + MAX_REFUSED_SAMPLES], 5);
        assert!(samples[..=MAX_REFUSED_SAMPLES].iter().all(|n| *n == 1));
        let about = About {
            device: DeviceNews::default(),
            metrics: &[],
            via: None,
            clock: Clock::SYNCED,
        };
        let all = buffer.samples();
        let rows = buffer.refused[1..buffer.refused.len() - 1]
            .iter()
            .flat_map(|refusal| {
                let refused = all.refused(refusal, (0, b""), &about);
                told::read(&refused.payload).unwrap().samples
            });
        let rows: Vec<u32> = rows.map(|told| told.row).collect();
        assert!(rows.into_iter().eq(0..bound(MAX_REFUSED_SAMPLES) + listed));
    }
}
