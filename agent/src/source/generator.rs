//! Seeded signals as a source: row `k` is a function of seed, device and `k`, so the cursor is `k`.

use std::sync::Arc;
use std::time::Duration;

use headwater_proto::sample::OwnedValue;
use headwater_proto::schema::ColumnKind;
use headwater_proto::time::UnixMicros;
use headwater_signals::{Device, Kind, METRICS, Row};

use super::{ColumnDef, Feed, Port, Reading, Stop, Stopped};
use crate::clock::Clock;
use crate::config::GeneratorSource;
use crate::pipeline::record::Cursor;

/// Longest sleep between two looks at the clock.
const STEP: Duration = Duration::from_millis(20);

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
        Kind::Bool => ColumnKind::Bool,
        Kind::I64 => ColumnKind::I64,
        Kind::F32 => ColumnKind::F32,
        Kind::F64 => ColumnKind::F64,
        Kind::Str => ColumnKind::Str,
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
