//! Core: streams that are over leave the ledger once the index of closed epochs has them. Hellos that list streams
//! which may be there wait until it was asked.
//!
//! ```text
//! closed and committed for long ──► Output::Keep ──► another thread: the index, synced
//!         the ledger forgets them ◄── Event::Kept ◄──┘
//! ```

use headwater_spool::Disk;

use super::super::Output;
use super::super::intake::Intake;
use super::super::streams::{Kept, Unknown};
use super::Upkeep;
use crate::done::{DoneError, Epochs, Looked};
use crate::pipeline::snapshot::STREAM_BYTES;

impl<D: Disk> Upkeep<'_, D> {
    /// Has streams that are over put into the index.
    pub(super) fn expire(&mut self) {
        if self.custody.clock.doubt().is_some() {
            // Nobody knows how long they are over.
            return;
        }
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

    /// The index says what it has of streams that were looked up.
    pub(in super::super) fn found(&mut self, looked: Looked) {
        for found in self.custody.streams.look_ups().found(looked) {
            match found {
                Ok(_) => {
                    self.custody.journal.grew(STREAM_BYTES);
                    self.custody.counters.recalled_total += 1;
                }
                Err(why) => {
                    let has_failed = u64::from(why == Unknown::Failed);
                    self.custody.counters.index_failures_total += has_failed;
                }
            }
        }
        self.greet_waiting();
        self.custody.streams.look_ups().answered();
        self.custody.look_up();
    }

    /// Takes up Hellos that waited for the index, or for room.
    pub(super) fn greet_waiting(&mut self) {
        for ((conn, origin), whole) in std::mem::take(&mut self.custody.sessions.waits) {
            Intake::new(self.custody, conn, self.now).greet_or_close(&origin, whole);
        }
    }
}
