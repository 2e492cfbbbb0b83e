//! Core: is every byte of a log what was written?
//!
//! The head names the hash of the newest version, and each version that of the one before it, so the
//! walk goes back from there. What lies beyond the head was committed since, or before a crash: the
//! next version or the head will name it. Checkpoints are held against what versions and head say of
//! them; one of which nobody says anything yet, because a crash came first, is made again and
//! compared. Versions before a checkpoint may be missing from the beginning on, as the clean-up of
//! other Delta programs leaves a log; this program deletes none.

use std::collections::{BTreeMap, BTreeSet};

use parquet::file::reader::{FileReader, SerializedFileReader};

use super::Guarded;
use crate::delta::{Chain, Hint, Log, Place, checkpoint_path, log_dir, version_path};
use crate::digest::of_object;
use crate::faults::words;
use crate::plan::Sha256;
use crate::read::Chunks;
use crate::schema::Table;
use crate::store::{Store, StoreError};

/// What the folder of a log lists.
#[derive(Default)]
struct Listed {
    versions: BTreeSet<u64>,
    checkpoints: BTreeSet<u64>,
    has_hint: bool,
}

/// Checks the log of a table.
///
/// - `newest`: the newest version that a reader found.
/// - `place`: what the head says of the log.
///
/// # Errors
/// [`StoreError`] if the folder cannot be listed.
pub(super) fn check(
    store: &dyn Store,
    table: Table,
    newest: Option<u64>,
    place: Option<&Place>,
    found: &mut Guarded,
) -> Result<(), StoreError> {
    let listed = list(store, table, found)?;
    let newest = newest.max(place.map(|place| place.version));
    let checkpoints = versions(store, table, &listed, newest, place, found);
    let good = check_checkpoints(store, table, &listed, &checkpoints, found);
    let named = place.and_then(|place| place.checkpoint);
    if let Some((version, _)) = named.filter(|(version, _)| !listed.checkpoints.contains(version)) {
        found.fault(&checkpoint_path(table, version), "is missing");
    }
    if listed.has_hint {
        let oldest = named.map_or(0, |(version, _)| version);
        if let Err(what) = check_hint(store, table, oldest, &good) {
            found.fault(&Hint::path(table), what);
        }
    } else if named.is_some() {
        found.fault(&Hint::path(table), "is missing");
    }
    Ok(())
}

fn list(store: &dyn Store, table: Table, found: &mut Guarded) -> Result<Listed, StoreError> {
    let folder = format!("{}/", log_dir(table));
    let number = |name: &str, end: &str| -> Option<u64> {
        let digits = name.strip_suffix(end)?;
        (digits.len() == 20).then(|| digits.parse().ok())?
    };
    let mut listed = Listed::default();
    for entry in store.list(&log_dir(table))? {
        let name = entry.path.strip_prefix(&folder).unwrap_or_default();
        if let Some(version) = number(name, ".json") {
            listed.versions.insert(version);
        } else if let Some(version) = number(name, ".checkpoint.parquet") {
            listed.checkpoints.insert(version);
        } else if entry.path == Hint::path(table) {
            listed.has_hint = true;
        } else {
            found.fault(&entry.path, "is nothing that this program writes to a log");
        }
    }
    Ok(listed)
}

/// Walks back over the versions; gives what they and the head say of checkpoints.
fn versions(
    store: &dyn Store,
    table: Table,
    listed: &Listed,
    newest: Option<u64>,
    place: Option<&Place>,
    found: &mut Guarded,
) -> BTreeMap<u64, Sha256> {
    let named = place.and_then(|place| place.checkpoint);
    let mut checkpoints: BTreeMap<u64, Sha256> = named.into_iter().collect();
    let missing = |version: u64, found: &mut Guarded| {
        found.fault(&version_path(table, version), "is missing");
    };
    let mut after = newest.filter(|newest| Some(newest) > listed.versions.last());
    if let Some(newest) = after {
        missing(newest, found);
    }
    let mut expected: Option<Sha256> = None;
    for version in listed.versions.iter().copied().rev() {
        if after.is_some_and(|after| version + 1 < after) {
            missing(after.map_or(version, |after| after - 1), found);
            expected = None;
        }
        after = Some(version);
        let path = version_path(table, version);
        let bytes = match store.get(&path) {
            Ok(bytes) => bytes,
            Err(error) => {
                found.fault(&path, words(&error));
                expected = None;
                continue;
            }
        };
        let hash = Sha256::of(&bytes);
        let of_head = place.filter(|place| place.version == version);
        let is_good = expected.is_none_or(|expected| expected == hash)
            && of_head.is_none_or(|place| place.sha256 == hash);
        let chain = Chain::of(&bytes);
        if !is_good {
            found.fault(&path, "has other bytes than were committed");
        } else if chain.previous.is_none() && version > 0 {
            found.fault(&path, "does not name the hash of the version before it");
        }
        expected = chain.previous.filter(|_| is_good);
        if let Some((at, hash)) = chain.checkpoint.filter(|_| is_good) {
            checkpoints.entry(at).or_insert(hash);
        }
    }
    let first = listed.versions.first().copied().unwrap_or_default();
    if first > 0 && listed.checkpoints.last() < Some(&(first - 1)) {
        missing(first - 1, found);
    }
    checkpoints
}

/// Gives the checkpoints that are good.
fn check_checkpoints(
    store: &dyn Store,
    table: Table,
    listed: &Listed,
    named: &BTreeMap<u64, Sha256>,
    found: &mut Guarded,
) -> BTreeSet<u64> {
    let mut good = BTreeSet::new();
    for version in listed.checkpoints.iter().copied() {
        let path = checkpoint_path(table, version);
        let expected = match named.get(&version) {
            Some(hash) => Ok(*hash),
            None => {
                let base = good.last().copied();
                Log::checkpoint_sha256(store, table, base, version).map_err(|error| words(&error))
            }
        };
        let hash = of_object(store, &path).map_err(|error| words(&error));
        match expected.and_then(|expected| Ok((expected, hash?))) {
            Ok((expected, hash)) if expected == hash => drop(good.insert(version)),
            Ok(_) => found.fault(&path, "has other bytes than were written"),
            Err(what) => found.fault(&path, what),
        }
    }
    good
}

/// - `oldest`: the checkpoint that the head names, after which none older is pointed to.
/// - `good`: the checkpoints that may be read.
fn check_hint(
    store: &dyn Store,
    table: Table,
    oldest: u64,
    good: &BTreeSet<u64>,
) -> Result<(), String> {
    let bytes = store
        .get(&Hint::path(table))
        .map_err(|error| words(&error))?;
    let hint = Hint::decode(&bytes).ok_or("cannot be read")?;
    let path = checkpoint_path(table, hint.version);
    let object = match store.open(&path) {
        Err(StoreError::Missing { .. }) => {
            return Err(format!(
                "names checkpoint {}, which is missing",
                hint.version
            ));
        }
        other => other.map_err(|error| words(&error))?,
    };
    if hint.version < oldest {
        return Err(format!(
            "names checkpoint {}, the head {oldest}",
            hint.version
        ));
    }
    if good.contains(&hint.version) {
        let reader = SerializedFileReader::new(Chunks(object)).map_err(|error| words(&error))?;
        let rows = reader.metadata().file_metadata().num_rows();
        if i64::try_from(hint.size) != Ok(rows) {
            return Err(format!(
                "says {} rows, the checkpoint has {rows}",
                hint.size
            ));
        }
    }
    Ok(())
}
