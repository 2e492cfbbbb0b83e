//! Core: CSV, after RFC 4180: cells in quotes may hold separators, line feeds and doubled quotes.
//!
//! A header names the columns, in the first row or in a rule. A column called `name:type` has a type:
//!
//! | type | cells |
//! |---|---|
//! | `s`, `ms`, `us`, `ns` | the row's time, in that unit since 1970 |
//! | `time` | the row's time, as [`TimeFormat::Auto`] reads it |
//! | `tag` | a tag; an empty one is a tag too |
//! | `f32`, `f64` | a number; `f64` is exact where digits stand alone |
//! | `i64` | a whole number |
//! | `bool` | `0`, `1`, `true`, `false` |
//! | `str` | a text |
//!
//! A column without a type is the time if [`TimeRule`] says so; its cells are otherwise numbers, truth
//! values or texts, as in JSON. An empty cell, `null`, `NaN` and their like are missing values.
//!
//! A cell that cannot be read is refused alone. A row is refused as a whole if its time or a tag cannot
//! be read or if it has not as many cells as the header, since they may then stand under wrong names.
//! Where a quote is not closed, its line alone is refused and the next is read.

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use headwater_proto::sample::Value;
use headwater_proto::schema::ColumnKind;

use crate::out::{Full, Out};
use crate::part::{Cause, Part, Place, Sample, Tally};
use crate::split::Records;
use crate::text::{self, Places, Span, reserved};
use crate::time::{self, TimeFormat, Unit, Zone};
use crate::{Format, MAX_METRIC_BYTES, MAX_TAG_BYTES, MAX_TAGS, Rules, Splitter, TimeRule, number};

/// Most columns of a table; a row of more than a schema of the wire holds becomes several readings.
pub const MAX_COLUMNS: usize = 4_096;

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Type or use of its cells.
    pub role: Role,
}

/// Type or use of the cells of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The row's time.
    Time(TimeFormat, Option<Zone>),
    /// A tag of the row.
    Tag,
    /// Values of one type.
    Typed(ColumnKind),
    /// Numbers, truth values or texts, each as it looks.
    Untyped,
}

/// Why a header is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column} of the header: {cause}")]
pub struct HeaderError {
    /// Which column, from 1.
    pub column: usize,
    /// Why it is refused.
    pub cause: Cause,
}

/// A table as its header describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    columns: Vec<Column>,
    delimiter: u8,
}

/// Buffers that are kept between rows.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    cells: Cells,
}

impl Buffers {
    pub(crate) fn bytes(&self) -> usize {
        self.cells.text.capacity() + reserved(&self.cells.cells)
    }
}

/// The cells of a row.
#[derive(Debug, Default)]
struct Cells {
    /// Their texts, one after another.
    text: String,
    /// At most one more than [`MAX_COLUMNS`].
    cells: Vec<Cell>,
    /// How many there are.
    count: usize,
}

#[derive(Debug, Clone, Copy)]
struct Cell {
    text: Span,
    quoted: bool,
    /// Where it stands in the row.
    from: usize,
    to: usize,
}

/// Why a row is refused as a whole, and where.
#[derive(Debug, Clone, Copy)]
struct Fault {
    at: usize,
    cause: Cause,
}

/// Reads a table with its header, or rows alone if a rule gives the header.
pub(crate) fn read(
    places: &mut Places<'_>,
    rules: &Rules<'_>,
    buffers: &mut Buffers,
    out: &mut Out<'_>,
) {
    let bytes = places.bytes();
    if bytes.is_empty() {
        return;
    }
    let (header, rows) = match rules.header {
        Some(header) => (header.as_bytes(), 0),
        None => {
            let len = Splitter::new(Format::Csv, rules).first_len(bytes);
            (&bytes[..len], len)
        }
    };
    match Table::parse(header, rules) {
        Ok(table) => table.rows(places, rows, buffers, out),
        Err(HeaderError { column, cause }) => {
            let place = Place::Cell {
                line: places.line(0),
                column: column as u64,
                name: "header",
            };
            out.refused(place, cause, bytes);
        }
    }
}

