//! One stream as its receiver knows it: what is stored, what is named as missing, what is committed.
//!
//! Four sets of sequence numbers, each a few ranges:
//!
//! | set | holds | counts in the marks |
//! |---|---|---|
//! | data | records that were stored | yes |
//! | gapped | numbers that a sender's gap names | yes |
//! | named | numbers that the receiver itself named as missing | no |
//! | committed | data and gapped that every required sink has | as `committed` |
//!
//! What is stored is *tentative* until [`Receiver::synced`]; marks are computed from what is synced
//! alone, and [`Receiver::rollback`] forgets a group that failed.

use crate::delivery::epoch::End;
use crate::delivery::ranges::{Ranges, TooManyRanges};
use crate::ids::{Epoch, Lane, SeqRange};
use crate::message::{AckRange, MAX_ACK_RANGES, MAX_SEQ, Mark, RejectReason};
use crate::sabotage::{self, Bug};

/// Most holes that a stream may have before further records are refused.
pub const MAX_HOLES: usize = 64;
/// Ranges kept per set: one more than the holes between them.
pub const MAX_RANGES: usize = MAX_HOLES + 1;
/// A set of this stream's numbers.
pub type Set = Ranges<MAX_RANGES>;

/// What to do with a record that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// New: append it to the journal.
    Store,
    /// It is there already. Not appended; its ack waits for the original's sync.
    Repeat,
    /// Its number is taken by other content: quarantine, counter, alarm.
    Conflict,
    /// Not taken.
    Refuse(RejectReason),
}

/// Who says that records are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namer {
    /// A gap record from the stream's side of the link.
    Sender,
    /// The receiver itself.
    Receiver,
}

