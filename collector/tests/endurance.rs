//! What custody endures: failures in the middle of a group, hostile senders, long outages.

mod common;

use common::{Rig, SAMPLES, bundle, bundle_of, device, hello, listed};
use headwater_collector::pipeline::custody::{Event, Mode};
use headwater_collector::pipeline::ledger::MAX_STREAMS_PER_DEVICE;
use headwater_collector::sink::lake::NAME;
use headwater_lake::MemStore;
use headwater_proto::frame::Kind;
use headwater_proto::ids::{DeviceId, Epoch, Lane, SeqRange};
use headwater_proto::message::{self, Gap, GapReason, RejectReason, Stage};
use headwater_proto::time::UnixMicros;
use headwater_spool::FakeDisk;

fn greet(rig: &mut Rig) {
    rig.connect("dev");
    rig.up(hello(&[listed(1, 0, 10_000)]), 0);
}

/// A device that said Hello and was answered.
fn greeted() -> Rig {
    let mut rig = Rig::new();
    greet(&mut rig);
    assert!(rig.sync());
    rig.sent.clear();
    rig
}

#[test]
fn what_a_new_segment_made_durable_stands_when_the_rest_of_its_group_fails() {
    // Each group is larger than a segment, so that it begins at least one.
    for nth in 0..6 {
        let mut rig = greeted();
        rig.disk.fail_sync(nth);
        let mut failures = 0;
        for first in (0..1_000).step_by(250) {
            rig.up(bundle(1, first, first + 250), 1);
            rig.plain("plain/m1/temp", "20.5", 7, false, 2);
            while !rig.sync() {
                // The process goes on, and the device comes again.
                failures += 1;
                greet(&mut rig);
                rig.up(bundle(1, 0, first + 250), 3);
            }
        }
        greet(&mut rig);
        rig.up(bundle(1, 0, 1_000), 4);
        assert!(rig.sync());
        assert_eq!(rig.mark(1).unwrap().received, 1_000);
        rig.flush().unwrap();
        let audit = rig.audit();
        assert!(audit.totals.is_good(), "sync {nth}: {:?}", audit.totals);
        let plain = 4;
        let samples = audit.totals.counts.samples;
        assert!(
            samples >= 1_000 * SAMPLES && samples <= 1_000 * SAMPLES + plain,
            "sync {nth}, {failures} failures: {samples}"
        );
    }
}

fn gap_of(origin: &str, epoch: u64) -> (Kind, Vec<u8>) {
    let gap: Gap = Gap {
        origin: DeviceId::new(origin).expect("a device id"),
        lane: Lane::Normal,
        epoch: Epoch::new(epoch),
        seqs: Some(SeqRange::new(0, 1 << 40)),
        samples: None,
        t_first: None,
        t_last: None,
        reason: GapReason::Evicted,
        stage: Stage::Agent,
        part: None,
        at: UnixMicros(0),
    };
    (Kind::Gap, message::to_vec(&gap))
}

#[test]
fn a_gap_in_the_name_of_another_device_is_refused_and_opens_no_stream() {
    let mut rig = greeted();
    let gaps: Vec<_> = (0..500).map(|epoch| gap_of("other", epoch)).collect();
    rig.up(bundle_of(&device(), 1, 0, &gaps), 1);
    assert!(rig.sync());
    assert_eq!(rig.custody.ledger().len(), 1);
    let rejects = rig.rejects();
    assert_eq!(rejects.len(), 500);
    assert!(
        rejects
            .iter()
            .all(|reject| reject.reason == RejectReason::Forbidden)
    );
}

