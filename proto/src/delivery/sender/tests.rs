//! The sender's own rules: refusals, Hellos, and records of nodes.

use super::*;
use crate::time::Base;

fn info(epoch: u64, next: u64) -> HeldEpoch {
    HeldEpoch {
        lane: Lane::Normal,
        epoch: Epoch::new(epoch),
        first: 0,
        next,
        ram: false,
        ended: false,
        boot: 1,
        base: Base::Wall,
        end_named_in: None,
        dated_by: None,
    }
}

fn device() -> DeviceId {
    DeviceId::new("pump-7").unwrap()
}

fn mark(received: u64, ranges: &[(u64, u64)]) -> crate::message::Mark {
    let range = |&(first, next)| crate::message::AckRange {
        first,
        next,
        committed: true,
    };
    crate::message::Mark {
        lane: Lane::Normal,
        epoch: Epoch::new(1),
        received,
        committed: received,
        ranges: ranges.iter().map(range).collect(),
    }
}

/// Sends the running Hello and answers it with one mark.
fn welcome(sender: &mut Sender<2, 2>, mark: crate::message::Mark) {
    while let Some(Command::SendHello { .. }) = sender.next_command(Millis(0)) {}
    let (nonce, _) = sender.greeter.nonce_and_pages().unwrap();
    let welcome = Welcome {
        version: PROTOCOL,
        origin: device(),
        nonce,
        page: 0,
        pages: 1,
        journal: JournalId(7),
        credit: 10_000,
        max_bundle: 10_000,
        time: crate::time::UnixMicros(0),
        marks: core::iter::once(mark).collect(),
    };
    sender.handle(Input::Welcome(&welcome), Millis(0)).unwrap();
}

fn ack(mark: crate::message::Mark) -> Ack {
    Ack {
        origin: device(),
        journal: JournalId(7),
        credit: 10_000,
        time: crate::time::UnixMicros(0),
        marks: core::iter::once(mark).collect(),
    }
}

fn connected(sender: Sender<2, 2>, info: HeldEpoch) -> Sender<2, 2> {
    let mut sender = sender;
    sender.add_epoch(info).unwrap();
    sender.handle(Input::LinkUp, Millis(0)).unwrap();
    sender
}

fn first_to_send(sender: &Sender<2, 2>) -> Option<u64> {
    match sender.next_publish(Millis(0)) {
        Some(Command::Publish { first, .. }) => Some(first),
        _ => None,
    }
}

#[test]
fn what_another_gateway_brought_of_a_node_is_believed_beyond_what_is_held_here() {
    let new = || Sender::<2, 2>::new(device(), SenderLimits::DEFAULT, 42);
    let mut own = connected(new(), info(1, 10));
    let mut relayed = connected(new().relaying(), info(1, 10));
    let beyond = mark(4, &[(6, 30)]);
    while own.next_command(Millis(0)).is_some() {}
    let (nonce, _) = own.greeter.nonce_and_pages().unwrap();
    assert!(
        nonce != 0
            && own
                .epochs
                .welcome(std::slice::from_ref(&beyond), false)
                .is_err()
    );
    welcome(&mut relayed, beyond);
    let of = |first, next| SeqRange::new(first, next);
    let epoch = Epoch::new(1);
    assert!(relayed.is_committed(Lane::Normal, epoch, of(6, 10)));
    assert!(!relayed.is_received(Lane::Normal, epoch, of(4, 6)));
    assert_eq!(relayed.counters().from_the_future, 0);
    let facts = HelloFacts {
        boot: 1,
        uptime_ms: 0,
        wall: None,
        max_down_bytes: 4096,
    };
    assert!(!relayed.hello(0, &facts).complete);
}

#[test]
fn an_ack_of_the_hello_before_says_nothing_of_records_that_came_back_below_it() {
    let sender = Sender::<2, 2>::new(device(), SenderLimits::DEFAULT, 42).relaying();
    let held = |first| HeldEpoch {
        first,
        ..info(1, 10)
    };
    let mut sender = connected(sender, held(6));
    welcome(&mut sender, mark(6, &[]));
    assert_eq!(first_to_send(&sender), Some(6));
    // Records 2 to 5 arrive late: the epoch begins anew, below what this Ack counts from.
    sender.remove_epoch(Lane::Normal, Epoch::new(1));
    sender.add_epoch(held(2)).unwrap();
    sender
        .handle(Input::Ack(&ack(mark(10, &[]))), Millis(0))
        .unwrap();
    let late = SeqRange::new(2, 6);
    assert!(!sender.is_received(Lane::Normal, Epoch::new(1), late));
    welcome(&mut sender, mark(2, &[(6, 10)]));
    assert_eq!(first_to_send(&sender), Some(2));
}

#[test]
fn a_withheld_epoch_waits_until_it_is_let_go() {
    let sender = Sender::<2, 2>::new(device(), SenderLimits::DEFAULT, 42);
    let mut sender = connected(sender, info(1, 10));
    welcome(&mut sender, mark(0, &[]));
    let (lane, epoch) = (Lane::Normal, Epoch::new(1));
    sender.withhold(lane, epoch, true).unwrap();
    assert_eq!(first_to_send(&sender), None);
    sender.withhold(lane, epoch, false).unwrap();
    assert_eq!(first_to_send(&sender), Some(0));
}

#[test]
fn refused_records_beyond_the_bound_are_refused_again_later() {
    let mut sender = Sender::<1, 1>::new(device(), SenderLimits::DEFAULT, 42);
    sender.add_epoch(info(1, 100)).unwrap();
    let reject = |seq: u64| Reject {
        origin: device(),
        lane: Lane::Normal,
        epoch: Epoch::new(1),
        range: SeqRange::new(seq, seq + 1),
        reason: RejectReason::TooLarge,
    };
    let refused = |sender: &mut Sender<1, 1>| {
        let commands = core::iter::from_fn(|| sender.next_command(Millis(0)));
        commands
            .filter(|command| matches!(command, Command::Refused { .. }))
            .count()
    };
    let seqs = (0..=MAX_REFUSED as u64).map(|k| 2 * k);
    for seq in seqs.clone() {
        sender
            .handle(Input::Reject(&reject(seq)), Millis(0))
            .unwrap();
    }
    assert_eq!(refused(&mut sender), MAX_REFUSED);
    for seq in seqs {
        sender
            .handle(Input::Reject(&reject(seq)), Millis(0))
            .unwrap();
    }
    assert_eq!(refused(&mut sender), 1, "each of the others came once");
}

#[test]
fn a_hello_of_more_streams_than_its_pages_list_is_not_complete() {
    const MOST: usize = Sender::<1, 1>::MAX_LISTED;
    let test = || {
        let mut sender = std::boxed::Box::new(Sender::<{ MOST + 1 }, 1>::new(
            device(),
            SenderLimits::DEFAULT,
            42,
        ));
        let facts = HelloFacts {
            boot: 1,
            uptime_ms: 0,
            wall: None,
            max_down_bytes: 4096,
        };
        for epoch in 0..MOST as u64 {
            sender.add_epoch(info(epoch, 1)).unwrap();
        }
        assert!(sender.hello(0, &facts).complete);
        sender.add_epoch(info(MOST as u64, 1)).unwrap();
        assert!(!sender.hello(0, &facts).complete);
    };
    // So many epochs pass through the stack.
    let thread = std::thread::Builder::new().stack_size(64 << 20);
    thread.spawn(test).unwrap().join().unwrap();
}
