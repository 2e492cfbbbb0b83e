//! A lake that was tampered with: which command notices what, and that none panics.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{
    ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use headwater_lake::audit::{Options, audit, audit_with};
use headwater_lake::guard::guard;
use headwater_lake::{
    EpochState, HEAD_PATH, Lake, LakeError, LogRow, MARKS_PATH, MemStore, MetricRow, OWNER_PATH,
    QuarantineRow, Rows, Settings, Sha256, Store, Table, ValueKind,
};
use headwater_proto::sample::Value;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::properties::WriterProperties;

use crate::help::{
    MIDNIGHT_US, claim, device, epoch, flush, flush_of, gap, line, push_digest, push_digested,
    refused, sample, stream,
};

const FLUSHES: u64 = 6;

/// The flush whose files are tampered with: later ones follow, and a checkpoint covers it.
const VICTIM: u64 = 2;

/// Rows of every table. Of device `a` come three batches and a record of three log lines, of `q` a
/// batch of which half is in quarantine, of `g` a gap.
fn rows_of(at: u64) -> Rows {
    let mut rows = Rows::new();
    push_digested(&mut rows, "a", at * 4..at * 4 + 3);
    let lines: Vec<LogRow> = (0..3)
        .map(|n| LogRow {
            message: format!("line {n} of {at}"),
            record_lines: Some(3),
            ..line(&stream("a"), at * 4 + 3, n)
        })
        .collect();
    push_digest(&mut rows, (&stream("a"), at * 4 + 3), &[], &lines, &[]);
    lines
        .into_iter()
        .for_each(|row| rows.push_log(row).unwrap());
    let believed = sample("q", at, 0, Value::I64(7));
    rows.push_sample(&believed).unwrap();
    let refused = QuarantineRow {
        payload: Some(vec![1, 2]),
        ..refused(&stream("q"), at)
    };
    let parts = [refused];
    push_digest(&mut rows, (&stream("q"), at), &[believed], &[], &parts);
    let [refused] = parts;
    rows.push_quarantine(refused).unwrap();
    rows.push_gap(gap(&stream("g"), at, at)).unwrap();
    for (name, next) in [("a", at * 4 + 4), ("q", at + 1), ("g", at + 1)] {
        rows.push_epoch(epoch(&stream(name), next, EpochState::Open))
            .unwrap();
        rows.push_device(device(name)).unwrap();
    }
    let metric = MetricRow {
        metric: "m".into(),
        device_type: None,
        unit: Some("K".into()),
        kind: ValueKind::F64,
        at_us: MIDNIGHT_US,
    };
    rows.push_metric(metric).unwrap();
    rows
}

fn settings() -> Settings {
    Settings {
        checkpoint_versions: 4,
        ..Settings::default()
    }
}

fn whole_lake() -> MemStore {
    let store = MemStore::new();
    let mut lake = Lake::open(store.clone(), settings(), &claim()).unwrap();
    lake.put_schema(b"a schema of the wire").unwrap();
    for at in 0..FLUSHES {
        flush(&mut lake, (at, at), &rows_of(at));
    }
    lake.write_catalog().unwrap();
    store
}

/// Path of a table's file of one flush.
fn file_of(store: &MemStore, table: Table, flush: u64) -> String {
    let listed = store.list(&format!("{}/hot", table.name())).unwrap();
    let name = format!("-{flush:020}-{flush:020}-");
    let mut found = listed.into_iter().filter(|e| e.path.contains(&name));
    found.next().unwrap().path
}

fn version(table: Table, version: u64) -> String {
    format!("{}/_delta_log/{version:020}.json", table.name())
}

fn text(store: &MemStore, path: &str) -> String {
    String::from_utf8(store.get(path).unwrap().to_vec()).unwrap()
}

/// Writes a file anew with other rows, in the form that this program writes.
fn rewrite(store: &MemStore, path: &str, change: impl Fn(RecordBatch) -> Vec<RecordBatch>) {
    rewrite_as(store, path, None, change);
}

