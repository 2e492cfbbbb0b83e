//! Core: journal records as rows of the lake.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};

use headwater_lake::{
    DeviceRow, EpochRow, EpochState, GapRow, LogRow, MetricRow, QuarantineRow, Record as Carrier,
    RowError, Rows, SampleRow, ValueKind, rows,
};
use headwater_proto::codec::BatchHeader;
use headwater_proto::frame::{self, Frame, Kind};
use headwater_proto::ids::{DeviceId, Epoch, Lane, Stream};
use headwater_proto::message::{self, EpochEnd, Gap, GapReason, Stage};
use headwater_proto::refused::Refused as ProtoRefused;
use headwater_proto::schema::ColumnKind;
use headwater_proto::text::{Lines, TextHeader};

use crate::pipeline::decode::{Metric, Reading, Readings};
use crate::pipeline::envelope::{BatchHead, GapHead, RawHead, Reason, TimeClass, Verdict};
use crate::pipeline::schemas::{SchemaBook, SchemaId};

/// Devices and metrics remembered, so that their rows are not written with each batch.
const MAX_REMEMBERED: usize = 262_144;

/// Which times are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeWindow {
    /// Oldest age against the time of receipt, in microseconds; `None` takes any.
    pub max_late_us: Option<i64>,
    /// Furthest ahead of the time of receipt, in microseconds.
    pub max_ahead_us: i64,
}

impl Default for TimeWindow {
    fn default() -> Self {
        const HOUR_US: i64 = 3_600 * 1_000_000;
        Self {
            max_late_us: Some(30 * 24 * HOUR_US),
            max_ahead_us: HOUR_US,
        }
    }
}

/// What became of records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RowCounters {
    /// Readings that became rows of `samples`.
    pub samples: u64,
    /// Rows of `gaps`.
    pub gaps: u64,
    /// Rows of `quarantine`.
    pub quarantined: u64,
    /// Log lines.
    pub log_lines: u64,
}

/// Turns records into rows. Keeps what makes rows of `devices` and `metrics` rare.
#[derive(Debug)]
pub struct RowMaker {
    schemas: SchemaBook,
    window: TimeWindow,
    readings: Readings,
    devices: HashMap<DeviceId, u64>,
    metrics: HashSet<(Metric, Option<String>)>,
    /// Schemas used since the last flush, to be kept in the lake.
    used: HashSet<SchemaId>,
    hasher: RandomState,
    counters: RowCounters,
}

impl RowMaker {
    /// Reads schemas from `schemas`.
    #[must_use]
    pub fn new(schemas: SchemaBook, window: TimeWindow) -> Self {
        Self {
            schemas,
            window,
            readings: Readings::default(),
            devices: HashMap::new(),
            metrics: HashSet::new(),
            used: HashSet::new(),
            hasher: RandomState::new(),
            counters: RowCounters::default(),
        }
    }

    /// What became of records so far.
    #[must_use]
    pub const fn counters(&self) -> RowCounters {
        self.counters
    }

    /// The schemas used since [`RowMaker::kept`] was last called, in a fixed order.
    #[must_use]
    pub fn used(&self) -> Vec<std::sync::Arc<[u8]>> {
        let mut used: Vec<_> = self.used.iter().collect();
        used.sort_unstable();
        used.into_iter()
            .filter_map(|id| self.schemas.bytes(id))
            .collect()
    }

    /// The lake keeps the used schemas.
    pub fn kept(&mut self) {
        self.used.clear();
    }

