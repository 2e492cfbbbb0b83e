//! Core: what a source may hand over, and why a reading is refused at the door.

use headwater_proto::codec::Limits;
use headwater_proto::ids::Lane;
use headwater_proto::sample::Value;
use headwater_proto::schema::{ColumnKind, MAX_TEXT_BYTES};
use headwater_proto::time::UnixMicros;

/// One column of a reading.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Field<'a> {
    /// The metric's name.
    pub name: &'a str,
    /// Its unit, empty if none is known.
    pub unit: &'a str,
    /// The type of the column.
    pub kind: ColumnKind,
    /// The value; `None` is missing.
    pub value: Option<Value<'a>>,
}

impl<'a> Field<'a> {
    /// A present value without unit.
    #[must_use]
    pub const fn new(name: &'a str, value: Value<'a>) -> Self {
        Self {
            name,
            unit: "",
            kind: kind_of(&value),
            value: Some(value),
        }
    }

    /// A present value with its unit.
    #[must_use]
    pub const fn with_unit(name: &'a str, unit: &'a str, value: Value<'a>) -> Self {
        Self {
            name,
            unit,
            kind: kind_of(&value),
            value: Some(value),
        }
    }
}

/// The column kind that holds a value.
#[must_use]
pub const fn kind_of(value: &Value<'_>) -> ColumnKind {
    match value {
        Value::Bool(_) => ColumnKind::Bool,
        Value::I64(_) => ColumnKind::I64,
        Value::F32(_) => ColumnKind::F32,
        Value::F64(_) => ColumnKind::F64,
        Value::Str(_) => ColumnKind::Str,
    }
}

/// What was read at one moment: one row of a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample<'a> {
    /// When.
    pub time: UnixMicros,
    /// Labels that tell series apart, in the order the source gives them.
    pub labels: &'a [(&'a str, &'a str)],
    /// The columns; at least one with a value.
    pub fields: &'a [Field<'a>],
}

/// Why a reading is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No field has a value.
    #[error("the reading has no value")]
    Empty,
    /// More fields than a schema may have columns.
    #[error("the reading has {0} fields; at most {max} are taken", max = Limits::DEFAULT.columns)]
    Fields(usize),
    /// More labels than a series may have.
    #[error("the reading has {0} labels; at most {max} are taken", max = Limits::DEFAULT.labels)]
    Labels(usize),
    /// A name, unit, label or text value is empty where it must not be, or too long.
    #[error("a {0} of the reading is empty or longer than {MAX_TEXT_BYTES} bytes")]
    Text(&'static str),
    /// A value is of another kind than its field says.
    #[error("field {0} of the reading has a value of another kind than it says")]
    Kind(usize),
    /// The same name twice.
    #[error("field {0} of the reading repeats the name of another")]
    Repeated(usize),
    /// A source that resumes gave readings of two lanes in one life: which of them a stop leaves
    /// durable first is open, so one cursor could not stand for both.
    #[error("a source that resumes keeps to one lane, here {}", .0.name())]
    Lane(Lane),
    /// A log line longer than a record.
    #[error("a log line of {0} bytes is longer than a record may be")]
    Line(usize),
}

/// Checks a reading against what a collector will take: a reading refused there would be refused
/// with its whole batch.
///
/// # Errors
/// [`Refused`] names the first thing that is wrong.
pub fn admit(sample: &Sample<'_>) -> Result<(), Refused> {
    let Sample {
        time: _,
        labels,
        fields,
    } = sample;
    if fields.len() > Limits::DEFAULT.columns as usize {
        return Err(Refused::Fields(fields.len()));
    }
    if labels.len() > Limits::DEFAULT.labels as usize {
        return Err(Refused::Labels(labels.len()));
    }
    for (key, value) in *labels {
        text("label", key, false)?;
        text("label", value, true)?;
    }
    let mut present = false;
    for (at, field) in fields.iter().enumerate() {
        text("field name", field.name, false)?;
        text("unit", field.unit, true)?;
        if let Some(value) = field.value {
            present = true;
            if kind_of(&value) != field.kind {
                return Err(Refused::Kind(at));
            }
            if let Value::Str(value) = value {
                text("text value", value, true)?;
            }
        }
        if fields[..at]
            .iter()
            .any(|earlier| earlier.name == field.name)
        {
            return Err(Refused::Repeated(at));
        }
    }
    if present { Ok(()) } else { Err(Refused::Empty) }
}

fn text(what: &'static str, text: &str, may_be_empty: bool) -> Result<(), Refused> {
    if text.len() > MAX_TEXT_BYTES || (text.is_empty() && !may_be_empty) {
        Err(Refused::Text(what))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample<'a>(fields: &'a [Field<'a>]) -> Sample<'a> {
        Sample {
            time: UnixMicros(0),
            labels: &[],
            fields,
        }
    }

    #[test]
    fn a_reading_with_one_value_is_taken() {
        assert_eq!(admit(&sample(&[Field::new("t", Value::F64(1.0))])), Ok(()));
    }

    #[test]
    fn a_reading_without_a_value_is_refused() {
        let missing = Field {
            value: None,
            ..Field::new("t", Value::F64(1.0))
        };
        assert_eq!(admit(&sample(&[missing])), Err(Refused::Empty));
        assert_eq!(admit(&sample(&[])), Err(Refused::Empty));
    }

    #[test]
    fn every_bound_of_a_reading_is_reached() {
        let long = "x".repeat(MAX_TEXT_BYTES + 1);
        let most = &long[1..];
        assert_eq!(
            admit(&sample(&[Field::new(most, Value::Str(most))])),
            Ok(())
        );
        for fields in [
            [Field::new(&long, Value::I64(1))],
            [Field::new("", Value::I64(1))],
            [Field::with_unit("a", &long, Value::I64(1))],
            [Field::new("a", Value::Str(&long))],
        ] {
            assert!(
                matches!(admit(&sample(&fields)), Err(Refused::Text(_))),
                "{fields:?}"
            );
        }
        let names: Vec<_> = (0..=Limits::DEFAULT.columns)
            .map(|i| i.to_string())
            .collect();
        let fields: Vec<_> = names.iter().map(|n| Field::new(n, Value::I64(1))).collect();
        assert_eq!(admit(&sample(&fields[1..])), Ok(()));
        assert_eq!(admit(&sample(&fields)), Err(Refused::Fields(fields.len())));
        let labels = vec![("k", "v"); Limits::DEFAULT.labels as usize + 1];
        let many = Sample {
            labels: &labels,
            ..sample(&fields[..1])
        };
        assert_eq!(admit(&many), Err(Refused::Labels(labels.len())));
    }

    #[test]
    fn a_name_twice_and_a_value_of_another_kind_are_refused() {
        let one = Field::new("a", Value::I64(1));
        assert_eq!(admit(&sample(&[one, one])), Err(Refused::Repeated(1)));
        let wrong = Field {
            kind: ColumnKind::F64,
            ..one
        };
        assert_eq!(admit(&sample(&[wrong])), Err(Refused::Kind(0)));
    }
}
