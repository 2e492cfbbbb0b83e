//! Core: of which streams a record, a gap or the end of an epoch speaks, and what is committed with it.

use headwater_proto::frame::{self, Frame, Kind};
use headwater_proto::ids::{Lane, SeqRange, Stream};
use headwater_proto::message::{self, EpochEnd, Gap, MAX_SEQ};

use super::plain_stream;
use crate::pipeline::envelope::{Record, Verdict};

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
        Record::Raw(head, _) => {
            let stream = plain_stream(&head.device, head.epoch);
            visit(&stream, SeqRange::new(head.seq, head.seq + 1));
        }
        Record::Batch(..)
        | Record::Plan(..)
        | Record::Cursor(_)
        | Record::Mark(_)
        | Record::Registry(_)
        | Record::Session(_)
        | Record::Schema(..)
        | Record::Park(..)
        | Record::Begin(_)
        | Record::Rules(_)
        | Record::DecoderState(_)
        | Record::Lacks(_)
        | Record::Clock(_)
        | Record::Portion(_) => {}
    }
}

/// The streams that `record` speaks of.
#[must_use]
pub fn streams_in(record: &Record<'_>) -> Vec<Stream> {
    match record {
        Record::Batch(head, bytes) => {
            let named = frame::decode(bytes)
                .ok()
                .and_then(|(frame, _)| named_by(&frame));
            std::iter::once(head.stream.clone()).chain(named).collect()
        }
        Record::Mark(head) => vec![head.stream.clone()],
        Record::Gap(head) if head.stream.lane != Lane::Plain => vec![head.stream.clone()],
        Record::Gap(_)
        | Record::Raw(..)
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
        | Record::Clock(_)
        | Record::Portion(_) => Vec::new(),
    }
}
