//! What is lost is named.

use std::collections::BTreeSet;

use headwater_proto::frame::Kind;
use headwater_proto::ids::{Lane, SeqRange};
use headwater_proto::message::{Gap, GapReason};

use super::feed;
use super::world::{HOST, REPLAY, World};

/// Rows that gaps of evicted records name, and rows that arrived.
fn accounted(world: &World) -> (u64, u64) {
    let rows: BTreeSet<_> = world.collector.rows().into_iter().collect();
    let mut named = BTreeSet::new();
    for (_, _, gap) in world.collector.gaps() {
        // Those of an unclean stop name a time.
        let Some(range) = gap.seqs else { continue };
        named.extend((range.first..range.next).map(|seq| (gap.epoch, seq)));
    }
    // A record may be named and arrive: samples win.
    for ((_, epoch), stream) in &world.collector.streams {
        for seq in stream.records.keys() {
            named.remove(&(*epoch, *seq));
        }
    }
    (rows.len() as u64, named.len() as u64)
}

#[test]
fn a_full_quota_evicts_the_oldest_and_the_gap_accounts_for_every_record() {
    let mut world = World::new();
    feed(&mut world, 0..3000);
    world.pass(2000);
    assert!(world.engine.counters().evicted_records > 0);
    world.connect();
    world.run(10_000);
    let (rows, named) = accounted(&world);
    assert!(rows + named * 10 >= 3000);
    assert!(world.collector.rows().contains(&2999));
    // Neighbours coalesce: one gap says it all.
    let newest = world
        .collector
        .gaps()
        .into_iter()
        .map(|(_, _, gap)| gap)
        .max_by_key(width);
    let newest = newest.unwrap();
    assert_eq!(newest.reason, GapReason::Evicted);
    assert!(width(&newest) >= named);
    // Its samples are exactly those that did not arrive: two for each row.
    assert_eq!(newest.samples, Some((3000 - rows) * 2));
    assert!(world.engine.sender().is_drained());
}

fn width(gap: &Gap) -> u64 {
    gap.seqs.map_or(0, SeqRange::len)
}

#[test]
fn a_start_under_a_lower_quota_lets_as_many_segments_go_as_it_takes_and_names_them() {
    let mut world = World::new();
    feed(&mut world, 0..400);
    world.pass(2000);
    let segments = |world: &World| world.engine.store.lanes.segments();
    assert!(segments(&world) > 4 && world.engine.counters().evicted_records == 0);
    world.settings.spool.lane_bytes = [5 * 4096, 2 * 4096, 4096];
    world.kill();
    // The third is the reserve.
    assert_eq!(segments(&world), 2);
    let evicted = world.engine.counters().evicted_records;
    world.connect();
    world.run(5000);
    let (rows, named) = accounted(&world);
    assert_eq!((rows + named * 10, named), (400, evicted));
}

#[test]
fn what_is_committed_is_released_and_never_evicted() {
    let mut world = World::new();
    world.connect();
    for from in (0..3000).step_by(100) {
        feed(&mut world, from..from + 100);
        world.run(2500);
    }
    assert_eq!(world.engine.counters().evicted_records, 0);
    assert_eq!(world.collector.rows().len(), 3000);
    assert!(world.collector.gaps().is_empty());
}

#[test]
pub(super) fn a_power_cut_during_eviction_leaves_the_segment_or_its_gap() {
    for crash in 0..90 {
        let mut world = World::new();
        feed(&mut world, 0..900);
        world.pass(1250);
        world.disk.crash_after(crash);
        for k in 900..1100 {
            let _ = world.offer(REPLAY, Lane::Normal, k);
            world.pass(250);
        }
        world.restart_on(world.disk.power_cut(crash));
        let from = super::resume(&world);
        feed(&mut world, from..1200);
        world.pass(2000);
        world.connect();
        world.run(10_000);
        let (rows, named) = accounted(&world);
        let ends = world.collector.ends().len() as u64;
        // Records that only the agent makes may be named among the lost.
        assert!(
            rows + named * 10 >= 1200,
            "crash {crash}: {rows} rows, {named} named"
        );
        assert!(
            rows + named * 10 <= 1200 + 10 * (ends + 40),
            "crash {crash}: {rows}, {named}"
        );
    }
}

#[test]
fn ends_and_gaps_outlive_the_segment_they_stood_in() {
    let mut world = World::new();
    feed(&mut world, 0..30);
    world.pass(2000);
    let first = world.engine.lanes().nth(1).unwrap().epoch;
    world.kill();
    // The end of the first life stands in the first segment of the second, which is evicted.
    feed(&mut world, 30..4000);
    world.pass(2000);
    world.connect();
    world.run(10_000);
    assert!(
        world
            .collector
            .ends()
            .iter()
            .any(|(_, _, end)| end.epoch == first)
    );
    let first_lost = |gap: &Gap| gap.epoch == first && gap.seqs.is_some_and(|s| s.contains(0));
    assert!(
        world
            .collector
            .gaps()
            .iter()
            .any(|(_, _, gap)| first_lost(gap))
    );
}

