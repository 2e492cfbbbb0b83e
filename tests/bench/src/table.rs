//! Core: a batch as typed columns, the common ground of all codecs: each encodes from it and decodes
//! into it.

use std::collections::HashMap;

use anyhow::{Context, bail, ensure};
use headwater_proto::codec::Rows;
use headwater_proto::sample::Value;
use headwater_proto::schema::{ColumnKind, Schema};

use crate::data::{Row, Set};

/// What both ends know of a set before any batch.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    /// The unit of [`Table::times`] in codecs that name their own: the coarsest that is exact.
    pub(crate) unit_us: i64,
    pub(crate) columns: Vec<Field>,
    /// The label's name, if series are interleaved.
    pub(crate) label: Option<String>,
    /// The label of each series; one empty text if there is no label.
    pub(crate) series: Vec<String>,
    places: HashMap<String, u32>,
}

/// One column.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) kind: ColumnKind,
    pub(crate) nullable: bool,
}

/// Rows as columns. A missing value has a default in its place.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    /// What a time is a multiple of: the shape's unit, or 1.
    pub(crate) unit_us: i64,
    pub(crate) times: Vec<i64>,
    /// Places in [`Shape::series`].
    pub(crate) series: Vec<u32>,
    pub(crate) columns: Vec<Cells>,
}

/// The values of one column.
#[derive(Debug, Clone)]
pub(crate) struct Cells {
    pub(crate) present: Vec<bool>,
    pub(crate) values: Values,
}

/// Values by type.
#[derive(Debug, Clone)]
pub(crate) enum Values {
    Bool(Vec<bool>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Str(Vec<String>),
}

/// A batch in the two forms that codecs start from; neither is counted as encoding.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) table: Table,
    pub(crate) rows: Rows,
    pub(crate) samples: u64,
}

impl Shape {
    /// # Errors
    /// If series have more than one label: the text formats here write one.
    pub(crate) fn of(set: &Set) -> anyhow::Result<Self> {
        let mut label = None;
        let mut series = Vec::new();
        for one in &set.schema.series {
            match one.labels.as_slice() {
                [] => series.push(String::new()),
                [(key, value)] => {
                    label = Some(key.clone());
                    series.push(value.clone());
                }
                _ => bail!("{}: more than one label", set.name),
            }
        }
        let columns = set.schema.columns.iter().map(|column| Field {
            name: column.name.clone(),
            kind: column.kind,
            nullable: column.nullable,
        });
        let places = series.iter().cloned().zip(0..).collect();
        Ok(Self {
            unit_us: set.unit_us,
            columns: columns.collect(),
            label,
            series,
            places,
        })
    }

    /// The series that a label means.
    pub(crate) fn series_of(&self, label: &str) -> Option<u32> {
        self.places.get(label).copied()
    }

    /// The column of a name; `next` is where it most likely is.
    pub(crate) fn column(&self, name: &str, next: usize) -> Option<usize> {
        if self.columns.get(next).is_some_and(|c| c.name == name) {
            return Some(next);
        }
        self.columns.iter().position(|c| c.name == name)
    }
}

impl Values {
    fn new(kind: ColumnKind) -> Self {
        match kind {
            ColumnKind::Bool => Self::Bool(Vec::new()),
            ColumnKind::I64 => Self::I64(Vec::new()),
            ColumnKind::F32 => Self::F32(Vec::new()),
            ColumnKind::F64 => Self::F64(Vec::new()),
            ColumnKind::Str => Self::Str(Vec::new()),
        }
    }

    fn push_default(&mut self) {
        match self {
            Self::Bool(v) => v.push(false),
            Self::I64(v) => v.push(0),
            Self::F32(v) => v.push(0.0),
            Self::F64(v) => v.push(0.0),
            Self::Str(v) => v.push(String::new()),
        }
    }

    fn clear(&mut self) {
        match self {
            Self::Bool(v) => v.clear(),
            Self::I64(v) => v.clear(),
            Self::F32(v) => v.clear(),
            Self::F64(v) => v.clear(),
            Self::Str(v) => v.clear(),
        }
    }

