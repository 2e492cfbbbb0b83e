//! Schemas that own their texts, and their bytes.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::limits::Limits;
use super::params::{Params, Scale, TimeParams};
use super::{ColumnKind, MAX_TEXT_BYTES, VERSION};
use crate::varint;

/// One metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Name of the metric, at most [`MAX_TEXT_BYTES`].
    pub name: String,
    /// The type of its values.
    pub kind: ColumnKind,
    /// Its unit in the source's spelling, for instance `Cel` or `m/s`; empty if unknown.
    pub unit: String,
    /// Whether a row may lack it.
    pub nullable: bool,
    /// How it is coded; [`crate::codec::fit`] finds better ones than the default.
    pub params: Params,
    /// Texts that a batch codes by number: only for [`ColumnKind::Str`].
    pub dictionary: Vec<String>,
    /// Values that come again, as integers ordered as the numbers are (an `i64` itself, the bits
    /// of a float with those below the sign flipped if it is negative), ascending: only for
    /// [`Scale::Levels`](crate::codec::Scale::Levels), which codes their ranks.
    pub levels: Vec<i64>,
}

impl Column {
    /// A nullable column without unit, with default parameters.
    #[must_use]
    pub fn new(name: &str, kind: ColumnKind) -> Self {
        Self {
            name: name.into(),
            kind,
            unit: String::new(),
            nullable: true,
            params: Params::default_for(kind),
            dictionary: Vec::new(),
            levels: Vec::new(),
        }
    }
}

/// One set of labels; a batch codes it by its place in the schema.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct Series {
    /// (key, value), in the order the source gave them.
    pub labels: Vec<(String, String)>,
}

/// The meaning of a batch: columns, series, tags and codec parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    /// How times are coded.
    pub time: TimeParams,
    /// One per metric, in the order of a row's values.
    pub columns: Vec<Column>,
    /// The label sets; never empty: series 0 has no labels when there are none.
    pub series: Vec<Series>,
    /// Facts that hold for every row: site, model, firmware version.
    pub tags: Vec<(String, String)>,
}

