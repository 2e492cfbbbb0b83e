//! A fleet that restarts for months, in virtual time: what is kept of its epochs, and how much that is.

use std::sync::{Arc, Mutex};

use headwater_proto::delivery::End;
use headwater_proto::ids::{DeviceId, Epoch, JournalId, Lane, SeqRange, Stream};
use headwater_proto::time::{Millis, Now, UnixMicros};
use headwater_spool::FakeDisk;
use headwater_spool::format::MAX_SNAPSHOT_BYTES;

use super::super::{Custody, Settings};
use super::Kept;
use crate::done::{DoneEpochs, DoneError, Epochs};
use crate::done_store::{DoneStore, QUOTA_BYTES};
use crate::pipeline::ledger::{Ledger, MAX_STREAMS};
use crate::pipeline::schemas::SchemaBook;
use crate::pipeline::snapshot::{self, MAX_TIMES_BYTES, NEW_BYTES, Parts};
use crate::pipeline::undated::Stretches;

const DEVICES: u64 = 1_000;
const RESTARTS_A_DAY: u64 = 10;
const LANES: [Lane; 3] = [Lane::Alarm, Lane::Normal, Lane::Bulk];
const EPOCHS_A_DAY: u64 = DEVICES * RESTARTS_A_DAY * LANES.len() as u64;
const DAY_MS: u64 = 86_400_000;
/// More than closed epochs are kept.
const DAYS: u64 = 9;
/// Records of each epoch.
const END: End = End {
    first: 0,
    next: 500,
    clean: true,
};

/// An index that counts what it is given, and keeps the first.
#[derive(Debug, Clone, Default)]
struct Counting {
    first: Arc<Mutex<Epochs>>,
    count: Arc<Mutex<u64>>,
}

impl DoneEpochs for Counting {
    fn keep(&self, epochs: &[(Stream, Vec<u8>)]) -> Result<(), DoneError> {
        *self.count.lock().unwrap() += epochs.len() as u64;
        let mut first = self.first.lock().unwrap();
        if first.len() < 30_000 {
            first.extend_from_slice(epochs);
        }
        Ok(())
    }
    fn find(&self, _: &Stream) -> Result<Option<Vec<u8>>, DoneError> {
        Ok(None)
    }
    fn is_whole(&self) -> bool {
        true
    }
    fn clear(&self) -> Result<(), DoneError> {
        Ok(())
    }
    fn set_whole(&self) -> Result<(), DoneError> {
        Ok(())
    }
}

/// The streams of a device's life.
fn streams(device: u64, life: u64) -> impl Iterator<Item = Stream> {
    LANES.into_iter().map(move |lane| Stream {
        device: DeviceId::new(&format!("device-{device:04}")).unwrap(),
        lane,
        // Epochs are random numbers.
        epoch: Epoch::new((life * DEVICES + device + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
    })
}

/// The bytes of a snapshot with these streams alone, without the times of their records.
fn snapshot_bytes(ledger: &Ledger) -> usize {
    let parts = Parts {
        journal: JournalId(1),
        apart_since: None,
        lake_term: 1,
        committed_to: 0,
        rules: b"",
        sinks: &[],
        plans: &std::collections::BTreeMap::new(),
        sessions: &std::collections::BTreeSet::new(),
        ledger,
        schemas: &SchemaBook::default(),
        open: &headwater_gate::repeat::OpenEntries::default(),
        clock: &Stretches::default(),
    };
    snapshot::write(&parts, &mut Vec::new())
}

/// Bytes on disk of each epoch in the index.
fn on_disk(epochs: &Epochs) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = DoneStore::open(folder.path()).unwrap();
    for some in epochs.chunks(4_096) {
        store.keep(some).unwrap();
    }
    store.used_bytes().unwrap() / epochs.len() as u64
}

#[test]
fn what_is_kept_of_a_fleet_that_restarts_is_bounded() {
    let index = Counting::default();
    let settings = Settings::small();
    assert_eq!(settings.keep_closed_ms, 7 * DAY_MS);
    let done = Box::new(index.clone());
    let (mut custody, _) = Custody::open(FakeDisk::new(), settings, done, &mut || 7).unwrap();
    let (mut most, mut largest) = (0, 0);
    let mut by_day = Vec::new();
    for life in 0..DAYS * RESTARTS_A_DAY {
        for device in 0..DEVICES {
            for stream in streams(device, life) {
                custody.seed(stream, &[SeqRange::new(0, 99)], &[], None);
            }
            let ended = life.checked_sub(1).into_iter();
            for stream in ended.flat_map(|before| streams(device, before)) {
                custody.seed(stream, &[SeqRange::new(0, END.next)], &[], Some(END));
            }
        }
        most = most.max(custody.ledger().len());
        let mut ms = life * (DAY_MS / RESTARTS_A_DAY);
        let now = |ms: u64| Now {
            mono: Millis(ms),
            wall: UnixMicros(i64::try_from(ms * 1_000).unwrap()),
        };
        // Looks until nothing more may leave.
        while let Some(keeping) = custody.streams.expiry().due(now(ms)) {
            let (epochs, kept) = keeping.keep();
            let kept = custody.streams.expiry().kept(&epochs, kept.is_ok());
            assert!(matches!(kept, Kept::Gone(gone) if gone.len() == epochs.len()));
            ms += 60_000;
        }
        if (life + 1) % RESTARTS_A_DAY == 0 {
            let bytes = snapshot_bytes(custody.ledger());
            largest = largest.max(bytes);
            by_day.push((custody.ledger().len(), bytes, *index.count.lock().unwrap()));
        }
    }
    let each = on_disk(&index.first.lock().unwrap());
    let (ledger, bytes, _) = by_day[by_day.len() - 1];
    for days in [1, 30, 100, 300] {
        let (ledger, bytes, kept) = usize::try_from(days - 1)
            .ok()
            .and_then(|day| by_day.get(day).copied())
            // Ledger and snapshot stay; the rest is in the index.
            .unwrap_or_else(|| (ledger, bytes, days * EPOCHS_A_DAY - ledger as u64));
        println!(
            "{days:3} days, {:7} epochs: ledger {ledger:5} streams, snapshot {:4.1} MiB and {} MiB of times, \
             index {kept:7} epochs in {:6.1} MiB on disk ({each} bytes each)",
            days * EPOCHS_A_DAY,
            bytes as f64 / f64::from(1 << 20),
            MAX_TIMES_BYTES >> 20,
            (kept * each) as f64 / f64::from(1 << 20),
        );
    }
    // What the index may take on its disk is a bound of its own; it is far from that.
    assert!(300 * EPOCHS_A_DAY * each < QUOTA_BYTES, "{each}");
    for (day, (ledger, _, kept)) in (1..).zip(&by_day) {
        assert_eq!(
            *ledger as u64 + kept,
            day * EPOCHS_A_DAY,
            "each is in one of the two"
        );
    }
    // The running streams, and those that ended since the last look.
    assert!(most <= MAX_STREAMS / 2 + 9 * 1_000, "{most}");
    assert!(
        largest <= NEW_BYTES && NEW_BYTES < MAX_SNAPSHOT_BYTES,
        "{largest}"
    );
}
