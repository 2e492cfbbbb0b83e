//! Core: the hash of a row, from what its table holds. The digest of a batch is the sum of its rows'
//! hashes, modulo 2^64, so that the order of rows does not matter.
//!
//! A hash is XXH64 with seed 0 over these bytes, one field after the other:
//!
//! | row of `samples` | row of `logs` | row of `quarantine` |
//! |---|---|---|
//! | byte 1 | byte 2 | byte 3 |
//! | `row`: number | `line`: number | `row`: optional number |
//! | `ts`: number | `ts`: number | `at`: number |
//! | value, by its column | `told_us`: optional number | `samples`: number |
//! | `time_err_ms`: optional number | `time_err_ms`: optional number | `metric`: text |
//! | `time_class`: text | `time_class`: text | `reason`: text |
//! | `metric`: text | `level`: text | `payload`: text |
//! | `tags`: text | `source`: text | |
//! | `site`: text | `message`: text | |
//! | `device_type`: text | | |
//!
//! | field | bytes |
//! |---|---|
//! | number | 8, signed, least significant first; a time is in microseconds since 1970 |
//! | optional number | byte 0 if null; byte 1 and the number if not |
//! | text, bytes | 4: length, least significant first, then as many; if null 4 of 0xff |
//! | `value_f64` | byte 0, then the 8 of IEEE 754, least significant first |
//! | `value_i64` | byte 1, then a number |
//! | `value_str` | byte 2, then a text |
//! | `value_bool` | byte 3, then a byte 0 or 1 |
//! | not exactly one value | byte 4 |
//!
//! Device, lane, epoch and number of the batch are the key of its row in `digests` and not hashed.
//! Rows of `quarantine` that stand for no sample (`samples` 0) are part of no digest, nor is the column
//! `cause`, which is for people. XXH64 is no cipher: it notices what is changed by whoever cannot
//! rewrite table `digests` as well.

use headwater_proto::sample::Value;
use twox_hash::XxHash64;

use crate::read::{Columns, ReadError, cell, cell_bool, text};

const SEED: u64 = 0;

/// Stands in place of a text's length if it is null.
const NULL: [u8; 4] = [0xff; 4];

/// What is hashed of a row of `samples`.
#[derive(Debug, Clone, Copy)]
pub struct SampleFields<'a> {
    /// Row within the batch.
    pub row: u32,
    /// Its time, Unix microseconds.
    pub ts_us: i64,
    /// Its value; an `F32` counts as the double that the table holds. `None`: there is not exactly one.
    pub value: Option<Value<'a>>,
    /// Largest error of the time.
    pub time_err_ms: Option<i64>,
    /// How the time was found.
    pub time_class: &'a str,
    /// The metric.
    pub metric: &'a str,
    /// Other tags and labels.
    pub tags: Option<&'a str>,
    /// Promoted tag.
    pub site: Option<&'a str>,
    /// Promoted tag.
    pub device_type: Option<&'a str>,
}

/// What is hashed of a row of `logs`.
#[derive(Debug, Clone, Copy)]
pub struct LineFields<'a> {
    /// Number of the line within its record.
    pub line: u32,
    /// Its time, Unix microseconds.
    pub ts_us: i64,
    /// The time as told, if `ts_us` is that of receipt.
    pub told_us: Option<i64>,
    /// Largest error of the time.
    pub time_err_ms: Option<i64>,
    /// How the time was found.
    pub time_class: &'a str,
    /// Severity.
    pub level: Option<&'a str>,
    /// Where it came from.
    pub source: Option<&'a str>,
    /// The line.
    pub message: &'a str,
}

/// What is hashed of a row of `quarantine`.
#[derive(Debug, Clone, Copy)]
pub struct RefusedFields<'a> {
    /// Row within the batch.
    pub row: Option<u32>,
    /// When it was refused, Unix microseconds.
    pub at_us: i64,
    /// Samples that it stands for.
    pub samples: i32,
    /// The metric.
    pub metric: Option<&'a str>,
    /// Why.
    pub reason: &'a str,
    /// What was refused.
    pub payload: Option<&'a [u8]>,
}

