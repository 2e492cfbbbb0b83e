//! The Rice back end: adaptive Golomb-Rice codes, row by row, with a few bytes of state per column.
//!
//! Each column is in one of three modes, from its running share of values that came as foretold:
//!
//! | mode | a value costs |
//! |---|---|
//! | quiet | nothing, as long as all quiet columns of the row come as foretold |
//! | flagged | one bit if it came as foretold, else one bit and a Rice code |
//! | loud | a Rice code |
//!
//! A row begins with one bit that says whether all its quiet items (series, time, quiet columns,
//! rare exceptions of the others) came as foretold. After a row without loud columns it begins
//! instead with the length of a run of rows that came wholly as foretold, so that a row can cost
//! far less than a bit.

use super::DecodeError;
use super::bits::{Bits, CodeError};
use super::model::{Class, History, Plan, Symbol, TimeHistory, Width};
use super::params::Scale;
use crate::schema::{ColumnKind, MAX_VALUE_TEXT_BYTES};

/// Length in 8 bits that says that 16 bits of length follow.
const LONG_TEXT: u64 = 255;
/// Share of foretold values (of 255) from which a column is quiet, and from which it is flagged.
const QUIET: u8 = 200;
const FLAGGED: u8 = 100;
/// Share of exceptions (of 255) up to which they are told at the row's start.
const RARE: u8 = 40;
/// Longest unary part; beyond it a code is written by its length.
const MAX_UNARY: u32 = 20;

/// Texts on their way: a writer is asked for bytes, a reader is given them.
pub trait Texts {
    /// Writing: byte `at` of the new text of `column`.
    fn byte(&mut self, column: usize, at: usize) -> u8;
    /// Reading: the next byte of the new text of `column`.
    ///
    /// # Errors
    /// [`CodeError`] if the text passes a limit.
    fn take(&mut self, column: usize, byte: u8) -> Result<(), CodeError>;
    /// How many texts of `column` the batch has added to the dictionary so far.
    fn added(&self, column: usize) -> u32;
}

/// For schemas without text.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoTexts;

impl Texts for NoTexts {
    fn byte(&mut self, _: usize, _: usize) -> u8 {
        0
    }
    fn take(&mut self, _: usize, _: u8) -> Result<(), CodeError> {
        Ok(())
    }
    fn added(&self, _: usize) -> u32 {
        0
    }
}

/// One row between the model and a back end.
#[derive(Debug)]
pub struct RowState<'a, W> {
    /// The columns' plans.
    pub plans: &'a [Plan],
    /// The series' history of times.
    pub time: &'a mut TimeHistory,
    /// The series' history of each column.
    pub columns: &'a mut [History<W>],
    /// Whether the row's time is coded: not for the first row of an ordered batch.
    pub timed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Quiet,
    Flagged,
    Loud,
}

