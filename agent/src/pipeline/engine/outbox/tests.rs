//! The outbox alone, with a shelf that holds what a test puts there.

use std::collections::BTreeMap;

use headwater_proto::bundle::Bundle;
use headwater_proto::delivery::SenderLimits;
use headwater_proto::frame;
use headwater_proto::ids::JournalId;
use headwater_proto::message::{Hello, Mark, PROTOCOL};
use headwater_proto::time::Base;
use proptest::prelude::*;

use super::*;
use crate::pipeline::record::Envelope;
use crate::pipeline::text::TextBatch;

const LANE: Lane = Lane::Normal;
const EPOCH: Epoch = Epoch::new(5);
const LIFE: Life = Life {
    boot: 1,
    base: Base::Wall,
};
const MAX_BUNDLE: u32 = 1_000;

/// One epoch of one lane.
#[derive(Default)]
struct Fake {
    records: BTreeMap<u64, Vec<u8>>,
    schemas: BTreeMap<u32, Vec<u8>>,
    /// How a read ends that begins below this number.
    bad: Option<Read>,
    is_full: bool,
    /// How often schemas were looked for, near a record and everywhere.
    looked: (usize, usize),
}

impl Fake {
    /// Puts a record there whose frame is of this kind.
    fn put(&mut self, kind: Kind, payload: &[u8]) {
        let seq = self.records.keys().next_back().map_or(0, |last| last + 1);
        let mut bytes = Vec::new();
        frame::append(kind, payload, &mut bytes).unwrap();
        let mut out = Vec::new();
        Envelope {
            seq,
            epoch: Some(EPOCH),
            life: LIFE,
            stamps: Stamps::default(),
            source: "log",
            cursor: None,
            from: None,
            live: true,
            stored_to: None,
            schema: None,
            frame: &bytes,
        }
        .encode(&mut out);
        self.records.insert(seq, out);
    }

    /// As many records as that, of `len` bytes each.
    fn with(records: usize, len: usize) -> Self {
        let mut fake = Self::default();
        for _ in 0..records {
            fake.put(Kind::Refused, &vec![7; len]);
        }
        fake
    }

    fn held(&self) -> HeldEpoch {
        HeldEpoch {
            lane: LANE,
            epoch: EPOCH,
            first: 0,
            next: self.records.keys().next_back().map_or(0, |last| last + 1),
            ram: false,
            ended: false,
            boot: LIFE.boot,
            base: LIFE.base,
            end_named_in: None,
            dated_by: None,
        }
    }
}

impl Shelf for Fake {
    fn kept(&self, _: Lane, _: Epoch) -> Kept {
        Kept {
            life: LIFE,
            ram: false,
        }
    }

    fn is_writable(&self, _: Lane) -> bool {
        !self.is_full
    }

    fn read(
        &mut self,
        _: Lane,
        _: Epoch,
        range: SeqRange,
        _: usize,
        take: &mut dyn FnMut(u64, &[u8]) -> ControlFlow<()>,
    ) -> Read {
        if let Some(Read::Damaged(below) | Read::Unreadable(below)) = self.bad
            && range.first < below
        {
            return self.bad.unwrap();
        }
        for (seq, payload) in self.records.range(range.first..range.next) {
            if take(*seq, payload).is_break() {
                // As a log does: a record that was shown counts as passed.
                return Read::Through(*seq + 1);
            }
        }
        Read::Through(range.next)
    }

    fn schemas(
        &mut self,
        _: Lane,
        _: Epoch,
        near: Option<u64>,
        wanted: u32,
        keep: &mut dyn FnMut(u32, &[u8]),
    ) {
        if near.is_some() {
            self.looked.0 += 1;
        } else {
            self.looked.1 += 1;
            if let Some(bytes) = self.schemas.get(&wanted) {
                keep(wanted, bytes);
            }
        }
    }
}

