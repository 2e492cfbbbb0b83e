//! One MQTT connection as the gate sees it: bytes of anybody, in pieces.

use std::sync::Arc;

use headwater_gate::acl::{Acl, Gateway, TopicPattern};
use headwater_gate::identity::Loopback;
use headwater_gate::session::{Next, Rules, Session};
use headwater_gate::{ConnId, GateEvent, Limits, Metrics};
use headwater_proto::time::{Millis, Now, UnixMicros};

use crate::mqtt;

thread_local! {
    static RULES: Arc<Rules> = Arc::new(Rules {
        limits: Limits::default(),
        acl: Acl {
            gateways: vec![Gateway {
                client: "gw".into(),
                devices: vec!["node-*".into()],
            }],
            plain: vec![
                TopicPattern::parse("a/#").expect("a pattern"),
                TopicPattern::parse("s/{device}/+").expect("a pattern"),
            ],
            plain_bound: false,
            reserved: vec!["console".into()],
        },
        identity: Box::new(Loopback),
        assigned_prefix: "auto".into(),
        metrics: Metrics::default(),
    });
}

/// The first byte is the length of the pieces in which the rest arrives. Events and replies are
/// bounded by what came, bytes are used once, and a closed connection takes nothing more.
pub fn talk(input: &[u8]) {
    let Some((piece, bytes)) = input.split_first() else {
        return;
    };
    let mut now = Now {
        mono: Millis(1_000),
        wall: UnixMicros(5),
    };
    let rules = RULES.with(Arc::clone);
    let mut session = Session::new(ConnId(3), rules, now);
    let (mut out, mut up): (Vec<u8>, Vec<GateEvent>) = (Vec::new(), Vec::new());
    let mut waiting = Vec::new();
    'pieces: for part in bytes.chunks(usize::from(*piece).max(1)) {
        waiting.extend_from_slice(part);
        now.mono = Millis(now.mono.0 + 5);
        session.heard(now, &mut up);
        loop {
            let (used, next) = session.receive(&waiting, now, &mut out, &mut up);
            assert!(used <= waiting.len());
            waiting.drain(..used);
            match next {
                Next::More => break,
                Next::Blocked => break 'pieces,
                Next::Admit(_) => session.admit(piece & 1 == 0, now, &mut out, &mut up),
                Next::Closed(_) => {
                    let kept = (out.len(), up.len());
                    let more = session.receive(bytes, now, &mut out, &mut up);
                    assert_eq!(more, (bytes.len(), Next::More));
                    assert_eq!((out.len(), up.len()), kept);
                    break 'pieces;
                }
            }
        }
        for event in up.drain(..) {
            if let GateEvent::Arrival(arrival) = event
                && let Some(token) = arrival.token
            {
                session.release(token, now, &mut out);
            }
        }
        assert!(out.len() <= 64 * (bytes.len() + 16), "{} bytes", out.len());
    }
}

/// A CONNECT and what follows it, in one piece and in small ones.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let packets = mqtt::seeds();
    let (v4, v5) = (packets[0].clone(), packets[1].clone());
    let (publish_v4, publish_v5) = (packets[2].clone(), packets[3].clone());
    let (subscribe, disconnect) = (packets[4].clone(), packets[5].clone());
    [255, 3]
        .into_iter()
        .flat_map(|piece| {
            [
                [
                    vec![piece],
                    v4.clone(),
                    publish_v4.clone(),
                    disconnect.clone(),
                ]
                .concat(),
                [
                    vec![piece],
                    v5.clone(),
                    publish_v5.clone(),
                    subscribe.clone(),
                ]
                .concat(),
            ]
        })
        .collect()
}
