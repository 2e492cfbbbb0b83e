//! Core: streams that are over: let go of once the index has them, and found there again.

use headwater_proto::delivery::End;
use headwater_proto::ids::{Lane, SeqRange, Stream};
use headwater_proto::time::Now;
use headwater_spool::Disk;

use super::Custody;
use crate::done::{DoneError, MAX_DONE_BYTES};
use crate::ledger::Track;
use crate::pipeline::snapshot::{self, STREAM_BYTES};

/// How often closed streams are looked through.
const EXPIRY_EVERY_MS: u64 = 60_000;
/// Most streams that are let go of at once: each is a write to the index.
const MAX_EXPIRED: usize = 4_096;

impl<D: Disk> Custody<D> {
    /// Lets go of streams that were closed and committed for long enough, after the index has them.
    pub(super) fn expire(&mut self, now: Now) {
        if self.next_expiry > now.mono {
            return;
        }
        self.next_expiry = now
            .mono
            .plus(EXPIRY_EVERY_MS.min(self.settings.keep_closed_ms));
        let expired = self
            .ledger
            .expired(now.wall, self.settings.keep_closed_ms, MAX_EXPIRED);
        let mut epochs = Vec::new();
        for stream in expired {
            let Some(track) = self.ledger.track(&stream) else {
                continue;
            };
            let mut bytes = Vec::new();
            snapshot::write_track(&stream, track, &mut bytes);
            // One with so many holes stays where it is.
            if bytes.len() <= MAX_DONE_BYTES {
                epochs.push((stream, bytes));
            }
        }
        if epochs.is_empty() {
            return;
        }
        if self.done.keep(&epochs).is_err() {
            self.counters.index_failures_total += 1;
            return;
        }
        for (stream, _) in &epochs {
            self.ledger.forget(stream);
            self.schemas.forget(&stream.device, stream.epoch);
        }
        self.measure();
    }

    /// Brings a stream that was let go of back from the index, before anything is said of it.
    ///
    /// # Errors
    /// [`DoneError`]: it must not be taken for new.
    pub(super) fn recall(&mut self, stream: &Stream) -> Result<(), DoneError> {
        if stream.lane == Lane::Plain || self.ledger.track(stream).is_some() {
            return Ok(());
        }
        let found = self.done.find(stream);
        let Some(bytes) = found.inspect_err(|_| self.counters.index_failures_total += 1)? else {
            return Ok(());
        };
        let read = snapshot::read_track(&bytes).filter(|(named, ..)| named == stream);
        let Some((_, mut track, _)) = read else {
            return Err(DoneError(format!("what it has of {stream:?} is damaged")));
        };
        track.closed_at = None;
        self.ledger.restore(stream.clone(), track);
        self.grown_bytes += STREAM_BYTES;
        self.counters.recalled_total += 1;
        Ok(())
    }

    /// Whether the index has all that the lake knew when it was made, and told it.
    #[must_use]
    pub fn index_is_whole(&self) -> bool {
        self.done.is_whole() && !self.index_failed
    }

    /// Fills the index with epochs that a lake shows to be over, whole up to their ends.
    ///
    /// # Errors
    /// [`DoneError`].
    pub fn fill_index(
        &mut self,
        over: impl Iterator<Item = (Stream, End)>,
    ) -> Result<(), DoneError> {
        self.done.clear()?;
        let mut epochs = Vec::new();
        for (stream, end) in over {
            let mut track = Track::default();
            // A single range always fits.
            let _ = track.receiver.seed(SeqRange::new(0, end.next));
            track.receiver.end(end);
            track.receiver.synced();
            let mut bytes = Vec::new();
            snapshot::write_track(&stream, &track, &mut bytes);
            epochs.push((stream, bytes));
            if epochs.len() >= MAX_EXPIRED {
                self.done.keep(&epochs)?;
                epochs.clear();
            }
        }
        if !epochs.is_empty() {
            self.done.keep(&epochs)?;
        }
        self.done.set_whole()?;
        self.index_failed = false;
        Ok(())
    }
}
