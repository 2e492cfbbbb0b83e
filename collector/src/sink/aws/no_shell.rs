//! The place of the AWS SDK in a build without it. [`super::Place::check`] refuses such a sink before it starts.

use anyhow::{Result, bail};

use super::{NOT_BUILT, Place};
use crate::sink::kind::{Replay, Start};
use crate::sink::letters::Replayed;

pub(super) trait Client {
    const NAME: &str;
}

pub(super) struct Firehose;
pub(super) struct Kinesis;

impl Client for Firehose {
    const NAME: &str = "Firehose";
}

impl Client for Kinesis {
    const NAME: &str = "Kinesis";
}

pub(super) fn start<C: Client>(_: Start<'_>, _: Place) -> Result<()> {
    bail!("{}: {NOT_BUILT}", C::NAME)
}

pub(super) fn replay<C: Client>(_: Replay<'_>, _: Place) -> Result<Replayed> {
    bail!("{}: {NOT_BUILT}", C::NAME)
}
