//! Core: the readings of the world. Each is a function of seed, device, source and number, so that
//! what the lake holds can be compared bit for bit.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use headwater_agent::pipeline::admit::{Field, Sample};
use headwater_proto::ids::Lane;
use headwater_proto::sample::Value;
use headwater_proto::time::UnixMicros;

use crate::node::METRIC as NODES;

/// Wall time at the virtual clock's zero; a little before midnight, so that runs cross a date.
pub const START_US: i64 = 1_763_071_000_000_000;

/// Clocks show whole multiples of this, plus the place of the physical device they are in, so that
/// no two devices ever make a reading in the same microsecond.
pub const CLOCK_STEP_US: i64 = 8;

/// Between two rows of a source that waits, microseconds.
const ROW_US: i64 = 250_000;

/// How the names of all nodes behind agents begin.
pub const BEHIND_NAMES: &str = "behind-";

/// What a source says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Says {
    /// Rows of two metrics: a float and a counter.
    Numbers([&'static str; 2]),
    /// Log lines.
    Lines,
}

/// One source of every device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// Its name in the agent's settings.
    pub name: &'static str,
    /// Where its readings go.
    pub lane: Lane,
    /// It keeps its readings and can begin again from a cursor.
    pub resumes: bool,
    /// Milliseconds within which its rows are to be durable.
    pub durable_within_ms: Option<u64>,
    /// What its rows are.
    pub says: Says,
}

/// The sources of every device.
pub const SOURCES: [Source; 4] = [
    Source {
        name: "file",
        lane: Lane::Normal,
        resumes: true,
        durable_within_ms: None,
        says: Says::Numbers(["file.level", "file.count"]),
    },
    Source {
        name: "live",
        lane: Lane::Normal,
        resumes: false,
        durable_within_ms: Some(300),
        says: Says::Numbers(["live.level", "live.count"]),
    },
    Source {
        name: "bell",
        lane: Lane::Alarm,
        resumes: true,
        durable_within_ms: None,
        says: Says::Numbers(["bell.level", "bell.count"]),
    },
    Source {
        name: LOG,
        lane: Lane::Bulk,
        resumes: true,
        durable_within_ms: None,
        says: Says::Lines,
    },
];

/// Name of the source of log lines, and in the lake the place of a metric's name.
pub const LOG: &str = "log";

/// The lane of the source that makes readings of a metric.
#[must_use]
pub fn lane_of(metric: &str) -> Option<Lane> {
    let mut sources = SOURCES.iter();
    let source = sources.find(|source| match source.says {
        Says::Numbers(metrics) => metrics.contains(&metric),
        Says::Lines => metric == LOG,
    });
    source.map(|source| source.lane)
}

/// The number of the row of that time, of a source that waits.
#[must_use]
pub fn row_at(time_us: i64) -> u64 {
    u64::try_from((time_us - START_US) / ROW_US).unwrap_or(0)
}

/// One value as the lake holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bits {
    /// Of a float.
    F64(u64),
    /// An integer.
    I64(i64),
    /// The line of this number.
    Line(i64),
}

/// Log line `number` of a device.
#[must_use]
pub fn line(device: &str, number: i64) -> String {
    format!("line {number} of {device}")
}

/// What the lines of a fleet have in common; small beside the world's segments.
#[must_use]
pub fn dictionary() -> Arc<[u8]> {
    static TRAINED: OnceLock<Arc<[u8]>> = OnceLock::new();
    let train = || {
        let lines: Vec<String> = (0..2_000).map(|n| line("device-1", n)).collect();
        zstd::dict::from_samples(&lines, 512).expect("lines that are alike")
    };
    Arc::clone(TRAINED.get_or_init(|| train().into()))
}

/// The number of a device's log line, if it is one.
#[must_use]
pub fn line_number(device: &str, text: &str) -> Option<i64> {
    let (number, of) = text.strip_prefix("line ")?.split_once(" of ")?;
    number.parse().ok().filter(|_| of == device)
}

/// Whether readings of a metric show when they were made: they are made as time passes, and never again.
#[must_use]
pub fn is_of_its_time(metric: &str) -> bool {
    metric.starts_with("live") || metric == NODES
}

/// Device, metric and time of a reading.
pub type Key = (String, String, i64);

/// All readings that were ever made.
#[derive(Debug, Default)]
pub struct Made {
    seed: u64,
    readings: BTreeMap<Key, Bits>,
    /// When live rows, and those of nodes, were truly made, by the device and the time that its clock showed.
    truths: BTreeMap<(String, i64), UnixMicros>,
    /// Times of readings by device, metric and the row's own number, which its values show.
    numbered: BTreeMap<(String, String, u64), i64>,
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
    /// The row's own number among those of its source, or of a source that cannot make it again among all
    /// rows of all such sources. Both values show it.
    pub number: u64,
}

