//! What custody promises, a sentence each.

mod common;

use common::{
    CONN, Rig, SAMPLES, batch, bundle, bundle_of, device, epoch_end, greeted, hello, listed,
};
use headwater_collector::pipeline::custody::{Event, Output};
use headwater_gate::CloseReason;
use headwater_proto::frame::Kind;
use headwater_proto::ids::{DeviceId, SeqRange};
use headwater_proto::message::{RejectReason, SchemaRequest, Welcome};

#[test]
fn a_hello_is_answered_with_the_marks_of_its_streams() {
    let mut rig = Rig::new();
    rig.connect("dev");
    rig.up(hello(&[listed(1, 0, 5)]), 0);
    assert_eq!(rig.sent, [], "nothing is durable yet");
    rig.sync();
    let welcomes: Vec<Welcome> = rig.messages();
    assert_eq!(welcomes.len(), 1);
    assert_eq!((welcomes[0].nonce, welcomes[0].marks.len()), (7, 1));
    assert_eq!(welcomes[0].journal, rig.custody.journal());
    assert!(welcomes[0].credit > 0);
}

#[test]
fn nothing_is_answered_before_the_sync() {
    let mut rig = greeted();
    rig.up(bundle(1, 0, 3), 1);
    assert!(rig.custody.next_output().is_none());
    rig.sync();
    assert_eq!(rig.pubacks(), [1]);
    assert_eq!(rig.mark(1).unwrap().received, 3);
    assert_eq!(rig.mark(1).unwrap().committed, 0);
}

#[test]
fn a_repeat_is_not_appended_and_is_acknowledged_again() {
    let mut rig = greeted();
    rig.up(bundle(1, 0, 3), 1);
    rig.sync();
    let before = rig.custody.log().next();
    rig.up(bundle(1, 0, 3), 2);
    rig.sync();
    assert_eq!(rig.custody.log().next(), before);
    assert_eq!(rig.pubacks(), [1, 2]);
    assert_eq!(rig.custody.counters().repeats_total, 3);
}

#[test]
fn a_failed_group_never_happened_and_its_connections_end() {
    let mut rig = greeted();
    rig.up(bundle(1, 0, 3), 1);
    rig.disk.fail_sync(0);
    assert!(!rig.sync());
    assert_eq!(rig.pubacks(), [0; 0]);
    assert_eq!(
        rig.sent,
        [Output::Close {
            conn: CONN,
            reason: CloseReason::Journal
        }]
    );
    // The device comes again with the same records, and they are new.
    rig.connect("dev");
    rig.up(hello(&[listed(1, 0, 100)]), 2);
    rig.up(bundle(1, 0, 3), 3);
    assert!(rig.sync());
    assert_eq!(rig.mark(1).unwrap().received, 3);
    rig.flush().unwrap();
    assert_eq!(rig.audit().totals.counts.samples, 3 * SAMPLES);
}

#[test]
fn a_batch_of_an_epoch_that_no_hello_named_is_refused() {
    let mut rig = greeted();
    rig.up(bundle(2, 0, 3), 1);
    rig.sync();
    let rejects = rig.rejects();
    assert_eq!(
        (rejects.len(), rejects[0].reason),
        (1, RejectReason::NotInHello)
    );
    assert_eq!(rejects[0].range, SeqRange::new(0, 3));
}

#[test]
fn a_batch_is_refused_that_the_hello_of_its_connection_did_not_list() {
    let mut rig = greeted();
    rig.handle(Event::Disconnected {
        conn: CONN,
        client: "dev".into(),
        orderly: false,
    });
    rig.connect("dev");
    let not_all = common::hello_that_is(false, &device(), &[listed(2, 0, 1)]);
    rig.up(not_all, 1);
    rig.up(bundle(1, 0, 3), 2);
    rig.sync();
    let rejects = rig.rejects();
    assert_eq!(
        (rejects.len(), rejects[0].reason),
        (1, RejectReason::NotInHello)
    );
}

