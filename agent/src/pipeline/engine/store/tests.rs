//! The store alone: what an append says, and what its owner can do then.

use headwater_proto::frame::Kind;
use headwater_proto::ids::DeviceId;
use headwater_proto::message::{Gap, GapReason};
use headwater_proto::time::{Millis, UnixMicros};
use headwater_spool::FakeDisk;

use super::*;
use crate::pipeline::record::Cursor;

/// Lane normal, by number.
pub(crate) const NORMAL: usize = 1;
/// Nothing is committed.
const OPEN: Committed<'static> = &|_, _, _| false;

fn settings() -> Settings {
    let mut settings = Settings::new(DeviceId::new("pump-1").unwrap());
    settings.spool.segment_bytes = 4096;
    settings.spool.lane_bytes = [5 * 4096, 5 * 4096, 2 * 4096];
    settings.spool.dead_letter_bytes = 4 * 4096;
    settings.spool.fs_reserve_percent = 0;
    settings.spool.fs_reserve_bytes = 0;
    settings
}

pub(crate) fn open(disk: &FakeDisk, random: u64) -> Store<FakeDisk> {
    open_with(disk, &settings(), random)
}

fn open_with(disk: &FakeDisk, settings: &Settings, random: u64) -> Store<FakeDisk> {
    let opened = Store::open(disk, settings, Base::Wall, (random, 2, 3));
    opened.unwrap().0
}

const fn now(ms: u64) -> Now {
    Now {
        mono: Millis(ms),
        wall: UnixMicros(0),
    }
}

pub(crate) fn moment() -> Moment {
    let stamps = Stamps::default();
    let now = now(0);
    Moment {
        now,
        wall: None,
        stamps,
    }
}

/// Record `k` of a source, 500 bytes of text that nothing reads, with a receipt.
pub(crate) fn record(k: u64, live: bool) -> Box<Draft> {
    let mut frame = Vec::new();
    headwater_proto::frame::append(Kind::Refused, &[7; 500], &mut frame).unwrap();
    let cursor = Cursor {
        major: 0,
        minor: k + 1,
        tag: 0,
    };
    Box::new(Draft {
        kind: Kind::Refused,
        stamps: Stamps::default(),
        source: "log".to_owned(),
        base: Base::Wall,
        cursor: (!live).then_some(cursor),
        from: None,
        live,
        waits: !live,
        stored_to: None,
        schema: None,
        frame,
        samples: 1,
        says: Says::Nothing,
        owed: Some(Owed::one(0, k, None)),
    })
}

/// Appends records from `from` on until one finds no room: its number, and the segment to give way.
fn fill(store: &mut Store<FakeDisk>, from: u64) -> (u64, Victim) {
    for k in from.. {
        match store.lanes.append(NORMAL, record(k, false), now(0), OPEN) {
            Append::Appended => {}
            Append::Full {
                victim, by_others, ..
            } => {
                assert!(!by_others);
                return (k, victim.unwrap());
            }
            other @ (Append::Failed { .. } | Append::Unwritable(_)) => panic!("{other:?}"),
        }
    }
    unreachable!("the disk never fills")
}

/// The receipts that the news call durable.
pub(crate) fn durable(news: &[News]) -> Vec<u64> {
    let mut receipts = Vec::new();
    for news in news {
        if let News::Durable(owed) = news {
            receipts.push(owed.span.first);
        }
    }
    receipts
}

fn resumes_at(store: &Store<FakeDisk>) -> Option<u64> {
    store.lanes.resume_at("log").map(|cursor| cursor.minor)
}

#[test]
fn a_record_is_durable_and_may_go_out_with_the_sync_of_its_group_and_not_before() {
    let disk = FakeDisk::new();
    let mut store = open(&disk, 1);
    for k in 0..3 {
        let appended = store.lanes.append(NORMAL, record(k, false), now(0), OPEN);
        assert!(matches!(appended, Append::Appended));
    }
    assert_eq!(
        (store.lanes.take_news(), resumes_at(&store)),
        (vec![], None)
    );
    store.lanes.sync(NORMAL, now(5)).unwrap();
    let news = store.lanes.take_news();
    assert_eq!(durable(&news), [0, 1, 2]);
    let stored = |news: &News| matches!(news, News::Stored(held) if held.next == 3 && !held.ram);
    assert!(news.iter().any(stored));
    assert_eq!(
        (resumes_at(&store), store.lanes.counted().samples_durable),
        (Some(3), 3)
    );
    // The next start finds what was synced, under an epoch that has no end yet.
    let store = open(&disk.power_cut(3), 7);
    assert_eq!(resumes_at(&store), Some(3));
    let missing = store.lanes.lane(NORMAL).without_end();
    assert_eq!(
        missing.iter().map(|over| over.next).collect::<Vec<_>>(),
        [3]
    );
}

