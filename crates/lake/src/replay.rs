//! Core: puts readings from `quarantine` among the samples, each exactly once, whenever it is cut off.
//!
//! ```text
//! files of both tables' rows ──► commit devices ──► commit samples ──► commit digests ──► commit quarantine:
//!                                                    └── a crash from here on: ──┘         −1 for each reading
//!                                                        the next run finishes it first
//! ```
//! What was put there is told by identity: a row of `quarantine` with reason `replayed` and `samples` −1
//! names device, lane, epoch, number, row and metric, so that `sum(samples)` is what stands there. Such
//! rows are made from the committed files of `samples`, and from nothing else: a run that a crash cut off
//! between the tables is told by the marks of the two logs, and needs no plan. They have the date of what
//! they take back, so that `prune` removes both together.
//!
//! The digest of a batch changes with its rows. A run adds a row to `digests` with the hashes of what it
//! puts there and of what takes it back, so that the batch as it came and each change to it can be told.
//! They come after the samples: of a run whose samples never came, no digest must stand.
//!
//! It runs beside the owner as `prune` does; of replays only one at a time.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use headwater_proto::ids::{DeviceId, Epoch, Lane, Stream};

use crate::command::{Run, delete_unnamed};
use crate::date::instant_text;
use crate::delta::{
    Actions, Add, Committed, Log, LogError, REPLAY_APP, is_replay_cut, version_path,
};
use crate::error::LakeError;
use crate::head::{load_log, load_logs};
use crate::paths::FileName;
use crate::read::{ReadError, Reader, cell, text};
use crate::row::{DeviceRow, DigestRow, QuarantineRow};
use crate::row_hash::{RefusedFields, RowHasher, SAMPLE_COLUMNS, SampleHashes};
use crate::rows::Rows;
use crate::schema::{DAY_US, Encoding, MAX_TIME_US, Table};
use crate::store::Store;

/// Reason of the rows of `quarantine` that take readings back.
pub const REPLAYED: &str = "replayed";

/// Memory that one remembered reading takes.
const TAKEN_BYTES: u64 = 48;

/// Memory that remembered readings may take; more make several passes over the table.
pub const DEFAULT_MEMORY_BYTES: u64 = 256 << 20;

/// Readings that one run puts into the tables at most: what takes them back is some 300 bytes of memory each.
pub const MAX_RUN_SAMPLES: usize = 200_000;

/// A row of `quarantine` that takes nothing back.
#[derive(Debug, Clone, Copy)]
pub struct Refused<'a> {
    /// The device.
    pub device_id: &'a str,
    /// Lane of the record.
    pub lane: &'a str,
    /// Epoch of the record.
    pub epoch: i64,
    /// Number of the record.
    pub seq: u64,
    /// Row within the record.
    pub row: Option<u32>,
    /// The metric.
    pub metric: Option<&'a str>,
    /// Readings of the whole record, where known.
    pub batch_samples: Option<u32>,
    /// Readings that it stands for.
    pub samples: u32,
    /// Why, as a name.
    pub reason: &'a str,
    /// What was refused.
    pub payload: &'a [u8],
    /// When the record was received.
    pub at_us: i64,
}

impl Refused<'_> {
    /// Its stream, if it is one that this program writes.
    #[must_use]
    pub fn stream(&self) -> Option<Stream> {
        stream(self.device_id, self.lane, self.epoch)
    }

    fn reading(&self, row: u32, metric: &str) -> u128 {
        let record = (self.device_id, self.lane, self.epoch, self.seq);
        reading(record, row, metric)
    }
}

fn stream(device: &str, lane: &str, epoch: i64) -> Option<Stream> {
    Some(Stream {
        device: DeviceId::new(device).ok()?,
        lane: Lane::from_name(lane)?,
        epoch: Epoch::new(epoch.cast_unsigned()),
    })
}

/// The identity of a reading as one number: of two that differ, one in 2^128 is the same.
fn reading(record: (&str, &str, i64, u64), row: u32, metric: &str) -> u128 {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, record, row, metric).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

