//! Core: keys and values of the embedded hot store.
//!
//! A chunk is a batch as it came, still compressed: storing it costs no work and its rows are made
//! when somebody asks. Its key sorts by device, then time:
//!
//! | bytes | what |
//! |---|---|
//! | n | device id |
//! | 1 | 0: sorts a short id before its longer neighbours |
//! | 8 | time of the first row in Unix µs, sign flipped, big-endian |
//! | 1 | lane |
//! | 8 | epoch, big-endian |
//! | 8 | sequence number, big-endian |
//! | 1 | part: a chunk is split at what one value may hold |
//!
//! The parts together are the format (1: batch payload, 2: rows), the added offset in µs (8,
//! little-endian) and the body.

use std::sync::Arc;

use headwater_proto::codec::{self, Limits, RowVisitor};
use headwater_proto::ids::Stream;
use headwater_proto::sample::{OwnedValue, Value};
use headwater_proto::schema::Schema;
use serde::{Deserialize, Serialize};

use crate::interpret::tags_of;
use crate::state::MAX_VALUE_BYTES;

/// Most parts of a chunk: a batch payload of 1 MiB is refused long before.
pub(super) const MAX_PARTS: usize = 255;

/// What the bytes of a chunk are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// A batch of a schema of its epoch.
    Batch,
    /// [`StoredRow`]s in postcard.
    Rows,
}

/// One value with its name, as read from a chunk.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// The metric.
    pub metric: String,
    /// Tags and labels as a JSON object with sorted keys, or empty.
    pub labels: String,
    /// Unix microseconds.
    pub time_us: i64,
    /// The value.
    pub value: OwnedValue,
}

/// A value in a [`Format::Rows`] chunk and in the map of latest values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum StoredValue {
    Bool(bool),
    I64(i64),
    F32(f32),
    F64(f64),
    Str(String),
}

/// A row of a plain device's payload, or of a batch of which not all rows are believed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct StoredRow {
    pub(super) metric: String,
    pub(super) labels: String,
    pub(super) time_us: i64,
    pub(super) value: StoredValue,
}

impl From<Value<'_>> for StoredValue {
    fn from(value: Value<'_>) -> Self {
        match value {
            Value::Bool(v) => Self::Bool(v),
            Value::I64(v) => Self::I64(v),
            Value::F32(v) => Self::F32(v),
            Value::F64(v) => Self::F64(v),
            Value::Str(v) => Self::Str(v.to_owned()),
        }
    }
}

impl From<StoredValue> for OwnedValue {
    fn from(value: StoredValue) -> Self {
        match value {
            StoredValue::Bool(v) => Self::Bool(v),
            StoredValue::I64(v) => Self::I64(v),
            StoredValue::F32(v) => Self::F32(v),
            StoredValue::F64(v) => Self::F64(v),
            StoredValue::Str(v) => Self::Str(v),
        }
    }
}

/// Beginning of every key of `device` from `time_us` on.
pub(super) fn key_from(device: &str, time_us: i64) -> Vec<u8> {
    let mut key = Vec::with_capacity(device.len() + 27);
    key.extend_from_slice(device.as_bytes());
    key.push(0);
    key.extend_from_slice(&(time_us ^ i64::MIN).to_be_bytes());
    key
}

/// The first key after all of `device`.
pub(super) fn key_after(device: &str) -> Vec<u8> {
    let mut key = device.as_bytes().to_vec();
    key.push(1);
    key
}

/// The key of a chunk, without its part.
pub(super) fn key(stream: &Stream, seq: u64, first_us: i64) -> Vec<u8> {
    let mut key = key_from(stream.device.as_str(), first_us);
    key.push(stream.lane.to_u8());
    key.extend_from_slice(&stream.epoch.get().to_be_bytes());
    key.extend_from_slice(&seq.to_be_bytes());
    key
}

/// Time and epoch in the key of a part; `None` if it is no such key.
pub(super) fn parse_key(device: &str, key: &[u8]) -> Option<(i64, u64)> {
    let rest = key.get(device.len() + 1..)?;
    let time = i64::from_be_bytes(rest.get(..8)?.try_into().ok()?) ^ i64::MIN;
    let epoch = u64::from_be_bytes(rest.get(9..17)?.try_into().ok()?);
    Some((time, epoch))
}

/// The values of a chunk, in order of their parts.
pub(super) fn parts(format: Format, offset_us: i64, body: &[u8]) -> Vec<Vec<u8>> {
    let mut whole = Vec::with_capacity(body.len() + 9);
    whole.push(match format {
        Format::Batch => 1,
        Format::Rows => 2,
    });
    whole.extend_from_slice(&offset_us.to_le_bytes());
    whole.extend_from_slice(body);
    whole.chunks(MAX_VALUE_BYTES).map(<[u8]>::to_vec).collect()
}

/// Reads a chunk put together from its parts. Rows of a batch need their schema; without it, or
/// when the chunk is damaged, there are none: the hot store is a view, the lake has the data.
pub(super) fn points(whole: &[u8], schema: impl FnOnce(u32) -> Option<Arc<Schema>>) -> Vec<Point> {
    read(whole, schema, Collect::new, |collect| collect.points)
}

/// Of a chunk the newest value of each metric and labels; of rows of a plain device all.
pub(super) fn newest(whole: &[u8], schema: impl FnOnce(u32) -> Option<Arc<Schema>>) -> Vec<Point> {
    read(whole, schema, Newest::new, Newest::into_points)
}

