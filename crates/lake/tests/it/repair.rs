//! What `lake repair` makes anew of a lake that lost some of its objects, and what it leaves alone.

use std::collections::BTreeMap;

use headwater_lake::audit::{Totals, audit, marks};
use headwater_lake::guard::guard;
use headwater_lake::repair::{Options, Repaired, repair};
use headwater_lake::{
    Claim, EpochState, HEAD_PATH, Lake, LakeError, MARKS_PATH, MemStore, OWNER_PATH, Plan, Rows,
    Settings, Store, Table,
};
use headwater_proto::ids::JournalId;

use crate::help::{
    MIDNIGHT_US, claim, device, epoch, flush_of, gap, line, push_batches, read, stream, takeover,
};

const OTHER: JournalId = JournalId(0xdef);
const REPAIRER: JournalId = JournalId(0x777);
const FLUSHES: u64 = 10;

fn settings() -> Settings {
    Settings {
        checkpoint_versions: 4,
        ..Settings::default()
    }
}

fn options() -> Options {
    Options {
        settings: settings(),
        claim: Claim::new(REPAIRER, MIDNIGHT_US + 120_000_000),
        committed: None,
        drop_missing: false,
        dry_run: false,
    }
}

/// Rows of all tables that a flush may have, in some flushes of fewer.
fn rows_of(seq: u64) -> Rows {
    let mut rows = Rows::new();
    push_batches(&mut rows, "d", seq..seq + 1);
    if !seq.is_multiple_of(3) {
        rows.push_log(line(&stream("l"), seq, 0)).unwrap();
        rows.push_gap(gap(&stream("g"), seq, seq)).unwrap();
    }
    rows.push_epoch(epoch(&stream("d"), seq + 1, EpochState::Open))
        .unwrap();
    if seq < 2 {
        rows.push_device(device("d")).unwrap();
    }
    rows
}

fn flush(lake: &mut Lake<MemStore>, at: u64) -> Plan {
    let rows = rows_of(at);
    let mut flush = flush_of((at, at), &rows);
    flush.journal = lake.owner().journal;
    flush.at_us += i64::try_from(at).unwrap() * 1_000_000;
    let plan = lake.stage(&flush).unwrap();
    lake.publish(&plan).unwrap();
    lake.commit(&plan).unwrap();
    lake.finish(&plan).unwrap();
    plan
}

/// Five flushes of one journal, then as many of another.
fn lake() -> MemStore {
    let store = MemStore::new();
    let mut lake = Lake::open(store.clone(), settings(), &claim()).unwrap();
    (0..FLUSHES / 2).for_each(|at| drop(flush(&mut lake, at)));
    let mut lake = Lake::open(store.clone(), settings(), &takeover(OTHER)).unwrap();
    (FLUSHES / 2..FLUSHES).for_each(|at| drop(flush(&mut lake, at)));
    lake.write_catalog().unwrap();
    lake.release(MIDNIGHT_US).unwrap();
    assert_eq!(guard(&store).unwrap().faults, []);
    store
}

fn totals(store: &MemStore) -> Totals {
    audit(store).unwrap().totals
}

type Tables = BTreeMap<Table, Vec<BTreeMap<String, String>>>;

fn tables(store: &MemStore) -> Tables {
    let sorted = |table| {
        let mut rows = read(store, table);
        rows.sort();
        rows
    };
    Table::ALL.into_iter().map(|t| (t, sorted(t))).collect()
}

