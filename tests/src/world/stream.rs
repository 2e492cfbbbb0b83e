//! Core: the stream's service: takes records as a streaming service does, in front of the collector's own sink for
//! one. It is away or busy, takes a part of a call alone, never takes some lines, or its answer is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, pending};
use std::io::Read as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flate2::read::MultiGzDecoder;
use headwater_collector::interpret::{Depth, Feed};
use headwater_collector::metrics::SinkLook;
use headwater_collector::pipeline::custody::Custody;
use headwater_collector::sink::stream::service::{self, Answer, CallLimits, Failure, Record};
use headwater_collector::sink::stream::{self, Encoding, Key, StreamSettings, StreamSink};
use headwater_collector::sink::worker::Worker;
use headwater_lake::date::instant_of;
use headwater_proto::ids::{DeviceId, Epoch, Lane, Stream};
use headwater_proto::time::{Millis, Now};
use headwater_spool::FakeDisk;
use serde_json::Value as Json;

use super::copy::CopyFaults;
use super::dice::Dice;
use super::generator::{Bits, LOG, line_number};
use super::given::{Given, Number, Refused, Row};

/// Name of the stream sink.
pub const STREAM: &str = "stream";

/// Longest wait of a record.
const FLUSH_AFTER_MS: u64 = 500;
/// Records of a call at most.
const CALL_RECORDS: usize = 20;
/// Bytes of a call at most.
const CALL_BYTES: usize = 40_000;

/// A record as the service saw it.
#[derive(Debug, Default)]
struct Arrived {
    times: u64,
    /// Deaths of the collector before it came first.
    deaths: u64,
    /// How often it may come again: for an answer that was lost.
    excused: u64,
}

/// What the service has.
#[derive(Debug, Default)]
pub struct Shelf {
    /// What it was given of each record of the journal.
    pub given: BTreeMap<Number, Given>,
    /// Records of the journal of which it refuses every line.
    pub refused: BTreeSet<Number>,
    /// Records that it was told nobody can decode: the schema that they need rotted.
    pub undecodable: BTreeSet<Number>,
    /// Batches that could not be made again.
    pub broken: u64,
    /// What it was sent and should not have been; each a line.
    pub faults: Vec<String>,
    /// Calls that came.
    pub batches: u64,
    /// Records that came again.
    pub repeats: u64,
    /// Calls that failed.
    pub failed: u64,
    /// Batches that were made again from their plan.
    pub remade: u64,
    /// Times that the collector died.
    deaths: u64,
    arrived: BTreeMap<(Arc<str>, Vec<u8>), Arrived>,
    /// Lines that came.
    lines: BTreeSet<String>,
    /// The first record of each key that failed and has not come since.
    held_up: BTreeMap<Arc<str>, Vec<u8>>,
}

impl Shelf {
    /// - `is_told`: whether the collector hears of it.
    fn store(&mut self, record: &Record, lines: &[Line], is_told: bool, refuses: u64) {
        let deaths = self.deaths;
        let name = (Arc::clone(&record.key), record.bytes.to_vec());
        let is_known = self.arrived.contains_key(&name);
        self.repeats += u64::from(is_known);
        // A refused record comes in halves.
        if refuses == 0 && !record.key.is_empty() {
            self.expect_order(record, is_known);
        }
        let known = self.arrived.entry(name).or_insert_with(|| Arrived {
            deaths,
            ..Arrived::default()
        });
        known.times += 1;
        let excused = known.excused + deaths - known.deaths;
        // Two losses or changes of an epoch may be told in the same words.
        if known.times > 1 + excused && lines.iter().any(Line::is_numbered) {
            let times = known.times;
            self.faults.push(format!(
                "a record of {} lines came {times} times, and {excused} repeats had a reason",
                lines.len()
            ));
        }
        known.excused += u64::from(!is_told);
        for line in lines {
            let is_new = self.lines.insert(line.text.clone());
            if !is_new && !is_known && refuses == 0 && line.is_numbered() {
                self.faults
                    .push(format!("a line came again in other bytes: {}", line.text));
            }
            if let Some((number, given)) = line.given() {
                self.given.entry(number).or_default().merge(&given);
            }
            self.undecodable.extend(line.undecodable());
        }
    }

    /// This record was not taken: none of its key may come before it.
    fn fail(&mut self, record: &Record) {
        let failed = self.held_up.entry(Arc::clone(&record.key));
        failed.or_insert_with(|| record.bytes.to_vec());
    }