/// - `version`: that of its columns, if another.
fn rewrite_as(
    store: &MemStore,
    path: &str,
    version: Option<&str>,
    change: impl Fn(RecordBatch) -> Vec<RecordBatch>,
) {
    let bytes = store.get(path).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
    let meta = Arc::clone(reader.metadata());
    let batch = reader.build().unwrap().next().unwrap().unwrap();
    let file = meta.file_metadata();
    let mut pairs = file.key_value_metadata().cloned().unwrap();
    for pair in &mut pairs {
        if let Some(version) = version.filter(|_| pair.key == "headwater.schema_version") {
            pair.value = Some(version.to_owned());
        }
    }
    let properties = WriterProperties::builder()
        .set_created_by(file.created_by().unwrap().to_owned())
        .set_key_value_metadata(Some(pairs))
        .set_sorting_columns(meta.row_group(0).sorting_columns().cloned())
        .build();
    let before = batch.schema();
    let changed = change(batch);
    let schema = changed.first().map_or(before, RecordBatch::schema);
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties)).unwrap();
    for batch in changed {
        writer.write(&batch).unwrap();
    }
    store.replace(path, &writer.into_inner().unwrap()).unwrap();
}

/// Makes the log's entry of a file of the victim say what the file is now.
fn renew_entry(store: &MemStore, table: Table, before: &MemStore) {
    let path = file_of(store, table, VICTIM);
    let (old, new) = (before.get(&path).unwrap(), store.get(&path).unwrap());
    let json = version(table, VICTIM + 1);
    let entry = text(store, &json)
        .replace(&Sha256::of(&old).to_string(), &Sha256::of(&new).to_string())
        .replace(
            &format!("\"size\":{}", old.len()),
            &format!("\"size\":{}", new.len()),
        );
    store.replace(&json, entry.as_bytes()).unwrap();
}

#[test]
fn a_gap_without_a_time_span_is_a_fault_where_the_file_has_the_column_for_it() {
    let before = whole_lake();
    for (column, is_left_out) in [("span", false), ("t_first", false), ("span", true)] {
        let store = whole_lake();
        let path = file_of(&store, Table::Gaps, VICTIM);
        rewrite(&store, &path, |batch| {
            let at = batch.schema().index_of(column).unwrap();
            let mut columns = batch.columns().to_vec();
            let mut schema = batch.schema().as_ref().clone();
            if is_left_out {
                // A file of a version before the column.
                columns.remove(at);
                let fields = schema.fields.iter().filter(|field| field.name() != column);
                schema.fields = fields.cloned().collect();
            } else {
                columns[at] = arrow_array::new_null_array(columns[at].data_type(), 1);
            }
            vec![RecordBatch::try_new(Arc::new(schema), columns).unwrap()]
        });
        renew_entry(&store, Table::Gaps, &before);
        let quick = Options {
            with_hashes: false,
            ..Options::default()
        };
        let found = audit_with(&store, &quick).unwrap();
        let mut whats = found.faults.iter().map(|fault| fault.what.as_str());
        let is_told = whats.any(|what| what == "1 gaps in it have no time span");
        assert_eq!(is_told, !is_left_out, "{column}: {:?}", found.faults);
        let evicted = found.totals.missing["evicted"];
        assert_eq!(
            (evicted.gaps, evicted.without_span),
            (FLUSHES, u64::from(!is_left_out))
        );
    }
}

fn drop_entry(store: &MemStore, table: Table) {
    let json = version(table, VICTIM + 1);
    let text = text(store, &json);
    let lines = text.lines().filter(|line| !line.starts_with("{\"add\""));
    let text: String = lines.map(|line| format!("{line}\n")).collect();
    store.replace(&json, text.as_bytes()).unwrap();
}

/// Readers go by the entries since the beginning: no checkpoint says otherwise.
fn without_checkpoints(store: &MemStore) {
    for entry in store.list("").unwrap() {
        if entry.path.contains("checkpoint") {
            store.delete(&entry.path).unwrap();
        }
    }
}

fn with_column(batch: &RecordBatch, name: &str, column: ArrayRef) -> RecordBatch {
    let place = batch.schema().index_of(name).unwrap();
    let mut columns = batch.columns().to_vec();
    columns[place] = column;
    RecordBatch::try_new(batch.schema(), columns).unwrap()
}

fn without_row(batch: &RecordBatch, row: usize) -> Vec<RecordBatch> {
    let rest = batch.num_rows() - row - 1;
    vec![batch.slice(0, row), batch.slice(row + 1, rest)]
}

fn with_row_twice(batch: &RecordBatch, row: usize) -> Vec<RecordBatch> {
    let rest = batch.num_rows() - row;
    vec![batch.slice(0, row + 1), batch.slice(row, rest)]
}

