//! Clocks: an agent whose clock is wrong, unset, set or unsynchronised, before a collector that is
//! right. Whatever the collector states of a row's time and its error contains the truth.
//!
//! Prints a line for each case.

#![allow(clippy::print_stdout, reason = "a test run is read by people")]
#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use headwater_agent::pipeline::admit::{Field, Sample};
use headwater_agent::pipeline::engine::{Engine, Event, Settings, SourceSettings};
use headwater_collector::pipeline::dating::{Sightings, date};
use headwater_collector::pipeline::envelope::{Clock, TimeClass};
use headwater_collector::pipeline::time_bases::KnownBase;
use headwater_program::clock::WallError;
use headwater_proto::bundle::{Bundle, BundleHead};
use headwater_proto::codec::{BatchHeader, Limits, RowVisitor, decode};
use headwater_proto::frame::{self, Kind};
use headwater_proto::ids::{DeviceId, Epoch, JournalId, Lane};
use headwater_proto::message::{self, Ack, Hello, MAX_MARKS, Mark, PROTOCOL, TimeBase, Welcome};
use headwater_proto::sample::Value;
use headwater_proto::schema::Schema;
use headwater_proto::time::{Millis, Now, UnixMicros};
use headwater_spool::FakeDisk;

const SECOND_US: i64 = 1_000_000;
const HOUR_US: i64 = 3_600 * SECOND_US;
const DAY_US: i64 = 24 * HOUR_US;
/// The truth as a case begins: 2026-11-27.
const TRUE_US: i64 = 1_795_780_000 * SECOND_US;
/// How fast the device's uptime runs, in parts per million too much.
const DRIFT_PPM: i64 = 80;
const STEP_MS: i64 = 50;
/// A row every so often, and how long it waits for the engine.
const ROW_EVERY_MS: i64 = 500;
const WAIT_MS: i64 = 300;
/// The way to the collector, and back.
const WAY_MS: i64 = 40;
/// What a collector takes: no older, no further ahead.
const MAX_LATE_US: i64 = 30 * DAY_US;
const MAX_AHEAD_US: i64 = HOUR_US;

const SYNCED: WallError = WallError::Synced { error_ms: 3 };
const UNSYNCED: WallError = WallError::Unsynced;

/// What happens to the device.
#[derive(Debug, Clone, Copy)]
enum Do {
    Connect,
    Disconnect,
    /// The wall clock is set so far off the truth.
    Set(i64, WallError),
    /// The process is killed and begins again.
    Kill,
    /// Power is lost; the next boot begins with this clock.
    Reboot(i64, WallError),
}

struct Case {
    name: &'static str,
    off_us: i64,
    kernel: WallError,
    /// By second.
    events: &'static [(i64, Do)],
    seconds: i64,
    /// Classes that rows may have, and the largest error that is stated of any.
    classes: &'static [TimeClass],
    most_error_ms: Option<u32>,
}

const TO_1970: i64 = -TRUE_US;
const TO_2040: i64 = 2_210_000_000 * SECOND_US - TRUE_US;
const ANSWER_MS: u32 = 2_048;

