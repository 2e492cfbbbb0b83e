//! Core: checks of single settings, for the configuration and for the sources, which check their own.
//!
//! Each check adds a line to `problems` for what the operator must fix, beginning with the setting's
//! key, and returns a value to go on with.

use std::net::IpAddr;
use std::path::PathBuf;

use headwater_program::faults::within;
use headwater_proto::ids::Lane;

/// A lane by its name, or a line in `problems`.
pub(crate) fn lane(key: &str, name: &str, problems: &mut Vec<String>) -> Lane {
    Lane::from_name(name)
        .filter(|lane| Lane::AGENT.contains(lane))
        .unwrap_or_else(|| {
            problems.push(format!(
                "{key} = {name:?}: must be \"alarm\", \"normal\" or \"bulk\""
            ));
            Lane::Normal
        })
}

/// `host:port`, or a line in `problems`.
pub(crate) fn address(key: &str, text: &str, problems: &mut Vec<String>) -> (String, u16) {
    if let Some((scheme, rest)) = text.split_once("://") {
        problems.push(format!(
            "{key} = {text:?}: must be HOST:PORT, so without {scheme}://, for example {}",
            rest.trim_end_matches('/')
        ));
        return (String::new(), 0);
    }
    let parts = text.rsplit_once(':').and_then(|(host, port)| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Some((host.to_owned(), port.parse().ok()?)).filter(|(host, _)| !host.is_empty())
    });
    parts.unwrap_or_else(|| {
        problems.push(format!(
            "{key} = {text:?}: must be HOST:PORT, for example 127.0.0.1:1883"
        ));
        (String::new(), 0)
    })
}

/// Whether only this machine is reached by that name or address.
pub(crate) fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// An empty text means "none".
pub(crate) fn path(text: String) -> Option<PathBuf> {
    (!text.is_empty()).then(|| text.into())
}

/// A path, or a line in `problems` if it is empty.
pub(crate) fn required_path(key: &str, text: String, problems: &mut Vec<String>) -> PathBuf {
    path(text).unwrap_or_else(|| {
        problems.push(format!("{key}: must not be empty"));
        PathBuf::new()
    })
}

/// An interval of a source in milliseconds: at least 10, at most a day.
pub(crate) fn millis(key: &str, value: u64, problems: &mut Vec<String>) -> u64 {
    within(key, value, 10..=86_400_000, "milliseconds", problems)
}

/// Seconds of a recording per second; 0 is as fast as can be.
pub(crate) fn speed(key: &str, speed: f64, problems: &mut Vec<String>) -> f64 {
    if !(0.0..=1e9).contains(&speed) {
        problems.push(format!(
            "{key} = {speed}: must be 0 (as fast as can be) or more"
        ));
    }
    speed
}
