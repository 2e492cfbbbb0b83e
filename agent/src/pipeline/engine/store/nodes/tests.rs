//! Memory and bounds of the store of nodes' records.
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test: whatever else is a failure"
)]

use headwater_proto::bundle::{BundleHead, Stamps};
use headwater_proto::frame::{self, Kind};
use headwater_proto::ids::{DeviceId, Epoch, Lane};
use headwater_proto::time::{Base, Millis};
use headwater_spool::{Config, FakeDisk, Log};

use super::index::MAX_RUNS;
use super::streams::MAX_STREAMS;
use super::*;

const MIB: u64 = 1 << 20;

fn store(quota_bytes: u64) -> NodeStore<FakeDisk> {
    open(FakeDisk::new(), quota_bytes)
}

/// As after SIGKILL and a start.
fn again(store: &NodeStore<FakeDisk>) -> NodeStore<FakeDisk> {
    let quota_bytes = store.log.config().quota_bytes;
    open(store.log.disk().process_killed(), quota_bytes)
}

fn open(disk: FakeDisk, quota_bytes: u64) -> NodeStore<FakeDisk> {
    let config = Config {
        name: "nodes".into(),
        segment_bytes: MIB,
        quota_bytes,
        reserve_bytes: MIB,
        fs_reserve_percent: 0,
        fs_reserve_bytes: 0,
        ..Config::default()
    };
    NodeStore::open(Log::open(disk, config).unwrap().0, 50, 7)
}

fn head(node: usize, lane: Lane, first: u64) -> BundleHead {
    BundleHead {
        origin: DeviceId::new(&format!("a-node-with-a-name-{node}")).unwrap(),
        lane,
        epoch: Epoch::new(node as u64),
        first,
        ram: false,
        boot: 1,
        base: Base::Wall,
        stamps: Stamps::default(),
        uptime_ms: None,
        wall: None,
    }
}

fn offer(store: &mut NodeStore<FakeDisk>, head: &BundleHead, len: usize) -> Offered {
    let mut bytes = Vec::new();
    frame::append(Kind::Refused, &vec![7; len], &mut bytes).unwrap();
    let (frame, _) = frame::decode(&bytes).unwrap();
    store.offer(head, head.first, &frame, &bytes, Millis(0))
}

#[test]
fn sixty_four_nodes_with_64_mib_of_backlog_take_at_most_4_mib_of_memory() {
    // Shares are a part of the quota: so much is needed for 64 MiB to be held.
    let mut store = store(100 * MIB);
    let mut seq = 0;
    while store.holders().values().sum::<u64>() < 64 * MIB {
        for node in 0..64 {
            // Records of three lanes, and of one a second run in each segment.
            for lane in Lane::AGENT {
                let head = head(node, lane, seq);
                assert_eq!(offer(&mut store, &head, 1_500), Offered::Stored);
            }
            let apart = head(node, Lane::Bulk, seq + (1 << 40));
            assert_eq!(offer(&mut store, &apart, 1_500), Offered::Stored);
        }
        seq += 1;
        if store.is_group_full() {
            assert!(store.sync());
        }
    }
    let schema = [7; 1000];
    for node in 0..64 {
        for number in 0..3u8 {
            let payload = [&[number][..], &schema].concat();
            store.bind(&head(node, Lane::Normal, 0), &payload);
        }
    }
    let memory = store.memory_bytes();
    assert!((memory as u64) < 4 * MIB, "{memory} bytes");
}

#[test]
fn a_record_beyond_the_index_is_refused_and_its_node_sends_the_oldest_first() {
    let mut store = store(88 * MIB);
    // Each record of its own run: every second number.
    let mut taken = 0;
    'full: for step in 0..60 {
        for node in 0..900 {
            let head = head(node, Lane::Normal, 2 * step);
            match offer(&mut store, &head, 1) {
                Offered::Stored => taken += 1,
                refused => {
                    let reason = RejectReason::TooManyHoles;
                    assert_eq!(refused, Offered::Refused(reason));
                    break 'full;
                }
            }
            if store.is_group_full() {
                store.sync();
            }
        }
    }
    // Those of the open group count too.
    assert_eq!(taken, MAX_RUNS);
    assert!(store.sync());
    let mut store = again(&store);
    let news = store.take_news();
    let found = news.iter().map(|it| it.range.len()).sum::<u64>();
    assert_eq!(found, taken as u64);
}

