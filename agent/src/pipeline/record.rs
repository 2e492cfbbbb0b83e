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
//! | 1 | flags: 1 cursor, 2 live source, 4 schema, 8 last time, 16 epoch, 32 synchronised, 64 times count from the boot, 128 error of the clock |
//! | varint, n | name of the source; empty when the agent itself made the record |
//! | 8 | with flag 16: epoch, little-endian, for a segment whose snapshot is lost |
//! | 8 | with flags 16 and 64: boot of the epoch, little-endian |
//! | 1 | with flag 128: the clock was off by at most two to this power, milliseconds; 32 stands for `u32::MAX` |
//! | 3 varints | with flag 1: cursor (major, minor, tag) |
//! | 1, varints | with flag 1: where that begins which the cursor covers: 0 at the source's start; 1 in the same major, how far before the cursor (1 varint), tag; 2 cursor (3 varints) |
//! | varint | with flag 8: zigzag of the last sample's time, microseconds |
//! | varint, varint, n | with flag 4: number, length and bytes of a schema first used here |
//! | rest | the frame, as it will be sent |
//!
//! A segment's snapshot:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version, now 4 |
//! | 8 | epoch, little-endian |
//! | 8 | boot in which the epoch was written, little-endian; 0 if unknown |
//! | 1 | 0: times count from the Unix epoch, 1: from the boot |
//! | varint | sequence number of the segment's first record |
//! | varint, each: | sources known to the lane |
//! | | name (varint, n) · flags (1 cursor, 2 live, 4 unclean, 8 last time, 16 unclean since) · cursor · last time · unclean since |
//! | varint, each: | earlier epochs that have ended |
//! | | epoch (8) · first · next (varints) · epoch (8) and number of the record that says so |
//! | varint, each: | boots whose uptime was tied to wall time, of this device and of nodes |
//! | | device (varint, n) · boot (8) · epoch (8) and number (varint) of the record that says so |
//! | varint, each: | schemas in use |
//! | | number · length (varints) · bytes |

use headwater_proto::bundle::Stamps;
use headwater_proto::codec::BatchHeader;
use headwater_proto::frame::{self, Kind};
use headwater_proto::ids::{DeviceId, Epoch, SeqRange};
pub use headwater_proto::portion::{Cursor, MAX_SOURCE_BYTES};
use headwater_proto::text::TextHeader;
use headwater_proto::time::{Base, UnixMicros};
use headwater_proto::varint::{self, MAX_VARINT_BYTES};

mod from;

use from::{Reader, put_from};

/// The snapshot version this build writes and reads.
pub const SNAPSHOT_VERSION: u8 = 4;
/// Most sources of one agent.
pub const MAX_SOURCES: usize = 64;
/// Most ended epochs that a snapshot lists; more than a spool of the default size has segments.
pub const MAX_ENDED: usize = 1024;
/// Most schemas that a snapshot lists.
pub const MAX_SNAPSHOT_SCHEMAS: usize = 256;
/// Most boots whose time base a snapshot lists, of all devices.
pub const MAX_BASES: usize = 192;
/// Most of one device: a collector keeps no more.
pub const MAX_BASES_OF_ONE: usize = 16;

const CURSOR: u8 = 1;
const LIVE: u8 = 2;
const SCHEMA: u8 = 4;
const LAST: u8 = 8;
const EPOCH: u8 = 16;
const SYNCED: u8 = 32;
const UPTIME: u8 = 64;
const ERROR: u8 = 128;
const UNCLEAN: u8 = 4;
const SINCE: u8 = 16;
/// The power of two that stands for `u32::MAX`.
const MOST_POWER: u8 = 32;

/// Where a source stopped that an agent may have under another name now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stray {
    /// The name that it had.
    pub name: String,
    /// Its highest durable cursor.
    pub cursor: Cursor,
    /// Who says so.
    pub said_by: SaidBy,
}

/// Who says where a source stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaidBy {
    /// A spool.
    Spool,
    /// The collector.
    Collector {
        /// It holds nothing later of that source.
        is_last: bool,
        /// A source of the settings has that name: it is for that one alone.
        is_taken: bool,
    },
}

