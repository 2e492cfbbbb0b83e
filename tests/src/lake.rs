//! A lake as its readers see it: the Parquet files below its tables, and what the audit says.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, RecordBatch};
use headwater_proto::sample::Value;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::process::program;

/// One row of `samples`.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'a> {
    /// Who measured.
    pub device: &'a str,
    /// What.
    pub metric: &'a str,
    /// When, Unix microseconds.
    pub time_us: i64,
    /// How much.
    pub value: Value<'a>,
    /// The lane that carried it.
    pub lane: &'a str,
}

/// One row of `gaps`.
#[derive(Debug, Clone)]
pub struct Gap {
    /// Whose readings are missing.
    pub device: String,
    /// Why.
    pub reason: String,
    /// Who says so.
    pub stage: String,
    /// Readings, where known.
    pub samples: Option<i64>,
    /// Start of the missing time, Unix microseconds, where known.
    pub first_us: Option<i64>,
    /// Its end.
    pub last_us: Option<i64>,
}

/// The Parquet files of a table, sorted; none if there is no such table.
///
/// # Errors
/// When a folder cannot be read.
pub fn files(lake: &Path, table: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![lake.join(table).join("hot")];
    while let Some(folder) = folders.pop() {
        if !folder.exists() {
            continue;
        }
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "parquet") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn each_batch(
    lake: &Path,
    table: &str,
    mut visit: impl FnMut(&RecordBatch) -> Result<()>,
) -> Result<()> {
    for path in files(lake, table)? {
        let file = File::open(&path).with_context(|| path.display().to_string())?;
        for batch in ParquetRecordBatchReaderBuilder::try_new(file)?.build()? {
            visit(&batch?).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

fn column<'b>(batch: &'b RecordBatch, name: &str) -> Result<&'b ArrayRef> {
    batch
        .column_by_name(name)
        .with_context(|| format!("there is no column {name}"))
}

fn texts<'b>(batch: &'b RecordBatch, name: &str) -> Result<&'b arrow_array::StringArray> {
    column(batch, name)?
        .as_string_opt()
        .with_context(|| format!("{name} is not text"))
}

fn times(batch: &RecordBatch, name: &str) -> Result<Vec<Option<i64>>> {
    let array = column(batch, name)?.as_primitive_opt::<TimestampMicrosecondType>();
    Ok(array
        .with_context(|| format!("{name} is no time in µs"))?
        .iter()
        .collect())
}

