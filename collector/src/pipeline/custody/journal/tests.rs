//! The journal alone: what an append says became of the record and of the group before it, and how far its
//! sinks are after a group that failed.

use headwater_proto::ids::{DeviceId, Epoch, Lane, SeqRange, Stream};
use headwater_proto::message::GapReason;
use headwater_proto::time::{Millis, UnixMicros};
use headwater_spool::{FakeDisk, Log};

use super::super::types::SinkSpec;
use super::*;
use crate::pipeline::envelope::GONE;
use crate::pipeline::envelope::{
    CursorHead, GapHead, Known, PlanHead, SessionHead, SinkCursor, Span,
};
use crate::pipeline::snapshot::Plans;

const LAKE: &str = "lake";
const HOT: &str = "hot";
const SEGMENT_BYTES: u64 = 8 << 10;

fn journal(disk: &FakeDisk, quota_bytes: u64) -> (Journal<FakeDisk>, Ledger) {
    let config = headwater_spool::Config {
        segment_bytes: SEGMENT_BYTES,
        quota_bytes,
        reserve_bytes: 3 * SEGMENT_BYTES,
        fs_reserve_bytes: 0,
        fs_reserve_percent: 0,
        ..headwater_spool::Config::default()
    };
    let (log, _) = Log::open(disk.clone(), config).unwrap();
    let (restored, at, _) = restore(&log, &mut || 7).unwrap();
    let rules = Rules {
        id: RulesId::of(b"rules"),
        bytes: b"rules".to_vec(),
    };
    let spec = |name: &str, required| SinkSpec {
        name: name.to_owned(),
        required,
    };
    let specs = [spec(LAKE, true), spec(HOT, false)];
    let (mut journal, ledger) = Journal::new(log, rules, &specs, restored);
    journal.sinks.add_new(at);
    (journal, ledger)
}

fn session(client: &str) -> Record<'_> {
    Record::Session(SessionHead {
        client,
        present: true,
    })
}

fn gap() -> Record<'static> {
    Record::Gap(GapHead {
        stream: Stream {
            device: DeviceId::new("d").unwrap(),
            lane: Lane::Normal,
            epoch: Epoch::new(1),
        },
        range: Some(SeqRange::new(0, 1)),
        span: Span {
            first: UnixMicros(0),
            last: UnixMicros(1),
            known: Known::Bounds,
        },
        reason: GapReason::Damaged,
        at: UnixMicros(1),
    })
}

/// Appends sessions until one begins a segment; what became of that one.
fn fill(journal: &mut Journal<FakeDisk>, ledger: &Ledger, leaves: Leaves) -> Put {
    let client = "c".repeat(600);
    loop {
        let put = journal.append(ledger, None, &session(&client), leaves);
        if put.synced || put.came.is_err() {
            return put;
        }
    }
}

fn report(through: u64) -> Report {
    Report {
        sink: LAKE.to_owned(),
        through,
        streams: Vec::new(),
        refused: Vec::new(),
        damaged: 0,
        named: None,
    }
}

#[test]
fn a_record_that_begins_a_segment_says_that_the_group_before_it_is_durable() {
    let disk = FakeDisk::new();
    let (mut journal, ledger) = journal(&disk, 1 << 20);
    let first = journal.append(&ledger, None, &session("a"), Leaves::Three);
    // Begin, Rules and DecoderState stand before it.
    assert_eq!((first.synced, first.came), (false, Ok(3)));
    let put = fill(&mut journal, &ledger, Leaves::Three);
    assert!(put.synced);
    let position = put.came.unwrap();
    assert_eq!(
        journal.log().durable(),
        position - 3,
        "all before its segment"
    );
    assert!(journal.sync().unwrap());
    assert!(!journal.sync().unwrap(), "nothing was left");
    assert!(journal.clients().contains("a"));
}

#[test]
fn a_group_that_fails_on_the_way_is_told_from_a_record_without_room() {
    let disk = FakeDisk::new();
    let (mut journal, ledger) = journal(&disk, 5 * SEGMENT_BYTES);
    journal.append(&ledger, None, &session("a"), Leaves::Three);
    disk.fail_sync(0);
    let put = fill(&mut journal, &ledger, Leaves::Three);
    assert_eq!((put.synced, put.came), (false, Err(NotPut::GroupFailed)));
    let (mut journal, ledger) = self::journal(&FakeDisk::new(), 5 * SEGMENT_BYTES);
    let full = std::iter::from_fn(|| Some(fill(&mut journal, &ledger, Leaves::Three)))
        .find(|put| put.came.is_err());
    assert_eq!(full.map(|put| put.came), Some(Err(NotPut::Full)));
    let gap = journal.append(&ledger, None, &gap(), Leaves::Two);
    assert!(gap.came.is_ok(), "readings leave room to gaps");
}

