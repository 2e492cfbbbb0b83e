//! Core: what goes out: bundles with the schemas they need, hellos; and records that cannot.

use std::ops::ControlFlow;

use headwater_proto::bundle::{BundleHead, BundleWriter, Stamps};
use headwater_proto::delivery::{Command, DeliveryError, HelloFacts, Input};
use headwater_proto::frame::{self, Frames, Kind};
use headwater_proto::ids::{Epoch, Lane, SeqRange};
use headwater_proto::message::{
    self, Ack, GapReason, Reject, RejectReason, SchemaRequest, Welcome,
};
use headwater_proto::time::{Millis, Now};
use headwater_spool::{Chunk, Disk};

use super::Engine;
use super::ram::schema_of;
use super::schemas::{SchemaName, Schemas, announced, schema_payload};
use crate::pipeline::record::{self, Envelope};

/// Largest down publish that is taken.
pub const MAX_DOWN_BYTES: u32 = 64 * 1024;
/// A collector that takes less than this is set up wrongly: what is larger waits, and is not refused.
const LEAST_BUNDLE_BYTES: u32 = 64 * 1024;
/// How long a segment that cannot be read is tried again before its records are named as damaged.
pub const UNREADABLE_MS: u64 = 10_000;
/// How often that is tried.
const RETRY_MS: u64 = 1_000;

/// A record whose segment the disk did not let be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unreadable {
    at: usize,
    epoch: Epoch,
    seq: u64,
    since: Millis,
    pub(super) retry_at: Millis,
}

/// What became of a read for a bundle.
struct Packed {
    /// Bytes of the bundle, frames from `first` to `next`.
    len: usize,
    /// Numbers that could not be read at the start.
    missing: SeqRange,
    damaged: bool,
    taken: SeqRange,
    /// A record needs a schema that is not at hand.
    wants: Option<(u64, SchemaName)>,
    /// The first record is larger than the bundle may be.
    too_large: bool,
    /// The disk did not let the first record be read; `missing` says how far that may go.
    unreadable: bool,
    schemas: Vec<SchemaName>,
}

impl<D: Disk> Engine<D> {
    /// Carries out the sender's commands until one gives something to publish.
    pub(super) fn next_command(&mut self, now: Now) -> Option<Vec<u8>> {
        while let Some(command) = self.sender.next_command(now.mono) {
            let bytes = match command {
                Command::SendHello { page } => Some(self.hello(page, now)),
                Command::Publish {
                    lane,
                    epoch,
                    first,
                    limit,
                    max_bytes,
                } => {
                    let range = SeqRange::new(first, limit);
                    match self.bundle(lane, epoch, range, max_bytes, now) {
                        Some(bytes) => Some(bytes),
                        None if self.waiting_for_room => {
                            self.waiting_for_room = false;
                            return None;
                        }
                        None => None,
                    }
                }
                Command::Release {
                    lane,
                    epoch,
                    through,
                } => {
                    self.release(lane, epoch, through);
                    None
                }
                Command::Refused {
                    lane,
                    epoch,
                    range,
                    reason,
                } => {
                    self.refused(lane, epoch, range, reason, now);
                    None
                }
            };
            if bytes.is_some() {
                return bytes;
            }
        }
        None
    }

    /// The head of a bundle of an epoch that a lane holds; the clock of its rows is still to be set.
    pub(super) fn head(&self, at: usize, epoch: Epoch, first: u64, now: Now) -> BundleHead {
        let lane = &self.lanes[at];
        let life = lane.life_of(epoch).unwrap_or(lane.life);
        BundleHead {
            origin: self.settings.device.clone(),
            lane: lane.lane,
            epoch,
            first,
            ram: lane.ram_of(epoch).is_some(),
            boot: life.boot,
            base: life.base,
            stamps: Stamps::default(),
            // The clock of the boot that runs says nothing of another one.
            uptime_ms: (life.boot == self.settings.boot).then_some(now.mono.0),
            wall: self.clock.wall(now),
        }
    }

    fn hello(&mut self, page: u8, now: Now) -> Vec<u8> {
        if page == 0 {
            self.asked.hello = Some(now.mono);
        }
        let facts = HelloFacts {
            boot: self.settings.boot,
            uptime_ms: now.mono.0,
            wall: self.clock.wall(now),
            max_down_bytes: MAX_DOWN_BYTES,
        };
        let mut out = Vec::new();
        message::append_frame(&self.sender.hello(page, &facts), &mut out);
        out
    }

