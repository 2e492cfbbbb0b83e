//! Core: rows of the lake as they are read back, for those who compare them with their origin.

use headwater_proto::sample::Value;

use crate::date::day_of_date;
use crate::delta::LogError;
use crate::head::load_log;
use crate::read::{Columns, ReadError, Reader, cell, text};
use crate::schema::{DAY_US, Table};
use crate::store::Store;

/// Why a table could not be scanned.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A file that the log names cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// One reading with its identity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading<'a> {
    /// The device.
    pub device_id: &'a str,
    /// The metric.
    pub metric: &'a str,
    /// When it was measured, Unix µs.
    pub ts_us: i64,
    /// Its value; a single-precision number comes as the double that holds it.
    pub value: Value<'a>,
    /// Other tags and labels as JSON.
    pub tags: Option<&'a str>,
    /// Lane of its batch.
    pub lane: &'a str,
    /// Epoch of its batch.
    pub epoch: i64,
    /// Number of its batch.
    pub seq: i64,
    /// Row within the batch.
    pub row: i32,
}

/// A named loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Loss<'a> {
    /// The device.
    pub device_id: &'a str,
    /// The lane.
    pub lane: &'a str,
    /// The epoch.
    pub epoch: i64,
    /// First and last missing number, inclusive; `None`: known by time alone.
    pub seqs: Option<(i64, i64)>,
    /// How many readings, where known.
    pub samples: Option<i64>,
    /// Start of the missing time, Unix µs.
    pub t_first_us: Option<i64>,
    /// End of the missing time, Unix µs.
    pub t_last_us: Option<i64>,
    /// Why.
    pub reason: &'a str,
    /// Who lost them.
    pub stage: &'a str,
}

const SAMPLE_COLUMNS: [&str; 12] = [
    "device_id",
    "metric",
    "ts",
    "value_f64",
    "value_i64",
    "value_str",
    "value_bool",
    "tags",
    "lane",
    "epoch",
    "seq",
    "row",
];
const GAP_COLUMNS: [&str; 10] = [
    "device_id",
    "lane",
    "epoch",
    "seq_first",
    "seq_last",
    "samples",
    "t_first",
    "t_last",
    "reason",
    "stage",
];

