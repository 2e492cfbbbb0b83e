//! Core: records of nodes behind this agent, in a log of their own. They are stored and forwarded unopened,
//! under the node's identity: device, lane, epoch and number are the node's.
//!
//! A node hears that a record was received when a sync covers it, and may forget it then; never for memory,
//! and never after a sync that failed: such records count as not received, and their node sends them again.
//! So no record of a node ever lives in memory alone, as those of the agent's own sources do.
//!
//! All nodes share the segments, so that one sync serves all. Room is shared fairly: a node's share is
//! [`SHARE_PERCENT`] of the quota, divided by the nodes that hold something. Beyond its share a node's records
//! are not taken; they wait in the node, which knows what to drop. Where a segment must go because shares
//! became smaller, only records of nodes beyond their share are evicted, after a durable gap names them; the
//! others move to the newest segment.

use std::collections::BTreeMap;

use headwater_proto::bundle::{BundleHead, Stamps};
use headwater_proto::delivery::{Receiver, Verdict};
use headwater_proto::frame::{self, Frame, Kind};
use headwater_proto::ids::{DeviceId, JournalId, Lane, SeqRange, Stream};
use headwater_proto::message::{self, EpochEnd, Mark, RejectReason};
use headwater_proto::time::{Base, Millis};
use headwater_spool::{AppendError, Disk, FullCause, Log, SyncError};

use super::GROUP_BYTES;
use crate::pipeline::foreign::{self, NODE};
use crate::pipeline::record::{Envelope, Life, schema_of};

mod index;
mod open;
mod reading;
mod room;
mod streams;

pub(crate) use reading::NodeShelf;
pub(crate) use room::Lost;

use index::{Entry, Index, MAX_RUNS};
use streams::{Kept, Streams};

/// Part of the quota that all shares together take: the rest lets segments be emptied.
pub(crate) const SHARE_PERCENT: u64 = 75;
/// Part of a node's share that only its lane `alarm` may fill.
const ALARM_PERCENT: u64 = 10;

/// What became of a record that a node sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offered {
    /// It is in the open group.
    Stored,
    /// It is here, or was, or is in the open group.
    Repeat,
    /// It needs this schema, which the node must send first.
    Wants(u32),
    /// It is not taken.
    Refused(RejectReason),
    /// The quota is full: a segment must go first.
    Full,
}

/// Records that became durable, in the order in which they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Durable {
    pub(crate) stream: Stream,
    pub(crate) range: SeqRange,
    pub(crate) life: Life,
    pub(crate) ram: bool,
    pub(crate) ended: bool,
}

/// The log of all nodes' records.
pub(crate) struct NodeStore<D: Disk> {
    log: Log<D>,
    /// The id under which nodes know it.
    spool: JournalId,
    streams: Streams,
    index: Index,
    /// Records of the open group.
    held: Vec<Entry>,
    held_bytes: usize,
    /// Runs that the index will have more with them.
    held_runs: usize,
    sync_at: Option<Millis>,
    /// Milliseconds after which a group is synced.
    group_ms: u64,
    /// What became durable and was not told.
    news: Vec<Durable>,
    failed_syncs: u64,
}

impl<D: Disk> NodeStore<D> {
    /// The id under which nodes know this spool; a new one when the old one is lost.
    pub(crate) const fn spool(&self) -> JournalId {
        self.spool
    }

    /// Syncs that failed; their records were not acknowledged.
    pub(crate) const fn failed_syncs(&self) -> u64 {
        self.failed_syncs
    }

    /// Whether records of a node are here whose times count from that boot of it.
    pub(crate) fn counts_from(&self, device: &DeviceId, boot: u64) -> bool {
        let life = Life {
            boot,
            base: Base::Uptime,
        };
        let mut all = self.streams.iter();
        all.any(|(_, kept)| kept.life == life && kept.stream.device == *device && kept.is_needed())
    }

    /// How many segments it has.
    pub(crate) fn segments(&self) -> usize {
        self.log.segments().len()
    }

    /// All streams that are known.
    pub(crate) fn streams(&self) -> Vec<Stream> {
        let all = self.streams.iter();
        all.map(|(_, kept)| kept.stream.clone()).collect()
    }

    /// Bytes of a node's records that somebody still needs.
    pub(crate) fn bytes_of(&self, device: &DeviceId) -> u64 {
        self.streams.by_device().get(device).copied().unwrap_or(0)
    }

