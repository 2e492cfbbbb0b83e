//! Core: the logs of a lake at a start.
//!
//! | what is there | what is done |
//! |---|---|
//! | a head | each log is read from its checkpoint to the head and beyond; nothing is listed |
//! | no head, and no table has an object (one bounded list each) | a new lake |
//! | no head, but tables | each log is listed once; if it is whole the lake is adopted, or refused |

use crate::delta::{Log, LogError, newest_listed, version_path};
use crate::head::Head;
use crate::paths::HOT_DIR;
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
    let Some(newest) = newest_listed(store, table)? else {
        if store
            .list_some(&format!("{}/{HOT_DIR}", table.name()), 1)?
            .is_empty()
        {
            return Ok(Log::empty(table));
        }
        return Err(LogError::NoLog {
            table: table.name(),
        });
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
