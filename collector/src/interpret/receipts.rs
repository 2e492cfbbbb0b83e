//! Core: what the times of receipt of a segment's records are worth.

use crate::pipeline::envelope::{BeginHead, ClockHead, Record, Tie};
use crate::pipeline::undated::ClockBook;

/// What the records of a segment say of it, and what the journal learnt later.
#[derive(Debug, Default)]
pub(crate) struct Times {
    head: ClockHead,
    book: ClockBook,
    /// Position of the next record.
    at: u64,
}

impl Times {
    /// A segment begins: it tells all again.
    pub(crate) fn clear(&mut self) {
        self.head = ClockHead::default();
    }

    /// The next record stands at `position`.
    pub(crate) const fn come_to(&mut self, position: u64) {
        self.at = position;
    }

    pub(crate) fn share(&mut self, book: ClockBook) {
        self.book = book;
    }

    pub(crate) const fn book(&self) -> &ClockBook {
        &self.book
    }

    pub(crate) fn learn(&mut self, record: &Record<'_>) {
        if let Record::Clock(head) | Record::Begin(BeginHead { clock: head, .. }) = record {
            self.learn_head(head);
        }
    }

    pub(crate) fn learn_head(&mut self, head: &ClockHead) {
        self.head.clone_from(head);
    }

    /// What turns the times of the next record into Unix time; `None`: nobody knows yet.
    pub(crate) fn tie(&self) -> Option<Tie> {
        let Some(undated) = &self.head.undated else {
            return Some(Tie::NONE);
        };
        let told = self.head.ties.iter();
        let told = told.copied().find(|tie| tie.number == undated.number);
        let tie = told.or_else(|| self.book.tie(undated.number))?;
        // The stretch was over there, though the record that said so cannot be read.
        let is_over = self.at >= tie.until;
        Some(if is_over { Tie::NONE } else { tie })
    }

    /// Most that these are off, in milliseconds.
    pub(crate) fn error_ms(&self) -> u32 {
        self.tie().map_or(0, |tie| tie.error_ms)
    }
}
