//! Arrow IPC streams and Parquet files of one batch, each complete in itself: schema, data, end.
//!
//! Parquet is written with the crate's defaults and zstd 3; the Arrow stream without compression of its
//! own, since zstd around a small stream also shrinks its schema. Labels and texts are plain strings.

use std::sync::Arc;

use anyhow::{Context, ensure};
use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float32Type, Float64Type, Int64Type};
use arrow_array::{
    Array, ArrayRef, BooleanArray, Float32Array, Float64Array, Int64Array, RecordBatch, StringArray,
};
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{DataType, Field, Schema};
use headwater_proto::schema::ColumnKind;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::Format;
use crate::table::{Shape, Table, Values};

/// Rows that the Parquet reader gives at once: more than any batch here has.
const READ_ROWS: usize = 1 << 16;

/// From a table to a record batch and back.
struct Bridge<'a> {
    shape: &'a Shape,
    schema: Arc<Schema>,
}

impl<'a> Bridge<'a> {
    fn new(shape: &'a Shape) -> Self {
        let mut fields = vec![Field::new("ts", DataType::Int64, false)];
        if let Some(label) = &shape.label {
            fields.push(Field::new(label, DataType::Utf8, false));
        }
        for field in &shape.columns {
            let kind = match field.kind {
                ColumnKind::Bool => DataType::Boolean,
                ColumnKind::I64 => DataType::Int64,
                ColumnKind::F32 => DataType::Float32,
                ColumnKind::F64 => DataType::Float64,
                ColumnKind::Str => DataType::Utf8,
            };
            fields.push(Field::new(&field.name, kind, field.nullable));
        }
        Self {
            shape,
            schema: Arc::new(Schema::new(fields)),
        }
    }

    fn batch(&self, table: &Table) -> anyhow::Result<RecordBatch> {
        let mut arrays: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(table.times.clone()))];
        if self.shape.label.is_some() {
            let labels = table
                .series
                .iter()
                .map(|&at| &self.shape.series[at as usize]);
            arrays.push(Arc::new(StringArray::from_iter_values(labels)));
        }
        for (field, cells) in self.shape.columns.iter().zip(&table.columns) {
            let present = &cells.present;
            let nullable = field.nullable;
            arrays.push(match &cells.values {
                Values::Bool(v) if nullable => Arc::new(BooleanArray::from(some(v, present))),
                Values::Bool(v) => Arc::new(BooleanArray::from(v.clone())),
                Values::I64(v) if nullable => Arc::new(Int64Array::from(some(v, present))),
                Values::I64(v) => Arc::new(Int64Array::from(v.clone())),
                Values::F32(v) if nullable => Arc::new(Float32Array::from(some(v, present))),
                Values::F32(v) => Arc::new(Float32Array::from(v.clone())),
                Values::F64(v) if nullable => Arc::new(Float64Array::from(some(v, present))),
                Values::F64(v) => Arc::new(Float64Array::from(v.clone())),
                Values::Str(v) => {
                    let texts = v.iter().zip(present);
                    let texts = texts.map(|(text, present)| present.then_some(text));
                    Arc::new(texts.collect::<StringArray>())
                }
            });
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), arrays)?)
    }

    fn table(&self, batch: &RecordBatch, table: &mut Table) -> anyhow::Result<()> {
        let rows = batch.num_rows();
        let mut arrays = batch.columns().iter();
        let mut next = || arrays.next().context("too few columns");
        let times = next()?;
        table
            .times
            .extend_from_slice(times.as_primitive::<Int64Type>().values());
        if self.shape.label.is_some() {
            for label in next()?.as_string::<i32>().iter().flatten() {
                let series = self.shape.series_of(label).context("unknown label")?;
                table.series.push(series);
            }
        } else {
            table.series.resize(table.times.len(), 0);
        }
        for cells in &mut table.columns {
            let array = next()?;
            if array.null_count() == 0 {
                cells.present.resize(cells.present.len() + rows, true);
            } else {
                cells
                    .present
                    .extend((0..rows).map(|row| array.is_valid(row)));
            }
            match &mut cells.values {
                Values::Bool(v) => v.extend((0..rows).map(|row| array.as_boolean().value(row))),
                Values::I64(v) => v.extend_from_slice(array.as_primitive::<Int64Type>().values()),
                Values::F32(v) => v.extend_from_slice(array.as_primitive::<Float32Type>().values()),
                Values::F64(v) => v.extend_from_slice(array.as_primitive::<Float64Type>().values()),
                Values::Str(v) => {
                    let texts = array.as_string::<i32>().iter();
                    v.extend(texts.map(|text| text.unwrap_or_default().to_owned()));
                }
            }
        }
        ensure!(table.times.len() == table.series.len(), "a label is null");
        Ok(())
    }
}

fn some<T: Copy>(values: &[T], present: &[bool]) -> Vec<Option<T>> {
    values
        .iter()
        .zip(present)
        .map(|(value, present)| present.then_some(*value))
        .collect()
}

/// An Arrow IPC stream.
pub(super) struct Ipc<'a>(Bridge<'a>);

impl<'a> Ipc<'a> {
    pub(super) fn new(shape: &'a Shape) -> Self {
        Self(Bridge::new(shape))
    }
}

impl Format for Ipc<'_> {
    fn write(&mut self, table: &Table, out: &mut Vec<u8>) -> anyhow::Result<()> {
        let mut writer = StreamWriter::try_new(out, &self.0.schema)?;
        writer.write(&self.0.batch(table)?)?;
        writer.finish()?;
        Ok(())
    }

    fn read(&mut self, bytes: &[u8], table: &mut Table) -> anyhow::Result<()> {
        for batch in StreamReader::try_new(bytes, None)? {
            self.0.table(&batch?, table)?;
        }
        Ok(())
    }
}

/// A Parquet file.
pub(super) struct ParquetFile<'a> {
    bridge: Bridge<'a>,
    properties: WriterProperties,
}

impl<'a> ParquetFile<'a> {
    pub(super) fn new(shape: &'a Shape) -> anyhow::Result<Self> {
        let level = ZstdLevel::try_new(3)?;
        Ok(Self {
            bridge: Bridge::new(shape),
            properties: WriterProperties::builder()
                .set_compression(Compression::ZSTD(level))
                .build(),
        })
    }
}

impl Format for ParquetFile<'_> {
    fn write(&mut self, table: &Table, out: &mut Vec<u8>) -> anyhow::Result<()> {
        let schema = Arc::clone(&self.bridge.schema);
        let mut writer = ArrowWriter::try_new(out, schema, Some(self.properties.clone()))?;
        writer.write(&self.bridge.batch(table)?)?;
        writer.close()?;
        Ok(())
    }

    fn read(&mut self, bytes: &[u8], table: &mut Table) -> anyhow::Result<()> {
        let bytes = bytes::Bytes::copy_from_slice(bytes);
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)?
            .with_batch_size(READ_ROWS)
            .build()?;
        for batch in reader {
            self.bridge.table(&batch?, table)?;
        }
        Ok(())
    }
}
