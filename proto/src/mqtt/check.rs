//! The rules of both directions, on packets as values.

use super::filter::{filter_is_valid, plain_filter_is_valid, topic_is_valid};
use super::property::Place;
use super::{
    Ack, Connect, DecodeError, List, Packet, Properties, Property, Publish, Qos, Reason, Subscribe,
    Version, share,
};

/// Checks the rules of the standard for one packet alone.
pub(super) fn check(packet: &Packet<'_>, version: Version) -> Result<(), DecodeError> {
    match packet {
        Packet::Connect(connect) => check_connect(connect),
        Packet::ConnAck(ack) => {
            if ack.session_present && ack.reason != Reason::SUCCESS {
                return Err(DecodeError::ConnAckFlags);
            }
            check_tail(
                ack.reason,
                &ack.properties,
                version,
                Place::ConnAck,
                connack_reason,
            )
        }
        Packet::Publish(publish) => check_publish(publish, version),
        Packet::PubAck(ack) | Packet::PubRec(ack) => check_ack(ack, version, receipt_reason),
        Packet::PubRel(ack) | Packet::PubComp(ack) => check_ack(ack, version, release_reason),
        Packet::Subscribe(subscribe) => check_subscribe(subscribe, version),
        Packet::SubAck(ack) => {
            packet_id(ack.packet_id)?;
            let allowed = match version {
                Version::V4 => v4_suback_reason,
                Version::V5 => suback_reason,
            };
            check_codes(ack.codes, allowed)?;
            check_properties(&ack.properties, version, Place::Answer)
        }
        Packet::Unsubscribe(unsubscribe) => {
            packet_id(unsubscribe.packet_id)?;
            check_filters(unsubscribe.filters, version)?;
            check_properties(&unsubscribe.properties, version, Place::Unsubscribe)
        }
        Packet::UnsubAck(ack) => {
            packet_id(ack.packet_id)?;
            if version == Version::V5 {
                check_codes(ack.codes, unsuback_reason)?;
            }
            check_properties(&ack.properties, version, Place::Answer)
        }
        Packet::PingReq | Packet::PingResp => Ok(()),
        Packet::Disconnect(end) => check_tail(
            end.reason,
            &end.properties,
            version,
            Place::Disconnect,
            disconnect_reason,
        ),
        Packet::Auth(auth) => match version {
            Version::V4 => Err(DecodeError::PacketType(15)),
            Version::V5 => check_tail(
                auth.reason,
                &auth.properties,
                version,
                Place::Auth,
                auth_reason,
            ),
        },
    }
}

fn check_connect(connect: &Connect<'_>) -> Result<(), DecodeError> {
    let version = connect.version;
    text(connect.client_id)?;
    if let Some(will) = &connect.will {
        if !topic_is_valid(will.topic) {
            return Err(DecodeError::TopicName);
        }
        check_properties(&will.properties, version, Place::Will)?;
    }
    if let Some(user) = connect.user {
        text(user)?;
    }
    if version == Version::V4 {
        if connect.client_id.is_empty() && !connect.clean_start {
            return Err(DecodeError::ClientId);
        }
        if connect.password.is_some() && connect.user.is_none() {
            return Err(DecodeError::ConnectFlags);
        }
    }
    check_properties(&connect.properties, version, Place::Connect)
}

fn check_publish(publish: &Publish<'_>, version: Version) -> Result<(), DecodeError> {
    if publish.qos == Qos::AtMostOnce && publish.dup {
        return Err(DecodeError::Qos);
    }
    if (publish.qos == Qos::AtMostOnce) != (publish.packet_id == 0) {
        return Err(DecodeError::PacketId);
    }
    check_properties(&publish.properties, version, Place::Publish)?;
    let aliased = publish.topic.is_empty()
        && version == Version::V5
        && publish.properties.topic_alias().is_some();
    if aliased || topic_is_valid(publish.topic) {
        Ok(())
    } else {
        Err(DecodeError::TopicName)
    }
}

fn check_ack(ack: &Ack<'_>, version: Version, allowed: fn(u8) -> bool) -> Result<(), DecodeError> {
    packet_id(ack.packet_id)?;
    check_tail(ack.reason, &ack.properties, version, Place::Answer, allowed)
}

fn check_subscribe(subscribe: &Subscribe<'_>, version: Version) -> Result<(), DecodeError> {
    packet_id(subscribe.packet_id)?;
    let mut items = subscribe.filters.iter();
    let mut any = false;
    while let Some(item) = items.try_next()? {
        any = true;
        check_filter(item.filter, version)?;
        if version == Version::V5 && item.no_local && share(item.filter).is_some() {
            return Err(DecodeError::SubscriptionOptions);
        }
    }
    if !any {
        return Err(DecodeError::EmptyList);
    }
    check_properties(&subscribe.properties, version, Place::Subscribe)
}

fn check_filters(filters: List<'_, &str>, version: Version) -> Result<(), DecodeError> {
    let mut items = filters.iter();
    let mut any = false;
    while let Some(filter) = items.try_next()? {
        any = true;
        check_filter(filter, version)?;
    }
    if any {
        Ok(())
    } else {
        Err(DecodeError::EmptyList)
    }
}

fn check_filter(filter: &str, version: Version) -> Result<(), DecodeError> {
    let good = match version {
        Version::V4 => plain_filter_is_valid(filter),
        Version::V5 => filter_is_valid(filter),
    };
    if good {
        Ok(())
    } else {
        Err(DecodeError::TopicFilter)
    }
}

