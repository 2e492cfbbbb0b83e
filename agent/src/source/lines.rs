//! Lines from others: standard input, UDP, TCP, or a unix socket. Bounded in connections, bytes and
//! record length. A refused part costs no other; it is counted and told.

use std::net::ToSocketAddrs;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use headwater_payload::Format;
use headwater_program::listen::{Protocol, holder};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, UdpSocket, UnixStream};
use tokio::time::{Instant, sleep, sleep_until};

use super::accept::{listen_unix, serve_each};
use super::records::{Record, Records};
use super::refusals::Refusals;
use super::rows::{Read, RowReader};
use super::{CHUNK_BYTES, Feed, MAX_LINE_BYTES, Port, Reading, Stop, Stopped};
use crate::clock::wall;
use crate::pipeline::receipts;

mod settings;

pub(super) use settings::influx;
pub use settings::{Endpoint, LineFormat, LinesSource, RawLines};

/// Most connections at once; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 32;
/// How long nothing may come, once the agent stops, before a connection or socket is taken for read.
const LAST_QUIET: Duration = Duration::from_millis(50);
/// How long one is read at most once the agent stops, whatever still comes.
const LAST_READS: Duration = Duration::from_secs(1);
/// Largest datagram.
const DATAGRAM_BYTES: usize = 64 * 1024;

/// How long a record that spans lines may take to come: a quote or bracket that nobody closes must not
/// hold back the lines behind it.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Readings since the start.
#[derive(Debug, Default)]
pub struct LineCounters {
    /// Handed on.
    pub taken: AtomicU64,
    /// Of datagrams, and dropped since they found no room.
    pub dropped: AtomicU64,
}

/// Why lines cannot come in.
#[derive(Debug, thiserror::Error)]
pub enum LinesError {
    /// The address or path cannot be listened on.
    #[error("cannot listen on {endpoint}")]
    Listen {
        /// Which.
        endpoint: String,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// The agent stops.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Takes lines until told to stop, and what was on its way by then.
///
/// # Errors
/// [`LinesError`].
pub async fn run(
    config: &LinesSource,
    port: Port,
    stop: Stop,
    refusals: Arc<Refusals>,
) -> Result<(), LinesError> {
    let intake = Intake {
        stop,
        ..Intake::new(config.format.into(), port, refusals)
    };
    intake.listen(&config.listen).await
}

/// Rows of one stream, as they were handed on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HandedOn {
    /// How many.
    pub rows: u64,
    /// Their receipts, lowest first: at most [`MAX_RANGES`](crate::pipeline::receipts::MAX_RANGES)
    /// ranges, which may then hold those of other streams too.
    pub receipts: Vec<Range<u64>>,
}

impl HandedOn {
    fn add(&mut self, receipt: u64) {
        self.rows += 1;
        receipts::add(&mut self.receipts, receipt..receipt + 1);
    }

    /// Waits until all rows are settled, and says how.
    async fn settled(&self, port: &Port) -> Result<Answer, Stopped> {
        let end = self.receipts.last().map_or(0, |range| range.end);
        let settled = port.settled(end).await?;
        let lost = self.receipts.iter().map(|range| settled.missing(range));
        Ok(Answer {
            rows: self.rows,
            lost: lost.sum::<u64>().min(self.rows),
            refused: port.refused(&self.receipts),
        })
    }
}

/// A way in, as its connections share it.
#[derive(Debug, Clone)]
pub struct Intake {
    /// How records are read.
    pub format: Format,
    /// Longest record in bytes.
    pub record_bytes: usize,
    /// How long a record that spans lines may take to come, if that is bounded.
    pub patience: Option<Duration>,
    /// The way to the engine.
    pub port: Port,
    /// Readings that came.
    pub counters: Arc<LineCounters>,
    /// The way of refused parts.
    pub refusals: Arc<Refusals>,
    /// Ends its connections.
    pub stop: Stop,
}

impl Intake {
    /// A way in for lines.
    #[must_use]
    pub fn new(format: Format, port: Port, refusals: Arc<Refusals>) -> Self {
        Self {
            format,
            record_bytes: MAX_LINE_BYTES,
            patience: Some(PATIENCE),
            port,
            counters: Arc::default(),
            refusals,
            stop: Stop::default(),
        }
    }

