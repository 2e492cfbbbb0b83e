//! Core: the configuration as it is written.

use std::collections::BTreeMap;

use headwater_program::faults::within;
use headwater_program::log::RawLog;
use headwater_proto::ids::DeviceId;
use serde::Deserialize;

use super::sources::{Checked, Source};
use super::{Batch, Collector, Config, Memory, Spool, Status, tags};
use crate::check::{address, is_loopback, path};
use crate::source::kind::Kind;
use crate::source::registry::kinds;

const MIB: u64 = 1 << 20;

/// Makes [`RawConfig`] with a list of tables for each line of the registry. `flatten` would do so
/// without a macro, but its faults name neither the line nor the keys there are.
macro_rules! raw_config {
    ($($key:ident => $Variant:ident($Settings:ty),)*) => {
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(super) struct RawConfig {
            device: String,
            tags: BTreeMap<String, String>,
            collector: RawCollector,
            spool: RawSpool,
            batch: RawBatch,
            text: RawText,
            memory: RawMemory,
            status: RawStatus,
            log: RawLog,
            $($key: Vec<<$Settings as Kind>::Raw>,)*
        }

        impl RawConfig {
            /// Takes the sources out, and checks them; also the line for each fault.
            fn take_sources(&mut self) -> (Vec<Source>, Vec<String>) {
                let mut checked = Checked::default();
                $(checked.add::<$Settings>(std::mem::take(&mut self.$key));)*
                checked.finish()
            }
        }
    };
}
kinds!(raw_config);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawCollector {
    address: String,
    keep_alive_s: u64,
    user: String,
    password_file: String,
    insecure: bool,
}

