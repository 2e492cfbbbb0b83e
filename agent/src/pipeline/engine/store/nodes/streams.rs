//! Core: the streams of nodes: what was received of each, and the schemas that its records need.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use headwater_proto::delivery::{Receiver, Verdict};
use headwater_proto::ids::{DeviceId, JournalId, SeqRange, Stream};
use headwater_proto::message::Mark;

use crate::pipeline::foreign::{self, Listed, MAX_SNAPSHOT_BYTES};
use crate::pipeline::record::Life;

/// Most streams of all nodes; the one that was used longest ago gives way, if none of its records is here. A
/// start takes in what it finds records of, also beyond it.
pub(crate) const MAX_STREAMS: usize = 1024;
/// Most bytes of schemas that are kept in memory; beyond it those of the stream that was used longest ago
/// go, and its node is asked for them.
pub(crate) const MAX_SCHEMA_BYTES: usize = 1 << 20;
/// Most bytes of one schema: more than any node's, and little beside [`MAX_SCHEMA_BYTES`].
pub(crate) const MAX_ONE_SCHEMA_BYTES: usize = 64 << 10;
/// Most ranges of one stream that were refused, damaged or evicted; beyond it the
/// lowest is forgotten, and what stands there is kept until it is committed.
const MAX_LET_GO: usize = 64;

/// A schema, and the newest segment in which it stands.
#[derive(Debug, Clone)]
pub(super) struct Bound {
    pub(super) bytes: Arc<[u8]>,
    pub(super) segment: Option<u64>,
}

/// One stream of a node.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) stream: Stream,
    pub(super) life: Life,
    /// The node keeps it in RAM alone.
    pub(super) ram: bool,
    /// Its writer has ended.
    pub(super) ended: bool,
    /// What is durable of it, as bytes of a receiver: a stream at rest takes few.
    received: Vec<u8>,
    /// With the records of the group that is not synced.
    open: Option<Box<Receiver>>,
    /// Bytes of its records here that somebody still needs, those of the open group among them.
    bytes: u64,
    pub(super) schemas: BTreeMap<u32, Bound>,
    /// Records that are named in a gap: nobody needs them here.
    pub(super) let_go: Vec<SeqRange>,
    /// When it was used last, as a count.
    used: u64,
    /// Where reading went on last: a number, and a position at or before its record.
    pub(super) hint: (u64, u64),
}

impl Kept {
    /// What is durable of it.
    fn durable(&self) -> Receiver {
        Receiver::decode(&self.received).map_or_else(|_| Receiver::new(), |(receiver, _)| receiver)
    }

    /// Judges a record without taking it. What is not taken opens nothing: its node is answered at once, and
    /// not after the sync of a group in which it has no part.
    pub(super) fn judge(&self, seq: u64, crc: u32) -> Verdict {
        let open = self.open.as_ref();
        open.map_or_else(|| self.durable().judge(seq, crc), |it| it.judge(seq, crc))
    }

    /// Numbers that were received, without those that are here, which rise. What lies between received ones
    /// counts as received where so many damaged records may have held it: a snapshot does not tell of the last
    /// records before it.
    pub(super) fn missing(&self, here: &[SeqRange], damaged: u64) -> Vec<SeqRange> {
        let mut missing = Vec::new();
        let mut received = Vec::<SeqRange>::new();
        for range in self.durable().data().iter() {
            match received.last_mut() {
                Some(last) if range.first - last.next <= damaged => last.next = range.next,
                _ => received.push(range),
            }
        }
        for range in received {
            missing.extend(without(range, here));
        }
        missing
    }

    /// With the records of the group that is not synced.
    pub(super) fn receiver(&mut self) -> &mut Receiver {
        if self.open.is_none() {
            self.open = Some(Box::new(self.durable()));
        }
        self.open.get_or_insert_default()
    }

    /// Whether records of it are here that somebody needs.
    pub(super) const fn is_needed(&self) -> bool {
        self.bytes > 0
    }

    /// Whether records of it are not synced.
    pub(super) const fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// The group is durable, or was not made so.
    pub(super) fn close(&mut self, is_durable: bool) {
        let Some(mut receiver) = self.open.take() else {
            return;
        };
        if is_durable {
            receiver.synced();
            // Custody passes with the sync: the node may forget them.
            receiver.commit_all();
            self.received.clear();
            receiver.append_to(&mut self.received);
            self.received.shrink_to_fit();
        }
    }

    /// What its node hears of it, if that holds records from `oldest` on.
    pub(super) fn mark(&self, oldest: u64) -> Mark {
        let Stream { lane, epoch, .. } = self.stream;
        self.durable().mark(lane, epoch, oldest)
    }

