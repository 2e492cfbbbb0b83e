//! Core: what senders say they have beyond what came. It is noted in the journal: should a sender never come again,
//! a restart must know what to name.

use std::collections::BTreeMap;

use headwater_proto::ids::Stream;
use headwater_proto::time::{Millis, Now};

use super::Streams;
use crate::pipeline::ledger::{SaidAt, Track};

/// Time between two records that note what the sender of one stream claims.
const CLAIM_EVERY_MS: u64 = 60_000;

/// Streams whose senders claim more than a restart would know of, and when that is noted.
#[derive(Debug, Default)]
pub(super) struct Claimed(BTreeMap<Stream, Millis>);

/// Streams, where their senders say what they have.
pub(in super::super) struct Claims<'a>(pub(in super::super) &'a mut Streams);

impl Claims<'_> {
    /// Takes in what a Hello says of a stream.
    ///
    /// - `said_at`, `now`: when it was said by the sender's clock, and received.
    pub(in super::super) fn said(
        &mut self,
        stream: &Stream,
        next: u64,
        relayed: bool,
        (said_at, now): (SaidAt, Now),
    ) {
        let Streams { ledger, claims, .. } = &mut *self.0;
        ledger.claim(stream, next, relayed, (said_at, now.wall));
        if ledger.track(stream).is_some_and(Track::claims_more) {
            claims.0.entry(stream.clone()).or_insert(now.mono);
        }
    }

    /// Claims that are to be noted now: the streams, and the number after the last one claimed of each.
    pub(in super::super) fn due(&mut self, now: Millis) -> Vec<(Stream, u64)> {
        let Streams { ledger, claims, .. } = &mut *self.0;
        let claims_more = |stream: &Stream| ledger.track(stream).is_some_and(Track::claims_more);
        claims
            .0
            .retain(|stream, due| *due > now || claims_more(stream));
        let due = claims.0.iter().filter(|(_, due)| **due <= now);
        let claimed = |stream: &Stream| ledger.track(stream).map(|track| track.claimed);
        due.filter_map(|(stream, _)| Some((stream.clone(), claimed(stream)?)))
            .collect()
    }

    /// The claim of a stream was noted: its next one waits for a while.
    pub(in super::super) fn noted(&mut self, stream: &Stream, now: Millis) {
        if let Some(due) = self.0.claims.0.get_mut(stream) {
            *due = now.plus(CLAIM_EVERY_MS);
        }
    }
}
