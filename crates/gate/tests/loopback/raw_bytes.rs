//! Clients of raw bytes.

use std::io::Write;
use std::sync::Arc;

use super::harness::{Client, Setup, TestGate, bytes_of, publish};
use headwater_gate::store::MemoryStore;
use headwater_gate::{CloseReason, DownError, GateEvent, Limits};
use headwater_proto::mqtt::{
    Ack, Disconnect, List, Packet, Properties, Qos, Reason, Subscribe, Subscription, Version,
};

const BOTH: [Version; 2] = [Version::V4, Version::V5];

/// What an MQTT 5 client is told before the end.
fn goodbye(code: u8) -> Vec<u8> {
    let (reason, properties) = (Reason(code), Properties::EMPTY);
    bytes_of(
        &Packet::Disconnect(Disconnect { reason, properties }),
        Version::V5,
    )
}

fn subscribe(client: &mut Client, filter: &str, qos: Qos) -> u8 {
    let filters = [Subscription::new(filter, qos)];
    client.send(&Packet::Subscribe(Subscribe {
        packet_id: 1,
        properties: Properties::EMPTY,
        filters: List::of(&filters),
    }));
    let suback = client.read_packet();
    assert_eq!(suback[0], 0x90);
    suback[suback.len() - 1]
}

#[test]
fn a_puback_comes_only_when_the_owner_says_durable() {
    for version in BOTH {
        let gate = TestGate::quiet();
        let mut client = Client::connect(&gate, version, "m1");
        client.publish("sensors/m1/t", 5, b"21.5");
        let arrivals = gate.arrivals(1);
        client.expect_nothing();
        gate.release(&arrivals[0]);
        client.expect(&[0x40, 2, 0, 5]);
    }
}

#[test]
fn pubacks_come_in_order_of_receipt_whatever_the_order_of_release() {
    let gate = TestGate::quiet();
    let mut client = Client::connect(&gate, Version::V4, "m1");
    for id in [9, 3, 7] {
        client.publish("sensors/m1/t", id, b"x");
    }
    let arrivals = gate.arrivals(3);
    gate.release(&arrivals[2]);
    gate.release(&arrivals[1]);
    client.expect_nothing();
    gate.release(&arrivals[0]);
    client.expect(&[0x40, 2, 0, 9, 0x40, 2, 0, 3, 0x40, 2, 0, 7]);
}

#[test]
fn what_one_connection_waits_for_does_not_hold_another() {
    let gate = TestGate::quiet();
    let mut waiting = Client::connect(&gate, Version::V4, "m1");
    waiting.publish("sensors/m1/t", 1, b"x");
    gate.arrivals(1);
    let mut other = Client::connect(&gate, Version::V4, "m2");
    other.publish("sensors/m2/t", 1, b"y");
    let arrivals = gate.arrivals(2);
    gate.release(&arrivals[1]);
    other.expect(&[0x40, 2, 0, 1]);
    waiting.expect_nothing();
}

#[test]
fn a_large_message_in_small_pieces_arrives_whole() {
    let gate = TestGate::quiet();
    let mut client = Client::connect(&gate, Version::V4, "pi-1");
    let payload: Vec<u8> = (0..=255).cycle().take(256 * 1024).collect();
    let bytes = bytes_of(&publish("hw/1/0a/pi-1/up", 1, &payload), Version::V4);
    for piece in bytes.chunks(7_001) {
        client.stream.write_all(piece).unwrap();
    }
    assert_eq!(gate.arrivals(1)[0].body.payload(), &payload[..]);
}

#[test]
fn an_agent_gets_messages_down_between_pubacks() {
    let gate = TestGate::quiet();
    let mut client = Client::connect(&gate, Version::V4, "pi-1");
    assert_eq!(
        subscribe(&mut client, "hw/1/0a/pi-1/down", Qos::AtLeastOnce),
        0
    );
    client.publish("hw/1/0a/pi-1/up", 1, b"hello");
    let arrivals = gate.arrivals(1);
    gate.handle
        .send_down(arrivals[0].conn, "welcome".into())
        .unwrap();
    client.expect(&bytes_of(
        &publish("hw/1/0a/pi-1/down", 0, b"welcome"),
        Version::V4,
    ));
    gate.release(&arrivals[0]);
    client.expect(&[0x40, 2, 0, 1]);
}

