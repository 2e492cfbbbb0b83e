//! What the standard forbids, rule by rule, and the reason code that answers it.

use headwater_proto::mqtt::DecodeError::{
    self, AuthWithoutMethod, ClientId, ConnAckFlags, ConnectFlags, EmptyList, HeaderFlags,
    MisplacedProperty, PacketId, PacketType, PropertyValue, ProtocolLevel, ProtocolName,
    ReasonCode, RepeatedProperty, Short, SubscriptionOptions, Text, TopicFilter, TopicName,
    Trailing, UnknownProperty, VariableInteger,
};
use headwater_proto::mqtt::{
    Ack, EncodeError, Packet, Properties, Property, Publish, Qos, Reason, Version, decode,
    encoded_len,
};

#[track_caller]
fn refused(version: Version, bytes: &[u8], why: DecodeError) {
    assert_eq!(decode(bytes, version, 1 << 16), Err(why), "{bytes:02x?}");
}

#[track_caller]
fn refused_by_both(bytes: &[u8], why: DecodeError) {
    refused(Version::V4, bytes, why);
    refused(Version::V5, bytes, why);
}

/// A CONNECT of 3.1.1 with these flags and this rest.
fn connect_v4(flags: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x10, 0];
    bytes.extend(b"\x00\x04MQTT\x04");
    bytes.extend([flags, 0, 30]);
    bytes.extend(rest);
    bytes[1] = u8::try_from(bytes.len() - 2).expect("a short packet");
    bytes
}

/// A PUBLISH of version 5 to "t" with these properties.
fn publish_v5(properties: &[u8]) -> Vec<u8> {
    let len = u8::try_from(properties.len()).expect("few properties");
    let mut bytes = vec![0x30, 4 + len, 0, 1, b't', len];
    bytes.extend(properties);
    bytes
}

/// rumqttd 0.20.0 panics on it in version 5: an UNSUBACK that is too short.
#[test]
fn the_three_bytes_that_stop_rumqttd_are_refused() {
    refused_by_both(&[0xb0, 0x01, 0x00], Short);
}

#[test]
fn packet_types_and_their_flags() {
    refused_by_both(&[0x00], PacketType(0));
    refused(Version::V4, &[0xf0], PacketType(15));
    for first in [
        0x11, 0x21, 0x41, 0x52, 0x60, 0x63, 0x71, 0x80, 0x91, 0xa0, 0xb1, 0xc1, 0xd8, 0xe2,
    ] {
        refused_by_both(&[first], HeaderFlags(first));
    }
    refused(Version::V5, &[0xf1], HeaderFlags(0xf1));
}

#[test]
fn remaining_lengths() {
    refused_by_both(&[0x30, 0xff, 0xff, 0xff, 0xff], VariableInteger);
    refused_by_both(&[0xc0, 1], Trailing);
    refused_by_both(&[0x40, 1], Short);
    refused(Version::V4, &[0x40, 3], Trailing);
    refused(Version::V4, &[0xe0, 1], Trailing);
    // Version 5 forbids padding, 3.1.1 does not.
    refused(Version::V5, &[0xc0, 0x80, 0x00], VariableInteger);
    assert_eq!(
        decode(&[0xc0, 0x80, 0x00], Version::V4, 99),
        Ok(Some((Packet::PingReq, 3)))
    );
}

#[test]
fn connect() {
    refused_by_both(b"\x10\x0c\x00\x06MQIsdp\x03\x02\x00\x1e", ProtocolName);
    refused_by_both(
        b"\x10\x0c\x00\x04MQTT\x06\x02\x00\x1e\x00\x00",
        ProtocolLevel(6),
    );
    assert_eq!(ProtocolLevel(6).reason(), Reason::UNSUPPORTED_VERSION);
    // The reserved bit; QoS or retain of no will; a password without a user.
    for flags in [0x03, 0x0a, 0x12, 0x22] {
        refused_by_both(&connect_v4(flags, b"\x00\x01c"), ConnectFlags);
    }
    refused_by_both(&connect_v4(0x42, b"\x00\x01c\x00\x00"), ConnectFlags);
    refused_by_both(
        &connect_v4(0x1e, b"\x00\x01c\x00\x01w\x00\x00"),
        DecodeError::Qos,
    );
    refused_by_both(&connect_v4(0x06, b"\x00\x01c\x00\x01#\x00\x00"), TopicName);
    refused_by_both(&connect_v4(0x06, b"\x00\x01c\x00\x00\x00\x00"), TopicName);
    refused_by_both(&connect_v4(0x00, b"\x00\x00"), ClientId);
    assert_eq!(ClientId.reason(), Reason::CLIENT_ID_NOT_VALID);
    refused_by_both(&connect_v4(0x02, b"\x00\x01\x00"), Text);
    refused_by_both(&connect_v4(0x02, b"\x00\x02\xc3\x28"), Text);
    refused_by_both(&connect_v4(0x02, b"\x00\x09c"), Short);
    refused_by_both(&connect_v4(0x02, b"\x00\x01c!"), Trailing);
    refused_by_both(&connect_v4(0x82, b"\x00\x01c"), Short);
    // Version 5: padding is only known to be wrong once the level is read.
    refused_by_both(
        b"\x10\x8d\x00\x00\x04MQTT\x05\x02\x00\x1e\x00\x00\x00",
        VariableInteger,
    );
}

