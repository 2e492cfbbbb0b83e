//! Codes the numbers of one column of a block by their residuals.

use core::ops::Range;

use super::cells::Cells;
use super::coder::Coder;
use super::magnitude::{Before, Trace, residual};
use super::plan::TapSums;
use super::steps::{SETTLED, Step, advance};

/// Numbers of a column after which its models learn from some of them only, and signs of even odds go
/// without a model.
const MATURE: u32 = 64;
/// Mature models learn from the first of so many numbers in a row.
const PAUSE: usize = 4;

impl Cells<'_> {
    /// Codes consecutive values of one series, all of which have a quotient and no rare correction.
    #[inline(never)]
    pub(super) fn run<C: Coder>(&mut self, coder: &mut C, rows: Range<usize>) {
        self.quotients(coder, rows.clone());
        if self.lane.often_corrects {
            for row in rows {
                let parts = self.parts::<C>(row);
                let correction = parts.map_or(0, |(_, correction)| correction);
                let correction = self.models.correction(coder, correction);
                if !C::WRITES {
                    self.bits[row] = self.plan.join(self.steps[row].quotient, correction);
                }
            }
        } else if !C::WRITES {
            for (bits, step) in self.bits[rows.clone()].iter_mut().zip(&self.steps[rows]) {
                *bits = self.plan.join(step.quotient, 0);
            }
        }
    }

    /// Codes the quotients of a series up to its [`SETTLED`] one; returns the first row that is left.
    #[inline(always)]
    fn first_quotients<C: Coder>(&mut self, coder: &mut C, rows: Range<usize>) -> usize {
        let place = self.place(rows.start);
        let mut row = rows.start;
        while row < rows.end && self.traces[place].seen < SETTLED {
            let given = if C::WRITES { self.quotients[row] } else { 0 };
            let quotient = self.number(coder, row, given);
            self.histories[place].learn(self.plan, quotient);
            advance(self.lane, self.plan, &mut self.traces[place]);
            self.leave_trail(row);
            self.steps[row].quotient = quotient;
            row += 1;
        }
        row
    }

    /// Codes the quotients of such values, and leaves them in the steps.
    #[inline(always)]
    fn quotients<C: Coder>(&mut self, coder: &mut C, rows: Range<usize>) {
        let rows = self.first_quotients(coder, rows.clone())..rows.end;
        if rows.is_empty() {
            return;
        }
        let place = self.place(rows.start);
        let (plan, lane) = (self.plan, self.lane);
        let mut history = self.histories[place];
        let steps = &mut self.steps[rows.clone()];
        if C::WRITES {
            // Predictions of a writer do not wait for the coder: all at once take less time.
            let given = self.quotients[rows.clone()]
                .iter()
                .zip(&self.sums[rows.clone()]);
            for (step, (&quotient, &sum)) in steps.iter_mut().zip(given) {
                *step = Step::new(plan, lane, &history, sum);
                step.quotient = quotient;
                history.follow(quotient);
            }
        }
        let mut trace = self.traces[place];
        let mut moved = self.models.moved;
        let mature = self.models.numbers >= MATURE;
        let even = mature && self.models.own.signs_are_even();
        let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        self.models.numbers = self.models.numbers.saturating_add(count);
        let cells = steps.iter_mut().zip(&mut self.beside[rows.clone()]);
        for (at, (step, beside)) in cells.enumerate() {
            if !C::WRITES {
                *step = Step::new(plan, lane, &history, self.sums[rows.start + at]);
            }
            let expected = if trace.trusts_taps() {
                step.tapped
            } else {
                step.plain
            };
            let off = residual(
                coder,
                self.shared,
                &mut self.models.own,
                &mut trace,
                Before {
                    beside: *beside != 0,
                    learn: !mature || at % PAUSE == 0,
                    even,
                },
                step.quotient.wrapping_sub(expected),
            );
            let has_moved = u8::from(off != 0);
            *beside = has_moved;
            moved = moved << 1 | has_moved;
            if !C::WRITES {
                step.quotient = expected.wrapping_add(off);
                history.follow(step.quotient);
            }
            if lane.taps.any {
                trace.judge(
                    step.quotient.wrapping_sub(step.plain).unsigned_abs(),
                    step.quotient.wrapping_sub(step.tapped).unsigned_abs(),
                );
            }
        }
        if let Some(trail) = self.trail.get_mut(rows) {
            let mut history = self.histories[place];
            for (trail, step) in trail.iter_mut().zip(steps) {
                history.follow(step.quotient);
                *trail = history.last_three();
            }
        }
        self.models.moved = moved;
        self.models.latest = Some(history.last());
        self.traces[place] = trace;
        self.histories[place] = history;
    }

    /// Codes a quotient by its residual; the prediction may add taps.
    #[inline(never)]
    pub(super) fn number<C: Coder>(&mut self, coder: &mut C, row: usize, quotient: i64) -> i64 {
        let place = self.place(row);
        let history = &self.histories[place];
        let trace = &mut self.traces[place];
        let add = |taps: &TapSums, base: i64| {
            let mut sum = [0];
            taps.sum_earlier(&mut sum, self.flat, |trail| {
                &self.before[usize::from(trail) * self.stride + row..]
            });
            taps.add_own(base, sum[0], history.last_three())
        };
        let (taps, plain) = if history.is_started() {
            (self.lane.taps.any, history.predict(self.plan))
        } else {
            let params = &self.plan.params;
            let first = match self.models.latest {
                Some(kin) if params.kin_bits != 0 => {
                    *trace = Trace::new(u32::from(params.kin_bits) + 3, false);
                    kin
                }
                _ if self.lane.first_taps.any => {
                    *trace = Trace::new(u32::from(params.first_bits) + 4, false);
                    add(&self.lane.first_taps, params.reference)
                }
                _ => history.last(),
            };
            (false, first)
        };
        let tapped = if taps {
            add(&self.lane.taps, plain)
        } else {
            plain
        };
        let expected = if trace.trusts_taps() { tapped } else { plain };
        let off = residual(
            coder,
            self.shared,
            &mut self.models.own,
            trace,
            Before {
                beside: self.beside[row] != 0,
                ..Before::PLAIN
            },
            quotient.wrapping_sub(expected),
        );
        let moved = u8::from(off != 0);
        self.beside[row] = moved;
        self.models.moved = self.models.moved << 1 | moved;
        let quotient = expected.wrapping_add(off);
        if taps {
            trace.judge(
                quotient.wrapping_sub(plain).unsigned_abs(),
                quotient.wrapping_sub(tapped).unsigned_abs(),
            );
        }
        self.models.latest = Some(quotient);
        quotient
    }
}
