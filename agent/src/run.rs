//! Starts and stops everything. Only this file starts threads and tasks.
//!
//! Order of a stop: sources, then the engine stores what they gave and sends it while the collector
//! answers, ends its epochs and syncs, then the link is dropped.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, bail};
use headwater_program::entropy::random;
use headwater_program::shutdown::Shutdown;
use headwater_proto::delivery::SenderLimits;
use headwater_proto::ids::Lane;
use headwater_spool::RealDisk;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinSet;

use crate::clock::{Clock, boot_id, wall_error};
use crate::config::{Config, SEND_SOURCE, Source};
use crate::desk::{Desk, End, Inlet, StatusFile};
use crate::doctor;
use crate::origins::{Drains, Earlier, claim, home};
use crate::pipeline::batcher::BatchLimits;
use crate::pipeline::engine::{Engine, Settings, SourceSettings, SpoolSettings, strays};
use crate::pipeline::record::{Cursor, Stray};
use crate::source::begun::Begun;
use crate::source::held::HeldPlaces;
use crate::source::kind::Start;
use crate::source::refusals::Refusals;
use crate::source::supervisor::{GivenUp, supervise};
use crate::source::{Port, Stop, lines};
use crate::uplink::{LINK_EVENTS, mqtt::Link};

/// Largest bundle an agent makes: below a quarter of the default credit, so that several fly.
const MAX_BUNDLE_BYTES: u32 = 128 * 1024;
/// Milliseconds within which what `send` hands over is durable: its user waits for it.
const SEND_DURABLE_MS: u64 = 50;
/// How often to look whether what earlier names stored is sent.
const LOOK: Duration = Duration::from_millis(100);
/// How long sources have to stop.
const GRACE: Duration = Duration::from_secs(5);

/// How to run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Return when every source has ended and all is committed.
    pub until_drained: bool,
}

/// The engine's settings under a configuration, in boot `boot`.
#[must_use]
pub fn settings(config: &Config, boot: u64) -> Settings {
    let source = |source: &Source| SourceSettings {
        name: source.name.clone(),
        resumes: source.resumes(),
        loses: source.kind.loses(),
        durable_within_ms: None,
    };
    let send = SourceSettings {
        name: SEND_SOURCE.to_owned(),
        resumes: false,
        // Who sends waits for the answer.
        loses: false,
        durable_within_ms: Some(SEND_DURABLE_MS),
    };
    Settings {
        tags: config.tags.clone(),
        sources: config.sources.iter().map(source).chain([send]).collect(),
        spool: SpoolSettings {
            segment_bytes: config.spool.segment_bytes,
            lane_bytes: config.spool.lane_bytes,
            nodes_bytes: config.spool.nodes_bytes,
            dead_letter_bytes: config.spool.dead_letter_bytes,
            fs_reserve_percent: 5,
            fs_reserve_bytes: 8 << 20,
        },
        batch: BatchLimits {
            rows: config.batch.rows,
            bytes: config.batch.bytes,
            age_ms: config.batch.age_ms,
        },
        group_ms: config.spool.group_ms,
        readings_bytes: config.memory.readings_bytes,
        fallback_bytes: config.memory.fallback_bytes,
        boot,
        sender: SenderLimits {
            max_bundle: MAX_BUNDLE_BYTES,
            ..SenderLimits::DEFAULT
        },
        ..Settings::new(config.device.clone())
    }
}

/// Opens the spool of a configuration. `clock` counts from this boot.
///
/// # Errors
/// With what to do about it.
pub fn open_engine(config: &Config, clock: Clock) -> anyhow::Result<Engine<RealDisk>> {
    let dir = &home(&config.spool.dir, &config.device);
    claim(dir, &config.device)
        .with_context(|| format!("cannot make the spool in {} (spool.dir)", dir.display()))?;
    let disk = RealDisk::open(dir).map_err(|error| {
        let dir = dir.display();
        let context = if error.kind() == ErrorKind::WouldBlock {
            format!("another agent runs on the spool in {dir}")
        } else {
            format!("cannot open the spool in {dir} (spool.dir)")
        };
        anyhow::Error::new(error).context(context)
    })?;
    let settings = Settings {
        dictionary: config.dictionary.as_deref().and_then(dictionary),
        clock: wall_error(),
        ..settings(config, boot_id())
    };
    let engine = Engine::open(disk, settings, &mut random, clock.now())?;
    for trouble in engine.trouble() {
        tracing::warn!("spool: {trouble}");
    }
    Ok(engine)
}

/// The dictionary of log lines. One that is of no use costs bytes, not lines.
fn dictionary(path: &Path) -> Option<Arc<[u8]>> {
    doctor::dictionary(path)
        .inspect_err(|error| {
            let path = path.display();
            tracing::error!("text.dictionary {path}: {error}; log lines are sent without it");
        })
        .ok()
}