/// Visits every row of `samples`; returns their number.
///
/// # Errors
/// When a file cannot be read, or a row has no value or more than one.
pub fn each_sample(lake: &Path, mut visit: impl FnMut(&Sample<'_>)) -> Result<u64> {
    let mut rows = 0;
    each_batch(lake, "samples", |batch| {
        let (devices, metrics) = (texts(batch, "device_id")?, texts(batch, "metric")?);
        let (lanes, times) = (texts(batch, "lane")?, times(batch, "ts")?);
        let floats = column(batch, "value_f64")?.as_primitive_opt::<Float64Type>();
        let integers = column(batch, "value_i64")?.as_primitive_opt::<Int64Type>();
        let booleans = column(batch, "value_bool")?.as_boolean_opt();
        let (floats, integers) = floats.zip(integers).context("values of other types")?;
        let booleans = booleans.context("value_bool of another type")?;
        let strings = texts(batch, "value_str")?;
        for (row, time) in times.into_iter().enumerate() {
            let values = [
                floats.is_valid(row).then(|| Value::F64(floats.value(row))),
                integers
                    .is_valid(row)
                    .then(|| Value::I64(integers.value(row))),
                booleans
                    .is_valid(row)
                    .then(|| Value::Bool(booleans.value(row))),
                strings
                    .is_valid(row)
                    .then(|| Value::Str(strings.value(row))),
            ];
            let mut values = values.into_iter().flatten();
            let (Some(value), None) = (values.next(), values.next()) else {
                bail!("row {row} does not have exactly one value");
            };
            visit(&Sample {
                device: devices.value(row),
                metric: metrics.value(row),
                time_us: time.context("a row without time")?,
                value,
                lane: lanes.value(row),
            });
            rows += 1;
        }
        Ok(())
    })?;
    Ok(rows)
}

/// Every row of `gaps`.
///
/// # Errors
/// When a file cannot be read.
pub fn gaps(lake: &Path) -> Result<Vec<Gap>> {
    let mut gaps = Vec::new();
    each_batch(lake, "gaps", |batch| {
        let (devices, reasons) = (texts(batch, "device_id")?, texts(batch, "reason")?);
        let stages = texts(batch, "stage")?;
        let (first, last) = (times(batch, "t_first")?, times(batch, "t_last")?);
        let samples = column(batch, "samples")?.as_primitive_opt::<Int64Type>();
        let samples = samples.context("samples is no integer")?;
        for row in 0..batch.num_rows() {
            gaps.push(Gap {
                device: devices.value(row).to_owned(),
                reason: reasons.value(row).to_owned(),
                stage: stages.value(row).to_owned(),
                samples: samples.is_valid(row).then(|| samples.value(row)),
                first_us: first[row],
                last_us: last[row],
            });
        }
        Ok(())
    })?;
    Ok(gaps)
}

/// Rows of a table.
///
/// # Errors
/// When a file cannot be read.
pub fn rows(lake: &Path, table: &str) -> Result<u64> {
    let mut rows = 0;
    each_batch(lake, table, |batch| {
        rows += batch.num_rows() as u64;
        Ok(())
    })?;
    Ok(rows)
}

/// What `headwater-collector audit --json` says.
#[derive(Debug, Clone)]
pub struct Audit {
    /// Its whole answer.
    pub json: serde_json::Value,
    /// Whether it ended with exit code 0.
    pub good: bool,
}

impl Audit {
    /// Audits a lake with the program, as an operator does.
    ///
    /// # Errors
    /// When it cannot be run, or does not end with one JSON object.
    pub fn of(lake: &Path) -> Result<Self> {
        let output = Command::new(program("headwater-collector")?)
            .args(["audit", "--json", "--lake"])
            .arg(lake)
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let json = serde_json::from_str(&text).with_context(|| {
            format!(
                "audit said: {text}{}",
                String::from_utf8_lossy(&output.stderr)
            )
        })?;
        Ok(Self {
            json,
            good: output.status.success(),
        })
    }

    /// A number of the totals.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn total(&self, name: &str) -> Result<u64> {
        let totals = &self.json["totals"];
        let value = totals[name]
            .as_u64()
            .or_else(|| totals["verdicts"][name].as_u64());
        value.with_context(|| format!("no total {name} in {totals}"))
    }

    /// Nothing unexplained, repeated or conflicting.
    ///
    /// # Errors
    /// With the totals and the bad streams.
    pub fn expect_good(&self) -> Result<()> {
        let bad = self.streams(|stream| {
            ["unexplained", "repeated", "conflicting"]
                .iter()
                .any(|bad| stream["verdict"] == *bad)
        });
        if !self.good || !bad.is_empty() {
            bail!("the audit fails: {}\n{bad:#?}", self.json["totals"]);
        }
        Ok(())
    }

    /// Every stream of this device is complete: no gap was needed, and nothing is awaited.
    ///
    /// # Errors
    /// With the streams that are not, or when there is none.
    pub fn expect_complete(&self, device: &str) -> Result<()> {
        self.expect_good()?;
        let streams = self.streams(|stream| stream["device_id"] == device);
        let bad: Vec<_> = streams
            .iter()
            .filter(|stream| stream["verdict"] != "complete")
            .collect();
        if streams.is_empty() || !bad.is_empty() {
            bail!(
                "{device}: of {} streams these are not complete: {bad:#?}",
                streams.len()
            );
        }
        Ok(())
    }

    fn streams(&self, which: impl Fn(&serde_json::Value) -> bool) -> Vec<&serde_json::Value> {
        self.json["streams"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|s| which(s))
            .collect()
    }
}
