//! Core: how a record becomes durable: numbered, appended, synced with its group; and what happens
//! when the disk says no.

use std::collections::VecDeque;

use headwater_proto::frame::{self, Kind};
use headwater_proto::ids::SeqRange;
use headwater_proto::message::{self, EpochEnd, Gap};
use headwater_proto::sabotage::{self, Bug};
use headwater_proto::time::{Base, Millis, Now};
use headwater_spool::{AppendError, Disk, FullCause, SyncError};

use super::epochs::held_epoch;
use super::lane::{Held, Over, Stored};
use super::{Engine, SourceSettings};
use crate::pipeline::receipts::Owed;
use crate::pipeline::record::{self, Cursor, Envelope, Life};

/// Bytes at which a group is synced, however young it is.
pub const GROUP_BYTES: usize = 64 * 1024;
/// How often one record may see its group fail before its lane gives the disk up for a while.
pub const MAX_FAILED_SYNCS: u32 = 3;

/// The disk takes nothing at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unwritable;

impl<D: Disk> Engine<D> {
    /// Stores a record of the lane: on disk, or in memory while that cannot be written. Rows whose
    /// times count from another base than the lane's begin an epoch.
    ///
    /// - `owed`: the receipts that wait for it.
    pub(super) fn put(
        &mut self,
        at: usize,
        kind: Kind,
        record: &Envelope<'_>,
        owed: Option<Owed>,
        now: Now,
    ) {
        if !record.source.is_empty() {
            self.turn_to(at, record.life.base, now);
        }
        if self.lanes[at].ram.is_none()
            && self.try_append(at, kind, record, owed, false, now).is_ok()
        {
            if self.lanes[at].held_bytes >= GROUP_BYTES {
                self.sync_lane(at, now);
            }
            return;
        }
        self.fall_back(at, now);
        let mut payload = Vec::new();
        record.encode(&mut payload);
        self.put_ram(at, kind, &payload, owed);
    }

    /// Appends a record, making room where it may.
    pub(super) fn try_append(
        &mut self,
        at: usize,
        kind: Kind,
        record: &Envelope<'_>,
        owed: Option<Owed>,
        reserved: bool,
        now: Now,
    ) -> Result<(), Unwritable> {
        let mut failed = 0;
        loop {
            match self.append_once(at, kind, record, owed, reserved, now) {
                Ok(()) => {
                    self.name_released(at, now);
                    return Ok(());
                }
                Err(AppendError::Full {
                    cause: FullCause::Quota,
                    ..
                }) if !reserved => {
                    if !self.make_room(at, now) {
                        return Err(Unwritable);
                    }
                }
                // Others have filled the file system: the oldest that is here gives way to what
                // comes, as under a full quota. Where not even its gap finds room, it goes first.
                Err(AppendError::Full { .. }) if !reserved => {
                    if !self.make_room(at, now) && !self.release_first(at) {
                        return Err(Unwritable);
                    }
                }
                Err(AppendError::Sync(error)) => {
                    failed += 1;
                    self.failed_sync(at, &error, now);
                    if failed > MAX_FAILED_SYNCS || self.lanes[at].ram.is_some() {
                        return Err(Unwritable);
                    }
                }
                Err(
                    AppendError::Full { .. }
                    | AppendError::Disk { .. }
                    | AppendError::TooLarge(_)
                    | AppendError::SnapshotTooLarge(_),
                ) => return Err(Unwritable),
            }
        }
    }

