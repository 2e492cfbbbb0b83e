//! One cell of a row, as adaptive bits and symbols.

use super::DecodeError;
use super::bits::CodeError;
use super::magnitude::{Shared, Trace, residual};
use super::model::{History, Plan};
use super::range::{Coder, Model};
use super::range_columns::{ColumnModels, beside_level};
use super::range_plan::{FlatTap, Lane};
use super::table::{Recent, learn};
use crate::schema::ColumnKind;

/// A cell that is to be coded, and what is known before.
pub(super) struct Cell<'a> {
    /// Place of the column.
    pub(super) at: usize,
    pub(super) plan: &'a Plan,
    pub(super) lane: &'a Lane,
    pub(super) models: &'a mut ColumnModels,
    pub(super) trace: &'a mut Trace,
    /// The column's latest quotient of whatever series.
    pub(super) latest: &'a mut Option<i64>,
    pub(super) recent: &'a mut Recent,
    /// What the row's series remembers of every column; of those before this one, this row's values.
    pub(super) columns: &'a mut [History<i64>],
    pub(super) flat: &'a [FlatTap],
    pub(super) shared: &'a mut Shared,
    pub(super) calm: bool,
    /// Whether the column before moved in this row: 0 no, 1 yes.
    pub(super) beside: &'a mut usize,
}