#[test]
fn an_epoch_of_a_group_that_failed_is_not_known() {
    let mut rig = Rig::new();
    rig.connect("dev");
    rig.up(hello(&[listed(1, 0, 3)]), 0);
    rig.disk.fail_sync(0);
    assert!(!rig.sync());
    assert_eq!(rig.custody.ledger().streams().count(), 0);
}

#[test]
fn a_sender_speaks_only_for_itself_unless_it_is_its_gateway() {
    let mut rig = Rig::new();
    rig.connect("dev");
    let other = DeviceId::new("node-7").unwrap();
    rig.up(common::hello_of(&other, &[listed(1, 0, 3)]), 0);
    rig.up(bundle_of(&other, 1, 0, &[(Kind::Batch, batch(0))]), 1);
    rig.sync();
    assert_eq!(rig.rejects()[0].reason, RejectReason::Forbidden);
    let mut rig = Rig::new();
    rig.connect("gw");
    let gateway = DeviceId::new("gw").unwrap();
    rig.up_for(&gateway, common::hello_of(&other, &[listed(1, 0, 3)]), 0);
    let frames = [
        (Kind::Schema, common::schema_frame()),
        (Kind::Batch, batch(0)),
    ];
    rig.up_for(&gateway, bundle_of(&other, 1, 0, &frames), 1);
    rig.sync();
    assert_eq!(rig.mark(1).unwrap().received, 1);
}

#[test]
fn other_content_under_the_same_identity_goes_to_quarantine() {
    let mut rig = greeted();
    rig.up(bundle(1, 0, 1), 1);
    rig.sync();
    rig.up(bundle_of(&device(), 1, 0, &[(Kind::Batch, batch(9))]), 2);
    rig.sync();
    assert_eq!(rig.custody.counters().identity_conflicts_total, 1);
    assert_eq!(rig.rejects()[0].reason, RejectReason::Conflict);
    rig.flush().unwrap();
    let audit = rig.audit();
    assert!(audit.totals.is_good(), "{audit:?}");
    assert_eq!(audit.totals.counts.samples, SAMPLES);
}

#[test]
fn an_unknown_schema_is_asked_for_and_its_batch_not_taken() {
    let mut rig = greeted();
    rig.up(bundle_of(&device(), 1, 0, &[(Kind::Batch, batch(0))]), 1);
    rig.sync();
    let asked: Vec<SchemaRequest> = rig.messages();
    assert_eq!((asked.len(), asked[0].schema), (1, 0));
    assert_eq!(rig.mark(1).unwrap().received, 0);
    rig.up(bundle(1, 0, 1), 2);
    rig.sync();
    assert_eq!(rig.mark(1).unwrap().received, 1);
}

#[test]
fn what_the_lake_has_is_committed() {
    let mut rig = greeted();
    rig.up(bundle(1, 0, 3), 1);
    rig.sync();
    rig.flush().unwrap();
    rig.sync();
    assert_eq!(rig.mark(1).unwrap().committed, 3);
}

#[test]
fn records_that_the_sender_no_longer_holds_are_named() {
    let mut rig = Rig::new();
    rig.connect("dev");
    rig.up(hello(&[listed(1, 4, 6)]), 0);
    rig.up(bundle(1, 4, 6), 1);
    rig.up(
        bundle_of(&device(), 1, 6, &[(Kind::EpochEnd, epoch_end(1, 7))]),
        2,
    );
    rig.sync();
    rig.flush().unwrap();
    rig.sync();
    let audit = rig.audit();
    assert!(audit.totals.is_good(), "{audit:?}");
    assert_eq!(audit.totals.counts.explained, 4);
    assert_eq!(rig.mark(1).unwrap().committed, 7);
}

