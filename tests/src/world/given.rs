//! Core: what a sink is given of a numbered record: rows with their times, and what is refused of it and
//! why. The lake is read in the same form, so that the two can be compared.

use std::collections::BTreeSet;

use headwater_collector::interpret::{Block, Interpreted};
use headwater_proto::codec::{self, Limits, RowVisitor};
use headwater_proto::ids::Stream;
use headwater_proto::sample::Value;
use headwater_proto::schema::Schema;

use super::generator::{Bits, LOG, line_number};

/// A numbered record.
pub type Number = (Stream, u64);

/// A row, as the lake's tables hold it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// Its metric, or that it is a log line.
    pub metric: String,
    /// Its final time.
    pub ts_us: i64,
    /// How far that may be off.
    pub error_ms: Option<u32>,
    /// Its value.
    pub bits: Bits,
}

/// What is refused of a record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refused {
    /// Row within the record.
    pub row: Option<u32>,
    /// Its metric.
    pub metric: Option<String>,
    /// Why, as a name.
    pub reason: String,
    /// Why, in words.
    pub cause: Option<String>,
    /// What was refused.
    pub payload: Vec<u8>,
}

/// All of a record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Given {
    /// What is believed of it.
    pub rows: BTreeSet<Row>,
    /// What is not.
    pub refused: BTreeSet<Refused>,
}

impl Given {
    /// Whether nobody could decode it.
    #[must_use]
    pub fn is_undecodable(&self) -> bool {
        let mut refused = self.refused.iter();
        self.rows.is_empty() && refused.any(|refused| refused.reason == "undecodable")
    }

    /// What a record says. A batch that was not opened is opened here, and all its rows are believed.
    #[must_use]
    pub fn of(item: &Interpreted<'_>) -> Self {
        let Some(origin) = item.origin else {
            return Self::default();
        };
        let samples = item.samples.iter().filter_map(|sample| {
            Some(Row {
                metric: sample.metric.to_owned(),
                ts_us: sample.ts_us,
                error_ms: sample.error_ms,
                bits: bits_of(sample.value)?,
            })
        });
        let device = origin.device.as_str();
        let lines = item.lines.iter().map(|line| Row {
            metric: LOG.to_owned(),
            ts_us: line.ts_us,
            error_ms: line.clock.error_ms,
            bits: Bits::Line(line_number(device, &line.message).unwrap_or(-1)),
        });
        let mut rows: BTreeSet<Row> = samples.chain(lines).collect();
        if let Some(block) = &item.block {
            rows.extend(opened(block, origin.clock.error_ms));
        }
        let refused = item.refused().map(|refused| Refused {
            row: refused.row,
            metric: refused.metric.map(std::borrow::Cow::into_owned),
            reason: refused.reason.name().to_owned(),
            cause: (!refused.cause.is_empty()).then(|| refused.cause.into_owned()),
            payload: refused.payload.into_owned(),
        });
        Self {
            rows,
            refused: refused.collect(),
        }
    }

    /// How many rows and refusals there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len() + self.refused.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds what came under the same number. If it is the same as before, nothing changes.
    pub fn merge(&mut self, other: &Self) {
        self.rows.extend(other.rows.iter().cloned());
        self.refused.extend(other.refused.iter().cloned());
    }
}

fn bits_of(value: Value<'_>) -> Option<Bits> {
    match value {
        Value::F64(value) => Some(Bits::F64(value.to_bits())),
        Value::I64(value) => Some(Bits::I64(value)),
        Value::F32(_) | Value::Bool(_) | Value::Str(_) => None,
    }
}

struct Opener<'a> {
    schema: &'a Schema,
    offset_us: i64,
    error_ms: Option<u32>,
    ts_us: i64,
    rows: Vec<Row>,
}

impl RowVisitor for Opener<'_> {
    fn row(&mut self, _: u32, time_us: i64, _: u32) {
        self.ts_us = time_us.saturating_add(self.offset_us);
    }

    fn value(&mut self, column: usize, value: Value<'_>) {
        let (column, bits) = (self.schema.columns.get(column), bits_of(value));
        self.rows.extend(column.zip(bits).map(|(column, bits)| Row {
            metric: column.name.clone(),
            ts_us: self.ts_us,
            error_ms: self.error_ms,
            bits,
        }));
    }
}

/// The rows of a batch that was not opened; none if it cannot be.
fn opened(block: &Block<'_>, error_ms: Option<u32>) -> Vec<Row> {
    let mut opener = Opener {
        schema: block.schema,
        offset_us: block.offset_us,
        error_ms,
        ts_us: 0,
        rows: Vec::new(),
    };
    let read = codec::decode(block.payload, block.schema, &Limits::DEFAULT, &mut opener);
    read.map_or_else(|_| Vec::new(), |_| opener.rows)
}
