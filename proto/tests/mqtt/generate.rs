//! Valid packets of either version, with every property that a packet may carry.
//!
//! Packets borrow; the generator leaks the few bytes that each case needs.

use headwater_proto::mqtt::{
    Ack, Auth, ConnAck, Connect, Disconnect, List, Packet, Properties, Property, Publish, Qos,
    Reason, RetainHandling, SubAck, Subscribe, Subscription, UnsubAck, Unsubscribe, Version, Will,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

pub(crate) fn version() -> impl Strategy<Value = Version> {
    select(vec![Version::V4, Version::V5])
}

/// A packet that `version` can say in full.
pub(crate) fn packet(version: Version) -> BoxedStrategy<Packet<'static>> {
    let id = || 1..=u16::MAX;
    let ack = move |codes: &'static [u8]| {
        (id(), reason(version, codes), properties(version, ANSWER)).prop_map(
            |(packet_id, reason, properties)| Ack {
                packet_id,
                reason,
                properties,
            },
        )
    };
    let always = prop_oneof![
        connect(version).prop_map(Packet::Connect),
        connack(version).prop_map(Packet::ConnAck),
        publish(version).prop_map(Packet::Publish),
        ack(RECEIPT).prop_map(Packet::PubAck),
        ack(RECEIPT).prop_map(Packet::PubRec),
        ack(RELEASE).prop_map(Packet::PubRel),
        ack(RELEASE).prop_map(Packet::PubComp),
        subscribe(version).prop_map(Packet::Subscribe),
        suback(version).prop_map(Packet::SubAck),
        (id(), properties(version, &[38]), vec(filter(), 1..5)).prop_map(
            |(packet_id, properties, filters)| Packet::Unsubscribe(Unsubscribe {
                packet_id,
                properties,
                filters: List::of(filters.leak()),
            })
        ),
        unsuback(version).prop_map(Packet::UnsubAck),
        Just(Packet::PingReq),
        Just(Packet::PingResp),
        (
            reason(version, DISCONNECT),
            properties(version, &[17, 28, 31, 38])
        )
            .prop_map(|(reason, properties)| Packet::Disconnect(Disconnect { reason, properties })),
    ];
    match version {
        Version::V4 => always.boxed(),
        Version::V5 => prop_oneof![14 => always, 1 => auth().prop_map(Packet::Auth)].boxed(),
    }
}

const CONNACK: &[u8] = &[
    0, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8c, 0x90, 0x95, 0x97,
    0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9f,
];
const CONNACK_V4: &[u8] = &[0, 0x84, 0x85, 0x86, 0x87, 0x88];
const RECEIPT: &[u8] = &[0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
const RELEASE: &[u8] = &[0, 0x92];
const SUBACK: &[u8] = &[
    0, 1, 2, 0x80, 0x83, 0x87, 0x8f, 0x91, 0x97, 0x9e, 0xa1, 0xa2,
];
const SUBACK_V4: &[u8] = &[0, 1, 2, 0x80];
const UNSUBACK: &[u8] = &[0, 0x11, 0x80, 0x83, 0x87, 0x8f, 0x91];
const DISCONNECT: &[u8] = &[
    0, 4, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8b, 0x8d, 0x8e, 0x8f, 0x90, 0x93, 0x94, 0x95, 0x96,
    0x97, 0x98, 0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9e, 0x9f, 0xa0, 0xa1, 0xa2,
];
const ANSWER: &[u8] = &[31, 38];
const MESSAGE: &[u8] = &[1, 2, 3, 8, 9, 38];

fn reason(version: Version, codes: &'static [u8]) -> BoxedStrategy<Reason> {
    match version {
        Version::V4 => Just(Reason::SUCCESS).boxed(),
        Version::V5 => select(codes).prop_map(Reason).boxed(),
    }
}

fn connect(version: Version) -> impl Strategy<Value = Connect<'static>> {
    let will = (
        qos(),
        any::<bool>(),
        topic(),
        bytes(),
        properties(version, &[1, 2, 3, 8, 9, 24, 38]),
    )
        .prop_map(|(qos, retain, topic, payload, properties)| Will {
            qos,
            retain,
            topic,
            payload,
            properties,
        });
    let names = (
        text(),
        any::<bool>(),
        option::of(text()),
        option::of(bytes()),
    );
    (
        names,
        any::<u16>(),
        option::of(will),
        properties(version, &[17, 21, 23, 25, 33, 34, 38, 39]),
    )
        .prop_map(move |(names, keep_alive_s, will, properties)| {
            let (client_id, clean_start, user, password) = names;
            let v5 = version == Version::V5;
            Connect {
                version,
                client_id,
                clean_start: clean_start || (!v5 && client_id.is_empty()),
                keep_alive_s,
                user,
                password: password.filter(|_| v5 || user.is_some()),
                will,
                properties,
            }
        })
}

