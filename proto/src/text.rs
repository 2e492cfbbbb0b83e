//! Log lines: the payload of a Text frame.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version: 1, or 2 where the body needs a dictionary |
//! | varint | with version 2: the dictionary's number |
//! | varint | lines, at least 1 |
//! | varint | earliest time, µs since the Unix epoch, zigzag |
//! | varint | latest minus earliest time, µs |
//! | varint, n | name of the log, at most [`MAX_NAME_BYTES`] |
//! | varint | bytes of the body before compression, at most [`MAX_BODY_BYTES`] |
//! | rest | the body, one zstd frame |
//!
//! The body holds for each line: its time minus the earliest time (zigzag varint), its length
//! (varint) and its bytes, which need not be UTF-8. Compression is the caller's: a microcontroller
//! forwards lines without it.
//!
//! A dictionary is trained by zstd from lines of many devices. It is numbered and requested as a schema is.
//! It is large and the same for a whole fleet, so a sender sends only its SHA-256 at first ([`refer`]), and
//! one device of the fleet sends it on request. Its bytes begin with zstd's own magic, as no schema of
//! columns does.

use crate::varint::{self, NoRoom};

/// Version of a payload that is complete in itself.
const PLAIN: u8 = 1;
/// Version of a payload that needs a dictionary.
const WITH_DICTIONARY: u8 = 2;
/// First bytes of a dictionary (RFC 8878, section 5).
const DICTIONARY_MAGIC: [u8; 4] = [0x37, 0xa4, 0x30, 0xec];
/// First byte of a reference, before the dictionary's SHA-256.
const REFERENCE: u8 = 0xff;
/// Bytes of a reference.
pub const REFERENCE_BYTES: usize = 33;
/// Most bytes of a line's time and length: two LEB128 integers of 64 bits.
pub const MAX_LINE_OVERHEAD_BYTES: usize = 20;
/// Most bytes of a dictionary: it stands in every segment of a spool and in each snapshot of a journal.
pub const MAX_DICTIONARY_BYTES: usize = 32 * 1024;
/// Longest name of a log in bytes: as long as any text of a schema.
pub const MAX_NAME_BYTES: usize = 255;
/// Most bytes of a body before compression: bounds what a decoder allocates.
pub const MAX_BODY_BYTES: usize = 1 << 20;
/// Most bytes of a header.
pub const MAX_HEADER_BYTES: usize = 1 + 5 + 5 + 10 + 10 + 2 + MAX_NAME_BYTES + 5;

/// Whether bytes that came as a schema are a dictionary instead. Only zstd can tell whether it is whole.
#[must_use]
pub fn is_dictionary(bytes: &[u8]) -> bool {
    bytes.starts_with(&DICTIONARY_MAGIC) && bytes.len() <= MAX_DICTIONARY_BYTES
}

/// The bytes that are sent as a schema in place of the dictionary with this SHA-256.
#[must_use]
pub fn refer(sha256: &[u8; 32]) -> [u8; REFERENCE_BYTES] {
    let mut reference = [REFERENCE; REFERENCE_BYTES];
    reference[1..].copy_from_slice(sha256);
    reference
}

/// The SHA-256 in a reference that came as a schema; `None` if the bytes are no reference.
#[must_use]
pub fn referred(bytes: &[u8]) -> Option<&[u8; 32]> {
    match bytes.split_first()? {
        (&REFERENCE, sha256) => sha256.try_into().ok(),
        _ => None,
    }
}

/// The header of a Text payload: enough for forwarding and eviction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextHeader<'a> {
    /// Number of the dictionary that the body was compressed with.
    pub dictionary: Option<u32>,
    /// How many lines it has.
    pub lines: u32,
    /// The earliest time of a line, µs since the Unix epoch.
    pub first_time_us: i64,
    /// The latest time of a line.
    pub last_time_us: i64,
    /// The log the lines belong to.
    pub name: &'a str,
    /// Bytes of the body before compression.
    pub body_bytes: usize,
}

