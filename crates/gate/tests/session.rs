//! One connection without a socket: what the session answers to which bytes.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking, and picks out what it looks for"
)]

use std::sync::Arc;

use headwater_gate::acl::{Acl, Gateway, TopicPattern};
use headwater_gate::identity::Loopback;
use headwater_gate::session::{Next, Rules, Session};
use headwater_gate::{Body, CloseReason, ConnId, GateEvent, Limits, Metrics, Token};
use headwater_proto::mqtt::{
    self, Ack, Connect, Disconnect, Packet, Properties, Property, Publish, Qos, Reason, Subscribe,
    Subscription, Unsubscribe, Version,
};
use headwater_proto::time::{Millis, Now, UnixMicros};
use proptest::prelude::*;

const BOTH: [Version; 2] = [Version::V4, Version::V5];

fn rules_with(limits: Limits) -> Arc<Rules> {
    Arc::new(Rules {
        limits,
        acl: Acl {
            gateways: vec![Gateway {
                client: "gw".into(),
                devices: vec!["node-*".into()],
            }],
            plain: vec![TopicPattern::parse("sensors/{device}/#").unwrap()],
            plain_bound: false,
            reserved: vec!["console".into()],
        },
        identity: Box::new(Loopback),
        assigned_prefix: "auto-7".into(),
        metrics: Metrics::default(),
    })
}

/// A client and the session it talks to, on a clock of their own.
struct Talk {
    session: Session,
    rules: Arc<Rules>,
    version: Version,
    now: Now,
    rest: Vec<u8>,
    out: Vec<u8>,
    up: Vec<GateEvent>,
}

impl Talk {
    fn new(version: Version, limits: Limits) -> Self {
        let rules = rules_with(limits);
        let now = Now {
            mono: Millis(1_000),
            wall: UnixMicros(5),
        };
        let session = Session::new(ConnId(3), Arc::clone(&rules), now);
        Self {
            session,
            rules,
            version,
            now,
            rest: vec![],
            out: vec![],
            up: vec![],
        }
    }

    fn open(version: Version, client: &str) -> Self {
        Self::open_with(version, client, Limits::default())
    }

    fn open_with(version: Version, client: &str, limits: Limits) -> Self {
        let mut talk = Self::new(version, limits);
        let next = talk.send(&Packet::Connect(connect(version, client)));
        assert!(matches!(next, Next::Admit(_)), "{next:?}");
        talk.admit(false);
        talk.out.clear();
        talk.up.clear();
        talk
    }

    fn admit(&mut self, present: bool) {
        self.session
            .admit(present, self.now, &mut self.out, &mut self.up);
    }

    fn send(&mut self, packet: &Packet<'_>) -> Next {
        self.bytes(&bytes_of(packet, self.version))
    }

    fn bytes(&mut self, bytes: &[u8]) -> Next {
        self.session.heard(self.now, &mut self.up);
        self.rest.extend_from_slice(bytes);
        self.again()
    }

    fn again(&mut self) -> Next {
        let (used, next) = self
            .session
            .receive(&self.rest, self.now, &mut self.out, &mut self.up);
        self.rest.drain(..used);
        next
    }

    fn release(&mut self, token: u64) {
        self.session.release(Token(token), self.now, &mut self.out);
    }

    fn wait(&mut self, ms: u64) {
        self.now.mono = self.now.mono.plus(ms);
    }

    fn tick(&mut self) -> Option<CloseReason> {
        self.session.tick(self.now.mono, &mut self.out)
    }

    /// What the session wrote, as bytes; empties it.
    fn wrote(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// The tokens of the publishes that came up, `None` for QoS 0; empties them.
    fn tokens(&mut self) -> Vec<Option<u64>> {
        let arrived = |event: &GateEvent| match event {
            GateEvent::Arrival(arrival) => Some(arrival.token.map(|token| token.0)),
            _ => None,
        };
        std::mem::take(&mut self.up)
            .iter()
            .filter_map(arrived)
            .collect()
    }
}

fn bytes_of(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut bytes = vec![0; mqtt::encoded_len(packet, version).unwrap()];
    mqtt::encode(packet, version, &mut bytes).unwrap();
    bytes
}

fn connect(version: Version, client_id: &str) -> Connect<'_> {
    Connect {
        version,
        client_id,
        clean_start: true,
        keep_alive_s: 20,
        user: None,
        password: None,
        will: None,
        properties: Properties::EMPTY,
    }
}