    async fn listen(&self, endpoint: &Endpoint) -> Result<(), LinesError> {
        let failed = |source: std::io::Error| LinesError::Listen {
            endpoint: format!("{endpoint}{}", held(endpoint, &source)),
            source,
        };
        match endpoint {
            Endpoint::Stdin => {
                self.port.up();
                self.stream(tokio::io::stdin()).await?;
                Ok(())
            }
            Endpoint::Udp(host, port) => {
                let socket = UdpSocket::bind(resolve(host, *port).map_err(failed)?).await;
                let socket = socket.map_err(failed)?;
                self.port.up();
                self.datagrams(&socket).await.map_err(failed)
            }
            Endpoint::Tcp(host, port) => {
                let listener = TcpListener::bind(resolve(host, *port).map_err(failed)?).await;
                let listener = listener.map_err(failed)?;
                let accept = || async { listener.accept().await.map(|(stream, _)| stream) };
                self.accept(accept, take_all).await;
                Ok(())
            }
            Endpoint::Unix(path) => {
                let listener = listen_unix(path).await.map_err(failed)?;
                let accept = || async { listener.accept().await.map(|(stream, _)| stream) };
                self.accept(accept, take_all).await;
                Ok(())
            }
        }
    }

    /// Serves connections until told to stop, each in a task of its own, and waits for them.
    async fn accept<S, F, T>(&self, accept: impl Fn() -> F, serve: impl Fn(Self, S) -> T)
    where
        F: Future<Output = std::io::Result<S>>,
        T: Future<Output = ()> + Send + 'static,
    {
        let serve = |stream| serve(self.clone(), stream);
        serve_each(&self.port, &self.stop, MAX_CONNECTIONS, accept, serve).await;
    }

    /// Takes the records of one stream to its end; returns which rows were handed on. When told to stop
    /// it takes what is on its way; a record that has not come to its end by then is nobody's.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn stream(&self, stream: impl AsyncRead + Unpin) -> Result<HandedOn, Stopped> {
        let mut input = BufReader::with_capacity(CHUNK_BYTES, stream);
        let mut rows = RowReader::new(self.format);
        let mut records = Records::new(self.format, rows.splitter(), self.record_bytes);
        let mut patience = pin!(sleep(Duration::ZERO));
        let mut waits_for = None;
        let mut handed_on = HandedOn::default();
        let mut last = None;
        loop {
            let mut read = Vec::new();
            let mut take = |line, record: Record<'_>| self.read(&mut rows, line, record, &mut read);
            let (mut ended, mut stopped) = (false, false);
            tokio::select! {
                biased;
                () = self.read_enough(&mut last) => {
                    stopped = true;
                    records.give_up(&mut take);
                }
                () = &mut patience, if waits_for.is_some() => records.give_up(&mut take),
                bytes = input.fill_buf() => match bytes {
                    Ok([]) | Err(_) => {
                        records.end(&mut take);
                        ended = true;
                    }
                    Ok(bytes) => {
                        let len = bytes.len();
                        records.push(bytes, &mut take);
                        input.consume(len);
                    }
                },
            }
            for reading in read {
                handed_on.add(self.port.give(Feed::Reading(reading, None)).await?);
            }
            if stopped {
                return Err(Stopped);
            }
            if ended {
                return Ok(handed_on);
            }
            let waited_for = waits_for;
            waits_for = self.patience.and(records.spans_from());
            if let Some(most) = self.patience
                && waits_for != waited_for
            {
                patience.set(sleep(most));
            }
        }
    }

    /// Waits until the agent stops and either nothing comes for a moment or the time for what still
    /// comes is over. `last` is when that is, once it is known. Cancel-safe.
    async fn read_enough(&self, last: &mut Option<Instant>) {
        self.stop.stopped().await;
        let now = Instant::now();
        let last = *last.get_or_insert(now + LAST_READS);
        sleep_until(last.min(now + LAST_QUIET)).await;
    }

    /// Reads a record; refused parts go their way.
    fn read(&self, rows: &mut RowReader, line: u64, record: Record<'_>, read: &mut Vec<Reading>) {
        let bytes = match record {
            Record::Whole(bytes) => bytes,
            Record::TooLong(bytes) => {
                let cause = TooLong(self.record_bytes);
                return self
                    .refusals
                    .refuse(&format_args!("line {line}"), &cause, bytes);
            }
        };
        rows.read(line, bytes, wall(), &mut |part| match part {
            Read::Row(_, reading) => {
                self.counters.taken.fetch_add(1, Ordering::Relaxed);
                read.push(reading);
            }
            Read::Refused(place, cause, bytes) => self.refusals.refuse(place, cause, bytes),
        });
    }

