//! Core: rows to the bytes of Parquet files, the same bytes for the same rows.
//!
//! One file per table and UTC date, one writer open at a time. No clock, no random name and no
//! version of a library stands in a file, so that its hash can be told before it is published.
//!
//! | what | how |
//! |---|---|
//! | compression | zstd 3; none in files below [`TINY_ROWS`] rows, where it would gain nothing |
//! | integers, times | DELTA_BINARY_PACKED (`compact`), dictionary (`compat`) |
//! | texts | dictionary; free text and payloads plain |
//! | digests | plain: no two are alike |
//! | floats | plain, dictionary in `compat`; never BYTE_STREAM_SPLIT, which Spark cannot read |
//! | pages | 1 MiB, version 1, with page index and statistics; a tiny file has no index |
//! | row groups | [`ROW_GROUP_ROWS`] rows |
//! | metadata | `headwater.journal`, `.first_pos`, `.last_pos`, `.schema_version`, `.writer`, `.table` |

use std::sync::{Arc, OnceLock};

use arrow_array::{ArrayRef, RecordBatch};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding as PageEncoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{
    EnabledStatistics, WriterProperties, WriterPropertiesBuilder, WriterVersion,
};
use parquet::schema::types::ColumnPath;

use crate::plan::WRITER_VERSION;
use crate::schema::{Column, Encoding, Kind, SCHEMA_VERSION, Table};

/// Stands in every file instead of the library's version.
pub const CREATED_BY: &str = "headwater-lake version 1.0.0 (build 0)";

/// Rows of a row group: large enough for good columns, small enough to skip.
pub const ROW_GROUP_ROWS: usize = 131_072;

/// Rows that become Arrow at a time: the part of a file that stands in memory twice.
pub(crate) const CHUNK_ROWS: usize = 16_384;

/// Below this many rows a file is not compressed: a page then is smaller than what zstd needs to
/// begin, and its contexts cost more than all the rest.
pub const TINY_ROWS: usize = 64;

/// Size of a data page before compression.
const PAGE_BYTES: usize = 1 << 20;

/// What the head of a file says about its origin.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin<'a> {
    pub(crate) writer: &'a str,
    pub(crate) first_pos: u64,
    pub(crate) last_pos: u64,
}

/// Whether a column's texts do not repeat, so that a dictionary would only cost.
pub(crate) fn is_free_text(column: &Column) -> bool {
    column.kind == Kind::Bytes || matches!(column.name, "message")
}

/// Whether the numbers of a column are hashes, which neither differences nor a dictionary make smaller.
fn is_random(column: &Column) -> bool {
    matches!(column.name, "digest" | "digest_quarantined")
}

/// Encodes one file from chunks of columns; `chunks` gives them until it gives `None`.
///
/// # Errors
/// [`ParquetError`] if the columns are not those of `table`.
pub(crate) fn encode(
    table: Table,
    encoding: Encoding,
    rows: usize,
    origin: Origin<'_>,
    mut chunks: impl FnMut() -> Option<Vec<ArrayRef>>,
) -> Result<Vec<u8>, ParquetError> {
    let schema = table.arrow_schema();
    let options = ArrowWriterOptions::new()
        .with_properties(properties(table, encoding, rows, origin))
        .with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), Arc::clone(&schema), options)?;
    while let Some(columns) = chunks() {
        writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns)?)?;
    }
    writer.into_inner()
}

fn properties(
    table: Table,
    encoding: Encoding,
    rows: usize,
    origin: Origin<'_>,
) -> WriterProperties {
    let mut head = vec![
        ("headwater.table", table.name().to_owned()),
        ("headwater.schema_version", SCHEMA_VERSION.to_string()),
        ("headwater.writer", WRITER_VERSION.to_string()),
        ("headwater.encoding", encoding.name().to_owned()),
        ("headwater.journal", origin.writer.to_owned()),
        ("headwater.first_pos", origin.first_pos.to_string()),
        ("headwater.last_pos", origin.last_pos.to_string()),
    ];
    let head = head
        .drain(..)
        .map(|(key, value)| KeyValue::new(key.to_owned(), value))
        .collect();
    base_properties(table, encoding, rows < TINY_ROWS)
        .set_key_value_metadata(Some(head))
        .build()
}

/// The settings that all files of a kind share, built once.
fn base_properties(table: Table, encoding: Encoding, tiny: bool) -> WriterPropertiesBuilder {
    static CACHE: OnceLock<Vec<WriterProperties>> = OnceLock::new();
    let all = CACHE.get_or_init(|| {
        let mut all = Vec::new();
        for table in Table::ALL {
            for encoding in [Encoding::Compact, Encoding::Compat] {
                for tiny in [false, true] {
                    all.push(build_properties(table, encoding, tiny));
                }
            }
        }
        all
    });
    let place = (table as usize * 2 + encoding as usize) * 2 + usize::from(tiny);
    all[place].clone().into_builder()
}

fn build_properties(table: Table, encoding: Encoding, tiny: bool) -> WriterProperties {
    let sorting = table
        .sort_columns(encoding)
        .iter()
        .filter_map(|name| i32::try_from(table.column_index(name)?).ok())
        .map(|column_idx| parquet::file::metadata::SortingColumn {
            column_idx,
            descending: false,
            nulls_first: false,
        })
        .collect();
    let level = ZstdLevel::try_new(3).expect("zstd knows level 3");
    // A tiny file has one page per column: an index of its pages would be as large as they are.
    let statistics = if tiny {
        EnabledStatistics::Chunk
    } else {
        EnabledStatistics::Page
    };
    let mut builder = WriterProperties::builder()
        .set_created_by(CREATED_BY.to_owned())
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(if tiny {
            Compression::UNCOMPRESSED
        } else {
            Compression::ZSTD(level)
        })
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_data_page_size_limit(PAGE_BYTES)
        .set_write_batch_size(4_096)
        .set_statistics_enabled(statistics)
        .set_offset_index_disabled(tiny)
        .set_sorting_columns(Some(sorting));
    for column in table.columns() {
        let path = ColumnPath::from(column.name);
        match (column.kind, encoding) {
            _ if is_random(column) => {
                builder = builder
                    .set_column_dictionary_enabled(path.clone(), false)
                    .set_column_encoding(path, PageEncoding::PLAIN);
            }
            (Kind::I64 | Kind::I32 | Kind::Time, Encoding::Compact) => {
                builder = builder
                    .set_column_dictionary_enabled(path.clone(), false)
                    .set_column_encoding(path, PageEncoding::DELTA_BINARY_PACKED);
            }
            (Kind::F64, Encoding::Compact) | (Kind::Bool, _) => {
                builder = builder
                    .set_column_dictionary_enabled(path.clone(), false)
                    .set_column_encoding(path, PageEncoding::PLAIN);
            }
            (Kind::Text | Kind::Bytes, _) if is_free_text(column) => {
                builder = builder
                    .set_column_dictionary_enabled(path.clone(), false)
                    .set_column_encoding(path, PageEncoding::PLAIN);
            }
            (Kind::Text | Kind::Bytes, _)
            | (Kind::I64 | Kind::I32 | Kind::Time | Kind::F64, Encoding::Compat) => {
                builder = builder.set_column_dictionary_enabled(path, true);
            }
        }
    }
    builder.build()
}
