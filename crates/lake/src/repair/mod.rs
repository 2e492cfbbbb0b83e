//! `lake repair`: makes the logs, the head and the marks of a lake anew from what is left.
//!
//! | lost | made anew from |
//! |---|---|
//! | versions of a log | the files in the table's folder that no other version names, by their names and content |
//! | a whole log | all files of the table |
//! | checkpoint, `_last_checkpoint`, head, marks, owner | the logs |
//! | a file | nothing: it is named, and its `add` goes only on demand |
//!
//! A file that was published is not one that was committed: its records may have come to the lake once
//! more, under another name. So a file is taken into a version that is missing only
//!
//! - between two versions that are there: if its last position lies between those that they commit for its
//!   journal, since a journal publishes nothing before the flush before it is committed in all tables;
//! - at the end of a log: if the same flush stands in the log of a later table, which commits after it, or of
//!   an earlier one, where a row that comes twice says nothing new (gaps, epochs, devices, metrics); if a later
//!   flush of that journal has a file or a mark anywhere; if the catalog, a checkpoint, the head's count of
//!   files, or the journal itself says so; or if there are as many missing versions, which the head, the marks
//!   or the catalog know of, as names: takeovers make versions too, and so does `prune`, after which this last
//!   rule is not used.
//!
//! Everything else is left where it is and named; the next owner sets it aside. Two names for one missing
//! version cannot be decided: nothing is written then.
//!
//! A version that differs from the lost one breaks the chain of hashes, so the versions after it are
//! given the new hash. After a crash the same call goes on.

mod found;
mod rebuild;

use std::collections::HashSet;

use headwater_proto::ids::JournalId;
use serde::Serialize;

use crate::delta::{Actions, Log, find_again};
use crate::error::LakeError;
use crate::faults::MAX_FAULTS;
use crate::owner::{self, Claim};
use crate::paths::{HEAD_PATH, MARKS_PATH};
use crate::schema::Table;
use crate::store::{Store, StoreError, Swap};
use crate::writer::{Lake, Settings, Swept};
use found::{Found, Known};
use rebuild::{Change, Rebuilt};

/// What a repair may do.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How checkpoints are written.
    pub settings: Settings,
    /// Who repairs: a name of its own, so that the collector reads the lake anew.
    pub claim: Claim,
    /// A journal, and the first position that it does not know to be in the lake.
    pub committed: Option<(JournalId, u64)>,
    /// Whether files that are named and gone leave the logs.
    pub drop_missing: bool,
    /// Whether nothing is written.
    pub dry_run: bool,
}

/// A file that a log names and that is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MissingFile {
    /// Its path from the root of the lake.
    pub path: String,
    /// Rows that it had, if the log is what names it.
    pub rows: u64,
    /// Smallest and greatest time of its rows, Unix µs.
    pub times_us: Option<(i64, i64)>,
}

/// What a repair found and did. Lists hold the first [`MAX_FAULTS`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Repaired {
    /// Versions that were written anew.
    pub versions: Vec<String>,
    /// Those in all.
    pub version_count: u64,
    /// Versions after them that were given a new hash of the one before.
    pub rechained: u64,
    /// Files that those versions name.
    pub files: u64,
    /// Their rows.
    pub rows: u64,
    /// Holes that nothing fills, and why. Nothing is written then.
    pub open_holes: Vec<String>,
    /// Files that are named and gone.
    pub missing: Vec<MissingFile>,
    /// Those in all.
    pub missing_count: u64,
    /// Whether they left the logs.
    pub dropped: bool,
    /// Versions made anew of which nobody knows what they were: their files are gone, or a prune made them.
    pub unknown: u64,
    /// Files that may never have been committed: left where they are.
    pub left: Vec<String>,
    /// Those in all.
    pub left_count: u64,
    /// Objects of the logs that cannot be read: set aside.
    pub set_aside: Vec<String>,
    /// Whether head and marks were, or would be, made anew.
    pub head: bool,
}

impl Repaired {
    /// Whether the lake has all that its logs name, as far as anybody knows, and no hole.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        let is_known = self.missing_count == 0 && self.unknown == 0;
        self.open_holes.is_empty() && (is_known || self.dropped)
    }

    fn took(&mut self, table: Table, rebuilt: &Rebuilt, found: &Found) {
        let path = |version: u64| crate::delta::version_path(table, version);
        for change in &rebuilt.changes {
            if change.is_rechained {
                self.rechained += 1;
                continue;
            }
            self.version_count += 1;
            push(&mut self.versions, path(change.version));
        }
        self.files += rebuilt.files;
        self.rows += rebuilt.rows;
        self.unknown += rebuilt.unknown;
        self.open_holes.extend(rebuilt.open_hole.clone());
        for file in &rebuilt.left {
            self.left_count += 1;
            push(&mut self.left, format!("{}/{file}", table.name()));
        }
        for path in &found.unreadable {
            push(&mut self.set_aside, path.clone());
        }
        for missing in found.missing() {
            self.missing_count += 1;
            push(&mut self.missing, missing);
        }
    }
}

