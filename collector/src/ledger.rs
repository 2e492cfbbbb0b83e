//! Core: what the collector holds of every stream: received, committed, ended.
//!
//! The ledger changes only by journal records ([`Ledger::apply`]) and by commits
//! ([`Ledger::commit`]), so that reading the journal again after a restart gives the same ledger.

use std::collections::BTreeMap;

use headwater_proto::delivery::receiver::{MAX_RANGES, Namer};
use headwater_proto::delivery::{End, Receiver, Verdict as Judgement};
use headwater_proto::frame::{self, Frame, Kind};
use headwater_proto::ids::{DeviceId, Epoch, Lane, SeqRange, Stream};
use headwater_proto::message::{self, EpochEnd, Gap, MAX_SEQ, RejectReason};
use headwater_proto::time::UnixMicros;

use crate::pipeline::envelope::{Change, Record, Verdict};

/// Most streams; about 300 bytes each. Closed and committed ones leave first.
pub const MAX_STREAMS: usize = 65_536;
/// Most streams of one device: years of epochs that end well, for those leave.
pub const MAX_STREAMS_PER_DEVICE: usize = 4_096;
/// Most plain devices, each with a counter of about 100 bytes.
pub const MAX_PLAIN_DEVICES: usize = 65_536;
/// How long a closed and committed stream stays, so that late repeats are recognised cheaply.
const KEEP_CLOSED_US: i64 = 7 * 24 * 3_600 * 1_000_000;

/// What is known of one stream.
#[derive(Debug, Clone, Default)]
pub struct Track {
    /// Its marks.
    pub receiver: Receiver,
    /// One more than the highest number that the sender said it had made durable.
    pub claimed: u64,
    /// The epoch lives in memory only.
    pub ram: bool,
    /// The sender's boot, 0 if unknown.
    pub boot: u64,
    /// Its sender no longer lists it.
    pub abandoned: bool,
    /// When it was found closed and committed.
    pub(crate) closed_at: Option<UnixMicros>,
}

/// All streams, and the counters of plain devices.
///
/// Changes since the last [`Ledger::synced`] are tentative: [`Ledger::roll_back`] undoes them.
#[derive(Debug, Default)]
pub struct Ledger {
    tracks: BTreeMap<Stream, Track>,
    plain: BTreeMap<DeviceId, u64>,
    /// What the running group changed, as it was before.
    undo: BTreeMap<Stream, Option<Track>>,
    undo_plain: BTreeMap<DeviceId, Option<u64>>,
}

