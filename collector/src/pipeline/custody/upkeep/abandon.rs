//! Core: epochs that nobody lists any more are closed, and what is missing of them is named, also what a sender
//! that died had and never sent.

use headwater_proto::ids::{SeqRange, Stream};
use headwater_proto::message::GapReason;
use headwater_spool::Disk;

use super::super::streams::{Abandonment, Claims};
use super::super::{Leaves, Refused};
use super::Upkeep;
use crate::pipeline::envelope::{Change, GapHead, MarkHead, Record};
use crate::pipeline::ledger::Around;
use crate::pipeline::spans::Which;

impl<D: Disk> Upkeep<'_, D> {
    /// Notes what senders claim to have beyond what came: a restart knows of it, and so does the audit.
    pub(super) fn note_claims(&mut self) {
        for (stream, next) in Claims(&mut self.custody.streams).due(self.now.mono) {
            let head = MarkHead {
                stream: stream.clone(),
                change: Change::Claimed { next },
                at: self.now.wall,
            };
            // Noted at a later tick, when there is room.
            if self
                .custody
                .append(&Record::Mark(head), Leaves::Two)
                .is_err()
            {
                return;
            }
            self.custody.counters.claims_noted_total += 1;
            Claims(&mut self.custody.streams).noted(&stream, self.now.mono);
        }
    }

    /// Closes epochs that were absent long enough, and names what is missing of them.
    pub(in super::super) fn abandon_absent(&mut self) {
        if self.custody.journal.apart_since().is_some() {
            // The lake may have what is missing here.
            return;
        }
        if self.custody.clock.doubt().is_some() {
            // Nobody knows how long that was.
            return;
        }
        for stream in self.custody.streams.absent_for_long(self.now) {
            if self.custody.sessions.is_listed(&stream) {
                continue;
            }
            match self.abandon(&stream) {
                Ok(()) => {
                    self.custody.streams.end_absence(&stream);
                }
                // Named at a later tick, when there is room.
                Err(Refused::Full | Refused::Failed) => return,
            }
        }
        self.abandon_relayed();
    }

    /// Closes relayed epochs that no gateway has listed for long.
    fn abandon_relayed(&mut self) {
        for stream in self.custody.streams.unlisted_for_long(self.now) {
            if !self.custody.sessions.is_listed(&stream) && self.abandon(&stream).is_err() {
                return;
            }
        }
    }

    pub(in super::super) fn abandon(&mut self, stream: &Stream) -> Result<(), Refused> {
        let Some(Abandonment { missing, ram, next }) = self.custody.streams.abandonment(stream)
        else {
            return Ok(());
        };
        for range in missing {
            self.name_gap(stream, Some(range), GapReason::Abandoned)?;
        }
        if ram {
            // What a memory-only epoch held beyond is known by time alone.
            self.name_gap(stream, None, GapReason::Abandoned)?;
        }
        let change = Change::Abandoned { next };
        let head = MarkHead {
            stream: stream.clone(),
            change,
            at: self.now.wall,
        };
        self.custody.append(&Record::Mark(head), Leaves::Two)?;
        Ok(())
    }

    pub(in super::super) fn name_gap(
        &mut self,
        stream: &Stream,
        range: Option<SeqRange>,
        reason: GapReason,
    ) -> Result<(), Refused> {
        let which = range.map_or(Which::Beyond, Which::Numbers);
        let ledger = self.custody.streams.ledger();
        let head = GapHead {
            stream: stream.clone(),
            range,
            span: Around(ledger).span(stream, which, self.now.wall),
            reason,
            at: self.now.wall,
        };
        self.custody.append(&Record::Gap(head), Leaves::Two)?;
        self.custody.counters.gaps_named_total += 1;
        Ok(())
    }
}
