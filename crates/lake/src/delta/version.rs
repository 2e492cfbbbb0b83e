//! Core: the bytes of one version of a log, and what they say.
//!
//! One JSON object a line. Beside the actions of the protocol, `txn` carries what this crate keeps:
//!
//! | `appId` | `version` |
//! |---|---|
//! | `<journal>` | the last position of that journal that the table has: its mark |
//! | `<journal>/<sink>` | the first position that another sink of that journal had not finished |
//! | `headwater-term` | the term of the lake's owner: no commit of a lower one follows |
//! | `prune`, `replay` | the number of the last run of that command |
//!
//! Tags, which other readers pass over, carry hashes: of its file in each `add`, of the version before
//! and of the newest checkpoint in `commitInfo`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::LogError;
use crate::plan::Sha256;
use crate::schema::Table;
use crate::store::{Store, StoreError};

/// Under this name a log keeps the term of the lake's owner.
pub(crate) const TERM_APP: &str = "headwater-term";

/// Tag of an `add` with the SHA-256 of the file's bytes, in hexadecimal digits.
pub(crate) const SHA256_TAG: &str = "headwater.sha256";

/// Tags of a `commitInfo`: the SHA-256 of the version before, and version and SHA-256 of the newest
/// checkpoint. So the newest version, whose hash is in the lake's head, vouches for all before it.
const PREVIOUS_TAG: &str = "headwater.previous.sha256";
const CHECKPOINT_TAG: &str = "headwater.checkpoint";
const CHECKPOINT_SHA256_TAG: &str = "headwater.checkpoint.sha256";

/// What a version says of the bytes of other objects of its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Chain {
    /// Hash of the version before; `None` in the first.
    pub(crate) previous: Option<Sha256>,
    /// Version and hash of the newest checkpoint.
    pub(crate) checkpoint: Option<(u64, Sha256)>,
}

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
    /// Hash of its bytes: the tag `SHA256_TAG`. `None`: its writer was none of this program.
    pub sha256: Option<Sha256>,
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
    /// Marks and other numbers: application, its version.
    pub txns: Vec<(String, u64)>,
}

impl Chain {
    fn tags(&self) -> Map<String, Value> {
        let mut tags = Map::new();
        let mut tag = |key: &str, value: String| tags.insert(key.to_owned(), value.into());
        if let Some(previous) = self.previous {
            tag(PREVIOUS_TAG, previous.to_string());
        }
        if let Some((version, hash)) = self.checkpoint {
            tag(CHECKPOINT_TAG, version.to_string());
            tag(CHECKPOINT_SHA256_TAG, hash.to_string());
        }
        tags
    }

    /// What the bytes of a version say; nothing if they are not ours.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let info = info_of(bytes);
        let tag = |key: &str| info.as_ref()?.get("tags")?.get(key)?.as_str();
        let hash = |key: &str| tag(key)?.parse().ok();
        let version = tag(CHECKPOINT_TAG).and_then(|version| version.parse().ok());
        Self {
            previous: hash(PREVIOUS_TAG),
            checkpoint: version.zip(hash(CHECKPOINT_SHA256_TAG)),
        }
    }
}

impl Add {
    /// Its path from the root of the lake.
    pub(crate) fn full_path(&self, table: Table) -> String {
        format!("{}/{}", table.name(), self.path)
    }

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

pub(crate) fn version_path(table: Table, version: u64) -> String {
    format!("{}/{version:020}.json", log_dir(table))
}

/// The newest version of a table's log that its folder lists.
pub(crate) fn newest_listed(store: &dyn Store, table: Table) -> Result<Option<u64>, StoreError> {
    let listed = store.list(&log_dir(table))?;
    let number = |path: &str| path.rsplit('/').next()?.strip_suffix(".json")?.parse().ok();
    Ok(listed.iter().filter_map(|entry| number(&entry.path)).max())
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

pub(crate) fn metadata(table: Table) -> Value {
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

/// The bytes of version 0, which creates a table.
pub(crate) fn creation_text(table: Table, actions: &Actions, at_us: i64) -> String {
    let mut text = format!("{}\n{}\n", protocol(), metadata(table));
    if !actions.txns.is_empty() {
        text.push_str(&actions_text(actions, at_us, &Chain::default()));
    }
    text
}

/// When a version was committed, Unix ms; `None` if its bytes do not say.
pub(crate) fn timestamp_ms(bytes: &[u8]) -> Option<i64> {
    info_of(bytes)?.get("timestamp")?.as_i64()
}

fn info_of(bytes: &[u8]) -> Option<Value> {
    let lines = bytes.split(|byte| *byte == b'\n');
    let mut objects = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    objects.find_map(|mut object| Some(object.get_mut("commitInfo")?.take()))
}

pub(crate) fn actions_text(actions: &Actions, at_us: i64, chain: &Chain) -> String {
    let at_ms = at_us.div_euclid(1_000);
    let mut text = String::new();
    let mut line = |value: Value| {
        text.push_str(&value.to_string());
        text.push('\n');
    };
    let operation = match (actions.adds.is_empty(), actions.removes.is_empty()) {
        (true, true) => "SET TRANSACTION",
        (false, _) => "WRITE",
        (true, false) => "DELETE",
    };
    let mut info = json!({
        "timestamp": at_ms, "operation": operation, "engineInfo": crate::parquet::CREATED_BY,
    });
    let tags = chain.tags();
    if !tags.is_empty() {
        info["tags"] = Value::Object(tags);
    }
    line(json!({"commitInfo": info}));
    for (app, mark) in &actions.txns {
        line(json!({"txn": {"appId": app, "version": mark}}));
    }
    for path in &actions.removes {
        line(json!({"remove": {"path": path, "deletionTimestamp": at_ms, "dataChange": true}}));
    }
    for add in &actions.adds {
        let mut fields = json!({
            "path": add.path,
            "partitionValues": {"dt": add.dt},
            "size": add.bytes,
            "modificationTime": add.modified_ms,
            "dataChange": true,
            "stats": add.stats,
        });
        if let Some(hash) = add.sha256 {
            fields["tags"] = json!({SHA256_TAG: hash.to_string()});
        }
        line(json!({"add": fields}));
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
    tags: Option<BTreeMap<String, Option<String>>>,
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

/// The actions of a version and the hash of its bytes; `None` if there is no such version.
pub(crate) fn read_version(
    store: &dyn Store,
    table: Table,
    version: u64,
) -> Result<Option<(Actions, Sha256)>, LogError> {
    let path = version_path(table, version);
    let Some(bytes) = store.find(&path)? else {
        return Ok(None);
    };
    let actions = parse(path, &bytes)?;
    Ok(Some((actions, Sha256::of(&bytes))))
}

fn hash_of(tags: Option<BTreeMap<String, Option<String>>>) -> Option<Sha256> {
    tags?.remove(SHA256_TAG)??.parse().ok()
}

/// The actions of a version.
///
/// # Errors
/// [`LogError::Damaged`], [`LogError::Protocol`].
pub(crate) fn parse(path: String, bytes: &[u8]) -> Result<Actions, LogError> {
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
                sha256: hash_of(add.tags),
            });
        }
        actions
            .removes
            .extend(line.remove.map(|remove| remove.path));
        actions
            .txns
            .extend(line.txn.map(|txn| (txn.app_id, txn.version)));
    }
    Ok(actions)
}
