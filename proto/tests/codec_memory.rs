//! What the batch codec takes from the heap: nothing per batch once an encoder is warm, and in a
//! decoder no more than its limits allow, whatever the bytes say.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use headwater_proto::codec::{
    BackEnd, BatchHeader, DecodeError, Encoder, Limits, RowVisitor, Rows, decode, fit,
};
use headwater_proto::sample::Value;
use headwater_proto::schema::{Column, ColumnKind, Schema, Series};

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

/// Counts what the test's own thread holds.
struct Counting;

#[expect(unsafe_code, reason = "a global allocator is an unsafe trait")]
// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.set(HELD.get().wrapping_add(layout.size()));
        PEAK.set(PEAK.get().max(HELD.get()));
        CALLS.set(CALLS.get() + 1);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.set(HELD.get().wrapping_sub(layout.size()));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// How many allocations `work` makes, and how far the heap grows meanwhile.
fn measured(work: impl FnOnce()) -> (usize, usize) {
    let (calls, held) = (CALLS.get(), HELD.get());
    PEAK.set(held);
    work();
    (CALLS.get() - calls, PEAK.get() - held)
}

struct Nothing;

impl RowVisitor for Nothing {
    fn row(&mut self, _: u32, _: i64, _: u32) {}
    fn value(&mut self, _: usize, _: Value<'_>) {}
}

fn schema(columns: usize, series: usize) -> Schema {
    let kinds = [ColumnKind::F64, ColumnKind::I64, ColumnKind::Bool];
    let columns = (0..columns)
        .map(|at| Column::new("metric", kinds[at % kinds.len()]))
        .collect();
    let mut schema = Schema::new(1_000, columns);
    schema.series = (0..series)
        .map(|at| Series {
            labels: vec![("host".into(), at.to_string())],
        })
        .collect();
    schema
}

fn rows(schema: &Schema, count: u32) -> Rows {
    let mut rows = Rows::new(schema);
    let series = u32::try_from(schema.series.len()).unwrap();
    for at in 0..count {
        let values: Vec<_> = schema
            .columns
            .iter()
            .map(|column| match column.kind {
                ColumnKind::Bool => Some(Value::Bool(at % 7 == 0)),
                ColumnKind::I64 => Some(Value::I64(i64::from(at * at % 91))),
                ColumnKind::F32 | ColumnKind::F64 | ColumnKind::Str => {
                    Some(Value::F64(f64::from(at % 50) / 10.0))
                }
            })
            .collect();
        rows.push_row(i64::from(at) * 1_000, at % series, &values)
            .unwrap();
    }
    rows
}

#[test]
fn a_warm_encoder_takes_nothing_from_the_heap() {
    let mut schema = schema(8, 3);
    let rows = rows(&schema, 200);
    fit(&rows, &mut schema);
    for back_end in [BackEnd::Varint, BackEnd::Rice, BackEnd::Range] {
        let mut encoder = Encoder::with_back_end(&schema, back_end);
        let mut out = Vec::new();
        encoder.encode(1, &rows, &mut out).unwrap();
        let (calls, _) = measured(|| {
            for _ in 0..5 {
                out.clear();
                encoder.encode(1, &rows, &mut out).unwrap();
            }
        });
        assert_eq!(calls, 0, "{back_end:?}");
    }
}

#[test]
fn a_decoder_of_eight_columns_stays_below_64_kib_however_many_rows_there_are() {
    let mut schema = schema(8, 1);
    let rows = rows(&schema, 10_000);
    fit(&rows, &mut schema);
    for back_end in [BackEnd::Varint, BackEnd::Rice, BackEnd::Range] {
        let mut payload = Vec::new();
        Encoder::with_back_end(&schema, back_end)
            .encode(1, &rows, &mut payload)
            .unwrap();
        let (_, bytes) = measured(|| {
            decode(&payload, &schema, &Limits::DEFAULT, &mut Nothing).unwrap();
        });
        assert!(bytes < 64 << 10, "{back_end:?}: {bytes}");
    }
}

#[test]
fn damaged_batches_take_no_more_than_the_states_of_the_schema() {
    let schema = schema(128, 256);
    let mut bytes = Vec::new();
    Encoder::with_back_end(&schema, BackEnd::Range)
        .encode(1, &rows(&schema, 600), &mut bytes)
        .unwrap();
    // A history, a trace and its share of what a growing vector holds in reserve.
    let most = 128 * 256 * 3 * 128 + (64 << 10);
    let mut noise = 1u32;
    for _ in 0..40 {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let at = 12 + noise as usize % (bytes.len() - 12);
        bytes[at] ^= (noise >> 24) as u8 | 1;
        let (_, held) = measured(|| {
            let _ = decode(&bytes, &schema, &Limits::DEFAULT, &mut Nothing);
        });
        assert!(held < most, "{held}");
    }
}

#[test]
fn what_passes_a_limit_is_refused_before_anything_is_allocated() {
    let schema = schema(8, 3);
    let mut bytes = Vec::new();
    Encoder::new(&schema)
        .encode(1, &rows(&schema, 600), &mut bytes)
        .unwrap();
    for limits in [
        Limits {
            rows: 599,
            ..Limits::DEFAULT
        },
        Limits {
            columns: 7,
            ..Limits::DEFAULT
        },
        Limits {
            series: 2,
            ..Limits::DEFAULT
        },
        Limits {
            cells: 600 * 8 - 1,
            ..Limits::DEFAULT
        },
        Limits {
            states: 23,
            ..Limits::DEFAULT
        },
    ] {
        let mut refused = None;
        let (calls, _) = measured(|| {
            refused = decode(&bytes, &schema, &limits, &mut Nothing).err();
        });
        assert!(
            matches!(refused, Some(DecodeError::Limit(_))),
            "{refused:?}"
        );
        assert_eq!(calls, 0, "{limits:?}");
    }
}

#[test]
fn texts_of_no_bytes_take_no_more_than_their_limit_allows() {
    let mut schema = schema(1, 1);
    schema.columns = vec![Column::new("text", ColumnKind::Str)];
    let limits = Limits {
        text_bytes: 500,
        ..Limits::DEFAULT
    };
    let header = BatchHeader {
        schema_no: 1,
        back_end: BackEnd::Varint,
        flags: 0,
        rows: 9_000,
        samples: 9_000,
        first_time_us: 0,
        last_time_us: 8_999_000,
    };
    let mut bytes = vec![0; 64];
    let len = header.write(&mut bytes).unwrap();
    bytes.truncate(len);
    // Each row: an exception, in this column: raw, a new text of no bytes.
    bytes.extend([0x03, 0x01, 0x01, 0x00]);
    for _ in 1..9_000 {
        bytes.extend([0x05, 0x01, 0x01, 0x00]);
    }
    let mut refused = None;
    let (_, held) = measured(|| {
        refused = decode(&bytes, &schema, &limits, &mut Nothing).err();
    });
    assert_eq!(refused, Some(DecodeError::Limit("text")));
    assert!(held < 500 * 3 * 8 + (8 << 10), "{held}");
}
