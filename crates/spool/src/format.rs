//! Core: the bytes of a segment file, version 1.
//!
//! All integers are little-endian. A file is a header, a snapshot, records back to back, free room,
//! and a footer in its last bytes once it is sealed.
//!
//! **Header**, 64 bytes. Magic, version, number, first position and checksum keep their places in
//! every later version, so that an older program can name a file that it must not read.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | magic `HWSPOOL` and a zero |
//! | 8 | 2 | version, now 1 |
//! | 10 | 2 | flags, now 0 |
//! | 12 | 4 | snapshot length |
//! | 16 | 8 | segment number; also in the file's name |
//! | 24 | 8 | first position |
//! | 32 | 8 | number of the segment written before this one, 0 if there is none |
//! | 40 | 8 | where that one's positions end: it may have been cut after a failed sync |
//! | 48 | 4 | CRC-32C over the segment number and the snapshot |
//! | 52 | 8 | zeros |
//! | 60 | 4 | CRC-32C over bytes 0 to 59 |
//!
//! **Record**, 16 bytes and its payload. Positions within a segment are dense.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 4 | CRC-32C over the segment number, bytes 4 to 15 and the payload |
//! | 4 | 3 | payload length |
//! | 7 | 1 | kind, the owner's |
//! | 8 | 8 | position |
//! | 16 | n | payload |
//!
//! **Footer**, the last 32 bytes of a sealed file. It is written after the last group's sync, so its
//! presence proves that group.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 4 | magic `HWSE` |
//! | 4 | 8 | segment number |
//! | 12 | 8 | position after the last record |
//! | 20 | 8 | offset after the last record |
//! | 28 | 4 | CRC-32C over bytes 0 to 27 |

use crc32c::{crc32c, crc32c_append};

/// The version this build writes, and the only one it reads.
pub const VERSION: u16 = 1;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 64;
/// Bytes before a record's payload.
pub const RECORD_HEADER_BYTES: usize = 16;
/// Bytes of the footer.
pub const FOOTER_BYTES: usize = 32;
/// Largest payload of a record: its length has three bytes.
pub const MAX_PAYLOAD_BYTES: usize = (1 << 24) - 1;
/// Positions stay below it, so that sums of them never overflow. What claims more is damaged.
pub const MAX_POSITION: u64 = 1 << 62;
/// Largest snapshot: it is built in memory and written at once.
pub const MAX_SNAPSHOT_BYTES: usize = 16 << 20;

const MAGIC: [u8; 8] = *b"HWSPOOL\0";
const FOOTER_MAGIC: [u8; 4] = *b"HWSE";

/// What a segment's first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The segment's number.
    pub id: u64,
    /// Position of its first record.
    pub first: u64,
    /// Number of the segment written before, 0 if there is none.
    pub previous: u64,
    /// Position at which that one ends.
    pub previous_next: u64,
    /// Bytes of the snapshot.
    pub snapshot_len: u32,
    /// Its checksum, [`snapshot_crc`].
    pub snapshot_crc: u32,
}

/// Why bytes are not a header of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderError {
    /// No magic, too short, the checksum does not fit, or positions beyond [`MAX_POSITION`].
    Damaged,
    /// Written by another version; number and first position as it says.
    Version {
        /// That version.
        version: u16,
        /// The segment's number.
        id: u64,
        /// Position of its first record.
        first: u64,
    },
}

/// How a sealed segment ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footer {
    /// The segment's number.
    pub id: u64,
    /// Position after its last record.
    pub next: u64,
    /// Offset after its last record.
    pub end: u64,
}

/// A record's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// Bytes of its payload.
    pub len: usize,
    /// Its kind.
    pub kind: u8,
    /// Its position.
    pub position: u64,
    crc: u32,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// Checksum of a snapshot in segment `id`.
#[must_use]
pub fn snapshot_crc(id: u64, snapshot: &[u8]) -> u32 {
    crc32c_append(crc32c(&id.to_le_bytes()), snapshot)
}

