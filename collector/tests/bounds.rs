//! What custody does where one more finds no room.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

mod common;

use common::{
    CONN, Rig, START_US, batch, bundle, bundle_of, device, greeted, hello, hello_of, listed,
    schema, schema_frame, settings,
};
use headwater_collector::interpret::{Depth, Feed, Taken};
use headwater_collector::pipeline::custody::{Crowd, MAX_ASKED, MAX_ORIGINS, Output, Settings};
use headwater_collector::pipeline::envelope::{Reason, SchemaHead};
use headwater_collector::pipeline::ledger::{
    MAX_PLAIN_DEVICES, MAX_STREAMS, MAX_STREAMS_PER_DEVICE, plain_stream,
};
use headwater_collector::pipeline::schemas::{MAX_BOUND, MAX_SCHEMA_BYTES};
use headwater_gate::CloseReason;
use headwater_lake::MemStore;
use headwater_proto::bundle::Bundles;
use headwater_proto::codec::{Encoder, Rows};
use headwater_proto::frame::Kind;
use headwater_proto::ids::{DeviceId, Epoch, Lane, SeqRange, Stream};
use headwater_proto::message::{RejectReason, SchemaRequest};
use headwater_proto::sample::Value;
use headwater_proto::schema::{Column, ColumnKind, Schema};
use headwater_proto::varint;
use headwater_spool::FakeDisk;

fn named(name: &str) -> DeviceId {
    DeviceId::new(name).unwrap()
}

#[test]
fn a_gateway_that_speaks_for_too_many_nodes_is_cut_off() {
    let mut rig = Rig::new();
    rig.connect("gw");
    let gateway = named("gw");
    let node = |n: usize| named(&format!("node-{n}"));
    for n in (0..MAX_ORIGINS).chain([0]) {
        rig.up_for(&gateway, hello_of(&node(n), &[]), 0);
    }
    assert!(rig.sync());
    let closes = |rig: &Rig| -> Vec<_> {
        let closes = rig.sent.iter().filter_map(|output| match output {
            Output::Close { conn, reason } => Some((*conn, *reason)),
            Output::Send { .. }
            | Output::PubAck { .. }
            | Output::Shared { .. }
            | Output::Clock(_)
            | Output::Crowded { .. }
            | Output::Read(_)
            | Output::Keep(_)
            | Output::Find(_) => None,
        });
        closes.collect()
    };
    assert_eq!(closes(&rig), []);
    rig.up_for(&gateway, hello_of(&node(MAX_ORIGINS), &[]), 0);
    assert!(rig.sync());
    assert_eq!(closes(&rig), [(CONN, CloseReason::Protocol)]);
}

/// A bundle of one batch that needs schema `number`.
fn needing(number: u32) -> Vec<u8> {
    let schema = schema();
    let mut rows = Rows::new(&schema);
    let values = [Some(Value::F64(20.0)), Some(Value::I64(1))];
    rows.push_row(START_US, 0, &values).unwrap();
    let mut batch = Vec::new();
    Encoder::new(&schema)
        .encode(number, &rows, &mut batch)
        .unwrap();
    bundle_of(&device(), 1, 0, &[(Kind::Batch, batch)])
}

#[test]
fn a_schema_is_asked_for_once_until_too_many_others_were() {
    let mut rig = greeted();
    let most = u32::try_from(MAX_ASKED).unwrap();
    let mut asked_for = |numbers: std::ops::Range<u32>| {
        rig.sent.clear();
        numbers.for_each(|number| rig.up(needing(number), 0));
        assert!(rig.sync());
        rig.messages::<SchemaRequest>().len()
    };
    assert_eq!(asked_for(0..most), MAX_ASKED);
    assert_eq!(asked_for(0..most), 0);
    assert_eq!(asked_for(most..most + 1), 1);
    assert_eq!(asked_for(most..most + 1), 0);
    // Those before were forgotten, so they are asked for again.
    assert_eq!(asked_for(0..2), 2);
}

