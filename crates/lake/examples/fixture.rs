//! Writes a lake of odd values that `tests/readers/expect_fixture.py` computes independently.
//!
//! `cargo run -p headwater-lake --example fixture -- DIR [SAMPLES]`
//!
//! Sample `k` is a function of `k` alone; the Python side holds the same function. 130 flushes, so
//! that every log of samples has a checkpoint; late rows, so that flushes meet several dates.
#![expect(clippy::print_stdout, reason = "an example tells what it wrote")]

use headwater_lake::{
    Claim, DeviceRow, EpochRow, EpochState, Flush, GapRow, Lake, LocalStore, LogRow, MetricRow,
    Rows, SampleRow, Settings, SpanKind, TimeClass, ValueKind,
};
use headwater_proto::ids::{DeviceId, Epoch, JournalId, Lane, Stream};
use headwater_proto::sample::Value;

const DEVICES: u64 = 50;
const METRICS: [&str; 7] = [
    "temperature",
    "pressure",
    "counter",
    "extreme",
    "state",
    "running",
    "odd",
];
const FLUSHES: u64 = 130;

/// 2026-11-21T23:50:00Z: the fixture crosses midnight.
const START_US: i64 = 1_795_305_000_000_000;
const DAY_US: i64 = 86_400_000_000;

fn splitmix(k: u64) -> u64 {
    let mut z = k.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn value(k: u64, metric: usize) -> Value<'static> {
    let h = splitmix(k);
    let at = |count: u64| usize::try_from(h % count).unwrap_or(0);
    // All below 2^17, so that the conversions are exact.
    match metric {
        0 => Value::F64((h % 10_000) as f64 / 100.0),
        1 => Value::F32((h % 1_000) as f32 / 8.0),
        2 => Value::I64((h % 100_000).cast_signed()),
        3 => Value::I64([i64::MIN, i64::MAX, 0, -1][at(4)]),
        4 => Value::Str(["", "on", "Wörk 日本 🌊", "quote \"'\\\n"][at(4)]),
        5 => Value::Bool(h % 2 == 1),
        _ => Value::F64([f64::NAN, -0.0, f64::INFINITY, f64::NEG_INFINITY, 0.5][at(5)]),
    }
}

/// First sample of a flush. No batch lies in two flushes, as no record of a journal does.
fn cut(samples: u64, flush: u64) -> u64 {
    let step = DEVICES * 7;
    if flush == FLUSHES {
        samples
    } else {
        samples * flush / FLUSHES / step * step
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().ok_or("usage: fixture DIR [SAMPLES]")?;
    let samples: u64 = args.next().map_or(Ok(200_000), |text| text.parse())?;
    let store = LocalStore::new(dir.as_ref())?;
    let journal = JournalId(0xf1c5);
    let claim = Claim::new(journal, START_US);
    let mut lake = Lake::open(store, Settings::default(), &claim)?;
    let devices: Vec<String> = (0..DEVICES).map(|d| format!("dev-{d:03}")).collect();
    for flush in 0..FLUSHES {
        let mut rows = Rows::new();
        for k in cut(samples, flush)..cut(samples, flush + 1) {
            let metric = usize::try_from(k / DEVICES % 7)?;
            let step = k / (DEVICES * 7);
            let late = if k.is_multiple_of(97) { 2 * DAY_US } else { 0 };
            rows.push_sample(&SampleRow {
                device_id: &devices[usize::try_from(k % DEVICES)?],
                metric: METRICS[metric],
                ts_us: START_US + i64::try_from(step)? * 1_500_001 - late,
                value: value(k, metric),
                site: (k.is_multiple_of(2)).then_some("north"),
                device_type: Some("fixture"),
                tags: None,
                ingest_us: START_US + i64::try_from(k)?,
                lane: Lane::Normal,
                epoch: Epoch::new(1),
                seq: step,
                row: u32::try_from(metric)?,
                batch_samples: 7,
                via: None,
                time_err_ms: (k.is_multiple_of(3)).then_some(5),
                time_class: TimeClass::Synced,
            })?;
        }
        if flush == FLUSHES - 1 {
            other_tables(&mut rows, &devices, samples.div_ceil(DEVICES * 7))?;
        }
        let at_us = START_US + i64::try_from(flush)? * 1_000_000;
        let flush = Flush {
            journal,
            first_pos: flush,
            last_pos: flush,
            at_us,
            rows: &rows,
            sinks: &[],
        };
        let plan = lake.stage(&flush)?;
        lake.publish(&plan)?;
        lake.commit(&plan)?;
        lake.finish(&plan)?;
    }
    lake.write_catalog()?;
    let store = lake.store();
    let (found, guarded) = (
        headwater_lake::audit::audit(store)?,
        headwater_lake::guard::guard(store)?,
    );
    println!(
        "{samples} samples in {dir}; audit good: {}; {} files, {} faults",
        found.totals.is_good(),
        guarded.files,
        guarded.fault_count
    );
    let good = found.totals.is_good() && guarded.fault_count == 0;
    if good {
        Ok(())
    } else {
        Err("the fixture does not pass its own checks".into())
    }
}

fn other_tables(
    rows: &mut Rows,
    devices: &[String],
    steps: u64,
) -> Result<(), Box<dyn std::error::Error>> {
    for name in devices {
        let stream = Stream {
            device: DeviceId::new(name)?,
            lane: Lane::Normal,
            epoch: Epoch::new(1),
        };
        rows.push_epoch(EpochRow {
            stream: stream.clone(),
            first_seq: 0,
            next_seq: steps + 1,
            state: EpochState::Closed,
            clean: Some(true),
            boot: Some(3),
            at_us: START_US,
            record: None,
        })?;
        // The last steps: whole or not, as the count of samples falls, and one that never came.
        rows.push_gap(GapRow {
            stream,
            seqs: Some((steps - 1, steps)),
            samples: None,
            t_first_us: START_US,
            t_last_us: START_US + 1_000_000,
            span: SpanKind::Exact,
            reason: "evicted".into(),
            stage: "agent".into(),
            sink: None,
            at_us: START_US,
            record: None,
            source: None,
        })?;
        rows.push_device(DeviceRow {
            device_id: name.clone(),
            site: Some("north".into()),
            device_type: Some("fixture".into()),
            tags: Some("{\"rack\":\"7\"}".into()),
            software: None,
            via: None,
            at_us: START_US,
        })?;
    }
    let kinds = [
        ValueKind::F64,
        ValueKind::F64,
        ValueKind::I64,
        ValueKind::I64,
        ValueKind::Str,
        ValueKind::Bool,
        ValueKind::F64,
    ];
    for (metric, kind) in METRICS.into_iter().zip(kinds) {
        rows.push_metric(MetricRow {
            metric: metric.into(),
            device_type: Some("fixture".into()),
            unit: None,
            kind,
            at_us: START_US,
        })?;
    }
    rows.push_log(LogRow {
        device_id: devices[0].clone(),
        ts_us: START_US,
        level: Some("warn".into()),
        source: None,
        message: "Öl niedrig\tbei 3 %".into(),
        ingest_us: START_US,
        line: 0,
        time_err_ms: None,
        time_class: TimeClass::Synced,
        record: None,
        record_lines: None,
        told_us: None,
    })?;
    Ok(())
}
