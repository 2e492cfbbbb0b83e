//! Looks at the running fleet: status files of the agents, metrics of the collector, lake files.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use headwater_proto::time::UnixMicros;
use serde_json::Value;

use super::fleet::Fleet;
use super::view::{DeviceLine, Look};

/// A look waits no longer than this for the collector's answer.
const HTTP_TIMEOUT: Duration = Duration::from_millis(500);

/// Counters that outlive the collector's processes.
#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    samples: u64,
    bytes: u64,
    committed: u64,
}

/// Remembers what a killed process can no longer tell.
#[derive(Debug)]
pub(super) struct Watch {
    seconds: u64,
    /// Of collectors that were killed.
    past: Counters,
    /// Of the running one, as last told.
    present: Counters,
    last: Option<(f64, u64)>,
    rate: f64,
    host_kills: Vec<UnixMicros>,
}

impl Watch {
    pub(super) fn new(seconds: u64) -> Self {
        Self {
            seconds,
            past: Counters::default(),
            present: Counters::default(),
            last: None,
            rate: 0.0,
            host_kills: Vec::new(),
        }
    }

    /// Reads the counters for the last time.
    pub(super) fn before_collector_kill(&mut self, fleet: &Fleet) {
        self.ask(fleet);
        self.past.samples += self.present.samples;
        self.past.bytes += self.present.bytes;
        self.past.committed += self.present.committed;
        self.present = Counters::default();
    }

    pub(super) fn host_killed(&mut self, at: UnixMicros) {
        self.host_kills.push(at);
    }

    pub(super) fn host_kills(&self) -> &[UnixMicros] {
        &self.host_kills
    }

    /// Bytes of MQTT payload that reached any collector, as far as it could tell before its end.
    pub(super) fn bytes_on_wire(&self) -> u64 {
        self.past.bytes + self.present.bytes
    }

    pub(super) fn look(&mut self, fleet: &Fleet, at: f64, phase: &'static str) -> Look {
        self.ask(fleet);
        let samples = self.past.samples + self.present.samples;
        if let Some((before, count)) = self.last
            && at > before
        {
            let rate = samples.saturating_sub(count) as f64 / (at - before);
            // Groups arrive in bursts; the eye wants their mean.
            self.rate = 0.8 * self.rate + 0.2 * rate;
        }
        self.last = Some((at, samples));
        let (lake_files, lake_bytes) = parquet_files(&fleet.lake().join("samples"));
        let devices = (0..fleet.agents.len())
            .map(|agent| device_line(fleet, agent))
            .collect();
        Look {
            elapsed_s: at,
            seconds: self.seconds,
            phase,
            samples_per_s: self.rate,
            samples,
            bytes_on_wire: self.bytes_on_wire(),
            samples_in_lake: self.past.committed + self.present.committed,
            lake_files,
            lake_bytes,
            kills: fleet.kills(),
            devices,
        }
    }

    /// Whether every generated device has made all its rows and had all of them committed.
    pub(super) fn is_drained(&self, fleet: &Fleet, rows: u64) -> bool {
        (1..fleet.agents.len()).all(|agent| {
            let Some(status) = status(&fleet.status_file(agent)) else {
                return false;
            };
            let Some(source) = status["sources"].get(0) else {
                return false;
            };
            source["cursor"].as_u64() == Some(rows) && status["backlog_records"].as_u64() == Some(0)
        })
    }

    fn ask(&mut self, fleet: &Fleet) {
        // A collector that is starting or busy says nothing; the last look stands.
        let Some(text) = metrics(fleet.http_port) else {
            return;
        };
        let value = |name: &str| {
            let line = text.lines().find(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with([' ', '{']))
            });
            line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
                .unwrap_or(0)
        };
        self.present = Counters {
            samples: value("headwater_samples_received_total"),
            bytes: value("headwater_bytes_received_total"),
            committed: value("headwater_lake_samples_committed_total"),
        };
    }
}

fn device_line(fleet: &Fleet, agent: usize) -> DeviceLine {
    let program = &fleet.agents[agent];
    let status = status(&fleet.status_file(agent)).unwrap_or_default();
    DeviceLine {
        name: program.name.clone(),
        source: if agent == 0 {
            "this machine"
        } else {
            "generator"
        },
        samples: status["samples_durable"].as_u64().unwrap_or(0),
        backlog: status["backlog_records"].as_u64().unwrap_or(0),
        kills: program.kills,
        connected: status["connected"].as_bool().unwrap_or(false),
    }
}

/// A status file is replaced as a whole: what is read is whole, or not there yet.
pub(super) fn status(path: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn metrics(port: u16) -> Option<String> {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, HTTP_TIMEOUT).ok()?;
    stream.set_read_timeout(Some(HTTP_TIMEOUT)).ok()?;
    write!(stream, "GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer
        .split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned())
}

/// Count and bytes of the Parquet files below `folder`.
pub(super) fn parquet_files(folder: &Path) -> (u64, u64) {
    let mut found = (0, 0);
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            let hidden = entry.file_name().to_string_lossy().starts_with(['_', '.']);
            if path.is_dir() && !hidden {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "parquet") && !hidden {
                found.0 += 1;
                found.1 += entry.metadata().map_or(0, |meta| meta.len());
            }
        }
    }
    found
}
