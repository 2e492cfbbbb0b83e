//! Core: the frozen tables of the lake, column by column.
//!
//! The order of columns never changes; new ones come at the end and may be null. Every table is
//! partitioned by `dt`, the UTC date of its [`Table::time_column`], which stands in the path alone.
//!
//! | table | one row is | date by |
//! |---|---|---|
//! | `samples` | one reading | `ts` |
//! | `logs` | one line of a log | `ts` |
//! | `quarantine` | a reading or batch that was refused after custody | `at` |
//! | `gaps` | readings that are missing, and why | `at` |
//! | `epochs` | what is known of one life of a writer; append only, rows merge | `at` |
//! | `devices` | what is known of a device; the newest row holds | `at` |
//! | `metrics` | unit and kind of a metric; the newest row holds | `at` |
//! | `digests` | the digest of a batch ([`crate::row_hash`]); rows of one batch add up | `t_last` |
//!
//! `rec_device`, `rec_lane`, `rec_epoch`, `rec_seq` name the record that carried the row, where it
//! had a number: the audit counts that number as present.

use std::sync::{Arc, OnceLock};

use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};

/// Version of the columns below; part of every file's metadata.
pub const SCHEMA_VERSION: u32 = 2;

/// First version of the columns whose flushes have a row of `digests` for each batch and log record.
pub(crate) const DIGESTS_SINCE: u32 = 2;

/// Microseconds in a day: the width of a partition.
pub const DAY_US: i64 = 86_400_000_000;

/// First instant after the years that a partition can name: 10000-01-01.
pub const MAX_TIME_US: i64 = 253_402_300_800_000_000;

/// The tables, in the order in which a flush commits them: a later one never claims what an
/// earlier one lacks.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Table {
    /// Readings.
    Samples,
    /// Log lines.
    Logs,
    /// Refused after custody.
    Quarantine,
    /// Missing readings.
    Gaps,
    /// Lives of writers.
    Epochs,
    /// Devices.
    Devices,
    /// Units.
    Metrics,
    /// Digests of batches: of rows that are all there.
    Digests,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8 text.
    Text,
    /// Bytes.
    Bytes,
    /// Signed 64-bit integer.
    I64,
    /// Signed 32-bit integer.
    I32,
    /// Double precision.
    F64,
    /// Boolean.
    Bool,
    /// Microseconds since the Unix epoch, UTC.
    Time,
}

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Whether it may be null.
    pub nullable: bool,
    /// What it means, unit included; goes into the catalog.
    pub doc: &'static str,
}

const fn must(name: &'static str, kind: Kind, doc: &'static str) -> Column {
    Column {
        name,
        kind,
        nullable: false,
        doc,
    }
}

const fn may(name: &'static str, kind: Kind, doc: &'static str) -> Column {
    Column {
        name,
        kind,
        nullable: true,
        doc,
    }
}

const SAMPLES: &[Column] = &[
    must("device_id", Kind::Text, "device that made the reading"),
    must(
        "metric",
        Kind::Text,
        "what was measured; its unit is in table metrics",
    ),
    must("ts", Kind::Time, "when it was measured, UTC"),
    may(
        "value_f64",
        Kind::F64,
        "the value of a floating-point reading; NaN is a value",
    ),
    may("value_i64", Kind::I64, "the value of an integer reading"),
    may(
        "value_str",
        Kind::Text,
        "the value of a text or state reading",
    ),
    may("value_bool", Kind::Bool, "the value of an on/off reading"),
    may("site", Kind::Text, "tag `site` of the device"),
    may("device_type", Kind::Text, "tag `device_type` of the device"),
    may(
        "tags",
        Kind::Text,
        "other tags and series labels: JSON object, keys sorted",
    ),
    must(
        "ingest_ts",
        Kind::Time,
        "when the collector received it, UTC, whole milliseconds",
    ),
    must("lane", Kind::Text, "alarm, normal, bulk or plain"),
    must(
        "epoch",
        Kind::I64,
        "life of the writer that numbered the batch",
    ),
    must(
        "seq",
        Kind::I64,
        "number of the batch within device, lane and epoch",
    ),
    must("row", Kind::I32, "row within the batch"),
    must("batch_samples", Kind::I32, "readings in the whole batch"),
    may(
        "via",
        Kind::Text,
        "gateway that forwarded the batch, if any",
    ),
    may(
        "time_err_ms",
        Kind::I64,
        "largest error of ts in ms; null: the clock was synchronised",
    ),
    must(
        "time_class",
        Kind::Text,
        "how ts was found: synced, wall (clock not known to be right), offset, bounded, received, or \
         replayed (by an operator, from quarantine)",
    ),
];