/// The lake is what it was, and its collector goes on without loss or doubles.
fn expect_whole(store: &MemStore, before: &MemStore, what: &str) {
    assert_eq!(guard(store).unwrap().faults, [], "{what}");
    assert_eq!(totals(store), totals(before), "{what}");
    assert_eq!(tables(store), tables(before), "{what}");
    let now = Claim::new(OTHER, MIDNIGHT_US + 130_000_000);
    let mut lake = Lake::open(store.clone(), settings(), &now).unwrap();
    lake.recover(OTHER, None).unwrap();
    assert_eq!(lake.sweep().unwrap().orphans, 0, "{what}");
    assert_eq!(lake.cursor(OTHER), Some(FLUSHES - 1), "{what}");
    assert_eq!(lake.marks().unwrap(), marks(before).unwrap(), "{what}");
    flush(&mut lake, FLUSHES);
    assert_eq!(guard(store).unwrap().faults, [], "{what}");
    assert!(totals(store).is_good(), "{what}");
}

fn content(store: &MemStore) -> Vec<(String, bytes::Bytes)> {
    let paths = store.list("").unwrap().into_iter().map(|entry| entry.path);
    paths
        .map(|path| (path.clone(), store.get(&path).unwrap()))
        .collect()
}

fn log_objects(store: &MemStore) -> Vec<String> {
    let all = store.list("").unwrap().into_iter().map(|entry| entry.path);
    all.filter(|path| path.contains("_delta_log")).collect()
}

fn run(store: &MemStore, options: &Options, what: &str) -> Repaired {
    let repaired = repair(store.clone(), options).unwrap();
    assert_eq!(repaired.open_holes, [""; 0], "{what}");
    repaired
}

#[test]
fn every_object_of_every_log_is_made_anew_with_the_same_bytes() {
    let whole = lake();
    for path in log_objects(&whole) {
        let store = whole.fork();
        store.delete(&path).unwrap();
        let repaired = run(&store, &options(), &path);
        assert_eq!(
            (repaired.missing_count, repaired.left.len()),
            (0, 0),
            "{path}"
        );
        // The beginning of a log that a checkpoint covers may be cleaned away.
        let is_first = path.ends_with(&format!("{:020}.json", 0));
        if path.ends_with(".json") && !(is_first && repaired.versions.is_empty()) {
            assert_eq!(repaired.versions, [path.as_str()]);
            assert_eq!(
                store.get(&path).unwrap(),
                whole.get(&path).unwrap(),
                "{path}"
            );
            assert_eq!(repaired.rechained, 0, "{path}");
        }
        expect_whole(&store, &whole, &path);
    }
}

#[test]
fn what_the_journal_knows_stands_in_for_head_marks_and_catalog() {
    let whole = lake();
    let known = Options {
        committed: Some((OTHER, FLUSHES)),
        ..options()
    };
    for path in log_objects(&whole).into_iter().step_by(3) {
        let store = whole.fork();
        for lost in [&path, HEAD_PATH, MARKS_PATH, OWNER_PATH, "catalog.json"] {
            store.delete(lost).unwrap();
        }
        run(&store, &known, &path);
        // What was removed besides is made anew.
        assert!(store.get("catalog.json").is_ok() && store.get(MARKS_PATH).is_ok());
        expect_whole(&store, &whole, &path);
    }
}

#[test]
fn logs_that_are_lost_as_a_whole_are_made_anew_from_the_files() {
    let whole = lake();
    let lost = |store: &MemStore, tables: &[Table]| {
        for table in tables {
            for entry in store.list(&format!("{}/_delta_log", table.name())).unwrap() {
                store.delete(&entry.path).unwrap();
            }
        }
    };
    let options = options();
    let known = Options {
        committed: Some((OTHER, FLUSHES)),
        ..options
    };
    let mut sets: Vec<Vec<Table>> = Table::ALL.into_iter().map(|table| vec![table]).collect();
    sets.push(Table::ALL.to_vec());
    for tables in sets {
        for has_head in [true, false] {
            let store = whole.fork();
            lost(&store, &tables);
            if !has_head {
                store.delete(HEAD_PATH).unwrap();
                store.delete("catalog.json").unwrap();
                store.delete(MARKS_PATH).unwrap();
            }
            let what = format!("{tables:?}, head {has_head}");
            let repaired = run(&store, if has_head { &options } else { &known }, &what);
            if !has_head && tables.len() > 1 {
                // Nothing is left that tells whether the last flush of the earlier journal was committed.
                assert_eq!(repaired.left.len(), 4, "{what}: {repaired:?}");
                assert_eq!(totals(&store).counts.unexplained, 1);
                assert_eq!(guard(&store).unwrap().orphan_count, 4);
                continue;
            }
            expect_whole(&store, &whole, &what);
        }
    }
}

