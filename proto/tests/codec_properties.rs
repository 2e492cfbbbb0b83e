//! Properties of the batch codec: what goes in comes out bit for bit, and no bytes make it panic.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use headwater_proto::codec::model::{History, Plan, Predictor, Symbol};
use headwater_proto::codec::params::{Corrections, Pace, Params, Scale, Tap, Taps, TimeParams};
use headwater_proto::codec::stream::{Cell, StreamEncoder};
use headwater_proto::codec::{
    BackEnd, BatchHeader, DecodeError, Encoder, Limits, RowVisitor, Rows, decode, fit,
};
use headwater_proto::sample::{OwnedValue, Value};
use headwater_proto::schema::{Column, ColumnKind, MAX_VALUE_TEXT_BYTES, Schema, Series};
use proptest::prelude::*;

type Row = (i64, u32, Vec<Option<OwnedValue>>);

/// Keeps what it visits.
#[derive(Default)]
struct Keep(Vec<Kept>);

/// Time, series, and each value with its column.
type Kept = (i64, u32, Vec<(usize, OwnedValue)>);

impl RowVisitor for Keep {
    fn row(&mut self, row: u32, time_us: i64, series: u32) {
        assert_eq!(row as usize, self.0.len());
        self.0.push((time_us, series, Vec::new()));
    }

    fn value(&mut self, column: usize, value: Value<'_>) {
        self.0.last_mut().unwrap().2.push((column, value.into()));
    }
}

fn kind() -> impl Strategy<Value = ColumnKind> {
    prop_oneof![
        Just(ColumnKind::Bool),
        Just(ColumnKind::I64),
        Just(ColumnKind::F32),
        Just(ColumnKind::F64),
        Just(ColumnKind::Str),
    ]
}

fn params(kind: ColumnKind) -> impl Strategy<Value = Params> {
    let number = matches!(kind, ColumnKind::I64 | ColumnKind::F32 | ColumnKind::F64);
    let float = matches!(kind, ColumnKind::F32 | ColumnKind::F64);
    let most = match kind {
        ColumnKind::F32 => 9,
        ColumnKind::F64 => 22,
        ColumnKind::Bool | ColumnKind::I64 | ColumnKind::Str => 0u8,
    };
    (
        (0..=most, 0u8..5, any::<bool>(), 0usize..6, 2u16..=18_000),
        (
            prop_oneof![Just(1u64), 2u64..1_000, Just(i64::MAX.unsigned_abs())],
            any::<u64>(),
            prop_oneof![3 => Just(0u32), 1 => 65_537u32..400_000, 1 => 65_537u32..=u32::MAX],
        ),
        (
            prop_oneof![Just(0i64), -500i64..500, any::<i64>()],
            0u8..=63,
            0u8..=68,
            0u8..=15,
            prop_oneof![
                Just((0i64, 0u8)),
                (-50i64..50, 0u8..=63),
                (any::<i64>(), 0u8..=63)
            ],
            0u8..=64,
        ),
        prop_oneof![Just(0u8), 2u8..=32, 33u8..=255],
    )
        .prop_map(
            move |(
                (exponent, scale, often, predictor, parts),
                (divisor, offset, stride),
                (
                    reference,
                    reference_bits,
                    residual_bits,
                    zero_share,
                    (slope, slope_bits),
                    kin_bits,
                ),
                memory,
            )| {
                let divisor = if number { divisor } else { 1 };
                let stride = if number && divisor == 1 { stride } else { 0 };
                let predictor = if number {
                    Predictor::ALL[predictor]
                } else {
                    Predictor::Last
                };
                let (slope, slope_bits) = if predictor.goes_on() {
                    (slope, slope_bits)
                } else {
                    (0, 0)
                };
                let plain = if kind == ColumnKind::Bool {
                    reference & 1
                } else {
                    0
                };
                Params {
                    scale: match scale {
                        1 if float => Scale::Bits,
                        2 if float => Scale::Parts(parts),
                        3 if kind == ColumnKind::F64 => Scale::Printed(parts),
                        _ => Scale::Decimal(exponent),
                    },
                    corrections: if often && float {
                        Corrections::Often
                    } else {
                        Corrections::Rare
                    },
                    divisor,
                    stride,
                    offset: offset % divisor,
                    predictor,
                    slope,
                    slope_bits,
                    kin_bits: if number { kin_bits } else { 0 },
                    taps: Taps::NONE,
                    first_taps: Taps::NONE,
                    first_bits: 0,
                    reference: if number { reference } else { plain },
                    reference_bits: if number { reference_bits } else { 0 },
                    residual_bits: if number { residual_bits } else { 6 },
                    zero_share,
                    memory: if number { memory } else { 0 },
                }
            },
        )
}