#[test]
fn a_start_finds_the_records_of_every_stream_where_a_snapshot_lists_as_many_as_are_kept() {
    let mut store = store(64 * MIB);
    for node in 0..MAX_STREAMS {
        let head = head(node, Lane::Normal, 0);
        assert_eq!(offer(&mut store, &head, 10), Offered::Stored);
        store.sync();
    }
    // The next segment's snapshot lists them all.
    let mut node = 0;
    while store.segments() == 1 {
        let head = head(node, Lane::Normal, 1);
        assert_eq!(offer(&mut store, &head, 1_500), Offered::Stored);
        store.sync();
        node += 1;
    }
    for stream in store.streams() {
        store.settle(&stream, &|_| true);
    }
    store.release_done();
    // Two idle streams give way.
    for new in [MAX_STREAMS, MAX_STREAMS + 1] {
        let head = head(new, Lane::Normal, 0);
        assert_eq!(offer(&mut store, &head, 10), Offered::Stored);
    }
    assert!(store.sync());
    let mut store = again(&store);
    for new in [MAX_STREAMS, MAX_STREAMS + 1] {
        let head = head(new, Lane::Normal, 0);
        assert!(store.bytes_of(&head.origin) > 0);
        assert_eq!(store.mark(&stream_of(&head), 0).received, 1);
    }
    let news = store.take_news();
    let is_new = |it: &&Durable| it.stream.epoch >= Epoch::new(MAX_STREAMS as u64);
    assert_eq!(news.iter().filter(is_new).count(), 2);
    // Of those without records the one used last is still known.
    let idle = head(MAX_STREAMS - 1, Lane::Normal, 0);
    assert_eq!(store.mark(&stream_of(&idle), 0).received, 1);
    assert_eq!(store.streams().len(), MAX_STREAMS);
}

#[test]
fn an_alarm_is_taken_when_its_nodes_other_lanes_have_filled_their_part() {
    let mut store = store(8 * MIB);
    let mut seq = 0;
    while offer(&mut store, &head(1, Lane::Normal, seq), 1_000) == Offered::Stored {
        seq += 1;
        store.sync();
    }
    assert_eq!(
        offer(&mut store, &head(1, Lane::Bulk, 0), 1_000),
        Offered::Refused(RejectReason::NoCredit)
    );
    assert_eq!(
        offer(&mut store, &head(1, Lane::Alarm, 0), 1_000),
        Offered::Stored
    );
}

#[test]
fn a_segment_is_moved_when_little_of_it_is_needed_and_nothing_of_it_is_lost() {
    let mut store = store(8 * MIB);
    let (mut seq, mut moved) = (0, 0);
    // One record in ten is never committed.
    while moved < 4 {
        for one in [head(1, Lane::Normal, seq), head(2, Lane::Normal, seq / 10)] {
            while offer(&mut store, &one, 1_000) == Offered::Full {
                let victim = store.victim().expect("a segment to move");
                assert!(victim.lost.is_empty());
                assert_eq!(store.move_rest(&victim), Some(Vec::new()));
                assert!(store.release(victim.segment));
                moved += 1;
            }
            store.sync();
        }
        store.settle(&stream_of(&head(1, Lane::Normal, 0)), &|_| true);
        store.release_done();
        seq += 1;
    }
    let rare = head(2, Lane::Normal, 0);
    let device = rare.origin.clone();
    let mut found = Vec::new();
    let mut shelf = NodeShelf {
        store: &mut store,
        device: &device,
    };
    use crate::pipeline::engine::outbox::Shelf as _;
    let range = SeqRange::new(0, (seq - 1) / 10 + 1);
    while (found.len() as u64) < range.next {
        let from = SeqRange::new(found.len() as u64, range.next);
        let before = found.len();
        shelf.read(Lane::Normal, rare.epoch, from, 1 << 20, &mut |seq, _| {
            found.push(seq);
            std::ops::ControlFlow::Continue(())
        });
        assert!(found.len() > before, "{} is lost", before);
    }
    assert!(found.iter().copied().eq(0..range.next));
    // It was not told anew.
    let news = store.take_news();
    let rare = news.iter().filter(|it| it.stream.device == device);
    assert_eq!(rare.map(|it| it.range.len()).sum::<u64>(), range.next);
}

