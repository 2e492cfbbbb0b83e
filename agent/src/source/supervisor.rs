//! Runs one source: starts it again when it fails, after a pause that grows, and says how it is doing.

use std::time::Duration;

use headwater_program::chain::chain;
use headwater_proto::delivery::Jitter;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::health::BackOff;
use super::{Port, Stop, Stopped};

/// Stack of a source's thread.
const STACK_BYTES: usize = 256 * 1024;

/// Why a source runs no more, other than at the end of its input.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The agent stops.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// It cannot read: where and why.
    #[error("{0}")]
    Failed(String),
}

impl SourceError {
    /// It failed for a cause that has causes itself.
    #[must_use]
    pub fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::Failed(chain(error))
    }
}

/// A source that failed and is not started again.
#[derive(Debug, thiserror::Error)]
#[error("source {name}: {cause}")]
pub struct GivenUp {
    /// Its name.
    pub name: String,
    /// Why it failed.
    pub cause: String,
}

/// Runs a source until its input ends or it is told to stop.
///
/// - `start`: runs it once, from where [`Port::resume`] says.
/// - `retries`: whether it is started again when it fails.
/// - `seed`: for jitter, so that sources that failed together do not come back together.
///
/// # Errors
/// [`GivenUp`] if it is not.
pub async fn supervise<F>(
    name: String,
    port: Port,
    stop: Stop,
    retries: bool,
    seed: u64,
    mut start: impl FnMut(Port) -> F,
) -> Result<(), GivenUp>
where
    F: Future<Output = Result<(), SourceError>> + Send + 'static,
{
    let (mut back_off, mut jitter) = (BackOff::default(), Jitter::new(seed));
    loop {
        let began = Instant::now();
        match in_task(start(port.clone())).await {
            Ok(()) => {
                if !stop.is_stopped() {
                    port.ended();
                }
                return Ok(());
            }
            Err(SourceError::Stopped(_)) => return Ok(()),
            Err(SourceError::Failed(cause)) => {
                port.failing(&cause);
                if !retries {
                    return Err(GivenUp { name, cause });
                }
            }
        }
        let ran_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let pause_ms = jitter.lengthen(back_off.pause_ms(ran_ms));
        tokio::select! {
            () = stop.stopped() => return Ok(()),
            () = sleep(Duration::from_millis(pause_ms)) => {}
        }
    }
}

/// Runs a source in a task of its own; one that panics has failed. It goes with the future.
async fn in_task(
    work: impl Future<Output = Result<(), SourceError>> + Send + 'static,
) -> Result<(), SourceError> {
    let mut task = JoinSet::new();
    task.spawn(work);
    let panicked = || SourceError::Failed("its task panicked; see the log".to_owned());
    let ended = task.join_next().await.ok_or_else(panicked)?;
    ended.map_err(|_| panicked())?
}

/// Runs a source that blocks on a thread of its own; one that panics has failed.
///
/// # Errors
/// [`SourceError`], also if there is no thread for it.
pub async fn on_thread(
    name: &str,
    work: impl FnOnce() -> Result<(), SourceError> + Send + 'static,
) -> Result<(), SourceError> {
    let (done, ended) = oneshot::channel();
    std::thread::Builder::new()
        .name(name.chars().take(15).collect())
        .stack_size(STACK_BYTES)
        .spawn(move || drop(done.send(work())))
        .map_err(|error| SourceError::Failed(format!("cannot start a thread: {error}")))?;
    let panicked = |_| SourceError::Failed("its thread panicked; see the log".to_owned());
    ended.await.map_err(panicked)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::record::Cursor;
    use crate::source::Feed;
    use crate::source::health::State;
    use headwater_proto::time::UnixMicros;
    use std::cell::Cell;
    use std::sync::Arc;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(future)
    }

    fn line(number: u64) -> Feed {
        let cursor = Cursor {
            major: 0,
            minor: number,
            tag: 0,
        };
        Feed::Line(UnixMicros(0), b"a line".to_vec(), Some(cursor))
    }

    #[test]
    fn a_source_that_fails_is_started_again_where_it_left_off_and_its_end_is_told() {
        let (port, end) = Port::new("x", Arc::default());
        let (starts, began) = (Cell::new(0), Instant::now);
        block_on(async {
            let started = began();
            let start = |port: Port| {
                let turn = starts.replace(starts.get() + 1);
                async move {
                    let resume = port.resume().map_or(0, |cursor| cursor.minor);
                    assert_eq!(resume, turn);
                    if turn < 3 {
                        port.give(line(turn + 1)).await?;
                        return Err(SourceError::Failed(format!("failure {turn}")));
                    }
                    Ok(())
                }
            };
            let ran = supervise("x".into(), port, Stop::default(), true, 7, start).await;
            assert!(ran.is_ok());
            // A second, two, and four, each lengthened by jitter.
            let waited = started.elapsed();
            assert!(waited >= Duration::from_secs(7), "{waited:?}");
        });
        assert_eq!(starts.get(), 4);
        let report = end.report();
        assert_eq!(report.state, State::Ended);
        assert_eq!(report.last_error.as_deref(), Some("failure 2"));
    }

    #[test]
    fn a_source_that_is_not_retried_says_who_it_is_and_why() {
        let (port, end) = Port::new("x", Arc::default());
        let start = |_| async {
            let panics = on_thread("x", || panic!("for the test"));
            panics.await
        };
        let ran = block_on(supervise(
            "x".into(),
            port,
            Stop::default(),
            false,
            7,
            start,
        ));
        let told = ran.unwrap_err().to_string();
        assert_eq!(told, "source x: its thread panicked; see the log");
        assert_eq!(end.report().state, State::Failing);
    }

    #[test]
    fn a_task_that_panics_has_failed_and_is_started_again() {
        let (port, end) = Port::new("x", Arc::default());
        let starts = Cell::new(0);
        let start = |_| {
            let turn = starts.replace(starts.get() + 1);
            async move {
                assert!(turn > 0, "for the test");
                Ok(())
            }
        };
        let ran = supervise("x".into(), port, Stop::default(), true, 7, start);
        assert!(block_on(ran).is_ok());
        assert_eq!(starts.get(), 2);
        let told = end.report().last_error;
        assert_eq!(told.as_deref(), Some("its task panicked; see the log"));
    }

    #[test]
    fn a_stop_ends_the_wait_for_the_next_start() {
        let (port, _end) = Port::new("x", Arc::default());
        let stop = Stop::default();
        let told = stop.clone();
        let start = move |_| {
            told.stop();
            async { Err(SourceError::Failed("no luck".to_owned())) }
        };
        let ran = block_on(supervise("x".into(), port, stop, true, 7, start));
        assert!(ran.is_ok());
    }
}
