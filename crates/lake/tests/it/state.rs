//! Owner, head and marks: what a start finds, and what it makes of damage.

use headwater_lake::audit::{audit, marks};
use headwater_lake::delta::LogError;
use headwater_lake::guard::guard;
use headwater_lake::prune::prune;
use headwater_lake::replay::{DEFAULT_MEMORY_BYTES, Replay, each_refused, is_cut};
use headwater_lake::{
    Claim, Encoding, EpochState, Found, GapRow, HEAD_PATH, Lake, LakeError, LogRow, MARKS_PATH,
    MemStore, OWNER_PATH, QuarantineRow, Record, Rows, Settings, Store, StoreError, Table,
};
use headwater_proto::ids::JournalId;
use headwater_proto::sample::Value;
use proptest::prelude::*;

use crate::help::{
    JOURNAL, MIDNIGHT_US, claim, epoch, flush, flush_of, gap, line, open, push_batches, read,
    refused, sample, stream, takeover,
};

const OTHER: JournalId = JournalId(0xdef);

fn version(table: &str, version: u64) -> String {
    format!("{table}/_delta_log/{version:020}.json")
}

fn rows_of(seq: u64) -> Rows {
    let mut rows = Rows::new();
    push_batches(&mut rows, "d", seq..seq + 1);
    rows.push_epoch(epoch(&stream("d"), seq + 1, EpochState::Open))
        .unwrap();
    rows
}

/// Six flushes; tables write checkpoints every four versions.
fn lake_of_six() -> MemStore {
    let store = MemStore::new();
    let mut lake = Lake::open(store.clone(), settings(), &claim()).unwrap();
    for at in 0..6 {
        flush(&mut lake, (at, at), &rows_of(at));
    }
    store
}

fn settings() -> Settings {
    Settings {
        checkpoint_versions: 4,
        ..Settings::default()
    }
}

fn log_error(store: &MemStore) -> LogError {
    let before = store.fork();
    let Err(LakeError::Log(error)) = open_as(store, &claim()) else {
        panic!("it opened");
    };
    assert_eq!(content(store), content(&before));
    error
}

/// Neither the audit nor the check calls the lake good, and both name the object.
fn expect_told(store: &MemStore, path: &str) {
    let audit = audit(store).unwrap();
    assert!(!audit.totals.is_good());
    for faults in [audit.faults, guard(store).unwrap().faults] {
        assert!(faults.iter().any(|fault| fault.path == path), "{faults:?}");
    }
}

#[test]
fn a_version_that_is_missing_at_or_below_the_head_is_a_hole_and_nothing_is_changed() {
    for missing in [5, 6] {
        let store = lake_of_six();
        store.delete(&version("samples", missing)).unwrap();
        let error = log_error(&store);
        let LogError::Hole { path, known: 6 } = &error else {
            panic!("{error}");
        };
        assert_eq!(*path, version("samples", missing));
        assert!(
            error.to_string().contains("bring it back from a backup"),
            "{error}"
        );
        // Nobody takes what is left for the whole.
        expect_told(&store, "samples/_delta_log");
        assert!(prune(&store, 1, MIDNIGHT_US).is_err());
    }
    // What a checkpoint covers is needed no more.
    let store = lake_of_six();
    store.delete(&version("samples", 3)).unwrap();
    open(&store);
}

#[test]
fn a_version_with_other_bytes_than_the_heads_is_told() {
    let store = lake_of_six();
    let path = version("epochs", 6);
    let text = String::from_utf8(store.get(&path).unwrap().to_vec()).unwrap();
    store
        .replace(&path, text.replace("\"size\":", "\"size\":1").as_bytes())
        .unwrap();
    assert!(matches!(log_error(&store), LogError::Altered { path: told } if told == path));
    let faults = guard(&store).unwrap().faults;
    assert!(faults.iter().any(|fault| fault.path == path), "{faults:?}");
}

#[test]
fn a_start_reads_on_beyond_the_head() {
    let store = lake_of_six();
    let head = store.get(HEAD_PATH).unwrap();
    let mut lake = Lake::open(store.clone(), settings(), &claim()).unwrap();
    for at in 6..9 {
        flush(&mut lake, (at, at), &rows_of(at));
    }
    // A crash before the head was written, three times.
    store.replace(HEAD_PATH, &head).unwrap();
    let mut lake = Lake::open(store.clone(), settings(), &claim()).unwrap();
    assert_eq!(lake.opened().found, Found::Whole);
    assert_eq!(lake.cursor(JOURNAL), Some(8));
    assert_eq!(lake.marks().unwrap(), marks(&store).unwrap());
    flush(&mut lake, (9, 9), &rows_of(9));
    lake.write_catalog().unwrap();
    assert_eq!(guard(&store).unwrap().faults, []);
    assert_eq!(read(&store, Table::Samples).len(), 20);
}

