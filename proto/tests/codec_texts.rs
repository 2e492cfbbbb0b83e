//! Text values of every length that a batch takes come back from every back end.

#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

use headwater_proto::codec::{self, BackEnd, BatchHeader, Encoder, Limits, RowVisitor, Rows};
use headwater_proto::sample::Value;
use headwater_proto::schema::{Column, ColumnKind, MAX_VALUE_TEXT_BYTES, Schema};

struct Texts(Vec<String>);

impl RowVisitor for Texts {
    fn row(&mut self, _: u32, _: i64, _: u32) {}
    fn value(&mut self, _: usize, value: Value<'_>) {
        if let Value::Str(text) = value {
            self.0.push(text.to_owned());
        }
    }
}

#[test]
fn texts_around_the_bound_of_a_byte_and_up_to_their_own_come_back() {
    let schema = Schema::new(1000, vec![Column::new("s", ColumnKind::Str)]);
    let lengths = [0, 1, 254, 255, 256, 300, 4_000, MAX_VALUE_TEXT_BYTES, 255];
    let texts: Vec<String> = (0..)
        .zip(lengths)
        .map(|(at, len): (u8, usize)| char::from(b'a' + at).to_string().repeat(len))
        .collect();
    for back_end in [BackEnd::Varint, BackEnd::Rice, BackEnd::Range] {
        let mut rows = Rows::new(&schema);
        for (second, text) in (0..).zip(&texts) {
            rows.push_row(second * 1_000_000, 0, &[Some(Value::Str(text))])
                .unwrap();
        }
        let mut bytes = Vec::new();
        Encoder::with_back_end(&schema, back_end)
            .encode(0, &rows, &mut bytes)
            .unwrap();
        assert_eq!(BatchHeader::peek(&bytes).unwrap().back_end, back_end);
        let mut read = Texts(Vec::new());
        codec::decode(&bytes, &schema, &Limits::DEFAULT, &mut read).unwrap();
        assert_eq!(read.0, texts, "{back_end:?}");
    }
}

#[test]
fn a_longer_text_is_refused_and_the_row_with_it() {
    let schema = Schema::new(1000, vec![Column::new("s", ColumnKind::Str)]);
    let mut rows = Rows::new(&schema);
    let long = "x".repeat(MAX_VALUE_TEXT_BYTES + 1);
    assert!(rows.push_row(0, 0, &[Some(Value::Str(&long))]).is_err());
    assert!(rows.push_row(0, 0, &[Some(Value::Str(&long[1..]))]).is_ok());
}
