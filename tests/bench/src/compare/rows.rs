//! Row formats through serde: JSON lines, a JSON array, MessagePack maps, postcard tuples.
//!
//! The first three name every value; postcard has the schema on both ends, and the series as a number.
//! JSON is read with `float_roundtrip`: serde_json's quicker parser gets the last bit of some floats
//! wrong. JSON has no infinities and no NaN.

use std::fmt;

use anyhow::{Context, ensure};
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, SerializeTuple, Serializer};

use super::{Codec, Format};
use crate::table::{Batch, Shape, Table, Values};

const TIME: &str = "ts";

/// A row as a map from names to values; missing values are left out.
struct Named<'a> {
    shape: &'a Shape,
    table: &'a Table,
    row: usize,
}

impl Serialize for Named<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { shape, table, row } = *self;
        let present = table.columns.iter().filter(|c| c.present[row]).count();
        let len = 1 + usize::from(shape.label.is_some()) + present;
        let mut map = serializer.serialize_map(Some(len))?;
        map.serialize_entry(TIME, &table.times[row])?;
        if let Some(label) = &shape.label {
            let series = &shape.series[table.series[row] as usize];
            map.serialize_entry(label, series)?;
        }
        for (field, cells) in shape.columns.iter().zip(&table.columns) {
            if !cells.present[row] {
                continue;
            }
            match &cells.values {
                Values::Bool(v) => map.serialize_entry(&field.name, &v[row])?,
                Values::I64(v) => map.serialize_entry(&field.name, &v[row])?,
                Values::F32(v) => map.serialize_entry(&field.name, &v[row])?,
                Values::F64(v) => map.serialize_entry(&field.name, &v[row])?,
                Values::Str(v) => map.serialize_entry(&field.name, &v[row])?,
            }
        }
        map.end()
    }
}

/// Reads a row that [`Named`] wrote.
struct NamedSeed<'a> {
    shape: &'a Shape,
    table: &'a mut Table,
}

impl<'de> DeserializeSeed<'de> for NamedSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for NamedSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { shape, table } = self;
        table.begin_row(0, 0);
        let mut next = 0;
        while let Some(key) = map.next_key_seed(KeySeed { shape, next })? {
            match key {
                Key::Time => set_last(&mut table.times, map.next_value()?),
                Key::Label => {
                    let series = map.next_value_seed(SeriesSeed(shape))?;
                    set_last(&mut table.series, series);
                }
                Key::Column(at) => {
                    next = at + 1;
                    let cells = &mut table.columns[at];
                    set_last(&mut cells.present, true);
                    match &mut cells.values {
                        Values::Bool(v) => set_last(v, map.next_value()?),
                        Values::I64(v) => set_last(v, map.next_value()?),
                        Values::F32(v) => set_last(v, map.next_value()?),
                        Values::F64(v) => set_last(v, map.next_value()?),
                        Values::Str(v) => set_last(v, map.next_value()?),
                    }
                }
            }
        }
        Ok(())
    }
}

fn set_last<T>(values: &mut [T], value: T) {
    if let Some(last) = values.last_mut() {
        *last = value;
    }
}

enum Key {
    Time,
    Label,
    Column(usize),
}

struct KeySeed<'a> {
    shape: &'a Shape,
    next: usize,
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a column's name")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Key, E> {
        if let Some(at) = self.shape.column(name, self.next) {
            Ok(Key::Column(at))
        } else if name == TIME {
            Ok(Key::Time)
        } else if self.shape.label.as_deref() == Some(name) {
            Ok(Key::Label)
        } else {
            Err(E::custom("unknown column"))
        }
    }
}

struct SeriesSeed<'a>(&'a Shape);

impl<'de> DeserializeSeed<'de> for SeriesSeed<'_> {
    type Value = u32;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u32, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for SeriesSeed<'_> {
    type Value = u32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a label")
    }

    fn visit_str<E: de::Error>(self, label: &str) -> Result<u32, E> {
        self.0
            .series_of(label)
            .ok_or_else(|| E::custom("unknown label"))
    }
}