    /// Datagrams cannot be held back: what finds no room is dropped, counted, and told to the engine,
    /// which names it.
    async fn datagrams(&self, socket: &UdpSocket) -> std::io::Result<()> {
        let mut buffer = vec![0; DATAGRAM_BYTES];
        let mut rows = RowReader::new(self.format);
        let mut last = None;
        loop {
            let len = tokio::select! {
                biased;
                room = self.port.room(), if self.refusals.owes() => {
                    if room.is_err() {
                        return Ok(());
                    }
                    self.refusals.hand_over(&self.port);
                    continue;
                }
                () = self.read_enough(&mut last) => return Ok(()),
                len = socket.recv(&mut buffer) => len?,
            };
            rows.read(1, &buffer[..len], wall(), &mut |part| match part {
                Read::Refused(place, cause, bytes) => self.refusals.refuse(place, cause, bytes),
                Read::Row(_, reading) => {
                    self.counters.taken.fetch_add(1, Ordering::Relaxed);
                    let dropped = reading.as_lost();
                    // Those that were dropped are told before the next that are not.
                    if self.refusals.owes() || !self.port.try_give(Feed::Reading(reading, None)) {
                        self.counters.dropped.fetch_add(1, Ordering::Relaxed);
                        self.refusals.lose(dropped);
                    }
                }
            });
        }
    }
}

/// Takes what one connection gives.
async fn take_all<S: AsyncRead + Unpin>(intake: Intake, stream: S) {
    // The agent stops, or the client is gone: either way there is nobody to tell.
    let _ = intake.stream(stream).await;
}

/// Who holds a taken address, for an error message.
fn held(endpoint: &Endpoint, error: &std::io::Error) -> String {
    let (protocol, host, port) = match endpoint {
        Endpoint::Udp(host, port) => (Protocol::Udp, host, *port),
        Endpoint::Tcp(host, port) => (Protocol::Tcp, host, *port),
        Endpoint::Unix(_) | Endpoint::Stdin => return String::new(),
    };
    let taken = error.kind() == std::io::ErrorKind::AddrInUse;
    let address = resolve(host, port).ok().filter(|_| taken);
    address
        .and_then(|address| holder(protocol, address))
        .map_or_else(String::new, |holder| format!(", which {holder} holds"))
}

/// The first address of a name.
pub(super) fn resolve(host: &str, port: u16) -> std::io::Result<std::net::SocketAddr> {
    (host, port)
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| std::io::ErrorKind::NotFound.into())
}

/// A record is longer than it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the record is longer than {0} bytes")]
pub struct TooLong(pub usize);

/// What `send` is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Rows that were handed on.
    pub rows: u64,
    /// Of these, those that are not durable.
    pub lost: u64,
    /// Values of these that the engine refused: its reasons are others than those of who reads lines.
    pub refused: u64,
}

impl Answer {
    /// Reads an answer.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let words: Vec<_> = text.split_whitespace().collect();
        let ["durable", durable, "lost", lost, "refused", refused] = *words else {
            return None;
        };
        let (durable, lost): (u64, u64) = (durable.parse().ok()?, lost.parse().ok()?);
        Some(Self {
            rows: durable.checked_add(lost)?,
            lost,
            refused: refused.parse().ok()?,
        })
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            rows,
            lost,
            refused,
        } = self;
        let durable = rows.saturating_sub(*lost);
        write!(f, "durable {durable} lost {lost} refused {refused}")
    }
}

/// Serves `send`: takes lines up to the end of the client's side, waits until each row is settled, and
/// answers how many are durable, how many are not, and how many values were refused.
///
/// # Errors
/// [`LinesError`].
pub async fn serve_send(
    path: &std::path::Path,
    port: Port,
    stop: Stop,
    refusals: Arc<Refusals>,
) -> Result<(), LinesError> {
    let failed = |source| LinesError::Listen {
        endpoint: path.display().to_string(),
        source,
    };
    let listener = listen_unix(path).await.map_err(failed)?;
    let intake = Intake {
        stop,
        ..Intake::new(Format::Line, port, refusals)
    };
    let accept = || async { listener.accept().await.map(|(stream, _)| stream) };
    intake.accept(accept, answer).await;
    Ok(())
}

/// Takes what one client sends, and answers it. Without an answer it knows that the agent stopped.
async fn answer(intake: Intake, mut stream: UnixStream) {
    let (from, mut to) = stream.split();
    let Ok(handed_on) = intake.stream(from).await else {
        return;
    };
    if let Ok(answer) = handed_on.settled(&intake.port).await {
        let _ = to.write_all(format!("{answer}\n").as_bytes()).await;
    }
}

#[cfg(test)]
mod tests;
