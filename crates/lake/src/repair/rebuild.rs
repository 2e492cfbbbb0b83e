//! Core: which flushes the missing versions of a log were, and their bytes.

use std::collections::{BTreeMap, HashSet};

use arrow_array::Array as _;

use super::found::{Found, Known, last_part};
use crate::delta::{
    Actions, Add, Chain, LogError, TERM_APP, actions_text, creation_text, stats_text, version_path,
};
use crate::digest::of_object;
use crate::error::LakeError;
use crate::paths::{FileName, HOT_DIR};
use crate::plan::Sha256;
use crate::read::{ReadError, Reader};
use crate::store::{Store, StoreError};
use crate::{prune, schema};

/// Bytes of a version that are to be written.
pub(super) struct Change {
    pub(super) version: u64,
    pub(super) bytes: Vec<u8>,
    /// It was there, and names the hash of another version before it.
    pub(super) is_rechained: bool,
}

/// What the log of a table becomes.
#[derive(Default)]
pub(super) struct Rebuilt {
    pub(super) changes: Vec<Change>,
    pub(super) files: u64,
    pub(super) rows: u64,
    /// Versions made anew for which neither a file is left nor a rise of the term tells what they were.
    pub(super) unknown: u64,
    /// Why nobody can say what was lost.
    pub(super) open_hole: Option<String>,
    /// Files that nothing proves to be committed, by path in the table.
    pub(super) left: Vec<String>,
    /// Names of those among them whose flush this table does not have otherwise.
    pub(super) cut_off: Vec<String>,
}

/// The files of one flush in one table.
#[derive(Debug)]
struct Group<'a> {
    name: FileName<'a>,
    file: &'a str,
    paths: Vec<&'a str>,
}

/// Missing versions in a row.
struct Hole {
    first: u64,
    /// The first version after them; none if nothing comes after them.
    next: Option<u64>,
    /// The last of them has the newest checkpoint.
    is_covered: bool,
    slots: u64,
}

/// A missing version.
enum Item<'a> {
    Flush(&'a Group<'a>),
    /// Of no file: a term was raised, to this one if that is known, or nobody knows.
    Bare(Option<u64>),
}

impl Item<'_> {
    /// The last position of a writer in it, if it is one of its flushes.
    fn mark_of<'a>(writer: &'a str) -> impl Fn(&Self) -> Option<u64> + 'a {
        move |item| match item {
            Item::Flush(group) => (group.name.writer == writer).then_some(group.name.last_pos),
            Item::Bare(_) => None,
        }
    }
}

/// A table whose log is made anew.
struct Table<'a> {
    store: &'a dyn Store,
    found: &'a Found,
    all: &'a [Found],
    known: &'a Known,
    now_us: i64,
    cut_off: &'a HashSet<String>,
    groups: Vec<Group<'a>>,
}

/// Fills the holes of a log.
///
/// - `cut_off`: names of files that a table which commits before this one does not take.
///
/// # Errors
/// [`LakeError`] if a file cannot be read.
pub(super) fn rebuild(
    store: &dyn Store,
    (found, all, known): (&Found, &[Found], &Known),
    cut_off: &HashSet<String>,
    now_us: i64,
) -> Result<Rebuilt, LakeError> {
    let table = Table {
        store,
        found,
        all,
        known,
        now_us,
        cut_off,
        groups: groups(found),
    };
    table.rebuild()
}

fn groups(found: &Found) -> Vec<Group<'_>> {
    let mut groups: BTreeMap<(u64, u64, &str), Group<'_>> = BTreeMap::new();
    for path in found.unnamed() {
        let Some(name) = FileName::parse(path) else {
            continue;
        };
        let file = last_part(path);
        let group = groups.entry((name.term, name.last_pos, file));
        let paths = vec![];
        group
            .or_insert(Group { name, file, paths })
            .paths
            .push(path);
    }
    groups.into_values().collect()
}

