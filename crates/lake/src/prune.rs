//! Local retention: takes whole dates out of `samples`, `logs`, `quarantine` and `digests`.
//!
//! What goes is named first, so that the audit explains it: rows of `gaps` with reason `pruned`
//! and stage `lake` for each range of numbers. Then a commit removes the files from their tables,
//! and only then are they deleted: a reader that follows the log never meets a missing file that
//! it was promised after it looked. A crash in between is mended by the next run: a gap beside
//! data that is still there is `filled`, and files that a commit removed are deleted by their name.
//!
//! An operator runs it; it need not own the lake: its commits stand between those of the owner, who
//! alone writes checkpoints.
//!
//! The digest of a batch goes with the last of its rows, whose date it has. Of a batch of which only some
//! rows are left nobody can say whether they are right, and the gap tells the audit not to ask.
//!
//! `gaps`, `epochs`, `devices` and `metrics` are small and stay.

use headwater_proto::ids::{DeviceId, Epoch, Lane, SeqRange, Stream};
use serde::Serialize;

use crate::audit::{AuditError, Key, Scan};
use crate::command::Run;
use crate::date::{date_text, day_of};
use crate::delta::{Actions, Add, Log, LogError};
use crate::error::LakeError;
use crate::head::load_log;
use crate::paths::{FileName, HOT_DIR};
use crate::ranges::Ranges;
use crate::rows::{GapRow, PRUNED as PRUNED_GAP, Rows, SpanKind};
use crate::schema::{DAY_US, Encoding, Table};
use crate::store::Store;

/// Under this name the log keeps the count of runs, as it keeps the positions of journals.
pub(crate) const WRITER: &str = "prune";

/// Tables whose files go.
pub(crate) const PRUNED: [Table; 4] = [
    Table::Samples,
    Table::Logs,
    Table::Quarantine,
    Table::Digests,
];

/// Why a lake could not be pruned.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// What is to go cannot be read, so that it could not be named.
    #[error(transparent)]
    Read(#[from] AuditError),
    /// The store or a log refused; the next run goes on.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// A row names a device or lane that no writer of this program makes.
    #[error("{device:?} in lane {lane:?} is no stream")]
    Stream {
        /// The device as the row says.
        device: String,
        /// The lane as the row says.
        lane: String,
    },
}

impl From<LogError> for PruneError {
    fn from(error: LogError) -> Self {
        Self::Lake(error.into())
    }
}

impl From<crate::store::StoreError> for PruneError {
    fn from(error: crate::store::StoreError) -> Self {
        Self::Lake(error.into())
    }
}

/// What a run did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Pruned {
    /// First date that stays.
    pub kept_from: String,
    /// Files that went.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their rows.
    pub rows: u64,
    /// Rows of `gaps` that name them.
    pub gaps: u64,
}

/// Removes the dates older than `keep_days` days before `now_us`; today is the last of the days
/// that stay. One run at a time; a writer may go on meanwhile.
///
/// # Errors
/// [`PruneError`]; the next run finishes what was begun.
pub fn prune(store: &dyn Store, keep_days: u32, now_us: i64) -> Result<Pruned, PruneError> {
    let kept_from = day_of(now_us) - i64::from(keep_days) + 1;
    let kept_date = date_text(kept_from);
    let mut pruned = Pruned {
        kept_from: kept_date.clone(),
        ..Pruned::default()
    };
    let mut scan = Scan::with_times();
    let mut going: Vec<(Log, Vec<Add>)> = Vec::new();
    for table in PRUNED {
        let log = load_log(store, table)?;
        let mut files = Vec::new();
        // Dates in this notation sort as text.
        log.files::<PruneError>(store, |add| {
            if add.dt < kept_date {
                scan.file(
                    store,
                    table,
                    &format!("{}/{}", table.name(), add.path),
                    &|_| true,
                )?;
                pruned.files += 1;
                pruned.bytes += add.bytes;
                pruned.rows += add.parsed_stats(table).rows;
                files.push(add);
            }
            Ok(())
        })?;
        going.push((log, files));
    }
    if pruned.files > 0 {
        pruned.gaps = name_gaps(store, &scan, now_us)?;
    }
    for (log, files) in &mut going {
        if !files.is_empty() {
            let removes = files.iter().map(|add| add.path.clone()).collect();
            let actions = Actions {
                removes,
                ..Actions::default()
            };
            log.commit(store, &actions, now_us, None)?;
        }
        delete_removed(store, log, &kept_date)?;
    }
    Ok(pruned)
}