#[test]
fn a_full_lane_names_its_victim_and_goes_on_when_that_is_evicted() {
    let disk = FakeDisk::new();
    let mut store = open(&disk, 1);
    let (full, victim) = fill(&mut store, 0);
    let first = victim.segment.positions();
    assert_eq!((victim.lane, first.start), (NORMAL, 0));
    store.lanes.take_news();
    let evicted = store.evict(&victim, moment(), OPEN);
    assert!(matches!(evicted, Evicted::Gone));
    let gone = SeqRange::new(0, first.end);
    assert_eq!(store.lanes.counted().evicted_records, gone.len());
    let epoch = store.lanes.lane(NORMAL).epoch;
    let lane = Lane::Normal;
    let expected = News::Gone {
        lane,
        epoch,
        range: gone,
    };
    assert!(store.lanes.take_news().contains(&expected));
    // The gap is durable already: it is in the log after a loss of power, and the segment is not.
    let mut after = open(&disk.power_cut(3), 7);
    let held = after.lanes.lane(NORMAL).epochs[0];
    assert_eq!((held.first, held.next), (gone.next, full + 1));
    let log = after.lanes.spool.log_mut(NORMAL).unwrap();
    let mut named = None;
    log.read(held.base + full, 4096, |_, kind, payload| {
        let envelope = crate::pipeline::record::decode(payload).unwrap();
        let (frame, _) = headwater_proto::frame::decode(envelope.frame).unwrap();
        assert_eq!(kind, Kind::Gap.to_u8());
        named = headwater_proto::message::decode::<Gap>(frame.payload).ok();
        std::ops::ControlFlow::Break(())
    })
    .unwrap();
    assert_eq!(named.unwrap().seqs, Some(gone));
    let appended = store
        .lanes
        .append(NORMAL, record(full, false), now(0), OPEN);
    assert!(matches!(appended, Append::Appended));
}

#[test]
fn what_gives_way_to_another_lane_is_named_in_its_own() {
    const BULK: usize = 2;
    let mut store = open(&FakeDisk::new(), 1);
    for k in 0..8 {
        store.lanes.append(BULK, record(k, false), now(0), OPEN);
    }
    let (_, victim) = fill(&mut store, 8);
    assert_eq!(victim.lane, BULK);
    let next = |store: &Store<FakeDisk>| [NORMAL, BULK].map(|at| store.lanes.lane(at).next_seq);
    let before = next(&store);
    assert!(matches!(
        store.evict(&victim, moment(), OPEN),
        Evicted::Gone
    ));
    assert_eq!(next(&store), [before[0], before[1] + 1]);
    assert!(store.lanes.lane(BULK).held.is_empty());
}

#[test]
fn a_committed_segment_goes_without_a_gap() {
    let mut store = open(&FakeDisk::new(), 1);
    let (full, victim) = fill(&mut store, 0);
    store.lanes.take_news();
    let all: Committed<'_> = &|_, _, _| true;
    let evicted = store.evict(&victim, moment(), all);
    assert!(matches!(evicted, Evicted::Gone));
    assert_eq!(
        (
            store.lanes.take_news(),
            store.lanes.counted().evicted_records
        ),
        (vec![], 0)
    );
    assert_eq!(store.lanes.lane(NORMAL).next_seq, full);
}

