//! Core: the bytes of one record and of one segment snapshot in the agent's spool.
//!
//! Every record takes one sequence number of its lane's epoch. The spool numbers records by
//! position; the segment's snapshot ties its first position to an epoch and a sequence number.
//!
//! A record's payload:
//!
//! | bytes | what |
//! |---|---|
//! | varint | sequence number |
//! | 1 | flags: 1 cursor, 2 live source, 4 schema, 8 last time, 16 epoch |
//! | varint, n | name of the source; empty when the agent itself made the record |
//! | 8 | with flag 16: epoch, little-endian, for a segment whose snapshot is lost |
//! | 3 varints | with flag 1: cursor (major, minor, tag) |
//! | varint | with flag 8: zigzag of the last sample's time, microseconds |
//! | varint, varint, n | with flag 4: number, length and bytes of a schema first used here |
//! | rest | the frame, as it will be sent |
//!
//! A segment's snapshot:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version, now 1 |
//! | 8 | epoch, little-endian |
//! | varint | sequence number of the segment's first record |
//! | varint, each: | sources known to the lane |
//! | | name (varint, n) · flags (1 cursor, 2 live, 4 unclean since, 8 last time) · cursor · last time · unclean since |
//! | varint, each: | earlier epochs that have ended |
//! | | epoch (8) · first · next (varints) · epoch (8) and number of the record that says so |
//! | varint, each: | schemas in use |
//! | | number · length (varints) · bytes |

use headwater_proto::ids::{Epoch, SeqRange};
use headwater_proto::time::UnixMicros;
use headwater_proto::varint::{self, MAX_VARINT_BYTES};

/// The snapshot version this build writes and reads.
pub const SNAPSHOT_VERSION: u8 = 1;
/// Longest name of a source: it stands in every record.
pub const MAX_SOURCE_BYTES: usize = 64;
/// Most sources of one agent.
pub const MAX_SOURCES: usize = 64;
/// Most ended epochs that a snapshot lists; more than a spool of the default size has segments.
pub const MAX_ENDED: usize = 1024;
/// Most schemas that a snapshot lists.
pub const MAX_SNAPSHOT_SCHEMAS: usize = 256;

const CURSOR: u8 = 1;
const LIVE: u8 = 2;
const SCHEMA: u8 = 4;
const LAST: u8 = 8;
const EPOCH: u8 = 16;
const UNCLEAN: u8 = 4;

/// Where a resumable source stands, after the samples that it covers.
///
/// Ordered by `major`, then `minor`: a replay counts rows in `minor`; a followed file counts its
/// rotations in `major` and bytes in `minor`. `tag` is the source's own (an inode) and does not
/// order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    /// The coarse part.
    pub major: u64,
    /// The fine part.
    pub minor: u64,
    /// Anything the source needs to find its place again.
    pub tag: u64,
}

impl Cursor {
    /// Whether everything up to `other` is covered by this cursor too.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        (self.major, self.minor) >= (other.major, other.minor)
    }
}

/// Why bytes are not a record or snapshot of this build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a {what} of this spool format")]
pub struct Malformed {
    /// `record` or `snapshot`.
    pub what: &'static str,
}

/// What stands in front of a record's frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// Its number in its epoch.
    pub seq: u64,
    /// Its epoch, where the record does not live in memory only.
    pub epoch: Option<Epoch>,
    /// The source; empty when the agent itself made the record.
    pub source: &'a str,
    /// Where the source resumes after this record.
    pub cursor: Option<Cursor>,
    /// The source cannot resume: what it loses is named by time.
    pub live: bool,
    /// Time of the newest sample in the record.
    pub last_time: Option<UnixMicros>,
    /// A schema that is first used by this record.
    pub schema: Option<(u32, &'a [u8])>,
    /// The frame, as it will be sent.
    pub frame: &'a [u8],
}

