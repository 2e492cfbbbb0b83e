//! Core: the lake as a sink of the journal.
//!
//! Rows wait in memory under a byte budget; a flush is staged, planned, published and committed:
//!
//! ```text
//! take … take ──► stage ──► plan bytes ──► journal, synced ──► publish ──► Committed
//! ```
//! The cursor is the lake's own `txn`, so that a crash anywhere is mended by [`LakeSink::open`]
//! carrying out the last plan, or by reading the same records again.

use std::collections::{BTreeMap, BTreeSet};

use headwater_lake::audit::StreamMark;
use headwater_lake::{
    Claim, EpochRow, EpochState, Flush, Lake, LakeError, Plan, PlanError, RowError, Rows, Store,
};
use headwater_proto::delivery::{End, Ranges};
use headwater_proto::ids::{JournalId, SeqRange, Stream};
use headwater_proto::time::{Millis, Now, UnixMicros};

mod join;
mod kind;
pub mod late;
mod others;
mod place;
mod seam;
mod stretch;
mod there;
mod waiting;

pub use join::{Call, JoinError, Met, join};
pub(crate) use kind::AtStart;
pub use kind::LakeKind;
use others::Others;
pub use place::{LakePlace, LakeStore};
pub use stretch::{StretchError, read_stretch};
use there::There;

use super::rows::{RowCounters, RowMaker, boot_of, is_of_lake};
use crate::interpret::{EpochChange, EpochNews, Interpreted};
use crate::pipeline::custody::Told;
use crate::pipeline::envelope::SinkCursor;

pub use super::rows::LAKE as NAME;

/// When rows go out.
#[derive(Debug, Clone, Copy)]
pub struct LakeSettings {
    /// How files are laid out.
    pub lake: headwater_lake::Settings,
    /// Whether to take the lake from a collector whose lease on it runs.
    pub take_over: bool,
    /// Whether to begin a lake where the journal has written to one that is not there.
    pub new_lake: bool,
    /// Oldest waiting row.
    pub flush_after_ms: u64,
    /// Memory that rows may take.
    pub flush_bytes: usize,
    /// Readings that may wait.
    pub flush_rows: usize,
}

impl Default for LakeSettings {
    fn default() -> Self {
        Self {
            lake: headwater_lake::Settings::default(),
            take_over: false,
            new_lake: false,
            flush_after_ms: 60_000,
            flush_bytes: 64 << 20,
            flush_rows: 4_000_000,
        }
    }
}

/// Why the sink could not go on. The same step may be tried again unless it says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum LakeSinkError {
    /// The lake.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// The journal holds a plan that this build cannot read.
    #[error("the journal's last plan cannot be read: {0}")]
    Plan(#[from] PlanError),
    /// A row that the lake cannot hold; the record stays in the journal.
    #[error("record {position} gives a row that the lake cannot hold: {source}")]
    Row {
        /// The record's position.
        position: u64,
        /// What is wrong with the row.
        source: RowError,
    },
}

impl LakeSinkError {
    /// Whether it says that the lake cannot be reached, and nothing of what is in it.
    #[must_use]
    pub const fn is_outage(&self) -> bool {
        match self {
            Self::Lake(error) => error.is_outage(),
            Self::Plan(_) | Self::Row { .. } => false,
        }
    }

    /// Whether trying again can help without an operator.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Lake(error) => error.is_transient(),
            Self::Plan(_) | Self::Row { .. } => false,
        }
    }
}

/// What a flush brought to rest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Committed {
    /// The first position that the lake does not have.
    pub through: u64,
    /// What that covers of each stream.
    pub streams: Vec<(Stream, Vec<SeqRange>)>,
    /// Files that were published.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Rows of `samples` among them.
    pub samples: u64,
}

/// What a flush has to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Staged {
    /// Nothing was read since the last one.
    Nothing,
    /// Nothing of what was read gives a row: [`LakeSink::publish`] at once.
    Empty,
    /// Make these bytes durable in the journal, then [`LakeSink::publish`].
    Plan(Vec<u8>),
}

/// Many ranges, for what one flush or the whole lake has of a stream.
type Held = Ranges<{ usize::MAX }>;

