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
use tokio::net::{TcpListener, UdpSocket, UnixListener};
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::records::{Record, Records};
use super::refusals::Refusals;
use super::rows::{Read, RowReader};
use super::{CHUNK_BYTES, Feed, MAX_LINE_BYTES, Port, Reading, Stop, Stopped};
use crate::clock::wall;
use crate::pipeline::engine::Lost;
use crate::pipeline::receipts;

mod settings;

pub(super) use settings::influx;
pub use settings::{Endpoint, LineFormat, LinesSource, RawLines};

/// Most connections at once; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 32;
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

/// Takes lines until told to stop.
///
/// # Errors
/// [`LinesError`].
pub async fn run(
    config: &LinesSource,
    port: Port,
    stop: Stop,
    refusals: Arc<Refusals>,
) -> Result<(), LinesError> {
    let intake = Intake::new(config.format.into(), port, refusals);
    tokio::select! {
        () = stop.stopped() => Ok(()),
        ended = intake.listen(&config.listen) => ended,
    }
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

    /// Waits until all rows are settled; how many are not durable.
    async fn lost(&self, port: &Port) -> Result<u64, Stopped> {
        let end = self.receipts.last().map_or(0, |range| range.end);
        let settled = port.settled(end).await?;
        let lost = self.receipts.iter().map(|range| settled.missing(range));
        Ok(lost.sum::<u64>().min(self.rows))
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
                self.accept(|| async { listener.accept().await.map(|(stream, _)| stream) })
                    .await
            }
            Endpoint::Unix(path) => {
                // One that a killed agent left stands in the way.
                let _ = std::fs::remove_file(path);
                let listener = UnixListener::bind(path).map_err(failed)?;
                self.accept(|| async { listener.accept().await.map(|(stream, _)| stream) })
                    .await
            }
        }
    }

    async fn accept<S, F, A>(&self, accept: A) -> Result<(), LinesError>
    where
        S: AsyncRead + Send + Unpin + 'static,
        F: Future<Output = std::io::Result<S>>,
        A: Fn() -> F,
    {
        self.port.up();
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(place) = Arc::clone(&room).acquire_owned().await else {
                return Ok(());
            };
            let Ok(stream) = accept().await else {
                // Out of descriptors, most likely: others must close first.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            };
            let intake = self.clone();
            tokio::spawn(async move {
                let _ = intake.stream(stream).await;
                drop(place);
            });
        }
    }

    /// Takes the records of one stream to its end; returns which rows were handed on.
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
        loop {
            let mut read = Vec::new();
            let mut take = |line, record: Record<'_>| self.read(&mut rows, line, record, &mut read);
            let mut ended = false;
            tokio::select! {
                biased;
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
        let mut lost: Option<Lost> = None;
        loop {
            let len = tokio::select! {
                biased;
                told = self.tell(lost), if lost.is_some() => {
                    lost = None;
                    if told.is_err() {
                        return Ok(());
                    }
                    continue;
                }
                len = socket.recv(&mut buffer) => len?,
            };
            rows.read(1, &buffer[..len], wall(), &mut |part| match part {
                Read::Refused(place, cause, bytes) => self.refusals.refuse(place, cause, bytes),
                Read::Row(_, reading) => {
                    self.counters.taken.fetch_add(1, Ordering::Relaxed);
                    let dropped = reading.as_lost();
                    // Those that were dropped are told before the next that are not.
                    if lost.is_some() || !self.port.try_give(Feed::Reading(reading, None)) {
                        self.counters.dropped.fetch_add(1, Ordering::Relaxed);
                        lost = Some(lost.map_or(dropped, |lost| lost.and(dropped)));
                    }
                }
            });
        }
    }

    /// Tells the engine what was dropped, once there is room for it.
    async fn tell(&self, lost: Option<Lost>) -> Result<(), Stopped> {
        match lost {
            Some(lost) => self.port.give(Feed::Lost(lost, None)).await.map(drop),
            None => Ok(()),
        }
    }
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

fn resolve(host: &str, port: u16) -> std::io::Result<std::net::SocketAddr> {
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
}

impl Answer {
    /// Reads an answer.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (durable, lost) = text.strip_prefix("durable ")?.trim().split_once(" lost ")?;
        let (durable, lost): (u64, u64) = (durable.parse().ok()?, lost.parse().ok()?);
        let rows = durable.checked_add(lost)?;
        Some(Self { rows, lost })
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { rows, lost } = self;
        write!(f, "durable {} lost {lost}", rows.saturating_sub(*lost))
    }
}