fn connack(version: Version) -> impl Strategy<Value = ConnAck<'static>> {
    let codes = if version == Version::V5 {
        CONNACK
    } else {
        CONNACK_V4
    };
    let allowed = &[
        17, 18, 19, 21, 26, 28, 31, 33, 34, 36, 37, 38, 39, 40, 41, 42,
    ];
    (any::<bool>(), select(codes), properties(version, allowed)).prop_map(
        |(session_present, code, properties)| ConnAck {
            session_present: session_present && code == 0,
            reason: Reason(code),
            properties,
        },
    )
}

fn publish(version: Version) -> impl Strategy<Value = Publish<'static>> {
    let allowed = &[1, 2, 3, 8, 9, 11, 35, 38];
    let flags = (any::<bool>(), qos(), any::<bool>(), any::<bool>());
    (
        flags,
        topic(),
        1..=u16::MAX,
        properties(version, allowed),
        payload(),
    )
        .prop_map(move |(flags, topic, packet_id, properties, payload)| {
            let (dup, qos, retain, unnamed) = flags;
            let unnamed = unnamed && properties.topic_alias().is_some();
            Publish {
                dup: dup && qos != Qos::AtMostOnce,
                qos,
                retain,
                topic: if unnamed { "" } else { topic },
                packet_id: if qos == Qos::AtMostOnce { 0 } else { packet_id },
                properties,
                payload,
            }
        })
}

fn subscribe(version: Version) -> impl Strategy<Value = Subscribe<'static>> {
    let handling = select(vec![
        RetainHandling::Send,
        RetainHandling::SendIfNew,
        RetainHandling::DoNotSend,
    ]);
    let line = (filter(), qos(), any::<bool>(), any::<bool>(), handling).prop_map(
        move |(filter, qos, no_local, retain_as_published, retain_handling)| match version {
            Version::V4 => Subscription::new(filter, qos),
            Version::V5 => Subscription {
                filter,
                qos,
                no_local: no_local && !filter.starts_with("$share/"),
                retain_as_published,
                retain_handling,
            },
        },
    );
    (
        1..=u16::MAX,
        properties(version, &[11, 38]),
        vec(line, 1..5),
    )
        .prop_map(|(packet_id, properties, lines)| Subscribe {
            packet_id,
            properties,
            filters: List::of(lines.leak()),
        })
}

fn suback(version: Version) -> impl Strategy<Value = SubAck<'static>> {
    let codes = if version == Version::V5 {
        SUBACK
    } else {
        SUBACK_V4
    };
    (
        1..=u16::MAX,
        properties(version, ANSWER),
        vec(select(codes), 1..6),
    )
        .prop_map(|(packet_id, properties, codes)| SubAck {
            packet_id,
            properties,
            codes: codes.leak(),
        })
}

fn unsuback(version: Version) -> impl Strategy<Value = UnsubAck<'static>> {
    (
        1..=u16::MAX,
        properties(version, ANSWER),
        vec(select(UNSUBACK), 1..6),
    )
        .prop_map(move |(packet_id, properties, codes)| UnsubAck {
            packet_id,
            properties,
            codes: if version == Version::V5 {
                codes.leak()
            } else {
                &[]
            },
        })
}

fn auth() -> impl Strategy<Value = Auth<'static>> {
    (
        select(vec![0, 0x18, 0x19]),
        properties(Version::V5, &[21, 31, 38]),
    )
        .prop_map(|(code, properties)| Auth {
            reason: Reason(code),
            properties,
        })
}