impl Header {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&self.snapshot_len.to_le_bytes());
        out[16..24].copy_from_slice(&self.id.to_le_bytes());
        out[24..32].copy_from_slice(&self.first.to_le_bytes());
        out[32..40].copy_from_slice(&self.previous.to_le_bytes());
        out[40..48].copy_from_slice(&self.previous_next.to_le_bytes());
        out[48..52].copy_from_slice(&self.snapshot_crc.to_le_bytes());
        let crc = crc32c(&out[..60]);
        out[60..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a header from a file's first bytes.
    ///
    /// # Errors
    /// [`HeaderError`]: the checksum is judged before the version, so that damage is never taken
    /// for a newer format.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let bytes = bytes.get(..HEADER_BYTES).ok_or(HeaderError::Damaged)?;
        if bytes[..8] != MAGIC || u32_at(bytes, 60) != crc32c(&bytes[..60]) {
            return Err(HeaderError::Damaged);
        }
        let (id, first) = (u64_at(bytes, 16), u64_at(bytes, 24));
        if first > MAX_POSITION {
            return Err(HeaderError::Damaged);
        }
        let version = u16_at(bytes, 8);
        if version != VERSION || u16_at(bytes, 10) != 0 {
            return Err(HeaderError::Version { version, id, first });
        }
        if u64_at(bytes, 40) > MAX_POSITION {
            return Err(HeaderError::Damaged);
        }
        Ok(Self {
            id,
            first,
            previous: u64_at(bytes, 32),
            previous_next: u64_at(bytes, 40),
            snapshot_len: u32_at(bytes, 12),
            snapshot_crc: u32_at(bytes, 48),
        })
    }

    /// Offset of the first record.
    #[must_use]
    pub fn records_at(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.snapshot_len)
    }
}

impl Footer {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; FOOTER_BYTES] {
        let mut out = [0; FOOTER_BYTES];
        out[..4].copy_from_slice(&FOOTER_MAGIC);
        out[4..12].copy_from_slice(&self.id.to_le_bytes());
        out[12..20].copy_from_slice(&self.next.to_le_bytes());
        out[20..28].copy_from_slice(&self.end.to_le_bytes());
        let crc = crc32c(&out[..28]);
        out[28..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the footer of segment `id` from a file's last bytes; `None` if there is none.
    #[must_use]
    pub fn decode(bytes: &[u8], id: u64) -> Option<Self> {
        let bytes = bytes.get(..FOOTER_BYTES)?;
        let fits = bytes[..4] == FOOTER_MAGIC
            && u32_at(bytes, 28) == crc32c(&bytes[..28])
            && u64_at(bytes, 4) == id
            && u64_at(bytes, 12) <= MAX_POSITION;
        fits.then(|| Self {
            id,
            next: u64_at(bytes, 12),
            end: u64_at(bytes, 20),
        })
    }
}

fn record_crc(id: u64, after_crc: &[u8], payload: &[u8]) -> u32 {
    // The number and the rest of the header in one piece: short runs are what costs here.
    let mut head = [0; 8 + RECORD_HEADER_BYTES - 4];
    head[..8].copy_from_slice(&id.to_le_bytes());
    head[8..].copy_from_slice(after_crc);
    crc32c_append(crc32c(&head), payload)
}

/// Appends a record of segment `id` to `out`. `payload` is at most [`MAX_PAYLOAD_BYTES`] long: its
/// callers have checked.
pub fn append_record(out: &mut Vec<u8>, id: u64, position: u64, kind: u8, payload: &[u8]) {
    debug_assert!(payload.len() <= MAX_PAYLOAD_BYTES);
    let len = (payload.len() as u64).to_le_bytes();
    let mut head = [0; RECORD_HEADER_BYTES];
    head[4..7].copy_from_slice(&len[..3]);
    head[7] = kind;
    head[8..].copy_from_slice(&position.to_le_bytes());
    let crc = record_crc(id, &head[4..], payload);
    head[..4].copy_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(payload);
}

impl RecordHeader {
    /// Reads the header at the start of `bytes`, whatever it says; `None` if they are too short.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..RECORD_HEADER_BYTES)?;
        let len = usize::from(bytes[4]) | usize::from(bytes[5]) << 8 | usize::from(bytes[6]) << 16;
        Some(Self {
            len,
            kind: bytes[7],
            position: u64_at(bytes, 8),
            crc: u32_at(bytes, 0),
        })
    }

    /// Bytes of the whole record.
    #[must_use]
    pub fn total(&self) -> usize {
        RECORD_HEADER_BYTES + self.len
    }

    /// Whether `record`, which is header and payload, is what segment `id` once held.
    #[must_use]
    pub fn fits(&self, id: u64, record: &[u8]) -> bool {
        record.len() == self.total()
            && record_crc(
                id,
                &record[4..RECORD_HEADER_BYTES],
                &record[RECORD_HEADER_BYTES..],
            ) == self.crc
    }
}

/// A file of a log, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// A segment and its number.
    Segment(u64),
    /// A file kept for its blocks, and the number of the segment that it was.
    Spare(u64),
}

