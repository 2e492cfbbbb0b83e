//! Typed CSV sets: a header of `name:type` columns, the first of which is the time.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use headwater_proto::codec::Rows;
use headwater_proto::sample::{OwnedValue, Value};
use headwater_proto::schema::{Column, ColumnKind, Schema, Series};

/// The environment's name for the folder of sets.
pub(crate) const FOLDER: &str = "HEADWATER_DATA";

/// One set: its schema before any fit, and its rows.
pub(crate) struct Set {
    /// The file's name without its ending.
    pub(crate) name: String,
    /// Every time is a multiple of this many microseconds.
    pub(crate) unit_us: i64,
    /// Columns, and all label sets as series.
    pub(crate) schema: Schema,
    /// The rows, oldest first.
    pub(crate) rows: Vec<Row>,
}

/// One row of a set.
pub(crate) struct Row {
    /// Microseconds since the epoch or boot.
    pub(crate) time_us: i64,
    /// Place in the schema's series.
    pub(crate) series: u32,
    /// One per column.
    pub(crate) values: Vec<Option<OwnedValue>>,
}

impl Set {
    /// A set whose columns are nullable where a row lacks a value.
    pub(crate) fn new(name: String, unit_us: i64, mut schema: Schema, rows: Vec<Row>) -> Self {
        for (at, column) in schema.columns.iter_mut().enumerate() {
            column.nullable = rows.iter().any(|row| row.values[at].is_none());
        }
        Self {
            name,
            unit_us,
            schema,
            rows,
        }
    }

    /// Fills `buffer` with some of the rows.
    pub(crate) fn fill(
        &self,
        range: std::ops::Range<usize>,
        buffer: &mut Rows,
    ) -> anyhow::Result<()> {
        buffer.clear();
        for row in &self.rows[range] {
            let values: Vec<Option<Value<'_>>> = row
                .values
                .iter()
                .map(|v| v.as_ref().map(OwnedValue::borrowed))
                .collect();
            buffer.push_row(row.time_us, row.series, &values)?;
        }
        Ok(())
    }
}

/// Every `.csv` of the folder that `HEADWATER_DATA` names, by name.
pub(crate) fn sets() -> anyhow::Result<Vec<Set>> {
    let folder = std::env::var_os(FOLDER)
        .context("HEADWATER_DATA is not set: it names the folder of typed CSV sets")?;
    let folder = PathBuf::from(folder);
    let mut paths = Vec::new();
    for entry in
        std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?
    {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "csv") {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        bail!("{} holds no .csv file", folder.display());
    }
    paths.sort();
    paths
        .iter()
        .map(|path| read(path).with_context(|| path.display().to_string()))
        .collect()
}

fn read(path: &Path) -> anyhow::Result<Set> {
    let text = std::fs::read_to_string(path)?;
    let mut lines = text.lines();
    let header = lines.next().context("no header")?;
    let mut fields = header.split(',');
    let unit_us = match fields.next().and_then(|time| time.split_once(':')) {
        Some((_, "ms")) => 1_000,
        Some((_, "us")) => 1,
        _ => bail!("the first column is neither ts:ms nor ts:us"),
    };
    let fields: Vec<(&str, Option<ColumnKind>)> = fields
        .map(|field| {
            let (name, kind) = field.split_once(':').context("a column without a type")?;
            Ok((name, kind_of(kind)?))
        })
        .collect::<anyhow::Result<_>>()?;
    let columns: Vec<Column> = fields
        .iter()
        .filter_map(|&(name, kind)| Some(Column::new(name, kind?)))
        .collect();
    let mut schema = Schema::new(1, columns);
    let mut places: HashMap<Vec<(String, String)>, u32> = HashMap::new();
    let mut rows = Vec::new();
    for line in lines {
        let mut cells = line.split(',');
        let time: i64 = cells.next().context("an empty line")?.parse()?;
        let mut labels = Vec::new();
        let mut values = Vec::new();
        for (&(name, kind), cell) in fields.iter().zip(cells) {
            match kind {
                None => labels.push((name.to_owned(), cell.to_owned())),
                Some(_) if cell.is_empty() => values.push(None),
                Some(kind) => values.push(Some(value(kind, cell)?)),
            }
        }
        let next = u32::try_from(places.len())?;
        let series = *places.entry(labels.clone()).or_insert(next);
        if series == next {
            schema.series.resize(next as usize + 1, Series::default());
            schema.series[next as usize] = Series { labels };
        }
        rows.push(Row {
            time_us: time * unit_us,
            series,
            values,
        });
    }
    let name = path
        .file_stem()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    Ok(Set::new(name, unit_us, schema, rows))
}

/// The kind of a type's name; `None` for a label.
fn kind_of(name: &str) -> anyhow::Result<Option<ColumnKind>> {
    Ok(Some(match name {
        "bool" => ColumnKind::Bool,
        "i64" => ColumnKind::I64,
        "f32" => ColumnKind::F32,
        "f64" => ColumnKind::F64,
        "str" => ColumnKind::Str,
        "tag" => return Ok(None),
        other => bail!("unknown type {other}"),
    }))
}

fn value(kind: ColumnKind, cell: &str) -> anyhow::Result<OwnedValue> {
    Ok(match kind {
        ColumnKind::Bool => OwnedValue::Bool(cell == "1" || cell == "true"),
        ColumnKind::I64 => OwnedValue::I64(cell.parse()?),
        ColumnKind::F32 => OwnedValue::F32(cell.parse()?),
        ColumnKind::F64 => OwnedValue::F64(cell.parse()?),
        ColumnKind::Str => OwnedValue::Str(cell.to_owned()),
    })
}
