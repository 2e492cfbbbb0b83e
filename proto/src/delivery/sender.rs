//! Decides which stored records go out, and which may be forgotten. One for each origin.
//!
//! The shell owns the disk and the link. It reports to the sender what is stored, passes it every down
//! message, and carries out its commands; it keeps no delivery state of its own.
//!
//! The sender is the only place where these machines meet:
//!
//! | module | holds | decides |
//! |---|---|---|
//! | `epochs` | what is stored, received, committed, per epoch | what may be released, and which epochs retire |
//! | `flights` | bundles in flight | which of them are late or have landed |
//! | `greeter` | the running Hello | when to repeat it, and when its Welcome is whole |
//! | `window` | credit, bundle size, pause | how many bytes the next bundle may have |
//! | `schedule` | turns of lanes | which records go next |
//!
//! Order of sending: lanes by urgency; within a lane what is *live* (stored since the Welcome)
//! before the *backlog* (oldest epoch first), but every [`BACKLOG_TURN`]-th publish takes backlog
//! first, so that neither starves. With more than 8 holes in a stream the oldest records go first.

mod epochs;
mod flights;
mod greeter;
mod schedule;
mod window;

use heapless::Vec;

use crate::delivery::command::{
    Command, DeliveryError, HeldEpoch, HelloFacts, Input, SenderCounters, SenderLimits,
};
use crate::delivery::held::Held;
use crate::delivery::rto::{Jitter, Rto};
use crate::ids::{DeviceId, Epoch, JournalId, Lane, MAX_DEVICE_ID_BYTES, SeqRange};
use crate::message::{
    Ack, Hello, MAX_HELLO_STREAMS, MAX_PAGES, MAX_SEQ, PROTOCOL, Reject, RejectReason, Welcome,
};
use crate::time::Millis;
use epochs::Epochs;
use flights::{Flight, Flights};
use greeter::Greeter;
use schedule::{Schedule, Turn};
use window::Window;

/// Every so many publishes of a lane, the backlog goes before live records.
pub const BACKLOG_TURN: u32 = 4;
/// A smaller rest of the credit is waited out: so small a bundle costs more than it carries.
pub const MIN_WINDOW_BYTES: u32 = 1024;
/// Most refused ranges that wait for the shell; a further reject is forgotten, and comes again.
const MAX_REFUSED: usize = 8;
/// Time-outs in a row after which a Hello goes out: the receiver may have forgotten the sender.
const TIMEOUTS_BEFORE_HELLO: u32 = 2;

/// Records that the receiver refused for good.
#[derive(Debug, Clone, Copy)]
struct Refusal {
    lane: Lane,
    epoch: Epoch,
    range: SeqRange,
    reason: RejectReason,
}

/// The sender of one origin. `EPOCHS`: most epochs held; `FLIGHTS`: most bundles in flight;
/// `N`: most bytes of the origin's id.
///
/// Per epoch: `released <= committed <= received <= stored`.
#[derive(Debug, Clone)]
pub struct Sender<const EPOCHS: usize, const FLIGHTS: usize, const N: usize = MAX_DEVICE_ID_BYTES> {
    origin: DeviceId<N>,
    limits: SenderLimits,
    jitter: Jitter,
    rto: Rto,
    epochs: Epochs<EPOCHS>,
    flights: Flights<FLIGHTS>,
    greeter: Greeter,
    window: Window,
    schedule: Schedule,
    refusals: Vec<Refusal, MAX_REFUSED>,
    journal: Option<JournalId>,
    link_up: bool,
    /// A Welcome was completed on this connection.
    open: bool,
    more_epochs: bool,
    /// The origin is a node, and other gateways may send its records too.
    relays: bool,
    timeouts_in_a_row: u32,
    /// When a Hello goes out if no message of the receiver came until then.
    ask_at: Millis,
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
            epochs: Epochs::new(),
            flights: Flights::new(),
            greeter: Greeter::new(),
            window: Window::new(limits.max_bundle),
            schedule: Schedule::new(),
            refusals: Vec::new(),
            journal: None,
            link_up: false,
            open: false,
            more_epochs: false,
            relays: false,
            timeouts_in_a_row: 0,
            ask_at: Millis(0),
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

