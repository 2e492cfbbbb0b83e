//! One framed payload, the unit of every wire and of the spool.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version, now 2 |
//! | 1 | kind |
//! | 1 to 4 | payload length, LEB128 |
//! | n | payload |
//! | 4 | CRC-32C over all bytes before it, little-endian: the only checksum on the way |

use crate::varint::{self, NoRoom};

/// The frame version this build writes.
pub const VERSION: u8 = 2;
/// Largest payload: a bundle's hard maximum. Longer lengths are refused before anything is read.
pub const MAX_PAYLOAD_BYTES: usize = 1 << 20;
/// Most bytes that a frame adds to its payload: version and kind, length, checksum.
pub const MAX_OVERHEAD_BYTES: usize = 2 + 3 + 4;

/// The kind of a frame's payload. Numbers are part of the wire; a new kind has a new number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Rows of one schema ([`crate::codec`]). Takes a sequence number.
    Batch = 1,
    /// Log lines in zstd blocks. Takes a sequence number.
    Text = 2,
    /// A chunk of a file. Takes a sequence number.
    Blob = 3,
    /// Aggregates in place of samples. Takes a sequence number.
    Summary = 4,
    /// A gap. Takes a sequence number.
    Gap = 5,
    /// The end of an earlier epoch. Takes a sequence number.
    EpochEnd = 6,
    /// Binds a schema number to its bytes. Takes no sequence number.
    Schema = 7,
    /// Opens a bundle: origin, lane, epoch, first sequence number. Takes none itself.
    BundleHead = 8,
    /// Parts of an input that could not be read ([`crate::refused`]). Takes a sequence number.
    Refused = 9,
    /// Ties the uptime of a boot to wall time. Takes a sequence number.
    TimeBase = 10,
    /// Which part of a source's content the records of the bundle hold ([`crate::portion`]). Takes no sequence
    /// number.
    Portion = 11,
    /// Up: the streams that the sender holds.
    Hello = 16,
    /// Up: the sender's health.
    Stat = 17,
    /// Down: the marks that answer a Hello.
    Welcome = 32,
    /// Down: received and committed marks, credit.
    Ack = 33,
    /// Down: records that were refused.
    Reject = 34,
    /// Down: a schema number the collector does not know.
    SchemaRequest = 35,
    /// Down: new configuration.
    Config = 36,
    /// Down: a command.
    Command = 37,
    /// Down: how far the content of sources is held.
    Held = 38,
}

impl Kind {
    /// Every kind, for tables and tests.
    pub const ALL: [Self; 20] = [
        Self::Batch,
        Self::Text,
        Self::Blob,
        Self::Summary,
        Self::Gap,
        Self::EpochEnd,
        Self::Schema,
        Self::BundleHead,
        Self::Refused,
        Self::TimeBase,
        Self::Portion,
        Self::Hello,
        Self::Stat,
        Self::Welcome,
        Self::Ack,
        Self::Reject,
        Self::SchemaRequest,
        Self::Config,
        Self::Command,
        Self::Held,
    ];

    /// Its number on the wire.
    #[must_use]
    pub const fn to_u8(self) -> u8 {
        self as u8
    }

    /// The kind of a number this build knows.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.to_u8() == number)
    }

    /// Whether a frame of this kind takes a sequence number of its maker's stream.
    #[must_use]
    pub const fn is_numbered(self) -> bool {
        matches!(
            self,
            Self::Batch
                | Self::Text
                | Self::Blob
                | Self::Summary
                | Self::Gap
                | Self::EpochEnd
                | Self::Refused
                | Self::TimeBase
        )
    }
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The bytes end inside a frame.
    #[error("the bytes end inside a frame")]
    Short,
    /// A version this build does not read.
    #[error("frame version {0} is unknown here")]
    Version(u8),
    /// A kind this build does not know.
    #[error("frame kind {0} is unknown here")]
    Kind(u8),
    /// A length above [`MAX_PAYLOAD_BYTES`].
    #[error("a frame of this length is refused")]
    Length,
    /// The checksum does not fit the bytes.
    #[error("the frame fails its checksum")]
    Checksum,
}

/// A frame within the bytes it was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Kind of the payload.
    pub kind: Kind,
    /// The payload.
    pub payload: &'a [u8],
    /// The frame's checksum: with the identity, the fingerprint of its content.
    pub crc: u32,
}

/// CRC-32C (Castagnoli) of `bytes`.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    #[cfg(feature = "std")]
    {
        crc32c::crc32c(bytes)
    }
    #[cfg(not(feature = "std"))]
    {
        const ENGINE: crc::Crc<u32, crc::Table<1>> =
            crc::Crc::<u32, crc::Table<1>>::new(&crc::CRC_32_ISCSI);
        ENGINE.checksum(bytes)
    }
}

/// Bytes of the frame around a payload of `payload_len`.
#[must_use]
pub const fn encoded_len(payload_len: usize) -> usize {
    2 + varint::len(payload_len as u64) + payload_len + 4
}

