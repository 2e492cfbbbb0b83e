//! Core: keeps the marks of the lake up to date while its owner writes.

use std::collections::{BTreeSet, HashSet};

use bytes::Bytes;
use headwater_proto::ids::JournalId;

use crate::audit::{Holding, Holdings, Key, Scan, StreamMark};
use crate::delta::{Log, LogError, version_path};
use crate::error::LakeError;
use crate::marks::{self, Encoded, MAX_MARKS_BYTES, MarksHead, Part, PartError, Streams};
use crate::paths::{MARKS_PARTS_DIR, MARKS_PATH, marks_part_path};
use crate::plan::{Plan, Sha256};
use crate::schema::Table;
use crate::store::{Entry, Store, StoreError, Swap, Tag};

use super::{SWAP_ATTEMPTS, restless};

/// Streams that flushes since the last marks touched and that are kept in memory, about 200 bytes
/// each. Beyond them the next marks are made from the files of those flushes.
const MAX_FRESH_STREAMS: usize = 262_144;

/// The marks object as it was found.
struct Base {
    bytes: Bytes,
    tag: Tag,
}

/// The marks object, and all parts that it names.
struct Whole {
    object: Bytes,
    parts: Vec<Part>,
}

impl Whole {
    /// Reads the parts of an object, one after the other. `None` if one is damaged or missing, or the object is.
    ///
    /// # Errors
    /// [`StoreError`].
    fn read(store: &dyn Store, object: Bytes) -> Result<Option<Self>, StoreError> {
        let Ok((head, _)) = marks::decode(&object) else {
            return Ok(None);
        };
        let parts = head.parts.into_iter();
        let parts: Option<Vec<Part>> = parts
            .map(|hash| Part::open(store, hash))
            .collect::<Result<_, _>>()?;
        Ok(parts.map(|parts| Self { object, parts }))
    }