fn value(kind: ColumnKind) -> BoxedStrategy<OwnedValue> {
    match kind {
        ColumnKind::Bool => any::<bool>().prop_map(OwnedValue::Bool).boxed(),
        ColumnKind::I64 => prop_oneof![
            -9i64..9,
            any::<i64>(),
            (-900i64..900).prop_map(|v| v * 7),
            Just(i64::MIN),
            Just(i64::MAX)
        ]
        .prop_map(OwnedValue::I64)
        .boxed(),
        ColumnKind::F32 => prop_oneof![
            any::<u32>().prop_map(f32::from_bits),
            (-2_000i16..2_000).prop_map(|v| f32::from(v) / 100.0),
            Just(-0.0f32),
        ]
        .prop_map(OwnedValue::F32)
        .boxed(),
        ColumnKind::F64 => prop_oneof![
            any::<u64>().prop_map(f64::from_bits),
            (-2_000i32..2_000).prop_map(|v| f64::from(v) / 100.0),
            (-90i32..90).prop_map(|v| f64::from(v) * 1.15078),
            (-9_000i32..9_000).prop_map(|v| f64::from(v) / 30.0),
            (-9_000i32..9_000)
                .prop_map(|v| format!("{:.14e}", f64::from(v) / 12.0).parse().unwrap()),
            Just(-0.0f64),
        ]
        .prop_map(OwnedValue::F64)
        .boxed(),
        ColumnKind::Str => prop_oneof!["[a-c]{0,2}", "\\PC{0,20}"]
            .prop_map(OwnedValue::Str)
            .boxed(),
    }
}

fn tap_weight() -> impl Strategy<Value = i64> {
    prop_oneof![-70_000i64..70_000, any::<i64>()]
}

fn column() -> impl Strategy<Value = Column> {
    (kind(), any::<bool>()).prop_flat_map(|(kind, nullable)| {
        let texts = if kind == ColumnKind::Str {
            0..4usize
        } else {
            0..1
        };
        let levels = proptest::collection::btree_set(prop_oneof![-3i64..3, any::<i64>()], 0..8);
        (
            params(kind),
            proptest::collection::vec("[a-c]{0,2}", texts),
            levels,
            0u8..4,
        )
            .prop_map(move |(mut params, dictionary, levels, ranks)| {
                let number = !matches!(kind, ColumnKind::Bool | ColumnKind::Str);
                let ranks = ranks == 0 && number && !levels.is_empty();
                if ranks {
                    params.scale = Scale::Levels;
                }
                Column {
                    nullable,
                    params,
                    dictionary,
                    levels: if ranks {
                        levels.into_iter().collect()
                    } else {
                        Vec::new()
                    },
                    ..Column::new("metric", kind)
                }
            })
    })
}

prop_compose! {
    fn schema()(
        columns in proptest::collection::vec(column(), 1..6),
        series in 1usize..5,
        tick_us in prop_oneof![Just(1u32), Just(1_000u32), 1u32..100],
        step in 0u32..3_000,
        pace in prop::sample::select(Pace::ALL.to_vec()),
        residual_bits in 0u8..=36,
        taps in proptest::collection::vec(
            (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0u8..3, tap_weight()), 0..8),
    ) -> Schema {
        let mut schema = Schema::new(1, columns);
        for (at, source, lag, weight) in taps {
            let at = at.index(schema.columns.len());
            let source = source.index(at + 1);
            let is_number = |kind| !matches!(kind, ColumnKind::Str | ColumnKind::Bool);
            if is_number(schema.columns[at].kind) && schema.columns[source].kind != ColumnKind::Str {
                let column = u16::try_from(source).unwrap();
                schema.columns[at].params.taps.push(Tap { column, lag, weight });
                if source < at && lag == 0 {
                    let params = &mut schema.columns[at].params;
                    params.first_taps.push(Tap { column, lag, weight });
                    params.first_bits = (step % 64).try_into().unwrap();
                }
            }
        }
        schema.time = TimeParams { tick_us, step, pace, residual_bits };
        schema.series = (0..series)
            .map(|at| Series { labels: vec![("host".into(), at.to_string())] })
            .collect();
        schema
    }
}

