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
    /// How many samples, where known.
    pub(crate) samples: Option<u64>,
    /// Wall time of the earliest and of the latest sample; neither if some sample has none.
    pub(crate) t_first: Option<i64>,
    pub(crate) t_last: Option<i64>,
    is_undated: bool,
    /// Records that were read.
    read: u64,
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
            samples: Some(0),
            t_first: None,
            t_last: None,
            is_undated: false,
            read: 0,
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
        self.read += 1;
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
            self.samples = self.samples.map(|known| known + samples);
            self.is_undated |= envelope.life.base != Base::Wall;
            if self.is_undated {
                (self.t_first, self.t_last) = (None, None);
            } else {
                self.t_first = Some(self.t_first.map_or(first, |t| t.min(first)));
                self.t_last = Some(self.t_last.map_or(last, |t| t.max(last)));
            }
        }
    }

    /// Of so many records some could not be read: nobody knows how many samples these had, and when they were made.
    pub(super) fn compare(&mut self, records: u64) {
        if self.read < records {
            self.samples = None;
            (self.t_first, self.t_last) = (None, None);
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
