//! One stream as its receiver knows it: records that are stored, missing with a gap, and committed.
//!
//! Four sets of sequence numbers, each a few ranges:
//!
//! | set | holds | counts in the marks |
//! |---|---|---|
//! | data | records that were stored | yes |
//! | sender's gaps | numbers that a gap of the sender covers | yes |
//! | own gaps | numbers that a gap of the receiver covers | no |
//! | committed | data and sender's gaps that every required sink has | as `committed` |
//!
//! A group of changes is *tentative* until [`Receiver::synced`]. Marks follow from synced state alone, and
//! [`Receiver::rollback`] undoes a group that failed.

use crate::delivery::epoch::End;
use crate::delivery::ranges::{Ranges, TooManyRanges};
use crate::ids::{Epoch, Lane, SeqRange};
use crate::message::{AckRange, MAX_ACK_RANGES, MAX_SEQ, Mark, RejectReason};
use crate::sabotage::{self, Bug};

/// Most holes of a stream; a record that would make one more is refused. A sender keeps live records and
/// backlog apart with few holes, and the sets stay within a few KiB.
pub const MAX_HOLES: usize = 64;
/// Most ranges per set: one more than the holes between them.
pub const MAX_RANGES: usize = MAX_HOLES + 1;
/// A set of this stream's numbers.
pub type Set = Ranges<MAX_RANGES>;

/// The receiver's verdict on a record that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// New: append it to the journal.
    Store,
    /// Stored already: do not append it; its ack waits for the original's sync.
    Repeat,
    /// Another record was stored under its number: quarantine, counter, alarm.
    Conflict,
    /// Refused.
    Refuse(RejectReason),
}

/// Whose gap covers records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namer {
    /// The sender's, or that of a node behind it.
    Sender,
    /// The receiver's own.
    Receiver,
}

/// The part of a receiver that a failed group takes back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct State {
    pub(super) data: Set,
    pub(super) sender_gaps: Set,
    pub(super) own_gaps: Set,
    pub(super) end: Option<End>,
    /// Number and checksum of the highest record stored.
    pub(super) newest: Option<(u64, u32)>,
}

/// The receiver of one stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Receiver {
    pub(super) now: State,
    /// The state before the first change of the running group.
    synced: Option<State>,
    pub(super) committed: Set,
}

impl Receiver {
    /// Nothing received yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Judges a record without taking it.
    #[must_use]
    pub fn judge(&self, seq: u64, crc: u32) -> Verdict {
        if seq >= MAX_SEQ {
            return Verdict::Refuse(RejectReason::Unsupported);
        }
        if self.now.data.contains(seq) {
            return match self.now.newest {
                Some((newest, known)) if newest == seq && known != crc => Verdict::Conflict,
                _ => Verdict::Repeat,
            };
        }
        Verdict::Store
    }

    /// Judges a record and, if it is new, takes it as stored in the running group.
    pub fn offer(&mut self, seq: u64, crc: u32) -> Verdict {
        let verdict = self.judge(seq, crc);
        if verdict != Verdict::Store {
            return verdict;
        }
        let state = self.touch();
        if state.insert_data(SeqRange::new(seq, seq + 1)).is_err() {
            return Verdict::Refuse(RejectReason::TooManyHoles);
        }
        if state.newest.is_none_or(|(newest, _)| newest < seq) {
            state.newest = Some((seq, crc));
        }
        Verdict::Store
    }

    /// Takes in a gap that covers `range`, in the running group.
    ///
    /// # Errors
    /// [`TooManyRanges`] if the stream has too many holes: for a sender's gap, refuse its record
    /// with [`RejectReason::TooManyHoles`], so that it comes again when older holes are filled.
    pub fn cover(&mut self, range: SeqRange, namer: Namer) -> Result<(), TooManyRanges> {
        let range = SeqRange::new(range.first, range.next.min(MAX_SEQ));
        let state = self.touch();
        match namer {
            Namer::Sender => state.insert_sender_gap(range),
            Namer::Receiver => state.insert_own_gap(range),
        }
    }

