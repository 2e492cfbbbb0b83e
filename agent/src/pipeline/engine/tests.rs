//! The engine's rules, each as a sentence.

mod clocks;
mod faults;
mod flaky;
mod loss;
mod memory;
mod nodes;
mod outgoing;
mod portions;
mod quarantine;
mod receipts;
#[cfg(feature = "sabotage")]
mod sabotage;
pub(crate) mod world;

use std::collections::BTreeSet;

use headwater_proto::ids::Lane;
use headwater_proto::message::GapReason;
use headwater_proto::time::UnixMicros;

use super::{Engine, Event, OfferError, PROBE_MS, strays};
use crate::pipeline::record::{Cursor, SaidBy, Stray};
use world::{HOST, REPLAY, World, at};

/// Offers `ks` of the replay, waiting where there is no room.
fn feed(world: &mut World, ks: std::ops::Range<u64>) {
    for k in ks {
        for _ in 0..1000 {
            match world.offer(REPLAY, Lane::Normal, k) {
                Ok(()) => break,
                Err(OfferError::Busy) => world.run(1000),
                Err(refused) => panic!("{refused}"),
            }
        }
    }
}

fn resume(world: &World) -> u64 {
    world.engine.cursors()[REPLAY].map_or(0, |cursor| cursor.minor)
}

fn ks(range: std::ops::Range<i64>) -> Vec<i64> {
    range.collect()
}

#[test]
fn readings_reach_the_collector_once_and_are_forgotten() {
    let mut world = World::new();
    world.connect();
    feed(&mut world, 0..500);
    world.run(3000);
    assert_eq!(world.collector.rows(), ks(0..500));
    assert!(world.engine.sender().is_drained());
    assert_eq!((world.settled(REPLAY).durable, resume(&world)), (500, 500));
    assert!(world.collector.gaps().is_empty());
}

#[test]
fn nothing_is_published_before_it_is_synced() {
    let mut world = World::new();
    world.connect();
    world.exchange();
    feed(&mut world, 0..10);
    // The batch is closed and appended; its group is young.
    world.exchange();
    assert_eq!(world.collector.rows(), ks(0..0));
    world.run(1000);
    assert_eq!(world.collector.rows(), ks(0..10));
}

#[test]
fn an_alarm_is_synced_and_sent_at_the_next_tick() {
    let mut world = World::new();
    world.connect();
    world.exchange();
    world.offer(HOST, Lane::Alarm, 1).unwrap();
    assert_eq!(world.engine.next_wakeup(), Some(world.now().mono));
    world.exchange();
    assert_eq!(world.collector.rows(), [1]);
}

#[test]
fn a_young_batch_closes_when_its_time_has_come() {
    let mut world = World::new();
    world.connect();
    feed(&mut world, 0..3);
    world.run(2250);
    assert_eq!(world.collector.rows(), ks(0..3));
}

#[test]
fn every_start_renews_the_epoch_and_first_names_the_end_of_the_one_before() {
    let mut world = World::new();
    feed(&mut world, 0..30);
    world.pass(2000);
    let first = world.engine.lanes().nth(1).unwrap().epoch;
    world.kill();
    let second = world.engine.lanes().nth(1).unwrap().epoch;
    assert_ne!(first, second);
    world.connect();
    world.run(1000);
    let ends = world.collector.ends();
    let (key, seq, end) = &ends[0];
    // The gap of the source that cannot begin again stands before it.
    assert_eq!((ends.len(), *key, *seq), (1, (Lane::Normal, second), 1));
    // Nothing can be missing beyond it: its source begins again where its records end.
    assert_eq!((end.epoch, end.next, end.clean), (first, 3, true));
}

