//! CONNECT and its answer.

use super::talk::*;

use headwater_gate::session::Next;
use headwater_gate::{CloseReason, GateEvent, Limits};
use headwater_proto::mqtt::{self, Connect, Packet, Properties, Property, Qos, Reason, Version};

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
fn a_connect_that_drips_in_is_cut_off() {
    let mut talk = Talk::new(Version::V4, Limits::default());
    talk.wait(9_000);
    talk.bytes(&[0x10]);
    talk.wait(999);
    assert_eq!(talk.tick(), None);
    talk.wait(1);
    assert_eq!(talk.tick(), Some(CloseReason::ConnectTimeout));
}
