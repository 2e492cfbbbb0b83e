//! A collector's cores on disks in memory, and a device that speaks to them.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "shared by test files, each of which uses its part; a failure is a failed test"
)]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array as _, RecordBatch};
use headwater_collector::done::DoneInMemory;
use headwater_collector::interpret::{Depth, Feed, Taken};
use headwater_collector::pipeline::custody::{
    Custody, Event, Gateway, Mode, Output, Past, PlainPublish, Settings, SinkSpec,
};
use headwater_collector::pipeline::pattern::Pattern;
use headwater_collector::pipeline::rules::Decoder;
use headwater_collector::sink::lake::join;
use headwater_collector::sink::lake::{LakeSettings, LakeSink, NAME, Staged, read_stretch};
use headwater_gate::repeat::fingerprint;
use headwater_gate::{ConnId, Token};
use headwater_lake::audit::Audit;
use headwater_lake::delta::{Log, LogError};
use headwater_lake::{MemStore, Store as _, Table};
use headwater_proto::bundle::{self, BundleHead, Stamps};
use headwater_proto::codec::{Encoder, Rows};
use headwater_proto::frame::{self, Frames, Kind};
use headwater_proto::ids::{DeviceId, Epoch, JournalId, Lane};
use headwater_proto::message::{
    self, Ack, EpochEnd, Hello, HelloStream, Mark, Reject, WallClock, Welcome,
};
use headwater_proto::sample::Value;
use headwater_proto::schema::{Column, ColumnKind, Schema};
use headwater_proto::time::{Base, Millis, Now, UnixMicros};
use headwater_spool::{Disk, DiskFile, FakeDisk};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

pub const CONN: ConnId = ConnId(1);
pub const START_US: i64 = 1_760_000_000_000_000;

pub fn at(ms: u64) -> Now {
    let us = i64::try_from(ms * 1000).unwrap();
    Now {
        mono: Millis(ms),
        wall: UnixMicros(START_US + us),
    }
}

pub fn device() -> DeviceId {
    DeviceId::new("dev").unwrap()
}

pub fn settings() -> Settings {
    Settings {
        log: headwater_spool::Config {
            name: "journal".into(),
            segment_bytes: 8 << 10,
            quota_bytes: 1 << 20,
            reserve_bytes: 32 << 10,
            fs_reserve_bytes: 0,
            fs_reserve_percent: 0,
            spares: 1,
            ..headwater_spool::Config::default()
        },
        mode: Mode::Sinks,
        sinks: vec![SinkSpec {
            name: NAME.into(),
            required: true,
        }],
        patterns: vec![Pattern::new("plain/{device}/{metric}", Decoder::Number).unwrap()],
        gateways: vec![Gateway {
            client: "gw".into(),
            devices: vec!["node-*".into()],
        }],
        abandon_after_ms: 0,
        ..Settings::default()
    }
}

pub struct Rig {
    pub disk: FakeDisk,
    pub store: MemStore,
    pub done: DoneInMemory,
    pub past: Past,
    pub custody: Custody<FakeDisk>,
    pub sink: LakeSink<MemStore>,
    pub feed: Feed<FakeDisk>,
    pub ms: u64,
    pub sent: Vec<Output>,
}

impl Rig {
    pub fn new() -> Self {
        Self::start(FakeDisk::new(), MemStore::new(), settings(), 0).unwrap()
    }

    /// Opens the cores as the program does, with an index that is new.
    pub fn start(
        disk: FakeDisk,
        store: MemStore,
        settings: Settings,
        ms: u64,
    ) -> Result<Self, String> {
        Self::start_with(disk, store, DoneInMemory::default(), settings, ms)
    }

