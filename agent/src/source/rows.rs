//! Core: rows of text as readings.
//!
//! The samples of a row become one reading, or several if they are more than a schema holds. A sample
//! that no batch can hold is refused alone. Columns of JSON are put in the order of their names, since
//! members come in any order and each order would be a schema of its own.

use std::fmt::{self, Display};
use std::sync::Arc;

use headwater_payload::csv::{Role, Table};
use headwater_payload::{Format, Part, Reader, Rules, Sample, Splitter};
use headwater_proto::codec::Limits;
use headwater_proto::sample::{OwnedValue, Value};
use headwater_proto::schema::{ColumnKind, MAX_VALUE_TEXT_BYTES};
use headwater_proto::time::UnixMicros;

use super::{ColumnDef, Reading};
use crate::pipeline::admit::{Fault, kind_of};

/// The rules of the agent's sources: an object called `tags` becomes labels.
pub const RULES: Rules<'static> = Rules {
    tags: Some("tags"),
    ..Rules::DEFAULT
};

/// Most columns of a reading; a wider row becomes several.
pub const MAX_COLUMNS: usize = Limits::DEFAULT.columns as usize;

/// A thing that a text held.
pub enum Read<'a> {
    /// A reading, and the line on which its row begins.
    Row(u64, Reading),
    /// Bytes that give no sample.
    Refused(&'a dyn Display, &'a dyn Display, &'a [u8]),
}

/// Reads rows of one format.
#[derive(Debug)]
pub struct RowReader {
    text: Text,
}

#[derive(Debug)]
enum Text {
    Records(Box<Reader<'static>>),
    Table(Table, Option<Arc<[ColumnDef]>>),
}

impl RowReader {
    /// A reader of a format whose records stand for themselves.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self {
            text: Text::Records(Box::new(Reader::new(format, RULES))),
        }
    }

    /// A reader of the rows of a table. Every reading has all of its columns, so that a missing cell
    /// makes no schema of its own.
    #[must_use]
    pub fn of_table(table: Table) -> Self {
        let columns: Vec<_> = table.columns().iter().filter_map(column).collect();
        let columns = (columns.len() <= MAX_COLUMNS).then(|| Arc::from(columns));
        Self {
            text: Text::Table(table, columns),
        }
    }

    /// Its format.
    #[must_use]
    pub fn format(&self) -> Format {
        match &self.text {
            Text::Records(reader) => reader.format(),
            Text::Table(..) => Format::Csv,
        }
    }

    /// A splitter of its format.
    #[must_use]
    pub fn splitter(&self) -> Splitter {
        Splitter::new(self.format(), &RULES)
    }

    /// Reads records that begin on line `line`. Rows without a time of their own were taken at `now`.
    pub fn read(
        &mut self,
        line: u64,
        records: &[u8],
        now: UnixMicros,
        take: &mut dyn FnMut(Read<'_>),
    ) {
        let mut open: Option<Open> = None;
        let (reader, table, columns) = match &mut self.text {
            Text::Records(reader) => (Some(reader), None, None),
            Text::Table(table, columns) => (None, Some(&*table), columns.as_mut()),
        };
        let mut close = Close {
            sorts: reader.as_ref().is_some_and(|r| r.format() == Format::Json),
            columns,
        };
        let mut visit = |part: Part<'_>| match part {
            Part::Refused(refused) => {
                take(Read::Refused(&refused.place, &refused.cause, refused.bytes));
            }
            Part::Sample(sample) => {
                if let Some(cause) = refusal(&sample) {
                    let place = Metric(sample.line, sample.metric);
                    return take(Read::Refused(&place, &cause, text_of(&sample)));
                }
                let is_new =
                    |row: &mut Open| row.number != sample.row || row.samples.len() == MAX_COLUMNS;
                if let Some(row) = open.take_if(is_new) {
                    take(close.row(row));
                }
                let row = open.get_or_insert_with(|| Open::new(&sample, now));
                row.samples.push(Item::new(&sample));
            }
        };
        match (reader, table) {
            (Some(reader), _) => reader.read_from(line, records, &mut visit),
            (None, Some(table)) => table.read(records, line, &mut visit),
            (None, None) => return,
        };
        if let Some(row) = open {
            take(close.row(row));
        }
    }
}

