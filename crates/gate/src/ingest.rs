//! What the gate hands to its owner: events through one bounded queue.
//!
//! ```text
//! connection tasks ──GateEvent──► IngestQueue (bytes and events bounded) ──► Arrivals: one thread
//!                  ◄──puback, send_down, close── GateHandle ◄──────────────┘
//! ```
//! The owner takes everything that waits with one lock, appends it to its journal, syncs once, and
//! only then calls [`crate::GateHandle::puback`] for each token. A full queue stops the
//! connections that have something to hand over, nobody else; connects and disconnects always fit.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use headwater_proto::ids::DeviceId;
use headwater_proto::mqtt::Qos;
use headwater_proto::time::Now;

/// One connection; never used twice in the life of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// Number of a QoS 1 publish within its connection: 0, 1, 2 ... in order of receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// What happened at the gate, in the order in which each connection saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GateEvent {
    /// A client passed identity and limits, and its session was opened.
    Connected {
        /// The connection.
        conn: ConnId,
        /// Who: the authenticated sender. For an agent this is its device id.
        client: Arc<str>,
        /// When.
        at: Now,
    },
    /// A message came in.
    Arrival(Arrival),
    /// The client sent something more than 30 s after the PUBACKs up to and with `through` left on
    /// this connection: it will not repeat those publishes.
    Settled {
        /// The connection.
        conn: ConnId,
        /// Its client.
        client: Arc<str>,
        /// The newest of those publishes.
        through: Token,
    },
    /// The connection is over; nothing more comes from it.
    Disconnected {
        /// The connection.
        conn: ConnId,
        /// Its client.
        client: Arc<str>,
        /// Whether the client said DISCONNECT.
        orderly: bool,
        /// When.
        at: Now,
    },
}

/// One publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// The connection it came on.
    pub conn: ConnId,
    /// The authenticated sender.
    pub client: Arc<str>,
    /// Answer with [`crate::GateHandle::puback`] once it is durable; `None` for QoS 0, which
    /// nobody promised anything.
    pub token: Option<Token>,
    /// When its bytes were read.
    pub at: Now,
    /// The message.
    pub body: Body,
}

/// The two kinds of message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// On `hw/1/<shard>/<device>/up`: frames of the headwater wire.
    Agent {
        /// The device of the topic; the sender may speak for it. Shared: the connection keeps it.
        device: Arc<DeviceId>,
        /// Frames back to back.
        payload: Bytes,
    },
    /// On any other topic that a pattern allows.
    Plain {
        /// The topic as published.
        topic: Arc<str>,
        /// The payload as published.
        payload: Bytes,
        /// QoS 0 or 1.
        qos: Qos,
        /// The client says that it may have sent this before.
        dup: bool,
        /// Its packet id; 0 with QoS 0.
        packet_id: u16,
        /// [`crate::repeat::fingerprint`] of topic and payload.
        fingerprint: u64,
    },
}

impl Body {
    /// The payload, whichever kind it is.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        match self {
            Self::Agent { payload, .. } | Self::Plain { payload, .. } => payload,
        }
    }
}

impl GateEvent {
    /// What one event counts against the queue besides its payload: its own size and its share of
    /// reference counts, rounded up.
    pub const OVERHEAD_BYTES: usize = 256;

    fn cost(&self) -> usize {
        match self {
            Self::Arrival(arrival) => arrival.body.payload().len() + Self::OVERHEAD_BYTES,
            Self::Connected { .. } | Self::Settled { .. } | Self::Disconnected { .. } => {
                Self::OVERHEAD_BYTES
            }
        }
    }
}