impl Envelope<'_> {
    /// Appends the record's payload to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put(out, self.seq);
        let flags = flag(self.cursor.is_some(), CURSOR)
            | flag(self.live, LIVE)
            | flag(self.schema.is_some(), SCHEMA)
            | flag(self.last_time.is_some(), LAST)
            | flag(self.epoch.is_some(), EPOCH);
        out.push(flags);
        put_bytes(out, self.source.as_bytes());
        if let Some(epoch) = self.epoch {
            out.extend_from_slice(&epoch.get().to_le_bytes());
        }
        if let Some(cursor) = self.cursor {
            put_cursor(out, cursor);
        }
        if let Some(time) = self.last_time {
            put(out, varint::zigzag(time.0));
        }
        if let Some((number, bytes)) = self.schema {
            put(out, u64::from(number));
            put_bytes(out, bytes);
        }
        out.extend_from_slice(self.frame);
    }
}

/// Reads a record's payload.
///
/// # Errors
/// [`Malformed`]; never panics.
pub fn decode(payload: &[u8]) -> Result<Envelope<'_>, Malformed> {
    let mut from = Reader {
        bytes: payload,
        at: 0,
    };
    read_envelope(&mut from).ok_or(Malformed { what: "record" })
}

fn read_envelope<'a>(from: &mut Reader<'a>) -> Option<Envelope<'a>> {
    let seq = from.varint()?;
    let flags = from.byte()?;
    if flags & !(CURSOR | LIVE | SCHEMA | LAST | EPOCH) != 0 {
        return None;
    }
    let source = from.name()?;
    let epoch = if flags & EPOCH != 0 {
        Some(from.epoch()?)
    } else {
        None
    };
    let cursor = if flags & CURSOR != 0 {
        Some(from.cursor()?)
    } else {
        None
    };
    let last_time = if flags & LAST != 0 {
        Some(from.time()?)
    } else {
        None
    };
    let schema = if flags & SCHEMA != 0 {
        let number = u32::try_from(from.varint()?).ok()?;
        Some((number, from.bytes()?))
    } else {
        None
    };
    let frame = &from.bytes[from.at..];
    Some(Envelope {
        seq,
        epoch,
        source,
        cursor,
        live: flags & LIVE != 0,
        last_time,
        schema,
        frame,
    })
}

/// What a lane knows of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceMark {
    /// Its name.
    pub name: String,
    /// Where it resumes, if it can.
    pub cursor: Option<Cursor>,
    /// It cannot resume.
    pub live: bool,
    /// Time of its newest durable sample.
    pub last_time: Option<UnixMicros>,
    /// A stop that was not clean is still to be named, from this time on.
    pub unclean_since: Option<UnixMicros>,
}

/// An epoch that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Which one.
    pub epoch: Epoch,
    /// Its records: nothing beyond `next` may ever be sent.
    pub range: SeqRange,
    /// The record that says so: its epoch, and its number there.
    pub named_in: (Epoch, u64),
}

/// What a segment begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The epoch of all records in the segment.
    pub epoch: Epoch,
    /// The number of its first record.
    pub first_seq: u64,
    /// Sources known to the lane.
    pub sources: Vec<SourceMark>,
    /// Earlier epochs that have ended and may still lie in the spool.
    pub ended: Vec<Ended>,
    /// Schemas in use: number and bytes.
    pub schemas: Vec<(u32, Vec<u8>)>,
}

impl Snapshot {
    /// Appends the snapshot's bytes to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(SNAPSHOT_VERSION);
        out.extend_from_slice(&self.epoch.get().to_le_bytes());
        put(out, self.first_seq);
        put(out, self.sources.len() as u64);
        for source in &self.sources {
            put_bytes(out, source.name.as_bytes());
            out.push(
                flag(source.cursor.is_some(), CURSOR)
                    | flag(source.live, LIVE)
                    | flag(source.unclean_since.is_some(), UNCLEAN)
                    | flag(source.last_time.is_some(), LAST),
            );
            if let Some(cursor) = source.cursor {
                put_cursor(out, cursor);
            }
            for time in [source.last_time, source.unclean_since]
                .into_iter()
                .flatten()
            {
                put(out, varint::zigzag(time.0));
            }
        }
        put(out, self.ended.len() as u64);
        for ended in &self.ended {
            out.extend_from_slice(&ended.epoch.get().to_le_bytes());
            put(out, ended.range.first);
            put(out, ended.range.next);
            out.extend_from_slice(&ended.named_in.0.get().to_le_bytes());
            put(out, ended.named_in.1);
        }
        put(out, self.schemas.len() as u64);
        for (number, bytes) in &self.schemas {
            put(out, u64::from(*number));
            put_bytes(out, bytes);
        }
    }

    /// Reads a snapshot.
    ///
    /// # Errors
    /// [`Malformed`]; never panics, and allocates no more than the bytes justify.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut from = Reader { bytes, at: 0 };
        read_snapshot(&mut from).ok_or(Malformed { what: "snapshot" })
    }
}

