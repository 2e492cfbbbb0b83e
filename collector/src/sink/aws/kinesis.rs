//! A Kinesis data stream as a kind of sink.

use anyhow::Result;
use serde::Deserialize;

use super::shell::{self, Of};
use super::{FLUSH_S, Place, RawPlace};
use crate::sink::kind::{Kind, Replay, Rule, Start};
use crate::sink::letters::Replayed;
use crate::sink::stream::Key;

/// A data stream.
#[derive(Debug, Clone)]
pub struct KinesisKind(Place);

/// As it is written in a configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawKinesis {
    stream: String,
    region: String,
    endpoint: String,
    profile: String,
    flush_s: u64,
    key: RawKey,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawKey {
    Group,
    Device,
}

impl Default for RawKinesis {
    fn default() -> Self {
        Self {
            stream: String::new(),
            region: String::new(),
            endpoint: String::new(),
            profile: String::new(),
            flush_s: FLUSH_S,
            key: RawKey::Group,
        }
    }
}

impl Kind for KinesisKind {
    type Raw = RawKinesis;
    const RULE: Rule = Rule::Any { required: false };

    fn check(name: &str, raw: RawKinesis, problems: &mut Vec<String>) -> Self {
        let key = match raw.key {
            RawKey::Group => Key::Group,
            RawKey::Device => Key::Device,
        };
        let RawKinesis {
            stream,
            region,
            endpoint,
            profile,
            flush_s,
            ..
        } = raw;
        let raw = RawPlace {
            stream,
            region,
            endpoint,
            profile,
            flush_s,
        };
        Self(Place::check(name, raw, key, problems))
    }

    fn start(self, start: Start<'_>) -> Result<()> {
        shell::start(Of::Kinesis, start, self.0)
    }

    fn replay(self, replay: Replay<'_>) -> Result<Replayed> {
        shell::replay(Of::Kinesis, replay, self.0)
    }
}
