//! Core: is every byte of a lake what was written, and does every file keep what the lake promises its
//! readers?
//!
//! Checked per file that the log names: its size and its hash; the columns with their order, types and
//! nullability; the encodings and the compression; the declared sort, and that the rows keep it;
//! that each row's UTC date is its `dt`; the stats in the log; the constant `created_by`. Then the
//! bytes of the logs, from the head back; owner, head, marks, catalog and schemas by their own hashes;
//! whether owner, head and marks agree with the logs, and which files no commit names.

mod chain;
mod state;

use std::collections::{BTreeMap, HashSet};

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use parquet::basic::{Compression, Encoding as PageEncoding};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde::Serialize;

use crate::date::{date_text, day_of};
use crate::delta::{Add, Log, LogError, Tally, log_dir};
pub use crate::faults::Fault;
use crate::faults::{Faults, MAX_FAULTS, check_file, words};
use crate::head::load_readable;
use crate::parquet::{CREATED_BY, TINY_ROWS};
use crate::read::{Chunks, Columns, Reader, text};
use crate::schema::{Encoding, Table};
use crate::store::Store;

/// What [`guard`] found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Guarded {
    /// Files that were read.
    pub files: u64,
    /// Their rows.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Broken promises, the first [`MAX_FAULTS`].
    pub faults: Vec<Fault>,
    /// Broken promises in all.
    pub fault_count: u64,
    /// Files that an earlier owner published and that no commit can name any more, as many.
    /// No fault: readers of the log never see them. Readers who list folders do; such a file may be
    /// moved away.
    pub orphans: Vec<String>,
    /// Those in all.
    pub orphan_count: u64,
}

impl Guarded {
    fn fault(&mut self, path: &str, what: impl Into<String>) {
        self.fault_count += 1;
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(Fault {
                path: path.to_owned(),
                what: what.into(),
            });
        }
    }

    fn orphan(&mut self, path: &str) {
        self.orphan_count += 1;
        if self.orphans.len() < MAX_FAULTS {
            self.orphans.push(path.to_owned());
        }
    }
}

/// Checks every file of every table. Whatever is damaged is a fault, and the check goes on.
///
/// # Errors
/// [`LogError`] if the store cannot be reached.
pub fn guard(store: &dyn Store) -> Result<Guarded, LogError> {
    let objects = state::Objects::read(store)?;
    let mut unread = Faults::default();
    let (head, logs) = load_readable(store, Table::ALL, &mut unread)?;
    let mut found = Guarded {
        faults: unread.list,
        fault_count: unread.count,
        ..Guarded::default()
    };
    let mut tallies = BTreeMap::new();
    for log in &logs {
        let (table, mut tally) = (log.table(), Tally::default());
        let mut named = HashSet::new();
        let files = log.files::<LogError>(store, |add| {
            let path = add.full_path(table);
            tally.add(table, &add);
            found.files += 1;
            found.bytes += add.bytes;
            // Of bytes that nobody committed nobody knows what they would make of the reader.
            let checked = check_file(store, table, &add);
            if let Err(what) = checked.and_then(|()| file(store, table, &add, &path, &mut found)) {
                found.fault(&path, what);
            }
            named.insert(path);
            Ok(())
        });
        match files {
            Ok(()) => {
                tallies.insert(table, tally);
                state::strangers(store, log, &named, &mut found)?;
            }
            Err(error) if error.is_outage() => return Err(error),
            Err(error) => found.fault(&log_dir(table), error.to_string()),
        }
    }
    for table in Table::ALL {
        let newest = logs.iter().find(|log| log.table() == table);
        let newest = newest.and_then(Log::version);
        let place = head.as_ref().and_then(|head| head.place(table));
        chain::check(store, table, newest, place, &mut found)?;
    }
    objects.check(store, &logs, &tallies, &mut found)?;
    Ok(found)
}

fn file(
    store: &dyn Store,
    table: Table,
    add: &Add,
    path: &str,
    found: &mut Guarded,
) -> Result<(), String> {
    let object = store.open(path).map_err(|error| words(&error))?;
    if !add.path.contains(&format!("/dt={}/", add.dt)) {
        found.fault(
            path,
            format!("lies in another folder than its dt {}", add.dt),
        );
    }
    let reader = SerializedFileReader::new(Chunks(object)).map_err(|error| error.to_string())?;
    let meta = reader.metadata();
    let encoding = head(table, meta).unwrap_or_else(|what| {
        found.fault(path, what);
        Encoding::Compact
    });
    for what in layout(table, encoding, meta) {
        found.fault(path, what);
    }
    let rows = content(store, table, encoding, add, path)?;
    found.rows += rows;
    let stats = add.parsed_stats(table);
    if stats.rows != rows {
        found.fault(
            path,
            format!("has {rows} rows, the log says {}", stats.rows),
        );
    }
    Ok(())
}

