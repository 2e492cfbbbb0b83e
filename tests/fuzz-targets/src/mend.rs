//! Checksums made to fit, so that what lies behind them is reached: nearly no mutation of an input
//! leaves a CRC whole.

use headwater_proto::frame::{self, Kind, crc32c};
use headwater_proto::varint;
use headwater_spool::format::{
    FOOTER_BYTES, Footer, HEADER_BYTES, RECORD_HEADER_BYTES, RecordHeader, append_record,
    snapshot_crc,
};

/// Gives every frame that stands in `bytes`, back to back, its checksum. Returns how many frames
/// take a number.
pub fn frames(bytes: &mut [u8]) -> u16 {
    let (mut at, mut numbered) = (0, 0u16);
    loop {
        let mut end = at + 2;
        let Some(len) = bytes.get(end..).and_then(|_| varint::get(bytes, &mut end)) else {
            return numbered;
        };
        let Ok(len) = usize::try_from(len) else {
            return numbered;
        };
        let end = end.saturating_add(len);
        if len > frame::MAX_PAYLOAD_BYTES || end + 4 > bytes.len() {
            return numbered;
        }
        let crc = crc32c(&bytes[at..end]);
        bytes[end..end + 4].copy_from_slice(&crc.to_le_bytes());
        let kind = Kind::from_u8(bytes[at + 1]);
        numbered = numbered.wrapping_add(u16::from(kind.is_some_and(Kind::is_numbered)));
        at = end + 4;
    }
}

/// Writes `count` into the head frame that a bundle begins with, if it is whole, and mends it.
pub fn bundle_count(bytes: &mut [u8], count: u16) {
    let mut at = 2;
    let Some(len) = varint::get(bytes, &mut at).and_then(|len| usize::try_from(len).ok()) else {
        return;
    };
    let end = at.saturating_add(len);
    if len < 2 || end > bytes.len().saturating_sub(4) {
        return;
    }
    bytes[end - 2..end].copy_from_slice(&count.to_le_bytes());
    let crc = crc32c(&bytes[..end]);
    bytes[end..end + 4].copy_from_slice(&crc.to_le_bytes());
}

/// What of a segment file is mended; a bit each.
#[derive(Debug, Clone, Copy)]
pub struct Segment(pub u8);

impl Segment {
    const HEADER: u8 = 1;
    const SNAPSHOT: u8 = 2;
    const RECORDS: u8 = 4;
    const POSITIONS: u8 = 8;
    const FOOTER: u8 = 16;

    fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }

    /// Makes `bytes` the file of segment `id`, as far as its bits say.
    pub fn mend(self, id: u64, bytes: &mut [u8]) {
        if bytes.len() < HEADER_BYTES {
            return;
        }
        let snapshot = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]) as usize;
        let records_at = HEADER_BYTES.saturating_add(snapshot);
        if self.has(Self::HEADER) {
            bytes[..12].copy_from_slice(b"HWSPOOL\0\x01\0\0\0");
            bytes[16..24].copy_from_slice(&id.to_le_bytes());
            if self.has(Self::SNAPSHOT) && records_at <= bytes.len() {
                let crc = snapshot_crc(id, &bytes[HEADER_BYTES..records_at]);
                bytes[48..52].copy_from_slice(&crc.to_le_bytes());
            }
            let crc = crc32c(&bytes[..60]);
            bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        }
        let mut first = [0; 8];
        first.copy_from_slice(&bytes[24..32]);
        let (mut at, mut position) = (records_at, u64::from_le_bytes(first));
        if self.has(Self::RECORDS) {
            while let Some(head) = bytes.get(at..).and_then(RecordHeader::decode) {
                let Some(record) = bytes.get_mut(at..at + head.total()) else {
                    break;
                };
                let place = if self.has(Self::POSITIONS) {
                    position
                } else {
                    head.position
                };
                let mut whole = Vec::with_capacity(record.len());
                let payload = &record[RECORD_HEADER_BYTES..];
                append_record(&mut whole, id, place, head.kind, payload);
                record.copy_from_slice(&whole);
                at += whole.len();
                position = position.wrapping_add(1);
            }
        }
        let end = bytes.len().saturating_sub(FOOTER_BYTES);
        if self.has(Self::FOOTER) && at <= end {
            let footer = Footer {
                id,
                next: position,
                end: at as u64,
            };
            bytes[end..].copy_from_slice(&footer.encode());
        }
    }
}
