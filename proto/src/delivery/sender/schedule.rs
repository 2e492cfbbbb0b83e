//! Which records go out next.
//!
//! Lanes by urgency; within a lane the *live* records (stored since the Welcome) before the *backlog*,
//! but every [`BACKLOG_TURN`]-th publish takes backlog first.

use super::BACKLOG_TURN;
use super::epochs::Epochs;
use super::flights::Flights;
use crate::delivery::held::Held;
use crate::ids::{Epoch, Lane, SeqRange};

/// Records of one stream, the first of which go out next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) lane: Lane,
    pub(super) epoch: Epoch,
    pub(super) range: SeqRange,
}

/// The order of sending.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    /// Publishes so far, per lane.
    turns: [u32; 4],
    /// A stream at the bound of its holes, and its `received` mark at that moment: it waits for a higher
    /// mark while something of it is in flight.
    blocked: Option<(Lane, Epoch, u64)>,
}

impl Schedule {
    pub(super) const fn new() -> Self {
        Self {
            turns: [0; 4],
            blocked: None,
        }
    }

    /// Counts a publish.
    pub(super) fn sent(&mut self, lane: Lane) {
        let turn = &mut self.turns[usize::from(lane.to_u8())];
        *turn = turn.wrapping_add(1);
    }

    /// Lets a stream wait until its `received` mark passes this one.
    pub(super) const fn block(&mut self, lane: Lane, epoch: Epoch, received: u64) {
        self.blocked = Some((lane, epoch, received));
    }

    /// The connection is gone: no stream waits.
    pub(super) const fn reset(&mut self) {
        self.blocked = None;
    }

    /// The next records to send, if any may be sent.
    pub(super) fn next<const EPOCHS: usize, const FLIGHTS: usize>(
        &self,
        epochs: &Epochs<EPOCHS>,
        flights: &Flights<FLIGHTS>,
    ) -> Option<Turn> {
        let pick = |lane, part: fn(&Held) -> SeqRange| self.pick((epochs, flights), lane, part);
        let live = |held: &Held| SeqRange::new(held.live_from(), u64::MAX);
        let backlog = |held: &Held| SeqRange::new(0, held.live_from());
        Lane::AGENT.iter().chain(&[Lane::Plain]).find_map(|&lane| {
            let turn = self.turns[usize::from(lane.to_u8())];
            if turn % BACKLOG_TURN == BACKLOG_TURN - 1 {
                pick(lane, backlog).or_else(|| pick(lane, live))
            } else {
                pick(lane, live).or_else(|| pick(lane, backlog))
            }
        })
    }

    /// The first unsent stretch of a lane's epochs, oldest first, within `part` of each.
    fn pick<const EPOCHS: usize, const FLIGHTS: usize>(
        &self,
        (epochs, flights): (&Epochs<EPOCHS>, &Flights<FLIGHTS>),
        lane: Lane,
        part: fn(&Held) -> SeqRange,
    ) -> Option<Turn> {
        epochs
            .iter()
            .filter(|held| held.greeted && !held.withheld && held.info.lane == lane)
            .find_map(|held| {
                let epoch = held.info.epoch;
                let in_flight = flights.ranges(lane, epoch);
                if self.blocked == Some((lane, epoch, held.received))
                    && in_flight.clone().next().is_some()
                {
                    return None;
                }
                let part = part(held);
                let range = if is_datable(epochs, held) {
                    held.unsent(part, in_flight)
                } else {
                    bases_in(epochs, held)
                        .filter(|base| part.contains(base.first))
                        .find_map(|base| held.unsent(base, in_flight.clone()))
                };
                let range = range?;
                Some(Turn { lane, epoch, range })
            })
    }
}

/// Whether the collector can date records by what it has received. A stream at the bound of its holes goes on
/// without: its records are then kept, but in quarantine.
fn is_datable<const EPOCHS: usize>(epochs: &Epochs<EPOCHS>, held: &Held) -> bool {
    let Some(base) = held.info.dated_by.filter(|_| !held.oldest_first) else {
        return true;
    };
    let one = SeqRange::new(base.seq, base.seq + 1);
    epochs
        .get(base.lane, base.epoch)
        .is_none_or(|carrier| carrier.is_received(one))
}

/// The records of a stream that date others. They need no date themselves, and must not wait for one: the
/// record that dates a boot may stand in an epoch of that boot, or two such epochs each date the other.
fn bases_in<'a, const EPOCHS: usize>(
    epochs: &'a Epochs<EPOCHS>,
    held: &'a Held,
) -> impl Iterator<Item = SeqRange> + 'a {
    let bases = epochs.iter().filter_map(|other| other.info.dated_by);
    bases
        .filter(|base| (base.lane, base.epoch) == (held.info.lane, held.info.epoch))
        .map(|base| SeqRange::new(base.seq, base.seq + 1))
}

#[cfg(test)]
mod tests {
    use super::super::flights::Flight;
    use super::*;
    use crate::delivery::command::HeldEpoch;
    use crate::message::Mark;
    use crate::time::{Base, Millis};
    use proptest::prelude::*;

    fn epochs(lanes: &[Lane], next: u64) -> Epochs<4> {
        let mut epochs = Epochs::new();
        for (epoch, &lane) in (1..).zip(lanes) {
            epochs
                .add(HeldEpoch {
                    lane,
                    epoch: Epoch::new(epoch),
                    first: 0,
                    next,
                    ram: false,
                    ended: false,
                    boot: 1,
                    base: Base::Wall,
                    end_named_in: None,
                    dated_by: None,
                })
                .unwrap();
        }
        epochs.open();
        epochs
    }

