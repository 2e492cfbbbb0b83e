//! How the agent is doing, as the status file says it, and when that file is written.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headwater_proto::ids::DeviceId;
use headwater_proto::time::{Base, Millis, Now};
use headwater_spool::Disk;
use serde::{Deserialize, Serialize};

use crate::pipeline::engine::{Engine, NodeCounters};
use crate::source::health::{self, State};
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
    /// Names that it had before, of which records wait.
    #[serde(default)]
    pub earlier_names: Vec<String>,
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
    /// Records of nodes behind this agent.
    #[serde(default)]
    pub forwarded: Forwarded,
    /// Each node that speaks to this agent, or of which records wait here.
    #[serde(default)]
    pub nodes: Vec<Node>,
}

/// Records of nodes since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Forwarded {
    /// Taken.
    pub records: u64,
    /// Here already when they came.
    pub repeats: u64,
    /// Refused for want of room or of a disk: their nodes keep them.
    pub not_taken: u64,
    /// Packets that were damaged or made no sense.
    pub malformed: u64,
    /// Hellos and bundles of devices that may not speak, or for which there is no place.
    pub refused: u64,
    /// Bytes that they may take on disk.
    pub quota_bytes: u64,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its device id.
    pub device: String,
    /// It spoke on a connection that is still there.
    pub connected: bool,
    /// Its records that are not committed.
    pub backlog_records: u64,
    /// Bytes of them on this disk.
    pub backlog_bytes: u64,
}

impl Status {
    /// Without the fields that change by themselves.
    fn settled(self) -> Self {
        Self {
            at_us: 0,
            uptime_ms: 0,
            memory_bytes: None,
            ..self
        }
    }

    /// The fields that an operator may have to act on.
    fn urgent(&self) -> impl PartialEq + use<> {
        let in_ram: Vec<bool> = self.lanes.iter().map(|lane| lane.in_ram).collect();
        let losses = [
            self.evicted_records,
            self.damaged_records,
            self.refused_records,
            self.lost_samples,
            self.failed_syncs,
            self.disk_failures,
        ];
        let states: Vec<State> = self.sources.iter().map(|s| s.health.state).collect();
        let names = self.earlier_names.clone();
        (
            self.connected,
            in_ram,
            losses,
            states,
            self.trouble.clone(),
            names,
        )
    }
}

/// The earlier names of this device of which records wait. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Waiting(Arc<Mutex<Vec<String>>>);

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records of this name wait.
    pub(crate) fn add(&self, device: &DeviceId) {
        self.lock().push(device.to_string());
    }

    /// All of this name is in the lake.
    pub(crate) fn remove(&self, device: &DeviceId) {
        self.lock().retain(|name| name != device.as_str());
    }

    /// Their names.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.lock().clone()
    }
}

/// When the status is written: an SD card wears with every block, and a reader must still be able
/// to trust what it finds.
///
/// | since the last one | written after |
/// |---|---|
/// | link, disk, a source's state or a loss changed | [`Pace::URGENT_MS`], or the interval if that is shorter |
/// | counters moved | the interval |
/// | nothing changed | [`Pace::IDLE_MS`] |
#[derive(Debug)]
pub struct Pace {
    interval_ms: u64,
    look_at: Millis,
    /// The status that was written last, and when.
    written: Option<(Status, Millis)>,
}

impl Pace {
    /// Longest time until a loss, a trouble or a change of the link is written, in milliseconds:
    /// soon enough for whoever watches the file.
    pub const URGENT_MS: u64 = 5_000;
    /// Longest time between two statuses, in milliseconds: four an hour.
    pub const IDLE_MS: u64 = 900_000;

    /// - `interval_ms`: milliseconds between two statuses while samples flow.
    #[must_use]
    pub const fn new(interval_ms: u64) -> Self {
        Self {
            interval_ms,
            look_at: Millis(0),
            written: None,
        }
    }

    /// When to make the next status and [`take`](Self::take) it.
    #[must_use]
    pub const fn look_at(&self) -> Millis {
        self.look_at
    }

