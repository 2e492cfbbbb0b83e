//! What cannot be read reaches the collector as such, bounded, and holds up nothing.

use headwater_proto::frame::{self, Kind};
use headwater_proto::ids::Lane;
use headwater_proto::message::{GapReason, Stage};
use headwater_proto::refused::{MAX_PARTS, Part, Refused};
use headwater_proto::sample::Value;
use headwater_proto::schema::MAX_VALUE_TEXT_BYTES;
use headwater_proto::time::UnixMicros;
use headwater_spool::FakeDisk;

use super::super::intake::BULK_AGE_MS;
use super::world::{BOOT_US, HOST, REPLAY, World, settings};
use super::{ks, resume};
use crate::pipeline::admit::{Fault, Field, MAX_ROW_TEXT_BYTES, Sample};
use crate::pipeline::record::Cursor;
use crate::pipeline::refusals::MAX_PARTS_PER_MINUTE;

const fn part(bytes: &[u8]) -> Part<'_> {
    Part {
        at_us: 0,
        place: "line 7",
        cause: "not a number",
        bytes,
    }
}

const fn after(k: u64) -> Option<Cursor> {
    Some(Cursor {
        major: 0,
        minor: k + 1,
        tag: 0,
    })
}

/// Source, place and bytes of every refused part at the collector, by lane.
fn parts(world: &World) -> Vec<(Lane, String, String, String)> {
    let mut found = Vec::new();
    for ((lane, _), stream) in &world.collector.streams {
        for (kind, bytes) in stream.records.values() {
            if *kind == Kind::Refused {
                let (frame, _) = frame::decode(bytes).unwrap();
                let refused = Refused::decode(frame.payload).unwrap();
                for part in refused.parts() {
                    let bytes = String::from_utf8_lossy(part.bytes).into_owned();
                    found.push((*lane, refused.source.into(), part.place.into(), bytes));
                }
            }
        }
    }
    found
}

fn refuse(world: &mut World, source: usize, lane: Lane, bytes: &[u8], cursor: Option<Cursor>) {
    let now = world.now();
    world
        .engine
        .refuse(source, lane, &part(bytes), cursor, now)
        .unwrap();
}

#[test]
fn a_value_that_is_refused_goes_to_quarantine_and_its_row_keeps_the_rest() {
    let mut world = World::new();
    let long = "x".repeat(MAX_VALUE_TEXT_BYTES + 1);
    let fields = [
        Field::new("k", Value::I64(1)),
        Field::new("text", Value::Str(&long)),
        Field::new("k", Value::I64(2)),
    ];
    let sample = Sample {
        time: UnixMicros(BOOT_US),
        labels: &[],
        fields: &fields,
    };
    let now = world.now();
    let offered = world.engine.offer(HOST, Lane::Bulk, &sample, None, now);
    let faults = offered.unwrap().refused;
    assert_eq!(faults, [(1, Fault::Text(long.len())), (2, Fault::Repeated)]);
    world.connect();
    world.run(7_000);
    assert_eq!(world.collector.rows(), [1]);
    let found = parts(&world);
    let places: Vec<_> = found
        .iter()
        .map(|(lane, source, place, _)| (*lane, &**source, &**place))
        .collect();
    let expected = |place| (Lane::Normal, "host", place);
    assert_eq!(places, [expected("value of text"), expected("value of k")]);
    assert!(found[0].3.starts_with("xxx") && found[1].3 == "2");
    let counters = world.engine.counters();
    assert_eq!(
        (counters.refused, counters.samples, counters.samples_durable),
        (2, 3, 3)
    );
}

