//! Core: keeps the marks of the lake up to date while its owner writes.

use std::collections::{BTreeSet, HashSet};

use bytes::Bytes;
use headwater_proto::ids::JournalId;

use crate::audit::{Holdings, Scan, StreamMark};
use crate::delta::{Log, LogError, version_path};
use crate::error::LakeError;
use crate::marks::{self, MAX_MARKS_BYTES, Streams};
use crate::paths::MARKS_PATH;
use crate::plan::Plan;
use crate::schema::Table;
use crate::store::{Store, Swap, Tag};

use super::{SWAP_ATTEMPTS, restless};

/// Streams that flushes since the last marks touched and that are kept in memory, about 200 bytes
/// each. Beyond them the next marks are made from the files of those flushes.
const MAX_FRESH_STREAMS: usize = 262_144;

/// The marks object as it was found.
struct Base {
    bytes: Bytes,
    tag: Tag,
}

/// What is needed to make the next marks without reading what this process itself wrote.
#[derive(Debug, Default)]
pub(super) struct MarksKeeper {
    /// What flushes of this process brought since the last marks.
    fresh: Holdings,
    /// By table: versions below are in the last marks, or have to be read.
    begun: [u64; Table::ALL.len()],
    /// By table: versions below were looked at.
    seen: [u64; Table::ALL.len()],
    /// Versions at or above `begun` that others wrote, or whose rows are not known here.
    unread: BTreeSet<(Table, u64)>,
    /// What the flush brings that is staged.
    staged: Option<(Flushed, Holdings)>,
    /// A checkpoint was written since the last marks.
    due: bool,
    /// The lake has more streams than marks may have: none are written.
    too_many: bool,
}

type Flushed = (JournalId, u64, u64);

const fn flushed(plan: &Plan) -> Flushed {
    (plan.journal, plan.first_pos, plan.last_pos)
}

impl MarksKeeper {
    /// Begins where the logs stand.
    pub(super) fn begin(logs: &[Log]) -> Self {
        let mut keeper = Self::default();
        keeper.begin_anew(logs);
        keeper
    }

    fn begin_anew(&mut self, logs: &[Log]) {
        self.fresh.clear();
        self.unread.clear();
        for log in logs {
            self.begun[log.table() as usize] = log.next();
            self.seen[log.table() as usize] = log.next();
        }
    }

    /// A flush is staged, which brings this.
    pub(super) fn staged(&mut self, plan: &Plan, holdings: Holdings) {
        self.staged = Some((flushed(plan), holdings));
    }

    /// A commit to a table was tried, or its log was read on.
    ///
    /// - `own`: the version that it became.
    pub(super) fn committed(&mut self, plan: Option<&Plan>, log: &Log, own: Option<u64>) {
        let table = log.table();
        let is_known = self.is_staged(plan);
        let seen = &mut self.seen[table as usize];
        for version in *seen..log.next() {
            if Some(version) != own || !is_known {
                self.unread.insert((table, version));
            }
        }
        *seen = log.next();
    }

    fn is_staged(&self, plan: Option<&Plan>) -> bool {
        let staged = self.staged.as_ref().map(|(flushed, _)| *flushed);
        staged.is_some() && staged == plan.map(flushed)
    }

    /// All tables have the plan.
    pub(super) fn done(&mut self, plan: &Plan, logs: &[Log]) {
        if self.is_staged(Some(plan))
            && let Some((_, holdings)) = self.staged.take()
        {
            for (key, holding) in holdings {
                self.fresh.entry(key).or_default().merge(&holding);
            }
        }
        if self.fresh.len() + self.unread.len() > MAX_FRESH_STREAMS {
            self.begin_anew(logs);
        }
    }

    /// A checkpoint was written: the marks shall stand beside it.
    pub(super) const fn checkpointed(&mut self) {
        self.due = true;
    }

    pub(super) const fn is_due(&self) -> bool {
        self.due && !self.too_many
    }

    /// Not again before the next checkpoint.
    pub(super) const fn give_up(&mut self) {
        self.due = false;
    }

    /// What the lake holds of each stream, as of the logs.
    ///
    /// # Errors
    /// [`LakeError`].
    pub(super) fn marks(
        &self,
        store: &dyn Store,
        logs: &[Log],
    ) -> Result<Vec<StreamMark>, LakeError> {
        let base = find(store)?;
        let (base, since) = self.gather(store, logs, bytes_of(base.as_ref()))?;
        let mut marks = Vec::new();
        let merged = marks::merge(base, &since, |key, holding| marks.push(holding.mark(key)));
        if merged.is_ok() {
            return Ok(marks);
        }
        let (_, all) = self.gather(store, logs, None)?;
        Ok(all.iter().map(|(key, holding)| holding.mark(key)).collect())
    }

    /// Writes the marks as of the logs.
    ///
    /// # Errors
    /// [`LakeError`]; [`LakeError::Fenced`] if a later owner has written them.
    pub(super) fn write(
        &mut self,
        store: &dyn Store,
        logs: &[Log],
        term: u64,
    ) -> Result<(), LakeError> {
        let found = find(store)?;
        let (base, since) = self.gather(store, logs, bytes_of(found.as_ref()))?;
        let version = |log: &Log| Some((log.table().name().to_owned(), log.version()?));
        let versions: Vec<(String, u64)> = logs.iter().filter_map(version).collect();
        let encoded = match marks::encode(term, &versions, base, &since, MAX_MARKS_BYTES) {
            Ok(encoded) => encoded,
            Err(_) => {
                let (_, all) = self.gather(store, logs, None)?;
                marks::encode(term, &versions, None, &all, MAX_MARKS_BYTES).unwrap_or_default()
            }
        };
        let Some(bytes) = encoded else {
            self.too_many = true;
            self.begin_anew(logs);
            return Ok(());
        };
        let mut expected = found.map(|found| found.tag);
        for _ in 0..SWAP_ATTEMPTS {
            if store.swap(MARKS_PATH, expected.as_ref(), &bytes)? != Swap::Changed {
                self.begin_anew(logs);
                self.due = false;
                return Ok(());
            }
            // Only an owner writes them, so a later one did, or one before us at the last moment.
            let found = find(store)?;
            let head = found.as_ref().and_then(|f| marks::decode(&f.bytes).ok());
            if let Some((head, _)) = head.filter(|(head, _)| head.term > term) {
                return Err(LakeError::Fenced {
                    term: head.term,
                    owner: None,
                });
            }
            expected = found.map(|found| found.tag);
        }
        Err(restless(MARKS_PATH))
    }

