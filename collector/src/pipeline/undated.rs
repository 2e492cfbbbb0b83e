//! Core: stretches of the journal without dates, and what ties them to Unix time.
//!
//! While the collector's clock is in doubt ([`super::clock_doubt`]), times of receipt count from a zero that its
//! boot's monotonic clock goes on from. A record of the journal says so before the first such record, and another one
//! ([`ClockHead`]) ties them once the clock is believed; each segment begins with what is known by then. No reader
//! goes beyond the first record of a stretch before its tie is durable.
//!
//! A stretch of the boot in which the clock came right is tied exactly. Of an earlier boot it is only known that
//! it began no earlier than its times say, and was over when the present process began: its times lie in the middle,
//! and may be off by half of what lies between; by more than anybody knows if the devices had caused the doubt.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headwater_proto::time::{Millis, Now, UnixMicros};

use super::clock_doubt::micros;
use super::dating;
use super::envelope::{BeginHead, ClockHead, Known, Record, Span, Tie, Undated};
use super::spans;

/// Most stretches of which the journal keeps records. At the bound it takes nothing more of another one.
pub const MAX_UNDATED: usize = 64;
/// Most bytes of what is said of them, in each segment and its snapshot.
pub(crate) const CLOCK_BYTES: usize = 1 + 2 * 5 + (MAX_UNDATED + 1) * 41;

/// What a journal knows of its undated stretches.
#[derive(Debug, Default)]
pub(crate) struct Stretches {
    head: ClockHead,
    /// The last time of receipt, as it stands in the record.
    last: Option<UnixMicros>,
    /// No record of the stretch that goes on was written yet.
    is_unused: bool,
    /// A stretch that goes on and finds no room: its boot, zero, and whether the senders caused it.
    beyond: Option<(u64, i64, bool)>,
}

impl Stretches {
    /// As a snapshot told.
    pub(crate) fn new(head: ClockHead, last: Option<UnixMicros>) -> Self {
        Self {
            head,
            last,
            ..Self::default()
        }
    }

    pub(crate) const fn head(&self) -> &ClockHead {
        &self.head
    }

    /// The stretch without dates that goes on now.
    pub(crate) const fn undated(&self) -> Option<&Undated> {
        self.head.undated.as_ref()
    }

    /// Whether the clock was ever in doubt, as far as records tell.
    pub(crate) fn is_any(&self) -> bool {
        self.head != ClockHead::default()
    }

    /// Whether stretches are not tied yet.
    pub(crate) fn has_undated(&self) -> bool {
        self.undated().is_some() || !self.head.waiting.is_empty()
    }

    /// When the last record came, by what its clock was worth then.
    pub(crate) const fn last(&self) -> Option<UnixMicros> {
        self.last
    }

    /// Whether there are so many stretches that no record with a time may come. What has none lets sinks go on, so
    /// that ties go with their segments.
    pub(crate) const fn is_full(&self) -> bool {
        self.beyond.is_some()
    }

    /// Takes in a record that is in the journal.
    pub(crate) fn apply(&mut self, record: &Record<'_>) {
        if let Record::Clock(head) | Record::Begin(BeginHead { clock: head, .. }) = record {
            self.head = head.clone();
        } else {
            self.is_unused = false;
        }
        if let Some(at) = received(record) {
            self.last = Some(at);
        }
    }

    /// The clock is in doubt; the stretch of this boot goes on if it is the same one.
    pub(crate) fn begin(&mut self, boot: u64, zero_us: i64, by_fleet: bool, mono: Millis) {
        let same = |undated: &Undated| {
            (undated.boot, undated.zero_us, undated.by_fleet) == (boot, zero_us, by_fleet)
        };
        if self.head.undated.as_ref().is_some_and(same) {
            return;
        }
        self.end();
        if self.head.waiting.len() + self.head.ties.len() >= MAX_UNDATED {
            self.beyond = Some((boot, zero_us, by_fleet));
            return;
        }
        self.is_unused = true;
        let ties = self.head.ties.iter().map(|tie| tie.number);
        let waiting = self.head.waiting.iter().map(|undated| undated.number);
        self.head.undated = Some(Undated {
            number: ties.chain(waiting).max().unwrap_or(0) + 1,
            boot,
            zero_us,
            by_fleet,
            last_us: at(zero_us, mono).0,
        });
    }

    fn end(&mut self) {
        self.beyond = None;
        // Of one without a record nothing has to be tied.
        let is_unused = std::mem::take(&mut self.is_unused);
        if let Some(mut undated) = self.head.undated.take().filter(|_| !is_unused) {
            if let Some(last) = self.last {
                undated.last_us = undated.last_us.max(last.0);
            }
            self.head.waiting.push(undated);
        }
    }

    /// The clock is believed: wall time minus monotonic time of `boot` is `offset_us`. All stretches below position
    /// `until` are tied.
    ///
    /// - `since`: when this process began.
    pub(crate) fn settle(&mut self, (boot, since): (u64, Millis), offset_us: i64, until: u64) {
        self.end();
        for undated in std::mem::take(&mut self.head.waiting) {
            let number = undated.number;
            let tie = if undated.boot == boot {
                Tie {
                    number,
                    offset_us: offset_us.saturating_sub(undated.zero_us),
                    error_ms: 0,
                    until,
                }
            } else {
                // It was over when this process began.
                let most_us = at(offset_us, since).0.saturating_sub(undated.last_us);
                let is_bounded = !undated.by_fleet && most_us >= 0;
                let half_us = if is_bounded { most_us / 2 } else { most_us };
                let error_ms = half_us.unsigned_abs().div_ceil(1_000).saturating_add(1);
                let error_ms = u32::try_from(error_ms).ok().filter(|_| is_bounded);
                Tie {
                    number,
                    offset_us: half_us,
                    error_ms: error_ms.unwrap_or(u32::MAX),
                    until,
                }
            };
            self.head.ties.push(tie);
        }
    }

