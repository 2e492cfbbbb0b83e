//! What lies on disks: segments of the spool and the journal, snapshots, plans, the lake's log.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use headwater_agent::pipeline::{foreign, record};
use headwater_collector::interpret::{Depth, Interpreter};
use headwater_collector::pipeline::envelope::EnvelopeError;
use headwater_collector::pipeline::rules::RuleSet;
use headwater_collector::pipeline::{envelope, snapshot};
use headwater_gate::repeat::OpenEntries;
use headwater_gate::{ConnId, Token};
use headwater_lake::delta::{Log as TableLog, LogError};
use headwater_lake::{
    Claim, Encoding, Lake, MemStore, Plan, PlanFile, Settings, Sha256, Store as _, Table,
};
use headwater_proto::bundle::Stamps;
use headwater_proto::ids::{DeviceId, Epoch, JournalId, Lane, SeqRange, Stream};
use headwater_proto::time::{Base, UnixMicros};
use headwater_spool::disk::FileSize;
use headwater_spool::{Config, Disk, DiskFile, FakeDisk, Log, Space, fsck};

use crate::heap::within;
use crate::mend::Segment;
use crate::seeds::{from_hex, prefixed};

/// A disk that counts what is read from it: the work that a file of few bytes can ask for.
#[derive(Clone)]
struct Counted {
    disk: FakeDisk,
    read: Arc<AtomicU64>,
}

struct CountedFile<F> {
    file: F,
    read: Arc<AtomicU64>,
}

impl Disk for Counted {
    type File = CountedFile<<FakeDisk as Disk>::File>;

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn open(&self, name: &str) -> io::Result<Self::File> {
        let read = Arc::clone(&self.read);
        self.disk.open(name).map(|file| CountedFile { file, read })
    }
    fn create(&self, name: &str) -> io::Result<Self::File> {
        let read = Arc::clone(&self.read);
        self.disk
            .create(name)
            .map(|file| CountedFile { file, read })
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }
    fn space(&self) -> io::Result<Space> {
        self.disk.space()
    }
}

impl<F: DiskFile> DiskFile for CountedFile<F> {
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = self.file.read_at(out, offset)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
    fn size(&self) -> io::Result<FileSize> {
        self.file.size()
    }
}

/// How often the bytes of a folder are read at most by a check, two starts and two readers.
const READS: u64 = 16;

fn config() -> Config {
    Config {
        segment_bytes: 4096,
        quota_bytes: 1 << 20,
        reserve_bytes: 4096,
        fs_reserve_percent: 0,
        fs_reserve_bytes: 0,
        ..Config::default()
    }
}

/// Position, kind and payload of each durable record.
type Records = Vec<(u64, u8, Vec<u8>)>;

fn records<D: Disk>(log: &mut Log<D>) -> Records {
    let mut found = Records::new();
    let mut at = 0;
    while at < log.reader().durable() {
        let chunk = log
            .read(at, 1 << 20, |position, kind, payload| {
                found.push((position, kind, payload.to_vec()));
                ControlFlow::Continue(())
            })
            .expect("the disk does not fail");
        assert!(chunk.next > at, "reading goes on from {at}");
        at = chunk.next;
    }
    found
}

