//! Flushes and what a plain reader of Parquet finds of them.

use std::collections::BTreeMap;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, RecordBatch};
use headwater_lake::row_hash::{LineFields, RefusedFields, RowHasher, SampleFields};
use headwater_lake::{
    Claim, DeviceRow, DigestRow, EpochRow, EpochState, Flush, GapRow, Lake, LogRow, MemStore, Plan,
    QuarantineRow, Record, Rows, SampleRow, Settings, SpanKind, Store, Table, TimeClass,
};
use headwater_proto::ids::{DeviceId, Epoch, JournalId, Lane, Stream};
use headwater_proto::sample::Value;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

pub(crate) const JOURNAL: JournalId = JournalId(0xabc);

/// 2026-11-22T00:00:00Z.
pub(crate) const MIDNIGHT_US: i64 = 1_795_305_600_000_000;

pub(crate) fn stream(device: &str) -> Stream {
    Stream {
        device: DeviceId::new(device).unwrap(),
        lane: Lane::Normal,
        epoch: Epoch::new(7),
    }
}

pub(crate) fn sample<'a>(device: &'a str, seq: u64, row: u32, value: Value<'a>) -> SampleRow<'a> {
    SampleRow {
        device_id: device,
        metric: "m",
        ts_us: MIDNIGHT_US + i64::try_from(seq).unwrap() * 1_000_000 + i64::from(row) * 1_000,
        value,
        site: Some("hall"),
        device_type: None,
        tags: Some("{\"a\":\"b\"}"),
        ingest_us: MIDNIGHT_US + 123_456,
        lane: Lane::Normal,
        epoch: Epoch::new(7),
        seq,
        row,
        batch_samples: 2,
        via: None,
        time_err_ms: None,
        time_class: TimeClass::Synced,
    }
}

/// Two readings for each number.
pub(crate) fn push_batches(rows: &mut Rows, device: &str, seqs: std::ops::Range<u64>) {
    for seq in seqs {
        for row in 0..2 {
            let value = Value::F64(f64::from(row) + seq as f64);
            rows.push_sample(&sample(device, seq, row, value)).unwrap();
        }
    }
}

/// What a collector says of batch `seq`, which has these rows, or of a log record.
pub(crate) fn push_digest(
    rows: &mut Rows,
    (stream, seq): (&Stream, u64),
    samples: &[SampleRow<'_>],
    lines: &[LogRow],
    refused: &[QuarantineRow],
) {
    let mut hasher = RowHasher::default();
    let (mut stored, mut quarantined, mut t_last_us) = (0u64, None, 0);
    for row in samples {
        stored = stored.wrapping_add(hasher.sample(&SampleFields {
            row: row.row,
            ts_us: row.ts_us,
            value: Some(row.value),
            time_err_ms: row.time_err_ms.map(i64::from),
            time_class: row.time_class.name(),
            metric: row.metric,
            tags: row.tags,
            site: row.site,
            device_type: row.device_type,
        }));
        t_last_us = t_last_us.max(row.ts_us);
    }
    for row in lines {
        stored = stored.wrapping_add(hasher.line(&LineFields {
            line: row.line,
            ts_us: row.ts_us,
            told_us: row.told_us,
            time_err_ms: row.time_err_ms.map(i64::from),
            time_class: row.time_class.name(),
            level: row.level.as_deref(),
            source: row.source.as_deref(),
            message: &row.message,
        }));
        t_last_us = t_last_us.max(row.ts_us);
    }
    for row in refused {
        let hash = hasher.refused(&RefusedFields {
            row: row.row,
            at_us: row.at_us,
            samples: row.samples,
            metric: row.metric.as_deref(),
            reason: &row.reason,
            payload: row.payload.as_deref(),
        });
        quarantined = Some(quarantined.unwrap_or(0u64).wrapping_add(hash));
        t_last_us = t_last_us.max(row.at_us);
    }
    let digest = DigestRow {
        device_id: stream.device.as_str(),
        lane: stream.lane,
        epoch: stream.epoch,
        seq,
        samples: u32::try_from(samples.len() + lines.len() + refused.len()).unwrap(),
        stored,
        quarantined,
        t_last_us,
        replay: None,
    };
    rows.push_digest(&digest).unwrap();
}

/// As [`push_batches`], each with its digest.
pub(crate) fn push_digested(rows: &mut Rows, device: &str, seqs: std::ops::Range<u64>) {
    push_batches(rows, device, seqs.clone());
    for seq in seqs {
        let of = |row: u32| sample(device, seq, row, Value::F64(f64::from(row) + seq as f64));
        push_digest(rows, (&stream(device), seq), &[of(0), of(1)], &[], &[]);
    }
}

pub(crate) fn device(name: &str) -> DeviceRow {
    DeviceRow {
        device_id: name.to_owned(),
        site: Some("hall".into()),
        device_type: None,
        tags: None,
        software: None,
        via: None,
        at_us: MIDNIGHT_US,
    }
}

pub(crate) fn gap(stream: &Stream, first: u64, last: u64) -> GapRow {
    GapRow {
        stream: stream.clone(),
        seqs: Some((first, last)),
        samples: Some(2 * (last + 1 - first)),
        t_first_us: MIDNIGHT_US,
        t_last_us: MIDNIGHT_US + 1_000,
        span: SpanKind::Exact,
        reason: "evicted".into(),
        stage: "agent".into(),
        sink: None,
        at_us: MIDNIGHT_US,
        record: None,
        source: None,
    }
}

/// One line of record `seq`.
pub(crate) fn line(stream: &Stream, seq: u64, line: u32) -> LogRow {
    LogRow {
        device_id: stream.device.to_string(),
        ts_us: MIDNIGHT_US + i64::from(line),
        level: None,
        source: None,
        message: "m".into(),
        ingest_us: MIDNIGHT_US,
        line,
        time_err_ms: None,
        time_class: TimeClass::Synced,
        record: Some(Record {
            stream: stream.clone(),
            seq,
        }),
        record_lines: None,
        told_us: None,
    }
}

/// The second reading of batch `seq`, which has two, refused for its time.
pub(crate) fn refused(stream: &Stream, seq: u64) -> QuarantineRow {
    QuarantineRow {
        stream: stream.clone(),
        seq,
        row: Some(1),
        metric: Some("m".into()),
        batch_samples: Some(2),
        samples: 1,
        reason: "time_in_the_future".into(),
        cause: None,
        payload: None,
        at_us: MIDNIGHT_US,
    }
}

pub(crate) fn epoch(stream: &Stream, next: u64, state: EpochState) -> EpochRow {
    EpochRow {
        stream: stream.clone(),
        first_seq: 0,
        next_seq: next,
        state,
        clean: None,
        boot: None,
        at_us: MIDNIGHT_US,
        record: None,
    }
}

pub(crate) fn claim() -> Claim {
    Claim::new(JOURNAL, MIDNIGHT_US)
}

/// A claim of another journal, which waits for nobody.
pub(crate) fn takeover(journal: JournalId) -> Claim {
    Claim {
        take_over: true,
        ..Claim::new(journal, MIDNIGHT_US + 1)
    }
}

pub(crate) fn open(store: &MemStore) -> Lake<MemStore> {
    Lake::open(store.clone(), Settings::default(), &claim()).unwrap()
}

/// All four steps.
pub(crate) fn flush(lake: &mut Lake<MemStore>, positions: (u64, u64), rows: &Rows) -> Plan {
    let plan = lake.stage(&flush_of(positions, rows)).unwrap();
    lake.publish(&plan).unwrap();
    lake.commit(&plan).unwrap();
    lake.finish(&plan).unwrap();
    plan
}

pub(crate) fn flush_of(positions: (u64, u64), rows: &Rows) -> Flush<'_> {
    let (first_pos, last_pos) = positions;
    Flush {
        journal: JOURNAL,
        first_pos,
        last_pos,
        at_us: MIDNIGHT_US,
        rows,
        sinks: &[],
    }
}