#[test]
fn a_lake_that_lacks_nothing_is_left_alone_and_a_dry_run_writes_nothing() {
    let whole = lake();
    let store = whole.fork();
    assert_eq!(run(&store, &options(), ""), Repaired::default());
    assert_eq!(content(&store), content(&whole));
    let path = format!("samples/_delta_log/{:020}.json", 5);
    store.delete(&path).unwrap();
    let before = content(&store);
    let dry = Options {
        dry_run: true,
        ..options()
    };
    let told = run(&store, &dry, "");
    assert_eq!(content(&store), before);
    assert_eq!(told, run(&store, &options(), ""));
    assert_eq!((told.files, told.rows), (1, 2));
    expect_whole(&store, &whole, "");
}

#[test]
fn a_living_owner_is_not_disturbed() {
    let store = lake();
    let now = Claim::new(OTHER, MIDNIGHT_US + 119_000_000);
    Lake::open(store.clone(), settings(), &now).unwrap();
    let refused = repair(store, &options());
    assert!(matches!(refused, Err(LakeError::Owned { .. })));
}

/// One more flush of the second journal, published and not committed.
fn publish_alone(store: &MemStore) -> Plan {
    let now = Claim::new(OTHER, MIDNIGHT_US + 1);
    let mut begun = Lake::open(store.clone(), settings(), &now).unwrap();
    let rows = rows_of(FLUSHES);
    let mut cut_off = flush_of((FLUSHES, FLUSHES), &rows);
    cut_off.journal = OTHER;
    let plan = begun.stage(&cut_off).unwrap();
    begun.publish(&plan).unwrap();
    begun.release(MIDNIGHT_US).unwrap();
    plan
}

/// A flush that was published, and of which the commit was cut off before any table had it, brings its
/// records once, whatever is lost beside it.
#[test]
fn what_was_never_committed_is_not_taken_in() {
    let whole = lake();
    let plan = publish_alone(&whole);
    for lost in log_objects(&whole) {
        let store = whole.fork();
        store.delete(&lost).unwrap();
        let repaired = repair(store.clone(), &options()).unwrap();
        assert_eq!(repaired.open_holes, [""; 0], "{lost}");
        assert_eq!(
            repaired.left.len(),
            plan.files.len(),
            "{lost}: {repaired:?}"
        );
        assert_eq!(tables(&store), tables(&whole), "{lost}");
        let now = Claim::new(OTHER, MIDNIGHT_US + 130_000_000);
        let mut lake = Lake::open(store.clone(), settings(), &now).unwrap();
        lake.recover(OTHER, Some(&plan)).unwrap();
        assert_eq!(
            read(&store, Table::Samples).len() as u64,
            2 * (FLUSHES + 1),
            "{lost}"
        );
        assert!(totals(&store).is_good(), "{lost}");
        assert_eq!(guard(&store).unwrap().faults, [], "{lost}");
    }
}

#[test]
fn two_flushes_for_one_missing_version_are_left_to_the_operator() {
    let whole = lake();
    let plan = publish_alone(&whole);
    // The last flush of the earlier journal, or the one that was cut off: the head counts versions alone.
    whole.delete("catalog.json").unwrap();
    for path in log_objects(&whole) {
        whole.delete(&path).unwrap();
    }
    let before = content(&whole);
    let repaired = repair(whole.clone(), &options()).unwrap();
    assert!(!repaired.is_whole() && !repaired.open_holes.is_empty());
    assert_eq!(content(&whole), before);
    // Without that one all is clear.
    for path in plan.paths() {
        whole.set_aside(&path, &format!("aside/{path}")).unwrap();
    }
    let repaired = run(&whole, &options(), "");
    // Where the term rose stands in no log any more.
    assert_eq!((repaired.missing_count, repaired.is_whole()), (0, false));
    assert_eq!(read(&whole, Table::Samples).len() as u64, 2 * FLUSHES);
    assert!(totals(&whole).is_good());
}

