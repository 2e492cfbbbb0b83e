//! What is said about records: bodies of the control frames, of gaps and of epoch ends.
//!
//! All bodies are postcard. New enum variants come only at the end and a struct never gains a
//! field: a new need is a new frame kind or a new version, agreed on in Hello. Everything is
//! bounded, so that no body passes [`MAX_MESSAGE_BYTES`].
//!
//! | frame | way | body |
//! |---|---|---|
//! | Hello | up | [`Hello`], one page |
//! | Stat | up | [`Stat`] |
//! | Gap, EpochEnd | up, numbered | [`Gap`], [`EpochEnd`] |
//! | Welcome | down | seal, [`Welcome`], one page |
//! | Ack | down | seal, [`Ack`] |
//! | Reject | down | seal, [`Reject`] |
//! | SchemaRequest | down | seal, [`SchemaRequest`] |
//!
//! The payload of every down frame begins with its seal, so that a forged acknowledgement can be
//! told from a true one where the broker is not trusted:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | 0: unsealed, the body follows; 1: sealed |
//! | 8 | counter, little-endian, only if sealed |
//! | 16 | first half of HMAC-SHA-256 over (sender, nonce of its latest Hello, counter, body), only if sealed |
//! | n | body |
//!
//! `Config` and `Command` frames have their numbers, and no body yet.

use heapless::Vec;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::frame::{self, Kind};
use crate::ids::{DeviceId, Epoch, JournalId, Lane, SeqRange};
use crate::time::UnixMicros;
use crate::varint::NoRoom;

/// Protocol version this build speaks; [`Hello`] offers a span of them.
pub const PROTOCOL: u8 = 1;
/// Most bytes of one control frame, its frame bytes counted.
pub const MAX_MESSAGE_BYTES: usize = 4096;
/// Most streams in one page of a Hello.
pub const MAX_HELLO_STREAMS: usize = 32;
/// Most marks in one Ack or one page of a Welcome.
pub const MAX_MARKS: usize = 16;
/// Most ranges beyond `received` in one mark.
pub const MAX_ACK_RANGES: usize = 8;
/// Most pages of a Hello or Welcome.
pub const MAX_PAGES: u8 = 64;
/// Sequence numbers stay below 2^62: they are signed 64-bit columns in the lake, and sums of two
/// never overflow.
pub const MAX_SEQ: u64 = 1 << 62;

/// A wall clock and how far it may be off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WallClock {
    /// What it shows.
    pub time: UnixMicros,
    /// Most it may be wrong by, in milliseconds.
    pub error_ms: u32,
}

/// One stream in a Hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloStream {
    /// Its lane.
    pub lane: Lane,
    /// Its epoch.
    pub epoch: Epoch,
    /// Lowest sequence number the sender still holds; `next` if it holds none.
    pub oldest: u64,
    /// One more than the highest it has made durable so far.
    pub next: u64,
    /// Records live in RAM and may be gone after the next power cut.
    pub ram: bool,
    /// Nothing will be added: the writer's life is over.
    pub ended: bool,
}

/// Up: all that the sender holds of one origin. Sent after each connect, and as a probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Lowest protocol version the sender speaks.
    pub version_min: u8,
    /// Highest.
    pub version_max: u8,
    /// The device whose streams these are; a gateway says one Hello for each.
    pub origin: DeviceId,
    /// Random, new for each Hello, the same on all its pages; the Welcome echoes it.
    pub nonce: u64,
    /// This page, from 0.
    pub page: u8,
    /// Pages in all, at least 1. A Hello takes effect when all its pages are there.
    pub pages: u8,
    /// Whether the pages name *all* streams the sender holds. Only then is an absent one abandoned.
    pub complete: bool,
    /// The sender's boot.
    pub boot: u64,
    /// Milliseconds since that boot.
    pub uptime_ms: u64,
    /// Its wall clock, if it has one.
    pub wall: Option<WallClock>,
    /// Largest down publish it can take, in bytes.
    pub max_bundle: u32,
    /// The streams, at most one page of them.
    pub streams: Vec<HelloStream, MAX_HELLO_STREAMS>,
}

/// A range beyond `received`, and whether it is committed too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AckRange {
    /// First number.
    pub first: u64,
    /// First number after it.
    pub next: u64,
    /// Whether the sender may forget these.
    pub committed: bool,
}

