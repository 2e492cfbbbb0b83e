//! A collector and its lake: what a start asks of it, and that one collector writes it at a time.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of a test: a failure is a failed test"
)]

mod common;

use common::{
    CONN, Rig, SAMPLES, at, bundle, bundle_of, device, epoch_end, hello, listed, settings,
};
use headwater_collector::done::DoneInMemory;
use headwater_collector::pipeline::custody::{Custody, Event};
use headwater_collector::sink::lake::{JoinError, join};
use headwater_collector::sink::lake::{LakeSettings, LakeSink, LakeSinkError};
use headwater_lake::owner::LEASE_US;
use headwater_lake::{Call, LakeError, MemStore};
use headwater_proto::frame::Kind;
use headwater_proto::time::UnixMicros;
use headwater_spool::FakeDisk;

/// A device whose records `first..next` are in the lake.
fn brings(rig: &mut Rig, first: u64, next: u64) {
    rig.connect("dev");
    rig.up(hello(&[listed(1, first, 1_000)]), 0);
    rig.up(bundle(1, first, next), 1);
    assert!(rig.sync());
    rig.flush().unwrap();
}

fn comes_back(rig: &Rig, done: DoneInMemory) -> Rig {
    rig.store.forget_calls();
    let disk = rig.disk.power_cut(1);
    Rig::start_with(disk, rig.store.clone(), done, settings(), rig.ms + 1_000).unwrap()
}

fn expect_no_list(store: &MemStore) {
    let calls = store.all_calls();
    assert_eq!(
        store.calls(Call::List) + store.calls(Call::ListSome),
        0,
        "{calls:?}"
    );
}

#[test]
fn a_start_beside_its_own_lake_lists_nothing_and_reads_no_file() {
    let mut rig = Rig::new();
    brings(&mut rig, 0, 4);
    let rig = comes_back(&rig, rig.done.clone());
    expect_no_list(&rig.store);
    assert_eq!(rig.store.calls(Call::Open), 0);
}

#[test]
fn an_index_that_was_lost_is_filled_from_the_marks() {
    let mut rig = Rig::new();
    for seq in 0..103 {
        rig.ms += 10;
        brings(&mut rig, seq, seq + 1);
    }
    let end = (Kind::EpochEnd, epoch_end(1, 104));
    rig.up(bundle_of(&device(), 1, 103, &[end]), 1);
    assert!(rig.sync());
    rig.flush().unwrap();
    let rig = comes_back(&rig, DoneInMemory::default());
    assert_eq!(rig.done.len(), 1);
    expect_no_list(&rig.store);
    // Two checkpoints, and what came after them: four flushes of two files, and of devices and metrics
    // all that there is.
    let opened = rig.store.calls(Call::Open);
    assert!(opened < 15, "{opened} files were opened");
}

fn second(store: &MemStore, now_us: i64, take_over: bool) -> Result<LakeSink<MemStore>, JoinError> {
    let index = Box::new(DoneInMemory::default());
    let opened = Custody::open(FakeDisk::new(), settings(), index, &mut || 0xbeef);
    let (mut custody, opened) = opened.unwrap();
    let lake = LakeSettings {
        take_over,
        ..LakeSettings::default()
    };
    let now = UnixMicros(now_us);
    join(&mut custody, &opened, store.clone(), lake, now, &mut || {
        0xbeef
    })
}

