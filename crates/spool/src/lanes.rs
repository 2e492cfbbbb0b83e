//! Several logs in one folder, under one quota.
//!
//! Each lane is a [`Log`] of its own name. Lanes share the quota, but for exclusive ones, which have
//! room of their own. Who gives way when it is full is decided in [`crate::index`]; that the loss is
//! named first is the caller's part:
//!
//! ```text
//! append → Full → victim → name its records by append_reserved, sync → release → append again
//! ```

use std::sync::Arc;

use crate::config::{Budget, Config};
use crate::disk::Disk;
use crate::error::{AppendError, FullCause, OpenError, ReleaseError};
use crate::index::{self, LaneView, SegmentInfo};
use crate::log::Log;
use crate::recover::Recovery;

/// One lane.
#[derive(Debug, Clone)]
pub struct LaneConfig {
    /// Its name, which begins its file names.
    pub name: String,
    /// Most bytes it may take. An exclusive lane has these to itself.
    pub max_bytes: u64,
    /// Whether its room is its own.
    pub exclusive: bool,
}

/// Lanes of one folder, most urgent first.
#[derive(Debug, Clone)]
pub struct LanesConfig {
    /// Bytes that all lanes may take together; exclusive lanes' room is taken out of it.
    pub quota_bytes: u64,
    /// What holds for each lane; its name, quota and spares are set per lane.
    pub each: Config,
    /// The lanes.
    pub lanes: Vec<LaneConfig>,
}

impl LanesConfig {
    /// The agent's lanes: `alarm` with a tenth to itself, `normal` up to all the rest, `bulk` up to
    /// 30 % of the whole.
    #[must_use]
    pub fn agent(quota_bytes: u64, segment_bytes: u64) -> Self {
        let lane = |name: &str, percent: u64, exclusive| LaneConfig {
            name: name.to_owned(),
            max_bytes: quota_bytes / 100 * percent,
            exclusive,
        };
        let lanes = vec![
            lane("alarm", 10, true),
            lane("normal", 90, false),
            lane("bulk", 30, false),
        ];
        let each = Config {
            segment_bytes,
            reserve_bytes: segment_bytes,
            ..Config::default()
        };
        Self {
            quota_bytes,
            each,
            lanes,
        }
    }
}

/// The segment that gives way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Victim {
    /// Its lane, by number.
    pub lane: usize,
    /// What it is and which positions it holds.
    pub segment: SegmentInfo,
}

/// Several logs in one folder.
pub struct Lanes<D: Disk> {
    logs: Vec<Log<D>>,
    exclusive: Vec<bool>,
}

impl<D: Disk> Lanes<D> {
    /// Opens every lane; what each found is in the same order.
    ///
    /// # Errors
    /// [`OpenError`] if the folder cannot be listed.
    pub fn open(disk: &D, config: &LanesConfig) -> Result<(Self, Vec<Recovery>), OpenError> {
        let own = |lane: &&LaneConfig| lane.exclusive;
        let taken: u64 = config
            .lanes
            .iter()
            .filter(own)
            .map(|lane| lane.max_bytes)
            .sum();
        let reserve = config.each.reserve_bytes;
        let common = Budget::new(config.quota_bytes.saturating_sub(taken), reserve);
        let mut lanes = Self {
            logs: Vec::new(),
            exclusive: Vec::new(),
        };
        let mut recoveries = Vec::new();
        for lane in &config.lanes {
            let log = Config {
                name: lane.name.clone(),
                quota_bytes: lane.max_bytes,
                // The common reserve is kept by the common budget.
                reserve_bytes: if lane.exclusive { reserve } else { 0 },
                ..config.each.clone()
            };
            let budget = if lane.exclusive {
                Budget::new(lane.max_bytes, reserve)
            } else {
                Arc::clone(&common)
            };
            let (log, recovery) = Log::open_within(disk.clone(), log, budget)?;
            lanes.logs.push(log);
            lanes.exclusive.push(lane.exclusive);
            recoveries.push(recovery);
        }
        Ok((lanes, recoveries))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.logs.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.logs.is_empty()
    }

