//! The place of the AWS SDK in a build without it. [`super::Place::check`] refuses such a sink before it starts.

use anyhow::{Result, bail};
use headwater_aws::NOT_BUILT;

use super::Place;
use crate::sink::kind::{Replay, Start};
use crate::sink::letters::Replayed;

#[derive(Debug)]
pub(super) enum Of {
    Firehose,
    Kinesis,
}

pub(super) fn start(of: Of, _: Start<'_>, _: Place) -> Result<()> {
    bail!("{of:?}: {NOT_BUILT}")
}

pub(super) fn replay(of: Of, _: Replay<'_>, _: Place) -> Result<Replayed> {
    bail!("{of:?}: {NOT_BUILT}")
}
