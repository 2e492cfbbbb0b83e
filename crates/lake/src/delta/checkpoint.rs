//! Core: checkpoints of a commit log: its state at one version as one Parquet file, so that neither this
//! crate nor another reader replays the log from its beginning.
//!
//! Written and read as streams: a table of half a million files passes through in batches.

use std::sync::Arc;

use arrow_array::builder::{ListBuilder, MapBuilder, MapFieldNames, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{
    Array, ArrayRef, BooleanArray, Int32Array, Int64Array, MapArray, RecordBatch, StringArray,
    StructArray,
};
use arrow_buffer::NullBuffer;
use arrow_schema::{ArrowError, Field, Fields, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use serde::{Deserialize, Serialize};

use super::LogError;
use super::version::{Add, SHA256_TAG, log_dir, schema_string, table_id};
use crate::digest::of_object;
use crate::parquet::CREATED_BY;
use crate::plan::Sha256;
use crate::read::{Columns, ReadError, Reader, cell, text};
use crate::schema::Table;
use crate::store::{Put, Store};

/// Rows that are encoded at a time.
const BATCH_ROWS: usize = 4_096;

/// One action of the state.
enum Row {
    Protocol,
    MetaData(Table),
    Txn(String, u64),
    Add(Add),
}

/// Where the newest checkpoint is: `_last_checkpoint`.
#[derive(Serialize, Deserialize)]
pub(crate) struct Hint {
    pub(crate) version: u64,
    /// Rows of the checkpoint.
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parts: Option<u64>,
}

impl Hint {
    /// Path of the hint of a table.
    pub(crate) fn path(table: Table) -> String {
        format!("{}/_last_checkpoint", log_dir(table))
    }

    /// `None`: the bytes are none that this program writes.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let hint: Self = serde_json::from_slice(bytes).ok()?;
        (serde_json::to_vec(&hint).ok()? == bytes).then_some(hint)
    }
}

pub(crate) fn checkpoint_path(table: Table, version: u64) -> String {
    format!("{}/{version:020}.checkpoint.parquet", log_dir(table))
}

/// Version of the newest checkpoint, `None` if there is none in one part.
pub(crate) fn newest(store: &dyn Store, table: Table) -> Result<Option<u64>, LogError> {
    let Some(hint) = store.find(&Hint::path(table))? else {
        return Ok(None);
    };
    // A hint alone: one that cannot be read costs a replay from version 0.
    let Ok(hint) = serde_json::from_slice::<Hint>(&hint) else {
        return Ok(None);
    };
    let usable = hint.parts.is_none() && exists(store, table, hint.version)?;
    Ok(usable.then_some(hint.version))
}

/// Whether there is a checkpoint of `version`.
pub(crate) fn exists(store: &dyn Store, table: Table, version: u64) -> Result<bool, LogError> {
    Ok(store.size(&checkpoint_path(table, version))?.is_some())
}

/// The bytes of a checkpoint.
pub(super) struct Encoded {
    bytes: Vec<u8>,
    rows: u64,
    pub(super) sha256: Sha256,
}

/// The checkpoint of a table at `version`: the same bytes for the same state.
///
/// - `txns`: every application and its version.
/// - `files`: visits the files of the table as of that version.
pub(super) fn encode<'a>(
    table: Table,
    version: u64,
    txns: impl Iterator<Item = (&'a str, u64)>,
    files: impl FnOnce(&mut dyn FnMut(Add) -> Result<(), LogError>) -> Result<(), LogError>,
) -> Result<Encoded, LogError> {
    let damaged = |what: String| LogError::Damaged {
        path: checkpoint_path(table, version),
        what,
    };
    let mut rows = vec![Row::Protocol, Row::MetaData(table)];
    rows.extend(txns.map(|(app, mark)| Row::Txn(app.to_owned(), mark)));
    let first = batch(&rows).map_err(|error| damaged(error.to_string()))?;
    let level = ZstdLevel::try_new(3).expect("zstd knows level 3");
    let properties = WriterProperties::builder()
        .set_created_by(CREATED_BY.to_owned())
        .set_compression(Compression::ZSTD(level))
        .build();
    let fail = |error: ParquetError| damaged(error.to_string());
    let mut writer =
        ArrowWriter::try_new(Vec::new(), first.schema(), Some(properties)).map_err(fail)?;
    writer.write(&first).map_err(fail)?;
    let mut size = rows.len() as u64;
    let mut write_rows = |rows: &mut Vec<Row>| {
        let batch = batch(rows).map_err(|error| damaged(error.to_string()))?;
        writer.write(&batch).map_err(fail)?;
        size += rows.len() as u64;
        rows.clear();
        Ok::<(), LogError>(())
    };
    rows.clear();
    files(&mut |add| {
        rows.push(Row::Add(add));
        if rows.len() == BATCH_ROWS {
            write_rows(&mut rows)
        } else {
            Ok(())
        }
    })?;
    write_rows(&mut rows)?;
    let bytes = writer.into_inner().map_err(fail)?;
    let sha256 = Sha256::of(&bytes);
    Ok(Encoded {
        bytes,
        rows: size,
        sha256,
    })
}

/// Writes a checkpoint and points to it. `false`: there is one with other bytes, by another writer or
/// another version of this program; nobody vouches for it, and a later version gets one of ours.
pub(super) fn write(
    store: &dyn Store,
    table: Table,
    version: u64,
    encoded: &Encoded,
) -> Result<bool, LogError> {
    let path = checkpoint_path(table, version);
    if store.put_if_absent(&path, &encoded.bytes)? == Put::Exists
        && of_object(store, &path)? != encoded.sha256
    {
        return Ok(false);
    }
    point_to(store, table, version, encoded.rows)?;
    Ok(true)
}

/// Has readers find a checkpoint that is there.
///
/// - `rows`: what it holds.
fn point_to(store: &dyn Store, table: Table, version: u64, rows: u64) -> Result<(), LogError> {
    let hint = Hint {
        version,
        size: rows,
        parts: None,
    };
    let hint = serde_json::to_vec(&hint).expect("a hint is plain JSON");
    Ok(store.replace(&Hint::path(table), &hint)?)
}

/// Has readers find a checkpoint that is there, and nothing points to.
///
/// # Errors
/// [`LogError`].
pub(crate) fn find_again(store: &dyn Store, table: Table, version: u64) -> Result<(), LogError> {
    let mut rows = 0;
    read::<LogError>(store, table, version, "txn", |columns, _| {
        rows += columns.rows() as u64;
        Ok(())
    })?;
    point_to(store, table, version, rows)
}

/// Every application in a checkpoint and its version.
pub(crate) fn read_txns(
    store: &dyn Store,
    table: Table,
    version: u64,
) -> Result<Vec<(String, u64)>, LogError> {
    let mut txns = Vec::new();
    read::<LogError>(store, table, version, "txn", |columns, txn| {
        let (apps, versions) = (
            field_text(columns, txn, "appId")?,
            field_long(columns, txn, "version")?,
        );
        for row in (0..txn.len()).filter(|row| txn.is_valid(*row)) {
            if let (Some(app), Some(mark)) = (text(apps, row), cell(versions, row)) {
                txns.push((app.to_owned(), mark.cast_unsigned()));
            }
        }
        Ok(())
    })?;
    Ok(txns)
}

/// Visits the files in a checkpoint.
pub(crate) fn files<E: From<LogError>>(
    store: &dyn Store,
    table: Table,
    version: u64,
    mut visit: impl FnMut(Add) -> Result<(), E>,
) -> Result<(), E> {
    read(store, table, version, "add", |columns, add| {
        let wrong = |name: &str| -> E { unreadable(columns.wrong(name)).into() };
        let paths = field_text(columns, add, "path")?;
        let sizes = field_long(columns, add, "size")?;
        let modified = field_long(columns, add, "modificationTime")?;
        let stats = field_text(columns, add, "stats")?;
        let partitions = add
            .column_by_name("partitionValues")
            .and_then(|a| a.as_map_opt());
        let partitions = partitions.ok_or_else(|| wrong("add.partitionValues"))?;
        let tags = add.column_by_name("tags").and_then(|a| a.as_map_opt());
        let tags = tags.ok_or_else(|| wrong("add.tags"))?;
        for row in (0..add.len()).filter(|row| add.is_valid(*row)) {
            let dt = map_value(partitions, row, "dt").map_err(wrong)?;
            let hash = map_value(tags, row, SHA256_TAG).map_err(wrong)?;
            visit(Add {
                path: text(paths, row).unwrap_or_default().to_owned(),
                dt: dt.unwrap_or_default().to_owned(),
                bytes: cell(sizes, row).unwrap_or_default().cast_unsigned(),
                modified_ms: cell(modified, row).unwrap_or_default(),
                stats: text(stats, row).unwrap_or_default().to_owned(),
                sha256: hash.and_then(|hash| hash.parse().ok()),
            })?;
        }
        Ok(())
    })
}

/// The text under `key` in a map of texts; the error is the column's name.
fn map_value(map: &MapArray, row: usize, key: &str) -> Result<Option<String>, &'static str> {
    if map.is_null(row) {
        return Ok(None);
    }
    let entries = map.value(row);
    let keys = entries.column(0).as_string_opt::<i32>();
    let values = entries.column(1).as_string_opt::<i32>();
    let (keys, values) = keys.zip(values).ok_or("a map in add")?;
    let place = (0..keys.len()).find(|at| keys.value(*at) == key);
    Ok(place.and_then(|at| text(values, at)).map(str::to_owned))
}