#[test]
fn texts_up_to_their_bounds_pass_and_are_stored_however_often_they_come() {
    let mut settings = settings();
    settings.spool.segment_bytes = 1 << 20;
    settings.spool.lane_bytes = [5 << 20, 8 << 20, 5 << 20];
    settings.batch.rows = 1_000;
    let mut world = World::with(settings, FakeDisk::new());
    world.connect();
    let text = "y".repeat(MAX_VALUE_TEXT_BYTES);
    let rest = "z".repeat(MAX_ROW_TEXT_BYTES - MAX_VALUE_TEXT_BYTES);
    for k in 1..41 {
        // Some alone, some in batches that are full but for this row.
        let short = "s".repeat(if k % 4 == 0 { 0 } else { 9_000 });
        let fields = [
            Field::new("k", Value::I64(k)),
            Field::new("a", Value::Str(if k % 4 == 0 { &text } else { &short })),
            Field::new("b", Value::Str(if k % 4 == 0 { &rest } else { "" })),
        ];
        let sample = Sample {
            time: UnixMicros(BOOT_US + k),
            labels: &[],
            fields: &fields,
        };
        let now = world.now();
        let offered = world.engine.offer(HOST, Lane::Normal, &sample, None, now);
        assert!(offered.unwrap().refused.is_empty());
        if k % 7 == 0 {
            world.run(250);
        }
    }
    world.run(3_000);
    // The collector of these tests decodes within the limits of a real one.
    assert_eq!(world.collector.rows(), ks(1..41));
}

#[test]
fn parts_coalesce_up_to_a_records_bounds() {
    let mut settings = settings();
    settings.spool.segment_bytes = 1 << 20;
    settings.spool.lane_bytes = [5 << 20, 8 << 20, 5 << 20];
    let mut world = World::with(settings, FakeDisk::new());
    for _ in 0..MAX_PARTS + 10 {
        refuse(&mut world, HOST, Lane::Normal, b"bad", None);
    }
    world.connect();
    world.run(3_000);
    assert_eq!(parts(&world).len(), MAX_PARTS + 10);
    let records = world
        .collector
        .streams
        .values()
        .flat_map(|s| s.records.values());
    assert_eq!(
        records.filter(|(kind, _)| *kind == Kind::Refused).count(),
        2
    );
}

#[test]
fn what_passes_the_bounds_of_a_minute_is_counted_and_named_once() {
    let mut settings = settings();
    settings.spool.segment_bytes = 1 << 20;
    settings.spool.lane_bytes = [5 << 20, 8 << 20, 5 << 20];
    let mut world = World::with(settings, FakeDisk::new());
    world.connect();
    let most = MAX_PARTS_PER_MINUTE as usize;
    for _ in 0..most + 40 {
        refuse(&mut world, HOST, Lane::Normal, b"bad", None);
    }
    // Another source has bounds of its own.
    refuse(&mut world, REPLAY, Lane::Normal, b"other", None);
    world.run(50_000);
    assert!(world.collector.gaps().is_empty());
    world.run(12_000);
    let gaps = world.collector.gaps();
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    let gap = &gaps[0].2;
    assert_eq!(
        (
            gap.reason,
            gap.stage,
            gap.part.as_deref(),
            gap.samples,
            gap.seqs
        ),
        (
            GapReason::Refused,
            Stage::Source,
            Some("host"),
            Some(40),
            None
        )
    );
    assert!(gap.t_first.is_some() && gap.t_first <= gap.t_last);
    assert_eq!(parts(&world).len(), most + 1);
    // A stop names what is left at once.
    for _ in 0..most + 1 {
        refuse(&mut world, HOST, Lane::Normal, b"bad", None);
    }
    let now = world.now();
    world.engine.stop(now);
    world.run(1_000);
    let gaps = world.collector.gaps();
    assert_eq!(gaps.last().unwrap().2.samples, Some(1));
    assert_eq!(world.engine.counters().refused as usize, 2 * most + 42);
}