#[test]
fn an_epoch_that_vanished_is_abandoned_and_what_it_claimed_is_named() {
    let mut rig = greeted();
    rig.up(bundle(1, 0, 3), 1);
    rig.sync();
    // A new disk: another epoch, and nobody knows the first one any more.
    rig.handle(Event::Disconnected {
        conn: CONN,
        client: "dev".into(),
        orderly: false,
    });
    rig.connect("dev");
    rig.up(hello(&[listed(2, 0, 0)]), 2);
    rig.sync();
    rig.flush().unwrap();
    let audit = rig.audit();
    assert!(audit.totals.is_good(), "{audit:?}");
    assert_eq!(audit.totals.counts.explained, 97);
}

#[test]
fn what_a_sender_claimed_is_pending_and_named_also_after_a_restart() {
    let mut rig = greeted();
    rig.up(bundle(1, 0, 3), 1);
    rig.handle(Event::Tick);
    rig.sync();
    rig.flush().unwrap();
    let totals = rig.audit().totals;
    assert!(totals.is_good(), "{totals:?}");
    assert_eq!((totals.counts.pending, totals.verdicts.pending), (97, 1));

    let disk = rig.disk.power_cut(1);
    let mut rig = Rig::start(disk, rig.store.clone(), common::settings(), 10).unwrap();
    rig.connect("dev");
    rig.up(hello(&[listed(2, 0, 0)]), 1);
    rig.sync();
    rig.flush().unwrap();
    let totals = rig.audit().totals;
    assert!(totals.is_good(), "{totals:?}");
    assert_eq!((totals.counts.pending, totals.counts.explained), (0, 97));
}

#[test]
fn a_claim_is_noted_once_in_a_while_and_not_where_nothing_is_missing() {
    let mut rig = Rig::new();
    rig.connect("dev");
    rig.up(hello(&[listed(1, 0, 3)]), 0);
    rig.up(bundle(1, 0, 3), 1);
    rig.sync();
    let mut noted_after = |next: u64, ms: u64| {
        rig.up(hello(&[listed(1, 0, next)]), 1);
        rig.ms += ms;
        rig.handle(Event::Tick);
        rig.sync();
        rig.custody.counters().claims_noted_total
    };
    assert_eq!(noted_after(3, 0), 0, "all of it came");
    assert_eq!(noted_after(10, 0), 1);
    assert_eq!(noted_after(10, 60_000), 1, "it is noted");
    assert_eq!(noted_after(11, 0), 2);
    assert_eq!(noted_after(12, 59_999), 2, "not so soon");
    assert_eq!(noted_after(12, 1), 3);
}

#[test]
fn a_plain_repeat_needs_dup_packet_id_and_content() {
    let mut rig = Rig::new();
    rig.connect("meter");
    rig.plain("plain/m1/temp", "20.5", 7, false, 0);
    rig.plain("plain/m1/temp", "20.5", 7, true, 1);
    rig.plain("plain/m1/temp", "20.5", 8, false, 2);
    rig.sync();
    assert_eq!(rig.pubacks(), [0, 1, 2]);
    rig.flush().unwrap();
    let audit = rig.audit();
    assert!(audit.totals.is_good(), "{audit:?}");
    assert_eq!(audit.totals.counts.samples, 2);
}

#[test]
fn an_open_entry_survives_a_restart() {
    let mut rig = Rig::new();
    rig.connect("meter");
    rig.plain("plain/m1/temp", "20.5", 7, false, 0);
    rig.sync();
    let disk = rig.disk.power_cut(1);
    let mut rig = Rig::start(disk, rig.store.clone(), common::settings(), 10).unwrap();
    rig.connect("meter");
    rig.plain("plain/m1/temp", "20.5", 7, true, 0);
    rig.sync();
    assert_eq!(rig.pubacks(), [0]);
    rig.flush().unwrap();
    assert_eq!(rig.audit().totals.counts.samples, 1);
}

