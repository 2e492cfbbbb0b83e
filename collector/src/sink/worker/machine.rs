//! Core: the steps of one sink, the same for each.
//!
//! ```text
//!            ┌──────────── Read ◄───────────┐
//! Gathering ─┤                              │ also while a call waits to be repeated,
//!            └─ due ─► plan ─► Planned ─ Plan durable ─► Delivering ─ Deliver ─► Commit ─► Gathering
//! ```
//! A failure changes nothing but when the same step comes again: after a random part of a time that
//! doubles, however often. A sink that may not, or is not in order, is tried slowly.

use std::collections::BTreeMap;
use std::future::Future;

use headwater_program::chain::chain;
use headwater_proto::ids::{SeqRange, Stream};
use headwater_proto::sabotage::{self, Bug};
use headwater_proto::time::{Millis, Now, UnixMicros};
use headwater_spool::{Chunk, Damage, Disk, ReadError, Reader};

use crate::interpret::{Feed, Taken};
use crate::metrics::{SinkLook, SinkState};
use crate::pipeline::numbers::Numbers;
use crate::pipeline::undated::ClockBook;
use crate::sink::back_off::BackOff;
use crate::sink::letters::Refusal;
use crate::sink::{Delivered, Due, Plan, Sink, SinkError};

/// Time between two calls of [`Sink::keep`], and after one that failed.
const KEEP_MS: (u64, u64) = (1_000, 5_000);
/// Stretches of damage that are counted apart until the sink has passed them.
const MAX_STRETCHES: usize = 64;

/// Most bytes of a cause that is kept with what was refused: it may be a destination's own words.
pub const MAX_CAUSE_BYTES: usize = 512;

/// What the shell has to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Call [`Worker::read`].
    Read,
    /// Make the plan durable in the journal, then call [`Worker::planned`].
    Plan(Plan),
    /// Carry out [`Worker::deliver`], then call [`Worker::delivered`]. A future that was dropped is
    /// carried out anew.
    Deliver,
    /// Tell custody.
    Commit(Commit),
    /// Wait until then, or until more is durable.
    Wait(Option<Millis>),
    /// Nothing more comes, and all that can be delivered is.
    Done,
    /// The collector has to end for this.
    Fatal(SinkError),
}

/// What custody learns of a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Commit {
    /// The first position that the sink did not have before.
    pub from: u64,
    /// The first position that the sink does not have.
    pub through: u64,
    /// The first position that it was not given yet: of what lies between, it may have refused some.
    pub read_to: u64,
    /// Numbers of each stream that it has by that.
    pub streams: Vec<(Stream, Vec<SeqRange>)>,
    /// Numbers that it refused for good.
    pub refused: Vec<(Stream, Vec<SeqRange>)>,
    /// Why, by stream: of several causes the last one, at most [`MAX_CAUSE_BYTES`].
    pub causes: BTreeMap<Stream, String>,
    /// Records before `through` that the journal could not give back.
    pub damaged: u64,
}

impl Commit {
    /// What it says was refused, for the sink's dead letters; `None` if that is nothing.
    #[must_use]
    pub fn refusal<'a>(&'a self, at: UnixMicros, clock: &'a ClockBook) -> Option<Refusal<'a>> {
        (!self.refused.is_empty()).then_some(Refusal {
            from: self.from,
            to: self.read_to,
            streams: &self.refused,
            causes: &self.causes,
            at,
            clock,
        })
    }

    /// How many numbers it says were refused.
    #[must_use]
    pub fn refused_numbers(&self) -> u64 {
        let ranges = self.refused.iter().flat_map(|(_, ranges)| ranges);
        ranges.map(|range| range.len()).sum()
    }
}

/// How far the present delivery is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    Gathering,
    Planned(Plan),
    Delivering,
}

/// A place in the journal, and when its record was received.
type Place = (u64, UnixMicros);

/// A stretch of positions that could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unread {
    from: u64,
    /// The first position after it.
    end: u64,
    /// How many of its positions: all, or fewer where several stretches count as one.
    records: u64,
}

impl Unread {
    /// How many of its records a sink passed that has all below `through`. They count no more; of what lies
    /// beyond, at least one does.
    fn pass(&mut self, through: u64) -> u64 {
        if self.end <= through {
            return std::mem::take(&mut self.records);
        }
        let passed = through.saturating_sub(self.from).min(self.records);
        self.from = self.from.max(through);
        self.records = (self.records - passed).max(1);
        passed
    }
}

