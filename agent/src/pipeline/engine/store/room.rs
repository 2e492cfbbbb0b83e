//! Core: making room. Committed segments go first; else the oldest gives way, after a durable gap
//! names what it held.

use std::ops::ControlFlow;

use headwater_proto::ids::{Epoch, Lane, SeqRange};
use headwater_proto::message::{Gap, GapReason};
use headwater_proto::sabotage::{self, Bug};
use headwater_proto::time::UnixMicros;
use headwater_spool::{AppendError, Disk, SegmentInfo, Victim};

use super::contents::Contents;
use super::draft::{Draft, Own};
use super::lane::{Group, LaneState};
use super::lanes::LaneSet;
use super::{Committed, Moment, News, Store, place_of};

/// Bytes of a segment that are looked through at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// What became of a segment that was to give way.
#[derive(Debug)]
pub(crate) enum Evicted {
    /// It went, and what it held is named.
    Gone,
    /// It is still there.
    Stays,
    /// The group of its lane, in which it was to be named, could not be synced; the segment is still there.
    Failed(Group),
}

/// Why something was not said.
#[derive(Debug)]
pub(super) enum Unsaid {
    NoRoom,
    Failed(Group),
}

/// Whether all records of a segment may be forgotten.
fn is_committed(committed: Committed<'_>, lane: &LaneState, info: &SegmentInfo) -> bool {
    let Some((epoch, first)) = lane.at_position(info.first) else {
        return false;
    };
    let range = SeqRange::new(first, first + (info.next - info.first));
    let released = lane
        .stored(epoch)
        .is_some_and(|stored| range.next <= stored.released);
    released || committed(lane.lane, epoch, range)
}

impl<D: Disk> Store<D> {
    /// Forgets records that the collector has committed: all of an epoch below `through`.
    pub(crate) fn forget(
        &mut self,
        lane: Lane,
        epoch: Epoch,
        through: u64,
        committed: Committed<'_>,
    ) {
        let at = place_of(lane);
        let lane = &mut self.lanes.lanes[at];
        if let Some(stored) = lane.epochs.iter_mut().find(|it| it.epoch == epoch) {
            stored.released = stored.released.max(through);
        }
        lane.release_ram(epoch, through);
        let Some(log) = self.lanes.spool.log(at) else {
            return;
        };
        let newest = log.segments().next_back().map(|info| info.id);
        let lane = self.lanes.lane(at);
        let done: Vec<_> = log
            .segments()
            .filter(|info| Some(info.id) != newest && is_committed(committed, lane, info))
            .map(|info| info.id)
            .collect();
        for id in done {
            self.lanes.release_segment(at, id);
        }
    }

    /// Lets a segment go, after its lane has named what it held.
    pub(crate) fn evict(
        &mut self,
        victim: &Victim,
        moment: Moment,
        committed: Committed<'_>,
    ) -> Evicted {
        let (at, info) = (victim.lane, &victim.segment);
        let is_gone = |released| {
            if released {
                Evicted::Gone
            } else {
                Evicted::Stays
            }
        };
        if is_committed(committed, self.lanes.lane(at), info) {
            return is_gone(self.lanes.release_segment(at, info.id));
        }
        let Some(contents) = self.lanes.look_through(at, info, committed) else {
            // It is of no epoch: the collector names what it misses.
            return is_gone(self.lanes.release_segment(at, info.id));
        };
        if sabotage::is(Bug::GapAfterReuse) {
            let released = self.lanes.release_segment(at, info.id);
            return match self.name_loss(at, &contents, moment) {
                Err(Unsaid::Failed(group)) => Evicted::Failed(group),
                Ok(()) | Err(Unsaid::NoRoom) => is_gone(released),
            };
        }
        // The gap is durable before the segment goes: a crash between the two leaves both.
        match self.name_loss(at, &contents, moment) {
            Ok(()) => {}
            Err(Unsaid::NoRoom) => return Evicted::Stays,
            Err(Unsaid::Failed(group)) => return Evicted::Failed(group),
        }
        let released = self.lanes.release_segment(at, info.id);
        self.note_gone(&contents);
        is_gone(released)
    }