    fn bundle(
        &mut self,
        lane: Lane,
        epoch: Epoch,
        range: SeqRange,
        max_bytes: u32,
        now: Now,
    ) -> Option<Vec<u8>> {
        let at = self.index_of(lane);
        let head = self.head(at, epoch, range.first, now);
        loop {
            let packed = self.pack(at, &head, range, max_bytes as usize);
            if let Some((seq, name)) = packed.wants
                && packed.taken.is_empty()
            {
                // One that is nowhere goes without: the collector asks, and parks the batch.
                self.find_schema(at, seq, name);
                continue;
            }
            if packed.unreadable {
                self.try_later(at, epoch, packed.missing, now);
                return None;
            }
            if !packed.missing.is_empty() {
                self.name_missing(at, epoch, packed.missing, packed.damaged, now);
                return None;
            }
            if packed.too_large {
                return self.too_large(&head, packed, max_bytes, now);
            }
            let len = u32::try_from(packed.len).unwrap_or(u32::MAX);
            let _ = self.sender.sent(lane, epoch, packed.taken, len, now.mono);
            self.asked.bundle.get_or_insert(Sent {
                lane,
                epoch,
                range: packed.taken,
                at: now.mono,
            });
            for name in packed.schemas {
                self.schemas.note_sent(name);
            }
            return Some(self.scratch[..packed.len].to_vec());
        }
    }

    /// Fills the scratch buffer with a bundle of the records of `range` as far as they go.
    fn pack(&mut self, at: usize, head: &BundleHead, range: SeqRange, max_bytes: usize) -> Packed {
        if self.scratch.len() < max_bytes {
            self.scratch.resize(max_bytes, 0);
        }
        let lane = &self.lanes[at];
        let mut packing = Packing {
            room: Some(&mut self.scratch[..max_bytes]),
            writer: None,
            stamps: Stamps::default(),
            schemas: &self.schemas,
            head,
            range,
            packed: Packed {
                len: 0,
                missing: SeqRange::new(range.first, range.first),
                damaged: false,
                taken: SeqRange::new(range.first, range.first),
                wants: None,
                too_large: false,
                unreadable: false,
                schemas: Vec::new(),
            },
        };
        if let Some(ram) = lane.ram_of(head.epoch) {
            let wanted = ram
                .records
                .iter()
                .skip_while(|record| record.seq < range.first);
            for record in wanted.take_while(|record| record.seq < range.next) {
                if packing.take(record.seq, &record.payload).is_break() {
                    break;
                }
            }
            // Nothing of a RAM epoch goes missing but what was released.
            let oldest = ram.records.front().map_or(range.next, |record| record.seq);
            packing.miss_below(oldest);
        } else if let (Some(stored), Some(log)) =
            (lane.stored(head.epoch).copied(), self.spool.log_mut(at))
        {
            let begins = stored.base + range.first;
            let read = log.read(begins, max_bytes, |position, _, payload| {
                packing.take(position - stored.base, payload)
            });
            // Records that are held in memory and not yet synced: reached by a sabotaged engine only.
            for held in lane
                .held
                .iter()
                .filter(|_| lane.visible_seq > lane.durable_seq)
            {
                if range.contains(held.seq) && packing.take(held.seq, &held.payload).is_break() {
                    break;
                }
            }
            match read {
                Ok(chunk) => packing.note_damage(&chunk, stored.base),
                Err(_) => {
                    let segment = log
                        .segments()
                        .find(|info| info.positions().contains(&begins));
                    let end = segment.map_or(begins + 1, |info| info.next);
                    packing.miss_below(end - stored.base);
                    packing.packed.unreadable = true;
                }
            }
        } else {
            packing.miss_below(range.next);
        }
        packing.finish()
    }

    /// The first record does not fit. What is in flight may leave more room; a schema goes alone
    /// first; a record that would never fit is refused here, as the collector would.
    fn too_large(
        &mut self,
        head: &BundleHead,
        packed: Packed,
        max_bytes: u32,
        now: Now,
    ) -> Option<Vec<u8>> {
        let least = self.settings.sender.max_bundle.min(LEAST_BUNDLE_BYTES);
        if self.sender.in_flight_bytes() > 0 || max_bytes < least {
            self.sender.held_back();
            self.waiting_for_room = true;
            return None;
        }
        if !packed.schemas.is_empty() {
            for name in packed.schemas {
                self.schemas.note_sent(name);
            }
            return Some(self.scratch[..packed.len].to_vec());
        }
        let one = SeqRange::new(head.first, head.first + 1);
        self.refused(head.lane, head.epoch, one, RejectReason::TooLarge, now);
        let _ = self.sender.absent(head.lane, head.epoch, one);
        None
    }

