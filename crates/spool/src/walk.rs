//! Walking over the records of one segment file, through a bounded buffer.

use std::io;
use std::ops::Range;

use crate::disk::DiskFile;
use crate::format::{RECORD_HEADER_BYTES, RecordHeader};

/// Bytes read ahead: large enough for few calls, small enough for a 64 MB device.
const CHUNK_BYTES: usize = 64 << 10;
/// A buffer above this goes back to [`CHUNK_BYTES`] after the record that needed it.
const KEEP_BYTES: usize = 1 << 20;
/// `EIO`: the medium cannot give these bytes, however often it is asked.
const MEDIUM_ERROR: i32 = 5;
/// How often the bytes of a segment are checked in vain at most, in search of a record behind damage.
/// Payloads are anybody's: without a bound, one made of headers that promise long records would
/// cost a start, once a bit before it has flipped, the square of a segment's length. What lies
/// behind the bound counts as damaged.
const VAIN_CHECKS: u64 = 4;
/// Pieces in which a region with a medium error is read, so that little is lost.
const PIECE_BYTES: usize = 4 << 10;

/// What stands next in a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// A good record; its payload is [`Walk::payload`].
    Record { position: u64, kind: u8 },
    /// Positions whose records are damaged.
    Damaged(Range<u64>),
    /// Nothing more.
    End,
}

/// A place in a segment file.
pub(crate) struct Walk<F> {
    file: F,
    id: u64,
    /// Where the next record begins.
    offset: u64,
    /// Its position.
    expected: u64,
    end: u64,
    limit: u64,
    buffer: Vec<u8>,
    /// Offset of the buffer's first byte.
    start: u64,
    payload: Range<usize>,
    /// Bytes of what looked like records and proved to be none.
    vain: u64,
}

