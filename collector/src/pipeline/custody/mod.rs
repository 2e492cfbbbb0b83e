//! Core: custody. What arrives is judged, appended to the journal, synced, and only then answered.
//!
//! ```text
//! Event ──► judge (ledger) ──► append ──► sync ──► PUBACK · Ack · Welcome
//!                                 ▲         │ failed: the group never happened,
//!                                 │         ▼ its connections end and come again
//!                     snapshot at each new segment
//! Committed (a sink) ──► coverage ──► what all required sinks have: marks ──► Ack
//!                    └─► cursor ──► segments that every sink has passed go
//! ```
//!
//! The owner hands in what waits, calls [`Custody::sync`] once, and carries out the outputs. State
//! that an answer speaks of is durable when the answer is made; state changes only by records that
//! were appended ([`crate::pipeline::ledger::Ledger::apply`]), so that a restart reads itself to the same
//! state.

mod apart;
mod append;
mod budget;
mod coverage;
mod forget;
mod hello;
mod join;
mod lacks;
mod loss;
mod open;
mod over;
mod plain;
mod sides;
mod sinks;
mod types;
mod up;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use headwater_gate::repeat::OpenEntries;
use headwater_gate::{CloseReason, ConnId, Token};
use headwater_proto::ids::{DeviceId, Epoch, JournalId, Lane, SeqRange, Stream};
use headwater_proto::message::{self, Ack, Body, MAX_MARKS, MAX_MESSAGE_BYTES, Mark};
use headwater_proto::sabotage::{self, Bug};
use headwater_proto::time::{Millis, Now};
use headwater_spool::{Disk, Log, Reader, SyncError};

use super::credit::{JournalLevel, credit};
use super::envelope::{Record, SchemaHead, SessionHead, SinkCursor};
use super::schemas::{SchemaBook, SchemaId};
use super::snapshot::{NEW_BYTES, Plans};
use crate::done::DoneEpochs;
use crate::pipeline::ledger::Ledger;
use crate::pipeline::rules::RulesId;

pub use apart::NotAlone;
pub use coverage::MAX_COVERED_RANGES;
pub use forget::{ForgetError, Forgotten};
pub use hello::MAX_ORIGINS;
use lacks::Held;
pub use open::{OpenError, Opened, Past};
pub use sides::{Agreed, JournalSide, LakeSide, MeetError, Meeting, Proven, Told};
pub use sinks::PlanError;
pub use types::{Counters, Event, Gateway, Mode, Output, PlainPublish, Settings, SinkSpec};
pub use up::MAX_ASKED;

/// What one connection said.
#[derive(Debug)]
struct Conn {
    client: Arc<str>,
    origins: BTreeMap<DeviceId, hello::Origin>,
    /// Schemas that it was asked for, and when.
    asked: BTreeMap<SchemaHead, Millis>,
    /// Numbers that stand for dictionaries which were not kept when they were told.
    referred: BTreeMap<SchemaHead, SchemaId>,
    /// Numbers of dictionaries that were not taken: lines that need them never will be.
    untaken: BTreeSet<SchemaHead>,
    withheld_bytes: usize,
}