/// Up to three segment files of any bytes: length (2), what is mended of it (1), file. A check names
/// what is there, a start succeeds, gives each record once and in order, takes new ones, and the
/// next start finds all of them. What is read stays within a multiple of what is there.
pub fn spool(input: &[u8]) {
    let disk = Counted {
        disk: FakeDisk::new(),
        read: Arc::default(),
    };
    let (mut rest, mut bytes) = (input, 0);
    for id in 1..=3u64 {
        let Some((&[low, high, mend], after)) = rest.split_first_chunk::<3>() else {
            break;
        };
        let len = usize::from(u16::from_le_bytes([low, high])).min(after.len());
        let (file, after) = after.split_at(len);
        rest = after;
        let mut file = file.to_vec();
        Segment(mend).mend(id, &mut file);
        bytes += file.len() as u64;
        let name = headwater_spool::format::Name::Segment(id).file("log");
        let written = disk.create(&name).and_then(|to| {
            to.write_at(&file, 0)?;
            to.sync_data()
        });
        written.expect("the disk does not fail");
    }
    disk.sync_dir().expect("the disk does not fail");

    fsck::check(&disk).expect("the disk does not fail");
    let (mut log, recovery) = Log::open(disk.clone(), config()).expect("a start succeeds");
    let first = records(&mut log);
    assert!(first.windows(2).all(|pair| pair[0].0 < pair[1].0));
    assert!(first.iter().all(|record| record.0 < recovery.next));
    let appended = log.append(9, b"new", &|out: &mut Vec<u8>| {
        out.extend_from_slice(b"snapshot")
    });
    let mut all = first;
    if let Ok(position) = appended
        && log.sync().is_ok()
    {
        all.push((position, 9, b"new".to_vec()));
    }
    drop(log);
    let again = Log::open(disk.clone(), config()).expect("the next start too");
    let (mut log, recovery) = again;
    assert!(recovery.cut.len() <= 1, "{recovery:?}");
    assert_eq!(records(&mut log), all);
    let read = disk.read.load(Ordering::Relaxed);
    let most = READS * (bytes + 3 * 4096);
    assert!(read <= most, "{read} bytes read of {bytes}");
}

/// A record of the agent's spool: written to bytes that read as the same. Borrows all it gives.
pub fn agent_record(bytes: &[u8]) {
    let Ok(envelope) = within(0, || record::decode(bytes)) else {
        return;
    };
    let mut out = Vec::new();
    envelope.encode(&mut out);
    assert!(out.len() <= bytes.len());
    assert_eq!(record::decode(&out).as_ref(), Ok(&envelope));
}

/// A snapshot of the agent's spool: written to bytes that read as the same. The smallest entry has
/// two bytes; a list that grows is there twice, and in reserve for as much again.
pub fn agent_snapshot(bytes: &[u8]) {
    let most = bytes.len() / 2 * 3 * size_of::<record::SourceMark>() + 4096;
    let Ok(snapshot) = within(most, || record::Snapshot::decode(bytes)) else {
        return;
    };
    let mut out = Vec::new();
    snapshot.encode(&mut out);
    assert_eq!(record::Snapshot::decode(&out).as_ref(), Ok(&snapshot));
}

/// A node's record in the agent's spool: written to bytes that read as the same. Borrows all it gives.
pub fn node_record(bytes: &[u8]) {
    let Ok(record) = within(0, || foreign::decode(bytes)) else {
        return;
    };
    let mut out = Vec::new();
    let (life, envelope) = (record.life, &record.envelope);
    foreign::encode(&record.stream, life.boot, record.ram, envelope, &mut out);
    assert!(out.len() <= bytes.len());
    let again = foreign::decode(&out).expect("what was written");
    assert_eq!((&again.stream, &again.envelope), (&record.stream, envelope));
    assert_eq!((again.life, again.ram), (life, record.ram));
}

/// A snapshot of the agent's spool of nodes: written to bytes that read as the same. The smallest entry has
/// two dozen bytes; a list that grows is there twice, and in reserve for as much again.
pub fn node_snapshot(bytes: &[u8]) {
    let most = bytes.len() / 20 * 3 * size_of::<foreign::Listed>() + bytes.len() + 4096;
    let Ok((spool, listed)) = within(most, || foreign::decode_snapshot(bytes)) else {
        return;
    };
    let mut out = Vec::new();
    foreign::begin_snapshot(spool, &mut out);
    listed
        .iter()
        .for_each(|it| foreign::add_stream(it, &mut out));
    // An epoch has 63 bits; all else is as it was.
    assert_eq!(out.len(), bytes.len());
    assert_eq!(foreign::decode_snapshot(&out), Ok((spool, listed)));
}

