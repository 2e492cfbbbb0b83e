//! Sessions alone: what waits is bounded and keeps its order, and answers leave with their group or not
//! at all.

use std::sync::Arc;

use bytes::Bytes;
use headwater_gate::{CloseReason, ConnId, Token};
use headwater_proto::frame::Frames;
use headwater_proto::ids::{DeviceId, Epoch, JournalId, Lane, Stream};
use headwater_proto::message::{Hello, HelloStream, Mark, PROTOCOL};
use headwater_proto::time::{Base, Millis, Now, UnixMicros};

use super::super::types::{Event, Output, Settings};
use super::{MAX_ASKED, MAX_ORIGINS, Said, Sessions, Terms};
use crate::pipeline::envelope::SchemaHead;

const CONN: ConnId = ConnId(1);
const OTHER: ConnId = ConnId(2);
const NOW: Now = Now {
    mono: Millis(1),
    wall: UnixMicros(1),
};
const TERMS: Terms = Terms {
    journal: JournalId(7),
    max_bundle: 1_000,
    time: NOW.wall,
};

fn sessions() -> Sessions {
    let settings = Settings {
        withheld_bytes_per_connection: 10,
        withheld_bytes: 15,
        ..Settings::default()
    };
    let mut sessions = Sessions::new(&settings, 1);
    for conn in [CONN, OTHER] {
        sessions.connected(conn, Arc::from("d"));
    }
    sessions
}

fn device() -> DeviceId {
    DeviceId::new("d").unwrap()
}

fn stream() -> Stream {
    Stream {
        device: device(),
        lane: Lane::Normal,
        epoch: Epoch::new(3),
    }
}

/// A publish that counts for `bytes` while it waits.
fn publish(conn: ConnId, bytes: usize) -> Event {
    Event::Up {
        conn,
        device: device(),
        payload: Bytes::from(vec![0; bytes - 1]),
        token: None,
    }
}

fn hello(origin: &DeviceId) -> Hello {
    let listed = HelloStream {
        lane: Lane::Normal,
        epoch: Epoch::new(3),
        oldest: 5,
        next: 9,
        ram: false,
        boot: 1,
        base: Base::Wall,
        ended: false,
    };
    Hello {
        version_min: PROTOCOL,
        version_max: PROTOCOL,
        origin: origin.clone(),
        nonce: 7,
        page: 0,
        pages: 1,
        complete: true,
        boot: 1,
        uptime_ms: 1_000,
        wall: None,
        max_bundle: 65_536,
        streams: [listed].into_iter().collect(),
    }
}

fn outputs(sessions: &mut Sessions) -> Vec<Output> {
    std::iter::from_fn(|| sessions.next_output()).collect()
}

/// All that somebody holds from a number on was received.
fn all(stream: &Stream, oldest: u64) -> Option<Mark> {
    Some(Mark {
        lane: stream.lane,
        epoch: stream.epoch,
        received: oldest,
        committed: oldest,
        ranges: Default::default(),
    })
}

#[test]
fn what_waits_keeps_its_order_and_its_bytes_come_back() {
    let mut sessions = sessions();
    sessions.withhold(publish(CONN, 4), NOW);
    sessions.withhold(publish(OTHER, 5), NOW);
    assert!(sessions.is_stalled() && sessions.is_waiting(CONN));
    let (first, at) = sessions.next_withheld().unwrap();
    assert_eq!(
        (first.conn(), sessions.is_waiting(CONN)),
        (Some(CONN), false)
    );
    sessions.put_back(first, at);
    assert!(sessions.is_waiting(CONN));
    let order: Vec<_> = std::iter::from_fn(|| sessions.next_withheld())
        .map(|(event, _)| event.conn())
        .collect();
    assert_eq!(order, [Some(CONN), Some(OTHER)]);
    assert_eq!(sessions.withheld_bytes, 0);
}

#[test]
fn more_than_may_wait_closes_the_connection_and_frees_what_it_kept() {
    let mut sessions = sessions();
    sessions.withhold(publish(CONN, 6), NOW);
    sessions.withhold(publish(CONN, 5), NOW);
    let reason = CloseReason::Journal;
    assert_eq!(
        outputs(&mut sessions),
        [Output::Close { conn: CONN, reason }]
    );
    assert!(!sessions.is_stalled());
    assert_eq!(sessions.withheld_bytes, 0);
    // The bound of all together.
    sessions.connected(CONN, Arc::from("d"));
    sessions.withhold(publish(CONN, 8), NOW);
    sessions.withhold(publish(OTHER, 8), NOW);
    assert_eq!(
        outputs(&mut sessions),
        [Output::Close {
            conn: OTHER,
            reason
        }]
    );
    assert!(sessions.is_waiting(CONN));
}

