//! Up publishes of data: bundles back to back. Each is a head frame, then the frames that it numbers.
//!
//! ```text
//! publish: bundle+        bundle: [BundleHead frame] ([Schema frame] | [numbered frame])*
//! ```
//!
//! Numbered frames take `first`, `first + 1`, ... in order; schema frames take no number. Bundles of
//! one publish stand on their own, may be of several origins and lanes, and share the bound of one:
//! a receiver takes them in order, and one that is damaged ends the publish. Payload of the head:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version, now 2 |
//! | 1 | flags, see below |
//! | 1 | lane |
//! | 1, n | length of the origin's device id, the id |
//! | 8 | epoch, little-endian, below 2^63 |
//! | 8 | boot in which the epoch was written, little-endian; 0 if unknown |
//! | 1 to 10 | sequence number of the first numbered frame, LEB128 |
//! | 0 or 1 to 5 | with flag 16: most the records' times may be wrong by, milliseconds, LEB128 |
//! | 0 or 1 to 10 | with flag 8: uptime when it was sent, milliseconds, LEB128 |
//! | 0 or 8 | with flag 2: wall time when it was sent, microseconds since the Unix epoch, little-endian |
//! | 0 or 1 to 5 | with flag 2: most that may be wrong by, milliseconds, plus one, LEB128; 0: not known |
//! | 2 | count of numbered frames, little-endian; last and fixed, so that it can be filled in late |
//!
//! | flag | means |
//! |---|---|
//! | 1 | the epoch lives in RAM |
//! | 2 | the sender's wall time follows |
//! | 4 | the records' times count from the boot ([`Base::Uptime`]) |
//! | 8 | the epoch's boot is the one that runs, and its uptime follows |
//! | 16 | how far the records' wall times may be off is known, and follows |
//! | 32 | the records' wall times were taken from a synchronised clock |
//! | 128 | reserved for the short head of small nodes; refused, as all others are |

use crate::frame::{self, Frame, FrameError, Frames, Kind};
use crate::ids::{DeviceId, Epoch, Lane, MAX_DEVICE_ID_BYTES};
use crate::message::{MAX_SEQ, WallClock};
use crate::time::{Base, UnixMicros};
use crate::varint::{self, NoRoom};

/// The bundle version this build writes.
pub const VERSION: u8 = 2;
/// Most numbered frames in one bundle: bounds the work that one publish can ask for.
pub const MAX_RECORDS: u16 = 4096;
/// Most schema frames in one bundle.
pub const MAX_SCHEMAS: u16 = 256;
/// Most bytes of a head frame, its frame bytes counted.
pub const MAX_HEAD_BYTES: usize =
    3 + 1 + MAX_DEVICE_ID_BYTES + 8 + 8 + 10 + 5 + 10 + 8 + 5 + 2 + frame::MAX_OVERHEAD_BYTES;
/// Largest bundle unless a Welcome says otherwise, frames and head counted.
pub const DEFAULT_MAX_BUNDLE_BYTES: u32 = 256 * 1024;

const FLAG_RAM: u8 = 1;
const FLAG_WALL: u8 = 2;
const FLAG_UPTIME_BASE: u8 = 4;
const FLAG_UPTIME: u8 = 8;
const FLAG_STAMPS: u8 = 16;
const FLAG_SYNCED: u8 = 32;
const FLAGS: u8 = FLAG_RAM | FLAG_WALL | FLAG_UPTIME_BASE | FLAG_UPTIME | FLAG_STAMPS | FLAG_SYNCED;

/// What the head frame says about all frames of its bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleHead<const N: usize = MAX_DEVICE_ID_BYTES> {
    /// The device that made the records.
    pub origin: DeviceId<N>,
    /// Its lane.
    pub lane: Lane,
    /// The life of the writer that numbered them.
    pub epoch: Epoch,
    /// Number of the first numbered frame.
    pub first: u64,
    /// The epoch lives in RAM: its records are published without being synced.
    pub ram: bool,
    /// The boot in which the epoch was written; 0 if that is no longer known.
    pub boot: u64,
    /// Where the records' times count from.
    pub base: Base,
    /// With [`Base::Wall`]: how good the clock was that stamped the records.
    pub stamps: Stamps,
    /// Milliseconds since `boot` when the bundle was sent; `None` if another boot runs now, whose
    /// clock says nothing about `boot`.
    pub uptime_ms: Option<u64>,
    /// Wall time when the bundle was sent, if the sender has a clock.
    pub wall: Option<WallClock>,
}