const REC_DEVICE: Column = may(
    "rec_device",
    Kind::Text,
    "device of the record that carried this",
);
const REC_LANE: Column = may("rec_lane", Kind::Text, "lane of that record");
const REC_EPOCH: Column = may("rec_epoch", Kind::I64, "epoch of that record");
const REC_SEQ: Column = may("rec_seq", Kind::I64, "number of that record");

const LOGS: &[Column] = &[
    must("device_id", Kind::Text, "device that logged the line"),
    must("ts", Kind::Time, "when, UTC"),
    may("level", Kind::Text, "severity, as far as known"),
    may("source", Kind::Text, "file, unit or stream it came from"),
    must("message", Kind::Text, "the line without its end"),
    must(
        "ingest_ts",
        Kind::Time,
        "when the collector received it, UTC, whole milliseconds",
    ),
    must("line", Kind::I32, "number of the line within its record"),
    may(
        "time_err_ms",
        Kind::I64,
        "largest error of ts in ms; null: the clock was synchronised",
    ),
    must(
        "time_class",
        Kind::Text,
        "how ts was found: synced, wall (clock not known to be right), offset, bounded or received",
    ),
    REC_DEVICE,
    REC_LANE,
    REC_EPOCH,
    REC_SEQ,
    may(
        "record_lines",
        Kind::I32,
        "lines of the whole record; null: the record has no number",
    ),
    may(
        "told_us",
        Kind::I64,
        "the time as told, where ts is that of receipt: us since boot, or if that is no date since 1970",
    ),
];

const QUARANTINE: &[Column] = &[
    must("device_id", Kind::Text, "device of the batch"),
    must("lane", Kind::Text, "lane of the batch"),
    must("epoch", Kind::I64, "epoch of the batch"),
    must("seq", Kind::I64, "number of the batch"),
    may(
        "row",
        Kind::I32,
        "row within the batch; null: the whole batch",
    ),
    may(
        "metric",
        Kind::Text,
        "metric of the reading; null: the whole row or batch",
    ),
    may(
        "batch_samples",
        Kind::I32,
        "readings in the whole batch, where known",
    ),
    must(
        "samples",
        Kind::I32,
        "readings this row stands for; 0: a copy beside a gap; negative: taken back by a replay",
    ),
    must("reason", Kind::Text, "why it was refused"),
    may(
        "payload",
        Kind::Bytes,
        "what was refused, as received; readings refused for their time as JSON",
    ),
    must("at", Kind::Time, "when it was refused, UTC"),
    may(
        "cause",
        Kind::Text,
        "why it was refused, in words, with the place where one is known",
    ),
];

const GAPS: &[Column] = &[
    must("device_id", Kind::Text, "device whose readings are missing"),
    must("lane", Kind::Text, "its lane"),
    must("epoch", Kind::I64, "its epoch"),
    may(
        "seq_first",
        Kind::I64,
        "first missing number; null: known by time alone",
    ),
    may("seq_last", Kind::I64, "last missing number, inclusive"),
    may("samples", Kind::I64, "missing readings, where known"),
    may(
        "t_first",
        Kind::Time,
        "start of the missing time; 1970-01-01: nothing is known before them",
    ),
    may("t_last", Kind::Time, "end of the missing time"),
    must("reason", Kind::Text, "why they are missing"),
    must(
        "stage",
        Kind::Text,
        "who lost them: firmware, agent, gateway, collector, sink, lake",
    ),
    may(
        "sink",
        Kind::Text,
        "the sink that lacks them, if stage is sink",
    ),
    must("at", Kind::Time, "when the gap was recorded, UTC"),
    REC_DEVICE,
    REC_LANE,
    REC_EPOCH,
    REC_SEQ,
    may(
        "source",
        Kind::Text,
        "source within the device that lost them, if one did",
    ),
    may(
        "span",
        Kind::Text,
        "how t_first and t_last are known: exact (from the missing readings), neighbours (from the \
         readings before and after them in the stream), bounds (one side open: the epoch's start, or \
         when they were named; or times of receipt), none (nothing is missing: when the records came); \
         null: a version before this column wrote it",
    ),
];

