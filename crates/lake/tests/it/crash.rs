//! A crash at every operation of a flush, on either side of it, with and without a power cut.

use headwater_lake::guard::guard;
use headwater_lake::{
    EpochState, Lake, LakeError, MAX_NAMESAKES, MAX_SWEPT, MemStore, Plan, PlanFile, Rows,
    Settings, Sha256, Store, Table,
};

use crate::help::{
    JOURNAL, claim, epoch, flush, flush_of, gap, objects, open, push_batches, read, sample, stream,
    takeover,
};
use headwater_proto::ids::JournalId;
use headwater_proto::sample::Value;

fn rows_of(seqs: std::ops::Range<u64>) -> Rows {
    let mut rows = Rows::new();
    push_batches(&mut rows, "a", seqs.clone());
    // A second date, and the other tables.
    let mut late = sample("b", seqs.start, 0, Value::I64(1));
    late.ts_us -= 86_400_000_000;
    rows.push_sample(&late).unwrap();
    rows.push_gap(gap(&stream("c"), seqs.start, seqs.end - 1))
        .unwrap();
    rows.push_epoch(epoch(&stream("a"), seqs.end, EpochState::Open))
        .unwrap();
    rows
}

/// Each flush writes checkpoints and marks.
fn settings() -> Settings {
    Settings {
        checkpoint_versions: 1,
        ..Settings::default()
    }
}

/// What the collector does from its cursor on; `kept` is its journal's last plan.
fn carry_on(
    store: &MemStore,
    kept: &mut Option<Plan>,
    rows: &Rows,
    positions: (u64, u64),
) -> Result<(), LakeError> {
    let mut lake = Lake::open(store.clone(), settings(), &claim())?;
    lake.recover(JOURNAL, kept.as_ref())?;
    if lake.cursor(JOURNAL) != Some(positions.1) {
        let plan = lake.stage(&flush_of(positions, rows))?;
        *kept = Some(plan.clone());
        lake.publish(&plan)?;
        lake.commit(&plan)?;
        lake.finish(&plan)?;
    }
    Ok(())
}

/// Owner, head and marks agree with the logs.
fn expect_sound(store: &MemStore, what: &str) {
    let found = guard(store).unwrap();
    assert_eq!(found.faults, [], "{what}");
    assert_eq!(found.orphans, Vec::<String>::new(), "{what}");
    assert!(store.get(headwater_lake::HEAD_PATH).is_ok(), "{what}");
}

#[test]
fn rows_are_there_once_whatever_operation_a_crash_cuts_off() {
    let first = MemStore::new();
    let before = flush(&mut open(&first), (0, 9), &rows_of(0..5));
    let second = rows_of(5..9);
    let whole = first.fork();
    carry_on(&whole, &mut Some(before.clone()), &second, (10, 19)).unwrap();
    let operations = whole.operations();
    assert!(operations > 20, "{operations}");
    for crash in 0..operations {
        for lands in [false, true] {
            for power_cut in [false, true] {
                let store = first.fork();
                let mut kept = Some(before.clone());
                if lands {
                    store.crash_after_landing(crash)
                } else {
                    store.crash_after(crash)
                }
                assert!(carry_on(&store, &mut kept, &second, (10, 19)).is_err());
                // Once more amid the repair.
                if power_cut {
                    store.power_cut()
                } else {
                    store.restart()
                }
                store.crash_after(crash / 2);
                let _ = carry_on(&store, &mut kept, &second, (10, 19));
                if power_cut {
                    store.power_cut()
                } else {
                    store.restart()
                }
                carry_on(&store, &mut kept, &second, (10, 19)).unwrap();
                let what = format!("operation {crash}, lands {lands}, power cut {power_cut}");
                for table in Table::ALL {
                    assert_eq!(
                        read(&store, table),
                        read(&whole, table),
                        "{what}, {table:?}"
                    );
                }
                assert_eq!(objects(&store), objects(&whole), "{what}");
                expect_sound(&store, &what);
            }
        }
    }
}

