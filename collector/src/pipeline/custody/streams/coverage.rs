//! Core: what each required sink has beyond what all of them have.
//!
//! ```text
//! lake     ████████████████▒▒▒▒▒▒▒▒▒▒   what the others lack stays in its set
//! stream   ████████████████              what all have is committed and leaves the sets
//! ```
//! The sets follow from what sinks report, so the thread that acknowledges never reads the journal for
//! them. A start fills them from the records between the cursors. Their numbers are a part of what the
//! ledger has received.

use std::collections::BTreeMap;

use headwater_proto::delivery::Ranges;
use headwater_proto::ids::{SeqRange, Stream};

/// Ranges of numbers that are kept for one sink, about 2 MiB; a fleet whose streams are without holes
/// has one for each stream. A sink that is ahead of another and has this many has to wait for it.
pub const MAX_COVERED_RANGES: usize = 65_536;

/// Numbers of one stream.
type Numbers = Ranges<{ usize::MAX }>;

/// What one sink has and not all have.
#[derive(Debug, Default)]
struct Covered {
    streams: BTreeMap<Stream, Numbers>,
    /// Ranges in all of them.
    ranges: usize,
}

impl Covered {
    fn change(&mut self, stream: &Stream, change: impl FnOnce(&mut Numbers)) {
        let mut numbers = self.streams.remove(stream).unwrap_or_default();
        self.ranges -= numbers.len();
        change(&mut numbers);
        self.ranges += numbers.len();
        if !numbers.is_empty() {
            self.streams.insert(stream.clone(), numbers);
        }
    }

    // Without a bound on the ranges of one stream nothing is refused.
    fn insert(&mut self, stream: &Stream, range: SeqRange) {
        self.change(stream, |numbers| {
            let _ = numbers.insert(range);
        });
    }

    fn remove(&mut self, stream: &Stream, range: SeqRange) {
        if self.streams.contains_key(stream) {
            self.change(stream, |numbers| {
                let _ = numbers.remove(range);
            });
        }
    }

    fn has(&self, stream: &Stream, range: SeqRange) -> bool {
        let numbers = self.streams.get(stream);
        numbers.is_some_and(|numbers| numbers.covers(range))
    }

    /// The parts of `within` that it has.
    fn parts(&self, stream: &Stream, within: SeqRange) -> Vec<SeqRange> {
        let Some(numbers) = self.streams.get(stream) else {
            return Vec::new();
        };
        let mut parts = Vec::new();
        let mut from = within.first;
        while let Some(part) = numbers.next_in(from) {
            if part.first >= within.next {
                break;
            }
            parts.push(SeqRange::new(part.first, part.next.min(within.next)));
            from = part.next;
        }
        parts
    }
}

/// The sets of all required sinks.
#[derive(Debug, Default)]
pub(in super::super) struct Coverage {
    sinks: BTreeMap<String, Covered>,
    /// A start could not read all records between the cursors: of numbers in no set it is not known
    /// whether a sink has them.
    is_doubtful: bool,
}

impl Coverage {
    /// Nobody has anything yet.
    ///
    /// - `required`: names of the sinks that the journal waits for.
    pub(super) fn new<'a>(required: impl Iterator<Item = &'a str>) -> Self {
        Self {
            sinks: required
                .map(|name| (name.to_owned(), Covered::default()))
                .collect(),
            is_doubtful: false,
        }
    }

    /// Whether the journal waits for more than one sink.
    pub(super) fn is_shared(&self) -> bool {
        self.sinks.len() > 1
    }

    /// Whether the journal waits for a sink.
    pub(in super::super) fn requires(&self, sink: &str) -> bool {
        self.sinks.contains_key(sink)
    }

    /// Empties the sets, to be filled by a start.
    pub(super) fn clear(&mut self) {
        self.sinks.values_mut().for_each(|covered| {
            *covered = Covered::default();
        });
        self.is_doubtful = false;
    }

    /// Some records between the cursors could not be read by a start.
    pub(super) const fn doubt(&mut self) {
        self.is_doubtful = true;
    }

    /// What a start doubted is settled.
    pub(super) const fn settle_doubt(&mut self) {
        self.is_doubtful = false;
    }

    /// Whether a number that is in no set may be in a sink all the same.
    pub(super) const fn is_doubtful(&self) -> bool {
        self.is_doubtful
    }

    /// A required sink has `range`, which is not committed. Returns the parts that all have by this; they
    /// leave the sets.
    pub(super) fn add(&mut self, sink: &str, stream: &Stream, range: SeqRange) -> Vec<SeqRange> {
        let mut all = vec![range];
        for (_, other) in self.sinks.iter().filter(|(name, _)| *name != sink) {
            let both = all.iter().flat_map(|part| other.parts(stream, *part));
            all = both.collect();
        }
        for (name, covered) in &mut self.sinks {
            if name == sink && all != [range] {
                covered.insert(stream, range);
            }
            for part in &all {
                covered.remove(stream, *part);
            }
        }
        all
    }

    /// All count as having `range` from now on: it leaves the sets.
    pub(super) fn forget(&mut self, stream: &Stream, range: SeqRange) {
        for covered in self.sinks.values_mut() {
            covered.remove(stream, range);
        }
    }

    /// `range` in parts, each of which a sink has whole or not at all.
    pub(super) fn split(&self, stream: &Stream, range: SeqRange) -> Vec<SeqRange> {
        let mut cuts = vec![range.first, range.next];
        for covered in self.sinks.values() {
            let parts = covered.parts(stream, range);
            cuts.extend(parts.iter().flat_map(|part| [part.first, part.next]));
        }
        cuts.sort_unstable();
        cuts.dedup();
        let pairs = cuts.windows(2);
        pairs.map(|pair| SeqRange::new(pair[0], pair[1])).collect()
    }

    /// Whether a sink has a part as [`Coverage::split`] gives it.
    pub(super) fn is_anywhere(&self, stream: &Stream, part: SeqRange) -> bool {
        self.sinks.values().any(|covered| covered.has(stream, part))
    }

    /// The sinks that lack what others have of a part as [`Coverage::split`] gives it; none if nobody has
    /// it.
    pub(super) fn lacking(&self, stream: &Stream, part: SeqRange) -> Vec<String> {
        if !self.is_anywhere(stream, part) {
            return Vec::new();
        }
        let lack = self.sinks.iter();
        let lack = lack.filter(|(_, covered)| !covered.has(stream, part));
        lack.map(|(name, _)| name.clone()).collect()
    }

    /// What a sink has and not all have.
    pub(in super::super) fn of(&self, sink: &str) -> impl Iterator<Item = (&Stream, &[SeqRange])> {
        let streams = self.sinks.get(sink).map(|covered| &covered.streams);
        let streams = streams.into_iter().flatten();
        streams.map(|(stream, numbers)| (stream, numbers.as_slice()))
    }

    /// Whether a sink has so much that others lack that its next report can wait until they come closer.
    pub(in super::super) fn has_too_much(&self, sink: &str) -> bool {
        self.ranges(sink) >= MAX_COVERED_RANGES
    }

    /// Ranges that are kept for a sink.
    pub(in super::super) fn ranges(&self, sink: &str) -> usize {
        self.sinks.get(sink).map_or(0, |covered| covered.ranges)
    }
}

