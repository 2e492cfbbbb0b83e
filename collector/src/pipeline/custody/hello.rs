//! Core: Hello and Welcome, and what a Hello proves to be lost.

use std::collections::BTreeMap;

use headwater_gate::ConnId;
use headwater_proto::ids::{DeviceId, Epoch, Lane, SeqRange, Stream};
use headwater_proto::message::{GapReason, Hello, HelloStream, PROTOCOL, Reject, RejectReason};
use headwater_proto::sabotage::{self, Bug};
use headwater_proto::time::Now;
use headwater_spool::Disk;

use super::sessions::Said;
use super::streams::Abandonment;
use super::{Custody, Leaves, Refused};
use crate::pipeline::envelope::{Change, GapHead, MarkHead, Record};
use crate::pipeline::snapshot::{NEW_BYTES, STREAM_BYTES};

impl<D: Disk> Custody<D> {
    /// Takes in a Hello that came on `device`'s topic. One for another origin is relayed: it is never
    /// complete, and what it no longer holds another gateway may.
    pub(super) fn hello(
        &mut self,
        conn: ConnId,
        device: &DeviceId,
        hello: &Hello,
        now: Now,
    ) -> Result<(), Refused> {
        if !(hello.version_min..=hello.version_max).contains(&PROTOCOL) {
            self.refuse_version(conn, hello);
            return Ok(());
        }
        let origin = &hello.origin;
        let relayed = device != origin && !sabotage::is(Bug::ForeignEpochAbandoned);
        let Said::Whole(streams) = self.sessions.hello(conn, hello, now) else {
            return Ok(());
        };
        for stream in &streams {
            self.listed(origin, stream, relayed, now)?;
        }
        let listed: BTreeMap<_, _> = streams.iter().map(|s| ((s.lane, s.epoch), *s)).collect();
        if hello.complete && !relayed {
            self.streams.note_absent(conn, origin, &listed, now);
        }
        let shared = self.streams.note_present(conn, origin, &listed);
        self.counters.identity_shared_total += shared;
        self.sessions.listed(conn, origin, listed);
        self.abandon_absent(now);
        self.sessions.owe_welcome(conn, origin);
        Ok(())
    }

    /// One stream of a Hello: opens it if it is new, and names what its sender no longer holds.
    fn listed(
        &mut self,
        origin: &DeviceId,
        listed: &HelloStream,
        relayed: bool,
        now: Now,
    ) -> Result<(), Refused> {
        let stream = Stream {
            device: origin.clone(),
            lane: listed.lane,
            epoch: listed.epoch,
        };
        if self.streams.ledger().track(&stream).is_none() {
            if !self.streams.ledger().has_room(&stream)
                || !self.has_state_room(STREAM_BYTES, NEW_BYTES)
            {
                // The sender keeps what it has and asks again.
                self.counters.streams_full_total += 1;
                return Ok(());
            }
            if !self.recall(&stream) {
                // If the index cannot be read, the epoch is not taken for new.
                return Ok(());
            }
        }
        if self.streams.ledger().track(&stream).is_none() {
            let change = Change::Opened {
                oldest: listed.oldest,
                ram: listed.ram,
                boot: listed.boot,
                base: listed.base,
                relayed,
            };
            let head = MarkHead {
                stream: stream.clone(),
                change,
                at: now.wall,
            };
            self.append(&Record::Mark(head), Leaves::Two)?;
            self.journal.grew(STREAM_BYTES);
        }
        self.streams.claim(&stream, listed.next, relayed, now.wall);
        for range in self.streams.missing_at_source(&stream, listed.oldest) {
            self.name_gap(&stream, Some(range), GapReason::MissingAtSource, now)?;
        }
        Ok(())
    }

    pub(super) fn name_gap(
        &mut self,
        stream: &Stream,
        range: Option<SeqRange>,
        reason: GapReason,
        now: Now,
    ) -> Result<(), Refused> {
        let head = GapHead {
            stream: stream.clone(),
            range,
            reason,
            at: now.wall,
        };
        self.append(&Record::Gap(head), Leaves::Two)?;
        self.counters.gaps_named_total += 1;
        Ok(())
    }

    /// Tells a sender that no version it speaks is spoken here. It keeps what it has, and asks again.
    fn refuse_version(&mut self, conn: ConnId, hello: &Hello) {
        self.counters.versions_refused_total += 1;
        let first = hello.streams.first();
        let reject = Reject {
            origin: hello.origin.clone(),
            lane: first.map_or(Lane::Normal, |stream| stream.lane),
            epoch: first.map_or(Epoch::new(0), |stream| stream.epoch),
            range: first.map_or(SeqRange::new(0, 0), |s| SeqRange::new(s.oldest, s.next)),
            reason: RejectReason::Version,
        };
        self.sessions.send(conn, &reject);
    }

    /// Closes epochs that were absent long enough, and names what is missing of them.
    pub(super) fn abandon_absent(&mut self, now: Now) {
        if self.journal.apart_since().is_some() {
            // The lake may have what is missing here.
            return;
        }
        for stream in self.streams.absent_for_long(now) {
            if self.sessions.is_listed(&stream) {
                continue;
            }
            match self.abandon(&stream, now) {
                Ok(()) => {
                    self.streams.end_absence(&stream);
                }
                // Named at a later tick, when there is room.
                Err(Refused::Full | Refused::Failed) => return,
            }
        }
        self.abandon_relayed(now);
    }

    /// Closes relayed epochs that no gateway has listed for long.
    fn abandon_relayed(&mut self, now: Now) {
        for stream in self.streams.unlisted_for_long(now) {
            if !self.sessions.is_listed(&stream) && self.abandon(&stream, now).is_err() {
                return;
            }
        }
    }

    pub(super) fn abandon(&mut self, stream: &Stream, now: Now) -> Result<(), Refused> {
        let Some(Abandonment { missing, ram, next }) = self.streams.abandonment(stream) else {
            return Ok(());
        };
        for range in missing {
            self.name_gap(stream, Some(range), GapReason::Abandoned, now)?;
        }
        if ram {
            // What a memory-only epoch held beyond is known by time alone.
            self.name_gap(stream, None, GapReason::Abandoned, now)?;
        }
        let change = Change::Abandoned { next };
        let head = MarkHead {
            stream: stream.clone(),
            change,
            at: now.wall,
        };
        self.append(&Record::Mark(head), Leaves::Two)?;
        Ok(())
    }
}