#[test]
fn a_failed_group_takes_back_its_plans_and_the_cursors_that_it_moved() {
    let disk = FakeDisk::new();
    let (mut journal, ledger) = journal(&disk, 1 << 20);
    journal.append(&ledger, None, &session("a"), Leaves::Three);
    let carried_out = PlanHead { sink: LAKE };
    let carried_out = Record::Plan(carried_out, b"carried out");
    journal.append(&ledger, None, &carried_out, Leaves::One);
    journal.sync().unwrap();
    let before = SinkCursor {
        name: LAKE.to_owned(),
        position: 0,
    };
    assert_eq!(journal.sinks.cursor(LAKE), Some(0));
    let said = Some(report(3));
    journal.sinks.moving(Moved {
        cursor: before.clone(),
        said,
    });
    journal.sinks.has_come(LAKE, 3);
    assert!(journal.sinks.plans().is_empty());
    let plan = PlanHead { sink: HOT };
    let put = journal.append(&ledger, None, &Record::Plan(plan, b"plan"), Leaves::One);
    assert!(put.came.is_ok() && journal.sinks.plans().contains_key(HOT));
    disk.fail_sync(0);
    journal.sync().unwrap_err();
    let plans: Vec<_> = journal.sinks.plans().keys().collect();
    assert_eq!(plans, [LAKE], "the one that was durable before is back");
    assert_eq!(journal.sinks.cursor(LAKE), Some(0));
    assert_eq!(
        journal.sinks.take_held(),
        [report(3)],
        "it is taken in once more"
    );
    // What is durable stays.
    journal.sinks.moving(Moved {
        cursor: before,
        said: None,
    });
    journal.sinks.raise(LAKE, 3);
    journal.append(&ledger, None, &session("b"), Leaves::Three);
    journal.sync().unwrap();
    journal.append(&ledger, None, &session("c"), Leaves::Three);
    disk.fail_sync(0);
    journal.sync().unwrap_err();
    assert_eq!(journal.sinks.cursor(LAKE), Some(3));
}

#[test]
fn a_segment_goes_when_every_sink_passed_it_in_a_durable_snapshot() {
    let (mut journal, ledger) = journal(&FakeDisk::new(), 1 << 20);
    let end = fill(&mut journal, &ledger, Leaves::Three).came.unwrap();
    journal.sync().unwrap();
    journal.sinks.has_come(LAKE, end);
    journal.sinks.has_come(HOT, end);
    assert!(journal.would_free());
    assert_eq!(journal.release(), 0, "no snapshot says so yet");
    journal.roll().unwrap();
    let cursor = CursorHead {
        sink: LAKE,
        position: end,
    };
    journal.append(&ledger, None, &Record::Cursor(cursor), Leaves::None);
    assert_eq!(journal.release(), 0, "its snapshot is not durable yet");
    journal.sync().unwrap();
    assert!(journal.release() > 0);
}

#[test]
fn a_journal_with_more_to_say_of_the_fleet_than_a_segment_holds_comes_to_rest() {
    let (mut journal, ledger) = journal(&FakeDisk::new(), 1 << 20);
    let client = |n: usize| format!("{n:0>600}");
    for n in 0..40 {
        let client = client(n);
        let put = journal.append(&ledger, None, &session(&client), Leaves::Three);
        assert!(put.came.is_ok());
        journal.apply(put.came.unwrap(), &session(&client));
    }
    assert_eq!(journal.clients().len(), 40);
    let mut rolls = 0;
    for _ in 0..10 {
        // All sinks have all; ever more of it is free.
        let end = journal.log().next();
        journal.sinks.has_come(LAKE, end);
        journal.sinks.has_come(HOT, end);
        if journal.would_free() {
            rolls += 1;
            journal.roll().unwrap();
            let cursor = CursorHead {
                sink: LAKE,
                position: end,
            };
            let put = journal.append(&ledger, None, &Record::Cursor(cursor), Leaves::None);
            assert!(put.came.is_ok());
        }
        journal.sync().unwrap();
        journal.release();
    }
    assert!(journal.budget.snapshot as u64 > 2 * SEGMENT_BYTES);
    assert_eq!((rolls, journal.log().segments().count()), (1, 1));
}

#[test]
fn only_optional_sinks_are_left_behind() {
    let (mut journal, ledger) = journal(&FakeDisk::new(), 1 << 20);
    let end = fill(&mut journal, &ledger, Leaves::Three).came.unwrap();
    assert_eq!(journal.kept_for_others_to(), None, "the lake needs it too");
    journal.sinks.has_come(LAKE, end);
    let to = journal.kept_for_others_to().unwrap();
    let behind = journal.sinks.behind(to);
    assert_eq!(behind.len(), 1);
    assert_eq!(behind[0].name, HOT);
}

