//! Samples that were refused for their time: kept with all that they had, and put among the others once.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

mod common;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use common::{Rig, START_US, bundle_of, device, flush_all, greeted, rows_of};
use headwater_collector::pipeline::rules::TimeWindow;
use headwater_collector::quarantine::{
    Done, Group, MAX_GROUPS, Order, Which, is_of_time, list, replay,
};
use headwater_lake::audit::{Counts, audit};
use headwater_lake::guard::guard;
use headwater_lake::prune::prune;
use headwater_lake::replay::{DEFAULT_MEMORY_BYTES, MAX_RUN_SAMPLES, is_cut};
use headwater_lake::{
    Claim, Encoding, EpochRow, EpochState, Flush, Lake, MemStore, QuarantineRow, Rows as LakeRows,
    Settings, Store, Table,
};
use headwater_proto::codec::{Encoder, Rows};
use headwater_proto::frame::Kind;
use headwater_proto::ids::{DeviceId, Epoch, JournalId, Lane, Stream};
use headwater_proto::sample::Value;
use headwater_proto::schema::{Column, ColumnKind, Schema, Series};

const HOUR_US: i64 = 3_600_000_000;
const DAY_US: i64 = 24 * HOUR_US;

/// What makes a row of `samples` what it is, and not when it was measured or how that was found.
fn rows_without_class(store: &MemStore) -> Vec<BTreeMap<String, String>> {
    let mut rows = rows_of(store, Table::Samples);
    rows.iter_mut()
        .for_each(|row| drop(row.remove("time_class")));
    rows
}

