//! Core: what a start makes of the spool it finds.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use headwater_proto::delivery::{HeldEpoch, RecordRef};
use headwater_proto::ids::{Epoch, Lane, SeqRange};
use headwater_proto::sabotage::{self, Bug};
use headwater_proto::time::{Base, Now};
use headwater_spool::{Disk, Lanes, Log, SegmentInfo};

use super::epochs::held_epoch;
use super::lane::{LaneState, Marks, Over, Stored};
use super::{Engine, EngineError, Settings};
use crate::pipeline::batcher::{BatchLimits, Batcher};
use crate::pipeline::record::{self, Life, SNAPSHOT_VERSION, Snapshot, Unclean};

/// Least age at which a batch of the bulk lane closes: its group waits for seconds anyway, and larger
/// batches take fewer bytes a row.
const BULK_AGE_MS: u64 = 1_000;
/// Bytes read at once while the newest segment is replayed.
const CHUNK_BYTES: usize = 256 * 1024;

/// What one lane's log says.
pub(super) struct Found {
    epochs: Vec<Stored>,
    marks: Marks,
}

/// Reads the snapshots of all segments and replays from the newest on; from the oldest segment if
/// no snapshot is left.
///
/// # Errors
/// [`EngineError::Version`].
pub(super) fn look<D: Disk>(
    log: &mut Log<D>,
    settings: &Settings,
    lane: Lane,
) -> Result<Found, EngineError> {
    let infos: Vec<SegmentInfo> = log
        .segments()
        .filter(|info| info.readable)
        .copied()
        .collect();
    let mut epochs: Vec<Stored> = Vec::new();
    let mut newest = None;
    for info in &infos {
        let bytes = log.snapshot_of(info.id).ok().flatten().unwrap_or_default();
        if let Some(found) = Snapshot::version_of(&bytes).filter(|v| *v != SNAPSHOT_VERSION) {
            return Err(EngineError::Version { lane, found });
        }
        match Snapshot::decode(&bytes).ok() {
            Some(snapshot) if snapshot.first_seq <= info.first => {
                let base = info.first - snapshot.first_seq;
                add_segment(&mut epochs, snapshot.epoch, snapshot.life, base, info);
                newest = Some((info.first, snapshot));
            }
            // Its snapshot is lost: its records say themselves what they are.
            _ => match epoch_of_records(log, info) {
                Some((epoch, life, base)) => add_segment(&mut epochs, epoch, life, base, info),
                // Counted to the epoch before, and missed there when they are read.
                None => {
                    if let Some(last) = epochs.last_mut() {
                        last.next = info.next - last.base;
                    }
                }
            },
        }
    }
    let mut marks = Marks::default();
    let mut from = infos.first().map(|info| info.first);
    if let Some((first, snapshot)) = newest {
        marks.sources = snapshot.sources;
        marks.ended = snapshot.ended;
        marks.bases = snapshot.bases;
        from = Some(first);
    }
    if let Some(from) = from {
        replay(log, from, &epochs, &mut marks, settings, lane);
    }
    for stored in &mut epochs {
        if let Some(ended) = marks.end_of(stored.epoch) {
            stored.next = stored.next.min(ended.range.next).max(stored.first);
        }
    }
    Ok(Found { epochs, marks })
}