/// How far one stream has come, seen from the receiver. Cumulative.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The lane.
    pub lane: Lane,
    /// The epoch.
    pub epoch: Epoch,
    /// All below it, from the sender's oldest on, is durable at the receiver: no need to resend.
    pub received: u64,
    /// All below it may be forgotten by the sender. At most `received`.
    pub committed: u64,
    /// What is durable beyond `received`, lowest first.
    pub ranges: Vec<AckRange, MAX_ACK_RANGES>,
}

/// Down: the answer to a Hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The protocol version from here on.
    pub version: u8,
    /// Whose streams.
    pub origin: DeviceId,
    /// The nonce of the Hello that this answers.
    pub nonce: u64,
    /// This page, from 0.
    pub page: u8,
    /// Pages in all, at least 1.
    pub pages: u8,
    /// The journal that the marks speak of. When it changes, marks may be lower than before.
    pub journal: JournalId,
    /// Most bytes in flight beyond `received`, over the whole connection. 0: stop.
    pub credit: u32,
    /// Largest bundle the receiver takes.
    pub max_bundle: u32,
    /// The receiver's wall clock.
    pub time: UnixMicros,
    /// One for each stream of the Hello, at most one page of them.
    pub marks: Vec<Mark, MAX_MARKS>,
}

/// Down: marks that moved. Idempotent; any of them may be lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// Whose streams.
    pub origin: DeviceId,
    /// The journal that the marks speak of.
    pub journal: JournalId,
    /// As in [`Welcome`].
    pub credit: u32,
    /// The receiver's wall clock.
    pub time: UnixMicros,
    /// Streams whose marks moved.
    pub marks: Vec<Mark, MAX_MARKS>,
}

/// Why records were not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RejectReason {
    /// The epoch was in no Hello of this connection: say Hello, then send again.
    NotInHello,
    /// More holes than the receiver keeps: send the oldest first.
    TooManyHoles,
    /// Sent beyond the credit: send again later.
    NoCredit,
    /// The publish was damaged or not whole: send again.
    Damaged,
    /// The receiver could not make it durable: send again.
    NotDurable,
    /// Final: the same identity was received with different content.
    Conflict,
    /// Final: a version, kind or flag the receiver does not take.
    Unsupported,
    /// Final: larger than the receiver takes.
    TooLarge,
    /// Final: the sender may not speak for this origin.
    Forbidden,
    /// Final: refused by a rule of the receiver's operator.
    Policy,
}

impl RejectReason {
    /// Whether sending the same again can never succeed: the sender keeps a dead-letter copy and
    /// names a gap.
    #[must_use]
    pub const fn is_final(self) -> bool {
        match self {
            Self::NotInHello
            | Self::TooManyHoles
            | Self::NoCredit
            | Self::Damaged
            | Self::NotDurable => false,
            Self::Conflict | Self::Unsupported | Self::TooLarge | Self::Forbidden | Self::Policy => {
                true
            }
        }
    }

    /// Its name in messages and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotInHello => "not_in_hello",
            Self::TooManyHoles => "too_many_holes",
            Self::NoCredit => "no_credit",
            Self::Damaged => "damaged",
            Self::NotDurable => "not_durable",
            Self::Conflict => "conflict",
            Self::Unsupported => "unsupported",
            Self::TooLarge => "too_large",
            Self::Forbidden => "forbidden",
            Self::Policy => "policy",
        }
    }
}

/// Down: records that were not taken, before custody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reject {
    /// Whose stream.
    pub origin: DeviceId,
    /// Its lane.
    pub lane: Lane,
    /// Its epoch.
    pub epoch: Epoch,
    /// Which records.
    pub range: SeqRange,
    /// Why.
    pub reason: RejectReason,
}

/// Down: a schema number that the collector cannot resolve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaRequest {
    /// The device that numbered it.
    pub origin: DeviceId,
    /// The lane in which it was seen.
    pub lane: Lane,
    /// The epoch within which it is numbered.
    pub epoch: Epoch,
    /// The number.
    pub schema: u32,
}

