//! Disks that fail.

use std::collections::BTreeSet;

use headwater_proto::frame::Kind;
use headwater_proto::ids::{Lane, SeqRange};
use headwater_proto::message::GapReason;
use headwater_spool::FakeDisk;

use super::world::{Collector, HOST, REPLAY, World, settings};
use super::{OfferError, feed, ks, resume};
use crate::pipeline::engine::{Engine, PROBE_MS};

#[test]
fn a_power_cut_at_any_disk_operation_loses_and_doubles_no_row_of_a_source_that_resumes() {
    for crash in 0..120 {
        for seed in 0..3 {
            let mut world = World::new();
            feed(&mut world, 0..20);
            world.pass(1250);
            world.connect();
            world.run(250);
            world.disk.crash_after(crash);
            for k in 20..100 {
                let _ = world.offer(REPLAY, Lane::Normal, k);
                world.run(250);
            }
            let sent: BTreeSet<_> = world.collector.rows().into_iter().collect();
            world.restart_on(world.disk.power_cut(seed));
            let from = resume(&world);
            assert!(
                sent.iter().all(|k| (*k as u64) < from),
                "sent before durable: {crash} {seed}"
            );
            feed(&mut world, from..150);
            world.connect();
            world.run(12_000);
            let mut rows = world.collector.rows();
            rows.sort_unstable();
            assert_eq!(rows, ks(0..150), "crash {crash} seed {seed}");
        }
    }
}

#[test]
fn a_failed_sync_ends_its_epoch_before_the_group_and_loses_nothing() {
    for failing in 0..4 {
        let mut world = World::new();
        feed(&mut world, 0..20);
        world.pass(1250);
        let before = world.engine.lanes().nth(1).unwrap().epoch;
        world.disk.fail_sync(failing);
        world.offer(HOST, Lane::Normal, 1000).unwrap();
        for from in [20, 40, 60, 80] {
            feed(&mut world, from..from + 20);
            world.pass(3000);
        }
        // Either the sync of a group, or that of a new segment's header.
        let counters = world.engine.counters();
        assert_eq!(
            counters.failed_syncs + counters.disk_failures,
            1,
            "{failing}: {counters:?}"
        );
        world.connect();
        world.run(3000);
        let mut rows = world.collector.rows();
        rows.sort_unstable();
        rows.retain(|k| *k != 1000);
        assert_eq!(rows, ks(0..100), "{failing}");
        if failing == 0 {
            let ends = world.collector.ends();
            assert!(
                ends.iter().any(|(_, _, end)| end.epoch == before),
                "{failing}"
            );
        }
        // What the failed group left on the medium is never taken for data.
        world.kill();
        world.connect();
        world.run(3000);
        let rows: Vec<_> = world
            .collector
            .rows()
            .into_iter()
            .filter(|k| *k != 1000)
            .collect();
        assert_eq!(rows.len(), 100, "{failing}");
    }
}

#[test]
fn a_full_disk_puts_live_sources_into_a_ram_epoch_and_lets_the_others_wait() {
    let mut world = World::new();
    world.connect();
    feed(&mut world, 0..10);
    world.run(2000);
    world.disk.set_capacity(Some(world.disk.used_bytes()));
    // The open segment takes some more; then the disk is full.
    let mut k = 10;
    while world.engine.lanes().all(|lane| !lane.in_ram) {
        world.offer(REPLAY, Lane::Normal, k).unwrap();
        k += 1;
        world.ms += 1;
        assert!(k < 10_000, "the disk never fills");
    }
    assert_eq!(world.offer(REPLAY, Lane::Normal, k), Err(OfferError::Busy));
    for live in 0..50 {
        world.offer(HOST, Lane::Normal, 100_000 + live).unwrap();
    }
    world.run(3000);
    let rows = world.collector.rows();
    assert!(rows.contains(&100_049), "live readings pass by the disk");
    assert!(
        world.collector.streams.values().any(|stream| stream.ram),
        "and say so"
    );

    // Space returns: the same process goes on, on disk, with everything that waited.
    world.disk.set_capacity(None);
    world.run(PROBE_MS + 3000);
    assert!(world.engine.lanes().all(|lane| !lane.in_ram));
    feed(&mut world, k..k + 50);
    world.run(3000);
    let mut rows = world.collector.rows();
    rows.retain(|row| *row < 100_000);
    rows.sort_unstable();
    assert_eq!(rows, ks(0..k as i64 + 50));
    assert!(world.engine.sender().is_drained());
    // The RAM epoch ends on record.
    let ram: Vec<_> = world
        .collector
        .streams
        .iter()
        .filter(|(_, s)| s.ram)
        .map(|(k, _)| k.1)
        .collect();
    let ends = world.collector.ends();
    assert!(
        ram.iter()
            .all(|epoch| ends.iter().any(|(_, _, end)| end.epoch == *epoch))
    );
    assert!(world.collector.gaps().is_empty());
}

