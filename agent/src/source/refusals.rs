//! Refused parts of a source: every one is counted and handed over for quarantine, the last is shown in
//! the status, and the log tells of them at most once a minute.

use std::fmt::{Display, Write as _};
use std::sync::{Mutex, OnceLock, PoisonError};

use headwater_proto::time::Millis;

use super::{Feed, Port, RefusedPart, WeakPort};
use crate::clock::Clock;
use crate::pipeline::engine::Lost;

/// Milliseconds between two lines in the log about one source: a flood of bad input must not become
/// a flood of logs.
pub const NOTICE_MS: u64 = 60_000;
/// Characters of a refused part that are shown; the rest is left out.
pub const SHOWN_CHARS: usize = 80;

/// The refused parts of one source. Every refused part passes [`Refusals::refuse`], wherever the source
/// or the engine finds it.
#[derive(Debug)]
pub struct Refusals {
    source: String,
    clock: Clock,
    notes: Mutex<Notes>,
    /// The way to the engine.
    port: OnceLock<WeakPort>,
}

impl Refusals {
    /// None yet.
    #[must_use]
    pub fn new(source: &str, clock: Clock) -> Self {
        Self {
            source: source.to_owned(),
            clock,
            notes: Mutex::default(),
            port: OnceLock::new(),
        }
    }

    /// Refused parts go this way from now on, until the source ends.
    pub fn attach(&self, port: &Port) {
        // A source has one way to the engine.
        let _ = self.port.set(port.weak());
    }

    /// Takes a refused part, and hands it over for quarantine. It waits for nobody: what finds no room is
    /// told to the engine as lost when there is some.
    ///
    /// - `place`: where it stood, in words.
    /// - `cause`: why it is refused.
    /// - `bytes`: the part as it came, or names that tell which it was.
    pub fn refuse(&self, place: &dyn Display, cause: &dyn Display, bytes: &[u8]) {
        self.note(place, cause, bytes);
        let Some(port) = self.port() else {
            return;
        };
        let now = self.clock.now().wall;
        let mut notes = self.notes();
        notes.hand_over(&port);
        let part = RefusedPart::new(place, cause, bytes);
        if notes.unsent.is_some() || !port.try_give(Feed::Refused(part, None)) {
            notes.lose(Lost::one(1, now));
        }
    }

    /// Takes note of a refused part that goes its own way to the engine, or came from there. Arguments
    /// are those of [`Refusals::refuse`].
    pub fn note(&self, place: &dyn Display, cause: &dyn Display, bytes: &[u8]) {
        let text = format!("{place}: {cause}: {}", beginning(bytes));
        let notice = self.notes().refuse(text, self.clock.now().mono);
        self.tell(notice);
    }

    /// Tells of those that came since the last notice, if a minute has passed since then; and the engine
    /// of those that found no room.
    pub fn tell_rest(&self) {
        let notice = {
            let mut notes = self.notes();
            if let Some(port) = self.port() {
                notes.hand_over(&port);
            }
            notes.rest(self.clock.now().mono)
        };
        self.tell(notice);
    }

    /// Takes note of readings that found no room on their way to the engine; it is told of them as of
    /// refused parts that found none.
    pub fn lose(&self, lost: Lost) {
        self.notes().lose(lost);
    }

    /// Whether the engine is to be told of some that found no room.
    #[must_use]
    pub fn owes(&self) -> bool {
        self.notes().unsent.is_some()
    }

    /// Tells the engine of those that found no room, if there is some now.
    pub fn hand_over(&self, port: &Port) {
        self.notes().hand_over(port);
    }

    /// Those that found no room, for who tells the engine when the source has ended.
    #[must_use]
    pub fn take_owed(&self) -> Option<Lost> {
        self.notes().unsent.take()
    }

    /// How many there were, and the last of them in words.
    #[must_use]
    pub fn count(&self) -> (u64, Option<String>) {
        let notes = self.notes();
        (notes.count, notes.last.clone())
    }

    fn port(&self) -> Option<Port> {
        self.port.get()?.upgrade()
    }

    fn notes(&self) -> std::sync::MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, notice: Option<Notice>) {
        let source = &*self.source;
        match notice {
            None => {}
            Some(Notice { fresh: 1, last }) => tracing::warn!(source, "refused {last}"),
            Some(Notice { fresh, last }) => {
                tracing::warn!(source, "refused {fresh} parts, the last {last}");
            }
        }
    }
}

/// When to tell of refused parts, without a clock of its own.
#[derive(Debug, Default)]
struct Notes {
    count: u64,
    /// How many of them the log knows.
    told: u64,
    last: Option<String>,
    told_at: Option<Millis>,
    /// Those that found no room on their way to the engine, and readings that found none.
    unsent: Option<Lost>,
}