    /// Whether `status` is to be written now.
    pub fn take(&mut self, status: Status, now: Millis) -> bool {
        self.look_at = now.plus(self.interval_ms.min(Self::URGENT_MS));
        if let Some((last, at)) = &self.written {
            let least_ms = if last.urgent() != status.urgent() {
                0
            } else if last.clone().settled() != status.clone().settled() {
                self.interval_ms
            } else {
                Self::IDLE_MS.max(self.interval_ms)
            };
            if now.since(*at) < least_ms {
                return false;
            }
        }
        self.written = Some((status, now));
        true
    }
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_refused: Option<String>,
    /// Whether it reads, since when, and why it failed last.
    #[serde(default)]
    pub health: health::Report,
    /// When it began, this spool knew less of its content than the collector held, which answered later: what was
    /// read since the start may be in the lake twice, or what stood between may be missing until a restart.
    #[serde(default)]
    pub behind: bool,
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
    let (sent, report) = (sender.counters(), engine.node_report());
    Status {
        version: VERSION,
        device: engine.settings().device.as_str().to_owned(),
        earlier_names: Vec::new(),
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
        quota_bytes: engine.settings().spool.lane_bytes.iter().sum(),
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
            .zip(engine.settings().sources.iter().map(|source| &*source.name))
            .enumerate()
            .map(|(at, (cursor, name))| {
                let of_source = refusals.get(at).map(|refusals| refusals.count());
                let (refused, last_refused) = of_source.unwrap_or_default();
                Source {
                    name: name.to_owned(),
                    cursor: cursor.map(|cursor| cursor.minor),
                    refused,
                    last_refused,
                    health: health::Report::default(),
                    behind: false,
                }
            })
            .collect(),
        forwarded: forwarded(&report.counters, engine.settings().spool.nodes_bytes),
        nodes: report
            .nodes
            .into_iter()
            .map(|node| Node {
                device: node.device.as_str().to_owned(),
                connected: node.connected,
                backlog_records: node.backlog_records,
                backlog_bytes: node.backlog_bytes,
            })
            .collect(),
    }
}

const fn forwarded(counters: &NodeCounters, quota_bytes: u64) -> Forwarded {
    Forwarded {
        records: counters.records,
        repeats: counters.repeats,
        not_taken: counters.not_taken,
        malformed: counters.malformed,
        refused: counters.refused,
        quota_bytes,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::engine::{Event, Settings};
    use crate::pipeline::record::{MAX_SOURCE_BYTES, MAX_SOURCES};
    use headwater_proto::ids::DeviceId;
    use headwater_proto::time::UnixMicros;
    use headwater_spool::FakeDisk;

    /// Milliseconds between two turns of the engine.
    const STEP_MS: u64 = 250;

    /// Bytes that a file system writes for a file of `len` bytes.
    fn blocks(len: usize) -> u64 {
        (len as u64).div_ceil(4096) * 4096
    }

    fn at(ms: u64) -> Now {
        Now {
            mono: Millis(ms),
            wall: UnixMicros(i64::try_from(ms).unwrap() * 1_000),
        }
    }

    /// An hour of an engine that has nothing to do; `change` may alter what its status says. Returns
    /// how often the status was written, and the bytes of status and spool together.
    fn hour(pace: &mut Pace, change: impl Fn(&mut Status, u64)) -> (u64, u64) {
        let disk = FakeDisk::new();
        let settings = Settings::new(DeviceId::new("pump-1").unwrap());
        let mut draws = 0;
        let mut entropy = || {
            draws += 1;
            draws
        };
        let mut engine = Engine::open(disk.clone(), settings, &mut entropy, at(0)).unwrap();
        engine.handle(Event::LinkUp, at(0));
        let before = disk.stats().bytes_written;
        let (mut times, mut bytes) = (0, 0);
        for ms in (0..3_600_000).step_by(usize::try_from(STEP_MS).unwrap()) {
            let now = at(ms);
            engine.handle(Event::Tick, now);
            while engine.next_publish(now).is_some() {}
            if pace.look_at() <= now.mono {
                let mut status = of(&engine, &[], now);
                change(&mut status, ms);
                let len = serde_json::to_string(&status).unwrap().len();
                if pace.take(status, now.mono) {
                    times += 1;
                    bytes += blocks(len);
                }
            }
        }
        (times, bytes + disk.stats().bytes_written - before)
    }

    #[test]
    fn an_idle_agent_writes_at_most_64_kib_an_hour_even_with_the_most_sources() {
        let source = Source {
            name: "s".repeat(MAX_SOURCE_BYTES),
            cursor: Some(u64::MAX),
            refused: 0,
            last_refused: None,
            health: health::Report::default(),
            behind: false,
        };
        for count in [0, MAX_SOURCES] {
            let sources = vec![source.clone(); count];
            let change = |status: &mut Status, _| status.sources = sources.clone();
            let (times, bytes) = hour(&mut Pace::new(60_000), change);
            assert_eq!(times, 4, "one at once, then one each quarter of an hour");
            assert!(bytes <= 64 << 10, "{bytes} bytes");
        }
    }

    #[test]
    fn counters_that_move_are_told_once_an_interval() {
        let (times, _) = hour(&mut Pace::new(60_000), |status, ms| status.samples = ms);
        assert_eq!(times, 60);
    }

    #[test]
    fn a_loss_or_a_link_that_changes_is_told_within_seconds_and_once() {
        let change = |status: &mut Status, ms| {
            status.connected = ms > 100_000;
            status.lost_samples = u64::from(ms > 200_000);
        };
        // At 0, 105 and 205 s, then each quarter of an hour.
        let (times, _) = hour(&mut Pace::new(60_000), change);
        assert_eq!(times, 3 + 3);
        let mut pace = Pace::new(1_000);
        let (times, _) = hour(&mut pace, |status, ms| status.samples = ms);
        assert_eq!(
            times, 3_600,
            "an interval below that of a trouble holds for all"
        );
    }
}
