//! MQTT topics of agents: `hw/1/<shard>/<device>/up` and `.../down`.
//!
//! | part | what |
//! |---|---|
//! | `hw` | every topic of headwater begins so |
//! | `1` | version of the topic layout |
//! | shard | two lower-case hex digits, `00` to `3f`: the low six bits of the CRC-32C of the device id |
//! | device | the device id, each byte outside `A-Z a-z 0-9 . _ -` written as `%XX` in upper-case hex |
//! | `up`, `down` | to the collector, to the device |
//!
//! An id has one spelling: an escape of a byte that needs none, or in lower case, is refused. The shard is
//! that of the id itself.
//!
//! The shard lets one subscriber take a share of the fleet. A reader accepts any shard of the 64: the
//! right to publish depends on the device alone.

use core::fmt::{self, Write as _};

use crate::frame::crc32c;
use crate::ids::{DeviceId, MAX_DEVICE_ID_BYTES};

/// Shards of the topic tree.
pub const SHARDS: u8 = 64;
/// Longest topic in bytes: `hw/1/`, a shard, a device id with every byte escaped, `/down`.
pub const MAX_TOPIC_BYTES: usize = 5 + 3 + 3 * MAX_DEVICE_ID_BYTES + 5;

/// A topic as text.
pub type TopicText = heapless::String<MAX_TOPIC_BYTES>;

/// Direction of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the device to the collector.
    Up,
    /// From the collector to the device.
    Down,
}

/// A topic of the layout above.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Topic {
    /// Below [`SHARDS`].
    pub shard: u8,
    /// The device that publishes or listens; a gateway's own id for forwarded bundles.
    pub device: DeviceId,
    /// From or to the device.
    pub direction: Direction,
}

/// Why a text is not a topic of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// It does not begin with `hw/`: some other client's topic.
    #[error("not a topic of headwater")]
    Foreign,
    /// A layout version this build does not know.
    #[error("this version of the topic layout is unknown here")]
    Version,
    /// Not two lower-case hex digits from `00` to `3f`.
    #[error("the shard must be two hex digits from 00 to 3f")]
    Shard,
    /// Not a device id in its one spelling.
    #[error(
        "the device part is not a device id: other bytes than A-Z a-z 0-9 . _ - are written %XX"
    )]
    Device,
    /// Not `up` or `down`, or more parts follow.
    #[error("the topic must end in /up or /down")]
    Direction,
}

/// The shard of a device: the low six bits of the CRC-32C of its id.
#[must_use]
pub fn shard_of(device: &DeviceId) -> u8 {
    (crc32c(device.as_str().as_bytes()) & u32::from(SHARDS - 1)).to_le_bytes()[0]
}

impl Topic {
    /// The topic of a device, with the shard that its id hashes to.
    #[must_use]
    pub fn of(device: &DeviceId, direction: Direction) -> Self {
        Self {
            shard: shard_of(device),
            device: device.clone(),
            direction,
        }
    }

    /// Reads a topic; allocates nothing and reads at most [`MAX_TOPIC_BYTES`].
    ///
    /// # Errors
    /// [`TopicError`] of the first part that is wrong.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        let rest = text.strip_prefix("hw/").ok_or(TopicError::Foreign)?;
        let rest = rest.strip_prefix("1/").ok_or(TopicError::Version)?;
        let (shard, rest) = rest.split_once('/').ok_or(TopicError::Shard)?;
        let (device, direction) = rest.split_once('/').ok_or(TopicError::Direction)?;
        let shard = match *shard.as_bytes() {
            [high, low] => hex(high).zip(hex(low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        let direction = match direction {
            "up" => Direction::Up,
            "down" => Direction::Down,
            _ => return Err(TopicError::Direction),
        };
        Ok(Self {
            shard: shard
                .filter(|&shard| shard < SHARDS)
                .ok_or(TopicError::Shard)?,
            device: unescape(device).ok_or(TopicError::Device)?,
            direction,
        })
    }

    /// The topic as text.
    #[must_use]
    pub fn text(&self) -> TopicText {
        let direction = match self.direction {
            Direction::Up => "up",
            Direction::Down => "down",
        };
        let mut text = TopicText::new();
        let device = Escaped(self.device.as_str());
        write!(text, "hw/1/{:02x}/{device}/{direction}", self.shard)
            .expect("MAX_TOPIC_BYTES holds every part at its longest");
        text
    }
}

/// Where a device publishes.
#[must_use]
pub fn up(device: &DeviceId) -> TopicText {
    Topic::of(device, Direction::Up).text()
}

/// Where a device listens.
#[must_use]
pub fn down(device: &DeviceId) -> TopicText {
    Topic::of(device, Direction::Down).text()
}

/// Whether a byte of an id stands in a topic as it is.
const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

/// A device id as it stands in a topic: bytes outside `A-Z a-z 0-9 . _ -` as `%XX`.
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.bytes().try_for_each(|byte| {
            if is_plain(byte) {
                f.write_char(char::from(byte))
            } else {
                write!(f, "%{byte:02X}")
            }
        })
    }
}

