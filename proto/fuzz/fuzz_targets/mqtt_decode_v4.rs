//! Any bytes as a stream of packets of version 4: no panic, and always an end.
#![no_main]

use headwater_proto::mqtt::{Version, connect_version, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|stream: &[u8]| {
    let _ = connect_version(stream);
    let mut rest = stream;
    while let Ok(Some((packet, len))) = decode(rest, Version::V4, 1 << 20) {
        assert!(len >= 2, "a packet has a header");
        // Walks every list in it.
        assert!(!format!("{packet:?}").is_empty());
        rest = &rest[len..];
    }
});