#[test]
fn after_a_prune_a_missing_version_alone_proves_no_file() {
    let store = lake();
    let now = Claim::new(OTHER, MIDNIGHT_US + 1);
    let mut begun = Lake::open(store.clone(), settings(), &now).unwrap();
    let rows = rows_of(FLUSHES);
    let mut cut_off = flush_of((FLUSHES, FLUSHES), &rows);
    cut_off.journal = OTHER;
    let plan = begun.stage(&cut_off).unwrap();
    begun.publish(&plan).unwrap();
    begun.release(MIDNIGHT_US).unwrap();
    // As prune commits: the files of a date that is gone, and nothing else.
    let next = format!("samples/_delta_log/{:020}.json", FLUSHES + 2);
    let pruned = headwater_lake::prune::prune(&store, 1, MIDNIGHT_US + 86_400_000_000).unwrap();
    assert!(pruned.files > 0 && store.get(&next).is_ok());
    begun = Lake::open(store.clone(), settings(), &now).unwrap();
    begun.release(MIDNIGHT_US).unwrap();
    store.delete(&next).unwrap();
    let repaired = repair(store.clone(), &options()).unwrap();
    assert!(
        repaired.left.contains(&plan.paths().next().unwrap()),
        "{repaired:?}"
    );
}

/// A version that differs from the one that was lost, for nothing tells when it was made, is named by those
/// after it.
#[test]
fn versions_after_one_that_differs_name_its_hash() {
    let whole = lake();
    let store = whole.fork();
    // One flush, in all its tables, since the last checkpoints.
    for (table, version) in [("samples", 9), ("epochs", 9), ("logs", 6), ("gaps", 6)] {
        let path = format!("{table}/_delta_log/{version:020}.json");
        store.delete(&path).unwrap();
    }
    let repaired = run(&store, &options(), "");
    assert_eq!(
        (repaired.version_count, repaired.rechained),
        (4, 6),
        "{repaired:?}"
    );
    expect_whole(&store, &whole, "");
}

#[test]
fn a_version_that_cannot_be_read_is_set_aside_and_made_anew() {
    let whole = lake();
    for path in log_objects(&whole)
        .into_iter()
        .filter(|p| p.contains("samples"))
    {
        let store = whole.fork();
        store.replace(&path, b"garbage").unwrap();
        run(&store, &options(), &path);
        expect_whole(&store, &whole, &path);
    }
}

#[test]
fn a_file_that_is_gone_is_named_and_leaves_the_log_only_on_demand() {
    let whole = lake();
    let store = whole.fork();
    let path = store.list("samples/hot").unwrap().remove(3).path;
    store.delete(&path).unwrap();
    let repaired = run(&store, &options(), "");
    assert_eq!((repaired.missing_count, repaired.dropped), (1, false));
    assert_eq!(
        (&repaired.missing[0].path, repaired.missing[0].rows),
        (&path, 2)
    );
    assert!(!repaired.is_whole());
    assert!(
        guard(&store)
            .unwrap()
            .faults
            .iter()
            .any(|fault| fault.path == path)
    );
    let drops = Options {
        drop_missing: true,
        ..options()
    };
    assert!(run(&store, &drops, "").is_whole());
    assert_eq!(guard(&store).unwrap().faults, []);
    // Nobody takes the lake for complete.
    let mut lake = Lake::open(store.clone(), settings(), &takeover(OTHER)).unwrap();
    let rows = {
        let mut rows = Rows::new();
        rows.push_epoch(epoch(&stream("d"), FLUSHES, EpochState::Closed))
            .unwrap();
        rows
    };
    let mut last = flush_of((FLUSHES, FLUSHES), &rows);
    last.journal = OTHER;
    let plan = lake.stage(&last).unwrap();
    lake.publish(&plan).unwrap();
    lake.commit(&plan).unwrap();
    let found = totals(&store);
    assert_eq!((found.counts.unexplained, found.is_good()), (1, false));
    assert_eq!(lake.marks().unwrap(), marks(&store).unwrap());
}

