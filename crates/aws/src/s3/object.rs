//! An object that is read by parts: its end first, where a Parquet file tells what is in it.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use headwater_lake::store::ReadAt;
use headwater_lake::{StoreError, Tag};

use super::attempt::{Failed, Kind};
use super::{Shared, body};

/// Bytes of the end that are read at once; most objects of a lake are smaller.
const END_BYTES: u64 = 256 << 10;

/// Bytes that are read at least beyond the end, for readers go on from where they were.
const AHEAD_BYTES: u64 = 1 << 20;

/// Opens the object with one request.
pub(super) fn open(shared: &Arc<Shared>, path: &str) -> Result<Arc<dyn ReadAt>, StoreError> {
    let range = format!("bytes=-{END_BYTES}");
    let read = shared.request((Kind::Get, "open", path), |line| {
        body::part(line, range.clone(), None)
    });
    let (tag, size, end) = match read {
        Ok((tag, size, end)) => (Some(tag), size, end),
        // It is empty.
        Err(Failed::NoRange { .. }) => (None, 0, Bytes::new()),
        Err(error) => return Err(error.into()),
    };
    Ok(Arc::new(Object {
        shared: Arc::clone(shared),
        path: path.to_owned(),
        tag,
        size,
        end: Part {
            from: size.saturating_sub(end.len() as u64),
            bytes: end,
        },
        ahead: Mutex::default(),
    }))
}

struct Object {
    shared: Arc<Shared>,
    path: String,
    tag: Option<Tag>,
    size: u64,
    end: Part,
    /// Read last.
    ahead: Mutex<Part>,
}

/// Bytes of an object from a place on.
#[derive(Debug, Clone, Default)]
struct Part {
    from: u64,
    bytes: Bytes,
}

impl Part {
    fn get(&self, offset: u64, len: usize) -> Option<Bytes> {
        let from = usize::try_from(offset.checked_sub(self.from)?).ok()?;
        let to = from.checked_add(len)?;
        (to <= self.bytes.len()).then(|| self.bytes.slice(from..to))
    }
}

/// The first and the last of the bytes that are asked for with `len` from `offset`; what begins at `end` is known.
fn span(offset: u64, len: usize, end: u64) -> (u64, u64) {
    let next = offset.saturating_add(len as u64);
    let ahead = offset.saturating_add(AHEAD_BYTES).min(end);
    (offset, next.max(ahead).saturating_sub(1))
}

impl ReadAt for Object {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        if len == 0 {
            return Ok(Bytes::new());
        }
        let ends = offset.checked_add(len as u64);
        if ends.is_none_or(|ends| ends > self.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = self.end.get(offset, len).or_else(|| ahead.get(offset, len)) {
            return Ok(bytes);
        }
        let (first, last) = span(offset, len, self.end.from);
        let request = (Kind::Get, "read", self.path.as_str());
        let read = self.shared.request(request, |line| {
            body::part(line, format!("bytes={first}-{last}"), self.tag.clone())
        });
        let (_, _, bytes) = read.map_err(|error| io::Error::other(StoreError::from(error)))?;
        *ahead = Part { from: first, bytes };
        ahead
            .get(offset, len)
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_whole_and_stops_at_what_is_known() {
        let mib = AHEAD_BYTES;
        assert_eq!(span(0, 10, 10 * mib), (0, mib - 1));
        // More than is read ahead.
        assert_eq!(span(5, 3 << 20, 10 * mib), (5, 4 + 3 * mib));
        // The end is known.
        assert_eq!(span(mib, 10, mib + 20), (mib, mib + 19));
        // Across where the end begins.
        assert_eq!(span(mib, 50, mib + 20), (mib, mib + 49));
    }

    #[test]
    fn a_part_gives_what_it_has() {
        let part = Part {
            from: 10,
            bytes: Bytes::from_static(b"abc"),
        };
        assert_eq!(part.get(11, 2).as_deref(), Some(&b"bc"[..]));
        assert_eq!(part.get(9, 1), None);
        assert_eq!(part.get(12, 2), None);
    }
}
