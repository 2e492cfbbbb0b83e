//! Custody by sink: plans and cursors of each, and what each lacks is named before it is gone.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of a test: a failure is a failed test"
)]

mod common;

use common::{Rig, batch, bundle, device, flush_all, hello, listed, rot_record, settings};
use headwater_collector::pipeline::custody::{Event, Output, Settings, SinkSpec};
use headwater_collector::pipeline::envelope::{self, Record};
use headwater_collector::sink::lake::NAME;
use headwater_lake::MemStore;
use headwater_proto::ids::{Epoch, Lane, SeqRange, Stream};
use headwater_proto::message::GapReason;
use headwater_spool::FakeDisk;
use std::ops::ControlFlow;

const COPY: &str = "copy";
const SEGMENT_BYTES: u64 = 8 << 10;

fn with_copy(required: bool) -> Settings {
    let mut settings = settings();
    settings.log.quota_bytes = 16 * SEGMENT_BYTES;
    settings.sinks.push(SinkSpec {
        name: COPY.into(),
        required,
    });
    settings
}

fn start(settings: Settings) -> Rig {
    let mut rig = Rig::start(FakeDisk::new(), MemStore::new(), settings, 0).unwrap();
    greet(&mut rig, 0);
    rig
}

fn greet(rig: &mut Rig, oldest: u64) {
    rig.connect("dev");
    rig.up(hello(&[listed(1, oldest, 100_000)]), 0);
    assert!(rig.sync());
}

fn stream() -> Stream {
    Stream {
        device: device(),
        lane: Lane::Normal,
        epoch: Epoch::new(1),
    }
}

/// What the copy says that it has.
fn says(rig: &mut Rig, through: u64, refused: Vec<(Stream, Vec<SeqRange>)>) {
    rig.handle(Event::Committed {
        sink: COPY.into(),
        through,
        streams: Vec::new(),
        refused,
        damaged: 0,
    });
}

/// What the journal says that the copy lacks.
fn named(rig: &Rig) -> Vec<(GapReason, SeqRange)> {
    let mut found = Vec::new();
    let mut reader = rig.custody.reader();
    let oldest = rig.custody.log().segments().next().unwrap().first;
    let mut at = oldest;
    while at < reader.durable() {
        let read = reader.read(at, 1 << 20, |_, kind, payload| {
            if let Ok(Record::Lacks(head)) = envelope::decode(kind, payload) {
                assert_eq!(head.sink, COPY);
                found.extend(head.ranges.iter().map(|(range, _)| (head.reason, *range)));
            }
            ControlFlow::Continue(())
        });
        at = read.unwrap().next;
    }
    found
}

/// Batches until the journal takes so many segments.
fn fill(rig: &mut Rig, seq: &mut u64, segments: u64) {
    while rig.custody.log().used_bytes() < segments * SEGMENT_BYTES {
        rig.up(bundle(1, *seq, *seq + 20), 1);
        assert!(rig.sync());
        *seq += 20;
        flush_all(rig);
    }
}

/// Numbers that the lake says the copy lacks, by its own table.
fn gaps_of_copy(rig: &Rig) -> u64 {
    let lacks = rig.sink.counters().gaps;
    assert!(rig.audit().totals.is_good(), "{:#?}", rig.audit());
    lacks
}

