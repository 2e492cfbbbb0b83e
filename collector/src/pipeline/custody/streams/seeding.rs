//! Core: what a start, and a lake, tell of streams beside the records that are read again.

use headwater_proto::delivery::End;
use headwater_proto::ids::{SeqRange, Stream};

use super::Streams;

impl Streams {
    /// What was committed is not known beyond what is here: where the end of an epoch is not either, there
    /// may have been more.
    pub(in super::super) fn doubt_ends(&mut self) {
        self.ledger.doubt_ends();
    }

    /// Empties the sets of what sinks have beyond each other, to be filled by a start.
    pub(in super::super) fn begin_coverage(&mut self) {
        self.coverage.clear();
    }

    /// A required sink that is ahead of another one has `range`, and the one that is last has none of it.
    pub(in super::super) fn cover(&mut self, sink: &str, stream: &Stream, range: SeqRange) {
        for open in self.ledger.uncommitted(stream, range) {
            // Since the last of the sinks has none of it, nothing is committed by this.
            self.coverage.add(sink, stream, open);
        }
    }

    /// Some records between the cursors could not be read by a start.
    pub(in super::super) fn doubt_coverage(&mut self) {
        if self.coverage.is_shared() {
            self.coverage.doubt();
        }
    }

    /// The parts of `held`, which `sink` holds of a stream, that count as committed. With several required
    /// sinks they are not those that another one has yet to read from the journal. What this journal took and
    /// cannot read any more counts: a sink that had not read it is named for it before its cursor passes.
    pub(in super::super) fn take_seeds(
        &mut self,
        sink: &str,
        stream: &Stream,
        held: &[SeqRange],
    ) -> Vec<SeqRange> {
        if !self.coverage.is_shared() || !self.coverage.requires(sink) {
            return held.to_vec();
        }
        let mut seeds = Vec::new();
        let split = |range: &SeqRange| self.coverage.split(stream, *range);
        let parts: Vec<SeqRange> = held.iter().flat_map(split).collect();
        for part in parts {
            let taken = self.ledger.taken_and_open(stream, part);
            if taken.is_empty() {
                // Nothing of it will be read: where a record of this journal names it as missing, what the
                // lake has wins.
                self.coverage.forget(stream, part);
                seeds.push(part);
                continue;
            }
            if self.coverage.is_anywhere(stream, part) {
                let lacking = self.coverage.lacking(stream, part);
                if lacking.iter().any(|name| name == sink) {
                    seeds.extend(self.coverage.add(sink, stream, part));
                }
                continue;
            }
            if self.coverage.is_doubtful() {
                // It cannot be read: who has not passed it is named for it before it does.
                seeds.push(part);
                continue;
            }
            // Its records are readable, and the other sinks come to them.
            let mut rest = part.first;
            for range in taken {
                seeds.push(SeqRange::new(rest, range.first));
                self.coverage.add(sink, stream, range);
                rest = range.next;
            }
            seeds.push(SeqRange::new(rest, part.next));
        }
        seeds.retain(|range| !range.is_empty());
        seeds
    }

    /// What an existing lake holds of a stream, where the journal does not know; before the first
    /// Welcome. Numbers in `partial` are there in part, and will be named.
    pub(in super::super) fn seed(
        &mut self,
        stream: Stream,
        held: &[SeqRange],
        partial: &[u64],
        end: Option<End>,
    ) {
        self.ledger.seed(stream, held, partial, end);
    }

    /// What a lake proves of a plain device under an epoch of this journal.
    pub(in super::super) fn seed_plain(&mut self, stream: &Stream, held: &[SeqRange], next: u64) {
        self.ledger.seed_plain(stream, held, next);
    }
}