    fn note_gone(&mut self, contents: &Contents) {
        if let Some(range) = contents.lost {
            self.lanes.counted.evicted_records += range.len();
            self.lanes.news.push(News::Gone {
                lane: self.lanes.lane(contents.lane).lane,
                epoch: contents.epoch,
                range,
            });
        }
    }

    /// The last resort of a lane whose reserve is used up: its oldest segment goes, and what it held
    /// is named right after, in the room that it leaves. A crash between the two leaves the loss to
    /// the collector, which misses the numbers below the Hello's oldest. False if nothing went.
    pub(crate) fn release_first(&mut self, at: usize, committed: Committed<'_>) -> bool {
        if self.released.iter().any(|contents| contents.lane == at) {
            return false;
        }
        let Some(victim) = self.lanes.victim(at, committed) else {
            return false;
        };
        let (lane, info) = (victim.lane, &victim.segment);
        if let Some(contents) = self.lanes.look_through(lane, info, committed) {
            self.note_gone(&contents);
            self.released.push(contents);
        }
        self.lanes.release_segment(lane, info.id)
    }

    /// Whether nothing of what was let go is still to be named.
    pub(crate) const fn is_all_named(&self) -> bool {
        self.released.is_empty()
    }

    /// A lane that takes records and of which something is still to be named.
    pub(crate) fn owes_a_name(&self) -> Option<usize> {
        let at = self.released.first()?.lane;
        self.lanes.lane(at).ram.is_none().then_some(at)
    }

    /// Names what [`Store::release_first`] let go, in a lane that is known to take records. What cannot be
    /// named now is kept.
    ///
    /// # Errors
    /// A group whose sync failed.
    pub(crate) fn name_released(&mut self, writer: usize, moment: Moment) -> Result<(), Group> {
        let mut failed = Ok(());
        for contents in std::mem::take(&mut self.released) {
            let named = match &failed {
                Ok(()) => self.name_loss(writer, &contents, moment),
                Err(_) => Err(Unsaid::NoRoom),
            };
            if let Err(unsaid) = named {
                self.released.push(contents);
                if let Unsaid::Failed(group) = unsaid {
                    failed = Err(group);
                }
            }
        }
        failed
    }

    /// Appends, with the reserve, what must be said before a segment goes, and syncs it.
    fn name_loss(
        &mut self,
        writer: usize,
        contents: &Contents,
        moment: Moment,
    ) -> Result<(), Unsaid> {
        if self.lanes.lane(writer).ram.is_some() {
            return Err(Unsaid::NoRoom);
        }
        for end in &contents.ends {
            self.lanes.say(writer, end, moment)?;
        }
        for base in &contents.bases {
            let is_own = base.origin == self.lanes.device;
            let mut lanes = self.lanes.lanes.iter();
            let counts = if is_own {
                lanes.any(|lane| lane.counts_from(base.boot))
            } else {
                self.nodes.counts_from(&base.origin, base.boot)
            };
            if counts {
                self.lanes.say(writer, base, moment)?;
            }
        }
        let lane = self.lanes.lane(contents.lane).lane;
        for (seq, gap) in &contents.gaps {
            let carrier = (lane, contents.epoch, *seq);
            if !self.gaps.is_said_elsewhere(gap, carrier) {
                self.name_gap(writer, gap.clone(), moment)?;
            }
        }
        if let Some(lost) = contents.lost {
            let gap = Gap {
                seqs: Some(lost),
                samples: contents.samples,
                t_first: contents.t_first.map(UnixMicros),
                t_last: contents.t_last.map(UnixMicros),
                ..self
                    .lanes
                    .gap(lane, contents.epoch, GapReason::Evicted, moment.now)
            };
            self.name_gap(writer, gap, moment)?;
        }
        self.lanes.sync(writer, moment.now).map_err(Unsaid::Failed)
    }