impl<'a> Table<'a> {
    /// The first version that has to be there.
    fn start(&self) -> u64 {
        let first = self.found.versions.keys().next().copied().unwrap_or(0);
        let covers = |at: &u64| first > 0 && at + 1 >= first;
        // Other Delta programs clean away what a checkpoint covers.
        if self.found.checkpoints.keys().any(covers) {
            first
        } else {
            0
        }
    }

    fn rebuild(&self) -> Result<Rebuilt, LakeError> {
        let mut rebuilt = Rebuilt::default();
        let mut items: BTreeMap<u64, Item<'_>> = BTreeMap::new();
        let mut taken = vec![false; self.groups.len()];
        let newest = self.found.versions.keys().next_back().copied();
        let checkpoint = self.found.checkpoints.keys().next_back().copied();
        let end = newest
            .max(checkpoint)
            .max(self.known.newest(self.found.table));
        let mut at = self.start();
        while let Some(first) = self.next_missing(at, end) {
            let next = self.found.versions.range(first..).next().map(|(at, _)| *at);
            // What stands in a checkpoint was committed up to its version, and the rest behind it.
            let is_within = |at: &u64| *at >= first && next.is_none_or(|next| *at < next);
            let covered = checkpoint.filter(is_within).map(|at| at + 1);
            let next = covered.or(next);
            let slots = next.or(end.map(|end| end + 1)).unwrap_or(first) - first;
            let hole = Hole {
                first,
                next,
                is_covered: covered.is_some(),
                slots,
            };
            let (fits, is_clear) = self.candidates(&hole, &items, &taken);
            let is_last = next.is_none();
            // Version 0 creates the table.
            let creation = u64::from(first == 0);
            // A table with files was created, though nobody knows of any flush.
            let is_created = !fits.is_empty() || self.found.has_files();
            let needed = fits.len() as u64 + creation * u64::from(is_last && is_created);
            if !is_clear || fits.len() as u64 + creation > slots && !is_last {
                let path = version_path(self.found.table, first);
                rebuilt.open_hole = Some(format!(
                    "{path}: more files are in the table's folder than the {slots} missing versions can \
                     have named: bring those versions back from a backup, or move away what was never \
                     committed"
                ));
                return Ok(rebuilt);
            }
            let count = slots.max(needed);
            for place in &fits {
                taken[*place] = true;
            }
            items.extend((first..).zip(self.in_order(first, count, &fits)));
            at = first + count.max(1);
            if is_last {
                break;
            }
        }
        for (group, _) in self.groups.iter().zip(&taken).filter(|(_, taken)| !**taken) {
            // Of a version that was cleaned away the checkpoint has the files.
            let paths = group
                .paths
                .iter()
                .filter(|path| !self.found.is_in_checkpoint(path));
            rebuilt.left.extend(paths.map(|path| (*path).to_owned()));
            let Group { name, file, .. } = group;
            let marks = items.values().filter_map(Item::mark_of(name.writer));
            let mark = marks.max().max(self.found.mark(name.writer));
            if mark < Some(name.last_pos) {
                rebuilt.cut_off.push((*file).to_owned());
            }
        }
        self.write(&items, &mut rebuilt)?;
        Ok(rebuilt)
    }

