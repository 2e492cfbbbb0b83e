//! Core: where the outbox reads: records and schemas, from the spool and from memory.

use std::ops::ControlFlow;

use headwater_proto::ids::{Epoch, Lane, SeqRange};
use headwater_spool::{Chunk, Disk, Log};

use super::lane::Stored;
use super::lanes::LaneSet;
use super::place_of;
use crate::pipeline::engine::outbox::{Kept, Read, Shelf};
use crate::pipeline::record::{self, Envelope, Snapshot};

/// Bytes read at once when schemas are looked for.
const CHUNK_BYTES: usize = 256 * 1024;

impl<D: Disk> Shelf for LaneSet<D> {
    fn kept(&self, lane: Lane, epoch: Epoch) -> Kept {
        let lane = &self.lanes[place_of(lane)];
        Kept {
            life: lane.life_of(epoch).unwrap_or(lane.life),
            ram: lane.ram_of(epoch).is_some(),
        }
    }

    fn is_writable(&self, lane: Lane) -> bool {
        self.lanes[place_of(lane)].ram.is_none()
    }

    fn read(
        &mut self,
        lane: Lane,
        epoch: Epoch,
        range: SeqRange,
        max_bytes: usize,
        take: &mut dyn FnMut(u64, &[u8]) -> ControlFlow<()>,
    ) -> Read {
        let at = place_of(lane);
        let lane = &self.lanes[at];
        if let Some(ram) = lane.ram_of(epoch) {
            for record in ram.records.iter().filter(|it| range.contains(it.seq)) {
                if take(record.seq, &record.payload).is_break() {
                    break;
                }
            }
            // Nothing of a RAM epoch goes missing but what was released.
            let oldest = ram.records.front().map_or(range.next, |record| record.seq);
            return Read::Through(oldest);
        }
        let (Some(stored), Some(log)) = (lane.stored(epoch), self.spool.log_mut(at)) else {
            return Read::Through(range.next);
        };
        let begins = stored.base + range.first;
        let read = log.read(begins, max_bytes, |position, _, payload| {
            take(position - stored.base, payload)
        });
        // Records that are held in memory and not yet synced: reached by a sabotaged engine only.
        for held in lane
            .held
            .iter()
            .filter(|_| lane.visible_seq > lane.durable_seq)
        {
            let payload = held.record.payload(held.seq, Some(lane.epoch), lane.life);
            if range.contains(held.seq) && take(held.seq, &payload).is_break() {
                break;
            }
        }
        match read {
            Ok(chunk) => end_of(&chunk, stored, begins),
            Err(_) => {
                let segment = log
                    .segments()
                    .find(|info| info.positions().contains(&begins));
                let end = segment.map_or(begins + 1, |info| info.next);
                Read::Unreadable(end - stored.base)
            }
        }
    }

    fn schemas(
        &mut self,
        lane: Lane,
        epoch: Epoch,
        near: Option<u64>,
        wanted: u32,
        keep: &mut dyn FnMut(u32, &[u8]),
    ) {
        let at = place_of(lane);
        if let Some(seq) = near {
            self.schemas_of_segment(at, epoch, seq, wanted, keep);
            return;
        }
        let lane = &self.lanes[at];
        if epoch == lane.epoch
            && let Some(bytes) = lane.schema(wanted)
        {
            keep(wanted, bytes);
            return;
        }
        let Some(stored) = lane.stored(epoch).copied() else {
            self.schemas_of_segment(at, epoch, 0, wanted, keep);
            return;
        };
        let range = stored.base + stored.first..stored.base + stored.next;
        let lasts: Vec<u64> = self.spool.log(at).map_or_else(Vec::new, |log: &Log<D>| {
            log.segments()
                .filter(|info| range.contains(&info.first) && info.next > info.first)
                .map(|info| info.next - 1 - stored.base)
                .collect()
        });
        for seq in lasts {
            if self.schemas_of_segment(at, epoch, seq, wanted, keep) {
                return;
            }
        }
    }
}

impl<D: Disk> LaneSet<D> {
    /// Gives the schemas of the segment that holds a record, up to that; says whether `wanted` is one.
    fn schemas_of_segment(
        &mut self,
        at: usize,
        epoch: Epoch,
        seq: u64,
        wanted: u32,
        keep: &mut dyn FnMut(u32, &[u8]),
    ) -> bool {
        let mut found = false;
        let mut keep = |number, bytes: &[u8]| {
            found |= number == wanted;
            keep(number, bytes);
        };
        let lane = &self.lanes[at];
        if let Some(ram) = lane.ram_of(epoch) {
            for (number, bytes) in &ram.schemas {
                keep(*number, bytes);
            }
            return found;
        }
        let Some(position) = lane.stored(epoch).map(|stored| stored.base + seq) else {
            return false;
        };
        let Some(log) = self.spool.log_mut(at) else {
            return false;
        };
        let segment = log
            .segments()
            .find(|info| info.positions().contains(&position))
            .copied();
        let Some(info) = segment else { return false };
        let snapshot = log.snapshot_of(info.id).ok().flatten();
        if let Some(snapshot) = snapshot.and_then(|bytes| Snapshot::decode(&bytes).ok()) {
            for (number, bytes) in &snapshot.schemas {
                keep(*number, bytes);
            }
        }
        let mut from = info.first;
        while from <= position {
            let read = log.read(from, CHUNK_BYTES, |at, _, payload| {
                if let Ok(Envelope {
                    schema: Some((number, bytes)),
                    ..
                }) = record::decode(payload)
                {
                    keep(number, bytes);
                }
                if at >= position {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            });
            match read {
                Ok(chunk) if chunk.next > from => from = chunk.next,
                _ => break,
            }
        }
        found
    }
}

/// What a read said of records that it did not give.
fn end_of(chunk: &Chunk, stored: &Stored, begins: u64) -> Read {
    let bad = chunk.damage.first().map(|damage| &damage.positions);
    match bad.filter(|bad| bad.start <= begins && begins < bad.end) {
        Some(bad) => Read::Damaged(bad.end - stored.base),
        None => Read::Through(chunk.next.max(begins + 1) - stored.base),
    }
}
