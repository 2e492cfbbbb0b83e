//! An owner of a lake that is stopped anywhere, taken over from, and wakes up.

use std::collections::BTreeSet;

use headwater_lake::audit::{StreamMark, audit};
use headwater_lake::guard::guard;
use headwater_lake::{
    Claim, EpochState, Lake, LakeError, MemStore, OWNER_PATH, Plan, Rows, Settings, Store, Table,
};
use headwater_proto::ids::JournalId;
use headwater_proto::sample::Value;
use proptest::prelude::*;

use crate::help::{
    JOURNAL, MIDNIGHT_US, claim, device, epoch, flush, flush_of, gap, open, push_batches, read,
    refused, sample, stream, takeover,
};
use crate::turns::{Turned, Turns, run};

/// The journal that takes over.
const OTHER: JournalId = JournalId(0xdef);

/// Batches that device `a` has; the first five are in the lake before anything happens.
const BATCHES: u64 = 9;

/// A batch of device `q` of which one reading is in quarantine: rows of two tables.
fn push_split(rows: &mut Rows) {
    rows.push_sample(&sample("q", 0, 0, Value::I64(1))).unwrap();
    rows.push_quarantine(refused(&stream("q"), 0)).unwrap();
}

fn second_flush() -> Rows {
    let mut rows = Rows::new();
    push_batches(&mut rows, "a", 5..BATCHES);
    push_split(&mut rows);
    rows.push_device(device("q")).unwrap();
    rows.push_epoch(epoch(&stream("a"), BATCHES, EpochState::Open))
        .unwrap();
    rows
}

fn lake_with_five_batches() -> MemStore {
    let store = MemStore::new();
    let mut rows = Rows::new();
    push_batches(&mut rows, "a", 0..5);
    rows.push_device(device("a")).unwrap();
    flush(&mut open(&store), (0, 9), &rows);
    store
}

/// A flush, and all steps once more to see that the end is the end.
fn all_steps<S: Store>(
    lake: &mut Lake<S>,
    positions: (u64, u64),
    rows: &Rows,
) -> Result<Plan, LakeError> {
    let plan = lake.stage(&flush_of(positions, rows))?;
    let mut steps = || {
        lake.publish(&plan)?;
        lake.commit(&plan)?;
        lake.finish(&plan)
    };
    if let Err(error) = steps() {
        assert!(
            matches!(error, LakeError::Fenced { term: 2, .. }),
            "{error}"
        );
        assert!(matches!(lake.publish(&plan), Err(LakeError::Fenced { .. })));
        assert!(matches!(lake.commit(&plan), Err(LakeError::Fenced { .. })));
        assert!(matches!(
            lake.keep(MIDNIGHT_US),
            Err(LakeError::Fenced { .. })
        ));
        assert!(matches!(
            lake.write_catalog(),
            Err(LakeError::Fenced { .. })
        ));
        return Err(error);
    }
    Ok(plan)
}

fn old_owner(mut lake: Lake<Turned>) -> Result<Plan, LakeError> {
    all_steps(&mut lake, (10, 19), &second_flush())
}

/// Takes over, and stores what the devices send again because the lake does not have it.
fn new_owner(store: Turned) -> Plan {
    let mut lake = Lake::open(store, Settings::default(), &takeover(OTHER)).unwrap();
    lake.recover(OTHER, None).unwrap();
    lake.sweep().unwrap();
    let marks = lake.marks().unwrap();
    let of = |device: &str| marks.iter().find(|mark| mark.device_id == device);
    let holds = |mark: Option<&StreamMark>, seq: u64| {
        mark.is_some_and(|m| m.held.iter().any(|r| (r.first..r.next).contains(&seq)))
    };
    let mut rows = Rows::new();
    for seq in (0..BATCHES).filter(|seq| !holds(of("a"), *seq)) {
        push_batches(&mut rows, "a", seq..seq + 1);
    }
    if !holds(of("q"), 0) {
        push_split(&mut rows);
    } else if !of("q").unwrap().partial.is_empty() {
        rows.push_gap(gap(&stream("q"), 0, 0)).unwrap();
    }
    for (device, next) in [("a", BATCHES), ("q", 1)] {
        let end = epoch(&stream(device), next, EpochState::Closed);
        rows.push_epoch(end).unwrap();
    }
    let mut flush = flush_of((0, 9), &rows);
    flush.journal = OTHER;
    let plan = lake.stage(&flush).unwrap();
    lake.publish(&plan).unwrap();
    lake.commit(&plan).unwrap();
    lake.finish(&plan).unwrap();
    plan
}

