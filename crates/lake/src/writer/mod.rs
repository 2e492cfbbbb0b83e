//! The lake as its writer sees it: stage, publish, commit, finish.
//!
//! | step | what is durable after it | a crash after it is mended by |
//! |---|---|---|
//! | [`Lake::stage`] | the files, under no name of a table | nothing: they are deleted at [`Lake::recover`] |
//! | (the caller syncs the plan into its journal) | what will be published | [`Lake::recover`] with that plan |
//! | [`Lake::publish`] | the files, under their final names | the same |
//! | [`Lake::commit`] | the rows, for every reader of the log | the same: marks tell what is done |
//! | [`Lake::finish`] | the stage is empty | the same |
//!
//! Tables commit in the order of [`Table::ALL`], each with `txn(journal, last position)`, then the
//! head is replaced. [`Lake::cursor`] is the highest of these marks: exact once [`Lake::recover`] has
//! run.
//!
//! One journal owns the lake ([`crate::owner`]). File names carry its term, so that what an earlier
//! owner published and did not commit can be told apart for good, and is never taken for what a
//! later one publishes.

mod beyond;
mod head;
mod marks;
mod open;
mod schemas;
mod sweep;

use std::collections::BTreeMap;

use headwater_proto::ids::JournalId;
use headwater_proto::sabotage::{self, Bug};

use crate::audit::StreamMark;
use crate::catalog;
use crate::delta::{Actions, Add, CHECKPOINT_VERSIONS, Committed, Log, stats_text};
use crate::error::LakeError;
use crate::files::for_each_file;
use crate::head::Head;
use crate::owner::{self, Claim, Owner, Ownership};
use crate::parquet::Origin;
use crate::paths::{
    MARKS_PATH, STAGE_DIR, Staged, path_in_table, schema_path, stage_path, table_path,
};
use crate::plan::{Plan, PlanFile, Sha256, WRITER_VERSION};
use crate::rows::Rows;
use crate::schema::{Encoding, Table};
use crate::store::{Put, Store, StoreError};
pub use beyond::Beyond;
use head::HeadKeeper;
use marks::MarksKeeper;
pub(crate) use marks::{are_whole as marks_are_whole, differing as differing_marks};
pub use open::Found;
use schemas::KnownSchemas;
pub use sweep::{MAX_NAMESAKES, MAX_SWEPT, Swept};

/// Times that an object which others may change is written while it changes below: owners change
/// once in months.
const SWAP_ATTEMPTS: u32 = 8;

/// How a lake is written.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How files are laid out.
    pub encoding: Encoding,
    /// Versions of a table's log between two checkpoints: what a reader must replay at most.
    pub checkpoint_versions: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            encoding: Encoding::default(),
            checkpoint_versions: CHECKPOINT_VERSIONS,
        }
    }
}

/// The records `first_pos..=last_pos` of a journal, as rows. All rows of a batch are in one flush.
#[derive(Debug, Clone, Copy)]
pub struct Flush<'a> {
    /// The journal.
    pub journal: JournalId,
    /// First record, inclusive.
    pub first_pos: u64,
    /// Last record, inclusive; the cursor once committed.
    pub last_pos: u64,
    /// When the flush was cut.
    pub at_us: i64,
    /// Their rows.
    pub rows: &'a Rows,
    /// How far the other sinks of the journal are: the first position that each has not finished. Also
    /// how far sinks of earlier journals are settled, under `<journal>/<sink>` ([`Lake::beyond`]).
    pub sinks: &'a [(String, u64)],
}

/// What a start found and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// What was there.
    pub found: Found,
    /// The owner that is recorded was this journal, so that nobody else has written since.
    pub went_on: bool,
    /// The owner before this one, if there was another.
    pub before: Option<Owner>,
    /// When an owner, this journal or another one, was last known to run, Unix µs.
    pub last_us: Option<i64>,
}

/// A lake that this program writes.
pub struct Lake<S> {
    store: S,
    settings: Settings,
    logs: Vec<Log>,
    ownership: Ownership,
    head: HeadKeeper,
    marks: MarksKeeper,
    schemas: KnownSchemas,
    opened: Opened,
    trouble: Option<LakeError>,
    withdrawn: Swept,
}

