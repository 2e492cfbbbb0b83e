//! The bodies of version 2: exact bytes, bounds, and what hostile bytes do.

#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

use headwater_proto::frame::{self, Kind};
use headwater_proto::ids::{DeviceId, Epoch, JournalId, Lane, MAX_DEVICE_ID_BYTES, SeqRange};
use headwater_proto::message::{
    self, Ack, AckRange, Body, EpochEnd, Gap, GapReason, Hello, HelloStream, MAX_ACK_RANGES,
    MAX_HELLO_STREAMS, MAX_MARKS, MAX_MESSAGE_BYTES, MAX_SEQ, Mark, MessageError, Reject,
    RejectReason, SchemaRequest, Seal, Stage, Stat, TimeBase, WallClock, Welcome,
};
use headwater_proto::portion::{Cursor, Held, MAX_PLACES, MAX_SOURCE_BYTES, Place, Portion};
use headwater_proto::time::{Base, UnixMicros};
use proptest::prelude::*;

fn device() -> DeviceId {
    DeviceId::new("pump-7").unwrap()
}

fn mark() -> Mark {
    Mark {
        lane: Lane::Normal,
        epoch: Epoch::new(0x1234_5678_9abc),
        received: 300,
        committed: 200,
        ranges: [AckRange {
            first: 310,
            next: 320,
            committed: true,
        }]
        .into_iter()
        .collect(),
    }
}

fn hello() -> Hello {
    Hello {
        version_min: 2,
        version_max: 2,
        origin: device(),
        nonce: 0xfeed_beef,
        page: 0,
        pages: 1,
        complete: true,
        boot: 3,
        uptime_ms: 12_345,
        wall: Some(WallClock {
            time: UnixMicros(1_700_000_000_000_000),
            error_ms: Some(50),
        }),
        max_bundle: 262_144,
        streams: [HelloStream {
            lane: Lane::Alarm,
            epoch: Epoch::new(77),
            oldest: 5,
            next: 9,
            ram: false,
            ended: true,
            boot: 2,
            base: Base::Uptime,
        }]
        .into_iter()
        .collect(),
    }
}

fn welcome() -> Welcome {
    Welcome {
        version: 2,
        origin: device(),
        nonce: 0xfeed_beef,
        page: 0,
        pages: 1,
        journal: JournalId(99),
        credit: 1_048_576,
        max_bundle: 262_144,
        time: UnixMicros(1_700_000_000_000_000),
        marks: [mark()].into_iter().collect(),
    }
}

fn ack() -> Ack {
    Ack {
        origin: device(),
        journal: JournalId(99),
        credit: 0,
        time: UnixMicros(-1),
        marks: [mark()].into_iter().collect(),
    }
}

fn reject() -> Reject {
    Reject {
        origin: device(),
        lane: Lane::Bulk,
        epoch: Epoch::new(5),
        range: SeqRange::new(7, 8),
        reason: RejectReason::TooLarge,
    }
}

fn schema_request() -> SchemaRequest {
    SchemaRequest {
        origin: device(),
        lane: Lane::Normal,
        epoch: Epoch::new(5),
        schema: 2,
    }
}

fn gap() -> Gap {
    Gap {
        origin: device(),
        lane: Lane::Normal,
        epoch: Epoch::new(5),
        seqs: Some(SeqRange::new(10, 20)),
        samples: Some(1000),
        t_first: Some(UnixMicros(1_000)),
        t_last: Some(UnixMicros(2_000)),
        reason: GapReason::Evicted,
        stage: Stage::Agent,
        part: Some("host".try_into().unwrap()),
        at: UnixMicros(3_000),
    }
}

fn epoch_end() -> EpochEnd {
    EpochEnd {
        origin: device(),
        lane: Lane::Normal,
        epoch: Epoch::new(5),
        first: 0,
        next: 400,
        clean: true,
        boot: 3,
        last_durable: Some(UnixMicros(1_000)),
    }
}

fn time_base() -> TimeBase {
    TimeBase {
        origin: device(),
        boot: 2,
        uptime_us: 70_000_000,
        wall: UnixMicros(1_700_000_000_000_000),
        error_ms: Some(20),
    }
}

fn stat() -> Stat {
    Stat {
        origin: device(),
        program: "0.1.0".try_into().unwrap(),
        boot: 3,
        uptime_ms: 12_345,
        samples: 1_000_000,
        backlog_records: 5,
        backlog_bytes: 5_000,
        evicted: 0,
        resent: 1,
        memory_bytes: Some(8 << 20),
    }
}