#[test]
fn a_sink_that_the_journal_does_not_wait_for_keeps_segments_until_the_quota_is_near() {
    let mut rig = start(with_copy(false));
    let mut seq = 0;
    fill(&mut rig, &mut seq, 10);
    assert_eq!(rig.custody.counters().segments_released_total, 0);
    assert_eq!(named(&rig), []);
    assert_eq!(rig.custody.cursor(COPY), Some(0));
    // What it does not take in now goes, and all of that is named.
    let lake_gaps = gaps_of_copy(&rig);
    for _ in 0..200 {
        rig.up(bundle(1, seq, seq + 20), 1);
        assert!(rig.sync());
        seq += 20;
        flush_all(&mut rig);
        assert!(!rig.custody.is_stalled());
    }
    assert!(rig.custody.counters().segments_released_total > 0);
    let through = rig.custody.cursor(COPY).unwrap();
    let oldest = rig.custody.log().segments().next().unwrap().first;
    assert!(oldest > 0 && oldest <= through);
    assert!(rig.custody.counters().sink_lacks_total > 0);
    assert!(gaps_of_copy(&rig) > lake_gaps);
    // One that keeps up lacks nothing more.
    let durable = rig.custody.log().durable();
    says(&mut rig, durable, Vec::new());
    let lacks = rig.custody.counters().sink_lacks_total;
    for _ in 0..50 {
        rig.up(bundle(1, seq, seq + 20), 1);
        assert!(rig.sync());
        seq += 20;
        flush_all(&mut rig);
        let durable = rig.custody.log().durable();
        says(&mut rig, durable, Vec::new());
    }
    assert_eq!(rig.custody.counters().sink_lacks_total, lacks);
}

#[test]
fn what_a_sink_reports_while_its_stretch_is_read_is_not_named() {
    let mut rig = start(with_copy(false));
    let mut seq = 0;
    fill(&mut rig, &mut seq, 10);
    // Without a tick nobody is left behind.
    for _ in 0..60 {
        rig.up(bundle(1, seq, seq + 20), 1);
        seq += 20;
        assert!(rig.sync());
        rig.flush().unwrap();
        assert!(rig.sync());
    }
    rig.handle(Event::Tick);
    let output = rig.custody.next_output();
    let Some(Output::Read(stretch)) = output else {
        panic!("nothing is to be read: {output:?}");
    };
    let found = stretch.read(&mut rig.custody.reader()).ok();
    let found = found.map(|pass| pass.numbers);
    // Its answer for the first ten is on its way.
    let has = vec![(stream(), vec![SeqRange::new(0, 10)])];
    rig.handle(Event::Committed {
        sink: COPY.into(),
        through: 1,
        streams: has,
        refused: Vec::new(),
        damaged: 0,
    });
    rig.handle(Event::Read { stretch, found });
    assert!(rig.sync());
    let named = named(&rig);
    assert_eq!(named[0].1.first, 10, "{named:?}");
    assert!(
        named
            .iter()
            .all(|(reason, _)| *reason == GapReason::SinkSkipped)
    );
}

#[test]
fn a_segment_that_a_required_sink_needs_is_never_left_behind() {
    let mut rig = start(with_copy(true));
    let mut seq = 0;
    while !rig.custody.is_stalled() {
        rig.up(bundle(1, seq, seq + 20), 1);
        assert!(rig.sync());
        seq += 20;
        flush_all(&mut rig);
        assert!(seq < 100_000);
    }
    assert_eq!(rig.custody.counters().segments_released_total, 0);
    assert_eq!(rig.custody.counters().sink_lacks_total, 0);
}

#[test]
fn a_kill_repeats_what_a_sink_had_in_the_last_second_and_no_more() {
    let mut rig = start(with_copy(false));
    rig.up(bundle(1, 0, 5), 1);
    assert!(rig.sync());
    let first = rig.custody.log().durable();
    rig.ms += 2_000;
    says(&mut rig, first, Vec::new());
    assert!(rig.sync());
    rig.up(bundle(1, 5, 9), 2);
    assert!(rig.sync());
    rig.ms += 500;
    let second = rig.custody.log().durable();
    says(&mut rig, second, Vec::new());
    assert!(rig.sync());
    let disk = rig.disk.power_cut(1);
    let again = Rig::start(disk, rig.store.clone(), with_copy(false), rig.ms).unwrap();
    assert_eq!(again.custody.cursor(COPY), Some(first));
    // An orderly end repeats nothing.
    let now = rig.now();
    rig.custody.note_cursors(now, true);
    assert!(rig.sync());
    let disk = rig.disk.power_cut(1);
    let again = Rig::start(disk, rig.store.clone(), with_copy(false), rig.ms).unwrap();
    assert_eq!(again.custody.cursor(COPY), Some(second));
}

