//! Core: what must hold of the lake after a run.

use std::collections::{BTreeMap, BTreeSet};

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, RecordBatch};
use headwater_lake::delta::{Log, LogError};
use headwater_lake::{MemStore, Store, Table, audit};
use headwater_proto::ids::{DeviceId, Epoch, Lane, SeqRange, Stream};
use headwater_proto::text::is_dictionary;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::copy::{Arrived, COPY, Number, Row};
use super::course::Faults;
use super::generator::{Bits, CLOCK_STEP_US, Key, LOG, Made, line_number};
use super::plan::MAX_STEP_US;
use super::stream::STREAM;

/// Rows and gaps of a lake.
#[derive(Debug, Default)]
pub struct Found {
    /// Per reading: how often it is there, and with which values.
    pub readings: BTreeMap<Key, Vec<Bits>>,
    /// Per device: the time spans of its gaps; `None`: a gap without times.
    pub gaps: BTreeMap<String, Vec<Option<(i64, i64)>>>,
    /// By sink beside the lake what it is said to lack.
    pub lacks: BTreeMap<String, Lacks>,
    /// Rows of each numbered record.
    pub numbers: BTreeMap<Number, BTreeSet<Row>>,
    /// Log lines.
    pub lines: u64,
    /// Dictionaries that it took to read them.
    pub dictionaries: u64,
    /// Tables with a checkpoint.
    pub checkpoints: u64,
}

/// What a sink beside the lake is said to lack.
#[derive(Debug, Default)]
pub struct Lacks {
    /// All of it.
    pub numbers: Arrived,
    /// Because its destination refused it.
    pub refused: BTreeSet<Number>,
    /// How many because it was left behind.
    pub left_behind: u64,
}

/// Reads `samples`, `logs` and `gaps` of a lake.
///
/// # Errors
/// A line that says what cannot be read.
pub fn read(store: &MemStore) -> Result<Found, String> {
    let mut found = Found::default();
    each_batch(store, Table::Samples, |batch| found.take_samples(batch))?;
    each_batch(store, Table::Logs, |batch| found.take_lines(batch))?;
    each_batch(store, Table::Gaps, |batch| found.take_gaps(batch))?;
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
    fn take_samples(&mut self, batch: &RecordBatch) -> Option<()> {
        let device = batch.column_by_name("device_id")?.as_string::<i32>();
        let metric = batch.column_by_name("metric")?.as_string::<i32>();
        let time = batch
            .column_by_name("ts")?
            .as_primitive::<TimestampMicrosecondType>();
        let float = batch
            .column_by_name("value_f64")?
            .as_primitive::<Float64Type>();
        let whole = batch
            .column_by_name("value_i64")?
            .as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            let key = (
                device.value(row).to_owned(),
                metric.value(row).to_owned(),
                time.value(row),
            );
            let bits = if float.is_valid(row) {
                Bits::F64(float.value(row).to_bits())
            } else {
                Bits::I64(whole.value(row))
            };
            if let Some(number) = number_of(batch, row, ["device_id", "lane", "epoch", "seq"]) {
                let of = (key.1.clone(), key.2, bits);
                self.numbers.entry(number).or_default().insert(of);
            }
            self.readings.entry(key).or_default().push(bits);
        }
        Some(())
    }

    fn take_lines(&mut self, batch: &RecordBatch) -> Option<()> {
        let device = batch.column_by_name("device_id")?.as_string::<i32>();
        let text = batch.column_by_name("message")?.as_string::<i32>();
        let time = batch
            .column_by_name("ts")?
            .as_primitive::<TimestampMicrosecondType>();
        for row in 0..batch.num_rows() {
            let name = device.value(row);
            // A line of any other text is one that was never made.
            let number = line_number(name, text.value(row)).unwrap_or(-1);
            let record = ["rec_device", "rec_lane", "rec_epoch", "rec_seq"];
            if let Some(carrier) = number_of(batch, row, record) {
                let of = (LOG.to_owned(), time.value(row), Bits::Line(number));
                self.numbers.entry(carrier).or_default().insert(of);
            }
            let key = (name.to_owned(), LOG.to_owned(), time.value(row));
            let lines = self.readings.entry(key).or_default();
            lines.push(Bits::Line(number));
            self.lines += 1;
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
        for row in 0..batch.num_rows() {
            if sink.is_valid(row) {
                self.take_lacks(batch, row, sink.value(row))?;
                continue;
            }
            let known = first.is_valid(row) && last.is_valid(row);
            let span = known.then(|| (first.value(row), last.value(row)));
            self.gaps
                .entry(device.value(row).to_owned())
                .or_default()
                .push(span);
        }
        Some(())
    }

    /// What another sink lacks: for the lake it is no gap.
    fn take_lacks(&mut self, batch: &RecordBatch, row: usize, sink: &str) -> Option<()> {
        let columns = ["device_id", "lane", "epoch", "seq_first"];
        let (stream, first) = number_of(batch, row, columns)?;
        let columns = ["device_id", "lane", "epoch", "seq_last"];
        let (_, last) = number_of(batch, row, columns)?;
        let stage = batch.column_by_name("stage")?.as_string::<i32>();
        if ![COPY, STREAM].contains(&sink) || stage.value(row) != "sink" {
            return None;
        }
        let reason = batch.column_by_name("reason")?.as_string::<i32>();
        let lacks = self.lacks.entry(sink.to_owned()).or_default();
        match reason.value(row) {
            "refused" => {
                let numbers = (first..=last).map(|seq| (stream.clone(), seq));
                lacks.refused.extend(numbers);
            }
            "sink_skipped" => lacks.left_behind += last - first + 1,
            _ => {}
        }
        let numbers = lacks.numbers.entry(stream).or_default();
        numbers.insert(SeqRange::new(first, last + 1)).ok()
    }

    /// Turn of the first reading in the lake that came from the same source of the same physical
    /// device: of clones, the clocks tell which.
    fn first_live(&self, key: &Key, made: &Made) -> Option<u64> {
        let from = (key.0.clone(), String::new(), i64::MIN);
        let rows = self
            .readings
            .range(from..)
            .take_while(|(other, _)| other.0 == key.0);
        let alike = |other: &Key| {
            other.1.starts_with("live") && other.2 % CLOCK_STEP_US == key.2 % CLOCK_STEP_US
        };
        rows.filter(|(other, _)| alike(other))
            .filter_map(|(other, _)| made.turn(&other.0, other.2))
            .min()
    }

    /// Whether a gap names the time, by a clock that may have been set by `slack_us` meanwhile.
    fn is_named(&self, device: &str, time: i64, slack_us: i64) -> bool {
        let names = |gap: &Option<(i64, i64)>| {
            gap.is_none_or(|(first, last)| (first - slack_us..=last + slack_us).contains(&time))
        };
        let gaps = self.gaps.get(device);
        gaps.is_some_and(|gaps| gaps.iter().any(names))
    }
}

