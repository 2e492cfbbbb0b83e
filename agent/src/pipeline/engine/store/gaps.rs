//! Core: the gaps that this process has named: neighbours are merged, so that a long loss is one gap.

use headwater_proto::ids::{Epoch, Lane, SeqRange};
use headwater_proto::message::{Gap, GapReason};
use headwater_proto::time::UnixMicros;

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
    let (first, last) = (gap.t_first, gap.t_last);
    let is_empty = (gap.samples == Some(0), other.samples == Some(0));
    if let (Some(a), Some(b)) = (gap.seqs, other.seqs) {
        let apart = a.next <= b.first || b.next <= a.first;
        gap.samples = gap
            .samples
            .zip(other.samples)
            .filter(|_| apart)
            .map(|(a, b)| a + b);
        gap.seqs = Some(SeqRange::new(a.first.min(b.first), a.next.max(b.next)));
    }
    gap.t_first = hull(first, other.t_first, is_empty, i64::min);
    gap.t_last = hull(last, other.t_last, is_empty, i64::max);
}

/// A bound of two times. One that is not known leaves both unknown, unless it is of records without a sample.
fn hull(
    a: Option<UnixMicros>,
    b: Option<UnixMicros>,
    is_empty: (bool, bool),
    of: impl Fn(i64, i64) -> i64,
) -> Option<UnixMicros> {
    match (a, b, is_empty) {
        (Some(a), Some(b), _) => Some(UnixMicros(of(a.0, b.0))),
        (None, known, (true, _)) | (known, None, (_, true)) => known,
        (None, _, _) | (_, None, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_proto::ids::DeviceId;
    use headwater_proto::message::Stage;

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
    fn a_merged_gap_never_says_a_time_that_does_not_hold_all_of_it() {
        let at = |first, next, span: Option<(i64, i64)>| Gap {
            t_first: span.map(|(first, _)| UnixMicros(first)),
            t_last: span.map(|(_, last)| UnixMicros(last)),
            ..gap(first, next)
        };
        let merged = |a: &Gap, b: &Gap| {
            let mut merged = a.clone();
            merge(&mut merged, b);
            merged.t_first.zip(merged.t_last).map(|(a, b)| (a.0, b.0))
        };
        let (known, later) = (at(0, 4, Some((5, 9))), at(4, 6, Some((7, 12))));
        assert_eq!(merged(&known, &later), Some((5, 12)));
        let unknown = at(4, 6, None);
        assert_eq!(merged(&known, &unknown), None);
        assert_eq!(merged(&unknown, &known), None);
        let empty = Gap {
            samples: Some(0),
            ..unknown
        };
        assert_eq!(merged(&known, &empty), Some((5, 9)));
        assert_eq!(merged(&empty, &known), Some((5, 9)));
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