/// Readings that replays took back, or are about to.
#[derive(Debug, Default)]
pub struct Taken {
    readings: HashSet<u128>,
}

impl Taken {
    /// Whether a reading of `refused` was put among the samples.
    #[must_use]
    pub fn has(&self, refused: &Refused<'_>, row: u32, metric: &str) -> bool {
        self.readings.contains(&refused.reading(row, metric))
    }

    /// Notes that a reading will be put there; `false` if it was before.
    pub fn take(&mut self, refused: &Refused<'_>, row: u32, metric: &str) -> bool {
        self.readings.insert(refused.reading(row, metric))
    }
}

/// Visits every row of `quarantine` that takes nothing back, with what was taken back of it and of
/// others. Reads the table once for each 5 million readings, in [`DEFAULT_MEMORY_BYTES`].
///
/// # Errors
/// When the table cannot be read, and the visitor's.
pub fn each_refused<E: From<LogError> + From<ReadError>>(
    store: &dyn Store,
    memory_bytes: u64,
    mut visit: impl FnMut(&Refused<'_>, &mut Taken) -> Result<(), E>,
) -> Result<(), E> {
    let log = load_log(store, Table::Quarantine)?;
    let mut readings = 0_u64;
    each_row::<E>(store, &log, &["samples"], &|_| true, &mut |rows, row| {
        let samples = cell(rows.ints("samples")?, row).unwrap_or_default();
        readings = readings.saturating_add(samples.unsigned_abs().into());
        Ok(())
    })?;
    let passes = readings
        .saturating_mul(TAKEN_BYTES)
        .div_ceil(memory_bytes.max(1))
        .max(1);
    for pass in 0..passes {
        let is_in_pass = |rows: &crate::read::Columns, row: usize| -> Result<bool, ReadError> {
            let mut hasher = DefaultHasher::new();
            let seq = cell(rows.longs("seq")?, row);
            (text(rows.texts("device_id")?, row), seq).hash(&mut hasher);
            Ok(hasher.finish() % passes == pass)
        };
        let mut taken = Taken::default();
        let is_own = |name: &FileName<'_>| name.writer == REPLAY_APP;
        each_row::<E>(store, &log, &COLUMNS, &is_own, &mut |rows, row| {
            if is_in_pass(rows, row)? {
                let refused = refused_at(rows, row)?;
                if let (Some(number), Some(metric)) = (refused.row, refused.metric) {
                    taken.take(&refused, number, metric);
                }
            }
            Ok(())
        })?;
        let is_other = |name: &FileName<'_>| name.writer != REPLAY_APP;
        each_row::<E>(
            store,
            &log,
            &COLUMNS,
            &is_other,
            &mut |rows, row| match is_in_pass(rows, row)? {
                true => visit(&refused_at(rows, row)?, &mut taken),
                false => Ok(()),
            },
        )?;
    }
    Ok(())
}

/// Whether the last replay was cut off: its readings stand in both tables until the next one.
///
/// # Errors
/// [`LogError`] if the logs cannot be read.
pub fn is_cut(store: &dyn Store) -> Result<bool, LogError> {
    // The samples first: what a run has committed to both is not cut off.
    let logs = load_logs(store, [Table::Samples, Table::Quarantine])?;
    Ok(is_replay_cut(&logs))
}

const COLUMNS: [&str; 11] = [
    "device_id",
    "lane",
    "epoch",
    "seq",
    "row",
    "metric",
    "batch_samples",
    "samples",
    "reason",
    "payload",
    "at",
];

fn each_row<E: From<LogError> + From<ReadError>>(
    store: &dyn Store,
    log: &Log,
    columns: &[&str],
    wanted: &dyn Fn(&FileName<'_>) -> bool,
    visit: &mut dyn FnMut(&crate::read::Columns, usize) -> Result<(), E>,
) -> Result<(), E> {
    log.files(store, |add| {
        if FileName::parse(&add.path).is_some_and(|name| wanted(&name)) {
            let mut reader = Reader::open(store, &add.full_path(log.table()), columns)?;
            while let Some(rows) = reader.next_batch()? {
                (0..rows.rows()).try_for_each(|row| visit(&rows, row))?;
            }
        }
        Ok(())
    })
}

fn refused_at(rows: &crate::read::Columns, row: usize) -> Result<Refused<'_>, ReadError> {
    Ok(Refused {
        device_id: text(rows.texts("device_id")?, row).unwrap_or_default(),
        lane: text(rows.texts("lane")?, row).unwrap_or_default(),
        epoch: cell(rows.longs("epoch")?, row).unwrap_or_default(),
        seq: cell(rows.longs("seq")?, row)
            .unwrap_or_default()
            .cast_unsigned(),
        row: cell(rows.ints("row")?, row).map(i32::cast_unsigned),
        metric: text(rows.texts("metric")?, row),
        batch_samples: cell(rows.ints("batch_samples")?, row).map(i32::cast_unsigned),
        samples: cell(rows.ints("samples")?, row)
            .map_or(0, |samples| samples.max(0).cast_unsigned()),
        reason: text(rows.texts("reason")?, row).unwrap_or_default(),
        payload: rows.bytes("payload", row)?.unwrap_or_default(),
        at_us: cell(rows.times("at")?, row).unwrap_or_default(),
    })
}

/// Writes readings that come from quarantine.
pub struct Replay<'a> {
    store: &'a dyn Store,
    encoding: Encoding,
    now_us: i64,
    devices: Log,
    samples: Log,
    digests: Log,
    quarantine: Log,
    /// Devices of table `devices`.
    known: HashSet<String>,
}

