//! Encodes packets.

use super::check::check;
use super::decode::PROTOCOL_NAME;
use super::wire::{Sink, variable, variable_len};
use super::{
    Ack, Connect, EncodeError, Packet, Properties, Publish, Reason, Subscribe, Unsubscribe,
    Version, Will,
};

/// Writes one packet at the start of `out`; returns its length.
///
/// [`super::decode`] reads an equal packet back. In 3.1.1 the reasons and properties of version 5 are left
/// out, so that one value serves peers of both versions. CONNECT is written in its own version.
///
/// # Errors
/// [`EncodeError::NoRoom`] if `out` is shorter than [`encoded_len`]; its contents are then
/// unspecified. [`EncodeError::Invalid`] if the packet breaks the standard.
pub fn encode(packet: &Packet<'_>, version: Version, out: &mut [u8]) -> Result<usize, EncodeError> {
    let (version, body_len) = measure(packet, version)?;
    let mut sink = Sink::writer(out);
    sink.put_u8(first_byte(packet))?;
    sink.put_variable(body_len)?;
    put_body(packet, version, &mut sink)?;
    Ok(sink.len())
}

/// Bytes that [`encode`] writes.
///
/// # Errors
/// As [`encode`], without [`EncodeError::NoRoom`].
pub fn encoded_len(packet: &Packet<'_>, version: Version) -> Result<usize, EncodeError> {
    let (_, body_len) = measure(packet, version)?;
    let body_len_bytes = usize::try_from(body_len).map_err(|_| EncodeError::TooLarge)?;
    Ok(1 + variable_len(body_len) + body_len_bytes)
}

/// Checks a packet; returns the version that it is written in, and the length of its body.
fn measure(packet: &Packet<'_>, version: Version) -> Result<(Version, u32), EncodeError> {
    let version = packet.version_on(version);
    check(packet, version).map_err(EncodeError::Invalid)?;
    let mut counter = Sink::counter();
    put_body(packet, version, &mut counter)?;
    Ok((version, variable(counter.len())?))
}

fn first_byte(packet: &Packet<'_>) -> u8 {
    match packet {
        Packet::Connect(_) => 0x10,
        Packet::ConnAck(_) => 0x20,
        Packet::Publish(publish) => {
            0x30 | u8::from(publish.dup) << 3 | publish.qos.to_u8() << 1 | u8::from(publish.retain)
        }
        Packet::PubAck(_) => 0x40,
        Packet::PubRec(_) => 0x50,
        Packet::PubRel(_) => 0x62,
        Packet::PubComp(_) => 0x70,
        Packet::Subscribe(_) => 0x82,
        Packet::SubAck(_) => 0x90,
        Packet::Unsubscribe(_) => 0xa2,
        Packet::UnsubAck(_) => 0xb0,
        Packet::PingReq => 0xc0,
        Packet::PingResp => 0xd0,
        Packet::Disconnect(_) => 0xe0,
        Packet::Auth(_) => 0xf0,
    }
}

fn put_body(packet: &Packet<'_>, version: Version, sink: &mut Sink<'_>) -> Result<(), EncodeError> {
    match packet {
        Packet::Connect(connect) => put_connect(connect, sink),
        Packet::ConnAck(ack) => {
            sink.put_u8(u8::from(ack.session_present))?;
            sink.put_u8(match version {
                Version::V4 => ack.reason.to_v4_return_code(),
                Version::V5 => ack.reason.0,
            })?;
            put_properties(&ack.properties, version, sink)
        }
        Packet::Publish(publish) => put_publish(publish, version, sink),
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            put_ack(ack, version, sink)
        }
        Packet::Subscribe(subscribe) => put_subscribe(subscribe, version, sink),
        Packet::SubAck(ack) => {
            sink.put_u16(ack.packet_id)?;
            put_properties(&ack.properties, version, sink)?;
            match version {
                Version::V4 => ack
                    .codes
                    .iter()
                    .try_for_each(|code| sink.put_u8((*code).min(0x80))),
                Version::V5 => sink.put(ack.codes),
            }
        }
        Packet::Unsubscribe(unsubscribe) => put_unsubscribe(unsubscribe, version, sink),
        Packet::UnsubAck(ack) => {
            sink.put_u16(ack.packet_id)?;
            put_properties(&ack.properties, version, sink)?;
            match version {
                Version::V4 => Ok(()),
                Version::V5 => sink.put(ack.codes),
            }
        }
        Packet::PingReq | Packet::PingResp => Ok(()),
        Packet::Disconnect(end) => put_tail(end.reason, &end.properties, version, sink),
        Packet::Auth(auth) => put_tail(auth.reason, &auth.properties, version, sink),
    }
}

