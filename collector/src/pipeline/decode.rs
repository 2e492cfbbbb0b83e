//! Core: from a journal record to readings with names, times and tags.
//!
//! A batch is read whole into a [`Readings`] buffer before any sink sees a row of it: a batch that
//! turns out to be damaged in its last byte must leave nothing behind.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use headwater_proto::codec::{self, Limits, RowVisitor};
use headwater_proto::ids::{DeviceId, Epoch, Lane};
use headwater_proto::sabotage::{self, Bug};
use headwater_proto::sample::Value;
use headwater_proto::schema::{ColumnKind, Schema};
use headwater_proto::time::UnixMicros;

use super::envelope::{BatchHead, Clock, RawHead, TimeClass};
use super::payload;
use super::schemas::{SchemaBook, SchemaId};

/// Schemas whose texts are kept ready; about 1 KiB each.
const MAX_PREPARED: usize = 4_096;

/// A stretch of the buffer's text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Span {
    start: u32,
    len: u32,
}

#[derive(Debug, Clone, Copy)]
enum Cell {
    Bool(bool),
    I64(i64),
    F32(f32),
    F64(f64),
    Str(Span),
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    row: u32,
    time_us: i64,
    metric: Span,
    tags: Span,
    value: Cell,
}

/// What all readings of a record have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The device.
    pub device: DeviceId,
    /// Its lane.
    pub lane: Lane,
    /// Its epoch; the journal's id for a plain device.
    pub epoch: Epoch,
    /// The record's number.
    pub seq: u64,
    /// When it arrived.
    pub at: UnixMicros,
    /// How its times became Unix time.
    pub clock: Clock,
    /// The gateway that carried it.
    pub via: Option<DeviceId>,
}

/// One reading of the buffer.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a> {
    /// Row within the record.
    pub row: u32,
    /// Unix time in microseconds.
    pub ts_us: i64,
    /// Its metric.
    pub metric: &'a str,
    /// Labels and tags as a JSON object with sorted keys, or empty.
    pub tags: &'a str,
    /// Its value.
    pub value: Value<'a>,
}

/// A metric of a record's schema.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Metric {
    /// Its name.
    pub name: String,
    /// Its unit, or empty.
    pub unit: String,
    /// Its type on the wire.
    pub kind: ColumnKind,
}

