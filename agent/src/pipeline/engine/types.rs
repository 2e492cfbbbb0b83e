//! Core: what an engine is opened with, what it is told, and what it says.

use std::sync::Arc;

use headwater_program::clock::WallError;
use headwater_proto::delivery::SenderLimits;
use headwater_proto::ids::{DeviceId, Epoch, Lane};
use headwater_proto::message::GapReason;
use headwater_proto::time::UnixMicros;
use headwater_spool::OpenError;

use crate::pipeline::admit::{Fault, OtherLane};
use crate::pipeline::batcher::{BatchLimits, Given};
use crate::pipeline::record::{MAX_SOURCES, SNAPSHOT_VERSION};

/// A source as the engine knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceSettings {
    /// Its name, at most 64 bytes, unique.
    pub name: String,
    /// It gives a cursor with every reading and can begin again from one.
    pub resumes: bool,
    /// A reading that was not durable at a kill is lost: a gap is to name it.
    pub loses: bool,
    /// Milliseconds within which what it gives is to be durable: its batches close, and their group is
    /// synced, by then. Without it, whatever comes first of the limits of batch and group.
    pub durable_within_ms: Option<u64>,
}

/// Room of the spool, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpoolSettings {
    /// Size of a segment.
    pub segment_bytes: u64,
    /// Room of each lane, in the order of [`Lane::AGENT`]. What `bulk` leaves, `normal` may take.
    pub lane_bytes: [u64; 3],
    /// Room of the records of nodes.
    pub nodes_bytes: u64,
    /// Room of the dead letters.
    pub dead_letter_bytes: u64,
    /// Share of the file system that is left to others, in percent.
    pub fs_reserve_percent: u8,
    /// Bytes of the file system that are left to others.
    pub fs_reserve_bytes: u64,
}

/// What an engine is opened with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This device.
    pub device: DeviceId,
    /// Tags of every schema.
    pub tags: Vec<(String, String)>,
    /// Its sources; a reading names one by its place.
    pub sources: Vec<SourceSettings>,
    /// Room of the spool.
    pub spool: SpoolSettings,
    /// When a batch closes.
    pub batch: BatchLimits,
    /// What log lines are compressed with: a dictionary that zstd takes.
    pub dictionary: Option<Arc<[u8]>>,
    /// Milliseconds after which a group of the normal lane is synced.
    pub group_ms: u64,
    /// The same for the bulk lane.
    pub bulk_group_ms: u64,
    /// Most bytes of readings that are not on disk yet; beyond it sources wait.
    pub readings_bytes: usize,
    /// Most bytes of records in memory while the disk cannot be written.
    pub fallback_bytes: usize,
    /// The boot that [`headwater_proto::time::Now::mono`] counts from; not 0.
    pub boot: u64,
    /// What the kernel says of the wall clock at the start.
    pub clock: WallError,
    /// Times and sizes of sending.
    pub sender: SenderLimits,
}

impl Settings {
    /// The defaults of the design for a device without sources.
    #[must_use]
    pub fn new(device: DeviceId) -> Self {
        const MIB: u64 = 1 << 20;
        Self {
            device,
            tags: Vec::new(),
            sources: Vec::new(),
            spool: SpoolSettings {
                segment_bytes: 2 * MIB,
                lane_bytes: [26 * MIB, 154 * MIB, 76 * MIB],
                nodes_bytes: 64 * MIB,
                dead_letter_bytes: 16 * MIB,
                fs_reserve_percent: 5,
                fs_reserve_bytes: 8 * MIB,
            },
            batch: BatchLimits {
                rows: 1000,
                bytes: 32 * 1024,
                age_ms: 200,
            },
            dictionary: None,
            group_ms: 50,
            bulk_group_ms: 5000,
            readings_bytes: 1 << 20,
            fallback_bytes: 1 << 20,
            boot: 1,
            clock: WallError::Unsynced,
            sender: SenderLimits {
                max_bundle: 128 * 1024,
                ..SenderLimits::DEFAULT
            },
        }
    }
}

/// Why an engine cannot be opened. What the spool's files hold is no reason,
/// as long as this version reads it and the disk keeps it.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The spool's folder cannot be listed.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Records written before a crash and never synced: a source would go on behind them, and a power
    /// cut may still take them.
    #[error(
        "cannot sync {file} of the spool, whose last records a power cut may still take: start again; \
         if the disk is full, make room; if it is bad for good, move the spool's folder away: sources \
         that can begin again do, and what only the spool held is lost"
    )]
    NotSynced {
        /// The first such segment.
        file: String,
    },
    /// More sources than a snapshot names.
    #[error("{0} sources; at most {max} are taken", max = MAX_SOURCES)]
    Sources(usize),
    /// Records of a format that this build does not read. They stay as they are.
    #[error(
        "the records of lane {} are of spool format {found}, and this version reads format {SNAPSHOT_VERSION} \
         only; they are kept: send them with the version that wrote them, or move the spool's folder away",
        lane.name()
    )]
    Version {
        /// The lane.
        lane: Lane,
        /// The format.
        found: u8,
    },
}

/// Why a reading was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// No room now: offer it again later, or count it as lost if it cannot wait. The engine names
    /// the loss of a source that does not resume.
    #[error("no room for the reading now")]
    Busy,
    /// Never, whatever the room.
    #[error(transparent)]
    Lane(#[from] OtherLane),
}