    /// Adds the rows of a numbered frame.
    ///
    /// # Errors
    /// [`RowError`] for what the lake cannot hold at all.
    pub fn batch(
        &mut self,
        head: &BatchHead,
        bytes: &[u8],
        rows: &mut Rows,
    ) -> Result<(), RowError> {
        if let Verdict::Quarantine(reason) = head.verdict {
            return self.quarantine(head, reason.name(), None, bytes, rows);
        }
        let Ok((frame, _)) = frame::decode(bytes) else {
            return self.lost(head, Reason::Undecodable, None, bytes, rows);
        };
        match frame.kind {
            Kind::Batch => match self.readings.read_batch(head, frame.payload, &self.schemas) {
                Ok(()) => self.samples(rows),
                Err(_) => {
                    let samples = BatchHeader::peek(frame.payload).ok().map(|h| h.samples);
                    self.lost(head, Reason::Undecodable, samples, bytes, rows)
                }
            },
            Kind::Gap => match message::decode::<Gap>(frame.payload) {
                Ok(gap) => self.gap(head, &gap, rows),
                Err(_) => self.lost(head, Reason::Undecodable, None, bytes, rows),
            },
            Kind::EpochEnd => match message::decode::<EpochEnd>(frame.payload) {
                Ok(end) => epoch_end(head, &end, rows),
                Err(_) => self.lost(head, Reason::Undecodable, None, bytes, rows),
            },
            Kind::Text => match log_lines(head, &frame, &self.schemas) {
                Some((dictionary, lines)) => {
                    self.used.extend(dictionary);
                    self.counters.log_lines += lines.len() as u64;
                    lines.into_iter().try_for_each(|line| rows.push_log(line))
                }
                None => self.lost(head, Reason::Undecodable, None, bytes, rows),
            },
            Kind::Refused => match ProtoRefused::decode(frame.payload) {
                Some(refused) => self.refused_input(head, &refused, rows),
                None => self.lost(head, Reason::Undecodable, None, bytes, rows),
            },
            Kind::TimeBase => self.empty(head, rows),
            Kind::Blob
            | Kind::Summary
            | Kind::Schema
            | Kind::BundleHead
            | Kind::Hello
            | Kind::Stat
            | Kind::Welcome
            | Kind::Ack
            | Kind::Reject
            | Kind::SchemaRequest
            | Kind::Config
            | Kind::Command => self.lost(head, Reason::UnknownKind, None, bytes, rows),
        }
    }

    /// Adds the rows of a plain publish.
    ///
    /// # Errors
    /// [`RowError`] for what the lake cannot hold at all.
    pub fn raw(
        &mut self,
        head: &RawHead<'_>,
        payload: &[u8],
        rows: &mut Rows,
    ) -> Result<(), RowError> {
        let stream = plain_stream(head);
        let reason = match head.verdict {
            Verdict::Quarantine(reason) => reason,
            Verdict::Store => match self.readings.read_raw(head, payload) {
                Ok(()) => return self.samples(rows),
                Err(_) => Reason::BadPayload,
            },
        };
        // One row stands for the publish: its only reading is that nobody could read it.
        self.counters.quarantined += 1;
        rows.push_quarantine(QuarantineRow {
            stream,
            seq: head.seq,
            row: None,
            metric: (!head.topic.is_empty()).then(|| head.topic.to_owned()),
            batch_samples: Some(1),
            samples: 1,
            reason: reason.name().to_owned(),
            payload: Some(payload.to_vec()),
            at_us: head.at.0,
        })
    }

    /// Adds the row of a loss that the collector named.
    ///
    /// # Errors
    /// [`RowError`].
    pub fn named(&mut self, head: &GapHead, rows: &mut Rows) -> Result<(), RowError> {
        self.counters.gaps += 1;
        rows.push_gap(GapRow {
            stream: head.stream.clone(),
            seqs: head
                .range
                .filter(|r| !r.is_empty())
                .map(|r| (r.first, r.next - 1)),
            samples: None,
            t_first_us: None,
            t_last_us: None,
            reason: head.reason.name().to_owned(),
            stage: Stage::Collector.name().to_owned(),
            sink: None,
            at_us: head.at.0,
            record: None,
            source: None,
        })
    }

