//! MQTT packets: any bytes have an end, and what is read can be written.

use std::fmt::Write as _;

use headwater_proto::mqtt::{Version, connect_version, decode, encode, encoded_len};

use crate::seeds::from_hex;

/// Largest packet.
const LIMIT: usize = 1 << 20;

/// Takes what is printed, to walk every list of a packet without keeping it.
struct Walk(usize);

impl std::fmt::Write for Walk {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0 += text.len();
        Ok(())
    }
}

fn stream(bytes: &[u8], version: Version) {
    let _ = connect_version(bytes);
    let mut rest = bytes;
    while let Ok(Some((packet, len))) = decode(rest, version, LIMIT) {
        assert!(len >= 2, "a packet has a header");
        let mut walk = Walk(0);
        write!(walk, "{packet:?}").expect("counting never fails");
        assert!(walk.0 > 0);
        rest = &rest[len..];
    }
}

/// Any bytes as a stream of packets of version 4.
pub fn v4(bytes: &[u8]) {
    stream(bytes, Version::V4);
}

/// Any bytes as a stream of packets of version 5.
pub fn v5(bytes: &[u8]) {
    stream(bytes, Version::V5);
}

/// What is read can be written, and is read as the same again; every prefix of what is written is a
/// good beginning. The first byte chooses the version.
pub fn round_trip(input: &[u8]) {
    let Some((choice, bytes)) = input.split_first() else {
        return;
    };
    let version = if choice & 1 == 0 {
        Version::V4
    } else {
        Version::V5
    };
    let Ok(Some((packet, _))) = decode(bytes, version, LIMIT) else {
        return;
    };
    let len = encoded_len(&packet, version).expect("what was read is valid");
    let mut out = vec![0; len];
    assert_eq!(encode(&packet, version, &mut out), Ok(len));
    assert_eq!(decode(&out, version, LIMIT), Ok(Some((packet, len))));
    for cut in 0..len.min(64) {
        assert_eq!(decode(&out[..cut], version, LIMIT), Ok(None));
    }
}

/// CONNECT with a will and a password, and PUBLISH, of each version.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    [
        "10200004 4d515454 04ce001e 000161 000174 000177 000375 7372 000370 7764",
        "101a0004 4d515454 0502003c 05 11 0000000a 0005 6167656e 74",
        "320a0003 612f62 0007 7b7d0a",
        "320b0003 612f62 0007 00 7b7d0a",
        "820800010003 612f62 01",
        "e000",
    ]
    .into_iter()
    .map(from_hex)
    .collect()
}

/// The same behind a version.
#[must_use]
pub fn round_trip_seeds() -> Vec<Vec<u8>> {
    let both = [[0].as_slice(), &[1]];
    both.into_iter()
        .flat_map(|choice| {
            seeds()
                .into_iter()
                .map(move |seed| [choice, &seed].concat())
        })
        .collect()
}
