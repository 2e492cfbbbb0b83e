//! Core: samples that were refused for their time, as JSON that keeps all of them, and read back.
//!
//! It is the payload of the rows of table `quarantine` with reason `impossible_time` or `undated`. A row
//! that stands for one sample has one flat object; one that stands for several has lists:
//!
//! | key | what |
//! |---|---|
//! | `offset_us` | what the collector added to the time as told; the sum is what was not believed |
//! | `time_class`, `error_ms` | how good the device's clock was; no error: nobody knows |
//! | `site`, `device_type`, `via` | as in the columns of `samples` |
//! | `metric`, `unit`, `tags` | tags as in the column of `samples`, but an object |
//! | `base` | where the time counts from: `wall` (1970), `uptime` (the boot, which `epochs` names), `received` |
//! | `kind`, `value` | `bool`, `i64`, `f32`, `f64`, `text`; numbers that JSON has not as texts: `inf`, `-inf`, `NaN`, or `NaN:` and the bits |
//! | `row`, `told_us` | row within the record; the time as the device told it, microseconds |
//! | `samples` | in place of `row`, `told_us`, `value`: `[row, place in series, told_us, value]` of each |
//! | `series` | in place of `metric` to `kind`: an object with those keys for each |
//! | `texts` | each text value once; in `samples` stands its place |

use std::collections::HashMap;
use std::rc::Rc;

use headwater_proto::sample::{OwnedValue, Value};
use serde_json::{Map, Value as Json, json};

use super::DeviceNews;
use super::news::Metric;
use super::time::class_of;
use crate::pipeline::envelope::{Clock, TimeClass};

/// What the samples of a record have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct About<'a> {
    pub(super) device: DeviceNews<'a>,
    pub(super) metrics: &'a [Metric],
    pub(super) via: Option<&'a str>,
    pub(super) clock: Clock,
}

/// One sample that was refused for its time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Late<'a> {
    /// Row within the record.
    pub(super) row: u32,
    /// Its metric, and the place of that in the record's schema.
    pub(super) metric: (&'a str, Option<u32>),
    /// Labels and tags as a JSON object with sorted keys, or empty.
    pub(super) tags: &'a str,
    /// Where its time came from.
    pub(super) class: TimeClass,
    /// Its time before anything was added.
    pub(super) told_us: i64,
    /// Its value.
    pub(super) value: Value<'a>,
}

impl About<'_> {
    /// The payload of a row that stands for one sample.
    pub(super) fn one(&self, late: &Late<'_>) -> Vec<u8> {
        let mut object = self.head();
        self.describe(late, &mut object);
        object.insert("row".into(), late.row.into());
        object.insert("told_us".into(), late.told_us.into());
        object.insert("value".into(), exact_json(late.value));
        Json::Object(object).to_string().into_bytes()
    }

    /// The payload of a row that stands for several.
    pub(super) fn list<'a>(&self, all: impl Iterator<Item = Late<'a>>) -> Vec<u8> {
        let (mut series, mut texts) = (Vec::new(), Vec::new());
        let mut series_at = HashMap::new();
        let mut texts_at = HashMap::new();
        let mut samples = Vec::new();
        for late in all {
            let key = (late.metric, late.tags, kind_name(late.value));
            let place = *series_at.entry(key).or_insert_with(|| {
                let mut object = Map::new();
                self.describe(&late, &mut object);
                series.push(Json::Object(object));
                series.len() - 1
            });
            let value = if let Value::Str(text) = late.value {
                json!(texts_at.entry(text).or_insert_with(|| {
                    texts.push(Json::from(text));
                    texts.len() - 1
                }))
            } else {
                exact_json(late.value)
            };
            samples.push(json!([late.row, place, late.told_us, value]));
        }
        let mut object = self.head();
        object.insert("series".into(), series.into());
        object.insert("texts".into(), texts.into());
        object.insert("samples".into(), samples.into());
        Json::Object(object).to_string().into_bytes()
    }

    fn head(&self) -> Map<String, Json> {
        let mut object = Map::new();
        object.insert("offset_us".into(), self.clock.offset_us.into());
        object.insert("time_class".into(), class_name(self.clock.class).into());
        let DeviceNews {
            site, device_type, ..
        } = self.device;
        for (key, value) in [
            ("site", site),
            ("device_type", device_type),
            ("via", self.via),
        ] {
            if let Some(value) = value {
                object.insert(key.into(), value.into());
            }
        }
        if let Some(error_ms) = self.clock.error_ms {
            object.insert("error_ms".into(), error_ms.into());
        }
        object
    }

    fn describe(&self, late: &Late<'_>, object: &mut Map<String, Json>) {
        let (metric, column) = late.metric;
        let base = match late.class {
            TimeClass::Synced | TimeClass::Wall => "wall",
            TimeClass::Dated | TimeClass::Undated => "uptime",
            TimeClass::Received => "received",
        };
        object.insert("metric".into(), metric.into());
        object.insert("base".into(), base.into());
        object.insert("kind".into(), kind_name(late.value).into());
        let column = column.and_then(|column| usize::try_from(column).ok());
        let known = column.and_then(|column| self.metrics.get(column));
        if let Some(known) = known.filter(|known| !known.unit.is_empty()) {
            object.insert("unit".into(), known.unit.as_str().into());
        }
        if let Ok(tags) = serde_json::from_str(late.tags) {
            object.insert("tags".into(), tags);
        }
    }
}