    /// Opens the cores as the program does.
    pub fn start_with(
        disk: FakeDisk,
        store: MemStore,
        done: DoneInMemory,
        settings: Settings,
        ms: u64,
    ) -> Result<Self, String> {
        let mut next = 0x1234_5678 + ms;
        let mut entropy = || {
            next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            next
        };
        let say = |error: &dyn std::fmt::Display| error.to_string();
        let index = Box::new(done.clone());
        let (mut custody, opened) =
            Custody::open(disk.clone(), settings, index, &mut entropy).map_err(|e| say(&e))?;
        let lake = LakeSettings {
            flush_after_ms: 2_000,
            // A lost disk is a new journal, which would wait for the old one's lease.
            take_over: true,
            ..LakeSettings::default()
        };
        let now = at(ms).wall;
        let sink = join(
            &mut custody,
            &opened,
            store.clone(),
            lake,
            now,
            JournalId(entropy()),
        )
        .map_err(|e| say(&e))?;
        let feed = Feed::new(custody.reader(), sink.position(), Depth::Samples);
        Ok(Self {
            disk,
            store,
            done,
            past: opened.past,
            custody,
            sink,
            feed,
            ms,
            sent: Vec::new(),
        })
    }

    pub fn now(&self) -> Now {
        at(self.ms)
    }

    /// Hands it an event; what a publish has other threads do is done at once.
    pub fn handle(&mut self, event: Event) {
        let now = self.now();
        let is_publish = matches!(event, Event::Up { .. });
        self.custody.handle(event, now);
        if is_publish {
            self.carry_out();
        }
    }

    /// Syncs and gathers what is said.
    pub fn sync(&mut self) -> bool {
        let now = self.now();
        let ok = self.custody.sync(now).is_ok();
        // What other threads did, and made custody append, becomes durable too.
        let was_done = self.carry_out();
        ok && (!was_done || self.sync())
    }

    /// Gathers what is said, and does what other threads do. Whether there was something to do.
    fn carry_out(&mut self) -> bool {
        let mut was_done = false;
        while let Some(output) = self.custody.next_output() {
            let event = match output {
                Output::Read(stretch) => {
                    let (mut reader, store) = (self.custody.reader(), &self.store);
                    let journal = self.custody.journal();
                    let found = read_stretch(&stretch, journal, &mut reader, || Ok(store.clone()));
                    let found = found.ok();
                    Event::Read { stretch, found }
                }
                Output::Find(finding) => Event::Found(finding.find()),
                Output::Keep(keeping) => {
                    let (epochs, kept) = keeping.keep();
                    Event::Kept { epochs, kept }
                }
                Output::Send { .. }
                | Output::PubAck { .. }
                | Output::Close { .. }
                | Output::Shared { .. }
                | Output::Clock(_)
                | Output::Crowded { .. } => {
                    self.sent.push(output);
                    continue;
                }
            };
            self.handle(event);
            was_done = true;
        }
        was_done
    }

    pub fn connect(&mut self, client: &str) {
        self.handle(Event::Connected {
            conn: CONN,
            client: client.into(),
        });
    }

    pub fn up(&mut self, payload: Vec<u8>, token: u64) {
        self.up_for(&device(), payload, token);
    }

    pub fn up_for(&mut self, device: &DeviceId, payload: Vec<u8>, token: u64) {
        self.handle(Event::Up {
            conn: CONN,
            device: device.clone(),
            payload: payload.into(),
            token: Some(Token(token)),
        });
    }

    pub fn plain(&mut self, topic: &str, payload: &str, packet_id: u16, dup: bool, token: u64) {
        self.handle(Event::Plain(PlainPublish {
            conn: CONN,
            client: Arc::from("meter"),
            topic: topic.into(),
            payload: payload.as_bytes().to_vec().into(),
            dup,
            packet_id,
            fingerprint: fingerprint(topic, payload.as_bytes()),
            token: Some(Token(token)),
        }));
    }

    /// Lets the sink read all that is durable.
    pub fn read_all(&mut self) {
        self.take_all().unwrap();
    }

