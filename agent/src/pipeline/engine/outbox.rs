//! Core: what goes out and what comes back. Bundles with the schemas they need, hellos, answers; which
//! records may be forgotten, and which can never go.
//!
//! It knows no disk and names no loss: it reads records through a [`Shelf`] that it is handed, and says
//! with an [`Out`] what its owner must do.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;

use headwater_proto::bundle::{BundleHead, BundleWriter, Stamps};

use headwater_proto::delivery::{
    Command, DeliveryError, HeldEpoch, HelloFacts, Input, RecordRef, Sender, SenderLimits,
};
use headwater_proto::frame::{Frames, Kind};
use headwater_proto::ids::{DeviceId, Epoch, Lane, SeqRange};
use headwater_proto::message::{
    self, Ack, Reject, RejectReason, SchemaRequest, WallClock, Welcome,
};
use headwater_proto::portion::{self, Place};
use headwater_proto::time::{Millis, Now, UnixMicros};

use crate::pipeline::record::Life;

mod pack;
mod relays;
mod schemas;

use pack::{Packed, Packing};
pub(super) use relays::{Here, Publish, Relays, Sighting, origin_of};
use schemas::{Schemas, schema_payload};

/// Most epochs that the sender holds; more wait until older ones are committed.
pub const MAX_EPOCHS: usize = 96;
/// Most bundles in flight.
pub const MAX_FLIGHTS: usize = 16;
/// Largest down publish that is taken.
pub const MAX_DOWN_BYTES: u32 = 64 * 1024;
/// A collector that takes less than this is set up wrongly: what is larger waits, and is not refused.
const LEAST_BUNDLE_BYTES: u32 = 64 * 1024;
/// How long a segment that cannot be read is tried again before its records are named as damaged.
pub const UNREADABLE_MS: u64 = 10_000;
/// How often that is tried.
const RETRY_MS: u64 = 1_000;
/// How long the uptime that a node said is gone by: clocks drift.
const SIGHTING_MS: u64 = 600_000;
/// Most places in the content of sources that the collector can name; the newest stay.
pub(super) const MAX_HELD_PLACES: usize = 128;
/// Bytes of a bundle that holds one schema, beside the schema.
const SCHEMA_OVERHEAD_BYTES: usize = 512;

/// The sender of an agent.
pub type AgentSender = Sender<MAX_EPOCHS, MAX_FLIGHTS>;

/// Where the records stand that go out.
pub(super) trait Shelf {
    /// What all records of an epoch have in common.
    fn kept(&self, lane: Lane, epoch: Epoch) -> Kept;

    /// Whether the lane's disk takes records.
    fn is_writable(&self, lane: Lane) -> bool;

    /// Gives the numbers and payloads of records from the first of `range` on, in order, until `take` has
    /// enough or about `max_bytes` were read.
    fn read(
        &mut self,
        lane: Lane,
        epoch: Epoch,
        range: SeqRange,
        max_bytes: usize,
        take: &mut dyn FnMut(u64, &[u8]) -> ControlFlow<()>,
    ) -> Read;

    /// Gives schemas of an epoch, among them `wanted` if that is anywhere: those in reach of record
    /// `near`, else all that are in use or stand before a record.
    fn schemas(
        &mut self,
        lane: Lane,
        epoch: Epoch,
        near: Option<u64>,
        wanted: u32,
        keep: &mut dyn FnMut(u32, &[u8]),
    );
}

/// What all records of an epoch have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) life: Life,
    /// They are in memory alone.
    pub(super) ram: bool,
}

/// How a read ended: it tells of the numbers from its first up to the one here, but not of those from the first
/// that it gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    /// They are not there: they were released, or named as lost.
    Through(u64),
    /// They are damaged.
    Damaged(u64),
    /// The disk did not let them be read.
    Unreadable(u64),
}

/// What the owner must do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Out {
    /// Publish these bytes; they count as sent.
    Publish(Vec<u8>),
    /// Records below `through` may be forgotten.
    Forget {
        lane: Lane,
        epoch: Epoch,
        through: u64,
    },
    /// The collector will never take these records.
    Refused {
        lane: Lane,
        epoch: Epoch,
        range: SeqRange,
        reason: RejectReason,
    },
    /// This record is larger than any bundle; the outbox learns by [`Outbox::absent`] that it is named.
    TooLarge { lane: Lane, epoch: Epoch, seq: u64 },
    /// These records cannot be read, and are not sent again.
    Damaged {
        lane: Lane,
        epoch: Epoch,
        range: SeqRange,
    },
}

