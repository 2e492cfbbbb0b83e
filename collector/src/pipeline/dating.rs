//! Core: how the times of a bundle's records become Unix time, and how far they may be off.
//!
//! A sender says how good its clock was when it stamped the records. A receipt can prove it wrong, but
//! never better: the way takes time, so a clock that seems behind by a little may be right. The
//! smallest delay seen lately is the best witness.
//!
//! | times | dated by | error |
//! |---|---|---|
//! | wall, and no receipt speaks against the sender's word | the sender | the sender's, or unknown |
//! | wall, and its clock is off by more than it says | the sender | how far the clock is off; for one ahead [`ALLOWANCE_MS`] more, since the way hides as much |
//! | uptime of the boot that runs | the sender's clock if it is good, else the receipt with the least delay | the clock's, else [`DATED_ERROR_MS`], or how far a clock behind is off if that is more; unknown after a single receipt |
//! | uptime of an earlier boot | the time base that was learnt of that boot | the time base's |
//! | uptime of an earlier boot without a time base | nobody: quarantine, with the reason `undated` | |

use headwater_proto::bundle::BundleHead;
use headwater_proto::message::WallClock;
use headwater_proto::sabotage::{self, Bug};
use headwater_proto::time::{Base, Millis, Now};

use super::envelope::{Clock, Evidence, Tie, TimeClass};
use super::time_bases::KnownBase;

/// How much later than sent a publish may arrive before its sender's clock is doubted; the same stands
/// for the collector's own error.
pub const ALLOWANCE_MS: u32 = 2_000;
/// Error of a boot that receipts alone date, from the second on: the least delay of several is within what is allowed
/// to a way. Of a single one nobody knows.
pub const DATED_ERROR_MS: u32 = ALLOWANCE_MS;
/// A delay is the least of one to two such stretches, so that a drifting clock is followed.
const STRETCH_MS: u64 = 60_000;
/// A clock that moved by more than this against the uptime was set, not slewed.
const STEP_US: i64 = 100_000;

/// The least of a quantity over the last stretch and the present one.
#[derive(Debug, Clone, Copy)]
struct Least {
    since: Millis,
    present: i64,
    before: Option<i64>,
}

impl Least {
    const fn new(value: i64, now: Millis) -> Self {
        Self {
            since: now,
            present: value,
            before: None,
        }
    }

    fn add(&mut self, value: i64, now: Millis) {
        if now.since(self.since) >= STRETCH_MS {
            *self = Self {
                since: now,
                present: value,
                before: Some(self.present),
            };
        } else {
            self.present = self.present.min(value);
        }
    }

    fn shift(&mut self, by: i64) {
        self.present = self.present.saturating_add(by);
        self.before = self.before.map(|before| before.saturating_add(by));
    }

    fn get(&self) -> i64 {
        self.before
            .map_or(self.present, |before| before.min(self.present))
    }
}

/// What the receipts of one connection say of the clocks of one origin.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sightings {
    seen: Option<Seen>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    boot: u64,
    /// How many receipts: the delay of a single one is not known.
    count: u64,
    /// Receipt minus uptime: when the boot began, plus the delay.
    began_us: Least,
    /// The sender's wall time minus its uptime, and receipt minus wall time: how far it is behind,
    /// plus the delay.
    wall: Option<(i64, Least)>,
}

impl Sightings {
    /// Takes in what a sender said of its clocks, received `now`. `uptime_ms` counts from `boot`, the
    /// boot that runs.
    pub fn note(&mut self, boot: u64, uptime_ms: u64, wall: Option<WallClock>, now: Now) {
        let uptime_us = micros(uptime_ms);
        let began_us = now.wall.0.saturating_sub(uptime_us);
        let told = wall.map(|wall| {
            let behind_us = now.wall.0.saturating_sub(wall.time.0);
            (wall.time.0.saturating_sub(uptime_us), behind_us)
        });
        match &mut self.seen {
            Some(seen) if seen.boot == boot && boot != 0 => {
                seen.count += 1;
                seen.began_us.add(began_us, now.mono);
                seen.wall = match (seen.wall, told) {
                    (Some((zero_us, mut least)), Some((told_us, behind_us)))
                        if told_us.abs_diff(zero_us) <= STEP_US.unsigned_abs() =>
                    {
                        least.add(behind_us, now.mono);
                        Some((told_us, least))
                    }
                    (_, Some((told_us, behind_us))) => {
                        Some((told_us, Least::new(behind_us, now.mono)))
                    }
                    (_, None) => None,
                };
            }
            _ => {
                self.seen = Some(Seen {
                    boot,
                    count: 1,
                    began_us: Least::new(began_us, now.mono),
                    wall: told
                        .map(|(told_us, behind_us)| (told_us, Least::new(behind_us, now.mono))),
                });
            }
        }
    }

