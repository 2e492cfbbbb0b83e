//! Core: custody's half of a meeting of the journal with the lake, after which both agree on what is
//! committed.
//!
//! ```text
//! journal says ([`JournalSide`]) ──► the lake's half: open, claim, carry out the last plan
//!                                         │
//! marks, cursors, index ◄── [`LakeSide`] ─┘   on the thread that owns custody
//!        └── [`Agreed`] ──► what the sink goes on with
//! ```
//! Only values pass between the halves, so that the lake's may run on its sink's thread.

use headwater_proto::ids::{Lane, SeqRange};
use headwater_proto::message::GapReason;
use headwater_proto::time::UnixMicros;
use headwater_spool::Disk;

use super::sides::{Agreed, JournalSide, LakeSide, MeetError, Meeting, Proven, Told};
use super::{Custody, Leaves, Past};
use crate::pipeline::envelope::{GapHead, Record};

impl<D: Disk> Custody<D> {
    /// Makes the marks agree with the lake, which is the sink called `sink`; before its first commit.
    /// `at` is the present time. Answers come after the next [`Custody::sync`].
    ///
    /// # Errors
    /// [`MeetError`]; the same call may be repeated.
    pub fn meet_lake(
        &mut self,
        sink: &str,
        journal: &JournalSide,
        lake: &LakeSide,
        at: UnixMicros,
    ) -> Result<Meeting, MeetError> {
        let missing = match lake.renamed {
            // All before the position from which it goes on is in the lake.
            Some(_) => 0,
            None => self.resume(sink, lake.cursor)?,
        };
        let is_sure = journal.knows_its_past() && missing == 0 && lake.is_alone;
        if !is_sure && lake.proven.is_none() {
            return Ok(Meeting::NeedsMarks);
        }
        let was_apart = self.journal.apart_since().is_some();
        let renamed = lake.renamed.map(|name| (name, journal.since));
        let damaged = self.end_apart(renamed)?;
        let end = self.log().next();
        let past = renamed.map_or(journal.past, |_| Past::Nothing);
        let mut index_failure = None;
        if let Some(proven) = &lake.proven {
            let whole = proven.iter().filter(|proven| proven.is_whole);
            let ends = whole.filter_map(|proven| Some((proven.stream.clone(), proven.end?)));
            index_failure = self.streams.fill_index(ends).err();
            self.seed_all(sink, past, proven, index_failure.is_none(), at);
        }
        let leave_out_until = (!lake.is_alone).then_some(end);
        self.journal.agree(lake.term, leave_out_until.unwrap_or(0));
        // What the marks take in a snapshot counts from now on.
        self.journal.measure(self.streams.ledger());
        if damaged > 0 || journal.damaged_to > lake.cursor {
            self.streams.doubt_plain_devices();
        }
        self.streams.watch(self.journal.log().next());
        if was_apart {
            self.note_meeting(sink);
            self.owe_all_acks();
        }
        let beyond = self.beyond_others(sink);
        let beyond = beyond.map(|(stream, ranges)| (stream.clone(), ranges.to_vec()));
        Ok(Meeting::Agreed(Agreed {
            beyond: beyond.collect(),
            streams: self.told(),
            leave_out_until,
            index_failure,
        }))
    }

    /// Takes in the marks that the lake proves. Epochs that are over, and new to custody, are left to
    /// the index where it has them.
    fn seed_all(
        &mut self,
        sink: &str,
        past: Past,
        all: &[Proven],
        is_indexed: bool,
        at: UnixMicros,
    ) {
        for proven in all {
            let stream = &proven.stream;
            if stream.lane == Lane::Plain {
                // A plain device counts under each epoch of a journal anew.
                let is_present = stream.epoch == self.streams.ledger().plain_epoch();
                let known = self
                    .streams
                    .ledger()
                    .plain_track(stream.epoch, &stream.device);
                if is_present || known.is_some() {
                    let held = self.streams.take_seeds(sink, stream, &proven.held);
                    self.streams.seed_plain(stream, &held, proven.next);
                }
                continue;
            }
            let known = self.streams.ledger().track(stream);
            // What the index has is found there when it comes back.
            if is_indexed && known.is_none() && proven.is_whole {
                continue;
            }
            // Under the same name nothing was cut off between two tables: its last plan was carried out.
            let partial = match past {
                Past::Nothing => proven.partial.as_slice(),
                Past::Snapshot | Past::Records => &[],
            };
            let here: Vec<u64> = match known {
                Some(track) => {
                    let has = |seq: &&u64| track.receiver.data().contains(**seq);
                    partial.iter().filter(has).copied().collect()
                }
                None => Vec::new(),
            };
            let held = self.streams.take_seeds(sink, stream, &proven.held);
            self.streams
                .seed(stream.clone(), &held, partial, proven.end);
            for seq in here {
                // It came again while the lake was away, and cannot be brought in half.
                let head = GapHead {
                    stream: stream.clone(),
                    range: Some(SeqRange::new(seq, seq + 1)),
                    reason: GapReason::DiskError,
                    at,
                };
                // Without room it is named once the sinks are past it.
                let _ = self.append(&Record::Gap(head), Leaves::Two);
            }
        }
    }

    fn told(&self) -> Vec<Told> {
        let streams = self.streams.ledger().streams();
        streams
            .map(|(stream, track)| Told {
                stream: stream.clone(),
                committed: track.receiver.committed().iter().collect(),
                end: track.receiver.ended(),
                boot: track.boot,
                is_abandoned: track.abandoned,
            })
            .collect()
    }
}
