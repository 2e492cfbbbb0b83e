//! The commit log of a table, in the format of Delta Lake (reader version 1, writer version 2).
//!
//! A version is one JSON file of actions below `_delta_log`, created only if absent, so that two
//! writers never both get it: the loser reads what the winner wrote and takes the next version.
//! Appends never conflict otherwise. `txn(journal, last position)` in the same version makes a
//! repeated commit recognisable: exactly once.
//!
//! Only the newest version, the marks of the journals and the place of the newest checkpoint stay
//! in memory; the list of files is read from the store when someone needs it.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::checkpoint;
use crate::plan::Sha256;
use crate::schema::Table;
use crate::store::{Put, Store, StoreError};

/// Versions between two checkpoints: what a reader must replay at most.
pub const CHECKPOINT_VERSIONS: u64 = 100;

/// Versions that a commit tries at most: so many other writers may be quicker in a row.
const COMMIT_ATTEMPTS: u32 = 1_000;

/// A file that became part of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Add {
    /// Its path within the table's folder.
    pub path: String,
    /// Its partition, `YYYY-MM-DD`.
    pub dt: String,
    /// Its size.
    pub bytes: u64,
    /// When it was made, milliseconds since the Unix epoch.
    pub modified_ms: i64,
    /// JSON object with `numRecords`, `minValues`, `maxValues`, `nullCount`.
    pub stats: String,
}

/// What [`Add::stats`] says of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Rows of the file.
    pub rows: u64,
    /// Smallest and greatest time, microseconds since the Unix epoch, outward to milliseconds.
    pub times_us: Option<(i64, i64)>,
}

/// What a version of a log did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Actions {
    /// Files that joined.
    pub adds: Vec<Add>,
    /// Paths of files that left.
    pub removes: Vec<String>,
    /// Marks: application, its version.
    pub txns: Vec<(String, u64)>,
}

/// What a commit did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// It is this version.
    Now(u64),
    /// Its mark was there already.
    Before,
}

/// Why a log could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A version or checkpoint is not what this crate or another Delta writer makes.
    #[error("{path} cannot be read: {what}")]
    Damaged {
        /// The object.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// The table asks for features that this crate does not know.
    #[error("{path} asks for reader {reader} and writer {writer}, this program has 1 and 2")]
    Protocol {
        /// The object.
        path: String,
        /// Reader version that it asks for.
        reader: i64,
        /// Writer version that it asks for.
        writer: i64,
    },
    /// Others committed a thousand versions while we tried one.
    #[error("{table}: other writers were quicker {COMMIT_ATTEMPTS} times")]
    Crowded {
        /// The table.
        table: &'static str,
    },
}

/// The log of one table.
#[derive(Debug, Clone)]
pub struct Log {
    table: Table,
    /// The newest version known; `None`: the table does not exist yet.
    version: Option<u64>,
    /// Version of the newest checkpoint.
    checkpoint: Option<u64>,
    marks: BTreeMap<String, u64>,
    /// Whose mark is the newest; a checkpoint of several does not tell.
    newest: Option<String>,
}