fn texts(batch: &RecordBatch, name: &str, change: impl Fn(&str) -> String) -> RecordBatch {
    let old = batch.column_by_name(name).unwrap().as_string::<i32>();
    let new: StringArray = old.iter().map(|text| text.map(&change)).collect();
    with_column(batch, name, Arc::new(new))
}

fn floats_plus_one(batch: &RecordBatch) -> RecordBatch {
    let old = batch.column_by_name("value_f64").unwrap();
    let old = old.as_primitive::<Float64Type>();
    let new: Float64Array = old.iter().map(|value| value.map(|v| v + 1.0)).collect();
    with_column(batch, "value_f64", Arc::new(new))
}

fn a_microsecond_later(batch: &RecordBatch) -> RecordBatch {
    let old = batch.column_by_name("ts").unwrap();
    let old = old.as_primitive::<TimestampMicrosecondType>();
    let new: TimestampMicrosecondArray = old.iter().map(|time| time.map(|t| t + 1)).collect();
    with_column(batch, "ts", Arc::new(new.with_timezone("UTC")))
}

fn longs_plus_one(batch: &RecordBatch, name: &str) -> RecordBatch {
    let old = batch.column_by_name(name).unwrap();
    let old = old.as_primitive::<Int64Type>();
    let new: Int64Array = old.iter().map(|n| n.map(|n| n.wrapping_add(1))).collect();
    with_column(batch, name, Arc::new(new))
}

fn emptied(batch: &RecordBatch, name: &str) -> RecordBatch {
    let kind = batch.column_by_name(name).unwrap().data_type().clone();
    let nulls = arrow_array::new_null_array(&kind, batch.num_rows());
    with_column(batch, name, nulls)
}

/// The first two readings, which are of one batch, have each other's value.
fn values_swapped(batch: &RecordBatch) -> RecordBatch {
    let old = batch.column_by_name("value_f64").unwrap();
    let mut values: Vec<Option<f64>> = old.as_primitive::<Float64Type>().iter().collect();
    values.swap(0, 1);
    with_column(batch, "value_f64", Arc::new(Float64Array::from(values)))
}

fn rows_renumbered(batch: &RecordBatch) -> RecordBatch {
    let old = batch.column_by_name("row").unwrap();
    let old = old.as_primitive::<Int32Type>();
    let new: Int32Array = old.iter().map(|row| row.map(|row| 1 - row)).collect();
    with_column(batch, "row", Arc::new(new))
}

/// Every batch of `a` has one reading less, and says so.
fn smaller_batches(batch: &RecordBatch) -> Vec<RecordBatch> {
    let ints = |name: &str| {
        let column = batch.column_by_name(name).unwrap();
        column.as_primitive::<Int32Type>().clone()
    };
    let names = batch.column_by_name("device_id").unwrap();
    let names = names.as_string::<i32>();
    let (rows, sizes) = (ints("row"), ints("batch_samples"));
    let is_a = |row: usize| names.value(row) == "a";
    let new = (0..batch.num_rows()).map(|row| sizes.value(row) - i32::from(is_a(row)));
    let new: Int32Array = new.collect();
    let batch = with_column(batch, "batch_samples", Arc::new(new));
    let kept = (0..batch.num_rows()).filter(|row| !is_a(*row) || rows.value(*row) == 0);
    kept.map(|row| batch.slice(row, 1)).collect()
}

/// Rows of all devices but `a`.
fn without_device(batch: &RecordBatch) -> Vec<RecordBatch> {
    let names = batch.column_by_name("device_id").unwrap();
    let names = names.as_string::<i32>();
    let kept = (0..batch.num_rows()).filter(|row| names.value(*row) != "a");
    kept.map(|row| batch.slice(row, 1)).collect()
}

type Change = fn(RecordBatch) -> Vec<RecordBatch>;

/// What notices a change: the audit, the audit without hashes, the check of all bytes.
type Noticed = (bool, bool, bool);

const ALL: Noticed = (true, true, true);
const NOT_QUICK: Noticed = (true, false, true);
const VERIFY: Noticed = (false, false, true);

fn noticed(store: &MemStore) -> Noticed {
    let quick = Options {
        with_hashes: false,
        ..Options::default()
    };
    let is_bad = |options: &Options| {
        let found = audit_with(store, options).unwrap();
        assert_eq!(found.totals.faults, found.faults.len() as u64);
        !found.totals.is_good()
    };
    let found = guard(store).unwrap();
    assert_eq!(found.fault_count, found.faults.len() as u64);
    (
        is_bad(&Options::default()),
        is_bad(&quick),
        found.fault_count > 0,
    )
}