    /// The same for a node behind this gateway. Its Hello is never complete, since another gateway may hold
    /// the rest of an epoch; for the same reason a mark may reach beyond what is stored here.
    #[must_use]
    pub const fn relaying(mut self) -> Self {
        self.relays = true;
        self
    }

    /// Takes in an epoch that the disk holds, or that begins now. Oldest first: the order within a
    /// lane is the order of sending. On a live connection a new Hello goes out before its records.
    ///
    /// # Errors
    /// [`DeliveryError::TooManyEpochs`]: keep it, call [`Sender::set_more_epochs`], and add it when
    /// older ones are released. [`DeliveryError::Backwards`] if it is held already.
    pub fn add_epoch(&mut self, info: HeldEpoch) -> Result<(), DeliveryError> {
        self.epochs.add(info)?;
        if self.link_up {
            self.greet();
        }
        Ok(())
    }

    /// Whether the disk holds epochs that [`Sender::add_epoch`] refused. The Hello then does not claim
    /// to be complete, and the receiver abandons no epoch.
    pub const fn set_more_epochs(&mut self, more: bool) {
        self.more_epochs = more;
    }

    /// Takes an epoch out: nothing of it is on the disk, or it is added again with another range, since
    /// records of a node arrive in any order. What is in flight of it counts no more; marks of it are
    /// ignored until a Hello that lists it is answered.
    pub fn remove_epoch(&mut self, lane: Lane, epoch: Epoch) {
        self.epochs.remove(lane, epoch);
        self.flights.remove(lane, epoch, SeqRange::new(0, MAX_SEQ));
        self.window.go_on();
    }

    /// Holds the records of an epoch back, or lets them go: a record of another origin dates them, and has
    /// to arrive first.
    ///
    /// # Errors
    /// [`DeliveryError::Unknown`].
    pub fn withhold(
        &mut self,
        lane: Lane,
        epoch: Epoch,
        is_withheld: bool,
    ) -> Result<(), DeliveryError> {
        self.epochs.get_mut(lane, epoch)?.withheld = is_withheld;
        Ok(())
    }

    /// Everything below `next` of the epoch is durable now (or stored, in a RAM epoch).
    ///
    /// # Errors
    /// [`DeliveryError::Unknown`], or [`DeliveryError::Backwards`] if `next` falls or the epoch
    /// has ended.
    pub fn stored(&mut self, lane: Lane, epoch: Epoch, next: u64) -> Result<(), DeliveryError> {
        let held = self.epochs.get_mut(lane, epoch)?;
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
        let held = self.epochs.get_mut(lane, epoch)?;
        held.info.ended = true;
        held.info.end_named_in = named_in;
        held.live_from = u64::MAX;
        Ok(())
    }

    /// `range` is no longer on the disk, or not readable: evicted or damaged, and a gap covers it.
    /// Also the answer to a Publish whose first records are not on the disk; it needs no further gap
    /// if one exists already.
    ///
    /// # Errors
    /// [`DeliveryError::Unknown`]. [`DeliveryError::TooManyHoles`]: the oldest records go first now,
    /// and the command comes again when some of them landed; record no gap twice.
    pub fn absent(
        &mut self,
        lane: Lane,
        epoch: Epoch,
        range: SeqRange,
    ) -> Result<(), DeliveryError> {
        let held = self.epochs.get_mut(lane, epoch)?;
        if !held.set_absent(range) {
            held.oldest_first = true;
            self.schedule.block(lane, epoch, held.received);
            return Err(DeliveryError::TooManyHoles { lane, epoch });
        }
        self.land(None);
        Ok(())
    }

