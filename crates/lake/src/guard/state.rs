//! Core: do owner, head and marks of a lake agree with its logs, and lies anything else among the
//! files of its tables?

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;

use super::Guarded;
use crate::catalog::CATALOG_PATH;
use crate::delta::{Log, LogError, Tally, log_dir};
use crate::digest::{is_sealed, of_object};
use crate::faults::words;
use crate::head::Head;
use crate::owner::Owner;
use crate::paths::{FileName, HEAD_PATH, MARKS_PATH, OWNER_PATH, SCHEMAS_DIR, schema_path};
use crate::schema::Table;
use crate::store::{Entry, Store};
use crate::writer::{differing_marks, marks_are_whole};

/// Said of marks that are damaged: they are made anew from the files.
const UNREADABLE_MARKS: &str = "cannot be read; it may be removed";

/// Head and marks as they were before the logs were read: the logs are never behind them.
pub(super) struct Objects {
    head: Option<Bytes>,
    marks: Option<Bytes>,
}

impl Objects {
    /// # Errors
    /// [`LogError::Store`].
    pub(super) fn read(store: &dyn Store) -> Result<Self, LogError> {
        Ok(Self {
            head: store.find(HEAD_PATH)?,
            marks: store.find(MARKS_PATH)?,
        })
    }

    /// Checks them, and the owner, who is never behind the logs, against the logs and the sums over
    /// their files.
    ///
    /// # Errors
    /// [`LogError::Store`].
    pub(super) fn check(
        &self,
        store: &dyn Store,
        logs: &[Log],
        tallies: &BTreeMap<Table, Tally>,
        found: &mut Guarded,
    ) -> Result<(), LogError> {
        let object = store.find(OWNER_PATH)?;
        let owner = self.check_owner(object.as_deref(), logs, found);
        self.check_head(logs, tallies, owner.as_ref(), found);
        schemas(store, found)?;
        if store
            .find(CATALOG_PATH)?
            .is_some_and(|bytes| !is_sealed(&bytes))
        {
            found.fault(CATALOG_PATH, "is damaged; it may be removed");
        }
        // A file that cannot be read was told of where it stands.
        self.check_marks(store, logs, found.fault_count == 0, found);
        Ok(())
    }

    fn check_owner(
        &self,
        object: Option<&[u8]>,
        logs: &[Log],
        found: &mut Guarded,
    ) -> Option<Owner> {
        let Some(bytes) = object else {
            if self.head.is_some() {
                found.fault(OWNER_PATH, "is missing, though the lake has a head");
            }
            return None;
        };
        let owner = match Owner::decode(bytes) {
            Ok(owner) => owner,
            Err(error) => {
                found.fault(OWNER_PATH, error.to_string());
                return None;
            }
        };
        for log in logs.iter().filter(|log| log.term() > owner.term) {
            let (table, term) = (log.table().name(), log.term());
            let own = owner.term;
            found.fault(
                OWNER_PATH,
                format!("is of term {own}, {table} is of term {term}"),
            );
        }
        Some(owner)
    }

    fn check_head(
        &self,
        logs: &[Log],
        tallies: &BTreeMap<Table, Tally>,
        owner: Option<&Owner>,
        found: &mut Guarded,
    ) {
        // One that cannot be read was told of with the logs.
        let Some(Ok(head)) = self.head.as_ref().map(|bytes| Head::decode(bytes)) else {
            return;
        };
        if owner.is_some_and(|owner| owner.term < head.term) {
            found.fault(
                HEAD_PATH,
                format!("is of term {}, after the owner's", head.term),
            );
        }
        for log in logs {
            let table = log.table();
            let Some(place) = head.place(table) else {
                continue;
            };
            let is_newest = log.version() == Some(place.version);
            let tally = tallies.get(&table);
            if is_newest && tally.is_some() && place.tally.is_some_and(|t| tally != Some(&t)) {
                found.fault(HEAD_PATH, format!("has other sums for {}", table.name()));
            }
        }
    }

    /// - `are_files_good`: the files can be held against them.
    fn check_marks(
        &self,
        store: &dyn Store,
        logs: &[Log],
        are_files_good: bool,
        found: &mut Guarded,
    ) {
        let Some(bytes) = &self.marks else {
            return;
        };
        if !are_files_good {
            match marks_are_whole(store, bytes.clone()) {
                Ok(true) => {}
                Ok(false) => found.fault(MARKS_PATH, UNREADABLE_MARKS),
                Err(error) => found.fault(MARKS_PATH, error.to_string()),
            }
            return;
        }
        match differing_marks(store, logs, bytes.clone()) {
            Ok(Some(0)) => {}
            Ok(Some(streams)) => {
                found.fault(
                    MARKS_PATH,
                    format!("differs from the files in {streams} streams"),
                );
            }
            Ok(None) => found.fault(MARKS_PATH, UNREADABLE_MARKS),
            Err(error) => found.fault(MARKS_PATH, error.to_string()),
        }
    }
}

/// Names the files in the folder of a table that its log does not: what an earlier owner published
/// and no commit can name any more (see [`crate::Lake::sweep`]) is an orphan; what is published and
/// may yet be committed is left alone; all else is a fault, for readers that list folders read it.
///
/// - `named`: the files of the log, from the root of the lake.
///
/// # Errors
/// [`LogError::Store`].
pub(super) fn strangers(
    store: &dyn Store,
    log: &Log,
    named: &HashSet<String>,
    found: &mut Guarded,
) -> Result<(), LogError> {
    let logs = format!("{}/", log_dir(log.table()));
    for Entry { path, .. } in store.list(log.table().name())? {
        if path.starts_with(&logs) || named.contains(&path) {
            continue;
        }
        let Some(name) = FileName::parse(&path) else {
            found.fault(&path, "is nothing that this program writes to a table");
            continue;
        };
        let mark = log.mark(name.writer);
        if name.is_orphan(mark, log.term()) {
            found.orphan(&path);
        } else if mark >= Some(name.last_pos) {
            let what = "is in no version of the log: a copy, or left by a prune that was cut off, which \
                        the next one removes";
            found.fault(&path, what);
        }
    }
    Ok(())
}

/// Schemas and dictionaries bear the hash of their bytes as their name.
fn schemas(store: &dyn Store, found: &mut Guarded) -> Result<(), LogError> {
    for Entry { path, .. } in store.list(SCHEMAS_DIR)? {
        match of_object(store, &path) {
            Ok(hash) if schema_path(hash) == path => {}
            Ok(_) => found.fault(&path, "has other bytes than its name says"),
            Err(error) => found.fault(&path, words(&error)),
        }
    }
    Ok(())
}
