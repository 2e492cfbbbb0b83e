//! Messages about records: bodies of the control frames, of gaps and of epoch ends.
//!
//! All bodies are postcard. New enum variants come only at the end and a struct never gains a
//! field: a new need is a new frame kind or a new version, agreed on in Hello. Every list and text is
//! bounded, so that no body passes [`MAX_MESSAGE_BYTES`].
//!
//! | frame | way | body |
//! |---|---|---|
//! | Hello | up | [`Hello`], one page |
//! | Stat | up | [`Stat`] |
//! | Gap, EpochEnd, TimeBase | up, numbered | [`Gap`], [`EpochEnd`], [`TimeBase`] |
//! | Portion | up, in a bundle | [`Portion`](crate::portion::Portion) |
//! | Held | down | seal, [`Held`](crate::portion::Held) |
//! | Welcome | down | seal, [`Welcome`], one page |
//! | Ack | down | seal, [`Ack`] |
//! | Reject | down | seal, [`Reject`] |
//! | SchemaRequest | down | seal, [`SchemaRequest`] |
//!
//! The payload of every down frame begins with its seal, which shows a forged acknowledgement where the
//! broker is not trusted:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | 0: unsealed, the body follows; 1: sealed |
//! | 8 | counter, little-endian, only if sealed |
//! | 16 | first half of HMAC-SHA-256 over (sender, nonce of its latest Hello, counter, body), only if sealed |
//! | n | body |
//!
//! `Config` and `Command` frames have their numbers, and no body yet.

mod body;

use heapless::Vec;
use serde::{Deserialize, Serialize};

use crate::ids::{DeviceId, Epoch, JournalId, Lane, MAX_DEVICE_ID_BYTES, SeqRange};
use crate::time::{Base, UnixMicros};

pub use body::{
    Body, MessageError, Seal, decode, decode_sealed, encode, encode_frame, encode_sealed,
};
#[cfg(feature = "alloc")]
pub use body::{append_frame, to_vec};

/// Protocol version this build speaks; [`Hello`] offers a span of them.
pub const PROTOCOL: u8 = 2;
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
    /// The time that it shows.
    pub time: UnixMicros,
    /// Largest error of the time in milliseconds, as measured; `None`: nothing synchronises the clock.
    pub error_ms: Option<u32>,
}

/// One stream in a Hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloStream {
    /// Lane of the stream.
    pub lane: Lane,
    /// Epoch of the stream.
    pub epoch: Epoch,
    /// Lowest sequence number the sender still holds; `next` if it holds none.
    pub oldest: u64,
    /// One more than the highest it has made durable so far.
    pub next: u64,
    /// Records live in RAM and may be gone after the next power cut.
    pub ram: bool,
    /// The writer has ended: no record will be added.
    pub ended: bool,
    /// The boot in which the epoch was written; 0 if the sender no longer knows.
    pub boot: u64,
    /// Where the times of its records count from.
    pub base: Base,
}

/// Up: all that the sender holds of one origin. Sent after each connect, and as a probe.
///
/// A gateway sends one for each of its nodes, under the node's id. Such a *relayed* Hello, whose origin is
/// not the device of its topic, is never complete to the receiver, and its `oldest` proves no loss:
/// another gateway may hold the missing records. `boot`, `uptime_ms` and `wall` are then the node's;
/// `wall` is that uptime as the gateway's clock dates it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello<const N: usize = MAX_DEVICE_ID_BYTES> {
    /// Lowest protocol version the sender speaks.
    pub version_min: u8,
    /// Highest protocol version the sender speaks.
    pub version_max: u8,
    /// The device whose streams these are.
    pub origin: DeviceId<N>,
    /// Random, new for each Hello, the same on all its pages; the Welcome echoes it.
    pub nonce: u64,
    /// This page, from 0.
    pub page: u8,
    /// Pages in all, at least 1. A Hello takes effect when all its pages are there.
    pub pages: u8,
    /// Whether the pages list *all* streams of the sender. Only then is a stream that they lack abandoned.
    pub complete: bool,
    /// The sender's boot: an id that no other boot of a device of its name has, or times of one would be dated by
    /// the clock of the other.
    pub boot: u64,
    /// Milliseconds since that boot.
    pub uptime_ms: u64,
    /// Its wall clock, if it has one.
    pub wall: Option<WallClock>,
    /// Largest down publish it can take, in bytes: every answer is split to fit.
    pub max_bundle: u32,
    /// The streams, at most one page of them.
    pub streams: Vec<HelloStream, MAX_HELLO_STREAMS>,
}

