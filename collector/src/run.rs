//! `headwater-collector run`: starts all parts, and stops them in order.
//!
//! The gate stops first, then custody syncs what arrived, then the lake takes the rest, then the
//! owner of the journal ends. A part that ends early is an error that names it.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use anyhow::{Context as _, Result, anyhow};
use headwater_gate::identity::Loopback;
use headwater_gate::{Gate, Settings as GateSettings};
use headwater_lake::{Found, LocalStore};
use headwater_program::clock::Clock;
use headwater_program::entropy::random;
use headwater_program::shutdown::Shutdown;
use headwater_proto::ids::JournalId;
use headwater_proto::time::UnixMicros;
use headwater_spool::RealDisk;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::background;
use crate::config::Config;
use crate::done_store::DoneStore;
use crate::http;
use crate::interpret::{Depth, Feed};
use crate::metrics::Board;
use crate::owner::{Command, JournalSessions, Mailbox, Owner};
use crate::pipeline::custody::{Custody, Past};
use crate::sink::hot::{self, HotRead, HotSink, HotStore, HotView};
use crate::sink::lake::{LakeSink, NAME};
use crate::sink::worker::{self, Worker};
use crate::sink::{self, Sink};

/// A part that runs: its name and how it ended.
type Ended = (&'static str, Result<()>);

/// Opens custody and lake so that both agree on what is committed.
fn open_cores(config: &Config, clock: Clock) -> Result<(Custody<RealDisk>, LakeSink<LocalStore>)> {
    let folder = &config.journal_dir;
    if let Some(parent) = folder.parent() {
        std::fs::create_dir_all(parent)
            .with_context(|| format!("cannot create {}", parent.display()))?;
    }
    let disk = RealDisk::open(folder)
        .with_context(|| format!("cannot use the journal's folder {}", folder.display()))?;
    let (done, found) = DoneStore::open(&config.state_dir).with_context(|| {
        let folder = config.state_dir.display();
        format!("cannot use the state folder {folder}; it may be deleted, and is filled again")
    })?;
    tracing::info!(?found, "index of epochs that are over open");
    let done = Box::new(done);
    let (mut custody, opened) = Custody::open(disk, config.custody.clone(), done, &mut random)?;
    tracing::info!(
        journal = %custody.journal(),
        replayed = opened.replayed,
        past = ?opened.past,
        "journal open"
    );
    if opened.damaged > 0 || opened.past == Past::Records {
        let damaged = opened.damaged;
        tracing::error!(
            damaged,
            "the journal is damaged; what is missing is taken from the lake"
        );
    }
    for cut in &opened.recovery.cut {
        tracing::warn!(
            ?cut,
            "the journal's tail was cut after its last good record"
        );
    }
    for trouble in &opened.recovery.trouble {
        tracing::warn!(trouble, "the journal's folder");
    }
    let store = LocalStore::new(&config.lake_dir)
        .with_context(|| format!("cannot use the lake's folder {}", config.lake_dir.display()))?;
    let now = clock.now().wall;
    let lake = sink::join(&mut custody, &opened, store, config.lake, now, &mut random)?;
    let (owner, start) = (lake.lake().owner(), lake.lake().opened());
    tracing::info!(term = owner.term, found = ?start.found, "lake open");
    if let Some(before) = start.before {
        tracing::warn!(
            before = %before.journal,
            term = owner.term,
            "the lake was another journal's; that one can commit no more"
        );
    }
    if start.found == Found::Adopted {
        tracing::warn!("the lake had no readable head; its logs were read and are whole");
    }
    Ok((custody, lake))
}

/// Threads of the runtime: the gate's connections and the HTTP interface. Custody, the lake and the
/// hot store have threads of their own.
const RUNTIME_THREADS: usize = 2;

/// Runs until a signal, then drains and flushes.
///
/// # Errors
/// When a part cannot start, or ends early.
pub fn run(config: Config, clock: Clock) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREADS)
        .enable_all()
        .build()?
        .block_on(run_parts(config, clock))
}

