//! Core: what a source may hand over, and which parts of it are refused at the door.
//!
//! A part that no collector would take is refused alone; the row keeps the rest. What is wrong with a
//! value leaves its column empty, what is wrong with a column takes that out of the row, and labels
//! that cannot be written refuse every value of the row: nobody could say whose they are.

use std::borrow::Cow;
use std::collections::HashSet;

use headwater_proto::codec::Limits;
use headwater_proto::ids::Lane;
use headwater_proto::sample::Value;
use headwater_proto::schema::{ColumnKind, MAX_TEXT_BYTES, MAX_VALUE_TEXT_BYTES};
use headwater_proto::time::UnixMicros;

/// Most bytes of the texts of one row: with a batch that is almost full it stays within what a
/// collector takes of the texts of one batch, [`Limits::text_bytes`].
pub const MAX_ROW_TEXT_BYTES: usize = 30 * 1024;

/// Most bytes of the names and units of one row: with default parameters, labels and tags its schema stays
/// within [`super::batcher::MAX_SCHEMA_BYTES`].
pub const MAX_ROW_NAMES_BYTES: usize = 64 * 1024;
/// Rows of more columns are searched for repeated names by hash.
const FEW_COLUMNS: usize = 32;

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

/// A value as people read it.
#[must_use]
pub fn as_text(value: Value<'_>) -> Cow<'_, str> {
    match value {
        Value::Str(text) => Cow::Borrowed(text),
        Value::Bool(value) => Cow::Owned(value.to_string()),
        Value::I64(value) => Cow::Owned(value.to_string()),
        Value::F32(value) => Cow::Owned(value.to_string()),
        Value::F64(value) => Cow::Owned(value.to_string()),
    }
}

/// A reading of one moment: one row of a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample<'a> {
    /// When.
    pub time: UnixMicros,
    /// Labels that tell series apart, in the order the source gives them.
    pub labels: &'a [(&'a str, &'a str)],
    /// The columns.
    pub fields: &'a [Field<'a>],
}

impl Sample<'_> {
    /// Its values that are not missing.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.fields
            .iter()
            .filter(|field| field.value.is_some())
            .count() as u64
    }
}

/// Why a part of a reading is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A schema may have so many columns and no more.
    #[error("the row has {0} values; at most {max} are taken", max = Limits::DEFAULT.columns)]
    Columns(usize),
    /// More labels than a series may have.
    #[error("the row has {0} labels; at most {max} are taken", max = Limits::DEFAULT.labels)]
    Labels(usize),
    /// A label without a key, or too long.
    #[error("a label of the row has no key, or is longer than {MAX_TEXT_BYTES} bytes")]
    Label,
    /// A column without a name, or with one that is too long.
    #[error("the name is empty or longer than {MAX_TEXT_BYTES} bytes")]
    Name,
    /// A unit that is too long.
    #[error("the unit is longer than {MAX_TEXT_BYTES} bytes")]
    Unit,
    /// Names and units that are too long together.
    #[error("the names and units of the row have more than {MAX_ROW_NAMES_BYTES} bytes together")]
    Names,
    /// Two columns of one name.
    #[error("another value of the row has the same name")]
    Repeated,
    /// A value that does not fit its column.
    #[error("the value is of another kind than its column says")]
    Kind,
    /// A text that is too long.
    #[error("the text has {0} bytes; at most {MAX_VALUE_TEXT_BYTES} are taken")]
    Text(usize),
    /// Texts that are too long together.
    #[error("the texts of the row have more than {MAX_ROW_TEXT_BYTES} bytes together")]
    Row,
    /// A log line longer than a record.
    #[error("the line has {0} bytes; at most {1} are taken")]
    Line(usize, usize),
}

impl Fault {
    /// Whether the row keeps the column, without its value.
    const fn leaves_the_column(self) -> bool {
        matches!(self, Self::Kind | Self::Text(_) | Self::Row)
    }
}

/// A source that resumes gave readings of two lanes in one life: which of them a stop leaves durable
/// first is open, so one cursor could not stand for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a source that resumes keeps to one lane, here {}", .0.name())]
pub struct OtherLane(pub Lane);

/// The part of a reading that is taken.
#[derive(Debug, Clone, PartialEq)]
pub enum Admitted<'a> {
    /// All of it.
    Whole,
    /// These columns, of which none need have a value; and the places of the values that are refused.
    Part {
        /// The columns that are taken.
        fields: Vec<Field<'a>>,
        /// Places in the sample's fields.
        refused: Vec<(usize, Fault)>,
    },
}

