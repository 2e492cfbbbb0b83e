//! Core: the payloads of plain MQTT devices, as values with names.
//!
//! | decoder | payload | metrics |
//! |---|---|---|
//! | `json` | one JSON object, or an array of them | each number, boolean or text; names of nested objects joined by `.` |
//! | `number` | one number, `true`, `false` or a text | the metric that the topic names, else `value` |
//! | `line` | InfluxDB line protocol | `measurement.field`, with the tags beside it |
//!
//! JSON does not tell 21 from 21.0, and a sensor that sends both must not be torn over two columns:
//! its numbers are doubles, except whole ones that a double cannot hold. `null` is a missing value.

use std::collections::HashSet;
use std::fmt::Write as _;

use headwater_proto::sample::Value;

use super::envelope::Decoder;

/// Most values that one payload may hold: 256 KiB of `1,` would otherwise become millions of rows.
pub const MAX_VALUES: usize = 16 * 1024;
/// Deepest nesting of JSON objects.
const MAX_DEPTH: usize = 8;
/// Longest metric name in bytes.
const MAX_METRIC_BYTES: usize = 256;

/// Why a payload is not what its topic's decoder reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// Not text.
    #[error("the payload is not UTF-8")]
    NotText,
    /// Not JSON.
    #[error("the payload is not JSON: {0}")]
    Json(String),
    /// JSON, but no object.
    #[error("the payload is JSON but not an object of values")]
    NotAnObject,
    /// Line protocol, badly formed.
    #[error("line {0} is not line protocol")]
    Line(usize),
    /// Nothing in it.
    #[error("the payload holds no value")]
    Empty,
    /// More than [`MAX_VALUES`], nested too deeply, a name too long or given twice.
    #[error("the payload passes a bound: {0}")]
    Bound(&'static str),
}

/// One value of a payload.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading<'a> {
    /// Number of the record within the payload: a JSON object or a line.
    pub row: u32,
    /// Its name.
    pub metric: &'a str,
    /// Its time, if the payload gives one; Unix microseconds.
    pub time_us: Option<i64>,
    /// Its value.
    pub value: Value<'a>,
    /// Its tags as canonical JSON, or empty.
    pub tags: &'a str,
}

/// Reads `payload`; visits its values in order and returns how many there were. What is visited
/// before an error is to be forgotten.
///
/// # Errors
/// [`PayloadError`] says why it cannot be read.
pub fn read(
    decoder: Decoder,
    metric: &str,
    payload: &[u8],
    visit: &mut dyn FnMut(Reading<'_>),
) -> Result<u32, PayloadError> {
    let text = std::str::from_utf8(payload)
        .map_err(|_| PayloadError::NotText)?
        .trim();
    let mut count = 0usize;
    let mut seen = HashSet::new();
    let mut counted = |reading: Reading<'_>| {
        count += 1;
        if count > MAX_VALUES {
            return Err(PayloadError::Bound("more than 16384 values"));
        }
        if reading.metric.len() > MAX_METRIC_BYTES {
            return Err(PayloadError::Bound("a name longer than 256 bytes"));
        }
        if !seen.insert((reading.row, reading.metric.to_owned())) {
            return Err(PayloadError::Bound("two values of one name"));
        }
        visit(reading);
        Ok(())
    };
    match decoder {
        Decoder::Json => read_json(text, metric, &mut counted)?,
        Decoder::Number => {
            let name = if metric.is_empty() { "value" } else { metric };
            let value = plain_value(text).ok_or(PayloadError::Empty)?;
            counted(Reading {
                row: 0,
                metric: name,
                time_us: None,
                value,
                tags: "",
            })?;
        }
        Decoder::Line => read_lines(text, &mut counted)?,
    }
    match u32::try_from(count) {
        Ok(0) | Err(_) => Err(PayloadError::Empty),
        Ok(count) => Ok(count),
    }
}

type Sink<'a> = dyn FnMut(Reading<'_>) -> Result<(), PayloadError> + 'a;

fn plain_value(text: &str) -> Option<Value<'_>> {
    match text {
        "" => None,
        "true" => Some(Value::Bool(true)),
        "false" => Some(Value::Bool(false)),
        _ => Some(text.parse().map_or(Value::Str(text), Value::F64)),
    }
}

