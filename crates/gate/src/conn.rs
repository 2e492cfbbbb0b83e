//! One connection's task: moves bytes between a stream and its [`Session`]. Decides nothing.
//!
//! An idle connection holds no read buffer: reads go into one scratch buffer per thread, and only
//! the beginning of an unfinished packet is kept. What is read at once is decoded, handed over and
//! answered at once, so one wake-up costs one read, one lock and one write for many messages.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use headwater_program::clock::{Clock, MAX_TIMER_MS};
use headwater_proto::time::{Millis, Now};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep_until, timeout};

use crate::close::CloseReason;
use crate::handle::Outbox;
use crate::ingest::{ConnId, GateEvent, IngestQueue, Token};
use crate::session::{Admission, Next, Rules, Session};

/// One read: enough for a window of 50 messages of 1 KiB.
const SCRATCH_BYTES: usize = 64 * 1024;
/// What a buffer keeps when it is empty.
const SPARE_BYTES: usize = 1024;
/// Most bytes read and dropped while a closed connection waits for its peer to close.
const LINGER_BYTES: usize = 1024 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into());
}

/// Why [`Connection::run`] came back.
#[derive(Debug)]
pub(crate) enum Pause {
    /// The caller opens the session, calls [`Connection::admit`] or [`Connection::refuse`], and
    /// runs on.
    Admit(Admission),
    /// The end.
    Closed(CloseReason),
}

