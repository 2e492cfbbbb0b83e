//! Core: what a start makes of the spool it finds.

use std::ops::ControlFlow;

use headwater_proto::ids::{DeviceId, Epoch, Lane};
use headwater_spool::{Disk, Lanes, Log, SegmentInfo};

use super::draft::Says;
use super::lane::{Found, Stored};
use super::marks::Marks;
use crate::pipeline::engine::types::{EngineError, Settings};
use crate::pipeline::record::{self, Life, SNAPSHOT_VERSION, Snapshot, Unclean};

/// Bytes read at once while the newest segment is replayed.
const CHUNK_BYTES: usize = 256 * 1024;

/// Size of a segment of nodes' records: the index knows where a stream begins in each, so that smaller ones
/// are searched faster.
const NODES_SEGMENT_BYTES: u64 = 1 << 20;
/// Disk is taken in blocks of so many bytes.
const BLOCK_BYTES: u64 = 4096;

/// Reads the snapshots of all segments and replays from the newest on; from the oldest segment if
/// no snapshot is left.
///
/// # Errors
/// [`EngineError::Version`].
pub(super) fn look<D: Disk>(
    log: &mut Log<D>,
    device: &DeviceId,
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
        replay(log, from, &epochs, &mut marks, device, lane);
    }
    for stored in &mut epochs {
        if let Some(ended) = marks.end_of(stored.epoch) {
            stored.next = stored.next.min(ended.range.next).max(stored.first);
        }
    }
    let unclean = note_unclean(&epochs, &mut marks);
    Ok(Found {
        epochs,
        marks,
        unclean,
    })
}

/// Where the last epoch did not end cleanly, its live sources may have lost readings. Returns the epochs of which
/// no gap says so yet.
fn note_unclean(epochs: &[Stored], marks: &mut Marks) -> Vec<Epoch> {
    let Some(last) = epochs.last() else {
        return Vec::new();
    };
    // A start that was killed before its gaps were durable left those of before it, whose ends it named.
    let owes = marks.sources.iter().any(|mark| mark.unclean.is_some());
    let is_unclean = |stored: &&Stored| match marks.end_of(stored.epoch) {
        None => true,
        Some(end) if stored.epoch == last.epoch => end.named_in.0 != stored.epoch,
        Some(end) => owes && end.named_in.0 == last.epoch,
    };
    let unclean = epochs.iter().filter(is_unclean);
    let unclean: Vec<Epoch> = unclean.map(|stored| stored.epoch).collect();
    if !unclean.is_empty() {
        for mark in marks.sources.iter_mut().filter(|mark| mark.live) {
            let since = mark.stored_to;
            mark.unclean.get_or_insert(Unclean { since });
        }
    }
    unclean
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
    device: &DeviceId,
    lane: Lane,
) {
    loop {
        let read = log.read(from, CHUNK_BYTES, |position, _, payload| {
            let epoch = epochs.iter().rev().find(|stored| stored.base <= position);
            if let (Some(stored), Ok(envelope)) = (epoch, record::decode(payload)) {
                if envelope.source.is_empty() {
                    let says = Says::read(envelope.frame, device);
                    marks.said(lane, (stored.epoch, envelope.seq), &says);
                } else {
                    let (cursor, live) = (envelope.cursor, envelope.live);
                    marks.gave(envelope.source, cursor, live);
                    marks.stored(envelope.source, envelope.stored_to);
                }
            }
            ControlFlow::Continue(())
        });
        match read {
            Ok(chunk) if chunk.next > from => from = chunk.next,
            _ => return,
        }
    }
}

/// The logs of a spool.
pub(super) struct Logs<D: Disk> {
    pub(super) lanes: Lanes<D>,
    pub(super) dead: Log<D>,
    pub(super) nodes: Log<D>,
    /// What the start could not do with files it found, for the operator.
    pub(super) trouble: Vec<String>,
    /// Segments of the lanes whose records are not seen, or not all of them.
    pub(super) hidden: Vec<String>,
}

/// Opens the logs of the lanes, of nodes and of dead letters.
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
    // At least three beside the reserve: one that is written, and those that can give way.
    let quarter = (spool.nodes_bytes / 4) & !(BLOCK_BYTES - 1);
    let nodes_segment = quarter.clamp(BLOCK_BYTES, NODES_SEGMENT_BYTES);
    let nodes = Config {
        name: "nodes".to_owned(),
        segment_bytes: nodes_segment,
        quota_bytes: spool.nodes_bytes,
        reserve_bytes: nodes_segment,
        ..each.clone()
    };
    let (nodes, of_nodes) = Log::open(disk.clone(), nodes)?;
    let mut recoveries = recoveries;
    recoveries.push(of_nodes);
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
        nodes,
        trouble,
        hidden,
    })
}
