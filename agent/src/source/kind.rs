//! A kind of source: its settings in the configuration, and how it runs. `registry.rs` lists them all.

use std::fmt::Debug;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::begun::Begun;
use super::refusals::Refusals;
use super::supervisor::SourceError;
use super::{Port, Stop};
use headwater_program::findings::Findings;

/// One kind of source. The type that implements it holds the checked settings of one such source.
pub trait Kind: Sized + Send + 'static {
    /// The settings as they are written in a configuration.
    type Raw: Debug + DeserializeOwned;

    /// Whether it gives a cursor with every reading, and can begin again from one.
    const RESUMES: bool = false;

    /// Whether a reading that was not durable at a kill is lost: the source cannot begin again, and who gave the
    /// reading does not wait for the word that it is durable.
    const LOSES: bool = !Self::RESUMES;

    /// Checks settings. Adds a line to `problems` for each thing the operator must fix, beginning with
    /// `KIND.NAME.KEY`, and returns settings in any case, so that all faults are found at once.
    fn check(raw: Self::Raw, problems: &mut Vec<String>) -> Declared<Self>;

    /// Looks for what the settings name on this machine: files, programs, addresses. It must change
    /// nothing.
    ///
    /// - `name`: the source's name, for the keys of what is found.
    fn examine(&self, name: &str, found: &mut Findings) {
        let _ = (name, found);
    }

    /// Runs it once: until its input ends, it is told to stop, or it fails and is started again. One
    /// that blocks runs [on a thread](super::supervisor::on_thread).
    ///
    /// # Errors
    /// [`SourceError`].
    fn run(self, start: Start) -> impl Future<Output = Result<(), SourceError>> + Send;
}

/// A source as a configuration declares it.
#[derive(Debug)]
pub struct Declared<S> {
    /// Its name.
    pub name: String,
    /// The name of the lane where its readings go, not checked yet.
    pub lane: String,
    /// Its checked settings.
    pub settings: S,
}

/// Everything that a source is given when it starts.
#[derive(Debug)]
pub struct Start {
    /// Its name.
    pub name: String,
    /// The device that it runs on.
    pub device: String,
    /// The way to the engine; [`Port::resume`] says where to begin.
    pub port: Port,
    /// Tells it to stop.
    pub stop: Stop,
    /// Where it reports parts of its input that it refuses.
    pub refusals: Arc<Refusals>,
    /// Where those began of which nothing is stored yet.
    pub begun: Begun,
}

/// The lane of a source that names none, for most kinds.
pub(super) fn normal() -> String {
    "normal".to_owned()
}
