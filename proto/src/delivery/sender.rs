//! Decides which stored records go out, and which may be forgotten. One for each origin.
//!
//! The shell owns the disk and the link. It tells the sender what is stored, hands it every down
//! message, and carries out its commands; it keeps no state of delivery of its own.
//!
//! Order of sending: lanes by urgency; within a lane what is *live* (stored since the Welcome)
//! before the *backlog* (oldest epoch first), but every [`BACKLOG_TURN`]-th publish takes backlog
//! first, so that neither starves. With more than 8 holes in a stream the oldest goes first.

mod choose;
mod hear;

use heapless::Vec;

use crate::delivery::command::{
    Command, DeliveryError, HeldEpoch, HelloFacts, Input, SenderCounters, SenderLimits,
};
use crate::delivery::held::Held;
use crate::delivery::rto::{Jitter, Rto};
use crate::ids::{DeviceId, Epoch, JournalId, Lane, MAX_DEVICE_ID_BYTES, SeqRange};
use crate::message::{Hello, MAX_HELLO_STREAMS, MAX_PAGES, PROTOCOL, RejectReason};
use crate::sabotage::{self, Bug};
use crate::time::Millis;

/// Every so many publishes of a lane, the backlog goes before what is live.
pub const BACKLOG_TURN: u32 = 4;
/// Less credit than this is waited out: a bundle so small costs more than it carries.
pub const MIN_ROOM_BYTES: u32 = 1024;
/// Refused ranges that wait for the shell.
const MAX_REFUSED: usize = 8;
/// Time-outs in a row after which the sender says Hello: the receiver may have forgotten it.
const TIMEOUTS_BEFORE_HELLO: u32 = 2;

/// A bundle in flight.
#[derive(Debug, Clone, Copy)]
struct Flight {
    lane: Lane,
    epoch: Epoch,
    range: SeqRange,
    bytes: u32,
    sent_at: Millis,
    due: Millis,
    /// Nothing in it was sent before on this connection: its round trip may be measured.
    fresh: bool,
}

/// A Hello that is going out, or waits for its Welcome.
#[derive(Debug, Clone, Copy)]
struct Greeting {
    nonce: u64,
    next_page: u8,
    pages: u8,
    due: Option<Millis>,
    /// Bit for each page of the Welcome that came.
    seen: u64,
}

/// The sender of one origin. `EPOCHS`: most epochs held; `FLIGHTS`: most bundles in flight;
/// `N`: room for the origin's id.
///
/// Per epoch: `released <= committed <= received <= stored`.
#[derive(Debug, Clone)]
pub struct Sender<const EPOCHS: usize, const FLIGHTS: usize, const N: usize = MAX_DEVICE_ID_BYTES> {
    origin: DeviceId<N>,
    limits: SenderLimits,
    jitter: Jitter,
    rto: Rto,
    epochs: Vec<Held, EPOCHS>,
    flights: Vec<Flight, FLIGHTS>,
    refused: Vec<(Lane, Epoch, SeqRange, RejectReason), MAX_REFUSED>,
    journal: Option<JournalId>,
    link_up: bool,
    /// A Welcome was completed on this connection.
    open: bool,
    greeting: Option<Greeting>,
    greetings_unanswered: u32,
    credit: u32,
    max_bundle: u32,
    in_flight_elsewhere: u32,
    more_epochs: bool,
    /// The record at the head is larger than the credit left.
    held_back: bool,
    /// A stream at the bound of its holes, and what of it was received then: it waits for more.
    blocked: Option<(Lane, Epoch, u64)>,
    paused_until: Millis,
    timeouts_in_a_row: u32,
    ask_at: Millis,
    turns: [u32; 4],
    counters: SenderCounters,
}

impl<const EPOCHS: usize, const FLIGHTS: usize, const N: usize> Sender<EPOCHS, FLIGHTS, N> {
    /// Holds nothing and is not connected. `seed` feeds jitter and nonces.
    #[must_use]
    pub const fn new(origin: DeviceId<N>, limits: SenderLimits, seed: u64) -> Self {
        Self {
            origin,
            limits,
            jitter: Jitter::new(seed),
            rto: Rto::new(limits.rto),
            epochs: Vec::new(),
            flights: Vec::new(),
            refused: Vec::new(),
            journal: None,
            link_up: false,
            open: false,
            greeting: None,
            greetings_unanswered: 0,
            credit: 0,
            max_bundle: limits.max_bundle,
            in_flight_elsewhere: 0,
            more_epochs: false,
            held_back: false,
            blocked: None,
            paused_until: Millis(0),
            timeouts_in_a_row: 0,
            ask_at: Millis(0),
            turns: [0; 4],
            counters: SenderCounters {
                hellos: 0,
                published: 0,
                timed_out: 0,
                rejected: 0,
                from_the_future: 0,
                refused: 0,
            },
        }
    }

