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

use std::collections::BTreeSet;
use std::sync::Arc;

use headwater_gate::CloseReason;
use headwater_proto::ids::{Epoch, JournalId, Lane, SeqRange, Stream};
use headwater_proto::message::GapReason;
use headwater_proto::time::{Millis, Now, UnixMicros};
use headwater_spool::{Disk, ReadError};

use super::open::fill_coverage;
use super::sides::{
    Agreed, JournalSide, LakeSide, MeetError, Meeting, Needs, Proof, Proven, Told, Wanted,
};
use super::stretch::Lacking;
use super::{Custody, Leaves, Past, clock};
use crate::pipeline::envelope::{CursorHead, GapHead, Record};
use crate::pipeline::ledger::{Around, Ledger, committed_by};
use crate::pipeline::numbers::{Listed, Numbers};
use crate::pipeline::spans::Which;

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
        if let Some(at) = lake.last_owned {
            clock::know_commit(self, at);
        }
        // By what the clock is worth after that. One that was in doubt already took nothing from it; what the lake
        // lacks was handed out before its last commit all the same.
        let present = self.clock.present().unwrap_or(at);
        let known = lake.last_owned.filter(|_| self.clock.doubt().is_some());
        let at = known.map_or(present, |last| last.max(present));
        let custody = self;
        Joining { custody, sink, at }.meet(journal, lake)
    }
}

/// Custody while it meets the lake.
struct Joining<'a, D: Disk> {
    custody: &'a mut Custody<D>,
    /// The lake's name among the sinks.
    sink: &'a str,
    at: UnixMicros,
}

