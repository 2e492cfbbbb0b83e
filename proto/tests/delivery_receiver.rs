//! One stream as its receiver knows it: verdicts, marks, gaps, rollback, snapshot.

#![expect(clippy::cast_possible_truncation, reason = "numbers below 110")]

use headwater_proto::delivery::epoch::End;
use headwater_proto::delivery::receiver::{MAX_HOLES, MAX_RANGES, Namer, Receiver, Verdict};
use headwater_proto::delivery::snapshot::MAX_SNAPSHOT_BYTES;
use headwater_proto::ids::{Epoch, Lane, SeqRange};
use headwater_proto::message::{AckRange, MAX_ACK_RANGES, Mark, RejectReason};
use proptest::prelude::*;

const EPOCH: Epoch = Epoch::new(7);

fn mark(receiver: &Receiver, oldest: u64) -> Mark {
    receiver.mark(Lane::Normal, EPOCH, oldest)
}

fn with_data(seqs: impl IntoIterator<Item = u64>) -> Receiver {
    let mut receiver = Receiver::new();
    for seq in seqs {
        assert_eq!(receiver.offer(seq, 0), Verdict::Store);
    }
    receiver.synced();
    receiver
}

#[test]
fn nothing_is_acknowledged_before_its_group_is_synced() {
    let mut receiver = with_data(0..3);
    assert_eq!(receiver.offer(3, 0), Verdict::Store);
    assert_eq!(mark(&receiver, 0).received, 3);
    receiver.synced();
    assert_eq!(mark(&receiver, 0).received, 4);
}

#[test]
fn a_failed_group_is_forgotten_and_its_records_are_new_again() {
    let mut receiver = with_data(0..3);
    receiver.offer(3, 0);
    receiver.cover(SeqRange::new(4, 9), Namer::Sender).unwrap();
    receiver.end(End {
        first: 0,
        next: 9,
        clean: true,
    });
    receiver.rollback();
    assert_eq!(receiver, with_data(0..3));
    assert_eq!(receiver.judge(3, 0), Verdict::Store);
}

#[test]
fn a_repeat_is_told_from_a_conflict_by_the_newest_checksum() {
    let mut receiver = Receiver::new();
    assert_eq!(receiver.offer(0, 11), Verdict::Store);
    assert_eq!(receiver.offer(1, 22), Verdict::Store);
    assert_eq!(receiver.offer(1, 22), Verdict::Repeat);
    assert_eq!(receiver.offer(1, 23), Verdict::Conflict);
    assert_eq!(receiver.offer(0, 99), Verdict::Repeat);
}

#[test]
fn a_65th_hole_is_refused_until_older_ones_are_filled() {
    let ranges = MAX_RANGES as u64;
    let mut receiver = with_data((0..ranges).map(|k| 2 * k));
    assert_eq!(receiver.unaccounted().count(), MAX_HOLES);
    let refused = Verdict::Refuse(RejectReason::TooManyHoles);
    assert_eq!(receiver.offer(2 * ranges, 0), refused);
    assert_eq!(receiver.offer(1, 0), Verdict::Store);
    assert_eq!(receiver.offer(2 * ranges, 0), Verdict::Store);
}

#[test]
fn a_senders_gap_counts_in_the_marks_and_samples_win_over_it() {
    let mut receiver = with_data([0, 1, 5]);
    receiver.cover(SeqRange::new(2, 5), Namer::Sender).unwrap();
    receiver.synced();
    assert_eq!(mark(&receiver, 0).received, 6);
    assert_eq!(receiver.offer(3, 0), Verdict::Store);
}

#[test]
fn a_receivers_gap_never_lets_a_sender_forget_what_it_lists() {
    let mut receiver = with_data([0, 1, 5]);
    let missing: Vec<_> = receiver.missing_below(5).collect();
    assert_eq!(missing, [SeqRange::new(2, 5)]);
    receiver.cover(missing[0], Namer::Receiver).unwrap();
    receiver.synced();
    receiver.commit_all();
    assert_eq!(receiver.missing_below(5).next(), None);
    // The one that still holds 2..5, and the one that does not.
    assert_eq!(
        (mark(&receiver, 0).received, mark(&receiver, 0).committed),
        (2, 2)
    );
    assert_eq!(
        (mark(&receiver, 5).received, mark(&receiver, 5).committed),
        (6, 6)
    );
}