#[test]
fn a_group_that_fails_comes_back_whole_and_goes_to_an_epoch_that_names_the_end_of_its_own() {
    let disk = FakeDisk::new();
    let mut store = open(&disk, 1);
    for k in 0..4 {
        store.lanes.append(NORMAL, record(k, false), now(0), OPEN);
        if k == 1 {
            store.lanes.sync(NORMAL, now(0)).unwrap();
        }
    }
    let first = store.lanes.lane(NORMAL).epoch;
    store.lanes.take_news();
    disk.fail_sync(0);
    let group = store.lanes.sync(NORMAL, now(0)).unwrap_err();
    let receipts: Vec<_> = group.iter().map(|it| it.owed.unwrap().span.first).collect();
    assert_eq!(
        (receipts, durable(&store.lanes.take_news())),
        (vec![2, 3], vec![])
    );
    assert_eq!(resumes_at(&store), Some(2));
    // Its owner begins an epoch and stores it again; the records need not be read for that.
    let ends: Vec<_> = store.lanes.over(NORMAL).into_iter().collect();
    assert_eq!(ends.iter().map(|over| over.next).collect::<Vec<_>>(), [2]);
    let unsaid = store.begin_epoch(NORMAL, Base::Wall, &ends, moment(), OPEN);
    assert_eq!(unsaid, Some(vec![]));
    for record in group {
        store.lanes.append(NORMAL, record, now(0), OPEN);
    }
    store.lanes.sync(NORMAL, now(0)).unwrap();
    let news = store.lanes.take_news();
    assert_eq!((durable(&news), resumes_at(&store)), (vec![2, 3], Some(4)));
    let ended = |news: &News| matches!(news, News::Ended { epoch, .. } if *epoch == first);
    assert!(news.iter().any(ended));
    assert_eq!(resumes_at(&open(&disk.power_cut(5), 7)), Some(4));
}

#[test]
fn an_end_that_counted_itself_and_was_not_synced_is_not_said_again() {
    let disk = FakeDisk::new();
    let mut store = open(&disk, 1);
    store.lanes.append(NORMAL, record(0, false), now(0), OPEN);
    store.lanes.sync(NORMAL, now(0)).unwrap();
    let over = Over {
        epoch: store.lanes.lane(NORMAL).epoch,
        next: 2,
        clean: true,
    };
    let end = store.lanes.end_record(NORMAL, over, Stamps::default());
    store.lanes.append(NORMAL, end, now(0), OPEN);
    disk.fail_sync(0);
    assert!(store.lanes.sync(NORMAL, now(0)).unwrap_err().is_empty());
    // The one that holds ends before it.
    let over = store.lanes.over(NORMAL);
    assert_eq!(over.map(|over| over.next), Some(1));
}

#[test]
fn in_memory_what_cannot_wait_goes_out_undurable_and_the_rest_waits_for_the_disk() {
    let disk = FakeDisk::new();
    let mut store = open(&disk, 1);
    disk.set_capacity(Some(0));
    let appended = store.lanes.append(NORMAL, record(0, true), now(0), OPEN);
    let Append::Full {
        record: live,
        victim,
        by_others,
    } = appended
    else {
        panic!("{appended:?}");
    };
    assert!(by_others && victim.is_none());
    store.lanes.go_to_memory(NORMAL, Millis(0));
    for record in [live, record(1, false)] {
        store.lanes.append(NORMAL, record, now(0), OPEN);
    }
    let news = store.lanes.take_news();
    assert!(
        matches!(&news[..], [News::NotDurable(owed), News::Stored(held)]
        if owed.span.first == 0 && held.ram && held.next == 1)
    );
    assert!(store.leave_memory(NORMAL, moment(), OPEN).is_none());
    disk.set_capacity(None);
    let (unsaid, waiting) = store.leave_memory(NORMAL, moment(), OPEN).unwrap();
    let waiting: Vec<_> = waiting
        .iter()
        .map(|it| it.owed.unwrap().span.first)
        .collect();
    assert_eq!((unsaid, waiting), (vec![], vec![1]));
    assert!(store.lanes.lane(NORMAL).ram.is_none());
}

#[test]
fn beyond_the_bound_on_gaps_two_neighbours_are_said_as_a_coarser_one() {
    let mut settings = settings();
    settings.spool.segment_bytes = 1 << 20;
    settings.spool.lane_bytes = [4 << 20; 3];
    let mut store = open_with(&FakeDisk::new(), &settings, 1);
    let epoch = Epoch::new(5);
    let most = MAX_GAPS as u64;
    for i in 0..most + 50 {
        let gap = Gap {
            seqs: Some(SeqRange::new(i * 10, i * 10 + 1)),
            samples: Some(1),
            ..store
                .lanes
                .gap(Lane::Normal, epoch, GapReason::Evicted, now(0))
        };
        assert!(store.name_gap(NORMAL, gap, moment()).is_ok());
        assert_eq!(store.gaps.len() as u64, most.min(i + 1));
    }
    // Each of the last was said, and the coarser one that it made.
    assert_eq!(store.lanes.lane(NORMAL).next_seq, most + 2 * 50);
}