/// The collector said what its clock showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) time: UnixMicros,
    /// When that was asked which it answers.
    pub(super) sent: Millis,
}

/// When it is, by every clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clocks {
    pub(super) now: Now,
    /// The wall clock and how good it is, if it is one.
    pub(super) wall: Option<WallClock>,
}

/// What became of a command to publish.
enum Bundled {
    Out(Out),
    /// Nothing goes out until something has happened.
    Wait,
    /// The next command may have something.
    Next,
}

/// A record whose segment the disk did not let be read.
#[derive(Debug, Clone, Copy)]
struct Unreadable {
    lane: Lane,
    epoch: Epoch,
    seq: u64,
    since: Millis,
    retry_at: Millis,
}

/// A publish whose answer tells when the collector looked at its clock.
#[derive(Debug, Clone, Copy)]
struct Sent {
    lane: Lane,
    epoch: Epoch,
    range: SeqRange,
    at: Millis,
}

/// How far the collector holds the contents of sources.
#[derive(Debug, Default)]
struct Held {
    places: Vec<Place>,
    /// A Welcome came: what it holds was said before.
    is_told: bool,
}

/// What was asked on this connection: an answer was stamped after it.
#[derive(Debug, Clone, Default)]
struct Asked {
    /// When the Hello went out whose Welcome is awaited.
    hello: Option<Millis>,
    bundle: Option<Sent>,
    /// The number after the last one that was sent, by lane and epoch.
    sent: BTreeMap<(Lane, Epoch), u64>,
}

impl Asked {
    /// A bundle goes out. One that goes out again tells nothing: its Ack may answer the first time.
    fn bundle(&mut self, sent: Sent) {
        let next = self.sent.entry((sent.lane, sent.epoch)).or_default();
        if sent.range.first >= *next {
            self.bundle.get_or_insert(sent);
        }
        *next = sent.range.next.max(*next);
    }
}

/// The clock of an origin's boot, as far as it is known here.
#[derive(Debug, Clone, Copy)]
enum Uptime {
    /// This agent's own boot.
    Own(u64),
    /// A node's boot: its uptime is this many milliseconds ahead of this agent's, as of the moment.
    Node {
        boot: u64,
        ahead_ms: i64,
        at: Millis,
    },
    /// Nobody has said.
    Unknown,
}

impl Uptime {
    /// The boot that runs, and its uptime; `None` if that was said too long ago to be gone by.
    fn at(self, now: Millis) -> Option<(u64, u64)> {
        match self {
            Self::Own(boot) => Some((boot, now.0)),
            Self::Node { boot, ahead_ms, at } if now.since(at) < SIGHTING_MS => {
                Some((boot, now.0.checked_add_signed(ahead_ms)?))
            }
            Self::Node { .. } | Self::Unknown => None,
        }
    }
}

/// What one origin has to send: this agent itself, or a node behind it.
pub(super) struct Outbox<const EPOCHS: usize = MAX_EPOCHS, const FLIGHTS: usize = MAX_FLIGHTS> {
    device: DeviceId,
    uptime: Uptime,
    /// Largest bundle by the settings.
    max_bundle: u32,
    sender: Box<Sender<EPOCHS, FLIGHTS>>,
    /// Epochs that the sender had no room for, oldest first.
    pub(super) waiting: VecDeque<HeldEpoch>,
    schemas: Schemas,
    /// What the collector's answers are measured by.
    asked: Asked,
    /// Publishes that answer a message.
    answers: VecDeque<Vec<u8>>,
    /// How far the collector holds the contents of sources, if it has said.
    held: Held,
    scratch: Vec<u8>,
    unreadable: Option<Unreadable>,
    refused_messages: u64,
}

impl<const EPOCHS: usize, const FLIGHTS: usize> Outbox<EPOCHS, FLIGHTS> {
    /// Without an epoch. `boot`: the one that runs; `seed`: random bits for nonces and waits.
    pub(super) fn new(device: DeviceId, boot: u64, limits: SenderLimits, seed: u64) -> Self {
        let sender = Sender::new(device.clone(), limits, seed);
        Self::with(device, Uptime::Own(boot), limits, sender)
    }

    /// The same for a node behind this agent.
    fn relaying(device: DeviceId, limits: SenderLimits, seed: u64) -> Self {
        let sender = Sender::new(device.clone(), limits, seed).relaying();
        Self::with(device, Uptime::Unknown, limits, sender)
    }