#[test]
fn the_newer_connection_takes_the_client_id() {
    for (version, last) in BOTH.into_iter().zip([vec![], goodbye(0x8E)]) {
        let gate = TestGate::quiet();
        let mut older = Client::connect(&gate, version, "m1");
        older.publish("sensors/m1/t", 1, b"x");
        let arrivals = gate.arrivals(1);
        let mut newer = Client::connect(&gate, version, "m1");
        assert_eq!(older.read_to_end(), last);
        // The owner hears of the end first, so that two connections never overlap.
        let (first, second) = (gate.owner.conn_of("m1", 0), gate.owner.conn_of("m1", 1));
        let seen = gate.owner.seen();
        let at = |wanted: &dyn Fn(&GateEvent) -> bool| seen.iter().position(wanted).unwrap();
        assert!(
            at(
                &|e| matches!(e, GateEvent::Disconnected { conn, orderly: false, .. } if *conn == first)
            ) < at(&|e| matches!(e, GateEvent::Connected { conn, .. } if *conn == second))
        );
        // A PUBACK for the older one goes nowhere.
        gate.release(&arrivals[0]);
        newer.expect_nothing();
    }
}

#[test]
fn a_kept_session_is_present_after_a_restart() {
    for version in BOTH {
        let store = Arc::new(MemoryStore::default());
        let setup = || Setup {
            store: store.clone(),
            ..Setup::default()
        };
        let mut gate = TestGate::start(setup());
        assert_eq!(
            Client::raw(gate.addr, version).open("keeper", false),
            (0, false)
        );
        assert_eq!(
            Client::raw(gate.addr, version).open("clean", true),
            (0, false)
        );
        gate.stop();
        let gate = TestGate::start(setup());
        assert_eq!(
            Client::raw(gate.addr, version).open("keeper", false),
            (0, true)
        );
        assert_eq!(
            Client::raw(gate.addr, version).open("clean", false),
            (0, false)
        );
        assert_eq!(
            Client::raw(gate.addr, version).open("keeper", true),
            (0, false)
        );
    }
}

#[test]
fn a_client_that_never_connects_is_closed_and_holds_nobody_up() {
    let gate = TestGate::with(Limits {
        connect_timeout_ms: 300,
        ..Limits::default()
    });
    let mut silent = Client::raw(gate.addr, Version::V4);
    let mut slow = Client::raw(gate.addr, Version::V4);
    slow.stream.write_all(&[0x10, 20, 0, 4]).unwrap();
    gate.is_alive();
    assert!(silent.read_to_end().is_empty());
    assert!(slow.read_to_end().is_empty());
    gate.wait_until("two time-outs", |gate| {
        gate.closed(CloseReason::ConnectTimeout) == 2
    });
}

#[test]
fn an_oversized_packet_is_told_and_closed() {
    let gate = TestGate::quiet();
    let mut client = Client::connect(&gate, Version::V5, "m1");
    // Only a beginning: the rest is never waited for.
    client
        .stream
        .write_all(&[0x32, 0xFF, 0xFF, 0x7F, 0, 3])
        .unwrap();
    assert_eq!(client.read_to_end(), goodbye(0x95));
    assert_eq!(gate.closed(CloseReason::TooLarge), 1);
    gate.is_alive();
}

#[test]
fn past_its_cap_a_connection_ends_and_pings_work_until_then() {
    let limits = Limits {
        unacked_plain_bytes: 1_000,
        unacked_grace_ms: 300,
        ..Limits::default()
    };
    let gate = TestGate::with(limits);
    let mut client = Client::connect(&gate, Version::V4, "m1");
    client.publish("sensors/m1/t", 1, &[0; 1_000]);
    client.expect_nothing();
    client.publish("sensors/m1/t", 2, b"x");
    assert!(client.read_to_end().is_empty());
    assert_eq!(gate.arrivals(1).len(), 1);
    assert_eq!(gate.closed(CloseReason::Unacked), 1);
}

