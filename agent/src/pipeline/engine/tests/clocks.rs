//! Clocks that are good, bad, unset, set, and those of earlier boots.

use std::collections::BTreeSet;

use headwater_program::clock::WallError;
use headwater_proto::bundle::Stamps;
use headwater_proto::codec::BatchHeader;
use headwater_proto::frame::{self, Kind};
use headwater_proto::ids::Lane;
use headwater_proto::message::{GapReason, TimeBase};
use headwater_proto::time::{Base, UnixMicros};
use headwater_spool::{Config, FakeDisk, Log};

use super::super::{EngineError, Event, PROBE_MS};
use super::world::{BOOT_US, HOST, REPLAY, World, settings};
use crate::pipeline::record::{MAX_BASES_OF_ONE, SNAPSHOT_VERSION};

const SYNCED: WallError = WallError::Synced { error_ms: 3 };
const HOUR_US: i64 = 3_600_000_000;

/// A world whose device begins without a clock: it shows 1970.
fn unset() -> World {
    World::booting(settings(), -BOOT_US, WallError::Unsynced)
}

fn ends_of(world: &World) -> Vec<(u64, bool)> {
    let ends = world.collector.ends().into_iter();
    ends.map(|(_, _, end)| (end.boot, end.clean)).collect()
}

#[test]
fn a_bundle_holds_rows_of_one_quality_of_the_clock() {
    let mut world = World::booting(settings(), 0, SYNCED);
    for k in 0..10 {
        world.read(HOST, Lane::Normal, k).unwrap();
    }
    world.pass(250);
    world.set_clock(HOUR_US, WallError::Unsynced);
    for k in 10..20 {
        world.read(HOST, Lane::Normal, k).unwrap();
    }
    world.pass(2_000);
    world.set_clock(0, SYNCED);
    world.pass(1_250);
    world.read(HOST, Lane::Normal, 20).unwrap();
    world.pass(1_250);
    world.connect();
    world.run(2_000);
    let said: Vec<Stamps> = world
        .collector
        .heads
        .iter()
        .map(|(head, _)| head.stamps)
        .collect();
    let stamps = |synced, error_ms| Stamps { synced, error_ms };
    assert_eq!(
        said,
        [
            stamps(true, Some(4)),
            stamps(false, None),
            stamps(true, Some(4))
        ]
    );
    assert_eq!(world.collector.rows().len(), 21);
}

#[test]
fn an_unsynchronised_clock_is_measured_by_hellos_and_bundles_alike() {
    let mut world = World::booting(settings(), HOUR_US, WallError::Unsynced);
    world.connect();
    world.run(1_000);
    let error = |world: &World| world.engine.clock().stamps().error_ms;
    assert_eq!(error(&world), Some(1 << 22), "an hour, in powers of two");
    // A day later the drift alone would be 43 s; a bundle's answer says better.
    world.set_clock(0, WallError::Unsynced);
    world.ms += 24 * 3_600_000;
    world.read(HOST, Lane::Normal, 1).unwrap();
    world.run(2_000);
    assert!(error(&world).unwrap() <= 1_024, "{:?}", error(&world));
    let (head, _) = world.collector.heads.last().unwrap();
    assert!(
        head.stamps.error_ms.unwrap() > 32_768,
        "what was known as it was read"
    );
    assert_eq!(head.wall.unwrap().time, world.now().wall);
}