#[test]
fn a_clean_stop_ends_its_epoch_itself_and_the_next_start_adds_nothing() {
    let mut world = World::new();
    feed(&mut world, 0..25);
    let now = world.now();
    world.engine.stop(now);
    world.kill();
    world.connect();
    world.run(1000);
    assert_eq!(world.collector.rows(), ks(0..25));
    let ends = world.collector.ends();
    assert_eq!(ends.len(), 1);
    let (key, seq, end) = &ends[0];
    assert_eq!((key.1, end.clean, end.next), (end.epoch, true, seq + 1));
    // Once more, with data between: still one end for each.
    feed(&mut world, 25..50);
    world.engine.stop(now);
    world.kill();
    world.connect();
    world.run(1000);
    assert_eq!(world.collector.ends().len(), 2);
    assert!(world.collector.ends().iter().all(|(_, _, end)| end.clean));
}

#[test]
fn a_killed_agent_resumes_its_source_at_the_last_durable_record() {
    let mut world = World::new();
    feed(&mut world, 0..25);
    // Two batches of ten are appended; the group is synced, the third batch is in memory.
    world.pass(750);
    world.pass(500);
    world.kill();
    let from = resume(&world);
    assert!(from == 20 || from == 25, "{from}");
    feed(&mut world, 0..60);
    world.connect();
    world.run(3000);
    assert_eq!(world.collector.rows().len(), 60);
    assert_eq!(
        world.collector.rows().iter().collect::<BTreeSet<_>>().len(),
        60
    );
    assert_eq!(world.engine.counters().covered, from);
}

#[test]
fn a_source_that_resumes_keeps_to_one_lane() {
    let mut world = World::new();
    world.offer(REPLAY, Lane::Bulk, 0).unwrap();
    let refused = world.offer(REPLAY, Lane::Normal, 1).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "a source that resumes keeps to one lane, here bulk"
    );
    // The lane is chosen anew at each start; what another lane made durable is not taken again.
    world.offer(REPLAY, Lane::Bulk, 1).unwrap();
    world.pass(6000);
    for (from, lane) in [(2, Lane::Normal), (4, Lane::Bulk), (6, Lane::Normal)] {
        world.kill();
        assert_eq!(resume(&world), from);
        for k in 0..from + 2 {
            world.offer(REPLAY, lane, k).unwrap();
        }
        world.pass(6000);
    }
    world.connect();
    world.run(5000);
    let mut rows = world.collector.rows();
    rows.sort_unstable();
    assert_eq!(rows, ks(0..8));
    // Those that do not resume may use any.
    world.offer(HOST, Lane::Bulk, 1).unwrap();
    world.offer(HOST, Lane::Alarm, 2).unwrap();
}

#[test]
fn where_a_source_stopped_is_known_though_the_settings_have_it_no_longer() {
    let mut world = World::new();
    for k in 0..4 {
        world.offer(REPLAY, Lane::Bulk, k).unwrap();
        world.offer(HOST, Lane::Bulk, k).unwrap();
    }
    world.pass(6000);
    let own = world.engine.cursors()[REPLAY].unwrap();
    assert_eq!(strays(&world.engine), []);
    world.settings.sources[REPLAY].name = "renamed".to_owned();
    world.kill();
    assert_eq!(world.engine.cursors()[REPLAY], None);
    let name = World::new().settings.sources[REPLAY].name.clone();
    let said_by = SaidBy::Spool;
    let expected = Stray {
        name,
        cursor: own,
        said_by,
    };
    assert_eq!(strays(&world.engine), [expected]);
}

/// Source, begin and end of every gap that names an unclean stop.
fn unclean(world: &World) -> Vec<(String, Option<i64>, Option<i64>)> {
    let gaps = world.collector.gaps().into_iter().map(|(_, _, gap)| gap);
    let unclean = gaps.filter(|gap| gap.reason == GapReason::UncleanStop);
    let mut unclean: Vec<_> = unclean
        .map(|gap| {
            let part = gap.part.unwrap_or_default().to_string();
            let us = |time: Option<UnixMicros>| time.map(|time| time.0);
            (part, us(gap.t_first), us(gap.t_last))
        })
        .collect();
    unclean.sort_unstable();
    unclean
}

