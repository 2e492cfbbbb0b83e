//! Bytes cut anywhere, and bytes that are no MQTT.

use super::talk::*;

use headwater_gate::session::Next;
use headwater_gate::{CloseReason, GateEvent, Limits};
use headwater_proto::mqtt::{
    Disconnect, Packet, Properties, Qos, Reason, Subscribe, Subscription, Version,
};
use proptest::prelude::*;

/// A conversation with everything in it, in both versions.
fn conversation(version: Version, payload: &[u8]) -> Vec<u8> {
    let filters = [Subscription::new("hw/1/0a/m/down", Qos::AtMostOnce)];
    let filters = headwater_proto::mqtt::List::of(&filters);
    let properties = Properties::EMPTY;
    let reason = Reason::SUCCESS;
    [
        Packet::Connect(connect(version, "m")),
        Packet::Subscribe(Subscribe {
            packet_id: 9,
            properties,
            filters,
        }),
        publish("sensors/m/t", 1, payload),
        Packet::PingReq,
        publish("hw/1/0a/m/up", 2, payload),
        publish("sensors/m/t", 0, b""),
        Packet::Disconnect(Disconnect { reason, properties }),
    ]
    .iter()
    .flat_map(|packet| bytes_of(packet, version))
    .collect()
}

/// Feeds `bytes` in pieces; gives what came out, what came up and how it ended.
fn feed(bytes: &[u8], cuts: &[usize]) -> (Vec<u8>, Vec<GateEvent>, Option<CloseReason>) {
    let mut talk = Talk::new(Version::V4, Limits::default());
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.sort_unstable();
    cuts.push(bytes.len());
    let mut from = 0;
    for to in cuts {
        let mut next = talk.bytes(&bytes[from..to]);
        from = to;
        while matches!(next, Next::Admit(_)) {
            talk.admit(false);
            next = talk.again();
        }
        if let Next::Closed(reason) = next {
            return (talk.out, talk.up, Some(reason));
        }
    }
    (talk.out, talk.up, None)
}

proptest! {
    #[test]
    fn reads_cut_anywhere_make_no_difference(
        v5 in any::<bool>(),
        payload in proptest::collection::vec(any::<u8>(), 0..300),
        cuts in proptest::collection::vec(any::<usize>(), 0..12),
    ) {
        let version = if v5 { Version::V5 } else { Version::V4 };
        let bytes = conversation(version, &payload);
        let whole = feed(&bytes, &[]);
        prop_assert_eq!(whole.2, Some(CloseReason::Orderly));
        prop_assert_eq!(whole.1.len(), 4);
        prop_assert_eq!(feed(&bytes, &cuts), whole);
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_never_depend_on_cuts(
        connected in any::<bool>(),
        v5 in any::<bool>(),
        noise in proptest::collection::vec(any::<u8>(), 0..400),
        cuts in proptest::collection::vec(any::<usize>(), 0..6),
    ) {
        let version = if v5 { Version::V5 } else { Version::V4 };
        let mut bytes = vec![];
        if connected {
            bytes = bytes_of(&Packet::Connect(connect(version, "m")), version);
        }
        bytes.extend(noise);
        prop_assert_eq!(feed(&bytes, &cuts), feed(&bytes, &[]));
    }

    #[test]
    fn a_conversation_with_flipped_bytes_never_panics(
        v5 in any::<bool>(),
        flips in proptest::collection::vec((any::<usize>(), 1_u8..), 1..6),
        cuts in proptest::collection::vec(any::<usize>(), 0..6),
    ) {
        let version = if v5 { Version::V5 } else { Version::V4 };
        let mut bytes = conversation(version, b"21.5");
        for (at, flip) in flips {
            let at = at % bytes.len();
            bytes[at] ^= flip;
        }
        prop_assert_eq!(feed(&bytes, &cuts), feed(&bytes, &[]));
    }
}
