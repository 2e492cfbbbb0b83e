//! What it costs to announce the series of a device, when and how they come.

use headwater_proto::codec::{BatchHeader, RowVisitor, decode};
use headwater_proto::schema::Schema;

use super::*;

/// Label values of the device.
const SERIES: usize = 1_400;
/// Rows that a batch has when its time has come, unless it was closed before.
const BATCH_ROWS: usize = 100;
/// Batches after that.
const STEADY_BATCHES: usize = 300;
/// Bytes that a frame takes beside its payload, about.
const FRAME_BYTES: usize = 10;

/// How the series come.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Order {
    /// All in the first batch, and in each after it.
    AllAtOnce,
    /// One that is new in each batch, among those that came before.
    OnePerBatch,
    /// One that is new is all that a batch holds.
    Alone,
    /// Any, one like the other.
    AtRandom,
}

/// What a batcher gave.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    schemas: usize,
    announced: usize,
    batches: usize,
    frames: usize,
    rows: usize,
}

impl Cost {
    /// Bytes of frames for each sample.
    fn per_sample(self) -> f64 {
        self.frames as f64 / self.rows as f64
    }

    fn since(self, before: Self) -> Self {
        Self {
            schemas: self.schemas - before.schemas,
            announced: self.announced - before.announced,
            batches: self.batches - before.batches,
            frames: self.frames - before.frames,
            rows: self.rows - before.rows,
        }
    }
}

/// Series and time of the rows of a batch.
struct Read(Vec<(u32, i64)>);

impl RowVisitor for Read {
    fn row(&mut self, _: u32, us: i64, series: u32) {
        self.0.push((series, us));
    }
    fn value(&mut self, _: usize, _: Value<'_>) {}
}

/// A device with one metric and a label, whose batches are read back.
struct Run {
    batcher: Batcher,
    resumes: bool,
    cost: Cost,
    /// What came back: series and time of each row.
    seen: Vec<(usize, i64)>,
    given: Vec<(usize, i64)>,
    schemas: std::collections::BTreeMap<u32, Schema>,
    dice: u64,
    most_open: usize,
}

impl Run {
    fn new(resumes: bool, rows: usize) -> Self {
        let limits = BatchLimits { rows, ..LIMITS };
        Self {
            batcher: Batcher::new(limits, Vec::new(), None),
            resumes,
            cost: Cost::default(),
            seen: Vec::new(),
            given: Vec::new(),
            schemas: std::collections::BTreeMap::new(),
            dice: 7,
            most_open: 0,
        }
    }

    fn below(&mut self, most: usize) -> usize {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        usize::try_from(self.dice % most as u64).unwrap()
    }

    fn push(&mut self, series: usize) {
        let turn = self.given.len();
        let value = label(series);
        let labels = [("sensor", value.as_str())];
        let noise = self.below(9) as f64;
        let fields = [Field::new(
            "temperature",
            Value::F64(series as f64 + noise / 10.0),
        )];
        let us = turn as i64 * 10_000;
        let sample = Sample {
            time: UnixMicros(us),
            labels: &labels,
            fields: &fields,
        };
        let dated = Dated {
            base: Base::Wall,
            us,
            stamps: Stamps::default(),
        };
        let given = Given {
            cursor: self.resumes.then_some(Cursor::default()),
            receipt: turn as u64,
            by: None,
        };
        self.given.push((series, us));
        if self.resumes
            && self
                .batcher
                .must_close_first(0, Next::Row(&sample), Base::Wall)
        {
            self.close(Which::Of(0));
        }
        if self.batcher.push(0, &sample, dated, given, Millis(0)).full {
            self.close(Which::Full);
        }
        self.most_open = self.most_open.max(self.open());
    }

    /// Batches that have rows.
    fn open(&self) -> usize {
        let shapes = self.batcher.shapes.iter();
        shapes.filter(|shape| !shape.rows.is_empty()).count()
    }

    fn close(&mut self, which: Which) {
        while let Some(closed) = self.batcher.close(which, TURN, Millis(10_000)) {
            if let Some((number, bytes)) = closed.new_schema {
                self.cost.schemas += 1;
                self.cost.announced += bytes.len();
                let schema = Schema::decode(&bytes, &Limits::DEFAULT).unwrap();
                assert!(self.schemas.insert(number, schema).is_none());
            }
            let Content::Batch(payload) = closed.content else {
                panic!("a batch of rows")
            };
            self.cost.batches += 1;
            self.cost.frames += payload.len() + FRAME_BYTES;
            self.cost.rows += usize::try_from(closed.samples).unwrap();
            self.read(&payload);
        }
    }

    fn read(&mut self, payload: &[u8]) {
        let number = BatchHeader::peek(payload).unwrap().schema_no;
        let schema = &self.schemas[&number];
        let mut read = Read(Vec::new());
        decode(payload, schema, &Limits::DEFAULT, &mut read).unwrap();
        for (series, us) in read.0 {
            let series = &schema.series[series as usize];
            let number = series.labels[0].1.rsplit('-').next().unwrap();
            self.seen.push((number.parse().unwrap(), us));
        }
    }

