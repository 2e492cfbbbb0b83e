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
//! Tables commit in the order of [`Table::ALL`], each with `txn(journal, last position)`.
//! [`Lake::cursor`] is the highest of these marks: exact once [`Lake::recover`] has run.

use headwater_proto::ids::JournalId;
use parquet::errors::ParquetError;

use crate::date::date_text;
use crate::delta::{Actions, Add, CHECKPOINT_VERSIONS, Log, LogError, stats_text};
use crate::files::for_each_file;
use crate::parquet::Origin;
use crate::plan::{Plan, PlanFile, Sha256, WRITER_VERSION};
use crate::rows::Rows;
use crate::schema::{Encoding, Table};
use crate::store::{Put, Store, StoreError};

/// Folder of staged files, one folder per journal below it.
const STAGE_DIR: &str = "_headwater/stage";

/// Folder of wire schemas and dictionaries by their SHA-256.
const SCHEMAS_DIR: &str = "_headwater/schemas";

/// Folder of a table's files as they were flushed.
pub(crate) const HOT_DIR: &str = "hot";

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

/// The records `first_pos..=last_pos` of a journal, as rows.
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
}

/// Why the lake could not be written.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    /// The store refused; the same step may be repeated.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A log could not be read or written.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The rows could not be encoded.
    #[error("cannot encode a file: {0}")]
    Encode(#[from] ParquetError),
    /// A file of that name has other bytes: two writers share a journal id, or the disk is damaged.
    #[error("{path} exists with other bytes than planned; two writers may share one journal")]
    Conflict {
        /// The file.
        path: String,
    },
    /// Neither stage nor table holds a planned file. The rows are still in the journal: staging the
    /// same records again gives the same files.
    #[error("{path} is planned, and neither staged nor published; stage its records again")]
    Lost {
        /// The file.
        path: String,
    },
    /// The flush ends before a position that is committed already.
    #[error("positions to {last_pos} are to be staged, but {cursor} is committed already")]
    Behind {
        /// Last position of the flush.
        last_pos: u64,
        /// The lake's cursor.
        cursor: u64,
    },
}

/// A lake that this program writes.
pub struct Lake<S> {
    store: S,
    settings: Settings,
    logs: Vec<Log>,
}

impl<S: Store> Lake<S> {
    /// Opens the lake in `store`; creates its tables where they are missing.
    ///
    /// # Errors
    /// [`LakeError`].
    pub fn open(store: S, settings: Settings) -> Result<Self, LakeError> {
        let mut logs = Vec::with_capacity(Table::ALL.len());
        for table in Table::ALL {
            let mut log = Log::load(&store, table)?;
            log.create(&store)?;
            logs.push(log);
        }
        Ok(Self {
            store,
            settings,
            logs,
        })
    }

    /// The store below.
    pub const fn store(&self) -> &S {
        &self.store
    }

    /// The log of a table as far as it is known here.
    pub fn log(&self, table: Table) -> &Log {
        &self.logs[table as usize]
    }

    /// Last position of the journal that is in the lake, `None` if none ever was. Exact once
    /// [`Self::recover`] has run; before, a flush that is half committed counts as whole.
    pub fn cursor(&self, journal: JournalId) -> Option<u64> {
        let app = journal.to_string();
        self.logs.iter().filter_map(|log| log.mark(&app)).max()
    }

    /// Whether the journal is known to be the last that wrote to this lake. Where another one did
    /// meanwhile, what that one brought is in no other journal.
    pub fn is_last_writer(&self, journal: JournalId) -> bool {
        let app = journal.to_string();
        [Table::Samples, Table::Epochs]
            .into_iter()
            .all(|table| self.log(table).is_newest(&app))
    }