#[test]
fn rot_in_one_record_costs_that_record_and_is_told_as_damage() {
    let mut store = store(8 * MIB);
    let now = |seq| head(1, Lane::Normal, seq);
    for seq in 0..10 {
        offer(&mut store, &now(seq), 1_000);
    }
    store.sync();
    let disk = store.log.disk().clone();
    let name = store.log.active_file().unwrap().to_owned();
    // In the middle of the fifth record or so.
    assert!(disk.rot(&name, 5_000, 1));
    let (found, damaged) = read_all(&mut store, 10);
    assert_eq!((found.len(), damaged), (9, 1), "{found:?}");
}

/// The numbers of node 1 below `next` that are given, and how many are told as damaged.
fn read_all(store: &mut NodeStore<FakeDisk>, next: u64) -> (Vec<u64>, u64) {
    use crate::pipeline::engine::outbox::{Read, Shelf as _};
    let device = head(1, Lane::Normal, 0).origin;
    let mut shelf = NodeShelf {
        store,
        device: &device,
    };
    let (mut found, mut damaged, mut from) = (Vec::new(), 0, 0);
    while from < next {
        let range = SeqRange::new(from, next);
        let before = found.len() as u64;
        let mut take = |seq, _: &[u8]| {
            found.push(seq);
            std::ops::ControlFlow::Continue(())
        };
        let epoch = Epoch::new(1);
        from = match shelf.read(Lane::Normal, epoch, range, 1 << 20, &mut take) {
            Read::Damaged(next) => {
                damaged += next - from - (found.len() as u64 - before);
                next
            }
            Read::Through(next) => next,
            Read::Unreadable(_) => panic!("{range:?}"),
        };
    }
    (found, damaged)
}

#[test]
fn a_record_that_comes_where_damage_was_thought_to_be_is_kept_until_it_is_committed() {
    let mut store = store(8 * MIB);
    for seq in (0..1_500).filter(|seq| *seq != 7) {
        let head = head(1, Lane::Normal, seq);
        assert_eq!(offer(&mut store, &head, 1_000), Offered::Stored);
    }
    store.sync();
    assert!(store.segments() > 1);
    let disk = store.log.disk().clone();
    // In the fifth record.
    assert!(disk.rot("nodes-0000000000000001.seg", 5_000, 1));
    for is_named_before in [false, true] {
        let mut store = again(&store);
        let told = store.take_news();
        // Both look alike from here.
        assert_eq!(told.iter().map(|it| it.range.len()).sum::<u64>(), 1_500);
        let late = head(1, Lane::Normal, 7);
        if is_named_before {
            store.let_go(&stream_of(&late), SeqRange::new(7, 8));
            store.settle(&stream_of(&late), &|_| false);
        }
        assert_eq!(offer(&mut store, &late, 1_000), Offered::Stored);
        assert!(store.sync());
        let needed = store.bytes_of(&late.origin);
        store.settle(&stream_of(&late), &|_| false);
        assert_eq!(store.bytes_of(&late.origin), needed);
        let (found, damaged) = read_all(&mut store, 1_500);
        assert_eq!((found.len(), damaged), (1_499, 1));
        assert!(found.contains(&7) && !found.contains(&4));
    }
}

#[test]
fn rot_behind_a_hole_costs_no_record_of_the_hole() {
    let mut store = store(8 * MIB);
    // The fifth record is the first of its stream, and those before it went another way.
    for seq in 0..4 {
        offer(&mut store, &head(2, Lane::Normal, seq), 1_000);
    }
    for seq in 10..14 {
        offer(&mut store, &head(1, Lane::Normal, seq), 1_000);
    }
    store.sync();
    let disk = store.log.disk().clone();
    let name = store.log.active_file().unwrap().to_owned();
    assert!(disk.rot(&name, 5_000, 1));
    let device = head(1, Lane::Normal, 0).origin;
    use crate::pipeline::engine::outbox::{Read, Shelf as _};
    let mut shelf = NodeShelf {
        store: &mut store,
        device: &device,
    };
    let mut read = |first| {
        let range = SeqRange::new(first, 14);
        let mut take = |_, _: &[u8]| std::ops::ControlFlow::Continue(());
        shelf.read(Lane::Normal, Epoch::new(1), range, 1 << 20, &mut take)
    };
    assert_eq!(read(0), Read::Through(10));
    assert_eq!(read(10), Read::Damaged(11));
    assert_eq!(read(11), Read::Through(14));
}