#[test]
fn refused_parts_of_a_source_that_resumes_stand_in_its_lane_with_its_cursor() {
    for crash in 0..80 {
        let mut world = World::new();
        let give = |world: &mut World, k: u64| {
            if k % 5 == 4 {
                refuse(
                    world,
                    REPLAY,
                    Lane::Bulk,
                    k.to_string().as_bytes(),
                    after(k),
                );
            } else {
                let _ = world.offer(REPLAY, Lane::Bulk, k);
            }
        };
        for k in 0..23 {
            give(&mut world, k);
        }
        world.pass(6_000);
        world.disk.crash_after(crash);
        for k in 23..40 {
            let now = world.now();
            if k % 5 == 4 {
                let bytes = k.to_string();
                let _ =
                    world
                        .engine
                        .refuse(REPLAY, Lane::Bulk, &part(bytes.as_bytes()), after(k), now);
            } else {
                let _ = world.offer(REPLAY, Lane::Bulk, k);
            }
            world.pass(1_000);
        }
        world.restart_on(world.disk.power_cut(crash));
        for k in resume(&world)..45 {
            give(&mut world, k);
        }
        world.connect();
        world.run(9_000);
        let mut rows = world.collector.rows();
        let found = parts(&world);
        assert!(found.iter().all(|(lane, ..)| *lane == Lane::Bulk));
        rows.extend(
            found
                .iter()
                .map(|(_, _, _, bytes)| bytes.parse::<i64>().unwrap()),
        );
        rows.sort_unstable();
        assert_eq!(rows, ks(0..45), "crash {crash}");
        assert!(world.engine.sender().is_drained());
    }
}

#[test]
fn a_line_longer_than_a_batch_goes_to_quarantine_with_its_cursor() {
    let mut world = World::new();
    let line = vec![b'l'; world.settings.batch.bytes + 1];
    let now = world.now();
    let offered = world
        .engine
        .offer_line(REPLAY, Lane::Bulk, now.wall, &line, after(0), now);
    let fault = Fault::Line(line.len(), line.len() - 1);
    assert_eq!(offered.unwrap().refused, [(0, fault)]);
    world.connect();
    world.run(7_000);
    assert_eq!(parts(&world).len(), 1);
    assert_eq!(world.engine.cursors()[REPLAY], after(0));
    assert_eq!(world.settled(REPLAY).durable, 1);
}

#[test]
fn refused_parts_count_in_the_gap_of_an_evicted_segment() {
    let mut world = World::new();
    for k in 0..3_000 {
        refuse(
            &mut world,
            HOST,
            Lane::Normal,
            format!("{k}").as_bytes(),
            None,
        );
        world.offer(HOST, Lane::Normal, k).unwrap();
        if k % 100 == 0 {
            world.pass(15_000);
        }
    }
    world.pass(70_000);
    assert!(world.engine.counters().evicted_records > 0);
    world.connect();
    world.run(10_000);
    let gaps = world.collector.gaps();
    let of = |reason| -> u64 {
        let gaps = gaps.iter().filter(move |(_, _, gap)| gap.reason == reason);
        gaps.filter_map(|(_, _, gap)| gap.samples)
            .max()
            .unwrap_or(0)
    };
    let arrived = world.collector.rows().len() as u64 * 2 + parts(&world).len() as u64;
    let beyond: u64 = gaps
        .iter()
        .filter(|(_, _, gap)| gap.reason == GapReason::Refused)
        .filter_map(|(_, _, gap)| gap.samples)
        .sum();
    assert_eq!(arrived + of(GapReason::Evicted) + beyond, 9_000);
}

