//! Core: what the interpreter says, as rows of the lake.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use headwater_lake::{
    DeviceRow, DigestRow, EpochRow, EpochState, GapRow, LogRow, MetricRow, QuarantineRow,
    Record as Carrier, RowError, Rows, SampleRow, SpanKind, ValueKind,
};
use headwater_proto::ids::{DeviceId, SeqRange, Stream};
use headwater_proto::message::{GapReason, Stage};
use headwater_proto::schema::ColumnKind;

use crate::interpret::time::class_of;
use crate::interpret::{
    DeviceNews, EpochChange, EpochNews, Gap, Interpreted, Line, Metric, Origin, Refused, Sample,
};
use crate::pipeline::envelope::Known;
use crate::pipeline::schemas::SchemaId;

/// The lake's name in the journal and the configuration.
pub const LAKE: &str = "lake";

/// Devices and metrics remembered, so that their rows are not written with each batch.
const MAX_REMEMBERED: usize = 262_144;

/// What became of records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RowCounters {
    /// Samples that became rows of `samples`.
    pub samples: u64,
    /// Rows of `gaps`.
    pub gaps: u64,
    /// Rows of `quarantine`.
    pub quarantined: u64,
    /// Log lines.
    pub log_lines: u64,
    /// Records that held nothing.
    pub empty_records: u64,
    /// Values that records say are missing.
    pub missing: u64,
}

/// Turns records into rows. Keeps what makes rows of `devices` and `metrics` rare.
#[derive(Debug, Default)]
pub struct RowMaker {
    devices: HashMap<DeviceId, u64>,
    metrics: HashSet<(Metric, Option<String>)>,
    /// Schemas used since the last flush, to be kept in the lake.
    used: BTreeMap<SchemaId, Arc<[u8]>>,
    /// By stream the newest stretch of records that held nothing.
    empty: BTreeMap<Stream, Empty>,
    hasher: RandomState,
    counters: RowCounters,
}

impl RowMaker {
    /// What became of records so far.
    #[must_use]
    pub const fn counters(&self) -> RowCounters {
        self.counters
    }

    /// The schemas used since [`RowMaker::kept`] was last called, in a fixed order.
    #[must_use]
    pub fn used(&self) -> Vec<Arc<[u8]>> {
        self.used.values().cloned().collect()
    }

    /// The lake keeps the used schemas.
    pub fn kept(&mut self) {
        self.used.clear();
    }

    /// Adds the rows of a record.
    ///
    /// # Errors
    /// [`RowError`] for what the lake cannot hold at all.
    pub fn push(&mut self, item: &Interpreted<'_>, rows: &mut Rows) -> Result<(), RowError> {
        if let Some(origin) = item.origin {
            self.samples(item, origin, rows)?;
            let refused: Vec<_> = item.refused().collect();
            let digest = item.digest(&refused);
            for refused in refused {
                self.counters.quarantined += 1;
                rows.push_quarantine(quarantine_row(origin, refused))?;
            }
            for line in item.lines.iter() {
                self.counters.log_lines += 1;
                rows.push_log(log_row(origin, line, item.lines.len()))?;
            }
            if let Some(digest) = digest {
                rows.push_digest(&DigestRow {
                    device_id: origin.device.as_str(),
                    lane: origin.lane,
                    epoch: origin.epoch,
                    seq: origin.seq,
                    samples: digest.samples,
                    stored: digest.stored,
                    quarantined: digest.quarantined,
                    t_last_us: digest.t_last_us,
                    replay: None,
                })?;
            }
            if let Some(device) = item.news.device {
                self.note_device(origin, device, rows)?;
                self.note_metrics(origin, device, item.news.metrics, rows)?;
            }
        }
        self.counters.missing += u64::from(item.missing);
        if let Some(known) = item.news.known {
            let bytes = || Arc::clone(&known.bytes);
            self.used.entry(known.id).or_insert_with(bytes);
        }
        for gap in item.gaps {
            self.gap(item, gap, rows)?;
        }
        for news in item.epochs {
            if let Some(row) = epoch_row(item, news) {
                rows.push_epoch(row)?;
            }
        }
        Ok(())
    }

