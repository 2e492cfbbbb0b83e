//! Inputs and commands of a sender.

use crate::delivery::rto::RtoLimits;
use crate::ids::{Epoch, Lane, MAX_DEVICE_ID_BYTES, SeqRange};
use crate::message::{Ack, Reject, RejectReason, WallClock, Welcome};
use crate::time::Base;

/// Times and sizes of a sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderLimits {
    /// How long the first Hello waits for its Welcome, in ms; each further one waits twice as long.
    pub welcome_wait_ms: u64,
    /// Longest such wait, in ms.
    pub welcome_wait_max_ms: u64,
    /// Interval of Hellos while the credit is 0, in ms.
    pub probe_ms: u64,
    /// Longest silence while a record is not committed, in ms; a Hello ends it.
    pub quiet_ms: u64,
    /// Pause after a reject that is not final, in ms.
    pub pause_ms: u64,
    /// Largest bundle of this side, in bytes.
    pub max_bundle: u32,
    /// The resend time-out.
    pub rto: RtoLimits,
}

impl SenderLimits {
    /// 5 s to 2 min for a Welcome, probe after 30 s, silence of 90 s, pause 1 s, bundle 256 KiB.
    pub const DEFAULT: Self = Self {
        welcome_wait_ms: 5_000,
        welcome_wait_max_ms: 120_000,
        probe_ms: 30_000,
        quiet_ms: 90_000,
        pause_ms: 1_000,
        max_bundle: crate::bundle::DEFAULT_MAX_BUNDLE_BYTES,
        rto: RtoLimits::DEFAULT,
    };
}

/// Identifies one record of the same origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordRef {
    /// Lane of the stream.
    pub lane: Lane,
    /// Epoch of the stream.
    pub epoch: Epoch,
    /// Sequence number of the record.
    pub seq: u64,
}

/// An epoch as the shell's disk holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldEpoch {
    /// Lane of the stream.
    pub lane: Lane,
    /// Epoch of the stream.
    pub epoch: Epoch,
    /// Lowest number on the disk.
    pub first: u64,
    /// One more than the highest durable number.
    pub next: u64,
    /// Its records live in RAM.
    pub ram: bool,
    /// Its writer has ended.
    pub ended: bool,
    /// The boot in which it was written; 0 if that is no longer known.
    pub boot: u64,
    /// Where the times of its records count from.
    pub base: Base,
    /// The record of its end, if that stands in another epoch. It must be committed before this epoch
    /// leaves the Hello, or the collector would abandon the epoch.
    pub end_named_in: Option<RecordRef>,
    /// The record of another epoch that dates its times, where those count from a boot that is over:
    /// nothing of this epoch goes out before that is received, or the collector could not date it.
    pub dated_by: Option<RecordRef>,
}

/// An event for a sender.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a, const N: usize = MAX_DEVICE_ID_BYTES> {
    /// Connected and subscribed: messages can pass both ways.
    LinkUp,
    /// The connection is gone.
    LinkDown,
    /// A page of a Welcome came.
    Welcome(&'a Welcome<N>),
    /// An Ack came.
    Ack(&'a Ack<N>),
    /// A Reject came.
    Reject(&'a Reject<N>),
    /// Time passed; at the latest at [`super::Sender::next_wakeup`].
    Tick,
}

/// A task for the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Publish the page that [`super::Sender::hello`] gives for this number.
    SendHello {
        /// The page, from 0.
        page: u8,
    },
    /// Publish one bundle of records from `first` on, below `limit`, of at most `max_bytes` (all
    /// bytes of the publish counted), and answer with [`super::Sender::sent`]. If the first records are
    /// not readable, answer [`super::Sender::absent`]; if the first alone is larger than `max_bytes`,
    /// [`super::Sender::held_back`]. The command comes again until it is answered.
    Publish {
        /// Lane of the stream.
        lane: Lane,
        /// Epoch of the stream.
        epoch: Epoch,
        /// First record of the bundle.
        first: u64,
        /// First record beyond the range.
        limit: u64,
        /// Most bytes of the publish.
        max_bytes: u32,
    },
    /// All records below `through` may be forgotten.
    Release {
        /// Lane of the stream.
        lane: Lane,
        /// Epoch of the stream.
        epoch: Epoch,
        /// First record that stays.
        through: u64,
    },
    /// The collector refused these for good: keep a dead-letter copy and record a gap, in one group.
    /// They are not sent again.
    Refused {
        /// Lane of the stream.
        lane: Lane,
        /// Epoch of the stream.
        epoch: Epoch,
        /// Refused records.
        range: SeqRange,
        /// Cause, as the receiver stated it.
        reason: RejectReason,
    },
}

/// A message or report that was refused. Its valid parts count; otherwise the sender is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// A mark covers records that were never stored.
    #[error("the mark of {lane:?} {epoch} reaches {acked}, but only {stored} are stored")]
    AckFromTheFuture {
        /// Lane of the stream.
        lane: Lane,
        /// Epoch of the stream.
        epoch: Epoch,
        /// End of the mark.
        acked: u64,
        /// End of the stored records.
        stored: u64,
    },
    /// The message is for another origin.
    #[error("the message is for another origin")]
    Foreign,
    /// An Ack of another journal than the last Welcome's.
    #[error("the ack is of another journal")]
    OtherJournal,
    /// A Welcome that answers no running Hello.
    #[error("the welcome answers no running hello")]
    StaleWelcome,
    /// A protocol version this build does not speak.
    #[error("protocol version {0} is unknown here")]
    Version(u8),
    /// A stream that this sender does not hold. A mark of it is harmless.
    #[error("the stream {lane:?} {epoch} is not held")]
    Unknown {
        /// Lane of the stream.
        lane: Lane,
        /// Epoch of the stream.
        epoch: Epoch,
    },
    /// More holes than the sender keeps apart.
    #[error("the stream {lane:?} {epoch} has too many holes")]
    TooManyHoles {
        /// Lane of the stream.
        lane: Lane,
        /// Epoch of the stream.
        epoch: Epoch,
    },
    /// More epochs than the sender keeps.
    #[error("no room for another epoch")]
    TooManyEpochs,
    /// An epoch that is held already, or a stored mark that falls.
    #[error("the epoch {epoch} cannot go from {from} to {to}")]
    Backwards {
        /// Epoch of the stream.
        epoch: Epoch,
        /// The mark that is held.
        from: u64,
        /// The mark that was given.
        to: u64,
    },
}

/// Facts of a Hello that only the shell knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HelloFacts {
    /// Id of the boot.
    pub boot: u64,
    /// Milliseconds since that boot.
    pub uptime_ms: u64,
    /// The wall clock, if known.
    pub wall: Option<WallClock>,
    /// Largest down publish that this side reads, in bytes.
    pub max_down_bytes: u32,
}

/// Counters since the sender was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SenderCounters {
    /// Hellos begun.
    pub hellos: u64,
    /// Bundles published.
    pub published: u64,
    /// Bundles whose ack did not come in time.
    pub timed_out: u64,
    /// Rejects taken in.
    pub rejected: u64,
    /// Marks of records never stored.
    pub from_the_future: u64,
    /// Messages that were refused for another reason.
    pub refused: u64,
}
