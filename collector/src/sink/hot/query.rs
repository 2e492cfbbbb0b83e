//! Reading the hot store, from any thread.

use std::sync::Arc;

use headwater_proto::codec::Limits;
use headwater_proto::sample::OwnedValue;
use headwater_proto::schema::Schema;

use super::chunk::{self, Point, StoredRow};
use super::maps::{DeviceInfo, Maps, part_key, schema_key};
use crate::state::StateError;

/// A handle on the hot store that only reads.
#[derive(Debug, Clone)]
pub struct HotView {
    maps: Maps,
}

/// Readings of one metric.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Series {
    /// By time, then labels.
    pub points: Vec<Point>,
    /// Whether there were more than was asked for.
    pub truncated: bool,
}

impl HotView {
    pub(super) const fn new(maps: Maps) -> Self {
        Self { maps }
    }

    /// Every device with what is known about it, by name.
    ///
    /// # Errors
    /// When the state refuses.
    pub fn devices(&self) -> Result<Vec<(String, DeviceInfo)>, StateError> {
        let mut devices = Vec::new();
        for pair in self.maps.devices.prefix(&[]) {
            let (key, value) = pair?;
            if let (Ok(name), Ok(info)) = (String::from_utf8(key), postcard::from_bytes(&value)) {
                devices.push((name, info));
            }
        }
        Ok(devices)
    }

    /// What is known about one device.
    ///
    /// # Errors
    /// When the state refuses.
    pub fn device(&self, device: &str) -> Result<Option<DeviceInfo>, StateError> {
        let stored = self.maps.devices.get(device.as_bytes())?;
        Ok(stored.and_then(|bytes| postcard::from_bytes(&bytes).ok()))
    }

    /// The newest value of each metric of `device`, by metric.
    ///
    /// # Errors
    /// When the state refuses.
    pub fn latest(&self, device: &str) -> Result<Vec<Point>, StateError> {
        let mut prefix = device.as_bytes().to_vec();
        prefix.push(0);
        let mut points = Vec::new();
        for pair in self.maps.latest.prefix(&prefix) {
            let (_, value) = pair?;
            if let Ok(row) = postcard::from_bytes::<StoredRow>(&value) {
                points.push(Point {
                    metric: row.metric,
                    labels: row.labels,
                    time_us: row.time_us,
                    value: OwnedValue::from(row.value),
                });
            }
        }
        Ok(points)
    }

    /// Readings of `metric` of `device` with times in `from_us..to_us`, at most `limit`, the
    /// newest if there are more.
    ///
    /// # Errors
    /// When the state refuses.
    pub fn series(
        &self,
        device: &str,
        metric: &str,
        from_us: i64,
        to_us: i64,
        limit: usize,
    ) -> Result<Series, StateError> {
        let span = self.device(device)?.map_or(0, |info| info.max_span_us);
        let from = chunk::key_from(device, from_us.saturating_sub(span));
        let to = chunk::key_from(device, to_us);
        let mut series = Series::default();
        let mut schemas = SchemaCache::default();
        let mut whole: Vec<u8> = Vec::new();
        let mut current: Option<Vec<u8>> = None;
        let mut take = |key: &[u8], whole: &[u8], schemas: &mut SchemaCache| {
            let points = self.points(device, key, whole, schemas);
            series.points.extend(points.into_iter().filter(|point| {
                point.metric == metric && (from_us..to_us).contains(&point.time_us)
            }));
            // Twice the limit, so that the cost of dropping is shared.
            if series.points.len() > limit.saturating_mul(2) {
                keep_newest(&mut series, limit);
            }
        };
        for pair in self.maps.recent.range(&from, &to) {
            let (key, value) = pair?;
            let chunk = &key[..key.len() - 1];
            if current.as_deref() != Some(chunk) {
                if let Some(done) = current.replace(chunk.to_vec()) {
                    take(&done, &whole, &mut schemas);
                }
                whole.clear();
            }
            whole.extend_from_slice(&value);
        }
        if let Some(done) = current {
            take(&done, &whole, &mut schemas);
        }
        keep_newest(&mut series, limit);
        Ok(series)
    }

    /// The newest values of one chunk.
    pub(super) fn newest(
        &self,
        device: &str,
        key: &[u8],
        schemas: &mut SchemaCache,
    ) -> Result<Vec<Point>, StateError> {
        let mut whole = Vec::new();
        let mut part = 0;
        while let Some(bytes) = self.maps.recent.get(&part_key(key, part))? {
            whole.extend_from_slice(&bytes);
            part += 1;
            if part >= chunk::MAX_PARTS {
                break;
            }
        }
        Ok(match chunk::parse_key(device, key) {
            Some((_, epoch)) => chunk::newest(&whole, |number| {
                self.cached_schema(device, epoch, number, schemas)
            }),
            None => Vec::new(),
        })
    }

    fn points(
        &self,
        device: &str,
        key: &[u8],
        whole: &[u8],
        schemas: &mut SchemaCache,
    ) -> Vec<Point> {
        let Some((_, epoch)) = chunk::parse_key(device, key) else {
            return Vec::new();
        };
        chunk::points(whole, |number| {
            self.cached_schema(device, epoch, number, schemas)
        })
    }

    /// A schema of `device`; `None` if the store does not have it.
    pub(super) fn cached_schema(
        &self,
        device: &str,
        epoch: u64,
        number: u32,
        cache: &mut SchemaCache,
    ) -> Option<Arc<Schema>> {
        if let Some((known, schema)) = &cache.0
            && *known == (epoch, number)
        {
            return Some(Arc::clone(schema));
        }
        let schema = Arc::new(self.schema(device, epoch, number).ok().flatten()?);
        cache.0 = Some(((epoch, number), Arc::clone(&schema)));
        Some(schema)
    }

    fn schema(&self, device: &str, epoch: u64, number: u32) -> Result<Option<Schema>, StateError> {
        let mut whole = Vec::new();
        for pair in self.maps.schemas.prefix(&schema_key(device, epoch, number)) {
            whole.extend_from_slice(&pair?.1);
        }
        Ok(Schema::decode(&whole, &Limits::DEFAULT).ok())
    }
}

/// The schema of one device that was used last: neighbouring chunks share it.
#[derive(Debug, Default)]
pub(super) struct SchemaCache(Option<((u64, u32), Arc<Schema>)>);

fn keep_newest(series: &mut Series, limit: usize) {
    series
        .points
        .sort_by(|a, b| (a.time_us, &a.labels).cmp(&(b.time_us, &b.labels)));
    if series.points.len() > limit {
        series.points.drain(..series.points.len() - limit);
        series.truncated = true;
    }
}