    fn with(
        device: DeviceId,
        uptime: Uptime,
        limits: SenderLimits,
        sender: Sender<EPOCHS, FLIGHTS>,
    ) -> Self {
        Self {
            max_bundle: limits.max_bundle,
            sender: Box::new(sender),
            device,
            uptime,
            waiting: VecDeque::new(),
            schemas: Schemas::default(),
            asked: Asked::default(),
            answers: VecDeque::new(),
            held: Held::default(),
            scratch: Vec::new(),
            unreadable: None,
            refused_messages: 0,
        }
    }

    /// The sender, to look at.
    pub(super) fn sender(&self) -> &Sender<EPOCHS, FLIGHTS> {
        &self.sender
    }

    /// Down messages that were damaged or made no sense.
    pub(super) const fn refused_messages(&self) -> u64 {
        self.refused_messages
    }

    /// Whether records of a range may be forgotten, as far as the collector said.
    pub(super) fn is_committed(&self, lane: Lane, epoch: Epoch, range: SeqRange) -> bool {
        self.sender.is_committed(lane, epoch, range)
    }

    /// Whether a record was received, or was committed and is not held any more.
    pub(super) fn is_delivered(&self, record: RecordRef) -> bool {
        let RecordRef { lane, epoch, seq } = record;
        let mut waiting = self.waiting.iter();
        if waiting.any(|waiting| waiting.lane == lane && waiting.epoch == epoch) {
            return false;
        }
        let one = SeqRange::new(seq, seq + 1);
        !self.sender.holds(lane, epoch) || self.sender.is_received(lane, epoch, one)
    }

    /// Takes in an epoch, or keeps it until the sender has room.
    pub(super) fn announce(&mut self, epoch: HeldEpoch) {
        if let Some(known) = self
            .waiting
            .iter_mut()
            .find(|w| w.lane == epoch.lane && w.epoch == epoch.epoch)
        {
            known.next = epoch.next;
            return;
        }
        let live = !epoch.ended;
        if (!live && !self.waiting.is_empty()) || self.sender.add_epoch(epoch).is_err() {
            // What is stored now goes before a backlog that has waited for long.
            if live {
                self.waiting.push_front(epoch);
            } else {
                self.waiting.push_back(epoch);
            }
            self.sender.set_more_epochs(true);
        }
    }

    /// Hands on epochs that waited, as far as the sender has room.
    pub(super) fn announce_waiting(&mut self) {
        while let Some(epoch) = self.waiting.front() {
            if self.sender.add_epoch(*epoch).is_err() {
                return;
            }
            self.waiting.pop_front();
        }
        self.sender.set_more_epochs(false);
    }

    /// Takes in records that may go out: all that an epoch of this boot holds.
    pub(super) fn stored(&mut self, held: HeldEpoch) {
        let HeldEpoch {
            lane, epoch, next, ..
        } = held;
        if self.sender.stored(lane, epoch, next).is_err() {
            self.announce(held);
        }
    }

    /// An epoch is over. `named`: the record that says so.
    pub(super) fn ended(&mut self, lane: Lane, epoch: Epoch, named: Option<RecordRef>) {
        if self.sender.end_epoch(lane, epoch, named).is_err() {
            for waiting in self
                .waiting
                .iter_mut()
                .filter(|w| w.epoch == epoch && w.lane == lane)
            {
                (waiting.ended, waiting.end_named_in) = (true, named);
            }
        }
    }

    /// Records are not on the disk any more, and a gap names them.
    pub(super) fn absent(&mut self, lane: Lane, epoch: Epoch, range: SeqRange) {
        // With too many holes they are asked for once more, and missed then.
        let _ = self.sender.absent(lane, epoch, range);
    }

    /// Connected: a new connection knows no schema, and may have luck with those that were not found.
    pub(super) fn link_up(&mut self, now: Millis) {
        self.asked = Asked::default();
        self.schemas.forget_connection();
        self.take_in(Input::LinkUp, now);
    }

    /// The connection is gone.
    pub(super) fn link_down(&mut self, now: Millis) {
        self.asked = Asked::default();
        self.unreadable = None;
        self.take_in(Input::LinkDown, now);
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Millis) {
        self.announce_waiting();
        self.take_in(Input::Tick, now);
    }

    fn take_in(&mut self, input: Input<'_>, now: Millis) {
        // These inputs are never refused.
        let _ = self.sender.handle(input, now);
    }