fn read<V: RowVisitor>(
    whole: &[u8],
    schema: impl FnOnce(u32) -> Option<Arc<Schema>>,
    visitor: impl FnOnce(Arc<Schema>, i64) -> V,
    finish: impl FnOnce(V) -> Vec<Point>,
) -> Vec<Point> {
    let Some((&format, rest)) = whole.split_first() else {
        return Vec::new();
    };
    let Some((offset, body)) = rest.split_first_chunk::<8>() else {
        return Vec::new();
    };
    let offset_us = i64::from_le_bytes(*offset);
    match format {
        1 => {
            let Ok(header) = codec::BatchHeader::peek(body) else {
                return Vec::new();
            };
            let Some(schema) = schema(header.schema_no) else {
                return Vec::new();
            };
            let mut visitor = visitor(Arc::clone(&schema), offset_us);
            match codec::decode(body, &schema, &Limits::DEFAULT, &mut visitor) {
                Ok(_) => finish(visitor),
                Err(_) => Vec::new(),
            }
        }
        2 => postcard::from_bytes::<Vec<StoredRow>>(body)
            .unwrap_or_default()
            .into_iter()
            .map(|row| Point {
                metric: row.metric,
                labels: row.labels,
                time_us: row.time_us.saturating_add(offset_us),
                value: row.value.into(),
            })
            .collect(),
        _ => Vec::new(),
    }
}

struct Collect {
    schema: Arc<Schema>,
    labels: Vec<String>,
    offset_us: i64,
    time_us: i64,
    series: usize,
    points: Vec<Point>,
}

impl Collect {
    fn new(schema: Arc<Schema>, offset_us: i64) -> Self {
        Self {
            labels: tags_of(&schema),
            schema,
            offset_us,
            time_us: 0,
            series: 0,
            points: Vec::new(),
        }
    }
}

impl RowVisitor for Collect {
    fn row(&mut self, _row: u32, time_us: i64, series: u32) {
        self.time_us = time_us.saturating_add(self.offset_us);
        self.series = series as usize;
    }

    fn value(&mut self, column: usize, value: Value<'_>) {
        self.points.push(Point {
            metric: self.schema.columns[column].name.clone(),
            labels: self.labels.get(self.series).cloned().unwrap_or_default(),
            time_us: self.time_us,
            value: value.into(),
        });
    }
}

struct Newest {
    schema: Arc<Schema>,
    offset_us: i64,
    time_us: i64,
    /// Place of the row's first column in `values`.
    first: usize,
    /// By series, then column: as many as the decoder keeps histories.
    values: Vec<Option<(i64, OwnedValue)>>,
}

impl Newest {
    fn new(schema: Arc<Schema>, offset_us: i64) -> Self {
        let states = schema.series.len().max(1) * schema.columns.len();
        Self {
            schema,
            offset_us,
            time_us: 0,
            first: 0,
            values: vec![None; states],
        }
    }

    fn into_points(self) -> Vec<Point> {
        let columns = self.schema.columns.len();
        let labels = tags_of(&self.schema);
        let values = self.values.into_iter().enumerate();
        values
            .filter_map(|(place, value)| {
                let (time_us, value) = value?;
                Some(Point {
                    metric: self.schema.columns[place % columns].name.clone(),
                    labels: labels.get(place / columns).cloned().unwrap_or_default(),
                    time_us,
                    value,
                })
            })
            .collect()
    }
}

impl RowVisitor for Newest {
    fn row(&mut self, _row: u32, time_us: i64, series: u32) {
        self.time_us = time_us.saturating_add(self.offset_us);
        self.first = series as usize * self.schema.columns.len();
    }

    fn value(&mut self, column: usize, value: Value<'_>) {
        let time_us = self.time_us;
        if let Some(slot) = self.values.get_mut(self.first + column)
            && slot.as_ref().is_none_or(|(known, _)| *known <= time_us)
        {
            *slot = Some((time_us, value.into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_proto::ids::{DeviceId, Epoch, Lane};

    fn stream(device: &str) -> Stream {
        Stream {
            device: DeviceId::new(device).unwrap(),
            lane: Lane::Normal,
            epoch: Epoch::new(77),
        }
    }

    #[test]
    fn keys_sort_by_device_then_time_even_before_1970() {
        let keys = [
            key(&stream("a"), 9, -5),
            key(&stream("a"), 1, 0),
            key(&stream("a"), 0, 1_700_000_000_000_000),
            key(&stream("a-longer"), 0, -9),
            key(&stream("b"), 0, -9),
        ];
        assert!(keys.is_sorted());
        assert!(keys[2] < key_after("a") && key_after("a") < keys[3]);
        assert_eq!(parse_key("a", &keys[0]), Some((-5, 77)));
    }

    #[test]
    fn rows_of_a_plain_device_come_back_from_several_parts() {
        let rows: Vec<StoredRow> = (0..400)
            .map(|i| StoredRow {
                metric: format!("metric-{i}"),
                labels: String::new(),
                time_us: i,
                value: StoredValue::F64(0.1),
            })
            .collect();
        let parts = parts(Format::Rows, 1_000, &postcard::to_allocvec(&rows).unwrap());
        assert!(parts.len() > 1 && parts.iter().all(|part| part.len() <= MAX_VALUE_BYTES));
        let points = points(&parts.concat(), |_| None);
        assert_eq!(points.len(), 400);
        assert_eq!(points[399].time_us, 1_399);
    }

    #[test]
    fn damaged_chunks_have_no_rows() {
        for bytes in [&[][..], &[1], &[1, 0, 0, 0, 0, 0, 0, 0, 0, 255], &[9; 40]] {
            assert!(points(bytes, |_| None).is_empty());
        }
    }
}
