//! Converters of few bits, and codes that went through a formula: doubles of all digits that come again.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use headwater_proto::codec::model::{History, Plan, Symbol};
use headwater_proto::codec::params::{Corrections, Scale};
use headwater_proto::codec::stream::{StreamEncoder, StreamError};
use headwater_proto::codec::{BackEnd, Encoder, Limits, RowVisitor, Rows, decode, fit};
use headwater_proto::sample::Value;
use headwater_proto::schema::{Column, ColumnKind, Schema, SchemaError};

const BACK_ENDS: [BackEnd; 3] = [BackEnd::Varint, BackEnd::Rice, BackEnd::Range];

/// A thermistor by Steinhart and Hart, in a divider, 12 bits.
fn thermistor(code: f64) -> f64 {
    let ohms = 10_000.0 * code / (4_096.0 - code);
    let ln = ohms.ln();
    1.0 / (1.129_148e-3 + 2.341_25e-4 * ln + 8.767_41e-8 * ln * ln * ln) - 273.15
}

/// A pH probe by Nernst at 25 degrees, 12 bits over 1.2 V.
fn acidity(code: f64) -> f64 {
    7.0 - (code * 1.2 / 4_096.0 - 0.6) / (8.314_462 * 298.15 / 96_485.33 * 10.0f64.ln())
}

/// A PT100 by Callendar and van Dusen, 12 bits over 200 ohms.
fn platinum(code: f64) -> f64 {
    let (a, b) = (3.9083e-3, -5.775e-7);
    let ratio = code * 200.0 / 4_096.0 / 100.0;
    (-a + (a * a - 4.0 * b * (1.0 - ratio)).sqrt()) / (2.0 * b)
}

/// A photodiode behind a logarithmic amplifier, 12 bits.
fn light(code: f64) -> f64 {
    0.013 * ((code + 17.0) / 611.3).exp()
}

/// Codes of a converter: a slow wave, and noise of a few codes.
fn code(row: u32, middle: f64) -> f64 {
    let noise = (row.wrapping_mul(2_654_435_761) >> 13) % 5;
    let wave = (f64::from(row) / 150.0).sin() * 60.0;
    (middle + wave).round() + f64::from(noise)
}

fn schema() -> Schema {
    let names = ["thermistor", "acidity", "platinum", "light"];
    let columns = names.map(|name| Column::new(name, ColumnKind::F64));
    Schema::new(1, columns.into())
}

fn rows(schema: &Schema, span: std::ops::Range<u32>, lift: f64) -> Rows {
    let mut rows = Rows::new(schema);
    for row in span {
        let values = [
            thermistor(code(row, 2_100.0 + lift)),
            acidity(code(row + 7, 1_500.0 + lift)),
            platinum(code(row + 31, 2_600.0 + lift)),
            light(code(row + 77, 900.0 + lift)),
        ];
        let cells = values.map(|value| Some(Value::F64(value)));
        let time = 1_760_000_000_000_000 + i64::from(row) * 1_000_000;
        rows.push_row(time, 0, &cells).unwrap();
    }
    rows
}

struct Compare<'a>(&'a Rows, usize);

impl RowVisitor for Compare<'_> {
    fn row(&mut self, row: u32, time_us: i64, _: u32) {
        assert_eq!(self.0.time_us(row as usize), time_us);
        self.1 = row as usize;
    }

    fn value(&mut self, column: usize, value: Value<'_>) {
        assert!(self.0.value(self.1, column).unwrap().same_bits(&value));
    }
}

/// Bytes of the rows under a schema, which come back.
fn bytes(schema: &Schema, back_end: BackEnd, rows: &Rows) -> usize {
    let mut written = Vec::new();
    schema.encode(&mut written).unwrap();
    let schema = Schema::decode(&written, &Limits::DEFAULT).unwrap();
    let mut payload = Vec::new();
    Encoder::with_back_end(&schema, back_end)
        .encode(1, rows, &mut payload)
        .unwrap();
    decode(&payload, &schema, &Limits::DEFAULT, &mut Compare(rows, 0)).unwrap();
    payload.len()
}

fn fitted(rows: &Rows) -> Schema {
    let mut schema = schema();
    fit(rows, &mut schema);
    schema
}

#[test]
fn formulas_of_converters_are_ranks_and_take_a_third_of_the_bytes_of_their_bits() {
    let schema = fitted(&rows(&schema(), 0..1_000, 0.0));
    let mut plain = schema.clone();
    for column in &mut plain.columns {
        assert_eq!(column.params.scale, Scale::Levels, "{}", column.name);
        column.levels.clear();
        column.params = Column::new("", ColumnKind::F64).params;
        column.params.scale = Scale::Bits;
        column.params.residual_bits = 50;
    }
    for (first, count) in [(1_000, 100), (1_300, 10)] {
        let batch = rows(&schema, first..first + count, 0.0);
        for back_end in [BackEnd::Rice, BackEnd::Range] {
            let (ranked, plain) = (
                bytes(&schema, back_end, &batch),
                bytes(&plain, back_end, &batch),
            );
            assert!(ranked * 3 < plain, "{back_end:?}: {ranked} {plain}");
        }
        bytes(&schema, BackEnd::Varint, &batch);
    }
}

#[test]
fn values_that_are_no_level_come_back_and_are_cheap_when_they_come_again() {
    let schema = fitted(&rows(&schema(), 0..1_000, 0.0));
    let other = rows(&schema, 0..64, 400.0);
    for back_end in BACK_ENDS {
        bytes(&schema, back_end, &other);
    }
    let mut same = Rows::new(&schema);
    let value = |odd| Some(Value::F64(if odd { 0.123_456_789 } else { -7.654_321e9 }));
    for row in 0..100i64 {
        same.push_row(row, 0, &[value(row % 2 == 0); 4]).unwrap();
    }
    let bytes = bytes(&schema, BackEnd::Range, &same);
    assert!(bytes < 300, "{bytes} bytes for two values of four columns");
}