fn read_json(text: &str, prefix: &str, visit: &mut Sink<'_>) -> Result<(), PayloadError> {
    use serde_json::Value as Json;
    let json: Json =
        serde_json::from_str(text).map_err(|error| PayloadError::Json(error.to_string()))?;
    let mut name = String::from(prefix);
    match &json {
        Json::Object(_) => walk(&json, 0, 0, &mut name, visit),
        Json::Array(items) => {
            for (row, item) in (0u32..).zip(items) {
                if !item.is_object() {
                    return Err(PayloadError::NotAnObject);
                }
                walk(item, row, 0, &mut name, visit)?;
            }
            Ok(())
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {
            Err(PayloadError::NotAnObject)
        }
    }
}

fn walk(
    json: &serde_json::Value,
    row: u32,
    depth: usize,
    name: &mut String,
    visit: &mut Sink<'_>,
) -> Result<(), PayloadError> {
    use serde_json::Value as Json;
    if depth > MAX_DEPTH {
        return Err(PayloadError::Bound("nested deeper than 8"));
    }
    let before = name.len();
    match json {
        Json::Null => {}
        Json::Bool(value) => visit(reading(row, name, Value::Bool(*value)))?,
        Json::Number(number) => visit(reading(row, name, json_number(number)))?,
        Json::String(text) => visit(reading(row, name, Value::Str(text)))?,
        Json::Object(fields) => {
            for (key, value) in fields {
                if !name.is_empty() {
                    name.push('.');
                }
                name.push_str(key);
                walk(value, row, depth + 1, name, visit)?;
                name.truncate(before);
            }
        }
        Json::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                // Writing into a String cannot fail.
                let _ = write!(name, ".{index}");
                walk(value, row, depth + 1, name, visit)?;
                name.truncate(before);
            }
        }
    }
    Ok(())
}

fn reading<'a>(row: u32, metric: &'a str, value: Value<'a>) -> Reading<'a> {
    Reading {
        row,
        metric,
        time_us: None,
        value,
        tags: "",
    }
}

/// Whole numbers up to this magnitude are exact as doubles.
const EXACT_IN_F64: u64 = 1 << 53;

#[expect(clippy::cast_precision_loss, reason = "the magnitude was checked")]
fn json_number(number: &serde_json::Number) -> Value<'static> {
    match number.as_i64() {
        Some(whole) if whole.unsigned_abs() > EXACT_IN_F64 => Value::I64(whole),
        Some(whole) => Value::F64(whole as f64),
        None => Value::F64(number.as_f64().unwrap_or(f64::NAN)),
    }
}

fn read_lines(text: &str, visit: &mut Sink<'_>) -> Result<(), PayloadError> {
    let mut row = 0;
    let mut name = String::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        read_line(line, row, &mut name, visit)?.ok_or(PayloadError::Line(index + 1))?;
        row += 1;
    }
    Ok(())
}

/// One line; `Ok(None)` if it is badly formed.
fn read_line(
    line: &str,
    row: u32,
    name: &mut String,
    visit: &mut Sink<'_>,
) -> Result<Option<()>, PayloadError> {
    let mut parts = split(line, ' ').into_iter().filter(|part| !part.is_empty());
    let (Some(series), Some(fields)) = (parts.next(), parts.next()) else {
        return Ok(None);
    };
    let time_us = match parts.next().map(str::parse::<i64>) {
        None => None,
        Some(Ok(ns)) => Some(ns.div_euclid(1000)),
        Some(Err(_)) => return Ok(None),
    };
    if parts.next().is_some() {
        return Ok(None);
    }
    let mut series = split(series, ',').into_iter();
    let measurement = unescape(series.next().unwrap_or_default());
    let mut tags = std::collections::BTreeMap::new();
    for tag in series {
        let Some((key, value)) = split_once(tag) else {
            return Ok(None);
        };
        tags.insert(unescape(key), unescape(value));
    }
    let tags = if tags.is_empty() {
        String::new()
    } else {
        serde_json::to_string(&tags).map_err(|error| PayloadError::Json(error.to_string()))?
    };
    for field in split(fields, ',') {
        let Some((key, text)) = split_once(field) else {
            return Ok(None);
        };
        let quoted = text
            .strip_prefix('"')
            .and_then(|text| text.strip_suffix('"'));
        let owned;
        let value = match (quoted, text) {
            (Some(inner), _) => {
                owned = inner.replace("\\\"", "\"").replace("\\\\", "\\");
                Value::Str(&owned)
            }
            (None, "t" | "T" | "true" | "True" | "TRUE") => Value::Bool(true),
            (None, "f" | "F" | "false" | "False" | "FALSE") => Value::Bool(false),
            (None, number) => match field_number(number) {
                Some(value) => value,
                None => return Ok(None),
            },
        };
        name.clear();
        name.push_str(&measurement);
        name.push('.');
        name.push_str(&unescape(key));
        visit(Reading {
            row,
            metric: name,
            time_us,
            value,
            tags: &tags,
        })?;
    }
    Ok(Some(()))
}