/// Reads one column of actions.
fn read<E: From<LogError>>(
    store: &dyn Store,
    table: Table,
    version: u64,
    action: &str,
    mut visit: impl FnMut(&Columns, &StructArray) -> Result<(), E>,
) -> Result<(), E> {
    let mut reader =
        Reader::open(store, &checkpoint_path(table, version), &[action]).map_err(unreadable)?;
    while let Some(columns) = reader.next_batch().map_err(unreadable)? {
        let array = columns.array(action).and_then(|a| a.as_struct_opt());
        let array = array.ok_or_else(|| unreadable(columns.wrong(action)))?;
        visit(&columns, array)?;
    }
    Ok(())
}

fn unreadable(error: ReadError) -> LogError {
    match error {
        ReadError::Store(error) => LogError::Store(error),
        ReadError::Damaged { path, source } => LogError::Damaged {
            path,
            what: source.to_string(),
        },
        ReadError::Column { path, column } => LogError::Damaged {
            path,
            what: format!("column {column} is missing or of another type"),
        },
    }
}

fn field_text<'a>(
    columns: &Columns,
    of: &'a StructArray,
    name: &str,
) -> Result<&'a StringArray, LogError> {
    let array = of.column_by_name(name).and_then(|a| a.as_string_opt());
    array.ok_or_else(|| unreadable(columns.wrong(name)))
}