    /// When to call [`Outbox::tick`] and [`Outbox::next`] at the latest.
    pub(super) fn next_wakeup(&self) -> Option<Millis> {
        let retry = self.unreadable.map(|known| known.retry_at);
        self.sender.next_wakeup().into_iter().chain(retry).min()
    }

    /// Takes in one down publish; says what it tells of the collector's clock.
    pub(super) fn message(
        &mut self,
        bytes: &[u8],
        shelf: &mut impl Shelf,
        clocks: Clocks,
    ) -> Vec<Heard> {
        let mut heard = Vec::new();
        for frame in Frames::new(bytes) {
            let Ok((frame, _)) = frame else {
                self.refused_messages += 1;
                break;
            };
            if !self.down_frame(frame.kind, frame.payload, shelf, clocks, &mut heard) {
                self.refused_messages += 1;
            }
        }
        heard
    }

    /// Whether the frame was one that means something here.
    fn down_frame(
        &mut self,
        kind: Kind,
        payload: &[u8],
        shelf: &mut impl Shelf,
        clocks: Clocks,
        heard: &mut Vec<Heard>,
    ) -> bool {
        let now = clocks.now.mono;
        if kind == Kind::Welcome {
            message::decode::<Welcome>(payload).is_ok_and(|m| self.welcome(&m, now, heard))
        } else if kind == Kind::Ack {
            message::decode::<Ack>(payload).is_ok_and(|m| self.ack(&m, now, heard))
        } else if kind == Kind::Reject {
            message::decode::<Reject>(payload)
                .is_ok_and(|m| self.sender.handle(Input::Reject(&m), now).is_ok())
        } else if kind == Kind::SchemaRequest {
            message::decode::<SchemaRequest>(payload)
                .is_ok_and(|request| self.send_schema(&request, shelf, clocks))
        } else if kind == Kind::Held {
            message::decode::<portion::Held>(payload).is_ok_and(|held| self.hold(held))
        } else {
            false
        }
    }

    fn hold(&mut self, held: portion::Held) -> bool {
        let is_own = held.origin == self.device;
        if is_own {
            // The last word on a source's content goes.
            let more = held.places.into_iter();
            let more = more.filter(|place| !self.held.places.contains(place));
            let more: Vec<_> = more.collect();
            self.held.places.extend(more);
            let beyond = self.held.places.len().saturating_sub(MAX_HELD_PLACES);
            self.held.places.drain(..beyond);
        }
        is_own
    }

    /// How far the collector holds the contents of sources; `None` before it has said.
    pub(super) fn held(&self) -> Option<&[Place]> {
        self.held.is_told.then_some(&*self.held.places)
    }

    fn welcome(&mut self, welcome: &Welcome, now: Millis, heard: &mut Vec<Heard>) -> bool {
        let taken = self.sender.handle(Input::Welcome(welcome), now).is_ok();
        self.held.is_told |= taken;
        if taken && let Some(sent) = self.asked.hello {
            let time = welcome.time;
            heard.push(Heard { time, sent });
        }
        taken
    }

    fn ack(&mut self, ack: &Ack, now: Millis, heard: &mut Vec<Heard>) -> bool {
        let is_received = |sender: &Sender<EPOCHS, FLIGHTS>, sent: &Sent| {
            sender.is_received(sent.lane, sent.epoch, sent.range)
        };
        // What was settled by other means says nothing of when this Ack was made.
        let asked = self.asked.bundle.take();
        let asked = asked.filter(|sent| !is_received(&self.sender, sent));
        let taken = self.sender.handle(Input::Ack(ack), now).is_ok();
        match asked {
            Some(sent) if is_received(&self.sender, &sent) => heard.push(Heard {
                time: ack.time,
                sent: sent.at,
            }),
            asked => self.asked.bundle = asked,
        }
        taken
    }

    /// Answers with a bundle that holds the schema and no record.
    fn send_schema(
        &mut self,
        request: &SchemaRequest,
        shelf: &mut impl Shelf,
        clocks: Clocks,
    ) -> bool {
        let SchemaRequest {
            origin,
            lane,
            epoch,
            schema,
        } = request;
        if *origin != self.device || !Lane::AGENT.contains(lane) {
            return false;
        }
        let name = (*epoch, *schema);
        if self.schemas.is_answered(name, clocks.now.mono) {
            // The answer is on its way; over a slow link it takes longer than the next request.
            return true;
        }
        self.schemas.look(*lane, name, shelf);
        let Some(bytes) = self.schemas.get(name) else {
            return false;
        };
        let payload = schema_payload(*schema, bytes);
        let head = self.head(*lane, *epoch, 0, shelf, clocks);
        let mut out = vec![0; payload.len() + SCHEMA_OVERHEAD_BYTES];
        let Ok(mut writer) = BundleWriter::new(head, &mut out) else {
            return false;
        };
        if writer.push(Kind::Schema, &payload).is_err() {
            return false;
        }
        let len = writer.finish();
        out.truncate(len);
        self.schemas.note_sent(name);
        self.schemas.note_answered(name, clocks.now.mono);
        self.answers.push_back(out);
        true
    }

