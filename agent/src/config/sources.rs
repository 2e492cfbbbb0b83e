//! Core: the sources of a configuration.

use std::collections::BTreeSet;
use std::path::PathBuf;

use headwater_payload::Format;
use headwater_proto::ids::Lane;
use serde::Deserialize;

use super::{address, is_loopback, lane, path, within};
use crate::pipeline::record::{MAX_SOURCE_BYTES, MAX_SOURCES};

/// A source that was checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Its name, unique.
    pub name: String,
    /// Where its readings go.
    pub lane: Lane,
    /// What it reads.
    pub kind: SourceKind,
}

impl Source {
    /// Whether it can begin again from a cursor.
    #[must_use]
    pub const fn resumes(&self) -> bool {
        matches!(
            self.kind,
            SourceKind::File(_) | SourceKind::Replay(_) | SourceKind::Generator(_)
        )
    }
}

/// What a source reads.
#[derive(Debug, Clone, PartialEq)]
pub enum SourceKind {
    /// This machine.
    Host(HostSource),
    /// Lines from others.
    Lines(LinesSource),
    /// The output of a command.
    Exec(ExecSource),
    /// A growing file.
    File(FileSource),
    /// A typed CSV file.
    Replay(ReplaySource),
    /// Seeded signals.
    Generator(GeneratorSource),
}

/// This machine's own readings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSource {
    /// Milliseconds between two.
    pub interval_ms: u64,
}

/// How a line is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LineFormat {
    /// InfluxDB line protocol.
    Influx,
    /// JSON messages.
    Json,
}

impl std::convert::From<LineFormat> for Format {
    fn from(format: LineFormat) -> Self {
        match format {
            LineFormat::Influx => Self::Line,
            LineFormat::Json => Self::Json,
        }
    }
}

/// Where lines come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// Datagrams, one or more lines each.
    Udp(String, u16),
    /// Connections.
    Tcp(String, u16),
    /// Connections on a unix socket.
    Unix(PathBuf),
    /// Standard input; the source ends with it.
    Stdin,
}

/// Lines from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinesSource {
    /// Where they come in.
    pub listen: Endpoint,
    /// How they are read.
    pub format: LineFormat,
}

/// A command's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecSource {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Milliseconds between two starts.
    pub interval_ms: u64,
    /// Milliseconds after which it is killed.
    pub timeout_ms: u64,
    /// How its lines are read.
    pub format: LineFormat,
}

/// A growing file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSource {
    /// The file.
    pub path: PathBuf,
    /// Begin at its start when it is first seen, not at its end.
    pub from_start: bool,
}

/// A typed CSV file.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplaySource {
    /// The file.
    pub path: PathBuf,
    /// Seconds of the file per second; 0 is as fast as can be.
    pub speed: f64,
}

/// Seeded signals.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneratorSource {
    /// The seed.
    pub seed: u64,
    /// Time of row 0, microseconds since the Unix epoch.
    pub start_us: i64,
    /// Microseconds from row to row.
    pub period_us: u32,
    /// Rows' seconds per second; 0 is as fast as can be.
    pub speed: f64,
    /// How many rows; `None` is without end.
    pub rows: Option<u64>,
}

fn normal() -> String {
    "normal".to_owned()
}

fn bulk() -> String {
    "bulk".to_owned()
}

fn generator() -> String {
    "generator".to_owned()
}

fn host() -> String {
    "host".to_owned()
}

const fn second() -> u64 {
    1000
}

const fn ten_seconds() -> u64 {
    10_000
}

const fn five_seconds() -> u64 {
    5000
}

const fn influx() -> LineFormat {
    LineFormat::Influx
}

const fn one() -> u64 {
    1
}

const fn real_time() -> f64 {
    1.0
}

const fn start_us() -> i64 {
    1_700_000_000_000_000
}

