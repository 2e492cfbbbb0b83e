//! Core: rows that wait for a flush, with their texts stored once.
//!
//! A reading takes 40 bytes beside its batch's share: texts are numbers into one table, and what
//! all readings of a batch have in common is held once. [`Rows::bytes`] tells what a buffer takes,
//! so that the owner of a byte budget knows when to flush.

use std::collections::HashMap;
use std::sync::Arc;

use headwater_proto::ids::{Epoch, Lane, Stream};
use headwater_proto::sample::Value;

use crate::schema::MAX_TIME_US;

/// How the time of a row was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimeClass {
    /// The device's clock was synchronised.
    Synced,
    /// Boot and uptime, dated by the offset that the collector measured for that boot.
    Offset,
    /// Dated after the fact, between two bounds.
    Bounded,
    /// The device told no time: it is when the collector received it.
    Received,
}

impl TimeClass {
    /// Its name in the lake.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Synced => "synced",
            Self::Offset => "offset",
            Self::Bounded => "bounded",
            Self::Received => "received",
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

/// Readings that are missing.
#[derive(Debug, Clone, PartialEq)]
pub struct GapRow {
    /// Whose readings.
    pub stream: Stream,
    /// First and last missing number, both inclusive; `None`: known by time alone.
    pub seqs: Option<(u64, u64)>,
    /// How many readings, where known.
    pub samples: Option<u64>,
    /// Start of the missing time.
    pub t_first_us: Option<i64>,
    /// End of the missing time.
    pub t_last_us: Option<i64>,
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

/// How far a writer's life is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EpochState {
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
            Self::Open => "open",
            Self::Ended => "ended",
            Self::Closed => "closed",
            Self::Abandoned => "abandoned",
        }
    }

    /// The state of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Open, Self::Ended, Self::Closed, Self::Abandoned]
            .into_iter()
            .find(|state| state.name() == name)
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
    /// Readings that this row stands for; 0 for a copy of what a gap names.
    pub samples: u32,
    /// Why.
    pub reason: String,
    /// What was refused.
    pub payload: Option<Vec<u8>>,
    /// When.
    pub at_us: i64,
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

/// Place of a text in [`Texts`]; [`NO_TEXT`] is null.
pub(crate) type TextId = u32;

/// Stands for null.
pub(crate) const NO_TEXT: TextId = u32::MAX;

/// Fixed cost of one text: its two references and its place in the table.
const TEXT_BYTES: usize = 64;

/// Texts, each stored once.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    ids: HashMap<Arc<str>, TextId>,
    texts: Vec<Arc<str>>,
    bytes: usize,
}

impl Texts {
    fn id(&mut self, text: &str) -> TextId {
        if let Some(id) = self.ids.get(text) {
            return *id;
        }
        let id = TextId::try_from(self.texts.len()).expect("a flush ends long before 4 G texts");
        let shared: Arc<str> = text.into();
        self.texts.push(Arc::clone(&shared));
        self.ids.insert(shared, id);
        self.bytes += text.len() + TEXT_BYTES;
        id
    }

    fn optional(&mut self, text: Option<&str>) -> TextId {
        text.map_or(NO_TEXT, |text| self.id(text))
    }

    pub(crate) fn get(&self, id: TextId) -> Option<&str> {
        self.texts.get(id as usize).map(|text| &**text)
    }

    /// For each id its place in the order of the texts.
    pub(crate) fn ranks(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..).take(self.texts.len()).collect();
        order.sort_unstable_by_key(|id| &self.texts[*id as usize]);
        let mut ranks = vec![0; order.len()];
        for (rank, id) in (0..).zip(order) {
            ranks[id as usize] = rank;
        }
        ranks
    }
}

/// What the readings of one batch have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchPart {
    pub(crate) device: TextId,
    pub(crate) site: TextId,
    pub(crate) device_type: TextId,
    pub(crate) via: TextId,
    pub(crate) ingest_us: i64,
    pub(crate) epoch: i64,
    pub(crate) seq: i64,
    pub(crate) batch_samples: i32,
    pub(crate) time_err_ms: Option<u32>,
    pub(crate) lane: Lane,
    pub(crate) time_class: TimeClass,
}

/// One reading: 40 bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SamplePart {
    pub(crate) ts_us: i64,
    /// Bits of the value, or the id of its text.
    pub(crate) bits: u64,
    pub(crate) batch: u32,
    pub(crate) metric: TextId,
    pub(crate) tags: TextId,
    pub(crate) row: i32,
    pub(crate) kind: ValueKind,
}

