//! The cells of one column of a block, as adaptive bits and symbols.

use core::ops::Range;

use super::DecodeError;
use super::bits::CodeError;
use super::magnitude::{Before, Shared, Trace, residual};
use super::model::{History, Plan};
use super::range::{Coder, Model};
use super::range_columns::{ColumnModels, Flags, beside_level};
use super::range_plan::{FlatTap, Foretold, Lane};
use super::split::{NONE, said};
use super::table::{Recent, learn, learn_at};
use crate::schema::ColumnKind;

/// The cells of one column of a block, and what is known before.
pub(super) struct Cells<'a> {
    /// Place of the column, of so many.
    pub(super) at: usize,
    pub(super) width: usize,
    pub(super) plan: &'a Plan,
    pub(super) lane: &'a Lane,
    pub(super) flat: &'a [FlatTap],
    pub(super) models: &'a mut ColumnModels,
    pub(super) shared: &'a mut Shared,
    pub(super) recent: &'a mut Recent,
    /// Of all series and columns.
    pub(super) histories: &'a mut [History<i64>],
    pub(super) traces: &'a mut [Trace],
    /// Per row: the slot of its series.
    pub(super) slots: &'a [u32],
    /// Whether all rows are of one series.
    pub(super) one_series: bool,
    /// Per row, for a writer: what the number was split into; see [`Plan::split_all`].
    pub(super) quotients: &'a mut [i64],
    pub(super) corrections: &'a mut [i8],
    /// Per row: what taps on earlier columns add.
    pub(super) sums: &'a mut [i128],
    pub(super) steps: &'a mut [Step],
    /// Per row: how its value is coded.
    pub(super) odd: &'a mut [Odd],
    /// Per row: whether there is a value, and its bits.
    pub(super) present: &'a mut [bool],
    pub(super) bits: &'a mut [u64],
    /// Per row: whether the column before moved.
    pub(super) beside: &'a mut [u8],
    /// Per trail and row: the last three quotients, of earlier columns and of this one.
    pub(super) before: &'a [[i64; 3]],
    pub(super) trail: &'a mut [[i64; 3]],
    pub(super) stride: usize,
}

/// Whether a value is coded otherwise than by its quotient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Odd {
    #[default]
    No,
    /// By its quotient and a rare correction.
    Corrected,
    /// By its bits, or by what came before.
    Raw,
}

