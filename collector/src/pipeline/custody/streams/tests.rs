//! Streams alone: what is lost is found once the sinks are past it, and once more if naming it failed; what
//! its senders no longer list is abandoned after long, and not before.

use std::collections::BTreeMap;

use headwater_gate::ConnId;
use headwater_proto::frame::{self, Kind};
use headwater_proto::ids::{DeviceId, Lane};
use headwater_proto::message::{GapReason, HelloStream};
use headwater_proto::time::{Now, UnixMicros};

use super::super::types::SinkSpec;
use super::*;
use crate::done::DoneInMemory;
use crate::pipeline::envelope::{BatchHead, Change, Clock, GapHead, MarkHead, RawHead, Verdict};
use crate::pipeline::ledger::{Around, SaidAt, plain_stream};
use crate::pipeline::rules::RulesId;
use crate::pipeline::spans::Which;

const LAKE: &str = "lake";
const SECOND: &str = "second";
const AFTER_MS: u64 = 100;

fn streams_of(mode: Mode, required: &[&str]) -> Streams {
    let spec = |name: &&str| SinkSpec {
        name: (*name).to_owned(),
        required: true,
    };
    let settings = Settings {
        mode,
        sinks: required.iter().map(spec).collect(),
        abandon_after_ms: AFTER_MS,
        relayed_abandon_after_ms: AFTER_MS,
        ..Settings::default()
    };
    let done = Box::new(DoneInMemory::default());
    Streams::new(Ledger::new(Epoch::new(9)), done, &settings)
}

fn at(ms: u64) -> Now {
    Now {
        mono: Millis(ms),
        wall: UnixMicros(i64::try_from(ms * 1_000).unwrap()),
    }
}

fn device() -> DeviceId {
    DeviceId::new("d").unwrap()
}

fn stream(epoch: u64) -> Stream {
    Stream {
        device: device(),
        lane: Lane::Normal,
        epoch: Epoch::new(epoch),
    }
}

fn open(streams: &mut Streams, stream: &Stream, relayed: bool, now: Now) {
    let change = Change::Opened {
        oldest: 0,
        ram: false,
        boot: 1,
        base: headwater_proto::time::Base::Wall,
        relayed,
    };
    streams.apply_as(
        &Record::Mark(MarkHead {
            stream: stream.clone(),
            change,
            at: now.wall,
        }),
        false,
    );
}

/// Publishes of a plain device, which the journal numbers itself.
fn plain(streams: &mut Streams, seqs: std::ops::Range<u64>) -> Stream {
    let epoch = streams.ledger().plain_epoch();
    for seq in seqs {
        let head = RawHead {
            device: device(),
            epoch,
            seq,
            verdict: Verdict::Store,
            at: UnixMicros(1),
            rules: RulesId::of(b""),
            rule: 0,
            metric: "",
            topic: "",
            client: "",
            packet_id: 0,
            hash: 0,
        };
        streams.apply_as(&Record::Raw(head, b""), false);
    }
    streams.synced();
    plain_stream(&device(), epoch)
}

fn said(streams: &mut Streams, passed: u64) -> Vec<Say> {
    let mut all = Vec::new();
    while let Some(mut loss) = streams.next_loss(passed, passed) {
        all.push(std::mem::replace(&mut loss.say, Say::Nothing));
        streams.named(loss);
    }
    all
}

#[test]
fn what_no_sink_has_is_lost_once_all_are_past_it() {
    let mut streams = streams_of(Mode::Sinks, &[LAKE]);
    let plain = plain(&mut streams, 0..3);
    streams.watch(3);
    assert!(streams.has(LAKE, &plain, &[SeqRange::new(0, 1)]));
    assert_eq!(said(&mut streams, 2), [], "a sink may still bring it");
    let lost = Say::Gap(plain, Some(SeqRange::new(1, 3)), GapReason::Damaged);
    assert_eq!(said(&mut streams, 3), [lost]);
    streams.synced();
    assert_eq!(said(&mut streams, 3), []);
}