pub(crate) struct Connection<S> {
    io: S,
    session: Session,
    rules: Arc<Rules>,
    outbox: Arc<Outbox>,
    queue: IngestQueue,
    clock: Clock,
    /// Read and not yet used: the beginning of a packet, or packets that wait.
    rest: Vec<u8>,
    /// Something may be done with `rest` although nothing new came.
    retry: bool,
    blocked: bool,
    events: Vec<GateEvent>,
    released: Vec<Token>,
    down: Vec<Bytes>,
    out: Vec<u8>,
    written: usize,
    stalled_since: Option<Millis>,
    timer: Pin<Box<Sleep>>,
    timer_at: Millis,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(crate) fn new(
        conn: ConnId,
        io: S,
        rules: Arc<Rules>,
        outbox: Arc<Outbox>,
        queue: IngestQueue,
        clock: Clock,
    ) -> Self {
        let session = Session::new(conn, Arc::clone(&rules), clock.now());
        let timer_at = session.deadline();
        let timer = Box::pin(sleep_until(clock.instant(timer_at).into()));
        Self {
            io,
            session,
            rules,
            outbox,
            queue,
            clock,
            rest: Vec::new(),
            retry: false,
            blocked: false,
            events: Vec::new(),
            released: Vec::new(),
            down: Vec::new(),
            out: Vec::new(),
            written: 0,
            stalled_since: None,
            timer,
            timer_at,
        }
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// The session is open. `present`: one was kept.
    pub(crate) fn admit(&mut self, present: bool) {
        let now = self.clock.now();
        self.session
            .admit(present, now, &mut self.out, &mut self.events);
        // A connect always fits, so that every connection that has one has its disconnect too.
        self.queue.push(&mut self.events);
        self.retry = true;
    }

    pub(crate) fn refuse(&mut self) {
        self.session.refuse(&mut self.out);
    }

    /// Runs until the connection needs its owner or is over. Not cancel-safe: only the end of the
    /// task stops it.
    pub(crate) async fn run(&mut self) -> Pause {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// Hands over what came before the end, even if the queue is full.
    pub(crate) fn hand_over(&mut self) {
        self.queue.push(&mut self.events);
    }

    /// Writes what is left and closes, for a bounded time.
    pub(crate) async fn finish(mut self, reason: CloseReason) {
        if matches!(reason, CloseReason::Io | CloseReason::PeerGone) {
            return;
        }
        let linger = reason != CloseReason::Orderly;
        let grace = Duration::from_millis(self.rules.limits.closing_ms);
        // Whether the peer took it in time makes no difference any more.
        let _late = timeout(grace, self.say_goodbye(linger)).await;
    }

    async fn say_goodbye(&mut self, linger: bool) -> io::Result<()> {
        poll_fn(|cx| self.poll_write(cx)).await?;
        poll_fn(|cx| Pin::new(&mut self.io).poll_shutdown(cx)).await?;
        // Closing with bytes unread would reset the connection, and the peer might never see why.
        let mut dropped = 0;
        while linger && dropped < LINGER_BYTES {
            let read = poll_fn(|cx| self.poll_read(cx, |_, bytes| bytes.len())).await?;
            if read == 0 {
                break;
            }
            dropped += read;
        }
        Ok(())
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Pause> {
        let mut now = self.clock.now();
        loop {
            let pending_out = self.out.len() - self.written;
            let room = self.rules.limits.outgoing_bytes.saturating_sub(pending_out);
            let taken = self
                .outbox
                .poll_take(cx, &mut self.released, &mut self.down, room);
            self.retry |= self.blocked && !self.released.is_empty();
            for token in self.released.drain(..) {
                self.session.release(token, now, &mut self.out);
            }
            for payload in self.down.drain(..) {
                self.session.down(&payload, &mut self.out);
            }
            if let Some(reason) = taken.close {
                self.session.end(reason, &mut self.out);
                return Poll::Ready(Pause::Closed(reason));
            }
            let handed_over = self.poll_hand_over(now, cx);
            if handed_over && self.retry {
                self.retry = false;
                if let Some(pause) = self.take_in_rest(now) {
                    return Poll::Ready(pause);
                }
                continue;
            }
            match self.poll_write(cx) {
                Poll::Ready(Ok(())) if taken.more => continue,
                Poll::Ready(Ok(())) => self.stalled_since = None,
                Poll::Ready(Err(_)) => return self.fail(CloseReason::Io),
                Poll::Pending => {
                    self.stalled_since.get_or_insert(now.mono);
                }
            }
            let may_read = handed_over
                && !self.blocked
                && self.out.len() - self.written < self.rules.limits.outgoing_bytes;
            if may_read {
                match self.poll_read(cx, |this, bytes| this.read(bytes, now)) {
                    Poll::Ready(Ok(Some(pause))) => return Poll::Ready(pause),
                    Poll::Ready(Ok(None)) => continue,
                    Poll::Ready(Err(_)) => return self.fail(CloseReason::Io),
                    Poll::Pending => {}
                }
            }
            ready!(self.poll_timer(now, cx));
            now = self.clock.now();
            if let Some(reason) = self.late(now.mono) {
                return Poll::Ready(Pause::Closed(reason));
            }
        }
    }

    fn fail(&mut self, reason: CloseReason) -> Poll<Pause> {
        self.session.end(reason, &mut self.out);
        Poll::Ready(Pause::Closed(reason))
    }

    /// Whether all events are with the owner. If not, QoS 0 is dropped: nobody promised it.
    fn poll_hand_over(&mut self, now: Now, cx: &mut Context<'_>) -> bool {
        if self.queue.poll_push(&mut self.events, cx).is_ready() {
            if self.events.capacity() > 4 * SPARE_BYTES / size_of::<GateEvent>() {
                self.events = Vec::new();
            }
            return true;
        }
        let before = self.events.len();
        self.events
            .retain(|e| !matches!(e, GateEvent::Arrival(a) if a.token.is_none()));
        let dropped = before - self.events.len();
        self.rules.metrics.qos0_dropped_total.add(dropped as u64);
        if self.events.is_empty() {
            return true;
        }
        self.session.block(now.mono);
        // Once there is room the session looks at its bytes again, which ends the grace time.
        self.retry = true;
        false
    }

    fn read(&mut self, bytes: &[u8], now: Now) -> Option<Pause> {
        if bytes.is_empty() {
            self.session.end(CloseReason::PeerGone, &mut self.out);
            return Some(Pause::Closed(CloseReason::PeerGone));
        }
        self.session.heard(now, &mut self.events);
        if self.rest.is_empty() {
            return self.take_in(bytes, now);
        }
        self.rest.extend_from_slice(bytes);
        self.take_in_rest(now)
    }

    fn take_in_rest(&mut self, now: Now) -> Option<Pause> {
        let mut rest = std::mem::take(&mut self.rest);
        let (used, next) = self
            .session
            .receive(&rest, now, &mut self.out, &mut self.events);
        if used < rest.len() || rest.capacity() <= SPARE_BYTES {
            rest.drain(..used);
            self.rest = rest;
        }
        self.follow(next)
    }

    fn take_in(&mut self, bytes: &[u8], now: Now) -> Option<Pause> {
        let (used, next) = self
            .session
            .receive(bytes, now, &mut self.out, &mut self.events);
        self.rest.extend_from_slice(&bytes[used..]);
        self.follow(next)
    }

    fn follow(&mut self, next: Next) -> Option<Pause> {
        self.blocked = next == Next::Blocked;
        match next {
            Next::More | Next::Blocked => None,
            Next::Admit(admission) => Some(Pause::Admit(admission)),
            Next::Closed(reason) => Some(Pause::Closed(reason)),
        }
    }

    /// Reads once into this thread's scratch buffer and gives the bytes to `take`; none at the end.
    fn poll_read<T>(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&mut Self, &[u8]) -> T,
    ) -> Poll<io::Result<T>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
            Poll::Ready(Ok(take(self, buffer.filled())))
        })
    }

    /// Ready when everything is written.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.out.len() {
            let bytes = &self.out[self.written..];
            match ready!(Pin::new(&mut self.io).poll_write(cx, bytes))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.written += n,
            }
            self.stalled_since = None;
            if self.written > SCRATCH_BYTES {
                self.out.drain(..self.written);
                self.written = 0;
            }
        }
        if self.out.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.written = 0;
        self.out.clear();
        if self.out.capacity() > SPARE_BYTES {
            self.out = Vec::new();
        }
        // Streams that buffer, as TLS does, hold nothing back.
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Ready when the timer's time has come; it never fires later than the earliest deadline.
    fn poll_timer(&mut self, now: Now, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline();
        // A timer that is set to the present moment is not ready at once: set again and again, never.
        if deadline <= now.mono {
            return Poll::Ready(());
        }
        // A deadline that moved later waits for the timer to fire and be set again: most never do.
        if deadline < self.timer_at || self.timer_at <= now.mono {
            self.timer_at = deadline.min(now.mono.plus(MAX_TIMER_MS));
            let at = self.clock.instant(self.timer_at);
            self.timer.as_mut().reset(at.into());
        }
        ready!(self.timer.as_mut().poll(cx));
        Poll::Ready(())
    }

    fn deadline(&self) -> Millis {
        let stall_ms = self.rules.limits.write_stall_ms;
        let stall = self
            .stalled_since
            .map_or(Millis(u64::MAX), |since| since.plus(stall_ms));
        self.session.deadline().min(stall)
    }

    fn late(&mut self, now: Millis) -> Option<CloseReason> {
        let stall_ms = self.rules.limits.write_stall_ms;
        if self
            .stalled_since
            .is_some_and(|since| now >= since.plus(stall_ms))
        {
            self.session.end(CloseReason::SlowReader, &mut self.out);
            return Some(CloseReason::SlowReader);
        }
        self.session.tick(now, &mut self.out)
    }
}