/// What the lake was handed of a stream.
#[derive(Debug, Default)]
struct Track {
    held: Held,
    end: Option<End>,
    boot: u64,
    abandoned: bool,
}

/// What was committed since the start.
#[derive(Debug, Default)]
struct Totals {
    flushes: u64,
    files: u64,
    bytes: u64,
    samples: u64,
}

#[derive(Debug)]
struct Pending {
    plan: Option<Plan>,
    committed: Committed,
}

/// The lake as a sink. See the module's page for the order of calls.
pub struct LakeSink<S: Store> {
    lake: Lake<S>,
    journal: JournalId,
    settings: LakeSettings,
    maker: RowMaker,
    rows: Rows,
    /// The first position not yet taken.
    position: u64,
    /// The first position not yet committed.
    cursor: u64,
    /// The lake has less than the journal knows to be in it.
    is_older: bool,
    first_at: Option<Millis>,
    tracks: BTreeMap<Stream, Track>,
    touched: BTreeMap<Stream, Held>,
    changed: BTreeSet<Stream>,
    /// Numbers after the last one that senders said they have, as learnt since the last plan.
    claims: BTreeMap<Stream, u64>,
    pending: Option<Pending>,
    /// Whether the journal's name outlives this process, so that a lease is worth having.
    is_lasting: bool,
    there: There,
    others: Others,
    totals: Totals,
    /// When the catalog was last written.
    catalog_at: Option<Millis>,
}

impl<S: Store> LakeSink<S> {
    /// Opens the lake and carries out the journal's last plan, if it was not.
    ///
    /// - `claim`: for the journal, whose records will be written.
    /// - `plan`: the sink's last plan in the journal.
    /// - `known`: the first position that the journal does not know to be in the lake.
    ///
    /// # Errors
    /// [`LakeSinkError`] if the lake cannot be read, belongs to another collector, or the plan cannot be
    /// carried out.
    pub fn open(
        store: S,
        settings: LakeSettings,
        claim: &Claim,
        plan: Option<&[u8]>,
        known: u64,
    ) -> Result<Self, LakeSinkError> {
        let journal = claim.owner;
        let mut lake = Lake::open(store, settings.lake, claim)?;
        let plan = plan
            .map(Plan::decode)
            .transpose()?
            .filter(|plan| plan.journal == journal);
        let is_older = plan.as_ref().is_some_and(|plan| lake.is_older(plan, known));
        // What the journal knows to be committed is not carried out once more: other flushes would be
        // passed over. In an older lake neither is what came after those.
        let due = plan.filter(|plan| !is_older && plan.last_pos >= known);
        match lake.recover(journal, due.as_ref()) {
            // Its files are gone or not its own, its records are there: they are staged again.
            Err(LakeError::Lost { .. } | LakeError::Conflict { .. }) => {
                lake.recover(journal, None)?;
            }
            other => other?,
        }
        let has = lake.cursor(journal).map_or(0, |last| last + 1);
        let cursor = if is_older { has } else { known.max(has) };
        let others = Others::new(lake.sinks(journal));
        Ok(Self {
            lake,
            journal,
            settings,
            maker: RowMaker::default(),
            rows: Rows::new(),
            position: cursor,
            cursor,
            is_older,
            first_at: None,
            tracks: BTreeMap::new(),
            touched: BTreeMap::new(),
            changed: BTreeSet::new(),
            claims: BTreeMap::new(),
            pending: None,
            is_lasting: true,
            there: There::default(),
            others,
            totals: Totals::default(),
            catalog_at: None,
        })
    }

    /// Goes on with a journal that was begun anew at `position`: what it held before is in the lake.
    /// To be called right after [`LakeSink::open`].
    ///
    /// # Errors
    /// [`LakeSinkError`] if the lake cannot be taken over under the new name.
    pub fn begin_anew(
        &mut self,
        journal: JournalId,
        position: u64,
        now: UnixMicros,
    ) -> Result<(), LakeSinkError> {
        self.lake.rename(journal, now.0)?;
        self.journal = journal;
        self.others = Others::default();
        (self.position, self.cursor) = (position, position);
        Ok(())
    }

    /// Whether the lake was brought back older than the journal knows it.
    #[must_use]
    pub const fn is_older(&self) -> bool {
        self.is_older
    }

