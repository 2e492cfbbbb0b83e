//! Core: the logs of a lake at a start.
//!
//! | what is there | what is done |
//! |---|---|
//! | a head | each log is read from its checkpoint to the head and beyond; nothing is listed |
//! | no head, and no table has an object (one bounded list each) | a new lake |
//! | no head, but tables | each log is listed once; if it is whole the lake is adopted, or refused |
//!
//! A log whose newest versions are lost looks like one that never had them. Without a head, and before the
//! lake goes to another owner, whatever else names those versions is asked: see [`expect_all_versions`].

use std::collections::BTreeMap;

use crate::catalog::{self, CATALOG_PATH};
use crate::delta::{Log, LogError, version_path};
use crate::head::{Head, newest_of};
use crate::marks;
use crate::owner::Claim;
use crate::paths::{FileName, HOT_DIR, MARKS_PATH};
use crate::schema::Table;
use crate::store::Store;

/// What a start found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing: the lake begins.
    New,
    /// A lake with its head.
    Whole,
    /// A lake without a head, or with a damaged one. Its logs are whole.
    Adopted,
}

/// Reads the logs in the order of [`Table::ALL`].
///
/// # Errors
/// [`LogError::Hole`], [`LogError::Altered`] and [`LogError::NoLog`] for a lake that is not as it
/// was left. Nothing is changed then.
pub(super) fn read_logs(
    store: &dyn Store,
    head: Option<&Head>,
) -> Result<(Vec<Log>, Found), LogError> {
    let mut found = head.map_or(Found::New, |_| Found::Whole);
    let mut logs = Vec::with_capacity(Table::ALL.len());
    for table in Table::ALL {
        let log = match head.and_then(|head| head.place(table)) {
            Some(place) => Log::resume(store, table, place)?,
            None if store.list_some(table.name(), 1)?.is_empty() => Log::empty(table),
            None => {
                if head.is_none() {
                    found = Found::Adopted;
                }
                adopt(store, table)?
            }
        };
        logs.push(log);
    }
    Ok((logs, found))
}

/// Reads a log that no head tells of, and makes sure that nothing of it is missing.
fn adopt(store: &dyn Store, table: Table) -> Result<Log, LogError> {
    let Some(newest) = newest_of(store, table)? else {
        return Ok(Log::empty(table));
    };
    let mut log = Log::load(store, table)?;
    if log.next() <= newest {
        return Err(LogError::Hole {
            path: version_path(table, log.next()),
            known: newest,
        });
    }
    log.learn_hashes(store)?;
    Ok(log)
}

/// Makes sure that no newest version of a log is lost, as far as anything is left that tells:
///
/// | what tells | of |
/// |---|---|
/// | the marks, the catalog | the newest version of each log when they were written |
/// | a later table in commit order | a file of the same flush in an earlier one |
/// | the journal that claims the lake | its files below what it knows to be in the lake |
///
/// Of a last flush that nothing tells of, the files look like those of a commit that was cut off.
///
/// # Errors
/// [`LogError::Hole`].
pub(super) fn expect_all_versions(
    store: &dyn Store,
    logs: &mut [Log],
    claim: &Claim,
) -> Result<(), LogError> {
    let marks = store.find(MARKS_PATH)?;
    let marks = marks.and_then(|bytes| marks::versions(&bytes).ok());
    let catalog = store.find(CATALOG_PATH)?;
    let catalog = catalog.iter().flat_map(|bytes| catalog::versions(bytes));
    for (table, known) in marks.into_iter().flatten().chain(catalog) {
        let log = &mut logs[table as usize];
        if log.next() <= known {
            // Another owner may have committed since.
            log.refresh(store)?;
        }
        if log.next() <= known {
            return Err(hole(log, known));
        }
    }
    match committed_and_unnamed(store, logs, claim)? {
        Some(table) => {
            let log = &logs[table as usize];
            Err(hole(log, log.next()))
        }
        None => Ok(()),
    }
}

fn hole(log: &Log, known: u64) -> LogError {
    let path = version_path(log.table(), log.next());
    LogError::Hole { path, known }
}

/// The first table with a file that was committed and that no version names.
fn committed_and_unnamed(
    store: &dyn Store,
    logs: &mut [Log],
    claim: &Claim,
) -> Result<Option<Table>, LogError> {
    let owner = claim.owner.to_string();
    // By name, which all files of a flush bear: the first table that lacks it.
    let mut lacking = BTreeMap::<String, Table>::new();
    for log in logs.iter() {
        for entry in store.list(&format!("{}/{HOT_DIR}", log.table().name()))? {
            let Some(name) = FileName::parse(&entry.path) else {
                continue;
            };
            if !name.is_of_a_journal() || log.mark(name.writer) >= Some(name.last_pos) {
                continue;
            }
            if name.writer == owner && name.last_pos < claim.committed_to {
                return Ok(Some(log.table()));
            }
            lacking.entry(last_part(&entry.path)).or_insert(log.table());
        }
    }
    let mut found = None;
    if !lacking.is_empty() {
        for log in logs.iter() {
            log.files::<LogError>(store, |add| {
                let name = last_part(&add.path);
                let earlier = lacking.get(&name).filter(|table| **table < log.table());
                if let Some(table) = earlier {
                    found.get_or_insert((*table, name));
                }
                Ok(())
            })?;
        }
    }
    let Some((table, name)) = found else {
        return Ok(None);
    };
    // Another owner may have committed both since the log was read.
    let log = &mut logs[table as usize];
    log.refresh(store)?;
    let name = FileName::parse(&name);
    let is_there = name.is_some_and(|name| log.mark(name.writer) >= Some(name.last_pos));
    Ok((!is_there).then_some(table))
}

fn last_part(path: &str) -> String {
    path.rsplit('/').next().unwrap_or(path).to_owned()
}
