//! `headwater-collector run`: starts all parts, and stops them in order.
//!
//! The gate stops first, then custody syncs what arrived, then the lake takes the rest, then the
//! owner of the journal ends. A part that ends early is an error that names it.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use anyhow::{Context as _, Error, Result, anyhow};
use headwater_gate::identity::Loopback;
use headwater_gate::{Gate, Settings as GateSettings};
use headwater_lake::LakeError;
use headwater_program::chain::chain;
use headwater_program::clock::{Clock, boot_id};
use headwater_program::entropy::random;
use headwater_program::notices::Notices;
use headwater_program::shutdown::Shutdown;
use headwater_proto::ids::JournalId;
use headwater_spool::RealDisk;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::done_store::DoneStore;
use crate::http;
use crate::metrics::Board;
use crate::owner::{Command, JournalSessions, Mailbox, NOTICES, Owner};
use crate::pipeline::custody::{Custody, JournalSide, Opened, Past, clock};
use crate::sink::crew::Crew;
use crate::sink::hot::{HotRead, HotView};
use crate::sink::kind::Site;
use crate::sink::lake::late::Late;
use crate::sink::lake::{
    AtStart, JoinError, LakeKind, LakeSettings, LakeSinkError, NAME, join, read_stretch,
};
use crate::sink::registry;

/// What an operator says of the lake at a start.
#[derive(Debug, Clone, Copy, Default)]
pub struct Claims {
    /// It is taken from a collector whose lease on it runs.
    pub take_over: bool,
    /// One is begun where the journal has written to one that is not there.
    pub new_lake: bool,
}

/// Opens custody and lake so that both agree on what is committed; or custody alone, if the lake cannot
/// be reached and the journal knows its past.
fn open_cores(
    config: &Config,
    claims: Claims,
    clock: Clock,
) -> Result<(Custody<RealDisk>, AtStart)> {
    let LakeKind { place, settings } = config.lake().context("no sink is a lake")?;
    let settings = LakeSettings {
        take_over: claims.take_over,
        new_lake: claims.new_lake,
        ..*settings
    };
    let (mut custody, opened) = open_journal(config)?;
    let (shown, name) = (clock.now(), JournalId(random()));
    clock::begin(&mut custody, boot_id(), shown);
    let now = custody.clock.dated(shown);
    let journal = JournalSide::of(&custody, &opened, NAME);
    let store = if journal.has_met_lake() && !claims.new_lake {
        place.open_existing()
    } else {
        place.open()
    };
    let joined = store
        .map_err(|error| JoinError::from(LakeSinkError::from(LakeError::from(error))))
        .and_then(|store| join(&mut custody, &opened, store, settings, now.wall, name));
    let error = match joined {
        Ok(lake) => return Ok((custody, AtStart::There(Box::new(lake)))),
        Err(JoinError::Sink(error)) if error.is_outage() => error,
        Err(error) => return Err(error.into()),
    };
    if let Err(why) = custody.begin_apart(&journal, &mut random) {
        return Err(Error::new(error).context(format!("cannot use the lake {place}; {why}")));
    }
    let why = chain(&error);
    tracing::error!(
        why,
        "the lake cannot be reached: devices are served, and nothing is committed until it is back"
    );
    let (reader, error) = (custody.reader(), error.into());
    let late = Late::new(journal, settings, reader, error, name, now, random());
    let late = late.with_clock(custody.clock.book());
    Ok((custody, AtStart::Away(Box::new(late))))
}

/// The journal of a collector that does not run, and what it says of itself to the lake. No collector starts
/// beside it while it is held.
pub(crate) fn look_at_journal(config: &Config) -> Result<(Custody<RealDisk>, JournalSide)> {
    let (custody, opened) = open_journal(config)?;
    let side = JournalSide::of(&custody, &opened, NAME);
    Ok((custody, side))
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
    for cut in opened.recovery.cut.iter().filter(|cut| cut.bytes > 0) {
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

/// Threads of the runtime: the gate's connections and the HTTP interface. Custody, the lake and the
/// hot store have threads of their own.
const RUNTIME_THREADS: usize = 2;

/// Runs until a signal, then drains and flushes.
///
/// - `claims`: what an operator says of the lake.
///
/// # Errors
/// When a part cannot start, or ends early.
pub fn run(config: Config, claims: Claims, clock: Clock) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREADS)
        .enable_all()
        .build()?
        .block_on(run_parts(config, claims, clock))
}