    /// The disk refuses a read. It may be a lack of descriptors or memory, so it is tried again for
    /// a while; then the records are named, or they would hold up all that comes after. A disk that
    /// refuses writes too may be whole after the next start, so nothing is named while it does.
    fn try_later(&mut self, at: usize, epoch: Epoch, range: SeqRange, now: Now) {
        let known = self
            .unreadable
            .filter(|known| (known.at, known.epoch, known.seq) == (at, epoch, range.first));
        let since = known.map_or(now.mono, |known| known.since);
        if since.plus(UNREADABLE_MS) <= now.mono && self.lanes[at].ram.is_none() {
            self.unreadable = None;
            self.name_missing(at, epoch, range, true, now);
            return;
        }
        self.unreadable = Some(Unreadable {
            at,
            epoch,
            seq: range.first,
            since,
            retry_at: now.mono.plus(RETRY_MS),
        });
        self.waiting_for_room = true;
    }

    /// The records cannot be read: damaged ones are named in a gap, others were named before.
    fn name_missing(&mut self, at: usize, epoch: Epoch, range: SeqRange, damaged: bool, now: Now) {
        let lane = self.lanes[at].lane;
        match self.sender.absent(lane, epoch, range) {
            Ok(()) => {}
            // It is asked for again when older records landed, and named then.
            Err(DeliveryError::TooManyHoles { .. }) => return,
            Err(_) => self.waiting_for_room = true,
        }
        if damaged {
            self.counters.damaged_records += range.len();
            let gap = headwater_proto::message::Gap {
                seqs: Some(range),
                ..self.gap(lane, epoch, GapReason::Damaged, now)
            };
            self.put_gap(at, &gap, now);
        }
    }

    fn release(&mut self, lane: Lane, epoch: Epoch, through: u64) {
        let at = self.index_of(lane);
        if let Some(stored) = self.lanes[at].epochs.iter_mut().find(|s| s.epoch == epoch) {
            stored.released = stored.released.max(through);
        }
        self.release_ram(at, epoch, through);
        self.release_committed(at);
        self.announce_waiting();
    }

    /// Takes in one down publish.
    pub(super) fn message(&mut self, bytes: &[u8], now: Now) {
        for frame in Frames::new(bytes) {
            let Ok((frame, _)) = frame else {
                self.counters.refused_messages += 1;
                return;
            };
            if !self.down_frame(frame.kind, frame.payload, now) {
                self.counters.refused_messages += 1;
            }
        }
    }

    fn welcome(&mut self, welcome: &Welcome, now: Now) -> bool {
        let taken = self
            .sender
            .handle(Input::Welcome(welcome), now.mono)
            .is_ok();
        if taken && let Some(sent) = self.asked.hello {
            self.clock.heard(welcome.time, sent, now);
        }
        taken
    }

    fn ack(&mut self, ack: &Ack, now: Now) -> bool {
        let is_received = |sender: &super::AgentSender, sent: &Sent| {
            sender.is_received(sent.lane, sent.epoch, sent.range)
        };
        // What was settled by other means says nothing of when this Ack was made.
        let asked = self.asked.bundle.take();
        let asked = asked.filter(|sent| !is_received(&self.sender, sent));
        let taken = self.sender.handle(Input::Ack(ack), now.mono).is_ok();
        match asked {
            Some(sent) if is_received(&self.sender, &sent) => {
                self.clock.heard(ack.time, sent.at, now);
            }
            asked => self.asked.bundle = asked,
        }
        taken
    }

    /// Whether the frame was one that means something here.
    fn down_frame(&mut self, kind: Kind, payload: &[u8], now: Now) -> bool {
        if kind == Kind::Welcome {
            message::decode::<Welcome>(payload).is_ok_and(|m| self.welcome(&m, now))
        } else if kind == Kind::Ack {
            message::decode::<Ack>(payload).is_ok_and(|m| self.ack(&m, now))
        } else if kind == Kind::Reject {
            message::decode::<Reject>(payload)
                .is_ok_and(|m| self.sender.handle(Input::Reject(&m), now.mono).is_ok())
        } else if kind == Kind::SchemaRequest {
            message::decode::<SchemaRequest>(payload)
                .is_ok_and(|request| self.send_schema(&request, now))
        } else {
            false
        }
    }
}

/// A publish whose answer tells when the collector looked at its clock.
#[derive(Debug, Clone, Copy)]
struct Sent {
    lane: Lane,
    epoch: Epoch,
    range: SeqRange,
    at: Millis,
}