#[test]
fn of_several_lost_ranges_each_is_named() {
    let mut streams = streams_of(Mode::Sinks, &[LAKE]);
    let plain = plain(&mut streams, 0..5);
    streams.watch(5);
    for seq in [1, 3] {
        streams.has(LAKE, &plain, &[SeqRange::new(seq, seq + 1)]);
    }
    let lost = |seq| {
        Say::Gap(
            plain.clone(),
            Some(SeqRange::new(seq, seq + 1)),
            GapReason::Damaged,
        )
    };
    assert_eq!(said(&mut streams, 5), [lost(4), lost(2), lost(0)]);
}

#[test]
fn a_loss_whose_group_failed_is_found_again() {
    let mut streams = streams_of(Mode::Sinks, &[LAKE]);
    plain(&mut streams, 0..3);
    streams.watch(3);
    let first = said(&mut streams, 3);
    assert_eq!(first.len(), 1);
    streams.roll_back();
    assert_eq!(said(&mut streams, 3), first);
    let loss = streams.next_loss(3, 3);
    assert!(loss.is_none());
}

#[test]
fn what_one_required_sink_has_is_named_for_the_other_and_committed_when_that_is_durable() {
    let mut streams = streams_of(Mode::Sinks, &[LAKE, SECOND]);
    let plain = plain(&mut streams, 0..2);
    let whole = SeqRange::new(0, 2);
    assert!(!streams.has(LAKE, &plain, &[whole]), "not all have it");
    streams.watch(2);
    let loss = streams.next_loss(2, 2).unwrap();
    let lacks = Say::Lacks(vec![SECOND.to_owned()], plain.clone(), whole);
    assert_eq!(loss.say, lacks);
    streams.named(loss);
    assert_eq!(streams.ledger().uncommitted(&plain, whole), [whole]);
    assert_eq!(streams.synced(), std::slice::from_ref(&plain));
    assert_eq!(streams.ledger().uncommitted(&plain, whole), []);
    assert_eq!(streams.coverage().ranges(LAKE), 0);
}

fn uptime(uptime_ms: u64) -> SaidAt {
    SaidAt { boot: 1, uptime_ms }
}

#[test]
fn a_stream_is_abandoned_when_it_was_absent_for_long() {
    let mut streams = streams_of(Mode::Sinks, &[LAKE]);
    open(&mut streams, &stream(1), false, at(0));
    Claims(&mut streams).said(&stream(1), 7, false, (uptime(0), at(0)));
    let (conn, nothing) = (ConnId(1), BTreeMap::new());
    streams.note_absent(conn, &device(), &nothing, (uptime(0), at(1)));
    assert_eq!(
        streams.absent_for_long(at(AFTER_MS + 1)),
        [],
        "a Hello of before the claim comes again"
    );
    streams.note_absent(conn, &device(), &nothing, (uptime(1), at(1)));
    assert_eq!(streams.absent_for_long(at(AFTER_MS)), []);
    assert_eq!(streams.absent_for_long(at(AFTER_MS + 1)), [stream(1)]);
    let abandonment = streams.abandonment(&stream(1)).unwrap();
    assert_eq!(
        abandonment,
        Abandonment {
            missing: vec![SeqRange::new(0, 7)],
            ram: false,
            next: 7,
        }
    );
    streams.apply_as(
        &Record::Gap(GapHead {
            stream: stream(1),
            range: Some(SeqRange::new(0, 7)),
            span: Around(streams.ledger()).span(&stream(1), Which::Beyond, at(AFTER_MS).wall),
            reason: GapReason::Abandoned,
            at: at(AFTER_MS).wall,
        }),
        false,
    );
    streams.apply_as(
        &Record::Mark(MarkHead {
            stream: stream(1),
            change: Change::Abandoned { next: 7 },
            at: at(AFTER_MS).wall,
        }),
        false,
    );
    streams.end_absence(&stream(1));
    assert_eq!(streams.abandonment(&stream(1)), None);
    assert_eq!(streams.absent_for_long(at(AFTER_MS + 1)), []);
    assert!(streams.ledger().track(&stream(1)).unwrap().abandoned);
}

