//! Core: a node behind an agent, as a small machine: it numbers its own records, keeps them until its agent
//! has acknowledged them, and loses none of them in a restart.

use std::collections::BTreeMap;

use headwater_proto::bundle::{BundleHead, Stamps, assemble};
use headwater_proto::codec::{Encoder, Rows};
use headwater_proto::delivery::{Command, HeldEpoch, HelloFacts, Input, Sender, SenderLimits};
use headwater_proto::frame::{Frames, Kind};
use headwater_proto::ids::{DeviceId, Epoch, Lane, SeqRange};
use headwater_proto::message::{self, Ack, EpochEnd, Reject, SchemaRequest, Welcome};
use headwater_proto::sample::Value;
use headwater_proto::schema::{Column, ColumnKind, Schema};
use headwater_proto::time::{Base, Millis, Now};

/// Name of its only metric: whole numbers, which count its samples.
pub const METRIC: &str = "count";
/// Number of its only schema.
const SCHEMA: u8 = 4;
/// Largest packet that it sends and takes, in bytes.
const PACKET_BYTES: u32 = 1_024;

/// What stands on a node's flash: it outlives restarts.
#[derive(Debug, Clone, Default)]
struct Flash {
    epochs: BTreeMap<Epoch, Kept>,
    /// The epoch of the present life.
    present: Option<Epoch>,
    boots: u64,
    made: u64,
}

/// One epoch on the flash.
#[derive(Debug, Clone, Default)]
struct Kept {
    /// Frames that are not acknowledged, by number.
    records: BTreeMap<u64, (Kind, Vec<u8>)>,
    first: u64,
    next: u64,
    ended: bool,
}

/// A node.
pub struct Node {
    id: DeviceId,
    flash: Flash,
    sender: Sender<32, 4>,
    answers: Vec<Vec<u8>>,
    /// Draws epochs and jitter.
    random: u64,
    refused: u64,
}

impl Node {
    /// Its first life. `seed`: for its epochs.
    ///
    /// # Panics
    /// If `name` is no device id.
    #[must_use]
    pub fn new(name: &str, seed: u64) -> Self {
        let id: DeviceId = name.parse().expect("the name is a device id");
        let mut node = Self {
            sender: sender(&id, seed),
            id,
            flash: Flash::default(),
            answers: Vec::new(),
            random: seed,
            refused: 0,
        };
        node.boot();
        node
    }

    /// Its device id.
    #[must_use]
    pub const fn id(&self) -> &DeviceId {
        &self.id
    }

    /// Samples that it made.
    #[must_use]
    pub const fn made(&self) -> u64 {
        self.flash.made
    }

