//! The range back end: every cell as adaptive bits, with the fewest bytes of the three.

use alloc::vec::Vec;

use super::bits::CodeError;
use super::magnitude::{Own, Shared, Trace, residual};
use super::model::{History, Plan};
use super::range::{Coder, Model};
use super::rice::bit_len;
use super::table::{Table, learn};
use super::{DecodeError, TimeParams};
use crate::schema::ColumnKind;

/// Series that have successors of their own; the last also stands for all others.
const MAX_SUCCESSORS: usize = 17;
const SUCCESSOR: [Model; 64] = [Model::new(1 << 15, 1); 64];
const EXPECTED: [Model; 2] = [Model::new(1 << 15, 2), Model::new(60_000, 4)];
const TIME: Own = Own::new(Model::new(1 << 15, 1));

/// Models of one column beside those of its residuals.
#[derive(Debug, Clone, Copy)]
struct ColumnModels {
    own: Own,
    present: [Model; 2],
    raw: [Model; 2],
    was_raw: u8,
    hit: [Model; 3],
    was_hit: u8,
    rank: [Model; 5],
    corrected: [Model; 2],
    negative: Model,
    more: Model,
    was_corrected: u8,
}

impl ColumnModels {
    fn new(plan: &Plan) -> Self {
        let often = plan.says_corrections();
        let share = if plan.params.zero_share == 15 {
            64_500
        } else {
            u16::from(plan.params.zero_share) * 4000 + 2000
        };
        Self {
            own: Own::new(Model::new(share, 2)),
            present: [Model::new(1 << 14, 2), Model::new(62_000, 4)],
            raw: [Model::new(2_000, 6), Model::new(1 << 15, 3)],
            was_raw: 0,
            hit: [Model::new(1 << 15, 2); 3],
            was_hit: 1,
            rank: [Model::new(1 << 14, 3); 5],
            corrected: [
                Model::new(
                    if often { 20_000 } else { 1 << 15 },
                    if often { 6 } else { 2 },
                ),
                Model::new(1 << 15, 3),
            ],
            negative: Model::new(1 << 15, 3),
            more: Model::new(1 << 13, 3),
            was_corrected: 0,
        }
    }
}

/// What a batch has taught so far, beside the histories of a [`Table`].
#[derive(Debug, Clone)]
pub(super) struct RangeRows {
    shared: Shared,
    time: Own,
    columns: Vec<ColumnModels>,
    /// What the columns' models start from.
    starts: Vec<ColumnModels>,
    traces: Vec<Trace>,
    times: Vec<Trace>,
    started: Vec<bool>,
    expected: [Model; 2],
    was_expected: u8,
    /// Per series before (of the first ones): which one follows, as a tree of bits.
    successors: Vec<[Model; 64]>,
    before: u32,
    /// Per column: the latest quotient of whatever series.
    latest: Vec<Option<i64>>,
}

impl RangeRows {
    /// For batches of these columns and so many series.
    pub(super) fn new(plans: &[Plan], series: usize) -> Self {
        let starts: Vec<ColumnModels> = plans.iter().map(ColumnModels::new).collect();
        let successors = if series > 1 { MAX_SUCCESSORS } else { 0 };
        Self {
            shared: Shared::START,
            time: TIME,
            columns: starts.clone(),
            starts,
            traces: Vec::new(),
            times: Vec::new(),
            started: Vec::new(),
            expected: EXPECTED,
            was_expected: 1,
            successors: alloc::vec![SUCCESSOR; successors],
            before: 0,
            latest: alloc::vec![None; plans.len()],
        }
    }

    /// Begins a batch; the memory stays.
    pub(super) fn clear(&mut self) {
        self.shared = Shared::START;
        self.time = TIME;
        self.columns.copy_from_slice(&self.starts);
        self.traces.clear();
        self.times.clear();
        self.started.clear();
        self.expected = EXPECTED;
        self.was_expected = 1;
        self.successors.fill(SUCCESSOR);
        self.before = 0;
        self.latest.fill(None);
    }

    /// Codes which series a row belongs to.
    pub(super) fn series<C: Coder>(
        &mut self,
        coder: &mut C,
        table: &Table,
        series: u32,
    ) -> Result<u32, CodeError> {
        let count = table.series_count();
        if count == 1 {
            return Ok(0);
        }
        let expected = table.expected();
        let same = coder.bit(
            &mut self.expected[usize::from(self.was_expected)],
            series == expected,
        );
        self.was_expected = u8::from(same);
        let mut found = expected;
        if !same {
            let width = bit_len(u64::from(count - 1));
            let models = &mut self.successors[(self.before as usize).min(MAX_SUCCESSORS - 1)];
            let mut node = 1u32;
            for bit in (0..width).rev() {
                let one = coder.bit(&mut models[(node & 63) as usize], (series >> bit) & 1 == 1);
                node = node << 1 | u32::from(one);
            }
            found = node - (1 << width);
            if found >= count {
                return Err(DecodeError::Invalid("series").into());
            }
        }
        self.before = found;
        Ok(found)
    }

