//! One record that cannot go holds up no other.

use std::collections::BTreeSet;

use headwater_proto::codec::BatchHeader;
use headwater_proto::frame;
use headwater_proto::ids::Lane;
use headwater_proto::message::{self, GapReason, SchemaRequest};
use headwater_proto::sample::Value;
use headwater_proto::time::UnixMicros;
use headwater_spool::FakeDisk;

use super::super::{Event, MAX_EPOCHS, MAX_FLIGHTS, UNREADABLE_MS};
use super::world::{HOST, World, settings};
use super::{feed, ks};
use crate::pipeline::admit::{Field, Sample};

#[test]
fn a_record_larger_than_any_bundle_is_refused_here_and_the_rest_goes_on() {
    let mut settings = settings();
    settings.sender.max_bundle = 500;
    let mut world = World::with(settings, FakeDisk::new());
    for k in 0..10 {
        world.offer(HOST, Lane::Normal, k).unwrap();
    }
    world.pass(3000);
    world.offer(HOST, Lane::Normal, 10).unwrap();
    world.offer(HOST, Lane::Bulk, 100).unwrap();
    world.connect();
    world.run(10_000);
    assert_eq!(world.collector.rows(), [10, 100]);
    let gaps = world.collector.gaps();
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    let gap = &gaps[0].2;
    assert_eq!((gap.reason, gap.samples), (GapReason::Refused, Some(20)));
    assert_eq!(world.engine.dead_letter_records(), 1);
    assert!(world.engine.sender().is_drained());
}

#[test]
fn a_schema_that_leaves_no_room_for_its_batch_goes_alone_before_it() {
    let name = "a_rather_long_name_of_a_metric_".repeat(4);
    let pads: Vec<String> = (1..4u128)
        .map(|n| {
            format!(
                "{:032x}",
                n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
            )
        })
        .collect();
    let mut alone = 0;
    for max_bundle in (300..700).step_by(10) {
        let mut settings = settings();
        settings.sender.max_bundle = max_bundle;
        let mut world = World::with(settings, FakeDisk::new());
        let mut fields = vec![Field::new(&name, Value::I64(7))];
        for (pad, name) in pads.iter().zip(["a", "b", "c"]) {
            fields.push(Field::new(name, Value::Str(pad)));
        }
        let sample = Sample {
            time: UnixMicros(5),
            labels: &[],
            fields: &fields,
        };
        let now = world.now();
        world
            .engine
            .offer(HOST, Lane::Normal, &sample, None, now)
            .unwrap();
        world.connect();
        world.run(5000);
        let arrived = world.collector.rows() == [7];
        assert_ne!(arrived, world.collector.gaps().len() == 1, "{max_bundle}");
        alone += u32::from(arrived && world.collector.bundles == 2);
    }
    assert!(alone > 0);
}

#[test]
fn a_segment_that_cannot_be_read_is_named_after_a_while_and_other_lanes_go_on() {
    let mut world = World::new();
    feed(&mut world, 0..30);
    world.pass(2000);
    world.kill();
    world.offer(HOST, Lane::Bulk, 100).unwrap();
    world.pass(6000);
    world.connect();
    for _ in 0..=UNREADABLE_MS / 250 {
        world.ms += 250;
        world.disk.fail_operation(0);
        world.exchange();
    }
    world.run(5000);
    let rows: BTreeSet<_> = world.collector.rows().into_iter().collect();
    assert!(rows.contains(&100));
    let named: u64 = world
        .collector
        .gaps()
        .iter()
        .filter(|(_, _, gap)| gap.reason == GapReason::Damaged)
        .filter_map(|(_, _, gap)| gap.seqs)
        .map(|range| range.len())
        .sum();
    assert_eq!(rows.len() as u64 + named * 10, 31);
    assert!(named > 0, "the disk never refused a read");
    assert!(world.engine.sender().is_drained());
}

