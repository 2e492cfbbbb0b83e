//! Encodes rows as a batch.

use alloc::vec::Vec;

use super::header::{BackEnd, BatchHeader, MAX_HEADER_BYTES};
use super::plans::plans;
use super::rows::{Cells, Rows};
use super::texts::{Source, TextNumbers};
use crate::codec::bits::{BitWriter, Bits, CodeError};
use crate::codec::model::{Class, Plan, Symbol, Table, learn, symbol_of};
use crate::codec::range::{BLOCK, Coder as _, Even, RangeRows, RangeWriter, aside, timed};
use crate::codec::row::rice::Rice;
use crate::codec::row::series::code_series;
use crate::codec::row::{self, RowState, varint};
use crate::schema::params::TimeParams;
use crate::schema::{ColumnKind, Schema};
use crate::varint::zigzag;

/// Why rows do not become a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// There is no row.
    #[error("a batch has at least one row")]
    Empty,
    /// The rows were gathered for another schema.
    #[error("the rows are of another schema")]
    OtherSchema,
}

/// Batches of up to this many rows are coded with Rice codes and with the range back end, and the smaller
/// one is taken: in a few rows the models of the range back end learn little. `CODEC.md` has the figures.
const FEW_ROWS: usize = 4;

/// Writes batches of one schema; its memory serves batch after batch.
#[derive(Debug, Clone)]
pub struct Encoder {
    /// The back end of every batch; `None` chooses one per batch.
    fixed: Option<BackEnd>,
    back_end: BackEnd,
    time: TimeParams,
    plans: Vec<Plan>,
    table: Table,
    symbols: Vec<Symbol>,
    texts: Vec<TextNumbers>,
    range: RangeRows,
    /// Raw bits of a batch.
    aside: Vec<u8>,
    /// Per row: ticks from the earliest time.
    ticks: Vec<i64>,
}

impl Encoder {
    /// For batches of `schema`, each with the back end that suits it best.
    #[must_use]
    pub fn new(schema: &Schema) -> Self {
        Self {
            fixed: None,
            ..Self::with_back_end(schema, BackEnd::Range)
        }
    }

    /// For batches of `schema` with this back end.
    #[must_use]
    pub fn with_back_end(schema: &Schema, back_end: BackEnd) -> Self {
        let plans = plans(schema, back_end);
        Self {
            fixed: Some(back_end),
            back_end,
            time: schema.time,
            table: Table::new(&plans, schema.series.len()),
            symbols: alloc::vec![Symbol::default(); plans.len()],
            texts: schema
                .columns
                .iter()
                .map(|c| TextNumbers::new(&c.dictionary))
                .collect(),
            range: RangeRows::new(&plans, &schema.time, schema.series.len()),
            aside: Vec::new(),
            ticks: Vec::new(),
            plans,
        }
    }

    /// Appends the batch of `rows` to `out`: the payload of a frame.
    ///
    /// # Errors
    /// [`EncodeError`]; `out` is then unchanged.
    pub fn encode(
        &mut self,
        schema_no: u32,
        rows: &Rows,
        out: &mut Vec<u8>,
    ) -> Result<BatchHeader, EncodeError> {
        // The plans of these two are the same.
        if self.fixed.is_none() && rows.len() <= FEW_ROWS {
            let start = out.len();
            let rice = self.encode_with(BackEnd::Rice, schema_no, rows, out)?;
            let middle = out.len();
            let range = self.encode_with(BackEnd::Range, schema_no, rows, out)?;
            if out.len() - middle < middle - start {
                out.drain(start..middle);
                return Ok(range);
            }
            out.truncate(middle);
            return Ok(rice);
        }
        let back_end = self.fixed.unwrap_or(BackEnd::Range);
        self.encode_with(back_end, schema_no, rows, out)
    }