    /// Takes in an epoch that the disk holds, or that begins now. Oldest first: the order within a
    /// lane is the order of sending. On a live connection a new Hello goes out before its records.
    ///
    /// # Errors
    /// [`DeliveryError::TooManyEpochs`]: keep it, call [`Sender::set_more_epochs`], and add it when
    /// older ones are released. [`DeliveryError::Backwards`] if it is held already.
    pub fn add_epoch(&mut self, info: HeldEpoch) -> Result<(), DeliveryError> {
        if let Some(held) = self.find(info.lane, info.epoch) {
            let from = held.info.next;
            return Err(DeliveryError::Backwards {
                epoch: info.epoch,
                from,
                to: info.next,
            });
        }
        if self.epochs.is_full() {
            // A drained sender greets nobody, and would keep what is over for ever.
            self.drop_finished();
        }
        self.epochs
            .push(Held::new(info))
            .map_err(|_| DeliveryError::TooManyEpochs)?;
        if self.link_up {
            self.greet();
        }
        Ok(())
    }

    /// Whether the disk holds epochs that [`Sender::add_epoch`] had no room for: the Hello then
    /// does not claim to be complete, and nothing is taken for abandoned.
    pub const fn set_more_epochs(&mut self, more: bool) {
        self.more_epochs = more;
    }

    /// Everything below `next` of the epoch is durable now (or stored, in a RAM epoch).
    ///
    /// # Errors
    /// [`DeliveryError::Unknown`], or [`DeliveryError::Backwards`] if `next` falls or the epoch
    /// has ended.
    pub fn stored(&mut self, lane: Lane, epoch: Epoch, next: u64) -> Result<(), DeliveryError> {
        let held = self.find_mut(lane, epoch)?;
        let from = held.info.next;
        if next < from || held.info.ended {
            return Err(DeliveryError::Backwards {
                epoch,
                from,
                to: next,
            });
        }
        held.info.next = next;
        Ok(())
    }

    /// The epoch's writer ended; `named_in` as in [`HeldEpoch::end_named_in`].
    ///
    /// # Errors
    /// [`DeliveryError::Unknown`].
    pub fn end_epoch(
        &mut self,
        lane: Lane,
        epoch: Epoch,
        named_in: Option<super::RecordRef>,
    ) -> Result<(), DeliveryError> {
        let held = self.find_mut(lane, epoch)?;
        held.info.ended = true;
        held.info.end_named_in = named_in;
        held.live_from = u64::MAX;
        Ok(())
    }

    /// `range` is no longer on the disk, or not readable: evicted or damaged, and a gap names it.
    /// Also the answer to a Publish whose first records are not there; no further gap is due then
    /// if one exists already.
    ///
    /// # Errors
    /// [`DeliveryError::Unknown`]. [`DeliveryError::TooManyHoles`]: the oldest records go first now,
    /// and the command comes again when some of them landed; name no gap twice.
    pub fn absent(
        &mut self,
        lane: Lane,
        epoch: Epoch,
        range: SeqRange,
    ) -> Result<(), DeliveryError> {
        let held = self.find_mut(lane, epoch)?;
        if !held.set_absent(range) {
            held.oldest_first = true;
            self.blocked = Some((lane, epoch, held.received));
            return Err(DeliveryError::TooManyHoles { lane, epoch });
        }
        self.land(None);
        Ok(())
    }

    /// The answer to Publish: `range` went out in a publish of `bytes`.
    ///
    /// # Errors
    /// [`DeliveryError::Unknown`]. A range that was not asked for counts as asked for.
    pub fn sent(
        &mut self,
        lane: Lane,
        epoch: Epoch,
        range: SeqRange,
        bytes: u32,
        now: Millis,
    ) -> Result<(), DeliveryError> {
        let wait_ms = self.jitter.lengthen(self.rto.wait_ms());
        let held = self.find_mut(lane, epoch)?;
        let fresh = range.first >= held.sent_high;
        held.sent_high = held.sent_high.max(range.next);
        let flight = Flight {
            lane,
            epoch,
            range,
            bytes,
            sent_at: now,
            due: now.plus(wait_ms),
            fresh,
        };
        // `next_command` asks for no bundle while the list is full.
        let _ = self.flights.push(flight);
        let turn = &mut self.turns[usize::from(lane.to_u8())];
        *turn = turn.wrapping_add(1);
        self.counters.published += 1;
        Ok(())
    }

