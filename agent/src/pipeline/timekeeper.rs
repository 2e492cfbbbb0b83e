//! Core: how good this device's clocks are, and which of them dates a row.
//!
//! Two witnesses speak of the wall clock: the kernel, whose time service tells its largest error, and
//! the collector, whose messages carry its time. A message was stamped between the request that it
//! answers and its receipt, so the two moments bound how the collector's clock stands to the uptime of
//! this boot. Uptime never jumps, so the bounds outlive a wall clock that is set.
//!
//! | wall clock | times count from | synced | error |
//! |---|---|---|---|
//! | synchronised, and the collector does not speak against it | the Unix epoch | yes | the kernel's |
//! | synchronised, but off the collector's by more than its error and [`ALLOWANCE_MS`] | the Unix epoch | no | how far it is off the collector's |
//! | not synchronised | the Unix epoch | no | how far it is off the collector's, if that was heard |
//! | not synchronised, and it shows a time before [`FLOOR`] | the boot | | |
//!
//! From the boot it goes back to the Unix epoch when the clock shows a possible time and one of the
//! witnesses knows how far it is off.
//!
//! A time that a source gives counts as taken from this wall clock if it lies close to what that
//! shows; only such times are turned into uptime.

use headwater_program::clock::WallError;
use headwater_proto::bundle::Stamps;
use headwater_proto::message::WallClock;
use headwater_proto::time::{Base, Millis, Now, UnixMicros};

/// A wall clock that shows less cannot be right: this program is younger. 2025-01-01, UTC.
pub const FLOOR: UnixMicros = UnixMicros(1_735_689_600_000_000);
/// How much more than its stated error a synchronised clock may be off the collector's before it is
/// doubted; that one has an error too.
pub const ALLOWANCE_MS: u32 = 2_000;
/// How often the kernel is asked.
pub const MEASURE_EVERY_MS: u64 = 16_000;
/// A row may wait so long between its source's look at the clock and the engine's; the worst that
/// was known of the clock in that time holds for it.
pub const LAG_MS: u64 = 1_000;
/// Times so close before the wall clock were taken from it. Rows wait in queues while a disk fails.
const NEAR_US: i64 = 600 * 1_000_000;
/// Times so close after the wall clock were taken from it: both were not read at once.
const AHEAD_US: i64 = 1_000_000;
/// How long after a step times that were taken before it are still recognised.
const REMEMBER_MS: u64 = 60_000;
/// A wall clock that moved by more than this against the uptime was set.
const STEP_US: i64 = 100_000;
/// How fast an unwatched clock may drift, in parts per million: what the kernel assumes of its own.
const DRIFT_PPM: u64 = 500;

/// When a row was read: the clock that says so, and how good it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dated {
    /// Where the time counts from.
    pub base: Base,
    /// The time, in microseconds.
    pub us: i64,
    /// With [`Base::Wall`]: how good the clock was.
    pub stamps: Stamps,
}

/// Watches the clocks of one boot. Its uptime is [`Now::mono`].
#[derive(Debug, Clone)]
pub struct Timekeeper {
    kernel: WallError,
    measured_at: Millis,
    collector: Option<Bounds>,
    base: Base,
    /// Wall time minus uptime, at the latest look.
    offset_us: i64,
    /// The same before the latest step, and until when it is remembered.
    before: Option<(i64, Millis)>,
    stepped: bool,
    /// How good the clock is now, and until when the worse of an earlier look holds for rows.
    present: Stamps,
    rows: Stamps,
    rows_until: Millis,
}

/// Between which two values the collector's clock minus the uptime lies, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bounds {
    low: i64,
    high: i64,
    at: Millis,
}

impl Bounds {
    /// As the bounds are after a time in which the uptime may have drifted.
    fn later(self, now: Millis) -> Self {
        let drift = i64::try_from(drift_us(now.since(self.at))).unwrap_or(i64::MAX);
        Self {
            low: self.low.saturating_sub(drift),
            high: self.high.saturating_add(drift),
            at: now,
        }
    }

    /// Both, if they agree; else the newer: a clock was set.
    fn narrowed(self, newer: Self) -> Self {
        let (low, high) = (self.low.max(newer.low), self.high.min(newer.high));
        if low <= high {
            Self { low, high, ..newer }
        } else {
            newer
        }
    }

