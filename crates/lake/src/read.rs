//! Core: Parquet files of the lake, read by parts and by column.

use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, BooleanArray, PrimitiveArray, RecordBatch, StringArray,
};
use bytes::{Buf as _, Bytes};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

use crate::store::{ReadAt, Store, StoreError};

/// Rows that are decoded at a time.
const BATCH_ROWS: usize = 8_192;

/// Bytes that a sequential read asks for at a time.
const READ_BYTES: usize = 64 << 10;

/// Under this name a file tells the version of its columns.
const VERSION: &str = "headwater.schema_version";

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file is no Parquet file, or a damaged one.
    #[error("{path} cannot be read: {source}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong.
        #[source]
        source: ParquetError,
    },
    /// The file lacks a column, or has it with another type.
    #[error("{path}: column {column} is missing or of another type")]
    Column {
        /// The file.
        path: String,
        /// The column.
        column: String,
    },
}

impl ReadError {
    /// Whether it says that the store cannot be reached, and nothing of what is in it.
    #[must_use]
    pub const fn is_outage(&self) -> bool {
        match self {
            Self::Store(error) => error.is_outage(),
            Self::Damaged { .. } | Self::Column { .. } => false,
        }
    }
}

/// An open object as Parquet's reader wants it.
#[derive(Clone)]
pub(crate) struct Chunks(pub(crate) Arc<dyn ReadAt>);

impl Length for Chunks {
    fn len(&self) -> u64 {
        self.0.size()
    }
}

impl ChunkReader for Chunks {
    type T = Sequential;

    fn get_read(&self, start: u64) -> Result<Sequential, ParquetError> {
        Ok(Sequential {
            object: Arc::clone(&self.0),
            at: start,
            buffer: Bytes::new(),
        })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        Ok(self.0.read_at(start, length)?)
    }
}

/// An object read from some place onward.
pub(crate) struct Sequential {
    object: Arc<dyn ReadAt>,
    at: u64,
    buffer: Bytes,
}

impl Read for Sequential {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.buffer.is_empty() {
            let left = self.object.size().saturating_sub(self.at);
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(READ_BYTES);
            self.buffer = self.object.read_at(self.at, len)?;
            self.at += len as u64;
        }
        let len = self.buffer.len().min(into.len());
        self.buffer.copy_to_slice(&mut into[..len]);
        Ok(len)
    }
}

/// A file whose wanted columns are read batch by batch.
pub(crate) struct Reader {
    path: String,
    schema_version: Option<u32>,
    batches: ParquetRecordBatchReader,
}

impl Reader {
    /// Opens the file at `path` to read the top-level `columns`; those it lacks are left out.
    pub(crate) fn open(store: &dyn Store, path: &str, columns: &[&str]) -> Result<Self, ReadError> {
        let damaged = |source| ReadError::Damaged {
            path: path.to_owned(),
            source,
        };
        let object = Chunks(store.open(path)?);
        let open = || {
            let builder = ParquetRecordBatchReaderBuilder::try_new(object)?;
            let schema = builder.parquet_schema();
            let fields = schema.root_schema().get_fields().iter();
            let roots = fields
                .enumerate()
                .filter(|(_, field)| columns.contains(&field.name()));
            let mask = ProjectionMask::roots(schema, roots.map(|(place, _)| place));
            let pairs = builder.metadata().file_metadata().key_value_metadata();
            let version = pairs.into_iter().flatten().find(|pair| pair.key == VERSION);
            let version = version.and_then(|pair| pair.value.as_ref()?.parse().ok());
            let builder = builder.with_projection(mask);
            Ok((version, builder.with_batch_size(BATCH_ROWS).build()?))
        };
        let (schema_version, batches) = without_panic(open).map_err(damaged)?;
        Ok(Self {
            path: path.to_owned(),
            schema_version,
            batches,
        })
    }

    /// Version of the file's columns as it says.
    pub(crate) const fn schema_version(&self) -> Option<u32> {
        self.schema_version
    }

    /// The next rows, `None` at the end.
    pub(crate) fn next_batch(&mut self) -> Result<Option<Columns>, ReadError> {
        let next = without_panic(|| Ok(self.batches.next().transpose()?));
        let batch = next.map_err(|source| ReadError::Damaged {
            path: self.path.clone(),
            source,
        })?;
        Ok(batch.map(|batch| Columns {
            path: self.path.clone(),
            batch,
        }))
    }
}

