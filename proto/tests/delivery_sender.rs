//! What a sender publishes, repeats, releases and refuses, one behaviour at a time.

#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

use headwater_proto::delivery::{
    Command, DeliveryError, HeldEpoch, HelloFacts, Input, RecordRef, Sender, SenderLimits,
};
use headwater_proto::ids::{DeviceId, Epoch, JournalId, Lane, SeqRange};
use headwater_proto::message::{Ack, AckRange, Mark, Reject, RejectReason, Welcome};
use headwater_proto::time::{Base, Millis, UnixMicros};

type TestSender = Sender<4, 4>;

const FACTS: HelloFacts = HelloFacts {
    boot: 1,
    uptime_ms: 0,
    wall: None,
    max_down_bytes: 4096,
};
const OLD: Epoch = Epoch::new(1);
const LIVE: Epoch = Epoch::new(2);
const CREDIT: u32 = 100_000;

fn device() -> DeviceId {
    DeviceId::new("pump-7").unwrap()
}

fn held(epoch: Epoch, first: u64, next: u64, ended: bool) -> HeldEpoch {
    HeldEpoch {
        lane: Lane::Normal,
        epoch,
        first,
        next,
        ram: false,
        ended,
        boot: 1,
        base: Base::Wall,
        end_named_in: None,
        dated_by: None,
    }
}

fn sender(epochs: &[HeldEpoch]) -> TestSender {
    let mut sender = TestSender::new(device(), SenderLimits::DEFAULT, 42);
    for &epoch in epochs {
        sender.add_epoch(epoch).unwrap();
    }
    sender
}

fn mark(epoch: Epoch, received: u64, committed: u64) -> Mark {
    Mark {
        lane: Lane::Normal,
        epoch,
        received,
        committed,
        ranges: heapless::Vec::new(),
    }
}

fn ack(credit: u32, marks: &[Mark]) -> Ack {
    Ack {
        origin: device(),
        journal: JournalId(1),
        credit,
        time: UnixMicros(0),
        marks: marks.iter().cloned().collect(),
    }
}

fn welcome(nonce: u64, journal: u64, credit: u32, marks: &[Mark]) -> Welcome {
    Welcome {
        version: headwater_proto::message::PROTOCOL,
        origin: device(),
        nonce,
        page: 0,
        pages: 1,
        journal: JournalId(journal),
        credit,
        max_bundle: 10_000,
        time: UnixMicros(0),
        marks: marks.iter().cloned().collect(),
    }
}

/// Takes the Hello out and answers it.
fn answer(sender: &mut TestSender, journal: u64, credit: u32, marks: &[Mark], now: Millis) {
    assert_eq!(
        sender.next_command(now),
        Some(Command::SendHello { page: 0 })
    );
    let nonce = sender.hello(0, &FACTS).nonce;
    let welcome = welcome(nonce, journal, credit, marks);
    sender.handle(Input::Welcome(&welcome), now).unwrap();
}

fn connected(epochs: &[HeldEpoch]) -> TestSender {
    let mut sender = sender(epochs);
    sender.handle(Input::LinkUp, Millis(0)).unwrap();
    answer(&mut sender, 1, CREDIT, &[], Millis(0));
    sender
}

/// Publishes one record of 1,000 bytes for each Publish; returns (epoch, number) of each, until
/// the sender rests or has a command of another kind.
fn publish(sender: &mut TestSender, most: usize, now: Millis) -> Vec<(Epoch, u64)> {
    let mut out = Vec::new();
    while out.len() < most {
        let Some(Command::Publish {
            lane, epoch, first, ..
        }) = sender.next_command(now)
        else {
            break;
        };
        sender
            .sent(lane, epoch, SeqRange::new(first, first + 1), 1_000, now)
            .unwrap();
        out.push((epoch, first));
    }
    out
}

#[test]
fn nothing_is_sent_before_the_welcome() {
    let mut sender = sender(&[held(LIVE, 0, 3, false)]);
    assert_eq!(sender.next_command(Millis(0)), None);
    sender.handle(Input::LinkUp, Millis(0)).unwrap();
    assert_eq!(
        sender.next_command(Millis(0)),
        Some(Command::SendHello { page: 0 })
    );
    assert_eq!(sender.next_command(Millis(0)), None);
}