    /// The answer to Publish: `range` went out in a publish of `bytes`.
    ///
    /// # Errors
    /// [`DeliveryError::Unknown`]. A range that no command asked for counts like any other.
    pub fn sent(
        &mut self,
        lane: Lane,
        epoch: Epoch,
        range: SeqRange,
        bytes: u32,
        now: Millis,
    ) -> Result<(), DeliveryError> {
        let wait_ms = self.jitter.lengthen(self.rto.wait_ms());
        let held = self.epochs.get_mut(lane, epoch)?;
        let fresh = range.first >= held.sent_high;
        held.sent_high = held.sent_high.max(range.next);
        self.flights.push(Flight {
            lane,
            epoch,
            range,
            bytes,
            sent_at: now,
            due: now.plus(wait_ms),
            fresh,
        });
        self.schedule.sent(lane);
        self.counters.published += 1;
        Ok(())
    }

    /// The answer to Publish when its first record alone is larger than `max_bytes`: the command comes
    /// again when something in flight has landed.
    pub const fn held_back(&mut self) {
        self.window.hold_back();
    }

    /// Bytes that other senders of the same connection have in flight: the credit is shared. Where they
    /// have become fewer, a record that waited for room is tried again.
    pub const fn set_in_flight_elsewhere(&mut self, bytes: u32) {
        self.window.set_in_flight_elsewhere(bytes);
    }

    /// The credit that a message for another sender of the same connection brought.
    pub const fn set_credit(&mut self, credit: u32) {
        self.window.set_credit(credit);
    }

    /// Takes in an event.
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
            Input::Welcome(welcome) => self.on_welcome(welcome, now),
            Input::Ack(ack) => self.on_ack(ack, now),
            Input::Reject(reject) => self.on_reject(reject, now),
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