const EPOCHS: &[Column] = &[
    must("device_id", Kind::Text, "device of the writer"),
    must("lane", Kind::Text, "lane of the writer"),
    must("epoch", Kind::I64, "the epoch"),
    must(
        "first_seq",
        Kind::I64,
        "first number; the lowest of all rows holds",
    ),
    must(
        "next_seq",
        Kind::I64,
        "number after the last one known; the highest of all rows holds",
    ),
    must(
        "state",
        Kind::Text,
        "claimed, open, ended, closed or abandoned",
    ),
    may(
        "clean",
        Kind::Bool,
        "whether the writer stopped in order; all rows must say so",
    ),
    may("boot", Kind::I64, "boot counter of the device"),
    must("at", Kind::Time, "when the row was made, UTC"),
    REC_DEVICE,
    REC_LANE,
    REC_EPOCH,
    REC_SEQ,
];

const DEVICES: &[Column] = &[
    must("device_id", Kind::Text, "the device"),
    may("site", Kind::Text, "its tag `site`"),
    may("device_type", Kind::Text, "its tag `device_type`"),
    may(
        "tags",
        Kind::Text,
        "its other tags: JSON object, keys sorted",
    ),
    may("software", Kind::Text, "name and version of what it runs"),
    may("via", Kind::Text, "gateway that forwards for it, if any"),
    must("at", Kind::Time, "when the row was made, UTC"),
];

const METRICS: &[Column] = &[
    must("metric", Kind::Text, "the metric"),
    may(
        "device_type",
        Kind::Text,
        "type of the devices that report it so; null: any",
    ),
    may("unit", Kind::Text, "its unit"),
    must(
        "kind",
        Kind::Text,
        "column that holds it: value_f64, value_i64, value_str, value_bool",
    ),
    must("at", Kind::Time, "when the row was made, UTC"),
];

const DIGESTS: &[Column] = &[
    must("device_id", Kind::Text, "device of the batch"),
    must("lane", Kind::Text, "lane of the batch"),
    must("epoch", Kind::I64, "epoch of the batch"),
    must(
        "seq",
        Kind::I64,
        "number of the batch, or of the log record",
    ),
    must(
        "samples",
        Kind::I32,
        "readings of the batch, those in quarantine included, or lines of the log record; 0: of a replay",
    ),
    must(
        "digest",
        Kind::I64,
        "sum of the hashes of its rows in samples and logs, modulo 2^64; XXH64, see row_hash.rs",
    ),
    may(
        "digest_quarantined",
        Kind::I64,
        "the same of its rows in quarantine that stand for readings; null: there are none",
    ),
    must(
        "t_last",
        Kind::Time,
        "latest ts of its rows, or at of those in quarantine, UTC: prune takes it with the last of them",
    ),
    may(
        "replay",
        Kind::I64,
        "number of the replay that changed the batch: its row is what was added; null: the batch as it came",
    ),
];

impl Table {
    /// Every table, in commit order.
    pub const ALL: [Self; 8] = [
        Self::Samples,
        Self::Logs,
        Self::Quarantine,
        Self::Gaps,
        Self::Epochs,
        Self::Devices,
        Self::Metrics,
        Self::Digests,
    ];