#[test]
fn a_repair_that_is_cut_off_anywhere_is_finished_by_the_next() {
    let whole = lake();
    let broken = whole.fork();
    for (table, version) in [("samples", 5), ("epochs", 8)] {
        let path = format!("{table}/_delta_log/{version:020}.json");
        broken.delete(&path).unwrap();
    }
    for entry in broken.list("gaps/_delta_log").unwrap() {
        broken.delete(&entry.path).unwrap();
    }
    let at_once = broken.fork();
    run(&at_once, &options(), "");
    for cut in 0..at_once.operations() {
        let store = broken.fork();
        store.crash_after(cut);
        let _ = repair(store.clone(), &options());
        store.restart();
        let what = format!("cut {cut}");
        run(&store, &options(), &what);
        if cut % 8 == 0 {
            expect_whole(&store, &whole, &what);
        } else {
            assert_eq!(guard(&store).unwrap().faults, [], "{what}");
        }
    }
}

#[test]
fn a_version_that_was_lost_together_with_its_files_does_not_make_a_whole_lake() {
    let whole = lake();
    let is_newest = |path: &str| {
        let folder = format!("{}/hot/", Table::Samples.name());
        path.starts_with(&folder) && path.contains(&format!("-{:020}-", FLUSHES - 1))
    };
    let store = whole.fork();
    let mut lost = Vec::new();
    for entry in store.list("").unwrap() {
        if is_newest(&entry.path) {
            lost.push(entry.path);
        }
    }
    let versions = log_objects(&whole);
    let of_samples = versions
        .iter()
        .filter(|p| p.starts_with("samples/") && p.ends_with(".json"));
    lost.push(of_samples.max().unwrap().clone());
    assert!(lost.len() >= 2, "{lost:?}");
    lost.iter().for_each(|path| store.delete(path).unwrap());
    let repaired = run(&store, &options(), "the newest flush");
    assert_eq!((repaired.unknown, repaired.is_whole()), (1, false));
    assert!(!totals(&store).is_good());
}

#[test]
fn versions_in_a_row_are_made_anew_also_around_a_checkpoint() {
    let before = lake();
    for table in [Table::Samples, Table::Logs, Table::Epochs] {
        let versions: Vec<String> = log_objects(&before)
            .into_iter()
            .filter(|path| path.starts_with(table.name()) && path.ends_with(".json"))
            .collect();
        // The beginning of a log that a checkpoint covers may be cleaned away.
        for lost in versions[1..].windows(3) {
            let store = before.fork();
            for path in lost {
                store.delete(path).unwrap();
            }
            let what = format!("{lost:?}");
            let repaired = run(&store, &options(), &what);
            assert!(repaired.is_whole(), "{what}: {repaired:?}");
            // A takeover stands where it stood.
            for path in lost {
                assert_eq!(
                    store.get(path).unwrap(),
                    before.get(path).unwrap(),
                    "{what}"
                );
            }
            expect_whole(&store, &before, &what);
        }
    }
}