    /// Bytes that a node may still bring, in its lane `alarm` and in others.
    pub(crate) fn room_of(&self, device: &DeviceId) -> (u64, u64) {
        let used = self.bytes_of(device);
        let share = self.share(u64::from(used == 0));
        let others = share - share / 100 * ALARM_PERCENT;
        (share.saturating_sub(used), others.saturating_sub(used))
    }

    /// The share of each node that holds something, and of so many that begin to.
    fn share(&self, more: u64) -> u64 {
        let holders = self.streams.by_device().len() as u64 + more;
        self.log.config().quota_bytes / 100 * SHARE_PERCENT / holders.max(1)
    }

    /// What a node hears of a stream that it holds from `oldest` on.
    pub(crate) fn mark(&self, stream: &Stream, oldest: u64) -> Mark {
        let known = self.streams.named(stream);
        known.map_or_else(
            || Receiver::new().mark(stream.lane, stream.epoch, oldest),
            |kept| kept.mark(oldest),
        )
    }

    /// Takes in what a schema number of a stream means. A reference to a dictionary is not kept: where it is
    /// needed, its node is asked for the bytes.
    pub(crate) fn bind(&mut self, head: &BundleHead, payload: &[u8]) {
        let mut at = 0;
        let number = headwater_proto::varint::get(payload, &mut at);
        let number = number.and_then(|number| u32::try_from(number).ok());
        let bytes = payload.get(at..).unwrap_or_default();
        if let Some(number) = number
            && headwater_proto::text::referred(bytes).is_none()
            && let Some(id) = self.open_stream(head)
        {
            self.streams.bind(id, number, bytes, None);
        }
    }

    fn open_stream(&mut self, head: &BundleHead) -> Option<u32> {
        let stream = stream_of(head);
        let life = Life {
            boot: head.boot,
            base: head.base,
        };
        let index = &self.index;
        let is_free = |id| index.of(id).next().is_none();
        self.streams.open(&stream, (life, head.ram), &is_free)
    }

    /// Takes a record into the open group.
    ///
    /// - `bytes`: its frame as it came.
    pub(crate) fn offer(
        &mut self,
        head: &BundleHead,
        seq: u64,
        frame: &Frame<'_>,
        bytes: &[u8],
        now: Millis,
    ) -> Offered {
        let Some(id) = self.open_stream(head) else {
            return Offered::Refused(RejectReason::NotDurable);
        };
        let Some(kept) = self.streams.get(id) else {
            return Offered::Refused(RejectReason::NotDurable);
        };
        let crc = frame::crc32c(bytes);
        match kept.judge(seq, crc) {
            Verdict::Store => {}
            Verdict::Repeat => return Offered::Repeat,
            Verdict::Conflict => return Offered::Refused(RejectReason::Conflict),
            Verdict::Refuse(reason) => return Offered::Refused(reason),
        }
        let (alarm, others) = self.room_of(&head.origin);
        let room = if head.lane == Lane::Alarm {
            alarm
        } else {
            others
        };
        if room < bytes.len() as u64 {
            return Offered::Refused(RejectReason::NoCredit);
        }
        let schema = schema_of(bytes);
        let kept = self.streams.get(id);
        let knows = |number: &u32| kept.is_some_and(|kept| kept.schemas.contains_key(number));
        if let Some(number) = schema.filter(|number| !knows(number)) {
            return Offered::Wants(number);
        }
        let record = Incoming {
            seq,
            kind: frame.kind,
            stamps: head.stamps,
            frame: bytes,
            schema,
            is_new: true,
        };
        let offered = self.take(id, &record, crc, now);
        if offered == Offered::Stored && frame.kind == Kind::EpochEnd {
            self.note_end(&head.origin, frame.payload);
        }
        offered
    }

