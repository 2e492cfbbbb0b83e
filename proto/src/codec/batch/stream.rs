//! The encoder of a microcontroller: one series, no allocation, all memory from the caller.
//!
//! Each row goes straight into the output. The header is written last, directly before the first row, so
//! a finished batch begins within the first [`MAX_HEADER_BYTES`] of the output. With 32-bit histories a
//! column takes 20 bytes between rows.

use super::header::{BackEnd, BatchHeader, MAX_HEADER_BYTES};
use crate::codec::bits::{BitWriter, CodeError, Slice};
use crate::codec::model::{Class, History, Plan, Symbol, TimeHistory, Width};
use crate::codec::row::rice::Rice;
use crate::codec::row::{NoTexts, RowState, varint};
use crate::schema::params::{Scale, TimeParams};
use crate::schema::{ColumnKind, MAX_ROWS};
use crate::varint::zigzag;

/// Most bytes of one column of a row: a residual of 64 bits in its longest code, and a correction.
const MAX_CELL_BYTES: usize = 14;
/// Most bytes of a row beside its columns: a run, the time, and the end of the batch.
const MAX_ROW_BYTES: usize = 32;

/// One cell of a row as a sensor gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell {
    /// No value.
    Missing,
    /// A whole number, or the mantissa of a decimal column.
    Mantissa(i64),
    /// The bits of a float, or 0 and 1 of a bool.
    Bits(u64),
}

/// Why a row was refused. The batch is unchanged: finish it, and begin the next with this row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The output might not have room for the row.
    #[error("the output has no room for another row")]
    Full,
    /// The time lies before that of the last row, or no whole ticks after that of the first.
    #[error("the time does not follow on the batch")]
    Time,
    /// A cell does not suit its column, or the row has another width than the schema.
    #[error("the row does not suit the schema")]
    Row,
    /// The schema has text, a memory, levels or a reference that this encoder's histories cannot hold.
    #[error("the schema does not suit this encoder")]
    Schema,
}

/// Writes one batch into a slice, row by row.
#[derive(Debug)]
pub struct StreamEncoder<'a, W> {
    plans: &'a [Plan],
    histories: &'a mut [History<W>],
    symbols: &'a mut [Symbol],
    bits: BitWriter<Slice<'a>>,
    head: &'a mut [u8],
    time: TimeParams,
    clock: TimeHistory,
    rice: Rice,
    ticks: i64,
    header: BatchHeader,
}