/// Writes one frame at the start of `out`; returns its length.
///
/// # Errors
/// [`NoRoom`] if `out` is shorter than [`encoded_len`] or the payload is above
/// [`MAX_PAYLOAD_BYTES`].
pub fn encode(kind: Kind, payload: &[u8], out: &mut [u8]) -> Result<usize, NoRoom> {
    let total = encoded_len(payload.len());
    if payload.len() > MAX_PAYLOAD_BYTES {
        return Err(NoRoom);
    }
    let out = out.get_mut(..total).ok_or(NoRoom)?;
    out[0] = VERSION;
    out[1] = kind.to_u8();
    let mut at = 2;
    varint::put(out, &mut at, payload.len() as u64)?;
    out[at..total - 4].copy_from_slice(payload);
    let crc = crc32c(&out[..total - 4]);
    out[total - 4..].copy_from_slice(&crc.to_le_bytes());
    Ok(total)
}

/// Appends one frame to `out`.
///
/// # Errors
/// [`NoRoom`] if the payload is above [`MAX_PAYLOAD_BYTES`].
#[cfg(feature = "alloc")]
pub fn append(kind: Kind, payload: &[u8], out: &mut alloc::vec::Vec<u8>) -> Result<(), NoRoom> {
    let start = out.len();
    out.resize(start + encoded_len(payload.len()), 0);
    match encode(kind, payload, &mut out[start..]) {
        Ok(_) => Ok(()),
        Err(error) => {
            out.truncate(start);
            Err(error)
        }
    }
}

/// Reads the frame at the start of `bytes`; returns it and its whole length.
///
/// # Errors
/// [`FrameError`]. The checksum is checked before kind and version: damage is never mistaken for a newer
/// format.
pub fn decode(bytes: &[u8]) -> Result<(Frame<'_>, usize), FrameError> {
    let &[version, kind, ..] = bytes else {
        return Err(FrameError::Short);
    };
    let mut at = 2;
    let len = match varint::get(bytes, &mut at) {
        Some(len) => usize::try_from(len).map_err(|_| FrameError::Length)?,
        None if bytes.len() < 2 + 4 => return Err(FrameError::Short),
        None => return Err(FrameError::Length),
    };
    if len > MAX_PAYLOAD_BYTES {
        return Err(FrameError::Length);
    }
    let end = at + len;
    let sum = bytes.get(end..end + 4).ok_or(FrameError::Short)?;
    let crc = crc32c(&bytes[..end]);
    if sum != crc.to_le_bytes() {
        return Err(FrameError::Checksum);
    }
    if version != VERSION {
        return Err(FrameError::Version(version));
    }
    let kind = Kind::from_u8(kind).ok_or(FrameError::Kind(kind))?;
    Ok((
        Frame {
            kind,
            payload: &bytes[at..end],
            crc,
        },
        end + 4,
    ))
}

/// Walks the frames of a payload; stops after the first error.
#[derive(Debug, Clone)]
pub struct Frames<'a> {
    rest: &'a [u8],
}

impl<'a> Frames<'a> {
    /// Over `bytes`, which hold frames back to back.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Frames<'a> {
    /// The frame, with its encoded bytes.
    type Item = Result<(Frame<'a>, &'a [u8]), FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match decode(self.rest) {
            Ok((frame, len)) => {
                let (whole, rest) = self.rest.split_at(len);
                self.rest = rest;
                Some(Ok((frame, whole)))
            }
            Err(error) => {
                self.rest = &[];
                Some(Err(error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_version_2_are_frozen() {
        let mut out = [0u8; 32];
        let len = encode(Kind::Batch, b"abc", &mut out).unwrap();
        assert_eq!(out[..len], [2, 1, 3, b'a', b'b', b'c', 17, 166, 186, 128]);
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        let mut out = [0u8; 32];
        let len = encode(Kind::Gap, b"some payload", &mut out).unwrap();
        assert_eq!(decode(&out[..len]).unwrap().0.payload, b"some payload");
        for bit in 0..len * 8 {
            let mut damaged = out;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged[..len]).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_cut_frame_is_short_or_refused_and_never_read_past_its_end() {
        let mut out = [0u8; 400];
        let len = encode(Kind::Text, &[7; 300], &mut out).unwrap();
        for cut in 0..len {
            assert!(decode(&out[..cut]).is_err());
        }
    }

    #[test]
    fn the_largest_payload_takes_the_most_overhead_and_a_larger_one_is_refused() {
        let payload = std::vec![7; MAX_PAYLOAD_BYTES + 1];
        let mut out = std::vec![0; MAX_PAYLOAD_BYTES + MAX_OVERHEAD_BYTES];
        let len = encode(Kind::Blob, &payload[1..], &mut out).unwrap();
        assert_eq!(len, MAX_PAYLOAD_BYTES + MAX_OVERHEAD_BYTES);
        assert_eq!(decode(&out).unwrap().0.payload.len(), MAX_PAYLOAD_BYTES);
        out.push(0);
        assert_eq!(encode(Kind::Blob, &payload, &mut out), Err(NoRoom));
    }
}
