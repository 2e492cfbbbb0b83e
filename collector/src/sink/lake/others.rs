//! Core: how far the other sinks of the journal are, for what each flush says of them.
//!
//! It follows from the records that the lake was handed: a place is never ahead of what the sink answered
//! for, or what records below the flush's end name as lacking in it. When the journal is lost, what the lake
//! has beyond is named for that sink.

use std::collections::BTreeMap;

use headwater_proto::ids::JournalId;

use super::NAME;
use crate::pipeline::envelope::{GONE, SINK_OF, SinkCursor};

/// What stands for a sink of an earlier journal among the places of this one's.
pub(super) fn place_of(journal: JournalId, sink: &str) -> String {
    format!("{journal}{SINK_OF}{sink}")
}

/// The other sinks. See the module's page.
#[derive(Debug, Default)]
pub(super) struct Others {
    /// What the lake was told of each, and what the next flush says.
    places: BTreeMap<String, u64>,
    /// Sinks of which no record owes anything any more: they have no place of their own.
    gone: Vec<String>,
    seen: Vec<SinkCursor>,
}

impl Others {
    /// - `known`: what the lake says of the sinks of this journal.
    pub(super) fn new(known: BTreeMap<String, u64>) -> Self {
        Self {
            places: known,
            ..Self::default()
        }
    }

    /// The journal has these sinks. The record that says so may have rotted: of one that no flush has spoken of
    /// the next ones have to, or nobody would name what it lacks.
    ///
    /// - `cursor`: the first position that the lake does not have.
    pub(super) fn know(&mut self, sinks: &[SinkCursor], cursor: u64) {
        for sink in sinks.iter().filter(|sink| sink.name != NAME) {
            let places = self.places.entry(sink.name.clone());
            places.or_insert_with(|| sink.position.min(cursor));
        }
    }

    /// A record was taken, by which sinks were so far.
    pub(super) fn see(&mut self, sinks: &[SinkCursor]) {
        if self.seen == sinks {
            return;
        }
        self.seen = sinks.to_vec();
        let is_there = |name: &String| {
            let mut all = sinks.iter().filter(|sink| sink.position != GONE);
            all.any(|sink| sink.name == *name)
        };
        let own = self.places.keys().filter(|name| !name.contains(SINK_OF));
        self.gone = own.filter(|name| !is_there(name)).cloned().collect();
        for sink in sinks.iter().filter(|sink| sink.position != GONE) {
            if sink.name != NAME {
                let place = self.places.entry(sink.name.clone()).or_default();
                *place = sink.position.max(*place);
            }
        }
    }

    /// What a flush says that ends before `end`.
    pub(super) fn places(&mut self, end: u64) -> Vec<(String, u64)> {
        for gone in &self.gone {
            // Whatever it lacks below is named, and above it is owed nothing.
            if let Some(place) = self.places.get_mut(gone) {
                *place = end.max(*place);
            }
        }
        let places = self.places.iter();
        places.map(|(name, at)| (name.clone(), *at)).collect()
    }
}
