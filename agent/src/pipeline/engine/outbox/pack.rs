//! Core: how one bundle is filled with records and the schemas that they need.

use std::ops::ControlFlow;

use headwater_proto::bundle::{BundleHead, BundleWriter, Stamps};
use headwater_proto::frame::{self, Kind};
use headwater_proto::ids::SeqRange;
use headwater_proto::message;
use headwater_proto::portion::{MAX_PORTIONS, Portion};

use super::Read;
use super::schemas::{SchemaName, Schemas, announced, schema_payload};
use crate::pipeline::record::{self, Envelope, schema_of};

/// What became of a read for a bundle.
pub(super) struct Packed {
    /// Bytes of the bundle, which holds the frames of `taken`.
    pub(super) len: usize,
    /// Numbers that could not be read at the start.
    pub(super) missing: SeqRange,
    pub(super) damaged: bool,
    pub(super) taken: SeqRange,
    /// A record needs a schema that is not at hand.
    pub(super) wants: Option<(u64, SchemaName)>,
    /// The first record is larger than the bundle may be.
    pub(super) too_large: bool,
    /// The disk did not let the first record be read; `missing` says how far that may go.
    pub(super) unreadable: bool,
    pub(super) schemas: Vec<SchemaName>,
}

/// A bundle that is being filled.
pub(super) struct Packing<'a> {
    room: Option<&'a mut [u8]>,
    writer: Option<BundleWriter<'a>>,
    /// How good the clock of the rows in it was: of all alike.
    stamps: Stamps,
    schemas: &'a Schemas,
    head: &'a BundleHead,
    range: SeqRange,
    packed: Packed,
    /// Which parts of the sources' contents it holds: they go behind its records.
    portions: Vec<Portion>,
    /// Bytes of the room.
    limit: usize,
}

impl<'a> Packing<'a> {
    /// Nothing yet. `room`: where the bundle is written, as large as it may be.
    pub(super) fn new(
        room: &'a mut [u8],
        schemas: &'a Schemas,
        head: &'a BundleHead,
        range: SeqRange,
    ) -> Self {
        Self {
            portions: Vec::new(),
            limit: room.len(),
            room: Some(room),
            writer: None,
            stamps: Stamps::default(),
            schemas,
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
        }
    }

    /// Takes the next record, unless the bundle ends before it.
    pub(super) fn take(&mut self, seq: u64, payload: &[u8]) -> ControlFlow<()> {
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
        let portion = portion_of(&envelope);
        let joins = portion.as_ref().and_then(|portion| self.joins(portion));
        if !is_first && joins.is_none() && self.portions.len() >= usize::from(MAX_PORTIONS) {
            return ControlFlow::Break(());
        }
        let portions = self.portions.iter().chain(&portion);
        let behind: usize = portions.map(portion_bytes).sum();
        let limit = self.limit;
        let is_written = self.write_schema(seq, &envelope).and_then(|()| {
            let writer = self.writer()?;
            // A record that fits only without its portion goes alone, and without it.
            if !is_first && writer.len() + envelope.frame.len() + behind > limit {
                return None;
            }
            writer.push_frame(frame.kind, envelope.frame).ok()
        });
        if is_written.is_none() {
            self.packed.too_large = is_first && self.packed.wants.is_none();
            return ControlFlow::Break(());
        }
        match (portion, joins) {
            (Some(more), Some(at)) => self.portions[at].to = more.to,
            (more, _) => self.portions.extend(more),
        }
        self.packed.taken.next = seq + 1;
        ControlFlow::Continue(())
    }

    /// The place of the portion that another one goes on from.
    fn joins(&self, more: &Portion) -> Option<usize> {
        let of = |held: &Portion| held.source == more.source && Some(held.to) == more.from;
        self.portions.iter().position(of)
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

    /// Ends the bundle with what the read said of records that it did not give.
    pub(super) fn finish(mut self, read: Read) -> Packed {
        match read {
            Read::Damaged(below) => {
                self.packed.missing.next = below.min(self.range.next);
                self.packed.damaged = true;
            }
            Read::Unreadable(below) => {
                self.miss_below(below);
                self.packed.unreadable = true;
            }
            Read::Through(below) => {
                let packed = &self.packed;
                let is_given = !packed.taken.is_empty() || packed.wants.is_some();
                // The record behind a hole was given and not taken: the read counts it as passed, and it is there.
                let is_hole = !packed.missing.is_empty();
                if !is_given && !is_hole && !packed.too_large {
                    self.miss_below(below);
                }
            }
        }
        let mut packed = self.packed;
        if let Some(writer) = &mut self.writer
            && !packed.taken.is_empty()
        {
            for portion in &self.portions {
                // Without room the records go, and may be read again by an agent that lost its spool.
                let _ = writer.push(Kind::Portion, &message::to_vec(portion));
            }
        }
        packed.len = self.writer.map_or(0, BundleWriter::finish);
        if !packed.taken.is_empty() {
            packed.missing.next = packed.missing.first;
            packed.unreadable = false;
        }
        packed
    }
}

/// Which part of its source's content a record holds, if that content can be known again.
fn portion_of(envelope: &Envelope<'_>) -> Option<Portion> {
    Some(Portion {
        source: envelope.source.parse().ok()?,
        from: envelope.from,
        to: envelope.cursor.filter(|cursor| cursor.tag != 0)?,
    })
}

/// Bytes of a portion's frame.
fn portion_bytes(portion: &Portion) -> usize {
    frame::encoded_len(message::to_vec(portion).len())
}
