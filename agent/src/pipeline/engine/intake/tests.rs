//! The intake alone: what it takes, what must be stored first, and what it names.

use headwater_proto::sample::Value;

use super::*;
use crate::pipeline::admit::Field;

/// A source that resumes, and one that does not.
const REPLAY: usize = 0;
const HOST: usize = 1;
const ALARM: usize = 0;
const NORMAL: usize = 1;
const TURN: Turn = Turn {
    base: Base::Wall,
    others_from: Millis(0),
};

fn intake() -> Intake {
    let mut settings = Settings::new(DeviceId::new("pump-1").unwrap());
    let source = |name: &str, resumes| SourceSettings {
        name: name.to_owned(),
        resumes,
        loses: !resumes,
        durable_within_ms: None,
    };
    settings.sources = vec![source("replay", true), source("host", false)];
    settings.batch.rows = 3;
    Intake::new(&settings, now())
}

const fn now() -> Now {
    Now {
        mono: Millis(0),
        wall: UnixMicros(1_900_000_000_000_000),
    }
}

const fn cursor(minor: u64) -> Cursor {
    Cursor {
        major: 0,
        minor,
        tag: 0,
    }
}

/// Item `k` of a source, which gives a cursor after it if it resumes.
fn item(intake: &Intake, lane: usize, source: usize, k: u64) -> Item {
    let time = UnixMicros(now().wall.0 + k.cast_signed());
    Item {
        lane,
        source,
        cursor: (source == REPLAY).then_some(cursor(k + 1)),
        samples: 2,
        dated: intake.clock.date(time, now()),
    }
}

/// Offers row `k`: whether its batch is full.
fn offer(intake: &mut Intake, source: usize, k: u64, has_room: bool) -> Result<bool, OfferError> {
    let item = item(intake, NORMAL, source, k);
    let is_known = intake.is_known(&item, None);
    let Taken::New(given) = intake.enter(&item, is_known, has_room, Millis(0))? else {
        panic!("no cursor covers it");
    };
    let fields = [Field::new("k", Value::I64(k.cast_signed()))];
    let sample = Sample {
        time: UnixMicros(0),
        labels: &[],
        fields: &fields,
    };
    Ok(intake.row(NORMAL, source, &sample, item.dated, given, Millis(0)))
}

fn settled(intake: &Intake, source: usize) -> Settled {
    let mut settled = Settled::default();
    intake.tell_settled(source, &mut settled);
    settled
}

/// 300 ms after everything was offered.
fn later() -> Now {
    Now {
        mono: Millis(300),
        wall: UnixMicros(1_800_000_000_000_000),
    }
}

#[test]
fn a_record_says_since_when_something_is_in_none() {
    let mut intake = intake();
    for source in [REPLAY, HOST] {
        offer(&mut intake, source, 0, true).unwrap();
    }
    let mut stored_to = |source| {
        let which = Which::Of(source);
        let closed = intake.close(NORMAL, which, TURN, Millis(300)).unwrap();
        intake.record(NORMAL, closed, later()).stored_to
    };
    let now = later().wall;
    assert_eq!(stored_to(REPLAY), Some(UnixMicros(now.0 - 300_000)));
    assert_eq!(stored_to(HOST), Some(now));
}

#[test]
fn rows_become_one_record_whose_receipts_wait_until_it_is_settled() {
    let mut intake = intake();
    let full: Vec<_> = (0..3)
        .map(|k| offer(&mut intake, REPLAY, k, true))
        .collect();
    assert_eq!(full, [Ok(false), Ok(false), Ok(true)]);
    let closed = intake.close(NORMAL, Which::Full, TURN, Millis(0)).unwrap();
    let record = intake.record(NORMAL, closed, later());
    assert_eq!(
        (record.kind, record.samples, record.live),
        (Kind::Batch, 3, false)
    );
    assert_eq!(
        (&*record.source, record.cursor),
        ("replay", Some(cursor(3)))
    );
    assert_eq!(settled(&intake, REPLAY).durable, 0);
    intake.settle(&record.owed.unwrap());
    assert_eq!(settled(&intake, REPLAY).durable, 3);
    let counted = intake.counted();
    assert_eq!(
        (counted.readings, counted.samples, counted.records),
        (3, 3, 1)
    );
}

#[test]
fn what_a_durable_cursor_covers_is_known_and_the_lane_of_a_source_that_resumes_is_kept() {
    let mut intake = intake();
    let known = item(&intake, NORMAL, REPLAY, 4);
    assert_eq!(intake.is_known(&known, Some(cursor(5))), Ok(true));
    let receipt = intake.enter(&known, Ok(true), false, Millis(0));
    assert!(matches!(receipt, Ok(Taken::Known(0))));
    assert_eq!(settled(&intake, REPLAY).durable, 1);
    let next = item(&intake, NORMAL, REPLAY, 5);
    assert_eq!(intake.is_known(&next, Some(cursor(5))), Ok(false));
    let elsewhere = item(&intake, ALARM, REPLAY, 6);
    let other = OtherLane(Lane::Normal);
    assert_eq!(intake.is_known(&elsewhere, None), Err(other));
    let refused = intake.enter(&elsewhere, Err(other), true, Millis(0));
    assert_eq!(refused.err(), Some(other.into()));
    assert_eq!(intake.counted().covered, 1);
}

#[test]
fn without_room_a_source_that_resumes_waits_and_the_loss_of_another_is_kept_to_be_named() {
    let mut intake = intake();
    assert_eq!(offer(&mut intake, REPLAY, 0, false), Err(OfferError::Busy));
    assert_eq!(settled(&intake, REPLAY), Settled::default());
    assert_eq!(intake.take_missed(NORMAL), []);
    for k in [7, 3] {
        assert_eq!(offer(&mut intake, HOST, k, false), Err(OfferError::Busy));
    }
    let told = settled(&intake, HOST);
    let lost = told.not_durable.first().cloned();
    assert_eq!((told.durable, lost), (2, Some(0..2)));
    let wall = |k| UnixMicros(now().wall.0 + k);
    let missed = Missed {
        source: HOST,
        samples: 4,
        span: Some((wall(3), wall(7))),
        cursor: None,
        reason: GapReason::Overflow,
    };
    assert_eq!(intake.take_missed_of(NORMAL, REPLAY), None);
    assert_eq!(intake.take_missed_of(NORMAL, HOST), Some(missed));
    assert_eq!(intake.take_missed_of(NORMAL, HOST), None);
    assert_eq!(
        (intake.counted().busy, intake.counted().lost_samples),
        (3, 4)
    );
}

#[test]
fn a_source_that_resumes_stores_its_rows_before_it_gives_anything_else() {
    let mut intake = intake();
    for source in [REPLAY, HOST] {
        assert_eq!(offer(&mut intake, source, 0, true), Ok(false));
        let must = intake.must_close_first(NORMAL, source, Next::Line, Base::Wall);
        assert_eq!(must, source == REPLAY);
    }
    let closed = intake.close(NORMAL, Which::Of(REPLAY), TURN, Millis(0));
    assert_eq!(closed.map(|closed| closed.owed.source), Some(REPLAY));
    assert!(!intake.must_close_first(NORMAL, REPLAY, Next::Line, Base::Wall));
}