fn host(from: UnixMicros, to: UnixMicros) -> (String, Option<i64>, Option<i64>) {
    ("host".to_owned(), Some(from.0), Some(to.0))
}

#[test]
fn an_unclean_stop_is_named_at_the_next_start_from_what_is_durable_to_that_start() {
    let mut world = World::new();
    // Its own time lies a year ahead: that is no clock of the agent's.
    let far = 365 * 24 * 3_600_000;
    world.offer(HOST, Lane::Normal, far).unwrap();
    world.pass(2000);
    let age_ms = world.settings.batch.age_ms;
    let closed = at(age_ms.div_ceil(250) * 250).wall;
    world.kill();
    let first = world.now().wall;
    // A start without a sample, killed too: the gap begins at that start.
    world.pass(2000);
    world.kill();
    let second = world.now().wall;
    world.connect();
    world.run(2000);
    assert_eq!(unclean(&world), [host(closed, first), host(first, second)]);
    // Each end that is not clean has its gap.
    for (_, _, end) in world.collector.ends() {
        let gaps = world.collector.gaps();
        let named = gaps.iter().any(|(_, _, gap)| gap.epoch == end.epoch);
        assert!(!end.clean && named, "{end:?}");
    }
    // Named once, it is not named again.
    let now = world.now();
    world.engine.stop(now);
    world.kill();
    world.connect();
    world.run(2250);
    assert_eq!(unclean(&world).len(), 2);
}

#[test]
fn a_life_killed_before_its_first_durable_reading_is_named_also_after_a_clean_one() {
    let mut world = World::new();
    let began = world.now().wall;
    world.offer(HOST, Lane::Normal, 1).unwrap();
    world.ms += 100;
    world.kill();
    let second = world.now().wall;
    world.offer(HOST, Lane::Normal, 2).unwrap();
    world.pass(2000);
    let now = world.now();
    world.engine.stop(now);
    world.ms += 100;
    world.kill();
    let third = world.now().wall;
    world.offer(HOST, Lane::Normal, 3).unwrap();
    world.ms += 100;
    world.kill();
    let fourth = world.now().wall;
    world.connect();
    world.run(2250);
    assert_eq!(unclean(&world), [host(began, second), host(third, fourth)]);
}

#[test]
fn what_a_source_lost_is_named_also_where_it_is_gone_or_the_clock_was_set_back() {
    let mut world = World::new();
    world.offer(HOST, Lane::Normal, 1).unwrap();
    world.pass(2000);
    let age_ms = world.settings.batch.age_ms;
    let closed = at(age_ms.div_ceil(250) * 250).wall;
    world.settings.sources.truncate(1);
    world.off_us = -5_000_000;
    world.kill();
    world.connect();
    world.run(2250);
    // By a clock that was set back nobody can say when it ended.
    let expected = ("host".to_owned(), Some(closed.0), None);
    assert_eq!(unclean(&world), [expected]);
}

#[test]
fn a_clean_stop_with_readings_in_memory_alone_is_none() {
    let mut world = World::new();
    let began = world.now().wall;
    let used = world.disk.used_bytes();
    world.disk.set_capacity(Some(used));
    // The alarm lane has nothing on the disk yet: it goes to memory.
    let mut k = 0;
    while !world.engine.lanes().any(|lane| lane.in_ram) {
        world.offer(HOST, Lane::Alarm, k).unwrap();
        world.pass(2_000);
        k += 1;
    }
    let now = world.now();
    world.engine.stop(now);
    let disk = world.disk.process_killed();
    disk.set_capacity(None);
    world.restart_on(disk);
    let second = world.now().wall;
    world.connect();
    world.run(2250);
    let told = unclean(&world);
    assert_eq!(told.len(), 1, "{told:?}");
    let (source, first, last) = &told[0];
    assert_eq!((source.as_str(), *last), ("host", Some(second.0)));
    assert!(first.is_some_and(|first| first >= began.0));
}