    /// Gives all series once at least, in batches; then as many batches of all of them.
    fn run(&mut self, order: Order) -> (Cost, Cost) {
        let mut known = 0;
        while known < SERIES {
            for row in 0..self.batcher.limits.rows.min(BATCH_ROWS * SERIES) {
                let series = match order {
                    Order::AllAtOnce => row,
                    Order::OnePerBatch if row > 0 => self.below(known),
                    Order::Alone if row > 0 => break,
                    Order::OnePerBatch | Order::Alone => known,
                    Order::AtRandom => self.below(SERIES),
                };
                known = match order {
                    Order::AtRandom => known,
                    Order::AllAtOnce | Order::OnePerBatch | Order::Alone => known.max(series + 1),
                };
                self.push(series);
            }
            self.close(Which::Due);
            if order == Order::AtRandom && self.given.len() >= 20 * SERIES {
                break;
            }
        }
        let growth = self.cost;
        for _ in 0..STEADY_BATCHES {
            for _ in 0..BATCH_ROWS {
                let series = self.below(SERIES);
                self.push(series);
            }
            self.close(Which::Due);
        }
        if self.resumes {
            // A cursor covers all before it.
            assert_eq!(self.most_open, 1);
        } else {
            self.seen.sort_unstable();
            self.given.sort_unstable();
        }
        assert!(
            self.seen == self.given,
            "each row comes back once, with its series, in the order of cursors"
        );
        (growth, self.cost.since(growth))
    }
}

fn label(series: usize) -> String {
    format!("plant-07/hall-02/line-{:02}/pump-{series}", series % 40)
}

/// Bytes that all series take in one schema, about.
fn all_bytes() -> usize {
    (0..SERIES)
        .map(|n| "sensor".len() + label(n).len() + 3)
        .sum()
}

/// Runs both kinds of source, prints what they cost, and returns it: of one that cannot resume, of one that can.
fn costs(order: Order) -> [(Cost, Cost); 2] {
    println!("{order:?}; all series once: {} bytes", all_bytes());
    [false, true].map(|resumes| {
        let rows = if order == Order::AllAtOnce {
            SERIES
        } else {
            BATCH_ROWS
        };
        let (growth, after) = Run::new(resumes, rows).run(order);
        println!(
            "resumes {resumes:<5}: {:>5} schemas, {:>8} bytes, {:>5} batches, {:.3} B/sample; \
             then {:>3} schemas, {:>7} bytes, {:.3} B/sample",
            growth.schemas,
            growth.announced,
            growth.batches,
            growth.per_sample(),
            after.schemas,
            after.announced,
            after.per_sample(),
        );
        (growth, after)
    })
}

/// Of rows of all series in one schema, 100 a batch.
const KNOWN_PER_SAMPLE: f64 = 3.52;

#[test]
fn series_that_come_at_once_are_announced_once_and_again_with_what_was_fitted() {
    for (growth, after) in costs(Order::AllAtOnce) {
        assert_eq!((growth.schemas, after.schemas), (1, 1));
        assert!(growth.announced <= all_bytes() * 101 / 100);
        assert!(after.per_sample() <= KNOWN_PER_SAMPLE);
    }
}

#[test]
fn a_series_more_in_each_batch_does_not_announce_all_others_again() {
    let [(growth, after), (resumed, resumed_after)] = costs(Order::OnePerBatch);
    assert!(growth.announced <= 16 * all_bytes());
    assert!(after.per_sample() <= 1.1 * KNOWN_PER_SAMPLE);
    // A row costs no more than the series of another.
    assert!(resumed.announced <= resumed.rows * all_bytes() / SERIES);
    assert!(resumed.batches * LEAST_ROWS <= resumed.rows);
    assert!(resumed_after.per_sample() <= 1.01 * KNOWN_PER_SAMPLE);
}

#[test]
fn series_that_come_alone_are_announced_a_few_times_each() {
    for (growth, _) in costs(Order::Alone) {
        assert!(growth.schemas <= SERIES);
        assert!(growth.announced <= 12 * all_bytes());
    }
}

#[test]
fn series_in_any_order_come_to_stand_in_one_schema() {
    let [(growth, after), (resumed, resumed_after)] = costs(Order::AtRandom);
    assert!(growth.announced <= 8 * all_bytes());
    assert!(resumed.announced <= 16 * all_bytes());
    for after in [after, resumed_after] {
        assert!(after.per_sample() <= 1.01 * KNOWN_PER_SAMPLE);
    }
}

#[test]
fn bytes_announced_do_not_grow_with_the_square_of_series() {
    let announced = |series: usize| {
        let mut run = Run::new(false, BATCH_ROWS);
        for series in 0..series {
            run.push(series);
            run.close(Which::Due);
        }
        run.cost.announced
    };
    let (half, all) = (announced(SERIES / 2), announced(SERIES));
    assert!(all < half * 5 / 2, "{half} {all}");
}
