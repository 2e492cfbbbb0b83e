//! Decodes a batch within bounds.
//!
//! A few bytes can stand for thousands of rows, so the length of the input is no bound. The declared
//! rows are the bound, and they are checked before anything is allocated. Decoding takes memory for the
//! columns, for the histories of series that appear, and for new texts, all within [`Limits`]; a visitor
//! adds its own.

use alloc::vec::Vec;

use super::header::{BackEnd, BatchHeader};
use super::plans::plans;
use super::texts::NewTexts;
use crate::codec::DecodeError;
use crate::codec::bits::{BitReader, CodeError};
use crate::codec::model::{Class, Plan, Symbol, Table, learn};
use crate::codec::range::{BLOCK, Coder as _, Even, RangeReader, RangeRows, aside, timed};
use crate::codec::row::rice::Rice;
use crate::codec::row::series::{code_series, known_series};
use crate::codec::row::{self, RowState, varint};
use crate::sample::Value;
use crate::schema::{ColumnKind, Limits, Schema};
use crate::varint::unzigzag;

/// Receives the rows of a batch, in order.
///
/// After an error of [`decode`] all visited rows must be discarded.
pub trait RowVisitor {
    /// A row begins; `row` counts from 0, `series` is a place in the schema.
    fn row(&mut self, row: u32, time_us: i64, series: u32);
    /// A value of the row; `column` is a place in the schema. Missing values are not visited.
    fn value(&mut self, column: usize, value: Value<'_>);
}

/// Reads a batch of `schema`; see the module for its memory.
///
/// # Errors
/// [`DecodeError`] for bytes that no encoder of this schema within `limits` wrote.
pub fn decode(
    payload: &[u8],
    schema: &Schema,
    limits: &Limits,
    visitor: &mut impl RowVisitor,
) -> Result<BatchHeader, DecodeError> {
    let (header, len) = BatchHeader::read(payload)?;
    if header.rows > limits.rows {
        return Err(DecodeError::Limit("rows"));
    }
    let cells = u64::from(header.rows).saturating_mul(schema.columns.len() as u64);
    if cells > u64::from(limits.cells) || u64::from(header.samples) > cells {
        return Err(DecodeError::Limit("cells"));
    }
    check(schema, limits)?;
    let plans = plans(schema, header.back_end);
    let mut decoder = Decoder {
        header,
        schema,
        table: Table::new(&plans, schema.series.len()),
        symbols: alloc::vec![Symbol::default(); plans.len()],
        texts: NewTexts::new(plans.len(), limits.text_bytes),
        plans: &plans,
        rice: Rice::default(),
        earliest: i64::MAX,
        latest: i64::MIN,
        samples: 0,
    };
    // With the range back end the last bits of the header may stand in the first byte.
    let beyond = u32::try_from(len % 8).unwrap_or(0);
    let body = &payload[len / 8..];
    let mut bits = BitReader::new(body);
    let read = if header.back_end == BackEnd::Range {
        let aside = aside(header.rows as usize, plans.len());
        decoder.range(RangeReader::new(body, beyond, aside), visitor)
    } else {
        decoder.rows(&mut bits, visitor)
    };
    match read {
        Ok(()) => {}
        Err(CodeError::Decode(error)) => return Err(error),
        Err(CodeError::Full) => return Err(DecodeError::Limit("text")),
    }
    if header.back_end != BackEnd::Range {
        bits.finish()?;
    }
    let summary = (decoder.earliest, decoder.latest, decoder.samples);
    if summary != (header.first_time_us, header.last_time_us, header.samples) {
        return Err(DecodeError::Mismatch);
    }
    Ok(header)
}

struct Decoder<'a> {
    header: BatchHeader,
    schema: &'a Schema,
    plans: &'a [Plan],
    table: Table,
    symbols: Vec<Symbol>,
    texts: NewTexts,
    rice: Rice,
    earliest: i64,
    latest: i64,
    samples: u32,
}