/// A range beyond `received`, and whether it is committed too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AckRange {
    /// First number of the range.
    pub first: u64,
    /// First number after the range.
    pub next: u64,
    /// Whether the sender may forget these.
    pub committed: bool,
}

/// Progress of one stream at the receiver. Cumulative.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Lane of the stream.
    pub lane: Lane,
    /// Epoch of the stream.
    pub epoch: Epoch,
    /// All below it, from the sender's oldest on, is durable at the receiver and need not be sent again.
    pub received: u64,
    /// All below it may be forgotten by the sender. At most `received`.
    pub committed: u64,
    /// Durable ranges beyond `received`, lowest first.
    pub ranges: Vec<AckRange, MAX_ACK_RANGES>,
}

/// Down: the answer to a Hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome<const N: usize = MAX_DEVICE_ID_BYTES> {
    /// The protocol version from here on.
    pub version: u8,
    /// Device whose streams these are.
    pub origin: DeviceId<N>,
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
    /// The receiver's wall clock; 0 while it does not know what that is worth.
    pub time: UnixMicros,
    /// One for each stream of the Hello, at most one page of them.
    pub marks: Vec<Mark, MAX_MARKS>,
}

/// Down: marks that moved. Idempotent; any of them may be lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack<const N: usize = MAX_DEVICE_ID_BYTES> {
    /// Device whose streams these are.
    pub origin: DeviceId<N>,
    /// The journal that the marks speak of.
    pub journal: JournalId,
    /// Most bytes in flight, as in [`Welcome`].
    pub credit: u32,
    /// The receiver's wall clock; 0 while it does not know what that is worth.
    pub time: UnixMicros,
    /// Streams whose marks moved.
    pub marks: Vec<Mark, MAX_MARKS>,
}

/// Why the receiver refused records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RejectReason {
    /// The epoch was in no Hello of this connection: send Hello, then the records again.
    NotInHello,
    /// More holes than the receiver keeps: send the oldest first.
    TooManyHoles,
    /// Sent beyond the credit: send again later.
    NoCredit,
    /// The publish was damaged or not whole: send again.
    Damaged,
    /// The receiver could not make the publish durable: send again.
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
    /// The sender speaks no protocol version of the receiver: it keeps its records, and sends again when
    /// one of the two was updated.
    Version,
}

impl RejectReason {
    /// Whether the same records will be refused for ever: the sender keeps a dead-letter copy and records
    /// a gap.
    #[must_use]
    pub const fn is_final(self) -> bool {
        match self {
            Self::NotInHello
            | Self::TooManyHoles
            | Self::NoCredit
            | Self::Damaged
            | Self::NotDurable
            | Self::Version => false,
            Self::Conflict
            | Self::Unsupported
            | Self::TooLarge
            | Self::Forbidden
            | Self::Policy => true,
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
            Self::Version => "version",
        }
    }
}

/// Down: records that the receiver refused before custody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reject<const N: usize = MAX_DEVICE_ID_BYTES> {
    /// Device whose stream it is.
    pub origin: DeviceId<N>,
    /// Lane of the stream.
    pub lane: Lane,
    /// Epoch of the stream.
    pub epoch: Epoch,
    /// Refused records.
    pub range: SeqRange,
    /// Cause, and whether sending again can help.
    pub reason: RejectReason,
}

impl<const N: usize> Reject<N> {
    /// What a sender is told of which no version is spoken here. It keeps what it has, and asks again.
    #[must_use]
    pub fn of_version(hello: &Hello<N>) -> Self {
        let first = hello.streams.first();
        Self {
            origin: hello.origin.clone(),
            lane: first.map_or(Lane::Normal, |stream| stream.lane),
            epoch: first.map_or(Epoch::new(0), |stream| stream.epoch),
            range: first.map_or(SeqRange::new(0, 0), |s| SeqRange::new(s.oldest, s.next)),
            reason: RejectReason::Version,
        }
    }
}

/// Down: a schema number that the collector cannot resolve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaRequest<const N: usize = MAX_DEVICE_ID_BYTES> {
    /// The device that numbered it.
    pub origin: DeviceId<N>,
    /// The lane in which it was seen.
    pub lane: Lane,
    /// The epoch within which it is numbered.
    pub epoch: Epoch,
    /// Number of the schema within (origin, epoch).
    pub schema: u32,
}