impl Log {
    /// Reads the log of a table: the newest checkpoint, then the versions after it.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn load(store: &dyn Store, table: Table) -> Result<Self, LogError> {
        let mut log = Self {
            table,
            version: None,
            checkpoint: None,
            marks: BTreeMap::new(),
            newest: None,
        };
        if let Some(version) = checkpoint::newest(store, table)? {
            log.marks = checkpoint::marks(store, table, version)?
                .into_iter()
                .collect();
            if log.marks.len() == 1 {
                log.newest = log.marks.keys().next().cloned();
            }
            log.version = Some(version);
            log.checkpoint = Some(version);
        }
        log.refresh(store)?;
        Ok(log)
    }

    /// Reads the versions that others wrote since.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn refresh(&mut self, store: &dyn Store) -> Result<(), LogError> {
        while let Some(actions) = read_version(store, self.table, self.next())? {
            self.took(self.next(), &actions);
        }
        Ok(())
    }

    /// The table.
    #[must_use]
    pub const fn table(&self) -> Table {
        self.table
    }

    /// The newest version known; `None`: the table does not exist yet.
    #[must_use]
    pub const fn version(&self) -> Option<u64> {
        self.version
    }

    /// The mark of an application: the last position that it committed.
    #[must_use]
    pub fn mark(&self, app: &str) -> Option<u64> {
        self.marks.get(app).copied()
    }

    /// All marks.
    pub fn marks(&self) -> impl Iterator<Item = (&str, u64)> {
        self.marks.iter().map(|(app, mark)| (app.as_str(), *mark))
    }

    /// Whether `app` is known to have set the newest mark, or nobody has set one.
    #[must_use]
    pub fn is_newest(&self, app: &str) -> bool {
        self.marks.is_empty() || self.newest.as_deref() == Some(app)
    }

    /// Creates the table, unless it exists.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn create(&mut self, store: &dyn Store) -> Result<(), LogError> {
        if self.version.is_some() {
            return Ok(());
        }
        let text = format!("{}\n{}\n", protocol(), metadata(self.table));
        match store.put_if_absent(&version_path(self.table, 0), text.as_bytes())? {
            Put::Created => self.version = Some(0),
            Put::Exists => self.refresh(store)?,
        }
        Ok(())
    }

    /// Commits `actions` as the next version, unless one of their marks is reached already.
    /// After an error the same call may be repeated: it finds out what happened.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn commit(
        &mut self,
        store: &dyn Store,
        actions: &Actions,
        at_us: i64,
    ) -> Result<Committed, LogError> {
        let text = actions_text(actions, at_us);
        for _ in 0..COMMIT_ATTEMPTS {
            self.create(store)?;
            let reached = |(app, mark): &(String, u64)| self.mark(app).is_some_and(|m| m >= *mark);
            if actions.txns.iter().any(reached) {
                return Ok(Committed::Before);
            }
            let version = self.next();
            match store.put_if_absent(&version_path(self.table, version), text.as_bytes())? {
                Put::Created => {
                    self.took(version, actions);
                    return Ok(Committed::Now(version));
                }
                // Another writer, or we ourselves and the answer was lost.
                Put::Exists => self.refresh(store)?,
            }
        }
        Err(LogError::Crowded {
            table: self.table.name(),
        })
    }

    /// Writes a checkpoint if `versions` versions came since the last one; by default
    /// [`CHECKPOINT_VERSIONS`].
    ///
    /// # Errors
    /// [`LogError`]; the table is whole all the same, and the next call tries again.
    pub fn checkpoint_if_due(
        &mut self,
        store: &dyn Store,
        versions: u64,
    ) -> Result<bool, LogError> {
        let Some(version) = self.version else {
            return Ok(false);
        };
        if version - self.checkpoint.unwrap_or(0) < versions {
            return Ok(false);
        }
        checkpoint::write(store, self, version)?;
        self.checkpoint = Some(version);
        Ok(true)
    }

    /// Visits the files of the table as of the version known, oldest first. Memory: what was
    /// removed since the last checkpoint, and the adds of one version.
    ///
    /// # Errors
    /// [`LogError`], or the visitor's.
    pub fn files<E: From<LogError>>(
        &self,
        store: &dyn Store,
        mut visit: impl FnMut(Add) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(newest) = self.version else {
            return Ok(());
        };
        let start = self.checkpoint.map_or(0, |version| version + 1);
        let mut removed = HashSet::new();
        for version in start..=newest {
            let actions = expect_version(store, self.table, version)?;
            removed.extend(actions.removes);
        }
        if let Some(version) = self.checkpoint {
            checkpoint::files(store, self.table, version, |add| {
                if removed.contains(&add.path) {
                    Ok(())
                } else {
                    visit(add)
                }
            })?;
        }
        for version in start..=newest {
            for add in expect_version(store, self.table, version)?.adds {
                // A path is added once: its name tells the positions that it holds.
                if !removed.contains(&add.path) {
                    visit(add)?;
                }
            }
        }
        Ok(())
    }

    fn next(&self) -> u64 {
        self.version.map_or(0, |version| version + 1)
    }

    fn took(&mut self, version: u64, actions: &Actions) {
        self.version = Some(version);
        for (app, mark) in &actions.txns {
            let known = self.marks.entry(app.clone()).or_default();
            *known = (*known).max(*mark);
            if self.newest.as_ref() != Some(app) {
                self.newest = Some(app.clone());
            }
        }
    }
}

impl Add {
    /// What the stats say; nothing if they are not ours.
    #[must_use]
    pub fn parsed_stats(&self, table: Table) -> Stats {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Raw {
            num_records: u64,
            #[serde(default)]
            min_values: Map<String, Value>,
            #[serde(default)]
            max_values: Map<String, Value>,
        }
        let Ok(raw) = serde_json::from_str::<Raw>(&self.stats) else {
            return Stats::default();
        };
        let time = |values: &Map<String, Value>| {
            crate::date::instant_of(values.get(table.time_column()).and_then(Value::as_str)?)
        };
        let times_us = time(&raw.min_values).zip(time(&raw.max_values));
        Stats {
            rows: raw.num_records,
            times_us,
        }
    }
}

/// Stats of a file: rows, and the bounds of its time and of its first sort column. Times are
/// rounded outward to milliseconds, which is all that Delta readers may rely on.
pub(crate) fn stats_text(
    table: Table,
    rows: u64,
    (t_min, t_max): (i64, i64),
    (k_min, k_max): (&str, &str),
) -> String {
    let key = table.columns()[0].name;
    let time = table.time_column();
    let upper = t_max.saturating_add(999);
    json!({
        "numRecords": rows,
        "minValues": { key: k_min, time: time_text(t_min) },
        "maxValues": { key: k_max, time: time_text(upper) },
        "nullCount": { key: 0, time: 0 },
    })
    .to_string()
}

/// `2026-11-22T10:11:12.345Z`, cut to milliseconds.
fn time_text(time_us: i64) -> String {
    let mut text = crate::date::instant_text(time_us);
    text.truncate(text.len() - "000Z".len());
    text.push('Z');
    text
}