fn check_codes(codes: &[u8], allowed: fn(u8) -> bool) -> Result<(), DecodeError> {
    if codes.is_empty() {
        return Err(DecodeError::EmptyList);
    }
    match codes.iter().find(|code| !allowed(**code)) {
        Some(&code) => Err(DecodeError::ReasonCode(code)),
        None => Ok(()),
    }
}

/// Reason and properties, both of version 5 alone.
fn check_tail(
    reason: Reason,
    properties: &Properties<'_>,
    version: Version,
    place: Place,
    allowed: fn(u8) -> bool,
) -> Result<(), DecodeError> {
    if version == Version::V5 && !allowed(reason.0) {
        return Err(DecodeError::ReasonCode(reason.0));
    }
    check_properties(properties, version, place)
}

/// Each known, in its place, with a good value and not twice. Walks the bytes once, so that a list
/// that passed holds no error.
fn check_properties(
    properties: &Properties<'_>,
    version: Version,
    place: Place,
) -> Result<(), DecodeError> {
    if version == Version::V4 {
        return Ok(());
    }
    let mut seen = 0u64;
    let mut method = false;
    let mut data = false;
    let mut items = properties.iter();
    while let Some(property) = items.try_next()? {
        let id = property.id();
        if !property.may_stand_in(place) {
            return Err(DecodeError::MisplacedProperty(id));
        }
        let bit = 1u64 << id;
        if seen & bit != 0 && !property.may_repeat_in(place) {
            return Err(DecodeError::RepeatedProperty(id));
        }
        seen |= bit;
        method |= matches!(property, Property::AuthenticationMethod(_));
        data |= matches!(property, Property::AuthenticationData(_));
        check_property(&property)?;
    }
    if data && !method {
        Err(DecodeError::AuthWithoutMethod)
    } else {
        Ok(())
    }
}

fn check_property(property: &Property<'_>) -> Result<(), DecodeError> {
    let good = match *property {
        Property::ReceiveMaximum(value) | Property::TopicAlias(value) => value != 0,
        Property::MaximumPacketSize(value) => value != 0,
        Property::SubscriptionIdentifier(value) => {
            value != 0 && usize::try_from(value).is_ok_and(|v| v <= super::MAX_REMAINING_BYTES)
        }
        Property::MaximumQos(qos) => qos != Qos::ExactlyOnce,
        Property::ResponseTopic(topic) => {
            return topic_is_valid(topic)
                .then_some(())
                .ok_or(DecodeError::TopicName);
        }
        Property::ContentType(value)
        | Property::AssignedClientIdentifier(value)
        | Property::AuthenticationMethod(value)
        | Property::ResponseInformation(value)
        | Property::ServerReference(value)
        | Property::ReasonString(value) => return text(value),
        Property::UserProperty(name, value) => {
            text(name)?;
            return text(value);
        }
        Property::CorrelationData(value) | Property::AuthenticationData(value) => {
            value.len() <= super::MAX_TEXT_BYTES
        }
        Property::PayloadFormatIndicator(_)
        | Property::MessageExpiryInterval(_)
        | Property::SessionExpiryInterval(_)
        | Property::ServerKeepAlive(_)
        | Property::RequestProblemInformation(_)
        | Property::WillDelayInterval(_)
        | Property::RequestResponseInformation(_)
        | Property::TopicAliasMaximum(_)
        | Property::RetainAvailable(_)
        | Property::WildcardSubscriptionAvailable(_)
        | Property::SubscriptionIdentifierAvailable(_)
        | Property::SharedSubscriptionAvailable(_) => true,
    };
    if good {
        Ok(())
    } else {
        Err(DecodeError::PropertyValue(property.id()))
    }
}

fn packet_id(id: u16) -> Result<(), DecodeError> {
    if id == 0 {
        Err(DecodeError::PacketId)
    } else {
        Ok(())
    }
}

fn text(text: &str) -> Result<(), DecodeError> {
    if text.bytes().any(|byte| byte == 0) {
        Err(DecodeError::Text)
    } else {
        Ok(())
    }
}

// The reason codes of each packet: tables 3-1, 3-4 to 3-8, 3-9 and 3-10 and sections 3.14 and 3.15.

fn connack_reason(code: u8) -> bool {
    matches!(code, 0 | 0x80..=0x8a | 0x8c | 0x90 | 0x95 | 0x97 | 0x99..=0x9d | 0x9f)
}

fn receipt_reason(code: u8) -> bool {
    matches!(
        code,
        0 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99
    )
}

fn release_reason(code: u8) -> bool {
    matches!(code, 0 | 0x92)
}

fn suback_reason(code: u8) -> bool {
    matches!(
        code,
        0..=2 | 0x80 | 0x83 | 0x87 | 0x8f | 0x91 | 0x97 | 0x9e | 0xa1 | 0xa2
    )
}

/// Refusals of version 5 may be passed: they are written as 0x80.
fn v4_suback_reason(code: u8) -> bool {
    matches!(code, 0..=2 | 0x80..)
}

fn unsuback_reason(code: u8) -> bool {
    matches!(code, 0 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8f | 0x91)
}

fn disconnect_reason(code: u8) -> bool {
    matches!(
        code,
        0 | 4 | 0x80..=0x83 | 0x87 | 0x89 | 0x8b | 0x8d..=0x90 | 0x93..=0xa2
    )
}

fn auth_reason(code: u8) -> bool {
    matches!(code, 0 | 0x18 | 0x19)
}
