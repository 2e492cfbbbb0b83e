//! How the hot store comes back from nothing: filled from the lake, or from what the journal holds.

use std::sync::Arc;
use std::time::Duration;

use headwater_lake::{Claim, Flush, Lake, LocalStore, Rows, SampleRow, Settings, TimeClass};
use headwater_program::entropy::random;
use headwater_proto::ids::{DeviceId, Epoch, Lane, Stream};
use headwater_proto::sample::Value;
use headwater_spool::RealDisk;
use tokio::runtime::Runtime;

use super::*;
use crate::done::DoneInMemory;
use crate::metrics::Board;
use crate::owner::{Command, Mailbox};
use crate::pipeline::custody::{self, Custody, Event, SinkSpec};
use crate::sink::crew::Crew;
use crate::sink::hot::chunk::{StoredRow, StoredValue};
use crate::sink::hot::{HotRead, Kept};
use crate::sink::kind::Site;

const NAME: &str = "hot";
/// Rows that the lake has.
const ROWS: u32 = 40;
/// Where the lake ends in the journal.
const LAKE_END: u64 = 3;
const SETTINGS: HotSettings = HotSettings {
    keep_us: 3_600_000_000,
    max_bytes: 16 << 20,
    cache_bytes: 1 << 20,
};

struct Rig {
    folder: tempfile::TempDir,
    clock: Clock,
    runtime: Runtime,
}

