//! Values, dates and the promises of the file format.

use headwater_lake::guard::guard;
use headwater_lake::{Encoding, Lake, MemStore, Rows, Settings, Store, Table};
use headwater_proto::sample::Value;

use crate::help::{
    MIDNIGHT_US, claim, epoch, flush, gap, open, push_batches, push_digest, read, sample, stream,
};

#[test]
fn every_value_comes_back_bit_for_bit() {
    let texts = ["", "ein Wört", "日本 🌊", "\0\n\"{}"];
    let floats = [
        f64::NAN,
        f64::from_bits(0x7ff8_dead_beef_0001),
        -0.0,
        f64::INFINITY,
        f64::MIN_POSITIVE / 2.0,
        0.1,
    ];
    let longs = [i64::MIN, -1, 0, i64::MAX];
    let mut values: Vec<Value<'_>> = Vec::new();
    values.extend(texts.map(Value::Str));
    values.extend(floats.map(Value::F64));
    values.extend(longs.map(Value::I64));
    values.extend([true, false].map(Value::Bool));
    values.push(Value::F32(0.1));
    let expected = |value: &Value<'_>| match value {
        Value::Str(text) => ("value_str", (*text).to_owned()),
        Value::F64(value) => ("value_f64", format!("{:016x}", value.to_bits())),
        Value::F32(value) => ("value_f64", format!("{:016x}", f64::from(*value).to_bits())),
        Value::I64(value) => ("value_i64", value.to_string()),
        Value::Bool(value) => ("value_bool", value.to_string()),
    };
    let mut rows = Rows::new();
    for (row, value) in (0..).zip(&values) {
        rows.push_sample(&sample("d", 3, row, *value)).unwrap();
    }
    let store = MemStore::new();
    flush(&mut open(&store), (0, 0), &rows);
    let found = read(&store, Table::Samples);
    assert_eq!(found.len(), values.len());
    for (row, (cells, value)) in found.iter().zip(&values).enumerate() {
        let (column, text) = expected(value);
        assert_eq!(cells.get(column), Some(&text), "row {row}");
        let others = cells
            .keys()
            .filter(|name| name.starts_with("value_"))
            .count();
        assert_eq!(others, 1, "exactly one value column: {cells:?}");
        assert_eq!(cells["row"], row.to_string());
        assert_eq!(
            (&*cells["site"], &*cells["lane"], &*cells["seq"]),
            ("hall", "normal", "3")
        );
        assert_eq!(
            cells["ingest_ts"],
            (MIDNIGHT_US + 123_000).to_string(),
            "whole milliseconds"
        );
        assert!(!cells.contains_key("device_type") && !cells.contains_key("time_err_ms"));
    }
}

#[test]
fn a_flush_is_split_at_midnight_utc() {
    let mut rows = Rows::new();
    for (row, offset_us) in [-1, 0, 86_399_999_999, 86_400_000_000]
        .into_iter()
        .enumerate()
    {
        let mut one = sample("d", 0, u32::try_from(row).unwrap(), Value::Bool(true));
        one.ts_us = MIDNIGHT_US + offset_us;
        rows.push_sample(&one).unwrap();
    }
    let store = MemStore::new();
    let plan = flush(&mut open(&store), (0, 0), &rows);
    assert_eq!(plan.files.len(), 3);
    let dates: Vec<_> = read(&store, Table::Samples)
        .iter()
        .map(|c| c["dt"].clone())
        .collect();
    assert_eq!(
        dates,
        ["2026-11-21", "2026-11-22", "2026-11-22", "2026-11-23"]
    );
    assert_eq!(guard(&store).unwrap().faults, []);
}

fn large_rows() -> Rows {
    let mut rows = Rows::new();
    for device in ["b", "a", "c"] {
        push_batches(&mut rows, device, 0..40_000);
    }
    rows.push_gap(gap(&stream("a"), 3, 4)).unwrap();
    rows.push_epoch(epoch(&stream("b"), 3, headwater_lake::EpochState::Open))
        .unwrap();
    rows
}

