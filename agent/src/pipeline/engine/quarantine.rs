//! Core: what a source could not read, and what the door refused of its rows: numbered records for the
//! lake's quarantine, and gaps for what passes the bounds.

use headwater_proto::ids::Lane;
use headwater_proto::message::{Gap, GapReason, Stage};
use headwater_proto::refused::{MAX_BYTES, MAX_WORDS_BYTES, Part};
use headwater_proto::time::Now;
use headwater_spool::Disk;

use super::store::place_of;
use super::types::Taken;
use super::{Engine, OfferError, Offered};
use crate::pipeline::admit::{Fault, Sample, as_text};
use crate::pipeline::batcher::{Given, Next, Which};
use crate::pipeline::record::Cursor;
use crate::pipeline::refusals::Beyond;

impl<D: Disk> Engine<D> {
    /// Takes a part that a source could not read: where it stood, why, and how it begins. A source that
    /// resumes gives the cursor after it if no row comes of the same place, which that cursor would
    /// cover.
    ///
    /// # Errors
    /// [`OfferError`], as [`Engine::offer`].
    ///
    /// # Panics
    /// As [`Engine::offer`].
    pub fn refuse(
        &mut self,
        source: usize,
        lane: Lane,
        part: &Part<'_>,
        cursor: Option<Cursor>,
        now: Now,
    ) -> Result<Offered, OfferError> {
        let at = place_of(lane);
        self.follow_the_clock(now);
        let dated = self.clock.date_now(now);
        match self.take(at, source, cursor, 1, dated, now)? {
            Taken::Known(receipt) => Ok(Offered::of(receipt)),
            Taken::New(given) => {
                self.keep_refused(at, source, part, given, now);
                Ok(Offered::of(given.receipt))
            }
        }
    }

    /// Puts the refused values of a row aside; the cursor goes with the last.
    pub(super) fn set_aside(
        &mut self,
        at: usize,
        source: usize,
        sample: &Sample<'_>,
        refused: &[(usize, Fault)],
        given: Given,
        now: Now,
    ) {
        let count = refused.len();
        for (turn, (place, fault)) in (1..).zip(refused) {
            let field = &sample.fields[*place];
            let shown = field.value.map(as_text).unwrap_or_default();
            let part = Part {
                at_us: 0,
                place: &format!("value of {}", field.name),
                cause: &fault.to_string(),
                bytes: shown.as_bytes(),
            };
            let given = Given {
                cursor: given.cursor.filter(|_| turn == count),
                ..given
            };
            self.keep_refused(at, source, &part, given, now);
        }
    }

    /// Puts a refused log line aside.
    pub(super) fn set_line_aside(
        &mut self,
        at: usize,
        source: usize,
        line: &[u8],
        fault: Fault,
        given: Given,
        now: Now,
    ) {
        let part = Part {
            at_us: 0,
            place: "a line",
            cause: &fault.to_string(),
            bytes: line,
        };
        self.keep_refused(at, source, &part, given, now);
    }

    /// Keeps a part in the lane of its source, if that resumes, so that its cursor stands there; else in
    /// lane normal.
    fn keep_refused(&mut self, at: usize, source: usize, part: &Part<'_>, given: Given, now: Now) {
        self.counters.refused += 1;
        let resumes = self.settings.sources[source].resumes;
        let at = if resumes { at } else { place_of(Lane::Normal) };
        if let Some(beyond) = self.refusals[source].due(now.mono) {
            self.name_refused(at, source, beyond, now);
        }
        let words = part.place.len().min(MAX_WORDS_BYTES) + part.cause.len().min(MAX_WORDS_BYTES);
        let bytes = words + part.bytes.len().min(MAX_BYTES);
        let wall = self.clock.known_wall(now);
        if !self.refusals[source].keeps(bytes, wall, given.cursor, now.mono) {
            self.receipts[source].lose(given.receipt);
            return;
        }
        let dated = self.clock.date_now(now);
        let batcher = &self.open[at].batcher;
        if resumes && batcher.must_close_first(source, Next::Refused, dated.base) {
            self.close(at, Which::Of(source), now);
        }
        let batcher = &mut self.open[at].batcher;
        let name = &self.settings.sources[source].name;
        let pushed = batcher.push_refused(source, name, dated, part, given, now.mono);
        self.took(at, source, 1, given.receipt, pushed, now);
    }

    /// Names what passed the bounds of a minute that is over.
    pub(super) fn name_beyond(&mut self, now: Now) {
        for source in 0..self.refusals.len() {
            if let Some(beyond) = self.refusals[source].due(now.mono) {
                self.name_refused(self.lane_of(source), source, beyond, now);
            }
        }
    }

    /// Names what passed the bounds, at a stop.
    pub(super) fn name_rest(&mut self, now: Now) {
        for source in 0..self.refusals.len() {
            if let Some(beyond) = self.refusals[source].rest() {
                self.name_refused(self.lane_of(source), source, beyond, now);
            }
        }
    }

    /// The lane of what is said of a source.
    fn lane_of(&self, source: usize) -> usize {
        self.bound[source].unwrap_or_else(|| place_of(Lane::Normal))
    }

    fn name_refused(&mut self, at: usize, source: usize, beyond: Beyond, now: Now) {
        if beyond.cursor.is_some() {
            // The cursor would pass what is in no record yet.
            self.close(at, Which::Of(source), now);
        }
        let lane = self.store.lanes.lane(at);
        let gap = Gap {
            samples: Some(beyond.parts),
            t_first: beyond.span.map(|(first, _)| first),
            t_last: beyond.span.map(|(_, last)| last),
            stage: Stage::Source,
            part: self.settings.sources[source].name.parse().ok(),
            ..self
                .store
                .lanes
                .gap(lane.lane, lane.epoch, GapReason::Refused, now)
        };
        self.put_gap_of(at, source, &gap, beyond.cursor, now);
    }
}
