//! A Firehose delivery stream as a kind of sink.

use anyhow::Result;
use serde::Deserialize;

use super::{FLUSH_S, Place, RawPlace};
use crate::sink::kind::{Kind, Replay, Rule, Start};
use crate::sink::letters::Replayed;
use crate::sink::stream::Key;

/// A delivery stream.
#[derive(Debug, Clone)]
pub struct FirehoseKind(Place);

/// As it is written in a configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawFirehose {
    stream: String,
    region: String,
    endpoint: String,
    profile: String,
    flush_s: u64,
}

impl Default for RawFirehose {
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

impl Kind for FirehoseKind {
    type Raw = RawFirehose;
    const RULE: Rule = Rule::Any { required: false };

    fn check(name: &str, raw: RawFirehose, problems: &mut Vec<String>) -> Self {
        let RawFirehose {
            stream,
            region,
            endpoint,
            profile,
            flush_s,
        } = raw;
        let raw = RawPlace {
            stream,
            region,
            endpoint,
            profile,
            flush_s,
            key: Key::Nothing,
        };
        Self(Place::check(name, raw, problems))
    }

    #[cfg(feature = "aws")]
    fn start(self, start: Start<'_>) -> Result<()> {
        super::shell::start(
            start,
            super::shell::Firehose::new(&self.0)?,
            self.0.settings,
        )
    }

    #[cfg(feature = "aws")]
    fn replay(self, replay: Replay<'_>) -> Result<Replayed> {
        super::shell::replay(
            replay,
            super::shell::Firehose::new(&self.0)?,
            self.0.settings,
        )
    }

    #[cfg(not(feature = "aws"))]
    fn start(self, _: Start<'_>) -> Result<()> {
        anyhow::bail!("this build has no sinks in AWS")
    }

    #[cfg(not(feature = "aws"))]
    fn replay(self, _: Replay<'_>) -> Result<Replayed> {
        anyhow::bail!("this build has no sinks in AWS")
    }
}
