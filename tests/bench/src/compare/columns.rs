//! pco, column by column: its wrapped form at the default level, which spares a header per column.
//!
//! The frame around the columns is the smallest that came to mind: row count, pco's version once, no
//! lengths (pco knows where it ends), one byte for a column of bits that are all the same, labels as
//! numbers, texts as a dictionary of the batch and numbers into it. Missing values are left out.

use std::collections::HashMap;

use anyhow::{Context, ensure};
use pco::ChunkConfig;
use pco::data_types::Number;
use pco::wrapped::{FileCompressor, FileDecompressor};

use super::Format;
use crate::table::{Shape, Table, Values};

pub(super) struct Pco<'a>(pub(super) &'a Shape);

const ALL_FALSE: u8 = 0;
const ALL_TRUE: u8 = 1;
const MIXED: u8 = 2;

impl Format for Pco<'_> {
    fn write(&mut self, table: &Table, out: &mut Vec<u8>) -> anyhow::Result<()> {
        out.extend(u32::try_from(table.len())?.to_le_bytes());
        let file = FileCompressor::default();
        file.write_header(&mut *out)?;
        numbers(&file, &table.times, out)?;
        if self.0.label.is_some() {
            numbers(&file, &table.series, out)?;
        }
        for (field, cells) in self.0.columns.iter().zip(&table.columns) {
            if field.nullable {
                put_bits(&cells.present, out);
            }
            let present = &cells.present;
            match &cells.values {
                Values::Bool(v) => put_bits(v, out),
                Values::I64(v) => dense(&file, field.nullable, v, present, out)?,
                Values::F32(v) => dense(&file, field.nullable, v, present, out)?,
                Values::F64(v) => dense(&file, field.nullable, v, present, out)?,
                Values::Str(v) => texts(&file, v, out)?,
            }
        }
        Ok(())
    }

    fn read(&mut self, bytes: &[u8], table: &mut Table) -> anyhow::Result<()> {
        let mut left = bytes;
        let rows = usize::try_from(u32::from_le_bytes(take(&mut left, 4)?.try_into()?))?;
        let (file, rest) = FileDecompressor::new(left)?;
        left = rest;
        read_numbers(&file, &mut left, rows, &mut table.times)?;
        if self.0.label.is_some() {
            read_numbers(&file, &mut left, rows, &mut table.series)?;
        } else {
            table.series.resize(rows, 0);
        }
        for (field, cells) in self.0.columns.iter().zip(&mut table.columns) {
            if field.nullable {
                read_bits(&mut left, rows, &mut cells.present)?;
            } else {
                cells.present.resize(rows, true);
            }
            let present = &cells.present;
            match &mut cells.values {
                Values::Bool(v) => read_bits(&mut left, rows, v)?,
                Values::I64(v) => read_dense(&file, field.nullable, &mut left, present, v)?,
                Values::F32(v) => read_dense(&file, field.nullable, &mut left, present, v)?,
                Values::F64(v) => read_dense(&file, field.nullable, &mut left, present, v)?,
                Values::Str(v) => read_texts(&file, &mut left, rows, v)?,
            }
        }
        ensure!(left.is_empty(), "bytes are left over");
        Ok(())
    }
}

fn numbers<T: Number>(
    file: &FileCompressor,
    values: &[T],
    out: &mut Vec<u8>,
) -> anyhow::Result<()> {
    let mut chunk = file.chunk_compressor(values, &ChunkConfig::default())?;
    chunk.write_meta(&mut *out)?;
    chunk.write_page(0, &mut *out)?;
    Ok(())
}

/// The values that are present.
fn dense<T: Number>(
    file: &FileCompressor,
    nullable: bool,
    values: &[T],
    present: &[bool],
    out: &mut Vec<u8>,
) -> anyhow::Result<()> {
    if !nullable {
        return numbers(file, values, out);
    }
    let kept = values.iter().zip(present).filter(|(_, present)| **present);
    let kept: Vec<T> = kept.map(|(value, _)| *value).collect();
    if kept.is_empty() {
        return Ok(());
    }
    numbers(file, &kept, out)
}

fn read_numbers<T: Number + Default>(
    file: &FileDecompressor,
    left: &mut &[u8],
    count: usize,
    values: &mut Vec<T>,
) -> anyhow::Result<()> {
    values.resize(count, T::default());
    let (mut chunk, rest) = file.chunk_decompressor::<T, _>(*left)?;
    let mut page = chunk.page_decompressor(rest, count)?;
    page.read(values)?;
    *left = page.into_src();
    Ok(())
}

fn read_dense<T: Number + Default>(
    file: &FileDecompressor,
    nullable: bool,
    left: &mut &[u8],
    present: &[bool],
    values: &mut Vec<T>,
) -> anyhow::Result<()> {
    if !nullable {
        return read_numbers(file, left, present.len(), values);
    }
    let count = present.iter().filter(|present| **present).count();
    let mut kept = Vec::new();
    if count > 0 {
        read_numbers(file, left, count, &mut kept)?;
    }
    let mut kept = kept.into_iter();
    for &present in present {
        values.push(match present {
            true => kept.next().context("too few values")?,
            false => T::default(),
        });
    }
    Ok(())
}

fn put_bits(bits: &[bool], out: &mut Vec<u8>) {
    if bits.iter().all(|bit| !bit) {
        return out.push(ALL_FALSE);
    }
    if bits.iter().all(|bit| *bit) {
        return out.push(ALL_TRUE);
    }
    out.push(MIXED);
    out.extend(bits.chunks(8).map(|eight| {
        eight
            .iter()
            .rev()
            .fold(0, |byte, bit| byte << 1 | u8::from(*bit))
    }));
}

fn read_bits(left: &mut &[u8], count: usize, bits: &mut Vec<bool>) -> anyhow::Result<()> {
    match take(left, 1)?[0] {
        MIXED => {
            let bytes = take(left, count.div_ceil(8))?;
            bits.extend((0..count).map(|at| bytes[at / 8] >> (at % 8) & 1 == 1));
        }
        mode => bits.resize(count, mode == ALL_TRUE),
    }
    Ok(())
}

fn texts(file: &FileCompressor, values: &[String], out: &mut Vec<u8>) -> anyhow::Result<()> {
    let mut places: HashMap<&str, u32> = HashMap::new();
    let mut words = Vec::new();
    let mut numbered = Vec::with_capacity(values.len());
    for text in values {
        let next = u32::try_from(words.len())?;
        numbered.push(*places.entry(text).or_insert_with(|| {
            words.push(text);
            next
        }));
    }
    out.push(u8::try_from(words.len())?);
    for word in words {
        out.push(u8::try_from(word.len())?);
        out.extend_from_slice(word.as_bytes());
    }
    numbers(file, &numbered, out)
}

fn read_texts(
    file: &FileDecompressor,
    left: &mut &[u8],
    rows: usize,
    values: &mut Vec<String>,
) -> anyhow::Result<()> {
    let mut words = Vec::new();
    for _ in 0..take(left, 1)?[0] {
        let len = usize::from(take(left, 1)?[0]);
        words.push(std::str::from_utf8(take(left, len)?)?);
    }
    let mut numbered: Vec<u32> = Vec::new();
    read_numbers(file, left, rows, &mut numbered)?;
    for number in numbered {
        let word = words.get(number as usize).context("no such word")?;
        values.push((*word).to_owned());
    }
    Ok(())
}

fn take<'a>(left: &mut &'a [u8], len: usize) -> anyhow::Result<&'a [u8]> {
    let (head, rest) = left.split_at_checked(len).context("too short")?;
    *left = rest;
    Ok(head)
}