/// What waits for the next sync.
#[derive(Debug, Default)]
struct Group {
    pubacks: Vec<(ConnId, Token)>,
    acks: BTreeSet<(ConnId, DeviceId, Lane, Epoch)>,
    welcomes: BTreeSet<(ConnId, DeviceId)>,
}

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
    log: Log<D>,
    settings: Settings,
    journal: JournalId,
    rules: Rules,
    ledger: Ledger,
    schemas: SchemaBook,
    /// Schema numbers whose meaning stands in the present segment.
    in_segment: BTreeSet<SchemaHead>,
    /// Dictionaries of which all bytes stand in the segment.
    dictionaries_in_segment: BTreeSet<SchemaId>,
    /// Streams that were let go of.
    done: Box<dyn DoneEpochs>,
    /// The index did not tell what it has of an epoch that was read again.
    index_failed: bool,
    open: OpenEntries,
    sessions: BTreeSet<Arc<str>>,
    cursors: Vec<SinkCursor>,
    /// The cursors in the newest snapshot that is durable.
    durable_cursors: Vec<SinkCursor>,
    /// The cursors in a snapshot whose segment has no durable record yet.
    pending_cursors: Option<Vec<SinkCursor>>,
    plans: Plans,
    /// What each required sink has and not all have.
    coverage: coverage::Coverage,
    /// Numbers that some required sinks lack for good, as records of the running group say.
    settled_lacks: Vec<(Stream, SeqRange)>,
    /// What a start found in one required sink and could not read for the others, with their names.
    unread: Vec<loss::Unread>,
    /// What of it was named in the running group.
    named_unread: Vec<loss::Unread>,
    /// The end has come: reports are taken however much they are, since nothing more comes.
    is_ending: bool,
    /// Where the journal stood when it was last at one with the lake, if it was begun without it.
    apart_since: Option<u64>,
    /// Term of the lake that the marks agree with; 0 before they were made to.
    lake_term: u64,
    /// The term that they agree with from a position on, once the sinks have come there.
    next_term: Option<(u64, u64)>,
    /// Marks of all records below this position say what was committed.
    committed_to: u64,
    /// How far each sink's cursor stands in the journal, and since when.
    noted: BTreeMap<String, (u64, Millis)>,
    /// The position after the last record that is more than a sink's progress.
    worth_noting: u64,
    /// What sinks said and the journal has not taken yet.
    held: Vec<lacks::Held>,
    /// Cursors that were moved by records of the running group.
    moved: Vec<lacks::Moved>,
    /// The first position that sinks which were taken out never had to have.
    began_at: u64,
    conns: BTreeMap<ConnId, Conn>,
    by_origin: BTreeMap<DeviceId, BTreeSet<ConnId>>,
    absent: BTreeMap<Stream, (ConnId, Millis)>,
    /// What must be committed when the sinks have come further.
    watch: Option<loss::Watch>,
    watch_again: bool,
    /// What of it was settled in the running group.
    settled: Vec<loss::Item>,
    /// With the clocks at their receipt, by which they are dated whenever they are taken.
    withheld: VecDeque<(Event, Now)>,
    withheld_bytes: usize,
    group: Group,
    outputs: VecDeque<Output>,
    credit: u64,
    next_expiry: Millis,
    /// When to look for relayed epochs that nobody lists.
    next_relayed: Option<Millis>,
    counters: Counters,
    scratch: Vec<u8>,
    /// Bytes of the newest snapshot.
    snapshot_bytes: usize,
    /// Bytes of it without the open entries, and the most that was added since.
    state_bytes: usize,
    grown_bytes: usize,
}

/// The rule set by which records that arrive now are read.
#[derive(Debug)]
struct Rules {
    id: RulesId,
    bytes: Vec<u8>,
}

/// Segments of the journal's quota that each kind of record leaves to the next, so that a full
/// journal can always be emptied: a sink's plan, then the snapshot that lets segments go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaves {
    /// Readings.
    Three = 3,
    /// Gaps and marks.
    Two = 2,
    /// Plans of sinks.
    One = 1,
    /// A cursor, at the head of a new segment.
    None = 0,
}

/// Marks of one answer.
type Page = heapless::Vec<Mark, MAX_MARKS>;

/// Most bytes of an answer beside its marks and the origin's id: a frame around a Welcome.
const ANSWER_BYTES: usize =
    headwater_proto::frame::MAX_OVERHEAD_BYTES + 1 + 1 + 2 + 10 + 2 + 10 + 5 + 5 + 10 + 1;

/// Most bytes of a mark in an answer.
fn mark_bytes(mark: &Mark) -> usize {
    1 + 10 + 10 + 10 + 1 + mark.ranges.len() * (10 + 10 + 1)
}

/// Segments are allocated in blocks of this size.
const BLOCK_BYTES: u64 = 4096;