    /// Lets the sink read all that is durable, and flushes it.
    pub fn flush(&mut self) -> Result<(), String> {
        let damaged = self.take_all()?;
        self.deliver(damaged)
    }

    fn take_all(&mut self) -> Result<u64, String> {
        let now = self.now();
        let mut damaged = 0;
        loop {
            let from = self.feed.position();
            let sink = &mut self.sink;
            let mut failed = None;
            let chunk = self
                .feed
                .read(1 << 16, |item| match sink.take(item, now) {
                    Ok(()) => Taken::More,
                    Err(error) => {
                        failed = Some(error.to_string());
                        Taken::Not
                    }
                })
                .map_err(|e| e.to_string())?;
            if let Some(failed) = failed {
                return Err(failed);
            }
            for damage in &chunk.damage {
                let positions = &damage.positions;
                damaged += positions.end - positions.start;
            }
            self.sink.passed(chunk.next, now.mono);
            if chunk.next == from {
                return Ok(damaged);
            }
        }
    }

    fn deliver(&mut self, damaged: u64) -> Result<(), String> {
        let now = self.now();
        match self.sink.stage(now).map_err(|e| e.to_string())? {
            Staged::Nothing => return Ok(()),
            Staged::Empty => {}
            Staged::Plan(bytes) => {
                self.custody
                    .append_plan(NAME, &bytes)
                    .map_err(|e| e.to_string())?;
                if !self.sync() {
                    return Err("the plan was not synced".into());
                }
            }
        }
        let committed = self
            .sink
            .publish()
            .map_err(|e| e.to_string())?
            .ok_or("no flush")?;
        self.handle(Event::Committed {
            sink: NAME.into(),
            through: committed.through,
            streams: committed.streams,
            refused: Vec::new(),
            damaged,
        });
        Ok(())
    }

    pub fn audit(&self) -> Audit {
        headwater_lake::audit::audit(&self.store).unwrap()
    }

    pub fn pubacks(&self) -> Vec<u64> {
        let acks = self.sent.iter().filter_map(|output| match output {
            Output::PubAck { token, .. } => Some(token.0),
            _ => None,
        });
        acks.collect()
    }

    pub fn messages<M: message::Body>(&self) -> Vec<M> {
        let mut found = Vec::new();
        for output in &self.sent {
            let Output::Send { payload, .. } = output else {
                continue;
            };
            for item in Frames::new(payload) {
                let (frame, _) = item.unwrap();
                if frame.kind == M::KIND {
                    found.push(message::decode(frame.payload).unwrap());
                }
            }
        }
        found
    }

    /// The newest mark of a stream in any Ack or Welcome.
    pub fn mark(&self, epoch: u64) -> Option<Mark> {
        let mut newest = None;
        for output in &self.sent {
            let Output::Send { payload, .. } = output else {
                continue;
            };
            for item in Frames::new(payload) {
                let (frame, _) = item.unwrap();
                let marks: Vec<Mark> = match frame.kind {
                    Kind::Ack => message::decode::<Ack>(frame.payload)
                        .unwrap()
                        .marks
                        .to_vec(),
                    Kind::Welcome => message::decode::<Welcome>(frame.payload)
                        .unwrap()
                        .marks
                        .to_vec(),
                    _ => continue,
                };
                for mark in marks {
                    if mark.epoch == Epoch::new(epoch) {
                        newest = Some(mark);
                    }
                }
            }
        }
        newest
    }

    pub fn rejects(&self) -> Vec<Reject> {
        self.messages()
    }
}

/// A device that said Hello and was answered.
pub fn greeted() -> Rig {
    let mut rig = Rig::new();
    rig.connect("dev");
    rig.up(hello(&[listed(1, 0, 100)]), 0);
    assert!(rig.sync());
    rig.sent.clear();
    rig
}

pub fn listed(epoch: u64, oldest: u64, next: u64) -> HelloStream {
    HelloStream {
        lane: Lane::Normal,
        epoch: Epoch::new(epoch),
        oldest,
        next,
        ram: false,
        ended: false,
        boot: 3,
        base: Base::Wall,
    }
}

