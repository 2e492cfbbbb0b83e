//! InfluxDB's line protocol: `dev[,label=value] field=value[,...] time`.
//!
//! The time is in the set's own unit (`precision=`). Integers end in `i`; text is quoted. Floats are
//! written as the shortest text that reads back to the same bits; there are no infinities and no NaN.

use std::io::Write as _;

use anyhow::{Context, bail};
use headwater_proto::sample::Value;
use headwater_proto::schema::ColumnKind;

use super::Format;
use crate::table::{Shape, Table};

pub(super) struct LineProtocol<'a>(pub(super) &'a Shape);

impl Format for LineProtocol<'_> {
    fn write(&mut self, table: &Table, out: &mut Vec<u8>) -> anyhow::Result<()> {
        for row in 0..table.len() {
            out.extend_from_slice(b"dev");
            if let Some(label) = &self.0.label {
                let value = &self.0.series[table.series[row] as usize];
                write!(out, ",{label}={value}")?;
            }
            let mut separator = ' ';
            for (field, cells) in self.0.columns.iter().zip(&table.columns) {
                let Some(value) = cells.get(row) else {
                    continue;
                };
                write!(out, "{separator}{}=", field.name)?;
                separator = ',';
                match value {
                    Value::Bool(true) => out.push(b't'),
                    Value::Bool(false) => out.push(b'f'),
                    Value::I64(v) => write!(out, "{v}i")?,
                    Value::F32(v) => write!(out, "{v}")?,
                    Value::F64(v) => write!(out, "{v}")?,
                    // The sets' texts need no escapes; one that does would be refused below.
                    Value::Str(v) if v.contains([' ', ',', '"', '\\']) => bail!("text {v:?}"),
                    Value::Str(v) => write!(out, "\"{v}\"")?,
                }
            }
            writeln!(out, " {}", table.times[row])?;
        }
        Ok(())
    }

    fn read(&mut self, bytes: &[u8], table: &mut Table) -> anyhow::Result<()> {
        for line in std::str::from_utf8(bytes)?.lines() {
            self.read_line(line, table)
                .with_context(|| line.to_owned())?;
        }
        Ok(())
    }
}

impl LineProtocol<'_> {
    fn read_line(&self, line: &str, table: &mut Table) -> anyhow::Result<()> {
        let (head, rest) = line.split_once(' ').context("no fields")?;
        let (fields, time) = rest.split_once(' ').context("no time")?;
        let series = match head.split_once('=') {
            Some((_, label)) => self.0.series_of(label).context("unknown label")?,
            None => 0,
        };
        table.begin_row(time.parse()?, series);
        let mut next = 0;
        for field in fields.split(',') {
            let (name, text) = field.split_once('=').context("a field without a value")?;
            let at = self.0.column(name, next).context("unknown field")?;
            next = at + 1;
            let value = match self.0.columns[at].kind {
                ColumnKind::Bool => Value::Bool(text == "t"),
                ColumnKind::I64 => Value::I64(text.strip_suffix('i').context("no i")?.parse()?),
                ColumnKind::F32 => Value::F32(text.parse()?),
                ColumnKind::F64 => Value::F64(text.parse()?),
                ColumnKind::Str => Value::Str(text.trim_matches('"')),
            };
            table.set(at, value)?;
        }
        Ok(())
    }
}