fn field_long<'a>(
    columns: &Columns,
    of: &'a StructArray,
    name: &str,
) -> Result<&'a Int64Array, LogError> {
    let array = of
        .column_by_name(name)
        .and_then(|a| a.as_primitive_opt::<Int64Type>());
    array.ok_or_else(|| unreadable(columns.wrong(name)))
}

/// The rows as columns: one struct per action, null where a row is another action.
fn batch(rows: &[Row]) -> Result<RecordBatch, ArrowError> {
    let columns = [
        ("txn", txns(rows)?),
        ("add", adds(rows)?),
        ("remove", removes(rows)?),
        ("metaData", metadata(rows)?),
        ("protocol", protocol(rows)?),
    ];
    let fields: Vec<_> = columns
        .iter()
        .map(|(name, c)| Field::new(*name, c.data_type().clone(), true))
        .collect();
    let arrays = columns
        .into_iter()
        .map(|(_, array)| Arc::new(array) as ArrayRef)
        .collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
}

/// A struct column of nullable fields, null where `present` says so.
fn structs(columns: Vec<(&str, ArrayRef)>, present: Vec<bool>) -> Result<StructArray, ArrowError> {
    let fields: Fields = columns
        .iter()
        .map(|(name, c)| Field::new(*name, c.data_type().clone(), true))
        .collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    StructArray::try_new(fields, arrays, Some(NullBuffer::from(present)))
}

fn txns(rows: &[Row]) -> Result<StructArray, ArrowError> {
    let txn = |row: &Row| match row {
        Row::Txn(app, mark) => Some((app.clone(), mark.cast_signed())),
        Row::Protocol | Row::MetaData(_) | Row::Add(_) => None,
    };
    let apps: StringArray = rows
        .iter()
        .map(|row| txn(row).map(|(app, _)| app))
        .collect();
    let marks: Int64Array = rows
        .iter()
        .map(|row| txn(row).map(|(_, mark)| mark))
        .collect();
    let present = rows.iter().map(|row| txn(row).is_some()).collect();
    let updated = Int64Array::new_null(rows.len());
    structs(
        vec![
            ("appId", Arc::new(apps)),
            ("version", Arc::new(marks)),
            ("lastUpdated", Arc::new(updated)),
        ],
        present,
    )
}