    /// How far `offset_us` lies outside.
    fn beyond_us(self, offset_us: i64) -> u64 {
        if offset_us < self.low {
            offset_us.abs_diff(self.low)
        } else {
            offset_us.abs_diff(self.high.min(offset_us))
        }
    }

    /// How far `offset_us` may be off any value within.
    fn furthest_us(self, offset_us: i64) -> u64 {
        offset_us
            .abs_diff(self.low)
            .max(offset_us.abs_diff(self.high))
    }
}

fn drift_us(elapsed_ms: u64) -> u64 {
    elapsed_ms.saturating_mul(DRIFT_PPM) / 1_000
}

fn whole_ms(us: u64) -> u64 {
    us.div_ceil(1_000)
}

impl Timekeeper {
    /// Begins to watch. `kernel`: what the kernel says now.
    #[must_use]
    pub fn new(kernel: WallError, now: Now) -> Self {
        let mut keeper = Self {
            kernel,
            measured_at: now.mono,
            collector: None,
            base: Base::Wall,
            offset_us: offset_us(now),
            before: None,
            stepped: false,
            present: Stamps::default(),
            rows: Stamps::default(),
            rows_until: Millis(0),
        };
        if !keeper.is_possible(now) {
            keeper.base = Base::Uptime;
        }
        keeper.present = keeper.judge(now);
        keeper.rows = keeper.present;
        keeper
    }

    /// Whether the kernel should be asked: its time has come, or the wall clock was set.
    pub fn wants_measure(&mut self, now: Now) -> bool {
        self.look(now);
        self.stepped || self.next_measure() <= now.mono
    }

    /// When to ask the kernel again at the latest.
    #[must_use]
    pub const fn next_measure(&self) -> Millis {
        self.measured_at.plus(MEASURE_EVERY_MS)
    }

    /// What the kernel says now.
    pub fn measured(&mut self, kernel: WallError, now: Now) {
        (self.kernel, self.measured_at, self.stepped) = (kernel, now.mono, false);
        self.look(now);
    }

    /// The collector's clock showed `time` at a moment from `sent` until now.
    pub fn heard(&mut self, time: UnixMicros, sent: Millis, now: Now) {
        // Both moments are known to a whole millisecond that began then.
        let newer = Bounds {
            low: time.0.saturating_sub(micros(now.mono.plus(1))),
            high: time.0.saturating_sub(micros(sent)),
            at: now.mono,
        };
        let known = self.collector.map(|known| known.later(now.mono));
        self.collector = Some(known.map_or(newer, |known| known.narrowed(newer)));
        self.look(now);
    }

    /// Looks at the clocks. Every other question is answered as of the latest look.
    pub fn look(&mut self, now: Now) {
        let offset_us = offset_us(now);
        if offset_us.abs_diff(self.offset_us) > STEP_US.unsigned_abs() {
            self.before = Some((self.offset_us, now.mono.plus(REMEMBER_MS)));
            self.stepped = true;
        }
        self.before = self.before.filter(|(_, until)| now.mono < *until);
        self.offset_us = offset_us;
        let present = self.judge(now);
        let base = match self.base {
            _ if !self.is_possible(now) => Base::Uptime,
            Base::Uptime if !present.synced && present.error_ms.is_none() => Base::Uptime,
            Base::Uptime | Base::Wall => Base::Wall,
        };
        if self.base != base {
            // What the clock showed before dates no row any more.
            (self.base, self.present, self.rows) = (base, present, present);
            self.rows_until = now.mono;
        } else if present != self.present {
            let earlier = if now.mono < self.rows_until {
                worse(self.rows, self.present)
            } else {
                self.present
            };
            self.rows = worse(earlier, present);
            self.rows_until = now.mono.plus(LAG_MS);
            self.present = present;
        } else if self.rows_until <= now.mono {
            self.rows = present;
        }
    }

    /// Where the times of rows count from that are read now.
    #[must_use]
    pub const fn base(&self) -> Base {
        self.base
    }

