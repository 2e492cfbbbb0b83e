//! Core: records that the collector refuses for good: a dead-letter copy is kept of each.

use std::ops::ControlFlow;

use headwater_proto::frame;
use headwater_proto::ids::{Epoch, Lane, SeqRange, Stream};
use headwater_proto::message::RejectReason;
use headwater_proto::time::{Base, UnixMicros};
use headwater_spool::Disk;

use super::contents::extent;
use super::{NodeShelf, Store, place_of};
use crate::pipeline::engine::outbox::Shelf as _;
use crate::pipeline::record::{self, Envelope};

/// Bytes read at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// What was found of refused records.
#[derive(Debug, Default)]
pub(crate) struct Copied {
    /// The agent itself made all that was found.
    pub(crate) is_own: bool,
    /// Samples, where the records can be read.
    pub(crate) samples: Option<u64>,
    /// Wall time of the earliest and of the latest sample; neither if some sample has none.
    pub(crate) t_first: Option<UnixMicros>,
    pub(crate) t_last: Option<UnixMicros>,
    is_undated: bool,
    /// Segments of older copies that had to go.
    pub(crate) dropped: u64,
}

impl Copied {
    /// Counts the samples of a record.
    fn add(&mut self, envelope: Option<&Envelope<'_>>) {
        let is_wall = envelope.is_some_and(|it| it.life.base == Base::Wall);
        let extent = envelope
            .and_then(|envelope| frame::decode(envelope.frame).ok())
            .and_then(|(frame, _)| extent(&frame));
        if let Some((samples, first, last)) = extent {
            self.samples = Some(self.samples.unwrap_or(0) + samples);
            self.is_undated |= !is_wall;
            if self.is_undated {
                (self.t_first, self.t_last) = (None, None);
            } else {
                self.t_first = self.t_first.into_iter().chain([UnixMicros(first)]).min();
                self.t_last = self.t_last.into_iter().chain([UnixMicros(last)]).max();
            }
        }
    }

    /// Of some records nobody knows how many samples they had, and when they were made.
    fn compare(&mut self, read: u64, range: SeqRange) {
        if read < range.len() {
            self.samples = None;
            (self.t_first, self.t_last) = (None, None);
        }
    }
}

impl<D: Disk> Store<D> {
    /// Keeps a copy of every record of a range of a node's stream, and makes them durable.
    pub(crate) fn copy_refused_of(
        &mut self,
        stream: &Stream,
        range: SeqRange,
        reason: RejectReason,
    ) -> Copied {
        let (mut copied, mut read) = (Copied::default(), 0);
        let (lane, epoch, dead) = (stream.lane, stream.epoch, &mut self.dead);
        let mut take = |_, payload: &[u8]| {
            copied.dropped += dead.keep(lane, epoch, reason, payload);
            read += 1;
            copied.add(record::decode(payload).ok().as_ref());
            ControlFlow::Continue(())
        };
        let mut shelf = NodeShelf {
            store: &mut self.nodes,
            device: &stream.device,
        };
        // What cannot be read has no copy.
        let _ = shelf.read(lane, epoch, range, usize::MAX, &mut take);
        copied.compare(read, range);
        if !self.dead.sync() {
            self.lanes.counted.failed_syncs += 1;
        }
        copied
    }

    /// Keeps a copy of every record of a range that a source gave, and makes them durable.
    pub(crate) fn copy_refused(
        &mut self,
        lane: Lane,
        epoch: Epoch,
        range: SeqRange,
        reason: RejectReason,
    ) -> Copied {
        let at = place_of(lane);
        let mut copied = Copied::default();
        let mut own = 0;
        let mut all = 0;
        let mut take = |dead: &mut super::dead::DeadLetters<D>, payload: &[u8]| {
            all += 1;
            let envelope = record::decode(payload).ok();
            // What the agent itself says is not data.
            if envelope.as_ref().is_some_and(|it| it.source.is_empty()) {
                own += 1;
                return;
            }
            copied.dropped += dead.keep(lane, epoch, reason, payload);
            copied.add(envelope.as_ref());
        };
        let state = self.lanes.lane(at);
        if let Some(ram) = state.ram_of(epoch) {
            for record in ram.records.iter().filter(|it| range.contains(it.seq)) {
                take(&mut self.dead, &record.payload);
            }
        } else if let Some(base) = state.stored(epoch).map(|stored| stored.base) {
            let end = base + range.next;
            let mut from = base + range.first;
            while let Some(log) = self.lanes.spool.log_mut(at).filter(|_| from < end) {
                let read = log.read(from, CHUNK_BYTES, |position, _, payload| {
                    if position >= end {
                        return ControlFlow::Break(());
                    }
                    take(&mut self.dead, payload);
                    ControlFlow::Continue(())
                });
                match read {
                    Ok(chunk) if chunk.next > from => from = chunk.next,
                    _ => break,
                }
            }
        }
        if !self.dead.sync() {
            self.lanes.counted.failed_syncs += 1;
        }
        copied.is_own = all > 0 && own == all;
        copied.compare(all, range);
        copied
    }
}
