//! Lines from others, each rule as a sentence.

use super::*;
use crate::clock::Clock;
use crate::pipeline::engine::Lost;
use crate::pipeline::receipts::Settled;
use crate::source::PortEnd;
use crate::source::health::State;
use headwater_proto::sample::OwnedValue;
use headwater_proto::time::UnixMicros;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc::error::TryRecvError;

fn intake() -> (Intake, PortEnd) {
    let (port, inlet) = Port::new("x", Arc::default());
    let refusals = Arc::new(Refusals::new("x", Clock::start()));
    (Intake::new(Format::Line, port, refusals), inlet)
}

fn refused(intake: &Intake) -> u64 {
    intake.refusals.count().0
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

#[test]
fn a_taken_address_is_told_with_its_holder() {
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let host = || "127.0.0.1".to_owned();
    for endpoint in [
        Endpoint::Tcp(host(), tcp.local_addr().unwrap().port()),
        Endpoint::Udp(host(), udp.local_addr().unwrap().port()),
    ] {
        let (intake, _inlet) = intake();
        let told = block_on(intake.listen(&endpoint)).unwrap_err().to_string();
        let me = format!("(process {}) holds", std::process::id());
        assert!(
            told.starts_with(&format!("cannot listen on {endpoint}, which "))
                && told.ends_with(&me),
            "{told}"
        );
    }
}

#[test]
fn a_stream_gives_its_lines_and_survives_bad_and_endless_ones() {
    let (intake, mut inlet) = intake();
    let long = format!("m f={}\n", "1".repeat(2 * MAX_LINE_BYTES));
    let bytes = [b"m f=1\nbad\n\xff\n", long.as_bytes(), b"# x\nm f=2\nm f=3"].concat();
    let taken = block_on(intake.stream(bytes.as_slice())).unwrap();
    assert_eq!((taken.rows, taken.receipts.first()), (3, Some(&(0..3))));
    assert_eq!(refused(&intake), 3);
    let mut seen = 0;
    while inlet.queue.try_recv().is_ok() {
        seen += 1;
    }
    assert_eq!(seen, 3);
}

#[test]
fn good_parts_come_through_beside_refused_ones() {
    let (intake, mut inlet) = intake();
    let bytes = b"m a=1,b=oops,c=3\nm s=\"two\nlines\"\nm s=\"open\nm v=4\n";
    assert_eq!(block_on(intake.stream(bytes.as_slice())).unwrap().rows, 3);
    let mut columns = Vec::new();
    while let Ok(Feed::Reading(reading, _)) = inlet.queue.try_recv() {
        columns.push(
            reading
                .columns
                .iter()
                .map(|c| c.name.clone())
                .collect::<Vec<_>>(),
        );
    }
    assert_eq!(columns, [vec!["m.a", "m.c"], vec!["m.s"], vec!["m.v"]]);
    let last = "line 4, column 5: the closing quote is missing: \"m s=\\\"open\"";
    assert_eq!(intake.refusals.count(), (2, Some(last.to_owned())));
}

#[test]
fn a_quote_that_nobody_closes_holds_lines_back_for_a_moment_only() {
    let (intake, mut inlet) = intake();
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(async {
            let (mut client, server) = tokio::io::duplex(64);
            let started = tokio::time::Instant::now();
            let lines = async {
                client.write_all(b"m s=\"open\nm v=1\n").await.unwrap();
                let first = tokio::time::timeout(2 * PATIENCE, inlet.queue.recv()).await;
                assert!(matches!(first, Ok(Some(Feed::Reading(..)))), "{first:?}");
                assert_eq!(started.elapsed(), PATIENCE);
            };
            tokio::select! {
                _ = intake.stream(server) => unreachable!("the client is still there"),
                () = lines => {}
            }
        });
    assert_eq!(refused(&intake), 1);
}

#[test]
fn send_is_answered_when_its_rows_are_settled_with_those_that_are_not_durable() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("send.sock");
    let (intake, mut end) = intake();
    let (stop, port) = (Stop::default(), intake.port.clone());
    block_on(async {
        let serving = serve_send(&path, port, stop.clone(), Arc::clone(&intake.refusals));
        let sending = async {
            // One of another client comes first.
            intake
                .port
                .give(Feed::Lost(Lost::one(1, UnixMicros(0)), None))
                .await
                .unwrap();
            let mut client = loop {
                match tokio::net::UnixStream::connect(&path).await {
                    Ok(client) => break client,
                    Err(_) => tokio::task::yield_now().await,
                }
            };
            client.write_all(b"m v=1\nm v=2\nm v=3\n").await.unwrap();
            client.shutdown().await.unwrap();
            for _ in 0..4 {
                assert!(end.queue.recv().await.is_some());
            }
            let not_durable = vec![0..1, 2..3];
            // That of the other client is nobody else's.
            end.refused(0, 1);
            end.refused(3, 2);
            for durable in [3, 4] {
                let not_durable = not_durable.clone();
                end.settled.send_replace(Settled {
                    durable,
                    not_durable,
                });
            }
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            stop.stop();
            answer
        };
        let (served, answer) = tokio::join!(serving, sending);
        served.unwrap();
        assert_eq!(
            Answer::parse(&answer),
            Some(Answer {
                rows: 3,
                lost: 1,
                refused: 2
            })
        );
    });
    for text in [
        "",
        "durable 1",
        "durable 1 lost 0",
        "durable x lost 1 refused 0",
        "ok 3",
        "durable -1 lost 2 refused 0",
    ] {
        assert_eq!(Answer::parse(text), None, "{text:?}");
    }
}

