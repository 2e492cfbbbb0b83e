//! What the owner says to connections: PUBACK, a message down, the end.
//!
//! Each connection has an outbox that its own task empties, so the owner never waits for a peer.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Context, Waker};

use bytes::Bytes;

use crate::close::CloseReason;
use crate::ingest::{ConnId, Token};

/// Why a message down was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DownError {
    /// The connection is over.
    #[error("the connection is over")]
    Gone,
    /// Too much waits for this client already; it is being closed.
    #[error("the client reads too slowly and is being closed")]
    Full,
}

/// Speaks to the connections of one gate. Cheap to clone, usable from any thread, never blocks on
/// a peer. Answers for a connection that is over are dropped.
#[derive(Debug, Clone, Default)]
pub struct GateHandle {
    conns: Arc<RwLock<HashMap<ConnId, Arc<Outbox>>>>,
}

impl GateHandle {
    /// The publish is durable: its PUBACK may leave, after those of all earlier publishes of the
    /// connection.
    pub fn puback(&self, conn: ConnId, token: Token) {
        self.pubacks([(conn, token)]);
    }

    /// Like [`Self::puback`] for many, with one look-up for neighbours of the same connection.
    pub fn pubacks(&self, released: impl IntoIterator<Item = (ConnId, Token)>) {
        let conns = self.conns.read().unwrap_or_else(PoisonError::into_inner);
        let mut released = released.into_iter().peekable();
        while let Some((conn, token)) = released.next() {
            let Some(outbox) = conns.get(&conn) else {
                continue;
            };
            let mut state = outbox.lock();
            state.released.push(token);
            while let Some((_, token)) = released.next_if(|(next, _)| *next == conn) {
                state.released.push(token);
            }
            wake(state);
        }
    }

    /// Sends a message on the client's own down topic, QoS 0. It is dropped and counted if the
    /// client did not subscribe to that topic.
    ///
    /// # Errors
    /// [`DownError`]: the connection is over, or its queue is full, which ends it.
    pub fn send_down(&self, conn: ConnId, payload: Bytes) -> Result<(), DownError> {
        let outbox = self.outbox(conn).ok_or(DownError::Gone)?;
        let mut state = outbox.lock();
        if state.close.is_some() {
            return Err(DownError::Gone);
        }
        let bytes = state.down_bytes + payload.len() + Outbox::OVERHEAD_BYTES;
        if bytes > outbox.capacity_bytes {
            state.close = Some(CloseReason::SlowReader);
            wake(state);
            return Err(DownError::Full);
        }
        state.down_bytes = bytes;
        state.down.push_back(payload);
        wake(state);
        Ok(())
    }

    /// Ends the connection. PUBACKs already released still leave if the peer reads.
    pub fn close(&self, conn: ConnId, reason: CloseReason) {
        if let Some(outbox) = self.outbox(conn) {
            outbox.close(reason);
        }
    }

    /// Ends all connections.
    pub fn close_all(&self, reason: CloseReason) {
        let conns = self.conns.read().unwrap_or_else(PoisonError::into_inner);
        conns.values().for_each(|outbox| outbox.close(reason));
    }

    fn outbox(&self, conn: ConnId) -> Option<Arc<Outbox>> {
        self.conns
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&conn)
            .cloned()
    }

    pub(crate) fn register(&self, conn: ConnId, capacity_bytes: usize) -> Arc<Outbox> {
        let outbox = Arc::new(Outbox {
            state: Mutex::default(),
            capacity_bytes,
        });
        let mut conns = self.conns.write().unwrap_or_else(PoisonError::into_inner);
        conns.insert(conn, Arc::clone(&outbox));
        outbox
    }

    pub(crate) fn unregister(&self, conn: ConnId) {
        self.conns
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&conn);
    }
}

fn wake(mut state: MutexGuard<'_, OutboxState>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// What waits for one connection's task.
#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<OutboxState>,
    capacity_bytes: usize,
}

#[derive(Debug, Default)]
struct OutboxState {
    /// At most as many as the connection has unacknowledged publishes.
    released: Vec<Token>,
    down: VecDeque<Bytes>,
    down_bytes: usize,
    close: Option<CloseReason>,
    waker: Option<Waker>,
}

impl Outbox {
    /// What one message counts besides its payload: header, topic and the queue's own entry.
    const OVERHEAD_BYTES: usize = 128;

    fn lock(&self) -> MutexGuard<'_, OutboxState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the connection to end; the first reason counts.
    pub(crate) fn close(&self, reason: CloseReason) {
        let mut state = self.lock();
        if state.close.is_none() {
            state.close = Some(reason);
        }
        wake(state);
    }

    /// Takes what waits and registers the task for the next change. Messages down come as long as
    /// they are below `down_room` bytes together, the first in any case; `more` says that some
    /// stayed.
    pub(crate) fn poll_take(
        &self,
        cx: &Context<'_>,
        released: &mut Vec<Token>,
        down: &mut Vec<Bytes>,
        down_room: usize,
    ) -> Taken {
        let mut state = self.lock();
        debug_assert!(released.is_empty());
        std::mem::swap(&mut state.released, released);
        let mut room = down_room;
        while room > 0
            && let Some(payload) = state.down.pop_front()
        {
            let bytes = payload.len() + Self::OVERHEAD_BYTES;
            state.down_bytes -= bytes;
            room = room.saturating_sub(bytes);
            down.push(payload);
        }
        if !state
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            state.waker = Some(cx.waker().clone());
        }
        Taken {
            close: state.close,
            more: !state.down.is_empty(),
        }
    }
}

/// What [`Outbox::poll_take`] found besides.
pub(crate) struct Taken {
    pub(crate) close: Option<CloseReason>,
    pub(crate) more: bool,
}