#[derive(Debug, PartialEq, Eq)]
struct Notice {
    /// How many came since the last notice.
    fresh: u64,
    /// The last of them.
    last: String,
}

impl Notes {
    fn refuse(&mut self, text: String, now: Millis) -> Option<Notice> {
        self.count += 1;
        self.last = Some(text);
        self.rest(now)
    }

    fn lose(&mut self, more: Lost) {
        self.unsent = Some(self.unsent.map_or(more, |lost| lost.and(more)));
    }

    fn hand_over(&mut self, port: &Port) {
        if let Some(lost) = self.unsent
            && port.try_give(Feed::Lost(lost, None))
        {
            self.unsent = None;
        }
    }

    fn rest(&mut self, now: Millis) -> Option<Notice> {
        let fresh = self.count - self.told;
        let is_quiet = self.told_at.is_some_and(|at| now.since(at) < NOTICE_MS);
        if fresh == 0 || is_quiet {
            return None;
        }
        self.told = self.count;
        self.told_at = Some(now);
        self.last.clone().map(|last| Notice { fresh, last })
    }
}

/// The beginning of a part in quotes, with every control character and every byte that is not UTF-8
/// escaped.
#[must_use]
pub fn beginning(bytes: &[u8]) -> String {
    let mut shown = String::from("\"");
    let mut chars = 0;
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if chars == SHOWN_CHARS {
                return shown + "\"…";
            }
            chars += 1;
            if c.is_control() || c == '"' || c == '\\' {
                shown.extend(c.escape_default());
            } else {
                shown.push(c);
            }
        }
        for byte in chunk.invalid() {
            if chars == SHOWN_CHARS {
                return shown + "\"…";
            }
            chars += 1;
            // Writing to a String cannot fail.
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }
    shown + "\""
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::QUEUE_READINGS;
    use std::sync::Arc;

    fn notice(fresh: u64, last: &str) -> Option<Notice> {
        Some(Notice {
            fresh,
            last: last.to_owned(),
        })
    }

    #[test]
    fn the_first_refusal_is_told_and_then_one_notice_a_minute() {
        let mut notes = Notes::default();
        assert_eq!(notes.refuse("a".into(), Millis(5)), notice(1, "a"));
        assert_eq!(notes.refuse("b".into(), Millis(6)), None);
        assert_eq!(notes.refuse("c".into(), Millis(5 + NOTICE_MS - 1)), None);
        assert_eq!(
            notes.refuse("d".into(), Millis(5 + NOTICE_MS)),
            notice(3, "d")
        );
        assert_eq!(notes.refuse("e".into(), Millis(6 + NOTICE_MS)), None);
        // Those that came last are told, too.
        assert_eq!(notes.rest(Millis(5 + 2 * NOTICE_MS)), notice(1, "e"));
        assert_eq!(notes.rest(Millis(5 + 9 * NOTICE_MS)), None);
        assert_eq!(notes.count, 5);
    }

    #[test]
    fn a_source_shows_how_many_there_were_and_the_last() {
        let refusals = Refusals::new("x", Clock::start());
        assert_eq!(refusals.count(), (0, None));
        refusals.refuse(&"line 1", &"not a number", b"a");
        refusals.refuse(&"line 2", &"not a number", b"m v=\"\x1b[31m\xff\n");
        let last = r#"line 2: not a number: "m v=\"\u{1b}[31m\xff\n""#;
        assert_eq!(refusals.count(), (2, Some(last.to_owned())));
    }

    #[test]
    fn refused_parts_are_handed_over_and_those_that_find_no_room_are_told_as_lost() {
        let refusals = Refusals::new("x", Clock::start());
        let (port, mut inlet) = Port::new("x", Arc::default());
        refusals.attach(&port);
        let given = QUEUE_READINGS as u64;
        for number in 0..given + 5 {
            refusals.refuse(&format_args!("line {number}"), &"not a number", b"a");
        }
        for number in 0..given {
            let Ok(Feed::Refused(part, None)) = inlet.queue.try_recv() else {
                panic!("part {number} is missing");
            };
            assert_eq!(part.borrowed().place, format!("line {number}"));
        }
        refusals.tell_rest();
        let Ok(Feed::Lost(lost, None)) = inlet.queue.try_recv() else {
            panic!("nobody told of those that were lost");
        };
        assert_eq!(lost.samples, 5);
        assert_eq!(refusals.count().0, given + 5);
    }

    #[test]
    fn only_the_beginning_of_a_part_is_shown() {
        let most = "ü".repeat(SHOWN_CHARS);
        assert_eq!(beginning(most.as_bytes()), format!("\"{most}\""));
        assert_eq!(
            beginning(format!("{most}x").as_bytes()),
            format!("\"{most}\"…")
        );
        assert_eq!(
            beginning(&[0xff; 1000]).len(),
            4 * SHOWN_CHARS + 2 + '…'.len_utf8()
        );
    }
}
