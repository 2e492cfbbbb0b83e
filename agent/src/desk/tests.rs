//! The desk's rules, each as a sentence.

use super::*;
use crate::config::Config;
use crate::run::open_engine;
use crate::source::health::State;
use crate::source::lines::{Endpoint, LineFormat, LinesSource};
use crate::source::{ColumnDef, Port, Reading, Stop, lines};
use headwater_proto::ids::DeviceId;
use headwater_proto::message;
use headwater_proto::sample::OwnedValue;
use headwater_proto::schema::{ColumnKind, MAX_VALUE_TEXT_BYTES};
use headwater_proto::time::UnixMicros;
use headwater_spool::RealDisk;

/// A desk with one source, what that gives by, and the ends of the link.
fn desk(
    folder: &tempfile::TempDir,
    awaited: bool,
) -> (Desk<RealDisk>, crate::source::Port, mpsc::Sender<LinkEvent>) {
    let text = format!("[spool]\ndir = {:?}", folder.path().join("spool"));
    let config = Config::parse(&text, "host").unwrap();
    let clock = Clock::of_boot();
    let (port, end) = Port::new("x", Arc::default());
    let inlet = Inlet {
        source: 0,
        lane: Lane::Normal,
        resumes: false,
        end,
        waiting: VecDeque::new(),
        ended: false,
        awaited,
    };
    let (up, _publishes) = mpsc::channel(1);
    let (tell, events) = mpsc::channel(1);
    let desk = Desk {
        ways: std::collections::BTreeMap::new(),
        engine: open_engine(&config, clock).unwrap(),
        inlets: vec![inlet],
        refusals: Vec::new(),
        up,
        events,
        wake: Arc::default(),
        stop: Arc::default(),
        clock,
        status: Some(StatusFile::new(folder.path().join("status.json"), 1_000)),
        held: HeldPlaces::default(),
        began: Vec::new(),
        behind: None,
        earlier: Waiting::default(),
        until_drained: true,
    };
    (desk, port, tell)
}

fn ends_with(desk: Desk<RealDisk>) -> End {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(desk.run())
}

#[test]
fn an_engine_without_a_link_ends_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (desk, _port, tell) = desk(&folder, true);
    drop(tell);
    assert_eq!(ends_with(desk), End::Unlinked);
}

#[test]
fn all_is_drained_when_every_source_has_ended_but_the_one_that_never_does() {
    let folder = tempfile::tempdir().unwrap();
    // That of `send` is there as long as the agent.
    let (desk, port, _tell) = desk(&folder, false);
    port.failing("no luck");
    assert_eq!(ends_with(desk), End::Drained);
    let text = std::fs::read_to_string(folder.path().join("status.json")).unwrap();
    let status: Status = serde_json::from_str(&text).unwrap();
    let health = &status.sources[0].health;
    assert_eq!(health.state, State::Failing);
    assert_eq!(health.last_error.as_deref(), Some("no luck"));
}

#[test]
fn a_value_that_the_engine_refuses_is_told_from_the_first_on_and_the_row_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("[spool]\ndir = {:?}", folder.path().join("spool"));
    let config = Config::parse(&text, "host").unwrap();
    let clock = Clock::of_boot();
    let mut engine = open_engine(&config, clock).unwrap();
    let (_, end) = Port::new("x", Arc::default());
    let inlet = Inlet {
        source: 0,
        lane: Lane::Normal,
        resumes: false,
        end,
        waiting: VecDeque::new(),
        ended: false,
        awaited: true,
    };
    let column = |name: &str| ColumnDef {
        name: name.to_owned(),
        unit: String::new(),
        kind: if name == "a" {
            ColumnKind::Str
        } else {
            ColumnKind::F64
        },
    };
    let long = "x".repeat(MAX_VALUE_TEXT_BYTES + 1);
    let reading = Reading {
        time: UnixMicros(0),
        labels: Arc::default(),
        columns: Arc::from([column("a"), column("b")]),
        values: vec![Some(OwnedValue::Str(long)), Some(OwnedValue::F64(1.0))],
    };
    let refusals = Arc::new(Refusals::new("x", clock));
    let feed = Feed::Reading(reading, None);
    assert!(offer(&mut engine, &inlet, Some(&refusals), feed, clock.now()).is_none());
    let (count, last) = refusals.count();
    assert_eq!((count, engine.counters().samples), (1, 2));
    let expected = "value of a: the text has 16385 bytes; at most 16384 are taken: \"xxx";
    assert!(last.unwrap().starts_with(expected));
}