const fn period_us() -> u32 {
    100_000
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum From {
    Start,
    #[default]
    End,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHost {
    #[serde(default = "host")]
    name: String,
    #[serde(default = "normal")]
    lane: String,
    #[serde(default = "second")]
    interval_ms: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLines {
    name: String,
    #[serde(default = "normal")]
    lane: String,
    listen: String,
    #[serde(default = "influx")]
    format: LineFormat,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawExec {
    name: String,
    #[serde(default = "normal")]
    lane: String,
    command: Vec<String>,
    #[serde(default = "ten_seconds")]
    interval_ms: u64,
    #[serde(default = "five_seconds")]
    timeout_ms: u64,
    #[serde(default = "influx")]
    format: LineFormat,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFile {
    name: String,
    #[serde(default = "bulk")]
    lane: String,
    path: String,
    #[serde(default)]
    from: From,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawReplay {
    name: String,
    #[serde(default = "normal")]
    lane: String,
    path: String,
    #[serde(default)]
    speed: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawGenerator {
    #[serde(default = "generator")]
    name: String,
    #[serde(default = "normal")]
    lane: String,
    #[serde(default = "one")]
    seed: u64,
    #[serde(default = "start_us")]
    start_us: i64,
    #[serde(default = "period_us")]
    period_us: u32,
    #[serde(default = "real_time")]
    speed: f64,
    #[serde(default)]
    rows: u64,
}

/// Every source as it is written.
pub(super) struct RawSources {
    pub(super) host: Vec<RawHost>,
    pub(super) lines: Vec<RawLines>,
    pub(super) exec: Vec<RawExec>,
    pub(super) file: Vec<RawFile>,
    pub(super) replay: Vec<RawReplay>,
    pub(super) generator: Vec<RawGenerator>,
}

impl RawSources {
    pub(super) fn check(self, problems: &mut Vec<String>) -> Vec<Source> {
        let mut checked = Checked {
            sources: Vec::new(),
            problems,
        };
        let all = &mut checked;
        self.host.into_iter().for_each(|raw| raw.check(all));
        self.lines.into_iter().for_each(|raw| raw.check(all));
        self.exec.into_iter().for_each(|raw| raw.check(all));
        self.file.into_iter().for_each(|raw| raw.check(all));
        self.replay.into_iter().for_each(|raw| raw.check(all));
        self.generator.into_iter().for_each(|raw| raw.check(all));
        checked.finish()
    }
}

impl RawHost {
    fn check(self, checked: &mut Checked<'_>) {
        let Self {
            name,
            lane,
            interval_ms,
        } = self;
        let interval_ms = checked.millis(&format!("host.{name}.interval_ms"), interval_ms);
        checked.add(name, &lane, SourceKind::Host(HostSource { interval_ms }));
    }
}

impl RawLines {
    fn check(self, checked: &mut Checked<'_>) {
        let Self {
            name,
            lane,
            listen,
            format,
        } = self;
        let listen = endpoint(&format!("lines.{name}.listen"), &listen, checked.problems);
        let lines = LinesSource { listen, format };
        checked.add(name, &lane, SourceKind::Lines(lines));
    }
}

impl RawExec {
    fn check(self, checked: &mut Checked<'_>) {
        let Self {
            name,
            lane,
            command,
            interval_ms,
            timeout_ms,
            format,
        } = self;
        if command.first().is_none_or(String::is_empty) {
            let fault = format!("exec.{name}.command: must name a program");
            checked.problems.push(fault);
        }
        let exec = ExecSource {
            command,
            interval_ms: checked.millis(&format!("exec.{name}.interval_ms"), interval_ms),
            timeout_ms: checked.millis(&format!("exec.{name}.timeout_ms"), timeout_ms),
            format,
        };
        checked.add(name, &lane, SourceKind::Exec(exec));
    }
}

impl RawFile {
    fn check(self, checked: &mut Checked<'_>) {
        let Self {
            name,
            lane,
            path,
            from,
        } = self;
        let file = FileSource {
            path: checked.path(&format!("file.{name}.path"), path),
            from_start: matches!(from, From::Start),
        };
        checked.add(name, &lane, SourceKind::File(file));
    }
}

impl RawReplay {
    fn check(self, checked: &mut Checked<'_>) {
        let Self {
            name,
            lane,
            path,
            speed,
        } = self;
        let replay = ReplaySource {
            path: checked.path(&format!("replay.{name}.path"), path),
            speed: checked.speed(&format!("replay.{name}.speed"), speed),
        };
        checked.add(name, &lane, SourceKind::Replay(replay));
    }
}

impl RawGenerator {
    fn check(self, checked: &mut Checked<'_>) {
        let Self {
            name,
            lane,
            seed,
            start_us,
            period_us,
            speed,
            rows,
        } = self;
        if period_us == 0 {
            let fault = format!("generator.{name}.period_us = 0: must be at least 1");
            checked.problems.push(fault);
        }
        let generator = GeneratorSource {
            seed,
            start_us,
            period_us,
            speed: checked.speed(&format!("generator.{name}.speed"), speed),
            rows: (rows > 0).then_some(rows),
        };
        checked.add(name, &lane, SourceKind::Generator(generator));
    }
}

struct Checked<'a> {
    sources: Vec<Source>,
    problems: &'a mut Vec<String>,
}

impl Checked<'_> {
    fn add(&mut self, name: String, lane_name: &str, kind: SourceKind) {
        let lane = lane(&format!("{name}.lane"), lane_name, self.problems);
        self.sources.push(Source { name, lane, kind });
    }

    fn millis(&mut self, key: &str, value: u64) -> u64 {
        within(key, value, 10..=86_400_000, "milliseconds", self.problems)
    }

    fn speed(&mut self, key: &str, speed: f64) -> f64 {
        if !(0.0..=1e9).contains(&speed) {
            self.problems.push(format!(
                "{key} = {speed}: must be 0 (as fast as can be) or more"
            ));
        }
        speed
    }

    fn path(&mut self, key: &str, text: String) -> PathBuf {
        path(text).unwrap_or_else(|| {
            self.problems.push(format!("{key}: must not be empty"));
            PathBuf::new()
        })
    }

    fn finish(self) -> Vec<Source> {
        let Self { sources, problems } = self;
        let mut names = BTreeSet::new();
        for source in &sources {
            let name = &source.name;
            if name.is_empty() || name.len() > MAX_SOURCE_BYTES {
                problems.push(format!(
                    "source {name:?}: a name has 1 to {MAX_SOURCE_BYTES} bytes"
                ));
            }
            if name == super::SEND_SOURCE || !names.insert(name) {
                problems.push(format!("source {name:?}: the name is taken already"));
            }
        }
        // One place is kept for what `send` hands over.
        if sources.len() >= MAX_SOURCES {
            problems.push(format!(
                "{} sources: at most {}",
                sources.len(),
                MAX_SOURCES - 1
            ));
        }
        sources
    }
}

fn endpoint(key: &str, text: &str, problems: &mut Vec<String>) -> Endpoint {
    if text == "stdin" {
        return Endpoint::Stdin;
    }
    if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
        return Endpoint::Unix(path.into());
    }
    for (scheme, make) in [
        ("udp://", Endpoint::Udp as fn(String, u16) -> Endpoint),
        ("tcp://", Endpoint::Tcp as fn(String, u16) -> Endpoint),
    ] {
        if let Some(rest) = text.strip_prefix(scheme) {
            let (host, port) = address(key, rest, problems);
            if !host.is_empty() && !is_loopback(&host) {
                problems.push(format!(
                    "{key} = {text:?}: anybody on the network could write readings; listen on \
                     127.0.0.1 or a unix socket"
                ));
            }
            return make(host, port);
        }
    }
    problems.push(format!(
        "{key} = {text:?}: must be udp://HOST:PORT, tcp://HOST:PORT, unix:PATH or stdin"
    ));
    Endpoint::Stdin
}
