//! Core: a look at a whole lake, which goes on beyond what cannot be read and names it.
//!
//! Tables are looked at in the reverse of the order in which they commit, so that what a later
//! table claims is there although a writer goes on. A file that is not what was committed is not
//! read at all: nobody knows what its bytes would make of the reader.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::AuditError;
use super::STREAM_BYTES;
use super::digests::{DIGEST_BYTES, Digesting};
use super::scan::{Identity, Key, Scan};
use crate::delta::{Log, LogError, REPLAY_APP, is_replay_cut, log_dir};
use crate::faults::{Faults, check_file, words};
use crate::head::{Head, load_readable};
use crate::paths::FileName;
use crate::read::{Columns, Reader, cell, cell_bool, text};
use crate::schema::Table;
use crate::store::Store;

/// Versions of all logs, taken in the right order, and what is wrong with them.
pub(super) struct View {
    head: Option<Head>,
    logs: Vec<Log>,
    pub(super) faults: Faults,
    /// Files with a fault, from the root of the lake.
    left_out: HashSet<String>,
    /// Whether files are still to be held against their hashes.
    is_to_hash: bool,
    with_digests: bool,
    /// Whether every log and file could be read so far.
    is_whole: bool,
    /// Files of samples whose flush may not be whole yet.
    young: HashSet<String>,
    /// Whether every file of `devices` could be read so far.
    has_devices: bool,
}

impl View {
    /// # Errors
    /// [`AuditError`] if the store cannot be reached.
    pub(super) fn new(store: &dyn Store, with_hashes: bool) -> Result<Self, AuditError> {
        let mut faults = Faults::default();
        let order = Table::ALL.into_iter().rev();
        let (head, logs) = load_readable(store, order, &mut faults)?;
        let has_devices = head.is_some() && logs.iter().any(|l| l.table() == Table::Devices);
        let mut view = Self {
            head,
            logs,
            faults,
            left_out: HashSet::new(),
            is_to_hash: with_hashes,
            with_digests: with_hashes,
            is_whole: false,
            young: HashSet::new(),
            has_devices,
        };
        view.is_whole = view.logs.len() == Table::ALL.len();
        view.find_young(store)?;
        Ok(view)
    }

    fn log(&self, table: Table) -> Option<&Log> {
        self.logs.iter().find(|log| log.table() == table)
    }

    /// What the head does not name yet was committed to `samples` alone, as far as anybody knows.
    fn find_young(&mut self, store: &dyn Store) -> Result<(), AuditError> {
        let place = self.head.as_ref().and_then(|h| h.place(Table::Samples));
        let Some((log, place)) = self.log(Table::Samples).zip(place) else {
            return Ok(());
        };
        let mut young = HashSet::new();
        for version in place.version + 1..log.next() {
            match log.actions(store, version) {
                Ok(actions) => {
                    let adds = actions.adds.iter();
                    young.extend(adds.map(|add| add.full_path(Table::Samples)));
                }
                Err(error) => unless_outage(error)?,
            }
        }
        self.young = young;
        Ok(())
    }

    /// Whether all rows that came with a file of `samples` are in the other tables too. Of a journal's
    /// last flush nobody knows before `devices` has its mark: a crash may have cut it off.
    fn is_settled(&self, path: &str) -> bool {
        let marks = self.log(Table::Samples).zip(self.log(Table::Devices));
        let Some(((samples, devices), name)) = marks.zip(FileName::parse(path)) else {
            return false;
        };
        let last = Some(name.last_pos);
        let is_last = samples.mark(name.writer) == last;
        let is_whole = devices.mark(name.writer) >= last;
        !self.young.contains(path) && (!is_last || is_whole)
    }

    /// Whether the last replay stands in `samples` and not yet in `quarantine`, as far as this view goes.
    pub(super) fn is_replaying(&self) -> bool {
        is_replay_cut(&self.logs)
    }

    /// Whether every log and file could be read so far.
    pub(super) const fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Memory that all streams take at most: each begins with a row of `epochs`, and each of their
    /// batches that is held against its digest has a row of `digests`.
    pub(super) fn memory_bytes(&self, store: &dyn Store) -> Result<u64, AuditError> {
        let mut bytes = self.rows(store, Table::Epochs)? * STREAM_BYTES;
        if self.with_digests {
            bytes += self.rows(store, Table::Digests)? * DIGEST_BYTES;
        }
        Ok(bytes)
    }

    fn rows(&self, store: &dyn Store, table: Table) -> Result<u64, AuditError> {
        let mut rows = 0;
        if let Some(log) = self.log(table) {
            let sum = log.files::<LogError>(store, |add| {
                rows += add.parsed_stats(table).rows;
                Ok(())
            });
            // What else is wrong with the log the scan tells.
            sum.or_else(unless_outage)?;
        }
        Ok(rows)
    }

