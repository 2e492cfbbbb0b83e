//! Core: the lanes of the store, on disk and in memory: numbering, appending, syncing, epochs.

use std::collections::BTreeSet;
use std::sync::Arc;

use headwater_proto::bundle::Stamps;
use headwater_proto::delivery::{HeldEpoch, RecordRef};
use headwater_proto::ids::{DeviceId, Epoch, Lane, SeqRange};
use headwater_proto::message::{EpochEnd, Gap, GapReason, Stage};
use headwater_proto::sabotage::{self, Bug};
use headwater_proto::time::{Base, Millis, Now};
use headwater_spool::{AppendError, Disk, FullCause, Lanes, Log, SyncError};

use super::draft::{Draft, Says};
use super::lane::{Group, Held, LaneState, Over, Stored};
use super::names::EpochNames;
use super::open;
use super::{Append, Committed, Counted, Moment, News};
use crate::pipeline::engine::types::{
    EngineError, LaneStatus, Settings, SourceSettings, SpoolSettings,
};
use crate::pipeline::record::{Cursor, Life};

/// The lanes of one agent, most urgent first.
pub(crate) struct LaneSet<D: Disk> {
    pub(super) device: DeviceId,
    boot: u64,
    pub(super) settings: SpoolSettings,
    pub(super) spool: Lanes<D>,
    pub(super) lanes: Vec<LaneState>,
    pub(super) names: EpochNames,
    pub(super) news: Vec<News>,
    pub(super) counted: Counted,
}

impl<D: Disk> LaneSet<D> {
    /// Builds the lanes from what their logs say. Every one gets a new epoch, whose times count from
    /// `base`.
    ///
    /// # Errors
    /// [`EngineError::Version`].
    pub(super) fn open(
        spool: Lanes<D>,
        settings: &Settings,
        base: Base,
        random: (u64, u64),
    ) -> Result<Self, EngineError> {
        let mut set = Self {
            device: settings.device.clone(),
            boot: settings.boot,
            settings: settings.spool,
            spool,
            lanes: Vec::new(),
            names: EpochNames::new(random),
            news: Vec::new(),
            counted: Counted::default(),
        };
        for (at, lane) in Lane::AGENT.into_iter().enumerate() {
            let Some(log) = set.spool.log_mut(at) else {
                break;
            };
            let mut found = open::look(log, &settings.device, lane)?;
            // A source that is gone loses nothing after this start.
            for mark in &mut found.marks.sources {
                let is_there = |source: &SourceSettings| source.name == mark.name && source.loses;
                mark.live &= settings.sources.iter().any(is_there);
            }
            let group_ms = match lane {
                Lane::Alarm => 0,
                Lane::Bulk => settings.bulk_group_ms,
                Lane::Normal | Lane::Plain => settings.group_ms,
            };
            let present = (set.names.draw(), set.life(base));
            let lane = LaneState::new(lane, present, found, group_ms);
            set.lanes.push(lane);
        }
        Ok(set)
    }

    pub(super) const fn life(&self, base: Base) -> Life {
        Life {
            boot: self.boot,
            base,
        }
    }

    /// The news since the last call.
    pub(crate) fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    pub(crate) const fn counted(&self) -> Counted {
        self.counted
    }

