//! Nodes, an engine on a fake disk, and a collector of several origins, on one clock.
#![allow(
    clippy::wildcard_enum_match_arm,
    clippy::type_complexity,
    reason = "a test: whatever else is a failure"
)]

use std::collections::{BTreeMap, BTreeSet};

use headwater_proto::bundle::{Bundle, BundleHead, Stamps, assemble};
use headwater_proto::delivery::{
    Command, HeldEpoch, HelloFacts, Input, Receiver, Sender, SenderLimits, Verdict,
};
use headwater_proto::frame::{self, Frames, Kind};
use headwater_proto::ids::{DeviceId, Epoch, JournalId, Lane, SeqRange, Stream};
use headwater_proto::message::{
    self, Ack, Body, EpochEnd, Gap, Hello, MAX_MARKS, PROTOCOL, Reject, SchemaRequest, Welcome,
};
use headwater_proto::refused;
use headwater_proto::sample::Value;
use headwater_proto::time::{Base, Millis, Now, UnixMicros};
use headwater_spool::{Disk as _, DiskFile as _, FakeDisk};

use super::super::super::{Engine, Event, Settings, Way};
use super::super::world::{at, open, settings};
use crate::pipeline::admit::{Field, Sample};

pub(super) fn id(name: &str) -> DeviceId {
    DeviceId::new(name).unwrap()
}

/// A record of one sample, which is `k`.
fn part(k: u64, len: usize) -> Vec<u8> {
    let bytes = vec![b'x'; len];
    let place = format!("k{k}");
    let part = refused::Part {
        at_us: 1_700_000_000_000_000 + k as i64,
        place: &place,
        cause: "",
        bytes: &bytes,
    };
    refused::to_vec("plc", &[part]).unwrap()
}

/// A node: it keeps what is not acknowledged, and sends it in bundles of at most `max_bundle`.
pub(super) struct Node {
    pub(super) id: DeviceId,
    sender: Sender<8, 4>,
    /// What it has not let go of.
    pub(super) records: BTreeMap<(Lane, Epoch), BTreeMap<u64, (Kind, Vec<u8>)>>,
    /// Schema number and bytes, sent when it is asked for.
    pub(super) schema: Option<(u32, Vec<u8>)>,
    /// Records that need the schema go with it at once.
    pub(super) sends_schemas: bool,
    pub(super) epoch: Epoch,
    pub(super) boot: u64,
    pub(super) base: Base,
    /// When its boot began.
    pub(super) booted_ms: u64,
    pub(super) max_down: u32,
    next: u64,
    pub(super) made: u64,
    answers: Vec<Vec<u8>>,
    /// The largest packet that it was sent.
    pub(super) largest: usize,
    pub(super) rejected: Vec<Reject>,
}

impl Node {
    pub(super) fn new(name: &str) -> Self {
        let limits = SenderLimits {
            max_bundle: 2_000,
            ..SenderLimits::DEFAULT
        };
        let mut node = Self {
            id: id(name),
            sender: Sender::new(id(name), limits, 5),
            records: BTreeMap::new(),
            schema: None,
            sends_schemas: true,
            epoch: Epoch::new(0),
            boot: 3,
            base: Base::Wall,
            booted_ms: 0,
            max_down: 400,
            next: 0,
            made: 0,
            answers: Vec::new(),
            largest: 0,
            rejected: Vec::new(),
        };
        node.begin_epoch(1);
        node
    }

    /// Begins an epoch; the end of the one before is its first record.
    pub(super) fn begin_epoch(&mut self, epoch: u64) {
        let (before, next) = (self.epoch, self.next);
        (self.epoch, self.next) = (Epoch::new(epoch), 0);
        self.sender
            .add_epoch(HeldEpoch {
                lane: Lane::Normal,
                epoch: self.epoch,
                first: 0,
                next: 0,
                ram: false,
                ended: false,
                boot: self.boot,
                base: self.base,
                end_named_in: None,
                dated_by: None,
            })
            .unwrap();
        if next > 0 {
            let end: EpochEnd = EpochEnd {
                origin: self.id.clone(),
                lane: Lane::Normal,
                epoch: before,
                first: 0,
                next,
                clean: false,
                boot: self.boot,
                last_durable: None,
            };
            self.put(Kind::EpochEnd, message::to_vec(&end));
            self.sender.end_epoch(Lane::Normal, before, None).unwrap();
        }
    }