#[test]
fn a_sink_that_was_taken_out_is_known_until_a_durable_record_says_that_it_is_gone() {
    let disk = FakeDisk::new();
    let (mut journal, ledger) = journal(&disk, 1 << 20);
    let left = SinkCursor {
        name: "left".to_owned(),
        position: 1,
    };
    journal.sinks = Sinks::new(Vec::new(), vec![left.clone()], Plans::new());
    assert_eq!(journal.sinks.leavers(), std::slice::from_ref(&left));
    let gone = CursorHead {
        sink: "left",
        position: GONE,
    };
    for fails in [true, false] {
        journal.sinks.moving(Moved {
            cursor: left.clone(),
            said: None,
        });
        let put = journal.append(&ledger, None, &Record::Cursor(gone), Leaves::One);
        assert!(put.came.is_ok());
        assert_eq!(journal.sinks.leavers(), []);
        if fails {
            disk.fail_sync(0);
            journal.sync().unwrap_err();
            assert_eq!(journal.sinks.leavers(), std::slice::from_ref(&left));
        } else {
            journal.sync().unwrap();
        }
    }
    assert_eq!(journal.sinks.leavers(), []);
}

#[test]
fn a_cursor_is_noted_once_in_a_while_and_at_an_end() {
    let (mut journal, ledger) = journal(&FakeDisk::new(), 1 << 20);
    journal.append(&ledger, None, &session("a"), Leaves::Three);
    journal.sinks.has_come(LAKE, 2);
    let names = |cursors: Vec<SinkCursor>| -> Vec<String> {
        cursors.into_iter().map(|cursor| cursor.name).collect()
    };
    assert_eq!(names(journal.sinks.to_note(Millis(1), false)), [""; 0]);
    let due = journal.sinks.to_note(Millis(1_000), false);
    assert_eq!(names(due.clone()), [LAKE]);
    journal.sinks.note(due[0].clone(), Millis(1_000));
    journal.sinks.has_come(LAKE, 3);
    assert_eq!(names(journal.sinks.to_note(Millis(1_001), false)), [""; 0]);
    assert_eq!(names(journal.sinks.to_note(Millis(1_001), true)), [LAKE]);
    // A position that only a note stands behind is worth none.
    journal.sinks.has_come(LAKE, 4);
    journal.sinks.note(due[0].clone(), Millis(1_000));
    journal.sinks.note(
        SinkCursor {
            name: LAKE.to_owned(),
            position: 4,
        },
        Millis(1_000),
    );
    journal.sinks.has_come(LAKE, 5);
    assert_eq!(names(journal.sinks.to_note(Millis(9_000), true)), [""; 0]);
}

#[test]
fn the_last_plan_of_the_lake_stays_and_is_back_when_the_next_one_is_lost() {
    let disk = FakeDisk::new();
    let (mut journal, ledger) = journal(&disk, 1 << 20);
    journal.sinks.has_met(LAKE);
    let plan = |bytes| Record::Plan(PlanHead { sink: LAKE }, bytes);
    let last = |journal: &Journal<FakeDisk>| journal.sinks.plans()[LAKE].bytes.clone();
    let put = journal.append(&ledger, None, &plan(b"one"), Leaves::One);
    journal.sync().unwrap();
    journal.sinks.has_come(LAKE, put.came.unwrap());
    assert_eq!(last(&journal), b"one");
    journal.append(&ledger, None, &plan(b"two"), Leaves::One);
    assert_eq!(last(&journal), b"two");
    disk.fail_sync(0);
    journal.sync().unwrap_err();
    assert_eq!(last(&journal), b"one");
}

#[test]
fn a_sink_that_went_back_keeps_the_segments_that_it_reads_again() {
    let (mut journal, ledger) = journal(&FakeDisk::new(), 1 << 20);
    let end = fill(&mut journal, &ledger, Leaves::Three).came.unwrap();
    journal.sync().unwrap();
    journal.sinks.has_come(LAKE, end);
    journal.sinks.has_come(HOT, end);
    journal.roll().unwrap();
    let cursor = CursorHead {
        sink: LAKE,
        position: end,
    };
    journal.append(&ledger, None, &Record::Cursor(cursor), Leaves::None);
    journal.sync().unwrap();
    journal.go_back(LAKE, 1);
    assert_eq!(
        (journal.sinks.cursor(LAKE), journal.committed_to()),
        (Some(1), 0)
    );
    assert_eq!(journal.release(), 0);
}
