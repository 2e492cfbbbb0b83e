//! The Rice back end: adaptive Golomb-Rice codes, row by row, with a few bytes of state per column.
//!
//! The running share of values that were as predicted puts each column in one of three modes:
//!
//! | mode | a value costs |
//! |---|---|
//! | quiet | nothing, as long as all quiet columns of the row are as predicted |
//! | flagged | one bit if it is as predicted, else one bit and a Rice code |
//! | loud | a Rice code |
//!
//! A row begins with one bit: whether all its quiet items (series, time, quiet columns, rare exceptions
//! of the others) are as predicted. After a row without loud columns a run length stands in its place,
//! which counts the rows that are wholly as predicted. A row can then cost far less than a bit.

pub use super::state::RowState;
use super::texts::text;
pub use super::texts::{NoTexts, Texts};
use crate::codec::DecodeError;
use crate::codec::bits::{Bits, CodeError, bit_len};
use crate::codec::model::{Class, History, Plan, Symbol, Width};
use crate::schema::ColumnKind;
use crate::schema::params::Scale;

/// Share of predicted values (of 255) from which a column is quiet, and from which it is flagged.
const QUIET: u8 = 200;
const FLAGGED: u8 = 100;
/// Share of exceptions (of 255) up to which the bit at the row's start covers them.
const RARE: u8 = 40;
/// Longest unary part of a code in bits; a longer code is written by its length.
const MAX_UNARY: u32 = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Quiet,
    Flagged,
    Loud,
}

/// The state of a batch beside its histories.
#[derive(Debug, Clone, Copy)]
pub struct Rice {
    /// Rows of the running run: counted up by a writer, down by a reader. A batch has at most 65,535
    /// rows.
    run: u16,
    /// Reader: a run was read, and the row after it was not.
    in_run: bool,
    /// Running mean of runs in 1/16.
    run_mean: u32,
    /// Whether the row before had a column that is not quiet.
    loud: bool,
}

impl Default for Rice {
    fn default() -> Self {
        Self {
            run: 0,
            in_run: false,
            run_mean: 16,
            loud: true,
        }
    }
}

impl Rice {
    /// Begins a row; returns whether every item is as predicted. A writer passes `predicted` from
    /// [`Rice::is_predicted`]; a reader's argument does not matter.
    ///
    /// # Errors
    /// As [`Bits::bits`].
    pub fn begin<B: Bits>(&mut self, bits: &mut B, predicted: bool) -> Result<bool, CodeError> {
        if self.loud {
            return bits.bit(predicted);
        }
        if B::WRITES {
            if predicted {
                self.run += 1;
            } else {
                self.end_run(bits)?;
            }
            return Ok(predicted);
        }
        if !self.in_run {
            self.end_run(bits)?;
            self.in_run = true;
        }
        if self.run == 0 {
            self.in_run = false;
            return Ok(false);
        }
        self.run -= 1;
        Ok(true)
    }

    /// Ends a batch.
    ///
    /// # Errors
    /// As [`Bits::bits`]; a reader also refuses a run that goes beyond the batch.
    pub fn finish<B: Bits>(&mut self, bits: &mut B) -> Result<(), CodeError> {
        if B::WRITES {
            if self.run > 0 {
                self.end_run(bits)?;
            }
        } else if self.run > 0 {
            return Err(CodeError::Decode(DecodeError::Invalid("run")));
        }
        Ok(())
    }

    fn end_run<B: Bits>(&mut self, bits: &mut B) -> Result<(), CodeError> {
        let run = golomb(bits, u64::from(self.run), rice_bits(self.run_mean))?;
        let run = u16::try_from(run).map_err(|_| CodeError::Decode(DecodeError::Invalid("run")))?;
        settle(&mut self.run_mean, u32::from(run), 1);
        self.run = if B::WRITES { 0 } else { run };
        Ok(())
    }

    /// Whether every item of the row is as predicted: the time (its residual in zigzag) and the symbols.
    #[must_use]
    pub fn is_predicted<W: Width>(
        &self,
        row: &RowState<'_, W>,
        time: u64,
        symbols: &[Symbol],
    ) -> bool {
        let quiet_time = row.time.zeros >= QUIET;
        if row.timed && ((quiet_time && time != 0) || (!quiet_time && !self.loud)) {
            return false;
        }
        row.plans
            .iter()
            .zip(row.columns.iter())
            .zip(symbols)
            .all(|((plan, history), symbol)| {
                let mode = mode(plan, history);
                if mode == Mode::Quiet {
                    is_hit(plan, history, symbol)
                } else {
                    self.loud && !(is_item(plan, history, mode) && is_exception(plan, symbol))
                }
            })
    }

