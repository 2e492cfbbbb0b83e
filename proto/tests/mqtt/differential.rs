//! Our codec against rumqttc 0.25.1 and rumqttd 0.20.0: ours written → theirs read → theirs
//! written → ours read must be the packet we began with. Properties may change their order, not
//! that of user properties among themselves.
//!
//! What the peers get wrong is listed in [`Peer::fails_on`], so that everything else must hold, and
//! shown by the tests at the foot, so that a release that mends it is noticed.

use bytes::BytesMut;
use headwater_proto::mqtt::{
    DecodeError, Packet, Properties, Property, Publish, Qos, Version, decode,
};
use proptest::prelude::*;
use rumqttc::mqttbytes::v4 as client_v4;
use rumqttc::v5::mqttbytes::v5 as client_v5;
use rumqttd::protocol::Protocol;
use rumqttd::protocol::v4::V4 as BrokerV4;
use rumqttd::protocol::v5::V5 as BrokerV5;

use super::generate::packet;
use super::properties::written;

const LIMIT: usize = 1 << 20;

/// Whose codec reads our bytes and writes them anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    ClientV4,
    ClientV5,
    BrokerV4,
    BrokerV5,
}

impl Peer {
    fn version(self) -> Version {
        match self {
            Self::ClientV4 | Self::BrokerV4 => Version::V4,
            Self::ClientV5 | Self::BrokerV5 => Version::V5,
        }
    }

    /// Their reading of `bytes`, and what they write for it.
    fn echo(self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let mut from = BytesMut::from(bytes);
        let mut to = BytesMut::new();
        let error = |error: &dyn std::fmt::Debug| format!("{error:?}");
        match self {
            Self::ClientV4 => {
                let read = client_v4::Packet::read(&mut from, LIMIT).map_err(|e| error(&e))?;
                read.write(&mut to, LIMIT).map_err(|e| error(&e))?;
            }
            Self::ClientV5 => {
                let read = client_v5::Packet::read(&mut from, None).map_err(|e| error(&e))?;
                read.write(&mut to, None).map_err(|e| error(&e))?;
            }
            Self::BrokerV4 => {
                let read = BrokerV4.read_mut(&mut from, LIMIT).map_err(|e| error(&e))?;
                BrokerV4.write(read, &mut to).map_err(|e| error(&e))?;
            }
            Self::BrokerV5 => {
                let read = BrokerV5.read_mut(&mut from, LIMIT).map_err(|e| error(&e))?;
                BrokerV5.write(read, &mut to).map_err(|e| error(&e))?;
            }
        }
        assert!(from.is_empty(), "they left {} bytes", from.len());
        Ok(to.to_vec())
    }

    /// Valid packets that the peer cannot carry.
    fn fails_on(self, packet: &Packet<'_>) -> bool {
        match (self, packet) {
            // A password must be UTF-8 for them, and an empty user or password is none.
            (_, Packet::Connect(connect)) => {
                connect.user == Some("")
                    || connect.password.is_some_and(|password| {
                        password.is_empty() || std::str::from_utf8(password).is_err()
                    })
            }
            // Neither reads AUTH.
            (Self::ClientV5 | Self::BrokerV5, Packet::Auth(_)) => true,
            // Each subscription identifier is counted one byte too long: after two of them the
            // last property is taken for payload.
            (Self::ClientV5 | Self::BrokerV5, Packet::Publish(publish)) => {
                let is_id = |p: &Property<'_>| matches!(p, Property::SubscriptionIdentifier(_));
                publish.properties.iter().filter(is_id).count() > 1
            }
            // Written without properties it has a byte too many, and rumqttc cannot read the plain
            // one of two bytes.
            (Self::ClientV5 | Self::BrokerV5, Packet::Disconnect(end)) => end.properties.is_empty(),
            // rumqttd panics on what only a client should read.
            (Self::BrokerV5, Packet::ConnAck(_) | Packet::UnsubAck(_)) => true,
            _ => false,
        }
    }
}

/// As text, with the properties sorted by number.
fn canonical(packet: &Packet<'_>) -> String {
    fn sorted<'a>(properties: Properties<'a>) -> Vec<Property<'a>> {
        let mut list: Vec<_> = properties.iter().collect();
        list.sort_by_key(Property::id);
        list
    }
    let mut packet = *packet;
    let mut lists = [Vec::new(), Vec::new()];
    match &mut packet {
        Packet::Connect(p) => {
            lists[0] = sorted(std::mem::take(&mut p.properties));
            if let Some(will) = &mut p.will {
                lists[1] = sorted(std::mem::take(&mut will.properties));
            }
        }
        Packet::ConnAck(p) => lists[0] = sorted(std::mem::take(&mut p.properties)),
        Packet::Publish(p) => lists[0] = sorted(std::mem::take(&mut p.properties)),
        Packet::PubAck(p) | Packet::PubRec(p) | Packet::PubRel(p) | Packet::PubComp(p) => {
            lists[0] = sorted(std::mem::take(&mut p.properties));
        }
        Packet::Subscribe(p) => lists[0] = sorted(std::mem::take(&mut p.properties)),
        Packet::SubAck(p) => lists[0] = sorted(std::mem::take(&mut p.properties)),
        Packet::Unsubscribe(p) => lists[0] = sorted(std::mem::take(&mut p.properties)),
        Packet::UnsubAck(p) => lists[0] = sorted(std::mem::take(&mut p.properties)),
        Packet::Disconnect(p) => lists[0] = sorted(std::mem::take(&mut p.properties)),
        Packet::Auth(p) => lists[0] = sorted(std::mem::take(&mut p.properties)),
        Packet::PingReq | Packet::PingResp => {}
    }
    format!("{packet:?} {lists:?}")
}

