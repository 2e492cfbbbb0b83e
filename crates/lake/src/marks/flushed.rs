//! Core: what one flush brings to the marks of a lake, so that its files need not be read for them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use headwater_proto::ids::{SeqRange, Stream};

use crate::audit::{EpochMark, Holding, Holdings, Key};
use crate::row::{EpochRow, GapRow, LogRow, PRUNED, Record};
use crate::rows::{Rows, TextId};

/// Stage of a gap that names what another sink lacks: the lake has it.
const OTHER_SINK: &str = "sink";

/// What the rows of one flush bring, as a scan of their files would find it.
pub(crate) fn holdings_of(rows: &Rows) -> Holdings {
    let mut found = Found::default();
    found.samples(rows);
    for row in rows.quarantine.iter().filter(|row| row.samples > 0) {
        let key = found.key_of(&row.stream);
        let part = found.parts.entry((key, row.seq)).or_default();
        part.found += u64::from(row.samples.unsigned_abs());
        part.size = part.size.max(row.batch_samples.unwrap_or(0));
    }
    rows.gaps.iter().for_each(|row| found.gap(row));
    rows.epochs.iter().for_each(|row| found.epoch(row));
    rows.logs.iter().for_each(|row| found.line(row));
    for ((key, seq), part) in std::mem::take(&mut found.parts) {
        let holding = found.holdings.entry(key).or_default();
        if part.size > 0 && part.found >= u64::from(part.size) {
            holding.there.insert(SeqRange::new(seq, seq + 1));
        } else {
            holding.partial.insert(seq);
        }
    }
    found.holdings.values_mut().for_each(Holding::settle);
    found.holdings
}

/// Readings of one batch, or lines of one record, that were found.
#[derive(Default)]
struct Part {
    size: u32,
    found: u64,
}

#[derive(Default)]
struct Found {
    holdings: Holdings,
    parts: BTreeMap<(Key, u64), Part>,
    names: HashMap<String, Arc<str>>,
}

impl Found {
    fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return Arc::clone(known);
        }
        let new: Arc<str> = name.into();
        self.names.insert(name.to_owned(), Arc::clone(&new));
        new
    }

    fn key_of(&mut self, stream: &Stream) -> Key {
        Key {
            device: self.name(stream.device.as_str()),
            lane: self.name(stream.lane.name()),
            epoch: stream.epoch.get().cast_signed(),
        }
    }

    fn samples(&mut self, rows: &Rows) {
        let mut counts = vec![0u64; rows.batches.len()];
        for part in &rows.samples {
            counts[part.batch as usize] += 1;
        }
        let mut devices: HashMap<TextId, Arc<str>> = HashMap::new();
        for (batch, count) in rows.batches.iter().zip(counts) {
            let device = devices
                .entry(batch.device)
                .or_insert_with(|| rows.texts.get(batch.device).unwrap_or_default().into());
            let key = Key {
                device: Arc::clone(device),
                lane: self.name(batch.lane.name()),
                epoch: batch.epoch,
            };
            let (seq, size) = (
                batch.seq.cast_unsigned(),
                batch.batch_samples.cast_unsigned(),
            );
            if count == u64::from(size) {
                let holding = self.holdings.entry(key).or_default();
                holding.there.insert(SeqRange::new(seq, seq + 1));
            } else {
                // Its readings lie apart, or some are in quarantine.
                let part = self.parts.entry((key, seq)).or_default();
                part.size = part.size.max(size);
                part.found += count;
            }
        }
    }

    fn gap(&mut self, row: &GapRow) {
        if row.stage != OTHER_SINK {
            let key = self.key_of(&row.stream);
            let holding = self.holdings.entry(key).or_default();
            if let Some((first, last)) = row.seqs {
                let range = SeqRange::new(first, last + 1);
                holding.named.insert(range);
                if (&*row.reason, &*row.stage) == PRUNED {
                    holding.there.insert(range);
                }
            }
        }
        self.record(row.record.as_ref());
    }

    fn epoch(&mut self, row: &EpochRow) {
        let key = self.key_of(&row.stream);
        let new = EpochMark {
            first: row.first_seq,
            next: row.next_seq,
            state: row.state,
        };
        let known = &mut self.holdings.entry(key).or_default().epoch;
        *known = Some(known.map_or(new, |known| known.merge(new)));
        self.record(row.record.as_ref());
    }

    fn line(&mut self, row: &LogRow) {
        match (&row.record, row.record_lines) {
            (Some(record), Some(lines)) if lines > 0 => {
                let key = self.key_of(&record.stream);
                let part = self.parts.entry((key, record.seq)).or_default();
                part.size = part.size.max(lines);
                part.found += 1;
            }
            (record, _) => self.record(record.as_ref()),
        }
    }

    fn record(&mut self, record: Option<&Record>) {
        if let Some(Record { stream, seq }) = record {
            let key = self.key_of(stream);
            let holding = self.holdings.entry(key).or_default();
            holding.there.insert(SeqRange::new(*seq, seq + 1));
        }
    }
}
