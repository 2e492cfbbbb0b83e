//! Bundles in flight: published, and not yet acknowledged.

use heapless::Vec;

use crate::ids::{Epoch, Lane, SeqRange};
use crate::time::Millis;

/// A bundle in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flight {
    pub(super) lane: Lane,
    pub(super) epoch: Epoch,
    pub(super) range: SeqRange,
    /// Size of its publish.
    pub(super) bytes: u32,
    pub(super) sent_at: Millis,
    /// When it counts as lost without an ack.
    pub(super) due: Millis,
    /// No record of it was sent before on this connection: its round trip may be measured.
    pub(super) fresh: bool,
}

/// At most `FLIGHTS` bundles.
#[derive(Debug, Clone)]
pub(super) struct Flights<const FLIGHTS: usize>(Vec<Flight, FLIGHTS>);

impl<const FLIGHTS: usize> Flights<FLIGHTS> {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a bundle; one beyond the bound is not tracked, and its records are sent again.
    pub(super) fn push(&mut self, flight: Flight) {
        // The sender publishes nothing while the list is full.
        let _ = self.0.push(flight);
    }

    pub(super) fn is_full(&self) -> bool {
        self.0.is_full()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Bytes of all bundles.
    pub(super) fn bytes(&self) -> u32 {
        let bytes = self.0.iter().map(|flight| flight.bytes);
        bytes.fold(0, u32::saturating_add)
    }

    /// The ranges of one stream, in any order.
    pub(super) fn ranges(
        &self,
        lane: Lane,
        epoch: Epoch,
    ) -> impl Iterator<Item = SeqRange> + Clone + '_ {
        self.0
            .iter()
            .filter(move |flight| flight.lane == lane && flight.epoch == epoch)
            .map(|flight| flight.range)
    }

    /// When the next bundle counts as lost.
    pub(super) fn next_due(&self) -> Option<Millis> {
        self.0.iter().map(|flight| flight.due).min()
    }

    /// Takes out the bundles that are due; returns how many they were.
    pub(super) fn take_late(&mut self, now: Millis) -> usize {
        let before = self.0.len();
        self.0.retain(|flight| flight.due > now);
        before - self.0.len()
    }

    /// Takes out a bundle that need not be sent again, if there is one.
    pub(super) fn take_landed(&mut self, has_landed: impl Fn(&Flight) -> bool) -> Option<Flight> {
        let at = self.0.iter().position(has_landed)?;
        Some(self.0.swap_remove(at))
    }

    /// Takes out the bundles that hold records of `range`.
    pub(super) fn remove(&mut self, lane: Lane, epoch: Epoch, range: SeqRange) {
        self.0.retain(|flight| {
            let apart = flight.range.next <= range.first || range.next <= flight.range.first;
            flight.lane != lane || flight.epoch != epoch || apart
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: Epoch = Epoch::new(1);

    fn flight(first: u64, next: u64, due: u64) -> Flight {
        Flight {
            lane: Lane::Normal,
            epoch: EPOCH,
            range: SeqRange::new(first, next),
            bytes: 1_000,
            sent_at: Millis(0),
            due: Millis(due),
            fresh: true,
        }
    }

    fn flights() -> Flights<3> {
        let mut flights = Flights::new();
        for (first, due) in [(0, 30), (2, 10), (4, 20)] {
            flights.push(flight(first, first + 2, due));
        }
        flights
    }

    #[test]
    fn a_bundle_is_late_from_its_due_time_on() {
        let mut flights = flights();
        assert!(flights.is_full());
        assert_eq!(flights.next_due(), Some(Millis(10)));
        assert_eq!(flights.take_late(Millis(9)), 0);
        assert_eq!(flights.take_late(Millis(20)), 2);
        assert_eq!(flights.next_due(), Some(Millis(30)));
        assert_eq!(flights.bytes(), 1_000);
    }

    #[test]
    fn landed_bundles_come_out_one_by_one_and_a_rejected_record_takes_its_bundle_along() {
        let mut flights = flights();
        let below_four = |flight: &Flight| flight.range.next <= 4;
        assert_eq!(flights.take_landed(below_four), Some(flight(0, 2, 30)));
        assert_eq!(flights.take_landed(below_four), Some(flight(2, 4, 10)));
        assert_eq!(flights.take_landed(below_four), None);
        flights.remove(Lane::Alarm, EPOCH, SeqRange::new(0, 9));
        flights.remove(Lane::Normal, EPOCH, SeqRange::new(2, 4));
        flights.remove(Lane::Normal, EPOCH, SeqRange::new(6, 9));
        assert_eq!(flights.ranges(Lane::Normal, EPOCH).count(), 1);
        flights.remove(Lane::Normal, EPOCH, SeqRange::new(5, 6));
        assert_eq!(flights.ranges(Lane::Normal, EPOCH).count(), 0);
    }
}
