//! Core: the configuration: what is written (`Raw*`), what is valid, and every fault at once.

use std::collections::BTreeMap;
use std::path::PathBuf;

use headwater_program::faults::{self, Faults, Renamed};
use headwater_program::log::Log;
use headwater_proto::ids::DeviceId;

mod raw;
mod sources;

pub use sources::Source;

/// The source of what `send` hands over; no other may have its name.
pub const SEND_SOURCE: &str = "send";
/// Every setting with its default and what it means, as `--print-config` shows it.
pub const DEFAULTS: &str = include_str!("default.toml");

/// Keys that settings had in earlier versions.
const RENAMED: &[Renamed] = &[];

/// A configuration that was checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// This device.
    pub device: DeviceId,
    /// Tags that every row carries.
    pub tags: Vec<(String, String)>,
    /// Where readings go.
    pub collector: Collector,
    /// Where they wait.
    pub spool: Spool,
    /// When a batch closes.
    pub batch: Batch,
    /// A file with the dictionary of log lines.
    pub dictionary: Option<PathBuf>,
    /// Bounds of memory.
    pub memory: Memory,
    /// How the agent says how it is.
    pub status: Status,
    /// Level and form of its log.
    pub log: Log,
    /// Its sources.
    pub sources: Vec<Source>,
}

/// The way to the collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Seconds between pings.
    pub keep_alive_s: u16,
    /// User and the file with the password.
    pub login: Option<(String, PathBuf)>,
}

/// The spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spool {
    /// Its folder.
    pub dir: PathBuf,
    /// Disk of each lane, in the order of [`Lane::AGENT`](headwater_proto::ids::Lane::AGENT).
    pub lane_bytes: [u64; 3],
    /// Milliseconds that a record of lane normal waits for others, to share one sync.
    pub group_ms: u64,
    /// Size of a segment.
    pub segment_bytes: u64,
    /// Disk for records of nodes behind this agent.
    pub nodes_bytes: u64,
    /// Disk for dead letters.
    pub dead_letter_bytes: u64,
}

/// When a batch closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// Rows.
    pub rows: usize,
    /// Bytes in memory.
    pub bytes: usize,
    /// Milliseconds.
    pub age_ms: u64,
}

/// Bounds of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Readings not yet on disk.
    pub readings_bytes: usize,
    /// Records while the disk cannot be written.
    pub fallback_bytes: usize,
}

/// The status file and socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The file, if one is wanted.
    pub file: Option<PathBuf>,
    /// Milliseconds between two of them.
    pub interval_ms: u64,
    /// The socket for `send`, if one is wanted.
    pub socket: Option<PathBuf>,
}

impl Config {
    /// Reads and checks a configuration.
    ///
    /// - `text`: TOML; empty is valid.
    /// - `host_name`: names the device where the text does not.
    ///
    /// # Errors
    /// [`Faults`]: what TOML itself refuses, or else every setting that is wrong.
    pub fn parse(text: &str, host_name: &str) -> Result<Self, Faults> {
        faults::parse(text, RENAMED, |raw: raw::RawConfig, problems| {
            raw.check(host_name, problems)
        })
    }

    /// As [`Config::parse`], with what could be made in spite of faults, for further checks.
    #[must_use]
    pub fn parse_leniently(text: &str, host_name: &str) -> (Option<Self>, Vec<String>) {
        faults::parse_leniently(text, RENAMED, |raw: raw::RawConfig, problems| {
            raw.check(host_name, problems)
        })
    }
}

