//! `headwater-collector run`: starts all parts, and stops them in order.
//!
//! The gate stops first, then custody syncs what arrived, then the lake takes the rest, then the
//! owner of the journal ends. A part that ends early is an error that names it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use anyhow::{Context as _, Error, Result, anyhow};
use headwater_gate::identity::Loopback;
use headwater_gate::{Gate, Settings as GateSettings};
use headwater_lake::{LakeError, LocalStore, StoreError};
use headwater_program::chain::chain;
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

use crate::config::{Config, Hot};
use crate::done_store::DoneStore;
use crate::http;
use crate::interpret::{Depth, Feed};
use crate::metrics::Board;
use crate::owner::{Command, JournalSessions, Mailbox, Owner};
use crate::pipeline::custody::{Custody, JournalSide, Opened, Past};
use crate::sink::hot::{self, HotRead, HotSink, HotStore, HotView};
use crate::sink::lake::{LakeSink, LakeSinkError, NAME};
use crate::sink::late::Late;
use crate::sink::waiting::wait_for_lake;
use crate::sink::worker::{self, EndedEarly, Worker};
use crate::sink::{self, JoinError, Sink};

/// A part that runs: its name and how it ended.
type Ended = (&'static str, Result<()>);

/// The lake at a start.
enum Lake {
    /// It agrees with the journal.
    There(Box<LakeSink<LocalStore>>),
    /// It is away: devices are served meanwhile.
    Away(Box<Late<RealDisk>>),
}

/// Opens custody and lake so that both agree on what is committed; or custody alone, if the lake cannot
/// be reached and the journal knows its past.
fn open_cores(config: &Config, clock: Clock) -> Result<(Custody<RealDisk>, Lake)> {
    let (mut custody, opened) = open_journal(config)?;
    let now = clock.now();
    let joined = LocalStore::new(&config.lake_dir)
        .map_err(|error| JoinError::from(LakeSinkError::from(LakeError::from(error))))
        .and_then(|store| {
            sink::join(
                &mut custody,
                &opened,
                store,
                config.lake,
                now.wall,
                &mut random,
            )
        });
    let error = match joined {
        Ok(lake) => return Ok((custody, Lake::There(Box::new(lake)))),
        Err(JoinError::Sink(error)) if error.is_outage() => error,
        Err(error) => return Err(error.into()),
    };
    let journal = JournalSide::of(&custody, &opened, NAME);
    if let Err(why) = custody.begin_apart(&journal, &mut random) {
        let lake = config.lake_dir.display();
        return Err(Error::new(error).context(format!("cannot use the lake {lake}; {why}")));
    }
    let why = chain(&error);
    tracing::error!(
        why,
        "the lake cannot be reached: devices are served, and nothing is committed until it is back"
    );
    let (reader, error) = (custody.reader(), error.into());
    let late = Late::new(journal, config.lake, reader, error, now, random());
    Ok((custody, Lake::Away(Box::new(late))))
}

fn open_journal(config: &Config) -> Result<(Custody<RealDisk>, Opened)> {
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
    let (custody, opened) = Custody::open(disk, config.custody.clone(), done, &mut random)?;
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
    Ok((custody, opened))
}

/// The folder of a lake that was there before: it is not made, for it may be a disk that is not mounted.
fn existing_lake(folder: &Path) -> Result<LocalStore, StoreError> {
    std::fs::read_dir(folder).map_err(|source| StoreError::Io {
        action: "list",
        path: folder.display().to_string(),
        source,
    })?;
    LocalStore::new(folder)
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
    let is_lake_there = matches!(lake, Lake::There(_));
    start_lake(&mut parts, context(NAME), lake, &custody, &config);

    let mut view = None;
    if let Some((hot, settings)) = open_hot(&config) {
        view = Some(hot.view());
        let lake_dir = is_lake_there.then(|| config.lake_dir.clone());
        let context = context(hot::NAME);
        start_hot(&mut parts, context, (hot, settings), &mut custody, lake_dir)?;
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

/// Starts the lake's thread, which waits for the lake if that is away.
fn start_lake(
    parts: &mut JoinSet<Ended>,
    context: worker::Context,
    lake: Lake,
    custody: &Custody<RealDisk>,
    config: &Config,
) {
    match lake {
        Lake::There(lake) => {
            let feed = Feed::new(custody.reader(), lake.position(), Depth::Samples);
            let worker = Worker::new(*lake, feed);
            start_sink(parts, context, move |_| Ok(Some(worker)));
        }
        Lake::Away(late) => {
            let folder = config.lake_dir.clone();
            start_sink(parts, context, move |context| {
                wait_for_lake(*late, || existing_lake(&folder), context)
            });
        }
    }
}

/// Starts the hot store's thread. An empty store is filled from the lake first, if that is there.
fn start_hot(
    parts: &mut JoinSet<Ended>,
    context: worker::Context,
    (mut hot, settings): (HotStore, Hot),
    custody: &mut Custody<RealDisk>,
    lake_dir: Option<PathBuf>,
) -> Result<()> {
    let (journal, end) = (custody.journal(), custody.log().next());
    // Where it stands in a later time of the journal than the disk shows, it begins anew.
    let stands = move |hot: &HotStore| {
        let position = hot.cursor(journal).ok().flatten();
        position.filter(|position| *position <= end)
    };
    let position = stands(&hot);
    if let Some(position) = position {
        custody.resume(hot::NAME, position)?;
    }
    let begin = custody.cursor(NAME).unwrap_or_default();
    let (reader, clock) = (custody.reader(), context.clock);
    start_sink(parts, context, move |_| {
        if position.is_none() {
            let filled = match lake_dir {
                Some(folder) => refill(&mut hot, &folder, journal, begin, clock),
                None => Err(anyhow!("the lake is away")),
            };
            if let Err(error) = filled {
                tracing::warn!(%error, "the hot store begins with what comes from now on");
            }
        }
        let from = stands(&hot).unwrap_or_default();
        let feed = Feed::new(reader, from, Depth::Blocks);
        let sink = HotSink::new(hot, journal, from, settings.freshness_ms);
        Ok(Some(Worker::new(sink, feed)))
    });
    Ok(())
}

/// Starts the thread of a sink, which `worker` is made on, unless the end comes first. What panics there ends a required sink, and
/// with it the collector; an optional one is off until the next start, and its segments wait for it.
fn start_sink<S: Sink>(
    parts: &mut JoinSet<Ended>,
    context: worker::Context,
    worker: impl FnOnce(&worker::Context) -> Result<Option<Worker<S, RealDisk>>, EndedEarly>
    + Send
    + 'static,
) {
    let is_required = context.name == NAME;
    parts.spawn_blocking(move || {
        let name = context.name;
        let run = || match worker(&context)? {
            Some(worker) => Ok(worker::run(worker, &context)?),
            None => Ok(()),
        };
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

/// The hot store and how it is run.
fn open_hot(config: &Config) -> Option<(HotStore, Hot)> {
    let hot = config.hot?;
    match HotStore::open(&config.state_dir, hot.settings) {
        Ok((store, found)) => {
            tracing::info!(?found, "hot store open");
            Some((store, hot))
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
) -> Result<()> {
    let now = clock.now().wall;
    let since = UnixMicros(now.0.saturating_sub(hot.keep_us()));
    let samples = hot.refill(&LocalStore::new(lake_dir)?, since, now)?;
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