    /// Codes the time and the cells of a row after [`Rice::begin`]; returns the time's residual in zigzag.
    /// `predicted` is what [`Rice::begin`] returned.
    ///
    /// # Errors
    /// As [`Bits::bits`]; a reader also refuses symbols that no writer makes.
    pub fn cells<B: Bits, W: Width>(
        &mut self,
        bits: &mut B,
        row: &mut RowState<'_, W>,
        predicted: bool,
        time: u64,
        symbols: &mut [Symbol],
        texts: &mut impl Texts,
    ) -> Result<u64, CodeError> {
        let was_loud = self.loud;
        self.loud = false;
        let time = self.time(bits, row, predicted, time)?;
        let columns = row.plans.iter().zip(row.columns.iter_mut()).zip(symbols);
        for (at, ((plan, history), symbol)) in columns.enumerate() {
            let mode = mode(plan, history);
            self.loud |= mode != Mode::Quiet;
            cell(bits, plan, history, mode, predicted, symbol, (at, texts))?;
        }
        if predicted && self.loud && !was_loud {
            return Err(CodeError::Decode(DecodeError::Invalid("run")));
        }
        Ok(time)
    }

    fn time<B: Bits, W>(
        &mut self,
        bits: &mut B,
        row: &mut RowState<'_, W>,
        predicted: bool,
        time: u64,
    ) -> Result<u64, CodeError> {
        if !row.timed {
            return Ok(0);
        }
        let history = &mut *row.time;
        let quiet = history.zeros >= QUIET;
        self.loud |= !quiet;
        let code = if quiet {
            if predicted || !bits.bit(time != 0)? {
                0
            } else {
                let code = golomb(bits, time.wrapping_sub(1), rice_bits(history.mean))?;
                settle(&mut history.mean, clamp(code), 3);
                code.wrapping_add(1)
            }
        } else {
            let code = golomb(bits, time, rice_bits(history.mean))?;
            settle(&mut history.mean, clamp(code), 3);
            code
        };
        share(&mut history.zeros, code == 0);
        Ok(code)
    }
}

fn mode<W: Width>(plan: &Plan, history: &History<W>) -> Mode {
    if history.missing() || history.zeros >= QUIET {
        Mode::Quiet
    } else if history.zeros >= FLAGGED || !plan.is_number() {
        Mode::Flagged
    } else {
        Mode::Loud
    }
}

/// Whether the bit at the row's start covers this column.
fn is_item<W: Width>(plan: &Plan, history: &History<W>, mode: Mode) -> bool {
    mode == Mode::Quiet
        || (plan.exceptional && plan.params.memory == 0 && history.exceptions < RARE)
}

fn is_hit<W: Width>(plan: &Plan, history: &History<W>, symbol: &Symbol) -> bool {
    if history.missing() {
        return symbol.class == Class::Missing;
    }
    let class = if plan.params.memory == 0 {
        Class::Number
    } else {
        Class::Recent
    };
    symbol.class == class
        && symbol.code == 0
        && (class == Class::Recent || symbol.correction == predicted_correction(plan, history))
}

fn predicted_correction<W: Width>(plan: &Plan, history: &History<W>) -> i8 {
    if plan.often_corrects() {
        history.correction()
    } else {
        0
    }
}

fn is_exception(plan: &Plan, symbol: &Symbol) -> bool {
    match symbol.class {
        Class::Missing => true,
        Class::Raw => plan.kind != ColumnKind::Str,
        Class::Number => symbol.correction != 0 && !plan.often_corrects(),
        Class::Recent => false,
    }
}

/// Codes one cell and updates the shares and the mean of its history.
fn cell<B: Bits, W: Width>(
    bits: &mut B,
    plan: &Plan,
    history: &mut History<W>,
    mode: Mode,
    predicted: bool,
    symbol: &mut Symbol,
    texts: (usize, &mut impl Texts),
) -> Result<(), CodeError> {
    if mode == Mode::Quiet {
        return quiet_cell(bits, plan, history, predicted, symbol, texts);
    }
    if plan.params.memory != 0 {
        remembered(bits, plan, history, symbol, 0)?;
    } else {
        let item = is_item(plan, history, mode);
        let surprise = if item && predicted {
            false
        } else {
            plan.exceptional && bits.bit(is_exception(plan, symbol))?
        };
        share(&mut history.exceptions, surprise);
        if surprise {
            exception(bits, plan, history, symbol)?;
        } else if mode == Mode::Loud {
            number(bits, plan, history, symbol, false, texts)?;
        } else {
            let hit = B::WRITES && is_hit(plan, history, symbol);
            if bits.bit(hit)? {
                let correction = predicted_correction(plan, history);
                *symbol = Symbol {
                    class: Class::Number,
                    correction,
                    code: 0,
                };
                share(&mut history.zeros, true);
                return Ok(());
            }
            number(bits, plan, history, symbol, true, texts)?;
            share(&mut history.zeros, false);
            return Ok(());
        }
    }
    if symbol.class != Class::Missing {
        share(&mut history.zeros, is_zero(symbol));
    }
    Ok(())
}

