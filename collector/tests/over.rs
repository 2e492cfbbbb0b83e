//! Epochs that are over and were let go of: their devices may come back with them.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of a test: a failure is a failed test"
)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{CONN, Rig, SAMPLES, bundle, bundle_of, device, epoch_end, hello, listed};
use headwater_collector::done::{DoneEpochs, DoneError, DoneInMemory};
use headwater_collector::interpret::{Depth, Feed};
use headwater_collector::pipeline::custody::{Custody, Event, Output, Settings};
use headwater_proto::frame::Kind;
use headwater_proto::ids::Stream;
use headwater_proto::message::{RejectReason, Welcome};
use headwater_spool::FakeDisk;

fn settings() -> Settings {
    Settings {
        keep_closed_ms: 60_000,
        ..common::settings()
    }
}

/// A collector that let go of epoch 1, which has three batches and their end.
fn let_go() -> Rig {
    let mut rig = Rig::start(
        FakeDisk::new(),
        headwater_lake::MemStore::new(),
        settings(),
        0,
    )
    .unwrap();
    rig.connect("dev");
    rig.up(hello(&[listed(1, 0, 4)]), 0);
    rig.up(bundle(1, 0, 3), 1);
    rig.up(
        bundle_of(&device(), 1, 3, &[(Kind::EpochEnd, epoch_end(1, 4))]),
        2,
    );
    assert!(rig.sync());
    rig.flush().unwrap();
    rig.handle(Event::Disconnected {
        conn: CONN,
        client: "dev".into(),
        orderly: false,
    });
    for _ in 0..3 {
        rig.ms += 100_000;
        rig.handle(Event::Tick);
        assert!(rig.sync());
    }
    assert!(rig.custody.ledger().is_empty());
    assert_eq!(rig.done.len(), 1);
    rig.sent.clear();
    rig
}

fn comes_back(rig: &mut Rig) {
    rig.connect("dev");
    rig.up(hello(&[listed(1, 0, 4)]), 0);
    rig.up(bundle(1, 0, 3), 1);
    rig.up(
        bundle_of(&device(), 1, 3, &[(Kind::EpochEnd, epoch_end(1, 4))]),
        2,
    );
    assert!(rig.sync());
    let mark = rig.mark(1).unwrap();
    assert_eq!((mark.received, mark.committed), (4, 4));
    rig.flush().unwrap();
    let audit = rig.audit();
    assert!(audit.totals.is_good(), "{audit:#?}");
    assert_eq!(audit.totals.counts.samples, 3 * SAMPLES);
}

#[test]
fn an_epoch_that_comes_back_after_it_was_let_go_of_is_not_taken_again() {
    comes_back(&mut let_go());
}

#[test]
fn nor_is_it_after_a_restart() {
    let rig = let_go();
    let (disk, store, done) = (rig.disk.power_cut(1), rig.store.clone(), rig.done.clone());
    let mut rig = Rig::start_with(disk, store, done, settings(), rig.ms).unwrap();
    comes_back(&mut rig);
}

#[test]
fn nor_is_it_when_the_index_was_lost_and_is_filled_from_the_lake() {
    let rig = let_go();
    let (disk, store) = (rig.disk.power_cut(1), rig.store.clone());
    let mut rig = Rig::start(disk, store, settings(), rig.ms).unwrap();
    assert_eq!(rig.done.len(), 1);
    comes_back(&mut rig);
}

#[test]
fn of_several_ends_in_the_lake_the_furthest_counts() {
    let mut rig = Rig::new();
    rig.connect("dev");
    rig.up(hello(&[listed(1, 0, 4), listed(2, 0, 1)]), 0);
    rig.up(bundle(1, 0, 2), 1);
    // A clone that was made early tells where the epoch ended for it.
    let early = (Kind::EpochEnd, epoch_end(1, 2));
    rig.up(bundle_of(&device(), 2, 0, &[early]), 2);
    assert!(rig.sync());
    rig.flush().unwrap();
    rig.up(bundle(1, 2, 3), 3);
    let end = (Kind::EpochEnd, epoch_end(1, 4));
    rig.up(bundle_of(&device(), 1, 3, &[end]), 4);
    assert!(rig.sync());
    rig.flush().unwrap();
    let store = rig.store.clone();
    let mut rig = Rig::start(FakeDisk::new(), store, settings(), 10_000).unwrap();
    comes_back(&mut rig);
}

/// After [`let_go`], epoch 2 of the device has told where epoch 1 ended.
fn ended_by_the_next_one() -> Rig {
    let mut rig = let_go();
    rig.connect("dev");
    rig.up(hello(&[listed(1, 0, 4), listed(2, 0, 1)]), 0);
    rig.up(
        bundle_of(&device(), 2, 0, &[(Kind::EpochEnd, epoch_end(1, 4))]),
        1,
    );
    assert!(rig.sync());
    rig
}

#[test]
fn the_end_of_an_epoch_told_by_the_next_one_brings_it_back_whole() {
    let rig = ended_by_the_next_one();
    // The same after a restart, from the record alone.
    let (disk, store, done) = (rig.disk.power_cut(1), rig.store.clone(), rig.done.clone());
    let mut rig = Rig::start_with(disk, store, done, settings(), rig.ms).unwrap();
    comes_back(&mut rig);
}

/// An index whose disk fails when it is told to.
struct Failing {
    kept: DoneInMemory,
    reads_fail: Arc<AtomicBool>,
}