#[test]
fn files_of_both_encodings_keep_every_promise() {
    for encoding in [Encoding::Compact, Encoding::Compat] {
        let store = MemStore::new();
        let settings = Settings {
            encoding,
            ..Settings::default()
        };
        let mut lake = Lake::open(store.clone(), settings, &claim()).unwrap();
        flush(&mut lake, (0, 9), &large_rows());
        let found = guard(&store).unwrap();
        assert_eq!(found.faults, [], "{encoding:?}");
        assert_eq!((found.files, found.rows), (3, 240_002));
    }
}

#[test]
fn the_guard_notices_a_row_under_the_wrong_date() {
    let store = MemStore::new();
    let mut rows = Rows::new();
    push_batches(&mut rows, "d", 0..10);
    let plan = flush(&mut open(&store), (0, 0), &rows);
    let right = plan.paths().next().unwrap();
    let wrong = right.replace("2026-11-22", "2026-11-23");
    store
        .put_if_absent(&wrong, &store.get(&right).unwrap())
        .unwrap();
    let version = "samples/_delta_log/00000000000000000001.json";
    let text = String::from_utf8(store.get(version).unwrap().to_vec()).unwrap();
    store
        .replace(version, text.replace("2026-11-22", "2026-11-23").as_bytes())
        .unwrap();
    let faults = guard(&store).unwrap().faults;
    assert!(
        faults
            .iter()
            .any(|f| f.what.contains("its dt is 2026-11-23")),
        "{faults:?}"
    );
}

/// Batches of 100 rows of a slow sensor that has steps of 0.01, with so many metrics in each row.
fn batches_of_100_rows(metrics: &[&str]) -> Rows {
    let mut rows = Rows::new();
    let mut noise = 12_u64;
    for device in ["a", "b", "c", "d"] {
        let mut levels = vec![2_000_i64; metrics.len()];
        for seq in 0..200 {
            let mut batch = Vec::new();
            for row in 0..100 {
                for (metric, level) in metrics.iter().zip(&mut levels) {
                    noise = noise
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    *level += (noise >> 33) as i64 % 7 - 3;
                    let mut one = sample(device, seq, row, Value::F64(*level as f64 / 100.0));
                    one.metric = metric;
                    one.ts_us = MIDNIGHT_US + (seq as i64 * 100 + i64::from(row)) * 1_000_000;
                    one.batch_samples = 100 * u32::try_from(metrics.len()).unwrap();
                    batch.push(one);
                }
            }
            batch.iter().for_each(|one| rows.push_sample(one).unwrap());
            push_digest(&mut rows, (&stream(device), seq), &batch, &[], &[]);
        }
    }
    rows
}

#[test]
fn the_digest_of_a_batch_of_100_rows_costs_12_bytes_at_most() {
    // 8 of them are the digest. Rows of one metric that compress this well are the worst case.
    for (metrics, most_percent) in [(&["t"][..], 9.0), (&["t", "p", "u", "v"][..], 3.0)] {
        let store = MemStore::new();
        let plan = flush(&mut open(&store), (0, 0), &batches_of_100_rows(metrics));
        let bytes = |table| -> u64 {
            let files = plan.files.iter().filter(|file| file.table == table);
            files.map(|file| file.bytes).sum()
        };
        let (samples, digests) = (bytes(Table::Samples), bytes(Table::Digests));
        let percent = digests as f64 * 100.0 / samples as f64;
        let of_batch = digests as f64 / plan.rows(Table::Digests) as f64;
        println!(
            "{} metrics: samples {:.3} B each, digests {of_batch:.1} B a batch, {percent:.1} %",
            metrics.len(),
            samples as f64 / plan.rows(Table::Samples) as f64
        );
        assert!(
            of_batch <= 12.0 && percent <= most_percent,
            "{of_batch} {percent}"
        );
    }
}

#[test]
fn the_same_rows_give_the_same_bytes() {
    let plan_of = || {
        let store = MemStore::new();
        let mut lake = open(&store);
        lake.stage(&crate::help::flush_of((4, 5), &large_rows()))
            .unwrap()
    };
    assert_eq!(plan_of(), plan_of());
}
