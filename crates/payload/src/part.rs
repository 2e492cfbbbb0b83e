//! Core: the parts of a payload: samples, and refusals with their place and cause.

use core::fmt;

use headwater_proto::sample::Value;
use headwater_proto::time::UnixMicros;

/// One thing that a payload holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Part<'a> {
    /// A value of a metric.
    Sample(Sample<'a>),
    /// Bytes that give no sample.
    Refused(Refused<'a>),
}

/// One value of one metric. The samples of one row follow each other and share device, time and
/// tags.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample<'a> {
    /// Number of its row within the payload, from 0 without holes.
    pub row: u32,
    /// The line on which its row begins, from 1; in JSON, its message or element.
    pub line: u64,
    /// The device that the payload names, if it names devices.
    pub device: Option<&'a str>,
    /// Its time, if the payload gives one.
    pub time: Option<UnixMicros>,
    /// Keys and values that tell series apart, in the order of the payload.
    pub tags: &'a [(&'a str, &'a str)],
    /// The metric's name: 1 to [`MAX_METRIC_BYTES`](crate::MAX_METRIC_BYTES) bytes.
    pub metric: &'a str,
    /// The value. A double is never NaN or infinite.
    pub value: Value<'a>,
    /// The unit that the payload gives.
    pub unit: Option<&'a str>,
}

/// Bytes of a payload that give no sample. They count as one sample that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused<'a> {
    /// Where they stand, in words.
    pub place: Place<'a>,
    /// Why they are refused.
    pub cause: Cause,
    /// The bytes as they came.
    pub bytes: &'a [u8],
}

/// A place in a payload, as a person would look for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// The payload as a whole.
    Payload,
    /// Line and column in characters, both from 1.
    At {
        /// The line.
        line: u64,
        /// The column.
        column: u64,
    },
    /// A member of a JSON message.
    Path {
        /// The line on which the message begins, from 1.
        line: u64,
        /// The way to the member, `$` first; cut at
        /// [`MAX_PLACE_BYTES`](crate::MAX_PLACE_BYTES).
        path: &'a str,
    },
    /// A cell of a table.
    Cell {
        /// The line on which its row begins, from 1.
        line: u64,
        /// Number of the column, from 1.
        column: u64,
        /// Name of the column.
        name: &'a str,
    },
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Payload => f.write_str("the payload"),
            Self::At { line, column } => write!(f, "line {line}, column {column}"),
            Self::Path { line: 1, path } => f.write_str(path),
            Self::Path { line, path } => write!(f, "line {line}, {path}"),
            Self::Cell { line, column, name } => {
                write!(f, "line {line}, column {column} ({name})")
            }
        }
    }
}

/// Why bytes are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// Bytes that are not UTF-8; their encoding is unknown, so nothing is guessed.
    #[error("not UTF-8")]
    NotUtf8,
    /// The structure of JSON is broken.
    #[error("not JSON: {0} is expected")]
    Json(&'static str),
    /// JSON that names no values.
    #[error("neither a JSON object nor an array of objects")]
    NotAnObject,
    /// A text with an invalid escape, half a surrogate pair or a raw control character.
    #[error("not a valid JSON text")]
    JsonText,
    /// A part that must be there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// Something else than expected.
    #[error("not {0}")]
    Not(&'static str),
    /// Neither a double nor a signed 64-bit integer holds the number exactly.
    #[error("neither a double nor a signed 64-bit integer holds this number")]
    Number,
    /// Two values under one name.
    #[error("two values of one name")]
    TwoOfOneName,
    /// Nested deeper than [`MAX_DEPTH`](crate::MAX_DEPTH).
    #[error("nested deeper than {} objects and arrays", crate::MAX_DEPTH)]
    Depth,
    /// A name of the wrong length.
    #[error("a name of {0} bytes; 1 to {max} are taken", max = crate::MAX_METRIC_BYTES)]
    Name(usize),
    /// A key or value of a tag of the wrong length.
    #[error(
        "a tag of {key} and {value} bytes; keys of 1 to {max} and values of at most {max} are taken",
        max = crate::MAX_TAG_BYTES
    )]
    Tag {
        /// Bytes of the key.
        key: usize,
        /// Bytes of the value.
        value: usize,
    },
    /// More tags than [`MAX_TAGS`](crate::MAX_TAGS).
    #[error("more than {} tags", crate::MAX_TAGS)]
    Tags,
    /// Two tags under one key.
    #[error("two tags of one key")]
    TwoTags,
    /// More parts than [`MAX_VALUES`](crate::MAX_VALUES).
    #[error("more than {} values", crate::MAX_VALUES)]
    Values,
    /// A control character in a name or tag of line protocol.
    #[error("a control character in a name or tag")]
    Control,
    /// Something follows a closing quote that may not.
    #[error("text after the closing quote")]
    AfterQuote,
    /// A negative Unix time.
    #[error("a time before 1970 is impossible")]
    Before1970,
    /// No unit makes the number a time of our days.
    #[error(
        "not a time between 2000 and 2100, in seconds, milliseconds, microseconds or nanoseconds"
    )]
    Magnitude,
    /// A row of the wrong number of cells.
    #[error("the row has {has} cells, the header {wants} columns")]
    Cells {
        /// Cells of the row.
        has: usize,
        /// Columns of the header.
        wants: usize,
    },
    /// A column of a header makes no sense.
    #[error("the header's column {0}")]
    Header(&'static str),
    /// A member of a message by devices is no device id.
    #[error(
        "a device id has 1 to {} bytes without control characters",
        crate::MAX_DEVICE_BYTES
    )]
    Device,
}

/// Counts of one payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Samples.
    pub samples: u32,
    /// Refused parts.
    pub refused: u32,
    /// Values that were missing: `null`, `NaN` and their like. They are no samples and no refusals.
    pub missing: u32,
    /// Rows that gave at least one sample.
    pub rows: u32,
}