#[test]
fn only_what_the_welcome_says_is_missing_is_sent() {
    let mut sender = sender(&[held(LIVE, 0, 6, false)]);
    sender.handle(Input::LinkUp, Millis(0)).unwrap();
    let mut known = mark(LIVE, 2, 0);
    known
        .ranges
        .push(AckRange {
            first: 3,
            next: 5,
            committed: false,
        })
        .unwrap();
    answer(&mut sender, 1, CREDIT, &[known], Millis(0));
    assert_eq!(publish(&mut sender, 9, Millis(0)), [(LIVE, 2), (LIVE, 5)]);
}

#[test]
fn an_unanswered_hello_is_said_again_later_and_later() {
    let mut sender = sender(&[]);
    sender.handle(Input::LinkUp, Millis(0)).unwrap();
    let (mut now, mut waits) = (Millis(0), Vec::new());
    for _ in 0..4 {
        assert_eq!(
            sender.next_command(now),
            Some(Command::SendHello { page: 0 })
        );
        let due = sender.next_wakeup().unwrap();
        waits.push(due.since(now));
        now = due;
        sender.handle(Input::Tick, now).unwrap();
    }
    for (wait, least) in waits.iter().zip([5_000, 10_000, 20_000, 40_000]) {
        assert!((least..=least * 5 / 4).contains(wait), "{waits:?}");
    }
}

#[test]
fn a_welcome_to_an_earlier_hello_is_refused() {
    let mut sender = sender(&[held(LIVE, 0, 1, false)]);
    sender.handle(Input::LinkUp, Millis(0)).unwrap();
    sender.next_command(Millis(0)).unwrap();
    let old = sender.hello(0, &FACTS).nonce;
    sender.handle(Input::LinkUp, Millis(0)).unwrap();
    sender.next_command(Millis(0)).unwrap();
    let late = welcome(old, 1, CREDIT, &[]);
    let refused = sender.handle(Input::Welcome(&late), Millis(0));
    assert_eq!(refused, Err(DeliveryError::StaleWelcome));
    assert!(!sender.is_open());
}

#[test]
fn a_lost_ack_costs_a_resend_and_never_a_record() {
    let mut sender = connected(&[held(LIVE, 0, 1, false)]);
    assert_eq!(publish(&mut sender, 9, Millis(0)), [(LIVE, 0)]);
    let due = sender.next_wakeup().expect("a bundle is in flight");
    sender.handle(Input::Tick, due).unwrap();
    assert_eq!(publish(&mut sender, 9, due), [(LIVE, 0)]);
    assert_eq!(sender.counters().timed_out, 1);
}

#[test]
fn received_ends_resends_and_committed_alone_releases() {
    let mut sender = connected(&[held(LIVE, 0, 3, false)]);
    publish(&mut sender, 9, Millis(0));
    sender
        .handle(Input::Ack(&ack(CREDIT, &[mark(LIVE, 3, 0)])), Millis(9))
        .unwrap();
    assert_eq!(
        (sender.in_flight_bytes(), sender.next_command(Millis(9))),
        (0, None)
    );
    sender
        .handle(Input::Ack(&ack(CREDIT, &[mark(LIVE, 3, 2)])), Millis(9))
        .unwrap();
    let release = Command::Release {
        lane: Lane::Normal,
        epoch: LIVE,
        through: 2,
    };
    assert_eq!(sender.next_command(Millis(9)), Some(release));
    assert_eq!(sender.next_command(Millis(9)), None);
}

#[test]
fn a_committed_range_beyond_a_hole_may_be_given_up_first() {
    let mut sender = connected(&[held(LIVE, 0, 9, false)]);
    let mut known = mark(LIVE, 2, 1);
    known
        .ranges
        .push(AckRange {
            first: 4,
            next: 8,
            committed: true,
        })
        .unwrap();
    sender
        .handle(Input::Ack(&ack(CREDIT, &[known])), Millis(0))
        .unwrap();
    assert!(sender.is_committed(Lane::Normal, LIVE, SeqRange::new(4, 8)));
    assert!(!sender.is_committed(Lane::Normal, LIVE, SeqRange::new(1, 2)));
    assert!(sender.is_received(Lane::Normal, LIVE, SeqRange::new(1, 2)));
    assert!(!sender.is_received(Lane::Normal, LIVE, SeqRange::new(2, 4)));
}

