//! Core: a numbered batch as samples with names, times and tags.
//!
//! A batch is read whole into a buffer before any sink sees a row of it: a batch that turns out to be
//! damaged in its last byte must leave nothing behind. The buffer is used again from record to record,
//! and its texts are stretches of one string.

use std::borrow::Cow;
use std::fmt;
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
use crate::pipeline::envelope::{Clock, Reason, TimeClass};
use crate::pipeline::rules::TimeWindow;

/// Samples of one record that are refused one by one; the rest stand together, with the record's
/// bytes. A batch may hold a million, and each takes a row of some 200 bytes in quarantine.
pub(super) const MAX_REFUSED_SAMPLES: usize = 1_000;

/// A stretch of the buffer's text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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
    /// A sample in words.
    Sample(Entry),
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

    pub(super) fn refused(&self, refusal: &Refusal, all: u32, bytes: &'a [u8]) -> Refused<'a> {
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
                Payload::Sample(entry) => {
                    let sample = self.sample(entry);
                    let words = format!("{} us, {:?}", sample.ts_us, sample.value);
                    words.into_bytes().into()
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
    /// Samples refused for their time, and the refusal that stands for those beyond the bound.
    untimely: (usize, Option<usize>),
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
        self.untimely = (0, None);
    }

    pub(super) fn samples(&self) -> Samples<'_> {
        Samples {
            text: &self.text,
            parts: &self.parts,
            entries: &self.entries,
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
            doubt: None,
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
        let metric = self.text(metric);
        let doubt = doubt(&judge.0, time_us, judge.1);
        let entry = Entry {
            row,
            received,
            time_us,
            metric,
            tags,
            value: cell(&mut self.text, value),
        };
        self.place(entry, doubt);
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

    fn place(&mut self, entry: Entry, doubt: Option<Doubt>) {
        let Some(doubt) = doubt else {
            self.entries.push(entry);
            return;
        };
        let (untimely, rest) = self.untimely;
        if let Some(rest) = rest.and_then(|at| self.refused.get_mut(at)) {
            rest.samples += 1;
            return;
        }
        let told = untimely < MAX_REFUSED_SAMPLES;
        let rest = (!told).then_some(self.refused.len());
        self.untimely = (untimely + 1, rest);
        self.refused.push(Refusal {
            row: told.then_some(entry.row),
            metric: told.then_some(entry.metric),
            of: None,
            samples: 1,
            reason: doubt.reason(),
            cause: Cause::Time(doubt),
            payload: if told {
                Payload::Sample(entry)
            } else {
                Payload::Whole
            },
        });
    }
}

/// A record's text stays far below 4 GiB: its frame is at most 1 MiB and names are bounded.
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
    /// Why its time is not believed.
    doubt: Option<Doubt>,
}

impl RowVisitor for Visitor<'_> {
    fn row(&mut self, row: u32, time_us: i64, series: u32) {
        let tags = self.tags.get(series as usize).copied().unwrap_or_default();
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
            value: cell(&mut self.buffer.text, value),
        };
        self.buffer.place(entry, self.doubt);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_beyond_the_bound_are_refused_together_and_counted_each() {
        let mut buffer = Buffer::default();
        let judge = (TimeWindow::default(), UnixMicros(0));
        let tags = buffer.text("");
        buffer.refuse_part(Reason::BadPayload, "why", b"bytes", (None, None));
        for row in 0..3_000 {
            buffer.push(row, (-1, false), "m", tags, Value::I64(1), judge);
        }
        buffer.refuse_part(Reason::BadPayload, "why", b"bytes", (None, None));
        let samples: Vec<u32> = buffer.refused.iter().map(|r| r.samples).collect();
        assert_eq!(samples.len(), 2 + MAX_REFUSED_SAMPLES + 1);
        assert_eq!(samples[1 + MAX_REFUSED_SAMPLES], 2_000);
        assert_eq!(samples.iter().sum::<u32>(), 3_002);
    }
}