/// Checks a reading against what a collector will take: a part that is refused there would be refused
/// with its whole batch.
#[must_use]
pub fn admit<'a>(sample: &Sample<'a>) -> Admitted<'a> {
    let labels = labels(sample.labels);
    let mut before = Before::default();
    let mut refused = Vec::new();
    for at in 0..sample.fields.len() {
        if let Some(fault) = labels.or_else(|| fault(sample.fields, at, &mut before)) {
            refused.push((at, fault));
        }
    }
    if refused.is_empty() {
        return Admitted::Whole;
    }
    let mut faults = refused.iter().peekable();
    let mut fields = Vec::with_capacity(sample.fields.len());
    for (at, field) in sample.fields.iter().enumerate() {
        match faults.next_if(|(place, _)| *place == at) {
            None => fields.push(*field),
            Some((_, fault)) if fault.leaves_the_column() => fields.push(Field {
                value: None,
                ..*field
            }),
            Some(_) => {}
        }
    }
    refused.retain(|(at, _)| sample.fields[*at].value.is_some());
    Admitted::Part { fields, refused }
}

/// Counts what the earlier fields of a row take, and knows their names.
#[derive(Default)]
struct Before<'a> {
    /// Bytes of texts.
    texts: usize,
    /// Bytes of names and units.
    names: usize,
    /// The names, of a row of many columns.
    seen: HashSet<&'a str>,
}

impl<'a> Before<'a> {
    /// Whether an earlier field has the name of the one at a place.
    fn has_name(&mut self, fields: &[Field<'a>], at: usize) -> bool {
        let name = fields[at].name;
        if fields.len() <= FEW_COLUMNS {
            return fields[..at].iter().any(|earlier| earlier.name == name);
        }
        !self.seen.insert(name)
    }
}

/// Finds the fault of the field at a place.
fn fault<'a>(fields: &[Field<'a>], at: usize, before: &mut Before<'a>) -> Option<Fault> {
    let Field {
        name,
        unit,
        kind,
        value,
    } = fields[at];
    if at >= Limits::DEFAULT.columns as usize {
        return Some(Fault::Columns(fields.len()));
    }
    if name.is_empty() || name.len() > MAX_TEXT_BYTES {
        return Some(Fault::Name);
    }
    if unit.len() > MAX_TEXT_BYTES {
        return Some(Fault::Unit);
    }
    if before.has_name(fields, at) {
        return Some(Fault::Repeated);
    }
    if before.names + name.len() + unit.len() > MAX_ROW_NAMES_BYTES {
        return Some(Fault::Names);
    }
    before.names += name.len() + unit.len();
    let value = value?;
    if kind_of(&value) != kind {
        return Some(Fault::Kind);
    }
    if let Value::Str(text) = value {
        if text.len() > MAX_VALUE_TEXT_BYTES {
            return Some(Fault::Text(text.len()));
        }
        if before.texts + text.len() > MAX_ROW_TEXT_BYTES {
            return Some(Fault::Row);
        }
        before.texts += text.len();
    }
    None
}