/// The part of a receiver that a failed group takes back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct State {
    pub(super) data: Set,
    pub(super) gapped: Set,
    pub(super) named: Set,
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
            Namer::Sender => state.insert_gapped(range),
            Namer::Receiver => state.insert_named(range),
        }
    }

    /// Takes out what was stored and can be read no more, in the running group: to the marks it was
    /// never received, so that its sender offers it again.
    ///
    /// # Errors
    /// [`TooManyRanges`] if that would leave more holes than are kept; nothing is changed then.
    pub fn forget(&mut self, range: SeqRange) -> Result<(), TooManyRanges> {
        let mut state = self.now.clone();
        state.data.remove(range)?;
        state.gapped.remove(range)?;
        state.newest = state.newest.filter(|(seq, _)| !range.contains(*seq));
        *self.touch() = state;
        Ok(())
    }

    /// Takes in how the epoch ended, in the running group; merges with what was known.
    pub fn end(&mut self, end: End) {
        let state = self.touch();
        let merged = state.end.map_or(end, |known| known.merge(end));
        state.end = Some(merged.with_received(state.data.end()));
    }

    /// The group is durable: marks may speak of it.
    pub fn synced(&mut self) {
        self.synced = None;
    }

    /// The group failed: all that it changed is forgotten.
    pub fn rollback(&mut self) {
        if let Some(state) = self.synced.take() {
            self.now = state;
        }
    }

    /// Whether something waits for [`Receiver::synced`] or [`Receiver::rollback`].
    #[must_use]
    pub const fn is_tentative(&self) -> bool {
        self.synced.is_some()
    }

    /// Every required sink has `range`: records, or numbers whose sender's gap is there.
    ///
    /// Records commit in journal order, so the committed set never has more ranges than the data
    /// set had; should it pass the bound after all, the highest range is forgotten and commits
    /// again with [`Receiver::commit_all`].
    pub fn commit(&mut self, range: SeqRange) {
        while self.committed.insert(range).is_err() {
            if self.committed.end() <= range.first {
                return;
            }
            self.committed.pop_highest();
        }
    }

    /// Every required sink has all that is synced; or custody ends at the journal.
    pub fn commit_all(&mut self) {
        let mut from = 0;
        while let Some(range) = self.durable().next_covered(from) {
            self.commit(range);
            from = range.next;
        }
    }

    /// The marks for a sender that holds this stream from `oldest` on: durable state only, and no
    /// number that only the receiver named.
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

    /// What a sender that holds nothing below `oldest` can never send, and nobody named yet.
    /// Name each in a gap ([`Receiver::cover`] by the receiver) in the same group.
    pub fn missing_below(&self, oldest: u64) -> impl Iterator<Item = SeqRange> + '_ {
        self.now.unaccounted(SeqRange::new(0, oldest.min(MAX_SEQ)))
    }

    /// Numbers of the epoch that are neither stored nor named: below its end, or below the highest
    /// number known while it has none.
    pub fn unaccounted(&self) -> impl Iterator<Item = SeqRange> + '_ {
        self.now.unaccounted(SeqRange::new(0, self.next()))
    }

    /// Whether the epoch's end is known and all of its range is stored or named: it may then be
    /// absent from a Hello.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.now.end.is_some() && self.unaccounted().next().is_none()
    }

    /// Whether the epoch's end is known and everything it holds is committed, save what the
    /// receiver named: its marks may be dropped some days later.
    #[must_use]
    pub fn is_done(&self) -> bool {
        !self.is_tentative()
            && self.is_closed()
            && self
                .now
                .data
                .iter()
                .all(|range| self.committed.covers(range))
    }

    /// Closes an abandoned epoch at the highest number known. Call it after all of
    /// [`Receiver::unaccounted`] was named; what the writer held beyond is named by time.
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

    /// How the epoch ended, as far as is known.
    #[must_use]
    pub const fn ended(&self) -> Option<End> {
        self.now.end
    }

    /// One more than the highest number known: stored, named, or foretold by the end.
    #[must_use]
    pub fn next(&self) -> u64 {
        let state = &self.now;
        let known = state
            .data
            .end()
            .max(state.gapped.end())
            .max(state.named.end());
        state.end.map_or(known, |end| end.next.max(known))
    }

    /// All below it is stored or named, by whomever.
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

    /// What every required sink has.
    #[must_use]
    pub const fn committed(&self) -> &Set {
        &self.committed
    }

    /// What is durable, stored or named by a sender's gap, and neither committed nor named by the
    /// receiver.
    pub fn owed(&self) -> impl Iterator<Item = SeqRange> + '_ {
        let state = self.durable();
        let mut from = 0;
        core::iter::from_fn(move || {
            loop {
                let stretch = state.next_covered(from)?;
                let settled = self.committed.end_at(state.named.end_at(stretch.first));
                if settled > stretch.first {
                    from = settled;
                    continue;
                }
                let ends = [&self.committed, &state.named]
                    .into_iter()
                    .filter_map(|set| set.next_in(stretch.first))
                    .map(|range| range.first);
                from = ends.min().map_or(stretch.next, |end| end.min(stretch.next));
                return Some(SeqRange::new(stretch.first, from));
            }
        })
    }

    /// What the receiver durably named as missing and no sink has been told of.
    pub fn owed_names(&self) -> impl Iterator<Item = SeqRange> + '_ {
        let named = &self.durable().named;
        let mut from = 0;
        core::iter::from_fn(move || {
            loop {
                let range = named.next_in(from)?;
                let hole = self.committed.next_out(range);
                from = hole.map_or(range.next, |hole| hole.next);
                if hole.is_some() {
                    return hole;
                }
            }
        })
    }

    /// Takes in what a lake already holds, before the first Welcome of a new journal.
    ///
    /// # Errors
    /// [`TooManyRanges`] if it has more holes than are kept; seed from the lowest on.
    pub fn seed(&mut self, range: SeqRange) -> Result<(), TooManyRanges> {
        self.now.insert_data(range)?;
        self.commit(range);
        Ok(())
    }

    /// Takes in numbers of which a lake holds a part: known, so that they are not taken again, and
    /// still to be named, for the other part will not come.
    ///
    /// # Errors
    /// [`TooManyRanges`], as [`Receiver::seed`].
    pub fn seed_partial(&mut self, range: SeqRange) -> Result<(), TooManyRanges> {
        self.now.insert_data(range)?;
        self.now.insert_named(range)
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
    /// Adds stored numbers. At the bound, the lowest hole that a sender's gap names is taken as
    /// stored: a record for it that still comes is then taken for a repeat.
    fn insert_data(&mut self, range: SeqRange) -> Result<(), TooManyRanges> {
        while self.data.insert(range).is_err() {
            let named = self
                .data
                .holes(SeqRange::new(0, self.data.end()))
                .find(|hole| self.gapped.covers(*hole));
            let Some(hole) = named else {
                return Err(TooManyRanges);
            };
            self.data.insert(hole)?;
        }
        Ok(())
    }

    /// Adds gapped numbers. At the bound, the numbers between two gaps are counted as gapped too
    /// where all of them are stored, which changes nothing.
    fn insert_gapped(&mut self, range: SeqRange) -> Result<(), TooManyRanges> {
        while self.gapped.insert(range).is_err() {
            let stored = self
                .gapped
                .holes(SeqRange::new(self.first_gapped(), self.gapped.end()))
                .find(|hole| self.data.covers(*hole));
            let Some(hole) = stored else {
                return Err(TooManyRanges);
            };
            self.gapped.insert(hole)?;
        }
        Ok(())
    }

    fn insert_named(&mut self, range: SeqRange) -> Result<(), TooManyRanges> {
        while self.named.insert(range).is_err() {
            let first = self.named.next_in(0).map_or(0, |range| range.first);
            let covered = self
                .named
                .holes(SeqRange::new(first, self.named.end()))
                .find(|hole| self.covered_end(hole.first) >= hole.next);
            let Some(hole) = covered else {
                return Err(TooManyRanges);
            };
            self.named.insert(hole)?;
        }
        Ok(())
    }

    fn first_gapped(&self) -> u64 {
        self.gapped.next_in(0).map_or(0, |range| range.first)
    }

    /// The end of the stretch from `seq` on that is stored or gapped; `seq` if it is neither.
    fn covered_end(&self, mut seq: u64) -> u64 {
        loop {
            let next = self.gapped.end_at(self.data.end_at(seq));
            if next == seq {
                return seq;
            }
            seq = next;
        }
    }

    /// The first stretch at or after `from` that is stored or gapped.
    fn next_covered(&self, from: u64) -> Option<SeqRange> {
        let first = match (self.data.next_in(from), self.gapped.next_in(from)) {
            (Some(data), Some(gapped)) => data.first.min(gapped.first),
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
                let next = self.named.end_at(self.covered_end(from));
                if next == from {
                    break;
                }
                from = next;
            }
            let mut hole = SeqRange::new(from, within.next);
            for set in [&self.data, &self.gapped, &self.named] {
                hole.next = set
                    .next_in(from)
                    .map_or(hole.next, |range| hole.next.min(range.first));
            }
            from = hole.next.max(from);
            (!hole.is_empty()).then_some(hole)
        })
    }
}