impl<D: Disk> Custody<D> {
    /// Takes in one event. Answers come after the next [`Custody::sync`].
    pub fn handle(&mut self, event: Event, now: Now) {
        match event {
            Event::Connected { conn, client } => {
                let conn_state = Conn {
                    client,
                    origins: BTreeMap::new(),
                    asked: BTreeMap::new(),
                    referred: BTreeMap::new(),
                    untaken: BTreeSet::new(),
                    withheld_bytes: 0,
                };
                self.conns.insert(conn, conn_state);
            }
            Event::Up { .. } | Event::Plain(_) => self.take_or_withhold(event, now),
            Event::Settled {
                conn,
                client,
                through,
            } => self.open.settled(&client, conn, through),
            Event::Disconnected {
                conn,
                client,
                orderly,
            } => {
                self.open.disconnected(&client, orderly);
                self.forget(conn);
            }
            Event::Committed {
                sink,
                through,
                streams,
                refused,
                damaged,
            } => self.said(
                Held {
                    sink,
                    through,
                    streams,
                    refused,
                    damaged,
                },
                now,
            ),
            Event::Tick => self.tick(now),
        }
    }

    /// Makes all that was taken in durable, and its answers ready.
    ///
    /// # Errors
    /// [`SyncError`]: the group never happened; its connections are told to close, and what they
    /// sent comes again.
    pub fn sync(&mut self, now: Now) -> Result<(), SyncError> {
        let before = self.log.durable();
        match self.log.sync() {
            Ok(durable) => {
                self.settle(now, durable > before);
                Ok(())
            }
            Err(error) => {
                self.fail(error.lost.start);
                Err(error)
            }
        }
    }

    /// The next thing to do, oldest first.
    pub fn next_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The journal's random name.
    #[must_use]
    pub const fn journal(&self) -> JournalId {
        self.journal
    }

    /// The streams and their marks.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The schemas in use; clones share it.
    #[must_use]
    pub const fn schemas(&self) -> &SchemaBook {
        &self.schemas
    }

    /// What was counted since the start.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// A reader of the journal, for a sink or another thread.
    #[must_use]
    pub fn reader(&self) -> Reader<D> {
        self.log.reader()
    }

    /// The log itself, for what an operator wants to see.
    #[must_use]
    pub const fn log(&self) -> &Log<D> {
        &self.log
    }

    /// The MQTT client ids that have a persistent session.
    #[must_use]
    pub const fn sessions(&self) -> &BTreeSet<Arc<str>> {
        &self.sessions
    }