impl Ledger {
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
        self.tracks.is_empty() && self.plain.is_empty()
    }

    /// Whether the stream is known, or another one can be taken.
    #[must_use]
    pub fn has_room(&self, stream: &Stream) -> bool {
        self.tracks.contains_key(stream)
            || (self.tracks.len() < MAX_STREAMS
                && self.streams_of(&stream.device).count() < MAX_STREAMS_PER_DEVICE)
    }

    /// The number that the next record of a plain device gets; `None` when there are too many
    /// devices.
    #[must_use]
    pub fn next_plain(&self, device: &DeviceId) -> Option<u64> {
        match self.plain.get(device) {
            Some(next) => Some(*next),
            None => (self.plain.len() < MAX_PLAIN_DEVICES).then_some(0),
        }
    }

    /// The counters of plain devices.
    pub fn plain(&self) -> impl Iterator<Item = (&DeviceId, u64)> {
        self.plain.iter().map(|(device, next)| (device, *next))
    }

    /// Notes what a Hello says of a known stream; nothing that must survive a restart.
    pub fn claim(&mut self, stream: &Stream, next: u64) {
        if let Some(track) = self.tracks.get_mut(stream) {
            track.claimed = track.claimed.max(next);
        }
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
    pub fn apply(&mut self, record: &Record<'_>) {
        match record {
            Record::Batch(head, frame) if head.verdict == Verdict::Store => {
                let Ok((frame, _)) = frame::decode(frame) else {
                    return;
                };
                self.touch(&head.stream).receiver.offer(head.seq, frame.crc);
                if let Some((stream, range)) = covered_by(&frame) {
                    self.cover(&stream, range, Namer::Sender);
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
                let known = self.plain.get(&head.device).copied();
                self.undo_plain.entry(head.device.clone()).or_insert(known);
                let next = self.plain.entry(head.device.clone()).or_default();
                *next = (*next).max(head.seq + 1);
            }
            Record::Mark(head) => {
                let track = self.touch(&head.stream);
                match head.change {
                    Change::Opened {
                        ram,
                        boot,
                        oldest: _,
                    } => {
                        track.ram = ram;
                        track.boot = boot;
                    }
                    Change::Abandoned { next } => {
                        track.abandoned = true;
                        track.receiver.end(End {
                            first: 0,
                            next,
                            clean: false,
                        });
                    }
                }
            }
            Record::Gap(head) => {
                if let Some(range) = head.range {
                    self.cover(&head.stream, range, Namer::Receiver);
                }
            }
            Record::Batch(..)
            | Record::Plan(..)
            | Record::Cursor(_)
            | Record::Registry(_)
            | Record::Session(_)
            | Record::Schema(..)
            | Record::Park(..) => {}
        }
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
        let changed: Vec<Stream> = std::mem::take(&mut self.undo).into_keys().collect();
        for stream in &changed {
            if let Some(track) = self.tracks.get_mut(stream) {
                track.receiver.synced();
            }
        }
        self.undo_plain.clear();
        changed
    }

    /// The running group failed: nothing of it happened.
    pub fn roll_back(&mut self) {
        for (stream, before) in std::mem::take(&mut self.undo) {
            match before {
                Some(track) => self.tracks.insert(stream, track),
                None => self.tracks.remove(&stream),
            };
        }
        for (device, before) in std::mem::take(&mut self.undo_plain) {
            match before {
                Some(next) => self.plain.insert(device, next),
                None => self.plain.remove(&device),
            };
        }
    }

    /// Every required sink has `range`.
    pub fn commit(&mut self, stream: &Stream, range: SeqRange) {
        for track in self.tracks.get_mut(stream).into_iter().chain(
            // A roll-back does not take back what a sink did.
            self.undo.get_mut(stream).and_then(Option::as_mut),
        ) {
            track.receiver.commit(range);
        }
    }

    /// Custody ends at the journal: all that is durable counts as committed.
    pub fn commit_all(&mut self, stream: &Stream) {
        if let Some(track) = self.tracks.get_mut(stream) {
            track.receiver.commit_all();
        }
    }

    /// The same for every stream, as the journal was found at the start.
    pub fn commit_everything(&mut self) {
        for track in self.tracks.values_mut() {
            track.receiver.commit_all();
        }
    }

    /// A stream that an existing lake holds, for a journal new beside it.
    pub fn seed(&mut self, stream: Stream, held: &[SeqRange], end: Option<End>) {
        let track = self.tracks.entry(stream).or_default();
        // A lake does not tell whether an epoch lived in memory only. One that did may have held more
        // than anybody knows, so that is said if it is ever abandoned.
        track.ram = end.is_none();
        for range in held {
            // From the lowest on, so that what does not fit is what a sender offers last.
            if track.receiver.seed(*range).is_err() {
                break;
            }
        }
        if let Some(end) = end {
            track.receiver.end(end);
            track.receiver.synced();
        }
    }

    /// A plain device's counter that an existing lake proves.
    pub fn seed_plain(&mut self, device: DeviceId, next: u64) {
        let known = self.plain.entry(device).or_default();
        *known = (*known).max(next);
    }

    /// Lets go of streams that were closed and committed for 7 days; returns them.
    pub fn expire(&mut self, wall: UnixMicros) -> Vec<Stream> {
        let mut gone = Vec::new();
        self.tracks.retain(|stream, track| {
            if !track.receiver.is_done() {
                track.closed_at = None;
                return true;
            }
            let closed_at = *track.closed_at.get_or_insert(wall);
            let keep = wall.0.saturating_sub(closed_at.0) < KEEP_CLOSED_US;
            if !keep {
                gone.push(stream.clone());
            }
            keep
        });
        gone
    }

    /// A stream as a snapshot holds it.
    pub(crate) fn restore(&mut self, stream: Stream, track: Track) {
        self.tracks.insert(stream, track);
    }
}

/// The stream that a Gap or EpochEnd speaks of.
#[must_use]
pub fn named_by(frame: &Frame<'_>) -> Option<Stream> {
    let (device, lane, epoch) = if frame.kind == Kind::Gap {
        let gap = message::decode::<Gap>(frame.payload).ok()?;
        (gap.origin, gap.lane, gap.epoch)
    } else if frame.kind == Kind::EpochEnd {
        let end = message::decode::<EpochEnd>(frame.payload).ok()?;
        (end.origin, end.lane, end.epoch)
    } else {
        return None;
    };
    Some(Stream {
        device,
        lane,
        epoch,
    })
}

/// The stream and range that a Gap frame covers like data.
#[must_use]
pub fn covered_by(frame: &Frame<'_>) -> Option<(Stream, SeqRange)> {
    if frame.kind != Kind::Gap {
        return None;
    }
    let gap = message::decode::<Gap>(frame.payload).ok()?;
    let range = gap.seqs.filter(|range| range.next <= MAX_SEQ)?;
    Some((
        Stream {
            device: gap.origin,
            lane: gap.lane,
            epoch: gap.epoch,
        },
        range,
    ))
}

/// Visits the ranges that become committed when `record` is in the lake.
pub fn committed_by(record: &Record<'_>, visit: &mut dyn FnMut(&Stream, SeqRange)) {
    match record {
        Record::Batch(head, frame) if head.verdict == Verdict::Store => {
            visit(&head.stream, SeqRange::new(head.seq, head.seq + 1));
            if let Some((stream, range)) = frame::decode(frame)
                .ok()
                .and_then(|(frame, _)| covered_by(&frame))
            {
                visit(&stream, range);
            }
        }
        Record::Gap(head) => {
            if let Some(range) = head.range {
                visit(&head.stream, range);
            }
        }
        Record::Batch(..)
        | Record::Raw(..)
        | Record::Plan(..)
        | Record::Cursor(_)
        | Record::Mark(_)
        | Record::Registry(_)
        | Record::Session(_)
        | Record::Schema(..)
        | Record::Park(..) => {}
    }
}