    /// How good the wall clock is. The error is a power of two, so that it seldom changes.
    #[must_use]
    pub const fn stamps(&self) -> Stamps {
        self.present
    }

    /// The time of a row that is taken now, as its source gave it.
    #[must_use]
    pub fn date(&self, time: UnixMicros, now: Now) -> Dated {
        let uptime_us = micros(now.mono);
        let is_near = |offset_us: i64| {
            let ahead = time.0.saturating_sub(uptime_us.saturating_add(offset_us));
            (-NEAR_US..=AHEAD_US).contains(&ahead)
        };
        let before = self.before.map(|(offset_us, _)| offset_us);
        let (base, us) = match self.base {
            // A row that was read before the clock was first set to a possible time.
            Base::Wall if time < FLOOR => match before.filter(|offset| is_near(*offset)) {
                Some(offset) => (Base::Wall, time.0 - offset + self.offset_us),
                None => (Base::Wall, time.0),
            },
            Base::Wall => (Base::Wall, time.0),
            Base::Uptime => {
                let offsets = [Some(self.offset_us), before];
                match offsets
                    .into_iter()
                    .flatten()
                    .find(|offset| is_near(*offset))
                {
                    Some(offset) => (Base::Uptime, time.0 - offset),
                    None => (Base::Wall, time.0),
                }
            }
        };
        Dated {
            base,
            us,
            stamps: self.rows,
        }
    }

    /// This moment as a row's time: for what the agent itself noticed.
    #[must_use]
    pub fn date_now(&self, now: Now) -> Dated {
        self.date(now.wall, now)
    }

    /// The wall time for the head of a message: the clock's, or while that cannot be right what the collector's
    /// messages say of it. `None` if nobody knows.
    #[must_use]
    pub fn wall(&self, now: Now) -> Option<WallClock> {
        if self.base == Base::Wall {
            return Some(WallClock {
                time: now.wall,
                error_ms: self.present.error_ms,
            });
        }
        // Without it a way that is always slow would date the boot by its delay.
        let (time, error_ms) = self.wall_of_uptime(now)?;
        error_ms.is_some().then_some(WallClock { time, error_ms })
    }

    /// The wall time as a gap or an end names it; `None` while it cannot be right.
    #[must_use]
    pub fn known_wall(&self, now: Now) -> Option<UnixMicros> {
        (self.base == Base::Wall).then_some(now.wall)
    }

    /// The best that is known of the wall time of this moment, and how far it may be off in
    /// milliseconds; `None` if nothing is.
    #[must_use]
    pub fn wall_of_uptime(&self, now: Now) -> Option<(UnixMicros, Option<u32>)> {
        if self.present.synced {
            let error_ms = self.present.error_ms.map(|ms| ms.saturating_add(1));
            return Some((now.wall, error_ms));
        }
        if let Some(bounds) = self.collector.map(|bounds| bounds.later(now.mono)) {
            let half = bounds.high.abs_diff(bounds.low) / 2;
            let middle = bounds.low.saturating_add_unsigned(half);
            let wall = UnixMicros(micros(now.mono).saturating_add(middle));
            return Some((wall, u32::try_from(whole_ms(half + 1)).ok()));
        }
        (self.base == Base::Wall).then_some((now.wall, None))
    }

    fn is_possible(&self, now: Now) -> bool {
        FLOOR <= now.wall || matches!(self.kernel, WallError::Synced { .. })
    }

    fn judge(&self, now: Now) -> Stamps {
        let bounds = self.collector.map(|bounds| bounds.later(now.mono));
        // The offset is known to the millisecond of the uptime.
        let off_ms = bounds.map(|bounds| whole_ms(bounds.furthest_us(self.offset_us)) + 1);
        let kernel_ms = match self.kernel {
            WallError::Synced { error_ms } => {
                let grown = whole_ms(drift_us(now.mono.since(self.measured_at)));
                u64::from(error_ms) + grown
            }
            WallError::Unsynced => {
                return Stamps {
                    synced: false,
                    error_ms: off_ms.and_then(power_of_two),
                };
            }
        };
        let contradicted = bounds.is_some_and(|bounds| {
            whole_ms(bounds.beyond_us(self.offset_us)) > kernel_ms + u64::from(ALLOWANCE_MS)
        });
        Stamps {
            synced: !contradicted,
            error_ms: off_ms
                .filter(|_| contradicted)
                .map_or(power_of_two(kernel_ms), power_of_two),
        }
    }
}