    pub(super) fn put(&mut self, kind: Kind, payload: Vec<u8>) {
        let records = self.records.entry((Lane::Normal, self.epoch)).or_default();
        records.insert(self.next, (kind, payload));
        self.next += 1;
        self.sender
            .stored(Lane::Normal, self.epoch, self.next)
            .unwrap();
    }

    /// Makes records of one sample, of about `len` bytes.
    pub(super) fn make(&mut self, count: u64, len: usize) {
        for _ in 0..count {
            let k = self.made;
            self.made += 1;
            self.put(Kind::Refused, part(k, len));
        }
    }

    pub(super) fn connect(&mut self, now: Now) {
        self.sender.handle(Input::LinkUp, now.mono).unwrap();
    }

    pub(super) fn disconnect(&mut self, now: Now) {
        self.sender.handle(Input::LinkDown, now.mono).unwrap();
        self.answers.clear();
    }

    pub(super) fn is_drained(&self) -> bool {
        self.records.values().all(BTreeMap::is_empty)
    }

    fn facts(&self, now: Now) -> HelloFacts {
        HelloFacts {
            boot: self.boot,
            uptime_ms: now.mono.0 - self.booted_ms,
            wall: None,
            max_down_bytes: self.max_down,
        }
    }

    /// The next packet.
    pub(super) fn next_packet(&mut self, now: Now) -> Option<Vec<u8>> {
        self.sender.handle(Input::Tick, now.mono).unwrap();
        if let Some(answer) = self.answers.pop() {
            return Some(answer);
        }
        loop {
            match self.sender.next_command(now.mono)? {
                Command::SendHello { page } => {
                    return Some(down(&self.sender.hello(page, &self.facts(now))));
                }
                Command::Publish {
                    lane,
                    epoch,
                    first,
                    limit,
                    max_bytes,
                } => {
                    let head = self.head(lane, epoch, first, now);
                    let range = first..limit;
                    let records = self.records[&(lane, epoch)].range(range);
                    let frames = records.map(|(_, (kind, bytes))| (*kind, &bytes[..]));
                    let schema = self.schema_frame().filter(|_| self.sends_schemas);
                    let schema = schema.iter().map(|bytes| (Kind::Schema, &bytes[..]));
                    let (bytes, count) =
                        assemble(head, max_bytes as usize, schema.chain(frames)).unwrap();
                    assert!(count > 0, "a record of the test fits a bundle");
                    let sent = SeqRange::new(first, first + u64::from(count));
                    let len = bytes.len() as u32;
                    self.sender.sent(lane, epoch, sent, len, now.mono).unwrap();
                    return Some(bytes);
                }
                Command::Release {
                    lane,
                    epoch,
                    through,
                } => {
                    let records = self.records.get_mut(&(lane, epoch)).unwrap();
                    *records = records.split_off(&through);
                }
                Command::Refused { .. } => panic!("nothing is refused for good"),
            }
        }
    }

    fn schema_frame(&self) -> Option<Vec<u8>> {
        let (number, bytes) = self.schema.as_ref()?;
        Some([&[*number as u8][..], bytes].concat())
    }

    fn head(&self, lane: Lane, epoch: Epoch, first: u64, now: Now) -> BundleHead {
        BundleHead {
            origin: self.id.clone(),
            lane,
            epoch,
            first,
            ram: false,
            boot: self.boot,
            base: self.base,
            stamps: Stamps::default(),
            uptime_ms: Some(now.mono.0 - self.booted_ms),
            wall: None,
        }
    }

    /// Takes an answer.
    pub(super) fn take(&mut self, bytes: &[u8], now: Now) {
        self.largest = self.largest.max(bytes.len());
        for frame in Frames::new(bytes) {
            let (frame, _) = frame.unwrap();
            let payload = frame.payload;
            // Stale answers are refused, and harm nothing.
            let _ = match frame.kind {
                Kind::Welcome => {
                    let welcome = message::decode(payload).unwrap();
                    self.sender.handle(Input::Welcome(&welcome), now.mono)
                }
                Kind::Ack => {
                    let ack = message::decode(payload).unwrap();
                    self.sender.handle(Input::Ack(&ack), now.mono)
                }
                Kind::Reject => {
                    let reject: Reject = message::decode(payload).unwrap();
                    self.rejected.push(reject.clone());
                    self.sender.handle(Input::Reject(&reject), now.mono)
                }
                Kind::SchemaRequest => {
                    let request: SchemaRequest = message::decode(payload).unwrap();
                    let head = self.head(request.lane, request.epoch, 0, now);
                    let schema = self.schema_frame().expect("it has the schema");
                    let schema = [(Kind::Schema, &schema[..])];
                    self.answers.push(assemble(head, 4_000, schema).unwrap().0);
                    Ok(())
                }
                other => panic!("{other:?}"),
            };
        }
    }
}

