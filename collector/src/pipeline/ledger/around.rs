//! Core: when records were made that are missing of a stream, by the times that its track keeps.

use std::collections::BTreeMap;

use headwater_proto::frame::Frame;
use headwater_proto::ids::{Lane, Stream};
use headwater_proto::time::UnixMicros;

use super::{Ledger, PlainTrack, Track};
use crate::pipeline::envelope::{Clock, Known, Span};
use crate::pipeline::spans::{self, Times, Which};

/// Asks a ledger.
#[derive(Debug, Clone, Copy)]
pub struct Around<'a>(pub &'a Ledger);

impl Around<'_> {
    /// When rows were made that are missing of a stream, as its neighbours show.
    ///
    /// - `at`: when they are named.
    #[must_use]
    pub fn span(self, stream: &Stream, which: Which, at: UnixMicros) -> Span {
        if stream.lane == Lane::Plain {
            let track = self.0.plain_track(stream.epoch, &stream.device);
            let times = track.map(|track| track.times.span(which, at));
            return Span {
                // Its times are those of receipt.
                known: Known::Bounds,
                ..times.unwrap_or_else(|| Times::default().span(which, at))
            };
        }
        match self.0.track(stream) {
            Some(track) => track.times.span(which, at),
            None => Times::default().span(which, at),
        }
    }

    /// The time that the lane of a device had reached, as far as is known, when its next epoch is opened.
    pub(super) fn lane_before(self, stream: &Stream) -> Option<UnixMicros> {
        let same_lane = |(other, track): &(&Stream, &Track)| {
            other.lane == stream.lane && *other != stream && !track.relayed
        };
        let others = self.0.streams_of(&stream.device).filter(same_lane);
        others.filter_map(|(_, track)| track.times.end()).max()
    }
}

impl Track {
    /// Takes in when the rows of a record were made that was stored.
    pub(super) fn note_times(&mut self, seq: u64, frame: &Frame<'_>, clock: Clock) {
        if let Some(times) = spans::dated_times_of(frame, clock) {
            let data = self.receiver.data();
            self.times.note(seq, times, |seq| data.contains(seq));
        }
    }
}

impl PlainTrack {
    /// Takes in when a record was received.
    pub(super) fn note_receipt(&mut self, seq: u64, at: UnixMicros) {
        let next = self.next;
        self.times.note(seq, (at.0, at.0), |seq| seq < next);
    }
}

/// The times of each stream, then of each plain device, in the order of [`Ledger::streams`] and
/// [`Ledger::plain_tracks`].
pub(crate) fn all_times(ledger: &mut Ledger) -> impl Iterator<Item = &mut Times> {
    let of_streams = ledger.tracks.values_mut().map(|track| &mut track.times);
    let plain = ledger.plain.values_mut().flat_map(BTreeMap::values_mut);
    of_streams.chain(plain.map(|track| &mut track.times))
}
