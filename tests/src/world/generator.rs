//! Core: the readings of the world. Each is a function of seed, device, source and number, so that
//! what the lake holds can be compared bit for bit.

use std::collections::BTreeMap;

use headwater_agent::pipeline::admit::{Field, Sample};
use headwater_proto::ids::Lane;
use headwater_proto::sample::Value;
use headwater_proto::time::UnixMicros;

/// Wall time at the virtual clock's zero; a little before midnight, so that runs cross a date.
pub const START_US: i64 = 1_699_999_000_000_000;

/// Clocks show whole multiples of this, plus the place of the physical device they are in, so that
/// no two devices ever make a reading in the same microsecond.
pub const CLOCK_STEP_US: i64 = 8;

/// One source of every device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// Its name in the agent's settings.
    pub name: &'static str,
    /// Where its readings go.
    pub lane: Lane,
    /// It keeps its readings and can begin again from a cursor.
    pub resumes: bool,
    /// Its two metrics: a float and a counter.
    pub metrics: [&'static str; 2],
}

/// The sources of every device.
pub const SOURCES: [Source; 3] = [
    Source {
        name: "file",
        lane: Lane::Normal,
        resumes: true,
        metrics: ["file.level", "file.count"],
    },
    Source {
        name: "live",
        lane: Lane::Normal,
        resumes: false,
        metrics: ["live.level", "live.count"],
    },
    Source {
        name: "bell",
        lane: Lane::Alarm,
        resumes: true,
        metrics: ["bell.level", "bell.count"],
    },
];

/// One value as the lake holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bits {
    /// Of a float.
    F64(u64),
    /// An integer.
    I64(i64),
}

/// Device, metric and time of a reading.
pub type Key = (String, String, i64);

/// All readings that were ever made.
#[derive(Debug, Default)]
pub struct Made {
    seed: u64,
    readings: BTreeMap<Key, Bits>,
}

/// Row `number` of a source, as it is offered to an agent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// When.
    pub time: UnixMicros,
    /// The float, missing in one row of five.
    pub level: Option<f64>,
    /// The counter.
    pub count: i64,
}

impl Made {
    /// Nothing yet.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            readings: BTreeMap::new(),
        }
    }

    /// Row `number` of a device's source; `time` for a source that cannot make it again.
    pub fn row(&mut self, device: &str, source: &Source, number: u64, time: UnixMicros) -> Row {
        let time = if source.resumes {
            UnixMicros(START_US + i64::try_from(number).unwrap_or(0) * 250_000)
        } else {
            time
        };
        let mut dice = super::dice::Dice::new(self.seed ^ u64::from_le_bytes(time.0.to_le_bytes()));
        let level = (dice.below(5) > 0).then(|| {
            let hundredths = u32::try_from(dice.below(10_000)).unwrap_or(0);
            f64::from(hundredths) / 100.0
        });
        let row = Row {
            time,
            level,
            count: i64::try_from(number).unwrap_or(0) * 3,
        };
        let mut note = |metric: &str, bits| {
            self.readings
                .insert((device.to_owned(), metric.to_owned(), time.0), bits);
        };
        if let Some(level) = row.level {
            note(source.metrics[0], Bits::F64(level.to_bits()));
        }
        note(source.metrics[1], Bits::I64(row.count));
        row
    }

    /// All readings.
    #[must_use]
    pub const fn readings(&self) -> &BTreeMap<Key, Bits> {
        &self.readings
    }
}

impl Row {
    /// Hands the row over as a sample.
    pub fn with_sample<T>(&self, source: &Source, take: impl FnOnce(&Sample<'_>) -> T) -> T {
        let level = Field {
            value: self.level.map(Value::F64),
            ..Field::new(source.metrics[0], Value::F64(0.0))
        };
        let count = Field::new(source.metrics[1], Value::I64(self.count));
        take(&Sample {
            time: self.time,
            labels: &[],
            fields: &[level, count],
        })
    }
}
