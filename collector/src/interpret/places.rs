//! Core: how far each sink was, as a segment's records say.

use crate::pipeline::envelope::{Record, SinkCursor};

/// The cursors that the first record of a segment tells, and those that came since.
#[derive(Debug, Default)]
pub(super) struct Places(Option<Vec<SinkCursor>>);

impl Places {
    /// A segment begins: it tells all of them again.
    pub(super) fn clear(&mut self) {
        self.0 = None;
    }

    pub(super) fn learn(&mut self, record: &Record<'_>) {
        if let Record::Begin(head) = record {
            self.0 = Some(head.sinks.clone());
        }
        // Where the first record is damaged nobody knows which sinks there are.
        if let (Record::Cursor(head), Some(places)) = (record, &mut self.0) {
            match places.iter_mut().find(|place| place.name == head.sink) {
                Some(place) => place.position = place.position.max(head.position),
                None => places.push(SinkCursor {
                    name: head.sink.to_owned(),
                    position: head.position,
                }),
            }
        }
    }

    pub(super) fn all(&self) -> Option<&[SinkCursor]> {
        self.0.as_deref()
    }
}