#[test]
fn a_release_lets_the_waiting_publish_in() {
    let limits = Limits {
        unacked_plain_bytes: 1_000,
        ..Limits::default()
    };
    let gate = TestGate::with(limits);
    let mut client = Client::connect(&gate, Version::V4, "m1");
    client.publish("sensors/m1/t", 1, &[0; 1_000]);
    client.publish("sensors/m1/t", 2, b"x");
    let arrivals = gate.arrivals(1);
    gate.release(&arrivals[0]);
    client.expect(&[0x40, 2, 0, 1]);
    let arrivals = gate.arrivals(2);
    gate.release(&arrivals[1]);
    client.expect(&[0x40, 2, 0, 2]);
}

#[test]
fn an_owner_that_takes_nothing_holds_only_those_who_publish() {
    let limits = Limits {
        unacked_grace_ms: 300,
        ..Limits::default()
    };
    let setup = Setup {
        limits,
        queue_bytes: 1_000,
        take: false,
        ..Setup::default()
    };
    let gate = TestGate::start(setup);
    let mut other = Client::connect(&gate, Version::V4, "m2");
    let mut client = Client::connect(&gate, Version::V4, "m1");
    client.publish("sensors/m1/t", 1, &[0; 1_000]);
    client.expect_nothing();
    // The queue is full: QoS 0 is dropped, QoS 1 waits, and ends the connection.
    client.publish("sensors/m1/t", 0, b"unpromised");
    client.expect_nothing();
    assert_eq!(gate.gate.metrics().qos0_dropped_total.get(), 1);
    client.publish("sensors/m1/t", 2, b"x");
    assert!(client.read_to_end().is_empty());
    assert_eq!(gate.closed(CloseReason::Unacked), 1);
    other.expect_nothing();
}

#[test]
fn a_full_journal_ends_the_connection_without_a_code_for_the_message() {
    for (version, last) in BOTH.into_iter().zip([vec![], goodbye(0x89)]) {
        let gate = TestGate::quiet();
        let mut client = Client::connect(&gate, version, "m1");
        client.publish("sensors/m1/t", 1, b"x");
        let conn = gate.arrivals(1)[0].conn;
        gate.handle.close(conn, CloseReason::Journal);
        assert_eq!(client.read_to_end(), last);
    }
}

#[test]
fn a_client_that_stops_reading_is_closed_and_stalls_nobody() {
    let limits = Limits {
        write_stall_ms: 300,
        ..Limits::default()
    };
    let gate = TestGate::with(limits);
    let mut stuck = Client::connect(&gate, Version::V4, "pi-1");
    assert_eq!(
        subscribe(&mut stuck, "hw/1/0a/pi-1/down", Qos::AtMostOnce),
        0
    );
    let conn = gate.owner.conn_of("pi-1", 0);
    // Fills the socket buffers of both ends; then the queue holds what is below its bound.
    let message = bytes::Bytes::from(vec![0; 100 * 1024]);
    let mut sent = 0;
    let refused = loop {
        match gate.handle.send_down(conn, message.clone()) {
            Ok(()) => sent += 1,
            Err(refused) => break refused,
        }
        assert!(sent < 10_000, "nothing bounds what waits for a client");
    };
    assert!(matches!(refused, DownError::Full | DownError::Gone));
    gate.is_alive();
    gate.wait_until("the end", |gate| gate.closed(CloseReason::SlowReader) == 1);
    assert_eq!(gate.handle.send_down(conn, message), Err(DownError::Gone));
}

#[test]
fn a_client_that_floods_pings_and_never_reads_is_closed() {
    let limits = Limits {
        write_stall_ms: 300,
        outgoing_bytes: 16 * 1024,
        ..Limits::default()
    };
    let gate = TestGate::with(limits);
    let mut flood = Client::connect(&gate, Version::V4, "m1");
    let pings = [0xC0, 0].repeat(32 * 1024);
    let writing = std::thread::spawn(move || while flood.stream.write_all(&pings).is_ok() {});
    gate.wait_until("the end", |gate| gate.closed(CloseReason::SlowReader) == 1);
    writing.join().unwrap();
    gate.is_alive();
}