    /// What failed before comes before anything else of its key.
    fn expect_order(&mut self, record: &Record, is_known: bool) {
        let held_up = self.held_up.get(&record.key);
        if held_up.is_some_and(|bytes| *bytes == record.bytes) {
            self.held_up.remove(&record.key);
        } else if held_up.is_some() && !is_known {
            self.faults.push(format!(
                "a record came before an older one of key {:?} that had failed",
                record.key
            ));
        }
    }
}

/// A line of a record.
struct Line {
    text: String,
    json: Json,
}

impl Line {
    fn all(record: &Record) -> Vec<Self> {
        let mut text = String::new();
        // The collector made it: it can be read.
        let _ = MultiGzDecoder::new(&*record.bytes).read_to_string(&mut text);
        let line = |text: &str| Self {
            text: text.to_owned(),
            json: serde_json::from_str(text).unwrap_or_default(),
        };
        text.lines().map(line).collect()
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.json[key].as_str()
    }

    fn stream(&self) -> Option<Stream> {
        Some(Stream {
            device: DeviceId::new(self.text("device")?).ok()?,
            lane: Lane::from_name(self.text("lane")?)?,
            epoch: Epoch::new(self.text("epoch")?.parse().ok()?),
        })
    }

    /// Whether it is of a numbered record, so that no other line is the same.
    fn is_numbered(&self) -> bool {
        self.json["seq"].is_u64()
    }

    fn number(&self) -> Option<Number> {
        Some((self.stream()?, self.json["seq"].as_u64()?))
    }

    fn error_ms(&self) -> Option<u32> {
        u32::try_from(self.json["error_ms"].as_u64()?).ok()
    }

    fn given(&self) -> Option<(Number, Given)> {
        let (number, mut given) = (self.number()?, Given::default());
        let ts_us = || instant_of(self.text("ts")?);
        match self.text("kind")? {
            "samples" => {
                for (metric, value) in self.json["values"].as_object()? {
                    given.rows.insert(Row {
                        metric: metric.clone(),
                        ts_us: ts_us()?,
                        error_ms: self.error_ms(),
                        bits: bits_of(value)?,
                    });
                }
            }
            "log" => {
                let device = number.0.device.as_str();
                let line = line_number(device, self.text("message")?).unwrap_or(-1);
                given.rows.insert(Row {
                    metric: LOG.to_owned(),
                    ts_us: ts_us()?,
                    error_ms: self.error_ms(),
                    bits: Bits::Line(line),
                });
            }
            "quarantine" => {
                let row = self.json["row"].as_u64();
                let cause = self.text("cause").unwrap_or_default();
                given.refused.insert(Refused {
                    row: row.and_then(|row| u32::try_from(row).ok()),
                    metric: self.text("metric").map(str::to_owned),
                    reason: self.text("reason")?.to_owned(),
                    cause: (!cause.is_empty()).then(|| cause.to_owned()),
                    payload: self.payload()?,
                });
            }
            _ => return None,
        }
        Some((number, given))
    }

    fn payload(&self) -> Option<Vec<u8>> {
        let Some(hex) = self.text("payload_hex") else {
            return Some(self.text("payload")?.as_bytes().to_vec());
        };
        let byte = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
        (0..hex.len()).step_by(2).map(byte).collect()
    }

    /// The record of the journal that nobody can decode, if it says so.
    fn undecodable(&self) -> Option<Number> {
        let is_one = self.text("kind") == Some("gap") && self.text("reason") == Some("undecodable");
        let seq = self.json["first_seq"].as_u64().filter(|_| is_one)?;
        Some((self.stream()?, seq))
    }
}

fn bits_of(value: &Json) -> Option<Bits> {
    match value {
        Json::Number(number) if number.is_f64() => Some(Bits::F64(number.as_f64()?.to_bits())),
        Json::Number(number) => number.as_i64().map(Bits::I64),
        Json::String(text) => text.parse::<f64>().ok().map(|it| Bits::F64(it.to_bits())),
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => None,
    }
}

/// Whether the service never takes a record; it refuses one in `most`, or none if that is 0.
fn is_refused((stream, seq): &Number, most: u64) -> bool {
    let drawn = Dice::new(stream.epoch.get() ^ seq.wrapping_mul(0x9e37_79b9) ^ 0x57e4).bits();
    most > 0 && drawn.is_multiple_of(most)
}

/// The service. It outlives the collector; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Service {
    shelf: Arc<Mutex<Shelf>>,
    now_ms: Arc<AtomicU64>,
}

impl Service {
    /// What it has.
    pub fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is this time now.
    pub fn come_to(&self, now: Millis) {
        self.now_ms.store(now.0, Ordering::Relaxed);
    }