/// What became of a reading that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// Its number among those of its source.
    pub receipt: u64,
    /// Places of the fields that were refused, and why: they went to quarantine.
    pub refused: Vec<(usize, Fault)>,
}

impl Offered {
    /// Taken as a whole.
    pub(super) const fn of(receipt: u64) -> Self {
        Self {
            receipt,
            refused: Vec::new(),
        }
    }
}

/// What an item is that was let in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Taken {
    /// It is on disk already, or was.
    Known(u64),
    /// It is to be stored.
    New(Given),
}

/// Readings that a source dropped, or could not read any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// Why they are in no record.
    pub reason: GapReason,
    /// Their values that were not missing; nobody knows how many with reason `missing_at_source`.
    pub samples: u64,
    /// Time of the earliest.
    pub first: UnixMicros,
    /// Time of the latest.
    pub last: UnixMicros,
}

impl Lost {
    /// One reading that found no room.
    #[must_use]
    pub const fn one(samples: u64, time: UnixMicros) -> Self {
        Self {
            reason: GapReason::Overflow,
            samples,
            first: time,
            last: time,
        }
    }

    /// What can no longer be read, as was found at `time`. It is as old as the last that was read before.
    #[must_use]
    pub const fn unread(time: UnixMicros) -> Self {
        Self {
            reason: GapReason::MissingAtSource,
            ..Self::one(0, time)
        }
    }

    /// Both, for the same reason.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            reason: self.reason,
            samples: self.samples + other.samples,
            first: self.first.min(other.first),
            last: self.last.max(other.last),
        }
    }
}

/// What happened.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// Connected and subscribed.
    LinkUp,
    /// The connection is gone.
    LinkDown,
    /// A publish came on the down topic.
    Message(&'a [u8]),
    /// What the kernel says of the wall clock now; asked for by [`super::Engine::wants_clock`].
    Clock(WallError),
    /// Time passed; at the latest at [`super::Engine::next_wakeup`].
    Tick,
}

/// Counters since the engine was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Readings admitted.
    pub readings: u64,
    /// Samples admitted: their values that are not missing, and log lines.
    pub samples: u64,
    /// Samples whose records are synced.
    pub samples_durable: u64,
    /// Readings that a cursor covered already.
    pub covered: u64,
    /// Parts that sources could not read, and values that were refused at the door.
    pub refused: u64,
    /// Rows without any value: nothing was to be stored.
    pub empty: u64,
    /// Readings that found no room.
    pub busy: u64,
    /// Samples of sources that cannot wait, dropped for want of room; each is in a gap.
    pub lost_samples: u64,
    /// Records stored.
    pub records: u64,
    /// Groups whose sync failed.
    pub failed_syncs: u64,
    /// Times a lane gave the disk up for a while.
    pub disk_failures: u64,
    /// Records evicted.
    pub evicted_records: u64,
    /// Records that could not be read back.
    pub damaged_records: u64,
    /// Records the collector refused for good.
    pub refused_records: u64,
    /// Down messages that were damaged or made no sense.
    pub refused_messages: u64,
}

/// Counters of records of nodes since the engine was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NodeCounters {
    /// Records taken.
    pub records: u64,
    /// Records that were here already.
    pub repeats: u64,
    /// Packets that were damaged or made no sense.
    pub malformed: u64,
    /// Hellos and bundles of devices that the source does not allow, or for which there is no place.
    pub refused: u64,
    /// Records refused for want of room or of a disk: their nodes keep them.
    pub not_taken: u64,
    /// Records evicted, each within a gap.
    pub evicted_records: u64,
    /// Messages of the collector for nodes that are not known here.
    pub refused_messages: u64,
}

/// How nodes are doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeReport {
    /// What was counted of their records.
    pub counters: NodeCounters,
    /// Each of them.
    pub nodes: Vec<NodeStatus>,
}

/// How far the collector is with what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// It has received all of it.
    pub is_delivered: bool,
    /// It has committed all of it.
    pub is_drained: bool,
}

/// Why a packet of a node, or a part of it, was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeFault {
    /// It is damaged, or holds what does not belong there.
    #[error("it is damaged, or holds what no node sends")]
    Malformed,
    /// The source does not name the device.
    #[error("device {0} is not among those that may speak here")]
    NotAllowed(DeviceId),
    /// There are too many nodes, or it lists too many streams, or it speaks another version.
    #[error("device {0} finds no place: too many nodes or streams, or another protocol version")]
    NoPlace(DeviceId),
}

/// How one node is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// Its device id.
    pub device: DeviceId,
    /// It spoke on a way that is still there.
    pub connected: bool,
    /// Its records that are not committed.
    pub backlog_records: u64,
    /// Bytes of them on this disk.
    pub backlog_bytes: u64,
}

/// How one lane is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneStatus {
    /// Which.
    pub lane: Lane,
    /// The epoch that takes records on disk.
    pub epoch: Epoch,
    /// Bytes of its segments.
    pub disk_bytes: u64,
    /// Bytes in memory, not yet on disk.
    pub memory_bytes: usize,
    /// The disk cannot be written.
    pub in_ram: bool,
}
