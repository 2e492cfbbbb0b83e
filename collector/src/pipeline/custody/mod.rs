//! Core: custody. What arrives is judged, appended to the journal, synced, and only then answered.
//!
//! ```text
//! Event ──► judge (ledger) ──► append ──► sync ──► PUBACK · Ack · Welcome
//!                                 ▲         │ failed: the group never happened,
//!                                 │         ▼ its connections end and come again
//!                     snapshot at each new segment
//! Committed (a sink) ──► marks ──► Ack · segments that every required sink has passed go
//! ```
//!
//! The owner hands in what waits, calls [`Custody::sync`] once, and carries out the outputs. State
//! that an answer speaks of is durable when the answer is made; state changes only by records that
//! were appended ([`crate::ledger::Ledger::apply`]), so that a restart reads itself to the same
//! state.

mod hello;
mod open;
mod plain;
mod sinks;
mod up;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use headwater_gate::repeat::OpenEntries;
use headwater_gate::{CloseReason, ConnId, Token};
use headwater_proto::ids::{DeviceId, Epoch, JournalId, Lane, SeqRange, Stream};
use headwater_proto::message::{self, Ack, Body, MAX_MARKS, Mark};
use headwater_proto::sabotage::{self, Bug};
use headwater_proto::time::{Millis, Now};
use headwater_spool::{AppendError, Disk, Log, Reader, SyncError};

use super::credit::{CreditLimits, JournalLevel, credit};
use super::envelope::{Record, SessionHead};
use super::pattern::Pattern;
use super::schemas::SchemaBook;
use super::snapshot::{self, Parts, PendingPlan, SinkCursor};
use crate::ledger::Ledger;

pub use open::{OpenError, Opened};
pub use sinks::PlanError;

/// When a sender may forget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// When all required sinks have it: outlives the loss of the collector's disk.
    #[default]
    Sinks,
    /// When the journal has it: holds as long as the journal's disk does.
    Journal,
}

/// A sink that reads the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkSpec {
    /// Its name.
    pub name: String,
    /// Whether the journal waits for it.
    pub required: bool,
}

/// A client that speaks for other devices.
pub use headwater_gate::acl::Gateway;

/// What an operator decides.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The journal's log.
    pub log: headwater_spool::Config,
    /// Bytes in flight.
    pub credit: CreditLimits,
    /// When a sender may forget.
    pub mode: Mode,
    /// Who reads the journal; at least one is required.
    pub sinks: Vec<SinkSpec>,
    /// Topics of plain devices.
    pub patterns: Vec<Pattern>,
    /// Clients that speak for other devices than themselves.
    pub gateways: Vec<Gateway>,
    /// Largest bundle taken.
    pub max_bundle_bytes: u32,
    /// How long an epoch must be absent from its sender's Hellos before it counts as abandoned: a
    /// second device with the same identity may still bring it back.
    pub abandon_after_ms: u64,
    /// Payload bytes of one connection that wait unacknowledged while the journal is full; past it
    /// the connection is closed.
    pub withheld_bytes_per_connection: usize,
    /// The same for all connections together.
    pub withheld_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            log: headwater_spool::Config {
                name: "journal".to_owned(),
                segment_bytes: 64 << 20,
                quota_bytes: 4 << 30,
                reserve_bytes: 64 << 20,
                ..headwater_spool::Config::default()
            },
            credit: CreditLimits::default(),
            mode: Mode::Sinks,
            sinks: vec![SinkSpec { name: "lake".to_owned(), required: true }],
            patterns: Vec::new(),
            gateways: Vec::new(),
            max_bundle_bytes: headwater_proto::bundle::DEFAULT_MAX_BUNDLE_BYTES,
            abandon_after_ms: 10 * 60 * 1000,
            withheld_bytes_per_connection: 512 << 10,
            withheld_bytes: 16 << 20,
        }
    }
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A client connected.
    Connected {
        /// The connection.
        conn: ConnId,
        /// The authenticated sender.
        client: Arc<str>,
    },
    /// A publish on an agent's topic.
    Up {
        /// The connection.
        conn: ConnId,
        /// The device of the topic.
        device: DeviceId,
        /// Frames back to back.
        payload: Bytes,
        /// What to acknowledge; `None` for QoS 0.
        token: Option<Token>,
    },
    /// A publish of a plain device.
    Plain(PlainPublish),
    /// The client will not repeat publishes up to `through`.
    Settled {
        /// The connection.
        conn: ConnId,
        /// Its client.
        client: Arc<str>,
        /// The newest of them.
        through: Token,
    },
    /// The connection is over.
    Disconnected {
        /// The connection.
        conn: ConnId,
        /// Its client.
        client: Arc<str>,
        /// Whether the client said DISCONNECT.
        orderly: bool,
    },
    /// A sink has everything below `through`.
    Committed {
        /// Its name.
        sink: String,
        /// The first position that it does not have.
        through: u64,
        /// What that covers of each stream.
        streams: Vec<(Stream, Vec<SeqRange>)>,
    },
    /// Time passed.
    Tick,
}

