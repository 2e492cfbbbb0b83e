//! Decodes packets.

use super::check::check;
use super::reason::Reason;
use super::wire::{
    VariableInteger, take, take_binary, take_text, take_u8, take_u16, take_variable,
};
use super::{
    Ack, Auth, ConnAck, Connect, DecodeError, Disconnect, Item, List, Packet, Properties, Publish,
    Qos, RetainHandling, SubAck, Subscribe, Subscription, UnsubAck, Unsubscribe, Version, Will,
};

/// Reads the packet at the start of `bytes`; returns it and its whole length.
///
/// - `Ok(None)`: the bytes so far are valid, and the packet ends beyond them.
/// - `version`: that of the connection; CONNECT holds its own.
/// - `max_packet`: most bytes of a whole packet. A longer one is refused as soon as its length is
///   known, before its body arrives.
///
/// # Errors
/// [`DecodeError`]; the connection must end, because the start of the next packet is unknown.
pub fn decode(
    bytes: &[u8],
    version: Version,
    max_packet: usize,
) -> Result<Option<(Packet<'_>, usize)>, DecodeError> {
    let Some(header) = Header::peek(bytes, version, max_packet)? else {
        return Ok(None);
    };
    let Some(body) = bytes.get(header.len..header.total()) else {
        return Ok(None);
    };
    let packet = parse(header, body, version)?;
    let version = packet.version_on(version);
    if version == Version::V5 && header.padded {
        return Err(DecodeError::VariableInteger);
    }
    check(&packet, version)?;
    Ok(Some((packet, header.total())))
}

/// The version that a CONNECT at the start of `bytes` asks for, even if the rest of it is invalid: a
/// refusal is answered in this version. `None` if the bytes do not reach that far, or the version is
/// unknown.
#[must_use]
pub fn connect_version(bytes: &[u8]) -> Option<Version> {
    let (&first, rest) = bytes.split_first()?;
    let length = VariableInteger::peek(rest).ok().flatten()?;
    let level = rest
        .get(length.len..)?
        .strip_prefix(PROTOCOL_NAME)?
        .first()?;
    match (first >> 4, level) {
        (1, 4) => Some(Version::V4),
        (1, 5) => Some(Version::V5),
        _ => None,
    }
}

/// The protocol name with its length.
pub(super) const PROTOCOL_NAME: &[u8] = b"\0\x04MQTT";

/// The fixed header.
#[derive(Debug, Clone, Copy)]
struct Header {
    kind: u8,
    flags: u8,
    /// Bytes of the header itself.
    len: usize,
    /// Bytes after it.
    remaining: usize,
    /// Whether the remaining length took more bytes than it needs, which version 5 forbids.
    padded: bool,
}

impl Header {
    fn total(self) -> usize {
        self.len + self.remaining
    }

    /// Reads the header, and refuses a packet that no further byte can make valid.
    fn peek(bytes: &[u8], version: Version, limit: usize) -> Result<Option<Self>, DecodeError> {
        let Some((&first, rest)) = bytes.split_first() else {
            return Ok(None);
        };
        let (kind, flags) = (first >> 4, first & 0x0f);
        let wanted = match kind {
            0 => return Err(DecodeError::PacketType(0)),
            15 if version == Version::V4 => return Err(DecodeError::PacketType(15)),
            3 => flags,
            6 | 8 | 10 => 2,
            _ => 0,
        };
        if flags != wanted {
            return Err(DecodeError::HeaderFlags(first));
        }
        let Some(length) = VariableInteger::peek(rest)? else {
            return Ok(None);
        };
        let remaining = usize::try_from(length.value).map_err(|_| DecodeError::VariableInteger)?;
        let header = Self {
            kind,
            flags,
            len: 1 + length.len,
            remaining,
            padded: length.is_padded(),
        };
        if header.total() > limit {
            return Err(DecodeError::TooLarge {
                bytes: header.total(),
                limit,
            });
        }
        let (least, most) = body_bounds(kind, version);
        if remaining < least {
            return Err(DecodeError::Short);
        }
        if remaining > most {
            return Err(DecodeError::Trailing);
        }
        Ok(Some(header))
    }
}

