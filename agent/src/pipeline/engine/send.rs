//! Core: what goes out: bundles with the schemas they need, hellos; and records that cannot.

use std::ops::ControlFlow;

use headwater_proto::bundle::{BundleHead, BundleWriter, Stamps};
use headwater_proto::delivery::{Command, DeliveryError, HelloFacts, Input};
use headwater_proto::frame::{self, Frames, Kind};
use headwater_proto::ids::{Epoch, Lane, SeqRange};
use headwater_proto::message::{
    self, Ack, GapReason, Reject, RejectReason, SchemaRequest, WallClock, Welcome,
};
use headwater_proto::time::{Base, Millis, Now};
use headwater_spool::Disk;

use super::ram::schema_of;
use super::schemas::{SchemaName, Schemas, announced, schema_payload};
use super::{Engine, Output};
use crate::pipeline::record;

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
    pub(super) fn next_publish(&mut self, now: Now) -> Option<Output> {
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
            if let Some(bytes) = bytes {
                return Some(Output::Publish(bytes));
            }
        }
        None
    }

    pub(super) fn wall(&self, now: Now) -> Option<WallClock> {
        self.settings.wall_error_ms.map(|error_ms| WallClock {
            time: now.wall,
            error_ms: Some(error_ms),
        })
    }

    /// How good the clock is that stamps records.
    pub(super) fn stamps(&self) -> Stamps {
        Stamps {
            synced: false,
            error_ms: self.settings.wall_error_ms,
        }
    }

    fn hello(&self, page: u8, now: Now) -> Vec<u8> {
        let facts = HelloFacts {
            boot: self.settings.boot,
            uptime_ms: now.mono.0,
            wall: self.wall(now),
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
        let head = BundleHead {
            origin: self.settings.device.clone(),
            lane,
            epoch,
            first: range.first,
            ram: self.lanes[at].ram_of(epoch).is_some(),
            boot: self.settings.boot,
            base: Base::Wall,
            stamps: self.stamps(),
            uptime_ms: Some(now.mono.0),
            wall: self.wall(now),
        };
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
        let mut packed = Packed {
            len: 0,
            missing: SeqRange::new(range.first, range.first),
            damaged: false,
            taken: SeqRange::new(range.first, range.first),
            wants: None,
            too_large: false,
            unreadable: false,
            schemas: Vec::new(),
        };
        let lane = &self.lanes[at];
        let schemas = &self.schemas;
        let Ok(mut writer) = BundleWriter::new(head.clone(), &mut self.scratch[..max_bytes]) else {
            packed.too_large = true;
            return packed;
        };
        let mut visit = |seq: u64, payload: &[u8]| {
            take_record(
                &mut writer,
                &mut packed,
                schemas,
                head.epoch,
                range,
                seq,
                payload,
            )
        };
        if let Some(ram) = lane.ram_of(head.epoch) {
            let wanted = ram
                .records
                .iter()
                .skip_while(|record| record.seq < range.first);
            for record in wanted.take_while(|record| record.seq < range.next) {
                if visit(record.seq, &record.payload).is_break() {
                    break;
                }
            }
            // Nothing of a RAM epoch goes missing but what was released.
            packed.missing.next = packed.missing.next.max(
                ram.records
                    .front()
                    .map_or(range.next, |r| r.seq.clamp(range.first, range.next)),
            );
        } else if let (Some(stored), Some(log)) =
            (lane.stored(head.epoch).copied(), self.spool.log_mut(at))
        {
            let base = stored.base;
            let read = log.read(base + range.first, max_bytes, |position, _, payload| {
                visit(position - base, payload)
            });
            // Records that are held in memory and not yet synced: reached by a sabotaged engine only.
            for held in lane
                .held
                .iter()
                .filter(|_| lane.visible_seq > lane.durable_seq)
            {
                if range.contains(held.seq) && visit(held.seq, &held.payload).is_break() {
                    break;
                }
            }
            match read {
                Ok(chunk) => {
                    let bad = chunk.damage.first().map(|damage| &damage.positions);
                    let begins = base + range.first;
                    if let Some(bad) = bad.filter(|bad| bad.start <= begins && begins < bad.end) {
                        packed.missing.next = (bad.end - base).min(range.next);
                        packed.damaged = true;
                    } else if packed.taken.is_empty() && packed.wants.is_none() && !packed.too_large
                    {
                        let end = (chunk.next.max(begins + 1) - base).min(range.next);
                        packed.missing.next = packed.missing.next.max(end);
                    }
                }
                Err(_) => {
                    let position = base + range.first;
                    let end = log
                        .segments()
                        .find(|info| info.positions().contains(&position))
                        .map_or(position + 1, |info| info.next);
                    packed.missing.next = (end - base).min(range.next);
                    packed.unreadable = true;
                }
            }
        } else {
            packed.missing.next = range.next;
        }
        packed.len = writer.finish();
        if !packed.taken.is_empty() {
            packed.missing.next = packed.missing.first;
            packed.unreadable = false;
        }
        packed
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

    /// Whether the frame was one that means something here.
    fn down_frame(&mut self, kind: Kind, payload: &[u8], now: Now) -> bool {
        if kind == Kind::Welcome {
            message::decode::<Welcome>(payload)
                .is_ok_and(|m| self.sender.handle(Input::Welcome(&m), now.mono).is_ok())
        } else if kind == Kind::Ack {
            message::decode::<Ack>(payload)
                .is_ok_and(|m| self.sender.handle(Input::Ack(&m), now.mono).is_ok())
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

fn take_record(
    writer: &mut BundleWriter<'_>,
    packed: &mut Packed,
    schemas: &Schemas,
    epoch: Epoch,
    range: SeqRange,
    seq: u64,
    payload: &[u8],
) -> ControlFlow<()> {
    if seq >= range.next {
        return ControlFlow::Break(());
    }
    if seq != packed.taken.next {
        // A hole: what lies before it is sent first.
        if packed.taken.is_empty() {
            packed.missing.next = seq;
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
        if packed.taken.is_empty() {
            packed.missing.next = seq + 1;
            packed.damaged = true;
        }
        return ControlFlow::Break(());
    };
    if let Some(number) = schema_of(envelope.frame) {
        let name = (epoch, number);
        let known = schemas.sent.contains(&name) || schemas.nowhere.contains(&name);
        if !known && !packed.schemas.contains(&name) {
            let cached = schemas.cached.get(&name).map(Vec::as_slice);
            let Some(bytes) = envelope.schema.map(|(_, bytes)| bytes).or(cached) else {
                packed.wants = Some((seq, name));
                return ControlFlow::Break(());
            };
            let said = schema_payload(number, &announced(bytes));
            if writer.push(Kind::Schema, &said).is_err() {
                packed.too_large = packed.taken.is_empty();
                return ControlFlow::Break(());
            }
            packed.schemas.push(name);
        }
    }
    if writer.push_frame(frame.kind, envelope.frame).is_err() {
        packed.too_large = packed.taken.is_empty();
        return ControlFlow::Break(());
    }
    packed.taken.next = seq + 1;
    ControlFlow::Continue(())
}