#[test]
fn a_start_on_a_full_disk_is_no_reason_to_refuse() {
    let mut world = World::new();
    feed(&mut world, 0..30);
    world.pass(2000);
    let disk = world.disk.process_killed();
    disk.set_capacity(Some(0));
    world.restart_on(disk);
    world.connect();
    world.run(2000);
    assert_eq!(world.collector.rows(), ks(0..30));
    world.disk.set_capacity(None);
    world.run(PROBE_MS + 1000);
    // Said from memory at once, and on the disk when that takes records: they agree.
    let ends = world.collector.ends();
    assert_eq!(ends.len(), 3, "{ends:?}");
    assert_eq!(ends[0].2.epoch, ends[1].2.epoch);
    assert!(
        ends.iter()
            .any(|(_, _, end)| world.collector.streams[&(end.lane, end.epoch)].ram)
    );
}

#[test]
fn what_a_start_calls_stored_outlives_a_power_cut_though_the_sync_of_the_start_fails() {
    let mut refused = 0;
    let turns = (0..4).flat_map(|dies| (0..4).map(move |failing| (dies, failing)));
    for (dies, failing) in turns {
        let mut world = World::new();
        feed(&mut world, 0..20);
        world.pass(2000);
        // In one of the turns the last group is written, and not synced when the process is killed.
        feed(&mut world, 20..40);
        world.disk.crash_after(dies);
        world.pass(2000);
        let disk = world.disk.process_killed();
        disk.fail_sync(failing);
        let now = world.now();
        let promised = match Engine::open(disk.clone(), settings(), &mut || 7, now) {
            Ok(engine) => engine.cursors()[REPLAY].map_or(0, |cursor| cursor.minor),
            Err(error) => {
                refused += 1;
                let told = error.to_string();
                assert!(told.starts_with("cannot sync normal-"), "{told}");
                assert!(told.contains("start again"), "{told}");
                // As a supervisor of the process does.
                let engine = Engine::open(disk.clone(), settings(), &mut || 8, now).unwrap();
                engine.cursors()[REPLAY].map_or(0, |cursor| cursor.minor)
            }
        };
        for seed in 0..8 {
            world.restart_on(disk.power_cut(seed));
            world.collector = Collector::default();
            world.connect();
            world.run(3000);
            let rows = world.collector.rows();
            let turn = format!("dies {dies}, sync {failing}, seed {seed}");
            assert_eq!(rows, ks(0..promised.cast_signed()), "{turn}");
            assert_eq!(resume(&world), promised, "{turn}");
        }
    }
    assert!(refused > 0, "the sync of the tail never failed");
}

#[test]
fn what_a_start_cannot_do_with_the_dead_letters_is_told_and_no_reason_to_refuse() {
    let mut world = World::new();
    world.collector.refuses = Some(Kind::Batch);
    feed(&mut world, 0..20);
    world.pass(2000);
    world.connect();
    world.run(1000);
    assert!(world.engine.dead_letter_records() > 0);
    let mut told = Vec::new();
    for failing in 0..12 {
        let disk = world.disk.process_killed();
        disk.fail_sync(failing);
        if let Ok(engine) = Engine::open(disk, settings(), &mut || 7, world.now()) {
            told.extend(engine.trouble().to_vec());
        }
    }
    assert!(told.iter().any(|it| it.contains("dead-")), "{told:?}");
}

#[test]
fn a_damaged_record_becomes_a_gap_and_is_not_read_forever() {
    let mut world = World::new();
    feed(&mut world, 0..200);
    world.pass(2000);
    world.kill();
    let name = FakeDiskNames(&world.disk).first_of("normal");
    assert!(world.disk.rot(&name, 1200, 0x40));
    world.connect();
    world.run(8000);
    let mut gaps = world.collector.gaps();
    gaps.retain(|(_, _, gap)| gap.reason != GapReason::UncleanStop);
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    let (_, _, gap) = &gaps[0];
    assert_eq!(gap.reason, GapReason::Damaged);
    let lost = gap.seqs.unwrap().len() as usize * 10;
    assert_eq!(world.collector.rows().len() + lost, 200);
    assert!(world.engine.sender().is_drained());
}

