//! A start without the lake: devices are served, nothing is committed, and the lake is compared with
//! where the journal stood when that time began.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of a test: a failure is a failed test"
)]

mod common;

use common::{CONN, Rig, SAMPLES, at, bundle, hello, listed, settings};
use headwater_collector::interpret::{Depth, Feed};
use headwater_collector::pipeline::custody::{
    Custody, Event, JournalSide, NotAlone, Opened, Output, SinkSpec,
};
use headwater_collector::pipeline::ledger::{MAX_OLDER_PLAIN, plain_stream};
use headwater_collector::sink::SinkError;
use headwater_collector::sink::lake::late::{Late, Turn};
use headwater_collector::sink::lake::{JoinError, join};
use headwater_collector::sink::lake::{LakeSettings, NAME};
use headwater_lake::{Call, MemStore, Store as _, StoreError};
use headwater_proto::ids::{DeviceId, JournalId};
use headwater_proto::message::Welcome;
use headwater_spool::FakeDisk;

/// A rig whose lake was away at the start; its sink is that of a lake of nobody until they meet.
struct Alone {
    rig: Rig,
    late: Option<Late<FakeDisk>>,
}

fn lake_settings() -> LakeSettings {
    LakeSettings {
        flush_after_ms: 2_000,
        ..LakeSettings::default()
    }
}

/// Opens the journal on `disk` while nobody reaches the lake.
fn open_alone(rig: &Rig, disk: FakeDisk, seed: u64) -> Result<Alone, NotAlone> {
    let alone = open_while(rig, disk, seed, &|store| store.set_away(true))?;
    Ok(alone.expect("the lake was reached"))
}

/// Opens the journal on `disk` while the store fails as `fail` makes it; `None` if the lake was there.
fn open_while(
    rig: &Rig,
    disk: FakeDisk,
    seed: u64,
    fail: &dyn Fn(&MemStore),
) -> Result<Option<Alone>, NotAlone> {
    let mut next = seed;
    let mut entropy = || {
        next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        next
    };
    fail(&rig.store);
    let ms = rig.ms + 1_000;
    let (mut custody, opened) = open(rig, disk.clone(), &mut entropy);
    let store = rig.store.clone();
    let now = at(ms);
    let name = JournalId(entropy());
    let error = join(
        &mut custody,
        &opened,
        store,
        lake_settings(),
        now.wall,
        name,
    );
    let error = match error {
        Ok(_) => return Ok(None),
        Err(JoinError::Sink(error)) => error,
        Err(error) => panic!("{error}"),
    };
    assert!(error.is_outage(), "{error}");
    let journal = JournalSide::of(&custody, &opened, NAME);
    custody.begin_apart(&journal, &mut entropy)?;
    let reader = custody.reader();
    let late = Late::new(
        journal,
        lake_settings(),
        reader,
        error.into(),
        name,
        now,
        seed,
    );
    // What a rig flushes with is replaced once they meet.
    let other = Rig::new();
    let feed = Feed::new(custody.reader(), 0, Depth::Samples);
    let rig = Rig {
        disk,
        store: rig.store.clone(),
        done: rig.done.clone(),
        past: opened.past,
        custody,
        sink: other.sink,
        feed,
        ms,
        sent: Vec::new(),
    };
    Ok(Some(Alone {
        rig,
        late: Some(late),
    }))
}

/// With the sinks that the rig has.
fn open(
    rig: &Rig,
    disk: FakeDisk,
    entropy: &mut dyn FnMut() -> u64,
) -> (Custody<FakeDisk>, Opened) {
    let mut settings = settings();
    let others = rig
        .custody
        .cursors()
        .iter()
        .filter(|sink| sink.name != NAME);
    settings.sinks.extend(others.map(|sink| SinkSpec {
        name: sink.name.clone(),
        required: false,
    }));
    Custody::open(disk, settings, Box::new(rig.done.clone()), entropy).unwrap()
}

impl Alone {
    /// The same journal after a power cut, still without the lake.
    fn again(&self, seed: u64) -> Self {
        let disk = self.rig.disk.power_cut(1);
        open_alone(&self.rig, disk, seed).unwrap()
    }

