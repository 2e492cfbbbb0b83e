//! Core: the parts of a record's bytes, read; and where that begins which its cursor covers.

use headwater_proto::ids::{DeviceId, Epoch};
use headwater_proto::time::UnixMicros;
use headwater_proto::varint;

use super::{Cursor, MAX_SOURCE_BYTES, put, put_cursor};

/// Where that begins which a cursor covers.
const BEGINS: u8 = 0;
const SAME_MAJOR: u8 = 1;
const OTHER_MAJOR: u8 = 2;

/// Writes where that begins which a cursor covers.
pub(super) fn put_from(out: &mut Vec<u8>, from: Option<Cursor>, to: Cursor) {
    let Some(from) = from else {
        return out.push(BEGINS);
    };
    match to.minor.checked_sub(from.minor) {
        Some(before) if from.major == to.major => {
            out.push(SAME_MAJOR);
            put(out, before);
            put(out, from.tag);
        }
        _ => {
            out.push(OTHER_MAJOR);
            put_cursor(out, from);
        }
    }
}

/// What is read of a record or snapshot.
pub(super) struct Reader<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Reader<'a> {
    pub(super) const fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    pub(super) fn varint(&mut self) -> Option<u64> {
        varint::get(self.bytes, &mut self.at)
    }

    pub(super) fn count(&mut self, most: usize) -> Option<usize> {
        usize::try_from(self.varint()?)
            .ok()
            .filter(|count| *count <= most)
    }

    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.varint()?).ok()?;
        let end = self.at.checked_add(len)?;
        let bytes = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(bytes)
    }

    pub(super) fn name(&mut self) -> Option<&'a str> {
        let bytes = self.bytes()?;
        (bytes.len() <= MAX_SOURCE_BYTES).then(|| std::str::from_utf8(bytes).ok())?
    }

    pub(super) fn device(&mut self) -> Option<DeviceId> {
        DeviceId::new(std::str::from_utf8(self.bytes()?).ok()?).ok()
    }

    pub(super) fn cursor(&mut self) -> Option<Cursor> {
        Some(Cursor {
            major: self.varint()?,
            minor: self.varint()?,
            tag: self.varint()?,
        })
    }

    /// Where that begins which `to` covers.
    #[allow(clippy::option_option, reason = "the outer one says that it was read")]
    pub(super) fn from(&mut self, to: Cursor) -> Option<Option<Cursor>> {
        Some(match self.byte()? {
            BEGINS => None,
            SAME_MAJOR => Some(Cursor {
                major: to.major,
                minor: to.minor.checked_sub(self.varint()?)?,
                tag: self.varint()?,
            }),
            OTHER_MAJOR => Some(self.cursor()?),
            _ => return None,
        })
    }

    pub(super) fn time(&mut self) -> Option<UnixMicros> {
        Some(UnixMicros(varint::unzigzag(self.varint()?)))
    }

    pub(super) fn epoch(&mut self) -> Option<Epoch> {
        self.fixed().map(Epoch::new)
    }

    /// Eight bytes, little-endian.
    pub(super) fn fixed(&mut self) -> Option<u64> {
        let end = self.at + 8;
        let bytes = self.bytes.get(self.at..end)?.try_into().ok()?;
        self.at = end;
        Some(u64::from_le_bytes(bytes))
    }
}