/// Why records or readings are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum GapReason {
    /// The quota was reached and the oldest gave way.
    Evicted,
    /// The writer stopped without a clean end: readings after its last durable one are lost.
    UncleanStop,
    /// The collector refused the records for good; a dead-letter copy exists.
    Refused,
    /// The records failed their checksum when they were read.
    Damaged,
    /// The sender no longer holds what the receiver never got.
    MissingAtSource,
    /// The epoch's writer vanished with its disk.
    Abandoned,
    /// The collector took the record and could not decode it; it is in quarantine.
    Undecodable,
    /// An optional sink fell off the journal.
    SinkSkipped,
    /// Readings were not admitted because a buffer was full.
    Overflow,
    /// The disk or its sync failed before the readings were durable.
    DiskError,
    /// A copy kept for later (parked, quarantined, dead letter) was dropped to stay within quota.
    CopyDropped,
    /// A time the collector does not accept.
    ImpossibleTime,
    /// More gaps than are kept apart, merged into a coarser one.
    Many,
}

impl GapReason {
    /// Every reason, for tables and tests.
    pub const ALL: [Self; 13] = [
        Self::Evicted,
        Self::UncleanStop,
        Self::Refused,
        Self::Damaged,
        Self::MissingAtSource,
        Self::Abandoned,
        Self::Undecodable,
        Self::SinkSkipped,
        Self::Overflow,
        Self::DiskError,
        Self::CopyDropped,
        Self::ImpossibleTime,
        Self::Many,
    ];

    /// Its name in lake, metrics and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::UncleanStop => "unclean_stop",
            Self::Refused => "refused",
            Self::Damaged => "damaged",
            Self::MissingAtSource => "missing_at_source",
            Self::Abandoned => "abandoned",
            Self::Undecodable => "undecodable",
            Self::SinkSkipped => "sink_skipped",
            Self::Overflow => "overflow",
            Self::DiskError => "disk_error",
            Self::CopyDropped => "copy_dropped",
            Self::ImpossibleTime => "impossible_time",
            Self::Many => "many",
        }
    }

    /// The reason of a name, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

/// Which stage named a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Stage {
    /// A node's firmware.
    Firmware,
    /// A source of an agent, before its spool.
    Source,
    /// The agent.
    Agent,
    /// The collector.
    Collector,
    /// One sink of the collector; the audit of the lake ignores it.
    Sink,
}

impl Stage {
    /// Every stage.
    pub const ALL: [Self; 5] =
        [Self::Firmware, Self::Source, Self::Agent, Self::Collector, Self::Sink];

    /// Its name in the lake.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Firmware => "firmware",
            Self::Source => "source",
            Self::Agent => "agent",
            Self::Collector => "collector",
            Self::Sink => "sink",
        }
    }

    /// The stage of a name, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.name() == name)
    }
}

/// Name of a source or sink in a gap.
pub type PartName = heapless::String<64>;

/// Named loss. Names any origin, lane and epoch, not only its maker's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Whose records are missing.
    pub origin: DeviceId,
    /// In which lane.
    pub lane: Lane,
    /// In which epoch; for readings that were never numbered, the epoch that would have held them.
    pub epoch: Epoch,
    /// Which records; `None` for readings that were never numbered.
    pub seqs: Option<SeqRange>,
    /// How many samples, if known.
    pub samples: Option<u64>,
    /// Time of the first missing reading, if known.
    pub t_first: Option<UnixMicros>,
    /// Time of the last missing reading, if known.
    pub t_last: Option<UnixMicros>,
    /// Why.
    pub reason: GapReason,
    /// Who noticed.
    pub stage: Stage,
    /// The source or sink it concerns; `None` means all.
    pub part: Option<PartName>,
    /// When it was named, by the namer's wall clock.
    pub at: UnixMicros,
}

/// How an epoch ended. Several for one epoch merge, see [`crate::delivery::epoch`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochEnd {
    /// Whose epoch.
    pub origin: DeviceId,
    /// In which lane.
    pub lane: Lane,
    /// The epoch.
    pub epoch: Epoch,
    /// Its first sequence number.
    pub first: u64,
    /// One more than its last.
    pub next: u64,
    /// Whether the writer ended it itself, with nothing left unsynced.
    pub clean: bool,
    /// The boot in which it was written.
    pub boot: u64,
    /// Wall time of the last sync that succeeded, if known: readings after it may be lost.
    pub last_durable: Option<UnixMicros>,
}

