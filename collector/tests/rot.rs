//! What becomes of a journal whose bytes rot, or whose disk shows an earlier time.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of a test: a failure is a failed test"
)]

mod common;

use common::{
    CONN, HEADER_BYTES, Rig, SAMPLES, batch, bundle, bundle_of, device, flush_all, hello, listed,
    rot_record, rot_snapshots, segments, settings,
};
use headwater_collector::done::DoneInMemory;
use headwater_collector::pipeline::custody::{Custody, Event, Mode, Past, Settings};
use headwater_lake::MemStore;
use headwater_proto::frame::Kind;
use headwater_proto::message::{RejectReason, SchemaRequest};
use headwater_spool::{Disk, FakeDisk, Log};

fn greet(rig: &mut Rig, next: u64) {
    rig.connect("dev");
    rig.up(hello(&[listed(1, 0, next)]), 0);
    assert!(rig.sync());
}

fn expect_whole(rig: &Rig, samples: u64) {
    let audit = rig.audit();
    assert!(audit.totals.is_good(), "{audit:#?}");
    assert_eq!(audit.totals.counts.samples, samples, "{audit:#?}");
    assert_eq!(audit.totals.counts.pending, 0, "{audit:#?}");
}

/// A journal of several segments, the first of which are gone, with records that the lake has not.
fn long_journal(records: u64) -> Rig {
    let mut rig = Rig::new();
    greet(&mut rig, records);
    for seq in 0..records {
        rig.up(bundle(1, seq, seq + 1), 1);
        rig.plain(
            "plain/m1/temp",
            "20.5",
            u16::try_from(seq).unwrap() + 1,
            false,
            2,
        );
        assert!(rig.sync());
        if seq.is_multiple_of(7) {
            rig.flush().unwrap();
            rig.handle(Event::Tick);
            assert!(rig.sync());
        }
    }
    rig.sent.clear();
    rig
}

#[test]
fn a_journal_whose_snapshots_rot_keeps_its_name_and_takes_nothing_twice() {
    let records = 200;
    let rig = long_journal(records);
    assert!(rig.custody.counters().segments_released_total > 0);
    let journal = rig.custody.journal();
    let disk = rig.disk.power_cut(1);
    rot_snapshots(&disk);
    let mut rig = Rig::start(disk, rig.store.clone(), settings(), 10_000).unwrap();
    assert_eq!((rig.past, rig.custody.journal()), (Past::Records, journal));
    // Before anybody says again what the numbers of its schemas mean.
    flush_all(&mut rig);
    greet(&mut rig, records + 5);
    assert_eq!(rig.mark(1).unwrap().received, records);
    // Without its schema: the journal still knows what the numbers of its batches mean.
    for seq in 0..records {
        rig.up(
            bundle_of(&device(), 1, seq, &[(Kind::Batch, batch(seq))]),
            1,
        );
    }
    rig.up(bundle(1, records, records + 5), 1);
    rig.plain("plain/m1/temp", "20.5", 1_000, false, 2);
    assert!(rig.sync());
    flush_all(&mut rig);
    expect_whole(&rig, (records + 5) * SAMPLES + records + 1);
}

#[test]
fn a_journal_whose_newest_snapshot_rots_takes_nothing_twice() {
    let records = 200;
    let rig = long_journal(records);
    for newest in 1..4 {
        let disk = rig.disk.power_cut(1);
        for name in segments(&disk).iter().rev().take(newest) {
            disk.rot(name, HEADER_BYTES + 3, 1);
        }
        let store = rig.store.fork();
        let mut rig = Rig::start(disk, store, settings(), 10_000).unwrap();
        greet(&mut rig, records);
        for seq in 0..records {
            rig.up(bundle(1, seq, seq + 1), 1);
        }
        assert!(rig.sync());
        flush_all(&mut rig);
        expect_whole(&rig, records * SAMPLES + records);
        assert_eq!(rig.mark(1).unwrap().committed, records);
    }
}