#[test]
fn a_checkpoint_that_nothing_points_to_stands_for_the_versions_that_were_cleaned_away() {
    let before = lake();
    let store = before.fork();
    let log = "samples/_delta_log";
    let newest = log_objects(&store)
        .into_iter()
        .filter_map(|path| {
            let name = path.strip_prefix(log)?.strip_prefix('/')?;
            name.strip_suffix(".checkpoint.parquet")?
                .parse::<u64>()
                .ok()
        })
        .max()
        .unwrap();
    for version in 0..newest {
        store.delete(&format!("{log}/{version:020}.json")).unwrap();
    }
    for lost in [HEAD_PATH, MARKS_PATH, &format!("{log}/_last_checkpoint")] {
        store.delete(lost).unwrap();
    }
    let repaired = run(&store, &options(), "cleaned away");
    assert!(repaired.is_whole(), "{repaired:?}");
    assert_eq!(guard(&store).unwrap().faults, []);
    assert_eq!(totals(&store), totals(&before));
    assert_eq!(tables(&store), tables(&before));
}

/// Takeovers leave no file, so nothing but the checkpoint tells that the last flush stood behind it.
#[test]
fn a_flush_behind_a_checkpoint_stays_behind_it() {
    let store = lake();
    let of_samples = |path: &String| path.starts_with("samples/") && path.ends_with(".json");
    let known = log_objects(&store).into_iter().filter(of_samples).count();
    for owner in [JournalId(0xaaa), JournalId(0xbbb)] {
        let mut lake = Lake::open(store.clone(), settings(), &takeover(owner)).unwrap();
        if owner == JournalId(0xbbb) {
            (FLUSHES..FLUSHES + 2).for_each(|at| drop(flush(&mut lake, at)));
            lake.release(MIDNIGHT_US).unwrap();
        }
    }
    let versions: Vec<_> = log_objects(&store).into_iter().filter(of_samples).collect();
    let [first, second, amid, last] = &versions[known..] else {
        panic!("{versions:?}")
    };
    let checkpoint = amid.replace(".json", ".checkpoint.parquet");
    store.get(&checkpoint).unwrap();
    let before = store.fork();
    for path in [first, second, amid, last] {
        store.delete(path).unwrap();
    }
    let repairer = Options {
        claim: takeover(REPAIRER),
        ..options()
    };
    run(&store, &repairer, "around a checkpoint");
    let file = |store: &MemStore| {
        let version = String::from_utf8(store.get(last).unwrap().to_vec()).unwrap();
        let add = version.lines().find(|line| line.contains("\"add\""));
        let add: serde_json::Value = serde_json::from_str(add?).unwrap();
        add["add"]["path"].as_str().map(str::to_owned)
    };
    assert!(file(&before).is_some());
    assert_eq!(file(&store), file(&before));
    assert_eq!(totals(&store), totals(&before));
    assert_eq!(tables(&store), tables(&before));
}

#[test]
fn a_flush_that_was_published_again_after_a_takeover_is_taken_once() {
    let before = lake();
    for owner in [JournalId(0xaaa), JournalId(0xbbb)] {
        drop(Lake::open(before.clone(), settings(), &takeover(owner)).unwrap());
    }
    // The last flush, as it stands in the log, was published by the last owner too.
    let paths = before.list("samples/hot").unwrap();
    let of_flush = |path: &str| path.contains(&format!("{:020}-{:020}-", FLUSHES - 1, FLUSHES - 1));
    let path = paths.iter().find(|entry| of_flush(&entry.path)).unwrap();
    let again = path.path.replace("-2.parquet", "-4.parquet");
    assert_ne!(again, path.path);
    before
        .put_if_absent(&again, &before.get(&path.path).unwrap())
        .unwrap();
    let mut versions: Vec<String> = log_objects(&before)
        .into_iter()
        .filter(|path| path.starts_with("samples/") && path.ends_with(".json"))
        .collect();
    versions.sort();
    let store = before.fork();
    let lost = &versions[versions.len() - 3];
    store.delete(lost).unwrap();
    let repairer = Options {
        claim: takeover(REPAIRER),
        ..options()
    };
    let repaired = run(&store, &repairer, "published again");
    assert_eq!(repaired.versions, [lost.as_str()], "{repaired:?}");
    assert_eq!(totals(&store), totals(&before));
    assert_eq!(tables(&store), tables(&before));
}
