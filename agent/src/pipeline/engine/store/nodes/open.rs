//! Core: what a start makes of the nodes' records that it finds.

use std::ops::ControlFlow;

use headwater_proto::frame;
use headwater_proto::ids::JournalId;
use headwater_spool::{Disk, Log, SegmentInfo};

use super::index::Entry;
use super::streams::MAX_STREAMS;
use super::{Index, NodeStore, Streams};
use crate::pipeline::foreign::{self, Listed};

/// Bytes read at once.
const CHUNK_BYTES: usize = 256 * 1024;

impl<D: Disk> NodeStore<D> {
    /// Builds it from what its log holds: all records are read once. `random`: the id under which nodes know
    /// it, if it is new or that is lost.
    pub(crate) fn open(log: Log<D>, group_ms: u64, random: u64) -> Self {
        let mut store = Self {
            log,
            spool: JournalId(random),
            streams: Streams::default(),
            index: Index::default(),
            held: Vec::new(),
            held_bytes: 0,
            held_runs: 0,
            sync_at: None,
            group_ms,
            news: Vec::new(),
            failed_syncs: 0,
        };
        let found = newest_snapshot(&store.log);
        if let Some((spool, listed)) = found {
            store.spool = spool;
            // The one used last comes first.
            for listed in listed.into_iter().take(MAX_STREAMS).rev() {
                store.streams.restore(listed);
            }
        }
        store.replay();
        store
    }

    fn replay(&mut self) {
        let segments: Vec<_> = self.log.segments().copied().collect();
        // Records that are damaged or cannot be read, of segments that are not whole.
        let (mut damaged, mut broken) = (0, Vec::new());
        for info in &segments {
            let before = damaged;
            let mut from = info.first;
            if !info.readable {
                damaged += info.positions().count() as u64;
                broken.push(*info);
                continue;
            }
            while from < info.next {
                let (streams, mut entries) = (&mut self.streams, Vec::new());
                let read = self.log.read(from, CHUNK_BYTES, |position, _, payload| {
                    if position >= info.next {
                        return ControlFlow::Break(());
                    }
                    let Ok(record) = foreign::decode(payload) else {
                        return ControlFlow::Continue(());
                    };
                    let life = (record.life, record.ram);
                    let id = streams.recall(&record.stream, life);
                    let envelope = &record.envelope;
                    if let Some((number, bytes)) = envelope.schema {
                        streams.bind(id, number, bytes, Some(info.id));
                    }
                    if let Some(kept) = streams.get_mut(id) {
                        let crc = frame::crc32c(envelope.frame);
                        kept.receiver().offer(envelope.seq, crc);
                    }
                    entries.push(Entry {
                        segment: info.id,
                        stream: id,
                        seq: envelope.seq,
                        position,
                        bytes: u32::try_from(payload.len()).unwrap_or(u32::MAX),
                        is_new: true,
                    });
                    ControlFlow::Continue(())
                });
                // Bounds hold for what nodes bring: what is durable was acknowledged, and nobody else has it.
                for entry in &entries {
                    self.add(entry);
                    self.streams.need(entry.stream, entry.bytes);
                }
                match read {
                    Ok(chunk) if chunk.next > from => {
                        let own = chunk.damage.iter().filter(|it| it.segment == info.id);
                        damaged += own
                            .map(|it| it.positions.end - it.positions.start)
                            .sum::<u64>();
                        from = chunk.next;
                    }
                    _ => {
                        damaged += info.next - from;
                        break;
                    }
                }
            }
            if damaged > before {
                broken.push(*info);
            }
        }
        for kept in self.streams.iter_mut() {
            kept.close(true);
        }
        seek(self, &broken, damaged);
        let index = &self.index;
        let is_free = |id| index.of(id).next().is_none();
        self.streams.shrink(MAX_STREAMS, &is_free);
    }
}

/// Numbers that were received and of which no record was found count as here, in each segment that is broken: it
/// stays until the collector has them, or they are read in vain and named as damaged.
///
/// - `damaged`: how many records the broken segments may have held.
fn seek<D: Disk>(store: &mut NodeStore<D>, broken: &[SegmentInfo], damaged: u64) {
    if broken.is_empty() {
        return;
    }
    let streams = store.streams.iter();
    let missing = streams.flat_map(|(id, kept)| {
        let missing = kept.missing(&store.index.here(id), damaged).into_iter();
        missing.map(move |range| (id, range))
    });
    for (id, range) in missing.collect::<Vec<_>>() {
        for info in broken {
            store.index.seek(info, id, range);
        }
        store.tell(id, range);
    }
}

/// What the newest snapshot says that can be read.
fn newest_snapshot<D: Disk>(log: &Log<D>) -> Option<(JournalId, Vec<Listed>)> {
    let newest = log.segments().rev();
    let snapshots = newest.filter_map(|info| log.snapshot_of(info.id).ok().flatten());
    let mut read = snapshots.filter_map(|bytes| foreign::decode_snapshot(&bytes).ok());
    read.next()
}