#[test]
fn connack_flags_and_codes() {
    refused(Version::V4, &[0x20, 2, 2, 0], ConnAckFlags);
    refused(Version::V4, &[0x20, 2, 1, 5], ConnAckFlags);
    refused(Version::V4, &[0x20, 2, 0, 6], ReasonCode(6));
    refused(Version::V5, &[0x20, 3, 1, 0x87, 0], ConnAckFlags);
    refused(Version::V5, &[0x20, 3, 0, 0x8b, 0], ReasonCode(0x8b));
}

#[test]
fn publish() {
    refused_by_both(&[0x36, 7, 0, 1, b't', 0, 1, 0, b'x'], DecodeError::Qos);
    refused_by_both(&[0x38, 5, 0, 1, b't', 0, b'x'], DecodeError::Qos);
    refused_by_both(&[0x32, 6, 0, 1, b't', 0, 0, 0], PacketId);
    refused_by_both(&[0x30, 4, 0, 1, b'+', 0], TopicName);
    refused_by_both(&[0x30, 5, 0, 2, b'a', b'#', 0], TopicName);
    refused_by_both(&[0x30, 4, 0, 1, 0, 0], TopicName);
    refused_by_both(&[0x30, 3, 0, 0, 0], TopicName);
    refused_by_both(&[0x30, 4, 0, 1, 0xff, 0], Text);
    refused_by_both(&[0x30, 3, 0, 9, 0], Short);
    refused_by_both(&[0x32, 4, 0, 1, b't', 0], Short);
    // Without a topic, 3.1.1 has no alias to go by.
    let aliased = b"\x30\x06\x00\x00\x03\x23\x00\x01";
    refused(Version::V4, aliased, TopicName);
    assert!(decode(aliased, Version::V5, 99).unwrap().is_some());
    assert_eq!(TopicName.reason(), Reason::TOPIC_NAME_INVALID);
}

#[test]
fn answers() {
    for first in [0x40, 0x50, 0x62, 0x70] {
        refused_by_both(&[first, 2, 0, 0], PacketId);
    }
    refused(Version::V5, &[0x40, 3, 0, 1, 0x92], ReasonCode(0x92));
    refused(Version::V5, &[0x62, 3, 0, 1, 0x10], ReasonCode(0x10));
    refused(Version::V5, &[0x40, 5, 0, 1, 0, 0, 0], Trailing);
    refused(Version::V5, &[0x40, 4, 0, 1, 0, 1], Short);
    refused(Version::V5, &[0xe0, 1, 0x01], ReasonCode(1));
    refused(Version::V5, &[0xf0, 1, 0x80], ReasonCode(0x80));
}

#[test]
fn subscriptions() {
    let v4 = Version::V4;
    let v5 = Version::V5;
    refused(v4, &[0x82, 2, 0, 1], Short);
    refused(v5, &[0xa2, 3, 0, 1, 0], Short);
    refused(v4, &[0x82, 6, 0, 0, 0, 1, b'a', 0], PacketId);
    refused(v4, &[0x82, 7, 0, 1, 0, 2, b'a', b'+', 0], TopicFilter);
    refused(v4, &[0xa2, 7, 0, 1, 0, 3, b'#', b'/', b'a'], TopicFilter);
    refused(v4, &[0x82, 6, 0, 1, 0, 1, b'a', 3], DecodeError::Qos);
    refused(v4, &[0x82, 6, 0, 1, 0, 1, b'a', 4], SubscriptionOptions);
    refused(
        v5,
        &[0x82, 7, 0, 1, 0, 0, 1, b'a', 0x40],
        SubscriptionOptions,
    );
    refused(
        v5,
        &[0x82, 7, 0, 1, 0, 0, 1, b'a', 0x30],
        SubscriptionOptions,
    );
    refused(v4, &[0x82, 7, 0, 1, 0, 1, b'a', 0, 0], Short);
    // No Local on a shared subscription; a share without a filter.
    refused(
        v5,
        b"\x82\x10\x00\x01\x00\x00\x0a$share/g/a\x04",
        SubscriptionOptions,
    );
    refused(v5, b"\x82\x0e\x00\x01\x00\x00\x08$share/g\x00", TopicFilter);
    // To 3.1.1 `$share` is a level like any other.
    assert!(
        decode(b"\x82\x0d\x00\x01\x00\x08$share/g\x00", v4, 99)
            .unwrap()
            .is_some()
    );
    refused(v4, &[0x90, 3, 0, 1, 3], ReasonCode(3));
    refused(v4, &[0x90, 3, 0, 1, 0x87], ReasonCode(0x87));
    refused(v5, &[0x90, 4, 0, 1, 0, 0x99], ReasonCode(0x99));
    refused(v5, &[0xb0, 4, 0, 1, 0, 1], ReasonCode(1));
    // Properties that leave nothing for the list.
    refused(v5, b"\x82\x0a\x00\x01\x07\x26\x00\x01k\x00\x01v", EmptyList);
    refused(v5, b"\xb0\x0a\x00\x01\x07\x26\x00\x01k\x00\x01v", EmptyList);
    assert_eq!(EmptyList.reason(), Reason::PROTOCOL_ERROR);
}