/// As table `samples` names it, where it has such rows.
const fn class_name(class: TimeClass) -> &'static str {
    if matches!(class, TimeClass::Undated) {
        "undated"
    } else {
        class_of(class).name()
    }
}

/// Samples of one payload, read back.
#[derive(Debug, Clone, PartialEq)]
pub struct Read {
    /// Largest error of the times in milliseconds, where known.
    pub error_ms: Option<u32>,
    /// The device's tag `site`.
    pub site: Option<String>,
    /// Its tag `device_type`.
    pub device_type: Option<String>,
    /// The gateway that carried the record.
    pub via: Option<String>,
    /// The samples.
    pub samples: Vec<Told>,
}

/// One sample of a payload.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// Row within the record.
    pub row: u32,
    /// Metric, unit and labels.
    pub series: Rc<Series>,
    /// The time that was not believed, microseconds: since 1970, or since a boot that nothing dates.
    pub ts_us: i64,
    /// The value.
    pub value: OwnedValue,
}

/// What samples of a payload have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Series {
    /// The metric.
    pub metric: String,
    /// Its unit, where known.
    pub unit: Option<String>,
    /// Tags and labels as a JSON object with sorted keys.
    pub tags: Option<String>,
    kind: String,
}

/// Reads a payload; `None` if it is none of a sample that was refused for its time.
#[must_use]
pub fn read(payload: &[u8]) -> Option<Read> {
    let json: Json = serde_json::from_slice(payload).ok()?;
    let offset_us = json.get("offset_us")?.as_i64()?;
    let text = |key: &str| json.get(key).and_then(Json::as_str).map(str::to_owned);
    let told = |row: &Json, series: &Rc<Series>, told_us: &Json, value: OwnedValue| {
        Some(Told {
            row: u32::try_from(row.as_u64()?).ok()?,
            series: Rc::clone(series),
            ts_us: told_us.as_i64()?.saturating_add(offset_us),
            value,
        })
    };
    let samples = match json.get("samples") {
        None => {
            let series = Rc::new(series_of(&json)?);
            let value = value_of(&series.kind, json.get("value")?)?;
            let one = told(json.get("row")?, &series, json.get("told_us")?, value)?;
            vec![one]
        }
        Some(samples) => {
            let series = json.get("series")?.as_array()?;
            let series = series.iter().map(|one| series_of(one).map(Rc::new));
            let series: Vec<Rc<Series>> = series.collect::<Option<_>>()?;
            let texts = json.get("texts")?.as_array()?;
            let one = |sample: &Json| {
                let [row, place, told_us, value] = sample.as_array()?.as_slice() else {
                    return None;
                };
                let series = series.get(usize::try_from(place.as_u64()?).ok()?)?;
                let value = match &*series.kind {
                    TEXT => texts.get(usize::try_from(value.as_u64()?).ok()?)?,
                    _ => value,
                };
                told(row, series, told_us, value_of(&series.kind, value)?)
            };
            samples.as_array()?.iter().map(one).collect::<Option<_>>()?
        }
    };
    let error_ms = json.get("error_ms").and_then(Json::as_u64);
    Some(Read {
        error_ms: error_ms.and_then(|error_ms| u32::try_from(error_ms).ok()),
        site: text("site"),
        device_type: text("device_type"),
        via: text("via"),
        samples,
    })
}