fn publish<'a>(topic: &'a str, packet_id: u16, payload: &'a [u8]) -> Packet<'a> {
    let qos = if packet_id == 0 {
        Qos::AtMostOnce
    } else {
        Qos::AtLeastOnce
    };
    let properties = Properties::EMPTY;
    let (dup, retain) = (false, false);
    Packet::Publish(Publish {
        dup,
        qos,
        retain,
        topic,
        packet_id,
        properties,
        payload,
    })
}

fn puback(packet_id: u16) -> Vec<u8> {
    let [high, low] = packet_id.to_be_bytes();
    vec![0x40, 2, high, low]
}

fn disconnect(reason: Reason) -> Vec<u8> {
    bytes_of(
        &Packet::Disconnect(Disconnect {
            reason,
            properties: Properties::EMPTY,
        }),
        Version::V5,
    )
}

/// Version 5 is told why, 3.1.1 sees the stream end.
fn told(version: Version, reason: Reason) -> Vec<u8> {
    match version {
        Version::V4 => vec![],
        Version::V5 => disconnect(reason),
    }
}

#[test]
fn connect_is_answered_only_after_the_session_is_admitted() {
    let mut talk = Talk::new(Version::V4, Limits::default());
    let next = talk.send(&Packet::Connect(connect(Version::V4, "pi-1")));
    let Next::Admit(admission) = next else {
        panic!("{next:?}")
    };
    assert_eq!(
        (
            &*admission.client,
            admission.clean_start,
            admission.expiry_s
        ),
        ("pi-1", true, 0)
    );
    assert!(talk.wrote().is_empty() && talk.up.is_empty());
    talk.admit(false);
    assert_eq!(talk.wrote(), [0x20, 2, 0, 0]);
    assert!(matches!(&talk.up[..], [GateEvent::Connected { client, .. }] if &**client == "pi-1"));
}

#[test]
fn packets_right_behind_a_connect_wait_for_its_answer() {
    let mut talk = Talk::new(Version::V4, Limits::default());
    let mut bytes = bytes_of(&Packet::Connect(connect(Version::V4, "m")), Version::V4);
    bytes.extend(bytes_of(&publish("sensors/m/t", 1, b"1"), Version::V4));
    assert!(matches!(talk.bytes(&bytes), Next::Admit(_)));
    assert_eq!(talk.again(), Next::Blocked);
    talk.admit(true);
    assert_eq!(talk.wrote(), [0x20, 2, 1, 0]);
    assert_eq!(talk.again(), Next::More);
    assert_eq!(talk.tokens(), [Some(0)]);
}

#[test]
fn a_store_that_fails_is_answered_with_unavailable() {
    let mut talk = Talk::new(Version::V4, Limits::default());
    talk.send(&Packet::Connect(connect(Version::V4, "m")));
    talk.session.refuse(&mut talk.out);
    assert_eq!(talk.wrote(), [0x20, 2, 0, 3]);
}

#[test]
fn version_5_learns_the_limits() {
    let mut talk = Talk::new(Version::V5, Limits::default());
    let asked = Connect {
        client_id: "",
        ..connect(Version::V5, "")
    };
    talk.send(&Packet::Connect(asked));
    talk.admit(false);
    let wrote = talk.wrote();
    let (packet, _) = mqtt::decode(&wrote, Version::V5, 1_000).unwrap().unwrap();
    let Packet::ConnAck(connack) = packet else {
        panic!("{packet:?}")
    };
    let said: Vec<_> = connack.properties.iter().collect();
    for expected in [
        Property::ReceiveMaximum(1_024),
        Property::MaximumQos(Qos::AtLeastOnce),
        Property::MaximumPacketSize(272 * 1024),
        Property::RetainAvailable(false),
        Property::AssignedClientIdentifier("auto-7-3"),
    ] {
        assert!(said.contains(&expected), "{expected:?} in {said:?}");
    }
}