#[test]
fn a_lake_without_its_objects_is_adopted_if_its_logs_are_whole() {
    let first = lake_of_six();
    let all = [HEAD_PATH, OWNER_PATH, MARKS_PATH];
    for removed in 1..1 << all.len() {
        let store = first.fork();
        let lost = |path: &str| {
            let place = all.iter().position(|one| *one == path).unwrap();
            removed & 1 << place != 0
        };
        for path in all.into_iter().filter(|path| lost(path)) {
            store.delete(path).unwrap();
        }
        let mut lake = Lake::open(store.clone(), settings(), &claim()).unwrap();
        let expected = if lost(HEAD_PATH) {
            Found::Adopted
        } else {
            Found::Whole
        };
        assert_eq!(lake.opened().found, expected);
        assert_eq!(lake.opened().went_on, !lost(OWNER_PATH));
        assert!(store.get(HEAD_PATH).is_ok() && store.get(OWNER_PATH).is_ok());
        assert!(!lost(HEAD_PATH) || store.get(MARKS_PATH).is_ok());
        assert_eq!(lake.marks().unwrap(), marks(&store).unwrap());
        flush(&mut lake, (6, 6), &rows_of(6));
        assert_eq!(guard(&store).unwrap().faults, []);
        let lake = Lake::open(store.clone(), settings(), &claim()).unwrap();
        assert_eq!(lake.opened().found, Found::Whole);
        assert_eq!(read(&store, Table::Samples).len(), 14);
    }
}

#[test]
fn a_lake_from_before_there_were_owners_is_adopted() {
    let store = lake_of_six();
    for path in [HEAD_PATH, OWNER_PATH, MARKS_PATH] {
        store.delete(path).unwrap();
    }
    // Its logs bear no term, and its files end in 0.
    for entry in store.list("").unwrap() {
        if entry.path.ends_with(".json") || entry.path.ends_with("_last_checkpoint") {
            let text = String::from_utf8(store.get(&entry.path).unwrap().to_vec()).unwrap();
            let lines = text.lines().filter(|line| !line.contains("headwater-term"));
            let text: Vec<_> = lines
                .map(|l| l.replace("-1.parquet", "-0.parquet"))
                .collect();
            store
                .replace(&entry.path, format!("{}\n", text.join("\n")).as_bytes())
                .unwrap();
        } else if entry.path.contains("checkpoint") {
            store.delete(&entry.path).unwrap();
        } else if let Some(stem) = entry.path.strip_suffix("-1.parquet") {
            let bytes = store.get(&entry.path).unwrap();
            store
                .put_if_absent(&format!("{stem}-0.parquet"), &bytes)
                .unwrap();
            store.delete(&entry.path).unwrap();
        }
    }
    let before = read(&store, Table::Samples);
    assert_eq!(before.len(), 12);
    let mut lake = Lake::open(store.clone(), settings(), &claim()).unwrap();
    assert_eq!(
        (lake.opened().found, lake.owner().term),
        (Found::Adopted, 1)
    );
    assert_eq!(lake.cursor(JOURNAL), Some(5));
    assert_eq!(lake.sweep().unwrap().orphans, 0);
    assert_eq!(read(&store, Table::Samples), before);
    flush(&mut lake, (6, 6), &rows_of(6));
    // Its versions were changed, which the hashes in those after them tell.
    let faults = guard(&store).unwrap().faults;
    assert!(!faults.is_empty());
    let is_of_log = |path: &str| path.contains("_delta_log") && path.ends_with(".json");
    assert!(faults.iter().all(|f| is_of_log(&f.path)), "{faults:?}");
}