impl Default for RawCollector {
    fn default() -> Self {
        Self {
            address: "127.0.0.1:1883".into(),
            keep_alive_s: 30,
            user: String::new(),
            password_file: String::new(),
            insecure: false,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawSpool {
    dir: String,
    max_mib: u64,
    segment_mib: u64,
    alarm_percent: u64,
    bulk_percent: u64,
    group_ms: u64,
    nodes_mib: u64,
    dead_letters_mib: u64,
}

impl Default for RawSpool {
    fn default() -> Self {
        Self {
            dir: "/var/lib/headwater-agent/spool".into(),
            max_mib: 256,
            segment_mib: 2,
            alarm_percent: 10,
            bulk_percent: 30,
            group_ms: 50,
            nodes_mib: 64,
            dead_letters_mib: 16,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawBatch {
    rows: u64,
    kib: u64,
    age_ms: u64,
}

impl Default for RawBatch {
    fn default() -> Self {
        Self {
            rows: 1000,
            kib: 32,
            age_ms: 200,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawText {
    dictionary: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawMemory {
    readings_kib: u64,
    fallback_kib: u64,
}

impl Default for RawMemory {
    fn default() -> Self {
        Self {
            readings_kib: 1024,
            fallback_kib: 1024,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawStatus {
    file: String,
    interval_s: u64,
    socket: String,
}

impl Default for RawStatus {
    fn default() -> Self {
        Self {
            file: "/var/lib/headwater-agent/status.json".into(),
            interval_s: 60,
            socket: "/var/lib/headwater-agent/send.sock".into(),
        }
    }
}

impl RawConfig {
    /// The checked configuration; adds a line to `problems` for each thing the operator must fix.
    pub(super) fn check(mut self, host_name: &str, problems: &mut Vec<String>) -> Option<Config> {
        let (sources, faults) = self.take_sources();
        let device = device(&self.device, host_name, problems);
        let tags = tags(self.tags, problems);
        let collector = self.collector.check(problems);
        let spool = self.spool.check(problems);
        let batch = self.batch.check(problems);
        let memory = self.memory.check(problems);
        let status = self.status.check(problems);
        let log = self.log.check(problems);
        problems.extend(faults);
        device.map(|device| Config {
            device,
            tags,
            collector,
            spool,
            batch,
            dictionary: path(self.text.dictionary),
            memory,
            status,
            log,
            sources,
        })
    }
}

/// The name given, or else one made from the host's.
fn device(text: &str, host_name: &str, problems: &mut Vec<String>) -> Option<DeviceId> {
    if !text.is_empty() {
        return DeviceId::new(text)
            .map_err(|error| problems.push(format!("device = {text:?}: {error}")))
            .ok();
    }
    let fit = |c: char| {
        if c.is_ascii_alphanumeric() || "._-".contains(c) {
            c
        } else {
            '-'
        }
    };
    let made: String = host_name.trim().chars().map(fit).take(64).collect();
    DeviceId::new(&made)
        .map_err(|_| problems.push("device: this host has no name; give one".to_owned()))
        .ok()
}

impl RawCollector {
    fn check(self, problems: &mut Vec<String>) -> Collector {
        let Self {
            address: text,
            keep_alive_s,
            user,
            password_file,
            insecure,
        } = self;
        let (host, port) = address("collector.address", &text, problems);
        if !host.is_empty() && !is_loopback(&host) && !insecure {
            problems.push(format!(
                "collector.address = {text:?}: readings would leave this machine without \
                 encryption; set collector.insecure = true if the network is trusted wholly"
            ));
        }
        let why = "seconds: a lost connection is noticed after at most twice that";
        let keep_alive_s = within(
            "collector.keep_alive_s",
            keep_alive_s,
            5..=600,
            why,
            problems,
        );
        let keep_alive_s = u16::try_from(keep_alive_s).unwrap_or(u16::MAX);
        if user.is_empty() != password_file.is_empty() {
            problems.push(
                "collector.user and collector.password_file: give both or neither".to_owned(),
            );
        }
        let login = path(password_file)
            .filter(|_| !user.is_empty())
            .map(|file| (user, file));
        Collector {
            host,
            port,
            keep_alive_s,
            login,
        }
    }
}

impl RawSpool {
    fn check(self, problems: &mut Vec<String>) -> Spool {
        let Self {
            dir,
            max_mib,
            segment_mib,
            alarm_percent,
            bulk_percent,
            group_ms,
            nodes_mib,
            dead_letters_mib,
        } = self;
        let why = "so that giving one segment back frees little and writing one costs little";
        let segment_mib = within("spool.segment_mib", segment_mib, 1..=4, why, problems);
        let dir = path(dir).unwrap_or_else(|| {
            problems.push("spool.dir: must not be empty".to_owned());
            std::path::PathBuf::new()
        });
        let why = "MiB";
        let max_mib = within("spool.max_mib", max_mib, 16..=1 << 20, why, problems);
        let nodes = within("spool.nodes_mib", nodes_mib, 4..=1 << 16, why, problems);
        let dead = within(
            "spool.dead_letters_mib",
            dead_letters_mib,
            2..=1 << 16,
            why,
            problems,
        );
        let percent = "percent: the normal lane needs the rest";
        let alarm = within(
            "spool.alarm_percent",
            alarm_percent,
            1..=50,
            percent,
            problems,
        );
        let bulk = within(
            "spool.bulk_percent",
            bulk_percent,
            1..=50,
            percent,
            problems,
        );
        if alarm + bulk > 90 {
            problems.push(format!(
                "spool.alarm_percent + spool.bulk_percent = {}: at most 90, {percent}",
                alarm + bulk
            ));
        }
        let part = |share: u64| max_mib * MIB / 100 * share;
        let lane_bytes = [part(alarm), part(100 - (alarm + bulk).min(99)), part(bulk)];
        // A lane needs its reserve, the segment it writes and one that can give way.
        let least = 3 * segment_mib * MIB;
        if let Some(small) = lane_bytes.iter().find(|bytes| **bytes < least) {
            problems.push(format!(
                "spool: a lane has {} KiB; three segments of {segment_mib} MiB must fit, so raise \
                 spool.max_mib or its percentage, or lower spool.segment_mib",
                small / 1024
            ));
        }
        let why = "milliseconds that a batch waits for others before it is synced";
        let group_ms = within("spool.group_ms", group_ms, 0..=60_000, why, problems);
        Spool {
            dir,
            group_ms,
            lane_bytes,
            segment_bytes: segment_mib * MIB,
            nodes_bytes: nodes * MIB,
            dead_letter_bytes: dead * MIB,
        }
    }
}

impl RawBatch {
    fn check(self, problems: &mut Vec<String>) -> Batch {
        let Self { rows, kib, age_ms } = self;
        let rows = within(
            "batch.rows",
            rows,
            1..=10_000,
            "the most a collector takes",
            problems,
        );
        let why =
            "KiB: with one more row it must stay within what a collector takes of a batch's texts";
        let kib = within("batch.kib", kib, 1..=32, why, problems);
        let why = "milliseconds that a reading waits for others";
        let age_ms = within("batch.age_ms", age_ms, 10..=600_000, why, problems);
        Batch {
            rows: to_usize(rows),
            bytes: to_usize(kib * 1024),
            age_ms,
        }
    }
}

impl RawMemory {
    fn check(self, problems: &mut Vec<String>) -> Memory {
        let Self {
            readings_kib,
            fallback_kib,
        } = self;
        let why = "KiB: at least some batches";
        let readings = within(
            "memory.readings_kib",
            readings_kib,
            128..=1 << 20,
            why,
            problems,
        );
        let fallback = within(
            "memory.fallback_kib",
            fallback_kib,
            128..=1 << 20,
            why,
            problems,
        );
        Memory {
            readings_bytes: to_usize(readings * 1024),
            fallback_bytes: to_usize(fallback * 1024),
        }
    }
}

impl RawStatus {
    fn check(self, problems: &mut Vec<String>) -> Status {
        let Self {
            file,
            interval_s,
            socket,
        } = self;
        let interval = within(
            "status.interval_s",
            interval_s,
            1..=3600,
            "seconds",
            problems,
        );
        Status {
            file: path(file),
            interval_ms: interval * 1000,
            socket: path(socket),
        }
    }
}

fn to_usize(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
