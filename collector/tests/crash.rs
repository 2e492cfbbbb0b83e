//! Power cuts at every operation of the disk and of the store: whatever was acknowledged is there,
//! and the lake holds each reading once.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of a test: a failure is a failed test"
)]

mod common;

use common::{CONN, Rig, SAMPLES, bundle, hello, listed};
use headwater_collector::pipeline::custody::Event;
use headwater_lake::MemStore;
use headwater_spool::FakeDisk;

/// Records that the device has.
const RECORDS: u64 = 60;

/// What the device and the plain meter know they handed over.
#[derive(Debug, Default)]
struct Told {
    committed: u64,
    plain_acked: Vec<u16>,
    plain_open: Vec<u16>,
}

/// Sends all there is, flushing in between; `Err` when a disk failed.
fn run(rig: &mut Rig, told: &mut Told) -> Result<(), String> {
    rig.connect("dev");
    rig.up(hello(&[listed(1, told.committed, RECORDS)]), 0);
    if !rig.sync() {
        return Err("sync".into());
    }
    let mut seq = rig.mark(1).map_or(0, |mark| mark.received);
    // Sent again in the order of the first time: who got no PUBACK says DUP.
    for (token, id) in (1_000u64..).zip(std::mem::take(&mut told.plain_open)) {
        told.plain_open.push(id);
        rig.plain("plain/m1/temp", &format!("{id}"), id, true, token);
    }
    learn(rig, told)?;
    let mut id = u16::try_from(told.plain_acked.len()).unwrap() + 1;
    while seq < RECORDS {
        let next = (seq + 4).min(RECORDS);
        rig.up(bundle(1, seq, next), 1);
        seq = next;
        rig.plain(
            "plain/m1/temp",
            &format!("{id}"),
            id,
            false,
            u64::from(id) + 2_000,
        );
        told.plain_open.push(id);
        id += 1;
        learn(rig, told)?;
        if seq.is_multiple_of(12) {
            rig.flush()?;
            learn(rig, told)?;
        }
    }
    rig.flush()?;
    learn(rig, told)
}

fn learn(rig: &mut Rig, told: &mut Told) -> Result<(), String> {
    rig.ms += 100;
    rig.handle(Event::Tick);
    let synced = rig.sync();
    if let Some(mark) = rig.mark(1) {
        told.committed = told.committed.max(mark.committed);
    }
    // PUBACKs leave in order, so each is for the oldest that is open.
    let acked = rig
        .pubacks()
        .iter()
        .filter(|token| **token >= 1_000)
        .count();
    for _ in 0..acked {
        told.plain_acked.push(told.plain_open.remove(0));
    }
    rig.sent.retain(|output| {
        !matches!(
            output,
            headwater_collector::pipeline::custody::Output::PubAck { .. }
        )
    });
    if synced { Ok(()) } else { Err("sync".into()) }
}

/// The world after a crash: the same device comes back until all is told to be committed.
fn finish(mut disk: FakeDisk, store: &MemStore, told: &mut Told, cut: u64) {
    for attempt in 0..10 {
        let started = Rig::start(
            disk.clone(),
            store.clone(),
            common::settings(),
            10_000 * (attempt + 1),
        );
        let mut rig = started.unwrap_or_else(|error| panic!("crash {cut}: {error}"));
        run(&mut rig, told).unwrap_or_else(|error| panic!("crash {cut}: {error}"));
        disk = rig.disk.clone();
        rig.handle(Event::Disconnected {
            conn: CONN,
            client: "dev".into(),
            orderly: false,
        });
        if told.committed == RECORDS && told.plain_open.is_empty() {
            let audit = rig.audit();
            assert!(audit.totals.is_good(), "crash {cut}: {audit:#?}");
            let plain = told.plain_acked.len() as u64;
            let expected = RECORDS * SAMPLES + plain;
            assert_eq!(
                audit.totals.counts.samples, expected,
                "crash {cut}: {audit:#?}"
            );
            assert_eq!(audit.totals.counts.pending, 0, "crash {cut}: {audit:#?}");
            return;
        }
    }
    panic!("crash {cut}: never done: {told:?}");
}

fn operations() -> (u64, u64) {
    let mut rig = Rig::new();
    run(&mut rig, &mut Told::default()).unwrap();
    (rig.disk.operations(), rig.store.operations())
}

#[test]
fn a_power_cut_at_any_operation_of_the_journals_disk_loses_and_doubles_nothing() {
    let (operations, _) = operations();
    assert!(operations > 50, "{operations}");
    for cut in 0..operations {
        let disk = FakeDisk::new();
        disk.crash_after(cut);
        let store = MemStore::new();
        let mut told = Told::default();
        if let Ok(mut rig) = Rig::start(disk.clone(), store.clone(), common::settings(), 0) {
            let _ = run(&mut rig, &mut told);
        }
        store.power_cut();
        finish(disk.power_cut(cut), &store, &mut told, cut);
    }
}

#[test]
fn a_power_cut_at_any_operation_of_the_lakes_store_loses_and_doubles_nothing() {
    let (_, operations) = operations();
    for cut in 0..operations {
        for lands in [false, true] {
            let disk = FakeDisk::new();
            let store = MemStore::new();
            if lands {
                store.crash_after_landing(cut)
            } else {
                store.crash_after(cut)
            }
            let mut told = Told::default();
            if let Ok(mut rig) = Rig::start(disk.clone(), store.clone(), common::settings(), 0) {
                let _ = run(&mut rig, &mut told);
            }
            store.power_cut();
            finish(disk.power_cut(cut), &store, &mut told, cut);
        }
    }
}

#[test]
fn a_failed_sync_at_any_time_loses_and_doubles_nothing() {
    for nth in 0..30 {
        let disk = FakeDisk::new();
        disk.fail_sync(nth);
        let store = MemStore::new();
        let mut told = Told::default();
        if let Ok(mut rig) = Rig::start(disk.clone(), store.clone(), common::settings(), 0) {
            let _ = run(&mut rig, &mut told);
        }
        finish(disk.process_killed(), &store, &mut told, nth);
    }
}