impl<'a> Replay<'a> {
    /// Removes what earlier runs left without a commit, and finishes the one that a crash cut off
    /// between two tables; says how many readings that were.
    ///
    /// # Errors
    /// [`LakeError`]; may be repeated.
    pub fn begin(
        store: &'a dyn Store,
        encoding: Encoding,
        now_us: i64,
    ) -> Result<(Self, u64), LakeError> {
        let tables = [
            Table::Devices,
            Table::Samples,
            Table::Digests,
            Table::Quarantine,
        ];
        let mut logs = load_logs(store, tables)?;
        let mut next = || logs.remove(0);
        let mut replay = Self {
            store,
            encoding,
            now_us: now_us.clamp(0, MAX_TIME_US - DAY_US),
            devices: next(),
            samples: next(),
            digests: next(),
            quarantine: next(),
            known: HashSet::new(),
        };
        replay.expect_samples()?;
        for log in replay.logs() {
            delete_unnamed(store, log, REPLAY_APP)?;
        }
        let known = &mut replay.known;
        each_row::<LakeError>(
            store,
            &replay.devices,
            &["device_id"],
            &|_| true,
            &mut |rows, row| {
                let device = text(rows.texts("device_id")?, row).unwrap_or_default();
                if !known.contains(device) {
                    known.insert(device.to_owned());
                }
                Ok(())
            },
        )?;
        let finished = replay.finish()?;
        Ok((replay, finished))
    }

    const fn logs(&self) -> [&Log; 4] {
        [
            &self.devices,
            &self.samples,
            &self.digests,
            &self.quarantine,
        ]
    }

    /// A run that a later table has and `samples` has not was lost there: its files are not those of a run
    /// that was cut off.
    fn expect_samples(&self) -> Result<(), LakeError> {
        let later = [&self.digests, &self.quarantine];
        let newest = later.iter().filter_map(|log| log.mark(REPLAY_APP)).max();
        if newest <= self.samples.mark(REPLAY_APP) {
            return Ok(());
        }
        let (path, known) = (
            version_path(Table::Samples, self.samples.next()),
            self.samples.next(),
        );
        Err(LogError::Hole { path, known }.into())
    }

