//! Stretches and their ties, and what readers make of them.

use super::*;
use crate::pipeline::envelope::{BatchHead, Evidence, GapHead, TimeClass, Verdict};
use crate::pipeline::rules::RulesId;
use headwater_proto::ids::{DeviceId, Epoch, Lane, Stream};
use headwater_proto::message::GapReason;

const HOUR_US: i64 = 3_600_000_000;

fn stream() -> Stream {
    Stream {
        device: DeviceId::new("d").unwrap(),
        lane: Lane::Normal,
        epoch: Epoch::new(1),
    }
}

fn gap(at_us: i64) -> Record<'static> {
    Record::Gap(GapHead {
        stream: stream(),
        range: None,
        span: Span {
            first: UnixMicros(10),
            last: UnixMicros(at_us),
            known: Known::Neighbours,
        },
        reason: GapReason::Abandoned,
        at: UnixMicros(at_us),
    })
}

fn ties(stretches: &Stretches) -> Vec<(u64, i64, u32)> {
    let ties = stretches.head().ties.iter();
    ties.map(|tie| (tie.number, tie.offset_us, tie.error_ms))
        .collect()
}

#[test]
fn a_stretch_of_this_boot_is_tied_exactly_and_one_of_an_earlier_boot_by_its_bounds() {
    let mut stretches = Stretches::default();
    stretches.begin(7, 1_000, false, Millis(0));
    stretches.apply(&gap(5_000));
    // The machine starts anew, and is in doubt again.
    stretches.begin(8, 6_000, false, Millis(0));
    stretches.apply(&gap(9_000));
    // The process starts anew: the stretch goes on.
    stretches.begin(8, 6_000, false, Millis(20));
    assert_eq!(stretches.head().waiting.len(), 1);
    stretches.settle((8, Millis(20)), 6_000 + HOUR_US, 99);
    assert_eq!(stretches.head().undated, None);
    // From its end at 5,000 us to the start of the present process.
    let most_us = 6_000 + HOUR_US + 20_000 - 5_000;
    assert_eq!(
        ties(&stretches),
        [(1, most_us / 2, 1_800_012), (2, HOUR_US, 0)]
    );
    stretches.forget_before(99, Millis(0));
    assert_eq!(stretches.head(), &ClockHead::default());
}

#[test]
fn of_an_earlier_boot_that_the_devices_spoke_against_nobody_knows_the_error() {
    let mut stretches = Stretches::default();
    stretches.begin(7, 1_000, true, Millis(0));
    stretches.apply(&gap(500));
    stretches.settle((8, Millis(0)), HOUR_US, 9);
    assert_eq!(ties(&stretches), [(1, HOUR_US - 1_000, u32::MAX)]);
}

#[test]
fn at_the_bound_no_further_stretch_is_taken() {
    let mut stretches = Stretches::default();
    for boot in 0..=MAX_UNDATED as u64 {
        assert!(!stretches.is_full(), "{boot}");
        stretches.begin(boot, 1, false, Millis(0));
        stretches.apply(&gap(1));
    }
    assert!(stretches.is_full() && stretches.undated().is_none());
    // What was tied goes with its records, and the stretch that found no room begins.
    stretches.settle((0, Millis(0)), 0, 50);
    assert!(!stretches.is_full());
    stretches.begin(1_000, 1, false, Millis(0));
    assert!(stretches.is_full());
    stretches.forget_before(50, Millis(0));
    assert!(!stretches.is_full() && stretches.undated().is_some());
    let head = ClockHead {
        ties: vec![
            Tie {
                number: u64::MAX,
                offset_us: i64::MIN,
                error_ms: u32::MAX,
                until: u64::MAX,
            };
            MAX_UNDATED
        ],
        ..stretches.head().clone()
    };
    let longest = Undated {
        number: u64::MAX,
        boot: u64::MAX,
        zero_us: i64::MIN,
        by_fleet: true,
        last_us: i64::MIN,
    };
    let most = ClockHead {
        undated: Some(longest),
        waiting: vec![longest; MAX_UNDATED],
        ties: Vec::new(),
    };
    for head in [head, most] {
        assert!(postcard::to_allocvec(&head).unwrap().len() <= CLOCK_BYTES);
    }
}

#[test]
fn a_span_holds_both_what_a_device_and_what_a_receipt_may_have_said() {
    let tie = Tie {
        offset_us: HOUR_US,
        error_ms: 2,
        ..Tie::NONE
    };
    let Record::Gap(head) = dated(gap(5_000), &tie) else {
        panic!("it stays a gap");
    };
    assert_eq!(head.at.0, 5_000 + HOUR_US);
    let (first, last) = (head.span.first.0, head.span.last.0);
    assert_eq!((first, last), (10, 5_000 + HOUR_US + 2_000));
}

#[test]
fn what_only_receipts_can_date_is_dated_by_the_tie_and_a_wrong_clock_is_found_by_it() {
    let tie = Tie {
        offset_us: HOUR_US,
        ..Tie::NONE
    };
    let clock_of = |evidence| {
        let head = BatchHead {
            stream: stream(),
            seq: 1,
            verdict: Verdict::Store,
            at: UnixMicros(5),
            clock: crate::pipeline::envelope::Clock::UNDATED,
            via: None,
            rules: RulesId::of(b""),
            around: None,
            evidence: Some(evidence),
        };
        let Record::Batch(head, _) = dated(Record::Batch(head, b""), &tie) else {
            panic!("it stays a batch");
        };
        assert_eq!((head.at.0, head.evidence), (5 + HOUR_US, None));
        (head.clock.class, head.clock.offset_us, head.clock.error_ms)
    };
    let by_receipts = Evidence::Uptime {
        uptime_us: 3,
        wall: None,
        began_us: 2,
        confirmed: true,
    };
    let dated = (TimeClass::Dated, 2 + HOUR_US, Some(dating::DATED_ERROR_MS));
    assert_eq!(clock_of(by_receipts), dated);
    // By what the collector's clock seemed to be the device was an hour ahead, and right all the same.
    let wall = |behind_us| Evidence::Wall {
        synced: true,
        error_ms: Some(20),
        behind_us,
    };
    assert_eq!(clock_of(wall(-HOUR_US)), (TimeClass::Synced, 0, Some(20)));
    assert_eq!(clock_of(wall(0)), (TimeClass::Wall, 0, Some(3_600_020)));
}

#[test]
fn readers_learn_a_tie_when_it_is_told_and_not_before() {
    let book = ClockBook::default();
    let now = Now {
        mono: Millis(4),
        wall: UnixMicros(9),
    };
    assert_eq!((book.tie(1), book.now(now)), (None, now));
    book.tell_zero(Some(100));
    assert_eq!(book.clone().now(now).wall, UnixMicros(4_100));
    let tie = Tie {
        number: 1,
        ..Tie::NONE
    };
    book.tell_ties(&[tie]);
    book.tell_zero(None);
    assert_eq!((book.tie(1), book.now(now)), (Some(tie), now));
}

#[test]
fn a_stretch_without_a_record_leaves_nothing_to_tie() {
    let mut stretches = Stretches::default();
    for boot in 0..2 * MAX_UNDATED as u64 {
        stretches.begin(boot, 1, false, Millis(0));
        stretches.settle((boot, Millis(0)), HOUR_US, 9);
    }
    assert_eq!((ties(&stretches), stretches.is_full()), (Vec::new(), false));
}
