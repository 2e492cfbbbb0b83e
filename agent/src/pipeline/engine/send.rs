//! Core: what goes out: bundles with the schemas they need, hellos; and records that cannot.

use std::ops::ControlFlow;

use headwater_proto::bundle::{BundleHead, BundleWriter};
use headwater_proto::delivery::{Command, HelloFacts, Input};
use headwater_proto::frame::{self, Frames, Kind};
use headwater_proto::ids::{Epoch, Lane, SeqRange};
use headwater_proto::message::{self, Ack, GapReason, Reject, SchemaRequest, WallClock, Welcome};
use headwater_proto::time::Now;
use headwater_spool::{Disk, Log};

use super::ram::schema_of;
use super::{Engine, Output};
use crate::pipeline::record::{self, Envelope, Snapshot};

/// Most schemas kept in memory for sending; more are read again from the spool.
const MAX_CACHED_SCHEMAS: usize = 256;
/// Most schemas remembered as sent on this connection; beyond it they are sent again.
const MAX_SENT_SCHEMAS: usize = 4096;
/// Largest down publish that is taken.
pub const MAX_DOWN_BYTES: u32 = 64 * 1024;
/// Bytes read at once when schemas are looked for.
const CHUNK_BYTES: usize = 256 * 1024;

/// Names a schema: its epoch and its number there.
type SchemaName = (Epoch, u32);

/// Schemas at hand, and those the collector was sent on this connection.
#[derive(Debug, Default)]
pub(super) struct Schemas {
    cached: std::collections::BTreeMap<SchemaName, Vec<u8>>,
    sent: std::collections::BTreeSet<SchemaName>,
}

impl Schemas {
    pub(super) fn keep(&mut self, epoch: Epoch, number: u32, bytes: &[u8]) {
        if self.cached.len() >= MAX_CACHED_SCHEMAS {
            self.cached.pop_first();
        }
        self.cached.insert((epoch, number), bytes.to_vec());
    }

    fn note_sent(&mut self, name: SchemaName) {
        if self.sent.len() >= MAX_SENT_SCHEMAS {
            self.sent.clear();
        }
        self.sent.insert(name);
    }
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