/// Why a schema cannot be written or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// The bytes end inside the schema, or go on after it.
    #[error("the schema's bytes do not end where the schema does")]
    Length,
    /// A version this build does not read.
    #[error("schema version {0} is unknown here")]
    Version(u8),
    /// More of something than the limits allow.
    #[error("the schema has more {0} than allowed")]
    TooMany(&'static str),
    /// A text is longer than [`MAX_TEXT_BYTES`] or not UTF-8.
    #[error("a text of the schema is too long or not UTF-8")]
    Text,
    /// A parameter, kind or flag outside its range.
    #[error("the schema has an invalid {0}")]
    Invalid(&'static str),
}

const NULLABLE: u8 = 0x10;
/// Bytes that a level counts against the limit of bytes of texts.
const LEVEL_BYTES: u32 = 8;

impl Schema {
    /// A schema of one series without labels or tags.
    #[must_use]
    pub fn new(tick_us: u32, columns: Vec<Column>) -> Self {
        Self {
            time: TimeParams::new(tick_us),
            columns,
            series: vec![Series::default()],
            tags: Vec::new(),
        }
    }

    /// Checks counts, texts and parameters against `limits`.
    ///
    /// # Errors
    /// [`SchemaError`] names the first thing that is wrong.
    pub fn check(&self, limits: &Limits) -> Result<(), SchemaError> {
        bound(self.columns.len(), limits.columns, "columns")?;
        bound(self.series.len(), limits.series, "series")?;
        bound(self.tags.len(), limits.labels, "tags")?;
        let states = self.columns.len().saturating_mul(self.series.len());
        bound(states, limits.states, "states")?;
        if self.series.is_empty() {
            return Err(SchemaError::Invalid("series table"));
        }
        self.time.check().map_err(SchemaError::Invalid)?;
        let mut dictionary_bytes = 0usize;
        for (at, column) in self.columns.iter().enumerate() {
            let taps = column.params.taps.as_slice().iter();
            for tap in taps.chain(column.params.first_taps.as_slice()) {
                let taps = usize::from(tap.column);
                let source = self.columns.get(taps).map(|column| column.kind);
                if taps > at || source == Some(ColumnKind::Str) || (taps < at && tap.lag > 2) {
                    return Err(SchemaError::Invalid("tap"));
                }
            }
            text(&column.name)?;
            text(&column.unit)?;
            column
                .params
                .check(column.kind)
                .map_err(SchemaError::Invalid)?;
            if column.kind != ColumnKind::Str && !column.dictionary.is_empty() {
                return Err(SchemaError::Invalid("dictionary"));
            }
            if (column.params.scale == Scale::Levels) == column.levels.is_empty()
                || column.levels.windows(2).any(|pair| pair[0] >= pair[1])
            {
                return Err(SchemaError::Invalid("level"));
            }
            dictionary_bytes += column.levels.len() * LEVEL_BYTES as usize;
            for entry in &column.dictionary {
                text(entry)?;
                dictionary_bytes += entry.len() + 1;
            }
        }
        bound(dictionary_bytes, limits.text_bytes, "dictionary bytes")?;
        for series in &self.series {
            bound(series.labels.len(), limits.labels, "labels")?;
            for (key, value) in &series.labels {
                text(key)?;
                text(value)?;
            }
        }
        for (key, value) in &self.tags {
            text(key)?;
            text(value)?;
        }
        Ok(())
    }

    /// Appends the schema's bytes.
    ///
    /// # Errors
    /// As [`Schema::check`] under the hard limits; `out` is then unchanged.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), SchemaError> {
        self.check(&Limits::HARD)?;
        out.push(VERSION);
        self.time.encode(out);
        put(out, self.columns.len());
        for column in &self.columns {
            out.push(column.kind.to_u8() | if column.nullable { NULLABLE } else { 0 });
            put_text(out, &column.name);
            put_text(out, &column.unit);
            column.params.encode(column.kind, out);
            if column.kind == ColumnKind::Str {
                put(out, column.dictionary.len());
                column
                    .dictionary
                    .iter()
                    .for_each(|entry| put_text(out, entry));
            }
            if column.params.scale == Scale::Levels {
                put(out, column.levels.len());
                let mut before = 0i64;
                for &level in &column.levels {
                    let above = level.wrapping_sub(before).cast_unsigned();
                    varint::append(out, above);
                    before = level;
                }
            }
        }
        put(out, self.series.len());
        for series in &self.series {
            put_pairs(out, &series.labels);
        }
        put_pairs(out, &self.tags);
        Ok(())
    }

    /// Reads a schema; counts are checked before anything is allocated for them.
    ///
    /// # Errors
    /// [`SchemaError`] for bytes that no [`Schema::encode`] within `limits` wrote.
    pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Self, SchemaError> {
        let mut reader = Reader { bytes, at: 0 };
        let version = reader.byte()?;
        if version != VERSION {
            return Err(SchemaError::Version(version));
        }
        let time = TimeParams::decode(bytes, &mut reader.at).ok_or(SchemaError::Length)?;
        let mut columns = Vec::new();
        for _ in 0..reader.count(limits.columns, "columns")? {
            columns.push(reader.column(limits)?);
        }
        let mut series = Vec::new();
        for _ in 0..reader.count(limits.series, "series")? {
            series.push(Series {
                labels: reader.pairs(limits, "labels")?,
            });
        }
        let tags = reader.pairs(limits, "tags")?;
        if reader.at != bytes.len() {
            return Err(SchemaError::Length);
        }
        let schema = Self {
            time,
            columns,
            series,
            tags,
        };
        schema.check(limits)?;
        Ok(schema)
    }
}

fn bound(count: usize, most: u32, what: &'static str) -> Result<(), SchemaError> {
    if u64::try_from(count).is_ok_and(|count| count <= u64::from(most)) {
        Ok(())
    } else {
        Err(SchemaError::TooMany(what))
    }
}

fn text(text: &str) -> Result<(), SchemaError> {
    if text.len() > MAX_TEXT_BYTES {
        Err(SchemaError::Text)
    } else {
        Ok(())
    }
}

