//! Core: the bytes of the journal's records.
//!
//! Everything that decides is decided when a record arrives and is stored in its envelope, so that
//! each sink, today or after a restart, says the same about it; what it means beside that is said by
//! the rule set that the envelope names ([`super::rules`]). The journal's log frames, numbers
//! and checksums each record and keeps its kind; the payload is:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | envelope version, now 5 |
//! | n | head of the kind ([`BatchHead`], [`RawHead`] ...), postcard |
//! | rest | body: the frame as it came, the payload of a publish, the bytes of a schema or plan |
//!
//! New kinds only at new numbers, new enum variants only at the end; a changed head is a new
//! version.

use headwater_proto::ids::{DeviceId, Epoch, JournalId, SeqRange, Stream};
use headwater_proto::message::GapReason;
use headwater_proto::portion::Portion;
use headwater_proto::time::{Base, UnixMicros};
use serde::{Deserialize, Serialize};

use super::rules::RulesId;

/// The envelope version this build writes and reads.
pub const VERSION: u8 = 5;

/// Position of a sink that is gone: all it lacks is named.
pub const GONE: u64 = u64::MAX;

/// Between a journal and a sink of it in the name of a place, where that journal is not the present one.
pub const SINK_OF: char = '/';

/// Most bytes of a record of decoder states: it stands in each segment, and is memory of each reader.
pub const MAX_DECODER_STATE_BYTES: usize = 1 << 20;

/// What a journal record is. Numbers are part of the disk format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// A numbered frame of an agent or node.
    Batch = 1,
    /// One publish of a plain MQTT device.
    Raw = 2,
    /// What a sink is about to publish.
    Plan = 3,
    /// How far a sink has come.
    Cursor = 4,
    /// A change to a stream that is not data: opened, abandoned.
    Mark = 5,
    /// A change to the device registry.
    Registry = 6,
    /// A change to the persistent MQTT sessions.
    Session = 7,
    /// Binds a schema number to its bytes.
    Schema = 8,
    /// Loss that the collector itself names.
    Gap = 9,
    /// A frame that waits for what it needs to be dated or decoded.
    Park = 10,
    /// The first record of a segment: whose journal it is, should the snapshot be unreadable.
    Begin = 11,
    /// A rule set, before the first record that names it.
    Rules = 12,
    /// What decoders remember of devices from one record to the next; one in each segment's preamble.
    DecoderState = 13,
    /// What one sink lacks.
    Lacks = 14,
    /// What the collector's own clock is worth from here on, and was worth.
    Clock = 15,
    /// Which part of a source's content the records before it hold.
    Portion = 16,
}

impl RecordKind {
    /// Every kind.
    pub const ALL: [Self; 16] = [
        Self::Batch,
        Self::Raw,
        Self::Plan,
        Self::Cursor,
        Self::Mark,
        Self::Registry,
        Self::Session,
        Self::Schema,
        Self::Gap,
        Self::Park,
        Self::Begin,
        Self::Rules,
        Self::DecoderState,
        Self::Lacks,
        Self::Clock,
        Self::Portion,
    ];

    /// Its number on disk.
    #[must_use]
    pub const fn to_u8(self) -> u8 {
        self as u8
    }

    /// The kind of a number this build knows.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.to_u8() == number)
    }
}

/// Why a record goes to quarantine instead of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// The same identity came before with different content.
    IdentityConflict,
    /// The bytes cannot be decoded with their schema.
    Undecodable,
    /// A kind or version that this build does not store.
    UnknownKind,
    /// A publish that its topic's decoder cannot read.
    BadPayload,
    /// A publish on a topic that no pattern maps to a device.
    UnknownTopic,
    /// A time outside the window that is believed.
    ImpossibleTime,
    /// A time that counts from a boot which nothing dates.
    Undated,
    /// A part of an input that the device's source could not read.
    RefusedInput,
    /// A publish of a plain device beyond the most that are kept apart.
    TooManyDevices,
}

impl Reason {
    /// Its name in the lake and in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::IdentityConflict => "identity_conflict",
            Self::Undecodable => "undecodable",
            Self::UnknownKind => "unknown_kind",
            Self::BadPayload => "bad_payload",
            Self::UnknownTopic => "unknown_topic",
            Self::ImpossibleTime => "impossible_time",
            Self::Undated => "undated",
            Self::RefusedInput => "refused_input",
            Self::TooManyDevices => "too_many_devices",
        }
    }
}