#[test]
fn a_connection_that_closes_while_its_publish_is_taken_frees_its_bytes_once() {
    let mut sessions = sessions();
    sessions.withhold(publish(CONN, 4), NOW);
    sessions.withhold(publish(OTHER, 5), NOW);
    let (event, at) = sessions.next_withheld().unwrap();
    sessions.close(CONN, CloseReason::Protocol);
    assert_eq!(sessions.withheld_bytes, 5, "the other one still waits");
    sessions.put_back(event, at);
    assert_eq!(sessions.withheld_bytes, 5, "nobody is there to wait");
}

#[test]
fn answers_leave_with_their_group_and_none_leaves_of_one_that_failed() {
    let mut sessions = sessions();
    assert!(matches!(
        sessions.hello(CONN, &hello(&device()), NOW),
        Said::Whole(_)
    ));
    let Said::Whole(streams) = sessions.hello(CONN, &hello(&device()), NOW) else {
        panic!("a Hello of one page is whole");
    };
    let listed = streams.iter().map(|s| ((s.lane, s.epoch), *s)).collect();
    sessions.listed(CONN, &device(), listed);
    assert!(sessions.is_listed(&stream()));
    sessions.owe_welcome(CONN, &device());
    sessions.owe_acks(&stream());
    sessions.owe_puback(CONN, Some(Token(1)));
    assert_eq!(outputs(&mut sessions), [], "nothing is durable yet");
    sessions.settle(1_000, TERMS, &all, &|_| Vec::new());
    let kinds: Vec<_> = outputs(&mut sessions)
        .iter()
        .map(|output| match output {
            Output::PubAck { .. } => "PUBACK".to_owned(),
            Output::Send { payload, .. } => {
                let (frame, _) = Frames::new(payload).next().unwrap().unwrap();
                format!("{:?}", frame.kind)
            }
            Output::Close { .. } => "close".to_owned(),
            Output::Shared { .. } => "an identity of two".to_owned(),
            Output::Crowded { .. } => "more than its share".to_owned(),
            Output::Clock(_) => "a clock".to_owned(),
            Output::Read(_) => "a stretch to read".to_owned(),
            Output::Keep(_) => "epochs to keep".to_owned(),
            Output::Find(_) => "epochs to look up".to_owned(),
        })
        .collect();
    assert_eq!(kinds, ["PUBACK", "Welcome", "Ack"]);
    sessions.owe_puback(OTHER, Some(Token(2)));
    sessions.fail_group();
    sessions.settle(1_000, TERMS, &all, &|_| Vec::new());
    let reason = CloseReason::Journal;
    let closed = Output::Close {
        conn: OTHER,
        reason,
    };
    assert_eq!(outputs(&mut sessions), [closed]);
}

#[test]
fn who_was_stopped_hears_that_credit_is_back() {
    let mut sessions = sessions();
    assert!(matches!(
        sessions.hello(CONN, &hello(&device()), NOW),
        Said::Whole(_)
    ));
    sessions.settle(0, TERMS, &all, &|_| Vec::new());
    assert_eq!(outputs(&mut sessions), []);
    sessions.settle(9, TERMS, &all, &|_| Vec::new());
    assert_eq!(outputs(&mut sessions).len(), 1);
    sessions.settle(10, TERMS, &all, &|_| Vec::new());
    assert_eq!(outputs(&mut sessions), []);
    assert_eq!(sessions.credit, 10);
}

#[test]
fn one_origin_more_than_a_connection_may_have_ends_it() {
    let mut sessions = sessions();
    for number in 0..MAX_ORIGINS {
        let origin = DeviceId::new(&format!("n{number}")).unwrap();
        assert!(matches!(
            sessions.hello(CONN, &hello(&origin), NOW),
            Said::Whole(_)
        ));
    }
    assert!(matches!(
        sessions.hello(CONN, &hello(&device()), NOW),
        Said::Nothing
    ));
    let reason = CloseReason::Protocol;
    assert_eq!(
        outputs(&mut sessions),
        [Output::Close { conn: CONN, reason }]
    );
}

#[test]
fn a_schema_is_asked_for_once_and_what_is_remembered_is_bounded() {
    let mut sessions = sessions();
    let schema = |number| SchemaHead {
        origin: device(),
        epoch: Epoch::new(3),
        number,
    };
    let mut ask = |number| sessions.ask(CONN, Lane::Normal, schema(number), NOW);
    assert!(ask(0) && !ask(0));
    let most = u32::try_from(MAX_ASKED).unwrap();
    assert!((1..=most).all(&mut ask));
    assert!(ask(0), "it made room for one more");
    for number in 0..=most {
        sessions.refer(CONN, schema(number), [0; 32]);
        sessions.refuse(CONN, schema(number));
    }
    let asked = sessions.asked(CONN).unwrap();
    assert_eq!(asked.referred(&schema(0)), Some([0; 32]));
    assert_eq!(asked.referred(&schema(most)), None);
    assert!(asked.is_refused(&schema(most)));
    assert!(!asked.is_refused(&schema(0)));
}
