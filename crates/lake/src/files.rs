//! Core: a flush cut into files: one per table and UTC date, sorted, then encoded.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, BooleanBuilder, Float64Builder, StringBuilder};
use arrow_array::{ArrayRef, Int32Array, Int64Array, TimestampMicrosecondArray};
use headwater_proto::ids::Stream;
use parquet::errors::ParquetError;

use crate::date::day_of;
use crate::parquet::{CHUNK_ROWS, Origin, encode};
use crate::rows::{
    BatchPart, DeviceRow, DigestPart, EpochRow, GapRow, LogRow, MetricRow, QuarantineRow, Record,
    Rows, SamplePart, TextId, Texts, ValueKind, cut_to_ms,
};
use crate::schema::{Encoding, Table};

/// One file of a flush, ready to be staged.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) table: Table,
    pub(crate) day: i64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) rows: u64,
    pub(crate) times_us: (i64, i64),
    pub(crate) keys: (String, String),
}

/// Encodes the files of `rows` in commit order and hands each over before the next is begun.
pub(crate) fn for_each_file<E: From<ParquetError>>(
    rows: &Rows,
    encoding: Encoding,
    origin: Origin<'_>,
    mut take: impl FnMut(File) -> Result<(), E>,
) -> Result<(), E> {
    sample_files(rows, encoding, origin, &mut take)?;
    let mut cut = Cut {
        encoding,
        origin,
        take,
    };
    cut.files(
        Table::Logs,
        &rows.logs,
        |r| (&r.device_id, r.ts_us),
        log_columns,
    )?;
    cut.files(
        Table::Quarantine,
        &rows.quarantine,
        |r| (r.stream.device.as_str(), r.at_us),
        quarantine_columns,
    )?;
    cut.files(
        Table::Gaps,
        &rows.gaps,
        |r| (r.stream.device.as_str(), r.at_us),
        gap_columns,
    )?;
    cut.files(
        Table::Epochs,
        &rows.epochs,
        |r| (r.stream.device.as_str(), r.at_us),
        epoch_columns,
    )?;
    cut.files(
        Table::Devices,
        &rows.devices,
        |r| (&r.device_id, r.at_us),
        device_columns,
    )?;
    cut.files(
        Table::Metrics,
        &rows.metrics,
        |r| (&r.metric, r.at_us),
        metric_columns,
    )?;
    let device = |r: &DigestPart| rows.texts.get(r.device).unwrap_or_default();
    cut.files(
        Table::Digests,
        &rows.digests,
        |r| (device(r), r.t_last_us),
        |part| digest_columns(&rows.texts, part),
    )
}

/// By what a reading is sorted: 24 bytes.
#[derive(Clone, Copy)]
struct SortKey {
    ts_us: i64,
    device: u32,
    metric: u32,
    place: u32,
}

fn sample_files<E: From<ParquetError>>(
    rows: &Rows,
    encoding: Encoding,
    origin: Origin<'_>,
    take: &mut impl FnMut(File) -> Result<(), E>,
) -> Result<(), E> {
    let mut days: BTreeMap<i64, usize> = BTreeMap::new();
    for part in &rows.samples {
        *days.entry(day_of(part.ts_us)).or_default() += 1;
    }
    if days.is_empty() {
        return Ok(());
    }
    let ranks = rows.texts.ranks();
    for (day, count) in days {
        let mut keys = Vec::with_capacity(count);
        for (place, part) in (0u32..).zip(&rows.samples) {
            if day_of(part.ts_us) == day {
                let device = ranks[rows.batches[part.batch as usize].device as usize];
                let metric = ranks[part.metric as usize];
                keys.push(SortKey {
                    ts_us: part.ts_us,
                    device,
                    metric,
                    place,
                });
            }
        }
        match encoding {
            Encoding::Compact => {
                keys.sort_unstable_by_key(|k| (k.device, k.ts_us, k.metric, k.place));
            }
            Encoding::Compat => {
                keys.sort_unstable_by_key(|k| (k.device, k.metric, k.ts_us, k.place));
            }
        }
        let mut chunks = keys.chunks(CHUNK_ROWS);
        let bytes = encode(Table::Samples, encoding, count, origin, || {
            chunks.next().map(|keys| sample_columns(rows, keys))
        })?;
        let device = |key: Option<&SortKey>| {
            let part = key.map(|key| &rows.samples[key.place as usize]);
            let id = part.map(|part| rows.batches[part.batch as usize].device);
            id.and_then(|id| rows.texts.get(id))
                .unwrap_or_default()
                .to_owned()
        };
        let (first, last) = keys.iter().fold((i64::MAX, i64::MIN), |(lo, hi), key| {
            (lo.min(key.ts_us), hi.max(key.ts_us))
        });
        take(File {
            table: Table::Samples,
            day,
            bytes,
            rows: count as u64,
            times_us: (first, last),
            keys: (device(keys.first()), device(keys.last())),
        })?;
    }
    Ok(())
}

