//! Parts of inputs that could not be read: the payload of a Refused frame.
//!
//! A source reads the good parts of an input. A refused part travels in such a record to the lake's
//! quarantine, with its place, its cause and its bytes. One record holds parts of one source; each part
//! counts as one sample.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version: 1 |
//! | varint, n | name of the source, at most [`MAX_SOURCE_BYTES`] |
//! | varint | parts, 1 to [`MAX_PARTS`] |
//! | 8 | time of the first part, microseconds, little-endian: wall or uptime, by its epoch's base |
//! | per part | time after the first, microseconds, zigzag varint · place, cause, bytes: each varint, n |
//!
//! Place and cause are text in words, at most [`MAX_WORDS_BYTES`] each. The bytes are the beginning of the
//! refused part, at most [`MAX_BYTES`].

use crate::varint::{self, NoRoom};

const VERSION: u8 = 1;
/// Longest name of a source: that of a gap's part ([`crate::message::PartName`]).
pub const MAX_SOURCE_BYTES: usize = 64;
/// Most parts of one record: bounds the rows that one record becomes.
pub const MAX_PARTS: usize = 256;
/// Longest place and longest cause: a sentence each.
pub const MAX_WORDS_BYTES: usize = 255;
/// Most bytes kept of a refused part: enough to recognise it.
pub const MAX_BYTES: usize = 1024;
/// Most bytes of one part within a record.
pub const MAX_PART_BYTES: usize = 10 + 3 * 2 + 2 * MAX_WORDS_BYTES + MAX_BYTES;

/// A part of an input that a source could not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<'a> {
    /// When it was refused, in microseconds.
    pub at_us: i64,
    /// Where in the input it stood, in words.
    pub place: &'a str,
    /// Why it was refused, in words.
    pub cause: &'a str,
    /// Its first bytes.
    pub bytes: &'a [u8],
}

impl<'a> Part<'a> {
    /// The part with every text cut to its bound.
    #[must_use]
    pub fn cut(self) -> Self {
        Self {
            place: cut_text(self.place),
            cause: cut_text(self.cause),
            bytes: &self.bytes[..self.bytes.len().min(MAX_BYTES)],
            ..self
        }
    }
}

