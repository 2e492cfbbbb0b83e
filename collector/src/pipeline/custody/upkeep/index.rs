//! Core: streams that are over leave the ledger once the index of closed epochs has them.
//!
//! ```text
//! closed and committed for long ──► Output::Keep ──► another thread: the index, synced
//!         the ledger forgets them ◄── Event::Kept ◄──┘
//! ```

use headwater_spool::Disk;

use super::super::Output;
use super::super::streams::Kept;
use super::Upkeep;
use crate::done::{DoneError, Epochs};

impl<D: Disk> Upkeep<'_, D> {
    /// Has streams that are over put into the index.
    pub(super) fn expire(&mut self) {
        if let Some(keeping) = self.custody.streams.expiry().due(self.now) {
            self.custody.sessions.put_out(Output::Keep(keeping));
        }
    }

    /// The index has them, or failed: then they stay, and are given to it again.
    pub(in super::super) fn kept(&mut self, epochs: &Epochs, kept: &Result<(), DoneError>) {
        match self.custody.streams.expiry().kept(epochs, kept.is_ok()) {
            Kept::Failed => self.custody.counters.index_failures_total += 1,
            Kept::Gone(streams) => {
                for stream in &streams {
                    self.custody
                        .journal
                        .schemas
                        .forget(&stream.device, stream.epoch);
                }
                self.custody.journal.measure(self.custody.streams.ledger());
            }
        }
    }
}