    /// What to do next; `None` until something happens or [`Outbox::next_wakeup`] comes.
    pub(super) fn next(&mut self, shelf: &mut impl Shelf, clocks: Clocks) -> Option<Out> {
        if let Some(bytes) = self.answers.pop_front() {
            return Some(Out::Publish(bytes));
        }
        loop {
            let out = match self.sender.next_command(clocks.now.mono)? {
                Command::SendHello { page } => Out::Publish(self.hello(page, clocks)),
                Command::Publish {
                    lane,
                    epoch,
                    first,
                    limit,
                    max_bytes,
                } => {
                    let head = self.head(lane, epoch, first, shelf, clocks);
                    let range = SeqRange::new(first, limit);
                    match self.bundle(&head, range, max_bytes, true, shelf, clocks.now.mono) {
                        Bundled::Out(out) => out,
                        Bundled::Wait => return None,
                        Bundled::Next => continue,
                    }
                }
                Command::Release {
                    lane,
                    epoch,
                    through,
                } => Out::Forget {
                    lane,
                    epoch,
                    through,
                },
                Command::Refused {
                    lane,
                    epoch,
                    range,
                    reason,
                } => Out::Refused {
                    lane,
                    epoch,
                    range,
                    reason,
                },
            };
            return Some(out);
        }
    }

    /// A bundle that goes into the rest of another origin's publish, of at most so many bytes and records.
    fn fill(&mut self, most: (u32, u64), shelf: &mut impl Shelf, clocks: Clocks) -> Option<Out> {
        let Command::Publish {
            lane,
            epoch,
            first,
            limit,
            max_bytes,
        } = self.sender.next_publish(clocks.now.mono)?
        else {
            return None;
        };
        let head = self.head(lane, epoch, first, shelf, clocks);
        let range = SeqRange::new(first, limit.min(first + most.1));
        let max_bytes = max_bytes.min(most.0);
        match self.bundle(&head, range, max_bytes, false, shelf, clocks.now.mono) {
            Bundled::Out(out) => Some(out),
            Bundled::Wait | Bundled::Next => None,
        }
    }

    /// The lane of what would go out next.
    fn next_lane(&self, now: Millis) -> Option<Lane> {
        match self.sender.next_publish(now)? {
            Command::Publish { lane, .. } => Some(lane),
            Command::SendHello { .. } | Command::Release { .. } | Command::Refused { .. } => None,
        }
    }

    /// The head of a bundle; the clock of its rows is still to be set.
    fn head(
        &self,
        lane: Lane,
        epoch: Epoch,
        first: u64,
        shelf: &impl Shelf,
        clocks: Clocks,
    ) -> BundleHead {
        let Kept { life, ram } = shelf.kept(lane, epoch);
        let uptime = self.uptime.at(clocks.now.mono);
        let uptime = uptime.filter(|(boot, _)| *boot == life.boot);
        BundleHead {
            origin: self.device.clone(),
            lane,
            epoch,
            first,
            ram,
            boot: life.boot,
            base: life.base,
            stamps: Stamps::default(),
            // The clock of the boot that runs says nothing of another one.
            uptime_ms: uptime.map(|(_, uptime_ms)| uptime_ms),
            wall: clocks.wall,
        }
    }

    fn hello(&mut self, page: u8, clocks: Clocks) -> Vec<u8> {
        if page == 0 {
            self.asked.hello = Some(clocks.now.mono);
        }
        let (boot, uptime_ms) = self.uptime.at(clocks.now.mono).unwrap_or_default();
        let facts = HelloFacts {
            boot,
            uptime_ms,
            wall: clocks.wall,
            max_down_bytes: MAX_DOWN_BYTES,
        };
        let mut out = Vec::new();
        message::append_frame(&self.sender.hello(page, &facts), &mut out);
        out
    }