#[test]
fn the_credit_bounds_what_is_in_flight_and_one_bundle_always_goes() {
    let mut sender = sender(&[held(LIVE, 0, 9, false)]);
    sender.handle(Input::LinkUp, Millis(0)).unwrap();
    answer(&mut sender, 1, 2_500, &[], Millis(0));
    let first = sender.next_command(Millis(0)).unwrap();
    assert!(
        matches!(
            first,
            Command::Publish {
                max_bytes: 10_000,
                ..
            }
        ),
        "{first:?}"
    );
    assert_eq!(publish(&mut sender, 9, Millis(0)), [(LIVE, 0), (LIVE, 1)]);
    sender.set_in_flight_elsewhere(0);
    sender
        .handle(Input::Ack(&ack(2_500, &[mark(LIVE, 1, 0)])), Millis(1))
        .unwrap();
    sender.set_in_flight_elsewhere(1_000);
    assert_eq!(
        publish(&mut sender, 9, Millis(1)),
        [],
        "the others of the link took the room"
    );
}

#[test]
fn without_credit_it_stops_and_asks_every_30_seconds() {
    let mut sender = connected(&[held(LIVE, 0, 9, false)]);
    sender.handle(Input::Ack(&ack(0, &[])), Millis(0)).unwrap();
    assert_eq!(sender.next_command(Millis(0)), None);
    let due = sender.next_wakeup().unwrap();
    assert!((30_000..=37_500).contains(&due.0), "{due:?}");
    sender.handle(Input::Tick, due).unwrap();
    answer(&mut sender, 1, CREDIT, &[], due);
    assert_eq!(publish(&mut sender, 1, due), [(LIVE, 0)]);
}

#[test]
fn what_is_live_goes_before_the_backlog_and_neither_starves() {
    let mut sender = connected(&[held(OLD, 0, 9, true), held(LIVE, 0, 1, false)]);
    sender.stored(Lane::Normal, LIVE, 9).unwrap();
    let mut seen = Vec::new();
    for _ in 0..8 {
        seen.extend(publish(&mut sender, 1, Millis(0)));
        let (epoch, seq) = *seen.last().unwrap();
        let mut told = mark(epoch, 0, 0);
        told.ranges
            .push(AckRange {
                first: seq,
                next: seq + 1,
                committed: false,
            })
            .unwrap();
        sender
            .handle(Input::Ack(&ack(CREDIT, &[told])), Millis(1))
            .unwrap();
    }
    let live = |seq| (LIVE, seq);
    let old = |seq| (OLD, seq);
    assert_eq!(
        seen,
        [
            live(1),
            live(2),
            live(3),
            old(0),
            live(4),
            live(5),
            live(6),
            old(1)
        ]
    );
}

#[test]
fn an_alarm_goes_before_everything() {
    let mut sender = connected(&[held(LIVE, 0, 9, false)]);
    let alarm = Epoch::new(3);
    sender
        .add_epoch(HeldEpoch {
            lane: Lane::Alarm,
            ..held(alarm, 0, 1, false)
        })
        .unwrap();
    let before = sender.next_command(Millis(0));
    assert_eq!(
        before,
        Some(Command::SendHello { page: 0 }),
        "a new epoch needs a new hello"
    );
    assert_eq!(
        publish(&mut sender, 1, Millis(0)),
        [(LIVE, 0)],
        "the others go on meanwhile"
    );
    let nonce = sender.hello(0, &FACTS).nonce;
    sender
        .handle(Input::Welcome(&welcome(nonce, 1, CREDIT, &[])), Millis(1))
        .unwrap();
    assert_eq!(publish(&mut sender, 2, Millis(1)), [(alarm, 0), (LIVE, 1)]);
}

