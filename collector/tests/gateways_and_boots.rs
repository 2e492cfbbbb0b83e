//! Nodes behind a gateway, records of earlier boots, several bundles in one publish, inputs that could
//! not be read: what custody makes of them, down to the lake.

#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

mod common;

use common::{
    Rig, batch, bundle, bundle_of, device, hello, hello_of, hello_that_is, listed, schema_frame,
    settings,
};
use headwater_proto::bundle::BundleHead;
use headwater_proto::codec::{Encoder, Rows};
use headwater_proto::frame::{self, Kind};
use headwater_proto::ids::{DeviceId, Epoch, Lane};
use headwater_proto::message::{
    self, GapReason, Hello, HelloStream, MAX_HELLO_STREAMS, RejectReason, TimeBase, Welcome,
};
use headwater_proto::refused;

use headwater_proto::sample::Value;
use headwater_proto::time::{Base, UnixMicros};

fn node() -> DeviceId {
    DeviceId::new("node-7").unwrap()
}

fn gateway() -> DeviceId {
    DeviceId::new("gw").unwrap()
}

/// A rig whose gateway listed epoch 1 of its node and delivered three of its five records.
fn with_node(rig: &mut Rig) {
    rig.connect("gw");
    rig.up_for(&gateway(), hello_of(&node(), &[listed(1, 0, 5)]), 0);
    let mut frames = vec![(Kind::Schema, schema_frame())];
    frames.extend((0..3).map(|seq| (Kind::Batch, batch(seq))));
    rig.up_for(&gateway(), bundle_of(&node(), 1, 0, &frames), 1);
    rig.sync();
    assert_eq!(rig.mark(1).unwrap().received, 3);
}

fn named(rig: &Rig) -> u64 {
    rig.custody.counters().gaps_named_total
}

#[test]
fn a_gateway_that_no_longer_lists_its_nodes_epoch_abandons_nothing_and_proves_no_loss() {
    let mut rig = Rig::new();
    with_node(&mut rig);
    // The records 3 and 4 left this gateway for another one; then it lists another epoch alone.
    rig.up_for(&gateway(), hello_of(&node(), &[listed(1, 5, 5)]), 2);
    rig.up_for(&gateway(), hello_of(&node(), &[listed(2, 0, 1)]), 3);
    rig.sync();
    rig.ms += 1_000;
    rig.handle(headwater_collector::pipeline::custody::Event::Tick);
    rig.sync();
    assert_eq!(named(&rig), 0, "another gateway may hold them");
    let frames = [(Kind::Batch, batch(3)), (Kind::Batch, batch(4))];
    rig.up_for(&gateway(), hello_of(&node(), &[listed(1, 3, 5)]), 4);
    rig.up_for(&gateway(), bundle_of(&node(), 1, 3, &frames), 5);
    rig.sync();
    assert_eq!(rig.mark(1).unwrap().received, 5);
}

#[test]
fn a_devices_own_hello_still_abandons_what_it_leaves_out() {
    let mut rig = Rig::new();
    rig.connect("dev");
    rig.up(hello(&[listed(1, 0, 5)]), 0);
    rig.up(hello(&[listed(2, 0, 1)]), 1);
    rig.sync();
    assert_eq!(named(&rig), 1);
}

#[test]
fn a_hello_that_does_not_list_all_abandons_nothing() {
    let mut rig = Rig::new();
    rig.connect("dev");
    rig.up(hello(&[listed(1, 0, 5)]), 0);
    rig.up(hello_that_is(false, &device(), &[listed(2, 0, 1)]), 1);
    rig.sync();
    assert_eq!(named(&rig), 0);
}