fn adds(rows: &[Row]) -> Result<StructArray, ArrowError> {
    let add = |row: &'_ Row| -> Option<Add> {
        match row {
            Row::Add(add) => Some(add.clone()),
            Row::Protocol | Row::MetaData(_) | Row::Txn(..) => None,
        }
    };
    let adds: Vec<Option<Add>> = rows.iter().map(add).collect();
    let all = || adds.iter().map(Option::as_ref);
    let paths: StringArray = all().map(|a| a.map(|a| a.path.as_str())).collect();
    let sizes: Int64Array = all().map(|a| a.map(|a| a.bytes.cast_signed())).collect();
    let modified: Int64Array = all().map(|a| a.map(|a| a.modified_ms)).collect();
    let changes: BooleanArray = all().map(|a| a.map(|_| true)).collect();
    let stats: StringArray = all().map(|a| a.map(|a| a.stats.as_str())).collect();
    let partitions = maps(all().map(|a| a.map(|a| vec![("dt", a.dt.as_str())])))?;
    let tag = |add: &Add| Some(vec![(SHA256_TAG, add.sha256?.to_string())]);
    let tags = maps(all().map(|add| add.and_then(tag)))?;
    structs(
        vec![
            ("path", Arc::new(paths)),
            ("partitionValues", partitions),
            ("size", Arc::new(sizes)),
            ("modificationTime", Arc::new(modified)),
            ("dataChange", Arc::new(changes)),
            ("stats", Arc::new(stats)),
            ("tags", tags),
        ],
        all().map(|a| a.is_some()).collect(),
    )
}

/// Removed files are deleted at once, so that no tombstone is worth keeping; readers want the
/// column nevertheless.
fn removes(rows: &[Row]) -> Result<StructArray, ArrowError> {
    structs(
        vec![
            ("path", Arc::new(StringArray::new_null(rows.len()))),
            (
                "deletionTimestamp",
                Arc::new(Int64Array::new_null(rows.len())),
            ),
            ("dataChange", Arc::new(BooleanArray::new_null(rows.len()))),
        ],
        vec![false; rows.len()],
    )
}

fn metadata(rows: &[Row]) -> Result<StructArray, ArrowError> {
    let table = |row: &Row| match row {
        Row::MetaData(table) => Some(*table),
        Row::Protocol | Row::Txn(..) | Row::Add(_) => None,
    };
    let all = || rows.iter().map(table);
    let texts = |of: fn(Table) -> String| -> ArrayRef {
        Arc::new(all().map(|table| table.map(of)).collect::<StringArray>())
    };
    let present = || all().map(|table| table.is_some()).collect::<Vec<_>>();
    let empty = || maps(all().map(|table| table.map(|_| Vec::<(&str, &str)>::new())));
    let format = structs(
        vec![
            ("provider", texts(|_| "parquet".to_owned())),
            ("options", empty()?),
        ],
        present(),
    )?;
    let element = Field::new("element", arrow_schema::DataType::Utf8, true);
    let mut partitions = ListBuilder::new(StringBuilder::new()).with_field(element);
    for table in all() {
        if table.is_some() {
            partitions.values().append_value("dt");
        }
        partitions.append(table.is_some());
    }
    structs(
        vec![
            ("id", texts(table_id)),
            ("name", texts(|table| table.name().to_owned())),
            ("description", texts(|table| table.doc().to_owned())),
            ("format", Arc::new(format)),
            ("schemaString", texts(schema_string)),
            ("partitionColumns", Arc::new(partitions.finish())),
            ("configuration", empty()?),
            ("createdTime", Arc::new(Int64Array::new_null(rows.len()))),
        ],
        present(),
    )
}

fn protocol(rows: &[Row]) -> Result<StructArray, ArrowError> {
    let present: Vec<bool> = rows
        .iter()
        .map(|row| matches!(row, Row::Protocol))
        .collect();
    let versions = |version: i32| -> ArrayRef {
        Arc::new(
            present
                .iter()
                .map(|is| is.then_some(version))
                .collect::<Int32Array>(),
        )
    };
    structs(
        vec![
            ("minReaderVersion", versions(1)),
            ("minWriterVersion", versions(2)),
        ],
        present.clone(),
    )
}

fn maps<'a, T: AsRef<str>>(
    rows: impl Iterator<Item = Option<Vec<(&'a str, T)>>>,
) -> Result<ArrayRef, ArrowError> {
    let names = MapFieldNames {
        entry: "key_value".into(),
        key: "key".into(),
        value: "value".into(),
    };
    let mut builder = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
    for row in rows {
        let present = row.is_some();
        for (key, value) in row.into_iter().flatten() {
            builder.keys().append_value(key);
            builder.values().append_value(value);
        }
        builder.append(present)?;
    }
    Ok(Arc::new(builder.finish()))
}