#[test]
fn what_the_end_of_an_abandoned_stream_tells_beyond_is_named_too() {
    let mut streams = streams_of(Mode::Sinks, &[LAKE]);
    open(&mut streams, &stream(1), true, at(0));
    let track = |change| {
        Record::Mark(MarkHead {
            stream: stream(1),
            change,
            at: at(0).wall,
        })
    };
    streams.apply_as(&track(Change::Abandoned { next: 2 }), false);
    let missing = vec![SeqRange::new(0, 2)];
    let (ram, next) = (false, 2);
    let expected = Abandonment { missing, ram, next };
    assert_eq!(streams.abandonment(&stream(1)), Some(expected));
}

#[test]
fn a_stream_that_another_connection_left_out_shows_a_shared_identity() {
    let mut streams = streams_of(Mode::Sinks, &[LAKE]);
    open(&mut streams, &stream(1), false, at(0));
    let listed = HelloStream {
        lane: Lane::Normal,
        epoch: Epoch::new(1),
        oldest: 0,
        next: 0,
        ram: false,
        boot: 1,
        base: headwater_proto::time::Base::Wall,
        ended: false,
    };
    let with: BTreeMap<_, _> = [((listed.lane, listed.epoch), listed)].into();
    let (one, other) = (ConnId(1), ConnId(2));
    for (back, shared) in [(one, 0), (other, 1)] {
        streams.note_absent(one, &device(), &BTreeMap::new(), (uptime(1), at(1)));
        assert_eq!(streams.note_present(back, &device(), &with), shared);
        assert_eq!(streams.absent_for_long(at(9_999)), []);
    }
}

#[test]
fn a_relayed_stream_gets_time_after_a_start_before_it_is_abandoned() {
    let mut streams = streams_of(Mode::Sinks, &[LAKE]);
    open(&mut streams, &stream(1), true, at(0));
    streams.note_absent(ConnId(1), &device(), &BTreeMap::new(), (uptime(1), at(0)));
    assert_eq!(
        streams.absent_for_long(at(9_999)),
        [],
        "its gateway may be away"
    );
    assert_eq!(
        streams.unlisted_for_long(at(1_000)),
        [],
        "the first look begins the time"
    );
    assert_eq!(streams.unlisted_for_long(at(1_000 + AFTER_MS - 1)), []);
    assert_eq!(streams.unlisted_for_long(at(1_000 + AFTER_MS)), [stream(1)]);
}

/// A batch that arrived, durably.
fn batch(streams: &mut Streams, stream: &Stream, seq: u64) {
    let mut bytes = Vec::new();
    frame::append(Kind::Batch, b"x", &mut bytes).unwrap();
    let head = BatchHead {
        stream: stream.clone(),
        seq,
        verdict: Verdict::Store,
        at: UnixMicros(1),
        clock: Clock::SYNCED,
        via: None,
        rules: RulesId::of(b""),
        around: None,
        evidence: None,
    };
    streams.apply_as(&Record::Batch(head, &bytes), false);
    streams.synced();
}

#[test]
fn with_custody_that_ends_at_the_journal_all_that_is_received_is_committed() {
    for (mode, committed) in [(Mode::Sinks, 0), (Mode::Journal, 2)] {
        let mut streams = streams_of(mode, &[LAKE]);
        open(&mut streams, &stream(1), false, at(0));
        (0..2).for_each(|seq| batch(&mut streams, &stream(1), seq));
        let mark = streams.mark(&stream(1), 0).unwrap();
        assert_eq!((mark.received, mark.committed), (2, committed));
    }
}

#[test]
fn what_its_sender_still_holds_is_asked_for_again_and_of_custody_that_ended_it_is_named() {
    let range = SeqRange::new(0, 1);
    let named = Say::Gap(stream(1), Some(range), GapReason::Damaged);
    let again = Say::Lost(stream(1), range);
    for (mode, expected) in [(Mode::Sinks, again), (Mode::Journal, named)] {
        let mut streams = streams_of(mode, &[LAKE]);
        open(&mut streams, &stream(1), false, at(0));
        batch(&mut streams, &stream(1), 0);
        streams.watch(2);
        assert_eq!(said(&mut streams, 2), [expected]);
    }
}
