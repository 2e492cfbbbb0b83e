//! Core: is every reading in the lake once, or named in a gap? Answered from the lake alone.
//!
//! A stream is one device, lane and epoch. Its numbers `[first, next)` come from table `epochs`,
//! whose rows merge. A number is there if all its readings are (rows of `samples` and those that
//! rows of `quarantine` stand for make up `batch_samples`), or if it is the number of a record
//! that gave rows of `gaps`, `epochs` or `logs`, or if a gap says that its record held nothing
//! (reason `empty`). What is there wins over a gap that names it.
//!
//! | verdict | some number of the stream | exit |
//! |---|---|---|
//! | complete | all are there | 0 |
//! | explained | is not there, and a gap names it | 0 |
//! | pending | is not there yet: its source or the collector still holds it | 0 |
//! | unexplained | is not there, though the lake was told that it is | 1 |
//! | repeated | is there twice with the same values | 1 |
//! | conflicting | is there twice with other values, or beyond the end of its epoch | 1 |
//!
//! The worst one found names the stream. Gaps of stage `sink` are left out: they tell what another
//! sink lacks. Memory: the streams of one pass over the files; many streams make several passes.
//!
//! A log record counts like a batch: it is there if all its lines are (`record_lines`).
//!
//! A reading that a replay put from quarantine among the samples counts there alone: a row of
//! `quarantine` with negative `samples` takes it back. Both belong together: one without the other is
//! conflicting, unless the marks of the two tables tell that a replay was cut off between them
//! ([`crate::replay`]).
//!
//! Beside the streams there are [`Fault`]s: an object that cannot be read, a file that differs from
//! its hash in the log, a batch whose rows are not those of its digest (`digests.rs`), a device of samples
//! without a row in `devices`, gaps without a time span that no version without the column `span` wrote.
//! The audit goes on after each, and is not good with any. What stands in a file with a fault is not there.

mod digests;
mod marks;
mod missing;
mod scan;
mod view;

use std::collections::BTreeMap;

use headwater_proto::ids::SeqRange;
use serde::Serialize;

pub(crate) use marks::{EpochMark, Holding, Holdings};
pub use marks::{StreamMark, marks};
pub use missing::{MAX_REASONS, Missing};
pub use scan::MAX_SUSPECTS;
pub(crate) use scan::{Key, Scan};

use crate::delta::LogError;
use crate::faults::Fault;
use crate::ranges::Ranges;
use crate::read::ReadError;
use crate::rows::EpochState;
use crate::schema::Table;
use crate::store::Store;
use scan::{Partial, State};
use view::View;

/// Memory that the streams of one pass may take.
pub const DEFAULT_MEMORY_BYTES: u64 = 256 << 20;

/// What one stream takes in memory: key, ranges, one row of the report.
const STREAM_BYTES: u64 = 1_024;

/// Missing ranges that a report names per stream; more are counted.
pub const MAX_RANGES: usize = 16;

/// Why a lake could not be audited, or a file of it not read.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A file that a log names cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A row of `epochs` has a state that this version does not know.
    #[error("an epoch is in state {state:?}, which this version does not know")]
    State {
        /// The state.
        state: String,
    },
}

/// What the audit says of a stream, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every number is there.
    Complete,
    /// What is not there is named in a gap.
    Explained,
    /// What is not there may still come.
    Pending,
    /// Something is not there, and nothing says why.
    Unexplained,
    /// Something is there twice.
    Repeated,
    /// Two rows contradict each other, or lie beyond the epoch's end.
    Conflicting,
}

