//! Core: which times are believed, and why one is not.

use std::fmt;

use crate::pipeline::envelope::{Reason, TimeClass};
use crate::pipeline::rules::TimeWindow;
use headwater_lake::TimeClass as LakeClass;
use headwater_lake::date::instant_text;
use headwater_lake::schema::MAX_TIME_US;
use headwater_proto::sabotage::{self, Bug};
use headwater_proto::time::UnixMicros;

/// How a time was found, in the words of the lake.
#[must_use]
pub const fn class_of(class: TimeClass) -> LakeClass {
    match class {
        TimeClass::Synced => LakeClass::Synced,
        TimeClass::Wall => LakeClass::Wall,
        TimeClass::Dated | TimeClass::Undated => LakeClass::Offset,
        TimeClass::Received => LakeClass::Received,
    }
}

/// Why `ts_us` is not believed of a record that arrived at `at`; `None` if it is. Both are Unix time in
/// microseconds.
#[must_use]
pub fn doubt(window: &TimeWindow, ts_us: i64, at: UnixMicros) -> Option<Doubt> {
    let at_us = judged_at(at);
    if !(0..MAX_TIME_US).contains(&ts_us) {
        return Some(Doubt::NoDate { ts_us });
    }
    let late_us = at_us.saturating_sub(ts_us);
    if window.max_late_us.is_some_and(|most| late_us > most) {
        return Some(Doubt::Late { ts_us, late_us });
    }
    let ahead_us = late_us.saturating_neg();
    (ahead_us > window.max_ahead_us).then_some(Doubt::Ahead { ts_us, ahead_us })
}

/// Whether every time from `first_us` to `last_us` is believed.
#[must_use]
pub fn takes(window: &TimeWindow, first_us: i64, last_us: i64, at: UnixMicros) -> bool {
    doubt(window, first_us, at).is_none() && doubt(window, last_us, at).is_none()
}

/// What a time is judged by: when its record arrived, whenever it is read.
fn judged_at(at: UnixMicros) -> i64 {
    // A deliberate bug lives here.
    if sabotage::is(Bug::InterpretedByPresent) {
        return sabotage::present_us();
    }
    at.0
}

/// Why a time is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// Outside the years 1970 to 9999.
    NoDate {
        /// The time.
        ts_us: i64,
    },
    /// Longer before its receipt than the window allows.
    Late {
        /// The time.
        ts_us: i64,
        /// Its age at receipt.
        late_us: i64,
    },
    /// Further ahead of its receipt than the window allows.
    Ahead {
        /// The time.
        ts_us: i64,
        /// How far ahead it was.
        ahead_us: i64,
    },
    /// It counts from a boot that nothing dates.
    Undated {
        /// Microseconds since that boot.
        uptime_us: i64,
    },
}

impl Doubt {
    /// The reason under which its sample stands in quarantine.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::NoDate { .. } | Self::Late { .. } | Self::Ahead { .. } => Reason::ImpossibleTime,
            Self::Undated { .. } => Reason::Undated,
        }
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoDate { ts_us } => {
                write!(f, "time {ts_us} us lies outside the years 1970 to 9999")
            }
            Self::Late { ts_us, late_us } => {
                let time = instant_text(ts_us);
                write!(f, "time {time} lies {} before its receipt", Span(late_us))
            }
            Self::Ahead { ts_us, ahead_us } => {
                let time = instant_text(ts_us);
                write!(f, "time {time} lies {} after its receipt", Span(ahead_us))
            }
            Self::Undated { uptime_us } => {
                write!(f, "{uptime_us} us after a boot that nothing dates")
            }
        }
    }
}

/// Microseconds in the unit that a reader wants.
struct Span(i64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / 1_000_000;
        match seconds {
            0..7_200 => write!(f, "{seconds} s"),
            7_200..172_800 => write!(f, "{} h", seconds / 3_600),
            _ => write!(f, "{} d", seconds / 86_400),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: UnixMicros = UnixMicros(1_800_000_000_000_000);
    const DAY_US: i64 = 86_400_000_000;
    const MONTH: TimeWindow = TimeWindow {
        max_late_us: Some(30 * DAY_US),
        max_ahead_us: DAY_US / 24,
    };

    #[test]
    fn a_time_within_the_window_is_believed_up_to_its_very_bounds() {
        let window = MONTH;
        for ts_us in [AT.0, AT.0 - 30 * DAY_US, AT.0 + DAY_US / 24] {
            assert_eq!(doubt(&window, ts_us, AT), None);
        }
        assert!(takes(&window, AT.0 - 30 * DAY_US, AT.0 + DAY_US / 24, AT));
    }

    #[test]
    fn a_time_beyond_the_window_is_refused_in_words() {
        let window = MONTH;
        let words = |ts_us| doubt(&window, ts_us, AT).unwrap().to_string();
        let late = words(AT.0 - 31 * DAY_US);
        assert!(late.ends_with("lies 31 d before its receipt"), "{late}");
        let ahead = words(AT.0 + DAY_US / 24 + 1);
        assert!(ahead.ends_with("lies 3600 s after its receipt"), "{ahead}");
        assert!(!takes(&window, AT.0, AT.0 + DAY_US, AT));
    }

    #[test]
    fn any_age_can_be_taken_but_no_time_without_a_date() {
        let window = TimeWindow::default();
        assert_eq!(doubt(&window, 0, AT), None);
        for ts_us in [-1, i64::MIN, i64::MAX, MAX_TIME_US] {
            assert_eq!(doubt(&window, ts_us, AT), Some(Doubt::NoDate { ts_us }));
        }
    }
}
