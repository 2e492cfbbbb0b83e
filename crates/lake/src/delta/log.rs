//! Core: the log of one table: its versions, one after the other.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use headwater_proto::sabotage::{self, Bug};
use serde::{Deserialize, Serialize};

use super::tail::Tail;
use super::version::{
    Actions, Add, Chain, TERM_APP, actions_text, creation_text, read_version, version_path,
};
use super::{LogError, checkpoint};
use crate::digest::of_object;
use crate::plan::Sha256;
use crate::schema::Table;
use crate::store::{Put, Store};

/// Versions between two checkpoints: what a reader must replay at most.
pub const CHECKPOINT_VERSIONS: u64 = 100;

/// Versions that a commit tries at most: so many other writers may be quicker in a row.
const COMMIT_ATTEMPTS: u32 = 1_000;

/// Under this name the logs keep the number of the last replay from quarantine.
pub(crate) const REPLAY_APP: &str = "replay";

/// Whether `samples` has a replay that `quarantine` lacks: it goes on, or was cut off.
pub(crate) fn is_replay_cut(logs: &[Log]) -> bool {
    let mark = |table| {
        let log = logs.iter().find(|log| log.table() == table);
        log.and_then(|log| log.mark(REPLAY_APP))
    };
    mark(Table::Samples) > mark(Table::Quarantine)
}

/// What a commit did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// It is this version.
    Now(u64),
    /// Its mark was there already.
    Before,
}

/// Sums over the files of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their rows.
    pub rows: u64,
    /// Smallest and greatest time, microseconds since the Unix epoch, outward to milliseconds.
    pub times_us: Option<(i64, i64)>,
}

impl Tally {
    pub(crate) fn add(&mut self, table: Table, add: &Add) {
        let stats = add.parsed_stats(table);
        self.files = self.files.saturating_add(1);
        self.bytes = self.bytes.saturating_add(add.bytes);
        self.rows = self.rows.saturating_add(stats.rows);
        if let Some((lo, hi)) = stats.times_us {
            let wider = |(a, b): (i64, i64)| (a.min(lo), b.max(hi));
            self.times_us = Some(self.times_us.map_or((lo, hi), wider));
        }
    }
}

/// What the lake's head knows of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) version: u64,
    /// Hash of that version.
    pub(crate) sha256: Sha256,
    /// Version and hash of the newest checkpoint.
    pub(crate) checkpoint: Option<(u64, Sha256)>,
    pub(crate) tally: Option<Tally>,
}

/// The log of one table.
#[derive(Debug, Clone)]
pub struct Log {
    table: Table,
    /// The newest version known and the hash of its bytes; `None`: the table does not exist yet.
    newest: Option<(u64, Option<Sha256>)>,
    /// Version of the newest checkpoint and the hash of its bytes, if a writer of this program told it.
    checkpoint: Option<(u64, Option<Sha256>)>,
    /// What the newest `txn` action of each application says.
    txns: BTreeMap<String, u64>,
    tail: Tail,
    /// `None`: a file was removed since the sums were made, or they never were.
    tally: Option<Tally>,
}

impl Log {
    /// A table that does not exist yet.
    pub(crate) fn empty(table: Table) -> Self {
        Self {
            table,
            newest: None,
            checkpoint: None,
            txns: BTreeMap::new(),
            tail: Tail::default(),
            tally: Some(Tally::default()),
        }
    }