#[test]
fn rows_without_a_clock_count_from_the_boot_and_an_epoch_holds_one_base() {
    let mut world = unset();
    for k in 0..15 {
        world.read(HOST, Lane::Normal, k).unwrap();
    }
    world.pass(2_000);
    world.set_clock(0, SYNCED);
    for k in 15..30 {
        world.read(HOST, Lane::Normal, k).unwrap();
    }
    world.connect();
    world.run(3_000);
    let rows: BTreeSet<i64> = world.collector.rows().into_iter().collect();
    assert_eq!(rows.len(), 30);
    let boot = world.settings.boot;
    let heads = world.collector.heads.iter().map(|(head, _)| head);
    let bases: BTreeSet<_> = heads
        .map(|head| (head.epoch, head.base, head.boot))
        .collect();
    let epochs: BTreeSet<_> = bases.iter().map(|(epoch, _, _)| *epoch).collect();
    assert_eq!((bases.len(), epochs.len()), (2, 2));
    assert!(bases.iter().all(|(_, _, of)| *of == boot));
    let hello = world.collector.hellos.last().unwrap();
    assert_eq!(hello.streams.len(), 2);
    for stream in &hello.streams {
        assert!(bases.contains(&(stream.epoch, stream.base, stream.boot)));
    }
    assert_eq!(
        ends_of(&world),
        [(boot, true)],
        "the old epoch ended as it should"
    );
    assert!(world.collector.gaps().is_empty());
}

#[test]
fn the_boot_is_tied_to_wall_time_once_and_again_only_when_that_is_known_much_better() {
    let mut world = unset();
    world.connect();
    for k in 0..20 {
        world.read(HOST, Lane::Normal, k).unwrap();
        world.run(1_000);
    }
    let bases = |world: &World| -> Vec<TimeBase> {
        let bodies = world.collector.bodies::<TimeBase>();
        bodies.into_iter().map(|(_, _, base)| base).collect()
    };
    let told = bases(&world);
    assert_eq!(told.len(), 1, "by the collector's answer: {told:?}");
    let truth = BOOT_US + world.ms as i64 * 1_000 - world.now().mono.0 as i64 * 1_000;
    let began = told[0].wall.0 - told[0].uptime_us as i64;
    let off_ms = began.abs_diff(truth).div_ceil(1_000);
    assert!(
        off_ms <= u64::from(told[0].error_ms.unwrap()),
        "{off_ms} {told:?}"
    );
    assert_eq!(told[0].boot, world.settings.boot);
    assert_eq!(world.engine.clock().base(), Base::Uptime);
}

#[test]
fn rows_of_an_earlier_boot_follow_the_record_that_dates_them() {
    for flushed in [false, true] {
        let mut world = unset();
        let boot = world.settings.boot;
        for k in 0..30 {
            world.read(REPLAY, Lane::Normal, k).unwrap();
            world.read(HOST, Lane::Alarm, 100 + k).unwrap();
            world.ms += 10;
        }
        world.pass(2_000);
        world.set_clock(0, SYNCED);
        if flushed {
            let now = world.now();
            world.engine.stop(now);
        } else {
            world.pass(2_000);
        }
        world.reboot(0, SYNCED);
        world.connect();
        world.run(5_000);
        let mut rows = world.collector.rows();
        rows.sort_unstable();
        assert_eq!(rows.len(), 60, "{flushed}");
        let place = |wanted: &dyn Fn(&Kind) -> bool, base: Base| {
            world.collector.heads.iter().position(|(head, kinds)| {
                head.base == base && head.boot == boot && kinds.iter().any(wanted)
            })
        };
        let data = place(&|kind| *kind == Kind::Batch, Base::Uptime);
        let dated = place(&|kind| *kind == Kind::TimeBase, Base::Wall);
        let dated = dated.or_else(|| place(&|kind| *kind == Kind::TimeBase, Base::Uptime));
        assert!(
            dated.is_some() && dated < data,
            "{flushed}: {dated:?} {data:?}"
        );
        for (head, _) in &world.collector.heads {
            let runs = head.boot == world.settings.boot;
            assert_eq!(head.uptime_ms.is_some(), runs, "{head:?}");
        }
    }
}