/// Devices that were held back, and of what.
fn crowded(rig: &Rig) -> Vec<(String, Crowd)> {
    let said = rig.sent.iter().filter_map(|output| match output {
        Output::Crowded { origin, of } => Some((origin.to_string(), *of)),
        Output::Send { .. }
        | Output::PubAck { .. }
        | Output::Clock(_)
        | Output::Close { .. }
        | Output::Shared { .. }
        | Output::Read(_)
        | Output::Keep(_)
        | Output::Find(_) => None,
    });
    said.collect()
}

#[test]
fn a_device_that_fills_the_schema_book_makes_room_for_others_and_loses_nothing() {
    let mut rig = greeted();
    let book = rig.custody.schemas().clone();
    let head = |number| SchemaHead {
        origin: device(),
        epoch: Epoch::new(1),
        number,
    };
    let most = u32::try_from(MAX_BOUND).unwrap();
    for number in 0..most {
        assert!(book.bind(&head(number), &schema_frame()[1..]));
    }
    book.synced();
    let other = named("other");
    let frames = [(Kind::Schema, schema_frame()), (Kind::Batch, batch(0))];
    rig.up_for(&other, hello_of(&other, &[listed(5, 0, 1)]), 1);
    rig.up_for(&other, bundle_of(&other, 5, 0, &frames), 2);
    assert!(rig.sync());
    assert_eq!(rig.mark(5).unwrap().received, 1);
    let counters = *rig.custody.counters();
    assert_eq!(
        (counters.schemas_full_total, counters.malformed_total),
        (0, 0)
    );
    let left = usize::try_from(counters.schemas_left_total).unwrap();
    assert_eq!(
        crowded(&rig),
        [(device().to_string(), Crowd::Schemas(left))]
    );
    // Those that it used last are bound still.
    assert!(!book.knows(&head(1)) && book.knows(&head(most - 1)));
    // One that left is asked for, and its batch is taken when it comes with it.
    rig.up(needing(1), 3);
    assert!(rig.sync());
    assert_eq!(rig.messages::<SchemaRequest>().len(), 1);
    assert_eq!(rig.mark(1).unwrap().received, 0);
    let mut again = schema_frame();
    again[0] = 1;
    let batch = needing(1);
    let batch = Bundles::new(&batch).next().unwrap().unwrap();
    let batch = batch.records().next().unwrap().frame.payload.to_vec();
    let frames = [(Kind::Schema, again), (Kind::Batch, batch)];
    rig.up(bundle_of(&device(), 1, 0, &frames), 4);
    assert!(rig.sync());
    assert_eq!(rig.mark(1).unwrap().received, 1);
}

#[test]
fn a_start_reads_more_schemas_again_than_the_book_holds_and_keeps_to_its_bounds() {
    let large = Settings {
        log: headwater_spool::Config {
            segment_bytes: 32 << 20,
            quota_bytes: 256 << 20,
            ..settings().log
        },
        ..settings()
    };
    let mut rig = Rig::start(FakeDisk::new(), MemStore::new(), large.clone(), 0).unwrap();
    rig.connect("dev");
    rig.up(hello(&[listed(1, 0, 100)]), 0);
    assert!(rig.sync());
    // Schemas of some 50 KB, each for a batch of its own.
    let announced = |number: u32| {
        let names = (0..200).map(|at| format!("{number:0>240}-{at:03}"));
        let columns = names.map(|name| Column::new(&name, ColumnKind::I64));
        let mut bytes = Vec::new();
        Schema::new(1, columns.collect())
            .encode(&mut bytes)
            .unwrap();
        let (mut frame, mut len) = (vec![0; varint::MAX_VARINT_BYTES], 0);
        varint::put(&mut frame, &mut len, number.into()).unwrap();
        frame.truncate(len);
        frame.extend_from_slice(&bytes);
        frame
    };
    let mut bytes = 0;
    let mut number = 1;
    while bytes < 2 * MAX_SCHEMA_BYTES {
        let frame = announced(number);
        (bytes, number) = (bytes + frame.len(), number + 1);
        rig.up(
            bundle_of(&device(), 1, 0, &[(Kind::Schema, frame)]),
            number.into(),
        );
        assert!(rig.sync());
    }
    assert_eq!(rig.custody.counters().schemas_full_total, 0);
    let bound = |rig: &Rig| {
        let head = |number| SchemaHead {
            origin: device(),
            epoch: Epoch::new(1),
            number,
        };
        let book = rig.custody.schemas();
        (1..number)
            .filter(|number| book.knows(&head(*number)))
            .count()
    };
    let most = MAX_SCHEMA_BYTES / 48_000;
    assert!((most / 3..=most).contains(&bound(&rig)), "{}", bound(&rig));
    let rig = Rig::start(rig.disk.clone(), rig.store.clone(), large, 1).unwrap();
    assert!((most / 3..=most).contains(&bound(&rig)), "{}", bound(&rig));
}

