//! A bounded set of sequence numbers, kept as ranges that never touch.

use crate::ids::SeqRange;

#[cfg(feature = "alloc")]
type Items<const N: usize> = alloc::vec::Vec<SeqRange>;
#[cfg(not(feature = "alloc"))]
type Items<const N: usize> = heapless::Vec<SeqRange, N>;

/// The set would need more ranges than it may keep; it is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more holes than are kept apart")]
pub struct TooManyRanges;

/// At most `N` ranges, sorted, none empty, none touching the next. With the `alloc` feature they take
/// memory as they are added, without it the value holds `N` of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ranges<const N: usize> {
    items: Items<N>,
}

impl<const N: usize> Ranges<N> {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            items: Items::<N>::new(),
        }
    }

    /// The ranges, lowest first.
    #[must_use]
    pub fn as_slice(&self) -> &[SeqRange] {
        &self.items
    }

    /// Over the ranges, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = SeqRange> + '_ {
        self.items.iter().copied()
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many ranges it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// How many numbers it has.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.iter().map(SeqRange::len).sum()
    }

    /// Whether `seq` is in it.
    #[must_use]
    pub fn contains(&self, seq: u64) -> bool {
        self.end_at(seq) > seq
    }

    /// Whether all of `range` is in it; true for an empty range.
    #[must_use]
    pub fn covers(&self, range: SeqRange) -> bool {
        range.is_empty() || self.end_at(range.first) >= range.next
    }

    /// The end of the stretch that holds `seq`, or `seq` itself if it is not in the set: all of
    /// `seq..end_at(seq)` is in the set, and `end_at(seq)` is not.
    #[must_use]
    pub fn end_at(&self, seq: u64) -> u64 {
        let at = self.items.partition_point(|range| range.next <= seq);
        match self.items.get(at) {
            Some(range) if range.first <= seq => range.next,
            _ => seq,
        }
    }

    /// One more than the highest number in it; 0 when empty.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.items.last().map_or(0, |range| range.next)
    }

    /// The first stretch at or after `from` that is in the set.
    #[must_use]
    pub fn next_in(&self, from: u64) -> Option<SeqRange> {
        let at = self.items.partition_point(|range| range.next <= from);
        self.items
            .get(at)
            .map(|range| SeqRange::new(range.first.max(from), range.next))
    }

    /// The first stretch of `within` that is not in the set.
    #[must_use]
    pub fn next_out(&self, within: SeqRange) -> Option<SeqRange> {
        let first = self.end_at(within.first);
        let next = self
            .next_in(first)
            .map_or(within.next, |range| range.first.min(within.next));
        let range = SeqRange::new(first, next);
        (!range.is_empty()).then_some(range)
    }

    /// The stretches of `within` that are not in the set, lowest first.
    pub fn holes(&self, within: SeqRange) -> impl Iterator<Item = SeqRange> + '_ {
        let mut from = within.first;
        core::iter::from_fn(move || {
            let hole = self.next_out(SeqRange::new(from, within.next))?;
            from = hole.next;
            Some(hole)
        })
    }

    /// Adds a range.
    ///
    /// # Errors
    /// [`TooManyRanges`] if it would stand alone as range `N + 1`; the set is then unchanged.
    pub fn insert(&mut self, range: SeqRange) -> Result<(), TooManyRanges> {
        if range.is_empty() {
            return Ok(());
        }
        // The ranges that overlap or touch the new one are `from..to`; they become one.
        let from = self.items.partition_point(|old| old.next < range.first);
        let to = self.items.partition_point(|old| old.first <= range.next);
        if from == to {
            return self.put(from, range);
        }
        let first = self.items[from].first.min(range.first);
        let next = self.items[to - 1].next.max(range.next);
        self.items[from] = SeqRange::new(first, next);
        self.cut(from + 1, to);
        Ok(())
    }

    /// Takes a range out.
    ///
    /// # Errors
    /// [`TooManyRanges`] if that would split a range beyond `N`; the set is then unchanged.
    pub fn remove(&mut self, range: SeqRange) -> Result<(), TooManyRanges> {
        if range.is_empty() {
            return Ok(());
        }
        let from = self.items.partition_point(|old| old.next <= range.first);
        let to = self.items.partition_point(|old| old.first < range.next);
        if from == to {
            return Ok(());
        }
        let left = SeqRange::new(self.items[from].first, range.first);
        let right = SeqRange::new(range.next, self.items[to - 1].next);
        match (left.is_empty(), right.is_empty()) {
            (true, true) => self.cut(from, to),
            (false, true) => {
                self.items[from] = left;
                self.cut(from + 1, to);
            }
            (true, false) => {
                self.items[from] = right;
                self.cut(from + 1, to);
            }
            (false, false) if to - from >= 2 => {
                self.items[from] = left;
                self.items[from + 1] = right;
                self.cut(from + 2, to);
            }
            (false, false) => {
                self.put(from + 1, right)?;
                self.items[from] = left;
            }
        }
        Ok(())
    }

    /// Takes out all numbers below `seq`.
    pub fn forget_below(&mut self, seq: u64) {
        let gone = self.items.partition_point(|range| range.next <= seq);
        self.cut(0, gone);
        if let Some(range) = self.items.first_mut() {
            range.first = range.first.max(seq);
        }
    }

    /// Takes the lowest range out and returns it.
    pub fn pop_lowest(&mut self) -> Option<SeqRange> {
        let lowest = self.items.first().copied();
        self.cut(0, usize::from(lowest.is_some()));
        lowest
    }

    /// Takes the highest range out and returns it.
    pub fn pop_highest(&mut self) -> Option<SeqRange> {
        self.items.pop()
    }

    /// Empties the set.
    pub fn clear(&mut self) {
        self.items.clear();
    }

    fn put(&mut self, at: usize, range: SeqRange) -> Result<(), TooManyRanges> {
        if self.items.len() >= N {
            return Err(TooManyRanges);
        }
        #[cfg(feature = "alloc")]
        self.items.insert(at, range);
        #[cfg(not(feature = "alloc"))]
        self.items.insert(at, range).map_err(|_| TooManyRanges)?;
        Ok(())
    }

    /// Removes the items `from..to`.
    fn cut(&mut self, from: usize, to: usize) {
        if from < to {
            self.items.copy_within(to.., from);
            self.items.truncate(self.items.len() - (to - from));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    fn model_ranges(model: &BTreeSet<u64>) -> Vec<SeqRange> {
        let mut out: Vec<SeqRange> = Vec::new();
        for &seq in model {
            match out.last_mut() {
                Some(last) if last.next == seq => last.next += 1,
                _ => out.push(SeqRange::new(seq, seq + 1)),
            }
        }
        out
    }

    proptest! {
        #[test]
        fn the_set_equals_a_plain_set_of_numbers(
            steps in proptest::collection::vec((any::<bool>(), 0u64..60, 0u64..8), 0..60),
        ) {
            let mut ranges = Ranges::<6>::new();
            let mut model = BTreeSet::new();
            for (add, first, len) in steps {
                let range = SeqRange::new(first, first + len);
                let mut wanted = model.clone();
                let result = if add {
                    wanted.extend(first..first + len);
                    ranges.insert(range)
                } else {
                    wanted.retain(|seq| !range.contains(*seq));
                    ranges.remove(range)
                };
                match result {
                    Ok(()) => model = wanted,
                    Err(TooManyRanges) => prop_assert!(model_ranges(&wanted).len() > 6),
                }
                prop_assert_eq!(ranges.as_slice(), model_ranges(&model));
                prop_assert_eq!(ranges.count(), model.len() as u64);
                for seq in 0..70 {
                    prop_assert_eq!(ranges.contains(seq), model.contains(&seq));
                    let end = (seq..).find(|seq| !model.contains(seq)).unwrap();
                    prop_assert_eq!(ranges.end_at(seq), end);
                }
                let holes: BTreeSet<u64> =
                    ranges.holes(SeqRange::new(5, 50)).flat_map(|hole| hole.first..hole.next).collect();
                let wanted: BTreeSet<u64> = (5..50).filter(|seq| !model.contains(seq)).collect();
                prop_assert_eq!(holes, wanted);
            }
        }
    }

    #[test]
    fn forgetting_below_cuts_the_range_that_lies_across() {
        let mut ranges = Ranges::<4>::new();
        ranges.insert(SeqRange::new(0, 4)).unwrap();
        ranges.insert(SeqRange::new(6, 10)).unwrap();
        ranges.forget_below(8);
        assert_eq!(ranges.as_slice(), [SeqRange::new(8, 10)]);
    }
}
