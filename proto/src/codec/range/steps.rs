//! Predictions of numbers: without and with taps, and how surely they are made.

use super::magnitude::Trace;
use super::plan::Lane;
use crate::codec::model::{History, Plan};

/// A value of a series that has had one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Step {
    pub(super) quotient: i64,
    /// What is foretold without taps and with them.
    pub(super) plain: i64,
    pub(super) tapped: i64,
}

impl Step {
    /// After this history; `sum` is what taps on earlier columns add.
    #[inline(always)]
    pub(super) fn new(plan: &Plan, lane: &Lane, history: &History<i64>, sum: i128) -> Self {
        let plain = history.next(plan);
        let mut tapped = plain;
        if lane.taps.any {
            tapped = lane.taps.add_own(plain, sum, history.last_three());
        }
        Self {
            quotient: 0,
            plain,
            tapped,
        }
    }
}

/// Quotients after which a series' expectations no longer change but by what comes.
pub(super) const SETTLED: u8 = 4;

/// Counts a quotient; the expected size of the next residual changes after the first, and once more
/// where the second one starts a slope.
#[inline]
pub(super) fn advance(lane: &Lane, plan: &Plan, trace: &mut Trace) {
    if trace.seen >= SETTLED {
        return;
    }
    let seen = trace.seen + 1;
    let slopes = plan.params.predictor.goes_on();
    if seen == 1 && slopes {
        *trace = Trace::new(u32::from(plan.params.slope_bits) + 4, false);
    } else if seen == 1 || (seen == 2 && slopes) {
        let bits = u32::from(plan.params.residual_bits).saturating_sub(1);
        *trace = Trace::new(bits, lane.steady);
    }
    trace.seen = seen;
}
