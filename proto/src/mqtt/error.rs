//! Errors of the codec, and the reason code that answers each.

use super::property_id::TOPIC_ALIAS;
use super::reason::Reason;

/// Why bytes are no packet, or a value may not become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Type 0, or AUTH in 3.1.1.
    #[error("packet type {0} is reserved")]
    PacketType(u8),
    /// The low four bits of the first byte do not suit the type.
    #[error("the flags of the fixed header, first byte 0x{0:02x}, are not allowed")]
    HeaderFlags(u8),
    /// A fifth byte, or in version 5 more bytes than needed.
    #[error("a variable byte integer is longer than allowed")]
    VariableInteger,
    /// Above the limit given to the decoder.
    #[error("a packet of {bytes} bytes is above the limit of {limit}")]
    TooLarge {
        /// The whole packet with its header.
        bytes: usize,
        /// The most the caller takes.
        limit: usize,
    },
    /// A field runs past the end of its packet.
    #[error("a field ends beyond its packet")]
    Short,
    /// Bytes are left after the last field.
    #[error("bytes are left over at the end of the packet")]
    Trailing,
    /// Not UTF-8, or it holds U+0000.
    #[error("a string is not UTF-8 without U+0000")]
    Text,
    /// A string or binary field above 65,535 bytes.
    #[error("a field is longer than 65535 bytes")]
    FieldTooLong,
    /// CONNECT does not begin with `MQTT`.
    #[error("the protocol name is not MQTT")]
    ProtocolName,
    /// A level other than 4 and 5.
    #[error("protocol level {0} is not supported")]
    ProtocolLevel(u8),
    /// Reserved bit set, or flags of a will, user or password that contradict each other.
    #[error("the connect flags contradict each other or use a reserved bit")]
    ConnectFlags,
    /// 3.1.1: an empty client id asks for a clean session.
    #[error("an empty client id needs a clean session")]
    ClientId,
    /// QoS 3, or a QoS 0 message marked as a repeat.
    #[error("the QoS bits are not allowed")]
    Qos,
    /// 0 where one is needed, or one where none is.
    #[error("the packet id does not fit the packet")]
    PacketId,
    /// Empty, with wildcards or with U+0000.
    #[error("the topic name is not valid")]
    TopicName,
    /// A wildcard out of place, or a malformed `$share`.
    #[error("the topic filter is not valid")]
    TopicFilter,
    /// Reserved option bits, or No Local on a shared subscription.
    #[error("the options of a subscription are not allowed")]
    SubscriptionOptions,
    /// SUBSCRIBE, UNSUBSCRIBE or an answer to one without an entry.
    #[error("the packet lists nothing")]
    EmptyList,
    /// Flags of CONNACK: reserved bits, or a session together with a refusal.
    #[error("the acknowledge flags of CONNACK are not allowed")]
    ConnAckFlags,
    /// A code that this packet may not carry.
    #[error("reason code 0x{0:02x} is not allowed in this packet")]
    ReasonCode(u8),
    /// A property that the standard does not know.
    #[error("property {0} is unknown")]
    UnknownProperty(u32),
    /// A property that this packet may not carry.
    #[error("property {0} is not allowed in this packet")]
    MisplacedProperty(u8),
    /// A property that may stand only once.
    #[error("property {0} is there twice")]
    RepeatedProperty(u8),
    /// A value outside the property's range.
    #[error("property {0} has a value that is not allowed")]
    PropertyValue(u8),
    /// Authentication data without a method.
    #[error("authentication data without an authentication method")]
    AuthWithoutMethod,
}

impl DecodeError {
    /// The reason code for the CONNACK or DISCONNECT that answers it in version 5.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::PacketType(_)
            | Self::HeaderFlags(_)
            | Self::VariableInteger
            | Self::Short
            | Self::Trailing
            | Self::Text
            | Self::FieldTooLong
            | Self::ConnectFlags
            | Self::Qos
            | Self::SubscriptionOptions
            | Self::ConnAckFlags
            | Self::ReasonCode(_)
            | Self::UnknownProperty(_) => Reason::MALFORMED_PACKET,
            Self::PacketId
            | Self::EmptyList
            | Self::MisplacedProperty(_)
            | Self::RepeatedProperty(_)
            | Self::AuthWithoutMethod => Reason::PROTOCOL_ERROR,
            Self::PropertyValue(TOPIC_ALIAS) => Reason::TOPIC_ALIAS_INVALID,
            Self::PropertyValue(_) => Reason::PROTOCOL_ERROR,
            Self::TooLarge { .. } => Reason::PACKET_TOO_LARGE,
            Self::ProtocolName | Self::ProtocolLevel(_) => Reason::UNSUPPORTED_VERSION,
            Self::ClientId => Reason::CLIENT_ID_NOT_VALID,
            Self::TopicName => Reason::TOPIC_NAME_INVALID,
            Self::TopicFilter => Reason::TOPIC_FILTER_INVALID,
        }
    }
}

/// Why a packet was not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The output is shorter than the packet.
    #[error("no room left in the output")]
    NoRoom,
    /// Larger than the four bytes of the remaining length allow.
    #[error("the packet is larger than MQTT allows")]
    TooLarge,
    /// A peer that keeps the standard would refuse it.
    #[error("the packet is not valid: {0}")]
    Invalid(DecodeError),
}
