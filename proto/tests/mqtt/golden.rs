//! Bytes worked out by hand from the standard, one or more per packet and version. They never
//! change.

use headwater_proto::mqtt::{
    Ack, Auth, ConnAck, Connect, Disconnect, List, Packet, Properties, Property, Publish, Qos,
    Reason, RetainHandling, SubAck, Subscribe, Subscription, UnsubAck, Unsubscribe, Version, Will,
    connect_version, decode,
};

use super::properties::written;

const NONE: Properties<'static> = Properties::EMPTY;

#[track_caller]
fn frozen(version: Version, packet: Packet<'_>, bytes: &[u8]) {
    assert_eq!(written(&packet, version), bytes);
    assert_eq!(
        decode(bytes, version, 1 << 16),
        Ok(Some((packet, bytes.len())))
    );
}

/// Another form of the same packet, which is read but not written.
#[track_caller]
fn read_as(version: Version, bytes: &[u8], packet: Packet<'_>) {
    assert_eq!(
        decode(bytes, version, 1 << 16),
        Ok(Some((packet, bytes.len())))
    );
}

fn connect(version: Version) -> Connect<'static> {
    Connect {
        version,
        client_id: "dev1",
        clean_start: true,
        keep_alive_s: 30,
        user: None,
        password: None,
        will: None,
        properties: NONE,
    }
}

#[test]
fn connect_of_3_1_1() {
    frozen(
        Version::V4,
        Packet::Connect(connect(Version::V4)),
        b"\x10\x10\x00\x04MQTT\x04\x02\x00\x1e\x00\x04dev1",
    );
    let full = Connect {
        clean_start: false,
        user: Some("u"),
        password: Some(b"\x00\xff"),
        will: Some(Will {
            qos: Qos::AtLeastOnce,
            retain: true,
            topic: "w",
            payload: b"bye",
            properties: NONE,
        }),
        ..connect(Version::V4)
    };
    frozen(
        Version::V4,
        Packet::Connect(full),
        b"\x10\x1f\x00\x04MQTT\x04\xec\x00\x1e\x00\x04dev1\x00\x01w\x00\x03bye\x00\x01u\x00\x02\x00\xff",
    );
}

#[test]
fn connect_of_5_whatever_the_connection_was_thought_to_speak() {
    let packet = Connect {
        properties: Properties::of(&[
            Property::SessionExpiryInterval(3600),
            Property::ReceiveMaximum(20),
            Property::UserProperty("k", "v"),
        ]),
        will: Some(Will {
            qos: Qos::ExactlyOnce,
            retain: false,
            topic: "w",
            payload: b"",
            properties: Properties::of(&[Property::WillDelayInterval(5)]),
        }),
        password: Some(b"pw"),
        ..connect(Version::V5)
    };
    let bytes = b"\x10\x2f\x00\x04MQTT\x05\x56\x00\x1e\
        \x0f\x11\x00\x00\x0e\x10\x21\x00\x14\x26\x00\x01k\x00\x01v\
        \x00\x04dev1\x05\x18\x00\x00\x00\x05\x00\x01w\x00\x00\x00\x02pw";
    frozen(Version::V5, Packet::Connect(packet), bytes);
    frozen(Version::V4, Packet::Connect(packet), bytes);
    assert_eq!(connect_version(bytes), Some(Version::V5));
    assert_eq!(connect_version(&bytes[..9]), Some(Version::V5));
    assert_eq!(connect_version(&bytes[..8]), None);
}

#[test]
fn connack() {
    let ack = |session_present, reason| {
        Packet::ConnAck(ConnAck {
            session_present,
            reason,
            properties: NONE,
        })
    };
    frozen(Version::V4, ack(true, Reason::SUCCESS), b"\x20\x02\x01\x00");
    frozen(
        Version::V4,
        ack(false, Reason::NOT_AUTHORIZED),
        b"\x20\x02\x00\x05",
    );
    frozen(
        Version::V5,
        ack(false, Reason::NOT_AUTHORIZED),
        b"\x20\x03\x00\x87\x00",
    );
    frozen(
        Version::V5,
        Packet::ConnAck(ConnAck {
            session_present: false,
            reason: Reason::SUCCESS,
            properties: Properties::of(&[
                Property::MaximumQos(Qos::AtLeastOnce),
                Property::RetainAvailable(false),
                Property::AssignedClientIdentifier("x"),
            ]),
        }),
        b"\x20\x0b\x00\x00\x08\x24\x01\x25\x00\x12\x00\x01x",
    );
}

