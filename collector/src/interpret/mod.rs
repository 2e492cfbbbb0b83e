//! Core: from a journal record to what every sink sees of it.
//!
//! ```text
//! journal ──► Feed ──► Interpreter ──► Interpreted ──► lake · hot store · …
//! ```
//! One place decides what a record means: the final times of its samples, which of them are believed,
//! what is refused and why, which losses it names, what it says of an epoch, and which numbers it
//! covers. A sink stores what it is handed and decides nothing of it, so two sinks never disagree.
//!
//! [`Interpreted`] is a function of the journal's bytes: of the record itself and of those before it
//! in its segment. A segment begins with the rule set that its records name ([`crate::pipeline::rules`]) and repeats
//! each schema before the first record that needs it, so a reader may begin at any record: it reads
//! the segment from its start and hands out nothing below its cursor ([`Feed`]). Neither the present
//! time nor the ledger nor what a sink remembers has a say. One thing stands in a later segment, if the collector's
//! clock was in doubt: what ties the times of such a stretch to Unix time ([`crate::pipeline::undated`]). Nothing
//! of the stretch is handed out before.
//!
//! | module | what |
//! |---|---|
//! | [`time`] | which times are believed, and how a time was found |
//! | `batch`, `plain`, `lines` | decoders: numbered batches, publishes of plain devices, log lines |
//! | `news` | what a schema says of a device and its metrics |
//! | `places` | how far each sink was |
//! | [`Digest`] | what the lake's rows of a record must add up to |
//! | [`told`] | samples refused for their time, as they stand in quarantine |
//! | `receipts` | what the collector's own clock was worth |
//! | `record` | a record of each kind |
//! | [`Feed`] | reads a journal for one sink |

mod batch;
mod digest;
mod feed;
mod lines;
mod news;
mod places;
mod plain;
mod receipts;
mod record;
pub mod time;
pub mod told;

use std::borrow::Cow;
use std::sync::Arc;

use headwater_proto::codec::BatchHeader;
use headwater_proto::delivery::End;
use headwater_proto::ids::{DeviceId, Epoch, Lane, SeqRange, Stream};
use headwater_proto::message::{GapReason, Stage};
use headwater_proto::schema::Schema;
use headwater_proto::time::UnixMicros;

pub use batch::{Sample, Samples};
pub use digest::Digest;
pub use feed::{Feed, Taken};
pub use lines::{Line, LogLines};
pub use news::{Metric, tags_of};
pub(crate) use receipts::Times as ReceiptTimes;
pub use record::Interpreter;

use crate::pipeline::envelope::{Clock, Reason, SinkCursor, Span};
use crate::pipeline::schemas::SchemaId;

/// How far a numbered batch is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// To its samples.
    Samples,
    /// No further than its header where that shows that every time is believed; for sinks that keep
    /// batches as they came. Such a batch is a [`Block`], and who opens it finds out whether it can
    /// be decoded.
    Blocks,
}

/// The numbered record that rows came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The device.
    pub device: DeviceId,
    /// Its lane.
    pub lane: Lane,
    /// Its epoch; for a plain device one of the journal's.
    pub epoch: Epoch,
    /// The record's number.
    pub seq: u64,
    /// When it arrived.
    pub at: UnixMicros,
    /// How its times became Unix time.
    pub clock: Clock,
    /// The gateway that carried it.
    pub via: Option<DeviceId>,
}

impl Origin {
    /// Its stream.
    #[must_use]
    pub fn stream(&self) -> Stream {
        Stream {
            device: self.device.clone(),
            lane: self.lane,
            epoch: self.epoch,
        }
    }
}

/// A batch that was not opened: all its rows are believed.
#[derive(Debug, Clone, Copy)]
pub struct Block<'a> {
    /// Its header.
    pub header: BatchHeader,
    /// Header and body as they came.
    pub payload: &'a [u8],
    /// Added to its times to get Unix time, in microseconds.
    pub offset_us: i64,
    /// What it is read with.
    pub schema: &'a Arc<Schema>,
}

/// What a record says that went to quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused<'a> {
    /// Row within the record; `None`: the whole record, or a part that belongs to no row.
    pub row: Option<u32>,
    /// The metric, or the topic of a publish that gives none; `None`: the whole row or record.
    pub metric: Option<Cow<'a, str>>,
    /// Samples of the whole record, where known.
    pub batch_samples: Option<u32>,
    /// Samples that this stands for; 0 for a copy of what a gap names.
    pub samples: u32,
    /// Why, as a name.
    pub reason: Reason,
    /// Why, in words, with the place where one is known.
    pub cause: Cow<'a, str>,
    /// What was refused.
    pub payload: Cow<'a, [u8]>,
}

