//! Core: which records of which streams stand in which segment. Only what is durable.

use std::collections::BTreeMap;

use headwater_proto::ids::SeqRange;
use headwater_spool::SegmentInfo;

/// Most runs in all. A record that would make one more is refused until others are forgotten, and its node
/// keeps it. What is durable counts, and is never refused: a record that moves, or is found by a start, may pass
/// the bound, and so may one that goes on with a run of the segment that ends with it.
pub(crate) const MAX_RUNS: usize = 32 * 1024;

/// Records of one stream with consecutive numbers, in one segment, in this order; others may stand between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) stream: u32,
    pub(super) seqs: SeqRange,
    /// Position of its first record.
    pub(super) at: u64,
    /// Position of its last record.
    pub(super) last: u64,
    /// Bytes of its records.
    pub(super) bytes: u32,
    /// Nobody needs it any more.
    pub(super) done: bool,
}

/// A record that was made durable.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) segment: u64,
    pub(super) stream: u32,
    pub(super) seq: u64,
    pub(super) position: u64,
    pub(super) bytes: u32,
    /// It is to be sent: it did not only move.
    pub(super) is_new: bool,
}

/// The runs of each segment.
#[derive(Debug, Default)]
pub(super) struct Index {
    segments: BTreeMap<u64, Vec<Run>>,
    runs: usize,
}

impl Index {
    /// Runs of all segments.
    pub(super) const fn runs_in_all(&self) -> usize {
        self.runs
    }

    /// Whether a record goes on with a run of its segment, and needs none of its own.
    ///
    /// - `held`: records that are not durable yet.
    pub(super) fn goes_on(&self, held: &[Entry], segment: u64, stream: u32, seq: u64) -> bool {
        let is_before = |entry: &Entry| {
            let after = (entry.segment, entry.stream, entry.seq.checked_add(1));
            after == (segment, stream, Some(seq))
        };
        let mut runs = self.runs(segment).iter();
        runs.any(|run| run.is_before(stream, seq)) || held.iter().any(is_before)
    }

    pub(super) fn add(&mut self, entry: &Entry) {
        let runs = self.segments.entry(entry.segment).or_default();
        let mut before = runs.iter_mut().rev();
        match before.find(|run| run.is_before(entry.stream, entry.seq)) {
            Some(run) => {
                run.seqs.next += 1;
                run.last = entry.position;
                run.bytes = run.bytes.saturating_add(entry.bytes);
            }
            None => {
                runs.push(Run {
                    stream: entry.stream,
                    seqs: SeqRange::new(entry.seq, entry.seq + 1),
                    at: entry.position,
                    last: entry.position,
                    bytes: entry.bytes,
                    done: false,
                });
                self.runs += 1;
            }
        }
    }

    /// Takes in records of a stream that may stand anywhere in a segment, or be lost with it.
    pub(super) fn seek(&mut self, segment: &SegmentInfo, stream: u32, seqs: SeqRange) {
        let run = Run {
            stream,
            seqs,
            at: segment.first,
            last: segment.next.saturating_sub(1),
            bytes: 0,
            done: false,
        };
        self.segments.entry(segment.id).or_default().push(run);
        self.runs += 1;
    }

    /// Forgets a segment; gives its runs.
    pub(super) fn forget(&mut self, segment: u64) -> Vec<Run> {
        let runs = self.segments.remove(&segment).unwrap_or_default();
        self.runs -= runs.len();
        runs
    }

    /// The runs of a segment.
    pub(super) fn runs(&self, segment: u64) -> &[Run] {
        self.segments.get(&segment).map_or(&[], Vec::as_slice)
    }

    /// The runs of a stream, each with its segment, oldest segment first.
    pub(super) fn of(&self, stream: u32) -> impl Iterator<Item = (u64, &Run)> {
        self.segments.iter().flat_map(move |(segment, runs)| {
            let own = runs.iter().filter(move |run| run.stream == stream);
            own.map(|run| (*segment, run))
        })
    }

    /// The numbers of a stream that are here, rising; those that are only sought are not.
    pub(super) fn here(&self, stream: u32) -> Vec<SeqRange> {
        let own = self.of(stream).filter(|(_, run)| !run.is_sought());
        let mut here: Vec<_> = own.map(|(_, run)| run.seqs).collect();
        here.sort_by_key(|range| range.first);
        here
    }

    pub(super) fn of_mut(&mut self, stream: u32) -> impl Iterator<Item = &mut Run> {
        let all = self.segments.values_mut().flatten();
        all.filter(move |run| run.stream == stream)
    }

    /// Where record `from` of a stream stands, or else the next higher one that is there: the run, and its
    /// segment. Of two copies, the newer.
    pub(super) fn find(&self, stream: u32, from: u64) -> Option<(u64, Run)> {
        let runs = self.of(stream).filter(|(_, run)| run.seqs.next > from);
        let key =
            |(segment, run): &(u64, &Run)| (run.seqs.first.max(from), std::cmp::Reverse(*segment));
        runs.min_by_key(key).map(|(segment, run)| (segment, *run))
    }

    /// Bytes that it takes in memory, about.
    #[cfg(test)]
    pub(crate) fn memory_bytes(&self) -> usize {
        let runs = self.segments.values().map(Vec::capacity).sum::<usize>();
        runs * size_of::<Run>() + self.segments.len() * 64
    }
}

impl Run {
    /// Whether it is not known to be here.
    pub(super) const fn is_sought(&self) -> bool {
        self.bytes == 0
    }

    /// Whether this record goes on with it.
    const fn is_before(&self, stream: u32, seq: u64) -> bool {
        self.stream == stream && self.seqs.next == seq && !self.done && !self.is_sought()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(segment: u64, stream: u32, seq: u64) -> Entry {
        Entry {
            segment,
            stream,
            seq,
            position: 10 * seq,
            bytes: 7,
            is_new: true,
        }
    }

    #[test]
    fn live_records_and_backlog_that_alternate_are_two_runs() {
        let mut index = Index::default();
        for seq in [100, 0, 101, 1, 102, 2] {
            index.add(&entry(1, 5, seq));
            index.add(&entry(1, 6, seq));
        }
        let runs: Vec<_> = index.of(5).map(|(_, run)| (run.seqs, run.bytes)).collect();
        let range = |first, next| SeqRange::new(first, next);
        assert_eq!(runs, [(range(100, 103), 21), (range(0, 3), 21)]);
        assert_eq!(index.find(5, 2).unwrap().1.seqs, range(0, 3));
        assert_eq!(index.find(5, 3).unwrap().1.seqs, range(100, 103));
        assert_eq!(index.find(5, 103), None);
        assert_eq!(index.forget(1).len(), 4);
        assert_eq!((index.find(5, 0), index.runs), (None, 0));
    }

    #[test]
    fn a_record_goes_on_with_a_run_of_its_stream_and_segment_and_no_other() {
        let mut index = Index::default();
        index.add(&entry(1, 5, 0));
        let goes_on = |index: &Index, segment, stream, seq| {
            let held = [entry(1, 5, 7)];
            index.goes_on(&held, segment, stream, seq)
        };
        for seq in [1, 8] {
            assert!(goes_on(&index, 1, 5, seq));
            assert!(!goes_on(&index, 1, 5, seq + 1));
            assert!(!goes_on(&index, 1, 6, seq) && !goes_on(&index, 2, 5, seq));
        }
        index.of_mut(5).for_each(|run| run.done = true);
        assert!(!goes_on(&index, 1, 5, 1));
    }
}