/// Why a record in custody cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The batch's bytes.
    #[error(transparent)]
    Batch(#[from] codec::DecodeError),
    /// The payload of a plain device.
    #[error(transparent)]
    Payload(#[from] payload::PayloadError),
    /// Its schema is no longer known.
    #[error("schema {0} of its epoch is not known")]
    Schema(u32),
}

/// The texts of a schema as the lake wants them.
#[derive(Debug)]
struct Prepared {
    site: Option<String>,
    device_type: Option<String>,
    /// By series.
    tags: Vec<String>,
    device_tags: String,
    metrics: Vec<Metric>,
}

impl Prepared {
    fn new(schema: &Schema) -> Self {
        let mut tags: BTreeMap<&str, &str> = BTreeMap::new();
        let (mut site, mut device_type) = (None, None);
        for (key, value) in &schema.tags {
            match key.as_str() {
                "site" => site = Some(value.clone()),
                "device_type" => device_type = Some(value.clone()),
                _ => {
                    tags.insert(key, value);
                }
            }
        }
        let series = schema.series.iter().map(|series| {
            let mut all = tags.clone();
            all.extend(
                series
                    .labels
                    .iter()
                    .map(|(key, value)| (key.as_str(), value.as_str())),
            );
            json_of(&all)
        });
        let metrics = schema.columns.iter().map(|column| Metric {
            name: column.name.clone(),
            unit: column.unit.clone(),
            kind: column.kind,
        });
        Self {
            tags: series.collect(),
            metrics: metrics.collect(),
            device_tags: json_of(&tags),
            site,
            device_type,
        }
    }
}

fn json_of(pairs: &BTreeMap<&str, &str>) -> String {
    if pairs.is_empty() {
        return String::new();
    }
    serde_json::to_string(pairs).unwrap_or_default()
}

/// The readings of one record; reused from record to record.
#[derive(Debug, Default)]
pub struct Readings {
    origin: Option<Origin>,
    text: String,
    entries: Vec<Entry>,
    prepared: Option<Arc<Prepared>>,
    schema: Option<SchemaId>,
    cache: HashMap<SchemaId, Arc<Prepared>>,
}

impl Readings {
    /// What the record's readings have in common; `None` before the first record.
    #[must_use]
    pub const fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    /// How many readings there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The promoted tag `site`.
    #[must_use]
    pub fn site(&self) -> Option<&str> {
        self.prepared.as_ref()?.site.as_deref()
    }

    /// The promoted tag `device_type`.
    #[must_use]
    pub fn device_type(&self) -> Option<&str> {
        self.prepared.as_ref()?.device_type.as_deref()
    }

    /// The device's other tags as JSON, or empty.
    #[must_use]
    pub fn device_tags(&self) -> &str {
        self.prepared
            .as_ref()
            .map_or("", |prepared| &prepared.device_tags)
    }

    /// The metrics of the record's schema; none for a plain device.
    #[must_use]
    pub fn metrics(&self) -> &[Metric] {
        self.prepared
            .as_ref()
            .map_or(&[], |prepared| &prepared.metrics)
    }

    /// The record's schema.
    #[must_use]
    pub const fn schema(&self) -> Option<&SchemaId> {
        self.schema.as_ref()
    }

    /// The readings, in the order of the record.
    pub fn iter(&self) -> impl Iterator<Item = Reading<'_>> {
        // A deliberate bug lives here: the last row of a batch does not reach the sinks.
        let lost = if sabotage::is(Bug::RowLostInBatch) {
            self.entries.last().map(|entry| entry.row)
        } else {
            None
        };
        self.entries
            .iter()
            .filter(move |entry| lost != Some(entry.row))
            .map(|entry| Reading {
                row: entry.row,
                ts_us: entry.time_us,
                metric: self.at(entry.metric),
                tags: self.at(entry.tags),
                value: match entry.value {
                    Cell::Bool(value) => Value::Bool(value),
                    Cell::I64(value) => Value::I64(value),
                    Cell::F32(value) => Value::F32(value),
                    Cell::F64(value) => Value::F64(value),
                    Cell::Str(span) => Value::Str(self.at(span)),
                },
            })
    }

    fn at(&self, span: Span) -> &str {
        let start = span.start as usize;
        self.text
            .get(start..start + span.len as usize)
            .unwrap_or_default()
    }

    fn clear(&mut self) {
        self.origin = None;
        self.text.clear();
        self.entries.clear();
        self.prepared = None;
        self.schema = None;
    }

    /// Reads the payload of a Batch frame.
    ///
    /// # Errors
    /// [`DecodeError`]; the buffer is then empty.
    pub fn read_batch(
        &mut self,
        head: &BatchHead,
        payload: &[u8],
        schemas: &SchemaBook,
    ) -> Result<(), DecodeError> {
        self.clear();
        let number = codec::BatchHeader::peek(payload)?.schema_no;
        let stream = &head.stream;
        let (id, schema) = schemas
            .get(&stream.device, stream.epoch, number)
            .ok_or(DecodeError::Schema(number))?;
        let prepared = self.prepare(id, &schema);
        let metrics = prepared
            .metrics
            .iter()
            .map(|m| push_text(&mut self.text, &m.name))
            .collect();
        let tags = prepared
            .tags
            .iter()
            .map(|text| push_text(&mut self.text, text))
            .collect();
        let mut visitor = Visitor {
            metrics,
            tags,
            text: &mut self.text,
            entries: &mut self.entries,
            offset_us: head.clock.offset_us,
            row: (0, 0, Span::default()),
        };
        if let Err(error) = codec::decode(payload, &schema, &Limits::DEFAULT, &mut visitor) {
            self.clear();
            return Err(error.into());
        }
        self.prepared = Some(prepared);
        self.schema = Some(id);
        self.origin = Some(Origin {
            device: stream.device.clone(),
            lane: stream.lane,
            epoch: stream.epoch,
            seq: head.seq,
            at: head.at,
            clock: head.clock,
            via: head.via.clone(),
        });
        Ok(())
    }

    /// Reads a publish of a plain device.
    ///
    /// # Errors
    /// [`DecodeError`]; the buffer is then empty.
    pub fn read_raw(&mut self, head: &RawHead<'_>, bytes: &[u8]) -> Result<(), DecodeError> {
        self.clear();
        let mut from_device = false;
        let (text, entries) = (&mut self.text, &mut self.entries);
        let read = payload::read(head.decoder, head.metric, bytes, &mut |reading| {
            from_device |= reading.time_us.is_some();
            let value = match reading.value {
                Value::Bool(value) => Cell::Bool(value),
                Value::I64(value) => Cell::I64(value),
                Value::F32(value) => Cell::F32(value),
                Value::F64(value) => Cell::F64(value),
                Value::Str(value) => Cell::Str(push_text(text, value)),
            };
            entries.push(Entry {
                row: reading.row,
                time_us: reading.time_us.unwrap_or(head.at.0),
                metric: push_text(text, reading.metric),
                tags: push_text(text, reading.tags),
                value,
            });
        });
        if let Err(error) = read {
            self.clear();
            return Err(error.into());
        }
        let class = if from_device {
            TimeClass::Wall
        } else {
            TimeClass::Received
        };
        self.origin = Some(Origin {
            device: head.device.clone(),
            lane: Lane::Plain,
            epoch: Epoch::new(head.journal.0),
            seq: head.seq,
            at: head.at,
            clock: Clock {
                class,
                offset_us: 0,
                error_ms: None,
            },
            via: None,
        });
        Ok(())
    }

    fn prepare(&mut self, id: SchemaId, schema: &Schema) -> Arc<Prepared> {
        if let Some(prepared) = self.cache.get(&id) {
            return Arc::clone(prepared);
        }
        if self.cache.len() >= MAX_PREPARED {
            self.cache.clear();
        }
        let prepared = Arc::new(Prepared::new(schema));
        self.cache.insert(id, Arc::clone(&prepared));
        prepared
    }
}

