//! SenML in CBOR (RFC 8428): one record per value; base name and base time in the first.
//!
//! Integer labels (`bn` -2, `bt` -3, `n` 0, `v` 2, `vs` 3, `vb` 4, `t` 6). A number takes the shortest
//! CBOR form that keeps its bits, so a whole float is an integer. Times are seconds: integers or
//! doubles, rounded to the microsecond by the reader.

use anyhow::{Context, bail, ensure};
use headwater_proto::sample::Value;
use headwater_proto::schema::ColumnKind;

use super::Format;
use crate::table::{Shape, Table};

const BASE_NAME: &str = "dev:";
const UINT: u8 = 0;
const NEGATIVE: u8 = 1;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const FALSE: u8 = 0xf4;
const TRUE: u8 = 0xf5;
const F32: u8 = 0xfa;
const F64: u8 = 0xfb;

pub(super) struct SenmlCbor<'a> {
    shape: &'a Shape,
    /// Record names: series times columns.
    names: Vec<String>,
}

impl<'a> SenmlCbor<'a> {
    pub(super) fn new(shape: &'a Shape) -> Self {
        let names = shape.series.iter().flat_map(|series| {
            shape.columns.iter().map(move |field| match &shape.label {
                Some(_) => format!("{series}:{}", field.name),
                None => field.name.clone(),
            })
        });
        Self {
            shape,
            names: names.collect(),
        }
    }
}

impl Format for SenmlCbor<'_> {
    fn write(&mut self, table: &Table, out: &mut Vec<u8>) -> anyhow::Result<()> {
        let present = |row| table.columns.iter().filter(move |c| c.present[row]).count();
        let records: usize = (0..table.len()).map(present).sum();
        head(out, ARRAY, records as u64);
        let mut first = true;
        for row in 0..table.len() {
            let after = table.times[row] - table.times[0];
            let names = table.series[row] as usize * self.shape.columns.len();
            for (at, cells) in table.columns.iter().enumerate() {
                let Some(value) = cells.get(row) else {
                    continue;
                };
                let entries = 2 + u64::from(after != 0) + 2 * u64::from(first);
                head(out, MAP, entries);
                if first {
                    integer(out, -2);
                    text(out, BASE_NAME);
                    integer(out, -3);
                    seconds(out, table.times[0], table.unit_us);
                    first = false;
                }
                integer(out, 0);
                text(out, &self.names[names + at]);
                if after != 0 {
                    integer(out, 6);
                    seconds(out, after, table.unit_us);
                }
                put(out, value);
            }
        }
        Ok(())
    }

    fn read(&mut self, bytes: &[u8], table: &mut Table) -> anyhow::Result<()> {
        let mut reader = Reader(bytes);
        let records = reader.head(ARRAY)?;
        let (mut base_us, mut last) = (0, None);
        for _ in 0..records {
            let (mut time_us, mut name, mut value) = (0, None, None);
            for _ in 0..reader.head(MAP)? {
                match reader.integer()? {
                    -2 => drop(reader.text()?),
                    -3 => base_us = micros(reader.item()?)?,
                    0 => name = Some(reader.text()?),
                    2..=4 => value = Some(reader.item()?),
                    6 => time_us = micros(reader.item()?)?,
                    other => bail!("label {other}"),
                }
            }
            let time = (base_us + time_us) / table.unit_us;
            let (series, at) = self.place(name.context("no name")?, last)?;
            if !matches!(last, Some((t, s, before)) if t == time && s == series && before < at) {
                table.begin_row(time, series);
            }
            last = Some((time, series, at));
            let value = self.typed(at, value.context("no value")?)?;
            table.set(at, value)?;
        }
        ensure!(reader.0.is_empty(), "bytes are left over");
        Ok(())
    }
}

impl SenmlCbor<'_> {
    /// Series and column of a record's name.
    fn place(&self, name: &str, last: Option<(i64, u32, usize)>) -> anyhow::Result<(u32, usize)> {
        let width = self.shape.columns.len();
        let guess = last.map_or(0, |(_, series, at)| series as usize * width + at + 1);
        let found = if self.names.get(guess).is_some_and(|n| n == name) {
            Some(guess)
        } else if self.names.len() == width {
            self.shape.column(name, 0)
        } else {
            let (label, column) = name.rsplit_once(':').context("no label")?;
            let series = self.shape.series_of(label).context("unknown label")?;
            self.shape
                .column(column, 0)
                .map(|at| series as usize * width + at)
        };
        let found = found.with_context(|| format!("name {name:?}"))?;
        Ok((u32::try_from(found / width)?, found % width))
    }

    fn typed<'v>(&self, at: usize, item: Item<'v>) -> anyhow::Result<Value<'v>> {
        Ok(match (self.shape.columns[at].kind, item) {
            (ColumnKind::Bool, Item::Bool(v)) => Value::Bool(v),
            (ColumnKind::I64, Item::Integer(v)) => Value::I64(v),
            (ColumnKind::F32, Item::Integer(v)) => Value::F32(v as f32),
            (ColumnKind::F32, Item::F32(v)) => Value::F32(v),
            (ColumnKind::F64, Item::Integer(v)) => Value::F64(v as f64),
            (ColumnKind::F64, Item::F32(v)) => Value::F64(f64::from(v)),
            (ColumnKind::F64, Item::F64(v)) => Value::F64(v),
            (ColumnKind::Str, Item::Text(v)) => Value::Str(v),
            (kind, item) => bail!("{item:?} for {kind:?}"),
        })
    }
}

