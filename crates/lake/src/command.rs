//! Core: files that an operator's command writes beside the owner, who may go on meanwhile.
//!
//! A command is an application of the logs under a name of its own: its mark is the number of its last run,
//! and its files bear both, so that what a crash left without a commit can be told.

use std::collections::HashSet;

use crate::date::date_text;
use crate::delta::{Add, Log, stats_text};
use crate::error::LakeError;
use crate::files::for_each_file;
use crate::parquet::Origin;
use crate::paths::{FileName, HOT_DIR, stem};
use crate::plan::Sha256;
use crate::rows::Rows;
use crate::schema::{Encoding, Table};
use crate::store::{Put, Store};

/// One run of a command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// The command's name in the logs.
    pub(crate) writer: &'static str,
    /// Its number.
    pub(crate) number: u64,
    /// When it is made.
    pub(crate) now_us: i64,
}

impl Run {
    /// What a commit of it says beside its files.
    pub(crate) fn txns(&self) -> Vec<(String, u64)> {
        vec![(self.writer.to_owned(), self.number)]
    }

    /// Writes the files of `rows` under their final names. They belong to no table before a commit.
    ///
    /// # Errors
    /// [`LakeError`].
    pub(crate) fn write(
        &self,
        store: &dyn Store,
        rows: &Rows,
        encoding: Encoding,
    ) -> Result<Vec<(Table, Add)>, LakeError> {
        let Self {
            writer,
            number,
            now_us,
        } = *self;
        let origin = Origin {
            writer,
            first_pos: number,
            last_pos: number,
        };
        let mut adds = Vec::new();
        for_each_file::<LakeError>(rows, encoding, origin, |file| {
            let name = stem(writer, number, number);
            let path = format!("{HOT_DIR}/dt={}/{name}-0.parquet", date_text(file.day));
            let full = format!("{}/{path}", file.table.name());
            if store.put_if_absent(&full, &file.bytes)? == Put::Exists {
                // Left by a run that was cut off before its commit.
                store.delete(&full)?;
                store.put_if_absent(&full, &file.bytes)?;
            }
            let keys = (file.keys.0.as_str(), file.keys.1.as_str());
            let add = Add {
                path,
                dt: date_text(file.day),
                bytes: file.bytes.len() as u64,
                modified_ms: now_us.div_euclid(1_000),
                stats: stats_text(file.table, file.rows, file.times_us, keys),
                sha256: Some(Sha256::of(&file.bytes)),
            };
            adds.push((file.table, add));
            Ok(())
        })?;
        Ok(adds)
    }
}

/// Deletes the files of a command in the folder of a table that the table's log does not name: left by runs
/// that were cut off, or brought back by a power cut. One run at a time.
///
/// # Errors
/// [`LakeError`].
pub(crate) fn delete_unnamed(store: &dyn Store, log: &Log, writer: &str) -> Result<(), LakeError> {
    let is_own = |path: &str| FileName::parse(path).is_some_and(|name| name.writer == writer);
    let mut named = HashSet::new();
    log.files::<LakeError>(store, |add| {
        if is_own(&add.path) {
            named.insert(add.full_path(log.table()));
        }
        Ok(())
    })?;
    for entry in store.list(&format!("{}/{HOT_DIR}", log.table().name()))? {
        if is_own(&entry.path) && !named.contains(&entry.path) {
            store.delete(&entry.path)?;
        }
    }
    Ok(())
}