    fn append_once(
        &mut self,
        at: usize,
        kind: Kind,
        record: &Envelope<'_>,
        owed: Option<Owed>,
        reserved: bool,
        now: Now,
    ) -> Result<(), AppendError> {
        let lane = &mut self.lanes[at];
        let record = Envelope {
            seq: lane.next_seq,
            epoch: Some(lane.epoch),
            life: lane.life,
            ..record.clone()
        };
        let mut payload = Vec::new();
        record.encode(&mut payload);
        let snapshot = |out: &mut Vec<u8>| lane.snapshot(out);
        let position = if reserved {
            self.spool
                .append_reserved(at, kind.to_u8(), &payload, &snapshot)?
        } else {
            self.spool.append(at, kind.to_u8(), &payload, &snapshot)?
        };
        lane.base.get_or_insert(position - record.seq);
        lane.marks
            .apply(&self.settings.device, lane.lane, lane.epoch, &record);
        lane.next_seq += 1;
        lane.held_since.get_or_insert(now.mono);
        lane.held_bytes += payload.len();
        let owed = owed.filter(|owed| {
            let at_once = sabotage::is(Bug::ReceiptWithoutSync);
            if at_once {
                self.receipts[owed.source].settle(owed.span);
            }
            !at_once
        });
        lane.held.push_back(Held {
            seq: record.seq,
            kind,
            payload,
            owed,
        });
        // A new segment syncs the group before it.
        let durable = self.spool.log(at).map_or(0, headwater_spool::Log::durable);
        self.note_durable(at, durable, now);
        Ok(())
    }

    /// Records of the present epoch below `position` are durable.
    fn note_durable(&mut self, at: usize, position: u64, now: Now) {
        let lane = &mut self.lanes[at];
        let Some(base) = lane.base else { return };
        let durable = position.saturating_sub(base).min(lane.next_seq);
        #[cfg(feature = "sabotage")]
        let visible = if sabotage::is(Bug::PublishBeforeSync) {
            lane.next_seq
        } else {
            durable
        };
        #[cfg(not(feature = "sabotage"))]
        let visible = durable;
        if durable <= lane.durable_seq && visible <= lane.visible_seq {
            return;
        }
        lane.visible_seq = visible;
        let (lane_id, epoch, life) = (lane.lane, lane.epoch, lane.life);
        let mut ended = Vec::new();
        while lane.held.front().is_some_and(|held| held.seq < durable) {
            let Some(held) = lane.held.pop_front() else {
                break;
            };
            lane.held_bytes -= held.payload.len();
            if let Some(owed) = held.owed {
                self.receipts[owed.source].settle(owed.span);
            }
            if let Ok(envelope) = record::decode(&held.payload) {
                lane.durable
                    .apply(&self.settings.device, lane_id, epoch, &envelope);
                let frame = frame::decode(envelope.frame).ok();
                let extent = frame.and_then(|(frame, _)| super::room::extent(&frame));
                self.counters.samples_durable += extent.map_or(0, |(samples, _, _)| samples);
                if held.kind == Kind::EpochEnd {
                    let newest = lane.durable.ended.last();
                    ended.extend(newest.map(|end| end.epoch).filter(|end| *end != epoch));
                }
            }
        }
        lane.held_since = if lane.held.is_empty() {
            None
        } else {
            lane.held_since.or(Some(now.mono))
        };
        lane.durable_seq = durable;
        match lane.epochs.iter_mut().find(|stored| stored.epoch == epoch) {
            Some(stored) => stored.next = durable,
            None if durable > 0 => {
                lane.epochs.push(Stored {
                    epoch,
                    life,
                    base,
                    first: 0,
                    next: durable,
                    released: 0,
                });
            }
            None => {}
        }
        if visible > 0 {
            let range = SeqRange::new(0, visible);
            self.outbox
                .stored(held_epoch(lane_id, epoch, range, false, life));
        }
        for epoch in ended {
            self.tell_ended(at, epoch);
        }
    }

    /// Makes the open group of a lane durable.
    pub(super) fn sync_lane(&mut self, at: usize, now: Now) {
        if self.lanes[at].held.is_empty() || self.lanes[at].ram.is_some() {
            return;
        }
        let Some(log) = self.spool.log_mut(at) else {
            return;
        };
        match log.sync() {
            Ok(durable) => self.note_durable(at, durable, now),
            Err(error) => self.failed_sync(at, &error, now),
        }
    }

