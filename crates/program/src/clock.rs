//! The only place that reads clocks: monotonic time to decide, wall time to date, the kernel's own
//! estimate of how far its wall clock may be off, and which boot this is.

use std::time::{Duration, Instant, SystemTime};

use headwater_proto::time::{Millis, Now, UnixMicros};
use rustix::time::{ClockId, clock_gettime};

/// Longest time that a timer is set ahead, in milliseconds: a runtime cannot hold every time that
/// [`Millis`] can, and whoever waits longer looks again once a week.
pub const MAX_TIMER_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// Both clocks of a process. All that compares monotonic times must share one such clock.
///
/// Monotonic time is the kernel's `CLOCK_BOOTTIME`: it goes on while the machine sleeps, so it is also
/// the uptime of the boot.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// What counts as 0, since the boot.
    zero: Duration,
}

impl Clock {
    /// A clock whose monotonic time is 0 now.
    #[must_use]
    pub fn start() -> Self {
        Self { zero: uptime() }
    }

    /// A clock whose monotonic time is the uptime of this boot.
    #[must_use]
    pub const fn of_boot() -> Self {
        Self {
            zero: Duration::ZERO,
        }
    }

    /// Reads both clocks.
    #[must_use]
    pub fn now(&self) -> Now {
        Now {
            mono: self.mono(),
            wall: wall(),
        }
    }

    /// Monotonic time.
    #[must_use]
    pub fn mono(&self) -> Millis {
        Millis(u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Monotonic time, finer.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        uptime().saturating_sub(self.zero)
    }

    /// The system's instant of `at`, or now if that has passed, for a timer; at most [`MAX_TIMER_MS`]
    /// ahead. Timers stand still while the machine sleeps: they fire late by as much.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn instant(&self, at: Millis) -> Instant {
        let ahead = Duration::from_millis(at.0).saturating_sub(self.elapsed());
        Instant::now() + ahead.min(Duration::from_millis(MAX_TIMER_MS))
    }
}

/// Time since this boot, sleep included.
fn uptime() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// A number that names this boot and no other one; never 0. It is drawn at random, for this process
/// alone, where the kernel does not tell its boot id.
#[must_use]
pub fn boot_id() -> u64 {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .ok()
        .and_then(|text| fold_uuid(&text))
        .unwrap_or_else(crate::entropy::random)
        .max(1)
}

/// Both halves of a UUID in one: 122 of its bits are random.
fn fold_uuid(text: &str) -> Option<u64> {
    let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
    let (high, low) = digits.split_at_checked(16).filter(|_| digits.len() == 32)?;
    let half = |digits| u64::from_str_radix(digits, 16).ok();
    Some(half(high)? ^ half(low)?)
}

/// Wall time.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn wall() -> UnixMicros {
    UnixMicros(
        match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |us| -us),
        },
    )
}

/// The kernel's knowledge of its wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WallError {
    /// A time service disciplines it.
    Synced {
        /// How far it may be off, in milliseconds; at least 1.
        error_ms: u32,
    },
    /// Nothing disciplines it, or the kernel does not tell: it may be off by any amount.
    Unsynced,
}

/// Asks the kernel how far its wall clock may be off, by `adjtimex` without changing anything.
///
/// A time service (NTP, PTP, chrony, systemd-timesyncd) tells the kernel its largest error; the
/// kernel lets it grow by 500 µs a second and calls the clock unsynchronised at 16 s.
#[must_use]
pub fn wall_error() -> WallError {
    read_discipline().map_or(WallError::Unsynced, judge)
}

/// Fields of `adjtimex(2)` that say whether a clock can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Discipline {
    /// The result of the call: a `TIME_` constant.
    state: libc::c_int,
    /// Bits of `STA_` constants.
    status: libc::c_int,
    /// Largest error, in microseconds.
    max_error_us: i64,
}

/// Without rounding up to 1 ms, the moment after a service has set the clock would count as exact:
/// systemd-timesyncd reports 0 then.
fn judge(clock: Discipline) -> WallError {
    let disciplined = clock.state != libc::TIME_ERROR && clock.status & libc::STA_UNSYNC == 0;
    match u64::try_from(clock.max_error_us) {
        Ok(us) if disciplined => WallError::Synced {
            error_ms: u32::try_from(us.div_ceil(1000).max(1)).unwrap_or(u32::MAX),
        },
        _ => WallError::Unsynced,
    }
}

