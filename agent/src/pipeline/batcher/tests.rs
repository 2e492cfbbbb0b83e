//! How many shapes a lane remembers, and how many may wait.

use headwater_proto::sample::Value;

use headwater_proto::codec::Limits;
use headwater_proto::schema::MAX_TEXT_BYTES;

use super::super::admit::{Admitted, Field, MAX_ROW_NAMES_BYTES, admit};
use super::shape::{bytes_of, without_parameters};
use super::*;

mod announced;

const LIMITS: BatchLimits = BatchLimits {
    rows: 1_000,
    bytes: 1 << 20,
    age_ms: 1_000,
};
const TURN: Turn = Turn {
    base: Base::Wall,
    others_from: Millis(0),
};

/// Gives a row whose only column is named after its shape, at a time of its own.
fn push(batcher: &mut Batcher, shape: usize) -> Pushed {
    let us = i64::try_from(shape).unwrap();
    let dated = Dated {
        base: Base::Wall,
        us,
        stamps: Stamps::default(),
    };
    let given = Given {
        cursor: None,
        receipt: 0,
        by: None,
    };
    let name = shape.to_string();
    let fields = [Field::new(&name, Value::I64(us))];
    let sample = Sample {
        time: UnixMicros(us),
        labels: &[],
        fields: &fields,
    };
    let now = Millis(shape as u64);
    batcher.push(0, &sample, dated, given, now)
}

/// Gives a row of these columns and labels.
fn push_row(batcher: &mut Batcher, names: &[String], labels: &[(&str, &str)]) -> Pushed {
    let given = Given {
        cursor: None,
        receipt: 0,
        by: None,
    };
    let dated = Dated {
        base: Base::Wall,
        us: 5,
        stamps: Stamps::default(),
    };
    let fields: Vec<_> = names
        .iter()
        .map(|name| Field::new(name, Value::F64(1.5)))
        .collect();
    let sample = Sample {
        time: UnixMicros(5),
        labels,
        fields: &fields,
    };
    assert_eq!(admit(&sample), Admitted::Whole);
    batcher.push(0, &sample, dated, given, Millis(0))
}

/// As many names as a row may have, with as many bytes.
fn widest() -> Vec<String> {
    let count = Limits::DEFAULT.columns as usize;
    let len = MAX_ROW_NAMES_BYTES / count;
    (0..count).map(|n| format!("{n:0>len$}")).collect()
}

/// As many labels or tags as there may be, of as many bytes; `n` is one of the values.
fn longest(n: usize) -> Vec<(String, String)> {
    let count = Limits::DEFAULT.labels as usize;
    let text = |k: usize| format!("{k:0>MAX_TEXT_BYTES$}");
    (0..count).map(|k| (text(k), text(n + k))).collect()
}

fn borrowed(pairs: &[(String, String)]) -> Vec<(&str, &str)> {
    pairs
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect()
}

#[test]
fn the_widest_row_has_a_schema_within_its_bytes_and_another_series_begins_a_shape() {
    let names = widest();
    let mut batcher = Batcher::new(LIMITS, longest(0), None);
    push_row(&mut batcher, &names, &borrowed(&longest(1)));
    assert!(batcher.shapes[0].schema_bytes <= MAX_SCHEMA_BYTES);
    let closed = batcher.close(Which::All, TURN, Millis(0)).unwrap();
    assert_eq!(closed.samples, names.len() as u64);
    let (_, schema) = closed.new_schema.unwrap();
    assert!(schema.len() <= MAX_SCHEMA_BYTES, "{}", schema.len());
    let mut series = 1;
    while batcher.shapes.len() == 1 {
        series += 1;
        push_row(&mut batcher, &names, &borrowed(&longest(series)));
        assert!(batcher.shapes[0].schema_bytes <= MAX_SCHEMA_BYTES);
    }
}

#[test]
fn parameters_that_make_a_schema_too_large_are_not_used() {
    let names = widest();
    let mut batcher = Batcher::new(LIMITS, Vec::new(), None);
    push_row(&mut batcher, &names, &[]);
    let shape = &mut batcher.shapes[0];
    for column in &mut shape.schema.columns {
        column.params.reference = i64::MIN;
    }
    let large = bytes_of(&shape.schema).len();
    without_parameters(&mut shape.schema);
    let plain = bytes_of(&shape.schema).len();
    assert!(
        plain < large && plain <= shape.schema_bytes,
        "{plain} {large}"
    );
}

#[test]
fn wide_shapes_are_remembered_up_to_their_bytes() {
    let mut batcher = Batcher::new(LIMITS, Vec::new(), None);
    let wide = |n: usize| -> Vec<String> {
        let mut names = widest();
        names[0] = format!("{n:0>40}");
        names.pop();
        names
    };
    let bytes =
        |batcher: &Batcher| -> usize { batcher.shapes.iter().map(|s| s.schema_bytes).sum() };
    for n in 0..20 {
        push_row(&mut batcher, &wide(n), &[]);
        while batcher.close(Which::Full, TURN, Millis(0)).is_some() {}
        assert!(bytes(&batcher) <= MAX_SHAPES_BYTES);
    }
    assert!((2..MAX_SHAPES).contains(&batcher.shapes.len()));
}

/// Gives a row and closes its batch; says whether it needed a schema of its own.
fn numbers_anew(batcher: &mut Batcher, shape: usize) -> bool {
    push(batcher, shape);
    let closed = batcher.close(Which::All, TURN, Millis(0)).unwrap();
    closed.new_schema.is_some()
}

#[test]
fn as_many_shapes_as_the_bound_keep_their_numbers_and_the_longest_at_rest_gives_way_to_one_more() {
    let mut batcher = Batcher::new(LIMITS, Vec::new(), None);
    for shape in 0..MAX_SHAPES {
        assert!(numbers_anew(&mut batcher, shape));
    }
    for shape in 0..MAX_SHAPES {
        assert!(!numbers_anew(&mut batcher, shape));
    }
    assert!(numbers_anew(&mut batcher, MAX_SHAPES));
    assert_eq!(batcher.schemas().count(), MAX_SHAPES);
    assert!(!numbers_anew(&mut batcher, 1));
    assert!(numbers_anew(&mut batcher, 0));
}

#[test]
fn as_many_shapes_as_the_bound_wait_with_their_rows_and_one_more_closes_the_oldest() {
    let mut batcher = Batcher::new(LIMITS, Vec::new(), None);
    for shape in 0..MAX_SHAPES {
        assert!(!push(&mut batcher, shape).full);
    }
    let full = |batcher: &mut Batcher| batcher.close(Which::Full, TURN, Millis(0));
    assert!(full(&mut batcher).is_none());
    for shape in MAX_SHAPES..3 * MAX_SHAPES {
        assert!(push(&mut batcher, shape).full);
        let oldest = full(&mut batcher).unwrap();
        assert_eq!(oldest.times.first_us, (shape - MAX_SHAPES) as i64);
        assert!(full(&mut batcher).is_none());
        assert_eq!(batcher.shapes.len(), MAX_SHAPES);
    }
}
