//! Core: what earlier owners left without a commit.

use crate::delta::Log;
use crate::error::LakeError;
use crate::paths::{FileName, HOT_DIR, STAGE_DIR, Staged, orphan_path};
use crate::schema::Table;
use crate::store::{Aside, Store, StoreError};

/// Paths that [`Swept`] names at most; more are counted.
pub const MAX_SWEPT: usize = 1_000;

/// Orphans of one name that are kept: as often an old copy of a journal was brought back to where it had
/// published, and published other bytes.
pub const MAX_NAMESAKES: u32 = 1_000;

/// What became of files that were published and can never be committed: [`crate::Lake::sweep`],
/// [`crate::Lake::recover`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Swept {
    /// Moved out of readers' way, the first 1,000.
    pub set_aside: Vec<String>,
    /// How many in all.
    pub orphans: u64,
}

impl Swept {
    /// Sets aside a published file, if it is there, beside those of its name that were set aside before.
    ///
    /// # Errors
    /// [`StoreError`]; may be repeated.
    pub(crate) fn set_aside(
        &mut self,
        store: &dyn Store,
        table: Table,
        path: &str,
    ) -> Result<(), StoreError> {
        let first = orphan_path(table, path);
        for namesake in 1..=MAX_NAMESAKES {
            let aside = match namesake {
                1 => first.clone(),
                _ => format!("{first}.{namesake}"),
            };
            match store.set_aside(path, &aside) {
                Ok(Aside::Moved) => {}
                Ok(Aside::Taken) => continue,
                // Never published, or whoever published it has set it aside meanwhile.
                Err(StoreError::Missing { .. }) => return Ok(()),
                Err(error) => return Err(error),
            }
            self.orphans += 1;
            if self.set_aside.len() < MAX_SWEPT {
                self.set_aside.push(path.to_owned());
            }
            return Ok(());
        }
        let why = format!("there are {MAX_NAMESAKES} beside {first}: move those away");
        Err(StoreError::Io {
            action: "set aside",
            path: path.to_owned(),
            source: std::io::Error::other(why),
        })
    }

    /// Adds what was done elsewhere.
    pub fn merge(&mut self, other: Self) {
        let room = MAX_SWEPT.saturating_sub(self.set_aside.len());
        self.set_aside
            .extend(other.set_aside.into_iter().take(room));
        self.orphans += other.orphans;
    }
}

/// Sets aside what owners of lower terms than `own` published, and removes what they staged and
/// committed. What they staged for a plan that is not carried out stays: should such an owner come
/// back with its journal, it goes on with that.
///
/// # Errors
/// [`LakeError::Store`]; may be repeated.
pub(super) fn sweep(store: &dyn Store, logs: &[Log], own: u64) -> Result<Swept, LakeError> {
    for path in store.staged(STAGE_DIR)? {
        let Some(staged) = Staged::parse(&path).filter(|staged| staged.term < own) else {
            continue;
        };
        let log = &logs[staged.table as usize];
        if log.mark(&staged.journal.to_string()) >= Some(staged.last_pos) {
            store.unstage(&path)?;
        }
    }
    let mut swept = Swept::default();
    for log in logs {
        let folder = format!("{}/{HOT_DIR}", log.table().name());
        for entry in store.list(&folder)? {
            let Some(name) = FileName::parse(&entry.path) else {
                continue;
            };
            if !name.is_orphan(log.mark(name.writer), own) {
                continue;
            }
            swept.set_aside(store, log.table(), &entry.path)?;
        }
    }
    Ok(swept)
}