/// Up: how the sender is doing. Unpromised, not stored in the lake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// The sender.
    pub origin: DeviceId,
    /// Version of its program.
    pub program: heapless::String<32>,
    /// Its boot.
    pub boot: u64,
    /// Milliseconds since that boot.
    pub uptime_ms: u64,
    /// Samples admitted since start.
    pub samples: u64,
    /// Records held that are not committed.
    pub backlog_records: u64,
    /// Their bytes on disk.
    pub backlog_bytes: u64,
    /// Records evicted since start.
    pub evicted: u64,
    /// Publishes repeated since start.
    pub resent: u64,
    /// Resident memory, if known.
    pub memory_bytes: Option<u64>,
}

/// Bytes of a seal that is there: flag, counter, code.
const SEAL_BYTES: usize = 1 + 8 + 16;

/// Why a body was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Not postcard of this message, or bytes follow it.
    #[error("the body is not a {0:?} message")]
    Body(Kind),
    /// Its numbers contradict each other or pass their limits.
    #[error("the numbers of a {0:?} message make no sense")]
    Sense(Kind),
    /// The seal has an unknown form.
    #[error("the seal of a {0:?} message has an unknown form")]
    Seal(Kind),
}

/// A body with a frame kind of its own.
pub trait Body: Serialize + DeserializeOwned {
    /// The kind of its frame.
    const KIND: Kind;
    /// Whether a seal stands before it.
    const SEALED: bool;
    /// Whether its numbers make sense; checked after decoding.
    fn makes_sense(&self) -> bool;
}

/// Reserved room for the proof that a down message is the collector's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seal {
    /// Rises with every message to this sender.
    pub counter: u64,
    /// First half of the HMAC-SHA-256.
    pub mac: [u8; 16],
}

/// Writes the payload of a message's frame, unsealed; returns its length.
///
/// # Errors
/// [`NoRoom`] if `out` is too short; [`MAX_MESSAGE_BYTES`] always suffices.
pub fn encode<M: Body>(message: &M, out: &mut [u8]) -> Result<usize, NoRoom> {
    encode_sealed(message, None, out)
}

/// Writes the payload of a down message's frame with its seal; returns its length.
///
/// # Errors
/// As [`encode`].
pub fn encode_sealed<M: Body>(
    message: &M,
    seal: Option<&Seal>,
    out: &mut [u8],
) -> Result<usize, NoRoom> {
    let mut at = 0;
    if M::SEALED {
        if let Some(seal) = seal {
            let room = out.first_chunk_mut::<SEAL_BYTES>().ok_or(NoRoom)?;
            room[0] = 1;
            room[1..9].copy_from_slice(&seal.counter.to_le_bytes());
            room[9..].copy_from_slice(&seal.mac);
            at = SEAL_BYTES;
        } else {
            *out.first_mut().ok_or(NoRoom)? = 0;
            at = 1;
        }
    }
    let body = out.get_mut(at..).ok_or(NoRoom)?;
    let written = postcard::to_slice(message, body).map_err(|_| NoRoom)?.len();
    Ok(at + written)
}

/// Writes a whole frame, unsealed; returns its length.
///
/// # Errors
/// As [`encode`].
pub fn encode_frame<M: Body>(message: &M, out: &mut [u8]) -> Result<usize, NoRoom> {
    let mut payload = [0u8; MAX_MESSAGE_BYTES];
    let len = encode(message, &mut payload)?;
    frame::encode(M::KIND, &payload[..len], out)
}

/// The payload of a message's frame, unsealed.
#[cfg(feature = "alloc")]
#[must_use]
pub fn to_vec<M: Body>(message: &M) -> alloc::vec::Vec<u8> {
    let mut out = alloc::vec![0; MAX_MESSAGE_BYTES];
    let len = encode(message, &mut out).expect("MAX_MESSAGE_BYTES holds every message");
    out.truncate(len);
    out
}

/// Appends a whole frame, unsealed.
#[cfg(feature = "alloc")]
pub fn append_frame<M: Body>(message: &M, out: &mut alloc::vec::Vec<u8>) {
    frame::append(M::KIND, &to_vec(message), out).expect("a message is far below a frame's limit");
}

/// Reads the payload of a message's frame.
///
/// # Errors
/// [`MessageError`]. Never panics, whatever the bytes.
pub fn decode<M: Body>(payload: &[u8]) -> Result<M, MessageError> {
    decode_sealed(payload).map(|(message, _, _)| message)
}

