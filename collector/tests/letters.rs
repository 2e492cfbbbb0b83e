//! Dead letters: what a sink refused for good means later what it meant then, once, within bounds.
#![allow(
    clippy::unwrap_used,
    clippy::type_complexity,
    reason = "a failure is a failed test"
)]

mod common;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, ready};
use std::time::Duration;

use common::{
    Rig, at, batch, bundle_of, device, hello, listed, schema_frame, settings, split_batch,
};
use headwater_collector::interpret::{Depth, Feed, Interpreted, Taken};
use headwater_collector::sink::letters::{
    Around, Letters, MAX_FILE_BYTES, MAX_LETTER_FILES, MAX_LETTERS_BYTES, MAX_READ_BYTES, Name,
    Refusal, Unreadable, list, read, replay,
};
use headwater_collector::sink::{Covers, Delivered, Due, Sink, SinkError};
use headwater_proto::frame::Kind;
use headwater_proto::ids::{DeviceId, Epoch, JournalId, Lane, SeqRange, Stream};
use headwater_proto::time::{Millis, Now, UnixMicros};
use headwater_spool::{Disk, DiskFile, FakeDisk};

/// Where a record stands and what it means, in words.
type Meaning = (u64, String);

/// A journal of several segments: batches, some with rows that go to quarantine, and plain publishes.
fn journal() -> Rig {
    let mut rig = Rig::new();
    rig.connect("dev");
    rig.up(hello(&[listed(1, 0, 400)]), 0);
    assert!(rig.sync());
    for seq in 0..200 {
        let frames = if seq % 7 == 3 {
            split_batch()
        } else {
            vec![(Kind::Schema, schema_frame()), (Kind::Batch, batch(seq))]
        };
        rig.up(bundle_of(&device(), 1, seq, &frames), seq);
        let packet = u16::try_from(seq + 1).unwrap();
        rig.plain(
            "plain/p/level",
            &format!("{seq}.5"),
            packet,
            false,
            1_000 + seq,
        );
        assert!(rig.sync());
    }
    let segments: Vec<_> = rig.custody.log().segments().collect();
    assert!(segments.len() > 3, "{} segments", segments.len());
    rig
}

/// Everything that stands for data, as a sink is given it.
fn meanings(rig: &Rig) -> BTreeMap<u64, String> {
    let mut feed = Feed::new(rig.custody.reader(), 0, Depth::Samples);
    let mut all = BTreeMap::new();
    loop {
        let chunk = feed.read(1 << 20, |item| {
            if !item.covers.is_empty() {
                all.insert(item.position, meaning(item));
            }
            Taken::More
        });
        if chunk.unwrap().records == 0 {
            return all;
        }
    }
}

fn meaning(item: &Interpreted<'_>) -> String {
    let refused: Vec<_> = item.refused().collect();
    let samples: Vec<_> = item.samples.iter().collect();
    format!(
        "{:?} {samples:?} {refused:?} {:?} {:?} {:?} {}",
        item.origin, item.gaps, item.epochs, item.covers, item.at.0
    )
}

fn stream(lane: Lane) -> Stream {
    Stream {
        device: device(),
        lane,
        epoch: Epoch::new(1),
    }
}

/// The stream of the plain device.
fn plain_stream(rig: &Rig) -> Stream {
    Stream {
        device: DeviceId::new("p").unwrap(),
        lane: Lane::Plain,
        epoch: rig.custody.ledger().plain_epoch(),
    }
}

/// Numbers of the agent's stream.
fn refused(ranges: &[(u64, u64)]) -> Vec<(Stream, Vec<SeqRange>)> {
    let ranges = ranges
        .iter()
        .map(|(first, next)| SeqRange::new(*first, *next));
    vec![(stream(Lane::Normal), ranges.collect())]
}

/// Keeps what is refused of all that is durable.
fn keep(
    rig: &Rig,
    letters: &mut Letters<FakeDisk>,
    streams: &[(Stream, Vec<SeqRange>)],
    at_us: i64,
) -> u64 {
    let causes = streams
        .iter()
        .map(|(stream, _)| (stream.clone(), "too wide".to_owned()));
    let refusal = Refusal {
        from: 0,
        to: rig.custody.log().durable(),
        streams,
        causes: &causes.collect(),
        at: UnixMicros(at_us),
        clock: &rig.custody.clock.book(),
    };
    letters.keep(&refusal, &mut rig.custody.reader()).unwrap()
}