#[test]
fn one_device_cannot_open_streams_without_bound() {
    let mut settings = common::settings();
    settings.log.segment_bytes = 4 << 20;
    settings.log.quota_bytes = 64 << 20;
    let mut rig = Rig::start(FakeDisk::new(), MemStore::new(), settings, 0).unwrap();
    greet(&mut rig);
    let most = MAX_STREAMS_PER_DEVICE as u64;
    for first in (0..most + 1_000).step_by(1_000) {
        let gaps: Vec<_> = (first..first + 1_000)
            .map(|epoch| gap_of("dev", 10 + epoch))
            .collect();
        // Streams that nobody knows are looked up first.
        for token in 1..3 {
            rig.up(bundle_of(&device(), 1, first, &gaps), token);
        }
        assert!(rig.sync());
    }
    assert_eq!(rig.custody.ledger().len(), MAX_STREAMS_PER_DEVICE);
    let rejects = rig.rejects();
    assert!(!rejects.is_empty());
    assert!(rejects.iter().all(|reject| !reject.reason.is_final()));
}

#[test]
fn a_journal_that_filled_up_during_an_outage_of_the_lake_empties_after_it() {
    let mut settings = common::settings();
    settings.log.segment_bytes = 16 << 10;
    settings.log.quota_bytes = 128 << 10;
    settings.log.reserve_bytes = 16 << 10;
    let mut rig = Rig::start(FakeDisk::new(), MemStore::new(), settings.clone(), 0).unwrap();
    greet(&mut rig);
    assert!(rig.sync());
    rig.up(bundle(1, 0, 5), 1);
    assert!(rig.sync());
    // The lake goes away when the plan is in the journal and nothing is published yet.
    let mut after = 0;
    while rig.custody.plan(NAME).is_none() {
        rig.store.restart();
        rig.store.crash_after(after);
        assert!(rig.flush().is_err());
        after += 1;
    }
    let plan = rig.custody.plan(NAME).unwrap().bytes.clone();
    let (mut seq, mut sent) = (5, 0);
    while sent < 300 {
        rig.ms += 100;
        sent += 1;
        rig.up(bundle(1, seq, seq + 5), 1);
        seq += 5;
        // The sink's plan comes again and again, and so do gaps that say they make room.
        let _ = rig.custody.append_plan(NAME, &plan);
        rig.handle(Event::Tick);
        assert!(rig.sync());
        if rig.custody.is_stalled() {
            // Its sender is told nothing more, and comes again with what was not acknowledged.
            greet(&mut rig);
            seq = rig.mark(1).unwrap().received;
            let gap = gap_of("dev", 100 + sent);
            for token in 2..4 {
                rig.up(
                    bundle_of(&device(), 1, seq, std::slice::from_ref(&gap)),
                    token,
                );
            }
            rig.sync();
        }
    }
    rig.store.restart();
    let mut rig = Rig::start(
        rig.disk.process_killed(),
        rig.store.clone(),
        settings,
        rig.ms,
    )
    .unwrap();
    for _ in 0..20 {
        rig.ms += 3_000;
        rig.flush().unwrap();
        rig.handle(Event::Tick);
        assert!(rig.sync());
    }
    assert!(rig.custody.counters().segments_released_total > 5);
    greet(&mut rig);
    assert!(rig.sync());
    let before = rig.mark(1).unwrap().received;
    rig.up(bundle(1, before, before + 5), 3);
    assert!(rig.sync());
    assert_eq!(rig.mark(1).unwrap().received, before + 5);
}

#[test]
fn what_the_journal_took_stays_committed_over_a_restart_where_custody_ends_there() {
    let mut settings = common::settings();
    settings.mode = Mode::Journal;
    let mut rig = Rig::start(FakeDisk::new(), MemStore::new(), settings.clone(), 0).unwrap();
    greet(&mut rig);
    rig.up(bundle(1, 0, 5), 1);
    assert!(rig.sync());
    assert_eq!(rig.mark(1).unwrap().committed, 5);
    let disk = rig.disk.process_killed();
    let mut rig = Rig::start(disk, rig.store.clone(), settings, 10).unwrap();
    greet(&mut rig);
    assert!(rig.sync());
    let mark = rig.mark(1).unwrap();
    assert_eq!((mark.received, mark.committed), (5, 5));
}