    /// Its name, which is also its folder.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Samples => "samples",
            Self::Logs => "logs",
            Self::Quarantine => "quarantine",
            Self::Gaps => "gaps",
            Self::Epochs => "epochs",
            Self::Devices => "devices",
            Self::Metrics => "metrics",
            Self::Digests => "digests",
        }
    }

    /// The table of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.name() == name)
    }

    /// One sentence on what a row is; goes into the catalog.
    #[must_use]
    pub const fn doc(self) -> &'static str {
        match self {
            Self::Samples => "one row per reading; exactly one value column is not null",
            Self::Logs => "one row per log line",
            Self::Quarantine => "readings and batches that were refused after custody",
            Self::Gaps => "readings that are missing: range, time span, reason, stage",
            Self::Epochs => "numbers that each life of a writer used; rows of one epoch merge",
            Self::Devices => "what is known of each device; the newest row holds",
            Self::Metrics => "unit and kind of each metric; the newest row holds",
            Self::Digests => "digest of each batch and log record; rows of one batch add up",
        }
    }

    /// Its columns, in the order of the files.
    #[must_use]
    pub const fn columns(self) -> &'static [Column] {
        match self {
            Self::Samples => SAMPLES,
            Self::Logs => LOGS,
            Self::Quarantine => QUARANTINE,
            Self::Gaps => GAPS,
            Self::Epochs => EPOCHS,
            Self::Devices => DEVICES,
            Self::Metrics => METRICS,
            Self::Digests => DIGESTS,
        }
    }

    /// The column whose UTC date is the partition.
    #[must_use]
    pub const fn time_column(self) -> &'static str {
        match self {
            Self::Samples | Self::Logs => "ts",
            Self::Quarantine | Self::Gaps | Self::Epochs | Self::Devices | Self::Metrics => "at",
            Self::Digests => "t_last",
        }
    }

    /// The columns by which a file is sorted, ascending.
    #[must_use]
    pub const fn sort_columns(self, encoding: Encoding) -> &'static [&'static str] {
        match (self, encoding) {
            (Self::Samples, Encoding::Compact) => &["device_id", "ts", "metric"],
            (Self::Samples, Encoding::Compat) => &["device_id", "metric", "ts"],
            (Self::Logs, _) => &["device_id", "ts"],
            (Self::Quarantine | Self::Gaps | Self::Epochs | Self::Devices, _) => {
                &["device_id", "at"]
            }
            (Self::Metrics, _) => &["metric", "at"],
            (Self::Digests, _) => &["device_id", "t_last"],
        }
    }

    /// Place of a column among [`Self::columns`].
    #[must_use]
    pub fn column_index(self, name: &str) -> Option<usize> {
        self.columns().iter().position(|column| column.name == name)
    }

    /// Its columns for Arrow.
    #[must_use]
    pub fn arrow_schema(self) -> SchemaRef {
        static SCHEMAS: OnceLock<Vec<SchemaRef>> = OnceLock::new();
        let schemas = SCHEMAS.get_or_init(|| Self::ALL.into_iter().map(build_schema).collect());
        Arc::clone(&schemas[self as usize])
    }
}

/// How integers, times and rows are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// DELTA_BINARY_PACKED for times and integers, sorted by device and time: smallest.
    #[default]
    Compact,
    /// Dictionary and plain alone, sorted by device and metric: for readers without delta.
    Compat,
}

impl Encoding {
    /// Its name in configuration and in a file's metadata.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Compact => "compact",
            Self::Compat => "compat",
        }
    }
}

impl Kind {
    /// Its type in Arrow.
    #[must_use]
    pub fn arrow(self) -> DataType {
        match self {
            Self::Text => DataType::Utf8,
            Self::Bytes => DataType::Binary,
            Self::I64 => DataType::Int64,
            Self::I32 => DataType::Int32,
            Self::F64 => DataType::Float64,
            Self::Bool => DataType::Boolean,
            Self::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }

    /// Its type in a Delta log.
    #[must_use]
    pub const fn delta(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::Bytes => "binary",
            Self::I64 => "long",
            Self::I32 => "integer",
            Self::F64 => "double",
            Self::Bool => "boolean",
            Self::Time => "timestamp",
        }
    }
}

fn build_schema(table: Table) -> SchemaRef {
    let field = |c: &Column| Field::new(c.name, c.kind.arrow(), c.nullable);
    Arc::new(Schema::new(
        table.columns().iter().map(field).collect::<Vec<_>>(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_stand_in_commit_order() {
        for (place, table) in Table::ALL.into_iter().enumerate() {
            assert_eq!(table as usize, place);
            assert_eq!(Table::from_name(table.name()), Some(table));
            assert!(table.column_index(table.time_column()).is_some());
        }
        assert!(Table::Samples < Table::Gaps && Table::Gaps < Table::Epochs);
    }
}
