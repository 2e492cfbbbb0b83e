//! Core: what earlier owners left without a commit.

use crate::delta::Log;
use crate::error::LakeError;
use crate::paths::{FileName, HOT_DIR, STAGE_DIR, Staged, orphan_path};
use crate::store::{Store, StoreError};

/// Paths that [`Swept`] names at most; more are counted.
pub const MAX_SWEPT: usize = 1_000;

/// What [`crate::Lake::sweep`] did with files that were published and can never be committed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Swept {
    /// Moved out of readers' way, the first 1,000.
    pub set_aside: Vec<String>,
    /// Left in place, because the store cannot move: the first 1,000. Readers who list folders see
    /// their rows.
    pub left: Vec<String>,
    /// Both in all.
    pub orphans: u64,
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
            let aside = orphan_path(log.table(), &entry.path);
            let named = match store.set_aside(&entry.path, &aside) {
                Ok(true) => &mut swept.set_aside,
                Ok(false) => &mut swept.left,
                // Whoever published it has deleted it meanwhile.
                Err(StoreError::Missing { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            swept.orphans += 1;
            if named.len() < MAX_SWEPT {
                named.push(entry.path);
            }
        }
    }
    Ok(swept)
}
