//! Core: reads a journal for one sink, from any position on.
//!
//! A segment is read from its start, so that what it tells first is known; what stands below the
//! cursor is not handed out. So a sink that begins in the middle sees what one that read all saw.

use std::ops::ControlFlow;

use headwater_spool::{Chunk, Disk, ReadError, Reader, SegmentInfo};

use super::{Depth, Interpreted, Interpreter};
use crate::pipeline::envelope::RecordKind;
use crate::pipeline::snapshot;
use crate::pipeline::undated::ClockBook;

/// Bytes read at once of what stands before the cursor.
const PASS_BYTES: usize = 1 << 20;

/// What came of handing a record out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It was taken, and there may be more.
    More,
    /// It was taken, and no more is wanted now.
    Enough,
    /// It was not taken: it comes again with the next read.
    Not,
}

/// Reads a journal for one sink. Bounded as [`Interpreter`] is.
pub struct Feed<D: Disk> {
    reader: Reader<D>,
    interpreter: Interpreter,
    /// The segment that the interpreter stands in.
    segment: Option<u64>,
    /// The first position of it that the interpreter has not read.
    read_to: u64,
    /// The next position to be handed out.
    next: u64,
}

impl<D: Disk> Feed<D> {
    /// Hands out records from `from` on; reads batches as far as `depth` says.
    #[must_use]
    pub fn new(reader: Reader<D>, from: u64, depth: Depth) -> Self {
        Self {
            reader,
            interpreter: Interpreter::new(depth),
            segment: None,
            read_to: 0,
            next: from,
        }
    }

    /// Reads what custody tells of the collector's clock: records that came while it was in doubt are handed out
    /// once they have a date.
    #[must_use]
    pub fn with_clock(mut self, book: ClockBook) -> Self {
        self.interpreter.share_clock(book);
        self
    }

    /// What custody tells of the collector's clock.
    #[must_use]
    pub const fn clock_book(&self) -> &ClockBook {
        self.interpreter.clock_book()
    }

    /// The next position to be handed out.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.next
    }

    /// Hands out from `position` on.
    pub const fn seek(&mut self, position: u64) {
        self.next = position;
        self.segment = None;
    }

    /// A reader of the same journal, with a place of its own.
    #[must_use]
    pub fn reader(&self) -> Reader<D> {
        self.reader.another()
    }

    /// The position after the last record that is durable.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.reader.durable()
    }

    /// Hands out records that are durable until their bytes pass `max_bytes`, `take` has enough, or
    /// nothing is left. [`Chunk::next`] is where the next read goes on.
    ///
    /// # Errors
    /// [`ReadError`]; what was taken was taken.
    pub fn read(
        &mut self,
        max_bytes: usize,
        mut take: impl FnMut(&Interpreted<'_>) -> Taken,
    ) -> Result<Chunk, ReadError> {
        let begun = self.next;
        let mut all = Chunk {
            next: self.next,
            ..Chunk::default()
        };
        while let Some(segment) = self.reader.segment_at(self.next) {
            if let Err(error) = self.enter(&segment) {
                // What was passed over before is told; the next read meets the error again.
                return if all.next > begun {
                    Ok(all)
                } else {
                    Err(error)
                };
            }
            let (interpreter, next) = (&mut self.interpreter, &mut self.next);
            let mut flow = Taken::More;
            let left = max_bytes.saturating_sub(all.bytes);
            let read =
                self.reader
                    .read_within(segment.id, *next, left, |position, kind, payload| {
                        if interpreter.waits_at(position, kind) {
                            (flow, *next) = (Taken::Not, position);
                            return ControlFlow::Break(());
                        }
                        // A record that this build does not know gives nothing; custody watches
                        // for what no sink covers.
                        if let Ok(item) = interpreter.read(position, kind, payload) {
                            flow = take(&item);
                        }
                        match flow {
                            Taken::More => {
                                *next = position + 1;
                                ControlFlow::Continue(())
                            }
                            Taken::Enough => {
                                *next = position + 1;
                                ControlFlow::Break(())
                            }
                            Taken::Not => {
                                *next = position;
                                ControlFlow::Break(())
                            }
                        }
                    });
            let read = match read {
                Ok(read) => read,
                Err(_) if all.next > begun => return Ok(all),
                Err(error) => return Err(error),
            };
            if flow != Taken::Not {
                self.next = read.next;
            }
            self.read_to = self.read_to.max(self.next);
            all.records += read.records;
            all.bytes += read.bytes;
            all.damage.extend(read.damage);
            all.next = self.next;
            if flow != Taken::More || all.bytes >= max_bytes || read.next < segment.next {
                break;
            }
        }
        Ok(all)
    }

    /// Brings the interpreter to where records are handed out next.
    fn enter(&mut self, segment: &SegmentInfo) -> Result<(), ReadError> {
        if self.segment != Some(segment.id) {
            self.interpreter.begin_segment();
            self.segment = None;
            self.read_to = segment.first;
            self.read_preamble(segment)?;
            self.segment = Some(segment.id);
        }
        while self.read_to < self.next {
            let (interpreter, below) = (&mut self.interpreter, self.next);
            let read = self.reader.read_within(
                segment.id,
                self.read_to,
                PASS_BYTES,
                |position, kind, payload| {
                    if position >= below {
                        return ControlFlow::Break(());
                    }
                    interpreter.come_to(position);
                    interpreter.pass_over(kind, payload);
                    ControlFlow::Continue(())
                },
            )?;
            if read.next <= self.read_to {
                break;
            }
            self.read_to = read.next;
        }
        Ok(())
    }

    /// Rules stand in the first records of a segment, and once more in its snapshot: a bit of rot in
    /// one place must not cost the meaning of all records.
    fn read_preamble(&mut self, segment: &SegmentInfo) -> Result<(), ReadError> {
        let interpreter = &mut self.interpreter;
        self.reader
            .read_within(segment.id, segment.first, PASS_BYTES, |_, kind, payload| {
                match RecordKind::from_u8(kind) {
                    Some(RecordKind::Begin | RecordKind::Rules | RecordKind::DecoderState) => {
                        interpreter.pass_over(kind, payload);
                        ControlFlow::Continue(())
                    }
                    _ => ControlFlow::Break(()),
                }
            })?;
        let (has_rules, has_begin) = (self.interpreter.has_rules(), self.interpreter.has_begin());
        if !(has_rules && has_begin)
            && let Some(bytes) = self.reader.snapshot_of(segment.id)?
            && let Some((rules, clock)) = snapshot::preamble_of(&bytes)
        {
            if !has_rules {
                self.interpreter.learn_rules(&rules);
            }
            if !has_begin {
                self.interpreter.learn_clock(&clock);
            }
        }
        Ok(())
    }
}
