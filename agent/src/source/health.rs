//! Core: how a source is doing, and when the log is told.

use headwater_proto::time::{Millis, Now};
use serde::{Deserialize, Serialize};

/// Milliseconds between two lines in the log about a source that keeps failing.
pub const NOTICE_MS: u64 = 60_000;

/// What a source is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It has not said anything yet.
    #[default]
    Starting,
    /// It reads.
    Up,
    /// It cannot read, and tries again.
    Failing,
    /// Its input has ended; nothing more will come.
    Ended,
}

/// How a source is doing, as the status says it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Report {
    /// What it is at.
    pub state: State,
    /// Since when: wall time, microseconds since the Unix epoch; 0 before its first word.
    pub since_us: i64,
    /// Why it failed last, also if that is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Connections that had to wait for a place since the start.
    #[serde(default)]
    pub waited: u64,
}

/// The health of one source.
#[derive(Debug, Default)]
pub struct Health {
    report: Report,
    /// When the log was told last that it fails.
    told_at: Option<Millis>,
}

/// What the log is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// It reads again.
    Recovered,
    /// It cannot read.
    Fails,
    /// Its input has ended.
    Ended,
}

impl Health {
    /// It reads.
    pub fn up(&mut self, now: Now) -> Option<Notice> {
        let was = self.turn(State::Up, now);
        // Told when the next failure is news again, or a source that comes and goes floods the log.
        let is_news =
            was == State::Failing && self.told_at.take_if(|at| is_over(*at, now)).is_some();
        is_news.then_some(Notice::Recovered)
    }

    /// It cannot read, and this is why.
    pub fn failing(&mut self, error: &str, now: Now) -> Option<Notice> {
        self.turn(State::Failing, now);
        let is_new = self.report.last_error.as_deref() != Some(error);
        if is_new {
            self.report.last_error = Some(error.to_owned());
        }
        let is_due = self.told_at.is_none_or(|at| is_new || is_over(at, now));
        is_due.then(|| {
            self.told_at = Some(now.mono);
            Notice::Fails
        })
    }

    /// A connection waits for a place, and this is why.
    pub fn crowded(&mut self, cause: &str, now: Now) -> Option<Notice> {
        self.report.waited += 1;
        self.failing(cause, now)
    }

    /// Its input has ended.
    pub fn ended(&mut self, now: Now) -> Option<Notice> {
        (self.turn(State::Ended, now) != State::Ended).then_some(Notice::Ended)
    }

    /// How it is doing.
    #[must_use]
    pub const fn report(&self) -> &Report {
        &self.report
    }

    /// Takes a state; returns the one before.
    fn turn(&mut self, state: State, now: Now) -> State {
        let was = self.report.state;
        if was != state {
            (self.report.state, self.report.since_us) = (state, now.wall.0);
        }
        was
    }
}

const fn is_over(told_at: Millis, now: Now) -> bool {
    now.mono.since(told_at) >= NOTICE_MS
}

/// Shortest and longest wait before a source that failed is started again.
const FIRST_PAUSE_MS: u64 = 1_000;
const LONGEST_PAUSE_MS: u64 = 60_000;

/// How long a source that failed waits before it is started again: twice as long each time.
#[derive(Debug, Clone, Copy)]
pub struct BackOff {
    pause_ms: u64,
}

impl Default for BackOff {
    fn default() -> Self {
        Self {
            pause_ms: FIRST_PAUSE_MS,
        }
    }
}

impl BackOff {
    /// The next wait.
    ///
    /// - `ran_ms`: how long the source ran before it failed; long enough, and the waits begin anew.
    pub fn pause_ms(&mut self, ran_ms: u64) -> u64 {
        if ran_ms >= LONGEST_PAUSE_MS {
            *self = Self::default();
        }
        let pause_ms = self.pause_ms;
        self.pause_ms = (pause_ms * 2).min(LONGEST_PAUSE_MS);
        pause_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_proto::time::UnixMicros;

    fn at(ms: u64) -> Now {
        Now {
            mono: Millis(ms),
            wall: UnixMicros(ms.cast_signed() * 1000),
        }
    }

    #[test]
    fn a_source_says_since_when_it_fails_and_why_it_failed_last() {
        let mut health = Health::default();
        assert_eq!(health.report(), &Report::default());
        assert_eq!(health.up(at(5)), None);
        assert_eq!(health.failing("no file", at(7)), Some(Notice::Fails));
        health.failing("no file", at(9));
        let report = health.report();
        assert_eq!((report.state, report.since_us), (State::Failing, 7_000));
        health.up(at(11));
        let report = health.report();
        assert_eq!((report.state, report.since_us), (State::Up, 11_000));
        assert_eq!(report.last_error.as_deref(), Some("no file"));
        assert_eq!(health.ended(at(12)), Some(Notice::Ended));
        assert_eq!(health.ended(at(13)), None);
    }

    #[test]
    fn the_log_is_told_of_each_new_cause_and_else_once_a_minute() {
        let mut health = Health::default();
        assert_eq!(health.failing("a", at(0)), Some(Notice::Fails));
        for ms in (1_000..NOTICE_MS).step_by(1_000) {
            // It comes and goes.
            assert_eq!(health.up(at(ms)), None);
            assert_eq!(health.failing("a", at(ms)), None);
        }
        assert_eq!(health.failing("b", at(NOTICE_MS - 1)), Some(Notice::Fails));
        assert_eq!(health.failing("b", at(NOTICE_MS)), None);
        assert_eq!(health.failing("b", at(2 * NOTICE_MS)), Some(Notice::Fails));
        assert_eq!(health.up(at(3 * NOTICE_MS)), Some(Notice::Recovered));
        assert_eq!(health.failing("b", at(3 * NOTICE_MS)), Some(Notice::Fails));
    }

    #[test]
    fn each_wait_is_twice_the_last_up_to_a_minute_and_a_long_run_begins_anew() {
        let mut back_off = BackOff::default();
        let waits: Vec<_> = (0..8).map(|_| back_off.pause_ms(10)).collect();
        assert_eq!(
            waits,
            [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]
        );
        assert_eq!(back_off.pause_ms(LONGEST_PAUSE_MS), 1_000);
    }
}
