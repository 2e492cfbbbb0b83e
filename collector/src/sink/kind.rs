//! A kind of sink: its settings in the configuration, and how it starts. `registry.rs` lists them all.

use std::any::Any;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use headwater_gate::clock::Clock;
use headwater_program::findings::Findings;
use headwater_spool::RealDisk;
use serde::de::DeserializeOwned;

use super::Sink;
use super::crew::Crew;
use super::letters::{self, Around, Letters, Replayed};
use super::worker::{Context, EndedEarly, Worker};
use crate::interpret::{Depth, Feed};
use crate::pipeline::custody::Custody;

/// One kind of sink. The type that implements it holds the checked settings of one such sink.
pub(crate) trait Kind: Debug + Clone + Sized {
    /// The settings as they are written, without `kind`, `name` and `required`, which every sink has.
    type Raw: Debug + DeserializeOwned;

    /// How many there are, and whether the journal waits for one.
    const RULE: Rule;

    /// Checks settings. Adds a line to `problems` for each thing the operator must fix, beginning with
    /// `sink NAME: KEY`, and returns settings in any case, so that all faults are found at once.
    fn check(name: &str, raw: Self::Raw, problems: &mut Vec<String>) -> Self;

    /// The folder or file that it has for itself: no other sink may have it, nor the journal. `None` for a sink
    /// that keeps nothing on this machine.
    ///
    /// - `state_dir`: the folder of keyed state.
    fn place(&self, state_dir: &Path) -> Option<PathBuf> {
        let _ = state_dir;
        None
    }

    /// Looks for what the settings name on this machine: folders, addresses. It must change nothing.
    ///
    /// - `name`: the sink's name, for the keys of what is found.
    fn examine(&self, name: &str, found: &mut Findings) {
        let _ = (name, found);
    }

    /// Opens it and starts its worker with [`Start::run`].
    ///
    /// # Errors
    /// When it cannot be opened: the collector then does not start. An optional sink whose destination is
    /// merely away starts, and its deliveries fail until it is there.
    fn start(self, start: Start<'_>) -> anyhow::Result<()>;

    /// Opens it without a collector, and gives it its dead letters once more with [`Replay::run`]. Only a kind
    /// that refuses records needs this.
    ///
    /// # Errors
    /// When it cannot be opened, or does not take them now.
    fn replay(self, replay: Replay<'_>) -> anyhow::Result<Replayed> {
        let _ = replay;
        anyhow::bail!("a sink of this kind refuses nothing, and has no dead letters")
    }
}

/// How many sinks of a kind there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// One, which bears the kind's name and is required, and why.
    One(&'static str),
    /// Any number under different names; whether one is required that does not say so.
    Any {
        /// The default of `required`.
        required: bool,
    },
}

/// Everything that a sink needs to be given its dead letters.
pub(crate) struct Replay<'a> {
    /// Folder of keyed state.
    pub(crate) state_dir: &'a Path,
    pub(crate) letters: &'a mut Letters<RealDisk>,
    pub(crate) around: Around<'a>,
}

impl Replay<'_> {
    /// Gives `sink` every letter.
    pub(super) fn run<S: Sink>(self, mut sink: S, depth: Depth) -> anyhow::Result<Replayed> {
        Ok(letters::replay(
            &mut sink,
            self.letters,
            depth,
            &self.around,
        )?)
    }
}

/// Everything that a sink is given when it starts.
pub(crate) struct Start<'a> {
    pub(super) name: Arc<str>,
    pub(super) required: bool,
    pub(super) site: &'a mut Site,
    pub(super) crew: &'a mut Crew,
}

impl Start<'_> {
    /// Its name.
    pub(crate) const fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether the journal waits for it.
    pub(crate) const fn required(&self) -> bool {
        self.required
    }

    /// The journal and the machine.
    pub(crate) const fn site(&mut self) -> &mut Site {
        self.site
    }

    /// Tells whether the collector ends; for what takes long before the worker runs.
    pub(crate) fn is_stopping(&self) -> impl Fn() -> bool + use<> {
        self.crew.is_stopping()
    }

    /// Runs its worker, which `worker` makes on the sink's own thread from the journal's records.
    ///
    /// - `from`: the position of the first record that it reads.
    pub(crate) fn run<S: Sink>(
        self,
        from: u64,
        depth: Depth,
        worker: impl FnOnce(Feed<RealDisk>) -> Worker<S, RealDisk> + Send + 'static,
    ) {
        let custody = &self.site.custody;
        let feed = Feed::new(custody.reader(), from, depth).with_clock(custody.clock.book());
        self.run_late(|_| Ok(Some(worker(feed))));
    }

    /// Runs its worker, which `worker` makes on the sink's own thread when its destination is there. It
    /// is asked to end as a worker is, and gives `None` then.
    pub(super) fn run_late<S: Sink>(
        self,
        worker: impl FnOnce(&Context) -> Result<Option<Worker<S, RealDisk>>, EndedEarly>
        + Send
        + 'static,
    ) {
        self.crew.start(self.name, self.required, worker);
    }

    /// It does not run in this life of the collector; its segments wait for it.
    pub(crate) fn stay_off(self, why: &str) {
        self.crew.off(&self.name, why);
    }
}

/// What sinks find when they start: the journal, the machine, and what sinks before them put there.
pub(crate) struct Site {
    pub(crate) custody: Custody<RealDisk>,
    pub(crate) clock: Clock,
    /// Folder of keyed state.
    pub(crate) state_dir: Box<Path>,
    things: Vec<Box<dyn Any>>,
}

impl Site {
    pub(crate) fn new(custody: Custody<RealDisk>, clock: Clock, state_dir: &Path) -> Self {
        Self {
            custody,
            clock,
            state_dir: state_dir.into(),
            things: Vec::new(),
        }
    }

    /// Leaves a thing for a sink that starts later, or for the program: known by its type alone.
    pub(crate) fn leave<T: 'static>(&mut self, thing: T) {
        self.things.push(Box::new(thing));
    }

    /// A thing that was left.
    pub(crate) fn find<T: 'static>(&self) -> Option<&T> {
        self.things.iter().find_map(|thing| thing.downcast_ref())
    }

    /// Takes a thing that was left.
    pub(crate) fn take<T: 'static>(&mut self) -> Option<T> {
        let at = self.things.iter().position(|thing| thing.is::<T>())?;
        let thing = self.things.swap_remove(at).downcast().ok()?;
        Some(*thing)
    }
}