const fn clocks(ms: u64) -> Clocks {
    let now = Now {
        mono: Millis(ms),
        wall: UnixMicros(0),
    };
    Clocks { now, wall: None }
}

fn device() -> DeviceId {
    DeviceId::new("pump-1").unwrap()
}

fn mark(received: u64, committed: u64) -> Mark {
    Mark {
        lane: LANE,
        epoch: EPOCH,
        received,
        committed,
        ranges: heapless::Vec::new(),
    }
}

fn down<M: message::Body>(message: &M) -> Vec<u8> {
    let mut out = Vec::new();
    message::append_frame(message, &mut out);
    out
}

/// An outbox whose Hello is answered: nothing of the epoch has arrived yet.
fn greeted(fake: &mut Fake) -> Outbox {
    let limits = SenderLimits {
        max_bundle: MAX_BUNDLE,
        ..SenderLimits::DEFAULT
    };
    let mut outbox = Outbox::new(device(), LIFE.boot, limits, 1);
    outbox.stored(fake.held());
    outbox.link_up(Millis(0));
    let Some(Out::Publish(bytes)) = outbox.next(fake, clocks(0)) else {
        panic!("no Hello");
    };
    let (frame, _) = frame::decode(&bytes).unwrap();
    let hello: Hello = message::decode(frame.payload).unwrap();
    let welcome = Welcome {
        version: PROTOCOL,
        origin: device(),
        nonce: hello.nonce,
        page: 0,
        pages: 1,
        journal: JournalId(7),
        credit: 1 << 20,
        max_bundle: 1 << 20,
        time: UnixMicros(70),
        marks: [mark(0, 0)].into_iter().collect(),
    };
    let heard = outbox.message(&down(&welcome), fake, clocks(5));
    let sent = Millis(0);
    let time = UnixMicros(70);
    assert_eq!(heard, [Heard { time, sent }]);
    outbox
}

fn ack(received: u64, committed: u64) -> Vec<u8> {
    down(&Ack {
        origin: device(),
        journal: JournalId(7),
        credit: 1 << 20,
        time: UnixMicros(80),
        marks: [mark(received, committed)].into_iter().collect(),
    })
}

/// Numbers of the records of a bundle, and how many schemas go with them.
fn opened(out: Option<Out>) -> (Vec<u64>, usize) {
    let Some(Out::Publish(bytes)) = out else {
        panic!("{out:?}");
    };
    let bundle = Bundle::open(&bytes).unwrap();
    let seqs = bundle.records().filter_map(|record| record.seq).collect();
    let all = bundle.records().count();
    let schemas = all - bundle.records().filter(|it| it.seq.is_some()).count();
    (seqs, schemas)
}

#[test]
fn an_ack_of_a_bundle_that_went_out_twice_tells_nothing_of_the_collectors_clock() {
    let mut fake = Fake::with(10, 300);
    let mut outbox = greeted(&mut fake);
    let first = opened(outbox.next(&mut fake, clocks(10))).0;
    let count = first.len() as u64;
    while outbox.next(&mut fake, clocks(10)).is_some() {}
    assert_eq!(
        outbox.message(&ack(count, 0), &mut fake, clocks(20)).len(),
        1
    );
    // The Ack of the others is on its way for so long that they go out again: it was made before that.
    outbox.take_in(Input::Tick, Millis(600_000));
    let mut again = Vec::new();
    while let Some(out) = outbox.next(&mut fake, clocks(600_000)) {
        if let Out::Publish(bytes) = out
            && Bundle::is_bundle(&bytes)
        {
            again.extend(opened(Some(Out::Publish(bytes))).0);
        }
    }
    assert_eq!(again, (count..10).collect::<Vec<_>>());
    assert_eq!(outbox.message(&ack(10, 0), &mut fake, clocks(600_001)), []);
}

