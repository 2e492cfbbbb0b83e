//! Core: receipts. Every item that a source hands over has one, rising by one per source, and is
//! settled durable or not durable.
//!
//! An open batch, a record that is not synced and a record that waits for the disk each *hold* the
//! receipts of what is in them. Whatever nobody holds any more is settled, so a holder that is
//! forgotten by mistake stops the count and never moves it too far.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use headwater_proto::time::Millis;

/// Most ranges of receipts that are kept apart; beyond it the two lowest become one.
pub const MAX_RANGES: usize = 64;
/// Most items whose refused values are kept apart; beyond it the two lowest become one.
pub const MAX_REFUSED: usize = 1_024;

/// How far the items of a source are settled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settled {
    /// All receipts below are settled: on disk and synced, unless `not_durable` names them.
    pub durable: u64,
    /// Receipts that never will be durable, lowest first; they may lie beyond `durable`. A range may
    /// hold durable ones too: rows of several shapes go into several records, and there are at most
    /// [`MAX_RANGES`] ranges.
    pub not_durable: Vec<Range<u64>>,
}

impl Settled {
    /// How many receipts of a range are not durable, at most.
    #[must_use]
    pub fn missing(&self, range: &Range<u64>) -> u64 {
        let lost = self.not_durable.iter();
        lost.map(|lost| {
            let end = lost.end.min(range.end);
            end.saturating_sub(lost.start.max(range.start))
        })
        .sum()
    }
}

/// How many values were refused of the items with which receipts.
#[derive(Debug, Clone, Default)]
pub struct RefusedValues {
    /// In the order of receipts.
    counts: VecDeque<(Range<u64>, u64)>,
}

impl RefusedValues {
    /// Takes note of `values` of an item; receipts come in order.
    pub fn add(&mut self, receipt: u64, values: u64) {
        self.counts.push_back((receipt..receipt + 1, values));
        if self.counts.len() > MAX_REFUSED
            && let Some((lowest, count)) = self.counts.pop_front()
            && let Some((range, more)) = self.counts.front_mut()
        {
            (range.start, *more) = (lowest.start, *more + count);
        }
    }

    /// How many of the items in these ranges. Never too few; with more than [`MAX_REFUSED`] items it may
    /// hold those of others.
    #[must_use]
    pub fn of(&self, ranges: &[Range<u64>]) -> u64 {
        let touches = |range: &Range<u64>| {
            let mut known = ranges.iter();
            known.any(|it| it.start < range.end && range.start < it.end)
        };
        let counts = self.counts.iter().filter(|(range, _)| touches(range));
        counts.map(|(_, count)| count).sum()
    }
}

/// The receipts of one holder: all that it holds lie from `first` to `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The lowest.
    pub first: u64,
    /// The highest.
    pub last: u64,
}

/// What somebody waits for while a batch or its record is not durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owed {
    /// The source, by its place in the settings.
    pub source: usize,
    /// Its receipts.
    pub span: Span,
    /// When they are to be durable, if the source says so.
    pub by: Option<Millis>,
}

impl Owed {
    /// For one receipt.
    #[must_use]
    pub const fn one(source: usize, receipt: u64, by: Option<Millis>) -> Self {
        Self {
            source,
            span: Span {
                first: receipt,
                last: receipt,
            },
            by,
        }
    }

    /// With a later receipt; what came first decides when.
    #[must_use]
    pub const fn and(mut self, receipt: u64) -> Self {
        self.span.last = receipt;
        self
    }
}

/// The receipts of one source.
#[derive(Debug, Clone, Default)]
pub struct Receipts {
    next: u64,
    /// The lowest receipt of every holder, and how many holders begin with it.
    held: BTreeMap<u64, u32>,
    not_durable: Vec<Range<u64>>,
}

impl Receipts {
    /// Gives the next receipt. It is settled durable unless somebody [holds](Self::hold) it, or it is
    /// [lost](Self::lose).
    pub const fn take(&mut self) -> u64 {
        let receipt = self.next;
        self.next += 1;
        receipt
    }

    /// Somebody holds receipts from this one on.
    pub fn hold(&mut self, first: u64) {
        *self.held.entry(first).or_default() += 1;
    }

    /// What a holder held is durable.
    pub fn settle(&mut self, span: Span) {
        if let Some(holders) = self.held.get_mut(&span.first) {
            *holders -= 1;
            if *holders == 0 {
                self.held.remove(&span.first);
            }
        }
    }

    /// What a holder held is not durable and never will be.
    pub fn fail(&mut self, span: Span) {
        self.settle(span);
        add(&mut self.not_durable, span.first..span.last + 1);
    }

    /// A receipt is not durable, whoever holds it.
    pub fn lose(&mut self, receipt: u64) {
        add(&mut self.not_durable, receipt..receipt + 1);
    }

    /// All below this one are settled.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.held.keys().next().map_or(self.next, |first| *first)
    }

    /// Brings `settled` up to date; says whether it was not.
    pub fn tell(&self, settled: &mut Settled) -> bool {
        let durable = self.durable();
        let changed = settled.durable != durable || settled.not_durable != self.not_durable;
        if changed {
            settled.durable = durable;
            settled.not_durable.clone_from(&self.not_durable);
        }
        changed
    }
}