#[test]
fn a_reason_that_3_1_1_cannot_say_becomes_its_nearest_return_code() {
    for (reason, code) in [
        (Reason::BANNED, 5),
        (Reason::SERVER_BUSY, 3),
        (Reason::QUOTA_EXCEEDED, 3),
        (Reason::UNSUPPORTED_VERSION, 1),
        (Reason::CLIENT_ID_NOT_VALID, 2),
        (Reason::BAD_USER_OR_PASSWORD, 4),
    ] {
        let ack = ConnAck {
            session_present: false,
            reason,
            properties: NONE,
        };
        assert_eq!(
            written(&Packet::ConnAck(ack), Version::V4),
            [0x20, 2, 0, code]
        );
    }
}

#[test]
fn publish() {
    let plain = Publish {
        dup: false,
        qos: Qos::AtMostOnce,
        retain: false,
        topic: "a/b",
        packet_id: 0,
        properties: NONE,
        payload: b"hi",
    };
    frozen(
        Version::V4,
        Packet::Publish(plain),
        b"\x30\x07\x00\x03a/bhi",
    );
    frozen(
        Version::V5,
        Packet::Publish(plain),
        b"\x30\x08\x00\x03a/b\x00hi",
    );
    let again = Publish {
        dup: true,
        qos: Qos::AtLeastOnce,
        retain: true,
        packet_id: 0x1234,
        payload: b"",
        ..plain
    };
    frozen(
        Version::V4,
        Packet::Publish(again),
        b"\x3b\x07\x00\x03a/b\x12\x34",
    );
    let aliased = Publish {
        topic: "",
        properties: Properties::of(&[
            Property::TopicAlias(7),
            Property::SubscriptionIdentifier(300),
        ]),
        ..again
    };
    frozen(
        Version::V5,
        Packet::Publish(aliased),
        b"\x3b\x0b\x00\x00\x12\x34\x06\x23\x00\x07\x0b\xac\x02",
    );
}

