//! Requests that a start, a flush and a catalog cost: a service has a price for each.

use headwater_lake::{Call, Lake, MemStore, Rows, Settings};

use crate::help::{JOURNAL, claim, flush, open, push_batches};

fn rows_of(seq: u64) -> Rows {
    let mut rows = Rows::new();
    push_batches(&mut rows, "d", seq..seq + 1);
    rows.push_epoch(crate::help::epoch(
        &crate::help::stream("d"),
        seq + 1,
        headwater_lake::EpochState::Open,
    ))
    .unwrap();
    rows
}

#[test]
fn a_schema_is_put_once_however_often_it_is_used() {
    let store = MemStore::new();
    let mut lake = open(&store);
    store.forget_calls();
    for flushed in 0..6 {
        for agent in 0..6u8 {
            lake.put_schema(&[agent; 40]).unwrap();
        }
        flush(&mut lake, (flushed, flushed), &rows_of(flushed));
    }
    // Two tables commit in each flush.
    assert_eq!(
        store.calls(Call::PutIfAbsent),
        6 + 6 * 2,
        "{:?}",
        store.all_calls()
    );
}

#[test]
fn a_catalog_reads_nothing() {
    let store = MemStore::new();
    let mut lake = open(&store);
    for flushed in 0..30 {
        flush(&mut lake, (flushed, flushed), &rows_of(flushed));
    }
    store.forget_calls();
    lake.write_catalog().unwrap();
    assert_eq!(
        store.all_calls().into_iter().collect::<Vec<_>>(),
        [(Call::Replace, 1)]
    );
}

#[test]
fn a_start_lists_nothing() {
    let store = MemStore::new();
    let mut lake = open(&store);
    let mut plan = None;
    for flushed in 0..30 {
        plan = Some(flush(&mut lake, (flushed, flushed), &rows_of(flushed)));
    }
    drop(lake);
    store.forget_calls();
    let mut lake = Lake::open(store.clone(), Settings::default(), &claim()).unwrap();
    lake.recover(JOURNAL, plan.as_ref()).unwrap();
    println!("{:?}", store.all_calls());
    assert_eq!(store.calls(Call::List), 0, "{:?}", store.all_calls());
}
