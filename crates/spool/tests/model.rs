//! The log against a model: any sequence of operations, failures, kills and power cuts.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

use std::collections::{BTreeMap, BTreeSet};

use headwater_spool::{AppendError, Disk, FakeDisk, FullCause, Log};
use proptest::prelude::*;

mod common;
use common::{config, payload, read_all};

#[derive(Debug, Clone)]
enum Op {
    Append(usize),
    Reserved(usize),
    Sync,
    Roll,
    /// Of the segments, by number modulo their count.
    Release(usize),
    Reopen,
    Kill,
    /// A kill, and a start of which this sync fails, before the one that goes on.
    KillAndFail(u64),
    Cut(u64),
    CrashAfter(u64),
    FailSync(u64),
    FailOperation(u64),
}

/// What must and may be in the log.
struct Model {
    disk: FakeDisk,
    log: Log<FakeDisk>,
    /// Durable and not released: must be there.
    durable: BTreeMap<u64, Vec<u8>>,
    /// Appended, of unknown fate: may be there after a crash.
    open: BTreeMap<u64, Vec<u8>>,
    /// Released: may be there again after a crash.
    released: BTreeMap<u64, Vec<u8>>,
    /// Tells records apart that take the same position in different lives.
    salt: u64,
    cuts: u32,
}

type Verdict = Result<(), String>;

impl Model {
    fn new(disk: FakeDisk) -> Self {
        let log = Log::open(disk.clone(), config()).unwrap().0;
        let (durable, open, released) = Default::default();
        Self {
            disk,
            log,
            durable,
            open,
            released,
            salt: 0,
            cuts: 0,
        }
    }

    fn run(ops: &[Op]) -> Result<u32, String> {
        Self::run_on(FakeDisk::new(), ops)
    }

    fn run_on(disk: FakeDisk, ops: &[Op]) -> Result<u32, String> {
        let mut model = Self::new(disk);
        for (at, op) in ops.iter().enumerate() {
            model
                .step(op)
                .map_err(|error| format!("operation {at}, {op:?}: {error}"))?;
            if model.disk.has_crashed() {
                model.restart(model.disk.power_cut(at as u64))?;
                model.cuts += 1;
            }
        }
        model.step(&Op::Cut(ops.len() as u64))?;
        Ok(model.cuts)
    }

    fn step(&mut self, op: &Op) -> Verdict {
        match *op {
            Op::Append(len) => self.append(len, false),
            Op::Reserved(len) => self.append(len, true),
            Op::Sync => {
                let result = self.log.sync().map(|_| ());
                self.synced(result)
            }
            Op::Roll => {
                let result = self.log.roll();
                self.synced(result)
            }
            Op::Release(at) => self.release(at),
            Op::Reopen => {
                let result = self.log.sync().map(|_| ());
                self.synced(result)?;
                let _ = self.log.roll();
                self.reopen()
            }
            Op::Kill => self.restart(self.disk.process_killed()),
            Op::KillAndFail(sync) => {
                let disk = self.disk.process_killed();
                disk.fail_sync(sync);
                drop(Log::open(disk.clone(), config()));
                self.restart(disk.process_killed())
            }
            Op::Cut(seed) => {
                self.cuts += 1;
                self.restart(self.disk.power_cut(seed))
            }
            Op::CrashAfter(n) => {
                self.disk.crash_after(n);
                Ok(())
            }
            Op::FailSync(n) => {
                self.disk.fail_sync(n);
                Ok(())
            }
            Op::FailOperation(n) => {
                self.disk.fail_operation(n);
                Ok(())
            }
        }
    }

    /// A start with whatever failure is due, then one without.
    fn reopen(&mut self) -> Verdict {
        drop(Log::open(self.disk.clone(), config()));
        if self.disk.has_crashed() {
            self.cuts += 1;
            return self.restart(self.disk.power_cut(self.salt));
        }
        self.restart(self.disk.process_killed())
    }