    /// Adds what was held back for it may yet grow; before a flush.
    ///
    /// # Errors
    /// [`RowError`].
    pub fn finish(&mut self, rows: &mut Rows) -> Result<(), RowError> {
        let empty = std::mem::take(&mut self.empty);
        empty.into_iter().try_for_each(|(stream, empty)| {
            self.counters.gaps += 1;
            rows.push_gap(empty.row(stream))
        })
    }

    fn samples(
        &mut self,
        item: &Interpreted<'_>,
        origin: &Origin,
        rows: &mut Rows,
    ) -> Result<(), RowError> {
        let batch_samples = item.batch_samples();
        let device = item.news.device.unwrap_or_default();
        let via = origin.via.as_ref().map(DeviceId::as_str);
        let mut taken = 0;
        for sample in item.samples.iter() {
            let Sample {
                row, ts_us, class, ..
            } = sample;
            rows.push_sample(&SampleRow {
                device_id: origin.device.as_str(),
                metric: sample.metric,
                ts_us,
                value: sample.value,
                site: device.site,
                device_type: device.device_type,
                tags: (!sample.tags.is_empty()).then_some(sample.tags),
                ingest_us: origin.at.0,
                lane: origin.lane,
                epoch: origin.epoch,
                seq: origin.seq,
                row,
                batch_samples,
                via,
                time_err_ms: sample.error_ms,
                time_class: class_of(class),
            })?;
            taken += 1;
        }
        self.counters.samples += taken;
        Ok(())
    }

    /// A row of `devices` when what is known of the device changed.
    fn note_device(
        &mut self,
        origin: &Origin,
        device: DeviceNews<'_>,
        rows: &mut Rows,
    ) -> Result<(), RowError> {
        let state = self.hasher.hash_one((device, &origin.via));
        if self.devices.get(&origin.device) == Some(&state) {
            return Ok(());
        }
        if self.devices.len() >= MAX_REMEMBERED {
            self.devices.clear();
        }
        self.devices.insert(origin.device.clone(), state);
        rows.push_device(DeviceRow {
            device_id: origin.device.to_string(),
            site: device.site.map(str::to_owned),
            device_type: device.device_type.map(str::to_owned),
            tags: (!device.tags.is_empty()).then(|| device.tags.to_owned()),
            software: None,
            via: origin.via.as_ref().map(ToString::to_string),
            at_us: origin.at.0,
        })
    }

    /// A row of `metrics` for each name, unit and kind not seen before.
    fn note_metrics(
        &mut self,
        origin: &Origin,
        device: DeviceNews<'_>,
        metrics: &[Metric],
        rows: &mut Rows,
    ) -> Result<(), RowError> {
        for metric in metrics {
            let device_type = device.device_type.map(str::to_owned);
            let key = (metric.clone(), device_type.clone());
            if self.metrics.contains(&key) {
                continue;
            }
            if self.metrics.len() >= MAX_REMEMBERED {
                self.metrics.clear();
            }
            self.metrics.insert(key);
            rows.push_metric(MetricRow {
                metric: metric.name.clone(),
                device_type,
                unit: (!metric.unit.is_empty()).then(|| metric.unit.clone()),
                kind: kind_of(metric.kind),
                at_us: origin.at.0,
            })?;
        }
        Ok(())
    }

