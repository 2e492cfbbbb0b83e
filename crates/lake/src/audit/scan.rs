//! Core: what files hold of each stream, from their identity columns alone. Per stream only ranges
//! stay in memory, and the batches and log records that are not whole.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use headwater_proto::ids::SeqRange;
use headwater_proto::message::GapReason;

use super::AuditError;
use super::digests::{Digesting, Digests, Share, hashed_columns};
use super::missing::{Gap, Named};
use crate::ranges::Ranges;
use crate::read::{Columns, Reader, cell, cell_bool, text};
use crate::row_hash::{LineHashes, RowHasher, SampleHashes, refused_hash};
use crate::rows::{EpochState, PRUNED};
use crate::schema::{DIGESTS_SINCE, Table};
use crate::store::Store;

/// Most batches that one pass looks at twice, to tell repeated rows from conflicting ones: their values
/// are held in memory. More are counted.
pub const MAX_SUSPECTS: usize = 1_000;

/// A stream as the lake names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) device: Arc<str>,
    pub(crate) lane: Arc<str>,
    pub(crate) epoch: i64,
}

/// A batch of which not every reading was found yet, or some are in quarantine; or a log record of
/// which not every line was.
#[derive(Debug, Default)]
pub(crate) struct Partial {
    /// Readings in the whole batch; 0: not known.
    pub(crate) batch_samples: u32,
    /// Readings found, by the hash of row and metric; or lines by their number.
    pub(crate) found: HashSet<u64>,
    /// Readings that rows of the quarantine stand for, less those that a replay took back.
    pub(crate) quarantined: i64,
}

impl Partial {
    pub(crate) fn is_whole(&self) -> bool {
        self.batch_samples > 0 && self.excess() >= 0
    }

    /// Readings that are there beyond those of the batch: they are among the samples and in quarantine.
    fn excess(&self) -> i64 {
        let found = i64::try_from(self.found.len()).unwrap_or(i64::MAX);
        let quarantined = self.quarantined.max(0);
        found.saturating_add(quarantined) - i64::from(self.batch_samples)
    }

    /// Readings that stand both among the samples and in quarantine, or that a replay took back more
    /// than once.
    pub(super) fn unmarked(&self) -> u64 {
        let excess = if self.batch_samples > 0 && self.quarantined != 0 {
            self.excess().max(0)
        } else {
            0
        };
        excess.unsigned_abs() + self.quarantined.min(0).unsigned_abs()
    }
}

/// What is known of one stream.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Batches that are whole.
    pub(crate) whole: Ranges,
    /// Numbers of records that gave rows of other tables.
    pub(crate) records: Ranges,
    /// Batches that are not whole, or partly in quarantine.
    pub(crate) partial: BTreeMap<u64, Partial>,
    /// Log records that are not whole.
    pub(crate) cut_records: BTreeMap<u64, Partial>,
    pub(crate) named: Named,
    /// What gaps name that stand for pruned data.
    pub(crate) pruned: Ranges,
    /// A record says that readings may be missing beyond the last one.
    pub(crate) has_stopped: bool,
    /// A gap names the time of what an unclean stop lost.
    pub(crate) names_stop: bool,
    /// Earliest and latest time of its rows, if the scan looks for them.
    pub(crate) times_us: Option<(i64, i64)>,
    pub(crate) samples: u64,
    pub(crate) log_lines: u64,
    /// Readings in quarantine, less those that a replay took back.
    pub(crate) quarantined: i64,
    pub(crate) repeated: u64,
    pub(crate) conflicting: u64,
    /// Batches with repeated rows that were not looked at twice.
    pub(crate) uncompared: u64,
    pub(crate) epoch: Option<Merged>,
    /// Empty unless digests are asked for.
    pub(super) digests: Digests,
}

impl State {
    /// - `size`: lines of the whole record.
    fn take_line(&mut self, seq: u64, line: u32, size: u32) {
        if self.records.contains(seq) {
            self.repeated += 1;
            return;
        }
        let record = self.cut_records.entry(seq).or_default();
        if record.batch_samples == 0 {
            record.batch_samples = size;
        } else if record.batch_samples != size {
            self.conflicting += 1;
        }
        if !record.found.insert(line.into()) {
            self.repeated += 1;
        }
        if record.is_whole() {
            self.cut_records.remove(&seq);
            self.records.insert(SeqRange::new(seq, seq + 1));
        }
    }
}

