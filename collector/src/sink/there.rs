//! Core: records of this journal that another one brought to the lake while this one was away.

use std::collections::BTreeMap;

use headwater_lake::audit::StreamMark;
use headwater_proto::delivery::Ranges;
use headwater_proto::ids::{DeviceId, Epoch, Lane, SeqRange, Stream};

/// What the lake holds of each stream, for the records before a position. Its memory goes once that
/// is passed.
#[derive(Debug, Default)]
pub(super) struct There {
    streams: BTreeMap<Stream, Ranges<{ usize::MAX }>>,
    until: u64,
}

impl There {
    /// - `until`: the position after the last record that was appended before the start.
    pub(super) fn new(marks: &[StreamMark], until: u64) -> Self {
        let mut streams = BTreeMap::new();
        for mark in marks {
            let Some(stream) = stream_of(mark) else {
                continue;
            };
            let mut held = Ranges::new();
            for range in &mark.there {
                // Without a bound on ranges nothing is refused.
                let _ = held.insert(*range);
            }
            streams.insert(stream, held);
        }
        Self { streams, until }
    }

    /// Whether the lake has the number of a stream, told by the record at `position`.
    pub(super) fn has(&mut self, position: u64, stream: &Stream, seq: u64) -> bool {
        if position >= self.until {
            self.streams.clear();
        }
        let held = self.streams.get(stream);
        held.is_some_and(|held| held.covers(SeqRange::new(seq, seq + 1)))
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
