//! What is read can be written, and is read as the same again; every prefix of what is written is
//! a good beginning.
#![no_main]

use headwater_proto::mqtt::{Version, decode, encode, encoded_len};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 1 << 20;

fuzz_target!(|input: &[u8]| {
    let Some((choice, bytes)) = input.split_first() else { return };
    let version = if choice & 1 == 0 { Version::V4 } else { Version::V5 };
    let Ok(Some((packet, _))) = decode(bytes, version, LIMIT) else { return };
    let len = encoded_len(&packet, version).expect("what was read is valid");
    let mut out = vec![0; len];
    assert_eq!(encode(&packet, version, &mut out), Ok(len));
    assert_eq!(decode(&out, version, LIMIT), Ok(Some((packet, len))));
    for cut in 0..len.min(64) {
        assert_eq!(decode(&out[..cut], version, LIMIT), Ok(None));
    }
});