pub(super) fn down<M: Body>(message: &M) -> Vec<u8> {
    let mut out = Vec::new();
    message::append_frame(message, &mut out);
    out
}

/// A record as the collector keeps it.
pub(super) type Copied = (Kind, Vec<u8>);

/// What the collector keeps of a stream.
#[derive(Default)]
pub(super) struct Kept {
    receiver: Receiver,
    pub(super) records: BTreeMap<u64, Copied>,
}

/// A collector of many origins: it keeps everything at once.
pub(super) struct Hub {
    pub(super) streams: BTreeMap<Stream, Kept>,
    /// What the Hello of this connection lists: the oldest of each stream.
    listed: BTreeMap<Stream, u64>,
    pub(super) schemas: BTreeMap<(DeviceId, Epoch, u32), Vec<u8>>,
    pub(super) hellos: Vec<Hello>,
    pub(super) heads: Vec<BundleHead>,
    pub(super) commits: bool,
    pub(super) credit: u32,
    pub(super) repeats: u64,
    pub(super) bundles_of_publish: Vec<usize>,
    /// The kind of each record in the order of their coming, and its stream.
    pub(super) order: Vec<(Kind, Stream)>,
    /// Bytes of each bundle in the order of their coming.
    pub(super) lens: Vec<(DeviceId, usize)>,
}

impl Default for Hub {
    fn default() -> Self {
        Self {
            streams: BTreeMap::new(),
            listed: BTreeMap::new(),
            schemas: BTreeMap::new(),
            hellos: Vec::new(),
            heads: Vec::new(),
            commits: true,
            credit: 1 << 20,
            repeats: 0,
            bundles_of_publish: Vec::new(),
            order: Vec::new(),
            lens: Vec::new(),
        }
    }
}

impl Hub {
    pub(super) fn link_down(&mut self) {
        self.listed.clear();
    }

    pub(super) fn take(&mut self, publish: &[u8]) -> Vec<Vec<u8>> {
        if !Bundle::is_bundle(publish) {
            return Frames::new(publish)
                .map(|frame| {
                    let (frame, _) = frame.unwrap();
                    let hello: Hello = message::decode(frame.payload).unwrap();
                    assert_eq!((hello.page, hello.pages), (0, 1));
                    self.hello(&hello)
                })
                .collect();
        }
        let (mut rest, mut bundles, mut answers) = (publish, 0, Vec::new());
        while !rest.is_empty() {
            let (bundle, after) = Bundle::first(rest).unwrap();
            let len = rest.len() - after.len();
            self.lens.push((bundle.head.origin.clone(), len));
            answers.extend(self.bundle(&bundle));
            (rest, bundles) = (after, bundles + 1);
        }
        self.bundles_of_publish.push(bundles);
        answers
    }

    fn hello(&mut self, hello: &Hello) -> Vec<u8> {
        self.hellos.push(hello.clone());
        self.listed
            .retain(|stream, _| stream.device != hello.origin);
        for said in &hello.streams {
            let stream = Stream {
                device: hello.origin.clone(),
                lane: said.lane,
                epoch: said.epoch,
            };
            self.listed.insert(stream.clone(), said.oldest);
            self.streams.entry(stream).or_default();
        }
        let marks = self.marks(&hello.origin);
        down(&Welcome {
            version: PROTOCOL,
            origin: hello.origin.clone(),
            nonce: hello.nonce,
            page: 0,
            pages: 1,
            journal: JournalId(7),
            credit: self.credit,
            max_bundle: 256 * 1024,
            time: UnixMicros(0),
            marks,
        })
    }

    fn marks(&mut self, device: &DeviceId) -> heapless::Vec<message::Mark, MAX_MARKS> {
        let own = self.listed.iter().filter(|(s, _)| s.device == *device);
        own.map(|(stream, oldest)| {
            let kept = self.streams.get_mut(stream).unwrap();
            kept.receiver.synced();
            if self.commits {
                kept.receiver.commit_all();
            }
            kept.receiver.mark(stream.lane, stream.epoch, *oldest)
        })
        .collect()
    }

