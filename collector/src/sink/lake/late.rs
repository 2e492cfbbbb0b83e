//! Core: goes on trying a lake that was away when the collector was started.
//!
//! ```text
//! Wait ──► Try: open the lake's half ──► custody's half ──► the worker begins
//!   ▲       │ it is still away: back-off        │ the journal cannot now
//!   └───────┴───────────────────────────────────┘
//! ```
//! Until both halves agree nothing is taken from the journal, and nothing is committed.

use headwater_lake::{LakeError, Store, StoreError};
use headwater_program::chain::chain;
use headwater_proto::ids::JournalId;
use headwater_proto::sabotage::{self, Bug};
use headwater_proto::time::{Millis, Now};
use headwater_spool::{Disk, Reader};

use super::join::{Call, JoinError, Met};
use super::{LakeSettings, LakeSink, LakeSinkError};
use crate::interpret::{Depth, Feed};
use crate::metrics::SinkLook;
use crate::pipeline::custody::{Agreed, JournalSide, LakeSide, Meeting};
use crate::pipeline::undated::ClockBook;
use crate::sink::SinkError;
use crate::sink::back_off::BackOff;
use crate::sink::worker::Worker;

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// Call [`Late::attempt`].
    Try,
    /// Wait until then.
    Wait(Millis),
    /// The collector has to end for this.
    Fatal(SinkError),
}

/// A lake that is waited for.
pub struct Late<D: Disk> {
    journal: JournalSide,
    settings: LakeSettings,
    reader: Reader<D>,
    clock: ClockBook,
    back_off: BackOff,
    trouble: SinkError,
    look: SinkLook,
    /// The name under which the journal goes on if it has to: the lake may bear it after a try that
    /// failed half-way, the first one too.
    name: JournalId,
}

impl<D: Disk> Late<D> {
    /// - `journal`: as it was when it was opened.
    /// - `error`: of the first try, which was made under the `name` for a journal that has to go on under
    ///   another one.
    /// - `random`: 64 random bits.
    #[must_use]
    pub fn new(
        journal: JournalSide,
        settings: LakeSettings,
        reader: Reader<D>,
        error: SinkError,
        name: JournalId,
        now: Now,
        random: u64,
    ) -> Self {
        let look = SinkLook {
            cursor: journal.known,
            // What waits has waited since the start at least.
            oldest: Some(now.wall),
            ..SinkLook::default()
        };
        let mut late = Self {
            journal,
            settings,
            reader,
            clock: ClockBook::default(),
            back_off: BackOff::default(),
            trouble: error.clone(),
            look,
            name,
        };
        late.failed(error, now.mono, random);
        late
    }

    /// Reads what custody tells of the collector's clock.
    #[must_use]
    pub fn with_clock(mut self, book: ClockBook) -> Self {
        self.clock = book;
        self
    }

    /// What custody tells of the collector's clock.
    #[must_use]
    pub const fn clock_book(&self) -> &ClockBook {
        &self.clock
    }

    /// What to do next.
    #[must_use]
    pub fn next(&self, now: Millis) -> Turn {
        match (&self.trouble, self.back_off.until) {
            (error @ SinkError::Fatal { .. }, _) => Turn::Fatal(error.clone()),
            (_, Some(until)) if self.back_off.is_held(now) => Turn::Wait(until),
            _ => Turn::Try,
        }
    }

    /// Tries once. `ask` is custody's half, on whatever thread that is; `store` reaches the lake's place,
    /// `random` gives 64 random bits.
    pub fn attempt<S: Store>(
        &mut self,
        now: Now,
        store: &mut dyn FnMut() -> Result<S, StoreError>,
        ask: &mut dyn FnMut(&JournalSide, &LakeSide) -> Result<Meeting, SinkError>,
        random: &mut dyn FnMut() -> u64,
    ) -> Option<(Met<S>, Agreed)> {
        self.look.calls += 1;
        let name = self.name;
        let met = match self.open(name, now, store) {
            Err(LakeSinkError::Lake(LakeError::Owned { owner, .. })) if owner == name => {
                // By ourselves: the answer to a try was lost.
                let take_over = std::mem::replace(&mut self.settings.take_over, true);
                let met = self.open(name, now, store);
                self.settings.take_over = take_over;
                met
            }
            met => met,
        };
        let met = met.map_err(late_error);
        match met.and_then(|met| self.agree(met, ask)) {
            Ok(agreed) => Some(agreed),
            Err(error) => {
                self.failed(error, now.mono, random());
                None
            }
        }
    }

    fn open<S: Store>(
        &self,
        name: JournalId,
        now: Now,
        store: &mut dyn FnMut() -> Result<S, StoreError>,
    ) -> Result<Met<S>, LakeSinkError> {
        let mut journal = self.journal.clone();
        if sabotage::is(Bug::LateLakeByPresentEnd) {
            journal.since = self.reader.durable();
        }
        let call = Call {
            name,
            is_known: true,
            at: now.wall,
        };
        let store = store().map_err(LakeError::from)?;
        Met::open(&journal, store, self.settings, call)
    }

    fn agree<S: Store>(
        &self,
        mut met: Met<S>,
        ask: &mut dyn FnMut(&JournalSide, &LakeSide) -> Result<Meeting, SinkError>,
    ) -> Result<(Met<S>, Agreed), SinkError> {
        loop {
            match ask(&self.journal, &met.side())? {
                Meeting::Agreed(agreed) => return Ok((met, agreed)),
                Meeting::NeedsMarks(needs) => met.read_marks(needs).map_err(join_error)?,
            }
        }
    }

    fn failed(&mut self, error: SinkError, now: Millis, random: u64) {
        self.look.failed(error.code());
        self.back_off.failed(&error, now, random);
        self.trouble = error;
    }

    /// Begins with the records that the lake lacks, now that both halves agree.
    #[must_use]
    pub fn worker<S: Store + 'static>(self, met: Met<S>, agreed: Agreed) -> Worker<LakeSink<S>, D> {
        let sink = met.agreed(agreed);
        let feed = Feed::new(self.reader, sink.position(), Depth::Samples);
        let feed = feed.with_clock(self.clock);
        Worker::new(sink, feed)
    }

    /// Why the lake is away.
    #[must_use]
    pub const fn trouble(&self) -> &SinkError {
        &self.trouble
    }

    /// The lake at this moment.
    #[must_use]
    pub fn look(&self) -> SinkLook {
        SinkLook {
            state: self.trouble.state(),
            why: Some(self.trouble.to_string()),
            ..self.look.clone()
        }
    }
}

fn join_error(error: JoinError) -> SinkError {
    match error {
        JoinError::Sink(error) => late_error(error),
        JoinError::Journal(_) | JoinError::Index(_) => SinkError::Busy {
            retry_after: None,
            cause: chain(&error),
        },
    }
}

/// Another collector's lease, a damaged lake or one of another version is no outage: a start would end
/// for it too.
fn late_error(error: LakeSinkError) -> SinkError {
    if error.is_outage() || error.is_transient() {
        return error.into();
    }
    SinkError::Fatal {
        cause: chain(&error),
    }
}