/// The rows of `epochs` on one stream, merged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Merged {
    pub(crate) first: u64,
    /// Highest end of all rows.
    pub(crate) next: u64,
    /// Below it, every number was handed to the lake.
    pub(crate) strict: u64,
    /// The number after the last one that the writer is known to have had.
    pub(crate) claimed: u64,
    /// The furthest state.
    pub(crate) state: EpochState,
    /// Only if all rows that tell say so.
    pub(crate) clean: Option<bool>,
}

/// What a scan found.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) streams: BTreeMap<Key, State>,
    /// Batches with rows that are there more than once.
    pub(super) suspects: HashSet<(Key, u64)>,
    /// Devices of table `devices`; `None`: nobody asks.
    devices: Option<HashSet<Arc<str>>>,
    /// Devices of samples that table `devices` lacks, each with the first of their files.
    pub(super) nameless: BTreeMap<Arc<str>, String>,
    /// Gaps without a time span in files that have the column for it, by file.
    pub(super) spanless: BTreeMap<String, u64>,
    /// Whether the times of rows are looked at.
    with_times: bool,
    /// How the rows of the next file count for digests.
    pub(super) digesting: Digesting,
    hasher: RowHasher,
    pub(super) names: Names,
}

impl Scan {
    /// A scan that looks for the devices of samples in table `devices`, which is to be read first.
    pub(super) fn with_devices() -> Self {
        Self {
            devices: Some(HashSet::new()),
            ..Self::default()
        }
    }

    /// A scan that looks at the times of rows.
    pub(crate) fn with_times() -> Self {
        Self {
            with_times: true,
            ..Self::default()
        }
    }

    /// Table `devices` cannot be read.
    pub(super) fn forget_devices(&mut self) {
        self.devices = None;
    }

    pub(super) fn state(&mut self, key: Key) -> &mut State {
        self.streams.entry(key).or_default()
    }

