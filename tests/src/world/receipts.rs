//! Core: what a source of the world was told of its receipts.

use std::collections::VecDeque;

use headwater_agent::pipeline::receipts::Settled;

use super::generator::Key;

/// One source of one device.
#[derive(Debug, Clone, Default)]
pub(super) struct Receipts {
    /// Receipts of this life that are not settled, lowest first: how many rows of a source that can begin
    /// again are durable with it, and the readings.
    open: VecDeque<(u64, u64, Vec<Key>)>,
    settled: Settled,
    /// Rows that a source which can begin again was told are durable, over all lives.
    pub(super) rows: u64,
    /// Readings of a source that cannot begin again, which it was told are durable.
    pub(super) durable: Vec<Key>,
    /// How many receipts were not durable.
    pub(super) refused: u64,
}

impl Receipts {
    /// A row was taken.
    pub(super) fn gave(&mut self, receipt: u64, rows: u64, keys: Vec<Key>) {
        self.open.push_back((receipt, rows, keys));
    }

    /// Takes in what the engine says.
    pub(super) fn hear(&mut self, tell: impl FnOnce(&mut Settled) -> bool) {
        if !tell(&mut self.settled) {
            return;
        }
        while let Some((receipt, _, _)) = self.open.front() {
            if *receipt >= self.settled.durable {
                return;
            }
            let Some((receipt, rows, keys)) = self.open.pop_front() else {
                return;
            };
            if self.settled.missing(&(receipt..receipt + 1)) > 0 {
                self.refused += 1;
            } else if rows > 0 {
                self.rows = self.rows.max(rows);
            } else {
                self.durable.extend(keys);
            }
        }
    }

    /// The agent is gone; the next one counts from 0.
    pub(super) fn end_life(&mut self) {
        self.open.clear();
        self.settled = Settled::default();
    }
}
