//! Core: records that the collector refuses for good: a dead-letter copy and a gap take their place.
//!
//! A dead letter is the lane (1 byte), the epoch (8, little-endian), the length and name of the
//! reason, and the record as it stood in the spool.

use std::ops::ControlFlow;

use headwater_proto::frame;
use headwater_proto::ids::{Epoch, Lane, SeqRange};
use headwater_proto::message::{Gap, GapReason, RejectReason};
use headwater_proto::time::{Base, Now, UnixMicros};
use headwater_spool::{AppendError, Disk};

use super::Engine;
use super::room::extent;
use crate::pipeline::record;

/// The kind of a record in the log of dead letters.
pub const DEAD_LETTER: u8 = 200;

/// Bytes read at once.
const CHUNK_BYTES: usize = 256 * 1024;

impl<D: Disk> Engine<D> {
    /// The collector will never take these: a dead-letter copy and a gap, both durable, take their
    /// place.
    pub(super) fn refused(
        &mut self,
        lane: Lane,
        epoch: Epoch,
        range: SeqRange,
        reason: RejectReason,
        now: Now,
    ) {
        let at = self.index_of(lane);
        self.counters.refused_records += range.len();
        let mut copies = Vec::new();
        let state = &self.lanes[at];
        if let Some(ram) = state.ram_of(epoch) {
            let wanted = ram
                .records
                .iter()
                .filter(|record| range.contains(record.seq));
            copies.extend(wanted.map(|record| record.payload.clone()));
        } else if let Some(base) = state.stored(epoch).map(|stored| stored.base) {
            let mut from = base + range.first;
            while let Some(log) = self.spool.log_mut(at).filter(|_| from < base + range.next) {
                let read = log.read(from, CHUNK_BYTES, |position, _, payload| {
                    if position >= base + range.next {
                        return ControlFlow::Break(());
                    }
                    copies.push(payload.to_vec());
                    ControlFlow::Continue(())
                });
                match read {
                    Ok(chunk) if chunk.next > from => from = chunk.next,
                    _ => break,
                }
            }
        }
        let mut gap = Gap {
            seqs: Some(range),
            ..self.gap(lane, epoch, GapReason::Refused, now)
        };
        // What the agent itself says is not data: were its refusal named, that gap would be refused
        // for the same reason, without end.
        let is_own = |payload: &Vec<u8>| {
            record::decode(payload).is_ok_and(|envelope| envelope.source.is_empty())
        };
        if !copies.is_empty() && copies.iter().all(is_own) {
            return;
        }
        copies.retain(|payload| !is_own(payload));
        for payload in &copies {
            let envelope = record::decode(payload).ok();
            let is_wall = envelope.as_ref().is_some_and(|e| e.life.base == Base::Wall);
            let extent = envelope
                .and_then(|envelope| frame::decode(envelope.frame).ok())
                .and_then(|(frame, _)| extent(&frame));
            if let Some((samples, first, last)) = extent {
                gap.samples = Some(gap.samples.unwrap_or(0) + samples);
                let time = |us| is_wall.then_some(UnixMicros(us));
                gap.t_first = gap.t_first.into_iter().chain(time(first)).min();
                gap.t_last = gap.t_last.into_iter().chain(time(last)).max();
            }
            self.keep_dead_letter(at, epoch, reason, payload, now);
        }
        if self.dead_letters.sync().is_err() {
            self.counters.failed_syncs += 1;
        }
        self.put_gap(at, &gap, now);
        self.sync_lane(at, now);
    }

    fn keep_dead_letter(
        &mut self,
        at: usize,
        epoch: Epoch,
        reason: RejectReason,
        payload: &[u8],
        now: Now,
    ) {
        let lane = self.lanes[at].lane;
        let mut copy = vec![lane.to_u8()];
        copy.extend_from_slice(&epoch.get().to_le_bytes());
        copy.push(u8::try_from(reason.name().len()).unwrap_or(0));
        copy.extend_from_slice(reason.name().as_bytes());
        copy.extend_from_slice(payload);
        loop {
            match self.dead_letters.append(DEAD_LETTER, &copy, &|_| {}) {
                Ok(_) => return,
                Err(AppendError::Full { .. }) => {
                    let oldest = self.dead_letters.segments().next().map(|info| info.id);
                    let went =
                        oldest.is_some_and(|id| matches!(self.dead_letters.release(id), Ok(true)));
                    if !went {
                        return;
                    }
                    let part = "dead_letters".parse().ok();
                    let gap = Gap {
                        part,
                        ..self.gap(lane, epoch, GapReason::CopyDropped, now)
                    };
                    self.put_gap(at, &gap, now);
                }
                // The gap is what the promise asks for; the copy is a help.
                Err(_) => return,
            }
        }
    }
}
