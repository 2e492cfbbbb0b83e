//! This machine: load, memory, disks, network and temperatures, read from `/proc` and `/sys`.
//! What a machine does not have is left out.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use headwater_proto::sample::OwnedValue;
use headwater_proto::time::UnixMicros;
use serde::Deserialize;

use super::kind::{Declared, Kind, Start, normal};
use super::supervisor::{SourceError, on_thread};
use super::{ColumnDef, Feed, Port, Reading, Stop, Stopped};
use crate::check::millis;
use crate::clock::wall;
use crate::pipeline::admit::kind_of;

/// Most disks, interfaces and sensors each: a container host can have thousands.
const MAX_PARTS: usize = 32;
/// Bytes of a sector in `/proc/diskstats`, whatever the disk's own.
const SECTOR_BYTES: i64 = 512;

/// This machine's own readings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSource {
    /// Milliseconds between two.
    pub interval_ms: u64,
}

/// A source of that kind, as it is written in a configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawHost {
    #[serde(default = "host")]
    name: String,
    #[serde(default = "normal")]
    lane: String,
    #[serde(default = "second")]
    interval_ms: u64,
}

fn host() -> String {
    "host".to_owned()
}

const fn second() -> u64 {
    1000
}

impl Kind for HostSource {
    type Raw = RawHost;

    fn check(raw: RawHost, problems: &mut Vec<String>) -> Declared<Self> {
        let RawHost {
            name,
            lane,
            interval_ms,
        } = raw;
        let interval_ms = millis(&format!("host.{name}.interval_ms"), interval_ms, problems);
        Declared {
            name,
            lane,
            settings: Self { interval_ms },
        }
    }

    async fn run(self, start: Start) -> Result<(), SourceError> {
        let Start {
            name, port, stop, ..
        } = start;
        on_thread(&name, move || Ok(run(&self, &port, &stop)?)).await
    }
}

/// Reads the machine every interval until told to stop. What finds no room is left to the engine
/// to name.
///
/// # Errors
/// [`Stopped`] if the engine is gone.
pub fn run(config: &HostSource, port: &Port, stop: &Stop) -> Result<(), Stopped> {
    let mut cpu = CpuTimes::default();
    loop {
        for reading in readings(Path::new("/"), &mut cpu, wall()) {
            port.give_blocking(Feed::Reading(reading, None))?;
        }
        port.up();
        if !stop.wait(Duration::from_millis(config.interval_ms)) {
            return Ok(());
        }
    }
}

/// Processor time as last read, to tell the share since then.
#[derive(Debug, Clone, Copy, Default)]
pub struct CpuTimes {
    busy: u64,
    total: u64,
}

/// All readings of this moment; `root` is `/`, or a test's.
#[must_use]
pub fn readings(root: &Path, cpu: &mut CpuTimes, now: UnixMicros) -> Vec<Reading> {
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let mut system = Row::default();
    load(&read("proc/loadavg"), &mut system);
    processor(&read("proc/stat"), cpu, &mut system);
    memory(&read("proc/meminfo"), &mut system);
    uptime(&read("proc/uptime"), &mut system);
    let mut out = Vec::new();
    out.extend(system.reading(now, None));
    out.extend(disks(&read("proc/diskstats"), now));
    out.extend(network(&read("proc/net/dev"), now));
    out.extend(temperatures(&root.join("sys/class/thermal"), now));
    out
}

#[derive(Default)]
struct Row {
    columns: Vec<ColumnDef>,
    values: Vec<Option<OwnedValue>>,
}

impl Row {
    fn add(&mut self, name: &str, unit: &str, value: OwnedValue) {
        let kind = kind_of(&value.borrowed());
        self.columns.push(ColumnDef {
            name: name.into(),
            unit: unit.into(),
            kind,
        });
        self.values.push(Some(value));
    }

    fn reading(self, time: UnixMicros, label: Option<(&str, &str)>) -> Option<Reading> {
        if self.values.is_empty() {
            return None;
        }
        let labels = label.map(|(key, value)| (key.to_owned(), value.to_owned()));
        Some(Reading {
            time,
            labels: labels.into_iter().collect(),
            columns: Arc::from(self.columns),
            values: self.values,
        })
    }
}

fn load(text: &str, row: &mut Row) {
    for (name, word) in ["load_1m", "load_5m", "load_15m"]
        .into_iter()
        .zip(text.split(' '))
    {
        if let Ok(load) = word.parse() {
            row.add(name, "", OwnedValue::F64(load));
        }
    }
}

fn processor(text: &str, before: &mut CpuTimes, row: &mut Row) {
    let Some(line) = text
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("cpu "))
    else {
        return;
    };
    let ticks: Vec<u64> = line
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal; guest times are part of user.
    let total: u64 = ticks.iter().take(8).sum();
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    let now = CpuTimes {
        busy: total - idle,
        total,
    };
    let passed = now.total.saturating_sub(before.total);
    if before.total > 0 && passed > 0 {
        let busy = now.busy.saturating_sub(before.busy) as f64;
        let percent = (busy / passed as f64 * 1000.0).round() / 10.0;
        row.add("cpu_busy", "%", OwnedValue::F64(percent));
    }
    *before = now;
}

fn memory(text: &str, row: &mut Row) {
    let kib: BTreeMap<&str, i64> = text
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.split_once(':')?;
            Some((name, rest.split_whitespace().next()?.parse().ok()?))
        })
        .collect();
    for (name, key) in [
        ("memory_total", "MemTotal"),
        ("memory_available", "MemAvailable"),
        ("swap_total", "SwapTotal"),
        ("swap_free", "SwapFree"),
    ] {
        if let Some(kib) = kib.get(key) {
            row.add(name, "By", OwnedValue::I64(kib.saturating_mul(1024)));
        }
    }
}

