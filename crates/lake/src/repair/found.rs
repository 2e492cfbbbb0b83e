//! Core: what is left of the log of a table, and of what else tells of it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use headwater_proto::ids::JournalId;

use super::MissingFile;
use crate::catalog::{self, CATALOG_PATH};
use crate::delta::{
    Add, Chain, Hint, LogError, TERM_APP, checkpoint_files, checkpoint_path, checkpoint_txns,
    log_dir, parse_version, timestamp_ms,
};
use crate::digest::of_object;
use crate::error::LakeError;
use crate::head::Head;
use crate::marks;
use crate::paths::{FileName, HEAD_PATH, HOT_DIR, MARKS_PATH};
use crate::plan::Sha256;
use crate::schema::Table;
use crate::store::Store;

/// What stands outside the logs.
pub(super) struct Known {
    pub(super) head: Option<Head>,
    pub(super) has_marks: bool,
    /// Newest versions that marks and catalog name.
    versions: Vec<(Table, u64)>,
    /// Positions of journals that the catalog says each table has.
    positions: HashMap<(Table, String), u64>,
    committed: Option<(JournalId, u64)>,
}

impl Known {
    /// # Errors
    /// [`LakeError`].
    pub(super) fn read(
        store: &dyn Store,
        committed: Option<(JournalId, u64)>,
    ) -> Result<Self, LakeError> {
        let head = store.find(HEAD_PATH)?;
        let head = head.and_then(|bytes| Head::decode(&bytes).ok());
        let marks = store.find(MARKS_PATH)?;
        let marks = marks.and_then(|bytes| marks::versions(&bytes).ok());
        let has_marks = marks.is_some();
        let mut versions = marks.unwrap_or_default();
        let mut positions = HashMap::new();
        if let Some(bytes) = store.find(CATALOG_PATH)? {
            versions.extend(catalog::versions(&bytes));
            positions = catalog::positions(&bytes);
        }
        Ok(Self {
            head,
            has_marks,
            versions,
            positions,
            committed,
        })
    }

    /// The newest version of a table that something names.
    pub(super) fn newest(&self, table: Table) -> Option<u64> {
        let named = self.versions.iter().filter(|(of, _)| *of == table);
        let head = self.head.as_ref().and_then(|head| head.place(table));
        named
            .map(|(_, at)| *at)
            .max()
            .max(head.map(|place| place.version))
    }

    /// Whether catalog or journal says that a table has a flush.
    pub(super) fn has(&self, table: Table, name: &FileName<'_>) -> bool {
        let of_catalog = self.positions.get(&(table, name.writer.to_owned()));
        let of_journal = self
            .committed
            .filter(|(id, _)| id.to_string() == name.writer);
        of_catalog >= Some(&name.last_pos) || of_journal.is_some_and(|(_, to)| name.last_pos < to)
    }
}

/// A version that is there.
pub(super) struct Version {
    pub(super) hash: Sha256,
    pub(super) chain: Chain,
    pub(super) at_ms: Option<i64>,
    pub(super) txns: Vec<(String, u64)>,
    pub(super) adds: usize,
}

/// What is left of a table.
pub(super) struct Found {
    pub(super) table: Table,
    pub(super) versions: BTreeMap<u64, Version>,
    /// Checkpoints that can be read, with their hashes.
    pub(super) checkpoints: BTreeMap<u64, Sha256>,
    /// Marks in the newest of them.
    pub(super) checkpoint_txns: Vec<(String, u64)>,
    /// Files that versions name, by path in the table.
    by_versions: HashMap<String, Add>,
    /// Files that the newest checkpoint names.
    by_checkpoint: HashMap<String, Add>,
    removed: HashSet<String>,
    /// File names that the log names, and when they were committed.
    names: HashMap<String, i64>,
    /// By writer the highest first position of a file in the folder.
    begun: HashMap<String, u64>,
    /// Files in the table's folder.
    files: BTreeSet<String>,
    /// Versions and checkpoints that cannot be read.
    pub(super) unreadable: Vec<String>,
    /// Whether the hint names a checkpoint that can be read, or there is none to name.
    pub(super) has_good_hint: bool,
}

impl Found {
    /// # Errors
    /// [`LakeError`] if the store cannot be reached.
    pub(super) fn read(store: &dyn Store, table: Table) -> Result<Self, LakeError> {
        let mut found = Self {
            table,
            versions: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            checkpoint_txns: Vec::new(),
            by_versions: HashMap::new(),
            by_checkpoint: HashMap::new(),
            removed: HashSet::new(),
            names: HashMap::new(),
            begun: HashMap::new(),
            files: BTreeSet::new(),
            unreadable: Vec::new(),
            has_good_hint: true,
        };
        let number = |path: &str, end: &str| -> Option<u64> {
            path.rsplit('/').next()?.strip_suffix(end)?.parse().ok()
        };
        for entry in store.list(&log_dir(table))? {
            let path = entry.path;
            if let Some(version) = number(&path, ".json") {
                found.read_version(store, version, path)?;
            } else if let Some(version) = number(&path, ".checkpoint.parquet") {
                found.read_checkpoint(store, version, path)?;
            }
        }
        let named = found
            .by_versions
            .values()
            .chain(found.by_checkpoint.values());
        let names = named.map(|add| (last_part(&add.path).to_owned(), add.modified_ms));
        found.names = names.collect();
        if found.versions.is_empty() {
            // The log is made anew from its beginning, and says other things at their versions.
            let all = found.checkpoints.keys();
            let all: Vec<String> = all.map(|at| checkpoint_path(table, *at)).collect();
            found.unreadable.extend(all);
            found.checkpoints.clear();
        }
        found.read_hint(store)?;
        let folder = format!("{}/", table.name());
        for entry in store.list(&format!("{}/{HOT_DIR}", table.name()))? {
            if let Some(name) = FileName::parse(&entry.path) {
                let begun = found.begun.entry(name.writer.to_owned()).or_default();
                *begun = name.first_pos.max(*begun);
            }
            let path = entry.path.strip_prefix(&folder);
            found.files.extend(path.map(str::to_owned));
        }
        Ok(found)
    }