pub fn hello(streams: &[HelloStream]) -> Vec<u8> {
    hello_of(&device(), streams)
}

thread_local! {
    /// The uptime of the next Hello: each is said after the one before.
    static HELLOS: Cell<u64> = const { Cell::new(1_000) };
}

pub fn hello_of(origin: &DeviceId, streams: &[HelloStream]) -> Vec<u8> {
    hello_that_is(true, origin, streams)
}

/// - `complete`: it lists all that the device holds.
pub fn hello_that_is(complete: bool, origin: &DeviceId, streams: &[HelloStream]) -> Vec<u8> {
    let hello = Hello {
        version_min: headwater_proto::message::PROTOCOL,
        version_max: headwater_proto::message::PROTOCOL,
        origin: origin.clone(),
        nonce: 7,
        page: 0,
        pages: 1,
        complete,
        boot: 3,
        uptime_ms: HELLOS.with(|said| said.replace(said.get() + 1)),
        wall: Some(wall()),
        max_bundle: 65_536,
        streams: streams.iter().copied().collect(),
    };
    let mut out = Vec::new();
    message::append_frame(&hello, &mut out);
    out
}

fn wall() -> WallClock {
    WallClock {
        time: UnixMicros(START_US),
        error_ms: Some(1),
    }
}

pub fn schema() -> Schema {
    Schema::new(
        1000,
        vec![
            Column::new("temp", ColumnKind::F64),
            Column::new("n", ColumnKind::I64),
        ],
    )
}

/// A batch of record `seq`: three rows, five values that `seq` decides.
pub fn batch(seq: u64) -> Vec<u8> {
    let schema = schema();
    let mut rows = Rows::new(&schema);
    for row in 0..3u32 {
        let us =
            START_US + i64::try_from(seq % 1000).unwrap() * 3_000_000 + i64::from(row) * 1_000_000;
        let temp = Value::F64(20.0 + seq as f64 / 8.0 + f64::from(row));
        let n = (row != 1).then_some(Value::I64(i64::try_from(seq).unwrap()));
        rows.push_row(us, 0, &[Some(temp), n]).unwrap();
    }
    let mut out = Vec::new();
    Encoder::new(&schema).encode(0, &rows, &mut out).unwrap();
    out
}

/// A batch of which the second row lies too far ahead to be believed, with its schema.
pub fn split_batch() -> Vec<(Kind, Vec<u8>)> {
    let schema = schema();
    let mut rows = Rows::new(&schema);
    for ahead_us in [0, 864_000_000_000] {
        let values = [Some(Value::F64(20.0)), Some(Value::I64(1))];
        rows.push_row(START_US + ahead_us, 0, &values).unwrap();
    }
    let mut out = Vec::new();
    Encoder::new(&schema).encode(0, &rows, &mut out).unwrap();
    vec![(Kind::Schema, schema_frame()), (Kind::Batch, out)]
}

/// Readings in each [`batch`].
pub const SAMPLES: u64 = 5;

pub fn schema_frame() -> Vec<u8> {
    let mut bytes = vec![0];
    schema().encode(&mut bytes).unwrap();
    bytes
}

pub fn bundle_of(origin: &DeviceId, epoch: u64, first: u64, frames: &[(Kind, Vec<u8>)]) -> Vec<u8> {
    let head = BundleHead {
        origin: origin.clone(),
        lane: Lane::Normal,
        epoch: Epoch::new(epoch),
        first,
        ram: false,
        boot: 3,
        base: Base::Wall,
        stamps: Stamps {
            synced: true,
            error_ms: Some(1),
        },
        uptime_ms: Some(2000),
        wall: Some(wall()),
    };
    let frames = frames
        .iter()
        .map(|(kind, payload)| (*kind, payload.as_slice()));
    bundle::assemble(head, 256 << 10, frames).unwrap().0
}