impl Table {
    /// Reads a header.
    ///
    /// # Errors
    /// [`HeaderError`].
    pub fn parse(header: &[u8], rules: &Rules<'_>) -> Result<Self, HeaderError> {
        let mut cells = Cells::default();
        let (header, _) = text::trim(header, true);
        cells
            .split(header, rules.delimiter)
            .map_err(|fault| HeaderError {
                column: cells.cells.len() + 1,
                cause: fault.cause,
            })?;
        let mut table = Self {
            columns: Vec::new(),
            delimiter: rules.delimiter,
        };
        for (at, cell) in cells.cells.iter().enumerate() {
            let cell = cell.text.of(&cells.text);
            let column = table.column(cell, rules);
            table.columns.push(column.map_err(|cause| HeaderError {
                column: at + 1,
                cause,
            })?);
        }
        Ok(table)
    }

    /// The columns.
    #[must_use]
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Whether its rows have times.
    #[must_use]
    pub fn has_time(&self) -> bool {
        self.columns
            .iter()
            .any(|column| matches!(column.role, Role::Time(..)))
    }

    /// Reads rows that stand apart from their header; `line` is the number of their first line.
    pub fn read(&self, rows: &[u8], line: u64, visit: &mut dyn FnMut(Part<'_>)) -> Tally {
        let mut out = Out::new(visit);
        let mut places = Places::new(rows, line);
        self.rows(&mut places, 0, &mut Buffers::default(), &mut out);
        out.tally()
    }

    /// A column as its cell of the header describes it.
    fn column(&self, cell: &str, rules: &Rules<'_>) -> Result<Column, Cause> {
        let (name, role) = match cell.rsplit_once(':') {
            Some((name, kind)) => (
                name,
                role(kind).ok_or(Cause::Header("has an unknown type"))?,
            ),
            None => (cell, untyped(cell, rules)),
        };
        let name = match role {
            Role::Typed(_) | Role::Untyped if !rules.prefix.is_empty() => {
                [rules.prefix, ".", name].concat()
            }
            Role::Time(..) | Role::Tag | Role::Typed(_) | Role::Untyped => String::from(name),
        };
        let is_time = |role: &Role| matches!(role, Role::Time(..));
        let is_tag = |role: &Role| *role == Role::Tag;
        let known = || self.columns.iter();
        let repeats = |other: &Column| other.name == name && is_tag(&other.role) == is_tag(&role);
        let cause = if name.is_empty() {
            Cause::Header("has no name")
        } else if name.len() > MAX_METRIC_BYTES {
            Cause::Name(name.len())
        } else if self.columns.len() == MAX_COLUMNS {
            Cause::Header("is one too many")
        } else if is_time(&role) && self.has_time() {
            Cause::Header("is a second time")
        } else if is_tag(&role) && known().filter(|c| is_tag(&c.role)).count() == MAX_TAGS {
            Cause::Tags
        } else if !is_time(&role) && known().any(repeats) {
            Cause::Header("repeats the name of another")
        } else {
            return Ok(Column { name, role });
        };
        Err(cause)
    }

    /// Reads the rows from byte `at` on.
    fn rows(&self, places: &mut Places<'_>, at: usize, buffers: &mut Buffers, out: &mut Out<'_>) {
        let bytes = places.bytes();
        let rules = Rules {
            delimiter: self.delimiter,
            ..Rules::DEFAULT
        };
        let mut records = Records::new(Format::Csv, &rules, bytes);
        let mut at = at;
        while at < bytes.len() {
            let record = records.next(at);
            match self.row(places, record.clone(), &mut buffers.cells, out) {
                Ok(next) => at = records.done(record, next),
                Err(full) => return places.refuse_rest(at, full, out),
            }
        }
    }

    /// Reads one row; says where the next begins.
    fn row(
        &self,
        places: &mut Places<'_>,
        range: Range<usize>,
        cells: &mut Cells,
        out: &mut Out<'_>,
    ) -> Result<usize, Full> {
        let whole = &places.bytes()[range.clone()];
        let row = text::without_line_end(whole);
        if row.is_empty() {
            return Ok(range.end);
        }
        let fault = match cells.split(row, self.delimiter) {
            Ok(()) if cells.count == self.columns.len() => {
                self.give(places, range.clone(), cells, out)?;
                return Ok(range.end);
            }
            Ok(()) => {
                out.has_room(1)?;
                let place = places.place(range.start);
                let cause = Cause::Cells {
                    has: cells.count,
                    wants: self.columns.len(),
                };
                out.refused(place, cause, row);
                return Ok(range.end);
            }
            Err(fault) => fault,
        };
        out.has_room(1)?;
        let feed = whole.iter().position(|byte| *byte == b'\n');
        let used = feed.map_or(whole.len(), |feed| feed + 1);
        let place = places.place(range.start + fault.at.min(used));
        out.refused(place, fault.cause, text::without_line_end(&whole[..used]));
        Ok(range.start + used)
    }

    /// Hands over a row of the right number of cells.
    fn give(
        &self,
        places: &mut Places<'_>,
        range: Range<usize>,
        cells: &Cells,
        out: &mut Out<'_>,
    ) -> Result<(), Full> {
        out.has_room(self.columns.len())?;
        let bytes = &places.bytes()[range.clone()];
        let line = places.line(range.start);
        let place = |at: usize| Place::Cell {
            line,
            column: at as u64 + 1,
            name: &self.columns[at].name,
        };
        let mut time = None;
        let mut tags: Vec<(&str, &str)> = Vec::new();
        for (at, (column, cell)) in self.columns.iter().zip(&cells.cells).enumerate() {
            let word = cell.text.of(&cells.text);
            let cause = match column.role {
                Role::Time(format, zone) => match time::read(word.trim(), format, zone) {
                    Ok(read) => {
                        time = Some(read);
                        continue;
                    }
                    Err(cause) => cause,
                },
                Role::Tag if word.len() <= MAX_TAG_BYTES => {
                    tags.push((&column.name, word));
                    continue;
                }
                Role::Tag => Cause::Tag {
                    key: column.name.len(),
                    value: word.len(),
                },
                Role::Typed(_) | Role::Untyped => continue,
            };
            out.refused(place(at), cause, text::without_line_end(bytes));
            return Ok(());
        }
        let mut row = None;
        for (at, (column, cell)) in self.columns.iter().zip(&cells.cells).enumerate() {
            match value(column.role, *cell, &cells.text) {
                None => {}
                Some(Ok(None)) => out.missing(1),
                Some(Ok(Some(value))) => {
                    let row = *row.get_or_insert_with(|| out.begin_row());
                    out.sample(Sample {
                        row,
                        line,
                        device: None,
                        time,
                        tags: &tags,
                        metric: &column.name,
                        value,
                        unit: None,
                    });
                }
                Some(Err(cause)) => out.refused(place(at), cause, &bytes[cell.from..cell.to]),
            }
        }
        Ok(())
    }
}

/// The role of a type in a header.
fn role(kind: &str) -> Option<Role> {
    Some(match kind {
        "time" => Role::Time(TimeFormat::Auto, None),
        "tag" => Role::Tag,
        "bool" => Role::Typed(ColumnKind::Bool),
        "i64" => Role::Typed(ColumnKind::I64),
        "f32" => Role::Typed(ColumnKind::F32),
        "f64" => Role::Typed(ColumnKind::F64),
        "str" => Role::Typed(ColumnKind::Str),
        unit => Role::Time(TimeFormat::Unix(Unit::from_name(unit)?), None),
    })
}

/// The role of a column without a type.
fn untyped(name: &str, rules: &Rules<'_>) -> Role {
    match rules.time {
        TimeRule::Auto => time::key(name, &[]).map_or(Role::Untyped, |(_, unit)| {
            Role::Time(unit.map_or(TimeFormat::Auto, TimeFormat::Unix), None)
        }),
        TimeRule::Key {
            name: wanted,
            format,
            zone,
        } if name == wanted => Role::Time(format, zone),
        TimeRule::Key { .. } | TimeRule::Ignore => Role::Untyped,
    }
}

/// The value of a cell: `None` if the column holds none, `Some(Ok(None))` if it is missing.
fn value(role: Role, cell: Cell, text: &str) -> Option<Result<Option<Value<'_>>, Cause>> {
    let word = cell.text.of(text);
    let bare = word.trim();
    let kind = match role {
        Role::Time(..) | Role::Tag => return None,
        Role::Typed(kind) => Some(kind),
        Role::Untyped => None,
    };
    if kind == Some(ColumnKind::Str) {
        // Quotes tell an empty text from a missing one.
        let missing = word.is_empty() && !cell.quoted;
        return Some(Ok((!missing).then_some(Value::Str(word))));
    }
    if bare.is_empty() || number::is_missing(bare) {
        return Some(Ok(None));
    }
    let value = match (kind, bare) {
        (Some(ColumnKind::Bool), "0") | (Some(ColumnKind::Bool) | None, "false") => {
            Ok(Value::Bool(false))
        }
        (Some(ColumnKind::Bool), "1") | (Some(ColumnKind::Bool) | None, "true") => {
            Ok(Value::Bool(true))
        }
        (Some(ColumnKind::Bool), _) => Err(Cause::Not("0, 1, true or false")),
        (Some(ColumnKind::I64), _) => {
            let whole = bare.parse().map(Value::I64);
            whole.map_err(|_| Cause::Not("a whole number of 64 bits"))
        }
        (Some(ColumnKind::F32), _) => number::single(bare)
            .unwrap_or(Err(Cause::Not("a number")))
            .map(Value::F32),
        (Some(ColumnKind::F64), _) => match number::plain(bare) {
            Some(Ok(Value::I64(_))) => Err(Cause::Number),
            Some(read) => read,
            None => Err(Cause::Not("a number")),
        },
        (Some(ColumnKind::Str) | None, _) => number::plain(bare).unwrap_or(Ok(Value::Str(word))),
    };
    Some(value.map(Some))
}