/// A record's text stays far below 4 GiB: its frame is at most 1 MiB and names are bounded.
fn push_text(text: &mut String, more: &str) -> Span {
    let start = u32::try_from(text.len()).unwrap_or(u32::MAX);
    text.push_str(more);
    Span {
        start,
        len: u32::try_from(more.len()).unwrap_or(0),
    }
}

struct Visitor<'a> {
    metrics: Vec<Span>,
    tags: Vec<Span>,
    text: &'a mut String,
    entries: &'a mut Vec<Entry>,
    offset_us: i64,
    /// Number, time and tags of the present row.
    row: (u32, i64, Span),
}

impl RowVisitor for Visitor<'_> {
    fn row(&mut self, row: u32, time_us: i64, series: u32) {
        let tags = self.tags.get(series as usize).copied().unwrap_or_default();
        self.row = (row, time_us.saturating_add(self.offset_us), tags);
    }

    fn value(&mut self, column: usize, value: Value<'_>) {
        let value = match value {
            Value::Bool(value) => Cell::Bool(value),
            Value::I64(value) => Cell::I64(value),
            Value::F32(value) => Cell::F32(value),
            Value::F64(value) => Cell::F64(value),
            Value::Str(value) => Cell::Str(push_text(self.text, value)),
        };
        let metric = self.metrics.get(column).copied().unwrap_or_default();
        let (row, time_us, tags) = self.row;
        self.entries.push(Entry {
            row,
            time_us,
            metric,
            tags,
            value,
        });
    }
}
