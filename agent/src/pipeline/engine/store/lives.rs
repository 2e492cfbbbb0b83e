//! Core: the lives of the agent. A process that is killed before its first durable record would leave no trace in
//! any lane.
//!
//! Every start appends, to a small log of its own and before any source begins, the sources that cannot begin again,
//! with the start's wall time if a clock knew it. A clean stop appends that there are none. The newest record is what
//! the next start takes over; it is a spool snapshot with sources only.

use std::ops::ControlFlow;

use headwater_proto::ids::{Epoch, Lane};
use headwater_proto::message::{Gap, GapReason};
use headwater_proto::time::{Base, Millis, UnixMicros};
use headwater_spool::{Config, Disk, Log, OpenError};

use super::lane::LaneState;
use super::{Moment, PROBE_MS, Store, place_of};
use crate::pipeline::engine::types::SourceSettings;
use crate::pipeline::record::{Life, MAX_SOURCES, Snapshot, SourceMark, Unclean};

/// The kind of a record in this log.
const LIFE: u8 = 201;
/// The names and times of as many sources as there may be, at their longest: a record is below this.
const SEGMENT_BYTES: u64 = 8192;
/// Room of the log; all but the newest segment is released at once.
const QUOTA_BYTES: u64 = 64 * SEGMENT_BYTES;
/// Bytes read at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// What lives before this one left unnamed.
pub(super) struct Lives<D: Disk> {
    log: Log<D>,
    unnamed: Vec<SourceMark>,
    /// What says that this life has begun, while the disk takes it not.
    unwritten: Option<Vec<SourceMark>>,
    /// When that is tried again.
    retry_at: Millis,
}

impl<D: Disk> Lives<D> {
    /// - `sources`: of all that cannot begin again something may be missing, where the log cannot be read as it was
    ///   left: newer records will stand in the place of what is not seen.
    ///
    /// Says what could not be read.
    pub(super) fn open(
        disk: &D,
        sources: &[SourceSettings],
    ) -> Result<(Self, Vec<String>), OpenError> {
        let config = Config {
            name: "lives".to_owned(),
            segment_bytes: SEGMENT_BYTES,
            quota_bytes: QUOTA_BYTES,
            reserve_bytes: 0,
            spares: 0,
            fs_reserve_percent: 0,
            fs_reserve_bytes: 0,
            ..Config::default()
        };
        let (mut log, recovery) = Log::open(disk.clone(), config)?;
        let mut is_whole = recovery.hidden.is_empty() && recovery.unreadable.is_empty();
        let mut unnamed = Vec::new();
        let mut from = log.segments().next().map_or(0, |info| info.first);
        loop {
            let read = log.read(from, CHUNK_BYTES, |_, _, payload| {
                if let Ok(life) = Snapshot::decode(payload) {
                    unnamed = life.sources;
                }
                ControlFlow::Continue(())
            });
            let Ok(chunk) = read else {
                is_whole = false;
                break;
            };
            is_whole &= chunk.damage.is_empty();
            if chunk.next <= from {
                break;
            }
            from = chunk.next;
        }
        if !is_whole {
            let losing = sources.iter().filter(|source| source.loses);
            unnamed.retain(|mark| losing.clone().all(|source| source.name != mark.name));
            // Nobody knows since when.
            unnamed.extend(losing.map(|source| begun(source, Some(UnixMicros(0)))));
        }
        let mut trouble = recovery.trouble;
        if !is_whole {
            trouble.push(
                "the log of lives cannot be read as it was left: what a killed life may have lost is named from 1970 on"
                    .to_owned(),
            );
        }
        let lives = Self {
            log,
            unnamed,
            unwritten: None,
            retry_at: Millis(0),
        };
        Ok((lives, trouble))
    }

    /// Forgets sources of which every lane with records of theirs says what they may have lost.
    pub(super) fn forget_said(&mut self, lanes: &[LaneState]) {
        let is_said = |name: &str| {
            let mut marks = lanes.iter().filter_map(|lane| lane.marks.source(name));
            let first = marks.next();
            first.is_some_and(|first| {
                first.unclean.is_some() && marks.all(|it| it.unclean.is_some())
            })
        };
        self.unnamed.retain(|mark| !is_said(&mark.name));
    }

    /// Makes durable what the next start takes over. On failure it takes over what stood before:
    /// the disk that refuses this takes no reading either.
    fn write(&mut self, sources: Vec<SourceMark>) -> bool {
        let life = Snapshot {
            epoch: Epoch::new(0),
            life: Life {
                boot: 0,
                base: Base::Wall,
            },
            first_seq: 0,
            sources,
            ended: Vec::new(),
            bases: Vec::new(),
            schemas: Vec::new(),
        };
        let mut payload = Vec::new();
        life.encode(&mut payload);
        let appended = self.log.append(LIFE, &payload, &|_| {}).is_ok();
        let written = appended && self.log.sync().is_ok();
        if written {
            let ids: Vec<u64> = self.log.segments().map(|info| info.id).collect();
            for id in ids.iter().rev().skip(1) {
                // One that stays is released by the next start.
                let _ = self.log.release(*id);
            }
        }
        written
    }
}