/// Asserts the frame's exact bytes, kept as hex in `golden/`, and that they come back.
fn frozen<M: Body + PartialEq + std::fmt::Debug>(message: &M, golden: &str) {
    let mut out = [0; MAX_MESSAGE_BYTES];
    let len = message::encode_frame(message, &mut out).unwrap();
    let hex: String = out[..len]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(
        hex,
        golden.trim(),
        "{:?}: a change of version 2's bytes is wrong",
        M::KIND
    );
    let (frame, _) = frame::decode(&out[..len]).unwrap();
    assert_eq!(frame.kind, M::KIND);
    assert_eq!(&message::decode::<M>(frame.payload).unwrap(), message);
}

#[test]
fn the_bytes_of_version_2_are_frozen() {
    frozen(&hello(), include_str!("golden/hello.hex"));
    frozen(&welcome(), include_str!("golden/welcome.hex"));
    frozen(&ack(), include_str!("golden/ack.hex"));
    frozen(&reject(), include_str!("golden/reject.hex"));
    frozen(&schema_request(), include_str!("golden/schema_request.hex"));
    frozen(&gap(), include_str!("golden/gap.hex"));
    frozen(&epoch_end(), include_str!("golden/epoch_end.hex"));
    frozen(&time_base(), include_str!("golden/time_base.hex"));
    frozen(&stat(), include_str!("golden/stat.hex"));
}

#[test]
fn the_seal_stands_before_the_body_and_leaves_its_bytes_alone() {
    let seal = Seal {
        counter: 0x0102_0304,
        mac: [0xaa; 16],
    };
    let mut sealed = [0; MAX_MESSAGE_BYTES];
    let len = message::encode_sealed(&ack(), Some(&seal), &mut sealed).unwrap();
    assert_eq!(sealed[..9], [1, 4, 3, 2, 1, 0, 0, 0, 0]);
    let (message, found, body) = message::decode_sealed::<Ack>(&sealed[..len]).unwrap();
    assert_eq!((message, found), (ack(), Some(seal)));
    assert_eq!(body, &message::to_vec(&ack())[1..]);
    sealed[0] = 2;
    assert_eq!(
        message::decode::<Ack>(&sealed[..len]),
        Err(MessageError::Seal(Kind::Ack)),
        "an unknown seal is refused"
    );
}

#[test]
fn the_largest_messages_fit_their_bound() {
    let longest = DeviceId::new(&"x".repeat(MAX_DEVICE_ID_BYTES)).unwrap();
    let epoch = Epoch::new(u64::MAX);
    let ranges = (0..MAX_ACK_RANGES as u64)
        .map(|k| AckRange {
            first: MAX_SEQ - 99 + 2 * k,
            next: MAX_SEQ - 98 + 2 * k,
            committed: true,
        })
        .collect();
    let seq = MAX_SEQ - 100;
    let mark = Mark {
        lane: Lane::Plain,
        epoch,
        received: seq,
        committed: seq,
        ranges,
    };
    let mut big = welcome();
    big.origin = longest.clone();
    (big.nonce, big.journal) = (u64::MAX, JournalId(u64::MAX));
    big.time = UnixMicros(i64::MIN);
    big.marks = std::iter::repeat_n(mark, MAX_MARKS).collect();
    let mut out = [0; MAX_MESSAGE_BYTES];
    let seal = Seal {
        counter: u64::MAX,
        mac: [0xff; 16],
    };
    let len = message::encode_sealed(&big, Some(&seal), &mut out[..MAX_MESSAGE_BYTES - 9]).unwrap();
    assert_eq!(message::decode::<Welcome>(&out[..len]), Ok(big));

    let mut big = hello();
    big.origin = longest;
    (big.boot, big.nonce, big.uptime_ms) = (u64::MAX, u64::MAX, u64::MAX);
    let stream = HelloStream {
        lane: Lane::Plain,
        epoch,
        oldest: MAX_SEQ,
        next: MAX_SEQ,
        ram: true,
        ended: true,
        boot: u64::MAX,
        base: Base::Uptime,
    };
    big.streams = std::iter::repeat_n(stream, MAX_HELLO_STREAMS).collect();
    assert!(message::encode_frame(&big, &mut out).is_ok());
}