    /// Goes back to where an older lake stands, or to the oldest record there is, under the next term: the
    /// names of what was published after that serve again. To be called right after [`LakeSink::open`].
    ///
    /// # Errors
    /// [`LakeSinkError`].
    pub fn go_back(&mut self, oldest: u64, now: UnixMicros) -> Result<(), LakeSinkError> {
        self.lake.rename(self.journal, now.0)?;
        let from = self.cursor.max(oldest);
        (self.position, self.cursor) = (from, from);
        Ok(())
    }

    /// The journal has these sinks beside the lake. To be called right after [`LakeSink::open`], or
    /// [`LakeSink::begin_anew`].
    pub fn know_others(&mut self, sinks: &[SinkCursor]) {
        self.others.know(sinks, self.cursor);
    }

    /// The journal has a new name, which a crash may take back until its first record is durable: the
    /// next start must not wait for the lease of a name that nobody bears.
    ///
    /// # Errors
    /// [`LakeSinkError`].
    pub fn begin_without_lease(&mut self, now: UnixMicros) -> Result<(), LakeSinkError> {
        self.is_lasting = false;
        Ok(self.lake.release(now.0)?)
    }

    /// Leaves out records before position `until` that the lake has, though this journal never
    /// committed them: their devices sent them to another one as well, or to a later time of this one.
    /// With `parts` also those that the lake has in part, which custody has named. To be called right
    /// after [`LakeSink::open`].
    pub fn leave_out(&mut self, marks: &[StreamMark], until: u64, parts: bool) {
        self.there = There::new(marks, until, parts);
    }

    /// Renews the lease on the lake when it is due; to be called every few seconds.
    ///
    /// # Errors
    /// [`LakeSinkError`]; a lasting one says that another collector has taken over.
    pub fn keep(&mut self, now: UnixMicros) -> Result<(), LakeSinkError> {
        if self.is_lasting {
            self.lake.keep(now.0)?;
        }
        Ok(())
    }

    /// Takes over what the lake holds of each stream, as custody knows it now that both agree.
    ///
    /// - `beyond`: what the lake has and other required sinks do not, so that it is not committed.
    pub fn restore(&mut self, streams: Vec<Told>, beyond: Vec<(Stream, Vec<SeqRange>)>) {
        for told in streams {
            let mut held = Held::new();
            for range in told.committed {
                // Without a bound on ranges nothing is refused.
                let _ = held.insert(range);
            }
            let known = Track {
                held,
                end: told.end,
                boot: told.boot,
                abandoned: told.is_abandoned,
            };
            self.tracks.insert(told.stream, known);
        }
        for (stream, ranges) in beyond {
            let track = self.tracks.entry(stream).or_default();
            for range in ranges {
                // Without a bound on ranges nothing is refused.
                let _ = track.held.insert(range);
            }
        }
    }

    /// The first position that the lake does not have.
    #[must_use]
    pub const fn cursor(&self) -> u64 {
        self.cursor
    }

    /// The first position not yet taken: where to read on.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// The lake below.
    pub const fn lake(&self) -> &Lake<S> {
        &self.lake
    }

    /// The lake below, to be looked after.
    pub const fn lake_mut(&mut self) -> &mut Lake<S> {
        &mut self.lake
    }

    /// What became of records so far.
    #[must_use]
    pub const fn counters(&self) -> RowCounters {
        self.maker.counters()
    }

    /// Memory that waiting rows take.
    #[must_use]
    pub const fn waiting_bytes(&self) -> usize {
        self.rows.bytes()
    }

    /// Readings that wait.
    #[must_use]
    pub const fn waiting_samples(&self) -> usize {
        self.rows.samples()
    }