/// Codes one cell of a quiet column.
fn quiet_cell<B: Bits, W: Width>(
    bits: &mut B,
    plan: &Plan,
    history: &mut History<W>,
    predicted: bool,
    symbol: &mut Symbol,
    texts: (usize, &mut impl Texts),
) -> Result<(), CodeError> {
    let hit = B::WRITES && is_hit(plan, history, symbol);
    if predicted || !bits.bit(!hit)? {
        if history.missing() {
            *symbol = Symbol {
                class: Class::Missing,
                ..Symbol::default()
            };
        } else {
            let class = if plan.params.memory == 0 {
                Class::Number
            } else {
                Class::Recent
            };
            *symbol = Symbol {
                class,
                correction: predicted_correction(plan, history),
                code: 0,
            };
            share(&mut history.zeros, true);
            share(&mut history.exceptions, false);
        }
        return Ok(());
    }
    let was_missing = history.missing();
    if plan.params.memory != 0 {
        remembered(bits, plan, history, symbol, u64::from(!was_missing))?;
    } else if plan.exceptional && bits.bit(is_exception(plan, symbol))? {
        exception(bits, plan, history, symbol)?;
    } else {
        number(bits, plan, history, symbol, !was_missing, texts)?;
    }
    if symbol.class != Class::Missing {
        share(&mut history.zeros, was_missing && is_zero(symbol));
    }
    Ok(())
}

fn is_zero(symbol: &Symbol) -> bool {
    symbol.code == 0 && matches!(symbol.class, Class::Number | Class::Recent)
}

/// A value of a column with a memory; ranks start at `least`.
fn remembered<B: Bits, W: Width>(
    bits: &mut B,
    plan: &Plan,
    history: &mut History<W>,
    symbol: &mut Symbol,
    least: u64,
) -> Result<(), CodeError> {
    if bits.bit(symbol.class == Class::Recent)? {
        let k = if plan.params.memory > 32 { 5 } else { 2 };
        let rank = golomb(bits, symbol.code.wrapping_sub(least), k)?.wrapping_add(least);
        *symbol = Symbol {
            class: Class::Recent,
            correction: 0,
            code: rank,
        };
        return Ok(());
    }
    let surprise = plan.exceptional && bits.bit(is_exception(plan, symbol))?;
    if surprise {
        exception(bits, plan, history, symbol)
    } else {
        number(bits, plan, history, symbol, false, (0, &mut NoTexts))
    }
}

/// A value that has no plain residual: a correction, a missing value, raw bits.
fn exception<B: Bits, W: Width>(
    bits: &mut B,
    plan: &Plan,
    history: &mut History<W>,
    symbol: &mut Symbol,
) -> Result<(), CodeError> {
    let corrects = matches!(plan.kind, ColumnKind::F32 | ColumnKind::F64)
        && !matches!(plan.params.scale, Scale::Bits | Scale::Levels)
        && !plan.often_corrects();
    let misses = plan.nullable && !history.missing();
    let raw = plan.is_number();
    if corrects && !bits.bit(symbol.class != Class::Number)? {
        number(bits, plan, history, symbol, false, (0, &mut NoTexts))?;
        let negative = bits.bit(symbol.correction < 0)?;
        let units = bits.unary(
            u32::from(symbol.correction.unsigned_abs()).wrapping_sub(1),
            2,
        )? + 1;
        symbol.correction = signed(units, negative);
        return Ok(());
    }
    if misses && (!raw || !bits.bit(symbol.class == Class::Raw)?) {
        *symbol = Symbol {
            class: Class::Missing,
            ..Symbol::default()
        };
        return Ok(());
    }
    if !raw {
        return Err(CodeError::Decode(DecodeError::Invalid("exception")));
    }
    let code = bits.bits(symbol.code, plan.width())?;
    *symbol = Symbol {
        class: Class::Raw,
        correction: 0,
        code,
    };
    Ok(())
}