#[test]
fn times_that_a_source_gives_are_no_uptime_and_turn_the_lane_seldom() {
    let mut settings = settings();
    settings.batch.rows = 1_000;
    let mut world = World::booting(settings, -BOOT_US, WallError::Unsynced);
    for round in 0..240 {
        world.read(HOST, Lane::Normal, round).unwrap();
        // The same lane, dated elsewhere.
        let given = BOOT_US as u64 / 1_000 + round;
        world.offer(REPLAY, Lane::Normal, given).unwrap();
        world.pass(250);
    }
    let epochs = world.engine.store.lanes.lane(1).epochs.len();
    assert!((3..=5).contains(&epochs), "{epochs} epochs in a minute");
    // Nothing is held up for ever, and a stop holds up nothing.
    let now = world.now();
    world.engine.stop(now);
    world.connect();
    world.run(3_000);
    assert_eq!(world.collector.rows().len(), 480);
    for ((_, epoch), stream) in &world.collector.streams {
        let mut heads = world.collector.heads.iter();
        let head = heads.find(|(head, _)| head.epoch == *epoch);
        let base = head.map(|(head, _)| head.base);
        for (kind, bytes) in stream
            .records
            .values()
            .filter(|(kind, _)| *kind == Kind::Batch)
        {
            let (frame, _) = frame::decode(bytes).unwrap();
            let header = BatchHeader::peek(frame.payload).unwrap();
            let is_uptime = header.first_time_us < world.now().mono.0 as i64 * 1_000;
            assert_eq!(base == Some(Base::Uptime), is_uptime, "{kind:?}");
        }
    }
}

#[test]
fn a_lane_in_memory_turns_with_the_clock_too_and_all_its_epochs_end() {
    let mut world = unset();
    world.read(HOST, Lane::Normal, 0).unwrap();
    world.pass(1_000);
    world.disk.set_capacity(Some(0));
    let mut k = 1;
    while world.engine.store.lanes.lane(1).ram.is_none() {
        world.read(HOST, Lane::Normal, k).unwrap();
        world.pass(250);
        k += 1;
        assert!(k < 1_000, "the disk never fills");
    }
    world.read(HOST, Lane::Normal, k).unwrap();
    world.pass(1_500);
    world.set_clock(0, SYNCED);
    world.read(HOST, Lane::Normal, k + 1).unwrap();
    world.pass(1_500);
    assert!(world.engine.store.lanes.lane(1).ram.is_some());
    world.disk.set_capacity(None);
    world.pass(PROBE_MS + 3_000);
    world.connect();
    world.run(3_000);
    assert_eq!(world.collector.rows().len(), k as usize + 2);
    let rams = world
        .collector
        .streams
        .iter()
        .filter(|(_, stream)| stream.ram);
    let rams: Vec<_> = rams.map(|((_, epoch), _)| *epoch).collect();
    assert_eq!(rams.len(), 2);
    let ends = world.collector.ends();
    for epoch in rams {
        let lasts = |key| !world.collector.streams[key].ram;
        assert!(
            ends.iter()
                .any(|(key, _, end)| end.epoch == epoch && lasts(key))
        );
    }
    assert!(world.engine.sender().is_drained());
    // What dates the boot is on the disk too, and not in memory alone.
    let bodies = world.collector.bodies::<TimeBase>();
    let lasting = bodies
        .iter()
        .filter(|(key, _, _)| !world.collector.streams[key].ram);
    assert!(lasting.count() > 0);
}

#[test]
fn a_power_cut_while_the_lane_turns_loses_and_doubles_no_row_of_a_source_that_resumes() {
    for crash in 0..60 {
        let mut world = unset();
        for k in 0..25 {
            world.read(REPLAY, Lane::Normal, k).unwrap();
        }
        world.pass(2_000);
        world.disk.crash_after(crash);
        world.set_clock(0, SYNCED);
        for k in 25..60 {
            // The disk is gone sooner or later.
            let _ = world.read(REPLAY, Lane::Normal, k);
            world.pass(250);
        }
        world.reboot(0, SYNCED);
        let from = super::resume(&world);
        for k in from..80 {
            world.read(REPLAY, Lane::Normal, k).unwrap();
        }
        world.connect();
        world.run(5_000);
        let mut rows = world.collector.rows();
        rows.sort_unstable();
        assert_eq!(rows, super::ks(0..80), "crash {crash}");
        assert!(world.engine.sender().is_drained());
    }
}