/// One stream.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StreamAudit {
    /// Its device.
    pub device_id: String,
    /// Its lane.
    pub lane: String,
    /// Its epoch.
    pub epoch: i64,
    /// The worst that was found.
    pub verdict: Verdict,
    /// How far the epoch is known; `None`: table `epochs` has no row of it yet.
    pub state: Option<&'static str>,
    /// Whether its writer stopped in order.
    pub clean: Option<bool>,
    /// Its first number.
    pub first_seq: u64,
    /// The number after the last one known.
    pub next_seq: u64,
    /// What was counted.
    #[serde(flatten)]
    pub counts: Counts,
    /// The first ranges that are unexplained, `[first, next)`.
    pub unexplained_ranges: Vec<(u64, u64)>,
    /// What gaps name, by reason.
    pub missing: BTreeMap<String, Missing>,
}

/// What was counted, of a stream or of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    /// Rows of `samples`.
    pub samples: u64,
    /// Rows of `logs` that came in numbered records.
    pub log_lines: u64,
    /// Readings in quarantine.
    pub quarantined: u64,
    /// Batches that are wholly there.
    pub batches: u64,
    /// Records that gave rows of other tables.
    pub records: u64,
    /// Numbers that are missing and named in a gap.
    pub explained: u64,
    /// Readings that gaps count and that are not there; a gap that is filled in part counts in
    /// proportion.
    pub gap_samples: u64,
    /// Gaps that do not say how many readings they stand for, or which numbers.
    pub gaps_uncounted: u64,
    /// Numbers that a gap names and that are there nevertheless.
    pub filled: u64,
    /// Numbers that may still come.
    pub pending: u64,
    /// Numbers that are missing without a reason.
    pub unexplained: u64,
    /// Rows that are there once more.
    pub repeated: u64,
    /// Rows or numbers that contradict.
    pub conflicting: u64,
    /// Batches with rows that are there once more, of which nobody knows whether the values differ:
    /// a pass compares no more than [`MAX_SUSPECTS`].
    pub uncompared: u64,
    /// Ends that are not clean, where no gap names the time of what may be missing.
    pub unnamed_stops: u64,
    /// Readings that a replay put among the samples and did not take back from quarantine, or took back
    /// and did not put there. While a replay is cut off between the two tables they are not counted.
    pub unmarked: u64,
    /// Batches and log records without a digest: a version before digests wrote them, or their flush
    /// was cut off or goes on. Without hashes nobody looks.
    pub undigested: u64,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.samples += other.samples;
        self.log_lines += other.log_lines;
        self.quarantined += other.quarantined;
        self.batches += other.batches;
        self.records += other.records;
        self.explained += other.explained;
        self.gap_samples += other.gap_samples;
        self.gaps_uncounted += other.gaps_uncounted;
        self.filled += other.filled;
        self.pending += other.pending;
        self.unexplained += other.unexplained;
        self.repeated += other.repeated;
        self.conflicting += other.conflicting;
        self.uncompared += other.uncompared;
        self.unnamed_stops += other.unnamed_stops;
        self.unmarked += other.unmarked;
        self.undigested += other.undigested;
    }
}

/// Streams by verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Verdicts {
    /// Complete ones.
    pub complete: u64,
    /// Explained ones.
    pub explained: u64,
    /// Pending ones.
    pub pending: u64,
    /// Unexplained ones.
    pub unexplained: u64,
    /// Repeated ones.
    pub repeated: u64,
    /// Conflicting ones.
    pub conflicting: u64,
}

/// All streams together.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Totals {
    /// Streams.
    pub streams: u64,
    /// Streams by verdict.
    pub verdicts: Verdicts,
    /// Sums over the streams.
    #[serde(flatten)]
    pub counts: Counts,
    /// What gaps name, by reason, the first [`MAX_REASONS`] apart.
    pub missing: BTreeMap<String, Missing>,
    /// Faults of files, logs and head.
    pub faults: u64,
    /// A replay was cut off between `samples` and `quarantine`: its readings count in both.
    pub is_replay_cut: bool,
}