#[test]
fn a_relayed_epoch_that_nobody_lists_for_long_is_abandoned_with_a_gap() {
    let mut rig = Rig::start(
        headwater_spool::FakeDisk::new(),
        headwater_lake::MemStore::default(),
        headwater_collector::pipeline::custody::Settings {
            relayed_abandon_after_ms: 600_000,
            ..settings()
        },
        10,
    )
    .unwrap();
    with_node(&mut rig);
    rig.up_for(&gateway(), hello_of(&node(), &[]), 2);
    rig.sync();
    for (ms, gaps) in [(590_000, 0), (700_000, 1)] {
        rig.ms = ms;
        rig.handle(headwater_collector::pipeline::custody::Event::Tick);
        rig.sync();
        assert_eq!(named(&rig), gaps, "at {ms} ms");
    }
    // What comes all the same wins over the gap.
    rig.up_for(&gateway(), hello_of(&node(), &[listed(1, 3, 5)]), 3);
    let frames = [(Kind::Batch, batch(3)), (Kind::Batch, batch(4))];
    rig.up_for(&gateway(), bundle_of(&node(), 1, 3, &frames), 4);
    rig.sync();
    rig.flush().unwrap();
    let audit = rig.audit();
    assert!(audit.totals.is_good(), "{audit:?}");
    assert_eq!(audit.totals.counts.samples, 5 * common::SAMPLES);
}

#[test]
fn a_device_that_is_forgotten_is_abandoned_unless_somebody_lists_it() {
    let mut rig = Rig::new();
    with_node(&mut rig);
    let now = rig.now();
    let forgotten = rig.custody.forget_device(&node(), now).unwrap();
    assert!(forgotten.abandoned.is_empty() && forgotten.listed.len() == 1);
    rig.up_for(&gateway(), hello_of(&node(), &[]), 2);
    rig.sync();
    let forgotten = rig.custody.forget_device(&node(), now).unwrap();
    assert_eq!((forgotten.abandoned.len(), named(&rig)), (1, 1));
    assert!(rig.sync());
    let again = rig.custody.forget_device(&node(), now).unwrap();
    assert_eq!(again, Default::default(), "nothing is open any more");
    rig.flush().unwrap();
    let audit = rig.audit();
    assert!(audit.totals.is_good(), "{audit:?}");
    assert_eq!(audit.totals.counts.samples, 3 * common::SAMPLES);
    // What comes all the same wins over the gap.
    rig.up_for(&gateway(), hello_of(&node(), &[listed(1, 3, 5)]), 3);
    let frames = [(Kind::Batch, batch(3)), (Kind::Batch, batch(4))];
    rig.up_for(&gateway(), bundle_of(&node(), 1, 3, &frames), 4);
    rig.sync();
    rig.flush().unwrap();
    assert_eq!(rig.audit().totals.counts.samples, 5 * common::SAMPLES);
    assert!(rig.audit().totals.is_good());
}

/// A bundle of one record whose times count from `boot`, with a row one second after it.
fn of_boot(epoch: u64, boot: u64, uptime_ms: Option<u64>) -> Vec<u8> {
    let schema = common::schema();
    let mut rows = Rows::new(&schema);
    let values = [Some(Value::F64(20.0)), Some(Value::I64(1))];
    rows.push_row(1_000_000, 0, &values).unwrap();
    let mut coded = Vec::new();
    Encoder::new(&schema).encode(0, &rows, &mut coded).unwrap();
    let frames = [(Kind::Schema, schema_frame()), (Kind::Batch, coded)];
    let bytes = bundle_of(&device(), epoch, 0, &frames);
    let (head, len) = frame::decode(&bytes).unwrap();
    let (mut head, count) = <BundleHead>::decode(head.payload).unwrap();
    (head.boot, head.base, head.uptime_ms) = (boot, Base::Uptime, uptime_ms);
    let mut payload = [0; headwater_proto::bundle::MAX_HEAD_BYTES];
    let head_len = head.encode(count, &mut payload).unwrap();
    let mut out = common::framed(Kind::BundleHead, &payload[..head_len]);
    out.extend_from_slice(&bytes[len..]);
    out
}

fn counting(epoch: u64, boot: u64) -> HelloStream {
    HelloStream {
        boot,
        base: Base::Uptime,
        ..listed(epoch, 0, 1)
    }
}

fn time_base(boot: u64, wall_us: i64) -> Vec<u8> {
    message::to_vec(&TimeBase {
        origin: device(),
        boot,
        uptime_us: 1_000_000,
        wall: UnixMicros(wall_us),
        error_ms: Some(7),
    })
}