/// The state of a batch beside its histories.
#[derive(Debug, Clone, Copy)]
pub struct Rice {
    /// Rows of the present run: counted up by a writer, down by a reader. A batch has at most
    /// 65,535 rows.
    run: u16,
    /// Reader: a run was read and its last row is still to come or just gone.
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
    /// Begins a row: returns whether every item came as foretold. A writer says so in `foretold`,
    /// from [`Rice::is_foretold`]; a reader's argument does not matter.
    ///
    /// # Errors
    /// As [`Bits::bits`].
    pub fn begin<B: Bits>(&mut self, bits: &mut B, foretold: bool) -> Result<bool, CodeError> {
        if self.loud {
            return bits.bit(foretold);
        }
        if B::WRITES {
            if foretold {
                self.run += 1;
            } else {
                self.end_run(bits)?;
            }
            return Ok(foretold);
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

    /// Whether every item of the row comes as foretold: time (its residual in zigzag) and symbols.
    #[must_use]
    pub fn is_foretold<W: Width>(
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

    /// Codes the time and cells of a row that [`Rice::begin`] has begun; returns the time's
    /// residual in zigzag. `implied` says that the row is known to hold a surprise if it was not
    /// `foretold`.
    ///
    /// # Errors
    /// As [`Bits::bits`]; a reader also refuses symbols that no writer makes.
    pub fn cells<B: Bits, W: Width>(
        &mut self,
        bits: &mut B,
        row: &mut RowState<'_, W>,
        foretold: bool,
        time: u64,
        symbols: &mut [Symbol],
        texts: &mut impl Texts,
    ) -> Result<u64, CodeError> {
        let was_loud = self.loud;
        self.loud = false;
        let time = self.time(bits, row, foretold, time)?;
        let columns = row.plans.iter().zip(row.columns.iter_mut()).zip(symbols);
        for (at, ((plan, history), symbol)) in columns.enumerate() {
            let mode = mode(plan, history);
            self.loud |= mode != Mode::Quiet;
            cell(bits, plan, history, mode, foretold, symbol, (at, texts))?;
        }
        if foretold && self.loud && !was_loud {
            return Err(CodeError::Decode(DecodeError::Invalid("run")));
        }
        Ok(time)
    }

    fn time<B: Bits, W>(
        &mut self,
        bits: &mut B,
        row: &mut RowState<'_, W>,
        foretold: bool,
        time: u64,
    ) -> Result<u64, CodeError> {
        if !row.timed {
            return Ok(0);
        }
        let history = &mut *row.time;
        let quiet = history.zeros >= QUIET;
        self.loud |= !quiet;
        let code = if quiet {
            if foretold || !bits.bit(time != 0)? {
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

/// Whether the row's start says if this column holds a surprise.
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
        && (class == Class::Recent || symbol.correction == foretold_correction(plan, history))
}

fn foretold_correction<W: Width>(plan: &Plan, history: &History<W>) -> i8 {
    if plan.says_corrections() {
        history.correction()
    } else {
        0
    }
}

fn is_exception(plan: &Plan, symbol: &Symbol) -> bool {
    match symbol.class {
        Class::Missing => true,
        Class::Raw => plan.kind != ColumnKind::Str,
        Class::Number => symbol.correction != 0 && !plan.says_corrections(),
        Class::Recent => false,
    }
}

/// Codes one cell and brings its history's shares and mean up to date.
fn cell<B: Bits, W: Width>(
    bits: &mut B,
    plan: &Plan,
    history: &mut History<W>,
    mode: Mode,
    foretold: bool,
    symbol: &mut Symbol,
    texts: (usize, &mut impl Texts),
) -> Result<(), CodeError> {
    if mode == Mode::Quiet {
        let hit = B::WRITES && is_hit(plan, history, symbol);
        if foretold || !bits.bit(!hit)? {
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
                    correction: foretold_correction(plan, history),
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
        return Ok(());
    }
    if plan.params.memory != 0 {
        remembered(bits, plan, history, symbol, 0)?;
    } else {
        let item = is_item(plan, history, mode);
        let surprise = if item && foretold {
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
                let correction = foretold_correction(plan, history);
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

/// What is neither as foretold nor a plain residual: a correction, a missing value, raw bits.
fn exception<B: Bits, W: Width>(
    bits: &mut B,
    plan: &Plan,
    history: &mut History<W>,
    symbol: &mut Symbol,
) -> Result<(), CodeError> {
    let corrects = matches!(plan.kind, ColumnKind::F32 | ColumnKind::F64)
        && !matches!(plan.params.scale, Scale::Bits | Scale::Levels)
        && !plan.says_corrections();
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

/// A residual, a bool or a text. With `nonzero` it is known not to be just as foretold.
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
            let says = plan.says_corrections();
            let least = u64::from(nonzero && !says);
            let k = rice_bits(history.mean) + plan.shift;
            let code = golomb(bits, symbol.code.wrapping_sub(least), k)?;
            settle(&mut history.mean, clamp(code >> plan.shift), 3);
            let mut correction = symbol.correction;
            if says {
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

/// The number of a text in the dictionary, or a new text.
pub(super) fn text<B: Bits>(
    bits: &mut B,
    plan: &Plan,
    symbol: &mut Symbol,
    column: usize,
    texts: &mut impl Texts,
) -> Result<(), CodeError> {
    let new = u64::from(plan.texts + texts.added(column)) + 1;
    let code = if symbol.class == Class::Raw {
        new
    } else {
        symbol.code
    };
    let code = bits.bits(code, bit_len(new))?;
    if code > new {
        return Err(CodeError::Decode(DecodeError::Invalid("text number")));
    }
    if code < new {
        *symbol = Symbol {
            class: Class::Number,
            correction: 0,
            code,
        };
        return Ok(());
    }
    let len = new_text(bits, symbol.code, column, texts)?;
    *symbol = Symbol {
        class: Class::Raw,
        correction: 0,
        code: len,
    };
    Ok(())
}

/// Length and bytes of a new text. The length takes 8 bits; from [`LONG_TEXT`] on it is that, then 16 bits.
pub(super) fn new_text<B: Bits>(
    bits: &mut B,
    len: u64,
    column: usize,
    texts: &mut impl Texts,
) -> Result<u64, CodeError> {
    let short = bits.bits(len.min(LONG_TEXT), 8)? & 0xff;
    let len = if short < LONG_TEXT {
        short
    } else {
        bits.bits(len, 16)? & 0xffff
    };
    if len > MAX_VALUE_TEXT_BYTES as u64 {
        return Err(CodeError::Decode(DecodeError::Invalid("text")));
    }
    for at in 0..len as usize {
        let byte = if B::WRITES { texts.byte(column, at) } else { 0 };
        let byte = (bits.bits(u64::from(byte), 8)? & 0xff) as u8;
        texts.take(column, byte)?;
    }
    Ok(len)
}

/// A Golomb-Rice code of parameter `k`; large codes by their length and bits.
#[inline]
pub(super) fn golomb<B: Bits>(bits: &mut B, code: u64, k: u32) -> Result<u64, CodeError> {
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

#[inline]
pub(super) const fn bit_len(value: u64) -> u32 {
    64 - value.leading_zeros()
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