fn read_all(letters: &Letters<FakeDisk>) -> Vec<Meaning> {
    let mut all = Vec::new();
    for name in letters.files() {
        read(letters.disk(), name, Depth::Samples, &mut |head, item| {
            assert_eq!(head.cause, "too wide");
            all.push((head.position, meaning(item.unwrap())));
        })
        .unwrap();
    }
    all
}

#[test]
fn a_letter_means_what_its_record_meant() {
    let rig = journal();
    let mut letters = Letters::open(FakeDisk::new()).unwrap();
    let mut streams = refused(&[(2, 11), (150, 160)]);
    let plain = meanings(&rig);
    streams.push((plain_stream(&rig), vec![SeqRange::new(5, 6)]));
    assert_eq!(keep(&rig, &mut letters, &streams, 1), 20);
    let all = read_all(&letters);
    assert_eq!(all.len(), 20);
    for (position, meaning) in all {
        assert_eq!(plain.get(&position), Some(&meaning));
    }
}

#[test]
fn a_repeat_keeps_none_twice_and_none_is_lost_between_two_that_are_kept() {
    let rig = journal();
    let disk = FakeDisk::new();
    let mut letters = Letters::open(disk.clone()).unwrap();
    assert_eq!(keep(&rig, &mut letters, &refused(&[(2, 3), (9, 10)]), 1), 2);
    let mut letters = Letters::open(disk.process_killed()).unwrap();
    assert_eq!(
        keep(&rig, &mut letters, &refused(&[(2, 3), (5, 6), (9, 10)]), 2),
        1
    );
    assert_eq!(keep(&rig, &mut letters, &refused(&[(5, 6)]), 3), 0);
    assert_eq!(read_all(&letters).len(), 3);
    assert_eq!(letters.look().kept, 3);
}

#[test]
fn what_a_crash_leaves_is_whole_letters_or_none() {
    let rig = journal();
    for operation in 1..40 {
        let disk = FakeDisk::new();
        disk.crash_after(operation);
        let Ok(mut letters) = Letters::open(disk.clone()) else {
            continue;
        };
        let streams = refused(&[(2, 11)]);
        let causes = BTreeMap::from([(stream(Lane::Normal), "too wide".to_owned())]);
        let refusal = Refusal {
            from: 0,
            to: rig.custody.log().durable(),
            streams: &streams,
            causes: &causes,
            at: UnixMicros(1),
            clock: &rig.custody.clock.book(),
        };
        let kept = letters.keep(&refusal, &mut rig.custody.reader());
        let mut after = Letters::open(disk.power_cut(operation)).unwrap();
        let there = read_all(&after).len();
        assert!(there == 0 || there == 9, "{there} letters");
        if kept.is_ok() {
            assert_eq!(there, 9);
        }
        let again = keep(&rig, &mut after, &streams, 2);
        assert_eq!(there as u64 + again, 9);
        assert!(
            after
                .disk()
                .list()
                .unwrap()
                .iter()
                .all(|name| Name::parse(name).is_some())
        );
    }
}

/// A folder with as many files of a journal that is gone.
fn filled(files: usize, bytes: u64) -> FakeDisk {
    let disk = FakeDisk::new();
    for n in 0..files as u64 {
        let name = Name {
            at: UnixMicros(i64::try_from(n).unwrap()),
            journal: JournalId(1),
            first: n,
            last: n,
            letters: 1,
        };
        let file = disk.create(&name.to_string()).unwrap();
        file.truncate(bytes).unwrap();
    }
    disk
}

#[test]
fn the_oldest_letters_go_for_room_and_are_counted() {
    let rig = journal();
    let some = refused(&[(2, 3)]);
    // As many files as there may be.
    let mut letters = Letters::open(filled(MAX_LETTER_FILES, 1)).unwrap();
    keep(&rig, &mut letters, &some, 1 << 40);
    assert_eq!(letters.files().count(), MAX_LETTER_FILES);
    assert_eq!(letters.look().dropped, 1);
    assert_eq!(letters.files().next().unwrap().first, 1);
    // As many bytes.
    let mut letters = Letters::open(filled(4, MAX_LETTERS_BYTES / 4)).unwrap();
    keep(&rig, &mut letters, &some, 1 << 40);
    assert_eq!(letters.look().dropped, 1);
    assert_eq!(letters.files().count(), 4);
    assert!(letters.look().bytes <= MAX_LETTERS_BYTES);
}