    /// The collector died: what it sent may come again, since nothing durable says that it was answered.
    pub fn collector_died(&self) {
        self.shelf().deaths += 1;
    }

    /// Adds what a life of the sink counted.
    pub fn note_life(&self, look: &SinkLook) {
        let mut shelf = self.shelf();
        for (name, count) in &look.counts {
            match *name {
                "stream_remade_batches_total" => shelf.remade += count,
                "stream_broken_batches_total" => shelf.broken += count,
                _ => {}
            }
        }
    }
}

/// The way from one life of the collector to the service.
#[derive(Debug)]
pub struct Way {
    service: Service,
    faults: CopyFaults,
    away_until: Millis,
    dice: Dice,
}

/// Starts the sink beside a journal, if custody has one of its name: from the batch that the journal has a
/// plan of, or from the cursor.
///
/// # Errors
/// As the collector's.
pub fn open(
    custody: &mut Custody<FakeDisk>,
    service: &Service,
    faults: CopyFaults,
    mut dice: Dice,
    now: Now,
) -> anyhow::Result<Option<Worker<StreamSink<Way>, FakeDisk>>> {
    if custody.cursor(STREAM).is_none() {
        return Ok(None);
    }
    let keys = [Key::Group, Key::Device, Key::Nothing];
    let settings = StreamSettings {
        encoding: Encoding {
            key: keys[usize::try_from(dice.below(3)).unwrap_or_default()],
            record_bytes: 400 + u32::try_from(dice.below(3_000)).unwrap_or_default(),
        },
        flush_ms: FLUSH_AFTER_MS,
    };
    let way = Way {
        service: service.clone(),
        faults,
        away_until: now.mono.plus(faults.away_ms),
        dice,
    };
    let (from, sink) = stream::open(custody, STREAM, way, settings)?;
    let feed = Feed::new(custody.reader(), from, Depth::Samples).with_clock(custody.clock.book());
    Ok(Some(Worker::new(sink, feed)))
}

impl Way {
    /// The answer to a call, `None` if none comes.
    fn answer(&mut self, records: &[Record]) -> Option<Answer> {
        let (service, faults) = (self.service.clone(), self.faults);
        let mut shelf = service.shelf();
        shelf.batches += 1;
        let failure = |cause: &str, is_throttled| Failure {
            cause: cause.to_owned(),
            is_throttled,
        };
        let is_away = service.now_ms.load(Ordering::Relaxed) < self.away_until.0;
        if is_away {
            shelf.failed += 1;
            return Some(Answer::Failed(failure("away", false)));
        }
        let lines: Vec<Vec<Line>> = records.iter().map(Line::all).collect();
        let numbers = lines.iter().flatten().filter_map(Line::number);
        let unfit: Vec<Number> = numbers
            .filter(|it| is_refused(it, faults.refuses))
            .collect();
        if !unfit.is_empty() {
            shelf.refused.extend(unfit);
            let cause = "the service does not like it".to_owned();
            return Some(Answer::Refused { cause });
        }
        let is_lost = self.dice.one_in(faults.lost);
        let is_busy = !is_lost && self.dice.one_in(faults.busy);
        let has_whole = !is_busy || self.dice.one_in(3);
        shelf.failed += u64::from(is_lost || is_busy);
        if is_busy && !has_whole && self.dice.one_in(3) {
            return Some(Answer::Failed(failure("busy", true)));
        }
        let mut answers = Vec::new();
        for (record, lines) in records.iter().zip(&lines) {
            if !has_whole && self.dice.one_in(2) {
                shelf.fail(record);
                answers.push(Err(failure("this one not now", self.dice.one_in(2))));
                continue;
            }
            let is_told = !(is_lost || is_busy && has_whole);
            shelf.store(record, lines, is_told, faults.refuses);
            answers.push(Ok(()));
        }
        if is_lost {
            // Whoever waits for the answer gives up, or hears that none came.
            let cause = "the answer was lost".to_owned();
            return (!self.dice.one_in(2)).then_some(Answer::Unknown { cause });
        }
        if is_busy && has_whole {
            // One answer too few: nobody knows whose.
            answers.pop();
        }
        Some(Answer::Each(answers))
    }
}

impl service::Service for Way {
    fn put(&mut self, records: Vec<Record>) -> impl Future<Output = Answer> + Send {
        let answer = self.answer(&records);
        async move {
            match answer {
                Some(answer) => answer,
                None => pending().await,
            }
        }
    }

    fn limits(&self) -> CallLimits {
        CallLimits {
            records: CALL_RECORDS,
            bytes: CALL_BYTES,
        }
    }
}
