//! Nodes behind this agent, over a byte stream: a TCP or unix listener, or a serial line. Packets of frames
//! go both ways, as [`headwater_proto::serial`] puts them on a stream. Nothing is opened here: what a packet
//! means, and what its node is answered, the engine knows.

use std::fmt;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use headwater_proto::serial::{self, Decoder};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::net::unix::pipe;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::sleep;

use super::accept::{listen_unix, serve_each};
use super::kind::Start;
use super::lines::resolve;
use super::refusals::Refusals;
use super::supervisor::SourceError;
use super::{CHUNK_BYTES, Feed, Port, Stop, Stopped};
use crate::pipeline::engine::{MAX_NODES, NODE_BUNDLE_BYTES, SILENT_MS, Way};

mod settings;

pub use settings::{Allowed, NodesSource, Place, RawNodes};

/// Most connections at once; a further one waits for a place. Nodes that lost power all at once come back while
/// nobody knows yet that their connections from before are dead.
const MAX_CONNECTIONS: usize = 2 * MAX_NODES;
/// How long a connection may take to bring its first packet: a Hello comes at once.
const FIRST_PACKET: Duration = Duration::from_secs(30);
/// How long a connection may bring no packet. A node that lost power says no farewell, and one that has nothing
/// to say can repeat its Hello.
const SILENCE: Duration = Duration::from_millis(SILENT_MS);
/// Largest packet that a node may send: a bundle as the engine announces it.
const PACKET_BYTES: usize = NODE_BUNDLE_BYTES as usize;
/// Most bytes of packets that wait for the engine; at least a packet.
const WAITING_BYTES: usize = 8 * PACKET_BYTES;
/// Answers that wait for a slow line; further ones are dropped, since each can be asked for again.
const WAITING_ANSWERS: usize = 64;

/// Names the ways of all sources of one process.
static WAYS: AtomicU64 = AtomicU64::new(0);

/// A packet of a node, and where it came from.
#[derive(Debug)]
pub struct Packet {
    /// Where answers go.
    pub way: Way,
    /// Who may speak that way.
    pub allowed: Arc<Allowed>,
    /// Frames back to back.
    pub bytes: Vec<u8>,
    /// Its part of the bytes that may wait.
    _waits: Option<OwnedSemaphorePermit>,
}

impl Packet {
    /// One that waits for nobody.
    #[must_use]
    pub const fn new(way: Way, allowed: Arc<Allowed>, bytes: Vec<u8>) -> Self {
        Self {
            way,
            allowed,
            bytes,
            _waits: None,
        }
    }
}

/// A way to nodes that came or went.
#[derive(Debug)]
pub struct WayChange {
    /// Which one.
    pub way: Way,
    /// Where answers go; `None`: it is gone.
    pub answers: Option<mpsc::Sender<Vec<u8>>>,
}

/// What a packet was that is not handed on.
#[derive(Debug, Clone, Copy)]
struct Torn;

impl fmt::Display for Torn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cut, or longer than {PACKET_BYTES} bytes")
    }
}

/// Over which a node speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    /// It takes one of [`MAX_CONNECTIONS`] places, and ends when nothing comes for long.
    Connection,
    /// Nobody waits for its place: it may be silent.
    Serial,
}

/// All that the connections of one source share.
#[derive(Debug, Clone)]
struct Talk {
    allowed: Arc<Allowed>,
    port: Port,
    stop: Stop,
    refusals: Arc<Refusals>,
    waiting: Arc<Semaphore>,
}

