//! The link and the whole agent against a broker of one connection, which stands in for the gate.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use headwater_proto::ids::DeviceId;
use headwater_proto::mqtt::{Packet, Qos, Version, decode};
use headwater_proto::topic;
use tokio::sync::mpsc;

use super::mqtt::{Link, PACKET_OVERHEAD_BYTES};
use super::{LINK_EVENTS, LinkEvent};
use crate::config::{self, Config};
use crate::pipeline::engine::MAX_DOWN_BYTES;
use crate::pipeline::engine::tests::world;

/// Longest wait for anything: a bound for a test that fails, not a time that one takes.
const PATIENCE: Duration = Duration::from_secs(30);
const MAX_PACKET: usize = 1 << 20;

/// What a client did, with the bytes that answer it.
#[derive(Debug, PartialEq, Eq)]
enum Did {
    Connected {
        client_id: String,
        clean: bool,
    },
    Subscribed(String),
    Published {
        topic: String,
        qos: Qos,
        payload: Vec<u8>,
    },
    Gone,
}

/// A connection as a broker sees it: answers what MQTT wants answered at once.
struct Broker {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Broker {
    fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            bytes: Vec::new(),
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        // A client that went is noticed at the next read.
        let _ = self.stream.write_all(bytes);
    }

    fn next(&mut self) -> Did {
        loop {
            let (did, answer, used) = match decode(&self.bytes, Version::V4, MAX_PACKET).unwrap() {
                None => {
                    let mut chunk = [0; 4096];
                    match self.stream.read(&mut chunk) {
                        Ok(0) => return Did::Gone,
                        Ok(len) => self.bytes.extend_from_slice(&chunk[..len]),
                        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                            return Did::Gone;
                        }
                        Err(error) => panic!("nothing came: {error}"),
                    }
                    continue;
                }
                Some((Packet::Connect(connect), used)) => {
                    let did = Did::Connected {
                        client_id: connect.client_id.to_owned(),
                        clean: connect.clean_start,
                    };
                    (Some(did), vec![0x20, 2, 0, 0], used)
                }
                Some((Packet::Subscribe(subscribe), used)) => {
                    let filter = subscribe.filters.iter().next().unwrap().filter.to_owned();
                    let [high, low] = subscribe.packet_id.to_be_bytes();
                    (
                        Some(Did::Subscribed(filter)),
                        vec![0x90, 3, high, low, 1],
                        used,
                    )
                }
                Some((Packet::Publish(publish), used)) => {
                    let did = Did::Published {
                        topic: publish.topic.to_owned(),
                        qos: publish.qos,
                        payload: publish.payload.to_vec(),
                    };
                    let [high, low] = publish.packet_id.to_be_bytes();
                    (Some(did), vec![0x40, 2, high, low], used)
                }
                Some((Packet::PingReq, used)) => (None, vec![0xd0, 0], used),
                Some((_, used)) => (None, Vec::new(), used),
            };
            self.bytes.drain(..used);
            self.send(&answer);
            if let Some(did) = did {
                return did;
            }
        }
    }

    fn publish(&mut self, topic: &str, payload: &[u8]) {
        let mut left = 2 + topic.len() + payload.len();
        let mut packet = vec![0x30];
        while left >= 128 {
            packet.push(u8::try_from(left % 128).unwrap() | 0x80);
            left /= 128;
        }
        packet.push(u8::try_from(left).unwrap());
        packet.extend_from_slice(&u16::try_from(topic.len()).unwrap().to_be_bytes());
        packet.extend_from_slice(topic.as_bytes());
        packet.extend_from_slice(payload);
        self.send(&packet);
    }
}

fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.unwrap() })
}

#[test]
fn the_link_subscribes_first_carries_both_ways_and_comes_back_after_a_loss() {
    let (listener, port) = listen();
    let device = DeviceId::new("pump-1").unwrap();
    let (up_topic, down_topic) = (topic::up(&device), topic::down(&device));
    let (up_topic, down_topic) = (up_topic.as_str().to_owned(), down_topic.as_str().to_owned());
    let broker = std::thread::spawn(move || {
        for life in 0..2u8 {
            let mut broker = Broker::accept(&listener);
            let connected = Did::Connected {
                client_id: "pump-1".into(),
                clean: true,
            };
            assert_eq!(broker.next(), connected);
            assert_eq!(broker.next(), Did::Subscribed(down_topic.clone()));
            broker.publish("somewhere/else", b"not for the engine");
            broker.publish(&down_topic, &[life; 300]);
            let published = Did::Published {
                topic: up_topic.clone(),
                qos: Qos::AtLeastOnce,
                payload: vec![life; 1000],
            };
            assert_eq!(broker.next(), published);
        }
    });
    block_on(async {
        let collector = config::Collector {
            host: "127.0.0.1".into(),
            port,
            keep_alive_s: 30,
            login: None,
        };
        let link = Link::new(&collector, None, &device, 4096);
        let (up, publishes) = mpsc::channel(1);
        let (told, mut events) = mpsc::channel(LINK_EVENTS);
        let running = tokio::spawn(link.run(publishes, told, 7));
        for life in 0..2u8 {
            assert_eq!(events.recv().await, Some(LinkEvent::Up));
            assert_eq!(
                events.recv().await,
                Some(LinkEvent::Message(vec![life; 300]))
            );
            up.send(vec![life; 1000]).await.unwrap();
            // The broker closes the connection once it has it.
            assert_eq!(events.recv().await, Some(LinkEvent::Down));
        }
        // The link ends with the engine.
        drop(up);
        running.await.unwrap();
    });
    broker.join().unwrap();
}

