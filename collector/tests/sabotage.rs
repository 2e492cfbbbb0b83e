//! Each deliberate bug of the collector is noticed; without the feature there is nothing to show.
#![cfg(feature = "sabotage")]

mod common;

use common::{Rig, SAMPLES, bundle, hello, listed, settings};
use headwater_proto::sabotage::{self, Bug};

fn with<T>(bug: Bug, test: impl FnOnce() -> T) -> T {
    sabotage::set(Some(bug));
    let result = test();
    sabotage::set(None);
    result
}

fn greeted() -> Rig {
    let mut rig = Rig::new();
    rig.connect("dev");
    rig.up(hello(&[listed(1, 0, 100_000)]), 0);
    rig.sync();
    rig
}

#[test]
fn a_puback_before_the_sync_is_a_promise_that_a_power_cut_breaks() {
    with(Bug::PubackBeforeFsync, || {
        let mut rig = Rig::new();
        rig.connect("meter");
        rig.plain("plain/m1/temp", "20.5", 7, false, 0);
        assert!(rig.custody.next_output().is_some());
        let disk = rig.disk.power_cut(3);
        let mut rig = Rig::start(disk, rig.store.clone(), settings(), 10).unwrap();
        rig.flush().unwrap();
        assert_eq!(rig.audit().totals.counts.samples, 0);
    });
}

#[test]
fn an_ack_of_an_unsynced_repeat_speaks_of_what_may_be_lost() {
    with(Bug::AckUnsyncedRepeat, || {
        let mut rig = greeted();
        rig.up(bundle(1, 0, 3), 1);
        rig.sent.clear();
        rig.up(bundle(1, 0, 3), 2);
        assert!(!rig.sent.is_empty());
    });
}

#[test]
fn a_segment_without_snapshot_doubles_what_comes_again() {
    with(Bug::SegmentWithoutSnapshot, || {
        let mut rig = greeted();
        for seq in 0..300 {
            rig.up(bundle(1, seq, seq + 1), seq);
            rig.sync();
        }
        rig.flush().unwrap();
        let disk = rig.disk.power_cut(3);
        // With its index, or the start would look into the lake for what it does not know.
        let (store, done) = (rig.store.clone(), rig.done.clone());
        let mut rig = Rig::start_with(disk, store, done, settings(), 10).unwrap();
        rig.connect("dev");
        rig.up(hello(&[listed(1, 0, 300)]), 0);
        rig.up(bundle(1, 0, 10), 1);
        rig.sync();
        rig.flush().unwrap();
        assert!(!rig.audit().totals.is_good());
    });
}

#[test]
fn a_row_lost_in_a_batch_is_unexplained() {
    with(Bug::RowLostInBatch, || {
        let mut rig = greeted();
        rig.up(bundle(1, 0, 3), 1);
        rig.sync();
        rig.flush().unwrap();
        let audit = rig.audit();
        assert!(!audit.totals.is_good());
        assert!(audit.totals.counts.samples < 3 * SAMPLES);
    });
}