async fn run_parts(config: Config, claims: Claims, clock: Clock) -> Result<()> {
    let mut shutdown = Shutdown::listen().context("cannot catch signals")?;
    // Nothing runs yet that an address which is taken would leave behind.
    let (gate_listener, http_listener) = listen(&config).await?;
    let board = Arc::new(Board::default());
    let (custody, lake) = open_cores(&config, claims, clock)?;
    let (mailbox, commands) = Mailbox::new();
    let sessions = JournalSessions::new(mailbox.clone(), custody.sessions().iter().cloned());
    let (gate, arrivals) = Gate::new(gate_settings(&config, sessions, clock));
    mailbox.wake_with(arrivals.waker());
    let mut crew = Crew::new(mailbox.clone(), Arc::clone(&board), clock, &config.dead_dir);
    let mut site = Site::new(custody, clock, &config.state_dir);
    site.leave(lake);
    if let Err(error) = registry::start_all(&config.sinks, &mut site, &mut crew) {
        // Those that run already find nobody to tell, and end.
        drop(commands);
        return crew.stop(Err(error)).await;
    }
    let view = site.take::<HotView>();

    let lake = config.lake().context("no sink is a lake")?.place.clone();
    let owner = Owner {
        stretches: Arc::new(move |stretch, journal, reader| {
            let found = read_stretch(stretch, journal, reader, || lake.open_existing());
            found.map_err(|error| chain(&error))
        }),
        custody: site.custody,
        arrivals,
        gate: gate.handle(),
        commands,
        mailbox: mailbox.clone(),
        readers: crew.take_readers(),
        board: Arc::clone(&board),
        clock,
        notices: Notices::new(NOTICES),
    };
    let mut owner_part: JoinSet<()> = JoinSet::new();
    owner_part.spawn_blocking(move || owner.run());

    let gate_stop = CancellationToken::new();
    let mut gate_part: JoinSet<()> = JoinSet::new();
    gate_part.spawn(Arc::clone(&gate).serve(gate_listener, gate_stop.clone()));

    let http_stop = CancellationToken::new();
    let mut http_part: JoinSet<Result<()>> = JoinSet::new();
    if let Some(listener) = http_listener {
        let shared = shown(view, &board, &gate, &mailbox, clock);
        let stop = http_stop.clone();
        http_part.spawn(async move { Ok(http::serve(listener, shared, stop).await?) });
    }

    let result = tokio::select! {
        () = shutdown.requested() => Ok(()),
        error = crew.ended() => Err(error),
        Some(ended) = http_part.join_next() => Err(early(ended)),
        _ = owner_part.join_next() => Err(anyhow!("custody ended early")),
        _ = gate_part.join_next() => Err(anyhow!("the gate ended early")),
    };
    tracing::info!("stopping");
    gate_stop.cancel();
    while gate_part.join_next().await.is_some() {}
    settle(&mailbox).await;
    http_stop.cancel();
    let mut result = crew.stop(result).await;
    while let Some(ended) = http_part.join_next().await {
        let ended = ended.map_err(Into::into).flatten();
        result = result.and(ended.context("the HTTP interface"));
    }
    mailbox.send(Command::Stop);
    let result = match owner_part.join_next().await {
        Some(Err(error)) => result.and(Err(error.into())),
        Some(Ok(())) | None => result,
    };
    tracing::info!("stopped");
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
    let (mailbox, trusting) = (mailbox.clone(), mailbox.clone());
    let (page, ready, noted) = (Arc::clone(board), Arc::clone(board), Arc::clone(board));
    let counted = Arc::clone(gate);
    Arc::new(http::Shared {
        hot: hot.map(|view| Box::new(view) as Box<dyn HotRead>),
        metrics: Box::new(move || page.render(counted.metrics())),
        not_ready: Box::new(move || ready.not_ready()),
        forget: Box::new(move |device| mailbox.forget(device)),
        trust_clock: Box::new(move || trusting.trust_clock()),
        notes: Box::new(move || noted.notes()),
        now_us: Box::new(move || clock.now().wall.0),
    })
}

fn early(ended: Result<Result<()>, tokio::task::JoinError>) -> anyhow::Error {
    match ended {
        Ok(Ok(())) => anyhow!("the HTTP interface ended early"),
        Ok(Err(error)) => error.context("the HTTP interface"),
        Err(error) => error.into(),
    }
}
