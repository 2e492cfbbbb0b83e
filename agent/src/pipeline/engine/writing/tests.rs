//! Store and outbox without sources: what becomes of a record when the disk says no.

use headwater_proto::delivery::SenderLimits;
use headwater_proto::ids::DeviceId;
use headwater_spool::FakeDisk;
use proptest::prelude::*;

use super::*;
use crate::pipeline::engine::store::News;
use crate::pipeline::engine::store::tests::{NORMAL, durable, moment, open, record};

/// A store on a disk, and an outbox that knows of nothing committed.
struct Rig {
    disk: FakeDisk,
    store: Store<FakeDisk>,
    outbox: Outbox,
}

impl Rig {
    fn new() -> Self {
        let disk = FakeDisk::new();
        let device = DeviceId::new("pump-1").unwrap();
        Self {
            store: open(&disk, 1),
            outbox: Outbox::new(device, 1, SenderLimits::DEFAULT, 1),
            disk,
        }
    }

    /// Carries out steps in lane normal; gives the news.
    fn carry_out(&mut self, steps: impl IntoIterator<Item = Step>) -> Vec<News> {
        Writing::new(&mut self.store, &self.outbox, NORMAL, moment()).carry_out(steps);
        self.store.lanes.take_news()
    }

    fn is_in_memory(&self) -> bool {
        self.store.lanes.lane(NORMAL).ram.is_some()
    }
}

#[test]
fn a_full_lane_goes_on_in_place_of_its_oldest_segment() {
    let mut rig = Rig::new();
    let mut gone = 0;
    for k in 0..100 {
        let news = rig.carry_out([Step::Store(record(k, false)), Step::Sync]);
        assert_eq!(durable(&news), [k]);
        let evicted = news.iter().filter(|it| matches!(it, News::Gone { .. }));
        gone += evicted.count();
    }
    assert!(gone > 1 && !rig.is_in_memory());
}

#[test]
fn where_nothing_may_give_way_a_lane_goes_to_memory_and_comes_back_with_what_waited() {
    let mut rig = Rig::new();
    rig.disk.set_capacity(Some(0));
    let news = rig.carry_out([0, 1].map(|k| Step::Store(record(k, k == 0))));
    assert!(rig.is_in_memory() && durable(&news).is_empty());
    let settled = |news: &News| matches!(news, News::NotDurable(owed) if owed.span.first == 0);
    assert!(news.iter().any(settled));
    let leave =
        |rig: &mut Rig| Writing::new(&mut rig.store, &rig.outbox, NORMAL, moment()).leave_memory();
    assert!(!leave(&mut rig));
    rig.disk.set_capacity(None);
    assert!(leave(&mut rig));
    assert_eq!(durable(&rig.store.lanes.take_news()), [1]);
    assert!(!rig.is_in_memory());
}

#[test]
fn a_lane_that_comes_back_under_a_full_quota_makes_its_reserve_whole_at_once() {
    let mut rig = Rig::new();
    for k in 0..100 {
        rig.carry_out([Step::Store(record(k, false)), Step::Sync]);
    }
    rig.store.lanes.go_to_memory(NORMAL, moment().now.mono);
    let before = rig.store.lanes.counted().evicted_records;
    assert!(Writing::new(&mut rig.store, &rig.outbox, NORMAL, moment()).leave_memory());
    assert!(!rig.store.lanes.lacks_reserve(NORMAL));
    assert!(rig.store.lanes.counted().evicted_records > before);
}

#[test]
fn a_group_that_fails_is_stored_again_in_its_order_and_before_what_comes() {
    let mut rig = Rig::new();
    rig.carry_out([Step::Store(record(0, false)), Step::Sync]);
    let before = rig.store.lanes.lane(NORMAL).epoch;
    // The next sync is that of a full segment: the record that needs another one waits for its group.
    rig.disk.fail_sync(0);
    let all = (1..12).map(|k| Step::Store(record(k, false)));
    let news = rig.carry_out(all.chain([Step::Sync]));
    assert_eq!(durable(&news), (1..12).collect::<Vec<_>>());
    assert_eq!(rig.store.lanes.counted().failed_syncs, 1);
    assert_ne!(rig.store.lanes.lane(NORMAL).epoch, before);
    assert!(!rig.is_in_memory());
}

#[test]
fn a_lane_turns_to_the_base_of_a_record_once_what_it_holds_is_synced() {
    let mut rig = Rig::new();
    let mut uptime = record(1, false);
    uptime.base = Base::Uptime;
    let news = rig.carry_out([Step::Store(record(0, false)), Step::Store(uptime)]);
    assert_eq!(durable(&news), [0]);
    let lane = rig.store.lanes.lane(NORMAL);
    assert_eq!(lane.present_life().base, Base::Uptime);
    // The first of the new epoch is the end of the one before.
    assert_eq!((lane.next_seq, lane.durable_seq), (2, 1));
}

/// What happens to the lane or to its disk.
#[derive(Debug, Clone, Copy)]
enum Op {
    Store,
    Sync,
    FailSync(u64),
    FailOperation(u64),
    Capacity(Option<u64>),
    Leave,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => Just(Op::Store),
        2 => Just(Op::Sync),
        1 => (0u64..4).prop_map(Op::FailSync),
        1 => (0u64..20).prop_map(Op::FailOperation),
        1 => (0u64..12).prop_map(|segments| Op::Capacity(Some(segments * 4096))),
        2 => Just(Op::Capacity(None)),
        2 => Just(Op::Leave),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever the disk refuses, and whenever: records of a source become durable in their order, each
    /// once, and what is called durable is there after a loss of power.
    #[test]
    fn what_is_called_durable_comes_in_order_and_outlives_a_loss_of_power(
        ops in proptest::collection::vec(op(), 1..120), seed: u64,
    ) {
        let mut rig = Rig::new();
        let (mut next, mut told) = (0, Vec::new());
        for op in ops {
            let news = match op {
                Op::Store => {
                    next += 1;
                    rig.carry_out([Step::Store(record(next - 1, false))])
                }
                Op::Sync => rig.carry_out([Step::Sync]),
                Op::FailSync(n) => {
                    rig.disk.fail_sync(n);
                    Vec::new()
                }
                Op::FailOperation(n) => {
                    rig.disk.fail_operation(n);
                    Vec::new()
                }
                Op::Capacity(bytes) => {
                    rig.disk.set_capacity(bytes);
                    Vec::new()
                }
                Op::Leave => {
                    Writing::new(&mut rig.store, &rig.outbox, NORMAL, moment()).leave_memory();
                    rig.store.lanes.take_news()
                }
            };
            told.extend(durable(&news));
        }
        prop_assert_eq!(&told, &(0..told.len() as u64).collect::<Vec<_>>());
        let after = open(&rig.disk.power_cut(seed), 7);
        let resumes = after.lanes.resume_at("log").map_or(0, |cursor| cursor.minor);
        prop_assert!(resumes >= told.len() as u64, "{resumes} of {}", told.len());
    }
}