/// Serves `send`: takes lines up to the end of the client's side, waits until each row is settled, and
/// answers how many are durable and how many are not.
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
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path).map_err(failed)?;
    port.up();
    let intake = Intake::new(Format::Line, port, refusals);
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = stop.stopped() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        let (Ok((mut stream, _)), Ok(place)) = (accepted, Arc::clone(&room).try_acquire_owned())
        else {
            continue;
        };
        let intake = intake.clone();
        tokio::spawn(async move {
            let (from, mut to) = stream.split();
            let Ok(handed_on) = intake.stream(from).await else {
                return;
            };
            // Without an answer the client knows that the agent stopped.
            if let Ok(lost) = handed_on.lost(&intake.port).await {
                let rows = handed_on.rows;
                let _ = to
                    .write_all(format!("{}\n", Answer { rows, lost }).as_bytes())
                    .await;
            }
            drop(place);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::pipeline::receipts::Settled;
    use crate::source::PortEnd;
    use headwater_proto::time::UnixMicros;
    use tokio::io::AsyncReadExt;

    fn intake() -> (Intake, PortEnd) {
        let (port, inlet) = Port::new("x", Arc::default());
        let refusals = Arc::new(Refusals::new("x", Clock::start()));
        (Intake::new(Format::Line, port, refusals), inlet)
    }

    fn refused(intake: &Intake) -> u64 {
        intake.refusals.count().0
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(future)
    }

    #[test]
    fn a_taken_address_is_told_with_its_holder() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let host = || "127.0.0.1".to_owned();
        for endpoint in [
            Endpoint::Tcp(host(), tcp.local_addr().unwrap().port()),
            Endpoint::Udp(host(), udp.local_addr().unwrap().port()),
        ] {
            let (intake, _inlet) = intake();
            let told = block_on(intake.listen(&endpoint)).unwrap_err().to_string();
            let me = format!("(process {}) holds", std::process::id());
            assert!(
                told.starts_with(&format!("cannot listen on {endpoint}, which "))
                    && told.ends_with(&me),
                "{told}"
            );
        }
    }

    #[test]
    fn a_stream_gives_its_lines_and_survives_bad_and_endless_ones() {
        let (intake, mut inlet) = intake();
        let long = format!("m f={}\n", "1".repeat(2 * MAX_LINE_BYTES));
        let bytes = [b"m f=1\nbad\n\xff\n", long.as_bytes(), b"# x\nm f=2\nm f=3"].concat();
        let taken = block_on(intake.stream(bytes.as_slice())).unwrap();
        assert_eq!((taken.rows, taken.receipts.first()), (3, Some(&(0..3))));
        assert_eq!(refused(&intake), 3);
        let mut seen = 0;
        while inlet.queue.try_recv().is_ok() {
            seen += 1;
        }
        assert_eq!(seen, 3);
    }

    #[test]
    fn good_parts_come_through_beside_refused_ones() {
        let (intake, mut inlet) = intake();
        let bytes = b"m a=1,b=oops,c=3\nm s=\"two\nlines\"\nm s=\"open\nm v=4\n";
        assert_eq!(block_on(intake.stream(bytes.as_slice())).unwrap().rows, 3);
        let mut columns = Vec::new();
        while let Ok(Feed::Reading(reading, _)) = inlet.queue.try_recv() {
            columns.push(
                reading
                    .columns
                    .iter()
                    .map(|c| c.name.clone())
                    .collect::<Vec<_>>(),
            );
        }
        assert_eq!(columns, [vec!["m.a", "m.c"], vec!["m.s"], vec!["m.v"]]);
        let last = "line 4, column 5: the closing quote is missing: \"m s=\\\"open\"";
        assert_eq!(intake.refusals.count(), (2, Some(last.to_owned())));
    }

    #[test]
    fn a_quote_that_nobody_closes_holds_lines_back_for_a_moment_only() {
        let (intake, mut inlet) = intake();
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(async {
                let (mut client, server) = tokio::io::duplex(64);
                let started = tokio::time::Instant::now();
                let lines = async {
                    client.write_all(b"m s=\"open\nm v=1\n").await.unwrap();
                    let first = tokio::time::timeout(2 * PATIENCE, inlet.queue.recv()).await;
                    assert!(matches!(first, Ok(Some(Feed::Reading(..)))), "{first:?}");
                    assert_eq!(started.elapsed(), PATIENCE);
                };
                tokio::select! {
                    _ = intake.stream(server) => unreachable!("the client is still there"),
                    () = lines => {}
                }
            });
        assert_eq!(refused(&intake), 1);
    }

    #[test]
    fn send_is_answered_when_its_rows_are_settled_with_those_that_are_not_durable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("send.sock");
        let (intake, mut end) = intake();
        let (stop, port) = (Stop::default(), intake.port.clone());
        block_on(async {
            let serving = serve_send(&path, port, stop.clone(), Arc::clone(&intake.refusals));
            let sending = async {
                // One of another client comes first.
                intake
                    .port
                    .give(Feed::Lost(Lost::one(1, UnixMicros(0)), None))
                    .await
                    .unwrap();
                let mut client = loop {
                    match tokio::net::UnixStream::connect(&path).await {
                        Ok(client) => break client,
                        Err(_) => tokio::task::yield_now().await,
                    }
                };
                client.write_all(b"m v=1\nm v=2\nm v=3\n").await.unwrap();
                client.shutdown().await.unwrap();
                for _ in 0..4 {
                    assert!(end.queue.recv().await.is_some());
                }
                let not_durable = vec![0..1, 2..3];
                for durable in [3, 4] {
                    let not_durable = not_durable.clone();
                    end.settled.send_replace(Settled {
                        durable,
                        not_durable,
                    });
                }
                let mut answer = String::new();
                client.read_to_string(&mut answer).await.unwrap();
                stop.stop();
                answer
            };
            let (served, answer) = tokio::join!(serving, sending);
            served.unwrap();
            assert_eq!(Answer::parse(&answer), Some(Answer { rows: 3, lost: 1 }));
        });
        for text in [
            "",
            "durable 1",
            "durable x lost 1",
            "ok 3",
            "durable -1 lost 2",
        ] {
            assert_eq!(Answer::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_datagram_may_hold_several_lines() {
        let (intake, mut inlet) = intake();
        block_on(async {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let to = socket.local_addr().unwrap();
            let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            client.send_to(b"m f=1\nm f=2\n", to).await.unwrap();
            tokio::select! {
                _ = intake.datagrams(&socket) => unreachable!("it never ends"),
                first = inlet.queue.recv() => assert!(first.is_some()),
            }
            assert!(inlet.queue.recv().await.is_some());
        });
    }

    #[test]
    fn datagrams_that_find_no_room_are_told_with_their_samples_and_times() {
        let (intake, mut inlet) = intake();
        let sent = 2 * crate::source::QUEUE_READINGS as u64;
        block_on(async {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let to = socket.local_addr().unwrap();
            let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let lines: String = (0..sent)
                .map(|k| format!("m a=1,b=2 {}\n", 1_700_000_000_000_000 + k))
                .collect();
            client.send_to(lines.as_bytes(), to).await.unwrap();
            let count = async {
                // Nothing is taken before all of the datagram was read.
                while intake.counters.taken.load(Ordering::Relaxed) < sent {
                    tokio::task::yield_now().await;
                }
                let (mut readings, mut lost) = (0, None);
                while lost.is_none() {
                    match inlet.queue.recv().await.unwrap() {
                        Feed::Reading(..) => readings += 1,
                        Feed::Lost(told, _) => lost = Some(told),
                        other @ (Feed::Line(..) | Feed::Refused(..)) => panic!("{other:?}"),
                    }
                }
                (readings, lost.unwrap())
            };
            tokio::select! {
                _ = intake.datagrams(&socket) => unreachable!("it never ends"),
                (readings, lost) = count => {
                    assert_eq!(readings, crate::source::QUEUE_READINGS as u64);
                    assert_eq!(lost.samples, 2 * (sent - readings));
                    let at = |k: u64| UnixMicros(1_700_000_000_000_000 + k as i64);
                    assert_eq!((lost.first, lost.last), (at(readings), at(sent - 1)));
                }
            }
        });
    }
}