/// Records `first..next` of an epoch with their schema.
pub fn bundle(epoch: u64, first: u64, next: u64) -> Vec<u8> {
    let mut frames = vec![(Kind::Schema, schema_frame())];
    frames.extend((first..next).map(|seq| (Kind::Batch, batch(seq))));
    bundle_of(&device(), epoch, first, &frames)
}

pub fn epoch_end(epoch: u64, next: u64) -> Vec<u8> {
    message::to_vec(&EpochEnd {
        origin: device(),
        lane: Lane::Normal,
        epoch: Epoch::new(epoch),
        first: 0,
        next,
        clean: true,
        boot: 3,
        last_durable: None,
    })
}

pub fn framed(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::append(kind, payload, &mut out).unwrap();
    out
}

/// Bytes of a segment's header.
pub const HEADER_BYTES: u64 = 64;

pub fn segments(disk: &FakeDisk) -> Vec<String> {
    let mut names = disk.list().unwrap();
    names.retain(|name| name.ends_with(".seg"));
    names
}

/// Flips a bit in the newest record that holds `bytes`.
pub fn rot_record(disk: &FakeDisk, bytes: &[u8]) {
    for name in segments(disk).into_iter().rev() {
        let mut all = vec![0; 1 << 20];
        let len = disk.open(&name).unwrap().read_at(&mut all, 0).unwrap();
        let place = all[..len].windows(bytes.len()).rposition(|at| at == bytes);
        if let Some(place) = place {
            assert!(disk.rot(&name, place as u64, 1));
            return;
        }
    }
    panic!("no segment holds the record");
}

/// Flips a bit in the head of every snapshot.
pub fn rot_snapshots(disk: &FakeDisk) {
    for name in segments(disk) {
        assert!(disk.rot(&name, HEADER_BYTES + 3, 1));
    }
}

/// Flushes until the sinks have passed all, and lets custody look at it.
pub fn flush_all(rig: &mut Rig) {
    for _ in 0..4 {
        rig.ms += 3_000;
        rig.flush().unwrap();
        rig.handle(Event::Tick);
        assert!(rig.sync());
    }
}

/// The rows of a table, each as texts by column, in the order of the texts; what is null is left out.
pub fn rows_of(store: &MemStore, table: Table) -> Vec<BTreeMap<String, String>> {
    let log = Log::load(store, table).unwrap();
    let mut rows = Vec::new();
    log.files::<LogError>(store, |add| {
        let path = format!("{}/{}", table.name(), add.path);
        let bytes = store.get(&path).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
        for batch in reader.build().unwrap() {
            let batch = batch.unwrap();
            rows.extend((0..batch.num_rows()).map(|row| cells(&batch, row)));
        }
        Ok(())
    })
    .unwrap();
    rows.sort();
    rows
}

fn cells(batch: &RecordBatch, row: usize) -> BTreeMap<String, String> {
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns());
    let present = columns.filter(|(_, column)| column.is_valid(row));
    let cells = present.map(|(field, column)| {
        let text = if let Some(texts) = column.as_string_opt::<i32>() {
            texts.value(row).to_owned()
        } else if let Some(floats) = column.as_primitive_opt::<Float64Type>() {
            format!("{:016x}", floats.value(row).to_bits())
        } else if let Some(bytes) = column.as_binary_opt::<i32>() {
            String::from_utf8_lossy(bytes.value(row)).into_owned()
        } else if let Some(times) = column.as_primitive_opt::<TimestampMicrosecondType>() {
            times.value(row).to_string()
        } else if let Some(longs) = column.as_primitive_opt::<Int64Type>() {
            longs.value(row).to_string()
        } else if let Some(ints) = column.as_primitive_opt::<Int32Type>() {
            ints.value(row).to_string()
        } else {
            column.as_boolean().value(row).to_string()
        };
        (field.name().clone(), text)
    });
    cells.collect()
}