/// Visits every row of `samples`, file by file. Memory: one batch of rows.
///
/// # Errors
/// [`ScanError`] when the log or a file cannot be read.
pub fn samples(store: &dyn Store, mut visit: impl FnMut(Reading<'_>)) -> Result<(), ScanError> {
    samples_of(store, i64::MIN, |reading| {
        visit(reading);
        Ok(())
    })
}

/// As [`samples`], only of files whose date ends after `since_us`; rows before it may be among them.
/// An error of `visit` ends the scan.
///
/// # Errors
/// When the log or a file cannot be read, and those of `visit`.
pub fn samples_since<E: From<LogError> + From<ReadError>>(
    store: &dyn Store,
    since_us: i64,
    visit: impl FnMut(Reading<'_>) -> Result<(), E>,
) -> Result<(), E> {
    samples_of(store, since_us.div_euclid(DAY_US), visit)
}

fn samples_of<E: From<LogError> + From<ReadError>>(
    store: &dyn Store,
    first_day: i64,
    mut visit: impl FnMut(Reading<'_>) -> Result<(), E>,
) -> Result<(), E> {
    batches(store, Table::Samples, first_day, &SAMPLE_COLUMNS, |batch| {
        let (device, metric) = (batch.texts("device_id")?, batch.texts("metric")?);
        let (ts, tags, lane) = (
            batch.times("ts")?,
            batch.texts("tags")?,
            batch.texts("lane")?,
        );
        let (epoch, seq, row) = (
            batch.longs("epoch")?,
            batch.longs("seq")?,
            batch.ints("row")?,
        );
        let (doubles, longs) = (batch.doubles("value_f64")?, batch.longs("value_i64")?);
        let (texts, bools) = (batch.texts("value_str")?, batch.bools("value_bool")?);
        for at in 0..batch.rows() {
            let value = if let Some(value) = cell(doubles, at) {
                Value::F64(value)
            } else if let Some(value) = cell(longs, at) {
                Value::I64(value)
            } else if let Some(value) = text(texts, at) {
                Value::Str(value)
            } else {
                Value::Bool(bools.value(at))
            };
            visit(Reading {
                device_id: device.value(at),
                metric: metric.value(at),
                ts_us: ts.value(at),
                value,
                tags: text(tags, at),
                lane: lane.value(at),
                epoch: epoch.value(at),
                seq: seq.value(at),
                row: row.value(at),
            })?;
        }
        Ok(())
    })
}

/// Visits every row of `gaps`.
///
/// # Errors
/// [`ScanError`] when the log or a file cannot be read.
pub fn gaps(store: &dyn Store, mut visit: impl FnMut(Loss<'_>)) -> Result<(), ScanError> {
    batches(store, Table::Gaps, i64::MIN, &GAP_COLUMNS, |batch| {
        let (device, lane) = (batch.texts("device_id")?, batch.texts("lane")?);
        let (epoch, samples) = (batch.longs("epoch")?, batch.longs("samples")?);
        let (first, last) = (batch.longs("seq_first")?, batch.longs("seq_last")?);
        let (t_first, t_last) = (batch.times("t_first")?, batch.times("t_last")?);
        let (reason, stage) = (batch.texts("reason")?, batch.texts("stage")?);
        for at in 0..batch.rows() {
            visit(Loss {
                device_id: device.value(at),
                lane: lane.value(at),
                epoch: epoch.value(at),
                seqs: cell(first, at).zip(cell(last, at)),
                samples: cell(samples, at),
                t_first_us: cell(t_first, at),
                t_last_us: cell(t_last, at),
                reason: reason.value(at),
                stage: stage.value(at),
            });
        }
        Ok(())
    })
}

/// Visits the message of every row of `logs`, in the order of the table's files.
///
/// # Errors
/// [`ScanError`] when the log or a file cannot be read.
pub fn messages(store: &dyn Store, mut visit: impl FnMut(&str)) -> Result<(), ScanError> {
    batches(store, Table::Logs, i64::MIN, &["message"], |batch| {
        let messages = batch.texts("message")?;
        (0..batch.rows()).for_each(|at| visit(messages.value(at)));
        Ok(())
    })
}

fn batches<E: From<LogError> + From<ReadError>>(
    store: &dyn Store,
    table: Table,
    first_day: i64,
    columns: &[&str],
    mut visit: impl FnMut(&Columns) -> Result<(), E>,
) -> Result<(), E> {
    let log = load_log(store, table)?;
    log.files(store, |add| {
        // A date that nobody can read is no reason to leave rows out.
        if day_of_date(&add.dt).is_some_and(|day| day < first_day) {
            return Ok(());
        }
        let path = format!("{}/{}", table.name(), add.path);
        let mut reader = Reader::open(store, &path, columns)?;
        while let Some(batch) = reader.next_batch()? {
            visit(&batch)?;
        }
        Ok::<(), E>(())
    })
}

#[cfg(test)]
mod tests {
    use headwater_proto::ids::{DeviceId, Epoch, JournalId, Lane, Stream};

    use super::*;
    use crate::{
        Claim, Flush, GapRow, Lake, MemStore, Rows, SampleRow, Settings, SpanKind, TimeClass,
    };

    #[test]
    fn rows_come_back_as_they_were_written() {
        let store = MemStore::default();
        let mut lake = Lake::open(
            store.clone(),
            Settings::default(),
            &Claim::new(JournalId(1), 0),
        )
        .unwrap();
        let mut rows = Rows::new();
        let values = [
            Value::F64(-0.0),
            Value::I64(i64::MIN),
            Value::Str("läuft"),
            Value::Bool(true),
        ];
        for (row, value) in (0..).zip(values) {
            let sample = SampleRow {
                device_id: "d",
                metric: "m",
                ts_us: 1_700_000_000_000_000 + i64::from(row),
                value,
                site: None,
                device_type: None,
                tags: None,
                ingest_us: 1_700_000_000_000_000,
                lane: Lane::Normal,
                epoch: Epoch::new(5),
                seq: 7,
                row,
                batch_samples: 4,
                via: None,
                time_err_ms: None,
                time_class: TimeClass::Synced,
            };
            rows.push_sample(&sample).unwrap();
        }
        let stream = Stream {
            device: DeviceId::new("d").unwrap(),
            lane: Lane::Bulk,
            epoch: Epoch::new(6),
        };
        rows.push_gap(GapRow {
            stream,
            seqs: Some((3, 9)),
            samples: Some(70),
            t_first_us: 1,
            t_last_us: 2,
            span: SpanKind::Bounds,
            reason: "evicted".into(),
            stage: "agent".into(),
            sink: None,
            at_us: 2,
            record: None,
            source: None,
        })
        .unwrap();
        let flush = Flush {
            journal: JournalId(1),
            first_pos: 0,
            last_pos: 4,
            rows: &rows,
            at_us: 3,
            sinks: &[],
        };
        let plan = lake.stage(&flush).unwrap();
        lake.publish(&plan).unwrap();
        lake.commit(&plan).unwrap();
        let mut read = Vec::new();
        samples(&store, |reading| {
            assert_eq!(
                (reading.device_id, reading.lane, reading.seq),
                ("d", "normal", 7)
            );
            read.push(format!("{} {:?}", reading.row, reading.value));
        })
        .unwrap();
        assert_eq!(
            read,
            [
                "0 F64(-0.0)",
                "1 I64(-9223372036854775808)",
                "2 Str(\"läuft\")",
                "3 Bool(true)"
            ]
        );
        let mut losses = 0;
        gaps(&store, |loss| {
            losses += 1;
            assert_eq!(
                (loss.seqs, loss.samples, loss.reason),
                (Some((3, 9)), Some(70), "evicted")
            );
            assert_eq!(
                (loss.t_first_us, loss.t_last_us, loss.lane),
                (Some(1), Some(2), "bulk")
            );
        })
        .unwrap();
        assert_eq!(losses, 1);
    }
}