    /// Records of a range need no place here any more: a gap names them.
    pub(super) fn let_go(&mut self, range: SeqRange) {
        self.let_go.push(range);
        self.let_go.sort_by_key(|range| range.first);
        let mut merged: Vec<SeqRange> = Vec::new();
        for range in self.let_go.drain(..) {
            match merged.last_mut() {
                Some(last) if last.next >= range.first => last.next = last.next.max(range.next),
                _ => merged.push(range),
            }
        }
        if merged.len() > MAX_LET_GO {
            // The lowest were named first; of what lies between nothing is known: it is kept.
            merged.remove(0);
        }
        self.let_go = merged;
    }

    /// A record was taken that a gap names: it is needed here like any other.
    pub(super) fn take_back(&mut self, seq: u64) {
        let one = SeqRange::new(seq, seq + 1);
        let rest = self.let_go.iter().flat_map(|range| without(*range, &[one]));
        self.let_go = rest.collect();
    }

    /// Whether nobody needs a range: `is_committed` says that of all that no gap names.
    pub(super) fn is_done(&self, range: SeqRange, is_committed: &dyn Fn(SeqRange) -> bool) -> bool {
        let mut from = range.first;
        for gone in self.let_go.iter().filter(|gone| gone.next > range.first) {
            let end = gone.first.min(range.next);
            if from < end && !is_committed(SeqRange::new(from, end)) {
                return false;
            }
            from = from.max(gone.next);
        }
        from >= range.next || is_committed(SeqRange::new(from, range.next))
    }

    fn listed(&self) -> Listed {
        Listed {
            stream: self.stream.clone(),
            life: self.life,
            ram: self.ram,
            ended: self.ended,
            received: self.received.clone(),
        }
    }
}

/// The parts of a range that are in none of others, which rise.
pub(super) fn without(range: SeqRange, others: &[SeqRange]) -> Vec<SeqRange> {
    let (mut rest, mut from) = (Vec::new(), range.first);
    for other in others.iter().filter(|other| other.next > range.first) {
        let end = other.first.min(range.next);
        if from < end {
            rest.push(SeqRange::new(from, end));
        }
        from = from.max(other.next);
    }
    if from < range.next {
        rest.push(SeqRange::new(from, range.next));
    }
    rest
}

/// The streams of all nodes.
#[derive(Debug, Default)]
pub(super) struct Streams {
    slots: Vec<Option<Kept>>,
    by_name: BTreeMap<Stream, u32>,
    /// Bytes of each node's records that somebody still needs.
    by_device: BTreeMap<DeviceId, u64>,
    schema_bytes: usize,
    uses: u64,
}