fn push<T>(list: &mut Vec<T>, item: T) {
    if list.len() < MAX_FAULTS {
        list.push(item);
    }
}

/// Repairs a lake whose collector does not run. See the module's page. Memory: the names of all files.
///
/// # Errors
/// [`LakeError`]; [`LakeError::Owned`] if a collector lives. May be repeated.
pub fn repair<S: Store>(store: S, options: &Options) -> Result<Repaired, LakeError> {
    // Nobody has to wait for a repair that was cut off.
    let claim = Claim {
        lease_us: 0,
        ..options.claim
    };
    let options = &Options { claim, ..*options };
    let before = owner::look(&store)?.map(|(owner, _)| owner);
    owner::claimed(before.as_ref(), &claim, 0)?;
    let known = Known::read(&store, options.committed)?;
    let tables = Table::ALL.into_iter();
    let tables: Vec<Found> = tables
        .map(|table| Found::read(&store, table))
        .collect::<Result<_, _>>()?;
    let mut repaired = Repaired::default();
    let mut all: Vec<Rebuilt> = Vec::new();
    // What is not committed in a table is in none that commits after it.
    let mut cut_off = HashSet::new();
    for found in &tables {
        let now_us = options.claim.now_us;
        let rebuilt = rebuild::rebuild(&store, (found, &tables, &known), &cut_off, now_us)?;
        cut_off.extend(rebuilt.cut_off.iter().cloned());
        repaired.took(found.table, &rebuilt, found);
        all.push(rebuilt);
    }
    let is_changed = all.iter().any(|rebuilt| !rebuilt.changes.is_empty())
        || tables.iter().any(|found| !found.unreadable.is_empty());
    let has_all = before.is_some() && known.has_marks && tables.iter().all(|t| t.has_good_hint);
    repaired.head = is_changed || !is_head_good(&store, &known)?;
    let drops = options.drop_missing && repaired.missing_count > 0;
    let is_sound = !repaired.head && has_all && !drops;
    if options.dry_run || is_sound || !repaired.open_holes.is_empty() {
        return Ok(repaired);
    }
    for (found, rebuilt) in tables.iter().zip(&all) {
        apply(&store, found, &rebuilt.changes)?;
    }
    repaired.dropped = drops;
    let gone = if drops { gone(&tables) } else { Vec::new() };
    finish(store, options, repaired.head, &tables, gone)?;
    Ok(repaired)
}

/// Whether a start could go on from the head that is there.
fn is_head_good(store: &dyn Store, known: &Known) -> Result<bool, LakeError> {
    let Some(head) = &known.head else {
        return Ok(false);
    };
    for table in Table::ALL {
        let Some(place) = head.place(table) else {
            return Ok(false);
        };
        match Log::resume(store, table, place) {
            Ok(_) => {}
            Err(error) if error.is_outage() => return Err(error.into()),
            Err(_) => return Ok(false),
        }
    }
    Ok(true)
}

/// The files that are named and gone, by table.
fn gone(tables: &[Found]) -> Vec<(Table, Vec<String>)> {
    let gone = tables.iter().map(|found| (found.table, found.gone()));
    gone.filter(|(_, paths)| !paths.is_empty()).collect()
}

fn apply(store: &dyn Store, found: &Found, changes: &[Change]) -> Result<(), LakeError> {
    let mut aside = Swept::default();
    for path in &found.unreadable {
        aside.set_aside(store, found.table, path)?;
    }
    for change in changes {
        let path = crate::delta::version_path(found.table, change.version);
        let present = store.get_tagged(&path)?;
        let expected = present.as_ref().map(|present| &present.tag);
        if store.swap(&path, expected, &change.bytes)? == Swap::Changed {
            let source = std::io::Error::other("somebody else writes it: is a collector running?");
            let action = "repair";
            return Err(StoreError::Io {
                action,
                path,
                source,
            }
            .into());
        }
    }
    Ok(())
}

/// Has the lake adopted: owner, head, marks, checkpoints and catalog are made from the logs.
fn finish<S: Store>(
    store: S,
    options: &Options,
    head: bool,
    tables: &[Found],
    gone: Vec<(Table, Vec<String>)>,
) -> Result<(), LakeError> {
    if head || !gone.is_empty() {
        store.delete(HEAD_PATH)?;
        store.delete(MARKS_PATH)?;
    }
    let now_us = options.claim.now_us;
    let bare = tables.iter().filter(|found| !found.has_good_hint);
    for found in bare.clone() {
        // What it covers may have been cleaned away.
        if let Some((version, _)) = found.checkpoints.last_key_value() {
            find_again(&store, found.table, *version)?;
        }
    }
    let mut lake = Lake::open(store, options.settings, &options.claim)?;
    for (table, removes) in gone {
        let actions = Actions {
            removes,
            ..Actions::default()
        };
        lake.amend(table, &actions, now_us)?;
    }
    for found in bare {
        lake.checkpoint(found.table)?;
    }
    lake.settle()?;
    lake.write_catalog()?;
    lake.release(now_us.max(lake.owner().since_us))
}
