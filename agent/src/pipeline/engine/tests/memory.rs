//! Memory in place of the disk: what it holds, and what it must not hold up.

use headwater_proto::ids::Lane;
use headwater_proto::message::GapReason;

use super::feed;
use super::world::{HOST, World, settings};

#[test]
fn what_an_earlier_ram_epoch_holds_takes_no_room_from_a_disk_that_is_back() {
    let mut settings = settings();
    settings.fallback_bytes = 20_000;
    let mut world = World::with(settings, headwater_spool::FakeDisk::new());
    world.disk.set_capacity(Some(0));
    let mut k = 0;
    while world.offer(HOST, Lane::Normal, k).is_ok() {
        world.pass(250);
        k += 1;
        assert!(k < 1000, "the memory never fills");
    }
    world.disk.set_capacity(None);
    world.pass(60_000);
    assert!(!world.engine.store.lanes.lane(1).old_rams.is_empty());
    for k in 10_000..10_200 {
        world.offer(HOST, Lane::Normal, k).unwrap();
        world.pass(250);
    }
    world.offer(HOST, Lane::Alarm, 1).unwrap();
}

#[test]
fn with_a_dead_disk_the_agent_says_what_an_unclean_stop_lost_and_again_where_that_lasts() {
    let mut world = World::new();
    world.offer(HOST, Lane::Normal, 0).unwrap();
    world.pass(3000);
    let before = world.engine.lanes().nth(1).unwrap().epoch;
    let disk = world.disk.process_killed();
    disk.set_capacity(Some(0));
    world.restart_on(disk);
    for k in 1..101 {
        world.offer(HOST, Lane::Normal, k).unwrap();
        world.pass(1250);
    }
    world.connect();
    world.run(5000);
    assert!(world.engine.lanes().nth(1).unwrap().in_ram);
    let gaps = world.collector.gaps();
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!(gaps[0].2.reason, GapReason::UncleanStop);
    let ends = world.collector.ends();
    assert!(ends.iter().any(|(_, _, end)| end.epoch == before));
    assert!(world.engine.sender().is_drained());
    // The disk comes back: the ends and that gap go there.
    world.disk.set_capacity(None);
    world.run(10_000);
    world.offer(HOST, Lane::Normal, 200).unwrap();
    world.run(3000);
    let gaps = world.collector.gaps();
    let lasting = |key| !world.collector.streams[key].ram;
    let lasting = gaps
        .iter()
        .filter(|(key, _, gap)| lasting(key) && gap.epoch == before);
    assert_eq!((gaps.len(), lasting.count()), (2, 1), "{gaps:?}");
    let on_disk = world
        .collector
        .ends()
        .into_iter()
        .filter(|(key, _, end)| end.epoch == before && !world.collector.streams[key].ram);
    assert_eq!(on_disk.count(), 1);
}

#[test]
fn what_waits_for_the_disk_counts_as_memory() {
    let mut world = World::new();
    feed(&mut world, 0..10);
    world.pass(1250);
    world.disk.set_capacity(Some(world.disk.used_bytes()));
    let mut k = 10;
    while world.engine.store.lanes.lane(1).ram.is_none() {
        feed(&mut world, k..k + 1);
        world.ms += 1;
        k += 1;
    }
    let ram = world.engine.store.lanes.lane(1).ram.as_ref().unwrap();
    assert!(!ram.limbo.is_empty());
    let bytes: usize = ram.limbo.iter().map(|record| record.frame.len()).sum();
    assert!(world.engine.lanes().nth(1).unwrap().memory_bytes >= bytes);
}
