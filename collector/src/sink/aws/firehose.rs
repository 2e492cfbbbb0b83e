//! A Firehose delivery stream as a kind of sink.

use anyhow::Result;

use super::shell::{self, Of};
use super::{Place, RawPlace};
use crate::sink::kind::{Kind, Replay, Rule, Start};
use crate::sink::letters::Replayed;
use crate::sink::stream::Key;

/// A delivery stream.
#[derive(Debug, Clone)]
pub struct FirehoseKind(Place);

impl Kind for FirehoseKind {
    type Raw = RawPlace;
    const RULE: Rule = Rule::Any { required: false };

    fn check(name: &str, raw: RawPlace, problems: &mut Vec<String>) -> Self {
        Self(Place::check(name, raw, Key::Nothing, problems))
    }

    fn start(self, start: Start<'_>) -> Result<()> {
        shell::start(Of::Firehose, start, self.0)
    }

    fn replay(self, replay: Replay<'_>) -> Result<Replayed> {
        shell::replay(Of::Firehose, replay, self.0)
    }
}