    fn take(&mut self, id: u32, record: &Incoming<'_>, crc: u32, now: Millis) -> Offered {
        let newest = self.log.segments().next_back().map_or(0, |info| info.id);
        let is_full = self.index.runs_in_all() + self.held_runs >= MAX_RUNS
            && !self.index.goes_on(&self.held, newest, id, record.seq);
        let Some(kept) = self.streams.get_mut(id) else {
            return Offered::Refused(RejectReason::NotDurable);
        };
        if is_full || kept.receiver().offer(record.seq, crc) != Verdict::Store {
            self.give_back(id, record.seq);
            return Offered::Refused(RejectReason::TooManyHoles);
        }
        let lane = kept.stream.lane;
        let Err(error) = self.write(id, record, false) else {
            let wait_ms = match lane {
                Lane::Alarm => 0,
                Lane::Normal | Lane::Bulk | Lane::Plain => self.group_ms,
            };
            let due = now.plus(wait_ms);
            self.sync_at = Some(self.sync_at.map_or(due, |at| at.min(due)));
            if let Some(kept) = self.streams.get_mut(id) {
                kept.take_back(record.seq);
            }
            return Offered::Stored;
        };
        if let AppendError::Sync(error) = &error {
            self.lose_group(error);
        } else {
            self.give_back(id, record.seq);
        }
        match error {
            AppendError::Full {
                cause: FullCause::Quota,
                ..
            } => Offered::Full,
            AppendError::Full { .. }
            | AppendError::Sync(_)
            | AppendError::Disk { .. }
            | AppendError::TooLarge(_)
            | AppendError::SnapshotTooLarge(_) => Offered::Refused(RejectReason::NotDurable),
        }
    }

    /// A record was not taken after all. A stream with no other in the open group is not held open: its Ack
    /// would wait for a sync that nobody needs.
    fn give_back(&mut self, id: u32, seq: u64) {
        let is_alone = self.held.iter().all(|entry| entry.stream != id);
        let Some(kept) = self.streams.get_mut(id) else {
            return;
        };
        if is_alone {
            kept.close(false);
        } else if kept.receiver().forget(SeqRange::new(seq, seq + 1)).is_err() {
            kept.receiver().rollback();
        }
    }

    /// A node's record says that an epoch of it is over.
    fn note_end(&mut self, device: &DeviceId, payload: &[u8]) {
        let Ok(end) = message::decode::<EpochEnd>(payload) else {
            return;
        };
        if end.origin == *device {
            self.ended(&Stream {
                device: end.origin,
                lane: end.lane,
                epoch: end.epoch,
            });
        }
    }

    /// The writer of a stream has ended.
    pub(crate) fn ended(&mut self, stream: &Stream) {
        let id = self.streams.find(stream);
        if let Some(kept) = id.and_then(|id| self.streams.get_mut(id)) {
            kept.ended = true;
        }
    }

    /// Appends a record; its schema goes with it if the segment has not got it.
    fn write(&mut self, id: u32, record: &Incoming<'_>, reserved: bool) -> Result<(), AppendError> {
        let Self { log, streams, .. } = self;
        let Some(kept) = streams.get(id) else {
            return Ok(());
        };
        let bound = record.schema.and_then(|number| kept.schemas.get(&number));
        let schema = record.schema.zip(bound);
        let with = payload(kept, record, schema.map(|(n, bound)| (n, &*bound.bytes)));
        let spool = self.spool;
        let snapshot = |out: &mut Vec<u8>| streams.snapshot(spool, out);
        log.make_way(&[with.len()], &snapshot, reserved)?;
        let segment = log.segments().next_back().map_or(0, |info| info.id);
        let has_it = bound.is_none_or(|bound| bound.segment == Some(segment));
        let bytes = if has_it {
            payload(kept, record, None)
        } else {
            with
        };
        let kind = record.kind.to_u8();
        let position = if reserved {
            log.append_reserved(kind, &bytes, &snapshot)?
        } else {
            log.append(kind, &bytes, &snapshot)?
        };
        let entry = Entry {
            segment,
            stream: id,
            seq: record.seq,
            position,
            bytes: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            is_new: record.is_new,
        };
        self.held_bytes += bytes.len();
        self.held_runs += usize::from(!self.index.goes_on(&self.held, segment, id, record.seq));
        self.held.push(entry);
        self.streams.need(id, entry.bytes);
        let bound = self.streams.get_mut(id).zip(record.schema);
        if let Some(bound) = bound.and_then(|(kept, number)| kept.schemas.get_mut(&number)) {
            bound.segment = Some(segment);
        }
        Ok(())
    }

    /// When the open group is to be synced.
    pub(crate) const fn sync_at(&self) -> Option<Millis> {
        self.sync_at
    }

    /// Whether the group is to be synced, however young it is.
    pub(crate) const fn is_group_full(&self) -> bool {
        self.held_bytes >= GROUP_BYTES
    }