    fn wall(&self, now: Now) -> Option<WallClock> {
        self.settings.wall_error_ms.map(|error_ms| WallClock {
            time: now.wall,
            error_ms,
        })
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
            uptime_ms: now.mono.0,
            wall: self.wall(now),
        };
        let mut looked = false;
        loop {
            let packed = self.pack(at, &head, range, max_bytes as usize);
            if let Some((seq, name)) = packed.wants
                && packed.taken.is_empty()
                && !looked
            {
                looked = true;
                self.find_schemas(at, epoch, seq);
                // One that is nowhere goes without: the collector asks, and parks the batch.
                self.schemas.cached.entry(name).or_default();
                continue;
            }
            if !packed.missing.is_empty() {
                self.name_missing(at, epoch, packed.missing, packed.damaged, now);
                return None;
            }
            if packed.too_large {
                self.sender.held_back();
                self.waiting_for_room = true;
                return None;
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
                Err(_) => packed.too_large = packed.taken.is_empty(),
            }
        } else {
            packed.missing.next = range.next;
        }
        packed.len = writer.finish();
        if !packed.taken.is_empty() {
            packed.missing.next = packed.missing.first;
        }
        packed
    }

    /// The records cannot be read: damaged ones are named in a gap, others were named before.
    fn name_missing(&mut self, at: usize, epoch: Epoch, range: SeqRange, damaged: bool, now: Now) {
        let lane = self.lanes[at].lane;
        if damaged {
            self.counters.damaged_records += range.len();
            let gap = headwater_proto::message::Gap {
                seqs: Some(range),
                ..self.gap(lane, epoch, GapReason::Damaged, now)
            };
            self.put_gap(at, &gap, now);
        }
        if self.sender.absent(lane, epoch, range).is_err() {
            self.waiting_for_room = true;
        }
    }

    /// Reads the schemas of the segment that holds record `seq`.
    fn find_schemas(&mut self, at: usize, epoch: Epoch, seq: u64) {
        let lane = &self.lanes[at];
        if let Some(ram) = lane.ram_of(epoch) {
            for (number, bytes) in &ram.schemas {
                self.schemas.keep(epoch, *number, bytes);
            }
            return;
        }
        let Some(position) = lane.stored(epoch).map(|stored| stored.base + seq) else {
            return;
        };
        let Some(log) = self.spool.log_mut(at) else {
            return;
        };
        let segment = log
            .segments()
            .find(|info| info.positions().contains(&position))
            .copied();
        let Some(info) = segment else { return };
        let snapshot = log.snapshot_of(info.id).ok().flatten();
        if let Some(snapshot) = snapshot.and_then(|bytes| Snapshot::decode(&bytes).ok()) {
            for (number, bytes) in &snapshot.schemas {
                self.schemas.keep(epoch, *number, bytes);
            }
        }
        let schemas = &mut self.schemas;
        let mut from = info.first;
        while from <= position {
            let read = log.read(from, CHUNK_BYTES, |found, _, payload| {
                if let Ok(Envelope {
                    schema: Some((number, bytes)),
                    ..
                }) = record::decode(payload)
                {
                    schemas.keep(epoch, number, bytes);
                }
                if found >= position {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            });
            match read {
                Ok(chunk) if chunk.next > from => from = chunk.next,
                _ => break,
            }
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

    /// Answers with a bundle that holds the schema and no record.
    fn send_schema(&mut self, request: &SchemaRequest, now: Now) -> bool {
        let SchemaRequest {
            origin,
            lane,
            epoch,
            schema,
        } = request;
        if *origin != self.settings.device || !Lane::AGENT.contains(lane) {
            return false;
        }
        let at = self.index_of(*lane);
        let name = (*epoch, *schema);
        if !self.schemas.cached.contains_key(&name) {
            let found = self.lanes[at]
                .batcher
                .schemas()
                .find(|(number, _)| number == schema);
            let found = found
                .filter(|_| self.lanes[at].epoch == *epoch)
                .map(|(_, b)| b.to_vec());
            match found {
                Some(bytes) => self.schemas.keep(*epoch, *schema, &bytes),
                None => self.find_everywhere(at, *epoch),
            }
        }
        let Some(bytes) = self
            .schemas
            .cached
            .get(&name)
            .filter(|bytes| !bytes.is_empty())
        else {
            return false;
        };
        let head = BundleHead {
            origin: origin.clone(),
            lane: *lane,
            epoch: *epoch,
            first: 0,
            ram: self.lanes[at].ram_of(*epoch).is_some(),
            boot: self.settings.boot,
            uptime_ms: now.mono.0,
            wall: self.wall(now),
        };
        let payload = schema_payload(*schema, bytes);
        let mut out = vec![0; payload.len() + 512];
        let Ok(mut writer) = BundleWriter::new(head, &mut out) else {
            return false;
        };
        if writer.push(Kind::Schema, &payload).is_err() {
            return false;
        }
        let len = writer.finish();
        out.truncate(len);
        self.schemas.note_sent(name);
        self.outputs.push_back(Output::Publish(out));
        true
    }

    /// Reads the schemas of every segment of an epoch.
    fn find_everywhere(&mut self, at: usize, epoch: Epoch) {
        let lane = &self.lanes[at];
        let Some(stored) = lane.stored(epoch).copied() else {
            self.find_schemas(at, epoch, 0);
            return;
        };
        let range = stored.base + stored.first..stored.base + stored.next;
        let lasts: Vec<u64> = self.spool.log(at).map_or_else(Vec::new, |log: &Log<D>| {
            log.segments()
                .filter(|info| range.contains(&info.first) && info.next > info.first)
                .map(|info| info.next - 1 - stored.base)
                .collect()
        });
        for seq in lasts {
            self.find_schemas(at, epoch, seq);
        }
    }

    /// A new connection knows no schema.
    pub(super) fn forget_sent_schemas(&mut self) {
        self.schemas.sent.clear();
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
        if !schemas.sent.contains(&name) && !packed.schemas.contains(&name) {
            let cached = schemas.cached.get(&name).map(Vec::as_slice);
            let Some(bytes) = envelope.schema.map(|(_, bytes)| bytes).or(cached) else {
                packed.wants = Some((seq, name));
                return ControlFlow::Break(());
            };
            if !bytes.is_empty() {
                if writer
                    .push(Kind::Schema, &schema_payload(number, bytes))
                    .is_err()
                {
                    packed.too_large = packed.taken.is_empty();
                    return ControlFlow::Break(());
                }
                packed.schemas.push(name);
            }
        }
    }
    if writer.push_frame(frame.kind, envelope.frame).is_err() {
        packed.too_large = packed.taken.is_empty();
        return ControlFlow::Break(());
    }
    packed.taken.next = seq + 1;
    ControlFlow::Continue(())
}

/// The payload of a Schema frame: the number, then the schema's bytes.
fn schema_payload(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut head = [0; headwater_proto::varint::MAX_VARINT_BYTES];
    let mut len = 0;
    headwater_proto::varint::put(&mut head, &mut len, u64::from(number))
        .expect("the buffer holds any varint");
    [&head[..len], bytes].concat()
}