#[test]
fn a_start_that_is_cut_off_anywhere_is_finished_by_the_next() {
    let begun = MemStore::new();
    flush(&mut open(&begun), (0, 9), &rows_of(0..5));
    let bare = begun.fork();
    for path in ["_headwater/head.json", "_headwater/owner.json"] {
        bare.delete(path).unwrap();
    }
    // A new lake, one that goes on, and one that is adopted.
    for (first, position, rows) in [(MemStore::new(), 0, 20), (begun, 10, 31), (bare, 10, 31)] {
        let start = |store: &MemStore| Lake::open(store.clone(), settings(), &claim());
        let whole = first.fork();
        start(&whole).unwrap();
        for cut in 0..whole.operations() {
            for lands in [false, true] {
                let store = first.fork();
                if lands {
                    store.crash_after_landing(cut)
                } else {
                    store.crash_after(cut)
                }
                // Without marks it starts all the same.
                let _ = start(&store);
                assert!(store.has_crashed(), "cut {cut}");
                store.restart();
                let mut lake = start(&store).unwrap();
                let mut late = rows_of(9..18);
                push_batches(&mut late, "z", 0..1);
                flush(&mut lake, (position, position + 9), &late);
                expect_sound(&store, &format!("cut {cut}"));
                assert_eq!(
                    lake.marks().unwrap(),
                    headwater_lake::audit::marks(&store).unwrap()
                );
                let found = read(&store, Table::Samples).len();
                assert_eq!(found, rows + 1, "cut {cut}");
            }
        }
    }
}

#[test]
fn a_published_file_without_a_plan_is_set_aside_after_the_takeover() {
    let store = MemStore::new();
    let mut lake = open(&store);
    let plan = lake.stage(&flush_of((0, 9), &rows_of(0..5))).unwrap();
    lake.publish(&plan).unwrap();
    // The journal was lost with its plan; the new one has another id.
    let journal = JournalId(0xdef);
    let mut lake = Lake::open(store.clone(), Settings::default(), &takeover(journal)).unwrap();
    lake.recover(journal, None).unwrap();
    assert_eq!(objects(&store).len(), 8, "staged, and published");
    assert_eq!(guard(&store).unwrap().orphan_count, 4);
    let swept = lake.sweep().unwrap();
    assert_eq!(swept.set_aside, plan.paths().collect::<Vec<_>>());
    assert_eq!(swept.orphans, 4);
    assert_eq!(
        store.list("_headwater/stage").unwrap().len(),
        4,
        "for one who comes back"
    );
    assert_eq!(store.list("_headwater/orphans").unwrap().len(), 4);
    assert_eq!(store.list("samples/hot").unwrap(), []);
    assert_eq!(guard(&store).unwrap().orphan_count, 0);
    // A committed one stays, and so does what this owner itself has published.
    let rows = rows_of(0..5);
    let mut other = flush_of((0, 9), &rows);
    other.journal = journal;
    let plan = lake.stage(&other).unwrap();
    lake.publish(&plan).unwrap();
    assert_eq!(lake.sweep().unwrap().orphans, 0);
    lake.commit(&plan).unwrap();
    assert_eq!(lake.sweep().unwrap().orphans, 0);
    assert_eq!(read(&store, Table::Samples).len(), 11);
}

#[test]
fn a_name_that_holds_other_bytes_stops_the_journal() {
    let store = MemStore::new();
    let mut lake = open(&store);
    let plan = lake.stage(&flush_of((0, 9), &rows_of(0..5))).unwrap();
    store
        .put_if_absent(&plan.paths().next().unwrap(), b"other")
        .unwrap();
    assert!(matches!(
        lake.publish(&plan),
        Err(LakeError::Conflict { .. })
    ));
}

#[test]
fn a_plan_whose_staged_files_are_gone_asks_for_the_records_again() {
    let store = MemStore::new();
    let mut lake = open(&store);
    let rows = rows_of(0..5);
    let plan = lake.stage(&flush_of((0, 9), &rows)).unwrap();
    for entry in store.list("_headwater/stage").unwrap() {
        store.delete(&entry.path).unwrap();
    }
    assert!(matches!(
        lake.recover(JOURNAL, Some(&plan)),
        Err(LakeError::Lost { .. })
    ));
    assert_eq!(lake.stage(&flush_of((0, 9), &rows)).unwrap(), plan);
    lake.recover(JOURNAL, Some(&plan)).unwrap();
    assert_eq!(lake.cursor(JOURNAL), Some(9));
}

#[test]
fn what_is_committed_is_not_staged_again() {
    let store = MemStore::new();
    let mut lake = open(&store);
    flush(&mut lake, (0, 9), &rows_of(0..5));
    let again = lake.stage(&flush_of((5, 9), &rows_of(0..5)));
    assert!(matches!(
        again,
        Err(LakeError::Behind {
            last_pos: 9,
            cursor: 9
        })
    ));
}

#[test]
fn a_sweep_names_orphans_up_to_its_bound_and_counts_the_rest() {
    let store = MemStore::new();
    let mut lake = open(&store);
    let tables = 4;
    let flushes = MAX_SWEPT as u64 / tables + 1;
    for flush in 0..flushes {
        let span = (flush * 10, flush * 10 + 9);
        let plan = lake.stage(&flush_of(span, &rows_of(0..1))).unwrap();
        assert_eq!(plan.files.len() as u64, tables);
        lake.publish(&plan).unwrap();
    }
    let journal = JournalId(0xdef);
    let mut lake = Lake::open(store, Settings::default(), &takeover(journal)).unwrap();
    lake.recover(journal, None).unwrap();
    let swept = lake.sweep().unwrap();
    assert_eq!(swept.orphans, flushes * tables);
    assert_eq!(swept.set_aside.len(), MAX_SWEPT);
}