    fn append(&mut self, len: usize, reserved: bool) -> Verdict {
        let next = self.log.next();
        self.salt += 1;
        let bytes = payload(next ^ self.salt << 32, len);
        let snapshot = |out: &mut Vec<u8>| out.extend_from_slice(&payload(next, 100));
        // The position as the log sees it when it asks; a failed group changes nothing of it.
        let result = if reserved {
            self.log.append_reserved(1, &bytes, &snapshot)
        } else {
            self.log.append(1, &bytes, &snapshot)
        };
        match result {
            Ok(position) if position == next => {
                self.open.insert(position, bytes);
                self.settle_open();
                Ok(())
            }
            Ok(position) => Err(format!("position {position} instead of {next}")),
            Err(AppendError::Sync(error)) => {
                self.open.insert(next, bytes);
                self.lose(error.lost);
                Ok(())
            }
            Err(AppendError::Full {
                cause: FullCause::Quota,
                ..
            }) => {
                let least = config().quota_bytes - 4 * config().segment_bytes - (24 << 10);
                let used = self.log.used_bytes();
                if used > least {
                    Ok(())
                } else {
                    Err(format!("full at {used} bytes"))
                }
            }
            Err(AppendError::Disk { .. }) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn synced(&mut self, result: Result<(), headwater_spool::SyncError>) -> Verdict {
        match result {
            Ok(()) => {
                self.settle_open();
                let left = self.open.keys().any(|p| *p < self.log.next());
                if left {
                    Err("a sync left records behind".to_owned())
                } else {
                    Ok(())
                }
            }
            Err(error) => {
                self.lose(error.lost);
                Ok(())
            }
        }
    }

    /// What the log calls durable must be there from now on.
    fn settle_open(&mut self) {
        let later = self.open.split_off(&self.log.durable());
        let told = std::mem::replace(&mut self.open, later);
        if !told.is_empty() {
            self.durable.extend(told);
        }
    }

    /// Lost records must not be read in this life; a crash before anything newer is durable may
    /// bring them back, and so they stay open only if the disk is about to crash.
    fn lose(&mut self, lost: std::ops::Range<u64>) {
        let kept = self.open.split_off(&lost.start);
        self.settle_open();
        if self.disk.has_crashed() {
            self.open.extend(kept);
        } else {
            self.released.extend(kept);
        }
    }

    fn release(&mut self, at: usize) -> Verdict {
        let segments: Vec<_> = self.log.segments().copied().collect();
        let Some(segment) = segments.get(at % segments.len().max(1)) else {
            return Ok(());
        };
        let newest = segments.last().is_some_and(|s| s.id == segment.id);
        match self.log.release(segment.id) {
            Ok(true) if !newest => {
                let mut rest = self.durable.split_off(&segment.first);
                self.durable.append(&mut rest.split_off(&segment.next));
                self.released.append(&mut rest);
                Ok(())
            }
            Err(_) => Ok(()),
            Ok(there) => Err(format!("release gave {there}, newest {newest}")),
        }
    }

    /// Opens what is on `disk`, and compares.
    fn restart(&mut self, disk: FakeDisk) -> Verdict {
        let (log, recovery) = Log::open(disk.clone(), config()).map_err(|e| e.to_string())?;
        if !recovery.trouble.is_empty() || !recovery.unreadable.is_empty() {
            return Err(format!("{recovery:?}"));
        }
        (self.disk, self.log) = (disk, log);
        let (records, damaged) = read_all(&mut self.log);
        if !damaged.is_empty() {
            return Err(format!("positions {damaged:?} called damaged"));
        }
        let mut there = BTreeMap::new();
        for (position, _, bytes) in records {
            let known = [&self.durable, &self.open, &self.released];
            if !known.iter().any(|m| m.get(&position) == Some(&bytes)) {
                return Err(format!("position {position} was never appended like this"));
            }
            if self
                .durable
                .get(&position)
                .is_some_and(|must| *must != bytes)
            {
                return Err(format!("position {position} is wrong"));
            }
            there.insert(position, bytes);
        }
        if let Some(position) = self.durable.keys().find(|p| !there.contains_key(p)) {
            return Err(format!("durable position {position} is lost"));
        }
        for segment in self.log.segments() {
            let snapshot = self
                .log
                .snapshot_of(segment.id)
                .map_err(|e| e.to_string())?;
            if snapshot != Some(payload(segment.first, 100)) {
                return Err(format!("the snapshot of segment {} is wrong", segment.id));
            }
        }
        if there
            .keys()
            .next_back()
            .is_some_and(|last| *last >= self.log.next())
        {
            return Err("a position would be given out twice".to_owned());
        }
        self.released
            .retain(|position, _| !there.contains_key(position));
        self.durable = there;
        self.open.clear();
        Ok(())
    }
}

/// A sequence of operations drawn from a seed.
fn drawn(seed: u64, count: usize) -> Vec<Op> {
    let mut word = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut dice = move |bound: u64| {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        (word >> 11) % bound
    };
    (0..count)
        .map(|_| match dice(100) {
            0..55 => Op::Append(8 + usize::try_from(dice(2) * dice(3000) + dice(200)).unwrap()),
            55..58 => Op::Reserved(20),
            58..80 => Op::Sync,
            80..83 => Op::Roll,
            83..92 => Op::Release(usize::try_from(dice(8)).unwrap()),
            92 => Op::Reopen,
            93 if dice(2) == 0 => Op::KillAndFail(dice(2)),
            93 => Op::Kill,
            94..96 => Op::Cut(dice(1 << 40)),
            96..98 => Op::CrashAfter(dice(40)),
            98 => Op::FailSync(dice(5)),
            _ => Op::FailOperation(dice(30)),
        })
        .collect()
}

#[test]
fn two_thousand_power_cuts_lose_no_durable_record_and_make_none_wrong() {
    let (mut seed, mut cuts) = (0, 0);
    while cuts < 2000 {
        match Model::run(&drawn(seed, 150)) {
            Ok(more) => cuts += more,
            Err(error) => panic!("seed {seed}: {error}"),
        }
        seed += 1;
    }
}

#[test]
fn a_disk_whose_syncs_do_nothing_is_noticed() {
    let mut noticed = BTreeSet::new();
    for seed in 0..100 {
        let disk = FakeDisk::new();
        disk.set_lying(true);
        // One long life and one cut: each durable record hangs on the syncs alone.
        let mut ops = drawn(seed, 200);
        ops.retain(|op| matches!(op, Op::Append(_) | Op::Sync | Op::Roll));
        if Model::run_on(disk, &ops).is_err() {
            noticed.insert(seed);
        }
    }
    assert!(noticed.len() >= 95, "only {} of 100", noticed.len());
}

#[test]
fn a_crash_at_any_operation_of_a_busy_minute_is_survived() {
    let ops: Vec<_> = drawn(7, 120)
        .into_iter()
        .filter(|op| matches!(op, Op::Append(_) | Op::Sync | Op::Roll | Op::Release(_)))
        .collect();
    let disk = FakeDisk::new();
    Model::run_on(disk.clone(), &ops).unwrap();
    let operations = disk.operations();
    assert!(operations > 100);
    for at in 0..operations {
        let mut crashed = vec![Op::CrashAfter(at)];
        crashed.extend_from_slice(&ops);
        Model::run(&crashed).unwrap_or_else(|error| panic!("crash at {at}: {error}"));
    }
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (8usize..3000).prop_map(Op::Append),
        1 => (8usize..100).prop_map(Op::Reserved),
        6 => Just(Op::Sync),
        1 => Just(Op::Roll),
        3 => (0usize..8).prop_map(Op::Release),
        1 => Just(Op::Reopen),
        1 => Just(Op::Kill),
        1 => any::<u64>().prop_map(Op::Cut),
        1 => (0u64..40).prop_map(Op::CrashAfter),
        1 => (0u64..5).prop_map(Op::FailSync),
        1 => (0u64..30).prop_map(Op::FailOperation),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_log_equals_its_model(ops in prop::collection::vec(op(), 0..80)) {
        Model::run(&ops).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn arbitrary_bytes_in_place_of_files_never_stop_a_start(
        files in prop::collection::vec((1u64..6, prop::collection::vec(any::<u8>(), 0..200)), 0..5),
        flips in prop::collection::vec((0u64..20_000, 1u8..), 0..6),
    ) {
        let disk = FakeDisk::new();
        let mut log = Log::open(disk.clone(), config()).unwrap().0;
        for i in 0..30 {
            log.append(1, &payload(i, 500), &common::no_snapshot).unwrap();
        }
        log.sync().unwrap();
        drop(log);
        for (at, mask) in flips {
            disk.rot(&format!("log-{:016x}.seg", at % 3 + 1), at / 3, mask);
        }
        for (id, bytes) in files {
            use headwater_spool::DiskFile;
            disk.open(&format!("log-{id:016x}.seg"))
                .or_else(|_| disk.create(&format!("log-{id:016x}.seg")))
                .unwrap()
                .write_at(&bytes, 0)
                .unwrap();
        }
        let (mut log, _) = Log::open(disk, config()).unwrap();
        let (records, _) = read_all(&mut log);
        for (position, _, bytes) in records {
            prop_assert_eq!(bytes, payload(position, 500));
        }
        let next = log.next();
        log.append(1, b"goes on", &common::no_snapshot).unwrap();
        prop_assert_eq!(log.sync().unwrap(), next + 1);
    }
}