async fn run_parts(config: Config, clock: Clock) -> Result<()> {
    let mut shutdown = Shutdown::listen().context("cannot catch signals")?;
    // Nothing runs yet that an address which is taken would leave behind.
    let (gate_listener, http_listener) = listen(&config).await?;
    let board = Arc::new(Board::default());
    let (mut custody, lake) = open_cores(&config, clock)?;
    let journal = custody.journal();
    let (mailbox, commands) = Mailbox::new();
    let sessions = JournalSessions::new(mailbox.clone(), custody.sessions().iter().cloned());
    let (gate, arrivals) = Gate::new(gate_settings(&config, sessions, clock));
    mailbox.wake_with(arrivals.waker());
    let mut parts: JoinSet<Ended> = JoinSet::new();
    let sinks_stop = CancellationToken::new();
    let mut readers = Vec::new();
    let mut context = |name| {
        let (wake, durable) = sync_channel(1);
        readers.push(wake);
        worker::Context {
            name,
            mailbox: mailbox.clone(),
            durable,
            board: Arc::clone(&board),
            clock,
            runtime: Handle::current(),
            stop: sinks_stop.clone(),
        }
    };
    let feed = Feed::new(custody.reader(), lake.position(), Depth::Samples);
    start_sink(&mut parts, context(NAME), move || Worker::new(lake, feed));

    let mut view = None;
    if let Some((mut hot, freshness_ms, is_empty)) = open_hot(&config, journal) {
        view = Some(hot.view());
        if let Ok(Some(position)) = hot.cursor(journal) {
            custody.resume(hot::NAME, position)?;
        }
        let lake_dir = config.lake_dir.clone();
        let begin = custody.cursor(NAME).unwrap_or_default();
        let (reader, stop) = (custody.reader(), sinks_stop.clone());
        start_sink(&mut parts, context(hot::NAME), move || {
            let is_stopping = || stop.is_cancelled();
            if is_empty
                && let Err(error) = refill(&mut hot, &lake_dir, journal, begin, clock, &is_stopping)
            {
                tracing::warn!(%error, "the hot store begins with what comes from now on");
            }
            let from = hot.cursor(journal).ok().flatten().unwrap_or_default();
            let feed = Feed::new(reader, from, Depth::Blocks);
            let sink = HotSink::new(hot, journal, from, freshness_ms);
            Worker::new(sink, feed).leaving_the_rest()
        });
    }

    let owner = Owner {
        custody,
        arrivals,
        gate: gate.handle(),
        commands,
        readers,
        board: Arc::clone(&board),
        clock,
    };
    let mut owner_part: JoinSet<()> = JoinSet::new();
    owner_part.spawn_blocking(move || owner.run());

    let gate_stop = CancellationToken::new();
    let mut gate_part: JoinSet<()> = JoinSet::new();
    gate_part.spawn(Arc::clone(&gate).serve(gate_listener, gate_stop.clone()));

    let http_stop = CancellationToken::new();
    if let Some(listener) = http_listener {
        let shared = shown(view, &board, &gate, &mailbox, clock);
        let stop = http_stop.clone();
        parts.spawn(async move {
            let served = http::serve(listener, shared, stop).await;
            ("the HTTP interface", served.map_err(Into::into))
        });
    }

    let result = tokio::select! {
        () = shutdown.requested() => Ok(()),
        ended = parts.join_next() => Err(early(ended)),
        _ = owner_part.join_next() => Err(anyhow!("custody ended early")),
        _ = gate_part.join_next() => Err(anyhow!("the gate ended early")),
    };
    tracing::info!("stopping");
    gate_stop.cancel();
    while gate_part.join_next().await.is_some() {}
    settle(&mailbox).await;
    sinks_stop.cancel();
    http_stop.cancel();
    let result = all_ended(parts, result).await;
    mailbox.send(Command::Stop);
    let result = match owner_part.join_next().await {
        Some(Err(error)) => result.and(Err(error.into())),
        Some(Ok(())) | None => result,
    };
    tracing::info!("stopped");
    result
}

/// Starts the thread of a sink, which `worker` is made on. What panics there ends a required sink, and
/// with it the collector; an optional one is off until the next start, and its segments wait for it.
fn start_sink<S: Sink>(
    parts: &mut JoinSet<Ended>,
    context: worker::Context,
    worker: impl FnOnce() -> Worker<S, RealDisk> + Send + 'static,
) {
    let is_required = context.name == NAME;
    parts.spawn_blocking(move || {
        if !is_required {
            background::enter();
        }
        let name = context.name;
        let run = || worker::run(worker(), &context).map_err(Into::into);
        // Nothing of the worker is used after a panic.
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        let ended = ended.unwrap_or_else(|_| {
            let why = "a panic ended it; it is off until the collector is started again";
            tracing::error!(sink = name, why, "the sink ended");
            if is_required {
                return Err(anyhow!(why));
            }
            context.board.sink_ended(name, why);
            context.runtime.block_on(context.stop.cancelled());
            Ok(())
        });
        (name, ended)
    });
}