#[test]
fn parts_beyond_the_bounds_are_not_read_again_once_their_gap_is_durable() {
    let mut world = World::new();
    let most = u64::from(MAX_PARTS_PER_MINUTE);
    for k in 0..most + 5 {
        refuse(&mut world, REPLAY, Lane::Normal, b"x", after(k));
    }
    world.pass(3_000);
    assert_eq!(resume(&world), most, "nothing names the others yet");
    // A row that comes later is in the open batch when the minute is over.
    world.pass(56_900);
    world.offer(REPLAY, Lane::Normal, most + 5).unwrap();
    world.pass(1_500);
    world.kill();
    assert_eq!(resume(&world), most + 6);
    for k in 0..most + 6 {
        refuse(&mut world, REPLAY, Lane::Normal, b"x", after(k));
    }
    world.connect();
    world.run(70_000);
    let gaps: Vec<_> = world.collector.gaps();
    let named = gaps
        .iter()
        .filter(|(_, _, gap)| gap.reason == GapReason::Refused);
    assert_eq!(named.filter_map(|(_, _, gap)| gap.samples).sum::<u64>(), 5);
    assert_eq!(world.collector.rows(), [most as i64 + 5]);
}

#[test]
fn what_can_no_longer_be_read_is_named_from_the_last_row_on_beside_the_part_that_tells_of_it() {
    let mut world = World::new();
    world.offer(REPLAY, Lane::Normal, 0).unwrap();
    world.pass(3_000);
    let now = world.now();
    let lost = [
        super::super::Lost::one(2, now.wall),
        super::super::Lost::unread(now.wall),
    ];
    for lost in lost {
        world.engine.lost(REPLAY, Lane::Normal, lost, after(4), now);
    }
    refuse(&mut world, REPLAY, Lane::Normal, b"", None);
    world.connect();
    // No row comes after it.
    world.run(3_000);
    assert_eq!(resume(&world), 5);
    assert_eq!(parts(&world).len(), 1);
    let gaps = world.collector.gaps();
    let told: Vec<_> = gaps
        .iter()
        .map(|(_, _, gap)| (gap.reason, gap.samples, gap.t_first, gap.t_last, gap.stage))
        .collect();
    let age_ms = world.settings.batch.age_ms;
    let stored = super::world::at(age_ms.div_ceil(250) * 250).wall;
    let begun = UnixMicros(stored.0 - age_ms.max(BULK_AGE_MS).cast_signed() * 1_000);
    let gap =
        |reason, samples, first| (reason, samples, Some(first), Some(now.wall), Stage::Source);
    let expected = [
        gap(GapReason::Overflow, Some(2), now.wall),
        // When that row's batch was begun, at the earliest.
        gap(GapReason::MissingAtSource, None, begun),
    ];
    assert_eq!(told, expected);
    assert_eq!(
        (
            world.engine.counters().busy,
            world.engine.counters().lost_samples
        ),
        (1, 2)
    );
}

#[test]
fn a_gap_that_says_where_its_source_resumes_covers_no_row_that_is_on_no_disk() {
    for crash in 0..40 {
        let mut world = World::new();
        world.disk.crash_after(crash);
        let mut lost = 0;
        for k in 0..60 {
            if k % 7 == 3 {
                let now = world.now();
                let one = super::super::Lost::one(1, now.wall);
                world.engine.lost(REPLAY, Lane::Normal, one, after(k), now);
                lost += 1;
            } else if world.offer(REPLAY, Lane::Normal, k).is_err() {
                break;
            }
            world.pass(250);
        }
        assert!(lost > 0);
        let disk = world.disk.power_cut(crash);
        world.restart_on(disk);
        let from = resume(&world);
        world.connect();
        world.run(5_000);
        let rows = world.collector.rows();
        let expected: Vec<i64> = (0..from as i64).filter(|k| k % 7 != 3).collect();
        assert_eq!(rows, expected, "crash {crash}");
        let gaps = world.collector.gaps();
        let named = gaps
            .iter()
            .filter(|(_, _, gap)| gap.reason == GapReason::Overflow);
        let named = named.filter_map(|(_, _, gap)| gap.samples).sum::<u64>();
        let passed = (0..from).filter(|k| k % 7 == 3).count() as u64;
        assert!(
            named >= passed,
            "crash {crash}: {named} of {passed} are named"
        );
    }
}
