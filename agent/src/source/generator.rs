//! Seeded signals as a source: row `k` is a function of seed, device and `k`, so the cursor is `k`.

use std::sync::Arc;
use std::time::Duration;

use headwater_proto::sample::OwnedValue;
use headwater_proto::schema::ColumnKind;
use headwater_proto::time::UnixMicros;
use headwater_signals::{Device, Kind as SignalKind, METRICS, Row};
use serde::Deserialize;

use super::kind::{Declared, Kind, Start, normal};
use super::supervisor::{SourceError, on_thread};
use super::{ColumnDef, Feed, Port, Reading, Stop, Stopped};
use crate::check;
use crate::clock::Clock;
use crate::pipeline::record::Cursor;

/// Longest sleep between two looks at the clock.
const STEP: Duration = Duration::from_millis(20);

/// Seeded signals.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneratorSource {
    /// The seed.
    pub seed: u64,
    /// Time of row 0, microseconds since the Unix epoch.
    pub start_us: i64,
    /// Microseconds from row to row.
    pub period_us: u32,
    /// Rows' seconds per second; 0 is as fast as can be.
    pub speed: f64,
    /// How many rows; `None` is without end.
    pub rows: Option<u64>,
}

/// A source of that kind, as it is written in a configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawGenerator {
    #[serde(default = "generator")]
    name: String,
    #[serde(default = "normal")]
    lane: String,
    #[serde(default = "one")]
    seed: u64,
    #[serde(default = "start_us")]
    start_us: i64,
    #[serde(default = "period_us")]
    period_us: u32,
    #[serde(default = "real_time")]
    speed: f64,
    #[serde(default)]
    rows: u64,
}

fn generator() -> String {
    "generator".to_owned()
}

const fn one() -> u64 {
    1
}

const fn start_us() -> i64 {
    1_700_000_000_000_000
}

const fn period_us() -> u32 {
    100_000
}

const fn real_time() -> f64 {
    1.0
}

impl Kind for GeneratorSource {
    type Raw = RawGenerator;
    const RESUMES: bool = true;

    fn check(raw: RawGenerator, problems: &mut Vec<String>) -> Declared<Self> {
        let RawGenerator {
            name,
            lane,
            seed,
            start_us,
            period_us,
            speed,
            rows,
        } = raw;
        if period_us == 0 {
            let fault = format!("generator.{name}.period_us = 0: must be at least 1");
            problems.push(fault);
        }
        let settings = Self {
            seed,
            start_us,
            period_us,
            speed: check::speed(&format!("generator.{name}.speed"), speed, problems),
            rows: (rows > 0).then_some(rows),
        };
        Declared {
            name,
            lane,
            settings,
        }
    }

    async fn run(self, start: Start) -> Result<(), SourceError> {
        let (name, resume, clock) = (start.name, start.port.resume(), Clock::start());
        let Start {
            device, port, stop, ..
        } = start;
        let run = move || Ok(run(&self, &device, resume, &port, &stop, clock)?);
        on_thread(&name, run).await
    }
}

/// The signals of a device under this configuration.
#[must_use]
pub fn device(config: &GeneratorSource, name: &str) -> Device {
    Device::varied(
        config.seed,
        name,
        UnixMicros(config.start_us),
        config.period_us,
    )
}

/// The columns of every row.
#[must_use]
pub fn columns() -> Arc<[ColumnDef]> {
    let kind = |kind| match kind {
        SignalKind::Bool => ColumnKind::Bool,
        SignalKind::I64 => ColumnKind::I64,
        SignalKind::F32 => ColumnKind::F32,
        SignalKind::F64 => ColumnKind::F64,
        SignalKind::Str => ColumnKind::Str,
    };
    METRICS
        .iter()
        .map(|m| ColumnDef {
            name: m.name.into(),
            unit: m.unit.into(),
            kind: kind(m.kind),
        })
        .collect()
}

/// A row as a reading.
#[must_use]
pub fn reading(row: &Row, columns: &Arc<[ColumnDef]>, labels: &Arc<[(String, String)]>) -> Reading {
    Reading {
        time: row.time,
        labels: Arc::clone(labels),
        columns: Arc::clone(columns),
        values: row
            .values
            .iter()
            .map(|value| value.map(OwnedValue::from))
            .collect(),
    }
}

/// Gives rows from the cursor on until the last, or until told to stop.
///
/// # Errors
/// [`Stopped`] if the engine is gone.
pub fn run(
    config: &GeneratorSource,
    name: &str,
    resume: Option<Cursor>,
    port: &Port,
    stop: &Stop,
    clock: Clock,
) -> Result<(), Stopped> {
    let device = device(config, name);
    let (columns, labels) = (columns(), Arc::from([]));
    let first = resume.map_or(0, |cursor| cursor.minor);
    let last = config.rows.unwrap_or(u64::MAX);
    let started = clock.now().mono;
    port.up();
    for k in first..last {
        if config.speed > 0.0 {
            let rows = (k - first) as f64;
            let due_ms = rows * f64::from(config.period_us) / 1000.0 / config.speed;
            while (clock.now().mono.since(started) as f64) < due_ms {
                let left = due_ms - clock.now().mono.since(started) as f64;
                if !stop.wait(STEP.min(Duration::from_secs_f64(left.max(0.0) / 1000.0))) {
                    return Ok(());
                }
            }
        }
        if stop.is_stopped() {
            return Ok(());
        }
        let cursor = Cursor {
            major: 0,
            minor: k + 1,
            tag: 0,
        };
        port.give_blocking(Feed::Reading(
            reading(&device.row(k), &columns, &labels),
            Some(cursor),
        ))?;
    }
    Ok(())
}
