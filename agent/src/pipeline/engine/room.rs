//! Core: making room. Committed segments go first; else the oldest gives way, after a durable gap
//! names what it held.

use std::ops::ControlFlow;

use headwater_proto::codec::BatchHeader;
use headwater_proto::frame::{self, Kind};
use headwater_proto::ids::{Epoch, Lane, SeqRange};
use headwater_proto::message::{self, EpochEnd, Gap, GapReason, Stage, TimeBase};
use headwater_proto::refused::Refused;
use headwater_proto::sabotage::{self, Bug};
use headwater_proto::text::TextHeader;
use headwater_proto::time::{Base, Now, UnixMicros};
use headwater_spool::{Disk, SegmentInfo, Victim};

use super::Engine;
use super::lane::LaneState;
use super::outbox::Outbox;
use super::store::Unwritable;
use crate::pipeline::record;

/// Most gaps kept apart; beyond it neighbours merge with reason `many`.
pub const MAX_GAPS: usize = 4096;
/// Bytes of a segment that are looked through at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// A gap that this process named, and the newest record that says so.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) gap: Gap,
    carrier: (Lane, Epoch, u64),
}

/// What is lost with a segment, and what must be said again.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// From the first to the last record that is not committed.
    lost: Option<SeqRange>,
    samples: u64,
    t_first: Option<i64>,
    t_last: Option<i64>,
    gaps: Vec<(u64, Gap)>,
    ends: Vec<EpochEnd>,
    bases: Vec<TimeBase>,
}

/// Whether all records of a segment may be forgotten.
pub(super) fn is_committed(outbox: &Outbox, lane: &LaneState, info: &SegmentInfo) -> bool {
    let Some((epoch, first)) = lane.at_position(info.first) else {
        return false;
    };
    let range = SeqRange::new(first, first + (info.next - info.first));
    let released = lane
        .stored(epoch)
        .is_some_and(|stored| range.next <= stored.released);
    released || outbox.is_committed(lane.lane, epoch, range)
}

impl<D: Disk> Engine<D> {
    /// Releases one segment so that lane `writer` can go on. False if nothing may give way.
    pub(super) fn make_room(&mut self, writer: usize, now: Now) -> bool {
        let (outbox, lanes) = (&self.outbox, &self.lanes);
        let acked = |lane: usize, info: &SegmentInfo| is_committed(outbox, &lanes[lane], info);
        let Some(victim) = self.spool.victim(writer, &acked) else {
            return false;
        };
        if acked(victim.lane, &victim.segment) {
            return self.release_segment(victim.lane, victim.segment.id);
        }
        self.evict(&victim, now)
    }

    /// Releases every segment that is wholly committed, wherever it stands.
    pub(super) fn release_committed(&mut self, at: usize) {
        let Some(log) = self.spool.log(at) else {
            return;
        };
        let newest = log.segments().next_back().map(|info| info.id);
        let lane = &self.lanes[at];
        let done: Vec<_> = log
            .segments()
            .filter(|info| Some(info.id) != newest && is_committed(&self.outbox, lane, info))
            .map(|info| info.id)
            .collect();
        for id in done {
            self.release_segment(at, id);
        }
    }

    fn release_segment(&mut self, at: usize, id: u64) -> bool {
        let released = matches!(self.spool.release(at, id), Ok(true));
        self.refresh_epochs(at);
        released
    }

    /// Takes the epochs' lowest numbers from the segments that are left.
    fn refresh_epochs(&mut self, at: usize) {
        let Some(log) = self.spool.log(at) else {
            return;
        };
        let lane = &mut self.lanes[at];
        let present = lane.epoch;
        lane.epochs.retain_mut(|stored| {
            let end = stored.base + stored.next;
            let first = log
                .segments()
                .map(|info| info.first)
                .find(|&first| (stored.base..end.max(stored.base + 1)).contains(&first));
            match first {
                Some(first) => {
                    stored.first = first - stored.base;
                    true
                }
                None => stored.epoch == present,
            }
        });
        lane.prune_ended();
    }