    /// The missing versions from `first` on, `count` of them: a takeover's before the first flush of its term.
    fn in_order(&self, first: u64, count: u64, fits: &[usize]) -> Vec<Item<'_>> {
        let mut items = Vec::new();
        let before = self.marks_before(first).get(TERM_APP).copied();
        let mut term = before.or_else(|| self.first_term()).unwrap_or(0);
        if first == 0 {
            items.push(Item::Bare(None));
        }
        let mut spare = count.saturating_sub((items.len() + fits.len()) as u64);
        for group in fits.iter().map(|place| &self.groups[*place]) {
            if spare > 0 && group.name.term > term {
                items.push(Item::Bare(Some(group.name.term)));
                spare -= 1;
            }
            term = term.max(group.name.term);
            items.push(Item::Flush(group));
        }
        items.extend((0..spare).map(|_| Item::Bare(None)));
        items.truncate(usize::try_from(count).unwrap_or(usize::MAX));
        items
    }

    /// The first version from `at` on that is missing; at the end of the log that which comes next, where
    /// flushes may stand that nothing but their files tells of.
    fn next_missing(&self, at: u64, end: Option<u64>) -> Option<u64> {
        let end = end.map_or(0, |end| end + 1);
        let missing = (at..end).find(|version| !self.found.versions.contains_key(version));
        missing.or((at <= end).then_some(end))
    }

    /// Places of the groups that the missing versions were, in order, and whether no other ones can have been.
    ///
    /// - `items`: missing versions before them, as they are made anew.
    fn candidates(
        &self,
        hole: &Hole,
        items: &BTreeMap<u64, Item<'_>>,
        taken: &[bool],
    ) -> (Vec<usize>, bool) {
        let &Hole { first, slots, .. } = hole;
        let mut before = self.marks_before(first);
        for item in items.values() {
            if let Item::Flush(Group { name, .. }) = item {
                let mark = before.entry(name.writer).or_insert(name.last_pos);
                *mark = name.last_pos.max(*mark);
            }
        }
        let covered = hole.is_covered.then(|| self.marks_of_checkpoint());
        let after = hole.next.map(|next| match &covered {
            Some(covered) => covered.clone(),
            None => self.first_marks_from(next),
        });
        let term = |marks: &BTreeMap<&str, u64>| marks.get(TERM_APP).copied();
        let low = term(&before).unwrap_or(0);
        let high = after.as_ref().and_then(term);
        let mut sure = Vec::new();
        let mut possible = Vec::new();
        for (place, group) in self.groups.iter().enumerate().filter(|(at, _)| !taken[*at]) {
            let Group { name, .. } = group;
            let is_of_term = !name.is_of_a_journal()
                || name.term >= low && high.is_none_or(|high| name.term <= high);
            let is_after = before.get(name.writer) < Some(&name.last_pos);
            let until = after.as_ref().and_then(|after| after.get(name.writer));
            let is_later = match &covered {
                Some(covered) => covered.get(name.writer) < Some(&name.last_pos),
                None => until.is_some_and(|until| *until <= name.last_pos),
            };
            let is_cut_off = self.cut_off.contains(group.file);
            if is_cut_off || !is_of_term || !is_after || is_later {
                continue;
            }
            // Published again under another term, it holds the same rows.
            let is_same = |at: &usize| {
                let other = &self.groups[*at].name;
                let flush = |name: &FileName<'_>| (name.first_pos, name.last_pos);
                other.writer == name.writer && flush(other) == flush(name)
            };
            if sure.iter().any(is_same) {
                continue;
            }
            if until.is_some() || self.is_committed(group) {
                possible.retain(|at| !is_same(at));
                sure.push(place);
            } else if !possible.iter().any(is_same) {
                possible.push(place);
            }
        }
        let of_files = sure
            .iter()
            .chain(&possible)
            .map(|at| self.groups[*at].name.term);
        let head = self.known.head.as_ref().map_or(0, |head| head.term);
        let last = of_files
            .max()
            .max(high)
            .max((high.is_none()).then_some(head));
        let base = if first == 0 {
            self.first_term().unwrap_or(1)
        } else {
            low
        };
        // A takeover is a version without a file.
        let raised = last.unwrap_or(0).saturating_sub(base);
        let used = sure.len() as u64 + u64::from(first == 0) + raised;
        let free = match self.may_be_pruned() {
            true => 0,
            false => slots.saturating_sub(used),
        };
        let is_clear = free == 0 || possible.len() as u64 <= free;
        if free > 0 && is_clear {
            sure.extend(possible);
            sure.sort_unstable();
        }
        (sure, is_clear)
    }

    /// Whether a missing version may be one by which `prune` removed files.
    fn may_be_pruned(&self) -> bool {
        let ran = |found: &Found| {
            found.mark(prune::WRITER).is_some() || found.last_begun(prune::WRITER).is_some()
        };
        prune::PRUNED.contains(&self.found.table) && self.all.iter().any(ran)
    }

    /// What was committed up to the newest checkpoint.
    fn marks_of_checkpoint(&self) -> BTreeMap<&str, u64> {
        let marks = self.found.checkpoint_txns.iter();
        marks.map(|(app, mark)| (app.as_str(), *mark)).collect()
    }

    /// What was committed before a version.
    fn marks_before(&self, version: u64) -> BTreeMap<&str, u64> {
        let mut marks = BTreeMap::new();
        let versions = self.found.versions.range(..version);
        let covers = self.found.checkpoints.keys().next_back() < Some(&version);
        let of_checkpoint = self.found.checkpoint_txns.iter().filter(|_| covers);
        let is_base = !self.found.checkpoints.is_empty();
        let txns = versions.flat_map(|(_, version)| &version.txns);
        for (app, mark) in txns.chain(of_checkpoint.filter(|_| is_base)) {
            let known = marks.entry(app.as_str()).or_insert(*mark);
            *known = (*known).max(*mark);
        }
        marks
    }

    /// The first mark of each application from a version on.
    fn first_marks_from(&self, version: u64) -> BTreeMap<&str, u64> {
        let mut marks = BTreeMap::new();
        for (_, version) in self.found.versions.range(version..) {
            for (app, mark) in &version.txns {
                marks.entry(app.as_str()).or_insert(*mark);
            }
        }
        marks
    }

    /// Whether anything outside the missing versions proves that a flush was committed in this table.
    fn is_committed(&self, group: &Group<'_>) -> bool {
        let Group { name, file, paths } = group;
        let table = self.found.table;
        // Also of another table: it was published after this one was committed in all.
        let has_later_file = |found: &Found| found.last_begun(name.writer) > Some(name.last_pos);
        let has_later_flush = |found: &Found| found.mark(name.writer) > Some(name.last_pos);
        let commits_after = |found: &&Found| found.table > table;
        let names_it = |found: &Found| found.committed_at_ms(file).is_some();
        // Rows that say the same once more do no harm.
        let may_repeat = matches!(
            table,
            schema::Table::Gaps
                | schema::Table::Epochs
                | schema::Table::Devices
                | schema::Table::Metrics
        );
        let tally = self
            .known
            .head
            .as_ref()
            .and_then(|head| head.place(table)?.tally);
        let is_counted = self.found.versions.is_empty()
            && tally.is_some_and(|tally| tally.files == self.found.unnamed().count() as u64);
        // What `prune` names is not there: a row too many does no harm.
        !name.is_of_a_journal() && self.found.versions.is_empty()
            || self.known.has(table, name)
            || paths.iter().all(|path| self.found.is_in_checkpoint(path))
            || self.all.iter().any(has_later_flush)
            || self.all.iter().filter(commits_after).any(names_it)
            || may_repeat && self.all.iter().any(names_it)
            || self.all.iter().any(has_later_file)
            || is_counted
    }

    /// The bytes of the missing versions, and of those after them that name their hashes.
    fn write(
        &self,
        items: &BTreeMap<u64, Item<'_>>,
        rebuilt: &mut Rebuilt,
    ) -> Result<(), LakeError> {
        let versions = self.found.versions.keys().chain(items.keys());
        let mut order: Vec<u64> = versions.copied().collect();
        order.sort_unstable();
        let mut before: Option<Sha256> = None;
        let mut term = 0;
        for version in order {
            if let Some(present) = self.found.versions.get(&version) {
                let own = present.txns.iter().find(|(app, _)| app == TERM_APP);
                term = own.map_or(term, |(_, own)| term.max(*own));
                before = match (before, present.chain.previous) {
                    (Some(now), Some(was))
                        if now != was && is_changed(rebuilt, version.saturating_sub(1)) =>
                    {
                        Some(self.rechain(version, before, rebuilt)?)
                    }
                    _ => Some(present.hash),
                };
                continue;
            }
            let Some(item) = items.get(&version) else {
                continue;
            };
            let bytes = self.bytes(version, item, &mut term, before, rebuilt)?;
            before = Some(Sha256::of(&bytes));
            rebuilt.changes.push(Change {
                version,
                bytes,
                is_rechained: false,
            });
        }
        Ok(())
    }

    /// Gives a version that is there the new hash of the one before.
    fn rechain(
        &self,
        version: u64,
        before: Option<Sha256>,
        rebuilt: &mut Rebuilt,
    ) -> Result<Sha256, LakeError> {
        let path = version_path(self.found.table, version);
        let text = self.store.get(&path)?;
        let text = std::str::from_utf8(&text).map_err(|error| LogError::Damaged {
            path,
            what: error.to_string(),
        })?;
        let was = self
            .found
            .versions
            .get(&version)
            .and_then(|v| v.chain.previous);
        let text = match (was, before) {
            (Some(was), Some(now)) => text.replace(&was.to_string(), &now.to_string()),
            _ => text.to_owned(),
        };
        let bytes = text.into_bytes();
        let hash = Sha256::of(&bytes);
        rebuilt.changes.push(Change {
            version,
            bytes,
            is_rechained: true,
        });
        Ok(hash)
    }

    fn bytes(
        &self,
        version: u64,
        item: &Item<'_>,
        term: &mut u64,
        before: Option<Sha256>,
        rebuilt: &mut Rebuilt,
    ) -> Result<Vec<u8>, LakeError> {
        let next = self.first_marks_from(version);
        let next_term = next.get(TERM_APP).copied();
        let mut actions = Actions::default();
        let mut at_us = self.now_us;
        match item {
            Item::Flush(group) => {
                *term = group.name.term.max(*term);
                let at_ms = self.all.iter().find_map(|f| f.committed_at_ms(group.file));
                at_us = at_ms.map_or(at_us, |at| at.saturating_mul(1_000));
                actions
                    .txns
                    .push((group.name.writer.to_owned(), group.name.last_pos));
                actions.txns.extend(self.places(group));
                for path in &group.paths {
                    let (add, rows) = self.add(path, at_us)?;
                    actions.adds.push(add);
                    rebuilt.files += 1;
                    rebuilt.rows += rows;
                }
            }
            Item::Bare(raised) => {
                let head = self.known.head.as_ref().map(|head| head.term);
                let all = self.all.iter().map(Found::term).max();
                let created = (version == 0).then(|| self.first_term()).flatten();
                let before = *term;
                *term = created
                    .or(*raised)
                    .or(next_term)
                    .or(head)
                    .or(all)
                    .unwrap_or(0)
                    .max(*term);
                rebuilt.unknown += u64::from(version > 0 && *term == before);
                at_us = self.bare_at(*term, version == 0).unwrap_or(at_us);
            }
        }
        if *term > 0 {
            actions.txns.push((TERM_APP.to_owned(), *term));
        }
        if version == 0 {
            return Ok(creation_text(self.found.table, &actions, at_us).into_bytes());
        }
        let checkpoint = self.found.checkpoints.range(..version).next_back();
        let chain = Chain {
            previous: before,
            checkpoint: checkpoint.map(|(at, hash)| (*at, *hash)),
        };
        Ok(actions_text(&actions, at_us, &chain).into_bytes())
    }

    /// The term under which the tables were created, all in one step.
    fn first_term(&self) -> Option<u64> {
        let created = self.all.iter().filter_map(|found| found.versions.get(&0));
        let terms = created.flat_map(|version| &version.txns);
        let term = terms
            .filter(|(app, _)| app == TERM_APP)
            .map(|(_, term)| *term)
            .min();
        let of_files = self.groups.iter().map(|group| group.name.term);
        term.or(of_files.filter(|term| *term > 0).min())
    }

    /// When other tables were created, or their term was raised, Unix µs: one step does it in all.
    fn bare_at(&self, term: u64, is_first: bool) -> Option<i64> {
        let versions = self.all.iter().flat_map(|found| &found.versions);
        let is_it = |(at, version): &(&u64, &super::found::Version)| {
            let [(app, mark)] = version.txns.as_slice() else {
                return false;
            };
            version.adds == 0 && app == TERM_APP && *mark == term && (**at == 0) == is_first
        };
        let at_ms = versions.into_iter().find(is_it)?.1.at_ms?;
        Some(at_ms.saturating_mul(1_000))
    }

    /// What the version said of other sinks: in all tables of a flush but the last they stay where they
    /// were. In the last nobody knows: their places stay too, so that more is named for them than lacks.
    fn places(&self, group: &Group<'_>) -> Vec<(String, u64)> {
        let own = format!("{}/", group.name.writer);
        let mut places = BTreeMap::new();
        for found in self
            .all
            .iter()
            .filter(|f| f.committed_at_ms(group.file).is_some())
        {
            let versions = found.versions.values();
            let is_it = |(app, mark): &(String, u64)| {
                app == group.name.writer && *mark == group.name.last_pos
            };
            let versions = versions.filter(|version| version.txns.iter().any(is_it));
            for (app, _) in versions.flat_map(|version| &version.txns) {
                if app.starts_with(&own) {
                    places.insert(app.clone(), 0);
                }
            }
        }
        places.into_iter().collect()
    }

    /// What a version says of a file, from the file itself.
    fn add(&self, path: &str, at_us: i64) -> Result<(Add, u64), LakeError> {
        let table = self.found.table;
        let full = format!("{}/{path}", table.name());
        let (key, time) = (table.columns()[0].name, table.time_column());
        let mut reader = read(Reader::open(self.store, &full, &[key, time]))?;
        let mut rows = 0;
        let mut keys: Option<(String, String)> = None;
        let mut times: Option<(i64, i64)> = None;
        while let Some(columns) = read(reader.next_batch())? {
            let (texts, instants) = (read(columns.texts(key))?, read(columns.times(time))?);
            rows += columns.rows() as u64;
            for row in (0..columns.rows()).filter(|row| texts.is_valid(*row)) {
                let text = texts.value(row);
                match &mut keys {
                    None => keys = Some((text.to_owned(), text.to_owned())),
                    Some((low, _)) if text < low.as_str() => *low = text.to_owned(),
                    Some((_, high)) if text > high.as_str() => *high = text.to_owned(),
                    Some(_) => {}
                }
            }
            for at in instants.iter().flatten() {
                let wider = |(low, high): (i64, i64)| (low.min(at), high.max(at));
                times = Some(times.map_or((at, at), wider));
            }
        }
        let (low, high) = keys.unwrap_or_default();
        let bytes = self
            .store
            .size(&full)?
            .ok_or(StoreError::Missing { path: full.clone() })?;
        let dt = path
            .strip_prefix(&format!("{HOT_DIR}/dt="))
            .unwrap_or_default();
        let add = Add {
            path: path.to_owned(),
            dt: dt.split('/').next().unwrap_or_default().to_owned(),
            bytes,
            modified_ms: at_us.div_euclid(1_000),
            stats: stats_text(table, rows, times.unwrap_or_default(), (&low, &high)),
            sha256: Some(of_object(self.store, &full)?),
        };
        Ok((add, rows))
    }
}

fn is_changed(rebuilt: &Rebuilt, version: u64) -> bool {
    rebuilt
        .changes
        .last()
        .is_some_and(|last| last.version == version)
}

fn read<T>(result: Result<T, ReadError>) -> Result<T, LakeError> {
    result.map_err(|error| LakeError::Read(error.into()))
}