#[test]
fn a_life_that_could_not_be_marked_at_its_start_is_once_the_disk_takes_it() {
    let mut world = World::new();
    let disk = world.disk.process_killed();
    disk.set_capacity(Some(0));
    world.restart_on(disk);
    assert!(!world.engine.is_marked());
    world.disk.set_capacity(None);
    world.pass(PROBE_MS + 250);
    assert!(world.engine.is_marked());
}

#[test]
fn a_source_that_is_gone_is_named_once() {
    let mut world = World::new();
    world.offer(HOST, Lane::Normal, 1).unwrap();
    world.pass(2000);
    world.settings.sources.truncate(1);
    for _ in 0..3 {
        world.kill();
        feed(&mut world, 0..10);
        world.pass(2000);
    }
    world.connect();
    world.run(2250);
    assert_eq!(unclean(&world).len(), 1);
}

#[test]
fn a_start_that_is_killed_before_its_gaps_are_durable_leaves_them_to_the_next() {
    for ops in 0..40 {
        let mut world = World::new();
        world.offer(HOST, Lane::Normal, 1).unwrap();
        world.pass(2000);
        let disk = world.disk.process_killed();
        disk.crash_after(ops);
        let now = world.now();
        let mut entropy = ops;
        let mut draw = || {
            entropy += 1;
            entropy
        };
        // It may not come that far.
        let _ = Engine::open(disk.clone(), world.settings.clone(), &mut draw, now);
        world.ms += 100;
        world.restart_on(disk.power_cut(7));
        world.connect();
        world.run(3_000);
        let gaps = world.collector.gaps();
        for (_, _, end) in world.collector.ends() {
            let named = gaps.iter().any(|(_, _, gap)| gap.epoch == end.epoch);
            assert!(end.clean || named, "{ops}: {end:?} in {gaps:?}");
        }
        assert!(!unclean(&world).is_empty(), "{ops}");
    }
}

#[test]
fn a_clean_life_without_a_reading_leaves_nothing_to_name() {
    let mut world = World::new();
    let now = world.now();
    world.engine.stop(now);
    world.kill();
    world.offer(HOST, Lane::Normal, 2_000_000).unwrap();
    world.connect();
    world.run(2250);
    assert_eq!(world.collector.rows(), [2_000_000]);
    assert!(world.collector.gaps().is_empty());
}

#[test]
fn a_clean_stop_leaves_no_unclean_gap() {
    let mut world = World::new();
    world.offer(HOST, Lane::Normal, 5).unwrap();
    let now = world.now();
    world.engine.stop(now);
    world.kill();
    world.offer(HOST, Lane::Normal, 9).unwrap();
    world.connect();
    world.run(2250);
    assert!(world.collector.gaps().is_empty());
}

#[test]
fn schemas_go_out_before_their_first_use_on_every_connection() {
    let mut world = World::new();
    feed(&mut world, 0..40);
    world.pass(2000);
    world.connect();
    world.run(1000);
    assert_eq!(world.collector.rows().len(), 40);
    // A collector that lost everything, and a new connection.
    world.collector = world::Collector::default();
    feed(&mut world, 40..60);
    world.pass(2000);
    world.connect();
    world.run(1000);
    assert!(world.collector.rows().contains(&59));
}

#[test]
fn a_schema_is_sent_when_it_is_asked_for_even_from_an_earlier_life() {
    use headwater_proto::message::{self, SchemaRequest};
    let mut world = World::new();
    feed(&mut world, 0..40);
    world.pass(2000);
    let epoch = world.engine.lanes().nth(1).unwrap().epoch;
    world.kill();
    let request = SchemaRequest {
        origin: world.settings.device.clone(),
        lane: Lane::Normal,
        epoch,
        schema: 0,
    };
    let mut bytes = Vec::new();
    message::append_frame(&request, &mut bytes);
    let now = world.now();
    world.engine.handle(Event::Message(&bytes), now);
    let answer = world.engine.next_publish(now).expect("an answer");
    world.collector.take(&answer);
    assert!(world.collector.schemas.contains_key(&(epoch, 0)));
    // One that never was is counted and not answered.
    let unknown = SchemaRequest {
        schema: 77,
        ..request
    };
    bytes.clear();
    message::append_frame(&unknown, &mut bytes);
    world.engine.handle(Event::Message(&bytes), now);
    assert_eq!(world.engine.next_publish(now), None);
    assert_eq!(world.engine.counters().refused_messages, 1);
}