/// A column of a table as one of readings. One without a type is taken for numbers at first.
fn column(column: &headwater_payload::csv::Column) -> Option<ColumnDef> {
    let kind = match column.role {
        Role::Time(..) | Role::Tag => return None,
        Role::Typed(kind) => kind,
        Role::Untyped => ColumnKind::F64,
    };
    Some(ColumnDef {
        name: column.name.clone(),
        unit: String::new(),
        kind,
    })
}

/// Why no batch can hold a sample.
fn refusal(sample: &Sample<'_>) -> Option<Fault> {
    match sample.value {
        Value::Str(text) if text.len() > MAX_VALUE_TEXT_BYTES => Some(Fault::Text(text.len())),
        Value::Str(_) | Value::Bool(_) | Value::I64(_) | Value::F32(_) | Value::F64(_) => None,
    }
}

fn text_of<'a>(sample: &Sample<'a>) -> &'a [u8] {
    match sample.value {
        Value::Str(text) => text.as_bytes(),
        Value::Bool(_) | Value::I64(_) | Value::F32(_) | Value::F64(_) => &[],
    }
}

/// The place of a sample.
struct Metric<'a>(u64, &'a str);

impl Display for Metric<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, {}", self.0, self.1)
    }
}

/// A row whose samples are still coming.
struct Open {
    number: u32,
    line: u64,
    time: UnixMicros,
    labels: Vec<(String, String)>,
    samples: Vec<Item>,
}

struct Item {
    name: String,
    unit: String,
    value: OwnedValue,
}

impl Open {
    fn new(sample: &Sample<'_>, now: UnixMicros) -> Self {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Self {
            number: sample.row,
            line: sample.line,
            time: sample.time.unwrap_or(now),
            labels: sample.tags.iter().map(own).collect(),
            samples: Vec::new(),
        }
    }
}

impl Item {
    fn new(sample: &Sample<'_>) -> Self {
        Self {
            name: sample.metric.to_owned(),
            unit: sample.unit.unwrap_or_default().to_owned(),
            value: sample.value.into(),
        }
    }
}

/// How rows become readings.
struct Close<'c> {
    sorts: bool,
    /// The columns of a table.
    columns: Option<&'c mut Arc<[ColumnDef]>>,
}

impl Close<'_> {
    fn row(&mut self, row: Open) -> Read<'static> {
        let Open {
            line,
            time,
            mut labels,
            mut samples,
            ..
        } = row;
        if self.sorts {
            labels.sort_unstable();
            samples.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        }
        let (columns, values) = match &mut self.columns {
            Some(columns) => in_table(columns, samples),
            None => alone(samples),
        };
        Read::Row(
            line,
            Reading {
                time,
                labels: Arc::from(labels),
                columns,
                values,
            },
        )
    }
}

type Cells = (Arc<[ColumnDef]>, Vec<Option<OwnedValue>>);

/// A row with the columns that it has.
fn alone(samples: Vec<Item>) -> Cells {
    let mut columns = Vec::with_capacity(samples.len());
    let mut values = Vec::with_capacity(samples.len());
    for Item { name, unit, value } in samples {
        let kind = kind_of(&value.borrowed());
        columns.push(ColumnDef { name, unit, kind });
        values.push(Some(value));
    }
    (Arc::from(columns), values)
}

