//! Core: the rows of one shape that wait for their batch, and the schema that they have.

use std::mem;
use std::sync::Arc;

use headwater_proto::codec::{BatchHeader, Encoder, Limits, Rows, fit};
use headwater_proto::schema::{Column, Schema, Series};
use headwater_proto::time::{Base, Millis};

use super::{BatchLimits, Closed, Content, MAX_SCHEMA_BYTES, Times};
use crate::pipeline::admit::Sample;
use crate::pipeline::drift::{Drift, SURE_ROWS};
use crate::pipeline::receipts::Owed;
use crate::pipeline::record::Cursor;

/// Bytes of a column in a schema beside its texts, with default parameters, at most.
const COLUMN_BYTES: usize = 16;
/// Bytes that a text takes beside its own, at most.
const LENGTH_BYTES: usize = 2;

#[derive(Debug)]
pub(super) struct Shape {
    pub(super) schema: Schema,
    pub(super) rows: Rows,
    pub(super) encoder: Encoder,
    /// Bytes that `schema` takes at most without fitted parameters, or takes as it was announced.
    pub(super) schema_bytes: usize,
    /// The number and bytes under which `schema` was announced, until it changes.
    pub(super) numbered: Option<(u32, Arc<[u8]>)>,
    pub(super) drift: Drift,
    /// Rows of earlier batches that the next fit looks at, at most [`SURE_ROWS`].
    pub(super) seen: Rows,
    pub(super) opened: Millis,
    pub(super) times: Times,
    pub(super) cursor: Option<Cursor>,
    pub(super) owed: Owed,
    pub(super) used: u64,
}

impl Shape {
    pub(super) fn new(
        sample: &Sample<'_>,
        times: Times,
        tags: &[(String, String)],
        owed: Owed,
    ) -> Self {
        let columns = sample
            .fields
            .iter()
            .map(|field| Column {
                unit: field.unit.into(),
                ..Column::new(field.name, field.kind)
            })
            .collect();
        let mut schema = Schema::new(1, columns);
        schema.series = vec![series(sample)];
        schema.tags = tags.to_vec();
        let columns = schema.columns.iter();
        let columns =
            columns.map(|c| COLUMN_BYTES + c.name.len() + c.unit.len() + 2 * LENGTH_BYTES);
        let tags = tags
            .iter()
            .map(|(key, value)| key.len() + value.len() + 2 * LENGTH_BYTES);
        let schema_bytes = columns.chain(tags).sum::<usize>() + series_bytes(sample);
        Self {
            schema_bytes,
            rows: Rows::new(&schema),
            seen: Rows::new(&schema),
            encoder: Encoder::new(&schema),
            schema,
            numbered: None,
            drift: Drift::default(),
            opened: Millis(0),
            times,
            cursor: None,
            owed,
            used: 0,
        }
    }

    pub(super) fn is_full(&self, limits: BatchLimits) -> bool {
        self.rows.len() >= limits.rows || self.rows.approx_bytes() >= limits.bytes
    }

    /// Whether the shape's columns are those of `sample`, whose time counts from `base`, and it has
    /// room for its series.
    pub(super) fn fits(&self, sample: &Sample<'_>, base: Base) -> bool {
        self.times.base == base
            && self.schema.columns.len() == sample.fields.len()
            && self
                .schema
                .columns
                .iter()
                .zip(sample.fields)
                .all(|(column, field)| {
                    column.kind == field.kind
                        && column.name == field.name
                        && column.unit == field.unit
                })
            && (self.has_room_for_series(sample) || self.find(sample).is_some())
    }

    fn has_room_for_series(&self, sample: &Sample<'_>) -> bool {
        let series = self.schema.series.len() + 1;
        series <= Limits::DEFAULT.series as usize
            && series * self.schema.columns.len() <= Limits::DEFAULT.states as usize
            && self.schema_bytes + series_bytes(sample) <= MAX_SCHEMA_BYTES
    }

    fn find(&self, sample: &Sample<'_>) -> Option<usize> {
        self.schema
            .series
            .iter()
            .position(|known| is_series(known, sample))
    }