/// Least and most bytes of a body, as far as they are fixed.
fn body_bounds(kind: u8, version: Version) -> (usize, usize) {
    match (kind, version) {
        (1, _) => (12, usize::MAX),
        (2, Version::V4) | (4..=7 | 11, Version::V4) => (2, 2),
        (2, Version::V5) => (3, usize::MAX),
        (4..=7, Version::V5) | (3, Version::V4) => (2, usize::MAX),
        (3, Version::V5) => (3, usize::MAX),
        (8, Version::V4) => (6, usize::MAX),
        (8, Version::V5) => (7, usize::MAX),
        (9, Version::V4) => (3, usize::MAX),
        (9 | 11, Version::V5) => (4, usize::MAX),
        (10, Version::V4) => (5, usize::MAX),
        (10, Version::V5) => (6, usize::MAX),
        (12 | 13, _) | (14, Version::V4) => (0, 0),
        _ => (0, usize::MAX),
    }
}

fn parse<'a>(
    header: Header,
    mut body: &'a [u8],
    version: Version,
) -> Result<Packet<'a>, DecodeError> {
    let bytes = &mut body;
    let packet = match header.kind {
        1 => Packet::Connect(connect(bytes)?),
        2 => Packet::ConnAck(connack(bytes, version)?),
        3 => Packet::Publish(publish(bytes, header.flags, version)?),
        4 => Packet::PubAck(ack(bytes)?),
        5 => Packet::PubRec(ack(bytes)?),
        6 => Packet::PubRel(ack(bytes)?),
        7 => Packet::PubComp(ack(bytes)?),
        8 => {
            let (packet_id, properties) = opening(bytes, version)?;
            let filters = List::raw(core::mem::take(bytes));
            if version == Version::V4 {
                refuse_v5_options(filters)?;
            }
            Packet::Subscribe(Subscribe {
                packet_id,
                properties,
                filters,
            })
        }
        9 => {
            let (packet_id, properties) = opening(bytes, version)?;
            let codes = core::mem::take(bytes);
            if version == Version::V4 {
                if let Some(&code) = codes.iter().find(|code| **code > 0x80) {
                    return Err(DecodeError::ReasonCode(code));
                }
            }
            Packet::SubAck(SubAck {
                packet_id,
                properties,
                codes,
            })
        }
        10 => {
            let (packet_id, properties) = opening(bytes, version)?;
            let filters = List::raw(core::mem::take(bytes));
            Packet::Unsubscribe(Unsubscribe {
                packet_id,
                properties,
                filters,
            })
        }
        11 => {
            let (packet_id, properties) = opening(bytes, version)?;
            let codes = core::mem::take(bytes);
            Packet::UnsubAck(UnsubAck {
                packet_id,
                properties,
                codes,
            })
        }
        12 => Packet::PingReq,
        13 => Packet::PingResp,
        14 => {
            let (reason, properties) = tail(bytes)?;
            Packet::Disconnect(Disconnect { reason, properties })
        }
        15 => {
            let (reason, properties) = tail(bytes)?;
            Packet::Auth(Auth { reason, properties })
        }
        other => return Err(DecodeError::PacketType(other)),
    };
    if body.is_empty() {
        Ok(packet)
    } else {
        Err(DecodeError::Trailing)
    }
}

fn connect<'a>(bytes: &mut &'a [u8]) -> Result<Connect<'a>, DecodeError> {
    if take(bytes, PROTOCOL_NAME.len())? != PROTOCOL_NAME {
        return Err(DecodeError::ProtocolName);
    }
    let version = match take_u8(bytes)? {
        4 => Version::V4,
        5 => Version::V5,
        level => return Err(DecodeError::ProtocolLevel(level)),
    };
    let flags = take_u8(bytes)?;
    let bit = |mask: u8| flags & mask != 0;
    let has_will = bit(0x04);
    if bit(0x01) || (!has_will && flags & 0x38 != 0) {
        return Err(DecodeError::ConnectFlags);
    }
    let keep_alive_s = take_u16(bytes)?;
    let properties = properties(bytes, version)?;
    let client_id = take_text(bytes)?;
    let will = if has_will {
        Some(will(bytes, flags, version)?)
    } else {
        None
    };
    let user = if bit(0x80) {
        Some(take_text(bytes)?)
    } else {
        None
    };
    let password = if bit(0x40) {
        Some(take_binary(bytes)?)
    } else {
        None
    };
    Ok(Connect {
        version,
        client_id,
        clean_start: bit(0x02),
        keep_alive_s,
        user,
        password,
        will,
        properties,
    })
}

