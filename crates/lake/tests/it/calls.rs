//! Requests that a start, a flush and a catalog cost: a service has a price for each.

use headwater_lake::{Call, EpochState, Found, Lake, MemStore, Plan, Rows, Settings};
use headwater_proto::ids::JournalId;

use crate::help::{JOURNAL, claim, epoch, flush, open, push_batches, stream, takeover};

/// Rows of two tables.
fn rows_of(seq: u64) -> Rows {
    let mut rows = Rows::new();
    push_batches(&mut rows, "d", seq..seq + 1);
    rows.push_epoch(epoch(&stream("d"), seq + 1, EpochState::Open))
        .unwrap();
    rows
}

/// A lake after so many flushes, and the last one's plan.
fn lake_of(flushes: u64) -> (MemStore, Option<Plan>) {
    let store = MemStore::new();
    let mut lake = open(&store);
    let flushed = (0..flushes).map(|at| flush(&mut lake, (at, at), &rows_of(at)));
    let plan = flushed.last();
    store.forget_calls();
    (store, plan)
}

fn expect(store: &MemStore, calls: &[(Call, u64)]) {
    let mut calls = calls.to_vec();
    calls.sort_unstable();
    assert_eq!(store.all_calls().into_iter().collect::<Vec<_>>(), calls);
}

#[test]
fn a_schema_is_put_once_however_often_it_is_used() {
    let (store, _) = lake_of(0);
    let mut lake = open(&store);
    store.forget_calls();
    for at in 0..6 {
        for agent in 0..6u8 {
            lake.put_schema(&[agent; 40]).unwrap();
        }
        flush(&mut lake, (at, at), &rows_of(at));
    }
    // Two tables commit in each flush.
    assert_eq!(store.calls(Call::PutIfAbsent), 6 + 6 * 2);
    // After a start, one put that finds it there tells.
    let mut lake = open(&store);
    store.forget_calls();
    for _ in 0..6 {
        lake.put_schema(&[0; 40]).unwrap();
    }
    expect(&store, &[(Call::PutIfAbsent, 1)]);
}

#[test]
fn a_flush_costs_two_requests_beside_those_of_its_files() {
    let (store, _) = lake_of(30);
    let mut lake = open(&store);
    store.forget_calls();
    flush(&mut lake, (30, 30), &rows_of(30));
    let calls = [
        // On the local disk.
        (Call::Stage, 2),
        (Call::SyncStage, 1),
        (Call::Unstage, 2),
        // For each file, and for each table.
        (Call::Publish, 2),
        (Call::PutIfAbsent, 2),
        // Who owns the lake, and the head.
        (Call::GetTagged, 1),
        (Call::Swap, 1),
    ];
    expect(&store, &calls);
}

#[test]
fn a_catalog_reads_nothing() {
    let (store, _) = lake_of(30);
    let mut lake = open(&store);
    flush(&mut lake, (30, 30), &rows_of(30));
    store.forget_calls();
    lake.write_catalog().unwrap();
    expect(&store, &[(Call::Replace, 1)]);
}

#[test]
fn a_checkpoint_reads_no_version_again() {
    let (store, _) = lake_of(0);
    let settings = Settings {
        checkpoint_versions: 10,
        ..Settings::default()
    };
    let mut lake = Lake::open(store.clone(), settings, &claim()).unwrap();
    for at in 0..10 {
        flush(&mut lake, (at, at), &rows_of(at));
    }
    store.forget_calls();
    for at in 10..20 {
        flush(&mut lake, (at, at), &rows_of(at));
    }
    // The logs are looked at once for what commands did, before the marks are written.
    assert_eq!(store.calls(Call::Get), 8);
    assert_eq!(store.calls(Call::Open), 2, "the two checkpoints before");
    assert_eq!(store.calls(Call::List), 0);
}

#[test]
fn a_start_lists_nothing() {
    let (store, plan) = lake_of(30);
    let mut lake = open(&store);
    lake.recover(JOURNAL, plan.as_ref()).unwrap();
    let calls = [
        // The owner and the head.
        (Call::GetTagged, 2),
        // Eight tables: version 0 and the end of each, and thirty versions of two.
        (Call::Get, 8 * 2 + 2 * 30),
        // The lease.
        (Call::Swap, 1),
        // On the local disk.
        (Call::Staged, 1),
    ];
    expect(&store, &calls);
}

#[test]
fn a_start_reads_no_more_than_what_came_after_the_checkpoint() {
    let (store, plan) = lake_of(115);
    let mut lake = open(&store);
    lake.recover(JOURNAL, plan.as_ref()).unwrap();
    assert_eq!(store.calls(Call::Get), 8 * 2 - 2 + 2 * 15);
    // The two checkpoints; no file of a table, and no marks: a journal that goes on needs none.
    assert_eq!((store.calls(Call::Size), store.calls(Call::Open)), (2, 2));
    assert_eq!(store.calls(Call::GetTagged), 2);
    assert_eq!(store.calls(Call::List) + store.calls(Call::ListSome), 0);
}

#[test]
fn a_new_journal_reads_the_marks_and_the_files_that_came_after_them() {
    let (store, _) = lake_of(103);
    let other = JournalId(0xdef);
    let mut lake = Lake::open(store.clone(), Settings::default(), &takeover(other)).unwrap();
    store.forget_calls();
    let marks = lake.marks().unwrap();
    assert_eq!(marks, headwater_lake::audit::marks(&store.fork()).unwrap());
    // Three flushes came since, each of two files.
    assert_eq!(
        (store.calls(Call::GetTagged), store.calls(Call::Open)),
        (1, 6)
    );
    assert_eq!(store.calls(Call::List) + store.calls(Call::ListSome), 0);
}

#[test]
fn a_new_lake_is_told_by_one_bounded_list_for_each_table() {
    let store = MemStore::new();
    let lake = open(&store);
    assert_eq!(lake.opened().found, Found::New);
    let calls = [
        (Call::GetTagged, 2),
        (Call::ListSome, 8),
        (Call::PutIfAbsent, 8),
        // The owner and the head.
        (Call::Swap, 2),
    ];
    expect(&store, &calls);
}