fn labels(labels: &[(&str, &str)]) -> Option<Fault> {
    if labels.len() > Limits::DEFAULT.labels as usize {
        return Some(Fault::Labels(labels.len()));
    }
    let is_bad =
        |(key, value): &(&str, &str)| key.is_empty() || key.len().max(value.len()) > MAX_TEXT_BYTES;
    labels.iter().any(is_bad).then_some(Fault::Label)
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

    /// Judges `fields`: which values are refused and why, and which names are kept.
    /// Places and faults of the values that are refused, and names of those that are kept.
    type Judged<'a> = (Vec<(usize, Fault)>, Vec<(&'a str, bool)>);

    fn refused<'a>(fields: &'a [Field<'a>]) -> Judged<'a> {
        match admit(&sample(fields)) {
            Admitted::Whole => (Vec::new(), Vec::new()),
            Admitted::Part { fields, refused } => {
                let left = fields
                    .iter()
                    .map(|field| (field.name, field.value.is_some()));
                (refused, left.collect())
            }
        }
    }

    #[test]
    fn a_reading_within_every_bound_is_taken_whole() {
        let text = "x".repeat(MAX_VALUE_TEXT_BYTES);
        let rest = "x".repeat(MAX_ROW_TEXT_BYTES - MAX_VALUE_TEXT_BYTES);
        let name = "n".repeat(MAX_TEXT_BYTES);
        let fields = [
            Field::with_unit(&name, &name, Value::Str(&text)),
            Field::new("rest", Value::Str(&rest)),
            Field {
                value: None,
                ..Field::new("missing", Value::F64(1.0))
            },
        ];
        assert_eq!(admit(&sample(&fields)), Admitted::Whole);
        assert_eq!(sample(&fields).samples(), 2);
        assert_eq!(admit(&sample(&[])), Admitted::Whole);
    }

    #[test]
    fn a_bad_value_leaves_its_column_empty_and_the_row_its_other_values() {
        let long = "x".repeat(MAX_VALUE_TEXT_BYTES + 1);
        let good = Field::new("good", Value::I64(1));
        let text = Field::new("text", Value::Str(&long));
        let kind = Field {
            kind: ColumnKind::F64,
            ..Field::new("kind", Value::I64(1))
        };
        let fields = [text, good, kind];
        let (faults, left) = refused(&fields);
        assert_eq!(faults, [(0, Fault::Text(long.len())), (2, Fault::Kind)]);
        assert_eq!(left, [("text", false), ("good", true), ("kind", false)]);
    }

    #[test]
    fn of_texts_that_are_too_long_together_those_beyond_the_bound_are_refused() {
        let text = "x".repeat(MAX_VALUE_TEXT_BYTES);
        let rest = "x".repeat(MAX_ROW_TEXT_BYTES - MAX_VALUE_TEXT_BYTES);
        let fields = [
            Field::new("a", Value::Str(&text)),
            Field::new("b", Value::Str(&text)),
            Field::new("c", Value::Str(&rest)),
            Field::new("d", Value::Str("y")),
        ];
        let (faults, _) = refused(&fields);
        assert_eq!(faults, [(1, Fault::Row), (3, Fault::Row)]);
    }

    #[test]
    fn a_bad_column_is_taken_out_of_the_row() {
        let long = "x".repeat(MAX_TEXT_BYTES + 1);
        let good = Field::new("good", Value::I64(1));
        for (bad, fault) in [
            (Field::new(&long, Value::I64(1)), Fault::Name),
            (Field::new("", Value::I64(1)), Fault::Name),
            (Field::with_unit("a", &long, Value::I64(1)), Fault::Unit),
        ] {
            let fields = [bad, good];
            let (faults, left) = refused(&fields);
            assert_eq!((faults, left), (vec![(0, fault)], vec![("good", true)]));
        }
        let fields = [good, Field::new("good", Value::F64(2.0))];
        let (faults, left) = refused(&fields);
        assert_eq!(faults, [(1, Fault::Repeated)]);
        assert_eq!(left, [("good", true)]);
    }

    #[test]
    fn columns_beyond_the_bound_are_refused_one_by_one() {
        let most = Limits::DEFAULT.columns as usize;
        let names: Vec<_> = (0..most + 2).map(|i| i.to_string()).collect();
        let fields: Vec<_> = names.iter().map(|n| Field::new(n, Value::I64(1))).collect();
        assert_eq!(admit(&sample(&fields[..most])), Admitted::Whole);
        let (faults, left) = refused(&fields);
        let fault = Fault::Columns(most + 2);
        assert_eq!(faults, [(most, fault), (most + 1, fault)]);
        assert_eq!(left.len(), most);
    }

    #[test]
    fn names_beyond_the_bytes_of_a_row_are_refused_and_shorter_ones_after_them_are_not() {
        let count = MAX_ROW_NAMES_BYTES / MAX_TEXT_BYTES;
        let long: Vec<_> = (0..=count)
            .map(|i| format!("{i:0>MAX_TEXT_BYTES$}"))
            .collect();
        let mut fields: Vec<_> = long.iter().map(|n| Field::new(n, Value::I64(1))).collect();
        fields.push(Field::new("s", Value::I64(1)));
        fields.push(Field::new("s", Value::I64(1)));
        let (faults, left) = refused(&fields);
        assert_eq!(
            faults,
            [(count, Fault::Names), (count + 2, Fault::Repeated)]
        );
        assert_eq!(left.len(), count + 1);
    }

    #[test]
    fn labels_that_cannot_be_written_refuse_every_value_of_the_row() {
        let long = "x".repeat(MAX_TEXT_BYTES + 1);
        let fields = [
            Field::new("a", Value::I64(1)),
            Field {
                value: None,
                ..Field::new("b", Value::I64(1))
            },
        ];
        let many = vec![("k", "v"); Limits::DEFAULT.labels as usize + 1];
        for (labels, fault) in [
            (&many[..], Fault::Labels(many.len())),
            (&[("", "v")], Fault::Label),
            (&[("k", &long)], Fault::Label),
        ] {
            let row = Sample {
                labels,
                ..sample(&fields)
            };
            let expected = Admitted::Part {
                fields: Vec::new(),
                refused: vec![(0, fault)],
            };
            assert_eq!(admit(&row), expected);
        }
        let most = Sample {
            labels: &many[1..],
            ..sample(&fields)
        };
        assert_eq!(admit(&most), Admitted::Whole);
    }
}
