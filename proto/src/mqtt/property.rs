//! Properties of version 5: their values, the packets that may hold them, and look-ups in a list.

use super::property_id::{SUBSCRIPTION_IDENTIFIER, TOPIC_ALIAS, USER_PROPERTY};
use super::wire::{Sink, take_binary, take_text, take_u8, take_u16, take_u32, take_variable};
use super::{DecodeError, EncodeError, Item, List, Qos};

/// The properties of a packet. In 3.1.1 always empty, and left out when written.
pub type Properties<'a> = List<'a, Property<'a>>;

/// One property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Property<'a> {
    /// Whether the payload is UTF-8 text; not verified here.
    PayloadFormatIndicator(bool),
    /// Seconds until a message need not be delivered any more.
    MessageExpiryInterval(u32),
    /// Type of the payload, in the application's words.
    ContentType(&'a str),
    /// A topic name for the answer.
    ResponseTopic(&'a str),
    /// Ties an answer to its request.
    CorrelationData(&'a [u8]),
    /// 1 to 268,435,455; may stand several times in PUBLISH.
    SubscriptionIdentifier(u32),
    /// Seconds that the session outlives its connection; `u32::MAX` is for ever.
    SessionExpiryInterval(u32),
    /// The client id that the server chose.
    AssignedClientIdentifier(&'a str),
    /// Seconds; replaces the client's keep alive.
    ServerKeepAlive(u16),
    /// Name of an extended authentication.
    AuthenticationMethod(&'a str),
    /// Its data; only with a method.
    AuthenticationData(&'a [u8]),
    /// Whether reason strings and user properties may stand in every packet.
    RequestProblemInformation(bool),
    /// Seconds between the end of the connection and the will.
    WillDelayInterval(u32),
    /// Whether the client wants response information.
    RequestResponseInformation(bool),
    /// Basis for response topics.
    ResponseInformation(&'a str),
    /// Another server to use.
    ServerReference(&'a str),
    /// For people.
    ReasonString(&'a str),
    /// Most unanswered QoS 1 and 2 messages that the sender of this takes; not 0.
    ReceiveMaximum(u16),
    /// Highest topic alias that the sender of this takes.
    TopicAliasMaximum(u16),
    /// Stands for a topic name; not 0.
    TopicAlias(u16),
    /// Best quality of service of the server, 0 or 1; its absence means 2.
    MaximumQos(Qos),
    /// Whether the server keeps retained messages.
    RetainAvailable(bool),
    /// Any name and value, any number of times.
    UserProperty(&'a str, &'a str),
    /// Most bytes of a whole packet that the sender of this takes; not 0.
    MaximumPacketSize(u32),
    /// Whether wildcards are served.
    WildcardSubscriptionAvailable(bool),
    /// Whether subscription identifiers are served.
    SubscriptionIdentifierAvailable(bool),
    /// Whether shared subscriptions are served.
    SharedSubscriptionAvailable(bool),
}

/// Where a list of properties stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Connect = 1 << 0,
    Will = 1 << 1,
    ConnAck = 1 << 2,
    Publish = 1 << 3,
    /// PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK.
    Answer = 1 << 4,
    Subscribe = 1 << 5,
    Unsubscribe = 1 << 6,
    Disconnect = 1 << 7,
    Auth = 1 << 8,
}

impl Property<'_> {
    /// Its number on the wire.
    #[must_use]
    pub const fn id(&self) -> u8 {
        match self {
            Self::PayloadFormatIndicator(_) => 1,
            Self::MessageExpiryInterval(_) => 2,
            Self::ContentType(_) => 3,
            Self::ResponseTopic(_) => 8,
            Self::CorrelationData(_) => 9,
            Self::SubscriptionIdentifier(_) => SUBSCRIPTION_IDENTIFIER,
            Self::SessionExpiryInterval(_) => 17,
            Self::AssignedClientIdentifier(_) => 18,
            Self::ServerKeepAlive(_) => 19,
            Self::AuthenticationMethod(_) => 21,
            Self::AuthenticationData(_) => 22,
            Self::RequestProblemInformation(_) => 23,
            Self::WillDelayInterval(_) => 24,
            Self::RequestResponseInformation(_) => 25,
            Self::ResponseInformation(_) => 26,
            Self::ServerReference(_) => 28,
            Self::ReasonString(_) => 31,
            Self::ReceiveMaximum(_) => 33,
            Self::TopicAliasMaximum(_) => 34,
            Self::TopicAlias(_) => TOPIC_ALIAS,
            Self::MaximumQos(_) => 36,
            Self::RetainAvailable(_) => 37,
            Self::UserProperty(..) => USER_PROPERTY,
            Self::MaximumPacketSize(_) => 39,
            Self::WildcardSubscriptionAvailable(_) => 40,
            Self::SubscriptionIdentifierAvailable(_) => 41,
            Self::SharedSubscriptionAvailable(_) => 42,
        }
    }

    /// The places it may stand in, as bits of [`Place`]: table 2-4 of the standard.
    const fn places(&self) -> u16 {
        use Place as P;
        const MESSAGE: u16 = P::Publish as u16 | P::Will as u16;
        const OPENING: u16 = P::Connect as u16 | P::ConnAck as u16;
        match self {
            Self::PayloadFormatIndicator(_)
            | Self::MessageExpiryInterval(_)
            | Self::ContentType(_)
            | Self::ResponseTopic(_)
            | Self::CorrelationData(_) => MESSAGE,
            Self::SubscriptionIdentifier(_) => P::Publish as u16 | P::Subscribe as u16,
            Self::SessionExpiryInterval(_) => OPENING | P::Disconnect as u16,
            Self::AuthenticationMethod(_) | Self::AuthenticationData(_) => OPENING | P::Auth as u16,
            Self::RequestProblemInformation(_) | Self::RequestResponseInformation(_) => {
                P::Connect as u16
            }
            Self::WillDelayInterval(_) => P::Will as u16,
            Self::ServerReference(_) => P::ConnAck as u16 | P::Disconnect as u16,
            Self::ReasonString(_) => {
                P::ConnAck as u16 | P::Answer as u16 | P::Disconnect as u16 | P::Auth as u16
            }
            Self::ReceiveMaximum(_) | Self::TopicAliasMaximum(_) | Self::MaximumPacketSize(_) => {
                OPENING
            }
            Self::TopicAlias(_) => P::Publish as u16,
            Self::AssignedClientIdentifier(_)
            | Self::ServerKeepAlive(_)
            | Self::ResponseInformation(_)
            | Self::MaximumQos(_)
            | Self::RetainAvailable(_)
            | Self::WildcardSubscriptionAvailable(_)
            | Self::SubscriptionIdentifierAvailable(_)
            | Self::SharedSubscriptionAvailable(_) => P::ConnAck as u16,
            Self::UserProperty(..) => u16::MAX,
        }
    }

    pub(super) const fn may_stand_in(&self, place: Place) -> bool {
        self.places() & place as u16 != 0
    }

    pub(super) const fn may_repeat_in(&self, place: Place) -> bool {
        match self.id() {
            USER_PROPERTY => true,
            SUBSCRIPTION_IDENTIFIER => matches!(place, Place::Publish),
            _ => false,
        }
    }

    pub(super) fn put(&self, sink: &mut Sink<'_>) -> Result<(), EncodeError> {
        sink.put_u8(self.id())?;
        match *self {
            Self::PayloadFormatIndicator(value)
            | Self::RequestProblemInformation(value)
            | Self::RequestResponseInformation(value)
            | Self::RetainAvailable(value)
            | Self::WildcardSubscriptionAvailable(value)
            | Self::SubscriptionIdentifierAvailable(value)
            | Self::SharedSubscriptionAvailable(value) => sink.put_u8(u8::from(value)),
            Self::MaximumQos(qos) => sink.put_u8(qos.to_u8()),
            Self::ServerKeepAlive(value)
            | Self::ReceiveMaximum(value)
            | Self::TopicAliasMaximum(value)
            | Self::TopicAlias(value) => sink.put_u16(value),
            Self::MessageExpiryInterval(value)
            | Self::SessionExpiryInterval(value)
            | Self::WillDelayInterval(value)
            | Self::MaximumPacketSize(value) => sink.put_u32(value),
            Self::SubscriptionIdentifier(value) => sink.put_variable(value),
            Self::ContentType(text)
            | Self::ResponseTopic(text)
            | Self::AssignedClientIdentifier(text)
            | Self::AuthenticationMethod(text)
            | Self::ResponseInformation(text)
            | Self::ServerReference(text)
            | Self::ReasonString(text) => sink.put_text(text),
            Self::CorrelationData(bytes) | Self::AuthenticationData(bytes) => {
                sink.put_binary(bytes)
            }
            Self::UserProperty(name, value) => {
                sink.put_text(name)?;
                sink.put_text(value)
            }
        }
    }
}

impl<'a> Item<'a> for Property<'a> {
    fn take(bytes: &mut &'a [u8]) -> Result<Self, DecodeError> {
        let number = take_variable(bytes)?;
        let id = u8::try_from(number).map_err(|_| DecodeError::UnknownProperty(number))?;
        Ok(match id {
            1 => Self::PayloadFormatIndicator(take_flag(bytes, id)?),
            2 => Self::MessageExpiryInterval(take_u32(bytes)?),
            3 => Self::ContentType(take_text(bytes)?),
            8 => Self::ResponseTopic(take_text(bytes)?),
            9 => Self::CorrelationData(take_binary(bytes)?),
            SUBSCRIPTION_IDENTIFIER => Self::SubscriptionIdentifier(take_variable(bytes)?),
            17 => Self::SessionExpiryInterval(take_u32(bytes)?),
            18 => Self::AssignedClientIdentifier(take_text(bytes)?),
            19 => Self::ServerKeepAlive(take_u16(bytes)?),
            21 => Self::AuthenticationMethod(take_text(bytes)?),
            22 => Self::AuthenticationData(take_binary(bytes)?),
            23 => Self::RequestProblemInformation(take_flag(bytes, id)?),
            24 => Self::WillDelayInterval(take_u32(bytes)?),
            25 => Self::RequestResponseInformation(take_flag(bytes, id)?),
            26 => Self::ResponseInformation(take_text(bytes)?),
            28 => Self::ServerReference(take_text(bytes)?),
            31 => Self::ReasonString(take_text(bytes)?),
            33 => Self::ReceiveMaximum(take_u16(bytes)?),
            34 => Self::TopicAliasMaximum(take_u16(bytes)?),
            TOPIC_ALIAS => Self::TopicAlias(take_u16(bytes)?),
            36 => Self::MaximumQos(
                Qos::from_u8(take_u8(bytes)?).ok_or(DecodeError::PropertyValue(id))?,
            ),
            37 => Self::RetainAvailable(take_flag(bytes, id)?),
            USER_PROPERTY => Self::UserProperty(take_text(bytes)?, take_text(bytes)?),
            39 => Self::MaximumPacketSize(take_u32(bytes)?),
            40 => Self::WildcardSubscriptionAvailable(take_flag(bytes, id)?),
            41 => Self::SubscriptionIdentifierAvailable(take_flag(bytes, id)?),
            42 => Self::SharedSubscriptionAvailable(take_flag(bytes, id)?),
            _ => return Err(DecodeError::UnknownProperty(number)),
        })
    }
}

fn take_flag(bytes: &mut &[u8], id: u8) -> Result<bool, DecodeError> {
    match take_u8(bytes)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::PropertyValue(id)),
    }
}

macro_rules! questions {
    ($($(#[$doc:meta])* $name:ident: $variant:ident -> $value:ty;)*) => {
        impl<'a> Properties<'a> {
            $(
                $(#[$doc])*
                #[must_use]
                pub fn $name(&self) -> Option<$value> {
                    self.iter().find_map(|property| match property {
                        Property::$variant(value) => Some(value),
                        _ => None,
                    })
                }
            )*
        }
    };
}

questions! {
    /// Highest number of unanswered messages that the peer takes; absent means 65,535.
    receive_maximum: ReceiveMaximum -> u16;
    /// Largest packet that the peer takes; absent means any.
    maximum_packet_size: MaximumPacketSize -> u32;
    /// Highest topic alias that the peer takes; absent means none.
    topic_alias_maximum: TopicAliasMaximum -> u16;
    /// The alias of a PUBLISH.
    topic_alias: TopicAlias -> u16;
    /// Seconds that the session outlives its connection; absent means 0.
    session_expiry_s: SessionExpiryInterval -> u32;
    /// Seconds a message may wait.
    message_expiry_s: MessageExpiryInterval -> u32;
    /// Seconds that the will waits.
    will_delay_s: WillDelayInterval -> u32;
    /// Seconds, in place of the client's keep alive.
    server_keep_alive_s: ServerKeepAlive -> u16;
    /// The client id that the server chose.
    assigned_client_id: AssignedClientIdentifier -> &'a str;
    /// The server's best quality of service; absent means 2.
    maximum_qos: MaximumQos -> Qos;
    /// The name of an extended authentication.
    authentication_method: AuthenticationMethod -> &'a str;
    /// Text for people.
    reason_string: ReasonString -> &'a str;
    /// Type of the payload.
    content_type: ContentType -> &'a str;
    /// Where to answer.
    response_topic: ResponseTopic -> &'a str;
    /// Data that ties the answer to the request.
    correlation_data: CorrelationData -> &'a [u8];
    /// The first subscription identifier.
    subscription_identifier: SubscriptionIdentifier -> u32;
}
