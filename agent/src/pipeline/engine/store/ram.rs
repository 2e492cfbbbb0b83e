//! Core: an epoch that lives in memory while a lane's disk cannot be written.

use std::collections::VecDeque;
use std::collections::btree_map::{BTreeMap, Entry};
use std::sync::Arc;

use headwater_proto::ids::Epoch;
use headwater_proto::time::Millis;

use super::draft::Draft;
use crate::pipeline::record::Life;

/// How often to try the disk again.
pub const PROBE_MS: u64 = 5_000;

/// A record that is in memory alone.
#[derive(Debug)]
pub(crate) struct InMemory {
    pub(crate) seq: u64,
    pub(crate) payload: Vec<u8>,
}

/// Records that live in memory only: published without being synced, under an epoch that says so.
#[derive(Debug)]
pub(crate) struct Ram {
    pub(crate) epoch: Epoch,
    pub(crate) life: Life,
    pub(crate) next_seq: u64,
    pub(crate) records: VecDeque<InMemory>,
    pub(crate) bytes: usize,
    pub(crate) schemas: BTreeMap<u32, Arc<[u8]>>,
    /// Records that may not go out before they are on disk: those of sources that resume, which
    /// would read them again after a crash.
    pub(crate) limbo: VecDeque<Box<Draft>>,
    pub(crate) limbo_bytes: usize,
    pub(crate) probe_at: Millis,
}

impl Ram {
    pub(crate) fn new(epoch: Epoch, life: Life, probe_at: Millis) -> Self {
        Self {
            epoch,
            life,
            next_seq: 0,
            records: VecDeque::new(),
            bytes: 0,
            schemas: BTreeMap::new(),
            limbo: VecDeque::new(),
            limbo_bytes: 0,
            probe_at,
        }
    }

    /// Whether a record waits for the disk: that of a source that resumes does. What cannot wait, and
    /// what the agent itself says, goes out from memory: a disk that never comes back must not
    /// silence it.
    pub(crate) const fn is_to_wait(record: &Draft) -> bool {
        record.waits
    }

    /// Puts a record aside until the disk is back.
    pub(crate) fn wait(&mut self, record: Box<Draft>) {
        self.limbo_bytes += record.payload(0, None, self.life).len();
        self.limbo.push_back(record);
    }

    /// Keeps a record under the next number, which it returns.
    pub(crate) fn push(&mut self, record: &Draft) -> u64 {
        let seq = self.next_seq;
        let payload = record.payload(seq, None, self.life);
        self.bytes += payload.len();
        self.records.push_back(InMemory { seq, payload });
        self.next_seq += 1;
        seq
    }

    /// Keeps a schema that its records need.
    pub(crate) fn keep_schema(&mut self, number: u32, bytes: &Arc<[u8]>) {
        if let Entry::Vacant(room) = self.schemas.entry(number) {
            self.bytes += bytes.len();
            room.insert(Arc::clone(bytes));
        }
    }

    pub(crate) fn forget_below(&mut self, seq: u64) {
        while self.records.front().is_some_and(|record| record.seq < seq) {
            if let Some(record) = self.records.pop_front() {
                self.bytes -= record.payload.len();
            }
        }
    }
}