fn agrees(peer: Peer, packet: &Packet<'_>) -> Result<(), TestCaseError> {
    if peer.fails_on(packet) {
        return Ok(());
    }
    let version = peer.version();
    let ours = written(packet, version);
    let theirs = peer.echo(&ours).map_err(|error| {
        TestCaseError::fail(format!("{peer:?} refuses {packet:?}, {ours:02x?}: {error}"))
    })?;
    match decode(&theirs, version, LIMIT) {
        Ok(Some((read, len))) => {
            prop_assert_eq!(len, theirs.len());
            prop_assert_eq!(canonical(&read), canonical(packet));
        }
        other => prop_assert!(
            false,
            "{:?} wrote {:02x?}, read as {:?}",
            peer,
            theirs,
            other
        ),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_rumqttc_v4_makes_itself_is_read_field_by_field(
        topic in "[a-z/]{1,20}",
        payload in prop::collection::vec(any::<u8>(), 0..300),
        pkid in 1..=u16::MAX,
        retain in any::<bool>(),
    ) {
        let qos = rumqttc::QoS::AtLeastOnce;
        let mut theirs = client_v4::Publish::new(&topic, qos, payload.clone());
        (theirs.pkid, theirs.retain) = (pkid, retain);
        let mut bytes = BytesMut::new();
        theirs.write(&mut bytes).unwrap();
        let ours = Publish {
            dup: false,
            qos: Qos::AtLeastOnce,
            retain,
            topic: &topic,
            packet_id: pkid,
            properties: Properties::EMPTY,
            payload: &payload,
        };
        let ours = Packet::Publish(ours);
        prop_assert_eq!(decode(&bytes, Version::V4, LIMIT), Ok(Some((ours, bytes.len()))));
        let mut bytes = BytesMut::from(&*written(&ours, Version::V4));
        let read = client_v4::Packet::read(&mut bytes, LIMIT).unwrap();
        prop_assert_eq!(read, client_v4::Packet::Publish(theirs));
    }

    #[test]
    fn what_rumqttc_v5_makes_itself_is_read_field_by_field(
        topic in "[a-z/]{1,20}",
        payload in prop::collection::vec(any::<u8>(), 0..300),
        alias in 1..=u16::MAX,
        expiry in any::<u32>(),
    ) {
        let properties = client_v5::PublishProperties {
            topic_alias: Some(alias),
            message_expiry_interval: Some(expiry),
            user_properties: vec![("k".into(), "v".into())],
            ..Default::default()
        };
        let qos = rumqttc::v5::mqttbytes::QoS::AtMostOnce;
        let theirs = client_v5::Publish::new(topic.clone(), qos, payload.clone(), Some(properties));
        let mut bytes = BytesMut::new();
        theirs.write(&mut bytes).unwrap();
        let Ok(Some((Packet::Publish(read), _))) = decode(&bytes, Version::V5, LIMIT) else {
            return Err(TestCaseError::fail("no PUBLISH"));
        };
        prop_assert_eq!(read.topic, topic);
        prop_assert_eq!(read.payload, payload);
        prop_assert_eq!(read.properties.topic_alias(), Some(alias));
        prop_assert_eq!(read.properties.message_expiry_s(), Some(expiry));
        let mut bytes = BytesMut::from(&*written(&Packet::Publish(read), Version::V5));
        let again = client_v5::Packet::read(&mut bytes, None).unwrap();
        prop_assert_eq!(again, client_v5::Packet::Publish(theirs));
    }

    #[test]
    fn rumqttc_v4_agrees(packet in packet(Version::V4)) {
        agrees(Peer::ClientV4, &packet)?;
    }

    #[test]
    fn rumqttd_v4_agrees(packet in packet(Version::V4)) {
        agrees(Peer::BrokerV4, &packet)?;
    }

    #[test]
    fn rumqttc_v5_agrees(packet in packet(Version::V5)) {
        agrees(Peer::ClientV5, &packet)?;
    }

    #[test]
    fn rumqttd_v5_agrees(packet in packet(Version::V5)) {
        agrees(Peer::BrokerV5, &packet)?;
    }
}

/// Any client can send it: it is why no byte reaches rumqttd but through a gate.
#[test]
fn rumqttd_v5_panics_on_three_bytes_that_ours_refuses() {
    let bytes = [0xb0, 0x01, 0x00];
    assert!(std::panic::catch_unwind(|| Peer::BrokerV5.echo(&bytes)).is_err());
    assert_eq!(decode(&bytes, Version::V5, LIMIT), Err(DecodeError::Short));
}

#[test]
fn rumqttc_v5_cannot_read_the_plain_disconnect_and_writes_others_with_a_byte_too_many() {
    assert!(Peer::ClientV5.echo(&[0xe0, 0]).is_err());
    assert_eq!(
        Peer::ClientV5.echo(&[0xe0, 2, 0x89, 0]).unwrap(),
        [0xe0, 1, 0x89, 0]
    );
}

#[test]
fn both_take_the_last_property_after_two_subscription_ids_for_payload() {
    let bytes = b"\x30\x0b\x00\x01t\x06\x0b\x01\x0b\x02\x01\x01x";
    let Ok(Some((Packet::Publish(ours), _))) = decode(bytes, Version::V5, LIMIT) else {
        panic!("no PUBLISH");
    };
    assert_eq!(ours.payload, b"x");
    for peer in [Peer::ClientV5, Peer::BrokerV5] {
        assert!(peer.echo(bytes).unwrap().ends_with(b"\x01\x01x"));
    }
}