/// The library panics over some damaged files, one bit in a thousand. What it worked on is dropped
/// with the reader.
pub(crate) fn without_panic<T>(
    read: impl FnOnce() -> Result<T, ParquetError>,
) -> Result<T, ParquetError> {
    let caught = catch_unwind(AssertUnwindSafe(read));
    caught.unwrap_or_else(|_| {
        let what = "the reader panics over its bytes";
        Err(ParquetError::General(what.to_owned()))
    })
}

/// Some rows of a file.
pub(crate) struct Columns {
    path: String,
    batch: RecordBatch,
}

impl Columns {
    pub(crate) fn rows(&self) -> usize {
        self.batch.num_rows()
    }

    pub(crate) fn array(&self, name: &str) -> Option<&ArrayRef> {
        self.batch.column_by_name(name)
    }

    pub(crate) fn wrong(&self, column: &str) -> ReadError {
        ReadError::Column {
            path: self.path.clone(),
            column: column.to_owned(),
        }
    }

    pub(crate) fn texts(&self, name: &str) -> Result<&StringArray, ReadError> {
        self.array(name)
            .and_then(|a| a.as_string_opt())
            .ok_or_else(|| self.wrong(name))
    }

    /// The bytes at `row`, `None` if null.
    pub(crate) fn bytes(&self, name: &str, row: usize) -> Result<Option<&[u8]>, ReadError> {
        let array = self.array(name).and_then(|a| a.as_binary_opt::<i32>());
        let array = array.ok_or_else(|| self.wrong(name))?;
        Ok(array.is_valid(row).then(|| array.value(row)))
    }

    pub(crate) fn longs(&self, name: &str) -> Result<&PrimitiveArray<Int64Type>, ReadError> {
        self.primitive(name)
    }

    pub(crate) fn ints(&self, name: &str) -> Result<&PrimitiveArray<Int32Type>, ReadError> {
        self.primitive(name)
    }

    pub(crate) fn times(
        &self,
        name: &str,
    ) -> Result<&PrimitiveArray<TimestampMicrosecondType>, ReadError> {
        self.primitive(name)
    }

    pub(crate) fn doubles(&self, name: &str) -> Result<&PrimitiveArray<Float64Type>, ReadError> {
        self.primitive(name)
    }

    pub(crate) fn bools(&self, name: &str) -> Result<&BooleanArray, ReadError> {
        self.array(name)
            .and_then(|a| a.as_boolean_opt())
            .ok_or_else(|| self.wrong(name))
    }

    fn primitive<T: ArrowPrimitiveType>(
        &self,
        name: &str,
    ) -> Result<&PrimitiveArray<T>, ReadError> {
        self.array(name)
            .and_then(|a| a.as_primitive_opt())
            .ok_or_else(|| self.wrong(name))
    }
}

/// The value at `row`, `None` if null.
pub(crate) fn cell<T: ArrowPrimitiveType>(
    array: &PrimitiveArray<T>,
    row: usize,
) -> Option<T::Native> {
    array.is_valid(row).then(|| array.value(row))
}

/// The boolean at `row`, `None` if null.
pub(crate) fn cell_bool(array: &BooleanArray, row: usize) -> Option<bool> {
    array.is_valid(row).then(|| array.value(row))
}

/// The text at `row`, `None` if null.
pub(crate) fn text(array: &StringArray, row: usize) -> Option<&str> {
    array.is_valid(row).then(|| array.value(row))
}

#[cfg(test)]
mod tests {
    use arrow_array::Int64Array;
    use parquet::arrow::ArrowWriter;

    use super::*;
    use crate::store::MemStore;

    fn read_all(store: &MemStore) -> Result<usize, ReadError> {
        let (mut reader, mut rows) = (Reader::open(store, "f", &["n", "t"])?, 0);
        while let Some(batch) = reader.next_batch()? {
            rows += batch.rows();
        }
        Ok(rows)
    }

    #[test]
    fn a_file_with_any_bit_flipped_is_read_or_an_error() {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..9));
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values(["a"; 9]));
        let batch = RecordBatch::try_from_iter([("n", numbers), ("t", texts)]).unwrap();
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        let whole = writer.into_inner().unwrap();
        let store = MemStore::new();
        store.replace("f", &whole).unwrap();
        assert_eq!(read_all(&store).unwrap(), 9);
        let mut errors = 0;
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            store.replace("f", &bytes).unwrap();
            errors += usize::from(read_all(&store).is_err());
        }
        assert!(errors > 100, "{errors}");
    }
}