fn open_error(disk: FakeDisk) -> String {
    let done = Box::new(DoneInMemory::default());
    match Custody::open(disk, settings(), done, &mut || 7) {
        Ok(_) => panic!("it opened"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_snapshot_from_before_the_journal_began_anew_is_not_believed() {
    let mut rig = Rig::new();
    greet(&mut rig, 40);
    rig.up(bundle(1, 0, 10), 1);
    assert!(rig.sync());
    let old = rig.disk.process_killed();
    let (first, name) = (segments(&old), rig.custody.journal());
    rig.up(bundle(1, 10, 12), 1);
    assert!(rig.sync());
    flush_all(&mut rig);
    // An old copy goes on under a new name, and the snapshot that tells it rots.
    let mut rig = Rig::start(old, rig.store.clone(), settings(), 20_000).unwrap();
    let journal = rig.custody.journal();
    assert_ne!(journal, name);
    greet(&mut rig, 40);
    rig.up(bundle(1, 10, 30), 1);
    assert!(rig.sync());
    flush_all(&mut rig);
    let mut with_both = 0;
    for seed in 0..20 {
        // The segment of the old name was given back; a power cut may show it once more.
        let disk = rig.disk.power_cut(seed);
        for name in segments(&disk) {
            if first.contains(&name) {
                with_both += 1;
            } else {
                assert!(disk.rot(&name, HEADER_BYTES + 3, 1));
            }
        }
        let mut rig = Rig::start(disk, rig.store.fork(), settings(), 40_000).unwrap();
        assert_eq!((rig.past, rig.custody.journal()), (Past::Records, journal));
        greet(&mut rig, 40);
        rig.up(bundle(1, 0, 40), 1);
        assert!(rig.sync());
        flush_all(&mut rig);
        expect_whole(&rig, 40 * SAMPLES);
    }
    assert!(with_both > 0, "the old segment was never there");
}

#[test]
fn a_journal_of_another_version_is_left_alone_and_says_what_to_do() {
    // A snapshot or a record of an earlier or a later version, or of a kind to come.
    for (version, kind, payload) in [(3, 1, 2), (1, 1, 2), (2, 1, 3), (2, 1, 1), (2, 200, 2)] {
        let disk = long_journal(1).disk.process_killed();
        let (mut log, _) = Log::open(disk.clone(), settings().log).unwrap();
        let (_, mut snapshot) = log.newest_snapshot().unwrap().unwrap();
        snapshot[0] = version;
        log.append(kind, &[payload], &|out| out.extend_from_slice(&snapshot))
            .unwrap();
        log.sync().unwrap();
        drop(log);
        let before = disk.list().unwrap();
        let error = open_error(disk.clone());
        assert!(error.contains("another version"), "{error}");
        assert!(error.contains("move the journal away"), "{error}");
        assert_eq!(disk.list().unwrap(), before);
    }
}

#[test]
fn a_record_that_rots_before_the_lake_has_it_is_asked_for_again() {
    let mut rig = Rig::new();
    greet(&mut rig, 6);
    rig.up(bundle(1, 0, 6), 1);
    assert!(rig.sync());
    rot_record(&rig.disk, &batch(3));
    flush_all(&mut rig);
    let rejects = rig.rejects();
    assert_eq!(rejects.len(), 1);
    assert_eq!(rejects[0].reason, RejectReason::NotInHello);
    rig.up(hello(&[listed(1, 0, 6)]), 2);
    assert!(rig.sync());
    let mark = rig.mark(1).unwrap();
    assert_eq!((mark.received, mark.committed), (3, 3));
    rig.up(bundle(1, 3, 4), 3);
    assert!(rig.sync());
    flush_all(&mut rig);
    assert_eq!(rig.mark(1).unwrap().committed, 6);
    expect_whole(&rig, 6 * SAMPLES);
}

#[test]
fn a_record_that_rots_where_custody_ends_at_the_journal_is_named() {
    let journal = Settings {
        mode: Mode::Journal,
        ..settings()
    };
    let mut rig = Rig::start(FakeDisk::new(), MemStore::new(), journal, 0).unwrap();
    greet(&mut rig, 6);
    rig.up(bundle(1, 0, 6), 1);
    assert!(rig.sync());
    assert_eq!(rig.mark(1).unwrap().committed, 6);
    rot_record(&rig.disk, &batch(3));
    flush_all(&mut rig);
    flush_all(&mut rig);
    expect_whole(&rig, 5 * SAMPLES);
    assert_eq!(rig.audit().totals.counts.explained, 1);
}

#[test]
fn a_plain_record_that_rots_after_its_puback_is_named() {
    for last in [false, true] {
        let mut rig = Rig::new();
        rig.connect("meter");
        let publishes = if last { 2 } else { 3 };
        for id in 1..=publishes {
            rig.plain(
                "plain/m1/temp",
                &format!("{id}.125"),
                id,
                false,
                u64::from(id),
            );
        }
        assert!(rig.sync());
        rot_record(&rig.disk, b"2.125");
        flush_all(&mut rig);
        flush_all(&mut rig);
        expect_whole(&rig, u64::from(publishes) - 1);
        // The last one has no successor that shows the hole.
        assert_eq!(rig.audit().totals.counts.explained, 1, "last: {last}");
    }
}

#[test]
fn damage_that_was_passed_before_a_crash_is_not_forgotten() {
    for new_segment in [false, true] {
        let mut rig = Rig::new();
        greet(&mut rig, 300);
        rig.up(bundle(1, 0, 6), 1);
        assert!(rig.sync());
        rot_record(&rig.disk, &batch(3));
        let mut next = 6;
        if new_segment {
            // The newest snapshot then says that the record was received.
            while rig.custody.log().segments().len() < 3 {
                rig.up(bundle(1, next, next + 1), 1);
                assert!(rig.sync());
                next += 1;
            }
        }
        rig.flush().unwrap();
        let disk = rig.disk.process_killed();
        let mut rig = Rig::start(disk, rig.store.clone(), settings(), 10_000).unwrap();
        greet(&mut rig, next);
        rig.up(bundle(1, next, next + 1), 1);
        assert!(rig.sync());
        flush_all(&mut rig);
        rig.up(hello(&[listed(1, 0, next + 1)]), 2);
        assert!(rig.sync());
        assert_eq!(rig.mark(1).unwrap().received, 3, "{new_segment}");
        rig.up(bundle(1, 3, 4), 3);
        assert!(rig.sync());
        flush_all(&mut rig);
        assert_eq!(rig.mark(1).unwrap().committed, next + 1);
        expect_whole(&rig, (next + 1) * SAMPLES);
    }
}

#[test]
fn what_rots_after_the_lake_has_it_is_not_taken_again() {
    for seed in 0..2 {
        let mut rig = Rig::new();
        greet(&mut rig, 7);
        rig.up(bundle(1, 0, 6), 1);
        rig.plain("plain/m1/temp", "20.5", 7, false, 2);
        assert!(rig.sync());
        flush_all(&mut rig);
        rot_record(&rig.disk, &batch(5));
        rot_record(&rig.disk, b"20.5");
        let disk = if seed == 0 {
            rig.disk.process_killed()
        } else {
            rig.disk.power_cut(seed)
        };
        let mut rig = Rig::start(disk, rig.store.clone(), settings(), 20_000).unwrap();
        greet(&mut rig, 7);
        rig.up(bundle(1, 0, 7), 1);
        rig.plain("plain/m1/temp", "21.5", 8, false, 2);
        assert!(rig.sync());
        flush_all(&mut rig);
        expect_whole(&rig, 7 * SAMPLES + 2);
    }
}

#[test]
fn an_old_copy_of_the_journal_is_noticed_and_nothing_is_taken_twice_or_lost() {
    let mut rig = Rig::new();
    greet(&mut rig, 40);
    rig.up(bundle(1, 0, 10), 1);
    assert!(rig.sync());
    rig.flush().unwrap();
    let old = rig.disk.process_killed();
    let journal = rig.custody.journal();
    rig.up(bundle(1, 10, 30), 1);
    rig.plain("plain/m1/temp", "20.5", 7, false, 2);
    assert!(rig.sync());
    flush_all(&mut rig);
    let mut rig = Rig::start(old, rig.store.clone(), settings(), 20_000).unwrap();
    assert_ne!(rig.custody.journal(), journal);
    greet(&mut rig, 40);
    assert_eq!(rig.mark(1).unwrap().committed, 30);
    rig.up(bundle(1, 25, 40), 1);
    rig.plain("plain/m1/temp", "21.5", 8, false, 2);
    assert!(rig.sync());
    flush_all(&mut rig);
    expect_whole(&rig, 40 * SAMPLES + 2);
    // The name stays from now on.
    let journal = rig.custody.journal();
    let disk = rig.disk.power_cut(3);
    let mut rig = Rig::start(disk, rig.store.clone(), settings(), 40_000).unwrap();
    assert_eq!((rig.past, rig.custody.journal()), (Past::Snapshot, journal));
    greet(&mut rig, 40);
    assert_eq!(rig.mark(1).unwrap().committed, 40);
}

#[test]
fn an_old_copy_of_the_journal_from_before_another_ones_time_takes_nothing_twice() {
    let mut rig = Rig::new();
    greet(&mut rig, 40);
    rig.up(bundle(1, 0, 10), 1);
    assert!(rig.sync());
    rig.flush().unwrap();
    let old = rig.disk.process_killed();
    let journal = rig.custody.journal();
    let store = rig.store.clone();
    let mut rig = Rig::start(FakeDisk::new(), store, settings(), 10_000).unwrap();
    greet(&mut rig, 40);
    rig.up(bundle(1, 10, 30), 1);
    assert!(rig.sync());
    flush_all(&mut rig);
    // The lake is no further under the old name than the old copy is.
    let mut rig = Rig::start(old, rig.store.clone(), settings(), 30_000).unwrap();
    assert_eq!(rig.custody.journal(), journal);
    greet(&mut rig, 40);
    assert_eq!(rig.mark(1).unwrap().committed, 30);
    rig.up(bundle(1, 0, 40), 1);
    assert!(rig.sync());
    flush_all(&mut rig);
    expect_whole(&rig, 40 * SAMPLES);
}

#[test]
fn a_journal_that_cannot_be_read_is_moved_away_as_it_says_and_nothing_is_taken_twice() {
    // The lake dies at any of its operations, so that a flush may be cut off anywhere.
    for cut in 0..60 {
        let mut rig = Rig::new();
        greet(&mut rig, 20);
        rig.up(bundle(1, 0, 10), 1);
        assert!(rig.sync());
        rig.flush().unwrap();
        rig.up(bundle(1, 10, 15), 1);
        assert!(rig.sync());
        rig.store.crash_after(cut);
        let _ = rig.flush();
        rig.store.power_cut();
        let disk = rig.disk.process_killed();
        // The folder can be listed; the first file cannot be opened.
        disk.fail_operation(1);
        let error = open_error(disk);
        assert!(error.contains("move the journal away"), "{error}");
        let store = rig.store.clone();
        let mut rig = Rig::start(FakeDisk::new(), store, settings(), 10_000).unwrap();
        greet(&mut rig, 20);
        let held = rig.mark(1).unwrap().received;
        rig.up(bundle(1, held, 20), 1);
        assert!(rig.sync());
        flush_all(&mut rig);
        assert_eq!(rig.mark(1).unwrap().committed, 20);
        expect_whole(&rig, 20 * SAMPLES);
    }
}

#[test]
fn a_batch_that_is_half_in_the_lake_is_named_when_the_journal_is_lost() {
    let mut halves = 0;
    for cut in 0..60 {
        let mut rig = Rig::new();
        rig.ms = 1;
        greet(&mut rig, 2);
        // Its times lie too far ahead, save the first: rows in two tables.
        rig.up(bundle_of(&device(), 1, 0, &common::split_batch()), 1);
        assert!(rig.sync());
        rig.store.crash_after(cut);
        let _ = rig.flush();
        rig.store.power_cut();
        let marks = headwater_lake::audit::marks(&rig.store).unwrap();
        halves += marks.iter().map(|mark| mark.partial.len()).sum::<usize>();
        let store = rig.store.clone();
        let mut rig = Rig::start(FakeDisk::new(), store, settings(), 10_000).unwrap();
        greet(&mut rig, 1);
        rig.up(bundle_of(&device(), 1, 0, &common::split_batch()), 1);
        let end = common::epoch_end(1, 2);
        rig.up(bundle_of(&device(), 1, 1, &[(Kind::EpochEnd, end)]), 2);
        assert!(rig.sync());
        flush_all(&mut rig);
        flush_all(&mut rig);
        let audit = rig.audit();
        assert!(audit.totals.is_good(), "cut {cut}: {audit:#?}");
        assert_eq!(rig.mark(1).unwrap().committed, 2, "cut {cut}");
    }
    assert!(halves > 0, "no cut left half a batch");
}

#[test]
fn an_unknown_schema_is_asked_for_once_and_again_if_no_answer_comes() {
    let mut rig = Rig::new();
    greet(&mut rig, 100);
    let frames: Vec<_> = (0..50).map(|seq| (Kind::Batch, batch(seq))).collect();
    rig.up(bundle_of(&device(), 1, 0, &frames), 1);
    rig.up(bundle_of(&device(), 1, 0, &frames), 2);
    assert!(rig.sync());
    assert_eq!(rig.messages::<SchemaRequest>().len(), 1);
    rig.ms += 6_000;
    rig.up(bundle_of(&device(), 1, 0, &frames), 3);
    assert!(rig.sync());
    assert_eq!(rig.messages::<SchemaRequest>().len(), 2);
    // Another connection may have a sender that was never asked.
    rig.handle(Event::Disconnected {
        conn: CONN,
        client: "dev".into(),
        orderly: false,
    });
    greet(&mut rig, 100);
    rig.up(bundle_of(&device(), 1, 0, &frames), 4);
    assert!(rig.sync());
    assert_eq!(rig.messages::<SchemaRequest>().len(), 3);
}
