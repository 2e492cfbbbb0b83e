//! Core: a batch that is being gathered: lines by key, and the records that they become.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use headwater_proto::frame::crc32c;
use headwater_proto::ids::{DeviceId, SeqRange, Stream};
use headwater_proto::topic::shard_of;

use super::cut::{Cut, Encoding, Key};
use super::lines::{MAX_LINE_BYTES, lines_of};
use super::service::Record;
use crate::interpret::Interpreted;
use crate::pipeline::numbers::Numbers;
use crate::sink::Covers;

/// Bytes of lines after which a batch ends. All of it may come again after a crash, a megabyte as it is sent.
pub(super) const BATCH_BYTES: usize = 6 << 20;
/// Journal positions after which a batch ends.
pub(super) const BATCH_POSITIONS: u64 = 65_536;

/// Bytes at the end of a gzip member: CRC and length of its content (RFC 1952).
const GZIP_END: usize = 8;

/// Lines of one key that are no record yet.
#[derive(Debug, Default)]
struct Open {
    lines: Vec<u8>,
    parts: Vec<Part>,
}

/// Lines of one journal record, in a record of a service.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// Where they end.
    pub(super) end: usize,
    /// Numbers of which they are.
    covers: Arc<[(Stream, SeqRange)]>,
}

/// A record that is not answered yet.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) record: Record,
    /// Whose lines are in it: named, if the service never takes it.
    pub(super) parts: Vec<Part>,
    /// A call with it was begun.
    pub(super) was_sent: bool,
}

impl Part {
    /// A part of it.
    pub(super) fn until(&self, end: usize) -> Self {
        Self {
            end,
            covers: Arc::clone(&self.covers),
        }
    }
}

/// Numbers of which records have lines, as custody is told of them.
pub(super) fn numbers_of<'a>(
    records: impl IntoIterator<Item = &'a Pending>,
) -> Vec<(Stream, SeqRange)> {
    let mut numbers = Numbers::new();
    let parts = records.into_iter().flat_map(|record| &record.parts);
    for (stream, range) in parts.flat_map(|part| part.covers.iter()) {
        numbers.insert(stream, *range);
    }
    let listed = numbers.take().into_iter();
    let each = |(stream, ranges): (Stream, Vec<SeqRange>)| {
        ranges.into_iter().map(move |range| (stream.clone(), range))
    };
    listed.flat_map(each).collect()
}

/// A batch that grows.
#[derive(Debug)]
pub(super) struct Draft {
    encoding: Encoding,
    begin: u64,
    /// Where it has to end, if it was cut before.
    fixed: Option<Cut>,
    open: BTreeMap<Arc<str>, Open>,
    sealed: Vec<Pending>,
    line_bytes: usize,
    covers: Covers,
}

/// A batch whose end is settled.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) cut: Cut,
    /// In the order of each key.
    pub(super) records: Vec<Pending>,
    pub(super) covers: Covers,
    /// Its records in the journal are not what they were when it was cut.
    pub(super) is_broken: bool,
}

/// One line is longer than any record may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a line of {0} bytes is longer than the {MAX_LINE_BYTES} that a record holds")]
pub(super) struct LineTooLong(usize);

impl Draft {
    pub(super) fn new(begin: u64, encoding: Encoding) -> Self {
        Self {
            encoding,
            begin,
            fixed: None,
            open: BTreeMap::new(),
            sealed: Vec::new(),
            line_bytes: 0,
            covers: Covers::default(),
        }
    }

    /// A batch that was cut before, to be made again.
    pub(super) fn again(cut: Cut) -> Self {
        Self {
            fixed: Some(cut),
            ..Self::new(cut.begin, cut.encoding)
        }
    }

    /// Whether a batch that was cut before is not whole at `position`.
    pub(super) fn lacks(&self, position: u64) -> bool {
        self.fixed.is_some_and(|cut| position < cut.end)
    }

    /// Whether it is whole, all below `position` being taken.
    pub(super) fn is_full(&self, position: u64) -> bool {
        match self.fixed {
            Some(cut) => position >= cut.end,
            None => {
                self.line_bytes >= BATCH_BYTES
                    || position.saturating_sub(self.begin) >= BATCH_POSITIONS
            }
        }
    }