/// How the batch of `epoch` in the journal was dated: class, offset and error.
fn dating(rig: &mut Rig, epoch: u64) -> headwater_collector::pipeline::envelope::Clock {
    use headwater_collector::pipeline::envelope::{Record, decode};
    let mut found = None;
    let read = |_: u64, kind: u8, payload: &[u8]| {
        if let Ok(Record::Batch(head, _)) = decode(kind, payload)
            && head.stream.epoch == Epoch::new(epoch)
        {
            found = Some(head.clock);
        }
        std::ops::ControlFlow::Continue(())
    };
    rig.custody.reader().read(0, 1 << 20, read).unwrap();
    found.expect("the batch is in the journal")
}

#[test]
fn rows_of_an_earlier_boot_are_dated_by_its_own_base_and_otherwise_kept_undated() {
    use headwater_collector::pipeline::envelope::TimeClass;
    let mut rig = Rig::new();
    rig.connect("dev");
    let streams = [
        counting(1, 2),
        counting(2, 1),
        listed(3, 0, 1),
        counting(4, 3),
    ];
    rig.up(hello(&streams), 0);
    let day_us = 86_400_000_000;
    let said = time_base(2, common::START_US - day_us);
    rig.up(bundle_of(&device(), 3, 0, &[(Kind::TimeBase, said)]), 1);
    rig.up(of_boot(1, 2, None), 2);
    rig.up(of_boot(2, 1, None), 3);
    rig.up(of_boot(4, 3, Some(2_000)), 4);
    rig.sync();
    let clock = dating(&mut rig, 1);
    assert_eq!(clock.offset_us, common::START_US - day_us - 1_000_000);
    assert_eq!((clock.class, clock.error_ms), (TimeClass::Dated, Some(7)));
    let clock = dating(&mut rig, 2);
    assert_eq!(
        clock.class,
        TimeClass::Undated,
        "boot 3 says nothing about boot 1"
    );
    assert_eq!(rig.custody.counters().undated_total, 1);
    assert_eq!(dating(&mut rig, 4).class, TimeClass::Dated);
}

#[test]
fn a_time_base_outlives_restarts_and_the_segment_that_it_stood_in() {
    use headwater_collector::pipeline::envelope::TimeClass;
    let mut small = settings();
    small.log.quota_bytes = 96 << 10;
    let disk = headwater_spool::FakeDisk::new();
    let mut rig = Rig::start(disk, headwater_lake::MemStore::default(), small, 10).unwrap();
    rig.connect("dev");
    rig.up(hello(&[listed(3, 0, 400), counting(1, 2)]), 0);
    let said = time_base(2, common::START_US);
    rig.up(bundle_of(&device(), 3, 0, &[(Kind::TimeBase, said)]), 1);
    let first = common::segments(&rig.disk).remove(0);
    for seq in 1..300 {
        rig.up(bundle(3, seq, seq + 1), seq);
        rig.sync();
        if seq % 10 == 0 {
            rig.flush().unwrap();
            rig.handle(headwater_collector::pipeline::custody::Event::Tick);
            rig.sync();
        }
    }
    let (disk, store, done) = (rig.disk.power_cut(3), rig.store.clone(), rig.done.clone());
    let mut rig = Rig::start_with(disk, store, done, settings(), 10).unwrap();
    assert!(
        !common::segments(&rig.disk).contains(&first),
        "its segment went"
    );
    rig.connect("dev");
    rig.up(hello(&[listed(3, 300, 300), counting(1, 2)]), 0);
    rig.up(of_boot(1, 2, None), 1);
    rig.sync();
    assert_eq!(dating(&mut rig, 1).class, TimeClass::Dated);
}