#[rustfmt::skip]
const CASES: &[Case] = &[
    Case { name: "right and synchronised", off_us: 0, kernel: SYNCED, seconds: 60,
        events: &[(1, Do::Connect)], classes: &[TimeClass::Synced], most_error_ms: Some(16) },
    Case { name: "2 days behind, and the kernel says synchronised", off_us: -2 * DAY_US, kernel: SYNCED, seconds: 60,
        events: &[(1, Do::Connect)], classes: &[TimeClass::Wall], most_error_ms: None },
    Case { name: "2 days behind, not synchronised", off_us: -2 * DAY_US, kernel: UNSYNCED, seconds: 60,
        events: &[(5, Do::Connect)], classes: &[TimeClass::Wall], most_error_ms: None },
    Case { name: "1 hour ahead, and the kernel says synchronised", off_us: HOUR_US, kernel: SYNCED, seconds: 60,
        events: &[(1, Do::Connect)], classes: &[TimeClass::Wall], most_error_ms: None },
    Case { name: "40 minutes ahead, not synchronised", off_us: 40 * 60 * SECOND_US, kernel: UNSYNCED, seconds: 60,
        events: &[(5, Do::Connect)], classes: &[TimeClass::Wall], most_error_ms: None },
    Case { name: "1970 for ever, connected", off_us: TO_1970, kernel: UNSYNCED, seconds: 120,
        events: &[(5, Do::Connect)], classes: &[TimeClass::Dated], most_error_ms: Some(ANSWER_MS) },
    Case { name: "1970, synchronised after 30 s, then connected", off_us: TO_1970, kernel: UNSYNCED, seconds: 120,
        events: &[(30, Do::Set(0, SYNCED)), (60, Do::Connect)],
        classes: &[TimeClass::Dated, TimeClass::Synced], most_error_ms: Some(64) },
    Case { name: "1970, synchronised, rebooted before it is connected", off_us: TO_1970, kernel: UNSYNCED, seconds: 180,
        events: &[(30, Do::Set(0, SYNCED)), (60, Do::Reboot(TO_1970, UNSYNCED)), (90, Do::Set(0, SYNCED)), (120, Do::Connect)],
        classes: &[TimeClass::Dated, TimeClass::Synced], most_error_ms: Some(64) },
    Case { name: "1970, known by the collector alone, rebooted with a backlog", off_us: TO_1970, kernel: UNSYNCED, seconds: 180,
        events: &[(10, Do::Connect), (20, Do::Disconnect), (60, Do::Reboot(TO_1970, UNSYNCED)), (90, Do::Connect)],
        classes: &[TimeClass::Dated], most_error_ms: Some(ANSWER_MS) },
    Case { name: "1970, rebooted before anybody knew the time", off_us: TO_1970, kernel: UNSYNCED, seconds: 120,
        events: &[(30, Do::Reboot(0, SYNCED)), (60, Do::Connect)],
        classes: &[TimeClass::Undated, TimeClass::Synced], most_error_ms: Some(16) },
    Case { name: "1970, the agent killed and begun again in the same boot", off_us: TO_1970, kernel: UNSYNCED, seconds: 120,
        events: &[(30, Do::Kill), (60, Do::Connect)], classes: &[TimeClass::Dated], most_error_ms: Some(ANSWER_MS) },
    Case { name: "2040, not synchronised, set right after 30 s", off_us: TO_2040, kernel: UNSYNCED, seconds: 120,
        events: &[(5, Do::Connect), (30, Do::Set(0, SYNCED))],
        classes: &[TimeClass::Wall, TimeClass::Synced], most_error_ms: None },
    Case { name: "right but not synchronised, never connected for 10 minutes", off_us: 700_000, kernel: UNSYNCED, seconds: 700,
        events: &[(600, Do::Connect)], classes: &[TimeClass::Wall], most_error_ms: None },
    Case { name: "not synchronised, connected, then away for 10 minutes", off_us: 700_000, kernel: UNSYNCED, seconds: 700,
        events: &[(1, Do::Connect), (30, Do::Disconnect), (630, Do::Connect)],
        classes: &[TimeClass::Wall], most_error_ms: None },
    Case { name: "jumping: +20 min, -1 day, right again", off_us: 0, kernel: SYNCED, seconds: 150,
        events: &[(1, Do::Connect), (30, Do::Set(20 * 60 * SECOND_US, UNSYNCED)), (60, Do::Set(-DAY_US, UNSYNCED)), (90, Do::Set(0, SYNCED))],
        classes: &[TimeClass::Synced, TimeClass::Wall], most_error_ms: None },
    Case { name: "jumping while it is away", off_us: 0, kernel: SYNCED, seconds: 150,
        events: &[(1, Do::Connect), (20, Do::Disconnect), (30, Do::Set(-3 * DAY_US, UNSYNCED)), (60, Do::Set(0, SYNCED)), (90, Do::Connect)],
        classes: &[TimeClass::Synced, TimeClass::Wall], most_error_ms: None },
];

/// A row as the collector states it.
#[derive(Debug, Clone, Copy)]
struct Stated {
    clock: Clock,
    at_us: i64,
    received_us: i64,
}

/// A collector that is right, and keeps everything at once.
#[derive(Default)]
struct Collector {
    schemas: BTreeMap<(Epoch, u32), Schema>,
    received: BTreeMap<(Lane, Epoch), BTreeSet<u64>>,
    oldest: BTreeMap<(Lane, Epoch), u64>,
    sightings: Sightings,
    bases: BTreeMap<u64, KnownBase>,
    rows: BTreeMap<i64, Stated>,
}

#[derive(Default)]
struct Rows {
    time_us: i64,
    found: Vec<(i64, i64)>,
}

impl RowVisitor for Rows {
    fn row(&mut self, _: u32, time_us: i64, _: u32) {
        self.time_us = time_us;
    }