    /// The open group is lost on disk, not in memory. Its positions are never used again, so its
    /// epoch ends before it, and the group goes to a new epoch; or to memory, if that fails too.
    fn failed_sync(&mut self, at: usize, error: &SyncError, now: Now) {
        self.counters.failed_syncs += 1;
        self.note_durable(at, error.lost.start, now);
        let lane = &mut self.lanes[at];
        let held = std::mem::take(&mut lane.held);
        lane.held_bytes = 0;
        lane.held_since = None;
        lane.next_seq = lane.durable_seq;
        lane.marks = lane.durable.clone();
        let ended = lane.durable.end_of(lane.epoch).is_some();
        let ends: Vec<_> = (lane.durable_seq > 0 && !ended)
            .then_some(Over::unclean(lane.epoch, lane.durable_seq))
            .into_iter()
            .collect();
        let base = lane.life.base;
        self.failing += 1;
        if self.failing <= MAX_FAILED_SYNCS && self.begin_epoch(at, base, &ends, now) {
            self.put_again(at, held, now);
        } else {
            self.go_ram(at, held, now);
        }
        self.failing -= 1;
    }

    /// Begins an epoch on disk, of this boot, whose times count from `base` and whose first records
    /// name the ends of others. On failure the lane is as it was.
    pub(super) fn begin_epoch(&mut self, at: usize, base: Base, ends: &[Over], now: Now) -> bool {
        let begun = match self.try_begin(at, base, ends, now) {
            Err(AppendError::Full {
                cause: FullCause::Quota,
                ..
            }) => {
                // A crash between a gap and its release has used up the reserve.
                self.release_first(at) && self.try_begin(at, base, ends, now).is_ok()
            }
            result => result.is_ok(),
        };
        if begun {
            self.name_released(at, now);
            for &over in ends {
                // One that found no room in the reserve: there is a segment to make room from now.
                if self.lanes[at].marks.end_of(over.epoch).is_none() {
                    let frame = frame_of(&self.epoch_end(at, over));
                    let own = self.own(&frame);
                    let _ = self.try_append(at, Kind::EpochEnd, &own, None, false, now);
                    self.sync_lane(at, now);
                }
            }
            self.restore_reserve(at, now);
        }
        begun
    }

    fn try_begin(
        &mut self,
        at: usize,
        base: Base,
        ends: &[Over],
        now: Now,
    ) -> Result<(), AppendError> {
        let bodies: Vec<_> = ends.iter().map(|&over| self.epoch_end(at, over)).collect();
        let epoch = self.draw_epoch();
        let lane = &mut self.lanes[at];
        let before = (
            (lane.epoch, lane.life),
            lane.base,
            lane.next_seq,
            lane.durable_seq,
            lane.visible_seq,
        );
        debug_assert!(lane.held.is_empty(), "a group never spans two epochs");
        (lane.epoch, lane.base) = (epoch, None);
        lane.life = Life {
            boot: self.settings.boot,
            base,
        };
        (lane.next_seq, lane.durable_seq, lane.visible_seq) = (0, 0, 0);
        lane.marks = lane.durable.clone();
        let mut result = Ok(());
        if let Some(log) = self.spool.log_mut(at) {
            result = log.roll().map_err(AppendError::from);
        }
        for end in &bodies {
            if result.is_ok() {
                result = self.append_body(at, Kind::EpochEnd, end, now);
            }
        }
        // Where a later append found no room, the ends before it stand.
        if !self.lanes[at].held.is_empty()
            && let Some(log) = self.spool.log_mut(at)
        {
            result = match log.sync() {
                Ok(durable) => {
                    self.note_durable(at, durable, now);
                    Ok(())
                }
                Err(error) => Err(error.into()),
            };
        }
        if result.is_err() {
            let lane = &mut self.lanes[at];
            lane.held.clear();
            (lane.held_bytes, lane.held_since) = (0, None);
            (
                (lane.epoch, lane.life),
                lane.base,
                lane.next_seq,
                lane.durable_seq,
                lane.visible_seq,
            ) = before;
            lane.marks = lane.durable.clone();
        }
        result
    }

    fn append_body<M: message::Body>(
        &mut self,
        at: usize,
        kind: Kind,
        body: &M,
        now: Now,
    ) -> Result<(), AppendError> {
        let frame = frame_of(body);
        let own = self.own(&frame);
        self.append_once(at, kind, &own, None, true, now)
    }