    fn gap(&mut self, item: &Interpreted<'_>, gap: &Gap, rows: &mut Rows) -> Result<(), RowError> {
        if let (GapReason::Empty, Some(range)) = (gap.reason, gap.range) {
            return self.empty(&gap.stream, range, gap.at.0, rows);
        }
        self.counters.gaps += 1;
        let is_sink = gap.stage == Stage::Sink && !is_of_lake(gap);
        let stage = if is_of_lake(gap) {
            Stage::Collector
        } else {
            gap.stage
        };
        rows.push_gap(GapRow {
            stream: gap.stream.clone(),
            seqs: gap.range.map(|range| (range.first, range.next - 1)),
            samples: gap.samples,
            t_first_us: gap.span.first.0,
            t_last_us: gap.span.last.0,
            span: span_of(gap.span.known),
            reason: gap.reason.name().to_owned(),
            stage: stage.name().to_owned(),
            sink: gap.part.clone().filter(|_| is_sink),
            at_us: gap.at.0,
            record: item.origin.filter(|_| gap.carried).map(carrier),
            source: gap.part.clone().filter(|_| gap.stage != Stage::Sink),
        })
    }

    /// Records that held nothing: one row for a stretch of them.
    fn empty(
        &mut self,
        stream: &Stream,
        range: SeqRange,
        at_us: i64,
        rows: &mut Rows,
    ) -> Result<(), RowError> {
        self.counters.empty_records += range.len();
        let new = Empty {
            range,
            since_us: at_us,
            at_us,
        };
        let Some(known) = self.empty.get_mut(stream) else {
            self.empty.insert(stream.clone(), new);
            return Ok(());
        };
        if known.range.next == range.first {
            known.range.next = range.next;
            known.since_us = known.since_us.min(at_us);
            known.at_us = at_us;
            return Ok(());
        }
        let before = std::mem::replace(known, new);
        self.counters.gaps += 1;
        rows.push_gap(before.row(stream.clone()))
    }
}

/// A stretch of records that held nothing.
#[derive(Debug, Clone, Copy)]
struct Empty {
    range: SeqRange,
    /// When the first one came.
    since_us: i64,
    /// When the last one came.
    at_us: i64,
}

impl Empty {
    fn row(self, stream: Stream) -> GapRow {
        GapRow {
            stream,
            seqs: Some((self.range.first, self.range.next - 1)),
            samples: Some(0),
            t_first_us: self.since_us,
            t_last_us: self.at_us.max(self.since_us),
            span: SpanKind::None,
            reason: GapReason::Empty.name().to_owned(),
            stage: Stage::Collector.name().to_owned(),
            sink: None,
            at_us: self.at_us,
            record: None,
            source: None,
        }
    }
}

/// Whether a gap names what the lake lacks though another sink has it: in the lake it is a loss like any
/// other.
pub(super) fn is_of_lake(gap: &Gap) -> bool {
    gap.stage == Stage::Sink && gap.part.as_deref() == Some(LAKE)
}

const fn span_of(known: Known) -> SpanKind {
    match known {
        Known::Exact => SpanKind::Exact,
        Known::Neighbours => SpanKind::Neighbours,
        Known::Bounds => SpanKind::Bounds,
        Known::Nothing => SpanKind::None,
    }
}

fn quarantine_row(origin: &Origin, refused: Refused<'_>) -> QuarantineRow {
    QuarantineRow {
        stream: origin.stream(),
        seq: origin.seq,
        row: refused.row,
        metric: refused.metric.map(std::borrow::Cow::into_owned),
        batch_samples: refused.batch_samples,
        samples: i32::try_from(refused.samples).unwrap_or(i32::MAX),
        reason: refused.reason.name().to_owned(),
        payload: Some(refused.payload.into_owned()),
        at_us: origin.at.0,
        cause: (!refused.cause.is_empty()).then(|| refused.cause.into_owned()),
    }
}

