//! Core: what custody does on a sink's word and as time passes: reports are taken in, what is lost, lacking
//! or abandoned is named, and room is made.

mod abandon;
mod earlier;
mod index;
mod lacks;
mod losses;
mod rot;

use headwater_proto::message::GapReason;
use headwater_proto::time::Now;
use headwater_spool::Disk;

use super::intake::Intake;
use super::journal::{Moved, Report};
use super::{Custody, Leaves, clock};
use crate::pipeline::envelope::{CursorHead, Record};
pub(super) use earlier::Earlier;

/// Custody at one moment.
pub(super) struct Upkeep<'a, D: Disk> {
    custody: &'a mut Custody<D>,
    now: Now,
}

impl<'a, D: Disk> Upkeep<'a, D> {
    pub(super) const fn new(custody: &'a mut Custody<D>, now: Now) -> Self {
        Self { custody, now }
    }

    /// Time passed.
    pub(super) fn tick(&mut self) {
        clock::note(self.custody, self.now.mono);
        self.say_again();
        self.name_earlier();
        self.name_reading();
        self.name_leavers();
        self.make_room();
        self.custody.note_cursors(self.now, false);
        self.greet_waiting();
        self.retry_withheld();
        self.note_claims();
        self.abandon_absent();
        self.name_losses();
        self.expire();
    }

    /// Tries what was withheld, oldest first, until the journal is full again.
    fn retry_withheld(&mut self) {
        while let Some((event, received)) = self.custody.sessions.next_withheld() {
            let Some(conn) = event.conn() else { continue };
            // By what the clock is worth now.
            let at = self.custody.clock.dated(received);
            if !Intake::new(self.custody, conn, at).take(&event) {
                self.custody.sessions.put_back(event, received);
                return;
            }
        }
    }

    /// Takes in what a sink said: what it refused is named before its cursor moves.
    pub(super) fn said(&mut self, said: Report) {
        let (reading, sinks) = (&mut self.custody.reading, &mut self.custody.journal.sinks);
        let cursor = sinks.cursors().iter().find(|c| c.name == said.sink);
        let Some(before) = cursor.cloned() else {
            return;
        };
        if let Some(reading) = reading {
            reading.reported(&said.sink, &said.streams);
            reading.reported(&said.sink, &said.refused);
        }
        if sinks.is_holding(&said.sink) {
            sinks.hold(said);
            return;
        }
        if self.has_too_much(&said.sink) {
            self.custody.counters.sink_reports_held_total += 1;
            self.custody.journal.sinks.hold(said);
            return;
        }
        if self.waits_for_names(&before, &said) {
            self.custody.journal.sinks.hold(said);
            return;
        }
        if !said.refused.is_empty() {
            let sink = std::slice::from_ref(&said.sink);
            if self
                .name_lacks(sink, &said.refused, GapReason::Refused)
                .is_err()
            {
                self.custody.journal.sinks.hold(said);
                return;
            }
        }
        if !said.refused.is_empty() || said.damaged > 0 {
            // Should the running group fail, its names are to be said again.
            let said = Some(said.clone());
            self.custody.journal.sinks.moving(Moved {
                cursor: before,
                said,
            });
        }
        self.committed(&said);
        self.damaged(&said.sink, said.damaged);
        self.custody.note_cursors(self.now, false);
    }

    /// Takes in once more what found no room, or came from a sink that had too much.
    pub(super) fn say_again(&mut self) {
        let counted = self.custody.counters.sink_reports_held_total;
        for held in self.custody.journal.sinks.take_held() {
            self.said(held);
        }
        // A report counts once, however long it waits.
        self.custody.counters.sink_reports_held_total = counted;
    }

    /// Takes in what a sink has, or has refused and was named for: what all required sinks have by that is
    /// committed.
    fn committed(&mut self, said: &Report) {
        let sink = said.sink.as_str();
        self.custody.journal.sinks.has_come(sink, said.through);
        if !self.custody.streams.coverage().requires(sink) {
            return;
        }
        self.custody.journal.committed_so_far();
        let named = said.named.iter().flatten();
        for (stream, ranges) in said.streams.iter().chain(&said.refused).chain(named) {
            if self.custody.streams.has(sink, stream, ranges) {
                self.custody.sessions.owe_acks(stream);
            }
        }
    }

    /// Whether a sink has so much that others lack that its next report waits until they come closer. The
    /// one that is furthest behind never waits, so somebody always goes on.
    fn has_too_much(&self, sink: &str) -> bool {
        self.custody.journal.sinks.can_wait(sink)
            && self.custody.streams.coverage().has_too_much(sink)
    }

    /// A sink passed over records that it could not read.
    fn damaged(&mut self, sink: &str, records: u64) {
        self.custody.counters.records_damaged_total += records;
        if records > 0 && self.custody.streams.coverage().requires(sink) {
            self.custody
                .streams
                .watch(self.custody.journal.log().next());
        }
    }

    /// When half of the quota is used and a new snapshot would free a segment, begins one.
    fn make_room(&mut self) {
        self.leave_behind();
        let tight = self.custody.journal.is_tight() || self.custody.is_stalled();
        if !tight || !self.custody.journal.would_free() || self.custody.roll().is_err() {
            return;
        }
        let Some(sink) = self.custody.journal.sinks.required().next() else {
            return;
        };
        let sink = sink.to_owned();
        let position = self.custody.cursor(&sink).unwrap_or_default();
        let head = CursorHead {
            sink: &sink,
            position,
        };
        // Without room the next tick tries again.
        let _ = self.custody.append(&Record::Cursor(head), Leaves::None);
    }
}
