//! Core: what gaps name, by reason: how many readings, and how much time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use headwater_proto::ids::SeqRange;
use serde::Serialize;

use crate::ranges::Ranges;

/// Reasons that are told apart; what goes beyond is told together, as `OTHER`.
pub const MAX_REASONS: usize = 64;
/// The name of reasons beyond [`MAX_REASONS`].
const OTHER: &str = "other";

/// A gap with a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Gap {
    pub(crate) range: SeqRange,
    pub(crate) samples: Option<u64>,
    pub(crate) span: Option<(i64, i64)>,
}

/// What is missing for one reason. Gaps that were filled later do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Missing {
    /// Rows of `gaps`.
    pub gaps: u64,
    /// Readings, as far as gaps count them.
    pub samples: u64,
    /// Milliseconds, each of a stream once. An open span does not count.
    pub time_ms: u64,
    /// Gaps of which nobody knows when they began.
    pub open: u64,
    /// Gaps without a time span: an earlier version wrote them.
    pub without_span: u64,
}

impl Missing {
    pub(super) const fn add(&mut self, other: &Self) {
        self.gaps += other.gaps;
        self.samples += other.samples;
        self.time_ms += other.time_ms;
        self.open += other.open;
        self.without_span += other.without_span;
    }

    fn note_span(&mut self, span: Option<(i64, i64)>, times: &mut Ranges) {
        self.gaps += 1;
        match span {
            None => self.without_span += 1,
            Some((first, _)) if first <= 0 => self.open += 1,
            Some((first, last)) => {
                let (first, last) = (first.cast_unsigned(), last.max(first).cast_unsigned());
                times.insert(SeqRange::new(first, last + 1));
            }
        }
    }
}

/// What gaps of a stream name.
#[derive(Debug, Default)]
pub(crate) struct Named {
    /// Those with numbers.
    gaps: BTreeMap<Arc<str>, HashSet<Gap>>,
    /// Those that are known by time alone.
    timed: BTreeMap<Arc<str>, (Missing, Ranges)>,
}

impl Named {
    pub(crate) fn take(&mut self, reason: Arc<str>, gap: Gap) {
        self.gaps.entry(reason).or_default().insert(gap);
    }

    pub(crate) fn take_timed(
        &mut self,
        reason: Arc<str>,
        samples: Option<u64>,
        span: Option<(i64, i64)>,
    ) {
        let (missing, times) = self.timed.entry(reason).or_default();
        missing.samples += samples.unwrap_or(0);
        missing.note_span(span, times);
    }

    /// Those with numbers, for whatever reason.
    pub(crate) fn gaps(&self) -> impl Iterator<Item = &Gap> + Clone {
        self.gaps.values().flatten()
    }

    /// How many are known by time alone.
    pub(crate) fn timed(&self) -> u64 {
        self.timed.values().map(|(missing, _)| missing.gaps).sum()
    }

    /// What is missing of it, where `there` is.
    pub(crate) fn missing(&self, there: &Ranges) -> BTreeMap<String, Missing> {
        let mut all = BTreeMap::<_, (Missing, Ranges)>::new();
        for (reason, (missing, times)) in &self.timed {
            all.insert(Arc::clone(reason), (*missing, times.clone()));
        }
        for (reason, gaps) in &self.gaps {
            let (missing, times) = all.entry(Arc::clone(reason)).or_default();
            missing.samples += samples(gaps.iter(), there);
            for gap in gaps {
                if !there.missing_from(gap.range).is_empty() {
                    missing.note_span(gap.span, times);
                }
            }
        }
        let all = all.into_iter().map(|(reason, (missing, times))| {
            let time_ms = times.len() / 1_000;
            (reason.to_string(), Missing { time_ms, ..missing })
        });
        all.filter(|(_, missing)| missing.gaps > 0).collect()
    }
}

/// Adds what is missing of a stream to the sums; reasons beyond [`MAX_REASONS`] together.
pub(super) fn sum(sums: &mut BTreeMap<String, Missing>, more: &BTreeMap<String, Missing>) {
    for (reason, missing) in more {
        let is_told = sums.contains_key(reason) || sums.len() < MAX_REASONS;
        let reason = if is_told { reason } else { OTHER };
        sums.entry(reason.to_owned()).or_default().add(missing);
    }
}

/// Readings that the gaps count and that are not there; a number in several gaps counts once.
pub(super) fn samples<'a>(gaps: impl Iterator<Item = &'a Gap>, there: &Ranges) -> u64 {
    let mut gaps: Vec<_> = gaps.copied().collect();
    // The widest that knows its readings speaks first: agents name what they evicted again and
    // again, ever wider, and the collector names the same numbers without a count.
    gaps.sort_unstable_by_key(|gap| (gap.samples.is_none(), Reverse(gap.range.len()), *gap));
    let mut seen = there.clone();
    let mut samples = 0;
    for gap in gaps {
        let new = seen.missing_from(gap.range).len();
        let share = u128::from(gap.samples.unwrap_or(0)) * u128::from(new);
        let share = share.div_ceil(u128::from(gap.range.len().max(1)));
        samples += u64::try_from(share).unwrap_or(u64::MAX);
        seen.insert(gap.range);
    }
    samples
}
