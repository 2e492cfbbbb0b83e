//! Core: what a lake holds after a run.

use std::collections::{BTreeMap, BTreeSet};

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, RecordBatch};
use headwater_collector::interpret::told;
use headwater_collector::quarantine::is_of_time;
use headwater_lake::delta::{Log, LogError};
use headwater_lake::{MemStore, Store, Table};
use headwater_proto::ids::{DeviceId, Epoch, Lane, SeqRange, Stream};
use headwater_proto::sample::OwnedValue;
use headwater_proto::text::is_dictionary;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::copy::{Arrived, COPY};
use super::generator::{Bits, Key, LOG, Made, is_of_its_time, lane_of, line_number};
use super::given::{Given, Number, Refused, Row};
use super::stream::STREAM;

/// First and last time of a gap.
pub type TimeSpan = (i64, i64);

/// Rows and gaps of a lake.
#[derive(Debug, Default)]
pub struct Found {
    /// Per reading as it was made: how often it is there or in quarantine, and with which values.
    pub readings: BTreeMap<Key, Vec<Bits>>,
    /// What is said of the time of readings that show when they were made.
    pub stated: Vec<Stated>,
    /// Readings that are in quarantine for their times.
    pub untimely: Vec<Untimely>,
    /// Per device and lane: the time spans of its gaps, where something is missing.
    pub gaps: BTreeMap<(String, String), Vec<TimeSpan>>,
    /// Devices and lanes of which records are named whose own times nobody knew.
    loose: BTreeSet<(String, String)>,
    /// By stream the numbers of its gaps and their time spans.
    pub spans: BTreeMap<Stream, Vec<(SeqRange, TimeSpan)>>,
    /// Gaps without a time span, or with one that says nothing of how it is known.
    pub spanless: Vec<String>,
    /// What gaps name by number.
    pub named: Arrived,
    /// What was given up with its epoch.
    pub abandoned: Arrived,
    /// Epochs that were given up, and when the lake first said it.
    pub given_up: BTreeMap<Stream, i64>,
    /// When something of each stream was last received.
    pub last_at: BTreeMap<Stream, i64>,
    /// By sink beside the lake what it is said to lack.
    pub lacks: BTreeMap<String, Lacks>,
    /// What each numbered record gave.
    pub numbers: BTreeMap<Number, Given>,
    /// Log lines.
    pub lines: u64,
    /// Dictionaries that it took to read them.
    pub dictionaries: u64,
    /// Tables with a checkpoint.
    pub checkpoints: u64,
}

/// What the lake says of a reading's time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stated {
    /// The reading as it was made.
    pub key: Key,
    /// Its time.
    pub ts_us: i64,
    /// How that was found.
    pub class: String,
    /// How far it may be off, where that is known.
    pub error_ms: Option<u32>,
    /// When it was received.
    pub at_us: i64,
}

/// A reading that is in quarantine for its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untimely {
    /// The reading as it was made.
    pub key: Key,
    /// Its time, or its uptime if nothing dates its boot.
    pub us: i64,
    /// Why.
    pub reason: String,
    /// When it was received.
    pub at_us: i64,
}

/// What a sink beside the lake is said to lack.
#[derive(Debug, Default)]
pub struct Lacks {
    /// All of it.
    pub numbers: Arrived,
    /// Because its destination refused it.
    pub refused: BTreeSet<Number>,
    /// Because it was left behind.
    pub skipped: Arrived,
    /// How many these are.
    pub left_behind: u64,
}

/// Reads `samples`, `logs`, `quarantine` and `gaps` of a lake, and finds in them what was `made`.
///
/// # Errors
/// A line that says what cannot be read.
pub fn read(store: &MemStore, made: &Made) -> Result<Found, String> {
    let mut found = Found::default();
    each_batch(store, Table::Samples, |batch| {
        found.take_samples(batch, made)
    })?;
    each_batch(store, Table::Logs, |batch| found.take_lines(batch, made))?;
    each_batch(store, Table::Quarantine, |batch| {
        found.take_refused(batch, made)
    })?;
    each_batch(store, Table::Gaps, |batch| found.take_gaps(batch))?;
    each_batch(store, Table::Epochs, |batch| found.take_epochs(batch))?;
    let kept = store.list("_headwater/schemas");
    for entry in kept.map_err(|error| error.to_string())? {
        let bytes = store.get(&entry.path).map_err(|error| error.to_string())?;
        found.dictionaries += u64::from(is_dictionary(&bytes));
    }
    for table in Table::ALL {
        let hint = format!("{}/_delta_log/_last_checkpoint", table.name());
        found.checkpoints += u64::from(store.get(&hint).is_ok());
    }
    Ok(found)
}

