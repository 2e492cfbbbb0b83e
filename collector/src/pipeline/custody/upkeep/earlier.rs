//! Core: what sinks of an earlier journal may lack is named once the journal of the lake has another name.
//!
//! ```text
//! lake: a journal that is gone, its sinks' places, files beyond ──► Lacks in this journal
//!                                                               ──► the place goes to that journal's end
//!                                                               ──► a flush says both
//! ```
//! Until a flush says so, each start finds it again.

use headwater_proto::message::GapReason;
use headwater_proto::sabotage::{self, Bug};
use headwater_spool::Disk;

use super::super::stretch::{Found, Lacking};
use super::super::{Leaves, Refused};
use super::Upkeep;
use crate::pipeline::envelope::{CursorHead, Record};

/// What is to be named, and what the running group names of it.
#[derive(Debug, Default)]
pub(in super::super) struct Earlier {
    waiting: Vec<Lacking>,
    named: Vec<Lacking>,
    /// What a lake that was brought back older lacks for good.
    lost: Found,
    /// What of it the running group names.
    lost_named: Found,
}

impl Earlier {
    /// The lake tells what is not named.
    pub(in super::super) fn learn<'a>(&mut self, lacking: impl Iterator<Item = &'a Lacking>) {
        self.waiting = lacking.cloned().collect();
    }

    /// The lake lacks these, and the journal has let go of them.
    pub(in super::super) fn lost(&mut self, numbers: Found) {
        self.lost = numbers;
    }

    /// Whether the lake may not commit yet: afterwards nobody could tell what it lacks.
    pub(in super::super) fn is_lake_unnamed(&self) -> bool {
        !self.lost.is_empty()
    }

    /// The running group is durable.
    pub(in super::super) fn synced(&mut self) {
        self.named.clear();
        self.lost_named.clear();
    }

    /// The running group never happened.
    pub(in super::super) fn failed(&mut self) {
        self.waiting.append(&mut self.named);
        self.lost.append(&mut self.lost_named);
    }
}

impl<D: Disk> Upkeep<'_, D> {
    /// Names what waits for it; what finds no room waits for the next tick.
    pub(in super::super) fn name_earlier(&mut self) {
        self.name_lost();
        while let Some(lacking) = self.custody.earlier.waiting.pop() {
            let named = self.name_one(&lacking);
            let earlier = &mut self.custody.earlier;
            match named {
                Ok(()) => earlier.named.push(lacking),
                Err(_) => return earlier.waiting.push(lacking),
            }
        }
    }

    /// Names what an older lake lacks for good, as a loss of the collector.
    fn name_lost(&mut self) {
        let lake = self.custody.journal.sinks.lake().map(str::to_owned);
        let lost = std::mem::take(&mut self.custody.earlier.lost);
        let named = self.name_lacks(lake.as_slice(), &lost, GapReason::DiskError);
        let earlier = &mut self.custody.earlier;
        match named {
            Ok(()) => earlier.lost_named.extend(lost),
            Err(_) => earlier.lost = lost,
        }
    }

    fn name_one(&mut self, lacking: &Lacking) -> Result<(), Refused> {
        if !sabotage::is(Bug::LostJournalUnnamed) {
            let sink = std::slice::from_ref(&lacking.sink);
            self.name_lacks(sink, &lacking.numbers, GapReason::JournalLost)?;
        }
        let head = CursorHead {
            sink: &lacking.place,
            position: lacking.through,
        };
        self.custody.append(&Record::Cursor(head), Leaves::Two)?;
        Ok(())
    }
}
