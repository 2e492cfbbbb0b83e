//! Core: records of this journal that another one brought to the lake while this one was away.

use std::collections::BTreeMap;

use headwater_lake::audit::StreamMark;
use headwater_proto::delivery::Ranges;
use headwater_proto::ids::{DeviceId, Epoch, Lane, SeqRange, Stream};

use crate::interpret::{Gap, Interpreted};

/// What the lake holds of each stream, for the records before a position. Its memory goes once that
/// is passed.
#[derive(Debug, Default)]
pub(super) struct There {
    streams: BTreeMap<Stream, Ranges<{ usize::MAX }>>,
    until: u64,
}

impl There {
    /// - `until`: the position after the last record that was appended before the lake was there.
    /// - `parts`: whether numbers that are there in part count as there, since they are named.
    pub(super) fn new(marks: &[StreamMark], until: u64, parts: bool) -> Self {
        let mut streams = BTreeMap::new();
        for mark in marks {
            let Some(stream) = stream_of(mark) else {
                continue;
            };
            let mut held = Ranges::new();
            let partial = mark.partial.iter().filter(|_| parts);
            let partial = partial.map(|seq| SeqRange::new(*seq, seq + 1));
            for range in mark.there.iter().copied().chain(partial) {
                // Without a bound on ranges nothing is refused.
                let _ = held.insert(range);
            }
            streams.insert(stream, held);
        }
        Self { streams, until }
    }

    /// Whether the lake has the rows of the record, or all that it names as missing.
    pub(super) fn has(&mut self, item: &Interpreted<'_>) -> bool {
        if item.position >= self.until {
            self.streams.clear();
        }
        if self.streams.is_empty() {
            return false;
        }
        let Some(origin) = item.origin else {
            let named = |gap: &Gap| {
                let is_of_custody = !gap.carried && gap.part.is_none();
                is_of_custody
                    && gap
                        .range
                        .is_some_and(|range| self.covers(&gap.stream, range))
            };
            return !item.gaps.is_empty() && item.gaps.iter().all(named);
        };
        let one = SeqRange::new(origin.seq, origin.seq + 1);
        !item.covers.is_empty() && self.covers(&origin.stream(), one)
    }

    fn covers(&self, stream: &Stream, range: SeqRange) -> bool {
        let held = self.streams.get(stream);
        held.is_some_and(|held| held.covers(range))
    }
}

/// The stream of a mark, unless no collector wrote it.
pub(super) fn stream_of(mark: &StreamMark) -> Option<Stream> {
    Some(Stream {
        device: DeviceId::new(&mark.device_id).ok()?,
        lane: Lane::from_name(&mark.lane)?,
        epoch: Epoch::new(mark.epoch),
    })
}
