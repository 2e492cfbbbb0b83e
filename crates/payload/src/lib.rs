//! Core: every text format that devices and programs send, read in one place.
//!
//! [`read`] gives the [`Part`]s of a payload: samples, and refusals with their place and cause. A
//! part that is refused costs no other: the rest of its row, message or payload is kept. Missing
//! values are counted and are neither.
//!
//! | format | a row is | names |
//! |---|---|---|
//! | [`Format::Line`] | a line of InfluxDB line protocol ([`mod@line`]) | `measurement.field`; `measurement` for a field called `value` |
//! | [`Format::Json`] | an object, or an element of an array of them ([`json`]) | the way to the value, joined by dots |
//! | [`Format::Number`] | the payload ([`single`]) | the rule's |
//! | [`Format::Csv`] | a row of a table with a header ([`csv`]) | the header's |
//! | [`Format::Detect`] | JSON if it begins like it, otherwise a single value | |
//!
//! A byte order mark, white space around the payload, and zero bytes behind it are cut off.
//!
//! # Bounds
//! A payload gives at most [`MAX_VALUES`] parts and one refusal that stands for the rest. Reading
//! takes at most 16 MiB of memory beyond twice the payload's length: a JSON message of
//! [`MAX_VALUES`] values has a tree of 1.2 MiB and names of up to 4 MiB, and buffers grow by doubling.
//! [`MAX_KEPT_BYTES`] of it stay. Time grows with the length, whatever the bytes.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod csv;
pub mod json;
pub mod line;
mod number;
mod out;
mod part;
mod rules;
pub mod single;
mod split;
mod text;
mod time;

pub use part::{Cause, Part, Place, Refused, Sample, Tally};
pub use rules::{Rules, TimeRule};
pub use split::{End, Splitter};
pub use time::{TimeFormat, Unit, Zone};

use out::Out;
use text::Places;

/// Most parts of one payload, and most values, objects and arrays of one JSON message: 256 KiB of
/// `1,` would otherwise become millions of rows.
pub const MAX_VALUES: usize = 16 * 1024;
/// Most JSON objects and arrays within each other; deeper ones are refused. Sensors nest three
/// or four deep.
pub const MAX_DEPTH: usize = 8;
/// Longest metric name in bytes: the longest that a schema of the wire holds.
pub const MAX_METRIC_BYTES: usize = headwater_proto::schema::MAX_TEXT_BYTES;
/// Longest key and longest value of a tag in bytes: the longest that a schema of the wire holds.
pub const MAX_TAG_BYTES: usize = headwater_proto::schema::MAX_TEXT_BYTES;
/// Most tags of a sample: as many as InfluxDB's own tests use.
pub const MAX_TAGS: usize = 256;
/// Longest device id in bytes.
pub const MAX_DEVICE_BYTES: usize = 128;
/// Longest way to a JSON member in bytes, as a refusal shows it; the rest is left out.
pub const MAX_PLACE_BYTES: usize = 200;

/// Most bytes that a [`Reader`] keeps between payloads: enough for those that devices send, and little
/// for one among many connections.
pub const MAX_KEPT_BYTES: usize = 128 * 1024;

/// A text format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// InfluxDB line protocol.
    Line,
    /// JSON: one message, or one after another.
    Json,
    /// A single value: a number, `true`, `false` or a text.
    Number,
    /// Comma-separated values, also with another separator.
    Csv,
    /// [`Format::Json`] if it begins with `{`, or with `[` and `{`; otherwise [`Format::Number`].
    Detect,
}

/// Reads a payload once; [`Reader`] reads many.
pub fn read(
    format: Format,
    rules: &Rules<'_>,
    bytes: &[u8],
    visit: &mut dyn FnMut(Part<'_>),
) -> Tally {
    Reader::new(format, *rules).read(bytes, visit)
}

/// Reads payloads of one format and keeps its buffers between them.
#[derive(Debug)]
pub struct Reader<'r> {
    format: Format,
    rules: Rules<'r>,
    line: line::Buffers,
    json: json::Buffers,
    csv: csv::Buffers,
}

impl<'r> Reader<'r> {
    /// A reader of one format under one set of rules.
    #[must_use]
    pub fn new(format: Format, rules: Rules<'r>) -> Self {
        Self {
            format,
            rules,
            line: line::Buffers::default(),
            json: json::Buffers::default(),
            csv: csv::Buffers::default(),
        }
    }

    /// Its format.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    /// A splitter of streams of its format.
    #[must_use]
    pub const fn splitter(&self) -> Splitter {
        Splitter::new(self.format, &self.rules)
    }

    /// Reads a payload and hands its parts to `visit` in order.
    pub fn read(&mut self, bytes: &[u8], visit: &mut dyn FnMut(Part<'_>)) -> Tally {
        self.read_from(1, bytes, visit)
    }

    /// Reads some records of a longer text; `line` is the number of the line on which they begin.
    pub fn read_from(&mut self, line: u64, bytes: &[u8], visit: &mut dyn FnMut(Part<'_>)) -> Tally {
        let mut out = Out::new(visit);
        let (bytes, skipped) = text::trim(bytes, self.format == Format::Csv);
        let mut places = Places::new(bytes, line + skipped);
        match self.format {
            Format::Line => line::read(&mut places, &self.rules, &mut self.line, &mut out),
            Format::Csv => csv::read(&mut places, &self.rules, &mut self.csv, &mut out),
            Format::Detect if !looks_like_json(bytes) => {
                single::read(&mut places, &self.rules, &mut out);
            }
            Format::Json | Format::Detect => {
                json::read(&mut places, &self.rules, &mut self.json, &mut out);
            }
            Format::Number => single::read(&mut places, &self.rules, &mut out),
        }
        let tally = out.tally();
        if self.kept_bytes() > MAX_KEPT_BYTES {
            *self = Self::new(self.format, self.rules);
        }
        tally
    }

    /// Bytes of the buffers that it keeps: at most [`MAX_KEPT_BYTES`].
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        self.line.bytes() + self.json.bytes() + self.csv.bytes()
    }
}

fn looks_like_json(bytes: &[u8]) -> bool {
    match bytes {
        [b'{', ..] => true,
        [b'[', rest @ ..] => rest.trim_ascii_start().first() == Some(&b'{'),
        _ => false,
    }
}