/// How good a wall clock was when it stamped records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamps {
    /// The operating system had synchronised it.
    pub synced: bool,
    /// Most that its times may be wrong by, in milliseconds, as it was measured; `None`: nobody knows.
    pub error_ms: Option<u32>,
}

/// Why bytes are not a bundle. Nothing of a bundle that is not whole is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// A frame in it is damaged, cut or of an unknown kind.
    #[error("a frame of the bundle is refused: {0}")]
    Frame(FrameError),
    /// It does not begin with a head frame, or the head is cut or has trailing bytes.
    #[error("the bundle does not begin with a whole head")]
    Head,
    /// A bundle version this build does not read.
    #[error("bundle version {0} is unknown here")]
    Version(u8),
    /// A flag this build does not know.
    #[error("bundle flags {0:#04x} are unknown here")]
    Flags(u8),
    /// A frame that does not belong into a bundle.
    #[error("a frame of kind {0:?} does not belong into a bundle")]
    Kind(Kind),
    /// The head promises another number of records than follow, or more than are allowed.
    #[error("the bundle promises {promised} records and holds {found}")]
    Count {
        /// What the head says.
        promised: u16,
        /// What follows, as far as it was counted.
        found: u16,
    },
    /// Sequence numbers pass [`MAX_SEQ`].
    #[error("the sequence numbers of the bundle pass their limit")]
    Seq,
}

impl<const N: usize> BundleHead<N> {
    /// Writes the payload of the head frame; returns its length.
    ///
    /// # Errors
    /// [`NoRoom`] if `out` is too short; [`MAX_HEAD_BYTES`] always suffices.
    pub fn encode(&self, count: u16, out: &mut [u8]) -> Result<usize, NoRoom> {
        let mut at = 0;
        let origin = self.origin.as_str().as_bytes();
        let origin_len = u8::try_from(origin.len()).map_err(|_| NoRoom)?;
        put(
            out,
            &mut at,
            &[VERSION, self.flags(), self.lane.to_u8(), origin_len],
        )?;
        put(out, &mut at, origin)?;
        put(out, &mut at, &self.epoch.get().to_le_bytes())?;
        put(out, &mut at, &self.boot.to_le_bytes())?;
        varint::put(out, &mut at, self.first)?;
        if let Some(error_ms) = self.stamps.error_ms {
            varint::put(out, &mut at, u64::from(error_ms))?;
        }
        if let Some(uptime_ms) = self.uptime_ms {
            varint::put(out, &mut at, uptime_ms)?;
        }
        if let Some(wall) = self.wall {
            put(out, &mut at, &wall.time.0.to_le_bytes())?;
            let error = wall.error_ms.map_or(0, |error_ms| u64::from(error_ms) + 1);
            varint::put(out, &mut at, error)?;
        }
        put(out, &mut at, &count.to_le_bytes())?;
        Ok(at)
    }

    fn flags(&self) -> u8 {
        [
            (self.ram, FLAG_RAM),
            (self.wall.is_some(), FLAG_WALL),
            (self.base == Base::Uptime, FLAG_UPTIME_BASE),
            (self.uptime_ms.is_some(), FLAG_UPTIME),
            (self.stamps.error_ms.is_some(), FLAG_STAMPS),
            (self.stamps.synced, FLAG_SYNCED),
        ]
        .into_iter()
        .filter(|(holds, _)| *holds)
        .fold(0, |flags, (_, flag)| flags | flag)
    }

    /// Reads the payload of a head frame: the head and the count of numbered frames.
    ///
    /// # Errors
    /// [`BundleError::Head`], [`BundleError::Version`], [`BundleError::Flags`] or
    /// [`BundleError::Seq`].
    pub fn decode(payload: &[u8]) -> Result<(Self, u16), BundleError> {
        Self::parse(payload)?.ok_or(BundleError::Head)
    }

    /// `Ok(None)`: the bytes end too early, or have no meaning.
    fn parse(payload: &[u8]) -> Result<Option<(Self, u16)>, BundleError> {
        let Some(&version) = payload.first() else {
            return Ok(None);
        };
        if version != VERSION {
            return Err(BundleError::Version(version));
        }
        let Some(&flags) = payload.get(1) else {
            return Ok(None);
        };
        if flags & !FLAGS != 0 {
            return Err(BundleError::Flags(flags));
        }
        let head = Self::parse_fields(payload, flags);
        match head {
            Some((head, _)) if head.first > MAX_SEQ => Err(BundleError::Seq),
            head => Ok(head),
        }
    }