/// The numbered record of a row, by the columns that name it.
fn number_of(batch: &RecordBatch, row: usize, columns: [&str; 4]) -> Option<Number> {
    let [device, lane, epoch, seq] = columns;
    let text = |name| Some(batch.column_by_name(name)?.as_string::<i32>().value(row));
    let whole = |name| {
        let column = batch.column_by_name(name)?.as_primitive::<Int64Type>();
        Some(column.value(row).cast_unsigned())
    };
    let stream = Stream {
        device: DeviceId::new(text(device)?).ok()?,
        lane: Lane::from_name(text(lane)?)?,
        epoch: Epoch::new(whole(epoch)?),
    };
    Some((stream, whole(seq)?))
}

/// Holds what another sink has against the lake: it has each record as the lake has it, or the lake names it
/// as lacking, or the sink was told that it is one of `undecodable`. Of records that came after it was taken
/// out only those `until` then count.
pub fn check_sink(
    found: &Found,
    name: &str,
    (rows, undecodable): (&BTreeMap<Number, BTreeSet<Row>>, &BTreeSet<Number>),
    until: Option<&Arrived>,
    faults: &mut Faults,
) {
    let lacks = found.lacks.get(name);
    for ((stream, seq), expected) in &found.numbers {
        let had_arrived = |until: &Arrived| until.get(stream).is_some_and(|all| all.contains(*seq));
        if until.is_some_and(|until| !had_arrived(until)) {
            continue;
        }
        let lacking = lacks.and_then(|lacks| lacks.numbers.get(stream));
        match rows.get(&(stream.clone(), *seq)) {
            Some(rows) if rows == expected => {}
            Some(rows) => faults.push(format!(
                "record {seq} of {stream:?} is {rows:?} in sink {name} and {expected:?} in the lake"
            )),
            None if lacking.is_some_and(|lacks| lacks.contains(*seq)) => {}
            None if undecodable.contains(&(stream.clone(), *seq)) => {}
            None => faults.push(format!(
                "sink {name} lacks record {seq} of {stream:?}, and no gap names it"
            )),
        }
    }
}

/// Holds the names of what the service refused against what it refused.
pub fn check_refused(found: &Found, refused: &BTreeSet<Number>, faults: &mut Faults) {
    let named = found.lacks.get(STREAM).map(|lacks| &lacks.refused);
    let wrong = named.into_iter().flatten();
    let wrong = wrong.filter(|number| !refused.contains(*number));
    faults.extend(wrong.map(|(stream, seq)| {
        format!("record {seq} of {stream:?} is named as refused by the service, and it never was")
    }));
}

/// What a run knows of one device.
#[derive(Debug, Clone)]
pub struct Known {
    /// Its name.
    pub name: String,
    /// It was cloned or lost its disk: readings may be missing or there twice.
    pub disturbed: bool,
    /// One of its disks was thrown away, with what nobody was told of.
    pub forgotten: bool,
    /// Its wall clock was set.
    pub stepped: bool,
    /// It evicted records: readings may be missing, if a gap names them.
    pub evicted: bool,
    /// Custody ended at a disk that was lost: readings may be missing, and nobody knows of them.
    pub unnamed: bool,
}