/// Adds a range to others, which are in order and do not touch; at most [`MAX_RANGES`] are left.
pub fn add(ranges: &mut Vec<Range<u64>>, mut range: Range<u64>) {
    let first = ranges.partition_point(|known| known.end < range.start);
    let end = ranges.partition_point(|known| known.start <= range.end);
    for known in &ranges[first..end] {
        range = range.start.min(known.start)..range.end.max(known.end);
    }
    ranges.splice(first..end, [range]);
    if ranges.len() > MAX_RANGES {
        let lowest = ranges.remove(0);
        ranges[0].start = lowest.start;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn span(first: u64, last: u64) -> Span {
        Span { first, last }
    }

    fn told(receipts: &Receipts) -> Settled {
        let mut settled = Settled::default();
        receipts.tell(&mut settled);
        settled
    }

    #[test]
    fn receipts_rise_by_one_and_what_nobody_holds_is_settled() {
        let mut receipts = Receipts::default();
        assert_eq!((receipts.take(), receipts.take()), (0, 1));
        assert_eq!(receipts.durable(), 2);
        receipts.hold(2);
        assert_eq!(receipts.take(), 2);
        assert_eq!(receipts.durable(), 2);
        receipts.settle(span(2, 2));
        assert_eq!(receipts.durable(), 3);
    }

    #[test]
    fn the_lowest_that_is_held_is_where_the_count_stands() {
        let mut receipts = Receipts::default();
        for receipt in 0..6 {
            assert_eq!(receipts.take(), receipt);
        }
        // Two shapes in turn, and a value of the first row that was refused.
        for first in [0, 0, 1] {
            receipts.hold(first);
        }
        receipts.settle(span(1, 5));
        receipts.settle(span(0, 4));
        assert_eq!(receipts.durable(), 0);
        receipts.settle(span(0, 0));
        assert_eq!(receipts.durable(), 6);
    }

    #[test]
    fn what_is_not_durable_is_named_and_does_not_stop_the_count() {
        let mut receipts = Receipts::default();
        receipts.hold(0);
        for _ in 0..5 {
            receipts.take();
        }
        receipts.lose(4);
        assert_eq!(told(&receipts).durable, 0);
        receipts.fail(span(0, 2));
        let settled = told(&receipts);
        assert_eq!(
            (settled.durable, &*settled.not_durable),
            (5, &[0..3, 4..5][..])
        );
        assert_eq!(settled.missing(&(2..5)), 2);
        assert_eq!(settled.missing(&(3..4)), 0);
    }

    #[test]
    fn beyond_the_most_ranges_the_lowest_are_told_together() {
        let mut receipts = Receipts::default();
        let most = MAX_RANGES as u64;
        for receipt in 0..2 * most + 2 {
            assert_eq!(receipts.take(), receipt);
            if receipt % 2 == 0 {
                receipts.lose(receipt);
            }
        }
        let settled = told(&receipts);
        assert_eq!(settled.not_durable.len(), MAX_RANGES);
        assert_eq!(settled.not_durable[..2], [0..3, 4..5]);
    }

    #[test]
    fn refused_values_are_counted_by_item_and_beyond_the_bound_never_too_few() {
        let mut refused = RefusedValues::default();
        refused.add(3, 2);
        refused.add(7, 1);
        assert_eq!(refused.of(&[0..3, 4..7]), 0);
        assert_eq!(refused.of(&[0..4, 5..6]), 2);
        assert_eq!(refused.of(&[3..4, 7..8]), 3);
        let most = MAX_REFUSED as u64;
        (10..10 + most).for_each(|receipt| refused.add(receipt, 1));
        assert_eq!(refused.counts.len(), MAX_REFUSED);
        assert_eq!(refused.of(&[0..1, 7..8]), 4);
        assert_eq!(refused.of(&[11..12, 13..11 + most]), most - 2);
    }

    proptest! {
        #[test]
        fn nothing_that_is_held_or_lost_is_ever_told_as_durable(
            turns in proptest::collection::vec((0u8..5, 0usize..4), 1..200),
        ) {
            let mut receipts = Receipts::default();
            // The model: what every holder holds, and what became of each receipt.
            let mut holders: Vec<Vec<u64>> = Vec::new();
            let mut lost = std::collections::BTreeSet::new();
            for (turn, which) in turns {
                match turn {
                    0 => {
                        let receipt = receipts.take();
                        receipts.hold(receipt);
                        holders.push(vec![receipt]);
                    }
                    1 => {
                        let receipt = receipts.take();
                        match holders.get_mut(which) {
                            Some(holder) => holder.push(receipt),
                            None => {
                                receipts.lose(receipt);
                                lost.insert(receipt);
                            }
                        }
                    }
                    2 => drop(receipts.take()),
                    _ if which < holders.len() => {
                        let held = holders.swap_remove(which);
                        let span = span(held[0], held[held.len() - 1]);
                        if turn == 3 {
                            receipts.settle(span);
                        } else {
                            receipts.fail(span);
                            lost.extend(held);
                        }
                    }
                    _ => {}
                }
                let settled = told(&receipts);
                for receipt in holders.iter().flatten() {
                    prop_assert!(settled.durable <= *receipt);
                }
                for receipt in &lost {
                    prop_assert_eq!(settled.missing(&(*receipt..*receipt + 1)), 1);
                }
            }
            holders.iter().for_each(|held| receipts.settle(span(held[0], held[held.len() - 1])));
            prop_assert_eq!(receipts.durable(), receipts.take());
        }
    }
}