#[test]
fn what_is_stored_goes_out_once_and_is_forgotten_when_it_is_committed() {
    let mut fake = Fake::with(10, 300);
    let mut outbox = greeted(&mut fake);
    let mut sent = Vec::new();
    while let Some(out) = outbox.next(&mut fake, clocks(10)) {
        sent.extend(opened(Some(out)).0);
    }
    assert_eq!(sent, (0..10).collect::<Vec<_>>());
    // The first bundle is answered: that tells when the collector looked at its clock.
    let heard = outbox.message(&ack(10, 4), &mut fake, clocks(20));
    let (time, sent) = (UnixMicros(80), Millis(10));
    assert_eq!(heard, [Heard { time, sent }]);
    assert!(outbox.is_committed(LANE, EPOCH, SeqRange::new(0, 4)));
    assert!(!outbox.is_committed(LANE, EPOCH, SeqRange::new(0, 5)));
    let forget = Out::Forget {
        lane: LANE,
        epoch: EPOCH,
        through: 4,
    };
    assert_eq!(outbox.next(&mut fake, clocks(20)), Some(forget));
    assert_eq!(outbox.next(&mut fake, clocks(20)), None);
}

#[test]
fn what_is_damaged_is_told_once_and_the_rest_goes_out() {
    let mut fake = Fake::with(5, 100);
    fake.bad = Some(Read::Damaged(3));
    let mut outbox = greeted(&mut fake);
    let damaged = Out::Damaged {
        lane: LANE,
        epoch: EPOCH,
        range: SeqRange::new(0, 3),
    };
    assert_eq!(outbox.next(&mut fake, clocks(10)), Some(damaged));
    assert_eq!(opened(outbox.next(&mut fake, clocks(10))).0, [3, 4]);
    assert_eq!(outbox.next(&mut fake, clocks(10)), None);
}

#[test]
fn what_is_not_there_any_more_is_passed_over_in_silence() {
    let mut fake = Fake::with(5, 100);
    fake.records.retain(|seq, _| *seq >= 2);
    let mut outbox = greeted(&mut fake);
    assert_eq!(opened(outbox.next(&mut fake, clocks(10))).0, [2, 3, 4]);
    assert_eq!(outbox.next(&mut fake, clocks(10)), None);
}

#[test]
fn what_cannot_be_read_is_tried_again_and_given_up_only_where_the_disk_takes_records() {
    let mut fake = Fake::with(5, 100);
    fake.bad = Some(Read::Unreadable(5));
    fake.is_full = true;
    let mut outbox = greeted(&mut fake);
    for ms in [10, 10 + UNREADABLE_MS, 20 + UNREADABLE_MS] {
        assert_eq!(outbox.next(&mut fake, clocks(ms)), None);
        let retry = Millis(ms + RETRY_MS);
        assert!(outbox.next_wakeup().is_some_and(|at| at <= retry));
    }
    fake.is_full = false;
    let out = outbox.next(&mut fake, clocks(30 + UNREADABLE_MS));
    assert!(matches!(out, Some(Out::Damaged { range, .. }) if range.len() == 5));
    // A disk that is well again in time costs nothing.
    fake.bad = Some(Read::Unreadable(5));
    let mut outbox = greeted(&mut fake);
    assert_eq!(outbox.next(&mut fake, clocks(10)), None);
    fake.bad = None;
    let out = outbox.next(&mut fake, clocks(9 + UNREADABLE_MS));
    assert_eq!(opened(out).0, [0, 1, 2, 3, 4]);
}

#[test]
fn a_record_larger_than_a_bundle_is_handed_back_and_the_next_ones_go_when_it_is_named() {
    let mut fake = Fake::with(1, 2 * MAX_BUNDLE as usize);
    fake.put(Kind::Refused, b"small");
    let mut outbox = greeted(&mut fake);
    let too_large = |out| {
        let expected = Out::TooLarge {
            lane: LANE,
            epoch: EPOCH,
            seq: 0,
        };
        assert_eq!(out, Some(expected));
    };
    too_large(outbox.next(&mut fake, clocks(10)));
    too_large(outbox.next(&mut fake, clocks(10)));
    outbox.absent(LANE, EPOCH, SeqRange::new(0, 1));
    assert_eq!(opened(outbox.next(&mut fake, clocks(10))).0, [1]);
}