    /// Whether publishes wait for room in the journal.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        !self.withheld.is_empty()
    }

    /// The credit that each connection has.
    #[must_use]
    pub const fn credit_bytes(&self) -> u64 {
        self.credit
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
        self.grown_bytes += more;
        kept
    }

    /// The group is durable: answer it.
    fn settle(&mut self, now: Now, wrote: bool) {
        self.counters.groups_synced_total += u64::from(wrote);
        self.keep_synced();
        self.release();
        let before = self.credit;
        self.credit = self.present_credit();
        for (conn, token) in std::mem::take(&mut self.group.pubacks) {
            self.outputs.push_back(Output::PubAck { conn, token });
        }
        for (conn, origin) in std::mem::take(&mut self.group.welcomes) {
            self.welcome(conn, &origin, now);
        }
        let mut acks: BTreeMap<(ConnId, DeviceId), Vec<Mark>> = BTreeMap::new();
        for (conn, origin, lane, epoch) in std::mem::take(&mut self.group.acks) {
            let Some(mark) = self.mark(conn, &origin, lane, epoch) else {
                continue;
            };
            acks.entry((conn, origin)).or_default().push(mark);
        }
        if before == 0 && self.credit > 0 {
            // Who was stopped may go on before its next probe.
            for (conn, state) in &self.conns {
                for origin in state.origins.keys() {
                    acks.entry((*conn, origin.clone())).or_default();
                }
            }
        }
        for ((conn, origin), marks) in acks {
            self.ack(conn, &origin, &marks, now);
        }
    }

    /// All that was appended is durable: a later failure takes none of it back.
    fn keep_synced(&mut self) {
        if let Some(cursors) = self.pending_cursors.take() {
            self.durable_cursors = cursors;
        }
        self.ledger.synced();
        self.schemas.synced();
        self.settled.clear();
        self.named_unread.clear();
        self.moved.clear();
        self.commit_settled_lacks();
    }

    /// The group from `first` on failed: nothing of it happened.
    fn fail(&mut self, first: u64) {
        self.counters.groups_failed_total += 1;
        self.ledger.roll_back();
        self.schemas.roll_back();
        self.open.roll_back(first);
        self.in_segment.clear();
        self.dictionaries_in_segment.clear();
        self.unsettle();
        self.pending_cursors = None;
        self.plans.retain(|_, plan| plan.position < first);
        self.move_back();
        let group = std::mem::take(&mut self.group);
        let mut conns: BTreeSet<ConnId> = group.pubacks.iter().map(|(conn, _)| *conn).collect();
        conns.extend(group.acks.iter().map(|(conn, ..)| *conn));
        conns.extend(group.welcomes.iter().map(|(conn, _)| *conn));
        for conn in conns {
            self.close(conn, CloseReason::Journal);
        }
    }

    fn take_or_withhold(&mut self, event: Event, now: Now) {
        let Some(conn) = event.conn() else { return };
        if !self.conns.contains_key(&conn) {
            return;
        }
        // Order within a connection holds: what came before goes first.
        if self
            .conns
            .get(&conn)
            .is_some_and(|state| state.withheld_bytes > 0)
        {
            self.withhold(conn, event, now);
            return;
        }
        if !self.take(&event, now) {
            self.withhold(conn, event, now);
        }
    }

    /// False if the journal has no room for it.
    fn take(&mut self, event: &Event, now: Now) -> bool {
        let taken = match event {
            Event::Up {
                conn,
                device,
                payload,
                token,
            } => self.up(*conn, device, payload, *token, now),
            Event::Plain(publish) => self.plain(publish, now),
            Event::Connected { .. }
            | Event::Settled { .. }
            | Event::Disconnected { .. }
            | Event::Committed { .. }
            | Event::Tick => Ok(()),
        };
        match (taken, event.conn()) {
            (Err(Refused::Full), _) => return false,
            (Err(Refused::Failed), Some(conn)) => self.close(conn, CloseReason::Journal),
            (Err(Refused::Failed), None) | (Ok(()), _) => {}
        }
        true
    }

    fn withhold(&mut self, conn: ConnId, event: Event, now: Now) {
        // One more than the payload, so that an empty one keeps its place too.
        let bytes = event.payload_len() + 1;
        let Some(state) = self.conns.get_mut(&conn) else {
            return;
        };
        self.counters.withheld_total += 1;
        if state.withheld_bytes + bytes > self.settings.withheld_bytes_per_connection
            || self.withheld_bytes + bytes > self.settings.withheld_bytes
        {
            self.close(conn, CloseReason::Journal);
            return;
        }
        state.withheld_bytes += bytes;
        self.withheld_bytes += bytes;
        self.withheld.push_back((event, now));
    }

    /// Tries what was withheld, oldest first, until the journal is full again.
    fn retry_withheld(&mut self) {
        while let Some((event, received)) = self.withheld.pop_front() {
            let Some(conn) = event.conn() else { continue };
            let bytes = event.payload_len() + 1;
            if !self.take(&event, received) {
                self.withheld.push_front((event, received));
                return;
            }
            self.withheld_bytes -= bytes.min(self.withheld_bytes);
            if let Some(state) = self.conns.get_mut(&conn) {
                state.withheld_bytes = state.withheld_bytes.saturating_sub(bytes);
            }
        }
    }

    fn tick(&mut self, now: Now) {
        self.say_again(now);
        self.name_unread(now);
        self.name_leavers(now);
        self.make_room(now);
        self.note_cursors(now, false);
        self.retry_withheld();
        self.abandon_absent(now);
        self.settle_watch(now);
        self.expire(now);
    }

    fn close(&mut self, conn: ConnId, reason: CloseReason) {
        if self.conns.contains_key(&conn) {
            self.outputs.push_back(Output::Close { conn, reason });
            self.forget(conn);
        }
    }

    fn forget(&mut self, conn: ConnId) {
        let Some(state) = self.conns.remove(&conn) else {
            return;
        };
        for origin in state.origins.keys() {
            if let Some(conns) = self.by_origin.get_mut(origin) {
                conns.remove(&conn);
                if conns.is_empty() {
                    self.by_origin.remove(origin);
                }
            }
        }
        if state.withheld_bytes > 0 {
            self.withheld
                .retain(|(event, _)| event.conn() != Some(conn));
            self.withheld_bytes -= state.withheld_bytes.min(self.withheld_bytes);
        }
    }

    /// A PUBACK is owed for what was appended, once it is durable.
    fn owe(&mut self, conn: ConnId, token: Option<Token>) {
        let Some(token) = token else { return };
        if sabotage::is(Bug::PubackBeforeFsync) {
            self.outputs.push_back(Output::PubAck { conn, token });
        } else {
            self.group.pubacks.push((conn, token));
        }
    }

    fn present_credit(&self) -> u64 {
        let config = self.log.config();
        let level = JournalLevel {
            used_bytes: self.log.used_bytes(),
            quota_bytes: config.quota_bytes,
            segment_bytes: config.segment_bytes,
        };
        if self.is_stalled() {
            return 0;
        }
        credit(self.settings.credit, self.conns.len(), level)
    }

    fn mark(&self, conn: ConnId, origin: &DeviceId, lane: Lane, epoch: Epoch) -> Option<Mark> {
        let oldest = self
            .conns
            .get(&conn)?
            .origins
            .get(origin)?
            .oldest(lane, epoch)?;
        let stream = Stream {
            device: origin.clone(),
            lane,
            epoch,
        };
        let track = self.ledger.track(&stream)?;
        let mut mark = track.receiver.mark(lane, epoch, oldest);
        if self.settings.mode == Mode::Journal {
            // Custody ends at the journal: what is durable may be forgotten.
            mark.committed = mark.received;
            mark.ranges.iter_mut().for_each(|r| r.committed = true);
        }
        Some(mark)
    }

    fn ack(&mut self, conn: ConnId, origin: &DeviceId, marks: &[Mark], now: Now) {
        let credit = u32::try_from(self.credit).unwrap_or(u32::MAX);
        for marks in self.pages(conn, origin, marks.to_vec()) {
            let ack = Ack {
                origin: origin.clone(),
                journal: self.journal,
                credit,
                time: now.wall,
                marks,
            };
            self.send(conn, &ack);
        }
    }

    /// Marks as the pages of an answer, at least one, none larger than its receiver takes. Where one
    /// mark alone would be, its ranges go: they only spare repeats.
    fn pages(&self, conn: ConnId, origin: &DeviceId, marks: Vec<Mark>) -> Vec<Page> {
        let state = self.conns.get(&conn);
        let said = state.and_then(|state| state.origins.get(origin));
        let most = said.map_or(MAX_MESSAGE_BYTES, |said| said.max_down_bytes);
        let room = most.saturating_sub(ANSWER_BYTES + origin.as_str().len());
        let mut pages = vec![Page::new()];
        let mut used = 0;
        for mut mark in marks {
            let mut bytes = mark_bytes(&mark);
            if bytes > room {
                mark.ranges.clear();
                bytes = mark_bytes(&mark);
            }
            let is_full = pages
                .last()
                .is_none_or(|page| page.is_full() || (used + bytes > room && !page.is_empty()));
            if is_full {
                pages.push(Page::new());
                used = 0;
            }
            used += bytes;
            if let Some(page) = pages.last_mut() {
                let _ = page.push(mark);
            }
        }
        pages
    }

    fn send<M: Body>(&mut self, conn: ConnId, message: &M) {
        let mut payload = Vec::new();
        message::append_frame(message, &mut payload);
        self.outputs.push_back(Output::Send { conn, payload });
    }
}