#[expect(
    unsafe_code,
    reason = "rustix has no adjtimex, and libc is in the tree already"
)]
fn read_discipline() -> Option<Discipline> {
    // SAFETY: `timex` is plain integers, for which zeros are valid; `modes` 0 changes nothing; the
    // kernel fills the struct that the pointer leads to, which lives until the end of the block.
    let (state, fields) = unsafe {
        let mut fields: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut fields), fields)
    };
    // Under a filter of system calls the call itself may be refused.
    (state >= 0).then(|| Discipline {
        state,
        status: fields.status,
        max_error_us: widen(fields.maxerror),
    })
}

/// `c_long` has 32 bits on some targets and 64 on others.
fn widen(value: impl Into<i64>) -> i64 {
    value.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_time_never_runs_backwards_and_timers_stay_within_a_week() {
        let clock = Clock::start();
        let (first, second) = (clock.now(), clock.now());
        assert!(first.mono <= second.mono);
        assert!(first.wall.0 > 1_700_000_000_000_000);
        let ahead = clock.instant(Millis(u64::MAX)) - clock.instant(Millis(0));
        let week = Duration::from_millis(MAX_TIMER_MS);
        assert!(ahead <= week && ahead > week - Duration::from_secs(60));
    }

    #[test]
    fn the_clock_of_the_boot_counts_from_it_and_the_boot_keeps_its_number() {
        let text = std::fs::read_to_string("/proc/uptime").unwrap();
        let told: f64 = text.split(' ').next().unwrap().parse().unwrap();
        let read = Clock::of_boot().elapsed().as_secs_f64();
        assert!((told - 1.0..told + 60.0).contains(&read), "{told} {read}");
        assert_eq!(boot_id(), boot_id());
        assert_ne!(boot_id(), 0);
    }

    #[test]
    fn a_boot_id_is_folded_from_a_whole_uuid_only() {
        let id = "0123abcd-0000-4000-8000-00000000000f\n";
        assert_eq!(fold_uuid(id), Some(0x8123_abcd_0000_400f));
        for text in ["", "0123abcd", "0123abcd-0000-4000-8000-00000000000g"] {
            assert_eq!(fold_uuid(text), None, "{text}");
        }
    }

    #[test]
    fn a_clock_counts_as_synced_only_while_the_kernel_says_by_how_much_it_may_be_off() {
        const PLL: libc::c_int = libc::STA_PLL;
        let unsynced = WallError::Unsynced;
        let synced = |error_ms| WallError::Synced { error_ms };
        for (state, status, max_error_us, expected) in [
            (libc::TIME_OK, PLL, 0, synced(1)),
            (libc::TIME_OK, PLL, 1, synced(1)),
            (libc::TIME_OK, PLL, 1000, synced(1)),
            (libc::TIME_OK, PLL, 1001, synced(2)),
            (libc::TIME_OK, 0, 15_999_999, synced(16_000)),
            // A leap second is announced, under way or just past.
            (libc::TIME_INS, PLL | libc::STA_INS, 40_000, synced(40)),
            (libc::TIME_OOP, PLL | libc::STA_INS, 40_000, synced(40)),
            (libc::TIME_WAIT, PLL | libc::STA_INS, 40_000, synced(40)),
            (libc::TIME_ERROR, libc::STA_UNSYNC, 16_000_000, unsynced),
            // Some services leave the bit, others only let the state say it.
            (libc::TIME_OK, PLL | libc::STA_UNSYNC, 1000, unsynced),
            (libc::TIME_ERROR, PLL, 1000, unsynced),
            (libc::TIME_OK, PLL, -1, unsynced),
            (libc::TIME_OK, PLL, i64::MAX, synced(u32::MAX)),
        ] {
            let clock = Discipline {
                state,
                status,
                max_error_us,
            };
            assert_eq!(judge(clock), expected, "{clock:?}");
        }
    }

    #[test]
    fn the_kernel_answers_and_its_answer_is_possible() {
        // A sandbox may refuse the call; then there is nothing to compare.
        let Some(clock) = read_discipline() else {
            assert_eq!(wall_error(), WallError::Unsynced);
            return;
        };
        assert!((libc::TIME_OK..=libc::TIME_ERROR).contains(&clock.state));
        assert!(clock.max_error_us >= 0, "{clock:?}");
    }
}
