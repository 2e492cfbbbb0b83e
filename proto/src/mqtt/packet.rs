//! The packets as values. Both versions share them: fields that 3.1.1 lacks are absent when read, and left
//! out when written.

use super::{List, Properties, Qos, Reason, Version};

/// Any packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet<'a> {
    /// Client opens the session.
    Connect(Connect<'a>),
    /// Server answers CONNECT.
    ConnAck(ConnAck<'a>),
    /// A message, either way.
    Publish(Publish<'a>),
    /// Answers a QoS 1 PUBLISH.
    PubAck(Ack<'a>),
    /// QoS 2, first answer.
    PubRec(Ack<'a>),
    /// QoS 2, release.
    PubRel(Ack<'a>),
    /// QoS 2, done.
    PubComp(Ack<'a>),
    /// Client asks for topics.
    Subscribe(Subscribe<'a>),
    /// Server answers SUBSCRIBE.
    SubAck(SubAck<'a>),
    /// Client gives topics up.
    Unsubscribe(Unsubscribe<'a>),
    /// Server answers UNSUBSCRIBE.
    UnsubAck(UnsubAck<'a>),
    /// Client is alive.
    PingReq,
    /// Server is too.
    PingResp,
    /// An orderly end; in version 5 from either side, with a reason.
    Disconnect(Disconnect<'a>),
    /// Version 5 only: one step of an extended authentication.
    Auth(Auth<'a>),
}

impl Packet<'_> {
    /// The name in the standard, for logs and counters.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Connect(_) => "CONNECT",
            Self::ConnAck(_) => "CONNACK",
            Self::Publish(_) => "PUBLISH",
            Self::PubAck(_) => "PUBACK",
            Self::PubRec(_) => "PUBREC",
            Self::PubRel(_) => "PUBREL",
            Self::PubComp(_) => "PUBCOMP",
            Self::Subscribe(_) => "SUBSCRIBE",
            Self::SubAck(_) => "SUBACK",
            Self::Unsubscribe(_) => "UNSUBSCRIBE",
            Self::UnsubAck(_) => "UNSUBACK",
            Self::PingReq => "PINGREQ",
            Self::PingResp => "PINGRESP",
            Self::Disconnect(_) => "DISCONNECT",
            Self::Auth(_) => "AUTH",
        }
    }
}

impl Packet<'_> {
    /// The version this packet is written in on a connection that speaks `version`: a CONNECT has
    /// its own.
    pub(super) const fn version_on(&self, version: Version) -> Version {
        if let Self::Connect(connect) = self {
            connect.version
        } else {
            version
        }
    }
}

/// Opens a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The version this connection speaks.
    pub version: Version,
    /// May be empty: the server then assigns one (3.1.1: only with `clean_start`).
    pub client_id: &'a str,
    /// Forget any earlier session (3.1.1: and keep none afterwards).
    pub clean_start: bool,
    /// Longest silence of the client, in seconds; 0 turns the rule off.
    pub keep_alive_s: u16,
    /// User name.
    pub user: Option<&'a str>,
    /// Password; in 3.1.1 only with a user name.
    pub password: Option<&'a [u8]>,
    /// The message that the server publishes if the client vanishes.
    pub will: Option<Will<'a>>,
    /// Version 5 only.
    pub properties: Properties<'a>,
}

/// The message that the server publishes if the client vanishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Will<'a> {
    /// Quality of service of the will.
    pub qos: Qos,
    /// Whether the will is retained.
    pub retain: bool,
    /// A topic name: not empty, no wildcards.
    pub topic: &'a str,
    /// At most [`super::MAX_TEXT_BYTES`].
    pub payload: &'a [u8],
    /// Version 5 only.
    pub properties: Properties<'a>,
}

/// Answers CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// The server holds state of an earlier session; only with [`Reason::SUCCESS`].
    pub session_present: bool,
    /// In 3.1.1 the five return codes are read as, and written from, the nearest reason codes.
    pub reason: Reason,
    /// Version 5 only.
    pub properties: Properties<'a>,
}

/// A message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Whether it may have been sent before. Never with QoS 0.
    pub dup: bool,
    /// Quality of service.
    pub qos: Qos,
    /// To be kept by the server, or kept by it until now.
    pub retain: bool,
    /// A topic name: no wildcards; empty only in version 5 with a topic alias.
    pub topic: &'a str,
    /// 0 with QoS 0, else not 0.
    pub packet_id: u16,
    /// Version 5 only.
    pub properties: Properties<'a>,
    /// Content of the message.
    pub payload: &'a [u8],
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack<'a> {
    /// Id of the packet that it answers; not 0.
    pub packet_id: u16,
    /// Version 5 only; 3.1.1 knows success alone.
    pub reason: Reason,
    /// Version 5 only.
    pub properties: Properties<'a>,
}

impl Ack<'static> {
    /// Plain success for `packet_id`.
    #[must_use]
    pub const fn success(packet_id: u16) -> Self {
        Self {
            packet_id,
            reason: Reason::SUCCESS,
            properties: Properties::EMPTY,
        }
    }
}

/// Asks for topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// Id of the packet; not 0.
    pub packet_id: u16,
    /// Version 5 only.
    pub properties: Properties<'a>,
    /// At least one.
    pub filters: List<'a, Subscription<'a>>,
}

/// One line of a SUBSCRIBE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscription<'a> {
    /// A valid topic filter.
    pub filter: &'a str,
    /// Best quality of service wanted.
    pub qos: Qos,
    /// Version 5: not what this client publishes itself. Never on a shared subscription.
    pub no_local: bool,
    /// Version 5: keep the retain flag of what is forwarded.
    pub retain_as_published: bool,
    /// Version 5: whether retained messages are sent at once.
    pub retain_handling: RetainHandling,
}

impl<'a> Subscription<'a> {
    /// A subscription without the options of version 5.
    #[must_use]
    pub const fn new(filter: &'a str, qos: Qos) -> Self {
        Self {
            filter,
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        }
    }
}

/// Whether a subscription brings the retained messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RetainHandling {
    /// At each SUBSCRIBE.
    Send = 0,
    /// Only if the subscription is new.
    SendIfNew = 1,
    /// Never.
    DoNotSend = 2,
}

/// Answers SUBSCRIBE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// Id of the SUBSCRIBE that it answers; not 0.
    pub packet_id: u16,
    /// Version 5 only.
    pub properties: Properties<'a>,
    /// One [`Reason`] byte per filter, in order: 0 to 2 grant a QoS, 0x80 and above refuse.
    /// 3.1.1 writes every refusal as 0x80.
    pub codes: &'a [u8],
}

/// Gives topics up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// Id of the packet; not 0.
    pub packet_id: u16,
    /// Version 5 only.
    pub properties: Properties<'a>,
    /// At least one.
    pub filters: List<'a, &'a str>,
}

/// Answers UNSUBSCRIBE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnsubAck<'a> {
    /// Id of the UNSUBSCRIBE that it answers; not 0.
    pub packet_id: u16,
    /// Version 5 only.
    pub properties: Properties<'a>,
    /// Version 5 only: one [`Reason`] byte per filter.
    pub codes: &'a [u8],
}

/// Ends the connection in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// Version 5 only.
    pub reason: Reason,
    /// Version 5 only.
    pub properties: Properties<'a>,
}

/// One step of an extended authentication, version 5 only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Success, continue or re-authenticate.
    pub reason: Reason,
    /// Method and data.
    pub properties: Properties<'a>,
}