/// Which numbered records a lake has.
///
/// # Errors
/// As [`read`].
pub fn numbers(store: &MemStore) -> Result<Vec<Number>, String> {
    // For the numbers alone it does not matter what was made.
    let found = read(store, &Made::new(0))?;
    Ok(found.numbers.into_keys().collect())
}

fn each_batch(
    store: &MemStore,
    table: Table,
    mut take: impl FnMut(&RecordBatch) -> Option<()>,
) -> Result<(), String> {
    let log = Log::load(store, table).map_err(|error| error.to_string())?;
    let mut paths = Vec::new();
    log.files::<LogError>(store, |add| {
        paths.push(format!("{}/{}", table.name(), add.path));
        Ok(())
    })
    .map_err(|error| error.to_string())?;
    for path in paths {
        let broken = |what: String| format!("{path}: {what}");
        let bytes = store
            .get(&path)
            .map_err(|error| broken(error.to_string()))?;
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)
            .and_then(ParquetRecordBatchReaderBuilder::build)
            .map_err(|error| broken(error.to_string()))?;
        for batch in reader {
            let batch = batch.map_err(|error| broken(error.to_string()))?;
            take(&batch).ok_or_else(|| broken("a column is missing".to_owned()))?;
        }
    }
    Ok(())
}

impl Found {
    fn take_samples(&mut self, batch: &RecordBatch, made: &Made) -> Option<()> {
        let device = batch.column_by_name("device_id")?.as_string::<i32>();
        let metric = batch.column_by_name("metric")?.as_string::<i32>();
        let class = batch.column_by_name("time_class")?.as_string::<i32>();
        let float = batch
            .column_by_name("value_f64")?
            .as_primitive::<Float64Type>();
        let whole = batch
            .column_by_name("value_i64")?
            .as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            let bits = if float.is_valid(row) {
                Bits::F64(float.value(row).to_bits())
            } else {
                Bits::I64(whole.value(row))
            };
            let given = Row {
                metric: metric.value(row).to_owned(),
                ts_us: time(batch, row, "ts")?,
                error_ms: error(batch, row)?,
                bits,
            };
            let key = self.take_reading(device.value(row), &given, made);
            if is_of_its_time(&key.1) {
                self.stated.push(Stated {
                    key,
                    ts_us: given.ts_us,
                    class: class.value(row).to_owned(),
                    error_ms: given.error_ms,
                    at_us: time(batch, row, "ingest_ts")?,
                });
            }
            if let Some(number) = number_of(batch, row, ["device_id", "lane", "epoch", "seq"]) {
                self.note_receipt(&number.0, time(batch, row, "ingest_ts")?);
                self.numbers.entry(number).or_default().rows.insert(given);
            }
        }
        Some(())
    }

    fn note_receipt(&mut self, stream: &Stream, at_us: i64) {
        let last = self.last_at.entry(stream.clone()).or_insert(at_us);
        *last = at_us.max(*last);
    }

    /// Finds out which reading a row is, whatever time it has, and counts it.
    fn take_reading(&mut self, device: &str, row: &Row, made: &Made) -> Key {
        let known = made.key_of(device, &row.metric, row.bits);
        let as_it_is = || (device.to_owned(), row.metric.clone(), row.ts_us);
        let key = known.unwrap_or_else(as_it_is);
        self.readings.entry(key.clone()).or_default().push(row.bits);
        key
    }

    fn take_lines(&mut self, batch: &RecordBatch, made: &Made) -> Option<()> {
        let device = batch.column_by_name("device_id")?.as_string::<i32>();
        let text = batch.column_by_name("message")?.as_string::<i32>();
        for row in 0..batch.num_rows() {
            let name = device.value(row);
            // A line of any other text is one that was never made.
            let number = line_number(name, text.value(row)).unwrap_or(-1);
            let given = Row {
                metric: LOG.to_owned(),
                ts_us: time(batch, row, "ts")?,
                error_ms: error(batch, row)?,
                bits: Bits::Line(number),
            };
            self.take_reading(name, &given, made);
            let record = ["rec_device", "rec_lane", "rec_epoch", "rec_seq"];
            if let Some(carrier) = number_of(batch, row, record) {
                self.note_receipt(&carrier.0, time(batch, row, "ingest_ts")?);
                self.numbers.entry(carrier).or_default().rows.insert(given);
            }
            self.lines += 1;
        }
        Some(())
    }

    fn take_refused(&mut self, batch: &RecordBatch, made: &Made) -> Option<()> {
        let device = batch.column_by_name("device_id")?.as_string::<i32>();
        let text = |row, name| {
            let column = batch.column_by_name(name)?.as_string::<i32>();
            column.is_valid(row).then(|| column.value(row).to_owned())
        };
        let number = batch.column_by_name("row")?.as_primitive::<Int32Type>();
        let payload = batch.column_by_name("payload")?.as_binary::<i32>();
        for row in 0..batch.num_rows() {
            let refused = Refused {
                row: number
                    .is_valid(row)
                    .then(|| number.value(row).cast_unsigned()),
                metric: text(row, "metric"),
                reason: text(row, "reason")?,
                cause: text(row, "cause"),
                payload: payload.value(row).to_vec(),
            };
            for given in untimely(&refused) {
                let key = self.take_reading(device.value(row), &given, made);
                self.untimely.push(Untimely {
                    key,
                    us: given.ts_us,
                    reason: refused.reason.clone(),
                    at_us: time(batch, row, "at")?,
                });
            }
            let of = number_of(batch, row, ["device_id", "lane", "epoch", "seq"])?;
            self.numbers.entry(of).or_default().refused.insert(refused);
        }
        Some(())
    }

    fn take_gaps(&mut self, batch: &RecordBatch) -> Option<()> {
        let device = batch.column_by_name("device_id")?.as_string::<i32>();
        let first = batch
            .column_by_name("t_first")?
            .as_primitive::<TimestampMicrosecondType>();
        let last = batch
            .column_by_name("t_last")?
            .as_primitive::<TimestampMicrosecondType>();
        let sink = batch.column_by_name("sink")?.as_string::<i32>();
        let reason = batch.column_by_name("reason")?.as_string::<i32>();
        let lane = batch.column_by_name("lane")?.as_string::<i32>();
        let how = batch.column_by_name("span")?.as_string::<i32>();
        for row in 0..batch.num_rows() {
            let span = (first.value(row), last.value(row));
            let is_known = first.is_valid(row) && last.is_valid(row) && span.0 <= span.1;
            let is_empty = reason.value(row) == "empty";
            let words: &[&str] = match is_empty {
                true => &["none"],
                false => &["exact", "neighbours", "bounds"],
            };
            if !is_known || !words.contains(&how.value(row)) {
                let (device, reason, how) = (device.value(row), reason.value(row), how.value(row));
                self.spanless
                    .push(format!("{reason} of {device}: {span:?}, {how:?}"));
                continue;
            }
            let is_of_records = ["evicted", "disk_error"].contains(&reason.value(row));
            if is_of_records && how.value(row) != "exact" {
                let of = (device.value(row).to_owned(), lane.value(row).to_owned());
                self.loose.insert(of);
            }
            if sink.is_valid(row) {
                self.take_lacks(batch, row, sink.value(row))?;
                continue;
            }
            let numbers = numbers_of(batch, row);
            if let Some((stream, range)) = numbers {
                if reason.value(row) == "abandoned" {
                    let all = self.abandoned.entry(stream.clone()).or_default();
                    // Without a bound on ranges nothing is refused.
                    let _ = all.insert(range);
                }
                let _ = self.named.entry(stream.clone()).or_default().insert(range);
                self.spans.entry(stream).or_default().push((range, span));
            }
            if !is_empty {
                let of = (device.value(row).to_owned(), lane.value(row).to_owned());
                self.gaps.entry(of).or_default().push(span);
            }
        }
        Some(())
    }

    fn take_epochs(&mut self, batch: &RecordBatch) -> Option<()> {
        let state = batch.column_by_name("state")?.as_string::<i32>();
        let rows = (0..batch.num_rows()).filter(|row| state.value(*row) == "abandoned");
        for row in rows {
            let columns = ["device_id", "lane", "epoch", "next_seq"];
            let (stream, _) = number_of(batch, row, columns)?;
            let at_us = time(batch, row, "at")?;
            let first = self.given_up.entry(stream).or_insert(at_us);
            *first = at_us.min(*first);
        }
        Some(())
    }

    /// What another sink lacks: for the lake it is no gap.
    fn take_lacks(&mut self, batch: &RecordBatch, row: usize, sink: &str) -> Option<()> {
        let (stream, range) = numbers_of(batch, row)?;
        let stage = batch.column_by_name("stage")?.as_string::<i32>();
        if ![COPY, STREAM].contains(&sink) || stage.value(row) != "sink" {
            return None;
        }
        let reason = batch.column_by_name("reason")?.as_string::<i32>();
        let lacks = self.lacks.entry(sink.to_owned()).or_default();
        match reason.value(row) {
            "refused" => {
                let numbers = (range.first..range.next).map(|seq| (stream.clone(), seq));
                lacks.refused.extend(numbers);
            }
            "sink_skipped" => {
                lacks.left_behind += range.len();
                // Without a bound on ranges nothing is refused.
                let _ = lacks
                    .skipped
                    .entry(stream.clone())
                    .or_default()
                    .insert(range);
            }
            _ => {}
        }
        let numbers = lacks.numbers.entry(stream).or_default();
        numbers.insert(range).ok()
    }

    /// Whether a gap in the lane of its source names the time of a reading, by a clock that may have been set by
    /// `slack_us` meanwhile.
    pub(super) fn is_named(&self, (device, metric, time): &Key, slack_us: i64) -> bool {
        let Some(lane) = lane_of(metric) else {
            return false;
        };
        let gaps = self.gaps.get(&(device.clone(), lane.name().to_owned()));
        gaps.is_some_and(|gaps| gaps.iter().any(|span| holds(*span, *time, slack_us)))
    }

    /// Whether a gap of its lane names records by when the collector heard of them: readings that bring times of their
    /// own may lie outside it.
    pub(super) fn is_loose(&self, (device, metric, _): &Key) -> bool {
        let lane = lane_of(metric).map(|lane| lane.name().to_owned());
        lane.is_some_and(|lane| self.loose.contains(&(device.clone(), lane)))
    }

    /// Whether a gap names the number, and a span beside it holds the time.
    pub(super) fn is_named_at(&self, (stream, seq): &Number, time: i64, slack_us: i64) -> bool {
        let spans = self.spans.get(stream).into_iter().flatten();
        let mut of_number = spans.filter(|(range, _)| range.contains(*seq));
        of_number.any(|(_, span)| holds(*span, time, slack_us))
    }
}