    fn finish(&mut self) -> Result<u64, LakeError> {
        let number = self.samples.mark(REPLAY_APP);
        let Some(number) = number.filter(|mark| self.quarantine.mark(REPLAY_APP) < Some(*mark))
        else {
            return Ok(0);
        };
        let mut paths = Vec::new();
        self.samples.files::<LakeError>(self.store, |add| {
            let name = FileName::parse(&add.path);
            if name.is_some_and(|name| name.writer == REPLAY_APP && name.last_pos == number) {
                paths.push(add.full_path(Table::Samples));
            }
            Ok(())
        })?;
        self.take_back(&paths, self.run(number))
    }

    const fn run(&self, number: u64) -> Run {
        Run {
            writer: REPLAY_APP,
            number,
            now_us: self.now_us,
        }
    }

    /// Puts the samples of `rows` into the tables, and takes them back from quarantine: one run. They have
    /// at most [`MAX_RUN_SAMPLES`] and their whole batch's size. A device that table `devices` lacks gets
    /// a row there.
    ///
    /// # Errors
    /// [`LakeError`]; what is cut off [`Self::begin`] finishes or undoes.
    pub fn commit(&mut self, rows: &mut Rows) -> Result<(), LakeError> {
        let marks = self.logs().map(|log| log.mark(REPLAY_APP));
        let number = marks.into_iter().flatten().max().map_or(0, |mark| mark + 1);
        let run = self.run(number);
        self.introduce(rows);
        let adds = run.write(self.store, rows, self.encoding)?.into_iter();
        let (devices, samples): (Vec<_>, Vec<_>) =
            adds.partition(|(table, _)| *table == Table::Devices);
        let paths: Vec<String> = samples
            .iter()
            .map(|(_, add)| add.full_path(Table::Samples))
            .collect();
        // First the devices, for samples of a device without a row there are a fault.
        if !devices.is_empty() {
            self.devices
                .commit(self.store, &actions(devices, &run), self.now_us, None)?;
        }
        let committed =
            self.samples
                .commit(self.store, &actions(samples, &run), self.now_us, None)?;
        if committed == Committed::Before {
            // Of a run with that number somebody else has committed other files.
            let path = paths.into_iter().next().unwrap_or_default();
            return Err(LakeError::Conflict { path });
        }
        self.take_back(&paths, run)?;
        Ok(())
    }

    fn introduce(&mut self, rows: &mut Rows) {
        let mut new = Vec::new();
        for batch in &rows.batches {
            let name = rows.texts.get(batch.device).unwrap_or_default();
            if self.known.insert(name.to_owned()) {
                let text = |id| rows.texts.get(id).map(str::to_owned);
                new.push(DeviceRow {
                    device_id: name.to_owned(),
                    site: text(batch.site),
                    device_type: text(batch.device_type),
                    tags: None,
                    software: None,
                    via: text(batch.via),
                    at_us: batch.ingest_us,
                });
            }
        }
        // Their times were taken with the samples.
        new.into_iter().for_each(|row| drop(rows.push_device(row)));
    }

    /// Commits what takes the readings of some files back, before that how it changes the digests.
    fn take_back(&mut self, paths: &[String], run: Run) -> Result<u64, LakeError> {
        let (mut rows, mut changes) = (Rows::new(), Changes::default());
        for path in paths {
            self.read_run(path, &mut rows, &mut changes)?;
        }
        let taken = rows.len() as u64;
        if self.digests.mark(REPLAY_APP) < Some(run.number) {
            changes.push(run.number, &mut rows);
        }
        let adds = run.write(self.store, &rows, self.encoding)?.into_iter();
        let (digests, refused): (Vec<_>, Vec<_>) =
            adds.partition(|(table, _)| *table == Table::Digests);
        if !digests.is_empty() {
            self.digests
                .commit(self.store, &actions(digests, &run), self.now_us, None)?;
        }
        self.quarantine
            .commit(self.store, &actions(refused, &run), self.now_us, None)?;
        Ok(taken)
    }