/// A residual, a bool or a text. With `nonzero` it is known not to be as predicted.
fn number<B: Bits, W: Width>(
    bits: &mut B,
    plan: &Plan,
    history: &mut History<W>,
    symbol: &mut Symbol,
    nonzero: bool,
    (column, texts): (usize, &mut impl Texts),
) -> Result<(), CodeError> {
    match plan.kind {
        ColumnKind::Bool => {
            let code = if nonzero {
                1
            } else {
                bits.bits(symbol.code, 1)?
            };
            *symbol = Symbol {
                class: Class::Number,
                correction: 0,
                code,
            };
        }
        ColumnKind::Str => text(bits, plan, symbol, column, texts)?,
        ColumnKind::I64 | ColumnKind::F32 | ColumnKind::F64 => {
            let often = plan.often_corrects();
            let least = u64::from(nonzero && !often);
            let k = rice_bits(history.mean) + plan.shift;
            let code = golomb(bits, symbol.code.wrapping_sub(least), k)?;
            settle(&mut history.mean, clamp(code >> plan.shift), 3);
            let mut correction = symbol.correction;
            if often {
                let units = bits.unary(u32::from(correction.unsigned_abs()), 3)?;
                correction = if units > 0 {
                    signed(units, bits.bit(correction < 0)?)
                } else {
                    0
                };
                history.set_correction(correction);
            } else if !B::WRITES {
                correction = 0;
            }
            *symbol = Symbol {
                class: Class::Number,
                correction,
                code: code.wrapping_add(least),
            };
        }
    }
    Ok(())
}

/// A Golomb-Rice code of parameter `k`; large codes by their length and bits.
#[inline]
pub(crate) fn golomb<B: Bits>(bits: &mut B, code: u64, k: u32) -> Result<u64, CodeError> {
    let k = k.min(63);
    let high = u32::try_from(code >> k).unwrap_or(MAX_UNARY).min(MAX_UNARY);
    let high = bits.unary(high, MAX_UNARY)?;
    if high < MAX_UNARY {
        let low = bits.bits(code & ((1u64 << k) - 1), k)?;
        return u64::from(high)
            .checked_shl(k)
            .filter(|shifted| shifted >> k == u64::from(high))
            .map(|shifted| shifted | low)
            .ok_or(CodeError::Decode(DecodeError::Invalid("residual")));
    }
    let len = bits.bits(u64::from(bit_len(code).max(1)) - 1, 6)? + 1;
    bits.bits(code, u32::try_from(len).unwrap_or(64))
}

/// The Rice parameter for residuals of a mean in 1/16.
#[inline]
const fn rice_bits(mean: u32) -> u32 {
    // log2 of about 1.4 times the mean, rounded down: best for geometric residuals.
    let scaled = (mean as u64 * 23) >> 8;
    bit_len(scaled).saturating_sub(1)
}

#[inline]
fn clamp(code: u64) -> u32 {
    u32::try_from(code).unwrap_or(u32::MAX).min(1 << 26)
}

/// Moves a mean in 1/16 towards `code`, by 1/2^rate.
#[inline]
const fn settle(mean: &mut u32, code: u32, rate: u32) {
    let aim = code * 16;
    if aim > *mean {
        *mean += (aim - *mean).div_ceil(1 << rate);
    } else {
        *mean -= (*mean - aim) >> rate;
    }
}

#[inline]
const fn share(share: &mut u8, was: bool) {
    if was {
        *share += (255 - *share).div_ceil(8);
    } else {
        *share -= share.div_ceil(8);
    }
}

#[inline]
const fn signed(units: u32, negative: bool) -> i8 {
    let units = (units & 3) as i8;
    if negative { -units } else { units }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::bits::{BitReader, BitWriter, Slice};

    #[test]
    fn codes_beyond_the_longest_unary_part_are_written_by_their_length() {
        let coded = |code: u64, k: u32| {
            let mut out = [0u8; 16];
            let mut bits = BitWriter::new(Slice::new(&mut out));
            golomb(&mut bits, code, k).unwrap();
            bits.finish().unwrap();
            let mut bits = BitReader::new(&out);
            assert_eq!(golomb(&mut bits, 0, k), Ok(code));
            8 * out.len() - bits.left()
        };
        let (most, ones) = (u64::from(MAX_UNARY), MAX_UNARY as usize);
        assert_eq!(coded(most - 1, 0), ones);
        assert_eq!(coded(most, 0), ones + 6 + 5);
        assert_eq!(coded(u64::MAX, 0), ones + 6 + 64);
        assert_eq!(coded((most << 3) - 1, 3), ones + 3);
        assert_eq!(coded(most << 3, 3), ones + 6 + 8);
    }
}