    /// Encodes the rows to staged files, syncs them and says what to publish. The caller must make
    /// the plan durable before it publishes. A flush without rows gives a plan without files,
    /// which need not be kept: it commits nothing, and the cursor stays.
    ///
    /// The same rows give the same plan and the same bytes, in every process and at any time.
    /// Memory: one encoded file, and 24 bytes per reading of one date for the sort.
    ///
    /// # Errors
    /// [`LakeError`]; staged files are replaced by the next try.
    pub fn stage(&self, flush: &Flush<'_>) -> Result<Plan, LakeError> {
        let Flush {
            journal,
            first_pos,
            last_pos,
            at_us,
            rows,
        } = *flush;
        if let Some(cursor) = self.cursor(journal).filter(|cursor| *cursor >= last_pos) {
            return Err(LakeError::Behind { last_pos, cursor });
        }
        let encoding = self.settings.encoding;
        let mut plan = Plan {
            journal,
            first_pos,
            last_pos,
            at_us,
            encoding,
            writer: WRITER_VERSION,
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
            self.store
                .sync_stage(&staged.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
        Ok(plan)
    }

    /// Gives the staged files their final names. May be repeated.
    ///
    /// # Errors
    /// [`LakeError`]; [`LakeError::Conflict`] must stop this journal.
    pub fn publish(&self, plan: &Plan) -> Result<(), LakeError> {
        for file in &plan.files {
            let target = table_path(plan, file);
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
        if Sha256::of(&self.store.get(path)?) == file.sha256 {
            Ok(())
        } else {
            Err(LakeError::Conflict {
                path: path.to_owned(),
            })
        }
    }

    /// Adds the published files to their tables, table by table in commit order. May be repeated:
    /// tables that hold the plan already are left alone.
    ///
    /// # Errors
    /// [`LakeError`].
    pub fn commit(&mut self, plan: &Plan) -> Result<(), LakeError> {
        let app = plan.journal.to_string();
        for table in Table::ALL {
            let adds: Vec<Add> = plan
                .files
                .iter()
                .filter(|f| f.table == table)
                .map(|f| add(plan, f))
                .collect();
            if adds.is_empty() {
                continue;
            }
            let txns = vec![(app.clone(), plan.last_pos)];
            let actions = Actions {
                adds,
                removes: Vec::new(),
                txns,
            };
            let log = &mut self.logs[table as usize];
            log.commit(&self.store, &actions, plan.at_us)?;
            log.checkpoint_if_due(&self.store, self.settings.checkpoint_versions)?;
        }
        Ok(())
    }

    /// Empties the stage of a committed plan. May be repeated.
    ///
    /// # Errors
    /// [`LakeError`].
    pub fn finish(&self, plan: &Plan) -> Result<(), LakeError> {
        for file in &plan.files {
            self.store.delete(&stage_path(plan, file))?;
        }
        Ok(())
    }

    /// Brings the lake to where the journal's last plan puts it, then deletes what a crash left
    /// behind: staged files, and published files of this journal that no commit will ever name.
    /// To be called before anything else is staged; may be repeated.
    ///
    /// - `plan`: the last plan in the journal, if there is one; a committed one does no harm.
    ///
    /// # Errors
    /// [`LakeError`]; [`LakeError::Lost`] if a damaged disk lost staged files.
    pub fn recover(&mut self, journal: JournalId, plan: Option<&Plan>) -> Result<(), LakeError> {
        if let Some(plan) = plan.filter(|plan| !self.is_committed(plan)) {
            self.publish(plan)?;
            self.commit(plan)?;
        }
        self.empty_folder(&format!("{STAGE_DIR}/{journal}"))?;
        self.delete_orphans(|writer| writer == journal.to_string())
    }

    /// Deletes staged and published files of every writer that no log names. Only while no other
    /// program writes to this lake: a collector whose journal is new beside an existing lake calls
    /// it before it serves.
    ///
    /// # Errors
    /// [`LakeError`].
    pub fn sweep(&mut self) -> Result<(), LakeError> {
        self.empty_folder("_headwater/tmp")?;
        self.empty_folder(STAGE_DIR)?;
        self.delete_orphans(|_| true)
    }

    fn is_committed(&self, plan: &Plan) -> bool {
        let app = plan.journal.to_string();
        let done = |f: &PlanFile| {
            self.log(f.table)
                .mark(&app)
                .is_some_and(|m| m >= plan.last_pos)
        };
        plan.files.iter().all(done)
    }

    fn empty_folder(&self, folder: &str) -> Result<(), LakeError> {
        for entry in self.store.list(folder)? {
            self.store.delete(&entry.path)?;
        }
        Ok(())
    }

    /// Deletes table files of some writers beyond what those writers committed. Names tell.
    fn delete_orphans(&mut self, of: impl Fn(&str) -> bool) -> Result<(), LakeError> {
        for log in &mut self.logs {
            log.refresh(&self.store)?;
            for entry in self
                .store
                .list(&format!("{}/{HOT_DIR}", log.table().name()))?
            {
                let Some(name) = FileName::parse(&entry.path) else {
                    continue;
                };
                let committed = log
                    .mark(name.writer)
                    .is_some_and(|mark| mark >= name.last_pos);
                if of(name.writer) && !committed {
                    self.store.delete(&entry.path)?;
                }
            }
        }
        Ok(())
    }

    /// Keeps a wire schema under its SHA-256, so that a parked or replayed batch can be read as
    /// long as the lake stands. May be repeated.
    ///
    /// # Errors
    /// [`LakeError`].
    pub fn put_schema(&self, schema: &[u8]) -> Result<Sha256, LakeError> {
        let hash = Sha256::of(schema);
        self.store.put_if_absent(&schema_path(hash), schema)?;
        Ok(hash)
    }

    /// The wire schema of a hash, `None` if the lake has none.
    ///
    /// # Errors
    /// [`LakeError`]; [`LakeError::Conflict`] if its bytes are damaged.
    pub fn schema(&self, hash: Sha256) -> Result<Option<Vec<u8>>, LakeError> {
        let path = schema_path(hash);
        match self.store.get(&path) {
            Ok(bytes) if Sha256::of(&bytes) == hash => Ok(Some(bytes.to_vec())),
            Ok(_) => Err(LakeError::Conflict { path }),
            Err(StoreError::Missing { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Rewrites `catalog.json`: see [`crate::catalog`].
    ///
    /// # Errors
    /// [`LakeError`].
    pub fn write_catalog(&self) -> Result<(), LakeError> {
        let text = crate::catalog::catalog(&self.store, &self.logs)?;
        Ok(self
            .store
            .replace(crate::catalog::CATALOG_PATH, text.as_bytes())?)
    }
}

/// `<writer>-<first position>-<last position>`: the stem of a file's name.
pub(crate) fn stem(writer: &str, first_pos: u64, last_pos: u64) -> String {
    format!("{writer}-{first_pos:020}-{last_pos:020}")
}

/// What a file's name tells.
pub(crate) struct FileName<'a> {
    pub(crate) writer: &'a str,
    pub(crate) last_pos: u64,
}

impl<'a> FileName<'a> {
    pub(crate) fn parse(path: &'a str) -> Option<Self> {
        let name = path.rsplit('/').next()?.strip_suffix(".parquet")?;
        let mut parts = name.split('-');
        let (writer, _first, last) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self {
            writer,
            last_pos: last.parse().ok()?,
        })
    }
}

fn stage_path(plan: &Plan, file: &PlanFile) -> String {
    let stem = stem(&plan.journal.to_string(), plan.first_pos, plan.last_pos);
    let (table, date) = (file.table.name(), date_text(file.day));
    format!("{STAGE_DIR}/{}/{stem}-{table}-{date}.parquet", plan.journal)
}

/// Path of a file within its table's folder.
fn path_in_table(plan: &Plan, file: &PlanFile) -> String {
    let stem = stem(&plan.journal.to_string(), plan.first_pos, plan.last_pos);
    format!("{HOT_DIR}/dt={}/{stem}-0.parquet", date_text(file.day))
}

fn table_path(plan: &Plan, file: &PlanFile) -> String {
    format!("{}/{}", file.table.name(), path_in_table(plan, file))
}

fn schema_path(hash: Sha256) -> String {
    format!("{SCHEMAS_DIR}/{hash}")
}

fn add(plan: &Plan, file: &PlanFile) -> Add {
    let keys = (file.keys.0.as_str(), file.keys.1.as_str());
    Add {
        path: path_in_table(plan, file),
        dt: date_text(file.day),
        bytes: file.bytes,
        modified_ms: plan.at_us.div_euclid(1_000),
        stats: stats_text(file.table, file.rows, file.times_us, keys),
    }
}

impl Plan {
    /// Paths of its files from the root of the lake, in commit order.
    pub fn paths(&self) -> impl Iterator<Item = String> {
        self.files.iter().map(|file| table_path(self, file))
    }
}