    fn parse_fields(payload: &[u8], flags: u8) -> Option<(Self, u16)> {
        let has = |flag: u8| flags & flag != 0;
        let lane = Lane::from_u8(*payload.get(2)?)?;
        let origin_len = usize::from(*payload.get(3)?);
        let mut at = 4;
        let origin = core::str::from_utf8(take(payload, &mut at, origin_len)?).ok()?;
        let origin = DeviceId::new(origin).ok()?;
        let epoch = u64::from_le_bytes(take(payload, &mut at, 8)?.try_into().ok()?);
        if epoch >> 63 != 0 {
            return None;
        }
        let boot = u64::from_le_bytes(take(payload, &mut at, 8)?.try_into().ok()?);
        let first = varint::get(payload, &mut at)?;
        let error_ms = if has(FLAG_STAMPS) {
            Some(u32::try_from(varint::get(payload, &mut at)?).ok()?)
        } else {
            None
        };
        let uptime_ms = if has(FLAG_UPTIME) {
            Some(varint::get(payload, &mut at)?)
        } else {
            None
        };
        let wall = if has(FLAG_WALL) {
            let time = i64::from_le_bytes(take(payload, &mut at, 8)?.try_into().ok()?);
            let error_ms = match varint::get(payload, &mut at)? {
                0 => None,
                error => Some(u32::try_from(error - 1).ok()?),
            };
            Some(WallClock {
                time: UnixMicros(time),
                error_ms,
            })
        } else {
            None
        };
        let count = u16::from_le_bytes(take(payload, &mut at, 2)?.try_into().ok()?);
        if at != payload.len() {
            return None;
        }
        let base = if has(FLAG_UPTIME_BASE) {
            Base::Uptime
        } else {
            Base::Wall
        };
        let head = Self {
            origin,
            lane,
            epoch: Epoch::new(epoch),
            first,
            ram: has(FLAG_RAM),
            boot,
            base,
            stamps: Stamps {
                synced: has(FLAG_SYNCED),
                error_ms,
            },
            uptime_ms,
            wall,
        };
        Some((head, count))
    }
}

/// Assembles a bundle within a slice; the slice's length is the bundle's limit.
#[derive(Debug)]
pub struct BundleWriter<'a> {
    out: &'a mut [u8],
    at: usize,
    head: BundleHead,
    count: u16,
    schemas: u16,
}

impl<'a> BundleWriter<'a> {
    /// Begins a bundle in `out`.
    ///
    /// # Errors
    /// [`NoRoom`] if not even the head fits.
    pub fn new(head: BundleHead, out: &'a mut [u8]) -> Result<Self, NoRoom> {
        let at = write_head(&head, 0, out)?;
        Ok(Self {
            out,
            at,
            head,
            count: 0,
            schemas: 0,
        })
    }

    /// Adds a frame around `payload`.
    ///
    /// # Errors
    /// [`NoRoom`] if it does not fit any more, or the kind does not belong into a bundle: the
    /// bundle is then as it was.
    pub fn push(&mut self, kind: Kind, payload: &[u8]) -> Result<(), NoRoom> {
        self.admit(kind)?;
        let rest = self.out.get_mut(self.at..).ok_or(NoRoom)?;
        self.at += frame::encode(kind, payload, rest)?;
        self.took(kind);
        Ok(())
    }

    /// Adds a frame whose bytes stand already, header and checksum included.
    ///
    /// # Errors
    /// As [`BundleWriter::push`].
    pub fn push_frame(&mut self, kind: Kind, bytes: &[u8]) -> Result<(), NoRoom> {
        self.admit(kind)?;
        put(self.out, &mut self.at, bytes)?;
        self.took(kind);
        Ok(())
    }

    /// Numbered frames so far.
    #[must_use]
    pub const fn count(&self) -> u16 {
        self.count
    }

