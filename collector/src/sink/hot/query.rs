//! Reading the hot store, from any thread.

use std::ops::Range;
use std::sync::Arc;

use headwater_proto::codec::Limits;
use headwater_proto::sample::OwnedValue;
use headwater_proto::schema::Schema;

use super::chunk::{self, Point, StoredRow};
use super::maps::{DeviceInfo, Maps, part_key, schema_key};
use super::read::{Before, Cursor, HotError, HotRead, MAX_PAGE, Page};
use crate::state::StateError;

/// A handle on the hot store that only reads.
#[derive(Debug, Clone)]
pub struct HotView {
    maps: Maps,
}

impl HotView {
    pub(super) const fn new(maps: Maps) -> Self {
        Self { maps }
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

/// Leaves the newest `most` of the points, in order; says whether there were more.
fn keep_newest(points: &mut Vec<Point>, most: usize) -> bool {
    points.sort_by(|a, b| (a.time_us, &a.labels).cmp(&(b.time_us, &b.labels)));
    let more = points.len().saturating_sub(most);
    points.drain(..more);
    more > 0
}

/// The page that ends where `before` says.
fn page_before(mut points: Vec<Point>, before: Option<Before>, most: usize) -> Page<Point> {
    let told = before.map_or(0, |before| before.told);
    let mut is_more = keep_newest(&mut points, most + told);
    // Of the time at which the page before began, these were in it.
    let same = before.map_or(0, |before| {
        let same = points.iter().rev();
        let same = same.take_while(|point| point.time_us == before.time_us);
        same.take(before.told).count()
    });
    points.truncate(points.len() - same);
    is_more |= keep_newest(&mut points, most);
    let next = points.first().filter(|_| is_more).map(|first| {
        let time_us = first.time_us;
        let told = points.iter().take_while(|point| point.time_us == time_us);
        let earlier = before.filter(|before| before.time_us == time_us);
        let told = told.count() + earlier.map_or(0, |before| before.told);
        Before { time_us, told }.cursor()
    });
    Page {
        items: points,
        next,
    }
}

/// The pairs of a map as a page: `next` is made of the key of its last item.
fn page<T>(
    pairs: impl Iterator<Item = Result<(Vec<u8>, Vec<u8>), StateError>>,
    most: usize,
    mut read: impl FnMut(&[u8], &[u8]) -> Option<T>,
    cursor: impl Fn(&[u8]) -> Cursor,
) -> Result<Page<T>, HotError> {
    let most = most.clamp(1, MAX_PAGE);
    let mut items = Vec::new();
    let mut last = Vec::new();
    for pair in pairs {
        let (key, value) = pair?;
        if items.len() == most {
            let next = Some(cursor(&last));
            return Ok(Page { items, next });
        }
        items.extend(read(&key, &value));
        last = key;
    }
    Ok(Page { items, next: None })
}

/// The first key after `key`.
fn after(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}

impl From<StateError> for HotError {
    fn from(error: StateError) -> Self {
        Self::Unavailable(Box::new(error))
    }
}

impl HotRead for HotView {
    fn device(&self, device: &str) -> Result<Option<DeviceInfo>, HotError> {
        let stored = self.maps.devices.get(device.as_bytes())?;
        Ok(stored.and_then(|bytes| postcard::from_bytes(&bytes).ok()))
    }

    fn devices(
        &self,
        cursor: Option<&Cursor>,
        most: usize,
    ) -> Result<Page<(String, DeviceInfo)>, HotError> {
        let from = cursor.map_or_else(Vec::new, |cursor| after(cursor.0.clone()));
        // No text begins with this byte.
        let pairs = self.maps.devices.range(&from, &[0xff]);
        let read = |key: &[u8], value: &[u8]| {
            let name = String::from_utf8(key.to_vec()).ok()?;
            Some((name, postcard::from_bytes(value).ok()?))
        };
        page(pairs, most, read, |key| Cursor(key.to_vec()))
    }

    fn latest(
        &self,
        device: &str,
        cursor: Option<&Cursor>,
        most: usize,
    ) -> Result<Page<Point>, HotError> {
        let prefix = [device.as_bytes(), &[0]].concat();
        let to = [device.as_bytes(), &[1]].concat();
        let from = match cursor {
            Some(cursor) => after([&prefix, cursor.0.as_slice()].concat()),
            None => prefix.clone(),
        };
        let read = |_: &[u8], value: &[u8]| {
            let row = postcard::from_bytes::<StoredRow>(value).ok()?;
            Some(Point {
                metric: row.metric,
                labels: row.labels,
                time_us: row.time_us,
                value: OwnedValue::from(row.value),
            })
        };
        let pairs = self.maps.latest.range(&from, &to);
        page(pairs, most, read, |key| {
            Cursor(key[prefix.len()..].to_vec())
        })
    }

    fn series(
        &self,
        device: &str,
        metric: &str,
        span: Range<i64>,
        cursor: Option<&Cursor>,
        most: usize,
    ) -> Result<Page<Point>, HotError> {
        let before = cursor.map(Before::of).transpose()?;
        let most = most.clamp(1, MAX_PAGE);
        let end = before.map_or(span.end, |b| span.end.min(b.time_us.saturating_add(1)));
        let keep = most + before.map_or(0, |before| before.told);
        let chunk_us = self.device(device)?.map_or(0, |info| info.max_span_us);
        let from = chunk::key_from(device, span.start.saturating_sub(chunk_us));
        let to = chunk::key_from(device, end);
        let mut points = Vec::new();
        let mut schemas = SchemaCache::default();
        let mut whole: Vec<u8> = Vec::new();
        let mut current: Option<Vec<u8>> = None;
        let mut take = |key: &[u8], whole: &[u8], schemas: &mut SchemaCache| {
            let found = self.points(device, key, whole, schemas).into_iter();
            points.extend(found.filter(|point| {
                point.metric == metric && (span.start..end).contains(&point.time_us)
            }));
            // Twice as many, so that the cost of dropping is shared. One more than is needed stays,
            // by which the end knows that there are more.
            if points.len() > 2 * keep + 1 {
                keep_newest(&mut points, keep + 1);
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
        Ok(page_before(points, before, most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_pages_of_a_series_are_the_series(
            times in prop::collection::vec(0i64..6, 0..40),
            most in 1usize..9,
        ) {
            let points = (0u32..).zip(&times).map(|(label, time_us)| Point {
                metric: "m".into(),
                labels: format!("{label:02}"),
                time_us: *time_us,
                value: OwnedValue::I64(0),
            });
            let mut all: Vec<Point> = points.collect();
            let (mut pages, mut before) = (Vec::new(), None);
            loop {
                let end = before.map_or(i64::MAX, |b: Before| b.time_us + 1);
                let span = all.iter().filter(|point| point.time_us < end);
                let page = page_before(span.cloned().collect(), before, most);
                prop_assert!(page.items.len() <= most);
                pages.splice(0..0, page.items);
                let Some(next) = page.next else { break };
                before = Some(Before::of(&next).unwrap());
            }
            keep_newest(&mut all, usize::MAX);
            prop_assert_eq!(pages, all);
        }
    }
}
