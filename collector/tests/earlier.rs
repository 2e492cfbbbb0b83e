//! A lost journal, an old copy of it, a lake that was late: what the lake has and another sink may lack is
//! named for that sink under the journal's new name.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of a test: a failure is a failed test"
)]

mod common;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use common::{Rig, bundle, device, flush_all, hello, listed, rot_record, settings};
use headwater_collector::pipeline::custody::{Event, Settings, SinkSpec};
use headwater_collector::pipeline::envelope::RecordKind;
use headwater_lake::{MemStore, scan};
use headwater_proto::ids::{Epoch, Lane, SeqRange, Stream};
use headwater_spool::FakeDisk;

const COPY: &str = "copy";

fn with_copy(required: bool) -> Settings {
    let mut settings = settings();
    settings.sinks.push(SinkSpec {
        name: COPY.into(),
        required,
    });
    settings
}

fn stream() -> Stream {
    Stream {
        device: device(),
        lane: Lane::Normal,
        epoch: Epoch::new(1),
    }
}

fn greet(rig: &mut Rig, oldest: u64) {
    rig.connect("dev");
    rig.up(hello(&[listed(1, oldest, 1_000)]), 0);
    assert!(rig.sync());
}

/// A device sends records `first..next`, and the lake has them.
fn brings(rig: &mut Rig, first: u64, next: u64) {
    greet(rig, first);
    rig.up(bundle(1, first, next), 1);
    assert!(rig.sync());
    flush_all(rig);
}

/// The copy says that it has all that is durable, which is the numbers in `has`, and the journal notes it.
fn copy_has(rig: &mut Rig, has: SeqRange) {
    let through = rig.custody.log().durable();
    rig.handle(Event::Committed {
        sink: COPY.into(),
        through,
        streams: vec![(stream(), vec![has])],
        refused: Vec::new(),
        damaged: 0,
    });
    rig.ms += 2_000;
    rig.handle(Event::Tick);
    assert!(rig.sync());
}

/// The numbers of stream 1 that the lake names as lacking in it, and how often.
fn lacks(rig: &Rig) -> BTreeMap<u64, u64> {
    let mut numbers = BTreeMap::new();
    scan::gaps(&rig.store, |gap| {
        if gap.stage == "sink" && gap.reason == "journal_lost" && gap.epoch == 1 {
            let (first, last) = gap.seqs.unwrap();
            for seq in first..=last {
                *numbers.entry(seq.unsigned_abs()).or_default() += 1;
            }
        }
    })
    .unwrap();
    let audit = rig.audit();
    assert!(audit.totals.is_good(), "{:?}", audit.totals);
    numbers
}

/// That each number of `range` is named once, and no other from `0..until`.
fn expect(rig: &Rig, range: std::ops::Range<u64>, until: u64) {
    let lacks = lacks(rig);
    for seq in 0..until {
        let times = u64::from(range.contains(&seq));
        let found = lacks.get(&seq).copied().unwrap_or(0);
        assert_eq!(found, times, "number {seq} of {lacks:?}");
    }
}

/// A collector beside the same lake, on `disk`.
fn on(rig: &Rig, disk: FakeDisk, settings: Settings) -> Rig {
    let (store, done, ms) = (rig.store.clone(), rig.done.clone(), rig.ms + 1_000);
    let mut rig = Rig::start_with(disk, store, done, settings, ms).unwrap();
    assert!(rig.sync());
    rig
}

/// A journal of which the copy has records `0..20`, and the lake `0..60` in files of their own.
fn half_copied(required: bool) -> Rig {
    let mut rig = Rig::start(FakeDisk::new(), MemStore::new(), with_copy(required), 0).unwrap();
    brings(&mut rig, 0, 20);
    copy_has(&mut rig, SeqRange::new(0, 20));
    brings(&mut rig, 20, 40);
    brings(&mut rig, 40, 60);
    rig
}

#[test]
fn after_a_lost_journal_what_a_sink_may_lack_is_named_once() {
    for required in [false, true] {
        let rig = half_copied(required);
        let mut rig = on(&rig, FakeDisk::new(), with_copy(required));
        // Before anybody is welcomed the names are in the journal.
        assert!(rig.custody.counters().sink_lacks_total >= 40);
        flush_all(&mut rig);
        expect(&rig, 20..60, 60);
        // The lake has the names: the next start finds nothing, on this disk and on a new one.
        let mut again = on(&rig, rig.disk.power_cut(1), with_copy(required));
        assert_eq!(again.custody.counters().sink_lacks_total, 0);
        flush_all(&mut again);
        expect(&again, 20..60, 60);
        let mut anew = on(&again, FakeDisk::new(), with_copy(required));
        flush_all(&mut anew);
        expect(&anew, 20..60, 60);
    }
}

