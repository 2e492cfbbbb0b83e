//! Core: seeded sensor signals. Row `k` of a device is a function of the seed, the device's name
//! and `k` alone, so that a row can be made again anywhere and compared bit for bit.
//!
//! Only additions, multiplications, divisions and rounding of `f64` are used: they give the same
//! bits on every machine, which a library's `sin` does not.
//!
//! | metric | kind | unit | shape |
//! |---|---|---|---|
//! | `temperature` | f64, 2 decimals | Cel | daily cycle, slow drift, sensor noise |
//! | `humidity` | f64, 1 decimal | % | moves against the temperature; missing in about 1 row of 50 |
//! | `pressure` | f64, 2 decimals | hPa | slow weather |
//! | `voltage` | f32, 3 decimals | V | a discharging battery with load dips |
//! | `vibration` | f64, all digits | m/s2 | noise that grows while the machine runs |
//! | `energy` | i64 | Wh | a counter that never falls |
//! | `state` | string | | `idle`, `starting`, `running`, `fault` in stretches |
//! | `door` | bool | | mostly closed |

mod noise;

use headwater_proto::sample::Value;
use headwater_proto::time::UnixMicros;
use noise::{Noise, key_of, round_to};

/// What a metric's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// True or false.
    Bool,
    /// A whole number.
    I64,
    /// A short float.
    F32,
    /// A float.
    F64,
    /// One of a few words.
    Str,
}

/// One column of every generated row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its name in the lake.
    pub name: &'static str,
    /// Its unit (UCUM), empty if it has none.
    pub unit: &'static str,
    /// What its values are.
    pub kind: Kind,
}

/// How many metrics a row has.
pub const METRIC_COUNT: usize = 8;

/// The metrics, in the order of [`Row::values`].
pub const METRICS: [Metric; METRIC_COUNT] = [
    Metric {
        name: "temperature",
        unit: "Cel",
        kind: Kind::F64,
    },
    Metric {
        name: "humidity",
        unit: "%",
        kind: Kind::F64,
    },
    Metric {
        name: "pressure",
        unit: "hPa",
        kind: Kind::F64,
    },
    Metric {
        name: "voltage",
        unit: "V",
        kind: Kind::F32,
    },
    Metric {
        name: "vibration",
        unit: "m/s2",
        kind: Kind::F64,
    },
    Metric {
        name: "energy",
        unit: "Wh",
        kind: Kind::I64,
    },
    Metric {
        name: "state",
        unit: "",
        kind: Kind::Str,
    },
    Metric {
        name: "door",
        unit: "",
        kind: Kind::Bool,
    },
];

const STATES: [&str; 4] = ["idle", "starting", "running", "fault"];
/// Rows that a stretch of one machine state lasts.
const STATE_ROWS: u64 = 37;
/// Rows that a stretch of the door lasts.
const DOOR_ROWS: u64 = 23;
/// Rows of one daily cycle; short, so that a demo sees one.
const DAY_ROWS: u64 = 7200;
/// One row in this many has no humidity.
const MISSING_ONE_IN: u64 = 50;
/// Most energy of one row, in Wh.
const ENERGY_PER_ROW: u64 = 5;

/// When the rows of a device are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Time of row 0.
    pub start: UnixMicros,
    /// Microseconds from one row to the next; at least 1.
    pub period_us: u32,
    /// Each row is late by less than this many microseconds; kept below the period, so that rows
    /// stay in order. 0 is a regular clock.
    pub jitter_us: u32,
}

impl Times {
    /// A regular clock.
    #[must_use]
    pub const fn regular(start: UnixMicros, period_us: u32) -> Self {
        Self {
            start,
            period_us,
            jitter_us: 0,
        }
    }
}

/// Row `k` of a device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// When it was taken.
    pub time: UnixMicros,
    /// One value per metric of [`METRICS`]; `None` is missing.
    pub values: [Option<Value<'static>>; METRIC_COUNT],
}

impl Row {
    /// Non-missing values: the samples of this row.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.values.iter().flatten().count() as u64
    }
}

/// The signals of one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    key: u64,
    times: Times,
}