    /// Tries the lake at its next turn.
    fn try_once(&mut self) -> Result<bool, SinkError> {
        let late = self.late.as_mut().unwrap();
        if let Turn::Wait(until) = late.next(self.rig.now().mono) {
            self.rig.ms += until.since(self.rig.now().mono);
        }
        let now = self.rig.now();
        match late.next(now.mono) {
            Turn::Try => {}
            Turn::Wait(until) => panic!("{until:?} has come"),
            Turn::Fatal(error) => return Err(error),
        }
        let (store, custody) = (self.rig.store.clone(), &mut self.rig.custody);
        let agreed = late.attempt(
            now,
            &mut || Ok::<_, StoreError>(store.clone()),
            &mut |journal, lake| {
                let met = custody.meet_lake(NAME, journal, lake, now.wall);
                met.map_err(|error| SinkError::Busy {
                    retry_after: None,
                    cause: error.to_string(),
                })
            },
            &mut || 0x5eed,
        );
        let Some((met, agreed)) = agreed else {
            return match self.late.as_ref().unwrap().next(now.mono) {
                Turn::Fatal(error) => Err(error),
                Turn::Try | Turn::Wait(_) => Ok(false),
            };
        };
        self.rig.sink = met.agreed(agreed);
        let from = self.rig.sink.position();
        self.rig.feed = Feed::new(self.rig.custody.reader(), from, Depth::Samples);
        self.rig.sync();
        Ok(true)
    }

    fn lake_is_back(mut self) -> Rig {
        self.rig.store.set_away(false);
        assert!(self.try_once().unwrap());
        self.rig
    }
}

fn greet(rig: &mut Rig, oldest: u64) {
    rig.connect("dev");
    rig.up(hello(&[listed(1, oldest, 1_000)]), 0);
    assert!(rig.sync());
}

/// A device whose records `first..next` are in the lake.
fn brings(rig: &mut Rig, first: u64, next: u64) {
    greet(rig, first);
    rig.up(bundle(1, first, next), 1);
    assert!(rig.sync());
    flush_all(rig);
}

fn flush_all(rig: &mut Rig) {
    for _ in 0..4 {
        rig.flush().unwrap();
        assert!(rig.sync());
    }
}

fn expect_whole(rig: &Rig, samples: u64) {
    let audit = rig.audit();
    assert!(audit.totals.is_good(), "{:?}", audit.totals);
    assert_eq!(audit.totals.counts.samples, samples, "{:?}", audit.streams);
}

#[test]
fn devices_are_served_without_the_lake_and_nothing_is_committed_until_it_is_back() {
    let mut rig = Rig::new();
    brings(&mut rig, 0, 10);
    let mut alone = open_alone(&rig, rig.disk.power_cut(1), 1).unwrap();
    greet(&mut alone.rig, 0);
    alone.rig.up(bundle(1, 10, 30), 2);
    alone.rig.plain("plain/m1/temp", "20.5", 7, false, 3);
    assert!(alone.rig.sync());
    assert_eq!(alone.rig.pubacks(), [0, 2, 3]);
    let mark = alone.rig.mark(1).unwrap();
    assert_eq!(mark.received, 30);
    assert!(mark.committed <= 10, "{mark:?}");
    for _ in 0..5 {
        assert!(!alone.try_once().unwrap());
    }
    let look = alone.late.as_ref().unwrap().look();
    assert!(look.why.unwrap().contains("cannot be reached"));
    let mut rig = alone.lake_is_back();
    assert_eq!(rig.custody.apart_since(), None);
    flush_all(&mut rig);
    assert_eq!(rig.mark(1).unwrap().committed, 30);
    expect_whole(&rig, 30 * SAMPLES + 1);
    // The next start reads nothing of a time apart.
    let disk = rig.disk.power_cut(2);
    let done = rig.done.clone();
    let journal = rig.custody.journal();
    let rig = Rig::start_with(disk, rig.store.clone(), done, settings(), rig.ms).unwrap();
    assert_eq!(rig.custody.journal(), journal);
    expect_whole(&rig, 30 * SAMPLES + 1);
}

