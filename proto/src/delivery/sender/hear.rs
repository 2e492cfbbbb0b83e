//! What the sender learns from Welcome, Ack and Reject.

use super::Sender;
use crate::delivery::command::DeliveryError;
use crate::ids::{Epoch, Lane, SeqRange};
use crate::message::{Ack, MAX_PAGES, Mark, PROTOCOL, Reject, RejectReason, Welcome};
use crate::time::Millis;

impl<const EPOCHS: usize, const FLIGHTS: usize, const N: usize> Sender<EPOCHS, FLIGHTS, N> {
    pub(super) fn welcome(
        &mut self,
        welcome: &Welcome<N>,
        now: Millis,
    ) -> Result<(), DeliveryError> {
        if welcome.origin != self.origin {
            return Err(DeliveryError::Foreign);
        }
        if welcome.version != PROTOCOL {
            return Err(DeliveryError::Version(welcome.version));
        }
        let Some(mut greeting) = self
            .greeting
            .filter(|greeting| greeting.nonce == welcome.nonce)
        else {
            return Err(DeliveryError::StaleWelcome);
        };
        if greeting.next_page < greeting.pages {
            return Err(DeliveryError::StaleWelcome);
        }
        if self.journal != Some(welcome.journal) {
            self.journal = Some(welcome.journal);
            self.flights.clear();
            for held in &mut self.epochs {
                held.forget_marks();
            }
        }
        self.heard(welcome.credit, now);
        self.max_bundle = self.limits.max_bundle.min(welcome.max_bundle);
        let mut result = Ok(());
        for mark in &welcome.marks {
            if let Ok(held) = self.find_mut(mark.lane, mark.epoch) {
                held.lower_received(mark.received);
            }
            result = result.and(self.apply(mark));
        }
        self.land(None);
        greeting.seen |= 1u64.wrapping_shl(u32::from(welcome.page));
        let wanted = u64::MAX >> (64 - u32::from(welcome.pages.clamp(1, MAX_PAGES)));
        if greeting.seen & wanted == wanted {
            self.greeting = None;
            self.greetings_unanswered = 0;
            self.timeouts_in_a_row = 0;
            self.open_all();
        } else {
            self.greeting = Some(greeting);
        }
        result
    }

    /// The Welcome is whole: what it named may be sent.
    fn open_all(&mut self) {
        self.open = true;
        for held in &mut self.epochs {
            if !held.greeted {
                held.greeted = true;
                held.live_from = if held.info.ended {
                    u64::MAX
                } else {
                    held.info.next
                };
            }
        }
    }

    pub(super) fn ack(&mut self, ack: &Ack<N>, now: Millis) -> Result<(), DeliveryError> {
        if ack.origin != self.origin {
            return Err(DeliveryError::Foreign);
        }
        if self.journal != Some(ack.journal) {
            return Err(DeliveryError::OtherJournal);
        }
        self.heard(ack.credit, now);
        let mut result = Ok(());
        for mark in &ack.marks {
            result = result.and(self.apply(mark));
        }
        self.land(Some(now));
        result
    }

    fn apply(&mut self, mark: &Mark) -> Result<(), DeliveryError> {
        let (lane, epoch) = (mark.lane, mark.epoch);
        let held = self.find_mut(lane, epoch)?;
        let before = held.received;
        if !held.apply(mark) {
            let acked = mark.ranges.last().map_or(mark.received, |range| range.next);
            let stored = held.info.next;
            return Err(DeliveryError::AckFromTheFuture {
                lane,
                epoch,
                acked,
                stored,
            });
        }
        if held.received > before {
            held.oldest_first = false;
        }
        Ok(())
    }

    /// A down message came: the collector lives, and tells its credit.
    fn heard(&mut self, credit: u32, now: Millis) {
        self.credit = credit;
        let wait_ms = if credit == 0 {
            self.limits.probe_ms
        } else {
            self.limits.quiet_ms
        };
        self.ask_at = now.plus(self.jitter.lengthen(wait_ms));
    }

    /// Takes out of flight what needs no sending any more; measures it when `acked_at` is known.
    pub(super) fn land(&mut self, acked_at: Option<Millis>) {
        let mut at = 0;
        while let Some(&flight) = self.flights.get(at) {
            let landed = self
                .find(flight.lane, flight.epoch)
                .is_none_or(|held| held.is_received(flight.range));
            if !landed {
                at += 1;
                continue;
            }
            self.flights.swap_remove(at);
            self.held_back = false;
            if let Some(now) = acked_at {
                self.timeouts_in_a_row = 0;
                if flight.fresh {
                    self.rto.measured(now.since(flight.sent_at));
                } else {
                    self.rto.alive();
                }
            }
        }
    }

    pub(super) fn reject(&mut self, reject: &Reject<N>, now: Millis) -> Result<(), DeliveryError> {
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
        let held = self.find_mut(lane, epoch)?;
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
            self.paused_until = now.plus(self.jitter.lengthen(self.limits.pause_ms));
            if reason == RejectReason::NotInHello && self.link_up {
                self.greet();
            }
        }
        self.flights.retain(|flight| {
            let apart = flight.range.next <= range.first || range.next <= flight.range.first;
            flight.lane != lane || flight.epoch != epoch || apart
        });
        self.held_back = false;
        Ok(())
    }

    /// Takes out what the collector will never take, once for each record.
    fn refuse(
        &mut self,
        lane: Lane,
        epoch: Epoch,
        range: SeqRange,
        reason: RejectReason,
    ) -> Result<(), DeliveryError> {
        let mut from = range.first;
        loop {
            let within = SeqRange::new(from, range.next);
            let held = self.find_mut(lane, epoch)?;
            let Some(part) = held.unsent(within, core::iter::empty()) else {
                return Ok(());
            };
            if self.refused.push((lane, epoch, part, reason)).is_err() {
                return Ok(());
            }
            let held = self.find_mut(lane, epoch)?;
            if !held.settle(part) {
                // It is refused again when older ones landed.
                self.refused.pop();
                return Ok(());
            }
            from = part.next;
        }
    }
}
