//! Core: custody. What arrives is judged, appended to the journal, synced, and only then answered.
//!
//! ```text
//! Event ──► judge (streams) ──► append (journal) ──► sync ──► PUBACK · Ack · Welcome (sessions)
//!                                     ▲         │ failed: the group never happened,
//!                                     │         ▼ its connections end and come again
//!                         snapshot at each new segment
//! Committed (a sink) ──► coverage ──► what all required sinks have: marks ──► Ack
//!                    └─► cursor ──► segments that every sink has passed go
//! ```
//!
//! Three machines do it, none of which holds another:
//!
//! | machine | knows | returns |
//! |---|---|---|
//! | `sessions` | who is connected, what each said, what it is owed, what waits | outputs |
//! | `journal` | log, preamble, snapshot budget, plans, cursors | what became of a record, and of the group before it |
//! | `streams` | ledger, coverage, index of closed epochs, watch, absent epochs | losses to name, epochs to abandon, Acks that are due |
//!
//! Here alone they meet: for a publish in `intake`, for a sink's word and as time passes in `upkeep`, with
//! the lake in `join` and `apart`, at a start in `open`. The owner hands in what waits, calls
//! [`Custody::sync`] once, and carries out the outputs. State that an answer speaks of is durable when the
//! answer is made; state changes only by records that were appended
//! ([`crate::pipeline::ledger::Ledger::apply`]), so that a restart reads itself to the same state.

mod apart;
pub mod clock;
mod forget;
mod intake;
mod join;
mod journal;
mod open;
mod sessions;
mod sides;
mod sinks;
mod streams;
mod stretch;
mod types;
mod upkeep;

use std::collections::BTreeSet;
use std::sync::Arc;

use headwater_proto::ids::{DeviceId, JournalId, Stream};
use headwater_proto::time::{Millis, Now};
use headwater_spool::{Disk, Log, Reader, SyncError};

use super::credit::credit;
use super::envelope::{Record, SchemaHead, SessionHead};
use super::schemas::SchemaBook;
use super::snapshot::{NEW_BYTES, STREAM_BYTES};
use crate::pipeline::ledger::Ledger;

pub use apart::NotAlone;
pub use forget::{ForgetError, Forgotten};
use intake::Intake;
use journal::{Journal, Leaves, NotPut, Report};
pub use journal::{OpenError, Past};
pub use open::Opened;
use sessions::Sessions;
pub use sessions::{MAX_ASKED, MAX_ORIGINS};
pub use sides::{
    Agreed, JournalSide, LakeSide, MeetError, Meeting, Needs, Proof, Proven, Told, Wanted,
};
pub use sinks::PlanError;
pub use streams::{MAX_COVERED_RANGES, over};
use streams::{Streams, Unknown};
pub use stretch::{Found, Lacking, Pass, Stretch};
pub use types::{Counters, Crowd, Event, Gateway, Mode, Output, PlainPublish, Settings, SinkSpec};
use upkeep::{Earlier, Upkeep};

/// Why a record was not appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    /// No room: it waits.
    Full,
    /// The disk failed, and with it the running group.
    Failed,
}

/// The custody core. See the module's page.
pub struct Custody<D: Disk> {
    settings: Settings,
    journal: Journal<D>,
    streams: Streams,
    sessions: Sessions,
    /// The stretch that is read on another thread.
    reading: Option<stretch::Reading>,
    /// When one may be read again, after one that could not be.
    read_again_at: Millis,
    /// What sinks of earlier journals may lack.
    earlier: Earlier,
    counters: Counters,
    /// That of the machine.
    pub clock: clock::HouseClock,
}

impl<D: Disk> Custody<D> {
    /// Takes in one event. Answers come after the next [`Custody::sync`].
    pub fn handle(&mut self, event: Event, now: Now) {
        let now = clock::look(self, now);
        match event {
            Event::Connected { conn, client } => {
                self.sessions.connected(conn, client);
            }
            Event::Up { conn, .. } | Event::Plain(PlainPublish { conn, .. }) => {
                Intake::new(self, conn, now).take_or_withhold(event);
            }
            Event::Settled {
                conn,
                client,
                through,
            } => self.journal.open.settled(&client, conn, through),
            Event::Disconnected {
                conn,
                client,
                orderly,
            } => {
                self.journal.open.disconnected(&client, orderly);
                self.sessions.disconnected(conn);
            }
            Event::Committed {
                sink,
                through,
                streams,
                refused,
                damaged,
            } => self.upkeep(now).said(Report {
                sink,
                through,
                streams,
                refused,
                damaged,
                named: None,
            }),
            Event::Read { stretch, found } => self.upkeep(now).was_read(&stretch, found),
            Event::Found(looked) => self.upkeep(now).found(looked),
            Event::Kept { epochs, kept } => self.upkeep(now).kept(&epochs, &kept),
            Event::Tick => self.upkeep(now).tick(),
        }
    }