/// A major type and its count, in the shortest form.
fn head(out: &mut Vec<u8>, major: u8, count: u64) {
    let major = major << 5;
    if let Ok(small) = u8::try_from(count) {
        match small {
            0..24 => out.push(major | small),
            _ => out.extend([major | 24, small]),
        }
    } else if let Ok(count) = u16::try_from(count) {
        out.push(major | 25);
        out.extend(count.to_be_bytes());
    } else if let Ok(count) = u32::try_from(count) {
        out.push(major | 26);
        out.extend(count.to_be_bytes());
    } else {
        out.push(major | 27);
        out.extend(count.to_be_bytes());
    }
}

fn integer(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        head(out, NEGATIVE, (!value).cast_unsigned());
    } else {
        head(out, UINT, value.cast_unsigned());
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    head(out, TEXT, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// `value` as an integer, if that keeps its bits.
#[expect(
    clippy::cast_possible_truncation,
    reason = "only what survives the way there and back is taken"
)]
fn whole(value: f64) -> Option<i64> {
    let whole = value as i64;
    (whole.unsigned_abs() < 1 << 53 && (whole as f64).to_bits() == value.to_bits()).then_some(whole)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "only what survives the way there and back is taken"
)]
fn double(out: &mut Vec<u8>, value: f64) {
    let short = value as f32;
    if let Some(whole) = whole(value) {
        integer(out, whole);
    } else if f64::from(short).to_bits() == value.to_bits() {
        out.push(F32);
        out.extend(short.to_be_bytes());
    } else {
        out.push(F64);
        out.extend(value.to_be_bytes());
    }
}

fn seconds(out: &mut Vec<u8>, time: i64, unit_us: i64) {
    double(out, (time * unit_us) as f64 / 1e6);
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a time in microseconds is far below 2^63"
)]
fn micros(item: Item<'_>) -> anyhow::Result<i64> {
    Ok(match item {
        Item::Integer(v) => v * 1_000_000,
        Item::F32(v) => (f64::from(v) * 1e6).round() as i64,
        Item::F64(v) => (v * 1e6).round() as i64,
        Item::Bool(_) | Item::Text(_) => bail!("{item:?} is no time"),
    })
}

fn put(out: &mut Vec<u8>, value: Value<'_>) {
    match value {
        Value::Bool(v) => {
            integer(out, 4);
            out.push(if v { TRUE } else { FALSE });
        }
        Value::I64(v) => {
            integer(out, 2);
            integer(out, v);
        }
        Value::F32(v) => {
            integer(out, 2);
            double(out, f64::from(v));
        }
        Value::F64(v) => {
            integer(out, 2);
            double(out, v);
        }
        Value::Str(v) => {
            integer(out, 3);
            text(out, v);
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Item<'a> {
    Integer(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    Text(&'a str),
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> anyhow::Result<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len).context("too short")?;
        self.0 = rest;
        Ok(head)
    }

    fn count(&mut self, initial: u8) -> anyhow::Result<u64> {
        Ok(match initial & 31 {
            small @ 0..24 => u64::from(small),
            24 => u64::from(self.take(1)?[0]),
            25 => u64::from(u16::from_be_bytes(self.take(2)?.try_into()?)),
            26 => u64::from(u32::from_be_bytes(self.take(4)?.try_into()?)),
            27 => u64::from_be_bytes(self.take(8)?.try_into()?),
            other => bail!("count {other}"),
        })
    }

    fn head(&mut self, major: u8) -> anyhow::Result<u64> {
        let initial = self.take(1)?[0];
        ensure!(initial >> 5 == major, "major type {}", initial >> 5);
        self.count(initial)
    }

    fn text(&mut self) -> anyhow::Result<&'a str> {
        let len = usize::try_from(self.head(TEXT)?)?;
        Ok(std::str::from_utf8(self.take(len)?)?)
    }

    fn integer(&mut self) -> anyhow::Result<i64> {
        let item = self.item()?;
        let Item::Integer(label) = item else {
            bail!("{item:?} is no label");
        };
        Ok(label)
    }

    fn item(&mut self) -> anyhow::Result<Item<'a>> {
        let initial = *self.0.first().context("too short")?;
        Ok(match initial {
            _ if initial >> 5 == TEXT => Item::Text(self.text()?),
            _ if initial >> 5 == UINT => Item::Integer(self.head(UINT)?.cast_signed()),
            _ if initial >> 5 == NEGATIVE => Item::Integer(!self.head(NEGATIVE)?.cast_signed()),
            FALSE | TRUE => Item::Bool(self.take(1)?[0] == TRUE),
            F32 => Item::F32(f32::from_be_bytes(self.take(5)?[1..].try_into()?)),
            F64 => Item::F64(f64::from_be_bytes(self.take(9)?[1..].try_into()?)),
            other => bail!("item {other:#04x}"),
        })
    }
}