    fn evict(&mut self, victim: &Victim, now: Now) -> bool {
        let (at, info) = (victim.lane, victim.segment);
        let Some((epoch, _)) = self.lanes[at].at_position(info.first) else {
            // Unreadable, and of no epoch: the collector names what it misses.
            return self.release_segment(at, info.id);
        };
        let contents = self.look_through(at, &info);
        if sabotage::is(Bug::GapAfterReuse) {
            let released = self.release_segment(at, info.id);
            let lane = self.lanes[at].lane;
            let _ = self.name_loss(at, lane, epoch, &contents, now);
            return released;
        }
        let lost = contents.lost;
        // The gap is durable before the segment goes: a crash between the two leaves both.
        let lane = self.lanes[at].lane;
        if self.name_loss(at, lane, epoch, &contents, now).is_err() {
            return false;
        }
        let released = self.release_segment(at, info.id);
        if let Some(lost) = lost {
            self.counters.evicted_records += lost.len();
            self.outbox.absent(self.lanes[at].lane, epoch, lost);
        }
        released
    }

    /// The last resort of a lane whose reserve is used up: its oldest segment goes, and what it held
    /// is named right after, in the room that it leaves. A crash between the two leaves the loss to
    /// the collector, which misses the numbers below the Hello's oldest.
    pub(super) fn release_first(&mut self, at: usize) -> bool {
        if self.released.iter().any(|(lane, _, _)| *lane == at) {
            return false;
        }
        let (outbox, lanes) = (&self.outbox, &self.lanes);
        let acked = |lane: usize, info: &SegmentInfo| is_committed(outbox, &lanes[lane], info);
        let Some(victim) = self.spool.victim(at, &acked) else {
            return false;
        };
        let (lane, info) = (victim.lane, victim.segment);
        let Some((epoch, _)) = self.lanes[lane].at_position(info.first) else {
            return self.release_segment(lane, info.id);
        };
        let contents = self.look_through(lane, &info);
        if let Some(lost) = contents.lost {
            self.counters.evicted_records += lost.len();
            self.outbox.absent(self.lanes[lane].lane, epoch, lost);
        }
        self.released.push((lane, epoch, contents));
        self.release_segment(lane, info.id)
    }

    /// Names what [`Engine::release_first`] let go, in the lane that is known to take records. What
    /// cannot be named now is kept for the next tick.
    pub(super) fn name_released(&mut self, at: usize, now: Now) {
        for (lane, epoch, contents) in std::mem::take(&mut self.released) {
            let lane_id = self.lanes[lane].lane;
            if self.name_loss(at, lane_id, epoch, &contents, now).is_err() {
                self.released.push((lane, epoch, contents));
            }
        }
    }

    /// Tries again to name what could not be named.
    pub(super) fn name_what_is_owed(&mut self, now: Now) {
        let owed = self.released.first().map(|(lane, _, _)| *lane);
        if let Some(at) = owed.filter(|&at| self.lanes[at].ram.is_none()) {
            self.name_released(at, now);
        }
    }

    /// Makes room until the reserve is whole again, while the open segment takes the gaps. It is a single
    /// segment, but the quota may have been lowered since the last start: each that is there may have to
    /// go, and none of those that the gaps themselves begin.
    pub(super) fn restore_reserve(&mut self, at: usize, now: Now) {
        let spool = self.settings.spool;
        let [alarm, normal, bulk] = spool.lane_bytes;
        let lanes = 0..self.spool.len();
        let segments: usize = lanes
            .filter_map(|lane| self.spool.log(lane))
            .map(|log| log.segments().len())
            .sum();
        for _ in 0..segments {
            // Spare files are no loss to anybody: the spool gives them up by itself.
            let used = |lane: usize| -> u64 {
                let log = self.spool.log(lane);
                log.map_or(0, |log| {
                    log.segments().map(|info| info.bytes_allocated).sum()
                })
            };
            let over = if at == 0 {
                used(0) + spool.segment_bytes > alarm
            } else {
                used(1) + used(2) + spool.segment_bytes > normal + bulk
            };
            if !over || !self.make_room(at, now) {
                return;
            }
        }
    }