/// Does something to a fork of the lake and says what notices it.
struct Moves {
    before: MemStore,
    count: usize,
    wrong: Vec<String>,
}

impl Moves {
    fn expect(&mut self, what: &str, expected: Noticed, act: impl Fn(&MemStore)) {
        let store = self.before.fork();
        act(&store);
        let found = noticed(&store);
        self.count += 1;
        if found != expected {
            self.wrong
                .push(format!("{what}: {found:?}, not {expected:?}"));
        }
    }

    /// Rewrites a file of the victim, with its entry in the log or without.
    fn rewritten(
        &mut self,
        what: &str,
        table: Table,
        [plain, with_entry]: [Noticed; 2],
        change: impl Fn(RecordBatch) -> Vec<RecordBatch> + Copy,
    ) {
        let before = self.before.fork();
        let act = |store: &MemStore| rewrite(store, &file_of(store, table, VICTIM), change);
        self.expect(what, plain, act);
        self.expect(&format!("{what}, entry too"), with_entry, |store| {
            without_checkpoints(store);
            act(store);
            renew_entry(store, table, &before);
        });
    }
}

#[test]
fn each_way_of_tampering_is_noticed_by_the_audit_or_by_the_check_of_all_bytes() {
    let mut moves = Moves {
        before: whole_lake(),
        count: 0,
        wrong: Vec::new(),
    };
    assert_eq!(noticed(&moves.before), (false, false, false));
    assert!(moves.before.get(MARKS_PATH).is_ok() && moves.before.get(OWNER_PATH).is_ok());
    rewritten_rows(&mut moves);
    removed_files(&mut moves);
    changed_logs(&mut moves);
    assert!(moves.count >= 24, "{}", moves.count);
    assert!(moves.wrong.is_empty(), "{:#?}", moves.wrong);
}

fn rewritten_rows(moves: &mut Moves) {
    let samples = Table::Samples;
    moves.rewritten("a reading dropped", samples, [ALL, ALL], |batch| {
        without_row(&batch, 1)
    });
    moves.rewritten("a reading doubled", samples, [ALL, ALL], |batch| {
        with_row_twice(&batch, 1)
    });
    // Who makes the entry agree is found out by the digests alone.
    let changes: [(&str, Change); 10] = [
        ("values changed", |batch| vec![floats_plus_one(&batch)]),
        ("values of two rows swapped", |batch| {
            vec![values_swapped(&batch)]
        }),
        ("times changed", |batch| vec![a_microsecond_later(&batch)]),
        ("metrics renamed", |batch| {
            vec![texts(&batch, "metric", |metric| format!("{metric}2"))]
        }),
        ("labels changed", |batch| {
            vec![texts(&batch, "tags", |_| "{}".into())]
        }),
        ("labels lost", |batch| vec![emptied(&batch, "tags")]),
        ("sites changed", |batch| {
            vec![texts(&batch, "site", |_| "roof".into())]
        }),
        ("clocks made better", |batch| {
            vec![texts(&batch, "time_class", |_| "offset".into())]
        }),
        ("rows renumbered", |batch| vec![rows_renumbered(&batch)]),
        ("batches made smaller", |batch| smaller_batches(&batch)),
    ];
    for (what, change) in changes {
        moves.rewritten(what, samples, [NOT_QUICK, NOT_QUICK], change);
    }
    let refused = Table::Quarantine;
    moves.rewritten(
        "a reason changed",
        refused,
        [NOT_QUICK, NOT_QUICK],
        |batch| vec![texts(&batch, "reason", |_| "bad_payload".into())],
    );
    moves.rewritten("a payload lost", refused, [NOT_QUICK, NOT_QUICK], |batch| {
        vec![emptied(&batch, "payload")]
    });
    let digests = Table::Digests;
    moves.rewritten(
        "a digest dropped",
        digests,
        [NOT_QUICK, NOT_QUICK],
        |batch| without_row(&batch, 1),
    );
    moves.rewritten(
        "digests renumbered",
        digests,
        [NOT_QUICK, NOT_QUICK],
        |batch| vec![longs_plus_one(&batch, "seq")],
    );
    moves.rewritten(
        "digests changed",
        digests,
        [NOT_QUICK, NOT_QUICK],
        |batch| vec![longs_plus_one(&batch, "digest")],
    );
    moves.rewritten("a log line dropped", Table::Logs, [ALL, ALL], |batch| {
        without_row(&batch, 1)
    });
    moves.rewritten("a log line doubled", Table::Logs, [ALL, ALL], |batch| {
        with_row_twice(&batch, 1)
    });
    moves.rewritten(
        "a log line changed",
        Table::Logs,
        [NOT_QUICK, NOT_QUICK],
        |batch| vec![texts(&batch, "message", |_| "all is well".into())],
    );
    moves.rewritten(
        "times of log lines changed",
        Table::Logs,
        [NOT_QUICK, NOT_QUICK],
        |batch| vec![a_microsecond_later(&batch)],
    );
    // Units stand in a table of their own, of which rows come again and again.
    moves.rewritten(
        "a unit changed",
        Table::Metrics,
        [NOT_QUICK, VERIFY],
        |batch| vec![texts(&batch, "unit", |_| "F".into())],
    );
}

