//! What a batch says of its values reaches the tables.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

mod common;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray as _;
use arrow_array::types::Int64Type;
use common::{Rig, START_US, bundle_of, device, flush_all, greeted};
use headwater_lake::Store as _;
use headwater_proto::codec::{Encoder, Rows};
use headwater_proto::frame::Kind;
use headwater_proto::sample::Value;
use headwater_proto::schema::{Column, ColumnKind, Schema, Series};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// All rows of a table, by file.
fn read(rig: &Rig, table: &str) -> Vec<RecordBatch> {
    let files = rig.store.list(&format!("{table}/hot")).unwrap();
    let read = |path: &str| {
        let bytes = rig.store.get(path).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
        reader.build().unwrap().map(Result::unwrap)
    };
    files.iter().flat_map(|file| read(&file.path)).collect()
}

/// The texts of a column, none for a null.
fn texts(batches: &[RecordBatch], name: &str) -> Vec<Option<String>> {
    let of = |batch: &RecordBatch| {
        let column = batch.column_by_name(name).unwrap().as_string::<i32>();
        let texts = column.iter().map(|text| text.map(str::to_owned));
        texts.collect::<Vec<_>>()
    };
    batches.iter().flat_map(of).collect()
}

#[test]
fn labels_units_and_the_error_of_a_time_reach_the_tables() {
    let label = |value: &str| Series {
        labels: vec![("room".to_owned(), value.to_owned())],
    };
    let mut schema = Schema::new(
        1000,
        vec![Column {
            unit: "Cel".to_owned(),
            ..Column::new("temp", ColumnKind::F64)
        }],
    );
    schema.series = vec![label("kitchen"), label("attic")];
    let mut rows = Rows::new(&schema);
    for series in [0, 1] {
        let values = [Some(Value::F64(20.0))];
        rows.push_row(START_US, series, &values).unwrap();
    }
    let (mut batch, mut told) = (Vec::new(), vec![0]);
    Encoder::new(&schema).encode(0, &rows, &mut batch).unwrap();
    schema.encode(&mut told).unwrap();
    let frames = [(Kind::Schema, told), (Kind::Batch, batch)];
    let mut rig = greeted();
    rig.up(bundle_of(&device(), 1, 0, &frames), 1);
    assert!(rig.sync());
    flush_all(&mut rig);
    let samples = read(&rig, "samples");
    let mut tags = texts(&samples, "tags");
    tags.sort();
    let json = |room: &str| Some(format!(r#"{{"room":"{room}"}}"#));
    assert_eq!(tags, [json("attic"), json("kitchen")]);
    let errors = samples.iter().flat_map(|batch| {
        let column = batch.column_by_name("time_err_ms").unwrap();
        column
            .as_primitive::<Int64Type>()
            .iter()
            .collect::<Vec<_>>()
    });
    // The sender's clock may be off by that.
    assert_eq!(errors.collect::<Vec<_>>(), [Some(1), Some(1)]);
    let metrics = read(&rig, "metrics");
    assert_eq!(texts(&metrics, "metric"), [Some("temp".to_owned())]);
    assert_eq!(texts(&metrics, "unit"), [Some("Cel".to_owned())]);
}