    /// The value of a row, present or not.
    pub(crate) fn at(&self, row: usize) -> Value<'_> {
        match self {
            Self::Bool(v) => Value::Bool(v[row]),
            Self::I64(v) => Value::I64(v[row]),
            Self::F32(v) => Value::F32(v[row]),
            Self::F64(v) => Value::F64(v[row]),
            Self::Str(v) => Value::Str(&v[row]),
        }
    }
}

impl Cells {
    /// The value of a row, if it is not missing.
    pub(crate) fn get(&self, row: usize) -> Option<Value<'_>> {
        self.present[row].then(|| self.values.at(row))
    }
}

impl Table {
    pub(crate) fn new(shape: &Shape) -> Self {
        Self {
            unit_us: shape.unit_us,
            times: Vec::new(),
            series: Vec::new(),
            columns: shape
                .columns
                .iter()
                .map(|field| Cells {
                    present: Vec::new(),
                    values: Values::new(field.kind),
                })
                .collect(),
        }
    }

    pub(crate) fn of(shape: &Shape, rows: &[Row]) -> anyhow::Result<Self> {
        let mut table = Self::new(shape);
        for row in rows {
            table.begin_row(row.time_us / shape.unit_us, row.series);
            for (at, value) in row.values.iter().enumerate() {
                if let Some(value) = value {
                    table.set(at, value.borrowed())?;
                }
            }
        }
        Ok(table)
    }

    /// Forgets the rows and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.times.clear();
        self.series.clear();
        for cells in &mut self.columns {
            cells.present.clear();
            cells.values.clear();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.times.len()
    }

    /// Adds a row in which every value is missing until it is [`Table::set`].
    pub(crate) fn begin_row(&mut self, time: i64, series: u32) {
        self.times.push(time);
        self.series.push(series);
        for cells in &mut self.columns {
            cells.present.push(false);
            cells.values.push_default();
        }
    }

    /// Sets a value of the newest row.
    ///
    /// # Errors
    /// If there is no such column, or it is of another kind.
    pub(crate) fn set(&mut self, column: usize, value: Value<'_>) -> anyhow::Result<()> {
        let cells = self.columns.get_mut(column).context("no such column")?;
        match (&mut cells.values, value) {
            (Values::Bool(v), Value::Bool(x)) => *v.last_mut().context("no row")? = x,
            (Values::I64(v), Value::I64(x)) => *v.last_mut().context("no row")? = x,
            (Values::F32(v), Value::F32(x)) => *v.last_mut().context("no row")? = x,
            (Values::F64(v), Value::F64(x)) => *v.last_mut().context("no row")? = x,
            (Values::Str(v), Value::Str(x)) => v.last_mut().context("no row")?.push_str(x),
            _ => bail!("column {column} is of another kind"),
        }
        *cells.present.last_mut().context("no row")? = true;
        Ok(())
    }

    /// Compares bit for bit.
    ///
    /// # Errors
    /// The first difference.
    pub(crate) fn same(&self, other: &Self) -> anyhow::Result<()> {
        ensure!(
            self.len() == other.len(),
            "{} rows became {}",
            self.len(),
            other.len()
        );
        for row in 0..self.len() {
            let (a, b) = (
                self.times[row] * self.unit_us,
                other.times[row] * other.unit_us,
            );
            ensure!(a == b, "row {row}: time {a} us became {b}");
            let (a, b) = (self.series[row], other.series[row]);
            ensure!(a == b, "row {row}: series {a} became {b}");
            for (at, (a, b)) in self.columns.iter().zip(&other.columns).enumerate() {
                let (a, b) = (a.get(row), b.get(row));
                let same = match (&a, &b) {
                    (None, None) => true,
                    (Some(a), Some(b)) => a.same_bits(b),
                    _ => false,
                };
                ensure!(same, "row {row}, column {at}: {a:?} became {b:?}");
            }
        }
        Ok(())
    }
}

impl Batch {
    /// Some rows of `set`; `schema` is the one that they will be encoded with.
    pub(crate) fn new(
        set: &Set,
        shape: &Shape,
        schema: &Schema,
        range: std::ops::Range<usize>,
    ) -> anyhow::Result<Self> {
        let mut rows = Rows::new(schema);
        set.fill(range.clone(), &mut rows)?;
        Ok(Self {
            table: Table::of(shape, &set.rows[range])?,
            samples: u64::from(rows.samples()),
            rows,
        })
    }
}