#[test]
fn many_letters_stand_in_several_files() {
    let mut rig = Rig::start(
        FakeDisk::new(),
        headwater_lake::MemStore::new(),
        headwater_collector::pipeline::custody::Settings {
            log: headwater_spool::Config {
                segment_bytes: 1 << 20,
                quota_bytes: 64 << 20,
                ..settings().log
            },
            patterns: vec![
                headwater_collector::pipeline::pattern::Pattern::new(
                    "plain/{device}/{metric}",
                    headwater_collector::pipeline::rules::Decoder::Number,
                )
                .unwrap(),
            ],
            ..settings()
        },
        0,
    )
    .unwrap();
    rig.connect("dev");
    let large = "9".repeat(100_000);
    let count = MAX_FILE_BYTES / large.len() + 5;
    for n in 0..count {
        let packet = u16::try_from(n + 1).unwrap();
        rig.plain(
            "plain/p/level",
            &format!("{large}{n}"),
            packet,
            false,
            n as u64,
        );
        assert!(rig.sync());
    }
    let mut letters = Letters::open(FakeDisk::new()).unwrap();
    let streams = vec![(plain_stream(&rig), vec![SeqRange::new(0, count as u64)])];
    assert_eq!(keep(&rig, &mut letters, &streams, 1), count as u64);
    assert_eq!(letters.files().count(), 2);
    assert_eq!(read_all(&letters).len(), count);
}

#[test]
fn a_file_that_is_no_letters_any_more_is_told_from_one_of_another_version() {
    let rig = journal();
    let mut letters = Letters::open(FakeDisk::new()).unwrap();
    keep(&rig, &mut letters, &refused(&[(2, 3)]), 1);
    let disk = letters.disk().clone();
    let (name, bytes) = list(&disk).unwrap().pop_first().unwrap();
    let told = |disk: &FakeDisk| read(disk, &name, Depth::Samples, &mut |_, _| {}).unwrap_err();
    let file = name.to_string();
    for place in 0..bytes {
        assert!(disk.rot(&file, place, 1));
        let error = told(&disk);
        let is_version = matches!(error, Unreadable::Version(_));
        assert_eq!(is_version, place == 4, "byte {place}: {error}");
        assert!(disk.rot(&file, place, 1));
    }
    assert!(read(&disk, &name, Depth::Samples, &mut |_, _| {}).is_ok());
    disk.open(&file)
        .unwrap()
        .truncate(MAX_READ_BYTES + 1)
        .unwrap();
    assert!(matches!(told(&disk), Unreadable::Damaged));
}

#[test]
fn names_of_other_files_are_no_letters() {
    let name = Name {
        at: UnixMicros(1),
        journal: JournalId(2),
        first: 3,
        last: 4,
        letters: 5,
    };
    assert_eq!(Name::parse(&name.to_string()), Some(name));
    let more = format!("{name}x");
    let upper = name.to_string().to_uppercase();
    for other in ["", ".letters", "a-b.letters", &more, &upper, "unfinished"] {
        assert_eq!(Name::parse(other), None, "{other}");
    }
}

/// A destination that refuses some numbers, some when it takes them and some when they are delivered,
/// and does not take now as often as it is told.
#[derive(Default)]
struct Picky {
    refuses_to_take: Vec<u64>,
    refuses_delivered: Vec<u64>,
    busy: Cell<u32>,
    taken: Vec<(u64, Vec<(Stream, SeqRange)>)>,
    has: Vec<u64>,
    position: u64,
    cursor: u64,
    covers: Covers,
}

impl Picky {
    fn is_busy(&self) -> Result<(), SinkError> {
        let busy = self.busy.get();
        self.busy.set(busy.saturating_sub(1));
        if busy == 0 {
            return Ok(());
        }
        Err(SinkError::Busy {
            retry_after: Some(Duration::from_secs(3_600)),
            cause: "not now".to_owned(),
        })
    }
}

impl Sink for Picky {
    fn take(&mut self, item: &Interpreted<'_>, _now: Now) -> Result<(), SinkError> {
        let seq = item.covers[0].1.first;
        if self.refuses_to_take.contains(&seq) {
            let (items, cause) = (Vec::new(), "still too wide".to_owned());
            return Err(SinkError::Refused { items, cause });
        }
        self.is_busy()?;
        self.taken.push((seq, item.covers.to_vec()));
        self.covers.add(item.covers);
        Ok(())
    }