    fn value(&mut self, _: usize, value: Value<'_>) {
        if let Value::I64(k) = value {
            self.found.push((self.time_us, k));
        }
    }
}

fn down<M: message::Body>(message: &M) -> Vec<u8> {
    let mut out = Vec::new();
    message::append_frame(message, &mut out);
    out
}

impl Collector {
    fn mark(&self, key: (Lane, Epoch)) -> Mark {
        let mut received = self.oldest[&key];
        while self
            .received
            .get(&key)
            .is_some_and(|seqs| seqs.contains(&received))
        {
            received += 1;
        }
        Mark {
            lane: key.0,
            epoch: key.1,
            received,
            committed: received,
            ranges: Default::default(),
        }
    }

    fn marks(&self) -> Vec<Mark> {
        self.oldest.keys().map(|key| self.mark(*key)).collect()
    }

    /// Takes one publish; answers as of `now`.
    fn take(&mut self, bytes: &[u8], now: Now) -> Vec<Vec<u8>> {
        if Bundle::is_bundle(bytes) {
            return self.bundle(bytes, now);
        }
        let (frame, _) = frame::decode(bytes).unwrap();
        let hello: Hello = message::decode(frame.payload).unwrap();
        self.sightings
            .note(hello.boot, hello.uptime_ms, hello.wall, now);
        for stream in &hello.streams {
            let oldest = self.oldest.entry((stream.lane, stream.epoch)).or_default();
            *oldest = stream.oldest.max(*oldest);
        }
        let welcome = Welcome {
            version: PROTOCOL,
            origin: hello.origin,
            nonce: hello.nonce,
            page: 0,
            pages: 1,
            journal: JournalId(1),
            credit: 1 << 20,
            max_bundle: 128 << 10,
            time: now.wall,
            marks: self.marks().into_iter().take(MAX_MARKS).collect(),
        };
        vec![down(&welcome)]
    }

    fn bundle(&mut self, bytes: &[u8], now: Now) -> Vec<Vec<u8>> {
        let bundle = Bundle::open(bytes).unwrap();
        let head: &BundleHead = &bundle.head;
        if let Some(uptime_ms) = head.uptime_ms {
            self.sightings.note(head.boot, uptime_ms, head.wall, now);
        }
        let clock = date(head, &self.sightings, self.bases.get(&head.boot), now).unwrap_or(Clock {
            class: TimeClass::Undated,
            offset_us: 0,
            error_ms: None,
        });
        for record in bundle.records() {
            let payload = record.frame.payload;
            let Some(seq) = record.seq else {
                let mut at = 0;
                let number = headwater_proto::varint::get(payload, &mut at).unwrap();
                let schema = Schema::decode(&payload[at..], &Limits::DEFAULT).unwrap();
                let number = u32::try_from(number).unwrap();
                self.schemas.insert((head.epoch, number), schema);
                continue;
            };
            self.received
                .entry((head.lane, head.epoch))
                .or_default()
                .insert(seq);
            if record.frame.kind == Kind::TimeBase {
                let base: TimeBase = message::decode(payload).unwrap();
                self.bases.insert(base.boot, KnownBase::of(&base));
            }
            if record.frame.kind != Kind::Batch {
                continue;
            }
            let number = BatchHeader::peek(payload).unwrap().schema_no;
            let mut rows = Rows::default();
            decode(
                payload,
                &self.schemas[&(head.epoch, number)],
                &Limits::DEFAULT,
                &mut rows,
            )
            .unwrap();
            for (us, k) in rows.found {
                let stated = Stated {
                    clock,
                    at_us: us + clock.offset_us,
                    received_us: now.wall.0,
                };
                self.rows.entry(k).or_insert(stated);
            }
        }
        let marks = self.marks();
        let acks = marks.chunks(MAX_MARKS).map(|marks| {
            down(&Ack {
                origin: head.origin.clone(),
                journal: JournalId(1),
                credit: 1 << 20,
                time: now.wall,
                marks: marks.iter().cloned().collect(),
            })
        });
        acks.collect()
    }
}

/// The device and its way to the collector.
struct Site {
    ms: i64,
    boot: (u64, i64),
    off_us: i64,
    kernel: WallError,
    disk: FakeDisk,
    engine: Engine<FakeDisk>,
    entropy: u64,
    connected: bool,
    up: VecDeque<(i64, Vec<u8>)>,
    down: VecDeque<(i64, Vec<u8>)>,
    collector: Collector,
    /// Read and not yet offered: when, by which clock, and its number.
    queue: VecDeque<(i64, UnixMicros, i64)>,
    /// When each row was truly read.
    truth: Vec<i64>,
}

