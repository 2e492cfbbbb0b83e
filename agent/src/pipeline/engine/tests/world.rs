//! An engine on a fake disk, and a collector that keeps what it is sent.

use std::collections::{BTreeMap, BTreeSet};

use headwater_program::clock::WallError;
use headwater_proto::bundle::{Bundle, BundleHead};
use headwater_proto::codec::{Limits, RowVisitor, decode};
use headwater_proto::frame::{self, Kind};
use headwater_proto::ids::{DeviceId, Epoch, JournalId, Lane, SeqRange};
use headwater_proto::message::{
    self, Ack, EpochEnd, Gap, Hello, MAX_MARKS, Mark, Reject, RejectReason, Welcome,
};
use headwater_proto::portion::Portion;
use headwater_proto::sample::Value;
use headwater_proto::schema::Schema;
use headwater_proto::time::{Millis, Now, UnixMicros};
use headwater_spool::FakeDisk;

use super::super::{Engine, Event, Settings, SourceSettings};
use crate::pipeline::admit::{Field, Sample};
use crate::pipeline::receipts::Settled;
use crate::pipeline::record::Cursor;
use crate::pipeline::timekeeper::FLOOR;

pub(super) const REPLAY: usize = 0;
pub(super) const HOST: usize = 1;

/// What the collector holds of one stream.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    pub(super) records: BTreeMap<u64, (Kind, Vec<u8>)>,
    pub(super) oldest: u64,
    pub(super) ram: bool,
}

/// Keeps everything at once; commits as far as it is told.
#[derive(Default)]
pub(crate) struct Collector {
    pub(super) streams: BTreeMap<(Lane, Epoch), Stream>,
    pub(super) schemas: BTreeMap<(Epoch, u32), Schema>,
    pub(super) hellos: Vec<Hello>,
    /// Acks say committed too.
    pub(crate) commits: bool,
    /// Refuses these kinds for good.
    pub(super) refuses: Option<Kind>,
    pub(super) bundles: usize,
    /// What bundles said of the contents of sources.
    pub(super) portions: Vec<Portion>,
    /// The head of every bundle, and the kinds of its records.
    pub(super) heads: Vec<(BundleHead, Vec<Kind>)>,
    /// What its clock shows.
    pub(super) time: UnixMicros,
    pages: BTreeMap<u8, Hello>,
}

