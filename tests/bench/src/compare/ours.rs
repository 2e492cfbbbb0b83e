//! The batch codec as the agent sends it: parameters known from the schema, header, frame, CRC-32C.

use anyhow::{Context, bail};
use headwater_proto::codec::{Encoder, Limits, RowVisitor, decode};
use headwater_proto::frame::{self, Kind};
use headwater_proto::sample::Value;
use headwater_proto::schema::Schema;

use super::Codec;
use crate::table::{Batch, Table};

pub(super) struct Headwater<'a> {
    schema: &'a Schema,
    encoder: Encoder,
    payload: Vec<u8>,
}

impl<'a> Headwater<'a> {
    pub(super) const fn new(schema: &'a Schema, encoder: Encoder) -> Self {
        Self {
            schema,
            encoder,
            payload: Vec::new(),
        }
    }
}

impl Codec for Headwater<'_> {
    fn encode(&mut self, batch: &Batch, out: &mut Vec<u8>) -> anyhow::Result<()> {
        self.payload.clear();
        self.encoder.encode(1, &batch.rows, &mut self.payload)?;
        out.clear();
        frame::append(Kind::Batch, &self.payload, out).context("the frame has no room")
    }

    fn decode(&mut self, bytes: &[u8], table: &mut Table) -> anyhow::Result<()> {
        let (frame, len) = frame::decode(bytes)?;
        if len != bytes.len() || frame.kind != Kind::Batch {
            bail!("not one batch");
        }
        table.clear();
        table.unit_us = 1;
        let mut rows = Rows { table, wrong: None };
        decode(frame.payload, self.schema, &Limits::DEFAULT, &mut rows)?;
        match rows.wrong {
            None => Ok(()),
            Some(wrong) => Err(wrong),
        }
    }
}

/// Gathers decoded rows.
struct Rows<'a> {
    table: &'a mut Table,
    wrong: Option<anyhow::Error>,
}

impl RowVisitor for Rows<'_> {
    fn row(&mut self, _: u32, time_us: i64, series: u32) {
        self.table.begin_row(time_us, series);
    }

    fn value(&mut self, column: usize, value: Value<'_>) {
        if let Err(wrong) = self.table.set(column, value) {
            self.wrong = Some(wrong);
        }
    }
}