fn settings(boot: u64, clock: WallError) -> Settings {
    let source = SourceSettings {
        name: "host".into(),
        resumes: false,
        loses: true,
        durable_within_ms: None,
    };
    Settings {
        sources: vec![source],
        boot,
        clock,
        ..Settings::new(DeviceId::new("pump-1").unwrap())
    }
}

impl Site {
    fn new(case: &Case) -> Self {
        let disk = FakeDisk::new();
        let begun = Now {
            mono: Millis(0),
            wall: UnixMicros(TRUE_US + case.off_us),
        };
        let engine = Engine::open(disk.clone(), settings(1, case.kernel), &mut || 77, begun);
        Self {
            ms: 0,
            boot: (1, 0),
            off_us: case.off_us,
            kernel: case.kernel,
            engine: engine.unwrap(),
            disk,
            entropy: 1,
            connected: false,
            up: VecDeque::new(),
            down: VecDeque::new(),
            collector: Collector::default(),
            queue: VecDeque::new(),
            truth: Vec::new(),
        }
    }

    fn true_us(&self) -> i64 {
        TRUE_US + self.ms * 1_000
    }

    /// The device's clocks: its uptime runs too fast, and its wall clock with it until it is set.
    fn now(&self) -> Now {
        let up_us = (self.ms - self.boot.1) * 1_000;
        let up_us = up_us + up_us * DRIFT_PPM / 1_000_000;
        let drift_us = if self.kernel == UNSYNCED {
            self.ms * DRIFT_PPM / 1_000
        } else {
            0
        };
        Now {
            mono: Millis(u64::try_from(up_us / 1_000).unwrap()),
            wall: UnixMicros(self.true_us() + self.off_us + drift_us),
        }
    }

    fn reopen(&mut self) {
        self.connected = false;
        (self.up, self.down) = (VecDeque::new(), VecDeque::new());
        self.queue.clear();
        self.disk = self.disk.process_killed();
        let (now, settings) = (self.now(), settings(self.boot.0, self.kernel));
        let entropy = &mut self.entropy;
        let mut draw = || {
            *entropy = entropy.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(99);
            *entropy ^ (*entropy >> 31)
        };
        self.engine = Engine::open(self.disk.clone(), settings, &mut draw, now).unwrap();
    }

    fn happen(&mut self, what: Do) {
        match what {
            Do::Connect => {
                self.connected = true;
                // Another connection: its receipts begin anew.
                self.collector.sightings = Sightings::default();
                let now = self.now();
                self.engine.handle(Event::LinkUp, now);
            }
            Do::Disconnect => {
                self.connected = false;
                (self.up, self.down) = (VecDeque::new(), VecDeque::new());
                let now = self.now();
                self.engine.handle(Event::LinkDown, now);
            }
            Do::Set(off_us, kernel) => (self.off_us, self.kernel) = (off_us, kernel),
            Do::Kill => self.reopen(),
            Do::Reboot(off_us, kernel) => {
                self.boot = (self.boot.0 + 1, self.ms);
                (self.off_us, self.kernel) = (off_us, kernel);
                self.reopen();
            }
        }
    }

    fn read_sensor(&mut self) {
        let k = i64::try_from(self.truth.len()).unwrap();
        self.truth.push(self.true_us());
        self.queue.push_back((self.ms, self.now().wall, k));
    }

    /// As the agent's event loop does: rows are taken, then the clocks are looked at.
    fn take_rows(&mut self) {
        while self
            .queue
            .front()
            .is_some_and(|(at, _, _)| at + WAIT_MS <= self.ms)
        {
            let (_, time, k) = self.queue.pop_front().unwrap();
            let now = self.look();
            let fields = [Field::new("k", Value::I64(k))];
            let sample = Sample {
                time,
                labels: &[],
                fields: &fields,
            };
            let lane = if k % 10 == 0 {
                Lane::Alarm
            } else {
                Lane::Normal
            };
            self.engine.offer(0, lane, &sample, None, now).unwrap();
        }
    }

    fn look(&mut self) -> Now {
        let now = self.now();
        if self.engine.wants_clock(now) {
            self.engine.handle(Event::Clock(self.kernel), now);
        }
        now
    }

