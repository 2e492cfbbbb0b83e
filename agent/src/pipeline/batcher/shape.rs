//! Core: the rows of one shape that wait for their batch, and the schema that they have.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
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

/// Rows that a batch has at least before it closes for a series that its schema does not know.
pub(super) const LEAST_ROWS: usize = 16;
/// Bytes of series that are announced again whenever there is one more.
pub(super) const SMALL_SERIES_BYTES: usize = 512;
/// Bytes that a batch more takes, on the wire and on disk, about.
pub(super) const BATCH_BYTES: usize = 32;
/// Bytes of a column in a schema beside its texts, with default parameters, at most.
const COLUMN_BYTES: usize = 16;
/// Bytes that a text takes beside its own, at most.
const LENGTH_BYTES: usize = 2;

/// The labels of a sample, hashed once for all shapes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hashed<'a> {
    labels: &'a [(&'a str, &'a str)],
    hash: u64,
}

impl<'a> Hashed<'a> {
    pub(super) fn of(sample: &'a Sample<'a>) -> Self {
        Self {
            labels: sample.labels,
            hash: hash_of(sample.labels.iter().copied()),
        }
    }
}

#[derive(Debug)]
pub(super) struct Shape {
    pub(super) schema: Schema,
    pub(super) rows: Rows,
    pub(super) encoder: Encoder,
    /// Bytes that `schema` takes at most without fitted parameters, or takes as it was announced.
    pub(super) schema_bytes: usize,
    /// Of these its series.
    series_bytes: usize,
    /// A hash of each series, so that few are compared in full.
    hashes: Vec<u64>,
    /// The place of the series that the last row has.
    guess: usize,
    /// Bytes spent because the series of these columns stand in several schemas; they pay for a common one.
    spent: usize,
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
    /// A shape of the sample's columns, without a series.
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
        schema.series = Vec::new();
        schema.tags = tags.to_vec();
        let columns = schema.columns.iter();
        let columns =
            columns.map(|c| COLUMN_BYTES + c.name.len() + c.unit.len() + 2 * LENGTH_BYTES);
        let tags = tags
            .iter()
            .map(|(key, value)| key.len() + value.len() + 2 * LENGTH_BYTES);
        let schema_bytes = columns.chain(tags).sum::<usize>();
        Self::empty(schema, schema_bytes, times, owed)
    }

    /// A shape of the same columns, fitted as this one, without a series or row.
    pub(super) fn beside(&self, times: Times, owed: Owed) -> Self {
        let mut schema = Schema {
            series: vec![Series::default()],
            ..self.schema.clone()
        };
        let schema_bytes = bytes_of(&schema).len();
        schema.series.clear();
        Self {
            drift: self.drift.beside(),
            ..Self::empty(schema, schema_bytes, times, owed)
        }
    }

    fn empty(schema: Schema, schema_bytes: usize, times: Times, owed: Owed) -> Self {
        Self {
            schema_bytes,
            series_bytes: 0,
            hashes: Vec::new(),
            guess: 0,
            spent: 0,
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

    /// A shape with the rows that wait here, and with their series alone.
    pub(super) fn copy_beside(&self) -> Self {
        let mut next = self.beside(self.times, self.owed);
        let mut places = BTreeMap::new();
        for row in 0..self.rows.len() {
            let series = &self.schema.series[self.rows.series(row) as usize];
            places.entry(self.rows.series(row)).or_insert_with(|| {
                next.add(series.clone());
                next.schema.series.len() - 1
            });
        }
        append(&mut next.rows, &self.rows, usize::MAX, |old| {
            place(places[&old])
        });
        next.opened = self.opened;
        next.cursor = self.cursor;
        next
    }

    /// Takes over the series of another shape of these columns, with its rows. One of both has none.
    pub(super) fn take_over(&mut self, other: Self) {
        let cost = self.announced_bytes() + other.announced_bytes();
        let free = self.new_bytes() + other.new_bytes();
        let known = self.schema.series.iter().enumerate();
        let known: BTreeMap<_, _> = known
            .map(|(at, known)| (known.labels.clone(), at))
            .collect();
        let mut places = Vec::with_capacity(other.schema.series.len());
        for series in other.schema.series {
            let at = known.get(&series.labels).copied().unwrap_or_else(|| {
                self.add(series);
                self.schema.series.len() - 1
            });
            places.push(place(at));
        }
        if !other.rows.is_empty() {
            append(&mut self.rows, &other.rows, usize::MAX, |old| {
                places[old as usize]
            });
            (self.opened, self.times) = (other.opened, other.times);
            (self.cursor, self.owed) = (other.cursor, other.owed);
        }
        let spent = self.spent + other.spent;
        self.spent = spent.saturating_sub(cost.saturating_sub(free));
        self.numbered = None;
        self.used = self.used.max(other.used);
    }

    /// Whether one schema for the series of both is worth what it costs to announce those again that have a
    /// schema: twice what was spent because they stand in several, new series included.
    pub(super) fn joins(&self, other: &Self) -> bool {
        let cost = self.announced_bytes() + other.announced_bytes();
        let bytes = self.series_bytes + other.series_bytes;
        let has_small = bytes <= SMALL_SERIES_BYTES;
        (has_small || cost <= 2 * (self.new_bytes() + self.spent + other.spent))
            && self.has_room(other.schema.series.len(), other.series_bytes)
    }

    const fn announced_bytes(&self) -> usize {
        if self.numbered.is_some() {
            self.series_bytes
        } else {
            0
        }
    }

    pub(super) const fn new_bytes(&self) -> usize {
        self.series_bytes - self.announced_bytes()
    }

    pub(super) const fn series_bytes(&self) -> usize {
        self.series_bytes
    }

    /// Takes note of bytes that would not be if all series of these columns stood in one schema.
    pub(super) const fn note_spent(&mut self, bytes: usize) {
        self.spent += bytes;
    }

    pub(super) fn is_full(&self, limits: BatchLimits) -> bool {
        self.rows.len() >= limits.rows || self.rows.approx_bytes() >= limits.bytes
    }

    /// Whether the shape's columns are those of `sample`, whose time counts from `base`.
    pub(super) fn is_like(&self, sample: &Sample<'_>, base: Base) -> bool {
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
    }

    /// Whether both shapes have the same columns, source and base.
    pub(super) fn is_beside(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.schema.columns, &other.schema.columns);
        self.times.base == other.times.base
            && self.owed.source == other.owed.source
            && ours.len() == theirs.len()
            && ours
                .iter()
                .zip(theirs)
                .all(|(a, b)| a.kind == b.kind && a.name == b.name && a.unit == b.unit)
    }

    /// Whether a sample of these columns may be added: its series is known, or finds room in a schema that is
    /// not announced yet.
    pub(super) fn takes(&self, sample: &Hashed<'_>) -> bool {
        let bytes = bytes_of_series(sample.labels.iter().copied());
        (self.numbered.is_none() && self.has_room(1, bytes)) || self.knows(sample)
    }

    /// Whether the schema has room for so many more series, which take so many bytes.
    fn has_room(&self, more: usize, bytes: usize) -> bool {
        let series = self.schema.series.len() + more;
        series <= Limits::DEFAULT.series as usize
            && series * self.schema.columns.len() <= Limits::DEFAULT.states as usize
            && self.schema_bytes + bytes <= MAX_SCHEMA_BYTES
    }

    pub(super) fn knows(&self, sample: &Hashed<'_>) -> bool {
        self.find(sample).is_some()
    }

    fn find(&self, sample: &Hashed<'_>) -> Option<usize> {
        let is_it = |at: usize| {
            self.hashes.get(at) == Some(&sample.hash)
                && is_series(&self.schema.series[at], sample.labels)
        };
        // Rows of one series mostly follow each other, or those of the same order come again.
        if is_it(self.guess) {
            return Some(self.guess);
        }
        if is_it(self.guess + 1) {
            return Some(self.guess + 1);
        }
        let mut known = self.hashes.iter().zip(&self.schema.series);
        known.position(|(known, series)| *known == sample.hash && is_series(series, sample.labels))
    }

    /// The place of the sample's series, which is added where it is new.
    pub(super) fn series_of(&mut self, sample: &Hashed<'_>) -> u32 {
        let at = self.find(sample).unwrap_or_else(|| {
            self.add(series(sample.labels));
            self.schema.series.len() - 1
        });
        self.guess = at;
        place(at)
    }

    fn add(&mut self, series: Series) {
        let labels = series.labels.iter();
        let labels = labels.map(|(key, value)| (key.as_str(), value.as_str()));
        self.hashes.push(hash_of(labels.clone()));
        let bytes = bytes_of_series(labels);
        self.series_bytes += bytes;
        self.schema_bytes += bytes;
        self.schema.series.push(series);
        for rows in [&mut self.rows, &mut self.seen] {
            rows.know_series(&self.schema);
        }
    }

    /// Fits the codec parameters if it is time to.
    fn fit(&mut self) {
        if self.drift.wants_rows() {
            append(&mut self.seen, &self.rows, SURE_ROWS, |series| series);
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
            cursor: self.cursor.take(),
            owed: self.owed,
        }
    }
}

