//! The threads of sinks: one for each, with what its worker needs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use anyhow::{Result, anyhow};
use headwater_gate::clock::Clock;
use headwater_spool::RealDisk;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Sink;
use super::worker::{self, EndedEarly, Worker};
use crate::background;
use crate::metrics::Board;
use crate::owner::Mailbox;

/// How a sink ended: its name and why.
pub(crate) type Ended = (Arc<str>, Result<()>);

/// The sinks that run.
pub(crate) struct Crew {
    /// Folder of the folders of dead letters.
    dead_dir: Box<Path>,
    mailbox: Mailbox,
    board: Arc<Board>,
    clock: Clock,
    stop: CancellationToken,
    threads: JoinSet<Ended>,
    readers: Vec<SyncSender<()>>,
}

impl Crew {
    /// - `dead_dir`: folder of the folders of dead letters.
    pub(crate) fn new(mailbox: Mailbox, board: Arc<Board>, clock: Clock, dead_dir: &Path) -> Self {
        Self {
            dead_dir: dead_dir.into(),
            mailbox,
            board,
            clock,
            stop: CancellationToken::new(),
            threads: JoinSet::new(),
            readers: Vec::new(),
        }
    }

    /// Tells whether the sinks are to end; for what takes long before a worker runs.
    pub(super) fn is_stopping(&self) -> impl Fn() -> bool + use<> {
        let stop = self.stop.clone();
        move || stop.is_cancelled()
    }

    /// Starts the thread of a sink, on which `worker` is made; `None`: the end came first. An optional one works in the background, and
    /// at the end leaves what it has not read to the next start. What panics there ends a required sink, and
    /// with it the collector; an optional one is off until the next start, and its segments wait for it.
    pub(super) fn start<S: Sink>(
        &mut self,
        name: Arc<str>,
        required: bool,
        worker: impl FnOnce(&worker::Context) -> Result<Option<Worker<S, RealDisk>>, EndedEarly>
        + Send
        + 'static,
    ) {
        let (wake, durable) = sync_channel(1);
        self.readers.push(wake);
        let context = worker::Context {
            letters: self.dead_dir.join(&*name),
            name,
            mailbox: self.mailbox.clone(),
            durable,
            board: Arc::clone(&self.board),
            clock: self.clock,
            runtime: Handle::current(),
            stop: self.stop.clone(),
        };
        self.threads.spawn_blocking(move || {
            if !required {
                background::enter();
            }
            let run = || {
                let Some(worker) = worker(&context)? else {
                    return Ok(());
                };
                let worker = if required {
                    worker
                } else {
                    worker.leaving_the_rest()
                };
                worker::run(worker, &context).map_err(Into::into)
            };
            // Nothing of the worker is used after a panic.
            let ended = catch_unwind(AssertUnwindSafe(run));
            let ended = ended.unwrap_or_else(|_| {
                let why = "a panic ended it; it is off until the collector is started again";
                tracing::error!(sink = &*context.name, why, "the sink ended");
                if required {
                    return Err(anyhow!(why));
                }
                context.board.sink_ended(&context.name, "panic", why);
                context.runtime.block_on(context.stop.cancelled());
                Ok(())
            });
            (context.name, ended)
        });
    }

    /// A sink that does not run in this life of the collector.
    pub(super) fn off(&self, name: &str, why: &str) {
        tracing::error!(sink = name, why, "the sink is off");
        self.board.sink_ended(name, "open", why);
    }

    /// Whom to tell that something became durable; each holds one token.
    pub(crate) fn take_readers(&mut self) -> Vec<SyncSender<()>> {
        std::mem::take(&mut self.readers)
    }

    /// The next sink that ends; without one, never.
    pub(crate) async fn ended(&mut self) -> anyhow::Error {
        match self.threads.join_next().await {
            Some(Ok((name, Ok(())))) => anyhow!("sink {name} ended early"),
            Some(Ok((name, Err(error)))) => error.context(format!("sink {name}")),
            Some(Err(error)) => error.into(),
            None => std::future::pending().await,
        }
    }

    /// Nothing more comes: the sinks bring the rest to rest and end. The first error stays.
    pub(crate) async fn stop(mut self, mut result: Result<()>) -> Result<()> {
        self.stop.cancel();
        while let Some(ended) = self.threads.join_next().await {
            match ended {
                Ok((_, Ok(()))) => {}
                Ok((name, Err(error))) => {
                    result = result.and(Err(error.context(format!("sink {name}"))));
                }
                Err(error) => result = result.and(Err(error.into())),
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::hot::HotSink;

    #[test]
    fn a_panic_ends_the_collector_if_the_sink_is_required_and_no_more_than_the_sink_otherwise() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let board = Arc::new(Board::default());
            let (mailbox, _commands) = Mailbox::new();
            let mut crew = Crew::new(
                mailbox,
                Arc::clone(&board),
                Clock::start(),
                Path::new("/nowhere"),
            );
            crew.start::<HotSink>("optional".into(), false, |_| panic!("on purpose"));
            crew.start::<HotSink>("required".into(), true, |_| panic!("on purpose"));
            let error = format!("{:#}", crew.ended().await);
            assert!(
                error.starts_with("sink required: a panic ended it"),
                "{error}"
            );
            assert!(crew.stop(Ok(())).await.is_ok());
            let notes = board.notes();
            assert!(notes[0].starts_with("sink optional is broken"), "{notes:?}");
            assert_eq!(notes.len(), 1);
        });
    }
}
