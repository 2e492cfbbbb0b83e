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
use super::*;

const MIB: u64 = 1 << 20;

fn store(quota_bytes: u64) -> NodeStore<FakeDisk> {
    let config = Config {
        name: "nodes".into(),
        segment_bytes: MIB,
        quota_bytes,
        reserve_bytes: MIB,
        fs_reserve_percent: 0,
        fs_reserve_bytes: 0,
        ..Config::default()
    };
    NodeStore::open(Log::open(FakeDisk::new(), config).unwrap().0, 50, 7)
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
    // What is not synced yet is not in the index.
    assert!((MAX_RUNS..MAX_RUNS + 2_000).contains(&taken), "{taken}");
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
                assert!(store.evict(&victim));
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
    let device = now(0).origin;
    use crate::pipeline::engine::outbox::{Read, Shelf as _};
    let mut shelf = NodeShelf {
        store: &mut store,
        device: &device,
    };
    let mut found = Vec::new();
    let mut damaged = 0;
    let mut from = 0;
    while from < 10 {
        let range = SeqRange::new(from, 10);
        let read = shelf.read(
            Lane::Normal,
            Epoch::new(1),
            range,
            1 << 20,
            &mut |seq, _| {
                found.push(seq);
                std::ops::ControlFlow::Continue(())
            },
        );
        from = match read {
            Read::Damaged(next) => {
                damaged += next - from;
                next
            }
            Read::Through(next) => next,
            Read::Unreadable(_) => panic!("{read:?}"),
        };
    }
    assert_eq!((found.len(), damaged), (9, 1), "{found:?}");
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
