//! Core: one lane of the store: its epochs on disk, what they say of its sources, its open group.

use std::collections::VecDeque;
use std::sync::Arc;

use headwater_proto::ids::{Epoch, Lane};
use headwater_proto::time::{Base, Millis};
use headwater_spool::format::MAX_SNAPSHOT_BYTES;

use super::draft::Draft;
use super::marks::Marks;
use super::ram::Ram;
use crate::pipeline::batcher::Turn;
use crate::pipeline::record::{Ended, Life, MAX_SNAPSHOT_SCHEMAS, Snapshot};

/// How long a lane stays with a base of times before rows of the other one make it begin an epoch:
/// each costs a segment. What is dated by its source in a lane where the agent has no clock yet waits
/// in memory for so long, unless that or its batch is full.
const TURN_MS: u64 = 30_000;
/// The same in the alarm lane, which does not wait long for anything.
const ALARM_TURN_MS: u64 = 1_000;

/// Most bytes of schemas that a segment begins with: half of what a log takes of a snapshot, or a lane with
/// more would not get another segment. Those beyond stand in the records that brought them.
const MAX_SNAPSHOT_SCHEMA_BYTES: usize = MAX_SNAPSHOT_BYTES / 2;

/// An epoch as the spool holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) epoch: Epoch,
    pub(crate) life: Life,
    /// Position of its record 0, which may be gone.
    pub(crate) base: u64,
    /// Lowest number that the spool still holds.
    pub(crate) first: u64,
    /// One more than its highest durable number.
    pub(crate) next: u64,
    /// All below it may be forgotten: the sender said so.
    pub(crate) released: u64,
}

/// What one lane's log says.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) epochs: Vec<Stored>,
    pub(super) marks: Marks,
    /// Epochs that did not end cleanly, and of which no gap says so yet.
    pub(super) unclean: Vec<Epoch>,
}

/// An epoch that ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Over {
    pub(crate) epoch: Epoch,
    /// One more than its last number.
    pub(crate) next: u64,
    /// Nothing that was taken can be missing beyond its records: its writer lived on, or it held nothing of a
    /// source that cannot begin again. If it is not, a gap names what may be.
    pub(crate) clean: bool,
}

/// A record that is appended and not yet durable.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) seq: u64,
    /// Bytes of its payload.
    pub(crate) bytes: usize,
    pub(crate) record: Box<Draft>,
}

/// Records that are in memory, and that no sync covers.
pub(crate) type Group = VecDeque<Box<Draft>>;

/// One lane of the store.
#[derive(Debug)]
pub(crate) struct LaneState {
    pub(crate) lane: Lane,
    /// The epoch that takes records on disk.
    pub(crate) epoch: Epoch,
    pub(crate) life: Life,
    /// When the base of the lane's times changed last.
    pub(crate) turned_at: Option<Millis>,
    /// Position of its record 0, once that is appended.
    pub(crate) base: Option<u64>,
    pub(crate) next_seq: u64,
    pub(crate) durable_seq: u64,
    /// What the sender was told: never beyond `durable_seq`.
    pub(crate) visible_seq: u64,
    /// Epochs in the spool, oldest first; the last is `epoch` once it has a record.
    pub(crate) epochs: Vec<Stored>,
    /// The epoch before this start.
    pub(crate) previous: Option<Epoch>,
    /// Epochs of before this start that did not end cleanly, and of which no gap said so at the start.
    pub(crate) unclean: Vec<Epoch>,
    /// After every appended record.
    pub(crate) marks: Marks,
    /// After every durable record.
    pub(crate) durable: Marks,
    /// The schemas in use: the next segment begins with them.
    pub(crate) schemas: Vec<(u32, Arc<[u8]>)>,
    pub(crate) held: VecDeque<Held>,
    pub(crate) held_bytes: usize,
    pub(crate) held_since: Option<Millis>,
    /// Milliseconds after which a group is synced.
    pub(crate) group_ms: u64,
    /// Set while the disk cannot be written.
    pub(crate) ram: Option<Ram>,
    /// Earlier RAM epochs that are not yet committed.
    pub(crate) old_rams: Vec<Ram>,
}