/// The worker of one sink. See the module's page.
pub struct Worker<S: Sink, D: Disk> {
    sink: S,
    feed: Feed<D>,
    phase: Phase,
    commit: Option<Commit>,
    /// Custody has not taken the last commit in yet.
    is_held: bool,
    /// The last read gave nothing more.
    is_idle: bool,
    is_stopping: bool,
    /// What is not read yet stays in the journal when it ends.
    leaves_the_rest: bool,
    calls: BackOff,
    reads: BackOff,
    keep_at: Millis,
    /// The first position that the sink does not have.
    cursor: u64,
    /// The oldest record that waits.
    oldest: Option<Place>,
    /// The oldest one after the present delivery was cut.
    next_oldest: Option<Place>,
    /// What could not be read, as far as the sink has not passed it.
    damage: Vec<Unread>,
    refused: Numbers,
    causes: BTreeMap<Stream, String>,
    call_trouble: Option<SinkError>,
    read_trouble: Option<SinkError>,
    keep_trouble: Option<SinkError>,
    look: SinkLook,
}

impl<S: Sink, D: Disk> Worker<S, D> {
    /// Brings to `sink` what `feed` hands out.
    #[must_use]
    pub fn new(sink: S, feed: Feed<D>) -> Self {
        Self {
            cursor: feed.position(),
            sink,
            feed,
            phase: Phase::Gathering,
            commit: None,
            is_held: false,
            is_idle: false,
            is_stopping: false,
            leaves_the_rest: false,
            calls: BackOff::default(),
            reads: BackOff::default(),
            keep_at: Millis(0),
            oldest: None,
            next_oldest: None,
            damage: Vec::new(),
            refused: Numbers::new(),
            causes: BTreeMap::new(),
            call_trouble: None,
            read_trouble: None,
            keep_trouble: None,
            look: SinkLook::default(),
        }
    }

    /// What custody tells of the collector's clock.
    #[must_use]
    pub const fn clock_book(&self) -> &ClockBook {
        self.feed.clock_book()
    }

    /// At the end, delivers what the sink has taken and reads no more: the journal keeps the rest for the
    /// next start.
    #[must_use]
    pub fn leaving_the_rest(mut self) -> Self {
        self.leaves_the_rest = true;
        self
    }

    /// What to do next. `is_stopping`: nothing more becomes durable. `random`: 64 random bits.
    pub fn next(&mut self, now: Now, is_stopping: bool, random: u64) -> Step {
        if let Some(commit) = self.commit.take() {
            return Step::Commit(commit);
        }
        if let Some(error) = self.fatal() {
            return Step::Fatal(error.clone());
        }
        if is_stopping && !self.is_stopping {
            // What became durable before the end was asked for is still read, and all is tried once.
            self.is_stopping = true;
            self.is_idle = self.leaves_the_rest;
            (self.calls.until, self.reads.until) = (None, None);
        }
        self.keep(now);
        if self.is_held {
            return if self.is_stopping {
                Step::Done
            } else {
                Step::Wait(None)
            };
        }
        if !self.calls.is_held(now.mono) {
            match &self.phase {
                Phase::Planned(plan) => return Step::Plan(plan.clone()),
                Phase::Delivering => return Step::Deliver,
                Phase::Gathering => {
                    if self.is_due(now.mono)
                        && let Some(step) = self.cut(now, random)
                    {
                        return step;
                    }
                }
            }
        }
        let reads = !self.is_idle && !self.reads.is_held(now.mono);
        let due = self.sink.due(now.mono);
        if reads && due != Due::Full {
            return Step::Read;
        }
        if self.is_stopping {
            // What fails now is in the journal, and the next start tries it again.
            return Step::Done;
        }
        self.is_idle = false;
        let due = match (due, self.calls.until) {
            (_, Some(until)) if now.mono < until => Some(until),
            (Due::At(at), _) => Some(at),
            (Due::Full | Due::Never, _) => None,
        };
        let reads = self.reads.until.filter(|until| now.mono < *until);
        Step::Wait(due.into_iter().chain(reads).min())
    }

    /// What the collector has to end for.
    fn fatal(&self) -> Option<&SinkError> {
        let troubles = [&self.call_trouble, &self.read_trouble, &self.keep_trouble];
        let mut troubles = troubles.into_iter().flatten();
        troubles.find(|error| matches!(error, SinkError::Fatal { .. }))
    }