    /// The next command; `None` until an event comes or [`Sender::next_wakeup`] is due.
    pub fn next_command(&mut self, now: Millis) -> Option<Command> {
        if let Some(release) = self.epochs.next_release() {
            return Some(release);
        }
        if !self.refusals.is_empty() {
            let Refusal {
                lane,
                epoch,
                range,
                reason,
            } = self.refusals.remove(0);
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
        let lengthen = |wait_ms| self.jitter.lengthen(wait_ms);
        if let Some(page) = self.greeter.next_page(now, &self.limits, lengthen) {
            return Some(Command::SendHello { page });
        }
        self.next_publish(now)
    }

    /// Latest time of the next [`Input::Tick`].
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Millis> {
        if !self.link_up {
            return None;
        }
        let asking = (self.open && !self.greeter.is_running()).then_some(self.ask_at);
        let flights = self.flights.next_due().into_iter();
        flights
            .chain(self.greeter.due())
            .chain(asking)
            .chain(self.window.pause_ends())
            .min()
    }

    /// The page of the running Hello.
    #[must_use]
    pub fn hello(&self, page: u8, facts: &HelloFacts) -> Hello<N> {
        let from = usize::from(page) * MAX_HELLO_STREAMS;
        let streams = self.epochs.iter().skip(from).take(MAX_HELLO_STREAMS);
        let (nonce, pages) = self.greeter.nonce_and_pages().unwrap_or((0, 1));
        Hello {
            version_min: PROTOCOL,
            version_max: PROTOCOL,
            origin: self.origin.clone(),
            nonce,
            page,
            pages,
            complete: !self.relays && !self.more_epochs && self.epochs.len() <= Self::MAX_LISTED,
            boot: facts.boot,
            uptime_ms: facts.uptime_ms,
            wall: facts.wall,
            max_bundle: facts.max_down_bytes,
            streams: streams.map(Held::hello).collect(),
        }
    }

    /// Most streams that the pages of a Hello list; with more the Hello is not complete.
    const MAX_LISTED: usize = MAX_PAGES as usize * MAX_HELLO_STREAMS;

    /// Whether it holds an epoch.
    #[must_use]
    pub fn holds(&self, lane: Lane, epoch: Epoch) -> bool {
        self.epochs.get(lane, epoch).is_some()
    }

    /// Whether every record of `range` is durable at the collector: evict these before others.
    #[must_use]
    pub fn is_received(&self, lane: Lane, epoch: Epoch, range: SeqRange) -> bool {
        self.epochs
            .get(lane, epoch)
            .is_some_and(|held| held.is_received(range))
    }

    /// Whether every record of `range` may be forgotten, also before older ones.
    #[must_use]
    pub fn is_committed(&self, lane: Lane, epoch: Epoch, range: SeqRange) -> bool {
        self.epochs
            .get(lane, epoch)
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
        self.flights.bytes()
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

    /// Largest bundle that both sides take, in bytes.
    #[must_use]
    pub const fn max_bundle(&self) -> u32 {
        self.window.max_bundle()
    }

    /// The latest credit of the receiver in bytes.
    #[must_use]
    pub const fn credit(&self) -> u32 {
        self.window.credit()
    }

    /// The counters.
    #[must_use]
    pub const fn counters(&self) -> SenderCounters {
        self.counters
    }

    fn link_down(&mut self) {
        self.link_up = false;
        self.open = false;
        self.greeter.reset();
        self.flights.clear();
        self.window.reset();
        self.schedule.reset();
        self.timeouts_in_a_row = 0;
        self.rto.alive();
        self.epochs.forget_connection();
    }

    /// Begins a Hello; it replaces a running one.
    fn greet(&mut self) {
        self.epochs.retire();
        let pages = self.epochs.len().div_ceil(MAX_HELLO_STREAMS).max(1);
        let pages = u8::try_from(pages).unwrap_or(MAX_PAGES).min(MAX_PAGES);
        self.greeter.begin(self.jitter.bits(), pages);
        self.counters.hellos += 1;
    }

    /// The Publish that [`Sender::next_command`] would give once nothing else is to be said. It changes
    /// nothing: a shell looks here for what it may put into the same publish as another sender's bundle.
    #[must_use]
    pub fn next_publish(&self, now: Millis) -> Option<Command> {
        if !self.link_up || !self.open || self.flights.is_full() {
            return None;
        }
        let max_bytes = self.window.bytes(self.flights.bytes(), now)?;
        let Turn { lane, epoch, range } = self.schedule.next(&self.epochs, &self.flights)?;
        Some(Command::Publish {
            lane,
            epoch,
            first: range.first,
            limit: range.next,
            max_bytes,
        })
    }

    fn tick(&mut self, now: Millis) {
        if !self.link_up {
            return;
        }
        self.window.tick(now);
        let late = self.flights.take_late(now);
        if late > 0 {
            self.counters.timed_out += late as u64;
            self.rto.back_off();
            self.window.go_on();
            self.timeouts_in_a_row += 1;
            if self.timeouts_in_a_row >= TIMEOUTS_BEFORE_HELLO && !self.greeter.is_running() {
                self.timeouts_in_a_row = 0;
                self.greet();
            }
        }
        if self.greeter.is_running() {
            if self.greeter.is_late(now) {
                self.greet();
            }
        } else if self.open && self.ask_at <= now {
            if self.window.credit() == 0 || !self.is_drained() {
                self.greet();
            } else {
                self.ask_at = now.plus(self.jitter.lengthen(self.limits.quiet_ms));
            }
        }
    }

    fn on_welcome(&mut self, welcome: &Welcome<N>, now: Millis) -> Result<(), DeliveryError> {
        if welcome.origin != self.origin {
            return Err(DeliveryError::Foreign);
        }
        if welcome.version != PROTOCOL {
            return Err(DeliveryError::Version(welcome.version));
        }
        if !self.greeter.awaits(welcome.nonce) {
            return Err(DeliveryError::StaleWelcome);
        }
        if self.journal != Some(welcome.journal) {
            self.journal = Some(welcome.journal);
            self.flights.clear();
            self.epochs.forget_marks();
        }
        self.on_credit(welcome.credit, now);
        let max_bundle = self.limits.max_bundle.min(welcome.max_bundle);
        self.window.set_max_bundle(max_bundle);
        let result = self.epochs.welcome(&welcome.marks, self.relays);
        self.land(None);
        if self.greeter.answered(welcome.page, welcome.pages) {
            self.timeouts_in_a_row = 0;
            self.open = true;
            self.epochs.open();
        }
        result
    }

    fn on_ack(&mut self, ack: &Ack<N>, now: Millis) -> Result<(), DeliveryError> {
        if ack.origin != self.origin {
            return Err(DeliveryError::Foreign);
        }
        if self.journal != Some(ack.journal) {
            return Err(DeliveryError::OtherJournal);
        }
        self.on_credit(ack.credit, now);
        let mut result = Ok(());
        for mark in &ack.marks {
            // Before its epoch is opened, a mark may answer an older Hello that began at another number.
            let is_open = self
                .epochs
                .get(mark.lane, mark.epoch)
                .is_none_or(|held| held.greeted);
            if is_open || !self.relays {
                result = result.and(self.epochs.apply(mark, self.relays));
            }
        }
        self.land(Some(now));
        result
    }

    /// A down message came: the collector lives, and grants this credit.
    fn on_credit(&mut self, credit: u32, now: Millis) {
        self.window.set_credit(credit);
        let wait_ms = if credit == 0 {
            self.limits.probe_ms
        } else {
            self.limits.quiet_ms
        };
        self.ask_at = now.plus(self.jitter.lengthen(wait_ms));
    }

    /// Takes out of flight the bundles that need not be sent again. With `acked_at`, an ack came at that
    /// time, and round trips are measured.
    fn land(&mut self, acked_at: Option<Millis>) {
        let epochs = &self.epochs;
        let has_landed = |flight: &Flight| {
            epochs
                .get(flight.lane, flight.epoch)
                .is_none_or(|held| held.is_received(flight.range))
        };
        while let Some(flight) = self.flights.take_landed(has_landed) {
            self.window.go_on();
            let Some(now) = acked_at else { continue };
            self.timeouts_in_a_row = 0;
            if flight.fresh {
                self.rto.measured(now.since(flight.sent_at));
            } else {
                self.rto.alive();
            }
        }
    }

    fn on_reject(&mut self, reject: &Reject<N>, now: Millis) -> Result<(), DeliveryError> {
        if reject.origin != self.origin {
            return Err(DeliveryError::Foreign);
        }
        self.counters.rejected += 1;
        let Reject {
            lane,
            epoch,
            range,
            reason,
            ..
        } = *reject;
        let held = self.epochs.get_mut(lane, epoch)?;
        if range.next > held.info.next {
            let stored = held.info.next;
            return Err(DeliveryError::AckFromTheFuture {
                lane,
                epoch,
                acked: range.next,
                stored,
            });
        }
        if reason.is_final() {
            self.refuse(lane, epoch, range, reason)?;
        } else {
            held.oldest_first |= reason == RejectReason::TooManyHoles;
            self.window
                .pause(now.plus(self.jitter.lengthen(self.limits.pause_ms)));
            if reason == RejectReason::NotInHello && self.link_up {
                self.greet();
            }
        }
        self.flights.remove(lane, epoch, range);
        self.window.go_on();
        Ok(())
    }

    /// Takes out records that the collector refused for good, each once.
    fn refuse(
        &mut self,
        lane: Lane,
        epoch: Epoch,
        range: SeqRange,
        reason: RejectReason,
    ) -> Result<(), DeliveryError> {
        let held = self.epochs.get_mut(lane, epoch)?;
        let mut from = range.first;
        loop {
            let within = SeqRange::new(from, range.next);
            let Some(part) = held.unsent(within, core::iter::empty()) else {
                return Ok(());
            };
            let refusal = Refusal {
                lane,
                epoch,
                range: part,
                reason,
            };
            if self.refusals.push(refusal).is_err() {
                return Ok(());
            }
            if !held.settle(part) {
                // It is refused again when older ones landed.
                self.refusals.pop();
                return Ok(());
            }
            from = part.next;
        }
    }
}

#[cfg(test)]
mod tests;