    /// Makes all that was taken in durable, and its answers ready.
    ///
    /// # Errors
    /// [`SyncError`]: the group never happened; its connections are told to close, and what they
    /// sent comes again.
    pub fn sync(&mut self, now: Now) -> Result<(), SyncError> {
        let now = clock::look(self, now);
        let synced = self.journal.sync();
        match synced {
            Ok(wrote) => {
                self.counters.groups_synced_total += u64::from(wrote);
                self.synced();
                self.counters.segments_released_total += self.journal.release();
                let terms = clock::terms(self, now);
                // While publishes wait for room nobody may send more.
                let stalled = self.sessions.is_stalled();
                let (connections, level) = (self.sessions.count(), self.journal.level());
                let credit = if stalled {
                    0
                } else {
                    credit(self.settings.credit, connections, level)
                };
                let mark = |stream: &Stream, oldest| self.streams.mark(stream, oldest);
                let portions = &self.streams.ledger().portions;
                let places = |origin: &DeviceId| portions.places(origin).collect();
                self.sessions.settle(credit, terms, &mark, &places);
            }
            Err(_) => self.failed(),
        }
        synced.map(drop)
    }

    /// The next thing to do, oldest first.
    pub fn next_output(&mut self) -> Option<Output> {
        self.sessions.next_output()
    }

    /// The journal's random name.
    #[must_use]
    pub const fn journal(&self) -> JournalId {
        self.journal.name()
    }

    /// The streams and their marks.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        self.streams.ledger()
    }

    /// The schemas in use; clones share it.
    #[must_use]
    pub const fn schemas(&self) -> &SchemaBook {
        &self.journal.schemas
    }

    /// What was counted since the start.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// A reader of the journal, for a sink or another thread.
    #[must_use]
    pub fn reader(&self) -> Reader<D> {
        self.journal.log().reader()
    }

    /// The log itself, for what an operator wants to see.
    #[must_use]
    pub const fn log(&self) -> &Log<D> {
        self.journal.log()
    }

    /// The MQTT client ids that have a persistent session.
    #[must_use]
    pub const fn sessions(&self) -> &BTreeSet<Arc<str>> {
        self.journal.clients()
    }

    /// Whether publishes wait for room in the journal.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        self.sessions.is_stalled()
    }

    /// The credit that each connection has.
    #[must_use]
    pub const fn credit_bytes(&self) -> u64 {
        self.sessions.credit
    }

    /// Keeps or forgets a persistent MQTT session; durable after the next sync. False if the journal
    /// cannot take it.
    pub fn keep_session(&mut self, client: &str, present: bool) -> bool {
        let more = if present { 3 + client.len() } else { 0 };
        if present && !self.has_state_room(more, NEW_BYTES) {
            return false;
        }
        let head = SessionHead { client, present };
        let kept = self.append(&Record::Session(head), Leaves::Three).is_ok();
        self.journal.grew(more);
        kept
    }

    /// All that was appended is durable: a later failure takes none of it back.
    fn synced(&mut self) {
        self.earlier.synced();
        for stream in self.streams.synced() {
            self.sessions.owe_acks(&stream);
        }
    }

    /// The group failed: nothing of it happened.
    fn failed(&mut self) {
        self.counters.groups_failed_total += 1;
        self.streams.roll_back();
        self.earlier.failed();
        self.sessions.fail_group();
    }

    fn append(&mut self, record: &Record<'_>, leaves: Leaves) -> Result<u64, Refused> {
        self.append_with(None, record, leaves)
    }

    /// Appends a record that is read with `schema`, and lets the ledger take it in.
    fn append_with(
        &mut self,
        schema: Option<&SchemaHead>,
        record: &Record<'_>,
        leaves: Leaves,
    ) -> Result<u64, Refused> {
        let ledger = self.streams.ledger();
        let put = self.journal.append(ledger, schema, record, leaves);
        if put.synced {
            self.synced();
        }
        match put.came {
            Ok(position) => {
                let undated = self.journal.clock.undated().is_some();
                self.streams.apply_as(record, undated);
                Ok(position)
            }
            Err(NotPut::Full) => Err(Refused::Full),
            Err(NotPut::Refused) => Err(Refused::Failed),
            Err(NotPut::GroupFailed) => {
                self.failed();
                Err(Refused::Failed)
            }
        }
    }

    /// Makes all durable, and the next record begin a segment.
    fn roll(&mut self) -> Result<(), SyncError> {
        let rolled = self.journal.roll();
        match rolled {
            Ok(()) => self.synced(),
            Err(_) => self.failed(),
        }
        rolled
    }

    /// Whether the next snapshot stays within `bound` with `more` bytes in it.
    fn has_state_room(&mut self, more: usize, bound: usize) -> bool {
        self.journal
            .has_state_room(self.streams.ledger(), more, bound)
    }

    const fn upkeep(&mut self, now: Now) -> Upkeep<'_, D> {
        Upkeep::new(self, now)
    }

    /// Has streams looked up in the index, if some are to be and none are yet.
    fn look_up(&mut self) {
        let hellos = self.sessions.waiting();
        if let Some(finding) = self.streams.look_ups().begin(hellos) {
            self.sessions.put_out(Output::Find(finding));
        }
    }

    /// Whether the index of closed epochs has all that the lake knew when it was made, and told it.
    #[must_use]
    pub fn index_is_whole(&self) -> bool {
        self.streams.index_is_whole()
    }
}

/// Brings a stream that is over back, before anything is said of it. False if nobody can say whether there
/// was one: it must not be taken for new.
fn recall<D: Disk>(
    journal: &mut Journal<D>,
    streams: &mut Streams,
    counters: &mut Counters,
    stream: &Stream,
) -> bool {
    match streams.recall(stream) {
        Ok(false) => true,
        Ok(true) => {
            journal.grew(STREAM_BYTES);
            counters.recalled_total += 1;
            true
        }
        Err(why) => {
            counters.index_failures_total += u64::from(why == Unknown::Failed);
            false
        }
    }
}