    /// Records below `oldest` are gone: a stretch that found no room may have some now, from `mono` on.
    pub(crate) fn forget_before(&mut self, oldest: u64, mono: Millis) {
        self.head.ties.retain(|tie| tie.until > oldest);
        if let Some((boot, zero_us, by_fleet)) = self.beyond.take() {
            self.begin(boot, zero_us, by_fleet, mono);
        }
    }
}

/// When a record was received or made, as it stands there.
fn received(record: &Record<'_>) -> Option<UnixMicros> {
    match record {
        Record::Batch(head, _) | Record::Park(head, _) => Some(head.at),
        Record::Raw(head, _) => Some(head.at),
        Record::Mark(head) => Some(head.at),
        Record::Gap(head) => Some(head.at),
        Record::Lacks(head) => Some(head.at),
        Record::Plan(..)
        | Record::Cursor(_)
        | Record::Registry(_)
        | Record::Session(_)
        | Record::Schema(..)
        | Record::Begin(_)
        | Record::Rules(_)
        | Record::DecoderState(_)
        | Record::Clock(_)
        | Record::Portion(_) => None,
    }
}

/// A record of a stretch, with Unix time in place of its times of receipt, and what its evidence says by that.
pub(crate) fn dated<'a>(mut record: Record<'a>, tie: &Tie) -> Record<'a> {
    if *tie == Tie::NONE {
        return record;
    }
    let later = |at: &mut UnixMicros| at.0 = at.0.saturating_add(tie.offset_us);
    match &mut record {
        Record::Batch(head, bytes) | Record::Park(head, bytes) => {
            later(&mut head.at);
            head.around = head.around.map(|span| widened(span, tie));
            if let Some(evidence) = head.evidence.take() {
                head.clock = dating::judge(&evidence, tie);
                let frame = headwater_proto::frame::decode(bytes).ok();
                let times = frame.and_then(|(frame, _)| spans::times_of(&frame));
                if let (Some(at_us), Some(times)) = (dating::uptime_of(&evidence), times) {
                    head.clock = dating::drifted(head.clock, at_us, times);
                }
            }
        }
        Record::Raw(head, _) => later(&mut head.at),
        Record::Mark(head) => later(&mut head.at),
        Record::Gap(head) => {
            later(&mut head.at);
            head.span = widened(head.span, tie);
        }
        Record::Lacks(head) => {
            later(&mut head.at);
            for (_, span) in &mut head.ranges {
                *span = widened(*span, tie);
            }
        }
        Record::Plan(..)
        | Record::Cursor(_)
        | Record::Registry(_)
        | Record::Session(_)
        | Record::Schema(..)
        | Record::Begin(_)
        | Record::Rules(_)
        | Record::DecoderState(_)
        | Record::Clock(_)
        | Record::Portion(_) => {}
    }
    record
}

/// A bound of the span may be a time of receipt, or one of a device: it holds both.
fn widened(span: Span, tie: &Tie) -> Span {
    let error_us = i64::from(tie.error_ms).saturating_mul(1_000);
    let (less, more) = (
        tie.offset_us.saturating_sub(error_us).min(0),
        tie.offset_us.saturating_add(error_us).max(0),
    );
    Span {
        first: UnixMicros(span.first.0.saturating_add(less)),
        last: UnixMicros(span.last.0.saturating_add(more)),
        known: if span.known == Known::Neighbours {
            Known::Bounds
        } else {
            span.known
        },
    }
}

/// What readers of the journal need of its clock, on any thread. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct ClockBook(Arc<Mutex<Told>>);

#[derive(Debug, Default)]
struct Told {
    /// Those that are durable.
    ties: Vec<Tie>,
    /// The zero of the present stretch, while the clock is in doubt.
    zero_us: Option<i64>,
}

impl ClockBook {
    fn told(&self) -> MutexGuard<'_, Told> {
        // What it holds is replaced as a whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tell_ties(&self, ties: &[Tie]) {
        self.told().ties = ties.to_vec();
    }

    /// The numbers of ties that are gone may be given to others.
    pub(crate) fn keep_ties(&self, ties: &[Tie]) {
        self.told().ties.retain(|told| ties.contains(told));
    }

    pub(crate) fn tell_zero(&self, zero_us: Option<i64>) {
        self.told().zero_us = zero_us;
    }

    /// What ties a stretch to Unix time, if it is known and durable.
    #[must_use]
    pub fn tie(&self, number: u64) -> Option<Tie> {
        let told = self.told();
        told.ties.iter().find(|tie| tie.number == number).copied()
    }

    /// The present time for whoever works beside custody: while the clock is in doubt, what stands for it.
    #[must_use]
    pub fn now(&self, now: Now) -> Now {
        match self.told().zero_us {
            Some(zero_us) => Now {
                wall: at(zero_us, now.mono),
                ..now
            },
            None => now,
        }
    }
}

fn at(zero_us: i64, mono: Millis) -> UnixMicros {
    UnixMicros(zero_us.saturating_add(micros(mono)))
}

#[cfg(test)]
mod tests;
