//! What custody holds of the contents of sources, and tells a device that may have lost its spool.

#![expect(clippy::unwrap_used, reason = "a failure is a failed test")]

mod common;

use common::{Rig, batch, bundle_of, device, greeted, hello, listed, schema_frame};
use headwater_proto::frame::Kind;
use headwater_proto::message::{self, Welcome};
use headwater_proto::portion::{Cursor, Held, Place, Portion};

fn cursor(minor: u64) -> Cursor {
    Cursor {
        major: 0,
        minor,
        tag: 7 + minor,
    }
}

fn portion(from: Option<u64>, to: u64) -> (Kind, Vec<u8>) {
    let portion = Portion {
        source: "log".parse().unwrap(),
        from: from.map(cursor),
        to: cursor(to),
    };
    (Kind::Portion, message::to_vec(&portion))
}

/// One record and what it holds; the first of an epoch has its schema with it.
fn bundle(seq: u64, from: Option<u64>, to: u64) -> Vec<u8> {
    let mut frames = vec![(Kind::Batch, batch(seq)), portion(from, to)];
    if seq == 0 {
        frames.insert(0, (Kind::Schema, schema_frame()));
    }
    bundle_of(&device(), 1, seq, &frames)
}

/// Says hello in another epoch; what the device is told before its Welcome.
fn held(rig: &mut Rig) -> Vec<Place> {
    rig.sent.clear();
    rig.connect("dev");
    rig.up(hello(&[listed(2, 0, 0)]), 9);
    assert!(rig.sync());
    let (told, welcomes): (Vec<Held>, Vec<Welcome>) = (rig.messages(), rig.messages());
    assert_eq!(welcomes.len(), 1);
    told.into_iter().flat_map(|held| held.places).collect()
}

fn log_at(minor: u64, is_last: bool) -> Vec<Place> {
    vec![Place {
        source: "log".parse().unwrap(),
        cursor: cursor(minor),
        is_last,
    }]
}

#[test]
fn what_is_held_without_a_hole_is_told_before_the_welcome_also_by_later_processes() {
    let mut rig = greeted();
    rig.up(bundle(0, None, 10), 1);
    rig.up(bundle(2, Some(20), 30), 2);
    rig.sync();
    assert_eq!(held(&mut rig), log_at(10, false));
    rig.up(hello(&[listed(1, 0, 100)]), 3);
    rig.up(bundle(1, Some(10), 20), 4);
    rig.sync();
    // Once from the records, and once from the snapshot of a segment that knows none of them.
    let disk = rig.disk.power_cut(1);
    let mut rig = Rig::start(disk, rig.store.clone(), common::settings(), 10).unwrap();
    assert_eq!(held(&mut rig), log_at(30, true));
    rig.flush().unwrap();
    let segments = |rig: &Rig| rig.custody.log().segments().next().unwrap().first;
    let first = segments(&rig);
    let mut seq = 3;
    while segments(&rig) == first {
        rig.up(hello(&[listed(1, 0, 100_000)]), 5);
        rig.up(
            bundle_of(&device(), 1, seq, &[(Kind::Batch, batch(seq))]),
            6,
        );
        seq += 1;
        rig.sync();
        rig.flush().unwrap();
    }
    let disk = rig.disk.power_cut(1);
    let mut rig = Rig::start(disk, rig.store.clone(), common::settings(), 20).unwrap();
    assert_eq!(held(&mut rig), log_at(30, true));
}

#[test]
fn a_bundle_that_came_again_is_not_noted_again() {
    let mut rig = greeted();
    rig.up(bundle(0, None, 10), 1);
    rig.sync();
    let before = rig.custody.log().next();
    rig.up(bundle(0, None, 10), 2);
    rig.sync();
    assert_eq!(rig.custody.log().next(), before);
}

#[test]
fn a_bundle_of_which_a_record_is_refused_holds_nothing() {
    let mut rig = greeted();
    rig.up(bundle(0, None, 10), 1);
    rig.sync();
    // The second record says something else under the identity of the first.
    let frames = [
        (Kind::Batch, batch(9)),
        (Kind::Batch, batch(1)),
        portion(Some(10), 20),
    ];
    let frames = [&[(Kind::Schema, schema_frame())], &frames[..]].concat();
    rig.up(bundle_of(&device(), 1, 0, &frames), 2);
    rig.sync();
    assert_eq!(rig.custody.counters().identity_conflicts_total, 1);
    // Nor does one whose epoch nobody named.
    rig.up(
        bundle_of(
            &device(),
            5,
            0,
            &[(Kind::Batch, batch(0)), portion(Some(10), 20)],
        ),
        3,
    );
    rig.sync();
    assert_eq!(held(&mut rig), log_at(10, true));
}

#[test]
fn a_group_that_failed_held_nothing() {
    let mut rig = greeted();
    rig.up(bundle(0, None, 10), 1);
    rig.disk.fail_sync(0);
    assert!(!rig.sync());
    assert_eq!(held(&mut rig), []);
    rig.up(hello(&[listed(1, 0, 100)]), 2);
    rig.up(bundle(0, None, 10), 3);
    rig.sync();
    assert_eq!(held(&mut rig), log_at(10, true));
}

#[test]
fn a_portion_that_makes_no_sense_is_counted_and_its_records_are_taken() {
    let mut rig = greeted();
    let frames = [
        (Kind::Schema, schema_frame()),
        (Kind::Batch, batch(0)),
        (Kind::Portion, b"\xff\xff".to_vec()),
        portion(Some(5), 4),
    ];
    rig.up(bundle_of(&device(), 1, 0, &frames), 1);
    rig.sync();
    assert_eq!(rig.custody.counters().malformed_total, 2);
    assert_eq!(rig.mark(1).unwrap().received, 1);
    assert_eq!(held(&mut rig), []);
}