#[test]
fn a_refused_record_leaves_a_dead_letter_and_a_gap_and_is_not_sent_again() {
    let mut world = World::new();
    world.collector.refuses = Some(Kind::Batch);
    world.connect();
    feed(&mut world, 0..20);
    world.run(4000);
    let gaps = world.collector.gaps();
    let refused: Vec<_> = gaps
        .iter()
        .filter(|(_, _, g)| g.reason == GapReason::Refused)
        .collect();
    assert_eq!(refused.len(), 2);
    let samples: u64 = refused.iter().filter_map(|(_, _, gap)| gap.samples).sum();
    assert_eq!(samples, 40);
    assert_eq!(world.engine.dead_letter_records(), 2);
    let bundles = world.collector.bundles;
    world.run(60_000);
    assert_eq!(world.collector.bundles, bundles);
    assert!(world.engine.sender().is_drained());
}

#[test]
fn a_collector_that_refuses_gaps_is_not_told_so_in_gaps() {
    let mut world = World::new();
    world.offer(HOST, Lane::Normal, 1).unwrap();
    world.pass(2000);
    world.kill();
    world.collector.refuses = Some(Kind::Gap);
    world.connect();
    world.offer(HOST, Lane::Normal, 2).unwrap();
    world.run(4000);
    assert!(world.engine.counters().refused_records > 0);
    let next = world.engine.store.lanes.lane(1).next_seq;
    world.run(60_000);
    assert_eq!(world.engine.store.lanes.lane(1).next_seq, next);
    assert_eq!(world.engine.dead_letter_records(), 0);
}

#[test]
fn an_epoch_stays_in_the_hello_until_its_end_has_arrived_wherever_that_stands() {
    let mut world = World::new();
    world.collector.commits = false;
    feed(&mut world, 0..10);
    world.connect();
    world.run(2000);
    let first = world.engine.lanes().nth(1).unwrap().epoch;
    world.kill();
    // Its end is evicted with the segment it stood in, and said again in a later one.
    feed(&mut world, 10..2000);
    world.pass(2000);
    world.collector.commits = true;
    world.connect();
    let mut listed = true;
    for _ in 0..400 {
        world.ms += 250;
        let now = world.now();
        world.engine.handle(super::Event::Tick, now);
        while let Some(bytes) = world.engine.next_publish(now) {
            let hellos = world.collector.hellos.len();
            let answers = world.collector.take(&bytes);
            if world.collector.hellos.len() > hellos {
                let hello = world.collector.hellos.last().unwrap();
                listed = hello.streams.iter().any(|stream| stream.epoch == first);
                let ended = world
                    .collector
                    .ends()
                    .iter()
                    .any(|(_, _, end)| end.epoch == first);
                assert!(
                    listed || ended,
                    "the epoch left the Hello before its end arrived"
                );
            }
            for answer in answers {
                world.engine.handle(super::Event::Message(&answer), now);
            }
        }
    }
    world.connect();
    world.exchange();
    let hello = world.collector.hellos.last().unwrap();
    listed &= hello.streams.iter().any(|stream| stream.epoch == first);
    assert!(!listed);
}

#[test]
fn dead_letters_beyond_their_quota_go_oldest_first_and_on_record() {
    let mut world = World::new();
    world.collector.refuses = Some(Kind::Batch);
    world.connect();
    feed(&mut world, 0..2000);
    world.run(4000);
    let gaps = world.collector.gaps();
    assert!(
        gaps.iter()
            .any(|(_, _, gap)| gap.reason == GapReason::CopyDropped)
    );
    assert!(
        world.engine.store.dead_letters().used_bytes() <= world.settings.spool.dead_letter_bytes
    );
}

#[test]
fn what_a_live_source_loses_while_memory_is_full_is_named() {
    let mut world = World::new();
    world.settings.fallback_bytes = 2000;
    world.restart_on(world.disk.clone());
    world.disk.set_capacity(Some(0));
    let mut lost = 0;
    for k in 0..1000 {
        lost += u64::from(world.offer(HOST, Lane::Normal, k).is_err());
        world.ms += 100;
        let now = world.now();
        world.engine.handle(super::Event::Tick, now);
    }
    assert!(lost > 0);
    world.disk.set_capacity(None);
    world.connect();
    world.run(8000);
    world.offer(HOST, Lane::Normal, 5000).unwrap();
    world.run(4000);
    let gaps = world.collector.gaps();
    let named: u64 = gaps
        .iter()
        .filter(|(_, _, gap)| gap.reason == GapReason::Overflow)
        .filter_map(|(_, _, gap)| gap.samples)
        .sum();
    assert_eq!(named, lost * 2);
}