impl Decoder<'_> {
    fn rows(
        &mut self,
        bits: &mut BitReader<'_>,
        visitor: &mut impl RowVisitor,
    ) -> Result<(), CodeError> {
        for row in 0..self.header.rows {
            self.row(bits, row, visitor)?;
        }
        if self.header.back_end == BackEnd::Rice {
            self.rice.finish(bits)?;
        }
        Ok(())
    }

    fn range(
        &mut self,
        mut coder: RangeReader<'_>,
        visitor: &mut impl RowVisitor,
    ) -> Result<(), CodeError> {
        let mut range = RangeRows::new(self.plans, &self.schema.time, self.schema.series.len());
        let (plans, schema, header) = (self.plans, self.schema, self.header);
        let (table, texts) = (&mut self.table, &mut self.texts);
        let tick = i64::from(header.tick_us(&schema.time));
        let span = header.last_time_us.wrapping_sub(header.first_time_us);
        let span = (span.cast_unsigned() / tick.max(1).cast_unsigned()).cast_signed();
        let unordered = header.flags & BatchHeader::OUT_OF_ORDER != 0;
        let count = header.rows as usize;
        range.begin(count, &schema.time);
        let mut places = [0usize; BLOCK];
        for start in (0..count).step_by(BLOCK) {
            coder.check()?;
            let end = count.min(start + BLOCK);
            range.block.resize(end - start);
            // Of the times that are not coded the batch's first is 0, and its last the span.
            range.block.ticks.fill(span);
            if start == 0 {
                range.block.ticks[0] = 0;
            }
            let text = |coder: &mut RangeReader<'_>, same: &mut _, (at, _): (usize, _), last| {
                let mut symbol = Symbol::default();
                if !coder.bit(same, false) {
                    row::text(&mut Even(coder), &plans[at], &mut symbol, at, texts)?;
                }
                let number = texts.number(at, &plans[at], symbol, last)?;
                Ok((i64::from(number), u64::from(number)))
            };
            let timed = timed(start..end, count, unordered);
            range.rows(&mut coder, table, (plans, &schema.time), timed)?;
            range.columns(&mut coder, table, plans, text)?;
            for (place, &row) in (0..).zip(range.block.order()) {
                places[row as usize] = place;
            }
            for (row, &place) in places[..end - start].iter().enumerate() {
                let time_us = header
                    .first_time_us
                    .wrapping_add(range.block.ticks[row].wrapping_mul(tick));
                self.earliest = self.earliest.min(time_us);
                self.latest = self.latest.max(time_us);
                let number = u32::try_from(start + row).unwrap_or(u32::MAX);
                visitor.row(number, time_us, range.block.series[row]);
                for (at, plan) in plans.iter().enumerate() {
                    let (present, bits) = range.block.cells(at);
                    if !present[place] {
                        continue;
                    }
                    self.samples += 1;
                    visitor.value(
                        at,
                        match plan.kind {
                            ColumnKind::Str => {
                                let number = u32::try_from(bits[place]).unwrap_or(u32::MAX);
                                Value::Str(texts.get(at, &schema.columns[at].dictionary, number)?)
                            }
                            ColumnKind::Bool => Value::Bool(bits[place] != 0),
                            kind @ (ColumnKind::I64 | ColumnKind::F32 | ColumnKind::F64) => {
                                number_value(kind, bits[place])
                            }
                        },
                    );
                }
            }
        }
        coder.finish()?;
        Ok(())
    }

    fn row(
        &mut self,
        bits: &mut BitReader<'_>,
        row: u32,
        visitor: &mut impl RowVisitor,
    ) -> Result<(), CodeError> {
        let count = self.table.series_count();
        let mut series = if count == 1 { 0 } else { self.table.expected() };
        let mut predicted = false;
        match self.header.back_end {
            BackEnd::Rice => {
                predicted = self.rice.begin(bits, false)?;
                if !predicted && count != 1 {
                    series = code_series(bits, 0, series, count)?;
                }
            }
            BackEnd::Varint if count != 1 => {
                series = known_series(varint::number(bits, 0)?, count)?;
            }
            BackEnd::Varint | BackEnd::Range => {}
        }
        let latest = self.table.ticks;
        let (time, columns, _) = self.table.get(self.plans, series);
        let expected = time.predict(latest);
        let timed = row > 0 || self.header.flags & BatchHeader::OUT_OF_ORDER != 0;
        let mut state = RowState {
            plans: self.plans,
            time,
            columns,
            timed,
        };
        let (symbols, texts) = (&mut self.symbols, &mut self.texts);
        let residual = match self.header.back_end {
            BackEnd::Rice => self
                .rice
                .cells(bits, &mut state, predicted, 0, symbols, texts)?,
            BackEnd::Varint | BackEnd::Range => varint::cells(bits, &mut state, 0, symbols, texts)?,
        };
        let ticks = expected.wrapping_add(unzigzag(residual));
        self.table.ticks = ticks;
        self.table.follow(series);
        let tick = i64::from(self.header.tick_us(&self.schema.time));
        let time_us = self
            .header
            .first_time_us
            .wrapping_add(ticks.wrapping_mul(tick));
        self.earliest = self.earliest.min(time_us);
        self.latest = self.latest.max(time_us);
        let (time, ..) = self.table.get(self.plans, series);
        time.learn(&self.schema.time, ticks);
        visitor.row(row, time_us, series);
        self.values(series, visitor)
    }

    fn values(&mut self, series: u32, visitor: &mut impl RowVisitor) -> Result<(), CodeError> {
        let (_, columns, recent) = self.table.get(self.plans, series);
        for (at, (plan, history)) in self.plans.iter().zip(columns).enumerate() {
            let symbol = self.symbols[at];
            if symbol.class == Class::Missing {
                if !plan.nullable {
                    return Err(DecodeError::Invalid("missing value").into());
                }
                history.set_missing(true);
                continue;
            }
            self.samples += 1;
            let (quotient, value) = match plan.kind {
                ColumnKind::Str => {
                    let dictionary = &self.schema.columns[at].dictionary;
                    let number = self.texts.number(at, plan, symbol, history.last())?;
                    visitor.value(at, Value::Str(self.texts.get(at, dictionary, number)?));
                    (Some(i64::from(number)), 0)
                }
                ColumnKind::Bool => {
                    let value = (history.last() ^ symbol.code.cast_signed()) & 1;
                    visitor.value(at, Value::Bool(value != 0));
                    (Some(value), 0)
                }
                ColumnKind::I64 | ColumnKind::F32 | ColumnKind::F64 => {
                    let (quotient, value) = match symbol.class {
                        Class::Number => {
                            let quotient = history.undo(plan, symbol.code);
                            (Some(quotient), plan.join(quotient, symbol.correction))
                        }
                        Class::Recent => {
                            let value = recent[at]
                                .get(symbol.code)
                                .ok_or(DecodeError::Invalid("rank"))?;
                            (plan.split(value).map(|(quotient, _)| quotient), value)
                        }
                        Class::Missing | Class::Raw => (None, symbol.code),
                    };
                    visitor.value(at, number_value(plan.kind, value));
                    (quotient, value)
                }
            };
            learn(plan, history, &mut recent[at], quotient, value);
        }
        Ok(())
    }
}

fn number_value(kind: ColumnKind, bits: u64) -> Value<'static> {
    match kind {
        ColumnKind::F32 => Value::F32(f32::from_bits((bits & 0xffff_ffff) as u32)),
        ColumnKind::F64 => Value::F64(f64::from_bits(bits)),
        ColumnKind::Bool | ColumnKind::I64 | ColumnKind::Str => Value::I64(bits.cast_signed()),
    }
}

/// Checks a schema against what a decoder may keep.
fn check(schema: &Schema, limits: &Limits) -> Result<(), DecodeError> {
    let states = schema.columns.len().saturating_mul(schema.series.len());
    if states > limits.states as usize || schema.series.len() > limits.series as usize {
        return Err(DecodeError::Limit("series"));
    }
    if schema.columns.len() > limits.columns as usize {
        return Err(DecodeError::Limit("columns"));
    }
    Ok(())
}