fn uptime(text: &str, row: &mut Row) {
    if let Some(seconds) = text.split(' ').next().and_then(|word| word.parse().ok()) {
        row.add("uptime", "s", OwnedValue::F64(seconds));
    }
}

fn disks(text: &str, now: UnixMicros) -> Vec<Reading> {
    let disks = text.lines().filter_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let name = *words.get(2)?;
        if ["loop", "ram", "zram", "dm-"]
            .iter()
            .any(|other| name.starts_with(other))
        {
            return None;
        }
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<i64>().ok());
        let mut row = Row::default();
        row.add("disk_reads", "", OwnedValue::I64(number(3)?));
        row.add(
            "disk_read_bytes",
            "By",
            OwnedValue::I64(number(5)?.saturating_mul(SECTOR_BYTES)),
        );
        row.add("disk_writes", "", OwnedValue::I64(number(7)?));
        row.add(
            "disk_written_bytes",
            "By",
            OwnedValue::I64(number(9)?.saturating_mul(SECTOR_BYTES)),
        );
        row.add("disk_busy", "ms", OwnedValue::I64(number(12)?));
        row.reading(now, Some(("disk", name)))
    });
    disks.take(MAX_PARTS).collect()
}

fn network(text: &str, now: UnixMicros) -> Vec<Reading> {
    let interfaces = text.lines().skip(2).filter_map(|line| {
        let (name, rest) = line.split_once(':')?;
        let words: Vec<i64> = rest
            .split_whitespace()
            .filter_map(|w| w.parse().ok())
            .collect();
        let mut row = Row::default();
        for (column, unit, at) in [
            ("net_received_bytes", "By", 0),
            ("net_received_packets", "", 1),
            ("net_received_errors", "", 2),
            ("net_sent_bytes", "By", 8),
            ("net_sent_packets", "", 9),
            ("net_sent_errors", "", 10),
        ] {
            row.add(column, unit, OwnedValue::I64(*words.get(at)?));
        }
        row.reading(now, Some(("interface", name.trim())))
    });
    interfaces.take(MAX_PARTS).collect()
}

fn temperatures(folder: &Path, now: UnixMicros) -> Vec<Reading> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let zones = entries.flatten().filter_map(|entry| {
        let millidegrees: f64 = fs::read_to_string(entry.path().join("temp"))
            .ok()?
            .trim()
            .parse()
            .ok()?;
        let kind = fs::read_to_string(entry.path().join("type")).unwrap_or_default();
        let zone = entry.file_name().into_string().ok()?;
        let name = if kind.trim().is_empty() {
            zone
        } else {
            format!("{zone}-{}", kind.trim())
        };
        let mut row = Row::default();
        row.add("temperature", "Cel", OwnedValue::F64(millidegrees / 1000.0));
        row.reading(now, Some(("zone", &name)))
    });
    let mut zones: Vec<_> = zones.take(MAX_PARTS).collect();
    zones.sort_by(|a, b| a.labels.cmp(&b.labels));
    zones
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("proc/loadavg", "0.52 0.58 0.59 1/467 1234\n");
        put(
            "proc/stat",
            "cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 1 1 1\n",
        );
        put(
            "proc/meminfo",
            "MemTotal:  1024 kB\nMemAvailable:  512 kB\n",
        );
        put("proc/uptime", "12.34 40.00\n");
        put(
            "proc/diskstats",
            "   8 0 sda 10 0 20 5 30 0 40 9 0 77 14\n   7 0 loop0 1 1 1 1 1 1 1 1 1 1 1\n",
        );
        put(
            "proc/net/dev",
            "h\nh\n  eth0: 1 2 3 0 0 0 0 0 9 10 11 0 0 0 0 0\n",
        );
        put("sys/class/thermal/thermal_zone0/temp", "45500\n");
        put("sys/class/thermal/thermal_zone0/type", "cpu\n");
        root
    }

    fn value(readings: &[Reading], name: &str) -> Option<OwnedValue> {
        readings.iter().find_map(|reading| {
            let at = reading
                .columns
                .iter()
                .position(|column| column.name == name)?;
            reading.values[at].clone()
        })
    }

    #[test]
    fn a_machine_is_read_with_units_and_labels() {
        let root = machine();
        let mut cpu = CpuTimes::default();
        let first = readings(root.path(), &mut cpu, UnixMicros(1));
        assert_eq!(value(&first, "load_5m"), Some(OwnedValue::F64(0.58)));
        assert_eq!(
            value(&first, "memory_available"),
            Some(OwnedValue::I64(512 * 1024))
        );
        assert_eq!(
            value(&first, "disk_written_bytes"),
            Some(OwnedValue::I64(40 * 512))
        );
        assert_eq!(value(&first, "net_sent_packets"), Some(OwnedValue::I64(10)));
        assert_eq!(value(&first, "temperature"), Some(OwnedValue::F64(45.5)));
        assert_eq!(value(&first, "cpu_busy"), None);
        assert_eq!(first.len(), 4);
        fs::write(
            root.path().join("proc/stat"),
            "cpu  150 0 100 740 110 0 0 0 0 0\n",
        )
        .unwrap();
        let second = readings(root.path(), &mut cpu, UnixMicros(2));
        assert_eq!(value(&second, "cpu_busy"), Some(OwnedValue::F64(50.0)));
    }

    #[test]
    fn a_machine_without_anything_gives_nothing() {
        let root = tempfile::tempdir().unwrap();
        assert!(readings(root.path(), &mut CpuTimes::default(), UnixMicros(1)).is_empty());
    }
}
