//! The listener: accepts, bounds and seats connections. One task per connection; the accept loop
//! never waits for a peer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headwater_program::clock::Clock;
use headwater_program::notices::Notices;
use headwater_proto::time::Millis;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::acl::Acl;
use crate::close::CloseReason;
use crate::conn::{Connection, Pause};
use crate::handle::{GateHandle, Outbox};
use crate::identity::Identify;
use crate::ingest::{self, Arrivals, ConnId, GateEvent, IngestQueue};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::session::{Admission, Rules};
use crate::store::SessionStore;

/// After a failed accept (no file descriptor left, mostly) the loop waits this long.
const ACCEPT_PAUSE_MS: u64 = 50;
/// Kinds of notices: one of each reason for which a connection ends, then those for want of a seat.
const NOTICE_FULL: usize = CloseReason::ALL.len();
const NOTICE_PER_IP: usize = NOTICE_FULL + 1;
const NOTICE_TWO: usize = NOTICE_PER_IP + 1;
const NOTICES: usize = NOTICE_TWO + 1;
/// So many takeovers of one client, each within [`TAKEOVER_PAUSE_MS`] of the one before, are the work of two.
const TAKEOVERS_OF_TWO: u32 = 5;
const TAKEOVER_PAUSE_MS: u64 = 60_000;

/// What a gate is made of.
pub struct Settings {
    /// Bounds.
    pub limits: Limits,
    /// Payload bytes and overhead that may wait for the owner, over all connections.
    pub queue_bytes: usize,
    /// Topics and client ids.
    pub acl: Acl,
    /// Who is it.
    pub identity: Box<dyn Identify>,
    /// Sessions that outlive connections.
    pub store: Arc<dyn SessionStore>,
    /// The clocks of the process.
    pub clock: Clock,
}

impl Settings {
    /// Default of `queue_bytes`: a second of 16 MiB/s.
    pub const QUEUE_BYTES: usize = 16 * 1024 * 1024;
}

/// One gate: any number of listeners, one owner.
pub struct Gate {
    rules: Arc<Rules>,
    store: Arc<dyn SessionStore>,
    queue: IngestQueue,
    handle: GateHandle,
    clock: Clock,
    next_conn: AtomicU64,
    seats: Mutex<Seats>,
    notices: Notices,
}

#[derive(Default)]
struct Seats {
    total: usize,
    by_ip: HashMap<IpAddr, usize>,
    by_client: HashMap<Arc<str>, Holder>,
}

/// The connection that has a client id, and how to know that it is gone.
struct Holder {
    conn: ConnId,
    gone: CancellationToken,
    /// Connections of this client that took it from one that was open, without a pause of
    /// [`TAKEOVER_PAUSE_MS`], and when the last one did.
    takeovers: (u32, Millis),
}

impl Gate {
    /// A gate without listeners, and the owner's end of its queue.
    #[must_use]
    pub fn new(settings: Settings) -> (Arc<Self>, Arrivals) {
        let Settings {
            limits,
            queue_bytes,
            acl,
            identity,
            store,
            clock,
        } = settings;
        let (queue, arrivals) = ingest::queue(queue_bytes);
        let assigned_prefix = format!("auto-{:x}", clock.now().wall.0);
        let metrics = Metrics::default();
        let gate = Self {
            rules: Arc::new(Rules {
                limits,
                acl,
                identity,
                assigned_prefix,
                metrics,
            }),
            store,
            queue,
            handle: GateHandle::default(),
            clock,
            next_conn: AtomicU64::new(0),
            seats: Mutex::default(),
            notices: Notices::new(NOTICES),
        };
        (Arc::new(gate), arrivals)
    }

    /// Speaks to the connections.
    #[must_use]
    pub fn handle(&self) -> GateHandle {
        self.handle.clone()
    }