    fn is_due(&self, now: Millis) -> bool {
        match self.sink.due(now) {
            Due::Full => true,
            Due::At(at) => at <= now || (self.is_stopping && self.is_idle),
            Due::Never => false,
        }
    }

    /// Cuts a delivery; `None` if the sink could not.
    fn cut(&mut self, now: Now, random: u64) -> Option<Step> {
        match self.sink.plan(now) {
            Ok(plan) => {
                let plan = plan.filter(|_| !sabotage::is(Bug::PlanNotDurable));
                let (phase, step) = match plan {
                    Some(plan) => (Phase::Planned(plan.clone()), Step::Plan(plan)),
                    None => (Phase::Delivering, Step::Deliver),
                };
                self.phase = phase;
                Some(step)
            }
            Err(error) => {
                self.failed(error, now, random);
                None
            }
        }
    }

    fn keep(&mut self, now: Now) {
        if now.mono < self.keep_at {
            return;
        }
        self.keep_trouble = self.sink.keep(now).err();
        if let Some(error) = &self.keep_trouble {
            self.look.failed(error.code());
        }
        let wait = if self.keep_trouble.is_none() {
            KEEP_MS.0
        } else {
            KEEP_MS.1
        };
        self.keep_at = now.mono.plus(wait);
    }

    /// Hands the sink what is durable, up to `most_bytes` of it. Returns what could not be read.
    ///
    /// # Errors
    /// [`ReadError`] if the journal cannot be read now.
    pub fn read(
        &mut self,
        most_bytes: usize,
        now: Now,
        random: u64,
    ) -> Result<Vec<Damage>, ReadError> {
        let Self { sink, feed, .. } = self;
        let (mut trouble, mut refusals, mut oldest) = (None, Vec::new(), None);
        let before = feed.position();
        let read = feed.read(most_bytes, |item| {
            // What the collector itself wrote at a segment's start has no time.
            if item.at > UnixMicros(0) {
                let _ = oldest.get_or_insert((item.position, item.at));
            }
            match sink.take(item, now) {
                Ok(()) => {}
                Err(SinkError::Refused { cause, .. }) => {
                    refusals.push((item.covers.to_vec(), cause));
                }
                Err(error) => {
                    trouble = Some(error);
                    return Taken::Not;
                }
            }
            match sink.due(now.mono) {
                Due::Full => Taken::Enough,
                Due::At(_) | Due::Never => Taken::More,
            }
        });
        let oldest_slot = match self.phase {
            Phase::Gathering => &mut self.oldest,
            Phase::Planned(_) | Phase::Delivering => &mut self.next_oldest,
        };
        *oldest_slot = oldest_slot.or(oldest);
        for (items, cause) in refusals {
            self.refuse(&items, cause);
        }
        let code = trouble.as_ref().map_or("journal", SinkError::code);
        let unread = read.as_ref().err().map(|error| SinkError::Busy {
            retry_after: None,
            cause: format!("the journal cannot be read: {}", chain(error)),
        });
        match trouble.or(unread) {
            None => (self.reads, self.read_trouble) = (BackOff::default(), None),
            Some(error) => {
                self.look.failed(code);
                self.reads.failed(&error, now.mono, random);
                self.read_trouble = Some(error);
            }
        }
        match read {
            Ok(chunk) => Ok(self.passed(before, chunk, now)),
            Err(error) => {
                self.is_idle = true;
                Err(error)
            }
        }
    }

    fn passed(&mut self, before: u64, chunk: Chunk, now: Now) -> Vec<Damage> {
        for damage in &chunk.damage {
            let positions = &damage.positions;
            let records = positions.end - positions.start;
            self.look.damaged += records;
            let is_full = self.damage.len() >= MAX_STRETCHES;
            match self.damage.last_mut().filter(|_| is_full) {
                Some(last) => (last.end, last.records) = (positions.end, last.records + records),
                None => self.damage.push(Unread {
                    from: positions.start,
                    end: positions.end,
                    records,
                }),
            }
        }
        self.sink.passed(chunk.next, now);
        self.is_idle = chunk.next == before;
        chunk.damage
    }

    fn refuse(&mut self, items: &[(Stream, SeqRange)], mut cause: String) {
        cause.truncate(cause.floor_char_boundary(MAX_CAUSE_BYTES));
        for (stream, range) in items {
            self.causes.insert(stream.clone(), cause.clone());
            self.look.refused += range.len();
            self.refused.insert(stream, *range);
        }
    }