impl<S: Store> Lake<S> {
    /// Opens the lake in `store` for the owner that `claim` names; creates its tables where they are
    /// missing.
    ///
    /// # Errors
    /// [`LakeError`]; [`LakeError::Owned`] if another owner lives; [`LakeError::Log`] if the lake is
    /// not as it was left, with what to do about it; [`LakeError::Absent`] if the claim needs one and
    /// there is none. Nothing is changed then.
    pub fn open(store: S, settings: Settings, claim: &Claim) -> Result<Self, LakeError> {
        let found_owner = owner::look(&store)?;
        let before = found_owner.as_ref().map(|(owner, _)| *owner);
        // Who may not write reads nothing either.
        owner::claimed(before.as_ref(), claim, 0)?;
        store.tidy()?;
        let head = HeadKeeper::read(&store)?;
        let (mut logs, found) = open::read_logs(&store, head.head())?;
        let is_own = before.is_some_and(|owner| owner.journal == claim.owner);
        if found == Found::Adopted || found == Found::Whole && !is_own {
            open::expect_all_versions(&store, &mut logs, claim)?;
        }
        if claim.is_known && found == Found::New {
            return Err(LakeError::Absent);
        }
        store.prove()?;
        let in_logs = logs.iter().map(Log::term).max().unwrap_or(0);
        let seen = head.head().map_or(0, |head| head.term).max(in_logs);
        let ownership = Ownership::acquire(&store, found_owner, claim, seen)?;
        let known = before.map(|owner| (owner.journal, owner.term));
        let went_on = known == Some((claim.owner, ownership.term()));
        let mut lake = Self {
            store,
            settings,
            logs,
            ownership,
            head,
            marks: MarksKeeper::default(),
            schemas: KnownSchemas::default(),
            opened: Opened {
                found,
                went_on,
                before: before.filter(|owner| owner.journal != claim.owner),
                last_us: before.map(|owner| owner.last_known_us()),
            },
            trouble: None,
            withdrawn: Swept::default(),
        };
        let begun = lake.begin_term(claim.now_us);
        lake.noted(begun)?;
        Ok(lake)
    }

    /// Makes sure that every table exists and bears the owner's term, that the head says so, and
    /// that an adopted lake has marks.
    fn begin_term(&mut self, now_us: i64) -> Result<(), LakeError> {
        let term = self.ownership.term();
        for log in &mut self.logs {
            log.create(&self.store, Some(term), now_us)?;
            log.raise_term(&self.store, term, now_us)?;
        }
        self.marks = MarksKeeper::begin(&self.logs);
        self.write_head()?;
        if self.opened.found == Found::Adopted {
            self.marks.checkpointed();
            self.write_marks()?;
        }
        Ok(())
    }

    /// Goes on under the name of another journal, as a takeover from itself.
    ///
    /// # Errors
    /// [`LakeError`].
    pub fn rename(&mut self, journal: JournalId, now_us: i64) -> Result<(), LakeError> {
        let old = *self.ownership.owner();
        self.ownership.rename(&self.store, journal, now_us)?;
        self.opened.went_on = false;
        self.opened.before = Some(old);
        let begun = self.begin_term(now_us);
        self.noted(begun)
    }

    /// The store below.
    pub const fn store(&self) -> &S {
        &self.store
    }

    /// The log of a table as far as it is known here.
    pub fn log(&self, table: Table) -> &Log {
        &self.logs[table as usize]
    }

    /// What the start found.
    pub const fn opened(&self) -> &Opened {
        &self.opened
    }

    /// Who this writer is.
    pub const fn owner(&self) -> &Owner {
        self.ownership.owner()
    }

    /// Something that went wrong beside a commit that succeeded, once: marks that could not be made.
    pub const fn take_trouble(&mut self) -> Option<LakeError> {
        self.trouble.take()
    }

    /// Renews the owner's lease when half of it is over; to be called every few seconds.
    ///
    /// # Errors
    /// [`LakeError::Fenced`] if there is a later owner; other errors do no harm for a while.
    pub fn keep(&mut self, now_us: i64) -> Result<(), LakeError> {
        self.ownership.keep(&self.store, now_us)
    }