    /// Takes out stored records that cannot be read any more, in the running group. The marks then show
    /// them as not received, and their sender offers them again.
    ///
    /// # Errors
    /// [`TooManyRanges`] if that would leave more holes than are kept; nothing changes then.
    pub fn forget(&mut self, range: SeqRange) -> Result<(), TooManyRanges> {
        let mut state = self.now.clone();
        state.data.remove(range)?;
        state.sender_gaps.remove(range)?;
        state.newest = state.newest.filter(|(seq, _)| !range.contains(*seq));
        *self.touch() = state;
        Ok(())
    }

    /// Takes in an end of the epoch, in the running group; it merges with earlier ones.
    pub fn end(&mut self, end: End) {
        let state = self.touch();
        let merged = state.end.map_or(end, |known| known.merge(end));
        state.end = Some(merged.with_received(state.data.end()));
    }

    /// The group is durable: it counts in the marks.
    pub fn synced(&mut self) {
        self.synced = None;
    }

    /// The group failed: its changes are undone.
    pub fn rollback(&mut self) {
        if let Some(state) = self.synced.take() {
            self.now = state;
        }
    }

    /// Whether a group waits for [`Receiver::synced`] or [`Receiver::rollback`].
    #[must_use]
    pub const fn is_tentative(&self) -> bool {
        self.synced.is_some()
    }

    /// Every required sink has `range`: its records, or the sender's gaps in their place.
    ///
    /// Records commit in journal order, so the committed set has no more ranges than the data set had. If
    /// it passes the bound nevertheless, its highest range is forgotten, and commits again with
    /// [`Receiver::commit_all`].
    pub fn commit(&mut self, range: SeqRange) {
        while self.committed.insert(range).is_err() {
            if self.committed.end() <= range.first {
                return;
            }
            self.committed.pop_highest();
        }
    }

    /// Every required sink has all synced records, or custody ends at the journal.
    pub fn commit_all(&mut self) {
        let mut from = 0;
        while let Some(range) = self.durable().next_covered(from) {
            self.commit(range);
            from = range.next;
        }
    }

    /// The marks for a sender that holds this stream from `oldest` on: durable state only, without the
    /// receiver's own gaps.
    #[must_use]
    pub fn mark(&self, lane: Lane, epoch: Epoch, oldest: u64) -> Mark {
        let state = if sabotage::is(Bug::AckUnsyncedRepeat) {
            &self.now
        } else {
            self.durable()
        };
        let received = state.covered_end(oldest);
        let committed = self.committed.end_at(oldest).min(received);
        let mut ranges = heapless::Vec::new();
        let mut from = received;
        while let Some(stretch) = state.next_covered(from) {
            let committed = self.committed.contains(stretch.first);
            let next = if committed {
                self.committed.end_at(stretch.first)
            } else {
                self.committed
                    .next_in(stretch.first)
                    .map_or(stretch.next, |range| range.first)
            };
            from = next.min(stretch.next);
            if ranges
                .push(AckRange {
                    first: stretch.first,
                    next: from,
                    committed,
                })
                .is_err()
            {
                break;
            }
        }
        debug_assert!(ranges.len() <= MAX_ACK_RANGES);
        Mark {
            lane,
            epoch,
            received,
            committed,
            ranges,
        }
    }