impl Collector {
    /// Takes one publish; answers with down publishes.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        if Bundle::is_bundle(bytes) {
            return self.bundle(bytes);
        }
        let (frame, _) = frame::decode(bytes).unwrap();
        assert_eq!(frame.kind, Kind::Hello);
        let hello: Hello = message::decode(frame.payload).unwrap();
        self.pages.insert(hello.page, hello.clone());
        self.hellos.push(hello.clone());
        if self.pages.len() < usize::from(hello.pages) {
            return Vec::new();
        }
        let pages = std::mem::take(&mut self.pages);
        let streams: Vec<_> = pages.into_values().flat_map(|page| page.streams).collect();
        for said in &streams {
            let stream = self.streams.entry((said.lane, said.epoch)).or_default();
            stream.oldest = stream.oldest.max(said.oldest);
            stream.ram = said.ram;
        }
        let marks: Vec<_> = streams.iter().map(|s| self.mark(s.lane, s.epoch)).collect();
        let chunks: Vec<_> = marks.chunks(MAX_MARKS).collect();
        let pages = chunks.len().max(1);
        (0..pages)
            .map(|page| {
                let welcome = Welcome {
                    version: headwater_proto::message::PROTOCOL,
                    origin: hello.origin.clone(),
                    nonce: hello.nonce,
                    page: page as u8,
                    pages: pages as u8,
                    journal: JournalId(7),
                    credit: 1 << 20,
                    max_bundle: 256 * 1024,
                    time: self.time,
                    marks: chunks
                        .get(page)
                        .copied()
                        .unwrap_or_default()
                        .iter()
                        .cloned()
                        .collect(),
                };
                down(&welcome)
            })
            .collect()
    }

    fn mark(&self, lane: Lane, epoch: Epoch) -> Mark {
        let stream = &self.streams[&(lane, epoch)];
        let mut covered: BTreeSet<u64> = stream.records.keys().copied().collect();
        for (_, _, gap) in self.gaps() {
            if let Some(range) = gap.seqs.filter(|_| gap.lane == lane && gap.epoch == epoch) {
                covered.extend(range.first..range.next);
            }
        }
        let mut received = stream.oldest;
        while covered.contains(&received) {
            received += 1;
        }
        let committed = if self.commits { received } else { 0 };
        Mark {
            lane,
            epoch,
            received,
            committed,
            ranges: heapless::Vec::new(),
        }
    }

    fn bundle(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.bundles += 1;
        let bundle = Bundle::open(bytes).unwrap();
        let head = bundle.head.clone();
        let key = (head.lane, head.epoch);
        let mut answers = Vec::new();
        let numbered = bundle.records().filter(|record| record.seq.is_some());
        let kinds = numbered.map(|record| record.frame.kind).collect();
        self.heads.push((head.clone(), kinds));
        for record in bundle.records() {
            let frame = record.frame;
            if frame.kind == Kind::Portion {
                self.portions.push(message::decode(frame.payload).unwrap());
                continue;
            }
            let Some(seq) = record.seq else {
                let mut at = 0;
                let number = headwater_proto::varint::get(frame.payload, &mut at).unwrap();
                let schema = Schema::decode(&frame.payload[at..], &Limits::DEFAULT).unwrap();
                self.schemas.insert((head.epoch, number as u32), schema);
                continue;
            };
            if self.refuses == Some(frame.kind) {
                answers.push(down(&Reject {
                    origin: head.origin.clone(),
                    lane: head.lane,
                    epoch: head.epoch,
                    range: SeqRange::new(seq, seq + 1),
                    reason: RejectReason::Policy,
                }));
                continue;
            }
            let stream = self
                .streams
                .get_mut(&key)
                .expect("an epoch is in a Hello before it is sent");
            let copy = (frame.kind, record.bytes.to_vec());
            if let Some(known) = stream.records.insert(seq, copy.clone()) {
                assert_eq!(known, copy, "one identity, two contents: {key:?} {seq}");
            }
        }
        let keys: Vec<_> = self.streams.keys().copied().collect();
        for keys in keys.chunks(MAX_MARKS) {
            answers.push(down(&Ack {
                origin: head.origin.clone(),
                journal: JournalId(7),
                credit: 1 << 20,
                time: self.time,
                marks: keys
                    .iter()
                    .map(|(lane, epoch)| self.mark(*lane, *epoch))
                    .collect(),
            }));
        }
        answers
    }

    pub(super) fn bodies<M: message::Body>(&self) -> Vec<((Lane, Epoch), u64, M)> {
        let mut out = Vec::new();
        for (key, stream) in &self.streams {
            for (seq, (kind, bytes)) in &stream.records {
                if *kind == M::KIND {
                    let (frame, _) = frame::decode(bytes).unwrap();
                    out.push((*key, *seq, message::decode(frame.payload).unwrap()));
                }
            }
        }
        out
    }

    pub(super) fn gaps(&self) -> Vec<((Lane, Epoch), u64, Gap)> {
        self.bodies()
    }

    pub(crate) fn ends(&self) -> Vec<((Lane, Epoch), u64, EpochEnd)> {
        self.bodies()
    }

    /// Every value of column `k`, in the order of streams and records.
    pub(crate) fn rows(&self) -> Vec<i64> {
        let mut rows = Rows(Vec::new());
        for ((_, epoch), stream) in &self.streams {
            for (kind, bytes) in stream
                .records
                .values()
                .filter(|(kind, _)| *kind == Kind::Batch)
            {
                let _ = kind;
                let (frame, _) = frame::decode(bytes).unwrap();
                let header = headwater_proto::codec::BatchHeader::peek(frame.payload).unwrap();
                let schema = &self.schemas[&(*epoch, header.schema_no)];
                decode(frame.payload, schema, &Limits::DEFAULT, &mut rows).unwrap();
            }
        }
        rows.0
    }
}

