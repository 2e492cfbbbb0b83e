//! Core: since when a live source may have lost readings that no lane tells of: a source without a
//! durable record has no mark there, and a process killed before its first would leave no trace.
//!
//! Every start appends, to a small log of its own, the sources in that state with the start's wall
//! time, if a clock knew it, or an earlier one that is still to be named. A clean stop appends what is left of it. The
//! newest record is what the next start takes over; it is a spool snapshot with sources only.

use std::ops::ControlFlow;

use headwater_proto::ids::Epoch;
use headwater_proto::time::{Base, UnixMicros};
use headwater_spool::{Config, Disk, Log, OpenError};

use super::Store;
use crate::pipeline::engine::types::SourceSettings;
use crate::pipeline::record::{Life, Snapshot, SourceMark, Unclean};

/// The kind of a record in this log.
const LIFE: u8 = 201;
/// Sources at most, their names and times: a record is below this.
const SEGMENT_BYTES: u64 = 4096;
/// Room of the log; all but the newest segment is released at once.
const QUOTA_BYTES: u64 = 64 * SEGMENT_BYTES;
/// Bytes read at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// What lives before this one left unnamed.
pub(super) struct Lives<D: Disk> {
    log: Log<D>,
    unnamed: Vec<SourceMark>,
}

impl<D: Disk> Lives<D> {
    pub(super) fn open(disk: &D) -> Result<Self, OpenError> {
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
        let (mut log, _) = Log::open(disk.clone(), config)?;
        let mut unnamed = Vec::new();
        let mut from = log.segments().next().map_or(0, |info| info.first);
        loop {
            let read = log.read(from, CHUNK_BYTES, |_, _, payload| {
                if let Ok(life) = Snapshot::decode(payload) {
                    unnamed = life.sources;
                }
                ControlFlow::Continue(())
            });
            match read {
                Ok(chunk) if chunk.next > from => from = chunk.next,
                _ => break,
            }
        }
        Ok(Self { log, unnamed })
    }

    /// Since when the source may have lost readings in lives before this one.
    pub(super) fn since(&self, name: &str) -> Option<Unclean> {
        let mark = self.unnamed.iter().find(|mark| mark.name == name)?;
        mark.unclean
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

impl<D: Disk> Store<D> {
    /// Live sources without a durable record, each with what is still to be named, or else `begun`.
    fn unmarked(&self, sources: &[SourceSettings], begun: Option<Unclean>) -> Vec<SourceMark> {
        let live = sources.iter().filter(|source| !source.resumes);
        let unmarked = live.filter(|source| {
            let name = &source.name;
            self.lanes
                .lanes
                .iter()
                .all(|lane| lane.durable.source(name).is_none())
        });
        let mark = |source: &SourceSettings| {
            Some(SourceMark {
                name: source.name.clone(),
                cursor: None,
                live: true,
                last_time: None,
                unclean: Some(self.lives.since(&source.name).or(begun)?),
            })
        };
        unmarked.filter_map(mark).collect()
    }

    /// Says, before any source begins, that this life has begun.
    ///
    /// - `since`: the wall time, if a clock knows it.
    pub(crate) fn begin_life(&mut self, sources: &[SourceSettings], since: Option<UnixMicros>) {
        let marks = self.unmarked(sources, Some(Unclean { since }));
        if (!marks.is_empty() || !self.lives.unnamed.is_empty()) && !self.lives.write(marks) {
            self.lanes.counted.disk_failures += 1;
        }
    }

    /// This life ends cleanly: it leaves only what lives before it left.
    pub(crate) fn end_life(&mut self, sources: &[SourceSettings]) {
        let marks = self.unmarked(sources, None);
        self.lives.write(marks);
    }

    /// Since when a source may have lost readings that neither this lane, nor, where no lane has a mark of
    /// it, the lives before named.
    pub(crate) fn unclean(&self, at: usize, name: &str) -> Option<Unclean> {
        let of_lane = self.lanes.lane(at).marks.source(name);
        let of_lane = of_lane.and_then(|mark| mark.unclean);
        let mut lanes = self.lanes.lanes.iter();
        let marked = lanes.any(|lane| lane.marks.source(name).is_some());
        of_lane.or_else(|| self.lives.since(name).filter(|_| !marked))
    }
}