fn will<'a>(bytes: &mut &'a [u8], flags: u8, version: Version) -> Result<Will<'a>, DecodeError> {
    let qos = Qos::from_u8((flags >> 3) & 3).ok_or(DecodeError::Qos)?;
    let properties = properties(bytes, version)?;
    let topic = take_text(bytes)?;
    let payload = take_binary(bytes)?;
    Ok(Will {
        qos,
        retain: flags & 0x20 != 0,
        topic,
        payload,
        properties,
    })
}

fn connack<'a>(bytes: &mut &'a [u8], version: Version) -> Result<ConnAck<'a>, DecodeError> {
    let session_present = match take_u8(bytes)? {
        0 => false,
        1 => true,
        _ => return Err(DecodeError::ConnAckFlags),
    };
    let code = take_u8(bytes)?;
    let reason = match version {
        Version::V4 => Reason::from_v4_return_code(code).ok_or(DecodeError::ReasonCode(code))?,
        Version::V5 => Reason(code),
    };
    Ok(ConnAck {
        session_present,
        reason,
        properties: properties(bytes, version)?,
    })
}

fn publish<'a>(
    bytes: &mut &'a [u8],
    flags: u8,
    version: Version,
) -> Result<Publish<'a>, DecodeError> {
    let qos = Qos::from_u8((flags >> 1) & 3).ok_or(DecodeError::Qos)?;
    let topic = take_text(bytes)?;
    let packet_id = match qos {
        Qos::AtMostOnce => 0,
        Qos::AtLeastOnce | Qos::ExactlyOnce => take_u16(bytes)?,
    };
    let properties = properties(bytes, version)?;
    let payload = core::mem::take(bytes);
    let (dup, retain) = (flags & 8 != 0, flags & 1 != 0);
    Ok(Publish {
        dup,
        qos,
        retain,
        topic,
        packet_id,
        properties,
        payload,
    })
}

/// Version 5 leaves out a reason of success without properties.
fn ack<'a>(bytes: &mut &'a [u8]) -> Result<Ack<'a>, DecodeError> {
    let packet_id = take_u16(bytes)?;
    let (reason, properties) = tail(bytes)?;
    Ok(Ack {
        packet_id,
        reason,
        properties,
    })
}

/// Reason and properties at the end of a packet: each may be left out. Empty in 3.1.1, whose
/// bounds on the body leave no byte for it.
fn tail<'a>(bytes: &mut &'a [u8]) -> Result<(Reason, Properties<'a>), DecodeError> {
    if bytes.is_empty() {
        return Ok((Reason::SUCCESS, Properties::EMPTY));
    }
    let reason = Reason(take_u8(bytes)?);
    if bytes.is_empty() {
        return Ok((reason, Properties::EMPTY));
    }
    Ok((reason, properties(bytes, Version::V5)?))
}

/// Packet id and properties.
fn opening<'a>(
    bytes: &mut &'a [u8],
    version: Version,
) -> Result<(u16, Properties<'a>), DecodeError> {
    Ok((take_u16(bytes)?, properties(bytes, version)?))
}

/// Properties with their length; `check` walks them.
fn properties<'a>(bytes: &mut &'a [u8], version: Version) -> Result<Properties<'a>, DecodeError> {
    if version == Version::V4 {
        return Ok(Properties::EMPTY);
    }
    let len = take_variable(bytes)?;
    let len = usize::try_from(len).map_err(|_| DecodeError::Short)?;
    Ok(Properties::raw(take(bytes, len)?))
}

/// In 3.1.1 six bits of the options are reserved.
fn refuse_v5_options(filters: List<'_, Subscription<'_>>) -> Result<(), DecodeError> {
    let mut items = filters.iter();
    while let Some(item) = items.try_next()? {
        if item != Subscription::new(item.filter, item.qos) {
            return Err(DecodeError::SubscriptionOptions);
        }
    }
    Ok(())
}

impl<'a> Item<'a> for Subscription<'a> {
    fn take(bytes: &mut &'a [u8]) -> Result<Self, DecodeError> {
        let filter = take_text(bytes)?;
        let options = take_u8(bytes)?;
        let retain_handling = match options >> 4 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return Err(DecodeError::SubscriptionOptions),
        };
        Ok(Self {
            filter,
            qos: Qos::from_u8(options & 3).ok_or(DecodeError::Qos)?,
            no_local: options & 4 != 0,
            retain_as_published: options & 8 != 0,
            retain_handling,
        })
    }
}

impl<'a> Item<'a> for &'a str {
    fn take(bytes: &mut &'a [u8]) -> Result<Self, DecodeError> {
        take_text(bytes)
    }
}
