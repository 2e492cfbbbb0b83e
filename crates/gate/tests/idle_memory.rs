//! What an idle connection costs; alone in its process, because it reads the process's memory.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, and picks out what it looks for"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use headwater_gate::acl::{Acl, TopicPattern};
use headwater_gate::clock::Clock;
use headwater_gate::identity::Loopback;
use headwater_gate::store::MemoryStore;
use headwater_gate::{Arrivals, Gate, GateEvent, GateHandle, Limits, Settings};
use tokio_util::sync::CancellationToken;

const CONNECTIONS: u8 = 250;
const PAYLOAD_BYTES: u16 = 20_000;

#[test]
fn an_idle_connection_that_once_sent_a_large_message_costs_at_most_10_kb() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (gate, arrivals) = Gate::new(Settings {
        limits: Limits::default(),
        queue_bytes: Settings::QUEUE_BYTES,
        acl: Acl {
            plain: vec![TopicPattern::parse("s/#").unwrap()],
            ..Acl::default()
        },
        identity: Box::new(Loopback),
        store: Arc::new(MemoryStore::default()),
        clock: Clock::start(),
    });
    let handle = gate.handle();
    std::thread::spawn(move || release_all(arrivals, &handle));
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind(any_port))
        .unwrap();
    let addr = listener.local_addr().unwrap();
    runtime.spawn(gate.serve(listener, CancellationToken::new()));

    // The first ones warm what all share.
    let mut clients: Vec<TcpStream> = (0..5).map(|n| connect_and_send(addr, n)).collect();
    let before = resident_bytes();
    clients.extend((5..CONNECTIONS).map(|n| connect_and_send(addr, n)));
    let each = resident_bytes().saturating_sub(before) / usize::from(CONNECTIONS - 5);
    assert!(each <= 10_000, "an idle connection costs {each} bytes");
}

fn release_all(mut arrivals: Arrivals, handle: &GateHandle) {
    let mut events = Vec::new();
    loop {
        arrivals.take(&mut events, Duration::from_secs(1));
        handle.pubacks(events.iter().filter_map(|event| match event {
            GateEvent::Arrival(arrival) => Some((arrival.conn, arrival.token?)),
            GateEvent::Connected { .. }
            | GateEvent::Settled { .. }
            | GateEvent::Disconnected { .. } => None,
        }));
    }
}

fn connect_and_send(addr: SocketAddr, n: u8) -> TcpStream {
    let mut stream = TcpStream::connect(addr).unwrap();
    let mut connect = vec![0x10, 14, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 2];
    let (high, low) = (b'a' + n / 16, b'a' + n % 16);
    connect.extend([high, low]);
    stream.write_all(&connect).unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [0x20, 2, 0, 0]);

    let length = 2 + 3 + 2 + PAYLOAD_BYTES;
    let [low, high, top] = [length & 0x7F, length >> 7 & 0x7F, length >> 14];
    let bytes = |n: u16| u8::try_from(n).unwrap();
    let mut publish = vec![0x32, bytes(low) | 0x80, bytes(high) | 0x80, bytes(top)];
    publish.extend([0, 3, b's', b'/', b't', 0, 1]);
    publish.resize(publish.len() + usize::from(PAYLOAD_BYTES), 7);
    stream.write_all(&publish).unwrap();
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [0x40, 2, 0, 1]);
    stream
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
