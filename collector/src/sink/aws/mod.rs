//! Sinks in AWS. What is configured is checked in every build; a build without the feature `aws` says that it has
//! them not.
//! The SDK is in a crate of its own; one layer repeats what fails, and it is ours ([`super::stream`],
//! [`super::worker`]).

#![cfg_attr(
    not(feature = "aws"),
    allow(dead_code, reason = "a build without AWS checks what it does not use")
)]

#[cfg(feature = "aws")]
mod codes;
mod firehose;
mod kinesis;
#[cfg_attr(not(feature = "aws"), path = "no_shell.rs")]
mod shell;

use headwater_aws::Access;
use headwater_program::faults::within;
use serde::Deserialize;

pub use firehose::FirehoseKind;
pub use kinesis::KinesisKind;

use super::stream::StreamSettings;
use super::stream::{Encoding, Key, RECORD_BYTES};

/// Seconds after which a record is sent.
const FLUSH_S: u64 = 5;

/// A stream that is fed.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    stream: String,
    access: Access,
    settings: StreamSettings,
}

/// As it is written in a configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawPlace {
    stream: String,
    region: String,
    endpoint: String,
    profile: String,
    flush_s: u64,
}

impl Default for RawPlace {
    fn default() -> Self {
        Self {
            stream: String::new(),
            region: String::new(),
            endpoint: String::new(),
            profile: String::new(),
            flush_s: FLUSH_S,
        }
    }
}

impl Place {
    fn check(name: &str, raw: RawPlace, order: Key, problems: &mut Vec<String>) -> Self {
        let key = |key: &str| format!("sink {name}: {key}");
        let is_name = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if raw.stream.is_empty() || raw.stream.len() > 128 || !raw.stream.chars().all(is_name) {
            let key = key("stream");
            problems.push(format!(
                "{key} = {:?} must be the stream's name: 1 to 128 of A-Z a-z 0-9 _ . -",
                raw.stream
            ));
        }
        let access = Access::check(name, raw.region, raw.endpoint, raw.profile, problems);
        let why = "each flush is a record for each group of devices";
        let flush_s = within(&key("flush_s"), raw.flush_s, 1..=900, why, problems);
        Self {
            stream: raw.stream,
            access,
            settings: StreamSettings {
                encoding: Encoding {
                    key: order,
                    record_bytes: RECORD_BYTES,
                },
                flush_ms: flush_s * 1_000,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems_of(change: impl Fn(&mut RawPlace)) -> Vec<String> {
        let mut raw = RawPlace {
            stream: "telemetry".to_owned(),
            ..RawPlace::default()
        };
        change(&mut raw);
        let mut problems = Vec::new();
        Place::check("s", raw, Key::Group, &mut problems);
        problems.retain(|problem| cfg!(feature = "aws") || !problem.contains("this build"));
        problems
    }

    #[test]
    fn what_is_wrong_is_said_all_at_once() {
        assert_eq!(problems_of(|_| ()), [""; 0]);
        let problems = problems_of(|raw| {
            raw.stream = "arn:aws:kinesis:x".to_owned();
            raw.endpoint = "http://kinesis.example.org".to_owned();
            raw.flush_s = 0;
        });
        assert_eq!(problems.len(), 3, "{problems:?}");
        let begins = ["sink s: stream", "sink s: endpoint", "sink s: flush_s"];
        for (problem, begin) in problems.iter().zip(begins) {
            assert!(problem.starts_with(begin), "{problem}");
        }
    }
}
