//! Core: who is connected, what each connection said, and what it is owed.
//!
//! ```text
//! Connected ──► connection ──► Hello: origins and the streams that they list
//! publish   ──► taken: a PUBACK, an Ack, a Welcome are owed ──► settle: outputs
//!           └─► no room: withheld, and given back in order ──► taken, or over the bound: closed
//! ```
//! It knows nothing of journal and ledger: the marks that an answer tells are handed in, and whatever is
//! owed waits until [`Sessions::settle`] is called, or goes with its connections in
//! [`Sessions::fail_group`].

mod answers;
mod asked;
mod origin;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use headwater_gate::acl::{self, Gateway};
use headwater_gate::{CloseReason, ConnId, Token};
use headwater_proto::ids::{DeviceId, Epoch, Lane, Stream};
use headwater_proto::message::{self, Body, Hello, HelloStream, SchemaRequest};
use headwater_proto::sabotage::{self, Bug};
use headwater_proto::time::Now;

use super::types::{Event, Output, Settings};
use crate::pipeline::dating::Sightings;
use crate::pipeline::envelope::SchemaHead;
use crate::pipeline::ledger::SaidAt;
use crate::pipeline::schemas::SchemaId;
pub(super) use answers::Terms;
use asked::Asked;
pub use asked::MAX_ASKED;
use origin::Origin;

/// Most origins of one connection: a gateway speaks for its nodes. One more ends the connection.
pub const MAX_ORIGINS: usize = 256;
/// What one connection said.
#[derive(Debug)]
struct Conn {
    client: Arc<str>,
    origins: BTreeMap<DeviceId, Origin>,
    /// Most connections never need it.
    asked: Option<Box<Asked>>,
    withheld_bytes: usize,
}

/// What waits for the next sync.
#[derive(Debug, Default)]
struct Group {
    pubacks: Vec<(ConnId, Token)>,
    acks: BTreeSet<(ConnId, DeviceId, Lane, Epoch)>,
    welcomes: BTreeSet<(ConnId, DeviceId)>,
}

/// What came of a page of a Hello.
#[derive(Debug)]
pub(super) enum Said {
    /// The connection is not known, or speaks for too many origins and is closed.
    Nothing,
    /// More pages are to come.
    More,
    /// All streams that the sender holds.
    Whole(Vec<HelloStream>),
}

/// The streams of a whole Hello.
pub(super) type Listed = BTreeMap<(Lane, Epoch), HelloStream>;

/// The streams of a Hello by their names.
pub(super) fn streams_of(origin: &DeviceId, listed: &Listed) -> impl Iterator<Item = Stream> {
    listed.keys().map(|(lane, epoch)| Stream {
        device: origin.clone(),
        lane: *lane,
        epoch: *epoch,
    })
}

/// What a whole Hello says beside its streams.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whole {
    /// A gateway said it for another device.
    pub(super) relayed: bool,
    /// It lists all that its sender holds.
    pub(super) complete: bool,
    /// When it was said.
    pub(super) said_at: SaidAt,
}

/// Everybody who is connected. See the module's page.
#[derive(Debug)]
pub(super) struct Sessions {
    gateways: Vec<Gateway>,
    /// Most payload bytes that wait of one connection, and of all.
    withheld_bytes_per_connection: usize,
    most_withheld_bytes: usize,
    /// Boxed: the map is half empty, and most connections are idle.
    conns: BTreeMap<ConnId, Box<Conn>>,
    by_origin: BTreeMap<DeviceId, BTreeSet<ConnId>>,
    /// With the clocks at their receipt, by which they are dated whenever they are taken.
    withheld: VecDeque<(Event, Now)>,
    withheld_bytes: usize,
    /// Whole Hellos that wait for the index of closed epochs, or for room: the last one of each origin.
    pub(super) waits: BTreeMap<(ConnId, DeviceId), Whole>,
    group: Group,
    outputs: VecDeque<Output>,
    /// Bytes that each connection may have in flight.
    pub(super) credit: u64,
}