impl Cell<'_> {
    /// Codes a quotient of which it is known that there is one, without correction, and that the series
    /// has had one before.
    #[inline(always)]
    pub(super) fn plain<C: Coder>(mut self, coder: &mut C, quotient: i64) -> i64 {
        let foretold = self.columns[self.at].predict(self.plan);
        let quotient = self.number(coder, (foretold, self.lane.taps.any), quotient);
        *self.latest = Some(quotient);
        self.columns[self.at].learn(self.plan, quotient);
        advance(self.lane, self.plan, self.trace);
        quotient
    }

    /// Whether the row has said that the cell is as foretold.
    #[inline(always)]
    const fn rests(&self) -> bool {
        self.calm && self.trace.is_quiet()
    }

    /// Codes a quotient by what it is off the prediction, which may add taps; nothing if it rests.
    #[inline(always)]
    fn number<C: Coder>(
        &mut self,
        coder: &mut C,
        (plain, taps): (i64, bool),
        quotient: i64,
    ) -> i64 {
        if self.rests() {
            self.trace.rest();
            *self.beside = 0;
            return plain;
        }
        let tapped = if taps {
            self.lane.taps.add_to(plain, self.flat, self.columns)
        } else {
            plain
        };
        let expected = if self.trace.trusts_taps() {
            tapped
        } else {
            plain
        };
        let off = residual(
            coder,
            self.shared,
            &mut self.models.own,
            self.trace,
            *self.beside,
            quotient.wrapping_sub(expected),
        );
        *self.beside = usize::from(off != 0);
        let quotient = expected.wrapping_add(off);
        if taps {
            self.trace.judge(
                quotient.wrapping_sub(plain).unsigned_abs(),
                quotient.wrapping_sub(tapped).unsigned_abs(),
            );
        }
        quotient
    }

    /// Codes any cell: its bits, if it has a value, and what they were split into. `text` is as for
    /// a row.
    #[inline(never)]
    pub(super) fn code<C: Coder>(
        mut self,
        coder: &mut C,
        cell: Option<u64>,
        said: Option<(i64, i8)>,
        text: &mut impl FnMut(&mut C, &mut Model, usize, i64) -> Result<(i64, u64), CodeError>,
    ) -> Result<Option<u64>, CodeError> {
        let (at, plan, lane, calm) = (self.at, self.plan, self.lane, self.calm);
        let rests = self.rests();
        let history = &mut self.columns[at];
        if lane.nullable {
            let was = !history.missing();
            let present = if calm {
                was
            } else {
                coder.bit(&mut self.models.present[usize::from(was)], cell.is_some())
            };
            history.set_missing(!present);
            if !present {
                return Ok(None);
            }
        }
        let bits = cell.unwrap_or(0);
        match lane.kind {
            ColumnKind::Bool => {
                let last = history.last() & 1;
                let stays = rests
                    || coder.bit(
                        &mut self.models.own.zero[usize::from(self.models.was_hit)],
                        bits.cast_signed() & 1 == last,
                    );
                self.models.was_hit = u8::from(!stays);
                self.trace.note(!stays);
                let value = if stays { last } else { 1 - last };
                history.learn(plan, value);
                return Ok(Some(value.cast_unsigned()));
            }
            ColumnKind::Str => {
                let same = &mut self.models.own.zero[0];
                let (number, bits) = text(coder, same, at, history.last())?;
                history.learn(plan, number);
                return Ok(Some(bits));
            }
            ColumnKind::I64 | ColumnKind::F32 | ColumnKind::F64 => {}
        }
        if lane.remembers_all && !self.recent.is_empty() {
            if let Some(value) = self.known(coder, rests, bits)? {
                return Ok(Some(value));
            }
        }
        let (models, history) = (&mut *self.models, &mut self.columns[at]);
        // A rare correction shares the flag of raw bits, so that ordinary values pay for one.
        let rare = lane.rarely_corrects;
        let mut corrected = false;
        if lane.excepts && !(calm && models.are_told(lane)) {
            let exception = said.is_none_or(|(_, correction)| rare && correction != 0);
            let exception = models.exception(coder, exception);
            corrected = exception && rare && models.is_corrected(coder, said.is_some());
            if exception && !corrected {
                let value = if lane.has_levels {
                    unknown(coder, models, (plan, self.recent), history.last(), bits)?
                } else {
                    coder.raw(bits, plan.width())
                };
                self.trace.note(true);
                learn(plan, history, self.recent, None, value);
                return Ok(Some(value));
            }
        }
        let (quotient, correction) = said.unwrap_or((0, 0));
        let started = history.is_started();
        let plain = if started || rests {
            history.predict(plan)
        } else {
            self.first()
        };
        let quotient = self.number(coder, (plain, started && lane.taps.any), quotient);
        *self.latest = Some(quotient);
        let correction = if corrected {
            self.models.units(coder, correction)
        } else if lane.says_corrections {
            self.models.correction(coder, correction)
        } else {
            0
        };
        let value = if C::WRITES {
            bits
        } else {
            plan.join(quotient, correction)
        };
        let history = &mut self.columns[at];
        learn(plan, history, self.recent, Some(quotient), value);
        advance(lane, plan, self.trace);
        Ok(Some(value))
    }

    /// Codes a value by its rank among the recent ones, if it is one of them.
    fn known<C: Coder>(
        &mut self,
        coder: &mut C,
        rests: bool,
        bits: u64,
    ) -> Result<Option<u64>, CodeError> {
        let rank = if rests {
            Some(0)
        } else {
            rank(coder, self.models, self.recent, bits)
        };
        let Some(rank) = rank else { return Ok(None) };
        let value = at_rank(self.recent, rank)?;
        let quotient = self.plan.split(value).map(|(quotient, _)| quotient);
        let history = &mut self.columns[self.at];
        *self.beside = usize::from(quotient != Some(history.last()));
        learn(self.plan, history, self.recent, quotient, value);
        self.trace.note(rank != 0);
        if quotient.is_some() {
            advance(self.lane, self.plan, self.trace);
        }
        Ok(Some(value))
    }

    /// What foretells a series' first value: the latest of another series, the taps on earlier columns,
    /// or the reference. The expected size of the residual follows.
    fn first(&mut self) -> i64 {
        let params = &self.plan.params;
        match *self.latest {
            Some(kin) if params.kin_bits != 0 => {
                *self.trace = Trace::new(u32::from(params.kin_bits) + 3, false);
                kin
            }
            _ if self.lane.first_taps.any => {
                *self.trace = Trace::new(u32::from(params.first_bits) + 4, false);
                let taps = &self.lane.first_taps;
                taps.add_to(params.reference, self.flat, self.columns)
            }
            _ => self.columns[self.at].last(),
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
) -> Result<u64, CodeError> {
    if !recent.is_empty() {
        if let Some(rank) = rank(coder, models, recent, bits) {
            return at_rank(recent, rank);
        }
    }
    Ok(beside_level(coder, plan, level, bits))
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

/// Counts a quotient; the expected size of the next residual changes after the first, and once more
/// where the second one starts a slope.
#[inline]
fn advance(lane: &Lane, plan: &Plan, trace: &mut Trace) {
    if trace.seen >= 4 {
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
