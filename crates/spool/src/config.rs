//! Core: how a log is laid out, and the bytes that logs may take together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How a log is laid out and what it may take.
#[derive(Debug, Clone)]
pub struct Config {
    /// Begins the names of its files; several logs may share a folder. Letters, digits, `_`, `-`.
    pub name: String,
    /// Size of a segment file. A snapshot or record that needs more gets a larger one. At least 4 KiB.
    pub segment_bytes: u64,
    /// Most bytes that segments and spares may take.
    pub quota_bytes: u64,
    /// Part of the quota that only [`crate::Log::append_reserved`] may take: one segment by default, so
    /// that what must be said before room is made can be said.
    pub reserve_bytes: u64,
    /// Share of the file system, in percent, that is left to others. With `fs_reserve_bytes`, the
    /// larger counts. [`crate::Log::append_reserved`] may use it.
    pub fs_reserve_percent: u8,
    /// Bytes of the file system that are left to others.
    pub fs_reserve_bytes: u64,
    /// Most released files kept for their blocks: overwriting them spares the file system's journal.
    pub spares: usize,
    /// Buffered bytes at which a group is written out, though not synced, before its sync.
    pub group_bytes: usize,
    /// Positions start no lower: for an owner who knows that they were once beyond.
    pub first_position: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: "log".to_owned(),
            segment_bytes: 2 << 20,
            quota_bytes: 256 << 20,
            reserve_bytes: 2 << 20,
            fs_reserve_percent: 5,
            fs_reserve_bytes: 8 << 20,
            spares: 2,
            group_bytes: 1 << 20,
            first_position: 0,
        }
    }
}

/// Bytes that one or several logs may take together.
#[derive(Debug)]
pub(crate) struct Budget {
    pub(crate) quota: u64,
    pub(crate) reserve: u64,
    pub(crate) used: AtomicU64,
}

impl Budget {
    pub(crate) fn new(quota: u64, reserve: u64) -> Arc<Self> {
        Arc::new(Self {
            quota,
            reserve,
            used: AtomicU64::new(0),
        })
    }

    pub(crate) fn has_room(&self, need: u64, reserved: bool) -> bool {
        let most = if reserved {
            self.quota
        } else {
            self.quota.saturating_sub(self.reserve)
        };
        self.used.load(Ordering::Relaxed).saturating_add(need) <= most
    }
}