    /// Makes the open group durable. False: it failed, and its records count as not received.
    pub(crate) fn sync(&mut self) -> bool {
        self.sync_at = None;
        match self.log.sync() {
            Ok(_) => {
                self.note_durable(u64::MAX, true);
                true
            }
            Err(error) => {
                self.lose_group(&error);
                false
            }
        }
    }

    /// The group could not be synced. A part of it may be durable: it stands in the log, and comes again.
    fn lose_group(&mut self, error: &SyncError) {
        self.failed_syncs += 1;
        self.sync_at = None;
        self.note_durable(error.lost.start, false);
        // A segment may have been lost with the schemas that it was given.
        for kept in self.streams.iter_mut() {
            for bound in kept.schemas.values_mut() {
                bound.segment = None;
            }
        }
    }

    /// Records below a position are durable; those of the group beyond it are lost.
    fn note_durable(&mut self, below: u64, counts: bool) {
        for entry in std::mem::take(&mut self.held) {
            if entry.position < below {
                self.add(&entry);
            } else {
                self.streams.free(entry.stream, entry.bytes);
            }
        }
        (self.held_bytes, self.held_runs) = (0, 0);
        for kept in self.streams.iter_mut() {
            kept.close(counts);
        }
    }

    /// Takes a durable record into the index.
    fn add(&mut self, entry: &Entry) {
        self.index.add(entry);
        if entry.is_new {
            self.tell(entry.stream, SeqRange::new(entry.seq, entry.seq + 1));
        }
    }

    /// Records of a stream are to be sent.
    fn tell(&mut self, id: u32, range: SeqRange) {
        let Some(kept) = self.streams.get(id) else {
            return;
        };
        match self.news.last_mut() {
            Some(last) if last.stream == kept.stream && last.range.next == range.first => {
                last.range.next = range.next;
                last.ended = kept.ended;
            }
            _ => self.news.push(Durable {
                stream: kept.stream.clone(),
                range,
                life: kept.life,
                ram: kept.ram,
                ended: kept.ended,
            }),
        }
    }

    /// What became durable since the last call, oldest first.
    pub(crate) fn take_news(&mut self) -> Vec<Durable> {
        std::mem::take(&mut self.news)
    }

    /// What is known of a stream: its life, and whether the node keeps it in RAM alone.
    pub(crate) fn life_of(&self, stream: &Stream) -> Option<(Life, bool)> {
        let kept = self.streams.named(stream)?;
        Some((kept.life, kept.ram))
    }

    /// Nodes of which records are here that somebody still needs, and how many bytes they take.
    pub(crate) const fn holders(&self) -> &BTreeMap<DeviceId, u64> {
        self.streams.by_device()
    }

    /// Whether records of a stream are in the group that is not synced.
    pub(crate) fn is_open(&self, stream: &Stream) -> bool {
        self.streams.named(stream).is_some_and(Kept::is_open)
    }

    /// Bytes that all of it takes in memory, about.
    #[cfg(test)]
    pub(crate) fn memory_bytes(&self) -> usize {
        self.index.memory_bytes() + self.streams.memory_bytes() + self.held.capacity() * 32
    }
}

/// A record to be written.
struct Incoming<'a> {
    seq: u64,
    kind: Kind,
    stamps: Stamps,
    frame: &'a [u8],
    /// The number of the schema that it needs.
    schema: Option<u32>,
    /// It came from its node, and not from a segment that goes.
    is_new: bool,
}

/// The bytes of a record in the log.
fn payload(kept: &Kept, record: &Incoming<'_>, schema: Option<(u32, &[u8])>) -> Vec<u8> {
    let (life, epoch) = (kept.life, kept.stream.epoch);
    let boot = if life.base == Base::Uptime {
        life.boot
    } else {
        0
    };
    let envelope = Envelope {
        seq: record.seq,
        epoch: Some(epoch),
        life: Life { boot, ..life },
        stamps: record.stamps,
        source: NODE,
        cursor: None,
        from: None,
        live: false,
        stored_to: None,
        schema,
        frame: record.frame,
    };
    let mut out = Vec::new();
    foreign::encode(&kept.stream, life.boot, kept.ram, &envelope, &mut out);
    out
}

fn stream_of(head: &BundleHead) -> Stream {
    Stream {
        device: head.origin.clone(),
        lane: head.lane,
        epoch: head.epoch,
    }
}

#[cfg(test)]
mod tests;
