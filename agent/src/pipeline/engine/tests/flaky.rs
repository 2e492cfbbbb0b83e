//! A disk that refuses to sync much at once: small files of a new epoch pass, groups of rows do not.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use headwater_proto::ids::Lane;
use headwater_proto::sample::Value;
use headwater_proto::time::{Millis, Now, UnixMicros};
use headwater_spool::disk::FileSize;
use headwater_spool::fake_disk::FakeFile;
use headwater_spool::{Disk, DiskFile, FakeDisk, Space};

use super::world::{BOOT_US, REPLAY, settings};
use crate::pipeline::admit::{Field, Sample};
use crate::pipeline::engine::{Engine, Event, GROUP_BYTES, MAX_FAILED_SYNCS, PROBE_MS};
use crate::pipeline::record::Cursor;

/// What may be synced at once while the disk refuses: the header of a segment with an end in it.
const SMALL_BYTES: usize = 1_500;

#[derive(Debug, Clone)]
struct Flaky {
    inner: FakeDisk,
    /// Syncs that are still to fail.
    left: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct FlakyFile {
    disk: Flaky,
    inner: FakeFile,
    unsynced: AtomicUsize,
}

impl Disk for Flaky {
    type File = FlakyFile;

    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }

    fn open(&self, name: &str) -> io::Result<FlakyFile> {
        self.inner.open(name).map(|inner| self.file(inner))
    }

    fn create(&self, name: &str) -> io::Result<FlakyFile> {
        self.inner.create(name).map(|inner| self.file(inner))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.inner.sync_dir()
    }

    fn space(&self) -> io::Result<Space> {
        self.inner.space()
    }
}

impl Flaky {
    fn new() -> Self {
        Self {
            inner: FakeDisk::new(),
            left: Arc::default(),
        }
    }

    fn file(&self, inner: FakeFile) -> FlakyFile {
        FlakyFile {
            disk: self.clone(),
            inner,
            unsynced: AtomicUsize::new(0),
        }
    }

    /// The next `syncs` of more than a little fail.
    fn refuse(&self, syncs: usize) {
        self.left.store(syncs, Ordering::Relaxed);
    }
}

impl DiskFile for FlakyFile {
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(out, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.unsynced.fetch_add(bytes.len(), Ordering::Relaxed);
        self.inner.write_at(bytes, offset)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.inner.allocate(len)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.inner.truncate(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let is_much = self.unsynced.swap(0, Ordering::Relaxed) > SMALL_BYTES;
        let left = &self.disk.left;
        if is_much && left.load(Ordering::Relaxed) > 0 {
            left.fetch_sub(1, Ordering::Relaxed);
            self.disk.inner.fail_sync(0);
        }
        self.inner.sync_data()
    }

    fn size(&self) -> io::Result<FileSize> {
        self.inner.size()
    }
}

const fn at(ms: u64) -> Now {
    Now {
        mono: Millis(ms),
        wall: UnixMicros(BOOT_US + ms.cast_signed() * 1_000),
    }
}

/// Offers row `k` of a resumable source, with so much text that a few of them fill a segment; says
/// whether it was taken.
fn give(engine: &mut Engine<Flaky>, k: u64, ms: u64) -> bool {
    let word = |n: u64| (k + n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let pad: String = (0..20).map(|n| format!("{:016x}", word(n))).collect();
    let fields = [Field::new("pad", Value::Str(&pad))];
    let sample = Sample {
        time: UnixMicros(BOOT_US),
        labels: &[],
        fields: &fields,
    };
    let cursor = Cursor {
        major: 0,
        minor: k + 1,
        tag: 0,
    };
    let offered = engine.offer(REPLAY, Lane::Normal, &sample, Some(cursor), at(ms));
    offered.is_ok()
}

#[test]
fn a_lane_whose_groups_fail_as_often_as_the_bound_stays_on_disk_and_once_more_goes_to_memory() {
    let most = MAX_FAILED_SYNCS as usize;
    for failures in 1..=most + 1 {
        let mut settings = settings();
        // No group is synced for its size.
        settings.spool.segment_bytes = GROUP_BYTES as u64 / 4;
        settings.spool.lane_bytes = [1 << 20; 3];
        settings.batch.rows = 5;
        let disk = Flaky::new();
        let mut seed = 7;
        let mut entropy = || {
            seed += 1;
            seed
        };
        let opened = Engine::open(disk.clone(), settings, &mut entropy, at(0));
        let mut engine = opened.unwrap();
        // The rows of two segments. Whatever is appended after the first is full syncs the group of
        // that: each epoch after a failure is as full, and meets the same.
        disk.refuse(failures);
        let taken = (0..100).take_while(|k| give(&mut engine, *k, 0)).count() as u64;
        assert_eq!(engine.counters().failed_syncs, failures as u64);
        let in_ram = engine.lanes().any(|lane| lane.in_ram);
        assert_eq!(in_ram, failures > most, "{failures}");
        // Nothing is lost either way: the rows wait for the disk.
        engine.handle(Event::Tick, at(PROBE_MS));
        engine.handle(Event::Tick, at(PROBE_MS + 2_000));
        assert_eq!(engine.cursors()[REPLAY].map(|it| it.minor), Some(taken));
    }
}