/// A loss that a record names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Whose records are missing.
    pub stream: Stream,
    /// Which, never empty; `None`: known by time alone.
    pub range: Option<SeqRange>,
    /// How many samples, where known.
    pub samples: Option<u64>,
    /// When they were made: whole dates of the lake, in order.
    pub span: Span,
    /// Why.
    pub reason: GapReason,
    /// Who lost them.
    pub stage: Stage,
    /// The sink that lacks them, or the source that lost them.
    pub part: Option<String>,
    /// When the loss was named.
    pub at: UnixMicros,
    /// Whether the record's own number stands for the loss: false where the collector named it.
    pub carried: bool,
}

/// What a record says of an epoch that is not data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochNews {
    /// Its stream.
    pub stream: Stream,
    /// What happened to it.
    pub change: EpochChange,
}

/// A change to an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EpochChange {
    /// Its sender listed it for the first time.
    Opened {
        /// The sender's boot, 0 if unknown.
        boot: u64,
    },
    /// Its writer ended it.
    Ended {
        /// Where.
        end: End,
        /// The boot in which it was written, 0 if unknown.
        boot: u64,
    },
    /// Its sender has more than came.
    Claimed {
        /// One more than the highest number that it has.
        next: u64,
    },
    /// Its sender no longer has it.
    Abandoned {
        /// The number after the last one that the collector can know of.
        next: u64,
    },
}

/// A schema or dictionary that a record was read with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its SHA-256.
    pub id: SchemaId,
    /// Its bytes.
    pub bytes: Arc<[u8]>,
}

/// What a record says of its device and of metrics. A sink that knows it already drops it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct News<'a> {
    /// The device, where the record has samples of it.
    pub device: Option<DeviceNews<'a>>,
    /// Its metrics.
    pub metrics: &'a [Metric],
    /// What the record was read with.
    pub known: Option<&'a Known>,
}

/// What a record says of its device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct DeviceNews<'a> {
    /// Its tag `site`.
    pub site: Option<&'a str>,
    /// Its tag `device_type`.
    pub device_type: Option<&'a str>,
    /// Its other tags as a JSON object with sorted keys, or empty.
    pub tags: &'a str,
}

/// What one journal record means.
#[derive(Debug, Clone, Copy)]
pub struct Interpreted<'a> {
    /// The record's position in the journal.
    pub position: u64,
    /// Which numbered record it is; `None` for what the collector itself appended.
    pub origin: Option<&'a Origin>,
    /// Samples that are believed, with their final times; none of a [`Block`].
    pub samples: Samples<'a>,
    /// The batch in place of its samples, if the reader wanted it so and it could be had.
    pub block: Option<Block<'a>>,
    refused: &'a [batch::Refusal],
    /// Values that it says are missing: no samples, and no refusals.
    pub missing: u32,
    /// The record's bytes.
    bytes: &'a [u8],
    /// Losses that it names.
    pub gaps: &'a [Gap],
    /// Changes to epochs.
    pub epochs: &'a [EpochNews],
    /// Log lines.
    pub lines: LogLines<'a>,
    /// What it says of its device and metrics.
    pub news: News<'a>,
    /// The numbers that are settled once a sink has this record.
    pub covers: &'a [(Stream, SeqRange)],
    /// How far each sink was by this record and those before it, and by nothing that came later: all below
    /// is had by the sink, or these records name it. A place of a sink of an earlier journal stands under
    /// `<journal>/<sink>`. `None`: the first record of the segment cannot be read.
    pub sinks: Option<&'a [SinkCursor]>,
    /// When it arrived or was made.
    pub at: UnixMicros,
}

impl Interpreted<'_> {
    /// Samples of the whole record: those that are believed and those that are refused.
    #[must_use]
    pub fn batch_samples(&self) -> u32 {
        let refused: u32 = self.refused.iter().map(|refusal| refusal.samples).sum();
        self.samples.len().saturating_add(refused)
    }

    /// What of it goes to quarantine.
    pub fn refused(&self) -> impl Iterator<Item = Refused<'_>> {
        let all = (self.batch_samples(), self.bytes);
        let about = told::About {
            device: self.news.device.unwrap_or_default(),
            metrics: self.news.metrics,
            via: self
                .origin
                .and_then(|origin| origin.via.as_ref())
                .map(DeviceId::as_str),
            clock: self.origin.map_or(Clock::SYNCED, |origin| origin.clock),
        };
        self.refused
            .iter()
            .map(move |refusal| self.samples.refused(refusal, all, &about))
    }

    /// Whether a sink has nothing to do for it but to pass on.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
            && self.block.is_none()
            && self.refused.is_empty()
            && self.gaps.is_empty()
            && self.epochs.is_empty()
            && self.lines.is_empty()
            && self.covers.is_empty()
    }
}