fn pair(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

/// Every kind of value, with units, tags and labels.
fn schema() -> Schema {
    let kinds = [
        ("flow", ColumnKind::F64),
        ("temp", ColumnKind::F32),
        ("count", ColumnKind::I64),
        ("on", ColumnKind::Bool),
        ("state", ColumnKind::Str),
    ];
    let columns = kinds.map(|(name, kind)| Column {
        unit: "u".into(),
        ..Column::new(name, kind)
    });
    let mut schema = Schema::new(1000, columns.into());
    schema.tags = vec![
        pair("site", "north"),
        pair("device_type", "pump"),
        pair("zone", "2"),
    ];
    schema.series = ["x", "y"]
        .map(|axis| Series {
            labels: vec![pair("axis", axis)],
        })
        .into();
    schema
}

/// A batch of three rows; the clock of its device is ahead by so much.
fn batch(schema: &Schema, seq: u64, ahead_us: i64) -> Vec<u8> {
    let mut rows = Rows::new(schema);
    let values = [f64::NAN, -0.0, f64::from_bits(0x7ff8_dead_beef_0001)];
    for (row, flow) in (0u32..).zip(values) {
        let us = START_US + ahead_us + i64::try_from(seq).unwrap() * 1_000_000 + i64::from(row);
        let values = [
            Some(Value::F64(flow)),
            Some(Value::F32(0.1)),
            Some(Value::I64(i64::MIN)),
            (row != 1).then_some(Value::Bool(true)),
            Some(Value::Str("läuft")),
        ];
        rows.push_row(us / 1000 * 1000, row % 2, &values).unwrap();
    }
    let mut out = Vec::new();
    Encoder::new(schema).encode(0, &rows, &mut out).unwrap();
    out
}

const SAMPLES: u64 = 14;

/// Two batches of a device whose clock is ahead by so much, and one of a clock that is right.
fn rig(ahead_us: i64) -> Rig {
    let mut rig = greeted();
    let schema = schema();
    let mut bytes = vec![0];
    schema.encode(&mut bytes).unwrap();
    let frames = [
        (Kind::Schema, bytes),
        (Kind::Batch, batch(&schema, 0, ahead_us)),
        (Kind::Batch, batch(&schema, 1, ahead_us)),
        (Kind::Batch, batch(&schema, 2, 0)),
    ];
    rig.up(bundle_of(&device(), 1, 0, &frames), 1);
    assert!(rig.sync());
    rig.flush().unwrap();
    rig
}

fn order(shift_us: Option<i64>) -> Order {
    Order {
        which: Which::default(),
        shift_us,
        window: TimeWindow::default(),
        now_us: START_US + HOUR_US,
        is_dry: false,
        encoding: Encoding::Compact,
        memory_bytes: DEFAULT_MEMORY_BYTES,
    }
}

fn run(store: &MemStore, order: &Order) -> Result<Done, String> {
    replay(store, order, &mut |_| ()).map_err(|error| error.to_string())
}

fn counts(store: &MemStore) -> Counts {
    let found = audit(store).unwrap();
    assert!(found.totals.is_good(), "{found:?}");
    found.totals.counts
}

#[test]
fn samples_of_a_wrong_clock_come_back_as_those_of_a_right_one() {
    let right = rig(0);
    let mut wrong = rig(2 * HOUR_US);
    let store = wrong.store.clone();
    let before = counts(&store);
    assert_eq!((before.samples, before.quarantined), (SAMPLES, 2 * SAMPLES));
    let listed = list(&store, &Which::default(), DEFAULT_MEMORY_BYTES).unwrap();
    let Group {
        samples,
        replayed,
        first_us,
        last_us,
        ..
    } = &listed.groups[0];
    assert_eq!(
        (listed.groups.len(), *samples, *replayed),
        (1, 2 * SAMPLES, 0)
    );
    let first = START_US + 2 * HOUR_US;
    assert_eq!(
        (*first_us, *last_us),
        (Some(first), Some(first + 1_000_000))
    );

    let kept = rows_of(&store, Table::Quarantine);
    let payload = &kept[0]["payload"];
    let told = format!("\"told_us\":{first},");
    for part in [
        r#""unit":"u""#,
        r#""base":"wall""#,
        r#""time_class":"synced""#,
        &told,
    ] {
        assert!(payload.contains(part), "{part}: {payload}");
    }

    let dry = Order {
        is_dry: true,
        ..order(Some(-2 * HOUR_US))
    };
    let calls = store.operations();
    assert_eq!(run(&store, &dry).unwrap().replayed, 2 * SAMPLES);
    assert!(store.operations() > calls && counts(&store) == before);
    let done = run(&store, &order(Some(-2 * HOUR_US))).unwrap();
    assert_eq!(
        (done.replayed, done.before, done.stay.len()),
        (2 * SAMPLES, 0, 0)
    );
    assert_eq!(rows_without_class(&store), rows_without_class(&right.store));
    for table in [Table::Devices, Table::Metrics] {
        assert_eq!(rows_of(&store, table), rows_of(&right.store, table));
    }
    let classes = rows_of(&store, Table::Samples)
        .into_iter()
        .map(|mut row| row.remove("time_class"));
    assert_eq!(
        classes
            .filter(|class| class.as_deref() == Some("replayed"))
            .count(),
        28
    );
    let all = counts(&store);
    assert_eq!((all.samples, all.quarantined), (3 * SAMPLES, 0));
    // Once more, with whatever shift, and again after another flush.
    for shift_us in [-2 * HOUR_US, 0] {
        let again = run(&store, &order(Some(shift_us))).unwrap();
        assert_eq!((again.replayed, again.before), (0, 2 * SAMPLES));
    }
    flush_all(&mut wrong);
    assert_eq!(counts(&store).samples, 3 * SAMPLES);
    assert_eq!(guard(&store).unwrap().faults, []);
    let listed = list(&store, &Which::default(), DEFAULT_MEMORY_BYTES).unwrap();
    assert_eq!(
        (listed.groups[0].samples, listed.groups[0].replayed),
        (0, 2 * SAMPLES)
    );
}

#[test]
fn each_batch_has_a_digest_and_a_replay_adds_what_it_changes() {
    let store = rig(2 * HOUR_US).store;
    let of_batches = |store: &MemStore| -> Vec<(String, String, bool, bool)> {
        let mut rows = rows_of(store, Table::Digests);
        rows.sort_by_key(|row| (row.get("replay").cloned(), row["seq"].clone()));
        let mut short = |row: &BTreeMap<String, String>| {
            let (seq, samples) = (row["seq"].clone(), row["samples"].clone());
            let has = |column: &str| row.contains_key(column);
            (seq, samples, has("digest_quarantined"), has("replay"))
        };
        rows.iter().map(&mut short).collect()
    };
    let row = |seq: &str, samples: &str, is_refused, is_replay| {
        (seq.to_owned(), samples.to_owned(), is_refused, is_replay)
    };
    let came = [
        row("0", "14", true, false),
        row("1", "14", true, false),
        row("2", "14", false, false),
    ];
    assert_eq!(of_batches(&store), came);
    assert_eq!(counts(&store).undigested, 0);
    run(&store, &order(Some(-2 * HOUR_US))).unwrap();
    let replayed = [row("0", "0", true, true), row("1", "0", true, true)];
    assert_eq!(of_batches(&store), [&came[..], &replayed].concat());
    assert_eq!(counts(&store).undigested, 0);
}

#[test]
fn a_replay_that_is_cut_off_anywhere_is_finished_by_the_next() {
    let before = rig(2 * HOUR_US).store;
    let order = order(Some(-2 * HOUR_US));
    let mut were_between = 0;
    for lands in [false, true] {
        for cut in 0.. {
            let store = before.fork();
            match lands {
                false => store.crash_after(cut),
                true => store.crash_after_landing(cut),
            }
            let first = run(&store, &order);
            store.restart();
            if first.is_ok() {
                assert!(cut > 20, "{cut}");
                break;
            }
            let is_between = is_cut(&store).unwrap();
            were_between += u64::from(is_between);
            let found = audit(&store).unwrap();
            assert!(found.totals.is_good(), "cut {cut}: {found:?}");
            assert_eq!(found.totals.is_replay_cut, is_between);
            // By an operator who has forgotten which shift it was, and means another day.
            let other = Order {
                shift_us: Some(-DAY_US),
                ..order.clone()
            };
            let again = run(&store, &other).unwrap();
            assert_eq!(again.finished > 0, is_between, "cut {cut}");
            let all = counts(&store);
            assert_eq!(
                (all.samples, all.quarantined),
                (3 * SAMPLES, 0),
                "cut {cut}"
            );
            assert_eq!(guard(&store).unwrap().faults, [], "cut {cut}");
        }
    }
    assert!(were_between > 2, "{were_between}");
}

#[test]
fn a_replay_whose_samples_lost_their_version_is_not_taken_for_one_that_was_cut_off() {
    let store = rig(2 * HOUR_US).store;
    run(&store, &order(Some(-2 * HOUR_US))).unwrap();
    let log = store.list("samples/_delta_log").unwrap();
    let versions = log.iter().filter(|entry| entry.path.ends_with(".json"));
    let newest = versions.map(|entry| &entry.path).max().unwrap();
    store.delete(newest).unwrap();
    let files = |store: &MemStore| -> Vec<String> {
        let files = store.list("samples/hot").unwrap().into_iter();
        files.map(|entry| entry.path).collect()
    };
    let before = files(&store);
    let refused = run(&store, &order(Some(-2 * HOUR_US))).unwrap_err();
    assert!(refused.contains("samples/_delta_log"), "{refused}");
    assert_eq!(files(&store), before, "its readings are there alone");
}

#[test]
fn what_a_replay_took_back_is_pruned_with_what_was_refused() {
    let store = rig(2 * HOUR_US).store;
    let later = Order {
        now_us: START_US + 10 * DAY_US,
        ..order(Some(2 * DAY_US))
    };
    assert_eq!(run(&store, &later).unwrap().replayed, 2 * SAMPLES);
    // The day of receipt goes, and those to which the samples belong stay.
    assert!(prune(&store, 9, later.now_us).unwrap().files > 0);
    let all = counts(&store);
    assert_eq!((all.samples, all.quarantined), (2 * SAMPLES, 0));
    assert_eq!(rows_of(&store, Table::Quarantine), []);
}

#[test]
fn times_that_are_still_not_believed_stay_and_say_why() {
    let store = rig(2 * HOUR_US).store;
    let stays = |order: &Order| {
        let done = run(&store, order).unwrap();
        assert_eq!(done.replayed, 0);
        let mut said = String::new();
        for (why, stay) in done.stay {
            write!(said, "{why} {}: {}", stay.samples, stay.first).unwrap();
        }
        said
    };
    let said = stays(&order(None));
    assert!(
        said.starts_with("ahead 28: dev normal 0000000000000001 0 row 0 "),
        "{said}"
    );
    assert!(said.ends_with("after its receipt"), "{said}");
    let said = stays(&order(Some(DAY_US)));
    assert!(said.starts_with("ahead 28"), "{said}");
    let said = stays(&order(Some(i64::MIN)));
    assert!(said.starts_with("no_date 28"), "{said}");
    let month = Order {
        window: TimeWindow {
            max_late_us: Some(30 * DAY_US),
            ..TimeWindow::default()
        },
        ..order(Some(-31 * DAY_US))
    };
    assert!(stays(&month).starts_with("late 28"));
    // The collector was behind: what it refused is right.
    let late = Order {
        now_us: START_US + 3 * HOUR_US,
        ..order(Some(0))
    };
    assert_eq!(run(&store, &late).unwrap().replayed, 2 * SAMPLES);
    assert_eq!(counts(&store).quarantined, 0);
}

#[test]
fn only_what_is_meant_is_replayed() {
    let store = rig(2 * HOUR_US).store;
    let of = |which: Which| Order {
        which,
        ..order(Some(-2 * HOUR_US))
    };
    let text = |text: &str| Some(text.to_owned());
    let first_us = START_US + 2 * HOUR_US;
    for nothing in [
        Which {
            device: text("other"),
            ..Which::default()
        },
        Which {
            reason: text("undated"),
            ..Which::default()
        },
        Which {
            to_us: Some(first_us),
            ..Which::default()
        },
        Which {
            from_us: Some(first_us + 1_000_001),
            ..Which::default()
        },
    ] {
        assert_eq!(
            list(&store, &nothing, DEFAULT_MEMORY_BYTES).unwrap().groups,
            []
        );
        assert_eq!(run(&store, &of(nothing)).unwrap(), Done::default());
    }
    let second = Which {
        device: text("dev"),
        reason: text("impossible_time"),
        from_us: Some(first_us + 1),
        ..Which::default()
    };
    assert_eq!(run(&store, &of(second)).unwrap().replayed, SAMPLES);
    assert_eq!(counts(&store).quarantined, SAMPLES);
    // Little memory makes more passes, and nothing else.
    let done = run(
        &store,
        &Order {
            memory_bytes: 1,
            ..of(Which::default())
        },
    )
    .unwrap();
    assert_eq!((done.replayed, done.before), (SAMPLES, SAMPLES));
    assert_eq!(counts(&store).quarantined, 0);
}

fn stream(device: &str) -> Stream {
    Stream {
        device: DeviceId::new(device).unwrap(),
        lane: Lane::Normal,
        epoch: Epoch::new(7),
    }
}

/// A lake with rows of a quarantine, each a whole batch.
fn lake_of(refused: impl Iterator<Item = (String, u32, &'static str, String)>) -> MemStore {
    let store = MemStore::new();
    let claim = Claim::new(JournalId(1), START_US);
    let mut lake = Lake::open(store.clone(), Settings::default(), &claim).unwrap();
    let mut rows = LakeRows::new();
    for (seq, (device, samples, reason, payload)) in (0..).zip(refused) {
        let row = QuarantineRow {
            stream: stream(&device),
            seq,
            row: (samples == 1).then_some(0),
            metric: (samples == 1).then(|| "m".to_owned()),
            batch_samples: Some(samples),
            samples: i32::try_from(samples).unwrap(),
            reason: reason.to_owned(),
            payload: Some(payload.into_bytes()),
            at_us: START_US,
            cause: None,
        };
        rows.push_quarantine(row).unwrap();
        let epoch = EpochRow {
            stream: stream(&device),
            first_seq: seq,
            next_seq: seq + 1,
            state: EpochState::Open,
            clean: None,
            boot: None,
            at_us: START_US,
            record: None,
        };
        rows.push_epoch(epoch).unwrap();
    }
    let flush = Flush {
        journal: JournalId(1),
        first_pos: 0,
        last_pos: 9,
        at_us: START_US,
        rows: &rows,
        sinks: &[],
    };
    let plan = lake.stage(&flush).unwrap();
    lake.publish(&plan).unwrap();
    lake.commit(&plan).unwrap();
    store
}

const UPTIME: &str = r#"{"offset_us":0,"time_class":"undated","metric":"m","base":"uptime",
    "kind":"i64","value":3,"row":0,"told_us":5000000}"#;

#[test]
fn samples_of_a_boot_that_nothing_dated_are_dated_by_the_shift() {
    let store = lake_of([("d".to_owned(), 1, "undated", UPTIME.to_owned())].into_iter());
    let undated = run(&store, &order(None)).unwrap();
    assert_eq!(undated.stay["undated"].samples, 1);
    let done = run(&store, &order(Some(START_US))).unwrap();
    assert_eq!((done.replayed, done.stay.len()), (1, 0));
    let rows = rows_of(&store, Table::Samples);
    assert_eq!(rows[0]["ts"], (START_US + 5_000_000).to_string());
    assert_eq!(rows_of(&store, Table::Devices)[0]["device_id"], "d");
    assert_eq!(counts(&store).samples, 1);
    assert!(is_of_time("undated") && !is_of_time("undecodable"));
}

#[test]
fn what_cannot_be_read_stays_and_other_refusals_are_listed_and_left_alone() {
    let rows = [
        ("a", "impossible_time", "no JSON"),
        ("b", "impossible_time", "{\"offset_us\":1}"),
        ("c", "bad_payload", UPTIME),
    ];
    let store = lake_of(
        rows.into_iter()
            .map(|(d, why, what)| (d.into(), 1, why, what.into())),
    );
    let done = run(&store, &order(Some(0))).unwrap();
    assert_eq!((done.replayed, done.stay["unreadable"].samples), (0, 2));
    let listed = list(&store, &Which::default(), DEFAULT_MEMORY_BYTES).unwrap();
    let samples: Vec<u64> = listed.groups.iter().map(|group| group.samples).collect();
    assert_eq!(samples, [1, 1, 1]);
}

#[test]
fn a_list_of_groups_is_bounded_and_counts_the_others() {
    let one = |n: usize| (format!("d{n}"), 1, "undated", UPTIME.to_owned());
    let store = lake_of((0..MAX_GROUPS + 3).map(one));
    let listed = list(&store, &Which::default(), DEFAULT_MEMORY_BYTES).unwrap();
    assert_eq!((listed.groups.len(), listed.other_rows), (MAX_GROUPS, 3));
}

#[test]
fn many_samples_are_put_into_the_tables_in_several_runs() {
    const LIST: usize = 10_000;
    let mut list = r#"{"offset_us":0,"time_class":"wall","texts":[],
        "series":[{"metric":"m","base":"wall","kind":"i64"}],"samples":["#
        .to_owned();
    for row in 0..LIST {
        let comma = if row > 0 { "," } else { "" };
        write!(
            list,
            "{comma}[{row},0,{},{row}]",
            START_US + i64::try_from(row).unwrap()
        )
        .unwrap();
    }
    list.push_str("]}");
    let lists = MAX_RUN_SAMPLES / LIST + 1;
    let size = u32::try_from(LIST).unwrap();
    let store =
        lake_of((0..lists).map(|_| ("d".to_owned(), size, "impossible_time", list.clone())));
    let mut runs = Vec::new();
    let done = replay(&store, &order(Some(0)), &mut |done| {
        runs.push(done.replayed)
    })
    .unwrap();
    assert_eq!(done.replayed, (lists * LIST) as u64);
    assert_eq!(runs, [MAX_RUN_SAMPLES as u64, done.replayed]);
    let files = store.list("samples/hot").unwrap();
    assert_eq!(files.len(), 2);
    assert_eq!(counts(&store).samples, done.replayed);
}