    /// `is_alone`: it has a publish of its own, so that what does not fit will not fit later either.
    fn bundle(
        &mut self,
        head: &BundleHead,
        range: SeqRange,
        max_bytes: u32,
        is_alone: bool,
        shelf: &mut impl Shelf,
        now: Millis,
    ) -> Bundled {
        let (lane, epoch) = (head.lane, head.epoch);
        loop {
            let packed = self.pack(head, range, max_bytes as usize, shelf);
            if let Some((seq, name)) = packed.wants
                && packed.taken.is_empty()
            {
                // One that is nowhere goes without: the collector asks, and parks the batch.
                self.schemas.find(lane, seq, name, shelf);
                continue;
            }
            if packed.unreadable {
                let is_writable = shelf.is_writable(lane);
                return self.try_later(lane, epoch, packed.missing, is_writable, now);
            }
            if !packed.missing.is_empty() {
                return self.miss(lane, epoch, packed.missing, packed.damaged);
            }
            if packed.too_large && !is_alone {
                return Bundled::Wait;
            }
            if packed.too_large {
                return self.too_large(head, packed, max_bytes);
            }
            let len = u32::try_from(packed.len).unwrap_or(u32::MAX);
            let _ = self.sender.sent(lane, epoch, packed.taken, len, now);
            self.asked.bundle(Sent {
                lane,
                epoch,
                range: packed.taken,
                at: now,
            });
            return Bundled::Out(self.publish(packed));
        }
    }

    /// The bundle in the scratch buffer goes out, and its schemas with it.
    fn publish(&mut self, packed: Packed) -> Out {
        for name in packed.schemas {
            self.schemas.note_sent(name);
        }
        Out::Publish(self.scratch[..packed.len].to_vec())
    }

    /// Fills the scratch buffer with a bundle of the records of `range` as far as they go.
    fn pack(
        &mut self,
        head: &BundleHead,
        range: SeqRange,
        max_bytes: usize,
        shelf: &mut impl Shelf,
    ) -> Packed {
        if self.scratch.len() < max_bytes {
            self.scratch.resize(max_bytes, 0);
        }
        let room = &mut self.scratch[..max_bytes];
        let mut packing = Packing::new(room, &self.schemas, head, range);
        let mut take = |seq, payload: &[u8]| packing.take(seq, payload);
        let read = shelf.read(head.lane, head.epoch, range, max_bytes, &mut take);
        packing.finish(read)
    }

    /// The first record does not fit. What is in flight may leave more room; a schema goes alone
    /// first; a record that would never fit is refused here, as the collector would.
    fn too_large(&mut self, head: &BundleHead, packed: Packed, max_bytes: u32) -> Bundled {
        let least = self.max_bundle.min(LEAST_BUNDLE_BYTES);
        if self.sender.in_flight_bytes() > 0 || max_bytes < least {
            self.sender.held_back();
            return Bundled::Wait;
        }
        if !packed.schemas.is_empty() {
            return Bundled::Out(self.publish(packed));
        }
        Bundled::Out(Out::TooLarge {
            lane: head.lane,
            epoch: head.epoch,
            seq: head.first,
        })
    }

    /// The disk refuses a read. It may be a lack of descriptors or memory, so it is tried again for
    /// a while; then the records are named, or they would hold up all that comes after. A disk that
    /// refuses writes too may be whole after the next start, so nothing is named while it does.
    fn try_later(
        &mut self,
        lane: Lane,
        epoch: Epoch,
        range: SeqRange,
        is_writable: bool,
        now: Millis,
    ) -> Bundled {
        let known = self
            .unreadable
            .filter(|known| (known.lane, known.epoch, known.seq) == (lane, epoch, range.first));
        let since = known.map_or(now, |known| known.since);
        if since.plus(UNREADABLE_MS) <= now && is_writable {
            self.unreadable = None;
            return self.miss(lane, epoch, range, true);
        }
        self.unreadable = Some(Unreadable {
            lane,
            epoch,
            seq: range.first,
            since,
            retry_at: now.plus(RETRY_MS),
        });
        Bundled::Wait
    }

    /// The records cannot be read: damaged ones are to be named, others were named before.
    fn miss(&mut self, lane: Lane, epoch: Epoch, range: SeqRange, damaged: bool) -> Bundled {
        match self.sender.absent(lane, epoch, range) {
            Ok(()) if damaged => Bundled::Out(Out::Damaged { lane, epoch, range }),
            // With too many holes it is asked for again when older records landed, and named then.
            Ok(()) | Err(DeliveryError::TooManyHoles { .. }) => Bundled::Next,
            Err(_) => Bundled::Wait,
        }
    }
}

#[cfg(test)]
mod tests;
