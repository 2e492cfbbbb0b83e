//! What sources are told of what they gave: durable is what an fsync covers, and nothing else.

use std::ops::Range;

use headwater_proto::ids::Lane;
use headwater_proto::refused::Part;
use headwater_proto::time::Millis;
use headwater_spool::FakeDisk;

use super::super::{GROUP_BYTES, Lost};
use super::world::{HOST, REPLAY, World, settings};
use super::{OfferError, feed, resume};
use crate::pipeline::receipts::Settled;
use crate::pipeline::refusals::MAX_PARTS_PER_MINUTE;

/// All below `durable` are settled, and those of `lost` are not durable.
fn settled(durable: u64, lost: Range<u64>) -> Settled {
    Settled {
        durable,
        not_durable: (!lost.is_empty()).then_some(lost).into_iter().collect(),
    }
}

#[test]
fn a_receipt_is_durable_with_the_sync_of_its_group_and_not_before() {
    let mut world = World::new();
    feed(&mut world, 0..15);
    assert_eq!(world.settled(REPLAY), settled(0, 0..0));
    // The full batch is appended; nothing is synced yet, whatever the process wrote.
    world.exchange();
    assert_eq!(world.settled(REPLAY), settled(0, 0..0));
    world.pass(1000);
    assert_eq!(world.settled(REPLAY).durable, 15);
    let now = world.now();
    feed(&mut world, 15..17);
    world.engine.flush(now);
    assert_eq!(world.settled(REPLAY).durable, 17);
}

#[test]
fn what_is_durable_is_on_the_disk_after_a_loss_of_power_at_any_operation() {
    for crash in 0..60 {
        let mut world = World::new();
        feed(&mut world, 0..20);
        world.pass(1250);
        world.disk.crash_after(crash);
        for k in 20..60 {
            if world.offer(REPLAY, Lane::Normal, k).is_err() {
                break;
            }
            world.pass(250);
        }
        let told = world.settled(REPLAY);
        let disk = world.disk.power_cut(crash);
        world.restart_on(disk);
        assert!(resume(&world) >= told.durable, "crash {crash}: {told:?}");
    }
}

#[test]
fn memory_is_not_durable_and_what_waits_for_the_disk_is_not_settled() {
    let mut world = World::new();
    feed(&mut world, 0..10);
    world.pass(1250);
    world.disk.set_capacity(Some(world.disk.used_bytes()));
    let (mut live, mut next) = (0, 10);
    while world.engine.lanes().all(|lane| !lane.in_ram) {
        world.offer(HOST, Lane::Normal, live).unwrap();
        // Its batches are half a second younger, so that one is open whenever the disk fails.
        if live % 4 == 2 {
            next += u64::from(world.offer(REPLAY, Lane::Normal, next).is_ok());
        }
        world.pass(250);
        live += 1;
    }
    // Closed and given to the memory: settled, and not durable from some point on.
    world.offer(HOST, Lane::Normal, live).unwrap();
    world.pass(2000);
    let told = world.settled(HOST);
    assert_eq!(told.durable, live + 1);
    let [lost] = &*told.not_durable else {
        panic!("{told:?}");
    };
    assert_eq!(lost.end, live + 1);
    let waiting = world.settled(REPLAY);
    assert!(waiting.durable < next && waiting.not_durable.is_empty());
    // The disk is back: what waited goes there, and is durable.
    world.disk.set_capacity(None);
    world.pass(super::super::PROBE_MS + 2000);
    assert_eq!(world.settled(REPLAY), settled(next, 0..0));
    assert_eq!(world.settled(HOST), told);
}

#[test]
fn a_failed_sync_settles_nothing_and_the_one_after_it_does() {
    let mut world = World::new();
    feed(&mut world, 0..10);
    world.disk.fail_sync(0);
    let now = world.now();
    world.engine.flush(now);
    assert_eq!(world.engine.counters().failed_syncs, 1);
    assert_eq!(world.settled(REPLAY).durable, 0);
    world.pass(1250);
    assert_eq!(world.settled(REPLAY), settled(10, 0..0));
}

#[test]
fn what_found_no_room_and_what_the_source_lost_is_not_durable() {
    let mut settings = settings();
    settings.fallback_bytes = 1;
    let mut world = World::with(settings, FakeDisk::new());
    world.disk.set_capacity(Some(0));
    let (mut given, mut refused) = (0, 0);
    while refused < 3 {
        refused += u64::from(world.offer(HOST, Lane::Normal, given) == Err(OfferError::Busy));
        given += 1;
        world.pass(1250);
    }
    let now = world.now();
    let lost = Lost::one(1, now.wall);
    world.engine.lost(HOST, Lane::Normal, lost, None, now);
    // No disk at all: nothing is.
    assert_eq!(world.settled(HOST), settled(given + 1, 0..given + 1));
    // One that waits and is offered again takes no receipt meanwhile.
    assert_eq!(world.offer(REPLAY, Lane::Normal, 0), Err(OfferError::Busy));
    assert_eq!(world.settled(REPLAY), settled(0, 0..0));
}

#[test]
fn what_is_on_disk_already_is_durable_at_once() {
    let mut world = World::new();
    feed(&mut world, 0..10);
    world.pass(1250);
    world.kill();
    feed(&mut world, 0..12);
    assert_eq!(world.settled(REPLAY), settled(10, 0..0));
}

#[test]
fn refused_parts_have_receipts_and_those_beyond_the_bounds_are_not_durable() {
    let mut world = World::new();
    let most = u64::from(MAX_PARTS_PER_MINUTE);
    let part = Part {
        at_us: 0,
        place: "line 1",
        cause: "not a number",
        bytes: b"x",
    };
    for turn in 0..most + 2 {
        let now = world.now();
        let offered = world.engine.refuse(HOST, Lane::Normal, &part, None, now);
        assert_eq!(offered.unwrap().receipt, turn);
    }
    world.pass(2250);
    assert_eq!(world.settled(HOST), settled(most + 2, most..most + 2));
}

#[test]
fn a_source_that_says_so_has_its_batch_closed_and_synced_within_its_time() {
    let mut settings = settings();
    settings.sources[HOST].durable_within_ms = Some(40);
    let mut world = World::with(settings, FakeDisk::new());
    feed(&mut world, 0..1);
    world.ms += 10;
    world.offer(HOST, Lane::Normal, 0).unwrap();
    assert_eq!(world.engine.next_wakeup(), Some(Millis(50)));
    world.ms = 49;
    world.exchange();
    assert_eq!(world.settled(HOST).durable, 0);
    world.ms = 50;
    world.exchange();
    assert_eq!(world.settled(HOST).durable, 1);
    // One that has closed before, for its rows, is synced by then all the same.
    for k in 0..world.settings.batch.rows as u64 {
        world.offer(HOST, Lane::Normal, k).unwrap();
    }
    assert!(world.engine.store.lanes.lane(1).held_bytes < GROUP_BYTES);
    world.ms = 90;
    world.exchange();
    assert_eq!(world.settled(HOST).durable, 11);
    // The batch of the other source has its own time.
    assert_eq!(world.settled(REPLAY).durable, 0);
}