    /// Numbers below `oldest` that are neither stored nor in a gap: a sender that holds nothing below
    /// `oldest` can never send them. Record a gap for each ([`Receiver::cover`] by the receiver) in the same
    /// group.
    pub fn missing_below(&self, oldest: u64) -> impl Iterator<Item = SeqRange> + '_ {
        self.now.unaccounted(SeqRange::new(0, oldest.min(MAX_SEQ)))
    }

    /// Numbers of the epoch that are neither stored nor in a gap: below its end, or below the highest known
    /// number while it has none.
    pub fn unaccounted(&self) -> impl Iterator<Item = SeqRange> + '_ {
        self.now.unaccounted(SeqRange::new(0, self.next()))
    }

    /// Whether the epoch's end is known and all of its range is stored or in a gap: a Hello may then leave
    /// it out.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.now.end.is_some() && self.unaccounted().next().is_none()
    }

    /// Whether the epoch's end is known and all of its records and its sender's gaps are committed, apart from the
    /// receiver's own gaps: its marks may be dropped some days later.
    #[must_use]
    pub fn is_done(&self) -> bool {
        let mut theirs = self.now.data.iter().chain(self.now.sender_gaps.iter());
        !self.is_tentative() && self.is_closed() && theirs.all(|range| self.committed.covers(range))
    }

    /// Closes an abandoned epoch at the highest known number. Call it after a gap was recorded for each of
    /// [`Receiver::unaccounted`]; records that the writer held beyond are covered by a gap of time.
    pub fn abandon(&mut self) -> End {
        let next = self.next();
        self.end(End {
            first: 0,
            next,
            clean: false,
        });
        self.now.end.unwrap_or(End {
            first: 0,
            next,
            clean: false,
        })
    }

    /// The epoch's end, if it is known.
    #[must_use]
    pub const fn ended(&self) -> Option<End> {
        self.now.end
    }

    /// One more than the highest known number: of a record, a gap, or the end.
    #[must_use]
    pub fn next(&self) -> u64 {
        let state = &self.now;
        let known = state
            .data
            .end()
            .max(state.sender_gaps.end())
            .max(state.own_gaps.end());
        state.end.map_or(known, |end| end.next.max(known))
    }

    /// All below it is stored or in a gap of either side.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.now
            .unaccounted(SeqRange::new(0, MAX_SEQ))
            .next()
            .map_or(MAX_SEQ, |hole| hole.first)
    }

    /// Records that were stored.
    #[must_use]
    pub const fn data(&self) -> &Set {
        &self.now.data
    }

    /// Numbers that every required sink has.
    #[must_use]
    pub const fn committed(&self) -> &Set {
        &self.committed
    }

    /// Durable records and sender's gaps that are neither committed nor in a gap of the receiver.
    pub fn owed(&self) -> impl Iterator<Item = SeqRange> + '_ {
        let state = self.durable();
        let mut from = 0;
        core::iter::from_fn(move || {
            loop {
                let stretch = state.next_covered(from)?;
                let settled = self.committed.end_at(state.own_gaps.end_at(stretch.first));
                if settled > stretch.first {
                    from = settled;
                    continue;
                }
                let ends = [&self.committed, &state.own_gaps]
                    .into_iter()
                    .filter_map(|set| set.next_in(stretch.first))
                    .map(|range| range.first);
                from = ends.min().map_or(stretch.next, |end| end.min(stretch.next));
                return Some(SeqRange::new(stretch.first, from));
            }
        })
    }

    /// Durable gaps of the receiver that no sink has.
    pub fn owed_names(&self) -> impl Iterator<Item = SeqRange> + '_ {
        let own_gaps = &self.durable().own_gaps;
        let mut from = 0;
        core::iter::from_fn(move || {
            loop {
                let range = own_gaps.next_in(from)?;
                let hole = self.committed.next_out(range);
                from = hole.map_or(range.next, |hole| hole.next);
                if hole.is_some() {
                    return hole;
                }
            }
        })
    }

    /// Takes in records that a lake holds already, before the first Welcome of a new journal.
    ///
    /// # Errors
    /// [`TooManyRanges`] if it has more holes than are kept; seed from the lowest number on.
    pub fn seed(&mut self, range: SeqRange) -> Result<(), TooManyRanges> {
        self.now.insert_data(range)?;
        self.commit(range);
        Ok(())
    }

    /// Takes in numbers of which a lake holds a part. They count as stored, so that they are not stored
    /// again, and need a gap, because their other part will not come.
    ///
    /// # Errors
    /// [`TooManyRanges`], as [`Receiver::seed`].
    pub fn seed_partial(&mut self, range: SeqRange) -> Result<(), TooManyRanges> {
        self.now.insert_data(range)?;
        self.now.insert_own_gap(range)
    }

    const fn durable(&self) -> &State {
        match &self.synced {
            Some(state) => state,
            None => &self.now,
        }
    }

    /// The state, to be changed in the running group.
    fn touch(&mut self) -> &mut State {
        if self.synced.is_none() {
            self.synced = Some(self.now.clone());
        }
        &mut self.now
    }
}

