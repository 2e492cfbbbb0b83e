//! Core: copies of what a later stage refused for good, in a log of their own.
//!
//! A dead letter is the lane (1 byte), the epoch (8, little-endian), the length and name of the
//! reason, and the record as it stood in the spool.

use headwater_proto::ids::{Epoch, Lane};
use headwater_proto::message::RejectReason;
use headwater_spool::{AppendError, Disk, Log};

/// The kind of a record in the log of dead letters.
pub const DEAD_LETTER: u8 = 200;

/// The log of dead letters. Its copies are a help; the promise asks for the gap.
pub(crate) struct DeadLetters<D: Disk> {
    log: Log<D>,
}

impl<D: Disk> DeadLetters<D> {
    pub(super) const fn new(log: Log<D>) -> Self {
        Self { log }
    }

    /// Keeps a copy, in place of the oldest ones where there is no room; returns how many segments of
    /// these went.
    pub(crate) fn keep(
        &mut self,
        lane: Lane,
        epoch: Epoch,
        reason: RejectReason,
        payload: &[u8],
    ) -> u64 {
        let mut copy = vec![lane.to_u8()];
        copy.extend_from_slice(&epoch.get().to_le_bytes());
        copy.push(u8::try_from(reason.name().len()).unwrap_or(0));
        copy.extend_from_slice(reason.name().as_bytes());
        copy.extend_from_slice(payload);
        let mut dropped = 0;
        while let Err(AppendError::Full { .. }) = self.log.append(DEAD_LETTER, &copy, &|_| {}) {
            let oldest = self.log.segments().next().map(|info| info.id);
            if !oldest.is_some_and(|id| matches!(self.log.release(id), Ok(true))) {
                break;
            }
            dropped += 1;
        }
        dropped
    }

    /// Makes the copies durable; says whether they are.
    pub(crate) fn sync(&mut self) -> bool {
        self.log.sync().is_ok()
    }

    /// How many there are.
    pub(crate) fn records(&self) -> u64 {
        let mut segments = self.log.segments();
        let first = segments.next().map_or(0, |info| info.first);
        self.log.durable().saturating_sub(first)
    }

    /// Bytes that they take.
    #[cfg(test)]
    pub(crate) fn used_bytes(&self) -> u64 {
        self.log.used_bytes()
    }
}
