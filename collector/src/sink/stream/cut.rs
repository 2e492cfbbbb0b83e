//! Core: what is durable of a batch before its first call. After a crash the batch is made again from this and
//! the journal alone: the same lines in the same records.

use serde::{Deserialize, Serialize};

/// Version of how a batch is encoded: its lines, how they are cut into records, and how these are compressed.
pub(super) const FORMAT: u8 = 1;

/// By what records are kept in order, and shared among the shards of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Key {
    /// One of 64 groups, the one in the device's topic: few records, each of many devices.
    Group,
    /// The device.
    Device,
    /// Nothing: a service without keys.
    Nothing,
}

/// How a batch is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encoding {
    /// By what its lines are shared among records.
    pub key: Key,
    /// Bytes of lines in a record at most, before they are compressed.
    pub record_bytes: u32,
}

/// A batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cut {
    /// The first position of it.
    pub(super) begin: u64,
    /// The first position after it.
    pub(super) end: u64,
    pub(super) encoding: Encoding,
    /// Of its lines, in the order in which they were made: records that rot since make other ones.
    pub(super) checksum: u64,
}

impl Cut {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        bytes.extend_from_slice(&self.end.to_le_bytes());
        let bytes = postcard::to_extend(self, bytes);
        // Memory does not fail, and every field can be written.
        bytes.unwrap_or_default()
    }

    /// Where a batch ends, in whatever format it was cut.
    pub(super) fn end_of(bytes: &[u8]) -> Option<u64> {
        let end = bytes.get(1..1 + size_of::<u64>())?;
        Some(u64::from_le_bytes(end.try_into().ok()?))
    }

    /// `None` if the bytes are none of this build's.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let cut: Self = postcard::from_bytes(bytes.get(1 + size_of::<u64>()..)?).ok()?;
        (bytes.first() == Some(&FORMAT)).then_some(cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_is_read_as_it_was_written_and_another_format_is_not() {
        let cut = Cut {
            begin: 7,
            end: 1 << 40,
            encoding: Encoding {
                key: Key::Device,
                record_bytes: 1_000_000,
            },
            checksum: u64::MAX,
        };
        let mut bytes = cut.encode();
        assert_eq!(Cut::decode(&bytes), Some(cut));
        for length in 0..bytes.len() {
            assert_eq!(Cut::decode(&bytes[..length]), None);
        }
        bytes[0] += 1;
        assert_eq!(Cut::decode(&bytes), None);
        assert_eq!(Cut::end_of(&bytes), Some(cut.end), "in every format");
    }
}