    fn encode_with(
        &mut self,
        back_end: BackEnd,
        schema_no: u32,
        rows: &Rows,
        out: &mut Vec<u8>,
    ) -> Result<BatchHeader, EncodeError> {
        self.back_end = back_end;
        let header = self.header(schema_no, rows)?;
        let mut bytes = [0u8; MAX_HEADER_BYTES];
        let (len, beyond) = header
            .write_bits(&mut bytes)
            .map_err(|_| EncodeError::OtherSchema)?;
        out.extend_from_slice(&bytes[..len]);
        self.table.clear();
        for (texts, cells) in self.texts.iter_mut().zip(&rows.columns) {
            texts.begin(cells);
        }
        if self.back_end == BackEnd::Range {
            // A vector takes every byte.
            let first = if beyond == 0 {
                0
            } else {
                out.pop().unwrap_or(0)
            };
            let mut gathered = core::mem::take(&mut self.aside);
            let aside = (aside(rows.times.len(), rows.columns.len()), &mut gathered);
            let coded = self.range(&header, rows, RangeWriter::new(out, (first, beyond), aside));
            self.aside = gathered;
            coded.map_err(|_| EncodeError::OtherSchema)?;
            return Ok(header);
        }
        let mut bits = BitWriter::new(&mut *out);
        let mut rice = Rice::default();
        for row in 0..rows.times.len() {
            // A vector takes every byte.
            self.row(&mut bits, &mut rice, &header, rows, row)
                .map_err(|_| EncodeError::OtherSchema)?;
        }
        if self.back_end == BackEnd::Rice {
            rice.finish(&mut bits)
                .map_err(|_| EncodeError::OtherSchema)?;
        }
        bits.finish().map_err(|_| EncodeError::OtherSchema)?;
        Ok(header)
    }

    fn header(&mut self, schema_no: u32, rows: &Rows) -> Result<BatchHeader, EncodeError> {
        let (Some(&first), Some(&last)) = (rows.times.first(), rows.times.last()) else {
            return Err(EncodeError::Empty);
        };
        let (mut earliest, mut latest) = (first, first);
        for &time in &rows.times {
            earliest = earliest.min(time);
            latest = latest.max(time);
        }
        let kinds = rows.columns.iter().map(|cells| cells.kind);
        if !kinds.eq(self.plans.iter().map(|plan| plan.kind))
            || rows
                .series
                .iter()
                .any(|&series| series >= self.table.series_count())
            || self
                .plans
                .iter()
                .zip(&rows.columns)
                .any(|(plan, cells)| !plan.nullable && cells.missing != 0)
        {
            return Err(EncodeError::OtherSchema);
        }
        let mut flags = 0;
        if first != earliest || last != latest {
            flags |= BatchHeader::OUT_OF_ORDER;
        }
        if !self.count_ticks(u64::from(self.time.tick_us), earliest, &rows.times) {
            flags |= BatchHeader::FINE_TIMES;
            self.count_ticks(1, earliest, &rows.times);
        }
        Ok(BatchHeader {
            schema_no,
            back_end: self.back_end,
            flags,
            rows: u32::try_from(rows.times.len()).map_err(|_| EncodeError::OtherSchema)?,
            samples: rows.samples(),
            first_time_us: earliest,
            last_time_us: latest,
        })
    }

    /// Sets how many ticks each time lies above the earliest; false if one is no whole number of them.
    fn count_ticks(&mut self, tick: u64, earliest: i64, times: &[i64]) -> bool {
        self.ticks.clear();
        let since = times
            .iter()
            .map(|time| time.wrapping_sub(earliest).cast_unsigned());
        if tick <= 1 {
            self.ticks.extend(since.map(u64::cast_signed));
            return true;
        }
        for since in since {
            let ticks = since / tick;
            if ticks * tick != since {
                return false;
            }
            self.ticks.push(ticks.cast_signed());
        }
        true
    }