#[test]
fn many_gaps_between_stored_records_take_no_more_room_than_the_bound() {
    let mut receiver = Receiver::new();
    for k in 0..1000 {
        assert_eq!(receiver.offer(2 * k, 0), Verdict::Store, "{k}");
        receiver
            .cover(SeqRange::new(2 * k + 1, 2 * k + 2), Namer::Sender)
            .unwrap();
        receiver.synced();
        assert_eq!(mark(&receiver, 0).received, 2 * k + 2);
    }
}

#[test]
fn a_mark_tells_eight_ranges_and_which_of_them_are_committed() {
    let mut receiver = with_data((0..20).map(|k| 2 * k));
    receiver.offer(3, 0);
    receiver.synced();
    receiver.commit(SeqRange::new(0, 1));
    receiver.commit(SeqRange::new(3, 4));
    let mark = mark(&receiver, 0);
    assert_eq!((mark.received, mark.committed), (1, 1));
    assert_eq!(
        mark.ranges[..4],
        [(2, 3, false), (3, 4, true), (4, 5, false), (6, 7, false)].map(
            |(first, next, committed)| AckRange {
                first,
                next,
                committed
            }
        )
    );
    assert_eq!(mark.ranges.len(), MAX_ACK_RANGES);
}

#[test]
fn an_abandoned_epoch_is_named_and_closed_at_the_highest_number_known() {
    let mut receiver = with_data([0, 3]);
    let missing: Vec<_> = receiver.unaccounted().collect();
    assert_eq!(missing, [SeqRange::new(1, 3)]);
    for range in missing {
        receiver.cover(range, Namer::Receiver).unwrap();
    }
    assert!(!receiver.is_closed());
    assert_eq!(
        receiver.abandon(),
        End {
            first: 0,
            next: 4,
            clean: false
        }
    );
    assert!(receiver.is_closed());
}

#[test]
fn an_epoch_is_closed_only_when_its_whole_range_is_there() {
    let mut receiver = with_data(0..4);
    receiver.end(End {
        first: 0,
        next: 6,
        clean: true,
    });
    assert!(!receiver.is_closed());
    assert_eq!(receiver.offer(4, 0), Verdict::Store);
    assert_eq!(receiver.offer(5, 0), Verdict::Store);
    assert!(receiver.is_closed());
    assert!(!receiver.is_done());
    receiver.synced();
    receiver.commit(SeqRange::new(0, 6));
    assert!(receiver.is_done());
}

#[test]
fn what_a_lake_holds_already_is_received_and_committed() {
    let mut receiver = Receiver::new();
    receiver.seed(SeqRange::new(0, 10)).unwrap();
    assert_eq!(
        (mark(&receiver, 0).received, mark(&receiver, 0).committed),
        (10, 10)
    );
    assert_eq!(receiver.judge(4, 0), Verdict::Repeat);
}

/// One step of a receiver's life; numbers below 100 so that steps meet.
#[derive(Debug, Clone)]
enum Step {
    Offer(u64),
    Cover(u64, u64, bool),
    Commit,
    Sync,
    Rollback,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u64..100).prop_map(Step::Offer),
        2 => (0u64..100, 1u64..9, any::<bool>()).prop_map(|(a, len, by)| Step::Cover(a, len, by)),
        1 => Just(Step::Commit),
        2 => Just(Step::Sync),
        1 => Just(Step::Rollback),
    ]
}

