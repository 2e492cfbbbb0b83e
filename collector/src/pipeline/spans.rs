//! Core: where in time records of a stream lie that nobody has, as their neighbours show.
//!
//! ```text
//! numbers     … 17  18 │ 19 … 23 │ 24 …           19..24 are missing:
//! times          ◄─────┼─────────┼─────►           from the earliest row of 18 to the latest row of 24,
//!                first │  lost   │ last            wider by the disorder of the stream on both sides
//! ```
//! A writer numbers its batches as it closes them, so rows of a batch lie after those of the batch before, but for
//! what batches of several series that were open together overlap: that is measured ([`Times::note`]), and at least
//! `MIN_DISORDER_US`. The times are those that the tables get (`super::dating`).
//!
//! Where nothing is known on one side: before the first record, what the device's lane had when the epoch was
//! opened; after the last one, the time of the naming.

use headwater_proto::codec::BatchHeader;
use headwater_proto::frame::{Frame, Kind};
use headwater_proto::ids::SeqRange;
use headwater_proto::refused::Refused;
use headwater_proto::sabotage::{self, Bug};
use headwater_proto::text::TextHeader;
use headwater_proto::time::UnixMicros;
use serde::{Deserialize, Serialize};

use super::dating::ALLOWANCE_MS;
use super::envelope::{Clock, Known, Span, TimeClass};

/// Most records of a stream whose times are kept: the first and the last, those beside holes, and a few between.
pub const MAX_MARKS: usize = 6;
/// Most bytes of one of them in a snapshot.
const MARK_BYTES: usize = 3 * 10;
/// Most bytes of what stands before them.
const HEAD_BYTES: usize = 11 + 10 + 1;
/// Least disorder that is reckoned with: what a clock may be off before it is doubted.
const MIN_DISORDER_US: i64 = ALLOWANCE_MS as i64 * 1_000;

/// The times of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    seq: u64,
    /// Of its earliest row, Unix microseconds.
    first_us: i64,
    /// From there to its latest row.
    long_us: u64,
}

impl Mark {
    const fn last_us(&self) -> i64 {
        self.first_us.saturating_add_unsigned(self.long_us)
    }
}

/// What is kept of the times of a stream's records: a few bytes, whatever arrives.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// No row is older, as far as is known.
    since: Option<UnixMicros>,
    /// Most by which a record's rows lay before those of one with a lower number.
    disorder_us: u64,
    /// By number.
    marks: Vec<Mark>,
}

/// Which records of a stream a span is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those with these numbers.
    Numbers(SeqRange),
    /// Those after all that came.
    Beyond,
    /// Rows without a number: anywhere in the epoch.
    Any,
}

impl Times {
    /// Those that [`Times::note`] may have made: what a disk gives may be anything.
    pub(crate) fn sound(self) -> Option<Self> {
        let is_sound =
            self.marks.len() <= MAX_MARKS && self.marks.is_sorted_by(|a, b| a.seq < b.seq);
        is_sound.then_some(self)
    }

    /// The part that a snapshot keeps: the last mark and those beside holes, as far as they surely fit in so many
    /// bytes. Those between cost room in every segment, and are made again by the records that follow.
    pub(crate) fn within(&self, bytes: usize, is_stored: impl Fn(u64) -> bool) -> Self {
        let most = bytes.saturating_sub(HEAD_BYTES) / MARK_BYTES;
        let is_edge = |mark: &&Mark| {
            let is_last = self.marks.last().is_some_and(|last| last.seq == mark.seq);
            is_last || !is_stored(mark.seq + 1) || (mark.seq > 0 && !is_stored(mark.seq - 1))
        };
        let edges = self.marks.iter().rev().filter(is_edge).take(most);
        let mut marks: Vec<Mark> = edges.copied().collect();
        marks.reverse();
        Self {
            since: self.since,
            disorder_us: self.disorder_us,
            marks,
        }
    }

    /// An epoch begins: no row of it is older than `since`.
    pub fn begin(&mut self, since: Option<UnixMicros>) {
        self.since = self.since.or(since);
    }

    /// The earliest time that rows after the last record may have.
    #[must_use]
    pub fn end(&self) -> Option<UnixMicros> {
        self.marks.last().map(|mark| self.before(mark))
    }

    /// Takes in the times of record `seq`, which was stored: the earliest and the latest of its rows.
    ///
    /// - `is_stored`: whether the record of a number was.
    pub fn note(
        &mut self,
        seq: u64,
        (first_us, last_us): (i64, i64),
        is_stored: impl Fn(u64) -> bool,
    ) {
        let Err(place) = self.marks.binary_search_by_key(&seq, |mark| mark.seq) else {
            return;
        };
        let mark = Mark {
            seq,
            first_us: first_us.min(last_us),
            long_us: last_us.abs_diff(first_us),
        };
        let before = place.checked_sub(1).and_then(|at| self.marks.get(at));
        let back_us = |low: &Mark, high: &Mark| {
            let back = low.last_us().saturating_sub(high.first_us);
            u64::try_from(back).unwrap_or(0)
        };
        let after = self.marks.get(place);
        let disorder = [
            before.map(|before| back_us(before, &mark)),
            after.map(|after| back_us(&mark, after)),
        ];
        let disorder = disorder.into_iter().flatten().max().unwrap_or(0);
        self.disorder_us = self.disorder_us.max(disorder);
        self.marks.insert(place, mark);
        if self.marks.len() > MAX_MARKS {
            self.thin(is_stored);
        }
    }