    /// Ends the owner's lease at an orderly end, so that another journal need not wait.
    ///
    /// # Errors
    /// As [`Self::keep`].
    pub fn release(&mut self, now_us: i64) -> Result<(), LakeError> {
        self.ownership.release(&self.store, now_us)
    }

    /// Last position of the journal that is in the lake, `None` if none ever was. Exact once
    /// [`Self::recover`] has run; before, a flush that is half committed counts as whole.
    pub fn cursor(&self, journal: JournalId) -> Option<u64> {
        let app = journal.to_string();
        self.logs.iter().filter_map(|log| log.mark(&app)).max()
    }

    /// Whether the lake has less of a journal than its last plan shows: it was brought back older. To be
    /// asked before [`Self::recover`].
    ///
    /// - `known`: the first position that the journal does not know to be in the lake.
    pub fn is_older(&self, plan: &Plan, known: u64) -> bool {
        let is_done = plan.last_pos < known;
        let least = if is_done {
            Some(plan.last_pos)
        } else {
            plan.after
        };
        self.cursor(plan.journal) < least
    }

    /// How far the other sinks of a journal are, as its flushes in the lake say: the first position that
    /// each had not finished, and all before it is named in the lake if the sink lacks it.
    pub fn sinks(&self, journal: JournalId) -> BTreeMap<String, u64> {
        let app = journal.to_string();
        let mut sinks = BTreeMap::new();
        for (name, at) in self.logs.iter().flat_map(|log| log.sinks(&app)) {
            let known: &mut u64 = sinks.entry(name.to_owned()).or_default();
            *known = at.max(*known);
        }
        sinks
    }

    /// What the lake holds of each stream: from the marks, and the files that came since.
    ///
    /// # Errors
    /// [`LakeError`].
    pub fn marks(&mut self) -> Result<Vec<StreamMark>, LakeError> {
        self.fold_marks(Vec::new, Vec::push)
    }

    /// As [`Lake::marks`], one stream after the other: a lake may have had more than stand in memory. `take` adds
    /// to what `begin` makes, which is made anew if marks turn out to be damaged, since all is told again then.
    ///
    /// # Errors
    /// [`LakeError`].
    pub fn fold_marks<T>(
        &mut self,
        begin: impl FnMut() -> T,
        take: impl FnMut(&mut T, StreamMark),
    ) -> Result<T, LakeError> {
        self.refresh()?;
        self.marks.fold(&self.store, &self.logs, begin, take)
    }

    /// Learns what commands have committed since: `prune` removes files.
    fn refresh(&mut self) -> Result<(), LakeError> {
        for log in &mut self.logs {
            log.refresh(&self.store)?;
            self.marks.committed(None, log, None);
        }
        Ok(())
    }

    /// Encodes the rows to staged files, syncs them and says what to publish. The caller must make
    /// the plan durable before it publishes. A flush without rows gives a plan without files,
    /// which need not be kept: it commits nothing, and the cursor stays.
    ///
    /// The same rows under the same term give the same plan and the same bytes, in every process and
    /// at any time. Memory: one encoded file, and 24 bytes per reading of one date for the sort.
    ///
    /// # Errors
    /// [`LakeError`]; staged files are replaced by the next try.
    pub fn stage(&mut self, flush: &Flush<'_>) -> Result<Plan, LakeError> {
        let Flush {
            journal,
            first_pos,
            last_pos,
            at_us,
            rows,
            sinks,
        } = *flush;
        self.ownership.check()?;
        if let Some(cursor) = self.cursor(journal).filter(|cursor| *cursor >= last_pos) {
            return Err(LakeError::Behind { last_pos, cursor });
        }
        let encoding = self.settings.encoding;
        let mut plan = Plan {
            journal,
            term: self.ownership.term(),
            first_pos,
            last_pos,
            after: self.cursor(journal),
            at_us,
            encoding,
            writer: WRITER_VERSION,
            sinks: sinks.to_vec(),
            files: vec![],
        };
        let writer = journal.to_string();
        let origin = Origin {
            writer: &writer,
            first_pos,
            last_pos,
        };
        let mut staged = Vec::new();
        for_each_file(rows, encoding, origin, |file| {
            let planned = PlanFile {
                table: file.table,
                day: file.day,
                bytes: file.bytes.len() as u64,
                sha256: Sha256::of(&file.bytes),
                rows: file.rows,
                times_us: file.times_us,
                keys: file.keys,
            };
            let path = stage_path(&plan, &planned);
            self.store.stage(&path, &file.bytes)?;
            staged.push(path);
            plan.files.push(planned);
            Ok::<(), LakeError>(())
        })?;
        if !staged.is_empty() {
            let staged: Vec<&str> = staged.iter().map(String::as_str).collect();
            let synced = self.store.sync_stage(&staged).map_err(LakeError::Store);
            self.unless_taken_over(synced)?;
        }
        self.marks.staged(&plan, crate::marks::holdings_of(rows));
        Ok(plan)
    }

