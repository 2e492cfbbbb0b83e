//! Core: what the collector holds of every stream: received, committed, ended.
//!
//! The ledger changes only by journal records ([`Ledger::apply`]) and by commits
//! ([`Ledger::commit`]), so that reading the journal again after a restart gives the same ledger.
//! Committed means in every required sink, whatever senders are told of it.

mod around;
mod named;

use std::collections::{BTreeMap, BTreeSet};

use headwater_proto::delivery::receiver::{MAX_RANGES, Namer};
use headwater_proto::delivery::{End, Ranges, Receiver, Verdict as Judgement};
use headwater_proto::frame::{self, Frame, Kind};
use headwater_proto::ids::{DeviceId, Epoch, Lane, SeqRange, Stream};
use headwater_proto::message::{self, EpochEnd, GapReason, RejectReason, TimeBase};
use headwater_proto::time::UnixMicros;

use super::envelope::{Change, GapHead, Record, Verdict};
use super::portions::Portions;
use super::spans::Times;
use super::time_bases::{KnownBase, TimeBases};
pub use around::Around;
pub(crate) use around::all_times;
pub use named::{committed_by, covered_by, named_by, streams_in};

/// Most streams; about 300 bytes each. Closed and committed ones leave at once beyond half of it.
pub const MAX_STREAMS: usize = 65_536;
/// Most streams of one device. Those that are closed and committed leave at once beyond half of it.
pub const MAX_STREAMS_PER_DEVICE: usize = 4_096;
/// Most plain devices that are kept apart, each with a counter of about 150 bytes. What comes of more is
/// kept in quarantine under one name.
pub const MAX_PLAIN_DEVICES: usize = 65_536;
/// Most counters of plain devices under earlier epochs, kept until sinks have what they numbered. A start
/// without the lake, which begins another epoch, is refused beyond it.
pub const MAX_OLDER_PLAIN: usize = MAX_PLAIN_DEVICES;

/// When a Hello was said, by its sender's own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SaidAt {
    /// The sender's boot, 0 if it does not know.
    pub boot: u64,
    /// Milliseconds since that boot.
    pub uptime_ms: u64,
}

impl SaidAt {
    /// Whether a Hello may have been said after another one: one that comes again, or was overtaken, was not.
    #[must_use]
    pub const fn is_after(self, other: Self) -> bool {
        self.boot == 0 || self.boot != other.boot || self.uptime_ms > other.uptime_ms
    }
}

/// What is known of one stream.
#[derive(Debug, Clone, Default)]
pub struct Track {
    /// Its marks.
    pub receiver: Receiver,
    /// One more than the highest number that the sender said it had made durable.
    pub claimed: u64,
    /// The same as far as a restart will know it.
    pub(crate) noted: u64,
    /// The epoch lives in memory only.
    pub ram: bool,
    /// The boot in which the epoch was written, 0 if unknown.
    pub boot: u64,
    /// A gateway lists it for its origin: only a long absence abandons it.
    pub relayed: bool,
    /// When a Hello listed it last; tentative until the next snapshot.
    pub(crate) listed_at: UnixMicros,
    /// When its sender listed it last, by the sender's clock; not known after a start.
    pub(crate) said_at: SaidAt,
    /// Its sender no longer lists it.
    pub abandoned: bool,
    /// When it was found closed and committed.
    pub(crate) closed_at: Option<UnixMicros>,
    /// When its records were made, as far as it takes to say when missing ones were.
    pub(crate) times: Times,
}