    /// Times of receipt so far were by a clock that was in doubt, and are later by `offset_us`.
    pub fn shift(&mut self, offset_us: i64) {
        if let Some(seen) = &mut self.seen {
            seen.began_us.shift(offset_us);
            if let Some((_, behind_us)) = &mut seen.wall {
                behind_us.shift(offset_us);
            }
        }
    }

    /// How far the sender's wall clock is behind this collector's, in microseconds, the least delay
    /// included.
    fn behind_us(&self) -> Option<i64> {
        let (_, least) = self.seen?.wall?;
        Some(least.get())
    }
}

/// How the times of a bundle's records become Unix time; `None` where nobody can say.
///
/// - `sightings`: of the bundle's origin on its connection, this receipt included.
/// - `time_base`: the one learnt of the bundle's boot, if any.
#[must_use]
pub fn date(
    head: &BundleHead,
    sightings: &Sightings,
    time_base: Option<&KnownBase>,
    now: Now,
) -> Option<Clock> {
    if let Some(evidence) = evidence(head, sightings, now) {
        return Some(judge(&evidence, &Tie::NONE));
    }
    if sabotage::is(Bug::EarlierBootDatedByPresent) {
        let seen = sightings.seen.as_ref()?;
        return Some(Clock {
            class: TimeClass::Dated,
            offset_us: seen.began_us.get(),
            error_ms: Some(DATED_ERROR_MS),
        });
    }
    time_base.map(|known| Clock {
        class: TimeClass::Dated,
        offset_us: known.began_us,
        error_ms: known.error_ms,
    })
}

/// How a bundle's clocks compare with its receipt; `None` of a boot that is over: no receipt says anything of it.
#[must_use]
pub fn evidence(head: &BundleHead, sightings: &Sightings, now: Now) -> Option<Evidence> {
    let told = head.wall.map(|wall| now.wall.0.saturating_sub(wall.time.0));
    let behind_us = sightings.behind_us().or(told).unwrap_or(0);
    match (head.base, head.uptime_ms) {
        (Base::Wall, _) => Some(Evidence::Wall {
            synced: head.stamps.synced,
            error_ms: head.stamps.error_ms,
            behind_us,
        }),
        (Base::Uptime, Some(uptime_ms)) => {
            let uptime_us = micros(uptime_ms);
            let seen = sightings.seen.filter(|seen| seen.boot == head.boot);
            let wall = head.wall.and_then(|wall| {
                let zero_us = wall.time.0.saturating_sub(uptime_us);
                Some((zero_us, wall.error_ms?, behind_us))
            });
            Some(Evidence::Uptime {
                uptime_us,
                wall,
                began_us: seen.map_or(now.wall.0.saturating_sub(uptime_us), |seen| {
                    seen.began_us.get()
                }),
                confirmed: seen.is_some_and(|seen| seen.count > 1),
            })
        }
        (Base::Uptime, None) => None,
    }
}

/// What follows from the evidence, by times of receipt that `tie` turns into Unix time.
#[must_use]
pub fn judge(evidence: &Evidence, tie: &Tie) -> Clock {
    // What the receipts themselves may be off by speaks against nobody.
    let allowance_ms = ALLOWANCE_MS.saturating_add(tie.error_ms);
    match *evidence {
        Evidence::Wall {
            error_ms: Some(error_ms),
            behind_us,
            ..
        } if is_off(behind_us, error_ms, tie) => {
            let behind_us = behind_us.saturating_add(tie.offset_us);
            let hidden_ms = if behind_us < 0 {
                allowance_ms
            } else {
                tie.error_ms
            };
            let off_ms = whole_millis(behind_us).saturating_add(error_ms);
            Clock {
                class: TimeClass::Wall,
                offset_us: 0,
                error_ms: Some(off_ms.saturating_add(hidden_ms)),
            }
        }
        Evidence::Uptime {
            wall,
            began_us,
            confirmed,
            ..
        } if wall.is_none_or(|(_, error_ms, behind_us)| is_off(behind_us, error_ms, tie)) => {
            // If it is behind, it is wrong, or each of its publishes was on the way for so long.
            let behind_ms = wall.map_or(0, |(_, error_ms, behind_us)| {
                let behind_us = behind_us.saturating_add(tie.offset_us);
                let off_ms = whole_millis(behind_us).saturating_add(error_ms);
                if behind_us > 0 { off_ms } else { 0 }
            });
            let error_ms = DATED_ERROR_MS.max(behind_ms).saturating_add(tie.error_ms);
            Clock {
                class: TimeClass::Dated,
                offset_us: began_us.saturating_add(tie.offset_us),
                error_ms: confirmed.then_some(error_ms),
            }
        }
        Evidence::Wall { .. } | Evidence::Uptime { .. } => {
            believed(evidence).unwrap_or(Clock::UNDATED)
        }
    }
}