/// The worse of two: what holds for rows of both.
#[must_use]
pub fn worse(a: Stamps, b: Stamps) -> Stamps {
    Stamps {
        synced: a.synced && b.synced,
        error_ms: a.error_ms.zip(b.error_ms).map(|(a, b)| a.max(b)),
    }
}

/// The least power of two that is not below; `u32::MAX` stands for 2^32, and what is larger is as
/// good as unknown.
fn power_of_two(ms: u64) -> Option<u32> {
    if ms > u64::from(u32::MAX) {
        return None;
    }
    Some(u32::try_from(ms.next_power_of_two()).unwrap_or(u32::MAX))
}

/// Uptime in microseconds.
fn micros(uptime: Millis) -> i64 {
    i64::try_from(uptime.0.saturating_mul(1_000)).unwrap_or(i64::MAX)
}

fn offset_us(now: Now) -> i64 {
    now.wall.0.saturating_sub(micros(now.mono))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// True time as this boot began.
    const BOOT_US: i64 = FLOOR.0 + 1_000_000_000_000;
    const DAY_US: i64 = 86_400_000_000;

    /// Uptime `ms`, with a wall clock that is off by `off_us`.
    fn now(ms: u64, off_us: i64) -> Now {
        Now {
            mono: Millis(ms),
            wall: UnixMicros(BOOT_US + micros(Millis(ms)) + off_us),
        }
    }

    fn synced(error_ms: u32) -> WallError {
        WallError::Synced { error_ms }
    }

    fn stamps(synced: bool, error_ms: impl Into<Option<u32>>) -> Stamps {
        Stamps {
            synced,
            error_ms: error_ms.into(),
        }
    }

    /// The collector, which is right, answers what was asked at `sent` after `up` on the way there.
    fn hear(keeper: &mut Timekeeper, sent: u64, up: u64, at: Now) {
        keeper.heard(now(sent + up, 0).wall, Millis(sent), at);
    }

    #[test]
    fn the_kernels_error_grows_until_it_is_asked_again_and_is_told_as_a_power_of_two() {
        let mut keeper = Timekeeper::new(synced(9), now(0, 0));
        assert_eq!(keeper.stamps(), stamps(true, 16));
        assert!(!keeper.wants_measure(now(MEASURE_EVERY_MS - 1, 0)));
        assert_eq!(keeper.stamps(), stamps(true, 32), "9 ms and 8 ms of drift");
        assert!(keeper.wants_measure(now(MEASURE_EVERY_MS, 0)));
        keeper.measured(synced(9), now(MEASURE_EVERY_MS, 0));
        assert_eq!(keeper.stamps(), stamps(true, 16));
        assert!(!keeper.wants_measure(now(MEASURE_EVERY_MS + 1, 0)));
        assert_eq!(keeper.next_measure(), Millis(2 * MEASURE_EVERY_MS));
    }

    #[test]
    fn a_clock_that_nothing_synchronises_is_measured_by_the_collectors_answers() {
        let off_us = 300_000;
        let mut keeper = Timekeeper::new(WallError::Unsynced, now(0, off_us));
        assert_eq!(keeper.stamps(), stamps(false, None));
        hear(&mut keeper, 1_000, 40, now(1_100, off_us));
        assert_eq!(keeper.stamps(), stamps(false, 512), "300 ms and the way");
        // A clock that is set is off by as much at once; the answer is still good.
        keeper.look(now(2_000, -DAY_US));
        assert_eq!(keeper.stamps(), stamps(false, 1 << 27), "a day");
        // Ten days without an answer: the uptime itself may have drifted.
        keeper.look(now(864_000_000, 0));
        assert_eq!(keeper.stamps(), stamps(false, 1 << 19), "432 s");
        // What no error can say is unknown.
        keeper.look(now(864_000_000, 60 * DAY_US));
        assert_eq!(keeper.stamps(), stamps(false, None));
    }

    #[test]
    fn a_synchronised_clock_is_doubted_only_beyond_its_error_and_the_allowance() {
        let allowance_us = i64::from(ALLOWANCE_MS) * 1_000;
        for (off_us, expected) in [
            (0, stamps(true, 16)),
            (allowance_us, stamps(true, 16)),
            (allowance_us + 200_000, stamps(false, 4096)),
            (-2 * DAY_US, stamps(false, 1 << 28)),
        ] {
            let mut keeper = Timekeeper::new(synced(10), now(0, off_us));
            hear(&mut keeper, 1_000, 40, now(1_100, off_us));
            assert_eq!(keeper.stamps(), expected, "{off_us}");
        }
        // An answer that took long proves little.
        let mut keeper = Timekeeper::new(synced(10), now(0, -5_000_000));
        hear(&mut keeper, 1_000, 1_000, now(7_000, -5_000_000));
        assert_eq!(keeper.stamps(), stamps(true, 16));
    }

    #[test]
    fn the_worst_of_the_last_second_holds_for_rows() {
        let mut keeper = Timekeeper::new(synced(10), now(0, 0));
        let row = |keeper: &Timekeeper, at: Now| keeper.date(at.wall, at).stamps;
        assert!(keeper.wants_measure(now(100, DAY_US)), "it was set");
        keeper.measured(WallError::Unsynced, now(100, DAY_US));
        assert_eq!(row(&keeper, now(100, DAY_US)), stamps(false, None));
        keeper.measured(synced(10), now(200, 0));
        keeper.look(now(200 + LAG_MS - 1, 0));
        assert_eq!(keeper.stamps(), stamps(true, 16));
        assert_eq!(row(&keeper, now(200 + LAG_MS - 1, 0)), stamps(false, None));
        keeper.look(now(200 + LAG_MS, 0));
        assert_eq!(row(&keeper, now(200 + LAG_MS, 0)), stamps(true, 16));
    }

    #[test]
    fn a_clock_that_cannot_be_right_dates_rows_by_the_uptime_until_it_is_set_and_known() {
        let off_us = -BOOT_US;
        let mut keeper = Timekeeper::new(WallError::Unsynced, now(5_000, off_us));
        assert_eq!(keeper.base(), Base::Uptime);
        assert_eq!(
            (
                keeper.wall(now(5_000, off_us)),
                keeper.known_wall(now(5_000, off_us))
            ),
            (None, None)
        );
        let at = now(60_000, off_us);
        keeper.look(at);
        let dated = keeper.date(UnixMicros(59_000_000), at);
        assert_eq!((dated.base, dated.us), (Base::Uptime, 59_000_000));
        // A time from elsewhere is nobody's uptime.
        for given in [UnixMicros(BOOT_US), UnixMicros(at.wall.0 - NEAR_US - 1)] {
            let dated = keeper.date(given, at);
            assert_eq!((dated.base, dated.us), (Base::Wall, given.0));
        }
        // Set to another time that cannot be: what was read before is still recognised.
        let year = 365 * DAY_US;
        let at = now(61_000, off_us + year);
        keeper.look(at);
        for given in [60_500_000, 60_900_000 + year] {
            let dated = keeper.date(UnixMicros(given), at);
            assert_eq!((dated.base, dated.us), (Base::Uptime, given % year));
        }
        // A possible time alone is not enough.
        let at = now(62_000, 0);
        keeper.look(at);
        assert_eq!(keeper.base(), Base::Uptime);
        keeper.measured(synced(3), at);
        assert_eq!(
            (keeper.base(), keeper.wall(at).unwrap().error_ms),
            (Base::Wall, Some(4))
        );
        let dated = keeper.date(UnixMicros(61_900_000 + year), at);
        assert_eq!((dated.base, dated.us), (Base::Wall, BOOT_US + 61_900_000));
    }

    #[test]
    fn the_collectors_answer_ends_the_wait_for_a_clock_as_the_kernel_does() {
        let mut keeper = Timekeeper::new(WallError::Unsynced, now(0, -BOOT_US));
        hear(&mut keeper, 1_000, 10, now(1_020, -BOOT_US));
        assert_eq!(keeper.base(), Base::Uptime, "1970 is known to be wrong");
        // Heads say what is known: the way took 20 ms.
        let head = keeper.wall(now(1_020, -BOOT_US)).unwrap();
        let off_ms = whole_ms(head.time.0.abs_diff(now(1_020, 0).wall.0));
        assert!(off_ms <= u64::from(head.error_ms.unwrap()) && head.error_ms <= Some(12));
        let (wall, error_ms) = keeper.wall_of_uptime(now(2_000, -BOOT_US)).unwrap();
        let off_ms = whole_ms(wall.0.abs_diff(now(2_000, 0).wall.0));
        assert!(
            off_ms <= u64::from(error_ms.unwrap()),
            "{off_ms} {error_ms:?}"
        );
        keeper.look(now(3_000, 200_000));
        assert_eq!(keeper.base(), Base::Wall);
    }

    #[test]
    fn a_kernel_that_vouches_for_an_early_time_is_believed() {
        let keeper = Timekeeper::new(synced(5), now(0, -BOOT_US));
        assert_eq!(keeper.base(), Base::Wall);
    }

    #[test]
    fn a_collector_whose_clock_was_set_is_believed_anew() {
        let mut keeper = Timekeeper::new(WallError::Unsynced, now(0, 0));
        hear(&mut keeper, 1_000, 10, now(1_020, 0));
        let ahead = UnixMicros(now(2_010, 0).wall.0 + DAY_US);
        keeper.heard(ahead, Millis(2_000), now(2_020, 0));
        assert_eq!(keeper.stamps(), stamps(false, 1 << 27));
    }

    proptest! {
        /// Whatever the way, the drift and the steps of the wall clock: what is stated contains the truth.
        #[test]
        fn the_truth_lies_within_the_stated_error(
            drift_ppm in -400i64..400,
            off_us in -10 * DAY_US..10 * DAY_US,
            steps in proptest::collection::vec(
                (0u64..3_600_000, 0u64..5_000, 0u64..5_000, prop_oneof![Just(0i64), -DAY_US..DAY_US]), 1..20,
            ),
        ) {
            // True time runs apart from the uptime.
            let truth = |ms: u64| BOOT_US + micros(Millis(ms)) + micros(Millis(ms)) / 1_000_000 * drift_ppm;
            let mut off_us = off_us;
            let clock = |ms: u64, off_us: i64| Now {
                mono: Millis(ms),
                wall: UnixMicros(BOOT_US + micros(Millis(ms)) + off_us),
            };
            let mut keeper = Timekeeper::new(WallError::Unsynced, clock(0, off_us));
            let mut ms = 0;
            for (wait, up, down, step_us) in steps {
                let sent = ms + wait;
                ms = sent + up + down;
                keeper.heard(UnixMicros(truth(sent + up)), Millis(sent), clock(ms, off_us));
                off_us += step_us;
                ms += wait / 2;
                let at = clock(ms, off_us);
                keeper.look(at);
                let off_ms = whole_ms(at.wall.0.abs_diff(truth(ms)));
                let said = keeper.stamps().error_ms;
                prop_assert!(said.is_none_or(|ms| off_ms <= u64::from(ms)), "{off_ms} {said:?}");
                let (wall, error_ms) = keeper.wall_of_uptime(at).unwrap();
                let off_ms = whole_ms(wall.0.abs_diff(truth(ms)));
                prop_assert!(error_ms.is_none_or(|ms| off_ms <= u64::from(ms)), "{off_ms} {error_ms:?}");
            }
        }

        #[test]
        fn any_clocks_and_answers_are_borne(
            looks in proptest::collection::vec((any::<u64>(), any::<i64>(), any::<i64>(), any::<u64>()), 1..8),
        ) {
            let at = |mono, wall| Now { mono: Millis(mono), wall: UnixMicros(wall) };
            let mut keeper = Timekeeper::new(WallError::Unsynced, at(looks[0].0, looks[0].1));
            for (mono, wall, time, sent) in looks {
                keeper.heard(UnixMicros(time), Millis(sent), at(mono, wall));
                let _ = (keeper.date(UnixMicros(time), at(mono, wall)), keeper.wall_of_uptime(at(mono, wall)));
            }
        }
    }
}