#[test]
fn remaining_lengths_at_the_edges_of_their_bytes() {
    for (len, field) in [
        (127, &[0x7f][..]),
        (128, &[0x80, 0x01]),
        (16_383, &[0xff, 0x7f]),
        (16_384, &[0x80, 0x80, 0x01]),
        (2_097_151, &[0xff, 0xff, 0x7f]),
        (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
    ] {
        let payload = vec![7; len - 3];
        let packet = Packet::Publish(Publish {
            dup: false,
            qos: Qos::AtMostOnce,
            retain: false,
            topic: "t",
            packet_id: 0,
            properties: NONE,
            payload: &payload,
        });
        let bytes = written(&packet, Version::V4);
        assert_eq!(bytes[1..=field.len()], *field);
        assert_eq!(bytes.len(), 1 + field.len() + len);
        assert_eq!(
            decode(&bytes, Version::V4, bytes.len()),
            Ok(Some((packet, bytes.len())))
        );
    }
}

#[test]
fn answers_to_publish() {
    type Make = fn(Ack<'static>) -> Packet<'static>;
    for (first, make) in [
        (0x40, Packet::PubAck as Make),
        (0x50, Packet::PubRec),
        (0x62, Packet::PubRel),
        (0x70, Packet::PubComp),
    ] {
        for version in [Version::V4, Version::V5] {
            frozen(version, make(Ack::success(10)), &[first, 2, 0, 10]);
        }
    }
    let refused = Ack {
        packet_id: 10,
        reason: Reason::NOT_AUTHORIZED,
        properties: NONE,
    };
    frozen(
        Version::V5,
        Packet::PubAck(refused),
        &[0x40, 4, 0, 10, 0x87, 0],
    );
    read_as(
        Version::V5,
        &[0x40, 3, 0, 10, 0x87],
        Packet::PubAck(refused),
    );
    let said = Ack {
        properties: Properties::of(&[Property::ReasonString("no")]),
        ..refused
    };
    frozen(
        Version::V5,
        Packet::PubAck(said),
        b"\x40\x09\x00\x0a\x87\x05\x1f\x00\x02no",
    );
    // 3.1.1 has no room for the reason.
    assert_eq!(
        written(&Packet::PubAck(said), Version::V4),
        [0x40, 2, 0, 10]
    );
}

#[test]
fn subscribe_and_its_answer() {
    let lines = [
        Subscription::new("a/#", Qos::AtLeastOnce),
        Subscription {
            no_local: true,
            retain_as_published: true,
            retain_handling: RetainHandling::DoNotSend,
            ..Subscription::new("b", Qos::ExactlyOnce)
        },
    ];
    let packet = Subscribe {
        packet_id: 1,
        properties: NONE,
        filters: List::of(&lines[..1]),
    };
    frozen(
        Version::V4,
        Packet::Subscribe(packet),
        b"\x82\x08\x00\x01\x00\x03a/#\x01",
    );
    let packet = Subscribe {
        packet_id: 1,
        properties: Properties::of(&[Property::SubscriptionIdentifier(5)]),
        filters: List::of(&lines),
    };
    frozen(
        Version::V5,
        Packet::Subscribe(packet),
        b"\x82\x0f\x00\x01\x02\x0b\x05\x00\x03a/#\x01\x00\x01b\x2e",
    );

    let ack = |codes| {
        Packet::SubAck(SubAck {
            packet_id: 1,
            properties: NONE,
            codes,
        })
    };
    frozen(Version::V4, ack(&[1, 0x80]), b"\x90\x04\x00\x01\x01\x80");
    frozen(
        Version::V5,
        ack(&[1, 0x87]),
        b"\x90\x05\x00\x01\x00\x01\x87",
    );
    assert_eq!(
        written(&ack(&[1, 0x87]), Version::V4),
        b"\x90\x04\x00\x01\x01\x80"
    );
}

#[test]
fn unsubscribe_and_its_answer() {
    let packet = Packet::Unsubscribe(Unsubscribe {
        packet_id: 2,
        properties: NONE,
        filters: List::of(&["a", "b/+"]),
    });
    frozen(Version::V4, packet, b"\xa2\x0a\x00\x02\x00\x01a\x00\x03b/+");
    frozen(
        Version::V5,
        packet,
        b"\xa2\x0b\x00\x02\x00\x00\x01a\x00\x03b/+",
    );

    let ack = |codes| {
        Packet::UnsubAck(UnsubAck {
            packet_id: 2,
            properties: NONE,
            codes,
        })
    };
    frozen(Version::V4, ack(&[]), b"\xb0\x02\x00\x02");
    frozen(
        Version::V5,
        ack(&[0, 0x11]),
        b"\xb0\x05\x00\x02\x00\x00\x11",
    );
    assert_eq!(written(&ack(&[0, 0x11]), Version::V4), b"\xb0\x02\x00\x02");
}

#[test]
fn pings() {
    for version in [Version::V4, Version::V5] {
        frozen(version, Packet::PingReq, &[0xc0, 0]);
        frozen(version, Packet::PingResp, &[0xd0, 0]);
    }
}

#[test]
fn disconnect_and_auth() {
    let plain = Disconnect {
        reason: Reason::SUCCESS,
        properties: NONE,
    };
    let busy = Disconnect {
        reason: Reason::SERVER_BUSY,
        properties: NONE,
    };
    for version in [Version::V4, Version::V5] {
        frozen(version, Packet::Disconnect(plain), &[0xe0, 0]);
    }
    frozen(Version::V5, Packet::Disconnect(busy), &[0xe0, 2, 0x89, 0]);
    read_as(Version::V5, &[0xe0, 1, 0x89], Packet::Disconnect(busy));
    assert_eq!(written(&Packet::Disconnect(busy), Version::V4), [0xe0, 0]);

    frozen(
        Version::V5,
        Packet::Auth(Auth {
            reason: Reason::CONTINUE_AUTHENTICATION,
            properties: Properties::of(&[
                Property::AuthenticationMethod("m"),
                Property::AuthenticationData(&[0xff]),
            ]),
        }),
        b"\xf0\x0a\x18\x08\x15\x00\x01m\x16\x00\x01\xff",
    );
    let done = Packet::Auth(Auth {
        reason: Reason::SUCCESS,
        properties: NONE,
    });
    frozen(Version::V5, done, &[0xf0, 0]);
}
