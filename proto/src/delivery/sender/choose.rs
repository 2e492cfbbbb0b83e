//! Which records the sender publishes next.

use super::{BACKLOG_TURN, MIN_ROOM_BYTES, Sender};
use crate::delivery::command::Command;
use crate::delivery::held::Held;
use crate::ids::{Epoch, Lane, SeqRange};
use crate::time::Millis;

impl<const EPOCHS: usize, const FLIGHTS: usize, const N: usize> Sender<EPOCHS, FLIGHTS, N> {
    pub(super) fn next_publish(&self, now: Millis) -> Option<Command> {
        if !self.open || self.paused_until > now || self.flights.is_full() || self.credit == 0 {
            return None;
        }
        let max_bytes = self.room()?;
        Lane::AGENT
            .iter()
            .chain(&[Lane::Plain])
            .find_map(|&lane| self.publish_of(lane, max_bytes))
    }

    /// Most bytes that the next bundle may have; `None`: wait for an ack.
    fn room(&self) -> Option<u32> {
        let in_flight = self
            .in_flight_bytes()
            .saturating_add(self.in_flight_elsewhere);
        if in_flight == 0 {
            // One bundle always goes, or a record larger than the credit would never go.
            return Some(self.max_bundle);
        }
        let room = self.credit.saturating_sub(in_flight);
        (!self.held_back && room >= MIN_ROOM_BYTES).then(|| room.min(self.max_bundle))
    }

    fn publish_of(&self, lane: Lane, max_bytes: u32) -> Option<Command> {
        let live = |this: &Self| this.pick(lane, |held| SeqRange::new(held.live_from(), u64::MAX));
        let backlog = |this: &Self| this.pick(lane, |held| SeqRange::new(0, held.live_from()));
        let turn = self.turns[usize::from(lane.to_u8())];
        let (epoch, range) = if turn % BACKLOG_TURN == BACKLOG_TURN - 1 {
            backlog(self).or_else(|| live(self))?
        } else {
            live(self).or_else(|| backlog(self))?
        };
        Some(Command::Publish {
            lane,
            epoch,
            first: range.first,
            limit: range.next,
            max_bytes,
        })
    }

    /// Whether nothing of it can be asked for until something in flight has landed.
    fn is_blocked(&self, held: &Held) -> bool {
        let in_flight = self
            .flights
            .iter()
            .any(|flight| flight.lane == held.info.lane && flight.epoch == held.info.epoch);
        in_flight && self.blocked == Some((held.info.lane, held.info.epoch, held.received))
    }

    /// The first unsent stretch of a lane's epochs, oldest first, within what `part` says of each.
    fn pick(&self, lane: Lane, part: impl Fn(&Held) -> SeqRange) -> Option<(Epoch, SeqRange)> {
        self.epochs
            .iter()
            .filter(|held| held.greeted && held.info.lane == lane && !self.is_blocked(held))
            .find_map(|held| {
                let epoch = held.info.epoch;
                let flights = self
                    .flights
                    .iter()
                    .filter(move |flight| flight.lane == lane && flight.epoch == epoch)
                    .map(|flight| flight.range);
                held.unsent(part(held), flights).map(|range| (epoch, range))
            })
    }
}
