//! The head of a bundle: the payload of its first frame.
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
//! | 0 or 1 to 5 | with flag 16: largest error of the records' times, milliseconds, LEB128 |
//! | 0 or 1 to 10 | with flag 8: uptime when it was sent, milliseconds, LEB128 |
//! | 0 or 8 | with flag 2: wall time when it was sent, microseconds since the Unix epoch, little-endian |
//! | 0 or 1 to 5 | with flag 2: largest error of that wall time, milliseconds, plus one, LEB128; 0: unknown |
//! | 2 | count of numbered frames, little-endian; last and of fixed length, because it is filled in late |
//!
//! | flag | means |
//! |---|---|
//! | 1 | the epoch lives in RAM |
//! | 2 | the sender's wall time follows |
//! | 4 | the records' times count from the boot ([`Base::Uptime`]) |
//! | 8 | the epoch's boot is the one that runs, and its uptime follows |
//! | 16 | the largest error of the records' wall times is known, and follows |
//! | 32 | the records' wall times were taken from a synchronised clock |
//! | 128 | reserved for the short head of small nodes; refused, as all others are |

use super::BundleError;
use crate::frame::{self, Kind};
use crate::ids::{DeviceId, Epoch, Lane, MAX_DEVICE_ID_BYTES};
use crate::message::{MAX_SEQ, WallClock};
use crate::time::{Base, UnixMicros};
use crate::varint::{self, NoRoom};

/// The bundle version this build writes.
pub const VERSION: u8 = 2;
/// Most bytes of a head frame, its frame bytes counted.
pub const MAX_HEAD_BYTES: usize =
    3 + 1 + MAX_DEVICE_ID_BYTES + 8 + 8 + 10 + 5 + 10 + 8 + 5 + 2 + frame::MAX_OVERHEAD_BYTES;

const FLAG_RAM: u8 = 1;
const FLAG_WALL: u8 = 2;
const FLAG_UPTIME_BASE: u8 = 4;
const FLAG_UPTIME: u8 = 8;
const FLAG_STAMPS: u8 = 16;
const FLAG_SYNCED: u8 = 32;
const FLAGS: u8 = FLAG_RAM | FLAG_WALL | FLAG_UPTIME_BASE | FLAG_UPTIME | FLAG_STAMPS | FLAG_SYNCED;

/// Facts that hold for all frames of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleHead<const N: usize = MAX_DEVICE_ID_BYTES> {
    /// The device that made the records.
    pub origin: DeviceId<N>,
    /// Lane of the stream.
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
    /// Milliseconds since `boot` when the bundle was sent; `None` if another boot runs now, whose clock
    /// cannot date `boot`.
    pub uptime_ms: Option<u64>,
    /// Wall time when the bundle was sent, if the sender has a clock.
    pub wall: Option<WallClock>,
}

/// How good a wall clock was when it stamped records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamps {
    /// The operating system had synchronised it.
    pub synced: bool,
    /// Largest error of its times in milliseconds, as measured; `None`: unknown.
    pub error_ms: Option<u32>,
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
        varint::put_bytes(
            out,
            &mut at,
            &[VERSION, self.flags(), self.lane.to_u8(), origin_len],
        )?;
        varint::put_bytes(out, &mut at, origin)?;
        varint::put_bytes(out, &mut at, &self.epoch.get().to_le_bytes())?;
        varint::put_bytes(out, &mut at, &self.boot.to_le_bytes())?;
        varint::put(out, &mut at, self.first)?;
        if let Some(error_ms) = self.stamps.error_ms {
            varint::put(out, &mut at, u64::from(error_ms))?;
        }
        if let Some(uptime_ms) = self.uptime_ms {
            varint::put(out, &mut at, uptime_ms)?;
        }
        if let Some(wall) = self.wall {
            varint::put_bytes(out, &mut at, &wall.time.0.to_le_bytes())?;
            let error = wall.error_ms.map_or(0, |error_ms| u64::from(error_ms) + 1);
            varint::put(out, &mut at, error)?;
        }
        varint::put_bytes(out, &mut at, &count.to_le_bytes())?;
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
        let origin = core::str::from_utf8(varint::take(payload, &mut at, origin_len)?).ok()?;
        let origin = DeviceId::new(origin).ok()?;
        let epoch = u64::from_le_bytes(varint::take(payload, &mut at, 8)?.try_into().ok()?);
        if epoch >> 63 != 0 {
            return None;
        }
        let boot = u64::from_le_bytes(varint::take(payload, &mut at, 8)?.try_into().ok()?);
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
            let time = i64::from_le_bytes(varint::take(payload, &mut at, 8)?.try_into().ok()?);
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
        let count = u16::from_le_bytes(varint::take(payload, &mut at, 2)?.try_into().ok()?);
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

/// Writes the head frame; its length does not depend on `count`.
pub(super) fn write_head(head: &BundleHead, count: u16, out: &mut [u8]) -> Result<usize, NoRoom> {
    let mut payload = [0u8; MAX_HEAD_BYTES];
    let len = head.encode(count, &mut payload)?;
    frame::encode(Kind::BundleHead, &payload[..len], out)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn head() -> BundleHead {
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
}