#[test]
fn what_waits_for_room_is_dated_by_its_receipt_and_not_by_the_moment_it_is_taken() {
    let mut small = settings();
    small.log.quota_bytes = 96 << 10;
    let disk = headwater_spool::FakeDisk::new();
    let mut rig = Rig::start(disk, headwater_lake::MemStore::default(), small, 10).unwrap();
    rig.connect("dev");
    rig.up(hello(&[listed(3, 0, 4_000), counting(1, 3)]), 0);
    let mut seq = 0;
    while !rig.custody.is_stalled() {
        rig.up(bundle(3, seq, seq + 1), seq);
        rig.sync();
        seq += 1;
    }
    let received_ms = rig.ms;
    rig.up(of_boot(1, 3, Some(2_000)), 9_999);
    for _ in 0..300 {
        rig.ms += 1_000;
        rig.handle(headwater_collector::pipeline::custody::Event::Tick);
        rig.sync();
    }
    rig.flush().unwrap();
    for _ in 0..8 {
        rig.handle(headwater_collector::pipeline::custody::Event::Tick);
        rig.sync();
    }
    assert!(!rig.custody.is_stalled(), "the lake made room");
    let clock = dating(&mut rig, 1);
    let began_us = common::START_US + i64::try_from(received_ms).unwrap() * 1_000 - 2_000_000;
    assert!(
        clock.offset_us <= began_us,
        "dated {} us too late",
        clock.offset_us - began_us
    );
}

#[test]
fn the_boot_of_an_epoch_is_the_one_that_wrote_it() {
    let mut rig = Rig::new();
    rig.connect("dev");
    let old = HelloStream {
        boot: 2,
        ended: true,
        ..listed(1, 0, 3)
    };
    // The Hello itself speaks of boot 3.
    rig.up(hello(&[old, listed(2, 0, 0)]), 0);
    rig.up(bundle(1, 0, 3), 1);
    rig.sync();
    let boots: Vec<_> = rig
        .custody
        .ledger()
        .streams()
        .map(|(_, t)| t.boot)
        .collect();
    assert_eq!(boots, [2, 3]);
}

#[test]
fn several_bundles_of_one_publish_are_all_taken_and_a_damaged_one_costs_only_itself() {
    let mut rig = Rig::new();
    rig.connect("gw");
    let nodes = ["node-1", "node-2"].map(|name| DeviceId::new(name).unwrap());
    for node in &nodes {
        rig.up_for(&gateway(), hello_of(node, &[listed(1, 0, 2)]), 0);
    }
    let frames = |seq| [(Kind::Schema, schema_frame()), (Kind::Batch, batch(seq))];
    let one = |node: &DeviceId, seq| bundle_of(node, 1, seq, &frames(seq));
    let publish = [one(&nodes[0], 0), one(&nodes[1], 0)].concat();
    rig.up_for(&gateway(), publish, 1);
    let mut publish = [one(&nodes[0], 1), one(&nodes[1], 1)].concat();
    *publish.last_mut().unwrap() ^= 1;
    rig.up_for(&gateway(), publish, 2);
    rig.sync();
    let next: Vec<_> = rig
        .custody
        .ledger()
        .streams()
        .map(|(_, t)| t.receiver.next())
        .collect();
    assert_eq!(next, [2, 1]);
    assert_eq!(rig.custody.counters().malformed_total, 1);
}

#[test]
fn a_publish_of_more_records_than_one_bundle_may_hold_is_taken_up_to_the_bound() {
    let mut rig = Rig::new();
    rig.connect("dev");
    let most = u64::from(headwater_proto::bundle::MAX_RECORDS);
    rig.up(hello(&[listed(1, 0, most + 1)]), 0);
    let gap = |seq| {
        let gap: message::Gap = message::Gap {
            origin: device(),
            lane: Lane::Normal,
            epoch: Epoch::new(1),
            seqs: None,
            samples: Some(1),
            t_first: None,
            t_last: None,
            reason: GapReason::Overflow,
            stage: message::Stage::Agent,
            part: None,
            at: UnixMicros(seq),
        };
        (Kind::Gap, message::to_vec(&gap))
    };
    let all: Vec<_> = (0..i64::from(headwater_proto::bundle::MAX_RECORDS))
        .map(gap)
        .collect();
    let publish = [
        bundle_of(&device(), 1, 0, &all),
        bundle_of(&device(), 1, most, &[gap(-1)]),
    ]
    .concat();
    rig.up(publish, 1);
    rig.sync();
    assert_eq!(rig.mark(1).unwrap().received, most);
    assert_eq!(rig.custody.counters().malformed_total, 1);
}

