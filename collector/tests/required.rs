//! Several required sinks: what all of them reported is committed, and what some lack is named.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of a test: a failure is a failed test"
)]

mod common;

use std::ops::ControlFlow;

use common::{
    Rig, SAMPLES, batch, bundle, bundle_of, device, epoch_end, flush_all, hello, listed,
    rot_record, settings,
};
use headwater_collector::pipeline::custody::{Event, MAX_COVERED_RANGES, Settings, SinkSpec};
use headwater_collector::pipeline::envelope::{self, Record};
use headwater_collector::sink::lake::NAME;
use headwater_lake::{EpochState, MemStore};
use headwater_proto::frame::Kind;
use headwater_proto::ids::{Epoch, Lane, SeqRange, Stream};
use headwater_proto::message::GapReason;
use headwater_spool::FakeDisk;

const SECOND: &str = "second";

fn two() -> Settings {
    let mut settings = settings();
    settings.sinks.push(SinkSpec {
        name: SECOND.into(),
        required: true,
    });
    settings
}

fn greet(rig: &mut Rig) {
    rig.connect("dev");
    rig.up(hello(&[listed(1, 0, 1_000)]), 0);
    assert!(rig.sync());
}

/// Both sinks, and a device that sent records `0..count`.
fn start(count: u64) -> Rig {
    let mut rig = Rig::start(FakeDisk::new(), MemStore::new(), two(), 0).unwrap();
    greet(&mut rig);
    rig.up(bundle(1, 0, count), 1);
    assert!(rig.sync());
    rig
}

/// The collector after a kill, with its index of epochs that are over, so that only damage makes it read what
/// the lake has.
fn again(rig: &Rig) -> Rig {
    let disk = rig.disk.process_killed();
    let (store, done) = (rig.store.clone(), rig.done.clone());
    let mut rig = Rig::start_with(disk, store, done, two(), rig.ms + 1_000).unwrap();
    greet(&mut rig);
    rig
}

fn stream() -> Stream {
    Stream {
        device: device(),
        lane: Lane::Normal,
        epoch: Epoch::new(1),
    }
}

/// What the second sink says that it has, all below `through` of the journal.
fn says(rig: &mut Rig, through: u64, has: &[SeqRange], refused: &[SeqRange], damaged: u64) {
    let of = |ranges: &[SeqRange]| vec![(stream(), ranges.to_vec())];
    rig.handle(Event::Committed {
        sink: SECOND.into(),
        through,
        streams: of(has),
        refused: of(refused),
        damaged,
    });
}

fn says_all(rig: &mut Rig, has: &[SeqRange], damaged: u64) {
    let durable = rig.custody.log().durable();
    says(rig, durable, has, &[], damaged);
}

fn committed(rig: &Rig) -> Vec<SeqRange> {
    let track = rig.custody.ledger().track(&stream()).unwrap();
    track.receiver.committed().as_slice().to_vec()
}

/// Whom the journal says to lack what.
fn named(rig: &Rig) -> Vec<(String, GapReason, SeqRange)> {
    let mut found = Vec::new();
    let mut reader = rig.custody.reader();
    let mut at = rig.custody.log().segments().next().unwrap().first;
    while at < reader.durable() {
        let read = reader.read(at, 1 << 20, |_, kind, payload| {
            if let Ok(Record::Lacks(head)) = envelope::decode(kind, payload) {
                let sink = head.sink.to_owned();
                let one = |range: &SeqRange| (sink.clone(), head.reason, *range);
                found.extend(head.ranges.iter().map(|(range, _)| one(range)));
            }
            ControlFlow::Continue(())
        });
        at = read.unwrap().next;
    }
    found
}

fn range(first: u64, next: u64) -> SeqRange {
    SeqRange::new(first, next)
}

#[test]
fn what_all_required_sinks_reported_is_committed_though_the_journal_can_no_longer_be_read() {
    let mut rig = start(6);
    // Nobody reads the records again: they may rot once both have them.
    rig.flush().unwrap();
    assert_eq!(committed(&rig), []);
    for seq in 0..6 {
        rot_record(&rig.disk, &batch(seq));
    }
    says_all(&mut rig, &[range(0, 4)], 0);
    assert_eq!(committed(&rig), [range(0, 4)]);
    assert_eq!(rig.custody.counters().records_damaged_total, 0);
    assert!(rig.sync());
    assert_eq!(rig.mark(1).unwrap().committed, 4);
    // Whoever is not told anything new hears nothing.
    rig.sent.clear();
    says_all(&mut rig, &[range(0, 4)], 0);
    assert!(rig.sync());
    assert_eq!(rig.sent, []);
}

