//! The exact bytes of schema and batch version 1. When one of these fails, the change is wrong:
//! batches of today must stay readable, and equal rows must give equal bytes on every machine.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use headwater_proto::codec::params::Scale;
use headwater_proto::codec::{BackEnd, Encoder, Limits, RowVisitor, Rows, decode, fit};
use headwater_proto::sample::Value;
use headwater_proto::schema::{Column, ColumnKind, Schema, Series};

fn schema() -> Schema {
    let mut schema = Schema::new(
        1,
        vec![
            Column {
                unit: "Cel".into(),
                ..Column::new("temperature", ColumnKind::F64)
            },
            Column::new("wind", ColumnKind::F64),
            Column::new("axis", ColumnKind::F32),
            Column::new("count", ColumnKind::I64),
            Column {
                nullable: false,
                ..Column::new("open", ColumnKind::Bool)
            },
            Column::new("state", ColumnKind::Str),
            Column::new("converter", ColumnKind::F32),
            Column::new("average", ColumnKind::F64),
            Column::new("derived", ColumnKind::I64),
        ],
    );
    schema.series = vec![
        Series {
            labels: vec![("room".into(), "a".into())],
        },
        Series {
            labels: vec![("room".into(), "b".into())],
        },
    ];
    schema.tags = vec![("site".into(), "north".into())];
    schema
}

/// Rows that reach every class of symbol: residuals, corrections, missing values, raw bits, recent
/// values, new texts, a time out of step, a series out of turn; and every kind of scale: decimals,
/// unit factors, bit patterns, steps of a converter, averages, a column that follows another. At 160 rows
/// the range back end codes several blocks and keeps raw bits aside; at 40 it does neither.
fn rows(schema: &Schema, count: i32) -> Rows {
    let mut rows = Rows::new(schema);
    let mut noise = 12_345u32;
    let mut level = 0i32;
    for at in 0..count {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let wobble = (noise >> 28).cast_signed() - 8;
        let temperature = match at {
            7 | 8 => None,
            9 => Some(Value::F64(f64::from_bits(0x7ff8_0000_0000_0042))),
            10 => Some(Value::F64(-0.0)),
            _ => Some(Value::F64(f64::from(2_100 + at + wobble) / 100.0)),
        };
        let wind = Some(Value::F64(f64::from(wobble) * 1.15078));
        let axis = (at != 20).then(|| Value::F32(f32::from_bits(0x3f80_0000 ^ (noise >> 20))));
        let count = Some(Value::I64(if at == 30 {
            i64::MIN
        } else {
            i64::from(at / 4) * 10
        }));
        let open = Some(Value::Bool(at % 13 > 9));
        let text = format!("event {at}");
        let state = match at {
            12 => None,
            25 => Some(Value::Str(&text)),
            _ => Some(Value::Str(if at < 18 { "idle" } else { "running" })),
        };
        level += ((noise >> 20) & 63).cast_signed() - 31;
        #[expect(clippy::cast_possible_truncation, reason = "a step has few digits")]
        let converter = ((f64::from(level) * 2.441_406_25).round() / 1_000.0) as f32;
        let average: f64 = format!("{:.14e}", f64::from(4_000 + wobble * 5) / 12.0)
            .parse()
            .unwrap();
        let derived = i64::from(level) * 37 + i64::from(wobble & 3);
        let time = 1_700_000_000_000_000 + i64::from(at / 2) * 1_000_000;
        let time = if at == 33 { time + 250_000 } else { time };
        let series = if at == 15 { 0 } else { u32::from(at % 2 == 1) };
        let cells = [
            temperature,
            wind,
            axis,
            count,
            open,
            state,
            Some(Value::F32(converter)),
            Some(Value::F64(average)),
            Some(Value::I64(derived)),
        ];
        rows.push_row(time, series, &cells).unwrap();
    }
    rows
}

struct Compare<'a>(&'a Rows, usize);

impl RowVisitor for Compare<'_> {
    fn row(&mut self, row: u32, time_us: i64, series: u32) {
        assert_eq!(
            (self.0.time_us(row as usize), self.0.series(row as usize)),
            (time_us, series)
        );
        self.1 = row as usize;
    }

    fn value(&mut self, column: usize, value: Value<'_>) {
        assert!(self.0.value(self.1, column).unwrap().same_bits(&value));
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|c| c.to_digit(16))
        .map(|d| u8::try_from(d).unwrap())
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

const SCHEMA: &str = include_str!("golden/codec_schema_v1.hex");
const VARINT: &str = include_str!("golden/codec_batch_varint_v1.hex");
const RICE: &str = include_str!("golden/codec_batch_rice_v1.hex");
const RANGE: &str = include_str!("golden/codec_batch_range_v1.hex");
const RANGE_SMALL: &str = include_str!("golden/codec_batch_range_small_v1.hex");

#[test]
fn the_bytes_of_schema_version_1_are_frozen() {
    let mut schema = schema();
    let rows = rows(&schema, 160);
    fit(&rows, &mut schema);
    let frozen = Schema::decode(&unhex(SCHEMA), &Limits::DEFAULT).unwrap();
    let mut bytes = Vec::new();
    frozen.encode(&mut bytes).unwrap();
    assert_eq!(hex(&bytes), SCHEMA.trim());
    assert_eq!(frozen.columns.len(), schema.columns.len());
    assert_eq!(frozen.tags, schema.tags);
    assert_eq!(frozen.series, schema.series);
    // The fixture reaches what it is meant to reach.
    let [.., converter, average, derived] = frozen.columns.as_slice() else {
        panic!("the frozen schema has fewer columns");
    };
    assert!(converter.params.stride > 1 << 16);
    assert!(matches!(average.params.scale, Scale::Printed(_)));
    assert!(!derived.params.taps.is_empty());
}

/// The batches that are frozen, and the rows of each.
const BATCHES: [(BackEnd, i32, &str); 4] = [
    (BackEnd::Varint, 160, VARINT),
    (BackEnd::Rice, 160, RICE),
    (BackEnd::Range, 160, RANGE),
    (BackEnd::Range, 40, RANGE_SMALL),
];

#[test]
fn the_bytes_of_batch_version_1_are_frozen_for_all_back_ends() {
    let schema = Schema::decode(&unhex(SCHEMA), &Limits::DEFAULT).unwrap();
    for (back_end, count, golden) in BATCHES {
        let rows = rows(&schema, count);
        let mut payload = Vec::new();
        Encoder::with_back_end(&schema, back_end)
            .encode(5, &rows, &mut payload)
            .unwrap();
        assert_eq!(hex(&payload), golden.trim(), "{back_end:?}, {count} rows");
        decode(
            &unhex(golden),
            &schema,
            &Limits::DEFAULT,
            &mut Compare(&rows, 0),
        )
        .unwrap();
    }
}

/// Prints the golden bytes of a new version: `cargo test --test codec_golden -- --ignored --nocapture`.
#[test]
#[ignore = "prints bytes for a new version; never to make a failing test pass"]
fn print_the_bytes_of_a_new_version() {
    let mut schema = schema();
    let rows = rows(&schema, 160);
    fit(&rows, &mut schema);
    let mut bytes = Vec::new();
    schema.encode(&mut bytes).unwrap();
    println!("SCHEMA {}", hex(&bytes));
    for (back_end, count, _) in BATCHES {
        let mut payload = Vec::new();
        Encoder::with_back_end(&schema, back_end)
            .encode(5, &self::rows(&schema, count), &mut payload)
            .unwrap();
        println!("{back_end:?}, {count} rows {}", hex(&payload));
    }
}