fn cut_text(text: &str) -> &str {
    let mut end = text.len().min(MAX_WORDS_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Writes a record of `parts`, which are cut to their bounds; returns its length.
///
/// # Errors
/// [`NoRoom`] if `out` is too short, there is no part or more than [`MAX_PARTS`], or the source's name
/// is longer than [`MAX_SOURCE_BYTES`].
pub fn encode(source: &str, parts: &[Part<'_>], out: &mut [u8]) -> Result<usize, NoRoom> {
    let first = parts.first().ok_or(NoRoom)?;
    if parts.len() > MAX_PARTS || source.len() > MAX_SOURCE_BYTES {
        return Err(NoRoom);
    }
    let mut at = 0;
    varint::put_bytes(out, &mut at, &[VERSION])?;
    put_counted(out, &mut at, source.as_bytes())?;
    varint::put(out, &mut at, parts.len() as u64)?;
    varint::put_bytes(out, &mut at, &first.at_us.to_le_bytes())?;
    for part in parts {
        let part = part.cut();
        let after = part.at_us.wrapping_sub(first.at_us);
        varint::put(out, &mut at, varint::zigzag(after))?;
        put_counted(out, &mut at, part.place.as_bytes())?;
        put_counted(out, &mut at, part.cause.as_bytes())?;
        put_counted(out, &mut at, part.bytes)?;
    }
    Ok(at)
}

/// A record as bytes.
///
/// # Errors
/// As [`encode`], except for the length of `out`.
#[cfg(feature = "alloc")]
pub fn to_vec(source: &str, parts: &[Part<'_>]) -> Result<alloc::vec::Vec<u8>, NoRoom> {
    let most = 1 + 1 + MAX_SOURCE_BYTES + 2 + 8 + parts.len().min(MAX_PARTS) * MAX_PART_BYTES;
    let mut out = alloc::vec![0; most];
    let len = encode(source, parts, &mut out)?;
    out.truncate(len);
    Ok(out)
}

/// A record that was checked whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused<'a> {
    /// The source.
    pub source: &'a str,
    /// How many parts it holds.
    pub count: u32,
    first_us: i64,
    body: &'a [u8],
}

impl<'a> Refused<'a> {
    /// Reads a record; `None` if any part of it is cut, too long or no text.
    #[must_use]
    pub fn decode(payload: &'a [u8]) -> Option<Self> {
        let mut at = 0;
        if varint::take(payload, &mut at, 1)? != [VERSION] {
            return None;
        }
        let source = take_text(payload, &mut at, MAX_SOURCE_BYTES)?;
        let count = usize::try_from(varint::get(payload, &mut at)?).ok()?;
        if count == 0 || count > MAX_PARTS {
            return None;
        }
        let first_us = i64::from_le_bytes(varint::take(payload, &mut at, 8)?.try_into().ok()?);
        let body = &payload[at..];
        let mut at = 0;
        for _ in 0..count {
            part_of(body, &mut at, first_us)?;
        }
        (at == body.len()).then_some(Self {
            source,
            count: u32::try_from(count).ok()?,
            first_us,
            body,
        })
    }

    /// Its parts, in the order in which they were refused.
    pub fn parts(&self) -> impl Iterator<Item = Part<'a>> + use<'a> {
        let (body, first_us, mut at) = (self.body, self.first_us, 0);
        (0..self.count).map_while(move |_| part_of(body, &mut at, first_us))
    }

    /// Earliest and latest time of its parts, in microseconds.
    #[must_use]
    pub fn span_us(&self) -> (i64, i64) {
        self.parts()
            .fold((self.first_us, self.first_us), |(first, last), part| {
                (first.min(part.at_us), last.max(part.at_us))
            })
    }
}

fn part_of<'a>(bytes: &'a [u8], at: &mut usize, first_us: i64) -> Option<Part<'a>> {
    let after = varint::unzigzag(varint::get(bytes, at)?);
    let place = take_text(bytes, at, MAX_WORDS_BYTES)?;
    let cause = take_text(bytes, at, MAX_WORDS_BYTES)?;
    let len = usize::try_from(varint::get(bytes, at)?).ok()?;
    let bytes = varint::take(bytes, at, Some(len).filter(|len| *len <= MAX_BYTES)?)?;
    Some(Part {
        at_us: first_us.wrapping_add(after),
        place,
        cause,
        bytes,
    })
}

fn put_counted(out: &mut [u8], at: &mut usize, bytes: &[u8]) -> Result<(), NoRoom> {
    varint::put(out, at, bytes.len() as u64)?;
    varint::put_bytes(out, at, bytes)
}

fn take_text<'a>(bytes: &'a [u8], at: &mut usize, most: usize) -> Option<&'a str> {
    let len = usize::try_from(varint::get(bytes, at)?).ok()?;
    let bytes = varint::take(bytes, at, Some(len).filter(|len| *len <= most)?)?;
    core::str::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::String;
    use std::vec;
    use std::vec::Vec;

    fn part<'a>(at_us: i64, cause: &'a str, bytes: &'a [u8]) -> Part<'a> {
        Part {
            at_us,
            place: "line 2, column 7",
            cause,
            bytes,
        }
    }

    #[test]
    fn the_bytes_of_version_1_are_frozen() {
        let parts = [part(1_000, "no number", b"x"), part(999, "", b"")];
        let bytes = to_vec("plc", &parts).unwrap();
        let mut golden = vec![1, 3, b'p', b'l', b'c', 2, 232, 3, 0, 0, 0, 0, 0, 0];
        for (after, cause, bytes) in [(0, "no number", "x"), (1, "", "")] {
            golden.extend([after, 16]);
            golden.extend(b"line 2, column 7");
            for text in [cause, bytes] {
                golden.push(u8::try_from(text.len()).unwrap());
                golden.extend(text.as_bytes());
            }
        }
        assert_eq!(bytes, golden);
        let read = Refused::decode(&bytes).unwrap();
        assert_eq!(
            (read.source, read.count, read.span_us()),
            ("plc", 2, (999, 1_000))
        );
        assert_eq!(read.parts().collect::<Vec<_>>(), parts);
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters_and_too_many_parts_find_no_room() {
        let words = "\u{e9}".repeat(MAX_WORDS_BYTES);
        let bytes = vec![7; MAX_BYTES + 1];
        let long = Part {
            place: &words,
            ..part(0, &words, &bytes)
        };
        let record = to_vec("s", &[long]).unwrap();
        let read = Refused::decode(&record).unwrap().parts().next().unwrap();
        assert_eq!(read.place.len(), MAX_WORDS_BYTES - 1);
        assert_eq!(read.cause.len(), MAX_WORDS_BYTES - 1);
        assert_eq!(read.bytes.len(), MAX_BYTES);
        let most = vec![long; MAX_PARTS + 1];
        let record = to_vec("s", &most[1..]).unwrap();
        assert_eq!(Refused::decode(&record).unwrap().parts().count(), MAX_PARTS);
        assert_eq!(to_vec("s", &most), Err(NoRoom));
        assert_eq!(to_vec("s", &[]), Err(NoRoom));
        let name = "n".repeat(MAX_SOURCE_BYTES + 1);
        assert!(to_vec(&name[1..], &[long]).is_ok());
        assert_eq!(to_vec(&name, &[long]), Err(NoRoom));
    }

    #[test]
    fn the_longest_part_takes_its_bound() {
        let words = "w".repeat(MAX_WORDS_BYTES);
        let bytes = vec![7; MAX_BYTES];
        let part = |at_us| Part {
            at_us,
            place: &words,
            cause: &words,
            bytes: &bytes,
        };
        let record = to_vec("s", &[part(i64::MAX), part(0)]).unwrap();
        assert!(record.len() <= 2 + 2 + 2 + 8 + 2 * MAX_PART_BYTES);
        assert_eq!(Refused::decode(&record).unwrap().span_us(), (0, i64::MAX));
    }

    proptest! {
        #[test]
        fn parts_come_back_and_every_cut_is_refused(
            parts in proptest::collection::vec((any::<i64>(), ".{0,20}", ".{0,20}", any::<Vec<u8>>()), 1..5),
            cut in any::<proptest::sample::Index>(),
        ) {
            let parts: Vec<(i64, String, String, Vec<u8>)> = parts;
            let parts: Vec<_> = parts
                .iter()
                .map(|(at_us, place, cause, bytes)| Part { at_us: *at_us, place, cause, bytes })
                .collect();
            let record = to_vec("source", &parts).unwrap();
            let read = Refused::decode(&record).unwrap();
            prop_assert_eq!(read.parts().collect::<Vec<_>>(), parts);
            prop_assert!(Refused::decode(&record[..cut.index(record.len())]).is_none());
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Refused::decode(&bytes);
            let mut begun = vec![1, 1, b'a', 2, 0, 0, 0, 0, 0, 0, 0, 0];
            begun.extend(bytes);
            if let Some(read) = Refused::decode(&begun) {
                let _ = (read.parts().count(), read.span_us());
            }
        }
    }
}