/// Where sources began of which nothing is stored yet.
///
/// - `cursors`: of each source, what the spool says.
fn open_begun(config: &Config, cursors: &[Option<Cursor>]) -> Begun {
    let begun = Begun::open(&home(&config.spool.dir, &config.device));
    let stored = config.sources.iter().zip(cursors);
    let stored = stored.filter_map(|(source, cursor)| cursor.map(|_| &*source.name));
    if let Err(error) = begun.forget(&stored.collect::<Vec<_>>()) {
        tracing::warn!("cannot forget where sources began of which something is stored: {error}");
    }
    begun
}

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
/// What kept it from starting, or which part ended early.
pub async fn run(config: Config, options: Options) -> anyhow::Result<()> {
    let clock = Clock::of_boot();
    let mut shutdown = Shutdown::listen().context("cannot catch signals")?;
    let engine = open_engine(&config, clock)?;
    let password = password(&config)?;
    let stop = Stop::default();
    let earlier = Earlier::open(&config, engine.settings(), clock)?;
    let waiting = earlier.waiting().clone();
    let mut strays = strays(&engine);
    strays.extend_from_slice(earlier.strays());
    let drains = earlier.send(&config, password.as_deref(), (clock, &stop))?;
    let link = Link::new(
        &config.collector,
        password,
        &config.device,
        MAX_BUNDLE_BYTES,
    );
    let (up, publishes) = mpsc::channel(1);
    let (link_events, events) = mpsc::channel(LINK_EVENTS);
    let wake = Arc::new(Notify::new());
    let stop_engine = Arc::new(Notify::new());

    let sources = engine.settings().sources.iter();
    let refusals = sources.map(|source| Arc::new(Refusals::new(&source.name, clock)));
    let refusals: Vec<_> = refusals.collect();
    let held = HeldPlaces::default();
    let began = engine.cursors();
    let begun = open_begun(&config, &began);
    let places = Places {
        cursors: &began,
        strays: &strays,
        held: &held,
        begun: &begun,
    };
    let mut sources = Sources::start(&config, &places, &refusals, &wake, &stop, options)?;
    let desk = Desk {
        engine,
        inlets: std::mem::take(&mut sources.inlets),
        refusals,
        ways: std::collections::BTreeMap::new(),
        up,
        events,
        wake,
        stop: Arc::clone(&stop_engine),
        clock,
        status: config
            .status
            .file
            .clone()
            .map(|path| StatusFile::new(path, config.status.interval_ms)),
        held,
        began,
        behind: None,
        earlier: waiting.clone(),
        until_drained: options.until_drained,
    };
    let (thread, mut engine_ended) = start(desk)?;
    let link = tokio::spawn(link.run(publishes, link_events, random()));
    tracing::info!(device = %config.device, "the agent runs");

    let early = tokio::select! {
        () = shutdown.requested() => None,
        ended = &mut engine_ended => Some(ended),
    };
    if options.until_drained && matches!(early, Some(Ok(Ok(End::Drained)))) {
        tokio::select! {
            () = shutdown.requested() => {}
            () = done(&drains) => {}
        }
    }
    tracing::info!("the agent stops");
    stop.stop();
    let given_up = tokio::time::timeout(GRACE, sources.stopped()).await;
    let ended = match early {
        Some(ended) => ended,
        None => {
            stop_engine.notify_one();
            engine_ended.await
        }
    };
    link.abort();
    // One that takes longer is cut off: what it did not send waits for the next start.
    let _ = tokio::time::timeout(GRACE, done(&drains)).await;
    if thread.join().is_err() {
        bail!("the engine's thread panicked; what it says stands above");
    }
    let mut given_up = given_up.unwrap_or_default();
    let names = waiting.names();
    if options.until_drained && !names.is_empty() {
        given_up.push(format!(
            "records of earlier names wait: {}",
            names.join(", ")
        ));
    }
    outcome(
        ended.context("the engine's thread says nothing")??,
        given_up,
    )
}

/// Starts the engine's thread; it says why it ends.
fn start(desk: Desk<RealDisk>) -> io::Result<(JoinHandle<()>, oneshot::Receiver<io::Result<End>>)> {
    let (ended, engine_ended) = oneshot::channel();
    let thread = std::thread::Builder::new().name("engine".into());
    let thread = thread.spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let end = runtime.map(|runtime| runtime.block_on(desk.run()));
        let _ = ended.send(end);
    })?;
    Ok((thread, engine_ended))
}

fn password(config: &Config) -> anyhow::Result<Option<String>> {
    let Some((_, path)) = &config.collector.login else {
        return Ok(None);
    };
    let password = doctor::password(path);
    let password =
        password.with_context(|| format!("cannot read the password in {}", path.display()))?;
    Ok(Some(password))
}

/// Waits until nothing that earlier names stored waits.
async fn done(drains: &Drains) {
    while !drains.are_done() {
        tokio::time::sleep(LOOK).await;
    }
}

/// What the program returns: an engine that ended early, or a source that was given up, is a failure.
fn outcome(end: End, given_up: Vec<String>) -> anyhow::Result<()> {
    if end == End::Unlinked {
        bail!(
            "the link's task ended early; what was read is on disk, and waits for the next start"
        );
    }
    if !given_up.is_empty() {
        bail!("{}", given_up.join("; "));
    }
    Ok(())
}