fn holds((first, last): TimeSpan, time: i64, slack_us: i64) -> bool {
    let (first, last) = (
        first.saturating_sub(slack_us),
        last.saturating_add(slack_us),
    );
    (first..=last).contains(&time)
}

/// A time of a row.
fn time(batch: &RecordBatch, row: usize, column: &str) -> Option<i64> {
    let column = batch.column_by_name(column)?;
    let times = column.as_primitive::<TimestampMicrosecondType>();
    Some(times.value(row))
}

/// How far the time of a row may be off, where that is known.
fn error(batch: &RecordBatch, row: usize) -> Option<Option<u32>> {
    let column = batch.column_by_name("time_err_ms")?;
    let errors = column.as_primitive::<Int64Type>();
    let known = errors.is_valid(row).then(|| errors.value(row));
    Some(known.and_then(|ms| u32::try_from(ms).ok()))
}

/// The samples of a row that was refused for its time.
fn untimely(refused: &Refused) -> Vec<Row> {
    let read = is_of_time(&refused.reason).then(|| told::read(&refused.payload));
    let samples = read.flatten().map_or_else(Vec::new, |read| read.samples);
    let row = |told: &told::Told| {
        let bits = match told.value {
            OwnedValue::F64(value) => Bits::F64(value.to_bits()),
            OwnedValue::I64(value) => Bits::I64(value),
            OwnedValue::Bool(_) | OwnedValue::F32(_) | OwnedValue::Str(_) => return None,
        };
        Some(Row {
            metric: told.series.metric.clone(),
            ts_us: told.ts_us,
            error_ms: None,
            bits,
        })
    };
    samples.iter().filter_map(row).collect()
}

/// The numbers that a gap names, if it names any.
fn numbers_of(batch: &RecordBatch, row: usize) -> Option<(Stream, SeqRange)> {
    let end = |column| number_of(batch, row, ["device_id", "lane", "epoch", column]);
    let ((stream, first), (_, last)) = (end("seq_first")?, end("seq_last")?);
    Some((stream, SeqRange::new(first, last + 1)))
}

/// The numbered record of a row, by the columns that name it.
fn number_of(batch: &RecordBatch, row: usize, columns: [&str; 4]) -> Option<Number> {
    let [device, lane, epoch, seq] = columns;
    let text = |name| Some(batch.column_by_name(name)?.as_string::<i32>().value(row));
    let whole = |name| {
        let column = batch.column_by_name(name)?.as_primitive::<Int64Type>();
        column
            .is_valid(row)
            .then(|| column.value(row).cast_unsigned())
    };
    let stream = Stream {
        device: DeviceId::new(text(device)?).ok()?,
        lane: Lane::from_name(text(lane)?)?,
        epoch: Epoch::new(whole(epoch)?),
    };
    Some((stream, whole(seq)?))
}