/// The epoch of a segment's records, its life and the position of its record 0, from the first that
/// says so.
fn epoch_of_records<D: Disk>(log: &mut Log<D>, info: &SegmentInfo) -> Option<(Epoch, Life, u64)> {
    let mut found = None;
    let mut from = info.first;
    while found.is_none() && from < info.next {
        let read = log.read(from, CHUNK_BYTES, |position, _, payload| {
            let envelope = record::decode(payload).ok();
            found = envelope.and_then(|envelope| {
                let base = position
                    .checked_sub(envelope.seq)
                    .filter(|base| *base <= info.first && position < info.next)?;
                Some((envelope.epoch?, envelope.life, base))
            });
            if found.is_some() || position >= info.next {
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

fn add_segment(epochs: &mut Vec<Stored>, epoch: Epoch, life: Life, base: u64, info: &SegmentInfo) {
    let next = info.next - base;
    match epochs.last_mut() {
        Some(last) if last.epoch == epoch && last.base == base => last.next = next,
        _ => epochs.push(Stored {
            epoch,
            life,
            base,
            first: info.first - base,
            next,
            released: 0,
        }),
    }
}

fn replay<D: Disk>(
    log: &mut Log<D>,
    mut from: u64,
    epochs: &[Stored],
    marks: &mut Marks,
    settings: &Settings,
    lane: Lane,
) {
    loop {
        let read = log.read(from, CHUNK_BYTES, |position, _, payload| {
            let epoch = epochs.iter().rev().find(|stored| stored.base <= position);
            if let (Some(stored), Ok(envelope)) = (epoch, record::decode(payload)) {
                marks.apply(&settings.device, lane, stored.epoch, &envelope);
            }
            ControlFlow::Continue(())
        });
        match read {
            Ok(chunk) if chunk.next > from => from = chunk.next,
            _ => return,
        }
    }
}

impl<D: Disk> Engine<D> {
    /// Builds a lane from what its log says.
    ///
    /// # Errors
    /// [`EngineError::Version`].
    pub(super) fn add_lane(&mut self, at: usize) -> Result<(), EngineError> {
        let lane = Lane::AGENT[at];
        let Some(log) = self.spool.log_mut(at) else {
            return Ok(());
        };
        let Found { epochs, mut marks } = look(log, &self.settings, lane)?;
        let previous = epochs.last().copied();
        let unclean = previous.is_some_and(|stored| {
            // Its own last record says so, or it did not end cleanly.
            marks
                .end_of(stored.epoch)
                .is_none_or(|end| end.named_in.0 != stored.epoch)
        });
        if unclean {
            for mark in marks.sources.iter_mut().filter(|mark| mark.live) {
                let since = mark.last_time;
                mark.unclean.get_or_insert(Unclean { since });
            }
        }
        let batch = self.settings.batch;
        let age_ms = match lane {
            Lane::Alarm => 0,
            Lane::Bulk => batch.age_ms.max(BULK_AGE_MS),
            Lane::Normal | Lane::Plain => batch.age_ms,
        };
        let limits = BatchLimits { age_ms, ..batch };
        let group_ms = match lane {
            Lane::Alarm => 0,
            Lane::Bulk => self.settings.bulk_group_ms,
            Lane::Normal | Lane::Plain => self.settings.group_ms,
        };
        let epoch = self.draw_epoch();
        self.lanes.push(LaneState {
            lane,
            epoch,
            life: Life {
                boot: self.settings.boot,
                base: self.clock.base(),
            },
            turned_at: None,
            base: None,
            next_seq: 0,
            durable_seq: 0,
            visible_seq: 0,
            epochs,
            previous: previous.map(|stored| stored.epoch),
            durable: marks.clone(),
            marks,
            batcher: Batcher::new(
                limits,
                self.settings.tags.clone(),
                self.settings.dictionary.clone(),
            ),
            held: VecDeque::new(),
            held_bytes: 0,
            held_since: None,
            group_ms,
            ram: None,
            old_rams: Vec::new(),
            overflow: Vec::new(),
        });
        Ok(())
    }

    /// Begins what a lane must say at its start. All lanes are there by now: to make room for it, a
    /// segment of any may have to go.
    pub(super) fn begin_lane(&mut self, at: usize, now: Now) {
        let previous = self.lanes[at].epochs.last().copied();
        if sabotage::is(Bug::EpochNotRenewed)
            && let Some(stored) = previous
        {
            self.go_on_with(at, stored);
            return;
        }
        let lane = &self.lanes[at];
        let missing: Vec<_> = lane
            .epochs
            .iter()
            .filter(|stored| lane.durable.end_of(stored.epoch).is_none())
            .map(|stored| Over::unclean(stored.epoch, stored.next))
            .collect();
        let base = lane.life.base;
        if !missing.is_empty() && !self.begin_epoch(at, base, &missing, now) {
            self.go_ram(at, VecDeque::new(), now);
            // Said from memory, and again on the disk when that takes records.
            for &over in &missing {
                self.end_in_ram(at, over);
            }
        }
    }

    /// Tells the outbox what a lane's log holds. All lanes are there by now: one may hold the record
    /// that dates what another one holds.
    pub(super) fn announce_stored(&mut self, at: usize) {
        let lane = &self.lanes[at];
        let record = |lane: Lane, (epoch, seq): (Epoch, u64)| RecordRef { lane, epoch, seq };
        let dated_by = |life: Life| {
            let counts = life.base == Base::Uptime && life.boot != self.settings.boot;
            let lanes = self.lanes.iter().filter(|_| counts);
            let mut found = lanes.filter_map(|lane| {
                let mut bases = lane.durable.bases.iter();
                let base = bases.find(|base| base.boot == life.boot)?;
                Some(record(lane.lane, base.named_in))
            });
            found.next()
        };
        let held: Vec<HeldEpoch> = lane
            .epochs
            .iter()
            .map(|stored| {
                let end = lane.durable.end_of(stored.epoch);
                let named = end
                    .map(|end| end.named_in)
                    .filter(|(epoch, _)| *epoch != stored.epoch);
                HeldEpoch {
                    // Without an end on record it stays in the Hello until one is.
                    ended: end.is_some(),
                    end_named_in: named.map(|named| record(lane.lane, named)),
                    dated_by: dated_by(stored.life),
                    ..held_epoch(
                        lane.lane,
                        stored.epoch,
                        SeqRange::new(stored.first, stored.next),
                        false,
                        stored.life,
                    )
                }
            })
            .collect();
        for epoch in held {
            self.outbox.announce(epoch);
        }
    }

    /// Goes on under the epoch of the life before: only a sabotaged engine does.
    fn go_on_with(&mut self, at: usize, stored: Stored) {
        let lane = &mut self.lanes[at];
        let next = self.spool.log(at).map_or(0, Log::next);
        (lane.epoch, lane.life) = (stored.epoch, stored.life);
        lane.base = Some(stored.base);
        lane.next_seq = next.saturating_sub(stored.base);
        lane.durable_seq = lane.next_seq;
        lane.visible_seq = lane.next_seq;
    }
}

/// The logs of a spool.
pub(super) struct Logs<D: Disk> {
    pub(super) lanes: Lanes<D>,
    pub(super) dead: Log<D>,
    /// What the start could not do with files it found, for the operator.
    pub(super) trouble: Vec<String>,
    /// Segments of the lanes whose records are not seen, or not all of them.
    pub(super) hidden: Vec<String>,
}

/// Opens the lanes' logs and the dead letters.
///
/// # Errors
/// [`EngineError::NotSynced`]: what a source or the collector hears of the spool from now on must
/// outlive a power cut. Of the dead letters nobody hears.
pub(super) fn open_logs<D: Disk>(disk: &D, settings: &Settings) -> Result<Logs<D>, EngineError> {
    use headwater_spool::{Config, LaneConfig, LanesConfig};
    let spool = &settings.spool;
    let [alarm, normal, bulk] = spool.lane_bytes;
    let lane = |lane: Lane, max_bytes, exclusive| LaneConfig {
        name: lane.name().to_owned(),
        max_bytes,
        exclusive,
    };
    let each = Config {
        segment_bytes: spool.segment_bytes,
        reserve_bytes: spool.segment_bytes,
        fs_reserve_percent: spool.fs_reserve_percent,
        fs_reserve_bytes: spool.fs_reserve_bytes,
        ..Config::default()
    };
    let config = LanesConfig {
        quota_bytes: alarm + normal + bulk,
        each: each.clone(),
        lanes: vec![
            lane(Lane::Alarm, alarm, true),
            lane(Lane::Normal, normal + bulk, false),
            lane(Lane::Bulk, bulk, false),
        ],
    };
    let (lanes, recoveries) = Lanes::open(disk, &config)?;
    if let Some(file) = recoveries.iter().find_map(|lane| lane.unsynced.first()) {
        return Err(EngineError::NotSynced { file: file.clone() });
    }
    let dead = Config {
        name: "dead".to_owned(),
        quota_bytes: spool.dead_letter_bytes,
        reserve_bytes: 0,
        spares: 0,
        ..each
    };
    let (dead, of_dead) = Log::open(disk.clone(), dead)?;
    let mut hidden = Vec::new();
    for lane in &recoveries {
        hidden.extend(lane.hidden.iter().cloned());
        hidden.extend(lane.unreadable.iter().map(|it| it.file.clone()));
    }
    let mut trouble = Vec::new();
    for recovery in recoveries.into_iter().chain([of_dead]) {
        trouble.extend(recovery.trouble);
        let unreadable = recovery.unreadable.into_iter();
        trouble.extend(unreadable.map(|it| format!("{}: {}", it.file, it.why)));
    }
    Ok(Logs {
        lanes,
        dead,
        trouble,
        hidden,
    })
}