/// Where sources begin or go on.
struct Places<'a> {
    /// Of each source, what the spool says.
    cursors: &'a [Option<Cursor>],
    strays: &'a [Stray],
    held: &'a HeldPlaces,
    begun: &'a Begun,
}

struct Sources {
    inlets: Vec<Inlet>,
    tasks: JoinSet<Result<(), GivenUp>>,
}

impl Sources {
    fn start(
        config: &Config,
        places: &Places<'_>,
        refusals: &[Arc<Refusals>],
        wake: &Arc<Notify>,
        stop: &Stop,
        options: Options,
    ) -> anyhow::Result<Self> {
        let mut all = Self {
            inlets: Vec::new(),
            tasks: JoinSet::new(),
        };
        // The last are those of `send`.
        for (at, (source, refusals)) in config.sources.iter().zip(refusals).enumerate() {
            let port = all.inlet(at, &source.name, source.lane, source.resumes(), wake);
            let port = port.resuming_at(places.cursors.get(at).copied().flatten());
            let port = port.with_strays(places.strays).with_held(places.held);
            refusals.attach(&port);
            let (name, kind) = (source.name.clone(), source.kind.clone());
            let (device, stop) = (config.device.as_str().to_owned(), stop.clone());
            let (refusals, begun) = (Arc::clone(refusals), places.begun.clone());
            let (told, retries) = (stop.clone(), !options.until_drained);
            let start = move |port| {
                kind.clone().run(Start {
                    name: name.clone(),
                    device: device.clone(),
                    port,
                    stop: told.clone(),
                    refusals: Arc::clone(&refusals),
                    begun: begun.clone(),
                })
            };
            let name = source.name.clone();
            let running = supervise(name, port, stop, retries, random(), start);
            all.tasks.spawn(running);
        }
        if let (Some(path), Some(refusals)) = (config.status.socket.clone(), refusals.last()) {
            let refusals = Arc::clone(refusals);
            let at = config.sources.len();
            let port = all.inlet(at, SEND_SOURCE, Lane::Normal, false, wake);
            refusals.attach(&port);
            let told = stop.clone();
            let start = move |port| {
                let (path, stop, refusals) = (path.clone(), told.clone(), Arc::clone(&refusals));
                async move { Ok(lines::serve_send(&path, port, stop, refusals).await?) }
            };
            let running = supervise(
                SEND_SOURCE.to_owned(),
                port,
                stop.clone(),
                true,
                random(),
                start,
            );
            all.tasks.spawn(running);
        }
        Ok(all)
    }

    fn inlet(
        &mut self,
        source: usize,
        name: &str,
        lane: Lane,
        resumes: bool,
        wake: &Arc<Notify>,
    ) -> Port {
        let (port, end) = Port::new(name, Arc::clone(wake));
        self.inlets.push(Inlet {
            source,
            lane,
            resumes,
            end,
            waiting: VecDeque::new(),
            ended: false,
            // Who may come with `send` is never known.
            awaited: name != SEND_SOURCE,
        });
        port
    }

    /// Waits for all of them; those that were given up, and why.
    async fn stopped(&mut self) -> Vec<String> {
        let mut given_up = Vec::new();
        while let Some(ended) = self.tasks.join_next().await {
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => given_up.push(error.to_string()),
                Err(error) => given_up.push(format!("the task of a source failed: {error}")),
            }
        }
        given_up
    }
}

/// The host's name, or nothing.
#[must_use]
pub fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_ends_early_and_a_source_that_is_given_up_are_failures() {
        assert!(outcome(End::Stopped, Vec::new()).is_ok());
        assert!(outcome(End::Drained, Vec::new()).is_ok());
        assert!(outcome(End::Unlinked, Vec::new()).is_err());
        let told = outcome(End::Drained, vec!["source a: no file".into()]).unwrap_err();
        assert_eq!(told.to_string(), "source a: no file");
    }

    #[test]
    fn a_replay_without_its_file_is_given_up_where_all_is_to_be_drained() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("a.csv");
        let text = format!("[[replay]]\nname = \"r\"\npath = {missing:?}\n[status]\nsocket = \"\"");
        let config = Config::parse(&text, "host").unwrap();
        let refusals = [Arc::new(Refusals::new("r", Clock::start()))];
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let given_up = runtime.block_on(async {
            let options = Options {
                until_drained: true,
            };
            let (wake, stop) = (Arc::default(), Stop::default());
            let held = HeldPlaces::default();
            held.tell(Vec::new());
            let places = Places {
                cursors: &[None],
                strays: &[],
                held: &held,
                begun: &Begun::default(),
            };
            let sources = Sources::start(&config, &places, &refusals, &wake, &stop, options);
            sources.unwrap().stopped().await
        });
        let [told] = &*given_up else {
            panic!("{given_up:?}")
        };
        assert!(
            told.starts_with(&format!("source r: cannot read {}: ", missing.display())),
            "{told}"
        );
    }
}
