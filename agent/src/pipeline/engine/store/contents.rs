//! Core: what is lost with a segment that gives way, and what it said that must be said again.

use headwater_proto::codec::BatchHeader;
use headwater_proto::frame::{self, Kind};
use headwater_proto::ids::{Epoch, SeqRange};
use headwater_proto::message::{self, EpochEnd, Gap, TimeBase};
use headwater_proto::refused::Refused;
use headwater_proto::text::TextHeader;
use headwater_proto::time::Base;

use crate::pipeline::record;

/// What a segment of an epoch held that was not committed.
#[derive(Debug)]
pub(crate) struct Contents {
    /// Its lane, by number.
    pub(super) lane: usize,
    pub(super) epoch: Epoch,
    /// From the first to the last record that is not committed.
    pub(crate) lost: Option<SeqRange>,
    pub(crate) samples: u64,
    pub(crate) t_first: Option<i64>,
    pub(crate) t_last: Option<i64>,
    /// The number of each gap's record, and the gap.
    pub(crate) gaps: Vec<(u64, Gap)>,
    pub(crate) ends: Vec<EpochEnd>,
    pub(crate) bases: Vec<TimeBase>,
}

impl Contents {
    pub(super) const fn new(lane: usize, epoch: Epoch, lost: Option<SeqRange>) -> Self {
        Self {
            lane,
            epoch,
            lost,
            samples: 0,
            t_first: None,
            t_last: None,
            gaps: Vec::new(),
            ends: Vec::new(),
            bases: Vec::new(),
        }
    }

    /// Takes in a record that is not committed.
    pub(super) fn take(&mut self, seq: u64, payload: &[u8]) {
        let Ok(envelope) = record::decode(payload) else {
            return;
        };
        let Ok((frame, _)) = frame::decode(envelope.frame) else {
            return;
        };
        if frame.kind == Kind::Gap {
            if let Ok(gap) = message::decode::<Gap>(frame.payload) {
                self.gaps.push((seq, gap));
            }
        } else if frame.kind == Kind::EpochEnd {
            if let Ok(end) = message::decode::<EpochEnd>(frame.payload) {
                self.ends.push(end);
            }
        } else if frame.kind == Kind::TimeBase {
            if let Ok(base) = message::decode::<TimeBase>(frame.payload) {
                self.bases.push(base);
            }
        } else if let Some((samples, first, last)) = extent(&frame) {
            self.samples += samples;
            if envelope.life.base == Base::Wall {
                self.t_first = Some(self.t_first.map_or(first, |t| t.min(first)));
                self.t_last = Some(self.t_last.map_or(last, |t| t.max(last)));
            }
        }
    }
}

/// Samples, earliest and latest time of a data frame.
pub(super) fn extent(frame: &frame::Frame<'_>) -> Option<(u64, i64, i64)> {
    if frame.kind == Kind::Batch {
        let header = BatchHeader::peek(frame.payload).ok()?;
        Some((
            u64::from(header.samples),
            header.first_time_us,
            header.last_time_us,
        ))
    } else if frame.kind == Kind::Text {
        let (header, _) = TextHeader::read(frame.payload)?;
        Some((
            u64::from(header.lines),
            header.first_time_us,
            header.last_time_us,
        ))
    } else if frame.kind == Kind::Refused {
        let parts = Refused::decode(frame.payload)?;
        let (first, last) = parts.span_us();
        Some((u64::from(parts.count), first, last))
    } else {
        None
    }
}
