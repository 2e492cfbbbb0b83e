//! Schemas and batches: any bytes are an error or rows, and rows come back.

use std::cell::RefCell;

use headwater_proto::codec::{BackEnd, Encoder, Limits, RowVisitor, Rows, decode};
use headwater_proto::sample::{OwnedValue, Value};
use headwater_proto::schema::Schema;

use crate::heap::within;
use crate::seeds::{from_hex, prefixed};

/// Small, so that an input costs microseconds: enough for batches of three blocks with bits beside the
/// interval, as the frozen ones are. The limits themselves have tests of their own.
const LIMITS: Limits = Limits {
    rows: 160,
    columns: 128,
    cells: 1_440,
    states: 1_024,
    ..Limits::DEFAULT
};
/// The histories that [`LIMITS`] allow with what a growing vector holds in reserve, the new texts
/// twice, and the tables of a schema.
const MOST_HEAP_BYTES: usize = LIMITS.states as usize * 3 * 128
    + 2 * LIMITS.text_bytes as usize
    + LIMITS.columns as usize * 4096;

const SCHEMA: &str = include_str!("../../../proto/tests/golden/codec_schema_v1.hex");
const BATCHES: [&str; 4] = [
    include_str!("../../../proto/tests/golden/codec_batch_varint_v1.hex"),
    include_str!("../../../proto/tests/golden/codec_batch_rice_v1.hex"),
    include_str!("../../../proto/tests/golden/codec_batch_range_v1.hex"),
    include_str!("../../../proto/tests/golden/codec_batch_range_small_v1.hex"),
];

thread_local! {
    static SEEN: RefCell<(Vec<u8>, Option<Schema>)> = const { RefCell::new((Vec::new(), None)) };
    static OUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Time, series, and the values that are there with their columns.
type Row = (i64, u32, Vec<(usize, OwnedValue)>);

#[derive(Default)]
struct Keep(Vec<Row>);

impl RowVisitor for Keep {
    fn row(&mut self, _: u32, time_us: i64, series: u32) {
        self.0.push((time_us, series, Vec::new()));
    }
    fn value(&mut self, column: usize, value: Value<'_>) {
        let row = self.0.last_mut().expect("a row has begun");
        row.2.push((column, value.into()));
    }
}

/// Whether the rows are the same again, bit for bit.
struct Compare<'a> {
    kept: &'a Keep,
    row: usize,
    cell: usize,
}

impl RowVisitor for Compare<'_> {
    fn row(&mut self, row: u32, time_us: i64, series: u32) {
        (self.row, self.cell) = (row as usize, 0);
        let (time, other, _) = &self.kept.0[self.row];
        assert_eq!((*time, *other), (time_us, series));
    }
    fn value(&mut self, column: usize, value: Value<'_>) {
        let (at, other) = &self.kept.0[self.row].2[self.cell];
        assert!(*at == column && other.borrowed().same_bits(&value));
        self.cell += 1;
    }
}

/// Rows are numbered from 0, and every column is one of the schema.
struct Count {
    rows: u32,
    columns: usize,
}

impl RowVisitor for Count {
    fn row(&mut self, row: u32, _: i64, _: u32) {
        assert_eq!(row, self.rows);
        self.rows += 1;
    }
    fn value(&mut self, column: usize, _: Value<'_>) {
        assert!(column < self.columns);
    }
}

/// A schema that was read is written back to one equal to it.
pub fn schema(bytes: &[u8]) {
    let Ok(schema) = Schema::decode(bytes, &Limits::DEFAULT) else {
        return;
    };
    OUT.with_borrow_mut(|written| {
        written.clear();
        schema
            .encode(written)
            .expect("a schema that was read can be written");
        let again = Schema::decode(written, &Limits::DEFAULT).expect("and read again");
        assert_eq!(schema, again);
    });
}

/// Splits an input into a schema and a batch, and reads the schema, unless it is the one before.
fn with_schema(bytes: &[u8], judge: impl FnOnce(&Schema, &[u8])) {
    let [low, high, rest @ ..] = bytes else {
        return;
    };
    let len = usize::from(u16::from_le_bytes([*low, *high]));
    let Some((text, batch)) = rest.split_at_checked(len) else {
        return;
    };
    SEEN.with_borrow_mut(|(known, schema)| {
        if schema.is_none() || known.as_slice() != text {
            text.clone_into(known);
            *schema = Schema::decode(text, &Limits::DEFAULT).ok();
        }
        if let Some(schema) = schema {
            judge(schema, batch);
        }
    });
}

/// Bytes after any schema are an error or as many rows as the head says, within the heap that the
/// limits stand for.
pub fn rows(bytes: &[u8]) {
    with_schema(bytes, |schema, batch| {
        let mut count = Count {
            rows: 0,
            columns: schema.columns.len(),
        };
        let read = within(MOST_HEAP_BYTES, || {
            decode(batch, schema, &LIMITS, &mut count)
        });
        if let Ok(header) = read {
            assert_eq!(header.rows, count.rows);
        }
    });
}

/// Rows that were read and are written by any back end come back bit for bit.
pub fn batch(bytes: &[u8]) {
    with_schema(bytes, |schema, batch| {
        let mut kept = Keep::default();
        if decode(batch, schema, &LIMITS, &mut kept).is_err() {
            return;
        }
        let mut rows = Rows::new(schema);
        for (time_us, series, present) in &kept.0 {
            let mut values = vec![None; schema.columns.len()];
            for (column, value) in present {
                values[*column] = Some(value.borrowed());
            }
            // A row without any value can be read but is never written.
            if rows.push_row(*time_us, *series, &values).is_err() {
                return;
            }
        }
        let limits = Limits {
            text_bytes: u32::MAX,
            ..LIMITS
        };
        for back_end in [BackEnd::Varint, BackEnd::Rice, BackEnd::Range] {
            let mut payload = Vec::new();
            let mut encoder = Encoder::with_back_end(schema, back_end);
            encoder
                .encode(0, &rows, &mut payload)
                .expect("rows of this schema");
            let mut compare = Compare {
                kept: &kept,
                row: 0,
                cell: 0,
            };
            decode(&payload, schema, &limits, &mut compare).expect("what was written");
        }
    });
}

/// The golden schema.
#[must_use]
pub fn schema_seeds() -> Vec<Vec<u8>> {
    vec![from_hex(SCHEMA)]
}

/// The golden batches behind their schema.
#[must_use]
pub fn batch_seeds() -> Vec<Vec<u8>> {
    let schema = from_hex(SCHEMA);
    let length = u16::try_from(schema.len()).expect("a golden schema is short");
    let head = [length.to_le_bytes().as_slice(), &schema].concat();
    BATCHES
        .iter()
        .map(|batch| prefixed(&head, &from_hex(batch)))
        .collect()
}