fn time() -> impl Strategy<Value = i64> {
    prop_oneof![3 => (0i64..50).prop_map(|t| t * 1_000), 2 => -9_999i64..9_999, 1 => any::<i64>()]
}

/// Rows in which values tend to stay, as real ones do, so that every mode of the coder is reached.
fn rows(schema: &Schema) -> impl Strategy<Value = Vec<Row>> + use<> {
    let series = u32::try_from(schema.series.len()).unwrap();
    let cells: Vec<_> = schema
        .columns
        .iter()
        .map(|column| {
            let value = value(column.kind).prop_map(Some).boxed();
            let fresh = if column.nullable {
                prop_oneof![4 => value, 1 => Just(None)].boxed()
            } else {
                value
            };
            (0u8..4, fresh)
        })
        .collect();
    let drawn = proptest::collection::vec((time(), any::<bool>(), 0..series, cells), 1..80);
    // Of one block or of several.
    let repeat = prop_oneof![3 => Just(1), 1 => 2usize..6];
    (drawn, repeat).prop_map(|(drawn, repeat)| {
        let mut rows: Vec<Row> = Vec::new();
        let mut clock = 0i64;
        let count = drawn.len() * repeat;
        for (time, jumps, series, cells) in drawn.into_iter().cycle().take(count) {
            clock = if jumps {
                time
            } else {
                clock.wrapping_add(1_000)
            };
            let before = rows.last().map(|(_, _, values)| values.clone());
            let values: Vec<Option<OwnedValue>> = cells
                .into_iter()
                .enumerate()
                .map(|(at, (stay, fresh))| match &before {
                    Some(before) if stay > 0 => before[at].clone(),
                    _ => fresh,
                })
                .collect();
            if values.iter().all(Option::is_none) {
                continue;
            }
            rows.push((clock, series, values));
        }
        rows
    })
}

fn gather(schema: &Schema, rows: &[Row]) -> Rows {
    let mut buffer = Rows::new(schema);
    for (time_us, series, values) in rows {
        let values: Vec<_> = values
            .iter()
            .map(|v| v.as_ref().map(OwnedValue::borrowed))
            .collect();
        buffer.push_row(*time_us, *series, &values).unwrap();
    }
    buffer
}

fn same(rows: &[Row], kept: &Keep) -> bool {
    rows.len() == kept.0.len()
        && rows
            .iter()
            .zip(&kept.0)
            .all(|((time, series, values), (t, s, visited))| {
                let present: Vec<_> = values
                    .iter()
                    .enumerate()
                    .filter(|(_, v)| v.is_some())
                    .collect();
                time == t
                    && series == s
                    && present.len() == visited.len()
                    && present
                        .iter()
                        .zip(visited)
                        .all(|((at, value), (column, got))| {
                            at == column
                                && value
                                    .as_ref()
                                    .unwrap()
                                    .borrowed()
                                    .same_bits(&got.borrowed())
                        })
            })
}

fn through_bytes(schema: &Schema) -> Schema {
    let mut bytes = Vec::new();
    schema.encode(&mut bytes).unwrap();
    let read = Schema::decode(&bytes, &Limits::DEFAULT).unwrap();
    assert_eq!(&read, schema);
    read
}