#[test]
fn sinks_progress_alone_is_noted_once() {
    let mut rig = start(with_copy(false));
    rig.up(bundle(1, 0, 5), 1);
    assert!(rig.sync());
    for _ in 0..3 {
        rig.ms += 2_000;
        rig.flush().unwrap();
        let durable = rig.custody.log().durable();
        says(&mut rig, durable, Vec::new());
        rig.handle(Event::Tick);
        assert!(rig.sync());
    }
    let before = rig.custody.log().next();
    for _ in 0..10 {
        rig.ms += 2_000;
        rig.flush().unwrap();
        let durable = rig.custody.log().durable();
        says(&mut rig, durable, Vec::new());
        rig.handle(Event::Tick);
        assert!(rig.sync());
    }
    assert_eq!(rig.custody.log().next(), before);
}

#[test]
fn what_a_sink_refuses_is_named_before_its_cursor_moves_also_when_a_group_fails() {
    let mut rig = start(with_copy(false));
    rig.up(bundle(1, 0, 5), 1);
    assert!(rig.sync());
    let durable = rig.custody.log().durable();
    let lacks = SeqRange::new(1, 3);
    rig.disk.fail_sync(0);
    says(&mut rig, durable, vec![(stream(), vec![lacks])]);
    assert!(!rig.sync());
    assert_eq!(rig.custody.cursor(COPY), Some(0));
    assert_eq!(named(&rig), []);
    rig.handle(Event::Tick);
    assert!(rig.sync());
    assert_eq!(rig.custody.cursor(COPY), Some(durable));
    assert_eq!(named(&rig), [(GapReason::Refused, lacks)]);
}

#[test]
fn a_sink_that_is_taken_out_is_named_once_and_forgotten() {
    let mut rig = start(with_copy(false));
    rig.up(bundle(1, 0, 5), 1);
    assert!(rig.sync());
    let durable = rig.custody.log().durable();
    says(&mut rig, durable, Vec::new());
    let now = rig.now();
    rig.custody.note_cursors(now, true);
    rig.up(bundle(1, 5, 9), 2);
    assert!(rig.sync());
    let without = settings();
    let store = rig.store.clone();
    let mut rig = Rig::start(
        rig.disk.power_cut(1),
        store.clone(),
        without.clone(),
        rig.ms,
    )
    .unwrap();
    greet(&mut rig, 0);
    rig.up(bundle(1, 9, 12), 1);
    rig.handle(Event::Tick);
    assert!(rig.sync());
    let lacks = [(GapReason::SinkSkipped, SeqRange::new(5, 9))];
    assert_eq!(named(&rig), lacks);
    assert_eq!(rig.custody.cursor(COPY), None);
    let mut rig = Rig::start(rig.disk.power_cut(1), store, without, rig.ms).unwrap();
    rig.handle(Event::Tick);
    assert!(rig.sync());
    assert_eq!(named(&rig), lacks);
    rig.flush().unwrap();
    assert_eq!(gaps_of_copy(&rig), 1);
}

#[test]
fn a_sink_that_is_taken_out_and_lacks_nothing_is_forgotten_without_a_name() {
    let mut rig = start(with_copy(false));
    rig.up(bundle(1, 0, 5), 1);
    assert!(rig.sync());
    let durable = rig.custody.log().durable();
    says(&mut rig, durable, Vec::new());
    let now = rig.now();
    rig.custody.note_cursors(now, true);
    assert!(rig.sync());
    let disk = rig.disk.power_cut(1);
    let mut rig = Rig::start(disk, rig.store.clone(), settings(), rig.ms).unwrap();
    rig.handle(Event::Tick);
    assert!(rig.sync());
    assert_eq!((rig.custody.cursor(COPY), named(&rig)), (None, Vec::new()));
}