    /// The place of the sample's series, which is added where it is new.
    pub(super) fn series_of(&mut self, sample: &Sample<'_>) -> u32 {
        let at = self.find(sample).unwrap_or_else(|| {
            self.schema.series.push(series(sample));
            self.schema_bytes += series_bytes(sample);
            self.numbered = None;
            self.regather();
            self.schema.series.len() - 1
        });
        u32::try_from(at).expect("a schema has few series")
    }

    /// Moves the rows into buffers that know all series.
    fn regather(&mut self) {
        for rows in [&mut self.rows, &mut self.seen] {
            let old = mem::replace(rows, Rows::new(&self.schema));
            append(rows, &old, old.len());
        }
    }

    /// Fits the codec parameters if it is time to.
    fn fit(&mut self) {
        if self.drift.wants_rows() {
            append(&mut self.seen, &self.rows, SURE_ROWS);
        } else {
            self.seen.clear();
        }
        if !self.drift.wants_fit() {
            return;
        }
        fit(&self.seen, &mut self.schema);
        self.drift.fitted(self.seen.len());
        if self.seen.len() >= SURE_ROWS {
            self.seen = Rows::new(&self.schema);
        }
        let mut bytes = bytes_of(&self.schema);
        if bytes.len() > MAX_SCHEMA_BYTES {
            without_parameters(&mut self.schema);
            bytes = bytes_of(&self.schema);
        }
        self.schema_bytes = bytes.len();
        self.numbered.take_if(|(_, known)| **known != *bytes);
    }

    pub(super) fn close(&mut self, next_number: &mut u32) -> Closed {
        self.fit();
        let mut new_schema = None;
        if self.numbered.is_none() {
            let bytes: Arc<[u8]> = bytes_of(&self.schema).into();
            self.encoder = Encoder::new(&self.schema);
            new_schema = Some((*next_number, Arc::clone(&bytes)));
            self.numbered = Some((*next_number, bytes));
            *next_number += 1;
        }
        let number = self.numbered.as_ref().map_or(0, |(number, _)| *number);
        let mut payload = Vec::new();
        let header: BatchHeader = self
            .encoder
            .encode(number, &self.rows, &mut payload)
            .expect("the rows were gathered for this schema and are not empty");
        self.drift.note(payload.len(), header.samples, header.rows);
        self.rows.clear();
        Closed {
            new_schema,
            content: Content::Batch(payload),
            samples: u64::from(header.samples),
            times: self.times,
            cursor: self.cursor,
            owed: self.owed,
        }
    }
}

/// Appends rows of the same columns until there are `most`.
fn append(rows: &mut Rows, more: &Rows, most: usize) {
    let room = most.saturating_sub(rows.len());
    let mut values = Vec::new();
    for row in 0..more.len().min(room) {
        values.clear();
        values.extend((0..more.columns()).map(|column| more.value(row, column)));
        rows.push_row(more.time_us(row), more.series(row), &values)
            .expect("the same columns took this row before");
    }
}

pub(super) fn bytes_of(schema: &Schema) -> Vec<u8> {
    let mut bytes = Vec::new();
    schema
        .encode(&mut bytes)
        .expect("admitted readings stay within the limits of a schema");
    bytes
}

/// Takes back what was fitted.
pub(super) fn without_parameters(schema: &mut Schema) {
    let (tags, series) = (mem::take(&mut schema.tags), mem::take(&mut schema.series));
    let plain = |column: &Column| Column {
        unit: column.unit.clone(),
        ..Column::new(&column.name, column.kind)
    };
    let columns = schema.columns.iter().map(plain).collect();
    *schema = Schema::new(1, columns);
    (schema.tags, schema.series) = (tags, series);
}

/// Bytes that the series of a row takes in a schema, at most.
fn series_bytes(sample: &Sample<'_>) -> usize {
    let labels = sample.labels.iter();
    let labels = labels.map(|(key, value)| key.len() + value.len() + 2 * LENGTH_BYTES);
    labels.sum::<usize>() + LENGTH_BYTES
}

fn series(sample: &Sample<'_>) -> Series {
    let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    Series {
        labels: sample.labels.iter().map(own).collect(),
    }
}

fn is_series(series: &Series, sample: &Sample<'_>) -> bool {
    series.labels.len() == sample.labels.len()
        && series
            .labels
            .iter()
            .zip(sample.labels)
            .all(|(a, b)| a.0 == b.0 && a.1 == b.1)
}