    fn passed(&mut self, next: u64, _now: Now) {
        self.position = next;
    }

    fn due(&self, now: Millis) -> Due {
        match self.taken.len() {
            3.. => Due::Full,
            _ if self.position == self.cursor => Due::Never,
            _ => Due::At(now),
        }
    }

    fn deliver(&mut self, _now: Now) -> impl Future<Output = Result<Delivered, SinkError>> + Send {
        let refuses = |(seq, _): &(u64, _)| self.refuses_delivered.contains(seq);
        let left_out = self.taken.iter().position(refuses);
        ready(match left_out {
            Some(place) => {
                let (_, items) = self.taken.remove(place);
                let cause = "still odd".to_owned();
                Err(SinkError::Refused { items, cause })
            }
            None => self.is_busy().map(|()| {
                self.has.extend(self.taken.drain(..).map(|(seq, _)| seq));
                self.cursor = self.position;
                Delivered {
                    through: self.position,
                    streams: self.covers.take(),
                }
            }),
        })
    }
}

fn replayed(
    sink: &mut Picky,
    letters: &mut Letters<FakeDisk>,
) -> (Result<(u64, u64, u64), String>, Vec<Duration>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let pauses = RefCell::new(Vec::new());
    let around = Around {
        runtime: &runtime,
        clock: &|| at(5),
        pause: &|pause| pauses.borrow_mut().push(pause),
        progress: &|_, _| {},
    };
    let done = replay(sink, letters, Depth::Samples, &around);
    let done = done.map(|done| (done.taken, done.refused, done.unreadable));
    (done.map_err(|error| error.to_string()), pauses.into_inner())
}

#[test]
fn a_replay_takes_away_what_the_sink_has_and_keeps_what_it_refuses_again() {
    let rig = journal();
    let mut letters = Letters::open(FakeDisk::new()).unwrap();
    keep(&rig, &mut letters, &refused(&[(0, 5)]), 1);
    keep(&rig, &mut letters, &refused(&[(10, 15)]), 2);
    keep(&rig, &mut letters, &refused(&[(20, 22)]), 3);
    let last = *letters.files().last().unwrap();
    assert!(letters.disk().rot(&last.to_string(), 20, 1));
    let mut sink = Picky {
        refuses_to_take: vec![1],
        refuses_delivered: vec![3, 12],
        busy: Cell::new(2),
        ..Picky::default()
    };
    let (done, pauses) = replayed(&mut sink, &mut letters);
    assert_eq!(done, Ok((7, 3, 2)));
    assert_eq!(sink.has, [0, 2, 4, 10, 11, 13, 14]);
    // It asked for an hour.
    assert_eq!(pauses, [Duration::from_secs(30); 2]);
    assert_eq!(letters.look().kept, 5);
    let mut left = Vec::new();
    for name in letters.files().filter(|name| **name != last) {
        read(letters.disk(), name, Depth::Samples, &mut |head, item| {
            left.push((item.unwrap().covers[0].1.first, head.cause.to_owned()));
        })
        .unwrap();
    }
    let (wide, odd) = ("still too wide".to_owned(), "still odd".to_owned());
    assert_eq!(left, [(1, wide), (3, odd.clone()), (12, odd)]);
    // What it takes now is gone, and the folder says so after a crash as well.
    let mut letters = Letters::open(letters.disk().power_cut(1)).unwrap();
    let mut sink = Picky::default();
    assert_eq!(replayed(&mut sink, &mut letters).0, Ok((3, 0, 2)));
    assert_eq!(sink.has, [1, 3, 12]);
    assert_eq!(letters.look().kept, 2);
}

#[test]
fn a_replay_gives_up_on_a_sink_that_does_not_take_and_loses_no_letter() {
    let rig = journal();
    let mut letters = Letters::open(FakeDisk::new()).unwrap();
    keep(&rig, &mut letters, &refused(&[(0, 5)]), 1);
    let mut sink = Picky {
        busy: Cell::new(1_000),
        ..Picky::default()
    };
    let (done, pauses) = replayed(&mut sink, &mut letters);
    assert!(done.unwrap_err().contains("does not take"));
    assert_eq!(pauses.len(), 4);
    assert_eq!(letters.look().kept, 5);
}