#[test]
fn a_fit_to_other_rows_keeps_the_levels_of_the_one_before() {
    let mut schema = fitted(&rows(&schema(), 0..1_000, 0.0));
    let before = schema.clone();
    fit(&rows(&schema, 0..1_000, 100.0), &mut schema);
    for (now, before) in schema.columns.iter().zip(&before.columns) {
        assert!(now.levels.len() > before.levels.len(), "{}", now.name);
        let kept = |level| now.levels.binary_search(level).is_ok();
        assert!(before.levels.iter().all(kept), "{}", now.name);
    }
}

#[test]
fn noise_in_all_digits_has_no_levels() {
    let mut schema = Schema::new(1, vec![Column::new("noise", ColumnKind::F64)]);
    let mut rows = Rows::new(&schema);
    let mut noise = 1u64;
    for row in 0..1_000 {
        noise = noise
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let value = f64::from_bits(noise >> 12 | 1023 << 52);
        rows.push_row(row, 0, &[Some(Value::F64(value))]).unwrap();
    }
    fit(&rows, &mut schema);
    assert!(schema.columns[0].levels.is_empty());
    assert_ne!(schema.columns[0].params.scale, Scale::Levels);
}

#[test]
fn a_schema_with_levels_out_of_order_or_beyond_the_limit_is_refused() {
    let good = fitted(&rows(&schema(), 0..1_000, 0.0));
    let mut written = Vec::new();
    good.encode(&mut written).unwrap();
    let count: usize = good.columns.iter().map(|column| column.levels.len()).sum();
    let mut limits = Limits {
        text_bytes: u32::try_from(count * 8).unwrap(),
        ..Limits::DEFAULT
    };
    assert_eq!(Schema::decode(&written, &limits).unwrap(), good);
    limits.text_bytes -= 1;
    assert!(matches!(
        Schema::decode(&written, &limits),
        Err(SchemaError::TooMany(_))
    ));

    for wrong in [
        |levels: &mut Vec<i64>| levels.reverse(),
        |levels: &mut Vec<i64>| levels.insert(0, levels[0]),
        |levels: &mut Vec<i64>| levels.clear(),
    ] {
        let mut bad = good.clone();
        wrong(&mut bad.columns[1].levels);
        assert_eq!(
            bad.encode(&mut Vec::new()),
            Err(SchemaError::Invalid("level"))
        );
    }
    let mut bad = good;
    bad.columns[1].params.scale = Scale::Bits;
    assert_eq!(
        bad.encode(&mut Vec::new()),
        Err(SchemaError::Invalid("level"))
    );
}

#[test]
fn the_encoder_of_a_microcontroller_refuses_levels() {
    let schema = fitted(&rows(&schema(), 0..1_000, 0.0));
    let plans: Vec<Plan> = schema
        .columns
        .iter()
        .map(|column| {
            let mut params = column.params;
            params.memory = 0;
            Plan::new(column.kind, column.nullable, params, 0)
        })
        .collect();
    let mut histories: Vec<History<i64>> = plans.iter().map(History::new).collect();
    let mut symbols = vec![Symbol::default(); plans.len()];
    let mut out = [0u8; 256];
    let refused = StreamEncoder::new(
        (&plans, schema.time),
        (1, BackEnd::Rice),
        &mut histories,
        &mut symbols,
        &mut out,
    );
    assert_eq!(refused.err(), Some(StreamError::Schema));
}

/// Rows of one column, a millisecond apart.
fn one_column(schema: &Schema, values: impl Iterator<Item = Value<'static>>) -> Rows {
    let mut rows = Rows::new(schema);
    for (time, value) in (0..).zip(values) {
        rows.push_row(time * 1_000, 0, &[Some(value)]).unwrap();
    }
    rows
}

#[test]
fn a_sentinel_among_the_steps_of_a_converter_is_fitted_and_comes_back() {
    let mut schema = Schema::new(1, vec![Column::new("steps", ColumnKind::I64)]);
    let steps = (0..40).map(|at| if at == 17 { i64::MIN } else { at * 7 + at % 3 });
    let rows = one_column(&schema, steps.map(Value::I64));
    fit(&rows, &mut schema);
    let mut payload = Vec::new();
    Encoder::new(&schema)
        .encode(7, &rows, &mut payload)
        .unwrap();
    decode(&payload, &schema, &Limits::DEFAULT, &mut Compare(&rows, 0)).unwrap();
}

/// What needs a correction is remembered as well: twelve values that come again take little.
#[test]
fn values_with_rare_corrections_are_recent_values() {
    let mut column = Column::new("knots", ColumnKind::F64);
    column.params.scale = Scale::Decimal(5);
    column.params.corrections = Corrections::Rare;
    column.params.memory = 32;
    let schema = Schema::new(1, vec![column]);
    let knots = (0..300).map(|at| f64::from((at * at / 7 + at / 3) % 12 * 40_009 + 7) * 1.15078);
    let rows = one_column(&schema, knots.map(Value::F64));
    let mut payload = Vec::new();
    let mut encoder = Encoder::with_back_end(&schema, BackEnd::Range);
    encoder.encode(7, &rows, &mut payload).unwrap();
    // 12 ranks take less than four bits, of which there are 300.
    assert!(payload.len() < 230, "{} bytes", payload.len());
    decode(&payload, &schema, &Limits::DEFAULT, &mut Compare(&rows, 0)).unwrap();
}