    fn flight(turn: Turn, next: u64) -> Flight {
        Flight {
            lane: turn.lane,
            epoch: turn.epoch,
            range: SeqRange::new(turn.range.first, next),
            bytes: 1,
            sent_at: Millis(0),
            due: Millis(1),
            fresh: true,
        }
    }

    #[test]
    fn every_fourth_publish_of_a_lane_takes_backlog_first() {
        let mut epochs = epochs(&[Lane::Normal], 5);
        epochs
            .get_mut(Lane::Normal, Epoch::new(1))
            .unwrap()
            .info
            .next = 9;
        let (mut schedule, flights) = (Schedule::new(), Flights::<4>::new());
        let mut firsts = std::vec::Vec::new();
        for _ in 0..2 * BACKLOG_TURN {
            let turn = schedule.next(&epochs, &flights).unwrap();
            firsts.push(turn.range.first);
            schedule.sent(turn.lane);
        }
        assert_eq!(firsts, [5, 5, 5, 0, 5, 5, 5, 0]);
    }

    #[test]
    fn a_blocked_stream_waits_while_something_of_it_is_in_flight() {
        let mut epochs = epochs(&[Lane::Normal], 5);
        let (mut schedule, mut flights) = (Schedule::new(), Flights::<4>::new());
        let turn = schedule.next(&epochs, &flights).unwrap();
        flights.push(flight(turn, 1));
        schedule.block(turn.lane, turn.epoch, 0);
        assert_eq!(schedule.next(&epochs, &flights), None);
        let received = Mark {
            lane: turn.lane,
            epoch: turn.epoch,
            received: 1,
            committed: 0,
            ranges: heapless::Vec::new(),
        };
        epochs.apply(&received, false).unwrap();
        assert!(schedule.next(&epochs, &flights).is_some());
    }

    #[test]
    fn records_of_an_earlier_boot_wait_for_the_record_that_dates_them() {
        let mut epochs = epochs(&[Lane::Normal, Lane::Normal], 5);
        let (schedule, flights) = (Schedule::new(), Flights::<4>::new());
        let (old, new) = (Epoch::new(1), Epoch::new(2));
        let dated_by = Some(crate::delivery::command::RecordRef {
            lane: Lane::Normal,
            epoch: new,
            seq: 2,
        });
        epochs.get_mut(Lane::Normal, old).unwrap().info.dated_by = dated_by;
        epochs.get_mut(Lane::Normal, old).unwrap().info.ended = true;
        assert_eq!(schedule.next(&epochs, &flights).unwrap().epoch, new);
        let received = |received| Mark {
            lane: Lane::Normal,
            epoch: new,
            received,
            committed: 0,
            ranges: heapless::Vec::new(),
        };
        epochs.apply(&received(2), false).unwrap();
        assert_eq!(schedule.next(&epochs, &flights).unwrap().epoch, new);
        epochs.apply(&received(3), false).unwrap();
        assert_eq!(schedule.next(&epochs, &flights).unwrap().epoch, old);
    }

    #[test]
    fn a_record_that_dates_its_own_epoch_goes_out_before_the_rest_of_it() {
        let mut epochs = epochs(&[Lane::Normal], 5);
        let (schedule, mut flights) = (Schedule::new(), Flights::<4>::new());
        let old = Epoch::new(1);
        let held = epochs.get_mut(Lane::Normal, old).unwrap();
        held.info.ended = true;
        held.info.dated_by = Some(crate::delivery::command::RecordRef {
            lane: Lane::Normal,
            epoch: old,
            seq: 3,
        });
        let turn = schedule.next(&epochs, &flights).unwrap();
        assert_eq!(turn.range, SeqRange::new(3, 4));
        flights.push(flight(turn, 4));
        assert_eq!(schedule.next(&epochs, &flights), None);
        let held = epochs.get_mut(Lane::Normal, old).unwrap();
        assert!(held.settle(SeqRange::new(3, 4)));
        let turn = schedule.next(&epochs, &flights).unwrap();
        assert_eq!(turn.range, SeqRange::new(0, 3));
    }

    proptest! {
        #[test]
        fn each_record_goes_out_once_and_the_most_urgent_lane_first(
            lens in proptest::collection::vec(1u64..4, 1..40),
        ) {
            let lanes = [Lane::Bulk, Lane::Normal, Lane::Alarm];
            let epochs = epochs(&lanes, 10);
            let (mut schedule, mut flights) = (Schedule::new(), Flights::<64>::new());
            let mut sent = std::collections::BTreeSet::new();
            let mut last = Lane::Alarm;
            for len in lens {
                let Some(turn) = schedule.next(&epochs, &flights) else { break };
                let next = turn.range.next.min(turn.range.first + len);
                prop_assert!(turn.range.first < next && next <= 10);
                for seq in turn.range.first..next {
                    prop_assert!(sent.insert((turn.epoch, seq)), "{turn:?}");
                }
                prop_assert!(last <= turn.lane, "{turn:?} after {last:?}");
                last = turn.lane;
                flights.push(flight(turn, next));
                schedule.sent(turn.lane);
            }
        }
    }
}