/// The rows of a table, read through the log, each as text.
pub(crate) fn read(store: &MemStore, table: Table) -> Vec<BTreeMap<String, String>> {
    let log = headwater_lake::delta::Log::load(store, table).unwrap();
    let mut rows = Vec::new();
    log.files::<headwater_lake::delta::LogError>(store, |add| {
        let bytes = store
            .get(&format!("{}/{}", table.name(), add.path))
            .unwrap();
        for batch in ParquetRecordBatchReaderBuilder::try_new(bytes)
            .unwrap()
            .build()
            .unwrap()
        {
            let batch = batch.unwrap();
            for row in 0..batch.num_rows() {
                let mut cells = cells(&batch, row);
                cells.insert("dt".into(), add.dt.clone());
                rows.push(cells);
            }
        }
        Ok(())
    })
    .unwrap();
    rows
}

fn cells(batch: &RecordBatch, row: usize) -> BTreeMap<String, String> {
    let mut cells = BTreeMap::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        if column.is_null(row) {
            continue;
        }
        let text = if let Some(a) = column.as_string_opt::<i32>() {
            a.value(row).to_owned()
        } else if let Some(a) = column.as_primitive_opt::<Int64Type>() {
            a.value(row).to_string()
        } else if let Some(a) = column.as_primitive_opt::<Int32Type>() {
            a.value(row).to_string()
        } else if let Some(a) = column.as_primitive_opt::<TimestampMicrosecondType>() {
            a.value(row).to_string()
        } else if let Some(a) = column.as_primitive_opt::<Float64Type>() {
            format!("{:016x}", a.value(row).to_bits())
        } else if let Some(a) = column.as_boolean_opt() {
            a.value(row).to_string()
        } else {
            format!("{:?}", column.as_binary::<i32>().value(row))
        };
        cells.insert(field.name().clone(), text);
    }
    cells
}

/// Path and content of every Parquet file.
pub(crate) fn objects(store: &MemStore) -> BTreeMap<String, headwater_lake::Sha256> {
    let files = store.list("").unwrap().into_iter().map(|e| e.path);
    files
        .filter(|path| path.ends_with(".parquet") && !path.contains("_delta_log"))
        .map(|path| {
            (
                path.clone(),
                headwater_lake::Sha256::of(&store.get(&path).unwrap()),
            )
        })
        .collect()
}