#[test]
fn a_datagram_may_hold_several_lines() {
    let (intake, mut inlet) = intake();
    block_on(async {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = socket.local_addr().unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.send_to(b"m f=1\nm f=2\n", to).await.unwrap();
        tokio::select! {
            _ = intake.datagrams(&socket) => unreachable!("it never ends"),
            first = inlet.queue.recv() => assert!(first.is_some()),
        }
        assert!(inlet.queue.recv().await.is_some());
    });
}

#[test]
fn datagrams_that_find_no_room_are_told_with_their_samples_and_times() {
    let (intake, mut inlet) = intake();
    let sent = 2 * crate::source::QUEUE_READINGS as u64;
    block_on(async {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = socket.local_addr().unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let lines: String = (0..sent)
            .map(|k| format!("m a=1,b=2 {}\n", 1_700_000_000_000_000 + k))
            .collect();
        client.send_to(lines.as_bytes(), to).await.unwrap();
        let count = async {
            // Nothing is taken before all of the datagram was read.
            while intake.counters.taken.load(Ordering::Relaxed) < sent {
                tokio::task::yield_now().await;
            }
            let (mut readings, mut lost) = (0, None);
            while lost.is_none() {
                match inlet.queue.recv().await.unwrap() {
                    Feed::Reading(..) => readings += 1,
                    Feed::Lost(told, _) => lost = Some(told),
                    other @ (Feed::Line(..)
                    | Feed::Refused(..)
                    | Feed::Adopted(_)
                    | Feed::Packet(_)
                    | Feed::Way(_)) => panic!("{other:?}"),
                }
            }
            (readings, lost.unwrap())
        };
        tokio::select! {
            _ = intake.datagrams(&socket) => unreachable!("it never ends"),
            (readings, lost) = count => {
                assert_eq!(readings, crate::source::QUEUE_READINGS as u64);
                assert_eq!(lost.samples, 2 * (sent - readings));
                let at = |k: u64| UnixMicros(1_700_000_000_000_000 + k as i64);
                assert_eq!((lost.first, lost.last), (at(readings), at(sent - 1)));
            }
        }
    });
}

/// What is left in the queue, and whether anybody can still give.
fn left(end: &mut PortEnd) -> (Vec<Feed>, bool) {
    let mut left = Vec::new();
    loop {
        match end.queue.try_recv() {
            Ok(feed) => left.push(feed),
            Err(error) => return (left, error == TryRecvError::Empty),
        }
    }
}

#[test]
fn a_source_that_is_told_to_stop_ends_when_its_connections_have_given_what_they_hold() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lines.sock");
    let (port, mut end) = Port::new("x", Arc::default());
    let config = LinesSource {
        listen: Endpoint::Unix(path.clone()),
        format: LineFormat::Influx,
    };
    let (stop, refusals) = (
        Stop::default(),
        Arc::new(Refusals::new("x", Clock::start())),
    );
    block_on(async {
        let running = run(&config, port, stop.clone(), refusals);
        let sending = async {
            let mut client = loop {
                match tokio::net::UnixStream::connect(&path).await {
                    Ok(client) => break client,
                    Err(_) => tokio::task::yield_now().await,
                }
            };
            client.write_all(b"m v=1\nm v=2\nm v=3").await.unwrap();
            assert!(end.queue.recv().await.is_some());
            // On its way when the agent is told to stop, and one that nobody has sent to its end.
            client
                .write_all(b"4\nm s=\"open\nm v=5\nm v=6")
                .await
                .unwrap();
            stop.stop();
            client
        };
        let (ran, _client) = tokio::join!(running, sending);
        ran.unwrap_or_else(|error| assert!(matches!(error, LinesError::Stopped(_))));
        let (left, more) = left(&mut end);
        let firsts: Vec<_> = left
            .iter()
            .map(|feed| match feed {
                Feed::Reading(reading, _) => reading.values[0].clone(),
                other @ (Feed::Line(..)
                | Feed::Refused(..)
                | Feed::Lost(..)
                | Feed::Adopted(_)
                | Feed::Packet(_)
                | Feed::Way(_)) => {
                    panic!("{other:?}")
                }
            })
            .collect();
        let numbers = [2.0, 34.0, 5.0].map(|v| Some(OwnedValue::F64(v)));
        assert_eq!((firsts, more), (numbers.to_vec(), false));
    });
}

#[test]
fn a_way_in_that_gets_no_connection_waits_between_its_tries_and_says_that_it_fails() {
    let (intake, end) = intake();
    let tries = std::cell::Cell::new(0);
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(async {
            let accept = || {
                tries.set(tries.get() + 1);
                async { Err::<tokio::io::Empty, _>(std::io::Error::other("too many open files")) }
            };
            let accepting = intake.accept(accept, take_all);
            assert!(
                tokio::time::timeout(Duration::from_secs(1), accepting)
                    .await
                    .is_err()
            );
        });
    assert!(tries.get() <= 11, "{} tries", tries.get());
    let report = end.report();
    assert_eq!(report.state, State::Failing);
    let told = report.last_error;
    assert_eq!(told.as_deref(), Some("cannot accept: too many open files"));
}

#[test]
fn a_client_that_never_ceases_to_send_does_not_hold_up_a_stop() {
    let (intake, mut end) = intake();
    block_on(async {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let sending = async { while client.write_all(b"# nothing\n").await.is_ok() {} };
        let taking = async {
            let taken = intake.stream(server).await;
            assert_eq!(taken, Err(Stopped));
        };
        let told = Instant::now();
        intake.stop.stop();
        tokio::join!(sending, taking);
        assert!(told.elapsed() < 5 * LAST_READS);
        assert!(left(&mut end).0.is_empty());
    });
}