    /// Appends a gap, merged with the neighbours that were named before.
    pub(super) fn name_gap(
        &mut self,
        at: usize,
        mut gap: Gap,
        moment: Moment,
    ) -> Result<(), Unsaid> {
        let merged = self.gaps.take_touching(&mut gap);
        if let Err(unsaid) = self.lanes.say(at, &gap, moment) {
            self.gaps.put_back(merged);
            return Err(unsaid);
        }
        self.gaps.add(gap, self.lanes.newest(at));
        if let Some(coarse) = self.gaps.take_excess() {
            self.lanes.say(at, &coarse, moment)?;
            self.gaps.add(coarse, self.lanes.newest(at));
        }
        Ok(())
    }
}

impl<D: Disk> LaneSet<D> {
    /// The segment that would give way so that a lane can go on.
    pub(crate) fn victim(&self, writer: usize, committed: Committed<'_>) -> Option<Victim> {
        let lanes = &self.lanes;
        let acked = |lane: usize, info: &SegmentInfo| is_committed(committed, &lanes[lane], info);
        self.spool.victim(writer, &acked)
    }

    pub(super) fn release_segment(&mut self, at: usize, id: u64) -> bool {
        let released = matches!(self.spool.release(at, id), Ok(true));
        if let Some(log) = self.spool.log(at) {
            let firsts: Vec<_> = log.segments().map(|info| info.first).collect();
            self.lanes[at].refresh_epochs(&firsts);
        }
        released
    }

    /// How many segments all lanes have.
    pub(crate) fn segments(&self) -> usize {
        let lanes = 0..self.lanes.len();
        let logs = lanes.filter_map(|lane| self.spool.log(lane));
        logs.map(|log| log.segments().len()).sum()
    }

    /// Whether a lane's quota has no room for another segment: its reserve is in use.
    pub(crate) fn lacks_reserve(&self, at: usize) -> bool {
        let [alarm, normal, bulk] = self.settings.lane_bytes;
        // Spare files are no loss to anybody: the spool gives them up by itself.
        let used = |lane: usize| -> u64 {
            let log = self.spool.log(lane);
            log.map_or(0, |log| {
                log.segments().map(|info| info.bytes_allocated).sum()
            })
        };
        let segment = self.settings.segment_bytes;
        if at == 0 {
            used(0) + segment > alarm
        } else {
            used(1) + used(2) + segment > normal + bulk
        }
    }

    /// Appends a record of the agent itself, with the reserve.
    pub(super) fn say<B: Own>(
        &mut self,
        at: usize,
        body: &B,
        moment: Moment,
    ) -> Result<(), Unsaid> {
        let record = Draft::own(body, &self.device, moment.stamps);
        match self.write(at, record, true, moment.now) {
            Ok(()) => Ok(()),
            Err((_, AppendError::Sync(error))) => {
                let group = self.lose_group(at, &error, moment.now);
                Err(Unsaid::Failed(group))
            }
            Err(_) => Err(Unsaid::NoRoom),
        }
    }

    /// The newest record of a lane.
    pub(super) fn newest(&self, at: usize) -> (Lane, Epoch, u64) {
        let lane = &self.lanes[at];
        (lane.lane, lane.epoch, lane.next_seq.saturating_sub(1))
    }

    /// What a segment holds that is not committed; `None` if it is of no epoch.
    pub(super) fn look_through(
        &mut self,
        at: usize,
        info: &SegmentInfo,
        committed: Committed<'_>,
    ) -> Option<Contents> {
        let lane = &self.lanes[at];
        let (epoch, first) = lane.at_position(info.first)?;
        let (lane_id, end) = (lane.lane, first + (info.next - info.first));
        let committed = |seq: u64| committed(lane_id, epoch, SeqRange::new(seq, seq + 1));
        // Damaged records are lost with the others, so numbers are counted and not read.
        let open_first = (first..end).find(|&seq| !committed(seq));
        let open_last = (first..end).rev().find(|&seq| !committed(seq));
        let lost = open_first.zip(open_last);
        let lost = lost.map(|(a, b)| SeqRange::new(a, b + 1));
        let mut contents = Contents::new(at, epoch, lost);
        let log = self.spool.log_mut(at)?;
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
        let open = (first..end).filter(|&seq| !committed(seq));
        contents.compare(open.count() as u64);
        Some(contents)
    }
}
