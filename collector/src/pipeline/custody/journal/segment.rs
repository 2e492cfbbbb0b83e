//! Core: what stands in a segment beside the records that arrive.

use std::collections::BTreeSet;

use headwater_proto::text;
use headwater_spool::Disk;

use super::{Journal, clock};
use crate::pipeline::envelope::{
    BeginHead, ClockHead, DecoderStates, Record, RecordKind, SchemaHead,
};
use crate::pipeline::ledger::Ledger;
use crate::pipeline::schemas::{SchemaBook, SchemaId};

/// What the present segment says of schema numbers.
#[derive(Debug, Default)]
pub(super) struct Segment {
    /// Schema numbers whose meaning stands in it.
    numbers: BTreeSet<SchemaHead>,
    /// Dictionaries of which all bytes stand in it.
    dictionaries: BTreeSet<SchemaId>,
    /// The last word in it on the collector's clock.
    pub(super) clock: Option<ClockHead>,
}

impl Segment {
    /// Nothing is known to stand in it.
    pub(super) fn clear(&mut self) {
        self.numbers.clear();
        self.dictionaries.clear();
        self.clock = None;
    }

    /// It says what a number means; `bytes` are that, or stand for it.
    pub(super) fn holds(&mut self, schemas: &SchemaBook, head: &SchemaHead, bytes: &[u8]) {
        self.numbers.insert(head.clone());
        self.dictionaries.extend(schemas.dictionary_id(head, bytes));
    }

    pub(super) fn has_dictionary(&self, id: &SchemaId) -> bool {
        self.dictionaries.contains(id)
    }
}

impl<D: Disk> Journal<D> {
    /// What has to stand in the segment before a record with a payload of `len` bytes.
    pub(super) fn ahead_of(
        &self,
        ledger: &Ledger,
        schema: Option<&SchemaHead>,
        len: usize,
    ) -> Vec<(RecordKind, Vec<u8>)> {
        let is_there = schema.is_none_or(|head| self.segment.numbers.contains(head));
        let clock = clock::owes(self).then(|| Record::Clock(self.clock.head().clone()));
        if is_there && clock.is_none() && !self.log.needs_segment(&[len]) {
            return Vec::new();
        }
        let encoded = |record: Record<'_>| {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            (record.kind(), bytes)
        };
        let whole = schema.and_then(|head| {
            let bytes = self.schemas.bytes_of(head)?;
            Some(encoded(Record::Schema(head.clone(), &bytes)))
        });
        let short = schema.and_then(|head| {
            let id = self.schemas.dictionary_id(head, &[])?;
            let is_here = self.segment.has_dictionary(&id);
            is_here.then(|| encoded(Record::Schema(head.clone(), &text::refer(&id))))
        });
        let more = short
            .clone()
            .or_else(|| whole.clone())
            .filter(|_| !is_there);
        let clock = clock.map(encoded);
        let lens = clock.iter().chain(&more).map(|(_, bytes)| bytes.len());
        let lens: Vec<usize> = lens.collect();
        let begins = self.log.needs_segment(&[lens.as_slice(), &[len]].concat());
        let schema = if begins { whole } else { more };
        let mut ahead = Vec::new();
        if begins {
            ahead.push(encoded(Record::Begin(BeginHead {
                journal: self.name,
                plain_epoch: ledger.plain_epoch(),
                apart_since: self.apart_since,
                sinks: self.sinks.cursors().to_vec(),
                clock: self.clock.head().clone(),
            })));
            ahead.push(encoded(Record::Rules(&self.rules.bytes)));
            ahead.push(encoded(Record::DecoderState(DecoderStates::default())));
        } else {
            ahead.extend(clock);
        }
        ahead.extend(schema);
        ahead
    }
}
