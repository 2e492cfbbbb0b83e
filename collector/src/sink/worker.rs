//! The threads of the sinks: read what is durable, bring it to rest, say so.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use headwater_gate::clock::Clock;
use headwater_lake::Store;
use headwater_proto::ids::JournalId;
use headwater_proto::time::Millis;
use headwater_spool::Disk;
use tokio_util::sync::CancellationToken;

use super::hot::HotStore;
use super::lake::{LakeSink, NAME, SinkError, Staged};
use crate::interpret::{Feed, Taken};
use crate::metrics::Board;
use crate::owner::{Command, Mailbox};

/// Bytes read from the journal at once.
const READ_BYTES: usize = 1 << 20;
/// Longest wait for more records.
const IDLE_MS: u64 = 100;
/// Waits after failures: doubled each time, up to the second.
const BACK_OFF_MS: (u64, u64) = (100, 10_000);
/// Wait after a lease on the lake that could not be renewed: a small part of it.
const LEASE_RETRY_MS: u64 = 5_000;
/// Time between two catalogs.
const CATALOG_MS: u64 = 60_000;
/// How often the hot store drops old readings.
const HOT_EXPIRE_MS: u64 = 60_000;

/// What both workers need.
pub(crate) struct Context {
    pub(crate) mailbox: Mailbox,
    pub(crate) durable: Receiver<()>,
    pub(crate) board: Arc<Board>,
    pub(crate) clock: Clock,
    /// Nothing more arrives: bring the rest to rest and end.
    pub(crate) stop: CancellationToken,
}

impl Context {
    /// Waits until something became durable, for a short time at most.
    fn wait(&self, most_ms: u64) {
        match self.durable.recv_timeout(Duration::from_millis(most_ms)) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            // The owner is gone; the stop that follows ends the loop.
            Err(RecvTimeoutError::Disconnected) => {
                std::thread::sleep(Duration::from_millis(most_ms));
            }
        }
    }
}

/// Why a sink gave up for good.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkerError {
    #[error("the lake sink stopped: {0}")]
    Lake(#[from] SinkError),
    #[error("the owner of the journal is gone")]
    OwnerGone,
}

/// Runs the lake sink until it is told to stop and has flushed everything.
///
/// # Errors
/// [`WorkerError`] when trying again cannot help.
pub(crate) fn run_lake<S: Store, D: Disk>(
    mut sink: LakeSink<S>,
    mut feed: Feed<D>,
    context: &Context,
) -> Result<(), WorkerError> {
    let (mut catalog_at, mut lease_at) = (Millis(0), Millis(0));
    let mut back_off = BACK_OFF_MS.0;
    loop {
        // Asked before reading: what was durable by then is read and flushed below.
        let stopping = context.stop.is_cancelled();
        let idle = read_lake(&mut sink, &mut feed, context)?;
        let now = context.clock.now();
        if now.mono >= lease_at {
            match sink.keep(now.wall) {
                Err(error) if !error.is_transient() => return Err(error.into()),
                Err(error) => {
                    lease_at = now.mono.plus(LEASE_RETRY_MS);
                    tracing::warn!(%error, "the lease on the lake could not be renewed");
                }
                Ok(()) => {}
            }
        }
        if sink.is_due(now.mono) || (stopping && idle) {
            match flush(&mut sink, context) {
                Ok(()) => back_off = BACK_OFF_MS.0,
                Err(WorkerError::Lake(error)) if error.is_transient() => {
                    tracing::error!(%error, cause = cause(&error), "the lake cannot be written");
                    context.board.lake(|look| {
                        look.failures += 1;
                        look.trouble = Some(error.to_string());
                    });
                    if stopping {
                        return Err(error.into());
                    }
                    std::thread::sleep(Duration::from_millis(back_off));
                    back_off = (back_off * 2).min(BACK_OFF_MS.1);
                    continue;
                }
                Err(error) => return Err(error),
            }
            if now.mono.since(catalog_at) >= CATALOG_MS || catalog_at == Millis(0) || stopping {
                catalog_at = now.mono;
                if let Err(error) = sink.lake_mut().write_catalog() {
                    tracing::warn!(%error, "the catalog could not be written");
                }
            }
        }
        if let Some(error) = sink.lake_mut().take_trouble() {
            tracing::warn!(%error, "the marks of the lake could not be made; a new journal reads all files");
        }
        if stopping && idle {
            if let Err(error) = sink.lake_mut().release(now.wall.0) {
                tracing::warn!(%error, "the lease on the lake could not be ended; it ends by itself");
            }
            return Ok(());
        }
        if idle {
            let due = sink
                .due_at()
                .map_or(IDLE_MS, |at| at.since(now.mono).clamp(1, IDLE_MS));
            context.wait(due);
        }
    }
}