    /// The answer to Publish when its first record alone is larger than `max_bytes`: asked for
    /// again when something in flight has landed.
    pub const fn held_back(&mut self) {
        self.held_back = true;
    }

    /// Bytes that other senders of the same connection have in flight: the credit is shared.
    pub const fn set_in_flight_elsewhere(&mut self, bytes: u32) {
        self.in_flight_elsewhere = bytes;
    }

    /// Takes in what happened.
    ///
    /// # Errors
    /// [`DeliveryError`] if a message was refused; it is counted.
    pub fn handle(&mut self, input: Input<'_, N>, now: Millis) -> Result<(), DeliveryError> {
        let result = match input {
            Input::LinkUp => {
                self.link_down();
                self.link_up = true;
                self.greet();
                Ok(())
            }
            Input::LinkDown => {
                self.link_down();
                Ok(())
            }
            Input::Welcome(welcome) => self.welcome(welcome, now),
            Input::Ack(ack) => self.ack(ack, now),
            Input::Reject(reject) => self.reject(reject, now),
            Input::Tick => {
                self.tick(now);
                Ok(())
            }
        };
        match result {
            Err(DeliveryError::AckFromTheFuture { .. }) => self.counters.from_the_future += 1,
            Err(_) => self.counters.refused += 1,
            Ok(()) => {}
        }
        result
    }

    /// What to do next; `None` until something happens or [`Sender::next_wakeup`] comes.
    pub fn next_command(&mut self, now: Millis) -> Option<Command> {
        if let Some(release) = self.next_release() {
            return Some(release);
        }
        if !self.refused.is_empty() {
            let (lane, epoch, range, reason) = self.refused.remove(0);
            return Some(Command::Refused {
                lane,
                epoch,
                range,
                reason,
            });
        }
        if !self.link_up {
            return None;
        }
        if let Some(page) = self.next_hello_page(now) {
            return Some(Command::SendHello { page });
        }
        self.next_publish(now)
    }

