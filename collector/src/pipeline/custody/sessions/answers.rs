//! Core: the answers that are owed once a group is durable: PUBACKs, Welcomes, Acks.

use std::collections::BTreeMap;

use headwater_gate::ConnId;
use headwater_proto::delivery::answers::{Page, pages};
use headwater_proto::ids::{DeviceId, JournalId, Stream};
use headwater_proto::message::{Ack, MAX_MESSAGE_BYTES, MAX_PAGES, Mark, PROTOCOL, Welcome};
use headwater_proto::portion::{Held, MAX_PLACES, Place};
use headwater_proto::time::UnixMicros;

use super::{Output, Sessions, Settings};

/// What every answer says.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Terms {
    /// Whose marks they are.
    pub(super) journal: JournalId,
    /// Largest bundle taken, in bytes.
    pub(super) max_bundle: u32,
    /// The present time, 0 while nobody knows it.
    pub(super) time: UnixMicros,
}

impl Terms {
    pub(in super::super) const fn new(
        journal: JournalId,
        settings: &Settings,
        time: UnixMicros,
    ) -> Self {
        Self {
            journal,
            max_bundle: settings.max_bundle_bytes,
            time,
        }
    }
}

impl Sessions {
    /// The group is durable: all that is owed becomes outputs. Where credit returns, everybody is told.
    ///
    /// - `credit`: bytes that each connection may have in flight from now on.
    /// - `mark`: what is held of a stream whose sender holds records from a number on.
    /// - `places`: how far the contents of a device's sources are held.
    pub(in super::super) fn settle(
        &mut self,
        credit: u64,
        terms: Terms,
        mark: &dyn Fn(&Stream, u64) -> Option<Mark>,
        places: &dyn Fn(&DeviceId) -> Vec<Place>,
    ) {
        let before = std::mem::replace(&mut self.credit, credit);
        for (conn, token) in std::mem::take(&mut self.group.pubacks) {
            self.outputs.push_back(Output::PubAck { conn, token });
        }
        for (conn, origin) in std::mem::take(&mut self.group.welcomes) {
            tell_places(self, conn, &origin, &places(&origin));
            self.welcome(conn, &origin, terms, mark);
        }
        let mut acks: BTreeMap<(ConnId, DeviceId), Vec<Mark>> = BTreeMap::new();
        for (conn, device, lane, epoch) in std::mem::take(&mut self.group.acks) {
            let Some(oldest) = self.oldest(conn, &device, lane, epoch) else {
                continue;
            };
            let stream = Stream {
                device,
                lane,
                epoch,
            };
            let Some(mark) = mark(&stream, oldest) else {
                continue;
            };
            acks.entry((conn, stream.device)).or_default().push(mark);
        }
        if before == 0 && credit > 0 {
            // Who was stopped may go on before its next probe.
            for (conn, state) in &self.conns {
                for origin in state.origins.keys() {
                    acks.entry((*conn, origin.clone())).or_default();
                }
            }
        }
        for ((conn, origin), marks) in acks {
            self.ack(conn, &origin, &marks, terms);
        }
    }

    /// Answers a Hello whose consequences are durable.
    fn welcome(
        &mut self,
        conn: ConnId,
        origin: &DeviceId,
        terms: Terms,
        mark: &dyn Fn(&Stream, u64) -> Option<Mark>,
    ) {
        let Some(said) = self.origin(conn, origin) else {
            return;
        };
        let nonce = said.nonce;
        let marks: Vec<Mark> = said
            .listed
            .values()
            .filter_map(|listed| {
                let stream = Stream {
                    device: origin.clone(),
                    lane: listed.lane,
                    epoch: listed.epoch,
                };
                mark(&stream, listed.oldest)
            })
            .collect();
        let mut pages = self.pages(conn, origin, marks);
        // What passes the pages of a Welcome follows as Acks.
        let rest = pages.split_off(pages.len().min(usize::from(MAX_PAGES)));
        let count = u8::try_from(pages.len()).unwrap_or(u8::MAX);
        let credit = u32::try_from(self.credit).unwrap_or(u32::MAX);
        for (page, marks) in (0u8..).zip(pages) {
            let welcome = Welcome {
                version: PROTOCOL,
                origin: origin.clone(),
                nonce,
                page,
                pages: count,
                journal: terms.journal,
                credit,
                max_bundle: terms.max_bundle,
                time: terms.time,
                marks,
            };
            self.send(conn, &welcome);
        }
        for marks in rest {
            self.ack(conn, origin, &marks, terms);
        }
    }

    /// Sends marks in as many Acks as they take, at least one.
    pub(in super::super) fn ack(
        &mut self,
        conn: ConnId,
        origin: &DeviceId,
        marks: &[Mark],
        terms: Terms,
    ) {
        let credit = u32::try_from(self.credit).unwrap_or(u32::MAX);
        for marks in self.pages(conn, origin, marks.to_vec()) {
            let ack = Ack {
                origin: origin.clone(),
                journal: terms.journal,
                credit,
                time: terms.time,
                marks,
            };
            self.send(conn, &ack);
        }
    }

    /// Marks as the pages of an answer, at least one, none larger than its receiver takes.
    fn pages(&self, conn: ConnId, origin: &DeviceId, marks: Vec<Mark>) -> Vec<Page> {
        let said = self.origin(conn, origin);
        let most = said.map_or(MAX_MESSAGE_BYTES, |said| said.max_down_bytes);
        pages(marks, origin, most)
    }
}

/// Says how far the contents of a device's sources are held.
fn tell_places(sessions: &mut Sessions, conn: ConnId, origin: &DeviceId, places: &[Place]) {
    for some in places.chunks(MAX_PLACES) {
        let held = Held {
            origin: origin.clone(),
            places: some.iter().cloned().collect(),
        };
        sessions.send(conn, &held);
    }
}
