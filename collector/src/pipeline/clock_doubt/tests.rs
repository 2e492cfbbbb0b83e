//! Whether the clock is believed, by what the fleet and the last run say.

use super::*;
use proptest::prelude::*;

const TRUE_US: i64 = 1_795_946_400_000_000;
const HOUR_US: i64 = 3_600_000_000;
const DAY_US: i64 = 24 * HOUR_US;

/// What a clock shows that is off by so much.
fn at(after_ms: u64, off_us: i64) -> Now {
    let mono = Millis(after_ms);
    Now {
        mono,
        wall: UnixMicros(TRUE_US + micros(mono) + off_us),
    }
}

fn device(number: usize) -> DeviceId {
    DeviceId::new(&format!("d{number}")).unwrap()
}

fn begun(last: Option<i64>, off_us: i64) -> (ClockDoubt, Option<Change>) {
    let mut clock = ClockDoubt::default();
    let last = last.map(|ago_us| UnixMicros(TRUE_US - ago_us));
    let change = clock.begin(last, false, at(0, off_us));
    (clock, change)
}

/// A device with a right clock, or one that is off by so much, is heard.
fn hear(clock: &mut ClockDoubt, number: usize, after_ms: u64, off_us: i64) -> Option<Change> {
    let said = at(after_ms, off_us).wall;
    clock.heard(&device(number), said, Millis(after_ms))
}

#[test]
fn without_evidence_the_clock_is_believed_and_one_before_the_last_run_is_not() {
    assert_eq!(begun(None, -40 * DAY_US).1, None);
    assert_eq!(begun(Some(HOUR_US), 40 * DAY_US).1, None);
    assert_eq!(
        begun(Some(0), -STEP_US).1,
        None,
        "a time service corrects itself"
    );
    for off_us in [-2 * HOUR_US, -TRUE_US] {
        let (clock, change) = begun(Some(60_000_000), off_us);
        let Some(Change::Doubted { why, zero_us, .. }) = change else {
            panic!("{off_us}: {change:?}");
        };
        assert_eq!(
            why,
            Why::Before {
                us: -off_us - 60_000_000
            }
        );
        // Time goes on from the last run, and is no later than the truth.
        assert_eq!(zero_us, TRUE_US - 60_000_000);
        assert_eq!(clock.wall_at(Millis(5)), Some(UnixMicros(zero_us + 5_000)));
    }
}

#[test]
fn a_clock_that_only_waits_is_not_right_and_one_that_is_set_right_is() {
    let (mut clock, _) = begun(Some(60_000_000), -2 * HOUR_US);
    let three_hours_ms = 3 * 3_600_000;
    assert_eq!(clock.look(at(three_hours_ms, -2 * HOUR_US)), None);
    assert!(clock.doubt().is_some());
    let settled = clock.look(at(three_hours_ms + 1, 0));
    let (offset_us, by_operator) = (TRUE_US, false);
    assert_eq!(
        settled,
        Some(Change::Settled {
            offset_us,
            by_operator
        })
    );
    // It is set back while the collector runs, and comes right.
    let back = clock.look(at(three_hours_ms + 2, -STEP_US - 1));
    assert!(matches!(back, Some(Change::Doubted { .. })), "{back:?}");
    assert!(matches!(
        clock.look(at(three_hours_ms + 3, 0)),
        Some(Change::Settled { .. })
    ));
}

#[test]
fn a_clock_that_is_slewed_for_long_is_followed() {
    let (mut clock, _) = begun(Some(0), 0);
    for step in 1..1_000 {
        assert_eq!(
            clock.look(at(step, -1_000_000 * i64::try_from(step).unwrap())),
            None
        );
    }
}

#[test]
fn three_devices_can_speak_against_it_and_two_cannot() {
    let (mut clock, _) = begun(Some(HOUR_US), 40 * DAY_US);
    assert_eq!(hear(&mut clock, 0, 10, 0), None);
    assert_eq!(hear(&mut clock, 1, 20, 0), None);
    let change = hear(&mut clock, 2, 30, 0);
    let why = Why::Fleet { differ: 3, of: 3 };
    assert!(
        matches!(change, Some(Change::Doubted { why: w, .. }) if w == why),
        "{change:?}"
    );
    // It is set, and still not right.
    assert_eq!(clock.look(at(40, DAY_US)), None);
    assert!(matches!(
        clock.look(at(50, 1)),
        Some(Change::Settled { .. })
    ));
}

#[test]
fn devices_that_agree_outweigh_a_last_run_in_the_future() {
    let (mut clock, change) = begun(Some(-40 * DAY_US), 0);
    assert!(matches!(change, Some(Change::Doubted { .. })));
    for number in 0..2 {
        assert_eq!(hear(&mut clock, number, 10, 0), None);
    }
    assert!(matches!(
        hear(&mut clock, 2, 10, 0),
        Some(Change::Settled { .. })
    ));
}