    /// Bytes so far, head counted.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.at
    }

    /// Whether it holds no numbered frame yet; such a bundle is not worth sending.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Fills in the count; returns the length of the bundle.
    #[must_use]
    pub fn finish(self) -> usize {
        write_head(&self.head, self.count, self.out)
            .expect("the head has a fixed length and fitted before");
        self.at
    }

    const fn admit(&self, kind: Kind) -> Result<(), NoRoom> {
        let room = if matches!(kind, Kind::Schema) {
            self.schemas < MAX_SCHEMAS
        } else {
            kind.is_numbered() && self.count < MAX_RECORDS
        };
        if room { Ok(()) } else { Err(NoRoom) }
    }

    const fn took(&mut self, kind: Kind) {
        if kind.is_numbered() {
            self.count += 1;
        } else {
            self.schemas += 1;
        }
    }
}

/// Assembles a bundle of at most `max_bytes` from records offered in order, in a buffer of its own.
///
/// `next` is asked for one frame after the other, as (kind, payload), until it has no more or one
/// does not fit. Returns the bytes and the count of numbered frames.
///
/// # Errors
/// [`NoRoom`] if not even the head fits.
#[cfg(feature = "alloc")]
pub fn assemble<'r>(
    head: BundleHead,
    max_bytes: usize,
    records: impl IntoIterator<Item = (Kind, &'r [u8])>,
) -> Result<(alloc::vec::Vec<u8>, u16), NoRoom> {
    let mut out = alloc::vec![0; max_bytes];
    let mut writer = BundleWriter::new(head, &mut out)?;
    for (kind, payload) in records {
        if writer.push(kind, payload).is_err() {
            break;
        }
    }
    let count = writer.count();
    let len = writer.finish();
    out.truncate(len);
    Ok((out, count))
}

/// A bundle that was checked whole: every checksum, kind and the count.
#[derive(Debug, Clone)]
pub struct Bundle<'a> {
    /// What holds for all its records.
    pub head: BundleHead,
    /// How many numbered frames it holds.
    pub count: u16,
    body: &'a [u8],
}

/// One frame of a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its sequence number; `None` for a schema frame.
    pub seq: Option<u64>,
    /// The frame.
    pub frame: Frame<'a>,
    /// Its bytes as they stood, header and checksum included.
    pub bytes: &'a [u8],
}

impl<'a> Bundle<'a> {
    /// Whether a publish begins like a bundle, by its first frame's kind byte.
    #[must_use]
    pub fn is_bundle(payload: &[u8]) -> bool {
        payload.get(1) == Some(&Kind::BundleHead.to_u8())
    }

    /// Checks the bundle that a publish begins with; returns it and the bytes of the next ones.
    ///
    /// # Errors
    /// [`BundleError`]; nothing from there on may then be used.
    pub fn first(publish: &'a [u8]) -> Result<(Self, &'a [u8]), BundleError> {
        let (first, len) = frame::decode(publish).map_err(BundleError::Frame)?;
        if first.kind != Kind::BundleHead {
            return Err(BundleError::Kind(first.kind));
        }
        let (head, promised) = BundleHead::decode(first.payload)?;
        let body = publish.get(len..).unwrap_or_default();
        let (mut found, mut schemas, mut end) = (0u16, 0u16, 0);
        for item in Frames::new(body) {
            let (frame, bytes) = item.map_err(BundleError::Frame)?;
            if frame.kind == Kind::BundleHead {
                break;
            }
            if frame.kind == Kind::Schema {
                schemas += 1;
            } else if frame.kind.is_numbered() {
                found += 1;
            } else {
                return Err(BundleError::Kind(frame.kind));
            }
            if found > MAX_RECORDS || schemas > MAX_SCHEMAS {
                return Err(BundleError::Count { promised, found });
            }
            end += bytes.len();
        }
        if found != promised {
            return Err(BundleError::Count { promised, found });
        }
        if head.first + u64::from(found) > MAX_SEQ {
            return Err(BundleError::Seq);
        }
        let (body, rest) = body.split_at(end);
        let bundle = Self {
            head,
            count: found,
            body,
        };
        Ok((bundle, rest))
    }

    /// Checks a publish of one bundle.
    ///
    /// # Errors
    /// [`BundleError`]; nothing of the publish may then be used.
    pub fn open(publish: &'a [u8]) -> Result<Self, BundleError> {
        let (bundle, rest) = Self::first(publish)?;
        if rest.is_empty() {
            Ok(bundle)
        } else {
            Err(BundleError::Kind(Kind::BundleHead))
        }
    }

