//! Core: rows that wait for a flush, with their texts stored once.
//!
//! A reading takes 40 bytes beside its batch's share: texts are numbers into one table, and what
//! all readings of a batch have in common is held once. [`Rows::bytes`] tells what a buffer takes,
//! so that the owner of a byte budget knows when to flush.

use std::collections::HashMap;
use std::sync::Arc;

use headwater_proto::ids::Lane;
use headwater_proto::sample::Value;

pub(crate) use crate::row::PRUNED;
pub use crate::row::{
    DeviceRow, DigestRow, EpochRow, EpochState, GapRow, LogRow, MetricRow, QuarantineRow, Record,
    RowError, SampleRow, SpanKind, TimeClass, ValueKind,
};
use crate::schema::MAX_TIME_US;

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

    /// As [`Texts::id`], for a text that is most often the one with id `guess`.
    fn guessed(&mut self, guess: TextId, text: &str) -> TextId {
        if self.get(guess) == Some(text) {
            guess
        } else {
            self.id(text)
        }
    }

    fn optional(&mut self, guess: TextId, text: Option<&str>) -> TextId {
        text.map_or(NO_TEXT, |text| self.guessed(guess, text))
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

/// Metrics come in a cycle, row by row: after each the one that followed it the last time.
#[derive(Debug, Default)]
struct Cycle {
    /// By id the id that followed.
    after: Vec<TextId>,
    last: TextId,
}

impl Cycle {
    fn guess(&self) -> TextId {
        let after = self.after.get(self.last as usize);
        after.copied().unwrap_or(NO_TEXT)
    }

    fn step(&mut self, id: TextId) {
        let last = self.last as usize;
        if self.after.len() <= last {
            self.after.resize(last + 1, NO_TEXT);
        }
        self.after[last] = id;
        self.last = id;
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

/// A row of `digests`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DigestPart {
    pub(crate) stored: u64,
    pub(crate) quarantined: Option<u64>,
    pub(crate) epoch: i64,
    pub(crate) seq: i64,
    pub(crate) t_last_us: i64,
    pub(crate) replay: Option<i64>,
    pub(crate) device: TextId,
    pub(crate) samples: i32,
    pub(crate) lane: Lane,
}

/// Rows of all tables that wait for a flush.
#[derive(Debug, Default)]
pub struct Rows {
    pub(crate) texts: Texts,
    metric_cycle: Cycle,
    pub(crate) batches: Vec<BatchPart>,
    pub(crate) samples: Vec<SamplePart>,
    pub(crate) gaps: Vec<GapRow>,
    pub(crate) epochs: Vec<EpochRow>,
    pub(crate) logs: Vec<LogRow>,
    pub(crate) quarantine: Vec<QuarantineRow>,
    pub(crate) devices: Vec<DeviceRow>,
    pub(crate) metrics: Vec<MetricRow>,
    pub(crate) digests: Vec<DigestPart>,
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
        let last = self.batches.last();
        let guess = |text: fn(&BatchPart) -> TextId| last.map_or(NO_TEXT, text);
        let (device, site) = (guess(|b| b.device), guess(|b| b.site));
        let (device_type, via) = (guess(|b| b.device_type), guess(|b| b.via));
        let part = BatchPart {
            device: self.texts.guessed(device, row.device_id),
            site: self.texts.optional(site, row.site),
            device_type: self.texts.optional(device_type, row.device_type),
            via: self.texts.optional(via, row.via),
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
        let metric = self.texts.guessed(self.metric_cycle.guess(), row.metric);
        self.metric_cycle.step(metric);
        let tags = self.samples.last().map_or(NO_TEXT, |last| last.tags);
        let tags = self.texts.optional(tags, row.tags);
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
        check_time(row.t_first_us)?;
        check_time(row.t_last_us)?;
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
        narrow("record_lines", row.record_lines.unwrap_or(0))?;
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
        self.loose_bytes += heap([Some(&row.reason), row.metric.as_ref(), row.cause.as_ref()])
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

    /// Takes the digest of a batch.
    ///
    /// # Errors
    /// [`RowError`]; the row is then not taken.
    pub fn push_digest(&mut self, row: &DigestRow<'_>) -> Result<(), RowError> {
        check_time(row.t_last_us)?;
        let guess = self.digests.last().map_or(NO_TEXT, |last| last.device);
        let part = DigestPart {
            stored: row.stored,
            quarantined: row.quarantined,
            epoch: signed("epoch", row.epoch.get())?,
            seq: signed("seq", row.seq)?,
            t_last_us: row.t_last_us,
            replay: row.replay.map(|run| signed("replay", run)).transpose()?,
            device: self.texts.guessed(guess, row.device_id),
            samples: narrow("samples", row.samples)?,
            lane: row.lane,
        };
        self.digests.push(part);
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
            + self.digests.len()
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
            + self.metric_cycle.after.capacity() * size_of::<TextId>()
            + self.gaps.capacity() * size_of::<GapRow>()
            + self.epochs.capacity() * size_of::<EpochRow>()
            + self.logs.capacity() * size_of::<LogRow>()
            + self.quarantine.capacity() * size_of::<QuarantineRow>()
            + self.devices.capacity() * size_of::<DeviceRow>()
            + self.metrics.capacity() * size_of::<MetricRow>()
            + self.digests.capacity() * size_of::<DigestPart>()
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