    /// Whether rows must go out before more are taken.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.rows.bytes() >= self.settings.flush_bytes
            || self.rows.samples() >= self.settings.flush_rows
    }

    /// Whether rows should go out now.
    #[must_use]
    pub fn is_due(&self, now: Millis) -> bool {
        self.pending.is_some()
            || self.is_full()
            || self
                .first_at
                .is_some_and(|at| now.since(at) >= self.settings.flush_after_ms)
    }

    /// When rows are due for their age, if any wait.
    #[must_use]
    pub fn due_at(&self) -> Option<Millis> {
        self.first_at
            .map(|at| at.plus(self.settings.flush_after_ms))
    }

    /// Every position below `next` was handed out, or holds nothing: a released stretch, a failed
    /// group, damage. The next flush tells custody, and is due as if a row waited.
    pub fn passed(&mut self, next: u64, now: Millis) {
        if next > self.position {
            self.position = next;
            self.first_at.get_or_insert(now);
        }
    }

    /// Takes in a record, which is not below [`LakeSink::position`].
    ///
    /// # Errors
    /// [`LakeSinkError::Row`] for a row that the lake cannot hold.
    pub fn take(&mut self, item: &Interpreted<'_>, now: Now) -> Result<(), LakeSinkError> {
        let position = item.position;
        if position < self.position {
            return Ok(());
        }
        if !self.there.has(item) {
            self.maker
                .push(item, &mut self.rows)
                .map_err(|source| LakeSinkError::Row { position, source })?;
        }
        let named = item.gaps.iter().filter(|gap| !gap.carried);
        self.changed.extend(named.map(|gap| gap.stream.clone()));
        for gap in item.gaps.iter().filter(|gap| is_of_lake(gap)) {
            // Another sink has what the lake lacks: nothing more of it comes.
            if let Some(range) = gap.range {
                self.hold(&gap.stream, range);
            }
        }
        for news in item.epochs {
            self.learn(news);
        }
        for (stream, range) in item.covers {
            self.hold(stream, *range);
        }
        if let Some(sinks) = item.sinks {
            self.others.see(sinks);
        }
        self.position = position + 1;
        self.is_lasting = true;
        // Also for a record without rows: custody waits for the sink to have passed it.
        self.first_at.get_or_insert(now.mono);
        Ok(())
    }

    fn learn(&mut self, news: &EpochNews) {
        if let EpochChange::Claimed { next } = news.change {
            let known = self.claims.entry(news.stream.clone()).or_default();
            *known = next.max(*known);
            return;
        }
        self.changed.insert(news.stream.clone());
        let track = self.tracks.entry(news.stream.clone()).or_default();
        let end = match news.change {
            EpochChange::Opened { boot } => {
                track.boot = boot;
                return;
            }
            EpochChange::Ended { end, .. } => end,
            EpochChange::Claimed { .. } => return,
            EpochChange::Abandoned { next } => {
                track.abandoned = true;
                End {
                    first: 0,
                    next,
                    clean: false,
                }
            }
        };
        track.end = Some(track.end.map_or(end, |known| known.merge(end)));
    }

    fn hold(&mut self, stream: &Stream, range: SeqRange) {
        // Without a bound on ranges nothing is refused.
        let _ = self
            .tracks
            .entry(stream.clone())
            .or_default()
            .held
            .insert(range);
        let _ = self
            .touched
            .entry(stream.clone())
            .or_default()
            .insert(range);
        if !self.changed.contains(stream) {
            self.changed.insert(stream.clone());
        }
    }

    /// Encodes what waits to staged files. Called again after a failure, it gives the same plan.
    ///
    /// # Errors
    /// [`LakeSinkError::Lake`]; nothing is published then.
    pub fn stage(&mut self, now: Now) -> Result<Staged, LakeSinkError> {
        if let Some(pending) = &self.pending {
            let bytes = pending.plan.as_ref().map(Plan::encode);
            return Ok(bytes.map_or(Staged::Empty, Staged::Plan));
        }
        if self.position == self.cursor {
            return Ok(Staged::Nothing);
        }
        let changed = std::mem::take(&mut self.changed);
        // Numbers were bounded when they came in.
        let _ = self.maker.finish(&mut self.rows);
        let claims = std::mem::take(&mut self.claims);
        let known = changed
            .iter()
            .filter_map(|stream| self.epoch_row(stream, now));
        let claimed = claims.iter().filter_map(|claim| self.claim_row(claim, now));
        for row in known.chain(claimed).collect::<Vec<_>>() {
            // Numbers were bounded when they came in.
            let _ = self.rows.push_epoch(row);
        }
        for schema in self.maker.used() {
            self.lake.put_schema(&schema)?;
        }
        self.maker.kept();
        let mut committed = Committed {
            through: self.position,
            ..Committed::default()
        };
        for (stream, held) in &self.touched {
            committed
                .streams
                .push((stream.clone(), held.as_slice().to_vec()));
        }
        let plan = if self.rows.is_empty() {
            None
        } else {
            let sinks = self.others.places(self.position);
            let flush = Flush {
                journal: self.journal,
                first_pos: self.cursor,
                last_pos: self.position - 1,
                at_us: now.wall.0,
                rows: &self.rows,
                sinks: &sinks,
            };
            let plan = self.lake.stage(&flush)?;
            committed.files = plan.files.len();
            committed.bytes = plan.bytes();
            committed.samples = self.rows.samples() as u64;
            Some(plan)
        };
        // The staged files hold the rows now.
        self.rows.clear();
        self.touched.clear();
        self.first_at = None;
        self.forget_done(&changed);
        let bytes = plan.as_ref().map(Plan::encode);
        let staged = bytes.map_or(Staged::Empty, Staged::Plan);
        self.pending = Some(Pending { plan, committed });
        Ok(staged)
    }

    /// Publishes and commits what was staged, once its plan is durable. May be repeated after a
    /// failure.
    ///
    /// # Errors
    /// [`LakeSinkError::Lake`].
    pub fn publish(&mut self) -> Result<Option<Committed>, LakeSinkError> {
        let Some(pending) = &self.pending else {
            return Ok(None);
        };
        if let Some(plan) = &pending.plan {
            self.lake.publish(plan)?;
            self.lake.commit(plan)?;
            self.lake.finish(plan)?;
        }
        let Some(pending) = self.pending.take() else {
            return Ok(None);
        };
        let committed = pending.committed;
        self.cursor = committed.through;
        self.totals.flushes += u64::from(committed.files > 0);
        self.totals.files += committed.files as u64;
        self.totals.bytes += committed.bytes;
        self.totals.samples += committed.samples;
        Ok(Some(committed))
    }

    /// What the lake may now say of an epoch: nothing that it was not handed.
    fn epoch_row(&self, stream: &Stream, now: Now) -> Option<EpochRow> {
        let track = self.tracks.get(stream)?;
        let (state, first, next) = match track.end {
            Some(end) => {
                let end = end.with_received(track.held.end());
                let whole = track.held.covers(end.expected());
                let state = match (track.abandoned, whole) {
                    (true, true) => EpochState::Abandoned,
                    (false, true) => EpochState::Closed,
                    // Of an abandoned one the rest is to be named first.
                    (_, false) => EpochState::Ended,
                };
                (state, end.first, end.next)
            }
            None => (EpochState::Open, 0, track.held.end_at(0)),
        };
        Some(EpochRow {
            stream: stream.clone(),
            first_seq: first,
            next_seq: next,
            state,
            clean: track
                .end
                .map(|end| end.clean && end.next >= track.held.end()),
            boot: boot_of(track.boot),
            at_us: now.wall.0,
            record: None,
        })
    }

    /// What the sender of an epoch claims to have, if the lake has less and knows of no end.
    fn claim_row(&self, (stream, next): (&Stream, &u64), now: Now) -> Option<EpochRow> {
        let track = self.tracks.get(stream);
        let has_less = |track: &Track| track.end.is_none() && track.held.end_at(0) < *next;
        track.is_none_or(has_less).then(|| EpochRow {
            stream: stream.clone(),
            first_seq: 0,
            next_seq: *next,
            state: EpochState::Claimed,
            clean: None,
            boot: track.and_then(|track| boot_of(track.boot)),
            at_us: now.wall.0,
            record: None,
        })
    }

    /// Streams that are whole need no memory; should more come, the journal's marks know them.
    fn forget_done(&mut self, changed: &BTreeSet<Stream>) {
        for stream in changed {
            let done = self.tracks.get(stream).is_some_and(|track| {
                track.end.is_some_and(|end| {
                    track
                        .held
                        .covers(end.with_received(track.held.end()).expected())
                })
            });
            if done {
                self.tracks.remove(stream);
            }
        }
    }
}