impl<'a> TextHeader<'a> {
    /// Reads the header; returns it and the compressed body. `None` if the bytes are no Text
    /// payload of this version.
    #[must_use]
    pub fn read(payload: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let mut at = 1;
        let dictionary = match *payload.first()? {
            PLAIN => None,
            WITH_DICTIONARY => Some(u32::try_from(varint::get(payload, &mut at)?).ok()?),
            _ => return None,
        };
        let lines = u32::try_from(varint::get(payload, &mut at)?)
            .ok()
            .filter(|n| *n > 0)?;
        let first_time_us = varint::unzigzag(varint::get(payload, &mut at)?);
        let last_time_us = first_time_us.checked_add_unsigned(varint::get(payload, &mut at)?)?;
        let len = usize::try_from(varint::get(payload, &mut at)?).ok()?;
        if len > MAX_NAME_BYTES {
            return None;
        }
        let name = core::str::from_utf8(payload.get(at..at + len)?).ok()?;
        at += len;
        let body_bytes = usize::try_from(varint::get(payload, &mut at)?).ok()?;
        if body_bytes > MAX_BODY_BYTES {
            return None;
        }
        Some((
            Self {
                dictionary,
                lines,
                first_time_us,
                last_time_us,
                name,
                body_bytes,
            },
            &payload[at..],
        ))
    }

    /// Writes the header; returns its length.
    ///
    /// # Errors
    /// [`NoRoom`] if `out` is too short; [`MAX_HEADER_BYTES`] suffice for a name within its limit.
    pub fn write(&self, out: &mut [u8]) -> Result<usize, NoRoom> {
        let version = out.first_mut().ok_or(NoRoom)?;
        let mut at = 1;
        if let Some(number) = self.dictionary {
            *version = WITH_DICTIONARY;
            varint::put(out, &mut at, u64::from(number))?;
        } else {
            *version = PLAIN;
        }
        varint::put(out, &mut at, u64::from(self.lines))?;
        varint::put(out, &mut at, varint::zigzag(self.first_time_us))?;
        let span = self
            .last_time_us
            .wrapping_sub(self.first_time_us)
            .cast_unsigned();
        varint::put(out, &mut at, span)?;
        varint::put(out, &mut at, self.name.len() as u64)?;
        let end = at + self.name.len();
        out.get_mut(at..end)
            .ok_or(NoRoom)?
            .copy_from_slice(self.name.as_bytes());
        at = end;
        varint::put(out, &mut at, self.body_bytes as u64)?;
        Ok(at)
    }
}

/// Walks the lines of a body after decompression; ends at the first byte that is no line.
#[derive(Debug, Clone)]
pub struct Lines<'a> {
    body: &'a [u8],
    at: usize,
    first_time_us: i64,
}

impl<'a> Lines<'a> {
    /// Over the decompressed `body` of a payload with this `first_time_us`.
    #[must_use]
    pub const fn new(body: &'a [u8], first_time_us: i64) -> Self {
        Self {
            body,
            at: 0,
            first_time_us,
        }
    }

    /// Whether all bytes were lines.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        self.at == self.body.len()
    }

    fn line(&self) -> Option<((i64, &'a [u8]), usize)> {
        let mut at = self.at;
        let time = self
            .first_time_us
            .checked_add(varint::unzigzag(varint::get(self.body, &mut at)?))?;
        let len = usize::try_from(varint::get(self.body, &mut at)?).ok()?;
        let end = at.checked_add(len)?;
        Some(((time, self.body.get(at..end)?), end))
    }
}

impl<'a> Iterator for Lines<'a> {
    /// Time in µs, and the line.
    type Item = (i64, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (line, end) = self.line()?;
        self.at = end;
        Some(line)
    }
}