#[test]
fn a_message_up_to_its_bound_arrives_and_one_beyond_it_ends_the_connection() {
    let (listener, port) = listen();
    let device = DeviceId::new("pump-1").unwrap();
    let down_topic = topic::down(&device).as_str().to_owned();
    let most = MAX_DOWN_BYTES as usize;
    let broker = std::thread::spawn(move || {
        for len in [most, most + PACKET_OVERHEAD_BYTES, 1] {
            let mut broker = Broker::accept(&listener);
            while !matches!(broker.next(), Did::Published { .. }) {}
            broker.publish(&down_topic, &vec![7; len]);
            // It goes on only with what it could read.
            let is_read = matches!(broker.next(), Did::Published { .. });
            assert_eq!(is_read, len <= most);
        }
    });
    block_on(async {
        let collector = config::Collector {
            host: "127.0.0.1".into(),
            port,
            keep_alive_s: 30,
            login: None,
        };
        let link = Link::new(&collector, None, &device, 4096);
        let (up, publishes) = mpsc::channel(1);
        let (told, mut events) = mpsc::channel(LINK_EVENTS);
        let running = tokio::spawn(link.run(publishes, told, 7));
        let mut lens = Vec::new();
        for event in [
            "up", "message", "down", "up", "down", "up", "message", "down",
        ] {
            let (is, len) = match events.recv().await.unwrap() {
                LinkEvent::Up => ("up", None),
                LinkEvent::Down => ("down", None),
                LinkEvent::Message(bytes) => ("message", Some(bytes.len())),
            };
            assert_eq!(is, event);
            lens.extend(len);
            if is != "down" {
                up.send(vec![1]).await.unwrap();
            }
        }
        assert_eq!(lens, [most, 1]);
        drop(up);
        running.await.unwrap();
    });
    broker.join().unwrap();
}

#[test]
fn an_agent_sends_all_of_a_source_that_ends_and_stops_cleanly_when_it_is_committed() {
    const ROWS: u64 = 500;
    let (listener, port) = listen();
    let dir = tempfile::tempdir().unwrap();
    let spool = dir.path().join("spool");
    std::fs::create_dir(&spool).unwrap();
    let text = format!(
        "device = \"pump-1\"\n[collector]\naddress = \"127.0.0.1:{port}\"\n[spool]\ndir = {:?}\n\
         [status]\nfile = {:?}\nsocket = \"\"\n[[generator]]\nspeed = 0.0\nrows = {ROWS}\n",
        spool,
        dir.path().join("status.json"),
    );
    let config = Config::parse(&text, "host").unwrap();
    let down = topic::down(&config.device).as_str().to_owned();
    // It hangs up once in the middle: what was not answered is sent again.
    let broker = std::thread::spawn(move || {
        let mut collector = world::Collector::default();
        collector.commits = true;
        let mut publishes = 0;
        loop {
            let mut broker = Broker::accept(&listener);
            loop {
                match broker.next() {
                    Did::Published { payload, .. } => {
                        publishes += 1;
                        let answers = collector.take(&payload);
                        if publishes == 2 {
                            break;
                        }
                        for answer in answers {
                            broker.publish(&down, &answer);
                        }
                    }
                    Did::Gone if publishes > 2 => return collector,
                    Did::Gone => break,
                    Did::Connected { .. } | Did::Subscribed(_) => {}
                }
            }
        }
    });
    block_on(crate::run::run(
        config.clone(),
        crate::run::Options {
            until_drained: true,
        },
    ))
    .unwrap();
    let collector = broker.join().unwrap();
    assert!(!collector.rows().is_empty());
    let status = std::fs::read_to_string(dir.path().join("status.json")).unwrap();
    let status: crate::status::Status = serde_json::from_str(&status).unwrap();
    assert_eq!(status.readings, ROWS);
    assert_eq!(
        (status.covered, status.evicted_records, status.lost_samples),
        (0, 0, 0)
    );
    assert_eq!(status.sources[0].cursor, Some(ROWS));
    assert_eq!(status.device, "pump-1");

    // The next start finds a clean end, and everything behind it.
    let clock = crate::clock::Clock::of_boot();
    let engine = crate::run::open_engine(&config, clock).unwrap();
    assert_eq!(engine.cursors()[0].unwrap().minor, ROWS);
}