    /// Whether a record belongs to the batch after it.
    pub(super) fn ends_before(&self, record: u64) -> bool {
        self.fixed.is_some_and(|cut| record >= cut.end)
    }

    pub(super) const fn is_again(&self) -> bool {
        self.fixed.is_some()
    }

    /// Adds what a record says.
    ///
    /// # Errors
    /// [`LineTooLong`]; nothing of the record was added.
    pub(super) fn add(&mut self, item: &Interpreted<'_>) -> Result<(), LineTooLong> {
        // Nothing of a record is taken before all its lines are seen to be short enough.
        let (mut text, mut lines) = (Vec::new(), Vec::<(Arc<str>, usize)>::new());
        let (mut longest, mut last) = (0, None::<(DeviceId, Arc<str>)>);
        lines_of(item, |device, line| {
            longest = longest.max(line.len());
            text.extend_from_slice(line);
            let is_last = |(of, _): &(DeviceId, _)| of == device;
            let (_, key) = match last.take().filter(is_last) {
                Some(known) => last.insert(known),
                None => last.insert((device.clone(), self.key(device))),
            };
            lines.push((Arc::clone(key), text.len()));
        });
        if longest > MAX_LINE_BYTES {
            return Err(LineTooLong(longest));
        }
        let covers = Arc::from(item.covers);
        let mut begin = 0;
        for (key, end) in lines {
            self.line(&covers, key, &text[begin..end]);
            begin = end;
        }
        self.covers.add(item.covers);
        Ok(())
    }

    fn key(&self, device: &DeviceId) -> Arc<str> {
        match self.encoding.key {
            Key::Group => format!("{:02x}", shard_of(device)).into(),
            Key::Device => device.as_str().into(),
            Key::Nothing => "".into(),
        }
    }

    fn line(&mut self, covers: &Arc<[(Stream, SeqRange)]>, key: Arc<str>, line: &[u8]) {
        self.line_bytes += line.len();
        let is_over = |open: &Open| {
            !open.lines.is_empty()
                && open.lines.len() + line.len() > self.encoding.record_bytes as usize
        };
        if self.open.get(&key).is_some_and(is_over)
            && let Some(open) = self.open.remove(&key)
        {
            self.sealed.push(seal(Arc::clone(&key), open));
        }
        let open = self.open.entry(key).or_default();
        open.lines.extend_from_slice(line);
        let end = open.lines.len();
        match open.parts.last_mut() {
            Some(part) if Arc::ptr_eq(&part.covers, covers) => part.end = end,
            _ => open.parts.push(Part {
                end,
                covers: Arc::clone(covers),
            }),
        }
    }

    /// Where it ends, all below `position` being taken.
    pub(super) fn end(&self, position: u64) -> u64 {
        self.fixed.map_or(position, |cut| cut.end)
    }

    /// Ends it, all below `position` being taken.
    pub(super) fn cut(self, position: u64) -> Batch {
        let end = self.end(position);
        let mut records = self.sealed;
        records.extend(self.open.into_iter().map(|(key, open)| seal(key, open)));
        let cut = Cut {
            begin: self.begin,
            end,
            encoding: self.encoding,
            checksum: checksum(&records),
        };
        Batch {
            is_broken: self.fixed.is_some_and(|fixed| fixed != cut),
            cut,
            records,
            covers: self.covers,
        }
    }
}

fn seal(key: Arc<str>, open: Open) -> Pending {
    let bytes = compress(&open.lines);
    Pending {
        record: Record { key, bytes },
        parts: open.parts,
        was_sent: false,
    }
}

/// A gzip member. Its size is at most that of the lines and 5 bytes for each 16 KiB of them, beside 18.
pub(super) fn compress(lines: &[u8]) -> Bytes {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    // Memory does not fail.
    let _ = gzip.write_all(lines);
    gzip.finish().unwrap_or_default().into()
}

/// Of the lines of records: over the CRC and length of them with which each gzip member ends, so that another version
/// of the compressor makes the same.
fn checksum(records: &[Pending]) -> u64 {
    let ends = records
        .iter()
        .filter_map(|pending| pending.record.bytes.last_chunk::<GZIP_END>());
    let ends: Vec<u8> = ends.flatten().copied().collect();
    crc32c(&ends).into()
}