/// Writes one line of a body; returns its length.
///
/// # Errors
/// [`NoRoom`] if `out` is too short.
pub fn write_line(
    time_us: i64,
    first_time_us: i64,
    line: &[u8],
    out: &mut [u8],
) -> Result<usize, NoRoom> {
    let mut at = 0;
    varint::put(
        out,
        &mut at,
        varint::zigzag(time_us.wrapping_sub(first_time_us)),
    )?;
    varint::put(out, &mut at, line.len() as u64)?;
    let end = at + line.len();
    out.get_mut(at..end).ok_or(NoRoom)?.copy_from_slice(line);
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_both_versions_are_frozen() {
        let header = TextHeader {
            dictionary: None,
            lines: 2,
            first_time_us: -1,
            last_time_us: 4,
            name: "sys",
            body_bytes: 300,
        };
        let mut out = [0; MAX_HEADER_BYTES];
        let len = header.write(&mut out).unwrap();
        assert_eq!(&out[..len], b"\x01\x02\x01\x05\x03sys\xac\x02");
        assert_eq!(TextHeader::read(&out[..len]), Some((header, &[][..])));
        let header = TextHeader {
            dictionary: Some(200),
            ..header
        };
        let len = header.write(&mut out).unwrap();
        assert_eq!(&out[..len], b"\x02\xc8\x01\x02\x01\x05\x03sys\xac\x02");
        assert_eq!(TextHeader::read(&out[..len]), Some((header, &[][..])));
    }

    #[test]
    fn a_dictionary_is_known_by_its_first_bytes_and_bounded() {
        let mut bytes = DICTIONARY_MAGIC.to_vec();
        assert!(is_dictionary(&bytes));
        bytes.resize(MAX_DICTIONARY_BYTES + 1, 0);
        assert!(!is_dictionary(&bytes));
        assert!(!is_dictionary(&[1, 0xa4, 0x30, 0xec]));
    }

    #[test]
    fn a_reference_is_neither_schema_nor_dictionary() {
        let reference = refer(&[7; 32]);
        assert_eq!(referred(&reference), Some(&[7; 32]));
        assert!(!is_dictionary(&reference));
        assert_eq!(referred(&reference[..32]), None);
        assert_eq!(referred(&[1; 33]), None);
    }

    #[test]
    fn lines_come_back_with_their_times() {
        let mut body = [0; 64];
        let mut at = write_line(10, 10, b"one", &mut body).unwrap();
        at += write_line(7, 10, b"\xff", &mut body[at..]).unwrap();
        let mut lines = Lines::new(&body[..at], 10);
        assert_eq!(lines.next(), Some((10, &b"one"[..])));
        assert_eq!(lines.next(), Some((7, &b"\xff"[..])));
        assert_eq!(lines.next(), None);
        assert!(lines.is_done());
    }

    #[test]
    fn a_cut_or_foreign_payload_is_refused() {
        let header = TextHeader {
            dictionary: Some(300),
            lines: 1,
            first_time_us: 5,
            last_time_us: 5,
            name: "a",
            body_bytes: 3,
        };
        let mut out = [0; MAX_HEADER_BYTES];
        let len = header.write(&mut out).unwrap();
        for cut in 0..len {
            assert_eq!(TextHeader::read(&out[..cut]), None);
        }
        out[0] = WITH_DICTIONARY + 1;
        assert_eq!(TextHeader::read(&out[..len]), None);
        let mut cut = Lines::new(&[0, 9, b'x'], 0);
        assert_eq!(cut.next(), None);
        assert!(!cut.is_done());
    }

    #[test]
    fn names_and_bodies_up_to_their_bounds_are_read_and_longer_ones_refused() {
        let name = "n".repeat(MAX_NAME_BYTES + 1);
        let read = |name_bytes: usize, body_bytes| {
            let header = TextHeader {
                dictionary: None,
                lines: 1,
                first_time_us: i64::MIN,
                last_time_us: i64::MAX,
                name: &name[..name_bytes],
                body_bytes,
            };
            let mut out = [0; MAX_HEADER_BYTES + 1];
            let len = header.write(&mut out).unwrap();
            TextHeader::read(&out[..len]).map(|(read, _)| read == header)
        };
        assert_eq!(read(MAX_NAME_BYTES, MAX_BODY_BYTES), Some(true));
        assert_eq!(read(MAX_NAME_BYTES + 1, 0), None);
        assert_eq!(read(0, MAX_BODY_BYTES + 1), None);
    }

    #[test]
    fn a_line_takes_its_bytes_and_no_more_than_the_overhead() {
        let line = std::vec![b'x'; MAX_BODY_BYTES];
        let mut out = std::vec![0; line.len() + MAX_LINE_OVERHEAD_BYTES];
        // The farthest time there is.
        let len = write_line(i64::MIN, 0, &line, &mut out).unwrap();
        assert_eq!(len, line.len() + 10 + 3);
        let longest = varint::len(u64::MAX);
        assert_eq!(MAX_LINE_OVERHEAD_BYTES, 2 * longest);
    }
}