#[test]
fn a_schema_is_looked_for_near_its_record_then_everywhere_and_goes_out_once_before_it() {
    let mut text = TextBatch::new("log");
    let mut fake = Fake::default();
    for _ in 0..2 {
        text.push(UnixMicros(1), b"a line");
        let payload = text.close(Some((3, b"a dictionary of eight bytes or more")));
        fake.put(Kind::Text, &payload);
    }
    // One that is nowhere is looked for once, and its record goes without: the collector will ask.
    let mut outbox = greeted(&mut fake);
    assert_eq!(opened(outbox.next(&mut fake, clocks(10))), (vec![0, 1], 0));
    assert_eq!(fake.looked, (1, 1));
    fake.schemas.insert(3, b"a schema".to_vec());
    let mut outbox = greeted(&mut fake);
    assert_eq!(opened(outbox.next(&mut fake, clocks(10))), (vec![0, 1], 1));
    // Asked for, it goes alone, and not again while that answer may be under way.
    let request = down(&SchemaRequest {
        origin: device(),
        lane: LANE,
        epoch: EPOCH,
        schema: 3,
    });
    for _ in 0..2 {
        outbox.message(&request, &mut fake, clocks(20));
    }
    assert_eq!(opened(outbox.next(&mut fake, clocks(20))), (vec![], 1));
    assert_eq!(outbox.next(&mut fake, clocks(20)), None);
    assert_eq!(outbox.refused_messages(), 0);
}

/// How a record lies on the shelf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lies {
    Well,
    /// It was evicted.
    Gone,
    /// Its bytes are not those that were written.
    Rotten,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Every record that lies well goes out once, every rotten one is told once, and what is gone holds up
    /// nothing.
    #[test]
    fn every_record_goes_out_or_is_told(
        lies in proptest::collection::vec(
            prop_oneof![6 => Just(Lies::Well), 1 => Just(Lies::Gone), 1 => Just(Lies::Rotten)], 1..40,
        ),
        len in 1usize..400,
    ) {
        let all = lies.len() as u64;
        let mut fake = Fake::with(lies.len(), len);
        let mut outbox = greeted(&mut fake);
        for (seq, lie) in (0..).zip(&lies) {
            match lie {
                Lies::Well => {}
                Lies::Gone => drop(fake.records.remove(&seq)),
                Lies::Rotten => drop(fake.records.insert(seq, vec![0xff; 3])),
            }
        }
        let (mut sent, mut damaged) = (Vec::new(), Vec::new());
        // An answer is never due before its bundle: one step at a time, and then its answer.
        for ms in 10.. {
            match outbox.next(&mut fake, clocks(ms)) {
                Some(Out::Damaged { range, .. }) => damaged.extend(range.first..range.next),
                Some(Out::Forget { .. }) => {}
                None => break,
                out => sent.extend(opened(out).0),
            }
            let is_covered = |seq: &u64| {
                let lie = lies.get(usize::try_from(*seq).unwrap());
                lie == Some(&Lies::Gone) || sent.contains(seq) || damaged.contains(seq)
            };
            let received = (0..all).take_while(is_covered).count() as u64;
            outbox.message(&ack(received, received), &mut fake, clocks(ms));
        }
        let lying = |how| (0..).zip(&lies).filter(move |(_, lie)| **lie == how).map(|(seq, _)| seq);
        sent.sort_unstable();
        damaged.sort_unstable();
        prop_assert_eq!(sent, lying(Lies::Well).collect::<Vec<u64>>());
        prop_assert_eq!(damaged, lying(Lies::Rotten).collect::<Vec<u64>>());
        prop_assert!(outbox.sender().is_drained());
    }
}