fn removed_files(moves: &mut Moves) {
    for table in Table::ALL {
        let name = table.name();
        let remove = |store: &MemStore| {
            store.delete(&file_of(store, table, VICTIM)).unwrap();
        };
        // Of metrics the streams need no row, so that nobody looks.
        let expected = match table {
            Table::Metrics => NOT_QUICK,
            Table::Samples
            | Table::Logs
            | Table::Quarantine
            | Table::Gaps
            | Table::Epochs
            | Table::Devices => ALL,
            Table::Digests => NOT_QUICK,
        };
        moves.expect(&format!("a file of {name} removed"), expected, remove);
        // Rows of `epochs`, `devices` and `metrics` come again and again: one flush less is no loss.
        let expected = match table {
            Table::Samples | Table::Logs | Table::Quarantine | Table::Gaps => ALL,
            Table::Epochs | Table::Devices | Table::Metrics => VERIFY,
            Table::Digests => NOT_QUICK,
        };
        moves.expect(&format!("{name}, entry too"), expected, |store| {
            without_checkpoints(store);
            drop_entry(store, table);
            remove(store);
        });
    }
    let before = moves.before.fork();
    moves.expect("a device removed", ALL, |store| {
        without_checkpoints(store);
        for at in 0..FLUSHES {
            let path = file_of(store, Table::Devices, at);
            rewrite(store, &path, |batch| without_device(&batch));
            if at == VICTIM {
                renew_entry(store, Table::Devices, &before);
            }
        }
    });
    moves.expect("an extra copy", VERIFY, |store| {
        let path = file_of(store, Table::Samples, VICTIM);
        let copy = path.replace("2026-11-22", "2026-11-23");
        let bytes = store.get(&path).unwrap();
        store.put_if_absent(&copy, &bytes).unwrap();
    });
    moves.expect("an extra file", VERIFY, |store| {
        let path = "samples/hot/dt=2026-11-22/extra.parquet";
        store.put_if_absent(path, b"rows").unwrap();
    });
}

fn changed_logs(moves: &mut Moves) {
    moves.expect("a hash taken away", NOT_QUICK, |store| {
        without_checkpoints(store);
        let json = version(Table::Samples, VICTIM + 1);
        let text = text(store, &json).replace("headwater.sha256", "another");
        store.replace(&json, text.as_bytes()).unwrap();
    });
    let cut = |store: &MemStore| {
        for table in Table::ALL {
            store.delete(&version(table, FLUSHES)).unwrap();
            store.delete(&file_of(store, table, FLUSHES - 1)).unwrap();
        }
    };
    moves.expect("the tail cut", ALL, cut);
    moves.expect("the tail cut, and the head", ALL, |store| {
        cut(store);
        store.delete(HEAD_PATH).unwrap();
    });
    moves.expect("a version removed", ALL, |store| {
        store.delete(&version(Table::Gaps, FLUSHES - 1)).unwrap();
    });
    moves.expect("a version before the checkpoint removed", VERIFY, |store| {
        store.delete(&version(Table::Gaps, VICTIM)).unwrap();
    });
    moves.expect("a checkpoint removed", VERIFY, |store| {
        store
            .delete("gaps/_delta_log/00000000000000000004.checkpoint.parquet")
            .unwrap();
    });
    moves.expect("a sum in the head changed", ALL, |store| {
        let text = text(store, HEAD_PATH).replace("\"rows\": 6", "\"rows\": 5");
        store.replace(HEAD_PATH, text.as_bytes()).unwrap();
    });
    moves.expect("an older head", VERIFY, |store| {
        let older = MemStore::new();
        let mut lake = Lake::open(older.clone(), settings(), &claim()).unwrap();
        flush(&mut lake, (0, 0), &rows_of(1));
        let head = older.get(HEAD_PATH).unwrap();
        store.replace(HEAD_PATH, &head).unwrap();
    });
}

