//! What custody endures: failures in the middle of a group, hostile senders, long outages.

mod common;

use common::{Rig, SAMPLES, bundle, bundle_of, device, hello, listed};
use headwater_collector::ledger::MAX_STREAMS_PER_DEVICE;
use headwater_lake::MemStore;
use headwater_proto::frame::Kind;
use headwater_proto::ids::{DeviceId, Epoch, Lane, SeqRange};
use headwater_proto::message::{self, Gap, GapReason, RejectReason, Stage};
use headwater_proto::time::UnixMicros;
use headwater_spool::FakeDisk;

fn greet(rig: &mut Rig) {
    rig.connect("dev");
    rig.up(hello(&[listed(1, 0, 10_000)]), 0);
}

/// A device that said Hello and was answered.
fn greeted() -> Rig {
    let mut rig = Rig::new();
    greet(&mut rig);
    assert!(rig.sync());
    rig.sent.clear();
    rig
}

#[test]
fn what_a_new_segment_made_durable_stands_when_the_rest_of_its_group_fails() {
    // Each group is larger than a segment, so that it begins at least one.
    for nth in 0..6 {
        let mut rig = greeted();
        rig.disk.fail_sync(nth);
        let mut failures = 0;
        for first in (0..1_000).step_by(250) {
            rig.up(bundle(1, first, first + 250), 1);
            rig.plain("plain/m1/temp", "20.5", 7, false, 2);
            while !rig.sync() {
                // The process goes on, and the device comes again.
                failures += 1;
                greet(&mut rig);
                rig.up(bundle(1, 0, first + 250), 3);
            }
        }
        greet(&mut rig);
        rig.up(bundle(1, 0, 1_000), 4);
        assert!(rig.sync());
        assert_eq!(rig.mark(1).unwrap().received, 1_000);
        rig.flush().unwrap();
        let audit = rig.audit();
        assert!(audit.totals.is_good(), "sync {nth}: {:?}", audit.totals);
        let plain = 4;
        let samples = audit.totals.counts.samples;
        assert!(
            samples >= 1_000 * SAMPLES && samples <= 1_000 * SAMPLES + plain,
            "sync {nth}, {failures} failures: {samples}"
        );
    }
}

fn gap_of(origin: &str, epoch: u64) -> (Kind, Vec<u8>) {
    let gap = Gap {
        origin: DeviceId::new(origin).unwrap(),
        lane: Lane::Normal,
        epoch: Epoch::new(epoch),
        seqs: Some(SeqRange::new(0, 1 << 40)),
        samples: None,
        t_first: None,
        t_last: None,
        reason: GapReason::Evicted,
        stage: Stage::Agent,
        part: None,
        at: UnixMicros(0),
    };
    (Kind::Gap, message::to_vec(&gap))
}

#[test]
fn a_gap_in_the_name_of_another_device_is_refused_and_opens_no_stream() {
    let mut rig = greeted();
    let gaps: Vec<_> = (0..500).map(|epoch| gap_of("other", epoch)).collect();
    rig.up(bundle_of(&device(), 1, 0, &gaps), 1);
    assert!(rig.sync());
    assert_eq!(rig.custody.ledger().len(), 1);
    let rejects = rig.rejects();
    assert_eq!(rejects.len(), 500);
    assert!(
        rejects
            .iter()
            .all(|reject| reject.reason == RejectReason::Forbidden)
    );
}

#[test]
fn one_device_cannot_open_streams_without_bound() {
    let mut settings = common::settings();
    settings.log.segment_bytes = 4 << 20;
    settings.log.quota_bytes = 64 << 20;
    let mut rig = Rig::start(FakeDisk::new(), MemStore::new(), settings, 0).unwrap();
    greet(&mut rig);
    let most = MAX_STREAMS_PER_DEVICE as u64;
    for first in (0..most + 1_000).step_by(1_000) {
        let gaps: Vec<_> = (first..first + 1_000)
            .map(|epoch| gap_of("dev", 10 + epoch))
            .collect();
        rig.up(bundle_of(&device(), 1, first, &gaps), 1);
        assert!(rig.sync());
    }
    assert_eq!(rig.custody.ledger().len(), MAX_STREAMS_PER_DEVICE);
    let rejects = rig.rejects();
    assert!(!rejects.is_empty());
    assert!(rejects.iter().all(|reject| !reject.reason.is_final()));
}