impl Track {
    /// Whether something is missing of it, as far as anybody knows: it is not closed. One that is abandoned can be
    /// open: its end came after that, and told of more.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.receiver.is_closed()
    }

    /// Whether its sender has more than came, and a restart would not know of it.
    pub(crate) fn claims_more(&self) -> bool {
        self.is_open() && self.claimed > self.noted.max(self.receiver.next())
    }

    /// What a Hello proves to be lost: its sender holds nothing below `oldest` any more. Of a relayed stream
    /// another gateway may.
    #[must_use]
    pub fn missing_at_source(&self, oldest: u64) -> Vec<SeqRange> {
        if self.relayed {
            return Vec::new();
        }
        self.receiver.missing_below(oldest).collect()
    }

    /// Whether a record opens a hole among those that arrived.
    #[must_use]
    pub fn opens_hole(&self, seq: u64) -> bool {
        let data = self.receiver.data();
        seq > 0 && !data.contains(seq - 1) && !data.contains(seq + 1)
    }
}

/// What is known of one plain device under one epoch of the journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlainTrack {
    /// The number that its next record gets.
    pub next: u64,
    /// What every required sink has, or a gap names: nearly always one range from 0 on.
    pub(crate) committed: Ranges<{ usize::MAX }>,
    /// When its records were received, as far as it takes to say when missing ones were.
    pub(crate) times: Times,
}

impl PlainTrack {
    fn commit(&mut self, range: SeqRange) {
        // Without a bound on ranges nothing is refused.
        let _ = self.committed.insert(range);
    }

    /// Whether all that was numbered is committed.
    fn is_settled(&self) -> bool {
        self.committed.covers(SeqRange::new(0, self.next))
    }
}

/// All streams, and the counters of plain devices.
///
/// Changes since the last [`Ledger::synced`] are tentative: [`Ledger::roll_back`] undoes them.
#[derive(Debug)]
pub struct Ledger {
    tracks: BTreeMap<Stream, Track>,
    /// The epoch under which plain devices are numbered now.
    plain_epoch: Epoch,
    /// By epoch; those before the present one go once they are settled.
    plain: BTreeMap<Epoch, BTreeMap<DeviceId, PlainTrack>>,
    /// What the running group changed, as it was before.
    undo: BTreeMap<Stream, Option<Track>>,
    undo_plain: BTreeMap<(Epoch, DeviceId), Option<PlainTrack>>,
    /// What dates earlier boots. One of a group that failed stays: it was said all the same.
    time_bases: TimeBases,
    /// Which parts of sources' contents it has.
    pub(crate) portions: Portions,
}

impl Ledger {
    /// Knows no stream; plain devices are numbered under `plain_epoch`.
    #[must_use]
    pub fn new(plain_epoch: Epoch) -> Self {
        Self {
            tracks: BTreeMap::new(),
            plain_epoch,
            plain: BTreeMap::new(),
            undo: BTreeMap::new(),
            undo_plain: BTreeMap::new(),
            time_bases: TimeBases::default(),
            portions: Portions::default(),
        }
    }

    /// Knows no stream, and when boots began.
    #[must_use]
    pub fn with_time_bases(plain_epoch: Epoch, time_bases: TimeBases) -> Self {
        Self {
            time_bases,
            ..Self::new(plain_epoch)
        }
    }

    /// The epoch under which plain devices are numbered.
    #[must_use]
    pub const fn plain_epoch(&self) -> Epoch {
        self.plain_epoch
    }

    /// Numbers plain devices under another epoch from now on. Of the one before, what is not committed
    /// stays known.
    pub fn begin_plain_epoch(&mut self, epoch: Epoch) {
        let before = std::mem::replace(&mut self.plain_epoch, epoch);
        if before == epoch {
            return;
        }
        if let Some(tracks) = self.plain.get_mut(&before) {
            tracks.retain(|_, track| !track.is_settled());
            if tracks.is_empty() {
                self.plain.remove(&before);
            }
        }
    }

    /// The track of a stream.
    #[must_use]
    pub fn track(&self, stream: &Stream) -> Option<&Track> {
        self.tracks.get(stream)
    }

