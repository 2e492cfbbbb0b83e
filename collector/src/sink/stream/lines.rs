//! Core: what a record says, as lines of JSON.
//!
//! One line stands for itself: it names its device, lane, epoch and number, so a reader needs no other line, and
//! can tell a line that came twice. `kind` is one of
//!
//! | kind | one line for | beside the identity |
//! |---|---|---|
//! | `samples` | a row | `row`, `ts`, `error_ms`, `time_class`, `tags`, `site`, `type`, `via`, `batch_samples`, `values` |
//! | `log` | a log line | `line`, `ts`, `error_ms`, `time_class`, `source`, `message`, and `part` where it is one of several |
//! | `quarantine` | a part that was refused | `part` of its record, `row`, `metric`, `samples`, `reason`, `cause`, `payload` or `payload_hex` (its first 16 KiB), `payload_bytes` of all |
//! | `gap` | a loss | `first_seq`, `last_seq`, `samples`, `from`, `to`, `span`, `reason`, `stage`, `sink` or `source`, `at` |
//! | `epoch` | a change to an epoch | `state`, `first_seq`, `next_seq`, `clean`, `boot`, `at` |
//!
//! `epoch` and `boot` are texts: 63 bits are more than a JSON number keeps in many readers. Times are RFC 3339 with
//! microseconds. Values stand in an object of their own, for a metric may be called `seq`; of those that JSON has no
//! number for, the texts `NaN`, `inf` and `-inf` stand. A row whose values are long stands in several lines.

use std::io::Write as _;

use headwater_lake::date::instant_text;
use headwater_proto::ids::{DeviceId, SeqRange, Stream};
use headwater_proto::message::Stage;

use crate::interpret::time::class_of;
use crate::interpret::told::value_json;
use crate::interpret::{EpochChange, EpochNews, Gap, Interpreted, Origin, Refused, Sample};
use crate::pipeline::envelope::{Clock, Known, TimeClass};

/// Bytes of values after which a row goes on in another line.
const VALUES_BYTES: usize = 128 << 10;
/// Bytes of a log line after which it goes on in another one.
const MESSAGE_BYTES: usize = 64 << 10;
/// Bytes of a refused part that are given; the lake has the whole.
const PAYLOAD_BYTES: usize = 16 << 10;

/// Bytes of a line at most: of a text each byte may take six, and what stands before the values is short.
pub const MAX_LINE_BYTES: usize = 900_000;

/// Gives `take` every line of a record, with its newline, and whose it is.
pub fn lines_of(item: &Interpreted<'_>, mut take: impl FnMut(&DeviceId, &[u8])) {
    let mut line = Vec::new();
    if let Some(origin) = item.origin {
        let samples: Vec<Sample<'_>> = item.samples.iter().collect();
        let batch_samples = item.batch_samples();
        for row in samples.chunk_by(|a, b| a.row == b.row) {
            let mut rest = row;
            while !rest.is_empty() {
                let count = samples_line((item, batch_samples), origin, rest, &mut line);
                take(&origin.device, &line);
                rest = &rest[count..];
            }
        }
        for log in item.lines.iter() {
            let mut rest = log.message.as_ref();
            let is_long = rest.len() > MESSAGE_BYTES;
            for part in 0_u32.. {
                let (message, more) = rest.split_at(rest.floor_char_boundary(MESSAGE_BYTES));
                let mut object = Object::begin(&mut line, "log");
                object.origin(origin);
                object.number("line", log.line);
                object.time(log.ts_us, log.clock);
                if !log.source.is_empty() {
                    object.text("source", log.source);
                }
                if is_long {
                    object.number("part", part);
                }
                object.text("message", message);
                object.end();
                take(&origin.device, &line);
                rest = more;
                if rest.is_empty() {
                    break;
                }
            }
        }
        for (part, refused) in item.refused().enumerate() {
            quarantine_line(origin, part, &refused, &mut line);
            take(&origin.device, &line);
        }
    }
    for gap in item.gaps {
        gap_line(gap, &mut line);
        take(&gap.stream.device, &line);
    }
    for news in item.epochs {
        epoch_line(item, news, &mut line);
        take(&news.stream.device, &line);
    }
}

