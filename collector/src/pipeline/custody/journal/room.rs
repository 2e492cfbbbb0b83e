//! Core: what the journal has room for, and which segments may go.

use headwater_spool::Disk;

use super::{Journal, Leaves};
use crate::pipeline::credit::JournalLevel;

/// Segments are allocated in blocks of this size.
const BLOCK_BYTES: u64 = 4096;

impl<D: Disk> Journal<D> {
    /// How full it is.
    pub(in super::super) fn level(&self) -> JournalLevel {
        let config = self.log.config();
        JournalLevel {
            used_bytes: self.log.used_bytes(),
            quota_bytes: config.quota_bytes,
            segment_bytes: config.segment_bytes,
        }
    }

    /// Whether records with payloads of `lens` bytes may be appended.
    pub(in super::super) fn has_room(&self, lens: &[usize], leaves: Leaves) -> bool {
        let segment = self.next_segment_bytes(lens.iter().sum());
        let taken = self.log.used_bytes() - self.log.spare_bytes();
        let begun = u64::from(self.log.needs_segment(lens));
        taken + segment * (begun + leaves as u64) <= self.log.config().quota_bytes
    }

    /// Bytes that a segment takes whose first record has a payload of `len` bytes.
    fn next_segment_bytes(&self, len: usize) -> u64 {
        let segment = self.log.config().segment_bytes;
        let least = (self.budget.snapshot + len) as u64;
        segment.max(least).next_multiple_of(BLOCK_BYTES)
    }

    /// Whether sinks that the journal does not wait for may no longer keep segments: before their bytes
    /// cost the senders credit.
    pub(in super::super) fn is_near_quota(&self) -> bool {
        let config = self.log.config();
        let half = config.quota_bytes / 2;
        let spare = config.quota_bytes.saturating_sub(5 * config.segment_bytes);
        let near = half.max(spare.min(config.quota_bytes / 4 * 3));
        self.log.used_bytes() > near
    }

    /// The end of the oldest segment, if only sinks that the journal does not wait for keep it.
    pub(in super::super) fn kept_for_others_to(&self) -> Option<u64> {
        let required = self.sinks.required_position();
        let least = self.sinks.least_of_all();
        let oldest = self
            .log
            .segments()
            .find(|segment| segment.sealed && segment.next > least)
            .filter(|segment| segment.next <= required);
        oldest.map(|segment| segment.next)
    }

    /// Whether half of the quota is used.
    pub(in super::super) fn is_tight(&self) -> bool {
        self.log.used_bytes() > self.log.config().quota_bytes / 2
    }

    /// Whether a new snapshot would free a segment.
    pub(in super::super) fn would_free(&self) -> bool {
        let (durable, present) = (self.sinks.least_of_all_durable(), self.sinks.least_of_all());
        let newest = self.log.segments().next_back().map(|segment| segment.id);
        let waiting = |next: u64| next > present;
        let all = !self
            .log
            .segments()
            .any(|segment| Some(segment.id) != newest && waiting(segment.next));
        let (mut last, mut earlier) = (0, 0);
        for segment in self.log.segments().filter(|segment| {
            segment.next > segment.first && !waiting(segment.next) && segment.next > durable
        }) {
            let bytes = segment.bytes_allocated;
            if Some(segment.id) == newest {
                last = bytes;
            } else {
                earlier += bytes;
            }
        }
        // Not for less than the new segment takes, or a full journal would grow; nor for the newest alone, which
        // the new one would only replace, again and again.
        let frees = if earlier > 0 {
            all || last + earlier >= self.log.config().segment_bytes
        } else {
            last >= 2 * self.next_segment_bytes(0)
        };
        frees && !self.sinks.is_segment_pending()
    }

    /// Gives back segments that every sink has passed, or that one was named as lacking, as a later
    /// durable snapshot says. Returns how many.
    pub(in super::super) fn release(&mut self) -> u64 {
        let passed = self.sinks.least_of_all_durable();
        let done: Vec<u64> = self
            .log
            .segments()
            .filter(|segment| segment.sealed && segment.next <= passed)
            .map(|segment| segment.id)
            .collect();
        // The newest stays; one that could not be removed is tried again.
        let mut released = |id: &u64| matches!(self.log.release(*id), Ok(true));
        done.iter().map(|id| u64::from(released(id))).sum()
    }
}