    fn samples(&mut self, rows: &mut Rows) -> Result<(), RowError> {
        let Some(origin) = self.readings.origin() else {
            return Ok(());
        };
        let batch_samples = u32::try_from(self.readings.len()).unwrap_or(u32::MAX);
        let (site, device_type) = (self.readings.site(), self.readings.device_type());
        let via = origin.via.as_ref().map(DeviceId::as_str);
        let (time_class, time_err_ms) = (class_of(origin.clock.class), origin.clock.error_ms);
        let (mut taken, mut refused) = (0, 0);
        for reading in self.readings.iter() {
            let refusal = if origin.clock.class == TimeClass::Undated {
                Some("undated")
            } else if self.believes(reading.ts_us, origin.at.0) {
                let row = SampleRow {
                    device_id: origin.device.as_str(),
                    metric: reading.metric,
                    ts_us: reading.ts_us,
                    value: reading.value,
                    site,
                    device_type,
                    tags: (!reading.tags.is_empty()).then_some(reading.tags),
                    ingest_us: origin.at.0,
                    lane: origin.lane,
                    epoch: origin.epoch,
                    seq: origin.seq,
                    row: reading.row,
                    batch_samples,
                    via,
                    time_err_ms,
                    time_class,
                };
                rows.push_sample(&row).err().map(|_| "impossible_value")
            } else {
                Some("impossible_time")
            };
            let Some(reason) = refusal else {
                taken += 1;
                continue;
            };
            refused += 1;
            rows.push_quarantine(QuarantineRow {
                stream: Stream {
                    device: origin.device.clone(),
                    lane: origin.lane,
                    epoch: origin.epoch,
                },
                seq: origin.seq,
                row: Some(reading.row),
                metric: Some(reading.metric.to_owned()),
                batch_samples: Some(batch_samples),
                samples: 1,
                reason: reason.to_owned(),
                payload: Some(described(&reading)),
                at_us: origin.at.0,
            })?;
        }
        self.counters.samples += taken;
        self.counters.quarantined += refused;
        if let Some(id) = self.readings.schema() {
            self.used.insert(*id);
        }
        self.note_device(rows)?;
        self.note_metrics(rows)
    }

    fn believes(&self, ts_us: i64, at_us: i64) -> bool {
        let late = at_us.saturating_sub(ts_us);
        self.window.max_late_us.is_none_or(|most| late <= most)
            && late.saturating_neg() <= self.window.max_ahead_us
    }

    /// A row of `devices` when what is known of the device changed.
    fn note_device(&mut self, rows: &mut Rows) -> Result<(), RowError> {
        let Some(origin) = self.readings.origin() else {
            return Ok(());
        };
        let (site, device_type) = (self.readings.site(), self.readings.device_type());
        let tags = self.readings.device_tags();
        let state = self.hasher.hash_one((site, device_type, tags, &origin.via));
        if self.devices.get(&origin.device) == Some(&state) {
            return Ok(());
        }
        if self.devices.len() >= MAX_REMEMBERED {
            self.devices.clear();
        }
        self.devices.insert(origin.device.clone(), state);
        rows.push_device(DeviceRow {
            device_id: origin.device.to_string(),
            site: site.map(str::to_owned),
            device_type: device_type.map(str::to_owned),
            tags: (!tags.is_empty()).then(|| tags.to_owned()),
            software: None,
            via: origin.via.as_ref().map(ToString::to_string),
            at_us: origin.at.0,
        })
    }

    /// A row of `metrics` for each name, unit and kind not seen before.
    fn note_metrics(&mut self, rows: &mut Rows) -> Result<(), RowError> {
        let Some(origin) = self.readings.origin() else {
            return Ok(());
        };
        let device_type = self.readings.device_type();
        for metric in self.readings.metrics() {
            let key = (metric.clone(), device_type.map(str::to_owned));
            if self.metrics.contains(&key) {
                continue;
            }
            if self.metrics.len() >= MAX_REMEMBERED {
                self.metrics.clear();
            }
            self.metrics.insert(key);
            rows.push_metric(MetricRow {
                metric: metric.name.clone(),
                device_type: device_type.map(str::to_owned),
                unit: (!metric.unit.is_empty()).then(|| metric.unit.clone()),
                kind: kind_of(metric.kind),
                at_us: origin.at.0,
            })?;
        }
        Ok(())
    }