    fn bundle(&mut self, bundle: &Bundle<'_>) -> Vec<Vec<u8>> {
        let head = bundle.head.clone();
        self.heads.push(head.clone());
        let stream = Stream {
            device: head.origin.clone(),
            lane: head.lane,
            epoch: head.epoch,
        };
        assert!(
            self.listed.contains_key(&stream),
            "{stream:?} is in no Hello"
        );
        let mut moved = BTreeSet::from([head.origin.clone()]);
        for record in bundle.records() {
            let frame = record.frame;
            let Some(seq) = record.seq else {
                let number = u32::from(frame.payload[0]);
                let name = (head.origin.clone(), head.epoch, number);
                self.schemas.insert(name, frame.payload[1..].to_vec());
                continue;
            };
            self.order.push((frame.kind, stream.clone()));
            let kept = self.streams.get_mut(&stream).unwrap();
            let copy = (frame.kind, record.bytes.to_vec());
            match kept.receiver.offer(seq, frame::crc32c(record.bytes)) {
                Verdict::Store => {
                    kept.records.insert(seq, copy);
                }
                Verdict::Repeat => {
                    let known = kept.records.get(&seq);
                    assert!(known.is_none_or(|known| *known == copy), "{stream:?} {seq}");
                    self.repeats += 1;
                }
                other => panic!("{other:?}"),
            }
            if frame.kind == Kind::Gap {
                let gap: Gap = message::decode(frame.payload).unwrap();
                moved.extend(self.cover(&gap));
            }
        }
        moved.into_iter().map(|device| self.ack(&device)).collect()
    }

    fn cover(&mut self, gap: &Gap) -> Option<DeviceId> {
        let stream = Stream {
            device: gap.origin.clone(),
            lane: gap.lane,
            epoch: gap.epoch,
        };
        let kept = self.streams.entry(stream).or_default();
        let namer = headwater_proto::delivery::receiver::Namer::Sender;
        kept.receiver.cover(gap.seqs?, namer).unwrap();
        Some(gap.origin.clone())
    }

    fn ack(&mut self, device: &DeviceId) -> Vec<u8> {
        down(&Ack {
            origin: device.clone(),
            journal: JournalId(7),
            credit: self.credit,
            time: UnixMicros(0),
            marks: self.marks(device),
        })
    }

    /// Every message of a kind, with the stream in which it stands.
    pub(super) fn bodies<M: Body>(&self) -> Vec<(Stream, M)> {
        let all = self.streams.iter().flat_map(|(stream, kept)| {
            let own = kept.records.values().filter(|(kind, _)| *kind == M::KIND);
            own.map(move |(_, bytes)| {
                let (frame, _) = frame::decode(bytes).unwrap();
                (stream.clone(), message::decode(frame.payload).unwrap())
            })
        });
        all.collect()
    }

    /// Numbers of a node's samples, sorted; each stands once in its stream.
    pub(super) fn samples(&self, device: &DeviceId) -> Vec<u64> {
        let own = self.streams.iter().filter(|(s, _)| s.device == *device);
        let mut all: Vec<u64> = own
            .flat_map(|(_, kept)| kept.records.values())
            .filter(|(kind, _)| *kind == Kind::Refused)
            .map(|(_, bytes)| {
                let (frame, _) = frame::decode(bytes).unwrap();
                let refused = refused::Refused::decode(frame.payload).unwrap();
                let part = refused.parts().next().unwrap();
                part.place[1..].parse().unwrap()
            })
            .collect();
        all.sort_unstable();
        all
    }

    /// Samples of a node that gaps of the agent name as missing.
    pub(super) fn named(&self, device: &DeviceId) -> u64 {
        let gaps = self.bodies::<Gap>().into_iter();
        let own = gaps.filter(|(_, gap)| gap.origin == *device && gap.seqs.is_some());
        own.filter_map(|(_, gap)| gap.samples).sum()
    }
}

/// Which of a node's records.
pub(super) enum Place {
    /// That with so many before it.
    First(usize),
    Last,
}

/// An agent with nodes, and a collector.
pub(super) struct Site {
    pub(super) disk: FakeDisk,
    pub(super) engine: Engine<FakeDisk>,
    pub(super) settings: Settings,
    pub(super) hub: Hub,
    pub(super) ms: u64,
    pub(super) link_up: bool,
    entropy: u64,
}

impl Site {
    pub(super) fn new() -> Self {
        let mut settings = settings();
        settings.spool.nodes_bytes = 64 * 4096;
        settings.group_ms = 50;
        Self::with(settings, Hub::default())
    }

