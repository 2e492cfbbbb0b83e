//! A client and the session it talks to.

use std::sync::Arc;

use headwater_gate::acl::{Acl, Gateway, TopicPattern};
use headwater_gate::identity::Loopback;
use headwater_gate::session::{Next, Rules, Session};
use headwater_gate::{CloseReason, ConnId, GateEvent, Limits, Metrics, Token};
use headwater_proto::mqtt::{
    self, Connect, Disconnect, Packet, Properties, Publish, Qos, Reason, Subscribe, Subscription,
    Version,
};
use headwater_proto::time::{Millis, Now, UnixMicros};

pub(crate) const BOTH: [Version; 2] = [Version::V4, Version::V5];

pub(crate) fn rules_with(limits: Limits) -> Arc<Rules> {
    Arc::new(Rules {
        limits,
        acl: Acl {
            gateways: vec![Gateway {
                client: "gw".into(),
                devices: vec!["node-*".into()],
            }],
            plain: vec![TopicPattern::parse("sensors/{device}/#").unwrap()],
            plain_bound: false,
            reserved: vec!["console".into()],
        },
        identity: Box::new(Loopback),
        assigned_prefix: "auto-7".into(),
        metrics: Metrics::default(),
    })
}

/// A client and the session it talks to, on a clock of their own.
pub(crate) struct Talk {
    pub(crate) session: Session,
    pub(crate) rules: Arc<Rules>,
    pub(crate) version: Version,
    pub(crate) now: Now,
    pub(crate) rest: Vec<u8>,
    pub(crate) out: Vec<u8>,
    pub(crate) up: Vec<GateEvent>,
}

impl Talk {
    pub(crate) fn new(version: Version, limits: Limits) -> Self {
        let rules = rules_with(limits);
        let now = Now {
            mono: Millis(1_000),
            wall: UnixMicros(5),
        };
        let session = Session::new(ConnId(3), Arc::clone(&rules), now);
        Self {
            session,
            rules,
            version,
            now,
            rest: vec![],
            out: vec![],
            up: vec![],
        }
    }

    pub(crate) fn open(version: Version, client: &str) -> Self {
        Self::open_with(version, client, Limits::default())
    }

    pub(crate) fn open_with(version: Version, client: &str, limits: Limits) -> Self {
        let mut talk = Self::new(version, limits);
        let next = talk.send(&Packet::Connect(connect(version, client)));
        assert!(matches!(next, Next::Admit(_)), "{next:?}");
        talk.admit(false);
        talk.out.clear();
        talk.up.clear();
        talk
    }

    pub(crate) fn admit(&mut self, present: bool) {
        self.session
            .admit(present, self.now, &mut self.out, &mut self.up);
    }

    pub(crate) fn send(&mut self, packet: &Packet<'_>) -> Next {
        self.bytes(&bytes_of(packet, self.version))
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Next {
        self.session.heard(self.now, &mut self.up);
        self.rest.extend_from_slice(bytes);
        self.again()
    }

    pub(crate) fn again(&mut self) -> Next {
        let (used, next) = self
            .session
            .receive(&self.rest, self.now, &mut self.out, &mut self.up);
        self.rest.drain(..used);
        next
    }

    pub(crate) fn release(&mut self, token: u64) {
        self.session.release(Token(token), self.now, &mut self.out);
    }

    pub(crate) fn wait(&mut self, ms: u64) {
        self.now.mono = self.now.mono.plus(ms);
    }

    pub(crate) fn tick(&mut self) -> Option<CloseReason> {
        self.session.tick(self.now.mono, &mut self.out)
    }

    /// What the session wrote, as bytes; empties it.
    pub(crate) fn wrote(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// The tokens of the publishes that came up, `None` for QoS 0; empties them.
    pub(crate) fn tokens(&mut self) -> Vec<Option<u64>> {
        let arrived = |event: &GateEvent| match event {
            GateEvent::Arrival(arrival) => Some(arrival.token.map(|token| token.0)),
            _ => None,
        };
        std::mem::take(&mut self.up)
            .iter()
            .filter_map(arrived)
            .collect()
    }
}

pub(crate) fn bytes_of(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut bytes = vec![0; mqtt::encoded_len(packet, version).unwrap()];
    mqtt::encode(packet, version, &mut bytes).unwrap();
    bytes
}

pub(crate) fn connect(version: Version, client_id: &str) -> Connect<'_> {
    Connect {
        version,
        client_id,
        clean_start: true,
        keep_alive_s: 20,
        user: None,
        password: None,
        will: None,
        properties: Properties::EMPTY,
    }
}

pub(crate) fn publish<'a>(topic: &'a str, packet_id: u16, payload: &'a [u8]) -> Packet<'a> {
    let qos = if packet_id == 0 {
        Qos::AtMostOnce
    } else {
        Qos::AtLeastOnce
    };
    let properties = Properties::EMPTY;
    let (dup, retain) = (false, false);
    Packet::Publish(Publish {
        dup,
        qos,
        retain,
        topic,
        packet_id,
        properties,
        payload,
    })
}

pub(crate) fn puback(packet_id: u16) -> Vec<u8> {
    let [high, low] = packet_id.to_be_bytes();
    vec![0x40, 2, high, low]
}

pub(crate) fn disconnect(reason: Reason) -> Vec<u8> {
    bytes_of(
        &Packet::Disconnect(Disconnect {
            reason,
            properties: Properties::EMPTY,
        }),
        Version::V5,
    )
}

/// Version 5 is told why, 3.1.1 sees the stream end.
pub(crate) fn told(version: Version, reason: Reason) -> Vec<u8> {
    match version {
        Version::V4 => vec![],
        Version::V5 => disconnect(reason),
    }
}

pub(crate) fn subscribe(talk: &mut Talk, filters: &[Subscription<'_>]) {
    let filters = headwater_proto::mqtt::List::of(filters);
    let properties = Properties::EMPTY;
    talk.send(&Packet::Subscribe(Subscribe {
        packet_id: 9,
        properties,
        filters,
    }));
}