impl Cells {
    /// Splits a row into cells.
    fn split(&mut self, row: &[u8], delimiter: u8) -> Result<(), Fault> {
        self.text.clear();
        self.cells.clear();
        self.count = 0;
        let row = core::str::from_utf8(row).map_err(|error| Fault {
            at: error.valid_up_to(),
            cause: Cause::NotUtf8,
        })?;
        let mut at = 0;
        loop {
            let from = at;
            let start = self.text.len();
            let quoted = row.as_bytes().get(at) == Some(&b'"');
            at = if quoted {
                self.quoted(row, at)?
            } else {
                let rest = &row.as_bytes()[at..];
                let len = rest.iter().position(|byte| *byte == delimiter);
                let end = at + len.unwrap_or(rest.len());
                self.text.push_str(row.get(at..end).unwrap_or_default());
                end
            };
            self.count += 1;
            if self.count > MAX_COLUMNS + 1 {
                self.text.truncate(start);
            } else {
                self.cells.push(Cell {
                    text: Span::new(start, self.text.len()),
                    quoted,
                    from,
                    to: at,
                });
            }
            match row.as_bytes().get(at) {
                None => return Ok(()),
                Some(byte) if *byte == delimiter => at += 1,
                Some(_) => {
                    let cause = Cause::AfterQuote;
                    return Err(Fault { at, cause });
                }
            }
        }
    }

    /// A cell in quotes, the first of them at `quote`; says where it ends.
    fn quoted(&mut self, row: &str, quote: usize) -> Result<usize, Fault> {
        let mut at = quote + 1;
        loop {
            let rest = &row[at..];
            let Some(len) = rest.find('"') else {
                return Err(Fault {
                    at: quote,
                    cause: Cause::Missing("the closing quote"),
                });
            };
            self.text.push_str(&rest[..len]);
            at += len + 1;
            if row.as_bytes().get(at) != Some(&b'"') {
                return Ok(at);
            }
            self.text.push('"');
            at += 1;
        }
    }
}
