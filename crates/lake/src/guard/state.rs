//! Core: do owner, head and marks of a lake agree with its logs, and lies anything else among the
//! files of its tables?

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Guarded, MAX_FAULTS};
use crate::delta::{Log, LogError, Tally, read_version};
use crate::error::LakeError;
use crate::head::{Head, NoHead};
use crate::owner::Owner;
use crate::paths::{FileName, HEAD_PATH, HOT_DIR, MARKS_PATH, OWNER_PATH};
use crate::schema::Table;
use crate::store::{Store, StoreError};
use crate::writer::differing_marks;

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
            head: get(store, HEAD_PATH)?,
            marks: get(store, MARKS_PATH)?,
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
        let object = get(store, OWNER_PATH)?;
        if object.is_some() && self.head.is_none() {
            found.fault(HEAD_PATH, "is missing, though the lake has an owner");
        }
        let owner = self.check_owner(object.as_deref(), logs, found);
        self.check_head(store, logs, tallies, owner.as_ref(), found)?;
        self.check_marks(store, logs, found);
        orphans(store, logs, found)
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
        store: &dyn Store,
        logs: &[Log],
        tallies: &BTreeMap<Table, Tally>,
        owner: Option<&Owner>,
        found: &mut Guarded,
    ) -> Result<(), LogError> {
        let Some(bytes) = &self.head else {
            return Ok(());
        };
        let head = match Head::decode(bytes) {
            Ok(head) => head,
            Err(NoHead::Damaged) => {
                found.fault(HEAD_PATH, "cannot be read");
                return Ok(());
            }
            Err(NoHead::Newer(version)) => {
                found.fault(HEAD_PATH, format!("is of version {version}, a later one"));
                return Ok(());
            }
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
            let entry = read_version(store, table, place.version)?;
            if entry.map(|(_, hash)| hash) != Some(place.sha256) {
                let what = format!(
                    "version {} of {} has other bytes",
                    place.version,
                    table.name()
                );
                found.fault(HEAD_PATH, what);
            }
            let is_newest = log.version() == Some(place.version);
            if is_newest && place.tally.is_some() && place.tally.as_ref() != tallies.get(&table) {
                found.fault(HEAD_PATH, format!("has other sums for {}", table.name()));
            }
        }
        Ok(())
    }

    fn check_marks(&self, store: &dyn Store, logs: &[Log], found: &mut Guarded) {
        let Some(bytes) = &self.marks else {
            return;
        };
        match differing_marks(store, logs, bytes) {
            Ok(Some(0)) => {}
            Ok(Some(streams)) => {
                found.fault(
                    MARKS_PATH,
                    format!("differs from the files in {streams} streams"),
                );
            }
            Ok(None) => found.fault(MARKS_PATH, "cannot be read; it may be removed"),
            // A file that cannot be read was told of where it stands.
            Err(LakeError::Read(_)) => {}
            Err(error) => found.fault(MARKS_PATH, error.to_string()),
        }
    }
}

fn get(store: &dyn Store, path: &str) -> Result<Option<Bytes>, StoreError> {
    match store.get(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(StoreError::Missing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Names what earlier owners published and no commit can name any more: see [`crate::Lake::sweep`].
fn orphans(store: &dyn Store, logs: &[Log], found: &mut Guarded) -> Result<(), LogError> {
    for log in logs {
        let folder = format!("{}/{HOT_DIR}", log.table().name());
        for entry in store.list(&folder)? {
            let Some(name) = FileName::parse(&entry.path) else {
                continue;
            };
            if name.is_orphan(log.mark(name.writer), log.term()) {
                found.orphan_count += 1;
                if found.orphans.len() < MAX_FAULTS {
                    found.orphans.push(entry.path);
                }
            }
        }
    }
    Ok(())
}