/// A record of the journal; the first byte is its kind. Written to bytes that read as the same.
/// Borrows all it gives but the sinks' cursors of a segment's first record.
pub fn journal_record(input: &[u8]) {
    let Some((kind, payload)) = input.split_first() else {
        return;
    };
    let Ok(record) = within(64 * payload.len(), || envelope::decode(*kind, payload)) else {
        return;
    };
    assert_eq!(record.kind().to_u8(), *kind);
    let mut out = Vec::new();
    record.encode(&mut out);
    assert_eq!(envelope::decode(*kind, &out).as_ref(), Ok(&record));
    means_something(*kind, payload);
    if let envelope::Record::Rules(bytes) = record
        && let Ok(rules) = within(64 * bytes.len(), || RuleSet::decode(bytes))
    {
        assert_eq!(RuleSet::decode(&rules.encode()), Ok(rules));
    }
}

/// A record whose schema and rules nobody knows has a meaning too; all that it gives is walked.
fn means_something(kind: u8, payload: &[u8]) {
    for depth in [Depth::Samples, Depth::Blocks] {
        let mut interpreter = Interpreter::new(depth);
        let item = match interpreter.read(7, kind, payload) {
            // It tells of a stretch without dates that nothing ties.
            Err(EnvelopeError::Undated) => continue,
            item => item.expect("it decodes"),
        };
        let stood_for: u32 = item.refused().map(|refused| refused.samples).sum();
        assert_eq!(item.batch_samples(), item.samples.len() + stood_for);
        assert_eq!(item.lines.iter().count(), item.lines.len() as usize);
    }
}

/// A snapshot of the journal: what one start writes of it, every later start writes again.
pub fn journal_snapshot(bytes: &[u8]) {
    let most = 512 * bytes.len() + (256 << 10);
    let Some(first) = within(most, || snapshot::rewritten(bytes)) else {
        return;
    };
    let second = snapshot::rewritten(&first).expect("what was written");
    assert_eq!(first, second);
}

/// Open entries of plain devices: written to bytes that read as the same.
pub fn open_entries(bytes: &[u8]) {
    let most = 64 * bytes.len() + 4096;
    let Ok((entries, used)) = within(most, || OpenEntries::decode(bytes)) else {
        return;
    };
    assert!(used <= bytes.len());
    let mut out = Vec::new();
    entries.encode(&mut out);
    assert!(out.len() <= used);
    let (again, all) = OpenEntries::decode(&out).expect("what was written");
    assert_eq!((again.len(), all), (entries.len(), out.len()));
    let mut second = Vec::new();
    again.encode(&mut second);
    assert_eq!(out, second);
    for most in [5, out.len() / 2 + 5, out.len()] {
        let mut part = Vec::new();
        entries.encode_within(most, &mut part);
        assert!(part.len() <= most.max(5));
        OpenEntries::decode(&part).expect("a part is whole");
    }
}

/// A plan of the lake: written to bytes that read as the same. Each byte of it may be taken for a
/// file before it is read.
pub fn plan(bytes: &[u8]) {
    let most = bytes.len() * size_of::<PlanFile>() + 4096;
    let Ok(plan) = within(most, || Plan::decode(bytes)) else {
        return;
    };
    let out = plan.encode();
    assert_eq!(Plan::decode(&out).ok(), Some(plan));
}

/// The first version of a table's log, written by anybody: an error or a state, and its files.
pub fn table_log(bytes: &[u8]) {
    let store = MemStore::new();
    let path = format!("{}/_delta_log/{:020}.json", Table::Samples.name(), 0);
    store
        .put_if_absent(&path, bytes)
        .expect("the store does not fail");
    let Ok(log) = TableLog::load(&store, Table::Samples) else {
        return;
    };
    let mut files = 0;
    let read = log.files::<LogError>(&store, |add| {
        files += 1;
        let _ = add.parsed_stats(Table::Samples);
        Ok(())
    });
    assert!(read.is_err() || files <= bytes.len());
    assert!(log.marks().count() <= bytes.len());
}