#[test]
fn several_starts_without_the_lake_are_one_time_that_began_with_the_first() {
    let mut rig = Rig::new();
    brings(&mut rig, 0, 10);
    let mut alone = open_alone(&rig, rig.disk.power_cut(1), 1).unwrap();
    let since = alone.rig.custody.apart_since();
    assert_eq!(since, Some(rig.custody.log().next()));
    let mut epochs = vec![rig.custody.ledger().plain_epoch()];
    for (turn, first) in [10, 15, 20].into_iter().enumerate() {
        greet(&mut alone.rig, 0);
        alone.rig.up(bundle(1, first, first + 5), 2);
        let (id, token) = (u16::try_from(first).unwrap(), first);
        alone.rig.plain("plain/m1/temp", "20.5", id, false, token);
        assert!(alone.rig.sync());
        epochs.push(alone.rig.custody.ledger().plain_epoch());
        alone = alone.again(turn as u64 + 2);
        assert_eq!(alone.rig.custody.apart_since(), since);
    }
    // A number of a plain device is never given twice, whatever the disk shows.
    epochs.sort_unstable();
    epochs.dedup();
    assert_eq!(epochs.len(), 4);
    let mut rig = alone.lake_is_back();
    flush_all(&mut rig);
    expect_whole(&rig, 25 * SAMPLES + 3);
    // What is settled of earlier epochs is forgotten.
    assert_eq!(rig.custody.ledger().plain().count(), 0);
}

#[test]
fn an_old_copy_that_took_more_than_the_lake_has_seen_of_the_lost_time_loses_and_doubles_nothing() {
    let mut rig = Rig::new();
    brings(&mut rig, 0, 10);
    let old = rig.disk.process_killed();
    let journal = rig.custody.journal();
    rig.plain("plain/m1/temp", "20.5", 7, false, 2);
    brings(&mut rig, 10, 20);
    // The agent let go of 15 records: they are in the lake, and the old copy knows of 10.
    let mut alone = open_alone(&rig, old, 1).unwrap();
    greet(&mut alone.rig, 15);
    alone.rig.up(bundle(1, 15, 60), 3);
    for n in 0..30u16 {
        alone.rig.plain("plain/m1/temp", "21.5", 10 + n, false, 10);
    }
    assert!(alone.rig.sync());
    let taken = alone.rig.custody.log().next();
    assert!(taken > rig.custody.log().next(), "no more than was lost");
    // It dies and comes back without the lake once more.
    let mut alone = alone.again(2);
    greet(&mut alone.rig, 15);
    let mut rig = alone.lake_is_back();
    assert_ne!(rig.custody.journal(), journal);
    let closed = |output: &Output| matches!(output, Output::Close { conn, .. } if *conn == CONN);
    assert!(rig.sent.iter().any(closed), "marks of the old name go on");
    greet(&mut rig, 15);
    let welcomes: Vec<Welcome> = rig.messages();
    assert_eq!(welcomes.last().unwrap().journal, rig.custody.journal());
    flush_all(&mut rig);
    assert_eq!(rig.mark(1).unwrap().committed, 60);
    expect_whole(&rig, 60 * SAMPLES + 31);
    // Numbers that the lake has all along are not named as missing.
    assert_eq!(rig.audit().totals.counts.filled, 0);
    // The name and what was brought stay.
    let (journal, disk) = (rig.custody.journal(), rig.disk.power_cut(3));
    let done = rig.done.clone();
    let mut rig = Rig::start_with(disk, rig.store.clone(), done, settings(), rig.ms).unwrap();
    assert_eq!(rig.custody.journal(), journal);
    flush_all(&mut rig);
    expect_whole(&rig, 60 * SAMPLES + 31);
}