fn read_snapshot(from: &mut Reader<'_>) -> Option<Snapshot> {
    if from.byte()? != SNAPSHOT_VERSION {
        return None;
    }
    let epoch = from.epoch()?;
    let first_seq = from.varint()?;
    let mut sources = Vec::new();
    for _ in 0..from.count(MAX_SOURCES)? {
        let name = from.name()?.to_owned();
        let flags = from.byte()?;
        if flags & !(CURSOR | LIVE | UNCLEAN | LAST) != 0 {
            return None;
        }
        let cursor = if flags & CURSOR != 0 {
            Some(from.cursor()?)
        } else {
            None
        };
        let last_time = if flags & LAST != 0 {
            Some(from.time()?)
        } else {
            None
        };
        let unclean_since = if flags & UNCLEAN != 0 {
            Some(from.time()?)
        } else {
            None
        };
        sources.push(SourceMark {
            name,
            cursor,
            live: flags & LIVE != 0,
            last_time,
            unclean_since,
        });
    }
    let mut ended = Vec::new();
    for _ in 0..from.count(MAX_ENDED)? {
        let epoch = from.epoch()?;
        let range = SeqRange::new(from.varint()?, from.varint()?);
        let named_in = (from.epoch()?, from.varint()?);
        ended.push(Ended {
            epoch,
            range,
            named_in,
        });
    }
    let mut schemas = Vec::new();
    for _ in 0..from.count(MAX_SNAPSHOT_SCHEMAS)? {
        let number = u32::try_from(from.varint()?).ok()?;
        schemas.push((number, from.bytes()?.to_vec()));
    }
    (from.at == from.bytes.len()).then_some(Snapshot {
        epoch,
        first_seq,
        sources,
        ended,
        schemas,
    })
}

fn flag(on: bool, bit: u8) -> u8 {
    if on { bit } else { 0 }
}