    /// Records that were refused for good.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    /// Whether all that it made is acknowledged.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        let mut epochs = self.flash.epochs.values();
        epochs.all(|kept| kept.records.is_empty())
    }

    /// It dies, and starts again with what is on its flash.
    pub fn restart(&mut self) {
        self.answers.clear();
        self.boot();
    }

    fn draw(&mut self) -> u64 {
        self.random = self
            .random
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        self.random ^ (self.random >> 29)
    }

    fn boot(&mut self) {
        self.flash.boots += 1;
        let seed = self.draw();
        self.sender = sender(&self.id, seed);
        let flash = &mut self.flash;
        let before = flash.present.and_then(|epoch| {
            let next = flash.epochs.get(&epoch)?.next;
            (next > 0).then_some((epoch, next))
        });
        // What nobody needs is erased.
        flash.epochs.retain(|_, kept| !kept.records.is_empty());
        for (epoch, kept) in &mut flash.epochs {
            kept.ended = true;
            let held = held(*epoch, kept, flash.boots);
            self.sender.add_epoch(held).expect("so many epochs fit");
        }
        let epoch = Epoch::new(seed);
        let kept = Kept::default();
        let held = held(epoch, &kept, flash.boots);
        self.sender.add_epoch(held).expect("so many epochs fit");
        flash.epochs.insert(epoch, kept);
        flash.present = Some(epoch);
        if let Some((before, next)) = before {
            let end: EpochEnd = EpochEnd {
                origin: self.id.clone(),
                lane: Lane::Normal,
                epoch: before,
                first: 0,
                next,
                // It keeps whatever nobody acknowledged.
                clean: true,
                boot: flash.boots - 1,
                last_durable: None,
            };
            self.put(Kind::EpochEnd, &message::to_vec(&end));
        }
    }

    /// Keeps a record; its epoch and number.
    fn put(&mut self, kind: Kind, payload: &[u8]) -> (Epoch, u64) {
        let present = self.flash.present;
        let epoch = present.expect("a boot begins with an epoch");
        let kept = self.flash.epochs.entry(epoch).or_default();
        let seq = kept.next;
        kept.records.insert(seq, (kind, payload.to_vec()));
        kept.next += 1;
        let stored = self.sender.stored(Lane::Normal, epoch, kept.next);
        stored.expect("the present epoch is held");
        (epoch, seq)
    }

    /// Makes a record of so many samples, the first of them at this time, the others a millisecond apart.
    /// Returns its epoch and number. The samples are whole numbers that go on where [`Node::made`] stands.
    ///
    /// # Panics
    /// Never: the rows fit their schema.
    pub fn make(&mut self, samples: u32, now: Now) -> (Epoch, u64) {
        let schema = schema();
        let mut rows = Rows::new(&schema);
        for k in 0..i64::from(samples) {
            let count = i64::try_from(self.flash.made).unwrap_or(i64::MAX);
            let values = [Some(Value::I64(count))];
            let pushed = rows.push_row(now.wall.0 + 1_000 * k, 0, &values);
            pushed.expect("the values fit the schema");
            self.flash.made += 1;
        }
        let mut coded = Vec::new();
        let encoded = Encoder::new(&schema).encode(u32::from(SCHEMA), &rows, &mut coded);
        encoded.expect("the rows fit a batch");
        self.put(Kind::Batch, &coded)
    }

    /// It has a way to an agent.
    pub fn connect(&mut self, now: Millis) {
        self.take_in(Input::LinkUp, now);
    }

    /// The way is gone.
    pub fn disconnect(&mut self, now: Millis) {
        self.take_in(Input::LinkDown, now);
        self.answers.clear();
    }

    fn take_in(&mut self, input: Input<'_>, now: Millis) {
        // What is stale or foreign is refused, and harms nothing.
        let _ = self.sender.handle(input, now);
    }

    /// What it sends next; `None` until something happens, or time has passed.
    pub fn next_packet(&mut self, now: Now) -> Option<Vec<u8>> {
        self.take_in(Input::Tick, now.mono);
        if let Some(answer) = self.answers.pop() {
            return Some(answer);
        }
        loop {
            match self.sender.next_command(now.mono)? {
                Command::SendHello { page } => return Some(self.hello(page, now)),
                Command::Publish {
                    epoch,
                    first,
                    limit,
                    max_bytes,
                    ..
                } => return self.bundle(epoch, SeqRange::new(first, limit), max_bytes, now),
                Command::Release { epoch, through, .. } => {
                    if let Some(kept) = self.flash.epochs.get_mut(&epoch) {
                        kept.records = kept.records.split_off(&through);
                        kept.first = kept.first.max(through);
                    }
                }
                Command::Refused { range, .. } => self.refused += range.len(),
            }
        }
    }

    fn hello(&self, page: u8, now: Now) -> Vec<u8> {
        let facts = HelloFacts {
            boot: self.flash.boots,
            uptime_ms: now.mono.0,
            wall: None,
            max_down_bytes: PACKET_BYTES,
        };
        let mut out = Vec::new();
        message::append_frame(&self.sender.hello(page, &facts), &mut out);
        out
    }

    fn bundle(
        &mut self,
        epoch: Epoch,
        range: SeqRange,
        max_bytes: u32,
        now: Now,
    ) -> Option<Vec<u8>> {
        let head = self.head(epoch, range.first);
        let kept = self.flash.epochs.get(&epoch)?;
        let records = kept.records.range(range.first..range.next);
        let frames = records.map(|(_, (kind, bytes))| (*kind, &bytes[..]));
        let most = usize::try_from(max_bytes).unwrap_or(usize::MAX);
        let (bytes, count) = assemble(head, most, frames).ok()?;
        if count == 0 {
            self.sender.held_back();
            return None;
        }
        let sent = SeqRange::new(range.first, range.first + u64::from(count));
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let _ = self.sender.sent(Lane::Normal, epoch, sent, len, now.mono);
        Some(bytes)
    }

    fn head(&self, epoch: Epoch, first: u64) -> BundleHead {
        BundleHead {
            origin: self.id.clone(),
            lane: Lane::Normal,
            epoch,
            first,
            ram: false,
            boot: self.flash.boots,
            base: Base::Wall,
            stamps: Stamps {
                synced: true,
                error_ms: Some(8),
            },
            uptime_ms: None,
            wall: None,
        }
    }

    /// Takes what its agent answers.
    pub fn take(&mut self, bytes: &[u8], now: Millis) {
        for (frame, _) in Frames::new(bytes).map_while(Result::ok) {
            let payload = frame.payload;
            if frame.kind == Kind::Welcome {
                if let Ok(welcome) = message::decode::<Welcome>(payload) {
                    self.take_in(Input::Welcome(&welcome), now);
                }
            } else if frame.kind == Kind::Ack {
                if let Ok(ack) = message::decode::<Ack>(payload) {
                    self.take_in(Input::Ack(&ack), now);
                }
            } else if frame.kind == Kind::Reject {
                if let Ok(reject) = message::decode::<Reject>(payload) {
                    self.take_in(Input::Reject(&reject), now);
                }
            } else if frame.kind == Kind::SchemaRequest
                && let Ok(request) = message::decode::<SchemaRequest>(payload)
            {
                self.send_schema(request.epoch);
            }
        }
    }

    fn send_schema(&mut self, epoch: Epoch) {
        let mut payload = vec![SCHEMA];
        let encoded = schema().encode(&mut payload);
        encoded.expect("the schema can be written");
        let frames = [(Kind::Schema, &payload[..])];
        let most = usize::try_from(PACKET_BYTES).unwrap_or(usize::MAX);
        if let Ok((bytes, _)) = assemble(self.head(epoch, 0), most, frames) {
            self.answers.push(bytes);
        }
    }
}

fn sender(id: &DeviceId, seed: u64) -> Sender<32, 4> {
    let limits = SenderLimits {
        max_bundle: PACKET_BYTES,
        ..SenderLimits::DEFAULT
    };
    Sender::new(id.clone(), limits, seed)
}

fn held(epoch: Epoch, kept: &Kept, boot: u64) -> HeldEpoch {
    HeldEpoch {
        lane: Lane::Normal,
        epoch,
        first: kept.first,
        next: kept.next,
        ram: false,
        ended: kept.ended,
        boot,
        base: Base::Wall,
        end_named_in: None,
        dated_by: None,
    }
}

fn schema() -> Schema {
    Schema::new(1_000, vec![Column::new(METRIC, ColumnKind::I64)])
}
