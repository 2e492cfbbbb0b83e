//! Nodes over real streams, up to the engine's queue.
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test: whatever else is a failure"
)]

use std::time::Duration;

use headwater_proto::serial::max_encoded;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UnixStream};

use super::*;
use crate::clock::Clock;
use crate::source::PortEnd;

fn on_line(packet: &[u8]) -> Vec<u8> {
    let mut line = Vec::new();
    serial::append(packet, &mut line);
    assert!(line.len() <= max_encoded(packet.len()));
    line
}

/// A source that listens there, and what ends it.
fn begin(listen: Place) -> (PortEnd, Stop, Arc<Refusals>, impl Future<Output = bool>) {
    let (port, end) = Port::new("n", Arc::default());
    let (stop, refusals) = (
        Stop::default(),
        Arc::new(Refusals::new("n", Clock::start())),
    );
    let start = Start {
        name: "n".into(),
        device: "d".into(),
        port,
        stop: stop.clone(),
        refusals: Arc::clone(&refusals),
    };
    let devices = Allowed::new(vec!["*".into()]);
    let source = NodesSource { listen, devices };
    let ran = async move { run(source, start).await.is_ok() };
    (end, stop, refusals, ran)
}

async fn next(end: &mut PortEnd) -> Feed {
    let next = tokio::time::timeout(Duration::from_secs(10), end.queue.recv());
    next.await
        .expect("something comes")
        .expect("the source runs")
}

async fn next_packet(end: &mut PortEnd) -> Vec<u8> {
    match next(end).await {
        Feed::Packet(packet) => packet.bytes,
        other => panic!("{other:?}"),
    }
}

async fn next_way(end: &mut PortEnd) -> WayChange {
    match next(end).await {
        Feed::Way(change) => change,
        other => panic!("{other:?}"),
    }
}

/// Packets go to the engine and an answer comes back, over a stream that a test opens.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(end: &mut PortEnd, mut stream: S) {
    let way = next_way(end).await;
    let line = [&on_line(b"a\0b")[..], &on_line(&[0; PACKET_BYTES])].concat();
    stream.write_all(&line).await.unwrap();
    assert_eq!(next_packet(end).await, b"a\0b");
    assert_eq!(next_packet(end).await, [0; PACKET_BYTES]);
    let answers = way.answers.unwrap();
    answers.send(b"yes".to_vec()).await.unwrap();
    let mut read = [0; 6];
    stream.read_exact(&mut read).await.unwrap();
    assert_eq!(read, [0, 4, b'y', b'e', b's', 0]);
    drop(stream);
    let gone = next_way(end).await;
    assert_eq!((gone.way, gone.answers.is_none()), (way.way, true));
}

#[tokio::test]
async fn packets_come_in_and_answers_go_back_over_tcp_and_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("n.sock");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let places = [
        Place::Tcp("127.0.0.1".into(), address.port()),
        Place::Unix(path.clone()),
    ];
    for place in places {
        let is_tcp = matches!(place, Place::Tcp(..));
        let (mut end, stop, _, ran) = begin(place);
        let ran = tokio::spawn(ran);
        for _ in 0..500 {
            if is_tcp && let Ok(stream) = TcpStream::connect(address).await {
                exchange(&mut end, stream).await;
                break;
            }
            if !is_tcp && let Ok(stream) = UnixStream::connect(&path).await {
                exchange(&mut end, stream).await;
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        stop.stop();
        assert!(ran.await.unwrap());
    }
}

#[tokio::test]
async fn a_torn_packet_is_counted_and_the_next_one_is_taken() {
    let (end, _stop, refusals, _ran) = begin(Place::Serial("unused".into()));
    let mut end = end;
    let talk = Talk {
        allowed: Arc::default(),
        port: refusals_port(&mut end),
        stop: Stop::default(),
        refusals: Arc::clone(&refusals),
        waiting: Arc::new(Semaphore::new(WAITING_BYTES)),
    };
    let torn = [&[9, 1, 2, 0][..], &on_line(&[7; PACKET_BYTES + 1])].concat();
    let line = [&torn[..], &on_line(b"whole")].concat();
    talk.serve(&line[..], tokio::io::sink()).await.unwrap();
    let _ = next_way(&mut end).await;
    assert_eq!(next_packet(&mut end).await, b"whole");
    assert_eq!(refusals.count().0, 2);
}

/// A port of its own, whose end takes the place of `end`.
fn refusals_port(end: &mut PortEnd) -> Port {
    let (port, own) = Port::new("n", Arc::default());
    *end = own;
    port
}

#[tokio::test]
async fn a_serial_line_is_a_file_that_is_read_and_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("line");
    // What is written to a pipe that is open both ways comes back on it.
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    let (mut end, stop, _, ran) = begin(Place::Serial(path));
    let ran = tokio::spawn(ran);
    let answers = next_way(&mut end).await.answers.unwrap();
    answers.send(b"there and back".to_vec()).await.unwrap();
    assert_eq!(next_packet(&mut end).await, b"there and back");
    stop.stop();
    assert!(ran.await.unwrap());
    let (_end, _stop, _, ran) = begin(Place::Serial("/nowhere/at/all".into()));
    assert!(
        !ran.await,
        "a line that is not there is a failure, and tried again"
    );
}