    /// Appends, with the reserve, what must be said before a segment goes, and syncs it.
    fn name_loss(
        &mut self,
        at: usize,
        lane: Lane,
        epoch: Epoch,
        contents: &Contents,
        now: Now,
    ) -> Result<(), Unwritable> {
        for end in &contents.ends {
            self.put_reserved(at, end, now)?;
        }
        for base in &contents.bases {
            if self.lanes.iter().any(|lane| lane.counts_from(base.boot)) {
                self.put_reserved(at, base, now)?;
            }
        }
        for (seq, gap) in &contents.gaps {
            let superseded = self
                .gaps
                .iter()
                .any(|named| named.carrier != (lane, epoch, *seq) && covers(&named.gap, gap));
            if !superseded {
                self.name_gap(at, gap.clone(), now)?;
            }
        }
        if let Some(lost) = contents.lost {
            let gap = Gap {
                seqs: Some(lost),
                samples: Some(contents.samples),
                t_first: contents.t_first.map(UnixMicros),
                t_last: contents.t_last.map(UnixMicros),
                ..self.gap(lane, epoch, GapReason::Evicted, now)
            };
            self.name_gap(at, gap, now)?;
        }
        let failed = self.counters.failed_syncs;
        self.sync_lane(at, now);
        let durable = self.lanes[at].held.is_empty() && self.counters.failed_syncs == failed;
        if durable { Ok(()) } else { Err(Unwritable) }
    }

    /// Appends a gap, merged with the neighbours that were named before.
    pub(super) fn name_gap(&mut self, at: usize, mut gap: Gap, now: Now) -> Result<(), Unwritable> {
        let mut merged = Vec::new();
        while let Some(near) = self.gaps.iter().position(|named| touches(&named.gap, &gap)) {
            let near = self.gaps.swap_remove(near);
            merge(&mut gap, &near.gap);
            merged.push(near);
        }
        if let Err(refused) = self.put_reserved(at, &gap, now) {
            self.gaps.append(&mut merged);
            return Err(refused);
        }
        let lane = &self.lanes[at];
        let carrier = (lane.lane, lane.epoch, lane.next_seq.saturating_sub(1));
        self.gaps.push(Named { gap, carrier });
        if self.gaps.len() > MAX_GAPS {
            self.merge_nearest(at, now)?;
        }
        Ok(())
    }

    /// Merges the two gaps of one epoch that lie nearest to each other: coarser, never silent.
    fn merge_nearest(&mut self, at: usize, now: Now) -> Result<(), Unwritable> {
        let key = |named: &Named| {
            let first = named.gap.seqs.map_or(0, |range| range.first);
            (named.gap.lane, named.gap.epoch, first)
        };
        self.gaps.sort_by_key(key);
        let nearest = self
            .gaps
            .windows(2)
            .enumerate()
            .filter_map(|(i, pair)| {
                let same = key(&pair[0]).0 == key(&pair[1]).0 && key(&pair[0]).1 == key(&pair[1]).1;
                let (a, b) = (pair[0].gap.seqs?, pair[1].gap.seqs?);
                same.then(|| (b.first.saturating_sub(a.next), i))
            })
            .min();
        let Some((_, i)) = nearest else {
            // No two of one epoch: the oldest is on disk already, and only forgotten here.
            self.gaps.remove(0);
            return Ok(());
        };
        let other = self.gaps.remove(i + 1).gap;
        let mut gap = self.gaps.remove(i).gap;
        merge(&mut gap, &other);
        (gap.reason, gap.samples) = (GapReason::Many, None);
        self.put_reserved(at, &gap, now)?;
        let lane = &self.lanes[at];
        let carrier = (lane.lane, lane.epoch, lane.next_seq.saturating_sub(1));
        self.gaps.push(Named { gap, carrier });
        Ok(())
    }

    fn look_through(&mut self, at: usize, info: &SegmentInfo) -> Contents {
        let mut contents = Contents::default();
        let (outbox, lane) = (&self.outbox, &self.lanes[at]);
        let Some((epoch, first)) = lane.at_position(info.first) else {
            return contents;
        };
        let (lane_id, end) = (lane.lane, first + (info.next - info.first));
        let committed = |seq: u64| outbox.is_committed(lane_id, epoch, SeqRange::new(seq, seq + 1));
        // Damaged records are lost with the others, so numbers are counted and not read.
        let open_first = (first..end).find(|&seq| !committed(seq));
        let open_last = (first..end).rev().find(|&seq| !committed(seq));
        contents.lost = open_first
            .zip(open_last)
            .map(|(a, b)| SeqRange::new(a, b + 1));
        let Some(log) = self.spool.log_mut(at) else {
            return contents;
        };
        let mut from = info.first;
        while from < info.next {
            let read = log.read(from, CHUNK_BYTES, |position, _, payload| {
                if position >= info.next {
                    return ControlFlow::Break(());
                }
                let seq = first + (position - info.first);
                if !committed(seq) {
                    contents.take(seq, payload);
                }
                ControlFlow::Continue(())
            });
            match read {
                Ok(chunk) if chunk.next > from => from = chunk.next,
                _ => break,
            }
        }
        contents
    }