#[test]
fn more_schemas_than_are_kept_in_memory_all_go_out_and_are_found_again() {
    let mut settings = settings();
    settings.spool.segment_bytes = 1 << 20;
    settings.spool.lane_bytes = [5 << 20, 8 << 20, 5 << 20];
    let mut world = World::with(settings, FakeDisk::new());
    for k in 0..600i64 {
        let name = format!("metric_{k}");
        let fields = [Field::new(&name, Value::I64(k))];
        let sample = Sample {
            time: UnixMicros(k),
            labels: &[],
            fields: &fields,
        };
        let now = world.now();
        world
            .engine
            .offer(HOST, Lane::Normal, &sample, None, now)
            .unwrap();
        world.pass(250);
    }
    world.pass(3000);
    let epoch = world.engine.lanes().nth(1).unwrap().epoch;
    world.kill();
    world.connect();
    world.run(20_000);
    let mut rows = world.collector.rows();
    rows.sort_unstable();
    assert_eq!(rows, ks(0..600));
    // Asked for again, each is there again.
    for schema in 0..600 {
        let request = SchemaRequest {
            origin: world.settings.device.clone(),
            lane: Lane::Normal,
            epoch,
            schema,
        };
        let mut bytes = Vec::new();
        message::append_frame(&request, &mut bytes);
        world.collector.schemas.remove(&(epoch, schema));
        let now = world.now();
        world.engine.handle(Event::Message(&bytes), now);
        world.exchange();
    }
    let found = (0..600).filter(|n| world.collector.schemas.contains_key(&(epoch, *n)));
    // What is committed may be gone from the disk; the counter tells.
    let refused = world.engine.counters().refused_messages;
    assert_eq!(found.count() as u64 + refused, 600);
}

#[test]
fn a_read_that_fails_once_costs_no_schema() {
    for failing in 0..40 {
        let mut world = World::new();
        feed(&mut world, 0..20);
        world.pass(1250);
        world.kill();
        world.connect();
        world.disk.fail_operation(failing);
        world.run(15_000);
        for ((_, epoch), stream) in &world.collector.streams {
            for (kind, bytes) in stream.records.values() {
                let (frame, _) = frame::decode(bytes).unwrap();
                if *kind == frame::Kind::Batch {
                    let schema = BatchHeader::peek(frame.payload).unwrap().schema_no;
                    assert!(
                        world.collector.schemas.contains_key(&(*epoch, schema)),
                        "{failing}"
                    );
                }
            }
        }
    }
}

#[test]
fn more_lives_than_the_sender_holds_do_not_hold_up_what_is_new() {
    let mut settings = settings();
    settings.spool.lane_bytes = [5 * 4096, 400 * 4096, 5 * 4096];
    let mut world = World::with(settings, FakeDisk::new());
    let lives = MAX_EPOCHS as u64 + 14;
    for k in 0..lives {
        world.offer(HOST, Lane::Normal, k).unwrap();
        world.pass(3000);
        world.kill();
        // Those of the lives that are over, and the one that names their ends.
        let epochs = k as usize + 2;
        assert_eq!(
            world.engine.outbox.waiting.len(),
            epochs.saturating_sub(MAX_EPOCHS)
        );
        if (MAX_EPOCHS..=MAX_EPOCHS + 1).contains(&epochs) {
            // A Hello that leaves some out says so, and none of them counts as abandoned.
            world.connect();
            let now = world.now();
            let hello = world.engine.next_publish(now).unwrap();
            world.collector.take(&hello);
            let hello = world.collector.hellos.last().unwrap();
            assert_eq!(hello.complete, epochs == MAX_EPOCHS);
        }
    }
    world.connect();
    world.offer(HOST, Lane::Normal, 1000).unwrap();
    world.run(120_000);
    let rows: BTreeSet<_> = world.collector.rows().into_iter().collect();
    assert!(rows.contains(&1000));
    assert_eq!(rows.len() as u64, lives + 1);
    assert!(world.engine.outbox.waiting.is_empty());
}

#[test]
fn as_many_bundles_as_the_bound_are_in_flight_and_the_next_goes_when_one_has_landed() {
    let mut settings = settings();
    settings.sender.max_bundle = 1_000;
    let mut world = World::with(settings, FakeDisk::new());
    feed(&mut world, 0..(2 * MAX_FLIGHTS as u64 + 1) * 10);
    world.pass(2000);
    world.connect();
    let now = world.now();
    let hello = world.engine.next_publish(now).unwrap();
    for answer in world.collector.take(&hello) {
        world.engine.handle(Event::Message(&answer), now);
    }
    let mut in_flight = Vec::new();
    while let Some(bytes) = world.engine.next_publish(now) {
        in_flight.push(bytes);
    }
    assert_eq!(in_flight.len(), MAX_FLIGHTS);
    for bytes in &in_flight {
        for answer in world.collector.take(bytes) {
            world.engine.handle(Event::Message(&answer), now);
        }
        assert!(world.engine.next_publish(now).is_some());
        assert_eq!(world.engine.next_publish(now), None);
    }
}
