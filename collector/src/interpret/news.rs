//! Core: what a schema says of a device and its metrics, as texts that every sink uses.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use headwater_proto::schema::{ColumnKind, Schema};

use super::{DeviceNews, Known, News};
use crate::pipeline::schemas::{SchemaBook, SchemaId};

/// Schemas whose texts are kept ready; about 1 KiB each.
const MAX_PREPARED: usize = 4_096;

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

/// The texts of a schema.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) schema: Arc<Schema>,
    known: Known,
    site: Option<String>,
    device_type: Option<String>,
    device_tags: String,
    /// By series.
    pub(super) tags: Vec<String>,
    pub(super) metrics: Vec<Metric>,
}

impl Prepared {
    pub(super) fn new(known: Known, schema: Arc<Schema>) -> Self {
        let tag = |name: &str| {
            let found = schema.tags.iter().rfind(|(key, _)| key == name);
            found.map(|(_, value)| value.clone())
        };
        let metrics = schema.columns.iter().map(|column| Metric {
            name: column.name.clone(),
            unit: column.unit.clone(),
            kind: column.kind,
        });
        Self {
            site: tag(SITE),
            device_type: tag(DEVICE_TYPE),
            device_tags: json_of(&other_tags(&schema)),
            tags: tags_of(&schema),
            metrics: metrics.collect(),
            known,
            schema,
        }
    }

    pub(super) fn news(&self) -> News<'_> {
        News {
            device: Some(DeviceNews {
                site: self.site.as_deref(),
                device_type: self.device_type.as_deref(),
                tags: &self.device_tags,
            }),
            metrics: &self.metrics,
            known: Some(&self.known),
        }
    }
}

/// Tags of a device that have columns of their own.
const SITE: &str = "site";
const DEVICE_TYPE: &str = "device_type";

fn other_tags(schema: &Schema) -> BTreeMap<&str, &str> {
    let tags = schema.tags.iter();
    tags.filter(|(key, _)| key != SITE && key != DEVICE_TYPE)
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect()
}

/// By series of `schema` its tags as every sink shows them: those of the device but `site` and
/// `device_type`, and the labels of the series, as a JSON object with sorted keys, or empty.
#[must_use]
pub fn tags_of(schema: &Schema) -> Vec<String> {
    let tags = other_tags(schema);
    let series = schema.series.iter().map(|series| {
        let mut all = tags.clone();
        let labels = series.labels.iter();
        all.extend(labels.map(|(key, value)| (key.as_str(), value.as_str())));
        json_of(&all)
    });
    series.collect()
}

fn json_of(pairs: &BTreeMap<&str, &str>) -> String {
    if pairs.is_empty() {
        return String::new();
    }
    serde_json::to_string(pairs).expect("a map of texts is JSON")
}

/// The texts of schemas that were used before.
#[derive(Debug, Default)]
pub(super) struct Cache(HashMap<SchemaId, Arc<Prepared>>);

impl Cache {
    pub(super) fn get(
        &mut self,
        id: SchemaId,
        schema: Arc<Schema>,
        book: &SchemaBook,
    ) -> Arc<Prepared> {
        if let Some(prepared) = self.0.get(&id) {
            return Arc::clone(prepared);
        }
        if self.0.len() >= MAX_PREPARED {
            self.0.clear();
        }
        let bytes = book.bytes(&id).unwrap_or_default();
        let prepared = Arc::new(Prepared::new(Known { id, bytes }, schema));
        self.0.insert(id, Arc::clone(&prepared));
        prepared
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_proto::schema::Series;

    #[test]
    fn a_series_has_the_devices_tags_and_its_own_labels_but_none_with_a_column_of_its_own() {
        let mut schema = Schema::new(1, Vec::new());
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        schema.tags = vec![
            pair("site", "north"),
            pair("zone", "2"),
            pair("device_type", "pump"),
            pair("axis", "x"),
        ];
        schema.series = vec![Series {
            labels: vec![pair("axis", "y")],
        }];
        assert_eq!(tags_of(&schema), [r#"{"axis":"y","zone":"2"}"#]);
        let known = Known {
            id: [0; 32],
            bytes: Arc::default(),
        };
        let prepared = Prepared::new(known, Arc::new(schema));
        let device = DeviceNews {
            site: Some("north"),
            device_type: Some("pump"),
            tags: r#"{"axis":"x","zone":"2"}"#,
        };
        assert_eq!(prepared.news().device, Some(device));
    }

    #[test]
    fn texts_are_made_anew_once_too_many_schemas_were_used() {
        let mut cache = Cache::default();
        let book = SchemaBook::default();
        let mut id = SchemaId::default();
        let schema = Arc::new(Schema::new(1, Vec::new()));
        let mut first = None;
        for number in 0..MAX_PREPARED {
            id[..8].copy_from_slice(&number.to_le_bytes());
            let prepared = cache.get(id, Arc::clone(&schema), &book);
            first.get_or_insert(prepared);
        }
        let first = first.unwrap();
        let again = cache.get(first.known.id, Arc::clone(&schema), &book);
        assert!(Arc::ptr_eq(&first, &again));
        assert_eq!(cache.0.len(), MAX_PREPARED);
        cache.get([255; 32], Arc::clone(&schema), &book);
        assert_eq!(cache.0.len(), 1);
        let anew = cache.get(first.known.id, schema, &book);
        assert!(!Arc::ptr_eq(&first, &anew));
        assert_eq!(first.news().known, anew.news().known);
    }
}