#[test]
fn what_a_required_sink_refuses_counts_as_committed_once_it_is_named() {
    let mut rig = start(6);
    flush_all(&mut rig);
    let durable = rig.custody.log().durable();
    says(
        &mut rig,
        durable,
        &[range(0, 2), range(3, 6)],
        &[range(2, 3)],
        0,
    );
    assert!(rig.sync());
    assert_eq!(committed(&rig), [range(0, 6)]);
    let lacks = (SECOND.to_owned(), GapReason::Refused, range(2, 3));
    assert_eq!(named(&rig), [lacks]);
}

#[test]
fn a_start_knows_what_each_required_sink_has() {
    let mut rig = start(6);
    flush_all(&mut rig);
    let mut rig = again(&rig);
    assert_eq!(committed(&rig), []);
    let beyond: Vec<_> = rig.custody.beyond_others(NAME).collect();
    assert_eq!(beyond, [(&stream(), &[range(0, 6)][..])]);
    // The lake says nothing more of it.
    says_all(&mut rig, &[range(0, 6)], 0);
    assert!(rig.sync());
    assert_eq!(rig.mark(1).unwrap().committed, 6);
    assert_eq!(rig.custody.beyond_others(NAME).count(), 0);
    // It knew that it had all of it: with its end the epoch is whole there.
    let end = (Kind::EpochEnd, epoch_end(1, 7));
    rig.up(bundle_of(&device(), 1, 6, &[end]), 2);
    assert!(rig.sync());
    flush_all(&mut rig);
    let marks = headwater_lake::audit::marks(&rig.store).unwrap();
    assert_eq!(marks[0].state, Some(EpochState::Closed));
}

#[test]
fn a_sink_that_is_too_far_ahead_waits_until_the_others_come_closer() {
    let mut rig = start(6);
    let first = rig.custody.log().durable();
    // Every other number, so that each is a range of its own.
    let most = MAX_COVERED_RANGES as u64;
    let ranges: Vec<_> = (0..most).map(|n| range(2 * n, 2 * n + 1)).collect();
    says(&mut rig, first, &ranges, &[], 0);
    assert_eq!(rig.custody.cursor(SECOND), Some(first));
    let counted = |rig: &Rig| rig.custody.covered_ranges();
    assert!(counted(&rig).contains(&(SECOND.to_owned(), MAX_COVERED_RANGES)));
    rig.up(bundle(1, 6, 8), 2);
    assert!(rig.sync());
    let durable = rig.custody.log().durable();
    let more = [range(2 * most, 2 * most + 1)];
    says(&mut rig, durable, &more, &[], 0);
    for _ in 0..3 {
        rig.handle(Event::Tick);
        assert!(rig.sync());
    }
    assert_eq!(rig.custody.held_sinks(), [SECOND]);
    assert_eq!(rig.custody.cursor(SECOND), Some(first));
    assert_eq!(rig.custody.counters().sink_reports_held_total, 1);
    // No plan is taken before the report that it follows.
    assert!(rig.custody.append_plan(SECOND, b"next").is_err());
    // The lake has some of it, and the one that is furthest behind is never held.
    flush_all(&mut rig);
    assert_eq!(rig.custody.held_sinks(), Vec::<String>::new());
    assert_eq!(rig.custody.cursor(SECOND), Some(durable));
    assert!(rig.custody.append_plan(SECOND, b"next").is_ok());
}

#[test]
fn an_orderly_end_takes_the_report_of_a_sink_that_waits() {
    let mut rig = start(6);
    let most = MAX_COVERED_RANGES as u64;
    let ranges: Vec<_> = (0..=most).map(|n| range(2 * n, 2 * n + 1)).collect();
    let first = rig.custody.log().durable() - 1;
    says(&mut rig, first, &ranges, &[], 0);
    let durable = rig.custody.log().durable();
    says(&mut rig, durable, &[range(1, 2)], &[], 0);
    assert!(rig.custody.is_holding(SECOND));
    let now = rig.now();
    rig.custody.note_cursors(now, true);
    assert!(rig.sync());
    let rig = again(&rig);
    assert_eq!(rig.custody.cursor(SECOND), Some(durable));
}

#[test]
fn a_record_that_rots_before_any_required_sink_has_it_is_asked_for_again() {
    let mut rig = start(6);
    rot_record(&rig.disk, &batch(3));
    for _ in 0..4 {
        flush_all(&mut rig);
        says_all(&mut rig, &[range(0, 3), range(4, 6)], 0);
    }
    flush_all(&mut rig);
    assert_eq!(rig.rejects().len(), 1);
    assert_eq!(rig.custody.counters().asked_again_total, 1);
    assert_eq!(named(&rig), []);
    rig.up(hello(&[listed(1, 0, 6)]), 2);
    rig.up(bundle(1, 3, 4), 3);
    assert!(rig.sync());
    flush_all(&mut rig);
    says_all(&mut rig, &[range(3, 4)], 0);
    assert_eq!(committed(&rig), [range(0, 6)]);
    assert!(rig.audit().totals.is_good());
    assert_eq!(rig.audit().totals.counts.samples, 6 * SAMPLES);
}