/// What the collector decided about a record when it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Verdict {
    /// Its rows belong in the tables.
    Store,
    /// Its bytes belong in quarantine.
    Quarantine(Reason),
}

/// How the times of a record become Unix time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TimeClass {
    /// The device said that its clock was synchronised.
    Synced,
    /// The device had wall time that nothing synchronised, or that a receipt proved wrong.
    Wall,
    /// The device counted from boot; the collector dated the boot.
    Dated,
    /// The device sent no time; it is the time of receipt.
    Received,
    /// The device counted from a boot that nothing dates: its rows go to quarantine.
    Undated,
}

/// The clock decision for one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Clock {
    /// Where the times come from.
    pub class: TimeClass,
    /// Added to the record's times to get Unix time, in microseconds.
    pub offset_us: i64,
    /// Most that the result may be wrong by, in milliseconds; `None`: nobody knows.
    pub error_ms: Option<u32>,
}

impl Clock {
    /// Times are Unix time already, from a clock that the device says is synchronised to the millisecond.
    pub const SYNCED: Self = Self {
        class: TimeClass::Synced,
        offset_us: 0,
        error_ms: Some(1),
    };
    /// Times count from a boot that nothing dates.
    pub const UNDATED: Self = Self {
        class: TimeClass::Undated,
        offset_us: 0,
        error_ms: None,
    };
}

/// How a sender's clocks compare with a receipt. Times of receipt are by the collector's own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Evidence {
    /// Its records have wall times.
    Wall {
        /// The sender says that its clock was synchronised.
        synced: bool,
        /// How far it says that its clock may be off, in milliseconds.
        error_ms: Option<u32>,
        /// Receipt minus its wall time, in microseconds.
        behind_us: i64,
    },
    /// Its records count from the boot that runs.
    Uptime {
        /// Its uptime, in microseconds.
        uptime_us: i64,
        /// Its wall time minus its uptime, how far that may be off in milliseconds, and receipt minus wall time.
        wall: Option<(i64, u32, i64)>,
        /// Receipt minus uptime, in microseconds: when the boot began.
        began_us: i64,
        /// Several receipts say so.
        confirmed: bool,
    },
}

/// A stretch of the journal in which nobody knew what the collector's wall clock was worth. Times of receipt in
/// its records count from its zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undated {
    /// Rises from one to the next.
    pub number: u64,
    /// The machine's boot.
    pub boot: u64,
    /// Added to the microseconds since that boot, it gives the times in the records.
    pub zero_us: i64,
    /// The devices' clocks spoke against the collector's. If not, no time in the records is later than the truth.
    pub by_fleet: bool,
    /// The last time in its records, where it is over; else the first.
    pub last_us: i64,
}

/// What turns the times of receipt of an undated stretch into Unix time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tie {
    /// The stretch.
    pub number: u64,
    /// To be added, in microseconds.
    pub offset_us: i64,
    /// Most that the result may be wrong by, in milliseconds.
    pub error_ms: u32,
    /// The first position after the stretch.
    pub until: u64,
}

impl Tie {
    /// The times are Unix time already.
    pub const NONE: Self = Self {
        number: 0,
        offset_us: 0,
        error_ms: 0,
        until: 0,
    };
}

/// Head of [`RecordKind::Clock`]; no body. It stands in each [`BeginHead`] too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockHead {
    /// The stretch that the records after it belong to; `None`: their times of receipt are Unix time.
    pub undated: Option<Undated>,
    /// Earlier stretches that nothing ties to Unix time yet, oldest first.
    pub waiting: Vec<Undated>,
    /// What ties earlier stretches, of which the journal may hold records.
    pub ties: Vec<Tie>,
}

/// How the span of a loss is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Known {
    /// From the missing rows themselves.
    Exact,
    /// From the rows before and after them in their stream.
    Neighbours,
    /// One side is open: it is the start of the epoch, or when the loss was named. Or both are times of receipt.
    Bounds,
    /// Nothing is missing: it is when the records came.
    Nothing,
}

/// The time in which what is missing was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Span {
    /// Its start; 0 if nothing is known before.
    pub first: UnixMicros,
    /// Its end.
    pub last: UnixMicros,
    /// How these two are known.
    pub known: Known,
}