#[test]
fn a_stop_tells_everyone_and_returns() {
    let mut gate = TestGate::quiet();
    let mut v5 = Client::connect(&gate, Version::V5, "m5");
    let mut v4 = Client::connect(&gate, Version::V4, "m4");
    let mut early = Client::raw(gate.addr, Version::V4);
    v4.publish("sensors/m4/t", 1, b"x");
    gate.release(&gate.arrivals(1)[0]);
    gate.wait_until("three seats", |gate| {
        gate.gate.metrics().connections_now.get() == 3
    });
    gate.stop();
    assert_eq!(v5.read_to_end(), goodbye(0x8B));
    assert_eq!(v4.read_to_end(), [0x40, 2, 0, 1]);
    assert!(early.read_to_end().is_empty());
    assert_eq!(gate.gate.metrics().connections_now.get(), 0);
}

#[test]
fn the_limit_per_address_refuses_and_gives_seats_back() {
    let gate = TestGate::with(Limits {
        connections_per_ip: 2,
        ..Limits::default()
    });
    let first = Client::connect(&gate, Version::V4, "m1");
    let _second = Client::connect(&gate, Version::V4, "m2");
    assert!(Client::raw(gate.addr, Version::V4).read_to_end().is_empty());
    assert_eq!(gate.gate.metrics().refused_per_ip_total.get(), 1);
    drop(first);
    gate.wait_until("a free seat", |gate| {
        gate.gate.metrics().connections_now.get() == 1
    });
    Client::connect(&gate, Version::V4, "m3");
}

// Five ways in which one client stopped another broker.

#[test]
fn trigger_1_a_bad_client_id_twice() {
    let gate = TestGate::quiet();
    for id in ["a+b", "a+b", "a$", "a$", "a#", "a#", "a/b", "a/b"] {
        let mut client = Client::raw(gate.addr, Version::V4);
        assert_eq!(client.open(id, true), (2, false));
        assert!(client.read_to_end().is_empty());
    }
    gate.is_alive();
}

#[test]
fn trigger_2_a_refused_client_retries_at_the_connection_limit() {
    let gate = TestGate::with(Limits {
        connections: 3,
        ..Limits::default()
    });
    let seated: Vec<Client> = (0..3)
        .map(|n| Client::connect(&gate, Version::V4, &format!("m{n}")))
        .collect();
    for _ in 0..20 {
        assert!(Client::raw(gate.addr, Version::V4).read_to_end().is_empty());
    }
    assert_eq!(gate.gate.metrics().refused_full_total.get(), 20);
    drop(seated);
    gate.wait_until("free seats", |gate| {
        gate.gate.metrics().connections_now.get() == 0
    });
    gate.is_alive();
}

#[test]
fn trigger_3_a_silent_stream() {
    let gate = TestGate::quiet();
    let _silent: Vec<Client> = (0..20)
        .map(|_| Client::raw(gate.addr, Version::V4))
        .collect();
    gate.is_alive();
}

#[test]
fn trigger_4_a_shared_subscription_left_with_an_unacked_message() {
    let gate = TestGate::quiet();
    let mut member = Client::raw(gate.addr, Version::V4);
    assert_eq!(member.open("member", false), (0, false));
    assert_eq!(
        subscribe(&mut member, "$share/g/sensors/#", Qos::AtLeastOnce),
        0x80
    );
    let mut device = Client::connect(&gate, Version::V4, "m1");
    device.publish("sensors/m1/t", 1, b"x");
    gate.arrivals(1);
    drop(member);
    gate.is_alive();
}

#[test]
fn trigger_5_a_puback_that_nobody_waits_for() {
    let gate = TestGate::quiet();
    for _ in 0..5 {
        let mut client = Client::connect(&gate, Version::V4, "bogus");
        assert_eq!(subscribe(&mut client, "sensors/#", Qos::AtLeastOnce), 0x80);
        client.send(&Packet::PubAck(Ack::success(77)));
        assert!(client.read_to_end().is_empty());
    }
    gate.wait_until("five ends", |gate| gate.closed(CloseReason::Protocol) == 5);
    gate.is_alive();
}
