//! Core: CONNECT and its answer.

use std::sync::Arc;

use headwater_proto::mqtt::{
    self, ConnAck, Connect, DecodeError, Packet, Properties, Property, Qos, Reason, Version,
};
use headwater_proto::time::Now;

use super::{Phase, Session, Step, put};
use crate::close::CloseReason;
use crate::identity::Claim;
use crate::ingest::GateEvent;

/// A client that passed: its session is to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// Who. An older connection of the same client ends first.
    pub client: Arc<str>,
    /// Forget what is kept of an earlier session.
    pub clean_start: bool,
    /// For how long the session outlives its connection, in seconds; 0: not at all,
    /// `u32::MAX`: for ever.
    pub expiry_s: u32,
}

/// A CONNECT that is not admitted: the reason, and the answer if there is one.
struct Refusal {
    reason: CloseReason,
    answer: Option<Reason>,
}

impl Session {
    pub(super) fn await_connect(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Step, (CloseReason, Option<Reason>)> {
        let Some(first) = bytes.first() else {
            return Ok(Step::More);
        };
        // Type 1 without flags: all that a CONNECT can begin with, and TLS cannot.
        if *first != 0x10 {
            return Err((CloseReason::ConnectOrder, None));
        }
        let decoded = mqtt::decode(bytes, Version::V4, self.rules.limits.connect_bytes);
        let refusal = match decoded {
            Ok(None) => return Ok(Step::More),
            Ok(Some((Packet::Connect(connect), length))) => {
                self.version = connect.version;
                match self.judge(&connect) {
                    Ok(admission) => return Ok(Step::Admit(length, admission)),
                    Err(refusal) => refusal,
                }
            }
            Ok(Some(_)) => Refusal {
                reason: CloseReason::ConnectOrder,
                answer: None,
            },
            Err(error) => {
                self.version = mqtt::connect_version(bytes).unwrap_or(Version::V4);
                malformed(error)
            }
        };
        if let Some(answer) = refusal.answer {
            self.connack(answer, false, Properties::EMPTY, out);
        }
        Err((refusal.reason, None))
    }

    /// The session is open: CONNACK goes out, and publishes are taken.
    ///
    /// `present`: the owner kept a session of this client.
    pub fn admit(&mut self, present: bool, now: Now, out: &mut Vec<u8>, up: &mut Vec<GateEvent>) {
        if self.phase != Phase::Admitting {
            return;
        }
        let limits = self.rules.limits;
        let mut properties = vec![
            Property::ReceiveMaximum(limits.unacked_count),
            Property::MaximumQos(Qos::AtLeastOnce),
            Property::RetainAvailable(false),
            Property::MaximumPacketSize(u32::try_from(limits.packet_bytes).unwrap_or(u32::MAX)),
            Property::WildcardSubscriptionAvailable(false),
            Property::SubscriptionIdentifierAvailable(false),
            Property::SharedSubscriptionAvailable(false),
        ];
        let client = Arc::clone(&self.client);
        if self.assigned {
            properties.push(Property::AssignedClientIdentifier(&client));
        }
        self.connack(Reason::SUCCESS, present, Properties::of(&properties), out);
        self.phase = Phase::Open;
        self.resumed = present;
        self.heard_at = now.mono;
        self.blocked_since = None;
        self.rules.metrics.connected_total.inc();
        up.push(GateEvent::Connected {
            conn: self.conn,
            client: Arc::clone(&client),
            at: now,
        });
    }

    /// The session could not be opened; the client may try again.
    pub fn refuse(&mut self, out: &mut Vec<u8>) {
        if self.phase == Phase::Admitting {
            self.connack(Reason::SERVER_UNAVAILABLE, false, Properties::EMPTY, out);
            self.phase = Phase::Closed;
        }
    }

    fn judge(&mut self, connect: &Connect<'_>) -> Result<Admission, Refusal> {
        let refuse = |reason, answer| {
            Err(Refusal {
                reason,
                answer: Some(answer),
            })
        };
        let rules = Arc::clone(&self.rules);
        let mut expiry_s = match (connect.version, connect.clean_start) {
            (Version::V4, false) => u32::MAX,
            (Version::V4, true) | (Version::V5, _) => 0,
        };
        for property in connect.properties.iter() {
            if let Property::SessionExpiryInterval(seconds) = property {
                expiry_s = seconds;
            } else if let Property::MaximumPacketSize(bytes) = property {
                self.peer_packet_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            } else if let Property::AuthenticationMethod(_) = property {
                return refuse(CloseReason::Identity, Reason::BAD_AUTHENTICATION_METHOD);
            }
        }
        if connect.will.is_some() {
            rules.metrics.wills_ignored_total.inc();
        }
        let assigned;
        let client_id = if connect.client_id.is_empty() {
            self.assigned = true;
            assigned = format!("{}-{:x}", rules.assigned_prefix, self.conn.0);
            assigned.as_str()
        } else {
            connect.client_id
        };
        let too_long = client_id.len() > rules.limits.client_id_bytes;
        if too_long || !rules.acl.client_id_is_allowed(client_id) {
            return refuse(CloseReason::ClientId, Reason::CLIENT_ID_NOT_VALID);
        }
        let claim = Claim {
            client_id,
            user: connect.user,
            password: connect.password,
        };
        match rules.identity.identify(&claim) {
            Ok(client) => self.client = client,
            Err(reason) => return refuse(CloseReason::Identity, reason),
        }
        let keep_alive_ms = u64::from(connect.keep_alive_s) * 1_500;
        self.keep_alive_ms = (keep_alive_ms > 0).then_some(keep_alive_ms);
        self.expiry_s = expiry_s;
        let client = Arc::clone(&self.client);
        Ok(Admission {
            client,
            clean_start: connect.clean_start,
            expiry_s,
        })
    }

    fn connack(
        &self,
        reason: Reason,
        session_present: bool,
        properties: Properties<'_>,
        out: &mut Vec<u8>,
    ) {
        let packet = Packet::ConnAck(ConnAck {
            session_present,
            reason,
            properties,
        });
        put(&packet, self.version, self.peer_packet_bytes, out);
    }
}

fn malformed(error: DecodeError) -> Refusal {
    use DecodeError as E;
    let reason = if matches!(error, E::ProtocolName | E::ProtocolLevel(_)) {
        CloseReason::Version
    } else if matches!(error, E::ClientId) {
        CloseReason::ClientId
    } else if matches!(error, E::TooLarge { .. }) {
        CloseReason::TooLarge
    } else {
        CloseReason::Malformed
    };
    let answered = matches!(reason, CloseReason::Version | CloseReason::ClientId);
    Refusal {
        reason,
        answer: answered.then(|| error.reason()),
    }
}