    pub(super) fn with(settings: Settings, hub: Hub) -> Self {
        let (disk, mut entropy) = (FakeDisk::new(), 99);
        let engine = open(&disk, &settings, &mut entropy, at(0));
        Self {
            disk,
            engine,
            settings,
            hub,
            ms: 0,
            link_up: false,
            entropy,
        }
    }

    pub(super) fn now(&self) -> Now {
        let now = at(self.ms);
        Now {
            mono: Millis(self.ms),
            ..now
        }
    }

    pub(super) fn link(&mut self, is_up: bool) {
        self.link_up = is_up;
        self.hub.link_down();
        let event = if is_up {
            Event::LinkUp
        } else {
            Event::LinkDown
        };
        let now = self.now();
        self.engine.handle(event, now);
    }

    /// As after SIGKILL: what was written stays, and nodes must connect again.
    pub(super) fn kill(&mut self) {
        self.restart_on(self.disk.process_killed());
    }

    /// Rots a record of a node: of those in the oldest segment, counted from the front or from the back.
    pub(super) fn rot(&self, device: &DeviceId, record: Place) {
        let names = self.disk.list().unwrap().into_iter();
        let mut names: Vec<_> = names.filter(|it| it.starts_with("nodes")).collect();
        names.sort();
        let file = self.disk.open(&names[0]).unwrap();
        let mut bytes = vec![0; 1 << 20];
        let len = file.read_at(&mut bytes, 0).unwrap();
        let id = device.as_str().as_bytes();
        let windows = bytes[..len].windows(id.len()).enumerate();
        let places: Vec<_> = windows.filter(|(_, it)| *it == id).collect();
        // The snapshot of the segment may name it too, before all records.
        let at = match record {
            Place::First(skip) => places[1 + skip].0,
            Place::Last => places[places.len() - 1].0,
        };
        assert!(self.disk.rot(&names[0], at as u64, 1));
    }

    pub(super) fn restart_on(&mut self, disk: FakeDisk) {
        self.disk = disk;
        let now = self.now();
        self.engine = open(&self.disk, &self.settings, &mut self.entropy, now);
        self.hub.link_down();
        if self.link_up {
            self.engine.handle(Event::LinkUp, now);
        }
    }

    /// The agent reads rows of its own.
    pub(super) fn read(&mut self, rows: i64) {
        let now = self.now();
        for k in 0..rows {
            let fields = [Field::new(
                "k",
                Value::I64(k.wrapping_mul(0x1e37_79b9_7f4a_7c15)),
            )];
            let sample = Sample {
                time: now.wall,
                labels: &[],
                fields: &fields,
            };
            let taken = self.engine.offer(1, Lane::Normal, &sample, None, now);
            taken.unwrap();
        }
    }

    /// Node `at` sends what it may, and hears the answers.
    pub(super) fn talk(&mut self, nodes: &mut [&mut Node]) {
        let now = self.now();
        for (way, node) in (0..).zip(nodes.iter_mut()) {
            while let Some(packet) = node.next_packet(now) {
                self.engine.nodes(now).packet(way, &|_| true, &packet);
                self.answer(&mut [&mut **node], way);
            }
        }
    }

    /// Answers go to nodes, of which the first has this way.
    fn answer(&mut self, nodes: &mut [&mut Node], first: Way) {
        let now = self.now();
        for (way, bytes) in self.engine.nodes(now).take_answers() {
            let at = way
                .checked_sub(first)
                .and_then(|at| usize::try_from(at).ok());
            if let Some(node) = at.and_then(|at| nodes.get_mut(at)) {
                node.take(&bytes, now);
            }
        }
    }

    /// Time passes in small steps, and all say what they may.
    pub(super) fn run(&mut self, ms: u64, nodes: &mut [&mut Node]) {
        for _ in 0..ms.div_ceil(50) {
            self.ms += 50;
            self.talk(nodes);
            let now = self.now();
            self.engine.handle(Event::Tick, now);
            self.answer(nodes, 0);
            if self.link_up {
                self.exchange();
            }
        }
    }

    /// The agent sends to the collector all that it may.
    pub(super) fn exchange(&mut self) {
        let now = self.now();
        while let Some(bytes) = self.engine.next_publish(now) {
            assert!(bytes.len() <= self.settings.sender.max_bundle as usize);
            for answer in self.hub.take(&bytes) {
                self.engine.handle(Event::Message(&answer), now);
            }
        }
    }
}