    /// Whether the plan of the last [`Step::Plan`] is durable; if not, why.
    pub fn planned(&mut self, result: Result<(), String>, now: Now, random: u64) {
        match result {
            Ok(()) => {
                if matches!(self.phase, Phase::Planned(_)) {
                    self.phase = Phase::Delivering;
                }
            }
            Err(cause) => {
                let error = SinkError::Busy {
                    retry_after: None,
                    cause,
                };
                self.look.failed("plan");
                self.calls.failed(&error, now.mono, random);
                self.call_trouble = Some(error);
            }
        }
    }

    /// Sends what was cut.
    pub fn deliver(
        &mut self,
        now: Now,
    ) -> impl Future<Output = Result<Delivered, SinkError>> + Send {
        self.look.calls += 1;
        self.sink.deliver(now)
    }

    /// What came of the last [`Step::Deliver`].
    pub fn delivered(&mut self, result: Result<Delivered, SinkError>, now: Now, random: u64) {
        match result {
            Ok(delivered) => self.commit(delivered),
            Err(SinkError::Refused { items, cause }) if !items.is_empty() => {
                self.look.failed("refused");
                self.refuse(&items, cause);
            }
            Err(_) if sabotage::is(Bug::CursorPastUnanswered) => self.commit(Delivered {
                through: self.feed.position(),
                streams: Vec::new(),
            }),
            Err(error) => self.failed(error, now, random),
        }
    }

    fn failed(&mut self, error: SinkError, now: Now, random: u64) {
        self.look.failed(error.code());
        if self.sink.is_ahead() {
            self.calls.hold();
        }
        self.calls.failed(&error, now.mono, random);
        self.call_trouble = Some(error);
    }

    fn commit(&mut self, delivered: Delivered) {
        let Delivered { through, streams } = delivered;
        (self.calls, self.call_trouble) = (BackOff::default(), None);
        self.phase = Phase::Gathering;
        let from = std::mem::replace(&mut self.cursor, through);
        self.look.deliveries += 1;
        self.oldest = self.next_oldest.take();
        self.oldest = self.oldest.filter(|(position, _)| *position >= through);
        // A delivery may end in the midst of a stretch.
        let damage = self.damage.iter_mut();
        let damaged = damage.map(|unread| unread.pass(through)).sum();
        self.damage.retain(|unread| unread.end > through);
        self.commit = Some(Commit {
            from,
            through,
            read_to: self.feed.position(),
            streams,
            refused: self.refused.take(),
            causes: std::mem::take(&mut self.causes),
            damaged,
        });
    }

    /// A reader of the journal, with a place of its own.
    #[must_use]
    pub fn reader(&self) -> Reader<D> {
        self.feed.reader()
    }

    /// Whether custody holds back what it was told with the last [`Step::Commit`]: as long as it does,
    /// nothing more is read or delivered.
    pub const fn hold(&mut self, is_held: bool) {
        self.is_held = is_held;
    }

    /// Whether the sink has all that is durable, and custody was told.
    #[must_use]
    pub fn is_drained(&self, now: Millis) -> bool {
        self.phase == Phase::Gathering
            && self.commit.is_none()
            && !self.is_held
            && self.feed.position() >= self.feed.durable()
            && self.sink.due(now) == Due::Never
    }

    /// The sink ends in order; nothing more is called.
    pub fn close(&mut self, now: Now) {
        self.sink.close(now);
    }

    /// The sink.
    pub const fn sink(&self) -> &S {
        &self.sink
    }

    /// What stands in the way now, if anything does.
    #[must_use]
    pub fn trouble(&self) -> Option<&SinkError> {
        self.call_trouble
            .as_ref()
            .or(self.read_trouble.as_ref())
            .or(self.keep_trouble.as_ref())
    }

    /// The sink at this moment.
    #[must_use]
    pub fn look(&self) -> SinkLook {
        let trouble = self.trouble();
        SinkLook {
            state: trouble.map_or(SinkState::Up, SinkError::state),
            why: trouble.map(ToString::to_string),
            cursor: self.cursor,
            oldest: self.oldest.map(|(_, at)| at),
            counts: self.sink.counts(),
            ..self.look.clone()
        }
    }
}

#[cfg(test)]
mod tests;