    /// Hands over the streams of the parts and those of the object, merged with what came since. False if one is
    /// damaged.
    ///
    /// # Errors
    /// [`StoreError`].
    fn merge(
        parts: Vec<Part>,
        object: Option<Streams<'_>>,
        since: &Holdings,
        take: impl FnMut(&Key, &Holding),
    ) -> Result<bool, StoreError> {
        let parts = parts
            .into_iter()
            .map(|part| Box::new(part) as marks::Base<'_, _>);
        let object = object.map(|streams| {
            let streams = streams.map(|stream| stream.map_err(PartError::from));
            Box::new(streams) as marks::Base<'_, _>
        });
        match marks::merge(parts.chain(object).collect(), since, take) {
            Ok(()) => Ok(true),
            Err(PartError::Damaged) => Ok(false),
            Err(PartError::Store(error)) => Err(error),
        }
    }
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

    /// Hands what the lake holds of each stream, as of the logs, to `take`, with what `begin` made. It is made
    /// anew if the marks turn out to be damaged: then all is told once more, from the files.
    ///
    /// # Errors
    /// [`LakeError`].
    pub(super) fn fold<T>(
        &self,
        store: &dyn Store,
        logs: &[Log],
        mut begin: impl FnMut() -> T,
        mut take: impl FnMut(&mut T, StreamMark),
    ) -> Result<T, LakeError> {
        let base = find(store)?.map(|base| Whole::read(store, base.bytes));
        if let Some(Whole { object, parts }) = base.transpose()?.flatten() {
            let (streams, since) = self.gather(store, logs, Some(&object))?;
            let streams = streams.map(|(_, streams)| streams);
            let mut told = begin();
            let is_whole = Whole::merge(parts, streams, &since, |key, holding| {
                take(&mut told, holding.mark(key));
            })?;
            if is_whole {
                return Ok(told);
            }
        }
        let (_, all) = self.gather(store, logs, None)?;
        let mut told = begin();
        let all = all.iter();
        all.for_each(|(key, holding)| take(&mut told, holding.mark(key)));
        Ok(told)
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
        let Some(Encoded {
            object,
            sealed,
            parts,
        }) = self.encode(store, logs, term, found.as_ref())?
        else {
            self.too_many = true;
            self.begin_anew(logs);
            return Ok(());
        };
        for (hash, bytes) in &sealed {
            // One that is there may be damaged.
            store.replace(&marks_part_path(*hash), bytes)?;
        }
        let mut expected = found.map(|found| found.tag);
        for _ in 0..SWAP_ATTEMPTS {
            if store.swap(MARKS_PATH, expected.as_ref(), &object)? != Swap::Changed {
                self.begin_anew(logs);
                self.due = false;
                if !sealed.is_empty() {
                    forget_parts(store, &parts)?;
                }
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

    /// The next marks, on top of those that were found; of the parts these name nothing is read.
    fn encode(
        &self,
        store: &dyn Store,
        logs: &[Log],
        term: u64,
        found: Option<&Base>,
    ) -> Result<Option<Encoded>, LakeError> {
        let version = |log: &Log| Some((log.table().name().to_owned(), log.version()?));
        let head = |parts| MarksHead {
            term,
            versions: logs.iter().filter_map(version).collect(),
            parts,
            streams: 0,
        };
        let object = found.map(|base| &base.bytes[..]);
        if let (Some((before, streams)), since) = self.gather(store, logs, object)? {
            let head = head(before.parts);
            if let Ok(encoded) = marks::encode(head, Some(&streams), &since, MAX_MARKS_BYTES) {
                return Ok(encoded);
            }
        }
        let (_, all) = self.gather(store, logs, None)?;
        let encoded = marks::encode(head(Vec::new()), None, &all, MAX_MARKS_BYTES);
        Ok(encoded.unwrap_or_default())
    }

    /// The streams of the object that was found, and all that came since; without a usable object
    /// everything.
    fn gather<'a>(
        &self,
        store: &dyn Store,
        logs: &[Log],
        base: Option<&'a [u8]>,
    ) -> Result<(Option<(MarksHead, Streams<'a>)>, Holdings), LakeError> {
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
        Ok((Some((head, streams)), since))
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
    bytes: Bytes,
) -> Result<Option<usize>, LakeError> {
    let keeper = MarksKeeper::begin(logs);
    let Some(Whole { object, parts }) = Whole::read(store, bytes)? else {
        return Ok(None);
    };
    let (streams, since) = keeper.gather(store, logs, Some(&object))?;
    let (_, mut all) = keeper.gather(store, logs, None)?;
    let mut differing = 0;
    let streams = streams.map(|(_, streams)| streams);
    let is_whole = Whole::merge(parts, streams, &since, |key, holding| {
        let found = all.remove(key).map(|found| found.mark(key));
        differing += usize::from(found != Some(holding.mark(key)));
    })?;
    Ok(is_whole.then_some(differing + all.len()))
}

/// Whether the bytes are a marks object that was written whole, as are the parts that it names.
///
/// # Errors
/// [`StoreError`].
pub(crate) fn are_whole(store: &dyn Store, bytes: Bytes) -> Result<bool, StoreError> {
    Ok(Whole::read(store, bytes)?.is_some())
}

/// Removes parts that no object names: a write was cut off, or the marks were made anew. What another owner has
/// just written goes too; the marks then count as damaged, and a reader goes to the tables.
fn forget_parts(store: &dyn Store, named: &[Sha256]) -> Result<(), StoreError> {
    let named: HashSet<String> = named.iter().map(|hash| marks_part_path(*hash)).collect();
    for Entry { path, .. } in store.list(MARKS_PARTS_DIR)? {
        if !named.contains(&path) {
            store.delete(&path)?;
        }
    }
    Ok(())
}

fn find(store: &dyn Store) -> Result<Option<Base>, LakeError> {
    let found = store.get_tagged(MARKS_PATH)?;
    Ok(found.map(|found| Base {
        bytes: found.bytes,
        tag: found.tag,
    }))
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
    use crate::audit::{EpochMark, Holding, Key};
    use crate::row::EpochState;
    use crate::schema::Encoding;
    use crate::store::MemStore;
    use headwater_proto::ids::SeqRange;

    fn plan() -> Plan {
        Plan {
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
        }
    }

    fn streams(epochs: std::ops::Range<usize>, holding: &Holding) -> Holdings {
        let key = |epoch: usize| Key {
            device: "d".into(),
            lane: "normal".into(),
            // Numbers that are far apart, as random ones are.
            epoch: epoch.wrapping_mul(0x9e37_79b9_7f4a_7c15).cast_signed() as i64,
        };
        epochs.map(|epoch| (key(epoch), holding.clone())).collect()
    }

    fn logs() -> Vec<Log> {
        Table::ALL.into_iter().map(Log::empty).collect()
    }

    #[test]
    fn what_too_many_streams_brought_is_read_from_the_files() {
        let (logs, plan) = (logs(), plan());
        let mut keeper = MarksKeeper::begin(&logs);
        let holding = Holding::default();
        keeper.staged(&plan, streams(0..MAX_FRESH_STREAMS, &holding));
        keeper.done(&plan, &logs);
        assert_eq!(keeper.fresh.len(), MAX_FRESH_STREAMS);
        keeper.staged(&plan, streams(0..MAX_FRESH_STREAMS + 1, &holding));
        keeper.done(&plan, &logs);
        assert!(keeper.fresh.is_empty());
    }

    #[test]
    fn sealed_marks_are_read_back_and_damaged_ones_are_told() {
        const EACH: usize = 130_000;
        let mut whole = Holding::default();
        whole.there.insert(SeqRange::new(0, 5));
        whole.epoch = Some(EpochMark {
            first: 0,
            next: 5,
            state: EpochState::Closed,
        });
        let (store, logs, plan) = (MemStore::new(), logs(), plan());
        // Left by a write that was cut off.
        store
            .replace(&marks_part_path(Sha256([1; 32])), b"cut")
            .unwrap();
        let mut keeper = MarksKeeper::begin(&logs);
        // Without an object, what is in no file is not looked for.
        keeper.write(&store, &logs, 1).unwrap();
        for round in 0..3 {
            keeper.staged(&plan, streams(round * EACH..(round + 1) * EACH, &whole));
            keeper.done(&plan, &logs);
            keeper.write(&store, &logs, 1).unwrap();
        }
        // What is sealed may go on all the same.
        whole.there.insert(SeqRange::new(7, 8));
        keeper.staged(&plan, streams(0..1, &whole));
        keeper.done(&plan, &logs);
        keeper.write(&store, &logs, 1).unwrap();
        let parts = store.list(MARKS_PARTS_DIR).unwrap();
        assert!((1..4).contains(&parts.len()), "{parts:?}");
        let all = |keeper: &MarksKeeper| keeper.fold(&store, &logs, Vec::new, Vec::push).unwrap();
        let marks = all(&keeper);
        assert_eq!(marks.len(), 3 * EACH);
        let first = marks.iter().find(|mark| mark.epoch == 0).unwrap();
        assert_eq!(first.held, [SeqRange::new(0, 5), SeqRange::new(7, 8)]);
        let object = || store.get(MARKS_PATH).unwrap();
        assert!(are_whole(&store, object()).unwrap());
        // These logs have no files: all of the marks differ from them.
        assert_eq!(differing(&store, &logs, object()).unwrap(), Some(3 * EACH));
        let path = &parts[0].path;
        let mut bytes = store.get(path).unwrap().to_vec();
        bytes[1000] ^= 1;
        for lost in [false, true] {
            store.replace(path, &bytes).unwrap();
            if lost {
                store.delete(path).unwrap();
            }
            assert!(!are_whole(&store, object()).unwrap());
            assert_eq!(differing(&store, &logs, object()).unwrap(), None);
            assert_eq!(all(&keeper), [], "as the files say");
        }
    }
}