/// Serves nodes until told to stop.
///
/// # Errors
/// [`SourceError`].
async fn run(source: NodesSource, start: Start) -> Result<(), SourceError> {
    let talk = Talk {
        allowed: Arc::new(source.devices),
        port: start.port,
        stop: start.stop,
        refusals: start.refusals,
        waiting: Arc::new(Semaphore::new(WAITING_BYTES)),
    };
    let place = source.listen;
    let failed = |error: io::Error| SourceError::Failed(format!("cannot open {place}: {error}"));
    match &place {
        Place::Tcp(host, port) => {
            let address = resolve(host, *port).map_err(failed)?;
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            let accept = || async {
                let (stream, _) = listener.accept().await?;
                // Answers are small, and a node waits for them.
                stream.set_nodelay(true)?;
                Ok(stream.into_split())
            };
            talk.accept(accept).await;
            Ok(())
        }
        Place::Unix(path) => {
            let listener = listen_unix(path).await.map_err(failed)?;
            let accept = || async { Ok(listener.accept().await?.0.into_split()) };
            talk.accept(accept).await;
            Ok(())
        }
        Place::Serial(path) => {
            let file = std::fs::OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
                .open(path)
                .map_err(failed)?;
            // A terminal is read and written as a pipe is.
            let copy = file.try_clone().map_err(failed)?;
            let read = pipe::Receiver::from_file_unchecked(file).map_err(failed)?;
            let write = pipe::Sender::from_file_unchecked(copy).map_err(failed)?;
            talk.port.up();
            talk.serve(Stream::Serial, read, write).await?;
            if talk.stop.is_stopped() {
                return Ok(());
            }
            Err(SourceError::Failed(format!("{place} has ended")))
        }
    }
}

impl Talk {
    /// Serves connections until told to stop, each in a task of its own, and waits for them.
    async fn accept<R, W, F>(&self, accept: impl Fn() -> F)
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = io::Result<(R, W)>>,
    {
        let serve = |(read, write)| {
            let talk = self.clone();
            async move {
                // The agent stops: there is nobody to tell.
                let _ = talk.serve(Stream::Connection, read, write).await;
            }
        };
        serve_each(&self.port, &self.stop, MAX_CONNECTIONS, accept, serve).await;
    }

    /// Serves one byte stream until it ends, no answer can come that way any more, or the agent stops.
    ///
    /// # Errors
    /// [`Stopped`].
    async fn serve(
        &self,
        stream: Stream,
        read: impl AsyncRead + Unpin,
        write: impl AsyncWrite + Unpin,
    ) -> Result<(), Stopped> {
        let way = WAYS.fetch_add(1, Ordering::Relaxed);
        let (tell, answers) = mpsc::channel(WAITING_ANSWERS);
        let answers_to = Some(tell);
        let change = |answers| Feed::Way(WayChange { way, answers });
        self.port.give(change(answers_to)).await?;
        let ended = tokio::select! {
            () = self.stop.stopped() => Ok(()),
            ended = self.hear(way, stream, read) => ended,
            () = say(answers, write) => Ok(()),
        };
        self.port.give(change(None)).await?;
        ended
    }

    async fn hear(
        &self,
        way: Way,
        stream: Stream,
        mut read: impl AsyncRead + Unpin,
    ) -> Result<(), Stopped> {
        let mut silence = pin!(sleep(FIRST_PACKET));
        let mut decoder = Decoder::new(vec![0; PACKET_BYTES]);
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let read = tokio::select! {
                read = read.read(&mut chunk) => read,
                () = &mut silence, if stream == Stream::Connection => return Ok(()),
            };
            let len = match read {
                Ok(0) | Err(_) => return Ok(()),
                Ok(len) => len,
            };
            for byte in &chunk[..len] {
                match decoder.push(*byte) {
                    serial::Read::More | serial::Read::Packet([]) => {}
                    serial::Read::Packet(packet) => {
                        let bytes = packet.to_vec();
                        self.hand_on(way, bytes).await?;
                        silence.set(sleep(SILENCE));
                    }
                    serial::Read::Bad => self.refusals.note(&"a packet", &Torn, &[]),
                }
            }
        }
    }

    async fn hand_on(&self, way: Way, bytes: Vec<u8>) -> Result<(), Stopped> {
        let room = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let waits = Arc::clone(&self.waiting).acquire_many_owned(room).await;
        let packet = Packet {
            _waits: waits.ok(),
            ..Packet::new(way, Arc::clone(&self.allowed), bytes)
        };
        self.port.give(Feed::Packet(packet)).await.map(drop)
    }
}

/// Writes answers until the stream takes no more.
async fn say(mut answers: mpsc::Receiver<Vec<u8>>, mut write: impl AsyncWrite + Unpin) {
    // It ends whatever the line carried before.
    let mut line = vec![serial::END];
    while let Some(answer) = answers.recv().await {
        serial::append(&answer, &mut line);
        if write.write_all(&line).await.is_err() || write.flush().await.is_err() {
            return;
        }
        line.clear();
    }
}

#[cfg(test)]
mod tests;