    /// The log of lane `lane`; `None` beyond the last.
    #[must_use]
    pub fn log(&self, lane: usize) -> Option<&Log<D>> {
        self.logs.get(lane)
    }

    /// The log of lane `lane`, to sync, roll or read it.
    pub fn log_mut(&mut self, lane: usize) -> Option<&mut Log<D>> {
        self.logs.get_mut(lane)
    }

    /// Appends to lane `lane`. A full quota takes other lanes' spare files before it is an error.
    ///
    /// # Panics
    /// If there is no such lane.
    ///
    /// # Errors
    /// [`AppendError`], as [`Log::append`].
    pub fn append(
        &mut self,
        lane: usize,
        kind: u8,
        payload: &[u8],
        snapshot: &dyn Fn(&mut Vec<u8>),
    ) -> Result<u64, AppendError> {
        self.put(lane, &mut |log| log.append(kind, payload, snapshot))
    }

    /// As [`Lanes::append`], and may use the reserve.
    ///
    /// # Panics
    /// If there is no such lane.
    ///
    /// # Errors
    /// [`AppendError`], as [`Log::append_reserved`].
    pub fn append_reserved(
        &mut self,
        lane: usize,
        kind: u8,
        payload: &[u8],
        snapshot: &dyn Fn(&mut Vec<u8>),
    ) -> Result<u64, AppendError> {
        self.put(lane, &mut |log| {
            log.append_reserved(kind, payload, snapshot)
        })
    }

    fn put(
        &mut self,
        lane: usize,
        append: &mut dyn FnMut(&mut Log<D>) -> Result<u64, AppendError>,
    ) -> Result<u64, AppendError> {
        loop {
            match append(&mut self.logs[lane]) {
                Err(AppendError::Full { need, cause }) => {
                    if !self.drop_spare_for(lane, cause) {
                        return Err(AppendError::Full { need, cause });
                    }
                }
                other => return other,
            }
        }
    }

    /// Removes a spare file whose room lane `lane` may use: the last lane's first.
    fn drop_spare_for(&mut self, lane: usize, cause: FullCause) -> bool {
        let common = cause == FullCause::Quota;
        let own = self.exclusive[lane];
        let exclusive = &self.exclusive;
        self.logs.iter_mut().enumerate().rev().any(|(other, log)| {
            let helps = !common
                || if own {
                    other == lane
                } else {
                    !exclusive[other]
                };
            helps && log.drop_spare().unwrap_or(false)
        })
    }

    /// The segment that gives way so that lane `writer` can go on; see [`index::victim`]. `acked`
    /// says whether all records of a lane's segment are acknowledged.
    #[must_use]
    pub fn victim(
        &self,
        writer: usize,
        acked: &dyn Fn(usize, &SegmentInfo) -> bool,
    ) -> Option<Victim> {
        let views: Vec<_> = self
            .logs
            .iter()
            .zip(&self.exclusive)
            .map(|(log, &exclusive)| LaneView {
                segments: log.infos(),
                exclusive,
            })
            .collect();
        let (lane, id) = index::victim(&views, writer, acked)?;
        let segment = *self.logs[lane].segments().find(|s| s.id == id)?;
        Some(Victim { lane, segment })
    }

    /// Releases segment `id` of lane `lane`.
    ///
    /// # Panics
    /// If there is no such lane.
    ///
    /// # Errors
    /// [`ReleaseError`], as [`Log::release`].
    pub fn release(&mut self, lane: usize, id: u64) -> Result<bool, ReleaseError> {
        self.logs[lane].release(id)
    }

    /// Bytes that all lanes take.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.logs.iter().map(Log::used_bytes).sum()
    }
}
