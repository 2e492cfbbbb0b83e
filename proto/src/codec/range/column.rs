//! Codes the cells of one column of a block: flags for the block first, then its values.

use core::ops::Range;

use super::cells::{Cells, Exception};
use super::coder::Coder;
use super::column_models::{ColumnModels, Flags, beside_level};
use super::models::Model;
use super::steps::{SETTLED, advance};
use crate::codec::DecodeError;
use crate::codec::bits::CodeError;
use crate::codec::model::{NONE, Plan, Recent, learn, learn_at};
use crate::schema::ColumnKind;

impl Cells<'_> {
    /// Codes all cells. `text` is as in [`super::RangeRows::columns`].
    pub(super) fn code<C: Coder>(
        mut self,
        coder: &mut C,
        flags: &mut Flags,
        text: &mut impl FnMut(&mut C, &mut Model, usize, i64) -> Result<(i64, u64), CodeError>,
    ) -> Result<(), CodeError> {
        let mut start = 0;
        if self.models.is_fresh && self.lane.steady && self.models.moved != 0 {
            // A column that hardly ever moves may rest from its second value on.
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
            self.plan
                .split_all(&self.bits[rows.clone()], quotients, corrections);
        }
        let flagged = self.models.uses_block_flag(lane);
        let mut calm = false;
        if flagged || lane.nullable {
            calm = flags.calm(coder, C::WRITES && self.is_calm(rows.clone(), flagged));
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
            lane.taps
                .sum_earlier(&mut self.sums[rows.clone()], self.flat, |trail| {
                    let start = usize::from(trail) * self.stride;
                    &self.before[start + rows.start..start + rows.end]
                });
        }
        let all_plain = !lane.excepts || (flagged && calm);
        if all_plain && !lane.nullable && self.one_series {
            self.run(coder, rows);
            return Ok(());
        }
        self.code_exceptions(coder, rows.clone(), all_plain);
        let mut row = rows.start;
        while row < rows.end {
            let slot = self.slots[row];
            let mut end = row;
            while end < rows.end
                && self.slots[end] == slot
                && self.present[end]
                && self.exceptions[end] == Exception::None
            {
                end += 1;
            }
            if row < end {
                self.run(coder, row..end);
                row = end;
                continue;
            }
            if self.present[row] {
                self.code_exception(coder, row)?;
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

    /// Codes which values have no quotient, or one that takes a rare correction; with `all_plain` there
    /// are none.
    fn code_exceptions<C: Coder>(&mut self, coder: &mut C, rows: Range<usize>, all_plain: bool) {
        if all_plain {
            self.exceptions[rows].fill(Exception::None);
            return;
        }
        // A rare correction shares the flag of raw bits: ordinary values pay for one flag, not for two.
        let rare = self.lane.rarely_corrects;
        for row in rows {
            if !self.present[row] {
                continue;
            }
            let parts = self.parts::<C>(row);
            let exception = parts.is_none_or(|(_, correction)| rare && correction != 0);
            self.exceptions[row] = if !self.models.exception(coder, exception) {
                Exception::None
            } else if rare && self.models.is_corrected(coder, parts.is_some()) {
                Exception::Corrected
            } else {
                Exception::Raw
            };
        }
    }

    /// Writer: whether values are missing where they were before, and all others are as predicted. With
    /// `again` the prediction is the latest of the recent values.
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

    /// Fills in cells that are as predicted.
    fn rest<C: Coder>(&mut self, rows: Range<usize>, again: bool) {
        for row in rows.clone() {
            let place = self.place(row);
            if self.one_series && row >= rows.start + usize::from(SETTLED) {
                // From here on each value equals the one before.
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

    /// Writer: whether values are missing where they were before, and none is an exception if exceptions
    /// are `flagged` by the block.
    fn is_calm(&self, rows: Range<usize>, flagged: bool) -> bool {
        let same = |row: usize| self.present[row] != self.histories[self.place(row)].missing();
        if self.lane.nullable && !rows.clone().all(same) {
            return false;
        }
        let corrected = self.lane.often_corrects;
        let present = self.present[rows.clone()].iter();
        let mut cells = self.corrections[rows].iter().zip(present);
        !flagged || cells.all(|(&c, &present)| c == 0 || !present || (corrected && c != NONE))
    }

    /// Codes a value without a quotient, or with one and a correction.
    #[inline(never)]
    fn code_exception<C: Coder>(&mut self, coder: &mut C, row: usize) -> Result<(), CodeError> {
        let place = self.place(row);
        if self.exceptions[row] == Exception::Corrected {
            let parts = self.parts::<C>(row);
            let (quotient, correction) = parts.unwrap_or((0, 0));
            let quotient = self.number(coder, row, quotient);
            let correction = self.models.units(coder, correction);
            if !C::WRITES {
                self.bits[row] = self.plan.join(quotient, correction);
            }
            let history = &mut self.histories[place];
            let recent = (&mut *self.recent, None);
            learn_at(self.plan, history, recent, Some(quotient), self.bits[row]);
            advance(self.lane, self.plan, &mut self.traces[place]);
            return Ok(());
        }
        let (bits, last) = (self.bits[row], self.histories[place].last());
        let (value, rank) = if self.lane.has_levels {
            unknown(coder, self.models, (self.plan, self.recent), last, bits)?
        } else {
            (coder.raw(bits, self.plan.width()), None)
        };
        learn_at(
            self.plan,
            &mut self.histories[place],
            (self.recent, rank),
            None,
            value,
        );
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
        self.exceptions[row] = Exception::None;
        if lane.excepts {
            self.code_exceptions(coder, row..row + 1, false);
        }
        if self.exceptions[row] != Exception::None {
            return self.code_exception(coder, row);
        }
        let parts = self.parts::<C>(row);
        let (quotient, correction) = parts.unwrap_or((0, 0));
        let quotient = self.number(coder, row, quotient);
        let mut found = 0;
        if lane.often_corrects {
            found = self.models.correction(coder, correction);
        }
        if !C::WRITES {
            self.bits[row] = plan.join(quotient, found);
        }
        let history = &mut self.histories[place];
        // Recent values are coded by their rank, and this one was not.
        learn_at(
            plan,
            history,
            (self.recent, None),
            Some(quotient),
            self.bits[row],
        );
        advance(lane, plan, &mut self.traces[place]);
        Ok(())
    }

    /// Notes whether a value that has no residual was as predicted.
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
        let parts = if C::WRITES {
            self.parts::<C>(row)
        } else {
            self.plan.split(value)
        };
        let quotient = parts.map(|(quotient, _)| quotient);
        let history = &mut self.histories[place];
        self.beside[row] = u8::from(quotient != Some(history.last()));
        learn_at(
            self.plan,
            history,
            (self.recent, Some(rank)),
            quotient,
            value,
        );
        self.moved(row, rank != 0);
        if quotient.is_some() {
            advance(self.lane, self.plan, &mut self.traces[place]);
        }
        self.bits[row] = value;
        Ok(true)
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

/// The recent value of a rank; a damaged batch may name a rank that is too high.
fn at_rank(recent: &Recent, rank: usize) -> Result<u64, CodeError> {
    recent
        .get(rank as u64)
        .ok_or(CodeError::Decode(DecodeError::Invalid("rank")))
}
