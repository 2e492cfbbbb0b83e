//! A gate on loopback with an owner that the test holds in its hand, and clients of raw bytes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use headwater_gate::acl::{Acl, TopicPattern};
use headwater_gate::clock::Clock;
use headwater_gate::identity::Loopback;
use headwater_gate::ingest::Waited;
use headwater_gate::store::{MemoryStore, SessionStore};
use headwater_gate::{
    Arrival, Arrivals, CloseReason, ConnId, Gate, GateEvent, GateHandle, Limits, Settings,
};
use headwater_proto::mqtt::{self, Connect, Packet, Properties, Publish, Qos, Version};
use tokio_util::sync::CancellationToken;

/// Long enough for a loaded machine; a test that passes never waits that long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct TestGate {
    pub(crate) gate: Arc<Gate>,
    pub(crate) handle: GateHandle,
    pub(crate) addr: SocketAddr,
    pub(crate) owner: Arc<Owner>,
    stop: CancellationToken,
    serving: Option<tokio::task::JoinHandle<()>>,
    runtime: Option<tokio::runtime::Runtime>,
}

/// What the owner saw, and whether it answers.
#[derive(Default)]
pub(crate) struct Owner {
    seen: Mutex<Vec<GateEvent>>,
    changed: Condvar,
}

pub(crate) struct Setup {
    pub(crate) limits: Limits,
    pub(crate) queue_bytes: usize,
    pub(crate) store: Arc<dyn SessionStore>,
    pub(crate) addr: SocketAddr,
    /// The owner releases every publish at once.
    pub(crate) release: bool,
    /// The owner takes events at all.
    pub(crate) take: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            queue_bytes: Settings::QUEUE_BYTES,
            store: Arc::new(MemoryStore::default()),
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            release: false,
            take: true,
        }
    }
}

impl TestGate {
    pub(crate) fn start(setup: Setup) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let (gate, arrivals) = Gate::new(Settings {
            limits: setup.limits,
            queue_bytes: setup.queue_bytes,
            acl: Acl {
                plain: vec![TopicPattern::parse("sensors/{device}/#").unwrap()],
                ..Acl::default()
            },
            identity: Box::new(Loopback),
            store: setup.store,
            clock: Clock::start(),
        });
        let stop = CancellationToken::new();
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind(setup.addr))
            .unwrap();
        let addr = listener.local_addr().unwrap();
        let serving = runtime.spawn(Arc::clone(&gate).serve(listener, stop.clone()));
        let owner = Arc::new(Owner::default());
        let handle = gate.handle();
        if setup.take {
            let (owner, handle) = (Arc::clone(&owner), handle.clone());
            std::thread::spawn(move || owner.run(arrivals, &handle, setup.release));
        } else {
            // Nobody takes events, but the queue is not closed either.
            std::mem::forget(arrivals);
        }
        let runtime = Some(runtime);
        Self {
            gate,
            handle,
            addr,
            owner,
            stop,
            serving: Some(serving),
            runtime,
        }
    }

    pub(crate) fn quiet() -> Self {
        Self::start(Setup::default())
    }

    pub(crate) fn with(limits: Limits) -> Self {
        Self::start(Setup {
            limits,
            ..Setup::default()
        })
    }

    pub(crate) fn closed(&self, reason: CloseReason) -> u64 {
        self.gate.metrics().closed(reason).get()
    }

    /// Ends the gate in order; what the owner holds is never released.
    pub(crate) fn stop(&mut self) {
        self.stop.cancel();
        if let (Some(runtime), Some(serving)) = (&self.runtime, self.serving.take()) {
            runtime
                .block_on(async { tokio::time::timeout(DEADLINE, serving).await })
                .expect("the gate stops within its grace time")
                .unwrap();
        }
    }

    /// The next `n` publishes, whoever sent them; waits for them.
    pub(crate) fn arrivals(&self, n: usize) -> Vec<Arrival> {
        self.owner.wait(|seen| {
            let arrived: Vec<Arrival> = seen
                .iter()
                .filter_map(|event| match event {
                    GateEvent::Arrival(arrival) => Some(arrival.clone()),
                    _ => None,
                })
                .collect();
            (arrived.len() >= n).then_some(arrived)
        })
    }

    pub(crate) fn release(&self, arrival: &Arrival) {
        self.handle
            .puback(arrival.conn, arrival.token.expect("QoS 1"));
    }

    pub(crate) fn wait_until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        for _ in 0..DEADLINE.as_millis() / 5 {
            if condition(self) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("{what} never came");
    }

    /// A client can come in, publish and get its PUBACK: the gate is alive.
    pub(crate) fn is_alive(&self) {
        let before = self.owner.wait(|seen| Some(arrived(seen)));
        let mut client = Client::connect(self, Version::V4, "canary");
        client.publish("sensors/canary/t", 1, b"x");
        let all = self.arrivals(before + 1);
        self.release(&all[before]);
        client.expect(&[0x40, 2, 0, 1]);
    }
}

