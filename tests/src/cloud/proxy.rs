//! The proxy itself: a listener, and a thread for each connection.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};

use super::exchange::serve;
use super::ledger::Ledger;
use super::script::Script;
use super::shared::Shared;

/// Most connections at once, as many as several clients open; a further one is closed at once.
pub const MAX_CONNECTIONS: usize = 128;

/// A proxy that runs. Dropped, it closes all connections and waits for its threads, none of which
/// waits for anything but sockets that are closed then.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens on a free loopback port and forwards to `upstream`.
    ///
    /// # Errors
    /// When there is no port or no thread to be had.
    pub fn start(upstream: SocketAddr, script: Script) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::new(upstream, script));
        let theirs = Arc::clone(&shared);
        let acceptor = thread::Builder::new()
            .name("cloud-proxy".to_owned())
            .spawn(move || accept(&listener, &theirs))
            .context("no thread for the proxy")?;
        Ok(Self {
            address,
            shared,
            acceptor: Some(acceptor),
        })
    }

    /// Where clients find it, for example `http://127.0.0.1:40001`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Other faults from now on. Calls that have been read keep theirs; counts of the rules and
    /// buckets begin anew.
    pub fn set(&self, script: Script) {
        *self.shared.script() = script;
    }

    /// What has passed so far.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.shared.ledger().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.end();
        // The acceptor sees the end once it has accepted this.
        let woken = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take().filter(|_| woken.is_ok()) {
            // Its panic has been printed, and the test sees what is missing.
            let _ = acceptor.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut connections: Vec<JoinHandle<()>> = Vec::new();
    for stream in listener.incoming() {
        if shared.has_ended() {
            break;
        }
        connections.retain(|connection| !connection.is_finished());
        let Some(stream) = stream.ok().filter(|_| connections.len() < MAX_CONNECTIONS) else {
            continue;
        };
        let theirs = Arc::clone(shared);
        let started = thread::Builder::new()
            .name("cloud-proxy-client".to_owned())
            .spawn(move || serve_stream(&theirs, stream));
        connections.extend(started);
    }
    for connection in connections {
        let _ = connection.join();
    }
}

fn serve_stream(shared: &Shared, stream: TcpStream) {
    if let Ok(client) = shared.own(stream) {
        // A client that breaks off, or says what is no HTTP, sees its connection closed.
        let _ = serve(shared, &client);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::time::Duration;

    use super::super::faults::{Fault, Match, When};
    use super::*;
    use crate::process::{PATIENCE, free_port};

    /// A proxy for an emulator that is not there.
    fn proxy(fault: Fault) -> Proxy {
        let nobody = ([127, 0, 0, 1], free_port().unwrap()).into();
        let script = Script::new(1).with(Match::all(), When::Always, fault);
        Proxy::start(nobody, script).unwrap()
    }

    fn client(proxy: &Proxy, says: &str) -> TcpStream {
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(says.as_bytes()).unwrap();
        stream
    }

    fn rest(mut stream: TcpStream) -> String {
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        said
    }

    #[test]
    fn a_connection_above_the_bound_is_closed_and_the_others_are_served() {
        let proxy = proxy(Fault::status(503, "SlowDown"));
        let open: Vec<_> = (0..MAX_CONNECTIONS)
            .map(|_| client(&proxy, "GET /b/k "))
            .collect();
        let mut above = client(&proxy, "");
        assert_eq!(above.read(&mut [0]).unwrap(), 0);
        for mut stream in open {
            stream
                .write_all(b"HTTP/1.1\r\nConnection: close\r\n\r\n")
                .unwrap();
            assert!(rest(stream).starts_with("HTTP/1.1 503 "));
        }
        assert_eq!(
            proxy.ledger().answered("GetObject", 503),
            MAX_CONNECTIONS as u64
        );
    }

    #[test]
    fn without_an_emulator_calls_are_not_answered_and_are_counted() {
        let proxy = proxy(Fault::SkewedDate(1));
        assert_eq!(rest(client(&proxy, "GET /b/k HTTP/1.1\r\n\r\n")), "");
        let ledger = proxy.ledger();
        assert_eq!((ledger.broken(), ledger.answered("GetObject", 0)), (1, 1));
        assert!(ledger.table().contains("(broken)"), "{}", ledger.table());
    }

    #[test]
    fn what_is_no_http_is_closed() {
        let proxy = proxy(Fault::DropBefore);
        assert_eq!(rest(client(&proxy, "hello\r\n\r\n")), "");
        assert_eq!(proxy.ledger().calls("GetObject"), 0);
    }

    #[test]
    fn a_call_that_hangs_for_an_hour_ends_with_the_proxy() {
        let proxy = proxy(Fault::Hang(Duration::from_hours(1)));
        let mut hanging = client(&proxy, "GET /b/k HTTP/1.1\r\n\r\n");
        hanging
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        assert!(hanging.read(&mut [0]).is_err(), "it does not hang");
        drop(proxy);
        hanging.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(rest(hanging), "");
    }
}