    /// Reads the log of a table as any reader of Delta does: the newest checkpoint, then the
    /// versions after it up to the first that is not there.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn load(store: &dyn Store, table: Table) -> Result<Self, LogError> {
        let mut log = Self::empty(table);
        if let Some(version) = checkpoint::newest(store, table)? {
            log.begin_at(store, version, None)?;
        }
        log.refresh(store)?;
        Ok(log)
    }

    /// Reads the log of a table of which the head of the lake is known, and goes on beyond it.
    ///
    /// # Errors
    /// [`LogError`]; [`LogError::Hole`] and [`LogError::Altered`] if the log is not what was
    /// committed.
    pub(crate) fn resume(store: &dyn Store, table: Table, place: &Place) -> Result<Self, LogError> {
        let mut log = Self::empty(table);
        if let Some((version, hash)) = place.checkpoint
            && checkpoint::exists(store, table, version)?
        {
            log.begin_at(store, version, Some(hash))?;
        }
        let known = place.version;
        let path = || version_path(table, known);
        let mut newest = None;
        // The newest is read even if the checkpoint covers it: its loss shows there alone.
        for version in log.next().min(known)..=known {
            let Some((actions, hash)) = read_version(store, table, version)? else {
                let path = version_path(table, version);
                return Err(LogError::Hole { path, known });
            };
            newest = Some(hash);
            if version == log.next() {
                log.took(version, &actions, hash);
            }
        }
        if newest != Some(place.sha256) {
            return Err(LogError::Altered { path: path() });
        }
        log.newest = Some((known, newest));
        log.tally = place.tally;
        log.refresh(store)?;
        Ok(log)
    }

    /// The log as of `version`, read from the checkpoint `base` or the beginning: what a checkpoint of
    /// that version must hold. Gives the hash of its bytes.
    ///
    /// # Errors
    /// [`LogError`].
    pub(crate) fn checkpoint_sha256(
        store: &dyn Store,
        table: Table,
        base: Option<u64>,
        version: u64,
    ) -> Result<Sha256, LogError> {
        let mut log = Self::empty(table);
        if let Some(base) = base {
            log.begin_at(store, base, None)?;
        }
        while log.next() <= version {
            let at = log.next();
            let found = read_version(store, table, at)?;
            let (actions, hash) = found.ok_or_else(|| LogError::Hole {
                path: version_path(table, at),
                known: version,
            })?;
            log.took(at, &actions, hash);
        }
        Ok(log.encode_checkpoint(store, version)?.sha256)
    }

    fn begin_at(
        &mut self,
        store: &dyn Store,
        version: u64,
        hash: Option<Sha256>,
    ) -> Result<(), LogError> {
        self.txns = checkpoint::read_txns(store, self.table, version)?
            .into_iter()
            .collect();
        self.newest = Some((version, None));
        self.checkpoint = Some((version, hash));
        self.tail = Tail::begin(version + 1);
        self.tally = None;
        Ok(())
    }

    /// Reads the versions that others wrote since.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn refresh(&mut self, store: &dyn Store) -> Result<(), LogError> {
        while let Some((actions, hash)) = read_version(store, self.table, self.next())? {
            self.took(self.next(), &actions, hash);
        }
        Ok(())
    }

    /// The table.
    #[must_use]
    pub const fn table(&self) -> Table {
        self.table
    }

    /// The newest version known; `None`: the table does not exist yet.
    #[must_use]
    pub fn version(&self) -> Option<u64> {
        self.newest.map(|(version, _)| version)
    }

    /// The mark of a journal or of `prune`: the last position that it committed.
    #[must_use]
    pub fn mark(&self, app: &str) -> Option<u64> {
        self.txns.get(app).copied()
    }

    /// All marks.
    pub fn marks(&self) -> impl Iterator<Item = (&str, u64)> {
        let marks = self.txns.iter();
        marks
            .filter(|(app, _)| *app != TERM_APP && !app.contains('/'))
            .map(|(app, mark)| (app.as_str(), *mark))
    }

    /// How far the other sinks of a journal are, as the versions of this table say.
    pub fn sinks(&self, journal: &str) -> impl Iterator<Item = (&str, u64)> {
        self.txns.iter().filter_map(move |(app, position)| {
            let sink = app.strip_prefix(journal)?.strip_prefix('/')?;
            Some((sink, *position))
        })
    }

    /// The highest term in the log; 0 if no owner ever committed.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.mark(TERM_APP).unwrap_or(0)
    }

    /// Reads what hashes are not known yet: of the newest version if only a checkpoint told of it, and of
    /// the checkpoint. For a lake without a head, where nobody tells them.
    ///
    /// # Errors
    /// [`LogError`].
    pub(crate) fn learn_hashes(&mut self, store: &dyn Store) -> Result<(), LogError> {
        self.read_newest(store)?;
        if let Some((version, hash @ None)) = &mut self.checkpoint {
            *hash = Some(of_object(
                store,
                &checkpoint::checkpoint_path(self.table, *version),
            )?);
        }
        Ok(())
    }

    /// Reads the newest version if only a checkpoint told of it, so that its hash is known.
    ///
    /// # Errors
    /// [`LogError`].
    fn read_newest(&mut self, store: &dyn Store) -> Result<(), LogError> {
        if let Some((version, None)) = self.newest {
            let found = read_version(store, self.table, version)?;
            let (_, hash) = found.ok_or_else(|| LogError::Hole {
                path: version_path(self.table, version),
                known: version,
            })?;
            self.newest = Some((version, Some(hash)));
        }
        Ok(())
    }

    /// Where the log stands, for the head of the lake; `None` if there is no table, or its newest
    /// version was not read.
    pub(crate) fn place(&self) -> Option<Place> {
        let (version, sha256) = self.newest?;
        Some(Place {
            version,
            sha256: sha256?,
            checkpoint: self.checkpoint.and_then(|(at, hash)| Some((at, hash?))),
            tally: self.tally,
        })
    }

    /// Creates the table, unless it exists.
    ///
    /// - `term`: that of the owner who creates it.
    ///
    /// # Errors
    /// [`LogError`].
    pub(crate) fn create(
        &mut self,
        store: &dyn Store,
        term: Option<u64>,
        at_us: i64,
    ) -> Result<(), LogError> {
        if self.newest.is_some() {
            return Ok(());
        }
        let term = term.map(|term| (TERM_APP.to_owned(), term));
        let actions = Actions {
            txns: term.into_iter().collect(),
            ..Actions::default()
        };
        let text = creation_text(self.table, &actions, at_us);
        match store.put_if_absent(&version_path(self.table, 0), text.as_bytes())? {
            Put::Created => self.took(0, &actions, Sha256::of(text.as_bytes())),
            Put::Exists => self.refresh(store)?,
        }
        Ok(())
    }

    /// Commits `actions` as the next version, unless one of their marks is reached already.
    /// After an error the same call may be repeated: it finds out what happened.
    ///
    /// - `term`: that of the owner who commits; `None`: an operator's command, which is bound to no
    ///   term and repeats the newest.
    ///
    /// # Errors
    /// [`LogError`]; [`LogError::Fenced`] if a later term is in the log: never to be repeated.
    pub(crate) fn commit(
        &mut self,
        store: &dyn Store,
        actions: &Actions,
        at_us: i64,
        term: Option<u64>,
    ) -> Result<Committed, LogError> {
        for _ in 0..COMMIT_ATTEMPTS {
            self.create(store, term, at_us)?;
            self.expect_term(term)?;
            let reached = |(app, mark): &(String, u64)| self.mark(app).is_some_and(|m| m >= *mark);
            let marks = actions.txns.iter().filter(|(app, _)| !app.contains('/'));
            if marks.clone().any(reached) {
                return Ok(Committed::Before);
            }
            let mut actions = actions.clone();
            let term = term.unwrap_or(self.term());
            if term > 0 && actions.txns.iter().all(|(app, _)| app != TERM_APP) {
                actions.txns.push((TERM_APP.to_owned(), term));
            }
            self.read_newest(store)?;
            let chain = Chain {
                previous: self.newest.and_then(|(_, hash)| hash),
                checkpoint: self.checkpoint.and_then(|(at, hash)| Some((at, hash?))),
            };
            let text = actions_text(&actions, at_us, &chain);
            let version = self.next();
            match store.put_if_absent(&version_path(self.table, version), text.as_bytes())? {
                Put::Created => {
                    self.took(version, &actions, Sha256::of(text.as_bytes()));
                    return Ok(Committed::Now(version));
                }
                // Another writer, or we ourselves and the answer was lost.
                Put::Exists => self.refresh(store)?,
            }
        }
        Err(LogError::Crowded {
            table: self.table.name(),
            attempts: COMMIT_ATTEMPTS,
        })
    }

    /// Commits the term of a new owner as the next version, unless it is in the log. No commit of a
    /// lower term can follow.
    ///
    /// # Errors
    /// [`LogError`]; [`LogError::Fenced`] if a later term is in the log.
    pub(crate) fn raise_term(
        &mut self,
        store: &dyn Store,
        term: u64,
        at_us: i64,
    ) -> Result<Committed, LogError> {
        let actions = Actions {
            txns: vec![(TERM_APP.to_owned(), term)],
            ..Actions::default()
        };
        self.commit(store, &actions, at_us, Some(term))
    }

    fn expect_term(&self, own: Option<u64>) -> Result<(), LogError> {
        match own {
            Some(own) if own < self.term() && !sabotage::is(Bug::CommitAfterTakeover) => {
                Err(LogError::Fenced {
                    table: self.table.name(),
                    term: self.term(),
                })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Writes a checkpoint if `versions` versions came since the last one; by default
    /// [`CHECKPOINT_VERSIONS`].
    ///
    /// # Errors
    /// [`LogError`]; the table is whole all the same, and the next call tries again.
    pub fn checkpoint_if_due(
        &mut self,
        store: &dyn Store,
        versions: u64,
    ) -> Result<bool, LogError> {
        let Some(version) = self.version() else {
            return Ok(false);
        };
        if version - self.checkpoint.map_or(0, |(at, _)| at) < versions {
            return Ok(false);
        }
        let encoded = self.encode_checkpoint(store, version)?;
        if !checkpoint::write(store, self.table, version, &encoded)? {
            return Ok(false);
        }
        self.checkpoint = Some((version, Some(encoded.sha256)));
        Ok(true)
    }

    fn encode_checkpoint(
        &self,
        store: &dyn Store,
        version: u64,
    ) -> Result<checkpoint::Encoded, LogError> {
        let txns = self.txns.iter().map(|(app, mark)| (app.as_str(), *mark));
        checkpoint::encode(self.table, version, txns, |take| self.files(store, take))
    }

    /// Lets go of the actions that the checkpoint covers.
    pub(crate) fn forget_tail(&mut self) {
        let from = self.checkpoint.map_or(0, |(version, _)| version + 1);
        self.tail.begin_at(from, self.next());
    }

    /// Visits the files of the table as of the version known, oldest first. Memory: what was
    /// removed since the last checkpoint.
    ///
    /// # Errors
    /// [`LogError`], or the visitor's.
    pub fn files<E: From<LogError>>(
        &self,
        store: &dyn Store,
        mut visit: impl FnMut(Add) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.checkpoint.map_or(0, |(version, _)| version + 1);
        let mut removed = HashSet::new();
        for version in start..self.next() {
            removed.extend(self.actions(store, version)?.removes.iter().cloned());
        }
        if let Some((version, _)) = self.checkpoint {
            checkpoint::files(store, self.table, version, |add| {
                if removed.contains(&add.path) {
                    Ok(())
                } else {
                    visit(add)
                }
            })?;
        }
        for version in start..self.next() {
            for add in self.actions(store, version)?.into_owned().adds {
                // A path is added once: its name tells the positions that it holds.
                if !removed.contains(&add.path) {
                    visit(add)?;
                }
            }
        }
        Ok(())
    }

    /// The actions of a version that is there; read from the store only if memory has them not.
    ///
    /// # Errors
    /// [`LogError`]; [`LogError::Hole`] if it is not there.
    pub(crate) fn actions(
        &self,
        store: &dyn Store,
        version: u64,
    ) -> Result<Cow<'_, Actions>, LogError> {
        if let Some(actions) = self.tail.get(version) {
            return Ok(Cow::Borrowed(actions));
        }
        match read_version(store, self.table, version)? {
            Some((actions, _)) => Ok(Cow::Owned(actions)),
            None => Err(LogError::Hole {
                path: version_path(self.table, version),
                known: self.version().unwrap_or(version),
            }),
        }
    }

    /// The sums over all files. They are in memory, save after a file was removed.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn tally(&mut self, store: &dyn Store) -> Result<Tally, LogError> {
        if let Some(tally) = self.tally {
            return Ok(tally);
        }
        let mut tally = Tally::default();
        self.files::<LogError>(store, |add| {
            tally.add(self.table, &add);
            Ok(())
        })?;
        self.tally = Some(tally);
        Ok(tally)
    }

    pub(crate) fn next(&self) -> u64 {
        self.version().map_or(0, |version| version + 1)
    }

    fn took(&mut self, version: u64, actions: &Actions, hash: Sha256) {
        self.newest = Some((version, Some(hash)));
        for (app, mark) in &actions.txns {
            let known = self.txns.entry(app.clone()).or_default();
            *known = (*known).max(*mark);
        }
        self.tail.push(actions);
        if !actions.removes.is_empty() {
            self.tally = None;
        }
        if let Some(tally) = &mut self.tally {
            actions
                .adds
                .iter()
                .for_each(|add| tally.add(self.table, add));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tail::MAX_TAIL_FILES;
    use super::*;
    use crate::store::{Call, MemStore};

    fn adds(first: usize, count: usize) -> Actions {
        let add = |n: usize| Add {
            path: format!("hot/dt=2026-11-22/{n}.parquet"),
            dt: "2026-11-22".to_owned(),
            bytes: 1,
            modified_ms: 0,
            stats: "{\"numRecords\":2}".to_owned(),
            sha256: n.is_multiple_of(2).then(|| Sha256::of(&n.to_le_bytes())),
        };
        Actions {
            adds: (first..first + count).map(add).collect(),
            ..Actions::default()
        }
    }

    fn count(log: &Log, store: &MemStore) -> usize {
        let mut files = 0;
        log.files::<LogError>(store, |_| {
            files += 1;
            Ok(())
        })
        .unwrap();
        files
    }

    #[test]
    fn a_log_with_more_files_than_memory_keeps_is_read_from_the_store() {
        let store = MemStore::new();
        let mut log = Log::empty(Table::Samples);
        log.commit(&store, &adds(0, MAX_TAIL_FILES), 0, None)
            .unwrap();
        store.forget_calls();
        assert_eq!(count(&log, &store), MAX_TAIL_FILES);
        assert_eq!(store.calls(Call::Get), 0);
        log.commit(&store, &adds(MAX_TAIL_FILES, 1), 0, None)
            .unwrap();
        assert_eq!(count(&log, &store), MAX_TAIL_FILES + 1);
        assert!(store.calls(Call::Get) > 0);
        assert_eq!(log.tally(&store).unwrap().files, MAX_TAIL_FILES as u64 + 1);
        // After a checkpoint there is room again.
        assert!(log.checkpoint_if_due(&store, 1).unwrap());
        log.forget_tail();
        log.commit(&store, &adds(MAX_TAIL_FILES + 1, 1), 0, None)
            .unwrap();
        store.forget_calls();
        assert_eq!(count(&log, &store), MAX_TAIL_FILES + 2);
        assert_eq!(store.calls(Call::Get), 0);
    }

    #[test]
    fn sums_follow_what_is_added_and_are_made_anew_after_a_removal() {
        let store = MemStore::new();
        let mut log = Log::empty(Table::Samples);
        for first in 0..3 {
            log.commit(&store, &adds(first, 1), 0, None).unwrap();
        }
        let removal = Actions {
            removes: vec![adds(1, 1).adds[0].path.clone()],
            ..Actions::default()
        };
        log.commit(&store, &removal, 0, None).unwrap();
        let tally = log.tally(&store).unwrap();
        assert_eq!((tally.files, tally.rows), (2, 4));
        log.commit(&store, &adds(7, 1), 0, None).unwrap();
        store.forget_calls();
        assert_eq!(log.tally(&store).unwrap().files, 3);
        assert!(store.all_calls().is_empty());
    }

    #[test]
    fn a_checkpoint_with_other_bytes_is_left_alone_and_a_later_version_gets_one() {
        let store = MemStore::new();
        let mut log = Log::empty(Table::Samples);
        log.commit(&store, &adds(0, 3), 0, None).unwrap();
        let path = checkpoint::checkpoint_path(Table::Samples, 1);
        store.put_if_absent(&path, b"of somebody else").unwrap();
        assert!(!log.checkpoint_if_due(&store, 1).unwrap());
        assert_eq!(store.get(&path).unwrap(), b"of somebody else".as_slice());
        assert_eq!(checkpoint::newest(&store, Table::Samples).unwrap(), None);
        log.commit(&store, &adds(3, 1), 0, None).unwrap();
        assert!(log.checkpoint_if_due(&store, 1).unwrap());
        // The same state again, made from the beginning and from a checkpoint: the same bytes.
        let expected = log.checkpoint.unwrap().1.unwrap();
        let again = |base| Log::checkpoint_sha256(&store, Table::Samples, base, 2).unwrap();
        assert_eq!(again(None), expected);
        log.commit(&store, &adds(4, 1), 0, None).unwrap();
        let at_3 = |base| Log::checkpoint_sha256(&store, Table::Samples, base, 3).unwrap();
        assert_eq!(at_3(Some(2)), at_3(None));
        let mut files = Vec::new();
        let read = Log::load(&store, Table::Samples).unwrap();
        read.files::<LogError>(&store, |add| {
            files.push(add);
            Ok(())
        })
        .unwrap();
        assert_eq!(files, adds(0, 5).adds, "hashes and all");
    }

    #[test]
    fn actions_that_a_checkpoint_covers_are_let_go_of() {
        let store = MemStore::new();
        let mut log = Log::empty(Table::Samples);
        for first in 0..3 {
            log.commit(&store, &adds(first, 1), 0, None).unwrap();
        }
        assert!(log.checkpoint_if_due(&store, 2).unwrap());
        log.commit(&store, &adds(3, 1), 0, None).unwrap();
        assert!(matches!(log.actions(&store, 3).unwrap(), Cow::Borrowed(_)));
        log.forget_tail();
        log.forget_tail();
        assert_eq!(count(&log, &store), 4);
        assert!(matches!(log.actions(&store, 4).unwrap(), Cow::Borrowed(_)));
        assert!(matches!(log.actions(&store, 3).unwrap(), Cow::Owned(_)));
        assert!(matches!(log.actions(&store, 9), Err(LogError::Hole { .. })));
    }
}