fn span(rows: &[Row]) -> Option<i64> {
    let times = rows.iter().map(|row| row.0);
    times.clone().max()?.checked_sub(times.min()?)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_rows_of_any_schema_come_back_bit_for_bit(
        (schema, rows) in schema().prop_flat_map(|schema| {
            let rows = rows(&schema);
            (Just(schema), rows)
        }),
        fitted in any::<bool>(),
    ) {
        prop_assume!(!rows.is_empty());
        let mut schema = schema;
        let buffer = gather(&schema, &rows);
        if fitted {
            fit(&buffer, &mut schema);
        }
        let schema = through_bytes(&schema);
        for back_end in [BackEnd::Varint, BackEnd::Rice, BackEnd::Range] {
            let mut encoder = Encoder::with_back_end(&schema, back_end);
            let mut again = Vec::new();
            let mut chosen = Vec::new();
            Encoder::new(&schema).encode(7, &buffer, &mut chosen).unwrap();
            for _ in 0..2 {
                let mut payload = Vec::new();
                let header = encoder.encode(7, &buffer, &mut payload).unwrap();
                prop_assert_eq!(BatchHeader::peek(&payload).unwrap(), header);
                let mut kept = Keep::default();
                prop_assert_eq!(
                    decode(&payload, &schema, &Limits::DEFAULT, &mut kept).unwrap(),
                    header
                );
                prop_assert!(same(&rows, &kept), "{:?}", back_end);
                prop_assert!(again.is_empty() || again == payload, "a warm encoder differs");
                let mut longer = payload.clone();
                longer.push(0);
                let read = decode(&longer, &schema, &Limits::DEFAULT, &mut Keep::default());
                prop_assert!(read.is_err(), "{:?} takes a byte too many", back_end);
                if rows.len() <= 4 && back_end != BackEnd::Varint {
                    prop_assert!(chosen.len() <= payload.len(), "{:?} is smaller", back_end);
                }
                again = payload;
            }
        }
    }

    #[test]
    fn damaged_batches_give_an_error_or_rows_and_never_panic(
        (schema, rows) in schema().prop_flat_map(|schema| {
            let rows = rows(&schema);
            (Just(schema), rows)
        }),
        back_end in prop_oneof![Just(BackEnd::Varint), Just(BackEnd::Rice), Just(BackEnd::Range)],
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
        noise in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        prop_assume!(!rows.is_empty());
        let mut payload = Vec::new();
        let mut encoder = Encoder::with_back_end(&schema, back_end);
        encoder.encode(7, &gather(&schema, &rows), &mut payload).unwrap();
        let limits = Limits { rows: 500, ..Limits::DEFAULT };
        let visited = |bytes: &[u8]| {
            let mut kept = Keep::default();
            let _ = decode(bytes, &schema, &limits, &mut kept);
            kept.0.len()
        };
        prop_assert!(visited(&payload[..cut.index(payload.len())]) <= 500);
        prop_assert!(visited(&noise) <= 500);
        for (at, byte) in damage {
            let at = at.index(payload.len());
            payload[at] = byte;
            prop_assert!(visited(&payload) <= 500);
        }
    }

    #[test]
    fn no_bytes_are_a_schema_that_cannot_be_written_again(
        schema in schema(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        noise in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut bytes = Vec::new();
        schema.encode(&mut bytes).unwrap();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        for bytes in [bytes, noise] {
            if let Ok(read) = Schema::decode(&bytes, &Limits::DEFAULT) {
                through_bytes(&read);
            }
        }
    }

    #[test]
    fn a_microcontroller_writes_what_a_collector_reads(
        samples in proptest::collection::vec(
            (0i64..5_000, -40_000i64..40_000, any::<i32>(), any::<bool>()), 1..60),
        rice in any::<bool>(),
    ) {
        let mut schema = Schema::new(1_000, vec![
            Column::new("temperature", ColumnKind::F64),
            Column::new("count", ColumnKind::I64),
            Column::new("open", ColumnKind::Bool),
        ]);
        schema.columns[0].params.scale = Scale::Decimal(2);
        let plans: Vec<Plan> = schema
            .columns
            .iter()
            .map(|column| Plan::new(column.kind, column.nullable, column.params, 0))
            .collect();
        let back_end = if rice { BackEnd::Rice } else { BackEnd::Varint };
        let mut out = [0u8; 8_192];
        let mut histories: [History<i32>; 3] = core::array::from_fn(|at| History::new(&plans[at]));
        let mut symbols = [Symbol::default(); 3];
        let mut encoder = StreamEncoder::new(
            (&plans, schema.time), (3, back_end), &mut histories, &mut symbols, &mut out).unwrap();
        let mut expected: Vec<Row> = Vec::new();
        let mut clock = 1_000_000i64;
        for (step, centi, count, open) in samples {
            clock += step * 1_000;
            let count_cell = if count % 5 == 0 {
                Cell::Missing
            } else {
                Cell::Mantissa(i64::from(count) * if count % 7 == 0 { 1 << 20 } else { 1 })
            };
            let cells = [Cell::Mantissa(centi), count_cell, Cell::Bits(u64::from(open))];
            encoder.push(clock, &cells).unwrap();
            let count = match count_cell {
                Cell::Mantissa(count) => Some(OwnedValue::I64(count)),
                Cell::Missing | Cell::Bits(_) => None,
            };
            #[expect(clippy::cast_precision_loss, reason = "the range is small")]
            let temperature = centi as f64 / 100.0;
            expected.push((
                clock, 0, vec![Some(OwnedValue::F64(temperature)), count, Some(OwnedValue::Bool(open))],
            ));
        }
        let (range, header) = encoder.finish().unwrap();
        let mut kept = Keep::default();
        let read = decode(&out[range], &schema, &Limits::DEFAULT, &mut kept).unwrap();
        prop_assert_eq!(read, header);
        prop_assert!(same(&expected, &kept));
        prop_assert_eq!(span(&expected), Some(header.last_time_us - header.first_time_us));
    }
}

#[test]
fn eight_columns_on_a_microcontroller_keep_less_than_200_bytes() {
    let columns = 8 * size_of::<History<i32>>();
    let rest = size_of::<headwater_proto::codec::model::TimeHistory>()
        + size_of::<headwater_proto::codec::rice::Rice>();
    assert!(columns + rest < 200, "{columns} + {rest}");
}

#[test]
fn declared_rows_and_cells_are_refused_before_anything_is_visited() {
    let schema = Schema::new(1, vec![Column::new("a", ColumnKind::I64)]);
    let mut rows = Rows::new(&schema);
    for time in 0..1_000 {
        rows.push_row(time, 0, &[Some(Value::I64(5))]).unwrap();
    }
    let mut payload = Vec::new();
    Encoder::new(&schema)
        .encode(0, &rows, &mut payload)
        .unwrap();
    // Constant rows one tick apart cost far less than a bit each: input length bounds nothing.
    assert!(payload.len() < 40, "{}", payload.len());
    for limits in [
        Limits {
            rows: 999,
            ..Limits::DEFAULT
        },
        Limits {
            cells: 999,
            ..Limits::DEFAULT
        },
        Limits {
            columns: 0,
            ..Limits::DEFAULT
        },
        Limits {
            states: 0,
            ..Limits::DEFAULT
        },
    ] {
        let mut kept = Keep::default();
        let refused = decode(&payload, &schema, &limits, &mut kept);
        assert!(matches!(refused, Err(DecodeError::Limit(_))), "{refused:?}");
        assert!(kept.0.is_empty());
    }
}

#[test]
fn new_texts_of_a_batch_stop_at_their_limit() {
    let schema = Schema::new(1, vec![Column::new("a", ColumnKind::Str)]);
    let mut rows = Rows::new(&schema);
    for time in 0..100 {
        rows.push_row(time, 0, &[Some(Value::Str(&format!("text {time}")))])
            .unwrap();
    }
    let mut payload = Vec::new();
    Encoder::new(&schema)
        .encode(0, &rows, &mut payload)
        .unwrap();
    let limits = Limits {
        text_bytes: 500,
        ..Limits::DEFAULT
    };
    let refused = decode(&payload, &schema, &limits, &mut Keep::default());
    assert_eq!(refused, Err(DecodeError::Limit("text")));
}

#[test]
fn texts_longer_than_a_schema_may_hold_are_not_learnt_and_come_back() {
    let mut schema = Schema::new(1, vec![Column::new("state", ColumnKind::Str)]);
    let mut rows = Rows::new(&schema);
    let long = "l".repeat(MAX_VALUE_TEXT_BYTES);
    for (time, text) in (0..).zip(["on", &long, "on", &long]) {
        rows.push_row(time, 0, &[Some(Value::Str(text))]).unwrap();
    }
    fit(&rows, &mut schema);
    assert_eq!(schema.columns[0].dictionary, ["on"]);
    let mut bytes = Vec::new();
    schema.encode(&mut bytes).unwrap();
    let mut payload = Vec::new();
    let mut encoder = Encoder::new(&schema);
    encoder.encode(1, &rows, &mut payload).unwrap();
    let mut kept = Keep::default();
    decode(&payload, &schema, &Limits::DEFAULT, &mut kept).unwrap();
    assert_eq!(kept.0[3].2[0].1, OwnedValue::Str(long));
}