/// Rows of all tables that wait for a flush.
#[derive(Debug, Default)]
pub struct Rows {
    pub(crate) texts: Texts,
    pub(crate) batches: Vec<BatchPart>,
    pub(crate) samples: Vec<SamplePart>,
    pub(crate) gaps: Vec<GapRow>,
    pub(crate) epochs: Vec<EpochRow>,
    pub(crate) logs: Vec<LogRow>,
    pub(crate) quarantine: Vec<QuarantineRow>,
    pub(crate) devices: Vec<DeviceRow>,
    pub(crate) metrics: Vec<MetricRow>,
    /// Bytes on the heap below the rows of the small tables.
    loose_bytes: usize,
}

impl Rows {
    /// No rows.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a reading. Readings of one batch should come one after the other.
    ///
    /// # Errors
    /// [`RowError`]; the row is then not taken.
    pub fn push_sample(&mut self, row: &SampleRow<'_>) -> Result<(), RowError> {
        check_time(row.ts_us)?;
        check_time(row.ingest_us)?;
        let part = BatchPart {
            device: self.texts.id(row.device_id),
            site: self.texts.optional(row.site),
            device_type: self.texts.optional(row.device_type),
            via: self.texts.optional(row.via),
            ingest_us: cut_to_ms(row.ingest_us),
            epoch: signed("epoch", row.epoch.get())?,
            seq: signed("seq", row.seq)?,
            batch_samples: narrow("batch_samples", row.batch_samples)?,
            time_err_ms: row.time_err_ms,
            lane: row.lane,
            time_class: row.time_class,
        };
        let place = narrow("row", row.row)?;
        if self.batches.last() != Some(&part) {
            self.batches.push(part);
        }
        let batch = u32::try_from(self.batches.len() - 1).map_err(|_| RowError::Range {
            column: "batches",
            value: self.batches.len() as u64,
        })?;
        let (kind, bits) = match row.value {
            Value::F64(value) => (ValueKind::F64, value.to_bits()),
            Value::F32(value) => (ValueKind::F64, f64::from(value).to_bits()),
            Value::I64(value) => (ValueKind::I64, value.cast_unsigned()),
            Value::Bool(value) => (ValueKind::Bool, u64::from(value)),
            Value::Str(value) => (ValueKind::Str, u64::from(self.texts.id(value))),
        };
        let metric = self.texts.id(row.metric);
        let tags = self.texts.optional(row.tags);
        let part = SamplePart {
            ts_us: row.ts_us,
            bits,
            batch,
            metric,
            tags,
            row: place,
            kind,
        };
        self.samples.push(part);
        Ok(())
    }

    /// Takes a gap.
    ///
    /// # Errors
    /// [`RowError`]; the row is then not taken.
    pub fn push_gap(&mut self, row: GapRow) -> Result<(), RowError> {
        check_time(row.at_us)?;
        if let Some((first, last)) = row.seqs {
            signed("seq_first", first)?;
            signed("seq_last", last)?;
        }
        signed("samples", row.samples.unwrap_or(0))?;
        check_record(row.record.as_ref())?;
        let texts = [
            Some(&row.reason),
            Some(&row.stage),
            row.sink.as_ref(),
            row.source.as_ref(),
        ];
        self.loose_bytes += heap(texts);
        self.gaps.push(row);
        Ok(())
    }

    /// Takes what is known of an epoch.
    ///
    /// # Errors
    /// [`RowError`]; the row is then not taken.
    pub fn push_epoch(&mut self, row: EpochRow) -> Result<(), RowError> {
        check_time(row.at_us)?;
        signed("first_seq", row.first_seq)?;
        signed("next_seq", row.next_seq)?;
        signed("boot", row.boot.unwrap_or(0))?;
        check_record(row.record.as_ref())?;
        self.epochs.push(row);
        Ok(())
    }

    /// Takes a log line.
    ///
    /// # Errors
    /// [`RowError`]; the row is then not taken.
    pub fn push_log(&mut self, row: LogRow) -> Result<(), RowError> {
        check_time(row.ts_us)?;
        check_time(row.ingest_us)?;
        narrow("line", row.line)?;
        check_record(row.record.as_ref())?;
        let texts = [
            Some(&row.device_id),
            Some(&row.message),
            row.level.as_ref(),
            row.source.as_ref(),
        ];
        self.loose_bytes += heap(texts);
        self.logs.push(row);
        Ok(())
    }