impl LaneState {
    /// A lane whose log says what was `found`; it goes on under `epoch`.
    pub(super) fn new(
        lane: Lane,
        (epoch, life): (Epoch, Life),
        found: Found,
        group_ms: u64,
    ) -> Self {
        let Found {
            epochs,
            marks,
            unclean,
        } = found;
        Self {
            lane,
            epoch,
            life,
            turned_at: None,
            base: None,
            next_seq: 0,
            durable_seq: 0,
            visible_seq: 0,
            previous: epochs.last().map(|stored| stored.epoch),
            unclean,
            epochs,
            durable: marks.clone(),
            marks,
            schemas: Vec::new(),
            held: VecDeque::new(),
            held_bytes: 0,
            held_since: None,
            group_ms,
            ram: None,
            old_rams: Vec::new(),
        }
    }

    /// The bytes with which a segment begins whose first record is `next_seq`.
    pub(crate) fn snapshot(&self, out: &mut Vec<u8>) {
        let mut room = MAX_SNAPSHOT_SCHEMA_BYTES;
        let schemas = self.schemas.iter().filter(|(_, bytes)| {
            let left = room.checked_sub(bytes.len());
            room = left.unwrap_or(room);
            left.is_some()
        });
        Snapshot {
            epoch: self.epoch,
            life: self.life,
            first_seq: self.next_seq,
            sources: self.marks.sources.clone(),
            ended: self.marks.ended.clone(),
            bases: self.marks.bases.clone(),
            schemas: schemas
                .take(MAX_SNAPSHOT_SCHEMAS)
                .map(|(number, bytes)| (*number, bytes.to_vec()))
                .collect(),
        }
        .encode(out);
    }

    pub(crate) fn stored(&self, epoch: Epoch) -> Option<&Stored> {
        self.epochs.iter().find(|stored| stored.epoch == epoch)
    }

    /// The epoch and number of a position in the spool.
    pub(crate) fn at_position(&self, position: u64) -> Option<(Epoch, u64)> {
        let stored = self
            .epochs
            .iter()
            .rev()
            .find(|stored| stored.base <= position)?;
        Some((stored.epoch, position - stored.base))
    }

    /// The RAM epochs, the present one first.
    fn rams(&self) -> impl Iterator<Item = &Ram> {
        self.ram.iter().chain(&self.old_rams)
    }

    /// Whether records are in memory in place of the disk, or will be.
    pub(crate) const fn holds_in_memory(&self) -> bool {
        self.ram.is_some() || !self.old_rams.is_empty()
    }

    /// A RAM epoch, the present one or an earlier one.
    pub(crate) fn ram_of(&self, epoch: Epoch) -> Option<&Ram> {
        self.rams().find(|ram| ram.epoch == epoch)
    }

    /// The life of an epoch that the lane holds.
    pub(crate) fn life_of(&self, epoch: Epoch) -> Option<Life> {
        let ram = self.ram_of(epoch).map(|ram| ram.life);
        let stored = || self.stored(epoch).map(|stored| stored.life);
        ram.or_else(stored)
            .or((epoch == self.epoch).then_some(self.life))
    }

    /// The life of the epoch that takes records now.
    pub(crate) fn present_life(&self) -> Life {
        self.ram.as_ref().map_or(self.life, |ram| ram.life)
    }