/// Journals of the files that versions after the takeover of a table added.
fn writers_after_takeover(store: &MemStore, table: Table) -> BTreeSet<String> {
    let mut writers = BTreeSet::new();
    let mut taken_over = false;
    for entry in store.list(&format!("{}/_delta_log", table.name())).unwrap() {
        let text = String::from_utf8(store.get(&entry.path).unwrap().to_vec()).unwrap();
        taken_over |= text.contains("\"appId\":\"headwater-term\",\"version\":2");
        for line in text
            .lines()
            .filter(|line| taken_over && line.contains("\"add\""))
        {
            let name = line
                .split("/dt=")
                .nth(1)
                .unwrap()
                .split('/')
                .nth(1)
                .unwrap();
            writers.insert(name.split('-').next().unwrap().to_owned());
        }
    }
    assert!(taken_over, "{table:?}");
    writers
}

/// What must hold whatever the order was.
fn expect_one_owner(store: &MemStore, old: &Result<Plan, LakeError>, new: &Plan) {
    for table in Table::ALL {
        let writers = writers_after_takeover(store, table);
        assert!(
            !writers.contains(&JOURNAL.to_string()),
            "{table:?}: {writers:?}"
        );
    }
    if let Err(error) = old {
        assert!(
            matches!(
                error,
                LakeError::Fenced {
                    term: 2,
                    owner: Some(OTHER)
                }
            ),
            "{error}"
        );
    }
    let found = audit(store).unwrap();
    assert!(found.totals.is_good(), "{found:#?}");
    let counts = found.totals.counts;
    assert_eq!((counts.repeated, counts.pending), (0, 0), "{found:#?}");
    assert_eq!(counts.samples, 2 * BATCHES + 1, "{found:#?}");
    for path in new.paths() {
        assert!(store.get(&path).is_ok(), "{path}");
    }
    let sound = guard(store).unwrap();
    assert_eq!(sound.faults, []);
    // Whatever the old one published late is told apart for good.
    let mut lake = Lake::open(store.clone(), Settings::default(), &takeover(JOURNAL)).unwrap();
    assert_eq!(lake.sweep().unwrap().orphans, sound.orphan_count);
    assert_eq!(guard(store).unwrap().faults, []);
    assert_eq!(audit(store).unwrap().totals, found.totals);
    assert_eq!(
        lake.marks().unwrap(),
        headwater_lake::audit::marks(store).unwrap()
    );
}

fn interleave(first: &MemStore, order: impl IntoIterator<Item = usize>) -> Turns {
    let store = first.fork();
    let turns = Turns::new(order);
    let (old, new) = run(
        &turns,
        &store,
        |store| {
            // Its start is no part of the test: it is the owner already.
            let lake = Lake::open(store, Settings::default(), &claim()).unwrap();
            old_owner(lake)
        },
        new_owner,
    );
    expect_one_owner(&store, &old, &new);
    turns
}

/// Calls of the old owner's start, of all its calls, of the takeover and of all calls of the new one.
fn lengths(first: &MemStore) -> (usize, usize, usize, usize) {
    let turns = Turns::new([]);
    let (start, takeover_calls) = run(
        &turns,
        &first.fork(),
        |store| {
            Lake::open(store, Settings::default(), &claim()).unwrap();
            turns.calls(0)
        },
        |store| {
            Lake::open(store, Settings::default(), &takeover(OTHER)).unwrap();
            turns.calls(1)
        },
    );
    let whole = interleave(first, []);
    (start, whole.calls(0), takeover_calls, whole.calls(1))
}

#[test]
fn an_owner_that_stands_still_at_any_call_of_a_flush_commits_nothing_after_the_takeover() {
    let first = lake_with_five_batches();
    let (start, all, takeover_calls, _) = lengths(&first);
    assert!(
        all - start >= 15 && takeover_calls > 20,
        "{start} {all} {takeover_calls}"
    );
    for still_at in start..all {
        // The takeover may stand still as well, at any of its calls or not at all.
        for also_at in (0..takeover_calls).chain([usize::MAX]) {
            let took = also_at.min(1_000);
            let order = std::iter::repeat_n(0, still_at).chain(std::iter::repeat_n(1, took));
            interleave(&first, order);
        }
    }
}

/// The net that catches the deliberate bug of a commit after a takeover.
#[cfg(feature = "sabotage")]
#[test]
fn an_owner_that_commits_after_the_takeover_is_noticed_at_every_table() {
    use headwater_proto::sabotage::{Bug, set};
    let first = lake_with_five_batches();
    let (start, all, ..) = lengths(&first);
    let mut noticed = 0;
    for still_at in start..all {
        let store = first.fork();
        let turns =
            Turns::new(std::iter::repeat_n(0, still_at).chain(std::iter::repeat_n(1, 1_000)));
        let bad = std::panic::catch_unwind(|| {
            let (old, new) = run(
                &turns,
                &store,
                |store| {
                    set(Some(Bug::CommitAfterTakeover));
                    let mut lake = Lake::open(store, Settings::default(), &claim()).unwrap();
                    let plan = lake.stage(&flush_of((10, 19), &second_flush()))?;
                    lake.publish(&plan)?;
                    lake.commit(&plan)?;
                    Ok(plan)
                },
                new_owner,
            );
            expect_one_owner(&store, &old, &new);
        });
        noticed += usize::from(bad.is_err());
    }
    // Before each of its three tables is committed.
    assert!(noticed >= 3, "{noticed}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn whatever_the_order_of_their_calls_one_owner_commits_at_a_time(
        order in proptest::collection::vec(0usize..2, 0..120),
    ) {
        let first = lake_with_five_batches();
        let (start, ..) = lengths(&first);
        interleave(&first, std::iter::repeat_n(0, start).chain(order));
    }
}