    /// Codes a row's time as ticks from the batch's first.
    pub(super) fn time<C: Coder>(
        &mut self,
        coder: &mut C,
        table: &mut Table,
        (plans, params): (&[Plan], &TimeParams),
        series: u32,
        timed: bool,
        ticks: i64,
    ) -> i64 {
        let latest = table.ticks;
        let slot = table.slot(plans, series);
        let (time, ..) = table.get(plans, series);
        let expected = time.predict(latest);
        if slot >= self.times.len() {
            // Another series of the same moment, or the first row of an unordered batch.
            self.times.push(Trace::new(14));
            self.started.push(false);
            for plan in plans {
                let bits = u32::from(plan.params.reference_bits);
                self.traces.push(Trace::new(mean16(bits + 4)));
            }
        }
        let trace = &mut self.times[slot];
        let mut found = expected;
        if timed {
            let r = residual(
                coder,
                &mut self.shared,
                &mut self.time,
                trace,
                0,
                ticks.wrapping_sub(expected),
            );
            found = expected.wrapping_add(r);
        }
        if !self.started[slot] {
            self.started[slot] = true;
            *trace = Trace::new(mean16(u32::from(params.residual_bits)) / 2);
        }
        time.learn(params.step, params.residual_bits, found);
        table.ticks = found;
        found
    }

    /// Codes the cells of a row: `symbols` holds texts, `cells` the bits of the others.
    pub(super) fn cells<C: Coder>(
        &mut self,
        coder: &mut C,
        table: &mut Table,
        plans: &[Plan],
        series: u32,
        cells: &mut [Option<u64>],
        mut text: impl FnMut(&mut C, &mut Model, usize, i64) -> Result<(i64, u64), CodeError>,
    ) -> Result<(), CodeError> {
        let slot = table.slot(plans, series);
        let (_, columns, recents) = table.get(plans, series);
        let traces = &mut self.traces[slot * plans.len()..(slot + 1) * plans.len()];
        let mut beside = 0usize;
        for (at, plan) in plans.iter().enumerate() {
            let cell = cells[at];
            let models = &mut self.columns[at];
            if plan.nullable {
                let before = usize::from(!columns[at].missing());
                let present = coder.bit(&mut models.present[before], cell.is_some());
                columns[at].set_missing(!present);
                if !present {
                    cells[at] = None;
                    continue;
                }
            }
            let bits = cell.unwrap_or(0);
            let recent = &mut recents[at];
            match plan.kind {
                ColumnKind::Bool => {
                    let last = columns[at].last() & 1;
                    let stays = coder.bit(
                        &mut models.own.zero[usize::from(models.was_hit)],
                        bits.cast_signed() & 1 == last,
                    );
                    models.was_hit = u8::from(!stays);
                    let value = if stays { last } else { 1 - last };
                    columns[at].learn(plan, value);
                    cells[at] = Some(value.cast_unsigned());
                    continue;
                }
                ColumnKind::Str => {
                    let (number, bits) =
                        text(coder, &mut models.own.zero[0], at, columns[at].last())?;
                    columns[at].learn(plan, number);
                    cells[at] = Some(bits);
                    continue;
                }
                ColumnKind::I64 | ColumnKind::F32 | ColumnKind::F64 => {}
            }
            let mut rank = None;
            if recent.most() != 0 && !recent.is_empty() {
                let known = if C::WRITES { recent.rank(bits) } else { None };
                let hit = coder.bit(
                    &mut models.hit[usize::from(models.was_hit)],
                    known.is_some(),
                );
                models.was_hit = u8::from(hit);
                if hit {
                    rank = Some(code_rank(coder, models, recent.len(), known.unwrap_or(0)));
                }
            }
            if let Some(rank) = rank {
                let value = recent
                    .get(rank as u64)
                    .ok_or(CodeError::Decode(DecodeError::Invalid("rank")))?;
                let quotient = plan.split(value).map(|(quotient, _)| quotient);
                beside = usize::from(quotient != Some(columns[at].last()));
                learn(plan, &mut columns[at], recent, quotient, value);
                if quotient.is_some() {
                    advance(plan, &mut traces[at]);
                }
                cells[at] = Some(value);
                continue;
            }
            let said = if C::WRITES { plan.split(bits) } else { None };
            let whole = plan.kind == ColumnKind::I64 && plan.is_plain();
            // A rare correction shares the flag of raw bits, so that ordinary values pay for one.
            let rare = plan.corrects() && !plan.says_corrections();
            let mut corrected = false;
            if !whole {
                let exception = said.is_none_or(|(_, correction)| rare && correction != 0);
                let exception = coder.bit(&mut models.raw[usize::from(models.was_raw)], exception);
                models.was_raw = u8::from(exception);
                corrected =
                    exception && rare && coder.bit(&mut models.corrected[0], said.is_some());
                if exception && !corrected {
                    let value = coder.raw(bits, plan.width());
                    learn(plan, &mut columns[at], recent, None, value);
                    cells[at] = Some(value);
                    continue;
                }
            }
            let (quotient, correction) = said.unwrap_or((0, 0));
            let started = columns[at].is_started();
            let plain = match self.latest[at] {
                Some(kin) if !started && plan.params.kin_bits != 0 => {
                    traces[at] = Trace::new(mean16(u32::from(plan.params.kin_bits) + 3));
                    kin
                }
                _ => columns[at].predict(plan),
            };
            let taps = started && !plan.params.taps.is_empty();
            let tapped = if taps {
                foretold(plans, columns, at, plain)
            } else {
                plain
            };
            let expected = if traces[at].trusts_taps() {
                tapped
            } else {
                plain
            };
            let r = residual(
                coder,
                &mut self.shared,
                &mut models.own,
                &mut traces[at],
                beside,
                quotient.wrapping_sub(expected),
            );
            beside = usize::from(r != 0);
            let quotient = expected.wrapping_add(r);
            if taps {
                traces[at].judge(
                    quotient.wrapping_sub(plain).unsigned_abs(),
                    quotient.wrapping_sub(tapped).unsigned_abs(),
                );
            }
            self.latest[at] = Some(quotient);
            let correction = if corrected {
                code_units(coder, models, correction)
            } else if plan.says_corrections() {
                code_correction(coder, models, correction)
            } else {
                0
            };
            let value = if C::WRITES {
                bits
            } else {
                plan.join(quotient, correction)
            };
            learn(plan, &mut columns[at], recent, Some(quotient), value);
            advance(plan, &mut traces[at]);
            cells[at] = Some(value);
        }
        Ok(())
    }
}

