//! Core: what the engine knows of one lane: its epochs on disk, its sources, its open group.

use std::collections::VecDeque;

use headwater_proto::frame::{self, Kind};
use headwater_proto::ids::{DeviceId, Epoch, Lane, SeqRange};
use headwater_proto::message::{self, EpochEnd, Gap, GapReason, TimeBase};
use headwater_proto::time::{Base, Millis, UnixMicros};

use super::ram::Ram;
use crate::pipeline::batcher::{Batcher, Turn};
use crate::pipeline::receipts::Owed;
use crate::pipeline::record::{
    BootBase, Cursor, Ended, Envelope, Life, MAX_BASES, MAX_ENDED, MAX_SNAPSHOT_SCHEMAS,
    MAX_SOURCES, Snapshot, SourceMark,
};

/// How long a lane stays with a base of times before rows of the other one make it begin an epoch:
/// each costs a segment. What is dated by its source in a lane where the agent has no clock yet waits
/// in memory for so long, unless that or its batch is full.
const TURN_MS: u64 = 30_000;
/// The same in the alarm lane, which does not wait long for anything.
const ALARM_TURN_MS: u64 = 1_000;

/// An epoch as the spool holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) epoch: Epoch,
    pub(super) life: Life,
    /// Position of its record 0, which may be gone.
    pub(super) base: u64,
    /// Lowest number that the spool still holds.
    pub(super) first: u64,
    /// One more than its highest durable number.
    pub(super) next: u64,
    /// All below it may be forgotten: the sender said so.
    pub(super) released: u64,
}

/// An epoch that ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Over {
    pub(super) epoch: Epoch,
    /// One more than its last number.
    pub(super) next: u64,
    /// Its writer ended it with nothing left unsynced.
    pub(super) clean: bool,
}

impl Over {
    pub(super) const fn unclean(epoch: Epoch, next: u64) -> Self {
        Self {
            epoch,
            next,
            clean: false,
        }
    }
}

/// What all records of a lane up to some point say about its sources and epochs.
#[derive(Debug, Clone, Default)]
pub(super) struct Marks {
    pub(super) sources: Vec<SourceMark>,
    pub(super) ended: Vec<Ended>,
    /// Oldest first.
    pub(super) bases: Vec<BootBase>,
}

impl Marks {
    pub(super) fn source(&self, name: &str) -> Option<&SourceMark> {
        self.sources.iter().find(|mark| mark.name == name)
    }

    fn source_mut(&mut self, name: &str) -> Option<&mut SourceMark> {
        if self.source(name).is_none() && self.sources.len() < MAX_SOURCES {
            self.sources.push(SourceMark {
                name: name.to_owned(),
                cursor: None,
                live: false,
                last_time: None,
                unclean: None,
            });
        }
        self.sources.iter_mut().find(|mark| mark.name == name)
    }

    /// Takes in one record of `epoch`.
    pub(super) fn apply(
        &mut self,
        origin: &DeviceId,
        lane: Lane,
        epoch: Epoch,
        record: &Envelope<'_>,
    ) {
        if !record.source.is_empty() {
            if let Some(mark) = self.source_mut(record.source) {
                mark.cursor = record.cursor.or(mark.cursor);
                mark.live = record.live;
                mark.last_time = mark.last_time.max(record.last_time);
            }
            return;
        }
        let Ok((frame, _)) = frame::decode(record.frame) else {
            return;
        };
        if frame.kind == Kind::EpochEnd {
            let Ok(end) = message::decode::<EpochEnd>(frame.payload) else {
                return;
            };
            if end.origin == *origin && end.lane == lane {
                self.end(Ended {
                    epoch: end.epoch,
                    range: SeqRange::new(end.first, end.next),
                    named_in: (epoch, record.seq),
                });
            }
        } else if frame.kind == Kind::Gap {
            let Ok(gap) = message::decode::<Gap>(frame.payload) else {
                return;
            };
            let named = gap.part.as_deref().unwrap_or_default();
            if gap.reason == GapReason::UncleanStop && gap.origin == *origin {
                for mark in self.sources.iter_mut().filter(|mark| mark.name == named) {
                    mark.unclean = None;
                }
            }
        } else if frame.kind == Kind::TimeBase {
            let Ok(base) = message::decode::<TimeBase>(frame.payload) else {
                return;
            };
            if base.origin == *origin {
                self.base(BootBase {
                    boot: base.boot,
                    named_in: (epoch, record.seq),
                });
            }
        }
    }