#[test]
fn how_long_a_session_lives_is_told_to_the_store() {
    let expiry = |connect: Connect<'_>| {
        let mut talk = Talk::new(connect.version, Limits::default());
        match talk.send(&Packet::Connect(connect)) {
            Next::Admit(admission) => admission.expiry_s,
            next => panic!("{next:?}"),
        }
    };
    let keep = Connect {
        clean_start: false,
        ..connect(Version::V4, "m")
    };
    assert_eq!(expiry(keep), u32::MAX);
    assert_eq!(expiry(connect(Version::V4, "m")), 0);
    let hour = [Property::SessionExpiryInterval(3_600)];
    let keep = Connect {
        properties: Properties::of(&hour),
        ..connect(Version::V5, "m")
    };
    assert_eq!(expiry(keep), 3_600);
    assert_eq!(
        expiry(Connect {
            clean_start: false,
            ..connect(Version::V5, "m")
        }),
        0
    );
}

#[test]
fn client_ids_that_break_brokers_are_refused_with_a_code() {
    for id in ["a+b", "$x", "a#", "a/b", "console", &"x".repeat(129)] {
        for version in BOTH {
            let mut talk = Talk::new(version, Limits::default());
            let next = talk.send(&Packet::Connect(connect(version, id)));
            assert_eq!(next, Next::Closed(CloseReason::ClientId), "{id}");
            let code = if version == Version::V4 { 2 } else { 0x85 };
            assert_eq!(talk.wrote()[3], code, "{id}");
        }
    }
}

#[test]
fn an_unknown_version_gets_code_1() {
    let mut talk = Talk::new(Version::V4, Limits::default());
    let mut bytes = bytes_of(&Packet::Connect(connect(Version::V4, "m")), Version::V4);
    bytes[8] = 9;
    assert_eq!(talk.bytes(&bytes), Next::Closed(CloseReason::Version));
    assert_eq!(talk.wrote(), [0x20, 2, 0, 1]);
}

#[test]
fn anything_but_connect_first_ends_at_its_first_byte() {
    for first in [0x30, 0xC0, 0x00, 0x16, b'G'] {
        let mut talk = Talk::new(Version::V4, Limits::default());
        assert_eq!(
            talk.bytes(&[first]),
            Next::Closed(CloseReason::ConnectOrder)
        );
        assert!(talk.wrote().is_empty());
    }
}

#[test]
fn a_large_connect_is_refused_before_it_arrives() {
    let mut talk = Talk::new(Version::V4, Limits::default());
    assert_eq!(
        talk.bytes(&[0x10, 0xFF, 0xFF, 0x7F]),
        Next::Closed(CloseReason::TooLarge)
    );
}

#[test]
fn a_second_connect_ends_the_connection() {
    for version in BOTH {
        let mut talk = Talk::open(version, "m");
        let next = talk.send(&Packet::Connect(connect(version, "m")));
        assert_eq!(next, Next::Closed(CloseReason::ConnectOrder));
        assert_eq!(talk.wrote(), told(version, Reason::PROTOCOL_ERROR));
    }
}

#[test]
fn a_puback_leaves_only_when_its_publish_is_released() {
    for version in BOTH {
        let mut talk = Talk::open(version, "m");
        assert_eq!(talk.send(&publish("sensors/m/t", 7, b"21.5")), Next::More);
        assert!(talk.wrote().is_empty());
        talk.release(0);
        assert_eq!(talk.wrote(), puback(7));
        talk.release(0);
        assert!(talk.wrote().is_empty());
    }
}

#[test]
fn pubacks_leave_in_order_of_receipt() {
    let mut talk = Talk::open(Version::V4, "m");
    for id in [30, 10, 20] {
        talk.send(&publish("sensors/m/t", id, b"x"));
    }
    talk.release(2);
    talk.release(1);
    assert!(talk.wrote().is_empty());
    talk.release(0);
    assert_eq!(talk.wrote(), [puback(30), puback(10), puback(20)].concat());
}

#[test]
fn pings_and_subscriptions_are_answered_while_pubacks_are_withheld() {
    for version in BOTH {
        let mut talk = Talk::open(version, "pi-1");
        talk.send(&publish("hw/1/0a/pi-1/up", 1, b"x"));
        talk.send(&Packet::PingReq);
        assert_eq!(talk.wrote(), [0xD0, 0]);
        let filters = [Subscription::new("hw/1/0a/pi-1/down", Qos::AtLeastOnce)];
        subscribe(&mut talk, &filters);
        assert_eq!(talk.wrote().last(), Some(&0));
    }
}

