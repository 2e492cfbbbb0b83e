//! The epochs that a sender holds, oldest first within a lane.

use heapless::Vec;

use crate::delivery::command::{Command, DeliveryError, HeldEpoch};
use crate::delivery::held::Held;
use crate::ids::{Epoch, Lane, SeqRange};
use crate::message::Mark;
use crate::sabotage::{self, Bug};

/// At most `EPOCHS` epochs.
#[derive(Debug, Clone)]
pub(super) struct Epochs<const EPOCHS: usize>(Vec<Held, EPOCHS>);

impl<const EPOCHS: usize> Epochs<EPOCHS> {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds an epoch that is not held yet; retired ones make place for it.
    ///
    /// # Errors
    /// [`DeliveryError::Backwards`] if it is held, [`DeliveryError::TooManyEpochs`].
    pub(super) fn add(&mut self, info: HeldEpoch) -> Result<(), DeliveryError> {
        if let Some(held) = self.get(info.lane, info.epoch) {
            return Err(DeliveryError::Backwards {
                epoch: info.epoch,
                from: held.info.next,
                to: info.next,
            });
        }
        if self.0.is_full() {
            self.retire();
        }
        self.0
            .push(Held::new(info))
            .map_err(|_| DeliveryError::TooManyEpochs)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Held> {
        self.0.iter()
    }

    pub(super) fn get(&self, lane: Lane, epoch: Epoch) -> Option<&Held> {
        self.0
            .iter()
            .find(|held| held.info.lane == lane && held.info.epoch == epoch)
    }

    /// # Errors
    /// [`DeliveryError::Unknown`].
    pub(super) fn get_mut(&mut self, lane: Lane, epoch: Epoch) -> Result<&mut Held, DeliveryError> {
        self.0
            .iter_mut()
            .find(|held| held.info.lane == lane && held.info.epoch == epoch)
            .ok_or(DeliveryError::Unknown { lane, epoch })
    }

    pub(super) fn remove(&mut self, lane: Lane, epoch: Epoch) {
        self.0
            .retain(|held| held.info.lane != lane || held.info.epoch != epoch);
    }

    /// Takes in a mark. `relayed`: other gateways may have brought what it reaches beyond.
    ///
    /// # Errors
    /// [`DeliveryError::Unknown`], or [`DeliveryError::AckFromTheFuture`].
    pub(super) fn apply(&mut self, mark: &Mark, relayed: bool) -> Result<(), DeliveryError> {
        let (lane, epoch) = (mark.lane, mark.epoch);
        let held = self.get_mut(lane, epoch)?;
        let before = held.received;
        if !held.apply(mark, relayed) {
            return Err(DeliveryError::AckFromTheFuture {
                lane,
                epoch,
                acked: mark.ranges.last().map_or(mark.received, |range| range.next),
                stored: held.info.next,
            });
        }
        if held.received > before {
            held.oldest_first = false;
        }
        Ok(())
    }

    /// Takes in the marks of a Welcome, which may lower `received`.
    ///
    /// # Errors
    /// As [`Self::apply`], of the first mark that is refused; the others count.
    pub(super) fn welcome(&mut self, marks: &[Mark], relayed: bool) -> Result<(), DeliveryError> {
        let mut result = Ok(());
        for mark in marks {
            if let Ok(held) = self.get_mut(mark.lane, mark.epoch) {
                held.lower_received(mark.received);
            }
            result = result.and(self.apply(mark, relayed));
        }
        result
    }

    /// The Welcome is whole: all epochs that the Hello listed may be sent.
    pub(super) fn open(&mut self) {
        for held in &mut self.0 {
            held.open();
        }
    }

    /// The connection is gone.
    pub(super) fn forget_connection(&mut self) {
        for held in &mut self.0 {
            held.forget_connection();
        }
    }

    /// The receiver's journal is another one.
    pub(super) fn forget_marks(&mut self) {
        for held in &mut self.0 {
            held.forget_marks();
        }
    }

    /// Records that may be forgotten, and were not released before.
    pub(super) fn next_release(&mut self) -> Option<Command> {
        for held in &mut self.0 {
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

    /// Drops epochs that have ended and are released, and whose end the collector has.
    pub(super) fn retire(&mut self) {
        let mut at = 0;
        while let Some(held) = self.0.get(at) {
            let end_is_safe = held.info.end_named_in.is_none_or(|record| {
                let range = SeqRange::new(record.seq, record.seq + 1);
                self.get(record.lane, record.epoch)
                    .is_none_or(|other| other.is_committed(range))
            });
            if held.is_finished() && end_is_safe {
                self.0.remove(at);
            } else {
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::command::RecordRef;
    use crate::time::Base;

    fn info(epoch: u64, next: u64, ended: bool) -> HeldEpoch {
        HeldEpoch {
            lane: Lane::Normal,
            epoch: Epoch::new(epoch),
            first: 0,
            next,
            ram: false,
            ended,
            boot: 1,
            base: Base::Wall,
            end_named_in: None,
            dated_by: None,
        }
    }

    fn mark(epoch: u64, committed: u64) -> Mark {
        Mark {
            lane: Lane::Normal,
            epoch: Epoch::new(epoch),
            received: committed,
            committed,
            ranges: Vec::new(),
        }
    }

    #[test]
    fn a_full_set_takes_a_new_epoch_in_place_of_one_that_retires() {
        let mut epochs = Epochs::<2>::new();
        epochs.add(info(1, 3, true)).unwrap();
        epochs.add(info(2, 3, false)).unwrap();
        assert_eq!(
            epochs.add(info(3, 0, false)),
            Err(DeliveryError::TooManyEpochs)
        );
        epochs.apply(&mark(1, 3), false).unwrap();
        assert!(epochs.next_release().is_some() && epochs.next_release().is_none());
        epochs.add(info(3, 0, false)).unwrap();
        let held: std::vec::Vec<_> = epochs.iter().map(|held| held.info.epoch.get()).collect();
        assert_eq!(held, [2, 3]);
    }

    #[test]
    fn an_epoch_retires_only_when_the_record_of_its_end_is_committed() {
        let mut epochs = Epochs::<2>::new();
        let end = RecordRef {
            lane: Lane::Normal,
            epoch: Epoch::new(2),
            seq: 0,
        };
        let old = HeldEpoch {
            end_named_in: Some(end),
            ..info(1, 3, true)
        };
        epochs.add(old).unwrap();
        epochs.add(info(2, 1, false)).unwrap();
        epochs.apply(&mark(1, 3), false).unwrap();
        while epochs.next_release().is_some() {}
        epochs.retire();
        assert_eq!(epochs.len(), 2);
        epochs.apply(&mark(2, 1), false).unwrap();
        epochs.retire();
        assert_eq!(epochs.len(), 1);
    }
}