/// What was asked on this connection: an answer was stamped after it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Asked {
    /// When the Hello went out whose Welcome is awaited.
    hello: Option<Millis>,
    bundle: Option<Sent>,
}

/// A bundle that is being filled.
struct Packing<'a> {
    room: Option<&'a mut [u8]>,
    writer: Option<BundleWriter<'a>>,
    /// How good the clock of the rows in it was: of all alike.
    stamps: Stamps,
    schemas: &'a Schemas,
    head: &'a BundleHead,
    range: SeqRange,
    packed: Packed,
}

impl<'a> Packing<'a> {
    fn take(&mut self, seq: u64, payload: &[u8]) -> ControlFlow<()> {
        if seq >= self.range.next {
            return ControlFlow::Break(());
        }
        let is_first = self.packed.taken.is_empty();
        if seq != self.packed.taken.next {
            // A hole: what lies before it is sent first.
            if is_first {
                self.packed.missing.next = seq;
            }
            return ControlFlow::Break(());
        }
        let envelope = record::decode(payload)
            .ok()
            .filter(|envelope| envelope.seq == seq);
        let frame = envelope
            .as_ref()
            .and_then(|envelope| frame::decode(envelope.frame).ok());
        let Some((envelope, (frame, _))) = envelope.zip(frame) else {
            if is_first {
                self.packed.missing.next = seq + 1;
                self.packed.damaged = true;
            }
            return ControlFlow::Break(());
        };
        // What the agent itself says has no times that a clock would have to vouch for.
        if !is_first && !envelope.source.is_empty() && envelope.stamps != self.stamps {
            return ControlFlow::Break(());
        }
        if is_first {
            self.stamps = envelope.stamps;
        }
        let is_written = self.write_schema(seq, &envelope).and_then(|()| {
            let writer = self.writer()?;
            writer.push_frame(frame.kind, envelope.frame).ok()
        });
        if is_written.is_none() {
            self.packed.too_large = is_first && self.packed.wants.is_none();
            return ControlFlow::Break(());
        }
        self.packed.taken.next = seq + 1;
        ControlFlow::Continue(())
    }

    /// The schema that a record needs, where the collector has not got it. `None`: it is not at hand,
    /// or finds no room.
    fn write_schema(&mut self, seq: u64, envelope: &Envelope<'_>) -> Option<()> {
        let Some(number) = schema_of(envelope.frame) else {
            return Some(());
        };
        let name = (self.head.epoch, number);
        let schemas = self.schemas;
        let is_known = schemas.sent.contains(&name) || schemas.nowhere.contains(&name);
        if is_known || self.packed.schemas.contains(&name) {
            return Some(());
        }
        let cached = schemas.cached.get(&name).map(Vec::as_slice);
        let Some(bytes) = envelope.schema.map(|(_, bytes)| bytes).or(cached) else {
            self.packed.wants = Some((seq, name));
            return None;
        };
        let said = schema_payload(number, &announced(bytes));
        self.writer()?.push(Kind::Schema, &said).ok()?;
        self.packed.schemas.push(name);
        Some(())
    }

    /// The writer, begun with the clock of the first record.
    fn writer(&mut self) -> Option<&mut BundleWriter<'a>> {
        if let Some(room) = self.room.take() {
            let head = BundleHead {
                stamps: self.stamps,
                ..self.head.clone()
            };
            self.writer = BundleWriter::new(head, room).ok();
        }
        self.writer.as_mut()
    }

    /// Records below `seq` are not there, as far as they were asked for.
    fn miss_below(&mut self, seq: u64) {
        let end = seq.clamp(self.range.first, self.range.next);
        self.packed.missing.next = self.packed.missing.next.max(end);
    }

    /// What a read said of records that it did not give.
    fn note_damage(&mut self, chunk: &Chunk, base: u64) {
        let begins = base + self.range.first;
        let bad = chunk.damage.first().map(|damage| &damage.positions);
        let packed = &mut self.packed;
        if let Some(bad) = bad.filter(|bad| bad.start <= begins && begins < bad.end) {
            packed.missing.next = (bad.end - base).min(self.range.next);
            packed.damaged = true;
        } else if packed.taken.is_empty() && packed.wants.is_none() && !packed.too_large {
            self.miss_below(chunk.next.max(begins + 1) - base);
        }
    }

    fn finish(self) -> Packed {
        let mut packed = self.packed;
        packed.len = self.writer.map_or(0, BundleWriter::finish);
        if !packed.taken.is_empty() {
            packed.missing.next = packed.missing.first;
            packed.unreadable = false;
        }
        packed
    }
}
