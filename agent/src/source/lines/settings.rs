//! Settings of a source of lines: how they are written, checked, and examined on this machine.

use std::fmt;
use std::path::PathBuf;

use headwater_payload::Format;
use headwater_program::listen::{self, Protocol};
use serde::Deserialize;

use super::LinesError;
use crate::check::{address, is_loopback};
use crate::source::accept::socket_path;
use crate::source::kind::{Declared, Kind, Start, normal};
use crate::source::supervisor::SourceError;
use headwater_program::findings::Findings;

/// Lines from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinesSource {
    /// Where they come in.
    pub listen: Endpoint,
    /// How they are read.
    pub format: LineFormat,
}

/// A source of that kind, as it is written in a configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawLines {
    name: String,
    #[serde(default = "normal")]
    lane: String,
    listen: String,
    #[serde(default = "influx")]
    format: LineFormat,
}

/// The format of lines where none is named.
pub(in crate::source) const fn influx() -> LineFormat {
    LineFormat::Influx
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

impl From<LineFormat> for Format {
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

impl fmt::Display for Endpoint {
    /// As it is written in a configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = |host: &str, port: u16| match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        };
        match self {
            Self::Udp(host, port) => write!(f, "udp://{}", address(host, *port)),
            Self::Tcp(host, port) => write!(f, "tcp://{}", address(host, *port)),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Stdin => f.write_str("stdin"),
        }
    }
}

impl Kind for LinesSource {
    type Raw = RawLines;

    fn check(raw: RawLines, problems: &mut Vec<String>) -> Declared<Self> {
        let RawLines {
            name,
            lane,
            listen,
            format,
        } = raw;
        let listen = endpoint(&format!("lines.{name}.listen"), &listen, problems);
        let settings = Self { listen, format };
        Declared {
            name,
            lane,
            settings,
        }
    }

    fn examine(&self, name: &str, found: &mut Findings) {
        let key = format!("lines.{name}.listen");
        let (protocol, host, port) = match &self.listen {
            Endpoint::Stdin => return,
            Endpoint::Unix(path) => {
                return socket_path(&key, path, &self.listen.to_string(), found);
            }
            Endpoint::Udp(host, port) => (Protocol::Udp, host, *port),
            Endpoint::Tcp(host, port) => (Protocol::Tcp, host, *port),
        };
        let shown = self.listen.to_string();
        listen::examine(&key, protocol, (host, port), &shown, found);
    }

    async fn run(self, start: Start) -> Result<(), SourceError> {
        Ok(super::run(&self, start.port, start.stop, start.refusals).await?)
    }
}

impl From<LinesError> for SourceError {
    fn from(error: LinesError) -> Self {
        match error {
            LinesError::Stopped(stopped) => stopped.into(),
            failed @ LinesError::Listen { .. } => Self::of(&failed),
        }
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