fn put_connect(connect: &Connect<'_>, sink: &mut Sink<'_>) -> Result<(), EncodeError> {
    let will_flags = connect.will.map_or(0, |will| {
        0x04 | will.qos.to_u8() << 3 | u8::from(will.retain) << 5
    });
    sink.put(PROTOCOL_NAME)?;
    sink.put_u8(connect.version.level())?;
    sink.put_u8(
        u8::from(connect.user.is_some()) << 7
            | u8::from(connect.password.is_some()) << 6
            | will_flags
            | u8::from(connect.clean_start) << 1,
    )?;
    sink.put_u16(connect.keep_alive_s)?;
    put_properties(&connect.properties, connect.version, sink)?;
    sink.put_text(connect.client_id)?;
    if let Some(will) = &connect.will {
        put_will(will, connect.version, sink)?;
    }
    if let Some(user) = connect.user {
        sink.put_text(user)?;
    }
    if let Some(password) = connect.password {
        sink.put_binary(password)?;
    }
    Ok(())
}

fn put_will(will: &Will<'_>, version: Version, sink: &mut Sink<'_>) -> Result<(), EncodeError> {
    put_properties(&will.properties, version, sink)?;
    sink.put_text(will.topic)?;
    sink.put_binary(will.payload)
}

fn put_publish(
    publish: &Publish<'_>,
    version: Version,
    sink: &mut Sink<'_>,
) -> Result<(), EncodeError> {
    sink.put_text(publish.topic)?;
    if publish.packet_id != 0 {
        sink.put_u16(publish.packet_id)?;
    }
    put_properties(&publish.properties, version, sink)?;
    sink.put(publish.payload)
}

fn put_ack(ack: &Ack<'_>, version: Version, sink: &mut Sink<'_>) -> Result<(), EncodeError> {
    sink.put_u16(ack.packet_id)?;
    put_tail(ack.reason, &ack.properties, version, sink)
}

fn put_subscribe(
    subscribe: &Subscribe<'_>,
    version: Version,
    sink: &mut Sink<'_>,
) -> Result<(), EncodeError> {
    sink.put_u16(subscribe.packet_id)?;
    put_properties(&subscribe.properties, version, sink)?;
    for item in subscribe.filters {
        sink.put_text(item.filter)?;
        let options = u8::from(item.no_local) << 2
            | u8::from(item.retain_as_published) << 3
            | (item.retain_handling as u8) << 4;
        sink.put_u8(match version {
            Version::V4 => item.qos.to_u8(),
            Version::V5 => item.qos.to_u8() | options,
        })?;
    }
    Ok(())
}

fn put_unsubscribe(
    unsubscribe: &Unsubscribe<'_>,
    version: Version,
    sink: &mut Sink<'_>,
) -> Result<(), EncodeError> {
    sink.put_u16(unsubscribe.packet_id)?;
    put_properties(&unsubscribe.properties, version, sink)?;
    for filter in unsubscribe.filters {
        sink.put_text(filter)?;
    }
    Ok(())
}

/// Reason and properties: nothing for plain success, else both. Version 5 could leave out an empty
/// property length, but some clients cannot read that form (rumqttc 0.25 in DISCONNECT).
fn put_tail(
    reason: Reason,
    properties: &Properties<'_>,
    version: Version,
    sink: &mut Sink<'_>,
) -> Result<(), EncodeError> {
    if version == Version::V4 || (reason == Reason::SUCCESS && properties.is_empty()) {
        return Ok(());
    }
    sink.put_u8(reason.0)?;
    put_properties(properties, version, sink)
}

fn put_properties(
    properties: &Properties<'_>,
    version: Version,
    sink: &mut Sink<'_>,
) -> Result<(), EncodeError> {
    if version == Version::V4 {
        return Ok(());
    }
    let mut counter = Sink::counter();
    for property in *properties {
        property.put(&mut counter)?;
    }
    sink.put_variable(variable(counter.len())?)?;
    for property in *properties {
        property.put(sink)?;
    }
    Ok(())
}