/// A publish of a plain device.
#[derive(Debug, Clone)]
pub struct PlainPublish {
    /// The connection.
    pub conn: ConnId,
    /// Its client.
    pub client: Arc<str>,
    /// The topic.
    pub topic: Arc<str>,
    /// The payload.
    pub payload: Bytes,
    /// The client says that it may have sent this before.
    pub dup: bool,
    /// Its packet id, 0 with QoS 0.
    pub packet_id: u16,
    /// [`headwater_gate::repeat::fingerprint`] of topic and payload.
    pub fingerprint: u64,
    /// What to acknowledge; `None` for QoS 0.
    pub token: Option<Token>,
}

/// What the owner must do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send a message down.
    Send {
        /// The connection.
        conn: ConnId,
        /// Frames back to back.
        payload: Vec<u8>,
    },
    /// Acknowledge a publish.
    PubAck {
        /// The connection.
        conn: ConnId,
        /// Which publish.
        token: Token,
    },
    /// End a connection.
    Close {
        /// The connection.
        conn: ConnId,
        /// Why.
        reason: CloseReason,
    },
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What custody counts.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Counters { $($(#[$doc])* pub $name: u64,)* }

        impl Counters {
            /// Names and values, for metrics.
            #[must_use]
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

counters! {
    /// Records appended with verdict store.
    records_stored_total,
    /// Bytes of their frames and payloads.
    record_bytes_stored_total,
    /// Readings in them, as their headers say.
    samples_stored_total,
    /// Records that came again.
    repeats_total,
    /// Same identity, other content.
    identity_conflicts_total,
    /// Two live devices with one identity.
    identity_shared_total,
    /// Publishes of plain devices that were repeats.
    plain_repeats_total,
    /// Publishes that were not frames, or not whole.
    malformed_total,
    /// Records refused before custody.
    rejects_total,
    /// Schemas asked for.
    schema_requests_total,
    /// Gaps that the collector named.
    gaps_named_total,
    /// Groups synced.
    groups_synced_total,
    /// Groups that failed.
    groups_failed_total,
    /// Publishes that waited for room in the journal.
    withheld_total,
    /// Journal segments given back.
    segments_released_total,
    /// Journal records that could not be read again.
    records_damaged_total,
}

/// What one connection said.
#[derive(Debug)]
struct Conn {
    client: Arc<str>,
    origins: BTreeMap<DeviceId, hello::Origin>,
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
    ledger: Ledger,
    schemas: SchemaBook,
    open: OpenEntries,
    sessions: BTreeSet<Arc<str>>,
    cursors: Vec<SinkCursor>,
    /// The cursors in the newest snapshot that is durable.
    durable_cursors: Vec<SinkCursor>,
    /// The cursors in a snapshot whose segment has no durable record yet.
    pending_cursors: Option<Vec<SinkCursor>>,
    plan: Option<PendingPlan>,
    conns: BTreeMap<ConnId, Conn>,
    by_origin: BTreeMap<DeviceId, BTreeSet<ConnId>>,
    absent: BTreeMap<Stream, (ConnId, Millis)>,
    withheld: VecDeque<Event>,
    withheld_bytes: usize,
    group: Group,
    outputs: VecDeque<Output>,
    credit: u64,
    next_expiry: Millis,
    counters: Counters,
    scratch: Vec<u8>,
}

/// How often closed streams are looked through.
const EXPIRY_EVERY_MS: u64 = 60_000;

impl<D: Disk> Custody<D> {
    /// Takes in one event. Answers come after the next [`Custody::sync`].
    pub fn handle(&mut self, event: Event, now: Now) {
        match event {
            Event::Connected { conn, client } => {
                let conn_state = Conn { client, origins: BTreeMap::new(), withheld_bytes: 0 };
                self.conns.insert(conn, conn_state);
            }
            Event::Up { .. } | Event::Plain(_) => self.take_or_withhold(event, now),
            Event::Settled { conn, client, through } => self.open.settled(&client, conn, through),
            Event::Disconnected { conn, client, orderly } => {
                self.open.disconnected(&client, orderly);
                self.forget(conn);
            }
            Event::Committed { sink, through, streams } => {
                self.committed(&sink, through, &streams);
            }
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
        let head = SessionHead { client, present };
        self.append(&Record::Session(head), false).is_ok()
    }

    fn append(&mut self, record: &Record<'_>, reserved: bool) -> Result<u64, Refused> {
        let mut payload = std::mem::take(&mut self.scratch);
        record.encode(&mut payload);
        let newest = self.log.segments().next_back().map(|segment| segment.id);
        let parts = Parts {
            journal: self.journal,
            sinks: &self.cursors,
            plan: self.plan.as_ref(),
            sessions: &self.sessions,
            ledger: &self.ledger,
            schemas: &self.schemas,
            open: &self.open,
        };
        let snapshot = |out: &mut Vec<u8>| snapshot::write(&parts, out);
        let kind = record.kind().to_u8();
        let appended = if reserved {
            self.log.append_reserved(kind, &payload, &snapshot)
        } else {
            self.log.append(kind, &payload, &snapshot)
        };
        self.scratch = payload;
        match appended {
            Ok(position) => {
                if self.log.segments().next_back().map(|segment| segment.id) != newest {
                    self.pending_cursors = Some(self.cursors.clone());
                }
                self.apply(position, record);
                Ok(position)
            }
            Err(AppendError::Full { .. }) => Err(Refused::Full),
            Err(AppendError::Sync(error)) => {
                self.fail(error.lost.start);
                Err(Refused::Failed)
            }
            Err(
                AppendError::TooLarge(_)
                | AppendError::SnapshotTooLarge(_)
                | AppendError::Disk { .. },
            ) => Err(Refused::Failed),
        }
    }

    /// The group is durable: answer it.
    fn settle(&mut self, now: Now, wrote: bool) {
        if wrote {
            self.counters.groups_synced_total += 1;
            if let Some(cursors) = self.pending_cursors.take() {
                self.durable_cursors = cursors;
            }
        }
        self.ledger.synced();
        self.schemas.synced();
        self.commit_synced();
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
            let Some(mark) = self.mark(conn, &origin, lane, epoch) else { continue };
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

    /// The group from `first` on failed: nothing of it happened.
    fn fail(&mut self, first: u64) {
        self.counters.groups_failed_total += 1;
        self.ledger.roll_back();
        self.schemas.roll_back();
        self.open.roll_back(first);
        self.pending_cursors = None;
        if self.plan.as_ref().is_some_and(|plan| plan.position >= first) {
            self.plan = None;
        }
        let group = std::mem::take(&mut self.group);
        let mut conns: BTreeSet<ConnId> = group.pubacks.iter().map(|(conn, _)| *conn).collect();
        conns.extend(group.acks.iter().map(|(conn, ..)| *conn));
        conns.extend(group.welcomes.iter().map(|(conn, _)| *conn));
        for conn in conns {
            self.close(conn, CloseReason::Journal);
        }
    }

    fn take_or_withhold(&mut self, event: Event, now: Now) {
        let Some(conn) = conn_of(&event) else { return };
        if !self.conns.contains_key(&conn) {
            return;
        }
        // Order within a connection holds: what came before goes first.
        if self.conns.get(&conn).is_some_and(|state| state.withheld_bytes > 0) {
            self.withhold(conn, event);
            return;
        }
        if let Err(event) = self.take(event, now) {
            self.withhold(conn, event);
        }
    }

    /// Gives the event back if the journal has no room for it.
    fn take(&mut self, event: Event, now: Now) -> Result<(), Event> {
        let taken = match &event {
            Event::Up { conn, device, payload, token } => {
                self.up(*conn, device, payload, *token, now)
            }
            Event::Plain(publish) => self.plain(publish, now),
            Event::Connected { .. }
            | Event::Settled { .. }
            | Event::Disconnected { .. }
            | Event::Committed { .. }
            | Event::Tick => Ok(()),
        };
        match (taken, conn_of(&event)) {
            (Err(Refused::Full), _) => Err(event),
            (Err(Refused::Failed), Some(conn)) => {
                self.close(conn, CloseReason::Journal);
                Ok(())
            }
            (Err(Refused::Failed), None) | (Ok(()), _) => Ok(()),
        }
    }

    fn withhold(&mut self, conn: ConnId, event: Event) {
        // One more than the payload, so that an empty one keeps its place too.
        let bytes = payload_len(&event) + 1;
        let Some(state) = self.conns.get_mut(&conn) else { return };
        self.counters.withheld_total += 1;
        if state.withheld_bytes + bytes > self.settings.withheld_bytes_per_connection
            || self.withheld_bytes + bytes > self.settings.withheld_bytes
        {
            self.close(conn, CloseReason::Journal);
            return;
        }
        state.withheld_bytes += bytes;
        self.withheld_bytes += bytes;
        self.withheld.push_back(event);
    }

    /// Tries what was withheld, oldest first, until the journal is full again.
    fn retry_withheld(&mut self, now: Now) {
        while let Some(event) = self.withheld.pop_front() {
            let Some(conn) = conn_of(&event) else { continue };
            let bytes = payload_len(&event) + 1;
            if let Err(event) = self.take(event, now) {
                self.withheld.push_front(event);
                return;
            }
            self.withheld_bytes -= bytes.min(self.withheld_bytes);
            if let Some(state) = self.conns.get_mut(&conn) {
                state.withheld_bytes = state.withheld_bytes.saturating_sub(bytes);
            }
        }
    }

    fn tick(&mut self, now: Now) {
        self.make_room(now);
        self.retry_withheld(now);
        self.abandon_absent(now);
        if self.next_expiry <= now.mono {
            self.next_expiry = now.mono.plus(EXPIRY_EVERY_MS);
            for stream in self.ledger.expire(now.wall) {
                self.schemas.forget(&stream.device, stream.epoch);
            }
        }
    }

    fn close(&mut self, conn: ConnId, reason: CloseReason) {
        if self.conns.contains_key(&conn) {
            self.outputs.push_back(Output::Close { conn, reason });
            self.forget(conn);
        }
    }

    fn forget(&mut self, conn: ConnId) {
        let Some(state) = self.conns.remove(&conn) else { return };
        for origin in state.origins.keys() {
            if let Some(conns) = self.by_origin.get_mut(origin) {
                conns.remove(&conn);
                if conns.is_empty() {
                    self.by_origin.remove(origin);
                }
            }
        }
        if state.withheld_bytes > 0 {
            self.withheld.retain(|event| conn_of(event) != Some(conn));
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
        let oldest = self.conns.get(&conn)?.origins.get(origin)?.oldest(lane, epoch)?;
        let stream = Stream { device: origin.clone(), lane, epoch };
        Some(self.ledger.track(&stream)?.receiver.mark(lane, epoch, oldest))
    }

    fn ack(&mut self, conn: ConnId, origin: &DeviceId, marks: &[Mark], now: Now) {
        let credit = u32::try_from(self.credit).unwrap_or(u32::MAX);
        let mut pages = marks.chunks(MAX_MARKS).collect::<Vec<_>>();
        if pages.is_empty() {
            pages.push(&[]);
        }
        for page in pages {
            let ack = Ack {
                origin: origin.clone(),
                journal: self.journal,
                credit,
                time: now.wall,
                marks: page.iter().cloned().collect(),
            };
            self.send(conn, &ack);
        }
    }

    fn send<M: Body>(&mut self, conn: ConnId, message: &M) {
        let mut payload = Vec::new();
        message::append_frame(message, &mut payload);
        self.outputs.push_back(Output::Send { conn, payload });
    }
}

fn conn_of(event: &Event) -> Option<ConnId> {
    match event {
        Event::Connected { conn, .. }
        | Event::Up { conn, .. }
        | Event::Settled { conn, .. }
        | Event::Disconnected { conn, .. } => Some(*conn),
        Event::Plain(publish) => Some(publish.conn),
        Event::Committed { .. } | Event::Tick => None,
    }
}

fn payload_len(event: &Event) -> usize {
    match event {
        Event::Up { payload, .. } => payload.len(),
        Event::Plain(publish) => publish.payload.len() + publish.topic.len(),
        Event::Connected { .. }
        | Event::Settled { .. }
        | Event::Disconnected { .. }
        | Event::Committed { .. }
        | Event::Tick => 0,
    }
}