fn field_number(text: &str) -> Option<Value<'static>> {
    if let Some(whole) = text.strip_suffix('i') {
        return whole.parse().ok().map(Value::I64);
    }
    if let Some(whole) = text.strip_suffix('u') {
        return whole.parse().ok().map(Value::I64);
    }
    text.parse().ok().map(Value::F64)
}

/// Splits at `at` outside quotes and where no backslash stands before it.
fn split(text: &str, at: char) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut quoted, mut escaped) = (0, false, false);
    for (index, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            _ if c == at && !quoted => {
                parts.push(&text[start..index]);
                start = index + at.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn split_once(text: &str) -> Option<(&str, &str)> {
    let key = split(text, '=').first().map(|key| key.len())?;
    let value = text.get(key + 1..)?;
    (key > 0 && !value.is_empty()).then(|| (&text[..key], value))
}

fn unescape(text: &str) -> String {
    text.replace("\\,", ",")
        .replace("\\=", "=")
        .replace("\\ ", " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(decoder: Decoder, metric: &str, payload: &str) -> Result<Vec<String>, PayloadError> {
        let mut seen = Vec::new();
        read(decoder, metric, payload.as_bytes(), &mut |r| {
            seen.push(format!(
                "{} {} {:?} {:?} {}",
                r.row, r.metric, r.time_us, r.value, r.tags
            ));
        })?;
        Ok(seen)
    }

    #[test]
    fn a_json_object_gives_one_metric_for_each_value() {
        let payload = r#"{"t":21,"ok":true,"mode":"auto","none":null,"in":{"hum":40.5}}"#;
        assert_eq!(
            all(Decoder::Json, "", payload).unwrap(),
            [
                "0 in.hum None F64(40.5) ",
                "0 mode None Str(\"auto\") ",
                "0 ok None Bool(true) ",
                "0 t None F64(21.0) "
            ]
        );
    }

    #[test]
    fn a_whole_json_number_beyond_a_double_stays_whole() {
        assert_eq!(
            all(Decoder::Json, "", r#"{"n":9007199254740993}"#).unwrap(),
            ["0 n None I64(9007199254740993) "]
        );
    }

    #[test]
    fn a_plain_number_takes_its_metric_from_the_topic() {
        assert_eq!(
            all(Decoder::Number, "temp", " 20.5\n").unwrap(),
            ["0 temp None F64(20.5) "]
        );
        assert_eq!(
            all(Decoder::Number, "", "on").unwrap(),
            ["0 value None Str(\"on\") "]
        );
    }

    #[test]
    fn line_protocol_keeps_tags_types_and_time() {
        let line = "weather,site=a\\ b temp=1.5,n=3i,s=\"x, y\",up=t 1700000000000000123";
        assert_eq!(
            all(Decoder::Line, "", line).unwrap(),
            [
                "0 weather.temp Some(1700000000000000) F64(1.5) {\"site\":\"a b\"}",
                "0 weather.n Some(1700000000000000) I64(3) {\"site\":\"a b\"}",
                "0 weather.s Some(1700000000000000) Str(\"x, y\") {\"site\":\"a b\"}",
                "0 weather.up Some(1700000000000000) Bool(true) {\"site\":\"a b\"}"
            ]
        );
    }

    #[test]
    fn what_cannot_be_read_is_an_error_with_a_reason() {
        assert_eq!(all(Decoder::Json, "", "3"), Err(PayloadError::NotAnObject));
        assert_eq!(all(Decoder::Json, "", "{}"), Err(PayloadError::Empty));
        assert_eq!(
            all(Decoder::Line, "", "a b=1\nc"),
            Err(PayloadError::Line(2))
        );
        let deep = format!("{}1{}", "{\"a\":".repeat(20), "}".repeat(20));
        assert!(matches!(
            all(Decoder::Json, "", &deep),
            Err(PayloadError::Bound(_))
        ));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".{0,120}") {
            for decoder in [Decoder::Json, Decoder::Number, Decoder::Line] {
                let _ = all(decoder, "m", &text);
            }
        }
    }
}