#[test]
fn too_many_holes_make_it_send_the_oldest_first() {
    let mut sender = connected(&[held(LIVE, 0, 5, false)]);
    sender.stored(Lane::Normal, LIVE, 9).unwrap();
    assert_eq!(publish(&mut sender, 1, Millis(0)), [(LIVE, 5)]);
    let reject = Reject {
        origin: device(),
        lane: Lane::Normal,
        epoch: LIVE,
        range: SeqRange::new(5, 6),
        reason: RejectReason::TooManyHoles,
    };
    sender.handle(Input::Reject(&reject), Millis(0)).unwrap();
    assert_eq!(
        sender.next_command(Millis(0)),
        None,
        "it pauses after a reject"
    );
    let due = sender.next_wakeup().unwrap();
    sender.handle(Input::Tick, due).unwrap();
    assert_eq!(publish(&mut sender, 2, due), [(LIVE, 0), (LIVE, 1)]);
}

#[test]
fn a_final_reject_goes_to_the_shell_once_and_is_not_sent_again() {
    let mut sender = connected(&[held(LIVE, 0, 3, false)]);
    publish(&mut sender, 1, Millis(0));
    let range = SeqRange::new(0, 1);
    let reason = RejectReason::TooLarge;
    let reject = Reject {
        origin: device(),
        lane: Lane::Normal,
        epoch: LIVE,
        range,
        reason,
    };
    for _ in 0..2 {
        sender.handle(Input::Reject(&reject), Millis(0)).unwrap();
    }
    let refused = Command::Refused {
        lane: Lane::Normal,
        epoch: LIVE,
        range,
        reason,
    };
    assert_eq!(sender.next_command(Millis(0)), Some(refused));
    assert_eq!(publish(&mut sender, 9, Millis(0)), [(LIVE, 1), (LIVE, 2)]);
}

#[test]
fn an_ack_from_the_future_is_refused_and_counted() {
    let mut sender = connected(&[held(LIVE, 0, 3, false)]);
    let refused = sender.handle(Input::Ack(&ack(CREDIT, &[mark(LIVE, 4, 4)])), Millis(0));
    assert!(matches!(
        refused,
        Err(DeliveryError::AckFromTheFuture {
            acked: 4,
            stored: 3,
            ..
        })
    ));
    assert_eq!(sender.counters().from_the_future, 1);
    assert_eq!(publish(&mut sender, 9, Millis(0)).len(), 3);
}

#[test]
fn a_disk_that_forgot_what_it_had_sent_is_told_more_than_it_has() {
    let mut sender = connected(&[held(OLD, 0, 3, true)]);
    sender
        .handle(Input::Ack(&ack(CREDIT, &[mark(OLD, 5, 5)])), Millis(0))
        .unwrap();
    let release = Command::Release {
        lane: Lane::Normal,
        epoch: OLD,
        through: 3,
    };
    assert_eq!(sender.next_command(Millis(0)), Some(release));
}

#[test]
fn a_new_journal_lowers_the_marks_and_what_is_left_is_sent_again() {
    let mut sender = connected(&[held(LIVE, 0, 5, false)]);
    sender
        .handle(Input::Ack(&ack(CREDIT, &[mark(LIVE, 5, 2)])), Millis(0))
        .unwrap();
    assert!(matches!(
        sender.next_command(Millis(0)),
        Some(Command::Release { through: 2, .. })
    ));
    sender.handle(Input::LinkUp, Millis(1)).unwrap();
    answer(&mut sender, 2, CREDIT, &[mark(LIVE, 3, 3)], Millis(1));
    assert!(matches!(
        sender.next_command(Millis(1)),
        Some(Command::Release { through: 3, .. })
    ));
    assert_eq!(publish(&mut sender, 9, Millis(1)), [(LIVE, 3), (LIVE, 4)]);
    let old = sender.handle(Input::Ack(&ack(CREDIT, &[mark(LIVE, 5, 5)])), Millis(1));
    assert_eq!(old, Err(DeliveryError::OtherJournal));
}

