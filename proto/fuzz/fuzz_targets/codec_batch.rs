//! Any bytes after any schema are an error or rows; rows that are encoded again come back.
#![no_main]

use headwater_proto::codec::{BackEnd, Encoder, Limits, RowVisitor, Rows, decode};
use headwater_proto::sample::{OwnedValue, Value};
use headwater_proto::schema::Schema;
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { rows: 2_000, cells: 20_000, ..Limits::DEFAULT };

#[derive(Default)]
struct Keep(Vec<(i64, u32, Vec<(usize, OwnedValue)>)>);

impl RowVisitor for Keep {
    fn row(&mut self, _: u32, time_us: i64, series: u32) {
        self.0.push((time_us, series, Vec::new()));
    }
    fn value(&mut self, column: usize, value: Value<'_>) {
        self.0.last_mut().expect("a row has begun").2.push((column, value.into()));
    }
}

struct Compare<'a>(&'a Keep, usize, usize);

impl RowVisitor for Compare<'_> {
    fn row(&mut self, row: u32, time_us: i64, series: u32) {
        (self.1, self.2) = (row as usize, 0);
        let (time, other, _) = &self.0.0[self.1];
        assert_eq!((*time, *other), (time_us, series));
    }
    fn value(&mut self, column: usize, value: Value<'_>) {
        let (at, other) = &self.0.0[self.1].2[self.2];
        assert!(*at == column && other.borrowed().same_bits(&value));
        self.2 += 1;
    }
}

// The first two bytes say how long the schema is.
fuzz_target!(|bytes: &[u8]| {
    let [low, high, rest @ ..] = bytes else { return };
    let len = usize::from(u16::from_le_bytes([*low, *high]));
    let Some((schema, batch)) = rest.split_at_checked(len) else { return };
    let Ok(schema) = Schema::decode(schema, &Limits::DEFAULT) else { return };
    let mut kept = Keep::default();
    if decode(batch, &schema, &LIMITS, &mut kept).is_err() {
        return;
    }
    let mut rows = Rows::new(&schema);
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
    for back_end in [BackEnd::Varint, BackEnd::Rice, BackEnd::Range] {
        let mut payload = Vec::new();
        let mut encoder = Encoder::with_back_end(&schema, back_end);
        encoder.encode(0, &rows, &mut payload).expect("rows of this schema");
        let limits = Limits { text_bytes: u32::MAX, ..LIMITS };
        decode(&payload, &schema, &limits, &mut Compare(&kept, 0, 0)).expect("what was written");
    }
});