fn series_of(json: &Json) -> Option<Series> {
    let text = |key: &str| json.get(key).and_then(Json::as_str).map(str::to_owned);
    Some(Series {
        metric: text("metric")?,
        unit: text("unit"),
        tags: json.get("tags").map(Json::to_string),
        kind: text("kind")?,
    })
}

const TEXT: &str = "text";

/// The kind of a value as texts name it.
pub(crate) const fn kind_name(value: Value<'_>) -> &'static str {
    match value {
        Value::F64(_) => "f64",
        Value::I64(_) => "i64",
        Value::Bool(_) => "bool",
        Value::F32(_) => "f32",
        Value::Str(_) => TEXT,
    }
}

/// JSON has no NaN and no infinities: they become texts, so that nothing is lost in silence.
pub(crate) fn value_json(value: Value<'_>) -> Json {
    let float = |v: f64| {
        if v.is_finite() {
            json!(v)
        } else {
            json!(v.to_string())
        }
    };
    match value {
        Value::Bool(v) => json!(v),
        Value::I64(v) => json!(v),
        Value::F32(v) => {
            // The shortest text that is this f32, as a number: 0.1 and not 0.10000000149.
            v.to_string()
                .parse()
                .map_or_else(|_| float(f64::from(v)), float)
        }
        Value::F64(v) => float(v),
        Value::Str(v) => json!(v),
    }
}

/// As [`value_json`], with the bits of a NaN that says more than that it is none.
fn exact_json(value: Value<'_>) -> Json {
    let bits = match value {
        Value::F64(v) if v.is_nan() && v.to_bits() != f64::NAN.to_bits() => v.to_bits(),
        Value::F32(v) if v.is_nan() && v.to_bits() != f32::NAN.to_bits() => v.to_bits().into(),
        Value::Bool(_) | Value::I64(_) | Value::F32(_) | Value::F64(_) | Value::Str(_) => {
            return value_json(value);
        }
    };
    json!(format!("{NAN_BITS}{bits:x}"))
}

const NAN_BITS: &str = "NaN:";

fn value_of(kind: &str, json: &Json) -> Option<OwnedValue> {
    // A number stands there as the shortest text that is it.
    let text = || match json {
        Json::String(text) => Some(text.clone()),
        Json::Number(number) => Some(number.to_string()),
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => None,
    };
    Some(match kind {
        "bool" => OwnedValue::Bool(json.as_bool()?),
        "i64" => OwnedValue::I64(json.as_i64()?),
        "f64" => OwnedValue::F64(match text()?.strip_prefix(NAN_BITS) {
            Some(bits) => f64::from_bits(u64::from_str_radix(bits, 16).ok()?),
            None => text()?.parse().ok()?,
        }),
        "f32" => OwnedValue::F32(match text()?.strip_prefix(NAN_BITS) {
            Some(bits) => f32::from_bits(u32::from_str_radix(bits, 16).ok()?),
            None => text()?.parse().ok()?,
        }),
        TEXT => OwnedValue::Str(json.as_str()?.to_owned()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_proto::schema::ColumnKind;
    use proptest::prelude::*;

    const VALUES: [Value<'static>; 15] = [
        Value::F64(21.5),
        Value::F64(-0.0),
        Value::F64(f64::NAN),
        Value::F64(f64::from_bits(0x7ff8_dead_beef_0001)),
        Value::F64(f64::NEG_INFINITY),
        Value::F64(f64::MIN_POSITIVE / 2.0),
        Value::F32(0.1),
        Value::F32(f32::from_bits(0x7fc0_0001)),
        Value::F32(f32::INFINITY),
        Value::I64(i64::MIN),
        Value::I64(i64::MAX),
        Value::Bool(true),
        Value::Str("\"läuft\"\n\0"),
        Value::Str("NaN"),
        Value::Str(""),
    ];

    fn late(row: u32, value: Value<'_>) -> Late<'_> {
        Late {
            row,
            metric: ("m", Some(0)),
            tags: r#"{"axis":"x","zone":"ä"}"#,
            class: TimeClass::Dated,
            told_us: 7 - i64::from(row),
            value,
        }
    }

    fn metrics() -> [Metric; 1] {
        [Metric {
            name: "m".into(),
            unit: "K".into(),
            kind: ColumnKind::F64,
        }]
    }

    fn about(metrics: &[Metric]) -> About<'_> {
        About {
            device: DeviceNews {
                site: Some("north"),
                ..DeviceNews::default()
            },
            metrics,
            via: Some("gw"),
            clock: Clock {
                class: TimeClass::Dated,
                offset_us: 5,
                error_ms: Some(3),
            },
        }
    }

    /// Bits of a value, for NaN is not itself.
    fn bits(value: &OwnedValue) -> (&'static str, u64, String) {
        let (number, text) = match value {
            OwnedValue::F64(v) => (v.to_bits(), String::new()),
            OwnedValue::F32(v) => (v.to_bits().into(), String::new()),
            OwnedValue::I64(v) => (v.cast_unsigned(), String::new()),
            OwnedValue::Bool(v) => ((*v).into(), String::new()),
            OwnedValue::Str(v) => (0, v.clone()),
        };
        (kind_name(value.borrowed()), number, text)
    }

    #[test]
    fn every_value_comes_back_bit_for_bit_alone_and_in_a_list() {
        let metrics = metrics();
        let about = about(&metrics);
        let all: Vec<Late<'_>> = (0..).zip(VALUES).map(|(row, v)| late(row, v)).collect();
        let alone = all.iter().flat_map(|late| {
            let read = read(&about.one(late)).unwrap();
            assert_eq!(read.samples.len(), 1);
            read.samples
        });
        let listed = read(&about.list(all.iter().copied())).unwrap();
        assert_eq!(
            (listed.error_ms, listed.site.as_deref()),
            (Some(3), Some("north"))
        );
        assert_eq!(
            (listed.via.as_deref(), listed.device_type),
            (Some("gw"), None)
        );
        let expected: Vec<_> = VALUES.map(|v| bits(&v.into())).into();
        for found in [alone.collect(), listed.samples] {
            let found: Vec<Told> = found;
            let values: Vec<_> = found.iter().map(|told| bits(&told.value)).collect();
            assert_eq!(values, expected);
            for (row, told) in (0..).zip(&found) {
                assert_eq!((told.row, told.ts_us), (row, 12 - i64::from(row)));
                let Series {
                    metric, unit, tags, ..
                } = &*told.series;
                assert_eq!((&**metric, unit.as_deref()), ("m", Some("K")));
                assert_eq!(tags.as_deref(), Some(r#"{"axis":"x","zone":"ä"}"#));
            }
        }
    }

    #[test]
    fn a_flat_payload_can_be_read_without_this_program() {
        let metrics = metrics();
        let json: Json = serde_json::from_slice(&about(&metrics).one(&late(1, VALUES[0]))).unwrap();
        let expected = json!({
            "row": 1, "metric": "m", "unit": "K", "tags": {"axis": "x", "zone": "ä"},
            "kind": "f64", "value": 21.5, "base": "uptime", "told_us": 6, "offset_us": 5,
            "time_class": "offset", "error_ms": 3, "site": "north", "via": "gw",
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn values_keep_their_meaning_in_json() {
        assert_eq!(value_json(Value::F32(0.1)).to_string(), "0.1");
        assert_eq!(value_json(Value::F64(f64::NAN)), json!("NaN"));
        assert_eq!(value_json(Value::F64(f64::NEG_INFINITY)), json!("-inf"));
        let most = value_json(Value::I64(i64::MAX));
        assert_eq!(most.to_string(), i64::MAX.to_string());
    }

    proptest! {
        #[test]
        fn any_number_comes_back_bit_for_bit(double: u64, single: u32) {
            let values = [Value::F64(f64::from_bits(double)), Value::F32(f32::from_bits(single))];
            let about = about(&[]);
            for value in values {
                let read = read(&about.one(&late(0, value))).unwrap();
                prop_assert_eq!(bits(&read.samples[0].value), bits(&value.into()));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
        }
    }
}
