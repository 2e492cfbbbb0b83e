//! Core: a lane while its disk cannot be written: a RAM epoch for what cannot wait, and the way back.

use std::collections::VecDeque;
use std::collections::btree_map::{BTreeMap, Entry};

use headwater_proto::frame::Kind;
use headwater_proto::ids::{Epoch, SeqRange};
use headwater_proto::time::{Millis, Now};
use headwater_spool::Disk;

use super::Engine;
use super::epochs::held_epoch;
use super::lane::{Held, Over};
use crate::pipeline::receipts::Owed;
use crate::pipeline::record::{self, Envelope, Life, schema_of};

/// How often to try the disk again.
pub const PROBE_MS: u64 = 5_000;

/// Records that live in memory only: published without being synced, under an epoch that says so.
#[derive(Debug)]
pub(super) struct Ram {
    pub(super) epoch: Epoch,
    pub(super) life: Life,
    pub(super) next_seq: u64,
    pub(super) records: VecDeque<Held>,
    pub(super) bytes: usize,
    pub(super) schemas: BTreeMap<u32, Vec<u8>>,
    /// Records that may not go out before they are on disk: those of sources that resume, which
    /// would read them again after a crash.
    pub(super) limbo: VecDeque<Held>,
    pub(super) limbo_bytes: usize,
    pub(super) probe_at: Millis,
}

impl Ram {
    pub(super) fn new(epoch: Epoch, life: Life, probe_at: Millis) -> Self {
        Self {
            epoch,
            life,
            next_seq: 0,
            records: VecDeque::new(),
            bytes: 0,
            schemas: BTreeMap::new(),
            limbo: VecDeque::new(),
            limbo_bytes: 0,
            probe_at,
        }
    }

    /// Keeps a record under the number it carries, which is the next.
    fn push(&mut self, kind: Kind, record: &Envelope<'_>) {
        debug_assert_eq!(record.seq, self.next_seq);
        let mut payload = Vec::new();
        record.encode(&mut payload);
        self.bytes += payload.len();
        self.records.push_back(Held {
            seq: self.next_seq,
            kind,
            payload,
            owed: None,
        });
        self.next_seq += 1;
    }

    pub(super) fn forget_below(&mut self, seq: u64) {
        while self.records.front().is_some_and(|record| record.seq < seq) {
            if let Some(record) = self.records.pop_front() {
                self.bytes -= record.payload.len();
            }
        }
    }
}

impl<D: Disk> Engine<D> {
    /// The disk cannot be written: what was held goes to memory, and so does what comes.
    pub(super) fn go_ram(&mut self, at: usize, held: VecDeque<Held>, now: Now) {
        let epoch = self.draw_epoch();
        let lane = &mut self.lanes[at];
        lane.ram = Some(Ram::new(epoch, lane.life, now.mono.plus(PROBE_MS)));
        lane.marks = lane.durable.clone();
        self.counters.disk_failures += 1;
        for record in held {
            self.put_ram(at, record.kind, &record.payload, record.owed);
        }
    }

    /// Keeps a record in memory. In the RAM epoch go what cannot wait and what the agent itself
    /// says: a disk that never comes back must not silence it. The rest is put aside.
    ///
    /// - `owed`: the receipts that wait for it; memory settles them as not durable.
    pub(super) fn put_ram(&mut self, at: usize, kind: Kind, payload: &[u8], owed: Option<Owed>) {
        let Ok(envelope) = record::decode(payload) else {
            return;
        };
        let lane = &mut self.lanes[at];
        let Some(ram) = &mut lane.ram else { return };
        if !envelope.live && !envelope.source.is_empty() {
            ram.limbo_bytes += payload.len();
            ram.limbo.push_back(Held {
                seq: 0,
                kind,
                payload: payload.to_vec(),
                owed,
            });
            return;
        }
        if let Some(owed) = owed {
            self.receipts[owed.source].fail(owed.span);
        }
        let envelope = Envelope {
            seq: ram.next_seq,
            epoch: None,
            life: ram.life,
            ..envelope
        };
        if let Some(number) = schema_of(envelope.frame) {
            let bytes = envelope
                .schema
                .map(|(_, bytes)| bytes.to_vec())
                .or_else(|| {
                    let found = lane.batcher.schemas().find(|(known, _)| *known == number);
                    found.map(|(_, bytes)| bytes.to_vec())
                });
            if let Some(bytes) = bytes
                && let Entry::Vacant(room) = ram.schemas.entry(number)
            {
                ram.bytes += bytes.len();
                room.insert(bytes);
            }
        }
        ram.push(kind, &envelope);
        let (epoch, next, lane_id, life) = (ram.epoch, ram.next_seq, lane.lane, ram.life);
        let device = &self.settings.device;
        lane.marks.apply(device, lane_id, epoch, &envelope);
        if kind != Kind::EpochEnd {
            // An unclean stop is named once: were this epoch lost, its end on disk names that too.
            // The first snapshot after the disk is back knows the source of a reading: should the
            // next ones be lost in a crash, the gap that names them has where to begin.
            // An end that stands in memory alone is appended again by the next start.
            lane.durable.apply(device, lane_id, epoch, &envelope);
        }
        let range = SeqRange::new(0, next);
        self.outbox
            .stored(held_epoch(lane_id, epoch, range, true, life));
    }

    /// Tries the disk again where its time has come. On success a new epoch begins, whose first
    /// records name the end of the one before the failure and of the RAM epoch.
    pub(super) fn probe_disk(&mut self, at: usize, now: Now) {
        let due = self.lanes[at]
            .ram
            .as_ref()
            .is_some_and(|ram| ram.probe_at <= now.mono);
        if due {
            self.leave_ram(at, now);
        }
    }

    pub(super) fn leave_ram(&mut self, at: usize, now: Now) {
        let lane = &mut self.lanes[at];
        let Some(ram) = &mut lane.ram else { return };
        ram.probe_at = now.mono.plus(PROBE_MS);
        let base = ram.life.base;
        let rams = lane.old_rams.iter().chain(&lane.ram);
        let in_ram = rams.map(|ram| Over::unclean(ram.epoch, ram.next_seq));
        let on_disk = lane.epochs.iter();
        let on_disk = on_disk.map(|stored| Over::unclean(stored.epoch, stored.next));
        let ends: Vec<_> = on_disk
            .chain(in_ram)
            .filter(|over| over.next > 0 && lane.durable.end_of(over.epoch).is_none())
            .collect();
        if !self.begin_epoch(at, base, &ends, now) {
            return;
        }
        // What was said of the boot in memory is said again where it lasts.
        self.told = None;
        let lane = &mut self.lanes[at];
        let Some(mut ram) = lane.ram.take() else {
            return;
        };
        let limbo = std::mem::take(&mut ram.limbo);
        ram.limbo_bytes = 0;
        if ram.next_seq > 0 {
            lane.old_rams.push(ram);
        }
        self.put_again(at, limbo, now);
        self.sync_lane(at, now);
    }

    /// Frees what a released RAM epoch held.
    pub(super) fn release_ram(&mut self, at: usize, epoch: Epoch, through: u64) {
        let lane = &mut self.lanes[at];
        for ram in lane.ram.iter_mut().chain(&mut lane.old_rams) {
            if ram.epoch == epoch {
                ram.forget_below(through);
            }
        }
        lane.old_rams.retain(|ram| !ram.records.is_empty());
    }
}