#[test]
fn a_stream_for_which_there_is_no_room_is_counted_and_stays_with_its_sender() {
    let mut rig = greeted();
    let epochs = 1..=MAX_STREAMS_PER_DEVICE as u64;
    let others = (0..MAX_STREAMS / MAX_STREAMS_PER_DEVICE).flat_map(|n| {
        let device = named(&format!("other-{n}"));
        epochs.clone().map(move |epoch| Stream {
            device: device.clone(),
            lane: Lane::Normal,
            epoch: Epoch::new(epoch),
        })
    });
    // The device has one already.
    for stream in others.skip(2) {
        rig.custody.seed(stream, &[SeqRange::new(0, 1)], &[], None);
    }
    rig.up(hello(&[listed(1, 0, 100), listed(2, 0, 100)]), 1);
    assert!(rig.sync());
    assert_eq!(rig.custody.ledger().len(), MAX_STREAMS);
    assert_eq!(rig.custody.counters().streams_full_total, 0);
    let streams = [listed(1, 0, 100), listed(2, 0, 100), listed(3, 0, 100)];
    rig.up(hello(&streams), 2);
    assert!(rig.sync());
    assert_eq!(rig.custody.ledger().len(), MAX_STREAMS);
    assert_eq!(rig.custody.counters().streams_full_total, 1);
    assert_eq!(crowded(&rig), [(device().to_string(), Crowd::Streams)]);
    assert_eq!((rig.mark(2).is_some(), rig.mark(3)), (true, None));
    rig.up(bundle(3, 0, 1), 3);
    assert!(rig.sync());
    let rejects = rig.rejects();
    assert_eq!(rejects.len(), 1);
    assert_eq!(rejects[0].reason, RejectReason::NotDurable);
    assert!(!rejects[0].reason.is_final());
    rig.up(bundle(2, 0, 1), 4);
    assert!(rig.sync());
    assert_eq!(rig.mark(2).unwrap().received, 1);
}

#[test]
fn publishes_of_more_plain_devices_than_are_kept_apart_go_to_quarantine_and_hold_up_nobody() {
    let mut rig = Rig::new();
    rig.connect("meter");
    // The journal's first segment begins with what was known before.
    rig.plain("plain/first/temp", "20", 9, false, 0);
    assert!(rig.sync());
    for n in 2..MAX_PLAIN_DEVICES {
        let epoch = rig.custody.ledger().plain_epoch();
        let stream = plain_stream(&named(&format!("m{n}")), epoch);
        rig.custody.seed_plain(&stream, &[], 1);
    }
    rig.plain("plain/last/temp", "20", 1, false, 1);
    rig.plain("plain/one-more/temp", "20", 2, false, 2);
    rig.plain("plain/one-more/temp", "21", 3, false, 3);
    rig.plain("plain/last/temp", "21", 4, false, 4);
    assert!(rig.sync());
    assert!(!rig.custody.is_stalled());
    assert_eq!(rig.pubacks(), [0, 1, 2, 3, 4]);
    assert_eq!(rig.custody.counters().plain_devices_full_total, 2);
    // The name of the quarantine comes on top, and no other.
    assert_eq!(rig.custody.ledger().plain().count(), MAX_PLAIN_DEVICES + 1);
    let mut reasons = Vec::new();
    Feed::new(rig.custody.reader(), 0, Depth::Samples)
        .read(1 << 16, |item| {
            reasons.extend(item.refused().map(|refused| refused.reason));
            Taken::More
        })
        .unwrap();
    assert_eq!(reasons, [Reason::TooManyDevices; 2]);
    rig.flush().unwrap();
    let counts = rig.audit().totals.counts;
    assert_eq!((counts.samples, counts.quarantined), (3, 2));
}