#[test]
fn parts_of_an_input_that_could_not_be_read_lie_in_quarantine_with_place_and_cause() {
    let mut rig = Rig::new();
    rig.connect("dev");
    rig.up(hello(&[listed(1, 0, 1)]), 0);
    let part = |place| refused::Part {
        at_us: common::START_US,
        place,
        cause: "no number",
        bytes: b"21,5",
    };
    let said = refused::to_vec("plc", &[part("line 1"), part("line 2")]).unwrap();
    rig.up(bundle_of(&device(), 1, 0, &[(Kind::Refused, said)]), 1);
    rig.sync();
    assert_eq!(rig.custody.counters().samples_stored_total, 2);
    rig.flush().unwrap();
    let audit = rig.audit();
    assert!(audit.totals.is_good(), "{audit:?}");
    assert_eq!(audit.totals.counts.quarantined, 2);
}

#[test]
fn a_sender_of_another_version_is_told_and_keeps_what_it_has() {
    let mut rig = Rig::new();
    rig.connect("dev");
    let bytes = hello(&[listed(1, 2, 5)]);
    let (frame, _) = frame::decode(&bytes).unwrap();
    let mut later: Hello = message::decode(frame.payload).unwrap();
    (later.version_min, later.version_max) = (9, 12);
    let mut out = Vec::new();
    message::append_frame(&later, &mut out);
    rig.up(out, 0);
    rig.sync();
    let rejects = rig.rejects();
    assert_eq!(
        (rejects.len(), rejects[0].reason),
        (1, RejectReason::Version)
    );
    assert!(!RejectReason::Version.is_final());
    assert_eq!((rejects[0].range.first, rejects[0].range.next), (2, 5));
    assert_eq!(rig.custody.counters().versions_refused_total, 1);
}

#[test]
fn no_answer_is_larger_than_its_receiver_takes() {
    for most in [256, 300, 1_000] {
        let mut rig = Rig::new();
        rig.connect("dev");
        let streams: Vec<_> = (1..=MAX_HELLO_STREAMS as u64)
            .map(|e| listed(e, 0, 100))
            .collect();
        let bytes = hello(&streams);
        let (frame, _) = frame::decode(&bytes).unwrap();
        let mut small: Hello = message::decode(frame.payload).unwrap();
        small.max_bundle = most;
        let mut out = Vec::new();
        message::append_frame(&small, &mut out);
        rig.up(out, 0);
        // Holes make marks long.
        for epoch in 1..=3 {
            for seq in [0, 2, 4, 6, 8, 10, 12, 14, 16] {
                rig.up(bundle(epoch, seq, seq + 1), 0);
            }
        }
        rig.sync();
        let welcomes: Vec<Welcome> = rig.messages();
        let told: usize = welcomes.iter().map(|welcome| welcome.marks.len()).sum();
        assert_eq!(told, MAX_HELLO_STREAMS, "every mark is told");
        assert!(!rig.messages::<message::Ack>().is_empty());
        for output in &rig.sent {
            if let headwater_collector::pipeline::custody::Output::Send { payload, .. } = output {
                assert!(
                    payload.len() <= most as usize,
                    "{} of {most}",
                    payload.len()
                );
            }
        }
    }
}

#[cfg(feature = "sabotage")]
mod bugs {
    use super::*;
    use headwater_proto::sabotage::{self, Bug};

    fn with<T>(bug: Bug, test: impl FnOnce() -> T) -> T {
        sabotage::set(Some(bug));
        let result = test();
        sabotage::set(None);
        result
    }

    #[test]
    fn a_gateways_hello_taken_for_its_nodes_own_names_what_is_not_lost() {
        with(Bug::ForeignEpochAbandoned, || {
            let mut rig = Rig::new();
            with_node(&mut rig);
            rig.up_for(&gateway(), hello_of(&node(), &[listed(2, 0, 1)]), 3);
            rig.sync();
            assert!(named(&rig) > 0);
        });
    }

    #[test]
    fn an_earlier_boot_dated_by_the_present_one_is_off_by_the_difference() {
        use headwater_collector::pipeline::envelope::TimeClass;
        with(Bug::EarlierBootDatedByPresent, || {
            let mut rig = Rig::new();
            rig.connect("dev");
            rig.up(hello(&[counting(1, 2)]), 0);
            rig.up(of_boot(1, 2, None), 1);
            rig.sync();
            assert_eq!(dating(&mut rig, 1).class, TimeClass::Dated);
        });
    }
}
