//! Core: the hot store behind the seam of sinks.

use std::future::{Future, ready};

use headwater_program::chain::chain;
use headwater_proto::ids::JournalId;
use headwater_proto::time::{Millis, Now};

use super::HotStore;
use crate::interpret::Interpreted;
use crate::sink::{Covers, Delivered, Due, Sink, SinkError};
use crate::state::StateError;

/// How often old readings are dropped.
const EXPIRE_MS: u64 = 60_000;

/// The hot store as a sink of one journal.
#[derive(Debug)]
pub struct HotSink {
    store: HotStore,
    journal: JournalId,
    /// Milliseconds between two commits.
    freshness_ms: u64,
    /// The first position not yet taken, and not yet committed.
    position: u64,
    cursor: u64,
    committed_at: Millis,
    expired_at: Option<Millis>,
    /// Numbers that were taken since the last commit.
    covers: Covers,
}

impl HotSink {
    /// Goes on with `journal` at `position`.
    #[must_use]
    pub fn new(store: HotStore, journal: JournalId, position: u64, freshness_ms: u64) -> Self {
        Self {
            store,
            journal,
            freshness_ms,
            position,
            cursor: position,
            committed_at: Millis(0),
            expired_at: None,
            covers: Covers::default(),
        }
    }
}

impl Sink for HotSink {
    fn take(&mut self, item: &Interpreted<'_>, _now: Now) -> Result<(), SinkError> {
        self.store.take(item)?;
        self.covers.add(item.covers);
        Ok(())
    }

    fn passed(&mut self, next: u64, _now: Now) {
        self.position = self.position.max(next);
    }

    fn due(&self, _now: Millis) -> Due {
        if self.position == self.cursor {
            return Due::Never;
        }
        Due::At(self.committed_at.plus(self.freshness_ms))
    }

    fn deliver(&mut self, now: Now) -> impl Future<Output = Result<Delivered, SinkError>> + Send {
        let position = self.position;
        ready(match self.store.commit(self.journal, position) {
            Ok(()) => {
                (self.cursor, self.committed_at) = (position, now.mono);
                Ok(Delivered {
                    through: position,
                    streams: self.covers.take(),
                })
            }
            Err(error) => Err(error.into()),
        })
    }

    fn keep(&mut self, now: Now) -> Result<(), SinkError> {
        let is_due = |at: Millis| now.mono.since(at) >= EXPIRE_MS;
        if self.expired_at.is_none_or(is_due) {
            self.store.expire(now.wall)?;
            self.expired_at = Some(now.mono);
        }
        Ok(())
    }

    fn counts(&self) -> Vec<(&'static str, u64)> {
        vec![("hot_skipped_total", self.store.skipped())]
    }
}

impl From<StateError> for SinkError {
    fn from(error: StateError) -> Self {
        Self::Busy {
            retry_after: None,
            cause: chain(&error),
        }
    }
}
