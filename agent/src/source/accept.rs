//! A listener of a source: accepts connections and serves each in a task of its own.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use headwater_program::findings::{Findings, existing_folder_of};
use headwater_program::listen::is_served;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::{Port, Stop};

/// How long a way in waits after the system could give it no connection: out of descriptors, most
/// likely, and others must close first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const OTHER: &str = "something else than a socket stands there";

/// Listens on a unix socket. One that a killed agent left there stands in the way, and is taken away; one
/// on which somebody listens is not, nor is a file of another kind.
///
/// # Errors
/// `AddrInUse` if somebody listens there, `AlreadyExists` if something else stands there, or the system's.
pub(super) async fn listen_unix(path: &Path) -> io::Result<UnixListener> {
    match fs::metadata(path) {
        Ok(there) if !there.file_type().is_socket() => {
            return Err(io::Error::new(ErrorKind::AlreadyExists, OTHER));
        }
        Ok(_) => match UnixStream::connect(path).await {
            // Nobody listens.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                fs::remove_file(path)?;
            }
            // It listens, and may have no room for one more.
            Ok(_) => return Err(taken()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(taken()),
            // It went away meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    UnixListener::bind(path)
}

/// Whether a socket can stand at `path`: its folder must exist, and nothing else may stand there.
pub(crate) fn socket_path(key: &str, path: &Path, shown: &str, found: &mut Findings) {
    if let Err(error) = existing_folder_of(path) {
        found.fault(key, shown, &error);
    }
    let Ok(there) = fs::metadata(path) else {
        return;
    };
    if !there.file_type().is_socket() {
        found.fault(key, shown, OTHER);
    } else if is_served(path) {
        let why = "somebody listens there now; nobody else can listen there meanwhile";
        found.warn(key, shown, why);
    }
}

fn taken() -> io::Error {
    let why = "another process listens on this socket; two agents need two paths";
    io::Error::new(ErrorKind::AddrInUse, why)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_was_left_is_taken_and_one_that_is_served_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let first = listen_unix(&path).await.unwrap();
        let told = listen_unix(&path).await.unwrap_err();
        assert_eq!(told.kind(), ErrorKind::AddrInUse);
        UnixStream::connect(&path).await.unwrap();
        first.accept().await.unwrap();

        drop(first);
        let second = listen_unix(&path).await.unwrap();
        UnixStream::connect(&path).await.unwrap();
        second.accept().await.unwrap();
    }

    #[tokio::test]
    async fn a_file_in_the_place_of_a_socket_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes");
        std::fs::write(&path, "mine").unwrap();
        let told = listen_unix(&path).await.unwrap_err();
        assert_eq!(told.kind(), ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    }
}
