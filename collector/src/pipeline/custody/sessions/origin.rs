//! Core: what a connection said about one origin.

use std::collections::BTreeSet;

use headwater_proto::ids::{Epoch, Lane};
use headwater_proto::message::{Hello, HelloStream};
use headwater_proto::time::Now;

use super::Listed;
use crate::pipeline::dating::Sightings;

/// What a connection said about one origin.
#[derive(Debug, Default)]
pub(in super::super) struct Origin {
    /// Streams of its latest complete set of pages, with the oldest record held.
    pub(in super::super) listed: Listed,
    /// Nonce that the Welcome echoes.
    pub(super) nonce: u64,
    pending: Option<Pending>,
    /// What its Hellos and bundles showed of its clocks.
    pub(super) sightings: Sightings,
    /// Largest down publish that it takes, in bytes.
    pub(super) max_down_bytes: usize,
}

/// Pages of a Hello that is not whole yet.
#[derive(Debug)]
struct Pending {
    nonce: u64,
    pages: u8,
    seen: BTreeSet<u8>,
    streams: Vec<HelloStream>,
}

impl Origin {
    /// The oldest record that the sender holds of a stream; `None` if it did not list it.
    pub(super) fn oldest(&self, lane: Lane, epoch: Epoch) -> Option<u64> {
        self.listed.get(&(lane, epoch)).map(|stream| stream.oldest)
    }

    /// Adds a page; the streams when that was the last.
    pub(super) fn page(&mut self, hello: &Hello, now: Now) -> Option<Vec<HelloStream>> {
        self.sightings
            .note(hello.boot, hello.uptime_ms, hello.wall, now);
        self.max_down_bytes = usize::try_from(hello.max_bundle).unwrap_or(usize::MAX);
        let fresh = match &self.pending {
            Some(pending) => pending.nonce != hello.nonce || pending.pages != hello.pages,
            None => true,
        };
        if fresh {
            self.pending = Some(Pending {
                nonce: hello.nonce,
                pages: hello.pages,
                seen: BTreeSet::new(),
                streams: Vec::new(),
            });
        }
        let pending = self.pending.as_mut()?;
        if pending.seen.insert(hello.page) {
            pending.streams.extend(hello.streams.iter().copied());
        }
        if pending.seen.len() < usize::from(pending.pages) {
            return None;
        }
        self.nonce = hello.nonce;
        self.pending.take().map(|pending| pending.streams)
    }
}