/// Hashes rows; keeps its buffer from one to the next.
#[derive(Debug, Default)]
pub struct RowHasher {
    bytes: Vec<u8>,
}

impl RowHasher {
    /// The hash of a row of `samples`.
    pub fn sample(&mut self, fields: &SampleFields<'_>) -> u64 {
        self.begin(1);
        self.number(fields.row.into());
        self.number(fields.ts_us);
        self.value(fields.value);
        self.optional(fields.time_err_ms);
        self.text(Some(fields.time_class));
        self.text(Some(fields.metric));
        self.text(fields.tags);
        self.text(fields.site);
        self.text(fields.device_type);
        self.end()
    }

    /// The hash of a row of `logs`.
    pub fn line(&mut self, fields: &LineFields<'_>) -> u64 {
        self.begin(2);
        self.number(fields.line.into());
        self.number(fields.ts_us);
        self.optional(fields.told_us);
        self.optional(fields.time_err_ms);
        self.text(Some(fields.time_class));
        self.text(fields.level);
        self.text(fields.source);
        self.text(Some(fields.message));
        self.end()
    }

    /// The hash of a row of `quarantine`.
    pub fn refused(&mut self, fields: &RefusedFields<'_>) -> u64 {
        self.begin(3);
        self.optional(fields.row.map(i64::from));
        self.number(fields.at_us);
        self.number(fields.samples.into());
        self.text(fields.metric);
        self.text(Some(fields.reason));
        self.raw(fields.payload);
        self.end()
    }

    fn begin(&mut self, form: u8) {
        self.bytes.clear();
        self.bytes.push(form);
    }

    fn end(&self) -> u64 {
        XxHash64::oneshot(SEED, &self.bytes)
    }

    fn number(&mut self, number: i64) {
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    fn optional(&mut self, number: Option<i64>) {
        self.bytes.push(number.is_some().into());
        if let Some(number) = number {
            self.number(number);
        }
    }

    fn text(&mut self, text: Option<&str>) {
        self.raw(text.map(str::as_bytes));
    }

    fn raw(&mut self, raw: Option<&[u8]>) {
        let Some(raw) = raw else {
            self.bytes.extend_from_slice(&NULL);
            return;
        };
        // No record is as large as 4 GiB.
        let len = u32::try_from(raw.len()).unwrap_or(u32::MAX - 1);
        self.bytes.extend_from_slice(&len.to_le_bytes());
        self.bytes.extend_from_slice(raw);
    }

    fn value(&mut self, value: Option<Value<'_>>) {
        let (kind, bits) = match value {
            Some(Value::F64(value)) => (0, value.to_bits()),
            Some(Value::F32(value)) => (0, f64::from(value).to_bits()),
            Some(Value::I64(value)) => (1, value.cast_unsigned()),
            Some(Value::Str(value)) => {
                self.bytes.push(2);
                return self.text(Some(value));
            }
            Some(Value::Bool(value)) => return self.bytes.extend_from_slice(&[3, value.into()]),
            None => return self.bytes.push(4),
        };
        self.bytes.push(kind);
        self.bytes.extend_from_slice(&bits.to_le_bytes());
    }
}

/// Columns of `samples` that are hashed.
pub(crate) const SAMPLE_COLUMNS: [&str; 12] = [
    "row",
    "ts",
    "value_f64",
    "value_i64",
    "value_str",
    "value_bool",
    "time_err_ms",
    "time_class",
    "metric",
    "tags",
    "site",
    "device_type",
];

/// Columns of `logs` that are hashed.
pub(crate) const LINE_COLUMNS: [&str; 8] = [
    "line",
    "ts",
    "told_us",
    "time_err_ms",
    "time_class",
    "level",
    "source",
    "message",
];

/// Columns of `quarantine` that are hashed.
pub(crate) const REFUSED_COLUMNS: [&str; 6] =
    ["row", "at", "samples", "metric", "reason", "payload"];

type Texts<'a> = &'a arrow_array::StringArray;
type Longs<'a> = &'a arrow_array::Int64Array;
type Ints<'a> = &'a arrow_array::Int32Array;
type Times<'a> = &'a arrow_array::TimestampMicrosecondArray;

/// Rows of `samples` as a file has them.
pub(crate) struct SampleHashes<'a> {
    rows: Ints<'a>,
    times: Times<'a>,
    floats: &'a arrow_array::Float64Array,
    longs: Longs<'a>,
    words: Texts<'a>,
    bools: &'a arrow_array::BooleanArray,
    errors: Longs<'a>,
    classes: Texts<'a>,
    metrics: Texts<'a>,
    tags: Texts<'a>,
    sites: Texts<'a>,
    types: Texts<'a>,
}