/// Makes the queue between a gate and its owner.
///
/// `capacity_bytes`: payloads plus [`GateEvent::OVERHEAD_BYTES`] each. A connection may add what it
/// read at once as long as the queue is below it, so the true bound is one read per connection more.
#[must_use]
pub fn queue(capacity_bytes: usize) -> (IngestQueue, Arrivals) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            events: Vec::new(),
            bytes: 0,
            waiters: Vec::new(),
            drains: 0,
            woken: false,
            closed: false,
        }),
        arrived: Condvar::new(),
        capacity_bytes,
    });
    (
        IngestQueue {
            shared: Arc::clone(&shared),
            registered_at: None,
        },
        Arrivals { shared },
    )
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    arrived: Condvar,
    capacity_bytes: usize,
}

#[derive(Debug)]
struct State {
    events: Vec<GateEvent>,
    bytes: usize,
    waiters: Vec<Waker>,
    /// How often the queue was emptied: a waiter registers once per filling.
    drains: u64,
    woken: bool,
    closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics while it holds the lock; if it did, the state is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connections' end; each connection has its own clone.
#[derive(Debug)]
pub struct IngestQueue {
    shared: Arc<Shared>,
    registered_at: Option<u64>,
}

impl Clone for IngestQueue {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            registered_at: None,
        }
    }
}

impl IngestQueue {
    /// Moves all of `events` into the queue, or registers the task to be woken when there is room.
    /// Pending leaves `events` as they are. When the owner is gone they are dropped.
    pub fn poll_push(&mut self, events: &mut Vec<GateEvent>, cx: &mut Context<'_>) -> Poll<()> {
        if events.is_empty() {
            return Poll::Ready(());
        }
        let mut state = self.shared.lock();
        if state.closed {
            events.clear();
            return Poll::Ready(());
        }
        if state.bytes >= self.shared.capacity_bytes {
            if self.registered_at != Some(state.drains) {
                self.registered_at = Some(state.drains);
                state.waiters.push(cx.waker().clone());
            }
            return Poll::Pending;
        }
        self.append(state, events);
        Poll::Ready(())
    }

    /// Moves `events` into the queue even if it is full: for connects and disconnects, whose
    /// number the connection limit bounds.
    pub fn push(&self, events: &mut Vec<GateEvent>) {
        let state = self.shared.lock();
        if state.closed {
            events.clear();
            return;
        }
        self.append(state, events);
    }

    fn append(&self, mut state: MutexGuard<'_, State>, events: &mut Vec<GateEvent>) {
        state.bytes += events.iter().map(GateEvent::cost).sum::<usize>();
        let was_empty = state.events.is_empty();
        state.events.append(events);
        drop(state);
        if was_empty {
            self.shared.arrived.notify_one();
        }
    }
}

/// What came of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// There are events.
    Events,
    /// The time is over, or [`ArrivalsWaker::wake`] was called.
    Nothing,
    /// The gate is gone and everything was taken.
    Closed,
}

/// The owner's end: for one thread that may block.
#[derive(Debug)]
pub struct Arrivals {
    shared: Arc<Shared>,
}

impl Arrivals {
    /// Takes all that waits, in order, after waiting at most `timeout` for the first event. What
    /// `into` held before is dropped.
    pub fn take(&mut self, into: &mut Vec<GateEvent>, timeout: Duration) -> Waited {
        into.clear();
        let mut state = self.shared.lock();
        if state.events.is_empty() && !state.woken && !timeout.is_zero() {
            // The gate's ends and this one share the state: one strong count means they are gone.
            if Arc::strong_count(&self.shared) == 1 {
                return Waited::Closed;
            }
            state = self
                .shared
                .arrived
                .wait_timeout_while(state, timeout, |s| s.events.is_empty() && !s.woken)
                .map_or_else(|e| e.into_inner().0, |(state, _)| state);
        }
        state.woken = false;
        if state.events.is_empty() {
            drop(state);
            let gone = Arc::strong_count(&self.shared) == 1;
            return if gone {
                Waited::Closed
            } else {
                Waited::Nothing
            };
        }
        // The emptied vector goes in, so that neither side allocates once warm.
        std::mem::swap(&mut state.events, into);
        state.bytes = 0;
        state.drains += 1;
        let waiters = std::mem::take(&mut state.waiters);
        drop(state);
        waiters.into_iter().for_each(Waker::wake);
        Waited::Events
    }

