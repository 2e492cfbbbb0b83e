//! Core: one publish while it is taken in. What it says is judged by sessions and streams, and appended to
//! the journal.

mod bundles;
mod hello;
mod plain;

use headwater_gate::{CloseReason, ConnId};
use headwater_proto::bundle::Bundle;
use headwater_proto::frame::{Frames, Kind};
use headwater_proto::ids::DeviceId;
use headwater_proto::message::{self, Hello};
use headwater_proto::time::Now;
use headwater_spool::Disk;

use super::types::Event;
use super::{Custody, Refused};

/// A publish of one connection.
pub(super) struct Intake<'a, D: Disk> {
    custody: &'a mut Custody<D>,
    conn: ConnId,
    /// The clocks at its receipt.
    now: Now,
}

impl<'a, D: Disk> Intake<'a, D> {
    pub(super) const fn new(custody: &'a mut Custody<D>, conn: ConnId, now: Now) -> Self {
        Self { custody, conn, now }
    }

    /// Takes it in, or lets it wait for room.
    pub(super) fn take_or_withhold(&mut self, event: Event) {
        if !self.custody.sessions.is_connected(self.conn) {
            return;
        }
        // Order within a connection holds: what came before goes first.
        if self.custody.sessions.is_waiting(self.conn) || !self.take(&event) {
            let is_there = self.custody.sessions.is_connected(self.conn);
            self.custody.counters.withheld_total += u64::from(is_there);
            self.custody.sessions.withhold(event, self.now);
        }
    }

    /// False if the journal has no room for it.
    pub(super) fn take(&mut self, event: &Event) -> bool {
        let (taken, token) = match event {
            Event::Up {
                device,
                payload,
                token,
                ..
            } if Bundle::is_bundle(payload) => (self.bundles(device, payload), *token),
            Event::Up {
                device,
                payload,
                token,
                ..
            } => (self.messages(device, payload), *token),
            Event::Plain(publish) => (self.plain(publish), None),
            Event::Connected { .. }
            | Event::Settled { .. }
            | Event::Disconnected { .. }
            | Event::Committed { .. }
            | Event::Read { .. }
            | Event::Found(_)
            | Event::Kept { .. }
            | Event::Tick => (Ok(()), None),
        };
        match taken {
            Ok(()) => self.custody.sessions.owe_puback(self.conn, token),
            Err(Refused::Full) => return false,
            Err(Refused::Failed) => self.custody.sessions.close(self.conn, CloseReason::Journal),
        }
        true
    }

    fn messages(&mut self, device: &DeviceId, payload: &[u8]) -> Result<(), Refused> {
        for item in Frames::new(payload) {
            let hello = match item {
                Ok((frame, _)) if frame.kind == Kind::Hello => {
                    message::decode::<Hello>(frame.payload).ok()
                }
                Ok((frame, _)) if frame.kind == Kind::Stat => continue,
                Ok(_) | Err(_) => None,
            };
            match hello {
                Some(hello)
                    if self
                        .custody
                        .sessions
                        .speaks_for(self.conn, device, &hello.origin) =>
                {
                    self.hello(device, &hello)?;
                }
                Some(_) | None => self.custody.counters.malformed_total += 1,
            }
        }
        Ok(())
    }
}
