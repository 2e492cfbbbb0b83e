//! Core: a lane while its disk cannot be written: a RAM epoch for what cannot wait, and the way back.

use headwater_proto::bundle::Stamps;
use headwater_proto::frame::Kind;
use headwater_proto::ids::SeqRange;
use headwater_proto::time::{Base, Millis};
use headwater_spool::Disk;

use super::News;
use super::draft::{Draft, Says};
use super::lane::{Group, Over};
use super::lanes::{LaneSet, held_epoch};
use super::ram::{PROBE_MS, Ram};
use crate::pipeline::record::schema_of;

impl<D: Disk> LaneSet<D> {
    /// The disk cannot be written: what comes goes to memory. The open group must be synced or taken out.
    pub(crate) fn go_to_memory(&mut self, at: usize, now: Millis) {
        let epoch = self.names.draw();
        let lane = &mut self.lanes[at];
        debug_assert!(lane.held.is_empty(), "a group is on its way to the disk");
        lane.ram = Some(Ram::new(epoch, lane.life, now.plus(PROBE_MS)));
        lane.marks = lane.durable.clone();
        self.counted.disk_failures += 1;
    }

    /// Keeps a record in memory: in the RAM epoch, or aside where it waits for the disk. The receipts of
    /// what does not wait are settled as not durable.
    pub(super) fn keep_in_memory(&mut self, at: usize, mut record: Box<Draft>) {
        let lane = &mut self.lanes[at];
        let Some(ram) = &mut lane.ram else { return };
        if Ram::is_to_wait(&record) {
            ram.wait(record);
            return;
        }
        self.news.extend(record.owed.take().map(News::NotDurable));
        if let Some(number) = schema_of(&record.frame) {
            let own = record.schema.iter();
            let mut known = own.chain(&lane.schemas);
            if let Some((_, bytes)) = known.find(|(known, _)| *known == number) {
                ram.keep_schema(number, bytes);
            }
        }
        let seq = ram.push(&record);
        let (epoch, next, life) = (ram.epoch, ram.next_seq, ram.life);
        lane.marks.apply_undurable(lane.lane, epoch, seq, &record);
        let is_said_again =
            record.kind == Kind::EpochEnd || matches!(record.says, Says::Unclean { .. });
        if !is_said_again {
            // The first snapshot after the disk is back knows the source of a reading: should the
            // next ones be lost in a crash, the gap that names them has where to begin.
            // An end, or what an unclean stop lost, is appended again where it lasts.
            lane.durable.apply_undurable(lane.lane, epoch, seq, &record);
        }
        let range = SeqRange::new(0, next);
        let held = held_epoch(lane.lane, epoch, range, true, life);
        self.news.push(News::Stored(held));
    }

    /// Says in the RAM epoch that another epoch is over.
    pub(crate) fn end_in_memory(&mut self, at: usize, over: Over, stamps: Stamps) {
        let record = self.end_record(at, over, stamps);
        self.keep_in_memory(at, record);
        self.tell_ended(at, over.epoch);
    }

    /// A lane in memory goes on under another RAM epoch, which names the end of the one before.
    pub(crate) fn turn_in_memory(&mut self, at: usize, base: Base, stamps: Stamps) {
        let (epoch, life) = (self.names.draw(), self.life(base));
        let lane = &mut self.lanes[at];
        let Some(ram) = &mut lane.ram else { return };
        if ram.next_seq == 0 {
            ram.life.base = base;
            return;
        }
        let next = Ram {
            limbo: std::mem::take(&mut ram.limbo),
            limbo_bytes: std::mem::take(&mut ram.limbo_bytes),
            ..Ram::new(epoch, life, ram.probe_at)
        };
        let over = Over {
            epoch: ram.epoch,
            next: ram.next_seq,
            clean: true,
        };
        lane.old_rams.extend(lane.ram.replace(next));
        self.end_in_memory(at, over, stamps);
    }

    /// What is to be said before a lane in memory goes back to its disk: the ends of its epochs, in one whose
    /// times count from this base. It is not tried again for a while. `None`: it is on its disk.
    pub(super) fn probe(&mut self, at: usize, now: Millis) -> Option<(Base, Vec<Over>)> {
        let lane = &mut self.lanes[at];
        let ram = lane.ram.as_mut()?;
        ram.probe_at = now.plus(PROBE_MS);
        let base = ram.life.base;
        Some((base, lane.without_end()))
    }

    /// A lane in memory has an epoch on its disk again: gives the records that waited for that.
    pub(super) fn leave_memory(&mut self, at: usize) -> Group {
        let lane = &mut self.lanes[at];
        let Some(mut ram) = lane.ram.take() else {
            return Group::new();
        };
        let limbo = std::mem::take(&mut ram.limbo);
        ram.limbo_bytes = 0;
        if ram.next_seq > 0 {
            lane.old_rams.push(ram);
        }
        limbo
    }
}
