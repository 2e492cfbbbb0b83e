//! Core: one row of each table, as its writer gives it.

use headwater_proto::ids::{Epoch, Lane, Stream};
use headwater_proto::sample::Value;

/// How the time of a row was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimeClass {
    /// The device's clock was synchronised.
    Synced,
    /// The device's clock was not synchronised, or a receipt proved it wrong.
    Wall,
    /// Boot and uptime, dated by the offset that the collector measured for that boot.
    Offset,
    /// Dated after the fact, between two bounds.
    Bounded,
    /// It is when the collector received it: the device told no time, or a log line one that is no
    /// date.
    Received,
    /// An operator put it into the table from quarantine: the time as the device told it, and a shift.
    Replayed,
}

impl TimeClass {
    /// Its name in the lake.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Synced => "synced",
            Self::Wall => "wall",
            Self::Offset => "offset",
            Self::Bounded => "bounded",
            Self::Received => "received",
            Self::Replayed => "replayed",
        }
    }
}

/// One reading.
#[derive(Debug, Clone, Copy)]
pub struct SampleRow<'a> {
    /// The device.
    pub device_id: &'a str,
    /// The metric.
    pub metric: &'a str,
    /// When it was measured, microseconds since the Unix epoch.
    pub ts_us: i64,
    /// What was measured. `F32` is widened to a double, which keeps every number.
    pub value: Value<'a>,
    /// Promoted tag.
    pub site: Option<&'a str>,
    /// Promoted tag.
    pub device_type: Option<&'a str>,
    /// Other tags and labels: a JSON object with sorted keys.
    pub tags: Option<&'a str>,
    /// When the collector received it; cut to whole milliseconds.
    pub ingest_us: i64,
    /// Lane of the batch.
    pub lane: Lane,
    /// Epoch of the batch.
    pub epoch: Epoch,
    /// Number of the batch.
    pub seq: u64,
    /// Row within the batch.
    pub row: u32,
    /// Readings in the whole batch.
    pub batch_samples: u32,
    /// Gateway that forwarded it.
    pub via: Option<&'a str>,
    /// Largest error of `ts_us`, `None` if the clock was synchronised.
    pub time_err_ms: Option<u32>,
    /// How `ts_us` was found.
    pub time_class: TimeClass,
}

/// The numbered record that carried a row of `gaps`, `epochs` or `logs`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// Its stream.
    pub stream: Stream,
    /// Its number.
    pub seq: u64,
}

/// How the time span of a gap is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpanKind {
    /// From the missing readings themselves.
    Exact,
    /// From the readings before and after them in their stream.
    Neighbours,
    /// One side is open: it is the start of the epoch, or when the gap was named. Or both are times of receipt.
    Bounds,
    /// Nothing is missing: it is when the records came.
    None,
}

impl SpanKind {
    /// Its name in the lake.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Neighbours => "neighbours",
            Self::Bounds => "bounds",
            Self::None => "none",
        }
    }
}

/// Readings that are missing.
#[derive(Debug, Clone, PartialEq)]
pub struct GapRow {
    /// Whose readings.
    pub stream: Stream,
    /// First and last missing number, both inclusive; `None`: known by time alone.
    pub seqs: Option<(u64, u64)>,
    /// How many readings, where known.
    pub samples: Option<u64>,
    /// Start of the missing time; 0: nothing is known before them.
    pub t_first_us: i64,
    /// End of the missing time.
    pub t_last_us: i64,
    /// How these two are known.
    pub span: SpanKind,
    /// Why.
    pub reason: String,
    /// Who lost them; `sink` is ignored by the audit.
    pub stage: String,
    /// The sink that lacks them.
    pub sink: Option<String>,
    /// When the gap was recorded.
    pub at_us: i64,
    /// The record that carried it; `None` if the collector made it.
    pub record: Option<Record>,
    /// The source within the device.
    pub source: Option<String>,
}

/// Reason and stage of a gap that names what was in the lake and was pruned.
pub(crate) const PRUNED: (&str, &str) = ("pruned", "lake");

/// How far a writer's life is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EpochState {
    /// The writer said that it has every number below `next` on its disk: those that are missing are
    /// on their way, as far as anybody knows.
    Claimed,
    /// The writer lives. Every number below `next` was handed to the lake, as data or as a gap, in
    /// this flush or before: one that is missing is unexplained.
    Open,
    /// The writer stopped at `next`; some of its numbers may still be on their way or parked.
    Ended,
    /// Every number below `next` was handed to the lake, and there are no more.
    Closed,
    /// The source has no more of it; gaps name what is missing below `next`.
    Abandoned,
}

impl EpochState {
    /// Its name in the lake.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Claimed => "claimed",
            Self::Open => "open",
            Self::Ended => "ended",
            Self::Closed => "closed",
            Self::Abandoned => "abandoned",
        }
    }

    /// The state of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [
            Self::Claimed,
            Self::Open,
            Self::Ended,
            Self::Closed,
            Self::Abandoned,
        ];
        all.into_iter().find(|state| state.name() == name)
    }
}