/// What follows by the sender's word alone; `None` where only a receipt can say.
#[must_use]
pub fn believed(evidence: &Evidence) -> Option<Clock> {
    match *evidence {
        Evidence::Wall {
            synced, error_ms, ..
        } => Some(Clock {
            class: if synced && error_ms.is_some() {
                TimeClass::Synced
            } else {
                TimeClass::Wall
            },
            offset_us: 0,
            error_ms,
        }),
        Evidence::Uptime { wall, .. } => wall.map(|(zero_us, error_ms, _)| Clock {
            class: TimeClass::Dated,
            offset_us: zero_us,
            error_ms: Some(error_ms),
        }),
    }
}

/// The uptime, in microseconds, at which receipts or the sender date the boot.
#[must_use]
pub const fn uptime_of(evidence: &Evidence) -> Option<i64> {
    match *evidence {
        Evidence::Uptime { uptime_us, .. } => Some(uptime_us),
        Evidence::Wall { .. } => None,
    }
}

/// Whether a clock is off by more than it says.
fn is_off(behind_us: i64, error_ms: u32, tie: &Tie) -> bool {
    let off_ms = whole_millis(behind_us.saturating_add(tie.offset_us));
    let allowance_ms = ALLOWANCE_MS.saturating_add(tie.error_ms);
    off_ms > error_ms.saturating_add(allowance_ms)
}

/// Most that a device's uptime drifts against true time, as parts of a million: what a kernel assumes of a
/// clock that nothing disciplines.
const DRIFT_PPM: u64 = 500;

/// The uptime, in microseconds, at which a bundle's boot is dated; `None` with wall times.
#[must_use]
pub fn dated_at_us(head: &BundleHead, time_base: Option<&KnownBase>) -> Option<i64> {
    match (head.base, head.uptime_ms) {
        (Base::Wall, _) => None,
        (Base::Uptime, Some(uptime_ms)) => Some(micros(uptime_ms)),
        (Base::Uptime, None) => time_base.map(|known| known.uptime_us),
    }
}

/// The clock of a record with uptimes from `first_us` to `last_us`: its error grows with the distance from
/// the uptime at which its boot is dated.
#[must_use]
pub fn drifted(clock: Clock, dated_at_us: i64, (first_us, last_us): (i64, i64)) -> Clock {
    let far_us = dated_at_us
        .abs_diff(first_us)
        .max(dated_at_us.abs_diff(last_us));
    let drift_ms = (far_us / 1_000).saturating_mul(DRIFT_PPM) / 1_000_000;
    let drift_ms = u32::try_from(drift_ms).unwrap_or(u32::MAX);
    Clock {
        error_ms: clock
            .error_ms
            .map(|error_ms| error_ms.saturating_add(drift_ms)),
        ..clock
    }
}

fn micros(ms: u64) -> i64 {
    i64::try_from(ms.saturating_mul(1_000)).unwrap_or(i64::MAX)
}

