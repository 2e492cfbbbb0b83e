//! Rows of one schema, gathered column by column for a batch.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use crate::sample::Value;
use crate::schema::{ColumnKind, MAX_ROWS, MAX_VALUE_TEXT_BYTES, Schema};

/// Most distinct texts that a column keeps from batch to batch; above that `clear` forgets them.
const MAX_POOLED_TEXTS: usize = 1_024;

/// Why a row is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// The row has another number of values than the schema has columns.
    #[error("the row has {0} values, not one per column")]
    Width(usize),
    /// A value is of another kind than its column.
    #[error("the value of column {0} is of another kind than the column")]
    Kind(usize),
    /// A value is missing where the schema says it never is.
    #[error("the value of column {0} is missing, and the column is not nullable")]
    Missing(usize),
    /// A text is longer than [`MAX_VALUE_TEXT_BYTES`].
    #[error("the text of column {0} is too long")]
    Text(usize),
    /// No value at all: a row has at least one.
    #[error("the row has no value")]
    Empty,
    /// The schema has no such series.
    #[error("the schema has no series {0}")]
    Series(u32),
    /// The batch has as many rows as any may have.
    #[error("the batch is full")]
    Full,
}

/// A columnar buffer of rows of one schema; its memory serves batch after batch.
#[derive(Debug, Clone)]
pub struct Rows {
    pub(crate) times: Vec<i64>,
    pub(crate) series: Vec<u32>,
    pub(crate) columns: Vec<Cells>,
    series_count: u32,
    samples: u32,
    text_bytes: usize,
}

/// The values of one column.
#[derive(Debug, Clone)]
pub(crate) struct Cells {
    pub(crate) kind: ColumnKind,
    nullable: bool,
    pub(crate) present: Vec<bool>,
    /// How many are not.
    pub(crate) missing: usize,
    /// The value's bits; for text, its place in `pool`.
    pub(crate) bits: Vec<u64>,
    pub(crate) pool: Vec<String>,
    places: BTreeMap<String, u32>,
    last: u32,
}

impl Rows {
    /// An empty buffer for rows of `schema`.
    #[must_use]
    pub fn new(schema: &Schema) -> Self {
        let columns = schema
            .columns
            .iter()
            .map(|column| Cells {
                kind: column.kind,
                nullable: column.nullable,
                present: Vec::new(),
                missing: 0,
                bits: Vec::new(),
                pool: Vec::new(),
                places: BTreeMap::new(),
                last: 0,
            })
            .collect();
        Self {
            times: Vec::new(),
            series: Vec::new(),
            columns,
            series_count: u32::try_from(schema.series.len()).unwrap_or(u32::MAX),
            samples: 0,
            text_bytes: 0,
        }
    }

    /// Takes rows of all series of `schema` from now on, which is the one of the rows with more series at its end.
    pub fn know_series(&mut self, schema: &Schema) {
        let count = u32::try_from(schema.series.len()).unwrap_or(u32::MAX);
        self.series_count = self.series_count.max(count);
    }