/// One JSON object per line.
pub(super) struct JsonLines<'a>(pub(super) &'a Shape);

impl Format for JsonLines<'_> {
    fn write(&mut self, table: &Table, out: &mut Vec<u8>) -> anyhow::Result<()> {
        for row in 0..table.len() {
            let shape = self.0;
            serde_json::to_writer(&mut *out, &Named { shape, table, row })?;
            out.push(b'\n');
        }
        Ok(())
    }

    fn read(&mut self, bytes: &[u8], table: &mut Table) -> anyhow::Result<()> {
        for line in bytes.split(|&byte| byte == b'\n') {
            if line.is_empty() {
                continue;
            }
            let mut reader = serde_json::Deserializer::from_slice(line);
            let shape = self.0;
            NamedSeed { shape, table }.deserialize(&mut reader)?;
        }
        Ok(())
    }
}

/// All rows as one sequence.
struct Sequence<'a>(&'a Shape, &'a Table);

impl Serialize for Sequence<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(shape, table) = *self;
        serializer.collect_seq((0..table.len()).map(|row| Named { shape, table, row }))
    }
}

/// Reads what [`Sequence`] wrote.
struct SequenceVisitor<'a>(&'a Shape, &'a mut Table);

impl<'de> Visitor<'de> for SequenceVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<(), A::Error> {
        let Self(shape, table) = self;
        while rows
            .next_element_seed(NamedSeed { shape, table })?
            .is_some()
        {}
        Ok(())
    }
}

/// One JSON array of all rows.
pub(super) struct JsonArray<'a>(pub(super) &'a Shape);

impl Format for JsonArray<'_> {
    fn write(&mut self, table: &Table, out: &mut Vec<u8>) -> anyhow::Result<()> {
        Ok(serde_json::to_writer(out, &Sequence(self.0, table))?)
    }

    fn read(&mut self, bytes: &[u8], table: &mut Table) -> anyhow::Result<()> {
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        Ok(reader.deserialize_seq(SequenceVisitor(self.0, table))?)
    }
}

/// MessagePack: one array of maps.
pub(super) struct MessagePack<'a>(pub(super) &'a Shape);

impl Format for MessagePack<'_> {
    fn write(&mut self, table: &Table, out: &mut Vec<u8>) -> anyhow::Result<()> {
        let mut writer = rmp_serde::Serializer::new(out);
        Ok(Sequence(self.0, table).serialize(&mut writer)?)
    }

    fn read(&mut self, bytes: &[u8], table: &mut Table) -> anyhow::Result<()> {
        let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
        Ok(reader.deserialize_seq(SequenceVisitor(self.0, table))?)
    }
}

/// A row as a tuple: time, series if there are several, values in the schema's order.
struct Tuple<'a> {
    shape: &'a Shape,
    table: &'a Table,
    row: usize,
}

impl Tuple<'_> {
    fn len(shape: &Shape) -> usize {
        1 + usize::from(shape.label.is_some()) + shape.columns.len()
    }
}

impl Serialize for Tuple<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        fn put<T: Serialize, U: SerializeTuple>(
            tuple: &mut U,
            nullable: bool,
            present: bool,
            value: &T,
        ) -> Result<(), U::Error> {
            if nullable {
                tuple.serialize_element(&present.then_some(value))
            } else {
                tuple.serialize_element(value)
            }
        }
        let Self { shape, table, row } = *self;
        let mut tuple = serializer.serialize_tuple(Self::len(shape))?;
        tuple.serialize_element(&table.times[row])?;
        if shape.label.is_some() {
            tuple.serialize_element(&table.series[row])?;
        }
        for (field, cells) in shape.columns.iter().zip(&table.columns) {
            let (nullable, present) = (field.nullable, cells.present[row]);
            match &cells.values {
                Values::Bool(v) => put(&mut tuple, nullable, present, &v[row])?,
                Values::I64(v) => put(&mut tuple, nullable, present, &v[row])?,
                Values::F32(v) => put(&mut tuple, nullable, present, &v[row])?,
                Values::F64(v) => put(&mut tuple, nullable, present, &v[row])?,
                Values::Str(v) => put(&mut tuple, nullable, present, &v[row])?,
            }
        }
        tuple.end()
    }
}

