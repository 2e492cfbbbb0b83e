//! Predictions of numbers without and with taps, and the expected size of what they leave.

use super::magnitude::Trace;
use super::plan::Lane;
use crate::codec::model::{History, Plan};

/// A value of a series that had one before.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Step {
    pub(super) quotient: i64,
    /// The quotient as predicted without taps and with them.
    pub(super) plain: i64,
    pub(super) tapped: i64,
}

impl Step {
    /// The prediction after this history; `sum` is that of [`super::plan::TapSums::sum_earlier`].
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

/// Quotients of a series after which only its residuals change the size that is expected.
pub(super) const SETTLED: u8 = 4;

/// Counts a quotient. The expected size of the next residual changes after the first one, and again
/// after the second one where the predictor goes on with a slope.
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