/// Reads until rows are due or nothing is left; true in the latter case.
fn read_lake<S: Store, D: Disk>(
    sink: &mut LakeSink<S>,
    feed: &mut Feed<D>,
    context: &Context,
) -> Result<bool, WorkerError> {
    loop {
        let now = context.clock.now();
        if sink.is_due(now.mono) {
            return Ok(false);
        }
        let from = feed.position();
        let mut failed = None;
        let read = feed.read(READ_BYTES, |item| match sink.take(item, now) {
            Err(error) => {
                failed = Some(error);
                Taken::Not
            }
            Ok(()) if sink.is_full() => Taken::Enough,
            Ok(()) => Taken::More,
        });
        if let Some(error) = failed {
            return Err(error.into());
        }
        match read {
            Ok(chunk) => {
                for damage in &chunk.damage {
                    tracing::error!(
                        ?damage,
                        "journal records can no longer be read; they are asked for again or named"
                    );
                    let positions = &damage.positions;
                    sink.note_damage(positions.end - positions.start, now.mono);
                }
                sink.skip_to(chunk.next);
                let waiting = sink.waiting_bytes() as u64;
                let rows = sink.counters();
                context.board.lake(|look| {
                    look.waiting_bytes = waiting;
                    look.rows = rows;
                });
                if chunk.next == from {
                    return Ok(true);
                }
            }
            Err(error) => {
                tracing::error!(%error, "the journal cannot be read; trying again");
                return Ok(true);
            }
        }
    }
}

fn flush<S: Store>(sink: &mut LakeSink<S>, context: &Context) -> Result<(), WorkerError> {
    match sink.stage(context.clock.now())? {
        Staged::Nothing => return Ok(()),
        Staged::Empty => {}
        Staged::Plan(bytes) => loop {
            let (reply, answer) = sync_channel(1);
            let plan = Command::Plan {
                sink: NAME,
                bytes: bytes.clone(),
                reply,
            };
            if !context.mailbox.send(plan) {
                return Err(WorkerError::OwnerGone);
            }
            match answer.recv() {
                Ok(Ok(())) => break,
                Ok(Err(error)) => {
                    tracing::warn!(error, "the lake's plan is not durable yet; trying again");
                    std::thread::sleep(Duration::from_millis(BACK_OFF_MS.0));
                }
                Err(_) => return Err(WorkerError::OwnerGone),
            }
        },
    }
    let Some(committed) = sink.publish()? else {
        return Ok(());
    };
    context.board.lake(|look| {
        look.samples_committed += committed.samples;
        look.files += committed.files as u64;
        look.bytes += committed.bytes;
        look.flushes += u64::from(committed.files > 0);
        look.trouble = None;
    });
    if context.mailbox.send(Command::Committed {
        sink: NAME,
        committed,
    }) {
        Ok(())
    } else {
        Err(WorkerError::OwnerGone)
    }
}

fn cause(error: &dyn std::error::Error) -> String {
    let mut text = String::new();
    let mut next = error.source();
    while let Some(error) = next {
        text = error.to_string();
        next = error.source();
    }
    text
}

/// Runs the hot store until it is told to stop. Its failures never stop the collector: it is an
/// index that can be filled again.
pub(crate) fn run_hot<D: Disk>(
    mut hot: HotStore,
    mut feed: Feed<D>,
    journal: JournalId,
    freshness_ms: u64,
    context: &Context,
) {
    let (mut committed_at, mut expired_at) = (Millis(0), Millis(0));
    let mut dirty = false;
    loop {
        let stopping = context.stop.is_cancelled();
        let mut refused = None;
        let before = feed.position();
        let read = feed.read(READ_BYTES, |item| {
            refused = hot.take(item).err().or(refused.take());
            Taken::More
        });
        if let Err(error) = read {
            tracing::error!(%error, "the journal cannot be read; trying again");
        }
        let position = feed.position();
        let idle = position == before;
        dirty |= !idle;
        let now = context.clock.now();
        let mut failed = refused;
        if dirty && (now.mono.since(committed_at) >= freshness_ms || stopping) {
            committed_at = now.mono;
            match hot.commit(journal, position) {
                Ok(()) => dirty = false,
                Err(error) => failed = Some(error),
            }
        }
        if now.mono.since(expired_at) >= HOT_EXPIRE_MS {
            expired_at = now.mono;
            if let Err(error) = hot.expire(now.wall) {
                failed = Some(error);
            }
        }
        if let Some(error) = &failed {
            tracing::warn!(%error, "the hot store refused something");
        }
        let skipped = hot.skipped();
        context.board.hot(|look| {
            look.position = position;
            look.skipped = skipped;
            look.failures += u64::from(failed.is_some());
        });
        if stopping && idle {
            return;
        }
        if idle {
            context.wait(IDLE_MS);
        }
    }
}