#[test]
fn names_that_are_lost_with_the_next_journal_are_named_again() {
    let rig = half_copied(true);
    let lost = on(&rig, FakeDisk::new(), with_copy(true));
    let again = on(&lost, lost.disk.power_cut(1), with_copy(true));
    // Its records name them already.
    assert_eq!(again.custody.counters().sink_lacks_total, 0);
    let mut anew = on(&again, FakeDisk::new(), with_copy(true));
    assert!(anew.custody.counters().sink_lacks_total >= 40);
    flush_all(&mut anew);
    expect(&anew, 20..60, 60);
}

#[test]
fn names_that_rot_before_the_lake_has_them_are_named_again() {
    for is_same_disk in [false, true] {
        let rig = half_copied(true);
        let mut rig = on(&rig, FakeDisk::new(), with_copy(true));
        rot_record(&rig.disk, &names(&rig));
        // The lake passes what cannot be read, and commits.
        flush_all(&mut rig);
        brings(&mut rig, 60, 70);
        assert_eq!(
            lacks(&rig)
                .keys()
                .filter(|seq| (20..60).contains(*seq))
                .count(),
            0
        );
        let disk = if is_same_disk {
            rig.disk.process_killed()
        } else {
            FakeDisk::new()
        };
        let mut anew = on(&rig, disk, with_copy(true));
        flush_all(&mut anew);
        let lacks = lacks(&anew);
        for seq in 20..60 {
            assert!(
                lacks.contains_key(&seq),
                "{seq} of {lacks:?}, {is_same_disk}"
            );
        }
    }
}

/// The journal's record of what a sink of an earlier one lacks.
fn names(rig: &Rig) -> Vec<u8> {
    let mut found = Vec::new();
    let read = |_: u64, kind: u8, payload: &[u8]| {
        if kind == RecordKind::Lacks.to_u8() {
            found = payload.to_vec();
        }
        ControlFlow::Continue(())
    };
    rig.custody.reader().read(0, 1 << 20, read).unwrap();
    assert!(!found.is_empty());
    found
}

#[test]
fn a_sink_that_was_taken_out_before_the_journal_was_lost_is_named_too() {
    let rig = half_copied(false);
    let mut rig = on(&rig, FakeDisk::new(), settings());
    flush_all(&mut rig);
    expect(&rig, 20..60, 60);
}

#[test]
fn a_sink_that_left_and_was_named_is_owed_nothing_of_what_comes_later() {
    let rig = half_copied(false);
    let mut rig = on(&rig, rig.disk.power_cut(1), settings());
    flush_all(&mut rig);
    assert_eq!(rig.custody.cursor(COPY), None);
    brings(&mut rig, 60, 80);
    let mut rig = on(&rig, rig.disk.power_cut(2), settings());
    brings(&mut rig, 80, 90);
    let mut rig = on(&rig, FakeDisk::new(), settings());
    flush_all(&mut rig);
    // That it lacks 20..60 was named when it left.
    expect(&rig, 0..0, 90);
}

#[test]
fn a_sink_that_never_answered_may_lack_all() {
    let mut rig = Rig::start(FakeDisk::new(), MemStore::new(), with_copy(true), 0).unwrap();
    brings(&mut rig, 0, 30);
    let mut rig = on(&rig, FakeDisk::new(), with_copy(true));
    flush_all(&mut rig);
    expect(&rig, 0..30, 30);
}

#[test]
fn an_old_copy_names_what_the_lost_time_brought_to_the_lake_alone() {
    let mut rig = Rig::start(FakeDisk::new(), MemStore::new(), with_copy(true), 0).unwrap();
    brings(&mut rig, 0, 20);
    let old = rig.disk.process_killed();
    copy_has(&mut rig, SeqRange::new(0, 20));
    brings(&mut rig, 20, 40);
    copy_has(&mut rig, SeqRange::new(20, 40));
    brings(&mut rig, 40, 60);
    brings(&mut rig, 60, 70);
    let name = rig.custody.journal();
    let mut rig = on(&rig, old, with_copy(true));
    assert_ne!(rig.custody.journal(), name);
    flush_all(&mut rig);
    expect(&rig, 40..70, 70);
}

#[test]
fn what_is_committed_in_part_moves_no_sinks_place() {
    let rig = half_copied(true);
    let lost = on(&rig, FakeDisk::new(), with_copy(true));
    for operations in 0..60 {
        let store = rig.store.fork();
        let done = lost.done.clone();
        let mut next = Rig::start_with(
            FakeDisk::new(),
            store.clone(),
            done,
            with_copy(true),
            lost.ms + 9_000,
        )
        .unwrap();
        assert!(next.sync());
        // Rows that are committed before the names are.
        greet(&mut next, 60);
        next.up(bundle(1, 60, 70), 1);
        assert!(next.sync());
        // The lake's disk fails while the names are committed, and the journal goes with it.
        store.crash_after(operations);
        let _ = next.flush();
        store.restart();
        let mut last = on(&next, FakeDisk::new(), with_copy(true));
        flush_all(&mut last);
        let lacks = lacks(&last);
        for seq in 20..60 {
            assert!(
                lacks.contains_key(&seq),
                "{seq} after {operations} operations"
            );
        }
    }
}