/// Head of [`RecordKind::Batch`] and [`RecordKind::Park`]; the body is the whole frame, so that its
/// checksum travels on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchHead {
    /// The origin's stream.
    pub stream: Stream,
    /// The record's number in it.
    pub seq: u64,
    /// What was decided.
    pub verdict: Verdict,
    /// When it arrived.
    pub at: UnixMicros,
    /// How its times become Unix time.
    pub clock: Clock,
    /// The gateway that carried it, if another than its origin.
    pub via: Option<DeviceId>,
    /// The rule set that says what it means.
    pub rules: RulesId,
    /// When the rows were made that are lost with it, or that it names as lost; `None` where its frame says that.
    pub around: Option<Span>,
    /// Decides [`Self::clock`] once it is known what the collector's own clock is worth; `None`: it is final.
    pub evidence: Option<Evidence>,
}

/// Head of [`RecordKind::Raw`]; the body is the publish's payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawHead<'a> {
    /// The device, from the topic alone.
    pub device: DeviceId,
    /// The epoch under which the journal numbers the device's records.
    pub epoch: Epoch,
    /// The record's number in that stream.
    pub seq: u64,
    /// What was decided.
    pub verdict: Verdict,
    /// When it arrived.
    pub at: UnixMicros,
    /// The rule set that says what it means.
    pub rules: RulesId,
    /// Which of its rules reads the payload.
    pub rule: u16,
    /// Name of the metric, where the topic gives one.
    pub metric: &'a str,
    /// The topic as published.
    pub topic: &'a str,
    /// The MQTT client that published it.
    pub client: &'a str,
    /// Its packet id; 0 for QoS 0.
    pub packet_id: u16,
    /// Hash of topic and payload, as the repeat rule compares it.
    pub hash: u64,
}

/// Head of [`RecordKind::Plan`]; the body is the sink's own plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanHead<'a> {
    /// The sink.
    pub sink: &'a str,
}

/// Head of [`RecordKind::Cursor`]; no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CursorHead<'a> {
    /// The sink; `<journal>/<sink>` if it is one of an earlier journal.
    pub sink: &'a str,
    /// The first position it has not committed, [`GONE`] if it was taken out; of an earlier journal the
    /// position up to which all that it lacks is named.
    pub position: u64,
}

/// A change to a stream that is not data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Change {
    /// A Hello listed the epoch for the first time.
    Opened {
        /// The oldest record that the sender still held.
        oldest: u64,
        /// The epoch lives in memory only and is never continued.
        ram: bool,
        /// The boot in which the epoch was written, 0 if its sender no longer knows.
        boot: u64,
        /// Where the times of its records count from.
        base: Base,
        /// A gateway listed it for another device.
        relayed: bool,
    },
    /// A Hello no longer listed the epoch: what is missing of it will not come.
    Abandoned {
        /// The end of the epoch as far as the collector can know it.
        next: u64,
    },
    /// Records that the journal took and can read no more, and no sink got: they may come again.
    Lost {
        /// Their numbers.
        range: SeqRange,
    },
    /// A Hello said that the sender has more on its disk than came: if it never comes, a gap names it.
    Claimed {
        /// One more than the highest number that it has.
        next: u64,
    },
}

/// Head of [`RecordKind::Mark`]; no body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkHead {
    /// The stream.
    pub stream: Stream,
    /// What happened to it.
    pub change: Change,
    /// When.
    pub at: UnixMicros,
}

/// Head of a portion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortionHead {
    /// Whose source it is.
    pub origin: DeviceId,
    /// The epoch of the records that hold it.
    pub epoch: Epoch,
    /// What they hold.
    pub portion: Portion,
}

/// Head of [`RecordKind::Session`]; no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionHead<'a> {
    /// The MQTT client id.
    pub client: &'a str,
    /// Whether a persistent session exists from now on.
    pub present: bool,
}

/// Head of [`RecordKind::Schema`]; the body is the schema's bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SchemaHead {
    /// The origin that numbered it.
    pub origin: DeviceId,
    /// The epoch within which the number holds.
    pub epoch: Epoch,
    /// The number.
    pub number: u32,
}