#[test]
fn a_required_sink_that_is_taken_out_holds_back_no_mark_and_nothing_is_asked_for_again() {
    let mut rig = start(with_copy(true));
    let mut seq = 0;
    // The lake has all of it, and a snapshot says that the copy has none.
    fill(&mut rig, &mut seq, 4);
    assert_eq!(rig.mark(1).unwrap().committed, 0);
    let store = rig.store.clone();
    let mut rig = Rig::start(rig.disk.power_cut(1), store, settings(), rig.ms).unwrap();
    greet(&mut rig, 0);
    assert_eq!(rig.mark(1).unwrap().committed, seq);
    flush_all(&mut rig);
    assert_eq!(rig.custody.counters().asked_again_total, 0);
    assert!(rig.rejects().is_empty());
    assert_eq!(
        named(&rig)
            .iter()
            .map(|(_, range)| range.len())
            .sum::<u64>(),
        seq
    );
}

#[test]
fn each_sink_has_a_plan_of_its_own() {
    let mut rig = start(with_copy(true));
    rig.custody.append_plan(COPY, b"of the copy").unwrap();
    rig.custody.append_plan(NAME, b"of the lake").unwrap();
    assert!(rig.sync());
    let bytes = |rig: &Rig, sink| rig.custody.plan(sink).map(|plan| plan.bytes.clone());
    assert_eq!(bytes(&rig, COPY).unwrap(), b"of the copy");
    let durable = rig.custody.log().durable();
    says(&mut rig, durable, Vec::new());
    assert_eq!(bytes(&rig, COPY), None);
    assert_eq!(bytes(&rig, NAME).unwrap(), b"of the lake");
}

/// The copy says that it has the numbers in `has`, and passed a record that it could not read.
fn passes_rot(rig: &mut Rig, through: u64, has: &[SeqRange]) {
    rig.handle(Event::Committed {
        sink: COPY.into(),
        through,
        streams: vec![(stream(), has.to_vec())],
        refused: Vec::new(),
        damaged: 1,
    });
}

#[test]
fn what_rotted_before_an_optional_sink_read_it_is_named_as_the_lake_has_it() {
    let mut rig = start(with_copy(false));
    for first in [0, 10, 20] {
        rig.up(bundle(1, first, first + 10), 1);
        assert!(rig.sync());
        flush_all(&mut rig);
    }
    let through = rig.custody.log().durable();
    rot_record(&rig.disk, &batch(13));
    passes_rot(
        &mut rig,
        through,
        &[SeqRange::new(0, 13), SeqRange::new(14, 30)],
    );
    assert!(rig.custody.is_holding(COPY));
    assert!(rig.sync());
    flush_all(&mut rig);
    assert!(!rig.custody.is_holding(COPY));
    assert!(rig.custody.cursor(COPY) >= Some(through));
    assert_eq!(named(&rig), [(GapReason::Damaged, SeqRange::new(13, 14))]);
    assert_eq!(gaps_of_copy(&rig), 1);
}

#[test]
fn a_sink_that_passed_rot_waits_until_the_lake_has_come_as_far_and_is_there() {
    let mut rig = start(with_copy(false));
    rig.up(bundle(1, 0, 10), 1);
    assert!(rig.sync());
    // The lake has read what rots then, and did not commit it yet.
    rig.read_all();
    let through = rig.custody.log().durable();
    rot_record(&rig.disk, &batch(4));
    passes_rot(
        &mut rig,
        through,
        &[SeqRange::new(0, 4), SeqRange::new(5, 10)],
    );
    for _ in 0..3 {
        rig.ms += 1_000;
        rig.handle(Event::Tick);
        assert!(rig.sync());
        assert!(rig.custody.is_holding(COPY));
    }
    rig.flush().unwrap();
    rig.store.set_away(true);
    rig.handle(Event::Tick);
    assert!(rig.sync());
    assert!(rig.custody.is_holding(COPY));
    rig.store.set_away(false);
    rig.handle(Event::Tick);
    assert_eq!(
        rig.custody.next_output(),
        None,
        "a place that is away is tried once a minute"
    );
    rig.ms += 60_000;
    flush_all(&mut rig);
    assert!(!rig.custody.is_holding(COPY));
    assert_eq!(named(&rig), [(GapReason::Damaged, SeqRange::new(4, 5))]);
}