/// Appends rows of the same columns until there are `most`; `places` tells where their series stand.
fn append(rows: &mut Rows, more: &Rows, most: usize, places: impl Fn(u32) -> u32) {
    let room = most.saturating_sub(rows.len());
    let mut values = Vec::new();
    for row in 0..more.len().min(room) {
        values.clear();
        values.extend((0..more.columns()).map(|column| more.value(row, column)));
        rows.push_row(more.time_us(row), places(more.series(row)), &values)
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

/// Bytes that a series takes in a schema, at most.
fn bytes_of_series<'a>(labels: impl Iterator<Item = (&'a str, &'a str)>) -> usize {
    let labels = labels.map(|(key, value)| key.len() + value.len() + 2 * LENGTH_BYTES);
    labels.sum::<usize>() + LENGTH_BYTES
}

fn hash_of<'a>(labels: impl Iterator<Item = (&'a str, &'a str)>) -> u64 {
    let mut hasher = DefaultHasher::new();
    labels.for_each(|label| label.hash(&mut hasher));
    hasher.finish()
}

fn place(at: usize) -> u32 {
    u32::try_from(at).expect("a schema has few series")
}

fn series(labels: &[(&str, &str)]) -> Series {
    let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    Series {
        labels: labels.iter().map(own).collect(),
    }
}

fn is_series(series: &Series, labels: &[(&str, &str)]) -> bool {
    series.labels.len() == labels.len()
        && series
            .labels
            .iter()
            .zip(labels)
            .all(|(a, b)| a.0 == b.0 && a.1 == b.1)
}