    fn base(&mut self, base: BootBase) {
        self.bases.retain(|known| known.boot != base.boot);
        if self.bases.len() == MAX_BASES {
            self.bases.remove(0);
        }
        self.bases.push(base);
    }

    fn end(&mut self, ended: Ended) {
        self.ended.retain(|known| known.epoch != ended.epoch);
        if self.ended.len() == MAX_ENDED {
            self.ended.remove(0);
        }
        self.ended.push(ended);
    }

    pub(super) fn end_of(&self, epoch: Epoch) -> Option<&Ended> {
        self.ended.iter().find(|ended| ended.epoch == epoch)
    }
}

/// A record that is appended and not yet durable.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) seq: u64,
    pub(super) kind: Kind,
    pub(super) payload: Vec<u8>,
    /// The receipts that wait for it.
    pub(super) owed: Option<Owed>,
}

/// One lane of the engine.
#[derive(Debug)]
pub(super) struct LaneState {
    pub(super) lane: Lane,
    /// The epoch that takes records on disk.
    pub(super) epoch: Epoch,
    pub(super) life: Life,
    /// When the base of the lane's times changed last.
    pub(super) turned_at: Option<Millis>,
    /// Position of its record 0, once that is appended.
    pub(super) base: Option<u64>,
    pub(super) next_seq: u64,
    pub(super) durable_seq: u64,
    /// What the sender was told: never beyond `durable_seq`.
    pub(super) visible_seq: u64,
    /// Epochs in the spool, oldest first; the last is `epoch` once it has a record.
    pub(super) epochs: Vec<Stored>,
    /// The epoch before this start, which would have held what an unclean stop lost.
    pub(super) previous: Option<Epoch>,
    /// After every appended record.
    pub(super) marks: Marks,
    /// After every durable record.
    pub(super) durable: Marks,
    pub(super) batcher: Batcher,
    pub(super) held: VecDeque<Held>,
    pub(super) held_bytes: usize,
    pub(super) held_since: Option<Millis>,
    /// Milliseconds after which a group is synced.
    pub(super) group_ms: u64,
    /// Set while the disk cannot be written.
    pub(super) ram: Option<Ram>,
    /// Earlier RAM epochs that are not yet committed.
    pub(super) old_rams: Vec<Ram>,
    /// Readings of sources that cannot wait, lost since the last batch: see [`Overflow`].
    pub(super) overflow: Vec<Overflow>,
}

/// Readings of one source that found no room.
#[derive(Debug, Clone, Copy)]
pub(super) struct Overflow {
    pub(super) source: usize,
    pub(super) samples: u64,
    /// Wall time of the first and the last, if all have one.
    pub(super) span: Option<(UnixMicros, UnixMicros)>,
    /// Where the source resumes after them, if it can.
    pub(super) cursor: Option<Cursor>,
}

impl LaneState {
    /// The bytes with which a segment begins whose first record is `next_seq`.
    pub(super) fn snapshot(&self, out: &mut Vec<u8>) {
        let schemas = self.batcher.schemas().take(MAX_SNAPSHOT_SCHEMAS);
        Snapshot {
            epoch: self.epoch,
            life: self.life,
            first_seq: self.next_seq,
            sources: self.marks.sources.clone(),
            ended: self.marks.ended.clone(),
            bases: self.marks.bases.clone(),
            schemas: schemas
                .map(|(number, bytes)| (number, bytes.to_vec()))
                .collect(),
        }
        .encode(out);
    }

    pub(super) fn stored(&self, epoch: Epoch) -> Option<&Stored> {
        self.epochs.iter().find(|stored| stored.epoch == epoch)
    }

    /// The epoch and number of a position in the spool.
    pub(super) fn at_position(&self, position: u64) -> Option<(Epoch, u64)> {
        let stored = self
            .epochs
            .iter()
            .rev()
            .find(|stored| stored.base <= position)?;
        Some((stored.epoch, position - stored.base))
    }