    fn gap(&mut self, head: &BatchHead, gap: &Gap, rows: &mut Rows) -> Result<(), RowError> {
        self.counters.gaps += 1;
        let part = gap.part.as_ref().map(|part| part.as_str().to_owned());
        let is_sink = gap.stage == Stage::Sink;
        rows.push_gap(GapRow {
            stream: Stream {
                device: gap.origin.clone(),
                lane: gap.lane,
                epoch: gap.epoch,
            },
            seqs: gap
                .seqs
                .filter(|r| !r.is_empty())
                .map(|r| (r.first, r.next - 1)),
            samples: gap.samples,
            t_first_us: gap.t_first.map(|t| t.0),
            t_last_us: gap.t_last.map(|t| t.0),
            reason: gap.reason.name().to_owned(),
            stage: gap.stage.name().to_owned(),
            sink: part.clone().filter(|_| is_sink),
            at_us: in_range(gap.at.0, head.at.0),
            record: Some(carrier(head)),
            source: part.filter(|_| !is_sink),
        })
    }

    /// Parts of an input that a source could not read: a row of quarantine each.
    fn refused_input(
        &mut self,
        head: &BatchHead,
        refused: &ProtoRefused<'_>,
        rows: &mut Rows,
    ) -> Result<(), RowError> {
        for (row, part) in (0u32..).zip(refused.parts()) {
            self.counters.quarantined += 1;
            rows.push_quarantine(QuarantineRow {
                stream: head.stream.clone(),
                seq: head.seq,
                row: Some(row),
                metric: None,
                batch_samples: Some(refused.count),
                samples: 1,
                reason: format!(
                    "refused_input: {}, {}: {}",
                    refused.source, part.place, part.cause
                ),
                payload: Some(part.bytes.to_vec()),
                at_us: head.at.0,
            })?;
        }
        Ok(())
    }

    /// A record that holds no sample: its number is told as a gap of none, so that it is not missed.
    fn empty(&mut self, head: &BatchHead, rows: &mut Rows) -> Result<(), RowError> {
        rows.push_gap(GapRow {
            stream: head.stream.clone(),
            seqs: Some((head.seq, head.seq)),
            samples: Some(0),
            t_first_us: None,
            t_last_us: None,
            reason: GapReason::Empty.name().to_owned(),
            stage: Stage::Collector.name().to_owned(),
            sink: None,
            at_us: head.at.0,
            record: None,
            source: None,
        })
    }

    /// A record in custody that nobody can read: its bytes to quarantine, its number to a gap.
    fn lost(
        &mut self,
        head: &BatchHead,
        reason: Reason,
        samples: Option<u32>,
        bytes: &[u8],
        rows: &mut Rows,
    ) -> Result<(), RowError> {
        self.quarantine(head, reason.name(), samples, bytes, rows)?;
        self.counters.gaps += 1;
        rows.push_gap(GapRow {
            stream: head.stream.clone(),
            seqs: Some((head.seq, head.seq)),
            samples: samples.map(u64::from),
            t_first_us: None,
            t_last_us: None,
            reason: GapReason::Undecodable.name().to_owned(),
            stage: Stage::Collector.name().to_owned(),
            sink: None,
            at_us: head.at.0,
            record: None,
            source: None,
        })
    }

    fn quarantine(
        &mut self,
        head: &BatchHead,
        reason: &str,
        batch_samples: Option<u32>,
        bytes: &[u8],
        rows: &mut Rows,
    ) -> Result<(), RowError> {
        self.counters.quarantined += 1;
        rows.push_quarantine(QuarantineRow {
            stream: head.stream.clone(),
            seq: head.seq,
            row: None,
            metric: None,
            batch_samples,
            samples: 0,
            reason: reason.to_owned(),
            payload: Some(bytes.to_vec()),
            at_us: head.at.0,
        })
    }
}