/// Why bytes are not a record or snapshot of this build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a {what} of this spool format")]
pub struct Malformed {
    /// `record` or `snapshot`.
    pub what: &'static str,
}

/// In which boot an epoch was written, and where the times of its records count from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// The boot; 0 if it is no longer known.
    pub boot: u64,
    /// Where times count from.
    pub base: Base,
}

/// What stands in front of a record's frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// Its number in its epoch.
    pub seq: u64,
    /// Its epoch, where the record does not live in memory only.
    pub epoch: Option<Epoch>,
    /// Its epoch's life. Of the boot only that of an epoch is kept whose times count from it.
    pub life: Life,
    /// How good the wall clock was when the rows were read; the error is a power of two.
    pub stamps: Stamps,
    /// The source; empty when the agent itself made the record.
    pub source: &'a str,
    /// Where the source resumes after this record.
    pub cursor: Option<Cursor>,
    /// With a cursor: where it stood before the record; `None`: it had read nothing of its content.
    pub from: Option<Cursor>,
    /// The source loses what is not durable at a kill: that is named by time.
    pub live: bool,
    /// Wall time up to which all that its lane had taken is in this record or one before it; `None` where no
    /// clock knew.
    pub stored_to: Option<UnixMicros>,
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
            | flag(self.stored_to.is_some(), LAST)
            | flag(self.epoch.is_some(), EPOCH)
            | flag(self.stamps.synced, SYNCED)
            | flag(self.life.base == Base::Uptime, UPTIME)
            | flag(self.stamps.error_ms.is_some(), ERROR);
        out.push(flags);
        put_bytes(out, self.source.as_bytes());
        if let Some(epoch) = self.epoch {
            out.extend_from_slice(&epoch.get().to_le_bytes());
            if self.life.base == Base::Uptime {
                out.extend_from_slice(&self.life.boot.to_le_bytes());
            }
        }
        if let Some(error_ms) = self.stamps.error_ms {
            out.push(power_of(error_ms));
        }
        if let Some(cursor) = self.cursor {
            put_cursor(out, cursor);
            put_from(out, self.from, cursor);
        }
        if let Some(time) = self.stored_to {
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
    let mut from = Reader::of(payload);
    read_envelope(&mut from).ok_or(Malformed { what: "record" })
}

fn read_envelope<'a>(from: &mut Reader<'a>) -> Option<Envelope<'a>> {
    let seq = from.varint()?;
    let flags = from.byte()?;
    let source = from.name()?;
    let epoch = if flags & EPOCH != 0 {
        Some(from.epoch()?)
    } else {
        None
    };
    let life = if flags & UPTIME == 0 {
        Life {
            boot: 0,
            base: Base::Wall,
        }
    } else {
        Life {
            boot: if epoch.is_some() { from.fixed()? } else { 0 },
            base: Base::Uptime,
        }
    };
    let error_ms = if flags & ERROR != 0 {
        Some(of_power(from.byte()?)?)
    } else {
        None
    };
    let (mut cursor, mut before) = (None, None);
    if flags & CURSOR != 0 {
        let to = from.cursor()?;
        (cursor, before) = (Some(to), from.from(to)?);
    }
    let stored_to = if flags & LAST != 0 {
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
        life,
        stamps: Stamps {
            synced: flags & SYNCED != 0,
            error_ms,
        },
        source,
        cursor,
        from: before,
        live: flags & LIVE != 0,
        stored_to,
        schema,
        frame,
    })
}

/// The number of the schema that a batch's frame needs, or of a text's dictionary.
#[must_use]
pub fn schema_of(frame: &[u8]) -> Option<u32> {
    let (frame, _) = frame::decode(frame).ok()?;
    if frame.kind == Kind::Text {
        return TextHeader::read(frame.payload)?.0.dictionary;
    }
    if frame.kind != Kind::Batch {
        return None;
    }
    let header = BatchHeader::peek(frame.payload).ok()?;
    Some(header.schema_no)
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
    /// Wall time up to which all that its lane had taken of it is durable; `None` where no clock knew.
    pub stored_to: Option<UnixMicros>,
    /// A stop that was not clean is still to be named.
    pub unclean: Option<Unclean>,
}

