//! Core: Hellos, and what a Hello proves to be lost.

use headwater_gate::CloseReason;
use headwater_proto::ids::{DeviceId, Stream};
use headwater_proto::message::{GapReason, Hello, HelloStream, PROTOCOL, Reject};
use headwater_proto::sabotage::{self, Bug};
use headwater_spool::Disk;

use super::super::sessions::{Listed, Said, Whole, streams_of};
use super::super::streams::Claims;
use super::super::{Crowd, Leaves, Output, Refused};
use super::Intake;
use crate::pipeline::envelope::{Change, MarkHead, Record};
use crate::pipeline::ledger::SaidAt;
use crate::pipeline::snapshot::{NEW_BYTES, STREAM_BYTES};

impl<D: Disk> Intake<'_, D> {
    /// Takes in a Hello that came on `device`'s topic. One for another origin is relayed: it is never
    /// complete, and what it no longer holds another gateway may.
    pub(super) fn hello(&mut self, device: &DeviceId, hello: &Hello) -> Result<(), Refused> {
        if !(hello.version_min..=hello.version_max).contains(&PROTOCOL) {
            self.refuse_version(hello);
            return Ok(());
        }
        let origin = &hello.origin;
        let relayed = device != origin && !sabotage::is(Bug::ForeignEpochAbandoned);
        let Said::Whole(streams) = self.custody.sessions.hello(self.conn, hello, self.now) else {
            return Ok(());
        };
        let listed = streams.iter().map(|s| ((s.lane, s.epoch), *s)).collect();
        self.custody.sessions.listed(self.conn, origin, listed);
        let said_at = SaidAt {
            boot: hello.boot,
            uptime_ms: hello.uptime_ms,
        };
        let whole = Whole {
            relayed,
            complete: hello.complete,
            said_at,
        };
        self.greet(origin, whole)
    }

    /// Does what a whole Hello asks for, and owes its Welcome; without room, at a later tick.
    pub(in super::super) fn greet_or_close(&mut self, origin: &DeviceId, whole: Whole) {
        if self.greet(origin, whole).is_err() {
            self.custody.sessions.close(self.conn, CloseReason::Journal);
        }
    }

    /// The same; fails only with the running group.
    fn greet(&mut self, origin: &DeviceId, whole: Whole) -> Result<(), Refused> {
        let Some(said) = self.custody.sessions.origin(self.conn, origin) else {
            // Its connection ended meanwhile: that it lists nothing would say that nobody holds anything.
            return Ok(());
        };
        let listed = said.listed.clone();
        if !self.is_told(origin, &listed) {
            self.wait(origin, whole);
            self.custody.look_up();
            return Ok(());
        }
        match self.take_in(origin, &listed, whole) {
            Err(Refused::Full) => self.wait(origin, whole),
            other => return other,
        }
        Ok(())
    }

    fn wait(&mut self, origin: &DeviceId, whole: Whole) {
        let waits = &mut self.custody.sessions.waits;
        waits.insert((self.conn, origin.clone()), whole);
    }

    /// Whether it is known of all streams whether they are new.
    fn is_told(&mut self, origin: &DeviceId, listed: &Listed) -> bool {
        let look_ups = self.custody.streams.look_ups();
        streams_of(origin, listed).all(|stream| look_ups.is_told(&stream))
    }

    fn take_in(&mut self, origin: &DeviceId, listed: &Listed, whole: Whole) -> Result<(), Refused> {
        let Whole {
            relayed,
            complete,
            said_at,
        } = whole;
        for stream in listed.values() {
            self.listed(origin, stream, relayed, said_at)?;
        }
        if complete && !relayed {
            self.custody
                .streams
                .note_absent(self.conn, origin, listed, (said_at, self.now));
        }
        let shared = self.custody.streams.note_present(self.conn, origin, listed);
        if shared > 0 {
            self.custody.counters.identity_shared_total += shared;
            let origin = origin.clone();
            self.custody.sessions.put_out(Output::Shared { origin });
        }
        self.custody.upkeep(self.now).abandon_absent();
        self.custody.sessions.owe_welcome(self.conn, origin);
        Ok(())
    }

    /// One stream of a Hello: opens it if it is new, and names what its sender no longer holds.
    fn listed(
        &mut self,
        origin: &DeviceId,
        listed: &HelloStream,
        relayed: bool,
        said_at: SaidAt,
    ) -> Result<(), Refused> {
        let stream = Stream {
            device: origin.clone(),
            lane: listed.lane,
            epoch: listed.epoch,
        };
        if self.custody.streams.ledger().track(&stream).is_none() {
            if !self.custody.streams.ledger().has_room(&stream)
                || !self.custody.has_state_room(STREAM_BYTES, NEW_BYTES)
            {
                // The sender keeps what it has and asks again.
                self.custody.counters.streams_full_total += 1;
                let (origin, of) = (origin.clone(), Crowd::Streams);
                self.custody
                    .sessions
                    .put_out(Output::Crowded { origin, of });
                self.custody.streams.expiry().hurry(self.now.mono);
                return Ok(());
            }
            if !self.custody.streams.look_ups().is_new(&stream) {
                // The index cannot be read: the epoch is not taken for new.
                return Ok(());
            }
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
                at: self.now.wall,
            };
            self.custody.append(&Record::Mark(head), Leaves::Two)?;
            self.custody.journal.grew(STREAM_BYTES);
            self.custody.streams.look_ups().opened(&stream);
        }
        let when = (said_at, self.now);
        Claims(&mut self.custody.streams).said(&stream, listed.next, relayed, when);
        let track = self.custody.streams.ledger().track(&stream);
        let missing = track.map(|track| track.missing_at_source(listed.oldest));
        for range in missing.unwrap_or_default() {
            self.custody.upkeep(self.now).name_gap(
                &stream,
                Some(range),
                GapReason::MissingAtSource,
            )?;
        }
        Ok(())
    }

    /// Tells a sender that no version it speaks is spoken here. It keeps what it has, and asks again.
    fn refuse_version(&mut self, hello: &Hello) {
        self.custody.counters.versions_refused_total += 1;
        let reject = Reject::of_version(hello);
        self.custody.sessions.send(self.conn, &reject);
    }
}
