//! Core: where the outbox reads a node's records and schemas.

use std::ops::ControlFlow;

use headwater_proto::ids::{DeviceId, Epoch, Lane, SeqRange, Stream};
use headwater_proto::time::Base;
use headwater_spool::{Disk, ReadError};

use super::NodeStore;
use super::index::Run;
use crate::pipeline::engine::outbox::{Kept, Read, Shelf};
use crate::pipeline::foreign::{self, Foreign};
use crate::pipeline::record::Life;

/// Bytes read at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// The records of one node.
pub(crate) struct NodeShelf<'a, D: Disk> {
    pub(crate) store: &'a mut NodeStore<D>,
    pub(crate) device: &'a DeviceId,
}

impl<D: Disk> NodeShelf<'_, D> {
    fn stream(&self, lane: Lane, epoch: Epoch) -> Stream {
        Stream {
            device: self.device.clone(),
            lane,
            epoch,
        }
    }

    /// Gives the schemas that stand with a stream's records in the segment of a run; says whether `wanted` is
    /// one.
    fn schemas_of(
        &mut self,
        stream: &Stream,
        run: &Run,
        wanted: u32,
        keep: &mut dyn FnMut(u32, &[u8]),
    ) -> bool {
        let segments = self.store.log.segments();
        let Some(info) = segments
            .copied()
            .find(|info| info.positions().contains(&run.at))
        else {
            return false;
        };
        let mut found = false;
        let mut from = info.first;
        while from <= run.last && !found {
            let read = self
                .store
                .log
                .read(from, CHUNK_BYTES, |position, _, payload| {
                    if let Ok(Foreign {
                        stream: of,
                        envelope,
                        ..
                    }) = foreign::decode(payload)
                        && of == *stream
                        && let Some((number, bytes)) = envelope.schema
                    {
                        keep(number, bytes);
                        found |= number == wanted;
                    }
                    if found || position >= run.last {
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

impl<D: Disk> Shelf for NodeShelf<'_, D> {
    fn kept(&self, lane: Lane, epoch: Epoch) -> Kept {
        let unknown = Life {
            boot: 0,
            base: Base::Wall,
        };
        let known = self.store.life_of(&self.stream(lane, epoch));
        let (life, ram) = known.unwrap_or((unknown, false));
        Kept { life, ram }
    }

    fn is_writable(&self, _: Lane) -> bool {
        true
    }

    fn read(
        &mut self,
        lane: Lane,
        epoch: Epoch,
        range: SeqRange,
        max_bytes: usize,
        take: &mut dyn FnMut(u64, &[u8]) -> ControlFlow<()>,
    ) -> Read {
        let stream = self.stream(lane, epoch);
        let Some(id) = self.store.streams.find(&stream) else {
            return Read::Through(range.next);
        };
        let mut want = range.first;
        let mut bytes = 0;
        while want < range.next {
            let Some((_, run)) = self.store.index.find(id, want) else {
                return Read::Through(range.next);
            };
            if want < run.seqs.first {
                // What stands between is not here: that is told alone, so that nobody takes it for damaged.
                if want == range.first {
                    want = run.seqs.first.min(range.next);
                }
                break;
            }
            let until = run.seqs.next;
            let mut full = false;
            let mut give = |seq, payload: &[u8]| {
                bytes += payload.len();
                full = take(seq, payload).is_break() || bytes >= max_bytes;
                full
            };
            match self.store.read_run(&stream, &run, want, &mut give) {
                // A run holds all of its numbers: one that is not read is damaged.
                Ok(next) if next == want => return Read::Damaged(next + 1),
                Ok(next) => want = next,
                Err(_) => return Read::Unreadable(until),
            }
            if full || want < until {
                break;
            }
        }
        Read::Through(want)
    }

    fn schemas(
        &mut self,
        lane: Lane,
        epoch: Epoch,
        near: Option<u64>,
        wanted: u32,
        keep: &mut dyn FnMut(u32, &[u8]),
    ) {
        let stream = self.stream(lane, epoch);
        let Some(id) = self.store.streams.find(&stream) else {
            return;
        };
        let known = self.store.streams.get(id);
        if let Some(bound) = known.and_then(|kept| kept.schemas.get(&wanted)) {
            keep(wanted, &bound.bytes);
            return;
        }
        let mut runs: Vec<Run> = Vec::new();
        for (_, run) in self.store.index.of(id) {
            if near.is_none_or(|seq| run.seqs.contains(seq)) {
                runs.push(*run);
            }
        }
        for run in runs {
            if self.schemas_of(&stream, &run, wanted, keep) {
                return;
            }
        }
    }
}

impl<D: Disk> NodeStore<D> {
    /// Gives records of a run from `want` on, in order, until `give` says that it has enough; returns the
    /// number after the last that was given, with nothing between.
    pub(super) fn read_run(
        &mut self,
        stream: &Stream,
        run: &Run,
        want: u64,
        give: &mut dyn FnMut(u64, &[u8]) -> bool,
    ) -> Result<u64, ReadError> {
        let mut next = want;
        let hint = self.streams.named(stream).map_or((0, 0), |kept| kept.hint);
        let is_of_run = run.seqs.contains(hint.0) && (run.at..=run.last).contains(&hint.1);
        let mut from = if is_of_run && hint.0 <= want {
            hint.1
        } else {
            run.at
        };
        let mut last = None;
        let mut ends = false;
        while from <= run.last && !ends {
            let chunk = self.log.read(from, CHUNK_BYTES, |position, _, payload| {
                if position > run.last {
                    ends = true;
                    return ControlFlow::Break(());
                }
                let Ok(record) = foreign::decode(payload) else {
                    return ControlFlow::Continue(());
                };
                let seq = record.envelope.seq;
                if record.stream != *stream || seq < want {
                    return ControlFlow::Continue(());
                }
                if seq != next || !run.seqs.contains(seq) {
                    // Another run of this stream stands between, or something here is damaged.
                    if run.seqs.contains(seq) && seq > next {
                        ends = true;
                        return ControlFlow::Break(());
                    }
                    return ControlFlow::Continue(());
                }
                next = seq + 1;
                last = Some(position);
                ends = give(seq, record.bytes);
                if ends {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })?;
            if chunk.next <= from {
                break;
            }
            from = chunk.next;
        }
        if let Some((id, position)) = self.streams.find(stream).zip(last)
            && let Some(kept) = self.streams.get_mut(id)
        {
            kept.hint = (next - 1, position);
        }
        Ok(next)
    }
}
