//! Core: `catalog.json`, by which a person or a program learns what is in the lake and how to read
//! it: tables, columns, units, ranges, versions.
//!
//! It is rewritten whole and is a summary alone: the logs are the truth. Its last line is the hash of
//! all before (`digest::seal`).

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::date::{date_text, day_of};
use crate::delta::{Log, LogError, Tally};
use crate::digest::{is_sealed, seal};
use crate::schema::{SCHEMA_VERSION, Table};
use crate::store::Store;

/// Where the catalog is.
pub const CATALOG_PATH: &str = "catalog.json";

/// Version of the catalog's own form.
const CATALOG_VERSION: u32 = 2;

/// The catalog of some logs, as JSON. The store is read only after a file was removed.
///
/// # Errors
/// [`LogError`] if the list of files cannot be read.
pub fn catalog(store: &dyn Store, logs: &mut [Log]) -> Result<String, LogError> {
    let tables = logs
        .iter_mut()
        .map(|log| table(store, log))
        .collect::<Result<Vec<_>, _>>()?;
    let catalog = json!({
        "catalog_version": CATALOG_VERSION,
        "schema_version": SCHEMA_VERSION,
        "format": "parquet behind a Delta Lake log; one folder per table, partitioned by dt",
        "times": "microseconds, UTC",
        "units": "table metrics: the newest row per metric and device_type holds",
        "identity": "device_id, lane, epoch, seq, row, metric name one reading, once in the lake",
        "tables": tables,
    });
    Ok(seal(&format!("{catalog:#}")))
}

/// The newest version of each table that a catalog names; nothing if it is damaged.
pub(crate) fn versions(bytes: &[u8]) -> Vec<(Table, u64)> {
    let version = |table: &Value| {
        let name = table["name"].as_str()?;
        Some((Table::from_name(name)?, table["version"].as_u64()?))
    };
    tables_of(bytes).iter().filter_map(version).collect()
}

/// The last position of each journal in each table that a catalog names; nothing if it is damaged.
pub(crate) fn positions(bytes: &[u8]) -> HashMap<(Table, String), u64> {
    let mut positions = HashMap::new();
    for table in &tables_of(bytes) {
        let named = table["name"].as_str().and_then(Table::from_name);
        let marks = table["positions"].as_object().into_iter().flatten();
        for (app, mark) in marks {
            if let Some((table, mark)) = named.zip(mark.as_u64()) {
                positions.insert((table, app.clone()), mark);
            }
        }
    }
    positions
}

fn tables_of(bytes: &[u8]) -> Vec<Value> {
    let catalog = is_sealed(bytes).then(|| serde_json::from_slice::<Value>(bytes).ok());
    let mut catalog = catalog.flatten().unwrap_or_default();
    catalog["tables"]
        .as_array_mut()
        .map(std::mem::take)
        .unwrap_or_default()
}

fn table(store: &dyn Store, log: &mut Log) -> Result<Value, LogError> {
    let table = log.table();
    let Tally {
        files,
        bytes,
        rows,
        times_us: times,
    } = log.tally(store)?;
    let columns: Vec<_> = table
        .columns()
        .iter()
        .map(|c| {
            json!({"name": c.name, "type": c.kind.delta(), "nullable": c.nullable, "doc": c.doc})
        })
        .collect();
    let name = table.name();
    let marks: serde_json::Map<_, _> = log
        .marks()
        .map(|(app, mark)| (app.to_owned(), Value::from(mark)))
        .collect();
    Ok(json!({
        "name": name,
        "doc": table.doc(),
        "path": name,
        "glob": format!("{name}/hot/dt=*/*.parquet"),
        "partition": {"column": "dt", "type": "date", "of": table.time_column()},
        "columns": columns,
        "version": log.version(),
        "positions": marks,
        "files": files,
        "bytes": bytes,
        "rows": rows,
        "time_column": table.time_column(),
        "first_day": times.map(|(lo, _)| date_text(day_of(lo))),
        "last_day": times.map(|(_, hi)| date_text(day_of(hi))),
        "time_range_us": times.map(|(lo, hi)| [lo, hi]),
    }))
}