fn log_file(records: &[&[u8]]) -> Vec<u8> {
    let disk = FakeDisk::new();
    let (mut log, _) = Log::open(disk.clone(), config()).expect("an empty disk");
    for payload in records {
        log.append(1, payload, &|out: &mut Vec<u8>| {
            out.extend_from_slice(b"snapshot")
        })
        .expect("there is room");
    }
    log.sync().expect("the disk does not fail");
    let name = log.active_file().expect("it has records").to_owned();
    let file = disk.open(&name).expect("it is there");
    let mut bytes = vec![0; 512];
    let len = file.read_at(&mut bytes, 0).expect("it can be read");
    bytes.truncate(len);
    bytes
}

/// One segment and two, with every way of mending.
#[must_use]
pub fn spool_seeds() -> Vec<Vec<u8>> {
    let file = log_file(&[b"one", b"the second", &[7; 40]]);
    let len = u16::try_from(file.len())
        .expect("a short file")
        .to_le_bytes();
    let part = |mend: u8| prefixed(&[len[0], len[1], mend], &file);
    let mut seeds: Vec<_> = (0..32).map(part).collect();
    seeds.push([part(15), part(31)].concat());
    seeds.push([part(7), part(30), part(5)].concat());
    seeds
}

/// A record with everything, and one with nothing.
#[must_use]
pub fn agent_record_seeds() -> Vec<Vec<u8>> {
    let full = record::Envelope {
        seq: 300,
        epoch: Some(Epoch::new(77)),
        life: record::Life {
            boot: 5,
            base: Base::Uptime,
        },
        stamps: Stamps {
            synced: true,
            error_ms: Some(16),
        },
        source: "weather",
        cursor: Some(cursor()),
        from: None,
        live: false,
        stored_to: Some(UnixMicros(1_700_000_000_000_000)),
        schema: Some((3, b"schema")),
        frame: b"frame",
    };
    let bare = record::Envelope {
        epoch: None,
        life: record::Life {
            boot: 0,
            base: Base::Wall,
        },
        stamps: Stamps::default(),
        source: "",
        cursor: None,
        from: None,
        live: true,
        stored_to: None,
        schema: None,
        ..full.clone()
    };
    let encoded = |envelope: record::Envelope<'_>| {
        let mut out = Vec::new();
        envelope.encode(&mut out);
        out
    };
    vec![encoded(full), encoded(bare)]
}

fn cursor() -> record::Cursor {
    record::Cursor {
        major: 2,
        minor: 4_000,
        tag: 1_234,
    }
}

/// A node's record, with a schema and without.
#[must_use]
pub fn node_record_seeds() -> Vec<Vec<u8>> {
    let stream = node_stream();
    let records = agent_record_seeds().into_iter().map(|bytes| {
        let mut out = Vec::new();
        let mut envelope = record::decode(&bytes).expect("a record");
        envelope.epoch = Some(stream.epoch);
        foreign::encode(&stream, 3, true, &envelope, &mut out);
        out
    });
    records.collect()
}

/// A snapshot of two streams.
#[must_use]
pub fn node_snapshot_seeds() -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    foreign::begin_snapshot(JournalId(7), &mut out);
    for base in [Base::Wall, Base::Uptime] {
        let listed = foreign::Listed {
            stream: node_stream(),
            life: record::Life { boot: 5, base },
            ram: false,
            ended: base == Base::Wall,
            received: vec![1, 0, 0, 0, 0, 0],
        };
        foreign::add_stream(&listed, &mut out);
    }
    vec![out]
}

fn node_stream() -> Stream {
    Stream {
        device: DeviceId::new("node-7").expect("an id"),
        lane: Lane::Normal,
        epoch: Epoch::new(77),
    }
}

