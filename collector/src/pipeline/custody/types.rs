//! Core: what custody is told, what it says, what an operator decides.

use std::sync::Arc;

use bytes::Bytes;
use headwater_gate::{CloseReason, ConnId, Token};
use headwater_proto::ids::{DeviceId, SeqRange, Stream};

use super::stretch::{Found, Stretch};
use crate::done::{DoneError, Epochs, Finding, Keeping, Looked};
use crate::pipeline::clock_doubt::Change;
use crate::pipeline::credit::CreditLimits;
use crate::pipeline::pattern::Pattern;
use crate::pipeline::rules::TimeWindow;

/// Whose quarantine holds what no pattern maps to a device.
const NOBODY: &str = "unknown";

/// The device of what belongs to none.
pub(super) fn nobody() -> DeviceId {
    DeviceId::new(NOBODY).expect("a constant that is a device id")
}

/// When a sender may forget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// When all required sinks have it: outlives the loss of the collector's disk.
    #[default]
    Sinks,
    /// When the journal has it: holds as long as the journal's disk does.
    Journal,
}

/// A sink that reads the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkSpec {
    /// Its name.
    pub name: String,
    /// Whether the journal waits for it.
    pub required: bool,
}

/// A client that speaks for other devices.
pub use headwater_gate::acl::Gateway;

/// What an operator decides.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The journal's log.
    pub log: headwater_spool::Config,
    /// Bytes in flight.
    pub credit: CreditLimits,
    /// When a sender may forget.
    pub mode: Mode,
    /// Who reads the journal; at least one is required.
    pub sinks: Vec<SinkSpec>,
    /// Topics of plain devices.
    pub patterns: Vec<Pattern>,
    /// Which times are believed.
    pub window: TimeWindow,
    /// Clients that speak for other devices than themselves.
    pub gateways: Vec<Gateway>,
    /// Largest bundle taken.
    pub max_bundle_bytes: u32,
    /// How long an epoch must be absent from its sender's Hellos before it counts as abandoned: a
    /// second device with the same identity may still bring it back.
    pub abandon_after_ms: u64,
    /// The same for an epoch that gateways list for another device: a gateway that is away may be the
    /// only one that holds it.
    pub relayed_abandon_after_ms: u64,
    /// How long the marks of a closed and committed epoch stay at hand; later they are looked up in
    /// the index.
    pub keep_closed_ms: u64,
    /// Payload bytes of one connection that wait unacknowledged while the journal is full; past it
    /// the connection is closed.
    pub withheld_bytes_per_connection: usize,
    /// The same for all connections together.
    pub withheld_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            log: headwater_spool::Config {
                name: "journal".to_owned(),
                segment_bytes: 64 << 20,
                quota_bytes: 4 << 30,
                reserve_bytes: 64 << 20,
                ..headwater_spool::Config::default()
            },
            credit: CreditLimits::default(),
            mode: Mode::Sinks,
            sinks: vec![SinkSpec {
                name: "lake".to_owned(),
                required: true,
            }],
            patterns: Vec::new(),
            window: TimeWindow::default(),
            gateways: Vec::new(),
            max_bundle_bytes: headwater_proto::bundle::DEFAULT_MAX_BUNDLE_BYTES,
            abandon_after_ms: 10 * 60 * 1000,
            relayed_abandon_after_ms: 30 * 24 * 3_600 * 1000,
            keep_closed_ms: 7 * 24 * 3_600 * 1000,
            withheld_bytes_per_connection: 512 << 10,
            withheld_bytes: 16 << 20,
        }
    }
}

#[cfg(test)]
impl Settings {
    /// With a journal of many small segments.
    pub(super) fn small() -> Self {
        Self {
            log: headwater_spool::Config {
                segment_bytes: 8 << 10,
                quota_bytes: 1 << 20,
                reserve_bytes: 32 << 10,
                ..headwater_spool::Config::default()
            },
            ..Self::default()
        }
    }
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A client connected.
    Connected {
        /// The connection.
        conn: ConnId,
        /// The authenticated sender.
        client: Arc<str>,
    },
    /// A publish on an agent's topic.
    Up {
        /// The connection.
        conn: ConnId,
        /// The device of the topic.
        device: DeviceId,
        /// Frames back to back.
        payload: Bytes,
        /// What to acknowledge; `None` for QoS 0.
        token: Option<Token>,
    },
    /// A publish of a plain device.
    Plain(PlainPublish),
    /// The client will not repeat publishes up to `through`.
    Settled {
        /// The connection.
        conn: ConnId,
        /// Its client.
        client: Arc<str>,
        /// The newest of them.
        through: Token,
    },
    /// The connection is over.
    Disconnected {
        /// The connection.
        conn: ConnId,
        /// Its client.
        client: Arc<str>,
        /// Whether the client said DISCONNECT.
        orderly: bool,
    },
    /// A sink has everything below `through`.
    Committed {
        /// Its name.
        sink: String,
        /// The first position that it does not have.
        through: u64,
        /// What that covers of each stream.
        streams: Vec<(Stream, Vec<SeqRange>)>,
        /// Numbers of each stream that it refused for good.
        refused: Vec<(Stream, Vec<SeqRange>)>,
        /// Records on the way there that it could not read.
        damaged: u64,
    },
    /// A stretch that was asked for with [`Output::Read`].
    Read {
        /// Which.
        stretch: Stretch,
        /// What it stands for; `None` if it cannot be read now.
        found: Option<Found>,
    },
    /// What the index says of epochs that were looked up with [`Output::Find`].
    Found(Looked),
    /// The index was given epochs with [`Output::Keep`].
    Kept {
        /// Which.
        epochs: Epochs,
        /// Whether it has them, durably.
        kept: Result<(), DoneError>,
    },
    /// Time passed.
    Tick,
}

