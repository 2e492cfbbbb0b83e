//! Settings of nodes behind this agent: how they are written, checked, and examined on this machine.

use std::fmt;
use std::path::PathBuf;

use headwater_program::findings::Findings;
use headwater_program::glob;
use headwater_program::listen::{self, Protocol};
use headwater_proto::ids::{DeviceId, MAX_DEVICE_ID_BYTES};
use serde::Deserialize;

use crate::check::{address, is_loopback};
use crate::source::accept::socket_path;
use crate::source::kind::{Declared, Kind, Start, normal};
use crate::source::supervisor::SourceError;

/// Nodes behind this agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodesSource {
    /// Where they speak.
    pub listen: Place,
    /// Who may speak there.
    pub devices: Allowed,
}

/// A source of that kind, as it is written in a configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawNodes {
    name: String,
    listen: String,
    devices: Vec<String>,
    #[serde(default)]
    insecure: bool,
}

/// Where nodes speak.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Connections.
    Tcp(String, u16),
    /// Connections on a unix socket.
    Unix(PathBuf),
    /// A serial line.
    Serial(PathBuf),
}

impl fmt::Display for Place {
    /// As it is written in a configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "tcp://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Serial(path) => write!(f, "serial:{}", path.display()),
        }
    }
}

/// Which devices may speak: ids, in which each `*` stands for any characters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Allowed(Vec<String>);

impl Allowed {
    /// Those that one of the patterns fits.
    #[must_use]
    pub const fn new(patterns: Vec<String>) -> Self {
        Self(patterns)
    }

    /// Whether a device may speak.
    #[must_use]
    pub fn allows(&self, device: &DeviceId) -> bool {
        let mut patterns = self.0.iter();
        patterns.any(|pattern| glob::matches(pattern, device.as_str()))
    }
}

impl Kind for NodesSource {
    type Raw = RawNodes;
    /// A node keeps what is not acknowledged.
    const LOSES: bool = false;

    fn check(raw: RawNodes, problems: &mut Vec<String>) -> Declared<Self> {
        let RawNodes {
            name,
            listen,
            devices,
            insecure,
        } = raw;
        let key = format!("nodes.{name}.devices");
        if devices.is_empty() {
            problems.push(format!(
                "{key}: must name the devices that may speak there, for example [\"plc-*\"]"
            ));
        }
        for pattern in &devices {
            let is_short = pattern.len() <= MAX_DEVICE_ID_BYTES;
            if pattern.is_empty() || !is_short || pattern.chars().any(char::is_control) {
                problems.push(format!("{key}: {pattern:?} fits no device id"));
            }
        }
        let listen = place(&format!("nodes.{name}.listen"), &listen, insecure, problems);
        let devices = Allowed::new(devices);
        Declared {
            name,
            // A node's records stand in the lanes that it chose.
            lane: normal(),
            settings: Self { listen, devices },
        }
    }

    fn examine(&self, name: &str, found: &mut Findings) {
        let key = format!("nodes.{name}.listen");
        let shown = self.listen.to_string();
        match &self.listen {
            Place::Tcp(host, port) => {
                listen::examine(&key, Protocol::Tcp, (host, *port), &shown, found);
            }
            Place::Unix(path) => socket_path(&key, path, &shown, found),
            Place::Serial(path) => {
                if let Err(error) = std::fs::metadata(path) {
                    found.fault(&key, shown, &error);
                }
            }
        }
    }

    async fn run(self, start: Start) -> Result<(), SourceError> {
        super::run(self, start).await
    }
}

fn place(key: &str, text: &str, insecure: bool, problems: &mut Vec<String>) -> Place {
    if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
        return Place::Unix(path.into());
    }
    let serial = text.strip_prefix("serial:");
    if let Some(path) = serial.filter(|path| !path.is_empty()) {
        return Place::Serial(path.into());
    }
    if let Some(rest) = text.strip_prefix("tcp://") {
        let (host, port) = address(key, rest, problems);
        if !host.is_empty() && !is_loopback(&host) && !insecure {
            problems.push(format!(
                "{key} = {text:?}: anybody on the network could speak as one of the devices; set \
                 insecure = true if the network is trusted wholly"
            ));
        }
        return Place::Tcp(host, port);
    }
    problems.push(format!(
        "{key} = {text:?}: must be tcp://HOST:PORT, unix:PATH or serial:PATH"
    ));
    Place::Serial(PathBuf::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_of_the_settings_is_told() {
        let raw = |listen: &str, devices: &[&str], insecure| RawNodes {
            name: "n".into(),
            listen: listen.into(),
            devices: devices.iter().map(|it| (*it).to_owned()).collect(),
            insecure,
        };
        let told = |raw| {
            let mut problems = Vec::new();
            let declared = NodesSource::check(raw, &mut problems);
            (declared.settings.listen.to_string(), problems)
        };
        let devices = ["plc-*"];
        for listen in [
            "tcp://127.0.0.1:8095",
            "unix:/run/n.sock",
            "serial:/dev/ttyS0",
        ] {
            assert_eq!(
                told(raw(listen, &devices, false)),
                (listen.to_owned(), vec![])
            );
        }
        let open = "tcp://[2001:db8::1]:8095";
        assert_eq!(told(raw(open, &devices, true)), (open.to_owned(), vec![]));
        let (_, problems) = told(raw(open, &["", "a\u{7}"], false));
        let expected = [
            "\"\" fits no",
            "fits no device id",
            "anybody on the network",
        ];
        assert_eq!(problems.len(), 3);
        for (problem, expected) in problems.iter().zip(expected) {
            assert!(problem.contains(expected), "{problem}");
        }
        let (_, problems) = told(raw("udp://127.0.0.1:1", &[], false));
        assert!(
            problems[0].contains("must name the devices"),
            "{problems:?}"
        );
        assert!(problems[1].contains("must be tcp://"), "{problems:?}");
    }
}