#[test]
fn a_record_that_rots_after_one_required_sink_has_it_is_named_for_the_other_and_not_taken_again() {
    for fails in [false, true] {
        let mut rig = start(6);
        flush_all(&mut rig);
        rot_record(&rig.disk, &batch(3));
        says_all(&mut rig, &[range(0, 3), range(4, 6)], 1);
        rig.flush().unwrap();
        if fails {
            // The group of its name: nothing is committed that nothing names.
            rig.disk.fail_sync(0);
            rig.handle(Event::Tick);
            assert!(!rig.sync());
            assert_eq!(committed(&rig), []);
            assert_eq!(named(&rig), []);
            greet(&mut rig);
        }
        for _ in 0..2 {
            rig.handle(Event::Tick);
            assert!(rig.sync());
        }
        assert!(rig.rejects().is_empty());
        assert_eq!(committed(&rig), [range(0, 6)]);
        let lacks = (SECOND.to_owned(), GapReason::Damaged, range(3, 4));
        assert_eq!(named(&rig), [lacks]);
        flush_all(&mut rig);
        let counts = rig.audit().totals.counts;
        assert!(rig.audit().totals.is_good());
        assert_eq!((counts.samples, counts.filled), (6 * SAMPLES, 0));
    }
}

#[test]
fn a_record_that_rots_before_the_lake_has_it_and_after_another_sink_did_is_a_gap_in_the_lake() {
    let mut rig = start(6);
    says_all(&mut rig, &[range(0, 6)], 0);
    rot_record(&rig.disk, &batch(3));
    for _ in 0..3 {
        flush_all(&mut rig);
        let durable = rig.custody.log().durable();
        says(&mut rig, durable, &[], &[], 0);
    }
    assert!(rig.rejects().is_empty());
    assert_eq!(committed(&rig), [range(0, 6)]);
    let lacks = (NAME.to_owned(), GapReason::Damaged, range(3, 4));
    assert_eq!(named(&rig), [lacks]);
    flush_all(&mut rig);
    let audit = rig.audit();
    assert!(audit.totals.is_good(), "{audit:#?}");
    let counts = audit.totals.counts;
    assert_eq!((counts.samples, counts.explained), (5 * SAMPLES, 1));
}

/// Sends more until the journal has three segments, so that the newest snapshot knows records `0..6`;
/// then record 3 rots. Returns how many records were sent.
fn rots_in_an_older_segment(rig: &mut Rig) -> u64 {
    let mut next = 6;
    while rig.custody.log().segments().len() < 3 {
        rig.up(bundle(1, next, next + 1), 1);
        assert!(rig.sync());
        next += 1;
    }
    rot_record(&rig.disk, &batch(3));
    next
}

#[test]
fn a_start_that_cannot_read_what_a_required_sink_may_have_asks_for_nothing_again() {
    let mut rig = start(6);
    // The second sink has all of it, and the lake nothing.
    says_all(&mut rig, &[range(0, 6)], 0);
    let count = rots_in_an_older_segment(&mut rig);
    let mut rig = again(&rig);
    assert!(rig.custody.cursor(SECOND) > rig.custody.cursor(NAME));
    for _ in 0..3 {
        flush_all(&mut rig);
        says_all(&mut rig, &[range(6, count)], 0);
    }
    assert!(rig.rejects().is_empty());
    flush_all(&mut rig);
    let audit = rig.audit();
    assert!(audit.totals.is_good(), "{audit:#?}");
    let counts = audit.totals.counts;
    assert_eq!(
        (counts.samples, counts.explained),
        ((count - 1) * SAMPLES, 1)
    );
}

#[test]
fn what_the_lake_has_and_a_start_cannot_read_is_named_for_the_other_sink() {
    let mut rig = start(6);
    flush_all(&mut rig);
    let count = rots_in_an_older_segment(&mut rig);
    let mut rig = again(&rig);
    // What can be read is not committed before the second sink has it.
    assert_eq!(committed(&rig), [range(3, 4)]);
    flush_all(&mut rig);
    says_all(&mut rig, &[range(0, 3), range(4, count)], 1);
    for _ in 0..2 {
        rig.handle(Event::Tick);
        assert!(rig.sync());
    }
    let lacks = (SECOND.to_owned(), GapReason::Damaged, range(3, 4));
    assert_eq!(named(&rig), [lacks]);
    assert_eq!(committed(&rig), [range(0, count)]);
    assert!(rig.rejects().is_empty());
    assert!(rig.audit().totals.is_good());
}
