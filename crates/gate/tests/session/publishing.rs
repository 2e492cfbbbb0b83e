//! What an open session does.

use super::talk::*;

use headwater_gate::session::{MAX_FAULT_CHARS, Next};
use headwater_gate::{Body, CloseReason, ConnId, GateEvent, Limits, Token};
use headwater_proto::mqtt::{
    self, Ack, Connect, Disconnect, Packet, Properties, Property, Publish, Qos, Reason,
    Subscription, Unsubscribe, Version,
};

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
            let fault = format!("publish on {topic:?}");
            assert_eq!(talk.session.fault(), Some(&*fault));
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
        assert!(
            talk.session
                .fault()
                .is_some_and(|fault| fault.contains("above the limit of"))
        );
    }
}

#[test]
fn a_fault_shows_no_more_of_a_topic_than_a_line_takes() {
    let mut talk = Talk::open(Version::V4, "pi-1");
    let topic = "t".repeat(MAX_FAULT_CHARS + 1);
    talk.send(&publish(&topic, 1, b"x"));
    let shown = format!("publish on {:?}", &topic[1..]);
    assert_eq!(talk.session.fault(), Some(&*shown));
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