#[test]
fn without_a_head_damage_is_told_from_a_new_lake_and_nothing_is_changed() {
    // A version in the middle is gone.
    let store = lake_of_six();
    store.delete(HEAD_PATH).unwrap();
    store.delete(&version("samples", 5)).unwrap();
    assert!(matches!(log_error(&store), LogError::Hole { known: 6, .. }));
    // Nor does a reader take what stands before it for the whole.
    expect_told(&store, "samples/_delta_log");
    // The whole log of a table is gone, and its files are not.
    let store = lake_of_six();
    store.delete(HEAD_PATH).unwrap();
    for entry in store.list("samples/_delta_log").unwrap() {
        store.delete(&entry.path).unwrap();
    }
    let error = log_error(&store);
    assert!(
        matches!(error, LogError::NoLog { table: "samples" }),
        "{error}"
    );
    // With the head the same is a hole.
    let store = lake_of_six();
    for entry in store.list("samples/_delta_log").unwrap() {
        store.delete(&entry.path).unwrap();
    }
    assert!(matches!(log_error(&store), LogError::Hole { known: 6, .. }));
}

/// What may be lost of [`lake_of_six`], and whether a start must refuse.
struct Loss {
    what: &'static str,
    paths: Vec<String>,
    is_hole: bool,
}

fn losses() -> Vec<Loss> {
    let checkpoint = |table| format!("{table}/_delta_log/{:020}.checkpoint.parquet", 4);
    let log = |tables: &[Table]| {
        let store = lake_of_six();
        let logs = tables.iter().map(|t| format!("{}/_delta_log", t.name()));
        let entries = logs.flat_map(|log| store.list(&log).unwrap());
        entries.map(|entry| entry.path).collect::<Vec<_>>()
    };
    let hint = "samples/_delta_log/_last_checkpoint".to_owned();
    let loss = |what, paths: Vec<String>, is_hole| Loss {
        what,
        paths,
        is_hole,
    };
    vec![
        loss("nothing", vec![], false),
        loss("owner", vec![OWNER_PATH.into()], false),
        loss("marks", vec![MARKS_PATH.into()], false),
        loss("hint", vec![hint], false),
        loss("checkpoint", vec![checkpoint("samples")], false),
        loss("below it", vec![version("samples", 3)], false),
        loss(
            "both",
            vec![checkpoint("samples"), version("samples", 3)],
            true,
        ),
        loss("above it", vec![version("epochs", 5)], true),
        loss(
            "newest of the first table",
            vec![version("samples", 6)],
            true,
        ),
        loss("newest of the last table", vec![version("epochs", 6)], true),
        loss(
            "last flush",
            vec![version("samples", 6), version("epochs", 6)],
            true,
        ),
        loss("log of the first table", log(&[Table::Samples]), true),
        loss("log of the last table", log(&[Table::Epochs]), true),
        loss("all logs", log(&Table::ALL), true),
    ]
}

#[test]
fn every_start_beside_a_hole_refuses_and_all_else_is_mended() {
    let whole = lake_of_six();
    open_as(&whole, &claim()).unwrap().write_catalog().unwrap();
    let own = Claim {
        committed_to: 6,
        ..claim()
    };
    for Loss {
        what,
        paths,
        is_hole,
    } in losses()
    {
        for (has_head, has_catalog, claim) in [
            (true, true, own),
            (true, false, own),
            (true, false, takeover(OTHER)),
            (false, false, own),
            (false, true, takeover(OTHER)),
        ] {
            let store = whole.fork();
            let gone = [(!has_head, HEAD_PATH), (!has_catalog, "catalog.json")];
            let gone = gone.into_iter().filter(|(is_gone, _)| *is_gone);
            let gone = gone.map(|(_, path)| path.to_owned()).chain(paths.clone());
            gone.for_each(|path| store.delete(&path).unwrap());
            let case = format!("{what}, head {has_head}, catalog {has_catalog}, {claim:?}");
            let before = store.fork();
            match open_as(&store, &claim) {
                Err(LakeError::Log(error)) => {
                    assert!(is_hole, "{case}: {error}");
                    assert!(error.to_string().contains("lake repair"), "{case}: {error}");
                    assert_eq!(content(&store), content(&before), "{case}");
                    let is_told = |fault: &headwater_lake::Fault| {
                        fault.path.contains("_delta_log") || fault.path == HEAD_PATH
                    };
                    let faults = guard(&store).unwrap().faults;
                    assert!(faults.iter().any(is_told), "{case}: {faults:?}");
                }
                Err(error) => panic!("{case}: {error}"),
                Ok(mut lake) => {
                    assert!(!is_hole, "{case}");
                    lake.recover(claim.owner, None).unwrap();
                    assert_eq!(lake.sweep().unwrap().orphans, 0, "{case}");
                    assert_eq!(lake.marks().unwrap(), marks(&store).unwrap());
                    let rows = rows_of(6);
                    let mut flush = flush_of((6, 6), &rows);
                    flush.journal = claim.owner;
                    let plan = lake.stage(&flush).unwrap();
                    lake.publish(&plan).unwrap();
                    lake.commit(&plan).unwrap();
                    assert_eq!(read(&store, Table::Samples).len(), 14, "{case}");
                    assert_eq!(read(&store, Table::Epochs).len(), 7, "{case}");
                }
            }
        }
    }
}