fn refusal(result: Result<LakeSink<MemStore>, JoinError>) -> String {
    match result {
        Ok(_) => panic!("it opened"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_second_collector_beside_a_live_one_is_told_who_owns_the_lake_and_how_to_take_it() {
    let mut rig = Rig::new();
    brings(&mut rig, 0, 4);
    rig.sink.keep(at(0).wall).unwrap();
    let start_us = at(0).wall.0;
    let error = refusal(second(&rig.store, start_us + LEASE_US - 1, false));
    assert!(
        error.contains(&rig.custody.journal().to_string()),
        "{error}"
    );
    assert!(error.contains("--take-over"), "{error}");
    brings(&mut rig, 4, 6);
    // Once the lease is over, or when told to, it takes the lake.
    let later = rig.store.fork();
    assert!(second(&later, start_us + LEASE_US, false).is_ok());
    assert!(second(&rig.store, start_us + 1, true).is_ok());
    // The first one notices at its next flush, and keeps what it has in its journal.
    rig.up(bundle(1, 6, 9), 1);
    assert!(rig.sync());
    let error = rig.flush().unwrap_err();
    assert!(
        error.contains("taken over under term 2 by journal 000000000000beef"),
        "{error}"
    );
    let error = rig.sink.publish().unwrap_err();
    assert!(matches!(
        error,
        LakeSinkError::Lake(LakeError::Fenced { term: 2, .. })
    ));
    assert!(!error.is_transient());
    assert!(!rig.sink.keep(at(1).wall).unwrap_err().is_transient());
    assert_eq!(rig.audit().totals.counts.samples, 6 * SAMPLES);
    // Told to, it goes on where it stood.
    let mut rig = comes_back(&rig, rig.done.clone());
    assert_eq!(rig.sink.lake().owner().term, 3);
    rig.flush().unwrap();
    assert_eq!(rig.audit().totals.counts.samples, 9 * SAMPLES);
    assert!(rig.audit().totals.is_good());
}

#[test]
fn a_journal_that_comes_back_brings_nothing_that_another_one_has_brought_meanwhile() {
    let mut rig = Rig::new();
    brings(&mut rig, 0, 4);
    rig.up(bundle(1, 4, 9), 1);
    rig.plain("plain/m1/temp", "20.5", 7, false, 2);
    assert!(rig.sync());
    // The device goes to another collector with all that is not committed, and more.
    let store = rig.store.clone();
    let mut other = Rig::start(FakeDisk::new(), store, settings(), 10).unwrap();
    brings(&mut other, 4, 7);
    other.up(bundle(1, 7, 8), 1);
    assert!(other.sync());
    let mut rig = comes_back(&rig, rig.done.clone());
    rig.flush().unwrap();
    let audit = rig.audit();
    assert!(audit.totals.is_good(), "{audit:#?}");
    assert_eq!(audit.totals.counts.samples, 9 * SAMPLES + 1);
    // And the other way round.
    let mut other = comes_back(&other, other.done.clone());
    other.flush().unwrap();
    let audit = other.audit();
    assert!(audit.totals.is_good(), "{audit:#?}");
    assert_eq!(audit.totals.counts.samples, 9 * SAMPLES + 1);
}

#[test]
fn a_journal_that_comes_back_and_dies_before_it_flushes_brings_nothing_twice_either() {
    let mut rig = Rig::new();
    brings(&mut rig, 0, 4);
    rig.up(bundle(1, 4, 9), 1);
    assert!(rig.sync());
    let store = rig.store.clone();
    let mut other = Rig::start(FakeDisk::new(), store, settings(), 10).unwrap();
    brings(&mut other, 4, 7);
    let rig = comes_back(&rig, rig.done.clone());
    let mut rig = comes_back(&rig, rig.done.clone());
    rig.flush().unwrap();
    let audit = rig.audit();
    assert!(audit.totals.is_good(), "{audit:#?}");
    assert_eq!(audit.totals.counts.samples, 9 * SAMPLES);
}

#[test]
fn a_journal_without_a_durable_record_holds_no_lease() {
    let store = MemStore::new();
    let mut rig = Rig::start(FakeDisk::new(), store.clone(), settings(), 0).unwrap();
    let now_us = at(0).wall.0;
    // A crash may take its name back: the next start must not wait for it.
    rig.sink.keep(at(0).wall).unwrap();
    assert!(second(&store.fork(), now_us, false).is_ok());
    rig.connect("dev");
    rig.up(hello(&[listed(1, 0, 9)]), 0);
    assert!(rig.sync());
    rig.up(bundle(1, 0, 1), 1);
    assert!(rig.sync());
    rig.flush().unwrap();
    rig.sink.keep(at(0).wall).unwrap();
    assert!(second(&store.fork(), now_us, false).is_err());
    // An orderly end waits for nobody either.
    rig.handle(Event::Disconnected {
        conn: CONN,
        client: "dev".into(),
        orderly: true,
    });
    rig.sink.lake_mut().release(now_us).unwrap();
    assert!(second(&store, now_us, false).is_ok());
}