    /// How each lane is doing.
    pub(crate) fn statuses(&self) -> impl Iterator<Item = LaneStatus> + '_ {
        self.lanes.iter().enumerate().map(|(at, lane)| LaneStatus {
            lane: lane.lane,
            epoch: lane.epoch,
            disk_bytes: self.spool.log(at).map_or(0, Log::used_bytes),
            memory_bytes: lane.held_bytes + lane.ram_bytes(),
            in_ram: lane.ram.is_some(),
        })
    }

    /// One lane, to look at.
    pub(crate) fn lane(&self, at: usize) -> &LaneState {
        &self.lanes[at]
    }

    /// The highest of a source's durable cursors. In one life its readings go to one lane, in order;
    /// so where a later life chose another lane, the highest cursor stands for all before it.
    pub(crate) fn resume_at(&self, name: &str) -> Option<Cursor> {
        let marks = self
            .lanes
            .iter()
            .filter_map(|lane| lane.durable.source(name));
        marks
            .filter_map(|mark| mark.cursor)
            .max_by_key(|cursor| (cursor.major, cursor.minor))
    }

    /// The sources that have a durable cursor.
    pub(crate) fn resumable(&self) -> BTreeSet<&str> {
        let marks = self.lanes.iter().flat_map(|lane| &lane.durable.sources);
        let marks = marks.filter(|mark| mark.cursor.is_some());
        marks.map(|mark| mark.name.as_str()).collect()
    }

    /// Whether any lane holds records whose times count from this boot.
    pub(crate) fn counts_from_boot(&self) -> bool {
        self.lanes.iter().any(|lane| lane.counts_from(self.boot))
    }

    /// Takes in the schemas of a lane's batches that are in use, by number.
    pub(crate) fn use_schemas<'a>(
        &mut self,
        at: usize,
        schemas: impl Iterator<Item = (u32, &'a Arc<[u8]>)> + Clone,
    ) {
        let known = &mut self.lanes[at].schemas;
        let numbers = known.iter().map(|(number, _)| *number);
        if !numbers.eq(schemas.clone().map(|(number, _)| number)) {
            known.clear();
            known.extend(schemas.map(|(number, bytes)| (number, Arc::clone(bytes))));
        }
    }

    /// What a lane's log holds, for the sender: another lane may hold the record that dates it.
    pub(crate) fn held_epochs(&self, at: usize) -> Vec<HeldEpoch> {
        let lane = &self.lanes[at];
        let record = |lane: Lane, (epoch, seq): (Epoch, u64)| RecordRef { lane, epoch, seq };
        let dated_by = |life: Life| {
            let counts = life.base == Base::Uptime && life.boot != self.boot;
            counts.then(|| self.dated_by(&self.device, life.boot))?
        };
        let held = lane.epochs.iter().map(|stored| {
            let end = lane.durable.end_of(stored.epoch);
            let named = end
                .map(|end| end.named_in)
                .filter(|(epoch, _)| *epoch != stored.epoch);
            let range = SeqRange::new(stored.first, stored.next);
            HeldEpoch {
                // Without an end on record it stays in the Hello until one is.
                ended: end.is_some(),
                end_named_in: named.map(|named| record(lane.lane, named)),
                dated_by: dated_by(stored.life),
                ..held_epoch(lane.lane, stored.epoch, range, false, stored.life)
            }
        });
        held.collect()
    }

    /// The record that dates a boot, of this device or of a node.
    pub(crate) fn dated_by(&self, device: &DeviceId, boot: u64) -> Option<RecordRef> {
        let mut found = self.lanes.iter().filter_map(|lane| {
            let mut bases = lane.durable.bases.iter();
            let base = bases.find(|base| base.boot == boot && base.device == *device)?;
            let (epoch, seq) = base.named_in;
            let lane = lane.lane;
            Some(RecordRef { lane, epoch, seq })
        });
        found.next()
    }

    /// Appends a record to its lane.
    pub(crate) fn append(
        &mut self,
        at: usize,
        record: Box<Draft>,
        now: Now,
        committed: Committed<'_>,
    ) -> Append {
        if self.lanes[at].ram.is_some() {
            self.keep_in_memory(at, record);
            return Append::Appended;
        }
        match self.write(at, record, false, now) {
            Ok(()) => Append::Appended,
            Err((record, AppendError::Full { cause, .. })) => Append::Full {
                record,
                victim: self.victim(at, committed),
                by_others: cause != FullCause::Quota,
            },
            Err((record, AppendError::Sync(error))) => Append::Failed {
                group: self.lose_group(at, &error, now),
                record,
            },
            Err((
                record,
                AppendError::Disk { .. }
                | AppendError::TooLarge(_)
                | AppendError::SnapshotTooLarge(_),
            )) => Append::Unwritable(record),
        }
    }

    /// Writes a record to the open group. `reserved`: it may use the reserve.
    pub(super) fn write(
        &mut self,
        at: usize,
        mut record: Box<Draft>,
        reserved: bool,
        now: Now,
    ) -> Result<(), (Box<Draft>, AppendError)> {
        let lane = &mut self.lanes[at];
        let seq = lane.next_seq;
        let payload = record.payload(seq, Some(lane.epoch), lane.life);
        let snapshot = |out: &mut Vec<u8>| lane.snapshot(out);
        let kind = record.kind.to_u8();
        let appended = if reserved {
            self.spool.append_reserved(at, kind, &payload, &snapshot)
        } else {
            self.spool.append(at, kind, &payload, &snapshot)
        };
        let position = match appended {
            Ok(position) => position,
            Err(error) => return Err((record, error)),
        };
        let base = *lane.base.get_or_insert(position - seq);
        debug_assert_eq!(
            base + seq,
            position,
            "a group that failed needs a new epoch"
        );
        lane.marks.apply(lane.lane, lane.epoch, seq, &record);
        lane.next_seq += 1;
        lane.held_since.get_or_insert(now.mono);
        lane.held_bytes += payload.len();
        if sabotage::is(Bug::ReceiptWithoutSync) {
            self.news.extend(record.owed.take().map(News::Durable));
        }
        lane.held.push_back(Held {
            seq,
            bytes: payload.len(),
            record,
        });
        // A new segment syncs the group before it.
        let durable = self.spool.log(at).map_or(0, Log::durable);
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
        while let Some(held) = lane.held.pop_front_if(|held| held.seq < durable) {
            lane.held_bytes -= held.bytes;
            self.news.extend(held.record.owed.map(News::Durable));
            lane.durable.apply(lane_id, epoch, held.seq, &held.record);
            self.counted.samples_durable += held.record.samples;
            if let Says::End {
                lane: of,
                epoch: over,
                ..
            } = held.record.says
                && of == lane_id
                && over != epoch
            {
                ended.push(over);
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
            let held = held_epoch(lane_id, epoch, range, false, life);
            self.news.push(News::Stored(held));
        }
        for epoch in ended {
            self.tell_ended(at, epoch);
        }
    }

    /// An epoch is over: a durable record says so, or one of the RAM epoch while there is no disk.
    pub(super) fn tell_ended(&mut self, at: usize, epoch: Epoch) {
        let lane = &self.lanes[at];
        let end = lane
            .durable
            .end_of(epoch)
            .or_else(|| lane.marks.end_of(epoch));
        let named = end.map(|end| end.named_in);
        let lane = lane.lane;
        let named = named.map(|(epoch, seq)| RecordRef { lane, epoch, seq });
        self.news.push(News::Ended { lane, epoch, named });
    }

    /// Makes the open group of a lane durable.
    ///
    /// # Errors
    /// The group: it is lost on disk, and needs a new epoch.
    pub(crate) fn sync(&mut self, at: usize, now: Now) -> Result<(), Group> {
        if self.lanes[at].held.is_empty() || self.lanes[at].ram.is_some() {
            return Ok(());
        }
        let Some(log) = self.spool.log_mut(at) else {
            return Ok(());
        };
        match log.sync() {
            Ok(durable) => {
                self.note_durable(at, durable, now);
                Ok(())
            }
            Err(error) => Err(self.lose_group(at, &error, now)),
        }
    }

    /// The open group is lost on disk, not in memory. Its positions are never used again, so its
    /// epoch must end before it, and the group goes to a new epoch, or to memory.
    pub(super) fn lose_group(&mut self, at: usize, error: &SyncError, now: Now) -> Group {
        self.counted.failed_syncs += 1;
        self.note_durable(at, error.lost.start, now);
        let lane = &mut self.lanes[at];
        lane.next_seq = lane.durable_seq;
        lane.marks = lane.durable.clone();
        let present = lane.epoch;
        let mut group = lane.take_held();
        // An end that counted itself as the last record is wrong now; the next epoch says the right one.
        group.retain(|it| !matches!(it.says, Says::End { epoch, .. } if epoch == present));
        group
    }

    /// The present epoch of a lane as one that ends here: what it did not make durable goes to the next one.
    pub(crate) fn over(&self, at: usize) -> Option<Over> {
        let lane = &self.lanes[at];
        let is_open = lane.durable_seq > 0 && lane.durable.end_of(lane.epoch).is_none();
        is_open.then_some(Over {
            epoch: lane.epoch,
            next: lane.durable_seq,
            clean: true,
        })
    }

    /// Begins an epoch on disk, of this boot, whose times count from `base` and whose first records name
    /// gaps and then the ends of others, as far as these find room in the reserve. On failure the lane is as it was.
    ///
    /// # Errors
    /// [`AppendError`].
    pub(super) fn try_begin(
        &mut self,
        at: usize,
        base: Base,
        (gaps, ends): (&[Gap], &[Over]),
        moment: Moment,
    ) -> Result<(), AppendError> {
        let gaps = gaps.iter();
        let gaps = gaps.map(|gap| Draft::own(gap, &self.device, moment.stamps));
        let ends = ends.iter();
        let ends = ends.map(|&over| self.end_record(at, over, moment.stamps));
        let records: Vec<_> = gaps.chain(ends).collect();
        let (epoch, life) = (self.names.draw(), self.life(base));
        let lane = &mut self.lanes[at];
        let before = (
            (lane.epoch, lane.life),
            lane.base,
            lane.next_seq,
            lane.durable_seq,
            lane.visible_seq,
        );
        debug_assert!(lane.held.is_empty(), "a group never spans two epochs");
        (lane.epoch, lane.life, lane.base) = (epoch, life, None);
        (lane.next_seq, lane.durable_seq, lane.visible_seq) = (0, 0, 0);
        lane.marks = lane.durable.clone();
        let mut result = Ok(());
        if let Some(log) = self.spool.log_mut(at) {
            result = log.roll().map_err(AppendError::from);
        }
        for record in records {
            if result.is_ok() {
                let written = self.write(at, record, true, moment.now);
                result = written.map_err(|(_, error)| error);
            }
        }
        // Where a later append found no room, the ends before it stand.
        if !self.lanes[at].held.is_empty()
            && let Some(log) = self.spool.log_mut(at)
        {
            result = match log.sync() {
                Ok(durable) => {
                    self.note_durable(at, durable, moment.now);
                    Ok(())
                }
                Err(error) => Err(error.into()),
            };
        }
        if result.is_err() {
            let lane = &mut self.lanes[at];
            lane.take_held();
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

    /// The record that says that an epoch is over.
    pub(crate) fn end_record(&self, at: usize, over: Over, stamps: Stamps) -> Box<Draft> {
        let Over { epoch, next, clean } = over;
        let lane = &self.lanes[at];
        let newest = lane
            .durable
            .sources
            .iter()
            .filter_map(|mark| mark.stored_to)
            .max();
        let end = EpochEnd {
            origin: self.device.clone(),
            lane: lane.lane,
            epoch,
            first: 0,
            next,
            clean,
            boot: lane.life_of(epoch).map_or(0, |life| life.boot),
            last_durable: newest,
        };
        Draft::own(&end, &self.device, stamps)
    }

    /// Takes note that the base of a lane's times changes.
    pub(crate) fn note_turn(&mut self, at: usize, now: Millis) {
        self.lanes[at].turned_at = Some(now);
    }

    /// Makes a lane without a record in its epoch take rows whose times count from `base`; false if there
    /// are records, so that it takes another epoch.
    pub(crate) fn turn_new(&mut self, at: usize, base: Base) -> bool {
        let lane = &mut self.lanes[at];
        let is_new = lane.next_seq == 0;
        if is_new {
            lane.life.base = base;
        }
        is_new
    }

    /// Goes on under the epoch of the life before, if there is one: only a sabotaged engine does.
    pub(crate) fn go_on_with_last(&mut self, at: usize) -> bool {
        let next = self.spool.log(at).map_or(0, Log::next);
        let lane = &mut self.lanes[at];
        let Some(stored) = lane.epochs.last().copied() else {
            return false;
        };
        (lane.epoch, lane.life) = (stored.epoch, stored.life);
        lane.base = Some(stored.base);
        lane.next_seq = next.saturating_sub(stored.base);
        lane.durable_seq = lane.next_seq;
        lane.visible_seq = lane.next_seq;
        true
    }

    /// A gap in what an epoch of this device holds, with nothing but its place and reason.
    pub(crate) fn gap(&self, lane: Lane, epoch: Epoch, reason: GapReason, now: Now) -> Gap {
        Gap {
            origin: self.device.clone(),
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

/// An epoch that goes on.
pub(super) const fn held_epoch(
    lane: Lane,
    epoch: Epoch,
    range: SeqRange,
    ram: bool,
    life: Life,
) -> HeldEpoch {
    HeldEpoch {
        lane,
        epoch,
        first: range.first,
        next: range.next,
        ram,
        ended: false,
        boot: life.boot,
        base: life.base,
        end_named_in: None,
        dated_by: None,
    }
}