fn put(out: &mut Vec<u8>, count: usize) {
    varint::append(out, count as u64);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn put_pairs(out: &mut Vec<u8>, pairs: &[(String, String)]) {
    put(out, pairs.len());
    for (key, value) in pairs {
        put_text(out, key);
        put_text(out, value);
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, SchemaError> {
        let byte = *self.bytes.get(self.at).ok_or(SchemaError::Length)?;
        self.at += 1;
        Ok(byte)
    }

    /// A count that is within `most`, and not more than the bytes that are left.
    fn count(&mut self, most: u32, what: &'static str) -> Result<usize, SchemaError> {
        let count = varint::get(self.bytes, &mut self.at).ok_or(SchemaError::Length)?;
        if count > u64::from(most) {
            return Err(SchemaError::TooMany(what));
        }
        let count = usize::try_from(count).map_err(|_| SchemaError::TooMany(what))?;
        if count > self.bytes.len() - self.at {
            Err(SchemaError::Length)
        } else {
            Ok(count)
        }
    }

    fn text(&mut self) -> Result<String, SchemaError> {
        let len = varint::get(self.bytes, &mut self.at).ok_or(SchemaError::Length)?;
        let len = usize::try_from(len).map_err(|_| SchemaError::Text)?;
        if len > MAX_TEXT_BYTES {
            return Err(SchemaError::Text);
        }
        let bytes = self
            .bytes
            .get(self.at..self.at + len)
            .ok_or(SchemaError::Length)?;
        self.at += len;
        Ok(core::str::from_utf8(bytes)
            .map_err(|_| SchemaError::Text)?
            .into())
    }

    fn pairs(
        &mut self,
        limits: &Limits,
        what: &'static str,
    ) -> Result<Vec<(String, String)>, SchemaError> {
        let mut pairs = Vec::new();
        for _ in 0..self.count(limits.labels, what)? {
            pairs.push((self.text()?, self.text()?));
        }
        Ok(pairs)
    }

    fn column(&mut self, limits: &Limits) -> Result<Column, SchemaError> {
        let head = self.byte()?;
        if head & !(NULLABLE | 0x0f) != 0 {
            return Err(SchemaError::Invalid("column flags"));
        }
        let kind = ColumnKind::from_u8(head & 0x0f).ok_or(SchemaError::Invalid("column kind"))?;
        let name = self.text()?;
        let unit = self.text()?;
        let params = Params::decode(kind, self.bytes, &mut self.at)
            .ok_or(SchemaError::Invalid("parameter"))?;
        let mut dictionary = Vec::new();
        if kind == ColumnKind::Str {
            for _ in 0..self.count(limits.text_bytes, "dictionary entries")? {
                dictionary.push(self.text()?);
            }
        }
        let mut levels = Vec::new();
        if params.scale == Scale::Levels {
            let most = limits.text_bytes / LEVEL_BYTES;
            let mut level = 0i64;
            for _ in 0..self.count(most, "levels")? {
                let above = varint::get(self.bytes, &mut self.at).ok_or(SchemaError::Length)?;
                level = level.wrapping_add_unsigned(above);
                levels.push(level);
            }
        }
        Ok(Column {
            name,
            kind,
            unit,
            nullable: head & NULLABLE != 0,
            params,
            dictionary,
            levels,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_up_to_their_bound_are_kept_and_longer_ones_refused() {
        for (len, outcome) in [
            (crate::schema::MAX_TEXT_BYTES, Ok(())),
            (crate::schema::MAX_TEXT_BYTES + 1, Err(SchemaError::Text)),
        ] {
            let text = "n".repeat(len);
            let pair = [(text.clone(), String::new())];
            let mut named = Schema::new(1, vec![Column::new(&text, ColumnKind::I64)]);
            assert_eq!(named.check(&Limits::DEFAULT), outcome);
            named.columns[0].name.clear();
            named.tags = pair.to_vec();
            assert_eq!(named.check(&Limits::DEFAULT), outcome);
            named.tags.clear();
            named.series[0].labels = pair.to_vec();
            assert_eq!(named.check(&Limits::DEFAULT), outcome);
        }
    }
}
