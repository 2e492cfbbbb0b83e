//! Core: of which stream a gap or the end of an epoch speaks.

use headwater_proto::frame::{Frame, Kind};
use headwater_proto::ids::{SeqRange, Stream};
use headwater_proto::message::{self, EpochEnd, Gap, MAX_SEQ};

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