    fn exchange(&mut self) {
        let now = self.look();
        while self.down.front().is_some_and(|(at, _)| *at <= self.ms) {
            let (_, bytes) = self.down.pop_front().unwrap();
            self.engine.handle(Event::Message(&bytes), now);
        }
        self.engine.handle(Event::Tick, now);
        while self.connected
            && let Some(bytes) = self.engine.next_publish(now)
        {
            self.up.push_back((self.ms + WAY_MS, bytes));
        }
        while self.up.front().is_some_and(|(at, _)| *at <= self.ms) {
            let (_, bytes) = self.up.pop_front().unwrap();
            let at = Now {
                mono: Millis(u64::try_from(self.ms).unwrap()),
                wall: UnixMicros(self.true_us()),
            };
            let answers = self.collector.take(&bytes, at);
            self.down
                .extend(answers.into_iter().map(|bytes| (self.ms + WAY_MS, bytes)));
        }
    }

    fn run(&mut self, case: &Case) {
        while self.ms < case.seconds * 1_000 {
            for (second, what) in case.events {
                if second * 1_000 == self.ms {
                    self.happen(*what);
                }
            }
            // No row is read in the last moments: all that were reach the collector.
            if self.ms % ROW_EVERY_MS == 0 && self.ms + 5_000 < case.seconds * 1_000 {
                self.read_sensor();
            }
            self.take_rows();
            self.exchange();
            self.ms += STEP_MS;
        }
    }
}

/// What became of the rows of a case: a line of the table, and what is wrong.
fn judge(case: &Case, site: &Site) -> (String, Vec<String>) {
    let mut faults = Vec::new();
    let mut lost = 0;
    let (mut late, mut undated, mut unknown) = (0, 0, 0);
    let (mut stated_ms, mut true_ms) = (0, 0);
    let mut classes = BTreeMap::<String, u32>::new();
    for (k, truth_us) in (0..).zip(&site.truth) {
        let Some(row) = site.collector.rows.get(&k) else {
            lost += 1;
            continue;
        };
        *classes
            .entry(format!("{:?}", row.clock.class).to_lowercase())
            .or_default() += 1;
        if !case.classes.contains(&row.clock.class) {
            faults.push(format!("row {k} is {:?}", row.clock));
        }
        if row.clock.class == TimeClass::Undated {
            undated += 1;
            continue;
        }
        let age_us = row.received_us - row.at_us;
        if !(-MAX_AHEAD_US..=MAX_LATE_US).contains(&age_us) {
            late += 1;
            continue;
        }
        let off_ms = row.at_us.abs_diff(*truth_us).div_ceil(1_000);
        true_ms = off_ms.max(true_ms);
        match row.clock.error_ms {
            None => unknown += 1,
            Some(error_ms) => {
                stated_ms = u64::from(error_ms).max(stated_ms);
                if off_ms > u64::from(error_ms) {
                    faults.push(format!("row {k} is off by {off_ms} ms: {:?}", row.clock));
                }
            }
        }
    }
    if let Some(most) = case.most_error_ms
        && (stated_ms > u64::from(most) || unknown > 0)
    {
        faults.push(format!(
            "an error of {stated_ms} ms is stated, {unknown} rows have none"
        ));
    }
    let classes: Vec<_> = classes
        .iter()
        .map(|(name, rows)| format!("{name} {rows}"))
        .collect();
    let line = format!(
        "{:62} {:4} rows: {:26} off by up to {true_ms:>10} ms, stated {stated_ms:>10} ms; no error known {unknown:>4}, \
         quarantined: {late} impossible, {undated} undated; {lost} cut off by a crash",
        case.name,
        site.truth.len(),
        classes.join(", ")
    );
    (line, faults)
}

#[test]
fn what_is_stated_of_a_rows_time_contains_the_truth() {
    let mut faults = Vec::new();
    for case in CASES {
        let mut site = Site::new(case);
        site.run(case);
        let (line, wrong) = judge(case, &site);
        println!("{line}");
        let crashes = case
            .events
            .iter()
            .any(|(_, what)| matches!(what, Do::Kill | Do::Reboot(..)));
        let found = site.collector.rows.len();
        if !crashes && found < site.truth.len() {
            faults.push(format!(
                "{}: {found} of {} rows arrived",
                case.name,
                site.truth.len()
            ));
        }
        faults.extend(
            wrong
                .into_iter()
                .take(3)
                .map(|fault| format!("{}: {fault}", case.name)),
        );
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