    /// A RAM epoch, the present one or an earlier one.
    pub(super) fn ram_of(&self, epoch: Epoch) -> Option<&Ram> {
        self.ram
            .iter()
            .chain(&self.old_rams)
            .find(|ram| ram.epoch == epoch)
    }

    /// The life of an epoch that the lane holds.
    pub(super) fn life_of(&self, epoch: Epoch) -> Option<Life> {
        let ram = self.ram_of(epoch).map(|ram| ram.life);
        let stored = || self.stored(epoch).map(|stored| stored.life);
        ram.or_else(stored)
            .or((epoch == self.epoch).then_some(self.life))
    }

    /// The life of the epoch that takes records now.
    pub(super) fn present_life(&self) -> Life {
        self.ram.as_ref().map_or(self.life, |ram| ram.life)
    }

    /// Which batches have their turn.
    pub(super) fn turn(&self) -> Turn {
        let wait_ms = if self.lane == Lane::Alarm {
            ALARM_TURN_MS
        } else {
            TURN_MS
        };
        Turn {
            base: self.present_life().base,
            others_from: self.turned_at.map_or(Millis(0), |at| at.plus(wait_ms)),
        }
    }

    /// Whether the lane holds records whose times count from `boot`.
    pub(super) fn counts_from(&self, boot: u64) -> bool {
        let life = Life {
            boot,
            base: Base::Uptime,
        };
        let rams = self.ram.iter().chain(&self.old_rams);
        self.epochs.iter().any(|stored| stored.life == life)
            || rams.into_iter().any(|ram| ram.life == life)
    }

    /// Bytes in memory that are on no disk yet, RAM epochs not counted.
    pub(super) fn open_bytes(&self) -> usize {
        self.batcher.open_bytes() + self.held_bytes
    }

    /// Bytes of records in memory in place of the disk.
    pub(super) fn ram_bytes(&self) -> usize {
        let rams = self.ram.iter().chain(&self.old_rams);
        rams.map(|ram| ram.bytes + ram.limbo_bytes).sum()
    }

    /// Takes out what is to be named of a source.
    pub(super) fn take_overflow(&mut self, source: usize) -> Option<Overflow> {
        let known = self
            .overflow
            .iter()
            .position(|known| known.source == source)?;
        Some(self.overflow.swap_remove(known))
    }

    /// When the open group is to be synced.
    pub(super) fn sync_at(&self) -> Option<Millis> {
        let group = self.held_since.map(|since| since.plus(self.group_ms));
        let asked = self.held.iter().filter_map(|held| held.owed?.by);
        group.into_iter().chain(asked).min()
    }

    /// Takes the open group out.
    pub(super) fn take_held(&mut self) -> VecDeque<Held> {
        (self.held_bytes, self.held_since) = (0, None);
        std::mem::take(&mut self.held)
    }

    /// Forgets ends of epochs that neither the spool nor the memory holds.
    pub(super) fn prune_ended(&mut self) {
        let held = |ended: &Ended| {
            self.epochs.iter().any(|stored| stored.epoch == ended.epoch)
                || self.old_rams.iter().any(|ram| ram.epoch == ended.epoch)
        };
        self.marks.ended.retain(held);
        self.durable.ended.retain(held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(number: u64) -> Ended {
        Ended {
            epoch: Epoch::new(number),
            range: SeqRange::new(0, 1),
            named_in: (Epoch::new(0), number),
        }
    }

    #[test]
    fn as_many_ends_as_a_snapshot_lists_are_remembered_and_the_oldest_gives_way() {
        let mut marks = Marks::default();
        let all = 0..MAX_ENDED as u64;
        for number in all.clone() {
            marks.end(ended(number));
        }
        // One that is said again is no other.
        marks.end(ended(0));
        assert!(all.clone().all(|it| marks.end_of(Epoch::new(it)).is_some()));
        marks.end(ended(all.end));
        assert_eq!(marks.ended.len(), MAX_ENDED);
        // An epoch whose end is not known counts as one that a kill ended: it is said again.
        assert_eq!(marks.end_of(Epoch::new(1)), None);
        assert!(marks.end_of(Epoch::new(0)).is_some());
    }
}
