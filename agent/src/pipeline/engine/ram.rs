//! Core: a lane while its disk cannot be written: a RAM epoch for what cannot wait, and the way back.

use std::collections::{BTreeMap, VecDeque};

use headwater_proto::codec::BatchHeader;
use headwater_proto::frame::{self, Kind};
use headwater_proto::ids::Epoch;
use headwater_proto::time::{Millis, Now};
use headwater_spool::Disk;

use super::Engine;
use super::lane::Held;
use crate::pipeline::record::{self, Envelope};

/// How often to try the disk again.
pub const PROBE_MS: u64 = 5_000;

/// Records that live in memory only: published without being synced, under an epoch that says so.
#[derive(Debug)]
pub(super) struct Ram {
    pub(super) epoch: Epoch,
    pub(super) next_seq: u64,
    pub(super) records: VecDeque<Held>,
    pub(super) bytes: usize,
    pub(super) schemas: BTreeMap<u32, Vec<u8>>,
    /// Records that may not go out before they are on disk: those of sources that resume, which
    /// would read them again after a crash, and those the agent made itself.
    pub(super) limbo: VecDeque<Held>,
    pub(super) probe_at: Millis,
}

impl Ram {
    fn new(epoch: Epoch, probe_at: Millis) -> Self {
        Self {
            epoch,
            next_seq: 0,
            records: VecDeque::new(),
            bytes: 0,
            schemas: BTreeMap::new(),
            limbo: VecDeque::new(),
            probe_at,
        }
    }

    /// Numbers and keeps a record.
    fn push(&mut self, kind: Kind, record: &Envelope<'_>) {
        let mut payload = Vec::new();
        Envelope {
            seq: self.next_seq,
            ..record.clone()
        }
        .encode(&mut payload);
        self.bytes += payload.len();
        self.records.push_back(Held {
            seq: self.next_seq,
            kind,
            payload,
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
        lane.ram = Some(Ram::new(epoch, now.mono.plus(PROBE_MS)));
        lane.marks = lane.durable.clone();
        self.counters.disk_failures += 1;
        for record in held {
            self.put_ram(at, record.kind, &record.payload);
        }
    }

    /// Keeps a record in memory: in the RAM epoch if its source cannot wait, else aside.
    pub(super) fn put_ram(&mut self, at: usize, kind: Kind, payload: &[u8]) {
        let Ok(envelope) = record::decode(payload) else {
            return;
        };
        let lane = &mut self.lanes[at];
        let Some(ram) = &mut lane.ram else { return };
        if !envelope.live {
            ram.limbo.push_back(Held {
                seq: 0,
                kind,
                payload: payload.to_vec(),
            });
            return;
        }
        if let Some(number) = schema_of(envelope.frame) {
            let bytes = envelope
                .schema
                .map(|(_, bytes)| bytes.to_vec())
                .or_else(|| {
                    let found = lane.batcher.schemas().find(|(known, _)| *known == number);
                    found.map(|(_, bytes)| bytes.to_vec())
                });
            if let Some(bytes) = bytes {
                ram.schemas.entry(number).or_insert(bytes);
            }
        }
        ram.push(kind, &envelope);
        let (epoch, next, lane) = (ram.epoch, ram.next_seq, lane.lane);
        self.tell_stored(lane, epoch, 0, next, true);
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
        let in_ram = (ram.next_seq > 0).then_some((ram.epoch, ram.next_seq));
        let on_disk = (lane.durable_seq > 0 && lane.durable.end_of(lane.epoch).is_none())
            .then_some((lane.epoch, lane.durable_seq));
        let ends: Vec<_> = on_disk.into_iter().chain(in_ram).collect();
        if !self.begin_epoch(at, &ends, now) {
            return;
        }
        let lane = &mut self.lanes[at];
        let Some(mut ram) = lane.ram.take() else {
            return;
        };
        let limbo = std::mem::take(&mut ram.limbo);
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

/// The schema number of a batch's frame.
pub(super) fn schema_of(bytes: &[u8]) -> Option<u32> {
    let (frame, _) = frame::decode(bytes).ok()?;
    if frame.kind != Kind::Batch {
        return None;
    }
    BatchHeader::peek(frame.payload)
        .ok()
        .map(|header| header.schema_no)
}