#[test]
fn what_devices_said_before_a_restart_is_taken_back_by_devices_or_an_operator() {
    let mut clock = ClockDoubt::default();
    let last = Some(UnixMicros(TRUE_US));
    let change = clock.begin(last, true, at(0, 40 * DAY_US));
    assert!(matches!(change, Some(Change::Doubted { .. })));
    assert_eq!(clock.look(at(1, 0)), None, "nobody is there to say so");
    let by_operator = true;
    let settled = Change::Settled {
        offset_us: TRUE_US,
        by_operator,
    };
    assert_eq!(clock.trust(at(2, 0)), Some(settled));
}

#[test]
fn an_operator_is_believed_until_the_clock_is_set() {
    let (mut clock, _) = begun(Some(-40 * DAY_US), 0);
    assert!(matches!(
        clock.trust(at(1, 0)),
        Some(Change::Settled { .. })
    ));
    for number in 0..5 {
        assert_eq!(hear(&mut clock, number, 2, 2 * HOUR_US), None);
    }
    let set = clock.look(at(3, -2 * STEP_US));
    assert!(matches!(set, Some(Change::Doubted { .. })), "{set:?}");
}

#[test]
fn an_older_lake_or_journal_is_not_needed_where_the_lake_was_written_to_later() {
    let (mut clock, change) = begun(Some(3 * HOUR_US), -2 * HOUR_US);
    assert_eq!(change, None);
    let change = clock.know_commit(UnixMicros(TRUE_US - 1));
    assert!(
        matches!(change, Some((_, Change::Doubted { .. }))),
        "{change:?}"
    );
}

#[test]
fn the_sender_heard_of_longest_ago_gives_way() {
    let (mut clock, _) = begun(None, 0);
    for number in 0..=MAX_WITNESSES {
        let after_ms = u64::try_from(number).unwrap();
        assert_eq!(hear(&mut clock, number, after_ms, 0), None);
    }
    assert_eq!(clock.witnesses.len(), MAX_WITNESSES);
    assert!(!clock.witnesses.contains_key(&device(0)));
}

#[test]
fn it_says_why_and_what_to_do() {
    let (_, change) = begun(Some(0), -2 * HOUR_US);
    let text = change.unwrap().to_string();
    assert!(text.contains("stands 7200 s before"), "{text}");
    assert!(text.contains("clock trust"), "{text}");
}

proptest! {
    #[test]
    fn one_device_alone_never_causes_doubt(
        said in prop::collection::vec((any::<i32>(), 0usize..5), 1..60),
        others in 0usize..4,
    ) {
        let (mut clock, _) = begun(Some(0), 0);
        for other in 0..others {
            prop_assert_eq!(hear(&mut clock, 1 + other, 0, 0), None);
        }
        for (step, (seconds, other)) in (1u64..).zip(said) {
            let off_us = i64::from(seconds) * 1_000_000;
            prop_assert_eq!(hear(&mut clock, 0, step, off_us), None);
            if other < others {
                prop_assert_eq!(hear(&mut clock, 1 + other, step, 0), None);
            }
            prop_assert_eq!(clock.look(at(step, 0)), None);
        }
    }

    #[test]
    fn changes_alternate_and_a_clock_that_is_right_with_its_witnesses_is_believed(
        steps in prop::collection::vec((0usize..6, -3i64..=3, any::<bool>()), 1..80),
    ) {
        let (mut clock, change) = begun(Some(0), 0);
        prop_assert_eq!(change, None);
        let mut in_doubt = false;
        for (after_ms, (who, half_hours, is_device)) in (1u64..).zip(steps) {
            let off_us = half_hours * HOUR_US / 2;
            let change = if is_device {
                hear(&mut clock, who, after_ms, off_us)
            } else {
                clock.look(at(after_ms, off_us))
            };
            match change {
                Some(Change::Doubted { .. }) => {
                    prop_assert!(!in_doubt);
                    in_doubt = true;
                }
                Some(Change::Settled { .. }) => {
                    prop_assert!(in_doubt);
                    in_doubt = false;
                }
                None => {}
            }
            prop_assert_eq!(clock.doubt().is_some(), in_doubt);
        }
        for number in 0..6 {
            hear(&mut clock, number, 1_000, 0);
        }
        clock.look(at(1_001, 0));
        prop_assert_eq!(clock.doubt(), None);
        prop_assert_eq!(clock.wall_at(Millis(1_001)), Some(at(1_001, 0).wall));
    }
}