/// Why records or samples are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum GapReason {
    /// The quota was reached, and the oldest records were evicted.
    Evicted,
    /// The writer stopped without a clean end: samples after its last durable one are lost.
    UncleanStop,
    /// The collector refused the records for good; a dead-letter copy exists.
    Refused,
    /// The records failed their checksum when they were read.
    Damaged,
    /// The sender no longer holds records that the receiver never got.
    MissingAtSource,
    /// The epoch's writer vanished with its disk.
    Abandoned,
    /// The collector stored the record and could not decode it; it is in quarantine.
    Undecodable,
    /// An optional sink fell off the journal.
    SinkSkipped,
    /// Samples were not admitted because a buffer was full.
    Overflow,
    /// The disk or its sync failed before the samples were durable.
    DiskError,
    /// A copy kept for later (parked, quarantined, dead letter) was dropped to stay within quota.
    CopyDropped,
    /// A time the collector does not accept.
    ImpossibleTime,
    /// A coarser gap of several that were merged at their bound.
    Many,
    /// The records hold no sample, so none is missing.
    Empty,
    /// The samples were stored before, under another identity.
    Repeated,
    /// The collector's journal was lost before it was known that a sink has the records; it may have them.
    JournalLost,
}

impl GapReason {
    /// Every reason, for tables and tests.
    pub const ALL: [Self; 16] = [
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
        Self::Empty,
        Self::Repeated,
        Self::JournalLost,
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
            Self::Empty => "empty",
            Self::Repeated => "repeated",
            Self::JournalLost => "journal_lost",
        }
    }

    /// The reason of a name, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

/// The stage that recorded a gap.
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
    pub const ALL: [Self; 5] = [
        Self::Firmware,
        Self::Source,
        Self::Agent,
        Self::Collector,
        Self::Sink,
    ];

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

/// A gap: records or samples that are missing, of any origin, lane and epoch, not only its maker's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap<const N: usize = MAX_DEVICE_ID_BYTES> {
    /// Device whose records are missing.
    pub origin: DeviceId<N>,
    /// Lane of the stream.
    pub lane: Lane,
    /// Epoch of the stream; for samples that were never numbered, the epoch that would have held them.
    pub epoch: Epoch,
    /// Missing records; `None` for samples that were never numbered.
    pub seqs: Option<SeqRange>,
    /// How many samples, if known.
    pub samples: Option<u64>,
    /// Time of the first missing sample, if known.
    pub t_first: Option<UnixMicros>,
    /// Time of the last missing sample, if known.
    pub t_last: Option<UnixMicros>,
    /// Cause of the loss.
    pub reason: GapReason,
    /// The stage that recorded the gap.
    pub stage: Stage,
    /// The source or sink it concerns; `None` means all.
    pub part: Option<PartName>,
    /// Time of the record, by that stage's wall clock.
    pub at: UnixMicros,
}

/// How an epoch ended. Several for one epoch merge, see [`crate::delivery::epoch`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochEnd<const N: usize = MAX_DEVICE_ID_BYTES> {
    /// Device whose epoch it is.
    pub origin: DeviceId<N>,
    /// Lane of the stream.
    pub lane: Lane,
    /// Epoch of the stream.
    pub epoch: Epoch,
    /// First sequence number of the epoch.
    pub first: u64,
    /// One more than the last sequence number.
    pub next: u64,
    /// Whether nothing that the writer took can be missing beyond the records: it ended the epoch itself, or
    /// kept in it nothing of a source that cannot begin again. If it is not, a gap of the epoch with reason
    /// `unclean_stop` names the time of what may be.
    pub clean: bool,
    /// The boot in which it was written.
    pub boot: u64,
    /// Wall time up to which all that its writer took is durable, if known.
    pub last_durable: Option<UnixMicros>,
}

/// The wall time of one moment of a boot. It dates the records of that boot whose times count from it; the
/// clock of another boot never does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeBase<const N: usize = MAX_DEVICE_ID_BYTES> {
    /// Device that booted: the maker of the record, or a node of it.
    pub origin: DeviceId<N>,
    /// Id of the boot.
    pub boot: u64,
    /// Uptime of the moment in microseconds.
    pub uptime_us: u64,
    /// Wall time of the moment.
    pub wall: UnixMicros,
    /// Largest error of that wall time in milliseconds; `None`: the clock was not synchronised.
    pub error_ms: Option<u32>,
}

/// Up: health of the sender. It may be lost, and the lake does not store it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat<const N: usize = MAX_DEVICE_ID_BYTES> {
    /// Device that sends it.
    pub origin: DeviceId<N>,
    /// Version of its program, at most 32 bytes.
    pub program: heapless::String<32>,
    /// Id of its boot.
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
