//! Starts and stops everything. Only this file starts threads and tasks.
//!
//! Order of a stop: sources, then the engine stores what they gave and sends it while the collector
//! answers, ends its epochs and syncs, then the link is dropped.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use headwater_program::chain::chain;
use headwater_program::entropy::random;
use headwater_program::shutdown::Shutdown;
use headwater_proto::delivery::SenderLimits;
use headwater_spool::RealDisk;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use crate::clock::{Clock, boot_id, wall_error};
use crate::config::{Config, SEND_SOURCE, Source, SourceKind};
use crate::desk::{Desk, Inlet};
use crate::doctor;
use crate::pipeline::batcher::BatchLimits;
use crate::pipeline::engine::{Engine, Settings, SourceSettings, SpoolSettings};
use crate::pipeline::record::Cursor;
use crate::source::refusals::Refusals;
use crate::source::{Port, Stop, exec, file, generator, host, lines, replay};
use crate::status::Pace;
use crate::uplink::{LINK_EVENTS, mqtt::Link};

/// Largest bundle an agent makes: below a quarter of the default credit, so that several fly.
const MAX_BUNDLE_BYTES: u32 = 128 * 1024;
/// Milliseconds within which what `send` hands over is durable: its user waits for it.
const SEND_DURABLE_MS: u64 = 50;
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
        durable_within_ms: None,
    };
    let send = SourceSettings {
        name: SEND_SOURCE.to_owned(),
        resumes: false,
        durable_within_ms: Some(SEND_DURABLE_MS),
    };
    Settings {
        tags: config.tags.clone(),
        sources: config.sources.iter().map(source).chain([send]).collect(),
        spool: SpoolSettings {
            segment_bytes: config.spool.segment_bytes,
            lane_bytes: config.spool.lane_bytes,
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
    let dir = &config.spool.dir;
    let disk = RealDisk::open(dir).with_context(|| {
        format!(
            "cannot take the spool in {}; is another agent running on it?",
            dir.display()
        )
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

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
/// What kept it from starting, or which part ended early.
pub async fn run(config: Config, options: Options) -> anyhow::Result<()> {
    let clock = Clock::of_boot();
    let mut shutdown = Shutdown::listen().context("cannot catch signals")?;
    let engine = open_engine(&config, clock)?;
    let password = match &config.collector.login {
        Some((_, path)) => Some(
            doctor::password(path)
                .with_context(|| format!("cannot read the password in {}", path.display()))?,
        ),
        None => None,
    };
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
    let stop = Stop::default();

    let refusals: Vec<_> = engine
        .source_names()
        .map(|name| Arc::new(Refusals::new(name, clock)))
        .collect();
    let mut sources = Sources::start(&config, &engine.cursors(), &refusals, &wake, &stop, clock)?;
    let desk = Desk {
        engine,
        inlets: std::mem::take(&mut sources.inlets),
        refusals,
        up,
        events,
        wake,
        stop: Arc::clone(&stop_engine),
        clock,
        status: config
            .status
            .file
            .clone()
            .map(|path| (path, Pace::new(config.status.interval_ms))),
        until_drained: options.until_drained,
    };
    let (ended, mut engine_ended) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new()
        .name("engine".into())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build();
            if let Ok(runtime) = runtime {
                runtime.block_on(desk.run());
            }
            let _ = ended.send(());
        })?;
    let link = tokio::spawn(link.run(publishes, link_events, random()));
    tracing::info!(device = %config.device, "the agent runs");

    let mut early = false;
    tokio::select! {
        () = shutdown.requested() => {}
        _ = &mut engine_ended => early = true,
        Some(ended) = sources.tasks.join_next() => {
            ended.context("a source's task failed")??;
            // A source that ended is no reason to stop the others.
            tokio::select! {
                () = shutdown.requested() => {}
                _ = &mut engine_ended => early = true,
            }
        }
    }
    tracing::info!("the agent stops");
    stop.stop();
    let _ = tokio::time::timeout(GRACE, sources.stopped()).await;
    if !early {
        stop_engine.notify_one();
        let _ = engine_ended.await;
    }
    link.abort();
    thread
        .join()
        .map_err(|_| anyhow::anyhow!("the engine's thread failed"))?;
    Ok(())
}

/// The surroundings of a source.
struct Start {
    resume: Option<Cursor>,
    port: Port,
    stop: Stop,
    clock: Clock,
    refusals: Arc<Refusals>,
}

struct Sources {
    inlets: Vec<Inlet>,
    tasks: JoinSet<anyhow::Result<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Sources {
    fn start(
        config: &Config,
        cursors: &[Option<Cursor>],
        refusals: &[Arc<Refusals>],
        wake: &Arc<Notify>,
        stop: &Stop,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let mut all = Self {
            inlets: Vec::new(),
            tasks: JoinSet::new(),
            threads: Vec::new(),
        };
        // The last are those of `send`.
        for (at, (source, refusals)) in config.sources.iter().zip(refusals).enumerate() {
            let port = all.inlet(at, source.lane, source.resumes(), wake);
            refusals.attach(&port);
            let resume = cursors.get(at).copied().flatten();
            let refusals = Arc::clone(refusals);
            let start = Start {
                resume,
                port,
                stop: stop.clone(),
                clock,
                refusals,
            };
            all.start_one(config, source, start)?;
        }
        if let (Some(path), Some(refusals)) = (config.status.socket.clone(), refusals.last()) {
            let refusals = Arc::clone(refusals);
            let port = all.inlet(
                config.sources.len(),
                headwater_proto::ids::Lane::Normal,
                false,
                wake,
            );
            refusals.attach(&port);
            let stop = stop.clone();
            all.tasks.spawn(async move {
                if let Err(error) = lines::serve_send(&path, port, stop, refusals).await {
                    tracing::warn!("`send` will not reach this agent: {}", chain(&error));
                }
                Ok(())
            });
        }
        Ok(all)
    }

    fn inlet(
        &mut self,
        source: usize,
        lane: headwater_proto::ids::Lane,
        resumes: bool,
        wake: &Arc<Notify>,
    ) -> Port {
        let (port, end) = Port::new(Arc::clone(wake));
        self.inlets.push(Inlet {
            source,
            lane,
            resumes,
            end,
            waiting: VecDeque::new(),
            ended: false,
        });
        port
    }

    fn start_one(&mut self, config: &Config, source: &Source, start: Start) -> anyhow::Result<()> {
        let Start {
            resume,
            port,
            stop,
            clock,
            refusals,
        } = start;
        let name = source.name.clone();
        match source.kind.clone() {
            SourceKind::Host(host) => self.thread(&name, move || host::run(&host, &port, &stop)),
            SourceKind::File(file) => {
                self.thread(&name, move || {
                    // It ends early only because the agent does.
                    let _ = file::run(&file, resume, &port, &stop, &refusals);
                })
            }
            SourceKind::Replay(replay) => self.thread(&name.clone(), move || {
                if let Err(error) = replay::run(&replay, resume, &port, &stop, clock, &refusals) {
                    tracing::error!(source = name, "{}", chain(&error));
                }
            }),
            SourceKind::Generator(signals) => {
                let device = config.device.as_str().to_owned();
                self.thread(&name, move || {
                    let _ = generator::run(&signals, &device, resume, &port, &stop, clock);
                })
            }
            SourceKind::Lines(lines) => {
                self.tasks.spawn(async move {
                    if let Err(error) = lines::run(&lines, port, stop, refusals).await {
                        tracing::error!(source = name, "{}", chain(&error));
                    }
                    Ok(())
                });
                Ok(())
            }
            SourceKind::Exec(exec) => {
                self.tasks
                    .spawn(async move { Ok(exec::run(&name, &exec, port, stop, refusals).await?) });
                Ok(())
            }
        }
    }

    fn thread(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
        let thread = std::thread::Builder::new()
            .name(name.chars().take(15).collect())
            .stack_size(256 * 1024)
            .spawn(work)
            .with_context(|| format!("cannot start a thread for source {name}"))?;
        self.threads.push(thread);
        Ok(())
    }

    async fn stopped(&mut self) {
        while self.tasks.join_next().await.is_some() {}
        while self.threads.iter().any(|thread| !thread.is_finished()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// The host's name, or nothing.
#[must_use]
pub fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default()
}