    /// Takes what was refused.
    ///
    /// # Errors
    /// [`RowError`]; the row is then not taken.
    pub fn push_quarantine(&mut self, row: QuarantineRow) -> Result<(), RowError> {
        check_time(row.at_us)?;
        signed("seq", row.seq)?;
        narrow("row", row.row.unwrap_or(0))?;
        narrow("batch_samples", row.batch_samples.unwrap_or(0))?;
        narrow("samples", row.samples)?;
        self.loose_bytes += heap([Some(&row.reason), row.metric.as_ref()])
            + row.payload.as_ref().map_or(0, Vec::len);
        self.quarantine.push(row);
        Ok(())
    }

    /// Takes what is known of a device.
    ///
    /// # Errors
    /// [`RowError`]; the row is then not taken.
    pub fn push_device(&mut self, row: DeviceRow) -> Result<(), RowError> {
        check_time(row.at_us)?;
        let texts = [
            Some(&row.device_id),
            row.site.as_ref(),
            row.device_type.as_ref(),
            row.tags.as_ref(),
            row.software.as_ref(),
            row.via.as_ref(),
        ];
        self.loose_bytes += heap(texts);
        self.devices.push(row);
        Ok(())
    }

    /// Takes what is known of a metric.
    ///
    /// # Errors
    /// [`RowError`]; the row is then not taken.
    pub fn push_metric(&mut self, row: MetricRow) -> Result<(), RowError> {
        check_time(row.at_us)?;
        self.loose_bytes += heap([
            Some(&row.metric),
            row.device_type.as_ref(),
            row.unit.as_ref(),
        ]);
        self.metrics.push(row);
        Ok(())
    }

    /// Readings that wait.
    #[must_use]
    pub const fn samples(&self) -> usize {
        self.samples.len()
    }

    /// Rows of all tables that wait.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.samples.len()
            + self.gaps.len()
            + self.epochs.len()
            + self.logs.len()
            + self.quarantine.len()
            + self.devices.len()
            + self.metrics.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory that the rows take, what is reserved but unused included.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.samples.capacity() * size_of::<SamplePart>()
            + self.batches.capacity() * size_of::<BatchPart>()
            + self.texts.bytes
            + self.gaps.capacity() * size_of::<GapRow>()
            + self.epochs.capacity() * size_of::<EpochRow>()
            + self.logs.capacity() * size_of::<LogRow>()
            + self.quarantine.capacity() * size_of::<QuarantineRow>()
            + self.devices.capacity() * size_of::<DeviceRow>()
            + self.metrics.capacity() * size_of::<MetricRow>()
            + self.loose_bytes
    }

    /// Forgets all rows; their memory goes back.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

fn check_time(time_us: i64) -> Result<(), RowError> {
    if (0..MAX_TIME_US).contains(&time_us) {
        Ok(())
    } else {
        Err(RowError::Time(time_us))
    }
}

fn check_record(record: Option<&Record>) -> Result<(), RowError> {
    record.map_or(Ok(()), |record| signed("rec_seq", record.seq).map(|_| ()))
}

pub(crate) const fn cut_to_ms(time_us: i64) -> i64 {
    time_us - time_us.rem_euclid(1_000)
}

fn signed(column: &'static str, value: u64) -> Result<i64, RowError> {
    i64::try_from(value).map_err(|_| RowError::Range { column, value })
}

fn narrow(column: &'static str, value: u32) -> Result<i32, RowError> {
    i32::try_from(value).map_err(|_| RowError::Range {
        column,
        value: value.into(),
    })
}

fn heap<const N: usize>(texts: [Option<&String>; N]) -> usize {
    texts
        .into_iter()
        .flatten()
        .map(|text| text.capacity())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_takes_at_most_48_bytes() {
        assert!(size_of::<SamplePart>() <= 48, "{}", size_of::<SamplePart>());
    }

    #[test]
    fn ranks_follow_the_bytes_of_the_texts() {
        let mut texts = Texts::default();
        let ids = ["b", "", "ä", "a", "Z"].map(|text| texts.id(text));
        let ranks = texts.ranks();
        assert_eq!(ids.map(|id| ranks[id as usize]), [3, 0, 4, 2, 1]);
        assert_eq!(texts.id("b"), ids[0]);
    }

    #[test]
    fn a_time_that_no_partition_can_name_is_refused() {
        let row = MetricRow {
            metric: "m".into(),
            device_type: None,
            unit: None,
            kind: ValueKind::F64,
            at_us: MAX_TIME_US,
        };
        let mut rows = Rows::new();
        assert_eq!(rows.push_metric(row), Err(RowError::Time(MAX_TIME_US)));
        assert!(rows.is_empty());
    }
}