/// - `lines`: lines of the whole record.
fn log_row(origin: &Origin, line: Line<'_>, lines: u32) -> LogRow {
    LogRow {
        device_id: origin.device.to_string(),
        ts_us: line.ts_us,
        level: None,
        source: (!line.source.is_empty()).then(|| line.source.to_owned()),
        message: line.message.into_owned(),
        ingest_us: origin.at.0,
        line: line.line,
        time_err_ms: line.clock.error_ms,
        time_class: class_of(line.clock.class),
        record: Some(carrier(origin)),
        record_lines: Some(lines),
        told_us: line.told_us,
    }
}

/// The row of an epoch's end; what else happens to an epoch the lake says when it has seen it.
fn epoch_row(item: &Interpreted<'_>, news: &EpochNews) -> Option<EpochRow> {
    let EpochChange::Ended { end, boot } = news.change else {
        return None;
    };
    Some(EpochRow {
        stream: news.stream.clone(),
        first_seq: end.first,
        next_seq: end.next,
        state: EpochState::Ended,
        clean: Some(end.clean),
        boot: boot_of(boot),
        at_us: item.at.0,
        record: item.origin.map(carrier),
    })
}

fn carrier(origin: &Origin) -> Carrier {
    Carrier {
        stream: origin.stream(),
        seq: origin.seq,
    }
}

/// A boot as the lake's signed column holds it; unknown is null.
#[must_use]
pub fn boot_of(boot: u64) -> Option<u64> {
    (boot != 0).then_some(boot & (u64::MAX >> 1))
}

const fn kind_of(kind: ColumnKind) -> ValueKind {
    match kind {
        ColumnKind::Bool => ValueKind::Bool,
        ColumnKind::I64 => ValueKind::I64,
        ColumnKind::F32 | ColumnKind::F64 => ValueKind::F64,
        ColumnKind::Str => ValueKind::Str,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::envelope::Clock;
    use headwater_proto::ids::{Epoch, Lane};
    use headwater_proto::time::UnixMicros;

    fn origin(device: &str) -> Origin {
        Origin {
            device: DeviceId::new(device).unwrap(),
            lane: Lane::Normal,
            epoch: Epoch::new(1),
            seq: 0,
            at: UnixMicros(1),
            clock: Clock::SYNCED,
            via: None,
        }
    }

    fn metric(name: &str) -> Metric {
        Metric {
            name: name.to_owned(),
            unit: String::new(),
            kind: ColumnKind::F64,
        }
    }

    #[test]
    fn devices_beyond_those_remembered_cost_a_row_of_each_again() {
        let mut maker = RowMaker::default();
        let spare = |n| (DeviceId::new(&format!("spare-{n}")).unwrap(), 0);
        maker.devices = (1..MAX_REMEMBERED).map(spare).collect();
        let mut rows_of = |device: &str| {
            let mut rows = Rows::new();
            let news = DeviceNews::default();
            maker.note_device(&origin(device), news, &mut rows).unwrap();
            (rows.len(), maker.devices.len())
        };
        assert_eq!(rows_of("known"), (1, MAX_REMEMBERED));
        assert_eq!(rows_of("known"), (0, MAX_REMEMBERED));
        assert_eq!(rows_of("one more"), (1, 1));
        assert_eq!(rows_of("known"), (1, 2));
    }

    #[test]
    fn metrics_beyond_those_remembered_cost_a_row_of_each_again() {
        let mut maker = RowMaker::default();
        let spare = |n| (metric(&format!("spare-{n}")), None);
        maker.metrics = (1..MAX_REMEMBERED).map(spare).collect();
        let mut rows_of = |name: &str| {
            let mut rows = Rows::new();
            let news = DeviceNews::default();
            maker
                .note_metrics(&origin("d"), news, &[metric(name)], &mut rows)
                .unwrap();
            (rows.len(), maker.metrics.len())
        };
        assert_eq!(rows_of("known"), (1, MAX_REMEMBERED));
        assert_eq!(rows_of("known"), (0, MAX_REMEMBERED));
        assert_eq!(rows_of("one more"), (1, 1));
        assert_eq!(rows_of("known"), (1, 2));
    }
}