/// Counts a quotient; the expected size of the next residual changes after the first, and once more
/// where the second one starts a slope.
#[inline]
fn advance(plan: &Plan, trace: &mut Trace) {
    if trace.seen >= 4 {
        return;
    }
    let seen = trace.seen + 1;
    let slopes = plan.params.predictor.goes_on();
    if seen == 1 && slopes {
        *trace = Trace::new(mean16(u32::from(plan.params.slope_bits) + 4));
    } else if seen == 1 || (seen == 2 && slopes) {
        *trace = Trace::new(mean16(u32::from(plan.params.residual_bits)) / 2);
    }
    trace.seen = seen;
}

/// The next quotient of a column: its own prediction and its taps.
#[inline]
fn foretold(plans: &[Plan], columns: &[History<i64>], at: usize, base: i64) -> i64 {
    let plan = &plans[at];
    let taps = plan.params.taps.as_slice();
    if taps.is_empty() {
        return base;
    }
    let mut sum = 1i128 << 15;
    for tap in taps {
        let column = usize::from(tap.column);
        if column == at && tap.lag == 0 {
            sum = sum.wrapping_add(i128::from(tap.weight));
            continue;
        }
        // An earlier column has learnt this row's value by now, so that its lags begin with 0.
        let lag = usize::from(tap.lag) + usize::from(column < at);
        let above = columns[column].above(&plans[column], lag);
        sum = sum.wrapping_add(i128::from(above).wrapping_mul(i128::from(tap.weight)));
    }
    #[expect(clippy::cast_possible_truncation, reason = "a prediction may wrap")]
    let told = (sum >> 16) as i64;
    base.wrapping_add(told)
}

/// A mean in 1/16 of which so many bits are needed: three quarters of the power of two.
const fn mean16(bits: u32) -> u64 {
    if bits == 0 {
        0
    } else {
        (3 << if bits > 60 { 60 } else { bits }) >> 2
    }
}

fn code_rank<C: Coder>(coder: &mut C, models: &mut ColumnModels, len: usize, rank: usize) -> usize {
    let mut found = 0;
    while found < 4 && found + 1 < len {
        if coder.bit(&mut models.rank[found], rank == found) {
            return found;
        }
        found += 1;
    }
    if found == 4 && len > 5 {
        let width = bit_len(len as u64 - 5);
        let above = coder.raw((rank.saturating_sub(4)) as u64, width);
        found += usize::try_from(above).unwrap_or(usize::MAX).min(len);
    }
    found
}

fn code_correction<C: Coder>(coder: &mut C, models: &mut ColumnModels, correction: i8) -> i8 {
    let any = coder.bit(
        &mut models.corrected[usize::from(models.was_corrected)],
        correction != 0,
    );
    models.was_corrected = u8::from(any);
    if any {
        code_units(coder, models, correction)
    } else {
        0
    }
}

/// A correction that is not zero.
fn code_units<C: Coder>(coder: &mut C, models: &mut ColumnModels, correction: i8) -> i8 {
    let negative = coder.bit(&mut models.negative, correction < 0);
    let mut units = 1;
    if coder.bit(&mut models.more, correction.unsigned_abs() > 1) {
        units = 2 + i8::from(coder.even(u32::from(correction.unsigned_abs() > 2), 1) != 0);
    }
    if negative { -units } else { units }
}
