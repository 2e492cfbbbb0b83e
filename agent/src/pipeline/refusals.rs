//! Core: how many of the parts that a source could not read, or that were refused at the door, go to
//! the lake's quarantine. A source that gives nothing else must not fill the disk: what passes its
//! bounds is counted, and a gap names it once a minute.

use headwater_proto::time::{Millis, UnixMicros};

use super::record::Cursor;

/// Most parts of one source that are kept in a minute: enough to see what is wrong.
pub const MAX_PARTS_PER_MINUTE: u32 = 600;
/// Most bytes of one source's parts that are kept in a minute; place and cause counted.
pub const MAX_BYTES_PER_MINUTE: usize = 256 * 1024;
const MINUTE_MS: u64 = 60_000;

/// Parts that were counted alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beyond {
    /// How many.
    pub parts: u64,
    /// Wall time of the first and the last, if a clock knew it.
    pub span: Option<(UnixMicros, UnixMicros)>,
    /// Where the source resumes after the last of them that said so.
    pub cursor: Option<Cursor>,
}

/// What one source had refused.
#[derive(Debug, Clone, Default)]
pub struct Refusals {
    /// Parts since the engine was opened.
    total: u64,
    minute: Option<Minute>,
}

#[derive(Debug, Clone, Copy)]
struct Minute {
    began: Millis,
    parts: u32,
    bytes: usize,
    beyond: Option<Beyond>,
}

impl Refusals {
    /// Parts refused so far.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// Whether a part of so many bytes is kept; otherwise it is counted.
    ///
    /// - `wall`: when it was refused, if a clock knows.
    /// - `cursor`: where the source resumes after it.
    ///
    /// Call [`Refusals::due`] first: the minute may be over.
    pub fn keeps(
        &mut self,
        bytes: usize,
        wall: Option<UnixMicros>,
        cursor: Option<Cursor>,
        now: Millis,
    ) -> bool {
        self.total += 1;
        let minute = self.minute.get_or_insert(Minute {
            began: now,
            parts: 0,
            bytes: 0,
            beyond: None,
        });
        let fits =
            minute.parts < MAX_PARTS_PER_MINUTE && minute.bytes + bytes <= MAX_BYTES_PER_MINUTE;
        if fits {
            minute.parts += 1;
            minute.bytes += bytes;
        } else if let Some(beyond) = &mut minute.beyond {
            beyond.parts += 1;
            beyond.cursor = cursor.or(beyond.cursor);
            let both = beyond.span.zip(wall);
            beyond.span = both.map(|((first, last), time)| (first.min(time), last.max(time)));
        } else {
            minute.beyond = Some(Beyond {
                parts: 1,
                span: wall.zip(wall),
                cursor,
            });
        }
        fits
    }

    /// What is to be named of a minute that is over.
    pub fn due(&mut self, now: Millis) -> Option<Beyond> {
        self.minute
            .take_if(|minute| minute.began.plus(MINUTE_MS) <= now)?
            .beyond
    }

    /// What is to be named of a minute that is not over, at a stop.
    pub fn rest(&mut self) -> Option<Beyond> {
        self.minute.as_mut()?.beyond.take()
    }

    /// When something is to be named.
    #[must_use]
    pub fn next_due(&self) -> Option<Millis> {
        let minute = self.minute.filter(|minute| minute.beyond.is_some())?;
        Some(minute.began.plus(MINUTE_MS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_kept_up_to_their_number_and_the_rest_is_named_when_the_minute_is_over() {
        let mut refusals = Refusals::default();
        for at in 0..u64::from(MAX_PARTS_PER_MINUTE) {
            assert!(refusals.keeps(1, None, None, Millis(at)));
        }
        assert_eq!(refusals.next_due(), None);
        // The last that says where the source resumes; a part beside a row says nothing.
        let mut cursor = Some(Cursor::default());
        for at in [700, 800] {
            let wall = Some(UnixMicros(at));
            assert!(!refusals.keeps(1, wall, cursor.take(), Millis(700)));
        }
        assert_eq!(refusals.next_due(), Some(Millis(MINUTE_MS)));
        assert_eq!(refusals.due(Millis(MINUTE_MS - 1)), None);
        let expected = Beyond {
            parts: 2,
            span: Some((UnixMicros(700), UnixMicros(800))),
            cursor: Some(Cursor::default()),
        };
        assert_eq!(refusals.due(Millis(MINUTE_MS)), Some(expected));
        assert_eq!(refusals.due(Millis(MINUTE_MS)), None);
        assert!(
            refusals.keeps(1, None, None, Millis(MINUTE_MS)),
            "the next minute"
        );
        assert_eq!(refusals.total(), u64::from(MAX_PARTS_PER_MINUTE) + 3);
    }

    #[test]
    fn parts_are_kept_up_to_their_bytes_and_a_stop_names_the_rest_at_once() {
        let mut refusals = Refusals::default();
        assert!(refusals.keeps(MAX_BYTES_PER_MINUTE - 1, None, None, Millis(0)));
        assert!(!refusals.keeps(2, Some(UnixMicros(1)), None, Millis(0)));
        assert!(refusals.keeps(1, None, None, Millis(0)));
        assert!(
            !refusals.keeps(1, None, None, Millis(0)),
            "one without a time"
        );
        let expected = Beyond {
            parts: 2,
            span: None,
            cursor: None,
        };
        assert_eq!(refusals.rest(), Some(expected));
        assert_eq!(refusals.rest(), None);
    }
}
