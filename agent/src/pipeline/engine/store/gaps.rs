//! Core: the gaps that this process has named: neighbours are merged, so that a long loss is one gap.

use headwater_proto::ids::{Epoch, Lane, SeqRange};
use headwater_proto::message::{Gap, GapReason};

/// Most gaps kept apart; beyond it neighbours merge with reason `many`.
pub const MAX_GAPS: usize = 4096;

/// The record that says a gap: its lane, epoch and number.
pub(super) type Carrier = (Lane, Epoch, u64);

/// A gap that this process named, and the newest record that says so.
#[derive(Debug)]
pub(super) struct Named {
    gap: Gap,
    carrier: Carrier,
}

/// The gaps that were named.
#[derive(Debug, Default)]
pub(super) struct Gaps(Vec<Named>);

impl Gaps {
    /// How many are kept apart.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether another record than `carrier` says all that `gap` says.
    pub(super) fn is_said_elsewhere(&self, gap: &Gap, carrier: Carrier) -> bool {
        self.0
            .iter()
            .any(|named| named.carrier != carrier && covers(&named.gap, gap))
    }

    /// Takes out those that touch a gap, which is widened by them.
    pub(super) fn take_touching(&mut self, gap: &mut Gap) -> Vec<Named> {
        let mut merged = Vec::new();
        while let Some(near) = self.0.iter().position(|named| touches(&named.gap, gap)) {
            let near = self.0.swap_remove(near);
            merge(gap, &near.gap);
            merged.push(near);
        }
        merged
    }

    /// Puts back what was taken out: the wider gap could not be said.
    pub(super) fn put_back(&mut self, mut merged: Vec<Named>) {
        self.0.append(&mut merged);
    }

    /// Takes in a gap that `carrier` says.
    pub(super) fn add(&mut self, gap: Gap, carrier: Carrier) {
        self.0.push(Named { gap, carrier });
    }

    /// Beyond [`MAX_GAPS`], takes out the two of one epoch that lie nearest to each other, and gives one in
    /// their place that is still to be said: coarser, never silent.
    pub(super) fn take_excess(&mut self) -> Option<Gap> {
        if self.0.len() <= MAX_GAPS {
            return None;
        }
        let key = |named: &Named| {
            let first = named.gap.seqs.map_or(0, |range| range.first);
            (named.gap.lane, named.gap.epoch, first)
        };
        self.0.sort_by_key(key);
        let nearest = self
            .0
            .windows(2)
            .enumerate()
            .filter_map(|(i, pair)| {
                let same = key(&pair[0]).0 == key(&pair[1]).0 && key(&pair[0]).1 == key(&pair[1]).1;
                let (a, b) = (pair[0].gap.seqs?, pair[1].gap.seqs?);
                same.then(|| (b.first.saturating_sub(a.next), i))
            })
            .min();
        let Some((_, i)) = nearest else {
            // No two of one epoch: the oldest is on disk already, and only forgotten here.
            self.0.remove(0);
            return None;
        };
        let other = self.0.remove(i + 1).gap;
        let mut gap = self.0.remove(i).gap;
        merge(&mut gap, &other);
        (gap.reason, gap.samples) = (GapReason::Many, None);
        Some(gap)
    }
}

fn same_epoch(a: &Gap, b: &Gap) -> bool {
    a.origin == b.origin && a.lane == b.lane && a.epoch == b.epoch
}

fn covers(outer: &Gap, inner: &Gap) -> bool {
    let within = match (outer.seqs, inner.seqs) {
        (Some(outer), Some(inner)) => outer.first <= inner.first && inner.next <= outer.next,
        _ => false,
    };
    within && same_epoch(outer, inner)
}

/// Whether two gaps of one reason are one: overlapping or side by side.
fn touches(a: &Gap, b: &Gap) -> bool {
    let near = match (a.seqs, b.seqs) {
        (Some(a), Some(b)) => a.first <= b.next && b.first <= a.next,
        _ => false,
    };
    near && same_epoch(a, b) && a.reason == b.reason && a.part == b.part
}

/// Widens `gap` by `other`.
fn merge(gap: &mut Gap, other: &Gap) {
    if let (Some(a), Some(b)) = (gap.seqs, other.seqs) {
        let apart = a.next <= b.first || b.next <= a.first;
        gap.samples = gap
            .samples
            .zip(other.samples)
            .filter(|_| apart)
            .map(|(a, b)| a + b);
        gap.seqs = Some(SeqRange::new(a.first.min(b.first), a.next.max(b.next)));
    }
    gap.t_first = gap.t_first.into_iter().chain(other.t_first).min();
    gap.t_last = gap.t_last.into_iter().chain(other.t_last).max();
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_proto::ids::DeviceId;
    use headwater_proto::message::Stage;
    use headwater_proto::time::UnixMicros;

    fn gap(first: u64, next: u64) -> Gap {
        Gap {
            origin: DeviceId::new("pump-1").unwrap(),
            lane: Lane::Normal,
            epoch: Epoch::new(5),
            seqs: Some(SeqRange::new(first, next)),
            samples: Some(next - first),
            t_first: None,
            t_last: None,
            reason: GapReason::Evicted,
            stage: Stage::Agent,
            part: None,
            at: UnixMicros(0),
        }
    }

    const fn carrier(seq: u64) -> Carrier {
        (Lane::Normal, Epoch::new(9), seq)
    }

    #[test]
    fn neighbours_become_one_and_what_another_record_says_need_not_be_said_again() {
        let mut gaps = Gaps::default();
        gaps.add(gap(0, 4), carrier(0));
        gaps.add(gap(10, 12), carrier(1));
        let mut wider = gap(4, 10);
        let merged = gaps.take_touching(&mut wider);
        assert_eq!(merged.len(), 2);
        assert_eq!((wider.seqs, wider.samples), (gap(0, 12).seqs, Some(12)));
        gaps.add(wider, carrier(2));
        assert!(gaps.is_said_elsewhere(&gap(3, 11), carrier(1)));
        assert!(!gaps.is_said_elsewhere(&gap(3, 11), carrier(2)));
        assert!(!gaps.is_said_elsewhere(&gap(3, 13), carrier(1)));
    }

    #[test]
    fn beyond_the_bound_the_two_that_lie_nearest_become_a_coarser_one() {
        let mut gaps = Gaps::default();
        for i in 0..MAX_GAPS as u64 {
            gaps.add(gap(i * 10, i * 10 + 1), carrier(i));
        }
        assert_eq!(gaps.take_excess(), None);
        let near = gap(25, 26);
        gaps.add(near, carrier(0));
        let coarse = gaps.take_excess().unwrap();
        assert_eq!((coarse.seqs, coarse.samples), (gap(20, 26).seqs, None));
        assert_eq!(coarse.reason, GapReason::Many);
        assert_eq!(gaps.len(), MAX_GAPS - 1);
    }
}
