//! A Sparkplug B payload's shape: protobuf, every metric by alias with a timestamp of its own.
//!
//! Written by hand after the public `.proto`: payload `timestamp` 1, `metrics` 2, `seq` 3; metric
//! `alias` 2, `timestamp` 3, `int_value` 10, `long_value` 11, `float_value` 12, `double_value` 13,
//! `boolean_value` 14, `string_value` 15. Names and data types are left to the birth message, which is
//! kind to it. The standard's times are milliseconds; in sets with a finer clock they are microseconds
//! here, so that nothing is lost.

use anyhow::{Context, bail, ensure};
use headwater_proto::sample::Value;
use headwater_proto::schema::ColumnKind;

use super::Format;
use crate::table::{Shape, Table};

const PAYLOAD_TIME: u8 = 0x08;
const PAYLOAD_METRIC: u8 = 0x12;
const PAYLOAD_SEQ: u8 = 0x18;
const ALIAS: u8 = 0x10;
const TIME: u8 = 0x18;
const INT: u8 = 0x50;
const LONG: u8 = 0x58;
const FLOAT: u8 = 0x65;
const DOUBLE: u8 = 0x69;
const BOOLEAN: u8 = 0x70;
const STRING: u8 = 0x7a;

pub(super) struct Sparkplug<'a> {
    shape: &'a Shape,
    metric: Vec<u8>,
}

impl<'a> Sparkplug<'a> {
    pub(super) fn new(shape: &'a Shape) -> Self {
        Self {
            shape,
            metric: Vec::new(),
        }
    }
}

impl Format for Sparkplug<'_> {
    fn write(&mut self, table: &Table, out: &mut Vec<u8>) -> anyhow::Result<()> {
        out.push(PAYLOAD_TIME);
        varint(out, table.times[0].cast_unsigned());
        let width = self.shape.columns.len() as u64;
        for row in 0..table.len() {
            let aliases = u64::from(table.series[row]) * width;
            for (alias, cells) in (aliases..).zip(&table.columns) {
                let Some(value) = cells.get(row) else {
                    continue;
                };
                let metric = &mut self.metric;
                metric.clear();
                metric.push(ALIAS);
                varint(metric, alias);
                metric.push(TIME);
                varint(metric, table.times[row].cast_unsigned());
                put(metric, value);
                out.push(PAYLOAD_METRIC);
                varint(out, metric.len() as u64);
                out.extend_from_slice(metric);
            }
        }
        out.extend([PAYLOAD_SEQ, 0]);
        Ok(())
    }

    fn read(&mut self, bytes: &[u8], table: &mut Table) -> anyhow::Result<()> {
        let mut left = bytes;
        let mut last = None;
        while !left.is_empty() {
            match byte(&mut left)? {
                PAYLOAD_TIME | PAYLOAD_SEQ => drop(get(&mut left)?),
                PAYLOAD_METRIC => {
                    let len = usize::try_from(get(&mut left)?)?;
                    let metric = take(&mut left, len)?;
                    self.read_metric(metric, &mut last, table)?;
                }
                other => bail!("payload field {other:#04x}"),
            }
        }
        Ok(())
    }
}

impl Sparkplug<'_> {
    fn read_metric(
        &self,
        mut metric: &[u8],
        last: &mut Option<(i64, u32, usize)>,
        table: &mut Table,
    ) -> anyhow::Result<()> {
        ensure!(byte(&mut metric)? == ALIAS, "no alias");
        let alias = usize::try_from(get(&mut metric)?)?;
        ensure!(byte(&mut metric)? == TIME, "no time");
        let time = get(&mut metric)?.cast_signed();
        let width = self.shape.columns.len();
        let (series, at) = (u32::try_from(alias / width)?, alias % width);
        if !matches!(*last, Some((t, s, before)) if t == time && s == series && before < at) {
            table.begin_row(time, series);
        }
        *last = Some((time, series, at));
        let kind = byte(&mut metric)?;
        let value = match (self.shape.columns[at].kind, kind) {
            (ColumnKind::Bool, BOOLEAN) => Value::Bool(get(&mut metric)? != 0),
            (ColumnKind::I64, INT) => {
                let bits = u32::try_from(get(&mut metric)?)?;
                Value::I64(i64::from(bits.cast_signed()))
            }
            (ColumnKind::I64, LONG) => Value::I64(get(&mut metric)?.cast_signed()),
            (ColumnKind::F32, FLOAT) => {
                Value::F32(f32::from_le_bytes(take(&mut metric, 4)?.try_into()?))
            }
            (ColumnKind::F64, DOUBLE) => {
                Value::F64(f64::from_le_bytes(take(&mut metric, 8)?.try_into()?))
            }
            (ColumnKind::Str, STRING) => {
                let len = usize::try_from(get(&mut metric)?)?;
                Value::Str(std::str::from_utf8(take(&mut metric, len)?)?)
            }
            (kind, field) => bail!("metric field {field:#04x} for {kind:?}"),
        };
        table.set(at, value)
    }
}

fn put(metric: &mut Vec<u8>, value: Value<'_>) {
    match value {
        Value::Bool(v) => metric.extend([BOOLEAN, u8::from(v)]),
        Value::I64(v) => {
            if let Ok(small) = i32::try_from(v) {
                metric.push(INT);
                varint(metric, u64::from(small.cast_unsigned()));
            } else {
                metric.push(LONG);
                varint(metric, v.cast_unsigned());
            }
        }
        Value::F32(v) => {
            metric.push(FLOAT);
            metric.extend(v.to_le_bytes());
        }
        Value::F64(v) => {
            metric.push(DOUBLE);
            metric.extend(v.to_le_bytes());
        }
        Value::Str(v) => {
            metric.push(STRING);
            varint(metric, v.len() as u64);
            metric.extend_from_slice(v.as_bytes());
        }
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

fn get(left: &mut &[u8]) -> anyhow::Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let next = byte(left)?;
        value |= u64::from(next & 0x7f) << shift;
        if next < 0x80 {
            return Ok(value);
        }
    }
    bail!("a varint is too long")
}

fn byte(left: &mut &[u8]) -> anyhow::Result<u8> {
    Ok(take(left, 1)?[0])
}

fn take<'a>(left: &mut &'a [u8], len: usize) -> anyhow::Result<&'a [u8]> {
    let (head, rest) = left.split_at_checked(len).context("too short")?;
    *left = rest;
    Ok(head)
}