/// Head of [`RecordKind::Gap`]; no body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapHead {
    /// The stream with the loss.
    pub stream: Stream,
    /// The records that are lost; `None` where only time is known.
    pub range: Option<SeqRange>,
    /// When their rows were made.
    pub span: Span,
    /// Why.
    pub reason: GapReason,
    /// When it was found.
    pub at: UnixMicros,
}

/// Head of [`RecordKind::Lacks`]; no body. It is appended before the sink's cursor passes the numbers,
/// and so before their segment goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LacksHead<'a> {
    /// The sink.
    #[serde(borrow)]
    pub sink: &'a str,
    /// The stream.
    pub stream: Stream,
    /// The numbers, and when their rows were made. It may have some of them all the same, if its answer never came.
    pub ranges: Vec<(SeqRange, Span)>,
    /// Why.
    pub reason: GapReason,
    /// When it was found.
    pub at: UnixMicros,
}

/// How far a sink has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkCursor {
    /// The sink.
    pub name: String,
    /// The first position that it has not committed.
    pub position: u64,
}

/// Head of [`RecordKind::Begin`]; no body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeginHead {
    /// The journal that the segment belongs to.
    pub journal: JournalId,
    /// The epoch under which it numbers plain devices.
    pub plain_epoch: Epoch,
    /// Where it stood when it was last at one with the lake, if it was begun without it.
    pub apart_since: Option<u64>,
    /// How far each sink was when the segment began.
    pub sinks: Vec<SinkCursor>,
    /// What the collector's clock is worth in the segment, until a record says otherwise.
    pub clock: ClockHead,
}

/// What a decoder remembers of one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecoderState {
    /// The device.
    pub device: DeviceId,
    /// Which decoder.
    pub decoder: u16,
    /// The record after which it was so.
    pub position: u64,
    /// The decoder's own bytes.
    pub bytes: Vec<u8>,
}

/// Head of [`RecordKind::DecoderState`]; no body. With the head at most
/// [`MAX_DECODER_STATE_BYTES`] in all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecoderStates {
    /// By device and decoder. No decoder of this build remembers anything.
    pub states: Vec<DecoderState>,
}