/// Waits for the end of all parts; the first error stays.
async fn all_ended(mut parts: JoinSet<Ended>, mut result: Result<()>) -> Result<()> {
    while let Some(ended) = parts.join_next().await {
        match ended {
            Ok((_, Ok(()))) => {}
            Ok((part, Err(error))) => result = result.and(Err(error.context(part))),
            Err(error) => result = result.and(Err(error.into())),
        }
    }
    result
}

/// Where MQTT is taken, and HTTP if it is served.
async fn listen(config: &Config) -> Result<(TcpListener, Option<TcpListener>)> {
    let gate = headwater_program::listen::tcp(config.gate_listen).await?;
    tracing::info!(address = %gate.local_addr()?, "MQTT");
    let Some(address) = config.http_listen else {
        return Ok((gate, None));
    };
    let http = headwater_program::listen::tcp(address).await?;
    tracing::info!(address = %http.local_addr()?, "HTTP");
    Ok((gate, Some(http)))
}

fn gate_settings(config: &Config, sessions: JournalSessions, clock: Clock) -> GateSettings {
    GateSettings {
        limits: config.limits,
        queue_bytes: GateSettings::QUEUE_BYTES,
        acl: config.acl.clone(),
        identity: Box::new(Loopback),
        store: Arc::new(sessions),
        clock,
    }
}

/// Waits until all that the gate handed over is durable.
async fn settle(mailbox: &Mailbox) {
    let (reply, done) = sync_channel(1);
    if mailbox.send(Command::Barrier { reply }) {
        // If the owner is gone there is nothing to wait for.
        let _ = tokio::task::spawn_blocking(move || done.recv()).await;
    }
}

/// The sources of the HTTP interface's answers.
fn shown(
    hot: Option<HotView>,
    board: &Arc<Board>,
    gate: &Arc<Gate>,
    mailbox: &Mailbox,
    clock: Clock,
) -> Arc<http::Shared> {
    let mailbox = mailbox.clone();
    let (page, ready, noted) = (Arc::clone(board), Arc::clone(board), Arc::clone(board));
    let counted = Arc::clone(gate);
    Arc::new(http::Shared {
        hot: hot.map(|view| Box::new(view) as Box<dyn HotRead>),
        metrics: Box::new(move || page.render(counted.metrics())),
        not_ready: Box::new(move || ready.not_ready()),
        forget: Box::new(move |device| mailbox.forget(device)),
        notes: Box::new(move || noted.notes()),
        now_us: Box::new(move || clock.now().wall.0),
    })
}

/// The hot store, its pace, and whether it is to be filled first.
fn open_hot(config: &Config, journal: JournalId) -> Option<(HotStore, u64, bool)> {
    let hot = config.hot?;
    let open = || {
        // The database's own threads are started here, and step back with this one.
        background::enter();
        HotStore::open(&config.state_dir, hot.settings)
    };
    let opened = std::thread::scope(|scope| scope.spawn(open).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        .and_then(|(store, found)| Ok((store.cursor(journal)?.is_none(), store, found)));
    match opened {
        Ok((is_empty, store, found)) => {
            tracing::info!(?found, %journal, "hot store open");
            Some((store, hot.freshness_ms, is_empty))
        }
        Err(error) => {
            tracing::error!(%error, "the hot store is off: it cannot be opened");
            None
        }
    }
}

/// Fills an empty hot store from the lake; the journal follows from where the lake ends.
fn refill(
    hot: &mut HotStore,
    lake_dir: &Path,
    journal: JournalId,
    begin: u64,
    clock: Clock,
    is_stopping: &dyn Fn() -> bool,
) -> Result<()> {
    let now = clock.now().wall;
    let since = UnixMicros(now.0.saturating_sub(hot.keep_us()));
    let samples = hot.refill(&LocalStore::new(lake_dir)?, since, now, is_stopping)?;
    hot.commit(journal, begin)?;
    tracing::info!(samples, "hot store filled from the lake");
    Ok(())
}

fn early(ended: Option<Result<Ended, tokio::task::JoinError>>) -> anyhow::Error {
    match ended {
        Some(Ok((part, Ok(())))) => anyhow!("{part} ended early"),
        Some(Ok((part, Err(error)))) => error.context(part),
        Some(Err(error)) => error.into(),
        None => anyhow!("every part ended early"),
    }
}
