//! The varint back end: a bitmap of the items that are not as predicted, then whole bytes for each.
//!
//! | part of a row | bytes |
//! |---|---|
//! | bitmap | one bit for exceptions in the row, one for the time, one per column; padded |
//! | exceptions | one bit per column, padded; only if the first bit is set |
//! | values | per set bit: varint of the residual, less one where it cannot be zero |
//!
//! An exception is a byte, then its value: 0 missing, 1 raw bits, 2 to 8 a residual with a correction of -3
//! to 3.

use super::state::RowState;
use super::texts::{Texts, new_text};
use crate::codec::DecodeError;
use crate::codec::bits::{Bits, CodeError};
use crate::codec::model::{Class, Symbol, Width};
use crate::schema::ColumnKind;

const MISSING: u64 = 0;
const RAW: u64 = 1;
/// A correction of -3; each further unit adds one, up to six.
const CORRECTED: u64 = 2;

/// Codes the time (its residual in zigzag, returned) and the cells of one row.
///
/// # Errors
/// As [`Bits::bits`]; a reader also refuses symbols that no writer makes.
pub(crate) fn cells<B: Bits, W: Width>(
    bits: &mut B,
    row: &mut RowState<'_, W>,
    time: u64,
    symbols: &mut [Symbol],
    texts: &mut impl Texts,
) -> Result<u64, CodeError> {
    let any = bits.bit(
        symbols
            .iter()
            .zip(row.columns.iter())
            .any(|(symbol, history)| is_exception(symbol, history.missing())),
    )?;
    let time_coded = row.timed && bits.bit(time != 0)?;
    // Until it reads the values, a reader keeps "not as predicted" in `code` and "exception" in `class`.
    for (symbol, history) in symbols.iter_mut().zip(row.columns.iter()) {
        let unpredicted = bits.bit(!is_predicted(symbol, history.missing()))?;
        if !B::WRITES {
            *symbol = Symbol {
                class: Class::Number,
                correction: 0,
                code: u64::from(unpredicted),
            };
        }
    }
    bits.align()?;
    if any {
        for (symbol, history) in symbols.iter_mut().zip(row.columns.iter()) {
            let exception = bits.bit(is_exception(symbol, history.missing()))?;
            if !B::WRITES && exception {
                symbol.class = Class::Raw;
            }
        }
        bits.align()?;
    }
    let time = if time_coded {
        number(bits, time.wrapping_sub(1))?.wrapping_add(1)
    } else {
        0
    };
    for (at, symbol) in symbols.iter_mut().enumerate() {
        let history = &mut row.columns[at];
        let exception = if B::WRITES {
            is_exception(symbol, history.missing())
        } else {
            symbol.class == Class::Raw
        };
        if exception {
            exceptional(bits, row.plans[at].width(), symbol, at, texts)?;
        } else if is_coded(B::WRITES, symbol, history.missing()) {
            // After a missing value even a residual of zero is coded.
            let least = u64::from(!history.missing());
            let code = number(bits, symbol.code.wrapping_sub(least))?.wrapping_add(least);
            let plan = &row.plans[at];
            let most = match plan.kind {
                ColumnKind::Bool => 1,
                ColumnKind::Str => u64::from(plan.texts + texts.added(at)),
                ColumnKind::I64 | ColumnKind::F32 | ColumnKind::F64 => u64::MAX,
            };
            if code > most {
                return Err(CodeError::Decode(DecodeError::Invalid("residual")));
            }
            *symbol = Symbol {
                class: Class::Number,
                correction: 0,
                code,
            };
        } else if history.missing() {
            *symbol = Symbol {
                class: Class::Missing,
                ..Symbol::default()
            };
        }
    }
    Ok(time)
}

fn is_predicted(symbol: &Symbol, missing: bool) -> bool {
    if missing {
        symbol.class == Class::Missing
    } else {
        symbol.class == Class::Number && symbol.code == 0 && symbol.correction == 0
    }
}

/// Whether a value follows; a reader has the bitmap's bit in `code`.
fn is_coded(writes: bool, symbol: &Symbol, missing: bool) -> bool {
    if writes {
        !is_predicted(symbol, missing)
    } else {
        symbol.code != 0
    }
}

fn is_exception(symbol: &Symbol, missing: bool) -> bool {
    match symbol.class {
        Class::Missing => !missing,
        Class::Raw => true,
        Class::Number | Class::Recent => symbol.correction != 0,
    }
}

fn exceptional<B: Bits>(
    bits: &mut B,
    width: u32,
    symbol: &mut Symbol,
    column: usize,
    texts: &mut impl Texts,
) -> Result<(), CodeError> {
    let tag = match symbol.class {
        Class::Missing => MISSING,
        Class::Raw => RAW,
        Class::Number | Class::Recent => {
            CORRECTED.wrapping_add_signed(i64::from(symbol.correction) + 3)
        }
    };
    let tag = bits.bits(tag, 8)?;
    *symbol = match tag {
        MISSING => Symbol {
            class: Class::Missing,
            ..Symbol::default()
        },
        RAW => {
            let code = if width == 8 {
                new_text(bits, symbol.code, column, texts)?
            } else {
                bits.bits(symbol.code, width)?
            };
            Symbol {
                class: Class::Raw,
                correction: 0,
                code,
            }
        }
        2..=8 => {
            let code = number(bits, symbol.code)?;
            Symbol {
                class: Class::Number,
                correction: (tag & 0x0f) as i8 - 5,
                code,
            }
        }
        _ => return Err(CodeError::Decode(DecodeError::Invalid("exception"))),
    };
    Ok(())
}

/// A LEB128 integer.
pub(crate) fn number<B: Bits>(bits: &mut B, mut value: u64) -> Result<u64, CodeError> {
    let mut read = 0u64;
    let mut shift = 0;
    loop {
        let more = value >> 7 != 0;
        let byte = bits.bits(value & 0x7f | u64::from(more) << 7, 8)?;
        if shift == 63 && byte > 1 {
            return Err(CodeError::Decode(DecodeError::Invalid("number")));
        }
        read |= (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(read);
        }
        value >>= 7;
        shift += 7;
    }
}
