//! Core: one connection's protocol state. Bytes in; events, and bytes to write, out.
//!
//! ```text
//! AwaitConnect ──CONNECT──► Admitting ──admit()──► Open ──DISCONNECT, fault, end()──► Closed
//!                               (owner opens the session)
//! ```
//! PUBACKs leave in the order in which the publishes came, each only after [`Session::release`].
//! While they are withheld everything else goes on: pings are answered, subscriptions too. At the
//! cap of unacknowledged publishes the next PUBLISH stays unread; after a grace time the connection
//! ends, without an error code that would make a client drop its message.

mod opening;
mod state;

use std::sync::Arc;

use bytes::Bytes;
use headwater_proto::ids::DeviceId;
use headwater_proto::mqtt::{
    self, Packet, Properties, Property, Publish, Qos, Reason, SubAck, Subscribe, UnsubAck,
    Unsubscribe, Version,
};
use headwater_proto::time::{Millis, Now};

use crate::acl::{Acl, Target};
use crate::close::CloseReason;
use crate::identity::Identify;
use crate::ingest::{Arrival, Body, ConnId, GateEvent, Token};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::repeat::fingerprint;

pub use opening::Admission;
use state::{Settling, Unacked};

/// Most characters of a client's own that a fault shows.
pub const MAX_FAULT_CHARS: usize = 200;

/// What all connections of a gate share.
pub struct Rules {
    /// Bounds.
    pub limits: Limits,
    /// Topics and client ids.
    pub acl: Acl,
    /// Who is it.
    pub identity: Box<dyn Identify>,
    /// Prefix of the ids given to clients that bring none; new at every start of the process, so
    /// that an id never comes back with another client behind it.
    pub assigned_prefix: String,
    /// Counters.
    pub metrics: Metrics,
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rules")
            .field("limits", &self.limits)
            .field("acl", &self.acl)
            .finish()
    }
}

/// What [`Session::receive`] needs next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// More bytes.
    More,
    /// The bytes left over stay; call again with them after a [`Session::release`].
    Blocked,
    /// Open the session, then call [`Session::admit`] or [`Session::refuse`], then go on with the
    /// bytes left over.
    Admit(Admission),
    /// The connection is over: write what is there, then close.
    Closed(CloseReason),
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    conn: ConnId,
    rules: Arc<Rules>,
    phase: Phase,
    version: Version,
    client: Arc<str>,
    opened_at: Millis,
    heard_at: Millis,
    keep_alive_ms: Option<u64>,
    expiry_s: u32,
    resumed: bool,
    assigned: bool,
    peer_packet_bytes: usize,
    blocked_since: Option<Millis>,
    unacked: Unacked,
    settling: Settling,
    /// The topic of the latest publish and what it was found to be: devices repeat themselves.
    topic: Option<(Arc<str>, Option<Arc<DeviceId>>)>,
    down_topic: Option<Box<str>>,
    /// What was wrong, beyond the reason of the end.
    fault: Option<Box<str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    AwaitConnect,
    Admitting,
    Open,
    Closed,
}

enum Step {
    More,
    Used(usize),
    Blocked,
    Admit(usize, Admission),
}

impl Session {
    /// A connection just accepted.
    #[must_use]
    pub fn new(conn: ConnId, rules: Arc<Rules>, now: Now) -> Self {
        Self {
            conn,
            rules,
            phase: Phase::AwaitConnect,
            version: Version::V4,
            client: Arc::from(""),
            opened_at: now.mono,
            heard_at: now.mono,
            keep_alive_ms: None,
            expiry_s: 0,
            resumed: false,
            assigned: false,
            peer_packet_bytes: usize::MAX,
            blocked_since: None,
            unacked: Unacked::default(),
            settling: Settling::default(),
            topic: None,
            down_topic: None,
            fault: None,
        }
    }