/// A publish of a plain device.
#[derive(Debug, Clone)]
pub struct PlainPublish {
    /// The connection.
    pub conn: ConnId,
    /// Its client.
    pub client: Arc<str>,
    /// The topic.
    pub topic: Arc<str>,
    /// The payload.
    pub payload: Bytes,
    /// The client says that it may have sent this before.
    pub dup: bool,
    /// Its packet id, 0 with QoS 0.
    pub packet_id: u16,
    /// [`headwater_gate::repeat::fingerprint`] of topic and payload.
    pub fingerprint: u64,
    /// What to acknowledge; `None` for QoS 0.
    pub token: Option<Token>,
}

/// What the owner must do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send a message down.
    Send {
        /// The connection.
        conn: ConnId,
        /// Frames back to back.
        payload: Vec<u8>,
    },
    /// Acknowledge a publish.
    PubAck {
        /// The connection.
        conn: ConnId,
        /// Which publish.
        token: Token,
    },
    /// End a connection.
    Close {
        /// The connection.
        conn: ConnId,
        /// Why.
        reason: CloseReason,
    },
    /// Tell the operator: two live devices have one identity.
    Shared {
        /// The identity.
        origin: DeviceId,
    },
    /// Tell the operator: a device was held back, because it takes more than its share.
    Crowded {
        /// The device.
        origin: DeviceId,
        /// Of what.
        of: Crowd,
    },
    /// Tell the operator what became of the collector's own clock.
    Clock(Change),
    /// Put these into the index of closed epochs on another thread ([`Keeping::keep`]), and hand in
    /// [`Event::Kept`]. Until then the ledger has them too.
    Keep(Keeping),
    /// Look these up in the index of closed epochs on another thread ([`Finding::find`]), and hand in
    /// [`Event::Found`]. Until then Hellos that list them wait for their Welcome.
    Find(Finding),
    /// Read a stretch of the journal on another thread ([`Stretch::read`]), and hand in
    /// [`Event::Read`].
    Read(Stretch),
}

/// What a device takes too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crowd {
    /// Schemas: so many of its numbers left the book, and are asked for again when they are needed.
    Schemas(usize),
    /// Epochs that are not over, or whose data are not in every required sink: one more waits at the device.
    Streams,
    /// Contents of sources: the oldest is no longer known, and may be read twice by a device that lost its spool.
    Portions,
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What custody counts.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Counters { $($(#[$doc])* pub $name: u64,)* }

        impl Counters {
            /// Names and values, for metrics.
            #[must_use]
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

counters! {
    /// Times that the collector's own clock came into doubt.
    clock_doubts_total,
    /// Records appended with verdict store.
    records_stored_total,
    /// Bytes of their frames and payloads.
    record_bytes_stored_total,
    /// Readings in them, as their headers say.
    samples_stored_total,
    /// Records that came again.
    repeats_total,
    /// Same identity, other content.
    identity_conflicts_total,
    /// Two live devices with one identity.
    identity_shared_total,
    /// Publishes of plain devices that were repeats.
    plain_repeats_total,
    /// Publishes that were not frames, or not whole.
    malformed_total,
    /// Records whose times count from a boot that nothing dates.
    undated_total,
    /// Streams in Hellos that were new and found no room: their senders keep them and ask again.
    streams_full_total,
    /// Schemas and dictionaries that found no room.
    schemas_full_total,
    /// Schema numbers that made room for others; they are asked for again when they are needed.
    schemas_left_total,
    /// Parts of contents of sources that made room for others: a device that lost its spool may read them again.
    portions_left_total,
    /// Publishes of plain devices that found no room of their own: they are in quarantine.
    plain_devices_full_total,
    /// Hellos of senders that speak no protocol version of this build.
    versions_refused_total,
    /// Records refused before custody.
    rejects_total,
    /// Schemas asked for.
    schema_requests_total,
    /// Gaps that the collector named.
    gaps_named_total,
    /// Records that note what a sender has beyond what came.
    claims_noted_total,
    /// Numbers that the journal named as lacking in one sink.
    sink_lacks_total,
    /// Times that the lake was found older than the journal knew it.
    lake_went_back_total,
    /// Reports of required sinks that waited because they were too far ahead of the others.
    sink_reports_held_total,
    /// Groups synced.
    groups_synced_total,
    /// Groups that failed.
    groups_failed_total,
    /// Publishes that waited for room in the journal.
    withheld_total,
    /// Journal segments given back.
    segments_released_total,
    /// Journal records that could not be read again.
    records_damaged_total,
    /// Records that are asked for again, because the journal lost them.
    asked_again_total,
    /// Epochs that were over and came back.
    recalled_total,
    /// Failures of the index of epochs that are over.
    index_failures_total,
}

impl Event {
    /// The connection that it came on.
    pub(super) fn conn(&self) -> Option<ConnId> {
        match self {
            Self::Connected { conn, .. }
            | Self::Up { conn, .. }
            | Self::Settled { conn, .. }
            | Self::Disconnected { conn, .. } => Some(*conn),
            Self::Plain(publish) => Some(publish.conn),
            Self::Committed { .. }
            | Self::Read { .. }
            | Self::Found(_)
            | Self::Kept { .. }
            | Self::Tick => None,
        }
    }

    /// Bytes of its payload.
    pub(super) fn payload_len(&self) -> usize {
        match self {
            Self::Up { payload, .. } => payload.len(),
            Self::Plain(publish) => publish.payload.len() + publish.topic.len(),
            Self::Connected { .. }
            | Self::Settled { .. }
            | Self::Disconnected { .. }
            | Self::Committed { .. }
            | Self::Read { .. }
            | Self::Found(_)
            | Self::Kept { .. }
            | Self::Tick => 0,
        }
    }
}