#[test]
fn an_old_copy_that_a_late_lake_renames_names_what_another_sink_may_lack() {
    let mut copied = settings();
    copied.sinks.push(SinkSpec {
        name: "copy".into(),
        required: false,
    });
    let mut rig = Rig::start(FakeDisk::new(), MemStore::new(), copied, 0).unwrap();
    brings(&mut rig, 0, 10);
    let old = rig.disk.process_killed();
    rig.handle(Event::Committed {
        sink: "copy".into(),
        through: rig.custody.log().durable(),
        streams: Vec::new(),
        refused: Vec::new(),
        damaged: 0,
    });
    rig.ms += 2_000;
    brings(&mut rig, 10, 20);
    rig.ms += 2_000;
    brings(&mut rig, 20, 30);
    let mut alone = open_alone(&rig, old, 1).unwrap();
    greet(&mut alone.rig, 30);
    alone.rig.up(bundle(1, 30, 40), 3);
    assert!(alone.rig.sync());
    let mut rig = alone.lake_is_back();
    flush_all(&mut rig);
    let mut named = std::collections::BTreeSet::new();
    headwater_lake::scan::gaps(&rig.store, |gap| {
        if let ("sink", "journal_lost", Some((first, last))) = (gap.stage, gap.reason, gap.seqs) {
            named.extend(first..=last);
        }
    })
    .unwrap();
    // A flush is the finest that is known: 10..20 came in the one that first said how far the copy was.
    let named: Vec<i64> = named.into_iter().collect();
    assert_eq!(named, (10..30).collect::<Vec<_>>());
    expect_whole(&rig, 40 * SAMPLES);
}

#[test]
fn an_old_copy_that_dies_at_any_moment_of_the_meeting_doubles_and_loses_nothing() {
    for operations in (0..120).step_by(3) {
        let mut rig = Rig::new();
        brings(&mut rig, 0, 10);
        let old = rig.disk.process_killed();
        brings(&mut rig, 10, 20);
        let mut alone = open_alone(&rig, old, 1).unwrap();
        greet(&mut alone.rig, 10);
        alone.rig.up(bundle(1, 10, 40), 2);
        alone.rig.plain("plain/m1/temp", "21.5", 9, false, 3);
        assert!(alone.rig.sync());
        alone.rig.store.set_away(false);
        if operations % 2 == 0 {
            alone.rig.store.crash_after_landing(operations);
        } else {
            alone.rig.disk.crash_after(operations / 6);
        }
        if alone.try_once().unwrap_or(false) {
            let _ = alone.rig.flush();
        }
        alone.rig.store.restart();
        let (disk, done) = (alone.rig.disk.power_cut(7), alone.rig.done.clone());
        let (store, ms) = (alone.rig.store.clone(), alone.rig.ms + 1_000);
        let mut rig = Rig::start_with(disk, store, done, settings(), ms).unwrap();
        greet(&mut rig, 10);
        rig.up(bundle(1, 10, 40), 2);
        assert!(rig.sync());
        flush_all(&mut rig);
        let audit = rig.audit();
        let samples = audit.totals.counts.samples;
        assert!(audit.totals.is_good(), "{operations}: {:?}", audit.streams);
        assert_eq!(samples, 40 * SAMPLES + 1, "{operations}");
    }
}

#[test]
fn a_copy_of_a_time_apart_that_was_brought_to_the_lake_since_brings_it_no_second_time() {
    let mut rig = Rig::new();
    brings(&mut rig, 0, 10);
    let mut alone = open_alone(&rig, rig.disk.power_cut(1), 1).unwrap();
    greet(&mut alone.rig, 0);
    alone.rig.up(bundle(1, 10, 20), 2);
    alone.rig.plain("plain/m1/temp", "20.5", 7, false, 3);
    assert!(alone.rig.sync());
    let copy = alone.rig.disk.process_killed();
    let mut rig = alone.lake_is_back();
    rig.plain("plain/m1/temp", "21.5", 8, false, 4);
    assert!(rig.sync());
    flush_all(&mut rig);
    expect_whole(&rig, 20 * SAMPLES + 2);
    // With the lake there from the start, and without it.
    let (store, done, ms) = (rig.store.fork(), rig.done.clone(), rig.ms);
    let disk = copy.process_killed();
    let mut early = Rig::start_with(disk, store, done, settings(), ms).unwrap();
    let mut late = open_alone(&rig, copy, 5).unwrap();
    greet(&mut late.rig, 0);
    late.rig.plain("plain/m1/temp", "22.5", 9, false, 5);
    assert!(late.rig.sync());
    let mut late = late.lake_is_back();
    early.connect("meter");
    early.plain("plain/m1/temp", "22.5", 9, false, 5);
    assert!(early.sync());
    for rig in [&mut early, &mut late] {
        flush_all(rig);
        expect_whole(rig, 20 * SAMPLES + 3);
    }
}

