//! How the agent is doing, as the status file says it.

use std::sync::Arc;

use headwater_proto::time::{Base, Now};
use headwater_spool::Disk;
use serde::{Deserialize, Serialize};

use crate::pipeline::engine::Engine;
use crate::source::refusals::Refusals;

/// Version of the file's fields; a new field does not raise it, a changed meaning does.
pub const VERSION: u32 = 1;

/// The status of one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// [`VERSION`].
    pub version: u32,
    /// This device.
    #[serde(default)]
    pub device: String,
    /// Version of the program.
    #[serde(default)]
    pub agent: String,
    /// Wall time, microseconds since the Unix epoch.
    pub at_us: i64,
    /// Milliseconds since the agent's start.
    pub uptime_ms: u64,
    /// The collector answered on this connection.
    pub connected: bool,
    /// Credit that the collector gave last, in bytes.
    pub credit_bytes: u32,
    /// Readings admitted since the start.
    pub readings: u64,
    /// Their samples.
    pub samples: u64,
    /// Samples that are on this disk, or were and went on to the lake, since the start.
    #[serde(default)]
    pub samples_durable: u64,
    /// Readings that were in the lake already when a source began again.
    pub covered: u64,
    /// Readings that made no sense.
    pub refused: u64,
    /// Offers that found no room.
    pub busy: u64,
    /// Records stored.
    pub records: u64,
    /// Records not yet committed.
    pub backlog_records: u64,
    /// Bundles published.
    pub published: u64,
    /// Bundles whose answer did not come in time.
    pub timed_out: u64,
    /// Records evicted, each within a gap.
    pub evicted_records: u64,
    /// Records that could not be read back, each within a gap.
    pub damaged_records: u64,
    /// Records the collector refused, each within a gap.
    pub refused_records: u64,
    /// Syncs that failed.
    pub failed_syncs: u64,
    /// Samples of sources that cannot wait, dropped for want of room, each within a gap.
    #[serde(default)]
    pub lost_samples: u64,
    /// Times a lane gave the disk up for a while, or the start could not be noted.
    #[serde(default)]
    pub disk_failures: u64,
    /// Messages of the collector that were damaged or made no sense.
    #[serde(default)]
    pub refused_messages: u64,
    /// Copies of refused records that are kept for the operator.
    #[serde(default)]
    pub dead_letter_records: u64,
    /// Bytes in flight to the collector.
    #[serde(default)]
    pub in_flight_bytes: u32,
    /// Bytes that the lanes may take together on disk.
    #[serde(default)]
    pub quota_bytes: u64,
    /// What the start could not do with files it found.
    #[serde(default)]
    pub trouble: Vec<String>,
    /// The kernel says that the wall clock is synchronised, and the collector does not speak against it.
    #[serde(default)]
    pub clock_synced: bool,
    /// Most that the wall clock is off, in milliseconds, if that is known.
    #[serde(default)]
    pub clock_error_ms: Option<u32>,
    /// The wall clock cannot be right: rows are dated by the uptime of this boot.
    #[serde(default)]
    pub clock_unset: bool,
    /// Resident memory, if known.
    pub memory_bytes: Option<u64>,
    /// Each lane.
    pub lanes: Vec<Lane>,
    /// Each source, in the order of the configuration; lines from `send` are the last.
    #[serde(default)]
    pub sources: Vec<Source>,
}

/// One source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// What it has on disk and will not read again: rows of a generator, lines of a replay, bytes of
    /// a file. `None` before its first, and for a source that does not resume.
    pub cursor: Option<u64>,
    /// Parts of its input that were refused since the start: lines, rows, values.
    #[serde(default)]
    pub refused: u64,
    /// The last of them: its place, the cause and its beginning.
    #[serde(default)]
    pub last_refused: Option<String>,
}

/// One lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lane {
    /// Its name.
    pub name: String,
    /// Its present epoch, as hex digits.
    pub epoch: String,
    /// Bytes of its segments.
    pub disk_bytes: u64,
    /// Bytes in memory, not yet on disk.
    pub memory_bytes: usize,
    /// The disk cannot be written.
    pub in_ram: bool,
}

/// The status of an engine. `refusals`: those of its sources, in its order.
#[must_use]
pub fn of<D: Disk>(engine: &Engine<D>, refusals: &[Arc<Refusals>], now: Now) -> Status {
    let (counters, sender) = (engine.counters(), engine.sender());
    let sent = sender.counters();
    Status {
        version: VERSION,
        device: engine.device().as_str().to_owned(),
        agent: env!("CARGO_PKG_VERSION").to_owned(),
        at_us: now.wall.0,
        uptime_ms: now.mono.since(engine.opened_at()),
        connected: sender.is_open(),
        credit_bytes: sender.credit(),
        readings: counters.readings,
        samples: counters.samples,
        samples_durable: counters.samples_durable,
        covered: counters.covered,
        refused: counters.refused,
        busy: counters.busy,
        records: counters.records,
        backlog_records: sender.backlog_records(),
        published: sent.published,
        timed_out: sent.timed_out,
        evicted_records: counters.evicted_records,
        damaged_records: counters.damaged_records,
        refused_records: counters.refused_records,
        failed_syncs: counters.failed_syncs,
        lost_samples: counters.lost_samples,
        disk_failures: counters.disk_failures,
        refused_messages: counters.refused_messages,
        dead_letter_records: engine.dead_letter_records(),
        in_flight_bytes: sender.in_flight_bytes(),
        quota_bytes: engine.quota_bytes(),
        trouble: engine.trouble().to_vec(),
        clock_synced: engine.clock().stamps().synced,
        clock_error_ms: engine.clock().stamps().error_ms,
        clock_unset: engine.clock().base() == Base::Uptime,
        memory_bytes: resident_bytes(),
        lanes: engine
            .lanes()
            .map(|lane| Lane {
                name: lane.lane.name().to_owned(),
                epoch: lane.epoch.to_string(),
                disk_bytes: lane.disk_bytes,
                memory_bytes: lane.memory_bytes,
                in_ram: lane.in_ram,
            })
            .collect(),
        sources: engine
            .cursors()
            .into_iter()
            .zip(engine.source_names())
            .enumerate()
            .map(|(at, (cursor, name))| {
                let of_source = refusals.get(at).map(|refusals| refusals.count());
                let (refused, last_refused) = of_source.unwrap_or_default();
                Source {
                    name: name.to_owned(),
                    cursor: cursor.map(|cursor| cursor.minor),
                    refused,
                    last_refused,
                }
            })
            .collect(),
    }
}

fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace()
        .next()?
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}