/// Milliseconds that span `us` in either direction.
fn whole_millis(us: i64) -> u32 {
    u32::try_from(us.unsigned_abs().div_ceil(1_000)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_proto::bundle::Stamps;
    use headwater_proto::ids::{DeviceId, Epoch, Lane};
    use headwater_proto::message::TimeBase;
    use headwater_proto::time::UnixMicros;
    use proptest::prelude::*;

    const TRUE_US: i64 = 1_795_946_400_000_000;
    const HOUR_US: i64 = 3_600_000_000;
    const DAY_US: i64 = 24 * HOUR_US;

    fn now(after_ms: u64) -> Now {
        Now {
            mono: Millis(after_ms),
            wall: UnixMicros(TRUE_US + micros(after_ms)),
        }
    }

    fn head(off_us: i64, stamps: Stamps, sent_ms: u64) -> BundleHead {
        BundleHead {
            origin: DeviceId::new("pump").unwrap(),
            lane: Lane::Normal,
            epoch: Epoch::new(1),
            first: 0,
            ram: false,
            boot: 9,
            base: Base::Wall,
            stamps,
            uptime_ms: Some(5_000 + sent_ms),
            wall: Some(WallClock {
                time: UnixMicros(TRUE_US + micros(sent_ms) + off_us),
                error_ms: stamps.error_ms,
            }),
        }
    }

    const SYNCED: Stamps = Stamps {
        synced: true,
        error_ms: Some(20),
    };

    fn received(head: &BundleHead, sightings: &mut Sightings, at: Now) -> Clock {
        sightings.note(head.boot, head.uptime_ms.unwrap(), head.wall, at);
        date(head, sightings, None, at).unwrap()
    }

    #[test]
    fn a_clock_is_believed_until_a_receipt_speaks_against_it() {
        for (off_us, class, error_ms) in [
            (0, TimeClass::Synced, 20),
            (-1_000_000, TimeClass::Synced, 20),
            (-2 * DAY_US, TimeClass::Wall, 172_800_020),
            (HOUR_US, TimeClass::Wall, 3_602_020),
            (1_000_000 * DAY_US, TimeClass::Wall, u32::MAX),
        ] {
            let mut sightings = Sightings::default();
            let clock = received(&head(off_us, SYNCED, 0), &mut sightings, now(0));
            assert_eq!(
                (clock.class, clock.error_ms),
                (class, Some(error_ms)),
                "{off_us}"
            );
            assert_eq!(clock.offset_us, 0, "the sender's times stay as they are");
        }
    }

    #[test]
    fn a_clock_that_nothing_synchronises_is_wall_with_the_error_it_was_measured_to_have() {
        for error_ms in [None, Some(300)] {
            let stamps = Stamps {
                synced: false,
                error_ms,
            };
            let clock = received(&head(0, stamps, 0), &mut Sightings::default(), now(0));
            assert_eq!((clock.class, clock.error_ms), (TimeClass::Wall, error_ms));
        }
    }

    #[test]
    fn a_slow_way_does_not_spoil_a_good_clock_and_a_jump_is_noticed_at_once() {
        let mut sightings = Sightings::default();
        assert_eq!(
            received(&head(0, SYNCED, 0), &mut sightings, now(10)).class,
            TimeClass::Synced
        );
        let late = received(&head(0, SYNCED, 1_000), &mut sightings, now(31_000));
        assert_eq!(late.class, TimeClass::Synced, "30 s on the way");
        let jumped = received(&head(-DAY_US, SYNCED, 32_000), &mut sightings, now(32_010));
        assert_eq!(
            (jumped.class, jumped.error_ms),
            (TimeClass::Wall, Some(86_400_030))
        );
        let back = received(&head(0, SYNCED, 33_000), &mut sightings, now(33_010));
        assert_eq!(back.class, TimeClass::Synced);
    }

    #[test]
    fn the_least_delay_is_of_the_last_minutes_alone() {
        let mut sightings = Sightings::default();
        received(&head(0, SYNCED, 0), &mut sightings, now(0));
        // The clock falls behind by a millisecond a second, too slowly for a step.
        let mut clock = Clock::SYNCED;
        for second in 1..=400u64 {
            let off_us = -micros(second * 50);
            clock = received(
                &head(off_us, SYNCED, second * 1_000),
                &mut sightings,
                now(second * 1_000),
            );
        }
        assert_eq!(clock.class, TimeClass::Wall);
        assert!(
            (14_000..=20_100).contains(&clock.error_ms.unwrap()),
            "{clock:?}"
        );
    }

    #[test]
    fn a_running_boot_is_dated_by_the_receipt_with_the_least_delay() {
        let mut sightings = Sightings::default();
        let mut head = head(0, Stamps::default(), 0);
        (head.base, head.wall) = (Base::Uptime, None);
        let clock = received(&head, &mut sightings, now(700));
        assert_eq!(clock.offset_us, TRUE_US + 700_000 - 5_000_000);
        assert_eq!(
            clock.error_ms, None,
            "nobody knows how long it was on the way"
        );
        head.uptime_ms = Some(6_000);
        let clock = received(&head, &mut sightings, now(1_010));
        assert_eq!(clock.offset_us, TRUE_US + 10_000 - 5_000_000);
        head.uptime_ms = Some(7_000);
        let clock = received(&head, &mut sightings, now(2_900));
        assert_eq!(clock.offset_us, TRUE_US + 10_000 - 5_000_000);
        assert_eq!(
            (clock.class, clock.error_ms),
            (TimeClass::Dated, Some(DATED_ERROR_MS))
        );
        // A good clock beside the uptime dates better, a wrong one not at all.
        head.wall = Some(WallClock {
            time: UnixMicros(TRUE_US + 2_000_000),
            error_ms: Some(3),
        });
        let clock = received(&head, &mut sightings, now(2_900));
        assert_eq!(
            (clock.offset_us, clock.error_ms),
            (TRUE_US - 5_000_000, Some(3))
        );
        head.wall = Some(WallClock {
            time: UnixMicros(TRUE_US + DAY_US),
            error_ms: Some(3),
        });
        let clock = received(&head, &mut sightings, now(2_900));
        assert_eq!(clock.error_ms, Some(DATED_ERROR_MS));
    }

    #[test]
    fn a_boot_whose_publishes_are_all_late_is_not_called_right_to_a_second() {
        let mut sightings = Sightings::default();
        for sent_ms in [0, 1_000] {
            let mut head = head(0, Stamps::default(), sent_ms);
            head.base = Base::Uptime;
            head.wall = head.wall.map(|wall| WallClock {
                error_ms: Some(300),
                ..wall
            });
            let clock = received(&head, &mut sightings, now(sent_ms + 7_000));
            let off_us = clock.offset_us - (TRUE_US - 5_000_000);
            assert_eq!(off_us, 7_000_000);
            assert_eq!(clock.error_ms, (sent_ms > 0).then_some(7_300));
        }
    }

    #[test]
    fn the_error_of_an_uptime_grows_with_the_distance_from_where_it_was_dated() {
        let day_us = 24 * 3_600 * 1_000_000i64;
        let error = |times| drifted(Clock::SYNCED, day_us, times).error_ms;
        assert_eq!(error((day_us, day_us)), Some(1));
        assert_eq!(error((day_us, 11 * day_us)), Some(1 + 432_000));
        assert_eq!(error((0, day_us)), Some(1 + 43_200));
        assert_eq!(error((i64::MIN, i64::MAX)), Some(u32::MAX));
        assert_eq!(drifted(Clock::UNDATED, 0, (0, day_us)).error_ms, None);
    }

    #[test]
    fn a_boot_without_a_number_is_never_taken_for_the_one_before() {
        let mut sightings = Sightings::default();
        let mut head = head(0, Stamps::default(), 0);
        (head.boot, head.base, head.wall) = (0, Base::Uptime, None);
        received(&head, &mut sightings, now(0));
        // It began again: its uptime is small once more.
        head.uptime_ms = Some(100);
        let clock = received(&head, &mut sightings, now(30_000));
        assert_eq!(clock.offset_us, TRUE_US + 30_000_000 - 100_000);
        assert_eq!(clock.error_ms, None);
    }

    #[test]
    fn an_earlier_boot_is_dated_by_its_own_base_and_never_by_the_present_clock() {
        let mut head = head(0, Stamps::default(), 0);
        (head.base, head.boot, head.uptime_ms) = (Base::Uptime, 8, None);
        let mut sightings = Sightings::default();
        sightings.note(9, 5_000, head.wall, now(0));
        assert_eq!(date(&head, &sightings, None, now(0)), None);
        let base = KnownBase::of(&TimeBase {
            origin: head.origin.clone(),
            boot: 8,
            uptime_us: 60_000_000,
            wall: UnixMicros(TRUE_US - DAY_US),
            error_ms: Some(40),
        });
        let clock = date(&head, &sightings, Some(&base), now(0)).unwrap();
        assert_eq!(clock.offset_us, TRUE_US - DAY_US - 60_000_000);
        assert_eq!((clock.class, clock.error_ms), (TimeClass::Dated, Some(40)));
    }

    proptest! {
        /// Whatever a clock shows and says, the truth lies within the error stated of it, unless the
        /// sender lies about a clock that is off by less than the way may take.
        #[test]
        fn the_truth_is_within_the_stated_error(
            off_ms in prop_oneof![-10_000i64..10_000, any::<i32>().prop_map(i64::from)],
            error_ms in proptest::option::of(0u32..100_000),
            delay_ms in 0u64..5_000,
        ) {
            let stamps = Stamps { synced: true, error_ms };
            let head = head(off_ms * 1_000, stamps, 0);
            let clock = received(&head, &mut Sightings::default(), now(delay_ms));
            let truth = clock.error_ms.is_none_or(|error| {
                let allowed = u64::from(error) + u64::from(ALLOWANCE_MS) + delay_ms;
                off_ms.unsigned_abs() <= allowed
            });
            prop_assert!(truth, "{clock:?}");
        }
    }
}
