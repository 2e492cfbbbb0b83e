//! Core: what was lost is named, or asked for again.

use headwater_proto::ids::{SeqRange, Stream};
use headwater_proto::message::{GapReason, Reject, RejectReason};
use headwater_spool::Disk;

use super::super::streams::Say;
use super::super::{Leaves, Refused};
use super::Upkeep;
use crate::pipeline::envelope::{Change, MarkHead, Record};

impl<D: Disk> Upkeep<'_, D> {
    /// Names the losses that are sure by now; what finds no room waits for the next tick.
    pub(super) fn name_losses(&mut self) {
        let passed = self.custody.journal.sinks.required_position();
        while let Some(loss) = self
            .custody
            .streams
            .next_loss(passed, self.custody.journal.log().next())
        {
            let named = match &loss.say {
                Say::Nothing => Ok(()),
                Say::Gap(stream, range, reason) => self.name_gap(stream, *range, *reason),
                Say::Lost(stream, range) => self.ask_again(stream, *range),
                Say::Lacks(sinks, stream, part) => {
                    let lacks = [(stream.clone(), vec![*part])];
                    self.name_lacks(sinks, &lacks, GapReason::Damaged)
                }
            };
            if named.is_err() {
                self.custody.streams.put_back(loss);
                return;
            }
            self.custody.streams.named(loss);
        }
    }

    /// Takes numbers out of the marks: their sender still holds the records, and is refused until it says
    /// Hello and is told so.
    fn ask_again(&mut self, stream: &Stream, range: SeqRange) -> Result<(), Refused> {
        let head = MarkHead {
            stream: stream.clone(),
            change: Change::Lost { range },
            at: self.now.wall,
        };
        self.custody.append(&Record::Mark(head), Leaves::Two)?;
        self.custody.counters.asked_again_total += range.len();
        // Makes its sender say Hello; the Welcome tells what it has to send again.
        let reject = Reject {
            origin: stream.device.clone(),
            lane: stream.lane,
            epoch: stream.epoch,
            range,
            reason: RejectReason::NotInHello,
        };
        self.custody.sessions.send_all(&stream.device, &reject);
        Ok(())
    }
}
