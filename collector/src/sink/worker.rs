//! The thread of a sink: carries out what the [`Worker`] decides.

mod letter_box;
mod machine;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use headwater_gate::clock::Clock;
use headwater_program::entropy::random;
use headwater_proto::time::{Millis, Now};
use headwater_spool::Disk;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use letter_box::LetterBox;
pub use machine::{Commit, MAX_CAUSE_BYTES, Step, Worker};

use super::{Plan, Sink, SinkError};
use crate::metrics::{Board, SinkLook};
use crate::owner::{Command, Mailbox};
use crate::pipeline::custody::Event;

/// Bytes read from the journal at once.
const READ_BYTES: usize = 1 << 20;
/// Longest wait for more records.
const IDLE_MS: u64 = 100;
/// Time between two lines about a sink that goes on failing.
const SAY_AGAIN_MS: u64 = 60_000;

/// What every worker needs.
pub(crate) struct Context {
    /// The sink's name in custody, metrics and the log.
    pub(crate) name: Arc<str>,
    /// Folder of what it refuses for good.
    pub(crate) letters: PathBuf,
    pub(crate) mailbox: Mailbox,
    pub(crate) durable: Receiver<()>,
    pub(crate) board: Arc<Board>,
    pub(crate) clock: Clock,
    /// Where the futures of deliveries run.
    pub(crate) runtime: Handle,
    /// Nothing more arrives: bring the rest to rest and end.
    pub(crate) stop: CancellationToken,
}

impl Context {
    /// Waits until something became durable, `until` at most and for a short time.
    pub(super) fn wait(&self, until: Option<Millis>, now: Now) {
        let most_ms = until.map_or(IDLE_MS, |at| at.since(now.mono).clamp(1, IDLE_MS));
        match self.durable.recv_timeout(Duration::from_millis(most_ms)) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            // The owner is gone; the stop that follows ends the loop.
            Err(RecvTimeoutError::Disconnected) => {
                std::thread::sleep(Duration::from_millis(most_ms));
            }
        }
    }

    fn post<S: Sink, D: Disk>(&self, worker: &Worker<S, D>, letters: &LetterBox) {
        let letters = letters.look();
        let look = worker.look();
        self.board
            .post_sink(&self.name, SinkLook { letters, ..look });
    }

    fn make_durable(&self, plan: Plan) -> Result<Result<(), String>, OwnerGone> {
        let (reply, answer) = sync_channel(1);
        let plan = Command::Plan {
            sink: Arc::clone(&self.name),
            bytes: plan.0,
            reply,
        };
        if !self.mailbox.send(plan) {
            return Err(OwnerGone);
        }
        answer.recv().map_err(|_| OwnerGone)
    }
}

/// Nobody keeps the journal any more.
#[derive(Debug, thiserror::Error)]
#[error("the owner of the journal is gone")]
pub(crate) struct OwnerGone;

/// Why a sink ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EndedEarly {
    #[error(transparent)]
    Owner(#[from] OwnerGone),
    #[error(transparent)]
    Sink(SinkError),
}

/// Runs a sink until it is told to stop and has delivered what it can. Whatever the sink fails at is
/// tried again.
///
/// # Errors
/// [`EndedEarly`].
pub(crate) fn run<S: Sink, D: Disk>(
    mut worker: Worker<S, D>,
    context: &Context,
) -> Result<(), EndedEarly> {
    let mut voice = Voice::default();
    let mut letters = LetterBox::open(&context.name, context.letters.clone());
    let mut held = None;
    loop {
        if let Some(answer) = held.take() {
            if is_taken(&answer) {
                worker.hold(false);
            } else {
                held = Some(answer);
            }
        }
        let now = worker.clock_book().now(context.clock.now());
        let mut wait = None;
        match worker.next(now, context.stop.is_cancelled(), random()) {
            Step::Read => {
                // What cannot be read is told below, as the worker's trouble.
                for damage in worker.read(READ_BYTES, now, random()).unwrap_or_default() {
                    tracing::error!(
                        sink = &*context.name,
                        ?damage,
                        "journal records can no longer be read; they are asked for again or named"
                    );
                }
            }
            Step::Plan(plan) => {
                let result = context.make_durable(plan)?;
                let now = worker.clock_book().now(context.clock.now());
                worker.planned(result, now, random());
            }
            Step::Deliver => {
                let result = context.runtime.block_on(worker.deliver(now));
                let now = worker.clock_book().now(context.clock.now());
                worker.delivered(result, now, random());
            }
            Step::Commit(commit) => {
                // Durable before custody hears of it: the cursor moves past them then.
                let when = (now.wall, worker.clock_book());
                letters.keep(&context.name, &commit, &mut worker.reader(), when);
                let event = Event::Committed {
                    sink: context.name.to_string(),
                    through: commit.through,
                    streams: commit.streams,
                    refused: commit.refused,
                    damaged: commit.damaged,
                };
                let (reply, answer) = sync_channel(2);
                if !context.mailbox.send(Command::Commit { event, reply }) {
                    return Err(OwnerGone.into());
                }
                if !answer.recv().map_err(|_| OwnerGone)? {
                    worker.hold(true);
                    held = Some(answer);
                }
            }
            Step::Fatal(error) => {
                context.post(&worker, &letters);
                return Err(EndedEarly::Sink(error));
            }
            Step::Wait(until) => wait = Some(until),
            Step::Done => {
                worker.close(now);
                context.post(&worker, &letters);
                return Ok(());
            }
        }
        context.post(&worker, &letters);
        let trouble = worker
            .trouble()
            .map(|error| (error.code(), error.to_string()));
        voice.say(&context.name, trouble, now.mono);
        if let Some(until) = wait {
            context.wait(until, now);
        }
    }
}

/// Whether custody has taken in by now what it held back.
fn is_taken(answer: &Receiver<bool>) -> bool {
    matches!(answer.try_recv(), Ok(true))
}

/// Says once that a sink fails, once a minute that it still does, and once that it no longer does.
#[derive(Default)]
pub(super) struct Voice {
    said: Option<(String, Millis)>,
}

impl Voice {
    pub(super) fn say(&mut self, sink: &str, trouble: Option<(&'static str, String)>, now: Millis) {
        match (&self.said, trouble) {
            (None, None) => {}
            (Some(_), None) => {
                self.said = None;
                tracing::info!(sink, "the sink goes on");
            }
            (Some((said, at)), Some((_, cause)))
                if *said == cause && now.since(*at) < SAY_AGAIN_MS => {}
            (_, Some((code, cause))) => {
                tracing::error!(sink, code, cause, "the sink does not take what it is given");
                self.said = Some((cause, now));
            }
        }
    }
}