    /// Reads one file.
    pub(crate) fn file(
        &mut self,
        store: &dyn Store,
        table: Table,
        path: &str,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<(), AuditError> {
        const RECORD: [&str; 4] = ["rec_device", "rec_lane", "rec_epoch", "rec_seq"];
        const STREAM: [&str; 3] = ["device_id", "lane", "epoch"];
        const GAP: [&str; 8] = [
            "seq_first",
            "seq_last",
            "samples",
            "t_first",
            "t_last",
            "span",
            "stage",
            "reason",
        ];
        const DIGEST: [&str; 5] = ["seq", "samples", "digest", "digest_quarantined", "replay"];
        let own: &[&str] = match table {
            Table::Samples => &["seq", "row", "metric", "batch_samples"],
            Table::Quarantine => &["seq", "row", "metric", "batch_samples", "samples"],
            Table::Gaps => &GAP,
            Table::Epochs => &["first_seq", "next_seq", "state", "clean"],
            Table::Logs => &["line", "record_lines"],
            Table::Devices => &[],
            Table::Digests if self.digesting.is_on() => &DIGEST,
            Table::Metrics | Table::Digests => return Ok(()),
        };
        if table == Table::Devices && self.devices.is_none() {
            return Ok(());
        }
        let mut columns = [own, &STREAM, &RECORD].concat();
        if self.with_times {
            columns.push(table.time_column());
        }
        if self.digesting.is_on() {
            columns.extend(hashed_columns(table));
        }
        let mut reader = Reader::open(store, path, &columns)?;
        if let Digesting::On { is_due } = &mut self.digesting {
            *is_due &= reader.schema_version() >= Some(DIGESTS_SINCE);
        }
        let mut group = Group::default();
        while let Some(batch) = reader.next_batch()? {
            match table {
                Table::Samples => self.samples(&batch, path, &mut group, wanted)?,
                Table::Quarantine => self.quarantine(&batch, wanted)?,
                Table::Gaps => self.gaps(&batch, path, wanted)?,
                Table::Epochs => self.epochs(&batch, wanted)?,
                Table::Devices => self.devices(&batch, wanted)?,
                Table::Logs => self.lines(&batch, wanted)?,
                Table::Digests => self.digests(&batch, wanted)?,
                Table::Metrics => {}
            }
            if self.with_times {
                self.times(&batch, table, wanted)?;
            }
            if matches!(table, Table::Gaps | Table::Epochs) {
                self.records(&batch, table, wanted)?;
            }
        }
        self.end_group(&mut group);
        Ok(())
    }

    /// Files are sorted by device, so that one device's readings come together.
    fn samples(
        &mut self,
        batch: &Columns,
        path: &str,
        group: &mut Group,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<(), AuditError> {
        let ids = Identity::of(batch)?;
        let sizes = batch.ints("batch_samples")?;
        let hashes = match self.digesting.is_on() {
            true => Some(SampleHashes::of(batch)?),
            false => None,
        };
        for row in 0..batch.rows() {
            let device = ids.devices.value(row);
            if group.device.as_deref() != Some(device) {
                self.end_group(group);
                group.device = Some(self.names.get(device));
                group.wanted = wanted(device);
                if group.wanted {
                    self.meet(device, path);
                }
            }
            if group.wanted {
                let batch_samples = cell(sizes, row).unwrap_or_default().cast_unsigned();
                let lane = self.names.get(ids.lanes.value(row));
                let (epoch, seq, id) = (ids.epochs.value(row), ids.seq(row), ids.reading(row));
                let hash = hashes.as_ref();
                let hash = hash.map_or(0, |hashes| hashes.hash(&mut self.hasher, row));
                group.rows.push(Reading {
                    lane,
                    epoch,
                    seq,
                    id,
                    batch_samples,
                    hash,
                });
            }
        }
        Ok(())
    }

    /// Notes a device of samples that table `devices` lacks.
    fn meet(&mut self, device: &str, path: &str) {
        let known = self.devices.as_ref();
        if known.is_some_and(|known| !known.contains(device)) {
            let device = self.names.get(device);
            self.nameless
                .entry(device)
                .or_insert_with(|| path.to_owned());
        }
    }

    fn devices(
        &mut self,
        batch: &Columns,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<(), AuditError> {
        let names = batch.texts("device_id")?;
        for row in (0..batch.rows()).filter(|row| wanted(names.value(*row))) {
            let device = self.names.get(names.value(row));
            self.devices.get_or_insert_default().insert(device);
        }
        Ok(())
    }

    fn end_group(&mut self, group: &mut Group) {
        let Some(device) = group.device.take() else {
            return;
        };
        group.rows.sort_unstable();
        let mut rest = group.rows.as_slice();
        while let Some(first) = rest.first() {
            let same =
                |r: &&Reading| (&r.lane, r.epoch, r.seq) == (&first.lane, first.epoch, first.seq);
            let count = rest.iter().take_while(same).count();
            let (readings, others) = rest.split_at(count);
            let key = Key {
                device: Arc::clone(&device),
                lane: Arc::clone(&first.lane),
                epoch: first.epoch,
            };
            self.batch(key, first.seq, readings);
            rest = others;
        }
        group.rows.clear();
    }

    /// Takes the readings of one batch that one file holds, sorted.
    fn batch(&mut self, key: Key, seq: u64, readings: &[Reading]) {
        let state = self.streams.entry(key.clone()).or_default();
        state.samples += readings.len() as u64;
        let hashes = readings.iter().map(|reading| reading.hash);
        let share = Share {
            rows: i64::try_from(readings.len()).unwrap_or(i64::MAX),
            stored: hashes.fold(0, u64::wrapping_add),
            quarantined: 0,
        };
        state.digests.find(self.digesting, seq, share);
        let size = readings
            .iter()
            .map(|r| r.batch_samples)
            .max()
            .unwrap_or_default();
        if readings.iter().any(|r| r.batch_samples != size) {
            state.conflicting += 1;
        }
        let twice = readings
            .windows(2)
            .filter(|pair| pair[0].id == pair[1].id)
            .count();
        let mut repeated = twice as u64;
        if state.whole.contains(seq) {
            repeated = readings.len() as u64;
        } else if twice == 0 && readings.len() == size as usize && !state.partial.contains_key(&seq)
        {
            state.whole.insert(SeqRange::new(seq, seq + 1));
        } else {
            let partial = state.partial.entry(seq).or_default();
            if partial.batch_samples == 0 {
                partial.batch_samples = size;
            } else if partial.batch_samples != size {
                state.conflicting += 1;
            }
            let before = partial.found.len();
            partial.found.extend(readings.iter().map(|r| r.id));
            repeated = (readings.len() - (partial.found.len() - before)) as u64;
            let found = partial.found.len();
            if found > partial.batch_samples as usize {
                state.conflicting += 1;
            } else if partial.quarantined == 0 && found == partial.batch_samples as usize {
                state.partial.remove(&seq);
                state.whole.insert(SeqRange::new(seq, seq + 1));
            }
        }
        state.repeated += repeated;
        if repeated > 0 && !self.suspects.contains(&(key.clone(), seq)) {
            if self.suspects.len() < MAX_SUSPECTS {
                self.suspects.insert((key, seq));
            } else {
                state.uncompared += 1;
            }
        }
    }

    fn quarantine(
        &mut self,
        batch: &Columns,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<(), AuditError> {
        let ids = Identity::of(batch)?;
        let (sizes, samples) = (batch.ints("batch_samples")?, batch.ints("samples")?);
        for row in (0..batch.rows()).filter(|row| wanted(ids.devices.value(*row))) {
            let stands_for = i64::from(cell(samples, row).unwrap_or_default());
            if stands_for == 0 {
                continue;
            }
            let key = ids.key(&mut self.names, row);
            let how = self.digesting;
            let quarantined = match how.is_on() {
                true => refused_hash(batch, &mut self.hasher, row)?,
                false => 0,
            };
            let state = self.state(key);
            let share = Share {
                rows: stands_for,
                stored: 0,
                quarantined,
            };
            state.digests.find(how, ids.seq(row), share);
            state.quarantined += stands_for;
            let partial = state.partial.entry(ids.seq(row)).or_default();
            partial.quarantined = partial.quarantined.saturating_add(stands_for);
            let size = cell(sizes, row).unwrap_or_default().cast_unsigned();
            partial.batch_samples = partial.batch_samples.max(size);
        }
        Ok(())
    }

    fn gaps(
        &mut self,
        batch: &Columns,
        path: &str,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<(), AuditError> {
        let (firsts, lasts) = (batch.longs("seq_first")?, batch.longs("seq_last")?);
        let (samples, stages) = (batch.longs("samples")?, batch.texts("stage")?);
        let reasons = batch.texts("reason")?;
        let (t_firsts, t_lasts) = (batch.times("t_first")?, batch.times("t_last")?);
        // A column that came later: a file may lack it.
        let spans = batch.texts("span").ok();
        let stream = StreamColumns::of(batch, ["device_id", "lane", "epoch"])?;
        for row in 0..batch.rows() {
            let mut span = cell(t_firsts, row).zip(cell(t_lasts, row));
            if spans.is_some_and(|spans| text(spans, row).is_none() || span.is_none()) {
                *self.spanless.entry(path.to_owned()).or_default() += 1;
                span = None;
            }
            // The lake has what one of the sinks lacks.
            if stages.value(row) == "sink" {
                continue;
            }
            let Some(key) = stream
                .key(&mut self.names, row)
                .filter(|k| wanted(&k.device))
            else {
                continue;
            };
            let samples = cell(samples, row).map(i64::cast_unsigned);
            let range = cell(firsts, row).zip(cell(lasts, row));
            let reason = self.names.get(reasons.value(row));
            let state = self.state(key);
            match range {
                Some((first, last)) => {
                    let range = SeqRange::new(first.cast_unsigned(), last.cast_unsigned() + 1);
                    if reasons.value(row) == GapReason::Empty.name() {
                        // Its records came, and held nothing.
                        state.records.insert(range);
                    } else {
                        let gap = Gap {
                            range,
                            samples,
                            span,
                        };
                        state.named.take(reason, gap);
                    }
                    if (reasons.value(row), stages.value(row)) == PRUNED {
                        state.pruned.insert(range);
                    }
                }
                None => {
                    state.named.take_timed(reason, samples, span);
                    state.names_stop |= reasons.value(row) == GapReason::UncleanStop.name();
                }
            }
        }
        Ok(())
    }

    fn epochs(&mut self, batch: &Columns, wanted: &dyn Fn(&str) -> bool) -> Result<(), AuditError> {
        let (firsts, nexts) = (batch.longs("first_seq")?, batch.longs("next_seq")?);
        let (states, clean) = (batch.texts("state")?, batch.bools("clean")?);
        let stream = StreamColumns::of(batch, ["device_id", "lane", "epoch"])?;
        let carriers = batch.longs("rec_seq")?;
        for row in 0..batch.rows() {
            let Some(key) = stream
                .key(&mut self.names, row)
                .filter(|k| wanted(&k.device))
            else {
                continue;
            };
            let state =
                EpochState::from_name(states.value(row)).ok_or_else(|| AuditError::State {
                    state: states.value(row).to_owned(),
                })?;
            let first = firsts.value(row).cast_unsigned();
            let next = nexts.value(row).cast_unsigned();
            let (next, claimed) = match state {
                EpochState::Claimed => (0, next),
                EpochState::Open
                | EpochState::Ended
                | EpochState::Closed
                | EpochState::Abandoned => (next, 0),
            };
            let strict = if state == EpochState::Ended { 0 } else { next };
            let clean = cell_bool(clean, row);
            let new = Merged {
                first,
                next,
                strict,
                claimed,
                state,
                clean,
            };
            let of_stream = self.state(key);
            // The collector's own word is of numbers alone.
            of_stream.has_stopped |= clean == Some(false) && cell(carriers, row).is_some();
            let known = &mut of_stream.epoch;
            *known = Some(known.map_or(new, |known| known.merge(new)));
        }
        Ok(())
    }

    /// Takes log lines: a record is there once all its lines are.
    fn lines(&mut self, batch: &Columns, wanted: &dyn Fn(&str) -> bool) -> Result<(), AuditError> {
        let stream = StreamColumns::of(batch, ["rec_device", "rec_lane", "rec_epoch"])?;
        let (seqs, lines) = (batch.longs("rec_seq")?, batch.ints("line")?);
        // A column that came later: a file may lack it.
        let sizes = batch.ints("record_lines").ok();
        let how = self.digesting;
        let hashes = match how.is_on() {
            true => Some(LineHashes::of(batch)?),
            false => None,
        };
        for row in 0..batch.rows() {
            let key = stream.key(&mut self.names, row);
            let seq = cell(seqs, row).map(i64::cast_unsigned);
            let Some((key, seq)) = key.filter(|key| wanted(&key.device)).zip(seq) else {
                continue;
            };
            let size = sizes.and_then(|sizes| cell(sizes, row)).unwrap_or_default();
            let line = cell(lines, row).unwrap_or_default().cast_unsigned();
            let hash = hashes.as_ref();
            let share = Share {
                rows: 1,
                stored: hash.map_or(0, |hashes| hashes.hash(&mut self.hasher, row)),
                quarantined: 0,
            };
            let state = self.state(key);
            state.digests.find(how, seq, share);
            state.log_lines += 1;
            if size == 0 {
                state.records.insert(SeqRange::new(seq, seq + 1));
            } else {
                state.take_line(seq, line, size.cast_unsigned());
            }
        }
        Ok(())
    }

    fn digests(
        &mut self,
        batch: &Columns,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<(), AuditError> {
        let stream = StreamColumns::of(batch, ["device_id", "lane", "epoch"])?;
        let (seqs, sizes) = (batch.longs("seq")?, batch.ints("samples")?);
        let (stored, quarantined) = (batch.longs("digest")?, batch.longs("digest_quarantined")?);
        let replays = batch.longs("replay")?;
        for row in 0..batch.rows() {
            let key = stream.key(&mut self.names, row);
            let Some(key) = key.filter(|key| wanted(&key.device)) else {
                continue;
            };
            let number = |array| cell(array, row).map_or(0, i64::cast_unsigned);
            let told = Share {
                rows: cell(sizes, row).unwrap_or_default().into(),
                stored: number(stored),
                quarantined: number(quarantined),
            };
            let is_base = cell(replays, row).is_none();
            let digests = &mut self.state(key).digests;
            digests.tell(number(seqs), told, is_base);
        }
        Ok(())
    }

    /// Looks at the times of rows.
    fn times(
        &mut self,
        batch: &Columns,
        table: Table,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<(), AuditError> {
        let columns = match table {
            Table::Logs => ["rec_device", "rec_lane", "rec_epoch"],
            Table::Samples
            | Table::Quarantine
            | Table::Gaps
            | Table::Epochs
            | Table::Devices
            | Table::Metrics
            | Table::Digests => ["device_id", "lane", "epoch"],
        };
        let stream = StreamColumns::of(batch, columns)?;
        let times = batch.times(table.time_column())?;
        for row in 0..batch.rows() {
            let key = stream.key(&mut self.names, row);
            let wanted = key.filter(|key| wanted(&key.device));
            if let Some((key, time)) = wanted.zip(cell(times, row)) {
                let known = &mut self.state(key).times_us;
                let (first, last) = known.unwrap_or((time, time));
                *known = Some((first.min(time), last.max(time)));
            }
        }
        Ok(())
    }

    /// Counts the records that carried rows.
    fn records(
        &mut self,
        batch: &Columns,
        table: Table,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<(), AuditError> {
        let stream = StreamColumns::of(batch, ["rec_device", "rec_lane", "rec_epoch"])?;
        let seqs = batch.longs("rec_seq")?;
        let of = StreamColumns::of(batch, ["device_id", "lane", "epoch"]).ok();
        for row in 0..batch.rows() {
            let Some(key) = stream
                .key(&mut self.names, row)
                .filter(|k| wanted(&k.device))
            else {
                continue;
            };
            let Some(seq) = cell(seqs, row).map(i64::cast_unsigned) else {
                continue;
            };
            // The end of an epoch that is its own last record lies within the epoch.
            let own = of.as_ref().and_then(|of| of.key(&mut self.names, row));
            let ends_itself = table == Table::Epochs && own.as_ref() == Some(&key);
            let state = self.state(key);
            state.records.insert(SeqRange::new(seq, seq + 1));
            if let Some(epoch) = state.epoch.as_mut().filter(|_| ends_itself) {
                epoch.next = epoch.next.max(seq + 1);
            }
        }
        Ok(())
    }
}

impl Merged {
    fn merge(self, other: Self) -> Self {
        let clean = match (self.clean, other.clean) {
            (Some(a), Some(b)) => Some(a && b),
            (a, b) => a.or(b),
        };
        Self {
            first: self.first.min(other.first),
            next: self.next.max(other.next),
            strict: self.strict.max(other.strict),
            claimed: self.claimed.max(other.claimed),
            state: self.state.max(other.state),
            clean,
        }
    }
}

/// The readings of one device in one file.
#[derive(Default)]
struct Group {
    device: Option<Arc<str>>,
    wanted: bool,
    rows: Vec<Reading>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Reading {
    lane: Arc<str>,
    epoch: i64,
    seq: u64,
    id: u64,
    batch_samples: u32,
    /// For its batch's digest.
    hash: u64,
}

/// Texts that stand in many keys.
#[derive(Debug, Default)]
pub(crate) struct Names {
    names: HashSet<Arc<str>>,
}

impl Names {
    pub(super) fn get(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return Arc::clone(known);
        }
        let new: Arc<str> = name.into();
        self.names.insert(Arc::clone(&new));
        new
    }
}

/// The columns that name a stream.
struct StreamColumns<'a> {
    devices: &'a arrow_array::StringArray,
    lanes: &'a arrow_array::StringArray,
    epochs: &'a arrow_array::Int64Array,
}

impl<'a> StreamColumns<'a> {
    fn of(batch: &'a Columns, [device, lane, epoch]: [&str; 3]) -> Result<Self, AuditError> {
        let (devices, lanes) = (batch.texts(device)?, batch.texts(lane)?);
        Ok(Self {
            devices,
            lanes,
            epochs: batch.longs(epoch)?,
        })
    }

    /// `None` if one of them is null.
    fn key(&self, names: &mut Names, row: usize) -> Option<Key> {
        let device = names.get(text(self.devices, row)?);
        let lane = names.get(text(self.lanes, row)?);
        Some(Key {
            device,
            lane,
            epoch: cell(self.epochs, row)?,
        })
    }
}

/// The columns that name a reading.
pub(super) struct Identity<'a> {
    devices: &'a arrow_array::StringArray,
    lanes: &'a arrow_array::StringArray,
    epochs: &'a arrow_array::Int64Array,
    seqs: &'a arrow_array::Int64Array,
    rows: &'a arrow_array::Int32Array,
    metrics: &'a arrow_array::StringArray,
}

impl<'a> Identity<'a> {
    pub(super) fn of(batch: &'a Columns) -> Result<Self, AuditError> {
        Ok(Self {
            devices: batch.texts("device_id")?,
            lanes: batch.texts("lane")?,
            epochs: batch.longs("epoch")?,
            seqs: batch.longs("seq")?,
            rows: batch.ints("row")?,
            metrics: batch.texts("metric")?,
        })
    }

    pub(super) fn key(&self, names: &mut Names, row: usize) -> Key {
        let device = names.get(self.devices.value(row));
        Key {
            device,
            lane: names.get(self.lanes.value(row)),
            epoch: self.epochs.value(row),
        }
    }

    pub(super) fn seq(&self, row: usize) -> u64 {
        self.seqs.value(row).cast_unsigned()
    }

    /// Row and metric as one number.
    pub(super) fn reading(&self, row: usize) -> u64 {
        let mut hasher = DefaultHasher::new();
        (cell(self.rows, row), text(self.metrics, row)).hash(&mut hasher);
        hasher.finish()
    }
}