#[test]
fn what_another_journal_brought_meanwhile_is_left_out_also_after_a_kill() {
    let mut rig = Rig::new();
    brings(&mut rig, 0, 10);
    let journal = rig.custody.journal();
    let mut alone = open_alone(&rig, rig.disk.power_cut(1), 1).unwrap();
    greet(&mut alone.rig, 10);
    alone.rig.up(bundle(1, 10, 40), 2);
    assert!(alone.rig.sync());
    alone.rig.store.set_away(false);
    // Another collector takes the lake, is given some of it, and ends in order.
    let store = rig.store.clone();
    let mut other = Rig::start(FakeDisk::new(), store, settings(), rig.ms + 500).unwrap();
    brings(&mut other, 10, 25);
    let now_us = other.now().wall.0;
    other.sink.lake_mut().release(now_us).unwrap();
    let mut rig = alone.lake_is_back();
    assert_eq!(rig.custody.journal(), journal);
    greet(&mut rig, 10);
    assert_eq!(rig.mark(1).unwrap().committed, 25);
    // A snapshot says so, and the process is killed before the sink has passed those records.
    for seq in 40..70 {
        rig.up(bundle(1, seq, seq + 1), 3);
        assert!(rig.sync());
    }
    let (disk, done) = (rig.disk.power_cut(1), rig.done.clone());
    let mut rig = Rig::start_with(disk, rig.store.clone(), done, settings(), rig.ms).unwrap();
    flush_all(&mut rig);
    expect_whole(&rig, 70 * SAMPLES);
}

#[test]
fn a_lake_that_another_collector_holds_when_it_is_back_ends_this_one() {
    let mut rig = Rig::new();
    brings(&mut rig, 0, 10);
    let mut alone = open_alone(&rig, rig.disk.power_cut(1), 1).unwrap();
    alone.rig.store.set_away(false);
    let store = rig.store.clone();
    let mut other = Rig::start(FakeDisk::new(), store, settings(), rig.ms + 500).unwrap();
    brings(&mut other, 10, 12);
    other.sink.keep(other.now().wall).unwrap();
    let error = alone.try_once().unwrap_err();
    assert!(matches!(error, SinkError::Fatal { .. }), "{error}");
    assert!(error.to_string().contains("--take-over"), "{error}");
}

#[test]
fn a_lake_that_comes_back_with_a_hole_is_no_outage() {
    let mut rig = Rig::new();
    brings(&mut rig, 0, 10);
    let mut alone = open_alone(&rig, rig.disk.power_cut(1), 1).unwrap();
    alone.rig.store.set_away(false);
    let versions = rig.store.list("samples/_delta_log").unwrap();
    rig.store.delete(&versions.last().unwrap().path).unwrap();
    let error = alone.try_once().unwrap_err();
    assert!(matches!(error, SinkError::Fatal { .. }), "{error}");
    assert!(error.to_string().contains("is missing"), "{error}");
}

#[test]
fn a_lake_that_is_gone_when_it_is_looked_for_again_is_not_begun_anew() {
    let mut rig = Rig::new();
    brings(&mut rig, 0, 10);
    let mut alone = open_alone(&rig, rig.disk.power_cut(1), 1).unwrap();
    // The folder is there, and its disk is not mounted.
    alone.rig.store = MemStore::new();
    assert!(!alone.try_once().unwrap());
    let look = alone.late.as_ref().unwrap().look();
    assert_eq!(look.state.name(), "broken");
    assert!(look.why.unwrap().contains("is its disk mounted"));
    let writes = [Call::Swap, Call::PutIfAbsent, Call::Replace, Call::Stage];
    let written = writes.map(|kind| alone.rig.store.calls(kind));
    assert_eq!(written, [0; 4], "it is only looked at");
    alone.rig.store = rig.store.clone();
    let mut rig = alone.lake_is_back();
    flush_all(&mut rig);
    expect_whole(&rig, 10 * SAMPLES);
}

