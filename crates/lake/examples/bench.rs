//! What sorting and encoding cost: bytes and samples per second for a million readings, and the
//! time of a tiny flush.
//!
//! `cargo run --release -p headwater-lake --example bench`
#![expect(clippy::print_stdout, reason = "an example tells what it measured")]
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::time::Instant;

use headwater_lake::{
    Claim, Encoding, Flush, Lake, MemStore, Rows, SampleRow, Settings, Store, Table, TimeClass,
};
use headwater_proto::ids::{Epoch, JournalId, Lane};
use headwater_proto::sample::Value;

const DEVICES: u64 = 500;
const MINUTES: u64 = 286;
const METRICS: [&str; 7] = [
    "temperature",
    "humidity",
    "pressure",
    "vibration",
    "counter",
    "state",
    "running",
];
const START_US: i64 = 1_795_305_600_000_000;

fn splitmix(k: u64) -> u64 {
    let mut z = k.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ (z >> 31)
}

/// Slow drifts with the digits that sensors give, one noisy column, a counter, a state, a flag.
fn value(device: u64, minute: u64, metric: usize) -> Value<'static> {
    let h = splitmix(device * 1_000_003 + minute * 17 + metric as u64);
    let slow = ((device * 31 + minute) as f64 / 40.0).sin();
    let round = |value: f64, digits: f64| (value * digits).round() / digits;
    match metric {
        0 => Value::F64(round(21.0 + 4.0 * slow + (h % 7) as f64 / 50.0, 100.0)),
        1 => Value::F64(round(50.0 - 9.0 * slow + (h % 5) as f64 / 10.0, 10.0)),
        2 => Value::F64(round(1_013.0 + slow + (h % 3) as f64 / 10.0, 10.0)),
        3 => Value::F32((h % 1_000_000) as f32 / 1e6),
        4 => Value::I64((minute * 60 + h % 3).cast_signed()),
        5 => Value::Str(
            ["idle", "run", "run", "run", "stop"][usize::try_from(minute / 50 % 5).unwrap_or(0)],
        ),
        _ => Value::Bool((minute / 90).is_multiple_of(2)),
    }
}

fn fill(rows: &mut Rows) -> Result<(), Box<dyn std::error::Error>> {
    let devices: Vec<String> = (0..DEVICES).map(|d| format!("device-{d:05}")).collect();
    for minute in 0..MINUTES {
        for device in 0..DEVICES {
            let jitter = i64::try_from(splitmix(device ^ minute << 20) % 1_000)? * 1_000;
            for (row, metric) in METRICS.into_iter().enumerate() {
                let ts_us = START_US + i64::try_from(minute)? * 60_000_000 + jitter;
                rows.push_sample(&SampleRow {
                    device_id: &devices[usize::try_from(device)?],
                    metric,
                    ts_us,
                    value: value(device, minute, row),
                    site: Some("north"),
                    device_type: Some("bench"),
                    tags: None,
                    ingest_us: ts_us + 160_000 + i64::try_from(splitmix(minute) % 50)? * 1_000,
                    lane: Lane::Normal,
                    epoch: Epoch::new(splitmix(device)),
                    seq: minute,
                    row: u32::try_from(row)?,
                    batch_samples: 7,
                    via: None,
                    time_err_ms: None,
                    time_class: TimeClass::Synced,
                })?;
            }
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let mut rows = Rows::new();
    fill(&mut rows)?;
    let samples = rows.samples() as f64;
    println!(
        "buffer   {samples} samples, {:.1} B/sample, {:.2} M samples/s with the generator",
        rows.bytes() as f64 / samples,
        samples / start.elapsed().as_secs_f64() / 1e6
    );
    for encoding in [Encoding::Compact, Encoding::Compat] {
        let mut lake = Lake::open(
            MemStore::new(),
            Settings {
                encoding,
                ..Settings::default()
            },
            &Claim::new(JournalId(1), START_US),
        )?;
        let flush = Flush {
            journal: JournalId(1),
            first_pos: 0,
            last_pos: 1,
            at_us: START_US,
            rows: &rows,
            sinks: &[],
        };
        let start = Instant::now();
        let plan = lake.stage(&flush)?;
        println!(
            "{:8} {:.3} B/sample, {:.2} M samples/s sort, encode, hash",
            encoding.name(),
            plan.bytes() as f64 / samples,
            samples / start.elapsed().as_secs_f64() / 1e6
        );
    }
    tiny_flushes()
}

fn tiny_flushes() -> Result<(), Box<dyn std::error::Error>> {
    const FLUSHES: u64 = 2_000;
    let store = MemStore::new();
    let mut lake = Lake::open(
        store.clone(),
        Settings::default(),
        &Claim::new(JournalId(1), START_US),
    )?;
    let start = Instant::now();
    for position in 0..FLUSHES {
        let mut rows = Rows::new();
        for row in 0..10 {
            rows.push_sample(&SampleRow {
                device_id: "d",
                metric: "m",
                ts_us: START_US + i64::from(row),
                value: Value::F64(1.0),
                site: None,
                device_type: None,
                tags: None,
                ingest_us: START_US,
                lane: Lane::Normal,
                epoch: Epoch::new(1),
                seq: position,
                row,
                batch_samples: 10,
                via: None,
                time_err_ms: None,
                time_class: TimeClass::Synced,
            })?;
        }
        let (first_pos, last_pos) = (position, position);
        let flush = Flush {
            journal: JournalId(1),
            first_pos,
            last_pos,
            at_us: START_US,
            rows: &rows,
            sinks: &[],
        };
        let plan = lake.stage(&flush)?;
        lake.publish(&plan)?;
        lake.commit(&plan)?;
        lake.finish(&plan)?;
    }
    let each = start.elapsed().as_secs_f64() / FLUSHES as f64;
    let bytes: u64 = store
        .list(Table::Samples.name())?
        .iter()
        .map(|e| e.bytes)
        .sum();
    println!(
        "tiny     {:.0} us and {} bytes per flush of 10 readings",
        each * 1e6,
        bytes / FLUSHES
    );
    Ok(())
}