impl Totals {
    fn take(&mut self, stream: &StreamAudit) {
        self.streams += 1;
        self.counts.add(&stream.counts);
        missing::sum(&mut self.missing, &stream.missing);
        let by = &mut self.verdicts;
        *match stream.verdict {
            Verdict::Complete => &mut by.complete,
            Verdict::Explained => &mut by.explained,
            Verdict::Pending => &mut by.pending,
            Verdict::Unexplained => &mut by.unexplained,
            Verdict::Repeated => &mut by.repeated,
            Verdict::Conflicting => &mut by.conflicting,
        } += 1;
    }

    /// Whether nothing is unexplained, repeated, conflicting or at fault.
    #[must_use]
    pub const fn is_good(&self) -> bool {
        self.verdicts.unexplained == 0
            && self.verdicts.repeated == 0
            && self.verdicts.conflicting == 0
            && self.faults == 0
    }
}

/// What [`audit`] found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Audit {
    /// Every stream, by device, lane and epoch within a pass.
    pub streams: Vec<StreamAudit>,
    /// All together.
    pub totals: Totals,
    /// What cannot be read or is not what was committed, the first [`crate::MAX_FAULTS`].
    pub faults: Vec<Fault>,
}

/// How a lake is audited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// What the streams of one pass may take; the fewer, the more passes.
    pub memory_bytes: u64,
    /// Whether every file is held against its hash first, and the rows of every batch against its
    /// digest: that reads all bytes, where the streams need a part.
    pub with_hashes: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            memory_bytes: DEFAULT_MEMORY_BYTES,
            with_hashes: true,
        }
    }
}

/// Audits a lake with all its bytes, also while it is written.
///
/// # Errors
/// [`AuditError`] if the lake cannot be reached.
pub fn audit(store: &dyn Store) -> Result<Audit, AuditError> {
    audit_with(store, &Options::default())
}

/// As [`audit`], with other options.
///
/// # Errors
/// As [`audit`].
pub fn audit_with(store: &dyn Store, options: &Options) -> Result<Audit, AuditError> {
    let mut streams = Vec::new();
    let (totals, faults) = audit_each(store, options, |stream| streams.push(stream))?;
    Ok(Audit {
        streams,
        totals,
        faults,
    })
}

/// Audits a lake and hands over one stream at a time, then the sums and what [`Audit::faults`] holds.
///
/// # Errors
/// [`AuditError`] if the lake cannot be reached.
pub fn audit_each(
    store: &dyn Store,
    options: &Options,
    mut visit: impl FnMut(StreamAudit),
) -> Result<(Totals, Vec<Fault>), AuditError> {
    let mut view = View::new(store, options.with_hashes)?;
    let memory_bytes = options.memory_bytes;
    let passes = view
        .memory_bytes(store)?
        .div_ceil(memory_bytes.max(1))
        .max(1);
    let mut totals = Totals::default();
    for pass in 0..passes {
        let in_pass = |device: &str| passes == 1 || hash(device) % passes == pass;
        for (key, state) in view.scan(store, &in_pass)?.streams {
            let stream = judge(&key, &state, view.is_replaying());
            totals.take(&stream);
            visit(stream);
            let Key {
                device,
                lane,
                epoch,
            } = &key;
            let is_whole = view.is_whole();
            state.digests.judge(&state.pruned, is_whole, |seq, what| {
                let what = format!("batch {seq} of {device} {lane} {epoch:016x} {what}");
                view.faults.add(Table::Digests.name(), what);
            });
        }
    }
    totals.faults = view.faults.count;
    totals.is_replay_cut = view.is_replaying();
    Ok((totals, view.faults.list))
}

