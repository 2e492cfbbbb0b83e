//! What comes between the first start of a source and its first stored line.

use super::*;
use crate::source::begun::Begun;
use crate::source::held::HeldPlaces;
use crate::source::kind::Start;

const DEADLINE: Duration = Duration::from_secs(30);

/// A life of the agent whose spool has nothing of the source: what it gives until it has looked at the log for a
/// while, and its log has got `lines` once it began.
struct Life<'a> {
    log: &'a Log,
    spool: &'a Path,
    from_start: bool,
    held: &'a HeldPlaces,
}

impl Life<'_> {
    fn run(&self, expected: usize, lines: &str) -> Vec<Feed> {
        let (port, mut end) = Port::new("x", std::sync::Arc::default());
        let port = port.with_held(self.held);
        let stop = Stop::default();
        let source = FileSource {
            path: self.log.path(),
            from_start: self.from_start,
            rotate_wait_ms: 0,
        };
        let start = Start {
            name: "x".to_owned(),
            device: "d".to_owned(),
            port,
            stop: stop.clone(),
            refusals: std::sync::Arc::new(Refusals::new("x", Clock::start())),
            begun: Begun::open(self.spool),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let noted = self.spool.join("begun");
        let mut given = Vec::new();
        runtime.block_on(async {
            let run = tokio::spawn(source.run(start));
            let is_noted = async {
                while !noted.exists() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::time::timeout(DEADLINE, is_noted)
                .await
                .expect("it notes where it began");
            self.log.write(lines);
            while given.len() < expected {
                given.push(end.queue.recv().await.unwrap());
            }
            stop.stop();
            run.await.unwrap().unwrap();
        });
        given.extend(std::iter::from_fn(|| end.queue.try_recv().ok()));
        given
    }
}

fn texts(given: Vec<Feed>) -> Vec<String> {
    let texts = given.into_iter().map(|feed| match feed {
        Feed::Line(_, line, _) => String::from_utf8(line).unwrap(),
        other @ (Feed::Reading(..)
        | Feed::Refused(..)
        | Feed::Lost(..)
        | Feed::Adopted(_)
        | Feed::Packet(_)
        | Feed::Way(_)) => format!("{other:?}"),
    });
    texts.collect()
}

/// What the collector says.
fn says(places: Vec<Stray>) -> HeldPlaces {
    let held = HeldPlaces::default();
    held.tell(places);
    held
}

/// The collector holds the first line of the log.
fn holds_first(log: &Log) -> (HeldPlaces, Cursor) {
    let path = log.path();
    let mut reader = Reader::new(&path, None, FROM_START);
    reader.all();
    let cursor = cursor_of(&reader.found[0]).unwrap();
    let place = Stray {
        name: "x".to_owned(),
        cursor,
        said_by: SaidBy::Collector {
            is_last: true,
            is_taken: true,
        },
    };
    (says(vec![place]), cursor)
}

/// Lives that store nothing: each gives all that came since the first began.
fn lives(log: &Log, from_start: bool, meanwhile: impl Fn()) -> Vec<String> {
    let spool = tempfile::tempdir().unwrap();
    let held = says(Vec::new());
    let life = Life {
        log,
        spool: spool.path(),
        from_start,
        held: &held,
    };
    assert_eq!(texts(life.run(0, "")), Vec::<String>::new());
    meanwhile();
    let expected = ["while it was off", "while it ran"];
    for lines in ["while it ran\n", ""] {
        assert_eq!(texts(life.run(2, lines)), expected);
    }
    texts(life.run(2, ""))
}

#[test]
fn what_comes_before_a_first_line_is_stored_is_read_by_the_next_life() {
    let log = Log::new();
    log.write("old\n");
    lives(&log, false, || log.write("while it was off\n"));
}

#[test]
fn so_it_is_where_the_log_was_empty_and_was_rotated_meanwhile() {
    let log = Log::new();
    log.write_to("app.log.1", "old\n");
    log.write("");
    lives(&log, false, || {
        log.write("while it was off\n");
        log.rotate();
    });
    let log = Log::new();
    log.write("");
    lives(&log, true, || {
        log.write("while it was off\n");
        log.rotate();
    });
}

#[test]
fn so_it_is_where_the_log_was_not_there() {
    let log = Log::new();
    log.write_to("app.log.1", "old\n");
    lives(&log, false, || log.write("while it was off\n"));
    let log = Log::new();
    lives(&log, false, || {
        log.write("while it was off\n");
        log.rotate();
    });
}

#[test]
fn who_is_told_to_begin_at_the_start_instead_does() {
    let log = Log::new();
    log.write("old\n");
    let spool = tempfile::tempdir().unwrap();
    let held = says(Vec::new());
    let mut life = Life {
        log: &log,
        spool: spool.path(),
        from_start: false,
        held: &held,
    };
    life.run(0, "");
    life.from_start = true;
    assert_eq!(texts(life.run(1, "")), ["old"]);
}

#[test]
fn a_place_that_was_adopted_is_adopted_again_by_a_life_that_hears_nothing_of_it() {
    let log = Log::new();
    log.write("old\n");
    let (held, cursor) = holds_first(&log);
    log.write("new\n");
    let spool = tempfile::tempdir().unwrap();
    let mut life = Life {
        log: &log,
        spool: spool.path(),
        from_start: true,
        held: &held,
    };
    let expected = [format!("{:?}", Feed::Adopted(cursor)), "new".to_owned()];
    assert_eq!(texts(life.run(2, "")), expected);
    let nothing = says(Vec::new());
    life.held = &nothing;
    assert_eq!(texts(life.run(2, "")), expected);
}

#[test]
fn what_the_collector_holds_counts_for_more_than_where_a_source_began_that_stored_nothing() {
    let log = Log::new();
    log.write("held\n");
    let (held, cursor) = holds_first(&log);
    log.write("not held\n");
    let spool = tempfile::tempdir().unwrap();
    let late = says(Vec::new());
    let mut life = Life {
        log: &log,
        spool: spool.path(),
        from_start: false,
        held: &late,
    };
    assert_eq!(texts(life.run(0, "")), [""; 0]);
    life.held = &held;
    let expected = [
        format!("{:?}", Feed::Adopted(cursor)),
        "not held".to_owned(),
    ];
    assert_eq!(texts(life.run(2, "")), expected);
}