    /// Takes out the mark between first and last that is missed least: one that is not beside a hole, and the closer
    /// to its neighbours the farther it is from the end.
    fn thin(&mut self, is_stored: impl Fn(u64) -> bool) {
        let Some(end) = self.marks.last().map(|mark| mark.seq) else {
            return;
        };
        let mut least = None;
        for (at, near) in self.marks.windows(3).enumerate() {
            let [before, mark, after] = near else {
                continue;
            };
            let is_beside_hole = !is_stored(mark.seq + 1) || !is_stored(mark.seq - 1);
            let apart = u128::from(after.seq - before.seq);
            let weight = apart * 1_024 / u128::from(end - mark.seq);
            let worth = (is_beside_hole, weight);
            if least.is_none_or(|(known, _)| worth < known) {
                least = Some((worth, at + 1));
            }
        }
        if let Some((_, at)) = least {
            self.marks.remove(at);
        }
    }

    /// The closed epoch will get no more records: of its times the last ones tell when the next one began.
    pub(crate) fn close(&mut self) {
        let all_but_last = self.marks.len().saturating_sub(1);
        self.marks.drain(..all_but_last);
    }

    /// Where in time records lie that are missing.
    ///
    /// - `at`: when they are named.
    #[must_use]
    pub fn span(&self, which: Which, at: UnixMicros) -> Span {
        let (below, above) = match which {
            Which::Numbers(range) => (
                self.marks.iter().rev().find(|mark| mark.seq < range.first),
                self.marks.iter().find(|mark| mark.seq >= range.next),
            ),
            Which::Beyond => (self.marks.last(), None),
            Which::Any => (None, None),
        };
        let first = below.map(|mark| self.before(mark)).or(self.since);
        let first = first.unwrap_or(UnixMicros(0)).0;
        let last = above.map_or(at.0, |mark| mark.last_us().saturating_add(self.slack_us()));
        let known = match (below, above) {
            (Some(_), Some(_)) => Known::Neighbours,
            (None, _) | (_, None) => Known::Bounds,
        };
        let (mut first, mut last) = match (below, above) {
            // What the lane had reached is refuted: nothing is known before.
            (None, Some(_)) if first > last => (0, last),
            (_, Some(_)) => (first.min(last), first.max(last)),
            // Rows of a clock that is ahead are later than now.
            (_, None) => (first, last.max(first)),
        };
        // Of records that came and that a sink lacks, times are kept: they refute a clock that is behind.
        if let Which::Numbers(range) = which {
            for mark in self.marks.iter().filter(|mark| range.contains(mark.seq)) {
                first = first.min(self.before(mark).0);
                last = last.max(mark.last_us().saturating_add(self.slack_us()));
            }
        }
        if sabotage::is(Bug::SpanBesideTruth) {
            // A deliberate bug: it begins where it should end.
            (first, last) = (last, last.saturating_add(last.saturating_sub(first)));
        }
        Span {
            first: UnixMicros(first),
            last: UnixMicros(last),
            known,
        }
    }

    /// No row with a higher number is older.
    fn before(&self, mark: &Mark) -> UnixMicros {
        UnixMicros(mark.first_us.saturating_sub(self.slack_us()))
    }

    fn slack_us(&self) -> i64 {
        let disorder_us = i64::try_from(self.disorder_us).unwrap_or(i64::MAX);
        disorder_us.max(MIN_DISORDER_US)
    }
}

/// Earliest and latest time of a frame with rows, as its maker counts; `None`: it has none, or cannot be read.
#[must_use]
pub fn times_of(frame: &Frame<'_>) -> Option<(i64, i64)> {
    if frame.kind == Kind::Batch {
        let header = BatchHeader::peek(frame.payload).ok()?;
        Some((header.first_time_us, header.last_time_us))
    } else if frame.kind == Kind::Text {
        let (header, _) = TextHeader::read(frame.payload)?;
        Some((header.first_time_us, header.last_time_us))
    } else if frame.kind == Kind::Refused {
        Some(Refused::decode(frame.payload)?.span_us())
    } else {
        None
    }
}

/// The same as Unix time; `None` where nothing dates it.
#[must_use]
pub fn dated_times_of(frame: &Frame<'_>, clock: Clock) -> Option<(i64, i64)> {
    let (first, last) = times_of(frame).filter(|_| clock.class != TimeClass::Undated)?;
    let dated = |us: i64| us.saturating_add(clock.offset_us);
    Some((dated(first), dated(last)))
}

#[cfg(test)]
mod tests;
