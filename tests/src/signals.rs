//! Generated devices: what an agent is told to make, and whether the lake has it, bit for bit.

use std::collections::HashMap;
use std::fmt::Write as _;

use anyhow::{Context, Result, bail};
use headwater_program::clock::wall;
use headwater_proto::sample::Value;
use headwater_proto::time::UnixMicros;
use headwater_signals::{Device, Kind, METRICS};

use crate::lake::Sample;

/// What one generator source makes.
#[derive(Debug, Clone)]
pub struct Signals {
    /// Device id of its agent.
    pub device: String,
    /// Rows in all.
    pub rows: u64,
    /// Microseconds between rows.
    pub period_us: u32,
    /// Unix microseconds of row 0.
    pub start_us: i64,
    /// 1.0 is real time, 0 as fast as can be.
    pub speed: f64,
    /// Seed; devices differ by their names too.
    pub seed: u64,
}

impl Signals {
    /// `rows` rows of 10 ms each that lie in the past and come as fast as can be.
    #[must_use]
    pub fn past(device: &str, rows: u64) -> Self {
        let period_us = 10_000;
        let span = i64::try_from(rows * u64::from(period_us)).unwrap_or(i64::MAX);
        let start_us = wall().0 - span;
        Self {
            device: device.to_owned(),
            rows,
            period_us,
            start_us,
            speed: 0.0,
            seed: 7,
        }
    }

    /// `rows` rows in real time from now on.
    #[must_use]
    pub fn live(device: &str, rows: u64, period_us: u32) -> Self {
        let start_us = wall().0;
        Self {
            device: device.to_owned(),
            rows,
            period_us,
            start_us,
            speed: 1.0,
            seed: 7,
        }
    }

    /// The source in an agent's configuration.
    #[must_use]
    pub fn toml(&self) -> String {
        let mut text = String::from("[[generator]]\n");
        let _ = writeln!(text, "seed = {}", self.seed);
        let _ = writeln!(text, "start_us = {}", self.start_us);
        let _ = writeln!(text, "period_us = {}", self.period_us);
        let _ = writeln!(text, "speed = {:?}", self.speed);
        let _ = writeln!(text, "rows = {}", self.rows);
        text
    }

    /// The same rows, made here.
    #[must_use]
    pub fn device(&self) -> Device {
        Device::varied(
            self.seed,
            &self.device,
            UnixMicros(self.start_us),
            self.period_us,
        )
    }

    /// Samples in all its rows.
    #[must_use]
    pub fn samples(&self) -> u64 {
        let device = self.device();
        (0..self.rows).map(|k| device.row(k).samples()).sum()
    }
}

/// What the comparison found; counts are samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// Made by the generators.
    pub generated: u64,
    /// In the lake with the right time and bits, each counted once.
    pub in_lake: u64,
    /// In the lake once more.
    pub doubles: u64,
    /// In the lake with a time or value that no generator made.
    pub wrong: u64,
}

impl Found {
    /// # Errors
    /// Says what is missing, double or wrong.
    pub fn expect_all_once(&self) -> Result<()> {
        let whole = self.generated == self.in_lake && self.doubles == 0 && self.wrong == 0;
        if !whole || self.generated == 0 {
            bail!("the lake does not hold the generated rows once each: {self:?}");
        }
        Ok(())
    }
}

/// Holds lake rows against generators.
pub struct Comparison {
    devices: HashMap<String, (Signals, Device, Vec<u8>)>,
    found: Found,
}

impl Comparison {
    /// Expects everything that `signals` make.
    ///
    /// # Errors
    /// When there are more rows than memory.
    pub fn of(signals: &[Signals]) -> Result<Self> {
        let mut devices = HashMap::new();
        let mut found = Found::default();
        for one in signals {
            found.generated += one.samples();
            let seen = vec![0; usize::try_from(one.rows).context("too many rows")?];
            devices.insert(one.device.clone(), (one.clone(), one.device(), seen));
        }
        Ok(Self { devices, found })
    }

    /// Takes one row of the lake; other devices are left alone.
    pub fn see(&mut self, sample: &Sample<'_>) {
        let Some((signals, device, seen)) = self.devices.get_mut(sample.device) else {
            return;
        };
        let place = place_of(signals, device, sample);
        match place.and_then(|(row, bit)| Some((seen.get_mut(row)?, bit))) {
            None => self.found.wrong += 1,
            Some((bits, bit)) if *bits & bit == 0 => {
                *bits |= bit;
                self.found.in_lake += 1;
            }
            Some(_) => self.found.doubles += 1,
        }
    }

    /// What was found.
    #[must_use]
    pub fn found(&self) -> Found {
        self.found
    }
}

/// Row and metric bit of a sample that the generator made, time and value to the last bit.
fn place_of(signals: &Signals, device: &Device, sample: &Sample<'_>) -> Option<(usize, u8)> {
    let column = METRICS
        .iter()
        .position(|metric| metric.name == sample.metric)?;
    let since = u64::try_from(sample.time_us - signals.start_us).ok()?;
    // A row is late by less than a period.
    let k = since / u64::from(signals.period_us);
    let made = device.row(k);
    let same = made.time.0 == sample.time_us && same(made.values[column]?, sample.value);
    same.then_some((usize::try_from(k).ok()?, 1 << column))
}

/// Equal in every bit; the lake holds an f32 as the f64 of the same value.
fn same(made: Value<'_>, stored: Value<'_>) -> bool {
    match (made, stored) {
        (Value::F32(a), Value::F64(b)) => f64::from(a).to_bits() == b.to_bits(),
        (Value::F64(a), Value::F64(b)) => a.to_bits() == b.to_bits(),
        (Value::I64(a), Value::I64(b)) => a == b,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Str(a), Value::Str(b)) => a == b,
        _ => false,
    }
}

/// What every reader of a lake with exactly these generators must find, in the words of
/// `tests/readers/check_lake.py --expect`.
#[must_use]
pub fn totals(signals: &[Signals]) -> serde_json::Value {
    let mut metrics = serde_json::Map::new();
    let mut rows = 0;
    let mut times: Option<(i64, i64)> = None;
    let mut integers: Option<(i64, i64)> = None;
    let wider = |span: Option<(i64, i64)>, value: i64| {
        Some(span.map_or((value, value), |(low, high)| {
            (low.min(value), high.max(value))
        }))
    };
    for (column, metric) in METRICS.iter().enumerate() {
        let (mut count, mut sum) = (0_u64, 0.0_f64);
        for one in signals {
            let device = one.device();
            for row in (0..one.rows).map(|k| device.row(k)) {
                let Some(value) = row.values[column] else {
                    continue;
                };
                count += 1;
                times = wider(times, row.time.0);
                match value {
                    Value::F64(v) => sum += v,
                    Value::F32(v) => sum += f64::from(v),
                    Value::Bool(v) => sum += f64::from(u8::from(v)),
                    Value::I64(v) => {
                        integers = wider(integers, v);
                        sum += v as f64;
                    }
                    Value::Str(_) => {}
                }
            }
        }
        debug_assert!(metric.kind != Kind::Str || sum == 0.0);
        rows += count;
        metrics.insert(
            metric.name.to_owned(),
            serde_json::json!({"rows": count, "sum": sum}),
        );
    }
    serde_json::json!({
        "rows": rows,
        "devices": signals.len(),
        "ts_min_us": times.map(|span| span.0),
        "ts_max_us": times.map(|span| span.1),
        "i64_min": integers.map(|span| span.0),
        "i64_max": integers.map(|span| span.1),
        "metrics": metrics,
    })
}