    /// Stores records of a lost group, or of a time without a disk, under new numbers.
    pub(super) fn put_again(&mut self, at: usize, records: VecDeque<Held>, now: Now) {
        for held in records {
            if let Ok(envelope) = record::decode(&held.payload) {
                self.put(at, held.kind, &envelope, held.owed, now);
            }
        }
    }

    /// The disk took no more: what it has of the open group is synced, and the lane goes to memory.
    fn fall_back(&mut self, at: usize, now: Now) {
        if self.lanes[at].ram.is_some() {
            return;
        }
        self.sync_lane(at, now);
        if self.lanes[at].ram.is_none() {
            self.go_ram(at, VecDeque::new(), now);
        }
    }

    /// Appends a gap to a lane, as any record.
    pub(super) fn put_gap(&mut self, at: usize, gap: &Gap, now: Now) {
        self.put_own(at, gap, now);
    }

    /// Appends a gap in what a source gave. Where it covers more than the records before it, the source
    /// resumes after it.
    pub(super) fn put_gap_of(
        &mut self,
        at: usize,
        source: usize,
        gap: &Gap,
        cursor: Option<Cursor>,
        now: Now,
    ) {
        let SourceSettings { name, resumes, .. } = self.settings.sources[source].clone();
        let known = self.lanes[at].marks.source(&name);
        let known = known.and_then(|mark| mark.cursor);
        let is_further = |cursor: &Cursor| !known.is_some_and(|known| known.covers(*cursor));
        let Some(cursor) = cursor.filter(|cursor| resumes && is_further(cursor)) else {
            return self.put_gap(at, gap, now);
        };
        let frame = frame_of(gap);
        let record = Envelope {
            source: &name,
            cursor: Some(cursor),
            life: self.lanes[at].present_life(),
            ..self.own(&frame)
        };
        self.put(at, Kind::Gap, &record, None, now);
    }

    /// Appends what the agent itself says.
    pub(super) fn put_own<M: message::Body>(&mut self, at: usize, body: &M, now: Now) {
        let frame = frame_of(body);
        let own = self.own(&frame);
        self.put(at, M::KIND, &own, None, now);
    }

    /// Appends a record that makes room, with the reserve.
    pub(super) fn put_reserved<M: message::Body>(
        &mut self,
        at: usize,
        body: &M,
        now: Now,
    ) -> Result<(), Unwritable> {
        let frame = frame_of(body);
        let own = self.own(&frame);
        self.try_append(at, M::KIND, &own, None, true, now)
    }

    /// The envelope of a record that the agent itself made.
    pub(super) fn own<'a>(&self, frame: &'a [u8]) -> Envelope<'a> {
        Envelope {
            seq: 0,
            epoch: None,
            // Set as the record finds its epoch.
            life: Life {
                boot: 0,
                base: Base::Wall,
            },
            stamps: self.clock.stamps(),
            source: "",
            cursor: None,
            live: false,
            last_time: None,
            schema: None,
            frame,
        }
    }

    pub(super) fn epoch_end(&self, at: usize, over: Over) -> EpochEnd {
        let Over { epoch, next, clean } = over;
        let lane = &self.lanes[at];
        let newest = lane
            .durable
            .sources
            .iter()
            .filter_map(|mark| mark.last_time)
            .max();
        EpochEnd {
            origin: self.settings.device.clone(),
            lane: lane.lane,
            epoch,
            first: 0,
            next,
            clean,
            boot: lane.life_of(epoch).map_or(0, |life| life.boot),
            last_durable: newest,
        }
    }

    /// When the open groups must be synced or batches closed.
    pub(super) fn next_group(&self) -> Option<Millis> {
        let groups = self.lanes.iter().flat_map(|lane| {
            let group = lane.sync_at().filter(|_| lane.ram.is_none());
            let probe = lane.ram.as_ref().map(|ram| ram.probe_at);
            [group, probe, lane.batcher.next_due(lane.turn())]
        });
        groups.flatten().min()
    }
}

/// The frame of a body.
pub(super) fn frame_of<M: message::Body>(body: &M) -> Vec<u8> {
    let mut out = Vec::new();
    frame::append(M::KIND, &message::to_vec(body), &mut out)
        .expect("a message is far below a frame's limit");
    out
}