/// A journal that published and did not commit comes back while another one sweeps after it.
#[test]
fn a_sweep_that_stands_still_touches_nothing_of_a_later_term() {
    let first = lake_with_five_batches();
    let mut lake = open(&first);
    let plan = lake.stage(&flush_of((10, 19), &second_flush())).unwrap();
    lake.publish(&plan).unwrap();
    let sweeps = |store: Turned| {
        let mut lake = Lake::open(store, Settings::default(), &takeover(OTHER))?;
        lake.sweep().map(|_| ())
    };
    let comes_back = |store: Turned| {
        let mut lake = Lake::open(store, Settings::default(), &takeover(JOURNAL))?;
        match lake.recover(JOURNAL, Some(&plan)) {
            // Its stage was swept: its records are staged again.
            Err(LakeError::Lost { .. }) => {
                lake.recover(JOURNAL, None)?;
                all_steps(&mut lake, (10, 19), &second_flush()).map(|_| ())
            }
            other => other,
        }
    };
    let dry = Turns::new([]);
    let _ = run(&dry, &first.fork(), sweeps, comes_back);
    let mut came_back = 0;
    for still_at in 0..=dry.calls(0) {
        for also_at in (0..dry.calls(1)).step_by(3).chain([1_000]) {
            let store = first.fork();
            let order = std::iter::repeat_n(0, still_at).chain(std::iter::repeat_n(1, also_at));
            let (swept, back) = run(&Turns::new(order), &store, sweeps, comes_back);
            let may_fail = |result: &Result<(), LakeError>| match result {
                Err(LakeError::Fenced { .. }) => false,
                Err(error) => panic!("{error}"),
                Ok(()) => true,
            };
            may_fail(&swept);
            // Every file that a log names is there.
            assert_eq!(guard(&store).unwrap().faults, []);
            if may_fail(&back) {
                came_back += 1;
                assert_eq!(read(&store, Table::Samples).len(), 19);
            }
        }
    }
    assert!(came_back > 100, "{came_back}");
}

#[test]
fn who_does_not_own_the_lake_changes_nothing_in_it() {
    let store = lake_with_five_batches();
    let before = store.list("").unwrap();
    let owner = store.get(OWNER_PATH).unwrap();
    let claim = Claim::new(OTHER, MIDNIGHT_US + 1);
    let refused = Lake::open(store.clone(), Settings::default(), &claim);
    let Err(LakeError::Owned { owner: named, .. }) = refused else {
        panic!("it opened");
    };
    assert_eq!(named, JOURNAL);
    assert_eq!(store.list("").unwrap(), before);
    assert_eq!(store.get(OWNER_PATH).unwrap(), owner);
}

#[test]
fn a_takeover_that_is_cut_off_anywhere_is_finished_by_the_next_start() {
    let first = lake_with_five_batches();
    let whole = first.fork();
    let take = |store: &MemStore| Lake::open(store.clone(), Settings::default(), &takeover(OTHER));
    take(&whole).unwrap();
    let mut wrote = 0;
    for cut in 0..whole.operations() {
        for lands in [false, true] {
            let store = first.fork();
            let mut old = open(&store);
            if lands {
                store.crash_after_landing(cut)
            } else {
                store.crash_after(cut)
            }
            assert!(take(&store).is_err(), "cut {cut}");
            store.restart();
            // The old owner is quicker than the next start.
            let is_first = all_steps(&mut old, (10, 19), &second_flush()).is_ok();
            wrote += u64::from(is_first);
            let mut new = take(&store).unwrap();
            let mut rows = Rows::new();
            push_batches(&mut rows, "b", 0..1);
            let mut flush = flush_of((0, 0), &rows);
            flush.journal = OTHER;
            let plan = new.stage(&flush).unwrap();
            new.publish(&plan).unwrap();
            new.commit(&plan).unwrap();
            let samples = if is_first { 10 + 8 + 1 + 2 } else { 10 + 2 };
            assert_eq!(read(&store, Table::Samples).len(), samples, "cut {cut}");
            assert_eq!(guard(&store).unwrap().faults, [], "cut {cut}");
            assert!(all_steps(&mut old, (20, 29), &second_flush()).is_err());
        }
    }
    assert!(wrote > 5 && wrote < 2 * whole.operations(), "{wrote}");
}