/// Reads the payload of a message's frame: the message, its seal, and the body's bytes, over which
/// the seal is computed.
///
/// # Errors
/// As [`decode`].
pub fn decode_sealed<M: Body>(payload: &[u8]) -> Result<(M, Option<Seal>, &[u8]), MessageError> {
    let (seal, body) = if M::SEALED { split_seal::<M>(payload)? } else { (None, payload) };
    let (message, rest) =
        postcard::take_from_bytes::<M>(body).map_err(|_| MessageError::Body(M::KIND))?;
    if !rest.is_empty() {
        return Err(MessageError::Body(M::KIND));
    }
    if !message.makes_sense() {
        return Err(MessageError::Sense(M::KIND));
    }
    Ok((message, seal, body))
}

fn split_seal<M: Body>(payload: &[u8]) -> Result<(Option<Seal>, &[u8]), MessageError> {
    let error = MessageError::Seal(M::KIND);
    match payload.split_first() {
        Some((0, body)) => Ok((None, body)),
        Some((1, rest)) => {
            let (counter, rest) = rest.split_first_chunk::<8>().ok_or(error)?;
            let (mac, body) = rest.split_first_chunk::<16>().ok_or(error)?;
            Ok((Some(Seal { counter: u64::from_le_bytes(*counter), mac: *mac }), body))
        }
        _ => Err(error),
    }
}

/// Below the limit and in order.
const fn is_range(first: u64, next: u64) -> bool {
    first <= next && next <= MAX_SEQ
}

/// 63 bits, as [`Epoch::new`] makes them.
const fn is_epoch(epoch: Epoch) -> bool {
    epoch.get() >> 63 == 0
}

const fn is_page(page: u8, pages: u8) -> bool {
    page < pages && pages <= MAX_PAGES
}

fn are_marks(marks: &[Mark]) -> bool {
    marks.iter().all(|mark| {
        let mut edge = mark.received;
        is_epoch(mark.epoch)
            && mark.committed <= mark.received
            && mark.received <= MAX_SEQ
            && mark.ranges.iter().all(|range| {
                let in_order = edge <= range.first && range.first < range.next;
                edge = range.next;
                in_order && range.next <= MAX_SEQ
            })
    })
}

impl Body for Hello {
    const KIND: Kind = Kind::Hello;
    const SEALED: bool = false;
    fn makes_sense(&self) -> bool {
        self.version_min <= self.version_max
            && is_page(self.page, self.pages)
            && self.streams.iter().all(|s| is_epoch(s.epoch) && is_range(s.oldest, s.next))
    }
}

impl Body for Stat {
    const KIND: Kind = Kind::Stat;
    const SEALED: bool = false;
    fn makes_sense(&self) -> bool {
        true
    }
}

impl Body for Gap {
    const KIND: Kind = Kind::Gap;
    const SEALED: bool = false;
    fn makes_sense(&self) -> bool {
        is_epoch(self.epoch)
            && self.seqs.is_none_or(|range| is_range(range.first, range.next) && !range.is_empty())
            && self.t_first.zip(self.t_last).is_none_or(|(first, last)| first <= last)
    }
}

impl Body for EpochEnd {
    const KIND: Kind = Kind::EpochEnd;
    const SEALED: bool = false;
    fn makes_sense(&self) -> bool {
        is_epoch(self.epoch) && is_range(self.first, self.next)
    }
}

impl Body for Welcome {
    const KIND: Kind = Kind::Welcome;
    const SEALED: bool = true;
    fn makes_sense(&self) -> bool {
        is_page(self.page, self.pages) && are_marks(&self.marks)
    }
}

impl Body for Ack {
    const KIND: Kind = Kind::Ack;
    const SEALED: bool = true;
    fn makes_sense(&self) -> bool {
        are_marks(&self.marks)
    }
}

impl Body for Reject {
    const KIND: Kind = Kind::Reject;
    const SEALED: bool = true;
    fn makes_sense(&self) -> bool {
        is_epoch(self.epoch) && is_range(self.range.first, self.range.next)
    }
}

impl Body for SchemaRequest {
    const KIND: Kind = Kind::SchemaRequest;
    const SEALED: bool = true;
    fn makes_sense(&self) -> bool {
        is_epoch(self.epoch)
    }
}