    /// Reads what takes the readings of a file back, and what both change.
    fn read_run(
        &self,
        path: &str,
        rows: &mut Rows,
        changes: &mut Changes,
    ) -> Result<(), LakeError> {
        const IDENTITY: [&str; 6] = [
            "device_id",
            "ingest_ts",
            "lane",
            "epoch",
            "seq",
            "batch_samples",
        ];
        let cause = format!("put among the samples at {}", instant_text(self.now_us));
        let columns = [&IDENTITY[..], &SAMPLE_COLUMNS].concat();
        let mut reader = Reader::open(self.store, path, &columns)?;
        while let Some(batch) = reader.next_batch()? {
            let (devices, lanes) = (batch.texts("device_id")?, batch.texts("lane")?);
            let (epochs, seqs) = (batch.longs("epoch")?, batch.longs("seq")?);
            let (numbers, sizes) = (batch.ints("row")?, batch.ints("batch_samples")?);
            let (metrics, times) = (batch.texts("metric")?, batch.times("ingest_ts")?);
            let (hashes, measured) = (SampleHashes::of(&batch)?, batch.times("ts")?);
            for row in 0..batch.rows() {
                let of = stream(devices.value(row), lanes.value(row), epochs.value(row));
                let taken = QuarantineRow {
                    stream: of.ok_or_else(|| LakeError::Conflict { path: path.into() })?,
                    seq: seqs.value(row).cast_unsigned(),
                    row: cell(numbers, row).map(i32::cast_unsigned),
                    metric: text(metrics, row).map(str::to_owned),
                    batch_samples: cell(sizes, row).map(i32::cast_unsigned),
                    samples: -1,
                    reason: REPLAYED.to_owned(),
                    payload: None,
                    at_us: times.value(row),
                    cause: Some(cause.clone()),
                };
                let stored = hashes.hash(&mut changes.hasher, row);
                changes.take(&taken, stored, measured.value(row));
                // Its numbers were read from the lake, so that they fit.
                let _ = rows.push_quarantine(taken);
            }
        }
        Ok(())
    }
}

/// How a run changes the digests of batches.
#[derive(Default)]
struct Changes {
    hasher: RowHasher,
    batches: BTreeMap<(Stream, u64), Change>,
}

#[derive(Default)]
struct Change {
    stored: u64,
    quarantined: u64,
    t_last_us: i64,
}

impl Changes {
    /// - `stored`, `ts_us`: hash and time of the reading that `taken` takes back.
    fn take(&mut self, taken: &QuarantineRow, stored: u64, ts_us: i64) {
        let quarantined = self.hasher.refused(&RefusedFields {
            row: taken.row,
            at_us: taken.at_us,
            samples: taken.samples,
            metric: taken.metric.as_deref(),
            reason: &taken.reason,
            payload: taken.payload.as_deref(),
        });
        let key = (taken.stream.clone(), taken.seq);
        let change = self.batches.entry(key).or_default();
        change.stored = change.stored.wrapping_add(stored);
        change.quarantined = change.quarantined.wrapping_add(quarantined);
        change.t_last_us = change.t_last_us.max(ts_us).max(taken.at_us);
    }

    fn push(&self, run: u64, rows: &mut Rows) {
        for ((stream, seq), change) in &self.batches {
            // As with the rows that take readings back.
            let _ = rows.push_digest(&DigestRow {
                device_id: stream.device.as_str(),
                lane: stream.lane,
                epoch: stream.epoch,
                seq: *seq,
                samples: 0,
                stored: change.stored,
                quarantined: Some(change.quarantined),
                t_last_us: change.t_last_us,
                replay: Some(run),
            });
        }
    }
}

fn actions(adds: Vec<(Table, Add)>, run: &Run) -> Actions {
    Actions {
        adds: adds.into_iter().map(|(_, add)| add).collect(),
        removes: Vec::new(),
        txns: run.txns(),
    }
}