    /// What happened so far.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.rules.metrics
    }

    /// Accepts plain TCP connections until `stop`; then ends them all, waits for a grace time and
    /// returns. Cancelling it instead drops the connections.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = tasks.join_next() => { report(ended); continue }
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.seat_tcp(stream, peer.ip(), &mut tasks),
                Err(error) => {
                    self.rules.metrics.accept_errors_total.inc();
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
                }
            }
        }
        drop(listener);
        self.handle.close_all(CloseReason::Stopping);
        let grace = Duration::from_millis(self.rules.limits.stop_grace_ms);
        let drained = timeout(grace, async {
            while let Some(ended) = tasks.join_next().await {
                report(ended);
            }
        });
        if drained.await.is_err() {
            tracing::warn!(left = tasks.len(), "connections did not end in time");
            tasks.shutdown().await;
        }
    }

    fn seat_tcp(self: &Arc<Self>, stream: TcpStream, ip: IpAddr, tasks: &mut JoinSet<()>) {
        // Without it a PUBACK may wait 40 ms for the peer's delayed acknowledgement.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        if let Some(task) = self.connect(stream, ip) {
            tasks.spawn(task);
        }
    }

    /// Takes a seat for a stream of any kind; what comes back runs the connection. `None`: no seat
    /// is free, and the stream is closed.
    pub fn connect<S>(
        self: &Arc<Self>,
        stream: S,
        ip: IpAddr,
    ) -> Option<impl Future<Output = ()> + Send + use<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let seat = self.take_seat(ip)?;
        Some(run(seat, stream))
    }

    fn take_seat(self: &Arc<Self>, ip: IpAddr) -> Option<Seat> {
        let limits = &self.rules.limits;
        let metrics = &self.rules.metrics;
        let mut seats = self.seats();
        if seats.total >= limits.connections {
            metrics.refused_full_total.inc();
            drop(seats);
            self.tell_no_seat(NOTICE_FULL, ip, "gate.max_connections");
            return None;
        }
        let from_ip = seats.by_ip.entry(ip).or_default();
        if *from_ip >= limits.connections_per_ip {
            metrics.refused_per_ip_total.inc();
            drop(seats);
            self.tell_no_seat(NOTICE_PER_IP, ip, "gate.max_connections_per_ip");
            return None;
        }
        *from_ip += 1;
        seats.total += 1;
        drop(seats);
        metrics.accepted_total.inc();
        metrics.connections_now.inc();
        let conn = ConnId(self.next_conn.fetch_add(1, Ordering::Relaxed));
        let outbox = self.handle.register(conn, limits.outgoing_bytes);
        Some(Seat {
            gate: Arc::clone(self),
            conn,
            ip,
            outbox,
            client: None,
            open: false,
        })
    }

    fn tell_no_seat(&self, notice: usize, ip: IpAddr, setting: &str) {
        if let Some(unsaid) = self.notices.may_say(notice, self.clock.now().mono) {
            tracing::warn!(address = %ip, setting, unsaid, "a connection was refused: too many are open");
        }
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's place; dropping it gives everything back, whatever ended the task.
struct Seat {
    gate: Arc<Gate>,
    conn: ConnId,
    ip: IpAddr,
    outbox: Arc<Outbox>,
    client: Option<(Arc<str>, CancellationToken)>,
    /// The owner knows of the connection and must hear of its end.
    open: bool,
}

impl Seat {
    /// Tells the owner that the connection is over, and gives the client id back.
    fn leave(&mut self, orderly: bool) {
        let Some((client, gone)) = self.client.take() else {
            return;
        };
        if std::mem::take(&mut self.open) {
            let at = self.gate.clock.now();
            let client = Arc::clone(&client);
            let last = GateEvent::Disconnected {
                conn: self.conn,
                client,
                orderly,
                at,
            };
            self.gate.queue.push(&mut vec![last]);
        }
        let mut seats = self.gate.seats();
        if seats
            .by_client
            .get(&client)
            .is_some_and(|holder| holder.conn == self.conn)
        {
            seats.by_client.remove(&client);
        }
        drop(seats);
        gone.cancel();
    }

    /// Holds the client id from now on; the connection that held it, if one did. Tells where that happens all the
    /// time.
    fn hold_client(&mut self, client: &Arc<str>) -> Option<Holder> {
        let gone = CancellationToken::new();
        let now = self.gate.clock.now().mono;
        let mut seats = self.gate.seats();
        let takeovers = seats.by_client.get(client).map_or(0, |older| {
            let (takeovers, last) = older.takeovers;
            let goes_on = now.since(last) < TAKEOVER_PAUSE_MS;
            if goes_on { takeovers + 1 } else { 1 }
        });
        let holder = Holder {
            conn: self.conn,
            gone: gone.clone(),
            takeovers: (takeovers, now),
        };
        let older = seats.by_client.insert(Arc::clone(client), holder);
        drop(seats);
        self.client = Some((Arc::clone(client), gone));
        if takeovers >= TAKEOVERS_OF_TWO
            && let Some(unsaid) = self.gate.notices.may_say(NOTICE_TWO, now)
        {
            tracing::warn!(
                %client,
                address = %self.ip,
                takeovers,
                unsaid,
                "a client connects again and again while it is connected: two have this name and one needs \
                 another, or its link breaks all the time"
            );
        }
        older
    }

    /// Takes the client id. The newer connection wins: an older one is told to end, and is waited
    /// for, so that its last events stand before the first of this one.
    async fn take_client(&mut self, client: &Arc<str>) {
        if let Some(older) = self.hold_client(client) {
            self.gate.handle.close(older.conn, CloseReason::Takeover);
            let grace = Duration::from_millis(self.gate.rules.limits.takeover_grace_ms);
            if timeout(grace, older.gone.cancelled()).await.is_err() {
                tracing::warn!(%client, "an older connection is slow to leave");
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.leave(false);
        self.gate.handle.unregister(self.conn);
        self.gate.rules.metrics.connections_now.dec();
        let mut seats = self.gate.seats();
        seats.total -= 1;
        if let Some(from_ip) = seats.by_ip.get_mut(&self.ip) {
            *from_ip -= 1;
            if *from_ip == 0 {
                seats.by_ip.remove(&self.ip);
            }
        }
    }
}

async fn run<S: AsyncRead + AsyncWrite + Unpin>(mut seat: Seat, stream: S) {
    let gate = Arc::clone(&seat.gate);
    let mut connection = Connection::new(
        seat.conn,
        stream,
        Arc::clone(&gate.rules),
        Arc::clone(&seat.outbox),
        gate.queue.clone(),
        gate.clock,
    );
    let reason = loop {
        match connection.run().await {
            Pause::Admit(admission) => match admit(&mut seat, &gate, &admission).await {
                Some(present) => {
                    connection.admit(present);
                    seat.open = true;
                }
                None => {
                    connection.refuse();
                    break CloseReason::Store;
                }
            },
            Pause::Closed(reason) => break reason,
        }
    };
    gate.rules.metrics.closed(reason).inc();
    let session = connection.session();
    let client = Arc::clone(session.client());
    tracing::debug!(conn = seat.conn.0, %client, reason = reason.name(), "connection over");
    if reason.is_refusal()
        && let Some(unsaid) = gate.notices.may_say(reason as usize, gate.clock.now().mono)
    {
        tracing::warn!(
            %client,
            address = %seat.ip,
            reason = reason.name(),
            fault = session.fault().unwrap_or_default(),
            unsaid,
            "a client was refused, and its connection closed"
        );
    }
    // After a takeover the session is the newer connection's.
    if seat.open && reason != CloseReason::Takeover {
        gate.store.ended(&client, session.expiry_s());
    }
    connection.hand_over();
    seat.leave(reason == CloseReason::Orderly);
    connection.finish(reason).await;
    drop(seat);
}

/// Opens the session; `None` if it cannot be, in the time that a CONNECT may take.
async fn admit(seat: &mut Seat, gate: &Gate, admission: &Admission) -> Option<bool> {
    seat.take_client(&admission.client).await;
    let grace = Duration::from_millis(gate.rules.limits.connect_timeout_ms);
    match timeout(grace, gate.store.open(admission)).await {
        Ok(Ok(present)) => Some(present),
        Ok(Err(error)) => {
            tracing::warn!(client = %admission.client, %error, "session not opened");
            None
        }
        Err(_) => {
            tracing::warn!(client = %admission.client, "the session store is too slow");
            None
        }
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "the task of a connection panicked");
    }
}