/// What the counter rises by from row to row.
const COUNT_STEP: i64 = 3;

/// The number of the row that a value of a metric belongs to.
fn number_of(metric: &str, bits: Bits) -> Option<u64> {
    match bits {
        Bits::F64(bits) => {
            let value = f64::from_bits(bits);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a run makes some thousand rows"
            )]
            (0.0..1e9).contains(&value).then_some(value as u64)
        }
        Bits::I64(count) if metric == NODES => u64::try_from(count).ok(),
        Bits::I64(count) => u64::try_from(count / COUNT_STEP).ok(),
        Bits::Line(number) => u64::try_from(number).ok(),
    }
}

impl Made {
    /// Nothing yet.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            readings: BTreeMap::new(),
            truths: BTreeMap::new(),
            numbered: BTreeMap::new(),
        }
    }

    /// Row `number` of a device's source, and its readings. One that cannot make it again makes it now: its
    /// clock shows `shown`, or the row stands right after those that its clock has shown then before.
    pub fn row(
        &mut self,
        device: &str,
        source: &Source,
        number: u64,
        shown: UnixMicros,
        truth: UnixMicros,
    ) -> (Row, Vec<Key>) {
        let (number, time) = if source.resumes {
            let after_us = i64::try_from(number).unwrap_or(0) * ROW_US;
            (number, UnixMicros(START_US + after_us))
        } else {
            self.live(device, shown, truth)
        };
        let mut dice = super::dice::Dice::new(self.seed ^ u64::from_le_bytes(time.0.to_le_bytes()));
        let level = (dice.below(5) > 0).then(|| {
            let hundredths = u32::try_from(100 * number + dice.below(100)).unwrap_or(0);
            f64::from(hundredths) / 100.0
        });
        let row = Row {
            time,
            level,
            count: number.cast_signed() * COUNT_STEP,
            number,
        };
        let mut keys = Vec::new();
        let mut note = |metric: &str, bits| {
            let key = (device.to_owned(), metric.to_owned(), time.0);
            let of = (key.0.clone(), key.1.clone(), number);
            self.numbered.insert(of, time.0);
            self.readings.insert(key.clone(), bits);
            keys.push(key);
        };
        match source.says {
            Says::Numbers([level, count]) => {
                if let Some(value) = row.level {
                    note(level, Bits::F64(value.to_bits()));
                }
                note(count, Bits::I64(row.count));
            }
            Says::Lines => note(LOG, Bits::Line(number.cast_signed())),
        }
        (row, keys)
    }

    /// The number of the next live row, and its time.
    fn live(&mut self, device: &str, shown: UnixMicros, truth: UnixMicros) -> (u64, UnixMicros) {
        let mut key = (device.to_owned(), shown.0);
        while self.truths.contains_key(&key) {
            key.1 += CLOCK_STEP_US;
        }
        let (number, time) = (self.truths.len() as u64, UnixMicros(key.1));
        self.truths.insert(key, truth);
        (number, time)
    }

    /// The reading that a value of a device is, whatever time is said of it.
    #[must_use]
    pub fn key_of(&self, device: &str, metric: &str, bits: Bits) -> Option<Key> {
        let of = (
            device.to_owned(),
            metric.to_owned(),
            number_of(metric, bits)?,
        );
        let time = self.numbered.get(&of)?;
        Some((of.0, of.1, *time))
    }

    /// Notes that a node behind an agent made its sample `count` at this time, by a clock that is right.
    pub fn note(&mut self, device: &str, count: u64, time: UnixMicros) -> Key {
        let key = (device.to_owned(), NODES.to_owned(), time.0);
        let of = (key.0.clone(), key.1.clone(), count);
        self.numbered.insert(of, time.0);
        let bits = Bits::I64(count.cast_signed());
        self.readings.insert(key.clone(), bits);
        self.truths.insert((key.0.clone(), time.0), time);
        key
    }

    /// When the live row, or that of a node, that a device made at `time` was truly made.
    #[must_use]
    pub fn truth(&self, device: &str, time: i64) -> Option<UnixMicros> {
        self.truths.get(&(device.to_owned(), time)).copied()
    }

    /// All readings.
    #[must_use]
    pub const fn readings(&self) -> &BTreeMap<Key, Bits> {
        &self.readings
    }
}

impl Row {
    /// Hands the row over as a sample of these two metrics.
    pub fn with_sample<T>(
        &self,
        [level, count]: [&str; 2],
        take: impl FnOnce(&Sample<'_>) -> T,
    ) -> T {
        let level = Field {
            value: self.level.map(Value::F64),
            ..Field::new(level, Value::F64(0.0))
        };
        let count = Field::new(count, Value::I64(self.count));
        take(&Sample {
            time: self.time,
            labels: &[],
            fields: &[level, count],
        })
    }
}
