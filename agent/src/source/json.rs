//! Core: one JSON object per line.
//!
//! ```text
//! {"ts_ms": 1700000000123, "tags": {"floor": "2"}, "t": 21.5, "n": 3, "on": true, "s": "x"}
//! ```
//!
//! `ts_us` or `ts_ms` is the time (else the reading was taken at receipt), `tags` become labels,
//! `null` is a missing value, every other member is a metric.

use std::sync::Arc;

use headwater_proto::sample::OwnedValue;
use headwater_proto::time::UnixMicros;
use serde_json::Value;

use super::{ColumnDef, Reading};
use crate::pipeline::admit::kind_of;

/// Why a line is not read.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// Not JSON.
    #[error("not JSON: {0}")]
    Syntax(#[from] serde_json::Error),
    /// JSON, but not an object.
    #[error("not a JSON object")]
    NotAnObject,
    /// A member that is no number, bool, text or null.
    #[error("{0:?} is neither a number, a bool, a text nor null")]
    Member(String),
    /// A time or tag of the wrong type.
    #[error("{0:?} has the wrong type")]
    Type(String),
}

/// Reads a line; `None` for an empty one.
///
/// # Errors
/// [`JsonError`].
pub fn parse(line: &str, now: UnixMicros) -> Result<Option<Reading>, JsonError> {
    if line.trim().is_empty() {
        return Ok(None);
    }
    let Value::Object(members) = serde_json::from_str(line)? else {
        return Err(JsonError::NotAnObject);
    };
    let mut time = now;
    let mut labels = Vec::new();
    let mut columns = Vec::new();
    let mut values = Vec::new();
    for (name, member) in members {
        let value = match (name.as_str(), member) {
            ("ts_us" | "ts_ms", member) => {
                let scale = if name == "ts_us" { 1 } else { 1000 };
                let number = member.as_i64().and_then(|number| number.checked_mul(scale));
                time = UnixMicros(number.ok_or(JsonError::Type(name))?);
                continue;
            }
            ("tags", Value::Object(tags)) => {
                for (key, tag) in tags {
                    match tag {
                        Value::String(text) => labels.push((key, text)),
                        Value::Number(number) => labels.push((key, number.to_string())),
                        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
                            return Err(JsonError::Type(key));
                        }
                    }
                }
                continue;
            }
            ("tags", _) => return Err(JsonError::Type(name)),
            (_, Value::Null) => continue,
            (_, Value::Bool(value)) => OwnedValue::Bool(value),
            (_, Value::String(text)) => OwnedValue::Str(text),
            (_, Value::Number(number)) => match (number.as_i64(), number.as_f64()) {
                (Some(whole), _) => OwnedValue::I64(whole),
                (None, Some(float)) => OwnedValue::F64(float),
                (None, None) => return Err(JsonError::Member(name)),
            },
            (_, Value::Array(_) | Value::Object(_)) => return Err(JsonError::Member(name)),
        };
        let kind = kind_of(&value.borrowed());
        columns.push(ColumnDef {
            name,
            unit: String::new(),
            kind,
        });
        values.push(Some(value));
    }
    Ok(Some(Reading {
        time,
        labels: Arc::from(labels),
        columns: Arc::from(columns),
        values,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: UnixMicros = UnixMicros(77);

    #[test]
    fn an_object_is_read_with_its_time_and_tags() {
        let line =
            r#"{"ts_ms":5,"tags":{"a":"b","n":2},"t":21.5,"k":3,"on":false,"s":"x","gone":null}"#;
        let reading = parse(line, NOW).unwrap().unwrap();
        assert_eq!(reading.time, UnixMicros(5000));
        assert_eq!(
            *reading.labels,
            [("a".into(), "b".into()), ("n".into(), "2".into())]
        );
        let mut seen: Vec<_> = reading
            .columns
            .iter()
            .zip(reading.values)
            .map(|(column, value)| (column.name.clone(), value.unwrap()))
            .collect();
        seen.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(
            seen,
            [
                ("k".into(), OwnedValue::I64(3)),
                ("on".into(), OwnedValue::Bool(false)),
                ("s".into(), OwnedValue::Str("x".into())),
                ("t".into(), OwnedValue::F64(21.5)),
            ]
        );
    }

    #[test]
    fn what_is_no_reading_is_refused_by_name() {
        for (line, error) in [
            ("[1]", "not a JSON object"),
            (
                r#"{"a":[1]}"#,
                r#""a" is neither a number, a bool, a text nor null"#,
            ),
            (r#"{"ts_us":"x"}"#, r#""ts_us" has the wrong type"#),
            (
                r#"{"ts_ms":9223372036854775807}"#,
                r#""ts_ms" has the wrong type"#,
            ),
        ] {
            assert_eq!(parse(line, NOW).unwrap_err().to_string(), error);
        }
        assert!(
            parse("{", NOW)
                .unwrap_err()
                .to_string()
                .starts_with("not JSON: ")
        );
        assert_eq!(parse(" ", NOW).unwrap(), None);
    }

    proptest! {
        #[test]
        fn no_line_panics(line: String) {
            let _ = parse(&line, NOW);
        }
    }
}
