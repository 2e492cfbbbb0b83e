//! Core: what was lost is named, or asked for again.

use headwater_proto::ids::{SeqRange, Stream};
use headwater_proto::message::{GapReason, Reject, RejectReason};
use headwater_proto::time::Now;
use headwater_spool::Disk;

use super::streams::Say;
use super::{Custody, Leaves, Refused};
use crate::pipeline::envelope::{Change, MarkHead, Record};

impl<D: Disk> Custody<D> {
    /// Names the losses that are sure by now; what finds no room waits for the next tick.
    pub(super) fn name_losses(&mut self, now: Now) {
        let passed = self.journal.sinks.required_position();
        while let Some(loss) = self.streams.next_loss(passed, self.journal.log().next()) {
            let named = match &loss.say {
                Say::Nothing => Ok(()),
                Say::Gap(stream, range, reason) => self.name_gap(stream, *range, *reason, now),
                Say::Lost(stream, range) => self.ask_again(stream, *range, now),
                Say::Lacks(sinks, stream, part) => {
                    let lacks = [(stream.clone(), vec![*part])];
                    self.name_lacks(sinks, &lacks, GapReason::Damaged, now)
                }
            };
            if named.is_err() {
                self.streams.put_back(loss);
                return;
            }
            self.streams.named(loss);
        }
    }

    /// Takes numbers out of the marks: their sender still holds the records, and is refused until it says
    /// Hello and is told so.
    fn ask_again(&mut self, stream: &Stream, range: SeqRange, now: Now) -> Result<(), Refused> {
        let head = MarkHead {
            stream: stream.clone(),
            change: Change::Lost { range },
            at: now.wall,
        };
        self.append(&Record::Mark(head), Leaves::Two)?;
        self.counters.asked_again_total += range.len();
        // Makes its sender say Hello; the Welcome tells what it has to send again.
        let reject = Reject {
            origin: stream.device.clone(),
            lane: stream.lane,
            epoch: stream.epoch,
            range,
            reason: RejectReason::NotInHello,
        };
        self.sessions.send_all(&stream.device, &reject);
        Ok(())
    }

    /// Names what a start could not read for some sinks; without room the next tick tries again.
    pub(super) fn name_unread(&mut self, now: Now) {
        while let Some(unread) = self.streams.next_unread() {
            let lacks = std::slice::from_ref(&unread.lacks);
            let named = self.name_lacks(&unread.sinks, lacks, GapReason::Damaged, now);
            self.streams.unread(unread, named.is_ok());
            if named.is_err() {
                return;
            }
        }
    }
}
