//! Lines in the log that others can cause: of each kind at most one in a while, with the number of those
//! left out, so that a flood of faults is no flood of lines.

use std::sync::{Mutex, MutexGuard, PoisonError};

use headwater_proto::time::Millis;

/// Milliseconds between two lines of one kind.
pub const NOTICE_MS: u64 = 10_000;

/// When each kind of line was written last.
#[derive(Debug)]
pub struct Notices {
    kinds: Mutex<Box<[Kind]>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Kind {
    /// The next line may be written then; at first, at once.
    due: Millis,
    unsaid: u64,
}

impl Notices {
    /// For `kinds` kinds of lines.
    #[must_use]
    pub fn new(kinds: usize) -> Self {
        Self {
            kinds: Mutex::new(vec![Kind::default(); kinds].into()),
        }
    }

    /// Whether a line of this kind may be written now: with how many were left out since the last one. If
    /// not, or if there is no such kind, it is one of those left out.
    pub fn may_say(&self, kind: usize, now: Millis) -> Option<u64> {
        let mut kinds = self.kinds();
        let kind = kinds.get_mut(kind)?;
        if now < kind.due {
            kind.unsaid += 1;
            return None;
        }
        kind.due = now.plus(NOTICE_MS);
        Some(std::mem::take(&mut kind.unsaid))
    }

    fn kinds(&self) -> MutexGuard<'_, Box<[Kind]>> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_said_at_once_and_a_flood_of_one_kind_once_in_a_while() {
        let notices = Notices::new(2);
        assert_eq!(notices.may_say(0, Millis(5)), Some(0));
        for ms in 5..5 + NOTICE_MS {
            assert_eq!(notices.may_say(0, Millis(ms)), None);
        }
        assert_eq!(notices.may_say(1, Millis(6)), Some(0));
        let later = Millis(5 + NOTICE_MS);
        assert_eq!(notices.may_say(0, later), Some(NOTICE_MS));
        assert_eq!(notices.may_say(0, later.plus(NOTICE_MS)), Some(0));
        assert_eq!(notices.may_say(2, later), None);
    }
}
