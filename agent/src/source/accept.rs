//! A listener of a source: accepts connections and serves each in a task of its own.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::{Port, Stop};

/// How long a way in waits after the system could give it no connection: out of descriptors, most
/// likely, and others must close first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens on a unix socket. One that a killed agent left there stands in the way, and is taken away.
///
/// # Errors
/// The system's.
pub(super) fn listen_unix(path: &Path) -> io::Result<UnixListener> {
    let _ = std::fs::remove_file(path);
    UnixListener::bind(path)
}

/// Serves connections until told to stop, and waits for those that are open then.
///
/// - `most`: connections at once; a further one waits for a place, and the source says that it fails until then.
pub(super) async fn serve_each<S, F, T>(
    port: &Port,
    stop: &Stop,
    most: usize,
    accept: impl Fn() -> F,
    serve: impl Fn(S) -> T,
) where
    F: Future<Output = io::Result<S>>,
    T: Future<Output = ()> + Send + 'static,
{
    port.up();
    let room = Arc::new(Semaphore::new(most));
    loop {
        let accepted = tokio::select! {
            () = stop.stopped() => break,
            accepted = accept() => accepted,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                port.failing(&format!("cannot accept: {error}"));
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let mut place = Arc::clone(&room).try_acquire_owned().ok();
        if place.is_none() {
            port.crowded(most);
            place = tokio::select! {
                () = stop.stopped() => break,
                place = Arc::clone(&room).acquire_owned() => place.ok(),
            };
        }
        port.up();
        let served = serve(stream);
        tokio::spawn(async move {
            served.await;
            drop(place);
        });
    }
    let all = u32::try_from(most).unwrap_or(u32::MAX);
    let _ = room.acquire_many(all).await;
}