#[test]
fn what_a_lost_journal_had_committed_beyond_a_hole_is_released_only_once_the_new_one_has_it() {
    let mut sender = connected(&[held(LIVE, 0, 4, false)]);
    let mut beyond = mark(LIVE, 0, 0);
    let (first, next, committed) = (2, 4, true);
    let range = AckRange {
        first,
        next,
        committed,
    };
    beyond.ranges.push(range).unwrap();
    sender
        .handle(Input::Ack(&ack(CREDIT, &[beyond])), Millis(0))
        .unwrap();
    sender.handle(Input::LinkUp, Millis(1)).unwrap();
    answer(&mut sender, 2, CREDIT, &[mark(LIVE, 0, 0)], Millis(1));
    let all = [0, 1, 2, 3].map(|seq| (LIVE, seq));
    assert_eq!(publish(&mut sender, 9, Millis(1)), all);
    let of_new = Ack {
        journal: JournalId(2),
        ..ack(CREDIT, &[mark(LIVE, 2, 2)])
    };
    sender.handle(Input::Ack(&of_new), Millis(1)).unwrap();
    assert!(matches!(
        sender.next_command(Millis(1)),
        Some(Command::Release { through: 2, .. })
    ));
}

#[test]
fn evicted_records_raise_the_oldest_and_unreadable_ones_are_passed_over() {
    let mut sender = connected(&[held(LIVE, 0, 6, false)]);
    sender
        .absent(Lane::Normal, LIVE, SeqRange::new(0, 2))
        .unwrap();
    sender
        .absent(Lane::Normal, LIVE, SeqRange::new(4, 5))
        .unwrap();
    assert_eq!(sender.hello(0, &FACTS).streams[0].oldest, 2);
    assert_eq!(
        publish(&mut sender, 9, Millis(0)),
        [(LIVE, 2), (LIVE, 3), (LIVE, 5)]
    );
}

#[test]
fn an_ended_epoch_stays_in_the_hello_until_the_record_of_its_end_is_committed() {
    let end = RecordRef {
        lane: Lane::Normal,
        epoch: LIVE,
        seq: 0,
    };
    let old = HeldEpoch {
        end_named_in: Some(end),
        ..held(OLD, 0, 2, true)
    };
    let mut sender = connected(&[old, held(LIVE, 0, 1, false)]);
    let listed = |sender: &mut TestSender| {
        sender.handle(Input::LinkUp, Millis(0)).unwrap();
        while sender
            .next_command(Millis(0))
            .is_some_and(|c| matches!(c, Command::Release { .. }))
        {}
        let hello = sender.hello(0, &FACTS);
        assert!(hello.complete);
        hello
            .streams
            .iter()
            .map(|stream| stream.epoch)
            .collect::<Vec<_>>()
    };
    sender
        .handle(Input::Ack(&ack(CREDIT, &[mark(OLD, 2, 2)])), Millis(0))
        .unwrap();
    assert_eq!(listed(&mut sender), [OLD, LIVE]);
    sender
        .handle(Input::Ack(&ack(CREDIT, &[mark(LIVE, 1, 1)])), Millis(0))
        .unwrap();
    listed(&mut sender);
    assert_eq!(listed(&mut sender), [LIVE]);
}

#[test]
fn more_epochs_than_it_keeps_are_refused_and_the_hello_says_it_is_not_complete() {
    let epochs: Vec<_> = (10..14).map(|k| held(Epoch::new(k), 0, 1, true)).collect();
    let mut sender = sender(&epochs);
    let refused = sender.add_epoch(held(LIVE, 0, 1, false));
    assert_eq!(refused, Err(DeliveryError::TooManyEpochs));
    sender.set_more_epochs(true);
    assert!(!sender.hello(0, &FACTS).complete);
}

#[test]
fn epochs_that_are_over_give_their_places_to_those_that_wait() {
    let epochs: Vec<_> = (10..14).map(|k| held(Epoch::new(k), 0, 1, true)).collect();
    let mut sender = connected(&epochs);
    assert_eq!(publish(&mut sender, 9, Millis(0)).len(), 4);
    let marks: Vec<_> = (10..14).map(|k| mark(Epoch::new(k), 1, 1)).collect();
    sender
        .handle(Input::Ack(&ack(CREDIT, &marks)), Millis(1))
        .unwrap();
    while let Some(Command::Release { .. }) = sender.next_command(Millis(1)) {}
    sender.add_epoch(held(LIVE, 0, 1, false)).unwrap();
    answer(&mut sender, 1, CREDIT, &[], Millis(2));
    assert_eq!(publish(&mut sender, 9, Millis(2)), [(LIVE, 0)]);
}