    /// Reads the identity columns of every file; `wanted` picks the devices of this pass.
    ///
    /// # Errors
    /// [`AuditError`] if the store cannot be reached.
    pub(super) fn scan(
        &mut self,
        store: &dyn Store,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<Scan, AuditError> {
        let mut scan = Scan::with_devices();
        let logs = std::mem::take(&mut self.logs);
        let marks = DigestMarks::of(&logs, self.with_digests);
        for log in &logs {
            let faults = self.faults.count;
            self.scan_table(store, (log, marks), &mut scan, wanted)?;
            self.has_devices &= log.table() != Table::Devices || self.faults.count == faults;
            if !self.has_devices {
                scan.forget_devices();
            }
        }
        self.logs = logs;
        self.is_to_hash = false;
        let nameless = std::mem::take(&mut scan.nameless);
        for (device, path) in &nameless {
            if self.is_settled(path) {
                let what = format!("device {device:?} has rows in it and none in table devices");
                self.faults.add(path, what);
            }
        }
        for (path, gaps) in std::mem::take(&mut scan.spanless) {
            self.faults
                .add(&path, format!("{gaps} gaps in it have no time span"));
        }
        if !scan.suspects.is_empty() {
            self.compare_suspects(store, &mut scan)?;
        }
        Ok(scan)
    }

    fn scan_table(
        &mut self,
        store: &dyn Store,
        (log, marks): (&Log, DigestMarks<'_>),
        scan: &mut Scan,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<(), AuditError> {
        let table = log.table();
        let files = log.files::<LogError>(store, |add| {
            let path = add.full_path(table);
            if self.left_out.contains(&path) {
                return Ok(());
            }
            let checked = match self.is_to_hash {
                true => check_file(store, table, &add),
                false => Ok(()),
            };
            scan.digesting = marks.digesting(&add.path);
            let read = checked.and_then(|()| {
                let read = scan.file(store, table, &path, wanted);
                read.map_err(|error| words(&error))
            });
            if let Err(what) = read {
                self.faults.add(&path, what);
                self.left_out.insert(path);
                self.is_whole = false;
            }
            Ok(())
        });
        if let Err(error) = files {
            self.is_whole = false;
            self.faults.add(&log_dir(table), error.to_string());
            unless_outage(error)?;
        }
        Ok(())
    }

    /// Reads the values of rows that are there more than once, to see whether they differ.
    fn compare_suspects(&mut self, store: &dyn Store, scan: &mut Scan) -> Result<(), AuditError> {
        let mut seen = BTreeMap::new();
        let samples = self.logs.iter().find(|log| log.table() == Table::Samples);
        let Some(log) = samples else {
            return Ok(());
        };
        let compared = log.files::<LogError>(store, |add| {
            let path = add.full_path(Table::Samples);
            if !self.left_out.contains(&path)
                && let Err(error) = compare_file(store, &path, scan, &mut seen)
            {
                self.faults.add(&path, words(&error));
                self.left_out.insert(path);
            }
            Ok(())
        });
        Ok(compared.or_else(unless_outage)?)
    }
}

/// What the logs tell of digests.
#[derive(Clone, Copy)]
struct DigestMarks<'a> {
    digests: Option<&'a Log>,
    /// The last replay that is in all tables.
    replay: Option<u64>,
    is_on: bool,
}

impl<'a> DigestMarks<'a> {
    fn of(logs: &'a [Log], is_on: bool) -> Self {
        let log = |table| logs.iter().find(|log| log.table() == table);
        let marks = [Table::Samples, Table::Quarantine, Table::Digests]
            .map(|table| log(table).and_then(|log| log.mark(REPLAY_APP)));
        Self {
            digests: log(Table::Digests),
            replay: marks.into_iter().min().flatten(),
            is_on,
        }
    }

    /// How the rows of a file count. The other tables may be further than `digests`.
    fn digesting(&self, path: &str) -> Digesting {
        if !self.is_on {
            return Digesting::Off;
        }
        let Some(name) = FileName::parse(path) else {
            return Digesting::On { is_due: false };
        };
        let last = Some(name.last_pos);
        if name.writer == REPLAY_APP {
            return match self.replay >= last {
                true => Digesting::On { is_due: false },
                false => Digesting::Left,
            };
        }
        let is_due = self
            .digests
            .is_some_and(|log| log.mark(name.writer) >= last);
        Digesting::On { is_due }
    }
}

fn unless_outage(error: LogError) -> Result<(), LogError> {
    match error.is_outage() {
        true => Err(error),
        false => Ok(()),
    }
}

fn compare_file(
    store: &dyn Store,
    path: &str,
    scan: &mut Scan,
    seen: &mut BTreeMap<(Key, u64, u64), u64>,
) -> Result<(), AuditError> {
    let columns = [
        "device_id",
        "lane",
        "epoch",
        "seq",
        "row",
        "metric",
        "ts",
        "value_f64",
        "value_i64",
        "value_str",
        "value_bool",
    ];
    let mut reader = Reader::open(store, path, &columns)?;
    while let Some(batch) = reader.next_batch()? {
        let ids = Identity::of(&batch)?;
        for row in 0..batch.rows() {
            let (key, seq) = (ids.key(&mut scan.names, row), ids.seq(row));
            if !scan.suspects.contains(&(key.clone(), seq)) {
                continue;
            }
            let value = value_hash(&batch, row)?;
            let id = (key, seq, ids.reading(row));
            let known = *seen.entry(id.clone()).or_insert(value);
            if known != value {
                scan.state(id.0).conflicting += 1;
            }
        }
    }
    Ok(())
}

/// Time and value of a row as one number.
fn value_hash(batch: &Columns, row: usize) -> Result<u64, AuditError> {
    let mut hasher = DefaultHasher::new();
    cell(batch.times("ts")?, row).hash(&mut hasher);
    cell(batch.doubles("value_f64")?, row)
        .map(f64::to_bits)
        .hash(&mut hasher);
    cell(batch.longs("value_i64")?, row).hash(&mut hasher);
    text(batch.texts("value_str")?, row).hash(&mut hasher);
    cell_bool(batch.bools("value_bool")?, row).hash(&mut hasher);
    Ok(hasher.finish())
}
