//! The commit log: races, checkpoints, marks.

use headwater_lake::delta::CHECKPOINT_VERSIONS;
use headwater_lake::{Claim, Lake, LakeError, LocalStore, MemStore, Rows, Settings, Store, Table};
use headwater_proto::ids::JournalId;

use crate::help::{JOURNAL, MIDNIGHT_US, flush, flush_of, open, push_batches, read};

fn one_batch(seq: u64) -> Rows {
    let mut rows = Rows::new();
    push_batches(&mut rows, "d", seq..seq + 1);
    rows
}

#[test]
fn commits_of_a_command_stand_between_those_of_the_owner() {
    let store = MemStore::new();
    let mut lake = open(&store);
    for day in 0..3 {
        let mut rows = one_batch(day);
        let mut old = crate::help::sample("old", day, 0, headwater_proto::sample::Value::I64(1));
        old.ts_us -= 86_400_000_000;
        rows.push_sample(&old).unwrap();
        let plan = lake.stage(&flush_of((day, day), &rows)).unwrap();
        lake.publish(&plan).unwrap();
        // It removes what came to the day before, and names it in a gap.
        headwater_lake::prune::prune(&store, 1, MIDNIGHT_US).unwrap();
        lake.commit(&plan).unwrap();
        lake.commit(&plan).unwrap();
    }
    assert_eq!(read(&store, Table::Samples).len(), 2 * 3 + 1);
    assert_eq!(lake.log(Table::Samples).version(), Some(3 + 2));
    lake.write_catalog().unwrap();
    let found = headwater_lake::guard::guard(&store).unwrap();
    assert_eq!(found.faults, []);
    assert_eq!(found.rows, 7 + 2);
}

#[test]
fn of_several_collectors_on_a_real_folder_one_writes_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let turns: u64 = std::thread::scope(|scope| {
        let collectors: Vec<_> = (1..4)
            .map(|journal| {
                let root = dir.path();
                scope.spawn(move || {
                    let claim = Claim::new(JournalId(journal), MIDNIGHT_US);
                    let mut turns = 0;
                    for round in 0..5 {
                        let store = LocalStore::new(root).unwrap();
                        let mut lake = match Lake::open(store, Settings::default(), &claim) {
                            Ok(lake) => lake,
                            Err(LakeError::Owned { .. } | LakeError::Fenced { .. }) => continue,
                            Err(error) => panic!("{error}"),
                        };
                        let rows = one_batch(round);
                        let mut flush = flush_of((round, round), &rows);
                        flush.journal = JournalId(journal);
                        let plan = lake.stage(&flush).unwrap();
                        lake.publish(&plan).unwrap();
                        lake.commit(&plan).unwrap();
                        lake.finish(&plan).unwrap();
                        lake.release(MIDNIGHT_US).unwrap();
                        turns += 1;
                    }
                    turns
                })
            })
            .collect();
        collectors.into_iter().map(|c| c.join().unwrap()).sum()
    });
    assert!(turns > 0);
    let store = LocalStore::new(dir.path()).unwrap();
    let found = headwater_lake::guard::guard(&store).unwrap();
    assert_eq!(found.faults, []);
    assert_eq!(found.rows, 2 * turns);
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