/// Writes and commits the gaps that name what goes.
fn name_gaps(store: &dyn Store, scan: &Scan, now_us: i64) -> Result<u64, PruneError> {
    let at_us = now_us.clamp(0, crate::schema::MAX_TIME_US - DAY_US);
    let mut rows = Rows::new();
    for (key, state) in &scan.streams {
        let mut ranges = Ranges::default();
        ranges.insert_all(&state.whole);
        ranges.insert_all(&state.records);
        let cut = state.partial.keys().chain(state.cut_records.keys());
        cut.for_each(|seq| ranges.insert(SeqRange::new(*seq, seq + 1)));
        let stream = stream(key)?;
        let single = ranges.iter().count() == 1;
        // Of all that goes of the stream: the rows of each range are among them.
        let times_us = state.times_us.unwrap_or((0, at_us));
        for range in ranges.iter() {
            let gap = GapRow {
                stream: stream.clone(),
                seqs: Some((range.first, range.next - 1)),
                samples: single.then_some(state.samples),
                t_first_us: times_us.0,
                t_last_us: times_us.1,
                span: match state.quarantined {
                    0 => SpanKind::Exact,
                    // Of those in quarantine it is known when they were refused.
                    _ => SpanKind::Bounds,
                },
                reason: PRUNED_GAP.0.to_owned(),
                stage: PRUNED_GAP.1.to_owned(),
                sink: None,
                at_us,
                record: None,
                source: None,
            };
            // Its numbers were read from the lake, so that they fit.
            let _ = rows.push_gap(gap);
        }
    }
    let mut log = load_log(store, Table::Gaps)?;
    let number = log.mark(WRITER).map_or(0, |mark| mark + 1);
    let run = Run {
        writer: WRITER,
        number,
        now_us,
    };
    let adds = run.write(store, &rows, Encoding::Compact)?;
    let actions = Actions {
        adds: adds.into_iter().map(|(_, add)| add).collect(),
        removes: Vec::new(),
        txns: run.txns(),
    };
    log.commit(store, &actions, now_us, None)?;
    Ok(rows.len() as u64)
}

fn stream(key: &Key) -> Result<Stream, PruneError> {
    let wrong = || PruneError::Stream {
        device: key.device.to_string(),
        lane: key.lane.to_string(),
    };
    Ok(Stream {
        device: DeviceId::new(&key.device).map_err(|_| wrong())?,
        lane: Lane::from_name(&key.lane).ok_or_else(wrong)?,
        epoch: Epoch::new(key.epoch.cast_unsigned()),
    })
}

/// Deletes the files of removed dates, those of an earlier run that was cut off included. Files
/// that a writer has published and not committed yet stay.
fn delete_removed(store: &dyn Store, log: &mut Log, kept_date: &str) -> Result<(), PruneError> {
    log.refresh(store)?;
    let mut late = std::collections::HashSet::new();
    log.files::<PruneError>(store, |add| {
        if add.dt.as_str() < kept_date {
            late.insert(format!("{}/{}", log.table().name(), add.path));
        }
        Ok(())
    })?;
    for entry in store.list(&format!("{}/{HOT_DIR}", log.table().name()))? {
        let date = entry
            .path
            .split('/')
            .find_map(|part| part.strip_prefix("dt="));
        let Some((date, name)) = date.zip(FileName::parse(&entry.path)) else {
            continue;
        };
        let committed = log
            .mark(name.writer)
            .is_some_and(|mark| name.last_pos <= mark);
        if date < kept_date && committed && !late.contains(&entry.path) {
            store.delete(&entry.path)?;
        }
    }
    Ok(())
}