/// A snapshot with an entry in every list.
#[must_use]
pub fn agent_snapshot_seeds() -> Vec<Vec<u8>> {
    let snapshot = record::Snapshot {
        epoch: Epoch::new(77),
        life: record::Life {
            boot: 5,
            base: Base::Uptime,
        },
        first_seq: 12,
        sources: vec![record::SourceMark {
            name: "weather".to_owned(),
            cursor: Some(cursor()),
            live: false,
            stored_to: Some(UnixMicros(5)),
            unclean: Some(record::Unclean {
                since: Some(UnixMicros(4)),
            }),
        }],
        ended: vec![record::Ended {
            epoch: Epoch::new(76),
            range: SeqRange::new(0, 9),
            named_in: (Epoch::new(77), 1),
        }],
        bases: vec![record::BootBase {
            device: "node-7".parse().expect("a device id"),
            boot: 4,
            named_in: (Epoch::new(77), 2),
        }],
        schemas: vec![(1, b"schema".to_vec())],
    };
    let mut out = Vec::new();
    snapshot.encode(&mut out);
    vec![out]
}

/// The golden journal records, with their kinds: a line each, `kind: hex`.
#[must_use]
pub fn journal_record_seeds() -> Vec<Vec<u8>> {
    let golden = include_str!("../../../collector/tests/golden/envelope-5.txt");
    golden
        .lines()
        .filter_map(|line| {
            let (kind, hex) = line.split_once(' ')?;
            let kind: u8 = kind.parse().ok()?;
            Some(prefixed(&[kind], &from_hex(hex)))
        })
        .collect()
}

/// The golden snapshot.
#[must_use]
pub fn journal_snapshot_seeds() -> Vec<Vec<u8>> {
    let golden = include_str!("../../../collector/tests/golden/snapshot-5.txt");
    vec![from_hex(golden)]
}

/// Entries of two clients.
#[must_use]
pub fn open_entries_seeds() -> Vec<Vec<u8>> {
    let mut entries = OpenEntries::default();
    for (client, packet_id, place) in [("meter", 1, 10), ("meter", 2, 11), ("pump", 1, 12)] {
        entries.open(&client.into(), packet_id, 7, place, (ConnId(1), Token(1)));
    }
    let mut out = Vec::new();
    entries.encode(&mut out);
    vec![out]
}

/// A plan of two files.
#[must_use]
pub fn plan_seeds() -> Vec<Vec<u8>> {
    let file = |table, day| PlanFile {
        table,
        day,
        bytes: 300,
        sha256: Sha256([7; 32]),
        rows: 2,
        times_us: (1, 2),
        keys: ("a".into(), "b".into()),
    };
    let plan = Plan {
        journal: JournalId(9),
        term: 2,
        first_pos: 10,
        last_pos: 19,
        after: Some(9),
        at_us: 3,
        encoding: Encoding::Compact,
        writer: 1,
        sinks: vec![("hot".to_owned(), 15)],
        files: vec![file(Table::Samples, 20_000), file(Table::Gaps, 20_001)],
    };
    vec![plan.encode()]
}

/// The log of a table that was just begun, and a commit with statistics.
#[must_use]
pub fn table_log_seeds() -> Vec<Vec<u8>> {
    let store = MemStore::new();
    let claim = Claim::new(JournalId(9), 0);
    Lake::open(store.clone(), Settings::default(), &claim).expect("an empty store");
    let path = format!("{}/_delta_log/{:020}.json", Table::Samples.name(), 0);
    let first = store.get(&path).expect("it was written");
    let commit = r#"{"txn":{"appId":"headwater-1","version":7}}
{"add":{"path":"hot/dt=2026-01-02/a.parquet","partitionValues":{"dt":"2026-01-02"},"size":10,"modificationTime":5,"dataChange":true,"stats":"{\"numRecords\":2,\"minValues\":{\"ts\":\"2026-01-02T00:00:00.000Z\"},\"maxValues\":{\"ts\":\"2026-01-02T00:00:01.000001Z\"}}"}}
{"remove":{"path":"b.parquet"}}"#;
    vec![first.to_vec(), commit.as_bytes().to_vec()]
}
