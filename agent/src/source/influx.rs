//! Core: one line of InfluxDB line protocol.
//!
//! ```text
//! measurement[,tag=value...] field=value[,field=value...] [nanoseconds]
//! ```
//!
//! A metric is called `measurement.field`; a field called `value` gives the measurement's own
//! name. Tags become labels. Integers end in `i` or `u`, other numbers are `f64`.
//!
//! # Source
//! InfluxDB documentation, "Line protocol reference", version 2.

use std::sync::Arc;

use headwater_proto::sample::OwnedValue;
use headwater_proto::time::UnixMicros;

use super::{ColumnDef, Reading};
use crate::pipeline::admit::kind_of;

/// Why a line is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Something that must be there is missing.
    #[error("byte {at}: {what} is missing")]
    Missing {
        /// Where in the line.
        at: usize,
        /// What.
        what: &'static str,
    },
    /// Something is there and makes no sense.
    #[error("byte {at}: not a {what}")]
    Invalid {
        /// Where in the line.
        at: usize,
        /// What was expected.
        what: &'static str,
    },
}

/// Reads a line; `None` for an empty one or a comment. Without a time of its own the reading was
/// taken at `now`.
///
/// # Errors
/// [`LineError`] names the place and the cause.
pub fn parse(line: &str, now: UnixMicros) -> Result<Option<Reading>, LineError> {
    let line = line.trim_matches([' ', '\t', '\r', '\n']);
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let mut at = Cursor { text: line, at: 0 };
    let measurement = at.word(&[',', ' '], "measurement")?;
    let mut labels = Vec::new();
    while at.take(',') {
        let key = at.word(&['=', ',', ' '], "tag key")?;
        at.expect('=', "tag value")?;
        labels.push((key, at.word(&[',', ' '], "tag value")?));
    }
    at.expect(' ', "field")?;
    at.spaces();
    let mut columns = Vec::new();
    let mut values = Vec::new();
    loop {
        let field = at.word(&['=', ',', ' '], "field key")?;
        at.expect('=', "field value")?;
        let value = at.value()?;
        let name = if field == "value" {
            measurement.clone()
        } else {
            format!("{measurement}.{field}")
        };
        let kind = kind_of(&value.borrowed());
        columns.push(ColumnDef {
            name,
            unit: String::new(),
            kind,
        });
        values.push(Some(value));
        if !at.take(',') {
            break;
        }
    }
    at.spaces();
    let rest = at.rest();
    let time = if rest.is_empty() {
        now
    } else {
        let nanos: i64 = rest
            .parse()
            .map_err(|_| at.invalid("time in nanoseconds"))?;
        UnixMicros(nanos.div_euclid(1000))
    };
    Ok(Some(Reading {
        time,
        labels: Arc::from(labels),
        columns: Arc::from(columns),
        values,
    }))
}

struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn invalid(&self, what: &'static str) -> LineError {
        LineError::Invalid { at: self.at, what }
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.rest().starts_with(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    fn expect(&mut self, wanted: char, what: &'static str) -> Result<(), LineError> {
        if self.take(wanted) {
            Ok(())
        } else {
            Err(LineError::Missing { at: self.at, what })
        }
    }

    fn spaces(&mut self) {
        while self.take(' ') {}
    }

    /// A name up to one of `ends`; a backslash takes the meaning from `,`, `=` and space.
    fn word(&mut self, ends: &[char], what: &'static str) -> Result<String, LineError> {
        let mut word = String::new();
        let mut chars = self.rest().char_indices().peekable();
        let mut len = self.rest().len();
        while let Some((at, c)) = chars.next() {
            if ends.contains(&c) {
                len = at;
                break;
            }
            match chars.peek() {
                Some(&(_, next)) if c == '\\' && [',', '=', ' '].contains(&next) => {
                    word.push(next);
                    chars.next();
                }
                _ => word.push(c),
            }
        }
        if word.is_empty() {
            return Err(LineError::Missing { at: self.at, what });
        }
        self.at += len;
        Ok(word)
    }

    fn value(&mut self) -> Result<OwnedValue, LineError> {
        if self.rest().starts_with('"') {
            return self.text();
        }
        let rest = self.rest();
        let end = rest.find([',', ' ']).unwrap_or(rest.len());
        let word = &rest[..end];
        let value = match word {
            "t" | "T" | "true" | "True" | "TRUE" => Some(OwnedValue::Bool(true)),
            "f" | "F" | "false" | "False" | "FALSE" => Some(OwnedValue::Bool(false)),
            _ => match word.strip_suffix(['i', 'u']) {
                Some(digits) => digits.parse().ok().map(OwnedValue::I64),
                None => word
                    .parse::<f64>()
                    .ok()
                    .filter(|v| v.is_finite())
                    .map(OwnedValue::F64),
            },
        };
        let value = value.ok_or_else(|| self.invalid("field value"))?;
        self.at += end;
        Ok(value)
    }

    fn text(&mut self) -> Result<OwnedValue, LineError> {
        let mut text = String::new();
        let mut chars = self.rest().char_indices().skip(1).peekable();
        while let Some((at, c)) = chars.next() {
            match (c, chars.peek()) {
                ('"', _) => {
                    self.at += at + 1;
                    return Ok(OwnedValue::Str(text));
                }
                ('\\', Some(&(_, next @ ('"' | '\\')))) => {
                    text.push(next);
                    chars.next();
                }
                _ => text.push(c),
            }
        }
        Err(LineError::Missing {
            at: self.text.len(),
            what: "closing quote",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: UnixMicros = UnixMicros(77);

    fn read(line: &str) -> Reading {
        parse(line, NOW).unwrap().unwrap()
    }

    #[test]
    fn a_full_line_is_read_with_tags_fields_and_time() {
        let reading =
            read(r#"room,floor=2,name=a\ b t=21.5,n=3i,on=true,s="x, \"y\"" 1700000000123456789"#);
        assert_eq!(reading.time, UnixMicros(1_700_000_000_123_456));
        assert_eq!(reading.labels[1], ("name".into(), "a b".into()));
        let names: Vec<_> = reading.columns.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["room.t", "room.n", "room.on", "room.s"]);
        let values: Vec<_> = reading.values.into_iter().flatten().collect();
        let text = OwnedValue::Str("x, \"y\"".into());
        let expected = [
            OwnedValue::F64(21.5),
            OwnedValue::I64(3),
            OwnedValue::Bool(true),
            text,
        ];
        assert_eq!(values, expected);
    }

    #[test]
    fn a_field_called_value_has_the_name_of_its_measurement() {
        let reading = read("pressure value=3");
        assert_eq!(reading.columns[0].name, "pressure");
        assert_eq!(reading.time, NOW);
    }

    #[test]
    fn empty_lines_and_comments_say_nothing() {
        assert_eq!(parse("", NOW), Ok(None));
        assert_eq!(parse("  \r\n", NOW), Ok(None));
        assert_eq!(parse("# x", NOW), Ok(None));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (line, error) in [
            ("m", "byte 1: field is missing"),
            ("m,a f=1", "byte 3: tag value is missing"),
            ("m f", "byte 3: field value is missing"),
            ("m f=", "byte 4: not a field value"),
            ("m f=nan", "byte 4: not a field value"),
            ("m f=\"x", "byte 6: closing quote is missing"),
            ("m f=1 x", "byte 6: not a time in nanoseconds"),
            (",a=1 f=1", "byte 0: measurement is missing"),
        ] {
            assert_eq!(parse(line, NOW).unwrap_err().to_string(), error, "{line}");
        }
    }

    fn escaped(text: &str) -> String {
        text.chars()
            .flat_map(|c| {
                [',', '=', ' ']
                    .contains(&c)
                    .then_some('\\')
                    .into_iter()
                    .chain([c])
            })
            .collect()
    }

    proptest! {
        #[test]
        fn what_is_written_by_the_rules_is_read_back(
            measurement in "[a-z][a-z ,=]{0,8}[a-z]", tag in "[a-z ,=]{1,8}[a-z]",
            field in "[a-z]{1,8}", number in proptest::num::f64::NORMAL, text in "[a-z\" ,]{0,12}",
        ) {
            prop_assume!(field != "value");
            let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
            let line = format!("{},k={} {field}={number},s=\"{quoted}\"", escaped(&measurement), escaped(&tag));
            let reading = read(&line);
            prop_assert_eq!(&reading.labels[0].1, &tag);
            prop_assert_eq!(&reading.columns[0].name, &format!("{measurement}.{field}"));
            prop_assert_eq!(&reading.values[0], &Some(OwnedValue::F64(number)));
            prop_assert_eq!(&reading.values[1], &Some(OwnedValue::Str(text)));
        }

        #[test]
        fn no_line_panics(line: String) {
            let _ = parse(&line, NOW);
        }
    }
}