    /// Which batches have their turn.
    pub(crate) fn turn(&self) -> Turn {
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
    pub(crate) fn counts_from(&self, boot: u64) -> bool {
        let life = Life {
            boot,
            base: Base::Uptime,
        };
        self.epochs.iter().any(|stored| stored.life == life)
            || self.rams().any(|ram| ram.life == life)
    }

    /// Epochs that have records and no end on record, oldest first.
    pub(crate) fn without_end(&self) -> Vec<Over> {
        let on_disk = self.epochs.iter();
        let on_disk = on_disk.map(|stored| Over {
            epoch: stored.epoch,
            next: stored.next,
            clean: !self.unclean.contains(&stored.epoch) || !self.durable.owes_a_gap(),
        });
        let in_ram = self.old_rams.iter().chain(&self.ram);
        let in_ram = in_ram.map(|ram| Over {
            epoch: ram.epoch,
            next: ram.next_seq,
            clean: true,
        });
        on_disk
            .chain(in_ram.filter(|over| over.next > 0))
            .filter(|over| self.durable.end_of(over.epoch).is_none())
            .collect()
    }

    /// Bytes of records in memory in place of the disk.
    pub(crate) fn ram_bytes(&self) -> usize {
        self.rams().map(|ram| ram.bytes + ram.limbo_bytes).sum()
    }

    /// When the open group is to be synced.
    pub(crate) fn sync_at(&self) -> Option<Millis> {
        if self.ram.is_some() {
            return None;
        }
        let group = self.held_since.map(|since| since.plus(self.group_ms));
        let owed = self.held.iter().filter_map(|held| held.record.owed?.by);
        group.into_iter().chain(owed).min()
    }

    /// Takes the open group out.
    pub(crate) fn take_held(&mut self) -> Group {
        (self.held_bytes, self.held_since) = (0, None);
        let held = std::mem::take(&mut self.held);
        held.into_iter().map(|held| held.record).collect()
    }

    /// The schema of a number that is in use.
    pub(crate) fn schema(&self, number: u32) -> Option<&Arc<[u8]>> {
        let mut schemas = self.schemas.iter();
        let (_, bytes) = schemas.find(|(known, _)| *known == number)?;
        Some(bytes)
    }

    /// Frees what a released RAM epoch held.
    pub(crate) fn release_ram(&mut self, epoch: Epoch, through: u64) {
        for ram in self.ram.iter_mut().chain(&mut self.old_rams) {
            if ram.epoch == epoch {
                ram.forget_below(through);
            }
        }
        self.old_rams.retain(|ram| !ram.records.is_empty());
    }

    /// Takes the epochs' lowest numbers from the segments that are left: where those begin.
    pub(crate) fn refresh_epochs(&mut self, firsts: &[u64]) {
        let present = self.epoch;
        self.epochs.retain_mut(|stored| {
            let end = stored.base + stored.next;
            let range = stored.base..end.max(stored.base + 1);
            match firsts.iter().find(|first| range.contains(first)) {
                Some(first) => {
                    stored.first = first - stored.base;
                    true
                }
                None => stored.epoch == present,
            }
        });
        self.prune_ended();
    }

    /// Forgets ends of epochs that neither the spool nor the memory holds.
    fn prune_ended(&mut self) {
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

    /// The numbers of the schemas that a snapshot lists of these.
    fn listed(schemas: Vec<(u32, Arc<[u8]>)>) -> Vec<u32> {
        let life = Life {
            boot: 1,
            base: Base::Wall,
        };
        let present = (Epoch::new(5), life);
        let mut lane = LaneState::new(Lane::Normal, present, Found::default(), 0);
        lane.schemas = schemas;
        let mut out = Vec::new();
        lane.snapshot(&mut out);
        assert!(out.len() <= MAX_SNAPSHOT_BYTES);
        let schemas = Snapshot::decode(&out).unwrap().schemas;
        schemas.iter().map(|(number, _)| *number).collect()
    }

    #[test]
    fn a_snapshot_lists_the_schemas_in_use_up_to_its_bounds() {
        let bytes = |len: usize| -> Arc<[u8]> { vec![7; len].into() };
        let half = MAX_SNAPSHOT_SCHEMA_BYTES / 2;
        let all = [half, half, 1].map(bytes);
        assert_eq!(listed((0..).zip(all).collect()), [0, 1]);
        // One that is too large keeps no smaller one out.
        let all = [half, half + 1, 1].map(bytes);
        assert_eq!(listed((0..).zip(all).collect()), [0, 2]);
        let one = bytes(1);
        let all = std::iter::repeat_n(one, MAX_SNAPSHOT_SCHEMAS + 1);
        assert_eq!(listed((0..).zip(all).collect()).len(), MAX_SNAPSHOT_SCHEMAS);
    }
}
