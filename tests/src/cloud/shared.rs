//! What the threads of a proxy share: script, ledger, the sockets that are open, and its end.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headwater_program::clock::Clock;

use super::flow::Link;
use super::ledger::Ledger;
use super::script::Script;

/// Longest wait for a connection to the emulator, which listens on this machine.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// Bytes that pass a slow link at once: a sixteenth of a second at 64 KiB/s.
const PIECE_BYTES: usize = 4 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Shared {
    upstream: SocketAddr,
    script: Mutex<Script>,
    ledger: Mutex<Ledger>,
    clock: Clock,
    /// To the emulator, and back.
    links: [Mutex<Link>; 2],
    has_ended: Mutex<bool>,
    ending: Condvar,
    sockets: Mutex<Sockets>,
}

#[derive(Debug, Default)]
struct Sockets {
    open: BTreeMap<u64, TcpStream>,
    next: u64,
    /// Nothing is opened any more.
    closed: bool,
}

/// A socket that is closed when it is dropped, or when the proxy ends.
#[derive(Debug)]
pub(super) struct Socket<'s> {
    shared: &'s Shared,
    number: u64,
    pub(super) stream: TcpStream,
}

impl Drop for Socket<'_> {
    fn drop(&mut self) {
        self.close();
        locked(&self.shared.sockets).open.remove(&self.number);
    }
}

impl Socket<'_> {
    /// Ends both directions at once.
    pub(super) fn close(&self) {
        // What the other side has closed already is as good as closed.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Shared {
    pub(super) fn new(upstream: SocketAddr, script: Script) -> Self {
        Self {
            upstream,
            script: Mutex::new(script),
            ledger: Mutex::default(),
            clock: Clock::start(),
            links: Default::default(),
            has_ended: Mutex::new(false),
            ending: Condvar::new(),
            sockets: Mutex::default(),
        }
    }

    pub(super) fn script(&self) -> MutexGuard<'_, Script> {
        locked(&self.script)
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        locked(&self.ledger)
    }

    /// Time since the proxy began.
    pub(super) fn now(&self) -> Duration {
        self.clock.elapsed()
    }

    /// Ends every wait and closes every socket, now and later.
    pub(super) fn end(&self) {
        *locked(&self.has_ended) = true;
        self.ending.notify_all();
        let mut sockets = locked(&self.sockets);
        sockets.closed = true;
        for stream in sockets.open.values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        *locked(&self.has_ended)
    }

    /// Waits for a time, or until the proxy ends: then it returns false.
    pub(super) fn wait(&self, time: Duration) -> bool {
        let guard = locked(&self.has_ended);
        let waited = self
            .ending
            .wait_timeout_while(guard, time, |has_ended| !*has_ended);
        let (has_ended, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !*has_ended
    }

    /// Takes care that a socket is closed in the end.
    pub(super) fn own(&self, stream: TcpStream) -> io::Result<Socket<'_>> {
        stream.set_nodelay(true)?;
        let mut sockets = locked(&self.sockets);
        let number = sockets.next;
        sockets.next += 1;
        sockets.open.insert(number, stream.try_clone()?);
        let socket = Socket {
            shared: self,
            number,
            stream,
        };
        if sockets.closed {
            socket.close();
        }
        drop(sockets);
        Ok(socket)
    }

    /// A new connection to the emulator.
    pub(super) fn connect(&self) -> io::Result<Socket<'_>> {
        self.own(TcpStream::connect_timeout(&self.upstream, CONNECT_WITHIN)?)
    }

    /// Waits until a part of a request's body has passed the link.
    pub(super) fn carry_up(&self, bytes: usize, bytes_per_s: Option<u64>) {
        self.carry(&self.links[0], bytes, bytes_per_s);
    }

    /// Writes to a client as fast as the link lets it; returns how much was written.
    pub(super) fn write_down(
        &self,
        mut stream: &TcpStream,
        bytes: &[u8],
        bytes_per_s: Option<u64>,
    ) -> usize {
        let piece_bytes = if bytes_per_s.is_some() {
            PIECE_BYTES
        } else {
            bytes.len().max(1)
        };
        let mut written = 0;
        for piece in bytes.chunks(piece_bytes) {
            self.carry(&self.links[1], piece.len(), bytes_per_s);
            if stream.write_all(piece).is_err() {
                break;
            }
            written += piece.len();
        }
        written
    }

    fn carry(&self, link: &Mutex<Link>, bytes: usize, bytes_per_s: Option<u64>) {
        if let Some(bytes_per_s) = bytes_per_s {
            let now = self.now();
            let until = locked(link).carry(bytes, bytes_per_s, now);
            self.wait(until.saturating_sub(now));
        }
    }
}

/// A thread that died holding a lock has failed its test already.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