#[test]
fn more_absent_records_than_are_kept_apart_wait_for_what_is_in_flight() {
    // Every other record is damaged, and more are in flight than holes are kept apart.
    let mut sender: Sender<4, 64> = Sender::new(device(), SenderLimits::DEFAULT, 42);
    sender.add_epoch(held(LIVE, 0, 100, true)).unwrap();
    sender.handle(Input::LinkUp, Millis(0)).unwrap();
    assert!(sender.next_command(Millis(0)).is_some());
    let nonce = sender.hello(0, &FACTS).nonce;
    let welcome = welcome(nonce, 1, CREDIT, &[]);
    sender.handle(Input::Welcome(&welcome), Millis(0)).unwrap();
    let (mut sent, mut asked) = (0, 0);
    let mut now = Millis(0);
    while sent < 50 {
        asked += 1;
        assert!(asked < 1_000, "the same records are asked for again");
        match sender.next_command(now) {
            Some(Command::Publish {
                lane, epoch, first, ..
            }) => {
                let one = SeqRange::new(first, first + 1);
                if first % 2 == 1 {
                    // Refused where there are too many: then it comes again.
                    let _ = sender.absent(lane, epoch, one);
                } else {
                    sender.sent(lane, epoch, one, 10, now).unwrap();
                    sent += 1;
                }
            }
            Some(_) => {}
            None => {
                now = now.plus(1);
                let received = 2 * sent;
                sender
                    .handle(Input::Ack(&ack(CREDIT, &[mark(LIVE, received, 0)])), now)
                    .unwrap();
            }
        }
    }
}

#[test]
fn what_was_received_is_delivered_though_it_may_not_be_forgotten_yet() {
    let mut sender = connected(&[held(LIVE, 0, 2, false)]);
    assert_eq!(publish(&mut sender, 2, Millis(1)).len(), 2);
    let received = |next| Ack {
        marks: [mark(LIVE, next, 0)].into_iter().collect(),
        ..ack(CREDIT, &[])
    };
    sender.handle(Input::Ack(&received(1)), Millis(2)).unwrap();
    assert!(!sender.is_delivered());
    sender.handle(Input::Ack(&received(2)), Millis(3)).unwrap();
    assert!(sender.is_delivered() && !sender.is_drained());
    sender.stored(Lane::Normal, LIVE, 3).unwrap();
    assert!(!sender.is_delivered());
}

#[test]
fn an_epoch_of_a_boot_that_is_over_waits_until_the_record_that_dates_it_is_received() {
    let record = |epoch, seq| RecordRef {
        lane: Lane::Normal,
        epoch,
        seq,
    };
    let dated = |by| HeldEpoch {
        dated_by: Some(by),
        ..held(OLD, 0, 3, true)
    };
    // The record stands in a later epoch.
    let mut sender = connected(&[dated(record(LIVE, 1)), held(LIVE, 0, 2, false)]);
    assert_eq!(
        publish(&mut sender, 9, Millis(0)),
        [(LIVE, 0), (LIVE, 1)],
        "and goes before what is older"
    );
    let received = ack(CREDIT, &[mark(LIVE, 2, 0)]);
    sender.handle(Input::Ack(&received), Millis(1)).unwrap();
    assert_eq!(
        publish(&mut sender, 9, Millis(1)),
        [(OLD, 0), (OLD, 1), (OLD, 2)]
    );

    // Where the receiver asks for the oldest, they go all the same.
    let mut sender = connected(&[dated(record(LIVE, 0)), held(LIVE, 0, 1, false)]);
    assert_eq!(publish(&mut sender, 9, Millis(0)), [(LIVE, 0)]);
    let reject = Reject {
        origin: device(),
        lane: Lane::Normal,
        epoch: OLD,
        range: SeqRange::new(1, 2),
        reason: RejectReason::TooManyHoles,
    };
    sender.handle(Input::Reject(&reject), Millis(1)).unwrap();
    let later = Millis(60_000);
    sender.handle(Input::Tick, later).unwrap();
    assert_eq!(publish(&mut sender, 1, later), [(OLD, 0)]);
}