/// What is known of one life of a writer.
#[derive(Debug, Clone, PartialEq)]
pub struct EpochRow {
    /// The stream.
    pub stream: Stream,
    /// Its first number.
    pub first_seq: u64,
    /// The number after its last: what that claims depends on the state.
    pub next_seq: u64,
    /// How far it is known.
    pub state: EpochState,
    /// Whether the writer stopped in order; `None` while open.
    pub clean: Option<bool>,
    /// Boot counter of the device.
    pub boot: Option<u64>,
    /// When the row was made.
    pub at_us: i64,
    /// The record that carried it, if one did.
    pub record: Option<Record>,
}

/// One line of a log.
#[derive(Debug, Clone, PartialEq)]
pub struct LogRow {
    /// The device.
    pub device_id: String,
    /// When it was logged.
    pub ts_us: i64,
    /// Severity.
    pub level: Option<String>,
    /// File, unit or stream.
    pub source: Option<String>,
    /// The line.
    pub message: String,
    /// When the collector received it.
    pub ingest_us: i64,
    /// Number of the line within its record.
    pub line: u32,
    /// Largest error of `ts_us`, `None` if the clock was synchronised.
    pub time_err_ms: Option<u32>,
    /// How `ts_us` was found.
    pub time_class: TimeClass,
    /// The record that carried it.
    pub record: Option<Record>,
    /// Lines of that record.
    pub record_lines: Option<u32>,
    /// The time as told, microseconds, where `ts_us` is that of receipt in its place.
    pub told_us: Option<i64>,
}

/// What was refused after custody.
#[derive(Debug, Clone, PartialEq)]
pub struct QuarantineRow {
    /// The stream of its batch.
    pub stream: Stream,
    /// The number of its batch.
    pub seq: u64,
    /// Row within the batch; `None`: the whole batch.
    pub row: Option<u32>,
    /// The metric; `None`: the whole row or batch.
    pub metric: Option<String>,
    /// Readings in the whole batch.
    pub batch_samples: Option<u32>,
    /// Readings that this row stands for; 0 for a copy of what a gap names, less than 0 for one that
    /// takes back what now stands among the samples.
    pub samples: i32,
    /// Why, as a name.
    pub reason: String,
    /// What was refused.
    pub payload: Option<Vec<u8>>,
    /// When.
    pub at_us: i64,
    /// Why, in words.
    pub cause: Option<String>,
}

/// What is known of a device.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceRow {
    /// The device.
    pub device_id: String,
    /// Promoted tag.
    pub site: Option<String>,
    /// Promoted tag.
    pub device_type: Option<String>,
    /// Other tags: a JSON object with sorted keys.
    pub tags: Option<String>,
    /// Name and version of what it runs.
    pub software: Option<String>,
    /// Gateway that forwards for it.
    pub via: Option<String>,
    /// When the row was made.
    pub at_us: i64,
}

/// Column of `samples` that holds a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ValueKind {
    /// `value_f64`.
    F64,
    /// `value_i64`.
    I64,
    /// `value_str`.
    Str,
    /// `value_bool`.
    Bool,
}

impl ValueKind {
    /// The column.
    #[must_use]
    pub const fn column(self) -> &'static str {
        match self {
            Self::F64 => "value_f64",
            Self::I64 => "value_i64",
            Self::Str => "value_str",
            Self::Bool => "value_bool",
        }
    }
}

/// Unit and kind of a metric.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricRow {
    /// The metric.
    pub metric: String,
    /// Type of the devices that report it so.
    pub device_type: Option<String>,
    /// Its unit.
    pub unit: Option<String>,
    /// Where its values stand.
    pub kind: ValueKind,
    /// When the row was made.
    pub at_us: i64,
}

/// The digest of a batch, or of a log record.
#[derive(Debug, Clone, Copy)]
pub struct DigestRow<'a> {
    /// The device.
    pub device_id: &'a str,
    /// Lane of the batch.
    pub lane: Lane,
    /// Epoch of the batch.
    pub epoch: Epoch,
    /// Number of the batch.
    pub seq: u64,
    /// Readings in the whole batch, or lines of the log record; 0 of a replay.
    pub samples: u32,
    /// Sum of the hashes of its rows in `samples` and `logs` ([`crate::row_hash`]).
    pub stored: u64,
    /// The same of its rows in `quarantine` that stand for readings; `None`: there are none.
    pub quarantined: Option<u64>,
    /// Latest time of its rows.
    pub t_last_us: i64,
    /// The replay that made the row: then it is what was added to the others of the batch.
    pub replay: Option<u64>,
}

/// Why a row was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// A partition names the years 1970 to 9999; the collector quarantines far earlier than that.
    #[error("time {0} us lies outside the years 1970 to 9999")]
    Time(i64),
    /// The number does not fit the column.
    #[error("{column} {value} does not fit its column")]
    Range {
        /// Which column.
        column: &'static str,
        /// The number.
        value: u64,
    },
}