/// A stop that was not clean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unclean {
    /// From when on samples may be lost; `None` where no clock knew.
    pub since: Option<UnixMicros>,
}

/// A boot whose uptime a record ties to wall time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootBase {
    /// The device that booted: this one, or a node.
    pub device: DeviceId,
    /// Which one.
    pub boot: u64,
    /// The record: its epoch, and its number there.
    pub named_in: (Epoch, u64),
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
    /// Its life.
    pub life: Life,
    /// The number of its first record.
    pub first_seq: u64,
    /// Sources known to the lane.
    pub sources: Vec<SourceMark>,
    /// Earlier epochs that have ended and may still lie in the spool.
    pub ended: Vec<Ended>,
    /// Boots that a record of this lane dates.
    pub bases: Vec<BootBase>,
    /// Schemas in use: number and bytes.
    pub schemas: Vec<(u32, Vec<u8>)>,
}

impl Snapshot {
    /// Appends the snapshot's bytes to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(SNAPSHOT_VERSION);
        out.extend_from_slice(&self.epoch.get().to_le_bytes());
        out.extend_from_slice(&self.life.boot.to_le_bytes());
        out.push(flag(self.life.base == Base::Uptime, 1));
        put(out, self.first_seq);
        put(out, self.sources.len() as u64);
        for source in &self.sources {
            put_bytes(out, source.name.as_bytes());
            out.push(
                flag(source.cursor.is_some(), CURSOR)
                    | flag(source.live, LIVE)
                    | flag(source.unclean.is_some(), UNCLEAN)
                    | flag(source.stored_to.is_some(), LAST)
                    | flag(source.since().is_some(), SINCE),
            );
            if let Some(cursor) = source.cursor {
                put_cursor(out, cursor);
            }
            for time in [source.stored_to, source.since()].into_iter().flatten() {
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
        put(out, self.bases.len() as u64);
        for base in &self.bases {
            put_bytes(out, base.device.as_str().as_bytes());
            out.extend_from_slice(&base.boot.to_le_bytes());
            out.extend_from_slice(&base.named_in.0.get().to_le_bytes());
            put(out, base.named_in.1);
        }
        put(out, self.schemas.len() as u64);
        for (number, bytes) in &self.schemas {
            put(out, u64::from(*number));
            put_bytes(out, bytes);
        }
    }

    /// The version of a snapshot that another build may have written.
    #[must_use]
    pub fn version_of(bytes: &[u8]) -> Option<u8> {
        bytes.first().copied()
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
    let boot = from.fixed()?;
    let base = match from.byte()? {
        0 => Base::Wall,
        1 => Base::Uptime,
        _ => return None,
    };
    let first_seq = from.varint()?;
    let mut sources = Vec::new();
    for _ in 0..from.count(MAX_SOURCES)? {
        let name = from.name()?.to_owned();
        let flags = from.byte()?;
        let is_known = flags & !(CURSOR | LIVE | UNCLEAN | LAST | SINCE) == 0;
        if !is_known || flags & (UNCLEAN | SINCE) == SINCE {
            return None;
        }
        let cursor = if flags & CURSOR != 0 {
            Some(from.cursor()?)
        } else {
            None
        };
        let stored_to = if flags & LAST != 0 {
            Some(from.time()?)
        } else {
            None
        };
        let since = if flags & SINCE != 0 {
            Some(from.time()?)
        } else {
            None
        };
        sources.push(SourceMark {
            name,
            cursor,
            live: flags & LIVE != 0,
            stored_to,
            unclean: (flags & UNCLEAN != 0).then_some(Unclean { since }),
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
    let mut bases = Vec::new();
    for _ in 0..from.count(MAX_BASES)? {
        bases.push(BootBase {
            device: from.device()?,
            boot: from.fixed()?,
            named_in: (from.epoch()?, from.varint()?),
        });
    }
    let mut schemas = Vec::new();
    for _ in 0..from.count(MAX_SNAPSHOT_SCHEMAS)? {
        let number = u32::try_from(from.varint()?).ok()?;
        schemas.push((number, from.bytes()?.to_vec()));
    }
    (from.at == from.bytes.len()).then_some(Snapshot {
        epoch,
        life: Life { boot, base },
        first_seq,
        sources,
        ended,
        bases,
        schemas,
    })
}

impl SourceMark {
    fn since(&self) -> Option<UnixMicros> {
        self.unclean.and_then(|unclean| unclean.since)
    }
}

/// The least power of two, as its exponent, that is not below `ms`.
fn power_of(ms: u32) -> u8 {
    let exponent = ms
        .max(1)
        .checked_next_power_of_two()
        .map(u32::trailing_zeros);
    exponent
        .and_then(|exponent| u8::try_from(exponent).ok())
        .unwrap_or(MOST_POWER)
}

fn of_power(exponent: u8) -> Option<u32> {
    match exponent {
        MOST_POWER => Some(u32::MAX),
        0..MOST_POWER => Some(1 << exponent),
        _ => None,
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn full() -> Envelope<'static> {
        Envelope {
            seq: 300,
            epoch: Some(Epoch::new(0x0102)),
            life: Life {
                boot: 0x0304,
                base: Base::Uptime,
            },
            stamps: Stamps {
                synced: true,
                error_ms: Some(32),
            },
            source: "replay",
            cursor: Some(Cursor {
                major: 1,
                minor: 2,
                tag: 3,
            }),
            from: Some(Cursor {
                major: 1,
                minor: 1,
                tag: 4,
            }),
            live: true,
            stored_to: Some(UnixMicros(-2)),
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
            b"\xac\x02\xff\x06replay\x02\x01\0\0\0\0\0\0\x04\x03\0\0\0\0\0\0\x05\
              \x01\x02\x03\x01\x01\x04\x03\x05\x02scframe"
        );
    }

    #[test]
    fn the_bytes_of_a_snapshot_are_frozen() {
        let snapshot = Snapshot {
            epoch: Epoch::new(0x0102),
            life: Life {
                boot: 0x0304,
                base: Base::Uptime,
            },
            first_seq: 7,
            sources: vec![SourceMark {
                name: "a".into(),
                cursor: Some(Cursor {
                    major: 0,
                    minor: 9,
                    tag: 0,
                }),
                live: true,
                stored_to: Some(UnixMicros(1)),
                unclean: Some(Unclean {
                    since: Some(UnixMicros(2)),
                }),
            }],
            ended: vec![Ended {
                epoch: Epoch::new(3),
                range: SeqRange::new(0, 4),
                named_in: (Epoch::new(5), 6),
            }],
            bases: vec![BootBase {
                device: DeviceId::new("n").unwrap(),
                boot: 7,
                named_in: (Epoch::new(8), 9),
            }],
            schemas: vec![(1, b"xy".to_vec())],
        };
        let mut out = Vec::new();
        snapshot.encode(&mut out);
        assert_eq!(
            out,
            b"\x04\x02\x01\0\0\0\0\0\0\x04\x03\0\0\0\0\0\0\x01\
              \x07\x01\x01a\x1f\x00\x09\x00\x02\x04\
              \x01\x03\0\0\0\0\0\0\0\x00\x04\x05\0\0\0\0\0\0\0\x06\
              \x01\x01n\x07\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0\x09\x01\x01\x02xy"
        );
        assert_eq!(Snapshot::decode(&out), Ok(snapshot));
    }

    #[test]
    fn a_snapshot_of_a_later_version_is_refused() {
        let mut out = vec![SNAPSHOT_VERSION + 1];
        out.extend_from_slice(&[0; 32]);
        assert_eq!(Snapshot::decode(&out), Err(Malformed { what: "snapshot" }));
    }

    fn of_sizes(ended: usize, schemas: usize) -> Snapshot {
        let ended = (0..ended as u64).map(|number| Ended {
            epoch: Epoch::new(number),
            range: SeqRange::new(0, 1),
            named_in: (Epoch::new(0), number),
        });
        let schemas = (0..).take(schemas).map(|number| (number, Vec::new()));
        Snapshot {
            epoch: Epoch::new(1),
            life: Life {
                boot: 1,
                base: Base::Wall,
            },
            first_seq: 0,
            sources: Vec::new(),
            ended: ended.collect(),
            bases: Vec::new(),
            schemas: schemas.collect(),
        }
    }

    #[test]
    fn a_snapshot_that_lists_more_than_its_bounds_is_refused() {
        let read = |ended, schemas| {
            let snapshot = of_sizes(ended, schemas);
            let mut out = Vec::new();
            snapshot.encode(&mut out);
            Snapshot::decode(&out).map(|read| assert_eq!(read, snapshot))
        };
        let refused = Err(Malformed { what: "snapshot" });
        assert_eq!(read(MAX_ENDED, MAX_SNAPSHOT_SCHEMAS), Ok(()));
        assert_eq!(read(MAX_ENDED + 1, 0), refused);
        assert_eq!(read(0, MAX_SNAPSHOT_SCHEMAS + 1), refused);
    }

    #[test]
    fn an_error_is_kept_as_the_power_of_two_above_it() {
        for (ms, kept) in [
            (0, 1),
            (1, 1),
            (3, 4),
            (1 << 31, 1 << 31),
            ((1 << 31) + 1, u32::MAX),
        ] {
            assert_eq!(of_power(power_of(ms)), Some(kept), "{ms}");
        }
        assert_eq!(of_power(MOST_POWER + 1), None);
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
            seq: u64, source in "[a-z]{0,64}", cursor in cursors(), from in cursors(), live: bool, stored_to in times(),
            schema in proptest::option::of((any::<u32>(), any::<Vec<u8>>())), frame: Vec<u8>,
            epoch in proptest::option::of(any::<u64>()), boot: u64, synced: bool,
            power in proptest::option::of(0..=MOST_POWER),
        ) {
            let epoch = epoch.map(Epoch::new);
            let schema = schema.as_ref().map(|(n, b)| (*n, b.as_slice()));
            let life = match boot {
                0..0x8000_0000_0000_0000 => Life { boot: 0, base: Base::Wall },
                _ => Life { boot: epoch.map_or(0, |_| boot), base: Base::Uptime },
            };
            let stamps = Stamps { synced, error_ms: power.and_then(of_power) };
            let from = from.filter(|_| cursor.is_some());
            let record = Envelope { seq, epoch, life, stamps, source: &source, cursor, from, live, stored_to, schema, frame: &frame };
            let mut out = Vec::new();
            record.encode(&mut out);
            prop_assert_eq!(decode(&out), Ok(record));
        }

        #[test]
        fn decode_undoes_encode_of_a_snapshot(
            epoch: u64, first_seq: u64, boot: u64,
            sources in proptest::collection::vec(("[a-z]{0,64}", cursors(), any::<bool>(), times(), proptest::option::of(times())), 0..5),
            bases in proptest::collection::vec(any::<(u64, u64, u64)>(), 0..5),
            ended in proptest::collection::vec(any::<(u64, u64, u64, u64)>(), 0..5),
            schemas in proptest::collection::vec(any::<(u32, Vec<u8>)>(), 0..5),
        ) {
            let snapshot = Snapshot {
                epoch: Epoch::new(epoch),
                life: Life { boot, base: if boot % 2 == 0 { Base::Wall } else { Base::Uptime } },
                first_seq,
                sources: sources.into_iter().map(|(name, cursor, live, stored_to, unclean)| {
                    let unclean = unclean.map(|since| Unclean { since });
                    SourceMark { name, cursor, live, stored_to, unclean }
                }).collect(),
                bases: bases.into_iter().map(|(boot, e, at)| {
                    let device = DeviceId::new("node-7").unwrap();
                    BootBase { device, boot, named_in: (Epoch::new(e), at) }
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
