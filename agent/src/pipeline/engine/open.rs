//! Core: what a start makes of the spool it finds.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use headwater_proto::delivery::{HeldEpoch, RecordRef};
use headwater_proto::ids::{Epoch, Lane, SeqRange};
use headwater_proto::sabotage::{self, Bug};
use headwater_proto::time::Now;
use headwater_spool::{Disk, Lanes, Log, SegmentInfo};

use super::epochs::held_epoch;
use super::lane::{LaneState, Marks, Stored};
use super::{Engine, Settings};
use crate::pipeline::batcher::{BatchLimits, Batcher};
use crate::pipeline::record::{self, Snapshot};

/// Bytes read at once while the newest segment is replayed.
const CHUNK_BYTES: usize = 256 * 1024;

/// What one lane's log says.
pub(super) struct Found {
    epochs: Vec<Stored>,
    marks: Marks,
}

/// Reads the snapshots of all segments and replays from the newest on; from the oldest segment if
/// no snapshot is left.
pub(super) fn look<D: Disk>(log: &mut Log<D>, settings: &Settings, lane: Lane) -> Found {
    let infos: Vec<SegmentInfo> = log
        .segments()
        .filter(|info| info.readable)
        .copied()
        .collect();
    let mut epochs: Vec<Stored> = Vec::new();
    let mut newest = None;
    for info in &infos {
        let snapshot = log.snapshot_of(info.id).ok().flatten();
        let snapshot = snapshot.and_then(|bytes| Snapshot::decode(&bytes).ok());
        match snapshot {
            Some(snapshot) if snapshot.first_seq <= info.first => {
                let base = info.first - snapshot.first_seq;
                add_segment(&mut epochs, snapshot.epoch, base, info);
                newest = Some((info.first, snapshot));
            }
            // Its snapshot is lost: its records say themselves what they are.
            _ => match epoch_of_records(log, info) {
                Some((epoch, base)) => add_segment(&mut epochs, epoch, base, info),
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
    Found { epochs, marks }
}

/// The epoch of a segment's records and the position of its record 0, from the first that says so.
fn epoch_of_records<D: Disk>(log: &mut Log<D>, info: &SegmentInfo) -> Option<(Epoch, u64)> {
    let mut found = None;
    let mut from = info.first;
    while found.is_none() && from < info.next {
        let read = log.read(from, CHUNK_BYTES, |position, _, payload| {
            let envelope = record::decode(payload).ok();
            let named = envelope.and_then(|envelope| envelope.epoch.zip(Some(envelope.seq)));
            found = named.and_then(|(epoch, seq)| {
                let base = position
                    .checked_sub(seq)
                    .filter(|base| *base <= info.first)?;
                (position < info.next).then_some((epoch, base))
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

fn add_segment(epochs: &mut Vec<Stored>, epoch: Epoch, base: u64, info: &SegmentInfo) {
    let next = info.next - base;
    match epochs.last_mut() {
        Some(last) if last.epoch == epoch && last.base == base => last.next = next,
        _ => epochs.push(Stored {
            epoch,
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
    /// Builds a lane from what its log says, and tells the sender what it holds.
    pub(super) fn add_lane(&mut self, at: usize) {
        let lane = Lane::AGENT[at];
        let Some(log) = self.spool.log_mut(at) else {
            return;
        };
        let Found { epochs, mut marks } = look(log, &self.settings, lane);
        let previous = epochs.last().copied();
        let unclean = previous.is_some_and(|stored| {
            // Its own last record says so, or it did not end cleanly.
            marks
                .end_of(stored.epoch)
                .is_none_or(|end| end.named_in.0 != stored.epoch)
        });
        if unclean {
            for mark in marks.sources.iter_mut().filter(|mark| mark.live) {
                mark.unclean_since = mark.unclean_since.or(mark.last_time);
            }
        }
        let at_once = lane == Lane::Alarm;
        let batch = self.settings.batch;
        let limits = BatchLimits {
            age_ms: if at_once { 0 } else { batch.age_ms },
            ..batch
        };
        let group_ms = match lane {
            Lane::Alarm => 0,
            Lane::Bulk => self.settings.bulk_group_ms,
            Lane::Normal | Lane::Plain => self.settings.group_ms,
        };
        let epoch = self.draw_epoch();
        self.lanes.push(LaneState {
            lane,
            epoch,
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
        self.announce_stored(at);
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
            .map(|stored| (stored.epoch, stored.next))
            .collect();
        if !missing.is_empty() && !self.begin_epoch(at, &missing, now) {
            self.go_ram(at, VecDeque::new(), now);
            self.owe_ends(at, &missing);
        }
    }

    fn announce_stored(&mut self, at: usize) {
        let lane = &self.lanes[at];
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
                    end_named_in: named.map(|(epoch, seq)| RecordRef {
                        lane: lane.lane,
                        epoch,
                        seq,
                    }),
                    ..held_epoch(
                        lane.lane,
                        stored.epoch,
                        SeqRange::new(stored.first, stored.next),
                        false,
                    )
                }
            })
            .collect();
        for epoch in held {
            self.announce(epoch);
        }
    }

    /// Goes on under the epoch of the life before: only a sabotaged engine does.
    fn go_on_with(&mut self, at: usize, stored: Stored) {
        let lane = &mut self.lanes[at];
        let next = self.spool.log(at).map_or(0, Log::next);
        lane.epoch = stored.epoch;
        lane.base = Some(stored.base);
        lane.next_seq = next.saturating_sub(stored.base);
        lane.durable_seq = lane.next_seq;
        lane.visible_seq = lane.next_seq;
    }

    /// Ends that could not be appended at the start are said from memory, and again on the disk when
    /// that takes records.
    fn owe_ends(&mut self, at: usize, missing: &[(Epoch, u64)]) {
        for &(epoch, next) in missing {
            let end = self.epoch_end(at, epoch, next, false);
            let frame = super::store::frame_of(&end);
            let mut payload = Vec::new();
            super::store::own(&frame).encode(&mut payload);
            self.put_ram(at, headwater_proto::frame::Kind::EpochEnd, &payload);
            self.tell_ended(at, epoch);
        }
    }
}

/// The logs of a spool.
pub(super) struct Logs<D: Disk> {
    pub(super) lanes: Lanes<D>,
    pub(super) dead: Log<D>,
    pub(super) recoveries: Vec<headwater_spool::Recovery>,
}

/// Opens the lanes' logs and the dead letters.
pub(super) fn open_logs<D: Disk>(
    disk: &D,
    settings: &Settings,
) -> Result<Logs<D>, headwater_spool::OpenError> {
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
    let dead = Config {
        name: "dead".to_owned(),
        quota_bytes: spool.dead_letter_bytes,
        reserve_bytes: 0,
        spares: 0,
        ..each
    };
    let (dead, _) = Log::open(disk.clone(), dead)?;
    Ok(Logs {
        lanes,
        dead,
        recoveries,
    })
}