/// Reads a row that [`Tuple`] wrote.
struct TupleSeed<'a> {
    shape: &'a Shape,
    table: &'a mut Table,
}

impl<'de> DeserializeSeed<'de> for TupleSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_tuple(Tuple::len(self.shape), self)
    }
}

impl<'de> Visitor<'de> for TupleSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut tuple: A) -> Result<(), A::Error> {
        fn take<'de, T: de::Deserialize<'de>, A: SeqAccess<'de>>(
            tuple: &mut A,
            nullable: bool,
            present: &mut [bool],
            values: &mut [T],
        ) -> Result<(), A::Error> {
            let short = || de::Error::custom("the row is too short");
            let value = if nullable {
                tuple.next_element::<Option<T>>()?.ok_or_else(short)?
            } else {
                Some(tuple.next_element::<T>()?.ok_or_else(short)?)
            };
            if let Some(value) = value {
                set_last(present, true);
                set_last(values, value);
            }
            Ok(())
        }
        let Self { shape, table } = self;
        let short = || de::Error::custom("the row is too short");
        let time = tuple.next_element()?.ok_or_else(short)?;
        let series = match shape.label {
            Some(_) => tuple.next_element()?.ok_or_else(short)?,
            None => 0,
        };
        table.begin_row(time, series);
        for (field, cells) in shape.columns.iter().zip(&mut table.columns) {
            let present = &mut cells.present;
            match &mut cells.values {
                Values::Bool(v) => take(&mut tuple, field.nullable, present, v)?,
                Values::I64(v) => take(&mut tuple, field.nullable, present, v)?,
                Values::F32(v) => take(&mut tuple, field.nullable, present, v)?,
                Values::F64(v) => take(&mut tuple, field.nullable, present, v)?,
                Values::Str(v) => take(&mut tuple, field.nullable, present, v)?,
            }
        }
        Ok(())
    }
}

/// postcard: tuples one after the other, without names.
pub(super) struct Postcard<'a>(pub(super) &'a Shape);

impl Format for Postcard<'_> {
    fn write(&mut self, table: &Table, out: &mut Vec<u8>) -> anyhow::Result<()> {
        let shape = self.0;
        let mut bytes = std::mem::take(out);
        for row in 0..table.len() {
            bytes = postcard::to_extend(&Tuple { shape, table, row }, bytes)?;
        }
        *out = bytes;
        Ok(())
    }

    fn read(&mut self, bytes: &[u8], table: &mut Table) -> anyhow::Result<()> {
        let shape = self.0;
        let mut left = bytes;
        while !left.is_empty() {
            let mut reader = postcard::Deserializer::from_bytes(left);
            TupleSeed { shape, table }.deserialize(&mut reader)?;
            let rest = reader.finalize()?;
            ensure!(rest.len() < left.len(), "an empty row");
            left = rest;
        }
        Ok(())
    }
}

/// A format that is published as it is.
pub(super) struct Plain<F>(pub(super) F);

impl<F: Format> Codec for Plain<F> {
    fn encode(&mut self, batch: &Batch, out: &mut Vec<u8>) -> anyhow::Result<()> {
        out.clear();
        self.0.write(&batch.table, out).context("cannot write")
    }

    fn decode(&mut self, bytes: &[u8], table: &mut Table) -> anyhow::Result<()> {
        table.clear();
        self.0.read(bytes, table).context("cannot read")
    }
}
