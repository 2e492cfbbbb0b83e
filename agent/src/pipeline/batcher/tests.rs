//! How many shapes a lane remembers, and how many may wait.

use headwater_proto::sample::Value;

use super::super::admit::Field;
use super::*;

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