    /// Something with which another thread ends a wait.
    #[must_use]
    pub fn waker(&self) -> ArrivalsWaker {
        ArrivalsWaker {
            shared: Arc::downgrade(&self.shared),
        }
    }
}

impl Drop for Arrivals {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        state.events.clear();
        let waiters = std::mem::take(&mut state.waiters);
        drop(state);
        waiters.into_iter().for_each(Waker::wake);
    }
}

/// Ends a wait in [`Arrivals::take`] early, now or the next one.
#[derive(Debug, Clone)]
pub struct ArrivalsWaker {
    shared: std::sync::Weak<Shared>,
}

impl ArrivalsWaker {
    /// Ends the wait.
    pub fn wake(&self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.lock().woken = true;
            shared.arrived.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_proto::time::{Millis, UnixMicros};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    const NOW: Now = Now {
        mono: Millis(1),
        wall: UnixMicros(2),
    };

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn arrival(bytes: usize) -> GateEvent {
        let payload = Bytes::from(vec![0; bytes]);
        let device = Arc::new(DeviceId::new("pi-1").unwrap());
        GateEvent::Arrival(Arrival {
            conn: ConnId(0),
            client: Arc::from("pi-1"),
            token: None,
            at: NOW,
            body: Body::Agent { device, payload },
        })
    }

    #[test]
    fn a_full_queue_takes_no_arrivals_until_it_is_emptied_and_then_wakes_each_waiter_once() {
        let (mut queue, mut arrivals) = queue(1_000);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        assert!(
            queue
                .poll_push(&mut vec![arrival(1_000)], &mut cx)
                .is_ready()
        );
        let mut waiting = vec![arrival(1)];
        assert!(queue.poll_push(&mut waiting, &mut cx).is_pending());
        assert!(queue.poll_push(&mut waiting, &mut cx).is_pending());
        assert_eq!(waiting.len(), 1);
        // The end of a connection always fits.
        let client = Arc::from("pi-1");
        let end = GateEvent::Disconnected {
            conn: ConnId(0),
            client,
            orderly: true,
            at: NOW,
        };
        queue.push(&mut vec![end]);
        let mut events = Vec::new();
        assert_eq!(arrivals.take(&mut events, Duration::ZERO), Waited::Events);
        assert_eq!((events.len(), woken.0.load(Ordering::Relaxed)), (2, 1));
        assert!(queue.poll_push(&mut waiting, &mut cx).is_ready());
        assert!(waiting.is_empty());
    }

    #[test]
    fn a_wait_ends_when_another_thread_says_so() {
        let (_queue, mut arrivals) = queue(1_000);
        arrivals.waker().wake();
        let long = Duration::from_secs(3_600);
        assert_eq!(arrivals.take(&mut Vec::new(), long), Waited::Nothing);
    }

    #[test]
    fn the_owner_gets_everything_before_it_hears_that_the_gate_is_gone() {
        let (queue, mut arrivals) = queue(1_000);
        queue.push(&mut vec![arrival(1)]);
        drop(queue);
        let mut events = Vec::new();
        assert_eq!(arrivals.take(&mut events, Duration::ZERO), Waited::Events);
        assert_eq!(
            arrivals.take(&mut events, Duration::from_secs(3_600)),
            Waited::Closed
        );
        assert!(events.is_empty());
    }

    #[test]
    fn without_an_owner_events_go_nowhere() {
        let (mut queue, arrivals) = queue(1);
        drop(arrivals);
        let mut cx = Context::from_waker(Waker::noop());
        let mut events = vec![arrival(10), arrival(10)];
        assert!(queue.poll_push(&mut events, &mut cx).is_ready());
        assert!(events.is_empty());
    }
}