#[test]
fn what_an_unclean_stop_lost_without_a_clock_is_named_without_times() {
    let mut world = unset();
    world.read(HOST, Lane::Normal, 0).unwrap();
    world.pass(2_000);
    world.kill();
    world.connect();
    world.read(HOST, Lane::Normal, 1).unwrap();
    world.run(2_000);
    let gaps = world.collector.gaps();
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    let gap = &gaps[0].2;
    assert_eq!(
        (gap.reason, gap.t_first, gap.t_last),
        (GapReason::UncleanStop, None, None)
    );
}

#[test]
fn a_segment_without_its_snapshot_still_tells_what_its_times_count_from() {
    use headwater_spool::Disk;
    let mut world = unset();
    for k in 0..30 {
        world.read(HOST, Lane::Normal, k).unwrap();
    }
    world.pass(2_000);
    let boot = world.settings.boot;
    let disk = world.disk.process_killed();
    for name in disk.list().unwrap() {
        if name.contains("normal") {
            assert!(disk.rot(&name, 64 + 5, 0x40));
        }
    }
    world.restart_on(disk);
    world.connect();
    world.run(3_000);
    let heads = world.collector.heads.iter();
    let lives: BTreeSet<_> = heads
        .filter(|(_, kinds)| kinds.contains(&Kind::Batch))
        .map(|(head, _)| (head.base, head.boot))
        .collect();
    assert_eq!(lives, BTreeSet::from([(Base::Uptime, boot)]));
}

#[test]
fn a_spool_of_an_older_format_is_kept_and_named() {
    let disk = FakeDisk::new();
    let config = Config {
        name: "normal".to_owned(),
        segment_bytes: 4096,
        ..Config::default()
    };
    let (mut log, _) = Log::open(disk.clone(), config).unwrap();
    let older = |out: &mut Vec<u8>| out.extend([SNAPSHOT_VERSION - 1, 0, 0]);
    log.append(1, b"a record", &older).unwrap();
    log.sync().unwrap();
    drop(log);
    let before = disk.used_bytes();
    let now = World::new().now();
    let opened = super::super::Engine::open(disk.clone(), settings(), &mut || 1, now);
    let error = opened.err().unwrap();
    assert!(matches!(
        error,
        EngineError::Version {
            lane: Lane::Normal,
            found,
        } if found == SNAPSHOT_VERSION - 1
    ));
    assert!(error.to_string().contains("they are kept"), "{error}");
    assert_eq!(disk.used_bytes(), before);
}

#[test]
fn of_more_boots_than_a_collector_keeps_the_oldest_are_forgotten() {
    let mut world = World::booting(settings(), 0, SYNCED);
    let now = world.now();
    for boot in 100..=100 + MAX_BASES_OF_ONE as u64 {
        let base = TimeBase {
            origin: world.settings.device.clone(),
            boot,
            uptime_us: 1,
            wall: now.wall,
            error_ms: None,
        };
        world.engine.put_own(1, &base, now);
    }
    let bases = &world.engine.store.lanes.lane(1).marks.bases;
    assert_eq!((bases.len(), bases[0].boot), (MAX_BASES_OF_ONE, 101));
}

#[test]
fn a_clock_that_was_set_is_asked_about_before_rows_are_taken() {
    let mut world = World::new();
    world.off_us = HOUR_US;
    let now = world.now();
    assert!(world.engine.wants_clock(now));
    world.engine.handle(Event::Clock(SYNCED), now);
    assert!(!world.engine.wants_clock(now));
    assert_eq!(
        world.engine.clock().known_wall(now),
        Some(UnixMicros(BOOT_US + HOUR_US))
    );
}