impl<'a> SampleHashes<'a> {
    pub(crate) fn of(batch: &'a Columns) -> Result<Self, ReadError> {
        Ok(Self {
            rows: batch.ints("row")?,
            times: batch.times("ts")?,
            floats: batch.doubles("value_f64")?,
            longs: batch.longs("value_i64")?,
            words: batch.texts("value_str")?,
            bools: batch.bools("value_bool")?,
            errors: batch.longs("time_err_ms")?,
            classes: batch.texts("time_class")?,
            metrics: batch.texts("metric")?,
            tags: batch.texts("tags")?,
            sites: batch.texts("site")?,
            types: batch.texts("device_type")?,
        })
    }

    pub(crate) fn hash(&self, hasher: &mut RowHasher, row: usize) -> u64 {
        hasher.sample(&SampleFields {
            row: cell(self.rows, row).unwrap_or_default().cast_unsigned(),
            ts_us: cell(self.times, row).unwrap_or_default(),
            value: self.value(row),
            time_err_ms: cell(self.errors, row),
            time_class: text(self.classes, row).unwrap_or_default(),
            metric: text(self.metrics, row).unwrap_or_default(),
            tags: text(self.tags, row),
            site: text(self.sites, row),
            device_type: text(self.types, row),
        })
    }

    fn value(&self, row: usize) -> Option<Value<'a>> {
        let values = [
            cell(self.floats, row).map(Value::F64),
            cell(self.longs, row).map(Value::I64),
            text(self.words, row).map(Value::Str),
            cell_bool(self.bools, row).map(Value::Bool),
        ];
        let mut there = values.into_iter().flatten();
        let first = there.next();
        first.filter(|_| there.next().is_none())
    }
}

/// Rows of `logs` as a file has them.
pub(crate) struct LineHashes<'a> {
    lines: Ints<'a>,
    times: Times<'a>,
    told: Option<Longs<'a>>,
    errors: Longs<'a>,
    classes: Texts<'a>,
    levels: Texts<'a>,
    sources: Texts<'a>,
    messages: Texts<'a>,
}

impl<'a> LineHashes<'a> {
    pub(crate) fn of(batch: &'a Columns) -> Result<Self, ReadError> {
        Ok(Self {
            lines: batch.ints("line")?,
            times: batch.times("ts")?,
            // A column that came later: a file may lack it.
            told: batch.longs("told_us").ok(),
            errors: batch.longs("time_err_ms")?,
            classes: batch.texts("time_class")?,
            levels: batch.texts("level")?,
            sources: batch.texts("source")?,
            messages: batch.texts("message")?,
        })
    }

    pub(crate) fn hash(&self, hasher: &mut RowHasher, row: usize) -> u64 {
        hasher.line(&LineFields {
            line: cell(self.lines, row).unwrap_or_default().cast_unsigned(),
            ts_us: cell(self.times, row).unwrap_or_default(),
            told_us: self.told.and_then(|told| cell(told, row)),
            time_err_ms: cell(self.errors, row),
            time_class: text(self.classes, row).unwrap_or_default(),
            level: text(self.levels, row),
            source: text(self.sources, row),
            message: text(self.messages, row).unwrap_or_default(),
        })
    }
}