/// The audit's word.
pub fn check_audit(store: &MemStore, faults: &mut Faults) {
    match audit::audit(store) {
        Ok(audit) if audit.totals.is_good() => {}
        Ok(audit) => {
            let bad = audit.streams.iter().filter(|stream| {
                matches!(
                    stream.verdict,
                    audit::Verdict::Unexplained
                        | audit::Verdict::Repeated
                        | audit::Verdict::Conflicting
                )
            });
            faults.extend(bad.map(|stream| format!("audit: {stream:?}")));
        }
        Err(error) => faults.push(format!("the audit fails: {error}")),
    }
}

/// Holds the rows of the lake against what the generator made.
pub fn check_rows(found: &Found, made: &Made, devices: &[Known], faults: &mut Faults) {
    let known = |name: &str| devices.iter().find(|known| known.name == name);
    for (key, values) in &found.readings {
        let Some(device) = known(&key.0) else {
            continue;
        };
        match made.readings().get(key) {
            None => faults.push(format!("{key:?} is in the lake and was never made")),
            Some(bits) if values.iter().any(|value| value != bits) => {
                faults.push(format!(
                    "{key:?} is {values:?} in the lake and was made as {bits:?}"
                ));
            }
            Some(_) if values.len() > 1 && !device.disturbed => {
                faults.push(format!("{key:?} is in the lake {} times", values.len()));
            }
            Some(_) => {}
        }
    }
    for key in made
        .readings()
        .keys()
        .filter(|key| !found.readings.contains_key(*key))
    {
        let Some(device) = known(&key.0).filter(|device| !device.unnamed) else {
            continue;
        };
        let waits = !key.1.starts_with("live");
        let turn = made.turn(&key.0, key.2);
        if !waits
            && found
                .first_live(key, made)
                .is_none_or(|first| turn < Some(first))
        {
            // Custody begins when something is durable. Of a source that was never heard of before
            // its agent died, nobody can say what it lost.
            continue;
        }
        // The times of a source that waits are its own.
        let slack_us = if device.stepped && !waits {
            2 * MAX_STEP_US
        } else {
            0
        };
        if waits && !device.evicted && !device.disturbed {
            faults.push(format!(
                "{key:?} is missing, though its source waits and nothing gave way"
            ));
        } else if !found.is_named(&key.0, key.2, slack_us) && (waits || !device.forgotten) {
            faults.push(format!("{key:?} is missing, and no gap names it"));
        }
    }
}

/// Holds the lake against what sources were told is durable. Readings of a source that can begin again
/// are read again where they are not; of one that cannot they are there, or gave way later.
pub fn check_durable<'a>(
    found: &Found,
    durable: impl Iterator<Item = &'a Key>,
    device: &Known,
    faults: &mut Faults,
) {
    if device.disturbed || device.unnamed {
        return;
    }
    let slack_us = if device.stepped { 2 * MAX_STEP_US } else { 0 };
    for key in durable.filter(|key| !found.readings.contains_key(*key)) {
        if !(device.evicted && found.is_named(&key.0, key.2, slack_us)) {
            faults.push(format!(
                "{key:?} was called durable and is missing, and did not give way"
            ));
        }
    }
}

/// Holds the lake against what plain devices were told, since the collector's disk was lost for the last
/// time. With the disk went its memory of what is a repeat; what rots may be lost.
pub fn check_plain(
    found: &Found,
    name: &str,
    made: u64,
    acknowledged: &[u64],
    (lost_disk, rotten): (bool, bool),
    faults: &mut Faults,
) {
    let mut times = BTreeMap::new();
    let first = (name.to_owned(), String::new(), i64::MIN);
    for (key, values) in found
        .readings
        .range(first..)
        .take_while(|(key, _)| key.0 == name)
    {
        for value in values {
            // A number of JSON is a float.
            match value {
                Bits::F64(bits) => *times.entry(*bits).or_insert(0u64) += 1,
                Bits::I64(_) | Bits::Line(_) => {
                    faults.push(format!("{key:?} of a plain device is no float"))
                }
            }
        }
    }
    for (bits, times) in &times {
        let number = f64::from_bits(*bits);
        if !numbers(made).any(|(_, sent)| sent == *bits) {
            faults.push(format!("{name} never sent message {number}"));
        }
        if *times > 1 && !lost_disk && !rotten {
            faults.push(format!(
                "message {number} of {name} is in the lake {times} times"
            ));
        }
    }
    for (number, bits) in numbers(made).filter(|(number, _)| acknowledged.contains(number)) {
        if !times.contains_key(&bits) && !rotten {
            faults.push(format!(
                "message {number} of {name} had its PUBACK and is not in the lake"
            ));
        }
    }
}

/// The messages of a plain device and the bits of their floats.
fn numbers(made: u64) -> impl Iterator<Item = (u64, u64)> {
    (0u32..)
        .map(|number| (u64::from(number), f64::from(number).to_bits()))
        .take_while(move |n| n.0 < made)
}