#[test]
fn a_payload_that_nobody_can_read_is_in_quarantine_and_the_audit_is_good() {
    let mut rig = Rig::new();
    rig.connect("meter");
    // No column of the lake holds it exactly.
    rig.plain("plain/m1/temp", "18446744073709551615", 1, false, 0);
    rig.plain("other/topic", "20", 2, false, 1);
    rig.sync();
    rig.flush().unwrap();
    let audit = rig.audit();
    assert!(audit.totals.is_good(), "{audit:?}");
    assert_eq!(
        (audit.totals.counts.samples, audit.totals.counts.quarantined),
        (0, 2)
    );
}

#[test]
fn a_full_journal_withholds_and_goes_on_when_the_lake_took_its_part() {
    let mut rig = greeted();
    let mut seq = 0;
    while !rig.custody.is_stalled() {
        rig.up(bundle(1, seq, seq + 50), seq + 1);
        rig.sync();
        seq += 50;
        assert!(seq < 100_000, "the journal never filled");
    }
    let owed = seq - 50 + 1;
    assert!(!rig.pubacks().contains(&owed));
    assert_eq!(rig.custody.credit_bytes(), 0);
    for _ in 0..4 {
        rig.flush().unwrap();
        rig.handle(Event::Tick);
        rig.sync();
    }
    assert!(rig.pubacks().contains(&owed));
    assert!(!rig.custody.is_stalled());
    assert!(rig.custody.credit_bytes() > 0);
    assert!(rig.custody.counters().segments_released_total > 0);
    rig.flush().unwrap();
    let audit = rig.audit();
    assert!(audit.totals.is_good(), "{audit:?}");
    assert_eq!(audit.totals.counts.samples, seq * SAMPLES);
}

#[test]
fn a_connection_past_its_withheld_cap_is_closed() {
    let mut rig = greeted();
    let mut seq = 0;
    while !rig.sent.contains(&Output::Close {
        conn: CONN,
        reason: CloseReason::Journal,
    }) {
        rig.up(bundle(1, seq, seq + 50), seq + 1);
        rig.sync();
        seq += 50;
        assert!(seq < 1_000_000, "never closed");
    }
}

#[test]
fn a_journal_new_beside_a_lake_takes_its_marks_from_it() {
    let mut rig = greeted();
    rig.up(bundle(1, 0, 3), 1);
    rig.sync();
    rig.flush().unwrap();
    // The journal's disk is lost, the lake is not.
    let store = rig.store.clone();
    let mut rig = Rig::start(
        headwater_spool::FakeDisk::new(),
        store,
        common::settings(),
        50,
    )
    .unwrap();
    rig.connect("dev");
    rig.up(hello(&[listed(1, 0, 5)]), 0);
    rig.sync();
    assert_eq!(rig.mark(1).unwrap().committed, 3);
    rig.up(bundle(1, 0, 5), 1);
    rig.sync();
    rig.flush().unwrap();
    let audit = rig.audit();
    assert!(audit.totals.is_good(), "{audit:?}");
    assert_eq!(audit.totals.counts.samples, 5 * SAMPLES);
}

#[test]
fn two_live_devices_with_one_identity_are_noticed_and_nothing_is_abandoned() {
    let mut settings = common::settings();
    settings.abandon_after_ms = 600_000;
    let disk = headwater_spool::FakeDisk::new();
    let mut rig = Rig::start(disk, headwater_lake::MemStore::new(), settings, 0).unwrap();
    rig.connect("dev");
    rig.up(hello(&[listed(1, 0, 3)]), 0);
    let other = headwater_gate::ConnId(2);
    rig.handle(Event::Connected {
        conn: other,
        client: "dev".into(),
    });
    let payload = hello(&[listed(2, 0, 3)]).into();
    rig.handle(Event::Up {
        conn: other,
        device: device(),
        payload,
        token: None,
    });
    rig.up(hello(&[listed(1, 0, 3)]), 1);
    rig.sync();
    assert_eq!(rig.custody.counters().identity_shared_total, 1);
    assert_eq!(rig.custody.counters().gaps_named_total, 0);
}