/// The desk's last status, once it has been told to stop and has ended.
fn status_at_the_end(folder: &tempfile::TempDir, desk: Desk<RealDisk>) -> Status {
    desk.stop.notify_one();
    let (told, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || told.send(ends_with(desk)));
    let end = ended.recv_timeout(std::time::Duration::from_secs(30));
    assert_eq!(end, Ok(End::Stopped));
    let text = std::fs::read_to_string(folder.path().join("status.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_source_that_never_ceases_to_give_does_not_hold_up_a_stop_and_all_it_gave_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let (desk, port, _tell) = desk(&folder, true);
    let giving = (0..3).map(|_| {
        let port = port.clone();
        std::thread::spawn(move || {
            let mut given = 0;
            while port.give_blocking(Feed::Reading(reading(), None)).is_ok() {
                given += 1;
            }
            given
        })
    });
    let giving: Vec<_> = giving.collect();
    let status = status_at_the_end(&folder, desk);
    let given = giving.into_iter().map(|thread| thread.join().unwrap());
    assert_eq!(status.readings, given.sum::<u64>());
}

#[test]
fn datagrams_that_found_no_room_before_a_stop_are_named_though_their_source_has_ended() {
    const SENT: usize = 1_000;
    let folder = tempfile::tempdir().unwrap();
    let (mut desk, port, _tell) = desk(&folder, true);
    let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = free.local_addr().unwrap();
    drop(free);
    let config = LinesSource {
        listen: Endpoint::Udp("127.0.0.1".to_owned(), to.port()),
        format: LineFormat::Influx,
    };
    let refusals = Arc::new(Refusals::new("x", desk.clock));
    refusals.attach(&port);
    desk.refusals = vec![Arc::clone(&refusals)];
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let stop = Stop::default();
        let sending = async {
            let client = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
            client.connect(to).await.unwrap();
            let lines = "m f=1\n".repeat(SENT);
            // Nobody may listen yet.
            while client.send(lines.as_bytes()).await.is_err() || port_is_idle(&desk) {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            stop.stop();
        };
        let running = lines::run(&config, port, stop.clone(), refusals);
        let (ran, ()) = tokio::join!(running, sending);
        ran.unwrap();
    });
    let status = status_at_the_end(&folder, desk);
    let all = status.readings + status.lost_samples;
    assert!(
        status.lost_samples > 0 && all.is_multiple_of(SENT as u64),
        "{status:?}"
    );
}

#[test]
fn a_way_ends_when_the_node_that_spoke_there_speaks_on_another() {
    let folder = tempfile::tempdir().unwrap();
    let (mut desk, _port, _tell) = desk(&folder, true);
    let now = desk.clock.now();
    let hello: message::Hello = message::Hello {
        version_min: message::PROTOCOL,
        version_max: message::PROTOCOL,
        origin: DeviceId::new("n").unwrap(),
        nonce: 7,
        page: 0,
        pages: 1,
        complete: true,
        boot: 1,
        uptime_ms: 0,
        wall: None,
        max_bundle: 256,
        streams: heapless::Vec::new(),
    };
    let mut bytes = Vec::new();
    message::append_frame(&hello, &mut bytes);
    let mut ends = Vec::new();
    for way in [1, 2] {
        let (tell, answers) = mpsc::channel(8);
        desk.ways.insert(way, tell);
        ends.push(answers);
        desk.engine.nodes(now).packet(way, &|_| true, &bytes);
        desk.answer_nodes(now);
    }
    // Its welcome is still said there.
    assert!(ends[0].try_recv().is_ok());
    assert_eq!(ends[0].try_recv(), Err(TryRecvError::Disconnected));
    assert!(ends[1].try_recv().is_ok());
    assert_eq!(ends[1].try_recv(), Err(TryRecvError::Empty));
}

fn port_is_idle(desk: &Desk<RealDisk>) -> bool {
    desk.inlets[0].end.queue.is_empty()
}

fn reading() -> Reading {
    Reading {
        time: UnixMicros(0),
        labels: Arc::default(),
        columns: Arc::from([ColumnDef {
            name: "a".to_owned(),
            unit: String::new(),
            kind: ColumnKind::F64,
        }]),
        values: vec![Some(OwnedValue::F64(1.0))],
    }
}