/// Some of the allowed properties, in any order; the user property up to twice, the subscription
/// identifier of a PUBLISH too, and a method brings data at times.
fn properties(version: Version, allowed: &'static [u8]) -> BoxedStrategy<Properties<'static>> {
    if version == Version::V4 {
        return Just(Properties::EMPTY).boxed();
    }
    let often = if allowed == MESSAGE || allowed.contains(&35) {
        vec![11, 38]
    } else {
        vec![38]
    };
    (
        subsequence(allowed, 0..=allowed.len()),
        select(often),
        any::<bool>(),
    )
        .prop_map(|(mut ids, again, data)| {
            if ids.contains(&again) {
                ids.push(again);
            }
            if data && ids.contains(&21) {
                ids.push(22);
            }
            ids
        })
        .prop_shuffle()
        .prop_flat_map(|ids| ids.into_iter().map(property).collect::<Vec<_>>())
        .prop_map(|list| Properties::of(list.leak()))
        .boxed()
}

fn property(id: u8) -> BoxedStrategy<Property<'static>> {
    use Property as P;
    match id {
        1 => any::<bool>().prop_map(P::PayloadFormatIndicator).boxed(),
        2 => any::<u32>().prop_map(P::MessageExpiryInterval).boxed(),
        3 => text().prop_map(P::ContentType).boxed(),
        8 => topic().prop_map(P::ResponseTopic).boxed(),
        9 => bytes().prop_map(P::CorrelationData).boxed(),
        11 => prop_oneof![1..=300u32, 1..=268_435_455u32]
            .prop_map(P::SubscriptionIdentifier)
            .boxed(),
        17 => any::<u32>().prop_map(P::SessionExpiryInterval).boxed(),
        18 => text().prop_map(P::AssignedClientIdentifier).boxed(),
        19 => any::<u16>().prop_map(P::ServerKeepAlive).boxed(),
        21 => text().prop_map(P::AuthenticationMethod).boxed(),
        22 => bytes().prop_map(P::AuthenticationData).boxed(),
        23 => any::<bool>().prop_map(P::RequestProblemInformation).boxed(),
        24 => any::<u32>().prop_map(P::WillDelayInterval).boxed(),
        25 => any::<bool>()
            .prop_map(P::RequestResponseInformation)
            .boxed(),
        26 => text().prop_map(P::ResponseInformation).boxed(),
        28 => text().prop_map(P::ServerReference).boxed(),
        31 => text().prop_map(P::ReasonString).boxed(),
        33 => (1..=u16::MAX).prop_map(P::ReceiveMaximum).boxed(),
        34 => any::<u16>().prop_map(P::TopicAliasMaximum).boxed(),
        35 => (1..=u16::MAX).prop_map(P::TopicAlias).boxed(),
        36 => select(vec![Qos::AtMostOnce, Qos::AtLeastOnce])
            .prop_map(P::MaximumQos)
            .boxed(),
        37 => any::<bool>().prop_map(P::RetainAvailable).boxed(),
        38 => (text(), text())
            .prop_map(|(name, value)| P::UserProperty(name, value))
            .boxed(),
        39 => (1..=u32::MAX).prop_map(P::MaximumPacketSize).boxed(),
        40 => any::<bool>()
            .prop_map(P::WildcardSubscriptionAvailable)
            .boxed(),
        41 => any::<bool>()
            .prop_map(P::SubscriptionIdentifierAvailable)
            .boxed(),
        42 => any::<bool>()
            .prop_map(P::SharedSubscriptionAvailable)
            .boxed(),
        other => unreachable!("no property {other}"),
    }
}

fn qos() -> impl Strategy<Value = Qos> {
    select(vec![Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce])
}

fn text() -> impl Strategy<Value = &'static str> {
    "[a-zA-Z0-9 äß€😀+#/$]{0,12}".prop_map(|text| &*text.leak())
}

fn topic() -> impl Strategy<Value = &'static str> {
    "[a-z0-9 ü$/]{1,16}".prop_map(|text| &*text.leak())
}

fn filter() -> impl Strategy<Value = &'static str> {
    "(\\$share/g[a-z]{0,3}/)?([a-z]{0,4}/|\\+/){0,3}([a-z]{1,4}|#|\\+)"
        .prop_map(|text| &*text.leak())
}

fn bytes() -> impl Strategy<Value = &'static [u8]> {
    vec(any::<u8>(), 0..20).prop_map(|bytes| &*bytes.leak())
}

/// Now and then beyond what one and two bytes of remaining length can say.
fn payload() -> impl Strategy<Value = &'static [u8]> {
    prop_oneof![
        10 => vec(any::<u8>(), 0..200),
        1 => (any::<u8>(), 16_000..18_000usize).prop_map(|(byte, len)| vec![byte; len]),
    ]
    .prop_map(|bytes| &*bytes.leak())
}