struct Rows(Vec<i64>);

impl RowVisitor for Rows {
    fn row(&mut self, _: u32, _: i64, _: u32) {}
    fn value(&mut self, _: usize, value: Value<'_>) {
        if let Value::I64(k) = value {
            self.0.push(k);
        }
    }
}

pub(super) fn down<M: message::Body>(message: &M) -> Vec<u8> {
    let mut out = Vec::new();
    message::append_frame(message, &mut out);
    out
}

/// An engine, its disk and its collector, on one clock.
pub(super) struct World {
    pub(super) disk: FakeDisk,
    pub(super) engine: Engine<FakeDisk>,
    pub(super) collector: Collector,
    pub(super) settings: Settings,
    pub(super) ms: u64,
    /// What the wall clock shows beyond the true time.
    pub(super) off_us: i64,
    /// When this boot began.
    boot_ms: u64,
    entropy: u64,
}

pub(super) fn settings() -> Settings {
    let mut settings = Settings::new(DeviceId::new("pump-1").unwrap());
    settings.sources = vec![
        SourceSettings {
            name: "replay".into(),
            resumes: true,
            loses: false,
            durable_within_ms: None,
        },
        SourceSettings {
            name: "host".into(),
            resumes: false,
            loses: true,
            durable_within_ms: None,
        },
    ];
    settings.spool.segment_bytes = 4096;
    settings.spool.lane_bytes = [5 * 4096, 8 * 4096, 5 * 4096];
    settings.spool.dead_letter_bytes = 4 * 4096;
    settings.spool.fs_reserve_percent = 0;
    settings.spool.fs_reserve_bytes = 0;
    settings.batch.rows = 10;
    settings.batch.age_ms = 1_000;
    settings.group_ms = 1_000;
    settings
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(settings(), FakeDisk::new())
    }

    pub(super) fn with(settings: Settings, disk: FakeDisk) -> Self {
        let mut entropy = 99;
        let engine = open(&disk, &settings, &mut entropy, at(0));
        let collector = Collector {
            commits: true,
            ..Collector::default()
        };
        Self {
            disk,
            engine,
            collector,
            settings,
            ms: 0,
            off_us: 0,
            boot_ms: 0,
            entropy,
        }
    }

    pub(super) fn now(&self) -> Now {
        let UnixMicros(truth) = at(self.ms).wall;
        Now {
            mono: Millis(self.ms - self.boot_ms),
            wall: UnixMicros(truth + self.off_us),
        }
    }

    /// Somebody sets the wall clock, and the kernel says this of it.
    pub(super) fn set_clock(&mut self, off_us: i64, kernel: WallError) {
        self.off_us = off_us;
        self.settings.clock = kernel;
        let now = self.now();
        assert!(self.engine.wants_clock(now));
        self.engine.handle(Event::Clock(kernel), now);
    }

    /// The first boot of another device, with a wall clock that is off by `off_us`.
    pub(super) fn booting(mut settings: Settings, off_us: i64, kernel: WallError) -> Self {
        settings.clock = kernel;
        let mut world = Self::with(settings, FakeDisk::new());
        world.off_us = off_us;
        world.restart_on(FakeDisk::new());
        world
    }

    /// As after a loss of power: another boot, with a wall clock that is off by `off_us`.
    pub(super) fn reboot(&mut self, off_us: i64, kernel: WallError) {
        (self.boot_ms, self.off_us) = (self.ms, off_us);
        self.settings.boot += 1;
        self.settings.clock = kernel;
        let disk = self.disk.power_cut(7);
        self.restart_on(disk);
    }

    /// The engine is gone; another opens `disk`.
    pub(super) fn restart_on(&mut self, disk: FakeDisk) {
        self.disk = disk;
        let now = self.now();
        self.engine = open(&self.disk, &self.settings, &mut self.entropy, now);
    }

    /// As after SIGKILL.
    pub(super) fn kill(&mut self) {
        self.restart_on(self.disk.process_killed());
    }

    /// Offers row `k` of a source; a source that resumes says where.
    pub(super) fn offer(
        &mut self,
        source: usize,
        lane: Lane,
        k: u64,
    ) -> Result<(), super::OfferError> {
        let pad = noise(k);
        let fields = [
            Field::new("k", Value::I64(k as i64)),
            Field::new("pad", Value::Str(&pad)),
        ];
        let sample = Sample {
            time: UnixMicros(k as i64 * 1000),
            labels: &[],
            fields: &fields,
        };
        let cursor = (source == REPLAY).then_some(Cursor {
            major: 0,
            minor: k + 1,
            tag: 0,
        });
        let now = self.now();
        self.engine
            .offer(source, lane, &sample, cursor, now)
            .map(drop)
    }

    /// Offers row `k` as read at this moment.
    pub(super) fn read(
        &mut self,
        source: usize,
        lane: Lane,
        k: u64,
    ) -> Result<(), super::OfferError> {
        let fields = [Field::new("k", Value::I64(k as i64))];
        let now = self.now();
        let sample = Sample {
            time: now.wall,
            labels: &[],
            fields: &fields,
        };
        let cursor = (source == REPLAY).then_some(Cursor {
            major: 0,
            minor: k + 1,
            tag: 0,
        });
        self.engine
            .offer(source, lane, &sample, cursor, now)
            .map(drop)
    }

    /// Lets `ms` pass in small steps; publishes go to nobody.
    pub(super) fn pass(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(250) {
            self.ms += 250;
            let now = self.now();
            self.engine.handle(Event::Tick, now);
        }
    }

    pub(super) fn connect(&mut self) {
        let now = self.now();
        self.engine.handle(Event::LinkUp, now);
    }

    /// Everything that can be said is said and answered.
    pub(super) fn exchange(&mut self) {
        let now = self.now();
        self.collector.time = at(self.ms).wall;
        self.engine.handle(Event::Tick, now);
        while let Some(bytes) = self.engine.next_publish(now) {
            for answer in self.collector.take(&bytes) {
                self.engine.handle(Event::Message(&answer), now);
            }
        }
    }

    /// What a source knows of its receipts.
    pub(super) fn settled(&self, source: usize) -> Settled {
        let mut settled = Settled::default();
        self.engine.tell_settled(source, &mut settled);
        settled
    }

    /// Time passes and messages with it.
    pub(super) fn run(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(250) {
            self.ms += 250;
            self.exchange();
        }
    }
}

/// A text that does not compress, so that segments fill.
fn noise(k: u64) -> String {
    let word = |n: u64| {
        (k + 1)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(7 * n as u32)
    };
    (0..3)
        .map(|n| format!("{:016x}", word(n) ^ word(n + 9)))
        .collect()
}

/// What the wall clock shows as the boot begins: a time after which this program was made.
pub(super) const BOOT_US: i64 = FLOOR.0 + 1_000_000_000;

pub(super) fn at(ms: u64) -> Now {
    Now {
        mono: Millis(ms),
        wall: UnixMicros(BOOT_US + ms as i64 * 1000),
    }
}

pub(super) fn open(
    disk: &FakeDisk,
    settings: &Settings,
    entropy: &mut u64,
    now: Now,
) -> Engine<FakeDisk> {
    let mut draw = || {
        *entropy = entropy
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        *entropy ^ (*entropy >> 29)
    };
    Engine::open(disk.clone(), settings.clone(), &mut draw, now).unwrap()
}