/// The one hole that nothing tells of: without head, catalog and journal, a lost flush looks like one of
/// which the commit was cut off. Its files are set aside, and reported.
#[test]
fn a_last_flush_that_nothing_tells_of_is_set_aside_and_reported() {
    let store = lake_of_six();
    store.delete(HEAD_PATH).unwrap();
    for table in ["samples", "epochs"] {
        store.delete(&version(table, 6)).unwrap();
    }
    let mut lake = open_as(&store, &takeover(OTHER)).unwrap();
    assert_eq!(lake.sweep().unwrap().set_aside.len(), 2);
    assert_eq!(store.list("_headwater/orphans").unwrap().len(), 2);
}

fn open_as(store: &MemStore, claim: &Claim) -> Result<Lake<MemStore>, LakeError> {
    Lake::open(store.clone(), settings(), claim)
}

fn content(store: &MemStore) -> Vec<(String, bytes::Bytes)> {
    let paths = store.list("").unwrap().into_iter().map(|entry| entry.path);
    paths
        .map(|path| (path.clone(), store.get(&path).unwrap()))
        .collect()
}

#[test]
fn a_damaged_head_counts_as_none_and_a_later_one_is_refused() {
    let store = lake_of_six();
    store.replace(HEAD_PATH, b"{\"head_version\": 1").unwrap();
    let lake = open(&store);
    assert_eq!(lake.opened().found, Found::Adopted);
    assert_eq!(guard(&store).unwrap().faults, []);
    store.replace(HEAD_PATH, b"{\"head_version\": 3}").unwrap();
    let refused = Lake::open(store.clone(), settings(), &claim());
    assert!(matches!(refused, Err(LakeError::NewerHead(3))));
    store.replace(OWNER_PATH, b"{}").unwrap();
    let refused = Lake::open(store.clone(), settings(), &claim());
    assert!(matches!(refused, Err(LakeError::OwnerUnreadable)));
}

#[test]
fn damaged_marks_are_made_anew_from_the_files() {
    let store = lake_of_six();
    let mut bytes = store.get(MARKS_PATH).unwrap().to_vec();
    bytes[10] ^= 1;
    store.replace(MARKS_PATH, &bytes).unwrap();
    let faults = guard(&store).unwrap().faults;
    assert!(
        faults.iter().any(|fault| fault.path == MARKS_PATH),
        "{faults:?}"
    );
    let mut lake = Lake::open(store.clone(), settings(), &claim()).unwrap();
    assert_eq!(lake.marks().unwrap(), marks(&store).unwrap());
    for at in 6..10 {
        flush(&mut lake, (at, at), &rows_of(at));
    }
    assert_eq!(guard(&store).unwrap().faults, []);
}

#[test]
fn marks_that_tell_otherwise_than_the_files_are_a_fault() {
    let store = lake_of_six();
    let other = MemStore::new();
    let mut lake = Lake::open(other.clone(), settings(), &claim()).unwrap();
    for at in 0..6 {
        flush(&mut lake, (at, at), &rows_of(at + 1));
    }
    store
        .replace(MARKS_PATH, &other.get(MARKS_PATH).unwrap())
        .unwrap();
    let faults = guard(&store).unwrap().faults;
    assert!(
        faults.iter().any(|fault| fault.what.contains("1 streams")),
        "{faults:?}"
    );
}