/// Writes the line of a row, or of its first values. Returns how many.
fn samples_line(
    (item, batch_samples): (&Interpreted<'_>, u32),
    origin: &Origin,
    row: &[Sample<'_>],
    line: &mut Vec<u8>,
) -> usize {
    let mut object = Object::begin(line, "samples");
    object.origin(origin);
    let Some(first) = row.first() else {
        object.end();
        return 0;
    };
    object.number("row", first.row);
    let clock = Clock {
        class: first.class,
        offset_us: 0,
        error_ms: first.error_ms,
    };
    object.time(first.ts_us, clock);
    let device = item.news.device.unwrap_or_default();
    if !first.tags.is_empty() {
        object.raw("tags", first.tags.as_bytes());
    }
    for (key, value) in [
        ("site", device.site),
        ("type", device.device_type),
        ("via", origin.via.as_ref().map(DeviceId::as_str)),
    ] {
        if let Some(value) = value {
            object.text(key, value);
        }
    }
    object.number("batch_samples", batch_samples);
    object.key("values");
    let values_begin = object.line.len();
    object.line.push(b'{');
    let mut count = 0;
    for sample in row {
        if count > 0 {
            object.line.push(b',');
        }
        object.json(sample.metric);
        object.line.push(b':');
        object.json(&value_json(sample.value));
        count += 1;
        if object.line.len() - values_begin >= VALUES_BYTES {
            break;
        }
    }
    object.line.push(b'}');
    object.end();
    count
}

fn quarantine_line(origin: &Origin, part: usize, refused: &Refused<'_>, line: &mut Vec<u8>) {
    let mut object = Object::begin(line, "quarantine");
    object.origin(origin);
    object.number("part", part);
    if let Some(row) = refused.row {
        object.number("row", row);
    }
    if let Some(metric) = &refused.metric {
        object.text("metric", metric);
    }
    object.number("samples", refused.samples);
    object.text("reason", refused.reason.name());
    object.text("cause", &refused.cause);
    object.text("at", &instant_text(origin.at.0));
    object.number("payload_bytes", refused.payload.len());
    match std::str::from_utf8(&refused.payload) {
        Ok(text) => object.text("payload", &text[..text.floor_char_boundary(PAYLOAD_BYTES)]),
        Err(_) => {
            object.key("payload_hex");
            object.line.push(b'"');
            for byte in refused.payload.iter().take(PAYLOAD_BYTES) {
                object.write(format_args!("{byte:02x}"));
            }
            object.line.push(b'"');
        }
    }
    object.end();
}

fn gap_line(gap: &Gap, line: &mut Vec<u8>) {
    let mut object = Object::begin(line, "gap");
    object.stream(&gap.stream);
    object.range(gap.range);
    if let Some(samples) = gap.samples {
        object.number("samples", samples);
    }
    object.text("from", &instant_text(gap.span.first.0));
    object.text("to", &instant_text(gap.span.last.0));
    let span = match gap.span.known {
        Known::Exact => "exact",
        Known::Neighbours => "neighbours",
        Known::Bounds => "bounds",
        Known::Nothing => "none",
    };
    object.text("span", span);
    object.text("reason", gap.reason.name());
    object.text("stage", gap.stage.name());
    if let Some(part) = &gap.part {
        let key = if gap.stage == Stage::Sink {
            "sink"
        } else {
            "source"
        };
        object.text(key, part);
    }
    object.text("at", &instant_text(gap.at.0));
    object.end();
}

fn epoch_line(item: &Interpreted<'_>, news: &EpochNews, line: &mut Vec<u8>) {
    let mut object = Object::begin(line, "epoch");
    object.stream(&news.stream);
    let boot = match news.change {
        EpochChange::Opened { boot } => {
            object.text("state", "opened");
            boot
        }
        EpochChange::Claimed { next } => {
            object.text("state", "claimed");
            object.number("next_seq", next);
            0
        }
        EpochChange::Abandoned { next } => {
            object.text("state", "abandoned");
            object.number("next_seq", next);
            0
        }
        EpochChange::Ended { end, boot } => {
            object.text("state", "ended");
            object.number("first_seq", end.first);
            object.number("next_seq", end.next);
            object.raw("clean", if end.clean { b"true" } else { b"false" });
            boot
        }
    };
    if boot != 0 {
        object.text("boot", &boot.to_string());
    }
    object.text("at", &instant_text(item.at.0));
    object.end();
}

/// A line that is being written: one JSON object.
struct Object<'a> {
    line: &'a mut Vec<u8>,
}

impl<'a> Object<'a> {
    fn begin(line: &'a mut Vec<u8>, kind: &str) -> Self {
        line.clear();
        let mut object = Self { line };
        object.line.extend_from_slice(b"{\"kind\":");
        object.json(kind);
        object
    }

    fn end(self) {
        self.line.extend_from_slice(b"}\n");
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        // Memory does not fail.
        let _ = self.line.write_fmt(text);
    }

    fn json<T: serde::Serialize + ?Sized>(&mut self, value: &T) {
        // Texts and numbers have no key that is no text, and memory does not fail.
        let _ = serde_json::to_writer(&mut *self.line, value);
    }

    /// Names what follows; `key` needs no escape.
    fn key(&mut self, key: &str) {
        self.write(format_args!(",\"{key}\":"));
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        self.json(value);
    }

    fn number(&mut self, key: &str, value: impl std::fmt::Display) {
        self.write(format_args!(",\"{key}\":{value}"));
    }

    fn raw(&mut self, key: &str, json: &[u8]) {
        self.key(key);
        self.line.extend_from_slice(json);
    }

    fn stream(&mut self, stream: &Stream) {
        self.text("device", stream.device.as_str());
        self.text("lane", stream.lane.name());
        self.number("epoch", format_args!("\"{}\"", stream.epoch.get()));
    }

    fn origin(&mut self, origin: &Origin) {
        self.text("device", origin.device.as_str());
        self.text("lane", origin.lane.name());
        self.number("epoch", format_args!("\"{}\"", origin.epoch.get()));
        self.number("seq", origin.seq);
    }

    fn range(&mut self, range: Option<SeqRange>) {
        if let Some(range) = range {
            self.number("first_seq", range.first);
            self.number("last_seq", range.next - 1);
        }
    }

    fn time(&mut self, ts_us: i64, clock: Clock) {
        self.text("ts", &instant_text(ts_us));
        if let Some(error_ms) = clock.error_ms {
            self.number("error_ms", error_ms);
        }
        if clock.class != TimeClass::Synced {
            self.text("time_class", class_of(clock.class).name());
        }
    }
}
