//! What holds for every packet and for every string of bytes.

use headwater_proto::mqtt::{
    EncodeError, Packet, Version, connect_version, decode, encode, encoded_len, filter_is_valid,
    topic_is_valid, topic_matches,
};
use proptest::collection::vec;
use proptest::prelude::*;

use super::generate::{packet, version};

const LIMIT: usize = 1 << 20;

pub(crate) fn written(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut out = vec![0; encoded_len(packet, version).expect("a valid packet")];
    assert_eq!(encode(packet, version, &mut out), Ok(out.len()));
    out
}

fn version_and_packet() -> impl Strategy<Value = (Version, Packet<'static>)> {
    version().prop_flat_map(|version| (Just(version), packet(version)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn decode_undoes_encode((version, packet) in version_and_packet()) {
        let mut bytes = written(&packet, version);
        prop_assert_eq!(decode(&bytes, version, LIMIT), Ok(Some((packet, bytes.len()))));
        // What follows is another packet's.
        let len = bytes.len();
        bytes.extend([0xff; 9]);
        prop_assert_eq!(decode(&bytes, version, LIMIT), Ok(Some((packet, len))));
    }

    #[test]
    fn a_packet_read_and_written_again_keeps_its_bytes((version, packet) in version_and_packet()) {
        let bytes = written(&packet, version);
        let (read, _) = decode(&bytes, version, LIMIT).unwrap().unwrap();
        prop_assert_eq!(written(&read, version), bytes);
    }

    #[test]
    fn every_prefix_of_a_valid_packet_is_a_good_beginning((version, packet) in version_and_packet()) {
        let bytes = written(&packet, version);
        for cut in 0..bytes.len().min(600) {
            prop_assert_eq!(decode(&bytes[..cut], version, LIMIT), Ok(None), "cut at {}", cut);
        }
    }

    #[test]
    fn a_short_output_is_refused_whatever_is_missing((version, packet) in version_and_packet()) {
        let len = encoded_len(&packet, version).unwrap();
        let mut out = vec![0; len];
        for short in 0..len.min(200) {
            let answer = encode(&packet, version, &mut out[..short]);
            prop_assert_eq!(answer, Err(EncodeError::NoRoom));
        }
    }

    #[test]
    fn damaged_packets_give_a_packet_or_an_error(
        (version, packet) in version_and_packet(),
        hits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = written(&packet, version);
        for (at, value) in hits {
            let at = at.index(bytes.len().min(64));
            bytes[at] = value;
        }
        holds_for_any_bytes(&bytes, version)?;
    }

    #[test]
    fn arbitrary_bytes_give_a_packet_or_an_error(
        version in version(),
        first in any::<u8>(),
        body in vec(any::<u8>(), 0..80),
        honest in any::<bool>(),
    ) {
        let mut bytes = vec![first];
        if honest {
            bytes.push(u8::try_from(body.len()).unwrap());
        }
        bytes.extend(body);
        holds_for_any_bytes(&bytes, version)?;
    }

    #[test]
    fn a_topic_matches_itself_and_what_generalises_it(
        levels in vec("[a-z]{0,3}", 1..5),
        plus in any::<prop::sample::Index>(),
        keep in any::<prop::sample::Index>(),
    ) {
        let topic = levels.join("/");
        prop_assume!(!topic.is_empty());
        prop_assert!(topic_is_valid(&topic) && filter_is_valid(&topic));
        prop_assert!(topic_matches(&topic, &topic));
        let mut wider = levels.clone();
        wider[plus.index(levels.len())] = "+".into();
        prop_assert!(topic_matches(&wider.join("/"), &topic));
        wider.truncate(keep.index(levels.len()));
        wider.push("#".into());
        prop_assert!(filter_is_valid(&wider.join("/")));
        prop_assert!(topic_matches(&wider.join("/"), &topic));
        let below = topic.clone() + "/x";
        prop_assert!(!topic_matches(&below, &topic));
    }
}

/// No panic; "more, please" only while more can come; what is taken can be written and read again.
fn holds_for_any_bytes(bytes: &[u8], version: Version) -> Result<(), TestCaseError> {
    let _ = connect_version(bytes);
    match decode(bytes, version, LIMIT) {
        Err(error) => prop_assert!(error.reason().is_error() && !error.to_string().is_empty()),
        Ok(None) => {
            // The packet ends beyond these bytes: with enough of them the decoder decides.
            let mut longer = bytes.to_vec();
            longer.resize(LIMIT + 8, 0);
            prop_assert!(!matches!(decode(&longer, version, LIMIT), Ok(None)));
        }
        Ok(Some((packet, len))) => {
            prop_assert!(len <= bytes.len());
            prop_assert_eq!(
                decode(&bytes[..len], version, LIMIT),
                Ok(Some((packet, len)))
            );
            let again = written(&packet, version);
            prop_assert_eq!(
                decode(&again, version, LIMIT),
                Ok(Some((packet, again.len())))
            );
        }
    }
    Ok(())
}

#[test]
fn a_packet_above_the_limit_is_refused_before_its_body_arrives() {
    use headwater_proto::mqtt::DecodeError::TooLarge;
    // A PUBLISH of 2 + 200 bytes, announced by three.
    let start = [0x30, 0xc8, 0x01];
    assert_eq!(decode(&start, Version::V4, 203), Ok(None));
    assert_eq!(
        decode(&start, Version::V4, 202),
        Err(TooLarge {
            bytes: 203,
            limit: 202
        })
    );
}