#[test]
fn the_places_of_other_sinks_stand_in_each_commit() {
    let store = MemStore::new();
    let mut lake = Lake::open(store.clone(), settings(), &claim()).unwrap();
    for at in 0..9 {
        let sinks = [("copy".to_owned(), at), ("hot".to_owned(), 2 * at)];
        let rows = rows_of(at);
        let mut flush = flush_of((at, at), &rows);
        flush.sinks = &sinks;
        let plan = lake.stage(&flush).unwrap();
        if at < 8 {
            lake.publish(&plan).unwrap();
            lake.commit(&plan).unwrap();
        } else {
            // Of a plan that a later start carries out they are there as well.
            lake = Lake::open(store.clone(), settings(), &claim()).unwrap();
            lake.recover(JOURNAL, Some(&plan)).unwrap();
        }
        let lake = Lake::open(store.clone(), settings(), &claim()).unwrap();
        let found: Vec<_> = lake.sinks(JOURNAL).into_iter().collect();
        assert_eq!(found, [("copy".to_owned(), at), ("hot".to_owned(), 2 * at)]);
        assert!(lake.sinks(OTHER).is_empty());
    }
    lake.write_catalog().unwrap();
    let catalog = store.get("catalog.json").unwrap();
    let catalog: serde_json::Value = serde_json::from_slice(&catalog).unwrap();
    let positions = catalog["tables"][0]["positions"].as_object().unwrap();
    assert_eq!(positions.len(), 1, "{positions:?}");
}

#[test]
fn a_writer_that_always_comes_too_late_gives_up() {
    // More than any of the loops tries.
    const RACES: u64 = 1_001;
    let store = lake_of_six();
    store.lose_races(RACES);
    let refused = Lake::open(store.clone(), settings(), &claim());
    assert!(matches!(refused, Err(LakeError::Owned { .. })));
    store.lose_races(0);
    let mut lake = Lake::open(store.clone(), settings(), &claim()).unwrap();
    let plan = lake.stage(&flush_of((6, 6), &rows_of(6))).unwrap();
    lake.publish(&plan).unwrap();
    store.lose_races(RACES);
    let crowded = lake.commit(&plan);
    assert!(matches!(
        crowded,
        Err(LakeError::Log(LogError::Crowded {
            attempts: 1_000,
            ..
        }))
    ));
    store.lose_races(0);
    lake.commit(&plan).unwrap();
    assert_eq!(guard(&store).unwrap().faults, []);
}

#[test]
fn a_head_that_always_changes_is_an_error_and_the_next_try_writes_it() {
    let store = lake_of_six();
    let mut lake = open(&store);
    let plan = lake.stage(&flush_of((6, 6), &rows_of(6))).unwrap();
    lake.publish(&plan).unwrap();
    lake.commit(&plan).unwrap();
    let rows = rows_of(7);
    let plan = lake.stage(&flush_of((7, 7), &rows)).unwrap();
    lake.publish(&plan).unwrap();
    store.crash_after(2);
    assert!(lake.commit(&plan).is_err(), "both tables have it");
    store.restart();
    store.lose_races(9);
    assert!(matches!(
        lake.commit(&plan),
        Err(LakeError::Store(StoreError::Io { .. }))
    ));
    store.lose_races(0);
    lake.commit(&plan).unwrap();
    assert_eq!(guard(&store).unwrap().faults, []);
    assert_eq!(read(&store, Table::Samples).len(), 16);
}

#[test]
fn more_orphans_than_a_report_names_are_counted() {
    let store = lake_of_six();
    for at in 100..1_101 {
        let name = format!("{JOURNAL}-{at:020}-{at:020}-1.parquet");
        let path = format!("samples/hot/dt=2026-11-22/{name}");
        store.put_if_absent(&path, b"orphan").unwrap();
    }
    let mut lake = Lake::open(store.clone(), settings(), &takeover(OTHER)).unwrap();
    let found = guard(&store).unwrap();
    assert_eq!((found.orphans.len(), found.orphan_count), (1_000, 1_001));
    let swept = lake.sweep().unwrap();
    assert_eq!((swept.set_aside.len(), swept.orphans), (1_000, 1_001));
    assert_eq!(read(&store, Table::Samples).len(), 12);
}

/// Stands before the hash in the last line of head and owner.
const SEAL: &str = ",\n  \"sha256\": \"";