/// A row with all columns of its table. A column without a type takes that of its latest value.
fn in_table(columns: &mut Arc<[ColumnDef]>, samples: Vec<Item>) -> Cells {
    let mut values = vec![None; columns.len()];
    let mut at = 0;
    for Item { name, value, .. } in samples {
        // Samples come in the order of their columns.
        while columns.get(at).is_some_and(|column| column.name != name) {
            at += 1;
        }
        let kind = kind_of(&value.borrowed());
        if columns.get(at).is_some_and(|column| column.kind != kind) {
            let mut changed = columns.to_vec();
            changed[at].kind = kind;
            *columns = Arc::from(changed);
        }
        if let Some(cell) = values.get_mut(at) {
            *cell = Some(value);
        }
    }
    (Arc::clone(columns), values)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMicros = UnixMicros(77);

    fn show(reading: &Reading) -> String {
        let labels: Vec<_> = reading
            .labels
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        let cells = reading.columns.iter().zip(&reading.values);
        let cells: Vec<_> = cells
            .map(|(column, value)| match value {
                Some(value) => format!("{} {value:?}", column.name),
                None => format!("{} {:?} missing", column.name, column.kind),
            })
            .collect();
        format!(
            "@{} {{{}}} {}",
            reading.time.0,
            labels.join(","),
            cells.join("; ")
        )
    }

    fn all(reader: &mut RowReader, text: &str) -> Vec<String> {
        let mut seen = Vec::new();
        reader.read(1, text.as_bytes(), NOW, &mut |read| {
            seen.push(match read {
                Read::Row(line, reading) => format!("{line} {}", show(&reading)),
                Read::Refused(place, cause, bytes) => {
                    format!("refused {place}: {cause}: {}", bytes.escape_ascii())
                }
            });
        });
        seen
    }

    fn json(text: &str) -> Vec<String> {
        all(&mut RowReader::new(Format::Json), text)
    }

    #[test]
    fn whole_and_broken_numbers_of_json_share_a_column() {
        assert_eq!(
            json("{\"boiler\":20}\n{\"boiler\":20.5}\n"),
            ["1 @77 {} boiler F64(20.0)", "2 @77 {} boiler F64(20.5)"]
        );
    }

    #[test]
    fn members_in_any_order_make_one_reading_with_its_time_and_labels() {
        let expected =
            ["1 @1700000000123000 {a=b,n=2} k F64(3.0); on Bool(false); s Str(\"x\"); t F64(21.5)"];
        assert_eq!(
            json(
                r#"{"ts_ms":1700000000123,"tags":{"a":"b","n":2},"t":21.5,"k":3,"on":false,"s":"x","z":null}"#
            ),
            expected
        );
        assert_eq!(
            json(
                r#"{"s":"x","on":false,"t":21.5,"tags":{"n":2,"a":"b"},"k":3,"ts_ms":1700000000123}"#
            ),
            expected
        );
    }

    #[test]
    fn a_text_that_no_batch_holds_costs_itself_alone() {
        let long = "x".repeat(MAX_VALUE_TEXT_BYTES + 1);
        let seen = json(&format!("{{\"t\":1,\"s\":\"{long}\"}}"));
        assert!(
            seen[0].starts_with("refused line 1, s: the text has 16385 bytes; at most"),
            "{seen:?}"
        );
        assert_eq!(seen[1], "1 @77 {} t F64(1.0)");
        let most = json(&format!("{{\"t\":1,\"s\":\"{}\"}}", &long[1..]));
        assert!(most.len() == 1 && most[0].contains("s Str"));
    }

    #[test]
    fn a_row_wider_than_a_schema_becomes_several_readings() {
        let fields: Vec<_> = (0..=MAX_COLUMNS).map(|k| format!("f{k}=1")).collect();
        let mut columns = Vec::new();
        let mut reader = RowReader::new(Format::Line);
        reader.read(
            1,
            format!("m {}", fields.join(",")).as_bytes(),
            NOW,
            &mut |read| {
                if let Read::Row(_, reading) = read {
                    columns.push(reading.columns.len());
                }
            },
        );
        assert_eq!(columns, [MAX_COLUMNS, 1]);
        let header = fields.join(",");
        let wide = Table::parse(header.as_bytes(), &RULES).unwrap();
        let row = vec!["1"; fields.len()].join(",");
        assert_eq!(all(&mut RowReader::of_table(wide), &row).len(), 2);
    }

    #[test]
    fn a_line_keeps_its_good_fields_and_its_types() {
        assert_eq!(
            all(
                &mut RowReader::new(Format::Line),
                "m,r=a i=1i,b=oops,f=2 1700000000\n"
            ),
            [
                "refused line 1, column 12: not a number, a truth value or a text in quotes: b=oops",
                "1 @1700000000000000 {r=a} m.i I64(1); m.f F64(2.0)",
            ]
        );
    }

    #[test]
    fn rows_of_a_table_have_all_its_columns() {
        let table = Table::parse(b"ts:ms,host:tag,t:f64,x,s:str", &RULES).unwrap();
        let mut reader = RowReader::of_table(table);
        assert_eq!(
            all(
                &mut reader,
                "5,a,1.5,,q\n6,a,,1,\n7,b,n/a,auto,\n8,b,,,\n9,b,2,on,\n"
            ),
            [
                "1 @5000 {host=a} t F64(1.5); x F64 missing; s Str(\"q\")",
                "refused line 3, column 3 (t): not a number: n/a",
                "2 @6000 {host=a} t F64 missing; x F64(1.0); s Str missing",
                "3 @7000 {host=b} t F64 missing; x Str(\"auto\"); s Str missing",
                "5 @9000 {host=b} t F64(2.0); x Str(\"on\"); s Str missing",
            ]
        );
    }
}