#[cfg(test)]
mod tests {
    use headwater_proto::ids::{DeviceId, Epoch, Lane};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    use super::*;

    const SINKS: [&str; 3] = ["lake", "copy", "stream"];

    fn stream(epoch: u64) -> Stream {
        Stream {
            device: DeviceId::new("dev").unwrap(),
            lane: Lane::Normal,
            epoch: Epoch::new(epoch),
        }
    }

    #[test]
    fn what_one_sink_has_is_committed_at_once_where_it_is_the_only_one() {
        let mut coverage = Coverage::new(["lake"].into_iter());
        let range = SeqRange::new(3, 9);
        assert_eq!(coverage.add("lake", &stream(1), range), [range]);
        assert_eq!(coverage.ranges("lake"), 0);
    }

    proptest! {
        #[test]
        fn the_sets_hold_what_a_sink_has_and_not_all_have(
            steps in proptest::collection::vec((0usize..3, 0u64..2, 0u64..40, 1u64..9), 0..60),
        ) {
            let mut coverage = Coverage::new(SINKS.into_iter());
            let mut model: Vec<BTreeSet<(u64, u64)>> = vec![BTreeSet::new(); 3];
            let mut committed = BTreeSet::new();
            for (sink, epoch, first, len) in steps {
                // As the caller does: what is committed is not reported.
                let open = (first..first + len).filter(|seq| !committed.contains(&(epoch, *seq)));
                for seq in open.collect::<Vec<_>>() {
                    let range = SeqRange::new(seq, seq + 1);
                    let all = coverage.add(SINKS[sink], &stream(epoch), range);
                    model[sink].insert((epoch, seq));
                    let is_common = model.iter().all(|has| has.contains(&(epoch, seq)));
                    prop_assert_eq!(all.is_empty(), !is_common);
                    if is_common {
                        committed.insert((epoch, seq));
                        for has in &mut model {
                            has.remove(&(epoch, seq));
                        }
                    }
                }
            }
            for (name, has) in SINKS.iter().zip(&model) {
                let mut kept = BTreeSet::new();
                let mut ranges = 0;
                for (stream, numbers) in coverage.of(name) {
                    ranges += numbers.len();
                    let all = numbers.iter().flat_map(|range| range.first..range.next);
                    kept.extend(all.map(|seq| (stream.epoch.get(), seq)));
                }
                prop_assert_eq!(&kept, has);
                prop_assert_eq!(coverage.ranges(name), ranges);
            }
            for epoch in 0..2 {
                for part in coverage.split(&stream(epoch), SeqRange::new(0, 50)) {
                    for seq in part.first..part.next {
                        let has = |has: &BTreeSet<_>| has.contains(&(epoch, seq));
                        let lack = SINKS.iter().zip(&model).filter(|(_, model)| !has(model));
                        let mut lack: Vec<String> = lack.map(|(name, _)| (*name).to_owned()).collect();
                        lack.sort_unstable();
                        if lack.len() == SINKS.len() {
                            lack.clear();
                        }
                        prop_assert_eq!(coverage.lacking(&stream(epoch), part), lack);
                    }
                }
            }
        }
    }
}