fn sample_columns(rows: &Rows, keys: &[SortKey]) -> Vec<ArrayRef> {
    let part = |key: &SortKey| rows.samples[key.place as usize];
    let of_part =
        |get: fn(&SamplePart) -> TextId| text_ids(&rows.texts, keys.iter().map(|k| get(&part(k))));
    let batch = |key: &SortKey| rows.batches[part(key).batch as usize];
    let of_batch =
        |get: fn(&BatchPart) -> TextId| text_ids(&rows.texts, keys.iter().map(|k| get(&batch(k))));
    let bits_of = |kind: ValueKind| {
        keys.iter().map(move |key| {
            let part = part(key);
            (part.kind == kind).then_some(part.bits)
        })
    };
    let mut floats = Float64Builder::with_capacity(keys.len());
    bits_of(ValueKind::F64).for_each(|bits| floats.append_option(bits.map(f64::from_bits)));
    let mut bools = BooleanBuilder::with_capacity(keys.len());
    bits_of(ValueKind::Bool).for_each(|bits| bools.append_option(bits.map(|bits| bits != 0)));
    // The id of a text was stored as the bits, so that it fits again.
    let text_of = |bits: Option<u64>| {
        bits.and_then(|bits| TextId::try_from(bits).ok())
            .unwrap_or(crate::rows::NO_TEXT)
    };
    vec![
        of_batch(|b| b.device),
        of_part(|p| p.metric),
        times(keys.iter().map(|k| Some(k.ts_us))),
        Arc::new(floats.finish()),
        longs(bits_of(ValueKind::I64).map(|bits| bits.map(u64::cast_signed))),
        text_ids(&rows.texts, bits_of(ValueKind::Str).map(text_of)),
        Arc::new(bools.finish()),
        of_batch(|b| b.site),
        of_batch(|b| b.device_type),
        of_part(|p| p.tags),
        times(keys.iter().map(|k| Some(batch(k).ingest_us))),
        texts(keys.iter().map(|k| Some(batch(k).lane.name()))),
        longs(keys.iter().map(|k| Some(batch(k).epoch))),
        longs(keys.iter().map(|k| Some(batch(k).seq))),
        ints(keys.iter().map(|k| Some(part(k).row))),
        ints(keys.iter().map(|k| Some(batch(k).batch_samples))),
        of_batch(|b| b.via),
        longs(keys.iter().map(|k| batch(k).time_err_ms.map(i64::from))),
        texts(keys.iter().map(|k| Some(batch(k).time_class.name()))),
    ]
}

/// Cuts the rows of the small tables.
struct Cut<'a, F> {
    encoding: Encoding,
    origin: Origin<'a>,
    take: F,
}