fn put(out: &mut Vec<u8>, value: u64) {
    let mut bytes = [0; MAX_VARINT_BYTES];
    let mut len = 0;
    varint::put(&mut bytes, &mut len, value).expect("the buffer holds any varint");
    out.extend_from_slice(&bytes[..len]);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_cursor(out: &mut Vec<u8>, cursor: Cursor) {
    for part in [cursor.major, cursor.minor, cursor.tag] {
        put(out, part);
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn varint(&mut self) -> Option<u64> {
        varint::get(self.bytes, &mut self.at)
    }

    fn count(&mut self, most: usize) -> Option<usize> {
        usize::try_from(self.varint()?)
            .ok()
            .filter(|count| *count <= most)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.varint()?).ok()?;
        let end = self.at.checked_add(len)?;
        let bytes = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(bytes)
    }

    fn name(&mut self) -> Option<&'a str> {
        let bytes = self.bytes()?;
        (bytes.len() <= MAX_SOURCE_BYTES).then(|| std::str::from_utf8(bytes).ok())?
    }

    fn cursor(&mut self) -> Option<Cursor> {
        Some(Cursor {
            major: self.varint()?,
            minor: self.varint()?,
            tag: self.varint()?,
        })
    }

    fn time(&mut self) -> Option<UnixMicros> {
        Some(UnixMicros(varint::unzigzag(self.varint()?)))
    }

    fn epoch(&mut self) -> Option<Epoch> {
        let end = self.at + 8;
        let bytes = self.bytes.get(self.at..end)?.try_into().ok()?;
        self.at = end;
        Some(Epoch::new(u64::from_le_bytes(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn full() -> Envelope<'static> {
        Envelope {
            seq: 300,
            epoch: Some(Epoch::new(0x0102)),
            source: "replay",
            cursor: Some(Cursor {
                major: 1,
                minor: 2,
                tag: 3,
            }),
            live: true,
            last_time: Some(UnixMicros(-2)),
            schema: Some((5, b"sc")),
            frame: b"frame",
        }
    }

    #[test]
    fn the_bytes_of_a_record_are_frozen() {
        let mut out = Vec::new();
        full().encode(&mut out);
        assert_eq!(
            out,
            b"\xac\x02\x1f\x06replay\x02\x01\0\0\0\0\0\0\x01\x02\x03\x03\x05\x02scframe"
        );
    }

    #[test]
    fn the_bytes_of_a_snapshot_are_frozen() {
        let snapshot = Snapshot {
            epoch: Epoch::new(0x0102),
            first_seq: 7,
            sources: vec![SourceMark {
                name: "a".into(),
                cursor: Some(Cursor {
                    major: 0,
                    minor: 9,
                    tag: 0,
                }),
                live: true,
                last_time: Some(UnixMicros(1)),
                unclean_since: Some(UnixMicros(2)),
            }],
            ended: vec![Ended {
                epoch: Epoch::new(3),
                range: SeqRange::new(0, 4),
                named_in: (Epoch::new(5), 6),
            }],
            schemas: vec![(1, b"xy".to_vec())],
        };
        let mut out = Vec::new();
        snapshot.encode(&mut out);
        assert_eq!(
            out,
            b"\x01\x02\x01\0\0\0\0\0\0\x07\x01\x01a\x0f\x00\x09\x00\x02\x04\
              \x01\x03\0\0\0\0\0\0\0\x00\x04\x05\0\0\0\0\0\0\0\x06\x01\x01\x02xy"
        );
        assert_eq!(Snapshot::decode(&out), Ok(snapshot));
    }

    #[test]
    fn a_snapshot_of_a_later_version_is_refused() {
        let mut out = vec![SNAPSHOT_VERSION + 1];
        out.extend_from_slice(&[0; 32]);
        assert_eq!(Snapshot::decode(&out), Err(Malformed { what: "snapshot" }));
    }

    fn cursors() -> impl Strategy<Value = Option<Cursor>> {
        proptest::option::of(any::<(u64, u64, u64)>())
            .prop_map(|c| c.map(|(major, minor, tag)| Cursor { major, minor, tag }))
    }

    fn times() -> impl Strategy<Value = Option<UnixMicros>> {
        proptest::option::of(any::<i64>().prop_map(UnixMicros))
    }

    proptest! {
        #[test]
        fn decode_undoes_encode_of_a_record(
            seq: u64, source in "[a-z]{0,64}", cursor in cursors(), live: bool, last_time in times(),
            schema in proptest::option::of((any::<u32>(), any::<Vec<u8>>())), frame: Vec<u8>,
            epoch in proptest::option::of(any::<u64>()),
        ) {
            let epoch = epoch.map(Epoch::new);
            let schema = schema.as_ref().map(|(n, b)| (*n, b.as_slice()));
            let record = Envelope { seq, epoch, source: &source, cursor, live, last_time, schema, frame: &frame };
            let mut out = Vec::new();
            record.encode(&mut out);
            prop_assert_eq!(decode(&out), Ok(record));
        }

        #[test]
        fn decode_undoes_encode_of_a_snapshot(
            epoch: u64, first_seq: u64,
            sources in proptest::collection::vec(("[a-z]{0,64}", cursors(), any::<bool>(), times(), times()), 0..5),
            ended in proptest::collection::vec(any::<(u64, u64, u64, u64)>(), 0..5),
            schemas in proptest::collection::vec(any::<(u32, Vec<u8>)>(), 0..5),
        ) {
            let snapshot = Snapshot {
                epoch: Epoch::new(epoch),
                first_seq,
                sources: sources.into_iter().map(|(name, cursor, live, last_time, unclean_since)| {
                    SourceMark { name, cursor, live, last_time, unclean_since }
                }).collect(),
                ended: ended.into_iter().map(|(e, first, next, at)| {
                    let named_in = (Epoch::new(e ^ 1), at);
                    Ended { epoch: Epoch::new(e), range: SeqRange::new(first, next), named_in }
                }).collect(),
                schemas,
            };
            let mut out = Vec::new();
            snapshot.encode(&mut out);
            prop_assert_eq!(Snapshot::decode(&out), Ok(snapshot));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = decode(&bytes);
            let _ = Snapshot::decode(&bytes);
        }
    }
}