    fn range(
        &mut self,
        header: &BatchHeader,
        rows: &Rows,
        mut coder: RangeWriter<'_, &mut Vec<u8>>,
    ) -> Result<(), CodeError> {
        let Self {
            time,
            plans,
            table,
            texts,
            range,
            ticks,
            ..
        } = self;
        let unordered = header.flags & BatchHeader::OUT_OF_ORDER != 0;
        let count = rows.times.len();
        range.begin(count, time);
        for start in (0..count).step_by(BLOCK) {
            let end = count.min(start + BLOCK);
            let block = &mut range.block;
            block.resize(end - start);
            block.series.copy_from_slice(&rows.series[start..end]);
            block.ticks.copy_from_slice(&ticks[start..end]);
            let timed = timed(start..end, count, unordered);
            range.rows(&mut coder, table, (plans, time), timed)?;
            for (at, column) in rows.columns.iter().enumerate() {
                let (present, bits) = (&column.present[start..end], &column.bits[start..end]);
                range.block.fill(at, present, bits);
            }
            let text =
                |coder: &mut RangeWriter<'_, _>, same: &mut _, (at, row): (usize, usize), last| {
                    let row = start + row;
                    let column: &Cells = &rows.columns[at];
                    let mut symbol = texts[at].symbol(last, column, column.bits[row]);
                    let stays = symbol.class == Class::Number && symbol.code == 0;
                    if !coder.bit(same, stays) {
                        let mut source = Source {
                            numbers: texts,
                            columns: &rows.columns,
                            row,
                        };
                        row::text(&mut Even(coder), &plans[at], &mut symbol, at, &mut source)?;
                    }
                    Ok((texts[at].number_of(column.bits[row]), column.bits[row]))
                };
            range.columns(&mut coder, table, plans, text)?;
        }
        coder.finish()?;
        Ok(())
    }

    /// Codes a row with the Rice or varint back end.
    fn row<B: Bits>(
        &mut self,
        bits: &mut B,
        rice: &mut Rice,
        header: &BatchHeader,
        rows: &Rows,
        row: usize,
    ) -> Result<(), CodeError> {
        let series = rows.series[row];
        let ticks = self.ticks[row];
        let latest = core::mem::replace(&mut self.table.ticks, ticks);
        let expected = self.table.expected();
        let series_count = self.table.series_count();
        let one_series = series_count == 1;

        let (time, columns, recent) = self.table.get(&self.plans, series);
        for (at, (plan, history)) in self.plans.iter().zip(columns.iter()).enumerate() {
            let cells = &rows.columns[at];
            self.symbols[at] = if !cells.present[row] {
                Symbol {
                    class: Class::Missing,
                    ..Symbol::default()
                }
            } else if plan.kind == ColumnKind::Str {
                self.texts[at].symbol(history.last(), cells, cells.bits[row])
            } else {
                symbol_of(plan, history, &recent[at], cells.bits[row])
            };
        }
        let residual = zigzag(ticks.wrapping_sub(time.predict(latest)));
        let timed = row > 0 || header.flags & BatchHeader::OUT_OF_ORDER != 0;
        let mut state = RowState {
            plans: &self.plans,
            time,
            columns,
            timed,
        };
        let mut texts = Source {
            numbers: &self.texts,
            columns: &rows.columns,
            row,
        };
        match self.back_end {
            BackEnd::Rice => {
                let predicted =
                    expected == series && rice.is_predicted(&state, residual, &self.symbols);
                rice.begin(bits, predicted)?;
                if !predicted && !one_series {
                    code_series(bits, series, expected, series_count)?;
                }
                rice.cells(
                    bits,
                    &mut state,
                    predicted,
                    residual,
                    &mut self.symbols,
                    &mut texts,
                )?;
            }
            BackEnd::Varint | BackEnd::Range => {
                if !one_series {
                    varint::number(bits, u64::from(series))?;
                }
                varint::cells(bits, &mut state, residual, &mut self.symbols, &mut texts)?;
            }
        }
        self.learn(rows, row);
        Ok(())
    }

    /// Takes a coded row into the histories of its series.
    fn learn(&mut self, rows: &Rows, row: usize) {
        let series = rows.series[row];
        self.table.follow(series);
        let (time, columns, recent) = self.table.get(&self.plans, series);
        time.learn(&self.time, self.ticks[row]);
        for (at, (plan, history)) in self.plans.iter().zip(columns).enumerate() {
            let symbol = self.symbols[at];
            let value = rows.columns[at].bits[row];
            if symbol.class == Class::Missing {
                history.set_missing(true);
                continue;
            }
            let quotient = match plan.kind {
                ColumnKind::Str => Some(self.texts[at].number_of(value)),
                ColumnKind::Bool => Some(value.cast_signed()),
                ColumnKind::I64 | ColumnKind::F32 | ColumnKind::F64 => match symbol.class {
                    Class::Number => Some(history.undo(plan, symbol.code)),
                    Class::Recent => plan.split(value).map(|(quotient, _)| quotient),
                    Class::Missing | Class::Raw => None,
                },
            };
            learn(plan, history, &mut recent[at], quotient, value);
        }
    }
}