proptest! {
    #[test]
    fn marks_never_pass_what_is_durable_and_a_snapshot_comes_back(
        steps in proptest::collection::vec(step(), 0..120),
        oldest in 0u64..60,
    ) {
        let mut receiver = Receiver::new();
        let (mut durable, mut now) = (vec![false; 110], vec![false; 110]);
        for step in steps {
            match step {
                Step::Offer(seq) => {
                    if receiver.offer(seq, 0) == Verdict::Store {
                        now[seq as usize] = true;
                    }
                }
                Step::Cover(first, len, by_sender) => {
                    let namer = if by_sender { Namer::Sender } else { Namer::Receiver };
                    receiver.cover(SeqRange::new(first, first + len), namer).unwrap();
                    if by_sender {
                        now[first as usize..(first + len) as usize].fill(true);
                    }
                }
                Step::Commit => receiver.commit_all(),
                Step::Sync => {
                    receiver.synced();
                    durable.clone_from(&now);
                }
                Step::Rollback => {
                    receiver.rollback();
                    now.clone_from(&durable);
                }
            }
            let mark = mark(&receiver, oldest);
            let end = (oldest..).find(|&seq| !durable[seq as usize]).unwrap();
            prop_assert_eq!(mark.received, end);
            prop_assert!(mark.committed <= mark.received);
            for range in &mark.ranges {
                prop_assert!((range.first..range.next).all(|seq| durable[seq as usize]));
            }
        }
        receiver.synced();
        let mut bytes = [0; MAX_SNAPSHOT_BYTES];
        let len = receiver.encode(&mut bytes).unwrap();
        prop_assert_eq!(Receiver::decode(&bytes[..len]), Ok((receiver, len)));
        for cut in 0..len {
            prop_assert!(Receiver::decode(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn hostile_snapshots_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Receiver::decode(&bytes);
        let mut begun = vec![1, 7];
        begun.extend(bytes);
        let _ = Receiver::decode(&begun);
    }
}

#[test]
fn what_was_forgotten_is_new_again_and_the_marks_stop_before_it() {
    let mut receiver = with_data(0..10);
    receiver.forget(SeqRange::new(4, 6)).unwrap();
    receiver.synced();
    assert_eq!(mark(&receiver, 0).received, 4);
    assert_eq!(receiver.judge(4, 0), Verdict::Store);
    receiver.forget(SeqRange::new(9, 10)).unwrap();
    receiver.rollback();
    assert_eq!(receiver.judge(9, 1), Verdict::Conflict);
    receiver.forget(SeqRange::new(9, 10)).unwrap();
    assert_eq!(receiver.judge(9, 1), Verdict::Store);
}

#[test]
fn what_the_receiver_named_itself_is_not_told_as_committed() {
    let mut receiver = with_data(0..1);
    receiver
        .cover(SeqRange::new(1, 3), Namer::Receiver)
        .unwrap();
    receiver.synced();
    // The gap is in every sink; its sender may bring the records all the same.
    receiver.commit(SeqRange::new(0, 3));
    let mark = mark(&receiver, 0);
    assert_eq!((mark.received, mark.committed), (1, 1));
}

/// A stream of three numbers, closed and durable: `named` are not there.
fn closed_at_3(data: impl IntoIterator<Item = u64>, (named, namer): (SeqRange, Namer)) -> Receiver {
    let mut receiver = with_data(data);
    receiver.cover(named, namer).expect("it is a single range");
    receiver.end(End {
        first: 0,
        next: 3,
        clean: true,
    });
    receiver.synced();
    receiver
}

#[test]
fn a_stream_is_done_once_all_of_its_records_are_committed() {
    let mut receiver = closed_at_3([0, 2], (SeqRange::new(1, 2), Namer::Receiver));
    receiver.commit(SeqRange::new(0, 1));
    assert!(receiver.is_closed() && !receiver.is_done());
    receiver.commit(SeqRange::new(2, 3));
    assert!(receiver.is_done());
}

#[test]
fn a_stream_is_not_done_before_what_its_sender_named_is_committed_too() {
    // A copy of that sender may still hold the record, and lets go of it with the commit.
    let mut receiver = closed_at_3([0], (SeqRange::new(1, 3), Namer::Sender));
    receiver.commit(SeqRange::new(0, 1));
    assert!(receiver.is_closed() && !receiver.is_done());
    receiver.commit(SeqRange::new(1, 3));
    assert!(receiver.is_done());
    assert_eq!(receiver.mark(Lane::Normal, Epoch::new(1), 0).committed, 3);
}

#[test]
fn what_is_owed_is_durable_and_neither_committed_nor_named() {
    let mut receiver = with_data(0..10);
    let named = SeqRange::new(12, 15);
    receiver.cover(named, Namer::Receiver).unwrap();
    receiver
        .cover(SeqRange::new(3, 4), Namer::Receiver)
        .unwrap();
    receiver.synced();
    receiver.offer(20, 0);
    receiver.commit(SeqRange::new(1, 2));
    receiver.commit(SeqRange::new(7, 14));
    let owed: Vec<_> = receiver
        .owed()
        .map(|range| (range.first, range.next))
        .collect();
    assert_eq!(owed, [(0, 1), (2, 3), (4, 7)]);
    let names: Vec<_> = receiver.owed_names().collect();
    assert_eq!(names, [SeqRange::new(3, 4), SeqRange::new(14, 15)]);
}
