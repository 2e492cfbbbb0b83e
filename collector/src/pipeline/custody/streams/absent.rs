//! Core: epochs that their senders no longer list. After long they are abandoned, and what is missing of
//! them is named.

use std::collections::BTreeMap;

use headwater_gate::ConnId;
use headwater_proto::ids::{DeviceId, Epoch, Lane, SeqRange, Stream};
use headwater_proto::message::HelloStream;
use headwater_proto::time::{Millis, Now};

use super::{Streams, is_due};
use crate::pipeline::ledger::SaidAt;

/// Time between two looks for relayed epochs that nobody lists.
const RELAYED_LOOK_MS: u64 = 60_000;
/// Time after a start before the first such look.
const RELAYED_GRACE_MS: u64 = 3_600_000;

/// Who left a stream out of a Hello, and since when.
#[derive(Debug, Default)]
pub(super) struct Absent {
    streams: BTreeMap<Stream, (ConnId, Millis)>,
    /// When to look for relayed epochs that nobody lists.
    next_relayed: Option<Millis>,
}

impl Absent {
    pub(super) fn clear(&mut self) {
        self.streams.clear();
    }
}

/// What is to be said when an epoch is abandoned.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct Abandonment {
    /// Numbers that will not come.
    pub(in super::super) missing: Vec<SeqRange>,
    /// A memory-only epoch may have held more, which is known by time alone.
    pub(in super::super) ram: bool,
    /// The end of the epoch as far as it can be known.
    pub(in super::super) next: u64,
}

impl Streams {
    /// Known streams that a complete Hello no longer lists begin to be absent; not those that a Hello listed
    /// which was said after this one.
    ///
    /// - `said_at`, `now`: when it was said by the sender's clock, and received.
    pub(in super::super) fn note_absent(
        &mut self,
        conn: ConnId,
        origin: &DeviceId,
        listed: &BTreeMap<(Lane, Epoch), HelloStream>,
        (said_at, now): (SaidAt, Now),
    ) {
        let absent = self.ledger.streams_of(origin).filter(|(stream, track)| {
            stream.lane != Lane::Plain
                && !track.relayed
                && !listed.contains_key(&(stream.lane, stream.epoch))
                && said_at.is_after(track.said_at)
                && track.is_open()
        });
        for (stream, _) in absent {
            let since = self.absent.streams.entry(stream.clone());
            since.or_insert((conn, now.mono));
        }
    }

    /// A stream that comes back after another connection's Hello left it out: two live devices
    /// share an identity. Returns how many such streams there are.
    pub(in super::super) fn note_present(
        &mut self,
        conn: ConnId,
        origin: &DeviceId,
        listed: &BTreeMap<(Lane, Epoch), HelloStream>,
    ) -> u64 {
        let mut shared = 0;
        for (lane, epoch) in listed.keys() {
            let stream = Stream {
                device: origin.clone(),
                lane: *lane,
                epoch: *epoch,
            };
            let left_out = self.absent.streams.remove(&stream);
            shared += u64::from(left_out.is_some_and(|(other, _)| other != conn));
        }
        shared
    }

    /// Streams that were absent long enough.
    pub(in super::super) fn absent_for_long(&self, now: Now) -> Vec<Stream> {
        let streams = self.absent.streams.iter();
        streams
            .filter(|(_, (_, since))| is_due(*since, self.abandon_after_ms, now.mono))
            .map(|(stream, _)| stream.clone())
            .collect()
    }

    /// A stream is abandoned, and absent no more.
    pub(in super::super) fn end_absence(&mut self, stream: &Stream) {
        self.absent.streams.remove(stream);
    }

    /// Relayed streams that no gateway has listed for long: looked for once a minute.
    pub(in super::super) fn unlisted_for_long(&mut self, now: Now) -> Vec<Stream> {
        let after_ms = self.relayed_abandon_after_ms;
        let Some(next) = self.absent.next_relayed else {
            // After a start every gateway gets the time to connect and list what it holds.
            self.absent.next_relayed = Some(now.mono.plus(after_ms.min(RELAYED_GRACE_MS)));
            return Vec::new();
        };
        if now.mono < next {
            return Vec::new();
        }
        self.absent.next_relayed = Some(now.mono.plus(RELAYED_LOOK_MS));
        let after_us = i64::try_from(after_ms.saturating_mul(1_000)).unwrap_or(i64::MAX);
        let streams = self.ledger.streams();
        streams
            .filter(|(_, track)| {
                let unseen_us = now.wall.0.saturating_sub(track.listed_at.0);
                track.relayed && unseen_us >= after_us && track.is_open()
            })
            .map(|(stream, _)| stream.clone())
            .collect()
    }

    /// What has to be said to abandon a stream, or to name what turned out to be missing of one that is; `None` if
    /// it is over already, or not known.
    pub(in super::super) fn abandonment(&self, stream: &Stream) -> Option<Abandonment> {
        let track = self.ledger.track(stream).filter(|track| track.is_open())?;
        let known = track.receiver.next();
        let next = known.max(track.claimed);
        let mut missing: Vec<SeqRange> = track.receiver.unaccounted().collect();
        if next > known {
            missing.push(SeqRange::new(known, next));
        }
        Some(Abandonment {
            missing,
            ram: track.ram && !track.abandoned,
            next,
        })
    }
}