/// A number from 0 to below `end`.
fn dice(state: &mut u64, end: usize) -> usize {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    usize::try_from((z ^ (z >> 31)) % end as u64).unwrap()
}

#[test]
fn of_400_flipped_bits_the_check_notices_each_and_no_command_panics() {
    let whole = whole_lake();
    let objects = whole.list("").unwrap();
    let mut seed = 12;
    let mut unnoticed = Vec::new();
    for _ in 0..400 {
        let store = whole.fork();
        let path = &objects[dice(&mut seed, objects.len())].path;
        let mut bytes = store.get(path).unwrap().to_vec();
        let bit = dice(&mut seed, bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        store.replace(path, &bytes).unwrap();
        let what = format!("bit {bit} of {path}");
        let noticed = catch_unwind(AssertUnwindSafe(|| noticed(&store)));
        let Ok((by_audit, _, by_verify)) = noticed else {
            panic!("{what}");
        };
        let is_file = path.contains("/hot/");
        if !by_verify || is_file && !by_audit {
            unnoticed.push(what);
        }
    }
    assert!(unnoticed.is_empty(), "{unnoticed:#?}");
}

#[test]
fn batches_of_a_version_before_digests_are_counted_and_no_fault() {
    let before = whole_lake();
    for (version, undigested, faults) in [(None, 0, 5), (Some("1"), 5, 0)] {
        let store = before.fork();
        without_checkpoints(&store);
        for table in [Table::Samples, Table::Logs, Table::Quarantine] {
            let path = file_of(&store, table, VICTIM);
            rewrite_as(&store, &path, version, |batch| vec![batch]);
            renew_entry(&store, table, &before);
        }
        store
            .delete(&file_of(&store, Table::Digests, VICTIM))
            .unwrap();
        drop_entry(&store, Table::Digests);
        let found = audit(&store).unwrap();
        let counted = (found.totals.counts.undigested, found.totals.faults);
        assert_eq!(counted, (undigested, faults), "{:?}", found.faults);
    }
}

#[test]
fn after_a_file_that_cannot_be_read_the_others_are_looked_at_too() {
    let store = whole_lake();
    let bad = [Table::Samples, Table::Logs, Table::Devices].map(|t| file_of(&store, t, VICTIM));
    store.replace(&bad[0], b"no Parquet at all").unwrap();
    store.delete(&bad[1]).unwrap();
    rewrite(&store, &bad[2], |batch| vec![batch.slice(0, 1)]);
    let audited = audit(&store).unwrap();
    assert!(!audited.totals.is_good());
    assert_eq!(audited.totals.counts.unexplained, 3 + 1 + 1);
    for faults in [audited.faults, guard(&store).unwrap().faults] {
        for path in &bad {
            assert!(faults.iter().any(|f| f.path == *path), "{path}: {faults:?}");
        }
        assert_eq!(faults.len(), 3, "{faults:?}");
    }
}

/// Opens the lake and adds two flushes, of which the second brings checkpoints.
fn go_on(store: &MemStore) -> Result<(), LakeError> {
    let mut lake = Lake::open(store.clone(), settings(), &claim())?;
    for at in FLUSHES..FLUSHES + 2 {
        let rows = rows_of(at);
        let plan = lake.stage(&flush_of((at, at), &rows))?;
        lake.publish(&plan)?;
        lake.commit(&plan)?;
        lake.finish(&plan)?;
    }
    Ok(())
}

#[test]
fn what_a_crash_leaves_is_no_fault() {
    let whole = whole_lake();
    let done = whole.fork();
    go_on(&done).unwrap();
    let operations = done.operations();
    assert_eq!(noticed(&done), (false, false, false));
    for cut in 0..operations {
        for lands in [false, true] {
            let store = whole.fork();
            if lands {
                store.crash_after_landing(cut);
            } else {
                store.crash_after(cut);
            }
            assert!(go_on(&store).is_err());
            store.restart();
            assert_eq!(guard(&store).unwrap().faults, [], "cut {cut}");
            let found = audit(&store).unwrap();
            assert!(found.totals.is_good(), "cut {cut}: {found:?}");
        }
    }
}
