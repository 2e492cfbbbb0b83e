//! Core: how far each sink was, as a segment's records say.

use crate::pipeline::envelope::{Record, SINK_OF, SinkCursor};

/// The cursors that the first record of a segment tells, and those that came since.
#[derive(Debug, Default)]
pub(super) struct Places {
    sinks: Option<Vec<SinkCursor>>,
    /// The position after the last record that was read.
    next: Option<u64>,
    /// A record of the segment cannot be read. It may have named what a sink of an earlier journal lacks, and the
    /// cursor behind it says that all of that is named.
    is_torn: bool,
}

impl Places {
    /// A segment begins: it tells all of them again.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The next record that can be read stands at `position`.
    pub(super) fn come_to(&mut self, position: u64) {
        self.is_torn |= self.next.is_some_and(|next| next < position);
        self.next = self.next.max(Some(position.saturating_add(1)));
    }

    pub(super) fn learn(&mut self, record: &Record<'_>) {
        if let Record::Begin(head) = record {
            self.sinks = Some(head.sinks.clone());
        }
        let is_earlier = |name: &str| name.contains(SINK_OF);
        // Where the first record is damaged nobody knows which sinks there are.
        if let (Record::Cursor(head), Some(places)) = (record, &mut self.sinks)
            && !(self.is_torn && is_earlier(head.sink))
        {
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
        self.sinks.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::envelope::CursorHead;

    fn cursor(places: &mut Places, at: u64, sink: &str, position: u64) {
        places.come_to(at);
        places.learn(&Record::Cursor(CursorHead { sink, position }));
    }

    fn all(places: &Places) -> Vec<(&str, u64)> {
        let all = places.all().unwrap().iter();
        all.map(|place| (&*place.name, place.position)).collect()
    }

    #[test]
    fn behind_a_record_that_cannot_be_read_no_place_of_an_earlier_journal_counts() {
        let mut places = Places::default();
        let begin = |places: &mut Places, at| {
            places.come_to(at);
            places.sinks = Some(Vec::new());
        };
        begin(&mut places, 0);
        cursor(&mut places, 1, "7/copy", 5);
        // The record at 2 has rotted.
        cursor(&mut places, 3, "7/stream", 5);
        cursor(&mut places, 4, "stream", 3);
        assert_eq!(all(&places), [("7/copy", 5), ("stream", 3)]);
        places.clear();
        begin(&mut places, 5);
        cursor(&mut places, 6, "7/stream", 5);
        assert_eq!(all(&places), [("7/stream", 5)]);
    }
}