impl Device {
    /// The device called `name` under `seed`.
    #[must_use]
    pub fn new(seed: u64, name: &str, times: Times) -> Self {
        let period_us = times.period_us.max(1);
        let jitter_us = times.jitter_us.min(period_us - 1);
        Self {
            key: key_of(seed, name),
            times: Times {
                period_us,
                jitter_us,
                ..times
            },
        }
    }

    /// As [`Device::new`]; every other device, by its name, has a clock that jitters by up to an
    /// eighth of the period.
    #[must_use]
    pub fn varied(seed: u64, name: &str, start: UnixMicros, period_us: u32) -> Self {
        let key = key_of(seed, name);
        let jitter_us = if key & 1 == 1 { period_us / 8 } else { 0 };
        Self::new(
            seed,
            name,
            Times {
                start,
                period_us,
                jitter_us,
            },
        )
    }

    /// When row `k` is taken; strictly rising in `k`.
    #[must_use]
    pub fn time(&self, k: u64) -> UnixMicros {
        let late = match u64::from(self.times.jitter_us) {
            0 => 0,
            jitter => self.noise(0).at(k) % jitter,
        };
        let after = k
            .saturating_mul(u64::from(self.times.period_us))
            .saturating_add(late);
        UnixMicros(self.times.start.0.saturating_add_unsigned(after))
    }

    /// The first row that is taken after `now`: how many rows exist by then.
    #[must_use]
    pub fn rows_by(&self, now: UnixMicros) -> u64 {
        let Ok(elapsed) = u64::try_from(now.0.saturating_sub(self.times.start.0)) else {
            return 0;
        };
        let around = elapsed / u64::from(self.times.period_us);
        if self.time(around) <= now {
            around + 1
        } else {
            around
        }
    }

    /// Row `k`.
    #[must_use]
    pub fn row(&self, k: u64) -> Row {
        let running = self.state_index(k) == 2;
        let phase = self.noise(1).at(0) % DAY_ROWS;
        let day = daily((k + phase) % DAY_ROWS);
        let warmth = 21.0 + 6.0 * day + 3.0 * self.noise(2).smooth(k, 400);
        let temperature = warmth + 0.06 * self.noise(3).signed(k);
        let humidity = (48.0 - 1.9 * (warmth - 21.0)
            + 2.0 * self.noise(4).smooth(k, 90)
            + 0.15 * self.noise(5).signed(k))
        .clamp(0.0, 100.0);
        let pressure =
            1013.25 + 11.0 * self.noise(6).smooth(k, 5000) + 0.04 * self.noise(7).signed(k);
        let load = if running { 0.11 } else { 0.0 };
        let charge = 1.0 - (k % 50_000) as f64 / 50_000.0;
        let voltage = 3.3 + 0.85 * charge - load + 0.004 * self.noise(8).signed(k);
        let strength = if running { 2.4 } else { 0.07 };
        let vibration = strength * self.noise(9).signed(k) * (1.0 + 0.2 * self.noise(10).signed(k));
        let missing = self.noise(11).at(k).is_multiple_of(MISSING_ONE_IN);
        Row {
            time: self.time(k),
            values: [
                Some(Value::F64(round_to(temperature, 100.0))),
                (!missing).then(|| Value::F64(round_to(humidity, 10.0))),
                Some(Value::F64(round_to(pressure, 100.0))),
                Some(Value::F32(short(round_to(voltage, 1000.0)))),
                Some(Value::F64(vibration)),
                Some(Value::I64(self.energy(k))),
                Some(Value::Str(STATES[self.state_index(k)])),
                Some(Value::Bool(
                    self.noise(14).at(k / DOOR_ROWS).is_multiple_of(9),
                )),
            ],
        }
    }

    fn noise(&self, channel: u64) -> Noise {
        Noise::new(self.key, channel)
    }

    fn state_index(&self, k: u64) -> usize {
        match self.noise(12).at(k / STATE_ROWS) % 20 {
            0 if k % STATE_ROWS < 5 => 3,
            1..=9 => 0,
            _ if k % STATE_ROWS < 3 => 1,
            _ => 2,
        }
    }

    /// The counter grows by `ENERGY_PER_ROW - 1` per row on average steps of its own: it lies
    /// within one row's energy of a straight line, so it never falls.
    fn energy(&self, k: u64) -> i64 {
        let base = 120_000 + self.noise(13).at(u64::MAX) % 900_000;
        let grown = k.saturating_mul(ENERGY_PER_ROW) + self.noise(13).at(k) % (ENERGY_PER_ROW + 1);
        i64::try_from(base.saturating_add(grown)).unwrap_or(i64::MAX)
    }
}