    pub(super) fn gap(&self, lane: Lane, epoch: Epoch, reason: GapReason, now: Now) -> Gap {
        Gap {
            origin: self.settings.device.clone(),
            lane,
            epoch,
            seqs: None,
            samples: None,
            t_first: None,
            t_last: None,
            reason,
            stage: Stage::Agent,
            part: None,
            at: now.wall,
        }
    }
}

impl Contents {
    fn take(&mut self, seq: u64, payload: &[u8]) {
        let Ok(envelope) = record::decode(payload) else {
            return;
        };
        let Ok((frame, _)) = frame::decode(envelope.frame) else {
            return;
        };
        if frame.kind == Kind::Gap {
            if let Ok(gap) = message::decode::<Gap>(frame.payload) {
                self.gaps.push((seq, gap));
            }
        } else if frame.kind == Kind::EpochEnd {
            if let Ok(end) = message::decode::<EpochEnd>(frame.payload) {
                self.ends.push(end);
            }
        } else if frame.kind == Kind::TimeBase {
            if let Ok(base) = message::decode::<TimeBase>(frame.payload) {
                self.bases.push(base);
            }
        } else if let Some((samples, first, last)) = extent(&frame) {
            self.samples += samples;
            if envelope.life.base == Base::Wall {
                self.t_first = Some(self.t_first.map_or(first, |t| t.min(first)));
                self.t_last = Some(self.t_last.map_or(last, |t| t.max(last)));
            }
        }
    }
}

/// Samples, earliest and latest time of a data frame.
pub(super) fn extent(frame: &frame::Frame<'_>) -> Option<(u64, i64, i64)> {
    if frame.kind == Kind::Batch {
        let header = BatchHeader::peek(frame.payload).ok()?;
        Some((
            u64::from(header.samples),
            header.first_time_us,
            header.last_time_us,
        ))
    } else if frame.kind == Kind::Text {
        let (header, _) = TextHeader::read(frame.payload)?;
        Some((
            u64::from(header.lines),
            header.first_time_us,
            header.last_time_us,
        ))
    } else if frame.kind == Kind::Refused {
        let parts = Refused::decode(frame.payload)?;
        let (first, last) = parts.span_us();
        Some((u64::from(parts.count), first, last))
    } else {
        None
    }
}

fn same_epoch(a: &Gap, b: &Gap) -> bool {
    a.origin == b.origin && a.lane == b.lane && a.epoch == b.epoch
}

fn covers(outer: &Gap, inner: &Gap) -> bool {
    let within = match (outer.seqs, inner.seqs) {
        (Some(outer), Some(inner)) => outer.first <= inner.first && inner.next <= outer.next,
        _ => false,
    };
    within && same_epoch(outer, inner)
}

/// Whether two gaps of one reason are one: overlapping or side by side.
fn touches(a: &Gap, b: &Gap) -> bool {
    let near = match (a.seqs, b.seqs) {
        (Some(a), Some(b)) => a.first <= b.next && b.first <= a.next,
        _ => false,
    };
    near && same_epoch(a, b) && a.reason == b.reason && a.part == b.part
}

/// Widens `gap` by `other`.
fn merge(gap: &mut Gap, other: &Gap) {
    if let (Some(a), Some(b)) = (gap.seqs, other.seqs) {
        let apart = a.next <= b.first || b.next <= a.first;
        gap.samples = gap
            .samples
            .zip(other.samples)
            .filter(|_| apart)
            .map(|(a, b)| a + b);
        gap.seqs = Some(SeqRange::new(a.first.min(b.first), a.next.max(b.next)));
    }
    gap.t_first = gap.t_first.into_iter().chain(other.t_first).min();
    gap.t_last = gap.t_last.into_iter().chain(other.t_last).max();
}