impl<'a, W: Width> StreamEncoder<'a, W> {
    /// Begins a batch in `out`. `histories` and `symbols` have one element per plan, and are overwritten.
    ///
    /// # Errors
    /// [`StreamError::Schema`] if the plans or the slices do not suit, [`StreamError::Full`] if
    /// `out` cannot hold a header.
    pub fn new(
        (plans, time): (&'a [Plan], TimeParams),
        (schema_no, back_end): (u32, BackEnd),
        histories: &'a mut [History<W>],
        symbols: &'a mut [Symbol],
        out: &'a mut [u8],
    ) -> Result<Self, StreamError> {
        let suits = |plan: &Plan| {
            let reference = plan.params.reference;
            plan.kind != ColumnKind::Str
                && plan.params.memory == 0
                && plan.params.scale != Scale::Levels
                && back_end != BackEnd::Range
                && W::store(reference).load() == reference
                && (back_end == BackEnd::Rice || !plan.often_corrects())
        };
        if plans.len() != histories.len()
            || plans.len() != symbols.len()
            || !plans.iter().all(suits)
        {
            return Err(StreamError::Schema);
        }
        let (head, body) = out
            .split_at_mut_checked(MAX_HEADER_BYTES)
            .ok_or(StreamError::Full)?;
        for (plan, history) in plans.iter().zip(histories.iter_mut()) {
            *history = History::new(plan);
        }
        let header = BatchHeader {
            schema_no,
            back_end,
            flags: 0,
            rows: 0,
            samples: 0,
            first_time_us: 0,
            last_time_us: 0,
        };
        Ok(Self {
            plans,
            histories,
            symbols,
            bits: BitWriter::new(Slice::new(body)),
            head,
            time,
            clock: TimeHistory::default(),
            rice: Rice::default(),
            ticks: 0,
            header,
        })
    }

    /// Rows so far.
    #[must_use]
    pub const fn rows(&self) -> u32 {
        self.header.rows
    }

    /// Adds a row: a time in µs and one cell per column, at least one of them not missing.
    ///
    /// # Errors
    /// [`StreamError`]; the batch is then unchanged.
    pub fn push(&mut self, time_us: i64, cells: &[Cell]) -> Result<(), StreamError> {
        let need = MAX_ROW_BYTES + MAX_CELL_BYTES * self.plans.len();
        if self.bits.sink().room() < need || self.header.rows >= MAX_ROWS {
            return Err(StreamError::Full);
        }
        let timed = self.header.rows > 0;
        let first = if timed {
            self.header.first_time_us
        } else {
            time_us
        };
        let since = time_us.wrapping_sub(first).cast_unsigned();
        let tick = u64::from(self.time.tick_us.max(1));
        if (timed && time_us < self.header.last_time_us) || !since.is_multiple_of(tick) {
            return Err(StreamError::Time);
        }
        if cells.len() != self.plans.len() || cells.iter().all(|cell| *cell == Cell::Missing) {
            return Err(StreamError::Row);
        }
        let mut samples = 0;
        let columns = self.plans.iter().zip(self.histories.iter()).zip(cells);
        for (symbol, ((plan, history), &cell)) in self.symbols.iter_mut().zip(columns) {
            *symbol = to_symbol(plan, history, cell).ok_or(StreamError::Row)?;
            samples += u32::from(symbol.class != Class::Missing);
        }
        let ticks = (since / tick).cast_signed();
        let residual = zigzag(ticks.wrapping_sub(self.clock.predict(self.ticks)));
        // The row fits, as was checked above: coding cannot fail half-way.
        self.code(residual, timed).map_err(|_| StreamError::Full)?;
        self.clock.learn(&self.time, ticks);
        self.ticks = ticks;
        for ((plan, history), symbol) in self
            .plans
            .iter()
            .zip(self.histories.iter_mut())
            .zip(self.symbols.iter())
        {
            history.set_missing(symbol.class == Class::Missing);
            if symbol.class == Class::Number {
                let quotient = if plan.kind == ColumnKind::Bool {
                    history.last() ^ symbol.code.cast_signed()
                } else {
                    history.undo(plan, symbol.code)
                };
                history.learn(plan, quotient);
            }
        }
        self.header.rows += 1;
        self.header.samples += samples;
        self.header.first_time_us = first;
        self.header.last_time_us = time_us;
        Ok(())
    }

    fn code(&mut self, residual: u64, timed: bool) -> Result<(), CodeError> {
        let mut row = RowState {
            plans: self.plans,
            time: &mut self.clock,
            columns: self.histories,
            timed,
        };
        let (bits, symbols) = (&mut self.bits, &mut *self.symbols);
        match self.header.back_end {
            BackEnd::Rice => {
                let predicted = self.rice.is_predicted(&row, residual, symbols);
                self.rice.begin(bits, predicted)?;
                self.rice
                    .cells(bits, &mut row, predicted, residual, symbols, &mut NoTexts)?;
            }
            BackEnd::Varint | BackEnd::Range => {
                varint::cells(bits, &mut row, residual, symbols, &mut NoTexts)?;
            }
        }
        Ok(())
    }

    /// Ends the batch: the payload of a frame, as a range of the output, and its header. `None` if
    /// it has no row.
    #[must_use]
    pub fn finish(mut self) -> Option<(core::ops::Range<usize>, BatchHeader)> {
        if self.header.rows == 0 {
            return None;
        }
        if self.header.back_end == BackEnd::Rice {
            self.rice.finish(&mut self.bits).ok()?;
        }
        let body = self.bits.finish().ok()?;
        let mut bytes = [0u8; MAX_HEADER_BYTES];
        let len = self.header.write(&mut bytes).ok()?;
        let start = MAX_HEADER_BYTES - len;
        self.head[start..].copy_from_slice(&bytes[..len]);
        Some((start..MAX_HEADER_BYTES + body.len(), self.header))
    }
}

/// The symbol of a cell; `None` if the cell does not suit the column.
fn to_symbol<W: Width>(plan: &Plan, history: &History<W>, cell: Cell) -> Option<Symbol> {
    let (parts, raw) = match (cell, plan.kind) {
        (Cell::Missing, _) => {
            let missing = Symbol {
                class: Class::Missing,
                ..Symbol::default()
            };
            return plan.nullable.then_some(missing);
        }
        (Cell::Bits(bits @ (0 | 1)), ColumnKind::Bool) => {
            let code = bits ^ (history.last().cast_unsigned() & 1);
            return Some(Symbol {
                class: Class::Number,
                correction: 0,
                code,
            });
        }
        (_, ColumnKind::Bool | ColumnKind::Str) => return None,
        (Cell::Mantissa(mantissa), ColumnKind::I64) => {
            let bits = mantissa.cast_unsigned();
            (plan.split(bits), bits)
        }
        (Cell::Mantissa(mantissa), ColumnKind::F32 | ColumnKind::F64) => {
            let parts = plan.quotient(mantissa).map(|quotient| (quotient, 0));
            (parts, plan.float(mantissa, 0))
        }
        (Cell::Bits(bits), ColumnKind::I64 | ColumnKind::F32 | ColumnKind::F64) => {
            (plan.split(bits), bits)
        }
    };
    match parts.filter(|(quotient, _)| W::store(*quotient).load() == *quotient) {
        Some((quotient, correction)) => {
            let residual = quotient.wrapping_sub(history.predict(plan));
            Some(Symbol {
                class: Class::Number,
                correction,
                code: zigzag(residual),
            })
        }
        None => plan.exceptional.then_some(Symbol {
            class: Class::Raw,
            correction: 0,
            code: raw,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::params::Params;

    const COLUMNS: usize = 5;
    /// Most bytes of a row of that many columns.
    const MOST: usize = MAX_ROW_BYTES + MAX_CELL_BYTES * COLUMNS;

    /// Pushes rows of these bits in every column; returns the outcome and the bytes of the last one.
    fn push(back_end: BackEnd, rows: &[u64], body: usize) -> (Result<(), StreamError>, usize) {
        let mut params = Params::default_for(ColumnKind::F64);
        params.scale = Scale::Decimal(5);
        let plans = [(); COLUMNS].map(|()| Plan::new(ColumnKind::F64, true, params, 0));
        let mut histories = [(); COLUMNS].map(|()| History::<i64>::new(&plans[0]));
        let mut symbols = [Symbol::default(); COLUMNS];
        let mut out = [0; 4_096];
        let mut encoder = StreamEncoder::new(
            (&plans, TimeParams::new(1)),
            (1, back_end),
            &mut histories,
            &mut symbols,
            &mut out[..MAX_HEADER_BYTES + body],
        )
        .unwrap();
        let (mut outcome, mut before) = (Ok(()), 0);
        for (time, &bits) in (1..).zip(rows) {
            before = encoder.bits.sink().len();
            outcome = encoder.push(time << 55, &[Cell::Bits(bits); COLUMNS]);
        }
        (outcome, encoder.bits.sink().len() - before)
    }

    #[test]
    fn a_row_is_taken_only_where_its_most_bytes_fit() {
        for back_end in [BackEnd::Varint, BackEnd::Rice] {
            let row = [1.5f64.to_bits()];
            assert_eq!(push(back_end, &row, MOST).0, Ok(()));
            assert_eq!(push(back_end, &row, MOST - 1).0, Err(StreamError::Full));
        }
    }

    #[test]
    fn no_row_takes_more_than_its_most_bytes() {
        // Raw bits, the longest residuals either way, and corrections.
        let ends = [-2_251_799_813_685_247.0f64, 2_251_799_813_685_247.0].map(|m| m / 1e5);
        let dearest = [f64::NAN, ends[0], ends[1], 9.0 * 1.15078, ends[0], -0.0];
        for back_end in [BackEnd::Varint, BackEnd::Rice] {
            let mut most = 0;
            for rows in 1..=dearest.len() {
                let bits = dearest.map(f64::to_bits);
                let (outcome, bytes) = push(back_end, &bits[..rows], 4_000);
                assert_eq!(outcome, Ok(()));
                // Up to four bytes of the row before are still held when a row begins.
                most = most.max(bytes.saturating_sub(4));
            }
            assert!((8 * COLUMNS..=MOST).contains(&most), "{back_end:?}: {most}");
        }
    }
}