    /// The streams of the object that was found, and all that came since; without a usable object
    /// everything.
    fn gather<'a>(
        &self,
        store: &dyn Store,
        logs: &[Log],
        base: Option<&'a [u8]>,
    ) -> Result<(Option<Streams<'a>>, Holdings), LakeError> {
        let base = base.and_then(|bytes| marks::decode(bytes).ok());
        let mut scan = Scan::default();
        let Some((head, streams)) = base else {
            for log in logs.iter().rev() {
                log.files::<LakeError>(store, |add| {
                    scan_file(&mut scan, store, log.table(), &add.path)
                })?;
            }
            return Ok((None, scan.into_holdings()));
        };
        for log in logs {
            let table = log.table();
            let covered = head.versions.iter().find(|(name, _)| name == table.name());
            let from = covered.map_or(0, |(_, version)| version + 1);
            if from > log.next() {
                return Err(LakeError::Log(LogError::Hole {
                    path: version_path(table, log.next()),
                    known: from - 1,
                }));
            }
            for path in self.unknown_files(store, log, from)? {
                scan_file(&mut scan, store, table, &path)?;
            }
        }
        let mut since = scan.into_holdings();
        for (key, holding) in &self.fresh {
            since.entry(key.clone()).or_default().merge(holding);
        }
        Ok((Some(streams), since))
    }

    /// Files of the versions since `from` that are neither in `fresh` nor removed again.
    fn unknown_files(
        &self,
        store: &dyn Store,
        log: &Log,
        from: u64,
    ) -> Result<Vec<String>, LakeError> {
        let (mut paths, mut removed) = (Vec::new(), HashSet::new());
        for version in from..log.next() {
            let actions = log.actions(store, version)?;
            removed.extend(actions.removes.iter().cloned());
            let table = log.table();
            if version < self.begun[table as usize] || self.unread.contains(&(table, version)) {
                paths.extend(actions.adds.iter().map(|add| add.path.clone()));
            }
        }
        paths.retain(|path| !removed.contains(path));
        Ok(paths)
    }
}

/// How many streams a marks object tells otherwise than the files do; `None` if it is damaged.
///
/// - `logs`: read after the object.
///
/// # Errors
/// [`LakeError`].
pub(crate) fn differing(
    store: &dyn Store,
    logs: &[Log],
    bytes: &[u8],
) -> Result<Option<usize>, LakeError> {
    let keeper = MarksKeeper::begin(logs);
    let (Some(base), since) = keeper.gather(store, logs, Some(bytes))? else {
        return Ok(None);
    };
    let (_, mut all) = keeper.gather(store, logs, None)?;
    let mut differing = 0;
    let merged = marks::merge(Some(base), &since, |key, holding| {
        let found = all.remove(key).map(|found| found.mark(key));
        differing += usize::from(found != Some(holding.mark(key)));
    });
    Ok(merged.is_ok().then_some(differing + all.len()))
}

fn find(store: &dyn Store) -> Result<Option<Base>, LakeError> {
    let found = store.get_tagged(MARKS_PATH)?;
    Ok(found.map(|found| Base {
        bytes: found.bytes,
        tag: found.tag,
    }))
}

fn bytes_of(base: Option<&Base>) -> Option<&[u8]> {
    base.map(|base| &base.bytes[..])
}

fn scan_file(
    scan: &mut Scan,
    store: &dyn Store,
    table: Table,
    path: &str,
) -> Result<(), LakeError> {
    let path = format!("{}/{path}", table.name());
    Ok(scan.file(store, table, &path, &|_| true)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Holding, Key};
    use crate::schema::Encoding;

    #[test]
    fn what_too_many_streams_brought_is_read_from_the_files() {
        let logs: Vec<Log> = Table::ALL.into_iter().map(Log::empty).collect();
        let plan = Plan {
            journal: JournalId(1),
            term: 1,
            first_pos: 0,
            last_pos: 9,
            after: None,
            at_us: 0,
            encoding: Encoding::Compact,
            writer: 1,
            sinks: vec![],
            files: vec![],
        };
        let streams = |count: usize| {
            let key = |epoch| Key {
                device: "d".into(),
                lane: "normal".into(),
                epoch,
            };
            let one = |epoch| (key(epoch), Holding::default());
            (0..).take(count).map(one).collect::<Holdings>()
        };
        let mut keeper = MarksKeeper::begin(&logs);
        keeper.staged(&plan, streams(MAX_FRESH_STREAMS));
        keeper.done(&plan, &logs);
        assert_eq!(keeper.fresh.len(), MAX_FRESH_STREAMS);
        keeper.staged(&plan, streams(MAX_FRESH_STREAMS + 1));
        keeper.done(&plan, &logs);
        assert!(keeper.fresh.is_empty());
    }
}