/// An object of [`lake_of_six`] after some bytes changed, with a good hash at its end.
fn changed_object() -> impl Strategy<Value = (&'static str, Vec<u8>)> {
    let changes = proptest::collection::vec((any::<usize>(), any::<u8>(), 0..4), 1..4);
    (0usize..3, changes).prop_map(|(which, changes)| {
        let path = [HEAD_PATH, OWNER_PATH, MARKS_PATH][which];
        let mut bytes = lake_of_six().get(path).unwrap().to_vec();
        let hash_bytes = match path {
            MARKS_PATH => 32,
            _ => SEAL.len() + 64 + "\"\n}\n".len(),
        };
        bytes.truncate(bytes.len() - hash_bytes);
        for (at, value, action) in changes {
            let at = at % bytes.len();
            match action {
                0 => bytes[at] = value,
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, value),
                // A number as large as can be, in either form.
                _ if path == MARKS_PATH => {
                    drop(bytes.splice(at..at, [[0xff; 9].as_slice(), &[1]].concat()))
                }
                _ => {
                    let digit = bytes[at..].iter().position(u8::is_ascii_digit);
                    let at = at + digit.unwrap_or(0);
                    drop(bytes.splice(at..=at, *b"18446744073709551615"));
                }
            }
        }
        let hash = headwater_lake::Sha256::of(&bytes);
        match path {
            MARKS_PATH => bytes.extend(hash.0),
            _ => bytes.extend(format!("{SEAL}{hash}\"\n}}\n").bytes()),
        }
        (path, bytes)
    })
}

proptest! {
    #[test]
    fn whatever_the_objects_hold_a_start_and_a_check_end((path, bytes) in changed_object()) {
        let store = lake_of_six();
        store.replace(path, &bytes).unwrap();
        let _ = guard(&store);
        if let Ok(mut lake) = Lake::open(store.clone(), settings(), &takeover(OTHER)) {
            let _ = lake.marks();
            let _ = lake.write_catalog();
            let _ = lake.rename(JOURNAL, MIDNIGHT_US);
            prop_assert_eq!(read(&store, Table::Samples).len(), 12);
        }
    }
}

/// What may happen to a lake.
#[derive(Debug, Clone)]
enum Step {
    /// Rows of so many kinds, from a number that says which.
    Flush(u64),
    /// The process ends and comes back, with its plan of the last flush at that call.
    Crash(u64, u64),
    /// Another journal takes over.
    TakeOver,
    /// Yesterday is pruned.
    Prune,
    /// What is in quarantine is put among the samples; a replay at that call is cut off first.
    Replay(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => any::<u64>().prop_map(Step::Flush),
        3 => (any::<u64>(), 0u64..24).prop_map(|(rows, at)| Step::Crash(rows, at)),
        1 => Just(Step::TakeOver),
        1 => Just(Step::Prune),
        2 => (0u64..60).prop_map(Step::Replay),
    ];
    proptest::collection::vec(step, 1..14)
}

/// Rows of every table that says something of a stream.
fn any_rows(seed: u64, next: &mut u64) -> Rows {
    let mut rows = Rows::new();
    let device = ["a", "b", "c"][usize::try_from(seed % 3).unwrap()];
    let seq = *next;
    *next += 8;
    let bit = |n: u64| seed >> (8 + n) & 1 == 1;
    if bit(0) {
        push_batches(&mut rows, device, seq..seq + 2);
    }
    if bit(1) {
        // Its readings lie on two dates.
        let mut early = sample(device, seq + 2, 0, Value::Bool(true));
        early.ts_us = MIDNIGHT_US - 1;
        rows.push_sample(&early).unwrap();
        rows.push_sample(&sample(device, seq + 2, 1, Value::I64(2)))
            .unwrap();
    }
    if bit(2) {
        rows.push_sample(&sample(device, seq + 3, 0, Value::I64(1)))
            .unwrap();
    }
    if bit(3) {
        let refused = QuarantineRow {
            metric: None,
            samples: i32::from(!bit(4)),
            reason: "other".into(),
            ..refused(&stream(device), seq + 3)
        };
        rows.push_quarantine(refused).unwrap();
    }
    let record = |n: u64| {
        Some(Record {
            stream: stream(device),
            seq: seq + n,
        })
    };
    if bit(5) {
        let row = GapRow {
            seqs: bit(6).then_some((seq.saturating_sub(6), seq)),
            stage: if bit(7) { "sink" } else { "agent" }.into(),
            record: record(4),
            ..gap(&stream(device), 0, 0)
        };
        rows.push_gap(row).unwrap();
    }
    if bit(8) {
        let state = if bit(9) {
            EpochState::Closed
        } else {
            EpochState::Ended
        };
        let mut row = epoch(&stream(device), seq + 5, state);
        row.record = record(5);
        rows.push_epoch(row).unwrap();
    }
    if bit(10) || rows.is_empty() {
        let line = |n: u32, ts_us, record_lines| LogRow {
            ts_us,
            record_lines,
            ..line(
                &stream(device),
                seq + if record_lines == Some(1) { 6 } else { 7 },
                n,
            )
        };
        rows.push_log(line(0, MIDNIGHT_US, Some(1))).unwrap();
        // A record on two dates, of which a line may be missing.
        rows.push_log(line(0, MIDNIGHT_US - 1, Some(2))).unwrap();
        if bit(11) {
            rows.push_log(line(1, MIDNIGHT_US, Some(2))).unwrap();
        }
    }
    rows
}