/// A day as two parabolas: 0 at its ends and its middle, 1 and -1 between.
fn daily(row: u64) -> f64 {
    let x = 2.0 * row as f64 / DAY_ROWS as f64;
    if x < 1.0 {
        4.0 * x * (1.0 - x)
    } else {
        -4.0 * (x - 1.0) * (2.0 - x)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding to the nearest f32 is meant"
)]
fn short(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn device(name: &str) -> Device {
        Device::varied(7, name, UnixMicros(1_700_000_000_000_000), 100_000)
    }

    #[test]
    fn a_row_is_the_same_however_often_and_in_whatever_order_it_is_made() {
        let (one, two) = (device("pump-1"), device("pump-1"));
        let forward: Vec<_> = (0..500).map(|k| one.row(k)).collect();
        for k in (0..500).rev() {
            assert_eq!(two.row(k), forward[usize::try_from(k).unwrap()]);
        }
    }

    #[test]
    fn the_rows_of_this_generator_are_frozen() {
        let row = device("pump-1").row(1234);
        let text = format!("{} {:?}", row.time.0, row.values);
        assert_eq!(
            text, GOLDEN,
            "rows in a lake would no longer match their generator"
        );
    }
    const GOLDEN: &str = "1700000123406798 [Some(F64(13.55)), Some(F64(61.1)), Some(F64(1013.05)), \
        Some(F32(4.129)), Some(F64(0.009627433910031707)), Some(I64(836714)), Some(Str(\"idle\")), \
        Some(Bool(false))]";

    #[test]
    fn devices_and_seeds_differ() {
        assert_ne!(device("a").row(3).values, device("b").row(3).values);
        let other = Device::varied(8, "a", UnixMicros(1_700_000_000_000_000), 100_000);
        assert_ne!(device("a").row(3).values, other.row(3).values);
    }

    #[test]
    fn every_metric_has_the_kind_that_the_table_says_and_moves() {
        let rows: Vec<_> = (0..3000).map(|k| device("pump-2").row(k)).collect();
        for (at, metric) in METRICS.iter().enumerate() {
            for value in rows.iter().filter_map(|row| row.values[at]) {
                let kind = match value {
                    Value::Bool(_) => Kind::Bool,
                    Value::I64(_) => Kind::I64,
                    Value::F32(_) => Kind::F32,
                    Value::F64(_) => Kind::F64,
                    Value::Str(_) => Kind::Str,
                };
                assert_eq!(kind, metric.kind, "{}", metric.name);
            }
            assert!(
                rows.iter().any(|row| row.values[at] != rows[0].values[at]),
                "{}",
                metric.name
            );
        }
        let missing = rows
            .iter()
            .filter(|row| row.samples() < METRIC_COUNT as u64)
            .count();
        assert!((20..200).contains(&missing), "{missing} rows lack a value");
    }

    #[test]
    fn some_devices_have_a_regular_clock_and_some_a_jittering_one() {
        let regular = (0..20)
            .filter(|i| device(&format!("d{i}")).times.jitter_us == 0)
            .count();
        assert!((1..20).contains(&regular));
    }

    proptest! {
        #[test]
        fn time_rises_and_the_counter_never_falls(seed: u64, k in 0u64..1 << 40, jitter: u32) {
            let times = Times { start: UnixMicros(0), period_us: 1000, jitter_us: jitter };
            let device = Device::new(seed, "x", times);
            prop_assert!(device.time(k) < device.time(k + 1));
            prop_assert!(device.energy(k) <= device.energy(k + 1));
        }

        #[test]
        fn rows_by_counts_exactly_the_rows_that_lie_in_the_past(k in 0u64..1 << 40, jitter in 0u32..1000) {
            let times = Times { start: UnixMicros(5), period_us: 1000, jitter_us: jitter };
            let device = Device::new(1, "x", times);
            prop_assert_eq!(device.rows_by(device.time(k)), k + 1);
            prop_assert_eq!(device.rows_by(UnixMicros(device.time(k).0 - 1)), k);
        }
    }
}