impl Streams {
    pub(super) fn get(&self, id: u32) -> Option<&Kept> {
        self.slots.get(usize::try_from(id).ok()?)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut Kept> {
        self.slots.get_mut(usize::try_from(id).ok()?)?.as_mut()
    }

    pub(super) fn find(&self, stream: &Stream) -> Option<u32> {
        self.by_name.get(stream).copied()
    }

    pub(super) fn named(&self, stream: &Stream) -> Option<&Kept> {
        self.get(self.find(stream)?)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Kept)> {
        let all = self.by_name.values();
        all.filter_map(|id| Some((*id, self.get(*id)?)))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Kept> {
        self.slots.iter_mut().flatten()
    }

    /// So many bytes more of a stream are needed here.
    pub(super) fn need(&mut self, id: u32, bytes: u32) {
        if let Some(kept) = self.get_mut(id) {
            kept.bytes += u64::from(bytes);
            let device = kept.stream.device.clone();
            *self.by_device.entry(device).or_default() += u64::from(bytes);
        }
    }

    /// So many bytes of a stream are not needed here any more.
    pub(super) fn free(&mut self, id: u32, bytes: u32) {
        let Some(kept) = self.get_mut(id) else { return };
        kept.bytes = kept.bytes.saturating_sub(u64::from(bytes));
        let device = kept.stream.device.clone();
        if let Entry::Occupied(mut needed) = self.by_device.entry(device) {
            *needed.get_mut() = needed.get().saturating_sub(u64::from(bytes));
            if *needed.get() == 0 {
                needed.remove();
            }
        }
    }

    /// The nodes of which something is needed here, and how many bytes.
    pub(super) const fn by_device(&self) -> &BTreeMap<DeviceId, u64> {
        &self.by_device
    }

    /// The stream's number here; it is new if it was not known. `None`: there is no room for it.
    ///
    /// - `is_free`: whether no record of a stream is here.
    pub(super) fn open(
        &mut self,
        stream: &Stream,
        of: (Life, bool),
        is_free: &dyn Fn(u32) -> bool,
    ) -> Option<u32> {
        let is_new = self.find(stream).is_none();
        if is_new && !self.shrink(MAX_STREAMS - 1, is_free) {
            return None;
        }
        Some(self.recall(stream, of))
    }

    /// Forgets the streams that were used longest ago, until so many are left; says whether that was possible.
    ///
    /// - `is_free`: whether no record of a stream is here.
    pub(super) fn shrink(&mut self, most: usize, is_free: &dyn Fn(u32) -> bool) -> bool {
        while self.by_name.len() > most {
            let idle = self
                .iter()
                .filter(|(id, kept)| !kept.is_open() && kept.bytes == 0 && is_free(*id));
            let Some((oldest, _)) = idle.min_by_key(|(_, kept)| kept.used) else {
                return false;
            };
            self.remove(oldest);
        }
        true
    }

    /// As [`Streams::open`], also beyond the bound: records of it are durable, so that its node may have
    /// forgotten them.
    pub(super) fn recall(&mut self, stream: &Stream, (life, ram): (Life, bool)) -> u32 {
        self.uses += 1;
        let used = self.uses;
        if let Some(id) = self.find(stream) {
            if let Some(kept) = self.get_mut(id) {
                kept.used = used;
            }
            return id;
        }
        let at = self.slots.iter().position(Option::is_none);
        let at = at.unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let id = u32::try_from(at).expect("each stream beyond the bound has a record on the disk");
        self.slots[at] = Some(Kept {
            stream: stream.clone(),
            life,
            ram,
            ended: false,
            received: Vec::new(),
            open: None,
            bytes: 0,
            schemas: BTreeMap::new(),
            let_go: Vec::new(),
            used,
            hint: (0, 0),
        });
        self.by_name.insert(stream.clone(), id);
        id
    }

    fn remove(&mut self, id: u32) {
        let slot = usize::try_from(id).ok();
        let slot = slot.and_then(|at| self.slots.get_mut(at));
        if let Some(kept) = slot.and_then(Option::take) {
            let schemas = kept.schemas.values();
            self.schema_bytes -= schemas.map(|bound| bound.bytes.len()).sum::<usize>();
            self.by_name.remove(&kept.stream);
        }
    }

    /// Keeps the meaning of a schema number. Of one that is known nothing changes.
    pub(super) fn bind(&mut self, id: u32, number: u32, bytes: &[u8], segment: Option<u64>) {
        if bytes.len() > MAX_ONE_SCHEMA_BYTES {
            return;
        }
        let Some(kept) = self.get_mut(id) else { return };
        if let Some(bound) = kept.schemas.get_mut(&number) {
            bound.segment = segment.or(bound.segment);
            return;
        }
        let bytes: Arc<[u8]> = bytes.into();
        let len = bytes.len();
        kept.schemas.insert(number, Bound { bytes, segment });
        self.schema_bytes += len;
        while self.schema_bytes > MAX_SCHEMA_BYTES {
            let others = self
                .iter()
                .filter(|(_, kept)| !kept.schemas.is_empty())
                .min_by_key(|(other, kept)| (*other == id, kept.used))
                .map(|(other, _)| other);
            let Some(kept) = others.and_then(|other| self.get_mut(other)) else {
                return;
            };
            let schemas = std::mem::take(&mut kept.schemas);
            let freed: usize = schemas.values().map(|bound| bound.bytes.len()).sum();
            self.schema_bytes -= freed;
        }
    }

    /// Takes in a stream that a snapshot lists.
    pub(super) fn restore(&mut self, listed: Listed) {
        let id = self.recall(&listed.stream, (listed.life, listed.ram));
        if let Some(kept) = self.get_mut(id) {
            kept.ended |= listed.ended;
            if Receiver::decode(&listed.received).is_ok() {
                kept.received = listed.received;
            }
        }
    }

    /// The bytes with which a segment begins: what is durable of the streams, the latest used first.
    pub(super) fn snapshot(&self, spool: JournalId, out: &mut Vec<u8>) {
        let start = out.len();
        foreign::begin_snapshot(spool, out);
        let mut all: Vec<_> = self.slots.iter().flatten().collect();
        all.sort_by_key(|kept| std::cmp::Reverse(kept.used));
        let mut streams = Vec::new();
        for kept in all {
            let before = streams.len();
            foreign::add_stream(&kept.listed(), &mut streams);
            if out.len() - start + streams.len() > MAX_SNAPSHOT_BYTES {
                streams.truncate(before);
                break;
            }
        }
        out.extend_from_slice(&streams);
    }

    /// Bytes that they take in memory, about.
    #[cfg(test)]
    pub(crate) fn memory_bytes(&self) -> usize {
        let one = |kept: &Kept| {
            let open = if kept.is_open() {
                size_of::<Receiver>()
            } else {
                0
            };
            let schemas = kept.schemas.len() * 64;
            kept.received.capacity() + open + schemas + kept.let_go.capacity() * 16
        };
        let named = size_of::<Stream>() + 16;
        self.slots.len() * size_of::<Option<Kept>>()
            + self.by_name.len() * named
            + self.slots.iter().flatten().map(one).sum::<usize>()
            + self.schema_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_proto::ids::{Epoch, Lane};
    use headwater_proto::time::Base;

    const LIFE: Life = Life {
        boot: 1,
        base: Base::Wall,
    };

    fn stream(epoch: u64) -> Stream {
        Stream {
            device: DeviceId::new("n").unwrap(),
            lane: Lane::Normal,
            epoch: Epoch::new(epoch),
        }
    }

    fn open(streams: &mut Streams, epoch: u64) -> Option<u32> {
        streams.open(&stream(epoch), (LIFE, false), &|_| true)
    }

    #[test]
    fn beyond_their_bound_the_stream_used_longest_ago_gives_way_if_nothing_of_it_is_here() {
        let mut streams = Streams::default();
        for epoch in 0..MAX_STREAMS as u64 {
            let id = open(&mut streams, epoch).unwrap();
            streams.get_mut(id).unwrap().bytes = u64::from(epoch == 0);
        }
        open(&mut streams, 1);
        assert!(open(&mut streams, 1_000_000).is_some());
        assert!(streams.find(&stream(0)).is_some() && streams.find(&stream(1)).is_some());
        assert_eq!(streams.find(&stream(2)), None);
        streams.iter_mut().for_each(|kept| kept.bytes = 1);
        assert_eq!(open(&mut streams, 2_000_000), None);
    }

    #[test]
    fn schemas_beyond_their_bytes_are_forgotten_with_the_stream_used_longest_ago() {
        let mut streams = Streams::default();
        let schema = vec![7; MAX_ONE_SCHEMA_BYTES];
        let most = MAX_SCHEMA_BYTES / MAX_ONE_SCHEMA_BYTES;
        for epoch in 0..=most as u64 {
            let id = open(&mut streams, epoch).unwrap();
            streams.bind(id, 1, &schema, None);
            streams.bind(id, 2, &[7; MAX_ONE_SCHEMA_BYTES + 1], None);
        }
        let kept = |epoch| streams.named(&stream(epoch)).unwrap().schemas.len();
        assert_eq!((kept(0), kept(1), kept(most as u64)), (0, 1, 1));
        assert_eq!(streams.schema_bytes, MAX_SCHEMA_BYTES);
    }

    #[test]
    fn a_snapshot_lists_the_streams_used_last_within_its_bytes() {
        let mut streams = Streams::default();
        for epoch in 0..MAX_STREAMS as u64 {
            let id = open(&mut streams, epoch).unwrap();
            let kept = streams.get_mut(id).unwrap();
            // As many holes as are kept apart.
            for seq in 0..60 {
                kept.receiver().offer(seq << 40, 1);
            }
            kept.close(true);
        }
        let mut out = Vec::new();
        streams.snapshot(JournalId(7), &mut out);
        assert!(out.len() <= MAX_SNAPSHOT_BYTES);
        let (spool, listed) = foreign::decode_snapshot(&out).unwrap();
        assert!(spool == JournalId(7) && listed.len() > 100);
        assert_eq!(listed[0].stream, stream(MAX_STREAMS as u64 - 1));
        let mut again = Streams::default();
        again.restore(listed[0].clone());
        let mark = again.named(&listed[0].stream).unwrap().mark(0);
        assert_eq!(
            (mark.received, mark.committed, mark.ranges.len()),
            (1, 1, 8)
        );
    }

    #[test]
    fn ranges_that_were_let_go_merge_and_beyond_their_bound_the_lowest_is_kept_instead() {
        let mut streams = Streams::default();
        let id = open(&mut streams, 1).unwrap();
        let kept = streams.get_mut(id).unwrap();
        let range = |first, next| SeqRange::new(first, next);
        kept.let_go(range(4, 6));
        kept.let_go(range(2, 4));
        assert_eq!(kept.let_go, [range(2, 6)]);
        let nobody = |_: SeqRange| false;
        assert!(kept.is_done(range(3, 6), &nobody) && !kept.is_done(range(3, 7), &nobody));
        assert!(kept.is_done(range(0, 9), &|range| range.first >= 6 || range.next <= 2));
        assert!(!kept.is_done(range(0, 9), &|range| range.first >= 6));
        for k in 0..MAX_LET_GO as u64 {
            kept.let_go(range(10 * (k + 1), 10 * (k + 1) + 1));
        }
        assert_eq!(kept.let_go.len(), MAX_LET_GO);
        assert!(!kept.is_done(range(3, 6), &nobody) && kept.is_done(range(20, 21), &nobody));
    }
}
