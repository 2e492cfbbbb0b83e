//! Core: sets of sequence numbers, as ranges that do not touch.

use std::collections::BTreeMap;

use headwater_proto::ids::SeqRange;

/// Numbers, kept as ranges. Its size is the number of holes, whatever it holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Ranges {
    /// First number of a range to the first after it.
    by_first: BTreeMap<u64, u64>,
}

impl Ranges {
    pub(crate) fn insert(&mut self, range: SeqRange) {
        if range.is_empty() {
            return;
        }
        let SeqRange {
            mut first,
            mut next,
        } = range;
        if let Some((&before, &end)) = self.by_first.range(..=first).next_back()
            && end >= first
        {
            if end >= next {
                return;
            }
            first = before;
        }
        while let Some((&start, &end)) = self.by_first.range(first..=next).next() {
            next = next.max(end);
            self.by_first.remove(&start);
        }
        self.by_first.insert(first, next);
    }

    pub(crate) fn insert_all(&mut self, other: &Self) {
        other.iter().for_each(|range| self.insert(range));
    }

    pub(crate) fn contains(&self, seq: u64) -> bool {
        self.by_first
            .range(..=seq)
            .next_back()
            .is_some_and(|(_, next)| seq < *next)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = SeqRange> + '_ {
        self.by_first
            .iter()
            .map(|(first, next)| SeqRange::new(*first, *next))
    }

    /// How many numbers it holds.
    pub(crate) fn len(&self) -> u64 {
        self.iter().map(SeqRange::len).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_first.is_empty()
    }

    /// The number after the greatest; 0 if there is none.
    pub(crate) fn end(&self) -> u64 {
        self.by_first.last_key_value().map_or(0, |(_, next)| *next)
    }

    /// What of `range` is not in the set.
    pub(crate) fn missing_from(&self, range: SeqRange) -> Self {
        let mut missing = Self::default();
        let mut at = range.first;
        let before = self.by_first.range(..=range.first).next_back();
        let within = self.by_first.range(range.first.saturating_add(1)..);
        for (&first, &next) in before.into_iter().chain(within) {
            if first >= range.next {
                break;
            }
            missing.insert(SeqRange::new(at, first.min(range.next)));
            at = at.max(next);
        }
        missing.insert(SeqRange::new(at, range.next));
        missing
    }

    /// What is in this set and not in `other`.
    pub(crate) fn minus(&self, other: &Self) -> Self {
        let mut left = Self::default();
        for range in self.iter() {
            left.insert_all(&other.missing_from(range));
        }
        left
    }

    /// What is in this set and below `end`.
    pub(crate) fn below(&self, end: u64) -> Self {
        let cut = |range: SeqRange| SeqRange::new(range.first, range.next.min(end));
        let mut below = Self::default();
        self.iter().map(cut).for_each(|range| below.insert(range));
        below
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn set(ranges: &[(u64, u64)]) -> (Ranges, BTreeSet<u64>) {
        let (mut set, mut model) = (Ranges::default(), BTreeSet::new());
        for (first, len) in ranges {
            set.insert(SeqRange::new(*first, first + len));
            model.extend(*first..first + len);
        }
        (set, model)
    }

    fn numbers(set: &Ranges) -> BTreeSet<u64> {
        set.iter()
            .flat_map(|range| range.first..range.next)
            .collect()
    }

    proptest! {
        #[test]
        fn ranges_behave_as_the_set_of_their_numbers(
            a in proptest::collection::vec((0u64..60, 0u64..9), 0..12),
            b in proptest::collection::vec((0u64..60, 0u64..9), 0..12),
            (first, len) in (0u64..60, 0u64..30),
        ) {
            let ((a, model_a), (b, model_b)) = (set(&a), set(&b));
            prop_assert_eq!(&numbers(&a), &model_a);
            prop_assert!(a.iter().zip(a.iter().skip(1)).all(|(x, y)| x.next < y.first));
            prop_assert_eq!(a.len(), model_a.len() as u64);
            prop_assert_eq!(a.end(), model_a.last().map_or(0, |last| last + 1));
            prop_assert_eq!(a.contains(first), model_a.contains(&first));
            prop_assert_eq!(numbers(&a.minus(&b)), &model_a - &model_b);
            let wanted: BTreeSet<u64> = (first..first + len).collect();
            let missing = a.missing_from(SeqRange::new(first, first + len));
            prop_assert_eq!(numbers(&missing), &wanted - &model_a);
            let below: BTreeSet<u64> = model_a.range(..first).copied().collect();
            prop_assert_eq!(numbers(&a.below(first)), below);
        }
    }
}