impl DoneEpochs for Failing {
    fn keep(&self, _: &[(Stream, Vec<u8>)]) -> Result<(), DoneError> {
        Err(DoneError("full".to_owned()))
    }
    fn find(&self, stream: &Stream) -> Result<Option<Vec<u8>>, DoneError> {
        if self.reads_fail.load(Ordering::Relaxed) {
            return Err(DoneError("broken".to_owned()));
        }
        self.kept.find(stream)
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

#[test]
fn while_the_index_fails_no_epoch_is_taken_for_new() {
    let mut rig = let_go();
    let disk = rig.disk.power_cut(1);
    let reads_fail = Arc::new(AtomicBool::new(false));
    let index = Failing {
        kept: rig.done.clone(),
        reads_fail: Arc::clone(&reads_fail),
    };
    let opened = Custody::open(disk, settings(), Box::new(index), &mut || 7);
    rig.custody = opened.unwrap().0;
    let before = rig.custody.ledger().len();
    reads_fail.store(true, Ordering::Relaxed);
    rig.connect("dev");
    rig.up(hello(&[listed(9, 0, 3)]), 0);
    rig.up(bundle(9, 0, 3), 1);
    assert!(rig.sync());
    assert_eq!(rig.custody.ledger().len(), before);
    assert!(rig.custody.counters().index_failures_total > 0);
}

#[test]
fn what_the_index_could_not_keep_is_not_let_go_of() {
    let store = headwater_lake::MemStore::new();
    let mut rig = Rig::start(FakeDisk::new(), store, settings(), 0).unwrap();
    let index = Failing {
        kept: DoneInMemory::default(),
        reads_fail: Arc::default(),
    };
    let opened = Custody::open(FakeDisk::new(), settings(), Box::new(index), &mut || 7);
    rig.custody = opened.unwrap().0;
    rig.feed = Feed::new(rig.custody.reader(), rig.sink.position(), Depth::Samples);
    rig.connect("dev");
    rig.up(hello(&[listed(1, 0, 4)]), 0);
    rig.up(bundle(1, 0, 3), 1);
    let end = (Kind::EpochEnd, epoch_end(1, 4));
    rig.up(bundle_of(&device(), 1, 3, &[end]), 2);
    assert!(rig.sync());
    rig.flush().unwrap();
    for _ in 0..3 {
        rig.ms += 100_000;
        rig.handle(Event::Tick);
        assert!(rig.sync());
    }
    assert_eq!(rig.custody.ledger().len(), 1);
    assert!(rig.custody.counters().index_failures_total > 0);
}

#[test]
fn an_index_that_fails_at_the_start_keeps_nobody_out_and_nothing_is_taken_twice() {
    let rig = ended_by_the_next_one();
    // The end is read again, and what the index has of its epoch is not told.
    let (disk, store) = (rig.disk.power_cut(1), rig.store.clone());
    let index = Failing {
        kept: DoneInMemory::default(),
        reads_fail: Arc::new(AtomicBool::new(true)),
    };
    let (mut custody, opened) =
        Custody::open(disk, settings(), Box::new(index), &mut || 7).unwrap();
    assert!(!custody.index_is_whole());
    let lake = headwater_collector::sink::lake::join(
        &mut custody,
        &opened,
        store,
        headwater_collector::sink::lake::LakeSettings::default(),
        common::at(rig.ms).wall,
        headwater_proto::ids::JournalId(7),
    );
    assert!(lake.is_ok());
    let known = custody.ledger().track(&headwater_proto::ids::Stream {
        device: device(),
        lane: headwater_proto::ids::Lane::Normal,
        epoch: headwater_proto::ids::Epoch::new(1),
    });
    assert_eq!(known.map(|track| track.receiver.next()), Some(4));
}

#[test]
fn a_hello_waits_for_the_index_and_keeps_nobody_else_waiting() {
    let mut rig = Rig::start(
        FakeDisk::new(),
        headwater_lake::MemStore::new(),
        settings(),
        0,
    )
    .unwrap();
    rig.connect("dev");
    rig.up(hello(&[listed(1, 0, 3)]), 0);
    assert!(rig.sync());
    let welcomes: Vec<Welcome> = rig.messages();
    assert_eq!(welcomes.len(), 1);
    rig.sent.clear();
    // The index is slow: its answer for another epoch stays away.
    let hello = Event::Up {
        conn: CONN,
        device: device(),
        payload: hello(&[listed(1, 0, 3), listed(2, 0, 3)]).into(),
        token: None,
    };
    let now = rig.now();
    rig.custody.handle(hello, now);
    let Some(Output::Find(finding)) = rig.custody.next_output() else {
        panic!("nothing is looked up");
    };
    rig.up(bundle(1, 0, 3), 1);
    rig.up(bundle(2, 0, 3), 2);
    assert!(rig.sync());
    assert_eq!(rig.pubacks(), [1, 2]);
    assert_eq!(rig.mark(1).unwrap().received, 3);
    let reasons: Vec<_> = rig.rejects().iter().map(|it| it.reason).collect();
    assert_eq!(reasons, [RejectReason::NotDurable], "it is sent again");
    assert!(rig.messages::<Welcome>().is_empty());
    rig.handle(Event::Found(finding.find()));
    assert!(rig.sync());
    let welcomes: Vec<Welcome> = rig.messages();
    assert_eq!(welcomes[0].marks.len(), 2);
    rig.up(bundle(2, 0, 3), 3);
    assert!(rig.sync());
    assert_eq!(rig.mark(2).unwrap().received, 3);
}