#[test]
fn damaged_and_foreign_messages_are_counted_and_change_nothing() {
    let mut world = World::new();
    let now = world.now();
    for bytes in [&b""[..], b"x", b"\x01\x21\x02ab\0\0\0\0", &[0xff; 40]] {
        world.engine.handle(Event::Message(bytes), now);
    }
    assert_eq!(world.engine.counters().refused_messages, 3);
}

#[test]
fn a_backlog_of_many_lives_drains_under_its_own_epochs() {
    let mut world = World::new();
    for life in 0..6 {
        feed(&mut world, life * 10..life * 10 + 10);
        world.pass(2000);
        world.kill();
    }
    world.connect();
    world.run(5000);
    let rows: BTreeSet<_> = world.collector.rows().into_iter().collect();
    assert_eq!(rows.len(), 60);
    assert_eq!(world.collector.rows().len(), 60);
    assert_eq!(world.collector.ends().len(), 6);
    assert!(world.engine.sender().is_drained());
}

#[test]
fn log_lines_travel_as_text_with_their_cursor() {
    let mut world = World::new();
    let now = world.now();
    for k in 0..30u64 {
        let cursor = Some(Cursor {
            major: 0,
            minor: k + 1,
            tag: 3,
        });
        let time = headwater_proto::time::UnixMicros(k as i64);
        world
            .engine
            .offer_line(REPLAY, Lane::Bulk, time, b"a line", cursor, now)
            .unwrap();
    }
    world.connect();
    world.run(6000);
    let texts = world
        .collector
        .streams
        .values()
        .flat_map(|s| s.records.values());
    let texts = texts
        .filter(|(kind, _)| *kind == headwater_proto::frame::Kind::Text)
        .count();
    assert_eq!(texts, 3);
    let cursor = world.engine.cursors()[REPLAY];
    assert_eq!(
        cursor.map(|cursor| (cursor.minor, cursor.tag)),
        Some((30, 3))
    );
}

#[test]
fn a_full_memory_makes_sources_wait_and_names_what_live_ones_lose() {
    let mut settings = world::settings();
    settings.readings_bytes = 1;
    settings.fallback_bytes = 1;
    let mut world = World::with(settings, headwater_spool::FakeDisk::new());
    // The bound is reached by one open reading; closing and syncing it makes room again.
    world.offer(HOST, Lane::Normal, 0).unwrap();
    world.offer(HOST, Lane::Normal, 1).unwrap();
    assert_eq!(world.engine.counters().busy, 0);
    // With the disk full there is no such way out once memory has its one record.
    world.disk.set_capacity(Some(0));
    let mut lost = 0;
    for k in 2..200 {
        lost += u64::from(world.offer(HOST, Lane::Normal, k) == Err(OfferError::Busy));
        world.ms += 1;
    }
    assert_eq!(world.offer(REPLAY, Lane::Normal, 0), Err(OfferError::Busy));
    assert!(lost > 50, "{lost}");
    assert_eq!(world.engine.counters().lost_samples, lost * 2);
    // The stop names it, even if no reading follows.
    world.disk.set_capacity(None);
    world.pass(super::PROBE_MS + 1000);
    let now = world.now();
    world.engine.stop(now);
    world.kill();
    world.connect();
    world.run(5000);
    let gaps = world.collector.gaps().into_iter().map(|(_, _, gap)| gap);
    let named = gaps.filter(|gap| gap.reason == GapReason::Overflow);
    assert_eq!(named.filter_map(|gap| gap.samples).sum::<u64>(), lost * 2);
}