/// The hash of a row of `quarantine` as a file has it.
pub(crate) fn refused_hash(
    batch: &Columns,
    hasher: &mut RowHasher,
    row: usize,
) -> Result<u64, ReadError> {
    Ok(hasher.refused(&RefusedFields {
        row: cell(batch.ints("row")?, row).map(i32::cast_unsigned),
        at_us: cell(batch.times("at")?, row).unwrap_or_default(),
        samples: cell(batch.ints("samples")?, row).unwrap_or_default(),
        metric: text(batch.texts("metric")?, row),
        reason: text(batch.texts("reason")?, row).unwrap_or_default(),
        payload: batch.bytes("payload", row)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: SampleFields<'_> = SampleFields {
        row: 2,
        ts_us: 1_795_305_600_000_001,
        value: Some(Value::F64(-0.5)),
        time_err_ms: Some(7),
        time_class: "wall",
        metric: "temp",
        tags: Some("{\"a\":\"b\"}"),
        site: None,
        device_type: Some("pump"),
    };

    const LINE: LineFields<'_> = LineFields {
        line: 1,
        ts_us: 5,
        told_us: None,
        time_err_ms: None,
        time_class: "synced",
        level: None,
        source: Some("a.log"),
        message: "läuft",
    };

    const REFUSED: RefusedFields<'_> = RefusedFields {
        row: None,
        at_us: 6,
        samples: -1,
        metric: None,
        reason: "bad_payload",
        payload: Some(&[0, 255]),
    };

    /// The hashes come from another implementation, after the specification of XXH64.
    #[test]
    fn the_bytes_that_are_hashed_never_change() {
        let mut hasher = RowHasher::default();
        let hash = hasher.sample(&SAMPLE);
        let mut bytes = vec![1, 2, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend(1_795_305_600_000_001_i64.to_le_bytes());
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 0xe0, 0xbf]);
        bytes.extend([1, 7, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend(b"\x04\0\0\0wall\x04\0\0\0temp\x09\0\0\0{\"a\":\"b\"}");
        bytes.extend(b"\xff\xff\xff\xff\x04\0\0\0pump");
        assert_eq!(hasher.bytes, bytes);
        assert_eq!(hash, GOLDEN[0], "{hash:#x}");

        let hash = hasher.line(&LINE);
        let mut bytes = vec![2, 1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend(b"\x06\0\0\0synced\xff\xff\xff\xff\x05\0\0\0a.log\x06\0\0\0l\xc3\xa4uft");
        assert_eq!(hasher.bytes, bytes);
        assert_eq!(hash, GOLDEN[1], "{hash:#x}");

        let hash = hasher.refused(&REFUSED);
        let mut bytes = vec![3, 0, 6, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend([0xff; 12]);
        bytes.extend(b"\x0b\0\0\0bad_payload\x02\0\0\0\0\xff");
        assert_eq!(hasher.bytes, bytes);
        assert_eq!(hash, GOLDEN[2], "{hash:#x}");
    }

    const GOLDEN: [u64; 3] = [
        0x5941_a7bc_1ba1_e3c3,
        0xb3a1_1603_dfe5_7fee,
        0xb1cd_6b2b_4086_d826,
    ];

    #[test]
    fn each_kind_of_value_has_bytes_of_its_own() {
        let mut hasher = RowHasher::default();
        let mut of = |value| {
            hasher.begin(9);
            hasher.value(value);
            hasher.bytes[1..].to_vec()
        };
        assert_eq!(of(Some(Value::F32(1.0))), of(Some(Value::F64(1.0))));
        assert_eq!(
            of(Some(Value::I64(-2))),
            [1, 0xfe, 255, 255, 255, 255, 255, 255, 255]
        );
        assert_eq!(of(Some(Value::Str("a"))), [2, 1, 0, 0, 0, b'a']);
        assert_eq!(of(Some(Value::Bool(true))), [3, 1]);
        assert_eq!(of(None), [4]);
    }
}
