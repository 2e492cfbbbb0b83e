//! Core: small encodings and hashes that the proxy needs: base64, percent signs, MD5, draws.

/// The bytes of a base64 text; `None` if it is none. Padding may be missing.
#[must_use]
pub fn from_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=').as_bytes();
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for group in text.chunks(4) {
        let mut word = 0_u32;
        for symbol in group {
            word = word << 6 | u32::from(sextet(*symbol)?);
        }
        let [_, bytes @ ..] = (word << (6 * (4 - group.len()))).to_be_bytes();
        match group.len() {
            4 => out.extend_from_slice(&bytes),
            3 => out.extend_from_slice(&bytes[..2]),
            2 => out.extend_from_slice(&bytes[..1]),
            _ => return None,
        }
    }
    Some(out)
}

const fn sextet(symbol: u8) -> Option<u8> {
    match symbol {
        b'A'..=b'Z' => Some(symbol - b'A'),
        b'a'..=b'z' => Some(symbol - b'a' + 26),
        b'0'..=b'9' => Some(symbol - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

/// `text` with `%41` read as `A`. What is no such sign stays as it is.
#[must_use]
pub fn from_percent(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let pair = after
            .get(..2)
            .filter(|_| *first == b'%')
            .and_then(|pair| std::str::from_utf8(pair).ok())
            .and_then(|pair| u8::from_str_radix(pair, 16).ok());
        out.push(pair.unwrap_or(*first));
        rest = if pair.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// What an item of Kinesis or Firehose is known by: the first eight bytes, big-endian, of the MD5
/// of its key, a zero byte and its data. Firehose has no keys: its key is empty.
///
/// In Python: `int.from_bytes(hashlib.md5(key + b"\0" + data).digest()[:8], "big")`.
#[must_use]
pub fn identity(key: &str, data: &[u8]) -> u64 {
    let whole = [key.as_bytes(), &[0], data].concat();
    let [first, ..] = halves(md5(&whole));
    first
}

/// Number of the shard that a partition key leads to, in a stream of `shards` that were never split
/// or merged: Kinesis cuts the range of MD5 into equal parts.
#[must_use]
pub fn shard_of(key: &str, shards: u64) -> u64 {
    shard_at(u128::from_be_bytes(md5(key.as_bytes())), shards)
}

/// As [`shard_of`], for an explicit hash key.
#[must_use]
pub fn shard_at(hash: u128, shards: u64) -> u64 {
    let shards = u128::from(shards.max(1));
    let width = u128::MAX / shards;
    u64::try_from((hash / width).min(shards - 1)).unwrap_or(0)
}

fn halves(digest: [u8; 16]) -> [u64; 2] {
    let whole = u128::from_be_bytes(digest);
    let low = u64::try_from(whole & u128::from(u64::MAX)).unwrap_or(0);
    [u64::try_from(whole >> 64).unwrap_or(0), low]
}

/// A random-looking number that follows from all of `marks` alone (the finaliser of SplitMix64,
/// Steele et al. 2014, once a mark).
#[must_use]
pub fn draw(marks: &[u64]) -> u64 {
    let step = |state: u64, mark: &u64| {
        let mut bits = (state ^ mark).wrapping_add(0x9e37_79b9_7f4a_7c15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    };
    marks.iter().fold(0, step)
}

/// Whether a draw of `marks` comes true with `probability` (0 to 1).
#[must_use]
pub fn chance(probability: f64, marks: &[u64]) -> bool {
    // 32 bits are exact in a double.
    let bits = u32::try_from(draw(marks) >> 32).unwrap_or(0);
    f64::from(bits) < probability * 4_294_967_296.0
}

/// MD5 (RFC 1321): the hash by which Kinesis chooses shards.
#[must_use]
pub fn md5(data: &[u8]) -> [u8; 16] {
    let mut padded = data.to_vec();
    padded.push(0x80);
    while padded.len() % 64 != 56 {
        padded.push(0);
    }
    let bits = u64::try_from(data.len()).unwrap_or(0).wrapping_mul(8);
    padded.extend_from_slice(&bits.to_le_bytes());
    let table = sines();
    let mut state = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
    for block in padded.as_chunks::<64>().0 {
        mix(&mut state, block, &table);
    }
    let mut out = [0; 16];
    for (bytes, word) in out.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *bytes = word.to_le_bytes();
    }
    out
}

fn mix(state: &mut [u32; 4], block: &[u8; 64], table: &[u32; 64]) {
    const SHIFTS: [[u32; 4]; 4] = [
        [7, 12, 17, 22],
        [5, 9, 14, 20],
        [4, 11, 16, 23],
        [6, 10, 15, 21],
    ];
    let words = block.as_chunks::<4>().0;
    let [mut a, mut b, mut c, mut d] = *state;
    for (step, sine) in table.iter().enumerate() {
        let (choice, word) = match step / 16 {
            0 => ((b & c) | (!b & d), step),
            1 => ((d & b) | (!d & c), (5 * step + 1) % 16),
            2 => (b ^ c ^ d, (3 * step + 5) % 16),
            _ => (c ^ (b | !d), (7 * step) % 16),
        };
        let sum = a
            .wrapping_add(choice)
            .wrapping_add(*sine)
            .wrapping_add(u32::from_le_bytes(words[word]));
        let turned = sum.rotate_left(SHIFTS[step / 16][step % 4]);
        (a, d, c, b) = (d, c, b, b.wrapping_add(turned));
    }
    for (sum, part) in state.iter_mut().zip([a, b, c, d]) {
        *sum = sum.wrapping_add(part);
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "RFC 1321 takes the whole part, which is below 2^32"
)]
fn sines() -> [u32; 64] {
    let mut table = [0; 64];
    let mut angle = 0.0_f64;
    for entry in &mut table {
        angle += 1.0;
        *entry = (angle.sin().abs() * 4_294_967_296.0) as u32;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(digest: [u8; 16]) -> String {
        format!("{:032x}", u128::from_be_bytes(digest))
    }

    #[test]
    fn md5_gives_the_digests_of_rfc_1321() {
        let long =
            "12345678901234567890123456789012345678901234567890123456789012345678901234567890";
        for (text, digest) in [
            ("", "d41d8cd98f00b204e9800998ecf8427e"),
            ("abc", "900150983cd24fb0d6963f7d28e17f72"),
            (long, "57edf4a22be3c955ac49da2e2107b67a"),
        ] {
            assert_eq!(hex(md5(text.as_bytes())), digest);
        }
    }

    #[test]
    fn base64_is_read_with_and_without_padding_and_nothing_else_is() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("TQ==", b"M"),
            ("TWE=", b"Ma"),
            ("TWFu/+8", b"Man\xff\xef"),
        ] {
            assert_eq!(from_base64(text).as_deref(), Some(bytes), "{text}");
        }
        for text in ["T", "TW u", "TWF\u{e9}"] {
            assert_eq!(from_base64(text), None, "{text}");
        }
    }

    #[test]
    fn percent_signs_are_read_and_broken_ones_stay() {
        assert_eq!(from_percent("a%20b%2Fc%3d"), "a b/c=");
        assert_eq!(from_percent("50%,%4,%zz%"), "50%,%4,%zz%");
    }

    #[test]
    fn shards_are_equal_parts_of_the_range_and_the_last_ends_it() {
        assert_eq!(shard_at(0, 2), 0);
        assert_eq!(shard_at(u128::MAX / 2 - 1, 2), 0);
        assert_eq!(shard_at(u128::MAX / 2, 2), 1);
        assert_eq!(shard_at(u128::MAX, 3), 2);
        let mut keys = [0_u32; 4];
        for key in 0..4000 {
            keys[usize::try_from(shard_of(&key.to_string(), 4)).unwrap()] += 1;
        }
        assert!(
            keys.iter().all(|count| (900..1100).contains(count)),
            "{keys:?}"
        );
    }

    #[test]
    fn draws_follow_from_their_marks_and_come_true_as_often_as_asked() {
        assert_eq!(draw(&[1, 2]), draw(&[1, 2]));
        assert_ne!(draw(&[1, 2]), draw(&[2, 1]));
        let hits = |probability| {
            (0..10_000)
                .filter(|n| chance(probability, &[7, *n]))
                .count()
        };
        assert_eq!((hits(0.0), hits(1.0)), (0, 10_000));
        assert!((2_300..2_700).contains(&hits(0.25)), "{}", hits(0.25));
    }
}