impl Rig {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            clock: Clock::start(),
            runtime: Runtime::new().unwrap(),
        }
    }

    fn lake_dir(&self) -> PathBuf {
        self.folder.path().join("lake")
    }

    /// A lake with rows of the last minute.
    fn lake(&self) {
        let now = self.clock.now().wall.0;
        let store = LocalStore::new(&self.lake_dir()).unwrap();
        let journal = JournalId(77);
        let claim = Claim::new(journal, now);
        let mut lake = Lake::open(store, Settings::default(), &claim).unwrap();
        let mut rows = Rows::new();
        for row in 0..ROWS {
            let sample = SampleRow {
                device_id: "from-lake",
                metric: "level",
                ts_us: now - i64::from(row) * 1_000_000,
                value: Value::I64(row.into()),
                site: None,
                device_type: None,
                tags: None,
                ingest_us: now,
                lane: Lane::Normal,
                epoch: Epoch::new(1),
                seq: 0,
                row,
                batch_samples: ROWS,
                via: None,
                time_err_ms: None,
                time_class: TimeClass::Synced,
            };
            rows.push_sample(&sample).unwrap();
        }
        let flush = Flush {
            journal,
            first_pos: 0,
            last_pos: 1,
            rows: &rows,
            at_us: now,
            sinks: &[],
        };
        let plan = lake.stage(&flush).unwrap();
        lake.publish(&plan).unwrap();
        lake.commit(&plan).unwrap();
    }

    /// A lake whose log cannot be read.
    fn broken_lake(&self) {
        self.lake();
        let log = self.lake_dir().join("samples/_delta_log");
        for file in std::fs::read_dir(log).unwrap() {
            std::fs::write(file.unwrap().path(), "no log").unwrap();
        }
    }

    /// A journal of some records, and the lake that was there when it was opened.
    fn site(&self, is_required: bool) -> Site {
        let disk = RealDisk::open(&self.folder.path().join("journal")).unwrap();
        let spec = |name: &str, required| SinkSpec {
            name: name.to_owned(),
            required,
        };
        let settings = custody::Settings {
            sinks: vec![spec(lake::NAME, true), spec(NAME, is_required)],
            ..custody::Settings::default()
        };
        let done = Box::new(DoneInMemory::default());
        let (mut custody, _) = Custody::open(disk, settings, done, &mut random).unwrap();
        while custody.log().next() < LAKE_END + 2 {
            let plan = custody.log().next().to_le_bytes();
            custody
                .append_plan(&format!("sink {plan:?}"), &plan)
                .unwrap();
            custody.sync(self.clock.now()).unwrap();
        }
        custody.resume(lake::NAME, LAKE_END).unwrap();
        let mut site = Site::new(custody, self.clock, &self.folder.path().join("state"));
        site.leave(LakePlace::Folder(self.lake_dir()));
        site
    }

    /// Starts the store; `act` sees the site, and what its worker tells the owner of the journal.
    fn start<T>(
        &self,
        site: &mut Site,
        required: bool,
        act: impl FnOnce(&mut Site, Result<()>, &std::sync::mpsc::Receiver<Command>) -> T,
    ) -> T {
        let (mailbox, commands) = Mailbox::new();
        self.runtime.block_on(async {
            let mut crew = Crew::new(
                mailbox,
                Arc::new(Board::default()),
                self.clock,
                &self.folder.path().join("dead"),
            );
            let kind = HotKind {
                dir: None,
                settings: SETTINGS,
                freshness_ms: 1,
            };
            let start = Start {
                name: NAME.into(),
                required,
                site: &mut *site,
                crew: &mut crew,
            };
            let started = kind.start(start);
            let seen = act(site, started, &commands);
            drop(commands);
            let _ = crew.stop(Ok(())).await;
            seen
        })
    }

    fn beginning(&self) -> Beginning {
        Beginning {
            lake: Some(LakePlace::Folder(self.lake_dir())),
            lake_end: LAKE_END,
            journal: JournalId(77),
            is_required: false,
            clock: self.clock,
            book: ClockBook::default(),
        }
    }

    /// The store; sled gives its lock back a little after it was dropped.
    fn open(&self) -> HotStore {
        let folder = self.folder.path().join("alone");
        for _ in 0..100_000 {
            match HotStore::open(&folder, SETTINGS) {
                Ok((hot, _)) => return hot,
                Err(StateError::Database(_)) => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
        panic!("the store stays locked");
    }

    /// One that stands far on in a later time of the journal, with a row of that time.
    fn of_a_later_time(&self) -> HotStore {
        let mut hot = self.open();
        let row = StoredRow {
            metric: "level".to_owned(),
            labels: String::new(),
            time_us: self.clock.now().wall.0,
            value: StoredValue::I64(1),
        };
        let stream = Stream {
            device: DeviceId::new("from-lake").unwrap(),
            lane: Lane::Plain,
            epoch: Epoch::new(5),
        };
        let kept = hot.rows(&stream, 0, &[row], self.clock.now().wall);
        assert_eq!(kept.unwrap(), Kept::Stored);
        hot.commit(JournalId(77), 1_000).unwrap();
        assert_eq!(points(&hot.view()), 1);
        hot
    }
}

fn points(view: &crate::sink::hot::HotView) -> usize {
    let series = view.series("from-lake", "level", 0..i64::MAX, None, 1_000);
    series.unwrap().items.len()
}

#[test]
fn a_required_store_is_filled_before_custody_hears_of_it() {
    let rig = Rig::new();
    rig.lake();
    let mut site = rig.site(true);
    assert!(site.custody.cursor(NAME).unwrap() < LAKE_END);
    rig.start(&mut site, true, |site, started, _| {
        started.unwrap();
        assert_eq!(site.custody.cursor(NAME), Some(LAKE_END));
        let view = site.find::<crate::sink::hot::HotView>().unwrap();
        assert_eq!(points(view), ROWS as usize);
    });
}

#[test]
fn a_required_store_that_cannot_be_filled_ends_the_start_and_claims_nothing() {
    let rig = Rig::new();
    rig.broken_lake();
    let mut site = rig.site(true);
    let before = site.custody.cursor(NAME);
    rig.start(&mut site, true, |site, started, _| {
        let told = format!("{:#}", started.unwrap_err());
        assert!(told.starts_with("it is empty, and required"), "{told}");
        assert!(told.contains("the lake cannot be read: "), "{told}");
        assert_eq!(site.custody.cursor(NAME), before);
    });
}

#[test]
fn an_optional_store_tells_where_it_stands_once_it_is_filled() {
    for breaks in [false, true] {
        let rig = Rig::new();
        if breaks {
            rig.broken_lake();
        } else {
            rig.lake();
        }
        let mut site = rig.site(false);
        let before = site.custody.cursor(NAME);
        rig.start(&mut site, false, |site, started, commands| {
            started.unwrap();
            assert_eq!(site.custody.cursor(NAME), before);
            let told = commands.recv_timeout(Duration::from_secs(60)).unwrap();
            let Command::Commit { event, reply } = told else {
                panic!("the first word is no commit");
            };
            let view = site.find::<crate::sink::hot::HotView>().unwrap();
            let filled = if breaks { 0 } else { ROWS as usize };
            assert_eq!(points(view), filled);
            assert!(matches!(event, Event::Committed { .. }));
            site.custody.handle(event, rig.clock.now());
            reply.send(true).unwrap();
            if !breaks {
                assert!(site.custody.cursor(NAME) >= Some(LAKE_END));
            }
        });
    }
}

#[test]
fn a_store_of_a_later_time_is_emptied_before_it_is_filled() {
    let rig = Rig::new();
    rig.lake();
    let mut hot = rig.of_a_later_time();
    let begin = rig.beginning();
    // Killed, or told to stop, while it was filled: the next start fills it, however long the journal is.
    assert_eq!(begin.fill_or_not(&mut hot, &|| true).unwrap(), None);
    drop(hot);
    let mut hot = rig.open();
    assert_eq!(hot.cursor(JournalId(77)).unwrap(), None);
    let from = begin.fill_or_not(&mut hot, &|| false).unwrap();
    assert_eq!(from, Some(LAKE_END));
    drop(hot);
    let hot = rig.open();
    assert_eq!(hot.cursor(JournalId(77)).unwrap(), Some(LAKE_END));
    // Each row once, and nothing of before.
    assert_eq!(points(&hot.view()), ROWS as usize);
}

#[test]
fn a_store_that_cannot_be_filled_begins_empty_with_what_the_journal_holds() {
    let rig = Rig::new();
    rig.broken_lake();
    let mut hot = rig.of_a_later_time();
    let from = rig.beginning().fill_or_not(&mut hot, &|| false).unwrap();
    assert_eq!(from, Some(0));
    assert_eq!(points(&hot.view()), 0);
    assert_eq!(hot.cursor(JournalId(77)).unwrap(), None);
}