    /// Adds a row: its time in µs, its series' place in the schema, and a value per column.
    ///
    /// # Errors
    /// [`RowError`]; the buffer is then unchanged.
    pub fn push_row(
        &mut self,
        time_us: i64,
        series: u32,
        values: &[Option<Value<'_>>],
    ) -> Result<(), RowError> {
        self.check(series, values)?;
        self.times.push(time_us);
        self.series.push(series);
        for (cells, value) in self.columns.iter_mut().zip(values) {
            cells.present.push(value.is_some());
            cells.missing += usize::from(value.is_none());
            let bits = match *value {
                None => 0,
                Some(Value::Bool(v)) => u64::from(v),
                Some(Value::I64(v)) => v.cast_unsigned(),
                Some(Value::F32(v)) => u64::from(v.to_bits()),
                Some(Value::F64(v)) => v.to_bits(),
                Some(Value::Str(v)) => {
                    self.text_bytes += v.len();
                    u64::from(cells.intern(v))
                }
            };
            cells.bits.push(bits);
            self.samples += u32::from(value.is_some());
        }
        Ok(())
    }

    fn check(&self, series: u32, values: &[Option<Value<'_>>]) -> Result<(), RowError> {
        if values.len() != self.columns.len() {
            return Err(RowError::Width(values.len()));
        }
        if series >= self.series_count {
            return Err(RowError::Series(series));
        }
        if self.times.len() >= MAX_ROWS as usize {
            return Err(RowError::Full);
        }
        let mut present = false;
        for (at, (cells, value)) in self.columns.iter().zip(values).enumerate() {
            let Some(value) = value else {
                if cells.nullable {
                    continue;
                }
                return Err(RowError::Missing(at));
            };
            present = true;
            let kind = match value {
                Value::Bool(_) => ColumnKind::Bool,
                Value::I64(_) => ColumnKind::I64,
                Value::F32(_) => ColumnKind::F32,
                Value::F64(_) => ColumnKind::F64,
                Value::Str(text) if text.len() > MAX_VALUE_TEXT_BYTES => {
                    return Err(RowError::Text(at));
                }
                Value::Str(_) => ColumnKind::Str,
            };
            if kind != cells.kind {
                return Err(RowError::Kind(at));
            }
        }
        if present {
            Ok(())
        } else {
            Err(RowError::Empty)
        }
    }

    /// Forgets the rows and keeps the memory.
    pub fn clear(&mut self) {
        self.times.clear();
        self.series.clear();
        self.samples = 0;
        self.text_bytes = 0;
        for cells in &mut self.columns {
            cells.present.clear();
            cells.missing = 0;
            cells.bits.clear();
            if cells.pool.len() > MAX_POOLED_TEXTS {
                cells.pool.clear();
                cells.places.clear();
                cells.last = 0;
            }
        }
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// How many columns a row has.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns.len()
    }

    /// How many values are not missing.
    #[must_use]
    pub const fn samples(&self) -> u32 {
        self.samples
    }

    /// Estimated memory of the rows in bytes; an upper bound of the batch for ordinary data.
    #[must_use]
    pub fn approx_bytes(&self) -> usize {
        self.times.len() * (12 + 9 * self.columns.len()) + self.text_bytes
    }

    /// The time of a row.
    #[must_use]
    pub fn time_us(&self, row: usize) -> i64 {
        self.times[row]
    }

    /// The series of a row.
    #[must_use]
    pub fn series(&self, row: usize) -> u32 {
        self.series[row]
    }

    /// The value of a cell, if it is not missing.
    #[must_use]
    pub fn value(&self, row: usize, column: usize) -> Option<Value<'_>> {
        let cells = &self.columns[column];
        cells.present[row].then(|| cells.value(cells.bits[row]))
    }
}

impl Cells {
    fn intern(&mut self, text: &str) -> u32 {
        if self
            .pool
            .get(self.last as usize)
            .is_some_and(|last| last == text)
        {
            return self.last;
        }
        let place = match self.places.get(text) {
            Some(&place) => place,
            None => {
                // At most MAX_POOLED_TEXTS + MAX_ROWS texts are pooled.
                let place = u32::try_from(self.pool.len()).unwrap_or(u32::MAX);
                self.pool.push(text.into());
                self.places.insert(text.into(), place);
                place
            }
        };
        self.last = place;
        place
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the bits are those of the kind"
    )]
    pub(crate) fn value(&self, bits: u64) -> Value<'_> {
        match self.kind {
            ColumnKind::Bool => Value::Bool(bits != 0),
            ColumnKind::I64 => Value::I64(bits.cast_signed()),
            ColumnKind::F32 => Value::F32(f32::from_bits(bits as u32)),
            ColumnKind::F64 => Value::F64(f64::from_bits(bits)),
            ColumnKind::Str => Value::Str(&self.pool[bits as usize]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Column;

    #[test]
    fn a_batch_is_full_at_its_most_rows() {
        let schema = Schema::new(1, alloc::vec![Column::new("value", ColumnKind::Bool)]);
        let mut rows = Rows::new(&schema);
        for time in 0..i64::from(MAX_ROWS) {
            rows.push_row(time, 0, &[Some(Value::Bool(true))]).unwrap();
        }
        assert_eq!(
            rows.push_row(0, 0, &[Some(Value::Bool(true))]),
            Err(RowError::Full)
        );
        assert_eq!(rows.len(), MAX_ROWS as usize);
    }

    #[test]
    fn texts_stay_pooled_from_batch_to_batch_up_to_their_bound() {
        let schema = Schema::new(1, alloc::vec![Column::new("text", ColumnKind::Str)]);
        let mut rows = Rows::new(&schema);
        let push = |rows: &mut Rows, text: usize| {
            let text = std::format!("{text}");
            rows.push_row(0, 0, &[Some(Value::Str(&text))]).unwrap();
        };
        (0..MAX_POOLED_TEXTS).for_each(|text| push(&mut rows, text));
        rows.clear();
        assert_eq!(rows.columns[0].pool.len(), MAX_POOLED_TEXTS);
        push(&mut rows, MAX_POOLED_TEXTS);
        rows.clear();
        assert!(rows.columns[0].pool.is_empty());
        push(&mut rows, 0);
        assert_eq!(rows.value(0, 0), Some(Value::Str("0")));
    }
}
