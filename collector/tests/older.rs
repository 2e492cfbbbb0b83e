//! A lake that was brought back older than the journal knows it: what the journal still holds comes again,
//! the rest is named.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of a test: a failure is a failed test"
)]

mod common;

use common::{Rig, SAMPLES, bundle, flush_all, hello, listed, settings};
use headwater_collector::pipeline::custody::Event;
use headwater_collector::sink::lake::{NAME, Staged};
use headwater_lake::{MemStore, Store, scan};
use headwater_proto::ids::SeqRange;

fn brings(rig: &mut Rig, first: u64, next: u64) {
    rig.connect("dev");
    rig.up(hello(&[listed(1, first, 100_000)]), 0);
    rig.up(bundle(1, first, next), 1);
    assert!(rig.sync());
}

/// A collector on the same disk, whose lake is `store`.
fn beside(rig: &Rig, store: &MemStore) -> Rig {
    let (disk, done, ms) = (rig.disk.power_cut(1), rig.done.clone(), rig.ms + 1_000);
    let mut rig = Rig::start_with(disk, store.clone(), done, settings(), ms).unwrap();
    assert!(rig.sync());
    rig
}

/// Records `0..20` are in the backup, and as many as `20..next` came after it.
fn restored(next: u64) -> (Rig, MemStore) {
    let mut rig = Rig::new();
    brings(&mut rig, 0, 20);
    flush_all(&mut rig);
    let backup = rig.store.fork();
    for first in (20..next).step_by(20) {
        brings(&mut rig, first, first + 20);
        flush_all(&mut rig);
    }
    (rig, backup)
}

/// Numbers of the stream that are named as lost by the collector, each once.
fn lost(rig: &Rig) -> Vec<u64> {
    let mut numbers = Vec::new();
    scan::gaps(&rig.store, |gap| {
        if gap.reason == "disk_error" {
            let (first, last) = gap.seqs.unwrap();
            numbers.extend(first.unsigned_abs()..=last.unsigned_abs());
        }
    })
    .unwrap();
    numbers.sort_unstable();
    numbers
}

/// Records `0..next` are there once, or named once if they are in `gone`.
fn expect(rig: &Rig, next: u64, gone: SeqRange) {
    assert_eq!(lost(rig), (gone.first..gone.next).collect::<Vec<_>>());
    let totals = rig.audit().totals;
    assert!(totals.is_good(), "{totals:?}");
    assert_eq!(totals.counts.samples, (next - gone.len()) * SAMPLES);
    assert_eq!(totals.counts.explained, gone.len());
    assert_eq!(totals.counts.filled, 0);
    assert_eq!(headwater_lake::guard::guard(&rig.store).unwrap().faults, []);
}

const NONE: SeqRange = SeqRange { first: 0, next: 0 };

#[test]
fn what_the_journal_still_holds_comes_again_once() {
    let (rig, backup) = restored(40);
    let mut rig = beside(&rig, &backup);
    assert_eq!(rig.custody.counters().lake_went_back_total, 1);
    // Nobody is asked for anything that was committed.
    brings(&mut rig, 40, 50);
    let committed = rig.mark(1).unwrap();
    assert_eq!(committed.received, 50, "{committed:?}");
    flush_all(&mut rig);
    expect(&rig, 50, NONE);
    // It is noticed once.
    let store = rig.store.clone();
    let mut rig = beside(&rig, &store);
    assert_eq!(rig.custody.counters().lake_went_back_total, 0);
    brings(&mut rig, 50, 60);
    flush_all(&mut rig);
    expect(&rig, 60, NONE);
}

#[test]
fn what_the_journal_let_go_of_is_named() {
    let (rig, backup) = restored(200);
    let oldest = rig.custody.log().segments().next().unwrap().first;
    assert!(oldest > 40, "segments were released: {oldest}");
    for crashes in 0..3 {
        let mut rig = beside(&rig, &backup.fork());
        for _ in 0..crashes {
            // Before anything is flushed: it is found again.
            let store = rig.store.clone();
            rig = beside(&rig, &store);
            assert_eq!(rig.custody.counters().lake_went_back_total, 1);
        }
        let counted = rig.custody.counters().sink_lacks_total;
        flush_all(&mut rig);
        brings(&mut rig, 200, 210);
        flush_all(&mut rig);
        let gone = lost(&rig);
        let gone = SeqRange::new(gone[0], gone[gone.len() - 1] + 1);
        assert_eq!((gone.first, gone.len() > 20), (20, true), "{gone:?}");
        assert_eq!(counted, if crashes == 0 { gone.len() } else { counted });
        expect(&rig, 210, gone);
        let store = rig.store.clone();
        let rig = beside(&rig, &store);
        assert_eq!(rig.custody.counters().lake_went_back_total, 0);
    }
}

#[test]
fn a_flush_that_was_planned_when_the_lake_was_changed_is_not_taken_for_all() {
    let (mut rig, backup) = restored(40);
    brings(&mut rig, 40, 60);
    rig.read_all();
    let Staged::Plan(bytes) = rig.sink.stage(rig.now()).unwrap() else {
        panic!("there are rows");
    };
    rig.custody.append_plan(NAME, &bytes).unwrap();
    assert!(rig.sync());
    // The backup was copied over what was there.
    for entry in rig.store.list("_headwater/stage").unwrap() {
        backup
            .stage(&entry.path, &rig.store.get(&entry.path).unwrap())
            .unwrap();
    }
    let mut rig = beside(&rig, &backup);
    assert_eq!(rig.custody.counters().lake_went_back_total, 1);
    flush_all(&mut rig);
    expect(&rig, 60, NONE);
}

/// A flush that ends in the middle of what comes again, after `most` records.
fn flush_a_part(rig: &mut Rig, most: u64) {
    let now = rig.now();
    let mut taken = 0;
    let sink = &mut rig.sink;
    rig.feed
        .read(1 << 16, |item| {
            taken += 1;
            if taken > most {
                return headwater_collector::interpret::Taken::Not;
            }
            sink.take(item, now).unwrap();
            headwater_collector::interpret::Taken::More
        })
        .unwrap();
    let Staged::Plan(bytes) = rig.sink.stage(now).unwrap() else {
        panic!("there are rows");
    };
    rig.custody.append_plan(NAME, &bytes).unwrap();
    assert!(rig.sync());
    let committed = rig.sink.publish().unwrap().unwrap();
    rig.handle(Event::Committed {
        sink: NAME.into(),
        through: committed.through,
        streams: committed.streams,
        refused: Vec::new(),
        damaged: 0,
    });
    // The lake says of no number that it was handed it before it was.
    let totals = rig.audit().totals;
    assert!(totals.is_good(), "{totals:?}");
    assert!(totals.counts.samples < 60 * SAMPLES, "{totals:?}");
}

#[test]
fn a_crash_after_a_part_came_again_goes_on_from_there() {
    let (rig, backup) = restored(60);
    let mut rig = beside(&rig, &backup);
    flush_a_part(&mut rig, 12);
    for _ in 0..2 {
        let store = rig.store.clone();
        rig = beside(&rig, &store);
        assert_eq!(rig.custody.counters().lake_went_back_total, 0);
        flush_a_part(&mut rig, 6);
    }
    let store = rig.store.clone();
    let mut rig = beside(&rig, &store);
    assert_eq!(rig.custody.counters().lake_went_back_total, 0);
    flush_all(&mut rig);
    expect(&rig, 60, NONE);
}