    /// Takes bytes in the order in which they came. Returns how many it used; the rest belongs in
    /// front of the next ones. Replies go to the end of `out`, events to the end of `up`.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        now: Now,
        out: &mut Vec<u8>,
        up: &mut Vec<GateEvent>,
    ) -> (usize, Next) {
        let mut used = 0;
        loop {
            let step = match self.phase {
                Phase::AwaitConnect => self.await_connect(&bytes[used..], out),
                Phase::Admitting => Ok(Step::Blocked),
                Phase::Open => self.step(&bytes[used..], now, out, up),
                Phase::Closed => Ok(Step::Used(bytes.len() - used)),
            };
            match step {
                Ok(Step::Used(n)) if n > 0 => used += n,
                Ok(Step::Used(_) | Step::More) => {
                    self.blocked_since = None;
                    return (used, Next::More);
                }
                Ok(Step::Blocked) => {
                    self.block(now.mono);
                    return (used, Next::Blocked);
                }
                Ok(Step::Admit(n, admission)) => {
                    self.phase = Phase::Admitting;
                    return (used + n, Next::Admit(admission));
                }
                Err((reason, code)) => {
                    self.end_with(reason, code, out);
                    return (bytes.len(), Next::Closed(reason));
                }
            }
        }
    }

    /// Bytes came, whole packets or not: the client is alive.
    pub fn heard(&mut self, now: Now, up: &mut Vec<GateEvent>) {
        self.heard_at = now.mono;
        let settle_ms = self.rules.limits.settle_ms;
        if let Some(through) = self.settling.heard(now.mono, settle_ms) {
            let client = Arc::clone(&self.client);
            up.push(GateEvent::Settled {
                conn: self.conn,
                client,
                through,
            });
        }
    }

    /// The publish is durable: its PUBACK leaves as soon as all earlier ones have.
    pub fn release(&mut self, token: Token, now: Now, out: &mut Vec<u8>) {
        if self.phase != Phase::Open {
            return;
        }
        let mut sent = 0;
        let last = self.unacked.release(token, |packet_id| {
            let [high, low] = packet_id.to_be_bytes();
            // Success without properties has the same four bytes in both versions.
            out.extend_from_slice(&[0x40, 2, high, low]);
            sent += 1;
        });
        if let Some(last) = last {
            self.settling.acked(last, now.mono);
            self.rules.metrics.pubacks_total.add(sent);
        }
    }

    /// Sends a message on the client's own down topic. False: it did not subscribe, or takes only
    /// smaller packets.
    pub fn down(&mut self, payload: &[u8], out: &mut Vec<u8>) -> bool {
        let sent = self.phase == Phase::Open
            && self.down_topic.as_deref().is_some_and(|topic| {
                let packet = Packet::Publish(Publish {
                    dup: false,
                    qos: Qos::AtMostOnce,
                    retain: false,
                    topic,
                    packet_id: 0,
                    properties: Properties::EMPTY,
                    payload,
                });
                put(&packet, self.version, self.peer_packet_bytes, out)
            });
        let metrics = &self.rules.metrics;
        if sent {
            metrics.down_messages_total.inc()
        } else {
            metrics.down_unsent_total.inc()
        }
        sent
    }

    /// The shell could not hand its events over: starts the grace time, unless it runs already.
    pub fn block(&mut self, now: Millis) {
        self.blocked_since.get_or_insert(now);
    }

    /// The next moment at which [`Self::tick`] may have something to say. It moves later with every
    /// byte, so a shell may look again when it has come.
    #[must_use]
    pub fn deadline(&self) -> Millis {
        let limits = &self.rules.limits;
        match self.phase {
            Phase::AwaitConnect | Phase::Admitting => {
                self.opened_at.plus(limits.connect_timeout_ms)
            }
            Phase::Open => self.silence().1,
            Phase::Closed => Millis(u64::MAX),
        }
    }

    /// Ends the connection if its time is over.
    pub fn tick(&mut self, now: Millis, out: &mut Vec<u8>) -> Option<CloseReason> {
        if now < self.deadline() {
            return None;
        }
        let reason = match self.phase {
            Phase::AwaitConnect | Phase::Admitting => CloseReason::ConnectTimeout,
            Phase::Open => self.silence().0,
            Phase::Closed => return None,
        };
        self.end(reason, out);
        Some(reason)
    }

    /// Ends the connection from this side; an MQTT 5 client is told why.
    pub fn end(&mut self, reason: CloseReason, out: &mut Vec<u8>) {
        self.end_with(reason, reason.v5_code().map(Reason), out);
    }

    /// The client, once it is known; empty before.
    #[must_use]
    pub fn client(&self) -> &Arc<str> {
        &self.client
    }

    /// What was wrong, where the reason of the end alone does not say it: the topic of a refused publish, or
    /// what the bytes are not. At most [`MAX_FAULT_CHARS`] characters of it come from the client.
    #[must_use]
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// For how long the session outlives its connection, in seconds.
    #[must_use]
    pub fn expiry_s(&self) -> u32 {
        self.expiry_s
    }

    /// What the latest rule is about the client's silence, and when it ends.
    fn silence(&self) -> (CloseReason, Millis) {
        let limits = &self.rules.limits;
        match (self.blocked_since, self.keep_alive_ms) {
            // Nothing is read while blocked, so silence is not the client's fault.
            (Some(since), _) => (CloseReason::Unacked, since.plus(limits.unacked_grace_ms)),
            (None, Some(ms)) => (CloseReason::KeepAlive, self.heard_at.plus(ms)),
            (None, None) => (CloseReason::Idle, self.heard_at.plus(limits.idle_ms)),
        }
    }

    fn end_with(&mut self, reason: CloseReason, code: Option<Reason>, out: &mut Vec<u8>) {
        let told = self.phase == Phase::Open && self.version == Version::V5;
        if let (true, Some(code)) = (told && reason != CloseReason::Orderly, code) {
            let properties = Properties::EMPTY;
            let packet = Packet::Disconnect(mqtt::Disconnect {
                reason: code,
                properties,
            });
            put(&packet, Version::V5, usize::MAX, out);
        }
        self.phase = Phase::Closed;
        self.unacked = Unacked::default();
    }

    fn step(
        &mut self,
        bytes: &[u8],
        now: Now,
        out: &mut Vec<u8>,
        up: &mut Vec<GateEvent>,
    ) -> Result<Step, (CloseReason, Option<Reason>)> {
        let decoded = mqtt::decode(bytes, self.version, self.rules.limits.packet_bytes);
        let (packet, length) = match decoded {
            Ok(Some(packet)) => packet,
            Ok(None) => return Ok(Step::More),
            Err(error) => {
                let reason = if matches!(error, mqtt::DecodeError::TooLarge { .. }) {
                    CloseReason::TooLarge
                } else {
                    CloseReason::Malformed
                };
                self.fault = Some(error.to_string().into());
                return Err((reason, Some(error.reason())));
            }
        };
        let closed = |reason: CloseReason| (reason, reason.v5_code().map(Reason));
        match &packet {
            Packet::Publish(publish) => match self.publish(publish, now, up) {
                Ok(true) => {}
                Ok(false) => return Ok(Step::Blocked),
                Err(reason) => {
                    let topic: String = publish.topic.chars().take(MAX_FAULT_CHARS).collect();
                    self.fault = Some(format!("publish on {topic:?}").into());
                    return Err(closed(reason));
                }
            },
            Packet::PingReq => {
                put(&Packet::PingResp, self.version, usize::MAX, out);
            }
            Packet::Subscribe(subscribe) => self.subscribe(subscribe, out),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(unsubscribe, out),
            Packet::Disconnect(disconnect) => {
                self.take_expiry(&disconnect.properties);
                return Err((CloseReason::Orderly, None));
            }
            Packet::Connect(_) => return Err(closed(CloseReason::ConnectOrder)),
            // The gate sends QoS 0 only, takes no QoS 2 and knows no extended authentication: it
            // awaits none of these, and a bogus PUBACK has stopped a broker before.
            Packet::PubAck(_)
            | Packet::PubRec(_)
            | Packet::PubRel(_)
            | Packet::PubComp(_)
            | Packet::Auth(_)
            | Packet::ConnAck(_)
            | Packet::SubAck(_)
            | Packet::UnsubAck(_)
            | Packet::PingResp => return Err(closed(CloseReason::Protocol)),
        }
        Ok(Step::Used(length))
    }

    /// Takes a publish; false if it has to wait for PUBACKs of earlier ones.
    fn publish(
        &mut self,
        publish: &Publish<'_>,
        now: Now,
        up: &mut Vec<GateEvent>,
    ) -> Result<bool, CloseReason> {
        if publish.qos == Qos::ExactlyOnce {
            return Err(CloseReason::Qos2);
        }
        let aliased = publish
            .properties
            .iter()
            .any(|p| matches!(p, Property::TopicAlias(_)));
        if aliased {
            return Err(CloseReason::Protocol);
        }
        let (topic, device) = self.resolve(publish.topic)?;
        let limits = &self.rules.limits;
        let metrics = &self.rules.metrics;
        let token = if publish.qos == Qos::AtLeastOnce {
            let plain = device.is_none();
            let cap = if plain {
                limits.unacked_plain_bytes
            } else {
                limits.unacked_agent_bytes
            };
            if self.unacked.len() >= usize::from(limits.unacked_count) {
                return match self.version {
                    Version::V4 => Ok(false),
                    Version::V5 => Err(CloseReason::ReceiveMaximum),
                };
            }
            if self.unacked.bytes() >= cap {
                return Ok(false);
            }
            if plain {
                self.settling.plain_seen();
                metrics.plain_messages_total.inc();
            } else {
                metrics.agent_messages_total.inc();
            }
            Some(self.unacked.push(publish.packet_id, publish.payload.len()))
        } else {
            metrics.qos0_messages_total.inc();
            None
        };
        if publish.retain {
            metrics.retain_ignored_total.inc();
        }
        metrics
            .payload_bytes_total
            .add(publish.payload.len() as u64);
        let payload = Bytes::copy_from_slice(publish.payload);
        let body = match device {
            Some(device) => Body::Agent { device, payload },
            None => Body::Plain {
                fingerprint: token.map_or(0, |_| fingerprint(&topic, publish.payload)),
                topic,
                payload,
                qos: publish.qos,
                dup: publish.dup,
                packet_id: publish.packet_id,
            },
        };
        let client = Arc::clone(&self.client);
        up.push(GateEvent::Arrival(Arrival {
            conn: self.conn,
            client,
            token,
            at: now,
            body,
        }));
        Ok(true)
    }

    fn resolve(&mut self, topic: &str) -> Result<(Arc<str>, Option<Arc<DeviceId>>), CloseReason> {
        if let Some((known, device)) = &self.topic
            && **known == *topic
        {
            return Ok((Arc::clone(known), device.clone()));
        }
        let target = self.rules.acl.publish(&self.client, topic);
        let device = match target.ok_or(CloseReason::Forbidden)? {
            Target::Agent(device) => Some(Arc::new(device)),
            Target::Plain => None,
        };
        // A resumed session kept its subscription, and an agent has only one to keep.
        if self.resumed
            && self.down_topic.is_none()
            && device
                .as_ref()
                .is_some_and(|device| device.as_str() == &*self.client)
            && let Some(stem) = topic.strip_suffix("/up")
        {
            self.down_topic = Some(format!("{stem}/down").into());
        }
        let known = (Arc::from(topic), device);
        self.topic = Some(known.clone());
        Ok(known)
    }

    fn subscribe(&mut self, subscribe: &Subscribe<'_>, out: &mut Vec<u8>) {
        let mut codes = Vec::new();
        for subscription in subscribe.filters.iter() {
            let reason = if self.rules.acl.subscribe(&self.client, subscription.filter) {
                self.down_topic = Some(subscription.filter.into());
                // QoS 0 whatever was asked for: Acks and the like are cumulative.
                Reason::SUCCESS
            } else {
                self.rules.metrics.subscriptions_refused_total.inc();
                Reason::NOT_AUTHORIZED
            };
            codes.push(reason.0);
        }
        let packet = Packet::SubAck(SubAck {
            packet_id: subscribe.packet_id,
            properties: Properties::EMPTY,
            codes: &codes,
        });
        put(&packet, self.version, usize::MAX, out);
    }

    fn unsubscribe(&mut self, unsubscribe: &Unsubscribe<'_>, out: &mut Vec<u8>) {
        let mut codes = Vec::new();
        for filter in unsubscribe.filters.iter() {
            let had = self.down_topic.as_deref() == Some(filter);
            if had {
                self.down_topic = None;
            }
            let code = if had {
                Reason::SUCCESS
            } else {
                Reason::NO_SUBSCRIPTION_EXISTED
            };
            codes.push(code.0);
        }
        let packet = Packet::UnsubAck(UnsubAck {
            packet_id: unsubscribe.packet_id,
            properties: Properties::EMPTY,
            codes: &codes,
        });
        put(&packet, self.version, usize::MAX, out);
    }

    fn take_expiry(&mut self, properties: &Properties<'_>) {
        for property in properties.iter() {
            // A session that ended with its connection cannot be made to stay at its end.
            if let Property::SessionExpiryInterval(seconds) = property
                && self.expiry_s > 0
            {
                self.expiry_s = seconds;
            }
        }
    }
}

/// Appends a packet to `out`; false, and nothing appended, if it is above `most` bytes.
fn put(packet: &Packet<'_>, version: Version, most: usize, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let Ok(length) = mqtt::encoded_len(packet, version) else {
        return false;
    };
    if length > most {
        return false;
    }
    out.resize(start + length, 0);
    let written = mqtt::encode(packet, version, &mut out[start..]);
    debug_assert_eq!(written, Ok(length), "{packet:?}");
    if written.is_err() {
        out.truncate(start);
    }
    written.is_ok()
}