impl<F> Cut<'_, F> {
    fn files<'r, R, E: From<ParquetError>>(
        &mut self,
        table: Table,
        rows: &'r [R],
        key: impl Fn(&'r R) -> (&'r str, i64),
        columns: impl Fn(&[&R]) -> Vec<ArrayRef>,
    ) -> Result<(), E>
    where
        F: FnMut(File) -> Result<(), E>,
    {
        let mut days: BTreeMap<i64, Vec<&'r R>> = BTreeMap::new();
        for row in rows {
            days.entry(day_of(key(row).1)).or_default().push(row);
        }
        for (day, mut rows) in days {
            // Stable: rows of one key and instant stay in the order of the journal.
            rows.sort_by(|a, b| key(a).cmp(&key(b)));
            let mut chunks = rows.chunks(CHUNK_ROWS);
            let bytes = encode(table, self.encoding, rows.len(), self.origin, || {
                chunks.next().map(&columns)
            })?;
            let time = |row: &&'r R| key(row).1;
            let text = |row: Option<&&'r R>| row.map_or("", |row| key(row).0).to_owned();
            let times_us = (
                rows.iter().map(time).min().unwrap_or_default(),
                rows.iter().map(time).max().unwrap_or_default(),
            );
            let keys = (text(rows.first()), text(rows.last()));
            (self.take)(File {
                table,
                day,
                bytes,
                rows: rows.len() as u64,
                times_us,
                keys,
            })?;
        }
        Ok(())
    }
}

fn log_columns(rows: &[&LogRow]) -> Vec<ArrayRef> {
    let mut columns = vec![
        texts(rows.iter().map(|r| Some(&*r.device_id))),
        times(rows.iter().map(|r| Some(r.ts_us))),
        texts(rows.iter().map(|r| r.level.as_deref())),
        texts(rows.iter().map(|r| r.source.as_deref())),
        texts(rows.iter().map(|r| Some(&*r.message))),
        times(rows.iter().map(|r| Some(cut_to_ms(r.ingest_us)))),
        ints(rows.iter().map(|r| Some(int(r.line)))),
        longs(rows.iter().map(|r| r.time_err_ms.map(i64::from))),
        texts(rows.iter().map(|r| Some(r.time_class.name()))),
    ];
    columns.extend(record_columns(rows.iter().map(|r| r.record.as_ref())));
    columns.push(ints(rows.iter().map(|r| r.record_lines.map(int))));
    columns.push(longs(rows.iter().map(|r| r.told_us)));
    columns
}

fn quarantine_columns(rows: &[&QuarantineRow]) -> Vec<ArrayRef> {
    let mut payloads = BinaryBuilder::new();
    rows.iter()
        .for_each(|r| payloads.append_option(r.payload.as_deref()));
    let mut columns = stream_columns(rows.iter().map(|r| &r.stream));
    columns.extend([
        longs(rows.iter().map(|r| Some(long(r.seq)))),
        ints(rows.iter().map(|r| r.row.map(int))),
        texts(rows.iter().map(|r| r.metric.as_deref())),
        ints(rows.iter().map(|r| r.batch_samples.map(int))),
        ints(rows.iter().map(|r| Some(r.samples))),
        texts(rows.iter().map(|r| Some(&*r.reason))),
        Arc::new(payloads.finish()),
        times(rows.iter().map(|r| Some(r.at_us))),
        texts(rows.iter().map(|r| r.cause.as_deref())),
    ]);
    columns
}

fn gap_columns(rows: &[&GapRow]) -> Vec<ArrayRef> {
    let mut columns = stream_columns(rows.iter().map(|r| &r.stream));
    columns.extend([
        longs(rows.iter().map(|r| r.seqs.map(|(first, _)| long(first)))),
        longs(rows.iter().map(|r| r.seqs.map(|(_, last)| long(last)))),
        longs(rows.iter().map(|r| r.samples.map(long))),
        times(rows.iter().map(|r| Some(r.t_first_us))),
        times(rows.iter().map(|r| Some(r.t_last_us))),
        texts(rows.iter().map(|r| Some(&*r.reason))),
        texts(rows.iter().map(|r| Some(&*r.stage))),
        texts(rows.iter().map(|r| r.sink.as_deref())),
        times(rows.iter().map(|r| Some(r.at_us))),
    ]);
    columns.extend(record_columns(rows.iter().map(|r| r.record.as_ref())));
    columns.push(texts(rows.iter().map(|r| r.source.as_deref())));
    columns.push(texts(rows.iter().map(|r| Some(r.span.name()))));
    columns
}