    /// Its frames in order, schemas among them.
    pub fn records(&self) -> impl Iterator<Item = Record<'a>> + use<'a> {
        let mut seq = self.head.first;
        Frames::new(self.body)
            .map_while(Result::ok)
            .map(move |(frame, bytes)| {
                let mut own = None;
                if frame.kind.is_numbered() {
                    own = Some(seq);
                    seq += 1;
                }
                Record {
                    seq: own,
                    frame,
                    bytes,
                }
            })
    }
}

/// Writes the head frame; its length does not depend on `count`.
fn write_head(head: &BundleHead, count: u16, out: &mut [u8]) -> Result<usize, NoRoom> {
    let mut payload = [0u8; MAX_HEAD_BYTES];
    let len = head.encode(count, &mut payload)?;
    frame::encode(Kind::BundleHead, &payload[..len], out)
}

fn put(out: &mut [u8], at: &mut usize, bytes: &[u8]) -> Result<(), NoRoom> {
    let end = *at + bytes.len();
    out.get_mut(*at..end).ok_or(NoRoom)?.copy_from_slice(bytes);
    *at = end;
    Ok(())
}

fn take<'a>(bytes: &'a [u8], at: &mut usize, len: usize) -> Option<&'a [u8]> {
    let taken = bytes.get(*at..*at + len)?;
    *at += len;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    pub(super) fn head() -> BundleHead {
        BundleHead {
            origin: DeviceId::new("pump-7").unwrap(),
            lane: Lane::Normal,
            epoch: Epoch::new(0x0102_0304_0506_0708),
            first: 300,
            ram: false,
            boot: 9,
            base: Base::Wall,
            stamps: Stamps {
                synced: true,
                error_ms: Some(3),
            },
            uptime_ms: Some(70_000),
            wall: Some(WallClock {
                time: UnixMicros(1_700_000_000_000_000),
                error_ms: Some(200),
            }),
        }
    }

    fn bundle(records: &[(Kind, &[u8])]) -> Vec<u8> {
        assemble(head(), 4096, records.iter().copied()).unwrap().0
    }

    #[test]
    fn the_head_of_version_2_is_frozen() {
        let mut out = [0; MAX_HEAD_BYTES];
        let len = head().encode(2, &mut out).unwrap();
        let golden: &[u8] = &[
            2, 58, 1, 6, b'p', b'u', b'm', b'p', b'-', b'7', 8, 7, 6, 5, 4, 3, 2, 1, 9, 0, 0, 0, 0,
            0, 0, 0, 172, 2, 3, 240, 162, 4, 0, 64, 30, 24, 36, 10, 6, 0, 201, 1, 2, 0,
        ];
        assert_eq!(out[..len], *golden);
        assert_eq!(BundleHead::decode(golden), Ok((head(), 2)));
    }

    #[test]
    fn numbered_frames_take_numbers_in_order_and_schemas_take_none() {
        let bytes = bundle(&[(Kind::Schema, b"s"), (Kind::Batch, b"a"), (Kind::Gap, b"g")]);
        let bundle = Bundle::open(&bytes).unwrap();
        assert_eq!((bundle.head.clone(), bundle.count), (head(), 2));
        let seen: Vec<_> = bundle
            .records()
            .map(|r| (r.seq, r.frame.kind, r.frame.payload))
            .collect();
        assert_eq!(
            seen,
            [
                (None, Kind::Schema, &b"s"[..]),
                (Some(300), Kind::Batch, b"a"),
                (Some(301), Kind::Gap, b"g"),
            ]
        );
    }

    #[test]
    fn a_record_that_does_not_fit_leaves_the_bundle_as_it_was() {
        let mut out = [0; 128];
        let mut writer = BundleWriter::new(head(), &mut out).unwrap();
        writer.push(Kind::Batch, &[7; 20]).unwrap();
        assert_eq!(writer.push(Kind::Batch, &[8; 100]), Err(NoRoom));
        assert_eq!(writer.push(Kind::Hello, &[8; 1]), Err(NoRoom));
        let len = writer.finish();
        let bundle = Bundle::open(&out[..len]).unwrap();
        assert_eq!(bundle.count, 1);
    }

    #[test]
    fn the_longest_head_fits_its_bound() {
        let mut head = head();
        head.origin = DeviceId::new(&"x".repeat(MAX_DEVICE_ID_BYTES)).unwrap();
        (head.first, head.uptime_ms) = (MAX_SEQ, Some(u64::MAX));
        head.stamps.error_ms = Some(u32::MAX);
        head.wall = Some(WallClock {
            time: UnixMicros(i64::MIN),
            error_ms: Some(u32::MAX - 1),
        });
        let mut out = [0; MAX_HEAD_BYTES];
        assert!(write_head(&head, u16::MAX, &mut out).is_ok());
    }

    #[test]
    fn a_head_of_an_earlier_boot_has_no_uptime_and_of_another_base_no_stamps() {
        let mut head = head();
        (head.base, head.stamps) = (Base::Uptime, Stamps::default());
        (head.uptime_ms, head.wall, head.ram) = (None, None, true);
        let mut out = [0; MAX_HEAD_BYTES];
        let len = head.encode(1, &mut out).unwrap();
        assert_eq!(out[1], FLAG_RAM | FLAG_UPTIME_BASE);
        assert_eq!(BundleHead::decode(&out[..len]), Ok((head, 1)));
        for flag in [64, 128] {
            out[1] = flag;
            let refused = BundleHead::<64>::decode(&out[..len]).unwrap_err();
            assert_eq!(refused, BundleError::Flags(flag));
        }
    }

    #[test]
    fn several_bundles_of_one_publish_are_read_in_order_up_to_a_damaged_one() {
        let one = bundle(&[(Kind::Schema, b"s"), (Kind::Batch, b"a")]);
        let mut other = head();
        (other.origin, other.first) = (DeviceId::new("node-3").unwrap(), 7);
        let (two, _) = assemble(other.clone(), 4096, [(Kind::Refused, &b"r"[..])]).unwrap();
        let publish = [&one[..], &two, &one].concat();
        let (bundle, rest) = Bundle::first(&publish).unwrap();
        assert_eq!(
            (bundle.head, bundle.count, rest.len()),
            (head(), 1, two.len() + one.len())
        );
        let (bundle, rest) = Bundle::first(rest).unwrap();
        assert_eq!((&bundle.head, bundle.count, rest), (&other, 1, &one[..]));
        assert_eq!(bundle.records().next().unwrap().seq, Some(7));
        assert_eq!(
            Bundle::open(&publish).err(),
            Some(BundleError::Kind(Kind::BundleHead))
        );

        let mut damaged = publish;
        *damaged.last_mut().unwrap() ^= 1;
        let (_, rest) = Bundle::first(&damaged).unwrap();
        let (_, rest) = Bundle::first(rest).unwrap();
        assert!(matches!(Bundle::first(rest), Err(BundleError::Frame(_))));
    }

    #[test]
    fn a_bundle_that_is_not_whole_is_refused_whole() {
        let bytes = bundle(&[(Kind::Batch, b"abc"), (Kind::Batch, b"def")]);
        for cut in 0..bytes.len() {
            assert!(Bundle::open(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let mut longer = bytes.clone();
        frame::append(Kind::Batch, b"x", &mut longer).unwrap();
        assert_eq!(
            Bundle::open(&longer).err(),
            Some(BundleError::Count {
                promised: 2,
                found: 3
            })
        );
        let mut foreign = bytes;
        frame::append(Kind::Ack, b"x", &mut foreign).unwrap();
        assert_eq!(
            Bundle::open(&foreign).err(),
            Some(BundleError::Kind(Kind::Ack))
        );
    }

    #[test]
    fn more_records_than_the_bound_are_neither_written_nor_read() {
        let records = vec![(Kind::Batch, &b""[..]); usize::from(MAX_RECORDS) + 1];
        let (mut bytes, count) = assemble(head(), 1 << 20, records).unwrap();
        assert_eq!(count, MAX_RECORDS);
        assert!(Bundle::open(&bytes).is_ok());
        frame::append(Kind::Batch, b"", &mut bytes).unwrap();
        assert!(matches!(
            Bundle::open(&bytes),
            Err(BundleError::Count { .. })
        ));
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            head_payload in proptest::collection::vec(any::<u8>(), 0..120),
        ) {
            let _ = Bundle::open(&bytes);
            let _ = BundleHead::<64>::decode(&head_payload);
            let mut begun = vec![VERSION, 63, 1, 1, b'a'];
            begun.extend(&head_payload);
            let mut framed = Vec::new();
            frame::append(Kind::BundleHead, &begun, &mut framed).unwrap();
            framed.extend(bytes);
            let _ = Bundle::open(&framed);
        }
    }
}
