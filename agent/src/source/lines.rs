//! Lines from others: standard input, UDP, TCP, or a unix socket. Bounded in connections, bytes
//! and line length; what cannot be read is counted and told, at most once a minute.

use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use headwater_program::listen::{Protocol, holder};
use headwater_proto::time::UnixMicros;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, UdpSocket, UnixListener};
use tokio::sync::{Semaphore, oneshot};

use super::{Feed, MAX_LINE_BYTES, Outlet, Reading, Stop, Stopped, influx, json};
use crate::clock::wall;
use crate::config::{Endpoint, LineFormat, LinesSource};
use crate::pipeline::engine::Lost;

/// Most connections at once; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 32;
/// Largest datagram.
const DATAGRAM_BYTES: usize = 64 * 1024;

/// Lines read and refused since the start.
#[derive(Debug, Default)]
pub struct LineCounters {
    /// Readings handed on.
    pub taken: AtomicU64,
    /// Lines that were not readings.
    pub refused: AtomicU64,
    /// Lines of datagrams that found no room.
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

/// Reads one line of either format.
///
/// # Errors
/// What is wrong with it.
pub fn parse(format: LineFormat, line: &str, now: UnixMicros) -> Result<Option<Reading>, String> {
    match format {
        LineFormat::Influx => influx::parse(line, now).map_err(|error| error.to_string()),
        LineFormat::Json => json::parse(line, now).map_err(|error| error.to_string()),
    }
}

/// Takes lines until told to stop.
///
/// # Errors
/// [`LinesError`].
pub async fn run(
    name: &str,
    config: &LinesSource,
    outlet: Outlet,
    stop: Stop,
    counters: Arc<LineCounters>,
) -> Result<(), LinesError> {
    let intake = Intake {
        name: name.into(),
        format: config.format,
        outlet,
        counters,
    };
    tokio::select! {
        () = stop.stopped() => Ok(()),
        ended = intake.listen(&config.listen) => ended,
    }
}

/// What every way in shares.
#[derive(Debug, Clone)]
pub struct Intake {
    /// The source's name, for logs.
    pub name: Arc<str>,
    /// How lines are read.
    pub format: LineFormat,
    /// The way to the engine.
    pub outlet: Outlet,
    /// What came.
    pub counters: Arc<LineCounters>,
}

impl Intake {
    async fn listen(&self, endpoint: &Endpoint) -> Result<(), LinesError> {
        let failed = |source: std::io::Error| LinesError::Listen {
            endpoint: format!("{endpoint}{}", held(endpoint, &source)),
            source,
        };
        match endpoint {
            Endpoint::Stdin => self
                .stream(tokio::io::stdin())
                .await
                .map(|_| ())
                .map_err(Into::into),
            Endpoint::Udp(host, port) => {
                let socket = UdpSocket::bind(resolve(host, *port).map_err(failed)?).await;
                self.datagrams(&socket.map_err(failed)?)
                    .await
                    .map_err(failed)
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

    /// Takes the lines of one stream to its end; says how many were readings.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn stream(&self, stream: impl AsyncRead + Unpin) -> Result<u64, Stopped> {
        let mut reader = BufReader::with_capacity(MAX_LINE_BYTES, stream);
        let mut line = Vec::new();
        let mut skipping = false;
        let mut taken = 0;
        loop {
            let (used, ended) = match reader.fill_buf().await {
                Ok([]) | Err(_) => {
                    if !line.is_empty() && !skipping {
                        taken += self.give(&line).await?;
                    }
                    return Ok(taken);
                }
                Ok(bytes) => match bytes.iter().position(|byte| *byte == b'\n') {
                    Some(end) => {
                        line.extend_from_slice(&bytes[..end]);
                        (end + 1, true)
                    }
                    None => {
                        line.extend_from_slice(bytes);
                        (bytes.len(), false)
                    }
                },
            };
            reader.consume(used);
            if line.len() > MAX_LINE_BYTES {
                if !skipping {
                    self.refuse("the line is too long");
                }
                skipping = true;
                line.clear();
            }
            if ended {
                if !skipping {
                    taken += self.give(&line).await?;
                }
                skipping = false;
                line.clear();
            }
        }
    }

    async fn give(&self, line: &[u8]) -> Result<u64, Stopped> {
        let Some(reading) = self.read(line) else {
            return Ok(0);
        };
        self.outlet.give(Feed::Reading(reading, None)).await?;
        Ok(1)
    }

    fn read(&self, line: &[u8]) -> Option<Reading> {
        let Ok(text) = std::str::from_utf8(line) else {
            self.refuse("not UTF-8");
            return None;
        };
        match parse(self.format, text, wall()) {
            Ok(reading) => {
                self.counters
                    .taken
                    .fetch_add(u64::from(reading.is_some()), Ordering::Relaxed);
                reading
            }
            Err(cause) => {
                self.refuse(&cause);
                None
            }
        }
    }

    fn refuse(&self, cause: &str) {
        let before = self.counters.refused.fetch_add(1, Ordering::Relaxed);
        // The first of each thousand is told: a flood of bad lines must not become a flood of logs.
        if before.is_multiple_of(1000) {
            tracing::warn!(source = %self.name, refused = before + 1, "a line is not a reading: {cause}");
        }
    }

    /// Datagrams cannot be held back: what finds no room is dropped, counted, and told to the engine,
    /// which names it.
    async fn datagrams(&self, socket: &UdpSocket) -> std::io::Result<()> {
        let mut buffer = vec![0; DATAGRAM_BYTES];
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
            for line in buffer[..len].split(|byte| *byte == b'\n') {
                let Some(reading) = self.read(line) else {
                    continue;
                };
                let dropped = reading.as_lost();
                // What was dropped is told before what comes after it.
                if lost.is_some() || !self.outlet.try_give(Feed::Reading(reading, None)) {
                    self.counters.dropped.fetch_add(1, Ordering::Relaxed);
                    lost = Some(lost.map_or(dropped, |lost| lost.and(dropped)));
                }
            }
        }
    }

    /// Tells the engine what was dropped, once there is room for it.
    async fn tell(&self, lost: Option<Lost>) -> Result<(), Stopped> {
        match lost {
            Some(lost) => self.outlet.give(Feed::Lost(lost)).await,
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

/// Serves `send`: takes lines up to the end of the client's side, makes them durable, answers
/// `ok N` with the number of readings.
///
/// # Errors
/// [`LinesError`].
pub async fn serve_send(
    path: &std::path::Path,
    outlet: Outlet,
    stop: Stop,
    counters: Arc<LineCounters>,
) -> Result<(), LinesError> {
    let failed = |source| LinesError::Listen {
        endpoint: path.display().to_string(),
        source,
    };
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path).map_err(failed)?;
    let intake = Intake {
        name: crate::config::SEND_SOURCE.into(),
        format: LineFormat::Influx,
        outlet,
        counters,
    };
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
            let Ok(taken) = intake.stream(from).await else {
                return;
            };
            let (done, durable) = oneshot::channel();
            if intake.outlet.give(Feed::Flush(done)).await.is_ok() && durable.await.is_ok() {
                let _ = to.write_all(format!("ok {taken}\n").as_bytes()).await;
            }
            drop(place);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    fn intake() -> (Intake, mpsc::Receiver<Feed>) {
        let (outlet, inlet) = Outlet::new(Arc::default());
        let counters = Arc::default();
        (
            Intake {
                name: "x".into(),
                format: LineFormat::Influx,
                outlet,
                counters,
            },
            inlet,
        )
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
        assert_eq!(taken, 3);
        assert_eq!(intake.counters.refused.load(Ordering::Relaxed), 3);
        let mut seen = 0;
        while inlet.try_recv().is_ok() {
            seen += 1;
        }
        assert_eq!(seen, 3);
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
                first = inlet.recv() => assert!(first.is_some()),
            }
            assert!(inlet.recv().await.is_some());
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
                .map(|k| format!("m a=1,b=2 {}\n", k * 1000))
                .collect();
            client.send_to(lines.as_bytes(), to).await.unwrap();
            let count = async {
                // Nothing is taken before all of the datagram was read.
                while intake.counters.taken.load(Ordering::Relaxed) < sent {
                    tokio::task::yield_now().await;
                }
                let (mut readings, mut lost) = (0, None);
                while lost.is_none() {
                    match inlet.recv().await.unwrap() {
                        Feed::Reading(..) => readings += 1,
                        Feed::Lost(told) => lost = Some(told),
                        other @ (Feed::Line(..) | Feed::Flush(_)) => panic!("{other:?}"),
                    }
                }
                (readings, lost.unwrap())
            };
            tokio::select! {
                _ = intake.datagrams(&socket) => unreachable!("it never ends"),
                (readings, lost) = count => {
                    assert_eq!(readings, crate::source::QUEUE_READINGS as u64);
                    assert_eq!(lost.samples, 2 * (sent - readings));
                    assert_eq!(lost.first, UnixMicros(readings as i64));
                    assert_eq!(lost.last, UnixMicros(sent as i64 - 1));
                }
            }
        });
    }
}