impl<D: Disk> Joining<'_, D> {
    fn meet(&mut self, journal: &JournalSide, lake: &LakeSide) -> Result<Meeting, MeetError> {
        let mut is_told = match &lake.proof {
            Some(Proof { wanted, index, .. }) => {
                index.is_err()
                    || !self
                        .custody
                        .streams
                        .index_filled()
                        .came_back(&wanted.streams)?
            }
            None => journal.knows_its_past() && lake.is_alone,
        };
        if is_told {
            if lake.is_older {
                self.custody.journal.go_back(self.sink, lake.cursor);
                // Of contents it may lack what was told as held.
                super::streams::forget_portions(&mut self.custody.streams);
                // Of what it does not have it is not ahead of other sinks.
                fill_coverage(&self.custody.journal, &mut self.custody.streams)?;
            }
            let missing = match lake.renamed {
                // All before the position from which it goes on is in the lake.
                Some(_) => 0,
                None => self.custody.resume(self.sink, lake.cursor)?,
            };
            is_told = missing == 0 || lake.proof.is_some();
        }
        if !is_told {
            return Ok(Meeting::NeedsMarks(self.needs(journal, lake)?));
        }
        self.custody.journal.sinks.has_met(self.sink);
        let was_apart = self.custody.journal.apart_since().is_some();
        let renamed = lake.renamed.map(|name| (name, journal.since));
        let damaged = self.end_apart(renamed)?;
        let end = self.custody.journal.log().next();
        let past = renamed.map_or(journal.past, |_| Past::Nothing);
        let mut index_failure = None;
        if let Some(proof) = &lake.proof {
            let filled = self.custody.streams.index_filled().end(proof.index.clone());
            index_failure = filled.err();
            self.seed_all(past, &proof.streams, proof.index.is_ok());
        }
        if lake.is_older {
            self.name_lost(lake)?;
        }
        let leave_out_until = (!lake.is_alone).then_some(end);
        let (own, streams) = (&mut self.custody.journal, &mut self.custody.streams);
        own.agree(lake.term, leave_out_until.unwrap_or(0));
        // What the marks take in a snapshot counts from now on.
        own.measure(streams.ledger());
        if damaged > 0 || journal.damaged_to > lake.cursor {
            streams.doubt_plain_devices();
        }
        streams.watch(own.log().next());
        if was_apart {
            self.note_meeting();
            self.owe_all_acks();
        }
        // Rot may have hit a name that the lake does not have yet: it is given again.
        let is_sure = damaged == 0 && journal.damaged_to == 0;
        self.name_earlier(&lake.lacking, is_sure);
        let beyond = self.custody.streams.coverage().of(self.sink);
        let beyond = beyond.map(|(stream, ranges)| (stream.clone(), ranges.to_vec()));
        Ok(Meeting::Agreed(Agreed {
            beyond: beyond.collect(),
            streams: told(self.custody.streams.ledger()),
            leave_out_until,
            index_failure,
        }))
    }

    /// Of whom the lake is to prove all: of whom this journal holds marks or records. What else is over comes
    /// back from the index.
    fn needs(&mut self, journal: &JournalSide, lake: &LakeSide) -> Result<Needs, MeetError> {
        let ledger = self.custody.streams.ledger();
        let mut wanted: BTreeSet<Stream> = ledger.streams().map(|(s, _)| s.clone()).collect();
        wanted.extend(ledger.plain().map(|(stream, _)| stream));
        let plain = ledger.plain_epoch();
        if !lake.is_alone {
            // What is read once more is left out by what the lake proves of its streams, and they may have been
            // let go of: of a plain device at once, where the lake has all that was numbered.
            let end = self.custody.journal.log().next();
            let into = &mut |_, record: &Record<'_>| {
                committed_by(record, &mut |stream, _| {
                    wanted.insert(stream.clone());
                });
            };
            self.custody.journal.each_record(lake.cursor, end, into)?;
        }
        // An index that is whole is right as far as the lake is as new as it.
        let anew = lake.is_older || !journal.knows_its_past();
        Ok(Needs {
            wanted: Arc::new(Wanted {
                streams: wanted,
                plain,
            }),
            index: self.custody.streams.index_filled().begin(anew),
        })
    }

    /// The journal and the lake have met. `renamed`: its disk shows an earlier time than the lake has
    /// seen, so that what stands from a position on belongs to a journal of that name. Returns how many
    /// of those records could not be read.
    ///
    /// # Errors
    /// [`MeetError`]; nothing has changed then but what a failed sync takes back.
    fn end_apart(&mut self, renamed: Option<(JournalId, u64)>) -> Result<u64, MeetError> {
        if self.custody.journal.apart_since().is_some() {
            // From the next record on, a segment says so: before a plan, and so before a commit.
            self.custody.roll()?;
        }
        let damaged = match renamed {
            Some((name, since)) => self.go_on_as(name, since)?,
            None => 0,
        };
        self.custody.journal.set_apart(None);
        Ok(damaged)
    }

    /// The lake was brought back older: names what it was given after that and the journal has let go of. From
    /// the next record on a segment says how far the lake is: before a plan, and so before a commit.
    fn name_lost(&mut self, lake: &LakeSide) -> Result<(), MeetError> {
        self.custody.roll()?;
        let mut there = Numbers::new();
        for proven in lake.proof.iter().flat_map(|proof| proof.streams.iter()) {
            for range in &proven.held {
                there.insert(&proven.stream, *range);
            }
        }
        let end = self.custody.journal.log().next();
        let mut known = committed(self.custody.streams.ledger());
        // A start that was cut off may have named some.
        let mut named = Numbers::new();
        let into = &mut |_, record: &Record<'_>| {
            committed_by(record, &mut |stream, range| there.insert(stream, range));
            if let Record::Lacks(head) = record
                && head.sink == self.sink
            {
                let ranges = head.ranges.iter().map(|(range, _)| *range).collect();
                named.add(&[(head.stream.clone(), ranges)]);
            }
        };
        self.custody.journal.each_record(lake.cursor, end, into)?;
        // The sink leaves out what the lake has in part.
        for proven in lake.proof.iter().flat_map(|proof| proof.streams.iter()) {
            let cut = proven
                .partial
                .iter()
                .map(|seq| SeqRange::new(*seq, seq + 1));
            known.push((proven.stream.clone(), cut.clone().collect()));
            cut.for_each(|one| there.remove(&proven.stream, one));
        }
        there.add(&named.take());
        let lost = there.missing_of(&known);
        self.custody.counters.lake_went_back_total += 1;
        self.custody.earlier.lost(lost);
        let now = Now {
            mono: Millis(0),
            wall: self.at,
        };
        self.custody.upkeep(now).name_earlier();
        self.note_meeting();
        Ok(())
    }

    /// Makes durable soon that the time apart is over. Without room, the next segment says it.
    fn note_meeting(&mut self) {
        let head = CursorHead {
            sink: self.sink,
            position: self.custody.cursor(self.sink).unwrap_or_default(),
        };
        let _ = self.custody.append(&Record::Cursor(head), Leaves::None);
    }

    /// Goes on under a new name: the lake has come further under the old one than this journal, so its
    /// disk shows an earlier time. All that it holds before `since` is in the lake; nothing after that is.
    fn go_on_as(&mut self, name: JournalId, since: u64) -> Result<u64, ReadError> {
        let end = self.custody.journal.log().next();
        // When a boot began is true whatever the journal is called. The numbers of plain devices were used
        // for other records since, whatever their epoch.
        let bases = self.custody.streams.ledger().time_bases().clone();
        let mut ledger = Ledger::with_time_bases(Epoch::new(name.0), bases);
        // What it had taken in of the contents of sources, it still has.
        ledger.portions = self.custody.streams.ledger().portions.clone();
        // Of which of them the times of receipt are Unix time may be said before `since`.
        let undated = self.custody.journal.clock.is_any();
        let into = &mut |_, record: &Record<'_>| ledger.apply(record, undated);
        let damaged = self.custody.journal.each_record(since, end, into)?;
        ledger.synced();
        if since < end {
            // How those streams began may stand before.
            ledger.doubt_ends();
        }
        self.custody.reading = None;
        self.custody.journal.go_on_as(name, since);
        self.custody.streams.go_on_with(ledger);
        let unread = fill_coverage(&self.custody.journal, &mut self.custody.streams)?;
        self.custody.journal.measure(self.custody.streams.ledger());
        // Senders hold marks of another journal: they say Hello again, and forget those.
        self.custody.sessions.close_all(CloseReason::Journal);
        Ok(damaged + unread)
    }

    /// Names what sinks of earlier journals may lack. What finds no room is named later: the lake tells it
    /// at each start until it has the names.
    ///
    /// - `is_sure`: what the journal says it has named, it has.
    fn name_earlier(&mut self, lacking: &[Lacking], is_sure: bool) {
        let sinks = &self.custody.journal.sinks;
        let is_open =
            |lacking: &&Lacking| !is_sure || !sinks.is_settled(&lacking.place, lacking.through);
        self.custody.earlier.learn(lacking.iter().filter(is_open));
        // Naming takes the wall clock alone.
        let now = Now {
            mono: Millis(0),
            wall: self.at,
        };
        self.custody.upkeep(now).name_earlier();
    }

    /// An Ack is owed for every stream of a device that is connected.
    fn owe_all_acks(&mut self) {
        let devices = self.custody.sessions.devices();
        let streams = devices.flat_map(|device| self.custody.streams.ledger().streams_of(device));
        let all: Vec<Stream> = streams.map(|(stream, _)| stream.clone()).collect();
        all.iter()
            .for_each(|stream| self.custody.sessions.owe_acks(stream));
    }

    /// Takes in the marks that the lake proves. Epochs that are over, and new to custody, are left to
    /// the index where it has them.
    fn seed_all(&mut self, past: Past, all: &[Proven], is_indexed: bool) {
        for proven in all {
            let stream = &proven.stream;
            if stream.lane == Lane::Plain {
                // A plain device counts under each epoch of a journal anew.
                let is_present = stream.epoch == self.custody.streams.ledger().plain_epoch();
                let known = self
                    .custody
                    .streams
                    .ledger()
                    .plain_track(stream.epoch, &stream.device);
                if is_present || known.is_some() {
                    let held = self
                        .custody
                        .streams
                        .take_seeds(self.sink, stream, &proven.held);
                    self.custody.streams.seed_plain(stream, &held, proven.next);
                }
                continue;
            }
            let known = self.custody.streams.ledger().track(stream);
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
            let held = self
                .custody
                .streams
                .take_seeds(self.sink, stream, &proven.held);
            self.custody
                .streams
                .seed(stream.clone(), &held, partial, proven.end);
            for seq in here {
                // It came again while the lake was away, and cannot be brought in half.
                let one = SeqRange::new(seq, seq + 1);
                let ledger = self.custody.streams.ledger();
                let head = GapHead {
                    stream: stream.clone(),
                    range: Some(one),
                    span: Around(ledger).span(stream, Which::Numbers(one), self.at),
                    reason: GapReason::DiskError,
                    at: self.at,
                };
                // Without room it is named once the sinks are past it.
                let _ = self.custody.append(&Record::Gap(head), Leaves::Two);
            }
        }
    }
}

/// What was committed of every stream.
fn committed(ledger: &Ledger) -> Listed {
    let streams = ledger.streams();
    let agents = streams.map(|(stream, track)| {
        let committed = track.receiver.committed().iter().collect();
        (stream.clone(), committed)
    });
    let plain = ledger.plain();
    let plain = plain.map(|(stream, track)| (stream, track.committed.as_slice().to_vec()));
    agents.chain(plain).collect()
}

/// What custody knows of every stream.
fn told(ledger: &Ledger) -> Vec<Told> {
    let streams = ledger.streams();
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