impl Name {
    /// The file name in the log `log`.
    #[must_use]
    pub fn file(self, log: &str) -> String {
        match self {
            Self::Segment(id) => format!("{log}-{id:016x}.seg"),
            Self::Spare(id) => format!("{log}-{id:016x}.spare"),
        }
    }

    /// What `file` is to the log `log`; `None` if it belongs to somebody else.
    #[must_use]
    pub fn parse(log: &str, file: &str) -> Option<Self> {
        let rest = file.strip_prefix(log)?.strip_prefix('-')?;
        let (digits, ending) = rest.split_at_checked(16)?;
        if !digits
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        {
            return None;
        }
        let id = u64::from_str_radix(digits, 16).ok()?;
        match ending {
            ".seg" => Some(Self::Segment(id)),
            ".spare" => Some(Self::Spare(id)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header {
        id: 0x0102_0304_0506_0708,
        first: 9,
        previous: 7,
        previous_next: 8,
        snapshot_len: 3,
        snapshot_crc: 0xaabb_ccdd,
    };

    #[test]
    fn the_bytes_of_version_1_are_frozen() {
        assert_eq!(
            HEADER.encode(),
            [
                72, 87, 83, 80, 79, 79, 76, 0, 1, 0, 0, 0, 3, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1, 9,
                0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 221, 204, 187,
                170, 0, 0, 0, 0, 0, 0, 0, 0, 187, 66, 4, 220
            ]
        );
        assert_eq!(
            Footer {
                id: 5,
                next: 300,
                end: 70_000
            }
            .encode(),
            [
                72, 87, 83, 69, 5, 0, 0, 0, 0, 0, 0, 0, 44, 1, 0, 0, 0, 0, 0, 0, 112, 17, 1, 0, 0,
                0, 0, 0, 210, 44, 146, 71
            ]
        );
        let mut record = Vec::new();
        append_record(&mut record, 5, 299, 0x21, b"abc");
        assert_eq!(
            record,
            [
                29, 10, 218, 125, 3, 0, 0, 33, 43, 1, 0, 0, 0, 0, 0, 0, 97, 98, 99
            ]
        );
        assert_eq!(snapshot_crc(5, b"abc"), 0x3d90ef12);
        assert_eq!(Name::Segment(255).file("log"), "log-00000000000000ff.seg");
    }

    #[test]
    fn what_was_encoded_decodes() {
        assert_eq!(Header::decode(&HEADER.encode()), Ok(HEADER));
        let footer = Footer {
            id: 5,
            next: 300,
            end: 70_000,
        };
        assert_eq!(Footer::decode(&footer.encode(), 5), Some(footer));
        assert_eq!(Footer::decode(&footer.encode(), 6), None);
        for name in [Name::Segment(0), Name::Spare(u64::MAX)] {
            assert_eq!(Name::parse("a-b", &name.file("a-b")), Some(name));
            assert_eq!(Name::parse("a", &name.file("a-b")), None);
        }
    }

    #[test]
    fn a_record_fits_only_its_own_segment_and_its_own_bits() {
        let mut record = Vec::new();
        append_record(&mut record, 5, 1, 2, b"payload");
        let header = RecordHeader::decode(&record).unwrap();
        assert!(header.fits(5, &record));
        assert!(!header.fits(6, &record));
        for bit in 0..record.len() * 8 {
            let mut damaged = record.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let header = RecordHeader::decode(&damaged).unwrap();
            assert!(!header.fits(5, &damaged), "bit {bit}");
        }
    }

    #[test]
    fn positions_that_no_log_reaches_are_damage() {
        let beyond = MAX_POSITION + 1;
        let first = Header {
            first: beyond,
            ..HEADER
        };
        let previous_next = Header {
            previous_next: beyond,
            ..HEADER
        };
        for header in [first, previous_next] {
            let read = Header::decode(&header.encode());
            assert_eq!(read, Err(HeaderError::Damaged));
        }
        let footer = Footer {
            id: 5,
            next: beyond,
            end: 1,
        };
        assert_eq!(Footer::decode(&footer.encode(), 5), None);
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut bytes = HEADER.encode();
        bytes[8] = 2;
        assert_eq!(Header::decode(&bytes), Err(HeaderError::Damaged));
        let crc = crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        let newer = HeaderError::Version {
            version: 2,
            id: HEADER.id,
            first: 9,
        };
        assert_eq!(Header::decode(&bytes), Err(newer));
    }
}