impl State {
    /// Adds stored numbers. At the bound, the lowest hole that a sender's gap covers counts as stored: a
    /// record that fills it later is then a repeat.
    fn insert_data(&mut self, range: SeqRange) -> Result<(), TooManyRanges> {
        while self.data.insert(range).is_err() {
            let covered = self
                .data
                .holes(SeqRange::new(0, self.data.end()))
                .find(|hole| self.sender_gaps.covers(*hole));
            let Some(hole) = covered else {
                return Err(TooManyRanges);
            };
            self.data.insert(hole)?;
        }
        Ok(())
    }

    /// Adds a sender's gap. At the bound, stored numbers between two gaps count as part of them, which
    /// changes no mark.
    fn insert_sender_gap(&mut self, range: SeqRange) -> Result<(), TooManyRanges> {
        while self.sender_gaps.insert(range).is_err() {
            let stored = self
                .sender_gaps
                .holes(SeqRange::new(self.first_gap(), self.sender_gaps.end()))
                .find(|hole| self.data.covers(*hole));
            let Some(hole) = stored else {
                return Err(TooManyRanges);
            };
            self.sender_gaps.insert(hole)?;
        }
        Ok(())
    }

    /// Adds a gap of the receiver. At the bound, covered numbers between two gaps count as part of them.
    fn insert_own_gap(&mut self, range: SeqRange) -> Result<(), TooManyRanges> {
        while self.own_gaps.insert(range).is_err() {
            let first = self.own_gaps.next_in(0).map_or(0, |range| range.first);
            let covered = self
                .own_gaps
                .holes(SeqRange::new(first, self.own_gaps.end()))
                .find(|hole| self.covered_end(hole.first) >= hole.next);
            let Some(hole) = covered else {
                return Err(TooManyRanges);
            };
            self.own_gaps.insert(hole)?;
        }
        Ok(())
    }

    /// Lowest number of a sender's gap; 0 if there is none.
    fn first_gap(&self) -> u64 {
        self.sender_gaps.next_in(0).map_or(0, |range| range.first)
    }

    /// The end of the stretch from `seq` on that is stored or in a sender's gap; `seq` if it is neither.
    fn covered_end(&self, mut seq: u64) -> u64 {
        loop {
            let next = self.sender_gaps.end_at(self.data.end_at(seq));
            if next == seq {
                return seq;
            }
            seq = next;
        }
    }

    /// The first stretch at or after `from` that is stored or in a sender's gap.
    fn next_covered(&self, from: u64) -> Option<SeqRange> {
        let first = match (self.data.next_in(from), self.sender_gaps.next_in(from)) {
            (Some(data), Some(gap)) => data.first.min(gap.first),
            (Some(only), None) | (None, Some(only)) => only.first,
            (None, None) => return None,
        };
        Some(SeqRange::new(first, self.covered_end(first)))
    }

    /// The stretches of `within` in none of the three sets.
    fn unaccounted(&self, within: SeqRange) -> impl Iterator<Item = SeqRange> + '_ {
        let mut from = within.first;
        core::iter::from_fn(move || {
            loop {
                let next = self.own_gaps.end_at(self.covered_end(from));
                if next == from {
                    break;
                }
                from = next;
            }
            let mut hole = SeqRange::new(from, within.next);
            for set in [&self.data, &self.sender_gaps, &self.own_gaps] {
                hole.next = set
                    .next_in(from)
                    .map_or(hole.next, |range| hole.next.min(range.first));
            }
            from = hole.next.max(from);
            (!hole.is_empty()).then_some(hole)
        })
    }
}