/// The stream of a plain device under its journal.
#[must_use]
pub fn plain_stream(head: &RawHead<'_>) -> Stream {
    Stream {
        device: head.device.clone(),
        lane: Lane::Plain,
        epoch: Epoch::new(head.journal.0),
    }
}

fn epoch_end(head: &BatchHead, end: &EpochEnd, rows: &mut Rows) -> Result<(), RowError> {
    rows.push_epoch(EpochRow {
        stream: Stream {
            device: end.origin.clone(),
            lane: end.lane,
            epoch: end.epoch,
        },
        first_seq: end.first,
        next_seq: end.next,
        state: EpochState::Ended,
        clean: Some(end.clean),
        boot: boot_of(end.boot),
        at_us: head.at.0,
        record: Some(carrier(head)),
    })
}

fn carrier(head: &BatchHead) -> Carrier {
    Carrier {
        stream: head.stream.clone(),
        seq: head.seq,
    }
}

/// A boot as the lake's signed column holds it; unknown is null.
#[must_use]
pub fn boot_of(boot: u64) -> Option<u64> {
    (boot != 0).then_some(boot & (u64::MAX >> 1))
}

const fn class_of(class: TimeClass) -> rows::TimeClass {
    match class {
        TimeClass::Synced => rows::TimeClass::Synced,
        TimeClass::Wall => rows::TimeClass::Wall,
        TimeClass::Dated | TimeClass::Undated => rows::TimeClass::Offset,
        TimeClass::Received => rows::TimeClass::Received,
    }
}

const fn kind_of(kind: ColumnKind) -> ValueKind {
    match kind {
        ColumnKind::Bool => ValueKind::Bool,
        ColumnKind::I64 => ValueKind::I64,
        ColumnKind::F32 | ColumnKind::F64 => ValueKind::F64,
        ColumnKind::Str => ValueKind::Str,
    }
}

/// A time that its namer's clock got wrong is replaced by that of receipt.
fn in_range(at_us: i64, otherwise: i64) -> i64 {
    if (0..rows_max()).contains(&at_us) {
        at_us
    } else {
        otherwise
    }
}

/// The year 9999: what a partition can name.
const fn rows_max() -> i64 {
    headwater_lake::schema::MAX_TIME_US
}

fn described(reading: &Reading<'_>) -> Vec<u8> {
    format!("{} us, {:?}", reading.ts_us, reading.value).into_bytes()
}

/// The lines of a Text frame, and the dictionary that it took to read them; `None` if it is damaged.
fn log_lines(
    head: &BatchHead,
    frame: &Frame<'_>,
    schemas: &SchemaBook,
) -> Option<(Option<SchemaId>, Vec<LogRow>)> {
    let (header, body) = TextHeader::read(frame.payload)?;
    let stream = &head.stream;
    let dictionary = match header.dictionary {
        Some(number) => Some(schemas.dictionary(&stream.device, stream.epoch, number)?),
        None => None,
    };
    let known = dictionary.as_ref().map_or(&[][..], |(_, bytes)| bytes);
    let mut zstd = zstd::bulk::Decompressor::with_dictionary(known).ok()?;
    let body = zstd.decompress(body, header.body_bytes).ok()?;
    let mut walk = Lines::new(&body, header.first_time_us);
    let mut lines = Vec::new();
    for line in 0..header.lines {
        let (ts_us, text) = walk.next()?;
        let ts_us = ts_us.saturating_add(head.clock.offset_us);
        lines.push(LogRow {
            device_id: head.stream.device.to_string(),
            ts_us: in_range(ts_us, head.at.0),
            level: None,
            source: (!header.name.is_empty()).then(|| header.name.to_owned()),
            message: String::from_utf8_lossy(text).into_owned(),
            ingest_us: head.at.0,
            line,
            time_err_ms: head.clock.error_ms,
            time_class: class_of(head.clock.class),
            record: Some(carrier(head)),
        });
    }
    walk.is_done()
        .then(|| (dictionary.map(|(id, _)| id), lines))
}