    /// The streams of a device, in order.
    pub fn streams_of<'a>(
        &'a self,
        device: &'a DeviceId,
    ) -> impl Iterator<Item = (&'a Stream, &'a Track)> {
        // Lane and epoch sort after the device, so its streams stand together.
        let from = Stream {
            device: device.clone(),
            lane: Lane::Alarm,
            epoch: Epoch::new(0),
        };
        self.tracks
            .range(from..)
            .take_while(move |(stream, _)| stream.device == *device)
    }

    /// All streams.
    pub fn streams(&self) -> impl Iterator<Item = (&Stream, &Track)> {
        self.tracks.iter()
    }

    /// How many streams are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tracks.len()
    }

    /// Whether no stream and no plain device is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tracks.is_empty() && self.plain.values().all(BTreeMap::is_empty)
    }

    /// Whether the stream is known, or another one can be taken.
    #[must_use]
    pub fn has_room(&self, stream: &Stream) -> bool {
        self.tracks.contains_key(stream)
            || (self.tracks.len() < MAX_STREAMS
                && self.streams_of(&stream.device).count() < MAX_STREAMS_PER_DEVICE)
    }

    /// Whether the plain device is known, or another one can be taken.
    #[must_use]
    pub fn has_room_for_plain(&self, device: &DeviceId) -> bool {
        let present = self.plain.get(&self.plain_epoch);
        present.is_none_or(|known| known.contains_key(device) || known.len() < MAX_PLAIN_DEVICES)
    }

    /// Whether another epoch of plain devices can begin: what is not settled stays known.
    #[must_use]
    pub fn has_room_for_plain_epoch(&self) -> bool {
        let tracks = self.plain.values().flat_map(BTreeMap::values);
        tracks.filter(|track| !track.is_settled()).count() <= MAX_OLDER_PLAIN
    }

    /// The number that the next record of a plain device gets.
    #[must_use]
    pub fn next_plain(&self, device: &DeviceId) -> u64 {
        let present = self.plain.get(&self.plain_epoch);
        let known = present.and_then(|present| present.get(device));
        known.map_or(0, |known| known.next)
    }

    /// The counters of plain devices as they are durable: the number after the last one, and the
    /// track.
    pub fn plain_durable(&self) -> impl Iterator<Item = (Stream, u64, &PlainTrack)> {
        self.plain().map(|(stream, track)| {
            let key = (stream.epoch, stream.device.clone());
            let durable = match self.undo_plain.get(&key) {
                Some(before) => before.as_ref().map_or(0, |before| before.next),
                None => track.next,
            };
            (stream, durable, track)
        })
    }

    /// The counters of plain devices, under the present epoch and those before.
    pub fn plain(&self) -> impl Iterator<Item = (Stream, &PlainTrack)> {
        let stream = |(epoch, device, track)| (plain_stream(device, epoch), track);
        self.plain_tracks().map(stream)
    }

    /// The same by epoch and device.
    pub(crate) fn plain_tracks(&self) -> impl Iterator<Item = (Epoch, &DeviceId, &PlainTrack)> {
        self.plain.iter().flat_map(|(epoch, tracks)| {
            let of_epoch = |(device, track)| (*epoch, device, track);
            tracks.iter().map(of_epoch)
        })
    }

    /// The counter of one plain device under one epoch.
    #[must_use]
    pub fn plain_track(&self, epoch: Epoch, device: &DeviceId) -> Option<&PlainTrack> {
        self.plain.get(&epoch)?.get(device)
    }

    /// Notes what a Hello says of a known stream; nothing that must survive a restart.
    /// A stream that a gateway ever listed stays relayed: the gateway may hold what its origin does not.
    ///
    /// - `said_at`, `at`: when it was said by the sender's clock, and received.
    pub fn claim(
        &mut self,
        stream: &Stream,
        next: u64,
        relayed: bool,
        (said_at, at): (SaidAt, UnixMicros),
    ) {
        if let Some(track) = self.tracks.get_mut(stream) {
            track.relayed |= relayed;
            track.claimed = track.claimed.max(next);
            track.listed_at = track.listed_at.max(at);
            if said_at.is_after(track.said_at) {
                track.said_at = said_at;
            }
        }
    }

    /// What dates the boots of devices that count from them.
    #[must_use]
    pub const fn time_bases(&self) -> &TimeBases {
        &self.time_bases
    }

    /// A time base as a snapshot holds it.
    pub(crate) fn restore_time_base(&mut self, device: &DeviceId, boot: u64, base: KnownBase) {
        self.time_bases.insert(device, boot, base);
    }

    /// Judges a numbered frame before it is appended.
    #[must_use]
    pub fn judge(&self, stream: &Stream, seq: u64, frame: &Frame<'_>) -> Judgement {
        let refuse = Judgement::Refuse(RejectReason::TooManyHoles);
        if let Some((other, range)) = covered_by(frame) {
            let track = self.tracks.get(&other);
            if track.is_some_and(|t| t.receiver.clone().cover(range, Namer::Sender).is_err()) {
                return refuse;
            }
        }
        let Some(track) = self.tracks.get(stream) else {
            return Judgement::Store;
        };
        let receiver = &track.receiver;
        // A set grows by at most one range at a time, so only near the bound is a copy tried.
        if receiver.data().len() + 1 < MAX_RANGES {
            receiver.judge(seq, frame.crc)
        } else {
            receiver.clone().offer(seq, frame.crc)
        }
    }

    /// Takes in one journal record, after it was appended.
    ///
    /// - `undated`: its time of receipt may be no Unix time.
    pub fn apply(&mut self, record: &Record<'_>, undated: bool) {
        match record {
            Record::Batch(head, frame) if head.verdict == Verdict::Store => {
                let Ok((frame, _)) = frame::decode(frame) else {
                    return;
                };
                let track = self.touch(&head.stream);
                track.receiver.offer(head.seq, frame.crc);
                track.note_times(head.seq, &frame, head.clock);
                if let Some((stream, range)) = covered_by(&frame) {
                    self.cover(&stream, range, Namer::Sender);
                }
                if frame.kind == Kind::TimeBase
                    && let Ok(base) = message::decode::<TimeBase>(frame.payload)
                {
                    let known = KnownBase::of(&base);
                    self.time_bases.insert(&base.origin, base.boot, known);
                }
                if frame.kind == Kind::EpochEnd
                    && let Ok(end) = message::decode::<EpochEnd>(frame.payload)
                {
                    let (device, lane, epoch) = (end.origin.clone(), end.lane, end.epoch);
                    self.touch(&Stream {
                        device,
                        lane,
                        epoch,
                    })
                    .receiver
                    .end(End::of(&end));
                }
            }
            Record::Raw(head, _) => {
                let track = self.touch_plain(head.epoch, &head.device);
                track.next = track.next.max(head.seq + 1);
                // What it stands beside is known less closely then.
                if !undated {
                    track.note_receipt(head.seq, head.at);
                }
            }
            Record::Mark(head) => {
                let since = Around(self).lane_before(&head.stream);
                let track = self.touch(&head.stream);
                match head.change {
                    Change::Opened {
                        ram,
                        boot,
                        relayed,
                        oldest: _,
                        base: _,
                    } => {
                        track.ram = ram;
                        track.boot = boot;
                        track.relayed = relayed;
                        track.listed_at = head.at;
                        // Of a node another gateway may hold what is older.
                        track.times.begin(since.filter(|_| !relayed));
                    }
                    Change::Abandoned { next } => {
                        track.abandoned = true;
                        track.receiver.end(End {
                            first: 0,
                            next,
                            clean: false,
                        });
                    }
                    // Whoever appended it has tried it before.
                    Change::Lost { range } => lose(self, &head.stream, range),
                    Change::Claimed { next } => {
                        track.claimed = track.claimed.max(next);
                        track.noted = track.noted.max(next);
                    }
                }
            }
            Record::Gap(head) => match head.range {
                Some(range) if head.stream.lane == Lane::Plain => {
                    let stream = &head.stream;
                    self.touch_plain(stream.epoch, &stream.device).commit(range);
                }
                Some(range) => name(self, head, range),
                None => {}
            },
            Record::Batch(..)
            | Record::Plan(..)
            | Record::Cursor(_)
            | Record::Registry(_)
            | Record::Session(_)
            | Record::Schema(..)
            | Record::Park(..)
            | Record::Begin(_)
            | Record::Rules(_)
            | Record::DecoderState(_)
            | Record::Lacks(_)
            | Record::Clock(_) => {}
            Record::Portion(head) => self.portions.take(head),
        }
    }

    fn touch_plain(&mut self, epoch: Epoch, device: &DeviceId) -> &mut PlainTrack {
        let key = (epoch, device.clone());
        if !self.undo_plain.contains_key(&key) {
            let before = self.plain_track(epoch, device).cloned();
            self.undo_plain.insert(key, before);
        }
        let tracks = self.plain.entry(epoch).or_default();
        tracks.entry(device.clone()).or_default()
    }

    fn cover(&mut self, stream: &Stream, range: SeqRange, namer: Namer) {
        // Room for a sender's gap was made sure of before it was appended. Where the receiver's
        // own does not fit it is named again at the next Hello.
        let _ = self.touch(stream).receiver.cover(range, namer);
    }

    fn touch(&mut self, stream: &Stream) -> &mut Track {
        if !self.undo.contains_key(stream) {
            self.undo
                .insert(stream.clone(), self.tracks.get(stream).cloned());
        }
        self.tracks.entry(stream.clone()).or_default()
    }

    /// The running group is durable; returns the streams that it changed.
    pub fn synced(&mut self) -> Vec<Stream> {
        self.portions.synced();
        let changed: Vec<Stream> = std::mem::take(&mut self.undo).into_keys().collect();
        for stream in &changed {
            if let Some(track) = self.tracks.get_mut(stream) {
                track.receiver.synced();
            }
        }
        for (epoch, device) in std::mem::take(&mut self.undo_plain).into_keys() {
            self.let_go_of_settled(epoch, &device);
        }
        changed
    }

    /// The running group failed: nothing of it happened.
    pub fn roll_back(&mut self) {
        self.portions.roll_back();
        for (stream, before) in std::mem::take(&mut self.undo) {
            match before {
                Some(track) => self.tracks.insert(stream, track),
                None => self.tracks.remove(&stream),
            };
        }
        for ((epoch, device), before) in std::mem::take(&mut self.undo_plain) {
            let tracks = self.plain.entry(epoch).or_default();
            match before {
                Some(track) => tracks.insert(device, track),
                None => tracks.remove(&device),
            };
        }
    }

    /// Every required sink has `range`.
    pub fn commit(&mut self, stream: &Stream, range: SeqRange) {
        // A roll-back does not take back what a sink did.
        if stream.lane == Lane::Plain {
            self.commit_plain(stream, range);
            return;
        }
        let before = self.undo.get_mut(stream).and_then(Option::as_mut);
        for track in self.tracks.get_mut(stream).into_iter().chain(before) {
            track.receiver.commit(range);
        }
    }

    /// The parts of `range` that are not committed; none of a stream that is not known, since only one
    /// whose numbers are all committed is let go of.
    #[must_use]
    pub fn uncommitted(&self, stream: &Stream, range: SeqRange) -> Vec<SeqRange> {
        if stream.lane == Lane::Plain {
            let track = self.plain_track(stream.epoch, &stream.device);
            return track.map_or_else(Vec::new, |track| track.committed.holes(range).collect());
        }
        let track = self.tracks.get(stream);
        track.map_or_else(Vec::new, |track| {
            track.receiver.committed().holes(range).collect()
        })
    }

    /// The parts of `range` that arrived and are not committed.
    #[must_use]
    pub fn taken_and_open(&self, stream: &Stream, range: SeqRange) -> Vec<SeqRange> {
        let open = self.uncommitted(stream, range).into_iter();
        if stream.lane == Lane::Plain {
            let track = self.plain_track(stream.epoch, &stream.device);
            let next = track.map_or(0, |track| track.next);
            let below = |range: SeqRange| SeqRange::new(range.first, range.next.min(next));
            return open.map(below).filter(|range| !range.is_empty()).collect();
        }
        let Some(track) = self.tracks.get(stream) else {
            return Vec::new();
        };
        let data = track.receiver.data();
        let mut taken = Vec::new();
        for range in open {
            let mut from = range.first;
            while let Some(part) = data.next_in(from).filter(|part| part.first < range.next) {
                taken.push(SeqRange::new(part.first, part.next.min(range.next)));
                from = part.next;
            }
        }
        taken
    }

    fn commit_plain(&mut self, stream: &Stream, range: SeqRange) {
        let Stream { device, epoch, .. } = stream;
        let key = (*epoch, device.clone());
        let before = self.undo_plain.get_mut(&key);
        let is_tentative = before.is_some();
        if let Some(before) = before.and_then(Option::as_mut) {
            before.commit(range);
        }
        let Some(tracks) = self.plain.get_mut(epoch) else {
            return;
        };
        let Some(track) = tracks.get_mut(device) else {
            return;
        };
        track.commit(range);
        if !is_tentative {
            self.let_go_of_settled(*epoch, device);
        }
    }

    /// Lets go of a counter under an earlier epoch once sinks have all that it numbered.
    fn let_go_of_settled(&mut self, epoch: Epoch, device: &DeviceId) {
        let Some(tracks) = self.plain.get_mut(&epoch) else {
            return;
        };
        if epoch != self.plain_epoch && tracks.get(device).is_some_and(PlainTrack::is_settled) {
            tracks.remove(device);
            if tracks.is_empty() {
                self.plain.remove(&epoch);
            }
        }
    }

    /// A stream that an existing lake holds; numbers in `partial` are there in part.
    pub fn seed(&mut self, stream: Stream, held: &[SeqRange], partial: &[u64], end: Option<End>) {
        let is_known = self.tracks.contains_key(&stream);
        let track = self.tracks.entry(stream).or_default();
        // A lake does not tell whether an epoch lived in memory only. One that did may have held more
        // than anybody knows, so that is said if it is ever abandoned.
        track.ram |= !is_known && end.is_none();
        let receiver = &mut track.receiver;
        for seq in partial {
            let one = SeqRange::new(*seq, seq + 1);
            if receiver.seed_partial(one).is_err() {
                // More than can be kept apart: nobody names what is missing of this one.
                let _ = receiver.seed(one);
            }
        }
        for range in held {
            let mut from = range.first;
            for cut in partial.iter().filter(|seq| range.contains(**seq)) {
                // From the lowest on, so that what does not fit is what a sender offers last.
                if receiver.seed(SeqRange::new(from, *cut)).is_err() {
                    break;
                }
                from = cut + 1;
            }
            if receiver.seed(SeqRange::new(from, range.next)).is_err() {
                break;
            }
        }
        if let Some(end) = end {
            receiver.end(end);
            receiver.synced();
        }
    }

    /// What a lake proves of a plain device under an epoch of this journal.
    pub fn seed_plain(&mut self, stream: &Stream, held: &[SeqRange], next: u64) {
        let tracks = self.plain.entry(stream.epoch).or_default();
        let track = tracks.entry(stream.device.clone()).or_default();
        track.next = track.next.max(next);
        held.iter().for_each(|range| track.commit(*range));
        self.let_go_of_settled(stream.epoch, &stream.device);
    }

    /// What a sender claimed before is not known: where the end of an epoch is not either, there may
    /// have been more than anybody knows.
    pub fn doubt_ends(&mut self) {
        for track in self.tracks.values_mut() {
            track.ram |= track.receiver.ended().is_none();
        }
    }

    /// Visits the streams that were closed and committed for `after_ms` by `wall`, and all that are closed and
    /// committed of a device, or of the whole, that takes more than half of its room: to be let go of with
    /// [`Ledger::forget`] once they are kept elsewhere.
    pub fn expired(
        &mut self,
        wall: UnixMicros,
        after_ms: u64,
        mut visit: impl FnMut(&Stream, &Track),
    ) {
        let after_us = i64::try_from(after_ms.saturating_mul(1_000)).unwrap_or(i64::MAX);
        let is_crowded = self.tracks.len() > MAX_STREAMS / 2;
        let crowded = self.crowded_devices();
        for (stream, track) in &mut self.tracks {
            if !track.receiver.is_done() {
                track.closed_at = None;
                continue;
            }
            let closed_at = *track.closed_at.get_or_insert(wall);
            track.times.close();
            let is_due = wall.0.saturating_sub(closed_at.0) >= after_us;
            if is_due || is_crowded || crowded.contains(&stream.device) {
                visit(stream, track);
            }
        }
    }

    /// Devices with more than half of the streams that one may have.
    fn crowded_devices(&self) -> BTreeSet<DeviceId> {
        let mut crowded = BTreeSet::new();
        let mut of_device = (None, 0);
        for Stream { device, .. } in self.tracks.keys() {
            if of_device.0 != Some(device) {
                of_device = (Some(device), 0);
            }
            of_device.1 += 1;
            if of_device.1 == MAX_STREAMS_PER_DEVICE / 2 + 1 {
                crowded.insert(device.clone());
            }
        }
        crowded
    }

    /// Lets go of a stream.
    pub fn forget(&mut self, stream: &Stream) {
        self.tracks.remove(stream);
        self.undo.remove(stream);
    }

    /// A stream as a snapshot holds it.
    pub(crate) fn restore(&mut self, stream: Stream, track: Track) {
        self.tracks.insert(stream, track);
    }

    /// A plain device as a snapshot holds it.
    pub(crate) fn restore_plain(&mut self, epoch: Epoch, device: DeviceId, track: PlainTrack) {
        self.plain.entry(epoch).or_default().insert(device, track);
    }
}