/// A journal record as read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record<'a> {
    /// A numbered frame.
    Batch(BatchHead, &'a [u8]),
    /// A plain publish.
    Raw(RawHead<'a>, &'a [u8]),
    /// A sink's plan.
    Plan(PlanHead<'a>, &'a [u8]),
    /// A sink's cursor.
    Cursor(CursorHead<'a>),
    /// A change to a stream.
    Mark(MarkHead),
    /// A change to the registry: opaque here, the registry reads it.
    Registry(&'a [u8]),
    /// A change to the sessions.
    Session(SessionHead<'a>),
    /// A schema.
    Schema(SchemaHead, &'a [u8]),
    /// A loss.
    Gap(GapHead),
    /// A frame that waits.
    Park(BatchHead, &'a [u8]),
    /// The first of a segment.
    Begin(BeginHead),
    /// A rule set.
    Rules(&'a [u8]),
    /// What decoders remember.
    DecoderState(DecoderStates),
    /// Numbers of a stream that a sink lacks.
    Lacks(LacksHead<'a>),
    /// What the collector's clock is worth.
    Clock(ClockHead),
    /// Which part of a source's content is held.
    Portion(PortionHead),
}

/// Why a journal record cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Another version.
    #[error("envelope version {0} is unknown here")]
    Version(u8),
    /// Another kind.
    #[error("journal record kind {0} is unknown here")]
    Kind(u8),
    /// The head does not decode.
    #[error("the head of a journal record does not decode")]
    Head,
    /// It has no date yet.
    #[error("a record that came while the collector's clock was in doubt is not dated yet")]
    Undated,
}

/// Writes `head` and `body` to `out`, which is cleared first.
fn write<T: Serialize>(head: &T, body: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.push(VERSION);
    let filled = postcard::to_extend(head, std::mem::take(out));
    // Heads hold only bounded plain values, and a vector takes whatever it is given.
    *out = filled.expect("a head always serialises into a growing buffer");
    out.extend_from_slice(body);
}

impl EnvelopeError {
    /// Whether another version of this program may know what this one does not.
    #[must_use]
    pub const fn is_other_version(self) -> bool {
        match self {
            Self::Version(_) | Self::Kind(_) => true,
            Self::Head | Self::Undated => false,
        }
    }
}

impl Record<'_> {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> RecordKind {
        match self {
            Self::Batch(..) => RecordKind::Batch,
            Self::Raw(..) => RecordKind::Raw,
            Self::Plan(..) => RecordKind::Plan,
            Self::Cursor(_) => RecordKind::Cursor,
            Self::Mark(_) => RecordKind::Mark,
            Self::Registry(_) => RecordKind::Registry,
            Self::Session(_) => RecordKind::Session,
            Self::Schema(..) => RecordKind::Schema,
            Self::Gap(_) => RecordKind::Gap,
            Self::Park(..) => RecordKind::Park,
            Self::Begin(_) => RecordKind::Begin,
            Self::Rules(_) => RecordKind::Rules,
            Self::DecoderState(_) => RecordKind::DecoderState,
            Self::Lacks(_) => RecordKind::Lacks,
            Self::Clock(_) => RecordKind::Clock,
            Self::Portion(_) => RecordKind::Portion,
        }
    }

    /// Writes the payload for the journal to `out`, which is cleared first.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Batch(head, body) | Self::Park(head, body) => write(head, body, out),
            Self::Raw(head, body) => write(head, body, out),
            Self::Plan(head, body) => write(head, body, out),
            Self::Cursor(head) => write(head, &[], out),
            Self::Mark(head) => write(head, &[], out),
            Self::Registry(body) | Self::Rules(body) => write(&(), body, out),
            Self::Session(head) => write(head, &[], out),
            Self::Schema(head, body) => write(head, body, out),
            Self::Gap(head) => write(head, &[], out),
            Self::Begin(head) => write(head, &[], out),
            Self::DecoderState(head) => write(head, &[], out),
            Self::Lacks(head) => write(head, &[], out),
            Self::Clock(head) => write(head, &[], out),
            Self::Portion(head) => write(head, &[], out),
        }
    }
}

/// Reads the record of `kind` from its payload.
///
/// # Errors
/// [`EnvelopeError`] for a version, kind or head that this build does not know.
pub fn decode(kind: u8, payload: &[u8]) -> Result<Record<'_>, EnvelopeError> {
    fn head<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<(T, &'a [u8]), EnvelopeError> {
        postcard::take_from_bytes(bytes).map_err(|_| EnvelopeError::Head)
    }
    let kind = RecordKind::from_u8(kind).ok_or(EnvelopeError::Kind(kind))?;
    let (&version, bytes) = payload.split_first().ok_or(EnvelopeError::Head)?;
    if version != VERSION {
        return Err(EnvelopeError::Version(version));
    }
    Ok(match kind {
        RecordKind::Batch => head(bytes).map(|(head, body)| Record::Batch(head, body))?,
        RecordKind::Raw => head(bytes).map(|(head, body)| Record::Raw(head, body))?,
        RecordKind::Plan => head(bytes).map(|(head, body)| Record::Plan(head, body))?,
        RecordKind::Cursor => head(bytes).map(|(head, _)| Record::Cursor(head))?,
        RecordKind::Mark => head(bytes).map(|(head, _)| Record::Mark(head))?,
        RecordKind::Registry => Record::Registry(bytes),
        RecordKind::Session => head(bytes).map(|(head, _)| Record::Session(head))?,
        RecordKind::Schema => head(bytes).map(|(head, body)| Record::Schema(head, body))?,
        RecordKind::Gap => head(bytes).map(|(head, _)| Record::Gap(head))?,
        RecordKind::Park => head(bytes).map(|(head, body)| Record::Park(head, body))?,
        RecordKind::Begin => head(bytes).map(|(head, _)| Record::Begin(head))?,
        RecordKind::Rules => Record::Rules(bytes),
        RecordKind::DecoderState if bytes.len() > MAX_DECODER_STATE_BYTES => {
            return Err(EnvelopeError::Head);
        }
        RecordKind::DecoderState => head(bytes).map(|(head, _)| Record::DecoderState(head))?,
        RecordKind::Lacks => head(bytes).map(|(head, _)| Record::Lacks(head))?,
        RecordKind::Clock => head(bytes).map(|(head, _)| Record::Clock(head))?,
        RecordKind::Portion => head(bytes).map(|(head, _)| Record::Portion(head))?,
    })
}

#[cfg(test)]
mod tests;