/// Folder of a table's log.
pub(crate) fn log_dir(table: Table) -> String {
    format!("{}/_delta_log", table.name())
}

fn version_path(table: Table, version: u64) -> String {
    format!("{}/{version:020}.json", log_dir(table))
}

pub(crate) fn protocol() -> Value {
    json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}})
}

/// Id of a table: it must be unique among the tables of a lake and constant in time.
pub(crate) fn table_id(table: Table) -> String {
    let hash = Sha256::of(format!("headwater table {}", table.name()).as_bytes()).to_string();
    let part = |from: usize, to: usize| hash.get(from..to).unwrap_or_default();
    format!(
        "{}-{}-4{}-8{}-{}",
        part(0, 8),
        part(8, 12),
        part(13, 16),
        part(17, 20),
        part(20, 32)
    )
}

/// The columns in Delta's own notation, partition column last.
pub(crate) fn schema_string(table: Table) -> String {
    let field = |name: &str, kind: &str, nullable: bool| json!({"name": name, "type": kind, "nullable": nullable, "metadata": {}});
    let mut fields: Vec<_> = table
        .columns()
        .iter()
        .map(|c| field(c.name, c.kind.delta(), c.nullable))
        .collect();
    fields.push(field("dt", "date", false));
    json!({"type": "struct", "fields": fields}).to_string()
}

fn metadata(table: Table) -> Value {
    json!({"metaData": {
        "id": table_id(table),
        "name": table.name(),
        "description": table.doc(),
        "format": {"provider": "parquet", "options": {}},
        "schemaString": schema_string(table),
        "partitionColumns": ["dt"],
        "configuration": {},
    }})
}

fn actions_text(actions: &Actions, at_us: i64) -> String {
    let at_ms = at_us.div_euclid(1_000);
    let mut text = String::new();
    let mut line = |value: Value| {
        text.push_str(&value.to_string());
        text.push('\n');
    };
    let operation = if actions.removes.is_empty() {
        "WRITE"
    } else {
        "DELETE"
    };
    line(json!({"commitInfo": {
        "timestamp": at_ms, "operation": operation, "engineInfo": crate::parquet::CREATED_BY,
    }}));
    for (app, mark) in &actions.txns {
        line(json!({"txn": {"appId": app, "version": mark}}));
    }
    for path in &actions.removes {
        line(json!({"remove": {"path": path, "deletionTimestamp": at_ms, "dataChange": true}}));
    }
    for add in &actions.adds {
        line(json!({"add": {
            "path": add.path,
            "partitionValues": {"dt": add.dt},
            "size": add.bytes,
            "modificationTime": add.modified_ms,
            "dataChange": true,
            "stats": add.stats,
        }}));
    }
    text
}

/// One line of a version, as far as this crate cares.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct RawLine {
    add: Option<RawAdd>,
    remove: Option<RawRemove>,
    txn: Option<RawTxn>,
    protocol: Option<RawProtocol>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct RawAdd {
    path: String,
    partition_values: BTreeMap<String, Option<String>>,
    size: u64,
    modification_time: i64,
    stats: Option<String>,
}

#[derive(Deserialize, Serialize)]
struct RawRemove {
    path: String,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct RawTxn {
    app_id: String,
    version: u64,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct RawProtocol {
    min_reader_version: i64,
    min_writer_version: i64,
}

fn expect_version(store: &dyn Store, table: Table, version: u64) -> Result<Actions, LogError> {
    let path = || version_path(table, version);
    read_version(store, table, version)?
        .ok_or_else(|| LogError::Store(StoreError::Missing { path: path() }))
}

/// The actions of a version; `None` if there is no such version.
fn read_version(
    store: &dyn Store,
    table: Table,
    version: u64,
) -> Result<Option<Actions>, LogError> {
    let path = version_path(table, version);
    let bytes = match store.get(&path) {
        Err(StoreError::Missing { .. }) => return Ok(None),
        other => other?,
    };
    let mut actions = Actions::default();
    for line in bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let line: RawLine = serde_json::from_slice(line).map_err(|error| LogError::Damaged {
            path: path.clone(),
            what: error.to_string(),
        })?;
        if let Some(RawProtocol {
            min_reader_version: reader,
            min_writer_version: writer,
        }) = line.protocol
            && (reader > 1 || writer > 2)
        {
            return Err(LogError::Protocol {
                path,
                reader,
                writer,
            });
        }
        if let Some(mut add) = line.add {
            actions.adds.push(Add {
                path: add.path,
                dt: add
                    .partition_values
                    .remove("dt")
                    .flatten()
                    .unwrap_or_default(),
                bytes: add.size,
                modified_ms: add.modification_time,
                stats: add.stats.unwrap_or_default(),
            });
        }
        actions
            .removes
            .extend(line.remove.map(|remove| remove.path));
        actions
            .txns
            .extend(line.txn.map(|txn| (txn.app_id, txn.version)));
    }
    Ok(Some(actions))
}