#[test]
fn numbers_that_make_no_sense_are_refused() {
    let mut bad = gap();
    bad.seqs = Some(SeqRange::new(20, 10));
    refused(&bad);
    let mut bad = epoch_end();
    bad.next = MAX_SEQ + 1;
    refused(&bad);
    let mut bad = ack();
    bad.marks[0].committed = bad.marks[0].received + 1;
    refused(&bad);
    let mut bad = ack();
    bad.marks[0].ranges[0].first = 0;
    refused(&bad);
    let mut bad = hello();
    bad.page = 1;
    refused(&bad);
    let mut bad = hello();
    bad.streams[0].oldest = 10;
    refused(&bad);
}

fn refused<M: Body + PartialEq + std::fmt::Debug>(message: &M) {
    let payload = message::to_vec(message);
    assert_eq!(
        message::decode::<M>(&payload),
        Err(MessageError::Sense(M::KIND))
    );
}

#[test]
fn bytes_after_a_body_are_refused() {
    let mut payload = message::to_vec(&gap());
    payload.push(0);
    assert_eq!(
        message::decode::<Gap>(&payload),
        Err(MessageError::Body(Kind::Gap))
    );
}

#[test]
fn every_reason_and_stage_has_a_name_of_its_own() {
    for reason in GapReason::ALL {
        assert_eq!(GapReason::from_name(reason.name()), Some(reason));
    }
    for stage in Stage::ALL {
        assert_eq!(Stage::from_name(stage.name()), Some(stage));
    }
}

fn try_all(bytes: &[u8]) {
    let _ = message::decode::<Hello>(bytes);
    let _ = message::decode::<Welcome>(bytes);
    let _ = message::decode::<Ack>(bytes);
    let _ = message::decode::<Reject>(bytes);
    let _ = message::decode::<SchemaRequest>(bytes);
    let _ = message::decode::<Gap>(bytes);
    let _ = message::decode::<EpochEnd>(bytes);
    let _ = message::decode::<Stat>(bytes);
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        try_all(&bytes);
    }

    #[test]
    fn damaged_messages_never_panic(at in 0usize..200, to: u8, which in 0usize..4) {
        let mut bytes = match which {
            0 => message::to_vec(&hello()),
            1 => message::to_vec(&welcome()),
            2 => message::to_vec(&gap()),
            _ => message::to_vec(&ack()),
        };
        if let Some(byte) = bytes.get_mut(at) {
            *byte = to;
        }
        try_all(&bytes);
    }
}

#[test]
fn what_is_said_of_contents_has_frozen_bytes_and_fits_a_message() {
    let cursor = Cursor {
        major: 1,
        minor: 300,
        tag: 7,
    };
    let portion = Portion {
        source: "log".parse().unwrap(),
        from: None,
        to: cursor,
    };
    assert_eq!(message::to_vec(&portion), b"\x03log\x00\x01\xac\x02\x07");
    assert_eq!(
        message::decode(&message::to_vec(&portion)),
        Ok(portion.clone())
    );
    let backwards = Portion {
        from: Some(Cursor {
            minor: 301,
            ..cursor
        }),
        ..portion
    };
    let sense = message::decode::<Portion>(&message::to_vec(&backwards));
    assert_eq!(sense, Err(MessageError::Sense(Kind::Portion)));

    let furthest = Cursor {
        major: u64::MAX,
        minor: u64::MAX,
        tag: u64::MAX,
    };
    let held = |source: &str, cursor, places| {
        let place = Place {
            source: source.parse().unwrap(),
            cursor,
            is_last: true,
        };
        Held {
            origin: DeviceId::<MAX_DEVICE_ID_BYTES>::new(&"d".repeat(MAX_DEVICE_ID_BYTES)).unwrap(),
            places: std::iter::repeat_n(place, places).collect(),
        }
    };
    let longest = held(&"s".repeat(MAX_SOURCE_BYTES), furthest, MAX_PLACES);
    let bytes = message::to_vec(&longest);
    assert!(bytes.len() < MAX_MESSAGE_BYTES);
    assert_eq!(message::decode(&bytes), Ok(longest));
    let short = message::to_vec(&held("log", cursor, 1));
    assert_eq!(
        short[short.len() - 10..],
        *b"\x01\x03log\x01\xac\x02\x07\x01"
    );
    let nameless = message::to_vec(&held("", cursor, 1));
    let refused = message::decode::<Held>(&nameless);
    assert_eq!(refused, Err(MessageError::Sense(Kind::Held)));
}