#[test]
fn what_a_sink_passed_as_damaged_is_named_for_it_though_it_can_be_read_by_now() {
    let mut rig = start(with_copy(false));
    rig.up(bundle(1, 0, 10), 1);
    assert!(rig.sync());
    rig.flush().unwrap();
    let through = rig.custody.log().durable();
    // Its own read failed, and nothing is damaged.
    passes_rot(
        &mut rig,
        through,
        &[SeqRange::new(0, 4), SeqRange::new(5, 10)],
    );
    flush_all(&mut rig);
    assert!(!rig.custody.is_holding(COPY));
    assert_eq!(named(&rig), [(GapReason::Damaged, SeqRange::new(4, 5))]);
}

#[test]
fn the_names_of_rot_that_a_failed_group_takes_back_are_said_again() {
    let mut rig = start(with_copy(false));
    rig.up(bundle(1, 0, 10), 1);
    assert!(rig.sync());
    flush_all(&mut rig);
    let through = rig.custody.log().durable();
    rot_record(&rig.disk, &batch(4));
    passes_rot(
        &mut rig,
        through,
        &[SeqRange::new(0, 4), SeqRange::new(5, 10)],
    );
    let read = std::iter::from_fn(|| rig.custody.next_output()).find_map(|output| match output {
        Output::Read(stretch) => Some(stretch),
        Output::Send { .. }
        | Output::PubAck { .. }
        | Output::Close { .. }
        | Output::Shared { .. }
        | Output::Clock(_)
        | Output::Crowded { .. }
        | Output::Keep(_)
        | Output::Find(_) => None,
    });
    let stretch = read.unwrap();
    let found = Some(vec![(stream(), vec![SeqRange::new(4, 5)])]);
    rig.handle(Event::Read { stretch, found });
    // The report is taken in the same group, which fails.
    rig.handle(Event::Tick);
    assert!(!rig.custody.is_holding(COPY));
    rig.disk.fail_sync(0);
    assert!(!rig.sync());
    assert_eq!(named(&rig), []);
    assert!(rig.custody.is_holding(COPY));
    flush_all(&mut rig);
    assert_eq!(named(&rig), [(GapReason::Damaged, SeqRange::new(4, 5))]);
    assert!(!rig.custody.is_holding(COPY));
}

#[test]
fn a_durable_plan_outlives_the_first_group_of_a_life_when_that_fails() {
    let mut rig = start(with_copy(true));
    let again = |rig: &Rig| {
        let (disk, store) = (rig.disk.process_killed(), rig.store.clone());
        Rig::start(disk, store, with_copy(true), rig.ms + 10).unwrap()
    };
    let plan = |rig: &Rig| rig.custody.plan(COPY).unwrap().bytes.clone();
    rig.custody.append_plan(COPY, b"one").unwrap();
    assert!(rig.sync());
    // Its segment begins with the first.
    let mut rig = again(&rig);
    rig.custody.append_plan(COPY, b"two").unwrap();
    assert!(rig.sync());
    let mut rig = again(&rig);
    assert_eq!(plan(&rig), b"two");
    rig.connect("dev");
    rig.up(hello(&[listed(7, 0, 1)]), 9);
    rig.disk.fail_sync(0);
    assert!(!rig.sync());
    assert_eq!(plan(&rig), b"two");
}