/// Checks the file's own metadata; tells how it says it is laid out.
fn head(table: Table, meta: &ParquetMetaData) -> Result<Encoding, String> {
    let file = meta.file_metadata();
    if file.created_by() != Some(CREATED_BY) {
        return Err(format!("created_by is {:?}", file.created_by()));
    }
    let get = |key: &str| {
        let pairs = file.key_value_metadata().into_iter().flatten();
        pairs
            .filter(|pair| pair.key == key)
            .find_map(|pair| pair.value.as_deref())
    };
    for key in [
        "journal",
        "first_pos",
        "last_pos",
        "schema_version",
        "writer",
    ] {
        if get(&format!("headwater.{key}")).is_none() {
            return Err(format!("metadata lacks headwater.{key}"));
        }
    }
    if get("headwater.table") != Some(table.name()) {
        return Err("metadata names another table".to_owned());
    }
    match get("headwater.encoding") {
        Some("compact") => Ok(Encoding::Compact),
        Some("compat") => Ok(Encoding::Compat),
        other => Err(format!("encoding {other:?} is not known")),
    }
}

/// Checks columns, encodings, compression, declared sort.
fn layout(table: Table, encoding: Encoding, meta: &ParquetMetaData) -> Vec<String> {
    let mut faults = Vec::new();
    let schema = meta.file_metadata().schema_descr();
    let columns = table.columns();
    let names: Vec<_> = schema
        .columns()
        .iter()
        .map(|column| column.name())
        .collect();
    // New columns come at the end, so that an older file has the first ones.
    if !columns
        .iter()
        .map(|c| c.name)
        .take(names.len())
        .eq(names.iter().copied())
    {
        faults.push(format!("columns are {names:?}"));
        return faults;
    }
    match parquet::arrow::parquet_to_arrow_schema(schema, None) {
        Ok(schema) => {
            for (field, column) in schema.fields().iter().zip(columns) {
                if *field.data_type() != column.kind.arrow() {
                    faults.push(format!("{} has type {}", column.name, field.data_type()));
                }
                if field.is_nullable() != column.nullable {
                    faults.push(format!(
                        "{} has nullable {}",
                        column.name,
                        field.is_nullable()
                    ));
                }
            }
        }
        Err(error) => faults.push(error.to_string()),
    }
    let sort = table.sort_columns(encoding);
    for group in meta.row_groups() {
        let declared: Vec<_> = group
            .sorting_columns()
            .into_iter()
            .flatten()
            .filter(|by| !by.descending)
            .filter_map(|by| names.get(usize::try_from(by.column_idx).ok()?).copied())
            .collect();
        if declared != sort {
            faults.push(format!("declares the sort {declared:?}"));
        }
        for column in group.columns() {
            let name = column.column_descr().name();
            for used in column.encodings() {
                if !allowed(used, encoding) {
                    faults.push(format!("{name} is encoded {used}"));
                }
            }
            let tiny = meta.file_metadata().num_rows() < TINY_ROWS.cast_signed() as i64;
            let compression = column.compression();
            let good = matches!(compression, Compression::ZSTD(_))
                || tiny && compression == Compression::UNCOMPRESSED;
            if !good {
                faults.push(format!("{name} is compressed {compression}"));
            }
        }
    }
    faults
}

/// What every reader that was tried reads: Spark's default reader and Redshift set the limits.
fn allowed(used: PageEncoding, encoding: Encoding) -> bool {
    let dictionary = PageEncoding::PLAIN_DICTIONARY;
    [
        PageEncoding::PLAIN,
        PageEncoding::RLE,
        PageEncoding::RLE_DICTIONARY,
        dictionary,
    ]
    .contains(&used)
        || used == PageEncoding::DELTA_BINARY_PACKED && encoding == Encoding::Compact
}

/// Reads the sort columns and the time: order and date of every row. Gives the number of rows.
fn content(
    store: &dyn Store,
    table: Table,
    encoding: Encoding,
    add: &Add,
    path: &str,
) -> Result<u64, String> {
    let sort = table.sort_columns(encoding);
    let mut reader = Reader::open(store, path, sort).map_err(|error| error.to_string())?;
    let stats = add
        .parsed_stats(table)
        .times_us
        .ok_or("the log has no times for it")?;
    let mut rows = 0;
    let mut last: Option<Vec<Key>> = None;
    while let Some(columns) = reader.next_batch().map_err(|error| error.to_string())? {
        for row in 0..columns.rows() {
            let key = sort_key(&columns, sort, row)?;
            for part in &key {
                let Key::Time(time) = *part else { continue };
                let date = date_text(day_of(time));
                if date != add.dt {
                    return Err(format!("row {rows} is of {date}, its dt is {}", add.dt));
                }
                if time < stats.0 || time > stats.1 {
                    return Err(format!("row {rows} lies outside the times in the log"));
                }
            }
            if last.as_ref().is_some_and(|last| *last > key) {
                return Err(format!("row {rows} breaks the declared sort"));
            }
            last = Some(key);
            rows += 1;
        }
    }
    Ok(rows)
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Text(String),
    Time(i64),
}

fn sort_key(columns: &Columns, sort: &[&str], row: usize) -> Result<Vec<Key>, String> {
    let key = |name: &&str| {
        let array = columns.array(name)?;
        if let Some(times) = array.as_primitive_opt::<TimestampMicrosecondType>() {
            return times.is_valid(row).then(|| Key::Time(times.value(row)));
        }
        text(array.as_string_opt()?, row).map(|value| Key::Text(value.to_owned()))
    };
    sort.iter()
        .map(|name| key(name).ok_or_else(|| format!("row {row}: {name} cannot be read")))
        .collect()
}