/// A source that has begun, and of which nothing is stored yet.
fn begun(source: &SourceSettings, since: Option<UnixMicros>) -> SourceMark {
    SourceMark {
        name: source.name.clone(),
        cursor: None,
        live: true,
        stored_to: None,
        unclean: Some(Unclean { since }),
    }
}

impl<D: Disk> Store<D> {
    /// Names what lives before this one may have lost and no gap names: in each lane of each epoch that did not end
    /// cleanly, and in lane normal of sources that had begun and have no record of that life. Each gap reaches from
    /// the last moment of which all is durable to this start.
    pub(crate) fn unclean_gaps(&self, moment: Moment) -> Vec<Gap> {
        let gap = |lane: Lane, epoch: Epoch, mark: &SourceMark| {
            let since = mark.unclean.and_then(|unclean| unclean.since);
            let reason = GapReason::UncleanStop;
            Gap {
                t_first: since,
                // By a clock that was set back meanwhile nobody knows when it ended.
                t_last: moment
                    .wall
                    .filter(|wall| since.is_none_or(|since| since <= *wall)),
                part: mark.name.parse().ok(),
                ..self.lanes.gap(lane, epoch, reason, moment.now)
            }
        };
        let mut gaps = Vec::new();
        for lane in &self.lanes.lanes {
            // What stands in memory alone is said again on the disk.
            let owed = lane.durable.sources.iter();
            for mark in owed.filter(|mark| mark.unclean.is_some()) {
                let epochs = lane.unclean.iter();
                gaps.extend(epochs.map(|epoch| gap(lane.lane, *epoch, mark)));
            }
        }
        let normal = self.lanes.lane(place_of(Lane::Normal));
        let epoch = normal.previous.unwrap_or(normal.epoch);
        let unnamed = self.lives.unnamed.iter();
        gaps.extend(unnamed.map(|mark| gap(Lane::Normal, epoch, mark)));
        gaps
    }

    /// Says, before any source begins, that this life has begun: which sources it has that cannot begin again.
    ///
    /// - `since`: the wall time, if a clock knows it.
    pub(crate) fn begin_life(&mut self, sources: &[SourceSettings], since: Option<UnixMicros>) {
        let live = sources.iter().filter(|source| source.loses);
        let mut marks: Vec<SourceMark> = live.map(|source| begun(source, since)).collect();
        for lane in &mut self.lanes.lanes {
            lane.marks.begin(since);
            lane.durable.begin(since);
        }
        self.keep_unnamed(&mut marks);
        self.lives.unwritten = Some(marks);
        if !self.mark_life() {
            self.lanes.counted.disk_failures += 1;
        }
    }

    /// Makes durable that this life has begun, if it is not yet. Whether it is.
    pub(crate) fn mark_life(&mut self) -> bool {
        let Some(marks) = &self.lives.unwritten else {
            return true;
        };
        let is_written = self.lives.write(marks.clone());
        if is_written {
            self.lives.unwritten = None;
        }
        is_written
    }

    /// Tries again to make durable that this life has begun, once in a while.
    pub(crate) fn retry_mark(&mut self, now: Millis) {
        if self.lives.unwritten.is_some() && self.lives.retry_at <= now {
            self.lives.retry_at = now.plus(PROBE_MS);
            self.mark_life();
        }
    }

    /// Whether the next start will know of this life.
    pub(crate) const fn is_life_marked(&self) -> bool {
        self.lives.unwritten.is_none()
    }

    /// This life ends cleanly: it leaves only what lives before it left. Where records are in memory alone, and go
    /// with it, it did not.
    pub(crate) fn end_life(&mut self) {
        if self.lanes.lanes.iter().any(LaneState::holds_in_memory) {
            return;
        }
        let mut marks = Vec::new();
        self.keep_unnamed(&mut marks);
        self.lives.write(marks);
    }

    /// The gaps that name what earlier lives left are durable, unless they are in memory alone.
    pub(crate) fn named_unclean(&mut self) {
        if self.lanes.lane(place_of(Lane::Normal)).ram.is_none() {
            self.lives.unnamed.clear();
        }
    }

    /// What earlier lives left stays with the next start while it is not named where it lasts.
    fn keep_unnamed(&self, marks: &mut Vec<SourceMark>) {
        for mark in &self.lives.unnamed {
            marks.retain(|known| known.name != mark.name);
            marks.insert(0, mark.clone());
        }
        marks.truncate(MAX_SOURCES);
    }
}
