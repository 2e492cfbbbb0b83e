//! Every record comes back from its bytes, and the bytes stay as they are.

use super::*;
use headwater_proto::ids::Lane;
use headwater_proto::portion::Cursor;
use proptest::prelude::*;

fn stream() -> Stream {
    Stream {
        device: DeviceId::new("dev-1").unwrap(),
        lane: Lane::Normal,
        epoch: Epoch::new(0x1234_5678_9abc),
    }
}

fn batch() -> BatchHead {
    BatchHead {
        stream: stream(),
        seq: 300,
        verdict: Verdict::Quarantine(Reason::IdentityConflict),
        at: UnixMicros(1_700_000_000_000_000),
        clock: Clock {
            class: TimeClass::Dated,
            offset_us: -5,
            error_ms: Some(250),
        },
        via: Some(DeviceId::new("gw").unwrap()),
        rules: RulesId::of(b"rules"),
        around: Some(SPAN),
        evidence: Some(Evidence::Uptime {
            uptime_us: 7,
            wall: Some((8, 9, -10)),
            began_us: 11,
            confirmed: true,
        }),
    }
}

const UNDATED: Undated = Undated {
    number: 2,
    boot: 3,
    zero_us: -4,
    by_fleet: true,
    last_us: 5,
};

const SPAN: Span = Span {
    first: UnixMicros(1_600_000_000_000_000),
    last: UnixMicros(1_700_000_000_000_000),
    known: Known::Neighbours,
};

fn raw() -> RawHead<'static> {
    RawHead {
        device: DeviceId::new("pump").unwrap(),
        epoch: Epoch::new(7),
        seq: 2,
        verdict: Verdict::Store,
        at: UnixMicros(10),
        rules: RulesId::of(b"rules"),
        rule: 3,
        metric: "t",
        topic: "a/pump/t",
        client: "c",
        packet_id: 513,
        hash: 0xfeed,
    }
}

fn states(bytes: usize) -> DecoderStates {
    let state = DecoderState {
        device: DeviceId::new("edge").unwrap(),
        decoder: 1,
        position: 77,
        bytes: vec![5; bytes],
    };
    DecoderStates {
        states: vec![state],
    }
}

fn one_of_each() -> Vec<Record<'static>> {
    vec![
        Record::Batch(batch(), b"frame"),
        Record::Raw(raw(), b"{}"),
        Record::Plan(PlanHead { sink: "lake" }, b"plan"),
        Record::Cursor(CursorHead {
            sink: "lake",
            position: 129,
        }),
        Record::Mark(MarkHead {
            stream: stream(),
            change: Change::Opened {
                oldest: 1,
                ram: true,
                boot: 9,
                base: Base::Uptime,
                relayed: true,
            },
            at: UnixMicros(3),
        }),
        Record::Registry(b"row"),
        Record::Session(SessionHead {
            client: "c",
            present: true,
        }),
        Record::Schema(
            SchemaHead {
                origin: DeviceId::new("d").unwrap(),
                epoch: Epoch::new(5),
                number: 1,
            },
            b"schema",
        ),
        Record::Gap(GapHead {
            stream: stream(),
            range: Some(SeqRange::new(1, 4)),
            span: SPAN,
            reason: GapReason::MissingAtSource,
            at: UnixMicros(-1),
        }),
        Record::Park(batch(), b"frame"),
        Record::Begin(BeginHead {
            journal: JournalId(7),
            plain_epoch: Epoch::new(8),
            apart_since: Some(300),
            sinks: vec![SinkCursor {
                name: "lake".into(),
                position: 129,
            }],
            clock: ClockHead {
                undated: Some(UNDATED),
                ..ClockHead::default()
            },
        }),
        Record::Mark(MarkHead {
            stream: stream(),
            change: Change::Lost {
                range: SeqRange::new(1, 4),
            },
            at: UnixMicros(3),
        }),
        Record::Rules(b"rules"),
        Record::DecoderState(DecoderStates::default()),
        Record::DecoderState(states(3)),
        Record::Lacks(LacksHead {
            sink: "hot",
            stream: stream(),
            ranges: vec![(SeqRange::new(1, 4), SPAN), (SeqRange::new(7, 8), SPAN)],
            reason: GapReason::SinkSkipped,
            at: UnixMicros(5),
        }),
        Record::Portion(PortionHead {
            origin: stream().device,
            epoch: stream().epoch,
            portion: Portion {
                source: "log".parse().unwrap(),
                from: None,
                to: Cursor {
                    major: 1,
                    minor: 2,
                    tag: 3,
                },
            },
        }),
        Record::Clock(ClockHead {
            undated: None,
            waiting: vec![UNDATED],
            ties: vec![Tie {
                number: 1,
                offset_us: 2,
                error_ms: 3,
                until: 4,
            }],
        }),
    ]
}

#[test]
fn every_record_comes_back_as_it_was() {
    let mut out = Vec::new();
    for record in one_of_each() {
        record.encode(&mut out);
        assert_eq!(decode(record.kind().to_u8(), &out).unwrap(), record);
    }
}

#[test]
fn decoder_states_beyond_their_bound_are_not_read() {
    let mut out = Vec::new();
    let mut at = |bytes: usize| {
        Record::DecoderState(states(bytes)).encode(&mut out);
        decode(RecordKind::DecoderState.to_u8(), &out).is_ok()
    };
    assert!(at(MAX_DECODER_STATE_BYTES - 32));
    assert!(!at(MAX_DECODER_STATE_BYTES));
}

#[test]
fn the_bytes_of_version_5_are_frozen() {
    let golden = include_str!("../../../tests/golden/envelope-5.txt");
    let mut out = Vec::new();
    let mut text = String::new();
    for record in one_of_each() {
        record.encode(&mut out);
        let hex: String = out.iter().map(|byte| format!("{byte:02x}")).collect();
        text += &format!("{} {hex}\n", record.kind().to_u8());
    }
    assert_eq!(
        text, golden,
        "the journal's format changed: that needs a new version"
    );
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_an_error_or_a_record_and_never_a_panic(
        kind in 0u8..16,
        bytes in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let _ = decode(kind, &bytes);
    }
}