/// The collector names what is missing. What it has lost itself may have been told as held.
fn name(ledger: &mut Ledger, head: &GapHead, range: SeqRange) {
    ledger.cover(&head.stream, range, Namer::Receiver);
    if matches!(head.reason, GapReason::Damaged | GapReason::DiskError) {
        ledger.portions.doubt(&head.stream);
    }
}

/// The journal has these no more, and nobody else is known to have them.
fn lose(ledger: &mut Ledger, stream: &Stream, range: SeqRange) {
    let _ = ledger.touch(stream).receiver.forget(range);
    ledger.portions.doubt(stream);
}

/// Times of receipt from `from_us` on were by a clock that was in doubt, and are later by `later_us`: nothing that
/// came meanwhile is older than that.
pub(crate) fn shift_receipts(ledger: &mut Ledger, from_us: i64, later_us: i64) {
    let shift = |at: &mut UnixMicros| {
        if at.0 >= from_us {
            at.0 = at.0.saturating_add(later_us);
        }
    };
    for track in ledger.tracks.values_mut() {
        shift(&mut track.listed_at);
        if let Some(at) = &mut track.closed_at {
            shift(at);
        }
    }
}

/// The stream of a plain device.
#[must_use]
pub fn plain_stream(device: &DeviceId, epoch: Epoch) -> Stream {
    Stream {
        device: device.clone(),
        lane: Lane::Plain,
        epoch,
    }
}