/// The device id that a part of a topic spells; `None` for another spelling than [`Escaped`] writes.
fn unescape(part: &str) -> Option<DeviceId> {
    let mut id = heapless::Vec::<u8, MAX_DEVICE_ID_BYTES>::new();
    let mut rest = part.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let (byte, after) = match (byte, after) {
            (b'%', &[high, low, ref after @ ..]) => {
                let byte = upper_hex(high)? << 4 | upper_hex(low)?;
                (Some(byte).filter(|byte| !is_plain(*byte))?, after)
            }
            (byte, after) => (Some(byte).filter(|byte| is_plain(*byte))?, after),
        };
        id.push(byte).ok()?;
        rest = after;
    }
    DeviceId::new(core::str::from_utf8(&id).ok()?).ok()
}

/// Value of an upper-case hex digit.
const fn upper_hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Value of a lower-case hex digit.
const fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;

    #[test]
    fn a_topic_comes_back_from_its_text() {
        let device = DeviceId::new("pump-7.north_2").unwrap();
        for direction in [Direction::Up, Direction::Down] {
            let topic = Topic::of(&device, direction);
            assert_eq!(Topic::parse(&topic.text()), Ok(topic));
        }
    }

    #[test]
    fn the_shard_of_a_device_is_frozen() {
        assert_eq!(up(&DeviceId::new("pump-7").unwrap()), "hw/1/29/pump-7/up");
        assert_eq!(down(&DeviceId::new("a").unwrap()), "hw/1/30/a/down");
    }

    #[test]
    fn the_longest_id_fits() {
        let device = DeviceId::new(&"\u{e9}".repeat(64)).unwrap();
        let text = down(&device);
        assert_eq!(text.len(), MAX_TOPIC_BYTES);
        assert_eq!(Topic::parse(&text).unwrap().device, device);
    }

    #[test]
    fn each_wrong_part_is_named() {
        for (text, error) in [
            ("home/kitchen", TopicError::Foreign),
            ("hw/2/00/a/up", TopicError::Version),
            ("hw/1/40/a/up", TopicError::Shard),
            ("hw/1/0A/a/up", TopicError::Shard),
            ("hw/1/000/a/up", TopicError::Shard),
            ("hw/1/00//up", TopicError::Device),
            ("hw/1/00/a+b/up", TopicError::Device),
            ("hw/1/00/a/sideways", TopicError::Direction),
            ("hw/1/00/a/up/more", TopicError::Direction),
            ("hw/1/00/a", TopicError::Direction),
        ] {
            assert_eq!(Topic::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn an_id_of_any_characters_has_one_spelling() {
        for (id, spelled) in [
            ("entr\u{e9}e", "entr%C3%A9e"),
            ("Living Room Lamp", "Living%20Room%20Lamp"),
            ("00:11:22:33:44:55", "00%3A11%3A22%3A33%3A44%3A55"),
            ("kitchen/floor_light", "kitchen%2Ffloor_light"),
            ("50%+#", "50%25%2B%23"),
        ] {
            let device = DeviceId::new(id).unwrap();
            let topic = Topic::of(&device, Direction::Up);
            assert_eq!(
                topic.text().as_str(),
                std::format!("hw/1/{:02x}/{spelled}/up", topic.shard)
            );
            assert_eq!(Topic::parse(&topic.text()), Ok(topic));
        }
        for other in [
            "%70ump",
            "entr%c3%a9e",
            "entr\u{e9}e",
            "%C3",
            "%",
            "a%4",
            "%00",
            "a b",
        ] {
            let text = std::format!("hw/1/00/{other}/up");
            assert_eq!(Topic::parse(&text), Err(TopicError::Device), "{text}");
        }
    }

    #[test]
    fn a_fleet_spreads_over_all_shards() {
        let mut seen = [0u32; SHARDS as usize];
        for k in 0..6400 {
            let device =
                DeviceId::new(&String::from_iter(["agent-", &std::format!("{k}")])).unwrap();
            seen[usize::from(shard_of(&device))] += 1;
        }
        assert!(seen.iter().all(|&n| (50..200).contains(&n)), "{seen:?}");
    }
}
