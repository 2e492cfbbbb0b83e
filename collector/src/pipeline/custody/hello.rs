//! Core: Hello and Welcome, and what a Hello proves to be lost.

use std::collections::BTreeMap;

use headwater_gate::ConnId;
use headwater_proto::ids::{DeviceId, Epoch, Lane, SeqRange, Stream};
use headwater_proto::message::{GapReason, Hello, HelloStream, PROTOCOL, Reject, RejectReason};
use headwater_proto::sabotage::{self, Bug};
use headwater_proto::time::{Millis, Now};
use headwater_spool::Disk;

use super::sessions::Said;
use super::{Custody, Leaves, Refused};
use crate::pipeline::envelope::{Change, GapHead, MarkHead, Record};
use crate::pipeline::snapshot::{NEW_BYTES, STREAM_BYTES};

/// Time between two looks for relayed epochs that nobody lists.
const RELAYED_LOOK_MS: u64 = 60_000;
/// Time after a start before the first such look.
const RELAYED_GRACE_MS: u64 = 3_600_000;

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
            self.note_absent(conn, origin, &listed, now);
        }
        self.note_present(conn, origin, &listed);
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
        if self.ledger.track(&stream).is_none() {
            if !self.ledger.has_room(&stream) || !self.has_state_room(STREAM_BYTES, NEW_BYTES) {
                // The sender keeps what it has and asks again.
                self.counters.streams_full_total += 1;
                return Ok(());
            }
            if self.recall(&stream).is_err() {
                // If the index cannot be read, the epoch is not taken for new.
                return Ok(());
            }
        }
        if self.ledger.track(&stream).is_none() {
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
        self.ledger.claim(&stream, listed.next, relayed, now.wall);
        if self
            .ledger
            .track(&stream)
            .is_some_and(|track| track.relayed)
        {
            return Ok(());
        }
        let missing: Vec<SeqRange> = self
            .ledger
            .track(&stream)
            .map(|track| track.receiver.missing_below(listed.oldest).collect())
            .unwrap_or_default();
        for range in missing {
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

    /// Known streams that a complete Hello no longer lists begin to be absent.
    fn note_absent(
        &mut self,
        conn: ConnId,
        origin: &DeviceId,
        listed: &BTreeMap<(Lane, Epoch), HelloStream>,
        now: Now,
    ) {
        let absent: Vec<Stream> = self
            .ledger
            .streams_of(origin)
            .filter(|(stream, track)| {
                stream.lane != Lane::Plain
                    && !track.relayed
                    && !listed.contains_key(&(stream.lane, stream.epoch))
                    && !track.abandoned
                    && !track.receiver.is_closed()
            })
            .map(|(stream, _)| stream.clone())
            .collect();
        for stream in absent {
            self.absent.entry(stream).or_insert((conn, now.mono));
        }
    }

    /// A stream that comes back after another connection's Hello left it out: two live devices
    /// share an identity.
    fn note_present(
        &mut self,
        conn: ConnId,
        origin: &DeviceId,
        listed: &BTreeMap<(Lane, Epoch), HelloStream>,
    ) {
        for (lane, epoch) in listed.keys() {
            let stream = Stream {
                device: origin.clone(),
                lane: *lane,
                epoch: *epoch,
            };
            if self
                .absent
                .remove(&stream)
                .is_some_and(|(other, _)| other != conn)
            {
                self.counters.identity_shared_total += 1;
            }
        }
    }

    /// Closes epochs that were absent long enough, and names what is missing of them.
    pub(super) fn abandon_absent(&mut self, now: Now) {
        if self.journal.apart_since().is_some() {
            // The lake may have what is missing here.
            return;
        }
        let after = self.settings.abandon_after_ms;
        let due: Vec<Stream> = self
            .absent
            .iter()
            .filter(|(_, (_, since))| due(*since, after, now.mono))
            .map(|(stream, _)| stream.clone())
            .collect();
        for stream in due {
            if self.sessions.is_listed(&stream) {
                continue;
            }
            match self.abandon(&stream, now) {
                Ok(()) => {
                    self.absent.remove(&stream);
                }
                // Named at a later tick, when there is room.
                Err(Refused::Full | Refused::Failed) => return,
            }
        }
        self.abandon_relayed(now);
    }

    /// Closes relayed epochs that no gateway has listed for long: looked for once a minute.
    fn abandon_relayed(&mut self, now: Now) {
        let after_ms = self.settings.relayed_abandon_after_ms;
        let Some(next) = self.next_relayed else {
            // After a start every gateway gets the time to connect and list what it holds.
            self.next_relayed = Some(now.mono.plus(after_ms.min(RELAYED_GRACE_MS)));
            return;
        };
        if now.mono < next {
            return;
        }
        self.next_relayed = Some(now.mono.plus(RELAYED_LOOK_MS));
        let after_us = i64::try_from(after_ms.saturating_mul(1_000)).unwrap_or(i64::MAX);
        let due: Vec<Stream> = self
            .ledger
            .streams()
            .filter(|(_, track)| {
                let unseen_us = now.wall.0.saturating_sub(track.listed_at.0);
                track.relayed
                    && unseen_us >= after_us
                    && !track.abandoned
                    && !track.receiver.is_closed()
            })
            .map(|(stream, _)| stream.clone())
            .collect();
        for stream in due {
            if !self.sessions.is_listed(&stream) && self.abandon(&stream, now).is_err() {
                return;
            }
        }
    }

    pub(super) fn abandon(&mut self, stream: &Stream, now: Now) -> Result<(), Refused> {
        let Some(track) = self.ledger.track(stream) else {
            return Ok(());
        };
        if track.abandoned || track.receiver.is_closed() {
            return Ok(());
        }
        let known = track.receiver.next();
        let next = known.max(track.claimed);
        let ram = track.ram;
        let mut missing: Vec<SeqRange> = track.receiver.unaccounted().collect();
        if next > known {
            missing.push(SeqRange::new(known, next));
        }
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

const fn due(since: Millis, after: u64, now: Millis) -> bool {
    now.since(since) >= after
}