fn subscribe(talk: &mut Talk, filters: &[Subscription<'_>]) {
    let filters = headwater_proto::mqtt::List::of(filters);
    let properties = Properties::EMPTY;
    talk.send(&Packet::Subscribe(Subscribe {
        packet_id: 9,
        properties,
        filters,
    }));
}

#[test]
fn a_plain_message_comes_up_whole() {
    let mut talk = Talk::open(Version::V4, "m");
    talk.send(&publish("sensors/m/t", 7, b"21.5"));
    let [GateEvent::Arrival(arrival)] = &talk.up[..] else {
        panic!("{:?}", talk.up)
    };
    assert_eq!((arrival.conn, &*arrival.client), (ConnId(3), "m"));
    assert_eq!((arrival.token, arrival.at), (Some(Token(0)), talk.now));
    let Body::Plain {
        topic,
        payload,
        qos,
        dup,
        packet_id,
        fingerprint,
    } = &arrival.body
    else {
        panic!("{arrival:?}")
    };
    assert_eq!(
        (&**topic, &payload[..], *qos, *dup, *packet_id),
        ("sensors/m/t", &b"21.5"[..], Qos::AtLeastOnce, false, 7)
    );
    assert_eq!(
        *fingerprint,
        headwater_gate::repeat::fingerprint("sensors/m/t", b"21.5")
    );
}

#[test]
fn a_gateway_speaks_for_its_devices_and_an_agent_for_itself() {
    for (client, device) in [("pi-1", "pi-1"), ("gw", "node-4"), ("gw", "gw")] {
        let mut talk = Talk::open(Version::V4, client);
        talk.send(&publish(&format!("hw/1/0a/{device}/up"), 1, b"x"));
        let [GateEvent::Arrival(arrival)] = &talk.up[..] else {
            panic!("{:?}", talk.up)
        };
        assert!(matches!(&arrival.body, Body::Agent { device: d, .. } if d.as_str() == device));
    }
}

#[test]
fn a_forbidden_topic_ends_the_connection() {
    for version in BOTH {
        for topic in ["hw/1/0a/pi-2/up", "hw/1/0a/pi-1/down", "other", "$SYS/x"] {
            let mut talk = Talk::open(version, "pi-1");
            let next = talk.send(&publish(topic, 1, b"x"));
            assert_eq!(next, Next::Closed(CloseReason::Forbidden), "{topic}");
            assert_eq!(talk.wrote(), told(version, Reason::NOT_AUTHORIZED));
            assert!(talk.up.is_empty());
        }
    }
}

#[test]
fn qos_0_has_no_token_and_qos_2_ends_the_connection() {
    for version in BOTH {
        let mut talk = Talk::open(version, "m");
        talk.send(&publish("sensors/m/t", 0, b"x"));
        assert_eq!(talk.tokens(), [None]);
        let Packet::Publish(publish) = publish("sensors/m/t", 1, b"x") else {
            unreachable!()
        };
        let next = talk.send(&Packet::Publish(Publish {
            qos: Qos::ExactlyOnce,
            ..publish
        }));
        assert_eq!(next, Next::Closed(CloseReason::Qos2));
        assert_eq!(talk.wrote(), told(version, Reason::QOS_NOT_SUPPORTED));
    }
}

#[test]
fn packets_that_only_a_server_awaits_or_sends_end_the_connection() {
    for version in BOTH {
        for packet in [
            Packet::PubAck(Ack::success(1)),
            Packet::PubRec(Ack::success(1)),
            Packet::PubRel(Ack::success(1)),
            Packet::PubComp(Ack::success(1)),
            Packet::PingResp,
        ] {
            let mut talk = Talk::open(version, "m");
            assert_eq!(
                talk.send(&packet),
                Next::Closed(CloseReason::Protocol),
                "{packet:?}"
            );
        }
    }
}

#[test]
fn the_three_bytes_that_panic_another_codec_are_malformed() {
    let mut talk = Talk::open(Version::V5, "m");
    let next = talk.bytes(&[0xB0, 0x01, 0x00]);
    assert!(matches!(next, Next::Closed(_)), "{next:?}");
}

#[test]
fn a_topic_alias_was_never_offered() {
    let mut talk = Talk::open(Version::V5, "m");
    let Packet::Publish(publish) = publish("sensors/m/t", 1, b"x") else {
        unreachable!()
    };
    let alias = [Property::TopicAlias(1)];
    let aliased = Publish {
        properties: Properties::of(&alias),
        ..publish
    };
    assert_eq!(
        talk.send(&Packet::Publish(aliased)),
        Next::Closed(CloseReason::Protocol)
    );
}

#[test]
fn an_oversized_packet_ends_the_connection_at_its_header() {
    for version in BOTH {
        let mut talk = Talk::open(version, "m");
        assert_eq!(
            talk.bytes(&[0x32, 0xFF, 0xFF, 0x7F]),
            Next::Closed(CloseReason::TooLarge)
        );
        assert_eq!(talk.wrote(), told(version, Reason::PACKET_TOO_LARGE));
    }
}

#[test]
fn at_the_cap_of_bytes_a_publish_waits_and_pings_before_it_do_not() {
    let limits = Limits {
        unacked_plain_bytes: 1_500,
        ..Limits::default()
    };
    let mut talk = Talk::open_with(Version::V4, "m", limits);
    let kilobyte = [0; 1_000];
    assert_eq!(talk.send(&publish("sensors/m/t", 1, &kilobyte)), Next::More);
    assert_eq!(talk.send(&publish("sensors/m/t", 2, &kilobyte)), Next::More);
    assert_eq!(talk.send(&Packet::PingReq), Next::More);
    assert_eq!(talk.wrote(), [0xD0, 0]);
    assert_eq!(
        talk.send(&publish("sensors/m/t", 3, &kilobyte)),
        Next::Blocked
    );
    assert_eq!(talk.tokens(), [Some(0), Some(1)]);
    talk.release(0);
    assert_eq!(talk.again(), Next::More);
    assert_eq!(talk.tokens(), [Some(2)]);
}

#[test]
fn an_agent_has_room_for_its_credit() {
    let mut talk = Talk::open(Version::V4, "pi-1");
    let bundle = vec![0; 256 * 1024];
    for id in 1..=8 {
        assert_eq!(
            talk.send(&publish("hw/1/0a/pi-1/up", id, &bundle)),
            Next::More
        );
    }
    assert_eq!(
        talk.send(&publish("hw/1/0a/pi-1/up", 9, &bundle)),
        Next::Blocked
    );
}

#[test]
fn past_the_cap_for_longer_than_the_grace_time_the_connection_ends() {
    for version in BOTH {
        let limits = Limits {
            unacked_plain_bytes: 1,
            ..Limits::default()
        };
        let mut talk = Talk::open_with(version, "m", limits);
        talk.send(&publish("sensors/m/t", 1, b"x"));
        assert_eq!(talk.send(&publish("sensors/m/t", 2, b"x")), Next::Blocked);
        talk.wait(3_999);
        assert_eq!(talk.tick(), None);
        talk.wait(1);
        assert_eq!(talk.session.deadline(), talk.now.mono);
        assert_eq!(talk.tick(), Some(CloseReason::Unacked));
        assert_eq!(talk.wrote(), told(version, Reason::SERVER_BUSY));
    }
}

#[test]
fn the_cap_of_count_blocks_3_1_1_and_is_a_fault_in_5() {
    let limits = Limits {
        unacked_count: 2,
        ..Limits::default()
    };
    for (version, expected) in BOTH
        .into_iter()
        .zip([Next::Blocked, Next::Closed(CloseReason::ReceiveMaximum)])
    {
        let mut talk = Talk::open_with(version, "m", limits);
        talk.send(&publish("sensors/m/t", 1, b"x"));
        talk.send(&publish("sensors/m/t", 2, b"x"));
        assert_eq!(talk.send(&publish("sensors/m/t", 3, b"x")), expected);
    }
}

#[test]
fn silence_of_one_and_a_half_keep_alives_ends_the_connection() {
    for version in BOTH {
        let mut talk = Talk::open(version, "m");
        talk.wait(29_999);
        assert_eq!(talk.tick(), None);
        talk.send(&Packet::PingReq);
        talk.wrote();
        talk.wait(29_999);
        assert_eq!(talk.tick(), None);
        talk.wait(1);
        assert_eq!(talk.tick(), Some(CloseReason::KeepAlive));
        assert_eq!(talk.wrote(), told(version, Reason::KEEP_ALIVE_TIMEOUT));
    }
}

#[test]
fn keep_alive_0_leaves_the_gates_own_limit() {
    let mut talk = Talk::new(Version::V4, Limits::default());
    talk.send(&Packet::Connect(Connect {
        keep_alive_s: 0,
        ..connect(Version::V4, "m")
    }));
    talk.admit(false);
    talk.wait(25 * 3_600_000);
    assert_eq!(talk.tick(), None);
    talk.wait(3_600_000);
    assert_eq!(talk.tick(), Some(CloseReason::Idle));
}

#[test]
fn a_connect_that_drips_in_is_cut_off() {
    let mut talk = Talk::new(Version::V4, Limits::default());
    talk.wait(9_000);
    talk.bytes(&[0x10]);
    talk.wait(999);
    assert_eq!(talk.tick(), None);
    talk.wait(1);
    assert_eq!(talk.tick(), Some(CloseReason::ConnectTimeout));
}

#[test]
fn an_orderly_end_says_so() {
    for version in BOTH {
        let mut talk = Talk::open(version, "m");
        let reason = Reason::SUCCESS;
        let packet = Packet::Disconnect(Disconnect {
            reason,
            properties: Properties::EMPTY,
        });
        assert_eq!(talk.send(&packet), Next::Closed(CloseReason::Orderly));
        assert!(talk.wrote().is_empty());
        talk.release(0);
        assert!(talk.wrote().is_empty());
    }
}

#[test]
fn only_the_own_down_topic_can_be_subscribed() {
    for version in BOTH {
        let mut talk = Talk::open(version, "pi-1");
        subscribe(
            &mut talk,
            &[
                Subscription::new("#", Qos::AtMostOnce),
                Subscription::new("hw/1/0a/pi-1/down", Qos::AtLeastOnce),
                Subscription::new("hw/1/0a/pi-2/down", Qos::AtMostOnce),
            ],
        );
        let wrote = talk.wrote();
        let refused = if version == Version::V4 { 0x80 } else { 0x87 };
        assert_eq!(wrote[wrote.len() - 3..], [refused, 0, refused]);
        assert_eq!(talk.rules.metrics.subscriptions_refused_total.get(), 2);
    }
}

#[test]
fn messages_down_reach_a_subscriber_alone() {
    for version in BOTH {
        let mut talk = Talk::open(version, "pi-1");
        assert!(!talk.session.down(b"ack", &mut talk.out));
        subscribe(
            &mut talk,
            &[Subscription::new("hw/1/0a/pi-1/down", Qos::AtLeastOnce)],
        );
        talk.wrote();
        assert!(talk.session.down(b"ack", &mut talk.out));
        let wrote = talk.wrote();
        let (packet, _) = mqtt::decode(&wrote, version, 1_000).unwrap().unwrap();
        assert_eq!(packet, publish("hw/1/0a/pi-1/down", 0, b"ack"));
        let filters = ["hw/1/0a/pi-1/down"];
        let filters = headwater_proto::mqtt::List::of(&filters);
        let properties = Properties::EMPTY;
        talk.send(&Packet::Unsubscribe(Unsubscribe {
            packet_id: 4,
            properties,
            filters,
        }));
        assert!(!talk.session.down(b"ack", &mut talk.out));
    }
}

#[test]
fn a_resumed_agent_need_not_subscribe_again() {
    let mut talk = Talk::new(Version::V4, Limits::default());
    talk.send(&Packet::Connect(Connect {
        clean_start: false,
        ..connect(Version::V4, "pi-1")
    }));
    talk.admit(true);
    talk.send(&publish("hw/1/0a/pi-1/up", 1, b"hello"));
    talk.wrote();
    assert!(talk.session.down(b"welcome", &mut talk.out));
}

#[test]
fn a_message_above_the_clients_own_limit_is_not_sent() {
    let mut talk = Talk::new(Version::V5, Limits::default());
    let small = [Property::MaximumPacketSize(100)];
    let asked = Connect {
        properties: Properties::of(&small),
        ..connect(Version::V5, "pi-1")
    };
    talk.send(&Packet::Connect(asked));
    talk.admit(false);
    subscribe(
        &mut talk,
        &[Subscription::new("hw/1/0a/pi-1/down", Qos::AtMostOnce)],
    );
    talk.wrote();
    assert!(talk.session.down(&[0; 50], &mut talk.out));
    assert!(!talk.session.down(&[0; 100], &mut talk.out));
    assert_eq!(talk.rules.metrics.down_unsent_total.get(), 1);
}

#[test]
fn life_more_than_30_s_after_a_puback_settles_a_plain_publish() {
    let mut talk = Talk::open(Version::V4, "m");
    talk.send(&publish("sensors/m/t", 1, b"x"));
    talk.release(0);
    talk.up.clear();
    talk.wait(30_000);
    talk.send(&Packet::PingReq);
    assert!(talk.up.is_empty());
    talk.wait(1);
    talk.send(&Packet::PingReq);
    assert!(matches!(
        talk.up[..],
        [GateEvent::Settled {
            through: Token(0),
            ..
        }]
    ));
}

/// A conversation with everything in it, in both versions.
fn conversation(version: Version, payload: &[u8]) -> Vec<u8> {
    let filters = [Subscription::new("hw/1/0a/m/down", Qos::AtMostOnce)];
    let filters = headwater_proto::mqtt::List::of(&filters);
    let properties = Properties::EMPTY;
    let reason = Reason::SUCCESS;
    [
        Packet::Connect(connect(version, "m")),
        Packet::Subscribe(Subscribe {
            packet_id: 9,
            properties,
            filters,
        }),
        publish("sensors/m/t", 1, payload),
        Packet::PingReq,
        publish("hw/1/0a/m/up", 2, payload),
        publish("sensors/m/t", 0, b""),
        Packet::Disconnect(Disconnect { reason, properties }),
    ]
    .iter()
    .flat_map(|packet| bytes_of(packet, version))
    .collect()
}

/// Feeds `bytes` in pieces; gives what came out, what came up and how it ended.
fn feed(bytes: &[u8], cuts: &[usize]) -> (Vec<u8>, Vec<GateEvent>, Option<CloseReason>) {
    let mut talk = Talk::new(Version::V4, Limits::default());
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.sort_unstable();
    cuts.push(bytes.len());
    let mut from = 0;
    for to in cuts {
        let mut next = talk.bytes(&bytes[from..to]);
        from = to;
        while matches!(next, Next::Admit(_)) {
            talk.admit(false);
            next = talk.again();
        }
        if let Next::Closed(reason) = next {
            return (talk.out, talk.up, Some(reason));
        }
    }
    (talk.out, talk.up, None)
}

proptest! {
    #[test]
    fn reads_cut_anywhere_make_no_difference(
        v5 in any::<bool>(),
        payload in proptest::collection::vec(any::<u8>(), 0..300),
        cuts in proptest::collection::vec(any::<usize>(), 0..12),
    ) {
        let version = if v5 { Version::V5 } else { Version::V4 };
        let bytes = conversation(version, &payload);
        let whole = feed(&bytes, &[]);
        prop_assert_eq!(whole.2, Some(CloseReason::Orderly));
        prop_assert_eq!(whole.1.len(), 4);
        prop_assert_eq!(feed(&bytes, &cuts), whole);
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_never_depend_on_cuts(
        connected in any::<bool>(),
        v5 in any::<bool>(),
        noise in proptest::collection::vec(any::<u8>(), 0..400),
        cuts in proptest::collection::vec(any::<usize>(), 0..6),
    ) {
        let version = if v5 { Version::V5 } else { Version::V4 };
        let mut bytes = vec![];
        if connected {
            bytes = bytes_of(&Packet::Connect(connect(version, "m")), version);
        }
        bytes.extend(noise);
        prop_assert_eq!(feed(&bytes, &cuts), feed(&bytes, &[]));
    }

    #[test]
    fn a_conversation_with_flipped_bytes_never_panics(
        v5 in any::<bool>(),
        flips in proptest::collection::vec((any::<usize>(), 1_u8..), 1..6),
        cuts in proptest::collection::vec(any::<usize>(), 0..6),
    ) {
        let version = if v5 { Version::V5 } else { Version::V4 };
        let mut bytes = conversation(version, b"21.5");
        for (at, flip) in flips {
            let at = at % bytes.len();
            bytes[at] ^= flip;
        }
        prop_assert_eq!(feed(&bytes, &cuts), feed(&bytes, &[]));
    }
}