#[test]
fn what_an_undone_time_published_gives_way_to_what_is_staged_again() {
    let store = MemStore::new();
    let rows = |device| {
        let mut rows = Rows::new();
        push_batches(&mut rows, device, 0..3);
        rows
    };
    let mut lake = open(&store);
    let undone = lake.stage(&flush_of((0, 2), &rows("a"))).unwrap();
    lake.publish(&undone).unwrap();
    // An old copy of the journal is brought back, and takes other records at the same positions.
    let mut lake = open(&store);
    let plan = lake.stage(&flush_of((0, 2), &rows("b"))).unwrap();
    let met = lake.recover(JOURNAL, Some(&plan));
    assert!(matches!(met, Err(LakeError::Conflict { .. })), "{met:?}");
    lake.recover(JOURNAL, None).unwrap();
    flush(&mut lake, (0, 2), &rows("b"));
    let found = read(&store, Table::Samples);
    assert!(!found.is_empty() && found.iter().all(|row| row["device_id"] == "b"));
    // Nothing of it was deleted.
    let swept = lake.take_withdrawn();
    assert_eq!(swept.set_aside, undone.paths().collect::<Vec<_>>());
    assert_eq!(swept.orphans, undone.files.len() as u64);
    assert_eq!(lake.take_withdrawn().orphans, 0);
    expect_aside(&store, &[&undone]);
}

/// The files of these plans are among the orphans, byte for byte.
fn expect_aside(store: &MemStore, plans: &[&Plan]) {
    let aside = store.list("_headwater/orphans").unwrap();
    let aside: Vec<Sha256> = aside
        .iter()
        .map(|entry| Sha256::of(&store.get(&entry.path).unwrap()))
        .collect();
    let files: Vec<&PlanFile> = plans.iter().flat_map(|plan| &plan.files).collect();
    assert_eq!(aside.len(), files.len());
    assert!(files.iter().all(|file| aside.contains(&file.sha256)));
}

#[test]
fn orphans_of_one_name_lie_beside_each_other_and_the_name_serves_again() {
    let store = MemStore::new();
    let rows = |device| {
        let mut rows = Rows::new();
        push_batches(&mut rows, device, 0..3);
        rows
    };
    let mut undone = Vec::new();
    for device in ["a", "b", "c"] {
        let mut lake = open(&store);
        if let Some(last) = undone.last() {
            let met = lake.recover(JOURNAL, Some(last));
            assert!(matches!(met, Err(LakeError::Conflict { .. })), "{met:?}");
        }
        let plan = lake.stage(&flush_of((0, 2), &rows(device))).unwrap();
        store
            .replace(&plan.paths().next().unwrap(), device.as_bytes())
            .unwrap();
        undone.push(plan);
    }
    let mut lake = open(&store);
    let met = lake.recover(JOURNAL, undone.last());
    assert!(matches!(met, Err(LakeError::Conflict { .. })), "{met:?}");
    let aside = store.list("_headwater/orphans").unwrap();
    let aside: Vec<_> = aside.iter().map(|e| store.get(&e.path).unwrap()).collect();
    assert_eq!(aside, ["a", "b", "c"]);
    flush(&mut lake, (0, 2), &rows("d"));
    assert_eq!(read(&store, Table::Samples).len(), 6);
    assert_eq!(guard(&store).unwrap().faults, []);
}

#[test]
fn more_orphans_of_one_name_than_are_kept_stop_the_start_and_none_is_lost() {
    let store = MemStore::new();
    let mut lake = open(&store);
    let mut rows = Rows::new();
    push_batches(&mut rows, "a", 0..3);
    let plan = lake.stage(&flush_of((0, 2), &rows)).unwrap();
    for at in 0..=MAX_NAMESAKES {
        store
            .replace(&plan.paths().next().unwrap(), &at.to_le_bytes())
            .unwrap();
        let met = lake.recover(JOURNAL, Some(&plan)).unwrap_err();
        let is_kept = matches!(met, LakeError::Conflict { .. });
        assert_eq!(is_kept, at < MAX_NAMESAKES, "{at}: {met}");
    }
    let aside = store.list("_headwater/orphans").unwrap();
    assert_eq!(aside.len(), MAX_NAMESAKES as usize);
}
