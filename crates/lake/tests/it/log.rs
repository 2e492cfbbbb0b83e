//! The commit log: races, checkpoints, marks.

use headwater_lake::delta::{CHECKPOINT_VERSIONS, Log};
use headwater_lake::{LocalStore, MemStore, Rows, Store, Table};
use headwater_proto::ids::JournalId;

use crate::help::{JOURNAL, flush, flush_of, open, push_batches, read};

fn one_batch(seq: u64) -> Rows {
    let mut rows = Rows::new();
    push_batches(&mut rows, "d", seq..seq + 1);
    rows
}

#[test]
fn two_writers_that_race_for_a_version_both_commit() {
    let store = MemStore::new();
    let (mut ours, mut theirs) = (open(&store), open(&store));
    let their_journal = JournalId(2);
    for round in 0..5 {
        let rows = one_batch(round);
        let mut flush_of_theirs = flush_of((round, round), &rows);
        flush_of_theirs.journal = their_journal;
        let (plan, their_plan) = (
            ours.stage(&flush_of((round, round), &rows)).unwrap(),
            theirs.stage(&flush_of_theirs).unwrap(),
        );
        ours.publish(&plan).unwrap();
        theirs.publish(&their_plan).unwrap();
        theirs.commit(&their_plan).unwrap();
        ours.commit(&plan).unwrap();
        ours.commit(&plan).unwrap();
    }
    assert_eq!(read(&store, Table::Samples).len(), 20);
    let log = Log::load(&store, Table::Samples).unwrap();
    assert_eq!(log.version(), Some(10));
    assert_eq!(
        (
            log.mark(&JOURNAL.to_string()),
            log.mark(&their_journal.to_string())
        ),
        (Some(4), Some(4))
    );
}

#[test]
fn a_thread_each_on_a_real_folder_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for journal in 1..4 {
            let root = dir.path();
            scope.spawn(move || {
                let store = LocalStore::new(root).unwrap();
                let mut lake = headwater_lake::Lake::open(store, Default::default()).unwrap();
                for round in 0..5 {
                    let rows = one_batch(round);
                    let mut flush = flush_of((round, round), &rows);
                    flush.journal = JournalId(journal);
                    let plan = lake.stage(&flush).unwrap();
                    lake.publish(&plan).unwrap();
                    lake.commit(&plan).unwrap();
                    lake.finish(&plan).unwrap();
                }
            });
        }
    });
    let store = LocalStore::new(dir.path()).unwrap();
    let log = Log::load(&store, Table::Samples).unwrap();
    assert_eq!(log.version(), Some(15));
    assert_eq!(
        log.marks().map(|(_, mark)| mark).collect::<Vec<_>>(),
        [4, 4, 4]
    );
    assert_eq!(headwater_lake::guard::guard(&store).unwrap().rows, 30);
}

#[test]
fn after_a_checkpoint_the_versions_before_it_are_not_read() {
    let store = MemStore::new();
    let mut lake = open(&store);
    for round in 0..CHECKPOINT_VERSIONS + 20 {
        flush(&mut lake, (round, round), &one_batch(round));
    }
    let expected = read(&store, Table::Samples);
    assert_eq!(expected.len(), 240);
    for version in 0..CHECKPOINT_VERSIONS {
        store
            .delete(&format!("samples/_delta_log/{version:020}.json"))
            .unwrap();
    }
    assert_eq!(read(&store, Table::Samples), expected);
    let lake = open(&store);
    assert_eq!(lake.cursor(JOURNAL), Some(CHECKPOINT_VERSIONS + 19));
    assert_eq!(
        lake.log(Table::Samples).version(),
        Some(CHECKPOINT_VERSIONS + 20)
    );
}

#[test]
fn a_checkpoint_that_failed_is_written_by_a_later_commit() {
    let store = MemStore::new();
    let mut lake = open(&store);
    for round in 0..CHECKPOINT_VERSIONS - 1 {
        flush(&mut lake, (round, round), &one_batch(round));
    }
    let rows = one_batch(CHECKPOINT_VERSIONS);
    let plan = lake
        .stage(&flush_of((CHECKPOINT_VERSIONS, CHECKPOINT_VERSIONS), &rows))
        .unwrap();
    lake.publish(&plan).unwrap();
    store.crash_after(1);
    assert!(
        lake.commit(&plan).is_err(),
        "the version lands, the checkpoint does not"
    );
    store.restart();
    lake.commit(&plan).unwrap();
    let hint = store.get("samples/_delta_log/_last_checkpoint").unwrap();
    assert!(hint.starts_with(b"{\"version\":100,"), "{hint:?}");
}

#[test]
fn the_catalog_tells_rows_ranges_and_versions() {
    let store = MemStore::new();
    let mut lake = open(&store);
    flush(&mut lake, (0, 41), &one_batch(0));
    lake.write_catalog().unwrap();
    let catalog: serde_json::Value =
        serde_json::from_slice(&store.get("catalog.json").unwrap()).unwrap();
    let samples = &catalog["tables"][0];
    assert_eq!(samples["name"], "samples");
    assert_eq!(
        (&samples["rows"], &samples["version"]),
        (&2.into(), &1.into())
    );
    assert_eq!(samples["positions"][JOURNAL.to_string()], 41);
    assert_eq!(samples["first_day"], "2026-11-22");
}