/// Puts every reading of `quarantine` among the samples.
fn replay_all(store: &MemStore) -> Result<(), LakeError> {
    let (mut replay, _) = Replay::begin(store, Encoding::Compact, MIDNIGHT_US)?;
    let mut rows = Rows::new();
    each_refused::<LakeError>(store, DEFAULT_MEMORY_BYTES, |refused, taken| {
        if refused.samples > 0 && taken.take(refused, 1, "m") {
            let one = sample(refused.device_id, refused.seq, 1, Value::I64(3));
            rows.push_sample(&one).unwrap();
        }
        Ok(())
    })?;
    match rows.is_empty() {
        true => Ok(()),
        false => replay.commit(&mut rows),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Each step leaves marks that are those of a scan of all files, whoever asks.
    #[test]
    fn marks_are_what_a_scan_of_all_files_finds(steps in steps()) {
        let store = MemStore::new();
        let settings = Settings { checkpoint_versions: 2, ..Settings::default() };
        let (mut term, mut next, mut position) = (1u64, 0, 0);
        let mut owner = JournalId(1);
        let mut lake = Lake::open(store.clone(), settings, &takeover(owner)).unwrap();
        for step in steps {
            match step {
                Step::Flush(seed) => {
                    let rows = any_rows(seed, &mut next);
                    let mut flush = flush_of((position, position), &rows);
                    flush.journal = owner;
                    position += 1;
                    let plan = lake.stage(&flush).unwrap();
                    lake.publish(&plan).unwrap();
                    lake.commit(&plan).unwrap();
                    lake.finish(&plan).unwrap();
                }
                Step::Crash(seed, at) => {
                    let rows = any_rows(seed, &mut next);
                    let mut flush = flush_of((position, position), &rows);
                    flush.journal = owner;
                    position += 1;
                    let plan = lake.stage(&flush).unwrap();
                    store.crash_after(at);
                    let _ = lake.publish(&plan).and_then(|()| lake.commit(&plan));
                    store.restart();
                    if seed % 5 == 0 {
                        // The same process tries again.
                        lake.publish(&plan).and_then(|()| lake.commit(&plan)).unwrap();
                    } else {
                        lake = Lake::open(store.clone(), settings, &takeover(owner)).unwrap();
                        if seed % 2 == 0 {
                            lake.recover(owner, Some(&plan)).unwrap();
                        } else {
                            // Its plan is lost with its journal.
                            term += 1;
                            owner = JournalId(term);
                            lake = Lake::open(store.clone(), settings, &takeover(owner)).unwrap();
                            lake.sweep().unwrap();
                        }
                    }
                }
                Step::TakeOver => {
                    term += 1;
                    owner = JournalId(term);
                    lake = Lake::open(store.clone(), settings, &takeover(owner)).unwrap();
                    prop_assert!(!lake.opened().went_on);
                    lake.sweep().unwrap();
                }
                Step::Prune => {
                    prune(&store, 1, MIDNIGHT_US).unwrap();
                }
                Step::Replay(at) => {
                    store.crash_after(at);
                    let _ = replay_all(&store);
                    store.restart();
                    replay_all(&store).unwrap();
                    prop_assert!(!is_cut(&store).unwrap());
                }
            }
            let all = marks(&store).unwrap();
            let mut other = Lake::open(store.fork(), settings, &takeover(owner)).unwrap();
            prop_assert_eq!(&other.marks().unwrap(), &all);
            prop_assert_eq!(&lake.marks().unwrap(), &all);
            prop_assert_eq!(guard(&store).unwrap().faults, []);
        }
    }
}
