//! Identifiers of types that cannot be mixed: device, lane, epoch, sequence number, stream, journal.

use core::fmt;

use serde::{Deserialize, Serialize};

/// Longest device id in bytes: it is part of every topic, row and key.
pub const MAX_DEVICE_ID_BYTES: usize = 128;

/// Why a text is not a device id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Empty, or longer than the type holds.
    #[error("a device id has 1 to {most} bytes, not {len}")]
    Length {
        /// Bytes of the text.
        len: usize,
        /// Most bytes: [`MAX_DEVICE_ID_BYTES`], less in a node that sizes its ids by type.
        most: usize,
    },
    /// A control character.
    #[error("a device id has no control characters, and this one has {0:?}")]
    Control(char),
}

/// A device: 1 to `N` bytes of UTF-8 text without control characters.
///
/// `N` is the size of its buffer. Programs use the default, [`MAX_DEVICE_ID_BYTES`]; a node whose own id
/// is a constant of 12 bytes uses `DeviceId<12>` and saves the rest.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "heapless::String<N>", into = "heapless::String<N>")]
pub struct DeviceId<const N: usize = MAX_DEVICE_ID_BYTES>(heapless::String<N>);

impl<const N: usize> DeviceId<N> {
    /// Checks `text`.
    ///
    /// # Errors
    /// [`IdError`] with the fault.
    pub fn new(text: &str) -> Result<Self, IdError> {
        let most = N.min(MAX_DEVICE_ID_BYTES);
        let len = text.len();
        if len == 0 || len > most {
            return Err(IdError::Length { len, most });
        }
        if let Some(control) = text.chars().find(|char| char.is_control()) {
            return Err(IdError::Control(control));
        }
        heapless::String::try_from(text)
            .map(Self)
            .map_err(|_| IdError::Length { len, most })
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const N: usize> TryFrom<heapless::String<N>> for DeviceId<N> {
    type Error = IdError;
    fn try_from(text: heapless::String<N>) -> Result<Self, IdError> {
        Self::new(&text)
    }
}

impl<const N: usize> From<DeviceId<N>> for heapless::String<N> {
    fn from(id: DeviceId<N>) -> Self {
        id.0
    }
}

impl<const N: usize> core::str::FromStr for DeviceId<N> {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::new(text)
    }
}

impl<const N: usize> fmt::Debug for DeviceId<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<const N: usize> fmt::Display for DeviceId<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A class of urgency with its own epochs, sequence numbers and quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Lane {
    /// Synced at once; evicts only its own oldest records.
    Alarm,
    /// Samples, unless a rule puts them elsewhere.
    Normal,
    /// Log lines, files, backfill: evicted first.
    Bulk,
    /// Devices that speak plain MQTT; numbered by the collector.
    Plain,
}

impl Lane {
    /// The lanes that an agent writes, most urgent first.
    pub const AGENT: [Self; 3] = [Self::Alarm, Self::Normal, Self::Bulk];

    /// Its number on the wire and on disk.
    #[must_use]
    pub const fn to_u8(self) -> u8 {
        match self {
            Self::Alarm => 0,
            Self::Normal => 1,
            Self::Bulk => 2,
            Self::Plain => 3,
        }
    }

    /// The lane of a number, if there is one.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Alarm),
            1 => Some(Self::Normal),
            2 => Some(Self::Bulk),
            3 => Some(Self::Plain),
            _ => None,
        }
    }

    /// Its name in configuration, lake and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Alarm => "alarm",
            Self::Normal => "normal",
            Self::Bulk => "bulk",
            Self::Plain => "plain",
        }
    }

    /// The lane of a name, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Alarm, Self::Normal, Self::Bulk, Self::Plain]
            .into_iter()
            .find(|l| l.name() == name)
    }
}

/// One life of a writer: 63 random bits drawn at every start, so that a sequence number is never
/// used twice for different data.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(u64);

impl Epoch {
    /// Keeps the low 63 bits of `random`: the lake stores an epoch as a signed 64-bit column.
    #[must_use]
    pub const fn new(random: u64) -> Self {
        Self(random & (u64::MAX >> 1))
    }

    /// The number, below 2^63.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Number of a record within its stream; the first is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Seq(pub u64);

/// A half-open range of sequence numbers: `first` is in it, `next` is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SeqRange {
    /// The first number in the range.
    pub first: u64,
    /// The first number after the range.
    pub next: u64,
}

impl SeqRange {
    /// `first..next`; empty when `next <= first`.
    #[must_use]
    pub const fn new(first: u64, next: u64) -> Self {
        Self { first, next }
    }

    /// How many numbers it holds.
    #[must_use]
    pub const fn len(self) -> u64 {
        self.next.saturating_sub(self.first)
    }

    /// Whether it holds none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.next <= self.first
    }

    /// Whether `seq` lies in it.
    #[must_use]
    pub const fn contains(self, seq: u64) -> bool {
        self.first <= seq && seq < self.next
    }

    /// Whether some number is in both.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.first < other.next && other.first < self.next
    }
}

/// One numbered sequence of records: the origin's device, lane and epoch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stream {
    /// The device that made the records.
    pub device: DeviceId,
    /// Lane of the stream.
    pub lane: Lane,
    /// The life of the writer.
    pub epoch: Epoch,
}

/// Random id of one collector journal; a new journal has a new one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JournalId(pub u64);

impl fmt::Debug for JournalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for JournalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