/// Tags as sorted pairs.
fn tags(raw: BTreeMap<String, String>, problems: &mut Vec<String>) -> Vec<(String, String)> {
    use headwater_proto::codec::Limits;
    use headwater_proto::schema::MAX_TEXT_BYTES;
    if raw.len() > Limits::DEFAULT.labels as usize {
        problems.push(format!(
            "tags: {} of them; at most {}",
            raw.len(),
            Limits::DEFAULT.labels
        ));
    }
    for (key, value) in &raw {
        if key.is_empty() || key.len().max(value.len()) > MAX_TEXT_BYTES {
            problems.push(format!(
                "tags.{key}: keys have 1 to {MAX_TEXT_BYTES} bytes, values at most that many"
            ));
        }
    }
    raw.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::record::{MAX_SOURCE_BYTES, MAX_SOURCES};
    use headwater_proto::ids::MAX_DEVICE_ID_BYTES;

    fn faults(text: &str) -> String {
        Config::parse(text, "host").unwrap_err().to_string()
    }

    #[test]
    fn an_empty_file_and_the_printed_defaults_are_the_same_configuration() {
        let empty = Config::parse("", "mill 3").unwrap();
        assert_eq!(empty, Config::parse(DEFAULTS, "mill 3").unwrap());
        assert_eq!(empty.device.as_str(), "mill-3");
        assert!(empty.sources.is_empty());
    }

    #[test]
    fn every_source_shown_in_the_defaults_is_valid() {
        let uncommented: String = DEFAULTS
            .lines()
            .filter_map(|line| line.strip_prefix("#   "))
            .map(|line| line.split("   #").next().unwrap_or(line).to_owned() + "\n")
            .collect();
        let config = Config::parse(&uncommented, "host").unwrap();
        assert_eq!(config.sources.len(), 7);
        let resuming: Vec<_> = config
            .sources
            .iter()
            .filter(|s| s.resumes())
            .map(|s| s.name.as_str())
            .collect();
        assert_eq!(resuming, ["syslog", "replay", "generator"]);
    }

    #[test]
    fn a_reading_of_the_normal_lane_waits_a_quarter_of_a_second_at_most() {
        let config = Config::parse("", "host").unwrap();
        assert!(config.batch.age_ms + config.spool.group_ms <= 250);
        let settings = crate::run::settings(&config, 1);
        assert_eq!(
            (settings.batch.age_ms, settings.group_ms),
            (config.batch.age_ms, config.spool.group_ms)
        );
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let text = r#"
            device = "a\u0007b"
            [collector]
            address = "example.org:1883"
            keep_alive_s = 1
            user = "me"
            [spool]
            segment_mib = 9
            group_ms = 60001
            alarm_percent = 50
            bulk_percent = 50
            [batch]
            rows = 0
            [log]
            level = "info,,=="
            [[lines]]
            name = "x"
            listen = "tcp://0.0.0.0:80"
            lane = "fast"
            [[exec]]
            name = "x"
            command = []
        "#;
        let faults = faults(text);
        for expected in [
            "a device id has no control characters",
            "collector.address = \"example.org:1883\": readings would leave this machine",
            "collector.keep_alive_s = 1: must be from 5 to 600",
            "give both or neither",
            "spool.segment_mib = 9: must be from 1 to 4",
            "spool.group_ms = 60001: must be from 0 to 60000",
            "spool.alarm_percent + spool.bulk_percent = 100: at most 90",
            "spool: a lane has",
            "batch.rows = 0: must be from 1 to 10000",
            "log.level = \"info,,==\"",
            "lines.x.listen = \"tcp://0.0.0.0:80\": anybody on the network",
            "x.lane = \"fast\": must be",
            "exec.x.command: must name a program",
            "source \"x\": the name is taken already",
        ] {
            assert!(
                faults.contains(expected),
                "{expected:?} is not told in:\n{faults}"
            );
        }
        assert_eq!(faults.lines().count(), 14, "{faults}");
    }

    #[test]
    fn names_and_sources_are_taken_up_to_their_bounds() {
        let device = |len: usize| Config::parse(&format!("device = {:?}", "d".repeat(len)), "h");
        assert!(device(MAX_DEVICE_ID_BYTES).is_ok());
        assert!(device(MAX_DEVICE_ID_BYTES + 1).is_err());
        let source = |name: &str| format!("[[host]]\nname = {name:?}\n");
        let name = |len: usize| Config::parse(&source(&"s".repeat(len)), "h");
        assert!(name(MAX_SOURCE_BYTES).is_ok());
        assert!(name(MAX_SOURCE_BYTES + 1).is_err());
        // One place is that of `send`.
        let sources =
            |count: usize| -> String { (1..count).map(|n| source(&n.to_string())).collect() };
        assert!(Config::parse(&sources(MAX_SOURCES), "h").is_ok());
        let told = faults(&sources(MAX_SOURCES + 1));
        assert!(
            told.contains(&format!("at most {}", MAX_SOURCES - 1)),
            "{told}"
        );
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let faults = faults("[spool]\nmax_mb = 3\n");
        assert!(
            faults.contains("line 2") && faults.contains("max_mb"),
            "{faults}"
        );
    }

    #[test]
    fn a_level_that_would_silence_the_log_is_refused_with_those_there_are() {
        let told = faults("[log]\nlevel = \"warning\"\n");
        assert!(
            told.starts_with("log.level = \"warning\": ")
                && told.contains("off, error, warn, info, debug and trace"),
            "{told}"
        );
        let text = "[log]\nlevel = \"warn,headwater_spool=debug\"\n";
        let log = Config::parse(text, "host").unwrap().log;
        assert_eq!(log.levels, "warn,headwater_spool=debug".parse().unwrap());
    }

    #[test]
    fn a_host_beyond_loopback_needs_the_word_insecure() {
        let text = "[collector]\naddress = \"[2001:db8::1]:1883\"\ninsecure = true";
        let config = Config::parse(text, "h").unwrap();
        assert_eq!(
            (config.collector.host.as_str(), config.collector.port),
            ("2001:db8::1", 1883)
        );
    }

    #[test]
    fn lanes_too_small_for_their_segments_are_refused() {
        let faults = faults("[spool]\nmax_mib = 16\n");
        assert!(
            faults.contains("three segments of 2 MiB must fit"),
            "{faults}"
        );
    }
}