    fn read_version(
        &mut self,
        store: &dyn Store,
        version: u64,
        path: String,
    ) -> Result<(), LakeError> {
        let bytes = store.get(&path)?;
        let Ok(actions) = parse_version(path.clone(), &bytes) else {
            self.unreadable.push(path);
            return Ok(());
        };
        let present = Version {
            hash: Sha256::of(&bytes),
            chain: Chain::of(&bytes),
            at_ms: timestamp_ms(&bytes),
            txns: actions.txns,
            adds: actions.adds.len(),
        };
        self.versions.insert(version, present);
        self.removed.extend(actions.removes);
        let adds = actions.adds.into_iter();
        self.by_versions
            .extend(adds.map(|add| (add.path.clone(), add)));
        Ok(())
    }

    fn read_checkpoint(
        &mut self,
        store: &dyn Store,
        version: u64,
        path: String,
    ) -> Result<(), LakeError> {
        let mut adds = HashMap::new();
        let read = checkpoint_txns(store, self.table, version).and_then(|txns| {
            checkpoint_files::<LogError>(store, self.table, version, |add| {
                adds.insert(add.path.clone(), add);
                Ok(())
            })?;
            Ok(txns)
        });
        match read {
            Ok(txns) => {
                let hash = of_object(store, &path)?;
                self.checkpoints.insert(version, hash);
                (self.checkpoint_txns, self.by_checkpoint) = (txns, adds);
            }
            Err(error) if error.is_outage() => return Err(error.into()),
            Err(_) => self.unreadable.push(path),
        }
        Ok(())
    }

    fn read_hint(&mut self, store: &dyn Store) -> Result<(), LakeError> {
        self.has_good_hint = match store.find(&Hint::path(self.table))? {
            Some(bytes) => {
                let hint = Hint::decode(&bytes);
                hint.is_some_and(|hint| self.checkpoints.contains_key(&hint.version))
            }
            None => self.checkpoints.is_empty(),
        };
        Ok(())
    }

    /// When the file of that name was committed, Unix ms, if the log names one.
    pub(super) fn committed_at_ms(&self, name: &str) -> Option<i64> {
        self.names.get(name).copied()
    }

    /// The first position of the last flush of a writer that has a file in the folder.
    pub(super) fn last_begun(&self, writer: &str) -> Option<u64> {
        self.begun.get(writer).copied()
    }

    /// Whether its folder has files.
    pub(super) fn has_files(&self) -> bool {
        !self.files.is_empty()
    }

    /// Whether the newest checkpoint names a file.
    pub(super) fn is_in_checkpoint(&self, path: &str) -> bool {
        self.by_checkpoint.contains_key(path)
    }

    /// Files in the folder that no version names.
    pub(super) fn unnamed(&self) -> impl Iterator<Item = &str> {
        let files = self.files.iter().map(String::as_str);
        files.filter(|path| !self.by_versions.contains_key(*path) && !self.removed.contains(*path))
    }

    /// The highest number of an application in all that is left.
    pub(super) fn mark(&self, app: &str) -> Option<u64> {
        let versions = self.versions.values().flat_map(|version| &version.txns);
        let all = versions.chain(&self.checkpoint_txns);
        all.filter(|(of, _)| of == app).map(|(_, mark)| *mark).max()
    }

    /// The highest term in all that is left.
    pub(super) fn term(&self) -> u64 {
        self.mark(TERM_APP).unwrap_or(0)
    }

    fn named_and_gone(&self) -> impl Iterator<Item = &Add> {
        let of_checkpoint = self.by_checkpoint.iter();
        let of_checkpoint = of_checkpoint.filter(|(path, _)| !self.by_versions.contains_key(*path));
        let named = self.by_versions.iter().chain(of_checkpoint);
        let gone =
            named.filter(|(path, _)| !self.files.contains(*path) && !self.removed.contains(*path));
        gone.map(|(_, add)| add)
    }

    /// Files that are named and gone, in order.
    pub(super) fn gone(&self) -> Vec<String> {
        let mut gone: Vec<String> = self.named_and_gone().map(|add| add.path.clone()).collect();
        gone.sort();
        gone
    }

    /// The same, with what they held.
    pub(super) fn missing(&self) -> Vec<MissingFile> {
        let missing = self.named_and_gone().map(|add| {
            let stats = add.parsed_stats(self.table);
            MissingFile {
                path: add.full_path(self.table),
                rows: stats.rows,
                times_us: stats.times_us,
            }
        });
        let mut missing: Vec<MissingFile> = missing.collect();
        missing.sort_by(|a, b| a.path.cmp(&b.path));
        missing
    }
}

/// The name of a file, which all files of a flush bear.
pub(super) fn last_part(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