impl Drop for TestGate {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn arrived(seen: &[GateEvent]) -> usize {
    seen.iter()
        .filter(|event| matches!(event, GateEvent::Arrival(_)))
        .count()
}

impl Owner {
    fn run(&self, mut arrivals: Arrivals, handle: &GateHandle, release: bool) {
        let mut events = Vec::new();
        while arrivals.take(&mut events, Duration::from_millis(200)) != Waited::Closed {
            if release {
                handle.pubacks(events.iter().filter_map(|event| match event {
                    GateEvent::Arrival(arrival) => Some((arrival.conn, arrival.token?)),
                    _ => None,
                }));
            }
            self.seen.lock().unwrap().append(&mut events);
            self.changed.notify_all();
        }
    }

    /// Waits until `look` finds what it looks for.
    pub(crate) fn wait<T>(&self, mut look: impl FnMut(&[GateEvent]) -> Option<T>) -> T {
        let mut found = None;
        let seen = self.seen.lock().unwrap();
        let (seen, late) = self
            .changed
            .wait_timeout_while(seen, DEADLINE, |seen| {
                found = look(seen);
                found.is_none()
            })
            .unwrap();
        found.unwrap_or_else(|| panic!("never came, {late:?}; saw {seen:?}"))
    }

    /// The connection that `client` has or had, counting from 0 in order of time.
    pub(crate) fn conn_of(&self, client: &str, nth: usize) -> ConnId {
        self.wait(|seen| {
            seen.iter()
                .filter_map(|event| match event {
                    GateEvent::Connected {
                        conn, client: c, ..
                    } if &**c == client => Some(*conn),
                    _ => None,
                })
                .nth(nth)
        })
    }

    pub(crate) fn seen(&self) -> Vec<GateEvent> {
        self.seen.lock().unwrap().clone()
    }
}

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    version: Version,
}

impl Client {
    pub(crate) fn raw(addr: SocketAddr, version: Version) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { stream, version }
    }

    /// Connects with a clean session and reads the CONNACK.
    pub(crate) fn connect(gate: &TestGate, version: Version, id: &str) -> Self {
        let mut client = Self::raw(gate.addr, version);
        let (reason, _) = client.open(id, true);
        assert_eq!(reason, 0, "{id} is refused");
        client
    }

    /// Sends CONNECT; returns the code and session present of the answer.
    pub(crate) fn open(&mut self, client_id: &str, clean_start: bool) -> (u8, bool) {
        let expiry = [mqtt::Property::SessionExpiryInterval(600)];
        let keep = self.version == Version::V5 && !clean_start;
        let properties = if keep {
            Properties::of(&expiry)
        } else {
            Properties::EMPTY
        };
        self.send(&Packet::Connect(Connect {
            version: self.version,
            client_id,
            clean_start,
            keep_alive_s: 60,
            user: None,
            password: None,
            will: None,
            properties,
        }));
        let packet = self.read_packet();
        assert_eq!(packet[0], 0x20, "a CONNACK");
        (packet[3], packet[2] == 1)
    }

    pub(crate) fn send(&mut self, packet: &Packet<'_>) {
        let bytes = bytes_of(packet, self.version);
        self.stream.write_all(&bytes).unwrap();
    }

    pub(crate) fn publish(&mut self, topic: &str, packet_id: u16, payload: &[u8]) {
        self.send(&publish(topic, packet_id, payload));
    }

    /// One whole packet.
    pub(crate) fn read_packet(&mut self) -> Vec<u8> {
        let mut packet = vec![0; 2];
        self.stream.read_exact(&mut packet).unwrap();
        let mut length = usize::from(packet[1] & 0x7F);
        let mut shift = 7;
        while packet.last().unwrap() & 0x80 != 0 {
            let mut more = [0];
            self.stream.read_exact(&mut more).unwrap();
            packet.push(more[0]);
            length |= usize::from(more[0] & 0x7F) << shift;
            shift += 7;
        }
        let start = packet.len();
        packet.resize(start + length, 0);
        self.stream.read_exact(&mut packet[start..]).unwrap();
        packet
    }

    pub(crate) fn expect(&mut self, bytes: &[u8]) {
        let mut got = vec![0; bytes.len()];
        self.stream.read_exact(&mut got).unwrap();
        assert_eq!(got, bytes);
    }

    /// Asserts that nothing but a PINGRESP waits for this client: a PUBACK sent before would
    /// stand in front of it.
    pub(crate) fn expect_nothing(&mut self) {
        self.send(&Packet::PingReq);
        self.expect(&[0xD0, 0]);
    }

    /// Reads until the gate closes; returns what came before.
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        if let Err(error) = self.stream.read_to_end(&mut all) {
            assert_eq!(
                error.kind(),
                std::io::ErrorKind::ConnectionReset,
                "closed in time"
            );
        }
        all
    }
}

pub(crate) fn publish<'a>(topic: &'a str, packet_id: u16, payload: &'a [u8]) -> Packet<'a> {
    let qos = if packet_id == 0 {
        Qos::AtMostOnce
    } else {
        Qos::AtLeastOnce
    };
    let properties = Properties::EMPTY;
    let (dup, retain) = (false, false);
    Packet::Publish(Publish {
        dup,
        qos,
        retain,
        topic,
        packet_id,
        properties,
        payload,
    })
}

pub(crate) fn bytes_of(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut bytes = vec![0; mqtt::encoded_len(packet, version).unwrap()];
    mqtt::encode(packet, version, &mut bytes).unwrap();
    bytes
}