impl<F: DiskFile> Walk<F> {
    /// From the record `expected` at `offset` up to offset `end` and position `limit`.
    pub(crate) fn new(file: F, id: u64, offset: u64, expected: u64, end: u64, limit: u64) -> Self {
        Self {
            file,
            id,
            offset,
            expected,
            end,
            limit,
            buffer: Vec::new(),
            start: offset,
            payload: 0..0,
            vain: 0,
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn file(&self) -> &F {
        &self.file
    }

    /// Position of the next record.
    pub(crate) fn position(&self) -> u64 {
        self.expected
    }

    /// Offset of the next record.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The segment has grown.
    pub(crate) fn extend(&mut self, end: u64, limit: u64) {
        self.end = end;
        self.limit = limit;
    }

    /// Payload of the record that the last step gave.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.buffer[self.payload.clone()]
    }

    /// The next record, damage or end.
    pub(crate) fn step(&mut self) -> io::Result<Step> {
        if self.expected >= self.limit {
            return Ok(Step::End);
        }
        if let Some(record) = self.good_record(self.offset, self.expected)? {
            return Ok(self.take(&record));
        }
        let lost = self.expected;
        self.resync()?;
        Ok(if self.expected > lost {
            Step::Damaged(lost..self.expected)
        } else {
            Step::End
        })
    }

    /// The next record if it is good; a bad one ends the walk.
    pub(crate) fn step_strict(&mut self) -> io::Result<Step> {
        match self.good_record(self.offset, self.expected)? {
            Some(record) => Ok(self.take(&record)),
            None => Ok(Step::End),
        }
    }

    /// Passes over records before `position` without checking their payloads. Where a header's length may be
    /// damaged, since no header stands behind the record, that one is checked: from any position on the same is
    /// damaged.
    pub(crate) fn skip_to(&mut self, position: u64) -> io::Result<()> {
        let until = position.min(self.limit);
        // Offset of the record that was passed over last and not checked.
        let mut unchecked = None;
        loop {
            let head = self.header(self.offset)?;
            let follows = head.is_some_and(|head| head.position == self.expected);
            if self.expected >= until && (follows || unchecked.is_none()) {
                return Ok(());
            }
            if let Some(head) = head.filter(|_| follows) {
                unchecked = Some(self.offset);
                self.offset += head.total() as u64;
                self.expected += 1;
                continue;
            }
            if let Some(offset) = unchecked.take() {
                (self.offset, self.expected) = (offset, self.expected - 1);
            }
            // Damage: the careful way finds where to go on.
            if self.step()? == Step::End {
                return Ok(());
            }
        }
    }

    /// Looks for a record of a position among `likely` from the present offset on, where the header
    /// is lost.
    pub(crate) fn find_any(&mut self, likely: &Range<u64>) -> io::Result<bool> {
        while self.offset + RECORD_HEADER_BYTES as u64 <= self.end {
            if let Some(head) = self.header(self.offset)?
                && likely.contains(&head.position)
                && self.proves_good(self.offset, &head)?
            {
                self.expected = head.position;
                return Ok(true);
            }
            self.offset += 1;
        }
        Ok(false)
    }

    fn take(&mut self, record: &RecordHeader) -> Step {
        let at = self.index(self.offset) + RECORD_HEADER_BYTES;
        self.payload = at..at + record.len;
        self.offset += record.total() as u64;
        self.expected += 1;
        Step::Record {
            position: record.position,
            kind: record.kind,
        }
    }

    /// Goes to the next good record behind a bad one, or to the end. The bad one's length is tried
    /// first; if that is damaged too, every byte is.
    fn resync(&mut self) -> io::Result<()> {
        let (from, lost) = (self.offset, self.expected);
        let hop = self.header(from)?.map(|head| from + head.total() as u64);
        if let Some(at) = hop
            && self.resume_at(at, from, lost)?
        {
            return Ok(());
        }
        let mut at = from + 1;
        while at + RECORD_HEADER_BYTES as u64 <= self.end {
            if self.resume_at(at, from, lost)? {
                return Ok(());
            }
            at += 1;
        }
        self.offset = self.end;
        // Without a limit nobody knows how many records were there.
        self.expected = if self.limit == u64::MAX {
            lost
        } else {
            self.limit
        };
        Ok(())
    }

    fn resume_at(&mut self, at: u64, from: u64, lost: u64) -> io::Result<bool> {
        let Some(head) = self.header(at)? else {
            return Ok(false);
        };
        // No more records can be missing than fit between.
        let most = lost + (at - from) / RECORD_HEADER_BYTES as u64;
        let likely = head.position > lost
            && head.position < self.limit
            && head.position <= most.max(lost + 1);
        if !likely || !self.proves_good(at, &head)? {
            return Ok(false);
        }
        self.offset = at;
        self.expected = head.position;
        Ok(true)
    }

    /// Whether what looks like a record is one; within [`VAIN_CHECKS`].
    fn proves_good(&mut self, at: u64, head: &RecordHeader) -> io::Result<bool> {
        if self.vain > VAIN_CHECKS * self.end || at + head.total() as u64 > self.end {
            return Ok(false);
        }
        let good = self.good_record(at, head.position)?.is_some();
        if !good {
            self.vain += head.total() as u64;
        }
        Ok(good)
    }

    fn header(&mut self, at: u64) -> io::Result<Option<RecordHeader>> {
        if at + RECORD_HEADER_BYTES as u64 > self.end {
            return Ok(None);
        }
        Ok(self
            .view(at, RECORD_HEADER_BYTES)?
            .and_then(RecordHeader::decode))
    }

    fn good_record(&mut self, at: u64, position: u64) -> io::Result<Option<RecordHeader>> {
        let Some(head) = self.header(at)? else {
            return Ok(None);
        };
        if head.position != position || at + head.total() as u64 > self.end {
            return Ok(None);
        }
        let id = self.id;
        let fits = self
            .view(at, head.total())?
            .is_some_and(|record| head.fits(id, record));
        Ok(fits.then_some(head))
    }

    fn index(&self, at: u64) -> usize {
        usize::try_from(at - self.start).unwrap_or(usize::MAX)
    }

    /// The bytes `at..at + len`, read if they are not in the buffer; `None` beyond the file's end.
    fn view(&mut self, at: u64, len: usize) -> io::Result<Option<&[u8]>> {
        let held = at >= self.start && self.index(at) + len <= self.buffer.len();
        if !held {
            self.fill(at, len)?;
        }
        let from = self.index(at);
        Ok(self.buffer.get(from..from + len))
    }

    fn fill(&mut self, at: u64, len: usize) -> io::Result<()> {
        let left = usize::try_from(self.end.saturating_sub(at)).unwrap_or(usize::MAX);
        let want = len.max(CHUNK_BYTES.min(left));
        if self.buffer.capacity() > KEEP_BYTES && want <= CHUNK_BYTES {
            self.buffer = Vec::new();
        }
        self.start = at;
        self.buffer.resize(want, 0);
        let read = match self.file.read_at(&mut self.buffer, at) {
            Err(error) if error.raw_os_error() == Some(MEDIUM_ERROR) => {
                read_in_pieces(&self.file, &mut self.buffer, at)
            }
            other => other,
        };
        let read = read.inspect_err(|_| self.buffer.clear())?;
        self.buffer.truncate(read);
        Ok(())
    }
}

/// Reads around a medium error: what cannot be read counts as zeros, which no checksum fits.
fn read_in_pieces<F: DiskFile>(file: &F, out: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    for piece in out.chunks_mut(PIECE_BYTES) {
        match file.read_at(piece, offset + done as u64) {
            Ok(read) => {
                done += read;
                if read < piece.len() {
                    break;
                }
            }
            Err(error) if error.raw_os_error() == Some(MEDIUM_ERROR) => {
                piece.fill(0);
                done += piece.len();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::disk::FileSize;
    use crate::format::append_record;

    /// Bytes that count how often they are read.
    struct Counted {
        bytes: Vec<u8>,
        read: Arc<AtomicU64>,
    }

    impl DiskFile for Counted {
        fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
            let rest = &self.bytes[usize::try_from(offset).unwrap().min(self.bytes.len())..];
            let len = rest.len().min(out.len());
            out[..len].copy_from_slice(&rest[..len]);
            self.read.fetch_add(len as u64, Ordering::Relaxed);
            Ok(len)
        }
        fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
        fn allocate(&self, _: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
        fn truncate(&self, _: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
        fn sync_data(&self) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
        fn size(&self) -> io::Result<FileSize> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    #[test]
    fn from_every_position_on_the_same_records_are_damaged() {
        const RECORDS: u64 = 6;
        let (mut whole, mut starts) = (Vec::new(), Vec::new());
        for position in 0..RECORDS {
            starts.push(whole.len());
            append_record(&mut whole, 7, position, 1, &[0xa5; 40]);
        }
        let record = starts[1];
        let damaged = |bytes: &[u8], from| {
            let file = Counted {
                bytes: bytes.to_vec(),
                read: Arc::default(),
            };
            let mut walk = Walk::new(file, 7, 0, 0, bytes.len() as u64, RECORDS);
            walk.skip_to(from).unwrap();
            let mut lost: Vec<u64> = (from..walk.position()).collect();
            loop {
                match walk.step().unwrap() {
                    Step::Record { .. } => {}
                    Step::Damaged(positions) => lost.extend(positions),
                    Step::End => return lost,
                }
            }
        };
        // Every bit of a header, and one of a payload, of every record.
        for bit in (0..RECORD_HEADER_BYTES * 8 + 8).chain([record * 8 - 1]) {
            for (hit, start) in (0..RECORDS).zip(&starts) {
                let mut bytes = whole.clone();
                bytes[start + bit / 8] ^= 1 << (bit % 8);
                for from in 0..RECORDS {
                    let expected: Vec<u64> = (hit >= from).then_some(hit).into_iter().collect();
                    assert_eq!(
                        damaged(&bytes, from),
                        expected,
                        "bit {bit} of {hit} from {from}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_payload_of_headers_that_promise_much_costs_a_damaged_segment_no_more_than_its_length() {
        // Each promises a record of half the segment at the next position.
        let mut promise = [0; RECORD_HEADER_BYTES];
        promise[4..7].copy_from_slice(&[0, 0, 2]);
        promise[8] = 1;
        let mut bytes = Vec::new();
        append_record(&mut bytes, 7, 0, 1, &promise.repeat(16 * 1024));
        append_record(&mut bytes, 7, 1, 1, b"after it");
        // Damage in the length of the first record.
        bytes[5] ^= 1;
        let (len, read) = (bytes.len() as u64, Arc::new(AtomicU64::new(0)));
        let file = Counted {
            bytes,
            read: Arc::clone(&read),
        };
        let mut walk = Walk::new(file, 7, 0, 0, len, 2);
        assert_eq!(walk.step().unwrap(), Step::Damaged(0..2));
        assert_eq!(walk.step().unwrap(), Step::End);
        let read = read.load(Ordering::Relaxed);
        assert!(read < 8 * len, "{read} bytes read of {len}");
    }
}