impl Cells<'_> {
    /// Codes all cells. `text` is as for a block.
    pub(super) fn code<C: Coder>(
        mut self,
        coder: &mut C,
        flags: &mut Flags,
        text: &mut impl FnMut(&mut C, &mut Model, usize, i64) -> Result<(i64, u64), CodeError>,
    ) -> Result<(), CodeError> {
        let mut start = 0;
        if self.models.is_fresh && self.lane.steady && self.models.moved != 0 {
            // What hardly ever moves may rest from its second value on.
            self.rows(coder, flags, 0..1, text)?;
            start = 1;
        }
        self.models.is_fresh = false;
        self.rows(coder, flags, start..self.slots.len(), text)
    }

    fn rows<C: Coder>(
        &mut self,
        coder: &mut C,
        flags: &mut Flags,
        rows: Range<usize>,
        text: &mut impl FnMut(&mut C, &mut Model, usize, i64) -> Result<(i64, u64), CodeError>,
    ) -> Result<(), CodeError> {
        if rows.is_empty() {
            return Ok(());
        }
        let lane = self.lane;
        let again = lane.remembers_all && !self.recent.is_empty();
        if self.models.moved == 0 && (lane.holds || again) {
            let rests = C::WRITES && self.can_rest(rows.clone(), again);
            if flags.rests(coder, rests) {
                self.rest::<C>(rows, again);
                return Ok(());
            }
        }
        if C::WRITES && self.plan.is_number() {
            let quotients = &mut self.quotients[rows.clone()];
            let corrections = &mut self.corrections[rows.clone()];
            self.plan.split_all(&self.bits[rows.clone()], quotients, corrections);
        }
        let told = self.models.are_told(lane);
        let mut calm = false;
        if told || lane.nullable {
            calm = flags.calm(coder, C::WRITES && self.is_calm(rows.clone(), told));
        }
        if lane.nullable {
            self.presence(coder, rows.clone(), calm);
        }
        if !lane.plain {
            for row in rows {
                if self.present[row] {
                    self.cell(coder, row, text)?;
                }
                self.leave_trail(row);
            }
            return Ok(());
        }
        if lane.taps.any {
            lane.taps.sum_earlier(&mut self.sums[rows.clone()], self.flat, |trail| {
                let start = usize::from(trail) * self.stride;
                &self.before[start + rows.start..start + rows.end]
            });
        }
        let told = !lane.excepts || (told && calm);
        if told && !lane.nullable && self.one_series {
            self.run(coder, rows);
            return Ok(());
        }
        self.exceptions(coder, rows.clone(), told);
        let mut row = rows.start;
        while row < rows.end {
            let slot = self.slots[row];
            let mut end = row;
            while end < rows.end
                && self.slots[end] == slot
                && self.present[end]
                && self.odd[end] == Odd::No
            {
                end += 1;
            }
            if row < end {
                self.run(coder, row..end);
                row = end;
                continue;
            }
            if self.present[row] {
                self.odd(coder, row)?;
            }
            self.leave_trail(row);
            row += 1;
        }
        Ok(())
    }

    /// Codes which rows have a value.
    fn presence<C: Coder>(&mut self, coder: &mut C, rows: Range<usize>, calm: bool) {
        for row in rows {
            let place = self.place(row);
            let history = &mut self.histories[place];
            let was = !history.missing();
            let mut present = was;
            if !calm {
                let model = &mut self.models.present[usize::from(was)];
                present = coder.bit(model, self.present[row]);
                history.set_missing(!present);
            }
            self.present[row] = present;
        }
    }

    /// Codes which values have no quotient, or one that takes a correction; if it is `told`, there are none.
    fn exceptions<C: Coder>(&mut self, coder: &mut C, rows: Range<usize>, told: bool) {
        if told {
            self.odd[rows].fill(Odd::No);
            return;
        }
        // A rare correction shares the flag of raw bits, so that ordinary values pay for one.
        let rare = self.lane.rarely_corrects;
        for row in rows {
            if !self.present[row] {
                continue;
            }
            let said = self.said::<C>(row);
            let exception = said.is_none_or(|(_, correction)| rare && correction != 0);
            self.odd[row] = if !self.models.exception(coder, exception) {
                Odd::No
            } else if rare && self.models.is_corrected(coder, said.is_some()) {
                Odd::Corrected
            } else {
                Odd::Raw
            };
        }
    }

    /// For taps of later columns: what the row's series remembers.
    #[inline(always)]
    fn leave_trail(&mut self, row: usize) {
        let place = self.place(row);
        if let Some(trail) = self.trail.get_mut(row) {
            *trail = self.histories[place].last_three();
        }
    }

    /// Writer: what a row's number was split into. Reader: nothing.
    #[inline(always)]
    fn said<C: Coder>(&self, row: usize) -> Option<(i64, i8)> {
        if C::WRITES {
            said(self.quotients[row], self.corrections[row])
        } else {
            None
        }
    }

    /// Place of a row's history and trace.
    #[inline(always)]
    fn place(&self, row: usize) -> usize {
        self.slots[row] as usize * self.width + self.at
    }

    /// Writer: whether values are missing where they were before, and all others are as foretold; `again`
    /// says that this means that they are the latest of the recent ones.
    fn can_rest(&self, rows: Range<usize>, again: bool) -> bool {
        let newest = self.recent.get(0).filter(|_| again);
        let known = |row: usize| {
            let history = &self.histories[self.place(row)];
            let bits = newest.unwrap_or_else(|| self.plan.join(history.predict(self.plan), 0));
            (!history.missing(), bits)
        };
        let given = |row: usize| (self.present[row], self.bits[row]);
        let rests = |(was, bits): (bool, u64), row| {
            let (present, here) = given(row);
            present == was && (!present || here == bits)
        };
        if self.one_series {
            let known = known(rows.start);
            return rows.into_iter().all(|row| rests(known, row));
        }
        rows.into_iter().all(|row| rests(known(row), row))
    }

    /// Fills in cells that are as foretold.
    fn rest<C: Coder>(&mut self, rows: Range<usize>, again: bool) {
        for row in rows.clone() {
            let place = self.place(row);
            if self.one_series && row >= rows.start + usize::from(SETTLED) {
                // By now each is as the one before.
                let rest = row..rows.end;
                let (present, bits) = (self.present[row - 1], self.bits[row - 1]);
                self.present[rest.clone()].fill(present);
                self.bits[rest.clone()].fill(bits);
                if present {
                    self.beside[rest.clone()].fill(0);
                }
                if let Some(trail) = self.trail.get_mut(rest) {
                    trail.fill(self.histories[place].last_three());
                }
                return;
            }
            let history = &mut self.histories[place];
            let present = !history.missing();
            if present {
                let quotient = match self.recent.get(0) {
                    Some(bits) if again => {
                        self.bits[row] = bits;
                        self.plan.split(bits).map(|(quotient, _)| quotient)
                    }
                    _ => Some(history.predict(self.plan)),
                };
                if let (Some(quotient), false) = (quotient, C::WRITES || again) {
                    self.bits[row] = self.plan.join(quotient, 0);
                }
                learn(self.plan, history, self.recent, quotient, self.bits[row]);
                self.models.latest = quotient.or(self.models.latest);
                advance(self.lane, self.plan, &mut self.traces[place]);
                self.beside[row] = 0;
            }
            self.present[row] = present;
            self.leave_trail(row);
        }
    }

    /// Writer: whether values are missing where they were before, and if it is `told`, there is no
    /// exception.
    fn is_calm(&self, rows: Range<usize>, told: bool) -> bool {
        let same = |row: usize| self.present[row] != self.histories[self.place(row)].missing();
        if self.lane.nullable && !rows.clone().all(same) {
            return false;
        }
        let corrected = self.lane.says_corrections;
        let present = self.present[rows.clone()].iter();
        let mut cells = self.corrections[rows].iter().zip(present);
        !told || cells.all(|(&c, &present)| c == 0 || !present || (corrected && c != NONE))
    }

    /// Codes values of one series, of which it is known that there are quotients of them, without a rare
    /// correction.
    #[inline(never)]
    fn run<C: Coder>(&mut self, coder: &mut C, rows: Range<usize>) {
        self.quotients(coder, rows.clone());
        if self.lane.says_corrections {
            for row in rows {
                let said = self.said::<C>(row);
                let correction = said.map_or(0, |(_, correction)| correction);
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

    /// Codes the quotients of such values; a reader leaves them in place of bits.
    #[inline(always)]
    fn quotients<C: Coder>(&mut self, coder: &mut C, rows: Range<usize>) {
        let place = self.place(rows.start);
        let mut row = rows.start;
        while row < rows.end && self.traces[place].seen < SETTLED {
            let said = if C::WRITES { self.quotients[row] } else { 0 };
            let quotient = self.number(coder, row, said);
            let history = &mut self.histories[place];
            history.learn(self.plan, quotient);
            advance(self.lane, self.plan, &mut self.traces[place]);
            if let Some(trail) = self.trail.get_mut(row) {
                *trail = history.last_three();
            }
            self.steps[row].quotient = quotient;
            row += 1;
        }
        let rows = row..rows.end;
        if rows.is_empty() {
            return;
        }
        let (plan, lane) = (self.plan, self.lane);
        let mut history = self.histories[place];
        let steps = &mut self.steps[rows.clone()];
        if C::WRITES {
            // What is foretold does not wait for the coder: all at once takes less time.
            let given = self.quotients[rows.clone()].iter().zip(&self.sums[rows.clone()]);
            for (step, (&quotient, &sum)) in steps.iter_mut().zip(given) {
                *step = Step::new(plan, lane, &history, sum);
                step.quotient = quotient;
                history.follow(quotient);
            }
        }
        let mut trace = self.traces[place];
        let mut moved = self.models.moved;
        let mature = self.models.values >= 64;
        let even = mature && self.models.own.signs_are_even();
        self.models.values += rows.len() as u32;
        let cells = steps.iter_mut().zip(&mut self.beside[rows.clone()]);
        for (at, (step, beside)) in cells.enumerate() {
            if !C::WRITES {
                *step = Step::new(plan, lane, &history, self.sums[rows.start + at]);
            }
            let expected = if trace.trusts_taps() { step.tapped } else { step.plain };
            let off = residual(
                coder,
                self.shared,
                &mut self.models.own,
                &mut trace,
                Before { beside: *beside != 0, learn: !mature || at % 4 == 0, even },
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

    /// Codes a quotient by what it is off the prediction, which may add taps.
    #[inline(never)]
    fn number<C: Coder>(&mut self, coder: &mut C, row: usize, quotient: i64) -> i64 {
        let place = self.place(row);
        let history = &self.histories[place];
        let trace = &mut self.traces[place];
        let add = |taps: &Foretold, base: i64| {
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
            Before { beside: self.beside[row] != 0, ..Before::PLAIN },
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

    /// Codes a value without a quotient, or with one and a correction.
    #[inline(never)]
    fn odd<C: Coder>(&mut self, coder: &mut C, row: usize) -> Result<(), CodeError> {
        let place = self.place(row);
        if self.odd[row] == Odd::Corrected {
            let said = self.said::<C>(row);
            let (quotient, correction) = said.unwrap_or((0, 0));
            let quotient = self.number(coder, row, quotient);
            let correction = self.models.units(coder, correction);
            if !C::WRITES {
                self.bits[row] = self.plan.join(quotient, correction);
            }
            self.histories[place].learn(self.plan, quotient);
            advance(self.lane, self.plan, &mut self.traces[place]);
            return Ok(());
        }
        let (bits, last) = (self.bits[row], self.histories[place].last());
        let (value, rank) = if self.lane.has_levels {
            unknown(coder, self.models, (self.plan, self.recent), last, bits)?
        } else {
            (coder.raw(bits, self.plan.width()), None)
        };
        learn_at(self.plan, &mut self.histories[place], (self.recent, rank), None, value);
        self.moved(row, true);
        self.bits[row] = value;
        Ok(())
    }

    /// Codes a value of a column that is not plain.
    #[inline(never)]
    fn cell<C: Coder>(
        &mut self,
        coder: &mut C,
        row: usize,
        text: &mut impl FnMut(&mut C, &mut Model, usize, i64) -> Result<(i64, u64), CodeError>,
    ) -> Result<(), CodeError> {
        let (plan, lane, place) = (self.plan, self.lane, self.place(row));
        let history = &mut self.histories[place];
        let bits = self.bits[row];
        match lane.kind {
            ColumnKind::Bool => {
                let last = history.last() & 1;
                let stays = coder.bit(
                    &mut self.models.own.zero[usize::from(self.models.was_hit)],
                    bits.cast_signed() & 1 == last,
                );
                self.models.was_hit = u8::from(!stays);
                self.moved(row, !stays);
                let value = if stays { last } else { 1 - last };
                self.histories[place].learn(plan, value);
                self.bits[row] = value.cast_unsigned();
                return Ok(());
            }
            ColumnKind::Str => {
                let same = &mut self.models.own.zero[0];
                let (number, bits) = text(coder, same, row, history.last())?;
                history.learn(plan, number);
                self.bits[row] = bits;
                return Ok(());
            }
            ColumnKind::I64 | ColumnKind::F32 | ColumnKind::F64 => {}
        }
        if lane.remembers_all && !self.recent.is_empty() && self.known(coder, row)? {
            return Ok(());
        }
        self.odd[row] = Odd::No;
        if lane.excepts {
            self.exceptions(coder, row..row + 1, false);
        }
        if self.odd[row] != Odd::No {
            return self.odd(coder, row);
        }
        let said = self.said::<C>(row);
        let (quotient, correction) = said.unwrap_or((0, 0));
        let quotient = self.number(coder, row, quotient);
        let mut found = 0;
        if lane.says_corrections {
            found = self.models.correction(coder, correction);
        }
        if !C::WRITES {
            self.bits[row] = plan.join(quotient, found);
        }
        let history = &mut self.histories[place];
        // It is none of the recent values: those are coded by their rank.
        learn_at(plan, history, (self.recent, None), Some(quotient), self.bits[row]);
        advance(lane, plan, &mut self.traces[place]);
        Ok(())
    }

    /// Notes whether a value that has no residual was as foretold.
    fn moved(&mut self, row: usize, moved: bool) {
        let place = self.place(row);
        self.traces[place].note(moved);
        self.models.moved = self.models.moved << 1 | u8::from(moved);
    }

    /// Codes a value by its rank among the recent ones, if it is one of them.
    fn known<C: Coder>(&mut self, coder: &mut C, row: usize) -> Result<bool, CodeError> {
        let place = self.place(row);
        let Some(rank) = rank(coder, self.models, self.recent, self.bits[row]) else {
            return Ok(false);
        };
        let value = at_rank(self.recent, rank)?;
        let said = if C::WRITES { self.said::<C>(row) } else { self.plan.split(value) };
        let quotient = said.map(|(quotient, _)| quotient);
        let history = &mut self.histories[place];
        self.beside[row] = u8::from(quotient != Some(history.last()));
        learn_at(self.plan, history, (self.recent, Some(rank)), quotient, value);
        self.moved(row, rank != 0);
        if quotient.is_some() {
            advance(self.lane, self.plan, &mut self.traces[place]);
        }
        self.bits[row] = value;
        Ok(true)
    }
}

/// A value of a series that has had one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Step {
    quotient: i64,
    /// What is foretold without taps and with them.
    plain: i64,
    tapped: i64,
}

impl Step {
    /// After this history; `sum` is what taps on earlier columns add.
    #[inline(always)]
    fn new(plan: &Plan, lane: &Lane, history: &History<i64>, sum: i128) -> Self {
        let plain = history.goes_on(plan);
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

/// Codes a value that is no level: one that came before, or its distance from the last level.
fn unknown<C: Coder>(
    coder: &mut C,
    models: &mut ColumnModels,
    (plan, recent): (&Plan, &Recent),
    level: i64,
    bits: u64,
) -> Result<(u64, Option<usize>), CodeError> {
    if !recent.is_empty() {
        if let Some(rank) = rank(coder, models, recent, bits) {
            return Ok((at_rank(recent, rank)?, Some(rank)));
        }
    }
    Ok((beside_level(coder, plan, level, bits), None))
}

/// Codes whether a value is among the recent ones, and its rank if it is.
fn rank<C: Coder>(
    coder: &mut C,
    models: &mut ColumnModels,
    recent: &Recent,
    bits: u64,
) -> Option<usize> {
    let known = if C::WRITES { recent.rank(bits) } else { None };
    models
        .hit(coder, known.is_some())
        .then(|| models.rank(coder, recent.len(), known.unwrap_or(0)))
}

/// The recent value of a rank, of which a reader's may be too high.
fn at_rank(recent: &Recent, rank: usize) -> Result<u64, CodeError> {
    recent
        .get(rank as u64)
        .ok_or(CodeError::Decode(DecodeError::Invalid("rank")))
}

/// Quotients after which a series' expectations no longer change but by what comes.
const SETTLED: u8 = 4;

/// Counts a quotient; the expected size of the next residual changes after the first, and once more
/// where the second one starts a slope.
#[inline]
fn advance(lane: &Lane, plan: &Plan, trace: &mut Trace) {
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