#[test]
fn properties() {
    for (bytes, why) in [
        (&[0x00][..], UnknownProperty(0)),
        (&[0x7f], UnknownProperty(127)),
        (&[0x80, 0x01], UnknownProperty(128)),
        (&[0x81, 0x00, 1], VariableInteger),
        (&[0x11, 0, 0, 0, 1], MisplacedProperty(17)),
        (&[0x01, 1, 0x01, 1], RepeatedProperty(1)),
        (&[0x01, 2], PropertyValue(1)),
        (&[0x23, 0, 0], PropertyValue(35)),
        (&[0x0b, 0], PropertyValue(11)),
        (&[0x0b, 0x80, 0x00], VariableInteger),
        (&[0x02, 0, 0], Short),
        (&[0x03, 0, 5, b'x'], Short),
        (&[0x03, 0, 1, 0], Text),
        (&[0x03, 0, 1, 0xff], Text),
        (&[0x08, 0, 1, b'#'], TopicName),
        (&[0x26, 0, 1, b'k'], Short),
        (&[0x26, 0, 1, 0, 0, 0], Text),
    ] {
        refused(Version::V5, &publish_v5(bytes), why);
    }
    assert_eq!(PropertyValue(35).reason(), Reason::TOPIC_ALIAS_INVALID);
    assert_eq!(PropertyValue(1).reason(), Reason::PROTOCOL_ERROR);
    // Both of these may stand twice in a PUBLISH, but the subscription id not in SUBSCRIBE.
    for twice in [
        &[0x0b, 1, 0x0b, 2][..],
        b"\x26\x00\x01k\x00\x01v\x26\x00\x01k\x00\x01v",
    ] {
        assert!(
            decode(&publish_v5(twice), Version::V5, 99)
                .unwrap()
                .is_some()
        );
    }
    refused(
        Version::V5,
        &[0x82, 11, 0, 1, 4, 0x0b, 1, 0x0b, 2, 0, 1, b'a', 0],
        RepeatedProperty(11),
    );
    // A property length beyond the packet, and one of five bytes.
    refused(Version::V5, &[0x30, 4, 0, 1, b't', 1], Short);
    refused(
        Version::V5,
        &[0x30, 8, 0, 1, b't', 0x80, 0x80, 0x80, 0x80, 0x01],
        VariableInteger,
    );
    let data_alone = b"\xf0\x06\x18\x04\x16\x00\x01x";
    refused(Version::V5, data_alone, AuthWithoutMethod);
    refused(Version::V5, &[0x20, 5, 0, 0, 2, 0x24, 2], PropertyValue(36));
    refused(
        Version::V5,
        &[0x20, 6, 0, 0, 3, 0x21, 0, 0],
        PropertyValue(33),
    );
}

#[test]
fn what_would_be_refused_is_not_written_either() {
    let good = Publish {
        dup: false,
        qos: Qos::AtLeastOnce,
        retain: false,
        topic: "t",
        packet_id: 1,
        properties: Properties::EMPTY,
        payload: b"",
    };
    let long = "x".repeat(65_536);
    let misplaced = [Property::ServerKeepAlive(1)];
    let twice = [Property::TopicAlias(1), Property::TopicAlias(2)];
    let unending = [Property::SubscriptionIdentifier(268_435_456)];
    for (packet, why) in [
        (
            Publish {
                packet_id: 0,
                ..good
            },
            PacketId,
        ),
        (
            Publish {
                qos: Qos::AtMostOnce,
                ..good
            },
            PacketId,
        ),
        (
            Publish {
                topic: "a/+",
                ..good
            },
            TopicName,
        ),
        (
            Publish {
                topic: &long,
                ..good
            },
            TopicName,
        ),
        (
            Publish {
                properties: Properties::of(&misplaced),
                ..good
            },
            MisplacedProperty(19),
        ),
        (
            Publish {
                properties: Properties::of(&twice),
                ..good
            },
            RepeatedProperty(35),
        ),
        (
            Publish {
                properties: Properties::of(&unending),
                ..good
            },
            PropertyValue(11),
        ),
    ] {
        let answer = encoded_len(&Packet::Publish(packet), Version::V5);
        assert_eq!(answer, Err(EncodeError::Invalid(why)));
    }
    let long_value = [Property::UserProperty("k", &long)];
    let ack = Ack {
        properties: Properties::of(&long_value),
        ..Ack::success(1)
    };
    assert_eq!(
        encoded_len(&Packet::PubAck(ack), Version::V5),
        Err(EncodeError::Invalid(DecodeError::FieldTooLong))
    );
}