    /// Gives the staged files their final names, after asking the lake whether this is still its
    /// owner. May be repeated.
    ///
    /// # Errors
    /// [`LakeError`]; [`LakeError::Conflict`] and [`LakeError::Fenced`] must stop this journal.
    pub fn publish(&mut self, plan: &Plan) -> Result<(), LakeError> {
        self.ownership.confirm(&self.store)?;
        let published = self.publish_files(plan);
        self.unless_taken_over(published)
    }

    /// Files that vanish under a writer are what a later owner swept.
    fn unless_taken_over(&mut self, result: Result<(), LakeError>) -> Result<(), LakeError> {
        if let Err(LakeError::Store(StoreError::Missing { .. }) | LakeError::Lost { .. }) = result {
            self.ownership.confirm(&self.store)?;
        }
        result
    }

    fn publish_files(&self, plan: &Plan) -> Result<(), LakeError> {
        for file in &plan.files {
            let target = table_path(plan, file, self.ownership.term());
            match self.store.publish(&stage_path(plan, file), &target) {
                Ok(Put::Created) => {}
                Ok(Put::Exists) => self.verify(&target, file)?,
                Err(StoreError::Missing { .. }) => {
                    if self.store.size(&target)?.is_none() {
                        return Err(LakeError::Lost { path: target });
                    }
                    self.verify(&target, file)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn verify(&self, path: &str, file: &PlanFile) -> Result<(), LakeError> {
        if self.store.sha256(path)? == file.sha256 {
            Ok(())
        } else {
            Err(LakeError::Conflict {
                path: path.to_owned(),
            })
        }
    }

    /// Adds the published files to their tables, table by table in commit order, then replaces the
    /// head. May be repeated: tables that hold the plan already are left alone.
    ///
    /// # Errors
    /// [`LakeError`]; [`LakeError::Fenced`] must stop this journal: nothing more is committed.
    pub fn commit(&mut self, plan: &Plan) -> Result<(), LakeError> {
        self.ownership.check()?;
        let committed = self.commit_tables(plan).and_then(|()| self.write_head());
        let committed = committed.and_then(|()| self.write_marks());
        self.noted(committed)?;
        self.logs.iter_mut().for_each(Log::forget_tail);
        Ok(())
    }

    fn commit_tables(&mut self, plan: &Plan) -> Result<(), LakeError> {
        let app = plan.journal.to_string();
        let term = self.ownership.term();
        let last = plan.files.iter().map(|file| file.table).max();
        let mut logs: Vec<&mut Log> = self.logs.iter_mut().collect();
        if sabotage::is(Bug::SamplesAfterGaps) {
            logs.reverse();
        }
        for log in logs {
            let files = plan.files.iter().filter(|file| file.table == log.table());
            let adds: Vec<Add> = files.map(|file| add(plan, file, term)).collect();
            if adds.is_empty() {
                continue;
            }
            let mut txns = vec![(app.clone(), plan.last_pos)];
            txns.extend(beyond::places(plan, log, last));
            let actions = Actions {
                adds,
                removes: Vec::new(),
                txns,
            };
            let committed = log.commit(&self.store, &actions, plan.at_us, Some(term))?;
            let own = match committed {
                Committed::Now(version) => Some(version),
                Committed::Before => None,
            };
            self.marks.committed(Some(plan), log, own);
            if log.checkpoint_if_due(&self.store, self.settings.checkpoint_versions)? {
                self.marks.checkpointed();
            }
        }
        self.marks.done(plan, &self.logs);
        Ok(())
    }

    fn write_head(&mut self) -> Result<(), LakeError> {
        let owner = self.ownership.owner();
        let head = Head::of(owner.journal, owner.term, &self.logs);
        self.head.write(&self.store, head)
    }

    /// Writes the marks if they are due. They are no part of a commit: only what stops everything
    /// else stops it too.
    fn write_marks(&mut self) -> Result<(), LakeError> {
        if !self.marks.is_due() {
            return Ok(());
        }
        self.refresh()?;
        let term = self.ownership.term();
        match self.marks.write(&self.store, &self.logs, term) {
            Err(error @ (LakeError::Store(_) | LakeError::Fenced { .. })) => Err(error),
            Err(error) => {
                self.marks.give_up();
                self.trouble = Some(error);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Notes a fence, with the name of who set it where the owner's object tells.
    fn noted<T>(&mut self, result: Result<T, LakeError>) -> Result<T, LakeError> {
        let Err(LakeError::Fenced { term, owner: None }) = result else {
            return result.map_err(|error| self.ownership.note(error));
        };
        let found = owner::look(&self.store).ok().flatten();
        let owner = found.map(|(owner, _)| owner.journal);
        Err(self.ownership.note(LakeError::Fenced { term, owner }))
    }

    /// Empties the stage of a committed plan. May be repeated.
    ///
    /// # Errors
    /// [`LakeError`].
    pub fn finish(&self, plan: &Plan) -> Result<(), LakeError> {
        for file in &plan.files {
            self.store.unstage(&stage_path(plan, file))?;
        }
        Ok(())
    }

    /// Brings the lake to where the journal's last plan puts it, then removes what a crash left in
    /// the stage. To be called before anything else is staged; may be repeated.
    ///
    /// - `plan`: the last plan in the journal, if there is one; a committed one does no harm.
    ///
    /// # Errors
    /// [`LakeError`]; [`LakeError::Lost`] if a damaged disk lost staged files, and
    /// [`LakeError::Conflict`] if other bytes stand under the plan's names: an old copy of the journal
    /// was brought back, and those are of the time that is undone. What stands under the plan's names
    /// and is not committed is set aside then ([`Self::take_withdrawn`]), so that the records can be
    /// staged again.
    pub fn recover(&mut self, journal: JournalId, plan: Option<&Plan>) -> Result<(), LakeError> {
        if let Some(plan) = plan.filter(|plan| !self.is_committed(plan)) {
            let term = self.ownership.term();
            // Under an earlier term it may have been published under other names.
            self.withdraw(plan, plan.term..term)?;
            match self.publish(plan) {
                Err(error @ (LakeError::Lost { .. } | LakeError::Conflict { .. })) => {
                    self.withdraw(plan, term..term + 1)?;
                    return Err(error);
                }
                other => other?,
            }
            self.commit(plan)?;
        }
        let own = |path: &String| {
            let term = self.ownership.term();
            Staged::parse(path).is_some_and(|s| s.journal == journal && s.term <= term)
        };
        for path in self
            .store
            .staged(STAGE_DIR)?
            .iter()
            .filter(|path| own(path))
        {
            self.store.unstage(path)?;
        }
        Ok(())
    }

    /// What [`Self::recover`] has set aside since it was asked last.
    pub fn take_withdrawn(&mut self) -> Swept {
        std::mem::take(&mut self.withdrawn)
    }

    /// Sets aside what a plan published under some terms in tables that have not committed it. Those
    /// terms are this owner's or earlier, so that it never will be.
    fn withdraw(&mut self, plan: &Plan, terms: std::ops::Range<u64>) -> Result<(), LakeError> {
        let app = plan.journal.to_string();
        for file in &plan.files {
            if self.log(file.table).mark(&app) >= Some(plan.last_pos) {
                continue;
            }
            for term in terms.clone() {
                let path = table_path(plan, file, term);
                self.withdrawn.set_aside(&self.store, file.table, &path)?;
            }
        }
        Ok(())
    }

    /// Sets aside what earlier owners published without a commit, and removes what they staged and
    /// committed. Only files of lower terms than this owner's: no commit can ever name those, for
    /// every table bears this term. A collector calls it after a takeover, before it serves.
    ///
    /// # Errors
    /// [`LakeError`]; may be repeated.
    pub fn sweep(&mut self) -> Result<Swept, LakeError> {
        self.ownership.check()?;
        sweep::sweep(&self.store, &self.logs, self.ownership.term())
    }

    fn is_committed(&self, plan: &Plan) -> bool {
        let app = plan.journal.to_string();
        let done = |f: &PlanFile| self.log(f.table).mark(&app) >= Some(plan.last_pos);
        plan.files.iter().all(done)
    }

    /// Keeps a wire schema under its SHA-256, so that a parked or replayed batch can be read as
    /// long as the lake stands. One that was put or found before costs nothing.
    ///
    /// # Errors
    /// [`LakeError`].
    pub fn put_schema(&mut self, schema: &[u8]) -> Result<Sha256, LakeError> {
        let hash = Sha256::of(schema);
        if !self.schemas.has(hash) {
            self.ownership.check()?;
            self.store.put_if_absent(&schema_path(hash), schema)?;
            self.schemas.learn(hash);
        }
        Ok(hash)
    }

    /// The wire schema of a hash, `None` if the lake has none.
    ///
    /// # Errors
    /// [`LakeError`]; [`LakeError::Conflict`] if its bytes are damaged.
    pub fn schema(&self, hash: Sha256) -> Result<Option<Vec<u8>>, LakeError> {
        let path = schema_path(hash);
        match self.store.find(&path)? {
            Some(bytes) if Sha256::of(&bytes) != hash => Err(LakeError::Conflict { path }),
            found => Ok(found.map(|bytes| bytes.to_vec())),
        }
    }

    /// Commits what an operator's repair changes in a table.
    ///
    /// # Errors
    /// [`LakeError`].
    pub(crate) fn amend(
        &mut self,
        table: Table,
        actions: &Actions,
        now_us: i64,
    ) -> Result<(), LakeError> {
        let term = self.ownership.term();
        self.logs[table as usize].commit(&self.store, actions, now_us, Some(term))?;
        Ok(())
    }

    /// Writes a checkpoint of a table's newest version.
    ///
    /// # Errors
    /// [`LakeError`].
    pub(crate) fn checkpoint(&mut self, table: Table) -> Result<(), LakeError> {
        self.logs[table as usize].checkpoint_if_due(&self.store, 1)?;
        Ok(())
    }

    /// Replaces the head after that, and makes the marks anew from the files.
    ///
    /// # Errors
    /// [`LakeError`].
    pub(crate) fn settle(&mut self) -> Result<(), LakeError> {
        self.write_head()?;
        self.store.delete(MARKS_PATH)?;
        self.marks = MarksKeeper::begin(&self.logs);
        self.marks.checkpointed();
        self.write_marks()
    }

    /// Rewrites `catalog.json` from memory: see [`crate::catalog`].
    ///
    /// # Errors
    /// [`LakeError`].
    pub fn write_catalog(&mut self) -> Result<(), LakeError> {
        self.ownership.check()?;
        let text = catalog::catalog(&self.store, &mut self.logs)?;
        Ok(self.store.replace(catalog::CATALOG_PATH, text.as_bytes())?)
    }
}

/// An object changed again and again while it was to be replaced.
fn restless(path: &str) -> LakeError {
    LakeError::Store(StoreError::Io {
        action: "replace",
        path: path.to_owned(),
        source: std::io::Error::other("it changed again and again"),
    })
}

fn add(plan: &Plan, file: &PlanFile, term: u64) -> Add {
    let keys = (file.keys.0.as_str(), file.keys.1.as_str());
    Add {
        path: path_in_table(plan, file, term),
        dt: crate::date::date_text(file.day),
        bytes: file.bytes,
        modified_ms: plan.at_us.div_euclid(1_000),
        stats: stats_text(file.table, file.rows, file.times_us, keys),
        sha256: Some(file.sha256),
    }
}

impl Plan {
    /// Paths of its files from the root of the lake, in commit order, as the owner publishes them
    /// who staged them.
    pub fn paths(&self) -> impl Iterator<Item = String> {
        self.files
            .iter()
            .map(|file| table_path(self, file, self.term))
    }
}
