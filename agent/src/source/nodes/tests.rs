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
use crate::source::begun::Begun;
use crate::source::health::State;

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
        begun: Begun::default(),
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
    let (talk, mut end) = talk();
    let torn = [&[9, 1, 2, 0][..], &on_line(&[7; PACKET_BYTES + 1])].concat();
    let line = [&torn[..], &on_line(b"whole")].concat();
    let served = talk.serve(Stream::Connection, &line[..], tokio::io::sink());
    served.await.unwrap();
    let _ = next_way(&mut end).await;
    assert_eq!(next_packet(&mut end).await, b"whole");
    assert_eq!(talk.refusals.count().0, 2);
}

/// What serves a stream of its own, and the engine's end.
fn talk() -> (Talk, PortEnd) {
    let (port, end) = Port::new("n", Arc::default());
    let talk = Talk {
        allowed: Arc::default(),
        port,
        stop: Stop::default(),
        refusals: Arc::new(Refusals::new("n", Clock::start())),
        waiting: Arc::new(Semaphore::new(WAITING_BYTES)),
    };
    (talk, end)
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_brings_no_packet_for_long_ends_and_a_serial_line_stays() {
    let (talk, mut end) = talk();
    for (line, lasts) in [
        (Vec::new(), FIRST_PACKET),
        (on_line(b"packet"), SILENCE),
        // Bytes are no packet.
        (vec![9; 5], FIRST_PACKET),
    ] {
        let (mut node, own) = tokio::io::duplex(1024);
        node.write_all(&line).await.unwrap();
        let (read, write) = tokio::io::split(own);
        let serving = talk.serve(Stream::Connection, read, write);
        let mut serving = pin!(tokio::time::timeout(2 * SILENCE, serving));
        let soon = tokio::time::timeout(lasts - Duration::from_millis(2), &mut serving);
        assert!(soon.await.is_err(), "{line:?}");
        let late = tokio::time::timeout(Duration::from_millis(10), serving);
        assert!(late.await.is_ok_and(|ended| ended.is_ok()), "{line:?}");
        while end.queue.try_recv().is_ok() {}
    }
    let (_node, own) = tokio::io::duplex(1024);
    let (read, write) = tokio::io::split(own);
    let serving = talk.serve(Stream::Serial, read, write);
    assert!(tokio::time::timeout(2 * SILENCE, serving).await.is_err());
}

#[tokio::test]
async fn a_connection_on_which_no_answer_can_come_any_more_ends() {
    let (talk, mut end) = talk();
    let (mut node, own) = tokio::io::duplex(1024);
    let (read, write) = tokio::io::split(own);
    let serving = async move { talk.serve(Stream::Connection, read, write).await };
    let serving = tokio::spawn(serving);
    drop(next_way(&mut end).await.answers);
    assert!(next_way(&mut end).await.answers.is_none());
    serving.await.unwrap().unwrap();
    assert_eq!(node.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_connection_that_finds_no_place_is_told_and_served_when_another_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("n.sock");
    let (mut end, stop, _, ran) = begin(Place::Unix(path.clone()));
    let ran = tokio::spawn(ran);
    let mut open = Vec::new();
    while open.len() < MAX_CONNECTIONS {
        match UnixStream::connect(&path).await {
            Ok(stream) => {
                open.push((stream, next_way(&mut end).await));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    let waits = UnixStream::connect(&path).await.unwrap();
    let told = async {
        while end.report().waited == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(10), told);
    told.await.expect("it is told that one waits");
    assert_eq!(end.report().state, State::Failing);
    drop(open.pop());
    assert!(next_way(&mut end).await.answers.is_none());
    let served = next_way(&mut end).await;
    assert!(served.answers.is_some());
    assert_eq!((end.report().state, end.report().waited), (State::Up, 1));
    drop((waits, open));
    stop.stop();
    while !end.queue.is_closed() && end.queue.recv().await.is_some() {}
    assert!(ran.await.unwrap());
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