#[test]
fn a_lake_that_is_not_there_at_a_start_is_begun_anew_only_if_an_operator_says_so() {
    let mut rig = Rig::new();
    brings(&mut rig, 0, 10);
    let disk = rig.disk.power_cut(1);
    let (mut custody, opened) = open(&rig, disk, &mut || 7);
    let mut begin = |new_lake| {
        let settings = LakeSettings {
            new_lake,
            ..lake_settings()
        };
        let (store, name) = (MemStore::new(), JournalId(7));
        join(&mut custody, &opened, store, settings, at(9_000).wall, name)
    };
    match begin(false) {
        Err(JoinError::Sink(error)) => assert!(error.is_outage(), "{error}"),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("the place of the lake was empty"),
    }
    assert!(begin(true).is_ok());
}

#[test]
fn a_first_try_that_failed_half_way_under_a_new_name_is_no_other_collectors() {
    let mut half_way = 0;
    for operations in 0.. {
        let mut rig = Rig::new();
        brings(&mut rig, 0, 10);
        let old = rig.disk.process_killed();
        brings(&mut rig, 10, 20);
        rig.sink.lake_mut().release(at(rig.ms).wall.0).unwrap();
        let fail = |store: &MemStore| store.crash_after_landing(operations);
        let Some(mut alone) = open_while(&rig, old, 1, &fail).unwrap() else {
            break;
        };
        half_way += 1;
        alone.rig.store.restart();
        while !alone
            .try_once()
            .unwrap_or_else(|error| panic!("{operations}: {error}"))
        {}
        expect_whole(&alone.rig, 20 * SAMPLES);
    }
    assert!(half_way > 10, "{half_way}");
}

#[test]
fn a_journal_that_does_not_know_its_past_serves_nobody_alone() {
    let why = |rig: &Rig, disk| match open_alone(rig, disk, 3) {
        Ok(_) => panic!("it serves"),
        Err(why) => why,
    };
    let mut rig = Rig::new();
    assert_eq!(why(&rig, FakeDisk::new()), NotAlone::New);
    rig.store.set_away(false);
    brings(&mut rig, 0, 10);
    let names = headwater_spool::Disk::list(&rig.disk.process_killed()).unwrap();
    let rotten = rig.disk.power_cut(1);
    for name in &names {
        rotten.rot(name, 64, 1);
    }
    assert_eq!(why(&rig, rotten), NotAlone::Damaged);
    let whole = std::mem::take(&mut rig.done);
    let disk = rig.disk.power_cut(1);
    assert_eq!(why(&rig, disk), NotAlone::Index);
    rig.done = whole;
    assert!(open_alone(&rig, rig.disk.power_cut(1), 3).is_ok());
}

#[test]
fn too_many_counters_of_plain_devices_from_before_are_told() {
    let mut rig = Rig::new();
    brings(&mut rig, 0, 1);
    let disk = rig.disk.power_cut(1);
    let (mut custody, opened) = open(&rig, disk, &mut || 7);
    let journal = JournalSide::of(&custody, &opened, NAME);
    let epoch = custody.ledger().plain_epoch();
    for n in 0..=MAX_OLDER_PLAIN {
        let device = DeviceId::new(&format!("m{n}")).unwrap();
        let mut alone = || custody.begin_apart(&journal, &mut || 9);
        if n == MAX_OLDER_PLAIN {
            assert_eq!(alone(), Ok(()));
        }
        custody.seed_plain(&plain_stream(&device, epoch), &[], 1);
    }
    let alone = custody.begin_apart(&journal, &mut || 11);
    assert_eq!(alone, Err(NotAlone::Plain));
}