    /// When to call with [`Input::Tick`] at the latest.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Millis> {
        if !self.link_up {
            return None;
        }
        let greeting = self.greeting.and_then(|greeting| greeting.due);
        let asking = (self.open && self.greeting.is_none()).then_some(self.ask_at);
        let paused = (self.paused_until > Millis(0)).then_some(self.paused_until);
        let flights = self.flights.iter().map(|flight| flight.due);
        flights.chain(greeting).chain(asking).chain(paused).min()
    }

    /// The page of the running Hello.
    #[must_use]
    pub fn hello(&self, page: u8, facts: &HelloFacts) -> Hello<N> {
        let from = usize::from(page) * MAX_HELLO_STREAMS;
        let streams = self.epochs.iter().skip(from).take(MAX_HELLO_STREAMS);
        Hello {
            version_min: PROTOCOL,
            version_max: PROTOCOL,
            origin: self.origin.clone(),
            nonce: self.greeting.map_or(0, |greeting| greeting.nonce),
            page,
            pages: self.greeting.map_or(1, |greeting| greeting.pages),
            complete: !self.more_epochs && self.epochs.len() <= Self::MAX_LISTED,
            boot: facts.boot,
            uptime_ms: facts.uptime_ms,
            wall: facts.wall,
            max_bundle: facts.max_down_bytes,
            streams: streams.map(Held::hello).collect(),
        }
    }

    /// Streams that fit into the pages of a Hello.
    const MAX_LISTED: usize = MAX_PAGES as usize * MAX_HELLO_STREAMS;

    /// Whether every record of `range` is durable at the collector: evict these before others.
    #[must_use]
    pub fn is_received(&self, lane: Lane, epoch: Epoch, range: SeqRange) -> bool {
        self.find(lane, epoch)
            .is_some_and(|held| held.is_received(range))
    }

    /// Whether every record of `range` may be forgotten, wherever it stands.
    #[must_use]
    pub fn is_committed(&self, lane: Lane, epoch: Epoch, range: SeqRange) -> bool {
        self.find(lane, epoch)
            .is_some_and(|held| held.is_committed(range))
    }

    /// Whether all that is stored was received and committed.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.epochs
            .iter()
            .all(|held| held.committed >= held.info.next)
    }

    /// Whether all that is stored was received: nothing is left to send.
    #[must_use]
    pub fn is_delivered(&self) -> bool {
        self.epochs
            .iter()
            .all(|held| held.received >= held.info.next)
    }

    /// Bytes in flight.
    #[must_use]
    pub fn in_flight_bytes(&self) -> u32 {
        self.flights
            .iter()
            .fold(0, |sum, flight| sum.saturating_add(flight.bytes))
    }

    /// Records stored that are not committed.
    #[must_use]
    pub fn backlog_records(&self) -> u64 {
        self.epochs
            .iter()
            .map(|held| held.info.next - held.committed)
            .sum()
    }

    /// Whether a Welcome was completed on this connection.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.open
    }

    /// The credit as last told.
    #[must_use]
    pub const fn credit(&self) -> u32 {
        self.credit
    }

    /// The counters.
    #[must_use]
    pub const fn counters(&self) -> SenderCounters {
        self.counters
    }

    fn link_down(&mut self) {
        self.link_up = false;
        self.open = false;
        self.greeting = None;
        self.greetings_unanswered = 0;
        self.flights.clear();
        self.held_back = false;
        self.blocked = None;
        self.paused_until = Millis(0);
        self.timeouts_in_a_row = 0;
        self.rto.alive();
        for held in &mut self.epochs {
            held.forget_connection();
        }
    }

    /// Begins a Hello; a running one is overtaken.
    fn greet(&mut self) {
        self.drop_finished();
        let pages = self.epochs.len().div_ceil(MAX_HELLO_STREAMS).max(1);
        let pages = u8::try_from(pages).unwrap_or(MAX_PAGES).min(MAX_PAGES);
        let nonce = self.jitter.bits();
        self.greeting = Some(Greeting {
            nonce,
            next_page: 0,
            pages,
            due: None,
            seen: 0,
        });
        self.counters.hellos += 1;
    }

    fn next_hello_page(&mut self, now: Millis) -> Option<u8> {
        let greeting = self.greeting.as_mut()?;
        if greeting.next_page >= greeting.pages {
            return None;
        }
        let page = greeting.next_page;
        greeting.next_page += 1;
        if greeting.next_page == greeting.pages {
            let doubled = self.limits.welcome_wait_ms << self.greetings_unanswered.min(16);
            let wait_ms = doubled.min(self.limits.welcome_wait_max_ms);
            greeting.due = Some(now.plus(self.jitter.lengthen(wait_ms)));
        }
        Some(page)
    }

    fn tick(&mut self, now: Millis) {
        if !self.link_up {
            return;
        }
        if self.paused_until <= now {
            self.paused_until = Millis(0);
        }
        let before = self.flights.len();
        self.flights.retain(|flight| flight.due > now);
        let late = before - self.flights.len();
        if late > 0 {
            self.counters.timed_out += late as u64;
            self.rto.back_off();
            self.held_back = false;
            self.timeouts_in_a_row += 1;
            if self.timeouts_in_a_row >= TIMEOUTS_BEFORE_HELLO && self.greeting.is_none() {
                self.timeouts_in_a_row = 0;
                self.greet();
            }
        }
        match self.greeting {
            Some(greeting) if greeting.due.is_some_and(|due| due <= now) => {
                self.greetings_unanswered += 1;
                self.greet();
            }
            Some(_) => {}
            None if self.open && self.ask_at <= now => {
                if self.credit == 0 || !self.is_drained() {
                    self.greet();
                } else {
                    self.ask_at = now.plus(self.jitter.lengthen(self.limits.quiet_ms));
                }
            }
            None => {}
        }
    }

    fn next_release(&mut self) -> Option<Command> {
        for held in &mut self.epochs {
            let through = if sabotage::is(Bug::ReleaseBeforeAck) {
                held.received
            } else {
                held.committed
            };
            if held.released < through {
                held.released = through;
                let (lane, epoch) = (held.info.lane, held.info.epoch);
                return Some(Command::Release {
                    lane,
                    epoch,
                    through,
                });
            }
        }
        None
    }

    /// Forgets epochs that are over, released, and whose end the collector has.
    fn drop_finished(&mut self) {
        let mut at = 0;
        while let Some(held) = self.epochs.get(at) {
            let end_is_safe = held.info.end_named_in.is_none_or(|record| {
                let range = SeqRange::new(record.seq, record.seq + 1);
                self.find(record.lane, record.epoch)
                    .is_none_or(|other| other.is_committed(range))
            });
            if held.is_finished() && end_is_safe {
                self.epochs.remove(at);
            } else {
                at += 1;
            }
        }
    }

    fn find(&self, lane: Lane, epoch: Epoch) -> Option<&Held> {
        self.epochs
            .iter()
            .find(|held| held.info.lane == lane && held.info.epoch == epoch)
    }

    fn find_mut(&mut self, lane: Lane, epoch: Epoch) -> Result<&mut Held, DeliveryError> {
        self.epochs
            .iter_mut()
            .find(|held| held.info.lane == lane && held.info.epoch == epoch)
            .ok_or(DeliveryError::Unknown { lane, epoch })
    }
}