fn hash(text: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// - `is_replaying`: a replay stands in `samples` and not yet in `quarantine`.
fn judge(key: &Key, state: &State, is_replaying: bool) -> StreamAudit {
    let mut there = state.whole.clone();
    there.insert_all(&state.records);
    let whole_partials = state
        .partial
        .iter()
        .filter(|(_, partial)| partial.is_whole());
    whole_partials.for_each(|(seq, _)| there.insert(SeqRange::new(*seq, seq + 1)));
    let mut gaps = Ranges::default();
    state.named.gaps().for_each(|gap| gaps.insert(gap.range));

    let cut = [&state.partial, &state.cut_records];
    let cut_ends = cut.iter().filter_map(|cut| cut.keys().next_back());
    let seen_end = there.end().max(cut_ends.max().map_or(0, |seq| seq + 1));
    let first = state.epoch.map_or(0, |epoch| epoch.first);
    let next = state.epoch.map_or(0, |epoch| epoch.next);
    let is_final = |s: EpochState| matches!(s, EpochState::Closed | EpochState::Abandoned);
    let strict = match state.epoch {
        Some(epoch) if is_final(epoch.state) => epoch.next,
        Some(epoch) => epoch.strict,
        None => 0,
    };
    let has_end = state
        .epoch
        .is_some_and(|epoch| epoch.state > EpochState::Open);
    let claimed = state.epoch.map_or(0, |epoch| epoch.claimed);
    // An open epoch may be further than its last row says; one that ended may not.
    let end = match has_end {
        true => next,
        false => next.max(seen_end).max(claimed),
    };
    let missing = there.missing_from(SeqRange::new(first, end));
    let unnamed = missing.minus(&gaps);
    let unexplained = unnamed.below(strict);

    let both = there.len() - there.minus(&gaps).len();
    let doubly_used = state.whole.len() - state.whole.minus(&state.records).len();
    let beyond = there.len() - there.below(end).len();
    let gap_samples = missing::samples(state.named.gaps(), &there);
    let timed_gaps = state.named.timed();
    let unmarked = state.partial.values().map(Partial::unmarked);
    let counts = Counts {
        samples: state.samples,
        log_lines: state.log_lines,
        quarantined: u64::try_from(state.quarantined).unwrap_or(0),
        batches: there.len() - state.records.len() + doubly_used,
        records: state.records.len(),
        explained: missing.len() - unnamed.len(),
        gap_samples,
        gaps_uncounted: timed_gaps
            + state
                .named
                .gaps()
                .filter(|gap| gap.samples.is_none())
                .count() as u64,
        filled: both,
        pending: unnamed.len() - unexplained.len(),
        unexplained: unexplained.len(),
        repeated: state.repeated,
        conflicting: state.conflicting + doubly_used + beyond,
        uncompared: state.uncompared,
        unnamed_stops: u64::from(state.has_stopped && !state.names_stop),
        unmarked: if is_replaying { 0 } else { unmarked.sum() },
        undigested: state.digests.undigested(),
    };
    let is_unknown = state.epoch.is_none() && !there.is_empty();
    let ranges = unexplained
        .iter()
        .take(MAX_RANGES)
        .map(|range| (range.first, range.next));
    StreamAudit {
        device_id: key.device.to_string(),
        lane: key.lane.to_string(),
        epoch: key.epoch,
        verdict: verdict(&counts, is_unknown, timed_gaps > 0),
        state: state.epoch.map(|epoch| epoch.state.name()),
        clean: state.epoch.and_then(|epoch| epoch.clean),
        first_seq: first,
        next_seq: end,
        counts,
        unexplained_ranges: ranges.collect(),
        missing: state.named.missing(&there),
    }
}

/// The worst that was counted.
///
/// - `is_unknown`: table `epochs` has no row of the stream yet.
/// - `has_timed_gaps`: some gaps are known by time alone.
const fn verdict(counts: &Counts, is_unknown: bool, has_timed_gaps: bool) -> Verdict {
    if counts.conflicting > 0 || counts.unmarked > 0 {
        Verdict::Conflicting
    } else if counts.repeated > 0 {
        Verdict::Repeated
    } else if counts.unexplained > 0 || counts.unnamed_stops > 0 {
        Verdict::Unexplained
    } else if counts.pending > 0 || is_unknown {
        Verdict::Pending
    } else if counts.explained > 0 || has_timed_gaps {
        Verdict::Explained
    } else {
        Verdict::Complete
    }
}