fn epoch_columns(rows: &[&EpochRow]) -> Vec<ArrayRef> {
    let mut clean = BooleanBuilder::with_capacity(rows.len());
    rows.iter().for_each(|r| clean.append_option(r.clean));
    let mut columns = stream_columns(rows.iter().map(|r| &r.stream));
    columns.extend([
        longs(rows.iter().map(|r| Some(long(r.first_seq)))),
        longs(rows.iter().map(|r| Some(long(r.next_seq)))),
        texts(rows.iter().map(|r| Some(r.state.name()))),
        Arc::new(clean.finish()),
        longs(rows.iter().map(|r| r.boot.map(long))),
        times(rows.iter().map(|r| Some(r.at_us))),
    ]);
    columns.extend(record_columns(rows.iter().map(|r| r.record.as_ref())));
    columns
}

fn device_columns(rows: &[&DeviceRow]) -> Vec<ArrayRef> {
    vec![
        texts(rows.iter().map(|r| Some(&*r.device_id))),
        texts(rows.iter().map(|r| r.site.as_deref())),
        texts(rows.iter().map(|r| r.device_type.as_deref())),
        texts(rows.iter().map(|r| r.tags.as_deref())),
        texts(rows.iter().map(|r| r.software.as_deref())),
        texts(rows.iter().map(|r| r.via.as_deref())),
        times(rows.iter().map(|r| Some(r.at_us))),
    ]
}

fn metric_columns(rows: &[&MetricRow]) -> Vec<ArrayRef> {
    vec![
        texts(rows.iter().map(|r| Some(&*r.metric))),
        texts(rows.iter().map(|r| r.device_type.as_deref())),
        texts(rows.iter().map(|r| r.unit.as_deref())),
        texts(rows.iter().map(|r| Some(r.kind.column()))),
        times(rows.iter().map(|r| Some(r.at_us))),
    ]
}

fn digest_columns(all: &Texts, rows: &[&DigestPart]) -> Vec<ArrayRef> {
    vec![
        text_ids(all, rows.iter().map(|r| r.device)),
        texts(rows.iter().map(|r| Some(r.lane.name()))),
        longs(rows.iter().map(|r| Some(r.epoch))),
        longs(rows.iter().map(|r| Some(r.seq))),
        ints(rows.iter().map(|r| Some(r.samples))),
        longs(rows.iter().map(|r| Some(r.stored.cast_signed()))),
        longs(rows.iter().map(|r| r.quarantined.map(u64::cast_signed))),
        times(rows.iter().map(|r| Some(r.t_last_us))),
        longs(rows.iter().map(|r| r.replay)),
    ]
}

/// `device_id`, `lane`, `epoch`.
fn stream_columns<'a>(streams: impl Iterator<Item = &'a Stream> + Clone) -> Vec<ArrayRef> {
    vec![
        texts(streams.clone().map(|s| Some(s.device.as_str()))),
        texts(streams.clone().map(|s| Some(s.lane.name()))),
        longs(streams.map(|s| Some(long(s.epoch.get())))),
    ]
}

/// `rec_device`, `rec_lane`, `rec_epoch`, `rec_seq`.
fn record_columns<'a>(records: impl Iterator<Item = Option<&'a Record>> + Clone) -> [ArrayRef; 4] {
    let streams = || records.clone().map(|r| r.map(|r| &r.stream));
    [
        texts(streams().map(|s| s.map(|s| s.device.as_str()))),
        texts(streams().map(|s| s.map(|s| s.lane.name()))),
        longs(streams().map(|s| s.map(|s| long(s.epoch.get())))),
        longs(records.clone().map(|r| r.map(|r| long(r.seq)))),
    ]
}

/// Numbers were checked when the row was taken, so that none is cut here.
fn long(value: u64) -> i64 {
    value.cast_signed()
}

fn int(value: u32) -> i32 {
    value.cast_signed()
}

fn texts<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    let mut builder = StringBuilder::new();
    values.for_each(|value| builder.append_option(value));
    Arc::new(builder.finish())
}

fn text_ids(all: &Texts, ids: impl Iterator<Item = TextId>) -> ArrayRef {
    texts(ids.map(|id| all.get(id)))
}

fn longs(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(Int64Array::from_iter(values))
}

fn ints(values: impl Iterator<Item = Option<i32>>) -> ArrayRef {
    Arc::new(Int32Array::from_iter(values))
}

fn times(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter(values).with_timezone("UTC"))
}