impl Sessions {
    /// Nobody is connected.
    ///
    /// - `credit`: bytes that each connection may have in flight at first.
    pub(super) fn new(settings: &Settings, credit: u64) -> Self {
        Self {
            gateways: settings.gateways.clone(),
            withheld_bytes_per_connection: settings.withheld_bytes_per_connection,
            most_withheld_bytes: settings.withheld_bytes,
            conns: BTreeMap::new(),
            by_origin: BTreeMap::new(),
            withheld: VecDeque::new(),
            withheld_bytes: 0,
            waits: BTreeMap::new(),
            group: Group::default(),
            outputs: VecDeque::new(),
            credit,
        }
    }

    /// A client connected.
    pub(super) fn connected(&mut self, conn: ConnId, client: Arc<str>) {
        let state = Conn {
            client,
            origins: BTreeMap::new(),
            asked: None,
            withheld_bytes: 0,
        };
        self.conns.insert(conn, Box::new(state));
    }

    pub(super) fn is_connected(&self, conn: ConnId) -> bool {
        self.conns.contains_key(&conn)
    }

    /// How many are connected.
    pub(super) fn count(&self) -> usize {
        self.conns.len()
    }

    /// Something to do that waits for no sync.
    pub(super) fn put_out(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    /// The next thing to do, oldest first.
    pub(super) fn next_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether publishes wait for room.
    pub(super) fn is_stalled(&self) -> bool {
        !self.withheld.is_empty()
    }

    /// Whether a publish of this connection waits: those after it keep their place behind it.
    pub(super) fn is_waiting(&self, conn: ConnId) -> bool {
        let state = self.conns.get(&conn);
        state.is_some_and(|state| state.withheld_bytes > 0)
    }

    /// Keeps a publish that found no room; past a bound its connection is closed instead.
    pub(super) fn withhold(&mut self, event: Event, now: Now) {
        let Some(conn) = event.conn() else { return };
        let bytes = waiting_bytes(&event);
        let Some(state) = self.conns.get_mut(&conn) else {
            return;
        };
        if state.withheld_bytes + bytes > self.withheld_bytes_per_connection
            || self.withheld_bytes + bytes > self.most_withheld_bytes
        {
            self.close(conn, CloseReason::Journal);
            return;
        }
        state.withheld_bytes += bytes;
        self.withheld_bytes += bytes;
        self.withheld.push_back((event, now));
    }

    /// The publish that waits longest: it waits no more, unless it is put back.
    pub(super) fn next_withheld(&mut self) -> Option<(Event, Now)> {
        let (event, now) = self.withheld.pop_front()?;
        let bytes = waiting_bytes(&event);
        self.withheld_bytes = self.withheld_bytes.saturating_sub(bytes);
        let state = event.conn().and_then(|conn| self.conns.get_mut(&conn));
        if let Some(state) = state {
            state.withheld_bytes = state.withheld_bytes.saturating_sub(bytes);
        }
        Some((event, now))
    }

    /// The publish that [`Sessions::next_withheld`] gave goes on waiting, if its connection is still there.
    pub(super) fn put_back(&mut self, event: Event, now: Now) {
        let state = event.conn().and_then(|conn| self.conns.get_mut(&conn));
        if let Some(state) = state {
            let bytes = waiting_bytes(&event);
            state.withheld_bytes += bytes;
            self.withheld_bytes += bytes;
            self.withheld.push_front((event, now));
        }
    }

    /// Ends a connection.
    pub(super) fn close(&mut self, conn: ConnId, reason: CloseReason) {
        if self.conns.contains_key(&conn) {
            self.outputs.push_back(Output::Close { conn, reason });
            self.disconnected(conn);
        }
    }

    /// Ends every connection.
    pub(super) fn close_all(&mut self, reason: CloseReason) {
        let conns: Vec<ConnId> = self.conns.keys().copied().collect();
        for conn in conns {
            self.close(conn, reason);
        }
    }

    /// A connection is over.
    pub(super) fn disconnected(&mut self, conn: ConnId) {
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
        self.waits.retain(|(waits, _), _| *waits != conn);
        if state.withheld_bytes > 0 {
            self.withheld
                .retain(|(event, _)| event.conn() != Some(conn));
            self.withheld_bytes -= state.withheld_bytes.min(self.withheld_bytes);
        }
    }

    /// Whether the sender of a publish on `device`'s topic may speak for `origin`.
    pub(super) fn speaks_for(&self, conn: ConnId, device: &DeviceId, origin: &DeviceId) -> bool {
        device == origin
            || self
                .conns
                .get(&conn)
                .is_some_and(|state| acl::speaks_for(&self.gateways, &state.client, origin))
    }

    /// Takes in a page of a Hello.
    pub(super) fn hello(&mut self, conn: ConnId, hello: &Hello, now: Now) -> Said {
        let Some(state) = self.conns.get_mut(&conn) else {
            return Said::Nothing;
        };
        let origin = &hello.origin;
        if !state.origins.contains_key(origin) && state.origins.len() >= MAX_ORIGINS {
            self.close(conn, CloseReason::Protocol);
            return Said::Nothing;
        }
        let said = state.origins.entry(origin.clone()).or_default();
        said.page(hello, now).map_or(Said::More, Said::Whole)
    }

    /// The streams of a whole Hello are known now: batches of them are taken, and a Welcome is owed.
    pub(super) fn listed(&mut self, conn: ConnId, origin: &DeviceId, listed: Listed) {
        // One that waits lists something else: it is not taken up any more.
        self.waits.remove(&(conn, origin.clone()));
        if let Some(said) = self.origin_mut(conn, origin) {
            said.listed = listed;
        }
        let conns = self.by_origin.entry(origin.clone()).or_default();
        conns.insert(conn);
    }

    /// How many Hellos wait, and the streams that each lists.
    pub(super) fn waiting(&self) -> (usize, impl Iterator<Item = impl Iterator<Item = Stream>>) {
        let hellos = self.waits.keys().map(|(conn, origin)| {
            let said = self.origin(*conn, origin).into_iter();
            said.flat_map(|said| streams_of(origin, &said.listed))
        });
        (self.waits.len(), hellos)
    }

    /// The oldest record that a sender holds of a stream; `None` if it did not list it.
    pub(super) fn oldest(
        &self,
        conn: ConnId,
        origin: &DeviceId,
        lane: Lane,
        epoch: Epoch,
    ) -> Option<u64> {
        self.origin(conn, origin)?.oldest(lane, epoch)
    }

    /// Whether somebody who is connected lists a stream.
    pub(super) fn is_listed(&self, stream: &Stream) -> bool {
        let lists = |conn: &ConnId| {
            let oldest = self.oldest(*conn, &stream.device, stream.lane, stream.epoch);
            oldest.is_some()
        };
        let conns = self.by_origin.get(&stream.device);
        conns.is_some_and(|conns| conns.iter().any(lists))
    }

    /// The devices for which somebody speaks.
    pub(super) fn devices(&self) -> impl Iterator<Item = &DeviceId> {
        self.by_origin.keys()
    }

    /// The clocks of an origin as a connection showed them.
    pub(super) fn sightings(&mut self, conn: ConnId, origin: &DeviceId) -> Option<&mut Sightings> {
        let said = self.origin_mut(conn, origin)?;
        Some(&mut said.sightings)
    }

    /// A number stands for a dictionary that is not kept. It is asked for with the first lines that need
    /// it, if no other device has sent it by then.
    pub(super) fn refer(&mut self, conn: ConnId, schema: SchemaHead, id: SchemaId) {
        if let Some(asked) = self.asked_mut(conn) {
            asked.refer(schema, id);
        }
    }

    /// What a connection said of dictionaries; `None` if it said nothing.
    pub(super) fn asked(&self, conn: ConnId) -> Option<&Asked> {
        self.conns.get(&conn)?.asked.as_deref()
    }

    /// A dictionary is wrong or finds no room. It is not asked for again: it is large, and its lines need
    /// not hold up what comes after them.
    pub(super) fn refuse(&mut self, conn: ConnId, schema: SchemaHead) {
        if let Some(asked) = self.asked_mut(conn) {
            asked.refuse(schema);
        }
    }

    /// Asks for a schema: once, not for each of its batches, and again should no answer come. Whether it
    /// asked.
    pub(super) fn ask(&mut self, conn: ConnId, lane: Lane, schema: SchemaHead, now: Now) -> bool {
        let asked = self.asked_mut(conn);
        if !asked.is_some_and(|asked| asked.ask(&schema, now.mono)) {
            return false;
        }
        let request = SchemaRequest {
            origin: schema.origin.clone(),
            lane,
            epoch: schema.epoch,
            schema: schema.number,
        };
        self.send(conn, &request);
        true
    }

    /// Sends a message that waits for no sync.
    pub(super) fn send<M: Body>(&mut self, conn: ConnId, message: &M) {
        let mut payload = Vec::new();
        message::append_frame(message, &mut payload);
        self.outputs.push_back(Output::Send { conn, payload });
    }

    /// The same to everybody who speaks for a device.
    pub(super) fn send_all<M: Body>(&mut self, device: &DeviceId, message: &M) {
        let conns = self.by_origin.get(device);
        for conn in conns.cloned().unwrap_or_default() {
            self.send(conn, message);
        }
    }

    /// A PUBACK is owed for what was appended, once it is durable.
    pub(super) fn owe_puback(&mut self, conn: ConnId, token: Option<Token>) {
        let Some(token) = token else { return };
        if sabotage::is(Bug::PubackBeforeFsync) {
            self.put_out(Output::PubAck { conn, token });
        } else {
            self.group.pubacks.push((conn, token));
        }
    }

    /// A Welcome is owed, once what the Hello brought is durable.
    pub(super) fn owe_welcome(&mut self, conn: ConnId, origin: &DeviceId) {
        self.group.welcomes.insert((conn, origin.clone()));
    }

    /// An Ack is owed to one connection.
    pub(super) fn owe_ack(&mut self, conn: ConnId, stream: &Stream) {
        let key = (conn, stream.device.clone(), stream.lane, stream.epoch);
        self.group.acks.insert(key);
    }

    /// An Ack is owed to everybody who speaks for the stream's device.
    pub(super) fn owe_acks(&mut self, stream: &Stream) {
        let Some(conns) = self.by_origin.get(&stream.device) else {
            return;
        };
        for conn in conns {
            let key = (*conn, stream.device.clone(), stream.lane, stream.epoch);
            self.group.acks.insert(key);
        }
    }

    /// The group failed: whoever waits for its answers is closed, and comes again.
    pub(super) fn fail_group(&mut self) {
        let group = std::mem::take(&mut self.group);
        let mut conns: BTreeSet<ConnId> = group.pubacks.iter().map(|(conn, _)| *conn).collect();
        conns.extend(group.acks.iter().map(|(conn, ..)| *conn));
        conns.extend(group.welcomes.iter().map(|(conn, _)| *conn));
        for conn in conns {
            self.close(conn, CloseReason::Journal);
        }
    }

    fn asked_mut(&mut self, conn: ConnId) -> Option<&mut Asked> {
        let state = self.conns.get_mut(&conn)?;
        Some(state.asked.get_or_insert_default())
    }

    /// What a connection said about an origin.
    pub(super) fn origin(&self, conn: ConnId, origin: &DeviceId) -> Option<&Origin> {
        self.conns.get(&conn)?.origins.get(origin)
    }

    fn origin_mut(&mut self, conn: ConnId, origin: &DeviceId) -> Option<&mut Origin> {
        self.conns.get_mut(&conn)?.origins.get_mut(origin)
    }
}

/// Times of receipt so far were by a clock that was in doubt, and are later by `offset_us`.
pub(super) fn shift_receipts(sessions: &mut Sessions, offset_us: i64) {
    let conns = sessions.conns.values_mut();
    for said in conns.flat_map(|conn| conn.origins.values_mut()) {
        said.sightings.shift(offset_us);
    }
}

/// What a publish counts for while it waits: one more than its payload, so that an empty one keeps its
/// place too.
fn waiting_bytes(event: &Event) -> usize {
    event.payload_len() + 1
}

#[cfg(test)]
mod tests;