#[test]
fn an_evicted_segment_that_cannot_be_read_whole_is_named_without_a_count_or_times() {
    for rots in [false, true] {
        let mut world = World::new();
        feed(&mut world, 0..200);
        world.pass(2000);
        if rots {
            let name = FakeDiskNames(&world.disk).first_of("normal");
            assert!(world.disk.rot(&name, 1200, 0x40));
        }
        feed(&mut world, 200..3000);
        world.pass(2000);
        world.connect();
        world.run(10_000);
        let evicted = world.collector.gaps().into_iter().map(|(_, _, gap)| gap);
        let evicted = evicted.filter(|gap| gap.reason == GapReason::Evicted);
        let widest = evicted.max_by_key(|gap| gap.seqs.map_or(0, SeqRange::len));
        let widest = widest.unwrap();
        assert_eq!(widest.seqs.unwrap().first, 0);
        let is_known = widest.samples.is_some() && widest.t_first.is_some();
        assert_eq!(is_known, !rots, "{widest:?}");
        assert_eq!(widest.t_first.is_some(), widest.t_last.is_some());
    }
}

#[test]
fn a_segment_whose_snapshot_is_damaged_is_read_by_what_its_records_say() {
    for lives in 1..3 {
        let mut world = World::new();
        feed(&mut world, 0..20 * lives);
        world.pass(2000);
        for life in 1..lives {
            world.kill();
            feed(&mut world, life * 20..life * 20 + 20);
            world.pass(2000);
        }
        let disk = world.disk.process_killed();
        let names = FakeDiskNames(&disk).all_of("normal");
        for name in names {
            assert!(disk.rot(&name, 64 + 5, 0x40));
        }
        world.restart_on(disk);
        assert_eq!(resume(&world), 20 * lives);
        feed(&mut world, 0..20 * lives + 20);
        world.connect();
        world.run(5000);
        let mut rows = world.collector.rows();
        rows.sort_unstable();
        assert_eq!(rows, ks(0..20 * lives as i64 + 20), "{lives}");
        assert!(world.engine.sender().is_drained());
    }
}

#[test]
fn a_file_system_that_others_filled_takes_what_comes_in_place_of_the_oldest() {
    let mut world = World::new();
    feed(&mut world, 0..300);
    world.pass(2000);
    world.disk.set_capacity(Some(world.disk.used_bytes()));
    for k in 1000..1200 {
        world.offer(HOST, Lane::Normal, k).unwrap();
        world.pass(250);
        assert!(world.engine.lanes().all(|lane| !lane.in_ram), "{k}");
    }
    assert!(world.engine.counters().evicted_records > 0);
    world.pass(2000);
    // What gave way is on record, and was before this process ended.
    world.kill();
    world.connect();
    world.run(5000);
    let rows: BTreeSet<_> = world.collector.rows().into_iter().collect();
    assert!((1000..1200).all(|k| rows.contains(&k)));
    let evicted = world.collector.gaps().into_iter().map(|(_, _, gap)| gap);
    let evicted = evicted.filter(|gap| gap.reason == GapReason::Evicted);
    let samples = evicted.filter_map(|gap| gap.samples).max().unwrap();
    assert_eq!(samples, (500 - rows.len() as u64) * 2);
}

/// Names of files on a fake disk.
struct FakeDiskNames<'a>(&'a FakeDisk);

impl FakeDiskNames<'_> {
    fn first_of(&self, lane: &str) -> String {
        use headwater_spool::Disk;
        let mut names = self.0.list().unwrap();
        names.retain(|name| name.contains(lane));
        names.sort();
        names.remove(0)
    }

    fn all_of(&self, lane: &str) -> Vec<String> {
        use headwater_spool::Disk;
        let mut names = self.0.list().unwrap();
        names.retain(|name| name.contains(lane));
        names
    }
}

#[test]
fn a_foreign_limit_on_the_settings_is_named() {
    let mut settings = settings();
    let one = settings.sources[0].clone();
    settings.sources = vec![one; 65];
    let now = headwater_proto::time::Now {
        mono: headwater_proto::time::Millis(0),
        wall: headwater_proto::time::UnixMicros(0),
    };
    let opened = Engine::open(FakeDisk::new(), settings, &mut || 1, now);
    assert_eq!(
        opened.err().unwrap().to_string(),
        "65 sources; at most 64 are taken"
    );
}
